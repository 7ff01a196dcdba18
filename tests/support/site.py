"""nginx with the files that production includes, edited as their comments tell an operator to, in front of a scripted pool.

    with ScriptedPool() as pool, Site("include keys/server.conf;", pool) as site:
        assert site.get(token=token).status == 200

Unlike the local stack's nginx it has no pcre_jit, as Debian's.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

from tests.support.scripted_pool import NGINX
from tests.support.stack import ROOT, Stack, free_port


class Site(Stack):
    """An nginx whose configuration directory has the production files in keys/."""

    def __init__(self, http_block, pool):
        super().__init__()
        self.http_block = http_block
        self.pool = pool

    def start(self):
        self.directory = self.place = tempfile.mkdtemp(prefix="keys-site-", dir="/tmp")
        os.chmod(self.directory, 0o711)
        for name in ("log", "temp", "keys"):
            os.mkdir(os.path.join(self.directory, name))
        os.chmod(os.path.join(self.directory, "keys"), 0o755)
        self.cacert = self.pool.cacert
        port = free_port()
        edits = {
            "unix:/run/keys-fcgi/keys.sock": f"unix:{self.pool.socket}",
            "/etc/nginx/keys/certificate.pem": self.pool.cacert,
            "/etc/nginx/keys/certificate-key.pem": self.pool.cacert.replace("cert.pem", "key.pem"),
            "/etc/nginx/keys;": f"{self.directory}/keys;",
            "/var/log/nginx/keys-access.log": f"{self.directory}/log/nginx-access.log",
            "listen 127.0.0.1:8480;": f"listen 127.0.0.1:{port + 1};",
        }
        for source in [*(ROOT / "nginx").glob("*.conf"), ROOT / "nginx" / "openapi.json"]:
            target = pathlib.Path(self.directory, "keys", source.name)
            target.write_text(replaced(source.read_text(encoding="utf-8"), edits), encoding="utf-8")
            target.chmod(0o644)
        listen = subprocess.check_output([ROOT / "tools" / "nginx-listen", f"127.0.0.1:{port}"])
        pathlib.Path(self.directory, "keys", "keys-listen.conf").write_bytes(listen)
        temporary = "".join(
            f"{kind}_temp_path {self.directory}/temp/{kind};\n"
            for kind in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
        )
        user = "user www-data;\n" if os.geteuid() == 0 else ""
        configuration = pathlib.Path(self.directory, "nginx.conf")
        configuration.write_text(
            f"{user}pid {self.directory}/nginx.pid;\nerror_log {self.directory}/log/nginx-error.log;\n"
            f"events {{}}\nhttp {{\naccess_log {self.directory}/log/site.log;\n{temporary}{replaced(self.http_block, edits)}\n}}\n",
            encoding="utf-8",
        )
        self.url, self.status_url = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
        for check in (["-t"], []):
            command = [NGINX, "-p", self.directory, "-c", configuration, *check]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
            )
            if done.returncode != 0 or b"[warn]" in done.stderr:
                shutil.rmtree(self.directory)
                raise AssertionError(done.stderr.decode())
        return self

    def stop(self):
        pid = self.nginx_pid()
        os.kill(pid, 15)
        self.wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="nginx's end")
        shutil.rmtree(self.directory)


def replaced(text, edits):
    for old, new in edits.items():
        text = text.replace(old, new)
    return text
