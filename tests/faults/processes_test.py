#!/usr/bin/python3
"""Processes of the pool and of nginx die, drain and are replaced under load."""

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from tests.support.fault_report import record
from tests.support.handler_process import Handler
from tests.support.fastcgi import Closed, Peer, request
from tests.support.load import Load
from tests.support.stalls import elapsed
from tests.support.users import User, lift_limits
from tests.support.stack import Stack, state_of, stopped

DEADLINE = 3.0  # time for what a test does while the database is frozen
DRAINED_BY = DEADLINE + 1.0  # server.cc
SLOWLY = 8  # seconds: far beyond that


def setUpModule():
    global stack, user
    stack = unittest.enterModuleContext(Stack({"KEYS_DEADLINE_MS": str(int(DEADLINE * 1000))}, workers=3))
    lift_limits(stack)
    user = User(stack, tier="pro", keys=2)


def load(**options):
    return Load(stack, user.token, **({"clients": 8, "pause": 0.001} | options))


class Processes(unittest.TestCase):
    def setUp(self):
        stack.wait_until(lambda: len(stack.worker_pids()) == 3 == stack.ready_backends(), what="three that serve")

    def tearDown(self):
        stack.wait_until(lambda: len(stack.worker_pids()) == 3, what="three processes")
        self.assertEqual([user.get().status for _ in range(6)], [200] * 6)

    def replaced(self, pids):
        """Waits until these have ended and as many others run; how long that took."""
        began = time.monotonic()
        stack.wait_until(
            lambda: len(now := stack.worker_pids()) == 3 and not set(now) & set(pids),
            what="new processes",
            interval=0.01,
        )
        return elapsed(began)

    def test_a_killed_process_loses_at_most_what_it_held_and_is_started_again(self):
        victim = stack.worker_pids()[0]
        with load() as running:
            running.wait_for(200)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            back = self.replaced([victim])
            running.wait_for(200, count=100)
        bad = [answer for answer in running.answers if answer.status != 200]
        # Each client has one request under way at most.
        self.assertLessEqual(len(bad), 8)
        self.assertEqual([one for one in bad if one.status not in (502, 503, 504)], [])
        self.assertEqual([one for one in bad if not one.is_json_error()], [])
        self.assertFalse([one for one in bad if one.ended > killed + 3])
        record("a process killed (SIGKILL)", f"{len(bad)} of {len(running.answers)} are 502", back)

    def test_the_whole_pool_killed_at_once_is_back_soon(self):
        pids = stack.worker_pids()
        with load() as running:
            running.wait_for(200)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            back = self.replaced(pids)
            running.wait_for(200, count=100)
        bad = [answer for answer in running.answers if answer.status != 200]
        self.assertEqual([one for one in bad if one.status not in (502, 503, 504)], [])
        self.assertFalse([one for one in bad if one.ended > killed + 3])
        record("all processes killed", f"{len(bad)} of {len(running.answers)} are 502", back)

    def test_a_connection_whose_process_ended_before_it_took_it_is_another_ones(self):
        # The kernel wakes one process for a connection (EPOLLEXCLUSIVE): here, one that never accepts.
        waiting = select.epoll()

        def register(listener):
            waiting.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)

        with Handler(stack, sibling=register) as handler:
            handler.await_good(user.token)
            thread = threading.Thread(target=waiting.poll, daemon=True)
            thread.start()
            stack.wait_until(lambda: state_of(f"self/task/{thread.native_id}") == "S", what="the other one to wait")
            self.assertEqual(handler.ask(user.token)[0], 200)
            thread.join(10)
            self.assertFalse(thread.is_alive(), "it was woken")

    def test_sigterm_drains_under_load_and_loses_no_request(self):
        for round_number in range(3):
            with self.subTest(round_number), load() as running:
                running.wait_for(200)
                victim = stack.worker_pids()[0]
                os.kill(victim, signal.SIGTERM)
                took = self.replaced([victim])
                running.wait_for(200, count=50)
            self.assertEqual(running.statuses().keys(), {200})
            self.assertEqual(running.retried, 0)
            self.assertLess(took, DRAINED_BY + 1)
        self.assertRegex(stack.handler_log(), r"Child\[\d+\] (exited normally|died with exit code 0)|stopped pid=")

    def test_sigterm_lets_requests_in_flight_finish_and_takes_no_new_ones(self):
        victims = stack.worker_pids()
        connected = descriptors(victims)
        with contextlib.ExitStack() as exits:
            peers = [exits.enter_context(Peer(stack.socket)) for _ in range(12)]
            # One that waits in the backlog is the successor's.
            stack.wait_until(lambda: descriptors(victims) >= connected + 12, what="12 connections")
            frozen = stack.psql("SELECT pid FROM pg_stat_activity WHERE usename = 'keys_runtime'").split()
            with stopped(*map(int, frozen)):
                for peer in peers:
                    peer.send(request(user.token))
                before = stack.handler_log().count(" draining ")
                # A moment for the requests to be read is a moment for the drain to find them: both are good.
                for pid in victims:
                    os.kill(pid, signal.SIGTERM)
                stack.wait_until(lambda: stack.handler_log().count(" draining ") - before == 3, what="draining")
            self.assertEqual([peer.answer()[0] for peer in peers], [200] * 12)
            self.assertTrue(all(peer.is_closed() for peer in peers))
        self.replaced(victims)

    def test_sigterm_ends_within_its_bound_whatever_the_peers_do(self):
        victims = stack.worker_pids()
        before = descriptors(victims)
        with contextlib.ExitStack() as exits:
            silent = [exits.enter_context(Peer(stack.socket)) for _ in range(6)]
            half = [exits.enter_context(Peer(stack.socket)) for _ in range(6)]
            for peer in half:
                peer.send(request(user.token)[:40])
            # One that waits in the backlog is the successor's.
            stack.wait_until(lambda: descriptors(victims) >= before + 12, what="12 connections")
            began = time.monotonic()
            for pid in victims:
                os.kill(pid, signal.SIGTERM)
            stack.wait_until(lambda: not any(map(is_running, victims)), what="their end", interval=0.01, timeout=60)
            self.assertLess(elapsed(began), DRAINED_BY + 1.5)
            self.replaced(victims)
            self.assertTrue(all(peer.is_closed() for peer in silent + half))

    def test_sigterm_under_load_ends_a_process_with_status_0_once_it_has_answered(self):
        with Handler(stack) as handler:
            handler.await_good(user.token)
            with contextlib.ExitStack() as exits:
                peers = [exits.enter_context(Peer(handler.socket)) for _ in range(16)]
                with ThreadPoolExecutor(len(peers)) as threads:
                    loads = [threads.submit(ask_until_closed, peer) for peer in peers]
                    stack.wait_until(lambda: handler.log().count(" status=200 ") > 500, what="the load")
                    handler.process.terminate()
                    answered = [one.result() for one in loads]
            self.assertGreater(min(answered), 0)
            self.assertEqual(handler.process.wait(DRAINED_BY + 1), 0)
            log = handler.log()
            self.assertIn(" draining signal=15 ", log)
            # Each answer arrived whole: what it logged is what its clients have.
            self.assertEqual(log.count(" status=200 "), sum(answered) + 1)
            self.assertTrue(log.splitlines()[-1].endswith(f" stopped pid={handler.process.pid}"))

    def test_sigterm_takes_no_new_connection_while_requests_are_in_flight(self):
        with Handler(stack) as handler:
            handler.await_good(user.token)
            with contextlib.ExitStack() as exits:
                peer = exits.enter_context(Peer(handler.socket))
                with stopped(handler.backend()):
                    peer.send(request(user.token))
                    stack.wait_until(lambda: peer.unread() == 0, what="the request")
                    handler.process.terminate()
                    stack.wait_until(lambda: " draining " in handler.log(), what="draining")
                    newcomer = exits.enter_context(Peer(handler.socket))
                    newcomer.send(request())
                self.assertEqual(peer.answer()[0], 200)
                self.assertEqual(handler.process.wait(DRAINED_BY + 1), 0)
                # Nobody else listens on this socket: what waited in its backlog is gone with it.
                self.assertTrue(newcomer.is_closed())
            self.assertNotIn(" status=401 ", handler.log())

    def test_the_service_manager_hears_that_a_process_serves_lives_and_drains(self):
        name = f"keys-test-notify/{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + name)
            manager.settimeout(20)
            with Handler(stack, settings={"NOTIFY_SOCKET": "@" + name, "WATCHDOG_USEC": "60000000"}) as handler:
                self.assertEqual(manager.recv(100), b"READY=1")
                self.assertEqual([manager.recv(100) for _ in range(2)], [b"WATCHDOG=1"] * 2)
                handler.process.terminate()
                heard = [manager.recv(100)]
                while heard[-1] == b"WATCHDOG=1":
                    heard.append(manager.recv(100))
                self.assertEqual(heard[-1], b"STOPPING=1")

    def test_a_long_answer_that_is_read_slowly_arrives_whole_though_its_process_is_replaced(self):
        rich = User(stack, tier="pro", keys=4000)
        with Peer(stack.socket) as peer, ThreadPoolExecutor(1) as threads:
            peer.send(request(rich.token))
            peer.receive_some(1)
            began = time.monotonic()
            replacing = threads.submit(stack.run, "tools/replace-pool")
            while time.monotonic() < began + SLOWLY:
                peer.receive_some(20_000)
                time.sleep(0.2)
            self.assertFalse(replacing.done(), "a process waits for who reads")
            status, headers, body = peer.answer()
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(body)["meta"]["total"], 4000)
            replacing.result()

    def test_replacing_the_whole_pool_under_load_loses_no_request(self):
        pids = stack.worker_pids()
        with load() as running:
            running.wait_for(200)
            began = time.monotonic()
            stack.run("tools/replace-pool")
            took = time.monotonic() - began
            running.wait_for(200, count=100)
        self.assertFalse(set(pids) & set(stack.worker_pids()))
        self.assertEqual(running.statuses().keys(), {200})
        self.assertEqual(running.retried, 0)
        record("pool replaced (tools/replace-pool)", f"all {len(running.answers)} are 200", took)

    def test_reloading_nginx_under_load_loses_no_request(self):
        old = stack.pids("nginx")
        with load() as running:
            running.wait_for(200)
            began = time.monotonic()
            os.kill(stack.nginx_pid(), signal.SIGHUP)
            stack.wait_until(
                lambda: len(now := stack.pids("nginx")) > 1 and len(set(now) & set(old)) == 1,
                what="nginx' new workers",
            )
            took = time.monotonic() - began
            running.wait_for(200, count=100)
        self.assertEqual(running.statuses().keys(), {200})
        record("nginx -s reload", f"all {len(running.answers)} are 200", took)

    def test_a_killed_nginx_worker_is_started_again(self):
        workers = [pid for pid in stack.pids("nginx") if pid != stack.nginx_pid()]
        with load() as running:
            running.wait_for(200)
            os.kill(workers[0], signal.SIGKILL)
            killed = time.monotonic()
            stack.wait_until(
                lambda: len(now := stack.pids("nginx")) == len(workers) + 1 and workers[0] not in now,
                what="a new worker",
            )
            running.wait_for(200, count=100)
        self.assertFalse([one for one in running.answers if one.status != 200 and one.ended > killed + 3])


def ask_until_closed(peer):
    """How many answers came, all of them whole."""
    for count in itertools.count():
        try:
            peer.send(request(user.token))
            if peer.answer()[0] != 200:
                raise AssertionError("not a 200")
        except (Closed, ConnectionError):
            return count


def is_running(pid):
    return os.path.exists(f"/proc/{pid}")


def descriptors(pids):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


if __name__ == "__main__":
    unittest.main()
