-- What were the bars of a series over a period, in bars of any width?
-- parameters: relation text = candles, source_id integer = 0, asset_id uuid = 00000000-0000-0000-0000-000000000000,
--   interval candle_interval = 1d, width interval = 1 day,
--   since timestamptz = 2000-01-01, until timestamptz = 2100-01-01, count integer = 2000
-- columns: ts timestamptz, open double precision, high double precision, low double precision,
--   close double precision, volume double precision, rows bigint, ends_at timestamptz
-- cost: what the relation has of the series in the period: raw rows (timeseries_data, candles), or the buckets of the
--   aggregate that is named; with 200,000 at most it answers within a second
SELECT b.ts,
       b.open,
       b.high,
       b.low,
       b.close,
       b.volume,
       b.rows,
       (b.ts AT TIME ZONE 'UTC' + :'width'::interval) AT TIME ZONE 'UTC' AS ends_at
  FROM (
        SELECT public.time_bucket(:'width'::interval, r.at) AS ts,
               public.first(r.open, r.at) FILTER (WHERE r.open IS NOT NULL) AS open,
               max(r.high) AS high,
               min(r.low) AS low,
               public.last(r.close, r.at) FILTER (WHERE r.close IS NOT NULL) AS close,
               sum(r.volume) AS volume,
               count(*) AS rows
          FROM (
                SELECT c.ts AS at, c.open, c.high, c.low, c.close, c.volume
                  FROM public.candles AS c
                 WHERE :'relation' = 'candles' AND c.asset_id = :'asset_id' AND c.interval = :'interval'
                   AND c.ts >= :'since' AND c.ts < :'until'
                 UNION ALL
                SELECT t.timestamp,
                       t.open,
                       coalesce(t.high, t.close, t.value),
                       coalesce(t.low, t.close, t.value),
                       coalesce(t.close, t.value),
                       t.volume
                  FROM public.timeseries_data AS t
                 WHERE :'relation' = 'timeseries_data' AND t.source_id = :'source_id'
                   AND t.timestamp >= :'since' AND t.timestamp < :'until'
                 UNION ALL
                SELECT c.bucket, c.open, c.high, c.low, c.close, c.volume
                  FROM public.candles_5m AS c
                 WHERE :'relation' = 'candles_5m' AND c.asset_id = :'asset_id'
                   AND c.bucket >= :'since' AND c.bucket < :'until'
                 UNION ALL
                SELECT c.bucket, c.open, c.high, c.low, c.close, c.volume
                  FROM public.candles_15m AS c
                 WHERE :'relation' = 'candles_15m' AND c.asset_id = :'asset_id'
                   AND c.bucket >= :'since' AND c.bucket < :'until'
                 UNION ALL
                SELECT c.bucket, c.open, c.high, c.low, c.close, c.volume
                  FROM public.candles_1h AS c
                 WHERE :'relation' = 'candles_1h' AND c.asset_id = :'asset_id'
                   AND c.bucket >= :'since' AND c.bucket < :'until'
                 UNION ALL
                SELECT c.bucket, c.open, c.high, c.low, c.close, c.volume
                  FROM public.candles_4h AS c
                 WHERE :'relation' = 'candles_4h' AND c.asset_id = :'asset_id'
                   AND c.bucket >= :'since' AND c.bucket < :'until'
                 UNION ALL
                SELECT c.bucket, c.open, c.high, c.low, c.close, c.volume
                  FROM public.candles_1d AS c
                 WHERE :'relation' = 'candles_1d' AND c.asset_id = :'asset_id'
                   AND c.bucket >= :'since' AND c.bucket < :'until'
                 UNION ALL
                SELECT d.day, d.open, d.high, d.low, d.close, d.volume
                  FROM public.daily_ohlcv AS d
                 WHERE :'relation' = 'daily_ohlcv' AND d.source_id = :'source_id'
                   AND d.day >= :'since' AND d.day < :'until'
                 UNION ALL
                SELECT h.hour, NULL, h.max_value, h.min_value, h.last_value, NULL
                  FROM public.hourly_values AS h
                 WHERE :'relation' = 'hourly_values' AND h.source_id = :'source_id'
                   AND h.hour >= :'since' AND h.hour < :'until'
               ) AS r
         GROUP BY 1
         ORDER BY 1 DESC
         LIMIT :count
       ) AS b
 ORDER BY b.ts;
