#!/usr/bin/python3
"""tools/refresh-jwks: a good set replaces the file in one step; whatever fails leaves it as it was."""

import http.server
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest

from tests.support.cluster import HANDLER
from tests.support.stack import ROOT, bare_environment

# RFC 7515 appendix A.3.1's key, public half.
GOOD = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "rfc7515-a3",
    "alg": "ES256",
    "use": "sig",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
# RFC 8037 appendix A.2's key, with the name that RFC 9864 gives the algorithm.
ED25519 = {
    "kty": "OKP",
    "crv": "Ed25519",
    "kid": "rfc8037-a2",
    "alg": "Ed25519",
    "use": "sig",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
P384 = {"kty": "EC", "crv": "P-384", "kid": "p384", "alg": "ES384", "x": "AA", "y": "AA"}
OLD = json.dumps({"keys": [GOOD | {"kid": "old"}]})


class Issuer(http.server.BaseHTTPRequestHandler):
    answer = (200, "")
    asked = {}

    def do_GET(self):
        Issuer.asked = dict(self.headers)
        if self.path == "/endless":
            return self.send_without_end()
        status, body = Issuer.answer
        self.send_response(status)
        if status in (301, 302):
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def send_without_end(self):
        """Chunks until the client has had enough: no Content-Length tells how many."""
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        Issuer.sent = 0
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        try:
            while Issuer.sent < 1 << 30:
                Issuer.sent += self.wfile.write(chunk)
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


class RefreshJwksTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)
        cls.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"

    def setUp(self):
        self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="keys-jwks-")))
        self.file = self.directory / "jwks.json"
        self.file.write_text(OLD, encoding="utf-8")

    def refresh(self, answer=None, url=None, **more):
        Issuer.answer = answer
        return subprocess.run(
            ["tools/refresh-jwks", url or self.url, self.file],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=bare_environment() | {"HANDLER_PROGRAM": str(HANDLER)} | more,
            timeout=60,
        )

    def test_a_good_set_replaces_the_old_one(self):
        before = self.file.stat().st_ino
        body = json.dumps({"keys": [GOOD]})
        done = self.refresh((200, body))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.file.read_text(encoding="utf-8"), body)
        self.assertNotEqual(self.file.stat().st_ino, before, "replaced, not rewritten")
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o644)
        self.assertIn("rfc7515-a3", done.stderr)

    def test_the_same_set_is_confirmed_by_a_touch(self):
        os.utime(self.file, (1000, 1000))
        before = self.file.stat()
        self.assertEqual(self.refresh((200, OLD)).returncode, 0)
        self.assertEqual(self.file.stat().st_ino, before.st_ino)
        self.assertGreater(self.file.stat().st_mtime, before.st_mtime)

    def test_the_first_fetch_makes_the_file(self):
        self.file.unlink()
        self.assertEqual(self.refresh((200, OLD)).returncode, 0)
        self.assertEqual(self.file.read_text(encoding="utf-8"), OLD)

    def test_every_failure_leaves_the_old_file(self):
        for what, answer in {
            "server error": (500, OLD),
            "not found": (404, "{}"),
            "redirect": (302, ""),
            "empty body": (200, ""),
            "no JSON": (200, "<html>"),
            "cut off": (200, OLD[:-5]),
            "no keys": (200, '{"keys":[]}'),
            "two keys of one kid": (200, json.dumps({"keys": [GOOD, ED25519 | {"kid": GOOD["kid"]}]})),
            "a key for encryption": (200, json.dumps({"keys": [GOOD | {"use": "enc"}]})),
            "a key on another curve": (200, json.dumps({"keys": [P384]})),
            "point off the curve": (200, json.dumps({"keys": [GOOD | {"y": GOOD["x"]}]})),
            "too large": (200, json.dumps({"keys": [GOOD], "padding": "x" * 70000})),
        }.items():
            with self.subTest(what):
                done = self.refresh(answer)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("the keys stay as they are", done.stderr)
                self.assertEqual(self.file.read_text(encoding="utf-8"), OLD)
                self.assertEqual(os.listdir(self.directory), ["jwks.json"], "nothing is left behind")

    def test_keys_that_cannot_be_used_are_named_and_the_others_count(self):
        odd = [P384, GOOD | {"kid": "padded", "x": GOOD["x"] + "="}, GOOD | {"kid": 5}, None, ED25519 | {"use": "enc"}]
        body = json.dumps({"keys": [*odd, ED25519]})
        done = self.refresh((200, body))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.file.read_text(encoding="utf-8"), body)
        for name in ("key 'p384': unsupported", "key 'padded': x is not", "key 3: kid is not", "key 4: it is not"):
            self.assertIn("skipped: " + name, done.stderr)

    def test_an_empty_set_is_good_where_there_is_a_legacy_secret(self):
        body = '{"keys":[]}'
        done = self.refresh((200, body), KEYS_JWT_SECRET_FILE="/etc/keys-fcgi/jwt-secret")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.file.read_text(encoding="utf-8"), body)
        done = self.refresh((200, body), KEYS_JWT_SECRET_FILE="/etc/keys-fcgi/jwt-secret")
        self.assertEqual((done.returncode, done.stderr), (0, ""), "normal, and quiet")

    def test_a_download_without_a_length_is_bounded(self):
        done = self.refresh(url=self.url.replace("jwks.json", "endless"))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("over 65536 bytes", done.stderr)
        self.assertLess(Issuer.sent, 64 << 20, "far from all that was on offer; what sockets hold comes on top")
        self.assertEqual(self.file.read_text(encoding="utf-8"), OLD)
        self.assertEqual(os.listdir(self.directory), ["jwks.json"])

    def test_header_lines_come_from_a_file(self):
        headers = self.directory / "headers"
        headers.write_text("apikey: a secret of the gateway's\nX-Other: 1\n", encoding="utf-8")
        done = self.refresh((200, OLD), JWKS_HEADERS_FILE=str(headers))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((Issuer.asked["apikey"], Issuer.asked["X-Other"]), ("a secret of the gateway's", "1"))
        done = self.refresh((200, OLD), JWKS_HEADERS_FILE=str(self.directory / "absent"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot read the headers", done.stderr)

    def test_nobody_there_leaves_the_old_file(self):
        done = self.refresh(url="http://127.0.0.1:1/jwks.json")
        self.assertEqual((done.returncode, self.file.read_text(encoding="utf-8")), (1, OLD))

    def test_only_https_is_fetched_from_elsewhere(self):
        for url in ("http://issuer.example/jwks.json", "file:///etc/passwd", "http://127.0.0.1.example/", ""):
            with self.subTest(url):
                command = ["tools/refresh-jwks", url, str(self.file)]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
                self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
