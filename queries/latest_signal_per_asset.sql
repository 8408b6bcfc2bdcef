-- What is the latest signal in force for each asset?
-- parameters:
-- columns: symbol text, signal_type signal_type, strength double precision, confidence double precision,
--   rationale text, ts timestamptz
-- cost: the newest signals of each asset, until one in force is found
SELECT a.symbol,
       l.signal_type,
       l.strength,
       l.confidence,
       l.rationale,
       l.ts
  FROM public.assets AS a
 CROSS JOIN LATERAL (
       SELECT s.signal_type,
              s.strength,
              s.confidence,
              s.rationale,
              s.ts
         FROM public.signals AS s
        WHERE s.asset_id = a.asset_id AND s.is_active AND (s.expires_at IS NULL OR s.expires_at > now())
        ORDER BY s.ts DESC
        LIMIT 1
       ) AS l
 ORDER BY l.ts DESC, a.symbol ASC;
