#!/usr/bin/python3
"""PostgreSQL fails in every way it can; the pool answers JSON 503s and recovers alone."""

import contextlib
import os
import random
import re
import subprocess
import time
import unittest

from tests.support.database_faults import DEADLINE, SETTINGS, SLACK, DatabaseFaults, login_rule, report
from tests.support.handler_process import Handler
from tests.support.fastcgi import Peer, request
from tests.support.load import Client, Load
from tests.support.stalls import elapsed
from tests.support.users import User, lift_limits
from tests.support.stack import Stack, postgres_program, stopped

PATIENCE = 4.0  # seconds; the deadline of a stack whose users are to be answered through it all
STOPPED = float(os.environ.get("STOPPED_SECONDS", "60"))


def setUpModule():
    global stack, user, patient, patient_user
    stack = DatabaseFaults.stack = unittest.enterModuleContext(Stack(SETTINGS))
    lift_limits(stack)
    user = DatabaseFaults.user = User(stack, tier="pro", keys=2)
    # Of a deadline that a restart stays below on a busy machine, and below the time that nginx waits.
    patient = unittest.enterModuleContext(Stack({"KEYS_DEADLINE_MS": str(int(PATIENCE * 1000))}))
    lift_limits(patient)
    patient_user = User(patient, tier="pro", keys=2)


class Connections(DatabaseFaults):
    def test_while_stopped_every_answer_is_a_quick_503_and_it_recovers_alone(self):
        mark = self.mark()
        with self.load(pause=0.02) as load:
            load.wait_for(200)
            stack.pg_ctl("stop", "-m", "fast")
            began = time.monotonic()
            self.unavailable(user.get())
            self.refusals_are_answered()
            self.assertEqual(stack.get("/readyz", url=stack.status_url).status, 503)
            time.sleep(STOPPED)
            during = [one for one in load.since(began + 0.5) if one.status]
            stack.pg_ctl("start")
            self.recovered(load, f"stopped for {STOPPED:.0f} s", time.monotonic())
        self.assertEqual({one.status for one in during}, {503})
        # An open circuit answers at once.
        quick = sorted(one.took for one in during)[len(during) * 9 // 10]
        self.assertLess(quick, 0.25)
        self.only_transitions_since(mark)
        stack.wait_until(lambda: stack.get("/readyz", url=stack.status_url).status == 200, what="readyz")

    def test_a_frozen_server_shows_as_503_by_the_deadline_while_refusals_are_answered(self):
        with self.load() as load:
            load.wait_for(200)
            with stopped(*stack.pids("postgres")):
                frozen = time.monotonic()
                load.wait_for(503, count=6)
                self.assertLess(elapsed(frozen), DEADLINE + SLACK)
                self.refusals_are_answered()
                self.unavailable(user.get())
                time.sleep(2)
            self.recovered(load, "frozen (SIGSTOP) for 3 s", time.monotonic())

    def test_full_connection_slots_show_as_503_until_one_is_free(self):
        stack.psql("ALTER ROLE keys_runtime CONNECTION LIMIT 0")
        try:
            with self.load() as load:
                self.end_backends()
                load.wait_for(503)
                self.unavailable(user.get())
                stack.psql("ALTER ROLE keys_runtime CONNECTION LIMIT -1")
                self.recovered(load, "connection slots full", time.monotonic())
        finally:
            stack.psql("ALTER ROLE keys_runtime CONNECTION LIMIT -1")
        self.logged("database_unreachable server=[^ ]* sqlstate=53300 .*too many connections")

    def test_a_login_without_the_password_that_is_asked_for_shows_as_503(self):
        with self.load() as load:
            with login_rule(stack, "local all keys_runtime scram-sha-256"):
                self.end_backends()
                load.wait_for(503)
                self.unavailable(user.get())
            self.recovered(load, "login refused", time.monotonic())

    def test_a_server_that_has_become_read_only_is_left_and_found_again(self):
        try:
            stack.psql("ALTER ROLE keys_runtime SET default_transaction_read_only = on")
            with self.load() as load:
                self.end_backends()
                load.wait_for(503)
                self.unavailable(user.get())
                stack.psql("ALTER ROLE keys_runtime RESET default_transaction_read_only")
                self.recovered(load, "read-only", time.monotonic())
        finally:
            stack.psql("ALTER ROLE keys_runtime RESET default_transaction_read_only")

    def test_the_log_holds_one_line_an_event_and_no_stray_words(self):
        self.end_backends()
        self.await_good()
        self.logged("database_notice sqlstate=57P01")
        line = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (info|warning|error) \w+( \w+=(\"[^\n]*\"|[^ \n]*))*")
        stray = [text for text in stack.handler_log().splitlines() if not line.fullmatch(text)]
        self.assertEqual(stray, [])
        self.assertNotIn(user.token, stack.handler_log())


class RidingThrough(DatabaseFaults):
    """An outage shorter than a request's deadline is nobody's error: it waits, and is answered 200."""

    @classmethod
    def setUpClass(cls):
        cls.stack, cls.user = patient, patient_user

    @contextlib.contextmanager
    def all_are_200(self, fault):
        mark = self.mark()
        with Load(self.stack, self.user.token, clients=16, pause=0.002, timeout=60) as load:
            load.wait_for(200)
            yield load
            mended = time.monotonic()
            load.wait_for(200, count=50, timeout=60)
            lag = time.monotonic() - mended
        self.assertEqual(load.lost, [])
        self.assertEqual(load.statuses().keys(), {200})
        longest = max(answer.took for answer in load.answers)
        seen = f"{len(load.answers)} of {len(load.answers)} are 200, longest {longest * 1000:.0f} ms"
        report(f"{fault} (deadline 4,000 ms)", seen, lag)
        return mark

    def test_after_its_backend_was_terminated_the_next_request_is_200(self):
        for _ in range(3):
            self.assertGreater(self.end_backends(), 0)
            client = Client(self.stack.url, self.stack.cacert, self.user.token)
            answers = [client.ask() for _ in range(20)]
            client.close()
            self.assertEqual({one.status for one in answers}, {200})

    def test_a_request_whose_backend_was_terminated_counts_once(self):
        someone = User(self.stack, tier="pro")
        self.assertEqual(someone.get().status, 200)
        self.end_backends()
        answers = [someone.get().status for _ in range(4)]
        self.assertEqual(answers, [200] * 4)
        self.assertEqual(someone.counts("minute_count"), "5")

    def test_a_restart_under_load_is_waited_for(self):
        for mode in ("fast", "immediate"):
            with self.subTest(mode), self.all_are_200(f"pg_ctl restart -m {mode}"):
                mark = self.mark()
                self.stack.pg_ctl("restart", "-m", mode)
            self.only_transitions_since(mark)

    def test_five_restarts_in_a_row_are_waited_for_and_logged_by_transitions(self):
        mark = self.mark()
        with self.all_are_200("five restarts") as load:
            for mode in ("fast", "immediate", "fast", "immediate", "fast"):
                load.wait_for(200, timeout=60)
                self.stack.pg_ctl("restart", "-m", mode)
        self.only_transitions_since(mark, outages=5)

    def test_backends_terminated_in_any_rhythm_lose_no_request(self):
        rhythm = random.Random(17)
        with self.all_are_200("backends terminated 30 times") as load:
            for _ in range(30):
                self.end_backends()
                time.sleep(rhythm.choice((0, 0, 0.01, 0.05, 0.2)))
            load.wait_for(200)

    def test_a_cancelled_statement_is_sent_again(self):
        with self.all_are_200("statements cancelled 100 times"):
            for _ in range(100):
                self.stack.psql(
                    "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity"
                    " WHERE usename = 'keys_runtime' AND state = 'active'"
                )


@contextlib.contextmanager
def locked(stack, lock):
    """A transaction of somebody else's that holds a lock."""
    command = [postgres_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
    holder = subprocess.Popen(
        command,
        env=os.environ | stack.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        holder.stdin.write(f"SET application_name = 'holder'; BEGIN; {lock};\n")
        holder.stdin.flush()
        query = "SELECT state FROM pg_stat_activity WHERE application_name = 'holder'"
        stack.wait_until(lambda: stack.psql(query) == "idle in transaction", what="the lock")
        yield
    finally:
        holder.communicate("ROLLBACK;\n")


class Neighbours(DatabaseFaults):
    """What one user's rows do to the others of his statement."""

    @classmethod
    def setUpClass(cls):
        cls.stack, cls.user = patient, patient_user

    def asked_together(self, users, line):
        """Has a process ask for all of them in one statement; their statuses. `line` has to be in its log."""
        with Handler(patient, settings={"KEYS_DEADLINE_MS": "8000"}) as handler:
            handler.await_good(patient_user.token)
            with contextlib.ExitStack() as exits:
                peers = [exits.enter_context(Peer(handler.socket)) for _ in range(1 + len(users))]
                with stopped(handler.backend()):
                    # The statement for the first does not end, and so the others wait for the next.
                    for peer, one in zip(peers, [patient_user, *users], strict=True):
                        peer.send(request(one.token))
                        patient.wait_until(lambda peer=peer: peer.unread() == 0, what="the request to be read")
                statuses = [peer.answer()[0] for peer in peers]
            self.assertIn(line, handler.log())
        self.assertEqual(statuses.pop(0), 200)
        return statuses

    def test_a_users_locked_count_delays_neighbours_by_less_than_the_deadline(self):
        # Counts are locked in the order of their users: a neighbour's is held while the locked one is waited for.
        users = sorted((User(patient, tier="pro") for _ in range(7)), key=lambda one: one.id)
        someone = users.pop(3)
        someone.get()
        with self.load([one.token for one in users]) as load:
            with locked(patient, f"SELECT * FROM request_counts WHERE user_id = '{someone.id}' FOR UPDATE"):
                with Load(patient, someone.token, clients=2, pause=0.002) as stuck:
                    stuck.wait_for(503, count=6, timeout=60)
                during = list(load.answers)
            load.wait_for(200)
        self.assertEqual(stuck.statuses().keys(), {503})
        self.assertTrue(all(one.is_json_error() for one in stuck.answers))
        # Nobody is refused because of somebody else's lock. On a busy machine one may wait for the whole deadline: not most.
        refused = [one for one in load.answers if one.status != 200]
        self.assertFalse([one for one in refused if one.status != 503 or one.took < 0.9 * PATIENCE])
        self.assertLess(len(refused), len(during) / 2)
        longest = max(one.waited for one in during)
        self.assertLess(longest, PATIENCE + SLACK)
        with locked(patient, f"SELECT * FROM request_counts WHERE user_id = '{someone.id}' FOR UPDATE"):
            answers = self.asked_together([*users, someone], "batch_retried sqlstate=55P03 lookups=7")
        self.assertEqual(answers, [200] * 6 + [503])
        seen = f"{len(refused) or 'no'} neighbour is refused, longest {longest * 1000:.0f} ms"
        report("one user's count locked (deadline 4,000 ms)", seen, 0)

    def test_an_error_that_one_users_row_causes_is_that_users_alone(self):
        users = [User(patient, tier="pro") for _ in range(7)]
        someone = users.pop()
        patient.psql(
            f"""
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''broken row''; END';
            CREATE TRIGGER fail BEFORE INSERT ON request_counts FOR EACH ROW
                WHEN (NEW.user_id = '{someone.id}') EXECUTE FUNCTION fail()"""
        )
        try:
            with self.load([one.token for one in users]) as load:
                with Load(patient, someone.token, clients=2, pause=0.002) as broken:
                    broken.wait_for(500, count=50)
                load.wait_for(200)
            answers = self.asked_together([*users, someone], "batch_retried sqlstate=P0001 lookups=7")
            self.assertEqual(answers, [200] * 6 + [500])
        finally:
            patient.psql("DROP FUNCTION fail CASCADE")
        self.assertEqual(broken.statuses().keys(), {500})
        self.assertEqual(load.statuses().keys(), {200})
        self.assertNotIn(b"broken row", b"".join(one.body for one in broken.answers))
        self.assertEqual(someone.get().status, 200)


class Statements(DatabaseFaults):
    def test_a_locked_table_shows_as_503_by_the_deadline(self):
        with self.load() as load:
            load.wait_for(200)
            with locked(stack, "LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"):
                began = time.monotonic()
                self.unavailable(user.get())
                self.assertLess(elapsed(began), DEADLINE + SLACK)
                self.refusals_are_answered()
                load.wait_for(503, count=6)
            self.recovered(load, "table locked", time.monotonic())
        self.logged("statement_failed .*sqlstate=55P03")

    def test_a_statement_that_takes_too_long_is_ended_by_the_server_and_shows_as_503(self):
        someone = User(stack, tier="pro")
        stack.psql(
            f"""
            CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
            CREATE TRIGGER sleep BEFORE INSERT ON request_counts FOR EACH ROW
                WHEN (NEW.user_id = '{someone.id}') EXECUTE FUNCTION sleep()"""
        )
        try:
            began = time.monotonic()
            self.unavailable(someone.get())
            self.assertLess(elapsed(began), DEADLINE + SLACK)
            self.refusals_are_answered()
            self.await_good()
            self.logged(f"request id=.* user={someone.id} status=503 ")

            def ended_by_the_server():  # a tenth of the deadline before the handler gives it up
                self.unavailable(someone.get())
                return re.search("statement_failed .*sqlstate=57014", stack.handler_log())

            stack.wait_until(ended_by_the_server, timeout=30, what="sqlstate 57014")
        finally:
            stack.psql("DROP FUNCTION sleep CASCADE")
        self.assertEqual(someone.get().status, 200)

    def test_a_users_locked_count_shows_as_503_and_is_not_an_unlimited_yes(self):
        someone = User(stack)
        someone.get()
        with locked(stack, f"SELECT * FROM request_counts WHERE user_id = '{someone.id}' FOR UPDATE"):
            self.unavailable(someone.get())
        self.assertEqual(someone.get().status, 200)

    def test_a_changed_column_type_goes_unnoticed(self):
        changes = (
            ("request_counts", "minute_ends", "timestamptz(6)", "timestamptz"),
            ("api_keys", "name", "varchar(300)", "text"),
        )
        for table, column, *types in changes:
            for kind in types:
                with self.subTest(table, kind=kind):
                    stack.psql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind}")
                    self.assertEqual([user.get().status for _ in range(6)], [200] * 6)

    def test_an_added_column_goes_unnoticed(self):
        stack.psql("ALTER TABLE api_keys ADD COLUMN later text DEFAULT 'x'")
        self.assertEqual([user.get().status for _ in range(6)], [200] * 6)
        stack.psql("ALTER TABLE api_keys DROP COLUMN later")
        self.assertEqual([user.get().status for _ in range(6)], [200] * 6)

    def test_a_lost_permission_is_a_500_that_says_nothing(self):
        stack.psql("REVOKE SELECT ON tiers FROM keys_runtime")
        try:
            answer = user.get()
        finally:
            stack.psql("GRANT SELECT ON tiers TO keys_runtime")
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.json()["error"]["code"], "internal_error")
        self.assertNotRegex(answer.body.decode(), "tiers|denied|42501")
        self.logged("statement_failed .*sqlstate=42501")


if __name__ == "__main__":
    unittest.main()
