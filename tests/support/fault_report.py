#!/usr/bin/python3
"""What the fault tests measured: each records rows, and `make test-faults` makes tests/faults/RESULTS.md of them.

    record("a process killed (SIGKILL)", "3 of 213 are 502", 0.02)     in a test

    tests/support/fault_report.py ROWS.jsonl RESULTS.md                renders a whole run

Rows go to the file that FAULT_ROWS names, one JSON object per line; without it they are only printed.
"""

import datetime
import json
import os
import pathlib
import platform
import re
import sys

HEAD = """# What clients see of a fault

Written by `make test-faults` on {date}: {machine}.
Deadline 1,000 ms where no other is named. Recovery counts from the moment the database accepts connections or the fault
ends. After each fault the same pool answers a good request.

| fault | clients see | recovery |
|---|---|---|
"""


def record(fault, seen, seconds=None):
    """`seconds` until all was well again; None where nothing had to recover."""
    recovery = "" if seconds is None else f"{seconds * 1000:,.0f} ms"
    print(f"fault | {fault} | {seen} | {recovery}", file=sys.stderr)
    if file := os.environ.get("FAULT_ROWS"):
        with open(file, "a", encoding="utf-8") as rows:
            print(json.dumps([fault, seen, recovery]), file=rows)


def machine():
    """Processor and operating system, without a name that tells whose it is."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)", cpuinfo, re.M)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{os.cpu_count()} processors ({model[1] if model else platform.machine()}), {system}"


def render(rows):
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return HEAD.format(date=date, machine=machine()) + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    source, target = map(pathlib.Path, sys.argv[1:])
    lines = source.read_text(encoding="utf-8").splitlines()
    target.write_text(render(map(json.loads, lines)), encoding="utf-8")
