#!/usr/bin/python3
"""The sample alerts: about metrics and units that exist, each with its heading in the runbook."""

import re
import shutil
import subprocess
import unittest

from tests.support.stack import ROOT

ALERTS = (ROOT / "tools/alerts.yml").read_text(encoding="utf-8")


def alerts():
    """Name -> text of each."""
    return dict(re.findall(r"^      - alert: (\w+)\n((?:.+\n|\n(?=        ))*)", ALERTS, re.M))


RUNBOOK = ROOT / "tools/RUNBOOK.md"


class AlertsTest(unittest.TestCase):
    @unittest.skipUnless(shutil.which("promtool"), "promtool is not here; its package would start a Prometheus")
    def test_prometheus_accepts_them(self):
        subprocess.run(["promtool", "check", "rules", "tools/alerts.yml"], cwd=ROOT, check=True, capture_output=True)

    def test_each_is_whole(self):
        self.assertEqual(len(alerts()), ALERTS.count("alert:"))
        for name, text in alerts().items():
            with self.subTest(name):
                for part in (
                    r"^        expr: \S",
                    r"^        labels: \{severity: (page|ticket)\}$",
                    r"^          summary: ",
                ):
                    self.assertRegex(text, re.compile(part, re.M))

    @unittest.skipUnless(RUNBOOK.exists(), "the runbook is yet to come")
    def test_each_has_a_heading_in_the_runbook(self):
        headings = re.findall(r"^### (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.M)
        self.assertEqual(set(alerts()) - set(headings), set())

    def test_they_use_metrics_that_exist(self):
        code = (ROOT / "handler/api/metrics.cc").read_text(encoding="utf-8")
        for name in set(re.findall(r"\bkeys_[a-z_]+\b", ALERTS)):
            with self.subTest(name):
                self.assertIn(f'"{re.sub(r"_(bucket|sum|count)$", "", name)}', code)

    def test_they_name_units_and_codes_that_exist(self):
        for unit in re.findall(r'name="([^"]+)"', ALERTS):
            with self.subTest(unit):
                self.assertTrue((ROOT / "tools/systemd" / f"{unit}.in").exists())
        codes = (ROOT / "handler/api/api_error.cc").read_text(encoding="utf-8")
        for code in re.findall(r'code="([^"]+)"', ALERTS):
            with self.subTest(code):
                self.assertIn(f'"{code}"', codes)


if __name__ == "__main__":
    unittest.main()
