#!/usr/bin/python3
"""A pool on a real Patroni, at about 300 requests per second: what its operator does to it, and what happens to it.

`make test-failover` runs it. It writes RESULTS.md beside this file when all of it has passed.
"""

import bisect
import contextlib
import datetime
import os
import pathlib
import subprocess
import threading
import time
import unittest

from tests.support import patroni
from tests.support.load import Load
from tests.support.patroni import PatroniCluster
from tests.support.pgbouncer import PgBouncer
from tests.support.stack import Stack
from tests.support.users import User, lift_limits

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")
CLIENTS, PAUSE = 30, 0.1  # seconds: about 300 requests per second
DEADLINE = 2.0  # seconds, as settings say unless told otherwise
SLACK = 1.5  # seconds that a busy machine may add
PATIENCE_SLACK = 0.5  # seconds: the pool may notice sooner than the test does
BOUNCER_PORT = 6432
PROBE_PAUSE = 0.01  # seconds between two attempts to write to a node
rows = []


class Writes:
    """Asks each node for a write, again and again: when which one could be written to.

    On one connection for as long as it lasts. (Three nodes take turns on two processors: whoever connects anew after
    each refusal of a standby slows the restart that he measures.)
    """

    def __init__(self, cluster):
        self.moments = []  # time.monotonic() of each success, of any node
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(node,), daemon=True) for node in cluster.nodes]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self, node):
        import psycopg2  # comes with Debian's patroni

        while not self.stopping.wait(PROBE_PAUSE):
            with contextlib.suppress(psycopg2.Error):
                connection = psycopg2.connect(
                    host=node.address,
                    user="postgres",
                    dbname="postgres",
                    connect_timeout=2,
                    tcp_user_timeout=2000,
                    options="-c synchronous_commit=off -c statement_timeout=2000",
                )
                with contextlib.closing(connection):
                    connection.autocommit = True
                    self._write(connection.cursor())

    def _write(self, cursor):
        from psycopg2.errors import ReadOnlySqlTransaction

        while not self.stopping.wait(PROBE_PAUSE):
            with contextlib.suppress(ReadOnlySqlTransaction):
                cursor.execute("UPDATE probe SET n = n + 1")
                self.moments.append(time.monotonic())

    def longest_gap(self, since):
        """(its beginning, its end) among the writes from the last before a moment on."""
        moments = sorted(self.moments)
        moments = moments[max(bisect.bisect(moments, since) - 1, 0) :]
        return max(zip(moments, moments[1:]), key=lambda pair: pair[1] - pair[0])


class Readiness:
    """What /readyz says meanwhile: (time.monotonic(), status)."""

    def __init__(self, pool):
        self.pool = pool
        self.said = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()

    def _run(self):
        while not self.stopping.wait(0.1):
            status = self.pool.get("/readyz", url=self.pool.status_url).status
            self.said.append((time.monotonic(), status))


def setUpModule():
    global cluster
    if patroni.missing():
        return
    cluster = unittest.enterModuleContext(PatroniCluster())
    cluster.apply_sql()
    cluster.psql("CREATE TABLE probe (n integer); INSERT INTO probe VALUES (0)")
    lift_limits(cluster)


def start_pool(case, url):
    """A stack whose database is the cluster, and the tokens of ten users."""
    pool = case.enterContext(Stack({"KEYS_DATABASE_URL": url}))
    cluster.mint = pool.mint
    tokens = [User(cluster, tier="pro", keys=3).token for _ in range(10)]
    pool.wait_until(lambda: pool.get(token=tokens[0]).status == 200, timeout=30, what="the leader found")
    return pool, tokens


@unittest.skipIf(patroni.missing(), patroni.missing())
class FailoverTest(unittest.TestCase):
    def setUp(self):
        cluster.await_whole()

    def during(self, event, act, url=None, mend=lambda: None, patient=True):
        """Loads a pool, lets `act` happen, and goes on until answers are good again; a row of the table."""
        pool, tokens = start_pool(self, url or cluster.url())
        pids = pool.worker_pids()
        with Writes(cluster) as writes, Readiness(pool) as readiness:
            with Load(pool, tokens, clients=CLIENTS, pause=PAUSE) as load:
                load.wait_for(200, count=300)
                began = time.monotonic()
                act()
                acted = time.monotonic()
                pool.wait_until(lambda: any(moment > acted for moment in writes.moments[-50:]), 60, "a writable leader")
                load.wait_for(200, count=300, timeout=60)
        mend()
        self.assertEqual(pool.worker_pids(), pids, "no process was replaced")
        self.judge(event, load, writes.longest_gap(began), readiness.said, began, patient)
        return load

    def judge(self, event, load, gap, said, began, patient):
        answers = load.since(began)
        bad = [one for one in answers if one.status != 200]
        longest = max(one.took for one in answers)
        down = gap[1] - gap[0]
        lag = 0
        if down > 0.2:
            good_again = min(one.ended for one in answers if one.status == 200 and one.ended > gap[1])
            lag = max([good_again, *(one.ended for one in bad)]) - gap[1]
        row = (
            event,
            f"{down:.1f} s" if down > 0.2 else "0",
            f"{len(bad)} of {len(answers)}",
            f"{longest:.1f} s",
            f"{lag * 1000:.0f} ms",
        )
        print(" | ".join(row), flush=True)
        self.assertEqual({one.status for one in bad} | {503}, {503})
        self.assertTrue(all(one.is_json_error() for one in bad))
        self.assertLess(longest, DEADLINE + SLACK)
        self.assertLess(lag, SLACK, "good again soon after the new leader takes writes")
        self.readiness_is_true(said, answers)
        if patient and bad:  # whoever asks while the database is away waits for it as long as the deadline lets him
            self.assertGreater(down, DEADLINE - PATIENCE_SLACK, "an outage this short is a pause")
            self.assertGreater(min(one.ended for one in bad) - gap[0], DEADLINE - PATIENCE_SLACK, "refused too soon")
        rows.append(row)

    def readiness_is_true(self, said, answers):
        """Nowhere is there a second of 200 from /readyz and of nothing but 503 for requests."""
        for start, _ in said:
            within = [status for moment, status in said if start <= moment < start + 1]
            asked = [one.status for one in answers if start <= one.began and one.ended < start + 1]
            self.assertFalse(set(within) == {200} and set(asked) == {503}, "/readyz is 200 while nobody is answered")

    # --- what its operator does ---------------------------------------------------------------------

    def switch_over(self):
        leader = cluster.leader()
        candidate = cluster.standbys()[0].name
        status, text = leader.rest("POST", "/switchover", {"leader": leader.name, "candidate": candidate})
        self.assertEqual(status, 200, text)

    @staticmethod
    def restart(node):
        status, text = node.rest("POST", "/restart", {})
        if status != 200:
            raise AssertionError(text)

    def test_1_a_switchover_is_a_pause(self):
        self.during("switchover", self.switch_over)

    def test_2_a_restart_of_the_leader_is_a_pause(self):
        self.during("restart of the leader", lambda: self.restart(cluster.leader()))

    def test_3_a_rolling_restart_is_a_pause(self):
        def roll():
            for node in [*cluster.standbys(), cluster.leader()]:
                self.restart(node)

        self.during("rolling restart", roll)

    # --- what happens to it -------------------------------------------------------------------------

    def test_4_after_kill_9_of_the_leader_the_next_is_found(self):
        for ttl, loop_wait, retry_timeout in ((10, 2, 3), (30, 10, 10)):
            with self.subTest(ttl=ttl):
                cluster.configure(ttl=ttl, loop_wait=loop_wait, retry_timeout=retry_timeout)
                leader = cluster.leader()
                self.during(f"kill -9 of the leader, ttl {ttl}", leader.kill, mend=leader.start)
                cluster.configure(**cluster.timing)
                cluster.await_whole()

    def test_5_after_the_leaders_host_has_vanished_the_next_is_found(self):
        leader = cluster.leader()
        self.during("the leader's host vanishes (packets dropped)", leader.vanish, mend=leader.return_)

    def test_6_a_frozen_synchronous_standby_is_not_waited_for(self):
        cluster.configure(synchronous_mode=True)
        query = "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'"
        name = Stack.wait_until(lambda: cluster.psql(query), timeout=60, what="a synchronous standby")
        standby = next(node for node in cluster.nodes if node.name == name)

        def freeze():
            standby.freeze()
            # The next change of a page, a hint bit too, writes the whole page: there is something to wait for.
            cluster.psql("CHECKPOINT")
            time.sleep(8)  # what the event is: an outage of that length
            standby.thaw()

        try:
            self.during("synchronous standby frozen for 8 s", freeze)
        finally:
            standby.thaw()
            cluster.configure(synchronous_mode=False)

    # --- poolers ------------------------------------------------------------------------------------

    def bouncers(self, mode):
        for node in cluster.nodes:
            lines = [f"listen_addr = {node.address}", "server_login_retry = 1"]
            self.enterContext(
                PgBouncer("host=127.0.0.1 port=5432", mode, lines, inside=node.inside("postgres"), port=BOUNCER_PORT)
            )

    def test_7_behind_pgbouncer_in_session_mode_a_switchover_is_followed(self):
        # The node that is the leader no longer is asked first, and its PgBouncer goes on telling what it heard from it as
        # the leader (in_hot_standby=off): libpq takes it for one that can be written to.
        self.bouncers("session")
        cluster.nodes.sort(key=lambda node: node is not cluster.leader())
        self.during(
            "switchover behind PgBouncer, session mode", self.switch_over, url=cluster.url(BOUNCER_PORT), patient=False
        )

    def test_8_pgbouncer_in_transaction_mode_is_refused_by_check(self):
        pool, _ = start_pool(self, cluster.url())
        self.bouncers("transaction")
        for port, status, complaint in ((5432, 0, ""), (BOUNCER_PORT, 1, "a pooler in transaction mode is between")):
            environment = {"KEYS_DATABASE_URL": cluster.url(port)}
            done = pool.run(os.path.join(pool.place, "bin", "keys-fcgi"), "--check", check=False, env=environment)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(complaint, done.stderr)


def tearDownModule():
    if len(rows) < 8:
        return
    version = subprocess.run(["patroni", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    server = cluster.psql("SHOW server_version")
    day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    head = ("event", "no node writable", "503", "longest answer", "lag")
    lines = [
        "# Failover, measured",
        "",
        f"Written by `make test-failover` on {day}: {version.lower()}, PostgreSQL {server}, three nodes and one etcd on a machine with",
        f"{os.cpu_count()} processors (load average {os.getloadavg()[2]:.0f}), shared by a pool of two processes and its load of about {CLIENTS / PAUSE:.0f} requests per second.",
        "*No node writable*: the longest time in which no node took a write, by asking each every 10 ms. *Lag*: from the new",
        "leader's first write until answers are good for good.",
        "",
        *(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)),
    ]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    patroni.in_private_network()
    unittest.main()
