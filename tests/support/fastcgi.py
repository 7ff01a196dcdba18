"""The FastCGI protocol as a test speaks it to the pool's socket (FastCGI Specification 1.0).

    with Peer(stack.socket) as peer:
        peer.send(request(token))
        status, headers, body = peer.answer()

The other functions make records that no well-behaved client sends, too.
"""

import fcntl
import socket
import struct
import sys
import termios

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR = 1, 2, 3, 4, 5, 6, 7


def record(kind, content=b"", request=1, padding=0, version=1):
    return struct.pack("!BBHHBB", version, kind, request, len(content), padding, 0) + content + bytes(padding)


def begin(keep=True, role=1, request=1):
    return record(BEGIN, struct.pack("!HB5x", role, keep), request)


def pair(name, value):
    def length(text):
        return struct.pack("!B" if len(text) < 128 else "!I", len(text) | (0 if len(text) < 128 else 1 << 31))

    return length(name) + length(value) + name + value


def parameters(token=None, **more):
    named = {"REQUEST_METHOD": "GET"} | more
    if token is not None:
        named["HTTP_COOKIE"] = f"sb-access-token={token}"
    return b"".join(pair(name.encode(), value.encode()) for name, value in named.items())


def request(token=None, keep=True, **more):
    """A whole request as nginx sends it."""
    return begin(keep) + record(PARAMS, parameters(token, **more)) + record(PARAMS) + record(STDIN)


class Closed(Exception):
    """The pool closed the connection before an answer was complete."""


class Peer:
    def __init__(self, path, timeout=15):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.received = b""  # and not looked at yet

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        """(status, headers, body) of one answer, to its END_REQUEST."""
        output = b""
        while True:
            _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", self._exactly(8))
            content = self._exactly(length)
            self._exactly(padding)
            if kind == END:
                break
            if kind == STDOUT:
                output += content
        head, _, body = output.partition(b"\r\n\r\n")
        lines = (line.partition(": ") for line in head.decode().split("\r\n"))
        headers = {name.lower(): value for name, _, value in lines}
        return int(headers.pop("status").split()[0]), headers, body

    def receive_some(self, most):
        """At most so many bytes, towards the next answer."""
        part = self.socket.recv(most)
        if not part:
            raise Closed
        self.received += part

    def unread(self):
        """Bytes sent that the pool has not read."""
        size = bytearray(4)
        fcntl.ioctl(self.socket, termios.TIOCOUTQ, size)
        return int.from_bytes(size, sys.byteorder)

    def is_closed(self):
        """Waits until the pool closes the connection; False when it does not within the timeout."""
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _exactly(self, count):
        while len(self.received) < count:
            try:
                part = self.socket.recv(1 << 18)
            except ConnectionError as error:
                raise Closed from error
            if not part:
                raise Closed
            self.received += part
        data, self.received = self.received[:count], self.received[count:]
        return data
