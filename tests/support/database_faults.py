"""What the tests of database faults share: bounds, load with refusals beside it, the log."""

import contextlib
import pathlib
import re
import time
import unittest

from tests.support import fault_report
from tests.support.load import Client, Load
from tests.support.stalls import elapsed

DEADLINE = 1.0  # seconds
SLACK = 1.0  # what a busy machine may add to a bound
RECOVERY = 2.0  # after the database accepts connections
TRANSITION = re.compile(r" database_(?:lost|unreachable|connected) .*")
SETTINGS = {"KEYS_DEADLINE_MS": str(int(DEADLINE * 1000))}

report = fault_report.record


@contextlib.contextmanager
def login_rule(stack, rule):
    """Puts a line first in pg_hba.conf for the length of a with-block; it holds for new connections."""
    file = pathlib.Path(stack.data, "pg_hba.conf")
    good = file.read_text(encoding="ascii")

    def use(text):
        file.write_text(text, encoding="ascii")
        before = stack.psql("SELECT pg_conf_load_time()")
        stack.pg_ctl("reload")
        stack.wait_until(lambda: stack.psql("SELECT pg_conf_load_time()") != before, what="the new rules")

    try:
        use(f"{rule}\n{good}")
        yield
    finally:
        use(good)


class DatabaseFaults(unittest.TestCase):
    """A file sets `stack` and `user`, for all its classes or for each."""

    stack = None
    user = None

    def setUp(self):
        self.pool = self.stack.worker_pids()
        self.await_good()

    def tearDown(self):
        self.await_good()
        self.assertEqual(self.stack.worker_pids(), self.pool, "no process was replaced")

    def await_good(self):
        client = Client(self.stack.url, self.stack.cacert, self.user.token)
        self.stack.wait_until(lambda: all(client.ask().status == 200 for _ in range(16)), what="16 good answers")
        client.close()

    @contextlib.contextmanager
    def load(self, token=None, clients=6, pause=0.002):
        """Requests without pause. Beside them come others that need no database, all of which are refused quickly."""
        with Load(self.stack, None, clients=2, pause=0.05) as refused:
            with Load(self.stack, token or self.user.token, clients=clients, pause=pause) as load:
                yield load
        self.assertEqual(refused.statuses().keys(), {401})
        self.assertLess(max(one.waited for one in refused.answers), 0.5 + SLACK)

    def recovered(self, load, fault, mended, within=RECOVERY):
        """The pool answers well soon after the database accepts connections; meanwhile there were only JSON 503s."""
        load.wait_for(200, count=30)
        time.sleep(0.3)
        load.wait_for(200, count=30)
        bad = [answer for answer in list(load.answers) if answer.status != 200]
        for answer in bad:
            self.assertEqual(answer.status, 503, answer)
            self.assertTrue(answer.is_json_error(), answer)
        longest = max(answer.waited for answer in list(load.answers))
        self.assertLess(longest, DEADLINE + SLACK, f"{fault}: the longest wait")
        recovery = max([elapsed(mended, answer.ended) for answer in bad if answer.ended > mended] + [0.0])
        self.assertLess(recovery, within, f"{fault}: recovery")
        seen = f"{len(bad)} of {len(load.answers)} are 503, longest {longest * 1000:.0f} ms"
        report(fault, seen, recovery)

    def refusals_are_answered(self):
        for method, token, status in (("GET", None, 401), ("GET", "x.y.z", 401), ("POST", None, 405)):
            began = time.monotonic()
            answer = self.stack.get(method=method, token=token)
            self.assertEqual(answer.status, status)
            self.assertLess(elapsed(began), 0.5 + SLACK)

    def unavailable(self, answer):
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertGreater(int(answer.headers["retry-after"]), 0)
        self.assertEqual(answer.json()["error"]["code"], "service_unavailable")
        self.assertNotRegex(answer.body.decode().lower(), "select|postgres|relation|timeout|sqlstate|password")

    def logged(self, pattern):
        self.stack.wait_until(lambda: re.search(pattern, self.stack.handler_log()), what=f"in the log: {pattern}")

    def end_backends(self):
        """Ends the pool's connections; returns their number."""
        return int(
            self.stack.psql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'keys_runtime'"
            )
        )

    def mark(self):
        """Where the log ends now."""
        return len(self.stack.handler_log())

    def only_transitions_since(self, mark, outages=1):
        """Per outage a process logs the loss, each new reason once and the return, not one line per request."""
        lines = [line for line in self.stack.handler_log()[mark:].splitlines() if " request id=" not in line]
        told = [line for line in lines if TRANSITION.search(line)]
        self.assertGreater(len(told), 0)
        self.assertLessEqual(len(told), 8 * outages * len(self.pool), "\n".join(told))
        # And what the server says of its own, and that lookups were asked again.
        self.assertLessEqual(len(lines), 16 * outages * len(self.pool), "\n".join(lines))
