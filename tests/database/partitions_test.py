#!/usr/bin/python3
"""Counting in partitions: sql/partition_counts.sql."""

import pathlib
import unittest

from tests.support.cluster import Cluster
from tests.support.stack import ROOT

USERS = [f"0a0a0a0a-0000-4000-8000-{number:012x}" for number in range(40)]


class PartitionsTest(unittest.TestCase):
    def counts_in_partitions(self, cluster, administrator):
        """Divides the counts of a cluster with sql/ on it, twice, and asks for keys."""
        for _ in range(2):
            done = cluster.run_psql("-f", "sql/partition_counts.sql", user=administrator)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        token = {}
        for user in USERS:
            session = "5e550000" + user[8:]
            cluster.psql(f"INSERT INTO auth.users (id) VALUES ('{user}')")
            cluster.psql(f"INSERT INTO auth.sessions (id, user_id) VALUES ('{session}', '{user}')")
            token[user] = cluster.mint("--user", user, "--session", session)
        self.assertEqual({cluster.ask(one)[0] for one in token.values()}, {200})
        # The last one's minute has just begun.
        self.assertEqual([cluster.ask(token[USERS[-1]])[0] for _ in range(10)], [200] * 9 + [429])
        partitions = cluster.psql("SELECT count(DISTINCT tableoid), count(*) FROM request_counts")
        self.assertEqual(partitions, f"8|{len(USERS)}")
        cluster.psql("UPDATE request_counts SET minute_ends = now(), day_ends = now()")
        cluster.psql((ROOT / "sql" / "sweep.sql").read_text(encoding="utf-8"), user="keys_sweeper")
        self.assertEqual(cluster.psql("SELECT count(*) FROM request_counts"), "0")
        self.assertEqual(cluster.apply_sql(user=administrator), "")

    def test_requests_are_counted_in_partitions_as_in_one_table(self):
        with Cluster() as cluster:
            cluster.apply_sql()
            self.counts_in_partitions(cluster, administrator=None)

    def test_on_supabase_the_rest_interface_reaches_no_partition(self):
        with Cluster(owner="supabase_admin") as cluster:
            for name in ("supabase_project.sql", "supabase_auth.sql"):
                cluster.psql(pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8"))
            cluster.apply_sql(user="postgres")
            self.counts_in_partitions(cluster, administrator="postgres")
            reached = cluster.psql(
                """
                SELECT r.rolname, c.oid::regclass FROM pg_roles r, pg_class c
                WHERE r.rolname IN ('anon', 'authenticated') AND c.relname LIKE 'request_counts%' AND c.relkind IN ('r', 'p')
                    AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"""
            )
            self.assertEqual(reached, "")
            self.assertEqual(cluster.psql("SELECT count(*) FROM pg_class WHERE relname LIKE 'request_counts\\__'"), "8")


if __name__ == "__main__":
    unittest.main()
