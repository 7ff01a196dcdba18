#!/usr/bin/python3
"""nginx's access log: one JSON object a request, found again by its id, and nobody's secrets."""

import json
import re
import unittest

from tests.support.raw_http import ask
from tests.support.stack import Stack

MEMBERS = [
    "time",
    "request_id",
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
