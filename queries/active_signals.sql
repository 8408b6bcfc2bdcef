-- Which signals are in force?
-- parameters: count integer = 100
-- columns: symbol text, signal_type signal_type, strength double precision, confidence double precision,
--   price numeric, rationale text, ts timestamptz
-- cost: an index on the newest active signals, until enough are found
SELECT a.symbol,
       s.signal_type,
       s.strength,
       s.confidence,
       s.price,
       s.rationale,
       s.ts
  FROM public.signals AS s
  JOIN public.assets AS a ON a.asset_id = s.asset_id
 WHERE s.is_active AND (s.expires_at IS NULL OR s.expires_at > now())
 ORDER BY s.ts DESC, a.symbol ASC
 LIMIT :count;
