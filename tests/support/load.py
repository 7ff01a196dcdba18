"""Clients that ask without pause over kept TLS connections, and remember every answer.

    with Load(stack, token, clients=8) as load:
        load.wait_for(200)          # it runs
        ...break something...
    assert not load.lost            # after it: load.answers, load.lost, load.statuses()

A connection that the server had kept and closes before the first byte of an answer is opened again
and asked once more, as every browser does (RFC 9112, section 9.3.1); `retried` counts those.
"""

import collections
import dataclasses
import itertools
import json
import socket
import ssl
import threading
import time
import urllib.parse

from tests.support.stalls import elapsed


@dataclasses.dataclass
class Answer:
    began: float  # time.monotonic()
    took: float  # seconds
    status: int = 0  # 0: there was none
    headers: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    error: str = ""

    @property
    def ended(self):
        return self.began + self.took

    @property
    def waited(self):
        """Seconds that the service took."""
        return elapsed(self.began, self.ended)

    def is_json_error(self):
        """Whether it is an error as the contract shapes it, and says when to come back if it should."""
        try:
            error = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return False
        returns = self.status not in (429, 503) or int(self.headers.get("retry-after", 0)) > 0
        plain = self.headers.get("content-type") == "application/json"
        return plain and returns and {"code", "message", "request_id"} <= error.keys()


class Client:
    """One kept connection. `again` counts the requests that had to be sent twice."""

    def __init__(self, url, cacert, token, timeout=20, method="GET"):
        address = urllib.parse.urlsplit(url)
        self.address = (address.hostname, address.port)
        self.context = ssl.create_default_context(cafile=cacert)
        self.timeout = timeout
        self.head = f"{method} /api/v1/keys HTTP/1.1\r\nHost: {address.netloc}\r\n"
        self.connection = None
        self.again = 0
        self.use(token)

    def use(self, token):
        """Whose token the next requests carry."""
        cookie = f"Cookie: sb-access-token={token}\r\n" if token else ""
        self.request = f"{self.head}{cookie}\r\n".encode()

    def ask(self):
        began = time.monotonic()
        try:
            status, headers, body = self._ask()
            return Answer(began, time.monotonic() - began, status, headers, body)
        except (OSError, ValueError) as error:
            self.close()
            return Answer(began, time.monotonic() - began, error=f"{type(error).__name__}: {error}")

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _ask(self):
        kept = self.connection is not None
        try:
            if not kept:
                plain = socket.create_connection(self.address, self.timeout)
                self.connection = self.context.wrap_socket(plain, server_hostname=self.address[0])
            self.connection.sendall(self.request)
            data = self.connection.recv(65536)
        except (ConnectionError, ssl.SSLError):
            if not kept:
                raise
            data = b""
        if not data:
            self.close()
            if not kept:
                raise ConnectionError("closed without an answer")
            self.again += 1
            return self._ask()
        return self._read(data)

    def _read(self, data):
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers["content-length"])
        parts, have = [body], len(body)
        while have < length:
            parts.append(self._more())
            have += len(parts[-1])
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), headers, b"".join(parts)

    def _more(self):
        data = self.connection.recv(65536)
        if not data:
            raise ConnectionError("closed within an answer")
        return data


class Load:
    """`clients` threads, dealt out over the stacks and the tokens, until the with-block ends or `count` requests were sent."""

    def __init__(self, stacks, token, clients=8, count=None, pause=0.0, timeout=20):
        stacks = stacks if isinstance(stacks, list) else [stacks]
        tokens = token if isinstance(token, list) else [token]
        self.answers = []
        self.pause = pause
        self.numbers = iter(range(count)) if count is not None else itertools.count()
        self.stopping = threading.Event()
        self.clients = [
            Client(stack.url, stack.cacert, one, timeout)
            for stack, one, _ in zip(itertools.cycle(stacks), itertools.cycle(tokens), range(clients), strict=False)
        ]
        self.threads = [threading.Thread(target=self._run, args=(one,), daemon=True) for one in self.clients]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()

    def join(self):
        for thread in self.threads:
            thread.join()
        for client in self.clients:
            client.close()

    def _run(self, client):
        while not self.stopping.is_set() and next(self.numbers, None) is not None:
            self.answers.append(client.ask())
            if self.pause:
                time.sleep(self.pause)

    @property
    def lost(self):
        return [answer for answer in self.answers if answer.status == 0]

    @property
    def retried(self):
        return sum(client.again for client in self.clients)

    def statuses(self):
        return collections.Counter(answer.status for answer in list(self.answers))

    def since(self, moment):
        """The answers to requests that began after a moment."""
        return [answer for answer in list(self.answers) if answer.began > moment]

    def wait_for(self, status, count=20, timeout=20):
        """Waits until as many answers of a status came to requests that began from now on; the first one."""
        began = time.monotonic()
        seen = len(self.answers)
        found = []
        while len(found) < count:
            if time.monotonic() > began + timeout:
                raise AssertionError(f"no {count} answers {status} in {timeout} s, but {self.statuses()}")
            time.sleep(0.01)
            news = self.answers[seen:]
            seen += len(news)
            found += [answer for answer in news if answer.status == status and answer.began > began]
        return found[0]


def ask_many(stacks, token, count, clients=16):
    """Sends so many requests at once from all clients; returns the answers."""
    load = Load(stacks, token, clients=clients, count=count)
    with load:
        load.join()
    return load.answers
