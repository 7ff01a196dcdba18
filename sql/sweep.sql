-- Deletes the counts of users whose windows have both ended: their next request begins anew anyway.
-- Run it with psql now and then (keys-fcgi-sweep.timer does, hourly), outside a transaction. psql runs one DELETE per
-- 32 pages, about a thousand rows, each a transaction of milliseconds. So a request that begins anew waits for no
-- longer, a statement_timeout of the role never strikes, and each page is read once, however large the table is.
-- A row that is being counted is skipped. Pages that are added meanwhile are left to the next run.
SELECT format('DELETE FROM %1$s WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM %1$s
    WHERE ctid >= ''(%2$s,0)'' AND ctid < ''(%3$s,0)'' AND day_ends <= now() AND minute_ends <= now()
    FOR UPDATE SKIP LOCKED))', part, page, page + 32)
FROM (
    SELECT 'public.request_counts'::regclass
    UNION SELECT relid FROM pg_partition_tree('public.request_counts')
) AS parts(part), generate_series(0, pg_relation_size(part) / current_setting('block_size')::int - 1, 32) AS page \gexec
