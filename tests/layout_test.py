#!/usr/bin/python3
"""The house as it was meant: rooms in their order, no library that was not agreed on, nothing outside referred to."""

import os
import re
import subprocess
import unittest

from tests.stack import ROOT

HANDLER = ROOT / os.environ.get("HANDLER_PROGRAM", "build/keys-fcgi")
MOST_LINES = 350
LIBRARIES = {"libfcgi.so.0", "libpq.so.5", "libcrypto.so.3"}
RUNTIME = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6"}
NOT_COUNTED = re.compile(r"ld-linux.*|lib[au]\w*san\.so\.\d+")
# Which files may include a C library's header; RapidJSON and OpenSSL are wherever their work is.
ONLY_IN = {"fcgiapp.h": {"fastcgi.cc"}, "libpq-fe.h": {"pg_connection.cc", "database_targets.cc"}}


def tracked(*patterns):
    done = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def includes(file):
    return re.findall(r'^#include [<"]([^>"]+)[>"]', file.read_text(encoding="utf-8"), re.M)


def rooms_in_order():
    """The rooms as the README's code map lists them, from the first to the last."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("| room of `handler/` |")[1].split("\n\n")[0]
    return [room for line in table.split("\n") for room in re.findall(r"`(\w+)`", line.split("|")[1:2][0] if "|" in line else "")]


class RoomsTest(unittest.TestCase):
    def test_the_readme_lists_every_room_once(self):
        rooms = rooms_in_order()
        self.assertEqual(len(rooms), len(set(rooms)), "a room stands in the code map twice")
        self.assertEqual(set(rooms), {file.stem for file in (ROOT / "handler").glob("*.*")})

    def test_a_file_includes_only_rooms_above_its_own(self):
        rooms = rooms_in_order()
        for file in sorted((ROOT / "handler").glob("*.*")):
            for header in includes(file):
                if header.startswith("handler/"):
                    room = header.removeprefix("handler/").removesuffix(".h")
                    with self.subTest(f"{file.name} includes {room}"):
                        self.assertLessEqual(rooms.index(room), rooms.index(file.stem))

    def test_a_c_library_stays_in_its_room(self):
        for file in sorted((ROOT / "handler").glob("*.*")):
            for header in includes(file):
                with self.subTest(f"{file.name} includes {header}"):
                    self.assertIn(file.name, ONLY_IN.get(header, {file.name}))
                    if re.match(r"(fcgi|libpq|openssl/|rapidjson/)", header):
                        self.assertEqual(file.suffix, ".cc", "a library's header in a header of ours")

    def test_no_file_of_the_handler_is_too_long_to_read(self):
        for file in sorted((ROOT / "handler").glob("*.*")):
            with self.subTest(file.name):
                self.assertLessEqual(len(file.read_text(encoding="utf-8").splitlines()), MOST_LINES)


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


if __name__ == "__main__":
    unittest.main()
