#!/usr/bin/python3
"""The rate limit, exact across the processes of two whole stacks on one database."""

import contextlib
import datetime
import math
import re
import resource
import time
import unittest

from tests.support.fastcgi import Peer, request
from tests.support.handler_process import Handler
from tests.support.load import ask_many
from tests.support.users import User, counter
from tests.support.stack import ROOT, Stack, stopped

FREE = (10, 1000)
PRO = (1000, 1000000)


def setUpModule():
    global first, second, handler
    first = unittest.enterModuleContext(Stack({"KEYS_DEADLINE_MS": "4500"}, workers=3))
    shared = ("KEYS_DEADLINE_MS", "KEYS_DATABASE_URL", "KEYS_JWT_SECRET_FILE", "KEYS_JWKS_FILE")
    second = unittest.enterModuleContext(Stack({name: first.env[name] for name in shared}, workers=3))
    # One process, for bursts: a thousand clients, and time for a busy machine.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    handler = unittest.enterModuleContext(Handler(first, settings={"KEYS_DEADLINE_MS": "60000"}))
    handler.await_good(User(first).token)


@contextlib.contextmanager
def tier(name, per_minute, per_day, before):
    """Another row of tiers for a while."""
    sql = "UPDATE tiers SET requests_per_minute = {}, requests_per_day = {} WHERE name = '{}'"
    first.psql(sql.format(per_minute, per_day, name))
    try:
        yield
    finally:
        first.psql(sql.format(*before, name))


def all_processes(user):
    """Asks until every process of both stacks has surely been asked; the statuses."""
    return {answer.status for answer in ask_many([first, second], user.token, 120)}


def over_for(user, seconds):
    """Uses up the minute of a free user who has been counted; when it ends, in seconds since the epoch."""
    user.set_counts(f"minute_count = 10, minute_ends = clock_timestamp() + interval '{seconds} s'")
    return float(user.counts("extract(epoch FROM minute_ends)"))


def first_200(user):
    """Asks until the answer is a 200 and returns it; every answer before it is a 429."""

    def granted():
        answer = user.get()
        assert answer.status in (200, 429), answer.status
        return answer if answer.status == 200 else None

    return first.wait_until(granted, what="the end of the minute")


class Exactness(unittest.TestCase):
    def test_a_free_user_at_six_processes_of_two_stacks_gets_exactly_10_answers(self):
        for _ in range(3):
            user = User(first)
            answers = ask_many([first, second], user.token, 200, clients=32)
            statuses = [answer.status for answer in answers]
            self.assertEqual(statuses.count(200), 10)
            self.assertEqual(statuses.count(429), 190)
            self.assertEqual(user.counts(), "10|10")

    def test_a_pro_user_at_six_processes_of_two_stacks_gets_exactly_1000_answers(self):
        user = User(first, tier="pro")
        answers = ask_many([first, second], user.token, 1500, clients=32)
        statuses = [answer.status for answer in answers]
        self.assertLess(max(answer.ended for answer in answers) - min(answer.began for answer in answers), 60)
        self.assertEqual(statuses.count(200), 1000)
        self.assertEqual(statuses.count(429), 500)
        self.assertEqual(user.counts(), "1000|1000")

    def test_each_number_of_requests_left_is_told_to_exactly_one_request(self):
        user = User(first)
        answers = ask_many([first, second], user.token, 60)
        left = [int(one.headers["x-ratelimit-remaining"]) for one in answers if one.status == 200]
        self.assertEqual(sorted(left), list(range(10)))

    def test_users_do_not_use_up_each_others_requests(self):
        one, other = User(first), User(first)
        self.assertIn(429, all_processes(one))
        self.assertEqual(other.get().headers["x-ratelimit-remaining"], "9")


class Bursts(unittest.TestCase):
    """Requests of one user that arrive while the database is at work are counted together, and to the request."""

    def burst(self, user, size, left, window="minute", lose=False):
        """Sends `size` requests at once when a window has `left` left; the (status, remaining) of each, in order."""
        limits = dict(zip(("minute", "day"), PRO if size > 100 else FREE, strict=True))
        user.get()
        user.set_counts(f"{window}_count = {limits[window] - left}")
        with contextlib.ExitStack() as exits:
            peers = [exits.enter_context(Peer(handler.socket, timeout=60)) for _ in range(size)]
            with stopped(handler.backend()):
                for peer in peers:
                    peer.send(request(user.token))
                first.wait_until(lambda: all(peer.unread() == 0 for peer in peers), what="every request to be read")
                if lose:
                    first.psql("SELECT pg_terminate_backend(%d)" % handler.backend())
            answers = [peer.answer() for peer in peers]
        self.assertEqual(user.counts(f"{window}_count"), str(limits[window] - left + min(size, left)))
        return [(status, int(headers["x-ratelimit-remaining"])) for status, headers, _ in answers]

    def test_a_burst_is_granted_what_the_window_has_left_in_the_order_of_arrival(self):
        for size in (1, 2, 10, 11):
            for left in (0, 1, 9):
                for window in ("minute", "day"):
                    with self.subTest(size=size, left=left, window=window):
                        answers = self.burst(User(first), size, left, window)
                        granted = min(size, left)
                        self.assertEqual([status for status, _ in answers], [200] * granted + [429] * (size - granted))
                        if window == "minute":  # of which the headers tell, unless the day is exhausted
                            left_after = [*range(left - 1, left - 1 - granted, -1), *[0] * (size - granted)]
                            self.assertEqual([number for _, number in answers], left_after)

    def test_a_burst_of_a_thousand_is_exact(self):
        for size, left in ((1000, 999), (1001, 999), (1001, 0)):
            with self.subTest(size=size, left=left):
                answers = self.burst(User(first, tier="pro"), size, left)
                self.assertEqual([status for status, _ in answers], [200] * left + [429] * (size - left))
                self.assertEqual([number for _, number in answers[:left]], list(range(left - 1, -1, -1)))

    def test_a_burst_whose_connection_is_lost_is_counted_once(self):
        answers = self.burst(User(first), 11, 9, lose=True)
        self.assertEqual([status for status, _ in answers], [200] * 9 + [429] * 2)

    def test_all_of_a_session_that_has_ended_are_401(self):
        user = User(first)
        first.psql(f"DELETE FROM auth.sessions WHERE user_id = '{user.id}'")
        with contextlib.ExitStack() as exits:
            peers = [exits.enter_context(Peer(handler.socket, timeout=60)) for _ in range(50)]
            with stopped(handler.backend()):
                for peer in peers:
                    peer.send(request(user.token))
                first.wait_until(lambda: all(peer.unread() == 0 for peer in peers), what="every request to be read")
            self.assertEqual({peer.answer()[0] for peer in peers}, {401})

        def refused_from_memory():  # for a second after the lookup was sent; after it there is another lookup
            self.assertEqual(handler.ask(user.token)[0], 401)
            return "rule=session_not_live_remembered" in handler.log()

        first.wait_until(refused_from_memory, what="a refusal that is remembered")
        self.assertEqual(user.counts(), "")


class Fairness(unittest.TestCase):
    """However many requests one user has waiting, another user waits for one statement and the one in flight."""

    def statements(self):
        """How many statements the process has sent, by what its connection says of itself."""
        text = handler.ask(KEYS_STATUS_PAGE="metrics")[2].decode()
        return int(re.search(r"^keys_statement_lookups_count (\d+)$", text, re.M)[1])

    def answered(self, since):
        """The users of the requests in the log from this position on, in the order of their answers."""
        return re.findall(r" user=([\w-]{36}) ", handler.log()[since:])

    def test_ten_users_behind_a_thousand_requests_of_one_are_answered_before_them(self):
        others = [User(first) for _ in range(10)]
        for kind in ("live pro", "over the limit", "signed out"):
            flood = User(first, tier="pro" if kind == "live pro" else None)
            if kind == "over the limit":
                flood.get()
                flood.set_counts("minute_count = 10")
            elif kind == "signed out":
                first.psql(f"DELETE FROM auth.sessions WHERE user_id = '{flood.id}'")
            with self.subTest(kind), contextlib.ExitStack() as exits:
                peers = [exits.enter_context(Peer(handler.socket, timeout=60)) for _ in range(1000)]
                neighbours = [exits.enter_context(Peer(handler.socket, timeout=60)) for _ in others]
                before, logged = self.statements(), len(handler.log())
                with stopped(handler.backend()):
                    for peer in peers:
                        peer.send(request(flood.token))
                    first.wait_until(lambda: all(peer.unread() == 0 for peer in peers), what="the flood to be read")
                    for peer, other in zip(neighbours, others, strict=True):
                        peer.send(request(other.token))
                    first.wait_until(lambda: all(one.unread() == 0 for one in neighbours), what="the others to be read")
                self.assertEqual({peer.answer()[0] for peer in neighbours}, {200})
                expected = {"live pro": {200}, "over the limit": {429}, "signed out": {401}}[kind]
                self.assertEqual({peer.answer()[0] for peer in peers}, expected)
                if kind == "live pro":
                    first.wait_until(lambda: len(self.answered(logged)) == 1010, what="the log")
                    # Those of the flood that were in flight, the others, the rest of the flood.
                    order = [user == flood.id for user in self.answered(logged)]
                    began = order.index(False)
                    self.assertEqual(order[began:], [False] * 10 + [True] * (1000 - began))
                    self.assertLess(began, 1000)
                # The one that was in flight, and the one after it for everybody else.
                self.assertLessEqual(self.statements() - before, 2)


class Headers(unittest.TestCase):
    def test_requests_1_10_and_11_of_a_free_user_carry_the_documented_headers(self):
        user = User(first)
        before = time.time()
        answers = [user.get(first if number % 2 else second) for number in range(11)]
        self.assertEqual([answer.status for answer in answers], [200] * 10 + [429])
        reset = int(answers[0].headers["x-ratelimit-reset"])
        self.assertTrue(math.floor(before) + 60 <= reset <= math.ceil(time.time()) + 60, reset)
        for number, minute_left, day_left in ((1, 9, 999), (10, 0, 990), (11, 0, 990)):
            with self.subTest(request=number):
                headers = answers[number - 1].headers
                self.assertEqual(headers["x-ratelimit-limit"], "10")
                self.assertEqual(headers["x-ratelimit-remaining"], str(minute_left))
                self.assertEqual(headers["x-ratelimit-reset"], str(reset))
                self.assertEqual(headers["ratelimit-policy"], '"minute";q=10;w=60, "day";q=1000;w=86400')
                self.assertRegex(headers["ratelimit"], rf'^"minute";r={minute_left};t=\d+, "day";r={day_left};t=\d+$')
                self.assertEqual("retry-after" in headers, number == 11)
        self.assertTrue(1 <= int(answers[10].headers["retry-after"]) <= 60)

    def test_a_429_names_limit_window_and_reset_and_holds_no_keys(self):
        user = User(first, keys=2)
        for _ in range(10):
            user.get()
        answer = user.get()
        error = answer.json()["error"]
        self.assertEqual(answer.status, 429)
        self.assertEqual(answer.json().keys(), {"error"})
        self.assertEqual(error["code"], "rate_limit_exceeded")
        reset = int(answer.headers["x-ratelimit-reset"])
        self.assertEqual(error["details"], {"limit": 10, "window": "minute", "reset": reset})
        self.assertEqual(error["request_id"], answer.headers["x-request-id"])

    def test_remaining_never_rises_and_never_falls_below_0_within_a_window(self):
        user = User(first)
        answers = [user.get([first, second][number % 2]) for number in range(16)]
        left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
        self.assertEqual(left, list(range(9, -1, -1)) + [0] * 6)
        self.assertEqual(len({answer.headers["x-ratelimit-reset"] for answer in answers}), 1)

    def test_a_head_request_counts_and_tells_as_a_get_does(self):
        user = User(first)
        answer = user.get(method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["x-ratelimit-remaining"], "9")
        self.assertEqual(user.get().headers["x-ratelimit-remaining"], "8")

    def test_retry_after_is_never_0_not_even_in_the_last_moments_of_a_window(self):
        user = User(first)
        user.get()
        seen = []
        while 1 not in seen:  # nobody asked in the last second: another minute
            over_for(user, 2)
            seen = []
            while (answer := user.get()).status == 429:
                seen.append(int(answer.headers["retry-after"]))
            self.assertEqual(answer.status, 200)
        self.assertEqual(min(seen), 1)


class Windows(unittest.TestCase):
    def test_after_the_end_of_the_minute_the_next_request_begins_a_new_one(self):
        user = User(first)
        self.assertEqual(all_processes(user), {200, 429})
        fresh = User(first)
        fresh.get()
        ends = over_for(fresh, 2)
        answer = first_200(fresh)
        self.assertGreaterEqual(time.time(), ends)
        self.assertEqual(answer.headers["x-ratelimit-remaining"], "9")
        self.assertEqual(fresh.counts(), "1|2")

    def test_an_exhausted_day_is_told_by_its_own_limit_and_reset(self):
        user = User(first)
        user.get()
        user.set_counts("day_count = 999")
        last = user.get()
        self.assertEqual(last.status, 200)
        self.assertEqual(last.headers["x-ratelimit-limit"], "1000")
        self.assertEqual(last.headers["x-ratelimit-remaining"], "0")
        answer = user.get()
        ends = math.ceil(float(user.counts("extract(epoch FROM day_ends)")))
        self.assertEqual(answer.status, 429)
        self.assertEqual(answer.json()["error"]["details"], {"limit": 1000, "window": "day", "reset": ends})
        self.assertEqual(answer.headers["x-ratelimit-reset"], str(ends))
        self.assertTrue(86300 < int(answer.headers["retry-after"]) <= 86400)

    def test_a_request_over_the_day_does_not_consume_the_minute(self):
        user = User(first)
        user.get()
        user.set_counts("day_count = 1000")
        self.assertEqual(all_processes(user), {429})
        self.assertEqual(user.counts(), "1|1000")

    def test_a_request_over_the_minute_does_not_consume_the_day(self):
        user = User(first)
        user.get()
        user.set_counts("minute_count = 10")
        self.assertEqual(all_processes(user), {429})
        self.assertEqual(user.counts(), "10|1")

    def test_a_day_that_ends_begins_anew(self):
        user = User(first)
        user.get()
        user.set_counts("minute_ends = now() - interval '1 h', day_ends = now(), day_count = 1000")
        self.assertEqual(user.get().status, 200)
        self.assertEqual(user.counts(), "1|1")

    def test_the_windows_are_60_and_86400_seconds_from_their_first_request(self):
        user = User(first)
        user.get()
        first_ends = user.counts("minute_ends, day_ends")
        user.get()
        self.assertEqual(user.counts("minute_ends, day_ends"), first_ends)
        minute, day = (datetime.datetime.fromisoformat(text + ":00") for text in first_ends.split("|"))
        self.assertEqual(day - minute, datetime.timedelta(seconds=86400 - 60))


class WhoIsCounted(unittest.TestCase):
    def test_a_refused_session_counts_nothing_and_is_told_no_limit(self):
        user = User(first)
        mint = ("--user", user.id, "--session", user.session)
        signed_out = User(first)
        first.psql(f"DELETE FROM auth.sessions WHERE user_id = '{signed_out.id}'")
        banned = User(first)
        first.psql(f"UPDATE auth.users SET banned_until = 'infinity' WHERE id = '{banned.id}'")
        for why, who, token in (
            ("signed out", signed_out, signed_out.token),
            ("banned", banned, banned.token),
            ("expired", user, first.mint(*mint, "--expires-in", "-60")),
            ("another's session", user, first.mint("--user", user.id, "--session", signed_out.session)),
            ("for another audience", user, first.mint(*mint, "--claim", 'aud="anon"')),
        ):
            with self.subTest(why):
                answer = first.get(token=token)
                self.assertEqual(answer.status, 401)
                self.assertEqual(who.counts(), "")
                self.assertFalse([name for name in answer.headers if "ratelimit" in name])
        self.assertEqual(user.get().headers["x-ratelimit-remaining"], "9")

    def test_a_refused_method_or_site_counts_nothing(self):
        user = User(first)
        self.assertEqual(user.get(method="DELETE").status, 405)
        self.assertEqual(user.get(headers={"Sec-Fetch-Site": "cross-site"}).status, 403)
        self.assertEqual(user.counts(), "")

    def test_all_sessions_of_a_user_share_one_count(self):
        user = User(first)
        other = "0" + user.session[1:]
        first.psql(f"INSERT INTO auth.sessions (id, user_id) VALUES ('{other}', '{user.id}')")
        user.get()
        answer = second.get(token=first.mint("--user", user.id, "--session", other))
        self.assertEqual(answer.headers["x-ratelimit-remaining"], "8")


class Tiers(unittest.TestCase):
    def test_a_changed_row_counts_from_the_next_request_on_without_a_restart(self):
        user = User(first)
        self.assertEqual(user.get().headers["x-ratelimit-limit"], "10")
        with tier("free", 12, 500, before=FREE):
            for stack in (first, second):
                headers = user.get(stack).headers
                self.assertEqual(headers["x-ratelimit-limit"], "12")
                self.assertIn('"day";q=500', headers["ratelimit-policy"])
            self.assertEqual([one.status for one in ask_many(first, user.token, 12)].count(200), 9)

    def test_a_row_lowered_below_the_count_refuses_at_once(self):
        user = User(first)
        for _ in range(5):
            user.get()
        with tier("free", 3, 1000, before=FREE):
            answer = user.get()
            self.assertEqual(answer.status, 429)
            self.assertEqual(answer.headers["x-ratelimit-limit"], "3")
            self.assertEqual(answer.headers["x-ratelimit-remaining"], "0")

    def test_an_account_that_becomes_pro_has_pro_limits_at_the_next_request(self):
        user = User(first)
        user.get()
        first.psql(f"INSERT INTO accounts (user_id, tier) VALUES ('{user.id}', 'pro')")
        headers = user.get().headers
        self.assertEqual(headers["x-ratelimit-limit"], "1000")
        self.assertEqual(headers["x-ratelimit-remaining"], "998")

    def test_a_raised_limit_frees_a_user_who_is_over_when_the_minute_ends_at_the_latest(self):
        user = User(first)
        user.get()
        for seconds in (2, 8, 32):  # a longer minute where the machine did not ask all processes within it
            ends = over_for(user, seconds)
            statuses = all_processes(user)
            if time.time() < ends:
                break
        self.assertEqual(statuses, {429})
        first.psql(f"INSERT INTO accounts (user_id, tier) VALUES ('{user.id}', 'pro')")
        # A process forgets that the user is over a statement's time before that.
        first.wait_until(lambda: time.time() >= ends, timeout=40, what="the end of the minute")
        self.assertEqual(all_processes(user), {200})

    def test_a_nonsensical_row_is_refused_by_a_constraint(self):
        for sql, constraint in (
            ("INSERT INTO tiers VALUES ('gold', 1, 1)", "tiers_name_is_published"),
            ("UPDATE tiers SET requests_per_minute = 0", "tiers_minute_is_positive"),
            ("UPDATE tiers SET requests_per_minute = -10", "tiers_minute_is_positive"),
            ("UPDATE tiers SET requests_per_day = 2000000000", "tiers_day_holds_a_minute"),
            ("UPDATE tiers SET requests_per_minute = NULL", "requests_per_minute"),
            ("UPDATE tiers SET requests_per_day = requests_per_minute - 1", "tiers_day_holds_a_minute"),
            ("DELETE FROM tiers WHERE name = 'free'", "default_tier_exists"),
            ("DELETE FROM tiers", "exists"),
            ("UPDATE accounts SET tier = 'gold'", "accounts_tier"),
        ):
            with self.subTest(sql), self.assertRaisesRegex(RuntimeError, constraint):
                first.psql(sql)
        self.assertEqual(User(first).get().status, 200)


class Costs(unittest.TestCase):
    def test_a_flood_of_one_who_is_over_is_answered_from_memory_and_costs_no_query(self):
        user = User(first)
        all_processes(user)

        def flood_from_memory():
            before = counter(first, "keys_over_limit_from_memory_total")
            version = user.counts("xmin, ctid")
            answers = ask_many(first, user.token, 100)
            self.assertEqual({answer.status for answer in answers}, {429})
            self.assertTrue(all(answer.is_json_error() for answer in answers))
            remembered = counter(first, "keys_over_limit_from_memory_total") - before
            return remembered == 100 and user.counts("xmin, ctid") == version

        # A process that has not met this user yet asks the database once.
        first.wait_until(flood_from_memory, timeout=15, what="100 answers from memory alone")

    def test_sweeping_deletes_ended_windows_and_nothing_else(self):
        ended, day_left, counting = User(first), User(first), User(first)
        for user in (ended, day_left, counting):
            user.get()
        ended.set_counts("minute_ends = now() - interval '1 s', day_ends = now() - interval '1 s'")
        day_left.set_counts("minute_ends = now() - interval '1 s'")
        sweep = (ROOT / "sql" / "sweep.sql").read_text(encoding="utf-8")
        first.psql(sweep)
        self.assertEqual(ended.counts(), "")
        self.assertEqual(day_left.counts(), "1|1")
        self.assertEqual(counting.counts(), "1|1")
        self.assertEqual(ended.get().headers["x-ratelimit-remaining"], "9")

    def test_sweeping_does_not_wait_for_a_row_that_is_being_counted(self):
        user = User(first)
        user.get()
        user.set_counts("minute_ends = now() - interval '1 s', day_ends = now() - interval '1 s'")
        sweep = (ROOT / "sql" / "sweep.sql").read_text(encoding="utf-8")
        first.psql(
            f"""
            CREATE EXTENSION IF NOT EXISTS dblink;
            SELECT dblink_connect('counting', 'dbname=keys host={first.env["PGHOST"]}');
            SELECT dblink_exec('counting', 'BEGIN');
            SELECT dblink_exec('counting', $$UPDATE request_counts SET day_count = 2
                WHERE user_id = '{user.id}'$$);
            SET statement_timeout = '5 s';
            {sweep}
            SELECT dblink_exec('counting', 'COMMIT')"""
        )
        self.assertEqual(user.counts("day_count"), "2")

    def test_an_emptied_table_begins_every_window_anew(self):
        user = User(first)
        for _ in range(4):
            user.get()
        first.psql("TRUNCATE request_counts")
        self.assertEqual(user.get().headers["x-ratelimit-remaining"], "9")


if __name__ == "__main__":
    unittest.main()
