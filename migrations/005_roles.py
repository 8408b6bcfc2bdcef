"""Roles, which other databases of the server may share."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"000_extensions"}

steps = [step(state(__file__), """
-- A role goes when nothing in any database needs it and nobody is a member of it.
DO $do$
DECLARE
    v_role text;
    v_is_let_in boolean;
BEGIN
    FOREACH v_role IN ARRAY ARRAY[
        'tidemark_reader', 'tidemark_app', 'tidemark_writer', 'tidemark_admin', 'tidemark_record', 'tidemark_owner'
    ] LOOP
        CONTINUE WHEN to_regrole(v_role) IS NULL;
        BEGIN
            -- Who made a role without being a superuser has no rights of it, but may let himself in: with CREATEROLE,
            -- and since PostgreSQL 16 as its administrator.
            v_is_let_in := NOT pg_has_role(v_role, 'USAGE');
            IF v_is_let_in THEN
                EXECUTE format('GRANT %I TO CURRENT_USER%s', v_role, CASE
                    WHEN current_setting('server_version_num')::integer >= 160000 THEN ' WITH INHERIT TRUE, SET TRUE'
                END);
            END IF;
            -- What a user made of it in this database becomes ours, its privileges go.
            EXECUTE format('REASSIGN OWNED BY %I TO CURRENT_USER', v_role);
            EXECUTE format('DROP OWNED BY %I', v_role);
            IF EXISTS (
                SELECT FROM pg_catalog.pg_auth_members AS m
                 WHERE m.roleid = to_regrole(v_role) AND m.member <> current_user::regrole
            ) THEN
                RAISE NOTICE 'role % stays: it has members', v_role;
                IF v_is_let_in THEN
                    EXECUTE format(CASE WHEN current_setting('server_version_num')::integer >= 160000
                                        THEN 'GRANT %I TO CURRENT_USER WITH INHERIT FALSE, SET FALSE'
                                        ELSE 'REVOKE %I FROM CURRENT_USER' END, v_role);
                END IF;
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
