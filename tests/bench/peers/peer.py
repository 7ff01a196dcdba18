"""A peer of tests/bench/peers: built by its own toolchain, and run on the database and keys of a stack.

    with Peer("rust", stack.env, socket, out):  # serves HTTP on that unix socket
        …

It ends with the block.
"""

import os
import pathlib
import shutil
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent


class PeerMissing(Exception):
    """This machine cannot build the peer; the text says why."""


class Peer:
    def __init__(self, folder, stack_env, socket, out):
        self.folder, self.socket, self.out = folder, socket, out
        keys = {name: stack_env[name] for name in stack_env if name.startswith("KEYS_JW")}
        database = "host={PGHOST} port={PGPORT} dbname={PGDATABASE} user=keys_runtime".format(**stack_env)
        self.environment = keys | {
            "PEER_DATABASE": database,
            "PEER_SOCKET": str(socket),
            "PEER_STATEMENT": str(HERE / "statement.sql"),
        }
        if "PEER_CONNECTIONS" in os.environ:
            self.environment["PEER_CONNECTIONS"] = os.environ["PEER_CONNECTIONS"]

    def __enter__(self):
        program = build_rust(self.out) if self.folder == "rust" else build_go(self.out)
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen([program], env=self.environment, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise RuntimeError(f"the {self.folder} peer does not start")
            time.sleep(0.05)
        self.socket.chmod(0o666)  # nginx's workers are somebody else
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def build_rust(out):
    command = ["build", "--release", "--locked", "--quiet", "--target-dir", out / "rust"]
    build("cargo", command, HERE / "rust")
    return out / "rust" / "release" / "peer"


def build_go(out):
    build("go", ["build", "-o", out / "go-peer", "."], HERE / "go")
    return out / "go-peer"


def build(tool, arguments, folder):
    if shutil.which(tool) is None:
        raise PeerMissing(f"{tool} is not installed")
    done = subprocess.run([tool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PeerMissing(f"{tool} build fails: {(done.stderr.strip() or '?').splitlines()[-1]}")
