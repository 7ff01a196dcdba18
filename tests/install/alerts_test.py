#!/usr/bin/python3
"""The alerts, their runbook and the board: whole, about metrics and units that exist, leading to one another."""

import json
import re
import subprocess
import unittest

from tests.support.stack import ROOT

ALERTS = (ROOT / "tools/alerts.yml").read_text(encoding="utf-8")
RULES = (ROOT / "tests/install/alerts_rules.yml").read_text(encoding="utf-8")
BOARD = json.loads((ROOT / "tools/grafana-dashboard.json").read_text(encoding="utf-8"))
# What others bring: node_exporter, and the text file of RUNBOOK.md.
FOREIGN = {"keys_certificate_not_after_timestamp_seconds"}


def alerts():
    """Name -> text of each."""
    return dict(re.findall(r"^      - alert: (\w+)\n((?:.+\n|\n(?=        ))*)", ALERTS, re.M))


def headings(page):
    """GitHub's anchor -> text below each heading of a page."""
    parts = re.split(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)[1:]
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in parts[::2]]
    return dict(zip(anchors, parts[1::2], strict=True))


def metrics_in_code():
    code = (ROOT / "handler/api/metrics.cc").read_text(encoding="utf-8")
    return set(re.findall(r'"(keys_[a-z_]+)"', code))


def metrics_in(text):
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bkeys_[a-z_]+\b", text)} - FOREIGN


def board_expressions():
    return [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]] + [
        annotation["expr"] for annotation in BOARD["annotations"]["list"] if "expr" in annotation
    ]


class AlertsTest(unittest.TestCase):
    def promtool(self, *arguments):
        done = subprocess.run(["promtool", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_prometheus_accepts_them(self):
        self.promtool("check", "rules", "tools/alerts.yml")

    def test_written_series_at_the_edges_fire_and_do_not(self):
        self.promtool("test", "rules", "tests/install/alerts_rules.yml")

    def test_each_has_a_series_that_fires_and_one_that_does_not(self):
        for name in alerts():
            values = re.findall(rf'alertname="{name}".*value: (\d)', RULES)
            with self.subTest(name):
                self.assertLessEqual({"0", "1"}, set(values))

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

    def test_each_leads_to_its_heading_in_the_runbook(self):
        for name, text in alerts().items():
            with self.subTest(name):
                path, anchor = re.search(r'^          runbook_url: "(.*)#(.*)"$', text, re.M).groups()
                below = headings(ROOT / "tools" / path)[anchor]
                self.assertEqual(anchor, name.lower())
                for item in ("Symptom", "Panel", "Check", "Do"):
                    self.assertIn(f"- **{item}**:", below)

    def test_links_within_the_runbook_lead_to_headings(self):
        page = ROOT / "tools/RUNBOOK.md"
        for anchor in re.findall(r"\]\(#([^)]+)\)", page.read_text(encoding="utf-8")):
            with self.subTest(anchor):
                self.assertIn(anchor, headings(page))

    def test_they_use_metrics_that_exist(self):
        self.assertLessEqual(metrics_in(ALERTS), metrics_in_code())

    def test_they_name_units_and_codes_that_exist(self):
        for unit in re.findall(r'name="([^"]+)"', ALERTS):
            with self.subTest(unit):
                self.assertTrue((ROOT / "tools/systemd" / f"{unit}.in").exists())
        codes = (ROOT / "handler/api/api_error.cc").read_text(encoding="utf-8")
        for code in re.findall(r'code="([^"]+)"', ALERTS):
            with self.subTest(code):
                self.assertIn(f'"{code}"', codes)


class BoardTest(unittest.TestCase):
    def test_it_shows_every_metric_and_no_other(self):
        self.assertEqual(metrics_in(" ".join(board_expressions())), metrics_in_code())

    def test_each_rule_that_refuses_has_a_counter(self):
        code = (ROOT / "handler/api/list_keys.cc").read_text(encoding="utf-8")
        rules = re.findall(r'Refuse(?:Over)?\([^;]*?"(\w+)"', code)
        self.assertGreater(len(rules), 5)
        metrics = (ROOT / "handler/api/metrics.cc").read_text(encoding="utf-8")
        self.assertEqual([rule for rule in rules if f'"{rule}"' not in metrics], [])

    def test_it_can_be_imported_as_it_is(self):
        variables = {variable["name"]: variable["type"] for variable in BOARD["templating"]["list"]}
        self.assertEqual(variables, {"datasource": "datasource", "instance": "query"})
        self.assertNotIn("__inputs", BOARD)
        for panel in BOARD["panels"]:
            for part in (panel, *panel["targets"]):
                self.assertEqual(part["datasource"], {"type": "prometheus", "uid": "${datasource}"})
        for expression in board_expressions():
            with self.subTest(expression):
                # What node_exporter shows has the instances of another job.
                self.assertEqual(bool(metrics_in(expression)), '{instance=~"$instance"}' in expression)

    def test_panels_do_not_overlap(self):
        self.assertEqual([panel["id"] for panel in BOARD["panels"]], list(range(1, len(BOARD["panels"]) + 1)))
        cells = set()
        for panel in BOARD["panels"]:
            grid = panel["gridPos"]
            for x in range(grid["x"], grid["x"] + grid["w"]):
                for y in range(grid["y"], grid["y"] + grid["h"]):
                    self.assertNotIn((x, y), cells)
                    self.assertLess(x, 24)
                    cells.add((x, y))

    def test_the_runbook_names_panels_that_exist(self):
        titles = {str(panel["id"]): panel["title"] for panel in BOARD["panels"]}
        page = (ROOT / "tools/RUNBOOK.md").read_text(encoding="utf-8")
        found = re.findall(r"\*\*Panel\*\*: \[(.+)\]\(grafana-dashboard.json\), `/d/(.+)\?viewPanel=(\d+)`", page)
        self.assertEqual(len(found), page.count("**Panel**"))
        for title, uid, number in found:
            with self.subTest(title):
                self.assertEqual((uid, title), (BOARD["uid"], titles[number]))


if __name__ == "__main__":
    unittest.main()
