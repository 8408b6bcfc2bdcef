-- Which indexes are used, and which are not?
-- parameters:
-- columns: table_name text, index_name text, scans numeric, rows_read numeric, bytes numeric, size text
-- cost: the catalogue and the statistics; the chunks of a hypertable count together
SELECT z.table_name,
       z.index_name,
       sum(z.scans) AS scans,
       sum(z.rows_read) AS rows_read,
       sum(z.bytes) AS bytes,
       pg_size_pretty(sum(z.bytes)) AS size
  FROM (
        SELECT coalesce(c.hypertable_name, u.relname)::text AS table_name,
               -- A chunk's index has the name of the table's, after the chunk's own name or the constraint's number.
               CASE WHEN c.chunk_name IS NULL THEN u.indexrelname::text
                    ELSE regexp_replace(u.indexrelname, '^(_hyper_\d+_\d+_chunk_|\d+_(\d+_)?)', '') END AS index_name,
               u.idx_scan AS scans,
               u.idx_tup_read AS rows_read,
               pg_relation_size(u.indexrelid) AS bytes
          FROM pg_catalog.pg_stat_user_indexes AS u
          LEFT JOIN timescaledb_information.chunks AS c
            ON c.chunk_schema = u.schemaname AND c.chunk_name = u.relname AND c.hypertable_schema = 'public'
         WHERE u.schemaname = 'public' OR c.chunk_name IS NOT NULL
       ) AS z
 GROUP BY z.table_name, z.index_name
 ORDER BY scans ASC, bytes DESC, z.index_name ASC;
