#!/usr/bin/python3
"""What --check says of a database that the service cannot serve from, although the statement runs."""

import unittest

from tests.support.cluster import Cluster
from tests.support.pgbouncer import MISSING, PgBouncer

GOOD = (0, "")
# What hides rows, what undoes it, and what the complaint names.
HIDDEN = (
    ("DROP POLICY tiers_for_the_service ON tiers", "apply", "public.tiers from keys_runtime"),
    ("DROP POLICY accounts_for_the_service ON accounts", "apply", "public.accounts from keys_runtime"),
    ("DROP POLICY api_keys_for_the_service ON api_keys", "apply", "public.api_keys from keys_runtime"),
    ("ALTER POLICY api_keys_for_the_service ON api_keys TO anybody", "apply", "public.api_keys from keys_runtime"),
    (
        "ALTER POLICY api_keys_for_the_service ON api_keys USING (name = 'mine')",
        "apply",
        "public.api_keys from keys_runtime",
    ),
    (
        "DROP POLICY request_counts_for_the_service ON request_counts;"
        "CREATE POLICY reading_alone ON request_counts FOR SELECT TO keys_runtime USING (true)",
        "apply",
        "public.request_counts from keys_runtime",
    ),
    (
        "CREATE POLICY also ON accounts AS RESTRICTIVE USING (user_id IS NULL)",
        "DROP POLICY also ON accounts",
        "public.accounts from keys_runtime",
    ),
    (
        "ALTER TABLE auth.sessions ENABLE ROW LEVEL SECURITY; ALTER VIEW keys_private.live_sessions OWNER TO anybody",
        "ALTER TABLE auth.sessions DISABLE ROW LEVEL SECURITY; ALTER VIEW keys_private.live_sessions OWNER TO postgres",
        "auth.sessions from anybody",
    ),
)


def setUpModule():
    global cluster
    cluster = unittest.enterModuleContext(Cluster())
    cluster.apply_sql()
    cluster.psql(
        "CREATE ROLE anybody; GRANT USAGE ON SCHEMA auth TO anybody; GRANT SELECT ON auth.users, auth.sessions TO anybody"
    )


class CheckTest(unittest.TestCase):
    def test_a_good_database_is_good(self):
        self.assertEqual(cluster.check(cluster.url()), GOOD)

    def test_tables_whose_rows_are_hidden_from_the_role_are_named(self):
        for fault, mended, named in HIDDEN:
            with self.subTest(fault):
                cluster.psql(fault)
                status, complaints = cluster.check(cluster.url())
                if mended == "apply":
                    cluster.apply_sql()
                else:
                    cluster.psql(mended)
                self.assertEqual(status, 1)
                self.assertIn(f"database: row security hides the rows of {named}; apply sql/ again", complaints)
                cluster.psql("DROP POLICY IF EXISTS reading_alone ON request_counts")
                self.assertEqual(cluster.check(cluster.url()), GOOD)

    def test_row_security_that_the_role_passes_hides_nothing(self):
        cluster.psql("DROP POLICY api_keys_for_the_service ON api_keys; ALTER ROLE keys_runtime BYPASSRLS")
        try:
            self.assertEqual(cluster.check(cluster.url()), GOOD)
        finally:
            cluster.psql("ALTER ROLE keys_runtime NOBYPASSRLS")
            cluster.apply_sql()

    def test_a_policy_for_everybody_shows_the_rows(self):
        cluster.psql("ALTER POLICY api_keys_for_the_service ON api_keys TO PUBLIC")
        try:
            self.assertEqual(cluster.check(cluster.url()), GOOD)
        finally:
            cluster.apply_sql()

    def test_a_database_without_the_tier_of_most_users_is_refused(self):
        with Cluster() as empty:
            empty.apply_sql()
            empty.psql("SET session_replication_role = replica; DELETE FROM tiers WHERE name = 'free'")
            status, complaints = empty.check(empty.url())
            self.assertEqual(status, 1)
            self.assertIn("database: the table public.tiers shows no tier 'free'", complaints)

    def test_an_encoding_that_cannot_give_utf_8_is_refused_with_what_to_do(self):
        for encoding in ("SQL_ASCII", "LATIN1"):
            with self.subTest(encoding):
                name = f"in_{encoding.lower()}"
                cluster.psql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
                cluster.apply_sql(database=name)
                status, complaints = cluster.check(cluster.url(database=name))
                self.assertEqual(status, 1)
                self.assertIn(
                    f"database: its encoding is {encoding}, which cannot give every text as UTF-8", complaints
                )
                self.assertIn("createdb --template=template0 --encoding=UTF8", complaints)

    @unittest.skipIf(MISSING, MISSING)
    def test_a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_is_good(self):
        server = f"host={cluster.directory} port={cluster.port}"
        for lines in ([], ["server_round_robin = 1"], ["default_pool_size = 1"]):
            for mode in ("session", "transaction"):
                with self.subTest(mode=mode, lines=lines), PgBouncer(server, mode, lines) as pooler:
                    for _ in range(3):  # with backends that the pooler has already, too
                        found = cluster.check(pooler.url())
                        if mode == "session":
                            self.assertEqual(found, GOOD)
                        else:
                            self.assertEqual(found[0], 1)
                            self.assertIn("database: a pooler in transaction mode is between", found[1])


if __name__ == "__main__":
    unittest.main()
