-- How large are the indexes?
-- parameters:
-- columns: table_name text, index_name text, is_unique boolean, bytes bigint, size text
-- cost: the catalogue and the sizes of the files; no rows
SELECT z.table_name,
       z.index_name,
       z.is_unique,
       z.bytes,
       pg_size_pretty(z.bytes) AS size
  FROM (
        SELECT t.relname::text AS table_name,
               i.relname::text AS index_name,
               x.indisunique AS is_unique,
               CASE WHEN h.hypertable_name IS NULL THEN pg_relation_size(i.oid)
                    ELSE public.hypertable_index_size(i.oid) END AS bytes
          FROM pg_catalog.pg_index AS x
          JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
          JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid
          LEFT JOIN timescaledb_information.hypertables AS h
            ON h.hypertable_schema = 'public' AND h.hypertable_name = t.relname
         WHERE t.relnamespace = 'public'::regnamespace
       ) AS z
 ORDER BY z.bytes DESC, z.index_name ASC;
