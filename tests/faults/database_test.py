#!/usr/bin/python3
"""PostgreSQL fails in every way it can; the pool answers JSON 503s and recovers alone (issue 6, 1 and 2)."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from tests.faults.proxy import Proxy
from tests.load import Client, Load
from tests.people import Person, lift_limits
from tests.stack import Stack, postgres_program

DEADLINE = 1.0  # seconds
SLACK = 1.0  # what a busy machine may add to a bound
RECOVERY = 2.0  # after the database accepts connections
STOPPED = float(os.environ.get("STOPPED_SECONDS", "4"))
TRANSITION = re.compile(r" database_(?:lost|unreachable|connected) .*")
SETTINGS = {"KEYS_DEADLINE_MS": str(int(DEADLINE * 1000))}


def setUpModule():
    global stack, person
    stack = unittest.enterModuleContext(Stack(SETTINGS))
    lift_limits(stack)
    person = Person(stack, tier="pro", keys=2)


def report(fault, seen, seconds):
    """A row of the README's table."""
    print(f"recovery | {fault} | {seen} | {seconds * 1000:.0f} ms", file=sys.stderr)


class DatabaseFaults(unittest.TestCase):
    stack = property(lambda self: stack)
    person = property(lambda self: person)

    def setUp(self):
        self.pool = self.stack.worker_pids()
        self.await_good()

    def tearDown(self):
        self.await_good()
        self.assertEqual(self.stack.worker_pids(), self.pool, "no process was replaced")

    def await_good(self):
        client = Client(self.stack.url, self.stack.cacert, self.person.token)
        self.stack.wait_until(lambda: all(client.ask().status == 200 for _ in range(16)), what="16 good answers")
        client.close()

    def load(self, clients=6):
        return Load(self.stack, self.person.token, clients=clients, pause=0.002)

    def recovered(self, load, fault, mended, within=RECOVERY):
        """After the database accepts again: all is good soon, and in between were only JSON 503s."""
        load.wait_for(200, count=30)
        time.sleep(0.3)
        load.wait_for(200, count=30)
        bad = [answer for answer in list(load.answers) if answer.status != 200]
        for answer in bad:
            self.assertEqual(answer.status, 503, answer)
            self.assertTrue(answer.is_json_error(), answer)
        longest = max(answer.took for answer in list(load.answers))
        self.assertLess(longest, DEADLINE + SLACK, f"{fault}: the longest wait")
        recovery = max([answer.ended - mended for answer in bad] + [0.0])
        self.assertLess(recovery, within, f"{fault}: recovery")
        seen = f"{len(bad)} of {len(load.answers)} are 503, longest {longest * 1000:.0f} ms"
        report(fault, seen, recovery)

    def refusals_are_answered(self):
        for method, token, status in (("GET", None, 401), ("GET", "x.y.z", 401), ("POST", None, 405)):
            began = time.monotonic()
            answer = self.stack.get(method=method, token=token)
            self.assertEqual(answer.status, status)
            self.assertLess(time.monotonic() - began, 0.5 + SLACK)

    def unavailable(self, answer):
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertGreater(int(answer.headers["retry-after"]), 0)
        self.assertEqual(answer.json()["error"]["code"], "service_unavailable")
        self.assertNotRegex(answer.body.decode().lower(), "select|postgres|relation|timeout|sqlstate|password")

    def logged(self, pattern):
        self.assertTrue(re.search(pattern, self.stack.handler_log()), f"not in the log: {pattern}")

    def end_backends(self):
        """Ends the pool's connections; how many."""
        return int(
            self.stack.psql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'keys_runtime'"
            )
        )


class Connections(DatabaseFaults):
    def test_after_its_backend_was_terminated_the_next_request_is_200(self):
        for _ in range(3):
            self.assertGreater(self.end_backends(), 0)
            client = Client(stack.url, stack.cacert, person.token)
            answers = [client.ask() for _ in range(20)]
            client.close()
            self.assertLessEqual(len([one for one in answers if one.status == 503]), 1)
            self.assertEqual([one for one in answers if one.status not in (200, 503)], [])

    def test_a_request_whose_backend_was_terminated_counts_once(self):
        someone = Person(stack, tier="pro")
        someone.get()
        self.end_backends()
        answers = [someone.get().status for _ in range(4)]
        self.assertEqual(answers, [200] * 4)
        self.assertEqual(someone.counts("minute_count"), "5")

    def test_backends_terminated_again_and_again_under_load_lose_no_request(self):
        with self.load() as load:
            load.wait_for(200)
            for _ in range(5):
                self.end_backends()
                load.wait_for(200)
            mended = time.monotonic()
            self.recovered(load, "backends terminated", mended)
        self.assertEqual(load.lost, [])

    def test_a_fast_restart_under_load_shows_as_json_503s_only(self):
        self.restart("fast")

    def test_an_immediate_restart_under_load_shows_as_json_503s_only(self):
        self.restart("immediate")

    def restart(self, mode):
        before = len(TRANSITION.findall(stack.handler_log()))
        with self.load() as load:
            load.wait_for(200)
            stack.pg_ctl("restart", "-m", mode)
            self.recovered(load, f"pg_ctl restart -m {mode}", time.monotonic())
        self.assertEqual(load.lost, [])
        # The loss, the first failure and the return, of each process: not a line a request.
        self.assertLessEqual(len(TRANSITION.findall(stack.handler_log())) - before, 3 * len(self.pool))

    def test_while_stopped_every_answer_is_a_quick_503_and_it_recovers_alone(self):
        with self.load() as load:
            load.wait_for(200)
            stack.pg_ctl("stop", "-m", "fast")
            stopped = time.monotonic()
            self.unavailable(person.get())
            self.refusals_are_answered()
            self.assertEqual(stack.get("/readyz", url=stack.status_url).status, 503)
            time.sleep(STOPPED)
            during = [one for one in load.since(stopped + 0.5) if one.status]
            stack.pg_ctl("start")
            self.recovered(load, f"stopped for {STOPPED:.0f} s", time.monotonic())
        self.assertEqual({one.status for one in during}, {503})
        # An open circuit answers at once.
        quick = sorted(one.took for one in during)[len(during) * 9 // 10]
        self.assertLess(quick, 0.25)
        stack.wait_until(lambda: stack.get("/readyz", url=stack.status_url).status == 200, what="readyz")

    def test_a_frozen_server_shows_as_503_by_the_deadline_while_refusals_are_answered(self):
        with self.load() as load:
            load.wait_for(200)
            pids = stack.pids("postgres")
            try:
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                frozen = time.monotonic()
                load.wait_for(503, count=6)
                self.assertLess(time.monotonic() - frozen, DEADLINE + SLACK)
                self.refusals_are_answered()
                self.unavailable(person.get())
                time.sleep(2)
            finally:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
            self.recovered(load, "frozen (SIGSTOP) for 3 s", time.monotonic())

    def test_full_connection_slots_show_as_503_until_one_is_free(self):
        stack.psql("ALTER ROLE keys_runtime CONNECTION LIMIT 0")
        try:
            with self.load() as load:
                self.end_backends()
                load.wait_for(503)
                self.unavailable(person.get())
                stack.psql("ALTER ROLE keys_runtime CONNECTION LIMIT -1")
                self.recovered(load, "connection slots full", time.monotonic())
        finally:
            stack.psql("ALTER ROLE keys_runtime CONNECTION LIMIT -1")
        self.logged("database_unreachable .*too many connections")

    def test_a_refused_login_shows_as_503_and_names_no_password(self):
        hba = pathlib.Path(stack.data, "pg_hba.conf")
        good = hba.read_text(encoding="ascii")
        try:
            hba.write_text("local all keys_runtime scram-sha-256\n" + good, encoding="ascii")
            stack.pg_ctl("reload")
            with self.load() as load:
                # The postmaster takes the new rules into use when it gets to it.
                stack.wait_until(lambda: (self.end_backends(), person.get().status)[1] == 503, what="a refusal")
                self.unavailable(person.get())
                hba.write_text(good, encoding="ascii")
                stack.pg_ctl("reload")
                self.recovered(load, "login refused", time.monotonic())
        finally:
            hba.write_text(good, encoding="ascii")
            stack.pg_ctl("reload")

    def test_a_server_that_has_become_read_only_is_left_and_found_again(self):
        try:
            stack.psql("ALTER ROLE keys_runtime SET default_transaction_read_only = on")
            with self.load() as load:
                self.end_backends()
                load.wait_for(503)
                self.unavailable(person.get())
                stack.psql("ALTER ROLE keys_runtime RESET default_transaction_read_only")
                self.recovered(load, "read-only", time.monotonic())
        finally:
            stack.psql("ALTER ROLE keys_runtime RESET default_transaction_read_only")

    def test_the_log_holds_one_line_an_event_and_no_stray_words(self):
        self.end_backends()
        self.await_good()
        self.logged("database_says sqlstate=57P01")
        line = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (info|warning|error) \w+( \w+=(\"[^\n]*\"|[^ \n]*))*")
        stray = [text for text in stack.handler_log().splitlines() if not line.fullmatch(text)]
        self.assertEqual(stray, [])
        self.assertNotIn(person.token, stack.handler_log())


class Statements(DatabaseFaults):
    @contextlib.contextmanager
    def locked(self, lock):
        """A transaction of somebody else's that holds a lock."""
        command = [postgres_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
        holder = subprocess.Popen(
            command, env=os.environ | stack.env, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            holder.stdin.write(f"SET application_name = 'holder'; BEGIN; {lock};\n")
            holder.stdin.flush()
            stack.wait_until(
                lambda: stack.psql(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holder'"
                    " AND state = 'idle in transaction'"
                )
                == "1",
                what="the lock",
            )
            yield
        finally:
            holder.communicate("ROLLBACK;\n")

    def test_a_locked_table_shows_as_503_by_the_deadline(self):
        with self.load() as load:
            load.wait_for(200)
            with self.locked("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"):
                began = time.monotonic()
                self.unavailable(person.get())
                self.assertLess(time.monotonic() - began, DEADLINE + SLACK)
                self.refusals_are_answered()
                load.wait_for(503, count=6)
            self.recovered(load, "table locked", time.monotonic())
        self.logged("statement_failed .*sqlstate=55P03")

    def test_a_users_locked_count_shows_as_503_and_is_not_an_unlimited_yes(self):
        someone = Person(stack)
        someone.get()
        with self.locked(f"SELECT * FROM request_counts WHERE user_id = '{someone.id}' FOR UPDATE"):
            self.unavailable(someone.get())
        self.assertEqual(someone.get().status, 200)

    def test_a_changed_column_type_is_met_by_preparing_again(self):
        alter = "ALTER TABLE api_keys ALTER COLUMN name TYPE {}"
        for kind in ("varchar(300)", "text"):
            stack.psql(alter.format(kind))
            self.assertEqual([person.get().status for _ in range(6)], [200] * 6)

    def test_an_added_column_goes_unnoticed(self):
        stack.psql("ALTER TABLE api_keys ADD COLUMN later text DEFAULT 'x'")
        self.assertEqual([person.get().status for _ in range(6)], [200] * 6)
        stack.psql("ALTER TABLE api_keys DROP COLUMN later")
        self.assertEqual([person.get().status for _ in range(6)], [200] * 6)

    def test_a_lost_permission_is_a_500_that_says_nothing(self):
        stack.psql("REVOKE SELECT ON tiers FROM keys_runtime")
        try:
            answer = person.get()
        finally:
            stack.psql("GRANT SELECT ON tiers TO keys_runtime")
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.json()["error"]["code"], "internal_error")
        self.assertNotRegex(answer.body.decode(), "tiers|denied|42501")
        self.logged("statement_failed .*sqlstate=42501")


class OverTcp(DatabaseFaults):
    """A pool that reaches the first stack's PostgreSQL by a TCP road that the test commands."""

    stack = property(lambda self: self.far)

    @classmethod
    def setUpClass(cls):
        road = f"{stack.env['PGHOST']}/.s.PGSQL.{stack.env['PGPORT']}"
        cls.first_road = cls.enterClassContext(Proxy(road))
        cls.second_road = cls.enterClassContext(Proxy(road))
        shared = {name: stack.env[name] for name in ("KEYS_JWT_SECRET_FILE", "KEYS_JWKS_FILE")}
        shared["KEYS_DATABASE_URL"] = (
            f"postgresql://keys_runtime@127.0.0.1:{cls.first_road.port},127.0.0.1:{cls.second_road.port}/keys"
        )
        cls.far = cls.enterClassContext(Stack(SETTINGS | shared))

    def test_a_black_holed_connection_shows_as_503_by_the_deadline_and_the_next_host_is_found(self):
        with self.load() as load:
            load.wait_for(200)
            with self.first_road.black_hole():
                lost = time.monotonic()
                self.refusals_are_answered()
                load.wait_for(200, count=40, timeout=20)
                self.recovered(load, "one of two hosts black-holed", lost, within=DEADLINE + 2 * RECOVERY + SLACK)

    def test_black_holed_altogether_it_answers_503_and_recovers(self):
        with self.load() as load:
            load.wait_for(200)
            with self.first_road.black_hole(), self.second_road.black_hole():
                load.wait_for(503, count=6)
                self.refusals_are_answered()
                self.unavailable(self.person.get(self.stack))
                time.sleep(1.5)
            self.recovered(load, "black-holed TCP", time.monotonic(), within=2 * RECOVERY + SLACK)

    def test_cut_connections_lose_no_request(self):
        with self.load() as load:
            load.wait_for(200)
            for road in (self.first_road, self.second_road, self.first_road):
                road.cut()
                load.wait_for(200)
            self.recovered(load, "TCP connections cut", time.monotonic())
        self.assertEqual(load.lost, [])

    def test_deallocated_statements_are_prepared_again(self):
        before = self.stack.handler_log().count("statement_prepared_again")
        self.first_road.say("DEALLOCATE ALL")
        self.second_road.say("DEALLOCATE ALL")
        self.stack.wait_until(
            lambda: not self.first_road.swallow and not self.second_road.swallow, what="the deallocation"
        )
        answers = [self.person.get(self.stack).status for _ in range(12)]
        self.assertEqual(answers, [200] * 12)
        self.assertGreater(self.stack.handler_log().count("statement_prepared_again"), before)


class Failover(unittest.TestCase):
    """A standby of its own cluster, and a pool whose URL names the standby first."""

    def test_the_writable_host_is_found_and_a_promoted_standby_is_followed_without_a_restart(self):
        with contextlib.ExitStack() as exits:
            primary = exits.enter_context(Stack(SETTINGS, workers=1))
            standby = exits.enter_context(standby_of(primary))
            hosts = f"{standby},{primary.env['PGHOST']}"
            shared = {name: primary.env[name] for name in ("KEYS_JWT_SECRET_FILE", "KEYS_JWKS_FILE")}
            shared["KEYS_DATABASE_URL"] = (
                f"host={hosts} dbname=keys user=keys_runtime target_session_attrs=read-write"
            )
            lift_limits(primary)
            someone = Person(primary, tier="pro", keys=1)
            pool = exits.enter_context(Stack(SETTINGS | shared))
            pool.wait_until(lambda: someone.get(pool).status == 200, what="the writable host")
            wait_for_replay(primary, standby)
            pids = pool.worker_pids()
            with Load(pool, someone.token, clients=6, pause=0.002) as load:
                load.wait_for(200)
                primary.pg_ctl("stop", "-m", "immediate")
                load.wait_for(503)
                promote(primary, standby)
                promoted = time.monotonic()
                load.wait_for(200, count=50)
                time.sleep(0.3)
                load.wait_for(200, count=50)
            bad = [one for one in load.answers if one.status != 200]
            self.assertEqual({one.status for one in bad}, {503})
            self.assertTrue(all(one.is_json_error() for one in bad))
            recovery = max(one.ended for one in bad) - promoted
            self.assertLess(recovery, RECOVERY)
            self.assertEqual(pool.worker_pids(), pids)
            report("primary lost, standby promoted", f"{len(bad)} of {len(load.answers)} are 503", recovery)
            # An UNLOGGED table is empty on a promoted standby: the windows have begun anew.
            self.assertEqual(someone.get(pool).status, 200)


def as_postgres(command, **options):
    identity = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60, **identity, **options)


@contextlib.contextmanager
def standby_of(primary):
    """A streaming standby in a directory of its own; the directory, which is also that of its socket."""
    directory = tempfile.mkdtemp(prefix="keys-standby-", dir="/tmp")
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
    os.chmod(directory, 0o711)
    data = f"{directory}/data"
    try:
        base = [postgres_program("pg_basebackup"), "-h", primary.env["PGHOST"], "-U", "postgres", "-D", data]
        as_postgres([*base, "-R", "-c", "fast", "-X", "stream", "--no-sync"], cwd="/tmp", capture_output=True)
        with open(f"{data}/postgresql.conf", "a", encoding="ascii") as config:
            config.write(f"unix_socket_directories = '{directory}'\n")
        control = [postgres_program("pg_ctl"), "-s", "-w", "-D", data]
        as_postgres([*control, "-l", f"{directory}/log", "start"], cwd="/tmp")
        try:
            yield directory
        finally:
            as_postgres([*control, "-m", "immediate", "stop"], cwd="/tmp")
    finally:
        shutil.rmtree(directory)


def wait_for_replay(primary, standby):
    position = primary.psql("SELECT pg_current_wal_flush_lsn()")
    primary.wait_until(
        lambda: primary.psql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'", "-h", standby) == "t",
        what="the standby's replay",
    )


def promote(primary, standby):
    primary.psql("SELECT pg_promote()", "-h", standby)


if __name__ == "__main__":
    unittest.main()
