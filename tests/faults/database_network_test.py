#!/usr/bin/python3
"""The TCP connection to PostgreSQL fails: hosts are silent, refuse, cut, or accept and then fail."""

import contextlib
import itertools
import threading
import time
import unittest

from tests.support.database_faults import (
    DEADLINE,
    RECOVERY,
    SETTINGS,
    SLACK,
    TRANSITION,
    DatabaseFaults,
    login_rule,
    report,
)
from tests.support.handler_process import Handler
from tests.support.database_proxy import DatabaseProxy
from tests.support.fastcgi import Peer, request
from tests.support.stalls import elapsed
from tests.support.users import User, lift_limits
from tests.support.stack import Stack

REFUSED = 5  # seconds
PAUSES = (0.01, 0.02, 0.05, 0.1)  # reconnect_policy.h; up to half of each is taken off


def setUpModule():
    global stack, user
    stack = unittest.enterModuleContext(Stack(SETTINGS, workers=1))
    lift_limits(stack)
    user = User(stack, tier="pro", keys=2)


def postgres_socket(of):
    return f"{of.env['PGHOST']}/.s.PGSQL.{of.env['PGPORT']}"


class OverTcp(DatabaseFaults):
    """A pool that reaches the first stack's PostgreSQL by a TCP proxy that the test commands."""

    @classmethod
    def setUpClass(cls):
        cls.user = user
        cls.first_proxy = cls.enterClassContext(DatabaseProxy(postgres_socket(stack)))
        cls.second_proxy = cls.enterClassContext(DatabaseProxy(postgres_socket(stack)))
        shared = {name: stack.env[name] for name in ("KEYS_JWT_SECRET_FILE", "KEYS_JWKS_FILE")}
        hosts = f"127.0.0.1:{cls.first_proxy.port},127.0.0.1:{cls.second_proxy.port}"
        shared["KEYS_DATABASE_URL"] = f"postgresql://keys_runtime@{hosts}/keys"
        cls.stack = cls.enterClassContext(Stack(SETTINGS | shared))

    def setUp(self):
        super().setUp()
        # Whatever the last test left: every process begins on the first proxy.
        with self.second_proxy.refusing():
            self.second_proxy.cut()
            self.stack.wait_until(
                lambda: len(self.first_proxy.pairs) == len(self.pool) and self.is_prepared(), what="the first proxy"
            )

    def is_prepared(self):
        # The last that a connection said: its preparation, or a lookup. One is the other pool's.
        states = stack.psql(
            "SELECT state = 'idle' AND query LIKE 'WITH account%' FROM pg_stat_activity WHERE usename = 'keys_runtime'"
        ).split()
        return states == ["t"] * (len(self.pool) + 1)

    def test_a_black_holed_connection_shows_as_503_by_the_deadline_and_the_next_host_is_found(self):
        with self.load() as load:
            load.wait_for(200)
            with self.first_proxy.black_hole():
                lost = time.monotonic()
                self.refusals_are_answered()
                # What is on its way to the dead host waits for its deadline.
                load.wait_for(200, count=40, timeout=20)
                self.recovered(load, "one of two hosts black-holed", lost, within=DEADLINE + 2 * RECOVERY + SLACK)
        self.assertGreater(load.statuses()[503], 0)

    def test_black_holed_altogether_it_answers_503_and_recovers(self):
        with self.load() as load:
            load.wait_for(200)
            with self.first_proxy.black_hole(), self.second_proxy.black_hole():
                load.wait_for(503, count=6)
                self.refusals_are_answered()
                self.unavailable(self.user.get(self.stack))
                time.sleep(1.5)
            self.recovered(load, "black-holed TCP", time.monotonic(), within=2 * RECOVERY + SLACK)

    def test_cut_connections_lose_no_request(self):
        with self.load() as load:
            load.wait_for(200)
            for proxy in (self.first_proxy, self.second_proxy, self.first_proxy):
                proxy.cut()
                load.wait_for(200)
            self.recovered(load, "TCP connections cut", time.monotonic())
        self.assertEqual(load.lost, [])

    def test_deallocated_statements_are_prepared_again(self):
        before = self.stack.handler_log().count("statement_prepared_again")
        self.first_proxy.say("DEALLOCATE ALL")
        self.second_proxy.say("DEALLOCATE ALL")
        self.stack.wait_until(
            lambda: not self.first_proxy.swallow and not self.second_proxy.swallow, what="the deallocation"
        )
        answers = [self.user.get(self.stack).status for _ in range(12)]
        self.assertEqual(answers, [200] * 12)
        self.assertGreater(self.stack.handler_log().count("statement_prepared_again"), before)


class OneProcess(unittest.TestCase):
    """A single process on a proxy of its own, so that each of its attempts is seen."""

    @contextlib.contextmanager
    def handler(self, user="keys_runtime", settings=None):
        with DatabaseProxy(postgres_socket(stack)) as self.proxy:
            url = f"postgresql://{user}@127.0.0.1:{self.proxy.port}/keys"
            with Handler(stack, settings={"KEYS_DATABASE_URL": url} | (settings or {})) as handler:
                yield handler

    @contextlib.contextmanager
    def load(self, handler):
        """(status, seconds that it took the handler) of each answer to four clients that ask meanwhile."""
        answers, ended = [], threading.Event()

        def ask():
            with Peer(handler.socket) as peer:
                while not ended.wait(0.002):
                    began = time.monotonic()
                    peer.send(request(user.token))
                    answers.append((peer.answer()[0], elapsed(began)))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def outage_lines(self, handler):
        return [line for line in handler.log().splitlines() if " request id=" not in line]

    def each_reason_once(self, lines):
        reasons = [line.partition(" database_unreachable ")[2] for line in lines if " database_unreachable " in line]
        self.assertEqual(len(reasons), len(set(reasons)), reasons)

    def test_a_host_that_refuses_is_tried_with_growing_jittered_pauses_off_the_request_path(self):
        with self.handler() as handler:
            handler.await_good(user.token)
            with self.load(handler) as answers:
                with self.proxy.refusing():
                    began = time.monotonic()
                    self.proxy.cut()
                    time.sleep(REFUSED)
                mended = time.monotonic()
                handler.await_good(user.token)
                back = elapsed(mended)
            attempts = [one for one in self.proxy.arrivals if began <= one <= mended]
            told = [line for line in self.outage_lines(handler) if TRANSITION.search(line)]
        gaps = [after - before for before, after in zip(attempts, attempts[1:], strict=False)]
        pauses = [PAUSES[min(number, len(PAUSES) - 1)] for number in range(len(gaps))]
        self.assertGreaterEqual(len(gaps), 6)
        self.assertLessEqual(len(gaps), 2 * REFUSED / PAUSES[-1] + len(PAUSES))
        for gap, pause in zip(gaps, pauses, strict=True):
            self.assertGreater(gap, pause * 0.45)
        for before, after, pause in zip(attempts, attempts[1:], pauses, strict=False):
            self.assertLess(elapsed(before, after), pause + SLACK)
        jitter = [gap / pause for gap, pause in zip(gaps, pauses, strict=True)]
        self.assertGreater(max(jitter) - min(jitter), 0.05, gaps)
        self.assertLess(back, PAUSES[-1] + SLACK)
        # It connected at its start, was cut off, found nobody, each reason once, and is back.
        self.each_reason_once(told)
        self.assertEqual({status for status, _ in answers}, {200, 503})
        # They wait for a connection until the outage has lasted a deadline.
        self.assertLess(max(seconds for _, seconds in answers), DEADLINE + SLACK)
        report(
            f"host refuses for {REFUSED} s", f"{len(attempts)} attempts, {gaps[0]:.2f} to {gaps[-1]:.2f} s apart", back
        )

    def test_a_lookup_is_sent_twice_at_most(self):
        # A connection that ends without a word may have ended because of it.
        with self.handler(settings={"KEYS_DEADLINE_MS": "8000"}) as handler:
            handler.await_good(user.token)
            with self.proxy.cutting_lookups():
                self.assertEqual(handler.ask(user.token)[0], 503)
                self.assertEqual(self.proxy.lookups, 2)
            handler.await_good(user.token)

    def test_a_server_that_has_become_read_only_is_a_failed_attempt_whatever_lets_us_in(self):
        with self.handler() as handler:
            handler.await_good(user.token)
            with self.load(handler) as answers:
                stack.psql("ALTER ROLE keys_runtime SET default_transaction_read_only = on")
                try:
                    before = len(self.proxy.arrivals)
                    self.proxy.cut()
                    time.sleep(3)
                    attempts = len(self.proxy.arrivals) - before
                finally:
                    stack.psql("ALTER ROLE keys_runtime RESET default_transaction_read_only")
                mended = time.monotonic()
                handler.await_good(user.token)
                back = elapsed(mended)
            lines = self.outage_lines(handler)
        self.assertGreater(attempts, 2)
        self.assertLessEqual(attempts, 2 * 3 / PAUSES[-1] + len(PAUSES))
        self.assertLess(back, PAUSES[-1] + SLACK)
        told = [line for line in lines if TRANSITION.search(line)]
        self.each_reason_once(told)
        self.assertLessEqual(len(lines), 20, lines)
        self.assertTrue(any("sqlstate=25006" in line for line in lines))
        self.assertEqual({status for status, _ in answers}, {200, 503})
        self.assertLess(max(seconds for _, seconds in answers), DEADLINE + SLACK)
        report("read-only for 3 s", f"{attempts} attempts, {len(lines)} lines", back)

    def test_a_wrong_password_shows_as_503_until_it_is_right_and_is_told_to_nobody(self):
        stack.psql("CREATE ROLE keys_guest LOGIN PASSWORD 'the-right-one' IN ROLE keys_runtime")
        with login_rule(stack, "local all keys_guest scram-sha-256"), self.handler(
            user="keys_guest:mistyped"
        ) as handler:
            for _ in range(20):
                status, headers, body = handler.ask(user.token)
                self.assertEqual(status, 503)
                self.assertGreater(int(headers["retry-after"]), 0)
                self.assertNotRegex(body.decode(), "password|keys_guest|mistyped|28P01")
                self.assertEqual(handler.ask()[0], 401)
            self.assertRegex(handler.log(), "database_unreachable server=[^ ]* sqlstate=28P01 ")
            self.assertNotIn("LOCATION", handler.log())
            # Servers ban who insists: the second attempt is 2.5 to 5 s behind the first.
            attempts = list(self.proxy.arrivals)
            self.assertTrue(all(after - before > 2.4 for before, after in itertools.pairwise(attempts)), attempts)
            stack.psql("ALTER ROLE keys_guest PASSWORD 'mistyped'")
            mended = time.monotonic()
            stack.wait_until(lambda: handler.ask(user.token)[0] == 200, timeout=60, what="the right password")
            report("a wrong password", "all 503", time.monotonic() - mended)
            self.assertNotIn("mistyped", handler.log())


if __name__ == "__main__":
    unittest.main()
