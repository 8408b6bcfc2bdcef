-- What did each source deliver last, and how good is it?
-- parameters:
-- columns: name text, display_name text, timestamp timestamptz, value double precision, close double precision,
--   quality_score smallint, is_anomaly boolean
-- cost: one row a source, through the primary key
SELECT s.name,
       s.display_name,
       l.timestamp,
       l.value,
       l.close,
       l.quality_score,
       l.is_anomaly
  FROM public.sources AS s
 CROSS JOIN LATERAL (
       SELECT t.timestamp,
              t.value,
              t.close,
              t.quality_score,
              t.is_anomaly
         FROM public.timeseries_data AS t
        WHERE t.source_id = s.source_id
        ORDER BY t.timestamp DESC
        LIMIT 1
       ) AS l
 ORDER BY s.name;
