-- What the engine remembers of a series (series_memory), so that its next row is judged without reading the rows before
-- it. A memory is a cache and is used only where it is certain to be what the rows would give:
--
-- * Whoever adds the next row of a series, or replaces the newest one, locks the memory and moves it along. Whoever
--   changes anything else locks and voids it, or, where somebody else holds it, leaves a lapse. Nobody ever waits for a
--   memory, so that two feeds with series in common cannot deadlock.
-- * Lapses are counted by weight: a memory knows the weight that its builder saw. One whose lapses were added since, or
--   by a transaction that was under way then, no longer adds up.
-- * A chunk that was dropped shows in the fingerprint of the chunks since the oldest row of the memory.
-- * What shapes a baseline (profiles, the sources' links to them, calendars, reviews of errors) leaves lapses; so do
--   rows that are written where triggers do not run, through a constraint of the hypertable.

-- Leaves a lapse for some series, or for all of the hypertable where p_series is NULL.
CREATE OR REPLACE FUNCTION _tidemark.lapse(
    p_hypertable regclass,
    p_series jsonb[]
)
    RETURNS void
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    INSERT INTO _tidemark.memory_lapses (hypertable, series)
    SELECT p_hypertable, NULL WHERE p_series IS NULL
     UNION ALL
    SELECT p_hypertable, s.series FROM unnest(p_series) AS s (series);
$func$;
COMMENT ON FUNCTION _tidemark.lapse(regclass, jsonb []) IS
'Makes what is remembered of some series, or of all of a hypertable (NULL), void.';

-- The weight of the lapses of a series and of its hypertable, as far as they are visible.
CREATE OR REPLACE FUNCTION _tidemark.lapses_of(
    p_hypertable regclass,
    p_series jsonb
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN (SELECT coalesce(sum(l.weight), 0)
              FROM _tidemark.memory_lapses AS l
             WHERE l.hypertable = p_hypertable AND (l.series = p_series OR l.series IS NULL));
END
$func$;
COMMENT ON FUNCTION _tidemark.lapses_of(regclass, jsonb) IS 'Weight of the lapses that a memory has to know of.';

-- Locks the memories of series; where there is none, an empty one is made first. Returns those that are locked now:
-- others are held by somebody else.
CREATE OR REPLACE FUNCTION _tidemark.hold_memories(
    p_hypertable regclass,
    p_series jsonb[]
)
    RETURNS SETOF jsonb
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '50ms'
AS $func$
BEGIN
    IF EXISTS (SELECT FROM unnest(p_series) AS s (series) WHERE NOT EXISTS (
        SELECT FROM _tidemark.series_memory AS m WHERE m.hypertable = p_hypertable AND m.series = s.series
    )) THEN
        BEGIN
            INSERT INTO _tidemark.series_memory (hypertable, series)
            SELECT DISTINCT p_hypertable, s.series FROM unnest(p_series) AS s (series) ORDER BY s.series
            ON CONFLICT ON CONSTRAINT series_memory_pkey DO NOTHING;
        EXCEPTION WHEN lock_not_available THEN
            NULL; -- somebody else is making one of them
        END;
    END IF;
    RETURN QUERY
    SELECT m.series
      FROM _tidemark.series_memory AS m
     WHERE m.hypertable = p_hypertable AND m.series = ANY (p_series)
       FOR NO KEY UPDATE SKIP LOCKED;
END
$func$;
COMMENT ON FUNCTION _tidemark.hold_memories(regclass, jsonb []) IS
'Locks the memories of series without waiting; returns the series whose memory is locked.';

-- Makes what is remembered of series void, because their rows up to p_to change in another way than by the next one.
-- That there are newer rows is worth keeping: a memory is not built in vain for late ones.
CREATE OR REPLACE FUNCTION _tidemark.forget_series(
    p_hypertable regclass,
    p_series jsonb[],
    p_to timestamptz[]
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_held jsonb[] := '{}';
BEGIN
    -- A transaction that sees an older state of the rows than others may not touch what they changed since.
    IF current_setting('transaction_isolation') = 'read committed' THEN
        v_held := ARRAY(SELECT h FROM _tidemark.hold_memories(p_hypertable, p_series) AS h);
        UPDATE _tidemark.series_memory AS m
           SET newest = NULL,
               newest_at = CASE WHEN m.lapses = i.lapses THEN greatest(m.newest_at, i.newest_at) ELSE i.newest_at END,
               lapses = i.lapses
          FROM (SELECT s.series, max(s.ends_at) AS newest_at, _tidemark.lapses_of(p_hypertable, s.series) AS lapses
                  FROM unnest(p_series, p_to) AS s (series, ends_at) GROUP BY s.series) AS i
         WHERE m.hypertable = p_hypertable
           AND m.series = i.series
           AND i.series = ANY (v_held);
    END IF;
    PERFORM _tidemark.lapse(p_hypertable, array_agg(DISTINCT s.series))
       FROM unnest(p_series) AS s (series)
      WHERE s.series <> ALL (v_held)
     HAVING count(*) > 0;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.forget_series(regclass, jsonb [], timestamptz []) FROM public;
COMMENT ON FUNCTION _tidemark.forget_series(regclass, jsonb [], timestamptz []) IS
'Makes what is remembered of series void.';

-- The chunks of a dimension that end after an instant, in order of time: where they start and end, and for each number
-- of them from 0 on a fingerprint of the first so many.
CREATE OR REPLACE FUNCTION _tidemark.chunk_marks(
    p_dimension_id integer,
    p_after timestamptz,
    OUT starts timestamptz[],
    OUT ends timestamptz[],
    OUT marks bigint[]
)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    SELECT coalesce(array_agg(c.starts_at), '{}'), coalesce(array_agg(c.ends_at), '{}'), 0::bigint || array_agg(c.mark)
      INTO starts, ends, marks
      FROM (
        SELECT _timescaledb_functions.to_timestamp(s.range_start) AS starts_at,
               _timescaledb_functions.to_timestamp(s.range_end) AS ends_at,
               bit_xor(hashint8extended(s.id, 0)) OVER (ORDER BY s.range_start) AS mark
          FROM _timescaledb_catalog.dimension_slice AS s
         WHERE s.dimension_id = p_dimension_id
           AND s.range_end > _timescaledb_functions.to_unix_microseconds(p_after)
         ORDER BY s.range_start
      ) AS c;
END
$func$;
COMMENT ON FUNCTION _tidemark.chunk_marks(integer, timestamptz) IS
'Where the chunks after an instant start and end, and fingerprints of the first so many of them.';

-- Judges the next row of each series (p_is_new), or another version of its newest row, by what is remembered, and moves
-- the memory along. Of each series: 0, the row is certain to be nothing that the detector flags and no jump; 1, it is
-- to be looked at; NULL, nothing certain is known, and the memory is as it was or void. A value of NULL is one that is
-- no reference for others, and not judged here.
CREATE OR REPLACE FUNCTION _tidemark.recall(
    p_hypertable regclass,
    p_series jsonb[],
    p_ts timestamptz[],
    p_value double precision[],
    p_is_new boolean,
    OUT codes integer[]
)
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    m record;
    v_moved integer := 0;
    -- Of the row that is judged:
    v_level bigint;
    v_level_1 bigint;
    v_level_2 bigint;
    v_level_3 bigint;
    v_previous double precision;
    v_deviation double precision;
    v_distance double precision;
    v_is_first boolean;
    -- What enters the ring and what leaves it:
    v_entering bigint;
    v_enters boolean := false;
    v_slot integer;
    v_leaving bigint;
    v_is_leaving_kept boolean;
    -- One element for each memory that is moved along:
    v_n integer[];
    v_place tid[];
    v_levels bigint[];
    v_firsts boolean[];
    v_slots integer[];
    v_changes integer[];
    v_kept boolean[];
    v_base_sum bigint[];
    v_base_squares bigint[];
    v_base_count bigint[];
    v_kept_sum bigint[];
    v_kept_squares bigint[];
    v_kept_count bigint[];
    v_sum_20 bigint[];
    v_squares_20 bigint[];
    v_count_20 bigint[];
    v_starts timestamptz[];
    v_chunks bigint[];
    v_lapses bigint[];
    v_dimension_id integer;
    v_lowest timestamptz;
    v_marks record;
    v_all_lapses bigint;
    v_own_lapses bigint;
BEGIN
    codes := array_fill(NULL::integer, ARRAY[cardinality(p_series)]);
    FOR m IN
        SELECT i.n, i.ts, i.value, o.*, q.baseline_rows, q.min_samples, q.max_change, q.anomaly_z, q.scale_floor,
               q.tick_size, q.market
          FROM unnest(p_series, p_ts, p_value) WITH ORDINALITY AS i (series, ts, value, n)
         CROSS JOIN LATERAL (
                   SELECT k.ctid AS place, k.*
                     FROM _tidemark.series_memory AS k
                    WHERE k.hypertable = p_hypertable AND k.series = i.series
                      FOR NO KEY UPDATE SKIP LOCKED
               ) AS o
          JOIN public.quality_profiles AS q ON q.quality_profile_id = o.quality_profile_id
         WHERE i.value IS NOT NULL
           AND o.newest IS NOT NULL
           AND CASE WHEN p_is_new THEN i.ts > o.newest_at ELSE i.ts = o.newest_at END
    LOOP
        v_level := (ln(m.value) * 1e7)::bigint;
        v_is_first := m.is_first;
        IF p_is_new THEN
            v_previous := m.newest;
            v_level_1 := m.level_1;
            v_level_2 := m.level_2;
            v_level_3 := m.level_3;
            -- The newest value so far enters the ring, and what is baseline_rows behind it leaves.
            v_entering := CASE WHEN m.is_first THEN NULL ELSE v_level_1 - v_level_2 END;
            v_entering := CASE WHEN v_entering > 90000000 THEN 90000000 WHEN v_entering < -90000000 THEN -90000000
                               ELSE v_entering END;
            v_enters := CASE
                WHEN v_entering IS NULL THEN false
                WHEN m.base_count < m.min_samples THEN true
                ELSE abs(v_entering::double precision - m.base_sum::double precision / nullif(m.base_count, 0))
                     <= 4 * greatest(
                         sqrt(greatest(m.base_squares - m.base_sum::double precision * m.base_sum
                                                        / nullif(m.base_count, 0), 0) / nullif(m.base_count - 1, 0)),
                         1e7 * greatest(m.scale_floor, coalesce(m.tick_size, 0) / m.previous)
                     )
            END;
            v_slot := m.row_count % m.baseline_rows + 1;
            v_leaving := m.changes[v_slot];
            v_is_leaving_kept := m.is_kept[v_slot];
            m.base_sum := m.base_sum + coalesce(v_entering, 0) - coalesce(v_leaving, 0);
            m.base_squares := m.base_squares + coalesce(v_entering * v_entering, 0) - coalesce(v_leaving * v_leaving, 0);
            m.base_count := m.base_count + (v_entering IS NOT NULL)::integer - (v_leaving IS NOT NULL)::integer;
            IF v_is_leaving_kept THEN
                m.kept_sum := m.kept_sum - v_leaving;
                m.kept_squares := m.kept_squares - v_leaving * v_leaving;
                m.kept_count := m.kept_count - 1;
            END IF;
            IF m.row_count >= 20 AND m.is_kept[(m.row_count - 20) % m.baseline_rows + 1] THEN
                v_leaving := m.changes[(m.row_count - 20) % m.baseline_rows + 1];
                m.sum_20 := m.sum_20 - v_leaving;
                m.squares_20 := m.squares_20 - v_leaving * v_leaving;
                m.count_20 := m.count_20 - 1;
            END IF;
            IF v_enters THEN
                m.kept_sum := m.kept_sum + v_entering;
                m.kept_squares := m.kept_squares + v_entering * v_entering;
                m.kept_count := m.kept_count + 1;
                m.sum_20 := m.sum_20 + v_entering;
                m.squares_20 := m.squares_20 + v_entering * v_entering;
                m.count_20 := m.count_20 + 1;
            END IF;
            v_is_first := m.market IS NOT NULL AND m.ts - m.newest_at > m.step AND m.step > interval '0'
                AND m.step < interval '1 day' AND _tidemark.opens_between(m.market, m.newest_at, m.ts);
        ELSE
            v_previous := m.previous;
            v_level_1 := m.level_2;
            v_level_2 := m.level_3;
            v_level_3 := m.level_4;
        END IF;

        -- As detect_logs has it; a hair is left for what is decided exactly there.
        codes[m.n] := 0;
        IF v_is_first OR abs(m.value - v_previous) / v_previous >= m.max_change * 0.999999 THEN
            codes[m.n] := 1;
        ELSIF m.kept_count >= m.min_samples THEN
            v_deviation := v_level - CASE
                WHEN v_level_3 IS NULL THEN v_level_2
                ELSE v_level_1 + v_level_2 + v_level_3 - greatest(v_level_1, v_level_2, v_level_3)
                     - least(v_level_1, v_level_2, v_level_3)
            END;
            v_distance := least(90000000, greatest(-90000000, v_level - v_level_1))
                - m.kept_sum::double precision / m.kept_count;
            IF least(abs(v_deviation), abs(v_distance)) > 0.999999 * m.anomaly_z * greatest(
                sqrt(greatest(m.kept_squares - m.kept_sum::double precision * m.kept_sum / m.kept_count, 0)
                     / nullif(m.kept_count - 1, 0)),
                sqrt(greatest(m.squares_20 - m.sum_20::double precision * m.sum_20 / nullif(m.count_20, 0), 0)
                     / nullif(m.count_20 - 1, 0)),
                1e7 * greatest(m.scale_floor, coalesce(m.tick_size, 0) / v_previous)
            ) THEN
                codes[m.n] := 1;
            END IF;
        END IF;

        v_moved := v_moved + 1;
        v_n[v_moved] := m.n;
        v_place[v_moved] := m.place;
        v_levels[v_moved] := v_level;
        v_starts[v_moved] := m.starts_at;
        v_lowest := least(v_lowest, m.starts_at);
        v_dimension_id := m.dimension_id;
        v_chunks[v_moved] := m.chunks;
        v_lapses[v_moved] := m.lapses;
        IF p_is_new THEN
            v_firsts[v_moved] := v_is_first;
            v_slots[v_moved] := v_slot;
            v_changes[v_moved] := v_entering;
            v_kept[v_moved] := v_enters;
            v_base_sum[v_moved] := m.base_sum;
            v_base_squares[v_moved] := m.base_squares;
            v_base_count[v_moved] := m.base_count;
            v_kept_sum[v_moved] := m.kept_sum;
            v_kept_squares[v_moved] := m.kept_squares;
            v_kept_count[v_moved] := m.kept_count;
            v_sum_20[v_moved] := m.sum_20;
            v_squares_20[v_moved] := m.squares_20;
            v_count_20[v_moved] := m.count_20;
        END IF;
    END LOOP;
    IF v_moved = 0 THEN
        RETURN;
    ELSIF p_is_new THEN
        UPDATE _tidemark.series_memory AS o
           SET newest_at = p_ts[i.n],
               newest = p_value[i.n],
               previous = o.newest,
               level_1 = i.level,
               level_2 = o.level_1,
               level_3 = o.level_2,
               level_4 = o.level_3,
               is_first = i.is_first,
               row_count = o.row_count + 1,
               changes[i.slot] = i.change,
               is_kept[i.slot] = i.is_kept,
               base_sum = i.base_sum,
               base_squares = i.base_squares,
               base_count = i.base_count,
               kept_sum = i.kept_sum,
               kept_squares = i.kept_squares,
               kept_count = i.kept_count,
               sum_20 = i.sum_20,
               squares_20 = i.squares_20,
               count_20 = i.count_20
          FROM unnest(v_n, v_place, v_levels, v_firsts, v_slots, v_changes, v_kept, v_base_sum, v_base_squares, v_base_count,
                      v_kept_sum, v_kept_squares, v_kept_count, v_sum_20, v_squares_20, v_count_20)
               AS i (n, place, level, is_first, slot, change, is_kept, base_sum, base_squares, base_count, kept_sum,
                     kept_squares, kept_count, sum_20, squares_20, count_20)
         WHERE o.ctid = i.place;
    ELSE
        UPDATE _tidemark.series_memory AS o
           SET newest = p_value[i.n],
               level_1 = i.level
          FROM unnest(v_n, v_place, v_levels) AS i (n, place, level)
         WHERE o.ctid = i.place;
    END IF;

    -- Whether that was certain is asked afterwards: now that it is locked, nobody else changes a memory.
    v_marks := _tidemark.chunk_marks(v_dimension_id, v_lowest);
    SELECT coalesce(sum(l.weight) FILTER (WHERE l.series IS NULL), 0), coalesce(sum(l.weight), 0)
      INTO v_all_lapses, v_own_lapses
      FROM _tidemark.memory_lapses AS l
     WHERE l.hypertable = p_hypertable;
    v_own_lapses := v_own_lapses - v_all_lapses;
    FOR i IN 1 .. v_moved LOOP
        IF v_chunks[i] <> v_marks.marks[width_bucket(p_ts[v_n[i]], v_marks.starts) + 1]
                          # v_marks.marks[width_bucket(v_starts[i], v_marks.ends) + 1]
           OR (v_own_lapses = 0 AND v_lapses[i] <> v_all_lapses)
           OR (v_own_lapses > 0 AND v_lapses[i] <> _tidemark.lapses_of(p_hypertable, p_series[v_n[i]])) THEN
            codes[v_n[i]] := NULL;
        END IF;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.recall(regclass, jsonb [], timestamptz [], double precision [], boolean) IS
'Judges the next or newest rows of series by what is remembered of them, and moves that along.';

-- Builds the memories of series from their rows before p_before, the times of new rows. What is not locked, has rows
-- after that time, or is judged by another transform than the change of logarithms, is passed over.
CREATE OR REPLACE FUNCTION _tidemark.remember(
    p_hypertable regclass,
    p_series jsonb[],
    p_before timestamptz[]
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = 'auto'
AS $func$
DECLARE
    v_target _tidemark.quality_targets;
    v_dimension_id integer;
    v_held jsonb[];
    v_group record;
    v_profile public.quality_profiles;
    v_read record;
    v_marks record;
BEGIN
    SELECT t.* INTO STRICT v_target FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable;
    SELECT d.id INTO STRICT v_dimension_id
      FROM pg_catalog.pg_class AS r
      JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
      JOIN _timescaledb_catalog.hypertable AS h ON h.schema_name = n.nspname AND h.table_name = r.relname
      JOIN _timescaledb_catalog.dimension AS d ON d.hypertable_id = h.id AND d.interval_length IS NOT NULL
     WHERE r.oid = p_hypertable;
    v_held := ARRAY(SELECT h FROM _tidemark.hold_memories(p_hypertable, p_series) AS h);
    -- Lapses are counted before the rows are read: one that comes in between is one too many, and none is missed.
    FOR v_group IN
        SELECT p.quality_profile_id, p.step, array_agg(i.series ORDER BY p.n) AS series,
               array_agg(i.before ORDER BY p.n) AS before,
               array_agg(_tidemark.lapses_of(p_hypertable, i.series) ORDER BY p.n) AS lapses
          FROM _tidemark.series_profiles(v_target, p_series) AS p
          JOIN unnest(p_series, p_before) WITH ORDINALITY AS i (series, before, n) ON i.n = p.n
          JOIN public.quality_profiles AS q ON q.quality_profile_id = p.quality_profile_id
         WHERE i.series = ANY (v_held)
           AND q.transform = 'log_return'
         GROUP BY p.quality_profile_id, p.step
    LOOP
        SELECT q.* INTO STRICT v_profile
          FROM public.quality_profiles AS q
         WHERE q.quality_profile_id = v_group.quality_profile_id;
        EXECUTE format('SELECT * FROM _tidemark.%I($1, $2, $2, NULL, NULL, $3, $4, true, true, 10000000)',
                       'read_' || v_target.stem)
           INTO v_read
          USING v_group.series, v_group.before, v_profile, v_group.step;
        CONTINUE WHEN v_read.island IS NULL;
        v_marks := _tidemark.chunk_marks(v_dimension_id, v_read.lowest);
        UPDATE _tidemark.series_memory AS m
           SET newest_at = b.newest_at,
               newest = b.recent[1],
               previous = b.recent[2],
               level_1 = (ln(b.recent[1]) * 1e7)::bigint,
               level_2 = (ln(b.recent[2]) * 1e7)::bigint,
               level_3 = (ln(b.recent[3]) * 1e7)::bigint,
               level_4 = (ln(b.recent[4]) * 1e7)::bigint,
               is_first = b.is_first,
               row_count = cardinality(b.changes),
               changes = b.changes,
               is_kept = b.is_kept,
               base_sum = b.base_sum,
               base_squares = b.base_squares,
               base_count = b.base_count,
               kept_sum = coalesce(b.kept_sum, 0),
               kept_squares = coalesce(b.kept_squares, 0),
               kept_count = b.kept_count,
               sum_20 = coalesce(b.sum_20, 0),
               squares_20 = coalesce(b.squares_20, 0),
               count_20 = b.count_20,
               quality_profile_id = v_group.quality_profile_id,
               step = v_group.step,
               dimension_id = v_dimension_id,
               starts_at = b.starts_at,
               chunks = v_marks.marks[width_bucket(b.newest_at, v_marks.starts) + 1]
                        # v_marks.marks[width_bucket(b.starts_at, v_marks.ends) + 1],
               lapses = v_group.lapses[b.island]
          FROM (
            SELECT w.island, max(w.ts) AS newest_at, min(w.starts_at) AS starts_at,
                   array_agg(w.value ORDER BY w.ts DESC) FILTER (WHERE w.age <= 4) AS recent,
                   bool_or(w.is_first) FILTER (WHERE w.age = 1) AS is_first,
                   coalesce(array_agg(w.base::integer ORDER BY w.ts) FILTER (WHERE w.age > 1), '{}') AS changes,
                   coalesce(array_agg(w.is_kept ORDER BY w.ts) FILTER (WHERE w.age > 1), '{}') AS is_kept,
                   max(w.base_sum) FILTER (WHERE w.age = 1) AS base_sum,
                   max(w.base_squares) FILTER (WHERE w.age = 1) AS base_squares,
                   max(w.base_count) FILTER (WHERE w.age = 1) AS base_count,
                   sum(w.base) FILTER (WHERE w.is_kept AND w.age > 1)::bigint AS kept_sum,
                   sum(w.base * w.base) FILTER (WHERE w.is_kept AND w.age > 1)::bigint AS kept_squares,
                   count(*) FILTER (WHERE w.is_kept AND w.age > 1) AS kept_count,
                   sum(w.base) FILTER (WHERE w.is_kept AND w.age BETWEEN 2 AND 21)::bigint AS sum_20,
                   sum(w.base * w.base) FILTER (WHERE w.is_kept AND w.age BETWEEN 2 AND 21)::bigint AS squares_20,
                   count(*) FILTER (WHERE w.is_kept AND w.age BETWEEN 2 AND 21) AS count_20
              FROM (
                SELECT s.*,
                       CASE
                           WHEN s.base IS NULL THEN false
                           WHEN s.base_count < v_profile.min_samples THEN true
                           ELSE abs(s.base::double precision - s.base_sum::double precision / nullif(s.base_count, 0))
                                <= 4 * greatest(
                                    sqrt(greatest(s.base_squares - s.base_sum::double precision * s.base_sum
                                                                   / nullif(s.base_count, 0), 0)
                                         / nullif(s.base_count - 1, 0)),
                                    1e7 * greatest(v_profile.scale_floor, coalesce(v_profile.tick_size, 0) / s.previous)
                                )
                       END AS is_kept
                  FROM (
                    SELECT b.*,
                           _tidemark.moving_sum(b.base) OVER n_rows AS base_sum,
                           _tidemark.moving_sum(b.base * b.base) OVER n_rows AS base_squares,
                           count(b.base) OVER n_rows AS base_count
                      FROM (
                        SELECT f.*, CASE WHEN NOT f.is_first THEN f.change END AS base
                          FROM (
                            SELECT c.island, c.ts, c.value, c.previous, c.age, c.starts_at,
                                   CASE WHEN c.level - c.level_1 > 90000000 THEN 90000000
                                        WHEN c.level - c.level_1 < -90000000 THEN -90000000
                                        ELSE c.level - c.level_1 END AS change,
                                   CASE WHEN _tidemark.has_sessions(v_profile, v_group.step)
                                             AND c.ts - c.previous_at > v_group.step
                                        THEN _tidemark.opens_between(v_profile.market, c.previous_at, c.ts)
                                        ELSE false END AS is_first
                              FROM (
                                SELECT v.*, lag(v.level) OVER by_time AS level_1, lag(v.value) OVER by_time AS previous,
                                       lag(v.ts) OVER by_time AS previous_at
                                  FROM (
                                    SELECT r.island, r.ts, r.value, (ln(r.value) * 1e7)::bigint AS level,
                                           row_number() OVER (PARTITION BY r.island ORDER BY r.ts DESC) AS age,
                                           min(r.ts) OVER (PARTITION BY r.island) AS starts_at
                                      FROM unnest(v_read.island, v_read.ts, v_read.value, v_read.is_usable)
                                           AS r (island, ts, value, is_usable)
                                     WHERE r.is_usable
                                       AND r.ts < v_group.before[r.island]
                                  ) AS v
                                WINDOW by_time AS (PARTITION BY v.island ORDER BY v.ts)
                              ) AS c
                            OFFSET 0
                          ) AS f
                      ) AS b
                    WINDOW n_rows AS (
                        PARTITION BY b.island ORDER BY b.ts ROWS BETWEEN v_profile.baseline_rows PRECEDING
                        AND 1 PRECEDING
                    )
                  ) AS s
              ) AS w
             WHERE w.age <= v_profile.baseline_rows + 1
               AND w.island NOT IN (
                   SELECT r.island FROM unnest(v_read.island, v_read.ts) AS r (island, ts)
                    WHERE r.ts > v_group.before[r.island]
               )
             GROUP BY w.island
          ) AS b
         WHERE m.hypertable = p_hypertable
           AND m.series = v_group.series[b.island];
    END LOOP;

    -- Many lapses of a series become one of the same weight.
    WITH many AS (
        SELECT l.ctid AS place
          FROM _tidemark.memory_lapses AS l
         WHERE l.hypertable = p_hypertable
           AND (l.series = ANY (v_held) OR l.series IS NULL)
           AND (SELECT count(*) FROM _tidemark.memory_lapses AS o
                 WHERE o.hypertable = p_hypertable AND o.series IS NOT DISTINCT FROM l.series) > 16
           FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM _tidemark.memory_lapses AS l
         USING many AS m
         WHERE l.ctid = m.place
        RETURNING l.series, l.weight
    )
    INSERT INTO _tidemark.memory_lapses (hypertable, series, weight)
    SELECT p_hypertable, g.series, sum(g.weight) FROM gone AS g GROUP BY g.series;
END
$func$;
COMMENT ON FUNCTION _tidemark.remember(regclass, jsonb [], timestamptz []) IS
'Builds the memories of series from their rows before new ones.';

-- recall(), after building the memories that are missing or void. Where the transaction sees an older state of the rows
-- than others (REPEATABLE READ), nothing is remembered: a memory would be ahead of it.
CREATE OR REPLACE FUNCTION _tidemark.recall_or_build(
    p_hypertable regclass,
    p_series jsonb[],
    p_ts timestamptz[],
    p_value double precision[],
    p_is_new boolean,
    OUT codes integer[]
)
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_unknown integer[];
    v_again integer[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN;
    END IF;
    codes := _tidemark.recall(p_hypertable, p_series, p_ts, p_value, p_is_new);
    IF array_position(codes, NULL) IS NULL THEN
        RETURN;
    END IF;
    v_unknown := ARRAY(
        SELECT i.n
          FROM unnest(p_series, p_ts, p_value, codes) WITH ORDINALITY AS i (series, ts, value, code, n)
          LEFT JOIN _tidemark.series_memory AS m ON m.hypertable = p_hypertable AND m.series = i.series
         WHERE i.code IS NULL
           AND i.value IS NOT NULL
           -- Else there are rows after it.
           AND (i.ts < m.newest_at AND m.lapses = _tidemark.lapses_of(p_hypertable, i.series)) IS NOT TRUE
    );
    IF v_unknown = '{}' THEN
        RETURN;
    END IF;
    PERFORM _tidemark.remember(p_hypertable, array_agg(p_series[u.n]), array_agg(p_ts[u.n]))
       FROM unnest(v_unknown) AS u (n);
    -- The version of a newest row of which nothing is remembered is judged as the next one.
    SELECT _tidemark.recall(p_hypertable, array_agg(p_series[u.n]), array_agg(p_ts[u.n]), array_agg(p_value[u.n]), true)
      INTO v_again
      FROM unnest(v_unknown) AS u (n);
    -- The rules asked for their profile in vain, or for an older one.
    FOR i IN 1 .. cardinality(v_unknown) LOOP
        codes[v_unknown[i]] := CASE WHEN v_again[i] IS NOT NULL THEN 1 END;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.recall_or_build(regclass, jsonb [], timestamptz [], double precision [], boolean) IS
'Judges the next or newest rows of series by what is remembered of them, building what is missing first.';
