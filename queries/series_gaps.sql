-- Which bars of a source, or of an asset, are missing?
-- parameters: source_id integer = 0, asset_id uuid = 00000000-0000-0000-0000-000000000000,
--   interval candle_interval = 1d, since timestamptz = 2000-01-01, until timestamptz = 2100-01-01
-- columns: gap_start timestamptz, gap_end timestamptz, missing_bars bigint
-- cost: the rows of that series in the period; missing_days answers the same by days whatever their number
SELECT g.gap_start,
       g.gap_end,
       g.missing_bars
  FROM public.sources AS s
 CROSS JOIN LATERAL public.find_gaps(s.source_id, :'since', :'until') AS g
 WHERE s.source_id = :'source_id' AND s.interval IS NOT NULL
 UNION ALL
SELECT g.gap_start,
       g.gap_end,
       g.missing_bars
  FROM public.assets AS a
 CROSS JOIN LATERAL public.find_candle_gaps(a.asset_id, :'interval', :'since', :'until') AS g
 WHERE a.asset_id = :'asset_id'
 ORDER BY gap_start;
