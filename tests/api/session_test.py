#!/usr/bin/python3
"""Sessions over HTTPS: which cookies are accepted, and what ends a session with the next request."""

import json
import time
import unittest
import urllib.parse
import uuid

from tests.support.users import User, lift_limits
from tests.support.stack import Stack
from tests.support.token_keys import base64url

SUPABASE = "sb-abcdefghijklmnopqrst-auth-token"


def setUpModule():
    global stack
    stack = unittest.enterModuleContext(Stack({"KEYS_SUPABASE_COOKIE": SUPABASE}, workers=2))
    lift_limits(stack)


class Sessions(unittest.TestCase):
    def assert_good(self, answer):
        self.assertEqual(answer.status, 200, answer)

    def assert_refused(self, answer, code="invalid_session"):
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (401, code))
        self.assertNotIn("x-ratelimit-limit", answer.headers, "no user is known")

    def rules(self, answer):
        """What the log says of a refused request."""
        line = stack.wait_until(
            lambda: [line for line in stack.handler_log().splitlines() if answer.headers["x-request-id"] in line],
            what="the request's line in the log",
        )
        return line[0]


class LiveSessions(Sessions):
    def test_signing_out_ends_the_session_on_the_very_next_request(self):
        for _ in range(5):
            user = User(stack)
            for _ in range(4):
                self.assert_good(user.get())
            stack.psql(f"DELETE FROM auth.sessions WHERE id = '{user.session}'")
            for _ in range(4):
                self.assert_refused(user.get())

    def test_signing_out_on_one_device_leaves_the_other(self):
        user = User(stack)
        other = str(uuid.uuid4())
        stack.psql(f"INSERT INTO auth.sessions (id, user_id) VALUES ('{other}', '{user.id}')")
        on_other = stack.mint("--user", user.id, "--session", other)
        self.assert_good(stack.get(token=on_other))
        stack.psql(f"DELETE FROM auth.sessions WHERE id = '{user.session}'")
        self.assert_refused(user.get())
        self.assert_good(stack.get(token=on_other))

    def test_a_session_ends_at_its_not_after(self):
        user = User(stack)
        for ends, good in (("interval '1 hour'", True), ("interval '-1 second'", False), ("NULL::interval", True)):
            with self.subTest(ends):
                stack.psql(f"UPDATE auth.sessions SET not_after = now() + {ends} WHERE id = '{user.session}'")
                if good:  # a process remembers for a second that the session had ended
                    stack.wait_until(lambda: user.get().status == 200, what="the session's return")
                else:
                    self.assert_refused(user.get())

    def test_the_session_of_another_user_is_none(self):
        user, other = User(stack), User(stack)
        self.assert_refused(stack.get(token=stack.mint("--user", user.id, "--session", other.session)))
        self.assert_good(user.get())

    def test_a_ban_holds_while_it_lasts(self):
        user = User(stack)
        for until, good in (("interval '1 hour'", False), ("interval '-1 second'", True), ("NULL::interval", True)):
            with self.subTest(until):
                stack.psql(f"UPDATE auth.users SET banned_until = now() + {until} WHERE id = '{user.id}'")
                if good:  # a process remembers for a second that the session had ended
                    stack.wait_until(lambda: user.get().status == 200, what="the session's return")
                else:
                    self.assert_refused(user.get())

    def test_a_deleted_user_is_nobody_softly_deleted_or_really(self):
        softly, really = User(stack), User(stack)
        self.assert_good(softly.get())
        self.assert_good(really.get())
        stack.psql(f"UPDATE auth.users SET deleted_at = now() WHERE id = '{softly.id}'")
        stack.psql(f"DELETE FROM auth.users WHERE id = '{really.id}'")
        self.assert_refused(softly.get())
        self.assert_refused(really.get())

    def test_a_user_who_never_was_is_nobody(self):
        self.assert_refused(stack.get(token=stack.mint("--user", str(uuid.uuid4()))))

    def test_a_refused_session_counts_nothing(self):
        user = User(stack)
        stack.psql(f"DELETE FROM auth.sessions WHERE id = '{user.session}'")
        self.assert_refused(user.get())
        self.assertEqual(user.counts(), "")


class Tokens(Sessions):
    def test_each_algorithm_is_answered_200(self):
        user = User(stack)
        for alg in ("HS256", "ES256", "RS256", "EdDSA"):
            for more in ([], ["--no-kid"]):
                with self.subTest(alg, more=more):
                    token = stack.mint("--user", user.id, "--alg", alg, *more)
                    for _ in range(3):  # verified, then remembered
                        self.assert_good(stack.get(token=token))

    def test_a_refusal_names_its_rule_in_the_log_and_never_the_token(self):
        user = User(stack)
        mint = ["--user", user.id, "--session", user.session]
        good = stack.mint(*mint)
        head, claims, signature = good.split(".")
        for rule, token in {
            "header_alg": stack.mint(*mint, "--header", 'alg="none"'),
            "signature": f"{head}.{claims}.{signature[::-1]}"[:-1] + "A",
            "claim_aud": stack.mint(*mint, "--claim", 'aud="other"'),
            "claim_role": stack.mint(*mint, "--claim", 'role="service_role"'),
            "claim_sub": stack.mint(*mint, "--without", "sub"),
            "claim_session_id": stack.mint(*mint, "--without", "session_id"),
            "claim_client_id": stack.mint(*mint, "--claim", 'client_id="9f1c6f0e-6d8b-4f6e-8f6e-1f2d3c4b5a69"'),
            "claim_exp": stack.mint(*mint, "--claim", 'exp="tomorrow"'),
            "not_yet_valid": stack.mint(*mint, "--claim", "nbf=9000000000"),
            "header_crit": stack.mint(*mint, "--header", 'crit=["b64"]'),
            "header_typ": stack.mint(*mint, "--header", 'typ="at+jwt"'),
            "key_unknown": stack.mint(*mint, "--alg", "ES256", "--kid", "nobody's"),
            "token_parts": good + ".",
        }.items():
            with self.subTest(rule):
                answer = stack.get(token=token)
                self.assert_refused(answer)
                self.assertRegex(self.rules(answer), rf"\brule={rule}\b")
        expired = stack.get(token=stack.mint(*mint, "--expires-in", "-60"))
        self.assert_refused(expired, "expired_session")
        self.assertRegex(self.rules(expired), r"\brule=expired\b")
        self.assert_good(user.get())
        self.assertNotIn(signature, stack.handler_log())
        self.assertNotIn(claims[:100], stack.handler_log())

    def test_a_token_expires_while_it_is_remembered(self):
        user = User(stack)
        for seconds in (4, 12, 36):  # a longer life where the machine did not ask twice within it
            expires = time.time() + seconds - 1  # a claim is in whole seconds
            token = stack.mint("--user", user.id, "--expires-in", str(seconds))
            answers = [stack.get(token=token) for _ in range(2)]
            if time.time() < expires:
                break
        for answer in answers:
            self.assert_good(answer)
        stack.wait_until(lambda: stack.get(token=token).status == 401, timeout=50, what="the token to expire")
        self.assert_refused(stack.get(token=token), "expired_session")


class Cookies(Sessions):
    def setUp(self):
        self.user = User(stack)
        self.plain = f"sb-access-token={self.user.token}"
        session = {
            "access_token": self.user.token,
            "token_type": "bearer",
            "expires_in": 3600,
            "refresh_token": "v1.refresh",
            "user": {"id": self.user.id, "user_metadata": {"name": 'Zoë "O\'Hara" 🦊', "padding": "x" * 2000}},
        }
        self.value = "base64-" + base64url(json.dumps(session, ensure_ascii=False).encode())

    def ask(self, *lines, http="1.1"):
        return stack.get(headers={"Cookie": list(lines)}, http=http)

    def chunks(self, size=1500):
        return [
            f"{SUPABASE}.{number}={self.value[at : at + size]}"
            for number, at in enumerate(range(0, len(self.value), size))
        ]

    def test_the_token_may_stand_on_any_line_and_among_any_neighbours(self):
        for http in ("1.1", "2"):
            for lines in (
                [self.plain],
                ["theme=dark", self.plain],
                [self.plain, "theme=dark"],
                ["a=1; b=2", "c=3", f"d=4; {self.plain}; e=5", "f=6"],
                ['junk; =x; q="unclosed', self.plain],
            ):
                with self.subTest(http=http, lines=[line[:30] for line in lines]):
                    self.assert_good(self.ask(*lines, http=http))

    def test_the_cookie_of_supabase_ssr_is_understood_whole_and_in_chunks(self):
        chunks = self.chunks()
        self.assertGreater(len(chunks), 2)
        for http in ("1.1", "2"):
            with self.subTest(http=http):
                self.assert_good(self.ask(f"{SUPABASE}={self.value}", http=http))
                self.assert_good(self.ask("; ".join(chunks), http=http))
                self.assert_good(self.ask(*chunks, http=http))
                self.assert_good(self.ask(*reversed(chunks), f"{SUPABASE}-code-verifier=x", http=http))

    def test_broken_and_missing_chunks_are_refused(self):
        first, second, *rest = self.chunks()
        for what, cookies in {
            "the first is missing": [second, *rest],
            "one in the middle is missing": [first, *rest],
            "the last is missing": [first, second, *rest[:-1]],
            "two have changed places": [
                first.replace(".0=", ".1="),
                second.replace(".1=", ".0="),
                *rest,
            ],
            "one is cut": [first[:-1], second, *rest],
            "one is of something else": [first, f"{SUPABASE}.1=%7B%7D", *rest],
            "not base64": [f"{SUPABASE}={{}}"],
            "no session": [f"{SUPABASE}=base64-{base64url(b'[]')}"],
        }.items():
            with self.subTest(what):
                answer = self.ask("; ".join(cookies))
                self.assert_refused(answer)
                self.assertRegex(self.rules(answer), r"\brule=(cookie_|token_|header_|claims_|signature)")
        self.assert_good(self.ask(first, second, *rest))

    def test_sb_access_token_comes_first(self):
        whole = f"{SUPABASE}={self.value}"
        other = User(stack)
        self.assert_good(self.ask(f"{SUPABASE}=broken; {self.plain}"))
        self.assert_good(self.ask(f"{whole}; sb-access-token=broken"))
        stack.psql(f"DELETE FROM auth.sessions WHERE id = '{other.session}'")
        self.assert_refused(self.ask(f"{whole}; sb-access-token={other.token}"))

    def test_a_stale_cookie_does_not_lock_out_a_live_one(self):
        expired = "sb-access-token=" + stack.mint("--user", self.user.id, "--expires-in", "-60")
        whole = f"{SUPABASE}={self.value}"
        stale = f"{SUPABASE}=base64-" + base64url(json.dumps({"access_token": expired.split("=")[1]}).encode())
        for cookies in (
            [expired, whole],
            [expired, *self.chunks()],
            [expired, self.plain],
            [stale, whole],
            [stale, *self.chunks()],
            [f"{SUPABASE}=", *self.chunks(), f"{SUPABASE}.99=stale"],
        ):
            with self.subTest([cookie[:40] for cookie in cookies]):
                self.assert_good(self.ask("; ".join(cookies)))
        self.assert_refused(self.ask(f"{stale}; {expired}"), "expired_session")
        self.assert_refused(self.ask(f"{stale}; sb-access-token=x"))

    def test_the_session_may_stand_there_as_it_is(self):
        session = {"access_token": self.user.token, "user": {"name": "Зоя 🦊 100%"}}
        raw = urllib.parse.quote(json.dumps(session, ensure_ascii=False))
        self.assert_good(self.ask(f"{SUPABASE}={raw}"))
        half = raw.index("%22user")
        self.assert_good(self.ask(f"{SUPABASE}.0={raw[:half]}; {SUPABASE}.1={raw[half:]}"))

    def test_a_token_up_to_16_kb_is_taken_a_longer_one_is_431(self):
        mint = ["--user", self.user.id, "--session", self.user.session]
        large = stack.mint(*mint, "--claim", f'user_metadata={{"x":"{"x" * 11500}"}}')
        self.assertGreater(len(large), 15 * 1024)
        self.assert_good(stack.get(token=large))
        longer = stack.mint(*mint, "--claim", f'user_metadata={{"x":"{"x" * 12500}"}}')
        self.assertGreater(len(longer), 16 * 1024)
        answer = stack.get(token=longer)
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (431, "headers_too_large"))
        self.assertIn("user_metadata", answer.json()["error"]["message"])
        self.assertRegex(self.rules(answer), r"\brule=token_too_long\b")

    def test_without_either_cookie_there_is_no_session(self):
        self.assert_refused(self.ask("theme=dark"), "missing_api_key")
        self.assert_refused(self.ask("sb-other-auth-token=base64-e30"), "missing_api_key")


class WithoutSessionCheck(Sessions):
    def test_an_issuer_without_a_table_of_sessions_is_served(self):
        with Stack({"KEYS_CHECK_SESSION": "off"}, workers=1) as off:
            user = User(off, tier="pro", keys=2)
            off.psql("DELETE FROM auth.sessions")
            self.assertEqual(user.get().json()["meta"]["total"], 2)
            without = off.mint("--user", user.id, "--without", "session_id")
            self.assertEqual(off.get(token=without).status, 200)
            self.assertEqual(off.get(token=off.mint("--user", user.id, "--claim", 'session_id="x"')).status, 200)
            self.assertEqual(off.get(token=off.mint("--user", user.id, "--without", "sub")).status, 401)
            # Not a trace of Supabase's schema, and a connection that has to prepare its statement anew.
            off.psql(
                """
                DROP SCHEMA keys_private CASCADE;
                DROP SCHEMA auth CASCADE;
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keys_runtime'"""
            )
            off.wait_until(lambda: off.get(token=without).status == 200, what="an answer without those tables")


if __name__ == "__main__":
    unittest.main()
