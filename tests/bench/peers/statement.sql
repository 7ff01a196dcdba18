-- What sql/list_keys.sql does, for one request of one user, as both peers prepare it: $1 the user, $2 the session.
-- A row per key, or one row with keys.id null; no row when the session is not live.
WITH counted AS (
    INSERT INTO public.request_counts AS c (user_id, minute_ends, day_ends, minute_count, day_count,
        minute_limit, day_limit, granted)
    SELECT $1::uuid, CURRENT_TIMESTAMP + interval '60 s', CURRENT_TIMESTAMP + interval '86400 s', 1, 1,
        requests_per_minute, requests_per_day, 1
    FROM public.tiers
    WHERE name = coalesce((SELECT tier FROM public.accounts WHERE user_id = $1::uuid), 'free')
        AND EXISTS (SELECT FROM keys_private.live_sessions WHERE id = $2::uuid AND user_id = $1::uuid)
    ON CONFLICT (user_id) DO UPDATE SET
        granted = (CASE c.minute_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
            THEN c.minute_count ELSE 0 END < excluded.minute_limit
            AND CASE c.day_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
            THEN c.day_count ELSE 0 END < excluded.day_limit)::integer,
        minute_count = CASE c.minute_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
            THEN c.minute_count ELSE 0 END
            + (CASE c.minute_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
            THEN c.minute_count ELSE 0 END < excluded.minute_limit
            AND CASE c.day_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
            THEN c.day_count ELSE 0 END < excluded.day_limit)::integer,
        day_count = CASE c.day_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
            THEN c.day_count ELSE 0 END
            + (CASE c.minute_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
            THEN c.minute_count ELSE 0 END < excluded.minute_limit
            AND CASE c.day_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
            THEN c.day_count ELSE 0 END < excluded.day_limit)::integer,
        minute_ends = CASE c.minute_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.minute_ends, excluded.minute_ends + interval '60 s'))
            THEN c.minute_ends ELSE excluded.minute_ends END,
        day_ends = CASE c.day_ends WHEN greatest(CURRENT_TIMESTAMP, least(c.day_ends, excluded.day_ends + interval '60 s'))
            THEN c.day_ends ELSE excluded.day_ends END,
        minute_limit = excluded.minute_limit,
        day_limit = excluded.day_limit
    RETURNING granted, minute_limit, minute_count, minute_ends, day_limit, day_count, day_ends
)
SELECT counted.*, CURRENT_TIMESTAMP AS now, keys.*
FROM counted LEFT JOIN LATERAL (
    SELECT keys.id, keys.key_prefix, keys.name, keys.tier, keys.scopes, tiers.requests_per_minute, tiers.requests_per_day,
        keys.total_requests, keys.last_used_at, keys.created_at, keys.expires_at, keys.revoked_at
    FROM public.api_keys AS keys JOIN public.tiers ON tiers.name = keys.tier
    WHERE keys.user_id = $1::uuid AND counted.granted > 0
    ORDER BY keys.created_at, keys.id
) AS keys ON true
