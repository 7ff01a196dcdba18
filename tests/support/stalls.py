"""How long this machine stood still: no test blames the service for that.

A thread sleeps 20 ms, over and over, and notes when it wakes up late. A service that is slow delays nobody's sleep.
For milliseconds, watch_processor sleeps at real-time priority, which no other process delays.
"""

import os
import threading
import time

PAUSE = 0.02  # seconds
LATE = 0.1  # seconds; less is a busy machine's everyday

moments = []  # (when it woke up, how late)


def watch(late_ones, pause, late, has_ended=lambda: False):
    """Sleeps `pause` seconds, over and over, and adds (when it woke up, how late) where that is over `late` seconds."""
    while not has_ended():
        due = time.monotonic() + pause
        time.sleep(pause)
        woke = time.monotonic()
        if woke - due > late:
            late_ones.append((woke, woke - due))


threading.Thread(target=watch, args=(moments, PAUSE, LATE), daemon=True).start()


def watch_processor(processor, pipe):
    """In a process of its own, until it receives a message: sends [(when it woke up, how late)] of this processor."""
    os.sched_setaffinity(0, {processor})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    late_ones = []
    pipe.send("ready")
    watch(late_ones, 0.002, 0.005, pipe.poll)
    pipe.recv()
    pipe.send(late_ones)


def stood_still(began, ended, late=None):
    """Seconds within this time (of time.monotonic())."""
    late = list(moments) if late is None else late
    return sum(max(0.0, min(woke, ended) - max(woke - by, began)) for woke, by in late)


def elapsed(began, ended=None):
    """Seconds that passed, but for those in which the machine stood still."""
    ended = time.monotonic() if ended is None else ended
    return ended - began - stood_still(began, ended)
