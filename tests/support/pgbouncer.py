"""Debian's PgBouncer between keys-fcgi and a server: in a directory of its own, as no system service.

    with PgBouncer("host=/tmp/x port=17000", mode="session", lines=["pool_size = 2"]) as pooler:
        pooler.url()

It ends with the block.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

from tests.support.stack import Stack, bare_environment, free_port

PROGRAM = "/usr/sbin/pgbouncer"
MISSING = None if os.path.exists(PROGRAM) else "PgBouncer is not installed (Debian's package pgbouncer)"


class PgBouncer:
    def __init__(self, server, mode, lines=(), inside=(), port=None):
        self.server = server  # a connection string without a database
        self.mode = mode  # session | transaction
        self.lines = lines
        self.inside = inside  # a command that runs it elsewhere, as postgres
        self.port = port or free_port()

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-pgbouncer-", dir="/tmp"))
        users = self.directory / "users"
        users.write_text('"keys_runtime" ""\n"postgres" ""\n', encoding="ascii")
        settings = [
            "[databases]",
            f"* = {self.server}",
            "[pgbouncer]",
            f"pool_mode = {self.mode}",
            f"listen_port = {self.port}",
            f"unix_socket_dir = {self.directory}",
            "auth_type = trust",
            f"auth_file = {users}",
            *self.lines,
        ]
        (self.directory / "ini").write_text("\n".join(settings) + "\n", encoding="ascii")
        identity = {}
        if os.geteuid() == 0:  # it refuses to run as root
            identity = {} if self.inside else {"user": "postgres", "group": "postgres", "extra_groups": []}
            for path in (self.directory, users, self.directory / "ini"):
                shutil.chown(path, "postgres", "postgres")
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                [*self.inside, PROGRAM, self.directory / "ini"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=bare_environment(),
                **identity,
            )
        socket = self.directory / f".s.PGSQL.{self.port}"
        try:
            Stack.wait_until(lambda: socket.exists() or self.process.poll() is not None, what="PgBouncer to listen")
            if self.process.poll() is not None:
                raise RuntimeError((self.directory / "log").read_text(encoding="utf-8"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory)

    def url(self, database="postgres", more=""):
        return f"postgresql://keys_runtime@/{database}?host={self.directory}&port={self.port}{more}"
