#!/usr/bin/python3
"""What nginx offers in TLS, as sslscan and Python's own client see it: Mozilla's intermediate profile."""

import socket
import ssl
import subprocess
import unittest
import xml.etree.ElementTree

from tests.support.scripted_pool import ScriptedPool

# Of the profile's suites for TLS 1.2, those for the stack's ECDSA certificate.
SUITES = {
    ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
    ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
    ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
    ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305"),
}


def setUpModule():
    global scripted_pool, address, scan
    scripted_pool = unittest.enterModuleContext(ScriptedPool())
    host, port = scripted_pool.url.removeprefix("https://").split(":")
    address = (host, int(port))
    command = ["sslscan", "--no-colour", "--xml=-", f"{host}:{port}"]
    report = subprocess.run(command, capture_output=True, check=True).stdout
    scan = xml.etree.ElementTree.fromstring(report).find("ssltest")


class Scan(unittest.TestCase):
    """What sslscan reports."""

    def test_tls_1_2_and_1_3_are_all_there_is(self):
        enabled = {
            protocol.get("type") + protocol.get("version")
            for protocol in scan.iter("protocol")
            if protocol.get("enabled") == "1"
        }
        self.assertEqual(enabled, {"tls1.2", "tls1.3"})
        self.assertEqual(len(list(scan.iter("protocol"))), 6, "all six were tried")

    def test_the_suites_are_the_profiles(self):
        self.assertEqual({(suite.get("sslversion"), suite.get("cipher")) for suite in scan.iter("cipher")}, SUITES)

    def test_the_groups_are_the_profiles(self):
        groups = {group.get("name").split()[0] for group in scan.iter("group") if group.get("sslversion") == "TLSv1.3"}
        self.assertEqual(groups, {"x25519", "secp256r1", "secp384r1"})

    def test_clients_cannot_renegotiate(self):
        self.assertEqual(scan.find("renegotiation").get("supported"), "0")

    def test_heartbleed_is_not_there(self):
        self.assertEqual({beat.get("vulnerable") for beat in scan.iter("heartbleed")}, {"0"})


class Handshakes(unittest.TestCase):
    """What a client gets."""

    def shake_hands(self, version, session=None, alpn=("http/1.1",), context=None):
        """The connection's TLS facts after one request, and the context to resume it in."""
        if context is None:
            context = ssl.create_default_context(cafile=scripted_pool.cacert)
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(alpn)
        with socket.create_connection(address, timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
                protocol = tls.selected_alpn_protocol()
                if protocol == "http/1.1":
                    tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    while tls.recv(65536):
                        pass
                return tls.session, tls.session_reused, tls.compression(), protocol, context

    def test_tls_1_2_sessions_are_resumed_without_tickets(self):
        session, _, compression, _, context = self.shake_hands(ssl.TLSVersion.TLSv1_2)
        self.assertFalse(session.has_ticket)
        self.assertIsNone(compression)
        self.assertTrue(self.shake_hands(ssl.TLSVersion.TLSv1_2, session, context=context)[1])

    def test_tls_1_3_sessions_are_resumed(self):
        session, _, _, _, context = self.shake_hands(ssl.TLSVersion.TLSv1_3)
        self.assertTrue(self.shake_hands(ssl.TLSVersion.TLSv1_3, session, context=context)[1])

    def test_http_2_is_chosen_where_the_client_can(self):
        self.assertEqual(self.shake_hands(ssl.TLSVersion.TLSv1_3, alpn=("h2", "http/1.1"))[3], "h2")
        self.assertEqual(self.shake_hands(ssl.TLSVersion.TLSv1_3, alpn=("http/1.1",))[3], "http/1.1")


if __name__ == "__main__":
    unittest.main()
