#!/usr/bin/python3
"""Tokens and keys of a foreign library, npm's jose, against the handler; and ours against it.

Skipped where npm is not installed: tests/vectors/jose.tsv holds tokens of the same making, which the
unit tests verify everywhere. `tests/api/interop_test.py --vectors` prints that file anew.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from tests.support.users import User
from tests.support.stack import ROOT, Stack
from tests.support.npm import installed
from tests.support.token_keys import replace

HERE = ROOT / "tests" / "api"


def jose(*arguments):
    """jose.mjs with jose as package-lock.json pins it."""
    npm = installed("api")
    shutil.copyfile(HERE / "jose.mjs", npm / "jose.mjs")
    done = subprocess.run(["node", npm / "jose.mjs", *arguments], check=True, capture_output=True, timeout=60)
    return json.loads(done.stdout)


def session(user, session_id, now, issuer):
    return {
        "iss": issuer,
        "sub": user,
        "aud": "authenticated",
        "exp": now + 3600,
        "iat": now,
        "app_metadata": {"provider": "email"},
        "user_metadata": {"name": "Zoë 🦊"},
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": now}],
        "session_id": session_id,
        "is_anonymous": False,
    }


def print_vectors():
    print("# Tokens by npm's jose 5.10.0: source, key (JWK), token, verdict. tests/api/interop_test.py --vectors")
    ids = "00000001-0000-4000-8000-000000000001", "5e550001-0000-4000-8000-000000000001"
    for made in jose("sign", json.dumps(session(*ids, 1800000000, "https://ref.supabase.co/auth/v1"))):
        print(f"jose, {made['alg']}", json.dumps(made["jwk"], separators=(",", ":")), made["token"], "ok", sep="\t")


@unittest.skipUnless(shutil.which("npm"), "npm is not installed")
class Interop(unittest.TestCase):
    def test_keys_and_tokens_of_jose_are_understood_and_ours_by_jose(self):
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="keys-interop-")))
        directory.chmod(0o755)
        with Stack(workers=1) as stack:
            user = User(stack, tier="pro")
            ours = [stack.mint("--user", user.id, "--alg", alg) for alg in ("ES256", "RS256", "EdDSA")]
            jwks = pathlib.Path(stack.env["KEYS_JWKS_FILE"])
            found = jose("verify", jwks.read_text(encoding="utf-8"), *ours)
            self.assertEqual([one["alg"] for one in found], ["ES256", "RS256", "EdDSA"])
            self.assertEqual({one["claims"]["sub"] for one in found}, {user.id})

            claims = session(user.id, user.session, int(time.time()), stack.env["KEYS_JWT_ISSUER"])
            theirs = jose("sign", json.dumps(claims))
            self.assertEqual({stack.get(token=one["token"]).status for one in theirs}, {401})
            replace(jwks, json.dumps({"keys": [one["jwk"] for one in theirs]}))
            os.chmod(jwks, 0o644)
            stack.wait_until(lambda: stack.get(token=theirs[1]["token"]).status == 200, 20, "the new keys in use")
            for one in theirs:
                with self.subTest(one["alg"]):
                    self.assertEqual(stack.get(token=one["token"]).status, 200)


if __name__ == "__main__":
    if sys.argv[1:] == ["--vectors"]:
        print_vectors()
    else:
        unittest.main()
