-- On which days does a series lack bars, and how many?
-- parameters: source_id integer = 0, asset_id uuid = 00000000-0000-0000-0000-000000000000,
--   interval candle_interval = 1d, market text = -, since timestamptz = 2000-01-01, until timestamptz = 2000-01-02
-- columns: day timestamptz, expected bigint, stored bigint
-- cost: a row a day of the series, whatever the number of bars. market is the calendar, - for clock time; none
--   where it does not reach
SELECT e.day,
       e.bars AS expected,
       coalesce(d.row_count, 0) AS stored
  FROM _tidemark.expected_by_day(
           nullif(:'market'::text, '-'), :'interval'::public.candle_interval, :'since', least(:'until', now())
       ) AS e
  LEFT JOIN (
        SELECT t.day,
               t.row_count
          FROM public.timeseries_data_days AS t
         WHERE t.source_id = :'source_id' AND t.day >= :'since' AND t.day < :'until'
         UNION ALL
        SELECT c.day,
               c.row_count
          FROM public.candles_days AS c
         WHERE c.asset_id = :'asset_id' AND c.interval = :'interval' AND c.day >= :'since' AND c.day < :'until'
       ) AS d ON d.day = e.day
 WHERE coalesce(d.row_count, 0) < e.bars
 ORDER BY e.day;
