-- What were the last daily bars?
-- parameters: count integer = 5
-- columns: symbol text, day date, open double precision, high double precision, low double precision,
--     close double precision, volume double precision
-- cost: the newest chunks only, until enough bars are found
SELECT a.symbol,
       c.ts::date AS day,
       c.open,
       c.high,
       c.low,
       c.close,
       c.volume
  FROM public.candles AS c
  JOIN public.assets AS a USING (asset_id)
 WHERE c.interval = '1d'
 ORDER BY c.ts DESC, a.symbol ASC
 LIMIT :count;
