"""A real stack for a test: its own PostgreSQL, pool and nginx, on a free port, in its own directory.

    with Stack(settings={"KEYS_DEADLINE_MS": "1000"}, workers=2) as stack:
        token = stack.mint("--alg", "ES256")
        assert stack.get(token=token).status == 200

One per file is enough for most:

    def setUpModule():
        global stack
        stack = unittest.enterModuleContext(Stack())

Tests run with the project's root as working directory and in PYTHONPATH (tests/run sees to it).
A stack is left with its sanitizer reports read: one in the handler's log is an error here.
"""

import contextlib
import glob
import json
import os
import pathlib
import random
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
STACKS = pathlib.Path(os.environ.get("TEST_STACKS", ROOT / "build" / "test-stacks"))
DEMO_USER = "00000001-0000-4000-8000-000000000001"
SANITIZER_REPORT = re.compile(r"(?:ERROR: \w+Sanitizer|Sanitizer has encountered|runtime error:).*")


class Response:
    """What curl received: the final status, lower-case headers, the body as bytes."""

    def __init__(self, raw):
        head, _, body = raw.partition(b"\r\n\r\n")
        # 100 Continue and the like come before the answer.
        while re.match(rb"HTTP/\S+ 1\d\d", head):
            head, _, body = body.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.http = lines[0].split()[0]
        self.status = int(lines[0].split()[1])
        self.body = body
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


class CurlFailed(Exception):
    """curl got no answer; `code` is its exit status (7 refused, 28 timeout, 52 empty reply …)."""

    def __init__(self, code, message):
        super().__init__(f"curl exit {code}: {message}")
        self.code = code


class Stack:
    def __init__(self, settings=None, workers=2, program=None):
        """workers=None: as many as tools/stack starts by itself."""
        self.settings = dict(settings or {})
        self.workers = workers
        self.program = program
        self.directory = None
        self.env = {}

    # --- its life -----------------------------------------------------------------------------------

    def start(self):
        STACKS.mkdir(parents=True, exist_ok=True)
        self.directory = tempfile.mkdtemp(prefix="stack-", dir=STACKS)
        for attempt in range(5):
            self.port = free_port()
            done = self._command("up")
            if done.returncode == 0:
                break
            if not re.search("is taken|Address already in use", done.stderr) or attempt == 4:
                self._command("clean")
                raise RuntimeError(f"the stack does not start:\n{done.stdout}{done.stderr}")
        return self.read_env()

    def read_env(self):
        """Learns from $STACK/env where everything is."""
        text = pathlib.Path(self.directory, "env").read_text(encoding="utf-8")
        words = shlex.split(text, comments=True)
        self.env = dict(word.split("=", 1) for word in words if "=" in word)
        self.url = self.env["KEYS_URL"]
        self.status_url = self.env["KEYS_STATUS_URL"]
        self.cacert = self.env["KEYS_CACERT"]
        self.socket = self.env["KEYS_SOCKET"]
        self.place = self.env["KEYS_STACK"]
        self.data = os.path.join(self.place, "data")
        return self

    def stop(self):
        if self.directory is None:
            return
        self._command("down")
        report = SANITIZER_REPORT.search(self.handler_log())
        log = self.handler_log() if report else ""
        self._command("clean")
        self.directory = None
        if report:
            raise AssertionError(f"a sanitizer reported: {report[0]}\n{log}")

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _command(self, *words):
        return subprocess.run(
            [ROOT / "tools" / "stack", *words],
            env=self._environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=120,
        )

    def _environment(self):
        environment = bare_environment()
        environment |= {"STACK": self.directory, "PORT": str(self.port)}
        if self.workers is not None:
            environment["WORKERS"] = str(self.workers)
        if self.program is not None:
            environment["HANDLER_PROGRAM"] = str(self.program)
        return environment | self.settings

    # --- asking it ----------------------------------------------------------------------------------

    def get(
        self,
        path="/api/v1/keys",
        token=None,
        headers=None,
        method="GET",
        http="1.1",
        data=None,
        url=None,
        timeout=30,
    ):
        """One request by curl. A header's value may be a list: that many lines. Without an answer: CurlFailed."""
        lines = [f"Cookie: sb-access-token={token}"] if token is not None else []
        for name, value in (headers or {}).items():
            lines += [f"{name}: {one}" for one in (value if isinstance(value, list) else [value])]
        config = "".join(f"header = {curl_quoted(line)}\n" for line in lines)
        command = ["curl", "-q", "-sS", "-i", "--noproxy", "*", "--path-as-is", "--max-time", str(timeout)]
        command += ["--cacert", self.cacert, "--http" + http, "--config", "-"]
        command += ["--head"] if method == "HEAD" else ["--request", method]
        if data is not None:
            config += f"data-binary = {curl_quoted(data)}\n"
        done = subprocess.run(
            [*command, (url or self.url) + path],
            input=config.encode("utf-8", "surrogateescape"),
            capture_output=True,
            check=False,
        )
        if done.returncode != 0 and not done.stdout:
            raise CurlFailed(done.returncode, done.stderr.decode(errors="replace").strip())
        return Response(done.stdout)

    def mint(self, *arguments):
        """A token by tools/mint-token."""
        return self.run("tools/mint-token", *arguments).stdout.strip()

    def run(self, *command, check=True, **options):
        """A command with this stack's environment, as after `. $STACK/env`."""
        environment = bare_environment() | self.env | {"STACK": self.directory}
        environment |= options.pop("env", {})
        options = {"capture_output": True, "text": True, "cwd": ROOT, "timeout": 300} | options
        done = subprocess.run(command, env=environment, check=False, **options)
        if check and done.returncode != 0:
            raise RuntimeError(f"{command}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def psql(self, sql, *arguments):
        """Runs SQL as the cluster's administrator; the rows, unaligned, without a last newline."""
        command = [postgres_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", *arguments, "-f", "-"]
        return self.run(*command, input=sql).stdout.rstrip("\n")

    def pg_ctl(self, *arguments, check=True):
        """pg_ctl on the stack's cluster, as its owner: pg_ctl("restart", "-m", "fast")."""
        command = [postgres_program("pg_ctl"), *arguments, "-s", "-w", "-D", self.data]
        # Into the log by -l: a pipe would stay open in the server that it starts.
        if arguments[0] in ("start", "restart"):
            command += ["-l", os.path.join(self.place, "log", "postgres.log")]
        identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
        options = identity if os.geteuid() == 0 else {}
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                timeout=120,
                **options,
            )
            output.seek(0)
            if check and done.returncode != 0:
                raise RuntimeError(f"{command}: exit {done.returncode}: {output.read()}")
        return done.returncode

    # --- looking at it ------------------------------------------------------------------------------

    def handler_log(self):
        return self._log("handler.log")

    def nginx_access_log(self):
        return self._log("nginx-access.log")

    def nginx_error_log(self):
        return self._log("nginx-error.log")

    def postgres_log(self):
        return self._log("postgres.log")

    def _log(self, name):
        path = pathlib.Path(self.directory, "log", name)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def worker_pids(self):
        return self.pids("keys-fcgi")

    def pids(self, name):
        """The stack's processes of this name: keys-fcgi, multiwatch, nginx, postgres."""
        lines = self._command("status", "--pids").stdout.splitlines()
        return sorted(int(pid) for pid, what in map(str.split, lines) if what == name)

    def nginx_pid(self):
        """nginx's master, for signals."""
        return int(pathlib.Path(self.place, "nginx.pid").read_text(encoding="ascii"))

    def postmaster_pid(self):
        return int(pathlib.Path(self.data, "postmaster.pid").read_text(encoding="ascii").split()[0])

    def ready_backends(self):
        """How many of the database's connections with the pool have prepared the statement, or run it, and wait."""
        return int(
            self.psql(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE usename = 'keys_runtime' AND state = 'idle' AND query LIKE 'WITH account%'"
            )
        )

    @staticmethod
    def wait_until(condition, timeout=10, what="the condition", interval=0.05):
        """Polls until the condition holds, and returns what it returned."""
        end = time.monotonic() + timeout
        while True:
            is_late = time.monotonic() > end  # before the last look, not since: the machine may have stood still
            result = condition()
            if result:
                return result
            if is_late:
                raise AssertionError(f"waited {timeout} s in vain: {what}")
            time.sleep(interval)


def state_of(pid):
    """A process's state as in proc(5): R running, S waiting, T stopped; None: it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def send(pid, number):
    """Sends a signal; False when the process has ended."""
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


@contextlib.contextmanager
def stopped(*pids):
    """Processes that do nothing meanwhile; a test may kill them."""
    try:
        there = [pid for pid in pids if send(pid, signal.SIGSTOP)]
        if not there:
            raise ProcessLookupError(f"none of {pids} is running")
        # Until it has run once more, it can still be woken for a connection, and take it from the others.
        Stack.wait_until(
            lambda: all(state_of(pid) in ("T", None) for pid in there),
            what="the processes to stand still",
            interval=0.001,
        )
        yield
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


def bare_environment():
    """The environment without anybody's settings: neither a sourced stack's nor make's."""
    foreign = re.compile(r"(KEYS_|PG|MAKE|MFLAGS$|STACK$|PORT$|STATUS_PORT$|WORKERS$)")
    return {name: value for name, value in os.environ.items() if not foreign.match(name)}


def postgres_program(name):
    """The newest PostgreSQL's own program: Debian's wrappers in /usr/bin take their time."""
    programs = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    return max(programs, key=lambda path: int(re.search(r"/(\d+)/", path)[1]))


def free_port():
    """A port whose successor is free as well, below those that the kernel hands out to clients."""
    while True:
        port = random.randrange(10000, 32000, 4)
        try:
            for candidate in (port, port + 1):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", candidate))
            return port
        except OSError:
            continue


def curl_quoted(text):
    """A value for curl's configuration file: headers stay out of the argument list, where ps shows them."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
