#!/usr/bin/python3
"""tools/nginx-listen: where nginx listens, said as each version wants it, in a file that an operator may take over."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from tests.support.stack import ROOT, bare_environment

HAS_IPV6 = os.path.exists("/proc/net/if_inet6")
BEFORE = ["listen 443 ssl http2;", "listen [::]:443 ssl http2;"]
SINCE = ["listen 443 ssl;", "listen [::]:443 ssl;", "http2 on;"]


class NginxListenTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="keys-listen-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.file = self.directory / "keys-listen.conf"

    def run_with(self, version, *arguments):
        """The lines that the tool prints where `nginx -v` says this."""
        nginx = self.directory / "nginx"
        nginx.write_text(f"#!/bin/sh\necho '{version}' >&2\n", encoding="utf-8")
        nginx.chmod(0o755)
        path = f"{self.directory}:{bare_environment()['PATH']}"
        command = [ROOT / "tools/nginx-listen", *arguments]
        done = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def test_each_version_is_told_in_its_own_form(self):
        for version, lines in {
            "nginx version: nginx/1.18.0": BEFORE,
            "nginx version: nginx/1.22.1": BEFORE,
            "nginx version: nginx/1.25.0": BEFORE,
            "nginx version: nginx/1.25.1": SINCE,
            "nginx version: nginx/1.26.3": SINCE,
            "nginx version: nginx/1.26.3 (Debian)": SINCE,
            "nginx version: nginx/1.100.0": SINCE,
            "nginx version: openresty/1.27.1.2": SINCE,
            "nginx: command not found": BEFORE,
        }.items():
            with self.subTest(version):
                expected = [line for line in lines if HAS_IPV6 or "[::]" not in line]
                self.assertEqual(self.run_with(version), expected)

    def test_addresses_are_the_ones_given(self):
        addresses = ("127.0.0.1:8443", "[::1]:8443")
        self.assertEqual(
            self.run_with("nginx version: nginx/1.26.3", *addresses),
            ["listen 127.0.0.1:8443 ssl;", "listen [::1]:8443 ssl;", "http2 on;"],
        )

    def test_a_host_without_ipv6_listens_on_ipv4_alone(self):
        """In a root of its own without /proc: the kernel says nothing of IPv6 there."""
        command = ["unshare", "--mount", "--fork", "sh", "-c", f"umount -l /proc; exec {ROOT}/tools/nginx-listen"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"no namespaces here: {done.stderr}")
        self.assertEqual([line for line in done.stdout.splitlines() if "[::]" in line], [])
        self.assertIn("443", done.stdout)

    def test_the_file_is_written_anew_until_somebody_takes_it_over(self):
        self.run_with("nginx version: nginx/1.22.1", "--write", self.file)
        self.assertIn(BEFORE[0], self.file.read_text(encoding="utf-8"))
        self.run_with("nginx version: nginx/1.26.3", "--write", self.file)
        self.assertEqual(self.file.read_text(encoding="utf-8").splitlines()[1], SINCE[0])
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o644)
        own = "listen 8443 ssl;\n"
        self.file.write_text(own, encoding="utf-8")
        self.run_with("nginx version: nginx/1.26.3", "--write", self.file)
        self.run_with("nginx version: nginx/1.26.3", "--remove", self.file)
        self.assertEqual(self.file.read_text(encoding="utf-8"), own)

    def test_a_file_of_its_own_is_removed(self):
        self.run_with("nginx version: nginx/1.22.1", "--write", self.file)
        self.run_with("nginx version: nginx/1.22.1", "--remove", self.file)
        self.run_with("nginx version: nginx/1.22.1", "--remove", self.file)
        self.assertFalse(self.file.exists())


if __name__ == "__main__":
    unittest.main()
