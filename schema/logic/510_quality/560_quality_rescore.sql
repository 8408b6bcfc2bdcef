-- rescore(): the canonical result; and the review of anomalies.

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
    SET timezone = 'UTC'
AS $func$
DECLARE
    v_series CONSTANT jsonb := coalesce(p_series, '{}');
    v_from CONSTANT timestamptz := coalesce(p_from, '-infinity');
    v_to CONSTANT timestamptz := coalesce(p_to, 'infinity');
    v_target _tidemark.quality_targets;
    v_key text;
    v_some record;
    v_changed bigint := 0;
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
    -- What is on record about rows that are gone, or that claim to be without fault: the judge does not look for it.
    EXECUTE format($sql$
        SELECT _tidemark.forget_rows($4, array_agg(i.series), array_agg(i.ts))
          FROM (SELECT q.series, q.ts
                  FROM public.quality_issues AS q
                 WHERE q.table_name = $4 AND q.series @> $1 AND q.ts BETWEEN $2 AND $3
                 UNION
                SELECT a.series, a.timestamp
                  FROM public.anomalies AS a
                 WHERE a.table_name = $4 AND a.series @> $1 AND a.timestamp BETWEEN $2 AND $3) AS i
         WHERE NOT EXISTS (SELECT FROM %s AS d
                            WHERE %s AND d.%I = i.ts AND (d.quality_score = 100 AND NOT d.is_anomaly) IS NOT TRUE)$sql$,
        p_hypertable::text, _tidemark.is_of_series(v_target, 'i.series'), v_target.time_column
    ) USING v_series, v_from, v_to, v_target.label;

    -- Some series at a time, to bound the memory it takes.
    FOR v_some IN EXECUTE format($sql$
        SELECT array_agg(g.series ORDER BY g.n) AS series, array_agg(g.starts_at ORDER BY g.n) AS starts,
               array_agg(g.ends_at ORDER BY g.n) AS ends
          FROM (SELECT jsonb_build_object(%s) AS series, min(d.%I) AS starts_at, max(d.%I) AS ends_at,
                       row_number() OVER () AS n
                  FROM %s AS d
                 WHERE %s AND d.%I BETWEEN $2 AND $3
                 GROUP BY %s) AS g
         GROUP BY (g.n - 1) / 50$sql$,
        (SELECT string_agg(format('%L, d.%I', k, k), ', ') FROM unnest(v_target.series_columns) AS k),
        v_target.time_column, v_target.time_column, p_hypertable::text,
        (SELECT string_agg(format('(NOT $1 ? %L OR d.%I = ($1 ->> %L)::%s)', k, k, k, format_type(a.atttypid, NULL)),
                           ' AND ')
           FROM unnest(v_target.series_columns) AS k
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p_hypertable AND a.attname = k),
        v_target.time_column,
        (SELECT string_agg(format('d.%I', k), ', ') FROM unnest(v_target.series_columns) AS k)
    ) USING v_series, v_from, v_to
    LOOP
        -- Whatever was done behind its back, what is remembered of a series is right from here on.
        PERFORM _tidemark.forget_series(p_hypertable, v_some.series, v_some.ends);
        v_changed := v_changed + _tidemark.judge(
            p_hypertable, v_some.series, v_some.starts, v_some.ends, NULL, 'infinity', false, false
        );
    END LOOP;
    -- Episodes also change where rows between anomalies come or go.
    PERFORM _tidemark.link_episodes(v_target, v.verdicts, '{}', '-infinity', v_to)
       FROM (SELECT array_agg(jsonb_populate_record(
                        NULL::_tidemark.verdict, jsonb_build_object('series', e.series, 'ts', e.ts)
                    )) AS verdicts
               FROM (SELECT a.series, min(a.timestamp) AS ts
                       FROM public.anomalies AS a
                      WHERE a.table_name = v_target.label AND a.series @> v_series
                        AND a.timestamp BETWEEN v_from AND v_to
                      GROUP BY a.series) AS e) AS v
      WHERE v.verdicts IS NOT NULL;
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
