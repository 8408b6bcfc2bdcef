-- How much did the price of each asset change in its last bar?
-- parameters: interval candle_interval = 1d
-- columns: symbol text, ts timestamptz, current_price double precision, previous_price double precision,
--   percent_change numeric
-- cost: the last two bars of each asset, through the primary key
SELECT a.symbol,
       l.ts,
       l.close AS current_price,
       p.close AS previous_price,
       round(((l.close - p.close) / nullif(p.close, 0) * 100)::numeric, 2) AS percent_change
  FROM public.assets AS a
 CROSS JOIN LATERAL (
       SELECT c.ts, c.close FROM public.candles AS c
        WHERE c.asset_id = a.asset_id AND c.interval = :'interval'
        ORDER BY c.ts DESC LIMIT 1
       ) AS l
 CROSS JOIN LATERAL (
       SELECT c.close FROM public.candles AS c
        WHERE c.asset_id = a.asset_id AND c.interval = :'interval' AND c.ts < l.ts
        ORDER BY c.ts DESC LIMIT 1
       ) AS p
 ORDER BY percent_change DESC NULLS LAST, a.symbol ASC;
