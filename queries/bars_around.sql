-- What were the bars around an instant of a series?
-- parameters: source_id integer = 0, asset_id uuid = 00000000-0000-0000-0000-000000000000,
--   interval candle_interval = 1d, at timestamptz = 2000-01-01, count integer = 20
-- columns: ts timestamptz, open double precision, high double precision, low double precision,
--   close double precision, volume double precision, is_anomaly boolean
-- cost: :count rows through the primary key, half of them before the instant
SELECT b.ts,
       b.open,
       b.high,
       b.low,
       b.close,
       b.volume,
       b.is_anomaly
  FROM (
        (SELECT c.ts, c.open, c.high, c.low, c.close, c.volume, c.is_anomaly
           FROM public.candles AS c
          WHERE c.asset_id = :'asset_id' AND c.interval = :'interval' AND c.ts < :'at'
          ORDER BY c.ts DESC
          LIMIT :count / 2)
         UNION ALL
        (SELECT c.ts, c.open, c.high, c.low, c.close, c.volume, c.is_anomaly
           FROM public.candles AS c
          WHERE c.asset_id = :'asset_id' AND c.interval = :'interval' AND c.ts >= :'at'
          ORDER BY c.ts
          LIMIT :count - :count / 2)
         UNION ALL
        (SELECT t.timestamp, t.open, t.high, t.low, coalesce(t.close, t.value), t.volume, t.is_anomaly
           FROM public.timeseries_data AS t
          WHERE t.source_id = :'source_id' AND t.timestamp < :'at'
          ORDER BY t.timestamp DESC
          LIMIT :count / 2)
         UNION ALL
        (SELECT t.timestamp, t.open, t.high, t.low, coalesce(t.close, t.value), t.volume, t.is_anomaly
           FROM public.timeseries_data AS t
          WHERE t.source_id = :'source_id' AND t.timestamp >= :'at'
          ORDER BY t.timestamp
          LIMIT :count - :count / 2)
       ) AS b
 ORDER BY b.ts;
