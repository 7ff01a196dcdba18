#!/usr/bin/python3
"""What clients see when the pool behind nginx fails, and what nginx sends it. The pool is a script."""

import os
import pathlib
import socket
import ssl
import threading
import time
import unittest

from tests.support.scripted_pool import Answer, ScriptedPool, after, ok
from tests.support.stalls import elapsed

TOKEN = f"{'h' * 20}.{'c' * 100}.{'s' * 43}"  # shaped like one


def setUpModule():
    global scripted_pool
    scripted_pool = unittest.enterModuleContext(ScriptedPool())


class PoolTestCase(unittest.TestCase):
    def setUp(self):
        scripted_pool.peer = lambda request: ok()
        self.assertEqual(scripted_pool.get(token=TOKEN).status, 200)
        scripted_pool.requests.clear()
        self.addCleanup(self.check_good_request)

    def check_good_request(self):
        scripted_pool.peer = lambda request: ok()
        self.assertEqual(scripted_pool.get(token=TOKEN).status, 200, "a good request after it")

    def check_error(self, answer, status, code):
        self.assertEqual(answer.status, status)
        error = answer.json()["error"]
        self.assertEqual(error["code"], code)
        self.assertEqual(error["request_id"], answer.headers["x-request-id"])
        self.assertRegex(answer.headers["x-request-id"], r"^req_[0-9a-f]{32}$")
        self.assertEqual(answer.headers["retry-after"], "1")
        for name, value in {
            "content-type": "application/json",
            "cache-control": "no-store",
            "vary": "Cookie",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",
            "strict-transport-security": "max-age=63072000",
            "server": "nginx",
        }.items():
            self.assertEqual(answer.headers[name], value)


class FailingPool(PoolTestCase):
    def test_without_a_pool_the_answer_is_502_at_once(self):
        scripted_pool.hang_up()
        self.addCleanup(scripted_pool.listen)
        for http in ("1.1", "2"):
            began = time.monotonic()
            self.check_error(scripted_pool.get(token=TOKEN, http=http), 502, "bad_gateway")
            self.assertLess(elapsed(began), 2)
        head = scripted_pool.get(token=TOKEN, method="HEAD")
        self.assertEqual((head.status, head.body), (502, b""))
        self.assertEqual(
            scripted_pool.get(url=scripted_pool.status_url, path="/healthz").status, 200, "nginx itself is up"
        )
        self.assertEqual(scripted_pool.get(url=scripted_pool.status_url, path="/readyz").status, 502)

    def test_a_pool_that_hangs_is_504_and_not_asked_again(self):
        scripted_pool.peer = after(60, ok())
        answers = []
        threads = [
            threading.Thread(target=lambda http=http: answers.append(scripted_pool.get(token=TOKEN, http=http)))
            for http in ("1.1", "2")
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertTrue(4 < time.monotonic() - began < 30, "over KEYS_DEADLINE_MS, and not for ever")
        for answer in answers:
            self.check_error(answer, 504, "gateway_timeout")
        self.assertEqual(len(scripted_pool.requests), 2)

    def test_an_answer_that_is_no_cgi_response_is_502(self):
        scripted_pool.peer = lambda request: Answer(b"what is this")
        self.check_error(scripted_pool.get(token=TOKEN), 502, "bad_gateway")

    def test_headers_that_never_end_are_502(self):
        scripted_pool.peer = lambda request: Answer(b"Status: 200 OK\r\nX: " + b"a" * 20000, cut=20000)
        self.check_error(scripted_pool.get(token=TOKEN), 502, "bad_gateway")

    def test_an_answer_cut_short_is_never_taken_for_a_whole_one(self):
        whole = ok(b'{"data":[],"meta":{"total":0}}')
        scripted_pool.peer = lambda request: Answer(whole.cgi, cut=len(whole.cgi) - 5)
        answer = scripted_pool.get(token=TOKEN)
        self.assertLess(len(answer.body), int(answer.headers["content-length"]), "curl notices")

    def test_errors_of_the_handler_pass_as_they_are(self):
        body = b'{"error":{"code":"service_unavailable","message":"-","request_id":"-"}}'
        cgi = ok(body, b"Retry-After: 7\r\nX-Keys-Error: service_unavailable\r\n").cgi
        scripted_pool.peer = lambda request: Answer(cgi.replace(b"200 OK", b"503 Service Unavailable"))
        answer = scripted_pool.get(token=TOKEN)
        self.assertEqual((answer.status, answer.body, answer.headers["retry-after"]), (503, body, "7"))
        self.assertNotIn("x-keys-error", answer.headers)


class AskingAgain(PoolTestCase):
    def test_a_kept_connection_that_has_gone_costs_no_request(self):
        connections = scripted_pool.connections
        scripted_pool.close_connections()
        self.assertEqual(scripted_pool.get(token=TOKEN).status, 200)
        self.assertEqual(len(scripted_pool.requests), 1)
        self.assertEqual(scripted_pool.connections, connections + 1)

    def test_a_kept_connection_closed_under_the_request_is_replaced(self):
        """A process that drains as the request arrives: it has not answered, another one does."""
        first = []

        def peer(request):
            if request.number > 1 and not first:
                first.append(request)
                return None
            return ok()

        scripted_pool.peer = peer
        for _ in range(100):  # until a worker of nginx that has a kept connection is hit
            self.assertEqual(scripted_pool.get(token=TOKEN).status, 200)
            if first:
                break
        self.assertEqual(len(first), 1)

    def test_a_new_connection_that_breaks_is_not_tried_again(self):
        scripted_pool.close_connections()
        scripted_pool.peer = lambda request: None
        self.check_error(scripted_pool.get(token=TOKEN), 502, "bad_gateway")
        self.assertEqual(len(scripted_pool.requests), 1)


class WhatIsSent(PoolTestCase):
    def parameters(self, **request):
        scripted_pool.requests.clear()
        answer = scripted_pool.get(**request)
        self.assertEqual(answer.status, 200)
        self.assertEqual(len(scripted_pool.requests), 1)
        self.assertEqual(scripted_pool.requests[0].body, b"")
        self.assertTrue(scripted_pool.requests[0].keep)
        return scripted_pool.requests[0].parameters

    def test_the_parameters_are_few_and_known(self):
        browser = {
            "Accept": "*/*",
            "Authorization": "Bearer sk_live_secret",
            "X-API-Key": "sk_live_secret",
            "Proxy": "http://evil.example",
            "Content-Type": "text/plain",
            "Sec-Fetch-Site": "cross-site",
            "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "X-Request-Id": "req_11111111111111111111111111111111",
        }
        parameters = self.parameters(
            token=TOKEN, headers=browser, path="/api/v1/keys?api_key=sk_live_secret", data="a body"
        )
        self.assertEqual(
            [name for name, _ in parameters],
            ["REQUEST_METHOD", "REQUEST_ID", "HTTP_COOKIE", "HTTP_SEC_FETCH_SITE", "KEYS_TRACE_ID"],
        )
        values = dict(parameters)
        self.assertEqual(values["REQUEST_METHOD"], "GET")
        self.assertEqual(values["HTTP_COOKIE"], f"sb-access-token={TOKEN}")
        self.assertEqual(values["HTTP_SEC_FETCH_SITE"], "cross-site")
        self.assertEqual(values["KEYS_TRACE_ID"], "4bf92f3577b34da6a3ce929d0e0e4736")
        self.assertRegex(values["REQUEST_ID"], r"^req_(?!1{32})[0-9a-f]{32}$")

    def test_what_the_client_did_not_send_is_not_a_parameter(self):
        self.assertEqual([name for name, _ in self.parameters()], ["REQUEST_METHOD", "REQUEST_ID"])

    def test_of_an_api_key_without_a_session_only_a_sign_arrives(self):
        for request in (
            {"headers": {"Authorization": "Bearer sk_live_secret"}},
            {"headers": {"X-API-Key": "sk_live_secret"}},
            {"path": "/api/v1/keys?api_key=sk_live_secret"},
        ):
            with self.subTest(request):
                parameters = dict(self.parameters(**request))
                self.assertEqual(parameters["KEYS_HAS_API_KEY"], "1")
                self.assertNotIn("secret", str(parameters))

    def test_cookie_lines_are_joined(self):
        for http in ("1.1", "2"):
            parameters = self.parameters(headers={"Cookie": ["a=b", f"sb-access-token={TOKEN}"]}, http=http)
            self.assertIn(("HTTP_COOKIE", f"a=b; sb-access-token={TOKEN}"), parameters)

    def test_connections_are_kept(self):
        for _ in range(4):
            scripted_pool.get(token=TOKEN)
        before = scripted_pool.connections
        for _ in range(20):
            scripted_pool.get(token=TOKEN)
        self.assertLessEqual(scripted_pool.connections, before + os.cpu_count())

    def test_only_the_status_listener_asks_for_a_status_page(self):
        for page in ("readyz", "metrics"):
            answer = scripted_pool.get(url=scripted_pool.status_url, path=f"/{page}", headers={"Cookie": "a=b"})
            self.assertEqual(answer.status, 200)
            parameters = dict(scripted_pool.requests[-1].parameters)
            self.assertEqual(parameters["KEYS_STATUS_PAGE"], page)
            self.assertNotIn("HTTP_COOKIE", parameters)
        for path in ("/readyz", "/metrics", "/healthz", "/api/v1/keys/readyz"):
            self.assertEqual(scripted_pool.get(path=path).status, 404)
        self.assertNotIn("KEYS_STATUS_PAGE", dict(self.parameters(path="/api/v1/keys?KEYS_STATUS_PAGE=metrics")))


class LongAnswers(PoolTestCase):
    def test_500_kb_for_a_slow_client_need_no_temporary_file(self):
        body = b"[" + b"1," * 250_000 + b"1]"
        scripted_pool.peer = lambda request: ok(body)
        host, port = scripted_pool.url.removeprefix("https://").split(":")
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect((host, int(port)))
        with ssl.create_default_context(cafile=scripted_pool.cacert).wrap_socket(plain, server_hostname=host) as client:
            client.sendall(f"GET /api/v1/keys HTTP/1.0\r\nCookie: sb-access-token={TOKEN}\r\n\r\n".encode())
            received = client.recv(1000)
            time.sleep(0.5)
            kept = [path for path in pathlib.Path(scripted_pool.directory, "nginx-temp").rglob("*") if path.is_file()]
            open_files = [
                os.readlink(link)
                for pid in scripted_pool.pids("nginx")
                for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()
            ]
            self.assertEqual(kept + [path for path in open_files if "nginx-temp" in path], [])
            while more := client.recv(65536):
                received += more
        self.assertTrue(received.endswith(body))

    def test_the_log_of_nginx_says_nothing_of_a_good_request(self):
        before = scripted_pool.nginx_error_log()
        scripted_pool.get(token=TOKEN)
        self.assertEqual(scripted_pool.nginx_error_log(), before)


if __name__ == "__main__":
    unittest.main()
