-- How did the quality of all data go?
-- parameters: since timestamptz = 2000-01-01, width interval = 1 day
-- columns: starts_at timestamptz, rows bigint, scored bigint, average_score numeric, anomalies bigint,
--   completeness bigint, timeliness bigint, consistency bigint, validation bigint
-- cost: a row per series and day since :since, and the penalties since then
SELECT d.starts_at,
       d.rows,
       d.scored,
       d.average_score,
       d.anomalies,
       coalesce(i.completeness, 0) AS completeness,
       coalesce(i.timeliness, 0) AS timeliness,
       coalesce(i.consistency, 0) AS consistency,
       coalesce(i.validation, 0) AS validation
  FROM (
        SELECT public.time_bucket(:'width'::interval, u.day) AS starts_at,
               sum(u.row_count)::bigint AS rows,
               sum(u.scored)::bigint AS scored,
               round(sum(u.score_sum) / nullif(sum(u.scored), 0), 2) AS average_score,
               sum(u.anomalies)::bigint AS anomalies
          FROM (
                SELECT t.day, t.row_count, t.scored, t.score_sum, t.anomalies FROM public.timeseries_data_days AS t
                 UNION ALL
                SELECT c.day, c.row_count, c.scored, c.score_sum, c.anomalies FROM public.candles_days AS c
                 UNION ALL
                SELECT q.day, q.row_count, q.scored, q.score_sum, q.anomalies FROM public.quotes_days AS q
               ) AS u
         WHERE u.day >= public.time_bucket(interval '1 day', :'since'::timestamptz)
         GROUP BY 1
       ) AS d
  LEFT JOIN (
        SELECT public.time_bucket(:'width'::interval, q.ts) AS starts_at,
               count(*) FILTER (WHERE q.penalty = 'completeness') AS completeness,
               count(*) FILTER (WHERE q.penalty = 'timeliness') AS timeliness,
               count(*) FILTER (WHERE q.penalty = 'consistency') AS consistency,
               count(*) FILTER (WHERE q.penalty = 'validation') AS validation
          FROM public.quality_issues AS q
         WHERE q.ts >= public.time_bucket(interval '1 day', :'since'::timestamptz)
         GROUP BY 1
       ) AS i ON i.starts_at = d.starts_at
 ORDER BY d.starts_at;
