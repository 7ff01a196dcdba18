"""How long this machine stood still: no test blames the service for that.

A thread sleeps 20 ms, over and over, and notes when it wakes up late. A service that is slow delays nobody's sleep.
"""

import threading
import time

PAUSE = 0.02  # seconds
LATE = 0.1  # seconds; less is a busy machine's everyday

moments = []  # (when it woke up, how late)


def watch():
    while True:
        due = time.monotonic() + PAUSE
        time.sleep(PAUSE)
        woke = time.monotonic()
        if woke - due > LATE:
            moments.append((woke, woke - due))


threading.Thread(target=watch, daemon=True).start()


def stood_still(began, ended):
    """Seconds within this time (of time.monotonic())."""
    return sum(max(0.0, min(woke, ended) - max(woke - late, began)) for woke, late in list(moments))


def elapsed(began, ended=None):
    """Seconds that passed, but for those in which the machine stood still."""
    ended = time.monotonic() if ended is None else ended
    return ended - began - stood_still(began, ended)
