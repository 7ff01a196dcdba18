#!/usr/bin/python3
"""Two hosts on one database: exact limits across both, and a standby promoted under load.

Each "host" is a whole stack (nginx and pool) whose KEYS_DATABASE_URL names the primary and the standby.
"""

import collections
import contextlib
import threading
import time
import unittest

from tests.support.load import Load
from tests.support.users import counter
from tests.support.cluster import Cluster
from tests.support.stack import Stack

FREE = "0b0b0b0b-0000-4000-8000-00000000000b"
LATER = "0d0d0d0d-0000-4000-8000-00000000000d"
PRO = "0c0c0c0c-0000-4000-8000-00000000000c"
DEADLINE_S = 2
WORKERS = 2
# The standby is promoted at once; what is left is noticing and connecting.
OUTAGE_S = 10


def session_of(user):
    return "5e550000" + user[8:]


class HostsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        hba = "local all all trust\nlocal replication all trust\n"
        cls.primary = cls.enterClassContext(Cluster(settings={"wal_level": "replica"}, hba=hba))
        cls.primary.apply_sql()
        for user, tier in ((FREE, "free"), (LATER, "free"), (PRO, "pro")):
            cls.primary.psql(
                f"""
                INSERT INTO auth.users (id) VALUES ('{user}');
                INSERT INTO auth.sessions (id, user_id) VALUES ('{session_of(user)}', '{user}');
                INSERT INTO public.accounts (user_id, tier) VALUES ('{user}', '{tier}');
                INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name)
                VALUES ('{user}', 'sk_live_aaaa', sha256('{user}'), 'One');"""
            )
        cls.standby = cls.enterClassContext(Cluster(settings={"wal_level": "replica"}, hba=hba, copy_of=cls.primary))
        for cluster in (cls.primary, cls.standby):
            cluster.directory.chmod(0o755)
        # Two directories and two ports: libpq pairs them in order.
        url = (
            "postgresql://keys_runtime@/postgres"
            f"?host={cls.primary.directory},{cls.standby.directory}&port={cls.primary.port},{cls.standby.port}"
            "&target_session_attrs=read-write"
        )
        cls.primary.environment("")
        secret = cls.primary.directory / "secret"
        secret.chmod(0o644)
        settings = {
            "KEYS_DATABASE_URL": url,
            "KEYS_JWT_SECRET_FILE": str(secret),
            "KEYS_DEADLINE_MS": str(DEADLINE_S * 1000),
        }
        cls.hosts = [cls.enterClassContext(Stack(settings=settings, workers=WORKERS)) for _ in range(2)]
        cls.tokens = {
            user: cls.hosts[0].mint("--user", user, "--session", session_of(user), "--key", str(secret))
            for user in (FREE, LATER, PRO)
        }

    def setUp(self):
        for host in self.hosts:
            host.wait_until(lambda host=host: counter(host, "keys_database_connected") == WORKERS, what="the pool")

    def test_1_a_limit_is_exact_across_hosts(self):
        statuses = collections.Counter()
        lock = threading.Lock()

        def ask(host):
            for _ in range(8):
                status = host.get(token=self.tokens[FREE]).status
                with lock:
                    statuses[status] += 1

        threads = [threading.Thread(target=ask, args=(host,)) for host in self.hosts for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(statuses, {200: 10, 429: 22})

    def test_2_a_standby_promoted_under_load_is_followed_by_every_host(self):
        with contextlib.ExitStack() as exits:
            # Slowly: a pro user has 1,000 a minute.
            loads = [exits.enter_context(Load(host, self.tokens[PRO], clients=1, pause=0.15)) for host in self.hosts]
            for load in loads:
                load.wait_for(200)
            replicated = self.primary.psql("SELECT pg_current_wal_lsn()")
            Stack.wait_until(
                lambda: self.standby.psql(f"SELECT pg_last_wal_replay_lsn() >= '{replicated}'") == "t",
                what="the standby",
            )
            gone = time.monotonic()
            self.primary.stop("immediate")
            self.standby.promote()
            for host, load in zip(self.hosts, loads, strict=True):
                load.wait_for(200, count=1, timeout=30)
                Stack.wait_until(
                    lambda host=host: counter(host, "keys_database_connected") == WORKERS, what="every process"
                )
            # And from then on nothing else.
            back = time.monotonic()
            for load in loads:
                load.wait_for(200, timeout=30)
        for load in loads:
            self.assertEqual({one.status for one in load.answers if one.ended < gone}, {200})
            after = [one for one in load.answers if one.ended >= gone]
            self.assertLessEqual({one.status for one in after}, {200, 503}, "a promotion is a 503 for a while")
            refused = [one.ended for one in after if one.status == 503]
            if refused:
                self.assertLess(max(refused) - gone, OUTAGE_S)
            self.assertEqual({one.status for one in load.since(back)}, {200})

    def test_3_limits_are_exact_at_the_new_primary(self):
        # The hosts keep answering 429 to FREE until its window ends, so another user asks.
        statuses = collections.Counter(
            host.get(token=self.tokens[LATER]).status for _ in range(6) for host in self.hosts
        )
        self.assertEqual(statuses, {200: 10, 429: 2})


if __name__ == "__main__":
    unittest.main()
