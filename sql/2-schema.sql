-- The tables of the service. Can be applied again: it creates missing tables and never drops one. To add a column
-- later, write ALTER TABLE … ADD COLUMN IF NOT EXISTS after its table.
--
-- The transaction that creates a table also enables its row security, with policies for the service's roles only.
-- Other roles see no rows, whatever they are granted (Supabase grants new tables to the public role anon), and the
-- service sees its rows even where an event trigger enables row security. The owner, superusers and roles with
-- BYPASSRLS bypass it. A role of your own that writes api_keys or accounts needs a policy besides its grant.
SELECT to_regrole('keys_owner') IS NULL AS owner_wanted,
    to_regrole('keys_runtime') IS NULL AS runtime_wanted,
    to_regrole('keys_sweeper') IS NULL AS sweeper_wanted \gset
\if :owner_wanted
CREATE ROLE keys_owner NOLOGIN;
\endif
\if :runtime_wanted
CREATE ROLE keys_runtime LOGIN NOINHERIT;
\endif
\if :sweeper_wanted
CREATE ROLE keys_sweeper LOGIN NOINHERIT;
\endif

BEGIN;
SET LOCAL client_min_messages = warning;  -- "already exists, skipping" is no news

CREATE TABLE IF NOT EXISTS public.tiers (
    name text CONSTRAINT tiers_pkey PRIMARY KEY,
    requests_per_minute integer NOT NULL,
    requests_per_day integer NOT NULL,
    CONSTRAINT tiers_name_is_published CHECK (name IN ('free', 'pro')),
    CONSTRAINT tiers_minute_is_positive CHECK (requests_per_minute BETWEEN 1 AND 1000000000),
    CONSTRAINT tiers_day_holds_a_minute
        CHECK (requests_per_day BETWEEN requests_per_minute AND 1000000000)
);
ALTER TABLE public.tiers ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tiers_for_the_service ON public.tiers;
CREATE POLICY tiers_for_the_service ON public.tiers FOR SELECT TO keys_runtime USING (true);
COMMENT ON TABLE public.tiers IS 'What each tier allows; a changed row counts from the next request on';
COMMENT ON COLUMN public.tiers.name IS 'As published: free or pro';
COMMENT ON COLUMN public.tiers.requests_per_minute IS 'Requests in 60 s, counted from a window''s first';
COMMENT ON COLUMN public.tiers.requests_per_day IS 'Requests in 86,400 s, counted from a window''s first';

INSERT INTO public.tiers VALUES ('free', 10, 1000), ('pro', 1000, 1000000)
ON CONFLICT (name) DO NOTHING;

CREATE TABLE IF NOT EXISTS public.default_tier (
    name text CONSTRAINT default_tier_pkey PRIMARY KEY DEFAULT 'free'
        CONSTRAINT default_tier_exists REFERENCES public.tiers,
    CONSTRAINT default_tier_is_free CHECK (name = 'free')
);
ALTER TABLE public.default_tier ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS default_tier_for_its_owner ON public.default_tier;
CREATE POLICY default_tier_for_its_owner ON public.default_tier TO keys_owner USING (true);
COMMENT ON TABLE public.default_tier IS
    'One row, read by nobody: its foreign key keeps the tier of users without an account from being deleted';
COMMENT ON COLUMN public.default_tier.name IS 'The tier of users who have no row in accounts';

INSERT INTO public.default_tier DEFAULT VALUES ON CONFLICT (name) DO NOTHING;

CREATE TABLE IF NOT EXISTS public.accounts (
    user_id uuid CONSTRAINT accounts_pkey PRIMARY KEY,
    tier text NOT NULL DEFAULT 'free' CONSTRAINT accounts_tier_exists REFERENCES public.tiers,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- For the foreign key, and to count the users of a tier. Unique because user_id is unique.
CREATE UNIQUE INDEX IF NOT EXISTS accounts_of_tier ON public.accounts (tier, user_id);
ALTER TABLE public.accounts ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS accounts_for_the_service ON public.accounts;
CREATE POLICY accounts_for_the_service ON public.accounts FOR SELECT TO keys_runtime USING (true);
COMMENT ON TABLE public.accounts IS 'The tier a user has bought; no row: free';
COMMENT ON COLUMN public.accounts.user_id IS
    'auth.users.id; no foreign key, because the auth schema is Supabase''s to change';
COMMENT ON COLUMN public.accounts.tier IS 'The tier whose limits hold for this user';
COMMENT ON COLUMN public.accounts.created_at IS 'When the row was made';

CREATE TABLE IF NOT EXISTS public.api_keys (
    id uuid CONSTRAINT api_keys_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    key_prefix text NOT NULL,
    key_hash bytea NOT NULL CONSTRAINT api_keys_hash_is_unique UNIQUE,
    name text NOT NULL,
    tier text NOT NULL DEFAULT 'free' CONSTRAINT api_keys_tier_exists REFERENCES public.tiers,
    scopes text[] NOT NULL DEFAULT '{}',
    total_requests bigint NOT NULL DEFAULT 0,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_keys_prefix_has_form CHECK (key_prefix ~ '^[a-z]{2}_[a-z]{4}_[A-Za-z0-9]{4}$'),
    CONSTRAINT api_keys_hash_is_sha256 CHECK (octet_length(key_hash) = 32),
    CONSTRAINT api_keys_name_is_short CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT api_keys_scopes_are_few CHECK (
        coalesce(array_ndims(scopes), 1) = 1 AND cardinality(scopes) <= 100
        AND array_position(scopes, NULL) IS NULL),
    CONSTRAINT api_keys_requests_are_counted CHECK (total_requests >= 0),
    CONSTRAINT api_keys_times_are_finite CHECK (
        isfinite(created_at) AND coalesce(isfinite(last_used_at), true)
        AND coalesce(isfinite(expires_at), true) AND coalesce(isfinite(revoked_at), true))
);
-- The order of the list comes from this index; nothing is sorted.
CREATE INDEX IF NOT EXISTS api_keys_listed ON public.api_keys (user_id, created_at, id);
-- For the foreign key, and to count the keys of a tier. Unique because id is unique.
CREATE UNIQUE INDEX IF NOT EXISTS api_keys_of_tier ON public.api_keys (tier, id);
ALTER TABLE public.api_keys ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS api_keys_for_the_service ON public.api_keys;
CREATE POLICY api_keys_for_the_service ON public.api_keys FOR SELECT TO keys_runtime USING (true);
COMMENT ON TABLE public.api_keys IS 'API keys as metadata; a key itself is shown once, at creation, and never stored';
COMMENT ON COLUMN public.api_keys.id IS 'Published identifier';
COMMENT ON COLUMN public.api_keys.user_id IS 'Owner: auth.users.id, without a foreign key as in accounts';
COMMENT ON COLUMN public.api_keys.key_prefix IS 'First 12 characters of the key, for people to tell keys apart';
COMMENT ON COLUMN public.api_keys.key_hash IS 'SHA-256 of the whole key; no grant lets the service read it';
COMMENT ON COLUMN public.api_keys.name IS 'Given by the owner, any text of 1 to 100 characters';
COMMENT ON COLUMN public.api_keys.tier IS 'The tier whose limits the key shows';
COMMENT ON COLUMN public.api_keys.scopes IS 'What the key may do, in the order given';
COMMENT ON COLUMN public.api_keys.total_requests IS 'Requests made with the key so far';
COMMENT ON COLUMN public.api_keys.last_used_at IS 'Last request with the key; null: never used';
COMMENT ON COLUMN public.api_keys.created_at IS 'When the key was made; keys are listed oldest first';
COMMENT ON COLUMN public.api_keys.expires_at IS 'The key stops working then; null: no end set';
COMMENT ON COLUMN public.api_keys.revoked_at IS 'The owner ended the key then; null: not revoked';

-- UNLOGGED: a count is not worth a disk write. After a crash of the database the table is empty and every window
-- begins anew; a standby has no copy. Pages are filled to a half, so that a new version of a row fits on the page of
-- the old one (a HOT update: it writes no index entry, and the next access to the page prunes dead versions).
CREATE UNLOGGED TABLE IF NOT EXISTS public.request_counts (
    user_id uuid CONSTRAINT request_counts_pkey PRIMARY KEY,
    minute_ends timestamptz NOT NULL,
    day_ends timestamptz NOT NULL,
    minute_count integer NOT NULL,
    day_count integer NOT NULL,
    minute_limit integer NOT NULL,
    day_limit integer NOT NULL,
    granted integer NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2);
-- The table of version 1.0.0 has `admitted` instead of `granted`. Its processes go on writing `admitted` until they are
-- replaced; the new ones do not know it, so it needs a default.
ALTER TABLE public.request_counts ADD COLUMN IF NOT EXISTS granted integer NOT NULL DEFAULT 0;
DO $$
BEGIN
    ALTER TABLE public.request_counts ALTER COLUMN admitted SET DEFAULT true;
EXCEPTION WHEN undefined_column THEN NULL;
END
$$;
ALTER TABLE public.request_counts ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS request_counts_for_the_service ON public.request_counts;
CREATE POLICY request_counts_for_the_service ON public.request_counts TO keys_runtime, keys_sweeper USING (true);
COMMENT ON TABLE public.request_counts IS
    'Rate limit: one row per user with a recent request, two windows per row; swept by sql/sweep.sql';
COMMENT ON COLUMN public.request_counts.user_id IS 'The user whose requests are counted: auth.users.id';
COMMENT ON COLUMN public.request_counts.minute_ends IS 'End of the minute window: its first request + 60 s';
COMMENT ON COLUMN public.request_counts.day_ends IS 'End of the day window: its first request + 86,400 s';
COMMENT ON COLUMN public.request_counts.minute_count IS 'Requests admitted in the minute window';
COMMENT ON COLUMN public.request_counts.day_count IS 'Requests admitted in the day window';
COMMENT ON COLUMN public.request_counts.minute_limit IS 'The tier''s limit at the last request';
COMMENT ON COLUMN public.request_counts.day_limit IS 'The tier''s limit at the last request';
COMMENT ON COLUMN public.request_counts.granted IS 'How many requests the last statement granted';

COMMIT;
