#!/usr/bin/python3
"""Least privilege in the database: keys_runtime runs the statement, keys_sweeper sweeps; all else is refused."""

import unittest

from tests.support.cluster import ROOT, Cluster

USER = "0a0a0a0a-0000-4000-8000-00000000000a"
SESSION = "5e550000-0000-4000-8000-00000000000a"
STATEMENT = (ROOT / "sql" / "list_keys.sql").read_text(encoding="utf-8")
TABLES = (
    "public.tiers",
    "public.default_tier",
    "public.accounts",
    "public.api_keys",
    "public.request_counts",
    "auth.users",
    "auth.sessions",
)


def setUpModule():
    global cluster
    cluster = unittest.enterModuleContext(Cluster())
    cluster.apply_sql()
    cluster.psql(
        f"""
        INSERT INTO auth.users (id) VALUES ('{USER}');
        INSERT INTO auth.sessions (id, user_id) VALUES ('{SESSION}', '{USER}');
        INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name)
        VALUES ('{USER}', 'sk_live_aaaa', sha256('aaaa'), 'One');
        CREATE TABLE public.somebody_elses (secret text);
        CREATE ROLE anybody LOGIN;
        CREATE DATABASE other;"""
    )
    cluster.psql(
        "CREATE TABLE public.in_another_database (secret text); SELECT lo_from_bytea(4711, 'secret')", database="other"
    )
    cluster.psql("SELECT lo_from_bytea(4711, 'secret')")


class RolesTest(unittest.TestCase):
    def refused(
        self, role, sql, why="permission denied|must be owner|must be superuser|must have", database="postgres"
    ):
        with self.subTest(role=role, sql=sql):
            done = cluster.run_psql("-c", sql, user=role, database=database)
            self.assertNotEqual(done.returncode, 0, f"allowed: {sql}")
            self.assertRegex(done.stderr, why)

    def rights(self, role):
        """Everything the role may do to any relation outside the catalogs, by table or by column."""
        return set(
            cluster.psql(
                f"""
            SELECT c.oid::regclass || ' ' || r.name || coalesce(' ' || a.attname, '')
            FROM pg_class c CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('REFERENCES')) r(name)
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relkind IN ('r', 'v', 'p', 'm', 'f') AND has_column_privilege('{role}', c.oid, a.attnum, r.name)
                AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
            UNION SELECT c.oid::regclass || ' ' || r.name
            FROM pg_class c CROSS JOIN (VALUES ('DELETE'), ('TRUNCATE'), ('TRIGGER')) r(name)
            WHERE c.relkind IN ('r', 'v', 'p', 'm', 'f') AND has_table_privilege('{role}', c.oid, r.name)
                AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
            """
            ).splitlines()
        )

    def test_keys_runtime_runs_the_statement(self):
        done = cluster.run_psql(
            "-f",
            "-",
            user="keys_runtime",
            sql=f"PREPARE s AS {STATEMENT};\nEXECUTE s ('{{{USER}}}', '{{{SESSION}}}', '{{1}}');",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("sk_live_aaaa", done.stdout)

    def test_check_runs_the_statement_for_nobody_and_tells_what_keeps_it_from_running(self):
        counted = cluster.psql("SELECT count(*), sum(minute_count) FROM request_counts")
        self.assertEqual(cluster.check(cluster.url()), (0, ""))
        self.assertEqual(cluster.psql("SELECT count(*), sum(minute_count) FROM request_counts"), counted)
        for fault, mended, complaint in (
            (
                "REVOKE SELECT ON tiers FROM keys_runtime",
                "GRANT SELECT ON tiers TO keys_runtime",
                "permission denied for table tiers",
            ),
            (
                "ALTER ROLE keys_runtime SET default_transaction_read_only = on",
                "ALTER ROLE keys_runtime RESET default_transaction_read_only",
                "cannot execute SELECT in a read-only transaction",
            ),
            (
                "ALTER TABLE tiers RENAME TO levels",
                "ALTER TABLE levels RENAME TO tiers",
                'relation "public.tiers" does not exist',
            ),
        ):
            with self.subTest(fault):
                cluster.psql(fault)
                try:
                    status, complaints = cluster.check(cluster.url())
                finally:
                    cluster.psql(mended)
                self.assertEqual(status, 1)
                self.assertIn(f"keys-fcgi: database: ERROR:  {complaint}", complaints)

    def test_keys_runtime_holds_exactly_the_rights_that_the_statement_uses(self):
        counts = "user_id minute_ends day_ends minute_count day_count minute_limit day_limit granted".split()
        listed = (
            "id user_id key_prefix name tier scopes total_requests last_used_at created_at expires_at revoked_at"
        ).split()
        self.assertEqual(
            self.rights("keys_runtime"),
            {f"request_counts {right} {column}" for right in ("SELECT", "INSERT", "UPDATE") for column in counts}
            | {f"api_keys SELECT {column}" for column in listed}
            | {f"tiers SELECT {column}" for column in ("name", "requests_per_minute", "requests_per_day")}
            | {"accounts SELECT user_id", "accounts SELECT tier"}
            | {"keys_private.live_sessions SELECT id", "keys_private.live_sessions SELECT user_id"},
        )

    def test_keys_runtime_reads_no_hash(self):
        for sql in (
            "SELECT key_hash FROM public.api_keys",
            "SELECT * FROM public.api_keys",
            "SELECT k FROM public.api_keys k",
            "SELECT count(*) FROM public.api_keys WHERE key_hash = sha256('aaaa')",
            "SELECT name FROM public.api_keys ORDER BY key_hash",
            "COPY public.api_keys TO STDOUT",
        ):
            self.refused("keys_runtime", sql)

    def test_keys_runtime_writes_nothing_but_counts(self):
        for table in TABLES:
            self.refused("keys_runtime", f"DELETE FROM {table}")
            self.refused("keys_runtime", f"TRUNCATE {table}")
            if table != "public.request_counts":
                self.refused("keys_runtime", f"INSERT INTO {table} DEFAULT VALUES")
        for sql in (
            "UPDATE public.api_keys SET revoked_at = NULL",
            "UPDATE public.api_keys SET total_requests = 0",
            "UPDATE public.accounts SET tier = 'pro'",
            "UPDATE public.tiers SET requests_per_day = 1000000000",
            "UPDATE auth.users SET banned_until = NULL",
            "SELECT 1 FROM public.api_keys FOR UPDATE",
            "COPY public.api_keys (user_id, key_prefix, key_hash, name) FROM STDIN",
        ):
            self.refused("keys_runtime", sql)

    def test_keys_runtime_reads_nothing_else(self):
        for sql in (
            "SELECT id FROM auth.users",
            "SELECT email FROM auth.users",
            "SELECT id FROM auth.sessions",
            "SELECT created_at FROM public.accounts",
            "SELECT * FROM public.somebody_elses",
            "SELECT name FROM public.default_tier",
            "SELECT rolpassword FROM pg_authid",
            "SELECT pg_read_file('/etc/passwd')",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "SELECT lo_import('/etc/passwd')",
        ):
            self.refused("keys_runtime", sql)

    def test_keys_runtime_makes_nothing_and_becomes_nobody(self):
        for sql in (
            "CREATE TABLE public.mine ()",
            "CREATE TABLE keys_private.mine ()",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE ROLE another",
            "CREATE DATABASE another",
            "SET ROLE keys_owner",
            "SET ROLE postgres",
            "SET SESSION AUTHORIZATION postgres",
            "ALTER ROLE keys_sweeper SUPERUSER",
            "GRANT SELECT ON public.api_keys TO PUBLIC",
            "ALTER TABLE public.request_counts SET LOGGED",
            "DROP TABLE public.request_counts",
        ):
            self.refused("keys_runtime", sql)

    def test_neither_role_reaches_what_is_in_another_database_or_a_large_object(self):
        for role in ("keys_runtime", "keys_sweeper"):
            for database in ("postgres", "other"):
                self.refused(role, "SELECT lo_get(4711)", database=database)
                self.refused(role, "SELECT lo_put(4711, 0, 'mine')", database=database)
            self.refused(role, "SELECT * FROM public.in_another_database", database="other")
            self.refused(role, "CREATE TABLE public.mine ()", database="other")

    def test_what_else_is_open_to_the_roles_is_what_postgresql_lets_everybody_do(self):
        # As sql/README.md says; `anybody` is a role that was just made.
        for sql in (
            "CREATE TEMPORARY TABLE mine ()",
            "SELECT lo_create(0)",
            "SELECT pg_sleep(0)",
            "LISTEN mine",
            "SELECT pg_advisory_lock(1)",
            "DO 'BEGIN END'",
            "SET statement_timeout = 0",
        ):
            for role in ("anybody", "keys_runtime", "keys_sweeper"):
                with self.subTest(role=role, sql=sql):
                    self.assertEqual(cluster.run_psql("-c", sql, user=role).returncode, 0)
        for sql in (
            "CREATE EXTENSION pgcrypto",
            "LOAD '/tmp/mine'",
            "ALTER SYSTEM SET fsync = off",
            "CHECKPOINT",
            "SELECT pg_ls_dir('.')",
            "SELECT pg_reload_conf()",
            "CREATE PUBLICATION mine",
            "ALTER DATABASE other SET jit = on",
            "SELECT pg_create_physical_replication_slot('mine')",
            "COMMENT ON TABLE public.tiers IS 'mine'",
        ):
            for role in ("keys_runtime", "keys_sweeper"):
                self.refused(role, sql, why="permission denied|must be |access to library")

    def test_keys_sweeper_sweeps_ended_counts_and_no_others(self):
        cluster.psql(
            """
            DELETE FROM public.request_counts;
            INSERT INTO public.request_counts SELECT gen_random_uuid(), now() + m, now() + d, 1, 1, 10, 1000, 1
            FROM (VALUES (interval '-1 s', interval '-1 s'), ('-1 s', '1 h'), ('1 s', '1 h')) v (m, d);"""
        )
        done = cluster.run_psql("-f", "sql/sweep.sql", user="keys_sweeper")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(cluster.psql("SELECT count(*) FROM public.request_counts WHERE day_ends > now()"), "2")
        self.assertEqual(cluster.psql("SELECT count(*) FROM public.request_counts"), "2")

    def test_keys_sweeper_can_do_nothing_else(self):
        self.assertEqual(
            self.rights("keys_sweeper"),
            {f"request_counts SELECT {column}" for column in ("minute_ends", "day_ends")}
            | {"request_counts UPDATE granted", "request_counts DELETE"},
        )
        for sql in (
            "SELECT user_id FROM public.request_counts",
            "SELECT name FROM public.api_keys",
            "SELECT id FROM keys_private.live_sessions",
            "UPDATE public.request_counts SET minute_count = 0",
            "INSERT INTO public.request_counts DEFAULT VALUES",
            "TRUNCATE public.request_counts",
            "SET ROLE keys_owner",
        ):
            self.refused("keys_sweeper", sql)

    def test_neither_role_has_an_attribute_or_a_membership(self):
        self.assertEqual(
            cluster.psql(
                """
                SELECT rolname FROM pg_roles WHERE rolname IN ('keys_runtime', 'keys_sweeper', 'keys_owner')
                AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls OR rolinherit AND rolcanlogin)
                UNION SELECT member::regrole::text FROM pg_auth_members
                WHERE member::regrole::text IN ('keys_runtime', 'keys_sweeper', 'keys_owner')"""
            ),
            "",
        )

    def test_the_owner_of_the_tables_cannot_log_in(self):
        self.refused("keys_owner", "SELECT 1", why="not permitted to log in")


if __name__ == "__main__":
    unittest.main()
