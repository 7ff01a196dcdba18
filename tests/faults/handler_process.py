"""One handler beside a stack's pool, on a socket of its own, with limits and a log that a test chooses."""

import os
import resource
import shutil
import socket
import subprocess
import tempfile

from tests.fastcgi import Peer, request
from tests.stack import Stack, bare_environment


class Handler:
    """Runs the stack's program with the stack's settings."""

    def __init__(self, stack, stderr=None, limits=None):
        self.stack = stack
        self.stderr = stderr
        self.limits = limits or {}

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="keys-handler-", dir="/tmp")
        self.socket = f"{self.directory}/socket"
        self.log_path = f"{self.directory}/log"
        settings = {name: value for name, value in self.stack.env.items() if name.startswith("KEYS_")}
        settings.pop("KEYS_METRICS_FILE", None)
        with socket.socket(socket.AF_UNIX) as listener, open(self.log_path, "wb") as log:
            listener.bind(self.socket)
            listener.listen(1024)
            self.process = subprocess.Popen(
                [os.path.join(self.stack.place, "bin", "keys-fcgi")],
                stdin=listener,
                stdout=subprocess.DEVNULL,
                stderr=self.stderr or log,
                env=bare_environment() | settings,
                preexec_fn=self._set_limits,
            )
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory)

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

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def resident(self):
        return resident(self.process.pid)


def resident(pid):
    """Bytes of memory that a process has in use (RSS)."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
