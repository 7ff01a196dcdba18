#!/usr/bin/python3
"""tools/mint-token: tokens as Supabase issues them, each part changeable."""

import json
import os
import pathlib
import tempfile
import time
import unittest

from tests.support.stack import DEMO_USER, Stack
from tests.support.token_keys import claims_of, header_of

OTHER_USER = "00000002-0000-4000-8000-000000000002"


def setUpModule():
    global stack
    stack = unittest.enterModuleContext(Stack(workers=1))


class MakeKeysTest(unittest.TestCase):
    def test_the_set_publishes_what_signs_and_the_private_halves_are_private(self):
        with tempfile.TemporaryDirectory() as directory:
            stack.run("tools/mint-token", "--make-keys", directory)
            self.assertEqual(set(os.listdir(directory)), {"secret", "es256.pem", "rs256.pem", "eddsa.pem", "jwks.json"})
            for name in ("secret", "es256.pem", "rs256.pem", "eddsa.pem"):
                self.assertEqual(os.stat(os.path.join(directory, name)).st_mode & 0o777, 0o600, name)
            keys = json.loads(pathlib.Path(directory, "jwks.json").read_text(encoding="utf-8"))["keys"]
            self.assertEqual([key["kid"] for key in keys], ["local-es256", "local-rs256", "local-eddsa"])
            self.assertFalse(any("d" in key for key in keys), "no private member")
            settings = {"KEYS_JWT_SECRET_FILE": f"{directory}/secret", "KEYS_JWKS_FILE": f"{directory}/jwks.json"}
            done = stack.run(f"{stack.place}/bin/keys-fcgi", "--check", env=settings, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_folder_that_is_not_there_is_named(self):
        done = stack.run("tools/mint-token", "--make-keys", "/nonexistent", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nonexistent", done.stderr)


class MintTokenTest(unittest.TestCase):
    def test_a_token_of_each_algorithm_opens_the_door(self):
        for alg in ("HS256", "ES256", "RS256", "EdDSA"):
            with self.subTest(alg):
                token = stack.mint("--alg", alg)
                self.assertEqual(header_of(token)["alg"], alg)
                self.assertEqual(stack.get(token=token).status, 200)

    def test_the_claims_are_those_of_an_access_token(self):
        token = stack.mint()
        claims = claims_of(token)
        self.assertEqual(claims["sub"], DEMO_USER)
        self.assertEqual(claims["session_id"], "5e550000-0000-4000-8000-000000000001")
        self.assertEqual((claims["aud"], claims["role"], claims["aal"]), ("authenticated",) * 2 + ("aal1",))
        self.assertEqual(claims["iss"], stack.env["KEYS_JWT_ISSUER"])
        self.assertAlmostEqual(claims["exp"], time.time() + 3600, delta=10)
        self.assertLess(abs(len(token) - 900), 100, "about as long as a real one")

    def test_a_user_brings_the_demo_session_along(self):
        self.assertEqual(claims_of(stack.mint("--user", OTHER_USER))["session_id"], "5e550000" + OTHER_USER[8:])

    def test_claims_and_header_can_be_changed_and_left_out(self):
        token = stack.mint(
            "--claim",
            'aud=["a","b"]',
            "--claim",
            "exp=1.5",
            "--without",
            "role",
            "--header",
            'crit=["x"]',
            "--kid",
            "k",
        )
        self.assertEqual((claims_of(token)["aud"], claims_of(token)["exp"]), (["a", "b"], 1.5))
        self.assertNotIn("role", claims_of(token))
        self.assertEqual((header_of(token)["crit"], header_of(token)["kid"]), (["x"], "k"))
        self.assertNotIn("kid", header_of(stack.mint("--alg", "ES256", "--no-kid")))

    def test_an_expired_one_was_issued_before_it_expired(self):
        claims = claims_of(stack.mint("--expires-in", "-60"))
        self.assertAlmostEqual(claims["exp"], time.time() - 60, delta=10)
        self.assertLess(claims["iat"], claims["exp"])

    def test_many_tokens_differ_and_all_are_good(self):
        tokens = stack.mint("--count", "2000").split("\n")
        self.assertEqual(len(set(tokens)), 2000)
        self.assertEqual(stack.get(token=tokens[1999]).status, 200)

    def test_pairs_on_stdin_get_a_token_each(self):
        pairs = f"{OTHER_USER},{DEMO_USER}\n{DEMO_USER}\n"
        tokens = stack.run("tools/mint-token", "--pairs", input=pairs).stdout.split()
        named = [(claims_of(token)["sub"], claims_of(token)["session_id"]) for token in tokens]
        self.assertEqual(named, [(OTHER_USER, DEMO_USER), (DEMO_USER, "5e550000" + DEMO_USER[8:])])

    def test_mistakes_are_named(self):
        for arguments, status, words in (
            (["--alg", "none"], 2, "invalid choice: 'none'"),
            (["--claim", "exp"], 2, "takes NAME=JSON"),
            (["--claim", "aud=x"], 2, "not JSON"),
            (["--alg", "ES256", "--key", "/nonexistent"], 1, "cannot read the private key"),
        ):
            with self.subTest(arguments):
                done = stack.run("tools/mint-token", *arguments, check=False)
                self.assertEqual(done.returncode, status)
                self.assertIn(words, done.stderr)

    def test_without_a_stack_it_says_how_to_start_one(self):
        done = stack.run("tools/mint-token", check=False, env={"STACK": "/nonexistent"})
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("make up", done.stderr)


if __name__ == "__main__":
    unittest.main()
