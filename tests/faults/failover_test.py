#!/usr/bin/python3
"""A primary and its standby: the writable host is found, kept and followed."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import unittest

from tests.support.database_faults import RECOVERY, SETTINGS
from tests.support.fault_report import record
from tests.support.load import Load
from tests.support.stalls import elapsed
from tests.support.users import User, lift_limits
from tests.support.stack import Stack, postgres_program


class Failover(unittest.TestCase):
    """A standby of its own cluster, and a pool whose URL names the standby first."""

    def test_the_writable_host_is_found_and_a_promoted_standby_is_followed_without_a_restart(self):
        with contextlib.ExitStack() as exits:
            primary, standby, pool, someone = enter_pool_of_two_hosts(exits, SETTINGS)
            pids = pool.worker_pids()
            with Load(pool, someone.token, clients=6, pause=0.002) as load:
                load.wait_for(200)
                primary.pg_ctl("stop", "-m", "immediate")
                load.wait_for(503)
                promote(primary, standby)
                promoted = time.monotonic()
                load.wait_for(200, count=50)
                time.sleep(0.3)
                load.wait_for(200, count=50)
            bad = [one for one in load.answers if one.status != 200]
            self.assertEqual({one.status for one in bad}, {503})
            self.assertTrue(all(one.is_json_error() for one in bad))
            recovery = max([elapsed(promoted, one.ended) for one in bad if one.ended > promoted] + [0.0])
            self.assertLess(recovery, RECOVERY)
            self.assertEqual(pool.worker_pids(), pids)
            longest = max(one.took for one in load.answers)
            seen = f"{len(bad)} of {len(load.answers)} are 503, longest {longest * 1000:.0f} ms"
            record("primary lost for longer than the deadline, standby promoted", seen, recovery)
            # An UNLOGGED table is empty on a promoted standby: the windows have begun anew.
            self.assertEqual(someone.get(pool).status, 200)

    def test_a_promotion_within_the_deadline_is_waited_for_by_every_request(self):
        with contextlib.ExitStack() as exits:
            # A deadline that a promotion stays below on a busy machine.
            primary, standby, pool, someone = enter_pool_of_two_hosts(exits, {"KEYS_DEADLINE_MS": "4000"})
            self.loses_no_request_when_its_backend_is_terminated(primary, pool, someone)
            with Load(pool, someone.token, clients=16, pause=0.002, timeout=60) as load:
                load.wait_for(200)
                primary.pg_ctl("stop", "-m", "immediate")
                promote(primary, standby)
                promoted = time.monotonic()
                load.wait_for(200)
                lag = min(one.ended for one in load.answers if one.ended > promoted) - promoted
                load.wait_for(200, count=50)
            self.assertEqual(load.lost, [])
            self.assertEqual(load.statuses().keys(), {200})
            longest = max(one.took for one in load.answers)
            seen = f"{len(load.answers)} of {len(load.answers)} are 200, longest {longest * 1000:.0f} ms"
            record("primary lost, standby promoted (deadline 4,000 ms)", seen, lag)

    def loses_no_request_when_its_backend_is_terminated(self, primary, pool, someone):
        """The primary is asked again at once, before the standby."""
        with Load(pool, someone.token, clients=6, pause=0.002) as load:
            for _ in range(3):
                # Each process has connected again and answered: a lookup that is cut twice is a 503.
                pool.wait_until(lambda: primary.ready_backends() == pool.workers, what="both connections")
                load.wait_for(200, count=100)
                ended = primary.psql(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'keys_runtime'"
                )
                self.assertGreater(int(ended), 0)
            load.wait_for(200)
        self.assertEqual(load.statuses().keys(), {200})


def enter_pool_of_two_hosts(exits, settings):
    """(primary, standby, pool, user): the pool's URL names the standby first, and it has found the primary."""
    primary = exits.enter_context(Stack(settings, workers=1))
    standby = exits.enter_context(standby_of(primary))
    hosts = f"{standby},{primary.env['PGHOST']}"
    shared = {name: primary.env[name] for name in ("KEYS_JWT_SECRET_FILE", "KEYS_JWKS_FILE")}
    shared["KEYS_DATABASE_URL"] = f"host={hosts} dbname=keys user=keys_runtime target_session_attrs=read-write"
    lift_limits(primary)
    user = User(primary, tier="pro", keys=1)
    pool = exits.enter_context(Stack(settings | shared))
    pool.wait_until(lambda: user.get(pool).status == 200, what="the writable host")
    wait_for_replay(primary, standby)
    return primary, standby, pool, user


def as_postgres(command, **options):
    identity = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60, **identity, **options)


@contextlib.contextmanager
def standby_of(primary):
    """A streaming standby in a directory of its own; the directory, which is also that of its socket."""
    directory = tempfile.mkdtemp(prefix="keys-standby-", dir="/tmp")
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
    os.chmod(directory, 0o711)
    data = f"{directory}/data"
    try:
        base = [postgres_program("pg_basebackup"), "-h", primary.env["PGHOST"], "-U", "postgres", "-D", data]
        as_postgres([*base, "-R", "-c", "fast", "-X", "stream", "--no-sync"], cwd="/tmp", capture_output=True)
        with open(f"{data}/postgresql.conf", "a", encoding="ascii") as config:
            config.write(f"unix_socket_directories = '{directory}'\n")
        control = [postgres_program("pg_ctl"), "-s", "-w", "-D", data]
        as_postgres([*control, "-l", f"{directory}/log", "start"], cwd="/tmp")
        try:
            yield directory
        finally:
            as_postgres([*control, "-m", "immediate", "stop"], cwd="/tmp")
    finally:
        shutil.rmtree(directory)


def wait_for_replay(primary, standby):
    position = primary.psql("SELECT pg_current_wal_flush_lsn()")
    primary.wait_until(
        lambda: primary.psql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'", "-h", standby) == "t",
        what="the standby's replay",
    )


def promote(primary, standby):
    primary.psql("SELECT pg_promote()", "-h", standby)


if __name__ == "__main__":
    unittest.main()
