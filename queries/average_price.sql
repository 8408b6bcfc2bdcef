-- What was the average price of each asset?
-- parameters: interval candle_interval = 1d, since timestamptz = 2000-01-01
-- columns: symbol text, average_price double precision, bars bigint
-- cost: every bar of that length since :since, and no older chunk
SELECT a.symbol,
       avg(c.close) AS average_price,
       count(c.close) AS bars
  FROM public.candles AS c
  JOIN public.assets AS a ON a.asset_id = c.asset_id
 WHERE c.interval = :'interval' AND c.ts >= :'since'
 GROUP BY a.asset_id, a.symbol
 ORDER BY average_price DESC, a.symbol ASC;
