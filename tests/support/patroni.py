"""A real Patroni: three nodes, each in a network namespace of its own, and one etcd. No system service is started.

The process that uses it is root in a private network namespace (`in_private_network` sees to that), in which the bridge
between the nodes is made; so all of it ends with the process, and no other process meets it.

    with PatroniCluster() as cluster:
        cluster.psql("select 1")                     # on the leader
        cluster.leader().kill() / .vanish() / .freeze()
        cluster.await_whole()                        # three nodes, two of which stream
"""

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from tests.support.stack import ROOT, Stack, bare_environment, postgres_program

NEEDED = {"patroni": "patroni", "etcd": "etcd-server", "pgbouncer": "pgbouncer", "ip": "iproute2"}  # program: package
PRIVATE = "KEYS_TEST_PRIVATE_NETWORK"  # in the environment of a process that has moved
SUBNET = "198.18.77"  # of the range for benchmarks, RFC 2544
NAMES = ("north", "east", "west")


def missing():
    """Why there is no Patroni here; None if there is one."""
    packages = sorted(package for program, package in NEEDED.items() if shutil.which(program) is None)
    if packages:
        return "not installed (Debian's packages): " + " ".join(packages)
    return None if os.geteuid() == 0 else "network namespaces need root"


def in_private_network():
    """Goes on in a network namespace of its own. Called first, by a program that is run as a script."""
    if missing() or PRIVATE in os.environ:
        return
    os.environ[PRIVATE] = "1"
    os.execvp("unshare", ["unshare", "--net", "--", sys.executable, *sys.argv])


def ip(*words, **options):
    subprocess.run(["ip", *words], check=True, capture_output=True, **options)


class Node:
    """One machine: a namespace, Patroni and its PostgreSQL."""

    def __init__(self, cluster, number):
        self.cluster = cluster
        self.name = NAMES[number - 1]
        self.address = f"{SUBNET}.1{number}"
        self.link = f"keys{number}"
        self.hardware = f"02:00:00:00:00:1{number}"
        self.directory = cluster.directory / self.name
        self.directory.mkdir()
        shutil.chown(self.directory, "postgres", "postgres")
        self.process = None  # the last Patroni
        self.holder = subprocess.Popen(["unshare", "--net", "--", "sleep", "infinity"])
        Stack.wait_until(lambda: self.namespace() != os.readlink("/proc/self/ns/net"), what="a namespace")
        ip(
            "link",
            "add",
            self.link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            self.hardware,
            "netns",
            str(self.holder.pid),
        )
        ip("link", "set", self.link, "master", "bridge", "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            subprocess.run([*self.inside(), "ip", *words], check=True)
        # As behind a router: what is sent to a host that has vanished is dropped, and nobody says so.
        ip("neighbour", "replace", self.address, "lladdr", self.hardware, "dev", "bridge", "nud", "permanent")

    def namespace(self):
        return os.readlink(f"/proc/{self.holder.pid}/ns/net")

    def inside(self, user=None):
        identity = []
        if user is not None:
            entry = pwd.getpwnam(user)
            identity = ["--setuid", str(entry.pw_uid), "--setgid", str(entry.pw_gid)]
        return ["nsenter", "--target", str(self.holder.pid), "--net", *identity, "--"]

    def run(self, *command):
        """Starts a program of the node, as postgres; its output goes to the node's log."""
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.inside("postgres"), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=bare_environment(),
                start_new_session=True,
            )

    def start(self):
        (self.directory / "patroni.json").write_text(json.dumps(self.configuration()), encoding="ascii")
        self.run(shutil.which("patroni"), self.directory / "patroni.json")

    def configuration(self):  # JSON is YAML
        cluster = self.cluster
        return {
            "scope": "keys",
            "name": self.name,
            "restapi": {"listen": f"{self.address}:8008", "connect_address": f"{self.address}:8008"},
            "etcd3": {"host": f"{SUBNET}.1:2379"},
            "bootstrap": {
                "dcs": cluster.timing
                | {
                    "maximum_lag_on_failover": 1048576,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "parameters": {"max_connections": 60, "shared_buffers": "32MB", "wal_keep_size": "256MB"},
                    },
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"{self.address},127.0.0.1:5432",
                "connect_address": f"{self.address}:5432",
                "data_dir": str(self.directory / "data"),
                "bin_dir": os.path.dirname(postgres_program("postgres")),
                "pgpass": str(self.directory / "pgpass"),
                "parameters": {"unix_socket_directories": str(self.directory)},
                "pg_hba": ["local all all trust", "host all all all trust", "host replication all all trust"],
                "authentication": {
                    "superuser": {"username": "postgres", "password": "of this test"},
                    "replication": {"username": "replicator", "password": "of this test"},
                },
            },
            "watchdog": {"mode": "off"},
        }

    def pids(self, name=None):
        """Processes in the namespace, but for the one that holds it."""
        found, here = [], self.namespace()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it may end meanwhile
                if os.readlink(entry / "ns" / "net") == here and int(entry.name) != self.holder.pid:
                    if name in (None, (entry / "comm").read_text(encoding="utf-8").strip()):
                        found.append(int(entry.name))
        return found

    def signal(self, number, name=None):
        for pid in self.pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self):
        """kill -9, Patroni first: it would start PostgreSQL again."""
        self.signal(signal.SIGKILL, "patroni")
        self.signal(signal.SIGKILL)
        self.process.wait()
        Stack.wait_until(lambda: not self.pids(), what="the end of the node's processes")

    def freeze(self):
        self.signal(signal.SIGSTOP, "postgres")

    def thaw(self):
        self.signal(signal.SIGCONT, "postgres")

    def vanish(self):
        """Drops every packet from and to the node."""
        ip("link", "set", self.link, "down")

    def return_(self):
        ip("link", "set", self.link, "up")

    def end(self):
        if self.process is not None:
            self.kill()
        self.holder.kill()
        self.holder.wait()

    def log(self):
        log = self.directory / "log"
        return log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""

    def rest(self, method, path, body=None, timeout=60):
        """Patroni's REST interface: (status, text); status 0 without an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.address}:8008{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()
        except OSError as error:
            return 0, str(error)


class PatroniCluster:
    def __init__(self, ttl=10, loop_wait=2, retry_timeout=3):
        self.timing = {"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout}
        self.nodes = []

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-patroni-", dir="/tmp"))
        self.directory.chmod(0o711)
        try:
            for words in (
                "link set lo up",
                "link add bridge type bridge",
                f"address add {SUBNET}.1/24 dev bridge",
                "link set bridge up",
            ):
                ip(*words.split())
            url = f"http://{SUBNET}.1:2379"
            with open(self.directory / "etcd.log", "wb") as log:
                self.etcd = subprocess.Popen(
                    [
                        "etcd",
                        "--data-dir",
                        self.directory / "etcd",
                        "--listen-client-urls",
                        url,
                        "--advertise-client-urls",
                        url,
                        "--listen-peer-urls",
                        "http://127.0.0.1:2380",
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=bare_environment(),
                )
            for number in range(1, len(NAMES) + 1):
                self.nodes.append(Node(self, number))
            self.nodes[0].start()
            Stack.wait_until(self.leader, timeout=120, what="a leader")
            for node in self.nodes[1:]:
                node.start()
            self.await_whole()
        except BaseException as error:
            for node in self.nodes:
                error.add_note(f"{node.name}:\n{node.log()}")
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.end()
        self.etcd.kill()
        self.etcd.wait()
        ip("link", "delete", "bridge")
        shutil.rmtree(self.directory)

    def leader(self):
        """The node that says it is; None without one."""
        return next((node for node in self.nodes if node.rest("GET", "/leader", timeout=2)[0] == 200), None)

    def standbys(self):
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def await_whole(self):
        """One leader, and all others stream from it and have what it has."""
        query = (
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= pg_current_wal_lsn()"
        )

        def is_whole():
            with contextlib.suppress(RuntimeError):
                return self.psql(query) == str(len(self.nodes) - 1) and all(
                    node.rest("GET", "/health", timeout=2)[0] == 200 for node in self.nodes
                )

        Stack.wait_until(is_whole, timeout=120, what="a whole cluster", interval=0.3)

    def configure(self, **settings):
        """Dynamic settings of the whole cluster; null takes one back."""
        status, text = self.leader().rest("PATCH", "/config", settings)
        if status != 200:
            raise RuntimeError(text)

    def psql(self, sql, *arguments):
        """SQL on the leader, as its superuser."""
        leader = self.leader()
        if leader is None:
            raise RuntimeError("no leader")
        done = subprocess.run(
            [
                postgres_program("psql"),
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                leader.address,
                "-U",
                "postgres",
                "-d",
                "postgres",
                *arguments,
                "-f",
                "-",
            ],
            input=sql,
            capture_output=True,
            text=True,
            env=bare_environment() | {"PGCONNECT_TIMEOUT": "5"},
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.rstrip("\n")

    def apply_sql(self):
        self.psql("".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "sql").glob("[0-9]*.sql"))))

    def url(self, port=5432):
        hosts = ",".join(node.address for node in self.nodes)
        return f"postgresql://keys_runtime@{hosts}/postgres?port={port}&target_session_attrs=read-write"
