#!/usr/bin/python3
"""Random cookie jars, read by @supabase/ssr itself and by the handler: the same session, or none.

ssr says for each view of a jar which token it holds: the jar as it is, the jar without the whole cookie, each name's
second occurrence. The handler takes the first of these that is a live session, as handler/auth/session_cookie.h
lists them. ssr tolerates base64 padding and text that is no JSON; jars here have neither. A jar of more than 32 KB is
431. What the handler takes for a session nginx takes for one, too.

Skipped where npm is not installed. SSR_SEED repeats a run, SSR_JARS says how many jars (400).
"""

import hashlib
import hmac
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import ssl
import subprocess
import time
import unittest
import urllib.parse

from tests.support.npm import installed
from tests.support.stack import ROOT, Stack
from tests.support.token_keys import base64url
from tests.support.users import User, lift_limits

NAME = "sb-abcdefghijklmnopqrst-auth-token"
NAMES = ("Zoë 🦊", "Зоя", "王小明", 'O\'Hara "x" \\ 100%', "זואי", "%7B%22", "\u0000\u001f", "a;b,c=d")
LINE, BUFFER = 32 * 1024, 33 * 1024  # bytes: a header line of the one passes, and none does that fills the other
HIDDEN = ("theme=dark", "=x", "junk", f"{NAME}-code-verifier=base64-eyJ9", 'q="unclosed', f"{NAME}.01=x", "café=1")


def ssr(mode, wanted):
    """ssr.mjs beside @supabase/ssr as package-lock.json pins it."""
    here = installed("api/ssr")
    shutil.copyfile(ROOT / "tests" / "api" / "ssr.mjs", here / "ssr.mjs")
    command = ["node", "ssr.mjs", mode, NAME]
    done = subprocess.run(
        command, input=json.dumps(wanted), check=True, capture_output=True, text=True, timeout=300, cwd=here
    )
    return json.loads(done.stdout)


def flood_pattern():
    """By which nginx tells a session's cookies from none: those requests have no part in the limit of the others."""
    text = (ROOT / "nginx" / "keys-api.conf").read_text(encoding="utf-8")
    return re.compile(re.search(r'if \(\$http_cookie !~ "(.*)"\)', text)[1].encode())


class Jars:
    """Makes cookie headers of the sessions of a few users, live and stale."""

    def __init__(self, stack, seed):
        self.random = random.Random(seed)
        self.secret = pathlib.Path(stack.env["KEYS_JWT_SECRET_FILE"]).read_bytes().rstrip(b"\n")
        self.issuer = stack.env["KEYS_JWT_ISSUER"]
        self.users = [User(stack, keys=keys) for keys in (1, 2, 3)]
        self.live = {}  # token -> how many keys its user has

    def session(self):
        """A session as the auth server makes it, its metadata repeated as it does."""
        number = self.random.randrange(len(self.users))
        user, now = self.users[number], int(time.time())
        is_live = self.random.random() < 0.6
        name = self.random.choice(NAMES)
        size = self.random.choice((0, 0, 10, 200, 1000, 3000, 5000, 7000))  # bytes
        text = "".join(self.random.choices("ab é王", k=size)).encode()[:size].decode(errors="ignore")
        metadata = {"name": name, "text": text}
        claims = {"iss": self.issuer, "sub": user.id, "aud": "authenticated", "role": "authenticated"}
        claims |= {"session_id": user.session, "iat": now, "jti": self.random.getrandbits(64)}
        claims |= {"exp": now + (3600 if is_live else -60), "user_metadata": metadata}
        token = self.sign(claims)
        if is_live:
            self.live[token] = number + 1
        return {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": 3600,
            "expires_at": now + 36000,  # or ssr would go and refresh it
            "refresh_token": "v1refresh",
            "user": {"id": user.id, "user_metadata": metadata, "identities": [{"identity_data": metadata}]},
        }

    def sign(self, claims):
        text = (
            base64url(b'{"alg":"HS256","typ":"JWT"}') + "." + base64url(json.dumps(claims, ensure_ascii=False).encode())
        )
        return text + "." + base64url(hmac.new(self.secret, text.encode(), hashlib.sha256).digest())

    def make(self, count):
        """Headers as lists of (name, value) pairs; a name may be None: a neighbour as it stands."""
        wanted = [
            {"session": self.session(), "encoding": self.random.choice(("raw", "base64url"))} for _ in range(2 * count)
        ]
        written = ssr("write", wanted)
        return [self.mix(written[2 * i], written[2 * i + 1]) for i in range(count)]

    def mix(self, jar, other):
        """One generation of cookies, or what browsers and libraries leave of two."""
        pick = self.random.random()
        jar, other = [tuple(pair) for pair in jar], [tuple(pair) for pair in other]
        if len(header(jar + other)) > LINE - 1000:  # room for neighbors
            return jar
        if pick < 0.15:  # leftovers: higher chunks behind a gap, numbers out of range
            number = len(jar) + self.random.choice((0, 1, 2, 30, 10**20))
            jar += [(f"{NAME}.{number}", self.random.choice(("x", "", "base64-", other[0][1])))]
        elif pick < 0.25:  # an emptied whole cookie beside chunks, or a whole one beside them
            jar += [(NAME, self.random.choice(("", "", other[0][1])))]
        elif pick < 0.35 and len(jar) > 1:  # a gap
            jar.pop(self.random.randrange(len(jar)))
        elif pick < 0.5:  # two generations, one after the other: a browser with two domains
            jar += other
        elif pick < 0.6 and len(jar) > 1:  # a write that came halfway
            at = self.random.randrange(1, len(jar) + 1)
            jar = other[:at] + jar[at:]
        elif pick < 0.65:  # emptied, as a sign-out does
            jar = [(name, "") for name, _ in jar]
        elif pick < 0.7:
            jar = [(name, urllib.parse.quote(value) if self.random.random() < 0.5 else value) for name, value in jar]
        elif pick < 0.75:
            self.random.shuffle(jar)
        for _ in range(self.random.choice((0, 0, 1, 3))):
            jar.insert(self.random.randrange(len(jar) + 1), (None, self.random.choice(HIDDEN)))
        return jar


def header(pairs):
    return "; ".join(value if name is None else f"{name}={value}" for name, value in pairs)


def views(pairs):
    """The jar as it is, and what stands behind it: the order of session_cookie.h, what ssr reads first."""
    first, second = {}, {}
    for name, value in pairs:
        if name is None:
            continue
        if name not in first:
            first[name] = value
        else:
            second.setdefault(name, value)
    whole = {name: value for name, value in first.items() if name == NAME}
    chunks = {name: value for name, value in first.items() if name != NAME}
    second_chunks = {name: value for name, value in second.items() if name != NAME}
    second_whole = {name: value for name, value in second.items() if name == NAME}
    mixed = {name: second_chunks.get(name, value) for name, value in chunks.items()} if second_chunks else {}
    views_of_it = (whole, chunks, second_whole, second_chunks, mixed)
    return [header(pairs), *(header(view.items()) for view in views_of_it)]


@unittest.skipUnless(shutil.which("npm"), "npm is not installed")
class AsSsr(unittest.TestCase):
    def ask(self, connection, cookies):
        connection.putrequest("GET", "/api/v1/keys")
        connection.putheader("Cookie", cookies.encode("utf-8"))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def test_random_jars_are_read_as_ssr_reads_them(self):
        seed = os.environ.get("SSR_SEED") or str(random.randrange(10**9))
        count = int(os.environ.get("SSR_JARS", "400"))
        with Stack({"KEYS_SUPABASE_COOKIE": NAME}, workers=1) as stack:
            lift_limits(stack)
            jars = Jars(stack, seed)
            made = jars.make(count)
            asked = [view for jar in made for view in views(jar)]
            tokens = ssr("read", asked)
            context = ssl.create_default_context(cafile=stack.cacert)
            outcomes = {200: 0, 401: 0, 431: 0}
            for number, jar in enumerate(made):
                if LINE < len(header(jar).encode()) <= BUFFER:
                    continue  # the line's name and end decide
                expected = self.expected(jar, tokens[6 * number : 6 * number + 6], jars.live)
                connection = http.client.HTTPSConnection("127.0.0.1", stack.port, context=context, timeout=30)
                status, body = self.ask(connection, header(jar))
                connection.close()
                got = (status, body["meta"]["total"] if status == 200 else None)
                outcomes[expected[0]] += 1
                self.assertEqual(got, expected, f"SSR_SEED={seed}, jar {number}: {header(jar)[:2000]}")
                if status == 200:
                    self.assertRegex(header(jar).encode(), flood_pattern(), f"SSR_SEED={seed}, jar {number}")
            self.assertGreater(min(outcomes.values()), count // 50, f"SSR_SEED={seed}: {outcomes}")

    @staticmethod
    def expected(jar, tokens, live):
        """The status, and how many keys are listed, by the tokens that ssr finds in the views of a jar."""
        if len(header(jar).encode()) > BUFFER:
            return 431, None
        found = next((token for token in tokens if token in live), None)
        return (200, live[found]) if found else (401, None)


if __name__ == "__main__":
    unittest.main()
