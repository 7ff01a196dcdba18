#!/usr/bin/python3
"""Signing keys are rotated under load: no restart, no dropped request, nothing that outlives its key."""

import os
import pathlib
import shutil
import tempfile
import time
import unittest

from tests.support.load import Load
from tests.support.users import counter, lift_limits
from tests.support.stack import Stack
from tests.support.token_keys import Key, publish, replace

WORKERS = 3
WITHIN = 20  # seconds until every process has the news: it looks each second, and the machine may be busy


def setUpModule():
    global directory, jwks, old, new, stack
    directory = tempfile.mkdtemp(prefix="keys-rotation-")
    unittest.addModuleCleanup(shutil.rmtree, directory)
    pathlib.Path(directory).chmod(0o755)
    jwks = f"{directory}/jwks.json"
    old, new = Key(directory, "old"), Key(directory, "new")
    publish(jwks, old)
    stack = unittest.enterModuleContext(Stack({"KEYS_JWKS_FILE": jwks, "KEYS_DEADLINE_MS": "4500"}, workers=WORKERS))
    lift_limits(stack)


def loads():
    """How often the processes have taken a new set, all together."""
    return counter(stack, "keys_key_reloads_total")


class Rotation(unittest.TestCase):
    def setUp(self):
        self.publish(old)

    def publish(self, *keys):
        """Publishes keys, and waits until every process uses them: at once, if they are in the file already."""
        file = pathlib.Path(jwks)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        before = loads()
        publish(jwks, *keys)
        if file.read_text(encoding="utf-8") != text:
            stack.wait_until(lambda: loads() >= before + WORKERS, WITHIN, f"{WORKERS} processes with the new keys")

    def statuses_everywhere(self, token):
        """What every process says of a token: new connections land on any of them."""
        answers = [stack.get(token=token) for _ in range(6 * WORKERS)]
        return {(answer.status, answer.status == 200 or answer.json()["error"]["code"]) for answer in answers}

    def assert_good(self, token):
        self.assertEqual(self.statuses_everywhere(token), {(200, True)})

    def assert_refused(self, token):
        self.assertEqual(self.statuses_everywhere(token), {(401, "invalid_session")})

    def test_the_four_states_of_a_key_are_walked_through_without_a_dropped_request(self):
        of_old, of_new = old.mint(stack), new.mint(stack)
        self.assert_good(of_old)
        self.assert_refused(of_new)
        with Load(stack, of_old, clients=6, pause=0.01) as users_of_old:
            users_of_old.wait_for(200)
            # Standby: the new key is published, nobody signs with it yet.
            self.publish(old, new)
            self.assert_good(of_new)
            # In use: new tokens are signed with it; the old key is «previously used» and still verifies.
            with Load(stack, of_new, clients=6, pause=0.01) as users_of_new:
                users_of_new.wait_for(200)
                self.publish(new, old)
                self.assert_good(of_old)
                self.assert_good(of_new)
                users_of_old.wait_for(200, count=50)
                last_good = time.monotonic()
                # Revoked: the old key is gone, and with it every token it signed, remembered or not.
                self.publish(new)
                self.assert_refused(of_old)
                users_of_old.wait_for(401, count=50)
                users_of_new.wait_for(200, count=50)
        self.assertEqual([*users_of_old.lost, *users_of_new.lost], [])
        self.assertEqual(set(users_of_new.statuses()), {200})
        self.assertEqual(set(users_of_old.statuses()), {200, 401})
        refusals = [answer for answer in users_of_old.answers if answer.status == 401]
        self.assertGreater(min(answer.ended for answer in refusals), last_good, "nobody was refused before the end")

    def test_a_key_that_was_removed_verifies_nothing_in_the_moment_its_process_knows(self):
        token = old.mint(stack)
        self.assert_good(token)
        self.publish(new)
        self.assertEqual({stack.get(token=token).status for _ in range(30)}, {401})
        self.publish(new, old)
        self.assert_good(token)

    def test_a_broken_file_is_logged_once_by_each_process_and_the_old_keys_stay(self):
        token = old.mint(stack)
        for what, text in {
            "cut off": pathlib.Path(jwks).read_text(encoding="utf-8")[:-20],
            "empty": "",
            "an error page": "<html>502 Bad Gateway</html>",
            "no JWK set": '{"kid":"leaked","kty":"EC"}',
        }.items():
            with self.subTest(what):
                failures = counter(stack, "keys_key_reload_failures_total")
                lines = stack.handler_log().count(" keys_broken ")
                replace(jwks, text)
                stack.wait_until(
                    lambda: counter(stack, "keys_key_reload_failures_total") >= failures + WORKERS,
                    WITHIN,
                    "every process to see it",
                )
                time.sleep(2.5)  # two more looks at the file
                self.assertEqual(stack.handler_log().count(" keys_broken "), lines + WORKERS)
                self.assert_good(token)
        # A key that is none of ours is skipped and named; the secret beside it goes on verifying.
        replace(jwks, '{"keys":[{"kid":"leaked","kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}]}')
        stack.wait_until(
            lambda: stack.handler_log().count("leaked") >= WORKERS, WITHIN, "every process to name the key"
        )
        self.publish(old, new)
        self.assert_good(new.mint(stack))

    def test_the_same_keys_again_are_confirmed_and_replace_none(self):
        before = loads()
        os.utime(jwks, (time.time() + 100, time.time() + 100))
        confirmed = os.stat(jwks).st_mtime // 1
        stack.wait_until(
            lambda: counter(stack, "keys_key_set_confirmed_timestamp_seconds") == confirmed,
            WITHIN,
            "every process to see it",
        )
        self.assertEqual(loads(), before)

    def test_a_file_that_disappears_leaves_the_keys_in_use(self):
        token = old.mint(stack)
        failures = counter(stack, "keys_key_reload_failures_total")
        pathlib.Path(jwks).unlink()
        stack.wait_until(
            lambda: counter(stack, "keys_key_reload_failures_total") >= failures + WORKERS,
            WITHIN,
            "every process to see it",
        )
        self.assert_good(token)
        self.publish(old, new)
        self.assert_good(token)

    def test_the_legacy_secret_is_watched_as_well(self):
        secret = stack.env["KEYS_JWT_SECRET_FILE"]
        before = pathlib.Path(secret).read_bytes()
        token = stack.mint("--alg", "HS256")
        self.assert_good(token)
        reloads = loads()
        try:
            pathlib.Path(secret).write_bytes(b"another secret that nobody signed with")
            stack.wait_until(lambda: loads() >= reloads + WORKERS, WITHIN, "the new secret in every process")
            self.assert_refused(token)
            self.assert_good(old.mint(stack))
        finally:
            reloads = loads()
            pathlib.Path(secret).write_bytes(before)
            stack.wait_until(lambda: loads() >= reloads + WORKERS, WITHIN, "the old secret in every process")
        self.assert_good(token)


if __name__ == "__main__":
    unittest.main()
