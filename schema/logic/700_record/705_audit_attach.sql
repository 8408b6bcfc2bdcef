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
'Arguments of a table''s audit triggers: label, key, bookkeeping, secrets, reason, time column, how long a row forms; '
'NULL: not audited.';

-- The name that the record has for a table: that which it had when it was first put on it; where it never was, its own.
CREATE OR REPLACE FUNCTION _tidemark.record_name(p_table regclass)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(
               (_tidemark.audit_arguments(p_table))[1],
               (SELECT s.record_name
                  FROM _tidemark.audit_shapes AS s
                 WHERE s.relation = p_table AND s.database = _tidemark.database_identity()
                 ORDER BY s.since DESC
                 LIMIT 1),
               _tidemark.label(p_table)
           );
$func$;
COMMENT ON FUNCTION _tidemark.record_name(regclass) IS 'The name that the record has for a table.';

-- A name for a table that comes on record: its own, with a number where another one goes by that already.
CREATE OR REPLACE FUNCTION _tidemark.free_record_name(p_table regclass)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH wanted AS MATERIALIZED (SELECT _tidemark.record_name(p_table) AS name)
    SELECT n.name
      FROM (SELECT w.name || CASE WHEN i > 1 THEN '~' || i ELSE '' END AS name, i
              FROM wanted AS w CROSS JOIN generate_series(1, 1000) AS i) AS n
     WHERE NOT EXISTS (
               SELECT FROM _tidemark.audit_shapes AS s
                 JOIN pg_catalog.pg_class AS c ON c.oid = s.relation
                WHERE s.record_name = n.name AND s.relation <> p_table AND s.database = _tidemark.database_identity()
           )
     ORDER BY n.i
     LIMIT 1;
$func$;
COMMENT ON FUNCTION _tidemark.free_record_name(regclass) IS 'A name for a table that comes on record.';

-- How the record knows a table: its name there, and its key and secret columns as they are called now. No row where it
-- is not audited.
CREATE OR REPLACE FUNCTION _tidemark.recorded_table(p_table regclass)
    RETURNS TABLE (record_name text, keys text[], secrets text[])
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT s.record_name, _tidemark.renamed(s.keys, k.columns, c.columns),
           s.secrets || _tidemark.renamed(s.secrets, k.columns, c.columns)
      FROM (SELECT _tidemark.columns_now(p_table) AS columns) AS c
     CROSS JOIN LATERAL (
               SELECT l.* FROM _tidemark.audit_shapes AS l
                WHERE l.record_name = (_tidemark.audit_arguments(p_table))[1]
                ORDER BY l.since DESC
                LIMIT 1
           ) AS s
     CROSS JOIN LATERAL (
               SELECT CASE WHEN s.columns = c.columns
                             OR (s.relation = p_table AND s.database = _tidemark.database_identity()) THEN s.columns
                           ELSE _tidemark.renumbered(s.columns, s.columns, c.columns, true) END AS columns
           ) AS k;
$func$;
COMMENT ON FUNCTION _tidemark.recorded_table(regclass) IS
'How the record knows a table: its name there, its key and secret columns as they are called now.';

-- The times of an audited table: entries from since on and below until name its columns as names says, from what they
-- are called now to what they were called then, null where they were not there; NULL where all is the same.
CREATE OR REPLACE FUNCTION _tidemark.recorded_shapes(p_table regclass)
    RETURNS TABLE (since bigint, until bigint, names jsonb)
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH shapes AS MATERIALIZED (
        SELECT s.*, c.columns AS now, row_number() OVER (ORDER BY s.since) AS place,
               lead(s.since) OVER (ORDER BY s.since) AS next,
               first_value(s.columns) OVER (ORDER BY s.since DESC) AS last
          FROM _tidemark.audit_shapes AS s
         CROSS JOIN (SELECT _tidemark.columns_now(p_table) AS columns) AS c
         WHERE s.record_name = _tidemark.record_name(p_table)
    )
    SELECT CASE WHEN s.place = 1 THEN 0 ELSE s.since END, coalesce(s.next, 9223372036854775807),
           CASE WHEN k.columns <> s.now THEN (
               -- Another name, or that of a column which is gone on another one.
               SELECT CASE WHEN bool_or(t.value <> n.value)
                             OR bool_or(n.key IS NULL AND EXISTS (
                                   SELECT FROM jsonb_each_text(s.now) AS v WHERE v.value = t.value))
                           THEN jsonb_object_agg(n.value, t.value) FILTER (WHERE n.value IS NOT NULL) END
                 FROM jsonb_each_text(k.columns) AS t
                 FULL JOIN jsonb_each_text(s.now) AS n ON n.key = t.key
           ) END
      FROM shapes AS s
     CROSS JOIN LATERAL (
               SELECT CASE WHEN s.columns = s.now
                             OR (s.relation = p_table AND s.database = _tidemark.database_identity()) THEN s.columns
                           ELSE _tidemark.renumbered(s.columns, s.last, s.now, true) END AS columns
           ) AS k;
$func$;
COMMENT ON FUNCTION _tidemark.recorded_shapes(regclass) IS
'From which entry of the record on, and up to which, the columns of a table were called what; NULL: as now.';

-- An object with column names as they were then, in today's: what is gone keeps its name, unless another column has it.
CREATE OR REPLACE FUNCTION _tidemark.in_todays_names(
    p_object jsonb,
    p_names jsonb
)
    RETURNS jsonb
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE WHEN p_names IS NULL OR p_object IS NULL THEN p_object ELSE (
        SELECT coalesce(jsonb_object_agg(coalesce(n.key, o.key), o.value), '{}')
          FROM jsonb_each(p_object) AS o
          LEFT JOIN jsonb_each_text(p_names) AS n ON n.value = o.key
         WHERE n.key IS NOT NULL OR NOT p_names ? o.key
    ) END;
$func$;
COMMENT ON FUNCTION _tidemark.in_todays_names(jsonb, jsonb) IS
'An object with column names as they were then, in today''s.';

-- A key in today's names, in those of then. NULL where one of its columns was not there.
CREATE OR REPLACE FUNCTION _tidemark.in_names_of_then(
    p_key jsonb,
    p_names jsonb
)
    RETURNS jsonb
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE WHEN p_names IS NULL THEN p_key ELSE (
        SELECT CASE WHEN count(p_names ->> k.key) = count(*)
                    THEN jsonb_object_agg(coalesce(p_names ->> k.key, ''), k.value) END
          FROM jsonb_each(p_key) AS k
    ) END;
$func$;
COMMENT ON FUNCTION _tidemark.in_names_of_then(jsonb, jsonb) IS
'A key in today''s column names, in those of then; NULL where one of its columns was not there.';

-- Tables whose record the caller may read: those of which he may read every row and, but for what is redacted, every
-- column. So the record shows nobody what the tables would not; of a table that is gone it shows its owner only.
CREATE OR REPLACE FUNCTION _tidemark.readable_records()
    RETURNS SETOF text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.record_name(c.oid)
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname !~ '^(_timescaledb_|pg_)'
      LEFT JOIN LATERAL _tidemark.recorded_table(c.oid) AS v ON true
     WHERE c.relkind IN ('r', 'p')
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid
              AND a.attnum > 0
              AND NOT a.attisdropped
              AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')
              AND a.attname <> ALL (coalesce(v.secrets, '{}'))
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
    v_shape CONSTANT _tidemark.audit_shapes :=
        _tidemark.audit_shape((_tidemark.audit_arguments(p_table))[1], p_table);
    v_row jsonb;
BEGIN
    FOR v_row IN EXECUTE format('SELECT to_jsonb(t.*) FROM %s AS t', p_table::text) LOOP
        PERFORM _tidemark.record_change(
            v_shape.record_name, 'snapshot', v_shape.keys, '{}', v_shape.secrets, false, NULL, v_row
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
--   p_forming         how long a row of a hypertable forms, from its time on; by default until its bar has closed, as
--                     scoring knows it, and not at all where scoring knows no bars. What changes meanwhile is recorded
--                     only with a reason (tidemark.reason), as correction (tidemark.ingest_mode), or where the row is
--                     on record already. 0: each change is recorded
--
-- Renaming the table or its columns changes nothing: the record follows them (audit_shapes). Its entries keep the names
-- that the columns had then, and the table the name that it had first; row_history, row_as_of and restore_archived take
-- and give today's.
--
-- The caller must own the table and be a superuser or a member of tidemark_owner. Raises TM402 for what cannot be
-- audited: a view, a chunk, a table of the record, a table without a key, and for p_forming where nothing forms.
CREATE OR REPLACE FUNCTION public.attach_audit(
    p_table regclass,
    p_require_reason boolean DEFAULT false,
    p_inserts boolean DEFAULT NULL,
    p_bookkeeping text[] DEFAULT NULL,
    p_secrets text[] DEFAULT '{}',
    p_keys text[] DEFAULT NULL,
    p_forming interval DEFAULT NULL
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
    v_record_name CONSTANT text := coalesce(
        (_tidemark.audit_arguments(p_table))[1], _tidemark.free_record_name(p_table)
    );
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
    IF p_forming IS NOT NULL AND (v_time_column IS NULL OR p_forming < interval '0') THEN
        RAISE EXCEPTION USING ERRCODE = 'TM402',
            MESSAGE = format('rows of %s do not form for %s', v_table, p_forming),
            DETAIL = 'A row of a hypertable forms from its time on, for a while.',
            HINT = 'Leave p_forming out.';
    END IF;
    v_inserts := coalesce(p_inserts, v_time_column IS NULL) AND v_time_column IS NULL;
    v_arguments := format(
        '%L, %L, %L, %L, %L, %L, %L', v_record_name, v_keys, v_bookkeeping,
        _tidemark.secret_columns() || p_secrets, CASE WHEN p_require_reason THEN 'reason' ELSE '' END,
        coalesce(v_time_column, ''), coalesce(p_forming::text, '')
    );

    -- Until commit, nobody changes a row that is neither in the snapshot nor seen by the triggers.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_table);
    PERFORM _tidemark.audit_shape(v_record_name, p_table, v_keys, _tidemark.secret_columns() || p_secrets, v_is_new);
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
                ('trg_audit_columns', 'BEFORE UPDATE OR DELETE ON %s FOR EACH STATEMENT '
                 'EXECUTE FUNCTION _tidemark.audit_columns', true, true,
                 'Notes what the columns are called, where that changed.'),
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
COMMENT ON FUNCTION public.attach_audit(regclass, boolean, boolean, text[], text[], text[], interval) IS
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
                            'trg_audit_columns', 'trg_withhold_secrets')
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_trigger, p_table::text);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION public.detach_audit(regclass) IS 'Takes a table off the record; what is on it stays.';
