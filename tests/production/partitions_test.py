#!/usr/bin/python3
"""Counting in partitions, as the README says how to ("When one machine is not enough")."""

import re
import textwrap
import unittest

from tests.production.cluster import Cluster
from tests.stack import ROOT

USERS = [f"0a0a0a0a-0000-4000-8000-{number:012x}" for number in range(40)]


def from_the_readme():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## When one machine is not enough")[1]
    return textwrap.dedent(re.search(r"```sql\n(.*?)```", section, re.S)[1])


class PartitionsTest(unittest.TestCase):
    def test_requests_are_counted_in_partitions_as_in_one_table(self):
        with Cluster() as cluster:
            cluster.apply_sql()
            cluster.psql(from_the_readme())
            self.assertEqual(cluster.apply_sql(), "")
            for user in USERS:
                session = "5e550000" + user[8:]
                cluster.psql(f"INSERT INTO auth.users (id) VALUES ('{user}')")
                cluster.psql(f"INSERT INTO auth.sessions (id, user_id) VALUES ('{session}', '{user}')")
            for user in USERS:
                self.assertEqual(cluster.ask(cluster.mint("--user", user, "--session", "5e550000" + user[8:]))[0], 200)
            token = cluster.mint("--user", USERS[0], "--session", "5e550000" + USERS[0][8:])
            self.assertEqual([cluster.ask(token)[0] for _ in range(10)], [200] * 9 + [429])
            partitions = cluster.psql("SELECT count(DISTINCT tableoid), count(*) FROM request_counts")
            self.assertEqual(partitions, f"8|{len(USERS)}")
            cluster.psql("UPDATE request_counts SET minute_ends = now(), day_ends = now()")
            cluster.psql((ROOT / "sql" / "sweep.sql").read_text(encoding="utf-8"), user="keys_sweeper")
            self.assertEqual(cluster.psql("SELECT count(*) FROM request_counts"), "0")


if __name__ == "__main__":
    unittest.main()
