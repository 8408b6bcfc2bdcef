-- Compression and retention: which chunks there are, which are due, and what happens to them.

CREATE OR REPLACE FUNCTION _tidemark.count_rows(p_relation regclass)
    RETURNS bigint
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rows bigint;
BEGIN
    -- What one may not read must not hide the rest from him.
    IF has_table_privilege(p_relation, 'SELECT') THEN
        EXECUTE format('SELECT count(*) FROM %s', p_relation) INTO v_rows;
    END IF;
    RETURN v_rows;
END
$func$;
COMMENT ON FUNCTION _tidemark.count_rows(regclass) IS
'Rows of a relation, counted; NULL where the caller may not read it.';

-- The number of rows in a chunk: from the server's statistics, counted only where it has none.
CREATE OR REPLACE FUNCTION _tidemark.chunk_rows(p_chunk regclass)
    RETURNS bigint
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(nullif(public.approximate_row_count(p_chunk), 0), _tidemark.count_rows(p_chunk));
$func$;
COMMENT ON FUNCTION _tidemark.chunk_rows(regclass) IS
'Rows of a chunk, as the server''s statistics estimate them; counted where there are none.';

-- Behind a function, because an update of TimescaleDB drops and makes its own views again, which a view that stands on
-- them forbids.
CREATE OR REPLACE FUNCTION _tidemark.chunk_stats()
    RETURNS TABLE (
        hypertable text,
        chunk text,
        range_start timestamptz,
        range_end timestamptz,
        is_compressed boolean,
        row_count bigint,
        table_bytes bigint,
        index_bytes bigint,
        total_bytes bigint
    )
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.label(format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass),
           format('%I.%I', c.chunk_schema, c.chunk_name),
           c.range_start,
           c.range_end,
           c.is_compressed,
           _tidemark.chunk_rows(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass),
           s.table_bytes,
           s.index_bytes,
           s.total_bytes
      FROM timescaledb_information.hypertables AS h
     CROSS JOIN LATERAL public.chunks_detailed_size(
               format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass
           ) AS s
      JOIN timescaledb_information.chunks AS c USING (chunk_schema, chunk_name)
     WHERE h.hypertable_schema <> '_timescaledb_internal' -- where TimescaleDB keeps what it materialised
     ORDER BY h.hypertable_schema, h.hypertable_name, c.range_start;
$func$;
COMMENT ON FUNCTION _tidemark.chunk_stats() IS 'What chunk_stats shows.';

CREATE OR REPLACE VIEW public.chunk_stats AS
SELECT s.hypertable,
       s.chunk,
       s.range_start,
       s.range_end,
       s.is_compressed,
       s.row_count,
       s.table_bytes,
       s.index_bytes,
       s.total_bytes
  FROM _tidemark.chunk_stats() AS s;
COMMENT ON VIEW public.chunk_stats IS 'Chunks of all hypertables: what they span and how large they are.';
COMMENT ON COLUMN public.chunk_stats.hypertable IS 'Hypertable, with its schema where that is not public.';
COMMENT ON COLUMN public.chunk_stats.chunk IS 'The chunk, a table.';
COMMENT ON COLUMN public.chunk_stats.range_start IS 'First instant that belongs in the chunk.';
COMMENT ON COLUMN public.chunk_stats.range_end IS 'First instant after it.';
COMMENT ON COLUMN public.chunk_stats.is_compressed IS 'Whether it is compressed; rows that came later may not be yet.';
COMMENT ON COLUMN public.chunk_stats.row_count IS
'Rows, as the server''s statistics estimate them; NULL: there are none, and the reader may not count.';
COMMENT ON COLUMN public.chunk_stats.table_bytes IS 'Size of the rows, without TOAST.';
COMMENT ON COLUMN public.chunk_stats.index_bytes IS 'Size of the indexes.';
COMMENT ON COLUMN public.chunk_stats.total_bytes IS 'Size of everything, compressed rows included.';

-- What compression made of each chunk. before_bytes and after_bytes are NULL for a chunk that is not compressed, as
-- all are on Apache-2. ratio is how many times smaller it became. TimescaleDB has a function of that name too, with an
-- argument, so this one cannot be dropped by its name alone: see migrations/310_policies.py.
DO $do$
BEGIN
    CREATE OR REPLACE FUNCTION public.chunk_compression_stats()
        RETURNS TABLE (
            hypertable text,
            chunk text,
            is_compressed boolean,
            before_bytes bigint,
            after_bytes bigint,
            ratio numeric
        )
        LANGUAGE sql
        STABLE
        SET search_path = pg_catalog, pg_temp
    AS $func$
        WITH compressed AS (
            SELECT format('%I.%I', c.chunk_schema, c.chunk_name) AS chunk, c.before_compression_total_bytes,
                   c.after_compression_total_bytes
              FROM timescaledb_information.hypertables AS h
             CROSS JOIN LATERAL public.chunk_compression_stats(
                       format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass
                   ) AS c
             WHERE c.compression_status = 'Compressed'
        )
        SELECT s.hypertable, s.chunk, s.is_compressed, c.before_compression_total_bytes,
               c.after_compression_total_bytes,
               round(c.before_compression_total_bytes::numeric / nullif(c.after_compression_total_bytes, 0), 2)
          FROM public.chunk_stats AS s
          LEFT JOIN compressed AS c ON c.chunk = s.chunk
         ORDER BY s.hypertable, s.range_start;
    $func$;
END
$do$;
COMMENT ON FUNCTION public.chunk_compression_stats() IS
'Size of each chunk before and after compression; NULL where it is not compressed.';

-- Gives a hypertable its columnstore settings where it has none: rows are grouped by p_segment_by, by default the
-- primary key without the time, and ordered by time, newest first, then by what the primary key has besides.
CREATE OR REPLACE FUNCTION _tidemark.enable_compression(
    p_hypertable regclass,
    p_segment_by text[]
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_time CONSTANT name := _tidemark.time_column(p_hypertable);
    v_key text[];
    v_segment_by text[];
BEGIN
    IF EXISTS (
        SELECT FROM timescaledb_information.hypertables AS h
         WHERE format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass = p_hypertable
           AND h.compression_enabled
    ) THEN
        RETURN;
    END IF;
    v_key := ARRAY(
        SELECT a.attname::text
          FROM pg_catalog.pg_index AS x
         CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS c (number, position)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = c.number
         WHERE x.indrelid = p_hypertable
           AND x.indisprimary
           AND a.attname <> v_time
         ORDER BY c.position
    );
    v_segment_by := coalesce(p_segment_by, v_key);
    EXECUTE format(
        'ALTER TABLE %s SET (timescaledb.compress, timescaledb.compress_segmentby = %L,'
        ' timescaledb.compress_orderby = %L)',
        p_hypertable,
        (SELECT coalesce(string_agg(quote_ident(k.name), ', ' ORDER BY k.position), '')
           FROM unnest(v_segment_by) WITH ORDINALITY AS k (name, position)),
        (SELECT quote_ident(v_time) || ' DESC'
                || coalesce(string_agg(', ' || quote_ident(k.name), '' ORDER BY k.position), '')
           FROM unnest(v_key) WITH ORDINALITY AS k (name, position)
          WHERE k.name <> ALL (v_segment_by))
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.enable_compression(regclass, text[]) IS
'Gives a hypertable its columnstore settings where it has none: grouped by series, newest first.';

-- Chunks that are due for compression: older than p_older_than, by default than data_policies says; not compressed, or
-- with rows that came later. None on Apache-2.
CREATE OR REPLACE FUNCTION _tidemark.compressible_chunks(p_older_than interval DEFAULT NULL)
    RETURNS TABLE (hypertable regclass, chunk regclass, range_start timestamptz, range_end timestamptz)
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT p.relation AS hypertable, c.chunk, c.range_start, c.range_end
      FROM public.data_policies AS p
     CROSS JOIN LATERAL _tidemark.chunks(p.relation) AS c
     WHERE _tidemark.edition() = 'community'
       AND c.range_end <= now() - coalesce(p_older_than, p.compress_after)
       AND (NOT c.is_compressed OR pg_relation_size(c.chunk) > 0)
     ORDER BY c.range_start, p.relation::text;
$func$;
COMMENT ON FUNCTION _tidemark.compressible_chunks(interval) IS
'Chunks due for compression, by age or by data_policies; none on Apache-2.';

-- Compresses one chunk, or again what came into a compressed one.
CREATE OR REPLACE FUNCTION _tidemark.compress_chunk(
    p_hypertable regclass,
    p_chunk regclass
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    -- TimescaleDB says of a chunk with late rows that it is compressed already, and then compresses them.
    SET client_min_messages = warning
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.enable_compression(
        p_hypertable,
        (SELECT p.segment_by FROM public.data_policies AS p WHERE p.relation = p_hypertable)
    );
    PERFORM public.compress_chunk(p_chunk);
END
$func$;
COMMENT ON FUNCTION _tidemark.compress_chunk(regclass, regclass) IS
'Compresses one chunk, or again what came into a compressed one.';

-- Compresses now what is due, one chunk per transaction; p_older_than overrides the ages in data_policies. A chunk that
-- cannot be compressed keeps no other from being so: a warning, and TM609 once the others are done. On Apache-2
-- there is no compression: says so and changes nothing.
CREATE OR REPLACE PROCEDURE public.compress_history(p_older_than interval DEFAULT NULL)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_chunk record;
    v_failed integer := 0;
BEGIN
    IF _tidemark.edition() <> 'community' THEN
        RAISE NOTICE 'compression is not part of this edition of TimescaleDB: nothing changed';
        RETURN;
    END IF;
    FOR v_chunk IN SELECT c.hypertable, c.chunk FROM _tidemark.compressible_chunks(p_older_than) AS c LOOP
        BEGIN
            PERFORM _tidemark.compress_chunk(v_chunk.hypertable, v_chunk.chunk);
        EXCEPTION WHEN read_only_sql_transaction THEN -- on a standby none can be
            RAISE;
        WHEN OTHERS THEN
            v_failed := v_failed + 1;
            RAISE WARNING USING ERRCODE = SQLSTATE,
                MESSAGE = pg_catalog.format('%s of %s cannot be compressed', v_chunk.chunk, v_chunk.hypertable),
                DETAIL = SQLERRM;
        END;
        COMMIT;
    END LOOP;
    IF v_failed > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'TM609',
            MESSAGE = pg_catalog.format('%s chunk(s) could not be compressed', v_failed),
            DETAIL = 'Warnings name them. The other chunks that were due are compressed.';
    END IF;
END
$proc$;
COMMENT ON PROCEDURE public.compress_history(interval) IS
'Compresses the chunks that are due; controls transactions. Changes nothing on Apache-2.';

-- Number and checksum of a relation's rows. The checksum is the sum of the 64-bit hashes of the rows as text, so it
-- does not depend on their order; p_columns says which columns, in which order.
CREATE OR REPLACE FUNCTION _tidemark.rows_checksum(
    p_relation regclass,
    p_columns text
)
    RETURNS TABLE (row_count bigint, checksum text)
    LANGUAGE plpgsql
    STABLE
    -- The text of a row is that of these settings, whatever the session's.
    SET timezone = 'UTC'
    SET datestyle = 'ISO, YMD'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT count(*), coalesce(sum(hashtextextended(ROW(%s)::text, 0)), 0)::text FROM %s',
        p_columns, p_relation
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.rows_checksum(regclass, text) IS
'Number and checksum of a relation''s rows, independent of their order and of the session''s settings.';

-- The instant before which a hypertable''s rows have outlived data_policies.drop_after; NULL where they may stay. Every
-- bucket of an aggregate that such a row lies in has ended as long ago.
CREATE OR REPLACE FUNCTION _tidemark.expires_before(p_hypertable regclass)
    RETURNS timestamptz
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT least(
        now() - p.drop_after,
        (SELECT min(public.time_bucket(r.bucket, now() - p.drop_after))
           FROM _tidemark.rollups AS r
          WHERE r.hypertable = p_hypertable)
    )
      FROM public.data_policies AS p
     WHERE p.relation = p_hypertable;
$func$;
COMMENT ON FUNCTION _tidemark.expires_before(regclass) IS
'Instant before which a hypertable''s rows have outlived data_policies; NULL where they may stay.';

-- Chunks that retention would drop now, oldest first.
CREATE OR REPLACE FUNCTION _tidemark.expired_chunks()
    RETURNS TABLE (hypertable regclass, chunk regclass, range_start timestamptz, range_end timestamptz)
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH expiry AS MATERIALIZED ( -- once, not for every chunk
        SELECT p.relation AS hypertable, _tidemark.expires_before(p.relation) AS before
          FROM public.data_policies AS p
         WHERE p.drop_after IS NOT NULL
    )
    SELECT e.hypertable, c.chunk, c.range_start, c.range_end
      FROM expiry AS e
     CROSS JOIN LATERAL _tidemark.chunks(e.hypertable) AS c
     WHERE c.range_end <= e.before
     ORDER BY c.range_start, e.hypertable::text;
$func$;
COMMENT ON FUNCTION _tidemark.expired_chunks() IS 'Chunks that retention would drop now, oldest first.';

-- Whether rows were written to a hypertable, in this range, that no refresh of its continuous aggregates has heard of.
CREATE OR REPLACE FUNCTION _tidemark.has_late_rows(
    p_hypertable regclass,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS boolean
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT EXISTS (
        SELECT FROM _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log AS l
          JOIN _timescaledb_catalog.hypertable AS h ON h.id = l.hypertable_id
         WHERE format('%I.%I', h.schema_name, h.table_name)::regclass = p_hypertable
           AND l.lowest_modified_value < _timescaledb_functions.to_unix_microseconds(p_to)
           -- Dropping the chunk before this one is on the log, too, up to the first instant of this one.
           AND (l.greatest_modified_value > _timescaledb_functions.to_unix_microseconds(p_from)
                OR l.lowest_modified_value = _timescaledb_functions.to_unix_microseconds(p_from))
    );
$func$;
COMMENT ON FUNCTION _tidemark.has_late_rows(regclass, timestamptz, timestamptz) IS
'Whether rows were written that no refresh of the continuous aggregates has heard of.';

-- Keeps writers out of a chunk until the transaction ends; readers go on. False where it is gone, dropped by another
-- session meanwhile.
CREATE OR REPLACE FUNCTION _tidemark.claim_chunk(p_chunk regclass)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = p_chunk) THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', p_chunk);
    RETURN true;
EXCEPTION WHEN undefined_table THEN
    RETURN false;
END
$func$;
COMMENT ON FUNCTION _tidemark.claim_chunk(regclass) IS
'Keeps writers out of a chunk until the transaction ends; false where another session has dropped it.';

-- Drops a claimed chunk in the caller's transaction: makes sure that every aggregate has what it needs of its rows,
-- records it, and drops it. From then on the buckets over it are left as they are.
-- Returns the number of rows that went, or NULL, having done nothing, where an aggregate cannot be brought up to date
-- yet: a transaction that writes to the hypertable is still running, or a continuous aggregate does not have all rows
-- of the chunk so far (CALL _tidemark.refresh_before_drop), or an aggregate fails.
-- Raises TM607 where another chunk spans the same time, as with a second dimension.
CREATE OR REPLACE FUNCTION _tidemark.drop_chunk(
    p_hypertable regclass,
    p_chunk regclass,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_name CONSTANT text := p_chunk::text; -- which means nothing once it is gone
    v_rows record;
    v_through timestamptz;
BEGIN
    -- A refresh that reads the chunk has to end before the chunk can go: wait for it here, holding nothing it needs.
    PERFORM pg_advisory_xact_lock(hashtextextended('tidemark.refresh ' || p_hypertable::oid, 0));
    SELECT max(_tidemark.bucket_ceiling(r.bucket, p_to)) INTO v_through
      FROM _tidemark.rollups AS r
     WHERE r.hypertable = p_hypertable
       AND NOT r.is_native;
    IF EXISTS (SELECT FROM _tidemark.rollup_changes AS c WHERE c.hypertable = p_hypertable)
       OR EXISTS (SELECT FROM _tidemark.rollups AS r
                   WHERE r.hypertable = p_hypertable
                     AND NOT r.is_native
                     AND r.watermark < _tidemark.bucket_ceiling(r.bucket, p_to)) THEN
        PERFORM _tidemark.refresh_source(p_hypertable, NULL, NULL, v_through, '2 seconds');
    END IF;
    IF EXISTS (SELECT FROM _tidemark.rollups AS r
                WHERE r.hypertable = p_hypertable
                  AND (r.failure IS NOT NULL
                       OR r.watermark < _tidemark.bucket_ceiling(r.bucket, p_to)
                       OR (r.is_native AND _tidemark.has_late_rows(p_hypertable, p_from, p_to))))
    THEN
        RETURN NULL;
    END IF;

    SELECT r.* INTO STRICT v_rows
      FROM _tidemark.rows_checksum(p_chunk, _tidemark.column_list(p_hypertable, false)) AS r;
    -- The record reads what it is to keep, also of a table that is not on record.
    IF EXISTS (SELECT FROM public.data_policies AS p WHERE p.relation = p_hypertable AND p.keep_dropped) THEN
        PERFORM _tidemark.let_in('tidemark_record', p_hypertable, 'SELECT');
    END IF;
    PERFORM _tidemark.record_chunk_drop(p_hypertable, p_chunk, p_from, p_to, v_rows.row_count, v_rows.checksum);
    PERFORM _tidemark.freeze(p_hypertable, tstzmultirange(tstzrange(p_from, p_to)));
    DELETE FROM _tidemark.rollup_chunks AS k WHERE k.hypertable = p_hypertable AND k.chunk = v_name;
    IF ARRAY[v_name] <> ARRAY(SELECT d.chunk
                                FROM public.drop_chunks(p_hypertable, older_than => p_to, newer_than => p_from)
                                  AS d (chunk))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'TM607',
            MESSAGE = format('%s is not the only chunk of %s in its range', v_name, p_hypertable),
            HINT = 'Retention takes hypertables that are divided by time alone.';
    END IF;
    RETURN v_rows.row_count;
END
$func$;
COMMENT ON FUNCTION _tidemark.drop_chunk(regclass, regclass, timestamptz, timestamptz) IS
'Drops a claimed chunk once its aggregates have what they need, and records it; NULL where that has to wait.';

-- Brings the continuous aggregates of a hypertable up to date before a chunk that ends at p_range_end is dropped. Has
-- nothing to do where there are none.
CREATE OR REPLACE PROCEDURE _tidemark.refresh_before_drop(
    p_hypertable regclass,
    p_range_end timestamptz
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_failures text;
BEGIN
    IF EXISTS (SELECT FROM _tidemark.rollups AS r WHERE r.hypertable = p_hypertable AND r.is_native) THEN
        CALL _tidemark.refresh(p_hypertable, NULL, NULL, p_range_end, v_failures);
    END IF;
END
$proc$;
COMMENT ON PROCEDURE _tidemark.refresh_before_drop(regclass, timestamptz) IS
'Brings the continuous aggregates of a hypertable up to date before a chunk is dropped; controls transactions.';

-- Raises TM609 where chunks could not be dropped, TM608 where they had to stay for now.
CREATE OR REPLACE FUNCTION _tidemark.raise_left_over(p_failed integer, p_waiting integer)
    RETURNS void
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_failed > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'TM609',
            MESSAGE = format('%s chunk(s) could not be dropped', p_failed),
            DETAIL = 'Warnings name them. The other chunks that were due are dropped.';
    END IF;
    IF p_waiting > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'TM608',
            MESSAGE = format('%s chunk(s) could not be dropped yet', p_waiting),
            DETAIL = 'Transactions that write to their hypertable have not ended, rows came late, or an aggregate fails.',
            HINT = 'Try again later; the other chunks that were due are dropped.';
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.raise_left_over(integer, integer) IS
'Raises TM609 where chunks could not be dropped, TM608 where they had to stay for now.';

-- What apply_retention does; counts the chunks that could not be dropped, of which warnings tell, and those that had to
-- stay for now.
CREATE OR REPLACE PROCEDURE _tidemark.drop_expired(INOUT p_failed integer, INOUT p_waiting integer)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_hypertable record;
    v_chunk record;
BEGIN
    p_failed := 0;
    p_waiting := 0;
    FOR v_hypertable IN
        SELECT c.hypertable, pg_catalog.max(c.range_end) AS range_end
          FROM _tidemark.expired_chunks() AS c
         GROUP BY c.hypertable
    LOOP
        CALL _tidemark.refresh_before_drop(v_hypertable.hypertable, v_hypertable.range_end);
        COMMIT;
    END LOOP;
    FOR v_chunk IN SELECT c.* FROM _tidemark.expired_chunks() AS c LOOP
        BEGIN
            IF _tidemark.claim_chunk(v_chunk.chunk)
               AND _tidemark.drop_chunk(v_chunk.hypertable, v_chunk.chunk, v_chunk.range_start, v_chunk.range_end)
                   IS NULL
            THEN
                p_waiting := p_waiting + 1;
            END IF;
        EXCEPTION WHEN read_only_sql_transaction THEN -- on a standby none can be
            RAISE;
        WHEN OTHERS THEN
            p_failed := p_failed + 1;
            RAISE WARNING USING ERRCODE = SQLSTATE,
                MESSAGE = pg_catalog.format('%s of %s cannot be dropped', v_chunk.chunk, v_chunk.hypertable),
                DETAIL = SQLERRM;
        END;
        COMMIT;
    END LOOP;
END
$proc$;
COMMENT ON PROCEDURE _tidemark.drop_expired(integer, integer) IS
'Drops the chunks that have outlived data_policies, and counts those that had to stay; controls transactions.';

-- Drops what has outlived data_policies, chunk by chunk, each in a transaction of its own with its entry in the record.
-- Aggregates keep what they have of the dropped rows and are never recomputed there. Nothing happens while no
-- drop_after is set. A chunk that another session drops meanwhile is left to it. Raises TM608 where chunks had to stay
-- because of transactions that go on writing, TM609 where some cannot be dropped, of which warnings tell; each once the
-- others are dropped.
CREATE OR REPLACE PROCEDURE public.apply_retention()
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_failed integer;
    v_waiting integer;
BEGIN
    CALL _tidemark.drop_expired(v_failed, v_waiting);
    PERFORM _tidemark.raise_left_over(v_failed, v_waiting);
END
$proc$;
COMMENT ON PROCEDURE public.apply_retention() IS
'Drops the chunks that have outlived data_policies, and records each; controls transactions.';
