"""One handler beside a stack's pool, on a socket of its own, with what a test chooses for it.

Left, it has to end by itself, with exit status 0 and without a sanitizer's report.
"""

import os
import resource
import shutil
import socket
import subprocess
import tempfile

from tests.support.fastcgi import Peer, request
from tests.support.stack import ROOT, SANITIZER_REPORT, Stack, bare_environment

SANITIZED_PROGRAM = ROOT / "build" / "sanitize" / "keys-fcgi"  # built by `make test` and `make test-faults`
LONGEST_END = 30  # seconds: who reads a long answer has 20 at the end of a process (server.cc)


class Handler:
    """Runs the stack's program, or another one; the given settings win over the stack's."""

    def __init__(self, stack, stderr=None, limits=None, settings=None, program=None, user=None, sibling=None):
        """`sibling` is called with the listening socket before the handler has it."""
        self.stack = stack
        self.stderr = stderr
        self.limits = limits or {}
        self.settings = settings or {}
        self.program = program or os.path.join(stack.place, "bin", "keys-fcgi")
        self.user = user
        self.sibling = sibling

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="keys-handler-", dir="/tmp")
        self.name = os.path.basename(self.directory)
        self.socket = f"{self.directory}/socket"
        self.log_path = f"{self.directory}/log"
        settings = {name: value for name, value in self.stack.env.items() if name.startswith("KEYS_")}
        settings.pop("KEYS_METRICS_FILE", None)
        with socket.socket(socket.AF_UNIX) as listener, open(self.log_path, "wb") as log:
            listener.bind(self.socket)
            listener.listen(1024)
            if self.sibling:
                self.sibling(listener)
            self.process = subprocess.Popen(
                [self.program],
                stdin=listener,
                stdout=subprocess.DEVNULL,
                stderr=self.stderr or log,
                env=bare_environment() | settings | {"PGAPPNAME": self.name} | self.settings,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                preexec_fn=self._set_limits,
            )
        return self

    def __exit__(self, failure, *_):
        self.process.terminate()
        try:
            status = self.process.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = f"none within {LONGEST_END} s"
        log = self.log()
        shutil.rmtree(self.directory)
        # What made the test fail is the better news.
        if failure is None and (status != 0 or SANITIZER_REPORT.search(log)):
            raise AssertionError(f"the handler ended with exit status {status}\n{log[-20000:]}")

    def _set_limits(self):
        for limit, value in self.limits.items():
            resource.setrlimit(limit, (value, value))

    def ask(self, token=None, **more):
        """(status, headers, body) over a connection of its own."""
        with Peer(self.socket) as peer:
            peer.send(request(token, keep=False, **more))
            return peer.answer()

    def await_good(self, token):
        Stack.wait_until(lambda: self.ask(token)[0] == 200, what="a good answer")

    def backend(self):
        """Its PostgreSQL process."""
        query = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{self.name}'"
        return int(self.stack.wait_until(lambda: self.stack.psql(query), what="its connection"))

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def resident(self):
        return resident(self.process.pid)

    def charged(self):
        """Bytes that a cgroup would count: the process's memory, and the memory files that it has open."""
        files = 0
        for link in os.scandir(f"/proc/{self.process.pid}/fd"):
            if os.readlink(link.path).startswith("/memfd:"):
                files += os.stat(link.path).st_blocks * 512
        return self.resident() + files

    def peak(self):
        """The most memory of its own that the process had, ever: without its program and libraries, which all share."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            kilobytes = {line.split()[0]: int(line.split()[1]) for line in file if line.endswith(" kB\n")}
        return (kilobytes["VmHWM:"] - kilobytes["RssFile:"]) * 1024


def resident(pid):
    """Bytes of memory that a process has in use (RSS)."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
