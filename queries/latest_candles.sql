-- What are the latest candles of an asset?
-- parameters: symbol text in assets.symbol, interval candle_interval = 1d, count integer = 30
-- columns: exchange text, ts timestamptz, open double precision, high double precision, low double precision,
--   close double precision, volume double precision
-- cost: the newest chunks only, until enough bars are found, through the primary key
SELECT a.exchange,
       c.ts,
       c.open,
       c.high,
       c.low,
       c.close,
       c.volume
  FROM public.assets AS a
 CROSS JOIN LATERAL (
       SELECT b.ts,
              b.open,
              b.high,
              b.low,
              b.close,
              b.volume
         FROM public.candles AS b
        WHERE b.asset_id = a.asset_id AND b.interval = :'interval'
        ORDER BY b.ts DESC
        LIMIT :count
       ) AS c
 WHERE a.symbol = :'symbol'
 ORDER BY a.exchange ASC NULLS FIRST, c.ts DESC;
