-- The judge scores the rows of some islands, an island being a series and a period. It only computes what differs from
-- the rows; the clerk (542) writes that down. What reads the rows of a hypertable is made for it (545).

-- Rows of a hypertable that are judged, as they are stored.
CREATE OR REPLACE FUNCTION _tidemark.judged_rows(
    p_target _tidemark.quality_targets,
    p_series jsonb[],
    p_ts timestamptz[],
    p_profile public.quality_profiles,
    p_step interval,
    p_is_safe boolean
)
    RETURNS SETOF _tidemark.judged_row
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN QUERY EXECUTE format('SELECT * FROM _tidemark.%I($1, $2, $3, $4, $5)', 'rows_' || p_target.stem)
        USING p_series, p_ts, p_profile, p_step, p_is_safe;
END
$func$;
COMMENT ON FUNCTION _tidemark.judged_rows(
    _tidemark.quality_targets, jsonb [], timestamptz [], public.quality_profiles, interval, boolean
) IS 'Rows of a hypertable that are judged, with what they lack and which rules they violate.';

-- Whether a move from the last price of a series before an instant, as a logarithm, can be a split. It is none where
-- the row right before, of those with a value, holds no price, such as -36.98 among prices of oil; nor where moves of
-- such a size are nothing special, at least half of it in three of the twenty before, as in GME in January 2021.
CREATE OR REPLACE FUNCTION _tidemark.can_be_split(
    p_target _tidemark.quality_targets,
    p_series jsonb,
    p_ts timestamptz,
    p_move double precision
)
    RETURNS boolean
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_values double precision[];
    v_levels double precision[];
BEGIN
    EXECUTE format(
        'SELECT array_agg(r.value ORDER BY r.at DESC) FROM (SELECT d.%3$I AS at, v.value FROM %1$s AS d,'
        ' coalesce(%4$s) AS v (value) WHERE %2$s AND d.%3$I < $2 AND v.value IS NOT NULL ORDER BY 1 DESC LIMIT 21) AS r',
        p_target.hypertable::text, _tidemark.is_of_series(p_target, '$1'), p_target.time_column,
        (SELECT string_agg(format('d.%I::double precision', c.name), ', ' ORDER BY c.position)
           FROM unnest(p_target.value_columns) WITH ORDINALITY AS c (name, position))
    ) INTO v_values USING p_series, p_ts;
    v_levels := ARRAY(SELECT CASE WHEN v.value > 1e-100 AND v.value < 1e100 THEN ln(v.value) END
                        FROM unnest(v_values) WITH ORDINALITY AS v (value, n) ORDER BY v.n);
    RETURN v_levels[1] IS NOT NULL AND 3 > (
        SELECT count(*) FROM generate_series(2, cardinality(v_levels)) AS i
         WHERE abs(v_levels[i] - v_levels[i - 1]) >= abs(p_move) / 2
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.can_be_split(_tidemark.quality_targets, jsonb, timestamptz, double precision) IS
'Whether a move right after the rows before an instant can be a split: from a price, and larger than is usual.';

-- The first rows of sessions as nights_… gives them, those of earlier sessions without what splits explain, as those
-- are that detect() found.
CREATE OR REPLACE FUNCTION _tidemark.nights_without_splits(
    p_nights _tidemark.finding[],
    p_asset_id uuid[]
)
    RETURNS _tidemark.finding[]
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NOT EXISTS (SELECT FROM public.corporate_actions AS a WHERE a.asset_id = ANY (p_asset_id)) THEN
        RETURN p_nights;
    END IF;
    RETURN ARRAY(
        SELECT CASE WHEN f.is_first OR s.jump IS NULL THEN f
                    ELSE ROW(f.island, f.ts, _tidemark.in_shares_of(f.previous, -s.jump), f.reference,
                             greatest(-90000000, least(90000000, (f.observed * 1e7)::bigint + s.jump)) / 1e7,
                             f.expected, f.deviation, f.scale, f.samples, f.z_score, f.is_first, f.field)::_tidemark.finding END
          FROM unnest(p_nights) AS f
          LEFT JOIN LATERAL _tidemark.split_at(p_asset_id[f.island], f.ts, f.observed) AS s ON true
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.nights_without_splits(_tidemark.finding [], uuid []) IS
'The first rows of sessions, those of earlier sessions without what splits explain.';

-- What the rows that were found are worth, where that differs from what is on record: all of one profile, p_series the
-- series of the islands that the findings refer to.
CREATE OR REPLACE FUNCTION _tidemark.verdicts(
    p_target _tidemark.quality_targets,
    p_series jsonb[],
    p_found _tidemark.finding[],
    p_profile public.quality_profiles,
    p_step interval,
    p_is_safe boolean
)
    RETURNS _tidemark.verdict[]
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_found_series jsonb[];
    v_found_ts timestamptz[];
    v_found _tidemark.finding[];
    -- What was judged when the row arrived, against the clock of that moment, stands.
    v_arrival_rules CONSTANT integer[] := ARRAY(
        SELECT r.rule_id FROM public.validation_rules AS r
         WHERE r.applies_to = p_target.label AND r.rule_type = 'not_future' AND r.is_active
    );
    v_verdicts _tidemark.verdict[];
BEGIN
    SELECT array_agg(u.series), array_agg(u.ts), array_agg(u.finding)
      INTO v_found_series, v_found_ts, v_found
      FROM (
        SELECT DISTINCT ON (p_series[f.island], f.ts)
               p_series[f.island] AS series, f.ts, f::_tidemark.finding AS finding
          FROM unnest(p_found) AS f
         -- The judged value before what else of the bar stands out.
         ORDER BY p_series[f.island], f.ts,
                  coalesce(abs(f.z_score) > p_profile.anomaly_z AND coalesce(f.field, '') = '', false) DESC,
                  coalesce(f.field <> '', false) DESC, abs(f.z_score) DESC NULLS LAST, f.previous IS NULL
      ) AS u;
    SELECT array_agg(ROW(
               v.series, v.ts, v.score, v.is_anomaly, v.penalties, v.severity, v.kind, v.z_score, v.value, v.observed,
               v.expected, v.deviation, v.scale, v.samples, v.field
           )::_tidemark.verdict ORDER BY v.series, v.ts)
      INTO v_verdicts
      FROM (
        SELECT f.series, f.ts, nullif(f.field, '') AS field,
               CASE nullif(f.field, '') WHEN 'open' THEN d.first_value WHEN 'high' THEN d.highest
                                        WHEN 'low' THEN d.lowest WHEN 'volume' THEN d.volume ELSE d.value END AS value,
               d.quality_score, d.is_anomaly AS was_anomaly, a.figures,
               coalesce(q.recorded, '{}') AS recorded,
               greatest(0, 100 - (SELECT coalesce(sum(u.points), 0) FROM unnest(w.penalties) AS u))::smallint AS score,
               coalesce(abs(f.z_score) > p_profile.anomaly_z, false) OR a.is_kept IS TRUE AS is_anomaly,
               w.penalties,
               CASE WHEN abs(f.z_score) > p_profile.black_swan_z THEN 'black_swan'::public.anomaly_severity
                    WHEN abs(f.z_score) > p_profile.anomaly_z THEN 'anomaly' END AS severity,
               CASE WHEN p_profile.transform = 'log_return' AND coalesce(f.field, '') = ''
                    AND abs(f.z_score) > p_profile.anomaly_z
                    AND d.first_value > 0 AND d.first_value < 'infinity' AND f.previous > 0 AND EXISTS (
                        SELECT FROM unnest(ARRAY[1.5, 2, 3, 4, 5, 7, 10]::double precision[]) AS s (ratio)
                         WHERE abs(abs(ln(d.first_value) - ln(f.previous)) - ln(s.ratio)) <= 0.03
                    ) AND _tidemark.can_be_split(p_target, f.series, f.ts, ln(d.first_value) - ln(f.previous))
               THEN 'split_candidate'::public.anomaly_kind ELSE 'spike' END AS kind,
               f.z_score, f.observed, f.expected, f.deviation, f.scale, f.samples
          -- Side by side: to look up an element of an array of documents is to walk through those before it.
          FROM unnest(v_found_series, v_found) WITH ORDINALITY
               AS f (series, island, ts, previous, reference, observed, expected, deviation, scale, samples, z_score,
                     is_first, field, n)
          JOIN _tidemark.judged_rows(p_target, v_found_series, v_found_ts, p_profile, p_step, p_is_safe) AS d
            ON d.n = f.n
          LEFT JOIN LATERAL (
                   SELECT b.status = 'confirmed_error' AND b.field IS NULL AS is_error, b.status <> 'open' AS is_kept,
                          (b.severity, b.kind, b.z_score, b.observed, b.expected, b.deviation, b.scale, b.samples,
                           b.field, b.detector_version) AS figures
                     FROM public.anomalies AS b
                    WHERE b.table_name = p_target.label AND b.series = f.series
                      AND (b.series, b.timestamp) >= (f.series, f.ts) AND (b.series, b.timestamp) <= (f.series, f.ts)
                      AND b.value IS NOT DISTINCT FROM CASE b.field WHEN 'open' THEN d.first_value
                              WHEN 'high' THEN d.highest WHEN 'low' THEN d.lowest WHEN 'volume' THEN d.volume
                              ELSE d.value END
                      AND d.is_anomaly
                   -- Look up, by series and time, and do not join: fresh tables have no statistics.
                   OFFSET 0
               ) AS a ON true
         CROSS JOIN LATERAL (
                   SELECT array_agg(ROW(q.penalty, q.points, q.rule_id, q.detail)::_tidemark.penalty
                                    ORDER BY q.penalty, q.rule_id) AS recorded,
                          -- So does the verdict on a row that a reviewer confirmed to be an error.
                          array_agg(ROW(q.penalty, q.points, q.rule_id, q.detail)::_tidemark.penalty)
                          FILTER (WHERE q.penalty = 'timeliness' OR q.rule_id = ANY (v_arrival_rules)
                                     OR (q.penalty = 'consistency' AND a.is_error)) AS kept
                     FROM public.quality_issues AS q
                    WHERE q.table_name = p_target.label AND q.series = f.series
                      AND (q.series, q.ts) >= (f.series, f.ts) AND (q.series, q.ts) <= (f.series, f.ts)
               ) AS q
         CROSS JOIN LATERAL (
                   SELECT coalesce(q.kept, '{}')
                          || CASE WHEN cardinality(d.missing) > 0 THEN ARRAY[ROW(
                                 'completeness', 30, NULL, 'missing: ' || array_to_string(d.missing, ', ')
                             )::_tidemark.penalty] ELSE '{}' END
                          -- Strictly more than max_change, in decimals, so that half is not more than half. The good
                          -- row after a bad one also moves that much, but is back at the median of the three before.
                          -- What cannot be a price has moved too, and has no median to be back at.
                          || CASE WHEN f.previous <> 0 AND p_profile.max_change < 'infinity' AND a.is_error IS NOT TRUE
                                   AND abs(d.value::numeric - f.previous::numeric)
                                       > p_profile.max_change::numeric * abs(f.previous::numeric)
                                   AND (abs(d.value - f.reference) <= p_profile.max_change * abs(f.reference))
                                       IS NOT TRUE
                             THEN ARRAY[ROW(
                                 'consistency', 25, NULL, format('from %s to %s', f.previous, d.value)
                             )::_tidemark.penalty] ELSE '{}' END
                          || ARRAY(SELECT ROW('validation', 10, r.rule_id, r.name)::_tidemark.penalty
                                     FROM public.validation_rules AS r
                                    WHERE r.rule_id = ANY (d.broken)
                                    ORDER BY r.rule_id) AS penalties
               ) AS w
      ) AS v
     -- What differs from what is on record.
     WHERE v.quality_score IS DISTINCT FROM v.score
        OR v.was_anomaly IS DISTINCT FROM v.is_anomaly
        OR (v.severity IS NOT NULL AND v.figures IS DISTINCT FROM
            (v.severity, v.kind, v.z_score, v.observed, v.expected, v.deviation, v.scale, v.samples,
             v.field, _tidemark.detector_version()))
        OR ARRAY(SELECT u FROM unnest(v.penalties) AS u ORDER BY u.penalty, u.rule_id) <> v.recorded;
    RETURN coalesce(v_verdicts, '{}');
END
$func$;
COMMENT ON FUNCTION _tidemark.verdicts(
    _tidemark.quality_targets, jsonb [], _tidemark.finding [], public.quality_profiles, interval, boolean
) IS 'Score, flag and penalties of rows that were found, where they differ from what is on record.';

-- The findings without the scores of what is still forming: of a row whose bar has not closed, and which no later row
-- of its series has closed. Such a row is noted, to be judged again, and is no anomaly until then.
CREATE OR REPLACE FUNCTION _tidemark.withhold_forming(
    p_target _tidemark.quality_targets,
    p_series jsonb[],
    p_found _tidemark.finding[],
    p_profile public.quality_profiles,
    p_step interval
)
    RETURNS _tidemark.finding[]
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp();
    v_series jsonb[];
    v_ts timestamptz[];
    v_closes_at timestamptz[];
BEGIN
    SELECT array_agg(p_series[f.island]), array_agg(f.ts), array_agg(f.closes_at)
      INTO v_series, v_ts, v_closes_at
      FROM (SELECT DISTINCT u.island, u.ts, _tidemark.closes_at(u.ts, p_step, p_profile.allowed_lag, v_now) AS closes_at
              FROM unnest(p_found) AS u
             WHERE abs(u.z_score) > p_profile.anomaly_z) AS f
     WHERE f.closes_at > v_now;
    IF v_ts IS NULL THEN
        RETURN p_found;
    END IF;
    EXECUTE format(
        'SELECT array_agg(i.series), array_agg(i.ts), array_agg(i.closes_at)'
        ' FROM unnest($1, $2, $3) AS i (series, ts, closes_at)'
        ' WHERE NOT EXISTS (SELECT FROM %1$s AS d WHERE %2$s AND d.%3$I > i.ts AND d.%3$I <= $4)',
        p_target.hypertable::text, _tidemark.is_of_series(p_target, 'i.series'), p_target.time_column
    ) INTO v_series, v_ts, v_closes_at USING v_series, v_ts, v_closes_at, v_now + interval '1 minute';
    IF v_ts IS NULL THEN
        RETURN p_found;
    END IF;
    PERFORM _tidemark.wait_for_close(p_target.hypertable, v_series, v_ts, v_closes_at);
    RETURN ARRAY(
        SELECT ROW(f.island, f.ts, f.previous, f.reference, f.observed, f.expected, f.deviation, f.scale, f.samples,
                   CASE WHEN (p_series[f.island], f.ts) NOT IN (SELECT w.series, w.ts
                                                                 FROM unnest(v_series, v_ts) AS w (series, ts))
                        THEN f.z_score END,
                   f.is_first, f.field)::_tidemark.finding
          FROM unnest(p_found) AS f
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.withhold_forming(
    _tidemark.quality_targets, jsonb [], _tidemark.finding [], public.quality_profiles, interval
) IS 'The findings without the z-scores of bars that are still forming, which are noted to be judged again.';

-- The judge itself: judge() calls it, and again with p_is_safe where a rule fails to evaluate.
CREATE OR REPLACE FUNCTION _tidemark.judge_islands(
    p_hypertable regclass,
    p_series jsonb[],
    p_from timestamptz[],
    p_to timestamptz[],
    p_late_before timestamptz[],
    p_future_after timestamptz,
    p_followers boolean,
    p_is_safe boolean
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_most CONSTANT integer := 2000000; -- rows that are held in memory at once
    v_target _tidemark.quality_targets;
    v_group record;
    v_profile public.quality_profiles;
    v_from timestamptz[];
    v_read record;
    v_shift bigint[];
    v_first_shift bigint[];
    v_some _tidemark.finding[];
    v_found _tidemark.finding[];
    v_nights _tidemark.finding[];
    v_fields _tidemark.finding[];
    v_lowest timestamptz := 'infinity';
    v_highest timestamptz := '-infinity';
    v_verdicts _tidemark.verdict[] := '{}';
    v_changed bigint := 0;
BEGIN
    SELECT t.* INTO STRICT v_target FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable;
    FOR v_group IN
        SELECT p.quality_profile_id, p.step, p.transform, p.market, array_agg(p_series[p.n] ORDER BY p.n) AS series,
               array_agg(p_from[p.n] ORDER BY p.n) AS starts, array_agg(p_to[p.n] ORDER BY p.n) AS ends,
               array_agg(p_late_before[p.n] ORDER BY p.n) AS late_before, array_agg(p.asset_id ORDER BY p.n) AS assets
          FROM _tidemark.series_profiles(v_target, p_series) AS p
         GROUP BY p.quality_profile_id, p.step, p.transform, p.market
         ORDER BY p.quality_profile_id, p.step, p.transform, p.market
    LOOP
        v_profile := _tidemark.profile_for(v_group.quality_profile_id, v_group.transform, v_group.market);
        v_found := '{}';
        v_from := v_group.starts;
        LOOP
            EXECUTE format('SELECT * FROM _tidemark.%I($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)',
                           'read_' || v_target.stem)
               INTO v_read
              USING v_group.series, v_from, v_group.ends, v_group.late_before, p_future_after, v_profile, v_group.step,
                    p_followers, p_is_safe, v_most;
            EXIT WHEN v_read.island IS NULL;
            v_lowest := least(v_lowest, v_read.lowest);
            v_highest := greatest(v_highest, v_read.highest);
            IF v_profile.transform = 'log_return' THEN
                v_shift := _tidemark.split_shifts(v_group.assets, v_read.island, v_read.ts, v_read.value,
                                                  v_read.is_usable, v_read.lowest, v_read.highest);
                v_first_shift := _tidemark.split_shifts(v_group.assets, v_read.first_island, v_read.first_ts,
                                                        v_read.first_value, NULL, v_read.lowest, v_read.highest);
            END IF;
            v_some := ARRAY(SELECT f FROM _tidemark.detect(
                v_read.island, v_read.ts, v_read.value, v_read.is_usable, v_read.is_marked, v_read.judged_from, v_profile,
                v_group.step, v_read.first_island, v_read.first_ts, v_read.first_value, v_read.wick, v_read.body,
                v_read.volume, v_shift, v_first_shift
            ) AS f);
            v_found := v_found || v_some;
            IF EXISTS (SELECT FROM unnest(v_some) AS f WHERE f.field IS NOT NULL) THEN
                EXECUTE format('SELECT _tidemark.%I($1, $2, $3, $4, $5, $6)', 'fields_' || v_target.stem)
                   INTO v_fields
                  USING v_group.series, v_some, v_profile, v_group.step, v_read.lowest, v_read.highest;
                v_found := v_found || v_fields;
            END IF;
            -- The first rows of their sessions, among their like.
            IF EXISTS (SELECT FROM unnest(v_some) AS f WHERE f.is_first) THEN
                EXECUTE format('SELECT _tidemark.%I($1, $2, $3, $4, $5)', 'nights_' || v_target.stem)
                   INTO v_nights
                  USING v_group.series, v_read.judged_from, v_some, v_profile, v_group.step;
                v_found := v_found || ARRAY(
                    SELECT f FROM _tidemark.detect_nights(
                        _tidemark.nights_without_splits(v_nights, v_group.assets), v_read.judged_from, v_profile,
                        v_group.step
                    ) AS f
                );
            END IF;
            EXIT WHEN cardinality(v_read.island) < v_most;
            -- On with the island that was cut off; the others before it are done.
            FOR i IN 1 .. cardinality(v_from) LOOP
                v_from[i] := CASE
                    WHEN i < v_read.island[v_most] THEN 'infinity'
                    WHEN i = v_read.island[v_most]
                    THEN greatest(v_from[i], v_read.ts[v_most] + interval '1 microsecond')
                    ELSE v_from[i]
                END;
            END LOOP;
        END LOOP;
        IF v_found <> '{}' THEN
            v_found := _tidemark.withhold_forming(v_target, v_group.series, v_found, v_profile, v_group.step);
            v_verdicts := v_verdicts || _tidemark.verdicts(
                v_target, v_group.series, v_found, v_profile, v_group.step, p_is_safe
            );
        END IF;
    END LOOP;
    IF v_verdicts <> '{}' THEN
        v_changed := _tidemark.write_verdicts(v_target, v_verdicts, v_lowest, v_highest);
    END IF;
    PERFORM _tidemark.decide_doubtful(
        p_hypertable, p_series, p_from, ARRAY(SELECT greatest(t, v_highest) FROM unnest(p_to) AS t)
    );
    RETURN v_changed;
END
$func$;
COMMENT ON FUNCTION _tidemark.judge_islands(
    regclass, jsonb [], timestamptz [], timestamptz [], timestamptz [], timestamptz, boolean, boolean
) IS 'Scores the rows of islands of series; judge() is to be called.';

-- Scores the rows of islands, given as series, first and last instant, and writes down what differs. Rows before
-- p_late_before, one element an island, and after p_future_after are looked at whatever they contain. With p_followers
-- the rows after an island whose baseline it is part of are judged too. p_is_safe is for when a rule fails to evaluate:
-- it looks at every row and evaluates each rule on its own. Returns the number of rows whose verdict changed.
CREATE OR REPLACE FUNCTION _tidemark.judge(
    p_hypertable regclass,
    p_series jsonb[],
    p_from timestamptz[],
    p_to timestamptz[],
    p_late_before timestamptz[],
    p_future_after timestamptz,
    p_followers boolean,
    p_is_safe boolean
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- Texts and days are the same whatever the session is set to. jit costs more than these queries take. Baselines are
    -- read backwards along the key, however little is known about a fresh chunk: a bitmap would sort the whole series.
    -- Sorts of a large batch should fit into memory.
    SET timezone = 'UTC'
    SET extra_float_digits = 1
    SET jit = off
    SET enable_bitmapscan = off
    SET enable_seqscan = off
    SET enable_nestloop = on
    SET plan_cache_mode = 'auto'
    SET work_mem = '128MB'
AS $func$
BEGIN
    IF NOT p_is_safe THEN
        BEGIN
            RETURN _tidemark.judge_islands(
                p_hypertable, p_series, p_from, p_to, p_late_before, p_future_after, p_followers, false
            );
        EXCEPTION
            -- A rule failed to evaluate: rule_failures() has the same.
            WHEN data_exception OR program_limit_exceeded OR syntax_error_or_access_rule_violation
                 OR invalid_schema_name OR feature_not_supported THEN
                NULL;
        END;
    END IF;
    RETURN _tidemark.judge_islands(
        p_hypertable, p_series, p_from, p_to, p_late_before, p_future_after, p_followers, true
    );
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.judge(
    regclass, jsonb [], timestamptz [], timestamptz [], timestamptz [], timestamptz, boolean, boolean
) FROM public;
COMMENT ON FUNCTION _tidemark.judge(
    regclass, jsonb [], timestamptz [], timestamptz [], timestamptz [], timestamptz, boolean, boolean
) IS 'Scores the rows of islands of series, and writes down what differs; returns how many rows changed.';

-- Judges bars that were noted while they formed, given as series and start, once more, because they have closed.
-- Returns how many of them changed.
CREATE OR REPLACE FUNCTION _tidemark.judge_closed(
    p_hypertable regclass,
    p_series jsonb[],
    p_ts timestamptz[]
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_series jsonb[];
    v_ts timestamptz[];
BEGIN
    -- Where others are at it already, or this transaction cannot see what they did, it is left to others.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN 0;
    END IF;
    WITH closed AS MATERIALIZED (
        SELECT w.ctid AS place
          FROM _tidemark.waiting_bars AS w
         WHERE w.hypertable = p_hypertable
           AND (w.series, w.ts) IN (SELECT i.series, i.ts FROM unnest(p_series, p_ts) AS i (series, ts))
           FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM _tidemark.waiting_bars AS w USING closed AS c WHERE w.ctid = c.place
        RETURNING w.series, w.ts
    )
    SELECT array_agg(g.series), array_agg(g.ts) INTO v_series, v_ts
      FROM (SELECT DISTINCT d.series, d.ts FROM gone AS d) AS g;
    IF v_ts IS NULL THEN
        RETURN 0;
    END IF;
    RETURN _tidemark.judge(p_hypertable, v_series, v_ts, v_ts, NULL, 'infinity', false, false);
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.judge_closed(regclass, jsonb [], timestamptz []) FROM public;
COMMENT ON FUNCTION _tidemark.judge_closed(regclass, jsonb [], timestamptz []) IS
'Judges bars that were noted while they formed once more; returns how many changed.';

-- Judges what has closed without that anything was written since: anomalies of bars that formed begin here, unless a
-- statement on the same hypertable has seen to it before. maintain() and the job of the aggregates call it. Returns how
-- many rows changed.
CREATE OR REPLACE FUNCTION public.judge_closed_bars()
    RETURNS bigint
    LANGUAGE sql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(sum(_tidemark.judge_closed(w.hypertable, w.series, w.ts)), 0)::bigint
      FROM (SELECT b.hypertable, array_agg(b.series) AS series, array_agg(b.ts) AS ts
              FROM _tidemark.waiting_bars AS b
              JOIN _tidemark.quality_targets AS t ON t.hypertable = b.hypertable AND t.is_attached
             WHERE b.closes_at <= clock_timestamp()
             GROUP BY b.hypertable) AS w;
$func$;
REVOKE ALL ON FUNCTION public.judge_closed_bars() FROM public;
COMMENT ON FUNCTION public.judge_closed_bars() IS
'Judges bars that looked like an anomaly while they formed, and have closed; returns how many rows changed.';
