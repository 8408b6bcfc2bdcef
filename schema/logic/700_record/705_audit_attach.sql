-- Which tables are audited, and how a user adds his own.

-- The arguments of a table's audit triggers, from 0 on (see audit_record); NULL where it is not audited.
CREATE OR REPLACE FUNCTION _tidemark.audit_arguments(p_table regclass)
    RETURNS text[]
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    -- Arguments are stored one after the other, each ended by a zero byte.
    SELECT (string_to_array(encode(t.tgargs, 'escape'), '\000'))[1:t.tgnargs]
      FROM pg_catalog.pg_trigger AS t
     WHERE t.tgrelid = p_table
       AND t.tgname = 'trg_audit_truncate';
$func$;
COMMENT ON FUNCTION _tidemark.audit_arguments(regclass) IS
'Arguments of a table''s audit triggers: label, key, bookkeeping, secrets, reason, time column; NULL: not audited.';

-- Tables whose record the caller may read: those of which he may read every row and, but for what is redacted, every
-- column. So the record shows nobody what the tables would not; of a table that is gone it shows its owner only.
CREATE OR REPLACE FUNCTION _tidemark.readable_records()
    RETURNS SETOF text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(v.arguments[1], _tidemark.label(c.oid))
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname !~ '^(_timescaledb_|pg_)'
     CROSS JOIN LATERAL (SELECT _tidemark.audit_arguments(c.oid) AS arguments) AS v
     WHERE c.relkind IN ('r', 'p')
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid
              AND a.attnum > 0
              AND NOT a.attisdropped
              AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')
              AND a.attname <> ALL (coalesce(v.arguments[4], '{}')::text[])
       )
       AND (NOT row_security_active(c.oid) OR EXISTS (
           SELECT FROM pg_catalog.pg_policy AS p
            WHERE p.polrelid = c.oid
              AND p.polpermissive
              AND p.polcmd IN ('*', 'r')
              AND pg_get_expr(p.polqual, p.polrelid) = 'true'
              AND EXISTS (SELECT FROM unnest(p.polroles) AS r (oid) WHERE r.oid = 0 OR pg_has_role(r.oid, 'USAGE'))
       ));
$func$;
COMMENT ON FUNCTION _tidemark.readable_records() IS
'Tables, as the record names them, of which the caller may read every row and all that is not redacted.';

-- Enters the rows that a table holds already, so that the record of it has a beginning.
CREATE OR REPLACE FUNCTION _tidemark.record_snapshot(p_table regclass)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
AS $func$
DECLARE
    v_arguments CONSTANT text[] := _tidemark.audit_arguments(p_table);
    v_row jsonb;
BEGIN
    FOR v_row IN EXECUTE format('SELECT to_jsonb(t.*) FROM %s AS t', p_table::text) LOOP
        PERFORM _tidemark.record_change(
            v_arguments[1], 'snapshot', v_arguments[2]::text[], '{}', v_arguments[4]::text[], false, NULL, v_row
        );
    END LOOP;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.record_snapshot(regclass) FROM public;
COMMENT ON FUNCTION _tidemark.record_snapshot(regclass) IS
'Enters the rows of a table into the record as they are now.';

-- Puts a table on the record: who changed which row, how, when and why, from now on. Any table will do, Tidemark's or
-- another. Calling it again with the same arguments changes nothing, with others replaces them. Columns may come and
-- go.
--
--   p_require_reason  refuse changes without tidemark.reason (TM401)
--   p_inserts         record INSERT too: on plain tables, whose present rows are then entered as snapshots, and not on
--                     hypertables
--   p_bookkeeping     columns whose change alone is none; by default those that Tidemark keeps (updated_at, …)
--   p_secrets         columns to redact, besides those in _tidemark.secret_columns()
--   p_keys            columns that identify a row; by default the primary key
--
-- The caller must own the table and be a superuser or a member of tidemark_owner. Raises TM402 for what cannot be
-- audited: a view, a chunk, a table of the record, a table without a key.
CREATE OR REPLACE FUNCTION public.attach_audit(
    p_table regclass,
    p_require_reason boolean DEFAULT false,
    p_inserts boolean DEFAULT NULL,
    p_bookkeeping text[] DEFAULT NULL,
    p_secrets text[] DEFAULT '{}',
    p_keys text[] DEFAULT NULL
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_table CONSTANT text := p_table::text; -- with its schema, which is not on the search_path
    v_schema CONSTANT name := (
        SELECT n.nspname
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.oid = p_table
    );
    v_is_new CONSTANT boolean := _tidemark.audit_arguments(p_table) IS NULL;
    v_bookkeeping CONSTANT text[] := coalesce(
        p_bookkeeping, _tidemark.bookkeeping_columns() || _tidemark.spelling_columns(p_table)
    );
    v_keys text[] := p_keys;
    v_time_column text;
    v_inserts boolean;
    v_arguments text;
    v_trigger record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = p_table AND c.relkind IN ('r', 'p'))
       OR v_schema ~ '^(_timescaledb_|pg_|information_schema$)'
       OR v_table IN ('public.audit_log', 'public.audit_tx', 'public.audit_seals', 'public.timeseries_archive') THEN
        RAISE EXCEPTION USING ERRCODE = 'TM402',
            MESSAGE = format('%s cannot be audited', coalesce(v_table, 'NULL')),
            DETAIL = 'It is no table, a chunk, or part of the record itself.',
            HINT = 'Name a plain table or a hypertable.';
    END IF;
    IF v_keys IS NULL THEN
        SELECT array_agg(a.attname ORDER BY x.place) INTO v_keys
          FROM pg_catalog.pg_index AS i
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS x (attnum, place)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = x.attnum
         WHERE i.indrelid = p_table
           AND i.indisprimary;
    END IF;
    IF coalesce(v_keys, '{}') = '{}' OR EXISTS (
        SELECT FROM unnest(v_keys) AS k (name)
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                            WHERE a.attrelid = p_table AND a.attname = k.name AND a.attnum > 0 AND NOT a.attisdropped)
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM402',
            MESSAGE = format('%s has no key to tell its rows apart by', v_table),
            DETAIL = format('key: %s', coalesce(v_keys::text, 'none')),
            HINT = 'Give it a primary key, or name its columns: attach_audit(…, p_keys => ARRAY[…]).';
    END IF;
    SELECT d.column_name INTO v_time_column
      FROM timescaledb_information.dimensions AS d
     WHERE format('%I.%I', d.hypertable_schema, d.hypertable_name) = v_table
       AND d.dimension_number = 1;
    v_inserts := coalesce(p_inserts, v_time_column IS NULL) AND v_time_column IS NULL;
    v_arguments := format(
        '%L, %L, %L, %L, %L, %L', _tidemark.label(p_table), v_keys, v_bookkeeping,
        _tidemark.secret_columns() || p_secrets, CASE WHEN p_require_reason THEN 'reason' ELSE '' END,
        coalesce(v_time_column, '')
    );

    -- Until commit, nobody changes a row that is neither in the snapshot nor seen by the triggers.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_table);
    FOR v_trigger IN
        SELECT t.name, t.definition, t.meaning
          FROM (VALUES
                ('trg_audit_truncate', 'BEFORE TRUNCATE ON %s FOR EACH STATEMENT '
                 'EXECUTE FUNCTION _tidemark.audit_truncate', true, NULL::boolean,
                 'Records what TRUNCATE removes.'),
                ('trg_audit_insert', 'AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT '
                 'EXECUTE FUNCTION _tidemark.audit_statement', v_inserts, false,
                 'Records inserted rows.'),
                ('trg_audit_update', 'AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
                 'FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.audit_statement', true, false,
                 'Records changed rows.'),
                ('trg_audit_delete', 'AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT '
                 'EXECUTE FUNCTION _tidemark.audit_statement', true, false,
                 'Records deleted rows.'),
                -- The rows as a whole: a trigger that names columns stands in the way of dropping them.
                ('trg_audit_update', 'AFTER UPDATE ON %s FOR EACH ROW WHEN (OLD.* OPERATOR(pg_catalog.*<>) NEW.*) '
                 'EXECUTE FUNCTION _tidemark.audit_hypertable_row', true, true,
                 'Records changed rows; scores are no change.'),
                ('trg_audit_delete', 'AFTER DELETE ON %s FOR EACH ROW '
                 'EXECUTE FUNCTION _tidemark.audit_hypertable_row', true, true,
                 'Records deleted rows and moves them to the archive.')
               ) AS t (name, definition, is_wanted, on_hypertable, meaning)
         WHERE t.is_wanted
           AND t.on_hypertable IS DISTINCT FROM (v_time_column IS NULL)
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I ' || v_trigger.definition || '(%s)', v_trigger.name, v_table,
                       v_arguments);
        EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', v_trigger.name, v_table, v_trigger.meaning);
        IF v_time_column IS NULL THEN -- TimescaleDB allows it on hypertables only from 2.27 on
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', v_table, v_trigger.name);
        END IF;
    END LOOP;
    IF NOT v_inserts
       AND EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                    WHERE t.tgrelid = p_table AND t.tgname = 'trg_audit_insert') THEN
        EXECUTE format('DROP TRIGGER trg_audit_insert ON %s', v_table);
    END IF;

    -- Errors show no secrets either. After other triggers of its kind, whose names come before.
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = p_table
                  AND a.attnum > 0
                  AND NOT a.attisdropped
                  AND a.attname = ANY (_tidemark.secret_columns() || p_secrets)) THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER trg_withhold_secrets BEFORE INSERT OR UPDATE ON %s '
                       'FOR EACH ROW EXECUTE FUNCTION _tidemark.withhold_secrets()', v_table);
        EXECUTE format('COMMENT ON TRIGGER trg_withhold_secrets ON %s IS %L', v_table,
                       'A constraint that fails does not show the row.');
    END IF;

    -- The record reads what it snapshots, counts before TRUNCATE, and writes what it restores.
    IF to_regrole('tidemark_record') IS NOT NULL THEN
        IF NOT has_schema_privilege('tidemark_record', v_schema, 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO tidemark_record', v_schema);
        END IF;
        EXECUTE format('GRANT SELECT%s ON %s TO tidemark_record',
                       CASE WHEN v_time_column IS NOT NULL THEN ', INSERT' END, v_table);
    END IF;
    IF v_is_new AND v_inserts THEN
        PERFORM _tidemark.record_snapshot(p_table);
    END IF;
END
$func$;
COMMENT ON FUNCTION public.attach_audit(regclass, boolean, boolean, text[], text[], text[]) IS
'Puts the changes of a table on record from now on; again with other arguments: changes them.';

-- Takes a table off the record; what is on it stays. Nothing happens where the table was not audited.
CREATE OR REPLACE FUNCTION public.detach_audit(p_table regclass)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_trigger name;
BEGIN
    FOR v_trigger IN
        SELECT t.tgname
          FROM pg_catalog.pg_trigger AS t
         WHERE t.tgrelid = p_table
           AND t.tgname IN ('trg_audit_insert', 'trg_audit_update', 'trg_audit_delete', 'trg_audit_truncate',
                            'trg_withhold_secrets')
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_trigger, p_table::text);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION public.detach_audit(regclass) IS 'Takes a table off the record; what is on it stays.';
