-- Time travel: what happened to a row, and what it looked like at an instant.

-- A key as the record spells it, from one as people write it: the columns of the table's key, typed and rendered alike.
-- Raises TM404 where the table is not audited, TM405 where the key is not one of its rows.
CREATE OR REPLACE FUNCTION _tidemark.recorded_key(
    p_table regclass,
    p_key jsonb
)
    RETURNS jsonb
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
AS $func$
DECLARE
    v_keys CONSTANT text[] := (_tidemark.audit_arguments(p_table))[2];
    v_key jsonb;
BEGIN
    IF v_keys IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM404',
            MESSAGE = format('%s is not audited', coalesce(p_table::text, 'NULL')),
            HINT = 'SELECT attach_audit(…) puts a table on record.';
    END IF;
    IF jsonb_typeof(p_key) <> 'object' OR NOT p_key ?& v_keys THEN
        RAISE EXCEPTION USING ERRCODE = 'TM405',
            MESSAGE = format('a row of %s is told by %s', p_table, array_to_string(v_keys, ', ')),
            DETAIL = format('given: %s', p_key);
    END IF;
    EXECUTE format(
        'SELECT jsonb_object_agg(k.key, to_jsonb(r) -> k.key)'
        '  FROM jsonb_populate_record(NULL::%s, $1) AS r CROSS JOIN unnest($2) AS k (key)', p_table::text
    ) INTO v_key USING p_key, v_keys;
    RETURN v_key;
EXCEPTION WHEN data_exception THEN
    RAISE EXCEPTION USING ERRCODE = 'TM405',
        MESSAGE = format('that is not a key of %s', p_table),
        DETAIL = format('given: %s; %s', p_key, SQLERRM);
END
$func$;
COMMENT ON FUNCTION _tidemark.recorded_key(regclass, jsonb) IS
'A key as the record spells it; raises TM404 where the table is not audited, TM405 for what is no key.';

-- The recorded changes of the row with this key, oldest first, also those under keys that it had before or after. Where
-- the key was given to several rows, one after the other, those of all of them. Needs SELECT on audit_log.
CREATE OR REPLACE FUNCTION public.row_history(
    p_table regclass,
    p_key jsonb
)
    RETURNS SETOF public.audit_log
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN QUERY
    -- A life is a key and the numbers between which a row had it. Renaming an entry leads to the life before or after.
    WITH RECURSIVE lives AS (
        SELECT _tidemark.recorded_key(p_table, p_key) AS key, 0::bigint AS since, 9223372036854775807 AS until
        UNION
        SELECT n.key, n.since, n.until
          FROM lives AS v
         CROSS JOIN LATERAL (
                   -- The key before: since it was last given to a row.
                   SELECT l.row_key AS key,
                          coalesce((SELECT max(b.audit_id) FROM public.audit_log AS b
                                     WHERE b.table_name = l.table_name AND b.audit_id < l.audit_id
                                       AND ((b.row_key_hash = l.row_key_hash
                                             AND b.row_key = l.row_key AND b.operation = 'insert')
                                            OR (b.new_key_hash = l.row_key_hash
                                                AND b.new_key = l.row_key))), 0) AS since,
                          l.audit_id AS until
                     FROM public.audit_log AS l
                    WHERE l.table_name = _tidemark.label(p_table)
                      AND l.new_key_hash = jsonb_hash_extended(v.key, 0)
                      AND l.new_key = v.key
                      AND l.audit_id BETWEEN v.since AND v.until
                   UNION ALL
                   -- The key after: until it was next taken away.
                   SELECT l.new_key, l.audit_id,
                          coalesce((SELECT min(a.audit_id) FROM public.audit_log AS a
                                     WHERE a.table_name = l.table_name AND a.audit_id > l.audit_id
                                       AND a.row_key_hash = l.new_key_hash
                                       AND a.row_key = l.new_key
                                       AND (a.operation IN ('delete', 'truncate') OR a.new_key IS NOT NULL)),
                                   9223372036854775807)
                     FROM public.audit_log AS l
                    WHERE l.table_name = _tidemark.label(p_table)
                      AND l.row_key_hash = jsonb_hash_extended(v.key, 0)
                      AND l.row_key = v.key
                      AND l.new_key IS NOT NULL
                      AND l.audit_id BETWEEN v.since AND v.until
               ) AS n
    )
    SELECT l.*
      FROM public.audit_log AS l
     WHERE l.table_name = _tidemark.label(p_table)
       AND l.audit_id IN (
           SELECT e.audit_id
             FROM lives AS v
             JOIN public.audit_log AS e
               ON e.row_key_hash = jsonb_hash_extended(v.key, 0)
              AND e.row_key = v.key
              AND e.audit_id BETWEEN v.since AND v.until
       )
     ORDER BY l.audit_id;
END
$func$;
COMMENT ON FUNCTION public.row_history(regclass, jsonb) IS
'Recorded changes of a row, oldest first, followed through changes of its key.';

-- The row that had this key at that instant, as JSON; NULL where there was none. It is found from the end: the row as
-- it is, or as it was when it was deleted, with every later change undone. Secrets are redacted.
--
-- Of a hypertable INSERT is not recorded: there a row is taken to have existed from its ingested_at or computed_at on,
-- where it has such a column, and NULL stands for a row whose chunk was dropped. Of a plain table nothing is known from
-- before its snapshot: NULL.
-- Needs SELECT on audit_log and on the table.
CREATE OR REPLACE FUNCTION public.row_as_of(
    p_table regclass,
    p_key jsonb,
    p_at timestamptz
)
    RETURNS jsonb
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
AS $func$
DECLARE
    v_label CONSTANT text := _tidemark.label(p_table);
    v_arguments CONSTANT text[] := _tidemark.audit_arguments(p_table);
    v_key jsonb := _tidemark.recorded_key(p_table, p_key);
    v_entry public.audit_log;
    v_undo jsonb[] := '{}';
    v_row jsonb;
    v_values jsonb;
BEGIN
    -- Forward, from what next happened to the key to the end of the row that has it.
    LOOP
        SELECT l.* INTO v_entry
          FROM public.audit_log AS l
         WHERE l.table_name = v_label
           AND ((l.row_key_hash = jsonb_hash_extended(v_key, 0) AND l.row_key = v_key)
                OR (l.new_key_hash = jsonb_hash_extended(v_key, 0) AND l.new_key = v_key))
           AND CASE WHEN v_entry.audit_id IS NULL THEN l.changed_at > p_at ELSE l.audit_id > v_entry.audit_id END
         ORDER BY l.audit_id
         LIMIT 1;
        IF NOT FOUND THEN
            EXECUTE format(
                'SELECT to_jsonb(t.*) FROM %s AS t '
                'WHERE (%s) = (SELECT %s FROM jsonb_populate_record(NULL::%s, $1) AS k)',
                p_table::text,
                (SELECT string_agg(format('t.%I', c.name), ', ') FROM unnest(v_arguments[2]::text[]) AS c (name)),
                (SELECT string_agg(format('k.%I', c.name), ', ') FROM unnest(v_arguments[2]::text[]) AS c (name)),
                p_table::text
            ) INTO v_row USING v_key;
            v_row := _tidemark.redact(v_row, v_arguments[4]::text[]);
            -- An arrival is undone below like any other change, so that a row counts from its first one on.
            EXIT;
        ELSIF v_entry.row_key IS DISTINCT FROM v_key OR v_entry.operation IN ('insert', 'snapshot') THEN
            EXIT; -- nobody had the key then, or nothing is known of it
        ELSIF v_entry.operation <> 'update' THEN
            v_row := v_entry.old_values;
            EXIT;
        END IF;
        v_undo := v_entry.old_values || v_undo;
        v_key := coalesce(v_entry.new_key, v_key);
    END LOOP;
    FOREACH v_values IN ARRAY v_undo LOOP
        v_row := v_row || v_values;
    END LOOP;
    IF v_arguments[6] <> '' AND coalesce(v_row ->> 'ingested_at', v_row ->> 'computed_at')::timestamptz > p_at THEN
        RETURN NULL;
    END IF;
    RETURN v_row;
END
$func$;
COMMENT ON FUNCTION public.row_as_of(regclass, jsonb, timestamptz) IS
'The row that had a key at an instant, as JSON; NULL where there was none or nothing is known.';
