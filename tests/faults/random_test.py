#!/usr/bin/python3
"""Random faults under load: what each user sees is what random_model.py allows, from the first second to the last.

  RANDOM_SECONDS   of the run (60; `make test-random` takes 600)
  RANDOM_SEED      of the schedule (by the clock); a run that fails names it

What the clients saw stays in build/fault-run.json; tests/faults/draw_run draws it.
"""

import collections
import os
import statistics
import time
import unittest

from tests.faults.random_run import CLIENTS, RandomRun
from tests.support import plot
from tests.support.fault_report import record
from tests.support.stack import ROOT

SECONDS = float(os.environ.get("RANDOM_SECONDS") or 60)
SEED = int(os.environ.get("RANDOM_SEED") or time.time())
RESULTS = ROOT / "build" / "fault-run.json"


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
            f"{len(run.spans)} random faults in {SECONDS:.0f} s, {CLIENTS} clients, seed {SEED}",
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
