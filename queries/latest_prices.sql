-- What is the latest price of each asset?
-- parameters: interval candle_interval = 1d
-- columns: symbol text, price double precision, at timestamptz, change_percent numeric
-- cost: two rows an asset, through the primary key
SELECT a.symbol,
       l.close AS price,
       l.ts AS at,
       round(((l.close / nullif(l.previous, 0) - 1) * 100)::numeric, 2) AS change_percent
  FROM public.assets AS a
 CROSS JOIN LATERAL (
       SELECT c.ts,
              c.close,
              lead(c.close) OVER (ORDER BY c.ts DESC) AS previous
         FROM public.candles AS c
        WHERE c.asset_id = a.asset_id AND c.interval = :'interval'
        ORDER BY c.ts DESC
        LIMIT 2
       ) AS l
 WHERE l.ts = (SELECT max(m.ts) FROM public.candles AS m WHERE m.asset_id = a.asset_id AND m.interval = :'interval')
 ORDER BY a.symbol;
