-- How large are the hypertables, and how much of them is compressed?
-- parameters:
-- columns: hypertable text, chunks bigint, compressed bigint, from_time timestamptz, to_time timestamptz, rows bigint,
--   bytes bigint
-- cost: the catalogue and the sizes of the files; rows are the server's estimate
SELECT k.hypertable,
       count(*) AS chunks,
       count(*) FILTER (WHERE k.is_compressed) AS compressed,
       min(k.range_start) AS from_time,
       max(k.range_end) AS to_time,
       sum(k.row_count)::bigint AS rows,
       sum(k.total_bytes)::bigint AS bytes
  FROM public.chunk_stats AS k
 GROUP BY k.hypertable
 ORDER BY bytes DESC;
