#!/usr/bin/python3
"""tools/list-keys, tools/create-key, tools/revoke-key: output, exit statuses, what is kept secret."""

import hashlib
import json
import os
import pty
import re
import subprocess
import tempfile
import unittest

from tests.support.users import User
from tests.support.stack import ROOT, Stack, bare_environment

LISTED, REFUSED, LIMITED, UNAVAILABLE, USAGE = 0, 3, 4, 5, 2
ODD_NAMES = "00000006-0000-4000-8000-000000000006"
NO_KEYS = "00000003-0000-4000-8000-000000000003"


def setUpModule():
    global stack
    stack = unittest.enterModuleContext(Stack(workers=1))


def list_keys(*arguments, token=None, **options):
    environment = {"SB_ACCESS_TOKEN": token} if token is not None else {}
    return stack.run("tools/list-keys", *arguments, check=False, env=environment, **options)


def on_a_terminal(*command, env):
    """What a command writes when its stdout is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=theirs, stdin=subprocess.DEVNULL, env=bare_environment() | stack.env | env
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:
        pass  # how Linux says that the other side is closed
    os.close(ours)
    process.wait()
    return output.decode().replace("\r\n", "\n")


class ListKeysTest(unittest.TestCase):
    def test_a_pipe_gets_fields_between_tabs(self):
        done = list_keys(token=stack.mint())
        self.assertEqual((done.returncode, done.stderr), (LISTED, ""))
        self.assertEqual(
            done.stdout.split("\n")[0],
            "sk_live_zIc8\tProduction SIEM\tpro\tread:iocs,read:articles,read:articles:export,read:stix\t142587"
            "\t2026-05-17\t2026-01-15\t-\tactive",
        )
        self.assertEqual(len(done.stdout.splitlines()), 2)

    def test_a_terminal_gets_an_aligned_table(self):
        lines = on_a_terminal("tools/list-keys", env={"SB_ACCESS_TOKEN": stack.mint()}).splitlines()
        self.assertEqual(lines[0].split()[:4], ["PREFIX", "NAME", "TIER", "SCOPES"])
        self.assertEqual(len({line.index(word) for line, word in zip(lines, ("TIER", "pro", "free"))}), 1)

    def test_a_user_without_keys_is_told_so(self):
        token = stack.mint("--user", NO_KEYS)
        self.assertEqual(on_a_terminal("tools/list-keys", env={"SB_ACCESS_TOKEN": token}), "No keys.\n")
        self.assertEqual(list_keys(token=token).stdout, "")

    def test_names_cannot_play_tricks_on_a_terminal(self):
        user = User(stack, keys=1)
        name = "E'\\x1b[2J\\u202ex\\u0007y'"
        stack.psql(f"UPDATE api_keys SET name = {name} WHERE user_id = '{user.id}'")
        for output in (
            list_keys(token=user.token).stdout,
            on_a_terminal("tools/list-keys", env={"SB_ACCESS_TOKEN": user.token}),
            list_keys(token=stack.mint("--user", ODD_NAMES)).stdout,
        ):
            self.assertNotRegex(output, "[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]")
        self.assertIn("\ufffd[2J\ufffdx\ufffdy", list_keys(token=user.token).stdout)

    def test_json_is_the_body_as_it_came(self):
        body = json.loads(list_keys("--json", token=stack.mint()).stdout)
        self.assertEqual(body["meta"], {"total": 2})

    def test_revoked_and_expired_keys_are_marked(self):
        states = [line.split("\t")[-1] for line in list_keys(token=stack.mint("--user", ODD_NAMES)).stdout.splitlines()]
        self.assertEqual(states, ["active", "expiring", "revoked", "expired", "active", "active"])

    def test_the_token_may_come_from_a_file_or_stdin(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(stack.mint() + "\n")
            file.flush()
            self.assertEqual(list_keys("--token-file", file.name).returncode, LISTED)
        self.assertEqual(list_keys("--token-file", "-", input=stack.mint()).returncode, LISTED)

    def test_a_running_stack_is_found_without_being_told(self):
        environment = bare_environment() | {"STACK": stack.directory, "SB_ACCESS_TOKEN": stack.mint()}
        done = subprocess.run(["tools/list-keys"], cwd=ROOT, env=environment, capture_output=True, check=False)
        self.assertEqual(done.returncode, LISTED)

    def test_each_refusal_is_told_with_its_code_and_request_id(self):
        for token, code in (("x", "invalid_session"), (stack.mint("--expires-in", "-9"), "expired_session")):
            with self.subTest(code):
                done = list_keys(token=token)
                self.assertEqual((done.returncode, done.stdout), (REFUSED, ""))
                self.assertRegex(done.stderr, rf"\[{code}, req_\w+\]")

    def test_over_the_limit_it_says_when_to_come_back(self):
        user = User(stack)
        user.get()
        user.set_counts("minute_count = 10")
        done = list_keys(token=user.token)
        self.assertEqual(done.returncode, LIMITED)
        self.assertRegex(done.stderr, r"rate_limit_exceeded.*try again in \d+ s")

    def test_an_outage_is_told_apart(self):
        token = stack.mint()
        nobody = list_keys("--url", "https://127.0.0.1:1", token=token)
        self.assertEqual(nobody.returncode, UNAVAILABLE)
        self.assertIn("no answer", nobody.stderr)
        stack.pg_ctl("stop", "-m", "immediate")
        try:
            done = stack.wait_until(
                lambda: (done := list_keys(token=token)).returncode == UNAVAILABLE and done, what="a 503"
            )
        finally:
            stack.pg_ctl("start")
        self.assertRegex(done.stderr, r"service_unavailable.*try again in \d+ s")
        stack.wait_until(lambda: list_keys(token=token).returncode == LISTED, what="recovery")

    def test_an_untrusted_certificate_is_no_answer(self):
        done = list_keys("--cacert", "/etc/ssl/certs/ca-certificates.crt", token=stack.mint())
        self.assertEqual(done.returncode, UNAVAILABLE)
        self.assertIn("certificate", done.stderr)

    def test_no_argument_of_any_process_shows_the_token(self):
        token = stack.mint()
        with tempfile.TemporaryDirectory() as directory:
            # A curl that tells what everybody on the machine could read while it runs.
            curl = os.path.join(directory, "curl")
            with open(curl, "w", encoding="utf-8") as file:
                file.write('#!/bin/sh\ntr "\\0" "\\n" </proc/$$/cmdline >"$0.arguments"\nexec /usr/bin/curl "$@"\n')
            os.chmod(curl, 0o755)
            environment = {"SB_ACCESS_TOKEN": token, "PATH": f"{directory}:{os.environ['PATH']}"}
            done = stack.run("tools/list-keys", env=environment)
            with open(curl + ".arguments", encoding="utf-8") as file:
                arguments = file.read()
        self.assertIn("sk_live_zIc8", done.stdout)
        self.assertIn("--cacert", arguments)
        self.assertNotIn(token.split(".")[2], arguments)

    def test_bad_arguments_are_named(self):
        for arguments, token, words in (
            ([], None, "no token"),
            ([], "a b", "not a token"),
            (["--what"], "x", "what is '--what'"),
            (["--url"], "x", "--url needs a value"),
            (["--token-file", "/nonexistent"], None, "cannot read the token"),
        ):
            with self.subTest(arguments):
                done = list_keys(*arguments, token=token)
                self.assertEqual(done.returncode, USAGE)
                self.assertIn(words, done.stderr)


class CreateAndRevokeTest(unittest.TestCase):
    def create(self, *arguments, check=True, **options):
        return stack.run("tools/create-key", *arguments, check=check, **options)

    def revoke(self, *arguments, **options):
        return stack.run("tools/revoke-key", *arguments, check=False, **options)

    def test_a_new_key_is_shown_once_and_only_its_hash_is_kept(self):
        user = User(stack)
        done = self.create("--user", user.id, "--name", 'CI\'s "first" key', "--scope", "read:iocs", "--scope", "b c")
        secret = done.stdout.strip()
        self.assertRegex(secret, r"^sk_live_[A-Za-z0-9]{40}$")
        self.assertIn("shown this once", done.stderr)
        self.assertNotIn(secret[12:], done.stderr)
        (key,) = user.get().json()["data"]
        self.assertEqual((key["key_prefix"], key["name"]), (secret[:12], 'CI\'s "first" key'))
        self.assertEqual((key["scopes"], key["tier"], key["expires_at"]), (["read:iocs", "b c"], "free", None))
        dump = stack.psql("SELECT k::text FROM api_keys k WHERE user_id = '" + user.id + "'")
        self.assertIn(hashlib.sha256(secret.encode()).hexdigest(), dump)
        self.assertNotIn(secret[12:], dump + stack.postgres_log() + stack.handler_log())

    def test_json_has_the_key_and_its_record(self):
        user = User(stack, tier="pro")
        made = json.loads(self.create("--user", user.id, "--name", "x", "--expires", "90 days", "--json").stdout)
        self.assertEqual((made["tier"], made["scopes"], made["key"][:12]), ("pro", [], made["key_prefix"]))
        self.assertRegex(made["expires_at"], r"^\d{4}-\d\d-\d\dT")
        self.assertEqual(user.get().json()["data"][0]["id"], made["id"])

    def test_nothing_is_made_of_bad_arguments(self):
        user = User(stack)
        named = ["--user", user.id]
        for arguments, status, words in (
            (["--name", "x"], 2, "--user and --name are needed"),
            (["--user", "7", "--name", "x"], 2, "not a UUID"),
            ([*named, "--name", "x", "--expires", "soon"], 2, "is no time"),
            ([*named, "--name", "x", "--expires", "2020-01-01"], 2, "is past"),
            ([*named, "--name", "x", "--tier", "gold"], 1, "no tier 'gold'"),
            ([*named, "--name", "x" * 101], 1, "1 to 100 characters"),
            (["--user", "00000000-0000-4000-8000-00000000dead", "--name", "x"], 1, "there is no user"),
            ([*named, "--name", "x", "--what"], 2, "what is '--what'"),
        ):
            with self.subTest(arguments):
                done = self.create(*arguments, check=False)
                self.assertEqual((done.returncode, done.stdout), (status, ""))
                self.assertIn(words, done.stderr)
        self.assertEqual(user.get().json()["data"], [])

    def test_without_a_database_both_say_so(self):
        away = {"PGHOST": "/nonexistent"}
        done = self.create("--user", NO_KEYS, "--name", "x", check=False, env=away)
        self.assertEqual((done.returncode, done.stdout), (UNAVAILABLE, ""))
        self.assertIn("no database", done.stderr)
        self.assertEqual(self.revoke("sk_live_zIc8", env=away).returncode, UNAVAILABLE)

    def test_a_revoked_key_stays_in_the_list(self):
        user = User(stack)
        made = json.loads(self.create("--user", user.id, "--name", "x", "--json").stdout)
        done = self.revoke(made["key_prefix"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, rf"^Key {made['id']} .* is revoked\.$")
        revoked_at = user.get().json()["data"][0]["revoked_at"]
        self.assertRegex(revoked_at, r"Z$")
        again = self.revoke("--user", user.id, made["id"])
        self.assertEqual(again.returncode, 0)
        self.assertIn("had been revoked already", again.stdout)
        self.assertEqual(user.get().json()["data"][0]["revoked_at"], revoked_at)

    def test_of_several_keys_with_one_prefix_none_is_revoked(self):
        user = User(stack, keys=2)
        done = self.revoke("--user", user.id, "sk_live_T3st")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        for key in user.get().json()["data"]:
            self.assertIn(key["id"], done.stderr)
            self.assertIsNone(key["revoked_at"])
        self.assertEqual(json.loads(self.revoke("--json", key["id"]).stdout)["id"], key["id"])

    def test_a_key_of_somebody_else_is_not_there(self):
        owner, other = User(stack, keys=1), User(stack)
        (key,) = owner.get().json()["data"]
        done = self.revoke("--user", other.id, key["id"])
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no key", done.stderr)
        self.assertIsNone(owner.get().json()["data"][0]["revoked_at"])

    def test_a_whole_key_is_not_taken_as_an_argument(self):
        done = self.revoke("sk_live_" + "a" * 40)
        self.assertEqual(done.returncode, USAGE)
        self.assertNotIn("a" * 40, done.stderr)


class HelpTest(unittest.TestCase):
    def test_every_command_explains_itself(self):
        for tool in (
            "list-keys",
            "create-key",
            "revoke-key",
            "replace-pool",
            "stack",
            "mint-token",
            "install-packages",
        ):
            with self.subTest(tool):
                done = stack.run(f"tools/{tool}", "--help")
                self.assertGreater(len(done.stdout.splitlines()), 5)
                self.assertIn(f"tools/{tool}", done.stdout)
                self.assertFalse(re.search(r"^#", done.stdout, re.M))


if __name__ == "__main__":
    unittest.main()
