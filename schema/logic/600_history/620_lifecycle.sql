-- Compression and retention: which chunks there are, which are due, and what happens to them.

-- The hypertable that a name in data_policies means: a table in public, or one with its schema; NULL where there is
-- none, or not any more.
CREATE OR REPLACE FUNCTION _tidemark.policy_table(p_name text)
    RETURNS regclass
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    -- By the catalogue, because resolving a name takes a privilege on its schema.
    SELECT c.oid::regclass
      FROM timescaledb_information.hypertables AS h
      JOIN pg_catalog.pg_namespace AS n ON n.nspname = h.hypertable_schema
      JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = h.hypertable_name
     WHERE p_name IN (
               CASE h.hypertable_schema WHEN 'public' THEN h.hypertable_name::text END,
               h.hypertable_schema || '.' || h.hypertable_name,
               format('%I.%I', h.hypertable_schema, h.hypertable_name)
           );
$func$;
COMMENT ON FUNCTION _tidemark.policy_table(text) IS
'The hypertable that a name in data_policies means; NULL where there is none.';

-- The number of rows in a chunk: from the server's statistics, counted only where it has none.
CREATE OR REPLACE FUNCTION _tidemark.chunk_rows(p_chunk regclass)
    RETURNS bigint
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rows bigint := public.approximate_row_count(p_chunk);
BEGIN
    IF v_rows = 0 THEN
        EXECUTE format('SELECT count(*) FROM %s', _tidemark.qualified_name(p_chunk)) INTO v_rows;
    END IF;
    RETURN v_rows;
END
$func$;
COMMENT ON FUNCTION _tidemark.chunk_rows(regclass) IS
'Rows of a chunk, as the server''s statistics estimate them; counted where there are none.';

CREATE OR REPLACE VIEW public.chunk_stats AS
SELECT CASE h.hypertable_schema WHEN 'public' THEN '' ELSE quote_ident(h.hypertable_schema) || '.' END
       || quote_ident(h.hypertable_name) AS hypertable,
       format('%I.%I', c.chunk_schema, c.chunk_name) AS chunk,
       c.range_start,
       c.range_end,
       c.is_compressed,
       _tidemark.chunk_rows(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass) AS row_count,
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
COMMENT ON VIEW public.chunk_stats IS 'Chunks of all hypertables: what they span and how large they are.';
COMMENT ON COLUMN public.chunk_stats.hypertable IS 'Hypertable, with its schema where that is not public.';
COMMENT ON COLUMN public.chunk_stats.chunk IS 'The chunk, a table.';
COMMENT ON COLUMN public.chunk_stats.range_start IS 'First instant that belongs in the chunk.';
COMMENT ON COLUMN public.chunk_stats.range_end IS 'First instant after it.';
COMMENT ON COLUMN public.chunk_stats.is_compressed IS 'Whether it is compressed; rows that came later may not be yet.';
COMMENT ON COLUMN public.chunk_stats.row_count IS 'Rows, as the server''s statistics estimate them.';
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
         WHERE format('%I.%I', h.hypertable_schema, h.hypertable_name) = _tidemark.qualified_name(p_hypertable)
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
        _tidemark.qualified_name(p_hypertable),
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
    SELECT t.hypertable, k.chunk, c.range_start, c.range_end
      FROM public.data_policies AS p
     CROSS JOIN LATERAL (SELECT _tidemark.policy_table(p.hypertable) AS hypertable) AS t
      JOIN timescaledb_information.chunks AS c
        ON format('%I.%I', c.hypertable_schema, c.hypertable_name) = _tidemark.qualified_name(t.hypertable)
     CROSS JOIN LATERAL (SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass AS chunk) AS k
     WHERE _tidemark.edition() = 'community'
       AND c.range_end <= now() - coalesce(p_older_than, p.compress_after)
       AND (NOT c.is_compressed OR pg_relation_size(k.chunk) > 0)
     ORDER BY c.range_start, t.hypertable::text;
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
        (SELECT p.segment_by FROM public.data_policies AS p WHERE _tidemark.policy_table(p.hypertable) = p_hypertable)
    );
    PERFORM public.compress_chunk(p_chunk);
END
$func$;
COMMENT ON FUNCTION _tidemark.compress_chunk(regclass, regclass) IS
'Compresses one chunk, or again what came into a compressed one.';

-- Compresses now what is due, one chunk per transaction; p_older_than overrides the ages in data_policies. On Apache-2
-- there is no compression: says so and changes nothing.
CREATE OR REPLACE PROCEDURE public.compress_history(p_older_than interval DEFAULT NULL)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_chunk record;
BEGIN
    IF _tidemark.edition() <> 'community' THEN
        RAISE NOTICE 'compression is not part of this edition of TimescaleDB: nothing changed';
        RETURN;
    END IF;
    FOR v_chunk IN SELECT c.hypertable, c.chunk FROM _tidemark.compressible_chunks(p_older_than) AS c LOOP
        PERFORM _tidemark.compress_chunk(v_chunk.hypertable, v_chunk.chunk);
        COMMIT;
    END LOOP;
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
        p_columns, _tidemark.qualified_name(p_relation)
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
     WHERE _tidemark.policy_table(p.hypertable) = p_hypertable;
$func$;
COMMENT ON FUNCTION _tidemark.expires_before(regclass) IS
'Instant before which a hypertable''s rows have outlived data_policies; NULL where they may stay.';

-- Chunks that retention would drop now, oldest first.
CREATE OR REPLACE FUNCTION _tidemark.expired_chunks()
    RETURNS TABLE (
        hypertable regclass,
        chunk regclass,
        range_start timestamptz,
        range_end timestamptz,
        total_bytes bigint
    )
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT t.hypertable, k.chunk, c.range_start, c.range_end, s.total_bytes
      FROM public.data_policies AS p
     CROSS JOIN LATERAL (SELECT _tidemark.policy_table(p.hypertable) AS hypertable) AS t
     CROSS JOIN LATERAL public.chunks_detailed_size(t.hypertable) AS s
      JOIN timescaledb_information.chunks AS c USING (chunk_schema, chunk_name)
     CROSS JOIN LATERAL (SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass AS chunk) AS k
     WHERE p.drop_after IS NOT NULL
       AND c.range_end <= _tidemark.expires_before(t.hypertable)
     ORDER BY c.range_start, t.hypertable::text;
$func$;
COMMENT ON FUNCTION _tidemark.expired_chunks() IS 'Chunks that retention would drop now, oldest first.';

-- Drops one chunk in the caller's transaction: keeps writers out of it, makes sure that every aggregate has what it
-- needs of its rows, records it, and drops it. From then on buckets that begin before its end are left as they are.
-- Returns the number of rows that went, or NULL, having done nothing, where an aggregate cannot be brought up to date
-- yet: a transaction that writes to the hypertable is still running, or a continuous aggregate has not been refreshed
-- so far (CALL _tidemark.refresh_before_drop).
-- Raises TM607 where another chunk spans the same time, as with a second dimension.
CREATE OR REPLACE FUNCTION _tidemark.drop_chunk(
    p_hypertable regclass,
    p_chunk regclass
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_chunk record;
    v_rows record;
    v_through timestamptz;
BEGIN
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', _tidemark.qualified_name(p_chunk));
    SELECT c.range_start, c.range_end INTO STRICT v_chunk
      FROM timescaledb_information.chunks AS c
     WHERE format('%I.%I', c.chunk_schema, c.chunk_name) = _tidemark.qualified_name(p_chunk);
    SELECT max(_tidemark.bucket_ceiling(r.bucket, v_chunk.range_end)) INTO v_through
      FROM _tidemark.rollups AS r
     WHERE r.hypertable = p_hypertable;
    IF EXISTS (SELECT FROM _tidemark.rollups AS r WHERE r.hypertable = p_hypertable AND NOT r.is_native) THEN
        PERFORM _tidemark.refresh_source(p_hypertable, NULL, NULL, v_through, '2 seconds');
    END IF;
    IF EXISTS (SELECT FROM _tidemark.rollups AS r
                WHERE r.hypertable = p_hypertable
                  AND r.watermark < _tidemark.bucket_ceiling(r.bucket, v_chunk.range_end))
    THEN
        RETURN NULL;
    END IF;

    SELECT r.* INTO STRICT v_rows
      FROM _tidemark.rows_checksum(p_chunk, _tidemark.column_list(p_hypertable, false)) AS r;
    PERFORM _tidemark.record_chunk_drop(
        p_hypertable, p_chunk, v_chunk.range_start, v_chunk.range_end, v_rows.row_count, v_rows.checksum
    );
    IF 1 <> (SELECT count(*) FROM public.drop_chunks(
                 p_hypertable, older_than => v_chunk.range_end, newer_than => v_chunk.range_start))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'TM607',
            MESSAGE = format('%s is not the only chunk of %s in its range', p_chunk, p_hypertable),
            HINT = 'Retention takes hypertables that are divided by time alone.';
    END IF;
    UPDATE _tidemark.rollup_sources AS s
       SET dropped_before = greatest(s.dropped_before, v_chunk.range_end),
           oldest_chunk = coalesce(
               (SELECT min(c.range_start)
                  FROM timescaledb_information.chunks AS c
                 WHERE format('%I.%I', c.hypertable_schema, c.hypertable_name)
                       = _tidemark.qualified_name(p_hypertable)),
               'infinity'
           )
     WHERE s.hypertable = p_hypertable;
    RETURN v_rows.row_count;
END
$func$;
COMMENT ON FUNCTION _tidemark.drop_chunk(regclass, regclass) IS
'Drops one chunk once its aggregates have what they need, and records it; NULL where that has to wait.';

-- Brings the continuous aggregates of a hypertable up to date before a chunk that ends at p_range_end is dropped. Has
-- nothing to do where there are none.
CREATE OR REPLACE PROCEDURE _tidemark.refresh_before_drop(
    p_hypertable regclass,
    p_range_end timestamptz
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
BEGIN
    IF EXISTS (SELECT FROM _tidemark.rollups AS r WHERE r.hypertable = p_hypertable AND r.is_native) THEN
        CALL _tidemark.refresh(p_hypertable, NULL, NULL, p_range_end);
    END IF;
END
$proc$;
COMMENT ON PROCEDURE _tidemark.refresh_before_drop(regclass, timestamptz) IS
'Brings the continuous aggregates of a hypertable up to date before a chunk is dropped; controls transactions.';

-- Drops what has outlived data_policies, chunk by chunk, each in a transaction of its own with its entry in the record.
-- Aggregates keep what they have of the dropped rows and are never recomputed there. Nothing happens while no
-- drop_after is set. Raises TM608 where chunks had to stay because of transactions that go on writing.
CREATE OR REPLACE PROCEDURE public.apply_retention()
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_chunk record;
    v_waiting integer := 0;
BEGIN
    FOR v_chunk IN SELECT c.* FROM _tidemark.expired_chunks() AS c LOOP
        CALL _tidemark.refresh_before_drop(v_chunk.hypertable, v_chunk.range_end);
        IF _tidemark.drop_chunk(v_chunk.hypertable, v_chunk.chunk) IS NULL THEN
            v_waiting := v_waiting + 1;
        END IF;
        COMMIT;
    END LOOP;
    IF v_waiting > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'TM608',
            MESSAGE = pg_catalog.format('%s chunk(s) could not be dropped yet', v_waiting),
            DETAIL = 'Transactions that write to their hypertable have not ended.',
            HINT = 'Try again later; the other chunks that were due are dropped.';
    END IF;
END
$proc$;
COMMENT ON PROCEDURE public.apply_retention() IS
'Drops the chunks that have outlived data_policies, and records each; controls transactions.';
