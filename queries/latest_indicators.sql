-- What are the latest indicators of each asset?
-- parameters: days integer = 7
-- columns: symbol text, interval candle_interval, name text, value double precision, value2 double precision,
--   value3 double precision, ts timestamptz
-- cost: the chunks of the last :days days
SELECT DISTINCT ON (a.symbol, i.asset_id, i.interval, i.name)
       a.symbol,
       i.interval,
       i.name,
       i.value,
       i.value2,
       i.value3,
       i.ts
  FROM public.indicators AS i
  JOIN public.assets AS a ON a.asset_id = i.asset_id
 WHERE i.ts >= now() - make_interval(days => :days)
 ORDER BY a.symbol ASC, i.asset_id ASC, i.interval ASC, i.name ASC, i.ts DESC;
