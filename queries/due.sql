-- How many chunks are due to be compressed or dropped?
-- parameters:
-- columns: hypertable text, compress_after interval, drop_after interval, compress_due bigint, drop_due bigint
-- cost: the catalogue; no rows. Due is what data_policies says of the end of a chunk
SELECT k.hypertable,
       p.compress_after,
       p.drop_after,
       count(*) FILTER (WHERE NOT k.is_compressed AND k.range_end < now() - p.compress_after) AS compress_due,
       count(*) FILTER (WHERE k.range_end < now() - p.drop_after) AS drop_due
  FROM public.chunk_stats AS k
  JOIN public.data_policies AS p ON p.hypertable = k.hypertable
 GROUP BY k.hypertable, p.compress_after, p.drop_after
 ORDER BY k.hypertable;
