#!/usr/bin/python3
"""Holds the handler's pure path to the number of instructions that a request took before.

valgrind counts them, the same at every run. What is left of one machine's difference from another
(libraries that choose their code by the processor) is kept out by asking OpenSSL and libc for their
plain code. After a change that is worth more: tests/bench/instructions_test.py --keep
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "build" / "pure-path"
KEPT = ROOT / "tests" / "bench" / "instructions.json"
ALLOWED = 1.05


def count():
    """Instructions of one request, those of the start left out."""
    few, many = 200, 1200
    return (instructions_of(many) - instructions_of(few)) // (many - few)


def instructions_of(requests):
    plain = {"OPENSSL_ia32cap": "0:0", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-ERMS,-FSRM"}
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", PROGRAM, str(requests)],
        env=os.environ | plain,
        capture_output=True,
        text=True,
        check=False,
    )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or collected is None:
        raise RuntimeError(f"valgrind: exit {done.returncode}: {done.stdout}{done.stderr}")
    return int(collected[1])


def kept():
    return json.loads(KEPT.read_text(encoding="utf-8"))["instructions_a_request"]


class Instructions(unittest.TestCase):
    @unittest.skipIf(os.environ.get("OUT", "build") != "build", "only the release build is measured")
    def test_a_request_takes_at_most_five_percent_more_instructions_than_it_did(self):
        now = count()
        self.assertLessEqual(now, kept() * ALLOWED, "profile it, or --keep the new number and say why")


if __name__ == "__main__":
    if sys.argv[1:] == ["--keep"]:
        KEPT.write_text(json.dumps({"instructions_a_request": count()}) + "\n", encoding="utf-8")
    else:
        unittest.main()
