-- Divides public.request_counts into eight partitions, so that several autovacuum workers share the work. It helps
-- only at tens of thousands of requests per second; below that, one table is as fast. The statement and its plan stay
-- the same. Apply it after sql/[0-9]*.sql, as the same administrator. Requests wait for its one transaction, and every
-- count begins anew. The partitions are in a schema that Supabase's REST API does not expose.
SET client_min_messages = error;  -- 3-roles.sql begins a transaction too
BEGIN;
ALTER TABLE public.request_counts RENAME TO request_counts_before;
CREATE TABLE public.request_counts (LIKE public.request_counts_before INCLUDING COMMENTS INCLUDING DEFAULTS)
    PARTITION BY HASH (user_id);
COMMENT ON TABLE public.request_counts IS
    'Rate limit: one row per user with a recent request, two windows per row; swept by sql/sweep.sql';
DROP TABLE public.request_counts_before;
ALTER TABLE public.request_counts ADD CONSTRAINT request_counts_pkey PRIMARY KEY (user_id);
ALTER TABLE public.request_counts ENABLE ROW LEVEL SECURITY;
CREATE POLICY request_counts_for_the_service ON public.request_counts TO keys_runtime, keys_sweeper USING (true);

SELECT part.line
FROM generate_series(0, 7) AS n,
    format('keys_private.request_counts_%s', n) AS name,
    LATERAL (VALUES
        (format('CREATE UNLOGGED TABLE %s PARTITION OF public.request_counts FOR VALUES WITH (MODULUS 8, REMAINDER %s)
            WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2)', name, n)),
        (format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', name)),
        (format('CREATE POLICY partition_for_the_sweep ON %s TO keys_sweeper USING (true)', name)),
        (format('COMMENT ON TABLE %s IS ''Partition of public.request_counts''', name))
    ) AS part(line) \gexec
\ir 3-roles.sql
RESET client_min_messages;
