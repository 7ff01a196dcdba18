-- THE statement, prepared once a connection and embedded in the handler at build time: is the session
-- live, which tier has the user, count this request, list the keys. One transaction, one round trip.
--   $1 uuid  user (the token's `sub`)       $2 uuid  session (the token's `session_id`)
-- No row: the session is not live. Otherwise at least one row, each beginning with the outcome of the
-- count; the key's columns are null in the only row of a user without keys or over a limit.
-- The keys come in the order of the index api_keys_listed or in any other: who reads them sees to the
-- order, because a sort node costs every execution its start. So does now(), a function to look up:
-- CURRENT_TIMESTAMP is the same moment and none.
-- The lines between the two marks are left out under KEYS_CHECK_SESSION=off.
WITH account AS (
    SELECT tiers.requests_per_minute, tiers.requests_per_day
    FROM (SELECT
-- session check {
        FROM keys_private.live_sessions WHERE id = $2 AND user_id = $1
-- } session check
    ) AS live_session
    LEFT JOIN public.accounts ON accounts.user_id = $1
    JOIN public.tiers ON tiers.name = coalesce(accounts.tier, 'free')
),
counted AS (
    INSERT INTO public.request_counts AS c
    SELECT $1, CURRENT_TIMESTAMP + interval '60 s', CURRENT_TIMESTAMP + interval '86400 s', 1, 1,
        requests_per_minute, requests_per_day, true
    FROM account
    -- A window that has ended begins anew. A request that either window refuses consumes neither.
    ON CONFLICT (user_id) DO UPDATE SET
        admitted =
            (c.minute_ends <= CURRENT_TIMESTAMP OR c.minute_count < excluded.minute_limit)
            AND (c.day_ends <= CURRENT_TIMESTAMP OR c.day_count < excluded.day_limit),
        minute_ends = CASE WHEN c.minute_ends <= CURRENT_TIMESTAMP THEN excluded.minute_ends ELSE c.minute_ends END,
        day_ends = CASE WHEN c.day_ends <= CURRENT_TIMESTAMP THEN excluded.day_ends ELSE c.day_ends END,
        minute_count = CASE WHEN c.minute_ends <= CURRENT_TIMESTAMP THEN 0 ELSE c.minute_count END
            + CASE WHEN (c.minute_ends <= CURRENT_TIMESTAMP OR c.minute_count < excluded.minute_limit)
                AND (c.day_ends <= CURRENT_TIMESTAMP OR c.day_count < excluded.day_limit) THEN 1 ELSE 0 END,
        day_count = CASE WHEN c.day_ends <= CURRENT_TIMESTAMP THEN 0 ELSE c.day_count END
            + CASE WHEN (c.minute_ends <= CURRENT_TIMESTAMP OR c.minute_count < excluded.minute_limit)
                AND (c.day_ends <= CURRENT_TIMESTAMP OR c.day_count < excluded.day_limit) THEN 1 ELSE 0 END,
        minute_limit = excluded.minute_limit,
        day_limit = excluded.day_limit
    RETURNING admitted, minute_limit, minute_count, minute_ends, day_limit, day_count, day_ends
)
SELECT counted.*, CURRENT_TIMESTAMP,
    keys.id, keys.key_prefix, keys.name, keys.tier, keys.scopes,
    key_tiers.requests_per_minute, key_tiers.requests_per_day,
    keys.total_requests, keys.last_used_at, keys.created_at, keys.expires_at, keys.revoked_at
FROM counted
LEFT JOIN public.api_keys AS keys ON keys.user_id = $1 AND counted.admitted
LEFT JOIN public.tiers AS key_tiers ON key_tiers.name = keys.tier
