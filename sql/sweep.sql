-- Deletes the counts of users whose windows have both ended: their next request begins new windows anyway.
-- Run it with psql from time to time (keys-fcgi-sweep.timer does, hourly), outside a transaction. psql runs one DELETE
-- per 32 pages, about a thousand rows, each in a transaction of milliseconds. So requests never wait longer, a
-- statement_timeout of the role never expires, and each page is read once, however large the table is.
-- The sweep skips a row that a request is counting on, and leaves pages that are added meanwhile to the next run.
SELECT format('DELETE FROM %1$s WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM %1$s
    WHERE ctid >= ''(%2$s,0)'' AND ctid < ''(%3$s,0)'' AND day_ends <= now() AND minute_ends <= now()
    FOR UPDATE SKIP LOCKED))', part, page, page + 32)
FROM (
    SELECT 'public.request_counts'::regclass
    UNION SELECT relid FROM pg_partition_tree('public.request_counts')
) AS parts(part), generate_series(0, pg_relation_size(part) / current_setting('block_size')::int - 1, 32) AS page \gexec
