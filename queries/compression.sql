-- How well is the history compressed?
-- parameters:
-- columns: hypertable text, chunks bigint, compressed_chunks bigint, before_bytes bigint, after_bytes bigint,
--   ratio numeric
-- cost: the catalogue; no rows
SELECT h.hypertable_name::text AS hypertable,
       count(c.chunk_name) AS chunks,
       count(c.chunk_name) FILTER (WHERE c.is_compressed) AS compressed_chunks,
       s.before_compression_total_bytes AS before_bytes,
       s.after_compression_total_bytes AS after_bytes,
       round(s.before_compression_total_bytes::numeric / nullif(s.after_compression_total_bytes, 0), 1) AS ratio
  FROM timescaledb_information.hypertables AS h
  LEFT JOIN timescaledb_information.chunks AS c
    ON c.hypertable_schema = h.hypertable_schema AND c.hypertable_name = h.hypertable_name
  LEFT JOIN LATERAL public.hypertable_compression_stats(
           format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass
       ) AS s ON true
 WHERE h.hypertable_schema = 'public'
 GROUP BY h.hypertable_name, s.before_compression_total_bytes, s.after_compression_total_bytes
 ORDER BY h.hypertable_name;
