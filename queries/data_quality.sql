-- How good is the data of each series?
-- parameters: since timestamptz = 2000-01-01
-- columns: table_name text, series text, rows bigint, scored bigint, average_score numeric, below_100 bigint,
--   anomalies bigint
-- cost: every row of timeseries_data and candles since :since, and no older chunk
SELECT 'timeseries_data' AS table_name,
       s.name AS series,
       count(*) AS rows,
       count(t.quality_score) AS scored,
       round(avg(t.quality_score), 2) AS average_score,
       count(*) FILTER (WHERE t.quality_score < 100) AS below_100,
       count(*) FILTER (WHERE t.is_anomaly) AS anomalies
  FROM public.timeseries_data AS t
  JOIN public.sources AS s ON s.source_id = t.source_id
 WHERE t.timestamp >= :'since'
 GROUP BY s.source_id, s.name
 UNION ALL
SELECT 'candles',
       concat_ws(' ', a.symbol, a.exchange, c.interval),
       count(*),
       count(c.quality_score),
       round(avg(c.quality_score), 2),
       count(*) FILTER (WHERE c.quality_score < 100),
       count(*) FILTER (WHERE c.is_anomaly)
  FROM public.candles AS c
  JOIN public.assets AS a ON a.asset_id = c.asset_id
 WHERE c.ts >= :'since'
 GROUP BY a.asset_id, a.symbol, a.exchange, c.interval
 ORDER BY average_score NULLS LAST, table_name, series;
