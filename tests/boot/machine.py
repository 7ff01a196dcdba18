"""A virtual machine with a real systemd: QEMU in software emulation, from the image that make-image made.

    with Machine(directory) as machine:
        machine.run("systemctl start keys-fcgi.target")       # a script for bash, as root; AssertionError if it fails
        machine.reboot()
        machine.url                                           # port 443 of the machine, by a port of this one

The image is written to and is of no use afterwards. The machine reaches this one as HOST; it has a user-mode
network, so no interface, no privilege and no port but `url`'s is taken here.
"""

import base64
import dataclasses
import itertools
import os
import pathlib
import select
import shutil
import socket
import subprocess
import tempfile
import time

from tests.support.stack import bare_environment, free_port

HOST = "10.0.2.2"  # where QEMU's user-mode network shows 127.0.0.1 of this machine
ADDRESS = "10.0.2.15"
BOOT_SECONDS = 600  # 25 s on an idle machine


@dataclasses.dataclass
class Done:
    output: str
    status: int


class Machine:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.numbers = itertools.count(1)
        self.agent = None
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"

    def __enter__(self):
        # A socket's path may have 107 bytes.
        self.place = tempfile.mkdtemp(prefix="keys-boot-", dir="/tmp")
        agent = f"{self.place}/agent"
        self.console = self.directory / "console.log"
        with open(self.directory / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                [
                    "qemu-system-x86_64",
                    *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"),
                    *("-nographic", "-monitor", "none", "-serial", f"file:{self.console}"),
                    *("-kernel", self.directory / "vmlinuz", "-initrd", self.directory / "initrd.img"),
                    *("-append", "root=/dev/vda rw console=ttyS0 systemd.show_status=no quiet"),
                    *("-drive", f"file={self.directory / 'disk.img'},if=virtio,format=raw,cache=unsafe"),
                    *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-{ADDRESS}:443"),
                    *("-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci", "-device", "virtio-serial"),
                    *("-chardev", f"socket,id=agent,path={agent},server=on,wait=off"),
                    *("-device", "virtserialport,chardev=agent,name=boot-test"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=bare_environment(),
            )
        try:
            self.agent = self._connect(agent)
            self._wait_for_boot(before="")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if self.agent:
            self.agent.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def _connect(self, path):
        while True:
            agent = socket.socket(socket.AF_UNIX)
            try:
                agent.connect(path)
                return agent
            except (FileNotFoundError, ConnectionRefusedError):
                agent.close()
            if self.process.poll() is not None:
                raise RuntimeError("QEMU: " + (self.directory / "qemu.log").read_text(encoding="utf-8"))
            time.sleep(0.05)

    def run(self, script, check=True, timeout=300):
        """Runs a script with bash -euo pipefail in /root; standard output and error in one text."""
        done = self._ask(script, timeout)
        if done is None:
            raise AssertionError(f"no answer in {timeout} s: {script}\n{self._last_of_console()}")
        if check and done.status != 0:
            raise AssertionError(f"exit {done.status}: {script}\n{done.output}")
        return done

    def reboot(self):
        before = self.run("cat /proc/sys/kernel/random/boot_id").output
        self._send("systemctl reboot")
        self._wait_for_boot(before)

    def wait_until(self, script, timeout=180):
        """Runs a script until it succeeds; it may take the machine's time."""
        end = time.monotonic() + timeout
        while (done := self.run(script, check=False)).status != 0:
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout} s: {script}\n{done.output}")
            time.sleep(0.2)
        return done

    def _wait_for_boot(self, before):
        """Until another boot than `before` answers, and all its units have started or failed."""
        end = time.monotonic() + BOOT_SECONDS
        while True:
            done = self._ask("cat /proc/sys/kernel/random/boot_id", timeout=10)
            if done and done.output != before:
                break
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"the machine does not boot\n{self._last_of_console()}")
        self.run("systemctl is-system-running --wait || true", timeout=BOOT_SECONDS)

    def _last_of_console(self):
        return self.console.read_text(encoding="utf-8", errors="replace")[-3000:]

    def _send(self, script):
        """Its number: the shell answers with it, so that a late answer is known to be another's."""
        number = next(self.numbers)
        text = base64.b64encode(script.encode()).decode()
        # A file for the output: a service that the script leaves behind must not hold up the answer.
        out = f"/run/boot-test-{os.getpid()}-{number}"
        self.agent.sendall(
            f"base64 -d >{out}.sh <<<{text}; bash -euo pipefail {out}.sh >{out} 2>&1 </dev/null; status=$?; "
            f"echo boot-test {number} $status $(base64 -w0 {out}); rm -f {out} {out}.sh\n".encode()
        )
        return number

    def _ask(self, script, timeout):
        number = self._send(script)
        end = time.monotonic() + timeout
        data = b""
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.agent], [], [], left)[0]:
                break
            piece = self.agent.recv(65536)
            if not piece:
                raise RuntimeError(f"QEMU has ended\n{self._last_of_console()}")
            data += piece
            *lines, data = data.split(b"\n")
            for line in lines:
                words = line.decode().split()
                if words[:2] == ["boot-test", str(number)]:
                    output = base64.b64decode(words[3] if len(words) > 3 else "").decode(errors="replace")
                    return Done(output, int(words[2]))
        return None
