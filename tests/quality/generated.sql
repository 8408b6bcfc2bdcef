-- Made from the templates of schema/logic/510_quality, and compared with them by a test; do not edit.

CREATE OR REPLACE FUNCTION _tidemark.detect_levels(p_island integer[], p_ts timestamp with time zone[], p_value double precision[], p_is_usable boolean[], p_is_marked boolean[], p_judged_from timestamp with time zone[], p_profile quality_profiles, p_step interval, p_given _tidemark.finding[], p_first_island integer[], p_first_ts timestamp with time zone[], p_first_value double precision[], p_wick double precision[], p_body double precision[], p_volume double precision[], p_shift bigint[], p_first_shift bigint[])
 RETURNS _tidemark.finding[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SET search_path = pg_catalog, pg_temp

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
    -- Of the series that begin here, one element an island:
    v_block_end timestamptz[];
    v_judged_to timestamptz[];
    v_middle double precision[];
    v_reach double precision[];
    v_mean double precision[];
    v_spread double precision[];
    v_samples integer[];
    v_found _tidemark.finding[];
    -- The place of each finding among the rows, which are in order of island and time:
    v_places bigint[];
    v_finding _tidemark.finding;
    v_place bigint;
    v_values double precision[];
    v_value double precision;
    v_last double precision;
    v_shift bigint;
    v_seen integer;
    v_is_ticking boolean;
    v_least double precision;
    v_move double precision;
    v_moves integer;
    v_change double precision;
    v_changes integer;
    v_squares double precision;
    v_wider double precision;
BEGIN
    SELECT b.block_end, b.judged_to, b.middle, b.reach, b.mean, b.spread, b.samples
      INTO v_block_end, v_judged_to, v_middle, v_reach, v_mean, v_spread, v_samples
      FROM _tidemark.beginnings(
               cardinality(p_judged_from), p_first_island, p_first_ts, p_first_value, p_profile, p_step, p_first_shift
           ) AS b;
    SELECT array_agg(f.n), array_agg(ROW(
               f.island, f.ts, f.previous, (f.level - f.deviation)::double precision, f.change::double precision / 1, f.mean / 1,
               f.deviation::double precision / 1, f.scale / 1, f.used, f.z_score, f.is_first,
               CASE WHEN f.is_odd_bar THEN '' END
           )::_tidemark.finding)
      INTO v_places, v_found
      FROM (
        SELECT e.*,
               CASE WHEN e.is_candidate THEN
                   CASE WHEN abs(e.deviation::double precision) < abs(e.change::double precision - e.mean) AND NOT v_is_level
                        THEN e.deviation::double precision ELSE e.change::double precision - e.mean END / e.scale
               END AS z_score
          FROM (
            SELECT c.*,
                   CASE WHEN c.is_early THEN v_mean[c.island] ELSE (c.kept_sum / nullif(c.samples, 0))::double precision END AS mean,
                   CASE WHEN c.is_early THEN greatest(v_spread[c.island], greatest(v_scale_floor, v_tick))
                        ELSE greatest(sqrt(greatest((c.kept_squares - c.kept_sum * c.kept_sum / nullif(c.samples, 0))::double precision, 0) / nullif(c.samples - 1, 0)), sqrt(greatest((c.squares_20 - c.sum_20 * c.sum_20 / nullif(c.samples_20, 0))::double precision, 0) / nullif(c.samples_20 - 1, 0)), greatest(v_scale_floor, v_tick)) END AS scale,
                   CASE WHEN c.is_early THEN v_samples[c.island] ELSE c.samples END AS used
              FROM (
                -- What cannot exceed the threshold, as d does not in units of s, is left behind here.
                SELECT w.*,
                       CASE WHEN w.is_first THEN false
                            WHEN w.samples >= v_min_samples
                            THEN v_is_level OR w.deviation::double precision * w.deviation::double precision * (w.samples - 1)
                                 > 0.99 * v_anomaly_z * v_anomaly_z * (w.kept_squares - w.kept_sum * w.kept_sum / nullif(w.samples, 0))::double precision
                            ELSE w.ts <= v_judged_to[w.island] AND NOT w.is_given END IS TRUE AS is_candidate,
                       w.samples < v_min_samples AS is_early,
                       false AS is_odd_bar
                  FROM (
                    SELECT k.*,
                           sum(k.kept) OVER n_rows AS kept_sum,
                           sum(k.kept_square) OVER n_rows AS kept_squares,
                           count(k.kept) OVER n_rows AS samples,
                           sum(k.kept) OVER twenty_rows AS sum_20,
                           sum(k.kept_square) OVER twenty_rows AS squares_20,
                           count(k.kept) OVER twenty_rows AS samples_20
                      FROM (
                        -- A barrier: without it each window would evaluate what is kept again for each frame.
                        SELECT b.n, b.is_given, b.island, b.ts, b.is_usable, b.previous, b.change, b.level, b.deviation,
                               b.is_marked, b.is_first,
                               CASE WHEN b.is_kept THEN b.change END AS kept,
                               CASE WHEN b.is_kept THEN b.change * b.change END AS kept_square
                          FROM (
                            SELECT a.*,
                                   CASE
                                       WHEN a.base IS NULL THEN false
                                       WHEN a.base_rows < v_min_samples THEN true
                                       ELSE abs(a.change::double precision - (a.base_sum / nullif(a.base_rows, 0))::double precision)
                                            <= 4 * greatest(sqrt(greatest((a.base_squares - a.base_sum * a.base_sum / nullif(a.base_rows, 0))::double precision, 0) / nullif(a.base_rows - 1, 0)), greatest(v_scale_floor, v_tick))
                                   END AS is_kept
                              FROM (
                                SELECT l.*,
                                       sum(l.base) OVER n_rows AS base_sum,
                                       sum(l.base * l.base) OVER n_rows AS base_squares,
                                       count(l.base) OVER n_rows AS base_rows
                                  FROM (
                                    -- The first rows of their sessions are left out of others' baselines, and so is
                                    -- what does not fit among the first changes of a series.
                                    SELECT s.*,
                                           CASE WHEN s.is_first THEN NULL
                                                WHEN s.ts <= v_block_end[s.island]
                                                     AND abs(s.change::double precision - v_middle[s.island])
                                                         > 4 * greatest(v_reach[s.island], greatest(v_scale_floor, v_tick))
                                                THEN NULL
                                                ELSE s.change END AS base
                                      FROM (
                                        SELECT g.*,
                                               CASE WHEN v_market IS NULL OR NOT g.is_usable THEN false
                                                    WHEN g.ts - g.previous_ts > p_step
                                                    THEN _tidemark.opens_between(v_market, g.previous_ts, g.ts)
                                                    ELSE false END AS is_first
                                          FROM (
        SELECT y.n, false AS is_given, y.island, y.ts, y.is_usable,
               y.is_marked OR (
                   lag(y.value) OVER by_time <> 0
                   AND abs(y.value - lag(y.value) OVER by_time) / abs(lag(y.value) OVER by_time)
                       >= v_max_change * 0.999999 -- to be decided exactly, in decimals, for the few that come near
               ) IS TRUE AS is_marked,
               lag(y.value) OVER by_time AS previous,
               lag(y.ts) OVER by_time AS previous_ts,
               CASE WHEN v_is_level THEN y.level ELSE y.level - lag(y.level) OVER by_time END AS change,
               y.level AS level,
               y.level - CASE
                   WHEN lag(y.level, 3) OVER by_time IS NULL THEN lag(y.level, 2) OVER by_time
                   ELSE lag(y.level) OVER by_time + lag(y.level, 2) OVER by_time + lag(y.level, 3) OVER by_time
                        - greatest(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                   lag(y.level, 3) OVER by_time)
                        - least(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                lag(y.level, 3) OVER by_time)
               END AS deviation
          FROM (
            SELECT x.n, x.island, x.ts, x.is_marked, x.is_usable,
                   CASE WHEN x.is_usable THEN x.value END AS value,
                   CASE WHEN x.is_usable THEN x.value::numeric END AS level
              FROM unnest(p_island, p_ts, p_value, p_is_usable, p_is_marked, p_shift) WITH ORDINALITY
                   AS x (island, ts, value, is_usable, is_marked, shift, n)
          ) AS y
        WINDOW by_time AS (PARTITION BY y.island, y.is_usable ORDER BY y.ts)
    ) AS g
                                      ) AS s
                                    OFFSET 0
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
             WHERE c.is_marked OR c.is_candidate OR c.is_first OR c.is_odd_bar
            OFFSET 0
          ) AS e
        OFFSET 0
      ) AS f
     WHERE f.is_marked OR f.is_first OR f.is_odd_bar OR abs(f.z_score) > v_anomaly_z;
    -- What would be flagged, and a bar that may be odd, is looked at once more. After a large move others follow: the
    -- five changes before it count, each by no more than three scales. And where a series moves by ticks and mostly
    -- not at all, its deviation is less than one: nothing is judged by less than the smallest move of the rows before,
    -- once there were three.
    FOR i IN 1 .. coalesce(cardinality(v_found), 0) LOOP
        v_place := v_places[i] - 1;
        CONTINUE WHEN v_place IS NULL
            OR (abs(v_found[i].z_score) > v_anomaly_z OR v_found[i].field IS NOT NULL) IS NOT TRUE;
        IF v_values IS NULL THEN
            v_values := p_value; -- in a form in which an element is found without a look at the others
        END IF;
        v_finding := v_found[i];
        v_is_ticking := true;
        v_least := NULL;
        v_last := NULL;
        v_shift := NULL;
        v_moves := 0;
        v_seen := 0;
        v_changes := 0;
        v_squares := 0;
        WHILE v_place > 0 AND p_island[v_place] = v_finding.island
              AND (v_seen <= 5 OR (v_is_ticking AND v_seen <= 2 * v_rows)) LOOP
            IF p_is_usable[v_place] THEN
                v_value := v_values[v_place];
                v_move := CASE WHEN p_shift[v_place] IS NOT DISTINCT FROM v_shift THEN abs(v_value - v_last) END;
                IF v_move > 0 THEN
                    v_is_ticking := v_is_ticking AND v_move > v_finding.scale * 1; -- else it is judged by more
                    v_least := least(v_least, v_move);
                    v_moves := v_moves + 1;
                END IF;
                IF v_changes < 5 AND (v_seen > 0 OR v_is_level) THEN
                    v_change := (CASE WHEN v_is_level THEN v_value ELSE v_last - v_value END - v_finding.expected) / v_finding.scale;
                    v_squares := v_squares + least(v_change * v_change, 9);
                    v_changes := v_changes + 1;
                END IF;
                v_last := v_value;
                v_shift := p_shift[v_place];
                v_seen := v_seen + 1;
            END IF;
            v_place := v_place - 1;
        END LOOP;
        v_wider := greatest(sqrt(v_squares / nullif(v_changes, 0)),
                            CASE WHEN v_is_ticking AND v_moves >= 3 THEN v_least / 1 / v_finding.scale END);
        IF v_wider > 1 THEN
            v_finding.z_score := v_finding.z_score / v_wider;
            v_finding.scale := v_finding.scale * v_wider;
            v_found[i] := v_finding;
        END IF;
    END LOOP;
    RETURN coalesce(v_found, '{}');
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.detect_logs(p_island integer[], p_ts timestamp with time zone[], p_value double precision[], p_is_usable boolean[], p_is_marked boolean[], p_judged_from timestamp with time zone[], p_profile quality_profiles, p_step interval, p_given _tidemark.finding[], p_first_island integer[], p_first_ts timestamp with time zone[], p_first_value double precision[], p_wick double precision[], p_body double precision[], p_volume double precision[], p_shift bigint[], p_first_shift bigint[])
 RETURNS _tidemark.finding[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SET search_path = pg_catalog, pg_temp

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
    -- Of the series that begin here, one element an island:
    v_block_end timestamptz[];
    v_judged_to timestamptz[];
    v_middle double precision[];
    v_reach double precision[];
    v_mean double precision[];
    v_spread double precision[];
    v_samples integer[];
    v_found _tidemark.finding[];
    -- The place of each finding among the rows, which are in order of island and time:
    v_places bigint[];
    v_finding _tidemark.finding;
    v_place bigint;
    v_values double precision[];
    v_value double precision;
    v_last double precision;
    v_shift bigint;
    v_seen integer;
    v_is_ticking boolean;
    v_least double precision;
    v_move double precision;
    v_moves integer;
    v_change double precision;
    v_changes integer;
    v_squares double precision;
    v_wider double precision;
BEGIN
    SELECT b.block_end, b.judged_to, b.middle, b.reach, b.mean, b.spread, b.samples
      INTO v_block_end, v_judged_to, v_middle, v_reach, v_mean, v_spread, v_samples
      FROM _tidemark.beginnings(
               cardinality(p_judged_from), p_first_island, p_first_ts, p_first_value, p_profile, p_step, p_first_shift
           ) AS b;
    SELECT array_agg(f.n), array_agg(ROW(
               f.island, f.ts, f.previous, exp((f.level - f.deviation)::double precision / 1e7), f.change::double precision / 1e7, f.mean / 1e7,
               f.deviation::double precision / 1e7, f.scale / 1e7, f.used, f.z_score, f.is_first,
               CASE WHEN f.is_odd_bar THEN '' END
           )::_tidemark.finding)
      INTO v_places, v_found
      FROM (
        SELECT e.*,
               CASE WHEN e.is_candidate THEN
                   CASE WHEN abs(e.deviation::double precision) < abs(e.change::double precision - e.mean)
                        THEN e.deviation::double precision ELSE e.change::double precision - e.mean END / e.scale
               END AS z_score
          FROM (
            SELECT c.*,
                   CASE WHEN c.is_early THEN v_mean[c.island] ELSE c.kept_sum::double precision / nullif(c.samples, 0) END AS mean,
                   CASE WHEN c.is_early THEN greatest(v_spread[c.island], 1e7 * greatest(v_scale_floor, v_tick / c.previous))
                        ELSE greatest(sqrt(greatest((c.kept_squares - c.kept_sum::double precision * c.kept_sum / nullif(c.samples, 0)), 0) / nullif(c.samples - 1, 0)), sqrt(greatest((c.squares_20 - c.sum_20::double precision * c.sum_20 / nullif(c.samples_20, 0)), 0) / nullif(c.samples_20 - 1, 0)), 1e7 * greatest(v_scale_floor, v_tick / c.previous)) END AS scale,
                   CASE WHEN c.is_early THEN v_samples[c.island] ELSE c.samples END AS used
              FROM (
                -- What cannot exceed the threshold, as d does not in units of s, is left behind here.
                SELECT w.*,
                       CASE WHEN w.is_first THEN false
                            WHEN w.samples >= v_min_samples
                            THEN w.deviation::double precision * w.deviation::double precision * (w.samples - 1)
                                 > 0.99 * v_anomaly_z * v_anomaly_z * (w.kept_squares - w.kept_sum::double precision * w.kept_sum / nullif(w.samples, 0))
                            ELSE w.ts <= v_judged_to[w.island] AND NOT w.is_given END IS TRUE AS is_candidate,
                       w.samples < v_min_samples AS is_early,
                       CASE
                           WHEN p_wick IS NULL OR w.is_given OR w.is_first OR NOT w.is_usable
                                OR w.samples < v_min_samples OR w.n = 1 THEN false
                           ELSE (p_wick[w.n] > 2 * p_wick[w.n - 1]
                                 AND p_wick[w.n] * p_wick[w.n] * (w.samples - 1)
                                     > 0.356e-14 * v_anomaly_z * v_anomaly_z * (w.kept_squares - w.kept_sum::double precision * w.kept_sum / nullif(w.samples, 0)))
                                OR (p_body[w.n] * (p_body[w.n] + w.change / 1e7) > 0
                                    AND least(p_body[w.n] * p_body[w.n],
                                              (p_body[w.n] + w.change / 1e7) * (p_body[w.n] + w.change / 1e7))
                                        * (w.samples - 1) > 0.247e-14 * v_anomaly_z * v_anomaly_z * (w.kept_squares - w.kept_sum::double precision * w.kept_sum / nullif(w.samples, 0)))
                                OR (p_volume[w.n] >= 0 AND p_volume[w.n - 1] >= 0
                                    AND greatest(1 + p_volume[w.n], 1 + p_volume[w.n - 1])
                                        > 19.9 * least(1 + p_volume[w.n], 1 + p_volume[w.n - 1]))
                                OR NOT p_is_usable[w.n - 1] END AS is_odd_bar
                  FROM (
                    SELECT k.*,
                           _tidemark.moving_sum(k.kept) OVER n_rows AS kept_sum,
                           _tidemark.moving_sum(k.kept_square) OVER n_rows AS kept_squares,
                           count(k.kept) OVER n_rows AS samples,
                           _tidemark.moving_sum(k.kept) OVER twenty_rows AS sum_20,
                           _tidemark.moving_sum(k.kept_square) OVER twenty_rows AS squares_20,
                           count(k.kept) OVER twenty_rows AS samples_20
                      FROM (
                        -- A barrier: without it each window would evaluate what is kept again for each frame.
                        SELECT b.n, b.is_given, b.island, b.ts, b.is_usable, b.previous, b.change, b.level, b.deviation,
                               b.is_marked, b.is_first,
                               CASE WHEN b.is_kept THEN b.change END AS kept,
                               CASE WHEN b.is_kept THEN b.change * b.change END AS kept_square
                          FROM (
                            SELECT a.*,
                                   CASE
                                       WHEN a.base IS NULL THEN false
                                       WHEN a.base_rows < v_min_samples THEN true
                                       ELSE abs(a.change::double precision - a.base_sum::double precision / nullif(a.base_rows, 0))
                                            <= 4 * greatest(sqrt(greatest((a.base_squares - a.base_sum::double precision * a.base_sum / nullif(a.base_rows, 0)), 0) / nullif(a.base_rows - 1, 0)), 1e7 * greatest(v_scale_floor, v_tick / a.previous))
                                   END AS is_kept
                              FROM (
                                SELECT l.*,
                                       _tidemark.moving_sum(l.base) OVER n_rows AS base_sum,
                                       _tidemark.moving_sum(l.base * l.base) OVER n_rows AS base_squares,
                                       count(l.base) OVER n_rows AS base_rows
                                  FROM (
                                    -- The first rows of their sessions are left out of others' baselines, and so is
                                    -- what does not fit among the first changes of a series.
                                    SELECT s.*,
                                           CASE WHEN s.is_first THEN NULL
                                                WHEN s.ts <= v_block_end[s.island]
                                                     AND abs(s.change::double precision - v_middle[s.island])
                                                         > 4 * greatest(v_reach[s.island], 1e7 * greatest(v_scale_floor, v_tick / s.previous))
                                                THEN NULL
                                                ELSE s.change END AS base
                                      FROM (
                                        SELECT g.*,
                                               CASE WHEN v_market IS NULL OR NOT g.is_usable THEN false
                                                    WHEN g.ts - g.previous_ts > p_step
                                                    THEN _tidemark.opens_between(v_market, g.previous_ts, g.ts)
                                                    ELSE false END AS is_first
                                          FROM (
        SELECT y.n, false AS is_given, y.island, y.ts, y.is_usable,
               y.is_marked OR (
                   CASE WHEN p_shift IS NULL THEN lag(y.value) OVER by_time ELSE _tidemark.in_shares_of(lag(y.value) OVER by_time, lag(y.shift) OVER by_time - y.shift) END <> 0
                   AND abs(y.value - CASE WHEN p_shift IS NULL THEN lag(y.value) OVER by_time ELSE _tidemark.in_shares_of(lag(y.value) OVER by_time, lag(y.shift) OVER by_time - y.shift) END) / abs(CASE WHEN p_shift IS NULL THEN lag(y.value) OVER by_time ELSE _tidemark.in_shares_of(lag(y.value) OVER by_time, lag(y.shift) OVER by_time - y.shift) END)
                       >= v_max_change * 0.999999 -- to be decided exactly, in decimals, for the few that come near
               ) IS TRUE AS is_marked,
               CASE WHEN p_shift IS NULL THEN lag(y.value) OVER by_time ELSE _tidemark.in_shares_of(lag(y.value) OVER by_time, lag(y.shift) OVER by_time - y.shift) END AS previous,
               lag(y.ts) OVER by_time AS previous_ts,
               CASE WHEN y.level - lag(y.level) OVER by_time > 90000000 THEN 90000000 WHEN y.level - lag(y.level) OVER by_time < -90000000 THEN -90000000 ELSE y.level - lag(y.level) OVER by_time END AS change,
               y.level - y.shift AS level,
               y.level - CASE
                   WHEN lag(y.level, 3) OVER by_time IS NULL THEN lag(y.level, 2) OVER by_time
                   ELSE lag(y.level) OVER by_time + lag(y.level, 2) OVER by_time + lag(y.level, 3) OVER by_time
                        - greatest(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                   lag(y.level, 3) OVER by_time)
                        - least(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                lag(y.level, 3) OVER by_time)
               END AS deviation
          FROM (
            SELECT x.n, x.island, x.ts, x.is_marked, x.is_usable,
                   CASE WHEN x.is_usable THEN x.value END AS value,
                   CASE WHEN x.is_usable THEN (ln(x.value) * 1e7)::bigint + coalesce(x.shift, 0) END AS level, coalesce(x.shift, 0) AS shift
              FROM unnest(p_island, p_ts, p_value, p_is_usable, p_is_marked, p_shift) WITH ORDINALITY
                   AS x (island, ts, value, is_usable, is_marked, shift, n)
          ) AS y
        WINDOW by_time AS (PARTITION BY y.island, y.is_usable ORDER BY y.ts)
         UNION ALL
        SELECT NULL, true, i.island, i.ts, true, false, i.previous, NULL, (i.observed * 1e7)::bigint,
               (ln(i.reference) * 1e7)::bigint + (i.deviation * 1e7)::bigint, (i.deviation * 1e7)::bigint
          FROM unnest(p_given) AS i
    ) AS g
                                      ) AS s
                                    OFFSET 0
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
             WHERE c.is_marked OR c.is_candidate OR c.is_first OR c.is_odd_bar
            OFFSET 0
          ) AS e
        OFFSET 0
      ) AS f
     WHERE f.is_marked OR f.is_first OR f.is_odd_bar OR abs(f.z_score) > v_anomaly_z;
    -- What would be flagged, and a bar that may be odd, is looked at once more. After a large move others follow: the
    -- five changes before it count, each by no more than three scales. And where a series moves by ticks and mostly
    -- not at all, its deviation is less than one: nothing is judged by less than the smallest move of the rows before,
    -- once there were three.
    FOR i IN 1 .. coalesce(cardinality(v_found), 0) LOOP
        v_place := v_places[i] - 1;
        CONTINUE WHEN v_place IS NULL
            OR (abs(v_found[i].z_score) > v_anomaly_z OR v_found[i].field IS NOT NULL) IS NOT TRUE;
        IF v_values IS NULL THEN
            v_values := p_value; -- in a form in which an element is found without a look at the others
        END IF;
        v_finding := v_found[i];
        v_is_ticking := true;
        v_least := NULL;
        v_last := NULL;
        v_shift := NULL;
        v_moves := 0;
        v_seen := 0;
        v_changes := 0;
        v_squares := 0;
        WHILE v_place > 0 AND p_island[v_place] = v_finding.island
              AND (v_seen <= 5 OR (v_is_ticking AND v_seen <= 2 * v_rows)) LOOP
            IF p_is_usable[v_place] THEN
                v_value := CASE WHEN p_shift IS NULL THEN v_values[v_place] ELSE _tidemark.in_shares_of(v_values[v_place], p_shift[v_place] - p_shift[v_places[i]]) END;
                v_move := CASE WHEN p_shift[v_place] IS NOT DISTINCT FROM v_shift THEN abs(v_value - v_last) END;
                IF v_move > 0 THEN
                    v_is_ticking := v_is_ticking AND v_move > v_finding.scale * v_finding.previous; -- else it is judged by more
                    v_least := least(v_least, v_move);
                    v_moves := v_moves + 1;
                END IF;
                IF v_changes < 5 AND (v_seen > 0 OR v_is_level) THEN
                    v_change := (least(9, greatest(-9, ((ln(v_last) * 1e7)::bigint - (ln(v_value) * 1e7)::bigint) / 1e7)) - v_finding.expected) / v_finding.scale;
                    v_squares := v_squares + least(v_change * v_change, 9);
                    v_changes := v_changes + 1;
                END IF;
                v_last := v_value;
                v_shift := p_shift[v_place];
                v_seen := v_seen + 1;
            END IF;
            v_place := v_place - 1;
        END LOOP;
        v_wider := greatest(sqrt(v_squares / nullif(v_changes, 0)),
                            CASE WHEN v_is_ticking AND v_moves >= 3 THEN v_least / v_finding.previous / v_finding.scale END);
        IF v_wider > 1 THEN
            v_finding.z_score := v_finding.z_score / v_wider;
            v_finding.scale := v_finding.scale * v_wider;
            v_found[i] := v_finding;
        END IF;
    END LOOP;
    RETURN coalesce(v_found, '{}');
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.doubts_timeseries_data(p_target _tidemark.quality_targets, p_ids bigint[], p_series jsonb[])
 RETURNS TABLE(anomaly_id bigint, is_doubtful boolean)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
-- SET search_path = pg_catalog, pg_temp SET plan_cache_mode = 'force_generic_plan'

#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.anomaly_id, s.is_doubtful
      FROM (
        SELECT i.anomaly_id, i.was,
               CASE WHEN i.kind = 'split_candidate' THEN true
                    WHEN i.field = 'volume' THEN abs(i.observed - i.expected) > ln(200::double precision)
                    WHEN i.field IS NOT NULL THEN abs(i.observed) > 0.01
                    WHEN i.transform = 'log_return' AND abs(exp(i.observed) - 1) > i.max_change THEN true
                    WHEN n.row_count < 2 THEN NULL
                    WHEN i.transform = 'log_return'
                    THEN abs(ln(n.first_value) + c.split - ln(i.value) + i.move) <= abs(i.move) / 2
                         OR abs(ln(n.next_value) + c.split - ln(i.value) + i.move) <= abs(i.move) / 5
                    ELSE abs(n.first_value - i.value + i.move) <= abs(i.move) / 2
                         OR abs(n.next_value - i.value + i.move) <= abs(i.move) / 5
               END AS is_doubtful
          FROM (
            SELECT a.anomaly_id, a.series, a.timestamp AS ts, a.value, a.observed, a.expected, a.kind, a.field,
                   coalesce(a.deviation, a.observed) AS move, a.is_doubtful AS was, p.transform, p.asset_id, q.max_change
              FROM unnest(p_series) AS s (series)
             CROSS JOIN LATERAL _tidemark.series_profile(p_target, s.series) AS p
              JOIN public.quality_profiles AS q ON q.quality_profile_id = p.quality_profile_id
              JOIN public.anomalies AS a ON a.series = s.series
             WHERE a.anomaly_id = ANY (p_ids)
            OFFSET 0
          ) AS i
         CROSS JOIN LATERAL (
                   SELECT count(*) AS row_count, min(r.ts) AS next_ts, (array_agg(r.value ORDER BY r.ts))[1] AS next_value,
                          (array_agg(r.first_value ORDER BY r.ts))[1] AS first_value
                     FROM (
                       SELECT d."timestamp" AS ts, coalesce(d.close::double precision, d.value::double precision) AS value,
                              CASE WHEN d.open::double precision < 1e100 AND (d.open::double precision > 1e-100 OR i.transform <> 'log_return')
                                   THEN d.open::double precision ELSE coalesce(d.close::double precision, d.value::double precision) END AS first_value
                         FROM public.timeseries_data AS d
                        WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" > i.ts
                          AND coalesce(d.close::double precision, d.value::double precision) < 1e100
                          AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (i.transform <> 'log_return' AND coalesce(d.close::double precision, d.value::double precision) > -1e100))
                        ORDER BY d."timestamp"
                        LIMIT 2
                     ) AS r
               ) AS n
         -- A split in between is no move, whether the row before it was right or wrong.
         CROSS JOIN LATERAL (
                   SELECT coalesce((SELECT max(s.jump) / 1e7
                                      FROM unnest(ARRAY[0, i.move]) AS wrong (by)
                                     CROSS JOIN LATERAL _tidemark.split_at(
                                               i.asset_id, n.next_ts,
                                               CASE WHEN i.transform = 'log_return'
                                                    THEN ln(n.next_value) - ln(i.value) + wrong.by END
                                           ) AS s), 0) AS split
               ) AS c
      ) AS s
     WHERE s.is_doubtful IS DISTINCT FROM s.was;
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.fields_timeseries_data(p_series jsonb[], p_found _tidemark.finding[], p_profile quality_profiles, p_step interval, p_lowest timestamp with time zone, p_highest timestamp with time zone)
 RETURNS _tidemark.finding[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SET search_path = pg_catalog, pg_temp

#variable_conflict use_column
DECLARE
    v_is_log CONSTANT boolean := true;
BEGIN
    RETURN ARRAY(
        SELECT ROW(f.island, f.ts, f.previous, f.reference, z.observed, z.expected, z.deviation, z.scale, z.samples,
                   z.z_score, false, z.field)::_tidemark.finding
          FROM unnest(p_found) AS f
         CROSS JOIN LATERAL (SELECT p_series[f.island] AS series) AS i
         CROSS JOIN LATERAL (
                   SELECT CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.high::double precision / greatest(d.open, d.close)) END AS upper, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(least(d.open, d.close)::double precision / d.low) END AS lower, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN greatest(abs(ln(d.high::double precision / greatest(d.open, d.close))), abs(ln(least(d.open, d.close)::double precision / d.low))) ELSE 0 END AS wick, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.open::double precision / d.close) ELSE 0 END AS body, CASE WHEN d.volume::double precision >= 0 AND d.volume::double precision < 1e300 THEN d.volume::double precision ELSE -1 END AS volume
                     FROM public.timeseries_data AS d
                    WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" = f.ts AND d."timestamp" BETWEEN p_lowest AND p_highest
               ) AS b
         CROSS JOIN LATERAL (
                   SELECT array_agg(r.upper ORDER BY r.ts DESC) AS uppers, array_agg(r.lower ORDER BY r.ts DESC) AS lowers,
                          array_agg(ln(1 + r.volume) ORDER BY r.ts DESC) FILTER (WHERE r.volume >= 0) AS volumes,
                          (array_agg(r.volume ORDER BY r.ts DESC))[1] AS previous_volume,
                          (array_agg(r.value ORDER BY r.ts DESC))[1] AS previous_value,
                          (array_agg(r.wick ORDER BY r.ts DESC))[1] AS previous_wick, max(r.ts) AS previous_ts,
                          array_agg(greatest(least(r.body, r.body + r.change), 0)
                                    + least(greatest(r.body, r.body + r.change), 0))
                          FILTER (WHERE r.change IS NOT NULL) AS opens
                     FROM (SELECT u.*, ln(u.value / lag(u.value) OVER (ORDER BY u.ts)) AS change
                             FROM (SELECT d."timestamp" AS ts, coalesce(d.close::double precision, d.value::double precision) AS value, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.high::double precision / greatest(d.open, d.close)) END AS upper, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(least(d.open, d.close)::double precision / d.low) END AS lower,
                                          CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN greatest(abs(ln(d.high::double precision / greatest(d.open, d.close))), abs(ln(least(d.open, d.close)::double precision / d.low))) ELSE 0 END AS wick, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.open::double precision / d.close) ELSE 0 END AS body, CASE WHEN d.volume::double precision >= 0 AND d.volume::double precision < 1e300 THEN d.volume::double precision ELSE -1 END AS volume
                                     FROM public.timeseries_data AS d
                                    WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" < f.ts AND CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS (SELECT FROM public.anomalies AS b WHERE b.table_name = 'timeseries_data' AND b.series = jsonb_build_object('source_id', d.source_id) AND b.timestamp = d."timestamp" AND b.status = 'confirmed_error' AND b.field IS NULL AND b.value = coalesce(d.close::double precision, d.value::double precision)) END
                                      AND d."timestamp" >= p_lowest AND d."timestamp" < p_highest
                                    ORDER BY d."timestamp" DESC
                                    LIMIT p_profile.baseline_rows) AS u) AS r
               ) AS n
         -- After a split previous is in the new shares: the volume is put into the old ones.
         CROSS JOIN LATERAL (SELECT b.volume * (f.previous / n.previous_value) AS volume) AS v
         CROSS JOIN LATERAL (SELECT CASE WHEN b.volume >= 0 THEN ln(1 + v.volume) END AS volume,
                                    greatest(least(b.body, b.body + f.observed), 0)
                                    + least(greatest(b.body, b.body + f.observed), 0) AS open) AS x
         CROSS JOIN LATERAL (
                   SELECT 'high' AS field, b.upper AS observed, s.mean AS expected, NULL::double precision AS deviation,
                          greatest(2.125 * s.spread, 0.6 * f.scale) AS scale, s.samples
                     FROM _tidemark.steady(n.uppers) AS s
                    WHERE abs(b.upper) > greatest(2 * n.previous_wick, 0.6 * p_profile.anomaly_z * f.scale)
                      AND s.samples >= p_profile.min_samples
                    UNION ALL
                   SELECT 'low', b.lower, s.mean, NULL, greatest(2.125 * s.spread, 0.6 * f.scale), s.samples
                     FROM _tidemark.steady(n.lowers) AS s
                    WHERE abs(b.lower) > greatest(2 * n.previous_wick, 0.6 * p_profile.anomaly_z * f.scale)
                      AND s.samples >= p_profile.min_samples
                    UNION ALL
                   SELECT 'open', x.open, s.mean, NULL, greatest(s.spread, f.scale / 2), s.samples
                     FROM _tidemark.steady(n.opens) AS s
                    WHERE abs(x.open) > p_profile.anomaly_z * f.scale / 2 AND s.samples >= p_profile.min_samples - 1
                      AND (p_step = interval '0' OR p_step >= interval '1 day' OR f.ts - n.previous_ts <= 2 * p_step)
                    UNION ALL
                   SELECT 'volume', x.volume, s.mean,
                          x.volume - CASE WHEN n.volumes[3] IS NULL THEN n.volumes[1]
                                          ELSE n.volumes[1] + n.volumes[2] + n.volumes[3]
                                               - greatest(n.volumes[1], n.volumes[2], n.volumes[3])
                                               - least(n.volumes[1], n.volumes[2], n.volumes[3]) END,
                          greatest(s.spread, 0.1), s.samples
                     FROM _tidemark.steady(n.volumes) AS s
                    WHERE b.volume >= 0 AND n.previous_volume >= 0 AND s.samples >= p_profile.min_samples
                      AND greatest(1 + v.volume, 1 + n.previous_volume) > 20 * least(1 + v.volume, 1 + n.previous_volume)
               ) AS c
         CROSS JOIN LATERAL (
                   SELECT c.field, c.observed, c.expected, c.deviation, c.scale, c.samples::integer AS samples,
                          CASE WHEN abs(c.deviation) < abs(c.observed - c.expected) THEN c.deviation
                               ELSE c.observed - c.expected END / c.scale AS z_score
               ) AS z
         WHERE f.field = '' AND abs(z.z_score) > p_profile.anomaly_z
    );
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.forget_timeseries_data()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN PERFORM _tidemark.forget_rows('timeseries_data', ARRAY[jsonb_build_object('source_id', OLD.source_id)], ARRAY[OLD."timestamp"]); RETURN NULL; END$function$;

CREATE OR REPLACE FUNCTION _tidemark.nights_timeseries_data(p_series jsonb[], p_from timestamp with time zone[], p_found _tidemark.finding[], p_profile quality_profiles, p_step interval)
 RETURNS _tidemark.finding[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SET search_path = pg_catalog, pg_temp

#variable_conflict use_column
DECLARE
    v_is_log CONSTANT boolean := true;
    v_last_start CONSTANT timestamptz := (SELECT max(f) FROM unnest(p_from) AS f WHERE f < 'infinity');
    v_nights _tidemark.finding[];
BEGIN
    SELECT array_agg(f) INTO v_nights FROM unnest(p_found) AS f WHERE f.is_first;
    RETURN v_nights || ARRAY(
        SELECT ROW(
                   i.n, b.ts, b.previous, NULL,
                   greatest(-90000000, least(90000000, (ln(b.value) * 1e7)::bigint - (ln(b.previous) * 1e7)::bigint))
                   / 1e7,
                   NULL, NULL, NULL, NULL, NULL, NULL, NULL
               )::_tidemark.finding
          FROM unnest(p_series, p_from) WITH ORDINALITY AS i (series, judged_from, n)
         CROSS JOIN LATERAL (
                   SELECT n.ts, n.value, o.previous
                     FROM public.market_calendar AS c
                    CROSS JOIN LATERAL (
                              SELECT d."timestamp" AS ts, coalesce(d.close::double precision, d.value::double precision) AS value
                                FROM public.timeseries_data AS d
                               WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" >= c.opens_at AND d."timestamp" < i.judged_from AND CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS (SELECT FROM public.anomalies AS b WHERE b.table_name = 'timeseries_data' AND b.series = jsonb_build_object('source_id', d.source_id) AND b.timestamp = d."timestamp" AND b.status = 'confirmed_error' AND b.field IS NULL AND b.value = coalesce(d.close::double precision, d.value::double precision)) END
                                 AND d."timestamp" < v_last_start
                               ORDER BY d."timestamp"
                               LIMIT 1
                          ) AS n
                    CROSS JOIN LATERAL (
                              SELECT d."timestamp" AS ts, coalesce(d.close::double precision, d.value::double precision) AS previous
                                FROM public.timeseries_data AS d
                               WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" < n.ts AND CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS (SELECT FROM public.anomalies AS b WHERE b.table_name = 'timeseries_data' AND b.series = jsonb_build_object('source_id', d.source_id) AND b.timestamp = d."timestamp" AND b.status = 'confirmed_error' AND b.field IS NULL AND b.value = coalesce(d.close::double precision, d.value::double precision)) END AND d."timestamp" < v_last_start
                               ORDER BY d."timestamp" DESC
                               LIMIT 1
                          ) AS o
                    WHERE c.market = p_profile.market
                      AND c.date <= (i.judged_from AT TIME ZONE 'UTC')::date + 1
                      AND c.opens_at < i.judged_from
                      AND o.ts < c.opens_at
                      AND n.ts - o.ts > p_step
                      AND NOT EXISTS (
                          SELECT FROM public.market_calendar AS l
                           WHERE l.market = p_profile.market AND l.date > c.date
                             AND l.date <= (n.ts AT TIME ZONE 'UTC')::date + 1
                             AND l.opens_at <= n.ts
                      )
                    ORDER BY c.date DESC
                    LIMIT 2 * p_profile.baseline_rows + 3
               ) AS b
         WHERE i.n IN (SELECT f.island FROM unnest(v_nights) AS f)
    );
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.read_timeseries_data(p_series jsonb[], p_from timestamp with time zone[], p_to timestamp with time zone[], p_late_before timestamp with time zone[], p_future_after timestamp with time zone, p_profile quality_profiles, p_step interval, p_followers boolean, p_every boolean, p_most integer, OUT island integer[], OUT ts timestamp with time zone[], OUT value double precision[], OUT is_usable boolean[], OUT is_marked boolean[], OUT lowest timestamp with time zone, OUT highest timestamp with time zone, OUT judged_from timestamp with time zone[], OUT first_island integer[], OUT first_ts timestamp with time zone[], OUT first_value double precision[], OUT wick double precision[], OUT body double precision[], OUT volume double precision[])
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SET search_path = pg_catalog, pg_temp

#variable_conflict use_column
DECLARE
    v_is_log CONSTANT boolean := p_profile.transform = 'log_return';
    v_market CONSTANT text := p_profile.market;
    v_required CONSTANT text[] := p_profile.required_fields;
    v_transform CONSTANT public.change_transform := p_profile.transform;
    v_first CONSTANT integer := 2 * p_profile.min_samples + 2; -- rows with which a series begins: see beginnings()
    v_back CONSTANT integer := 2 * p_profile.baseline_rows + greatest(24, v_first + 2); -- that the score of one depends on
    -- Bounds of all islands: the planner leaves out chunks by what it knows to be constant.
    v_last_start CONSTANT timestamptz := (SELECT max(f) FROM unnest(p_from) AS f WHERE f < 'infinity');
    v_first_end CONSTANT timestamptz := (
        SELECT min(i.ends_at) FROM unnest(p_from, p_to) AS i (starts_at, ends_at) WHERE i.starts_at < 'infinity'
    );
    v_back_to CONSTANT timestamptz := (SELECT min(f) FROM unnest(p_from) AS f)
        - CASE p_step WHEN interval '0' THEN '30 days'::interval
          ELSE 6 * (2 * p_profile.baseline_rows + 3) * p_step + interval '4 days' END;
    v_start timestamptz[];
    v_end timestamptz[];
    v_short integer[];
    v_count bigint[];
    v_island record;
BEGIN
    -- Where the baselines begin, and up to where the judged rows are part of others' baselines. First only as far back
    -- as should suffice, so that few chunks are looked at; then without that bound for whom it did not.
    SELECT array_agg(coalesce(b.starts_at, i.starts_at) ORDER BY i.n),
           array_agg(greatest(i.ends_at, f.ends_at) ORDER BY i.n),
           array_agg(i.n ORDER BY i.n) FILTER (WHERE b.row_count < v_back),
           array_agg(b.row_count ORDER BY i.n)
      INTO v_start, v_end, v_short, v_count
      FROM unnest(p_series, p_from, p_to) WITH ORDINALITY AS i (series, starts_at, ends_at, n)
     CROSS JOIN LATERAL (
               SELECT min(t.ts) AS starts_at, count(*) AS row_count
                 FROM (SELECT d."timestamp" AS ts
                         FROM public.timeseries_data AS d
                        WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" < i.starts_at AND (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100))))
                          AND d."timestamp" >= v_back_to AND d."timestamp" < v_last_start
                        ORDER BY d."timestamp" DESC
                        LIMIT v_back) AS t
           ) AS b
     CROSS JOIN LATERAL (
               -- Where there are no more, up to the last row: what follows may hold values that are no reference.
               SELECT CASE WHEN count(*) = v_back THEN max(t.ts) WHEN p_followers THEN 'infinity' END AS ends_at
                 FROM (SELECT d."timestamp" AS ts
                         FROM public.timeseries_data AS d
                        WHERE p_followers AND d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" > i.ends_at AND (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100))))
                          AND d."timestamp" > v_first_end
                        ORDER BY d."timestamp"
                        LIMIT v_back) AS t
           ) AS f;
    FOR v_island IN
        SELECT i.n, b.starts_at, b.row_count
          FROM unnest(p_series, p_from) WITH ORDINALITY AS i (series, starts_at, n)
         CROSS JOIN LATERAL (
                   SELECT min(t.ts) AS starts_at, count(*) AS row_count
                     FROM (SELECT d."timestamp" AS ts
                             FROM public.timeseries_data AS d
                            WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" < i.starts_at AND (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) AND d."timestamp" < v_last_start
                            ORDER BY d."timestamp" DESC
                            LIMIT v_back) AS t
               ) AS b
         WHERE i.n = ANY (v_short)
           AND i.starts_at < 'infinity'
           AND b.starts_at IS NOT NULL
    LOOP
        v_start[v_island.n] := v_island.starts_at;
        v_count[v_island.n] := v_island.row_count;
    END LOOP;
    -- The first rows of a series are judged together, again whenever one of them changes.
    SELECT array_agg(CASE WHEN i.row_count < v_first AND i.judged_from < 'infinity' THEN i.starts_at
                          ELSE i.judged_from END ORDER BY i.n)
      INTO judged_from
      FROM unnest(p_from, v_start, v_count) WITH ORDINALITY AS i (judged_from, starts_at, row_count, n);
    SELECT min(i.starts_at), max(i.ends_at) INTO lowest, highest
      FROM unnest(v_start, v_end, p_from) AS i (starts_at, ends_at, judged_from)
     WHERE i.judged_from < 'infinity';
    SELECT array_agg(f.island), array_agg(f.ts), array_agg(f.value)
      INTO first_island, first_ts, first_value
      FROM (
        SELECT i.n::integer AS island, d.ts, d.value
          FROM unnest(p_series, judged_from, v_start, v_count) WITH ORDINALITY
               AS i (series, judged_from, starts_at, row_count, n)
         CROSS JOIN LATERAL (
                   SELECT d."timestamp" AS ts, coalesce(d.close::double precision, d.value::double precision) AS value
                     FROM public.timeseries_data AS d
                    WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" >= i.starts_at AND d."timestamp" >= lowest AND d."timestamp" <= highest
                      AND CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS (SELECT FROM public.anomalies AS b WHERE b.table_name = 'timeseries_data' AND b.series = jsonb_build_object('source_id', d.source_id) AND b.timestamp = d."timestamp" AND b.status = 'confirmed_error' AND b.field IS NULL AND b.value = coalesce(d.close::double precision, d.value::double precision)) END
                    ORDER BY d."timestamp"
                    LIMIT v_first
               ) AS d
         WHERE i.row_count < v_back AND i.judged_from < 'infinity'
      ) AS f;
    IF p_every THEN
    SELECT array_agg(r.island), array_agg(r.ts), array_agg(r.value), array_agg(r.is_usable),
           array_agg(r.is_marked), array_agg(r.wick), array_agg(r.body), array_agg(r.volume)
      INTO island, ts, value, is_usable, is_marked, wick, body, volume
      FROM (
        SELECT i.n::integer AS island, d.ts, d.value, d.is_usable, d.is_marked, d.wick, d.body, d.volume
          FROM unnest(p_series, judged_from, p_late_before, v_start, v_end) WITH ORDINALITY
               AS i (series, judged_from, late_before, starts_at, ends_at, n)
         CROSS JOIN LATERAL (
                   SELECT d."timestamp" AS ts, coalesce(d.close::double precision, d.value::double precision) AS value, CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS (SELECT FROM public.anomalies AS b WHERE b.table_name = 'timeseries_data' AND b.series = jsonb_build_object('source_id', d.source_id) AND b.timestamp = d."timestamp" AND b.status = 'confirmed_error' AND b.field IS NULL AND b.value = coalesce(d.close::double precision, d.value::double precision)) END AS is_usable,
                          d."timestamp" >= i.judged_from AND (true) AS is_marked,
                          CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN greatest(abs(ln(d.high::double precision / greatest(d.open, d.close))), abs(ln(least(d.open, d.close)::double precision / d.low))) ELSE 0 END AS wick, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.open::double precision / d.close) ELSE 0 END AS body, CASE WHEN d.volume::double precision >= 0 AND d.volume::double precision < 1e300 THEN d.volume::double precision ELSE -1 END AS volume
                     FROM public.timeseries_data AS d
                    CROSS JOIN (SELECT v_market AS market, p_step AS step, v_transform AS transform,
                                       v_required AS required_fields) AS p
                    WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" >= i.starts_at AND d."timestamp" <= i.ends_at
                      AND d."timestamp" >= lowest AND d."timestamp" <= highest
                    ORDER BY d."timestamp"
               ) AS d
         WHERE i.judged_from < 'infinity'
         LIMIT p_most
      ) AS r;
    ELSE
    SELECT array_agg(r.island), array_agg(r.ts), array_agg(r.value), array_agg(r.is_usable),
           array_agg(r.is_marked), array_agg(r.wick), array_agg(r.body), array_agg(r.volume)
      INTO island, ts, value, is_usable, is_marked, wick, body, volume
      FROM (
        SELECT i.n::integer AS island, d.ts, d.value, d.is_usable, d.is_marked, d.wick, d.body, d.volume
          FROM unnest(p_series, judged_from, p_late_before, v_start, v_end) WITH ORDINALITY
               AS i (series, judged_from, late_before, starts_at, ends_at, n)
         CROSS JOIN LATERAL (
                   SELECT d."timestamp" AS ts, coalesce(d.close::double precision, d.value::double precision) AS value, CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS (SELECT FROM public.anomalies AS b WHERE b.table_name = 'timeseries_data' AND b.series = jsonb_build_object('source_id', d.source_id) AND b.timestamp = d."timestamp" AND b.status = 'confirmed_error' AND b.field IS NULL AND b.value = coalesce(d.close::double precision, d.value::double precision)) END AS is_usable,
                          d."timestamp" >= i.judged_from AND (
                              d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false
                              OR d."timestamp" < i.late_before OR d."timestamp" > p_future_after
                              OR (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND (coalesce(d.close::double precision, d.value::double precision) > 1e-100 OR (NOT v_is_log AND coalesce(d.close::double precision, d.value::double precision) > -1e100 AND (coalesce(d.close::double precision, d.value::double precision) = 0 OR coalesce(d.close::double precision, d.value::double precision) < -1e-100)))) IS FALSE
                              OR (d.value IS NULL AND 'value' = ANY (p.required_fields))
    OR (d.open IS NULL AND 'open' = ANY (p.required_fields))
    OR (d.high IS NULL AND 'high' = ANY (p.required_fields))
    OR (d.low IS NULL AND 'low' = ANY (p.required_fields))
    OR (d.close IS NULL AND 'close' = ANY (p.required_fields))
    OR (d.volume IS NULL AND 'volume' = ANY (p.required_fields))
    OR (d.metadata IS NULL AND 'metadata' = ANY (p.required_fields))
                              OR (p.transform = 'log_return' AND (d.open > '0'::double precision AND d.open < '1e100'::double precision AND d.high > '0'::double precision AND d.high < '1e100'::double precision AND d.low > '0'::double precision AND d.low < '1e100'::double precision AND d.close > '0'::double precision AND d.close < '1e100'::double precision) IS FALSE)
    OR (NOT (d.low > d.open OR d.low > d.close OR d.open > d.high OR d.close > d.high OR d.low > d.high)) IS FALSE
    OR (d.volume >= '0'::double precision AND d.volume < 'Infinity'::double precision) IS FALSE
    OR (date_bin(_tidemark.grid(p.step), d."timestamp", '2000-01-03 00:00+00') = d."timestamp") IS FALSE
    OR (CASE WHEN p.market IS NULL THEN NULL WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market
                   AND c.date BETWEEN (d."timestamp" AT TIME ZONE 'UTC')::date - 2
                       AND (d."timestamp" AT TIME ZONE 'UTC' + p.step)::date + 2
                   AND c.opens_at
                       < (d."timestamp" AT TIME ZONE 'UTC' + greatest(p.step, interval '1 microsecond')) AT TIME ZONE 'UTC'
                   AND (c.closes_at > d."timestamp"
                        OR (c.closes_at = d."timestamp" AND (p.step = interval '0' OR p.step >= interval '1 day')))
                   AND (c.break_starts_at <= d."timestamp" AND c.break_ends_at > d."timestamp"
                        AND c.break_ends_at >= (d."timestamp" AT TIME ZONE 'UTC' + p.step) AT TIME ZONE 'UTC') IS NOT TRUE
            ) THEN true WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date >= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) AND EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date <= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) THEN false END) IS FALSE
                          ) AS is_marked,
                          CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN greatest(abs(ln(d.high::double precision / greatest(d.open, d.close))), abs(ln(least(d.open, d.close)::double precision / d.low))) ELSE 0 END AS wick, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.open::double precision / d.close) ELSE 0 END AS body, CASE WHEN d.volume::double precision >= 0 AND d.volume::double precision < 1e300 THEN d.volume::double precision ELSE -1 END AS volume
                     FROM public.timeseries_data AS d
                    CROSS JOIN (SELECT v_market AS market, p_step AS step, v_transform AS transform,
                                       v_required AS required_fields) AS p
                    WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" >= i.starts_at AND d."timestamp" <= i.ends_at
                      AND d."timestamp" >= lowest AND d."timestamp" <= highest
                    ORDER BY d."timestamp"
               ) AS d
         WHERE i.judged_from < 'infinity'
         LIMIT p_most
      ) AS r;
    END IF;
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.rescore_updated_timeseries_data()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET "TimeZone" TO 'UTC'
 SET jit TO 'off'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
-- SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = 'force_generic_plan'

#variable_conflict use_column
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp(); -- one clock for all rows of the statement
    v_is_live CONSTANT boolean := coalesce(current_setting('tidemark.ingest_mode', true), '')
        NOT IN ('backfill', 'correction', 'replay');
    v_is_safe boolean := false; -- a rule failed to evaluate: the judge is to look at each on its own
    v_rows refcursor;
    v_row_count bigint := 0;
    v_series jsonb[];
    v_from timestamptz[];
    v_to timestamptz[];
    v_late_before timestamptz[];
    v_compressed tstzrange[];
    -- Where updated rows have been:
    v_left jsonb[];
    v_left_ts timestamptz[];
BEGIN
    -- Bars that looked like an anomaly while they formed, and have closed: by the clock, or by what came now.
    IF EXISTS (SELECT FROM _tidemark.waiting_bars AS w WHERE w.hypertable = 'public.timeseries_data'::regclass) THEN
        PERFORM _tidemark.judge_closed('public.timeseries_data'::regclass, array_agg(i.series), array_agg(i.ts))
           FROM _tidemark.waiting_bars AS i
          WHERE i.hypertable = 'public.timeseries_data'::regclass
            AND ((v_is_live AND i.closes_at <= v_now)
                 -- The newest of each series by its text: not all rows again for each bar that waits.
                 OR i.ts < ((SELECT jsonb_object_agg(n.series, n.newest_at)
                               FROM (SELECT jsonb_build_object('source_id', d.source_id)::text AS series, max(d."timestamp") AS newest_at
                                       FROM new_rows AS d
                                      GROUP BY d.source_id) AS n) ->> i.series::text)::timestamptz)
         HAVING count(*) > 0;
    END IF;
    IF NOT EXISTS (SELECT FROM new_rows) THEN -- as of an upsert that found all its rows there
        RETURN NULL;
    END IF;
    IF true AND current_setting('transaction_isolation') = 'read committed' THEN

        OPEN v_rows NO SCROLL FOR
            SELECT i.series, d."timestamp" AS ts, CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND coalesce(d.close::double precision, d.value::double precision) > 1e-100) THEN coalesce(d.close::double precision, d.value::double precision) END AS value,
                   d.tidemark_row_count AS row_count, m.place, m.memory, m.profile,
                   (d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false
                    OR (d.value IS NULL AND 'value' = ANY (p.required_fields))
    OR (d.open IS NULL AND 'open' = ANY (p.required_fields))
    OR (d.high IS NULL AND 'high' = ANY (p.required_fields))
    OR (d.low IS NULL AND 'low' = ANY (p.required_fields))
    OR (d.close IS NULL AND 'close' = ANY (p.required_fields))
    OR (d.volume IS NULL AND 'volume' = ANY (p.required_fields))
    OR (d.metadata IS NULL AND 'metadata' = ANY (p.required_fields))
                    OR (p.transform = 'log_return' AND (d.open > '0'::double precision AND d.open < '1e100'::double precision AND d.high > '0'::double precision AND d.high < '1e100'::double precision AND d.low > '0'::double precision AND d.low < '1e100'::double precision AND d.close > '0'::double precision AND d.close < '1e100'::double precision) IS FALSE)
    OR (NOT (d.low > d.open OR d.low > d.close OR d.open > d.high OR d.close > d.high OR d.low > d.high)) IS FALSE
    OR (d.volume >= '0'::double precision AND d.volume < 'Infinity'::double precision) IS FALSE
    OR (date_bin(_tidemark.grid(p.step), d."timestamp", '2000-01-03 00:00+00') = d."timestamp") IS FALSE
    OR (CASE WHEN p.market IS NULL THEN NULL WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market
                   AND c.date BETWEEN (d."timestamp" AT TIME ZONE 'UTC')::date - 2
                       AND (d."timestamp" AT TIME ZONE 'UTC' + p.step)::date + 2
                   AND c.opens_at
                       < (d."timestamp" AT TIME ZONE 'UTC' + greatest(p.step, interval '1 microsecond')) AT TIME ZONE 'UTC'
                   AND (c.closes_at > d."timestamp"
                        OR (c.closes_at = d."timestamp" AND (p.step = interval '0' OR p.step >= interval '1 day')))
                   AND (c.break_starts_at <= d."timestamp" AND c.break_ends_at > d."timestamp"
                        AND c.break_ends_at >= (d."timestamp" AT TIME ZONE 'UTC' + p.step) AT TIME ZONE 'UTC') IS NOT TRUE
            ) THEN true WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date >= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) AND EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date <= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) THEN false END) IS FALSE) IS TRUE AS is_suspect,
                   (SELECT coalesce(sum(l.weight), 0)::bigint FROM _tidemark.memory_lapses AS l
                     WHERE l.hypertable = 'public.timeseries_data'::regclass AND l.series IS NULL) AS lapses,
                   EXISTS (SELECT FROM _tidemark.memory_lapses AS l
                            WHERE l.hypertable = 'public.timeseries_data'::regclass AND l.series IS NOT NULL) AS has_own_lapses,
                   (SELECT _tidemark.chunks_of('public.timeseries_data'::regclass)) AS chunks,
                   CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN greatest(abs(ln(d.high::double precision / greatest(d.open, d.close))), abs(ln(least(d.open, d.close)::double precision / d.low))) ELSE 0 END AS wick, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.open::double precision / d.close) ELSE 0 END AS body, CASE WHEN d.volume::double precision >= 0 AND d.volume::double precision < 1e300 THEN d.volume::double precision ELSE -1 END AS volume
              FROM (SELECT d.*, count(*) OVER (PARTITION BY d.source_id) AS tidemark_row_count
                      FROM new_rows AS d
                     WHERE (SELECT count(*) <= 5000 FROM (SELECT FROM new_rows LIMIT 5001) AS c)) AS d
             CROSS JOIN LATERAL (SELECT jsonb_build_object('source_id', d.source_id) AS series OFFSET 0) AS i
              LEFT JOIN LATERAL (
                       SELECT o.ctid AS place, o AS memory, q AS profile, o.market, o.step, q.required_fields,
                              _tidemark.allowed_lag(q.allowed_lag, o.step) AS lag,
                              q.allowed_lag IS NOT NULL OR o.is_live AS is_live
                         FROM _tidemark.series_memory AS o
                         JOIN public.quality_profiles AS q ON q.quality_profile_id = o.quality_profile_id
                        WHERE o.hypertable = 'public.timeseries_data'::regclass
                          AND o.series = i.series
                          FOR NO KEY UPDATE OF o SKIP LOCKED
                   ) AS m ON true
             CROSS JOIN LATERAL (SELECT m.market, m.step, m.required_fields, m.lag, m.is_live,
                                        'log_return'::public.change_transform AS transform) AS p;
        SELECT r.row_count, r.series, r.ts, r.ts INTO v_row_count, v_series, v_from, v_to
          FROM _tidemark.recall('public.timeseries_data'::regclass, v_rows, false, v_is_live, v_now) AS r;
        -- What these rows say of the anomalies right before them.
        IF v_row_count > 0 AND EXISTS (
            SELECT FROM public.anomalies AS a WHERE a.table_name = 'timeseries_data' AND a.is_doubtful IS NULL
        ) THEN
            PERFORM _tidemark.decide_doubtful(
                        'public.timeseries_data'::regclass, array_agg(i.series), array_agg(i.ts), array_agg(i.ts)
                    )
               FROM (SELECT jsonb_build_object('source_id', d.source_id) AS series, min(d."timestamp") AS ts FROM new_rows AS d GROUP BY 1) AS i
              WHERE EXISTS (SELECT FROM public.anomalies AS a
                             WHERE a.table_name = 'timeseries_data' AND a.series = i.series AND a.is_doubtful IS NULL)
             HAVING count(*) > 0;
        END IF;
        IF v_row_count > 0 AND v_series IS NULL THEN
            RETURN NULL;
        END IF;

    END IF;
    IF v_row_count = 0 THEN
        SELECT array_agg(jsonb_build_object('source_id', k1)), array_agg(g.starts_at), array_agg(g.ends_at)
          INTO v_series, v_from, v_to
          FROM (
            SELECT d.source_id AS k1, min(d."timestamp") AS starts_at, max(d."timestamp") AS ends_at,
                   date_bin('30 days', d."timestamp", '2000-01-03 00:00+00') AS bucket
              FROM new_rows AS d
             GROUP BY k1, bucket
          ) AS g;
        IF v_series IS NULL THEN
            RETURN NULL;
        END IF;
        PERFORM _tidemark.forget_series('public.timeseries_data'::regclass, v_series, v_to);
    END IF;

    -- Rows that moved to another key took nothing with them.
    SELECT array_agg(jsonb_build_object('source_id', o.source_id)), array_agg(o."timestamp") INTO v_left, v_left_ts
      -- No join: one that was planned for a single row would pair all of a large statement.
      FROM (SELECT d.source_id, d."timestamp" FROM old_rows AS d
            EXCEPT
            SELECT d.source_id, d."timestamp" FROM new_rows AS d) AS o;
    IF v_left IS NOT NULL THEN
        PERFORM _tidemark.forget_series('public.timeseries_data'::regclass, v_left, v_left_ts);
        PERFORM _tidemark.forget_rows('timeseries_data', v_left, v_left_ts);
    END IF;
    SELECT i.series, i.starts, i.ends INTO v_series, v_from, v_to
      FROM _tidemark.merge_periods(
               v_series || v_left, v_from || v_left_ts, v_to || v_left_ts, 5 * '30 days'::interval
           ) AS i;
    PERFORM _tidemark.judge(
        'public.timeseries_data'::regclass, v_series, v_from, v_to, NULL, 'infinity', true, v_is_safe
    );
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.rows_timeseries_data(p_series jsonb[], p_ts timestamp with time zone[], p_profile quality_profiles, p_step interval, p_is_safe boolean)
 RETURNS SETOF _tidemark.judged_row
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SET search_path = pg_catalog, pg_temp

DECLARE
    v_market CONSTANT text := p_profile.market;
    v_required CONSTANT text[] := p_profile.required_fields;
    v_transform CONSTANT public.change_transform := p_profile.transform;
    v_lowest CONSTANT timestamptz := (SELECT min(t) FROM unnest(p_ts) AS t);
    v_highest CONSTANT timestamptz := (SELECT max(t) FROM unnest(p_ts) AS t);
BEGIN
    IF p_is_safe THEN
    RETURN QUERY
    SELECT i.n, d.value, d.first_value, d.quality_score, d.is_anomaly, d.missing, d.broken, d.highest, d.lowest,
           d.volume
      FROM unnest(p_series, p_ts) WITH ORDINALITY AS i (series, ts, n)
     CROSS JOIN LATERAL (
               SELECT coalesce(d.close::double precision, d.value::double precision) AS value, d.open::double precision AS first_value, d.quality_score, d.is_anomaly,
                      array_remove(ARRAY[CASE WHEN d.value IS NULL AND 'value' = ANY (p.required_fields) THEN 'value' END,
    CASE WHEN d.open IS NULL AND 'open' = ANY (p.required_fields) THEN 'open' END,
    CASE WHEN d.high IS NULL AND 'high' = ANY (p.required_fields) THEN 'high' END,
    CASE WHEN d.low IS NULL AND 'low' = ANY (p.required_fields) THEN 'low' END,
    CASE WHEN d.close IS NULL AND 'close' = ANY (p.required_fields) THEN 'close' END,
    CASE WHEN d.volume IS NULL AND 'volume' = ANY (p.required_fields) THEN 'volume' END,
    CASE WHEN d.metadata IS NULL AND 'metadata' = ANY (p.required_fields) THEN 'metadata' END]::text[], NULL) AS missing,
                      _tidemark.try_rules_timeseries_data(to_jsonb(d), p.market, p.step, p.transform) AS broken, d.high::double precision AS highest, d.low::double precision AS lowest, d.volume::double precision AS volume
                 FROM public.timeseries_data AS d
                CROSS JOIN (SELECT v_market AS market, p_step AS step, v_transform AS transform,
                                   v_required AS required_fields) AS p
                WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" = i.ts AND d."timestamp" BETWEEN v_lowest AND v_highest
           ) AS d;
    ELSE
    RETURN QUERY
    SELECT i.n, d.value, d.first_value, d.quality_score, d.is_anomaly, d.missing, d.broken, d.highest, d.lowest,
           d.volume
      FROM unnest(p_series, p_ts) WITH ORDINALITY AS i (series, ts, n)
     CROSS JOIN LATERAL (
               SELECT coalesce(d.close::double precision, d.value::double precision) AS value, d.open::double precision AS first_value, d.quality_score, d.is_anomaly,
                      array_remove(ARRAY[CASE WHEN d.value IS NULL AND 'value' = ANY (p.required_fields) THEN 'value' END,
    CASE WHEN d.open IS NULL AND 'open' = ANY (p.required_fields) THEN 'open' END,
    CASE WHEN d.high IS NULL AND 'high' = ANY (p.required_fields) THEN 'high' END,
    CASE WHEN d.low IS NULL AND 'low' = ANY (p.required_fields) THEN 'low' END,
    CASE WHEN d.close IS NULL AND 'close' = ANY (p.required_fields) THEN 'close' END,
    CASE WHEN d.volume IS NULL AND 'volume' = ANY (p.required_fields) THEN 'volume' END,
    CASE WHEN d.metadata IS NULL AND 'metadata' = ANY (p.required_fields) THEN 'metadata' END]::text[], NULL) AS missing,
                      array_remove(ARRAY[CASE WHEN (p.transform = 'log_return' AND (d.open > '0'::double precision AND d.open < '1e100'::double precision AND d.high > '0'::double precision AND d.high < '1e100'::double precision AND d.low > '0'::double precision AND d.low < '1e100'::double precision AND d.close > '0'::double precision AND d.close < '1e100'::double precision) IS FALSE) THEN 1 END,
    CASE WHEN (NOT (d.low > d.open OR d.low > d.close OR d.open > d.high OR d.close > d.high OR d.low > d.high)) IS FALSE THEN 2 END,
    CASE WHEN (d.volume >= '0'::double precision AND d.volume < 'Infinity'::double precision) IS FALSE THEN 3 END,
    CASE WHEN (date_bin(_tidemark.grid(p.step), d."timestamp", '2000-01-03 00:00+00') = d."timestamp") IS FALSE THEN 5 END,
    CASE WHEN (CASE WHEN p.market IS NULL THEN NULL WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market
                   AND c.date BETWEEN (d."timestamp" AT TIME ZONE 'UTC')::date - 2
                       AND (d."timestamp" AT TIME ZONE 'UTC' + p.step)::date + 2
                   AND c.opens_at
                       < (d."timestamp" AT TIME ZONE 'UTC' + greatest(p.step, interval '1 microsecond')) AT TIME ZONE 'UTC'
                   AND (c.closes_at > d."timestamp"
                        OR (c.closes_at = d."timestamp" AND (p.step = interval '0' OR p.step >= interval '1 day')))
                   AND (c.break_starts_at <= d."timestamp" AND c.break_ends_at > d."timestamp"
                        AND c.break_ends_at >= (d."timestamp" AT TIME ZONE 'UTC' + p.step) AT TIME ZONE 'UTC') IS NOT TRUE
            ) THEN true WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date >= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) AND EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date <= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) THEN false END) IS FALSE THEN 6 END]::integer[], NULL) AS broken, d.high::double precision AS highest, d.low::double precision AS lowest, d.volume::double precision AS volume
                 FROM public.timeseries_data AS d
                CROSS JOIN (SELECT v_market AS market, p_step AS step, v_transform AS transform,
                                   v_required AS required_fields) AS p
                WHERE d.source_id = (i.series ->> 'source_id')::integer AND d."timestamp" = i.ts AND d."timestamp" BETWEEN v_lowest AND v_highest
           ) AS d;
    END IF;
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.score_timeseries_data()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET "TimeZone" TO 'UTC'
 SET jit TO 'off'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
-- SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = 'force_generic_plan'

#variable_conflict use_column
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp(); -- one clock for all rows of the statement
    v_is_live CONSTANT boolean := coalesce(current_setting('tidemark.ingest_mode', true), '')
        NOT IN ('backfill', 'correction', 'replay');
    v_is_safe boolean := false; -- a rule failed to evaluate: the judge is to look at each on its own
    v_rows refcursor;
    v_row_count bigint := 0;
    v_series jsonb[];
    v_from timestamptz[];
    v_to timestamptz[];
    v_late_before timestamptz[];
    v_compressed tstzrange[];
    -- Where updated rows have been:
    v_left jsonb[];
    v_left_ts timestamptz[];
BEGIN
    PERFORM set_config('tidemark.scoring', '', true); -- as expect_scores set it
    -- Bars that looked like an anomaly while they formed, and have closed: by the clock, or by what came now.
    IF EXISTS (SELECT FROM _tidemark.waiting_bars AS w WHERE w.hypertable = 'public.timeseries_data'::regclass) THEN
        PERFORM _tidemark.judge_closed('public.timeseries_data'::regclass, array_agg(i.series), array_agg(i.ts))
           FROM _tidemark.waiting_bars AS i
          WHERE i.hypertable = 'public.timeseries_data'::regclass
            AND ((v_is_live AND i.closes_at <= v_now)
                 -- The newest of each series by its text: not all rows again for each bar that waits.
                 OR i.ts < ((SELECT jsonb_object_agg(n.series, n.newest_at)
                               FROM (SELECT jsonb_build_object('source_id', d.source_id)::text AS series, max(d."timestamp") AS newest_at
                                       FROM new_rows AS d
                                      GROUP BY d.source_id) AS n) ->> i.series::text)::timestamptz)
         HAVING count(*) > 0;
    END IF;
    IF NOT EXISTS (SELECT FROM new_rows) THEN -- as of an upsert that found all its rows there
        RETURN NULL;
    END IF;
    IF true AND current_setting('transaction_isolation') = 'read committed' THEN

        OPEN v_rows NO SCROLL FOR
            SELECT i.series, d."timestamp" AS ts, CASE WHEN (coalesce(d.close::double precision, d.value::double precision) < 1e100 AND coalesce(d.close::double precision, d.value::double precision) > 1e-100) THEN coalesce(d.close::double precision, d.value::double precision) END AS value,
                   d.tidemark_row_count AS row_count, m.place, m.memory, m.profile,
                   (d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false
           OR d."timestamp" > v_now + '00:01:00'::interval
           OR (v_is_live AND p.is_live AND d."timestamp" + p.step + p.lag < v_now)
                    OR (d.value IS NULL AND 'value' = ANY (p.required_fields))
    OR (d.open IS NULL AND 'open' = ANY (p.required_fields))
    OR (d.high IS NULL AND 'high' = ANY (p.required_fields))
    OR (d.low IS NULL AND 'low' = ANY (p.required_fields))
    OR (d.close IS NULL AND 'close' = ANY (p.required_fields))
    OR (d.volume IS NULL AND 'volume' = ANY (p.required_fields))
    OR (d.metadata IS NULL AND 'metadata' = ANY (p.required_fields))
                    OR (p.transform = 'log_return' AND (d.open > '0'::double precision AND d.open < '1e100'::double precision AND d.high > '0'::double precision AND d.high < '1e100'::double precision AND d.low > '0'::double precision AND d.low < '1e100'::double precision AND d.close > '0'::double precision AND d.close < '1e100'::double precision) IS FALSE)
    OR (NOT (d.low > d.open OR d.low > d.close OR d.open > d.high OR d.close > d.high OR d.low > d.high)) IS FALSE
    OR (d.volume >= '0'::double precision AND d.volume < 'Infinity'::double precision) IS FALSE
    OR (date_bin(_tidemark.grid(p.step), d."timestamp", '2000-01-03 00:00+00') = d."timestamp") IS FALSE
    OR (CASE WHEN p.market IS NULL THEN NULL WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market
                   AND c.date BETWEEN (d."timestamp" AT TIME ZONE 'UTC')::date - 2
                       AND (d."timestamp" AT TIME ZONE 'UTC' + p.step)::date + 2
                   AND c.opens_at
                       < (d."timestamp" AT TIME ZONE 'UTC' + greatest(p.step, interval '1 microsecond')) AT TIME ZONE 'UTC'
                   AND (c.closes_at > d."timestamp"
                        OR (c.closes_at = d."timestamp" AND (p.step = interval '0' OR p.step >= interval '1 day')))
                   AND (c.break_starts_at <= d."timestamp" AND c.break_ends_at > d."timestamp"
                        AND c.break_ends_at >= (d."timestamp" AT TIME ZONE 'UTC' + p.step) AT TIME ZONE 'UTC') IS NOT TRUE
            ) THEN true WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date >= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) AND EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date <= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) THEN false END) IS FALSE) IS TRUE AS is_suspect,
                   (SELECT coalesce(sum(l.weight), 0)::bigint FROM _tidemark.memory_lapses AS l
                     WHERE l.hypertable = 'public.timeseries_data'::regclass AND l.series IS NULL) AS lapses,
                   EXISTS (SELECT FROM _tidemark.memory_lapses AS l
                            WHERE l.hypertable = 'public.timeseries_data'::regclass AND l.series IS NOT NULL) AS has_own_lapses,
                   (SELECT _tidemark.chunks_of('public.timeseries_data'::regclass)) AS chunks,
                   CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN greatest(abs(ln(d.high::double precision / greatest(d.open, d.close))), abs(ln(least(d.open, d.close)::double precision / d.low))) ELSE 0 END AS wick, CASE WHEN (d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100 AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100) THEN ln(d.open::double precision / d.close) ELSE 0 END AS body, CASE WHEN d.volume::double precision >= 0 AND d.volume::double precision < 1e300 THEN d.volume::double precision ELSE -1 END AS volume
              FROM (SELECT d.*, count(*) OVER (PARTITION BY d.source_id) AS tidemark_row_count
                      FROM new_rows AS d
                     WHERE (SELECT count(*) <= 5000 FROM (SELECT FROM new_rows LIMIT 5001) AS c)) AS d
             CROSS JOIN LATERAL (SELECT jsonb_build_object('source_id', d.source_id) AS series OFFSET 0) AS i
              LEFT JOIN LATERAL (
                       SELECT o.ctid AS place, o AS memory, q AS profile, o.market, o.step, q.required_fields,
                              _tidemark.allowed_lag(q.allowed_lag, o.step) AS lag,
                              q.allowed_lag IS NOT NULL OR o.is_live AS is_live
                         FROM _tidemark.series_memory AS o
                         JOIN public.quality_profiles AS q ON q.quality_profile_id = o.quality_profile_id
                        WHERE o.hypertable = 'public.timeseries_data'::regclass
                          AND o.series = i.series
                          FOR NO KEY UPDATE OF o SKIP LOCKED
                   ) AS m ON true
             CROSS JOIN LATERAL (SELECT m.market, m.step, m.required_fields, m.lag, m.is_live,
                                        'log_return'::public.change_transform AS transform) AS p;
        SELECT r.row_count, r.series, r.ts, r.ts INTO v_row_count, v_series, v_from, v_to
          FROM _tidemark.recall('public.timeseries_data'::regclass, v_rows, true, v_is_live, v_now) AS r;
        -- What these rows say of the anomalies right before them.
        IF v_row_count > 0 AND EXISTS (
            SELECT FROM public.anomalies AS a WHERE a.table_name = 'timeseries_data' AND a.is_doubtful IS NULL
        ) THEN
            PERFORM _tidemark.decide_doubtful(
                        'public.timeseries_data'::regclass, array_agg(i.series), array_agg(i.ts), array_agg(i.ts)
                    )
               FROM (SELECT jsonb_build_object('source_id', d.source_id) AS series, min(d."timestamp") AS ts FROM new_rows AS d GROUP BY 1) AS i
              WHERE EXISTS (SELECT FROM public.anomalies AS a
                             WHERE a.table_name = 'timeseries_data' AND a.series = i.series AND a.is_doubtful IS NULL)
             HAVING count(*) > 0;
        END IF;
        IF v_row_count > 0 AND v_series IS NULL THEN
            RETURN NULL;
        END IF;

    END IF;
    IF v_row_count = 0 THEN
        SELECT array_agg(jsonb_build_object('source_id', k1)), array_agg(g.starts_at), array_agg(g.ends_at)
          INTO v_series, v_from, v_to
          FROM (
            SELECT d.source_id AS k1, min(d."timestamp") AS starts_at, max(d."timestamp") AS ends_at,
                   date_bin('30 days', d."timestamp", '2000-01-03 00:00+00') AS bucket
              FROM new_rows AS d
             GROUP BY k1, bucket
          ) AS g;
        IF v_series IS NULL THEN
            RETURN NULL;
        END IF;
        PERFORM _tidemark.forget_series('public.timeseries_data'::regclass, v_series, v_to);
    END IF;

    SELECT i.series, i.starts, i.ends INTO v_series, v_from, v_to
      FROM _tidemark.merge_periods(v_series, v_from, v_to, 5 * '30 days'::interval) AS i;
    -- A chunk that was compressed as a whole until this statement shows its new rows to nobody before the statement
    -- ends. Bringing one of them again, which stores nothing, ends a statement.
    SELECT array_agg(c) INTO v_compressed
      FROM _tidemark.compressed_periods(
               'public.timeseries_data', (SELECT min(f) FROM unnest(v_from) AS f), (SELECT max(t) FROM unnest(v_to) AS t)
           ) AS c;
    IF v_compressed IS NOT NULL THEN
        INSERT INTO public.timeseries_data  OVERRIDING SYSTEM VALUE
        SELECT n.*
          FROM unnest(v_compressed) AS c (period)
         CROSS JOIN LATERAL (SELECT d.* FROM new_rows AS d WHERE d."timestamp" <@ c.period LIMIT 1) AS n
        ON CONFLICT DO NOTHING;
    END IF;

    -- What is judged against the clock.
    IF (SELECT max(t) FROM unnest(v_to) AS t) > v_now + '00:01:00'::interval THEN
        INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, rule_id, detail)
        SELECT 'timeseries_data', jsonb_build_object('source_id', d.source_id), d."timestamp", 'validation', 10, r.rule_id, r.name
          FROM new_rows AS d
          JOIN (VALUES (4, '00:01:00'::interval, NULL::integer, 'timeseries_data_not_in_future')) AS r (rule_id, tolerance, source_id, name) ON d."timestamp" > v_now + r.tolerance
         WHERE (r.source_id IS NULL OR r.source_id = d.source_id)
        ON CONFLICT ON CONSTRAINT quality_issues_series_ts_penalty_key DO NOTHING;
    END IF;
    IF v_is_live THEN
        SELECT _tidemark.late_bounds(t, v_series, v_from, v_now) INTO v_late_before
          FROM _tidemark.quality_targets AS t
         WHERE t.hypertable = 'public.timeseries_data'::regclass;
        IF EXISTS (
            SELECT FROM unnest(v_late_before, v_from) AS i (late_before, starts_at) WHERE i.starts_at < i.late_before
        ) THEN
            INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, detail)
            SELECT 'timeseries_data', i.series, d."timestamp", 'timeliness', 20,
                   to_char(v_now AT TIME ZONE 'UTC', '"arrived at" YYYY-MM-DD"T"HH24:MI:SS"Z"')
              FROM new_rows AS d
              JOIN unnest(v_series, v_from, v_to, v_late_before) AS i (series, starts_at, ends_at, late_before)
                ON jsonb_build_object('source_id', d.source_id) = i.series AND d."timestamp" BETWEEN i.starts_at AND i.ends_at AND d."timestamp" < i.late_before
            ON CONFLICT ON CONSTRAINT quality_issues_series_ts_penalty_key DO NOTHING;
        ELSE
            v_late_before := NULL;
        END IF;
    END IF;
    PERFORM _tidemark.judge(
        'public.timeseries_data'::regclass, v_series, v_from, v_to, v_late_before, v_now + '00:01:00'::interval, true, v_is_safe
    );
    RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION _tidemark.try_rules_timeseries_data(p_row jsonb, p_market text, p_step interval, p_transform change_transform)
 RETURNS integer[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
-- SET search_path = pg_catalog, pg_temp

#variable_conflict use_column
DECLARE
    v_broken integer[] := '{}';
BEGIN
    BEGIN
        IF (SELECT (p.transform = 'log_return' AND (d.open > '0'::double precision AND d.open < '1e100'::double precision AND d.high > '0'::double precision AND d.high < '1e100'::double precision AND d.low > '0'::double precision AND d.low < '1e100'::double precision AND d.close > '0'::double precision AND d.close < '1e100'::double precision) IS FALSE) FROM jsonb_populate_record(NULL::public.timeseries_data, p_row) AS d
             CROSS JOIN (SELECT p_market AS market, p_step AS step, p_transform AS transform) AS p)
        THEN
            v_broken := v_broken || 1;
        END IF;
    EXCEPTION WHEN data_exception OR program_limit_exceeded OR syntax_error_or_access_rule_violation OR invalid_schema_name OR feature_not_supported THEN
        NULL;
    END;
    BEGIN
        IF (SELECT (NOT (d.low > d.open OR d.low > d.close OR d.open > d.high OR d.close > d.high OR d.low > d.high)) IS FALSE FROM jsonb_populate_record(NULL::public.timeseries_data, p_row) AS d
             CROSS JOIN (SELECT p_market AS market, p_step AS step, p_transform AS transform) AS p)
        THEN
            v_broken := v_broken || 2;
        END IF;
    EXCEPTION WHEN data_exception OR program_limit_exceeded OR syntax_error_or_access_rule_violation OR invalid_schema_name OR feature_not_supported THEN
        NULL;
    END;
    BEGIN
        IF (SELECT (d.volume >= '0'::double precision AND d.volume < 'Infinity'::double precision) IS FALSE FROM jsonb_populate_record(NULL::public.timeseries_data, p_row) AS d
             CROSS JOIN (SELECT p_market AS market, p_step AS step, p_transform AS transform) AS p)
        THEN
            v_broken := v_broken || 3;
        END IF;
    EXCEPTION WHEN data_exception OR program_limit_exceeded OR syntax_error_or_access_rule_violation OR invalid_schema_name OR feature_not_supported THEN
        NULL;
    END;
    BEGIN
        IF (SELECT (date_bin(_tidemark.grid(p.step), d."timestamp", '2000-01-03 00:00+00') = d."timestamp") IS FALSE FROM jsonb_populate_record(NULL::public.timeseries_data, p_row) AS d
             CROSS JOIN (SELECT p_market AS market, p_step AS step, p_transform AS transform) AS p)
        THEN
            v_broken := v_broken || 5;
        END IF;
    EXCEPTION WHEN data_exception OR program_limit_exceeded OR syntax_error_or_access_rule_violation OR invalid_schema_name OR feature_not_supported THEN
        NULL;
    END;
    BEGIN
        IF (SELECT (CASE WHEN p.market IS NULL THEN NULL WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market
                   AND c.date BETWEEN (d."timestamp" AT TIME ZONE 'UTC')::date - 2
                       AND (d."timestamp" AT TIME ZONE 'UTC' + p.step)::date + 2
                   AND c.opens_at
                       < (d."timestamp" AT TIME ZONE 'UTC' + greatest(p.step, interval '1 microsecond')) AT TIME ZONE 'UTC'
                   AND (c.closes_at > d."timestamp"
                        OR (c.closes_at = d."timestamp" AND (p.step = interval '0' OR p.step >= interval '1 day')))
                   AND (c.break_starts_at <= d."timestamp" AND c.break_ends_at > d."timestamp"
                        AND c.break_ends_at >= (d."timestamp" AT TIME ZONE 'UTC' + p.step) AT TIME ZONE 'UTC') IS NOT TRUE
            ) THEN true WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date >= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) AND EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = p.market AND c.date <= (d."timestamp" AT TIME ZONE 'UTC')::date
            ) THEN false END) IS FALSE FROM jsonb_populate_record(NULL::public.timeseries_data, p_row) AS d
             CROSS JOIN (SELECT p_market AS market, p_step AS step, p_transform AS transform) AS p)
        THEN
            v_broken := v_broken || 6;
        END IF;
    EXCEPTION WHEN data_exception OR program_limit_exceeded OR syntax_error_or_access_rule_violation OR invalid_schema_name OR feature_not_supported THEN
        NULL;
    END;
    RETURN v_broken;
END
$function$;
