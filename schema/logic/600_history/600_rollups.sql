-- Aggregates that are kept up to date. A definition (_tidemark.rollups) becomes, on Community, a continuous aggregate;
-- on Apache-2 a table of precomputed buckets and a view that adds what is not in it:
--
--     buckets before the watermark            precomputed, read from the table
--     those of them with logged changes       recomputed by the view until a refresh has done so
--     buckets from the watermark on           computed by the view
--
-- so that the view answers at any moment what the raw rows say. Writing above the watermark costs nothing; below it,
-- statement triggers log the series and the hours that changed, in the transaction that changed them.

-- The time column of a hypertable; raises TM601 where the relation is no hypertable over a timestamptz.
CREATE OR REPLACE FUNCTION _tidemark.time_column(p_hypertable regclass)
    RETURNS name
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_column name;
BEGIN
    SELECT d.column_name INTO v_column
      FROM timescaledb_information.dimensions AS d
     WHERE (d.hypertable_schema, d.hypertable_name) = (
               SELECT n.nspname, c.relname
                 FROM pg_catalog.pg_class AS c
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                WHERE c.oid = p_hypertable
           )
       AND d.dimension_number = 1
       AND d.column_type = 'timestamptz'::regtype;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM601',
            MESSAGE = format('%s is not a hypertable over a timestamptz', coalesce(p_hypertable::text, 'NULL')),
            HINT = 'Make it one with create_hypertable.';
    END IF;
    RETURN v_column;
END
$func$;
COMMENT ON FUNCTION _tidemark.time_column(regclass) IS
'Time column of a hypertable; raises TM601 where the relation is no hypertable over a timestamptz.';

-- The name under which a hypertable's helper objects go: fixed when its first aggregate is added.
CREATE OR REPLACE FUNCTION _tidemark.source_name(p_hypertable regclass)
    RETURNS text
    LANGUAGE sql
    STABLE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT s.name FROM _tidemark.rollup_sources AS s WHERE s.hypertable = p_hypertable;
$func$;
COMMENT ON FUNCTION _tidemark.source_name(regclass) IS 'Name under which a hypertable''s helper objects go.';

-- The instant at which the bucket that starts at p_bucket ends. Calendar lengths are added in UTC, where buckets live,
-- whatever the session's time zone.
CREATE OR REPLACE FUNCTION _tidemark.bucket_end(
    p_width interval,
    p_bucket timestamptz
)
    RETURNS timestamptz
    LANGUAGE sql
    IMMUTABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT (p_bucket AT TIME ZONE 'UTC' + p_width) AT TIME ZONE 'UTC';
$func$;
COMMENT ON FUNCTION _tidemark.bucket_end(interval, timestamptz) IS 'End of the bucket that starts at an instant.';

-- The start of the first bucket that does not begin before p_at.
CREATE OR REPLACE FUNCTION _tidemark.bucket_ceiling(
    p_width interval,
    p_at timestamptz
)
    RETURNS timestamptz
    LANGUAGE sql
    IMMUTABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE
        WHEN NOT isfinite(p_at) OR public.time_bucket(p_width, p_at) = p_at THEN p_at
        ELSE _tidemark.bucket_end(p_width, public.time_bucket(p_width, p_at))
    END;
$func$;
COMMENT ON FUNCTION _tidemark.bucket_ceiling(interval, timestamptz) IS
'Start of the first bucket that does not begin before an instant.';

-- The SELECT of an aggregate, the one text that everything is made from: over the raw rows, or over p_parent, a
-- relation with the columns of the parent. p_condition is added to the definition's filter; {time} in it, as in the
-- definition, is the time column of the rows read.
CREATE OR REPLACE FUNCTION _tidemark.rollup_query(
    p_name text,
    p_parent text,
    p_condition text
)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT replace(
        format(
            'SELECT %1$s, public.time_bucket(%2$L::interval, {time}) AS %3$I, %4$s FROM %5$s%6$s GROUP BY %1$s, %7$s',
            (SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.position)
               FROM unnest(r.series) WITH ORDINALITY AS s (name, position)),
            r.bucket,
            r.bucket_column,
            array_to_string(r.columns, ', '),
            coalesce(p_parent, r.hypertable::text),
            (SELECT ' WHERE ' || string_agg('(' || c.condition || ')', ' AND ')
               FROM (VALUES (p_condition), (CASE WHEN p_parent IS NULL THEN origin.filter END)) AS c (condition)
              WHERE c.condition IS NOT NULL),
            cardinality(r.series) + 1
        ),
        '{time}',
        quote_ident(CASE WHEN p_parent IS NULL THEN _tidemark.time_column(r.hypertable) ELSE parent.bucket_column END)
    )
      FROM _tidemark.rollups AS r
      LEFT JOIN _tidemark.rollups AS parent ON parent.name = r.parent
     CROSS JOIN LATERAL (
           WITH RECURSIVE up AS (
               SELECT r.parent, r.filter
                UNION ALL
               SELECT u.parent, u.filter FROM up JOIN _tidemark.rollups AS u ON u.name = up.parent
           )
           SELECT up.filter FROM up WHERE up.parent IS NULL
           ) AS origin
     WHERE r.name = p_name;
$func$;
COMMENT ON FUNCTION _tidemark.rollup_query(text, text, text) IS
'SELECT of an aggregate over the raw rows, or over a relation like its parent, with a condition of the caller''s.';

-- The start of the first bucket of an aggregate that is not precomputed. Declared IMMUTABLE, which it is not, so that
-- the planner puts the value into the plan and leaves out the chunks before it. That is safe because the views below
-- are right with any watermark that was ever in force: a kept plan with an old one reads more raw rows and fewer
-- precomputed ones. (Chunks that are dropped take plans that would read them along.)
CREATE OR REPLACE FUNCTION _tidemark.rollup_watermark(p_name text)
    RETURNS timestamptz
    LANGUAGE plpgsql -- which keeps its plan: a question asks this several times
    IMMUTABLE
    STRICT
    PARALLEL SAFE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN (SELECT r.watermark FROM _tidemark.rollups AS r WHERE r.name = p_name);
END
$func$;
COMMENT ON FUNCTION _tidemark.rollup_watermark(text) IS
'Start of the first bucket that is not precomputed; IMMUTABLE on purpose, see the file.';

-- The buckets of an aggregate before p_watermark whose raw rows changed since they were precomputed: one row per
-- series, its key columns and a multirange of bucket starts. Frozen buckets are none of them. A function,
-- because a plan with its query in it takes longer to make than most questions take to answer; its second argument,
-- the hypertable, saves it a look-up.
CREATE OR REPLACE FUNCTION _tidemark.stale_buckets(
    p_name text,
    p_hypertable regclass,
    p_watermark timestamptz
)
    RETURNS SETOF record
    LANGUAGE plpgsql
    STABLE
    ROWS 10
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM FROM _tidemark.rollup_changes AS c WHERE c.hypertable = p_hypertable LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE (
        SELECT format(
                   'SELECT %6$s, range_agg(b.buckets) * tstzmultirange(tstzrange(NULL, %2$L::timestamptz))'
                   '           - coalesce((SELECT z.buckets FROM _tidemark.rollup_frozen AS z'
                   '                        WHERE z.name = %1$L AND z.series = jsonb_build_object(%7$s)), ''{}'')'
                   '  FROM (SELECT %3$s, c.period FROM _tidemark.rollup_changes AS c WHERE c.hypertable = %4$L) AS c'
                   ' CROSS JOIN LATERAL (SELECT tstzrange('
                   '           public.time_bucket(%5$L::interval, lower(c.period)),'
                   '           public.time_bucket(%5$L::interval, upper(c.period) - interval ''1 microsecond''),'
                   '           ''[]''))'
                   '       AS b (buckets)'
                   ' GROUP BY %6$s',
                   p_name, p_watermark, k.fields, p_hypertable::oid, r.bucket, k.names, k.pairs
               )
          FROM _tidemark.rollups AS r
         CROSS JOIN LATERAL (
               SELECT string_agg(
                          format('%s AS %I', _tidemark.series_field(r.hypertable, k.name, 'c.series'), k.name), ', '
                          ORDER BY k.position
                      ) AS fields,
                      string_agg(quote_ident(k.name), ', ' ORDER BY k.position) AS names,
                      string_agg(format('%L, %I', k.name, k.name), ', ') AS pairs
                 FROM unnest(r.series) WITH ORDINALITY AS k (name, position)
               ) AS k
         WHERE r.name = p_name
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.stale_buckets(text, regclass, timestamptz) IS
'Precomputed buckets of an aggregate whose raw rows changed since, per series.';

-- The aggregate's rows of one series for a range of bucket starts, computed now: from the raw rows, or from the
-- precomputed rows of the parent. A function, called only where something changed, because the same as a join would
-- make every question plan for every chunk.
CREATE OR REPLACE FUNCTION _tidemark.aggregate_series(
    p_name text,
    p_series jsonb,
    p_buckets tstzrange,
    p_from_parent boolean
)
    RETURNS SETOF record
    LANGUAGE plpgsql
    STABLE
    ROWS 100
    SECURITY DEFINER
    -- The expressions of a definition are written with public in mind.
    SET search_path = pg_catalog, public, pg_temp
AS $func$
DECLARE
    v_rollup _tidemark.rollups;
    v_condition text;
BEGIN
    SELECT r.* INTO STRICT v_rollup FROM _tidemark.rollups AS r WHERE r.name = p_name;
    SELECT string_agg(format('%I = %L', s.name, p_series ->> s.name), ' AND ')
      INTO v_condition
      FROM unnest(v_rollup.series) AS s (name);
    RETURN QUERY EXECUTE _tidemark.rollup_query(
        p_name,
        CASE WHEN p_from_parent THEN format('_tidemark.%I', v_rollup.parent || '_precomputed') END,
        format(
            '%s AND {time} >= %L AND {time} < %L',
            v_condition,
            _tidemark.bucket_ceiling(v_rollup.bucket, lower(p_buckets)),
            CASE
                WHEN upper_inc(p_buckets) THEN _tidemark.bucket_end(v_rollup.bucket, upper(p_buckets))
                ELSE _tidemark.bucket_ceiling(v_rollup.bucket, upper(p_buckets))
            END
        )
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.aggregate_series(text, jsonb, tstzrange, boolean) IS
'Rows of an aggregate for one series and a range of bucket starts, computed now.';

-- The transactions, as virtual ids, that hold a lock under which rows of a table are written, the caller's left out.
CREATE OR REPLACE FUNCTION _tidemark.writers(p_table regclass)
    RETURNS text[]
    LANGUAGE sql
    VOLATILE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}')
      FROM pg_catalog.pg_locks AS l
     WHERE l.locktype = 'relation'
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
       AND l.relation = p_table
       AND l.granted
       AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       AND l.pid IS DISTINCT FROM pg_backend_pid(); -- a prepared transaction has none
$func$;
COMMENT ON FUNCTION _tidemark.writers(regclass) IS
'Transactions (virtual ids) that hold a lock under which rows of a table are written, the caller''s left out.';

-- The time of the newest row of a hypertable that is not in the future; NULL where there is none. Looks at one chunk
-- after the other, newest first. Where no index begins with the time, but one with a series and then the time, it goes
-- from series to series by that, which takes a look-up each, and not from row to row.
CREATE OR REPLACE FUNCTION _tidemark.newest_row(p_hypertable regclass)
    RETURNS timestamptz
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_time CONSTANT name := _tidemark.time_column(p_hypertable);
    v_series name[];
    v_chunk record;
    v_newest timestamptz;
BEGIN
    SELECT k.columns[:array_position(k.columns, v_time) - 1] INTO v_series
      FROM (SELECT ARRAY(SELECT a.attname
                           FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS c (number, position)
                           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = c.number
                          ORDER BY c.position) AS columns
              FROM pg_catalog.pg_index AS x
             WHERE x.indrelid = p_hypertable
               AND x.indpred IS NULL
               AND x.indexprs IS NULL
               AND x.indisvalid) AS k
     WHERE k.columns[1] = v_time
        OR EXISTS (SELECT FROM _tidemark.rollups AS r
                    WHERE r.hypertable = p_hypertable
                      AND k.columns[:cardinality(r.series)] @> r.series::name[]
                      AND k.columns[cardinality(r.series) + 1] = v_time)
     ORDER BY array_position(k.columns, v_time)
     LIMIT 1;
    FOR v_chunk IN
        SELECT c.chunk AS name, c.is_compressed
          FROM _tidemark.chunks(p_hypertable) AS c
         WHERE c.range_start <= now()
         ORDER BY c.range_start DESC
    LOOP
        IF cardinality(v_series) > 0 AND NOT v_chunk.is_compressed THEN
            EXECUTE (
                SELECT format(
                           'WITH RECURSIVE last AS ('
                           ' (SELECT %1$s, %2$I AS t FROM %3$s WHERE %2$I <= %4$L ORDER BY %5$s, %2$I DESC LIMIT 1)'
                           ' UNION ALL SELECT n.* FROM last CROSS JOIN LATERAL'
                           ' (SELECT %6$s, r.%2$I FROM %3$s AS r WHERE (%6$s) < (%7$s) AND r.%2$I <= %4$L'
                           ' ORDER BY %8$s, r.%2$I DESC LIMIT 1) AS n'
                           ') SELECT max(t) FROM last',
                           string_agg(format('%I', s.name), ', ' ORDER BY s.position), v_time, v_chunk.name, now(),
                           string_agg(format('%I DESC', s.name), ', ' ORDER BY s.position),
                           string_agg(format('r.%I', s.name), ', ' ORDER BY s.position),
                           string_agg(format('last.%I', s.name), ', ' ORDER BY s.position),
                           string_agg(format('r.%I DESC', s.name), ', ' ORDER BY s.position)
                       )
                  FROM unnest(v_series) WITH ORDINALITY AS s (name, position)
            ) INTO v_newest;
        ELSE
            EXECUTE format('SELECT max(%1$I) FROM %2$s WHERE %1$I <= %3$L', v_time, v_chunk.name, now())
               INTO v_newest;
        END IF;
        EXIT WHEN v_newest IS NOT NULL;
    END LOOP;
    RETURN v_newest;
END
$func$;
COMMENT ON FUNCTION _tidemark.newest_row(regclass) IS
'Time of the newest row of a hypertable that is not in the future; NULL where there is none.';

-- The table that holds the precomputed buckets of an aggregate; on Community what TimescaleDB materialises it in.
CREATE OR REPLACE FUNCTION _tidemark.rollup_store(p_name text)
    RETURNS regclass
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE
        WHEN r.is_native THEN (
            SELECT format('%I.%I', g.materialization_hypertable_schema, g.materialization_hypertable_name)
              FROM timescaledb_information.continuous_aggregates AS g
             WHERE g.view_schema = 'public' AND g.view_name = r.name
        )
        ELSE format('_tidemark.%I', r.name || '_precomputed')
    END::regclass
      FROM _tidemark.rollups AS r
     WHERE r.name = p_name;
$func$;
COMMENT ON FUNCTION _tidemark.rollup_store(text) IS 'Table that holds the precomputed buckets of an aggregate.';

-- SQL text of a condition: whether a row of the aggregate, or of p_row, is in a frozen bucket.
CREATE OR REPLACE FUNCTION _tidemark.is_frozen(p_rollup _tidemark.rollups, p_row text)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT format(
        'EXISTS (SELECT FROM _tidemark.rollup_frozen AS z WHERE z.name = %L AND z.series = jsonb_build_object(%s)'
        ' AND z.buckets @> %s.%I)',
        p_rollup.name, string_agg(format('%L, %s.%I', k.name, p_row, k.name), ', '), p_row, p_rollup.bucket_column
    )
      FROM unnest(p_rollup.series) AS k (name);
$func$;
COMMENT ON FUNCTION _tidemark.is_frozen(_tidemark.rollups, text) IS
'SQL text of a condition: whether a row of an aggregate is in a frozen bucket.';

-- Row trigger of what TimescaleDB materialises an aggregate in, once it has frozen buckets: a refresh passes them by.
-- Arguments: the aggregate, the column of the bucket, the columns of the series.
CREATE OR REPLACE FUNCTION _tidemark.keep_frozen()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_row CONSTANT jsonb := to_jsonb(CASE TG_OP WHEN 'INSERT' THEN NEW ELSE OLD END);
    v_key jsonb := '{}';
BEGIN
    FOR v_argument IN 2 .. TG_NARGS - 1 LOOP
        v_key := v_key || jsonb_build_object(TG_ARGV[v_argument], v_row -> TG_ARGV[v_argument]);
    END LOOP;
    IF EXISTS (SELECT FROM _tidemark.rollup_frozen AS z
                WHERE z.name = TG_ARGV[0]
                  AND z.series = v_key
                  AND z.buckets @> (v_row ->> TG_ARGV[1])::timestamptz) THEN
        RETURN NULL;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.keep_frozen() FROM public;
COMMENT ON FUNCTION _tidemark.keep_frozen() IS
'Row trigger of what TimescaleDB materialises an aggregate in: frozen buckets stay as they are.';

-- Makes TimescaleDB's refresh pass the frozen buckets of an aggregate by, where there are any.
CREATE OR REPLACE FUNCTION _tidemark.guard_frozen(p_rollup _tidemark.rollups)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_store CONSTANT regclass := _tidemark.rollup_store(p_rollup.name);
BEGIN
    IF p_rollup.is_native
       AND EXISTS (SELECT FROM _tidemark.rollup_frozen AS z WHERE z.name = p_rollup.name)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                        WHERE t.tgrelid = v_store AND t.tgname = 'trg_keep_frozen') THEN
        EXECUTE format(
            'CREATE TRIGGER trg_keep_frozen BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW'
            ' EXECUTE FUNCTION _tidemark.keep_frozen(%L, %L, %s)',
            v_store, p_rollup.name, p_rollup.bucket_column,
            (SELECT string_agg(quote_literal(k.name), ', ') FROM unnest(p_rollup.series) AS k (name))
        );
        EXECUTE format('COMMENT ON TRIGGER trg_keep_frozen ON %s IS %L', v_store,
                       'Frozen buckets stay as they are: their raw rows were dropped.');
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.guard_frozen(_tidemark.rollups) IS
'Makes TimescaleDB''s refresh pass the frozen buckets of an aggregate by, where there are any.';

-- Freezes the buckets that the aggregates of a hypertable have over a period whose raw rows are being dropped: of the
-- series that have one. Rows that come into the period later, of other series or other buckets, count like any other.
CREATE OR REPLACE FUNCTION _tidemark.freeze(p_hypertable regclass, p_period tstzmultirange)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rollup _tidemark.rollups;
BEGIN
    UPDATE _tidemark.rollup_sources AS s
       SET dropped_before = greatest(s.dropped_before, upper(p_period))
     WHERE s.hypertable = p_hypertable;
    FOR v_rollup IN SELECT r.* FROM _tidemark.rollups AS r WHERE r.hypertable = p_hypertable LOOP
        EXECUTE format(
            'INSERT INTO _tidemark.rollup_frozen AS z (name, series, buckets)'
            ' SELECT %1$L, jsonb_build_object(%2$s), range_agg(b.span)'
            '   FROM %3$s AS p'
            '  CROSS JOIN LATERAL (SELECT tstzrange(p.%4$I, _tidemark.bucket_end(%5$L, p.%4$I))) AS b (span)'
            '  WHERE p.%4$I >= %6$L AND p.%4$I < %7$L AND b.span && $1'
            '  GROUP BY 2'
            ' ON CONFLICT ON CONSTRAINT rollup_frozen_pkey DO UPDATE SET buckets = z.buckets + excluded.buckets',
            v_rollup.name,
            (SELECT string_agg(format('%L, p.%I', k.name, k.name), ', ') FROM unnest(v_rollup.series) AS k (name)),
            _tidemark.rollup_store(v_rollup.name), v_rollup.bucket_column, v_rollup.bucket,
            public.time_bucket(v_rollup.bucket, lower(p_period)), least(upper(p_period), v_rollup.watermark)
        ) USING p_period;
        PERFORM _tidemark.guard_frozen(v_rollup);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.freeze(regclass, tstzmultirange) IS
'Freezes the buckets that the aggregates of a hypertable have over a period whose raw rows are being dropped.';

-- Notices that chunks were dropped since the last refresh, by whatever means, and freezes the buckets over them.
CREATE OR REPLACE FUNCTION _tidemark.note_drops(p_hypertable regclass)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_gone tstzmultirange;
BEGIN
    WITH there AS MATERIALIZED (
        SELECT c.chunk::text AS chunk, tstzrange(c.range_start, c.range_end) AS period
          FROM _tidemark.chunks(p_hypertable) AS c
    ), gone AS (
        DELETE FROM _tidemark.rollup_chunks AS k
         WHERE k.hypertable = p_hypertable
           AND NOT EXISTS (SELECT FROM there AS t WHERE t.chunk = k.chunk)
        RETURNING k.period
    ), noted AS (
        INSERT INTO _tidemark.rollup_chunks AS k (hypertable, chunk, period)
        SELECT p_hypertable, t.chunk, t.period FROM there AS t
        ON CONFLICT ON CONSTRAINT rollup_chunks_pkey DO UPDATE SET period = excluded.period
         WHERE k.period <> excluded.period
    )
    SELECT range_agg(g.period)
           -- What a chunk has grown by was merged into it.
           - coalesce((SELECT range_agg(t.period) - range_agg(k.period)
                         FROM there AS t
                         JOIN _tidemark.rollup_chunks AS k ON k.hypertable = p_hypertable AND k.chunk = t.chunk),
                      '{}')
      INTO v_gone
      FROM gone AS g;
    IF NOT isempty(v_gone) THEN
        PERFORM _tidemark.freeze(p_hypertable, v_gone);
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.note_drops(regclass) IS
'Notices chunks that were dropped since the last refresh, and freezes the buckets over them.';

-- A relation's columns as a list, with their types as in a column definition where p_with_types.
CREATE OR REPLACE FUNCTION _tidemark.column_list(
    p_relation regclass,
    p_with_types boolean
)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT string_agg(
               quote_ident(a.attname)
               || CASE WHEN p_with_types THEN ' ' || format_type(a.atttypid, a.atttypmod) ELSE '' END,
               ', ' ORDER BY a.attnum
           )
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = p_relation
       AND a.attnum > 0
       AND NOT a.attisdropped;
$func$;
COMMENT ON FUNCTION _tidemark.column_list(regclass, boolean) IS
'A relation''s columns as a list for SQL text, with or without their types.';

-- A series column as it is read from a jsonb series, with the type it has in the hypertable.
CREATE OR REPLACE FUNCTION _tidemark.series_field(
    p_hypertable regclass,
    p_column text,
    p_json text
)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT format('(%s ->> %L)::%s', p_json, a.attname, format_type(a.atttypid, a.atttypmod))
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = p_hypertable
       AND a.attname = p_column;
$func$;
COMMENT ON FUNCTION _tidemark.series_field(regclass, text, text) IS
'SQL text that reads a series column from a jsonb series, with its type.';

-- The columns of stale_buckets, as a FROM clause has to define them.
CREATE OR REPLACE FUNCTION _tidemark.stale_columns(
    p_hypertable regclass,
    p_series text[]
)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT string_agg(format('%I %s', k.name, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY k.position)
           || ', buckets tstzmultirange'
      FROM unnest(p_series) WITH ORDINALITY AS k (name, position)
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p_hypertable AND a.attname = k.name;
$func$;
COMMENT ON FUNCTION _tidemark.stale_columns(regclass, text[]) IS
'Columns of stale_buckets, as a FROM clause has to define them.';

-- What the server says when it computes an aggregate from the raw rows that meet a condition; NULL where it can.
CREATE OR REPLACE FUNCTION _tidemark.try_rollup(p_name text, p_condition text)
    RETURNS text
    LANGUAGE plpgsql
    STABLE
    -- The expressions of a definition are written with public in mind.
    SET search_path = pg_catalog, public, pg_temp
AS $func$
BEGIN
    EXECUTE format('SELECT count(q) FROM (%s) AS q', _tidemark.rollup_query(p_name, NULL, p_condition));
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN SQLERRM;
END
$func$;
COMMENT ON FUNCTION _tidemark.try_rollup(text, text) IS
'What the server says when it computes an aggregate from raw rows that meet a condition; NULL where it can.';

-- The part of refresh_source that is about one aggregate. Changes that are on the log are recomputed; what has ended
-- before p_safe is precomputed.
CREATE OR REPLACE FUNCTION _tidemark.refresh_rollup(
    p_rollup _tidemark.rollups,
    p_from timestamptz,
    p_to timestamptz,
    p_safe timestamptz
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    -- The expressions of a definition are written with public in mind.
    SET search_path = pg_catalog, public, pg_temp
AS $func$
DECLARE
    v_stale jsonb;
    v_from timestamptz;
    v_to timestamptz;
    v_parent text;
BEGIN
    v_parent := CASE WHEN p_rollup.parent IS NOT NULL
                     THEN format('_tidemark.%I', p_rollup.parent || '_precomputed') END;
    EXECUTE format(
        'SELECT jsonb_agg(jsonb_build_object(''series'', jsonb_build_object(%s), ''buckets'', u.buckets))'
        '  FROM _tidemark.stale_buckets(%L, %L, %L) AS s (%s) CROSS JOIN LATERAL unnest(s.buckets) AS u (buckets)',
        (SELECT string_agg(format('%L, s.%I', k.name, k.name), ', ') FROM unnest(p_rollup.series) AS k (name)),
        p_rollup.name, p_rollup.hypertable::oid, p_rollup.watermark,
        _tidemark.stale_columns(p_rollup.hypertable, p_rollup.series)
    ) INTO v_stale;
    IF v_stale IS NOT NULL THEN
        EXECUTE format(
            'DELETE FROM _tidemark.%1$I AS p'
            ' USING jsonb_to_recordset($1) AS s (series jsonb, buckets tstzrange)'
            ' WHERE %2$s AND p.%3$I >= lower(s.buckets) AND p.%3$I <= upper(s.buckets) AND s.buckets @> p.%3$I',
            p_rollup.name || '_precomputed',
            (SELECT string_agg(
                        format('p.%I = %s', k.name, _tidemark.series_field(p_rollup.hypertable, k.name, 's.series')),
                        ' AND '
                    )
               FROM unnest(p_rollup.series) AS k (name)),
            p_rollup.bucket_column
        ) USING v_stale;
        EXECUTE format(
            'INSERT INTO _tidemark.%1$I SELECT f.*'
            '  FROM jsonb_to_recordset($1) AS s (series jsonb, buckets tstzrange)'
            ' CROSS JOIN LATERAL _tidemark.aggregate_series(%2$L, s.series, s.buckets, %3$L) AS f (%4$s)',
            p_rollup.name || '_precomputed', p_rollup.name, v_parent IS NOT NULL,
            _tidemark.column_list(format('_tidemark.%I', p_rollup.name || '_precomputed')::regclass, true)
        ) USING v_stale;
    END IF;

    IF p_from IS NOT NULL OR p_to IS NOT NULL THEN
        v_from := CASE WHEN isfinite(p_from) THEN public.time_bucket(p_rollup.bucket, p_from) ELSE '-infinity' END;
        v_to := least(_tidemark.bucket_ceiling(p_rollup.bucket, p_to), p_rollup.watermark);
        EXECUTE format(
            'DELETE FROM _tidemark.%1$I AS p WHERE p.%2$I >= %3$L AND p.%2$I < %4$L AND NOT %5$s',
            p_rollup.name || '_precomputed', p_rollup.bucket_column, v_from, v_to,
            _tidemark.is_frozen(p_rollup, 'p')
        );
        EXECUTE format(
            'INSERT INTO _tidemark.%I SELECT p.* FROM (%s) AS p WHERE NOT %s',
            p_rollup.name || '_precomputed',
            _tidemark.rollup_query(
                p_rollup.name, v_parent, format('{time} >= %L AND {time} < %L', v_from, v_to)
            ),
            _tidemark.is_frozen(p_rollup, 'p')
        );
    END IF;

    v_to := CASE WHEN isfinite(p_safe) THEN public.time_bucket(p_rollup.bucket, p_safe) ELSE p_safe END;
    IF v_to > p_rollup.watermark THEN
        EXECUTE format('INSERT INTO _tidemark.%I %s', p_rollup.name || '_precomputed', _tidemark.rollup_query(
            p_rollup.name, v_parent, format('{time} >= %L AND {time} < %L', p_rollup.watermark, v_to)
        ));
        IF p_rollup.watermark = '-infinity' THEN
            EXECUTE format('ANALYZE _tidemark.%I', p_rollup.name || '_precomputed');
        END IF;
    END IF;
    UPDATE _tidemark.rollups AS r
       SET watermark = greatest(r.watermark, v_to), refreshed_at = clock_timestamp()
     WHERE r.name = p_rollup.name;
END
$func$;
COMMENT ON FUNCTION _tidemark.refresh_rollup(_tidemark.rollups, timestamptz, timestamptz, timestamptz) IS
'Recomputes the buckets of an aggregate that changed, and precomputes those that have ended since.';

-- Where an aggregate cannot be computed from the raw rows between two instants (NULL: from the first, to the last):
-- the bucket, the series, the row if one alone is enough, and the server's words. NULL where it can.
CREATE OR REPLACE FUNCTION _tidemark.find_culprit(
    p_name text,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS text
    LANGUAGE plpgsql
    STABLE
    -- The expressions of a definition are written with public in mind.
    SET search_path = pg_catalog, public, pg_temp
AS $func$
DECLARE
    v_rollup _tidemark.rollups;
    v_time name;
    v_from timestamptz;
    v_to timestamptz;
    v_middle timestamptz;
    v_series text;
    v_candidate record;
    v_problem text;
    v_row text;
BEGIN
    SELECT r.* INTO STRICT v_rollup FROM _tidemark.rollups AS r WHERE r.name = p_name;
    v_time := _tidemark.time_column(v_rollup.hypertable);
    EXECUTE format('SELECT min(t.%1$I), max(t.%1$I) FROM %2$s AS t WHERE t.%1$I >= %3$L AND t.%1$I < %4$L', v_time,
                   v_rollup.hypertable, coalesce(p_from, '-infinity'), coalesce(p_to, 'infinity'))
       INTO v_from, v_to;
    v_from := public.time_bucket(v_rollup.bucket, v_from);
    v_to := _tidemark.bucket_end(v_rollup.bucket, public.time_bucket(v_rollup.bucket, v_to));
    v_problem := _tidemark.try_rollup(p_name, format('{time} >= %L AND {time} < %L', v_from, v_to));
    IF v_problem IS NULL THEN
        RETURN NULL;
    END IF;
    LOOP -- halves, until one bucket is left
        v_middle := public.time_bucket(v_rollup.bucket, v_from + (v_to - v_from) / 2);
        v_middle := CASE WHEN v_middle > v_from THEN v_middle ELSE _tidemark.bucket_end(v_rollup.bucket, v_from) END;
        EXIT WHEN v_middle >= v_to;
        v_row := _tidemark.try_rollup(p_name, format('{time} >= %L AND {time} < %L', v_from, v_middle));
        IF v_row IS NULL THEN
            v_from := v_middle;
        ELSE
            v_problem := v_row;
            v_to := v_middle;
        END IF;
    END LOOP;
    FOR v_candidate IN EXECUTE format(
        'SELECT DISTINCT format(%L, %s) AS condition FROM %s AS t WHERE t.%I >= %L AND t.%I < %L',
        (SELECT string_agg(format('%I = %%L', k.name), ' AND ' ORDER BY k.position)
           FROM unnest(v_rollup.series) WITH ORDINALITY AS k (name, position)),
        (SELECT string_agg(format('t.%I', k.name), ', ' ORDER BY k.position)
           FROM unnest(v_rollup.series) WITH ORDINALITY AS k (name, position)),
        v_rollup.hypertable, v_time, v_from, v_time, v_to
    ) LOOP
        v_row := _tidemark.try_rollup(
            p_name, format('{time} >= %L AND {time} < %L AND %s', v_from, v_to, v_candidate.condition)
        );
        IF v_row IS NOT NULL THEN
            v_problem := v_row;
            v_series := v_candidate.condition;
            EXIT;
        END IF;
    END LOOP;
    FOR v_candidate IN EXECUTE format(
        'SELECT t.%1$I AS at FROM %2$s AS t WHERE t.%1$I >= %3$L AND t.%1$I < %4$L AND %5$s ORDER BY 1',
        v_time, v_rollup.hypertable, v_from, v_to, coalesce(v_series, 'true')
    ) LOOP
        v_row := _tidemark.try_rollup(p_name, format('{time} = %L AND %s', v_candidate.at, coalesce(v_series, 'true')));
        IF v_row IS NOT NULL THEN
            RETURN format('the row of %s at %s: %s', v_series, v_candidate.at, v_row);
        END IF;
    END LOOP;
    RETURN format('the rows of %s from %s on: %s', v_series, v_from, v_problem);
END
$func$;
COMMENT ON FUNCTION _tidemark.find_culprit(text, timestamptz, timestamptz) IS
'Where an aggregate cannot be computed from the raw rows of a period, and why; NULL where it can.';

-- Refreshes the precomputed aggregates of one hypertable, finer ones first, in the caller's transaction: recomputes
-- the buckets with logged changes, and precomputes those that have ended since: up to p_to, and not the bucket of the
-- newest row, so that rows arriving in order stay above the watermark; but at least up to p_through. Between p_from
-- and p_to, where one is given, everything is recomputed. Returns false where the watermark had to stay behind because
-- of running writers. Raises TM605 outside READ COMMITTED.
--
-- A row may be written above the watermark, and so not be logged, by a transaction that commits after the refresh
-- has read the rows and moved the watermark over it. So the refresh first announces how far it wants to go, in a
-- sequence, which every trigger sees at once, committed or not, whatever its snapshot: from then on rows below are
-- logged. Those who were writing at that moment hold a lock on the hypertable; only when they have ended does the
-- watermark move. Nobody has to wait for a refresh, and one that is killed leaves only the announcement behind.
CREATE OR REPLACE FUNCTION _tidemark.refresh_source(
    p_hypertable regclass,
    p_from timestamptz,
    p_to timestamptz,
    p_through timestamptz,
    p_patience interval
)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    -- The expressions of a definition are written with public in mind.
    SET search_path = pg_catalog, public, pg_temp
AS $func$
DECLARE
    v_deadline CONSTANT timestamptz := clock_timestamp() + p_patience;
    v_source record;
    v_target timestamptz;
    v_announced timestamptz;
    v_safe timestamptz := '-infinity';
    v_rollup _tidemark.rollups;
    v_failure text;
    v_has_failed boolean := false;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'TM605',
            MESSAGE = 'aggregates cannot be refreshed in this transaction',
            DETAIL = format('Its isolation is %s: it does not see rows committed since it began.',
                            current_setting('transaction_isolation')),
            HINT = 'Refresh in a READ COMMITTED transaction.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('tidemark.refresh ' || p_hypertable::oid, 0));
    PERFORM _tidemark.note_drops(p_hypertable);
    SELECT s.* INTO STRICT v_source FROM _tidemark.rollup_sources AS s WHERE s.hypertable = p_hypertable;

    -- How far to go, and how far it is safe to go.
    v_target := greatest(least(_tidemark.newest_row(p_hypertable), p_to), p_through);
    SELECT max(public.time_bucket(r.bucket, v_target)) INTO v_announced
      FROM _tidemark.rollups AS r
     WHERE r.hypertable = p_hypertable
       AND NOT r.is_native;
    IF v_announced > v_source.announced THEN
        PERFORM setval(
            format('_tidemark.%I', _tidemark.source_name(p_hypertable) || '_logged_before'),
            extract(epoch FROM v_announced)::bigint
        );
        IF NOT v_source.awaited && _tidemark.writers(p_hypertable) THEN
            v_safe := v_source.announced;
        END IF;
        v_source.announced := v_announced;
        v_source.awaited := _tidemark.writers(p_hypertable);
    END IF;
    WHILE v_source.awaited && _tidemark.writers(p_hypertable) AND clock_timestamp() < v_deadline LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    IF NOT v_source.awaited && _tidemark.writers(p_hypertable) THEN
        v_safe := v_source.announced;
        v_source.awaited := '{}';
    END IF;
    UPDATE _tidemark.rollup_sources AS s
       SET announced = v_source.announced, awaited = v_source.awaited
     WHERE s.hypertable = p_hypertable
       AND (s.announced, s.awaited) IS DISTINCT FROM (v_source.announced, v_source.awaited);

    -- Entries that are visible now are done by the end; later statements see more rows, never fewer.
    UPDATE _tidemark.rollup_changes AS c SET is_taken = true WHERE c.hypertable = p_hypertable;

    FOR v_rollup IN
        SELECT r.* FROM _tidemark.rollups AS r
         WHERE r.hypertable = p_hypertable
           AND NOT r.is_native
         ORDER BY r.bucket -- parents have shorter buckets
    LOOP
        BEGIN
            SELECT 'cannot be computed from ' || r.name INTO v_failure
              FROM _tidemark.rollups AS r
             WHERE r.name = v_rollup.parent
               AND r.failure IS NOT NULL;
            IF NOT FOUND THEN
                PERFORM _tidemark.refresh_rollup(v_rollup, p_from, p_to, v_safe);
            END IF;
        EXCEPTION WHEN data_exception THEN -- its arithmetic; the others go on
            v_failure := coalesce(
                _tidemark.find_culprit(v_rollup.name, NULL, greatest(v_safe, v_rollup.watermark)), SQLERRM
            );
        END;
        UPDATE _tidemark.rollups AS r
           SET failure = v_failure
         WHERE r.name = v_rollup.name
           AND r.failure IS DISTINCT FROM v_failure;
        v_has_failed := v_has_failed OR v_failure IS NOT NULL;
    END LOOP;
    IF v_has_failed THEN
        UPDATE _tidemark.rollup_changes AS c SET is_taken = false WHERE c.hypertable = p_hypertable AND c.is_taken;
    END IF;
    DELETE FROM _tidemark.rollup_changes AS c WHERE c.hypertable = p_hypertable AND c.is_taken;
    RETURN v_safe >= v_source.announced;
END
$func$;
COMMENT ON FUNCTION _tidemark.refresh_source(regclass, timestamptz, timestamptz, timestamptz, interval) IS
'Refreshes the precomputed aggregates of a hypertable; false where running writers held the watermark back.';

-- Trigger of a hypertable with aggregates, after TRUNCATE: its precomputed rows go too, except those whose raw rows
-- had been dropped before.
CREATE OR REPLACE FUNCTION _tidemark.forget_rollups()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rollup record;
BEGIN
    DELETE FROM _tidemark.rollup_chunks AS k WHERE k.hypertable = TG_RELID;
    DELETE FROM _tidemark.rollup_changes AS c WHERE c.hypertable = TG_RELID;
    FOR v_rollup IN
        SELECT r.name, _tidemark.is_frozen(r, 'p') AS is_frozen
          FROM _tidemark.rollups AS r
         WHERE r.hypertable = TG_RELID
           AND NOT r.is_native
    LOOP
        EXECUTE format(
            'DELETE FROM _tidemark.%I AS p WHERE NOT %s', v_rollup.name || '_precomputed', v_rollup.is_frozen
        );
    END LOOP;
    RETURN NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.forget_rollups() IS
'Statement trigger after TRUNCATE of a hypertable: empties what is precomputed from it.';

-- Gives a hypertable the triggers its precomputed aggregates need, made for its columns and their filters.
CREATE OR REPLACE FUNCTION _tidemark.log_changes_of(p_hypertable regclass)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_name CONSTANT text := _tidemark.source_name(p_hypertable);
    v_time CONSTANT text := quote_ident(_tidemark.time_column(p_hypertable));
    v_series text; -- the series columns of all its aggregates
    v_json text;
    v_used text; -- the columns that any of its aggregates reads
    v_filter text;
    v_log text;
    v_operation text;
BEGIN
    SELECT string_agg(DISTINCT quote_ident(s.name), ', '), string_agg(DISTINCT format('%L, i.%I', s.name, s.name), ', ')
      INTO v_series, v_json
      FROM _tidemark.rollups AS r
     CROSS JOIN LATERAL unnest(r.series) AS s (name)
     WHERE r.hypertable = p_hypertable;
    SELECT string_agg(DISTINCT quote_ident(a.attname), ', ') INTO v_used
      FROM _tidemark.rollups AS r
      -- Those that are yet to be made come here once more.
      JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = to_regclass(format('_tidemark.%I', r.name || '_direct'))
      JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.attnum > 0
     WHERE r.hypertable = p_hypertable
       AND d.refobjid = p_hypertable;
    -- What is before the last whole bucket of an aggregate that counts it; those made from it have longer buckets. The
    -- sub-select is evaluated once a statement.
    SELECT replace(string_agg(DISTINCT format(
               '({time} < (SELECT public.time_bucket(%L::interval, v_logged_before)) AND (%s))',
               r.bucket, coalesce(r.filter, 'true')
           ), ' OR '), '{time}', v_time)
      INTO v_filter
      FROM _tidemark.rollups AS r
     WHERE r.hypertable = p_hypertable
       AND r.parent IS NULL;

    -- Hours of a series that are less than a long weekend apart go into one entry. An entry is left out where one of
    -- the same transaction covers it: those of others may be taken by a refresh that does not see these rows.
    v_log := format(
        'INSERT INTO _tidemark.rollup_changes (hypertable, series, period)'
        ' SELECT TG_RELID, e.series, e.period FROM ('
        ' SELECT jsonb_build_object(%1$s) AS series,'
        ' tstzrange(min(i.changed_hour), max(i.changed_hour) + interval ''1 hour'') AS period FROM ('
        ' SELECT d.*, count(*) FILTER (WHERE d.is_first) OVER (PARTITION BY %2$s ORDER BY changed_hour) AS island'
        ' FROM ('
        ' SELECT c.*, (changed_hour - lag(changed_hour) OVER (PARTITION BY %2$s ORDER BY changed_hour)'
        ' <= interval ''4 days'') IS NOT TRUE AS is_first FROM ('
        ' SELECT DISTINCT %2$s, public.time_bucket(''1 hour''::interval, %3$s) AS changed_hour'
        ' FROM ({rows}) AS r WHERE %3$s < v_logged_before) AS c) AS d) AS i GROUP BY %2$s, island) AS e'
        ' WHERE NOT EXISTS (SELECT FROM _tidemark.rollup_changes AS k'
        ' WHERE k.hypertable = TG_RELID AND k.series = e.series AND k.period @> e.period'
        ' AND k.xmin = pg_current_xact_id()::xid)',
        v_json, v_series, v_time
    );
    EXECUTE format(
        $text$
        CREATE OR REPLACE FUNCTION _tidemark.%1$I()
            RETURNS trigger
            LANGUAGE plpgsql
            VOLATILE
            SECURITY DEFINER
            -- The filters of the definitions are written with public in mind.
            SET search_path = pg_catalog, public, pg_temp
        AS $body$
        DECLARE
            v_logged_before CONSTANT timestamptz := to_timestamp(pg_sequence_last_value(%2$L::regclass));
        BEGIN
            IF TG_OP = 'INSERT' THEN
                IF EXISTS (SELECT FROM new_rows WHERE %3$s < v_logged_before AND (%4$s)) THEN
                    %5$s;
                END IF;
            ELSIF TG_OP = 'DELETE' THEN
                IF EXISTS (SELECT FROM old_rows WHERE %3$s < v_logged_before AND (%4$s)) THEN
                    %6$s;
                END IF;
            ELSIF EXISTS (SELECT FROM old_rows WHERE %3$s < v_logged_before)
               OR EXISTS (SELECT FROM new_rows WHERE %3$s < v_logged_before) THEN
                -- Updates of columns that no aggregate reads, such as quality_score, leave nothing over.
                %7$s;
            END IF;
            RETURN NULL;
        END
        $body$
        $text$,
        'log_' || v_name || '_changes',
        format('_tidemark.%I', v_name || '_logged_before'),
        v_time,
        v_filter,
        replace(v_log, '{rows}', format('SELECT * FROM new_rows WHERE %s', v_filter)),
        replace(v_log, '{rows}', format('SELECT * FROM old_rows WHERE %s', v_filter)),
        replace(v_log, '{rows}', format(
            '(SELECT %1$s FROM old_rows WHERE %2$s EXCEPT ALL SELECT %1$s FROM new_rows WHERE %2$s)'
            ' UNION ALL (SELECT %1$s FROM new_rows WHERE %2$s EXCEPT ALL SELECT %1$s FROM old_rows WHERE %2$s)',
            v_used, v_filter
        ))
    );
    EXECUTE format(
        'COMMENT ON FUNCTION _tidemark.%I() IS %L', 'log_' || v_name || '_changes',
        'Statement trigger made by add_rollup: logs changes below the watermark of the aggregates.'
    );
    FOREACH v_operation IN ARRAY ARRAY['insert', 'update', 'delete'] LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %1$I AFTER %2$s ON %3$s %4$s FOR EACH STATEMENT'
            ' EXECUTE FUNCTION _tidemark.%5$I()',
            'trg_log_' || v_operation,
            upper(v_operation),
            p_hypertable,
            CASE v_operation
                WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows'
                WHEN 'update' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                ELSE 'REFERENCING OLD TABLE AS old_rows'
            END,
            'log_' || v_name || '_changes'
        );
        EXECUTE format(
            'COMMENT ON TRIGGER %I ON %s IS %L', 'trg_log_' || v_operation, p_hypertable,
            'Keeps the aggregates right after changes below their watermark.'
        );
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.log_changes_of(regclass) IS
'Gives a hypertable the triggers its precomputed aggregates need.';

-- Makes what belongs to a definition, or makes it again after the code changed; what holds data stays as it is.
CREATE OR REPLACE FUNCTION _tidemark.build_rollup(p_name text)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    -- The expressions of a definition are written with public in mind.
    SET search_path = pg_catalog, public, pg_temp
AS $func$
DECLARE
    v_owner CONSTANT regrole := (
        SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid = '_tidemark.rollups'::regclass
    );
    v_rollup _tidemark.rollups;
    v_source_name text;
    v_columns text;
    v_keys text;
    v_relation text;
    v_object record;
BEGIN
    SELECT r.* INTO STRICT v_rollup FROM _tidemark.rollups AS r WHERE r.name = p_name;
    v_source_name := _tidemark.source_name(v_rollup.hypertable);
    SELECT string_agg(quote_ident(k.name), ', ' ORDER BY k.position) INTO v_keys
      FROM unnest(v_rollup.series) WITH ORDINALITY AS k (name, position);
    EXECUTE format('CREATE OR REPLACE VIEW _tidemark.%I AS %s', p_name || '_direct',
                   _tidemark.rollup_query(p_name, NULL, NULL));

    IF v_rollup.is_native AND to_regclass(format('public.%I', p_name)) IS NULL THEN
        EXECUTE format(
            'CREATE MATERIALIZED VIEW public.%I WITH (timescaledb.continuous, timescaledb.materialized_only = false)'
            ' AS %s WITH NO DATA',
            p_name, _tidemark.rollup_query(p_name, 'public.' || quote_ident(v_rollup.parent), NULL)
        );
    ELSIF v_rollup.is_native THEN
        PERFORM _tidemark.guard_frozen(v_rollup);
    ELSIF NOT v_rollup.is_native THEN
        IF to_regclass(format('_tidemark.%I', v_source_name || '_logged_before')) IS NULL THEN
            EXECUTE format(
                'CREATE SEQUENCE _tidemark.%1$I MINVALUE %2$s START %2$s',
                v_source_name || '_logged_before', -1e12::bigint
            );
            EXECUTE format(
                'COMMENT ON SEQUENCE _tidemark.%I IS %L', v_source_name || '_logged_before',
                'Second (Unix time) before which changes are logged; a sequence, because all see it at once.'
            );
            -- So that it changes hands with the table; it has to be in the same hands now.
            EXECUTE format('ALTER SEQUENCE _tidemark.%I OWNER TO %s', v_source_name || '_logged_before', v_owner);
            EXECUTE format('ALTER SEQUENCE _tidemark.%I OWNED BY _tidemark.rollup_sources.hypertable',
                           v_source_name || '_logged_before');
        END IF;
        IF to_regclass(format('_tidemark.%I', p_name || '_precomputed')) IS NULL THEN
            EXECUTE format('CREATE TABLE _tidemark.%1$I AS SELECT * FROM _tidemark.%2$I WITH NO DATA',
                           p_name || '_precomputed', p_name || '_direct');
            EXECUTE format('ALTER TABLE _tidemark.%1$I ADD CONSTRAINT %2$I PRIMARY KEY (%3$s, %4$I)',
                           p_name || '_precomputed', p_name || '_precomputed_pkey', v_keys, v_rollup.bucket_column);
            EXECUTE format('CREATE INDEX %2$I ON _tidemark.%1$I (%3$I)',
                           p_name || '_precomputed', p_name || '_precomputed_bucket_idx', v_rollup.bucket_column);
            EXECUTE format('COMMENT ON INDEX _tidemark.%I IS %L', p_name || '_precomputed_bucket_idx',
                           'Buckets of all series within a period.');
        END IF;
        SELECT string_agg(format('%s.%I', '{row}', a.attname), ', ' ORDER BY a.attnum) INTO v_columns
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = format('_tidemark.%I', p_name || '_precomputed')::regclass
           AND a.attnum > cardinality(v_rollup.series);
        EXECUTE format(
            'CREATE OR REPLACE VIEW public.%1$I AS'
            ' SELECT p.* FROM _tidemark.%2$I AS p LEFT JOIN %3$s ON %4$s'
            ' WHERE p.%5$I < _tidemark.rollup_watermark(%6$L) AND (s.buckets @> p.%5$I) IS NOT TRUE'
            ' UNION ALL'
            ' SELECT %7$s, %8$s FROM %3$s CROSS JOIN LATERAL unnest(s.buckets) AS u (buckets)'
            ' CROSS JOIN LATERAL'
            ' _tidemark.aggregate_series(%6$L, jsonb_build_object(%9$s), u.buckets, false) AS f (%10$s)'
            ' UNION ALL %11$s',
            p_name,
            p_name || '_precomputed',
            format('_tidemark.stale_buckets(%1$L, %2$L::regclass, _tidemark.rollup_watermark(%1$L)) AS s (%3$s)',
                   p_name, v_rollup.hypertable,
                   _tidemark.stale_columns(v_rollup.hypertable, v_rollup.series)),
            (SELECT string_agg(format('s.%1$I = p.%1$I', k.name), ' AND ') FROM unnest(v_rollup.series) AS k (name)),
            v_rollup.bucket_column,
            p_name,
            (SELECT string_agg(format('s.%I', k.name), ', ' ORDER BY k.position)
               FROM unnest(v_rollup.series) WITH ORDINALITY AS k (name, position)),
            replace(v_columns, '{row}', 'f'),
            (SELECT string_agg(format('%L, s.%I', k.name, k.name), ', ') FROM unnest(v_rollup.series) AS k (name)),
            _tidemark.column_list(format('_tidemark.%I', p_name || '_precomputed')::regclass, true),
            _tidemark.rollup_query(p_name, NULL, format('{time} >= _tidemark.rollup_watermark(%L)', p_name))
        );
        EXECUTE format('COMMENT ON TABLE _tidemark.%I IS %L', p_name || '_precomputed',
                       format('Precomputed buckets of %s; read that instead.', p_name));
        PERFORM _tidemark.log_changes_of(v_rollup.hypertable);
    END IF;
    EXECUTE format('COMMENT ON VIEW _tidemark.%I IS %L', p_name || '_direct',
                   format('%s as aggregated from the raw rows when read: slow, and the measure of it.', p_name));
    IF obj_description(format('public.%I', p_name)::regclass, 'pg_class') IS NULL THEN
        EXECUTE format('COMMENT ON VIEW public.%I IS %L', p_name,
                       format('%s in buckets of %s.', v_rollup.hypertable, v_rollup.bucket));
    END IF;
    FOREACH v_relation IN ARRAY ARRAY['public.%I', '_tidemark.%I_direct', '_tidemark.%I_precomputed'] LOOP
        EXECUTE coalesce((
            SELECT string_agg(format(
                       'COMMENT ON COLUMN %s.%I IS %L;', a.attrelid::regclass, a.attname,
                       CASE
                           WHEN a.attnum <= cardinality(v_rollup.series) THEN 'Key of the series.'
                           WHEN a.attname = v_rollup.bucket_column THEN 'Start of the bucket.'
                           ELSE v_rollup.columns[a.attnum - cardinality(v_rollup.series) - 1]
                       END
                   ), ' ')
              FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = to_regclass(format(v_relation, p_name))
               AND a.attnum > 0
               AND col_description(a.attrelid, a.attnum) IS NULL
        ), 'SELECT');
    END LOOP;

    -- On both editions: a table that was emptied has lost nothing to retention.
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER trg_log_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT'
        ' EXECUTE FUNCTION _tidemark.forget_rollups()', v_rollup.hypertable
    );
    EXECUTE format('COMMENT ON TRIGGER trg_log_truncate ON %s IS %L', v_rollup.hypertable,
                   'Empties the aggregates, too.');

    -- Everything belongs to whom the definitions belong to, who has to be able to read the raw rows.
    PERFORM _tidemark.let_owner_in(v_rollup.hypertable, 'SELECT');
    FOR v_object IN
        SELECT CASE WHEN v_rollup.is_native AND c.relnamespace = 'public'::regnamespace THEN 'MATERIALIZED VIEW'
                    WHEN c.relkind = 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind,
               c.oid::regclass::text AS name
          FROM pg_catalog.pg_class AS c
         WHERE c.oid IN (to_regclass(format('public.%I', p_name)),
                         to_regclass(format('_tidemark.%I', p_name || '_direct')),
                         to_regclass(format('_tidemark.%I', p_name || '_precomputed')))
           AND c.relowner <> v_owner
        UNION ALL
        SELECT 'FUNCTION', p.oid::regprocedure::text
          FROM pg_catalog.pg_proc AS p
         WHERE p.pronamespace = '_tidemark'::regnamespace
           AND p.proname = 'log_' || v_source_name || '_changes'
           AND p.proowner <> v_owner
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO %s', v_object.kind, v_object.name, v_owner);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.build_rollup(text) IS
'Makes the objects of an aggregate''s definition, or makes them again; what holds data stays as it is.';

-- Adds an aggregate over a hypertable and keeps it up to date, on either edition: a view public.p_name with the series
-- columns, the start of the bucket and p_columns. A bucket is a length for time_bucket, in whole seconds or in whole
-- months, in UTC. p_columns are aggregates of the raw rows as 'expression AS name', in which {time} stands for the time
-- column. p_filter is a condition on raw rows. With p_parent, a finer aggregate of the same hypertable and series,
-- the expressions are applied to the parent's rows, and have to mean the same there as on raw rows (sums of sums,
-- never averages of averages); the parent's filter counts. Until the first refresh everything is computed when read.
-- Adding the same once more changes nothing.
-- Raises TM601 where p_hypertable is none, TM602 where the definition makes no sense, TM603 where the name is taken.
CREATE OR REPLACE FUNCTION public.add_rollup(
    p_name text,
    p_hypertable regclass,
    p_bucket interval,
    p_series text[],
    p_columns text[],
    p_filter text DEFAULT NULL,
    p_parent text DEFAULT NULL,
    p_bucket_column text DEFAULT 'bucket'
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_months CONSTANT integer := CASE
        WHEN isfinite(p_bucket) THEN extract(year FROM p_bucket) * 12 + extract(month FROM p_bucket)
    END;
    v_existing _tidemark.rollups;
    v_parent _tidemark.rollups;
    v_parent_months integer;
    v_problem text;
BEGIN
    PERFORM _tidemark.time_column(p_hypertable);
    SELECT r.* INTO v_existing FROM _tidemark.rollups AS r WHERE r.name = p_name;
    IF FOUND THEN
        IF (v_existing.hypertable, v_existing.bucket, v_existing.series, v_existing.columns, v_existing.filter,
            v_existing.parent, v_existing.bucket_column)
           IS DISTINCT FROM (p_hypertable, p_bucket, p_series, p_columns, p_filter, p_parent, p_bucket_column)
        THEN
            RAISE EXCEPTION USING ERRCODE = 'TM603',
                MESSAGE = format('there is an aggregate %s already, defined differently', p_name),
                HINT = format('Drop it first: SELECT drop_rollup(%L).', p_name);
        END IF;
        RETURN;
    ELSIF to_regclass(format('public.%I', p_name)) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM603',
            MESSAGE = format('there is a relation public.%s already', quote_ident(p_name)),
            HINT = 'Choose another name.';
    END IF;

    SELECT r.* INTO v_parent FROM _tidemark.rollups AS r WHERE r.name = p_parent;
    v_parent_months := extract(year FROM v_parent.bucket) * 12 + extract(month FROM v_parent.bucket);
    v_problem := CASE
        WHEN p_name !~ '^[a-z_][a-z0-9_]{0,46}$' THEN
            'a name consists of at most 47 lower-case letters, digits and underscores'
        WHEN NOT isfinite(p_bucket) THEN 'a bucket ends'
        WHEN v_months > 0 AND date_trunc('month', p_bucket) <> p_bucket THEN
            'a bucket is a number of months or a length of time, not both'
        WHEN p_bucket < interval '1 second' OR date_trunc('second', p_bucket) <> p_bucket THEN
            'a bucket has a length in whole seconds'
        WHEN p_parent IS NOT NULL AND v_parent.name IS NULL THEN format('there is no aggregate %s', p_parent)
        WHEN v_parent.hypertable <> p_hypertable THEN format('%s is not over %s', p_parent, p_hypertable)
        WHEN v_parent.series <> p_series THEN format('the series of %s are others', p_parent)
        WHEN p_filter IS NOT NULL AND p_parent IS NOT NULL THEN format('the filter is that of %s', p_parent)
        WHEN NOT CASE
                 WHEN v_parent.name IS NULL THEN true
                 WHEN v_months > 0 AND v_parent_months > 0 THEN v_months % v_parent_months = 0
                 WHEN v_months > 0 THEN 86400 % extract(epoch FROM v_parent.bucket) = 0
                 ELSE v_parent_months = 0 AND extract(epoch FROM p_bucket) % extract(epoch FROM v_parent.bucket) = 0
             END THEN
            format('buckets of %s cannot be put together from those of %s', p_bucket, p_parent)
        WHEN EXISTS (
            SELECT FROM unnest(p_series) AS s (name)
             WHERE NOT EXISTS (
                   SELECT FROM pg_catalog.pg_attribute AS a
                    WHERE a.attrelid = p_hypertable AND a.attname = s.name AND a.attnotnull AND NOT a.attisdropped)
        ) THEN format('every column of a series is a column of %s that is never NULL', p_hypertable)
    END;
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM602',
            MESSAGE = format('aggregate %s cannot be added', p_name),
            DETAIL = upper(left(v_problem, 1)) || substr(v_problem, 2) || '.';
    END IF;

    -- Its triggers and its first reader agree only on rows written from now on.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', p_hypertable);
    INSERT INTO _tidemark.rollup_sources (hypertable, name)
    SELECT p_hypertable, CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '_' END || c.relname
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_hypertable
        ON CONFLICT ON CONSTRAINT rollup_sources_pkey DO NOTHING;
    INSERT INTO _tidemark.rollups (name, hypertable, parent, bucket, bucket_column, series, columns, filter, is_native)
    VALUES (p_name, p_hypertable, p_parent, p_bucket, p_bucket_column, p_series, p_columns, p_filter,
            _tidemark.edition() = 'community');
    PERFORM _tidemark.build_rollup(p_name);
END
$func$;
COMMENT ON FUNCTION public.add_rollup(text, regclass, interval, text[], text[], text, text, text) IS
'Adds an aggregate over a hypertable, as a view that is kept up to date; a continuous aggregate where there are any.';

-- Removes an aggregate with everything it holds; buckets whose raw rows were dropped cannot be computed again.
-- Raises TM604 where there is none of that name, TM602 where another aggregate is computed from it.
CREATE OR REPLACE FUNCTION public.drop_rollup(p_name text)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rollup _tidemark.rollups;
    v_source_name text;
    v_operation text;
BEGIN
    SELECT r.* INTO v_rollup FROM _tidemark.rollups AS r WHERE r.name = p_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM604',
            MESSAGE = format('there is no aggregate %s', coalesce(p_name, 'NULL')),
            HINT = 'SELECT name FROM _tidemark.rollups lists them.';
    ELSIF EXISTS (SELECT FROM _tidemark.rollups AS r WHERE r.parent = p_name) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM602',
            MESSAGE = format('aggregate %s cannot be dropped', p_name),
            DETAIL = format('Computed from it: %s.',
                            (SELECT string_agg(r.name, ', ') FROM _tidemark.rollups AS r WHERE r.parent = p_name)),
            HINT = 'Drop those first.';
    END IF;
    v_source_name := _tidemark.source_name(v_rollup.hypertable);
    IF v_rollup.is_native THEN
        EXECUTE format('DROP MATERIALIZED VIEW public.%I', p_name);
    ELSE
        EXECUTE format('DROP VIEW public.%I', p_name);
        EXECUTE format('DROP TABLE _tidemark.%I', p_name || '_precomputed');
    END IF;
    EXECUTE format('DROP VIEW _tidemark.%I', p_name || '_direct');
    DELETE FROM _tidemark.rollups AS r WHERE r.name = p_name;

    IF EXISTS (SELECT FROM _tidemark.rollups AS r WHERE r.hypertable = v_rollup.hypertable AND NOT r.is_native) THEN
        PERFORM _tidemark.log_changes_of(v_rollup.hypertable);
    ELSIF NOT v_rollup.is_native THEN
        FOREACH v_operation IN ARRAY ARRAY['insert', 'update', 'delete'] LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', 'trg_log_' || v_operation, v_rollup.hypertable);
        END LOOP;
        EXECUTE format('DROP FUNCTION _tidemark.%I()', 'log_' || v_source_name || '_changes');
        EXECUTE format('DROP SEQUENCE _tidemark.%I', v_source_name || '_logged_before');
        DELETE FROM _tidemark.rollup_changes AS c WHERE c.hypertable = v_rollup.hypertable;
    END IF;
    IF NOT EXISTS (SELECT FROM _tidemark.rollups AS r WHERE r.hypertable = v_rollup.hypertable) THEN
        EXECUTE format('DROP TRIGGER trg_log_truncate ON %s', v_rollup.hypertable);
        DELETE FROM _tidemark.rollup_chunks AS k WHERE k.hypertable = v_rollup.hypertable;
        DELETE FROM _tidemark.rollup_sources AS s WHERE s.hypertable = v_rollup.hypertable;
    END IF;
END
$func$;
COMMENT ON FUNCTION public.drop_rollup(text) IS 'Removes an aggregate with everything it holds.';

-- Takes an aggregate and those computed from it down, so that they can be made anew in the same transaction. What would
-- be lost for good is kept until then: frozen buckets. Views on it are set aside.
CREATE OR REPLACE FUNCTION _tidemark.take_down_rollup(p_name text)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rollup record;
BEGIN
    IF to_regclass('pg_temp.tidemark_taken_down') IS NULL THEN
        CREATE TEMPORARY TABLE tidemark_taken_down (
            name text, definition _tidemark.rollups, dropped_before timestamptz, kept text,
            frozen _tidemark.rollup_frozen[], chunks _tidemark.rollup_chunks[], is_back boolean DEFAULT false
        ) ON COMMIT DROP;
    END IF;
    FOR v_rollup IN
        WITH RECURSIVE branch AS (
            SELECT r.name, 0 AS depth FROM _tidemark.rollups AS r WHERE r.name = p_name
             UNION ALL
            SELECT r.name, b.depth + 1 FROM branch AS b JOIN _tidemark.rollups AS r ON r.parent = b.name
        )
        SELECT r.name, r.hypertable, r AS definition, left('tidemark_kept_' || r.name, 63) AS kept
          FROM branch AS b
          JOIN _tidemark.rollups AS r ON r.name = b.name
         ORDER BY b.depth DESC
    LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_rollup.hypertable);
        PERFORM _tidemark.note_drops(v_rollup.hypertable);
        EXECUTE format(
            'CREATE TEMPORARY TABLE %I ON COMMIT DROP AS SELECT p.* FROM %s AS p WHERE %s',
            v_rollup.kept, _tidemark.rollup_store(v_rollup.name), _tidemark.is_frozen(v_rollup.definition, 'p')
        );
        INSERT INTO pg_temp.tidemark_taken_down (name, definition, dropped_before, kept, frozen, chunks)
        SELECT v_rollup.name, v_rollup.definition, s.dropped_before, v_rollup.kept,
               ARRAY(SELECT z FROM _tidemark.rollup_frozen AS z WHERE z.name = v_rollup.name),
               ARRAY(SELECT k FROM _tidemark.rollup_chunks AS k WHERE k.hypertable = v_rollup.hypertable)
          FROM _tidemark.rollup_sources AS s
         WHERE s.hypertable = v_rollup.hypertable;
        PERFORM _tidemark.set_aside_dependents('pg_class'::regclass, format('public.%I', v_rollup.name)::regclass);
        PERFORM public.drop_rollup(v_rollup.name);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.take_down_rollup(text) IS
'Takes an aggregate down to be made anew; buckets whose raw rows are gone are kept for it.';

-- Gives an aggregate that was taken down and made again its frozen buckets, with NULL in columns that it did not have.
-- Raises TM603 where they do not fit any more.
CREATE OR REPLACE FUNCTION _tidemark.bring_back_buckets(p_name text)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_taken record;
    v_rollup _tidemark.rollups;
    v_store regclass;
    v_columns text;
    v_watermark timestamptz;
BEGIN
    IF to_regclass('pg_temp.tidemark_taken_down') IS NULL THEN
        RETURN;
    END IF;
    UPDATE pg_temp.tidemark_taken_down AS t
       SET is_back = true
     WHERE t.name = p_name AND NOT t.is_back
    RETURNING t.* INTO v_taken;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT r.* INTO STRICT v_rollup FROM _tidemark.rollups AS r WHERE r.name = p_name;
    UPDATE _tidemark.rollup_sources AS s
       SET dropped_before = v_taken.dropped_before
     WHERE s.hypertable = v_rollup.hypertable;
    INSERT INTO _tidemark.rollup_chunks
    SELECT k.* FROM unnest(v_taken.chunks) AS k WHERE k.hypertable = v_rollup.hypertable
    ON CONFLICT ON CONSTRAINT rollup_chunks_pkey DO NOTHING;
    IF v_taken.frozen = '{}' THEN
        RETURN;
    ELSIF (v_rollup.hypertable, v_rollup.series, v_rollup.bucket, v_rollup.bucket_column) IS DISTINCT FROM (
        (v_taken.definition).hypertable, (v_taken.definition).series, (v_taken.definition).bucket,
        (v_taken.definition).bucket_column
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM603',
            MESSAGE = format('aggregate %s cannot be defined differently', p_name),
            DETAIL = 'It holds buckets whose raw rows are gone, and they would not fit another series or bucket.',
            HINT = 'Give the new aggregate another name.';
    END IF;
    v_store := _tidemark.rollup_store(p_name);
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO v_columns
      FROM pg_catalog.pg_attribute AS a
      JOIN pg_catalog.pg_attribute AS k ON k.attrelid = format('pg_temp.%I', v_taken.kept)::regclass
                                       AND k.attname = a.attname
     WHERE a.attrelid = v_store
       AND a.attnum > 0
       AND NOT a.attisdropped;
    EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM pg_temp.%I', v_store, v_columns, v_columns, v_taken.kept);
    INSERT INTO _tidemark.rollup_frozen SELECT z.* FROM unnest(v_taken.frozen) AS z;
    PERFORM _tidemark.guard_frozen(v_rollup);

    -- As far as the coarsest of those that went with it reaches, so that each finds what it is computed from.
    SELECT coalesce(max(_tidemark.bucket_ceiling((t.definition).bucket, t.dropped_before)), '-infinity')
      INTO v_watermark
      FROM pg_temp.tidemark_taken_down AS t
     WHERE (t.definition).hypertable = v_rollup.hypertable;
    UPDATE _tidemark.rollups AS r SET watermark = v_watermark WHERE r.name = p_name RETURNING r.* INTO v_rollup;
    IF v_rollup.is_native THEN
        BEGIN
            UPDATE _timescaledb_catalog.continuous_aggs_watermark AS w
               SET watermark = _timescaledb_functions.to_unix_microseconds(v_watermark)
              FROM _timescaledb_catalog.continuous_agg AS g
             WHERE g.user_view_schema = 'public'
               AND g.user_view_name = p_name
               AND w.mat_hypertable_id = g.mat_hypertable_id;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'aggregate % shows buckets whose raw rows are gone again after the next refresh', p_name;
        END;
    ELSE
        -- Nobody writes meanwhile, and who does so next has to log what lies below.
        PERFORM setval(
            format('_tidemark.%I', _tidemark.source_name(v_rollup.hypertable) || '_logged_before'),
            extract(epoch FROM greatest(s.announced, v_watermark))::bigint
        ) FROM _tidemark.rollup_sources AS s WHERE s.hypertable = v_rollup.hypertable;
        UPDATE _tidemark.rollup_sources AS s
           SET announced = greatest(s.announced, v_watermark)
         WHERE s.hypertable = v_rollup.hypertable;
        PERFORM _tidemark.refresh_rollup(v_rollup, '-infinity', v_watermark, '-infinity');
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.bring_back_buckets(text) IS
'Gives an aggregate that was made anew its buckets whose raw rows are gone; raises TM603 where they do not fit.';

-- Makes again, as they were, aggregates that were taken down with another and that nobody has made since: a user's own.
CREATE OR REPLACE FUNCTION _tidemark.bring_back_rollups()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_taken record;
BEGIN
    IF to_regclass('pg_temp.tidemark_taken_down') IS NULL THEN
        RETURN;
    END IF;
    FOR v_taken IN
        SELECT (d.definition).* FROM pg_temp.tidemark_taken_down AS d
         WHERE NOT d.is_back
         ORDER BY (d.definition).bucket
    LOOP
        PERFORM public.add_rollup(v_taken.name, v_taken.hypertable, v_taken.bucket, v_taken.series, v_taken.columns,
                                  v_taken.filter, v_taken.parent, v_taken.bucket_column);
        PERFORM _tidemark.bring_back_buckets(v_taken.name);
    END LOOP;
    DROP TABLE pg_temp.tidemark_taken_down;
END
$func$;
COMMENT ON FUNCTION _tidemark.bring_back_rollups() IS
'Makes again, as they were, aggregates that were taken down with another and not made since.';

-- Adds an aggregate that Tidemark brings along, or changes it where an earlier version defined it differently: buckets
-- whose raw rows are there are computed anew, the others keep what they have.
CREATE OR REPLACE FUNCTION _tidemark.ship_rollup(
    p_name text,
    p_hypertable regclass,
    p_bucket interval,
    p_series text[],
    p_columns text[],
    p_filter text DEFAULT NULL,
    p_parent text DEFAULT NULL,
    p_bucket_column text DEFAULT 'bucket'
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF EXISTS (
        SELECT FROM _tidemark.rollups AS r
         WHERE r.name = p_name
           AND (r.hypertable, r.bucket, r.series, r.columns, r.filter, r.parent, r.bucket_column)
               IS DISTINCT FROM (p_hypertable, p_bucket, p_series, p_columns, p_filter, p_parent, p_bucket_column)
    ) THEN
        PERFORM _tidemark.take_down_rollup(p_name);
    END IF;
    PERFORM public.add_rollup(p_name, p_hypertable, p_bucket, p_series, p_columns, p_filter, p_parent, p_bucket_column);
    PERFORM _tidemark.bring_back_buckets(p_name);
END
$func$;
COMMENT ON FUNCTION _tidemark.ship_rollup(text, regclass, interval, text[], text[], text, text, text) IS
'Adds an aggregate that Tidemark brings along, or changes the one of an earlier version without losing its buckets.';

-- Clears away what is left of aggregates whose hypertable was dropped with CASCADE.
CREATE OR REPLACE FUNCTION _tidemark.tidy_rollups()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rollup record;
    v_source record;
BEGIN
    FOR v_rollup IN
        SELECT r.name FROM _tidemark.rollups AS r
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = r.hypertable)
         ORDER BY r.bucket DESC
    LOOP
        EXECUTE format('DROP VIEW IF EXISTS public.%I, _tidemark.%I', v_rollup.name, v_rollup.name || '_direct');
        EXECUTE format('DROP TABLE IF EXISTS _tidemark.%I', v_rollup.name || '_precomputed');
        DELETE FROM _tidemark.rollups AS r WHERE r.name = v_rollup.name;
    END LOOP;
    FOR v_source IN
        SELECT s.hypertable, s.name FROM _tidemark.rollup_sources AS s
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = s.hypertable)
    LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS _tidemark.%I()', 'log_' || v_source.name || '_changes');
        EXECUTE format('DROP SEQUENCE IF EXISTS _tidemark.%I', v_source.name || '_logged_before');
        DELETE FROM _tidemark.rollup_changes AS c WHERE c.hypertable = v_source.hypertable;
        DELETE FROM _tidemark.rollup_chunks AS k WHERE k.hypertable = v_source.hypertable;
        DELETE FROM _tidemark.rollup_sources AS s WHERE s.hypertable = v_source.hypertable;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.tidy_rollups() IS
'Clears away what is left of aggregates whose hypertable was dropped with CASCADE.';

-- What the code above generates follows the code.
DO $do$
BEGIN
    PERFORM _tidemark.tidy_rollups();
    PERFORM _tidemark.build_rollup(r.name) FROM _tidemark.rollups AS r ORDER BY r.bucket;
END
$do$;
