-- What runner/parquet.py asks the database. Braces are filled with identifiers.

-- name: hypertable
-- A hypertable by the name of its archive directory, its columns, and those of its primary key.
SELECT format('%%I.%%I', h.hypertable_schema, h.hypertable_name),
       array_agg(a.attname::text),
       coalesce(array_agg(a.attname::text) FILTER (WHERE a.attnum = ANY (x.indkey)), '{}')
  FROM timescaledb_information.hypertables AS h
  JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = format('%%I.%%I', h.hypertable_schema, h.hypertable_name)::regclass
   AND a.attnum > 0
   AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_index AS x
    ON x.indrelid = a.attrelid
   AND x.indisprimary
 WHERE %(name)s IN (
       format('%%I.%%I', h.hypertable_schema, h.hypertable_name),
       CASE h.hypertable_schema WHEN 'public' THEN quote_ident(h.hypertable_name) END
       )
 GROUP BY 1;

-- name: stage
CREATE TEMPORARY TABLE tidemark_archive ON COMMIT DROP AS
SELECT {columns} FROM {table} WITH NO DATA;

-- name: copy
COPY pg_temp.tidemark_archive ({columns}) FROM STDIN;

-- name: put_back
INSERT INTO {table} ({columns})
SELECT {columns} FROM pg_temp.tidemark_archive
ON CONFLICT ({key}) DO NOTHING;
