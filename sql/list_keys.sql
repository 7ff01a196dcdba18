-- THE statement, prepared once a connection and embedded in the handler at build time. It answers any number
-- of requests at once, because most of a statement's cost is its start and its commit: are the sessions live,
-- which tiers have the users, count the requests, list the keys. One transaction, one round trip.
--   $1 uuid[]  users (the tokens' `sub`), distinct and ascending
--   $2 uuid[]  their sessions (the tokens' `session_id`), in the same order
-- A row for each user whose session is live, in any order: the outcome of the count and an array of the keys,
-- empty for a user without keys or over a limit. Counts are locked in the order of $1, so that two of these
-- statements cannot wait for each other.
-- Written so that there is one plan, whatever the statistics say: what is asked of one user stands in a subquery,
-- since the sides of a join may change places while a table is all but empty, and such a plan is kept when it has grown.
-- CURRENT_TIMESTAMP and not now(), which is a function to look up at each start.
-- The lines between the two marks are left out under KEYS_CHECK_SESSION=off.
WITH account AS (
    SELECT asked.user_id, tiers.requests_per_minute, tiers.requests_per_day
    FROM unnest($1::uuid[], $2::uuid[]) AS asked(user_id, session_id)
    JOIN public.tiers ON tiers.name = coalesce(
        (SELECT accounts.tier FROM public.accounts WHERE accounts.user_id = asked.user_id), 'free')
-- session check {
    WHERE (
        SELECT true FROM keys_private.live_sessions AS live
        -- IS TRUE keeps sessions from being looked up by user, who may have thousands.
        WHERE live.id = asked.session_id AND (live.user_id = asked.user_id) IS TRUE
    )
-- } session check
),
counted AS (
    INSERT INTO public.request_counts AS c
    SELECT user_id, CURRENT_TIMESTAMP + interval '60 s', CURRENT_TIMESTAMP + interval '86400 s', 1, 1,
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
    RETURNING user_id, admitted, minute_limit, minute_count, minute_ends, day_limit, day_count, day_ends
)
SELECT counted.*, CURRENT_TIMESTAMP,
    -- In the order of the index api_keys_listed, so nothing is sorted.
    ARRAY(
        SELECT ROW(keys.id, keys.key_prefix, keys.name, keys.tier, keys.scopes,
            key_tiers.requests_per_minute, key_tiers.requests_per_day,
            keys.total_requests, keys.last_used_at, keys.created_at, keys.expires_at, keys.revoked_at)
        FROM public.api_keys AS keys
        JOIN public.tiers AS key_tiers ON key_tiers.name = keys.tier
        WHERE keys.user_id = counted.user_id AND counted.admitted
        ORDER BY keys.created_at, keys.id
    )
FROM counted
