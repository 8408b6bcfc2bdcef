-- How fast does the data grow?
-- parameters: months integer = 12
-- columns: table_name text, month timestamptz, rows bigint
-- cost: a row per series and day of the newest :months months with rows
SELECT u.table_name,
       public.time_bucket(interval '1 month', u.day) AS month,
       sum(u.row_count)::bigint AS rows
  FROM (
        SELECT 'timeseries_data' AS table_name, t.day, t.row_count FROM public.timeseries_data_days AS t
         UNION ALL
        SELECT 'candles', c.day, c.row_count FROM public.candles_days AS c
         UNION ALL
        SELECT 'quotes', q.day, q.row_count FROM public.quotes_days AS q
       ) AS u
 WHERE u.day >= (SELECT max(v.last_at) FROM public.coverage AS v) - make_interval(months => :months)
 GROUP BY u.table_name, month
 ORDER BY month, u.table_name;
