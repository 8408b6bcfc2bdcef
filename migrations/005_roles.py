"""Roles, which other databases of the server may share."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"000_extensions"}

steps = [step(state(__file__), """
-- A role goes when nothing in any database needs it and nobody is a member of it.
DO $do$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY[
        'tidemark_reader', 'tidemark_app', 'tidemark_writer', 'tidemark_admin', 'tidemark_record', 'tidemark_owner'
    ] LOOP
        CONTINUE WHEN to_regrole(v_role) IS NULL;
        BEGIN
            -- What a user made of it in this database becomes ours, its privileges go.
            EXECUTE format('REASSIGN OWNED BY %I TO CURRENT_USER', v_role);
            EXECUTE format('DROP OWNED BY %I', v_role);
            IF EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = to_regrole(v_role)) THEN
                RAISE NOTICE 'role % stays: it has members', v_role;
            ELSE
                EXECUTE format('DROP ROLE %I', v_role);
            END IF;
        EXCEPTION
            WHEN dependent_objects_still_exist THEN
                RAISE NOTICE 'role % stays: another database uses it', v_role;
            WHEN undefined_object THEN
                NULL; -- another database of the server was faster
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % stays: % may not drop it', v_role, current_user;
        END;
    END LOOP;
END
$do$;
""")]
