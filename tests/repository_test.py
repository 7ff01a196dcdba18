#!/usr/bin/python3
"""The repository: modules in their order, agreed libraries only, nothing outside referred to, one list of settings."""

import os
import re
import subprocess
import tempfile
import unittest

from tests.support.stack import ROOT, bare_environment

HANDLER = ROOT / os.environ.get("HANDLER_PROGRAM", "build/keys-fcgi")
MAX_FUNCTION_LINES = 60
LIBRARIES = {"libfcgi.so.0", "libpq.so.5", "libcrypto.so.3"}
RUNTIME = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6"}
NOT_COUNTED = re.compile(r"ld-linux.*|lib[au]\w*san\.so\.\d+")
# The folders of handler/, and the files above them; each includes only those that stand before it. auth and database know
# nothing of each other.
ORDER = ("base", "auth", "database", "config", "api", "fastcgi", "cgi", "server", "main")
SIBLINGS = {("auth", "database"), ("database", "auth")}
# Which files may include a C library's header.
ONLY_IN = {
    "fcgiapp.h": {"fastcgi/connection.cc"},
    "libpq-fe.h": {
        "database/pg_connection.cc",
        "database/pg_result.cc",
        "database/conninfo.cc",
        "database/database_check.cc",
    },
}


def tracked(*patterns):
    done = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def includes(file):
    return re.findall(r'^#include [<"]([^>"]+)[>"]', file.read_text(encoding="utf-8"), re.M)


def handler_files():
    """(path below handler/, file) of each source and header."""
    for file in sorted((ROOT / "handler").rglob("*.*")):
        if file.suffix in (".cc", ".h"):
            yield str(file.relative_to(ROOT / "handler")), file


def module_of(path):
    """The folder of a file of handler/, or its stem where it stands above the folders."""
    return path.split("/")[0].split(".")[0]


def functions(text):
    """(first line's number, length in lines) of each function of a source file that clang-format has laid out."""
    begun = None
    for number, line in enumerate(text.split("\n"), 1):
        if (
            re.match(r"(  )?[A-Za-z~].*\) (const )?(override )?\{$", line)
            or re.match(r"(  )?\S.*\{$", line)
            and begun is None
        ):
            indent = len(line) - len(line.lstrip())
            if not re.match(
                r"\s*(namespace|class|struct|enum|using|constexpr|static constexpr|template|extern)\b", line
            ):
                begun = (number, indent)
        elif begun and re.match(r" {%d}\}" % begun[1], line):
            yield begun[0], number - begun[0] + 1
            begun = None


class ModulesTest(unittest.TestCase):
    def test_a_file_includes_only_modules_below_its_own(self):
        for path, file in handler_files():
            for header in includes(file):
                if header.startswith("handler/"):
                    ours, theirs = module_of(path), module_of(header.removeprefix("handler/"))
                    with self.subTest(f"{path} includes {header}"):
                        self.assertLessEqual(ORDER.index(theirs), ORDER.index(ours))
                        self.assertNotIn((ours, theirs), SIBLINGS)

    def test_a_c_library_stays_in_its_module(self):
        for path, file in handler_files():
            for header in includes(file):
                with self.subTest(f"{path} includes {header}"):
                    self.assertIn(path, ONLY_IN.get(header, {path}))
                    if re.match(r"(fcgi|libpq)", header):
                        self.assertEqual(file.suffix, ".cc", "a library's header in a header of ours")

    def test_no_function_is_too_long_to_read(self):
        for path, file in handler_files():
            for line, length in functions(file.read_text(encoding="utf-8")):
                with self.subTest(f"{path}:{line}"):
                    self.assertLessEqual(length, MAX_FUNCTION_LINES)

    def test_constants_and_files_are_named_as_elsewhere(self):
        # kMax, not kMost or kLongest; a file is named after what it holds, never util or helpers.
        for path, file in handler_files():
            with self.subTest(path):
                self.assertNotRegex(file.read_text(encoding="utf-8"), r"\bk(Most|Longest|Long)[A-Z]")
                self.assertNotRegex(path, r"util|common|helper|manager|misc")


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def in_code():
    """name -> default, of the one table in handler/config.cc."""
    table = re.search(r"kSettings = \{(.*?)\n\};", read("handler/config.cc"), re.S)[1]
    return dict(re.findall(r'Setting\{\s*"(KEYS_\w+)",\s*"([^"]*)"', table))


class ProgramTest(unittest.TestCase):
    def test_it_is_linked_with_the_agreed_libraries_only(self):
        found = set(re.findall(r"\(NEEDED\).*\[(.*)\]", self.readelf("-d")))
        foreign = {library for library in found - RUNTIME if not NOT_COUNTED.fullmatch(library)}
        self.assertEqual(foreign, LIBRARIES)

    def test_it_is_hardened(self):
        dynamic = self.readelf("-d")
        self.assertRegex(self.readelf("-h"), r"Type:\s+DYN", "position-independent")
        self.assertRegex(self.readelf("-l"), r"GNU_RELRO")
        self.assertRegex(dynamic, r"FLAGS.*NOW", "the whole of RELRO: bound at start")
        self.assertRegex(self.readelf("-lW"), r"GNU_STACK .* RW ", "no executable stack")
        if not re.search(r"libasan", dynamic):
            symbols = self.readelf("-W", "--dyn-syms")
            self.assertIn("__stack_chk_fail", symbols)
            self.assertRegex(symbols, r"__\w+_chk@", "_FORTIFY_SOURCE")

    def readelf(self, *options):
        command = ["readelf", *options, HANDLER]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class RepositoryTest(unittest.TestCase):
    def test_nothing_refers_to_a_place_outside(self):
        # Only places on the machine that worked on it; spelled apart, for this file is searched too.
        outside = re.compile("/" + r"work/|\.\./" + "shared")
        for file in tracked():
            text = file.read_bytes().decode("utf-8", "replace")
            with self.subTest(str(file.relative_to(ROOT))):
                self.assertIsNone(outside.search(text))

    def test_links_in_pages_lead_to_files(self):
        for page in tracked("*.md"):
            for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
                if not re.match(r"\w+:", link):
                    with self.subTest(f"{page.name}: {link}"):
                        self.assertTrue((page.parent / link).exists())

    def test_what_begins_as_a_script_can_be_run(self):
        for file in tracked():
            if file.read_bytes().startswith(b"#!"):
                with self.subTest(str(file.relative_to(ROOT))):
                    self.assertTrue(os.access(file, os.X_OK))

    def test_nothing_is_left_to_do(self):
        left = re.compile(r"\b(?:TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
        for file in tracked("*.cc", "*.h", "*.sql", "*.py", "*.md", "*.conf", "tools/*", "Makefile"):
            with self.subTest(str(file.relative_to(ROOT))):
                self.assertIsNone(left.search(file.read_text(encoding="utf-8")))

    def test_make_help_names_every_target(self):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        phony = set(re.search(r"^\.PHONY:((?:.*\\\n)*.*)", makefile, re.M)[1].replace("\\", "").split())
        done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
        named = set(re.findall(r"^  make (\S+)", done.stdout, re.M))
        self.assertEqual(phony - named, {"toolchain"}, "targets that `make help` does not tell")
        self.assertEqual(named - phony, set(), "targets that do not exist")


class SettingsTest(unittest.TestCase):
    def same(self, names, where):
        self.assertEqual(set(in_code()) - set(names), set(), f"settings of the code that {where} lacks")
        self.assertEqual(set(names) - set(in_code()), set(), f"settings that {where} has and the code lacks")
        self.assertEqual(len(names), len(set(names)), f"{where} describes a setting twice")

    def test_the_code_reads_every_setting_of_its_table_and_no_other(self):
        used = re.findall(r'reader\.\w+\("(KEYS_\w+)"', read("handler/config.cc"))
        self.same(sorted(set(used)), "LoadConfig")

    def test_no_other_file_of_the_handler_reads_a_setting(self):
        for file in sorted((ROOT / "handler").rglob("*.cc")):
            if file.name != "config.cc":
                with self.subTest(file.name):
                    self.assertEqual(re.findall(r'getenv\("(KEYS_\w+)"\)', file.read_text(encoding="utf-8")), [])

    def test_the_man_page_takes_them_from_help(self):
        page = subprocess.run(
            ["tools/man/render", HANDLER], cwd=ROOT, env=bare_environment(), capture_output=True, text=True, check=True
        ).stdout
        section = re.search(r"^\.SH ENVIRONMENT\n(.*?)^\.SH ", page, re.M | re.S)[1]
        self.same(re.findall(r"^\.B (KEYS_\w+)$", section, re.M), "the man page")

    def test_no_page_has_a_second_table_of_them(self):
        for page in tracked("*.md"):
            with self.subTest(page.name):
                self.assertLess(len(re.findall(r"^\| `KEYS_\w+` \|", page.read_text(encoding="utf-8"), re.M)), 5)

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
            "KEYS_DATABASE_URL": "postgresql://u:tell/nobody@h/x",
            "KEYS_JWT_SECRET_FILE": "/nowhere/secret",
            "KEYS_METRICS_FILE": "/nowhere/metrics",
            "KEYS_DEADLINE_MS": "1",
        }
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
            ("KEYS_METRICS_FILE", "/nowhere/metrics", "401"),  # costs counts, no answer
            ("KEYS_JWT_SECRET_FILE", "/nowhere/secret", "500"),
            ("KEYS_DEADLINE_MS", "1", "500"),
        ):
            with self.subTest(name):
                settings = good | {name: value}
                done = subprocess.run(
                    [HANDLER],
                    env=bare_environment() | settings,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.assertRegex(done.stdout, rf'\AStatus: {status} (.*\n)+\n\{{"error":\{{.*\}}\}}\Z')
                self.assertEqual(done.returncode, 1 if status == "500" else 0)

    def test_units_set_only_settings_that_exist(self):
        for file in sorted((ROOT / "tools" / "systemd").glob("*.in")):
            for name in re.findall(r"\b(KEYS_[A-Z]\w+)=", file.read_text(encoding="utf-8")):
                with self.subTest(file=file.name, name=name):
                    self.assertIn(name, in_code())


if __name__ == "__main__":
    unittest.main()
