-- The record's tables cannot be dropped or altered, nor their triggers switched off, by accident: not even by a
-- superuser, unless he says that he means it, in the same transaction:
--
--     SET LOCAL tidemark.record_maintenance = 'on';
--
-- as a migration that changes them has to. For others the setting means nothing, nor do they own these tables. Creating
-- event triggers takes a superuser; without one the tables are protected by ownership alone.

CREATE OR REPLACE FUNCTION _tidemark.refuse_record_ddl()
    RETURNS event_trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_object text;
BEGIN
    IF current_setting('tidemark.record_maintenance', true) = 'on'
       AND (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) THEN
        RETURN;
    END IF;
    -- What an object stands on is named last: 'trg_refuse_change on public.audit_log'.
    IF TG_EVENT = 'sql_drop' THEN
        SELECT o.object_identity INTO v_object
          FROM pg_event_trigger_dropped_objects() AS o
         WHERE o.object_type IN ('table', 'trigger', 'table constraint', 'table column', 'rule')
           AND o.object_identity ~ '(^|\son\s)public\.(audit_log|audit_tx|audit_seals|timeseries_archive)(\.\w+)?$'
         LIMIT 1;
    ELSE
        SELECT o.object_identity INTO v_object
          FROM pg_event_trigger_ddl_commands() AS o
         WHERE o.object_type IN ('table', 'trigger', 'table constraint', 'table column', 'rule', 'policy')
           AND o.object_identity ~ '(^|\son\s)public\.(audit_log|audit_tx|audit_seals|timeseries_archive)(\.\w+)?$'
         LIMIT 1;
    END IF;
    IF v_object IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM407',
            MESSAGE = format('%s is part of the record', v_object),
            DETAIL = format('%s is refused', TG_TAG),
            HINT = 'A migration that has to change it sets tidemark.record_maintenance = ''on'' for its transaction.';
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.refuse_record_ddl() IS
'Event trigger: refuses to drop or alter the tables of the record.';

DO $do$
DECLARE
    v_trigger record;
BEGIN
    IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE NOTICE 'the record is not guarded against DDL: % may not create event triggers', current_user;
        RETURN;
    END IF;
    FOR v_trigger IN
        SELECT t.name, t.event, t.tags
          FROM (VALUES
                ('trg_tidemark_record_drop', 'sql_drop',
                 '{DROP TABLE,DROP TRIGGER,DROP FUNCTION,DROP ROUTINE,DROP SCHEMA,DROP TYPE,DROP OWNED,DROP RULE,'
                 'DROP EXTENSION,ALTER TABLE}'::text[]),
                ('trg_tidemark_record_alter', 'ddl_command_end',
                 '{ALTER TABLE,CREATE TRIGGER,ALTER TRIGGER,CREATE RULE,ALTER RULE,CREATE POLICY,ALTER POLICY}')
               ) AS t (name, event, tags)
    LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_event_trigger AS e WHERE e.evtname = v_trigger.name) THEN
            EXECUTE format('DROP EVENT TRIGGER %I', v_trigger.name);
        END IF;
        EXECUTE format(
            'CREATE EVENT TRIGGER %I ON %s WHEN TAG IN (%s) EXECUTE FUNCTION _tidemark.refuse_record_ddl()',
            v_trigger.name, v_trigger.event,
            (SELECT string_agg(quote_literal(g.tag), ', ') FROM unnest(v_trigger.tags) AS g (tag))
        );
        -- Also where session_replication_role says that triggers do not fire.
        EXECUTE format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', v_trigger.name);
        EXECUTE format('COMMENT ON EVENT TRIGGER %I IS %L', v_trigger.name, 'Guards the tables of the record.');
    END LOOP;
END
$do$;
