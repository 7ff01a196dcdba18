-- Users :first to :last for the benchmark, each with an account of the tier :tier, a session and :keys
-- keys. A user's id is their number in 32 decimal digits; a session's is the same under 5e550000.
-- A user's keys lie apart in the table, as they do when users make keys over the years.
SET session_replication_role = replica;  -- no foreign keys to look up, row by row
SET synchronous_commit = off;

CREATE FUNCTION pg_temp.bench_id(n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
    RETURN lpad(n::text, 32, '0')::uuid;
CREATE FUNCTION pg_temp.bench_session(n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
    RETURN ('5e550000' || lpad(n::text, 24, '0'))::uuid;

INSERT INTO auth.users (id, email)
SELECT pg_temp.bench_id(n), 'bench-' || n || '@example.com' FROM generate_series(:first, :last) AS n;
INSERT INTO auth.sessions (id, user_id)
SELECT pg_temp.bench_session(n), pg_temp.bench_id(n) FROM generate_series(:first, :last) AS n;
INSERT INTO public.accounts (user_id, tier)
SELECT pg_temp.bench_id(n), :'tier' FROM generate_series(:first, :last) AS n;
INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name, tier, scopes, total_requests,
    last_used_at, created_at, expires_at)
SELECT pg_temp.bench_id(n), 'sk_live_Ben' || k % 10, sha256(('bench ' || n || ' ' || k)::bytea),
    'Benchmark key ' || k, CASE WHEN k % 3 = 1 THEN 'free' ELSE 'pro' END, '{read:iocs,read:articles,read:stix}',
    n * 7 + k, now() - k * interval '1 hour', now() - (2000 - k) * interval '3 hours',
    CASE WHEN k % 3 = 2 THEN now() + interval '90 days' END
FROM generate_series(1, :keys) AS k, generate_series(:first, :last) AS n
ORDER BY k;
