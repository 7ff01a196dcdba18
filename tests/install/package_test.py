#!/usr/bin/python3
"""What is installed: make install and uninstall, the Debian package, its units, and the service that they make."""

import contextlib
import gzip
import hashlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from tests.support.cluster import HANDLER
from tests.support.stack import ROOT, Stack, bare_environment, free_port

VERSION = re.search(r"^VERSION +:= (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
UNITS = (
    "keys-fcgi@.service",
    "keys-fcgi.socket",
    "keys-fcgi.target",
    "keys-fcgi-refresh-jwks.service",
    "keys-fcgi-refresh-jwks.timer",
    "keys-fcgi-sweep.service",
    "keys-fcgi-sweep.timer",
)
SERVICES = [unit for unit in UNITS if unit.endswith(".service")]


def run(*command, check=True, env=None, cwd=ROOT, **options):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=bare_environment() | (env or {}),
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
        **options,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def files_below(directory):
    return sorted(str(path.relative_to(directory)) for path in pathlib.Path(directory).rglob("*") if not path.is_dir())


def scratch(case):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-install-", dir="/tmp"))
    directory.chmod(0o755)
    case.addCleanup(shutil.rmtree, directory, ignore_errors=True)
    return directory


class MakeInstallTest(unittest.TestCase):
    def make(self, target, destination, *more):
        # The handler is there already: -o takes it as it is.
        built = f"{os.environ.get('OUT', 'build')}/keys-fcgi"
        return run("make", "-o", built, target, f"DESTDIR={destination}", *more)

    def test_install_brings_everything_and_uninstall_leaves_nothing(self):
        destination = scratch(self)
        self.make("install", destination, "PREFIX=/opt/keys")
        found = files_below(destination)
        for path in [
            "opt/keys/sbin/keys-fcgi",
            "opt/keys/sbin/keys-fcgi-restart",
            "opt/keys/share/man/man8/keys-fcgi.8",
            "opt/keys/share/keys-fcgi/sql/2-schema.sql",
            "opt/keys/share/keys-fcgi/alerts.yml",
            "opt/keys/share/doc/keys-fcgi/tools/README.md",
            "opt/keys/share/keys-fcgi/grafana-dashboard.json",
            "opt/keys/share/keys-fcgi/RUNBOOK.md",
            "opt/keys/lib/keys-fcgi/create-key",
            "opt/keys/lib/keys-fcgi/take-credentials",
            "opt/keys/lib/sysusers.d/keys-fcgi.conf",
            "opt/keys/lib/tmpfiles.d/keys-fcgi.conf",
            "etc/keys-fcgi/environment",
            "etc/nginx/keys/keys-api.conf",
            "etc/nginx/keys/server.conf",
            "etc/nginx/keys/keys-listen.conf",
            "opt/keys/lib/systemd/system/keys-fcgi@check.service.d/check.conf",
            *(f"opt/keys/lib/systemd/system/{unit}" for unit in UNITS),
        ]:
            self.assertIn(path, found)
        self.assertEqual([path for path in found if "demo" in path or "local" in path], [])
        for path in found:
            text = (destination / path).read_bytes()
            self.assertNotRegex(text, rb"@[A-Z]+DIR@", path)
        self.make("uninstall", destination, "PREFIX=/opt/keys")
        self.assertEqual(files_below(destination), [])
        left = [str(path) for path in destination.rglob("*keys-fcgi*")]
        self.assertEqual(left, [])

    def test_an_edited_setting_survives_install_and_uninstall(self):
        destination = scratch(self)
        environment = destination / "etc/keys-fcgi/environment"
        install = {"DESTDIR": str(destination), "PREFIX": "/usr"}
        run("tools/install", HANDLER, env=install)
        environment.write_text("KEYS_DATABASE_URL=mine\n", encoding="utf-8")
        done = run("tools/install", HANDLER, env=install)
        self.assertIn("kept", done.stderr)
        self.assertEqual(environment.read_text(encoding="utf-8"), "KEYS_DATABASE_URL=mine\n")
        self.assertTrue(environment.with_name("environment.new").exists())
        run("tools/install", "--uninstall", env=install)
        self.assertEqual(files_below(destination), ["etc/keys-fcgi/environment", "etc/keys-fcgi/environment.new"])

    def test_the_man_page_has_no_faults(self):
        destination = scratch(self)
        run("tools/install", HANDLER, env={"DESTDIR": str(destination), "PREFIX": "/usr"})
        page = destination / "usr/share/man/man8/keys-fcgi.8"
        done = run(
            "man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page, env={"MANROFFSEQ": "", "LC_ALL": "C.UTF-8"}
        )
        self.assertEqual(done.stderr, "")


class UnitsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.prefix = pathlib.Path(tempfile.mkdtemp(prefix="keys-units-", dir="/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.prefix, ignore_errors=True)
        run("tools/install", HANDLER, env={"PREFIX": str(cls.prefix), "SYSCONFDIR": str(cls.prefix / "etc")})
        cls.units = cls.prefix / "lib/systemd/system"

    def test_systemd_finds_no_fault_in_the_units(self):
        names = [unit.replace("@.", "@1.") for unit in UNITS] + ["keys-fcgi@check.service"]
        done = run("systemd-analyze", "verify", "--man=no", *(self.units / name for name in names), check=False)
        self.assertEqual((done.stdout + done.stderr, done.returncode), ("", 0))

    def test_the_exposure_of_every_service_is_2_or_lower(self):
        for unit in SERVICES:
            with self.subTest(unit):
                done = run("systemd-analyze", "security", "--offline=yes", self.units / unit, check=False)
                level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
                self.assertLessEqual(float(level[1]), 2.0, done.stdout)

    def test_the_socket_is_for_nginx_alone_and_its_queue_is_long(self):
        text = (self.units / "keys-fcgi.socket").read_text(encoding="utf-8")
        settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
        self.assertEqual((settings["SocketMode"], settings["SocketGroup"]), ("0660", "www-data"))
        self.assertGreaterEqual(int(settings["Backlog"]), 1024)
        upstream = (self.prefix / "etc/nginx/keys/keys-upstream.conf").read_text(encoding="utf-8")
        self.assertIn(f"server unix:{settings['ListenStream']};", upstream)


class RestartTest(unittest.TestCase):
    """keys-fcgi-restart, with a systemctl of the test's own that knows two instances. tests/boot has real ones."""

    def restart(self, wrong=False, broken=""):
        directory = scratch(self)
        fake = directory / "systemctl"
        fake.write_text(
            "#!/bin/sh\n"
            f'cd {directory}; echo "$*" >>calls\n'
            'case "$*" in\n'
            '  list-units*) for i in 1 2; do echo "keys-fcgi@$i.service loaded active running Keys"; done ;;\n'
            f'  "start keys-fcgi@check.service") {"exit 1" if wrong else ":"} ;;\n'
            f'  restart*) test "$2" != "keys-fcgi@{broken}.service" ;;\n'
            "esac\n",
            encoding="utf-8",
        )
        fake.chmod(0o755)
        path = f"{directory}:{bare_environment()['PATH']}"
        done = run("tools/systemd/keys-fcgi-restart", check=False, env={"PATH": path})
        calls = (directory / "calls").read_text(encoding="utf-8")
        return done.returncode, done.stderr, re.findall(r"^restart keys-fcgi@(\S+)\.service$", calls, re.M)

    def test_it_restarts_every_instance_one_after_the_other(self):
        self.assertEqual(self.restart(), (0, "", ["1", "2"]))

    def test_it_restarts_none_when_a_new_process_would_not_work(self):
        status, complaint, restarted = self.restart(wrong=True)
        self.assertEqual((status, restarted), (1, []))
        self.assertIn("nothing was restarted", complaint)

    def test_it_stops_at_the_first_that_does_not_start(self):
        status, complaint, restarted = self.restart(broken="1")
        self.assertEqual((status, restarted), (1, ["1"]))
        self.assertIn("keys-fcgi@1.service does not start", complaint)


class TakeCredentialsTest(unittest.TestCase):
    """What the units run before the program: which secrets came, and pgpass as libpq wants it."""

    def take(self, files, credentials, secret_file="jwt-secret"):
        """Exit status, complaints, and the mode and text of the copy."""
        directory = scratch(self)
        etc, given, own = (directory / name for name in ("etc", "given", "own"))
        for place in (etc, given, own):
            place.mkdir()
        for place, texts in ((etc, files), (given, credentials)):
            for name, text in texts.items():
                (place / name).write_text(text, encoding="ascii")
                (place / name).chmod(0o440)
        script = (ROOT / "tools/systemd/take-credentials.in").read_text(encoding="utf-8")
        script = script.replace("@ETCDIR@", str(etc)).replace("/run/credentials/*/", f"{given}/")
        (directory / "script").write_text(script, encoding="utf-8")
        environment = {"CREDENTIALS_DIRECTORY": str(given)}
        if secret_file:
            environment["KEYS_JWT_SECRET_FILE"] = str(given / secret_file)
        done = run("bash", directory / "script", own, check=False, env=environment)
        copy = own / "pgpass"
        copied = (oct(copy.stat().st_mode & 0o777), copy.read_text(encoding="ascii")) if copy.exists() else None
        return done.returncode, done.stderr, copied

    def test_a_password_file_is_copied_so_that_no_group_can_read_it(self):
        files = {"jwt-secret": "s" * 32, "pgpass": "h:1:d:r:w\n"}
        self.assertEqual(self.take(files, files), (0, "", ("0o600", "h:1:d:r:w\n")))

    def test_placeholders_of_what_does_not_exist_and_is_not_used_are_good(self):
        nothing = {"jwt-secret": "none", "pgpass": "none"}
        self.assertEqual(self.take({}, nothing, secret_file=None), (0, "", None))

    def test_a_secret_that_exists_and_was_not_handed_over_is_told(self):
        good = {"jwt-secret": "s" * 32, "pgpass": "h:1:d:r:w\n"}
        for name in good:
            with self.subTest(name):
                status, complaint, copied = self.take(good, good | {name: "none"})
                self.assertEqual((status, copied), (1, None))
                self.assertRegex(complaint, f"{name} exists, but systemd did not hand it over: LoadCredential=")

    def test_a_secret_that_does_not_exist_is_told(self):
        status, complaint, _ = self.take({}, {"jwt-secret": "none", "pgpass": "none"})
        self.assertEqual(status, 1)
        self.assertRegex(complaint, "jwt-secret does not exist; without such a secret, KEYS_JWT_SECRET_FILE=")


@unittest.skipUnless(HANDLER == ROOT / "build/keys-fcgi", "packages are of the release build")
class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Not in build/deb: the suite of the guide, which may run beside this one, says `make deb`.
        out = cls.enterClassContext(tempfile.TemporaryDirectory(prefix="keys-deb-", dir="/tmp"))
        built = run("tools/debian/build", HANDLER, VERSION, env={"DEB_DIRECTORY": out}).stdout.strip()
        cls.package = ROOT / built

    def test_lintian_finds_nothing(self):
        done = run("lintian", "--fail-on", "error,warning", "--allow-root", self.package, check=False)
        self.assertEqual((done.stdout, done.returncode), ("", 0), done.stderr)

    def test_everything_below_etc_is_a_conffile(self):
        listed = run("dpkg-deb", "--info", self.package, "conffiles").stdout.split()
        below = [line.split()[-1][1:] for line in run("dpkg-deb", "-c", self.package).stdout.splitlines()]
        self.assertEqual(listed, sorted(path for path in below if path.startswith("/etc/") and not path.endswith("/")))
        self.assertIn("/etc/keys-fcgi/environment", listed)

    def test_where_nginx_listens_is_chosen_on_the_machine_itself(self):
        """Not at build time: by the postinst, which runs again when nginx is installed or upgraded."""
        self.assertNotIn("keys-listen.conf", run("dpkg-deb", "-c", self.package).stdout)
        self.assertEqual(
            run("dpkg-deb", "--info", self.package, "triggers").stdout, "interest-noawait /usr/sbin/nginx\n"
        )

    def test_it_depends_on_the_libraries_that_the_program_needs(self):
        depends = run("dpkg-deb", "--field", self.package, "Depends").stdout
        libraries = run("ldd", HANDLER).stdout
        for library in ("libc.so.6", "libfcgi.so.0", "libpq.so.5", "libcrypto.so.3", "libstdc++.so.6"):
            # The package of a library is named anew from release to release: the machine knows.
            file = os.path.realpath(re.search(rf"{re.escape(library)} => (\S+)", libraries)[1])
            package = run("dpkg-query", "--search", f"*{file.removeprefix('/usr')}").stdout.split(":")[0]
            self.assertIn(package, depends)
        for package in ("ca-certificates", "openssl", "postgresql-client", "systemd"):
            self.assertIn(package, depends)

    def test_the_note_on_the_deadline_knows_nginxs_limit(self):
        config = (ROOT / "handler/config.h").read_text(encoding="utf-8")
        milliseconds = int(re.search(r"kNginxReadTimeout\{(\d+)\}", config)[1])
        for name in ("keys-api.conf", "status.conf"):
            with self.subTest(name):
                text = (ROOT / "nginx" / name).read_text(encoding="utf-8")
                self.assertIn(f"fastcgi_read_timeout {milliseconds // 1000}s;", text)

    def test_another_folder_at_another_time_with_other_modes_makes_the_same_bytes(self):
        copy = scratch(self) / "elsewhere"
        made_here = {str(ROOT): {"build", ".git"}}
        shutil.copytree(ROOT, copy, ignore=lambda folder, _: made_here.get(str(folder), set()))
        program = copy / "program"
        shutil.copy(HANDLER, program)  # it is run: the man page has its --help
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o700 if path.is_dir() or os.access(path, os.X_OK) else 0o600)
            os.utime(path, (2_000_000_000, 2_000_000_000))
        commit = run("git", "log", "-1", "--format=%ct").stdout.strip()
        again = run("tools/debian/build", program, VERSION, env={"SOURCE_DATE_EPOCH": commit}, cwd=copy, umask=0o077)
        self.assertEqual(
            hashlib.sha256((copy / again.stdout.strip()).read_bytes()).hexdigest(),
            hashlib.sha256(self.package.read_bytes()).hexdigest(),
        )

    def test_the_program_does_not_name_the_folder_where_it_was_built(self):
        self.assertNotIn(os.fsencode(f"{ROOT}/"), HANDLER.read_bytes())

    def test_no_unit_is_started_or_enabled_by_the_package(self):
        done = run("dpkg-deb", "--info", self.package, "postinst").stdout
        self.assertNotRegex(done, r"systemctl[^\n]*(start|enable|preset)\b(?! keys-fcgi-restart)")
        self.assertEqual([path for path in run("dpkg-deb", "-c", self.package).stdout.split() if ".wants/" in path], [])

    def test_the_documentation_is_compressed_and_complete(self):
        directory = scratch(self)
        run("dpkg-deb", "-x", self.package, directory)
        page = gzip.decompress((directory / "usr/share/man/man8/keys-fcgi.8.gz").read_bytes()).decode()
        self.assertIn("/etc/keys-fcgi/environment", page)
        self.assertTrue((directory / "usr/share/doc/keys-fcgi/copyright").exists())


class ServiceTest(unittest.TestCase):
    """The installed files at work: systemd's way of passing the socket, nginx with the installed snippets."""

    @classmethod
    def setUpClass(cls):
        cls.stack = cls.enterClassContext(Stack(workers=1))
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-service-", dir="/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)
        cls.directory.chmod(0o755)
        run("tools/install", HANDLER, env={"DESTDIR": str(cls.directory), "PREFIX": "/usr"})
        cls.run_directory = cls.directory / "run"
        cls.run_directory.mkdir()
        cls.user = "www-data" if os.geteuid() == 0 else None
        if cls.user:
            shutil.chown(cls.run_directory, cls.user, cls.user)

    def start(self, command, env=None, user=None):
        log = open(self.directory / "log", "ab")  # pylint: disable=consider-using-with
        self.addCleanup(log.close)
        identity = {"user": user, "group": user, "extra_groups": []} if user else {}
        process = subprocess.Popen(
            [str(word) for word in command],
            env=bare_environment() | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            **identity,
        )
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process, how=signal.SIGTERM):
        process.send_signal(how)
        try:
            return process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def log(self):
        return (self.directory / "log").read_text(encoding="utf-8")

    def start_handler(self):
        """As keys-fcgi.socket and keys-fcgi@1.service do: listening descriptor 3, LISTEN_FDS=1."""
        path = self.run_directory / "keys.sock"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        settings = {name: value for name, value in self.stack.env.items() if name.startswith("KEYS_")}
        settings["KEYS_METRICS_FILE"] = str(self.run_directory / "metrics")
        passed = [f"--setenv={name}={value}" for name, value in settings.items()]
        process = self.start(
            ["systemd-socket-activate", "-l", path, *passed, self.directory / "usr/sbin/keys-fcgi"], user=self.user
        )
        Stack.wait_until(path.exists, what="the socket")
        return process, path

    def start_nginx(self):
        """/etc/nginx as the package leaves it, with the lines edited that its comments say to edit."""
        port = free_port()
        status_port = port + 1
        here = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
        here.chmod(0o755)
        shutil.copytree(self.directory / "etc/nginx/keys", here / "keys")
        certificate = {
            "/etc/nginx/keys/certificate.pem": self.stack.cacert,
            "/etc/nginx/keys/certificate-key.pem": os.path.join(os.path.dirname(self.stack.cacert), "key.pem"),
        }
        edits = {
            **certificate,
            "/etc/nginx/keys": str(here / "keys"),
            "/run/keys-fcgi/keys.sock": str(self.run_directory / "keys.sock"),
            "/var/log/nginx/keys-access.log": str(self.directory / "access.log"),
            "listen 127.0.0.1:8480": f"listen 127.0.0.1:{status_port}",
        }
        for name in ("server.conf", "keys-upstream.conf"):
            text = (here / "keys" / name).read_text(encoding="utf-8")
            for old, new in edits.items():
                text = text.replace(old, new)
            (here / "keys" / name).write_text(text, encoding="utf-8")
        listen = run("tools/nginx-listen", f"127.0.0.1:{port}").stdout
        (here / "keys" / "keys-listen.conf").write_text(listen, encoding="utf-8")
        temporary = "".join(
            f"{kind}_temp_path {self.directory}/temp-{kind};\n"
            for kind in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
        )
        (here / "nginx.conf").write_text(
            f"{'user www-data;' if self.user else ''}\npid {self.directory}/nginx.pid;\ndaemon off;\n"
            f"error_log {self.directory}/error.log;\nevents {{}}\n"
            f"http {{\n{temporary}include keys/server.conf;\n}}\n",
            encoding="utf-8",
        )
        path = bare_environment()["PATH"] + ":/usr/sbin"
        process = self.start([shutil.which("nginx", path=path), "-c", here / "nginx.conf", "-p", self.directory])
        Stack.wait_until(lambda: self.listens(port), what="nginx", timeout=15)
        return process, f"https://127.0.0.1:{port}", f"http://127.0.0.1:{status_port}"

    @staticmethod
    def listens(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def test_the_installed_service_answers_through_nginx_and_drains(self):
        handler, _ = self.start_handler()
        _, url, status_url = self.start_nginx()
        token = self.stack.mint()
        answer = self.stack.get(url=url, token=token)
        self.assertEqual(answer.status, 200, f"{answer}\n{self.log()}")
        self.assertEqual(len(answer.json()["data"]), 2)
        self.assertEqual(self.stack.get(url=url).status, 401)
        self.assertEqual(self.stack.get("/readyz", url=status_url).status, 200)
        metrics = self.stack.get("/metrics", url=status_url).body.decode()
        self.assertRegex(metrics, r'keys_requests_total\{[^}]*code="ok"[^}]*\} [1-9]')
        self.assertEqual(self.end(handler), 0, self.log())
        self.assertIn("stopped", self.log())

    def test_it_takes_no_descriptor_that_is_not_meant_for_it(self):
        # LISTEN_PID of another process, as a child of a socket-activated parent has it: no listener.
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.directory / "other.sock"))
            listener.listen()
            done = subprocess.run(
                ["/bin/sh", "-c", f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=1 exec "$0"', str(HANDLER)],
                env=bare_environment() | self.stack.env,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        self.assertEqual(done.returncode, 1)
        self.assertIn("no LISTEN_FDS", done.stderr)

    def test_after_its_start_the_process_has_no_file_open_but_what_it_serves_with(self):
        if os.geteuid() != 0:
            self.skipTest("the handler hides its descriptors from all but root")
        handler, path = self.start_handler()
        _, url, _ = self.start_nginx()
        self.assertEqual(self.stack.get(url=url, token=self.stack.mint()).status, 200)
        kinds = set()
        for entry in pathlib.Path(f"/proc/{handler.pid}/fd").iterdir():
            target = os.readlink(entry)
            kinds.add(re.sub(r":\[\d+\]$|(?<=/metrics)-[0-9a-f]{16}$", "", target))
        allowed = {
            "/dev/null",
            str(self.directory / "log"),
            str(self.run_directory / "metrics"),
            "socket",
            "anon_inode:[eventpoll]",
            "anon_inode:[signalfd]",
            "anon_inode:[timerfd]",
            "anon_inode:inotify",
        }
        self.assertEqual(kinds - allowed, set(), path)
        limits = pathlib.Path(f"/proc/{handler.pid}/limits").read_text(encoding="utf-8")
        self.assertRegex(limits, r"Max core file size +0 +0 ")


if __name__ == "__main__":
    unittest.main()
