#!/usr/bin/python3
"""Descriptors, disk and memory run out (issue 6, 6)."""

import json
import os
import re
import resource
import time
import unittest

from tests.faults.handler_process import Handler
from tests.fastcgi import Closed, Peer, request
from tests.people import Person, lift_limits
from tests.stack import Stack

SANITIZED = os.environ.get("VARIANT") == "sanitize" or "sanitize" in os.environ.get("HANDLER_PROGRAM", "")
MEGABYTE = 1 << 20


def setUpModule():
    global stack, person
    stack = unittest.enterModuleContext(Stack(workers=1))
    lift_limits(stack)
    person = Person(stack, tier="pro", keys=2)


class Descriptors(unittest.TestCase):
    def test_with_64_descriptors_200_connections_are_a_pause_in_accepting_and_no_end(self):
        self.exhaust(64, "accept_paused")

    def test_with_20_descriptors_the_kernels_refusal_is_a_pause_in_accepting_and_no_end(self):
        self.exhaust(20, 'accept_paused reason="Too many open files"')

    def exhaust(self, descriptors, logged):
        with Handler(stack, limits={resource.RLIMIT_NOFILE: descriptors}) as handler:
            handler.await_good(person.token)
            kept = Peer(handler.socket)
            kept.send(request(person.token))
            self.assertEqual(kept.answer()[0], 200)
            silent = [Peer(handler.socket) for _ in range(200)]
            stack.wait_until(lambda: logged in handler.log(), what=logged)
            # Who is in is served all the while.
            kept.send(request(person.token))
            self.assertEqual(kept.answer()[0], 200)
            ended = time.monotonic()
            for peer in silent:
                peer.close()
            handler.await_good(person.token)
            self.assertLess(time.monotonic() - ended, 5)
            kept.close()
            # It pauses for a second at a time: no line a turn.
            self.assertLess(handler.log().count("accept_paused"), 30)
            self.assertIsNone(handler.process.poll())

    def test_a_long_answer_without_a_descriptor_for_it_ends_one_connection_only(self):
        rich = Person(stack, tier="pro", keys=400)
        with Handler(stack) as handler:
            handler.await_good(person.token)
            peer = Peer(handler.socket)
            peer.send(request(person.token))
            self.assertEqual(peer.answer()[0], 200)
            descriptors = {int(fd) for fd in os.listdir(f"/proc/{handler.process.pid}/fd")}
            lowest_free = min(set(range(len(descriptors) + 1)) - descriptors)
            limit = (lowest_free, lowest_free)
            resource.prlimit(handler.process.pid, resource.RLIMIT_NOFILE, limit)
            peer.send(request(rich.token))
            with self.assertRaises(Closed):
                peer.answer()
            peer.close()
            self.assertIn("response_dropped", handler.log())
            handler.await_good(person.token)


class Logs(unittest.TestCase):
    def test_a_log_on_a_full_disk_keeps_nobody_from_answering(self):
        with open("/dev/full", "wb") as full, Handler(stack, stderr=full) as handler:
            handler.await_good(person.token)
            self.assertEqual({handler.ask(person.token)[0] for _ in range(300)}, {200})
            self.assertEqual({handler.ask()[0] for _ in range(2000)}, {401})

    def test_a_log_that_nobody_reads_drops_lines_and_says_so_when_somebody_does(self):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb") as writer:
            with Handler(stack, stderr=writer) as handler:
                writer.close()
                handler.await_good(person.token)
                with Peer(handler.socket) as peer:
                    for _ in range(4000):
                        peer.send(request())
                        self.assertEqual(peer.answer()[0], 401)
                os.set_blocking(reader.fileno(), False)
                text = b""

                def says_so():
                    nonlocal text
                    handler.ask()
                    text += reader.read(1 << 20) or b""
                    return b" log_lines_dropped lines=" in text

                stack.wait_until(says_so, what="the count of dropped lines")
                self.assertEqual(handler.ask(person.token)[0], 200)
                # What was kept is whole lines.
                for line in text.decode().splitlines()[:-1]:
                    self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\S+Z (info|warning) \w+ ")


class Memory(unittest.TestCase):
    def test_a_user_with_10000_keys_is_answered_completely_and_the_memory_returns(self):
        rich = Person(stack, tier="pro", keys=10000)
        with Handler(stack) as handler:
            handler.await_good(person.token)
            for _ in range(200):
                handler.ask(person.token)
            before = handler.resident()
            for _ in range(10):
                status, headers, body = handler.ask(rich.token)
                self.assertEqual(status, 200)
                self.assertEqual(int(headers["content-length"]), len(body))
                found = json.loads(body)
                self.assertEqual(found["meta"]["total"], 10000)
                self.assertEqual(len({key["id"] for key in found["data"]}), 10000)
            for _ in range(50):
                handler.ask(person.token)
            if not SANITIZED:
                self.assertLess(handler.resident() - before, 12 * MEGABYTE)

    def test_10000_keys_pass_through_nginx_too(self):
        rich = Person(stack, tier="pro", keys=10000)
        self.assertEqual(rich.get().json()["meta"]["total"], 10000)

    def test_memory_does_not_grow_over_30000_mixed_requests(self):
        expired = stack.mint("--user", person.id, "--session", person.session, "--expires-in", "-60")
        kinds = [
            request(person.token),
            request(person.token, REQUEST_METHOD="HEAD"),
            request(),
            request("not.a.token"),
            request(expired),
            request(person.token, REQUEST_METHOD="POST"),
            request(person.token, HTTP_SEC_FETCH_SITE="cross-site"),
        ]
        expected = [200, 200, 401, 401, 401, 405, 403]
        with Handler(stack) as handler, Peer(handler.socket) as peer:
            handler.await_good(person.token)
            sizes = []
            for number in range(30000):
                peer.send(kinds[number % 7])
                self.assertEqual(peer.answer()[0], expected[number % 7])
                if number % 10000 == 9999:
                    sizes.append(handler.resident())
            if not SANITIZED:
                self.assertLess(sizes[-1] - sizes[0], 2 * MEGABYTE)

    @unittest.skipIf(SANITIZED, "a sanitizer needs all addresses")
    def test_out_of_memory_for_one_answer_ends_that_request_and_the_pool_goes_on(self):
        rich = Person(stack, tier="pro", keys=10000)
        # From too little for PostgreSQL's rows, by way of too little for the answer, to enough.
        for megabytes in (1, 8, 10, 12, 14, 40):
            with self.subTest(megabytes), Handler(stack) as handler:
                handler.await_good(person.token)
                with open(f"/proc/{handler.process.pid}/statm", encoding="ascii") as file:
                    size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
                limit = (size + megabytes * MEGABYTE, resource.RLIM_INFINITY)
                resource.prlimit(handler.process.pid, resource.RLIMIT_AS, limit)
                status, headers, body = handler.ask(rich.token)
                self.assertEqual(headers["content-type"], "application/json")
                if megabytes == 40:
                    self.assertEqual((status, json.loads(body)["meta"]["total"]), (200, 10000))
                elif status != 200:
                    self.assertEqual(json.loads(body)["error"]["code"], "service_unavailable")
                    self.assertTrue(re.search(r"out_of_memory|out of memory|cannot allocate memory", handler.log()))
                self.assertIsNone(handler.process.poll())
                handler.await_good(person.token)  # the connection may have ended with it, twice


if __name__ == "__main__":
    unittest.main()
