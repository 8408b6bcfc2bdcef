-- The archive: rows deleted from hypertables, and how they come back.

-- Brings back rows of a hypertable that were deleted between two instants and whose columns, as they are called today,
-- contain p_key, e.g. {"source_id": 1}. Of a row that was deleted several times in between, the last. Returns how many
-- came back: rows that were restored already do not count, so a second call changes nothing. Where one of the keys is
-- taken by a row that came later, nothing is restored and TM406 names it; TM404 where the table is no audited
-- hypertable.
--
-- What quality had found when the rows arrived comes back with them (lateness is judged only then); the rest is judged
-- anew, since other rows may have changed. Aggregates see an ordinary INSERT.
CREATE OR REPLACE FUNCTION public.restore_archived(
    p_table regclass,
    p_key jsonb DEFAULT '{}',
    p_deleted_from timestamptz DEFAULT '-infinity',
    p_deleted_to timestamptz DEFAULT 'infinity'
)
    RETURNS bigint
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
    v_table record;
    v_mode CONSTANT text := coalesce(current_setting('tidemark.ingest_mode', true), '');
    v_archive_ids bigint[];
    v_batch record;
    v_detail text;
BEGIN
    IF coalesce(v_arguments[6], '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'TM404',
            MESSAGE = format('%s is not an audited hypertable', coalesce(p_table::text, 'NULL')),
            HINT = 'Only what is deleted from hypertables on record goes to the archive: see attach_audit.';
    END IF;
    SELECT r.record_name, r.keys, r.secrets INTO v_table FROM _tidemark.recorded_table(p_table) AS r;
    SELECT array_agg(d.archive_id) INTO v_archive_ids
      FROM (
        SELECT DISTINCT ON (k.key) a.archive_id, a.restored_at
          FROM public.timeseries_archive AS a
          LEFT JOIN _tidemark.recorded_shapes(p_table) AS h ON a.audit_id >= h.since AND a.audit_id < h.until
         CROSS JOIN LATERAL (SELECT _tidemark.in_todays_names(a.row, h.names) AS row) AS t
         CROSS JOIN LATERAL (
                   SELECT jsonb_object_agg(c.name, t.row -> c.name) AS key FROM unnest(v_table.keys) AS c (name)
               ) AS k
         WHERE a.table_name = v_table.record_name
           AND a.deleted_at BETWEEN p_deleted_from AND p_deleted_to
           AND t.row @> p_key
         ORDER BY k.key, a.archive_id DESC
      ) AS d
     WHERE d.restored_at IS NULL;
    IF v_archive_ids IS NULL THEN
        RETURN 0;
    END IF;
    -- Two sessions that restore the same rows take turns; the second finds them restored.
    PERFORM FROM public.timeseries_archive AS a
      WHERE a.archive_id = ANY (v_archive_ids)
      ORDER BY a.archive_id
        FOR UPDATE;
    UPDATE public.timeseries_archive AS a
       SET restored_at = clock_timestamp()
     WHERE a.archive_id = ANY (v_archive_ids)
       AND a.restored_at IS NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;

    INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, rule_id, detail, created_at)
    SELECT i.table_name, i.series, i.ts, i.penalty, i.points, i.rule_id, i.detail, i.created_at
      FROM public.timeseries_archive AS a
     CROSS JOIN LATERAL jsonb_populate_recordset(NULL::public.quality_issues, a.findings -> 'issues') AS i
     WHERE a.archive_id = ANY (v_archive_ids)
       AND (i.rule_id IS NULL OR EXISTS (SELECT FROM public.validation_rules AS r WHERE r.rule_id = i.rule_id))
    ON CONFLICT DO NOTHING;
    INSERT INTO public.anomalies
    SELECT (jsonb_populate_record(n, jsonb_build_object('episode_id', e.anomaly_id))).*
      FROM public.timeseries_archive AS a
     CROSS JOIN LATERAL jsonb_populate_recordset(NULL::public.anomalies, a.findings -> 'anomalies') AS n
      LEFT JOIN public.anomalies AS e ON e.anomaly_id = n.episode_id
     WHERE a.archive_id = ANY (v_archive_ids)
    ON CONFLICT DO NOTHING;

    PERFORM set_config('tidemark.ingest_mode', 'replay', true);
    BEGIN
        -- Columns that the table got since then take their defaults, those that it lost are left out.
        FOR v_batch IN
            SELECT c.columns, c.values, array_agg(n.row) AS rows
              FROM public.timeseries_archive AS a
              LEFT JOIN _tidemark.recorded_shapes(p_table) AS h ON a.audit_id >= h.since AND a.audit_id < h.until
             CROSS JOIN LATERAL (SELECT _tidemark.in_todays_names(a.row, h.names) AS row) AS n
             CROSS JOIN LATERAL (
                       SELECT string_agg(quote_ident(t.attname), ', ' ORDER BY t.attnum) AS columns,
                              string_agg('r.' || quote_ident(t.attname), ', ' ORDER BY t.attnum) AS values
                         FROM pg_catalog.pg_attribute AS t
                        WHERE t.attrelid = p_table
                          AND t.attnum > 0
                          AND NOT t.attisdropped
                          AND t.attgenerated = ''
                          AND n.row ? t.attname
                   ) AS c
             WHERE a.archive_id = ANY (v_archive_ids)
             GROUP BY c.columns, c.values
        LOOP
            EXECUTE format(
                'INSERT INTO %1$s (%2$s) SELECT %3$s FROM unnest($1) AS a (row) '
                'CROSS JOIN LATERAL jsonb_populate_record(NULL::%1$s, a.row) AS r',
                p_table::text, v_batch.columns, v_batch.values
            ) USING v_batch.rows;
        END LOOP;
    EXCEPTION WHEN unique_violation THEN
        GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
        RAISE EXCEPTION USING ERRCODE = 'TM406',
            MESSAGE = format('a deleted row of %s cannot come back: its key is taken', p_table),
            DETAIL = v_detail,
            HINT = 'Delete the row that has the key now, or restore others only.';
    END;
    PERFORM set_config('tidemark.ingest_mode', v_mode, true);
    PERFORM _tidemark.audit_shape(v_table.record_name, p_table); -- the entries have today's names
    PERFORM _tidemark.record_change(
        v_table.record_name, 'insert', v_table.keys, '{}', v_table.secrets, v_arguments[5] = 'reason', NULL,
        _tidemark.in_todays_names(a.row, h.names)
    )
       FROM public.timeseries_archive AS a
       LEFT JOIN _tidemark.recorded_shapes(p_table) AS h ON a.audit_id >= h.since AND a.audit_id < h.until
      WHERE a.archive_id = ANY (v_archive_ids);
    RETURN cardinality(v_archive_ids);
END
$func$;
REVOKE ALL ON FUNCTION public.restore_archived(regclass, jsonb, timestamptz, timestamptz) FROM public;
COMMENT ON FUNCTION public.restore_archived(regclass, jsonb, timestamptz, timestamptz) IS
'Brings back rows deleted from a hypertable, with their scores; returns how many.';

-- Enters into the record that a chunk is about to be dropped: what it spans, how many rows, and their checksum. Where
-- data_policies says so, its rows go to the archive, in the transaction that drops it.
CREATE OR REPLACE FUNCTION _tidemark.record_chunk_drop(
    p_hypertable regclass,
    p_chunk regclass,
    p_from timestamptz,
    p_to timestamptz,
    p_rows bigint,
    p_checksum text
)
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
    v_label CONSTANT text := _tidemark.record_name(p_hypertable);
    v_is_kept CONSTANT boolean := EXISTS (
        SELECT FROM public.data_policies AS p WHERE p.relation = p_hypertable AND p.keep_dropped
    );
    v_reason CONSTANT text := coalesce(current_setting('tidemark.reason', true), '');
    v_secrets CONSTANT text[] := coalesce(
        (SELECT r.secrets FROM _tidemark.recorded_table(p_hypertable) AS r), _tidemark.secret_columns()
    );
    v_checksum text;
    v_audit_id bigint;
BEGIN
    IF _tidemark.audit_arguments(p_hypertable) IS NOT NULL THEN
        PERFORM _tidemark.audit_shape(v_label, p_hypertable);
    END IF;
    IF v_is_kept THEN
        EXECUTE format(
            'SELECT sum(_tidemark.row_digest(_tidemark.redact(to_jsonb(t.*), $1)))::text FROM %s AS t', p_chunk::text
        ) INTO v_checksum USING v_secrets;
    END IF;
    IF v_reason = '' THEN
        PERFORM set_config('tidemark.reason', 'older than data_policies.drop_after', true);
    END IF;
    v_audit_id := _tidemark.record_change(
        v_label, 'drop_chunk', '{chunk,from,to}', '{}', '{}', false,
        jsonb_build_object('chunk', p_chunk::text, 'from', p_from, 'to', p_to, 'rows', p_rows, 'checksum', p_checksum)
        || CASE WHEN v_is_kept THEN jsonb_build_object('archived_checksum', v_checksum) ELSE '{}' END,
        NULL
    );
    IF v_is_kept THEN
        EXECUTE format(
            'INSERT INTO public.timeseries_archive (table_name, row, audit_id, deleted_at, deleted_by, reason) '
            'SELECT l.table_name, _tidemark.redact(to_jsonb(t.*), $2), l.audit_id, l.changed_at, l.changed_by,'
            '       l.reason '
            '  FROM %s AS t CROSS JOIN public.audit_log AS l WHERE l.audit_id = $1', p_chunk::text
        ) USING v_audit_id, v_secrets;
    END IF;
    PERFORM set_config('tidemark.reason', v_reason, true);
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.record_chunk_drop(regclass, regclass, timestamptz, timestamptz, bigint, text)
FROM public;
COMMENT ON FUNCTION _tidemark.record_chunk_drop(regclass, regclass, timestamptz, timestamptz, bigint, text) IS
'Enters into the record that a chunk is about to be dropped, and archives its rows where data_policies says so.';
