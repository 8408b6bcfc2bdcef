-- Chunks that fit the data. A hypertable has one length for the chunks that it makes, and data of many densities: of
-- one-minute bars a week is a good chunk, of daily ones it is eighteen rows and seven indexes. So who fills a period
-- says how dense it is going to be, and gets chunks of 2, 4, 8, … of the hypertable's own lengths, with no more than
-- p_rows_per_chunk rows; and what was not filled that way is put together, or divided, afterwards. Chunks lie on the
-- grid of their length, because that is where TimescaleDB puts them. What is now, or still to come, keeps the length of
-- the hypertable.
--
-- Apache-2 has no function that makes a chunk: it takes a row, which triggers must not see, and with that the right to
-- set session_replication_role.

-- The number of microseconds that a chunk spans which a hypertable makes of its own accord.
CREATE OR REPLACE FUNCTION _tidemark.chunk_length(p_hypertable regclass)
    RETURNS bigint
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT (extract(epoch FROM d.time_interval) * 1000000)::bigint
      FROM timescaledb_information.dimensions AS d
     WHERE format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass = p_hypertable
       AND d.dimension_number = 1;
$func$;
COMMENT ON FUNCTION _tidemark.chunk_length(regclass) IS
'Microseconds that a chunk spans which a hypertable makes of its own accord.';

-- The largest power of two of its own lengths that a chunk of a hypertable may have. Where rows are dropped some day, a
-- chunk is at most a tenth of their life.
CREATE OR REPLACE FUNCTION _tidemark.longest_chunk(p_hypertable regclass)
    RETURNS integer
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT greatest(0, floor(log(2, coalesce(
               (SELECT extract(epoch FROM p.drop_after) * 100000 / _tidemark.chunk_length(p_hypertable)
                  FROM public.data_policies AS p WHERE p.relation = p_hypertable),
               4096
           )))::integer);
$func$;
COMMENT ON FUNCTION _tidemark.longest_chunk(regclass) IS
'Largest power of two of its own lengths that a chunk of a hypertable may have.';

-- What is said of chunks below in lengths of the hypertable's own since 1970, as an instant.
CREATE OR REPLACE FUNCTION _tidemark.chunk_instant(p_length bigint, p_number bigint)
    RETURNS timestamptz
    LANGUAGE sql
    IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT timestamptz 'epoch' + p_length * p_number * interval '1 microsecond';
$func$;
COMMENT ON FUNCTION _tidemark.chunk_instant(bigint, bigint) IS
'Start of the n-th length of a hypertable''s own since 1970.';

-- Whether the caller can make chunks of other lengths than the hypertable's own.
CREATE OR REPLACE FUNCTION _tidemark.can_make_chunks()
    RETURNS boolean
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.edition() = 'community' OR has_parameter_privilege('session_replication_role', 'SET');
$func$;
COMMENT ON FUNCTION _tidemark.can_make_chunks() IS
'Whether the caller can make chunks of other lengths than the hypertable''s own.';

-- Makes a chunk on Community.
CREATE OR REPLACE FUNCTION _tidemark.make_native_chunk(p_hypertable regclass, p_from timestamptz, p_to timestamptz)
    RETURNS regclass
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT format('%I.%I', c.schema_name, c.table_name)::regclass
      FROM _timescaledb_functions.create_chunk(
               p_hypertable,
               jsonb_build_object(
                   _tidemark.time_column(p_hypertable),
                   jsonb_build_array(_timescaledb_functions.to_unix_microseconds(p_from),
                                     _timescaledb_functions.to_unix_microseconds(p_to))
               )
           ) AS c;
$func$;
COMMENT ON FUNCTION _tidemark.make_native_chunk(regclass, timestamptz, timestamptz) IS 'Makes a chunk on Community.';

-- The same as Tidemark's owner, for those who load data: TimescaleDB's function is not for everybody.
CREATE OR REPLACE FUNCTION _tidemark.make_own_chunk(p_hypertable regclass, p_from timestamptz, p_to timestamptz)
    RETURNS regclass
    LANGUAGE sql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.make_native_chunk(p_hypertable, p_from, p_to);
$func$;
REVOKE ALL ON FUNCTION _tidemark.make_own_chunk(regclass, timestamptz, timestamptz) FROM public;
COMMENT ON FUNCTION _tidemark.make_own_chunk(regclass, timestamptz, timestamptz) IS
'Makes a chunk on Community as Tidemark''s owner, for those who load data.';

-- Makes an empty chunk of whole lengths on their grid, where no other chunk is; on Apache-2 for those who may set
-- session_replication_role (TM612).
CREATE OR REPLACE FUNCTION _tidemark.make_chunk(p_hypertable regclass, p_from timestamptz, p_to timestamptz)
    RETURNS regclass
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_time CONSTANT name := _tidemark.time_column(p_hypertable);
    v_length CONSTANT bigint := _tidemark.chunk_length(p_hypertable);
    v_role CONSTANT text := current_setting('session_replication_role');
    v_chunk regclass;
BEGIN
    IF _tidemark.edition() = 'community' THEN
        RETURN CASE
            WHEN has_function_privilege(
                '_timescaledb_functions.create_chunk(regclass,jsonb,name,name,regclass)', 'EXECUTE'
            )
                THEN _tidemark.make_native_chunk(p_hypertable, p_from, p_to)
            ELSE _tidemark.make_own_chunk(p_hypertable, p_from, p_to)
        END;
    ELSIF NOT _tidemark.can_make_chunks() THEN
        RAISE EXCEPTION USING ERRCODE = 'TM612',
            MESSAGE = format('%s may not make chunks on this edition', current_user),
            HINT = 'Ask a superuser, or for: GRANT SET ON PARAMETER session_replication_role.';
    END IF;
    PERFORM set_config('session_replication_role', 'replica', true);
    PERFORM public.set_chunk_time_interval(p_hypertable, extract(epoch FROM p_to - p_from) * interval '1 second');
    -- A row with something in every column that wants it; to no trigger it ever was there.
    EXECUTE (
        SELECT format(
                   'INSERT INTO %s (%s) VALUES (%s) RETURNING tableoid', p_hypertable,
                   string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
                   string_agg(
                       CASE
                           WHEN a.attname = v_time THEN quote_literal(p_from)
                           WHEN t.typtype = 'e' THEN quote_literal(l.labels[1])
                           WHEN a.atttypid = 'uuid'::regtype THEN '''00000000-0000-0000-0000-000000000000'''
                           WHEN t.typcategory = 'N' THEN '0'
                           WHEN t.typcategory = 'B' THEN 'false'
                           WHEN t.typcategory = 'D' THEN quote_literal(p_from)
                           WHEN t.typname = 'jsonb' OR t.typcategory = 'A' THEN '''{}'''
                           ELSE ''''''
                       END || '::' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum
                   )
               )
          FROM pg_catalog.pg_attribute AS a
          JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
         CROSS JOIN LATERAL (SELECT ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum AS e
                                           WHERE e.enumtypid = t.oid) AS labels) AS l
         WHERE a.attrelid = p_hypertable
           AND a.attnum > 0
           AND NOT a.attisdropped
           AND a.attnotnull
           AND NOT a.atthasdef
           AND a.attidentity = ''
    ) INTO v_chunk;
    EXECUTE format('DELETE FROM ONLY %s', v_chunk);
    PERFORM public.set_chunk_time_interval(p_hypertable, v_length * interval '1 microsecond');
    PERFORM set_config('session_replication_role', v_role, true);
    RETURN v_chunk;
END
$func$;
COMMENT ON FUNCTION _tidemark.make_chunk(regclass, timestamptz, timestamptz) IS
'Makes an empty chunk of whole lengths of the hypertable''s own, where no other chunk is.';

-- Makes the chunks for a period that is about to be filled with p_rows rows, where the hypertable's own would come out
-- too small. What is spanned by chunks already stays as it is, and so does the stretch that it is now. Returns how many
-- were made: 0 where the hypertable's own chunks do, or where the caller cannot make others. `tidemark load` calls it
-- for every batch. Raises TM601 where p_hypertable is no hypertable over a timestamptz.
CREATE OR REPLACE FUNCTION public.fit_chunks(
    p_hypertable regclass,
    p_from timestamptz,
    p_to timestamptz,
    p_rows bigint,
    p_rows_per_chunk bigint DEFAULT 500000
)
    RETURNS integer
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_length CONSTANT bigint := _tidemark.chunk_length(p_hypertable);
    v_first CONSTANT bigint := floor(extract(epoch FROM p_from) * 1000000 / v_length);
    v_last CONSTANT bigint := floor(extract(epoch FROM p_to) * 1000000 / v_length);
    v_now CONSTANT bigint := floor(extract(epoch FROM now()) * 1000000 / v_length);
    v_there tstzmultirange;
    v_power integer;
    v_largest integer;
    v_cell bigint;
    v_at bigint := v_first;
    v_made integer := 0;
BEGIN
    PERFORM _tidemark.time_column(p_hypertable);
    -- A handful of chunks does no harm.
    IF v_last - v_first < 8 OR p_rows <= 0 OR NOT _tidemark.can_make_chunks() THEN
        RETURN 0;
    END IF;
    v_largest := least(
        floor(log(2, greatest(1, p_rows_per_chunk * (v_last - v_first)::numeric / p_rows))),
        ceil(log(2, v_last - v_first)),
        _tidemark.longest_chunk(p_hypertable)
    );
    IF v_largest < 1 THEN
        RETURN 0;
    END IF;
    -- Two that make chunks take turns, so that neither finds one where it wants to make its own.
    PERFORM pg_advisory_xact_lock(hashtextextended('tidemark.chunks ' || p_hypertable::oid, 0));
    SELECT coalesce(range_agg(tstzrange(c.range_start, c.range_end)), '{}') INTO v_there
      FROM _tidemark.chunks(p_hypertable) AS c;
    WHILE v_at <= v_last LOOP
        FOR v_step IN REVERSE v_largest .. 0 LOOP
            v_power := v_step;
            v_cell := v_at >> v_power;
            EXIT WHEN (v_cell + 1) << v_power <= v_now
                AND NOT v_there && tstzrange(_tidemark.chunk_instant(v_length, v_cell << v_power),
                                             _tidemark.chunk_instant(v_length, (v_cell + 1) << v_power));
        END LOOP;
        IF v_power > 0 THEN
            PERFORM _tidemark.make_chunk(p_hypertable, _tidemark.chunk_instant(v_length, v_cell << v_power),
                                         _tidemark.chunk_instant(v_length, (v_cell + 1) << v_power));
            v_made := v_made + 1;
        END IF;
        v_at := (v_cell + 1) << v_power;
    END LOOP;
    RETURN v_made;
EXCEPTION WHEN SQLSTATE 'TS503' OR check_violation THEN
    -- Another session made a chunk there, or no row of ours suits the table: the hypertable's own chunks do.
    RETURN 0;
END
$func$;
COMMENT ON FUNCTION public.fit_chunks(regclass, timestamptz, timestamptz, bigint, bigint) IS
'Makes the chunks for a period that is about to be filled, as long as its density wants them; returns how many.';

-- The pieces that a chunk is to be divided into: as large as their grid and p_rows_per_chunk rows allow.
CREATE OR REPLACE FUNCTION _tidemark.divide_chunk(
    p_hypertable regclass,
    p_chunk regclass,
    p_from timestamptz,
    p_to timestamptz,
    p_rows_per_chunk bigint
)
    RETURNS tstzrange[]
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_length CONSTANT bigint := _tidemark.chunk_length(p_hypertable);
    v_first CONSTANT bigint := extract(epoch FROM p_from) * 1000000 / v_length;
    v_last CONSTANT bigint := extract(epoch FROM p_to) * 1000000 / v_length;
    v_before bigint[]; -- rows before each length of the chunk, and in all
    v_at bigint := v_first;
    v_power integer;
    v_pieces tstzrange[] := '{}';
BEGIN
    EXECUTE format(
        'WITH counted AS (SELECT floor(extract(epoch FROM t.%1$I) * 1000000 / %2$L)::bigint AS cell, count(*) AS n'
        '                   FROM %3$s AS t GROUP BY 1)'
        ' SELECT array_agg(s.before ORDER BY s.cell)'
        '   FROM (SELECT g.cell, coalesce(sum(c.n) OVER (ORDER BY g.cell) - coalesce(c.n, 0), 0)::bigint AS before'
        '           FROM generate_series(%4$L::bigint, %5$L::bigint) AS g (cell)'
        '           LEFT JOIN counted AS c USING (cell)) AS s',
        _tidemark.time_column(p_hypertable), v_length, p_chunk, v_first, v_last
    ) INTO v_before;
    WHILE v_at < v_last LOOP
        v_power := 0;
        WHILE (v_at >> (v_power + 1)) << (v_power + 1) = v_at
          AND v_at + (1::bigint << (v_power + 1)) <= v_last
          AND v_before[v_at + (1::bigint << (v_power + 1)) - v_first + 1] - v_before[v_at - v_first + 1]
              <= p_rows_per_chunk
        LOOP
            v_power := v_power + 1;
        END LOOP;
        v_pieces := v_pieces || tstzrange(_tidemark.chunk_instant(v_length, v_at),
                                          _tidemark.chunk_instant(v_length, v_at + (1::bigint << v_power)));
        v_at := v_at + (1::bigint << v_power);
    END LOOP;
    RETURN v_pieces;
END
$func$;
COMMENT ON FUNCTION _tidemark.divide_chunk(regclass, regclass, timestamptz, timestamptz, bigint) IS
'Pieces that a chunk is to be divided into, so that each holds about so many rows.';

-- What rechunk would do: chunks that lie in one cell of a longer grid and hold no more than p_rows_per_chunk rows
-- become one; one that holds more than four times that, and is longer than the hypertable's own, is divided. The chunk
-- that it is now, and those after it, stay. Rows are those of the server's statistics.
CREATE OR REPLACE FUNCTION public.rechunk_plan(
    p_hypertable regclass DEFAULT NULL,
    p_rows_per_chunk bigint DEFAULT 500000
)
    RETURNS TABLE (
        hypertable regclass,
        range_start timestamptz,
        range_end timestamptz,
        chunk_count bigint,
        row_count bigint,
        pieces tstzrange[]
    )
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_length bigint;
    v_now bigint;
    v_firsts bigint[];
    v_lasts bigint[];
    v_rows bigint[];
    v_chunk record;
    v_cell record;
BEGIN
    FOR hypertable IN
        SELECT format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass
          FROM timescaledb_information.dimensions AS d
         WHERE d.hypertable_schema <> '_timescaledb_internal'
           AND (p_hypertable IS NULL
                OR format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass = p_hypertable)
         GROUP BY 1
        HAVING count(*) = 1 AND bool_and(d.column_type = 'timestamptz'::regtype)
         ORDER BY 1
    LOOP
        v_length := _tidemark.chunk_length(hypertable);
        v_now := floor(extract(epoch FROM now()) * 1000000 / v_length);
        v_firsts := '{}';
        v_lasts := '{}';
        v_rows := '{}';
        FOR v_chunk IN
            SELECT c.chunk, c.range_start, c.range_end, e.first, e.last, e.last - e.first AS lengths,
                   _tidemark.chunk_rows(c.chunk) AS row_count
              FROM _tidemark.chunks(hypertable) AS c
             CROSS JOIN LATERAL (
                       SELECT extract(epoch FROM c.range_start) * 1000000 / v_length AS first,
                              extract(epoch FROM c.range_end) * 1000000 / v_length AS last
                   ) AS e
             WHERE e.last <= v_now
               AND e.first = floor(e.first) -- on the grid of the hypertable as it is now
               AND e.last = floor(e.last)
        LOOP
            IF v_chunk.row_count > 4 * p_rows_per_chunk AND v_chunk.lengths > 1 THEN
                pieces := _tidemark.divide_chunk(hypertable, v_chunk.chunk, v_chunk.range_start, v_chunk.range_end,
                                                 p_rows_per_chunk);
                IF cardinality(pieces) > 1 THEN
                    range_start := v_chunk.range_start;
                    range_end := v_chunk.range_end;
                    chunk_count := 1;
                    row_count := v_chunk.row_count;
                    RETURN NEXT;
                END IF;
            ELSE
                v_firsts := v_firsts || v_chunk.first::bigint;
                v_lasts := v_lasts || v_chunk.last::bigint;
                v_rows := v_rows || v_chunk.row_count;
            END IF;
        END LOOP;
        FOR v_power IN REVERSE _tidemark.longest_chunk(hypertable) .. 1 LOOP
            FOR v_cell IN
                SELECT u.first >> v_power AS cell, count(*) AS chunk_count, sum(u.row_count)::bigint AS row_count
                  FROM unnest(v_firsts, v_lasts, v_rows) AS u (first, last, row_count)
                 GROUP BY 1
                HAVING count(*) > 1
                   AND sum(u.row_count) <= p_rows_per_chunk
                   AND bool_and((u.last - 1) >> v_power = u.first >> v_power)
                   AND ((u.first >> v_power) + 1) << v_power <= v_now
                   -- Not for a few rows more beside a large chunk.
                   AND (sum(u.row_count) >= 2 * max(u.row_count) OR count(*) >= 8)
                 ORDER BY 1
            LOOP
                range_start := _tidemark.chunk_instant(v_length, v_cell.cell << v_power);
                range_end := _tidemark.chunk_instant(v_length, (v_cell.cell + 1) << v_power);
                -- A chunk that was divided, or lies across the edge, is in the way.
                CONTINUE WHEN EXISTS (
                    SELECT FROM _tidemark.chunks(hypertable) AS c
                     WHERE c.range_start < rechunk_plan.range_end AND c.range_end > rechunk_plan.range_start
                       AND (extract(epoch FROM c.range_start) * 1000000 / v_length)::bigint <> ALL (v_firsts)
                );
                chunk_count := v_cell.chunk_count;
                row_count := v_cell.row_count;
                pieces := ARRAY[tstzrange(range_start, range_end)];
                RETURN NEXT;
                SELECT array_agg(u.first), array_agg(u.last), array_agg(u.row_count) INTO v_firsts, v_lasts, v_rows
                  FROM unnest(v_firsts, v_lasts, v_rows) AS u (first, last, row_count)
                 WHERE u.first >> v_power <> v_cell.cell;
            END LOOP;
        END LOOP;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION public.rechunk_plan(regclass, bigint) IS
'What rechunk would do: which chunks become one, and which are divided into how many.';

-- Replaces the chunks of a hypertable between two instants by others with the same rows, in the caller's transaction.
-- Who writes to the hypertable waits. To triggers, aggregates and the record nothing has happened. Chunks that were
-- compressed, all of them, are so afterwards.
CREATE OR REPLACE FUNCTION _tidemark.replace_chunks(
    p_hypertable regclass,
    p_pieces tstzrange[]
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_time CONSTANT name := _tidemark.time_column(p_hypertable);
    v_from CONSTANT timestamptz := (SELECT min(lower(p)) FROM unnest(p_pieces) AS p);
    v_to CONSTANT timestamptz := (SELECT max(upper(p)) FROM unnest(p_pieces) AS p);
    v_role CONSTANT text := current_setting('session_replication_role');
    v_columns text;
    v_old text[];
    v_is_compressed boolean;
    v_piece tstzrange;
    v_chunk regclass;
    v_rows bigint;
    v_moved bigint := 0;
    v_count bigint;
BEGIN
    -- As for the drop of a chunk: no refresh may be waiting for what waits for it.
    PERFORM pg_advisory_xact_lock(hashtextextended('tidemark.refresh ' || p_hypertable::oid, 0));
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', p_hypertable);
    SELECT array_agg(c.chunk::text ORDER BY c.range_start), bool_and(c.is_compressed) INTO v_old, v_is_compressed
      FROM _tidemark.chunks(p_hypertable) AS c
     WHERE c.range_start >= v_from
       AND c.range_end <= v_to;
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO v_columns
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = p_hypertable
       AND a.attnum > 0
       AND NOT a.attisdropped
       AND a.attgenerated = '';
    EXECUTE format(
        'CREATE TEMPORARY TABLE tidemark_rechunk ON COMMIT DROP AS SELECT %s FROM %s WHERE %I >= %L AND %I < %L',
        v_columns, p_hypertable, v_time, v_from, v_time, v_to
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    IF EXISTS (SELECT FROM public.drop_chunks(p_hypertable, older_than => v_to, newer_than => v_from) AS d (chunk)
                WHERE d.chunk <> ALL (v_old)) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM607',
            MESSAGE = format('the chunks of %s from %s to %s are not what they were', p_hypertable, v_from, v_to),
            HINT = 'Try again: another session has made or dropped some.';
    END IF;
    DELETE FROM _tidemark.rollup_chunks AS k WHERE k.hypertable = p_hypertable AND k.chunk = ANY (v_old);
    -- Triggers on rows would take these for new ones.
    IF EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                WHERE t.tgrelid = p_hypertable AND NOT t.tgisinternal AND t.tgname !~ '^ts_' AND t.tgtype & 5 = 5) THEN
        PERFORM set_config('session_replication_role', 'replica', true);
    END IF;
    FOREACH v_piece IN ARRAY p_pieces LOOP
        v_chunk := _tidemark.make_chunk(p_hypertable, lower(v_piece), upper(v_piece));
        -- Into the chunk itself: the triggers of the hypertable are about statements that bring new rows.
        EXECUTE format(
            'INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE'
            ' SELECT %2$s FROM pg_temp.tidemark_rechunk WHERE %3$I >= %4$L AND %3$I < %5$L ORDER BY %3$I',
            v_chunk, v_columns, v_time, lower(v_piece), upper(v_piece)
        );
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_moved := v_moved + v_count;
        EXECUTE format('ANALYZE %s', v_chunk);
        INSERT INTO _tidemark.rollup_chunks (hypertable, chunk, period)
        SELECT s.hypertable, v_chunk::text, v_piece
          FROM _tidemark.rollup_sources AS s
         WHERE s.hypertable = p_hypertable;
        IF v_is_compressed THEN
            PERFORM _tidemark.compress_chunk(p_hypertable, v_chunk);
        END IF;
    END LOOP;
    PERFORM set_config('session_replication_role', v_role, true)
      WHERE current_setting('session_replication_role') <> v_role;
    DROP TABLE pg_temp.tidemark_rechunk;
    IF v_moved <> v_rows THEN
        RAISE EXCEPTION USING ERRCODE = 'TM607',
            MESSAGE = format('%s of %s rows of %s would be lost: nothing changed', v_rows - v_moved, v_rows,
                             p_hypertable);
    END IF;
    RETURN v_moved;
END
$func$;
COMMENT ON FUNCTION _tidemark.replace_chunks(regclass, tstzrange[]) IS
'Replaces chunks of a hypertable by others with the same rows; for triggers, aggregates and record nothing happened.';

-- Puts chunks that are too small together and divides those that are too large, as rechunk_plan says, of one hypertable
-- or of all; each group in a transaction of its own, so that one that is interrupted has done a part of it for good.
-- Needs the hypertable's owner; on Apache-2 one who may set session_replication_role (TM612).
CREATE OR REPLACE PROCEDURE public.rechunk(
    p_hypertable regclass DEFAULT NULL,
    p_rows_per_chunk bigint DEFAULT 500000
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_group record;
BEGIN
    FOR v_group IN SELECT p.hypertable, p.pieces FROM public.rechunk_plan(p_hypertable, p_rows_per_chunk) AS p LOOP
        PERFORM _tidemark.replace_chunks(v_group.hypertable, v_group.pieces);
        COMMIT;
    END LOOP;
END
$proc$;
COMMENT ON PROCEDURE public.rechunk(regclass, bigint) IS
'Puts chunks that are too small together and divides those that are too large; controls transactions.';
