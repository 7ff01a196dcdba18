#!/usr/bin/python3
"""tools/stack: starts, stops, clears up after accidents, and says what is wrong."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from tests.support.stack import ROOT, STACKS, Stack, bare_environment, free_port

PARTS = ("nginx", "multiwatch", "keys-fcgi", "postgres")


def setUpModule():
    # A shell that was started with SIGINT ignored (by nohup, or by `&` in a script) cannot trap it any more.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tool(stack, *words, **environment):
    """tools/stack as somebody would call it who starts or stops this stack."""
    return subprocess.run(
        ["tools/stack", *words],
        cwd=ROOT,
        env=stack._environment() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def alive(stack):
    return [name for name in PARTS if stack.pids(name)]


class RunningStackTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = cls.enterClassContext(Stack(settings={"KEYS_SERVER_TIMING": "on"}))

    def test_a_second_start_is_refused_and_says_where_the_first_is(self):
        done = tool(self.stack, "up")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"a stack already runs in {self.stack.directory}, {self.stack.url}", done.stderr)
        self.assertEqual(self.stack.get().status, 401)

    def test_a_taken_port_is_named_before_anything_starts(self):
        with tempfile.TemporaryDirectory(dir=STACKS) as directory:
            done = tool(self.stack, "up", STACK=directory)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"port {self.stack.port} is taken; choose another: PORT=", done.stderr)
            self.assertEqual(os.listdir(directory), ["lock"])

    def test_a_taken_status_port_is_passed_over(self):
        with socket.socket() as listener:
            port = free_port()
            listener.bind(("127.0.0.1", port + 1))
            listener.listen()
            second = Stack()
            second.directory, second.port = tempfile.mkdtemp(dir=STACKS), port
            self.addCleanup(second.stop)
            done = tool(second, "up")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(second.read_env().status_url, f"http://127.0.0.1:{port + 2}")
            self.assertEqual(second.get(url=second.status_url, path="/readyz").status, 200)

    def test_a_missing_package_is_named_before_anything_starts(self):
        # The same tools beside a table of packages that has one more.
        with tempfile.TemporaryDirectory(dir=STACKS) as root:
            shutil.copytree(ROOT / "tools", pathlib.Path(root, "tools"))
            table = pathlib.Path(root, "tools", "install-packages")
            text = table.read_text(encoding="utf-8")
            table.write_text(
                text.replace("\nrun ", "\nrun no-such-package /usr/bin/no-such\nrun ", 1), encoding="utf-8"
            )
            done = subprocess.run(
                [f"{root}/tools/stack", "up"],
                env=self.stack._environment() | {"STACK": f"{root}/stack", "HANDLER_PROGRAM": "/bin/true"},
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(done.returncode, 1)
            self.assertIn("no-such-package", done.stderr)
            self.assertFalse(os.path.exists(f"{root}/stack"))

    def test_mistakes_are_named_before_anything_starts(self):
        for environment, words in (
            ({"PORT": "none"}, "PORT=none is not a port"),
            ({"WORKERS": "0"}, "WORKERS=0"),
            ({"HANDLER_PROGRAM": "/nonexistent"}, "build it with make"),
        ):
            with self.subTest(environment), tempfile.TemporaryDirectory(dir=STACKS) as directory:
                done = tool(self.stack, "up", STACK=directory, **environment)
                self.assertEqual(done.returncode, 1)
                self.assertIn(words, done.stderr)

    def test_env_can_be_read_by_any_shell_and_names_everything(self):
        script = '. "$0" && env'
        done = subprocess.run(
            ["/bin/dash", "-eu", "-c", script, f"{self.stack.directory}/env"],
            env={"PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        names = dict(line.split("=", 1) for line in done.stdout.splitlines())
        for name in ("KEYS_URL", "KEYS_CACERT", "KEYS_SOCKET", "PGHOST", "PGPORT", "PGDATABASE", "PGUSER"):
            self.assertTrue(names[name], name)
        self.assertEqual(names["KEYS_SERVER_TIMING"], "on")
        self.assertTrue(names["KEYS_DATABASE_URL"].startswith("postgresql://keys_runtime@"))

    def test_a_setting_of_the_environment_wins(self):
        self.assertIn("server-timing", self.stack.get(token=self.stack.mint()).headers)

    def test_the_handler_has_a_database_role_of_its_own(self):
        roles = "SELECT usename, count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1"
        self.stack.wait_until(lambda: self.stack.psql(roles) == "keys_runtime|2", what="two connections and no other")

    @unittest.skipIf(os.geteuid(), "root alone has a choice")
    def test_the_handler_is_not_root_and_its_socket_not_everybodys(self):
        for pid in self.stack.worker_pids():
            status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
            self.assertNotIn("0", re.search(r"^Uid:(.*)$", status, re.M)[1].split())
        self.assertEqual(os.stat(self.stack.socket).st_mode & 0o777, 0o660)

    def test_the_cluster_syncs_as_production_does_and_listens_on_no_port(self):
        settings = "'fsync', 'synchronous_commit', 'listen_addresses'"
        shown = self.stack.psql(
            f"SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ({settings})"
        )
        self.assertEqual(shown, "on  on")

    def test_status_tells_what_runs(self):
        done = tool(self.stack, "status")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"keys-fcgi +2: pid \d+ \d+")

    def test_status_lists_process_ids_for_a_script(self):
        done = tool(self.stack, "status", "--pids")
        self.assertEqual(done.returncode, 0)
        names = [line.split()[1] for line in done.stdout.splitlines()]
        self.assertEqual(set(names), set(PARTS))
        self.assertEqual(names.count("keys-fcgi"), 2)
        for line in done.stdout.splitlines():
            pid, name = line.split()
            with contextlib.suppress(FileNotFoundError):  # PostgreSQL's own helpers come and go
                self.assertEqual(pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip(), name)

    def test_two_stacks_side_by_side_share_nothing(self):
        # As from a shell that has sourced the first one's env.
        sourced = Stack(settings={k: v for k, v in self.stack.env.items() if k.startswith("KEYS_")})
        with sourced as second:
            self.assertNotEqual(second.env["KEYS_DATABASE_URL"], self.stack.env["KEYS_DATABASE_URL"])
            self.assertEqual(second.get(token=second.mint()).status, 200)
            self.assertEqual(second.get(token=self.stack.mint()).status, 401)
        self.assertEqual(self.stack.get(token=self.stack.mint()).status, 200)


class LifeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = cls.enterClassContext(Stack())

    def setUp(self):
        if alive(self.stack) != list(PARTS):
            self.up()

    def up(self):
        """Starts what was stopped."""
        done = tool(self.stack, "up")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.stack.read_env()
        return done

    def test_down_ends_all_of_it_and_keeps_the_data(self):
        self.stack.psql("CREATE TABLE kept AS SELECT 7 AS n")
        token = self.stack.mint()
        done = tool(self.stack, "down")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(alive(self.stack), [])
        self.assertFalse(os.path.exists(f"{self.stack.directory}/env"))
        self.assertEqual(tool(self.stack, "status").returncode, 3)
        again = tool(self.stack, "down")
        self.assertEqual((again.returncode, "nothing runs" in again.stderr), (0, True))
        self.up()
        self.assertEqual(self.stack.psql("SELECT n FROM kept"), "7")
        self.assertEqual(self.stack.get(token=token).status, 200, "the keys are the same")

    def test_clean_leaves_nothing(self):
        self.assertEqual(tool(self.stack, "clean").returncode, 0)
        self.assertEqual(alive(self.stack), [])
        self.assertFalse(os.path.exists(self.stack.place))
        self.assertFalse(os.path.exists(self.stack.directory))

    def test_whatever_part_was_killed_down_ends_the_others(self):
        parts = {
            "nginx": self.stack.nginx_pid,
            "multiwatch": lambda: self.stack.pids("multiwatch")[0],
            "postgres": self.stack.postmaster_pid,
        }
        for name, pid in parts.items():
            with self.subTest(name):
                os.kill(pid(), signal.SIGKILL)
                self.assertIn("only parts", tool(self.stack, "status").stderr)
                self.assertEqual(tool(self.stack, "down").returncode, 0)
                self.assertEqual(alive(self.stack), [])
                self.up()
                self.assertEqual(self.stack.get(token=self.stack.mint()).status, 200)

    def test_up_clears_up_after_half_a_stack(self):
        os.kill(min(self.stack.pids("multiwatch")), signal.SIGKILL)
        self.assertIn("parts of an earlier stack still run", self.up().stderr)
        self.assertEqual(self.stack.get(token=self.stack.mint()).status, 200)

    def test_a_frozen_stack_can_be_stopped(self):
        for name in PARTS:
            for pid in self.stack.pids(name):
                os.kill(pid, signal.SIGSTOP)
        self.assertEqual(tool(self.stack, "down").returncode, 0)
        self.assertEqual(alive(self.stack), [])

    def test_a_worker_that_dies_is_started_again(self):
        victim = self.stack.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        self.stack.wait_until(
            lambda: len(pids := self.stack.worker_pids()) == 2 and victim not in pids, what="a successor"
        )

    def test_data_that_is_gone_is_made_anew(self):
        tool(self.stack, "down")
        shutil.rmtree(self.stack.place)
        self.assertIn("starting afresh", self.up().stderr)

    def test_a_handler_that_does_not_start_is_told_with_its_reasons(self):
        tool(self.stack, "down")
        done = tool(self.stack, "up", KEYS_JWT_SECRET_FILE="/nonexistent", KEYS_DEADLINE_MS="soon")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"(?s)(does not stay up|do not answer).*KEYS_DEADLINE_MS")
        self.assertIn("/nonexistent", done.stderr)
        self.assertEqual(alive(self.stack), [])

    def test_a_database_elsewhere_that_is_away_does_not_stop_the_start(self):
        tool(self.stack, "down")
        done = tool(self.stack, "up", KEYS_DATABASE_URL="postgresql://nobody@/none?host=/nonexistent")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.stack.get(token=self.stack.mint()).status, 503)
        tool(self.stack, "down")


class ForegroundTest(unittest.TestCase):
    def setUp(self):
        STACKS.mkdir(parents=True, exist_ok=True)
        # Deeper than the path of a socket may be long.
        self.stack = Stack()
        self.stack.directory = os.path.join(tempfile.mkdtemp(prefix="stack-", dir=STACKS), "deep" * 30, "it's here")
        self.stack.port = free_port()
        self.addCleanup(shutil.rmtree, pathlib.Path(self.stack.directory).parent.parent)
        self.addCleanup(tool, self.stack, "clean")
        # Appending: reading moves the offset that the process shares.
        self.output = self.enterContext(tempfile.TemporaryFile("a+"))
        self.process = subprocess.Popen(
            ["tools/stack", "run"],
            cwd=ROOT,
            env=self.stack._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.addCleanup(self.end)
        self.stack.wait_until(
            lambda: "curl --cacert" in self.printed() or self.process.poll() is not None, timeout=180, what="its start"
        )
        self.assertIn("curl --cacert", self.printed())
        self.stack.place = os.readlink(os.path.join(self.stack.directory, "here"))

    def printed(self):
        self.output.seek(0)
        return self.output.read()

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def test_the_printed_command_works_and_ctrl_c_stops_everything(self):
        command = re.search(r"^\s*(curl .*)$", self.printed(), re.M)[1]
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=True, env=bare_environment()
        )
        self.assertIn("Production SIEM", done.stdout)
        self.stack.wait_until(lambda: "handler | " in self.printed() and "code=ok" in self.printed(), what="the log")
        os.killpg(self.process.pid, signal.SIGINT)
        self.assertEqual(self.process.wait(60), 130)
        self.assertEqual(alive(self.stack), [])

    def test_terminating_it_stops_everything(self):
        self.process.terminate()
        self.process.wait(60)
        self.assertEqual(alive(self.stack), [])

    def test_after_kill_9_the_next_start_says_how_to_stop_what_is_left(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        done = tool(self.stack, "up")
        self.assertEqual(done.returncode, 1)
        self.assertIn("stop it with make down", done.stderr)
        self.assertEqual(tool(self.stack, "down").returncode, 0)
        self.assertEqual(alive(self.stack), [])

    def test_a_part_that_ends_stops_everything(self):
        os.kill(self.stack.nginx_pid(), signal.SIGTERM)
        self.assertEqual(self.process.wait(60), 1)
        self.assertIn("a part of the stack has ended", self.printed())
        self.assertEqual(alive(self.stack), [])

    def test_down_from_elsewhere_ends_it(self):
        self.assertEqual(tool(self.stack, "down").returncode, 0)
        self.assertEqual(self.process.wait(60), 0)
        self.assertIn("stopped from elsewhere", self.printed())


if __name__ == "__main__":
    unittest.main()
