"""Packages of npm's registry, as a package-lock.json pins them, for the tests that need one.

`installed()` returns the directory of node_modules below build/npm. Where the registry cannot be reached it skips the
test, with npm's reason, and asks it no second time in this process.
"""

import functools
import pathlib
import shutil
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FILES = ("package.json", "package-lock.json")
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONN", "TIMEDOUT", "TIMEOUT", "ENETUNREACH", "EHOSTUNREACH", "E429", "E5")
INSTALL = (
    "npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --fetch-retries=1 --fetch-retry-mintimeout=1000"
)


def installed(folder):
    """The packages of tests/FOLDER/package-lock.json."""
    target, problem = _install(folder)
    if problem:
        raise unittest.SkipTest(problem)
    return target


@functools.cache
def _install(folder):
    here, target = ROOT / "tests" / folder, ROOT / "build" / "npm" / folder
    mark = target / "installed"  # the lock that was installed completely
    wanted = (here / "package-lock.json").read_bytes()
    if mark.exists() and mark.read_bytes() == wanted:
        return target, None
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(here / name, target / name)
    try:
        subprocess.run(INSTALL.split(), cwd=target, check=True, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return target, "npm's registry does not answer"
    except subprocess.CalledProcessError as failure:
        if not any(code in failure.stderr for code in UNREACHABLE):
            raise RuntimeError(f"npm ci: {failure.stderr}") from failure
        return target, f"npm's registry cannot be reached: {failure.stderr.strip().splitlines()[-1]}"
    mark.write_bytes(wanted)
    return target, None
