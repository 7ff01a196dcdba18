#!/usr/bin/python3
"""TLS to the database: sslmode=verify-full connects to the right server, signed by the right authority, only."""

import json
import pathlib
import tempfile
import unittest

from tests.support.certificates import make_certificates
from tests.support.cluster import Cluster

USER = "0a0a0a0a-0000-4000-8000-00000000000a"
SESSION = "5e550000-0000-4000-8000-00000000000a"
PASSWORD = "of this test alone"


def setUpModule():
    global cluster, certificates
    certificates = unittest.enterModuleContext(tempfile.TemporaryDirectory(prefix="keys-tls-"))
    make_certificates(certificates)
    files = {
        name: pathlib.Path(certificates, name).read_text(encoding="ascii") for name in ("server.key", "server.crt")
    }
    cluster = unittest.enterModuleContext(
        Cluster(
            settings={"ssl": "on", "listen_addresses": "127.0.0.1"},
            hba="local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
            files=files,
        )
    )
    cluster.apply_sql()
    cluster.psql(
        f"""
        ALTER ROLE keys_runtime PASSWORD '{PASSWORD}';
        INSERT INTO auth.users (id) VALUES ('{USER}');
        INSERT INTO auth.sessions (id, user_id) VALUES ('{SESSION}', '{USER}');"""
    )


def url(host="localhost", sslmode="verify-full", authority="ours"):
    # localhost may be ::1 first: hostaddr says where, host whose certificate is wanted.
    passfile = pathlib.Path(certificates, "pgpass")
    passfile.write_text(f"*:*:*:keys_runtime:{PASSWORD}\n", encoding="ascii")
    passfile.chmod(0o600)
    return (
        f"postgresql://keys_runtime@{host}:{cluster.port}/postgres?hostaddr=127.0.0.1&sslmode={sslmode}"
        f"&sslrootcert={certificates}/{authority}.crt&passfile={passfile}"
    )


class DatabaseTlsTest(unittest.TestCase):
    def test_the_right_server_is_talked_to(self):
        status, complaints = cluster.check(url())
        self.assertEqual((status, complaints), (0, ""))
        status, body = cluster.ask(cluster.mint("--user", USER, "--session", SESSION), url())
        self.assertEqual((status, json.loads(body)["data"]), (200, []))

    def test_the_connection_is_encrypted_and_by_password(self):
        self.assertEqual(cluster.psql("SHOW ssl"), "on")
        status, complaints = cluster.check(url(sslmode="disable"))
        self.assertEqual(status, 1)
        self.assertIn("no encryption", complaints)

    def test_a_certificate_for_another_name_is_refused(self):
        # The control: the same server passes when its name is not asked for.
        self.assertEqual(cluster.check(url(host="db.example", sslmode="verify-ca"))[0], 0)
        status, complaints = cluster.check(url(host="db.example"))
        self.assertEqual(status, 1)
        self.assertIn('does not match host name "db.example"', complaints)

    def test_a_certificate_of_another_authority_is_refused(self):
        status, complaints = cluster.check(url(authority="foreign"))
        self.assertEqual(status, 1)
        self.assertIn("certificate verify failed", complaints)

    def test_an_authority_that_is_not_there_is_no_reason_to_go_without(self):
        status, complaints = cluster.check(url(authority="missing"))
        self.assertEqual(status, 1)
        self.assertIn("missing.crt", complaints)

    def test_of_several_hosts_the_one_that_proves_itself_is_talked_to(self):
        # Both lead to the same server, whose certificate is for localhost; the control has another name twice.
        def several(*hosts):
            return (
                url(host=",".join(hosts))
                .replace(f":{cluster.port}/", "/")
                .replace("hostaddr=127.0.0.1", "hostaddr=127.0.0.1,127.0.0.1")
                + f"&port={cluster.port},{cluster.port}&target_session_attrs=read-write"
            )

        token = cluster.mint("--user", USER, "--session", SESSION)
        for hosts in (("db.example", "localhost"), ("localhost", "db.example")):
            with self.subTest(hosts):
                self.assertEqual(cluster.ask(token, several(*hosts))[0], 200)
        self.assertEqual(cluster.ask(token, several("db.example", "db.example"))[0], 503)

    def test_no_password_appears_in_a_complaint(self):
        for bad in (url(authority="foreign"), url(host="db.example")):
            bad = bad.replace("keys_runtime@", "keys_runtime:tellnobody@")
            with self.subTest(bad):
                status, complaints = cluster.check(bad)
                self.assertEqual(status, 1)
                self.assertNotIn("tellnobody", complaints)

    def test_the_server_that_is_refused_costs_a_503_and_no_more(self):
        token = cluster.mint("--user", USER, "--session", SESSION)
        status, body = cluster.ask(token, url(authority="foreign"))
        self.assertEqual((status, json.loads(body)["error"]["code"]), (503, "service_unavailable"))


if __name__ == "__main__":
    unittest.main()
