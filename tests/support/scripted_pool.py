"""nginx of the local stack with nothing real behind it: a FastCGI peer that a test scripts.

    with ScriptedPool() as scripted_pool:
        scripted_pool.peer = lambda request: Answer(b"Status: 200\\r\\n\\r\\nhello")
        assert scripted_pool.get().status == 200

nginx is started from nginx/local.conf.in, as tools/stack does. `peer` is called with each request, in
its connection's thread, and returns an Answer or does something else with the connection.
"""

import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from tests.support.certificates import self_signed
from tests.support.stack import ROOT, Stack, free_port

BEGIN, PARAMS, STDIN, STDOUT, END = 1, 4, 5, 6, 3
NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")


class Request:
    """What nginx sent: its parameters, the body, on which of the peer's connections, and which there."""

    def __init__(self, parameters, body, keep, connection, number):
        self.parameters = parameters
        self.body = body
        self.keep = keep
        self.connection = connection
        self.number = number


class Answer:
    """A CGI response. `cut` bytes of it are sent and the connection closed; `close` closes it after."""

    def __init__(self, cgi, cut=None, close=False):
        self.cgi = cgi
        self.cut = cut
        self.close = close


def ok(body=b'{"data":[],"meta":{"total":0}}', headers=b""):
    length = str(len(body)).encode()
    return Answer(
        b"Status: 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
        + length
        + b"\r\n"
        + headers
        + b"\r\n"
        + body
    )


class ScriptedPool(Stack):
    """nginx and a peer; `get` as in Stack."""

    def __init__(self, listening=True, read_timeout=None):
        """`read_timeout` is how long nginx waits for an answer, if not as long as in production."""
        super().__init__()
        self.read_timeout = read_timeout
        self.peer = lambda request: ok()
        self.requests = []
        self.listening = listening
        self.connections = 0
        self.open = []

    def start(self):
        self.directory = self.place = tempfile.mkdtemp(prefix="keys-pool-", dir="/tmp")
        os.symlink(self.directory, os.path.join(self.directory, "here"))  # for `tools/stack status --pids`
        os.chmod(self.directory, 0o711)
        for name in ("log", "nginx-temp", "tls"):
            os.mkdir(os.path.join(self.directory, name))
        shutil.copytree(ROOT / "nginx", os.path.join(self.directory, "nginx"))
        subprocess.run(["chmod", "-R", "a+rX", os.path.join(self.directory, "nginx")], check=True)
        if self.read_timeout:
            api = pathlib.Path(self.directory, "nginx", "keys-api.conf")
            text = api.read_text(encoding="utf-8")
            text, count = re.subn(r"(?m)^( +fastcgi_read_timeout )\w+", rf"\g<1>{self.read_timeout}", text)
            assert count == 1
            api.write_text(text, encoding="utf-8")
        tls = os.path.join(self.directory, "tls")
        self_signed(tls, "localhost", "key.pem", "cert.pem", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        self.cacert = os.path.join(tls, "cert.pem")
        self.socket = os.path.join(self.directory, "peer.sock")
        pathlib.Path(self.directory, "sign-in.conf").touch()
        if self.listening:
            self.listen()
        for _ in range(5):
            if self.start_nginx():
                return self
        log = self.nginx_error_log()
        self.stop()
        raise RuntimeError(f"nginx does not start:\n{log}")

    def start_nginx(self):
        self.port = port = free_port()
        listen = subprocess.check_output([ROOT / "tools" / "nginx-listen", f"127.0.0.1:{port}"], text=True)
        values = {
            "STACK": self.directory,
            "LISTEN": " ".join(listen.splitlines()),
            "STATUS_PORT": port + 1,
            "SOCKET": self.socket,
            "USER": "www-data" if os.geteuid() == 0 else "nobody",
        }
        text = (ROOT / "nginx" / "local.conf.in").read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        configuration = os.path.join(self.directory, "nginx.conf")
        pathlib.Path(configuration).write_text(text, encoding="utf-8")
        self.url = f"https://127.0.0.1:{port}"
        self.status_url = f"http://127.0.0.1:{port + 1}"
        with open(os.path.join(self.directory, "log", "nginx-error.log"), "ab") as log:
            command = [NGINX, "-p", self.directory, "-c", configuration]
            return subprocess.run(command, stdin=subprocess.DEVNULL, stderr=log, check=False).returncode == 0

    def stop(self):
        if self.directory is None:
            return
        try:
            pid = self.nginx_pid()
            os.kill(pid, 15)
            self.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="nginx's end")
        except FileNotFoundError:
            pass  # it did not start
        self.hang_up()
        shutil.rmtree(self.directory)
        self.directory = None

    # --- the peer -----------------------------------------------------------------------------------

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket)
        os.chmod(self.socket, 0o666)
        self.listener.listen(1024)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def hang_up(self):
        """Removes the pool: listener, socket file, connections."""
        if os.path.exists(self.socket):
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            os.unlink(self.socket)
        self.close_connections()

    def close_connections(self):
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has gone
        self.open.clear()

    def accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(connection)
            threading.Thread(target=self.serve, args=(connection, self.connections), daemon=True).start()

    def serve(self, connection, number):
        with connection:
            count = 0
            try:
                while True:
                    count += 1
                    request = read_request(connection, number, count)
                    self.requests.append(request)
                    answer = self.peer(request)
                    if answer is None:
                        return
                    sent = answer.cgi if answer.cut is None else answer.cgi[: answer.cut]
                    connection.sendall(stdout_records(sent))
                    if answer.cut is not None:
                        return
                    connection.sendall(record(STDOUT, b"") + record(END, struct.pack(">IB3x", 0, 0)))
                    if answer.close or not request.keep:
                        return
            except (EOFError, OSError):
                pass  # nginx or the test closed it


def record(kind, content):
    return struct.pack(">BBHHBx", 1, kind, 1, len(content), 0) + content


def stdout_records(data):
    return b"".join(record(STDOUT, data[at : at + 65535]) for at in range(0, len(data), 65535))


def read_exactly(connection, length):
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_request(connection, connection_number, number):
    streams = {PARAMS: b"", STDIN: b""}
    keep = False
    while True:
        _, kind, _, length, padding = struct.unpack(">BBHHBx", read_exactly(connection, 8))
        content = read_exactly(connection, length + padding)[:length]
        if kind == BEGIN:
            keep = content[2] == 1
        elif kind == STDIN and not content:
            parameters = parameters_of(streams[PARAMS])
            return Request(parameters, streams[STDIN], keep, connection_number, number)
        else:
            streams[kind] += content


def parameters_of(data):
    """Name-value pairs (FastCGI 3.4), in their order."""
    pairs = []
    at = 0
    while at < len(data):
        lengths = []
        for _ in range(2):
            if data[at] < 128:
                lengths.append(data[at])
                at += 1
            else:
                lengths.append(struct.unpack_from(">I", data, at)[0] & 0x7FFFFFFF)
                at += 4
        name = data[at : at + lengths[0]]
        value = data[at + lengths[0] : at + sum(lengths)]
        pairs.append((name.decode(), value.decode("latin-1")))
        at += sum(lengths)
    return pairs


def after(seconds, answer):
    """A peer that answers late."""

    def peer(_request):
        time.sleep(seconds)
        return answer

    return peer
