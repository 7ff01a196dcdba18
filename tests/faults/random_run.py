"""A stack under load while random faults happen to it; random_model.py says what its users may see of them.

The seed decides which faults come, how long they last and after which pause. Two lines of them run beside each other:
what happens to the database, and what happens to the processes and files around it.
"""

import contextlib
import os
import pathlib
import random
import signal
import threading
import time
import traceback
import uuid

from tests.faults.random_model import DEADLINE, LIMIT, SLACK, Fact, Someone, Span, Witness
from tests.support.load import Client
from tests.support.stack import Stack, stopped
from tests.support.token_keys import replace

CLIENTS = 16
PAUSE = (0.02, 0.06)  # seconds between two requests of a client
BETWEEN = (1.5, 3.5)  # seconds between two faults of a line
LEFT = 4  # users who go on asking after they have signed out
USERS = {"pro": 12, "free": 4, "expired": 1, "forged": 1, "nobody": 1}
OURS = "usename = 'keys_runtime'"


class Line:
    """Faults, one after the other. A method whose name begins with a letter and that no base class has is one."""

    def __init__(self, run, chance):
        self.run, self.stack, self.chance = run, run.stack, chance
        self.faults = [name for name in vars(type(self)) if not name.startswith("_")]

    def play(self):
        # Drawn by one generator before the fault, so that a fault which chooses more moves none behind it.
        while not self.run.stopping.wait(self.chance.uniform(*BETWEEN)):
            fault, seed = self.chance.choice(self.faults), self.chance.random()
            getattr(self, fault)(random.Random(seed))

    @contextlib.contextmanager
    def span(self, name, **effects):
        span = Span(name, time.monotonic(), **effects)
        self.run.spans.append(span)
        try:
            yield span
        finally:
            span.ended = time.monotonic()


class DatabaseFaults(Line):
    def restart_fast(self, _chance):
        with self._outage("restart -m fast"):
            self.stack.pg_ctl("restart", "-m", "fast")

    def restart_immediate(self, _chance):
        with self._outage("restart -m immediate", empties=True):
            self.stack.pg_ctl("restart", "-m", "immediate")

    def stop(self, chance):
        with self._outage("stopped for 2 to 8 s"):
            self.stack.pg_ctl("stop", "-m", "fast")
            time.sleep(chance.uniform(2, 8))
            self.stack.pg_ctl("start")

    def freeze_server(self, chance):
        seconds = chance.choice((chance.uniform(0.2, 1.0), chance.uniform(2.5, 5)))
        with self._outage("server frozen"), stopped(*self.stack.pids("postgres")):
            time.sleep(seconds)

    def freeze_postmaster(self, chance):
        with self.span("postmaster frozen", connects=False), stopped(self.stack.postmaster_pid()):
            time.sleep(chance.uniform(0.2, 4))

    def freeze_backend(self, chance):
        seconds = chance.choice((chance.uniform(0.05, 0.35), chance.uniform(2.5, 5)))
        with self._backend(chance) as pid, self.span("backend frozen", delays=True) as span, stopped(pid):
            time.sleep(seconds)
            # It may hold counts, for which the other process waits no longer than for anybody's lock.
            span.refuses = time.monotonic() - span.began > DEADLINE / 4 - 0.1

    def kill_backend(self, chance):
        checkpointer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        before = self.stack.psql(checkpointer)
        with self._backend(chance) as pid, self._outage("backend killed", empties=True):
            os.kill(pid, signal.SIGKILL)
            self.stack.wait_until(lambda: self._ask(checkpointer) not in (None, "", before), 30, "the crash's recovery")

    def terminate_backends(self, chance):
        with self.span("backends terminated"):
            for _ in range(chance.randrange(1, 8)):
                self.stack.psql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
                time.sleep(chance.choice((0, 0, 0.01, 0.05, 0.1)))

    def cancel_statements(self, chance):
        with self.span("statements cancelled"):
            for _ in range(chance.randrange(1, 20)):
                self.stack.psql(
                    f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {OURS} AND state = 'active'"
                )

    def lock_count(self, chance):
        user = chance.choice(self.run.users_of("pro"))
        with self.span("a user's count locked", user=user.id, refuses=True):
            self._hold(f"SELECT FROM request_counts WHERE user_id = '{user.id}' FOR UPDATE", chance)

    def lock_table(self, chance):
        table = chance.choice(("request_counts", "api_keys", "auth.sessions"))
        with self.span("a table locked", refuses=True):
            self._hold(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", chance)

    def _hold(self, lock, chance):
        self.stack.psql(f"BEGIN; {lock}; SELECT pg_sleep({chance.uniform(0.2, 2.5)}); COMMIT")

    @contextlib.contextmanager
    def _outage(self, name, **effects):
        """One that is over when a new connection is answered."""
        with self.span(name, delays=True, **effects):
            yield
            self.stack.wait_until(lambda: self._ask("SELECT 1") == "1", 30, "PostgreSQL's return")

    @contextlib.contextmanager
    def _backend(self, chance):
        pids = self.stack.psql(f"SELECT pid FROM pg_stat_activity WHERE {OURS} ORDER BY pid").split()
        with contextlib.suppress(ProcessLookupError):
            yield int(chance.choice(pids))

    def _ask(self, sql):
        try:
            return self.stack.psql(sql)
        except RuntimeError:
            return None


class ProcessFaults(Line):
    def kill(self, chance):
        with self._replaced(chance, "process killed", breaks=True) as pid:
            os.kill(pid, signal.SIGKILL)

    def terminate(self, chance):
        with self._replaced(chance, "process ends (SIGTERM)") as pid:
            os.kill(pid, signal.SIGTERM)

    def pause(self, chance):
        seconds = chance.choice((chance.uniform(0.1, 0.8), chance.uniform(2.2, 4)))
        pid = chance.choice(self.stack.worker_pids())
        with self.span("process stopped (SIGSTOP)", delays=True, pauses=seconds) as span, stopped(pid):
            time.sleep(seconds)
            span.pauses = time.monotonic() - span.began

    def reload_nginx(self, _chance):
        with self.span("nginx reloaded"):
            os.kill(self.stack.nginx_pid(), signal.SIGHUP)

    def break_key_file(self, chance):
        with self.span("key file broken"), self._key_file(chance.choice(("", "{", "[]", "\0" * 4096))):
            time.sleep(chance.uniform(1, 3))

    def withdraw_key(self, chance):
        """The set lacks a key for a while: its users are signed out, nobody else is."""
        file = pathlib.Path(self.stack.env["KEYS_JWKS_FILE"])
        without = file.read_text(encoding="utf-8").replace('"ES256"', '"ES256-not"')
        verifies = self.run.verifies["ES256"]
        with self.span("signing key withdrawn"):
            verifies.begin(False)
            with self._key_file(without):
                verifies.done(2 * SLACK)  # each process looks at the file once per second
                time.sleep(chance.uniform(1, 5))
                verifies.begin(True)
            verifies.done(2 * SLACK)

    @contextlib.contextmanager
    def _key_file(self, text):
        file = pathlib.Path(self.stack.env["KEYS_JWKS_FILE"])
        good = file.read_text(encoding="utf-8")
        replace(file, text)
        try:
            yield
        finally:
            replace(file, good)

    @contextlib.contextmanager
    def _replaced(self, chance, name, **effects):
        pid = chance.choice(self.stack.worker_pids())
        with self.span(name, repeats=True, **effects):
            yield pid
            self.stack.wait_until(
                lambda: len(now := self.stack.worker_pids()) == self.stack.workers and pid not in now,
                30,
                "the process's successor",
            )


class RandomRun:
    """`problems` and what the witness has seen, after play()."""

    def __init__(self, seed, seconds):
        self.seed, self.seconds = seed, seconds
        self.stopping = threading.Event()
        self.witness, self.spans, self.users = Witness(), [], []
        self.verifies = {"HS256": Fact(True), "ES256": Fact(True)}
        self.stack = None
        self.began = 0.0

    def users_of(self, *kinds):
        return [user for user in list(self.users) if user.kind in kinds]

    def play(self):
        chance = random.Random(self.seed)
        with Stack() as self.stack:
            self.stack.psql(
                f"UPDATE tiers SET requests_per_day = 1000000000, requests_per_minute ="
                f" CASE name WHEN 'free' THEN {LIMIT} ELSE 100000000 END"
            )
            self._make_users()
            self.began = time.monotonic()
            clients = [self._thread(self._ask, random.Random(chance.random())) for _ in range(CLIENTS)]
            lines = [DatabaseFaults(self, random.Random(chance.random())).play]
            lines.append(ProcessFaults(self, random.Random(chance.random())).play)
            others = [self._thread(line) for line in lines]
            others.append(self._thread(self._change, random.Random(chance.random())))
            time.sleep(self.seconds)
            self.stopping.set()
            for thread in others + clients:
                thread.join()
            problems = self.witness.judge(self.spans) + self._remaining_problems()
        return [f"{moment - self.began:8.3f} s  {text}" for moment, text in problems]

    def _make_users(self):
        for kind, count in USERS.items():
            for number in range(count):
                alg = "ES256" if number % 4 == 3 else "HS256"
                user = Someone(self.stack, kind, alg, self.verifies[alg])
                if kind == "nobody":
                    user.token = None
                for key in range(number % 4):
                    user.add(f"Key {key}", self.stopping.is_set)
                self.users.append(user)

    def _thread(self, play, *arguments):
        def guarded():
            try:
                play(*arguments)
            except Exception:  # pylint: disable=broad-except  # a thread's failure is the run's
                self.witness.problems.append((time.monotonic(), traceback.format_exc()))

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def _ask(self, chance):
        client = Client(self.stack.url, self.stack.cacert, None)
        while not self.stopping.is_set():
            user = chance.choice(self.users)
            client.use(user.token)
            self.witness.take(user, client.ask())
            self.stopping.wait(chance.uniform(*PAUSE))
        client.close()

    def _change(self, chance):
        """Users change their keys, are banned, sign out and in again."""
        while not self.stopping.wait(chance.uniform(0.1, 0.5)):
            user = chance.choice(self.users_of("pro", "free"))
            if not chance.randrange(20) and user.is_live.history[-1][0]:
                user.sign_out(self.stopping.is_set)
                user.kind = "signed out"
                self._sign_in(user)
            else:
                user.change(chance, self.stopping.is_set)

    def _sign_in(self, user):
        """The same user on a session of its own: the keys are those that he has."""
        again = user.with_session(str(uuid.uuid4()), self.stopping.is_set)
        if again:
            # Of those who have left, the last ones go on asking. (A list of its own: the clients choose of it meanwhile.)
            left = [one for one in self.users if one.kind == "signed out"][-LEFT:]
            self.users = [one for one in self.users if one.kind != "signed out" or one in left] + [again]

    def _remaining_problems(self):
        """When all is over, whoever is signed in is served by a pool that is whole."""
        found = []
        if len(self.stack.worker_pids()) != self.stack.workers:
            found.append("a process is missing")
        for user in self.users:
            # A user who is known to be over the limit is told so, whatever has become of his session.
            wanted = (200,) if user.is_live.history[-1][0] else (401,)
            wanted += (429,) if user.kind_when_live == "free" else ()
            try:
                self.stack.wait_until(lambda user=user, wanted=wanted: user.get().status in wanted, 10, "the end")
            except AssertionError:
                found.append(f"{user.kind} {user.id} does not get {wanted} when all is over")
        return [(time.monotonic(), text) for text in found]
