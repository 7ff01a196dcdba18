#!/usr/bin/python3
"""The files that production includes, as an operator would use them: nginx/server.conf with names,
ports and paths filled in, and the snippets within a server block that serves a site already."""

import json
import unittest

from tests.support.raw_http import ask
from tests.support.scripted_pool import ScriptedPool, ok
from tests.support.site import Site

TOKEN = f"{'h' * 20}.{'c' * 100}.{'s' * 43}"  # shaped like one


def setUpModule():
    global pool
    pool = unittest.enterModuleContext(ScriptedPool())


class CompleteServer(unittest.TestCase):
    """server.conf."""

    @classmethod
    def setUpClass(cls):
        pool.peer = lambda request: ok()
        cls.site = cls.enterClassContext(Site("include keys/server.conf;", pool))

    def test_it_lists_keys(self):
        for http in ("1.1", "2"):
            answer = self.site.get(token=TOKEN, http=http)
            self.assertEqual((answer.status, answer.json()["meta"]), (200, {"total": 0}))
            self.assertEqual(answer.headers["strict-transport-security"], "max-age=63072000")

    def test_any_host_is_answered(self):
        for host in ("socdefenders.ai", "elsewhere.example"):
            self.assertEqual(self.site.get(token=TOKEN, headers={"Host": host}).status, 200)

    def test_everything_else_is_an_error_in_json(self):
        self.assertEqual(self.site.get(path="/").json()["error"]["code"], "not_found")
        self.assertEqual(ask(self.site, "GET /%00 HTTP/1.1\r\n\r\n").json()["error"]["code"], "bad_request")

    def test_the_description_is_served(self):
        self.assertEqual(self.site.get(path="/api/openapi.json").json()["openapi"], "3.0.3")

    def test_status_pages_are_on_their_own_listener(self):
        self.assertEqual(self.site.get(url=self.site.status_url, path="/healthz").status, 200)
        for path in ("/readyz", "/metrics"):
            self.assertEqual(self.site.get(url=self.site.status_url, path=path).status, 200)
            self.assertEqual(self.site.get(path=path).status, 404)
        self.assertEqual(self.site.get(url=self.site.status_url, path="/api/v1/keys").status, 404)

    def test_the_log_is_the_json_one(self):
        request_id = self.site.get(path="/nothing").headers["x-request-id"]
        line = self.site.wait_until(
            lambda: [line for line in self.site.nginx_access_log().splitlines() if request_id in line],
            what="a line in the log",
        )[0]
        self.assertEqual(json.loads(line)["error"], "not_found")


class StatusListener(unittest.TestCase):
    """status.conf, to somebody who is not let in."""

    def test_other_addresses_are_refused(self):
        block = """
            include keys/keys-http.conf;
            include keys/keys-upstream.conf;
            server {
                listen 127.0.0.1:8480;
                include keys/keys-errors.conf;
                include keys/keys-api.conf;
                include keys/status.conf;
                set_real_ip_from 127.0.0.1;
                real_ip_header X-Test-Address;
            }"""
        with Site(block, pool) as site:
            for path in ("/healthz", "/readyz", "/metrics"):
                for address, status in (("192.0.2.1", 403), ("127.0.0.1", 200), ("::1", 200)):
                    answer = site.get(url=site.status_url, path=path, headers={"X-Test-Address": address})
                    self.assertEqual(answer.status, status, (path, address))
                    if status == 403:
                        self.assertEqual(answer.json()["error"]["code"], "forbidden")


class SnippetInASite(unittest.TestCase):
    """keys-errors.conf and keys-api.conf within a server block that has a life of its own."""

    @classmethod
    def setUpClass(cls):
        pool.peer = lambda request: ok()
        cls.site = cls.enterClassContext(
            Site(
                """
            include keys/keys-http.conf;
            include keys/keys-upstream.conf;
            server {
                include keys/keys-listen.conf;
                ssl_certificate /etc/nginx/keys/certificate.pem;
                ssl_certificate_key /etc/nginx/keys/certificate-key.pem;
                server_tokens off;
                gzip on;
                gzip_types application/json;
                add_header X-Site here always;
                add_header X-Content-Type-Options nosniff always;
                error_page 404 /site-404;
                location = /site-404 { internal; return 200 "the site's own 404"; }
                location = /api/openapi.json { return 200 "the site's own description"; }
                location = / { return 200 "the site"; }
                location / { return 404; }
                include keys/keys-errors.conf;
                include keys/keys-api.conf;
            }""",
                pool,
            )
        )

    def test_the_endpoint_is_there_without_the_sites_headers(self):
        answer = self.site.get(token=TOKEN, headers={"Accept-Encoding": "gzip"})
        self.assertEqual((answer.status, answer.json()["meta"]), (200, {"total": 0}))
        self.assertNotIn("x-site", answer.headers)
        self.assertNotIn("content-encoding", answer.headers)

    def test_its_errors_are_in_json(self):
        large = self.site.get(token=TOKEN, method="POST", data="a" * 20000)
        self.assertEqual(large.json()["error"]["code"], "payload_too_large")
        self.assertEqual(ask(self.site, "GET /%00 HTTP/1.1\r\n\r\n").json()["error"]["code"], "bad_request")
        too_long = ask(self.site, f"GET / HTTP/1.1\r\nHost: a\r\nX: {'a' * 40000}\r\n\r\n")
        self.assertEqual((too_long.status, too_long.json()["error"]["code"]), (431, "headers_too_large"))

    def test_the_site_stays_as_it_was(self):
        for path, status, body in (
            ("/", 200, b"the site"),
            ("/nothing", 404, b"the site's own 404"),
            ("/api/openapi.json", 200, b"the site's own description"),
            ("/api/v1/keys/", 404, b"the site's own 404"),
        ):
            answer = self.site.get(path=path)
            self.assertEqual((answer.status, answer.body), (status, body))
            self.assertEqual(answer.headers["x-site"], "here")


if __name__ == "__main__":
    unittest.main()
