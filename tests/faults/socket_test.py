#!/usr/bin/python3
"""Peers that break the protocol on the pool's own socket, many at once."""

import contextlib
import json
import os
import random
import resource
import signal
import socket
import struct
import time
import unittest

from tests.support.handler_process import SANITIZED_PROGRAM, Handler
from tests.support.fastcgi import ABORT, BEGIN, PARAMS, STDIN, Peer, begin, pair, parameters, record, request
from tests.support.load import Client
from tests.support.stalls import elapsed
from tests.support.users import User, counter, lift_limits
from tests.support.stack import Stack, stopped

MANY = 64
REQUEST_TIMEOUT = 5  # fastcgi.h
SEED = int(os.environ.get("FUZZ_SEED", "20261124"))
ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1500"))


def setUpModule():
    global stack, user
    # A deadline for 64 long answers at once, on a busy machine, with sanitizers.
    stack = unittest.enterModuleContext(Stack({"KEYS_DEADLINE_MS": "8000"}))
    lift_limits(stack)
    user = User(stack, tier="pro", keys=2)


def send(peer, data):
    """Sends what the pool may refuse to read to its end."""
    with contextlib.suppress(ConnectionError):
        peer.send(data)


class Peers(unittest.TestCase):
    def setUp(self):
        self.pool = stack.worker_pids()

    def tearDown(self):
        self.good()
        self.assertEqual(stack.worker_pids(), self.pool, "no process died")

    def good(self):
        """Both ways in are open, and quick."""
        began = time.monotonic()
        for _ in range(4):
            self.assertEqual(user.get().status, 200)
            with Peer(stack.socket) as peer:
                peer.send(request(user.token))
                self.assertEqual(peer.answer()[0], 200)
        self.assertLess(elapsed(began), 8)

    @contextlib.contextmanager
    def peers(self, count=MANY):
        with contextlib.ExitStack() as exits:
            yield [exits.enter_context(Peer(stack.socket)) for _ in range(count)]


class Protocol(Peers):
    def test_a_kept_connection_answers_request_after_request(self):
        with Peer(stack.socket) as peer:
            for _ in range(5):
                peer.send(request(user.token))
                status, headers, body = peer.answer()
                self.assertEqual(status, 200)
                self.assertEqual(int(headers["content-length"]), len(body))
                self.assertEqual(json.loads(body)["meta"]["total"], 2)

    def test_a_connection_that_is_not_to_be_kept_is_closed_after_its_answer(self):
        with Peer(stack.socket) as peer:
            peer.send(request(user.token, keep=False))
            self.assertEqual(peer.answer()[0], 200)
            self.assertTrue(peer.is_closed())

    def test_a_request_that_comes_in_pieces_is_answered(self):
        data = request(user.token)
        cuts = [*range(20), *range(20, len(data) - 10, 90), *range(len(data) - 10, len(data) + 1)]
        with Peer(stack.socket) as peer:
            for start, end in zip(cuts, cuts[1:], strict=False):
                peer.send(data[start:end])
            self.assertEqual(peer.answer()[0], 200)

    def test_parameters_may_come_in_many_padded_records(self):
        text = parameters(user.token)
        pieces = b"".join(record(PARAMS, text[at : at + 7], padding=at % 256) for at in range(0, len(text), 7))
        with Peer(stack.socket) as peer:
            peer.send(begin() + pieces + record(PARAMS) + record(STDIN, b"body") + record(STDIN))
            self.assertEqual(peer.answer()[0], 200)
            peer.send(request(user.token))
            self.assertEqual(peer.answer()[0], 200)

    def test_malformed_records_are_answered_by_closing_64_at_once(self):
        good = parameters(user.token)
        whole = request(user.token)
        for why, data in (
            ("another version", record(BEGIN, bytes(8), version=2) + whole),
            ("no request id", begin(request=0) + whole),
            ("the role of a filter", begin(role=3) + whole),
            ("a short BEGIN_REQUEST", record(BEGIN, bytes(4)) + whole),
            ("no BEGIN_REQUEST", whole[16:]),
            ("ABORT_REQUEST first", record(ABORT) + whole),
            ("a record of another request", begin() + record(PARAMS, good, request=2)),
            ("STDIN before the parameters end", begin() + record(PARAMS, good) + record(STDIN)),
            ("a name longer than all", begin() + record(PARAMS, b"\x7f\x01x") + record(PARAMS) + record(STDIN)),
            ("a length of 2^31 - 1", begin() + record(PARAMS, b"\xff" * 8) + record(PARAMS) + record(STDIN)),
            ("half a length", begin() + record(PARAMS, b"\x80\0") + record(PARAMS) + record(STDIN)),
            ("two requests at once", whole + whole),
            ("bytes after the request", whole + b"\0"),
            ("HTTP", b"GET /api/v1/keys HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("zeros", bytes(64)),
            ("parameters without end", begin() + record(PARAMS, bytes(65535)) * 3),
            ("a body without end", whole[:-8] + record(STDIN, bytes(65535)) * 3),
        ):
            with self.subTest(why), self.peers() as peers:
                for peer in peers:
                    send(peer, data)
                began = time.monotonic()
                for peer in peers:
                    self.assertTrue(peer.is_closed())
                self.assertLess(time.monotonic() - began, 3)
            self.good()

    def test_a_cookie_larger_than_any_request_is_refused_by_closing(self):
        with Peer(stack.socket) as peer:
            text = pair(b"HTTP_COOKIE", b"sb-access-token=" + b"x" * 60000)
            send(peer, begin() + record(PARAMS, text) + record(PARAMS, text) + record(PARAMS, text) + record(PARAMS))
            self.assertTrue(peer.is_closed())

    def test_empty_and_hostile_parameters_are_refusals_like_any_other(self):
        for why, more, status in (
            ("no method", {"REQUEST_METHOD": ""}, 405),
            ("a method of its own", {"REQUEST_METHOD": "BREW\r\nX: y"}, 405),
            ("no cookie", {}, 401),
            ("a request id with a line end", {"REQUEST_ID": "req_x\r\nSet-Cookie: a=b"}, 401),
            ("an enormous name", {"N" * 20000: "v"}, 401),
        ):
            with self.subTest(why), Peer(stack.socket) as peer:
                peer.send(request(**more))
                answered, headers, body = peer.answer()
                self.assertEqual(answered, status)
                self.assertNotIn("set-cookie", headers)
                self.assertRegex(json.loads(body)["error"]["request_id"], r"^req_[\w-]+$")


class Waiting(Peers):
    def test_64_half_sent_requests_are_closed_in_bounded_time_and_hold_nobody_up(self):
        text = request(user.token)
        with self.peers() as peers:
            for number, peer in enumerate(peers):
                peer.send(text[: 1 + number * (len(text) - 2) // MANY])
            began = time.monotonic()
            self.good()
            self.assertTrue(all(peer.is_closed() for peer in peers))
            self.assertLess(elapsed(began), REQUEST_TIMEOUT + 3)
        stack.wait_until(lambda: "fastcgi_timeout" in stack.handler_log(), what="a line of it")

    def test_64_silent_connections_hold_nobody_up(self):
        with self.peers():
            self.good()

    def test_64_slow_readers_of_a_long_answer_hold_nobody_up_and_get_it_whole(self):
        rich = User(stack, tier="pro", keys=600)
        with self.peers() as peers:
            for peer in peers:
                peer.send(request(rich.token))
            self.good()
            for peer in peers:
                status, headers, body = peer.answer()
                self.assertEqual(status, 200)
                self.assertEqual(int(headers["content-length"]), len(body))
                self.assertEqual(json.loads(body)["meta"]["total"], 600)
            # The connections are good for more.
            for peer in peers[:8]:
                peer.send(request(user.token))
                self.assertEqual(peer.answer()[0], 200)

    def test_64_readers_who_leave_within_a_long_answer_hold_nobody_up(self):
        rich = User(stack, tier="pro", keys=600)
        with self.peers() as peers:
            for peer in peers:
                peer.send(request(rich.token))
            for peer in peers:
                peer.socket.recv(1000)
        self.good()
        for pid in self.pool:
            stack.wait_until(lambda pid=pid: len(os.listdir(f"/proc/{pid}/fd")) < 60, what="the descriptors' return")

    def refused_by_nginx(self):
        """An old worker may yet take the connection: until one of the new ones has answered."""
        for _ in range(20):
            began = time.monotonic()
            answer = user.get(timeout=60)
            took = time.monotonic() - began
            if answer.status != 504:
                break
        self.assertIn(answer.status, (502, 503))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertGreater(int(answer.headers["retry-after"]), 0)
        self.assertIn("request_id", answer.json()["error"])
        self.assertLess(took, 2)

    def test_a_full_backlog_is_answered_with_json_at_once(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        waiting = []
        with stopped(*self.pool), contextlib.ExitStack() as exits:
            with contextlib.suppress(BlockingIOError):
                while len(waiting) < 10000:
                    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
                    waiting.append(exits.enter_context(socket.socket(socket.AF_UNIX, kind)))
                    waiting[-1].connect(stack.socket)
            self.assertLess(len(waiting), 10000)
            # Kept connections lead to the stopped processes and no further than 504: new workers have none.
            old = stack.pids("nginx")
            os.kill(stack.nginx_pid(), signal.SIGHUP)
            stack.wait_until(lambda: len(set(stack.pids("nginx")) - set(old)) > 0, what="nginx' new workers")
            self.refused_by_nginx()
        stack.wait_until(lambda: user.get().status == 200, timeout=20, what="a good answer")


class ClientsGone(unittest.TestCase):
    """A pool of one process with time to wait, so that all clients can leave meanwhile."""

    @classmethod
    def setUpClass(cls):
        cls.stack = cls.enterClassContext(Stack({"KEYS_DEADLINE_MS": "10000"}, workers=1))
        lift_limits(cls.stack)
        cls.impatient = User(cls.stack, tier="pro")
        cls.impatient.get()

    def setUp(self):
        self.pool = self.stack.worker_pids()
        self.gone = counter(self.stack, "keys_clients_gone_total")
        self.impatient.set_counts("minute_count = 0")

    def tearDown(self):
        self.assertEqual(self.stack.worker_pids(), self.pool, "no process died")
        self.assertEqual(self.impatient.get().status, 200)

    def wait_for_gone(self, count):
        self.stack.wait_until(
            lambda: counter(self.stack, "keys_clients_gone_total") - self.gone >= count, what="the leave"
        )

    def wait_for_descriptors(self, count):
        self.stack.wait_until(lambda: len(os.listdir(f"/proc/{self.pool[0]}/fd")) >= count, what="the requests")

    @contextlib.contextmanager
    def frozen_database(self):
        """The pool's backend, stopped with one lookup of somebody else's."""
        patient = User(self.stack, tier="pro")
        pid = int(self.stack.psql("SELECT pid FROM pg_stat_activity WHERE usename = 'keys_runtime'"))
        sent = counter(self.stack, "keys_statement_lookups_count")
        with Peer(self.stack.socket) as first:
            with stopped(pid):
                first.send(request(patient.token))
                # Else those who come now are asked for with it.
                self.stack.wait_until(
                    lambda: counter(self.stack, "keys_statement_lookups_count") > sent, what="a statement in flight"
                )
                yield
            self.assertEqual(first.answer()[0], 200)
        self.assertEqual(patient.counts("minute_count"), "1")

    def test_the_queries_of_64_clients_who_are_gone_are_not_run(self):
        patient = User(self.stack, tier="pro")
        with contextlib.ExitStack() as exits:
            stay = [exits.enter_context(Peer(self.stack.socket)) for _ in range(MANY)]
            leave = [exits.enter_context(Peer(self.stack.socket)) for _ in range(MANY)]
            with self.frozen_database():
                self.wait_for_descriptors(2 * MANY)
                for peer in stay:
                    peer.send(request(patient.token))
                for peer in leave:
                    peer.send(request(self.impatient.token))
                # What is sent and not read yet is the next test's.
                self.stack.wait_until(lambda: sum(peer.unread() for peer in leave) == 0, what="the requests")
                for peer in leave:
                    peer.close()
                self.wait_for_gone(MANY)
            self.assertEqual([peer.answer()[0] for peer in stay], [200] * MANY)
        self.assertEqual(patient.counts("minute_count"), str(MANY))
        self.assertEqual(self.impatient.counts("minute_count"), "0")
        self.assertIn(" client_gone id=", self.stack.handler_log())

    def test_requests_whose_64_clients_left_before_they_were_read_are_not_run(self):
        with stopped(self.pool[0]):
            for _ in range(MANY):
                with Peer(self.stack.socket) as peer:
                    peer.send(request(self.impatient.token))
        self.wait_for_gone(MANY)
        self.assertEqual(self.impatient.counts("minute_count"), "0")

    def test_the_queries_of_64_https_clients_who_abort_are_not_run(self):
        asker = Client(self.stack.url, self.stack.cacert, self.impatient.token)
        with self.frozen_database(), contextlib.ExitStack() as exits:
            clients = []
            for _ in range(MANY):
                plain = exits.enter_context(socket.create_connection(asker.address))
                clients.append(asker.context.wrap_socket(plain, server_hostname=asker.address[0]))
                clients[-1].sendall(asker.request)
            self.wait_for_descriptors(MANY)
            for client in clients:
                client.close()
            self.wait_for_gone(MANY)
        self.assertEqual(self.impatient.counts("minute_count"), "0")
        self.assertNotRegex(self.stack.nginx_error_log(), r"\[(crit|alert|emerg)\]")


class Fuzzing(unittest.TestCase):
    def test_seeded_random_records_find_no_fault_in_the_sanitized_handler(self):
        chance = random.Random(SEED)
        self.good = 0
        with Handler(stack, program=SANITIZED_PROGRAM) as handler:
            handler.await_good(user.token)
            for number in range(ROUNDS):
                with self.subTest(seed=SEED, round=number):
                    self.converse(handler.socket, chance)
                    self.assertIsNone(handler.process.poll(), handler.log()[-20000:])
            self.assertEqual(handler.ask(user.token)[0], 200)
            log = handler.log()
        # It met the parser, and not closed doors alone.
        self.assertGreater(self.good, ROUNDS / 2)
        self.assertGreater(log.count(" request id="), self.good + ROUNDS / 50)
        self.assertGreater(log.count(" fastcgi_malformed "), ROUNDS / 10)

    def converse(self, path, chance):
        """A few messages on one connection: good ones, which have to be answered, then fuzzed ones."""
        with Peer(path) as peer:
            for _ in range(chance.choice([0, 1, 1, 3])):
                peer.send(request(user.token))
                self.assertEqual(peer.answer()[0], 200)
                self.good += 1
            peer.socket.settimeout(0.002)
            for _ in range(chance.choice([1, 1, 2, 4])):
                try:
                    for part in fuzzed(chance):
                        peer.send(part)
                    if not peer.socket.recv(65536):
                        break
                except TimeoutError:
                    pass
                except ConnectionError:
                    break


def fuzzed(chance):
    """The parts of a connection's bytes: good requests, damaged, cut, joined or made of random records."""
    token = chance.choice([user.token, None, "x", "a.b.c", "é" * 40])
    data = bytearray(request(token, keep=chance.random() < 0.7))
    kind = chance.randrange(6)
    if kind == 0:
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(min(len(data), chance.choice([24, 40, len(data)])))] = chance.randrange(256)
    elif kind == 1:
        del data[chance.randrange(len(data)) :]
    elif kind == 2:
        at = chance.randrange(len(data))
        data[at:at] = data[chance.randrange(len(data)) :][: chance.randrange(200)]
    elif kind == 3:
        data = bytearray()
        for _ in range(chance.randrange(1, 12)):
            content = chance.randbytes(chance.choice([0, 0, 1, 8, 8, 100, 5000]))
            data += record(
                chance.choice([1, 2, 4, 5, 9, chance.randrange(256)]),
                content,
                chance.choice([0, 1, 1, 1, 2]),
                padding=chance.choice([0, 7, 255]),
                version=chance.choice([1, 1, 1, 0, 255]),
            )
    elif kind == 4:
        content = b"".join(
            struct.pack("!I", chance.choice([0, 1, 127, 128, 2**31, 2**31 + 9, 2**32 - 1])) + chance.randbytes(9)
            for _ in range(chance.randrange(1, 40))
        )
        data = bytearray(begin() + record(PARAMS, content) + record(PARAMS) + record(STDIN))
    else:
        data = data + data
    cut = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(3)))
    return [bytes(data[a:b]) for a, b in zip([0, *cut], [*cut, len(data)], strict=True)]


if __name__ == "__main__":
    unittest.main()
