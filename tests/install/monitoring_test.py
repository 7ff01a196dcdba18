#!/usr/bin/python3
"""A real Prometheus scrapes a real stack: each expression of board and alerts finds data, alerts fire under faults."""

import json
import math
import os
import pathlib
import re
import signal
import time
import unittest

from tests.support.fastcgi import Peer
from tests.support.load import Load
from tests.support.prometheus import FakeNode, Prometheus, scaled
from tests.support.stack import ROOT, Stack, stopped
from tests.support.users import User

ALERTS = (ROOT / "tools/alerts.yml").read_text(encoding="utf-8")
BOARD = json.loads((ROOT / "tools/grafana-dashboard.json").read_text(encoding="utf-8"))
UNITS = re.findall(r'name="([^"]+)"', ALERTS)


def setUpModule():
    global stack, node, prometheus, user
    stack = unittest.enterModuleContext(Stack())
    node = unittest.enterModuleContext(FakeNode())
    show_node(failed=False)
    stack.psql("UPDATE tiers SET requests_per_minute = 1000000, requests_per_day = 1000000000 WHERE name = 'pro'")
    user = User(stack, tier="pro", keys=1)
    jobs = {"keys": stack.status_url, "node": node.url}
    prometheus = unittest.enterModuleContext(Prometheus(jobs, rules=scaled(ALERTS)))


def show_node(failed):
    """What node_exporter shows: the timers' units, and the certificate's end as RUNBOOK.md has it written."""
    page = (ROOT / "tools/RUNBOOK.md").read_text(encoding="utf-8")
    write = re.search(r"^printf 'keys_certificate(?:.|\n)*?keys\.prom\"$", page, re.M)[0]
    textfiles = pathlib.Path(stack.directory, "textfiles")
    textfiles.mkdir(exist_ok=True)
    variables = {"CERTIFICATE": stack.cacert, "TEXTFILES": str(textfiles)}
    stack.run("bash", "-euc", write, env=variables)
    certificate = (textfiles / "keys.prom").read_text(encoding="ascii").strip()
    if failed:
        certificate = f"{certificate.split()[0]} {int(time.time()) - 60}"
    states = [f'node_systemd_unit_state{{name="{unit}",state="failed"}} {int(failed)}' for unit in UNITS]
    node.show(certificate, *states)


def alert_expressions():
    """Name -> expression of each alert, from Prometheus' own reading."""
    text = json.loads(prometheus.get("/api/v1/rules"))
    return {rule["name"]: rule["query"] for group in text["data"]["groups"] for rule in group["rules"]}


def as_values(expression):
    """A condition as its two sides compared to 0 or 1, so that what does not hold has a sample, too."""
    return re.sub(r" (==|[<>]=?) (?!bool)", r" \1 bool ", expression)


class ExpressionsTest(unittest.TestCase):
    def test_each_expression_finds_data_of_real_requests(self):
        newcomer = User(stack, tier="free")
        self.assertEqual({newcomer.get().status for _ in range(11)}, {200, 429})
        stack.get()
        expressions = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
        expressions += [annotation["expr"] for annotation in BOARD["annotations"]["list"] if "expr" in annotation]
        expressions = [
            text.replace("$__rate_interval", "5s").replace("$instance", ".+") for text in expressions
        ] + list(alert_expressions().values())
        self.assertGreater(len(alert_expressions()), 15)
        with Load(stack, user.token, clients=2, pause=0.05) as load:
            load.wait_for(200)
            for expression in expressions:
                with self.subTest(expression):
                    Stack.wait_until(lambda text=expression: self.finds(text), timeout=20, what=f"data of {expression}")
        print(f"{len(expressions)} expressions evaluated", flush=True)

    def finds(self, expression):
        values = [float(sample["value"][1]) for sample in prometheus.query(as_values(expression))]
        return any(not math.isnan(value) for value in values)

    def test_an_expression_about_a_metric_that_is_not_there_finds_nothing(self):
        self.assertFalse(self.finds("rate(keys_requests[5s])"))
        self.assertFalse(self.finds('keys_requests_total{code="no_such_code"} > 0'))

    def test_the_instance_variable_lists_this_stack(self):
        definition = BOARD["templating"]["list"][1]["definition"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition).groups()
        found = [sample["metric"][label] for sample in prometheus.query(metric)]
        self.assertEqual(found, [stack.status_url.removeprefix("http://")])


class FaultsTest(unittest.TestCase):
    """Each fault makes its alerts fire, and its end resolves them."""

    fired = set()

    @classmethod
    def tearDownClass(cls):
        print(f"{len(cls.fired)} alerts fired and resolved: {', '.join(sorted(cls.fired))}", flush=True)

    def setUp(self):
        self.await_no_alert()

    def await_no_alert(self):
        prometheus.await_value("keys_database_connected", lambda value: value == 2)
        Stack.wait_until(lambda: not prometheus.alerts(), timeout=60, what="no alert")

    def await_firing(self, *names):
        def firing():
            states = prometheus.alerts()
            return all(states.get(name) == "firing" for name in names)

        try:
            Stack.wait_until(firing, timeout=40, what=f"firing: {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {prometheus.alerts()}") from None
        self.fired.update(names)

    def was_pending(self, name):
        return bool(prometheus.query(f'max_over_time(ALERTS{{alertname="{name}",alertstate="pending"}}[10m])'))

    def test_the_database_is_stopped(self):
        with Load(stack, user.token, clients=2, pause=0.05) as load:
            load.wait_for(200)
            stack.pg_ctl("stop", "-m", "immediate")
            try:
                names = ("KeysDatabaseDown", "KeysProcessesWithoutDatabase", "KeysFaults")
                self.await_firing(*names)
                self.assertEqual(prometheus.value("keys_circuit_open"), 2)
                for name in names:
                    self.assertTrue(self.was_pending(name), name)
            finally:
                stack.pg_ctl("start")
            load.wait_for(200)
            self.await_no_alert()

    def test_a_process_is_killed_and_not_started_again(self):
        with stopped(*stack.pids("multiwatch")):
            os.kill(stack.worker_pids()[0], signal.SIGKILL)
            self.await_firing("KeysProcessesLost")
        self.await_no_alert()

    def test_a_bad_key_set_and_what_is_no_request(self):
        path = pathlib.Path(stack.env["KEYS_JWKS_FILE"])
        good = path.read_bytes()
        path.write_bytes(b"{")
        try:
            with Peer(stack.socket) as peer:
                peer.send(b"GET / HTTP/1.1\r\n\r\n")
                Stack.wait_until(peer.is_closed, what="the end of a connection that is no FastCGI")
            self.await_firing("KeysKeySetRefused", "KeysProtocolErrors")
        finally:
            path.write_bytes(good)
        self.await_no_alert()

    def test_a_right_is_taken_away(self):
        stack.psql("REVOKE SELECT ON api_keys FROM keys_runtime; REVOKE SELECT ON tiers FROM keys_runtime")
        try:
            Stack.wait_until(lambda: user.get().status == 500, what="a 500")
            self.await_firing("KeysInternalErrors")
        finally:
            stack.run("bash", "-euc", f"psql -XAtq -v ON_ERROR_STOP=1 -f {ROOT}/sql/3-roles.sql")
        Stack.wait_until(lambda: user.get().status == 200, what="a 200")
        self.await_no_alert()

    def test_the_timers_fail_and_the_certificate_has_expired(self):
        show_node(failed=True)
        names = ("KeysRefreshFails", "KeysSweepFails", "KeysCertificateExpires")
        try:
            self.await_firing(*names)
        finally:
            show_node(failed=False)
        for name in names:
            self.assertTrue(self.was_pending(name), name)
        self.await_no_alert()

    def test_nginx_hangs(self):
        with stopped(*stack.pids("nginx")):
            self.await_firing("KeysDown")
        self.await_no_alert()


if __name__ == "__main__":
    unittest.main()
