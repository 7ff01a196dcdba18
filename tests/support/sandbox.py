"""A copy of this machine to change at will: its own files, processes and network, gone at the end.

    with Sandbox() as sandbox:
        sandbox.run("apt-get", "install", "-y", "./build/deb/…")   # files are copied when they are written
        sandbox.join_network()                                     # and then 127.0.0.1 is the machine's

The files are an overlay on this machine's, in memory; nothing is written to this machine and no port of it is
taken. As on a fresh Debian, PostgreSQL has its cluster `main`, and services may be started: systemd_standin.py
stands in for systemd. There is no network but its own, so apt installs what lies here. Needs root.
"""

import ctypes
import os
import pathlib
import shutil
import subprocess
import tempfile

from tests.support.stack import ROOT, Stack

CANNOT_MOUNT = 77
BOOT = r"""
set -eEuo pipefail
place=$1 project=$2 standin=$3
echo entered
trap 'exit 77' ERR
overlay() {
  mkdir "$place/upper$1" "$place/work$1"
  mount -t overlay overlay -o "lowerdir=$2,upperdir=$place/upper$1,workdir=$place/work$1" "$3"
}
mount -t tmpfs -o mode=755 tmpfs "$place"
mkdir "$place/root"
overlay 1 / "$place/root"
# The project may be a file system of its own.
overlay 2 "$project" "$place/root$project"
cd "$place/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
trap - ERR
mkdir -p run/systemd/system run/lock
ip link set lo up
# What a test machine has and a fresh one has not: nobody may start services, newer packages are known of, a cluster.
rm -f usr/sbin/policy-rc.d etc/nginx/conf.d/keys.conf
mount -t tmpfs tmpfs var/lib/apt/lists
rm -rf etc/postgresql/* var/lib/postgresql/*
ln -sf "$standin" usr/bin/systemctl
ln -sf "$standin" usr/bin/journalctl
exec chroot . bash -c '
  set -euo pipefail
  cd "$1"
  dpkg --purge keys-fcgi >/dev/null 2>&1
  rm -rf /etc/keys-fcgi /etc/nginx/keys
  pg_createcluster "$(ls /usr/lib/postgresql | sort -n | tail -n 1)" main >/dev/null
  "$2" manager &
  until [[ -S /run/systemd/standin ]]; do sleep 0.05; done
  systemctl start postgresql nginx
  echo ready
  wait  # and take in whoever is orphaned, as process 1
' boot "$project" "$standin"
"""


class CannotMount(Exception):
    """No copy of the machine can be made here: a reason to skip."""


class Sandbox:
    def __enter__(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="keys-sandbox-", dir="/tmp"))
        self.log = open(f"{self.place}.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "bash",
                "-c",
                BOOT,
                "boot",
                self.place,
                ROOT,
                ROOT / "tests/support/systemd_standin.py",
            ],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        try:
            lines = [self.process.stdout.readline() for _ in range(2)]
            if lines != ["entered\n", "ready\n"]:
                status = self.process.wait(60)
                self.log.seek(0)
                complaint = self.log.read().strip()
                if status == CANNOT_MOUNT or not lines[0]:
                    raise CannotMount(complaint)
                raise RuntimeError(f"the machine does not start, exit {status}: {complaint}")
            children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
            self.init = int(pathlib.Path(children).read_text(encoding="ascii").split()[0])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # With process 1 all others end, and with them mounts and network.
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        os.unlink(self.log.name)
        shutil.rmtree(self.place, ignore_errors=True)

    def path(self, name):
        """A file of the machine, as it is reached from here."""
        return pathlib.Path(f"/proc/{self.init}/root{name}")

    def run(self, *command, user=None, check=True, env=None, **options):
        identity = ["runuser", "-u", user, "--"] if user else []
        done = subprocess.run(
            [
                "nsenter",
                "--target",
                str(self.init),
                "--mount",
                "--net",
                "--pid",
                "--root",
                "env",
                f"--chdir={ROOT}",
                *identity,
                *map(str, command),
            ],
            env=environment() | (env or {}),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            stdin=None if "input" in options else subprocess.DEVNULL,
            **options,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def pids(self, name):
        """Its processes of this name, by the machine's own numbers."""
        return self.run("pgrep", "-x", name, check=False).stdout.split()

    def join_network(self):
        """From now on this thread, and those that it starts, are in the machine's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self.init}/ns/net", "rb") as file:
            if libc.setns(file.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    wait_until = staticmethod(Stack.wait_until)


def environment():
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
