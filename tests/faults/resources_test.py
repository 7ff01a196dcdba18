#!/usr/bin/python3
"""Descriptors, disk and memory run out."""

import collections
import contextlib
import json
import os
import pathlib
import random
import re
import resource
import subprocess
import tempfile
import time
import unittest

from tests.support.handler_process import Handler
from tests.support.fastcgi import Closed, Peer, request
from tests.support.fault_report import record
from tests.support.users import User, lift_limits
from tests.support.stack import Stack

SANITIZED = os.environ.get("VARIANT") == "sanitize" or "sanitize" in os.environ.get("HANDLER_PROGRAM", "")
MEGABYTE = 1 << 20
LEFT_OF_LONG_LISTS = 2 * MEGABYTE
BUDGET = 64 * MEGABYTE  # handler/fastcgi/connection.h, kMaxUnsent


def setUpModule():
    global stack, user
    stack = unittest.enterModuleContext(Stack(workers=1))
    lift_limits(stack)
    user = User(stack, tier="pro", keys=2)


class Descriptors(unittest.TestCase):
    def test_with_64_descriptors_200_connections_are_a_pause_in_accepting_and_no_end(self):
        self.exhaust(64, "accept_paused")

    def test_with_20_descriptors_the_kernels_refusal_is_a_pause_in_accepting_and_no_end(self):
        self.exhaust(20, 'accept_paused reason="Too many open files"')

    def exhaust(self, descriptors, logged):
        with Handler(stack, limits={resource.RLIMIT_NOFILE: descriptors}) as handler:
            handler.await_good(user.token)
            kept = Peer(handler.socket)
            kept.send(request(user.token))
            self.assertEqual(kept.answer()[0], 200)
            silent = [Peer(handler.socket) for _ in range(200)]
            stack.wait_until(lambda: logged in handler.log(), what=logged)
            # Connected clients are served meanwhile.
            kept.send(request(user.token))
            self.assertEqual(kept.answer()[0], 200)
            ended = time.monotonic()
            for peer in silent:
                peer.close()
            handler.await_good(user.token)
            self.assertLess(time.monotonic() - ended, 5)
            kept.close()
            # It pauses for a second at a time: no line per turn.
            self.assertLess(handler.log().count("accept_paused"), 30)
            self.assertIsNone(handler.process.poll())


class Logs(unittest.TestCase):
    """A log that takes nothing for a while."""

    MORE_LINES = 4000  # than a process gathers

    def ask_much(self, handler):
        with Peer(handler.socket) as peer:
            for _ in range(self.MORE_LINES):
                peer.send(request())
                self.assertEqual(peer.answer()[0], 401)

    def says_so(self, handler, read):
        """Once the disk has space again, it says how many lines are missing; what it kept is whole lines."""
        text = b""

        def is_said():
            nonlocal text
            handler.ask()
            text += read()
            return b" log_lines_dropped lines=" in text

        stack.wait_until(is_said, what="the count of dropped lines")
        self.assertEqual(handler.ask(user.token)[0], 200)
        lines = text.decode().splitlines()[:-1]
        for line in lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\S+Z (info|warning) \w+ ")
        dropped = sum(int(count) for count in re.findall(r" log_lines_dropped lines=(\d+)", text.decode()))
        self.assertGreater(dropped + len(lines), self.MORE_LINES)

    def test_a_disk_that_is_full_of_something_else_drops_lines_and_says_so_when_it_is_not(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small disk takes root")
        with tempfile.TemporaryDirectory(prefix="keys-disk-") as disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], check=True)
            try:
                log, filler = pathlib.Path(disk, "log"), pathlib.Path(disk, "filler")
                with open(log, "ab") as stderr, Handler(stack, stderr=stderr) as handler:
                    handler.await_good(user.token)
                    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                        while True:
                            file.write(bytes(4096))
                    self.ask_much(handler)
                    self.assertIsNone(handler.process.poll())
                    self.assertLess(log.stat().st_size, 128 * 1024, "the disk was full")
                    filler.unlink()
                    with open(log, "rb") as reader:
                        self.says_so(handler, reader.read)
            finally:
                subprocess.run(["umount", "--lazy", disk], check=True)

    def test_a_device_without_space_keeps_nobody_from_answering(self):
        with open("/dev/full", "wb") as full, Handler(stack, stderr=full) as handler:
            handler.await_good(user.token)
            self.assertEqual({handler.ask(user.token)[0] for _ in range(300)}, {200})

    def test_a_pipe_that_nobody_reads_drops_lines_and_says_so_when_somebody_does(self):
        self.pipe(None)

    @unittest.skipIf(os.geteuid() != 0, "becoming another user takes root")
    def test_a_pipe_that_nobody_reads_and_is_not_ours_to_open_again_blocks_nobody_either(self):
        self.pipe("www-data")

    def pipe(self, account):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as writer:
            with Handler(stack, stderr=writer, user=account) as handler:
                writer.close()
                handler.await_good(user.token)
                self.ask_much(handler)
                os.set_blocking(reader.fileno(), False)
                self.says_so(handler, lambda: reader.read(1 << 20) or b"")


class Mixture:
    """Requests of every kind over 16 connections at once, which are opened again now and then."""

    PEERS = 16

    def __init__(self, handler):
        self.handler = handler
        self.chance = random.Random(1)
        self.seen = collections.Counter()
        users = [User(stack, tier="pro", keys=2) for _ in range(self.PEERS)]
        tokens = [one.token for one in users]
        expired = stack.mint("--user", user.id, "--session", user.session, "--expires-in", "-60")
        stack.psql("UPDATE tiers SET requests_per_minute = 1 WHERE name = 'free'")
        over, long = User(stack), User(stack, tier="pro", keys=600)
        whole = request(tokens[0])
        # What is sent, how often in a thousand, and what may come of it; None: a closed connection.
        kinds = {
            "list": ([request(one) for one in tokens], 390, {200}),
            "HEAD": ([request(one, REQUEST_METHOD="HEAD") for one in tokens], 100, {200}),
            "no cookie": ([request()], 100, {401}),
            "no token": ([request("not.a.token")], 100, {401}),
            "expired": ([request(expired)], 100, {401}),
            "POST": ([request(tokens[0], REQUEST_METHOD="POST")], 50, {405}),
            "cross-site": ([request(tokens[0], HTTP_SEC_FETCH_SITE="cross-site")], 50, {403}),
            "over the limit": ([request(over.token)], 73, {200, 429}),
            "long": ([request(long.token)], 2, {200}),
            "malformed": ([whole.replace(b"\1\4", b"\1\7", 1), whole + b"\0"], 10, {None}),
            "not kept": ([request(one, keep=False) for one in tokens], 10, {200}),
            "aborted": ([whole, request(long.token), whole[:50]], 15, None),
        }
        self.kinds = [(name, texts, expected) for name, (texts, _, expected) in kinds.items()]
        self.weights = [weight for _, weight, _ in kinds.values()]

    def __enter__(self):
        self.handler.await_good(user.token)
        self.peers = [Peer(self.handler.socket) for _ in range(self.PEERS)]
        return self

    def __exit__(self, *_):
        for peer in self.peers:
            peer.close()
        lift_limits(stack)

    def ask(self, count):
        for _ in range(0, count, self.PEERS):
            asked = self.chance.choices(self.kinds, self.weights, k=self.PEERS)
            for peer, (_, texts, _) in zip(self.peers, asked, strict=True):
                peer.send(self.chance.choice(texts))
            for number, (name, _, expected) in enumerate(asked):
                self._finish(number, name, expected)

    def _finish(self, number, name, expected):
        peer = self.peers[number]
        self.seen[name] += 1
        if expected is not None:
            try:
                got = peer.answer()[0]
            except Closed:
                got = None
            if got not in expected:
                raise AssertionError(f"{name}: {got}")
        if name in ("malformed", "not kept", "aborted"):
            peer.close()
            self.peers[number] = Peer(self.handler.socket)

    def lowest_memory(self):
        """Over three of its ticks, at which it tidies up."""
        sizes = []
        ended = time.monotonic() + 3
        while time.monotonic() < ended:
            sizes.append(self.handler.resident())
            time.sleep(0.1)
        return min(sizes)


class Memory(unittest.TestCase):
    def test_who_does_not_read_a_long_list_takes_a_bounded_share_of_memory(self):
        """40 clients that do not read 10,000 keys each: some are sent, the others are told to come again."""
        rich = User(stack, tier="pro", keys=10000)
        with Handler(stack, settings={"KEYS_DEADLINE_MS": "20000"}) as handler, contextlib.ExitStack() as exits:
            handler.await_good(user.token)
            before = handler.charged()
            peers = [exits.enter_context(Peer(handler.socket)) for _ in range(40)]
            sending, refused, highest = [], [], 0
            for peer in peers:
                peer.send(request(rich.token))
                peer.receive_some(1000)
                (sending if b"Status: 200" in peer.received else refused).append(peer)
                highest = max(highest, handler.charged() - before)
            self.assertTrue(10 < len(sending) < 25, len(sending))
            for peer in refused:
                status, headers, body = peer.answer()
                self.assertEqual((status, json.loads(body)["error"]["code"]), (503, "service_unavailable"))
                self.assertGreater(int(headers["retry-after"]), 0)
            self.assertIn("rule=unsent_answers", handler.log())
            # Who asks for little is served all the while.
            self.assertEqual(handler.ask(user.token)[0], 200)
            for peer in sending:
                status, headers, body = peer.answer()
                self.assertEqual((status, len(body)), (200, int(headers["content-length"])))
            self.assertEqual(handler.ask(rich.token)[0], 200, "the budget is free again")
            record(
                "40 clients that do not read lists of 10,000 keys",
                f"{len(sending)} lists, {len(refused)} x 503; {highest / MEGABYTE:.0f} MB more memory at most",
            )
            if not SANITIZED:
                self.assertLess(highest, BUDGET + 40 * MEGABYTE, "the budget, and one list in the making")

    def test_a_user_with_10000_keys_is_answered_completely_and_the_memory_returns(self):
        rich = User(stack, tier="pro", keys=10000)
        with Handler(stack, settings={"KEYS_DEADLINE_MS": "20000"}) as handler:
            handler.await_good(user.token)
            for _ in range(200):
                handler.ask(user.token)
            before = handler.resident()
            for _ in range(10):
                status, headers, body = handler.ask(rich.token)
                self.assertEqual(status, 200)
                self.assertEqual(int(headers["content-length"]), len(body))
                found = json.loads(body)
                self.assertEqual(found["meta"]["total"], 10000)
                self.assertEqual(len({key["id"] for key in found["data"]}), 10000)
            if SANITIZED:
                return
            highest = handler.resident()
            # Its own buffers go at the next tick, libpq's with the connection that has them.
            stack.wait_until(
                lambda: handler.resident() - before < LEFT_OF_LONG_LISTS, timeout=15, what="the memory's return"
            )
            record(
                "10 lists of 10,000 keys",
                f"complete; {before / MEGABYTE:.1f}, {highest / MEGABYTE:.1f}, "
                f"{handler.resident() / MEGABYTE:.1f} MB before, at most, after",
            )

    def test_a_user_with_100000_keys_is_answered_in_less_than_100_mb(self):
        rich = User(stack, tier="pro", keys=100_000)
        with Handler(stack, settings={"KEYS_DEADLINE_MS": "60000"}) as handler:
            with Peer(handler.socket, timeout=90) as peer:
                peer.send(request(rich.token))
                status, headers, body = peer.answer()
            self.assertEqual((status, len(body)), (200, int(headers["content-length"])))
            self.assertEqual(json.loads(body)["meta"]["total"], 100_000)
            record("a list of 100,000 keys", f"complete; {handler.peak() / MEGABYTE:.0f} MB of memory at most")
            if not SANITIZED:
                self.assertLess(handler.peak(), 100 * MEGABYTE)

    def test_10000_keys_pass_through_nginx_too(self):
        rich = User(stack, tier="pro", keys=10000)
        self.assertEqual(rich.get().json()["meta"]["total"], 10000)

    def test_memory_does_not_grow_over_100000_mixed_requests(self):
        with Handler(stack, settings={"KEYS_DEADLINE_MS": "20000"}) as handler, Mixture(handler) as mixture:
            sizes = {}
            for number in range(10):
                mixture.ask(10000)
                # One that holds nothing but what it needs.
                stack.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keys_runtime'")
                if number in (1, 9):
                    sizes[number] = mixture.lowest_memory()
            self.assertGreater(min(mixture.seen.values()), 50, mixture.seen)
            record(
                "100,000 mixed requests",
                f"statuses {dict(mixture.seen)}; {sizes[1] / MEGABYTE:.2f} MB after 20,000, "
                f"{sizes[9] / MEGABYTE:.2f} MB after 100,000",
            )
            if not SANITIZED:
                self.assertLess(sizes[9] - sizes[1], 2 * MEGABYTE)


if __name__ == "__main__":
    unittest.main()
