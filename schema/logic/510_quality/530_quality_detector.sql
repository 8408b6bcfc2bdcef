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

-- Changes of the rows from one to the next: what the query of the detector below starts from. @rows@ stands for the
-- rows of the islands with island, ts, value, usable (whether the value is a reference for others) and is_marked.
CREATE OR REPLACE FUNCTION _tidemark.changes_query(p_log boolean)
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.fill_template($sql$
        SELECT y.island, y.ts, y.usable,
               y.is_marked OR (
                   lag(y.value) OVER by_time <> 0
                   AND abs(y.value - lag(y.value) OVER by_time) / abs(lag(y.value) OVER by_time)
                       >= v_max_change * 0.999999 -- to be decided exactly, in decimals, for the few that come near
               ) IS TRUE AS is_marked,
               lag(y.value) OVER by_time AS previous,
               lag(y.ts) OVER by_time AS previous_ts,
               @change@ AS change,
               y.level - CASE
                   WHEN lag(y.level, 3) OVER by_time IS NULL THEN lag(y.level, 2) OVER by_time
                   ELSE lag(y.level) OVER by_time + lag(y.level, 2) OVER by_time + lag(y.level, 3) OVER by_time
                        - greatest(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                   lag(y.level, 3) OVER by_time)
                        - least(lag(y.level) OVER by_time, lag(y.level, 2) OVER by_time,
                                lag(y.level, 3) OVER by_time)
               END AS deviation
          FROM (
            SELECT x.island, x.ts, x.is_marked, x.usable,
                   CASE WHEN x.usable THEN x.value END AS value,
                   CASE WHEN x.usable THEN @level@ END AS level
              FROM (@rows@) AS x
          ) AS y
        WINDOW by_time AS (PARTITION BY y.island, y.usable ORDER BY y.ts)
    $sql$, jsonb_build_object(
        'level', CASE WHEN p_log THEN '(ln(x.value) * 1e7)::bigint' ELSE 'x.value::numeric' END,
        'change', CASE WHEN p_log
            -- Not by greatest and least: these would make a number of the NULL before the first row.
            THEN 'CASE WHEN y.level - lag(y.level) OVER by_time > 90000000 THEN 90000000'
                 ' WHEN y.level - lag(y.level) OVER by_time < -90000000 THEN -90000000'
                 ' ELSE y.level - lag(y.level) OVER by_time END'
            ELSE 'CASE WHEN v_transform = ''level'' THEN y.level ELSE y.level - lag(y.level) OVER by_time END' END
    ));
$func$;
COMMENT ON FUNCTION _tidemark.changes_query(boolean) IS
'Query for the changes of rows from one to the next, of logarithms or as they are; a template.';

-- The query that judges the islands of one group in the judge of a hypertable, given their changes. It yields findings:
-- rows that are marked already, come near to a jump, or exceed their threshold. @first@ says which rows are the first
-- of their session: their changes are left out of the baselines of the others.
CREATE OR REPLACE FUNCTION _tidemark.detector_query(p_log boolean)
    RETURNS text
    LANGUAGE plpgsql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    -- Of a sum, a sum of squares and a number of rows. Products of sums of whole numbers no longer fit a bigint.
    v_mean CONSTANT text := CASE WHEN p_log
        THEN '%1$s::double precision / nullif(%2$s, 0)'
        ELSE '(%1$s / nullif(%2$s, 0))::double precision' END;
    v_squares CONSTANT text := CASE WHEN p_log
        THEN '(%2$s - %1$s::double precision * %1$s / nullif(%3$s, 0))'
        ELSE '(%2$s - %1$s * %1$s / nullif(%3$s, 0))::double precision' END;
    v_spread CONSTANT text := 'sqrt(greatest(' || v_squares || ', 0) / nullif(%3$s - 1, 0))';
    v_floor CONSTANT text := CASE WHEN p_log
        THEN '1e7 * greatest(v_scale_floor, v_tick / %s.previous)'
        ELSE 'greatest(v_scale_floor, v_tick)' END;
BEGIN
    RETURN _tidemark.fill_template($sql$
        SELECT array_agg(ROW(
                   f.island, f.ts, f.previous, @reference@, f.change::double precision / @unit@, f.mean / @unit@,
                   f.deviation::double precision / @unit@, f.scale / @unit@, f.samples, f.z_score, f.is_first
               )::_tidemark.finding)
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
                            SELECT b.island, b.ts, b.usable, b.previous, b.change, b.deviation,
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
                                        SELECT g.*,
                                               @first@ AS is_first,
                                               CASE WHEN NOT @first@ THEN g.change END AS base
                                          FROM (@changes@) AS g
                                      ) AS l
                                    WINDOW n_rows AS (
                                        PARTITION BY l.island, l.usable ORDER BY l.ts
                                   ROWS BETWEEN v_rows PRECEDING AND 1 PRECEDING
                                    )
                                  ) AS a
                                 ORDER BY a.island, a.usable, a.ts
                                OFFSET 0
                              ) AS b
                             ORDER BY b.island, b.usable, b.ts
                            OFFSET 0
                          ) AS k
                        WINDOW n_rows AS (
                                   PARTITION BY k.island, k.usable ORDER BY k.ts
                                   ROWS BETWEEN v_rows PRECEDING AND 1 PRECEDING
                               ),
                               twenty_rows AS (
                                   PARTITION BY k.island, k.usable ORDER BY k.ts
                                   ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING
                               )
                      ) AS w
                     WHERE w.ts >= p_from[w.island]
                    OFFSET 0
                  ) AS c
                 WHERE c.is_marked OR c.is_candidate OR c.is_first
                OFFSET 0
              ) AS e
            OFFSET 0
          ) AS f
         WHERE f.is_marked OR f.is_first OR abs(f.z_score) > v_anomaly_z
    $sql$, jsonb_build_object(
        'unit', CASE WHEN p_log THEN '1e7' ELSE '1' END,
        'sum', CASE WHEN p_log THEN '_tidemark.moving_sum' ELSE 'sum' END,
        'reference', CASE WHEN p_log
            THEN 'f.previous * exp((f.change - f.deviation)::double precision / 1e7)'
            ELSE 'CASE WHEN v_transform = ''level'' THEN 0 ELSE f.previous END'
                 ' + (f.change - f.deviation)::double precision' END,
        'base_mean', format(v_mean, 'a.base_sum', 'a.base_rows'),
        'base_spread', format(v_spread, 'a.base_sum', 'a.base_squares', 'a.base_rows'),
        'base_floor', format(v_floor, 'a'),
        'squares', format(v_squares, 'w.kept_sum', 'w.kept_squares', 'w.samples'),
        'mean', format(v_mean, 'c.kept_sum', 'c.samples'),
        'spread', format(v_spread, 'c.kept_sum', 'c.kept_squares', 'c.samples'),
        'spread_20', format(v_spread, 'c.sum_20', 'c.squares_20', 'c.samples_20'),
        'floor', format(v_floor, 'c')
    ));
END
$func$;
COMMENT ON FUNCTION _tidemark.detector_query(boolean) IS
'Query of the detector lr2p-1 over the changes of a group of islands; a template.';
