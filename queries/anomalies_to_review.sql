-- Which anomalies may be errors and has nobody looked at?
-- parameters: count integer = 50
-- columns: anomaly_id bigint, table_name text, series text, timestamp timestamptz, severity anomaly_severity,
--   kind anomaly_kind, z_score double precision, value double precision, field text
-- cost: an index on the open ones, worst and newest first
SELECT n.anomaly_id,
       n.table_name,
       coalesce(s.name, concat_ws(' ', a.symbol, a.exchange, n.interval)) AS series,
       n.timestamp,
       n.severity,
       n.kind,
       n.z_score,
       n.value,
       n.field
  FROM public.anomalies AS n
  LEFT JOIN public.sources AS s ON s.source_id = n.source_id
  LEFT JOIN public.assets AS a ON a.asset_id = n.asset_id
 WHERE n.status = 'open'
   AND n.is_doubtful IS NOT FALSE
 ORDER BY n.severity DESC, n.timestamp DESC, n.anomaly_id DESC
 LIMIT :count;
