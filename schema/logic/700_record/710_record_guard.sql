-- The record is append-only: nobody changes, deletes or truncates a row of it, with whatever privileges. Only a
-- superuser could switch this off, and verify_audit() would find what he did.
--
-- One change is allowed, because restoring needs it: an archived row is marked as restored, once.

CREATE OR REPLACE FUNCTION _tidemark.refuse_record_change()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    -- TG_OP first: a statement trigger has neither OLD nor NEW.
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'timeseries_archive' THEN
        IF to_jsonb(OLD) ->> 'restored_at' IS NULL
           AND to_jsonb(OLD) - 'restored_at' = to_jsonb(NEW) - 'restored_at' THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'TM403',
        MESSAGE = format('%s is append-only', TG_TABLE_NAME),
        DETAIL = format('%s is refused', TG_OP),
        HINT = 'Record what is right with a new change.',
        TABLE = TG_TABLE_NAME;
END
$func$;
COMMENT ON FUNCTION _tidemark.refuse_record_change() IS
'Trigger of the tables of the record: refuses every change of what is there.';

DO $do$
DECLARE
    v_table text;
    v_trigger record;
BEGIN
    -- These tables are guarded against DDL too; see record_ddl_guard.
    PERFORM set_config('tidemark.record_maintenance', 'on', true);
    FOREACH v_table IN ARRAY ARRAY['audit_log', 'audit_tx', 'audit_seals', 'timeseries_archive'] LOOP
        FOR v_trigger IN
            SELECT t.name, t.event, t.level
              FROM (VALUES ('trg_refuse_change', 'UPDATE OR DELETE', 'ROW'),
                           ('trg_refuse_truncate', 'TRUNCATE', 'STATEMENT')) AS t (name, event, level)
        LOOP
            EXECUTE format(
                'CREATE OR REPLACE TRIGGER %I BEFORE %s ON public.%I FOR EACH %s '
                'EXECUTE FUNCTION _tidemark.refuse_record_change()',
                v_trigger.name, v_trigger.event, v_table, v_trigger.level
            );
            -- Also where session_replication_role says that triggers do not fire.
            EXECUTE format('ALTER TABLE public.%I ENABLE ALWAYS TRIGGER %I', v_table, v_trigger.name);
            EXECUTE format(
                'COMMENT ON TRIGGER %I ON public.%I IS %L', v_trigger.name, v_table,
                'The record is append-only: refuses ' || v_trigger.event || '.'
            );
        END LOOP;
    END LOOP;
    PERFORM set_config('tidemark.record_maintenance', '', true);
END
$do$;
