#!/usr/bin/python3
"""Windows when the database's clock was set back, and a process that finds its rows hidden."""

import re
import unittest

from tests.support.handler_process import Handler
from tests.support.stack import Stack
from tests.support.users import User


def setUpModule():
    global stack
    stack = unittest.enterModuleContext(Stack(workers=1))


class ClockTest(unittest.TestCase):
    def row(self, user):
        return user.counts(
            "minute_count, day_count, minute_ends <= now() + interval '60 s', day_ends <= now() + interval '1 day'"
        )

    def test_a_window_that_ends_further_ahead_than_it_is_long_begins_anew(self):
        user = User(stack)
        self.assertEqual(user.get().status, 200)
        for ahead in ("minute_ends = now() + interval '1 day'", "day_ends = now() + interval '3 days'"):
            with self.subTest(ahead):
                user.set_counts(f"minute_count = minute_limit, day_count = day_limit, {ahead}")
                column = ahead.split("_", maxsplit=1)[0]
                other = "day" if column == "minute" else "minute"
                user.set_counts(f"{other}_count = 0")  # it counts on
                answer = user.get()
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(self.row(user), "1|1|t|t")

    def test_a_window_that_ends_a_little_late_is_one_that_was_waited_for(self):
        user = User(stack)
        self.assertEqual(user.get().status, 200)
        user.set_counts("minute_count = minute_limit - 1, minute_ends = now() + interval '90 s'")
        self.assertEqual(user.get().status, 200)
        self.assertEqual(user.get().status, 429)

    def test_what_a_process_remembers_ends_within_a_minute_although_the_window_does_not(self):
        user = User(stack)
        self.assertEqual(user.get().status, 200)
        # The day window is full for hours.
        user.set_counts("day_count = day_limit, minute_count = 0, day_ends = now() + interval '23 h'")
        answer = user.get()
        self.assertEqual(answer.status, 429)
        self.assertGreater(int(answer.headers["retry-after"]), 80000)
        stack.psql(f"DELETE FROM request_counts WHERE user_id = '{user.id}'")
        stack.wait_until(lambda: user.get().status == 200, timeout=75, what="a process that asks the database again")


class SightTest(unittest.TestCase):
    def test_a_process_that_would_see_no_tier_answers_503_and_not_401(self):
        user = User(stack)
        stack.psql("ALTER POLICY tiers_for_the_service ON tiers USING (false)")
        try:
            with Handler(stack) as handler:
                self.assertEqual(handler.ask(user.token)[0], 503)
                self.assertRegex(handler.log(), r"database_unreachable .*the role sees no tier 'free' in public\.tiers")
                stack.psql("ALTER POLICY tiers_for_the_service ON tiers USING (true)")
                handler.await_good(user.token)
                self.assertEqual(len(re.findall("the role sees no tier", handler.log())), 1)
        finally:
            stack.psql("ALTER POLICY tiers_for_the_service ON tiers USING (true)")


if __name__ == "__main__":
    unittest.main()
