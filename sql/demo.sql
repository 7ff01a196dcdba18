-- Demo users for a local stack. Never apply it to a database that anybody relies on.
-- A session's id is the user's id with 5e550000 as its first group. Can be applied again: it resets the demo users.
BEGIN;

CREATE TEMPORARY TABLE demo_users (user_id uuid, email text, tier text, signed_in boolean, banned boolean)
    ON COMMIT DROP;
INSERT INTO demo_users VALUES
    ('00000001-0000-4000-8000-000000000001', 'pro@example.com', 'pro', true, false),
    ('00000002-0000-4000-8000-000000000002', 'free@example.com', NULL, true, false),
    ('00000003-0000-4000-8000-000000000003', 'no-keys@example.com', 'pro', true, false),
    ('00000004-0000-4000-8000-000000000004', 'thousand-keys@example.com', 'pro', true, false),
    ('00000005-0000-4000-8000-000000000005', 'signed-out@example.com', 'pro', false, false),
    ('00000006-0000-4000-8000-000000000006', 'odd-names@example.com', 'pro', true, false),
    ('00000007-0000-4000-8000-000000000007', 'banned@example.com', 'pro', true, true);

DELETE FROM public.api_keys WHERE user_id IN (SELECT user_id FROM demo_users);
DELETE FROM public.accounts WHERE user_id IN (SELECT user_id FROM demo_users);
DELETE FROM public.request_counts WHERE user_id IN (SELECT user_id FROM demo_users);
DELETE FROM auth.users WHERE id IN (SELECT user_id FROM demo_users);

INSERT INTO auth.users (id, email, banned_until)
SELECT user_id, email, CASE WHEN banned THEN now() + interval '100 years' END FROM demo_users;
INSERT INTO auth.sessions (id, user_id)
SELECT ('5e550000' || substr(user_id::text, 9))::uuid, user_id FROM demo_users WHERE signed_in;
INSERT INTO public.accounts (user_id, tier)
SELECT user_id, tier FROM demo_users WHERE tier IS NOT NULL;

-- The published example, with all its values.
INSERT INTO public.api_keys (id, user_id, key_prefix, key_hash, name, tier, scopes, total_requests,
    last_used_at, created_at, expires_at)
VALUES
    ('00000000-0000-4000-8000-000000000123', '00000001-0000-4000-8000-000000000001', 'sk_live_zIc8',
        sha256('demo 123'), 'Production SIEM', 'pro',
        '{read:iocs,read:articles,read:articles:export,read:stix}', 142587,
        '2026-05-17T09:42:11Z', '2026-01-15T10:00:00Z', NULL),
    ('00000000-0000-4000-8000-000000000456', '00000001-0000-4000-8000-000000000001', 'sk_live_aB3x',
        sha256('demo 456'), 'Dev sandbox', 'free', '{read:iocs,read:articles}', 234,
        '2026-05-16T18:30:00Z', '2026-05-10T08:00:00Z', '2026-08-10T08:00:00Z');

INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name, tier, scopes, total_requests, created_at)
VALUES
    ('00000002-0000-4000-8000-000000000002', 'sk_live_Fr33', sha256('demo free'), 'My first key', 'free',
        '{read:iocs}', 7, now() - interval '3 days'),
    ('00000005-0000-4000-8000-000000000005', 'sk_live_Out1', sha256('demo out 1'), 'Old laptop', 'pro',
        '{read:iocs}', 12, now() - interval '300 days'),
    ('00000005-0000-4000-8000-000000000005', 'sk_live_Out2', sha256('demo out 2'), 'New laptop', 'pro',
        '{read:iocs}', 1, now() - interval '30 days');

INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name, tier, scopes, total_requests,
    last_used_at, created_at)
SELECT '00000004-0000-4000-8000-000000000004', 'sk_live_K' || to_char(n, 'FM000'),
    sha256(('demo thousand ' || n)::bytea), 'Sensor ' || n, CASE WHEN n % 3 = 0 THEN 'free' ELSE 'pro' END,
    '{read:iocs,read:articles}', n * 37, now() - n * interval '11 minutes', now() - (2000 - n) * interval '4 hours'
FROM generate_series(0, 999) AS n;

INSERT INTO public.api_keys (user_id, key_prefix, key_hash, name, tier, scopes, total_requests,
    last_used_at, created_at, expires_at, revoked_at)
SELECT '00000006-0000-4000-8000-000000000006', 'sk_live_Odd' || n, sha256(('demo odd ' || n)::bytea), name,
    'pro', scopes, n * 1000003, CASE WHEN n <> 2 THEN now() - n * n * interval '7 hours' END,
    now() - (100 - n) * interval '1 day', now() + expires, now() + revoked
FROM (VALUES
    (1, '<script>alert(1)</script><img src=x onerror=alert(2)>', '{read:iocs}'::text[], NULL::interval, NULL::interval),
    (2, 'مفتاح الإنتاج ‮abc', '{}', interval '5 days', NULL),
    (3, repeat('Wide', 25), '{read:iocs,read:articles,read:articles:export,read:stix}', NULL, interval '-2 days'),
    (4, '🔑 "quoted" & ''single'' \ back/slash', '{"scope with space","<b>bold</b>"}', interval '-1 day', NULL),
    (5, E'line\nbreak\tand tab', '{read:iocs}', interval '90 days', NULL),
    (6, 'a', '{read:iocs}', NULL, NULL)
) AS odd (n, name, scopes, expires, revoked);

COMMIT;
