-- How far did the price of each asset range?
-- parameters: interval candle_interval = 1d, since timestamptz = 2000-01-01
-- columns: symbol text, candles bigint, first_at timestamptz, last_at timestamptz, lowest double precision,
--   highest double precision, average double precision
-- cost: every bar of that length since :since, and no older chunk
SELECT a.symbol,
       count(*) AS candles,
       min(c.ts) AS first_at,
       max(c.ts) AS last_at,
       min(c.low) AS lowest,
       max(c.high) AS highest,
       avg(c.close) AS average
  FROM public.candles AS c
  JOIN public.assets AS a ON a.asset_id = c.asset_id
 WHERE c.interval = :'interval' AND c.ts >= :'since'
 GROUP BY a.asset_id, a.symbol
 ORDER BY a.symbol;
