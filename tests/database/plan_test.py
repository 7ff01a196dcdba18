#!/usr/bin/python3
"""The plan of the statement: index after index, whatever the statistics say, and users in the order of the array."""

import re
import unittest

from tests.support.cluster import Cluster
from tests.support.stack import ROOT

STATEMENT = re.sub(r"--.*", "", (ROOT / "sql" / "list_keys.sql").read_text(encoding="utf-8"))
INSERT_USERS = """
INSERT INTO auth.users (id) SELECT lpad(n::text, 32, '0')::uuid FROM generate_series(1, {count}) AS n;
INSERT INTO auth.sessions (id, user_id) SELECT id, id FROM auth.users;
INSERT INTO accounts (user_id, tier) SELECT id, 'pro' FROM auth.users;
INSERT INTO api_keys (user_id, key_prefix, key_hash, name)
    SELECT id, 'sk_live_aaaa', sha256(id::text::bytea), 'one' FROM auth.users;"""


def plan(cluster):
    return cluster.psql(
        f"PREPARE s AS {STATEMENT};\nEXPLAIN (COSTS off) EXECUTE s ('{{}}', '{{}}', '{{}}');", user="keys_runtime"
    )


class PlanTest(unittest.TestCase):
    def test_it_is_the_same_without_rows_with_one_and_with_thousands_analyzed_or_not(self):
        with Cluster() as cluster:
            cluster.apply_sql()
            plans = {"no rows": plan(cluster)}
            cluster.psql("ANALYZE")
            plans["no rows, analyzed"] = plan(cluster)
            for count in (1, 5000):
                cluster.psql(
                    "TRUNCATE auth.users, auth.sessions, accounts, api_keys;" + INSERT_USERS.format(count=count)
                )
                plans[f"{count} rows"] = plan(cluster)
                cluster.psql("ANALYZE")
                plans[f"{count} rows, analyzed"] = plan(cluster)
            for what, found in plans.items():
                with self.subTest(what, plan=found):
                    # Of tiers there are two rows, by a constraint, and all of them are wanted.
                    found = found.replace("->  Seq Scan on tiers\n", "", 1)
                    self.assertNotRegex(found, "Seq Scan|Hash|Merge|Sort|Materialize|Memoize")
                    scans = re.findall(r"(Index (?:Only )?Scan using \w+) on (\w+)[^\n]*\n\s+(Index Cond)?", found)
                    self.assertEqual({condition for _, _, condition in scans}, {"Index Cond"})
                    self.assertEqual(
                        [table for _, table, _ in scans],
                        "sessions users tiers accounts api_keys".split(),
                    )
                    # The outer side of the only join: so counts are locked in the order of the users.
                    self.assertRegex(found, r"Nested Loop\n\s+->  Function Scan on asked\n")

    def test_row_security_does_not_change_it(self):
        with Cluster() as cluster:
            cluster.apply_sql()
            cluster.psql(INSERT_USERS.format(count=1))
            tables = cluster.psql("SELECT oid::regclass FROM pg_class WHERE relrowsecurity").splitlines()
            self.assertEqual(set(tables), {"tiers", "default_tier", "accounts", "api_keys", "request_counts"})
            with_it = plan(cluster)
            cluster.psql("".join(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;" for table in tables))
            self.assertEqual(with_it, plan(cluster))


if __name__ == "__main__":
    unittest.main()
