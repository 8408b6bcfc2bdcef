-- Time travel: what happened to a row, and what it looked like at an instant.

-- A key as the record spells it, from one as people write it: the columns of the table's key, by their names of today,
-- typed and rendered alike.
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
    v_keys CONSTANT text[] := (SELECT r.keys FROM _tidemark.recorded_table(p_table) AS r);
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
-- the key was given to several rows, one after the other, those of all of them. The key is in the names that its
-- columns have today; the entries have those of their time. Needs SELECT on audit_log.
CREATE OR REPLACE FUNCTION public.row_history(
    p_table regclass,
    p_key jsonb
)
    RETURNS SETOF public.audit_log
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_key CONSTANT jsonb := _tidemark.recorded_key(p_table, p_key);
    v_name CONSTANT text := _tidemark.record_name(p_table);
BEGIN
    RETURN QUERY
    -- A life is a key and the numbers between which a row had it. Renaming an entry leads to the life before or after.
    -- Keys are in today's names of the columns here; an entry has those of its time.
    WITH RECURSIVE shapes AS MATERIALIZED (
        SELECT h.since, h.until, h.names FROM _tidemark.recorded_shapes(p_table) AS h
    ), lives AS (
        SELECT v_key AS key, 0::bigint AS since, 9223372036854775807 AS until
        UNION
        SELECT _tidemark.in_todays_names(n.key, n.names), n.since, n.until
          FROM lives AS v
         CROSS JOIN shapes AS h
         CROSS JOIN LATERAL (
                   SELECT k.key, jsonb_hash_extended(k.key, 0) AS hash
                     FROM (SELECT _tidemark.in_names_of_then(v.key, h.names) AS key) AS k
               ) AS k
         CROSS JOIN LATERAL (
                   -- The key before: since it was last given to a row.
                   SELECT l.row_key AS key, h.names,
                          coalesce((SELECT max(b.audit_id)
                                      FROM shapes AS g
                                     CROSS JOIN LATERAL (SELECT _tidemark.in_names_of_then(
                                               _tidemark.in_todays_names(l.row_key, h.names), g.names) AS key) AS e
                                      JOIN public.audit_log AS b
                                        ON (b.row_key_hash = jsonb_hash_extended(e.key, 0)
                                            AND b.row_key = e.key AND b.operation = 'insert')
                                        OR (b.new_key_hash = jsonb_hash_extended(e.key, 0) AND b.new_key = e.key)
                                     WHERE b.table_name = l.table_name AND b.audit_id < l.audit_id
                                       AND b.audit_id >= g.since AND b.audit_id < g.until), 0) AS since,
                          l.audit_id AS until
                     FROM public.audit_log AS l
                    WHERE l.table_name = v_name
                      AND l.new_key_hash = k.hash
                      AND l.new_key = k.key
                      AND l.audit_id BETWEEN v.since AND v.until
                      AND l.audit_id >= h.since AND l.audit_id < h.until
                   UNION ALL
                   -- The key after: until it was next taken away.
                   SELECT l.new_key, h.names, l.audit_id,
                          coalesce((SELECT min(a.audit_id)
                                      FROM shapes AS g
                                     CROSS JOIN LATERAL (SELECT _tidemark.in_names_of_then(
                                               _tidemark.in_todays_names(l.new_key, h.names), g.names) AS key) AS e
                                      JOIN public.audit_log AS a
                                        ON a.row_key_hash = jsonb_hash_extended(e.key, 0) AND a.row_key = e.key
                                     WHERE a.table_name = l.table_name AND a.audit_id > l.audit_id
                                       AND a.audit_id >= g.since AND a.audit_id < g.until
                                       AND (a.operation IN ('delete', 'truncate') OR a.new_key IS NOT NULL)),
                                   9223372036854775807)
                     FROM public.audit_log AS l
                    WHERE l.table_name = v_name
                      AND l.row_key_hash = k.hash
                      AND l.row_key = k.key
                      AND l.new_key IS NOT NULL
                      AND l.audit_id BETWEEN v.since AND v.until
                      AND l.audit_id >= h.since AND l.audit_id < h.until
               ) AS n (key, names, since, until)
    )
    SELECT l.*
      FROM public.audit_log AS l
     WHERE l.table_name = v_name
       AND l.audit_id IN (
           SELECT e.audit_id
             FROM lives AS v
            CROSS JOIN shapes AS h
            CROSS JOIN LATERAL (SELECT _tidemark.in_names_of_then(v.key, h.names) AS key) AS k
             JOIN public.audit_log AS e
               ON e.row_key_hash = jsonb_hash_extended(k.key, 0)
              AND e.row_key = k.key
              AND e.audit_id BETWEEN v.since AND v.until
              AND e.audit_id >= h.since AND e.audit_id < h.until
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
-- where it has such a column, and NULL stands for a row whose chunk was dropped, and
-- for what a bar was while it formed. Of a plain table nothing is known from
-- before its snapshot: NULL. Columns, also those of the key, have the names of today.
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
    v_name CONSTANT text := _tidemark.record_name(p_table);
    v_table record;
    v_key jsonb := _tidemark.recorded_key(p_table, p_key);
    v_since bigint[];
    v_until bigint[];
    v_names jsonb[];
    v_entry record;
    v_last bigint;
    v_undo jsonb[] := '{}';
    v_row jsonb;
    v_values jsonb;
BEGIN
    SELECT r.keys, r.secrets INTO v_table FROM _tidemark.recorded_table(p_table) AS r;
    SELECT array_agg(h.since), array_agg(h.until), array_agg(h.names) INTO v_since, v_until, v_names
      FROM _tidemark.recorded_shapes(p_table) AS h;
    -- Forward, from what next happened to the key to the end of the row that has it.
    LOOP
        SELECT l.audit_id, l.operation, _tidemark.in_todays_names(l.row_key, h.names) AS row_key,
               _tidemark.in_todays_names(l.new_key, h.names) AS new_key,
               _tidemark.in_todays_names(l.old_values, h.names) AS old_values
          INTO v_entry
          FROM unnest(v_since, v_until, v_names) AS h (since, until, names)
         CROSS JOIN LATERAL (SELECT _tidemark.in_names_of_then(v_key, h.names) AS key) AS k
          JOIN public.audit_log AS l
            ON (l.row_key_hash = jsonb_hash_extended(k.key, 0) AND l.row_key = k.key)
            OR (l.new_key_hash = jsonb_hash_extended(k.key, 0) AND l.new_key = k.key)
         WHERE l.table_name = v_name
           AND l.audit_id >= h.since
           AND l.audit_id < h.until
           AND CASE WHEN v_last IS NULL THEN l.changed_at > p_at ELSE l.audit_id > v_last END
         ORDER BY l.audit_id
         LIMIT 1;
        IF NOT FOUND THEN
            EXECUTE format(
                'SELECT to_jsonb(t.*) FROM %s AS t '
                'WHERE (%s) = (SELECT %s FROM jsonb_populate_record(NULL::%s, $1) AS k)',
                p_table::text,
                (SELECT string_agg(format('t.%I', c.name), ', ') FROM unnest(v_table.keys) AS c (name)),
                (SELECT string_agg(format('k.%I', c.name), ', ') FROM unnest(v_table.keys) AS c (name)),
                p_table::text
            ) INTO v_row USING v_key;
            v_row := _tidemark.redact(v_row, v_table.secrets);
            -- An arrival is undone below like any other change, so that a row counts from its first one on.
            EXIT;
        END IF;
        IF v_entry.row_key IS DISTINCT FROM v_key OR v_entry.operation IN ('insert', 'snapshot') THEN
            EXIT; -- nobody had the key then, or nothing is known of it
        ELSIF v_entry.operation <> 'update' THEN
            v_row := v_entry.old_values;
            EXIT;
        END IF;
        v_last := v_entry.audit_id;
        v_undo := v_entry.old_values || v_undo;
        v_key := coalesce(v_entry.new_key, v_key);
    END LOOP;
    FOREACH v_values IN ARRAY v_undo LOOP
        v_row := v_row || v_values;
    END LOOP;
    IF _tidemark.is_hypertable(p_table)
       AND (coalesce(v_row ->> 'ingested_at', v_row ->> 'computed_at')::timestamptz > p_at
            OR (p_at < statement_timestamp()
                AND _tidemark.is_forming(p_table, v_row, _tidemark.time_column(p_table),
                                         nullif((_tidemark.audit_arguments(p_table))[7], '')::interval, p_at)
                -- Once a row is on record all of its changes are.
                AND NOT EXISTS (SELECT FROM public.row_history(p_table, p_key) AS h WHERE h.changed_at <= p_at))) THEN
        RETURN NULL;
    END IF;
    RETURN v_row;
END
$func$;
COMMENT ON FUNCTION public.row_as_of(regclass, jsonb, timestamptz) IS
'The row that had a key at an instant, as JSON; NULL where there was none or nothing is known.';
