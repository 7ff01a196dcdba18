#!/usr/bin/python3
"""The service beside Supabase's own auth server: every way in which its sessions begin, change and end.

`make test-supabase SUPABASE_AUTH=/path/to/auth` runs it. The auth server makes its schema itself, sql/ is applied by the
command of sql/README.md as a role that is no superuser, tools/refresh-jwks fetches the server's key set, and after each
step the stack is asked for the list.
"""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import time
import unittest
import urllib.parse

from tests.support import supabase_auth
from tests.support.handler_process import Handler
from tests.support.npm import installed
from tests.support.stack import ROOT, Stack
from tests.support.supabase_auth import PASSWORD, AuthServer, Project, Refused, one_time_password, run_or_raise
from tests.support.token_keys import base64url, claims_of, header_of, replace
from tests.support.users import counter, lift_limits

WORKERS = 2
SECRET = "the legacy secret of this test's project, long enough"
OLD, NEW = "correct horse battery staple", "a new password, not the old one"
POOL_USER = "www-data"
CHAPTER = "On a Supabase database"


def setUpModule():
    global project, auth, stack, anon, jwks, secret_file
    if supabase_auth.missing():
        return
    project = unittest.enterModuleContext(Project())
    auth = AuthServer(project, SECRET)
    secret_file = project.client_file("jwt-secret", SECRET, POOL_USER)
    anon, auth.service_role = (api_key(role) for role in ("anon", "service_role"))
    unittest.enterModuleContext(auth)
    apply_sql_as_the_chapter_says()
    lift_limits(project)
    jwks = str(project.files_of_clients / "jwks.json")
    refresh_jwks()
    stack = unittest.enterModuleContext(Stack(settings(), workers=WORKERS))
    ready = lambda: stack.get("/readyz", url=stack.status_url).status == 200
    stack.wait_until(ready, timeout=20, what="the pool's connections to the project")


def api_key(role):
    """A project's legacy API key, as the dashboard shows it: signed like a token, without a user."""
    without = (
        "sub",
        "aud",
        "session_id",
        "email",
        "phone",
        "aal",
        "amr",
        "app_metadata",
        "user_metadata",
        "is_anonymous",
    )
    words = ["tools/mint-token", "--key", secret_file, "--expires-in", "315360000"]
    words += ["--claim", 'iss="supabase"', "--claim", 'ref="abcdefghijklmnopqrst"', "--claim", f'role="{role}"']
    words += [word for name in without for word in ("--without", name)]
    environment = os.environ | {"STACK": "/nonexistent"}
    return subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def apply_sql_as_the_chapter_says():
    """The command of sql/README.md, with this project's address, then passwords for the two roles."""
    chapter = (ROOT / "sql" / "README.md").read_text(encoding="utf-8").split(f"## {CHAPTER}\n")[1]
    command = re.search(r"^ *```\w*\n *(cat .*)\n *```$", chapter, re.M)[1]
    command = command.replace("/usr/share/keys-fcgi/sql/", f"{ROOT}/sql/")
    command = re.sub(r"'postgresql://[^']*'", f"'{project.connection('postgres')}'", command)
    project.as_postgres(command)
    for role in ("keys_runtime", "keys_sweeper"):
        sql = f"ALTER ROLE {role} PASSWORD '{PASSWORD}'"
        project.as_postgres(f"""psql -X -v ON_ERROR_STOP=1 -c "{sql}" '{project.connection("postgres")}'""")


def settings():
    passfile = project.client_file("pgpass", f"*:*:*:*:{PASSWORD}\n", POOL_USER)
    return {
        "KEYS_DATABASE_URL": project.connection("keys_runtime", passfile),
        "KEYS_JWT_SECRET_FILE": secret_file,
        "KEYS_JWKS_FILE": jwks,
        "KEYS_JWT_ISSUER": auth.issuer,
        "KEYS_SUPABASE_COOKIE": "sb-127-auth-token",  # what supabase-js calls it, by the host of its URL
        "HOME": str(project.files_of_clients),  # libpq looks there for a client's certificate, and may not at root's
    }


def refresh_jwks(url=None, check=True):
    """What the timer runs."""
    return subprocess.run(
        ["tools/refresh-jwks", url or f"{auth.issuer}/.well-known/jwks.json", jwks],
        cwd=ROOT,
        env=os.environ | {"KEYS_JWT_SECRET_FILE": secret_file},
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
    )


class User:
    """Somebody who signed up, and has one key, of a name of its own."""

    def __init__(self, data=None, anonymous=False, keys=1):
        self.email = None if anonymous else f"{secrets.token_hex(8)}@example.com"
        body = {"data": data or {}}
        if not anonymous:
            body |= {"email": self.email, "password": OLD}
        self.first = auth.post("/signup", body)
        self.token = self.first["access_token"]
        self.id = self.first["user"]["id"]
        self.listed = (200, f"Key of {self.id}")
        project.psql(
            f"""
            INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name)
            SELECT '{self.id}', 'sk_live_T3st', sha256('{self.id}'), 'Key of {self.id}' FROM generate_series(1, {keys})"""
        )

    def sign_in(self, password=OLD):
        """A session of its own: its access token."""
        return auth.post("/token?grant_type=password", {"email": self.email, "password": password})["access_token"]


INVALID = (401, "invalid_session")


def answer(token=None, cookie=None):
    """200 and the name of the first key, or the status and the code of the refusal."""
    got = stack.get(token=token, headers={"Cookie": cookie} if cookie is not None else None)
    body = got.json()
    if got.status == 200:
        return 200, body["data"][0]["name"] if body["data"] else None
    return got.status, body["error"]["code"]


def refresh(refresh_token):
    return auth.post("/token?grant_type=refresh_token", {"refresh_token": refresh_token})


@unittest.skipIf(supabase_auth.missing(), supabase_auth.missing())
class Case(unittest.TestCase):
    maxDiff = None

    def assert_answer(self, expected, *tokens):
        """Each process says so, at once: new connections land on any of them."""
        for token in tokens:
            self.assertEqual({answer(token) for _ in range(3 * WORKERS)}, {expected})

    def await_answer(self, expected, token):
        """A process remembers an ended session for up to a second."""
        stack.wait_until(lambda: answer(token) == expected, what=f"{expected}")
        stack.wait_until(
            lambda: {answer(token) for _ in range(3 * WORKERS)} == {expected}, what=f"{expected} of each process"
        )


class TheDatabase(Case):
    def test_the_role_that_applied_sql_is_no_superuser_and_the_roles_of_the_interface_see_nothing(self):
        self.assertEqual(project.psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'postgres'"), "f")
        self.assertEqual(project.psql("SELECT evtenabled FROM pg_event_trigger"), "O", "automatic row security")
        user = User()
        self.assert_answer(user.listed, user.token)
        grant = "GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated"
        project.psql(f"SET ROLE postgres; {grant}")
        for role in ("anon", "authenticated"):
            for table in ("api_keys", "accounts", "tiers", "request_counts"):
                with self.subTest(role=role, table=table):
                    self.assertEqual(project.psql(f"SET ROLE {role}; SELECT count(*) FROM public.{table}"), "0")
        self.assert_answer(user.listed, user.token)
        apply_sql_as_the_chapter_says()
        self.assert_answer(user.listed, user.token)
        self.assertEqual(project.psql("SELECT has_table_privilege('anon', 'public.api_keys', 'SELECT')"), "f")

    def test_a_key_is_created_and_ended_counts_are_swept_by_the_roles_of_the_chapter(self):
        user = User(keys=0)
        self.assert_answer((200, None), user.token)
        connection = {
            "PGHOST": "localhost",
            "PGHOSTADDR": "127.0.0.1",
            "PGPORT": str(project.port),
            "PGDATABASE": "postgres",
        }
        connection |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": f"{project.files_of_clients}/ours.crt"}
        words = " ".join(f"{name}={value}" for name, value in connection.items())
        project.as_postgres(f"{words} PGUSER=postgres tools/create-key --user {user.id} --name 'My first key'")
        self.assert_answer((200, "My first key"), user.token)
        ended = f"UPDATE public.request_counts SET minute_ends = now(), day_ends = now() WHERE user_id = '{user.id}'"
        project.psql(ended)
        project.as_postgres(f"{words} PGUSER=keys_sweeper psql -X -q -v ON_ERROR_STOP=1 -f sql/sweep.sql")
        left = project.psql(f"SELECT count(*) FROM public.request_counts WHERE user_id = '{user.id}'")
        self.assertEqual(left, "0")
        self.assert_answer((200, "My first key"), user.token)

    def test_check_is_content_and_names_a_parameter_that_is_not_postgresqls(self):
        url = stack.env["KEYS_DATABASE_URL"]
        self.assertEqual(project.check(url), (0, ""))
        status, complaints = project.check(f"{url}&supa=base-pooler.x")
        self.assertEqual(status, 1)
        self.assertIn("supa", complaints)
        self.assertNotIn("percent-encoded", complaints)


class Sessions(Case):
    def test_sign_up_sign_in_and_refresh(self):
        user = User()
        self.assert_answer(user.listed, user.token)
        second = user.sign_in()
        self.assertNotEqual(claims_of(second)["session_id"], claims_of(user.token)["session_id"])
        self.assert_answer(user.listed, user.token, second)
        issued = claims_of(user.token)["iat"]
        stack.wait_until(lambda: time.time() >= issued + 1, what="another second: two tokens of one are the same")
        refreshed = refresh(user.first["refresh_token"])["access_token"]
        self.assertNotEqual(refreshed, user.token)
        self.assertEqual(claims_of(refreshed)["session_id"], claims_of(user.token)["session_id"])
        self.assert_answer(user.listed, refreshed, user.token)

    def test_an_anonymous_user_and_the_upgrade(self):
        user = User(anonymous=True)
        self.assertTrue(claims_of(user.token)["is_anonymous"])
        self.assert_answer(user.listed, user.token)
        user.email = f"{secrets.token_hex(8)}@example.com"
        auth.put("/user", {"email": user.email, "password": OLD}, user.token)
        self.assert_answer(user.listed, user.token)
        upgraded = refresh(user.first["refresh_token"])["access_token"]
        self.assertEqual((claims_of(upgraded)["is_anonymous"], claims_of(upgraded)["email"]), (False, user.email))
        self.assert_answer(user.listed, upgraded, user.token, user.sign_in())

    def test_the_second_factor_raises_the_session_and_both_tokens_list(self):
        user = User()
        factor = auth.post("/factors", {"factor_type": "totp", "friendly_name": "phone"}, user.token)
        self.assert_answer(user.listed, user.token)
        challenge = auth.post(f"/factors/{factor['id']}/challenge", token=user.token)
        code = one_time_password(factor["totp"]["secret"])
        answered = {"challenge_id": challenge["id"], "code": code}
        raised = auth.post(f"/factors/{factor['id']}/verify", answered, user.token)["access_token"]
        self.assertEqual((claims_of(user.token)["aal"], claims_of(raised)["aal"]), ("aal1", "aal2"))
        self.assert_answer(user.listed, raised, user.token)
        # Signed in by password alone, the second factor still to come: `aal` is not looked at.
        self.assert_answer(user.listed, user.sign_in())

    def test_sign_out_of_the_others_of_this_and_of_all(self):
        user = User()
        first, second, third = user.token, user.sign_in(), user.sign_in()
        self.assert_answer(user.listed, first, second, third)
        auth.post("/logout?scope=others", token=first)
        self.assert_answer(INVALID, second, third)
        self.assert_answer(user.listed, first)
        fourth = user.sign_in()
        auth.post("/logout?scope=local", token=first)
        self.assert_answer(INVALID, first)
        self.assert_answer(user.listed, fourth)
        fifth = user.sign_in()
        self.assert_answer(user.listed, fourth, fifth)
        auth.post("/logout?scope=global", token=fourth)
        self.assert_answer(INVALID, fourth, fifth)
        self.assert_answer(user.listed, user.sign_in())

    def test_a_new_password_ends_the_other_sessions(self):
        user = User()
        other = user.sign_in()
        auth.put("/user", {"password": NEW}, user.token)
        self.assert_answer(user.listed, user.token)
        self.assert_answer(INVALID, other)
        with self.assertRaises(Refused):
            user.sign_in()
        self.assert_answer(user.listed, user.sign_in(NEW))

    def test_a_ban_its_lifting_and_its_end_by_itself(self):
        user, neighbor = User(), User()
        self.assert_answer(user.listed, user.token)
        auth.administer("PUT", f"/users/{user.id}", {"ban_duration": "24h"})
        self.assert_answer(INVALID, user.token)
        self.assert_answer(neighbor.listed, neighbor.token)
        auth.administer("PUT", f"/users/{user.id}", {"ban_duration": "none"})
        self.await_answer(user.listed, user.token)
        auth.administer("PUT", f"/users/{user.id}", {"ban_duration": "5s"})
        self.assertEqual(answer(user.token), INVALID)
        self.await_answer(user.listed, user.token)

    def test_soft_and_hard_deletion(self):
        for soft in (True, False):
            with self.subTest(soft=soft):
                user = User()
                self.assert_answer(user.listed, user.token)
                auth.administer("DELETE", f"/users/{user.id}", {"should_soft_delete": soft})
                left = project.psql(f"SELECT count(*) FROM auth.users WHERE id = '{user.id}'")
                self.assertEqual(left, "1" if soft else "0")
                self.assert_answer(INVALID, user.token)


class Tokens(Case):
    def test_the_projects_api_keys_are_no_session(self):
        self.assert_answer(INVALID, anon, auth.service_role)

    def test_a_third_partys_app_does_not_get_the_keys_of_the_user_who_approved_it(self):
        user = User()
        app = {"client_name": "A third party", "redirect_uris": ["https://app.example/back"]}
        client = auth.administer("POST", "/oauth/clients", app | {"token_endpoint_auth_method": "none"})
        verifier = secrets.token_urlsafe(48)
        query = {
            "client_id": client["client_id"],
            "redirect_uri": "https://app.example/back",
            "response_type": "code",
            "scope": "email",
            "code_challenge": base64url(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        status, headers, body = auth.request("GET", f"/oauth/authorize?{urllib.parse.urlencode(query)}")
        self.assertEqual(status, 302, body)
        (authorization,) = urllib.parse.parse_qs(urllib.parse.urlsplit(headers["Location"]).query)["authorization_id"]
        auth.get(f"/oauth/authorizations/{authorization}", user.token)
        approved = auth.post(f"/oauth/authorizations/{authorization}/consent", {"action": "approve"}, user.token)
        (code,) = urllib.parse.parse_qs(urllib.parse.urlsplit(approved["redirect_url"]).query)["code"]
        grant = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        grant |= {name: query[name] for name in ("client_id", "redirect_uri")}
        token = auth.post("/oauth/token", grant)["access_token"]
        self.assertEqual((claims_of(token)["client_id"], claims_of(token)["sub"]), (client["client_id"], user.id))
        self.assert_answer(INVALID, token)
        self.assertIn("claim_client_id", stack.handler_log())
        self.assert_answer(user.listed, user.token)

    def test_large_metadata_makes_a_large_token_which_lists_up_to_16_kb(self):
        user = User(data={"about": "x" * 6000})
        self.assertTrue(8_500 < len(user.token) < 9_500, len(user.token))
        self.assert_answer(user.listed, user.token)
        user = User(data={"about": "x" * 13_000})
        self.assertGreater(len(user.token), 16_384)
        self.assert_answer((431, "headers_too_large"), user.token)
        self.assertIn("user_metadata", stack.get(token=user.token).json()["error"]["message"])
        auth.put("/user", {"data": {"about": "x"}}, user.token)
        self.assert_answer(user.listed, refresh(user.first["refresh_token"])["access_token"])

    def test_a_self_hosted_set_with_the_secret_in_it_verifies_beside_the_secret_file_and_without(self):
        user = User()
        pair = new_keys()["ES256"]
        public = {name: pair[name] for name in ("kty", "crv", "x", "y", "alg", "kid")}
        legacy = {"kty": "oct", "k": base64url(SECRET.encode()), "alg": "HS256"}
        odd = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "odd", "x": "AA"}
        file = str(project.files_of_clients / "self-hosted.json")
        replace(file, json.dumps({"keys": [public, odd, legacy]}))
        with with_signing_keys(legacy_key("sign"), pair | {"key_ops": ["verify"]}):
            of_a_kid = user.sign_in()
        with with_signing_keys(pair | {"key_ops": ["sign", "verify"]}):
            of_the_pair = user.sign_in()
        tokens = (user.token, of_a_kid, of_the_pair)
        self.assertEqual([header_of(token)["alg"] for token in tokens], ["HS256", "HS256", "ES256"])
        self.assertEqual(header_of(of_a_kid)["kid"], "legacy")
        for what, secret in (("beside the secret file", secret_file), ("without it", "")):
            with self.subTest(what), Handler(
                stack, settings={"KEYS_JWKS_FILE": file, "KEYS_JWT_SECRET_FILE": secret}
            ) as handler:
                for token in tokens:
                    Stack.wait_until(lambda: handler.ask(token)[0] != 503, what="the database")
                    self.assertEqual(handler.ask(token)[0], 200, header_of(token))


class Rotation(Case):
    def test_hs256_then_es256_then_rs256_then_eddsa_through_the_servers_own_key_set(self):
        keys = new_keys()
        users = [User()]
        self.assertEqual(json.loads(pathlib.Path(jwks).read_text(encoding="utf-8")), {"keys": []})
        tokens = {"HS256": users[0].token}
        self.assert_answer(users[0].listed, tokens["HS256"])
        # Each key is published before it signs: a standby key. The one before goes on verifying.
        steps = ("HS256", "ES256", "RS256", "EdDSA")
        for number, alg in enumerate(steps):
            standby = keys.get(steps[number + 1]) if number + 1 < len(steps) else None
            before = keys.get(steps[number - 1]) if number > 1 else None
            signing = keys[alg] if alg in keys else legacy_key("sign")
            others = [key | {"key_ops": ["verify"]} for key in (standby, before) if key]
            others += [legacy_key("verify")] if alg != "HS256" else []
            with self.subTest(alg), with_signing_keys(signing | {"key_ops": ["sign", "verify"]}, *others):
                tokens[alg] = users[0].sign_in()
                self.assertEqual(header_of(tokens[alg])["alg"], alg)
                self.assert_answer(users[0].listed, tokens[alg])  # although the file is of the time before
                self.refresh_and_await()
                kept = [
                    token for name, token in tokens.items() if name in steps[max(0, number - 1) :] or name == "HS256"
                ]
                self.assert_answer(users[0].listed, *kept)
                revoked = [token for name, token in tokens.items() if token not in kept]
                self.assertEqual(len(revoked), max(0, number - 2))
                self.assert_answer(INVALID, *revoked)
        self.refresh_and_await()  # the server has the secret alone again, and publishes {"keys":[]}
        self.assert_answer(INVALID, *(tokens[alg] for alg in keys))
        self.assert_answer(users[0].listed, tokens["HS256"], users[0].sign_in())

    def refresh_and_await(self):
        """Fetches the key set, which has changed, and waits until each process uses it."""
        before = counter(stack, "keys_key_reloads_total")
        done = refresh_jwks()
        self.assertIn("is new", done.stderr)
        stack.wait_until(lambda: counter(stack, "keys_key_reloads_total") >= before + WORKERS, what="the new keys")

    def test_a_gateway_that_is_down_changes_no_key(self):
        text = pathlib.Path(jwks).read_bytes()
        done = refresh_jwks(f"{auth.url}/nowhere", check=False)
        self.assertEqual((done.returncode, pathlib.Path(jwks).read_bytes()), (1, text), done.stderr)


def new_keys():
    return node("keys")


def legacy_key(operation):
    """The secret as a signing key of the server's: what the dashboard calls "Legacy HS256 (shared secret)"."""
    operations = ["sign", "verify"] if operation == "sign" else ["verify"]
    key = base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()
    return {"kty": "oct", "k": key, "alg": "HS256", "kid": "legacy", "key_ops": operations}


@contextlib.contextmanager
def with_signing_keys(*keys):
    auth.restart(keys)
    try:
        yield
    finally:
        auth.restart()


def packages():
    """@supabase/ssr as tests/api/ssr pins it, and our script beside it."""
    here = installed("api/ssr")
    shutil.copyfile(ROOT / "tests" / "supabase" / "site.mjs", here / "site.mjs")
    return here


def node(mode, wanted=None):
    return json.loads(run_or_raise(["node", "site.mjs", mode], input=json.dumps(wanted), cwd=packages()))


class Visitor:
    """A browser's cookies at a site that uses @supabase/ssr on its server."""

    def __init__(self, encoding="base64url"):
        self.encoding = encoding
        self.cookies = {}

    def call(self, method, *words):
        """What supabase.auth.METHOD answers; its Set-Cookie lines are obeyed."""
        wanted = {"url": auth.url, "key": anon, "encoding": self.encoding, "cookies": self.header}
        done = node("call", wanted | {"method": method, "arguments": words})
        if done["error"]:
            raise RuntimeError(f"{method}: {done['error']}")
        for line in done["set"]:
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            if "max-age=0" in (word.lower() for word in attributes):
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return done.get("data")

    @property
    def header(self):
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())


class Cookies(Case):
    def test_ssr_writes_refreshes_and_removes_the_cookies_in_either_encoding(self):
        for encoding in ("base64url", "raw"):
            with self.subTest(encoding):
                user, visitor = User(data={"name": "Zoë 王"}), Visitor(encoding)
                visitor.call("signInWithPassword", {"email": user.email, "password": OLD})
                self.assertEqual(answer(cookie=visitor.header), user.listed)
                before = visitor.header
                visitor.call("refreshSession")
                self.assertNotEqual(visitor.header, before)
                self.assertEqual(answer(cookie=visitor.header), user.listed)
                self.assertEqual(answer(cookie=before), user.listed, "the token before, until it expires")
                kept = visitor.header
                visitor.call("signOut")
                self.assertEqual(visitor.cookies, {})
                self.assertEqual(answer(cookie="theme=dark"), (401, "missing_api_key"))
                self.assertEqual(answer(cookie=kept), INVALID, "cookies that somebody kept")

    def test_a_stale_cookie_beside_the_live_one_locks_nobody_out(self):
        user, visitor = User(), Visitor()
        stale = user.sign_in()
        auth.post("/logout?scope=local", token=stale)
        self.assertEqual(answer(cookie=f"sb-access-token={user.token}x"), INVALID)
        visitor.call("signInWithPassword", {"email": user.email, "password": OLD})
        broken = visitor.header.replace("=base64-", "=base64-.")
        self.assertNotEqual(broken, visitor.header)
        for what, cookie in {
            "an older library's": f"sb-access-token={user.token}x; {visitor.header}",
            "the same name twice": f"sb-access-token={user.token}x; sb-access-token={user.token}",
            "the same names twice": f"{broken}; {visitor.header}",
        }.items():
            with self.subTest(what):
                self.assertEqual(answer(cookie=cookie), user.listed)

    def test_six_chunks_of_18_kb_list_and_more_than_33_kb_are_431_until_the_metadata_shrinks(self):
        user, visitor = User(data={"about": "x" * 3500}), Visitor()
        visitor.call("signInWithPassword", {"email": user.email, "password": OLD})
        self.assertEqual(len(visitor.cookies), 6)
        self.assertTrue(17_000 < len(visitor.header) < 20_000, len(visitor.header))
        self.assertEqual(answer(cookie=visitor.header), user.listed)
        user, visitor = User(data={"about": "x" * 7500}), Visitor()
        visitor.call("signInWithPassword", {"email": user.email, "password": OLD})
        self.assertGreater(len(visitor.header), 34_000)
        self.assertEqual(answer(cookie=visitor.header), (431, "headers_too_large"))
        visitor.call("updateUser", {"data": {"about": "x"}})
        visitor.call("refreshSession")
        self.assertEqual(answer(cookie=visitor.header), user.listed)


class InABrowser(Case):
    """A page whose script is @supabase/ssr's createBrowserClient; its cookies reach the service by themselves."""

    def setUp(self):
        from tests.support.chromium import Chromium

        auth.gateway.pages["/"] = (
            "text/html",
            b"<!doctype html><title>A site</title><script src=/supabase.js></script>",
        )
        auth.gateway.pages["/supabase.js"] = ("text/javascript", bundle())
        self.page = Chromium(auth.url)
        self.addCleanup(self.page.quit)

    def client(self, method, *words):
        """supabase.auth.METHOD on the page."""
        self.page.open()
        error = self.page.driver.execute_async_script(
            """
            const [key, method, words, done] = arguments;
            createBrowserClient(location.origin, key).auth[method](...words)
              .then(({error}) => done(error?.message ?? null), (fault) => done(String(fault)));
            """,
            anon,
            method,
            words,
        )
        self.assertIsNone(error, method)

    def listed(self):
        """What the browser shows at the endpoint's address."""
        self.page.driver.get(f"{stack.url}/api/v1/keys")
        body = json.loads(self.page.text("body"))
        return body["data"][0]["name"] if "data" in body else body["error"]["code"]

    def test_sign_in_refresh_and_sign_out(self):
        user = User(data={"about": "é王🦊" * 300})
        self.page.open()
        self.assertEqual(self.listed(), "missing_api_key")
        self.client("signInWithPassword", {"email": user.email, "password": OLD})
        chunks = [cookie["name"] for cookie in self.page.cookies()]
        self.assertGreater(len(chunks), 1, chunks)
        self.assertEqual((200, self.listed()), user.listed)
        before = self.page.cookies()
        self.client("refreshSession")
        self.assertNotEqual(self.page.cookies(), before)
        self.assertEqual((200, self.listed()), user.listed)
        self.client("signOut")
        self.assertEqual(self.page.cookies(), [])
        self.assertEqual(self.listed(), "missing_api_key")


def bundle():
    """createBrowserClient as one script for a page, by esbuild as package-lock.json beside this file pins it."""
    esbuild = installed("supabase") / "node_modules" / ".bin" / "esbuild"
    entry = 'import { createBrowserClient } from "@supabase/ssr"; globalThis.createBrowserClient = createBrowserClient;'
    command = [str(esbuild), "--bundle", "--format=iife", "--target=chrome100", "--log-level=error"]
    return run_or_raise(command, input=entry.encode(), cwd=packages(), text=False)


if __name__ == "__main__":
    unittest.main()
