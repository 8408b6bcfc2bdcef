-- rescore(): the canonical result; and the review of anomalies.

-- The body of the function that rescore() calls for a hypertable.
CREATE OR REPLACE FUNCTION _tidemark.rescorer_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $rescorer$
#variable_conflict use_column
DECLARE
    @key_array_declarations@
    v_from timestamptz[];
    v_to timestamptz[];
    v_changed bigint := 0;
BEGIN
    -- What is on record about rows that are gone, or that claim to be without fault: the judge does not look for it.
    PERFORM _tidemark.forget_rows(@label@, array_agg(r.series), array_agg(r.ts))
       FROM (
         SELECT q.series, q.ts
           FROM public.quality_issues AS q
          WHERE q.table_name = @label@ AND q.series @> p_series AND q.ts BETWEEN p_from AND p_to
            AND NOT EXISTS (SELECT FROM @table@ AS d
                             WHERE @row_is_of_issue@ AND d.@time@ = q.ts
                               AND (d.quality_score = 100 AND NOT d.is_anomaly) IS NOT TRUE)
          UNION
         SELECT a.series, a.timestamp
           FROM public.anomalies AS a
          WHERE a.table_name = @label@ AND a.series @> p_series AND a.timestamp BETWEEN p_from AND p_to
            AND NOT EXISTS (SELECT FROM @table@ AS d
                             WHERE @row_is_of_anomaly@ AND d.@time@ = a.timestamp
                               AND (d.quality_score = 100 AND NOT d.is_anomaly) IS NOT TRUE)
       ) AS r;

    SELECT @aggregated_keys@, array_agg(g.starts_at), array_agg(g.ends_at)
      INTO @key_arrays@, v_from, v_to
      FROM (SELECT @keys_of_row@, min(d.@time@) AS starts_at, max(d.@time@) AS ends_at
              FROM @table@ AS d
             WHERE @row_is_selected@ AND d.@time@ BETWEEN p_from AND p_to
             GROUP BY @keys@
             ORDER BY @keys@) AS g;
    -- Some series at a time, to bound the memory it takes.
    FOR i IN 1 .. coalesce(cardinality(v_from), 0) BY 50 LOOP
        BEGIN
            v_changed := v_changed + _tidemark.judge_@stem@(
                @key_slices@, v_from[i:i + 49], v_to[i:i + 49], NULL, 'infinity', false
            );
        EXCEPTION WHEN @rule_failures@ THEN
            v_changed := v_changed + _tidemark.judge_safely_@stem@(
                @key_slices@, v_from[i:i + 49], v_to[i:i + 49], NULL, 'infinity', false
            );
        END;
    END LOOP;
    -- Episodes also change where rows between anomalies come or go.
    PERFORM _tidemark.link_@stem@(v.verdicts, '{}', '-infinity', p_to)
       FROM (SELECT array_agg(jsonb_populate_record(
                        NULL::_tidemark.verdict, jsonb_build_object('series', e.series, 'ts', e.ts)
                    )) AS verdicts
               FROM (SELECT a.series, min(a.timestamp) AS ts
                       FROM public.anomalies AS a
                      WHERE a.table_name = @label@ AND a.series @> p_series AND a.timestamp BETWEEN p_from AND p_to
                      GROUP BY a.series) AS e) AS v
      WHERE v.verdicts IS NOT NULL;
    RETURN v_changed;
END
$rescorer$;
$func$;
COMMENT ON FUNCTION _tidemark.rescorer_template() IS 'Body of the function that scores a hypertable again; a template.';

-- Computes the scores of a hypertable's rows again, from what is stored now: those of the series that p_series selects
-- (an object with any of the series columns, e.g. {"source_id": 1}; NULL: all), from p_from to p_to, both included
-- (NULL: from the first, to the last). Whatever the order in which rows arrived, were corrected or deleted, the result
-- is the same, bit for bit. Rows that were never scored get a score.
--
-- What was judged when a row arrived stays: lateness, and a timestamp that was in the future then. So does the verdict
-- on a row that a reviewer confirmed to be an error, and any reviewed anomaly whose value is still the same.
--
-- Returns the number of rows whose score, penalties or anomaly changed. Raises TM210 where scoring is not attached,
-- TM211 for a key in p_series that is no series column.
CREATE OR REPLACE FUNCTION public.rescore(
    p_hypertable regclass,
    p_series jsonb DEFAULT NULL,
    p_from timestamptz DEFAULT NULL,
    p_to timestamptz DEFAULT NULL
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_target _tidemark.quality_targets;
    v_key text;
    v_changed bigint;
BEGIN
    SELECT t.* INTO v_target FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable AND t.is_attached;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM210',
            MESSAGE = format('%s has no scoring', p_hypertable),
            HINT = 'Call attach_quality first.';
    END IF;
    FOR v_key IN SELECT k FROM jsonb_object_keys(p_series) AS k WHERE k <> ALL (v_target.series_columns) LOOP
        RAISE EXCEPTION USING ERRCODE = 'TM211',
            MESSAGE = format('"%s" is no series column of %s', v_key, p_hypertable),
            HINT = format('Series columns: %s.', array_to_string(v_target.series_columns, ', '));
    END LOOP;
    EXECUTE format('SELECT _tidemark.%I($1, $2, $3)', 'rescore_' || v_target.stem)
       INTO v_changed
      USING coalesce(p_series, '{}'), coalesce(p_from, '-infinity'), coalesce(p_to, 'infinity');
    RETURN v_changed;
END
$func$;
REVOKE ALL ON FUNCTION public.rescore(regclass, jsonb, timestamptz, timestamptz) FROM public;
COMMENT ON FUNCTION public.rescore(regclass, jsonb, timestamptz, timestamptz) IS
'Computes scores again from what is stored: the canonical result. Returns how many rows changed.';

-- Records what a reviewer found about an anomaly, and about the others of its episode with p_whole_episode. The
-- reviewer is tidemark.actor, else the role that logged in; reopening clears the review. A row confirmed to be an error
-- is left out of later baselines from the next rescore() on. Returns the number of anomalies reviewed; raises TM212 for
-- an unknown anomaly.
CREATE OR REPLACE FUNCTION public.review_anomaly(
    p_anomaly_id bigint,
    p_status public.anomaly_status,
    p_notes text DEFAULT NULL,
    p_whole_episode boolean DEFAULT false
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_reviewed bigint;
BEGIN
    UPDATE public.anomalies AS a
       SET status = p_status,
           reviewed_by = CASE WHEN p_status <> 'open'
                              THEN coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user::text)
                         END,
           reviewed_at = CASE WHEN p_status <> 'open' THEN now() END,
           notes = coalesce(p_notes, a.notes)
     WHERE a.anomaly_id = p_anomaly_id
        OR (p_whole_episode AND a.episode_id = (
               SELECT e.episode_id FROM public.anomalies AS e WHERE e.anomaly_id = p_anomaly_id
           ));
    GET DIAGNOSTICS v_reviewed = ROW_COUNT;
    IF v_reviewed = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'TM212', MESSAGE = format('there is no anomaly %s', p_anomaly_id);
    END IF;
    RETURN v_reviewed;
END
$func$;
COMMENT ON FUNCTION public.review_anomaly(bigint, public.anomaly_status, text, boolean) IS
'Records what a reviewer found about an anomaly, or its whole episode; returns how many were reviewed.';
