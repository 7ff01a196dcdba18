"""A Prometheus of a test's own: Debian's program, on a free port of 127.0.0.1, one scrape per second.

    with Prometheus({"keys": stack.status_url}, rules=scaled(text)) as prometheus:
        prometheus.value('keys_processes{job="keys"}')
        prometheus.await_alert("KeysDown", "firing")

    with FakeNode() as node:           # what node_exporter would show, written by the test
        node.show('node_systemd_unit_state{name="x",state="failed"} 1')

Both end with their blocks.
"""

import http.server
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

from tests.support.stack import Stack, bare_environment, free_port

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(duration):
    """Seconds of a duration of Prometheus': 15m, 1h."""
    return int(duration[:-1]) * UNITS[duration[-1]]


def scaled(rules, factor=90, longest_for=2):
    """Rules with ranges `factor` times shorter, and `for:` too, but never over `longest_for` seconds."""
    rules = re.sub(r"\[(\d+[smhd])\]", lambda m: f"[{max(5, seconds_of(m[1]) // factor)}s]", rules)
    return re.sub(
        r"^( +for: )(\d+[smhd])$",
        lambda m: f"{m[1]}{min(longest_for, max(1, seconds_of(m[2]) // factor))}s",
        rules,
        flags=re.M,
    )


class Prometheus:
    """jobs: name -> URL of a listener whose /metrics is scraped."""

    def __init__(self, jobs, rules=""):
        self.jobs = jobs
        self.rules = rules

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-prometheus-", dir="/tmp"))
        self.port = free_port()
        scrapes = [
            {
                "job_name": name,
                "scheme": urllib.parse.urlsplit(url).scheme,
                "static_configs": [{"targets": [urllib.parse.urlsplit(url).netloc]}],
            }
            for name, url in self.jobs.items()
        ]
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        configuration = {"global": every, "rule_files": ["rules.yml"], "scrape_configs": scrapes}
        (self.directory / "rules.yml").write_text(self.rules, encoding="utf-8")
        # JSON is YAML.
        (self.directory / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
        self.log = open(self.directory / "log", "wb")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [
                "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
            ],
            cwd=self.directory, env=bare_environment(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        try:
            Stack.wait_until(self._is_ready, timeout=30, what="a Prometheus that is ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory)

    def _is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.directory / "log").read_text(encoding="utf-8"))
        try:
            return self.get("/-/ready") is not None
        except OSError:
            return False

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}?{query}", timeout=10) as answer:
            return answer.read()

    def query(self, expression):
        """The samples of an instant query: a list of {"metric": labels, "value": [time, text]}."""
        try:
            answer = json.loads(self.get("/api/v1/query", query=expression))
        except urllib.error.HTTPError as error:
            raise ValueError(f"{expression}: {json.load(error)['error']}") from None
        return answer["data"]["result"]

    def value(self, expression):
        """The only sample of a query; None when there is none."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression} has {len(found)} samples"
        return float(found[0]["value"][1]) if found else None

    def alerts(self):
        """Alert's name -> "pending" or "firing" (the furthest of its instances)."""
        states = {}
        for alert in json.loads(self.get("/api/v1/alerts"))["data"]["alerts"]:
            name = alert["labels"]["alertname"]
            if states.get(name) != "firing":
                states[name] = alert["state"]
        return states

    def await_value(self, expression, holds, timeout=20):
        """Waits until the query's only sample is as `holds` wants it."""

        def found():
            value = self.value(expression)
            return value is not None and holds(value)

        Stack.wait_until(found, timeout=timeout, what=expression)


class FakeNode:
    """A listener whose /metrics is a text of the test's: node_exporter's part."""

    def __enter__(self):
        node = self
        self.text = ""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = node.text.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def show(self, *lines):
        self.text = "".join(line + "\n" for line in lines)
