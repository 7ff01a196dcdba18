"""Requests as bytes over TLS, for what curl would not send, and many on one connection."""

import http.client
import re
import socket
import ssl

from tests.support.stack import Response


def connect(stack, plain=False, source="127.0.0.1"):
    """A connection to the stack from an address of this machine; `plain`: without TLS."""
    host, port = stack.url.removeprefix("https://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=15, source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if plain:
        return connection
    context = ssl.create_default_context(cafile=stack.cacert)
    return context.wrap_socket(connection, server_hostname="localhost")


class Answers:
    """Reads a connection's answers, one after the other."""

    def __init__(self, connection):
        file = connection.makefile("rb")
        self.read, self.readinto, self.readline = file.read, file.readinto, file.readline

    def next(self, method="GET"):
        """The next answer as tests.support.stack's Response, and whether the connection stays open after it."""
        parsed = http.client.HTTPResponse(self, method=method)
        parsed.begin()
        body = parsed.read()
        head = f"HTTP/1.1 {parsed.status} {parsed.reason}\r\n{str(parsed.headers).strip()}"
        answer = Response(re.sub("\r?\n", "\r\n", head).encode("latin-1") + b"\r\n\r\n" + body)
        return answer, not parsed.will_close

    # What http.client wants of a socket and its file; it closes the latter after each answer.

    def makefile(self, _mode):
        return self

    def close(self):
        pass

    def flush(self):
        pass


def pipeline(stack, requests, source="127.0.0.1"):
    """The answers to these requests (text, no HEAD among them), sent on one connection, 100 at a time."""
    found = []
    received = b""
    with connect(stack, source=source) as connection:
        for at in range(0, len(requests), 100):
            some = requests[at : at + 100]
            connection.sendall("".join(some).encode("latin-1"))
            for _ in some:
                while (end := received.find(b"\r\n\r\n") + 4) < 4:
                    received += receive(connection)
                end += int(re.search(rb"(?i)\r\ncontent-length: (\d+)", received[:end])[1])
                while len(received) < end:
                    received += receive(connection)
                found.append(Response(received[:end]))
                received = received[end:]
    return found


def receive(connection):
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionError("closed within an answer")
    return data


def get_request(cookie=None, headers=()):
    """The text of a request for the list, with this Cookie line and these others."""
    lines = [f"Cookie: {cookie}"] if cookie is not None else []
    lines += [f"{name}: {value}" for name, value in headers]
    return "".join(f"{line}\r\n" for line in ("GET /api/v1/keys HTTP/1.1", "Host: localhost", *lines, ""))


def ask(stack, text, plain=False):
    """The answer to one request of these bytes (str: latin-1)."""
    data = text.encode("latin-1") if isinstance(text, str) else text
    with connect(stack, plain) as connection:
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass  # refused before all of it was read: the answer is there
        return Answers(connection).next(data[:5].decode("latin-1").split(" ")[0])[0]
