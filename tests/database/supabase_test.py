#!/usr/bin/python3
"""sql/ on a database that is a Supabase project's: applied as its role postgres, which is no superuser."""

import json
import pathlib
import unittest

from tests.support.cluster import Cluster
from tests.support.stack import Stack

USER = "0a0a0a0a-0000-4000-8000-00000000000a"
SESSION = "5e550000-0000-4000-8000-00000000000a"
FIXTURES = [pathlib.Path(__file__).with_name(name) for name in ("supabase_project.sql", "supabase_auth.sql")]
# Every object of the schema auth: owners, grants, columns, row security, policies.
INVENTORY = """
SELECT 'schema', nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'auth'
UNION ALL SELECT 'class', relname, relowner::regrole::text, concat(relacl, relrowsecurity, relnatts, relhastriggers)
    FROM pg_class WHERE relnamespace = 'auth'::regnamespace
UNION ALL SELECT 'column', attrelid::regclass::text, attname, concat(atttypid::regtype, attnotnull, attacl)
    FROM pg_attribute WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'auth'::regnamespace)
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'auth'::regnamespace
UNION ALL SELECT 'policy', tablename, policyname, qual FROM pg_policies WHERE schemaname = 'auth'
ORDER BY 1, 2, 3, 4
"""

TABLES = ("api_keys", "accounts", "tiers", "default_tier", "request_counts")
ROWS = {
    "api_keys": f"(user_id, key_prefix, key_hash, name) VALUES ('{USER}', 'sk_live_bbbb', sha256('bbbb'), 'two')",
    "accounts": f"(user_id, tier) VALUES ('{USER}', 'pro')",
    "tiers": "VALUES ('pro', 1, 1)",
    "default_tier": "VALUES ('free')",
    "request_counts": "(user_id) VALUES (gen_random_uuid())",
}
OURS = "c.relnamespace IN ('public'::regnamespace, 'keys_private'::regnamespace)"
ADVISOR = {
    "row security is off": f"SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'p') AND NOT c.relrowsecurity AND {OURS}",
    "row security without a policy": f"""SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'p') AND {OURS}
        AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)""",
    "a policy for others than our roles": f"""SELECT c.oid::regclass, p.polroles::regrole[] FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid
        WHERE {OURS} AND NOT p.polroles <@ ARRAY['keys_owner', 'keys_runtime', 'keys_sweeper']::regrole[]::oid[]""",
    "two policies for one role": f"""SELECT c.oid::regclass, r FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid, unnest(p.polroles) r
        WHERE {OURS} AND EXISTS (SELECT FROM pg_policy o WHERE o.polrelid = c.oid AND o.oid <> p.oid AND r = ANY (o.polroles))""",
    "a table without a primary key": f"""SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'p') AND {OURS}
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)""",
    "a foreign key without an index": f"""SELECT f.conname FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid
        WHERE f.contype = 'f' AND {OURS} AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
            AND (string_to_array(i.indkey::text, ' ')::smallint[])[1:cardinality(f.conkey)] = f.conkey)""",
    "an index that is never used": f"""SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_stat_user_indexes s USING (indexrelid) WHERE s.idx_scan = 0 AND NOT i.indisunique AND {OURS}""",
    "a view with its owner's rights in public": """SELECT c.oid::regclass FROM pg_class c
        WHERE c.relkind IN ('v', 'm') AND c.relnamespace = 'public'::regnamespace""",
}

BADLY_MADE = """
CREATE TABLE public.badly (tier text REFERENCES public.tiers, name text);
CREATE INDEX ON public.badly (name);
CREATE TABLE public.worse ();
ALTER TABLE public.worse DISABLE ROW LEVEL SECURITY;
CREATE VIEW public.seen AS SELECT 1;
CREATE POLICY second ON public.tiers TO keys_runtime, anon USING (true)"""


def setUpModule():
    global cluster, before
    cluster = unittest.enterModuleContext(Cluster(owner="supabase_admin"))
    for fixture in FIXTURES:
        cluster.psql(fixture.read_text(encoding="utf-8"))
    before = cluster.psql(INVENTORY)
    cluster.apply_sql(user="postgres")
    cluster.psql(
        f"""
        INSERT INTO auth.users (id, email) VALUES ('{USER}', 'one@example.com');
        INSERT INTO auth.sessions (id, user_id, created_at) VALUES ('{SESSION}', '{USER}', now());
        INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name)
        VALUES ('{USER}', 'sk_live_aaaa', sha256('aaaa'), 'On Supabase');"""
    )


class SupabaseTest(unittest.TestCase):
    def token(self):
        return cluster.mint("--user", USER, "--session", SESSION)

    def test_the_fixture_is_as_closed_as_supabase(self):
        self.assertEqual(cluster.psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'postgres'"), "f")
        for sql in (
            "CREATE POLICY p ON auth.users FOR SELECT USING (true)",
            "ALTER TABLE auth.sessions DISABLE ROW LEVEL SECURITY",
            "CREATE TABLE auth.mine ()",
        ):
            with self.subTest(sql):
                self.assertNotEqual(cluster.run_psql("-c", sql, user="postgres").returncode, 0)

    def test_sql_touches_nothing_of_the_schema_auth(self):
        self.assertEqual(cluster.psql(INVENTORY), before)

    def test_sql_can_be_applied_again(self):
        self.assertEqual(cluster.apply_sql(user="postgres"), "")
        self.assertEqual(cluster.psql(INVENTORY), before)

    def test_a_user_gets_the_keys(self):
        status, body = cluster.ask(self.token())
        self.assertEqual(status, 200, body)
        self.assertEqual([key["name"] for key in json.loads(body)["data"]], ["On Supabase"])

    def test_signing_out_is_noticed_although_row_security_hides_sessions(self):
        token = self.token()
        cluster.psql(f"DELETE FROM auth.sessions WHERE id = '{SESSION}'")
        try:
            status, body = cluster.ask(token)
        finally:
            cluster.psql(f"INSERT INTO auth.sessions (id, user_id) VALUES ('{SESSION}', '{USER}')")
        self.assertEqual((status, json.loads(body)["error"]["code"]), (401, "invalid_session"))
        self.assertEqual(cluster.ask(token)[0], 200)

    def test_a_banned_and_a_deleted_user_are_refused(self):
        for column in ("banned_until = now() + interval '1 day'", "deleted_at = now()"):
            with self.subTest(column):
                cluster.psql(f"UPDATE auth.users SET {column} WHERE id = '{USER}'")
                try:
                    status, _ = cluster.ask(self.token())
                finally:
                    cluster.psql(f"UPDATE auth.users SET banned_until = NULL, deleted_at = NULL WHERE id = '{USER}'")
                self.assertEqual(status, 401)

    def test_the_rest_interface_reaches_none_of_our_tables(self):
        # Supabase grants new tables of public to these by default, and every browser has the key of anon.
        for role in ("anon", "authenticated"):
            for relation in (
                "public.api_keys",
                "public.accounts",
                "public.tiers",
                "public.default_tier",
                "public.request_counts",
                "keys_private.live_sessions",
            ):
                for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
                    with self.subTest(role=role, relation=relation, right=right):
                        held = cluster.psql(
                            f"SELECT has_table_privilege('{role}', '{relation}', '{right}')"
                            + (
                                f" OR has_any_column_privilege('{role}', '{relation}', '{right}')"
                                if right != "DELETE"
                                else ""
                            )
                        )
                        self.assertEqual(held, "f")
            self.assertEqual(cluster.psql(f"SELECT has_schema_privilege('{role}', 'keys_private', 'USAGE')"), "f")

    def test_granted_everything_the_rest_interface_still_sees_and_writes_no_row(self):
        """As after GRANT ALL ON ALL TABLES, which guides to Supabase suggest when something is denied."""
        self.assertEqual(cluster.ask(self.token())[0], 200)  # a row in every table but accounts
        rows = {table: cluster.psql(f"SELECT count(*) FROM public.{table}") for table in TABLES}
        cluster.psql("BEGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated; COMMIT", user="postgres")
        try:
            for role in ("anon", "authenticated"):
                for table in TABLES:
                    with self.subTest(role=role, table=table):
                        become = f"SET ROLE {role};"
                        self.assertEqual(cluster.psql(f"{become} SELECT count(*) FROM public.{table}"), "0")
                        self.assertEqual(cluster.psql(f"{become} DELETE FROM public.{table} RETURNING 1"), "")
                        done = cluster.run_psql("-c", f"{become} INSERT INTO public.{table} {ROWS[table]}")
                        self.assertIn("violates row-level security policy", done.stderr)
            self.assertEqual({t: cluster.psql(f"SELECT count(*) FROM public.{t}") for t in TABLES}, rows)
            self.assertEqual(cluster.ask(self.token())[0], 200)
        finally:
            self.assertEqual(cluster.apply_sql(user="postgres"), "")  # takes the grants back

    def test_the_advisor_finds_nothing_to_say_about_our_tables(self):
        # What github.com/supabase/splinter looks for, as far as tables, policies, indexes and functions go.
        self.assertEqual(cluster.ask(self.token())[0], 200)
        # A backend tells which indexes it used before it leaves this view.
        connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'keys_runtime'"
        Stack.wait_until(lambda: cluster.psql(connected) == "0", what="the handler's backend to end")
        for complaint, query in ADVISOR.items():
            with self.subTest(complaint):
                self.assertEqual(cluster.psql(query), "")
                self.assertNotEqual(cluster.psql(f"BEGIN; {BADLY_MADE}; {query}; ROLLBACK", user="postgres"), "")
        self.assertEqual(
            cluster.psql(
                "SELECT proname FROM pg_proc WHERE pronamespace IN ('public'::regnamespace, 'keys_private'::regnamespace)"
            ),
            "enable_row_security",
        )

    def test_the_administrator_creates_keys_as_before(self):
        done = cluster.run_psql("-c", "SELECT count(*) FROM public.api_keys", user="postgres")
        self.assertEqual(done.stdout.strip(), "1", done.stderr)


if __name__ == "__main__":
    unittest.main()
