-- A database as a Supabase project has it, as far as the keys service meets it: the roles and their
-- attributes, the schema auth with its owner and grants, what `public` grants by default, and the
-- event trigger that new projects are offered ("Enable automatic RLS").
-- Applied by the superuser supabase_admin to an empty database `postgres` of a cluster of its own. The tables of the
-- schema auth come from supabase_auth.sql, or from the auth server itself (tests/supabase).
-- Source: github.com/supabase/postgres, migrations/db (initial schema, auth schema, demote-postgres,
-- update-auth-permissions, revoke of supabase_auth_admin from postgres).

CREATE ROLE postgres LOGIN NOSUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS;
CREATE ROLE anon NOLOGIN NOINHERIT;
CREATE ROLE authenticated NOLOGIN NOINHERIT;
CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
CREATE ROLE authenticator LOGIN NOINHERIT;
CREATE ROLE dashboard_user NOLOGIN CREATEDB CREATEROLE REPLICATION;
CREATE ROLE supabase_auth_admin LOGIN NOINHERIT CREATEROLE;
GRANT anon, authenticated, service_role TO authenticator, postgres;
ALTER ROLE supabase_auth_admin SET search_path = auth;
ALTER DATABASE postgres OWNER TO postgres;

GRANT USAGE ON SCHEMA public TO postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public
    GRANT ALL ON TABLES TO postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public
    GRANT ALL ON SEQUENCES TO postgres, anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public
    GRANT ALL ON FUNCTIONS TO postgres, anon, authenticated, service_role;

CREATE SCHEMA auth AUTHORIZATION supabase_admin;
GRANT ALL ON SCHEMA auth TO supabase_auth_admin, dashboard_user;
GRANT USAGE ON SCHEMA auth TO postgres, anon, authenticated, service_role;

CREATE FUNCTION public.enable_row_security() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    command record;
BEGIN
    FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
        IF command.schema_name = 'public' AND command.object_type IN ('table', 'partitioned table') THEN
            EXECUTE format('ALTER TABLE IF EXISTS %s ENABLE ROW LEVEL SECURITY', command.object_identity);
        END IF;
    END LOOP;
END
$$;
ALTER FUNCTION public.enable_row_security() OWNER TO postgres;
CREATE EVENT TRIGGER automatic_row_security ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') EXECUTE FUNCTION public.enable_row_security();
