"""A PostgreSQL cluster of a test's own, and keys-fcgi asked as a CGI program on it: no nginx, no pool.

    with Cluster(owner="supabase_admin", settings={"ssl": "on"}) as cluster:
        cluster.psql("select 1", user="postgres", database="postgres")
        cluster.apply_sql()
        cluster.ask(url="…", token=cluster.mint("--user", uuid)) -> (status, body)

It trusts whoever connects (its directory is closed to others), unless `hba` says otherwise.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile

from tests.support.stack import ROOT, bare_environment, free_port, postgres_program

HANDLER = ROOT / os.environ.get("HANDLER_PROGRAM", "build/keys-fcgi")


def write_private(path, content, owner=None):
    """A file of mode 0600; the owner's when root writes it."""
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    if os.geteuid() == 0 and owner:
        shutil.chown(path, owner, owner)


class Cluster:
    def __init__(self, owner="postgres", settings=None, hba="local all all trust\n", files=None, copy_of=None):
        self.owner = owner
        self.settings = settings or {}
        self.hba = hba
        self.files = files or {}  # put into the data directory: certificates
        self.copy_of = copy_of  # become a streaming standby of this Cluster
        self.port = free_port()
        self.directory = None

    # --- its life -----------------------------------------------------------------------------------

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-cluster-", dir="/tmp"))
        self.data = self.directory / "data"
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        try:
            if self.copy_of is None:
                self._as_postgres(
                    "initdb",
                    "-D",
                    self.data,
                    "-U",
                    self.owner,
                    "--auth=trust",
                    "--locale=C.UTF-8",
                    "--encoding=UTF8",
                    "--no-sync",
                    "--no-instructions",
                )
            else:
                self._as_postgres(
                    "pg_basebackup",
                    "-D",
                    self.data,
                    "-R",
                    "-X",
                    "stream",
                    "-c",
                    "fast",
                    "--no-sync",
                    "-d",
                    f"host={self.copy_of.directory} port={self.copy_of.port} user={self.owner}",
                )
            self._write("pg_hba.conf", self.hba)
            lines = {
                "unix_socket_directories": str(self.directory),
                "port": self.port,
                "fsync": "off",
                "listen_addresses": "",
                "shared_buffers": "16MB",
                "max_connections": 60,
            } | self.settings
            text = "".join(f"{name} = '{value}'\n" for name, value in lines.items())
            self._write("postgresql.conf", text)
            for name, content in self.files.items():
                self._write(name, content)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self):
        self._as_postgres("pg_ctl", "start", "-w", "-s", "-t", "60", "-D", self.data, "-l", self.directory / "log")

    def stop(self, mode="fast"):
        self._as_postgres("pg_ctl", "stop", "-w", "-s", "-m", mode, "-D", self.data)

    def promote(self):
        self._as_postgres("pg_ctl", "promote", "-w", "-s", "-D", self.data)

    def _write(self, name, content):
        write_private(self.data / name, content, "postgres")

    def _as_postgres(self, program, *arguments):
        identity = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open in the server
            done = subprocess.run(
                [postgres_program(program), *map(str, arguments)],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=bare_environment(),
                timeout=120,
                check=False,
                **identity,
            )
            output.seek(0)
            if done.returncode != 0:
                raise RuntimeError(f"{program}: exit {done.returncode}: {output.read()}")

    # --- asking it ----------------------------------------------------------------------------------

    def run_psql(self, *arguments, user=None, database="postgres", sql=""):
        return subprocess.run(
            [
                postgres_program("psql"),
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                str(self.directory),
                "-p",
                str(self.port),
                "-U",
                user or self.owner,
                "-d",
                database,
                *map(str, arguments),
            ],
            input=sql,
            capture_output=True,
            text=True,
            env=bare_environment(),
            cwd=ROOT,
            timeout=60,
            check=False,
        )

    def psql(self, sql, user=None, database="postgres"):
        done = self.run_psql("-f", "-", user=user, database=database, sql=sql)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.rstrip("\n")

    def apply_sql(self, user=None, database="postgres"):
        """Applies sql/ as sql/README.md says: the numbered files, in the order of their names."""
        files = [word for file in sorted((ROOT / "sql").glob("[0-9]*.sql")) for word in ("-f", file)]
        done = self.run_psql(*files, user=user, database=database)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stderr

    def url(self, user="keys_runtime", database="postgres"):
        return f"postgresql://{user}@/{database}?host={self.directory}&port={self.port}"

    # --- keys-fcgi on it ----------------------------------------------------------------------------

    def environment(self, url):
        secret = self.directory / "secret"
        if not secret.exists():
            secret.write_text("a secret of this test alone, 32 bytes or more", encoding="ascii")
        return bare_environment() | {"KEYS_DATABASE_URL": url, "KEYS_JWT_SECRET_FILE": str(secret)}

    def mint(self, *arguments):
        words = {"KEYS_STACK": self.directory, "KEYS_JWT_SECRET_FILE": self.directory / "secret"}
        self.environment("")
        text = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in words.items())
        (self.directory / "env").write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["tools/mint-token", *arguments],
            cwd=ROOT,
            env=bare_environment() | {"STACK": str(self.directory)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def check(self, url):
        """keys-fcgi --check: its exit status and complaints."""
        done = subprocess.run(
            [HANDLER, "--check"], env=self.environment(url), capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stderr

    def ask(self, token, url=None):
        """One request to keys-fcgi as a CGI program: the status and the body."""
        environment = self.environment(url or self.url()) | {
            "REQUEST_METHOD": "GET",
            "HTTP_COOKIE": f"sb-access-token={token}",
        }
        done = subprocess.run(
            [HANDLER], env=environment, capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL
        )
        head, _, body = done.stdout.partition("\n\n")  # text mode reads CRLF so
        status = re.search(r"^Status: (\d+)", head, re.M)
        return int(status[1]) if status else 200, body
