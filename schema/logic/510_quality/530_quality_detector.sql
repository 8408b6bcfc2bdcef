-- The detector, version lr2p-1. Per series, over the rows with a valid value in order of time:
--
--     r = the change from the previous value: ln(p / previous), the difference, or the level itself
--     d = the distance from the median of the three values before
--     pass 1: mean and deviation of r over the N rows strictly before; a row further than 4 of them from that mean is
--             left out of later baselines
--     pass 2: mean m, deviation s and number n of what is left in the N rows before; s20 likewise over 20 rows
--     scale S = greatest(s, s20, floor), where floor = greatest(tick / previous, scale_floor)
--     z = (r - m or d, whichever is smaller in magnitude) / S; NULL while n < min_samples
--
-- The median of three keeps the good row after a bad tick from looking like a crash; s20 follows a burst of volatility;
-- the floor gives a flat series a finite score. See Brownlees and Gallo (2006) for the floor, Lee and Mykland (2008)
-- for judging returns as they come.
--
-- Every sum is exact, so a batch, the same rows one by one and a rescore agree in every bit: changes of logarithms are
-- whole numbers of 1e-7, clamped to +-9 so that a thousand squares fit a bigint; levels and differences are numeric.

-- Whether changes over night are judged apart: where prices come more than once a day and the sessions are known.
CREATE OR REPLACE FUNCTION _tidemark.has_sessions(
    p_profile public.quality_profiles,
    p_step interval
)
    RETURNS boolean
    LANGUAGE plpgsql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN p_profile.transform = 'log_return' AND p_profile.market IS NOT NULL
       AND p_step > interval '0' AND p_step < interval '1 day';
END
$func$;
COMMENT ON FUNCTION _tidemark.has_sessions(public.quality_profiles, interval) IS
'Whether changes over night are judged apart from those within a session.';

-- Whether a session of the market opened after the one instant and not after the other.
CREATE OR REPLACE FUNCTION _tidemark.opens_between(
    p_market text,
    p_after timestamptz,
    p_until timestamptz
)
    RETURNS boolean
    LANGUAGE plpgsql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN EXISTS (
        SELECT FROM public.market_calendar AS c
         WHERE c.market = p_market
           AND c.date BETWEEN (p_after AT TIME ZONE 'UTC')::date - 1 AND (p_until AT TIME ZONE 'UTC')::date + 1
           AND c.opens_at > p_after
           AND c.opens_at <= p_until
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.opens_between(text, timestamptz, timestamptz) IS
'Whether a session of a market opened between two instants, the second included.';

-- The part of the detector's text that makes changes of values. Changes that are given, as those over night are by the
-- pass that found them, are taken as they are.
CREATE OR REPLACE FUNCTION _tidemark.changes_text(p_is_log boolean)
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.fill_template($sql$
        SELECT y.island, y.ts, y.is_usable,
               y.is_marked OR (
                   lag(y.value) OVER by_time <> 0
                   AND abs(y.value - lag(y.value) OVER by_time) / abs(lag(y.value) OVER by_time)
                       >= v_max_change * 0.999999 -- to be decided exactly, in decimals, for the few that come near
               ) IS TRUE AS is_marked,
               lag(y.value) OVER by_time AS previous,
               lag(y.ts) OVER by_time AS previous_ts,
               @change@ AS change,
               y.level,
               y.level - CASE
                   WHEN lag(y.level, 3) OVER by_time IS NULL THEN lag(y.level, 2) OVER by_time
                   ELSE lag(y.level) OVER by_time + lag(y.level, 2) OVER by_time + lag(y.level, 3) OVER by_time
                        - greatest(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                   lag(y.level, 3) OVER by_time)
                        - least(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                lag(y.level, 3) OVER by_time)
               END AS deviation
          FROM (
            SELECT x.island, x.ts, x.is_marked, x.is_usable,
                   CASE WHEN x.is_usable THEN x.value END AS value,
                   CASE WHEN x.is_usable THEN @level@ END AS level
              FROM unnest(p_island, p_ts, p_value, p_is_usable, p_is_marked)
                   AS x (island, ts, value, is_usable, is_marked)
          ) AS y
        WINDOW by_time AS (PARTITION BY y.island, y.is_usable ORDER BY y.ts)@given@
    $sql$, jsonb_build_object(
        'level', CASE WHEN p_is_log THEN '(ln(x.value) * 1e7)::bigint' ELSE 'x.value::numeric' END,
        'change', CASE WHEN p_is_log
            -- Not by greatest and least: these would make a number of the NULL before the first row.
            THEN 'CASE WHEN y.level - lag(y.level) OVER by_time > 90000000 THEN 90000000'
                 ' WHEN y.level - lag(y.level) OVER by_time < -90000000 THEN -90000000'
                 ' ELSE y.level - lag(y.level) OVER by_time END'
            ELSE 'CASE WHEN v_is_level THEN y.level ELSE y.level - lag(y.level) OVER by_time END' END,
        'given', CASE WHEN p_is_log THEN $sql$
         UNION ALL
        SELECT i.island, i.ts, true, false, i.previous, NULL, (i.observed * 1e7)::bigint,
               (ln(i.reference) * 1e7)::bigint + (i.deviation * 1e7)::bigint, (i.deviation * 1e7)::bigint
          FROM unnest(p_given) AS i$sql$ END
    ));
$func$;
COMMENT ON FUNCTION _tidemark.changes_text(boolean) IS
'Part of the text of the detector: the changes of values, of logarithms or as they are.';

-- The one place that knows how many deviations are compared where, and what a level, a mean and a deviation are. The
-- detector exists twice, for logarithms and for levels as they are, because exact sums of the two are of different
-- types: this is the text of both, and tests/quality/generated.sql shows what comes out of it.
CREATE OR REPLACE FUNCTION _tidemark.detector_text(p_is_log boolean)
    RETURNS text
    LANGUAGE plpgsql
    IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    -- Of a sum, a sum of squares and a number of rows. Products of sums of whole numbers no longer fit a bigint.
    v_mean CONSTANT text := CASE WHEN p_is_log
        THEN '%1$s::double precision / nullif(%2$s, 0)'
        ELSE '(%1$s / nullif(%2$s, 0))::double precision' END;
    v_squares CONSTANT text := CASE WHEN p_is_log
        THEN '(%2$s - %1$s::double precision * %1$s / nullif(%3$s, 0))'
        ELSE '(%2$s - %1$s * %1$s / nullif(%3$s, 0))::double precision' END;
    v_spread CONSTANT text := 'sqrt(greatest(' || v_squares || ', 0) / nullif(%3$s - 1, 0))';
    v_floor CONSTANT text := CASE WHEN p_is_log
        THEN '1e7 * greatest(v_scale_floor, v_tick / %s.previous)'
        ELSE 'greatest(v_scale_floor, v_tick)' END;
BEGIN
    RETURN _tidemark.fill_template($detector$
DECLARE
    v_rows CONSTANT integer := p_profile.baseline_rows;
    v_min_samples CONSTANT integer := p_profile.min_samples;
    v_max_change CONSTANT double precision := p_profile.max_change;
    v_anomaly_z CONSTANT double precision := p_profile.anomaly_z;
    v_scale_floor CONSTANT double precision := p_profile.scale_floor;
    v_tick CONSTANT double precision := coalesce(p_profile.tick_size, 0);
    v_market CONSTANT text := CASE WHEN p_given IS NULL AND _tidemark.has_sessions(p_profile, p_step)
                                   THEN p_profile.market END;
    v_is_level CONSTANT boolean := p_profile.transform = 'level';
    v_found _tidemark.finding[];
BEGIN
    SELECT array_agg(ROW(
               f.island, f.ts, f.previous, @reference@, f.change::double precision / @unit@, f.mean / @unit@,
               f.deviation::double precision / @unit@, f.scale / @unit@, f.samples, f.z_score, f.is_first
           )::_tidemark.finding)
      INTO v_found
      FROM (
        SELECT e.*,
               CASE WHEN e.is_candidate THEN
                   CASE WHEN abs(e.deviation::double precision) < abs(e.change::double precision - e.mean)
                        THEN e.deviation::double precision ELSE e.change::double precision - e.mean END / e.scale
               END AS z_score
          FROM (
            SELECT c.*,
                   @mean@ AS mean,
                   greatest(@spread@, @spread_20@, @floor@) AS scale
              FROM (
                -- What cannot exceed the threshold, as d does not in units of s, is left behind here.
                SELECT w.*,
                       NOT w.is_first AND w.samples >= v_min_samples
                       AND w.deviation::double precision * w.deviation::double precision * (w.samples - 1)
                           > 0.99 * v_anomaly_z * v_anomaly_z * @squares@ AS is_candidate
                  FROM (
                    SELECT k.*,
                           @sum@(k.kept) OVER n_rows AS kept_sum,
                           @sum@(k.kept_square) OVER n_rows AS kept_squares,
                           count(k.kept) OVER n_rows AS samples,
                           @sum@(k.kept) OVER twenty_rows AS sum_20,
                           @sum@(k.kept_square) OVER twenty_rows AS squares_20,
                           count(k.kept) OVER twenty_rows AS samples_20
                      FROM (
                        -- A barrier: without it each window would evaluate what is kept again for each frame.
                        SELECT b.island, b.ts, b.is_usable, b.previous, b.change, b.level, b.deviation,
                               b.is_marked, b.is_first,
                               CASE WHEN b.is_kept THEN b.change END AS kept,
                               CASE WHEN b.is_kept THEN b.change * b.change END AS kept_square
                          FROM (
                            SELECT a.*,
                                   CASE
                                       WHEN a.base IS NULL THEN false
                                       WHEN a.base_rows < v_min_samples THEN true
                                       ELSE abs(a.change::double precision - @base_mean@)
                                            <= 4 * greatest(@base_spread@, @base_floor@)
                                   END AS is_kept
                              FROM (
                                SELECT l.*,
                                       @sum@(l.base) OVER n_rows AS base_sum,
                                       @sum@(l.base * l.base) OVER n_rows AS base_squares,
                                       count(l.base) OVER n_rows AS base_rows
                                  FROM (
                                    SELECT s.*, CASE WHEN NOT s.is_first THEN s.change END AS base
                                      FROM (
                                        -- The first rows of their sessions are left out of others' baselines.
                                        SELECT g.*,
                                               CASE WHEN v_market IS NULL THEN false
                                                    WHEN g.ts - g.previous_ts > p_step
                                                    THEN _tidemark.opens_between(v_market, g.previous_ts, g.ts)
                                                    ELSE false END AS is_first
                                          FROM (@changes@) AS g
                                        OFFSET 0
                                      ) AS s
                                  ) AS l
                                WINDOW n_rows AS (
                                    PARTITION BY l.island, l.is_usable ORDER BY l.ts
                               ROWS BETWEEN v_rows PRECEDING AND 1 PRECEDING
                                )
                              ) AS a
                             ORDER BY a.island, a.is_usable, a.ts
                            OFFSET 0
                          ) AS b
                         ORDER BY b.island, b.is_usable, b.ts
                        OFFSET 0
                      ) AS k
                    WINDOW n_rows AS (
                               PARTITION BY k.island, k.is_usable ORDER BY k.ts
                               ROWS BETWEEN v_rows PRECEDING AND 1 PRECEDING
                           ),
                           twenty_rows AS (
                               PARTITION BY k.island, k.is_usable ORDER BY k.ts
                               ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING
                           )
                  ) AS w
                 WHERE w.ts >= p_judged_from[w.island]
                OFFSET 0
              ) AS c
             WHERE c.is_marked OR c.is_candidate OR c.is_first
            OFFSET 0
          ) AS e
        OFFSET 0
      ) AS f
     WHERE f.is_marked OR f.is_first OR abs(f.z_score) > v_anomaly_z;
    RETURN coalesce(v_found, '{}');
END
$detector$, jsonb_build_object(
        'unit', CASE WHEN p_is_log THEN '1e7' ELSE '1' END,
        'sum', CASE WHEN p_is_log THEN '_tidemark.moving_sum' ELSE 'sum' END,
        'reference', CASE WHEN p_is_log THEN 'exp((f.level - f.deviation)::double precision / 1e7)'
                          ELSE '(f.level - f.deviation)::double precision' END,
        'base_mean', format(v_mean, 'a.base_sum', 'a.base_rows'),
        'base_spread', format(v_spread, 'a.base_sum', 'a.base_squares', 'a.base_rows'),
        'base_floor', format(v_floor, 'a'),
        'squares', format(v_squares, 'w.kept_sum', 'w.kept_squares', 'w.samples'),
        'mean', format(v_mean, 'c.kept_sum', 'c.samples'),
        'spread', format(v_spread, 'c.kept_sum', 'c.kept_squares', 'c.samples'),
        'spread_20', format(v_spread, 'c.sum_20', 'c.squares_20', 'c.samples_20'),
        'floor', format(v_floor, 'c'),
        'changes', _tidemark.changes_text(p_is_log)
    ));
END
$func$;
COMMENT ON FUNCTION _tidemark.detector_text(boolean) IS 'Text of detect_logs (true) and detect_levels (false).';

DO $do$
DECLARE
    v_name text;
BEGIN
    FOREACH v_name IN ARRAY ARRAY['detect_logs', 'detect_levels'] LOOP
        PERFORM _tidemark.make_function(
            v_name,
            'p_island integer[], p_ts timestamptz[], p_value double precision[], p_is_usable boolean[], '
            'p_is_marked boolean[], p_judged_from timestamptz[], p_profile public.quality_profiles, p_step interval, '
            'p_given _tidemark.finding[]',
            '_tidemark.finding[]', 'SET search_path = pg_catalog, pg_temp',
            _tidemark.detector_text(v_name = 'detect_logs'),
            format('The detector over %s; call detect() instead.',
                   CASE v_name WHEN 'detect_logs' THEN 'logarithms' ELSE 'levels as they are' END)
        );
    END LOOP;
END
$do$;

-- Judges rows that are handed over as arrays, one element a row, islands in any order: the island (a number from 1 on),
-- time, value, whether the value is a reference for others, and whether the row is wanted whatever the detector finds.
-- From p_judged_from, one element an island, on rows are judged; those before are their baseline. What comes back:
-- rows that are wanted, come near to a jump by max_change, exceed anomaly_z, or are the first of their session. A value
-- that is no reference for others comes back once more if it is wanted, with the last one before it that is: it has no
-- z-score, but it has moved.
CREATE OR REPLACE FUNCTION _tidemark.detect(
    p_island integer[],
    p_ts timestamptz[],
    p_value double precision[],
    p_is_usable boolean[],
    p_is_marked boolean[],
    p_judged_from timestamptz[],
    p_profile public.quality_profiles,
    p_step interval
)
    RETURNS SETOF _tidemark.finding
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_profile.transform = 'log_return' THEN
        RETURN QUERY SELECT f.* FROM unnest(_tidemark.detect_logs(
            p_island, p_ts, p_value, p_is_usable, p_is_marked, p_judged_from, p_profile, p_step, NULL
        )) AS f;
    ELSE
        RETURN QUERY SELECT f.* FROM unnest(_tidemark.detect_levels(
            p_island, p_ts, p_value, p_is_usable, p_is_marked, p_judged_from, p_profile, p_step, NULL
        )) AS f;
    END IF;
    IF EXISTS (
        SELECT FROM unnest(p_value, p_is_usable, p_is_marked) AS x (value, is_usable, is_marked)
         WHERE x.is_marked AND NOT x.is_usable AND x.value IS NOT NULL
    ) THEN
        RETURN QUERY
        SELECT p.island, p.ts, p.previous, NULL::double precision, NULL::double precision, NULL::double precision,
               NULL::double precision, NULL::double precision, NULL::integer, NULL::double precision, false
          FROM (
            SELECT x.*, max(x.value) FILTER (WHERE x.is_usable) OVER (PARTITION BY x.island, x.part) AS previous
              FROM (
                SELECT r.*, count(*) FILTER (WHERE r.is_usable) OVER (PARTITION BY r.island ORDER BY r.ts) AS part
                  FROM unnest(p_island, p_ts, p_value, p_is_usable, p_is_marked)
                       AS r (island, ts, value, is_usable, is_marked)
              ) AS x
          ) AS p
         WHERE p.is_marked AND NOT p.is_usable AND p.value IS NOT NULL AND p.previous IS NOT NULL;
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.detect(
    integer [], timestamptz [], double precision [], boolean [], boolean [], timestamptz [], public.quality_profiles,
    interval
) IS 'Judges rows that are handed over as arrays: those worth a closer look, with the figures of the detector.';

-- Judges the first rows of their sessions, given as found by detect(), among those of earlier sessions.
CREATE OR REPLACE FUNCTION _tidemark.detect_nights(
    p_nights _tidemark.finding[],
    p_judged_from timestamptz[],
    p_profile public.quality_profiles,
    p_step interval
)
    RETURNS SETOF _tidemark.finding
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT f.* FROM unnest(_tidemark.detect_logs(
        NULL, NULL, NULL, NULL, NULL, p_judged_from, p_profile, p_step, p_nights
    )) AS f;
$func$;
COMMENT ON FUNCTION _tidemark.detect_nights(
    _tidemark.finding [], timestamptz [], public.quality_profiles, interval
) IS 'Judges the first rows of their sessions among their like.';
