#!/usr/bin/python3
"""Five hundred clients at once, at more than the machine can do."""

import contextlib
import json
import os
import select
import statistics
import subprocess
import tempfile
import threading
import time
import unittest

from tests.support.handler_process import resident
from tests.support.fastcgi import Peer, request
from tests.support.fault_report import record
from tests.support.users import User, counter, lift_limits
from tests.support.stack import Stack

CONNECTIONS = 500
SECONDS = int(os.environ.get("OVERLOAD_SECONDS", "30"))
QUIET_CONNECTIONS = 32
IDLE_TIMEOUT, ANSWER_TIMEOUT = 75, 30  # seconds; fastcgi.h
SANITIZED = os.environ.get("VARIANT") == "sanitize" or "sanitize" in os.environ.get("HANDLER_PROGRAM", "")
MEGABYTE = 1 << 20

SCRIPT = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() good = 0 limited = 0 unavailable = 0 strange = 0 end
function response(status, headers, body)
  if status == 200 and body:sub(1, 8) == '{"data":' then good = good + 1
  elseif body:sub(1, 9) ~= '{"error":' or headers["Content-Type"] ~= "application/json" or
    not headers["Retry-After"] then strange = strange + 1
  elseif status == 429 then limited = limited + 1
  elseif status == 503 then unavailable = unavailable + 1
  else strange = strange + 1 end
end
function done(summary, latency)
  local sum = {good = 0, limited = 0, unavailable = 0, strange = 0}
  for _, thread in ipairs(threads) do
    for name, count in pairs(sum) do sum[name] = count + thread:get(name) end
  end
  io.write(string.format('\\nRESULT {"good":%d,"limited":%d,"unavailable":%d,"strange":%d,"errors":%d,' ..
    '"seconds":%f,"median":%f,"p99":%f,"longest":%f}\\n', sum.good, sum.limited, sum.unavailable, sum.strange,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency.max / 1e6))
end
"""


def setUpModule():
    global stack, user, idle, unread
    stack = unittest.enterModuleContext(Stack())
    lift_limits(stack)
    user = User(stack, tier="pro", keys=3)
    idle = WaitingPeers(user.token, reads=True)
    unread = WaitingPeers(User(stack, tier="pro", keys=1000).token, reads=False)


def wrk(of, token, connections, seconds):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script.name]
        command += ["-H", f"Cookie: sb-access-token={token}", of.url + "/api/v1/keys"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(result.removeprefix("RESULT "))


def throughput(case):
    """Answers per second at moderate load, the median of five short runs, for the report alone: every one is good."""
    rates = []
    for _ in range(5):
        run = wrk(stack, user.token, QUIET_CONNECTIONS, 1)
        case.assertEqual([run[kind] for kind in ("limited", "unavailable", "strange", "errors")], [0] * 4)
        rates.append(run["good"] / run["seconds"])
    return statistics.median(rates)


@contextlib.contextmanager
def watched_memory(pids):
    """A list that holds, at the end, the most that any of the processes had in use."""
    highest, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.2):
            highest[0] = max(highest[0], *(resident(pid) for pid in pids))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield highest
    finally:
        ended.set()
        watcher.join()


def report(seconds, during, rates, memory):
    record(
        f"{CONNECTIONS} connections for {seconds} s ({rates})",
        f"median {during['median'] * 1000:.0f} ms, p99 {during['p99'] * 1000:.0f} ms, "
        f"longest {during['longest'] * 1000:.0f} ms; {during['good']} good, {during['limited']} limited, "
        f"{during['unavailable']} unavailable; RSS {memory}",
    )


class Overload(unittest.TestCase):
    def setUp(self):
        self.pool = stack.worker_pids()

    def tearDown(self):
        self.assertEqual([user.get().status for _ in range(6)], [200] * 6)
        self.assertEqual(stack.worker_pids(), self.pool)

    def test_500_connections_get_good_answers_or_json_refusals_in_bounded_time_and_memory(self):
        before = throughput(self)
        small = max(resident(pid) for pid in self.pool)
        with watched_memory(self.pool) as highest:
            during = wrk(stack, user.token, CONNECTIONS, SECONDS)
        after = throughput(self)
        report(
            SECONDS,
            during,
            f"{before:.0f}, {during['good'] / during['seconds']:.0f}, {after:.0f} req/s before, during, after",
            f"{small / MEGABYTE:.1f} to {highest[0] / MEGABYTE:.1f} MB",
        )
        # An answer that takes over 10 s is one of the errors.
        self.assertEqual(during["strange"] + during["errors"] + during["limited"], 0)
        self.assertGreater(during["good"], during["unavailable"])
        if not SANITIZED:  # which keeps what was freed
            self.assertLess(highest[0] - small, 32 * MEGABYTE)
            self.assertLess(max(resident(pid) for pid in self.pool) - small, 16 * MEGABYTE)

    def test_a_flood_over_the_limit_is_refused_and_another_user_is_served(self):
        stack.psql("UPDATE tiers SET requests_per_minute = 5, requests_per_day = 1000 WHERE name = 'free'")
        greedy = User(stack)
        flood = []
        thread = threading.Thread(target=lambda: flood.append(wrk(stack, greedy.token, 100, 3)))
        thread.start()
        answers = []
        while thread.is_alive():
            answers.append(user.get().status)
        thread.join()
        lift_limits(stack)
        self.assertEqual(set(answers), {200})
        self.assertEqual(flood[0]["good"], 5)
        self.assertGreater(flood[0]["limited"], 100)
        self.assertEqual(flood[0]["strange"] + flood[0]["errors"], 0)

    def test_no_answer_of_it_all_was_a_fault_in_nginx_log(self):
        self.assertNotRegex(stack.nginx_error_log(), r"\[(crit|alert|emerg)\]")


class Shedding(unittest.TestCase):
    """A database so slow that not everybody's turn comes within the deadline."""

    def test_what_cannot_be_answered_in_time_is_a_503_with_retry_after_and_the_rest_is_quick(self):
        with Stack({"KEYS_DEADLINE_MS": "300"}) as short:
            lift_limits(short)
            # Who comes while a statement is at work waits for it and for the next: longer than the deadline.
            short.psql(
                """
                CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql
                    AS 'BEGIN PERFORM pg_sleep(0.16); RETURN NEW; END';
                CREATE TRIGGER dawdle BEFORE INSERT ON request_counts FOR EACH ROW EXECUTE FUNCTION dawdle()"""
            )
            someone = User(short, tier="pro", keys=3)
            pool = short.worker_pids()
            small = max(resident(pid) for pid in pool)
            with watched_memory(pool) as highest:
                during = wrk(short, someone.token, CONNECTIONS, 5)
            report(5, during, "deadline 300 ms", f"{small / MEGABYTE:.1f} to {highest[0] / MEGABYTE:.1f} MB")
            self.assertEqual(during["strange"] + during["errors"] + during["limited"], 0)
            self.assertGreater(during["unavailable"], 0)
            self.assertGreater(during["good"], 0)
            self.assertLess(during["p99"], 2)
            self.assertEqual(short.worker_pids(), pool)
            short.wait_until(lambda: someone.get().status == 200, what="a good answer")


class WaitingPeers:
    """Peers of the pool that do nothing any more; `closed_after` says when it has closed each."""

    def __init__(self, token, reads):
        self.began = time.monotonic()
        self.closed_after = []
        self.peers = [Peer(stack.socket) for _ in range(4)]
        for peer in self.peers:
            unittest.addModuleCleanup(peer.close)
            peer.send(request(token))
            if reads:
                peer.answer()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        poll = select.poll()
        for peer in self.peers:
            poll.register(peer.socket, select.POLLRDHUP)
        while len(self.closed_after) < len(self.peers):
            for descriptor, _ in poll.poll():
                poll.unregister(descriptor)
                self.closed_after.append(time.monotonic() - self.began)


class Waiting(unittest.TestCase):
    """The last class, as its peers have waited since the first."""

    def test_a_connection_that_is_not_used_is_closed_in_its_time(self):
        self.closed_in_time(idle, IDLE_TIMEOUT)

    def test_a_peer_that_takes_nothing_of_its_answer_is_disconnected_in_its_time(self):
        self.closed_in_time(unread, ANSWER_TIMEOUT)
        self.assertIn("fastcgi_timeout state=sending", stack.handler_log())
        self.assertEqual(counter(stack, "keys_protocol_errors_total"), 0, "a slow client is nobody's error")

    def closed_in_time(self, peers, seconds):
        stack.wait_until(
            lambda: len(peers.closed_after) == len(peers.peers), timeout=seconds + 10, what="the pool's closing"
        )
        self.assertGreaterEqual(min(peers.closed_after), seconds)
        # It looks once a second, and once it is its turn under load.
        self.assertLess(max(peers.closed_after), seconds + 5)


if __name__ == "__main__":
    unittest.main()
