#!/usr/bin/python3
"""The package under a real systemd, on a fresh Debian in a virtual machine; RELEASE in the environment: 12 or 13.

The operating guide's numbered steps are pasted block by block; then comes what happens to such a machine. `make
test-boot RELEASE=12` builds what it needs.
"""

import ipaddress
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import types
import unittest

from tests.boot.machine import HOST, Machine
from tests.support.certificates import self_signed
from tests.support.cluster import Cluster
from tests.support.load import Load
from tests.support.stack import ROOT, Stack

RELEASE = os.environ.get("RELEASE", "12")
DIRECTORY = ROOT / "build" / "boot" / RELEASE
USER = "0c0c0c0c-0000-4000-8000-00000000000c"
SESSION = "5e550000-0000-4000-8000-00000000000c"
PASSWORDS = {"keys_runtime": "password-of-runtime", "keys_sweeper": "password-of-sweeper"}
ENVIRONMENT = "/etc/keys-fcgi/environment"
# Somebody whose limit is out of reach.
PEOPLE = f"""
    UPDATE tiers SET requests_per_minute = 1000000 WHERE name = 'pro';
    INSERT INTO auth.users (id) VALUES ('{USER}');
    INSERT INTO auth.sessions (id, user_id) VALUES ('{SESSION}', '{USER}');
    INSERT INTO accounts (user_id, tier) VALUES ('{USER}', 'pro');"""
MINT = f"/usr/lib/keys-fcgi/mint-token --key /etc/keys-fcgi/jwt-secret --user {USER} --session {SESSION}"
POOL = ("keys-fcgi@1", "keys-fcgi@2")


def guide():
    for name in ("tools/README.md", "README.md"):
        path = ROOT / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if re.search(r"^(?:\*\*|#+ )1\. Install", text, re.M):
            return text
    raise LookupError("no README has the numbered steps")


def steps():
    """The numbered steps, up to the first heading without a number."""
    return re.search(r"^(?:\*\*|##+ )1\. Install.*?(?=^##+ (?!\d)|\Z)", guide(), re.M | re.S)[0]


def blocks(text, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def elsewhere():
    """What the guide says of a database on another machine."""
    return re.search(r"^#+ A database on another machine\n(.*?)(?=^##+ |\Z)", guide(), re.M | re.S)[1]


def setUpModule():
    global machine
    subprocess.run(["tests/boot/make-image", RELEASE, DIRECTORY], cwd=ROOT, check=True, stdout=sys.stderr)
    machine = unittest.enterModuleContext(Machine(DIRECTORY))
    paste()


def paste():
    """The guide's blocks, one after the other, and what the tests ask with."""
    global said, site, token
    machine.wait_until("systemctl is-active nginx postgresql@*")
    # As in one shell: where it stands carries over. The package is made already.
    around = "make() {{ :; }}\ncd $(cat /run/stands-in || echo /root) 2>/dev/null\n{}\npwd >/run/stands-in"
    said = [machine.run(around.format(block)).output for block in blocks(steps(), "sh")]
    certificate = DIRECTORY / "certificate.pem"
    certificate.write_text(machine.run("cat /etc/nginx/keys/certificate.pem").output, encoding="ascii")
    site = types.SimpleNamespace(url=machine.url, cacert=certificate)
    # An emulated machine on a busy host is slow, and how slow is not tested here: no deadline gets in the way.
    machine.run(
        f"""
        echo KEYS_DEADLINE_MS=30000 >>{ENVIRONMENT}
        sed -i 's/fastcgi_read_timeout 5s/fastcgi_read_timeout 40s/' /etc/nginx/keys/keys-api.conf
        systemctl reload nginx
        keys-fcgi-restart"""
    )
    sql(PEOPLE)
    token = machine.run(f"{MINT} --expires-in 86400").output.strip()


def sql(text):
    quoted = text.replace("'", "'\\''")
    return machine.run(
        f"cd /; runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d keys -c '{quoted}'"
    ).output.strip()


def show(unit, name):
    return machine.run(f"systemctl show --property={name} --value {unit}").output.strip()


def pool():
    """The process of each instance that runs."""
    return {unit: pid for unit in POOL if (pid := show(unit, "MainPID")) != "0"}


def replaced(before):
    """Whether every instance of the pool has another process."""
    return pool().keys() == before.keys() and not set(pool().values()) & set(before.values())


class BootTest(unittest.TestCase):
    """In the order of their names: the last removes it all."""

    def load(self):
        return Load(site, token, clients=4, timeout=60, pause=0.2)

    def served_without_a_loss(self, script, check=True):
        """Runs a script on the machine while clients ask; each must be answered with 200."""
        with self.load() as load:
            load.wait_for(200, timeout=120)
            done = machine.run(script, check=check)
            load.wait_for(200, timeout=120)
        self.assertEqual(([one.error for one in load.lost], set(load.statuses())), ([], {200}))
        return done

    def drop_in(self, unit, text, name="test.conf"):
        """Settings of a unit for the length of a test; the caller restarts it."""
        directory = f"/run/systemd/system/{unit}.d"
        machine.run(f"mkdir -p {directory}; cat >{directory}/{name} <<'END'\n{text}\nEND\nsystemctl daemon-reload")
        self.addCleanup(machine.run, f"rm -r {directory}; systemctl daemon-reload; systemctl reset-failed 'keys-fcgi*'")

    def edit(self, file, *commands):
        """Changes a file by sed for the length of a test."""
        machine.run(f"cp -p {file} {file}.before")
        self.addCleanup(machine.run, f"mv {file}.before {file}")
        machine.run(f"sed -i {' '.join(f'-e {chr(39)}{one}{chr(39)}' for one in commands)} {file}")

    def test_01_the_guide_followed_to_the_letter_ends_in_a_users_keys(self):
        listed = json.loads(said[-1][said[-1].rindex('{"data"') :])
        self.assertEqual([key["name"] for key in listed["data"]], ["My first key"])
        self.assertNotIn("could not change directory", "".join(said))
        self.assertEqual(machine.run("systemctl is-system-running").output, "running\n")

    def test_02_a_process_is_confined_as_its_unit_says(self):
        for unit, pid in pool().items():
            with self.subTest(unit):
                status = machine.run(f"cat /proc/{pid}/status").output
                self.assertRegex(status, r"\nCapBnd:\t0+\n")
                self.assertRegex(status, r"\nNoNewPrivs:\t1\n")
                self.assertRegex(status, r"\nSeccomp:\t2\n")
                self.assertEqual(machine.run(f"ps -o user:20= -p {pid}").output.strip(), "keys-fcgi")
        exposure = machine.run("systemd-analyze security keys-fcgi@1 | tail -n 1").output
        self.assertLessEqual(float(re.search(r"level for \S+ ([0-9.]+)", exposure.replace(":", ""))[1]), 2.0)

    def test_02_the_log_of_requests_is_closed_to_others_from_the_start(self):
        self.assertEqual(machine.run("stat -c %a /var/log/nginx/keys-access.log").output, "640\n")

    def test_03_systemd_knows_when_a_process_serves(self):
        self.assertEqual([show(unit, "Type") for unit in POOL], ["notify"] * 2)
        self.assertEqual([show(unit, "SubState") for unit in POOL], ["running"] * 2)

    def test_04_a_rolling_restart_loses_no_request(self):
        before = pool()
        self.served_without_a_loss("keys-fcgi-restart")
        self.assertTrue(replaced(before))

    def test_05_wrong_settings_replace_no_process(self):
        before = pool()
        self.edit(ENVIRONMENT, "s|@/keys[?]|@/postgres?|")
        done = self.served_without_a_loss("keys-fcgi-restart 2>&1", check=False)
        self.assertEqual((done.status, pool()), (1, before))
        self.assertIn("nothing was restarted", done.output)

    def test_06_an_upgrade_and_the_way_back_lose_no_request(self):
        for package in ("/root/newer.deb", "/root/build/deb/keys-fcgi_*.deb"):
            with self.subTest(package):
                before = pool()
                self.served_without_a_loss(f"dpkg -i {package}")
                self.assertTrue(replaced(before))

    def test_07_a_killed_process_is_followed_by_another(self):
        before = pool()
        with self.load() as load:
            load.wait_for(200, timeout=120)
            machine.run(f"kill -KILL {before[POOL[0]]}")
            machine.wait_until(f"systemctl is-active {POOL[0]}; test $(systemctl show -P MainPID {POOL[0]}) != 0")
            load.wait_for(200, timeout=120)
        self.assertEqual(load.lost, [])
        self.assertLessEqual(load.statuses().keys(), {200, 502})
        self.assertLessEqual(load.statuses()[502], 4, "what the process held")
        self.assertNotEqual(pool()[POOL[0]], before[POOL[0]])

    def test_08_a_process_that_grows_is_ended_by_its_memory_limit(self):
        before = pool()
        self.addCleanup(machine.run, "systemctl revert keys-fcgi@1; keys-fcgi-restart", check=False)
        with self.load() as load:
            load.wait_for(200, timeout=120)
            machine.run("systemctl set-property --runtime keys-fcgi@1 MemoryMax=1M")
            machine.wait_until(f"test $(systemctl show -P MainPID {POOL[0]}) != {before[POOL[0]]}")
            machine.run("systemctl set-property --runtime keys-fcgi@1 MemoryMax=256M")
            machine.wait_until(f"systemctl is-active {POOL[0]}")
            load.wait_for(200, timeout=120)
        self.assertLessEqual(load.statuses().keys(), {200, 502})
        self.assertIn("oom-kill", machine.run("journalctl -u keys-fcgi@1").output)
        self.assertEqual(pool()[POOL[1]], before[POOL[1]])

    def test_08_a_process_that_hangs_is_started_anew(self):
        before = pool()
        self.addCleanup(machine.run, "kill -CONT $(pgrep -x keys-fcgi)", check=False)
        with self.load() as load:
            load.wait_for(200, timeout=120)
            machine.run(f"kill -STOP {before[POOL[0]]}")
            pid = f"$(systemctl show -P MainPID {POOL[0]})"
            machine.wait_until(f"systemctl is-active {POOL[0]}; test {pid} != 0; test {pid} != {before[POOL[0]]}")
            load.wait_for(200, timeout=120)
        self.assertLessEqual(load.statuses().keys(), {200, 502, 504})
        self.assertIn("Watchdog timeout", machine.run(f"journalctl -u {POOL[0]}").output)
        self.assertEqual(pool()[POOL[1]], before[POOL[1]])

    def test_09_no_system_call_that_the_filter_forbids_is_needed(self):
        self.drop_in("keys-fcgi@.service", "[Service]\nSystemCallErrorNumber=kill")
        self.addCleanup(machine.run, "keys-fcgi-restart")
        self.served_without_a_loss("keys-fcgi-restart")
        with self.load() as load:
            load.wait_for(200, count=300, timeout=600)
        since = machine.run(f"systemctl show -P ActiveEnterTimestamp {POOL[0]}").output.strip()
        self.assertNotIn("SYS", machine.run(f"journalctl -u 'keys-fcgi@*' --since '{since}' -p warning").output)
        # And the filter bites: without a call that every process makes, none starts.
        self.drop_in("keys-fcgi@check.service", "[Service]\nSystemCallErrorNumber=kill\nSystemCallFilter=~socket")
        self.assertNotEqual(machine.run("systemctl start keys-fcgi@check", check=False).status, 0)
        self.assertIn("status=31/SYS", machine.run("journalctl -u keys-fcgi@check -n 20").output)

    def test_10_a_secret_that_systemd_does_not_hand_over_is_said_to_be_that(self):
        """The images of LXC, Incus and LXD have a generator that clears LoadCredential= of every service."""
        self.drop_in("service", "[Service]\nLoadCredential=", name="zzz-lxc-service.conf")
        self.assertNotEqual(machine.run("systemctl start keys-fcgi@check", check=False).status, 0)
        journal = machine.run("journalctl -u keys-fcgi@check -n 20").output
        self.assertRegex(journal, "jwt-secret.*LoadCredential=")
        self.assertNotIn("4 bytes", journal)
        # Systemd reads drop-ins in the order of their names, whatever their folders: ours has to be the last.
        advice = re.search(r"(\S+\.conf) .*(LoadCredential=jwt-secret:\S+)", journal)
        self.drop_in("keys-fcgi@.service", f"[Service]\n{advice[2]}", name=advice[1])
        machine.run("systemctl start keys-fcgi@check")

    def test_11_timers_fetch_the_key_set_and_sweep(self):
        # RFC 7515 appendix A.3.1, from the address where Debian's nginx shows its own page.
        key = {
            "kty": "EC",
            "crv": "P-256",
            "kid": "rfc7515-a3",
            "alg": "ES256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
        machine.run(f"cat >/var/www/html/jwks.json <<'END'\n{json.dumps({'keys': [key]})}\nEND")
        self.edit("/etc/keys-fcgi/refresh-jwks", "$aJWKS_URL=http://localhost/jwks.json")
        machine.run("systemctl start keys-fcgi-refresh-jwks.timer")
        machine.wait_until("grep rfc7515-a3 /var/lib/keys-fcgi/jwks.json")
        machine.run("systemctl stop keys-fcgi-refresh-jwks.timer")
        sql(
            """INSERT INTO request_counts (user_id, minute_ends, day_ends, minute_count, day_count, minute_limit,
            day_limit, granted) SELECT gen_random_uuid(), now() - interval '1 s', now() - interval '1 s',
            1, 1, 10, 1000, 1"""
        )
        # An hour passes for the timer, not for us.
        self.drop_in("keys-fcgi-sweep.timer", "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\nRandomizedDelaySec=0")
        machine.run("systemctl restart keys-fcgi-sweep.timer")
        machine.wait_until(
            "cd /; test $(runuser -u postgres -- psql -XAtqd keys -c "
            "'SELECT count(*) FROM request_counts WHERE day_ends < now()') = 0"
        )

    def test_12_an_empty_address_of_the_key_set_is_said_to_be_empty(self):
        self.assertNotEqual(machine.run("systemctl start keys-fcgi-refresh-jwks", check=False).status, 0)
        journal = machine.run("journalctl -u keys-fcgi-refresh-jwks -n 5").output
        self.assertIn("JWKS_URL", journal)
        self.assertNotIn("usage", journal.lower())
        machine.run("systemctl reset-failed keys-fcgi-refresh-jwks")

    def test_13_all_is_back_after_a_reboot(self):
        machine.reboot()
        self.assertEqual(machine.run("systemctl is-system-running --wait").output, "running\n")
        self.assertEqual(len(pool()), 2)
        with self.load() as load:
            load.wait_for(200, timeout=120)
        self.assertEqual(set(load.statuses()), {200})

    def test_14_a_database_elsewhere_is_reached_by_tls_and_password_when_its_address_is_allowed(self):
        with tempfile.TemporaryDirectory() as directory:
            files = make_certificate(pathlib.Path(directory))
        rule = re.search(r"`(hostssl [^`]*)`", elsewhere())[1].replace("<this host>", "127.0.0.1")
        settings = {
            "listen_addresses": "127.0.0.1",
            "ssl": "on",
            "ssl_cert_file": "root.crt",
            "ssl_key_file": "server.key",
        }
        with Cluster(settings=settings, hba=f"local all all trust\n{rule}\n", files=files) as cluster:
            cluster.psql("CREATE DATABASE keys")
            cluster.apply_sql(database="keys")
            cluster.psql(PEOPLE, database="keys")
            for role, password in PASSWORDS.items():
                cluster.psql(f"ALTER ROLE {role} PASSWORD '{password}'")
            self.addCleanup(self.go_back_to_the_own_database)
            self.configure_elsewhere(cluster.port, files["root.crt"])
            with self.subTest("its address is not allowed"):
                self.check_that_a_forgotten_address_is_named()
            self.allow_elsewhere()
            with self.subTest("wrong password, corrected"):
                self.check_that_a_corrected_password_is_taken()
            how = """SELECT DISTINCT ssl, client_addr IS NOT NULL FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE usename = 'keys_runtime'"""
            self.assertEqual(cluster.psql(how), "t|t")
            machine.run("systemctl start keys-fcgi-sweep")
            self.assertEqual(machine.run("stat -c '%a %U' /run/keys-fcgi/1/pgpass").output, "600 keys-fcgi\n")
            machine.run("systemctl stop keys-fcgi.target")
            self.assertEqual(machine.run("find /run -name '*pgpass*'").output, "", "a copy that outlives its process")

    def go_back_to_the_own_database(self):
        machine.run(
            """
            mv before/{environment,sweep} /etc/keys-fcgi/
            rm -rf before /etc/systemd/system/keys-fcgi*.service.d /etc/keys-fcgi/pgpass
            systemctl daemon-reload
            systemctl reset-failed 'keys-fcgi*'
            systemctl restart keys-fcgi.target"""
        )
        machine.wait_until("curl -fsS http://127.0.0.1:8480/readyz")

    def configure_elsewhere(self, port, certificate):
        """The guide's block but for the addresses that are allowed, its URL, and the passwords."""
        url = re.search(r"`(postgresql://[^`]*)`", elsewhere())[1].replace("<host>", f"{HOST}:{port}")
        before_units = blocks(elsewhere())[0].split("for unit in")[0]
        machine.run(
            f"""
            install -d before
            cp -p /etc/keys-fcgi/{{environment,sweep}} before
            cat >root.crt <<'END'\n{certificate}END\n{before_units}
            printf '%s\\n' {' '.join(f"{HOST}:{port}:keys:{role}:{word}" for role, word in PASSWORDS.items())} \\
              >/etc/keys-fcgi/pgpass
            sed -i 's|^KEYS_DATABASE_URL=.*|KEYS_DATABASE_URL={url.replace("&", chr(92) + "&")}|' {ENVIRONMENT}
            printf '%s\\n' PGHOST={HOST} PGPORT={port} PGSSLMODE=verify-full \\
              PGSSLROOTCERT=/etc/keys-fcgi/root.crt >>/etc/keys-fcgi/sweep"""
        )

    def check_that_a_forgotten_address_is_named(self):
        for unit in ("keys-fcgi@check", "keys-fcgi-sweep"):
            with self.subTest(unit):
                done = machine.run(f"systemctl start {unit}", check=False, timeout=60)
                self.assertNotEqual(done.status, 0)
                self.assertIn("IPAddressAllow=", machine.run(f"journalctl -u {unit} -n 10").output)
        machine.run("systemctl reset-failed 'keys-fcgi*'")

    def allow_elsewhere(self):
        of_units = "for unit in" + blocks(elsewhere())[0].split("for unit in")[1]
        machine.run(of_units.replace("<the database> <the name server>", HOST))

    def check_that_a_corrected_password_is_taken(self):
        machine.run("cp -p /etc/keys-fcgi/pgpass before/; sed -i s/password-of/wrong-word-of/ /etc/keys-fcgi/pgpass")
        self.assertNotEqual(machine.run("keys-fcgi-restart", check=False).status, 0)
        said_of_it = machine.run("journalctl -u keys-fcgi@check -n 20").output
        self.assertIn("password authentication failed", said_of_it)
        # The pool has it as well, and none of its processes reaches the database.
        machine.run("systemctl restart keys-fcgi.target")
        with self.load() as load:
            load.wait_for(503, timeout=120)
        machine.run("cp -p before/pgpass /etc/keys-fcgi/; rm before/pgpass")
        Stack.wait_until(self.restarts_unless_too_slow, timeout=300, what="keys-fcgi-restart")
        machine.wait_until("curl -fsS http://127.0.0.1:8480/readyz")
        with self.load() as load:
            load.wait_for(200, timeout=120)
        self.assertEqual(set(load.statuses()), {200})

    def restarts_unless_too_slow(self):
        """The check has three seconds to connect, which an emulated machine on a busy host may miss."""
        done = machine.run("keys-fcgi-restart", check=False)
        if done.status != 0:
            self.assertIn("timeout expired", machine.run("journalctl -u keys-fcgi@check -n 5").output)
        return done.status == 0

    def test_15_the_pool_is_gone_when_its_stop_returns(self):
        before = pool()
        done = machine.run("systemctl stop keys-fcgi.target; ! pgrep -x keys-fcgi", check=False)
        self.assertEqual((done.status, done.output), (0, ""))
        machine.run("systemctl start keys-fcgi.target")
        machine.wait_until("curl -fsS http://127.0.0.1:8480/readyz")
        self.assertTrue(replaced(before))

    def test_16_neither_journal_nor_process_list_nor_log_shows_a_secret(self):
        secret = machine.run("cat /etc/keys-fcgi/jwt-secret").output.strip()
        places = "journalctl --no-pager -a; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; cat /var/log/nginx/*"
        seen = machine.run(
            f"({places}) >seen 2>/dev/null || true; grep -ac request_id= seen || true; wc -l <seen"
        ).output
        self.assertGreater(int(seen.split()[-1]), 1000, "there is much to look through")
        for what, word in {"secret": secret, "token": token.split(".")[2], **PASSWORDS}.items():
            with self.subTest(what):
                machine.run(f"cat >word <<'END'\n{word}\nEND")
                self.assertEqual(machine.run("grep -caFf word seen || true").output.strip(), "0")

    def test_17_removed_and_purged_it_leaves_nothing_that_fails(self):
        machine.run("apt-get remove -y keys-fcgi")
        self.assertEqual(machine.run("pgrep -x keys-fcgi || true").output, "")
        self.assertEqual(machine.run(f"ls {ENVIRONMENT}").output.strip(), ENVIRONMENT)
        machine.run("apt-get purge -y keys-fcgi && nginx -t && systemctl restart nginx")
        left = "find / /run -xdev -path '*keys-fcgi*' -not -path '*/dpkg/*' -not -path '/root/*' -not -path '/proc/*'"
        self.assertEqual(machine.run(f"{left} | sort -u").output, "")
        self.assertEqual(machine.run("systemctl list-units --plain --no-legend --all 'keys-fcgi*'").output, "")
        self.assertEqual(machine.run("systemctl is-system-running").output, "running\n")


def make_certificate(directory):
    """A key and a certificate that signs itself, for the address by which the machine knows this one."""
    address = f"subjectAltName=IP:{ipaddress.ip_address(HOST)}"
    self_signed(directory, "database", "server.key", "root.crt", "-addext", address)
    return {name: (directory / name).read_text(encoding="ascii") for name in ("server.key", "root.crt")}


if __name__ == "__main__":
    unittest.main()
