-- What the scores say of a hypertable per series and day, and what waits for a reviewer.

-- The view quality_report for any hypertable with scoring, read from its rows in [p_from, p_to). Raises TM210 where
-- there is none.
CREATE OR REPLACE FUNCTION public.quality_report_of(
    p_hypertable regclass,
    p_from timestamptz DEFAULT '-infinity',
    p_to timestamptz DEFAULT 'infinity'
)
    RETURNS TABLE (
        table_name text,
        series jsonb,
        day timestamptz,
        row_count bigint,
        scored bigint,
        mean_score numeric,
        completeness bigint,
        timeliness bigint,
        consistency bigint,
        validation bigint,
        anomalies bigint,
        exceedance_rate double precision
    )
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_target _tidemark.quality_targets;
BEGIN
    SELECT t.* INTO v_target FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM210', MESSAGE = format('%s has no scoring', p_hypertable),
            HINT = 'Call attach_quality first.';
    END IF;
    RETURN QUERY EXECUTE _tidemark.fill_template($sql$
        SELECT @label@, g.series, g.day, g.row_count, g.scored, g.mean_score,
               q.completeness, q.timeliness, q.consistency, q.validation,
               g.anomalies, g.anomalies::double precision / nullif(g.scored, 0)
          FROM (
            SELECT @series@ AS series, public.time_bucket(interval '1 day', d.@time@) AS day,
                   count(*) AS row_count,
                   count(d.quality_score) AS scored,
                   round(avg(d.quality_score), 2) AS mean_score,
                   count(*) FILTER (WHERE d.is_anomaly) AS anomalies
              FROM @table@ AS d
             WHERE d.@time@ >= $1 AND d.@time@ < $2
             GROUP BY 1, 2
          ) AS g
         CROSS JOIN LATERAL (
                   SELECT count(*) FILTER (WHERE i.penalty = 'completeness') AS completeness,
                          count(*) FILTER (WHERE i.penalty = 'timeliness') AS timeliness,
                          count(*) FILTER (WHERE i.penalty = 'consistency') AS consistency,
                          count(*) FILTER (WHERE i.penalty = 'validation') AS validation
                     FROM public.quality_issues AS i
                    WHERE i.table_name = @label@ AND i.series = g.series
                      AND i.ts >= g.day AND i.ts < g.day + interval '24 hours'
               ) AS q$sql$, _tidemark.quality_tokens(v_target)) USING p_from, p_to;
END
$func$;
COMMENT ON FUNCTION public.quality_report_of(regclass, timestamptz, timestamptz) IS
'Quality of each series of a hypertable on each day (UTC); raises TM210 where scoring is not attached.';

CREATE OR REPLACE VIEW public.anomaly_queue AS
SELECT coalesce(a.episode_id, a.anomaly_id) AS episode_id, min(a.table_name) AS table_name,
       (array_agg(a.series))[1] AS series, min(a.source_id) AS source_id, (array_agg(a.asset_id))[1] AS asset_id,
       min(a.interval) AS interval, min(a.timestamp) AS starts_at, max(a.timestamp) AS ends_at, count(*) AS anomalies,
       count(*) FILTER (WHERE a.status = 'open' AND a.is_doubtful IS NOT FALSE) AS waiting,
       max(a.severity) AS severity, max(a.kind) AS kind,
       (array_agg(a.z_score ORDER BY abs(a.z_score) DESC))[1] AS z_score,
       string_agg(DISTINCT a.field, ', ') AS fields
  FROM public.anomalies AS a
 WHERE a.episode_id IN (SELECT o.episode_id FROM public.anomalies AS o
                         WHERE o.status = 'open' AND o.is_doubtful IS NOT FALSE)
    OR (a.episode_id IS NULL AND a.status = 'open' AND a.is_doubtful IS NOT FALSE)
 GROUP BY coalesce(a.episode_id, a.anomaly_id)
 ORDER BY max(abs(a.z_score)) DESC, coalesce(a.episode_id, a.anomaly_id);
COMMENT ON VIEW public.anomaly_queue IS
'Episodes with anomalies that may be errors and nobody has reviewed, largest first.';
COMMENT ON COLUMN public.anomaly_queue.episode_id IS 'First anomaly of the episode.';
COMMENT ON COLUMN public.anomaly_queue.table_name IS 'Hypertable.';
COMMENT ON COLUMN public.anomaly_queue.series IS 'Key of the series without the time.';
COMMENT ON COLUMN public.anomaly_queue.source_id IS 'Source, where the series has one.';
COMMENT ON COLUMN public.anomaly_queue.asset_id IS 'Asset, where the series has one.';
COMMENT ON COLUMN public.anomaly_queue.interval IS 'Bar length, where the series has one.';
COMMENT ON COLUMN public.anomaly_queue.starts_at IS 'Its first flagged row.';
COMMENT ON COLUMN public.anomaly_queue.ends_at IS 'Its last flagged row.';
COMMENT ON COLUMN public.anomaly_queue.anomalies IS 'Flagged rows in it.';
COMMENT ON COLUMN public.anomaly_queue.waiting IS 'How many of them may be errors and are not reviewed.';
COMMENT ON COLUMN public.anomaly_queue.severity IS 'The worst of them.';
COMMENT ON COLUMN public.anomaly_queue.kind IS 'split_candidate where any of them looks like a split.';
COMMENT ON COLUMN public.anomaly_queue.z_score IS 'The largest z-score in magnitude.';
COMMENT ON COLUMN public.anomaly_queue.fields IS
'What else of its bars stands out than the judged value: open, high, low, volume; NULL: nothing.';

-- Rows of a hypertable that nobody scored, counted up to p_most. Of what is compressed it reads what came in since.
CREATE OR REPLACE FUNCTION _tidemark.count_unscored(
    p_hypertable regclass,
    p_most bigint
)
    RETURNS bigint
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_chunk regclass;
    v_count bigint;
    v_total bigint := 0;
BEGIN
    FOR v_chunk IN
        SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i
         WHERE i.inhparent = p_hypertable AND pg_relation_size(i.inhrelid) > 0
    LOOP
        EXECUTE format('SELECT count(*) FROM (SELECT FROM %s AS d WHERE d.quality_score IS NULL LIMIT %s) AS u',
                       v_chunk, p_most - v_total) INTO v_count;
        v_total := v_total + v_count;
        EXIT WHEN v_total >= p_most;
    END LOOP;
    RETURN v_total;
END
$func$;
COMMENT ON FUNCTION _tidemark.count_unscored(regclass, bigint) IS
'Rows of a hypertable that have no score, counted up to a number.';
