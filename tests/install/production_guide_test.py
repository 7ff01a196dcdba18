#!/usr/bin/python3
"""The steps of tools/README.md, pasted block by block on a copy of this machine; and what is then done with it."""

import json
import os
import re
import subprocess
import types
import unittest

from tests.support.load import Load
from tests.support.cluster import HANDLER
from tests.support.sandbox import CannotMount, Sandbox
from tests.support.stack import ROOT

USER = "0c0c0c0c-0000-4000-8000-00000000000c"
SESSION = "5e550000-0000-4000-8000-00000000000c"
ENVIRONMENT = "/etc/keys-fcgi/environment"
PACKAGE = "build/deb/keys-fcgi_*.deb"


GUIDE = (ROOT / "tools/README.md").read_text(encoding="utf-8")


def section(heading):
    """What the guide says below a heading, up to the next."""
    return re.split(r"\n##+ ", GUIDE.split(f"\n{heading}\n")[1])[0]


def steps():
    """The numbered steps, one after the other."""
    found = re.findall(r"^## (\d+)\. (.*)$", GUIDE, re.M)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1)) and len(found) > 5, found
    return "".join(section(f"## {number}. {name}") for number, name in found)


def blocks(text, language=""):
    return "".join(re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S))


def setUpModule():
    global sandbox, pasted, site, token
    if os.geteuid() != 0:
        raise unittest.SkipTest("a copy of the machine needs root")
    if HANDLER != ROOT / "build/keys-fcgi":
        raise unittest.SkipTest("packages are of the release build")
    try:
        sandbox = unittest.enterModuleContext(Sandbox())
    except CannotMount as reason:
        raise unittest.SkipTest(f"no copy of the machine can be made here: {reason}") from None
    pasted = sandbox.run("bash", "-euo", "pipefail", "-c", blocks(steps(), "sh"), check=False)
    if pasted.returncode != 0:
        raise AssertionError(f"the guide's blocks fail: exit {pasted.returncode}\n{pasted.stdout}{pasted.stderr}")
    sandbox.join_network()
    # What the rest asks with: somebody whose limit is out of reach.
    site = types.SimpleNamespace(url="https://localhost:443", cacert=sandbox.path("/etc/nginx/keys/certificate.pem"))
    sql(
        f"""
        UPDATE tiers SET requests_per_minute = 1000000 WHERE name = 'pro';
        INSERT INTO auth.users (id) VALUES ('{USER}');
        INSERT INTO auth.sessions (id, user_id) VALUES ('{SESSION}', '{USER}');
        INSERT INTO accounts (user_id, tier) VALUES ('{USER}', 'pro');"""
    )
    mint = ("/usr/lib/keys-fcgi/mint-token", "--key", "/etc/keys-fcgi/jwt-secret", "--user", USER, "--session", SESSION)
    token = sandbox.run(*mint).stdout.strip()


def sql(text):
    return sandbox.run(
        "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "keys", user="postgres", input=text
    ).stdout.strip()


def pool():
    return set(sandbox.pids("keys-fcgi"))


def status_of(url, with_token=None):
    config = f'header = "Cookie: sb-access-token={with_token}"\n' if with_token else ""
    command = ["curl", "-q", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", site.cacert, "-K", "-", url]
    return subprocess.run(command, input=config, capture_output=True, text=True, check=False).stdout


class ProductionTest(unittest.TestCase):
    """In the order of their numbers: the last removes it all."""

    def setUp(self):
        self.assertEqual(status_of(site.url + "/api/v1/keys", token), "200", "a good request before it")

    def served_without_a_loss(self, *command, check=True):
        """Runs a command on the machine while clients ask; each must be answered with 200."""
        with Load(site, token, clients=4, pause=0.005) as load:
            load.wait_for(200)
            done = sandbox.run(*command, check=False)
            if check and done.returncode != 0:
                self.fail(done.stderr + sandbox.run("journalctl", "-u", "keys-fcgi@*").stdout[-2000:])
            load.wait_for(200)
        self.assertEqual((load.lost, set(load.statuses())), ([], {200}))
        return done

    def edit(self, name, change):
        """Changes a file of the machine for the length of a test."""
        path = sandbox.path(name)
        before, mode = path.read_bytes(), path.stat().st_mode
        self.addCleanup(lambda: (path.unlink(), path.write_bytes(before), path.chmod(mode)))
        text = change(before.decode("utf-8", "surrogateescape"))
        path.unlink()
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def test_1_the_guide_followed_to_the_letter_ends_in_a_users_keys(self):
        listed = json.loads(pasted.stdout[pasted.stdout.rindex('{"data"') :])
        self.assertEqual([key["name"] for key in listed["data"]], ["My first key"])
        self.assertIn('{"status":"ready"}', pasted.stdout)
        self.assertEqual(status_of(site.url + "/api/v1/keys"), "401")
        self.assertEqual(len(pool()), 2)

    def test_2_the_socket_is_for_nginx_alone(self):
        connect = "import socket; socket.socket(socket.AF_UNIX).connect('/run/keys-fcgi/keys.sock')"
        self.assertEqual(
            sandbox.run("stat", "-c", "%a %U:%G", "/run/keys-fcgi/keys.sock").stdout, "660 root:www-data\n"
        )
        sandbox.run("/usr/bin/python3", "-c", connect, user="www-data")
        for other in ("nobody", "keys-fcgi"):
            with self.subTest(other):
                self.assertIn(
                    "PermissionError", sandbox.run("/usr/bin/python3", "-c", connect, user=other, check=False).stderr
                )

    def test_2_a_process_has_its_user_and_cannot_read_the_files_of_its_secrets(self):
        for pid in pool():
            self.assertEqual(sandbox.run("ps", "-o", "user:20=", "-p", pid).stdout.strip(), "keys-fcgi")
        for name in ("jwt-secret", "pgpass"):
            with self.subTest(name):
                self.assertNotEqual(
                    sandbox.run("cat", f"/etc/keys-fcgi/{name}", user="keys-fcgi", check=False).returncode, 0
                )

    def test_2_the_system_user_has_its_two_roles_in_one_database_and_no_more(self):
        def query(role, database="keys", text="SELECT 1", user="keys-fcgi"):
            return sandbox.run("psql", "-XAt", "-U", role, "-d", database, "-c", text, user=user, check=False)

        for role in ("keys_runtime", "keys_sweeper"):
            with self.subTest(role):
                self.assertEqual(query(role).stdout, "1\n")
                self.assertIn("permission denied", query(role, text="CREATE TEMPORARY TABLE mine ()").stderr)
                for refused in (query(role, database="postgres"), query(role, user="www-data"), query("postgres")):
                    self.assertRegex(refused.stderr, "Peer authentication failed")

    def test_3_a_rolling_restart_loses_no_request(self):
        before = pool()
        self.served_without_a_loss("keys-fcgi-restart")
        self.assertEqual((len(pool()), pool() & before), (2, set()))

    def test_3_wrong_settings_replace_no_process(self):
        before = pool()
        for what, file, old, new in (
            ("another database", ENVIRONMENT, r"@/keys\?", "@/postgres?"),
            ("a setting out of range", ENVIRONMENT, r"#KEYS_DEADLINE_MS=2000", "KEYS_DEADLINE_MS=1"),
            ("too short a secret", "/etc/keys-fcgi/jwt-secret", r"(?s).+", "short"),
        ):
            with self.subTest(what):
                self.edit(file, lambda text, old=old, new=new: re.sub(old, new, text))
                done = self.served_without_a_loss("keys-fcgi-restart", check=False)
                self.assertEqual((done.returncode, pool()), (1, before))
                self.assertIn("nothing was restarted", done.stderr)
                self.doCleanups()

    def test_4_a_program_that_does_not_serve_replaces_one_process_only(self):
        before = pool()
        self.edit("/usr/sbin/keys-fcgi", lambda _: '#!/bin/sh\n[ "$1" = --check ] && exit 0\nsleep 0.3\nexit 1\n')
        done = self.served_without_a_loss("keys-fcgi-restart", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"keys-fcgi@1\.service does not start")
        self.assertEqual(len(pool() & before), 1)
        self.doCleanups()
        sandbox.wait_until(lambda: len(pool()) == 2, what="a process of the good program")

    def test_4_a_killed_process_is_started_again(self):
        victim = sorted(pool())[0]
        sandbox.run("kill", "-KILL", victim)
        sandbox.wait_until(lambda: len(pool() - {victim}) == 2, what="its successor")

    def test_5_an_upgrade_replaces_the_pool_without_a_loss(self):
        before = pool()
        done = self.served_without_a_loss("bash", "-c", f"dpkg -i {PACKAGE}")
        self.assertEqual((len(pool()), pool() & before), (2, set()))
        self.assertNotIn("sql/", done.stderr)

    def test_5_an_upgrade_says_when_sql_has_changed(self):
        self.edit("/usr/share/keys-fcgi/sql/2-schema.sql", lambda text: text + "-- as an older version had it\n")
        done = sandbox.run("bash", "-c", f"dpkg -i {PACKAGE}")
        self.assertIn("sql/ has changed", done.stderr)

    def test_6_the_sweep_deletes_what_has_ended(self):
        sql(
            """INSERT INTO request_counts SELECT gen_random_uuid(), now() - interval '1 s', now() - interval '1 s',
            1, 1, 10, 1000, 1"""
        )
        sandbox.run("systemctl", "start", "keys-fcgi-sweep")
        self.assertEqual(sql("SELECT count(*) FROM request_counts WHERE day_ends < now()"), "0")

    def test_6_the_key_set_is_fetched(self):
        # RFC 7515 appendix A.3.1, from the address where Debian's nginx shows its own page.
        key = {
            "kty": "EC",
            "crv": "P-256",
            "kid": "rfc7515-a3",
            "alg": "ES256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
        sandbox.path("/var/www/html/jwks.json").write_text(json.dumps({"keys": [key]}), encoding="ascii")
        self.edit("/etc/keys-fcgi/refresh-jwks", lambda text: text + "JWKS_URL=http://localhost/jwks.json\n")
        sandbox.run("systemctl", "start", "keys-fcgi-refresh-jwks")
        self.assertIn("rfc7515-a3", sandbox.path("/var/lib/keys-fcgi/jwks.json").read_text(encoding="ascii"))

    def test_7_a_database_on_another_machine_is_reached_by_tls_and_password(self):
        """PostgreSQL of this one, by TCP and with a certificate of its own, stands for it."""
        text = section("## A database on another machine")
        sql("ALTER ROLE keys_runtime PASSWORD 'of runtime'; ALTER ROLE keys_sweeper PASSWORD 'of sweeper'")
        line = re.search(r"`(hostssl [^`]*)`", text)[1].replace("<this host>/32", "samehost")
        filled_in = blocks(text).replace("<the database> <the name server>", "localhost")
        url = re.search(r"`(postgresql://[^`]*)`", text)[1].replace("<host>", "localhost")
        sandbox.run(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f"""
            cd "$(dirname "$(runuser -u postgres -- psql -XAtc 'SHOW hba_file')")"
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \\
              -addext subjectAltName=DNS:localhost -keyout server.key -out root.crt
            chown postgres: server.key root.crt
            printf "ssl = on\\nssl_cert_file = '$PWD/root.crt'\\nssl_key_file = '$PWD/server.key'\\n" >>postgresql.conf
            sed -i '1i {line}' pg_hba.conf
            systemctl reload postgresql""",
        )
        self.assertIn("root.crt", sql("SHOW ssl_cert_file"), "reloaded")
        sandbox.run(
            "bash",
            "-euo",
            "pipefail",
            "-c",
            f"""
            cd "$(dirname "$(runuser -u postgres -- psql -XAtc 'SHOW hba_file')")"  # where root.crt is
            {filled_in}
            printf 'localhost:5432:keys:keys_%s\\n' 'runtime:of runtime' 'sweeper:of sweeper' >/etc/keys-fcgi/pgpass
            sed -i 's|^KEYS_DATABASE_URL=.*|KEYS_DATABASE_URL={url.replace("&", chr(92) + "&")}|' /etc/keys-fcgi/environment
            printf 'PGHOST=localhost\\nPGSSLMODE=verify-full\\nPGSSLROOTCERT=/etc/keys-fcgi/root.crt\\n' >>/etc/keys-fcgi/sweep""",
        )
        self.served_without_a_loss("keys-fcgi-restart")
        how = """SELECT DISTINCT ssl, client_addr IS NOT NULL FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE usename = 'keys_runtime'"""
        sandbox.wait_until(lambda: sql(how) == "t|t", what="connections over TLS alone")
        sandbox.run("systemctl", "start", "keys-fcgi-sweep")
        verified = sandbox.run(
            "systemd-analyze", "verify", "--man=no", "keys-fcgi@1.service", "keys-fcgi-sweep.service"
        )
        self.assertEqual(verified.stdout + verified.stderr, "", "the drop-ins")

    def test_7_a_new_socket_comes_with_the_target(self):
        refused = sandbox.run("systemctl", "restart", "keys-fcgi.socket", check=False)
        self.assertIn("already active, refusing", refused.stderr)
        sandbox.run("systemctl", "restart", "keys-fcgi.target")
        sandbox.wait_until(lambda: status_of(site.url + "/api/v1/keys", token) == "200", what="the new pool")

    def test_8_removed_and_purged_it_leaves_an_nginx_that_starts(self):
        sandbox.run("apt-get", "remove", "-y", "keys-fcgi")
        self.assertEqual(pool(), set())
        active = sandbox.run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "keys-fcgi*").stdout
        self.assertEqual(active, "")
        self.assertTrue(sandbox.path(ENVIRONMENT).exists())
        self.assertEqual(
            status_of(site.url + "/api/v1/keys", token), "502", "nginx says so as long as its files are there"
        )
        sandbox.run("apt-get", "purge", "-y", "keys-fcgi")
        sandbox.run("nginx", "-t")
        sandbox.run("systemctl", "restart", "nginx")
        sandbox.wait_until(lambda: status_of("http://localhost/") == "200", what="Debian's own page")
        roots = ("/etc", "/usr/sbin", "/usr/lib", "/usr/share", "/var/lib/keys-fcgi")
        left = sandbox.run(
            "find", *roots, "-name", "*keys-fcgi*", "-not", "-path", "*/dpkg/*", check=False
        ).stdout.split()
        self.assertEqual(left, [])
        self.assertEqual(
            sandbox.run("ls", "/etc/nginx/keys").stdout.split(), ["certificate-key.pem", "certificate.pem"]
        )


if __name__ == "__main__":
    unittest.main()
