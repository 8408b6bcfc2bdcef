-- What move.py asks both databases; the source is only read.

-- name: identity
-- What makes a database the same one on the next run: the first entry of its log of migrations.
SELECT l.id FROM _tidemark_migrations._yoyo_log AS l ORDER BY l.created_at_utc, l.id LIMIT 1;

-- name: ledger
-- In the target: what has arrived and is proved. Not part of schema/: it can be dropped when nothing more will come.
CREATE SCHEMA IF NOT EXISTS _tidemark_move;
CREATE TABLE IF NOT EXISTS _tidemark_move.origin (
    identity text NOT NULL,
    passes integer NOT NULL DEFAULT 0,
    finished_at timestamptz
);
CREATE TABLE IF NOT EXISTS _tidemark_move.parts (
    relation text NOT NULL,
    part text NOT NULL,
    rows bigint NOT NULL,
    checksum numeric NOT NULL,
    proved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (relation, part)
);
COMMENT ON SCHEMA _tidemark_move IS 'What tidemark move has brought here; drop it once no further pass will follow.';

-- name: tables
-- Tables whose rows are copied, with the time column of hypertables. Aggregates, the ledgers of the runner and what a
-- crash may empty (caches) are not: they are made anew.
SELECT format('%I.%I', n.nspname, c.relname) AS label, n.nspname AS schema, c.relname AS name, c.reltuples,
       d.column_name AS time_column, d.column_type::text AS time_type,
       pg_total_relation_size(c.oid) AS bytes
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN timescaledb_information.dimensions AS d
         ON d.hypertable_schema = n.nspname AND d.hypertable_name = c.relname AND d.dimension_number = 1
 WHERE c.relkind IN ('r', 'p')
   AND NOT c.relispartition
   AND n.nspname !~ '^(pg_|_timescaledb|timescaledb_|information_schema$|toolkit_|_tidemark_)'
   AND NOT (n.nspname = '_tidemark'
            AND (c.relpersistence = 'u' OR c.relname ~ '_precomputed$'
                 OR c.relname IN ('rollups', 'rollup_sources', 'rollup_changes', 'rollup_chunks', 'rollup_frozen')))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY label;

-- name: caches
-- What is remembered of rows, and void once they came behind its back.
SELECT c.oid::regclass::text AS name
  FROM pg_catalog.pg_class AS c
 WHERE c.relnamespace = '_tidemark'::regnamespace
   AND c.relkind = 'r'
   AND c.relpersistence = 'u';

-- name: columns
-- Columns that hold values of their own. is_plain: the same bytes in every database and version; is_hashable: what is
-- equal has the same bytes, and has no name or number of an object in it.
SELECT a.attname AS name,
       t.typtype = 'e' OR (t.typtype = 'b' AND t.typcategory <> 'A' AND t.typnamespace = 'pg_catalog'::regnamespace
                           AND t.typname !~ '^(reg|oid|xid|cid|tid)') AS is_plain,
       t.typname IN ('bool', 'int2', 'int4', 'int8', 'float4', 'float8', 'text', 'varchar', 'uuid', 'timestamptz',
                     'timestamp', 'date', 'bytea') AS is_hashable
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
 WHERE a.attrelid = %(relation)s::regclass
   AND a.attnum > 0
   AND NOT a.attisdropped
   AND a.attgenerated = ''
 ORDER BY a.attnum;

-- name: number_key
-- The first column of the primary key where it is a whole number.
SELECT a.attname
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
 WHERE i.indrelid = %(relation)s::regclass
   AND i.indisprimary
   AND a.atttypid IN ('integer'::regtype, 'bigint'::regtype);

-- name: chunks
-- Ranges of a hypertable's chunks along its first dimension, as literals of its type; space partitions share one.
SELECT DISTINCT
       CASE WHEN d.column_type::text ~ '^(timestamp|date)'
            THEN (timestamptz 'epoch' + s.range_start * interval '1 microsecond')::text ELSE s.range_start::text END
           AS range_start,
       CASE WHEN d.column_type::text ~ '^(timestamp|date)'
            THEN (timestamptz 'epoch' + s.range_end * interval '1 microsecond')::text ELSE s.range_end::text END
           AS range_end,
       s.range_start AS start
  FROM _timescaledb_catalog.hypertable AS h
  JOIN LATERAL (
           SELECT i.id, i.column_type
             FROM _timescaledb_catalog.dimension AS i
            WHERE i.hypertable_id = h.id AND i.interval_length IS NOT NULL
            ORDER BY i.id
            LIMIT 1
       ) AS d ON true
  JOIN _timescaledb_catalog.dimension_slice AS s ON s.dimension_id = d.id
 WHERE h.schema_name = %(schema)s
   AND h.table_name = %(name)s
 ORDER BY s.range_start;

-- name: always
-- Triggers that fire also for replicas.
SELECT t.tgname AS name
  FROM pg_catalog.pg_trigger AS t
 WHERE t.tgrelid = %(relation)s::regclass
   AND NOT t.tgisinternal
   AND t.tgenabled = 'A';

-- name: dimensions
-- How to make the hypertables again.
SELECT format('%I.%I', d.hypertable_schema, d.hypertable_name) AS hypertable, d.dimension_number AS number,
       d.column_name, d.time_interval::text AS time_interval, d.integer_interval, d.integer_now_func, d.num_partitions
  FROM timescaledb_information.dimensions AS d
 WHERE d.hypertable_schema !~ '^_timescaledb'
 ORDER BY 1, 2;

-- name: rollups
-- Definitions of the aggregates, parents first, and where their precomputed buckets lie.
SELECT r.name, r.hypertable::text AS hypertable, r.parent, r.bucket::text AS bucket, r.bucket_column, r.series,
       r.columns, r.filter, r.is_native, r.refreshed_at IS NOT NULL AS was_refreshed,
       nullif(r.watermark, '-infinity')::text AS watermark, _tidemark.rollup_store(r.name)::text AS store,
       EXISTS (SELECT FROM _tidemark.rollup_frozen AS z WHERE z.name = r.name) AS is_frozen
  FROM _tidemark.rollups AS r
 ORDER BY r.bucket, r.name;

-- name: unnoticed
-- Hypertables of which chunks were dropped since their aggregates were refreshed.
SELECT DISTINCT k.hypertable::text AS name
  FROM _tidemark.rollup_chunks AS k
 WHERE NOT EXISTS (SELECT FROM _tidemark.chunks(k.hypertable) AS c WHERE c.chunk::text = k.chunk)
 ORDER BY name;

-- name: left_behind
-- What TimescaleDB Community keeps and Tidemark knows nothing of.
SELECT format('continuous aggregate %%I.%%I', g.view_schema, g.view_name) AS name
  FROM timescaledb_information.continuous_aggregates AS g
 WHERE NOT EXISTS (SELECT FROM _tidemark.rollups AS r WHERE g.view_schema = 'public' AND r.name = g.view_name)
UNION ALL
SELECT format('job %%s (%%I.%%I)', j.job_id, j.proc_schema, j.proc_name)
  FROM timescaledb_information.jobs AS j
 WHERE j.job_id >= 1000
   AND j.proc_schema <> '_tidemark'
   AND NOT (j.proc_name = 'policy_compression' AND EXISTS ( -- which install_jobs() makes of a policy
           SELECT FROM public.data_policies AS p
            WHERE p.relation = to_regclass(format('%%I.%%I', j.hypertable_schema, j.hypertable_name))
              AND p.compress_after IS NOT NULL))
UNION ALL
SELECT format('extension %%I', x.extname)
  FROM pg_catalog.pg_extension AS x
 WHERE x.extname NOT IN ('plpgsql', 'timescaledb')
   AND x.extname <> ALL (%(offered)s)
 ORDER BY name;
