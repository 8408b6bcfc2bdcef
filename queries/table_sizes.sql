-- How large are the tables?
-- parameters:
-- columns: table_name text, is_hypertable boolean, chunks bigint, rows_estimate bigint, table_bytes bigint,
--   index_bytes bigint, total_bytes bigint, total text
-- cost: the catalogue and the sizes of the files; no rows
SELECT z.table_name,
       z.is_hypertable,
       z.chunks,
       z.rows_estimate,
       z.table_bytes,
       z.index_bytes,
       z.total_bytes,
       pg_size_pretty(z.total_bytes) AS total
  FROM (
        SELECT h.hypertable_name::text AS table_name,
               true AS is_hypertable,
               h.num_chunks AS chunks,
               public.approximate_row_count(h.name) AS rows_estimate,
               s.table_bytes + s.toast_bytes AS table_bytes,
               s.index_bytes,
               s.total_bytes
          FROM (
                SELECT i.hypertable_name,
                       i.num_chunks,
                       format('%I.%I', i.hypertable_schema, i.hypertable_name)::regclass AS name
                  FROM timescaledb_information.hypertables AS i
                 WHERE i.hypertable_schema = 'public'
               ) AS h
         CROSS JOIN LATERAL public.hypertable_detailed_size(h.name) AS s
         UNION ALL
        SELECT c.relname,
               false,
               NULL,
               CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END,
               pg_table_size(c.oid),
               pg_indexes_size(c.oid),
               pg_total_relation_size(c.oid)
          FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace = 'public'::regnamespace
           AND c.relkind = 'r'
           AND c.relname NOT IN (
               SELECT i.hypertable_name FROM timescaledb_information.hypertables AS i
                WHERE i.hypertable_schema = 'public'
           )
       ) AS z
 ORDER BY z.total_bytes DESC, z.table_name ASC;
