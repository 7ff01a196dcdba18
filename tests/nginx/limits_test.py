#!/usr/bin/python3
"""What nginx limits and bounds before the pool sees anything: requests by address, headers by length. The pool is a script."""

import pathlib
import re
import threading
import unittest

from tests.support.raw_http import Answers, ask, connect, get_request, pipeline
from tests.support.scripted_pool import ScriptedPool, ok
from tests.support.site import Site
from tests.support.stack import ROOT

JWT = f"{'h' * 20}.{'c' * 100}.{'s' * 43}"
SESSION = f"sb-access-token={JWT}"
RECORD = 65_535  # bytes that a FastCGI record holds


def setUpModule():
    global pool
    pool = unittest.enterModuleContext(ScriptedPool())


class Session(unittest.TestCase):
    """Which cookies count as a session: those requests have no part in the limit of the others."""

    def is_anonymous(self, cookie):
        """nginx tells the pool that an API key came along only when there was no session."""
        pool.requests.clear()
        answer = ask(pool, get_request(cookie, [("X-API-Key", "sk_live_x")]))
        self.assertEqual(answer.status, 200)
        return "KEYS_HAS_API_KEY" in dict(pool.requests[0].parameters)

    def test_every_form_that_the_handler_accepts_is_one_as_short_as_it_can_be(self):
        for what, cookie in {
            "the token": SESSION,
            "among others": f"a=b;  c; {SESSION}; d=e",
            "as the last of 200": "x=y; " * 199 + SESSION,
            "with blanks": f"\tsb-access-token \t=  {JWT}",
            "after one that is none": f"sb-access-token=; {SESSION}",
            "Supabase's whole cookie": "sb-abc-def-auth-token=base64-eyJ" + "a" * 97,
            "its first chunk": "sb-127-auth-token.0=base64-eyJ" + "a" * 3170 + "; sb-127-auth-token.1=a",
            "its raw form": "sb-api.example-auth-token=%7B%22access_token%22%3A%22" + "a" * 78,
            "the raw form in lower case": "sb-x-auth-token=%7b%22access_token%22%3a%22" + "a" * 78,
            "the raw form not encoded": 'sb-x-auth-token={"access_token":"' + "a" * 84,
        }.items():
            with self.subTest(what):
                self.assertFalse(self.is_anonymous(cookie))

    def test_nothing_else_is(self):
        for what, cookie in {
            "nothing": None,
            "an empty cookie": "sb-access-token=",
            "a word": "sb-access-token=junk",
            "an API key": "sb-access-token=sk_live_zIc8",
            "another cookie": f"tracker={JWT}",
            "the shape of a token, shorter than any": "sb-x=eyJa.eyJ",
            "a header cut": f"sb-access-token={JWT[1:]}",
            "a signature cut": f"sb-access-token={JWT[:-1]}",
            "claims cut": f"sb-access-token={'h' * 20}.{'c' * 99}.{'s' * 43}",
            "two parts": f"sb-access-token={'h' * 20}.{'c' * 200}",
            "the beginning of Supabase's own": "sb-abcdef-auth-token.0=base64-eyJ",
            "the beginning of its raw form": "sb-abcdef-auth-token=%7B%22",
            "the raw form of an older library, which the handler refuses": "sb-x-auth-token=%5B%22" + "a" * 200,
            "a name in the midst of another": f"xsb-access-token={JWT}",
            "a name in a value": f"x= sb={JWT}",
            "one after more cookies than a browser keeps": "x=y; " * 200 + SESSION,
        }.items():
            with self.subTest(what):
                self.assertTrue(self.is_anonymous(cookie))


class Headers(unittest.TestCase):
    """What does not fit a FastCGI record is refused before nginx builds one."""

    def setUp(self):
        pool.peer = lambda request: ok()
        self.addCleanup(lambda: self.assertEqual(pool.get(token=JWT).status, 200, "a good request after it"))
        self.addCleanup(lambda: self.assertNotIn("[alert]", pool.nginx_error_log()))

    def test_cookies_pass_up_to_65000_bytes_and_then_are_431(self):
        for length in (64_998, 64_999, 65_000, RECORD - 20, RECORD, RECORD + 1):
            for http in ("1.1", "2") if length <= 65_000 else ("1.1",):  # curl sends no more over HTTP/2
                with self.subTest(length, http=http):
                    pool.requests.clear()
                    lines = ["a=" + "a" * 32_000, SESSION + "; b="]
                    lines[1] += "b" * (length - len("; ".join(lines)))
                    answer = pool.get(headers={"Cookie": lines}, http=http)
                    if length < 65_000:
                        self.assertEqual(answer.status, 200)
                        self.assertEqual(dict(pool.requests[0].parameters)["HTTP_COOKIE"], "; ".join(lines))
                    else:
                        self.assertEqual((answer.status, answer.json()["error"]["code"]), (431, "headers_too_large"))
                        self.assertEqual(pool.requests, [])

    def test_one_line_of_32_kb_passes_wherever_it_stands(self):
        line = SESSION + "; b=" + "b" * (32_768 - len(SESSION) - 4)
        others = [(f"X-Header-{number}", "x" * 100) for number in range(9)]
        for where in (0, 5, 9):
            headers = [*others[:where], ("Cookie", line), *others[where:]]
            self.assertEqual(ask(pool, get_request(headers=headers)).status, 200)

    def test_nothing_but_the_cookie_makes_a_record_long(self):
        pool.requests.clear()
        long = [("Sec-Fetch-Site", "s" * 20_000), ("Traceparent", "0" * 10_000), ("Cookie", SESSION)]
        text = get_request(headers=long).replace("GET", "M" * 30_000, 1)
        self.assertEqual(ask(pool, text).status, 200)
        parameters = dict(pool.requests[0].parameters)
        self.assertEqual(parameters["REQUEST_METHOD"], "M" * 16)
        self.assertLess(sum(len(name) + len(value) for name, value in parameters.items()), 500)

    def test_only_a_cross_site_request_is_told_so(self):
        for sent, passed in {
            "cross-site": "cross-site",
            "same-origin": None,
            "none": None,
            "cross-site, x": None,
        }.items():
            pool.requests.clear()
            pool.get(token=JWT, headers={"Sec-Fetch-Site": sent})
            self.assertEqual(dict(pool.requests[0].parameters).get("HTTP_SEC_FETCH_SITE"), passed)


class Concurrent(unittest.TestCase):
    def test_an_address_has_256_requests_at_once_and_no_more(self):
        answer_now = threading.Event()

        def peer(_request):
            answer_now.wait()
            return ok()

        pool = self.enterContext(ScriptedPool(read_timeout="60s"))
        self.addCleanup(answer_now.set)  # before that pool ends
        pool.peer = peer
        statuses = []

        def ask_once():
            with connect(pool, source="127.0.0.2") as client:
                client.sendall(get_request(SESSION).encode())
                statuses.append(Answers(client).next()[0].status)

        threads = [threading.Thread(target=ask_once) for _ in range(266)]
        for thread in threads:
            thread.start()
        pool.wait_until(lambda: len(statuses) >= 10, timeout=50, what="the refusal of ten while the others wait")
        self.assertEqual(statuses, [429] * 10)
        answer_now.set()
        for thread in threads:
            thread.join()
        self.assertEqual(statuses[10:], [200] * 256)


class Production(unittest.TestCase):
    """server.conf behind a load balancer that names its clients; without pcre_jit."""

    @classmethod
    def setUpClass(cls):
        pool.peer = lambda request: ok()
        cls.site = cls.enterClassContext(
            Site("set_real_ip_from 127.0.0.1; real_ip_header X-Client;\ninclude keys/server.conf;", pool)
        )

    def statuses(self, address, count):
        """Those of so many requests without a session from a client of this address."""
        answers = pipeline(self.site, [get_request(headers=[("X-Client", address)])] * count)
        return [answer.status for answer in answers]

    def test_ipv6_is_limited_by_64_and_ipv4_by_address(self):
        for address, same, other in (
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:3::1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("::ffff:198.51.100.1", "::ffff:198.51.100.1", "::ffff:198.51.100.2"),
        ):
            with self.subTest(address):
                self.site.wait_until(lambda: 429 in self.statuses(address, 700), what="the limit")
                self.assertIn(429, self.statuses(same, 500))
                self.assertEqual(set(self.statuses(other, 100)), {200})

    def cpu_time(self):
        """Nanoseconds that nginx's workers have run."""
        master = self.site.nginx_pid()
        workers = pathlib.Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split()
        return sum(
            int(pathlib.Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) for pid in workers
        )

    def cost(self, cookie):
        """What a request with 48 KB of this text, over and over, costs nginx. The end keeps PCRE from giving up at once."""
        text = get_request(headers=[("Cookie", (cookie * 24_000)[:24_000] + "=eyJ.eyJ")] * 2)
        with connect(self.site) as connection:
            answers = Answers(connection)
            costs = []
            for _ in range(12):
                before = self.cpu_time()
                connection.sendall(text.encode())
                self.assertIn(answers.next()[0].status, (200, 429))
                costs.append(self.cpu_time() - before)
        return min(costs)

    def test_no_cookie_takes_the_pattern_long(self):
        """A pattern that tries again at each `sb-` of `sb-sb-sb-…` takes a hundred times as long as for `aaaa…`."""
        plain = self.cost("a")
        for cookie in (
            "sb-",
            "; sb-",
            ";sb-a",
            "sb-a =  ",
            "sb-\t",
            "sb-a=;",
            "sb-a=base64-",
            "sb-a=%7B",
            "sb-a=" + "h" * 20 + "." + "c" * 100 + ".;",
            "sb-a=" + "h" * 12_000 + "." + "c" * 11_000,
            "sb-a" + " " * 23_000,
        ):
            with self.subTest(cookie[:30]):
                self.assertLess(self.cost(cookie), 10 * plain)


class Documentation(unittest.TestCase):
    def test_the_readme_states_the_figures_in_force(self):
        read = {
            name: (ROOT / "nginx" / name).read_text(encoding="utf-8") for name in ("keys-http.conf", "keys-api.conf")
        }
        rates = dict(re.findall(r"^limit_req_zone .* zone=(\w+):10m rate=(\d+)r/s;", read["keys-http.conf"], re.M))
        bursts = dict(re.findall(r"^ *limit_req zone=(\w+) burst=(\d+) nodelay;", read["keys-api.conf"], re.M))
        concurrent = re.search(r"^ *limit_conn \w+ (\d+);", read["keys-api.conf"], re.M)[1]
        table = dict(
            re.findall(
                r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", (ROOT / "nginx/README.md").read_text(encoding="utf-8"), re.M
            )
        )
        for row, zone in (("requests without a session", "keys_anonymous"), ("all requests", "keys_requests")):
            self.assertEqual(table[row], f"{rates[zone]}/s, burst {int(bursts[zone]):,}")
        self.assertEqual(table["concurrent requests"], concurrent)


if __name__ == "__main__":
    unittest.main()
