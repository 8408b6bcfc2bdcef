-- Which series does a name mean?
-- parameters: name text, interval text = any
-- columns: table_name text, source_id integer, asset_id uuid, interval candle_interval, name text, exchange text,
--   data_type source_data_type, first_at timestamptz, last_at timestamptz, market text
-- cost: two index look-ups a series. market is the calendar by which its bars are expected: NULL for clock time, ?
--   where nobody named one though the asset is not traded around the clock
SELECT c.table_name,
       c.source_id,
       c.asset_id,
       c.interval,
       c.name,
       a.exchange,
       s.data_type,
       c.first_at,
       c.last_at,
       coalesce(
           _tidemark.series_market(c.source_id, CASE WHEN c.source_id IS NULL THEN c.asset_id END, c.interval),
           CASE WHEN a.asset_type <> 'crypto' THEN '?' END
       ) AS market
  FROM public.coverage AS c
  LEFT JOIN public.sources AS s ON s.source_id = c.source_id
  LEFT JOIN public.assets AS a ON a.asset_id = c.asset_id
 WHERE lower(c.name) = lower(:'name')
   AND (:'interval' = 'any' OR c.source_id IS NOT NULL OR c.interval::text = :'interval')
 ORDER BY c.name = :'name' DESC, c.table_name DESC, a.exchange ASC NULLS FIRST, c.interval DESC;
