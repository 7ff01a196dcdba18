#!/usr/bin/python3
"""nginx's limits per address on the whole stack: a flood is held, the signed-in neighbor is not.

The local stack exempts 127.0.0.1 from the limit of all requests, since load tests come from there; tests of that limit
ask from 127.0.0.2 and the like.
"""

import collections
import json
import unittest

from tests.support.raw_http import get_request, pipeline
from tests.support.stack import Stack

FLOOD = 700  # over the burst of requests without a session in nginx/keys-api.conf
BURST = 2000  # of all requests there


def setUpModule():
    global stack, token, forged
    stack = unittest.enterModuleContext(Stack())
    token = stack.mint()
    forged = token[:-43] + "A" * 43


def by_status(answers):
    return dict(collections.Counter(answer.status for answer in answers))


def is_held(answer):
    """Whether nginx's limit refused it. The handler's own 429 tells the user's limit."""
    return answer.status == 429 and "x-ratelimit-limit" not in answer.headers


def line_of(request_id):
    def find():
        return [line for line in stack.nginx_access_log().splitlines() if request_id in line]

    return json.loads(stack.wait_until(find, what=f"a line with {request_id} in the access log")[0])


def flood(cookie, source="127.0.0.1", at_most=40_000):
    """Sends such requests until one is held, as fast as this machine can; how many were not."""
    passed = 0
    while passed < at_most:
        held = [is_held(answer) for answer in pipeline(stack, [get_request(cookie)] * 500, source)]
        passed += held.count(False)
        if True in held:
            return passed
    raise AssertionError(f"{passed} requests passed")


class WithoutASession(unittest.TestCase):
    def wait_until_quiet(self):
        stack.wait_until(lambda: stack.get().status == 401, timeout=30, what="an end of the limit")

    def test_requests_without_a_session_are_limited_and_those_with_one_are_not(self):
        for what, cookie in {
            "no cookie": None,
            "junk in the cookie": "sb-access-token=junk",
            "an API key in the cookie": "sb-access-token=sk_live_zIc8",
            "other cookies": f"theme=dark; tracker={token}",
            "the shape of a token, shorter than any": "sb-x=eyJa.eyJ",
        }.items():
            with self.subTest(what):
                self.wait_until_quiet()
                flood(cookie)
                good = get_request(f"theme=dark; sb-access-token={token}")
                both = pipeline(stack, ([get_request(cookie)] * 9 + [good]) * 20)
                self.assertEqual(by_status(both[9::10]), {200: 20}, "the neighbor, in the midst of it")
                del both[9::10]
                self.assertIn(429, by_status(both), "the flood is held still")

    def test_the_limits_refusal_is_as_every_error(self):
        flood(None)
        held = next(filter(is_held, pipeline(stack, [get_request()] * FLOOD)))
        self.assertEqual(held.headers["retry-after"], "10")
        self.assertEqual(held.headers["content-type"], "application/json")
        self.assertEqual(held.headers["cache-control"], "no-store")
        self.assertNotIn("x-ratelimit-limit", held.headers)
        error = held.json()["error"]
        self.assertEqual(list(error), ["code", "message", "request_id"])
        self.assertEqual(error["code"], "rate_limit_exceeded")
        self.assertEqual(error["request_id"], held.headers["x-request-id"])
        self.assertNotIn("limiting requests", stack.nginx_error_log(), "a flood does not fill the error log")

    def test_of_what_is_held_the_first_and_every_hundredth_of_a_connection_are_logged(self):
        flood(None)
        answers = pipeline(stack, [get_request()] * 300)
        # The limit lets one through now and then, which the handler refuses; those are logged, each of them.
        held = {number: answer.headers["x-request-id"] for number, answer in enumerate(answers, 1) if is_held(answer)}
        passed = [answer.headers["x-request-id"] for answer in answers if not is_held(answer)]
        expected = [id for number, id in held.items() if number == 1 or number % 100 == 0]
        for request_id in expected:
            line = line_of(request_id)
            self.assertEqual(
                (line["status"], line["error"], line["upstream_status"]), ("429", "rate_limit_exceeded", "")
            )
        for request_id in passed:
            line_of(request_id)
        logged = stack.nginx_access_log()
        self.assertEqual([id for id in held.values() if id in logged], expected)

    def test_sessions_that_have_ended_are_not_counted(self):
        """Hundreds of browsers behind one address, whose sessions ended over night."""
        expired = stack.mint("--expires-in", "-60")
        answers = pipeline(stack, [get_request(f"sb-access-token={expired}")] * FLOOD)
        self.assertEqual(by_status(answers), {401: FLOOD})

    def test_supabases_own_cookie_is_not_counted(self):
        """tests/nginx/limits_test.py has every form."""
        answers = pipeline(stack, [get_request("sb-abcdef-auth-token.0=base64-eyJ" + "a" * 3170)] * FLOOD)
        self.assertEqual(by_status(answers), {401: FLOOD})


class AllRequests(unittest.TestCase):
    def test_forged_sessions_are_held_after_the_burst_and_other_addresses_are_not(self):
        passed = flood(f"sb-access-token={forged}", "127.0.0.2")
        self.assertGreater(passed, BURST)
        neighbors = pipeline(stack, [get_request(f"sb-access-token={token}")] * 20, "127.0.0.3")
        self.assertEqual(by_status(neighbors), {200: 20})

    def test_2000_colleagues_behind_one_address_open_the_page_at_once(self):
        answers = pipeline(stack, [get_request(f"sb-access-token={forged}")] * BURST, "127.0.0.4")
        self.assertEqual(by_status(answers), {401: BURST})

    def test_the_limit_of_requests_without_a_session_does_not_use_up_the_other(self):
        flood(None, "127.0.0.5")
        answers = pipeline(stack, [get_request(f"sb-access-token={token}")] * 20, "127.0.0.5")
        self.assertEqual(by_status(answers), {200: 20})


if __name__ == "__main__":
    unittest.main()
