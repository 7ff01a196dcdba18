-- Who may do what. keys_owner owns the tables and cannot log in; keys_runtime is the handler's and may
-- do what sql/list_keys.sql does, column by column, and nothing else: it can read no key's hash.
-- Can be applied again. On Supabase, set a password afterwards (README, "On a Supabase database").
SELECT to_regrole('keys_owner') IS NULL AS owner_wanted,
    to_regrole('keys_runtime') IS NULL AS runtime_wanted \gset
\if :owner_wanted
CREATE ROLE keys_owner NOLOGIN;
\endif
\if :runtime_wanted
CREATE ROLE keys_runtime LOGIN NOINHERIT;
\endif
BEGIN;
SET LOCAL client_min_messages = warning;  -- "already a member" is no news
COMMENT ON ROLE keys_owner IS 'Owns the tables of the keys service';
COMMENT ON ROLE keys_runtime IS 'Runs sql/list_keys.sql for keys-fcgi';

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
    FROM PUBLIC, keys_runtime;
GRANT USAGE ON SCHEMA public, auth TO keys_runtime;
GRANT SELECT (id, user_id, not_after) ON auth.sessions TO keys_runtime;
GRANT SELECT (id, banned_until, deleted_at) ON auth.users TO keys_runtime;
GRANT SELECT ON public.tiers TO keys_runtime;
GRANT SELECT (user_id, tier) ON public.accounts TO keys_runtime;
GRANT SELECT (id, user_id, key_prefix, name, tier, scopes, total_requests, last_used_at, created_at,
    expires_at, revoked_at) ON public.api_keys TO keys_runtime;
GRANT SELECT, INSERT, UPDATE ON public.request_counts TO keys_runtime;

-- One plan serves every user; planning anew each time costs more than the statement.
ALTER ROLE keys_runtime SET plan_cache_mode = force_generic_plan;
ALTER ROLE keys_runtime SET jit = off;
COMMIT;
