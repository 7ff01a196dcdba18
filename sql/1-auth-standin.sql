-- A stand-in for the two tables of Supabase's `auth` schema that the statement reads, with just the columns that it
-- reads, for a database outside Supabase. If auth.users exists already, this file changes nothing.
-- Types and names: github.com/supabase/auth, migrations.
SELECT to_regclass('auth.users') IS NULL AS standin_wanted \gset
\if :standin_wanted
BEGIN;

CREATE SCHEMA IF NOT EXISTS auth;
COMMENT ON SCHEMA auth IS 'Stand-in for the auth schema of Supabase';

CREATE TABLE auth.users (
    id uuid PRIMARY KEY,
    email varchar(255),
    banned_until timestamptz,
    deleted_at timestamptz
);
COMMENT ON TABLE auth.users IS 'People who can sign in (stand-in for Supabase auth.users)';
COMMENT ON COLUMN auth.users.id IS 'The token''s claim `sub`';
COMMENT ON COLUMN auth.users.email IS 'For people who read the table; the service never reads it';
COMMENT ON COLUMN auth.users.banned_until IS 'Refused until then; null: not banned';
COMMENT ON COLUMN auth.users.deleted_at IS 'Soft deletion; not null: refused';

CREATE TABLE auth.sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES auth.users ON DELETE CASCADE,
    created_at timestamptz DEFAULT now(),
    not_after timestamptz
);
CREATE INDEX sessions_user_id_idx ON auth.sessions (user_id);
COMMENT ON TABLE auth.sessions IS 'Live sessions; signing out deletes the row (stand-in for Supabase auth.sessions)';
COMMENT ON COLUMN auth.sessions.id IS 'The token''s claim `session_id`';
COMMENT ON COLUMN auth.sessions.user_id IS 'The user who signed in';
COMMENT ON COLUMN auth.sessions.created_at IS 'When the user signed in';
COMMENT ON COLUMN auth.sessions.not_after IS 'The session ends then; null: no end set';

COMMIT;
\endif
