-- What were the last weekly bars, made of the daily ones?
-- parameters: count integer = 5
-- columns: symbol text, week date, open double precision, high double precision, low double precision,
--     close double precision, volume double precision, days bigint
-- cost: the daily bars of the 13 weeks before the last one
SELECT a.symbol,
       public.time_bucket('7 days', c.ts, origin => timestamptz '2000-01-03 00:00+00')::date AS week,
       public.first(c.open, c.ts) AS open,
       max(c.high) AS high,
       min(c.low) AS low,
       public.last(c.close, c.ts) AS close,
       sum(c.volume) AS volume,
       count(*) AS days
  FROM public.candles AS c
  JOIN public.assets AS a USING (asset_id)
 WHERE c.interval = '1d'
   AND c.ts > (SELECT max(n.ts) FROM public.candles AS n) - interval '91 days'
 GROUP BY a.symbol, week
 ORDER BY week DESC, a.symbol ASC
 LIMIT :count;
