-- Deletes the counts of users whose windows have both ended: their next request begins anew anyway.
-- Run it now and then (keys-fcgi-sweep.timer does, hourly), outside a transaction. A row that is being counted is
-- skipped; one that is being deleted is waited for, so each thousand is a transaction of its own, of milliseconds.
DO $$
BEGIN
    LOOP
        DELETE FROM public.request_counts
        WHERE user_id IN (
            SELECT user_id FROM public.request_counts
            WHERE day_ends <= now() AND minute_ends <= now()
            LIMIT 1000
            FOR UPDATE SKIP LOCKED
        );
        EXIT WHEN NOT FOUND;
        COMMIT;
    END LOOP;
END
$$;
