#!/usr/bin/python3
"""The sweep of ended counts: in bounded statements, each a transaction of its own."""

import unittest

from tests.support.cluster import Cluster

ROWS = """
TRUNCATE request_counts;
INSERT INTO request_counts
SELECT lpad(n::text, 32, '0')::uuid, now() + ends, now() + ends, 1, 1, 10, 1000, 1
FROM generate_series(1, {rows}) AS n, LATERAL (SELECT CASE WHEN n % 10 = 0 THEN interval '1 h' ELSE '-1 s' END) AS v(ends)"""


def setUpModule():
    global cluster
    cluster = unittest.enterModuleContext(Cluster())
    cluster.apply_sql()


class SweepTest(unittest.TestCase):
    def sweep(self, *options):
        done = cluster.run_psql(*options, "-f", "sql/sweep.sql", user="keys_sweeper")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_each_statement_is_for_32_pages_and_all_together_for_each_page_once(self):
        cluster.psql(ROWS.format(rows=10000))
        pages = int(cluster.psql("SELECT pg_relation_size('request_counts') / current_setting('block_size')::int"))
        statements = self.sweep("-e").split("DELETE FROM request_counts")[1:]
        expected = [(page, page + 32) for page in range(0, pages, 32)]
        self.assertGreater(len(expected), 5)
        for statement, (first, end) in zip(statements, expected, strict=True):
            self.assertIn(f"ctid >= '({first},0)' AND ctid < '({end},0)'", statement)
        self.assertEqual(cluster.psql("SELECT count(*), min(day_ends) > now() FROM request_counts"), "1000|t")
        plan = cluster.psql(f"EXPLAIN DELETE FROM request_counts{statements[0]}")
        self.assertRegex(plan, "Tid Range Scan")
        self.assertNotRegex(plan, "Seq Scan|Index")

    def test_it_survives_a_statement_timeout_of_its_role_that_is_shorter_than_the_sweep(self):
        # A millisecond for each row: the whole takes 5 s, a statement a twentieth of it.
        cluster.psql(
            """
            ALTER TABLE request_counts SET (fillfactor = 10);
            CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END $$;
            CREATE TRIGGER slow BEFORE DELETE ON request_counts FOR EACH ROW EXECUTE FUNCTION slow();
            ALTER ROLE keys_sweeper SET statement_timeout = '4500ms'"""
        )
        try:
            cluster.psql(ROWS.format(rows=5500))
            self.sweep()
            self.assertEqual(cluster.psql("SELECT count(*) FROM request_counts"), "550")
            done = cluster.run_psql("-c", "SELECT pg_sleep(10)", user="keys_sweeper")
            self.assertIn("canceling statement due to statement timeout", done.stderr)
        finally:
            cluster.psql(
                """
                ALTER ROLE keys_sweeper RESET statement_timeout;
                DROP FUNCTION slow CASCADE;
                ALTER TABLE request_counts SET (fillfactor = 50)"""
            )


if __name__ == "__main__":
    unittest.main()
