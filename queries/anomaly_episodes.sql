-- Which episodes of anomalies wait for a reviewer, or ended with another verdict?
-- parameters: status anomaly_status = open, symbol text in assets.symbol = , source text in sources.name = ,
--   table text in relations = , severity anomaly_severity = anomaly, since timestamptz = -infinity,
--   held boolean = false, count bigint = 20
-- columns: episode_id bigint, table_name text, series text, starts_at timestamptz, ends_at timestamptz,
--   anomalies bigint, of_status bigint, severity anomaly_severity, kind anomaly_kind, z_score double precision,
--   fields text
-- cost: the anomalies of that status and the others of their episodes
SELECT e.episode_id,
       e.table_name,
       coalesce(s.name, nullif(concat_ws(' ', a.symbol, a.exchange, e.interval), ''), e.series::text) AS series,
       e.starts_at,
       e.ends_at,
       e.anomalies,
       e.of_status,
       e.severity,
       e.kind,
       e.z_score,
       e.fields
  FROM (
        SELECT coalesce(n.episode_id, n.anomaly_id) AS episode_id,
               min(n.table_name) AS table_name,
               (array_agg(n.series))[1] AS series,
               min(n.source_id) AS source_id,
               (array_agg(n.asset_id))[1] AS asset_id,
               min(n.interval) AS interval,
               min(n.timestamp) AS starts_at,
               max(n.timestamp) AS ends_at,
               count(*) AS anomalies,
               count(*) FILTER (WHERE n.status = :'status') AS of_status,
               max(n.severity) AS severity,
               max(n.kind) AS kind,
               (array_agg(n.z_score ORDER BY abs(n.z_score) DESC))[1] AS z_score,
               string_agg(DISTINCT n.field, ', ') AS fields
          FROM public.anomalies AS n
         WHERE n.episode_id IN (
                   SELECT o.episode_id
                     FROM public.anomalies AS o
                    WHERE o.status = :'status'
                      AND (o.status <> 'open' OR o.is_doubtful IS NOT FALSE OR :'held')
               )
            OR (n.episode_id IS NULL AND n.status = :'status'
                AND (n.status <> 'open' OR n.is_doubtful IS NOT FALSE OR :'held'))
         GROUP BY coalesce(n.episode_id, n.anomaly_id)
       ) AS e
  LEFT JOIN public.sources AS s ON s.source_id = e.source_id
  LEFT JOIN public.assets AS a ON a.asset_id = e.asset_id
 WHERE :'symbol' IN ('', a.symbol)
   AND :'source' IN ('', s.name)
   AND :'table' IN ('', e.table_name)
   AND e.severity >= :'severity'
   AND e.ends_at >= :'since'
 ORDER BY abs(e.z_score) DESC, e.episode_id ASC
 LIMIT :count;
