-- Grants to the roles that sql/2-schema.sql creates. keys_owner owns the tables and cannot log in. keys_runtime is the
-- handler's role: it may use exactly the columns that sql/list_keys.sql uses, and cannot read the hash of a key.
-- keys_sweeper deletes counts whose windows have ended (sql/sweep.sql).
-- Can be applied again. On Supabase set passwords afterwards (sql/README.md, "On a Supabase database").
SELECT to_regrole('anon') IS NOT NULL AND to_regrole('authenticated') IS NOT NULL AS on_supabase \gset
BEGIN;
SET LOCAL client_min_messages = warning;  -- "already a member" is no news
COMMENT ON ROLE keys_owner IS 'Owns the tables of the keys service';
COMMENT ON ROLE keys_runtime IS 'Runs sql/list_keys.sql for keys-fcgi';
COMMENT ON ROLE keys_sweeper IS 'Runs sql/sweep.sql for keys-fcgi-sweep.service';

-- Membership lets an administrator who is not a superuser (Supabase's postgres) hand the tables over.
GRANT keys_owner TO CURRENT_USER;
GRANT CREATE ON SCHEMA public TO keys_owner;
ALTER TABLE public.tiers OWNER TO keys_owner;
ALTER TABLE public.default_tier OWNER TO keys_owner;
ALTER TABLE public.accounts OWNER TO keys_owner;
ALTER TABLE public.api_keys OWNER TO keys_owner;
ALTER TABLE public.request_counts OWNER TO keys_owner;
REVOKE CREATE ON SCHEMA public FROM keys_owner;

REVOKE ALL ON public.tiers, public.default_tier, public.accounts, public.api_keys, public.request_counts
    FROM PUBLIC, keys_runtime, keys_sweeper;
-- Supabase grants every new table of `public` to the roles of its REST API, and everybody has an API key for these.
\if :on_supabase
REVOKE ALL ON public.tiers, public.default_tier, public.accounts, public.api_keys, public.request_counts
    FROM anon, authenticated;
\endif

-- On Supabase only its own roles can grant access to the schema auth, and row security without a policy hides every
-- row there. A view reads with its owner's privileges: postgres may read auth and bypasses row security. The REST API
-- does not expose the view's schema.
CREATE SCHEMA IF NOT EXISTS keys_private;
COMMENT ON SCHEMA keys_private IS 'What of the keys service no other interface shows';
CREATE OR REPLACE VIEW keys_private.live_sessions AS
SELECT sessions.id, sessions.user_id
FROM auth.sessions
WHERE (sessions.not_after IS NULL OR sessions.not_after > CURRENT_TIMESTAMP)
    AND (
        SELECT users.deleted_at IS NULL AND (users.banned_until IS NULL OR users.banned_until <= CURRENT_TIMESTAMP)
        FROM auth.users WHERE users.id = sessions.user_id
    );
COMMENT ON VIEW keys_private.live_sessions IS 'Sessions neither signed out nor ended, of users neither deleted nor banned';
COMMENT ON COLUMN keys_private.live_sessions.id IS 'The token''s claim `session_id`';
COMMENT ON COLUMN keys_private.live_sessions.user_id IS 'The token''s claim `sub`';

GRANT USAGE ON SCHEMA keys_private TO keys_runtime;
GRANT SELECT ON keys_private.live_sessions TO keys_runtime;
GRANT USAGE ON SCHEMA public TO keys_runtime, keys_sweeper;
GRANT SELECT ON public.tiers TO keys_runtime;
GRANT SELECT (user_id, tier) ON public.accounts TO keys_runtime;
GRANT SELECT (id, user_id, key_prefix, name, tier, scopes, total_requests, last_used_at, created_at,
    expires_at, revoked_at) ON public.api_keys TO keys_runtime;
GRANT SELECT, INSERT, UPDATE ON public.request_counts TO keys_runtime;
-- The sweep finds rows by ctid and locks each before it deletes it; a row lock needs UPDATE on some column.
-- It needs grants on partitions (sql/partition_counts.sql) too: it sweeps them one by one, to read each page once.
GRANT USAGE ON SCHEMA keys_private TO keys_sweeper;
SELECT format('GRANT SELECT (ctid, minute_ends, day_ends), UPDATE (granted), DELETE ON %s TO keys_sweeper', part)
FROM (
    SELECT 'public.request_counts'::regclass
    UNION SELECT relid FROM pg_partition_tree('public.request_counts')
) AS parts(part) \gexec

-- One plan serves every user, because planning costs more than the statement. These settings make it use indexes
-- only, whatever the statistics say: there may be none when PostgreSQL makes the plan, which it then keeps.
ALTER ROLE keys_runtime SET plan_cache_mode = force_generic_plan;
ALTER ROLE keys_runtime SET enable_seqscan = off;
ALTER ROLE keys_runtime SET enable_bitmapscan = off;
ALTER ROLE keys_runtime SET enable_hashjoin = off;
ALTER ROLE keys_runtime SET enable_mergejoin = off;
ALTER ROLE keys_runtime SET enable_material = off;
ALTER ROLE keys_runtime SET enable_memoize = off;
ALTER ROLE keys_runtime SET jit = off;
-- The role writes only to an UNLOGGED table. Yet a commit could wait for the disk or for a synchronous standby: with
-- checksums or wal_log_hints, pruning a page or setting a hint bit writes WAL.
ALTER ROLE keys_runtime SET synchronous_commit = off;
COMMIT;
