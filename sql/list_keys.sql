-- The one statement: prepared once per connection, embedded in the handler at build time. It serves any number of
-- users at once, because starting and committing are most of a statement's cost. In one transaction and one round trip
-- it checks the sessions, looks up the tiers, counts the requests and lists the keys.
--   $1 uuid[]     users (the tokens' `sub`), distinct and ascending
--   $2 uuid[]     their sessions (the tokens' `session_id`), in the same order
--   $3 integer[]  how many requests of each session wait for the result, in the same order
-- The result begins with one row per tier: its name, its limits, the time; user_id is NULL. Then follows one row per
-- user whose session is live: how many requests are granted (as many as both windows have left; the others are not
-- counted), both windows afterwards, the limits of the account's tier. Then follows one row per key of the users who
-- were granted a request: user by user in the order of their rows, each user's keys in the order of the list. Each kind
-- of row has NULL in the columns of the others. What is the same for all keys of a user, sent with each of them, would
-- be a sixth of a long list's time. An array of keys instead of rows would take three times as long.
-- The statement locks counts in the order of $1, so two of these statements cannot deadlock.
-- The plan must be good for any statistics, because PostgreSQL makes it once, perhaps for nearly empty tables. So
-- lookups per user are subqueries: the planner may swap the sides of a join.
-- There are few operators, because PostgreSQL looks up each of them and its permissions at every start. Hence
-- CURRENT_TIMESTAMP instead of now(), and one comparison for "between".
-- KEYS_CHECK_SESSION=off leaves out the lines between the two marks.
WITH account AS (
    SELECT asked.user_id, asked.requests, tiers.requests_per_minute, tiers.requests_per_day
    FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS asked(user_id, session_id, requests)
    JOIN public.tiers ON tiers.name = coalesce(
        (SELECT accounts.tier FROM public.accounts WHERE accounts.user_id = asked.user_id), 'free')
-- session check {
    WHERE (
        SELECT true FROM keys_private.live_sessions AS live
        -- IS TRUE keeps the planner from looking sessions up by user: a user may have thousands.
        WHERE live.id = asked.session_id AND (live.user_id = asked.user_id) IS TRUE
    )
-- } session check
),
counted AS (
    INSERT INTO public.request_counts AS c (user_id, minute_ends, day_ends, minute_count, day_count,
        minute_limit, day_limit, granted)
    SELECT user_id, CURRENT_TIMESTAMP + interval '60 s', CURRENT_TIMESTAMP + interval '86400 s',
        least(requests, requests_per_minute), least(requests, requests_per_minute),
        requests_per_minute, requests_per_day, least(requests, requests_per_minute)
    FROM account
    -- A window begins anew when it has ended. It also does when its end is further away than its length, because
    -- then the clock was set back; a minute of slack allows for a count that a later transaction wrote while this
    -- one waited for the lock. The granted number is computed three times: SET (…) = (SELECT …) would compute it
    -- once, but cost a subplan per user.
    ON CONFLICT (user_id) DO UPDATE SET
        granted = greatest(0, least(excluded.granted,
            excluded.minute_limit - CASE c.minute_ends
                WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
                THEN c.minute_count ELSE 0 END,
            excluded.day_limit - CASE c.day_ends
                WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
                THEN c.day_count ELSE 0 END)),
        minute_count = CASE c.minute_ends
            WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
            THEN c.minute_count ELSE 0 END
            + greatest(0, least(excluded.granted,
                excluded.minute_limit - CASE c.minute_ends
                    WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
                    THEN c.minute_count ELSE 0 END,
                excluded.day_limit - CASE c.day_ends
                    WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
                    THEN c.day_count ELSE 0 END)),
        day_count = CASE c.day_ends
            WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
            THEN c.day_count ELSE 0 END
            + greatest(0, least(excluded.granted,
                excluded.minute_limit - CASE c.minute_ends
                    WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
                    THEN c.minute_count ELSE 0 END,
                excluded.day_limit - CASE c.day_ends
                    WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
                    THEN c.day_count ELSE 0 END)),
        minute_ends = CASE c.minute_ends
            WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
            THEN c.minute_ends ELSE excluded.minute_ends END,
        day_ends = CASE c.day_ends
            WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
            THEN c.day_ends ELSE excluded.day_ends END,
        minute_limit = excluded.minute_limit,
        day_limit = excluded.day_limit
    RETURNING user_id, granted, minute_limit, minute_count, minute_ends, day_limit, day_count, day_ends
)
SELECT NULL::uuid AS user_id, NULL::integer AS granted, requests_per_minute, NULL::integer, NULL::timestamptz,
    requests_per_day, NULL::integer, NULL::timestamptz, CURRENT_TIMESTAMP,
    NULL::uuid, NULL::text, NULL::text, name, NULL::text[], NULL::bigint,
    NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz
FROM public.tiers
UNION ALL
SELECT counted.*, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM counted
UNION ALL
SELECT counted.user_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, listed.*
FROM counted
CROSS JOIN LATERAL (
    -- The order of the index api_keys_listed, so nothing is sorted.
    SELECT keys.id, keys.key_prefix, keys.name, keys.tier, keys.scopes, keys.total_requests,
        keys.last_used_at, keys.created_at, keys.expires_at, keys.revoked_at
    FROM public.api_keys AS keys
    WHERE keys.user_id = counted.user_id
    ORDER BY keys.created_at, keys.id
) AS listed
WHERE counted.granted > 0
