-- The detector. What it is, why, and what it finds are in docs/quality.md; in short, per series, over the rows with a
-- valid value in order of time:
--
--     r = the change from the previous value: ln(p / previous), the difference, or the level itself
--     d = the distance from the median of the three values before
--     pass 1: mean and deviation of r over the N rows strictly before; a row further than 4 of them from that mean is
--             left out of later baselines
--     pass 2: mean m, deviation s and number n of what is left in the N rows before; s20 likewise over 20 rows
--     scale S = greatest(s, s20, floor), where floor = greatest(tick_size / previous, scale_floor); and where z would
--               be flagged, also s5, of the five changes before, and the smallest move of the 2 N rows before
--     z = (r - m or d, whichever is smaller in magnitude; of levels r - m) / S
--
-- Where a series begins there is no such baseline: beginnings() says what its first rows are judged by. A change that a
-- confirmed split explains counts as what is left of it without the split: split_shifts() says by how much the
-- logarithms of the rows after it are raised.
--
-- Every sum is exact, so a batch, the same rows one by one and a rescore agree in every bit: changes of logarithms are
-- whole numbers of 1e-7, clamped to +-9 so that a thousand squares fit a bigint; levels and differences are numeric.

-- The definition that anomalies were found by.
CREATE OR REPLACE FUNCTION _tidemark.detector_version()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT 'lr2p-2'::text;
$func$;
COMMENT ON FUNCTION _tidemark.detector_version() IS 'Name of the definition of the detector. Inlined.';

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

-- What the first rows of series are judged by, given the first 2 min_samples + 2 usable rows of each whose beginning is
-- read, as arrays, islands numbered from 1 to p_islands. The first min_samples + 1 changes of a series, once there are
-- as many, are looked at together: those further than 4 of their own deviations, by median and MAD, from their median
-- are left out of all baselines, and the mean and deviation of the others judge the first rows until min_samples
-- changes lie before one. So a bad first price does not blind the detector, and is found itself, later.
--
-- One element an island, NULL where it does not begin here or has too few changes: block_end (up to where changes are
-- left out), judged_to (up to where rows may be judged by this), and in units of the transform (1e-7 of a logarithm)
-- middle and reach (of the median and the MAD; where that is 0, of the mean absolute deviation), mean, spread and
-- samples; reach and spread are no less than the smallest move, where there are three. Only as many rows as that are
-- looked at, so that what depends on them stays within what read_… reads.
CREATE OR REPLACE FUNCTION _tidemark.beginnings(
    p_islands integer,
    p_island integer[],
    p_ts timestamptz[],
    p_value double precision[],
    p_profile public.quality_profiles,
    p_step interval,
    p_shift bigint[],
    OUT block_end timestamptz[],
    OUT judged_to timestamptz[],
    OUT middle double precision[],
    OUT reach double precision[],
    OUT mean double precision[],
    OUT spread double precision[],
    OUT samples integer[]
)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
#variable_conflict use_column
DECLARE
    v_is_log CONSTANT boolean := p_profile.transform = 'log_return';
    v_is_level CONSTANT boolean := p_profile.transform = 'level';
    v_unit CONSTANT double precision := CASE WHEN p_profile.transform = 'log_return' THEN 1e7 ELSE 1 END;
    v_market CONSTANT text := CASE WHEN _tidemark.has_sessions(p_profile, p_step) THEN p_profile.market END;
    v_min_samples CONSTANT integer := p_profile.min_samples;
    v_tick CONSTANT double precision := coalesce(p_profile.tick_size, 0);
BEGIN
    IF p_island IS NULL THEN
        RETURN;
    END IF;
    WITH changes AS MATERIALIZED (
        SELECT c.island, c.ts, c.change::double precision AS change, c.judged_to,
               CASE WHEN NOT c.is_split THEN v_unit * nullif(abs(c.value - c.previous), 0)
                                             / CASE WHEN v_is_log THEN c.previous ELSE 1 END END AS move,
               v_unit * greatest(p_profile.scale_floor, v_tick / CASE WHEN v_is_log THEN c.previous ELSE 1 END) AS least
          FROM (
            SELECT g.*, row_number() OVER (PARTITION BY g.island ORDER BY g.ts) AS n
              FROM (
                SELECT y.island, y.ts, y.value,
                       _tidemark.in_shares_of(
                           lag(y.value) OVER by_time, lag(y.shift) OVER by_time - y.shift
                       ) AS previous,
                       y.shift <> lag(y.shift) OVER by_time AS is_split,
                       CASE WHEN v_is_level THEN y.level
                            WHEN v_is_log THEN CASE
                                WHEN y.level - lag(y.level) OVER by_time > 90000000 THEN 90000000
                                WHEN y.level - lag(y.level) OVER by_time < -90000000 THEN -90000000
                                ELSE y.level - lag(y.level) OVER by_time
                            END
                            ELSE y.level - lag(y.level) OVER by_time END AS change,
                       v_market IS NOT NULL AND y.ts - lag(y.ts) OVER by_time > p_step
                       AND _tidemark.opens_between(v_market, lag(y.ts) OVER by_time, y.ts) AS is_first,
                       max(y.ts) OVER (PARTITION BY y.island) AS judged_to
                  FROM (SELECT x.island, x.ts, x.value, coalesce(x.shift, 0) AS shift,
                               CASE WHEN v_is_log THEN (ln(x.value) * 1e7)::bigint + coalesce(x.shift, 0)
                                    ELSE x.value::numeric END AS level
                          FROM unnest(p_island, p_ts, p_value, p_shift) AS x (island, ts, value, shift)) AS y
                WINDOW by_time AS (PARTITION BY y.island ORDER BY y.ts)
              ) AS g
             WHERE g.change IS NOT NULL AND g.is_first IS NOT TRUE
          ) AS c
         WHERE c.n <= v_min_samples + 1
    ), middles AS (
        SELECT c.island, max(c.ts) AS block_end, max(c.judged_to) AS judged_to,
               percentile_disc(0.5) WITHIN GROUP (ORDER BY c.change) AS middle,
               CASE WHEN count(c.move) >= 3 THEN min(c.move) ELSE 0 END AS tick
          FROM changes AS c
         GROUP BY c.island
        HAVING count(*) > v_min_samples
    ), distances AS (
        SELECT m.*, percentile_disc(0.5) WITHIN GROUP (ORDER BY abs(c.change - m.middle)) AS mad,
               sum(abs(c.change - m.middle) ORDER BY c.ts) / (v_min_samples + 1) AS mean_distance
          FROM middles AS m
          JOIN changes AS c ON c.island = m.island
         GROUP BY m.island, m.block_end, m.judged_to, m.middle, m.tick
    ), reaches AS (
        SELECT d.*,
               greatest(CASE WHEN d.mad > 0 THEN 1.4826 * d.mad ELSE 1.253314 * d.mean_distance END, d.tick) AS reach
          FROM distances AS d
    ), kept AS (
        SELECT r.island, r.block_end, r.judged_to, r.middle, r.reach, r.tick, count(c.change) AS samples,
               coalesce(sum(c.change ORDER BY c.ts), 0) AS total,
               coalesce(sum(c.change * c.change ORDER BY c.ts), 0) AS squares
          FROM reaches AS r
          LEFT JOIN changes AS c
            ON c.island = r.island AND abs(c.change - r.middle) <= 4 * greatest(r.reach, c.least)
         GROUP BY r.island, r.block_end, r.judged_to, r.middle, r.reach, r.tick
    )
    SELECT array_agg(k.block_end ORDER BY i), array_agg(k.judged_to ORDER BY i), array_agg(k.middle ORDER BY i),
           array_agg(k.reach ORDER BY i), array_agg(k.total / k.samples ORDER BY i),
           array_agg(greatest(
               sqrt(greatest(k.squares - k.total * k.total / k.samples, 0) / nullif(k.samples - 1, 0)), k.tick
           ) ORDER BY i),
           array_agg(k.samples::integer ORDER BY i)
      INTO block_end, judged_to, middle, reach, mean, spread, samples
      FROM generate_series(1, p_islands) AS i
      LEFT JOIN kept AS k ON k.island = i AND k.samples > 1;
END
$func$;
COMMENT ON FUNCTION _tidemark.beginnings(
    integer, integer [], timestamptz [], double precision [], public.quality_profiles, interval, bigint []
) IS 'What the first rows of series are judged by, and which of their changes no baseline contains.';

-- A price before a split in the shares after it, or the other way round: both rows' shifts say which, the later one's
-- taken from the earlier one's. Exactly the price itself where these are the same.
CREATE OR REPLACE FUNCTION _tidemark.in_shares_of(
    p_price double precision,
    p_shift bigint
)
    RETURNS double precision
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT CASE WHEN p_shift = 0 THEN p_price ELSE p_price * exp(p_shift::double precision / 1e7::double precision) END;
$func$;
COMMENT ON FUNCTION _tidemark.in_shares_of(double precision, bigint) IS
'A price in the shares of another row, given the difference of their shifts. Inlined.';

-- How much the logarithms of rows are raised, in 1e-7, so that no split is a change: of rows as detect() gets them,
-- p_asset_id being the assets of the islands, one element an island, and p_lowest and p_highest bounds of their times.
-- NULL, which stands for 0 everywhere, where no split lies between them. Only differences mean something: they are the
-- same wherever the first row is.
CREATE OR REPLACE FUNCTION _tidemark.split_shifts(
    p_asset_id uuid[],
    p_island integer[],
    p_ts timestamptz[],
    p_value double precision[],
    p_is_usable boolean[],
    p_lowest timestamptz,
    p_highest timestamptz
)
    RETURNS bigint[]
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    -- The smallest change that any of them could explain; an action is in force within seven days of its date.
    v_least CONSTANT double precision := (
        SELECT min(abs(ln(a.ratio::double precision))) / 2
          FROM public.corporate_actions AS a
         WHERE a.asset_id = ANY (p_asset_id) AND a.status = 'confirmed'
           AND a.ex_date BETWEEN (p_lowest AT TIME ZONE 'UTC')::date - 12 AND (p_highest AT TIME ZONE 'UTC')::date + 9
    );
    v_places bigint[];
    v_jumps bigint[];
BEGIN
    IF v_least IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(c.n), array_agg(s.jump) INTO v_places, v_jumps
      FROM (SELECT x.n, x.island, x.ts, (x.level - lag(x.level) OVER (PARTITION BY x.island ORDER BY x.ts))
                                        / 1e7::double precision AS observed
              FROM (SELECT r.n, r.island, r.ts, (ln(r.value) * 1e7)::bigint AS level
                      FROM unnest(p_island, p_ts, p_value, p_is_usable) WITH ORDINALITY
                           AS r (island, ts, value, is_usable, n)
                     WHERE r.is_usable IS NOT FALSE) AS x) AS c
     CROSS JOIN LATERAL _tidemark.split_at(p_asset_id[c.island], c.ts, c.observed) AS s
     WHERE abs(c.observed) >= v_least;
    IF v_places IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(
        SELECT (coalesce(sum(j.jump) OVER (PARTITION BY x.island ORDER BY x.n), 0))::bigint
          FROM unnest(p_island) WITH ORDINALITY AS x (island, n)
          LEFT JOIN unnest(v_places, v_jumps) AS j (n, jump) ON j.n = x.n
         ORDER BY x.n
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.split_shifts(
    uuid [], integer [], timestamptz [], double precision [], boolean [], timestamptz, timestamptz
) IS 'How much the logarithms of rows are raised so that no split is a change, in 1e-7; NULL: not at all.';

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
        SELECT y.n, false AS is_given, y.island, y.ts, y.is_usable,
               y.is_marked OR (
                   @previous@ <> 0
                   AND abs(y.value - @previous@) / abs(@previous@)
                       >= v_max_change * 0.999999 -- to be decided exactly, in decimals, for the few that come near
               ) IS TRUE AS is_marked,
               @previous@ AS previous,
               lag(y.ts) OVER by_time AS previous_ts,
               @change@ AS change,
               @own_level@ AS level,
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
                   CASE WHEN x.is_usable THEN @level@ END AS level@shift@
              FROM unnest(p_island, p_ts, p_value, p_is_usable, p_is_marked, p_shift) WITH ORDINALITY
                   AS x (island, ts, value, is_usable, is_marked, shift, n)
          ) AS y
        WINDOW by_time AS (PARTITION BY y.island, y.is_usable ORDER BY y.ts)@given@
    $sql$, jsonb_build_object(
        'level', CASE WHEN p_is_log THEN '(ln(x.value) * 1e7)::bigint + coalesce(x.shift, 0)'
                      ELSE 'x.value::numeric' END,
        'shift', CASE WHEN p_is_log THEN ', coalesce(x.shift, 0) AS shift' END,
        'own_level', CASE WHEN p_is_log THEN 'y.level - y.shift' ELSE 'y.level' END,
        'previous', CASE WHEN p_is_log THEN 'CASE WHEN p_shift IS NULL THEN lag(y.value) OVER by_time ELSE'
            ' _tidemark.in_shares_of(lag(y.value) OVER by_time, lag(y.shift) OVER by_time - y.shift) END'
            ELSE 'lag(y.value) OVER by_time' END,
        'change', CASE WHEN p_is_log
            -- Not by greatest and least: these would make a number of the NULL before the first row.
            THEN 'CASE WHEN y.level - lag(y.level) OVER by_time > 90000000 THEN 90000000'
                 ' WHEN y.level - lag(y.level) OVER by_time < -90000000 THEN -90000000'
                 ' ELSE y.level - lag(y.level) OVER by_time END'
            ELSE 'CASE WHEN v_is_level THEN y.level ELSE y.level - lag(y.level) OVER by_time END' END,
        'given', CASE WHEN p_is_log THEN $sql$
         UNION ALL
        SELECT NULL, true, i.island, i.ts, true, false, i.previous, NULL, (i.observed * 1e7)::bigint,
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
               f.island, f.ts, f.previous, @reference@, f.change::double precision / @unit@, f.mean / @unit@,
               f.deviation::double precision / @unit@, f.scale / @unit@, f.used, f.z_score, f.is_first,
               CASE WHEN f.is_odd_bar THEN '' END
           )::_tidemark.finding)
      INTO v_places, v_found
      FROM (
        SELECT e.*,
               CASE WHEN e.is_candidate THEN
                   CASE WHEN abs(e.deviation::double precision) < abs(e.change::double precision - e.mean)@unless_level@
                        THEN e.deviation::double precision ELSE e.change::double precision - e.mean END / e.scale
               END AS z_score
          FROM (
            SELECT c.*,
                   CASE WHEN c.is_early THEN v_mean[c.island] ELSE @mean@ END AS mean,
                   CASE WHEN c.is_early THEN greatest(v_spread[c.island], @floor@)
                        ELSE greatest(@spread@, @spread_20@, @floor@) END AS scale,
                   CASE WHEN c.is_early THEN v_samples[c.island] ELSE c.samples END AS used
              FROM (
                -- What cannot exceed the threshold, as d does not in units of s, is left behind here.
                SELECT w.*,
                       CASE WHEN w.is_first THEN false
                            WHEN w.samples >= v_min_samples
                            THEN @is_level_or@w.deviation::double precision * w.deviation::double precision * (w.samples - 1)
                                 > 0.99 * v_anomaly_z * v_anomaly_z * @squares@
                            ELSE w.ts <= v_judged_to[w.island] AND NOT w.is_given END IS TRUE AS is_candidate,
                       w.samples < v_min_samples AS is_early,
                       @odd_bar@ AS is_odd_bar
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
                        SELECT b.n, b.is_given, b.island, b.ts, b.is_usable, b.previous, b.change, b.level, b.deviation,
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
                                    -- The first rows of their sessions are left out of others' baselines, and so is
                                    -- what does not fit among the first changes of a series.
                                    SELECT s.*,
                                           CASE WHEN s.is_first THEN NULL
                                                WHEN s.ts <= v_block_end[s.island]
                                                     AND abs(s.change::double precision - v_middle[s.island])
                                                         > 4 * greatest(v_reach[s.island], @first_floor@)
                                                THEN NULL
                                                ELSE s.change END AS base
                                      FROM (
                                        SELECT g.*,
                                               CASE WHEN v_market IS NULL OR NOT g.is_usable THEN false
                                                    WHEN g.ts - g.previous_ts > p_step
                                                    THEN _tidemark.opens_between(v_market, g.previous_ts, g.ts)
                                                    ELSE false END AS is_first
                                          FROM (@changes@) AS g
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
                v_value := @in_shares@;
                v_move := CASE WHEN p_shift[v_place] IS NOT DISTINCT FROM v_shift THEN abs(v_value - v_last) END;
                IF v_move > 0 THEN
                    v_is_ticking := v_is_ticking AND v_move > v_finding.scale * @price@; -- else it is judged by more
                    v_least := least(v_least, v_move);
                    v_moves := v_moves + 1;
                END IF;
                IF v_changes < 5 AND (v_seen > 0 OR v_is_level) THEN
                    v_change := (@recent_change@ - v_finding.expected) / v_finding.scale;
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
                            CASE WHEN v_is_ticking AND v_moves >= 3 THEN v_least / @price@ / v_finding.scale END);
        IF v_wider > 1 THEN
            v_finding.z_score := v_finding.z_score / v_wider;
            v_finding.scale := v_finding.scale * v_wider;
            v_found[i] := v_finding;
        END IF;
    END LOOP;
    RETURN coalesce(v_found, '{}');
END
$detector$, jsonb_build_object(
        'unit', CASE WHEN p_is_log THEN '1e7' ELSE '1' END,
        'unless_level', CASE WHEN p_is_log THEN '' ELSE ' AND NOT v_is_level' END,
        'is_level_or', CASE WHEN p_is_log THEN '' ELSE 'v_is_level OR ' END,
        'sum', CASE WHEN p_is_log THEN '_tidemark.moving_sum' ELSE 'sum' END,
        'reference', CASE WHEN p_is_log THEN 'exp((f.level - f.deviation)::double precision / 1e7)'
                          ELSE '(f.level - f.deviation)::double precision' END,
        'base_mean', format(v_mean, 'a.base_sum', 'a.base_rows'),
        'base_spread', format(v_spread, 'a.base_sum', 'a.base_squares', 'a.base_rows'),
        'base_floor', format(v_floor, 'a'),
        'first_floor', format(v_floor, 's'),
        -- Whether a field of the bar may stand out, as fields_… (545) will decide: S is no less than s. Logarithms are as
        -- they are here, and their squares in 1e-14.
        'odd_bar', CASE WHEN NOT p_is_log THEN 'false' ELSE format($sql$CASE
                           WHEN p_wick IS NULL OR w.is_given OR w.is_first OR NOT w.is_usable
                                OR w.samples < v_min_samples OR w.n = 1 THEN false
                           ELSE (p_wick[w.n] > 2 * p_wick[w.n - 1]
                                 AND p_wick[w.n] * p_wick[w.n] * (w.samples - 1)
                                     > 0.356e-14 * v_anomaly_z * v_anomaly_z * %1$s)
                                OR (p_body[w.n] * (p_body[w.n] + w.change / 1e7) > 0
                                    AND least(p_body[w.n] * p_body[w.n],
                                              (p_body[w.n] + w.change / 1e7) * (p_body[w.n] + w.change / 1e7))
                                        * (w.samples - 1) > 0.247e-14 * v_anomaly_z * v_anomaly_z * %1$s)
                                OR (p_volume[w.n] >= 0 AND p_volume[w.n - 1] >= 0
                                    AND greatest(1 + p_volume[w.n], 1 + p_volume[w.n - 1])
                                        > 19.9 * least(1 + p_volume[w.n], 1 + p_volume[w.n - 1]))
                                OR NOT p_is_usable[w.n - 1] END$sql$,
                           format(v_squares, 'w.kept_sum', 'w.kept_squares', 'w.samples')) END,
        'price', CASE WHEN p_is_log THEN 'v_finding.previous' ELSE '1' END,
        -- In the shares of the row that is judged.
        'in_shares', CASE WHEN p_is_log THEN 'CASE WHEN p_shift IS NULL THEN v_values[v_place] ELSE'
            ' _tidemark.in_shares_of(v_values[v_place], p_shift[v_place] - p_shift[v_places[i]]) END'
            ELSE 'v_values[v_place]' END,
        -- From the value at v_place to the one after it.
        'recent_change', CASE WHEN p_is_log
            THEN 'least(9, greatest(-9, ((ln(v_last) * 1e7)::bigint - (ln(v_value) * 1e7)::bigint) / 1e7))'
            ELSE 'CASE WHEN v_is_level THEN v_value ELSE v_last - v_value END' END,
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
            'p_given _tidemark.finding[], p_first_island integer[], p_first_ts timestamptz[], '
            'p_first_value double precision[], p_wick double precision[], p_body double precision[], '
            'p_volume double precision[], p_shift bigint[], p_first_shift bigint[]',
            '_tidemark.finding[]', 'SET search_path = pg_catalog, pg_temp',
            _tidemark.detector_text(v_name = 'detect_logs'),
            format('The detector over %s; call detect() instead.',
                   CASE v_name WHEN 'detect_logs' THEN 'logarithms' ELSE 'levels as they are' END)
        );
    END LOOP;
END
$do$;

-- Judges rows that are handed over as arrays, one element a row, in order of island (a number from 1 on) and time:
-- island, time, value, whether the value is a reference for others, and whether the row is wanted whatever the
-- detector finds. From p_judged_from, one element an island, on rows are judged; those before are their baseline.
-- p_first_… are the first rows of series that begin here: see beginnings(). Of bars, p_wick is the longer shadow,
-- p_body the way from close to open, both as logarithms and 0 where not known, and p_volume the volume, -1 where not
-- known; all are NULL where there are no bars. p_shift and p_first_shift are those of split_shifts(). What comes back:
-- rows that are wanted, come near to a jump by max_change, exceed anomaly_z, are the first of their session, or are
-- bars of which a field may stand out (field is empty then). A value that is no reference for others comes back once
-- more if it is wanted, with the last one before it that is: it has no z-score, but has moved.
CREATE OR REPLACE FUNCTION _tidemark.detect(
    p_island integer[],
    p_ts timestamptz[],
    p_value double precision[],
    p_is_usable boolean[],
    p_is_marked boolean[],
    p_judged_from timestamptz[],
    p_profile public.quality_profiles,
    p_step interval,
    p_first_island integer[],
    p_first_ts timestamptz[],
    p_first_value double precision[],
    p_wick double precision[],
    p_body double precision[],
    p_volume double precision[],
    p_shift bigint[],
    p_first_shift bigint[]
)
    RETURNS SETOF _tidemark.finding
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_profile.transform = 'log_return' THEN
        RETURN QUERY SELECT f.* FROM unnest(_tidemark.detect_logs(
            p_island, p_ts, p_value, p_is_usable, p_is_marked, p_judged_from, p_profile, p_step, NULL,
            p_first_island, p_first_ts, p_first_value, p_wick, p_body, p_volume, p_shift, p_first_shift
        )) AS f;
    ELSE
        RETURN QUERY SELECT f.* FROM unnest(_tidemark.detect_levels(
            p_island, p_ts, p_value, p_is_usable, p_is_marked, p_judged_from, p_profile, p_step, NULL,
            p_first_island, p_first_ts, p_first_value, p_wick, p_body, p_volume, p_shift, p_first_shift
        )) AS f;
    END IF;
    IF EXISTS (
        SELECT FROM unnest(p_value, p_is_usable, p_is_marked) AS x (value, is_usable, is_marked)
         WHERE x.is_marked AND NOT x.is_usable AND x.value IS NOT NULL
    ) THEN
        RETURN QUERY
        SELECT p.island, p.ts, p.previous, NULL::double precision, NULL::double precision, NULL::double precision,
               NULL::double precision, NULL::double precision, NULL::integer, NULL::double precision, false,
               NULL::text
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
    interval, integer [], timestamptz [], double precision [], double precision [], double precision [],
    double precision [], bigint [], bigint []
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
        NULL, NULL, NULL, NULL, NULL, p_judged_from, p_profile, p_step, p_nights,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    )) AS f;
$func$;
COMMENT ON FUNCTION _tidemark.detect_nights(
    _tidemark.finding [], timestamptz [], public.quality_profiles, interval
) IS 'Judges the first rows of their sessions among their like.';

-- Mean, deviation and number of values without those further than 4 of their deviations from their mean. The mean of
-- values that are all the same may be another number, by a rounding that their deviation need not show: hence the 1e-9.
CREATE OR REPLACE FUNCTION _tidemark.steady(
    p_values double precision[],
    OUT mean double precision,
    OUT spread double precision,
    OUT samples bigint
)
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT avg(v.value), stddev_samp(v.value), count(v.value)
      FROM unnest(p_values) AS v (value)
     CROSS JOIN (SELECT avg(u.value) AS mean, stddev_samp(u.value) AS spread FROM unnest(p_values) AS u (value)) AS a
     WHERE abs(v.value - a.mean) <= 4 * a.spread + 1e-9;
$func$;
COMMENT ON FUNCTION _tidemark.steady(double precision []) IS
'Mean, deviation and number of values without those further than 4 deviations from the mean.';
