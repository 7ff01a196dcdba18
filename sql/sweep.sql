-- Deletes the counts of users whose windows have both ended: their next request begins anew anyway.
-- Run it now and then (keys-fcgi-sweep.timer does, hourly); it takes no lock that a request waits for,
-- because a row that is being counted is skipped.
DELETE FROM public.request_counts
WHERE user_id IN (
    SELECT user_id FROM public.request_counts
    WHERE day_ends <= now() AND minute_ends <= now()
    FOR UPDATE SKIP LOCKED
);
