-- How many rows does a series have over a period, and from when to when?
-- parameters: source_id integer = 0, asset_id uuid = 00000000-0000-0000-0000-000000000000,
--   interval candle_interval = 1d, since timestamptz = 2000-01-01, until timestamptz = 2100-01-01
-- columns: rows bigint, first_at timestamptz, last_at timestamptz
-- cost: a row a day of the series, whatever the number of rows; the days of both ends count whole
SELECT coalesce(sum(d.row_count), 0)::bigint AS rows,
       min(d.first_at) AS first_at,
       max(d.last_at) AS last_at
  FROM (
        SELECT t.row_count,
               t.first_at,
               t.last_at
          FROM public.timeseries_data_days AS t
         WHERE t.source_id = :'source_id'
           AND t.day >= public.time_bucket(interval '1 day', :'since'::timestamptz) AND t.day < :'until'
         UNION ALL
        SELECT c.row_count,
               c.first_at,
               c.last_at
          FROM public.candles_days AS c
         WHERE c.asset_id = :'asset_id' AND c.interval = :'interval'
           AND c.day >= public.time_bucket(interval '1 day', :'since'::timestamptz) AND c.day < :'until'
       ) AS d;
