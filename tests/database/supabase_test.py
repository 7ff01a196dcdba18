#!/usr/bin/python3
"""sql/ on a database that is a Supabase project's: applied as its role postgres, which is no superuser."""

import json
import pathlib
import unittest

from tests.support.cluster import Cluster

USER = "0a0a0a0a-0000-4000-8000-00000000000a"
SESSION = "5e550000-0000-4000-8000-00000000000a"
FIXTURE = pathlib.Path(__file__).with_name("supabase_auth.sql")
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


def setUpModule():
    global cluster, before
    cluster = unittest.enterModuleContext(Cluster(owner="supabase_admin"))
    cluster.psql(FIXTURE.read_text(encoding="utf-8"))
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

    def test_the_administrator_creates_keys_as_before(self):
        done = cluster.run_psql("-c", "SELECT count(*) FROM public.api_keys", user="postgres")
        self.assertEqual(done.stdout.strip(), "1", done.stderr)


if __name__ == "__main__":
    unittest.main()
