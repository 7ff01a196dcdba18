#!/usr/bin/python3
"""Stands in for systemd where none runs: just what the guide and our packages ask of it, from the installed units.

Named systemctl or journalctl it is that command; `systemd_standin.py manager` is who they ask. Of a unit it
does: drop-ins, %i and %d, the listening socket, user, directories, environment, credentials, ExecStartPre=,
Type=notify, Restart=, PartOf=, [Install]. It confines nobody, and timers never elapse: tests/boot has a real
systemd for that. nginx and PostgreSQL are started, stopped and reloaded by their own commands.
"""

import fnmatch
import json
import os
import pathlib
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading

ADDRESS = "/run/systemd/standin"
LOGS = pathlib.Path("/var/log/systemd-standin")
UNITS = [pathlib.Path("/etc/systemd/system"), pathlib.Path("/usr/lib/systemd/system")]
CLUSTER = "pg_ctlcluster --skip-systemctl-redirect {version} main"
DEBIANS = {
    "nginx.service": {"start": "nginx", "stop": "nginx -s quit", "reload": "nginx -s reload"},
    "postgresql.service": {verb: f"{CLUSTER} {verb}" for verb in ("start", "stop", "reload")},
}
# LISTEN_PID is the process that systemd made; descriptor 3 is the socket.
ENTER = 'if (($1)); then exec 3<&"$1"; export LISTEN_PID=$$; fi; shift; exec "$@"'


class Unit:
    """A unit's settings: name -> values, in order; an empty assignment forgets those before it."""

    def __init__(self, name):
        self.name = name
        self.instance = name.partition("@")[2].rpartition(".")[0]
        self.credentials = pathlib.Path("/run/credentials", name)
        template = re.sub(r"@.*\.", "@.", name)
        files = [place / one for one in (name, template) for place in UNITS if (place / one).is_file()]
        if not files:
            raise LookupError(f"Unit {name} not found.")
        self.settings = {}
        drop_ins = [path for place in UNITS for one in {name, template} for path in (place / f"{one}.d").glob("*.conf")]
        for file in [files[0], *sorted(drop_ins, key=lambda path: path.name)]:
            for key, value in re.findall(r"^(\w+)=(.*)$", file.read_text(encoding="utf-8"), re.M):
                self.settings[key] = [*self.settings.get(key, []), value] if value else []

    def all(self, key):
        specifiers = {"%i": self.instance, "%d": str(self.credentials), "%%": "%"}
        return [re.sub(r"%[id%]", lambda match: specifiers[match[0]], value) for value in self.settings.get(key, [])]

    def one(self, key, default=""):
        return (self.all(key) or [default])[-1]


def act_on_debians(name, verb):
    version = max((path.parent.name for path in pathlib.Path("/etc/postgresql").glob("*/main")), default="")
    command = DEBIANS[name][verb].format(version=version).split()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def read_environment_file(path):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if line.strip() and not line.lstrip().startswith(("#", ";"))]
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


class Service:
    """A process that is kept running, or ran once."""

    def __init__(self, unit, listener):
        self.unit, self.listener = unit, listener
        self.process = None
        self.wanted = False
        self.ended = threading.Event()

    def start(self):
        """Tells whether it started, or, of a oneshot, whether it did its work."""
        self.process, notified = self.spawn()
        if self.process is None:
            return False
        if self.unit.one("Type") == "oneshot":
            return self.process.wait() == 0
        self.wanted = True
        threading.Thread(target=self.watch, daemon=True).start()
        return self.tells_that_it_serves(notified) if self.unit.one("Type") == "notify" else True

    def tells_that_it_serves(self, notified):
        process = self.process
        while process.poll() is None:
            if select.select([notified], [], [], 0.05)[0] and b"READY=1" in notified.recv(4096):
                return True
        return False

    def watch(self):
        while True:
            if self.process:
                self.process.wait()
            delay = int(self.unit.one("RestartSec", "100ms").removesuffix("ms")) / 1000
            if not self.wanted or self.unit.one("Restart") != "always" or self.ended.wait(delay):
                return
            self.process, _ = self.spawn()

    def stop(self):
        self.wanted = False
        self.ended.set()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(int(self.unit.one("TimeoutStopSec", "90")))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def is_active(self):
        return self.wanted and self.process is not None and self.process.poll() is None

    def spawn(self):
        """The process, None where ExecStartPre= fails; and the socket by which it says that it serves."""
        unit = self.unit
        self.make_directories()
        self.hand_over_credentials()
        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notified.bind(f"\0standin/{os.urandom(8).hex()}")
        environment = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin", "LANG": "C.UTF-8"}
        for text in unit.all("Environment"):
            environment |= dict(word.split("=", 1) for word in shlex.split(text))
        for file in unit.all("EnvironmentFile"):
            path = file.removeprefix("-")  # which may be missing, with a hyphen
            if path == file or os.path.exists(path):
                environment |= read_environment_file(path)
        environment["CREDENTIALS_DIRECTORY"] = str(unit.credentials)
        environment["NOTIFY_SOCKET"] = notified.getsockname().decode().replace("\0", "@")
        if any(self.execute(line, environment).wait() != 0 for line in unit.all("ExecStartPre")):
            return None, notified
        return self.execute(unit.one("ExecStart"), environment, self.listener), notified

    def execute(self, line, environment, listener=None):
        words = [re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], word) for word in shlex.split(line)]
        user = self.unit.one("User", "root")
        descriptor = listener.fileno() if listener else 0
        command = ["bash", "-c", ENTER, "enter", str(descriptor)]
        command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *words]
        with open(LOGS / self.unit.name, "ab") as log:
            return subprocess.Popen(
                command,
                env=environment | ({"LISTEN_FDS": "1"} if listener else {}),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
                pass_fds=[descriptor] if descriptor else [],
                start_new_session=True,
            )

    def make_directories(self):
        for key, place in (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib")):
            for name in " ".join(self.unit.all(key)).split():
                path = pathlib.Path(place, name)
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                path.mkdir(exist_ok=True)
                path.chmod(int(self.unit.one(f"{key}Mode", "0755"), 8))
                shutil.chown(path, self.unit.one("User"), self.unit.one("Group"))

    def hand_over_credentials(self):
        given = dict(text.split(":", 1) for text in self.unit.all("SetCredential"))
        shutil.rmtree(self.unit.credentials, ignore_errors=True)
        self.unit.credentials.mkdir(parents=True)
        for name, source in (text.split(":", 1) for text in self.unit.all("LoadCredential")):
            file = self.unit.credentials / name
            file.write_bytes(pathlib.Path(source).read_bytes() if os.path.exists(source) else given[name].encode())
            file.chmod(0o400)
            shutil.chown(file, self.unit.one("User"))
        self.unit.credentials.chmod(0o500)
        shutil.chown(self.unit.credentials, self.unit.one("User", "root"))


class Manager:
    """What runs, and the verbs of systemctl. Each returns (exit status, output); a fault is its message."""

    def __init__(self):
        self.services = {}  # those that were started
        self.listeners = {}
        self.others = set()  # active targets and timers, and Debian's services

    def is_active(self, name):
        return (
            name in self.others or name in self.listeners or (name in self.services and self.services[name].is_active())
        )

    def active(self, pattern="*"):
        return sorted(
            name
            for name in {*self.others, *self.listeners, *self.services}
            if fnmatch.fnmatchcase(name, pattern) and self.is_active(name)
        )

    def start(self, name):
        if self.is_active(name):
            return
        if name in DEBIANS:
            act_on_debians(name, "start")
            self.others.add(name)
            return
        unit = Unit(name)
        if name.endswith(".socket"):
            self.listen(unit)
        elif name.endswith(".service"):
            for one in unit.all("Sockets"):
                self.start(one)
            sockets = [self.listeners[one] for one in unit.all("Sockets")]
            self.services[name] = Service(unit, sockets[0] if sockets else None)
            if not self.services[name].start():
                raise ChildProcessError(f"Job for {name} failed because the control process exited with error code.")
        else:
            self.others.add(name)
            for wanted in sorted(
                (UNITS[0] / f"{name}.wants").glob("*"), key=lambda path: (path.suffix != ".socket", path.name)
            ):
                self.start(wanted.name)

    def listen(self, unit):
        if self.is_active(unit.one("Service")):
            raise ChildProcessError(f"{unit.name}: Socket service {unit.one('Service')} already active, refusing.")
        path = pathlib.Path(unit.one("ListenStream"))
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(str(path))
        path.chmod(int(unit.one("SocketMode", "0666"), 8))
        shutil.chown(path, unit.one("SocketUser", "root"), unit.one("SocketGroup", "root"))
        listener.listen(int(unit.one("Backlog", "4096")))
        self.listeners[unit.name] = listener

    def stop(self, name):
        if name in DEBIANS and name in self.others:
            act_on_debians(name, "stop")
        for part in self.active():
            if part not in DEBIANS and part != name and name in Unit(part).all("PartOf"):
                self.stop(part)
        if name in self.services and self.services[name].is_active():
            self.services[name].stop()
        if name in self.listeners:
            self.listeners.pop(name).close()
        self.others.discard(name)

    def restart(self, name):
        self.stop(name)
        self.start(name)

    def reload(self, name):
        act_on_debians(name, "reload")

    def enable(self, name):
        for target in Unit(name).all("WantedBy"):
            link = UNITS[0] / f"{target}.wants" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(UNITS[1] / re.sub(r"@.*\.", "@.", name))

    def disable(self, name):
        for link in UNITS[0].glob(f"*.wants/{name}"):
            link.unlink()

    def main_pid(self, name):
        return self.services[name].process.pid if self.is_active(name) and name in self.services else 0

    def do(self, words):
        options = {word for word in words if word.startswith("-")}
        verb, *names = [word for word in words if not word.startswith("-")]
        if verb in ("daemon-reload", "reset-failed"):
            return 0, ""
        if verb == "list-units":
            return 0, "".join(f"{name} loaded active running {name}\n" for name in self.active(names[0]))
        names = [name if "." in name else f"{name}.service" for name in names]
        if verb == "is-active":
            return (0 if all(map(self.is_active, names)) else 3), ""
        if verb == "show" and "--property=MainPID" in options:
            return 0, "".join(f"{self.main_pid(name)}\n" for name in names)
        for name in [found for name in names for found in (self.active(name) if "*" in name else [name])]:
            getattr(self, verb)(name)
            if "--now" in options:
                {"enable": self.start, "disable": self.stop}[verb](name)
        return 0, ""

    def serve(self):
        LOGS.mkdir(parents=True, exist_ok=True)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(ADDRESS)
            server.listen()
            while True:
                self.answer(server.accept()[0])

    def answer(self, connection):
        with connection, connection.makefile("rw") as stream:
            try:
                answer = self.do(json.loads(stream.readline()))
            except (LookupError, OSError, subprocess.CalledProcessError) as fault:
                answer = 1, f"{fault}\n"
            stream.write(json.dumps(answer) + "\n")


def ask(words):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(ADDRESS)
        with connection.makefile("rw") as stream:
            stream.write(json.dumps(words) + "\n")
            stream.flush()
            status, output = json.loads(stream.readline())
    (sys.stdout if status == 0 else sys.stderr).write(output)
    return status


def print_journal(words):
    pattern = words[words.index("-u") + 1]
    for file in sorted(LOGS.glob(pattern if "*" in pattern else f"{pattern.removesuffix('.service')}.service")):
        sys.stdout.write(file.read_text(encoding="utf-8", errors="replace"))


if __name__ == "__main__":
    if sys.argv[1:] == ["manager"]:
        Manager().serve()
    elif pathlib.Path(sys.argv[0]).name == "journalctl":
        print_journal(sys.argv[1:])
    else:
        sys.exit(ask(sys.argv[1:]))
