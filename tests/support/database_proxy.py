"""A TCP proxy to a stack's PostgreSQL that a test can delay, block, close, cut or write to."""

import collections
import contextlib
import re
import select
import socket
import struct
import threading
import time

# Bind, to the unnamed portal, of what the handler has prepared.
LOOKUP = re.compile(rb"B....\0list_keys_", re.S)


class DatabaseProxy:
    """Listens on 127.0.0.1:port and forwards to PostgreSQL's unix socket, each way after `delay` seconds."""

    def __init__(self, postgres_socket, delay=0.0):
        self.delay = delay
        self.delayed = collections.deque()  # (when to send, where to, what)
        self.target = postgres_socket
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.pairs = []  # (client, server)
        self.lock = threading.Lock()  # of the pairs
        self.open = threading.Event()
        self.open.set()
        self.closed = False
        self.refuses = False
        self.cuts_lookups = False
        self.arrivals = []  # when connections came
        self.lookups = 0
        self.swallow = set()  # servers whose answer is ours
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True
        self.open.set()
        self.thread.join()
        self.cut()
        self.listener.close()

    @contextlib.contextmanager
    def black_hole(self):
        """Black hole: nothing passes in either direction, nothing is refused."""
        self.open.clear()
        try:
            yield
        finally:
            self.open.set()

    @contextlib.contextmanager
    def refusing(self):
        """Closes each new connection at once."""
        self.refuses = True
        try:
            yield
        finally:
            self.refuses = False

    @contextlib.contextmanager
    def cutting_lookups(self):
        """Closes each connection that sends a prepared statement; the lookup is counted."""
        self.lookups = 0
        self.cuts_lookups = True
        try:
            yield
        finally:
            self.cuts_lookups = False

    def cut(self):
        """Closes every connection."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for end in (end for pair in pairs for end in pair):
            end.close()

    def say(self, sql):
        """A simple query on every connection that is idle; the client never hears of it."""
        text = sql.encode() + b"\0"
        for _, server in list(self.pairs):
            self.swallow.add(server)
            server.sendall(b"Q" + struct.pack("!i", len(text) + 4) + text)

    def _run(self):
        while not self.closed:
            self.open.wait()
            pairs = list(self.pairs)
            ends = [end for pair in pairs for end in pair if end.fileno() >= 0]
            try:
                ready, _, _ = select.select([self.listener, *ends], [], [], self._send_delayed())
            except (OSError, ValueError):
                continue
            if not self.open.is_set():
                continue
            if self.listener in ready:
                self._accept()
            for client, server in pairs:
                for source, sink in ((client, server), (server, client)):
                    if source in ready and not self._forward(source, sink):
                        with self.lock:
                            if (client, server) in self.pairs:
                                self.pairs.remove((client, server))
                        client.close()
                        server.close()
                        break

    def _send_delayed(self):
        """Sends what is due; seconds until there is something to do."""
        while self.delayed:
            left = self.delayed[0][0] - time.monotonic()
            if left > 0:
                return min(left, 0.05)
            _, sink, data = self.delayed.popleft()
            with contextlib.suppress(OSError):  # it was closed meanwhile
                sink.sendall(data)
        return 0.05

    def _accept(self):
        client, _ = self.listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.arrivals.append(time.monotonic())
        server = socket.socket(socket.AF_UNIX)
        try:
            if self.refuses:
                raise ConnectionRefusedError
            server.connect(self.target)
            with self.lock:
                self.pairs.append((client, server))
        except OSError:
            client.close()
            server.close()

    def _forward(self, source, sink):
        try:
            data = source.recv(65536)
            if self.cuts_lookups and LOOKUP.search(data):
                self.lookups += 1
                return False
            if source in self.swallow:
                # ReadyForQuery ends the answer.
                if data.endswith(b"Z\0\0\0\x05I"):
                    self.swallow.discard(source)
            elif data and self.delay:
                self.delayed.append((time.monotonic() + self.delay, sink, data))
            elif data:
                sink.sendall(data)
            return bool(data)
        except OSError:
            return False
