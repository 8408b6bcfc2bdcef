-- What runner/parquet.py asks the database. Braces are filled with identifiers.

-- name: hypertable
-- A hypertable by the name of its archive directory, its columns, and those of its primary key.
SELECT a.attrelid::regclass::text,
       array_agg(a.attname::text),
       coalesce(array_agg(a.attname::text) FILTER (WHERE a.attnum = ANY (x.indkey)), '{}')
  FROM pg_catalog.pg_attribute AS a
  LEFT JOIN pg_catalog.pg_index AS x
    ON x.indrelid = a.attrelid
   AND x.indisprimary
 WHERE a.attnum > 0
   AND NOT a.attisdropped
   AND a.attrelid IN (SELECT format('%%I.%%I', h.hypertable_schema, h.hypertable_name)::regclass
                        FROM timescaledb_information.hypertables AS h)
   AND _tidemark.label(a.attrelid) = %(name)s
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
