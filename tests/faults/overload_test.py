#!/usr/bin/python3
"""Five hundred clients at once, at more than the machine can do (issue 6, 5)."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

from tests.faults.handler_process import resident
from tests.people import Person, lift_limits
from tests.stack import Stack

CONNECTIONS = 500
SECONDS = int(os.environ.get("OVERLOAD_SECONDS", "10"))
SANITIZED = os.environ.get("VARIANT") == "sanitize" or "sanitize" in os.environ.get("HANDLER_PROGRAM", "")
MEGABYTE = 1 << 20

SCRIPT = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() good = 0 limited = 0 unavailable = 0 strange = 0 end
function response(status, headers, body)
  if status == 200 and body:sub(1, 8) == '{"data":' then good = good + 1
  elseif status == 429 and body:sub(1, 9) == '{"error":' then limited = limited + 1
  elseif status == 503 and body:sub(1, 9) == '{"error":' then unavailable = unavailable + 1
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
    global stack, person
    stack = unittest.enterModuleContext(Stack())
    lift_limits(stack)
    person = Person(stack, tier="pro", keys=3)


def wrk(token, connections, seconds):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        command = ["wrk", "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script.name]
        command += ["-H", f"Cookie: sb-access-token={token}", stack.url + "/api/v1/keys"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(result.removeprefix("RESULT "))


class Overload(unittest.TestCase):
    def setUp(self):
        self.pool = stack.worker_pids()

    def tearDown(self):
        self.assertEqual([person.get().status for _ in range(6)], [200] * 6)
        self.assertEqual(stack.worker_pids(), self.pool)

    def test_500_connections_get_good_answers_or_json_refusals_in_bounded_time_and_memory(self):
        wrk(person.token, 32, 2)
        before = wrk(person.token, 32, 3)
        small = [resident(pid) for pid in self.pool]
        highest, ended = [], threading.Event()

        def watch():
            while not ended.wait(0.2):
                highest.append(max(resident(pid) for pid in self.pool))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            during = wrk(person.token, CONNECTIONS, SECONDS)
        finally:
            ended.set()
            watcher.join()
        after = wrk(person.token, 32, 3)
        rate = {name: one["good"] / one["seconds"] for name, one in
                (("before", before), ("during", during), ("after", after))}  # fmt: skip
        print(
            f"overload | {CONNECTIONS} connections for {SECONDS} s | "
            f"{rate['before']:.0f}, {rate['during']:.0f}, {rate['after']:.0f} req/s before, during, after | "
            f"median {during['median'] * 1000:.0f} ms, p99 {during['p99'] * 1000:.0f} ms, "
            f"longest {during['longest'] * 1000:.0f} ms; {during['limited'] + during['unavailable']} refused; "
            f"RSS {max(small) / MEGABYTE:.1f} to {max(highest) / MEGABYTE:.1f} MB",
            file=sys.stderr,
        )
        self.assertEqual(during["strange"], 0)
        self.assertEqual(during["errors"], 0)
        self.assertGreater(during["good"], 0)
        # The database's deadline and what a busy machine adds.
        self.assertLess(during["p99"], 3)
        self.assertGreater(rate["after"], rate["before"] / 2)
        if not SANITIZED:
            self.assertLess(max(highest) - max(small), 32 * MEGABYTE)
            self.assertLess(max(resident(pid) for pid in self.pool) - max(small), 16 * MEGABYTE)

    def test_a_flood_over_the_limit_is_refused_and_another_user_is_served(self):
        stack.psql("UPDATE tiers SET requests_per_minute = 5, requests_per_day = 1000 WHERE name = 'free'")
        greedy = Person(stack)
        flood = []
        thread = threading.Thread(target=lambda: flood.append(wrk(greedy.token, 100, 3)))
        thread.start()
        answers = []
        while thread.is_alive():
            answers.append(person.get().status)
        thread.join()
        lift_limits(stack)
        self.assertEqual(set(answers), {200})
        self.assertEqual(flood[0]["good"], 5)
        self.assertGreater(flood[0]["limited"], 100)
        self.assertEqual(flood[0]["strange"] + flood[0]["errors"], 0)

    def test_no_answer_of_it_all_was_a_fault_in_nginx_log(self):
        log = pathlib.Path(stack.directory, "log", "nginx-error.log").read_text(encoding="utf-8")
        self.assertEqual([line for line in log.splitlines() if "[crit]" in line or "[alert]" in line], [])


if __name__ == "__main__":
    unittest.main()
