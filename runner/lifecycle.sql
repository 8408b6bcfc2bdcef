-- What runner/lifecycle.py asks the database.

-- name: due_for_compression
SELECT _tidemark.label(c.hypertable), _tidemark.label(c.chunk), c.range_start, c.range_end, c.hypertable::oid,
       c.chunk::oid
  FROM _tidemark.compressible_chunks(%(older_than)s::interval) AS c;

-- name: compress
SELECT _tidemark.compress_chunk(%(hypertable)s::oid::regclass, %(chunk)s::oid::regclass);

-- name: sizes
-- All at once, because asking for one chunk takes as long.
SELECT format('%%I.%%I', s.chunk_schema, s.chunk_name)::regclass::oid, s.total_bytes
  FROM unnest(%(hypertables)s::oid[]) AS h (hypertable)
 CROSS JOIN LATERAL public.chunks_detailed_size(h.hypertable::regclass) AS s;

-- name: expired
SELECT _tidemark.label(c.hypertable), _tidemark.label(c.chunk), c.range_start, c.range_end, c.hypertable::oid,
       c.chunk::oid, CASE WHEN %(counted)s THEN _tidemark.count_rows(c.chunk) END
  FROM _tidemark.expired_chunks() AS c;

-- name: claim
SELECT _tidemark.claim_chunk(%(chunk)s::oid::regclass);

-- name: checksum
SELECT c.row_count, c.checksum
  FROM _tidemark.rows_checksum(
           %(relation)s::regclass, _tidemark.column_list(%(hypertable)s::oid::regclass, false)
       ) AS c;

-- name: columns
SELECT a.attname, format_type(a.atttypid, NULL)
  FROM pg_catalog.pg_attribute AS a
 WHERE a.attrelid = %(hypertable)s::oid AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum;

-- name: primary_key
SELECT a.attname
  FROM pg_catalog.pg_index AS x
 CROSS JOIN LATERAL unnest(x.indkey) WITH ORDINALITY AS c (number, position)
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = c.number
 WHERE x.indrelid = %(hypertable)s::oid AND x.indisprimary
 ORDER BY c.position;

-- name: drop
SELECT _tidemark.drop_chunk(
           %(hypertable)s::oid::regclass, %(chunk)s::oid::regclass, %(start)s::timestamptz, %(end)s::timestamptz
       );

-- name: rechunk_plan
SELECT _tidemark.label(p.hypertable), p.range_start, p.range_end, p.chunk_count, p.row_count, cardinality(p.pieces),
       p.hypertable::oid, p.pieces::text[]
  FROM public.rechunk_plan(%(hypertable)s::text::regclass) AS p;

-- name: replace_chunks
SELECT _tidemark.replace_chunks(%(hypertable)s::oid::regclass, %(pieces)s::tstzrange[]);

-- name: server
SELECT _tidemark.edition(), (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'timescaledb'),
       current_setting('server_version'), pg_database_size(current_database());

-- name: hypertables
SELECT s.hypertable AS name, count(*) AS chunks, count(*) FILTER (WHERE s.is_compressed) AS compressed_chunks,
       sum(s.row_count)::bigint AS rows,
       -- Half a million rows make a good chunk: see rechunk.
       CASE WHEN count(*) >= 30 AND sum(s.row_count) < count(*) * 5000 THEN 'too small'
            WHEN max(s.row_count) > 10000000 THEN 'too large' ELSE 'fits' END AS chunk_size,
       sum(s.total_bytes)::bigint AS bytes, min(s.range_start) AS oldest,
       max(s.range_end) AS newest, sum(c.before_bytes)::bigint AS before_compression_bytes,
       sum(c.after_bytes)::bigint AS after_compression_bytes,
       round(sum(c.before_bytes) / nullif(sum(c.after_bytes), 0), 2)::float8 AS ratio
  FROM public.chunk_stats AS s
  JOIN public.chunk_compression_stats() AS c USING (hypertable, chunk)
 GROUP BY s.hypertable
 ORDER BY s.hypertable;

-- name: aggregates
SELECT r.name, _tidemark.label(r.hypertable) AS hypertable,
       nullif(r.watermark, '-infinity') AS precomputed_to, r.refreshed_at, r.failure,
       n.newest AS newest_row,
       extract(epoch FROM n.newest - nullif(r.watermark, '-infinity'))::float8 AS lag_seconds,
       (SELECT count(*) FROM _tidemark.rollup_changes AS c
         WHERE c.hypertable = r.hypertable AND NOT r.is_native) AS logged_changes
  FROM _tidemark.rollups AS r
  JOIN (SELECT s.hypertable, _tidemark.newest_row(s.hypertable) AS newest
          FROM _tidemark.rollup_sources AS s) AS n USING (hypertable)
 ORDER BY 2, r.bucket, r.name;

-- name: policies
SELECT _tidemark.label(p.relation) AS hypertable, p.compress_after::text, p.drop_after::text
  FROM public.data_policies AS p
 WHERE _tidemark.is_hypertable(p.relation)
 ORDER BY 1;

-- name: jobs
SELECT j.job_id, j.proc_name AS name, j.hypertable_name AS hypertable, j.schedule_interval::text AS every,
       nullif(s.last_run_started_at, '-infinity') AS last_run_at, s.last_run_status AS last_outcome,
       nullif(nullif(s.next_start, '-infinity'), 'infinity') AS next_run_at, s.total_runs AS runs,
       s.total_failures AS failures
  FROM timescaledb_information.jobs AS j
  LEFT JOIN timescaledb_information.job_stats AS s USING (job_id)
 WHERE j.proc_schema = '_tidemark' OR j.proc_name = 'policy_compression'
 ORDER BY j.job_id;
