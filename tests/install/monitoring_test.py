#!/usr/bin/python3
"""A real Prometheus scrapes a real stack: each expression of board and alerts finds data, alerts fire under faults."""

import contextlib
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from tests.support import token_keys
from tests.support.fastcgi import Peer, request
from tests.support.load import Load
from tests.support.prometheus import FakeNode, Prometheus, scaled
from tests.support.stack import ROOT, Stack, bare_environment, postgres_program, stopped
from tests.support.users import User, counter

ALERTS = (ROOT / "tools/alerts.yml").read_text(encoding="utf-8")
BOARD = json.loads((ROOT / "tools/grafana-dashboard.json").read_text(encoding="utf-8"))
UNITS = re.findall(r'name="([^"]+)"', ALERTS)
GROWTH = 16_000_000  # bytes over an idle process: KeysMemory here, for nothing that a test may do takes 200 MB


def setUpModule():
    global stack, node, prometheus, user
    # A lookup must live through the recovery of a database that it has crashed.
    stack = unittest.enterModuleContext(Stack({"KEYS_DEADLINE_MS": "4500"}))
    node = unittest.enterModuleContext(FakeNode())
    show_node(failed=False)
    stack.psql("UPDATE tiers SET requests_per_minute = 1000000, requests_per_day = 1000000000 WHERE name = 'pro'")
    user = User(stack, tier="pro", keys=1)
    jobs = {"keys": stack.status_url, "node": node.url}
    rules = scaled(ALERTS).replace("bytes > 200e6", f"bytes > {int(largest_memory() + GROWTH)}")
    prometheus = unittest.enterModuleContext(Prometheus(jobs, rules))


def largest_memory():
    """Bytes of the larger process, which has answered something."""
    user.get()
    text = stack.get("/metrics", url=stack.status_url).body.decode()
    return float(re.search(r"^keys_largest_resident_memory_bytes (.*)$", text, re.M)[1])


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


def stack_counter(name, someone):
    """Has a user ask, whatever becomes of it, and reads a counter of the pool."""
    someone.get()
    return counter(stack, name)


def seconds_of_life(pid):
    """How long a process has lived; 0 when it has ended."""
    try:
        started = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
    except OSError:
        return 0
    uptime = float(pathlib.Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return uptime - int(started) / os.sysconf("SC_CLK_TCK")


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

    def test_each_alert_has_a_fault_below_that_fires_it(self):
        faults = pathlib.Path(__file__).read_text(encoding="utf-8").partition("class FaultsTest")[2]
        self.assertEqual([name for name in alert_expressions() if f'"{name}"' not in faults], [])

    def test_an_expression_about_a_metric_that_is_not_there_finds_nothing(self):
        self.assertFalse(self.finds("rate(keys_requests[5s])"))
        self.assertFalse(self.finds('keys_requests_total{code="no_such_code"} > 0'))

    def test_the_instance_variable_lists_this_stack(self):
        definition = BOARD["templating"]["list"][1]["definition"]
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition).groups()
        here = [stack.status_url.removeprefix("http://")]
        found = Stack.wait_until(
            lambda: [sample["metric"][label] for sample in prometheus.query(metric)], what="a scrape in time"
        )
        self.assertEqual(found, here)


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
                prometheus.await_value("keys_circuit_open", lambda value: value == 2)
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
            with Load(stack, user.token, clients=1, pause=0.5) as load:
                load.wait_for(500, count=1)
                self.await_firing("KeysInternalErrors")
        finally:
            stack.run("bash", "-euc", f"psql -XAtq -v ON_ERROR_STOP=1 -f {ROOT}/sql/3-roles.sql")
        Stack.wait_until(lambda: user.get().status == 200, what="a 200")
        self.await_no_alert()

    def test_counts_are_locked(self):
        users = [User(stack, tier="pro") for _ in range(8)]
        with Load(stack, [one.token for one in users], clients=16, pause=0.05) as load:
            load.wait_for(200)
            with self.session() as say:
                say("BEGIN; LOCK TABLE request_counts IN SHARE MODE;")
                self.await_firing("KeysLookupsWait", "KeysSlow")
            load.wait_for(200)
        self.await_no_alert()

    @contextlib.contextmanager
    def session(self):
        """A session of the database's administrator; what it has begun ends with it."""
        command = [postgres_program("psql"), "-XAtq"]
        environment = bare_environment() | stack.env
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True) as psql:

            def say(sql):
                psql.stdin.write(sql + "\n")
                psql.stdin.flush()

            try:
                yield say
            finally:
                psql.stdin.close()

    def test_connections_to_the_database_break_again_and_again(self):
        def fires():
            stack.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keys_runtime'")
            return prometheus.alerts().get("KeysDatabaseUnsteady") == "firing"

        Stack.wait_until(fires, timeout=40, what="firing: KeysDatabaseUnsteady")
        self.fired.add("KeysDatabaseUnsteady")
        self.await_no_alert()

    def test_one_users_lookup_crashes_the_database(self):
        someone = User(stack, tier="pro")
        stack.psql(
            f"""
            CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                $$ BEGIN COPY (SELECT) TO PROGRAM 'kill -KILL $PPID'; RETURN NEW; END $$;
            CREATE TRIGGER crash BEFORE INSERT ON request_counts FOR EACH ROW
                WHEN (NEW.user_id = '{someone.id}') EXECUTE FUNCTION crash()"""
        )
        try:
            Stack.wait_until(lambda: stack_counter("keys_poison_lookups_total", someone), timeout=60, what="poison")
            self.await_firing("KeysPoisonLookup")
        finally:
            Stack.wait_until(self.drop_crash, timeout=30, what="a database that takes sessions")
        self.await_no_alert()

    @staticmethod
    def drop_crash():
        try:
            stack.psql("DROP FUNCTION crash CASCADE")
            return True
        except RuntimeError:
            return False

    def test_processes_end_again_and_again(self):
        def fires():
            for pid in stack.worker_pids():
                # multiwatch gives a program up that never lives for a second.
                if seconds_of_life(pid) > 1.1:
                    os.kill(pid, signal.SIGKILL)
            return prometheus.alerts().get("KeysProcessesRestart") == "firing"

        Stack.wait_until(fires, timeout=60, what="firing: KeysProcessesRestart")
        self.fired.add("KeysProcessesRestart")
        self.await_no_alert()

    def test_clients_do_not_read_long_answers(self):
        someone = User(stack, tier="pro", keys=25_000)
        with contextlib.ExitStack() as peers:

            def fires():
                # 9 MB each, of which a process keeps 64 MB at most.
                peers.enter_context(Peer(stack.socket)).send(request(someone.token))
                return prometheus.alerts().get("KeysMemory") == "firing"

            Stack.wait_until(fires, timeout=25, what="firing: KeysMemory", interval=0.5)
            self.fired.add("KeysMemory")
        self.await_no_alert()

    def test_the_key_set_is_another_issuers(self):
        path = pathlib.Path(stack.env["KEYS_JWKS_FILE"])
        good = path.read_text(encoding="utf-8")
        token = stack.mint("--alg", "ES256", "--user", user.id, "--session", user.session)
        with Load(stack, token, clients=2, pause=0.05) as load:
            load.wait_for(200)
            token_keys.publish(path, token_keys.Key(stack.directory, "another"))
            try:
                load.wait_for(401)
                self.await_firing("KeysRefusesMostSessions")
            finally:
                token_keys.replace(path, good)
            load.wait_for(200)
            self.await_no_alert()

    def test_the_key_set_is_not_confirmed_any_more(self):
        path = pathlib.Path(stack.env["KEYS_JWKS_FILE"])
        long_ago = time.time() - 7200
        os.utime(path, (long_ago, long_ago))
        try:
            self.await_firing("KeysKeySetOld")
        finally:
            path.touch()
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
