#!/usr/bin/python3
"""nginx's limit of refusals: a flood without a session is held, the signed-in neighbour is not."""

import collections
import json
import unittest

from tests.support.raw_http import Answers, connect
from tests.support.stack import Stack

FLOOD = 700  # over the burst in nginx/keys-api.conf


def setUpModule():
    global stack, token
    stack = unittest.enterModuleContext(Stack())
    token = stack.mint()


def pipeline(cookies):
    """The answers to requests with these Cookie headers (None: without), sent on one connection."""
    lines = [f"Cookie: {cookie}\r\n" if cookie else "" for cookie in cookies]
    found = []
    with connect(stack) as connection:
        answers = Answers(connection)
        for at in range(0, len(lines), 50):
            some = lines[at : at + 50]
            requests = "".join(f"GET /api/v1/keys HTTP/1.1\r\nHost: localhost\r\n{line}\r\n" for line in some)
            connection.sendall(requests.encode())
            found += [answers.next()[0] for _ in some]
    return found


def by_status(answers):
    return dict(collections.Counter(answer.status for answer in answers))


class Flood(unittest.TestCase):
    def wait_until_quiet(self):
        stack.wait_until(lambda: stack.get().status == 401, timeout=30, what="an end of the limit")

    def test_who_has_no_session_is_held_and_who_has_one_is_not(self):
        for what, cookie in {
            "no cookie": None,
            "junk in the cookie": "sb-access-token=junk",
            "an API key in the cookie": "sb-access-token=sk_live_zIc8",
            "other cookies": "theme=dark; tracker=eyJhbGciOi.eyJzdWIi",
        }.items():
            with self.subTest(what):
                self.wait_until_quiet()
                flood = by_status(pipeline([cookie] * FLOOD))
                self.assertEqual(set(flood), {401, 429}, flood)
                both = pipeline(([cookie] * 9 + [f"theme=dark; sb-access-token={token}"]) * 20)
                self.assertEqual(by_status(both[9::10]), {200: 20}, "the neighbour, in the midst of it")
                del both[9::10]
                self.assertIn(429, by_status(both), "the flood is held still")

    def test_the_limits_refusal_is_as_every_error(self):
        held = next(answer for answer in reversed(pipeline([None] * FLOOD)) if answer.status == 429)
        self.assertEqual(held.headers["retry-after"], "10")
        self.assertEqual(held.headers["content-type"], "application/json")
        self.assertEqual(held.headers["cache-control"], "no-store")
        self.assertNotIn("x-ratelimit-limit", held.headers)
        error = held.json()["error"]
        self.assertEqual(list(error), ["code", "message", "request_id"])
        self.assertEqual(error["code"], "rate_limit_exceeded")
        self.assertEqual(error["request_id"], held.headers["x-request-id"])
        line = json.loads(
            stack.wait_until(
                lambda: [line for line in stack.nginx_access_log().splitlines() if error["request_id"] in line],
                what="its line in the log",
            )[0]
        )
        self.assertEqual((line["status"], line["error"], line["upstream_status"]), ("429", "rate_limit_exceeded", ""))
        self.assertNotIn("limiting requests", stack.nginx_error_log(), "a flood does not fill the error log")

    def test_sessions_that_have_ended_are_not_counted(self):
        """Hundreds of browsers behind one address, whose sessions ended over night."""
        expired = stack.mint("--expires-in", "-60")
        self.assertEqual(by_status(pipeline([f"sb-access-token={expired}"] * FLOOD)), {401: FLOOD})

    def test_supabases_own_cookie_is_not_counted(self):
        for value in ("base64-eyJhY2Nlc3NfdG9rZW4i", "%5B%22eyJhbGciOi"):
            answers = by_status(pipeline([f"sb-abcdef-auth-token.0={value}"] * FLOOD))
            self.assertEqual(answers, {401: FLOOD})


if __name__ == "__main__":
    unittest.main()
