#!/usr/bin/python3
"""Random faults under load: what each user sees is what random_model.py allows, from the first second to the last.

  RANDOM_SECONDS   of the run (60; `make test-random` takes 600)
  RANDOM_SEED      of the schedule (1; `make test-random` takes one by the clock); a run that fails names it

What the clients saw stays in build/fault-run.json; tests/faults/draw_run draws it.
"""

import collections
import json
import os
import statistics
import time
import unittest

from tests.faults.random_model import Fact, Someone, Span, Witness
from tests.faults.random_run import CLIENTS, RandomRun
from tests.support import plot
from tests.support.fault_report import record
from tests.support.load import Answer
from tests.support.stack import ROOT

SECONDS = float(os.environ.get("RANDOM_SECONDS") or 60)
SEED = int(os.environ.get("RANDOM_SEED") or 1)
RESULTS = ROOT / "build" / "fault-run.json"


class NoStack:
    """Takes what users do to a database, and does nothing."""

    psql = mint = staticmethod(lambda *_arguments: "a.b.c")


class Model(unittest.TestCase):
    """That the model sees what it is there to see: each wrong answer stands beside one that differs in one point."""

    def setUp(self):
        self.user = Someone(NoStack(), "pro", "HS256", Fact(True))
        self.user.add("first", lambda: False)
        self.now = time.monotonic()

    def answer(self, status=200, rows=None, began=None, took=0.01, code="invalid_session", **more):
        key = self.user.keys[0]
        rows = [{"id": key.id, "name": "first", "revoked_at": None}] if rows is None else rows
        body = {"data": rows, "meta": {"total": len(rows)}}
        if status != 200:
            body = {"error": {"code": code, "message": "", "request_id": ""}}
        headers = {"content-type": "application/json", "retry-after": "1"} | more
        return Answer(began or time.monotonic(), took, status, headers, json.dumps(body).encode())

    def assert_wrong(self, answer, problem):
        self.assertRegex(self.user.fault_of(answer) or "nothing", problem)

    def assert_right(self, answer):
        self.assertIsNone(self.user.fault_of(answer))

    def test_a_list_has_the_users_keys_as_they_were_while_it_was_asked_for(self):
        row = {"id": self.user.keys[0].id, "name": "first", "revoked_at": None}
        self.assert_right(self.answer())
        self.assert_wrong(self.answer(rows=[]), "missing")
        self.assert_wrong(self.answer(rows=[row | {"id": "another's"}]), "somebody else")
        self.assert_wrong(self.answer(rows=[row | {"name": "second"}]), "has the name second")
        self.assert_wrong(self.answer(rows=[row | {"revoked_at": "now"}]), "revoked_at")
        before = time.monotonic()
        self.user.set(self.user.keys[0].name, "second", "", self.user.keys[0], lambda: False)
        self.assert_wrong(self.answer(), "has the name first")
        self.assert_right(self.answer(rows=[row | {"name": "second"}]))
        self.assert_right(self.answer(began=before, took=1))

    def test_a_session_that_has_ended_gets_no_list_and_a_live_one_no_refusal(self):
        before = time.monotonic()
        self.assert_wrong(self.answer(401), "live session")
        self.user.sign_out(lambda: False)
        self.assert_wrong(self.answer(), "has ended")
        self.assert_right(self.answer(401))
        self.assert_right(self.answer(began=before, took=1))
        self.assert_wrong(self.answer(401, code="expired_session"), "not invalid_session")

    def test_no_answer_no_json_and_an_error_of_ours_are_wrong(self):
        self.assert_wrong(Answer(self.now, 1.0, error="closed"), "no answer")
        self.assert_wrong(Answer(self.now, 1.0, 502, {}, b"<html>"), "no error of the API")
        self.assert_wrong(self.answer(500), "500")
        self.assert_wrong(self.answer(418), "418")
        self.assert_wrong(self.answer(429), "429 for pro")

    def judged(self, *answers, spans=()):
        witness = Witness()
        for answer in answers:
            witness.take(self.user, answer)
        return [text for _, text in witness.judge(spans)]

    def test_a_503_needs_an_outage_longer_than_patience_a_502_a_process_that_died(self):
        now = self.now

        def span(ended, **effects):  # shows for longer than this test takes
            return Span("", now, ended, after=60, **effects)

        short, long = span(now + 1.0, delays=True), span(now + 3.0, delays=True)
        self.assertRegex(self.judged(self.answer(503))[0], "503 after")
        self.assertRegex(self.judged(self.answer(503), spans=[short])[0], "503 after")
        self.assertEqual(self.judged(self.answer(503), spans=[long]), [])
        self.assertEqual(len(self.judged(self.answer(503), spans=[span(now, refuses=True, user="x")])), 1)
        self.assertEqual(self.judged(self.answer(503), spans=[span(now, refuses=True, user=self.user.id)]), [])
        self.assertRegex(self.judged(self.answer(502))[0], "502 although")
        self.assertEqual(self.judged(self.answer(502), spans=[span(now, breaks=True)]), [])
        self.assertRegex(self.judged(self.answer(504), spans=[long])[0], "504 although")
        self.assertEqual(self.judged(self.answer(504), spans=[span(now, pauses=3)]), [])
        self.assertRegex(self.judged(self.answer(took=3.5), spans=[long])[0], "after 3.50 s")
        self.assertEqual(self.judged(self.answer(took=3.5), spans=[span(now, pauses=1)]), [])
        frozen, replaced = span(now + 3.0, connects=False), span(now + 0.1, repeats=True)
        self.assertRegex(self.judged(self.answer(503), spans=[frozen])[0], "503 after")
        self.assertEqual(self.judged(self.answer(503), spans=[frozen, replaced]), [])

    def test_no_request_of_a_window_is_granted_twice_unless_the_counts_were_lost_between(self):
        first, second = {"x-ratelimit-remaining": "5", "x-ratelimit-reset": "60"}, {"x-ratelimit-remaining": "4"}
        self.assertEqual(self.judged(self.answer(**first), self.answer(**first | second)), [])
        self.assertRegex(self.judged(self.answer(**first), self.answer(**first))[0], "granted twice")
        lost = Span("", self.now, time.monotonic() + 1, empties=True)
        self.assertEqual(self.judged(self.answer(**first), self.answer(**first), spans=[lost]), [])


class RandomFaults(unittest.TestCase):
    def test_random_faults_show_nobody_anything_wrong(self):
        run = RandomRun(SEED, SECONDS)
        problems = run.play()
        plot.save(RESULTS, "timeline", **figure(run))
        seen = run.witness.seen
        statuses = collections.Counter(one.status for one in seen)
        for span in run.spans:
            print(f"{span.began - run.began:8.3f} to {span.ended - run.began:8.3f} s  {span.name}")
        again = f"again: make test-random SEED={SEED} SECONDS={SECONDS:g}"
        if problems:
            told = "\n".join(problems[:50])
            self.fail(f"{len(problems)} things are wrong with {len(seen)} answers\n{told}\n{again}")
        # Every kind of user was there, and the faults had time to show.
        self.assertLessEqual({200, 401, 429}, statuses.keys(), again)
        self.assertGreater(len(run.spans), SECONDS / 8, again)
        counts = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
        longest = max(one.took for one in seen)
        record(
            f"{len(run.spans)} random faults in {SECONDS:.0f} s, {CLIENTS} clients, seed {SEED} (deadline 2,000 ms)",
            f"none of {len(seen):,} answers is wrong ({counts}); longest {longest * 1000:,.0f} ms",
        )


def figure(run):
    """What plot.timeline draws: answers per second by status, how long they took, which faults there were."""
    width = max(0.5, run.seconds / 300)
    bins = collections.defaultdict(list)
    for seen in run.witness.seen:
        bins[int((seen.ended - run.began) / width)].append(seen)
    numbers = range(int(run.seconds / width))
    rates = {}
    for status in sorted({seen.status for seen in run.witness.seen}):
        counts = [sum(one.status == status for one in bins[number]) for number in numbers]
        rates[str(status) if status else "no answer"] = [
            (number * width, count / width) for number, count in enumerate(counts)
        ]
    waits = {"median": [], "slowest": []}
    for number in numbers:
        if took := [1000 * one.took for one in bins[number]]:
            waits["median"].append((number * width, statistics.median(took)))
            waits["slowest"].append((number * width, max(took)))
    colours = dict(zip(("200", "503", "401", "429", "502"), (plot.COLOURS[n] for n in (2, 1, 0, 3, 4))))
    marks = [(one.began - run.began, one.ended - run.began, one.name) for one in run.spans]
    return {
        "title": f"{len(run.witness.seen):,} requests of {CLIENTS} clients while things break (seed {run.seed})",
        "panels": [
            {"label": "answers per second", "series": rates, "colours": colours},
            {"label": "milliseconds to an answer", "series": waits, "log": True},
        ],
        "marks": sorted(marks),
        "rows": True,
    }


if __name__ == "__main__":
    unittest.main()
