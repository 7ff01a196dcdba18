"""Supabase's own auth server on a database that is a Supabase project's, and the gateway in front of it.

SUPABASE_AUTH names the program: github.com/supabase/auth, built by `go build` in a clone of it (tests/README.md).

    with Project() as project, AuthServer(project) as auth:
        auth.post("/signup", {"email": …, "password": …})
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import threading
import time

from tests.support.certificates import make_certificates
from tests.support.cluster import Cluster, write_private
from tests.support.stack import ROOT, Stack, bare_environment, free_port

PROJECT = ROOT / "tests" / "database" / "supabase_project.sql"
PASSWORD = "of this test alone"
LOGINS = ("postgres", "supabase_auth_admin")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


PROGRAM = os.path.abspath(os.environ["SUPABASE_AUTH"]) if os.environ.get("SUPABASE_AUTH") else None


def missing():
    """Why there is no auth server here; None if there is one."""
    if PROGRAM is None:
        return 'SUPABASE_AUTH names no auth server (tests/README.md, "The real auth server")'
    return None if os.access(PROGRAM, os.X_OK) else f"SUPABASE_AUTH: {PROGRAM} is no program"


def run_or_raise(command, **options):
    """A command's output; RuntimeError with the end of all that it said when it fails."""
    done = subprocess.run(command, **({"capture_output": True, "text": True, "timeout": 60, "check": False} | options))
    if done.returncode != 0:
        raise RuntimeError(f"{command}: exit {done.returncode}: {done.stdout[-2000:]!r} {done.stderr[-2000:]!r}")
    return done.stdout


class Project(Cluster):
    """A project's database: its roles, no superuser among those that we use, reached over TLS with passwords."""

    def __init__(self):
        self.files_of_clients = pathlib.Path(tempfile.mkdtemp(prefix="keys-supabase-", dir="/tmp"))
        make_certificates(self.files_of_clients)
        server = ("server.key", "server.crt")
        super().__init__(
            owner="supabase_admin",
            settings={"ssl": "on", "listen_addresses": "127.0.0.1"},
            hba="local all supabase_admin trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
            files={name: (self.files_of_clients / name).read_text(encoding="ascii") for name in server},
        )

    def __enter__(self):
        super().__enter__()
        # The pool's user reads the certificate, the password and the keys.
        self.files_of_clients.chmod(0o711)
        self.psql(PROJECT.read_text(encoding="utf-8"))
        for role in LOGINS:
            self.psql(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
        return self

    def __exit__(self, *failure):
        super().__exit__(*failure)
        shutil.rmtree(self.files_of_clients, ignore_errors=True)

    def client_file(self, name, text, owner=None):
        path = self.files_of_clients / name
        write_private(path, text, owner)
        return str(path)

    def connection(self, user, passfile=None):
        """The connection string of sql/README.md. localhost may be ::1 first: hostaddr says where it is."""
        text = (
            f"postgresql://{user}@localhost:{self.port}/postgres?hostaddr=127.0.0.1"
            f"&sslmode=verify-full&sslrootcert={self.files_of_clients}/ours.crt"
        )
        return text + (f"&passfile={passfile}" if passfile else "")

    def as_postgres(self, command):
        """A shell command with the password of the role postgres at hand."""
        shell = ["bash", "-euo", "pipefail", "-c", command]
        return run_or_raise(shell, cwd=ROOT, env=bare_environment() | {"PGPASSWORD": PASSWORD})


class Refused(Exception):
    """The auth server's answer when it is no success."""

    def __init__(self, what, status, body):
        super().__init__(f"{what}: {status} {body}")
        self.status, self.body = status, body


class AuthServer:
    """The auth server behind a gateway that has its paths below /auth/v1, as a project's has.

    `keys` are its signing keys, JWKs with their private halves; none: the secret signs. `restart` takes others.
    """

    def __init__(self, project, secret):
        self.project = project
        self.secret = secret
        self.port = free_port()
        self.gateway = Gateway(self.port)
        self.url = self.gateway.url
        self.issuer = f"{self.url}/auth/v1"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-auth-", dir="/tmp"))
        self.process = None
        self.service_role = None  # the token that its administration wants

    def __enter__(self):
        self.gateway.start()
        try:
            self.migrate()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        self.gateway.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self, keys=()):
        database = f"127.0.0.1:{self.project.port}/postgres?sslmode=require"
        words = {
            "GOTRUE_DB_DRIVER": "postgres",
            "DATABASE_URL": f"postgres://supabase_auth_admin:{PASSWORD.replace(' ', '%20')}@{database}",
            "GOTRUE_API_HOST": "127.0.0.1",
            "PORT": str(self.port),
            "API_EXTERNAL_URL": self.issuer,
            "GOTRUE_SITE_URL": self.url,
            "GOTRUE_URI_ALLOW_LIST": f"{self.url}/**",
            "GOTRUE_JWT_SECRET": self.secret,
            "GOTRUE_JWT_ISSUER": self.issuer,
            "GOTRUE_JWT_AUD": "authenticated",
            "GOTRUE_JWT_DEFAULT_GROUP_NAME": "authenticated",
            "GOTRUE_JWT_ADMIN_ROLES": "service_role",
            "GOTRUE_MAILER_AUTOCONFIRM": "true",
            "GOTRUE_EXTERNAL_ANONYMOUS_USERS_ENABLED": "true",
            "GOTRUE_SECURITY_REFRESH_TOKEN_ROTATION_ENABLED": "true",
            "GOTRUE_OAUTH_SERVER_ENABLED": "true",
            "GOTRUE_OAUTH_SERVER_AUTHORIZATION_PATH": "/oauth/consent",
            "GOTRUE_LOG_LEVEL": "warn",
        }
        if keys:
            words["GOTRUE_JWT_KEYS"] = json.dumps(list(keys))
        foreign = ("GOTRUE_", "DATABASE_", "API_")
        return {name: v for name, v in bare_environment().items() if not name.startswith(foreign)} | words

    def migrate(self):
        run_or_raise([PROGRAM, "migrate"], cwd=self.directory, env=self.environment())

    def start(self, keys=()):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "serve"],
                cwd=self.directory,
                env=self.environment(keys),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        Stack.wait_until(self._is_healthy, timeout=20, what="the auth server")

    def _is_healthy(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the auth server ended: {self.log()[-2000:]}")
        try:
            return self.get("/health")["name"] == "GoTrue"
        except (OSError, http.client.HTTPException, Refused):
            return False

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def restart(self, keys=()):
        self.stop()
        self.start(keys)

    def log(self):
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    # --- asking it ----------------------------------------------------------------------------------

    def request(self, method, path, body=None, token=None):
        """(status, headers, JSON or text) of one request; a redirect is not followed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, answer.headers, json.loads(text)
        except ValueError:
            return answer.status, answer.headers, text.decode(errors="replace")

    def _call(self, method, path, body=None, token=None):
        status, _, answer = self.request(method, path, body, token)
        if status >= 400:
            raise Refused(f"{method} {path}", status, answer)
        return answer

    def get(self, path, token=None):
        return self._call("GET", path, token=token)

    def post(self, path, body=None, token=None):
        return self._call("POST", path, {} if body is None else body, token)

    def put(self, path, body, token):
        return self._call("PUT", path, body, token)

    def administer(self, method, path, body=None):
        return self._call(method, f"/admin{path}", body, self.service_role)


class Gateway:
    """One origin for a site and its project: pages of the test's own, and the auth server below /auth/v1."""

    def __init__(self, port):
        self.pages = {}  # path -> (content type, bytes)
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if self.path.startswith("/auth/v1/"):
                    self.forward(self.path.removeprefix("/auth/v1"), body)
                elif self.path in gateway.pages:
                    kind, content = gateway.pages[self.path]
                    self.reply(200, [("Content-Type", kind)], content)
                else:
                    self.reply(404, [], b"")

            do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

            def forward(self, path, body):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                try:
                    headers = {name: v for name, v in self.headers.items() if name.lower() not in HOP_BY_HOP}
                    connection.request(self.command, path, body, headers)
                    answer = connection.getresponse()
                    kept = [(name, v) for name, v in answer.headers.items() if name.lower() not in HOP_BY_HOP]
                    self.reply(answer.status, kept, answer.read())
                except OSError:
                    self.reply(502, [], b"")
                finally:
                    connection.close()

            def reply(self, status, headers, body):
                self.send_response(status)
                for name, value in [*headers, ("Content-Length", str(len(body)))]:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def start(self):
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def one_time_password(secret, now=None):
    """RFC 6238 as authenticator apps have it: HMAC-SHA-1, 30 s, six digits, the secret in base32."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    step = struct.pack(">Q", int(now if now is not None else time.time()) // 30)
    digest = hmac.new(key, step, hashlib.sha1).digest()
    at = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[at : at + 4])[0] & 0x7FFFFFFF) % 10**6:06}"
