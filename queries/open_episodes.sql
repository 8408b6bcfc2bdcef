-- Which episodes wait for a review, largest first?
-- parameters: count integer = 50
-- columns: episode_id bigint, series text, table_name text, source_id integer, asset_id uuid,
--   interval candle_interval, starts_at timestamptz, ends_at timestamptz, waiting bigint, severity anomaly_severity,
--   kind anomaly_kind, z_score double precision, fields text, total bigint
-- cost: the anomalies of the episodes that may be errors and nobody has reviewed; total says how many there are
SELECT q.episode_id,
       coalesce(s.name, concat_ws(' ', a.symbol, a.exchange, q.interval)) AS series,
       q.table_name,
       q.source_id,
       q.asset_id,
       q.interval,
       q.starts_at,
       q.ends_at,
       q.waiting,
       q.severity,
       q.kind,
       q.z_score,
       q.fields,
       count(*) OVER () AS total
  FROM public.anomaly_queue AS q
  LEFT JOIN public.assets AS a ON a.asset_id = q.asset_id
  LEFT JOIN public.sources AS s ON s.source_id = q.source_id
 ORDER BY abs(q.z_score) DESC, q.episode_id ASC
 LIMIT :count;
