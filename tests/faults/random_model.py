"""What each user of a random-fault run may see, answer by answer.

Facts change while requests are under way, so each has a beginning and an end: a change may show from the moment it
begins, and must show to requests that begin after it is done. A change is repeated until PostgreSQL has committed it.
"""

import copy
import dataclasses
import json
import math
import threading
import time
import uuid

from tests.support.stalls import stood_still
from tests.support.users import User

DEADLINE = 2.0  # seconds; what KEYS_DEADLINE_MS is by default
PATIENCE = 1.7  # an outage that is shorter fails no request
GIVEN_UP = 5.0  # seconds; fastcgi_read_timeout in nginx/keys-api.conf
SLACK = 1.0  # what a busy machine may add to a bound
FORGOTTEN = 1.0  # a process remembers for so long that a session has ended (list_keys.h)
LIMIT = 10  # requests per minute of a free user
NEVER = math.inf


@dataclasses.dataclass
class Span:
    """A fault, and what it may do to the requests that overlap it."""

    name: str
    began: float
    ended: float = NEVER
    refuses: bool = False  # 503
    delays: bool = False  # while it lasts, requests wait; 503 when they would have to for too long
    breaks: bool = False  # 502: a process that had begun to answer is gone
    repeats: bool = False  # nginx asks again, with a deadline of its own
    pauses: float = 0.0  # adds so many seconds to an answer
    connects: bool = True  # False: PostgreSQL takes no new connection
    empties: bool = False  # PostgreSQL crashed: its UNLOGGED counts are gone
    user: str = None  # the id of the only one that it concerns, on whatever session
    after: float = SLACK  # how long it still shows when it has ended

    def meets(self, began, ended):
        return began <= self.ended + self.after and ended >= self.began


class Fact:
    """A value that changes: (value, may show from, surely shows to requests from)."""

    def __init__(self, value):
        self.history = [[value, -NEVER, -NEVER]]

    def begin(self, value):
        self.history.append([value, time.monotonic(), NEVER])

    def done(self, extra=0.0):
        self.history[-1][2] = time.monotonic() + extra

    def may_be(self, began, ended):
        """The values that a request in this time may have seen."""
        found = []
        for value, may, surely in reversed(self.history):
            if may <= ended:
                found.append(value)
            if surely <= began:
                break
        return found


class Key:
    def __init__(self, name, is_there=True):
        self.id = str(uuid.uuid4())
        self.name, self.is_revoked, self.is_there = Fact(name), Fact(False), Fact(is_there)


class Someone(User):
    """A user whose keys and session change. `kind`: pro, free, expired, forged, nobody (no cookie).

    `verifies`: whether the key set has the key that signs his tokens, whichever session they are of.
    """

    def __init__(self, stack, kind, alg, verifies):
        super().__init__(stack, tier="free" if kind == "free" else "pro")
        self.kind, self.kind_when_live, self.alg, self.verifies = kind, kind, alg, verifies
        self.is_live = Fact(kind in ("pro", "free"))
        self.keys = []
        self.signs_in(self.session)
        if kind == "expired":
            self.token = stack.mint("--user", self.id, "--session", self.session, "--expires-in", "-60")
        if kind == "forged":
            self.token = self.token.rpartition(".")[0] + "." + "x" * 43

    def signs_in(self, session):
        self.session = session
        self.token = self.stack.mint("--user", self.id, "--session", session, "--alg", self.alg)

    def with_session(self, session, is_stopping):
        """The same user, signed in anew; None when the run ends before."""
        again = copy.copy(self)
        again.kind, again.is_live = self.kind_when_live, Fact(True)
        insert = f"INSERT INTO auth.sessions (id, user_id) VALUES ('{session}', '{self.id}') ON CONFLICT DO NOTHING"
        if not self.commit(insert, is_stopping):
            return None
        again.signs_in(session)
        return again

    # --- changes --------------------------------------------------------------------------------------

    def commit(self, sql, is_stopping):
        """Repeats what may be repeated until it is done; False when the run ends before."""
        while not is_stopping():
            try:
                self.stack.psql(sql)
                return True
            except RuntimeError:
                time.sleep(0.1)
        return False

    def change(self, chance, is_stopping):
        """Adds, renames, revokes or deletes a key; or bans the user, or lets him in again."""
        if self.kind not in ("pro", "free"):
            return
        there = [key for key in self.keys if key.is_there.history[-1][0]]
        action = chance.choice(("add", "rename", "revoke", "delete", "ban"))
        if not self.is_live.history[-1][0]:
            action = "ban"  # is over
        if action == "ban":
            return self.ban(is_stopping)
        if action == "add" or not there:
            return self.add(f"Key {len(self.keys)}", is_stopping)
        key = chance.choice(there)
        if action == "rename":
            name = f"Name {chance.randrange(10**6)}"
            return self.set(key.name, name, f"SET name = '{name}'", key, is_stopping)
        if action == "revoke":
            return self.set(key.is_revoked, True, "SET revoked_at = now()", key, is_stopping)
        key.is_there.begin(False)
        if self.commit(f"DELETE FROM api_keys WHERE id = '{key.id}'", is_stopping):
            key.is_there.done()

    def add(self, name, is_stopping):
        key = Key(name, False)
        self.keys.append(key)
        key.is_there.begin(True)
        columns = "id, user_id, key_prefix, key_hash, name, tier, scopes"
        values = f"'{key.id}', '{self.id}', 'sk_live_T3st', sha256('{key.id}'), '{name}', 'free', '{{read:iocs}}'"
        insert = f"INSERT INTO api_keys ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING"
        if self.commit(insert, is_stopping):
            key.is_there.done()

    def set(self, fact, value, assignment, key, is_stopping):
        fact.begin(value)
        if self.commit(f"UPDATE api_keys {assignment} WHERE id = '{key.id}'", is_stopping):
            fact.done()

    def ban(self, is_stopping):
        is_banned = not self.is_live.history[-1][0]
        until = "NULL" if is_banned else "'infinity'"
        self.is_live.begin(is_banned)
        if self.commit(f"UPDATE auth.users SET banned_until = {until} WHERE id = '{self.id}'", is_stopping):
            self.is_live.done(FORGOTTEN + SLACK if is_banned else 0)

    def sign_out(self, is_stopping):
        """For good: his token is refused from now on."""
        self.is_live.begin(False)
        if self.commit(f"DELETE FROM auth.sessions WHERE id = '{self.session}'", is_stopping):
            self.is_live.done()

    # --- answers --------------------------------------------------------------------------------------

    def fault_of(self, answer):
        """What is wrong with an answer, if anything. A 503 is judged by the faults, when they are known."""
        began, ended = answer.began, answer.ended
        if answer.status == 0:
            return f"no answer: {answer.error}"
        if answer.status != 200:
            return self.fault_of_error(answer, began, ended)
        if True not in self.is_live.may_be(began, ended):
            return "200 for a session that has ended"
        if True not in self.verifies.may_be(began, ended):
            return "200 for a token whose key is gone"
        return self.fault_of_list(json.loads(answer.body), began, ended)

    def fault_of_error(self, answer, began, ended):
        if not answer.is_json_error():
            return f"{answer.status} that is no error of the API: {answer.body[:200]}"
        if answer.status == 401:
            code = json.loads(answer.body)["error"]["code"]
            wanted = {"nobody": "missing_api_key", "expired": "expired_session"}.get(self.kind, "invalid_session")
            if code != wanted:
                return f"401 {code}, not {wanted}"
            if False not in self.is_live.may_be(began, ended) + self.verifies.may_be(began, ended):
                return "401 for a live session"
        elif answer.status == 429 and self.kind_when_live != "free":
            return f"429 for {self.kind}"
        elif answer.status not in (429, 502, 503, 504):
            return f"{answer.status}"
        elif self.kind in ("expired", "forged", "nobody") and answer.status == 503:
            return "503 for a request that needs no database"
        return None

    def fault_of_list(self, body, began, ended):
        listed = {row["id"]: row for row in body["data"]}
        ours = {key.id: key for key in list(self.keys)}
        if foreign := listed.keys() - ours.keys():
            return f"keys of somebody else: {foreign}"
        if body["meta"]["total"] != len(body["data"]):
            return "a wrong total"
        for key in ours.values():
            row = listed.get(key.id)
            if (row is not None) not in key.is_there.may_be(began, ended):
                return f"key {key.id} is {'there' if row else 'missing'}"
            if row and row["name"] not in key.name.may_be(began, ended):
                return f"key {key.id} has the name {row['name']}"
            if row and (row["revoked_at"] is not None) not in key.is_revoked.may_be(began, ended):
                return f"key {key.id}: revoked_at is {row['revoked_at']}"
        return None


@dataclasses.dataclass
class Seen:
    """What is kept of an answer."""

    user: Someone
    began: float
    took: float
    status: int
    remaining: int
    window: int  # its end by the database's clock

    @property
    def ended(self):
        return self.began + self.took


class Witness:
    """Judges answers: most at once, the others when the faults of the run are known."""

    def __init__(self):
        self.seen, self.problems = [], []
        self.lock = threading.Lock()

    def take(self, user, answer):
        problem = user.fault_of(answer)
        numbers = [int(answer.headers.get(f"x-ratelimit-{name}", -1)) for name in ("remaining", "reset")]
        with self.lock:
            self.seen.append(Seen(user, answer.began, answer.took, answer.status, *numbers))
            if problem:
                self.problems.append((answer.began, f"{user.kind} {user.alg} {user.id}: {problem}"))

    def judge(self, spans):
        """All that is wrong, as (moment, text)."""
        for seen in self.seen:
            met = [one for one in spans if one.meets(seen.began, seen.ended) and one.user in (None, seen.user.id)]
            stall = stood_still(seen.began, seen.ended)
            wait = stall + sum(one.ended - one.began for one in met if one.delays or self.lacks_a_process(one, spans))
            if seen.status == 503 and wait < PATIENCE and not any(one.refuses for one in met):
                self.problems.append(
                    (seen.began, f"503 after {seen.took:.2f} s for {seen.user.id}, which had to wait {wait:.2f} s")
                )
            if seen.status == 502 and not any(one.breaks for one in met):
                self.problems.append((seen.began, "502 although no process was killed"))
            # A process that is stopped has told nobody; awake, it has its deadline still before it.
            if seen.status == 504 and sum(one.pauses for one in met) < GIVEN_UP - DEADLINE - SLACK / 4:
                self.problems.append((seen.began, "504 although no process was stopped for so long"))
            bound = DEADLINE + SLACK + stall + sum(one.pauses + DEADLINE * one.repeats for one in met)
            if seen.took > bound:
                self.problems.append((seen.began, f"{seen.status} after {seen.took:.2f} s, more than {bound:.2f}"))
        self.judge_counts([one for one in spans if one.empties])
        return sorted(self.problems)

    @staticmethod
    def lacks_a_process(span, spans):
        """Whether a process was replaced while PostgreSQL took no new connection: its successor has none."""
        return not span.connects and any(one.repeats and one.meets(span.began, span.ended) for one in spans)

    def judge_counts(self, crashes):
        """Within a window no two requests are granted the same of its requests, and so never more than it has."""
        granted = {}
        for seen in sorted((one for one in self.seen if one.status == 200), key=lambda one: one.began):
            grant = (seen.user.id, seen.window, seen.remaining)
            before = granted.setdefault(grant, seen)
            if before is not seen and not any(one.meets(before.began, seen.ended) for one in crashes):
                self.problems.append((seen.began, f"granted twice: {seen.user.kind} {grant}"))
            if seen.user.kind == "free" and not 0 <= seen.remaining < LIMIT:
                self.problems.append((seen.began, f"a free user has {seen.remaining} left"))
