-- The one statement: prepared once per connection, embedded in the handler at build time. It answers any number of
-- users at once, because most of a statement's cost is its start and its commit. One transaction, one round trip:
-- checks the sessions, looks up the tiers, counts the requests, lists the keys.
--   $1 uuid[]     users (the tokens' `sub`), distinct and ascending
--   $2 uuid[]     their sessions (the tokens' `session_id`), in the same order
--   $3 integer[]  how many requests of each session wait for the answer, in the same order
-- First a row per tier: its name, its limits, the time; user_id is NULL. Then the rows of each user whose session is
-- live, one after another: how many requests are granted (as many as both windows have left; the others consume
-- nothing), the windows after them, the limits of the account's tier, and a key per row, in the order of the list. A
-- user without keys, or who was granted nothing, has one row whose key is NULL. Rows and not an array of keys: that
-- costs PostgreSQL three times as much for a long list.
-- Counts are locked in the order of $1, so two of these statements cannot wait for each other.
-- One plan fits any statistics: what is asked about one user stands in a subquery, since the sides of a join may
-- change places while a table is all but empty, and such a plan is kept when it has grown.
-- Few operators: PostgreSQL looks each of them up, and its permissions, at every start. So CURRENT_TIMESTAMP and not
-- now(), and one comparison for "between".
-- The lines between the two marks are left out under KEYS_CHECK_SESSION=off.
WITH account AS (
    SELECT asked.user_id, asked.requests, tiers.requests_per_minute, tiers.requests_per_day
    FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS asked(user_id, session_id, requests)
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
    INSERT INTO public.request_counts AS c (user_id, minute_ends, day_ends, minute_count, day_count,
        minute_limit, day_limit, granted)
    SELECT user_id, CURRENT_TIMESTAMP + interval '60 s', CURRENT_TIMESTAMP + interval '86400 s',
        least(requests, requests_per_minute), least(requests, requests_per_minute),
        requests_per_minute, requests_per_day, least(requests, requests_per_minute)
    FROM account
    -- A window begins anew when it has ended, or ends further ahead than it is long: then the clock was set
    -- back. The minute of slack is for a count that a later transaction wrote while this one waited for its lock.
    -- What is granted stands here three times: SET (…) = (SELECT …) would name it once and cost a subplan per user.
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
SELECT counted.*, NULL, listed.*
FROM counted
LEFT JOIN LATERAL (
    -- In the order of the index api_keys_listed, so nothing is sorted.
    SELECT keys.id, keys.key_prefix, keys.name, keys.tier, keys.scopes, keys.total_requests,
        keys.last_used_at, keys.created_at, keys.expires_at, keys.revoked_at
    FROM public.api_keys AS keys
    WHERE keys.user_id = counted.user_id AND counted.granted > 0
    ORDER BY keys.created_at, keys.id
) AS listed ON true
