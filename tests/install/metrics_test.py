#!/usr/bin/python3
"""What a pool reports: /metrics of all its processes, one log line per request, Server-Timing."""

import os
import pathlib
import re
import signal
import subprocess
import unittest

from tests.support import fastcgi
from tests.support.users import User, lift_limits
from tests.support.cluster import HANDLER
from tests.support.stack import Stack, stopped

TIMING = re.compile(r"^token;dur=(\d+\.\d{3}), db;dur=(\d+\.\d{3}), total;dur=(\d+\.\d{3})$")
FIELDS = "id trace user status code rule token_us database_us total_us cache".split()


def setUpModule():
    global stack, user
    stack = unittest.enterModuleContext(Stack(settings={"KEYS_SERVER_TIMING": "on"}))
    lift_limits(stack)
    user = User(stack, tier="pro", keys=1)
    # A process counts its connection to the database within a second.
    stack.wait_until(lambda: scrape()["keys_database_reconnects_total"] >= 2, what="two connections counted")


def metrics_file():
    """The pool's file: its name ends in the layout of its contents."""
    (found,) = pathlib.Path(stack.place, "pool").glob("metrics-*")
    return found


def samples(text):
    """Each sample of Prometheus' text format: name and labels -> value."""
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.M)}


def scrape():
    return samples(stack.get("/metrics", url=stack.status_url).body.decode())


def lasting(found):
    """Without what changes by itself: connections and memory."""
    return {name: value for name, value in found.items() if not re.match("keys_(connections|.*memory_bytes)$", name)}


def answered(found):
    return sum(value for name, value in found.items() if name.startswith("keys_requests_total"))


def scrape_each():
    """What each process shows, one after the other: the rest is stopped meanwhile and cannot answer."""
    shown = {}
    for pid in stack.worker_pids():
        others = [other for other in stack.worker_pids() if other != pid]
        with stopped(*others), fastcgi.Peer(stack.socket) as peer:
            peer.send(fastcgi.request(KEYS_STATUS_PAGE="metrics", REQUEST_ID="req_each"))
            shown[pid] = lasting(samples(peer.answer()[2].decode()))
    return shown


class PoolTest(unittest.TestCase):
    def settle(self, holds=lambda found: True):
        """The counters once the pool is whole: two processes, connected."""

        def whole():
            found = lasting(scrape())
            return found if found["keys_processes"] == found["keys_database_connected"] == 2 and holds(found) else None

        return stack.wait_until(whole, what="two connected processes")

    def counted_so_far(self):
        """What is answered is counted a moment later: a sum that two looks agree on."""
        seen = []

        def is_steady():
            seen.append(answered(scrape()))
            return seen[-2:] == seen[-1:] * 2

        stack.wait_until(is_steady, interval=0.1, what="a steady count")
        return seen[-1]

    def ask(self):
        """Ten lists and three refusals; the counters when they have counted them."""
        before = self.counted_so_far()
        for _ in range(10):
            self.assertEqual(user.get().status, 200)
        for _ in range(3):
            self.assertEqual(stack.get().status, 401)
        return self.settle(lambda found: answered(found) == before + 13)


class PoolMetricsTest(PoolTest):
    def test_every_process_shows_the_sum_of_the_pool(self):
        before = scrape()
        self.ask()
        shown = list(scrape_each().values())
        self.assertEqual(len(shown), 2)
        self.assertEqual(shown[0], shown[1])
        for code, count in (('status="200",code="ok"', 10), ('status="401",code="missing_api_key"', 3)):
            name = f"keys_requests_total{{{code}}}"
            self.assertEqual(shown[0][name] - before[name], count)

    def test_a_killed_process_takes_nothing_away(self):
        before = self.ask()
        victim = stack.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        after = self.settle(
            lambda found: found["keys_database_reconnects_total"] > before["keys_database_reconnects_total"]
        )
        self.assertNotIn(victim, stack.worker_pids())
        self.assert_grown(before, after)
        self.ask()
        self.assertEqual(*scrape_each().values())

    def test_a_replaced_pool_goes_on_counting(self):
        before, old = self.ask(), stack.worker_pids()
        stack.run("tools/replace-pool")
        self.assertEqual(set(old) & set(stack.worker_pids()), set())
        after = self.settle()
        self.assert_grown(before, after)
        self.assertEqual(answered(after), answered(before))
        self.ask()
        self.assertEqual(*scrape_each().values())

    def assert_grown(self, before, after):
        self.assertEqual(set(before), set(after))
        self.assertEqual([name for name in before if after[name] < before[name]], [])

    def test_the_counters_of_another_version_are_left_to_its_processes(self):
        # Another version's file lies beside ours, named after its own layout.
        other = metrics_file().with_name("metrics-0123456789abcdef")
        content = b"another layout" * 7
        other.write_bytes(content)
        self.addCleanup(other.unlink)
        stack.run("tools/replace-pool")
        self.ask()
        self.assertEqual(other.read_bytes(), content)
        self.assertEqual(*scrape_each().values())

    def test_the_text_is_what_prometheus_wants(self):
        self.ask()
        text = stack.get("/metrics", url=stack.status_url).body
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        found = samples(text.decode())
        buckets = [value for name, value in found.items() if "keys_request_duration_seconds_bucket" in name]
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual({buckets[-1], found["keys_request_duration_seconds_count"]}, {answered(found)})


class RequestLogTest(unittest.TestCase):
    def logged(self, answer):
        """The fields of the request's line, in order."""
        line = re.compile(rf"^\S+Z info request (id={answer.headers['x-request-id']} .*)$", re.M)
        found = stack.wait_until(lambda: line.search(stack.handler_log()), what="its log line")
        fields = dict(word.split("=", 1) for word in found[1].split(" "))
        self.assertEqual(list(fields), FIELDS)
        for name in ("token_us", "database_us", "total_us"):
            self.assertRegex(fields[name], r"^\d+$")
        return fields

    def test_a_list(self):
        newcomer = User(stack, tier="pro")
        answers = [newcomer.get() for _ in range(5)]
        logged = [self.logged(answer) for answer in answers]
        for fields in logged:
            self.assertEqual(
                [fields[name] for name in ("user", "status", "code", "rule")], [newcomer.id, "200", "ok", "-"]
            )
            self.assertGreater(int(fields["database_us"]), 0)
            parts = int(fields["token_us"]) + int(fields["database_us"])
            self.assertGreaterEqual(int(fields["total_us"]) + 2, parts, "whole microseconds")
        # Each of the two processes verifies a signature once, and remembers it.
        cache = [fields["cache"] for fields in logged]
        self.assertEqual(cache[0], "miss")
        self.assertIn(cache.count("miss"), (1, 2))

    def test_a_refusal(self):
        fields = self.logged(stack.get())
        self.assertEqual(
            [fields[name] for name in ("user", "status", "code", "database_us", "cache")],
            ["-", "401", "missing_api_key", "0", "miss"],
        )

    def test_a_signed_out_session(self):
        gone = User(stack)
        stack.psql(f"DELETE FROM auth.sessions WHERE id = '{gone.session}'")
        fields = self.logged(gone.get())
        self.assertEqual(
            [fields[name] for name in ("user", "status", "code", "rule")],
            [gone.id, "401", "invalid_session", "session_not_live"],
        )

    def test_server_timing_is_the_log_lines_figures(self):
        answer = user.get()
        found = TIMING.match(answer.headers["server-timing"])
        fields = self.logged(answer)
        microseconds = [round(float(value) * 1000) for value in found.groups()]
        self.assertEqual(microseconds, [int(fields[name]) for name in ("token_us", "database_us", "total_us")])

    def test_server_timing_stands_on_what_the_database_was_asked_for_alone(self):
        gone = User(stack)
        stack.psql(f"DELETE FROM auth.sessions WHERE id = '{gone.session}'")
        self.assertRegex(gone.get().headers["server-timing"], TIMING)
        self.assertNotIn("server-timing", stack.get().headers)

    def test_server_timing_is_off_unless_it_is_on(self):
        for setting, count in (
            ({"KEYS_SERVER_TIMING": "on"}, 1),
            ({"KEYS_SERVER_TIMING": "off"}, 0),
            ({"KEYS_SERVER_TIMING": ""}, 0),
        ):
            with self.subTest(setting):
                request = {"REQUEST_METHOD": "GET", "HTTP_COOKIE": f"sb-access-token={user.token}"}
                head = stack.run(str(HANDLER), env=request | setting | {"KEYS_METRICS_FILE": ""}).stdout.partition(
                    "\n\n"
                )[0]
                self.assertIn("X-RateLimit-Limit:", head)
                self.assertEqual(head.count("Server-Timing:"), count)


class TruncatedFileTest(PoolTest):
    """The last class: its counts fit nothing any more."""

    def test_a_truncated_file_costs_counts_and_no_process(self):
        self.ask()
        pids, size = stack.worker_pids(), metrics_file().stat().st_size
        for length in (0, 100, 5000):
            with self.subTest(length):
                os.truncate(metrics_file(), length)
                self.ask()
                self.assertEqual(*scrape_each().values())
                if length == 0:  # what nobody touches need not come back
                    self.assertEqual(metrics_file().stat().st_size, size)
        self.assertEqual(stack.worker_pids(), pids)
        stack.wait_until(lambda: "truncated by somebody" in stack.handler_log(), what="a line about it")


if __name__ == "__main__":
    unittest.main()
