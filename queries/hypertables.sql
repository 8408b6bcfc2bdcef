-- How large are the hypertables, and how much of them is compressed or due?
-- parameters:
-- columns: hypertable text, chunks bigint, compressed bigint, from_time timestamptz, to_time timestamptz, rows bigint,
--   bytes bigint, compress_due bigint, drop_due bigint
-- cost: the catalogue and the sizes of the files; rows are the server's estimate. Due is what data_policies says, of
--   chunks
SELECT k.hypertable,
       count(*) AS chunks,
       count(*) FILTER (WHERE k.is_compressed) AS compressed,
       min(k.range_start) AS from_time,
       max(k.range_end) AS to_time,
       sum(k.row_count)::bigint AS rows,
       sum(k.total_bytes)::bigint AS bytes,
       count(*) FILTER (WHERE NOT k.is_compressed AND k.range_end < now() - p.compress_after) AS compress_due,
       count(*) FILTER (WHERE k.range_end < now() - p.drop_after) AS drop_due
  FROM public.chunk_stats AS k
  LEFT JOIN public.data_policies AS p ON p.hypertable = k.hypertable
 GROUP BY k.hypertable
 ORDER BY bytes DESC;
