"""Mutations of roles, privileges and row-level security."""

from __future__ import annotations

from . import Mutation, rewritten

ROWS, PRIVILEGES = "security/test_row_security.py", "security/test_privileges.py"

MUTATIONS = [
    Mutation(15, "positions have no policy", "ALTER TABLE positions DISABLE ROW LEVEL SECURITY", ROWS,
             "cannot_be_read"),
    Mutation(15, "everybody sees every alert", "CREATE POLICY open ON alerts USING (true)", ROWS, "cannot_be_read"),
    Mutation(15, "anybody looks up a login", rewritten("public.find_login",
             "coalesce(current_setting('tidemark.user_id', true), '') = ''", "true"), ROWS,
             "tell_an_application_nothing"),
    Mutation(15, "references tell whether another's row is there",
             "ALTER POLICY own ON notifications WITH CHECK (user_id = (SELECT _tidemark.current_user_id()))", ROWS,
             "does_not_tell"),
    Mutation(16, "rows can be given away", "ALTER POLICY own ON trades WITH CHECK (true)", ROWS, "given_to_another"),
    Mutation(16, "a user that is no uuid is an error",
             "CREATE OR REPLACE FUNCTION _tidemark.current_user_id() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE"
             " SET search_path = pg_catalog, pg_temp AS $$"
             " SELECT nullif(current_setting('tidemark.user_id', true), '')::uuid $$",
             ROWS, "without_a_user"),
    Mutation(16, "without a user everything is visible",
             "ALTER POLICY own ON watchlists USING (user_id = (SELECT _tidemark.current_user_id())"
             " OR (SELECT _tidemark.current_user_id()) IS NULL)", ROWS, "without_a_user"),
    Mutation(17, "a hypertable holds users' rows",
             "CREATE TABLE journal (user_id uuid, ts timestamptz NOT NULL);"
             " SELECT create_hypertable('journal', by_range('ts')); INSERT INTO journal"
             " VALUES (gen_random_uuid(), now()); GRANT SELECT ON journal TO tidemark_app", ROWS, "chunks"),
    Mutation(18, "readers read accounts", "GRANT SELECT ON users TO tidemark_reader", PRIVILEGES, "matrix"),
    Mutation(18, "everybody creates objects in public", "GRANT CREATE ON SCHEMA public TO PUBLIC", PRIVILEGES,
             "nobody_creates"),
    Mutation(18, "everybody seals", "GRANT EXECUTE ON FUNCTION seal_audit(interval, integer) TO PUBLIC", PRIVILEGES,
             "not_for_everybody"),
    Mutation(19, "a function takes the path of its caller", "ALTER FUNCTION public.find_login(text) RESET search_path",
             PRIVILEGES,
             "pins_its_search_path"),
    Mutation(19, "the trigger takes the path of the session",
             "ALTER FUNCTION _tidemark.audit_statement() SET search_path = hostile, pg_catalog, pg_temp", PRIVILEGES,
             "hostile"),
    Mutation(20, "a view runs as its owner", "ALTER VIEW open_positions_live SET (security_invoker = false)", ROWS,
             "runs_as_who"),
    Mutation(20, "a policy is evaluated for each row",
             "ALTER POLICY own ON alerts USING (user_id = _tidemark.current_user_id())", ROWS,
             "evaluated_once and alerts"),
    Mutation(21, "text becomes SQL",
             "CREATE OR REPLACE FUNCTION public.find_login(p_login text) RETURNS TABLE (user_id uuid,"
             " password_hash text, is_active boolean) LANGUAGE plpgsql STABLE SECURITY DEFINER"
             " SET search_path = pg_catalog, pg_temp AS $$"
             " BEGIN RETURN QUERY EXECUTE 'SELECT u.user_id, u.password_hash, u.is_active FROM public.users AS u"
             " WHERE u.username = ''' || p_login || ''''; END $$", PRIVILEGES, "never_taken_for_sql"),
]
