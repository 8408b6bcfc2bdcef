-- How good is the data of each series?
-- parameters: since timestamptz = 2000-01-01
-- columns: table_name text, series text, rows bigint, scored bigint, average_score numeric, below_100 bigint,
--   anomalies bigint
-- cost: a row per series and day since :since (its whole day counts, in UTC), whatever the number of rows; worst first
SELECT 'timeseries_data' AS table_name,
       s.name AS series,
       t.rows,
       t.scored,
       t.average_score,
       t.below_100,
       t.anomalies
  FROM (
        SELECT d.source_id,
               sum(d.row_count)::bigint AS rows,
               sum(d.scored)::bigint AS scored,
               round(sum(d.score_sum) / nullif(sum(d.scored), 0), 2) AS average_score,
               sum(d.penalised)::bigint AS below_100,
               sum(d.anomalies)::bigint AS anomalies
          FROM public.timeseries_data_days AS d
         WHERE d.day >= public.time_bucket(interval '1 day', :'since'::timestamptz)
         GROUP BY d.source_id
       ) AS t
  JOIN public.sources AS s ON s.source_id = t.source_id
 UNION ALL
SELECT 'candles',
       concat_ws(' ', a.symbol, a.exchange, c.interval),
       c.rows,
       c.scored,
       c.average_score,
       c.below_100,
       c.anomalies
  FROM (
        SELECT d.asset_id,
               d.interval,
               sum(d.row_count)::bigint AS rows,
               sum(d.scored)::bigint AS scored,
               round(sum(d.score_sum) / nullif(sum(d.scored), 0), 2) AS average_score,
               sum(d.penalised)::bigint AS below_100,
               sum(d.anomalies)::bigint AS anomalies
          FROM public.candles_days AS d
         WHERE d.day >= public.time_bucket(interval '1 day', :'since'::timestamptz)
         GROUP BY d.asset_id, d.interval
       ) AS c
  JOIN public.assets AS a ON a.asset_id = c.asset_id
 ORDER BY average_score NULLS LAST, table_name, series;
