#!/usr/bin/python3
"""nginx's access log: one JSON object per request, found by its id, without secrets."""

import json
import re
import unittest

from tests.support.raw_http import ask
from tests.support.stack import Stack

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
MEMBERS = [
    "time",
    "request_id",
    "trace_id",
    "client",
    "protocol",
    "method",
    "path",
    "status",
    "error",
    "bytes",
    "seconds",
    "upstream_status",
    "upstream_seconds",
]
SECRET = "c2VjcmV0LW9mLXRoZS1jYWxsZXI"


def setUpModule():
    global stack, token
    stack = unittest.enterModuleContext(Stack())
    token = stack.mint()


def line_of(answer):
    """The log's line of this answer, parsed."""
    request_id = answer.headers["x-request-id"]

    def find():
        return next((line for line in stack.nginx_access_log().splitlines() if request_id in line), None)

    return json.loads(stack.wait_until(find, what=f"a line with {request_id} in the access log"))


class AccessLog(unittest.TestCase):
    def test_a_line_tells_who_asked_for_what_and_what_became_of_it(self):
        answer = stack.get(token=token, path="/api/v1/keys?page=2")
        line = line_of(answer)
        self.assertEqual(list(line), MEMBERS)
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$")
        self.assertTrue(0 <= line.pop("seconds") < 10)
        self.assertTrue(0 <= float(line.pop("upstream_seconds")) < 10)
        self.assertEqual(
            line,
            {
                "request_id": answer.headers["x-request-id"],
                "trace_id": "",
                "client": "127.0.0.1",
                "protocol": "HTTP/1.1",
                "method": "GET",
                "path": "/api/v1/keys",
                "status": "200",
                "error": "",
                "bytes": len(answer.body),
                "upstream_status": "200",
            },
        )

    def test_the_handlers_log_has_the_same_id(self):
        answer = stack.get(token=token)
        line_of(answer)
        request_id = answer.headers["x-request-id"]
        stack.wait_until(lambda: f"id={request_id}" in stack.handler_log(), what="the handler's line")

    def test_errors_are_named_whoever_makes_them(self):
        expired = stack.mint("--expires-in", "-60")
        for status, code, by_handler, answer in (
            ("401", "missing_api_key", True, stack.get()),
            ("401", "expired_session", True, stack.get(token=expired)),
            ("405", "method_not_allowed", True, stack.get(token=token, method="DELETE", http="2")),
            ("404", "not_found", False, stack.get(path="/api/v1/nothing?token=x")),
            ("400", "bad_request", False, ask(stack, "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n")),
            ("405", "method_not_allowed", False, ask(stack, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ):
            with self.subTest(code, by_handler=by_handler):
                line = line_of(answer)
                self.assertEqual(answer.json()["error"]["code"], code)
                self.assertEqual((line["status"], line["error"]), (status, code))
                self.assertEqual(line["upstream_status"], status if by_handler else "")

    def test_paths_are_those_that_were_sent(self):
        paths = ("/api/v1/nothing", "/api/v1/%22%5C%0A", "/a%3Fb")
        answers = [stack.get(path=path + "?q=1") for path in paths]
        self.assertEqual(tuple(line_of(answer)["path"] for answer in answers), paths)

    def test_a_line_is_short_however_long_the_request(self):
        long = ask(stack, f"{'M' * 15000} /api/v1/keys?{'q' * 15000} HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(line_of(long)["method"], "M" * 16)
        long = ask(stack, f"GET /{'p' * 15000} HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(line_of(long)["path"], "/" + "p" * 255)

    def test_a_well_formed_traceparent_is_followed_and_no_other(self):
        """W3C Trace Context, sections 3.2.2 and 4.3."""
        parent = "00f067aa0ba902b7"
        good = (
            f"00-{TRACE}-{parent}-01",
            f"00-{TRACE}-{parent}-ff",
            f"01-{TRACE}-{parent}-00",
            f"fe-{TRACE}-{parent}-01-of a later version",
        )
        bad = (
            f"00-{TRACE}-{parent}-01-of a later version",
            f"00-{TRACE}-{parent}-01-",
            f"01-{TRACE}-{parent}-01.more",
            f"ff-{TRACE}-{parent}-01",
            f"FE-{TRACE}-{parent}-01",
            f"0-{TRACE}-{parent}-01",
            f"00-{TRACE.upper()}-{parent}-01",
            f"00-{TRACE}-{parent.upper()}-01",
            f"00-{TRACE}-{parent}-0A",
            f"00-{'0' * 32}-{parent}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE[1:]}-{parent}-01",
            f"00-{TRACE}0-{parent}-01",
            f"00-{TRACE}-{parent}-1",
            f"00-{TRACE}-{parent}",
            f"00_{TRACE}-{parent}-01",
            f"00-{TRACE[:-1]}g-{parent}-01",
            "",
            "0" * 20000,
        )
        answers = {
            (value, http): stack.get(token=token, headers={"Traceparent": value}, http=http)
            for http in ("1.1", "2")
            for value in good + bad
        }
        for (value, http), answer in answers.items():
            with self.subTest(value[:80], http=http):
                self.assertEqual(answer.status, 200)
                self.assertEqual(line_of(answer)["trace_id"], TRACE if value in good else "")
                request_id = answer.headers["x-request-id"]
                told = f"id={request_id} trace={TRACE if value in good else '-'} "
                stack.wait_until(lambda told=told: told in stack.handler_log(), what=told)

    def test_whatever_is_sent_a_line_is_json(self):
        answer = ask(stack, b'GET /"\\\xff\x01 HTTP/1.1\r\nHost: a\r\n\r\n')
        self.assertEqual(line_of(answer)["status"], str(answer.status))
        for line in stack.nginx_access_log().splitlines():
            self.assertEqual(list(json.loads(line)), MEMBERS)

    def test_no_cookie_query_or_token_is_in_any_log(self):
        cookies = f"sb-access-token={SECRET}; sb-x-auth-token.0=base64-{SECRET}"
        headers = {
            "Cookie": cookies,
            "Authorization": f"Bearer {SECRET}",
            "X-API-Key": SECRET,
            "Referer": f"https://localhost/?{SECRET}",
            "User-Agent": SECRET,
            "X-Request-Id": f"req_{SECRET}",
            "Sec-Fetch-Site": SECRET,
        }
        sent = [
            stack.get(path=path + f"?api_key={SECRET}", headers=headers, method=method, http=http)
            for path in ("/api/v1/keys", "/api/v1/nothing", "/api/openapi.json")
            for method in ("GET", "POST", "TRACE")
            for http in ("1.1", "2")
        ]
        head = f"GET /api/v1/keys?api_key={SECRET} HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n"
        sent += [
            ask(stack, head + "Host: b\r\n\r\n"),
            ask(stack, head + f"X: {SECRET * 1000}\r\n\r\n"),
            ask(stack, head + f"{SECRET}: \0\r\n\r\n"),
            ask(stack, head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ask(stack, head + "\r\n", plain=True),
            ask(stack, f"GET /?{SECRET * 1000} HTTP/1.1\r\n\r\n"),
        ]
        for answer in sent:
            self.assertNotIn(SECRET, str(answer.headers) + answer.body.decode())
            line_of(answer)
        good = stack.get(token=token)
        line_of(good)
        for name, log in {
            "access log": stack.nginx_access_log(),
            "nginx's error log": stack.nginx_error_log(),
            "handler's log": stack.handler_log(),
        }.items():
            self.assertNotIn(SECRET, log, name)
            self.assertNotIn(token, log, name)
            self.assertNotIn(token.rsplit(".", 1)[1], log, name)
            self.assertIsNone(re.search("eyJ[A-Za-z0-9_-]{10}", log), name)


if __name__ == "__main__":
    unittest.main()
