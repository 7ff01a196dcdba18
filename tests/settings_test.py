#!/usr/bin/python3
"""One list of settings: the code's, the README's, the man page's, the environment file's and --help's are the same."""

import os
import re
import subprocess
import tempfile
import unittest

from tests.stack import ROOT, bare_environment

HANDLER = ROOT / os.environ.get("HANDLER_PROGRAM", "build/keys-fcgi")


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def in_code():
    """name -> default, of the one table in handler/config.cc."""
    table = re.search(r"kSettings = \{(.*?)\n\};", read("handler/config.cc"), re.S)[1]
    return dict(re.findall(r'Setting\{"(KEYS_\w+)", "([^"]*)"', table))


class SettingsTest(unittest.TestCase):
    def same(self, names, where):
        self.assertEqual(set(in_code()) - set(names), set(), f"settings of the code that {where} lacks")
        self.assertEqual(set(names) - set(in_code()), set(), f"settings that {where} has and the code lacks")
        self.assertEqual(len(names), len(set(names)), f"{where} describes a setting twice")

    def test_the_code_reads_every_setting_of_its_table_and_no_other(self):
        used = re.findall(r'reader\.\w+\("(KEYS_\w+)"', read("handler/config.cc"))
        self.same(sorted(set(used)), "LoadConfig")

    def test_no_other_file_of_the_handler_reads_a_setting(self):
        for file in sorted((ROOT / "handler").glob("*.cc")):
            if file.name != "config.cc":
                with self.subTest(file.name):
                    self.assertEqual(re.findall(r'getenv\("(KEYS_\w+)"\)', file.read_text(encoding="utf-8")), [])

    def test_the_table_of_the_readme_has_them(self):
        rows = re.findall(r"^\| `(KEYS_\w+)` \|([^|]*)\|", read("README.md"), re.M)
        self.same([name for name, _ in rows], "README.md")

    def test_the_defaults_of_the_readme_are_the_codes(self):
        for name, cell in re.findall(r"^\| `(KEYS_\w+)` \|([^|]*)\|", read("README.md"), re.M):
            with self.subTest(name):
                default = re.search(r"`([^`]*)`", cell)
                self.assertEqual(default[1] if default else "", in_code()[name])

    def test_the_man_page_has_them(self):
        section = re.search(r"^\.SH ENVIRONMENT\n(.*?)^\.SH ", read("tools/man/keys-fcgi.8.in"), re.M | re.S)[1]
        self.same(re.findall(r"^\.B (KEYS_\w+)$", section, re.M), "the man page")

    def test_the_environment_file_has_them_with_a_comment_each(self):
        text = read("tools/keys-fcgi.env")
        paragraphs = text.split("\n\n")[1:]
        names = []
        for paragraph in paragraphs:
            with self.subTest(paragraph):
                found = set(re.findall(r"^#?(KEYS_\w+)=", paragraph, re.M))
                self.assertEqual(len(found), 1, "a paragraph describes one setting")
                self.assertRegex(paragraph, r"\A# \w")
                names += found
        self.same(names, "tools/keys-fcgi.env")

    def test_the_defaults_of_the_environment_file_are_the_codes(self):
        for name, default in in_code().items():
            if default:
                with self.subTest(name):
                    self.assertIn(f"\n#{name}={default}\n", read("tools/keys-fcgi.env"))

    def test_help_has_them_with_their_defaults(self):
        done = subprocess.run([HANDLER, "--help"], env=bare_environment(), capture_output=True, text=True, check=True)
        lines = re.findall(r"^  (KEYS_\w+) +(\S.*)$", done.stdout, re.M)
        self.same([name for name, _ in lines], "--help")
        for name, meaning in lines:
            with self.subTest(name):
                default = re.search(r" \[([^]]*)\]$", meaning)
                self.assertEqual(default[1] if default else "", in_code()[name])

    def test_check_lists_everything_that_is_wrong(self):
        wrong = {
            "KEYS_DATABASE_URL": "postgresql://u:tell/nobody@h/x", "KEYS_JWT_SECRET_FILE": "/nowhere/secret",
            "KEYS_METRICS_FILE": "/nowhere/metrics", "KEYS_DEADLINE_MS": "1",
        }  # fmt: skip
        command = [HANDLER, "--check"]
        done = subprocess.run(command, env=bare_environment() | wrong, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        for words in ("KEYS_DATABASE_URL: a port", "/nowhere/secret", "/nowhere/metrics", "KEYS_DEADLINE_MS"):
            self.assertEqual(done.stderr.count(words), 1, done.stderr)
        self.assertNotRegex(done.stderr, "tell|nobody")

    def test_a_cgi_request_is_answered_whatever_setting_is_wrong(self):
        secret = self.enterContext(tempfile.NamedTemporaryFile("w"))
        print("a secret of this test alone, 32 bytes or more", file=secret, flush=True)
        good = {"REQUEST_METHOD": "GET", "KEYS_DATABASE_URL": "host=/nowhere", "KEYS_JWT_SECRET_FILE": secret.name}
        for name, value, status in (
            ("REQUEST_METHOD", "POST", "405"),  # the control: no setting
            ("KEYS_METRICS_FILE", "/nowhere/metrics", "500"),
            ("KEYS_JWT_SECRET_FILE", "/nowhere/secret", "500"),
            ("KEYS_DEADLINE_MS", "1", "500"),
        ):
            with self.subTest(name):
                settings = good | {name: value}
                done = subprocess.run(
                    [HANDLER], env=bare_environment() | settings, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                    check=False,
                )  # fmt: skip
                self.assertRegex(done.stdout, rf'\AStatus: {status} (.*\n)+\n\{{"error":\{{.*\}}\}}\Z')
                self.assertEqual(done.returncode, 0 if status == "405" else 1)

    def test_units_set_only_settings_that_exist(self):
        for file in sorted((ROOT / "tools" / "systemd").glob("*.in")):
            for name in re.findall(r"\b(KEYS_[A-Z]\w+)=", file.read_text(encoding="utf-8")):
                with self.subTest(file=file.name, name=name):
                    self.assertIn(name, in_code())


if __name__ == "__main__":
    unittest.main()
