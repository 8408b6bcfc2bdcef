-- What is flagged in a series over a period, and what was lost points for?
-- parameters: source_id integer = 0, asset_id uuid = 00000000-0000-0000-0000-000000000000,
--   interval candle_interval = 1d, since timestamptz = 2000-01-01, until timestamptz = 2100-01-01,
--   count integer = 300
-- columns: kind text, ts timestamptz, value double precision, z_score double precision, expected double precision,
--   status anomaly_status, episode_id bigint, points bigint, detail text, total bigint
-- cost: the flagged and penalised rows of the series in the period, through indexes; of each kind the :count largest
--   are shown, total says how many there are. expected is in the units of value: the price that the baseline expects
WITH found AS (
    SELECT CASE WHEN n.kind = 'split_candidate' THEN 'split' ELSE n.severity::text END AS kind,
           n.timestamp AS ts,
           CASE n.field WHEN 'volume' THEN NULL ELSE n.value END AS value,
           n.z_score,
           CASE
               WHEN n.field IS NOT NULL THEN NULL -- its figures are about the shape of the bar
               WHEN abs(n.observed - n.value) <= 1e-9 * abs(n.value) THEN n.expected
               WHEN p.transform = 'difference' THEN n.value - n.observed + n.expected
               ELSE n.value * exp(n.expected - n.observed)
           END AS expected,
           n.status,
           coalesce(n.episode_id, n.anomaly_id) AS episode_id,
           NULL::bigint AS points,
           nullif(concat_ws(': ', n.field, n.notes), '') AS detail,
           abs(n.z_score) AS size
      FROM public.anomalies AS n
      LEFT JOIN public.sources AS s ON s.source_id = n.source_id
      LEFT JOIN public.quality_profiles AS p ON p.quality_profile_id = s.quality_profile_id
     WHERE ((n.table_name = 'timeseries_data' AND n.source_id = :'source_id')
            OR (n.table_name = 'candles' AND n.asset_id = :'asset_id' AND n.interval = :'interval'))
       AND n.timestamp >= :'since' AND n.timestamp < :'until'
     UNION ALL
    SELECT CASE WHEN bool_and(i.penalty = 'timeliness') THEN 'late' ELSE 'penalised' END,
           i.ts,
           NULL,
           NULL,
           NULL,
           NULL,
           NULL,
           sum(i.points),
           string_agg(
               concat_ws(': ', coalesce(r.name, i.penalty::text), nullif(i.detail, r.name)), '; ' ORDER BY i.issue_id
           ),
           sum(i.points)
      FROM public.quality_issues AS i
      LEFT JOIN public.validation_rules AS r ON r.rule_id = i.rule_id
     WHERE i.table_name = CASE WHEN :'source_id'::integer = 0 THEN 'candles' ELSE 'timeseries_data' END
       AND i.series = CASE WHEN :'source_id'::integer = 0
                           THEN jsonb_build_object('asset_id', :'asset_id'::uuid, 'interval', :'interval'::text)
                           ELSE jsonb_build_object('source_id', :'source_id'::integer) END
       AND i.ts >= :'since' AND i.ts < :'until'
     GROUP BY i.ts
)
SELECT r.kind,
       r.ts,
       r.value,
       r.z_score,
       r.expected,
       r.status,
       r.episode_id,
       r.points,
       r.detail,
       r.total
  FROM (
        SELECT f.*,
               row_number() OVER (PARTITION BY f.kind ORDER BY f.size DESC, f.ts ASC) AS place,
               count(*) OVER (PARTITION BY f.kind) AS total
          FROM found AS f
       ) AS r
 WHERE r.place <= :count
 ORDER BY r.ts, r.kind;
