-- What the engine remembers of a series (series_memory), so that its next row is judged without reading the rows before
-- it. A memory is a cache and is used only where it is certain to be what the rows would give:
--
-- * Whoever adds the next row of a series, or replaces the newest one, locks the memory and moves it along. Whoever
--   changes anything else locks and voids it, or, where somebody else holds it, leaves a lapse. Nobody ever waits for a
--   memory, so that two feeds with series in common cannot deadlock.
-- * Lapses are counted by weight: a memory knows the weight that its builder saw. One whose lapses were added since, or
--   by a transaction that was under way then, no longer adds up.
-- * A chunk that was dropped is missed among those that there were.
-- * What shapes a baseline (profiles, the sources' links to them, markets, calendars, splits, reviews of errors) leaves
--   lapses; so do rows that are written where triggers do not run, through a constraint of the hypertable.
--
-- What leaves no trace are rows that are deleted where triggers do not run, and rows that are written into a chunk
-- itself: then rescore() the series, which also voids what is remembered of it.

-- Leaves a lapse for some series, or for all of the hypertable where p_series is NULL.
CREATE OR REPLACE FUNCTION _tidemark.lapse(
    p_hypertable regclass,
    p_series jsonb[]
)
    RETURNS text
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    INSERT INTO _tidemark.memory_lapses (hypertable, series)
    SELECT p_hypertable, NULL WHERE p_series IS NULL
     UNION ALL
    SELECT p_hypertable, s.series FROM unnest(p_series) AS s (series);
    -- Its own transaction alone sees it now: see recall().
    SELECT set_config('tidemark.has_lapsed', 'on', true);
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
DECLARE
    v_held jsonb[] := '{}';
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
    BEGIN
        v_held := ARRAY(
            SELECT m.series
              FROM _tidemark.series_memory AS m
             WHERE m.hypertable = p_hypertable AND m.series = ANY (p_series)
               FOR NO KEY UPDATE SKIP LOCKED
        );
    EXCEPTION WHEN lock_not_available THEN
        NULL; -- SKIP LOCKED waits all the same where a row was changed meanwhile and its new version is locked
    END;
    RETURN QUERY SELECT h.series FROM unnest(v_held) AS h (series);
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
        WITH changed AS MATERIALIZED ( -- as in remember()
            SELECT s.series, max(s.ends_at) AS newest_at, _tidemark.lapses_of(p_hypertable, s.series) AS lapses
              FROM unnest(p_series, p_to) AS s (series, ends_at)
             GROUP BY s.series
        )
        UPDATE _tidemark.series_memory AS m
           SET newest = NULL,
               newest_at = CASE WHEN m.lapses = i.lapses THEN greatest(m.newest_at, i.newest_at) ELSE i.newest_at END,
               lapses = i.lapses
          FROM changed AS i
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

-- The chunks that a hypertable has, as one number: how many, and the highest number of one.
CREATE OR REPLACE FUNCTION _tidemark.chunks_of(p_hypertable regclass)
    RETURNS bigint
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN (SELECT (count(*) << 32) + coalesce(max(i.inhrelid::bigint), 0)
              FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = p_hypertable);
END
$func$;
COMMENT ON FUNCTION _tidemark.chunks_of(regclass) IS
'Number of chunks of a hypertable, times 2^32, and the highest number of one: see has_chunks.';

-- Of what chunks_of() told once: whether all of those chunks are still there.
CREATE OR REPLACE FUNCTION _tidemark.has_chunks(
    p_hypertable regclass,
    p_chunks bigint
)
    RETURNS boolean
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN p_chunks >> 32 = (
        SELECT count(*) FROM pg_catalog.pg_inherits AS i
         WHERE i.inhparent = p_hypertable AND i.inhrelid::bigint <= p_chunks & 4294967295
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.has_chunks(regclass, bigint) IS
'Whether all chunks that there were, of which series_memory.chunks tells, are still there.';

-- Builds the memories of series from their rows up to p_ts, the times of their newest rows. What somebody else holds,
-- has rows after that time or does not show the one at it, or is judged by another transform than the change of
-- logarithms, is passed over. p_is_news says that these rows come from a feed just now, so that they are late where
-- they follow such rows. Returns the series of which something is remembered now.
CREATE OR REPLACE FUNCTION _tidemark.remember(
    p_hypertable regclass,
    p_series jsonb[],
    p_ts timestamptz[],
    p_is_news boolean
)
    RETURNS jsonb[]
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = 'auto'
AS $func$
DECLARE
    v_target _tidemark.quality_targets;
    v_held jsonb[];
    v_group record;
    v_profile public.quality_profiles;
    v_read record;
    v_begin record; -- of the series that begin here
    v_shift bigint[];
    v_chunks CONSTANT bigint := _tidemark.chunks_of(p_hypertable);
    v_some jsonb[];
    v_built jsonb[] := '{}';
BEGIN
    SELECT t.* INTO STRICT v_target FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable;
    v_held := ARRAY(SELECT h FROM _tidemark.hold_memories(p_hypertable, p_series) AS h);
    PERFORM set_config('tidemark.split_lapsed', '', true); -- see lapse_split()
    -- Lapses are counted before the rows are read: one that comes in between is one too many, and none is missed.
    FOR v_group IN
        SELECT p.quality_profile_id, p.step, p.market, array_agg(i.series ORDER BY p.n) AS series,
               array_agg(p.asset_id ORDER BY p.n) AS assets,
               array_agg(i.ts ORDER BY p.n) AS newest_ts,
               array_agg(_tidemark.lapses_of(p_hypertable, i.series) ORDER BY p.n) AS lapses
          FROM _tidemark.series_profiles(v_target, p_series) AS p
          JOIN unnest(p_series, p_ts) WITH ORDINALITY AS i (series, ts, n) ON i.n = p.n
         WHERE i.series = ANY (v_held)
           AND p.transform = 'log_return'
         GROUP BY p.quality_profile_id, p.step, p.market
    LOOP
        v_profile := _tidemark.profile_for(v_group.quality_profile_id, 'log_return', v_group.market);
        EXECUTE format('SELECT * FROM _tidemark.%I($1, $2, $2, NULL, NULL, $3, $4, true, true, 10000000)',
                       'read_' || v_target.stem)
           INTO v_read
          USING v_group.series, v_group.newest_ts, v_profile, v_group.step;
        CONTINUE WHEN v_read.island IS NULL;
        v_shift := _tidemark.split_shifts(v_group.assets, v_read.island, v_read.ts, v_read.value, v_read.is_usable,
                                          v_read.lowest, v_read.highest);
        SELECT b.* INTO v_begin
          FROM _tidemark.beginnings(
                   cardinality(v_group.series), v_read.first_island, v_read.first_ts, v_read.first_value, v_profile,
                   v_group.step, _tidemark.split_shifts(v_group.assets, v_read.first_island, v_read.first_ts,
                                                        v_read.first_value, NULL, v_read.lowest, v_read.highest)
               ) AS b;
        -- Materialized, because a planner that thinks of few memories would do it once for each of them.
        WITH fresh AS MATERIALIZED (
            SELECT w.island, max(w.ts) AS newest_at,
                   array_agg(w.value ORDER BY w.ts DESC) FILTER (WHERE w.age <= 4) AS recent,
                   array_agg(w.shift ORDER BY w.ts DESC) FILTER (WHERE w.age <= 4) AS shifts,
                   max(w.previous) FILTER (WHERE w.age = 1) AS previous,
                   array_agg(w.volume ORDER BY w.ts DESC) FILTER (WHERE w.age <= 2) AS volumes,
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
                                    1e7 * greatest(v_profile.scale_floor,
                                                   coalesce(v_profile.tick_size, 0) / s.previous)
                                )
                       END AS is_kept
                  FROM (
                    SELECT b.*,
                           _tidemark.moving_sum(b.base) OVER n_rows AS base_sum,
                           _tidemark.moving_sum(b.base * b.base) OVER n_rows AS base_squares,
                           count(b.base) OVER n_rows AS base_count
                      FROM (
                        SELECT f.*,
                               CASE WHEN f.is_first THEN NULL
                                    WHEN f.ts <= v_begin.block_end[f.island]
                                         AND abs(f.change::double precision - v_begin.middle[f.island])
                                             > 4 * greatest(v_begin.reach[f.island],
                                                            1e7 * greatest(v_profile.scale_floor,
                                                                           coalesce(v_profile.tick_size, 0) / f.previous))
                                    THEN NULL
                                    ELSE f.change END AS base
                          FROM (
                            SELECT c.island, c.ts, c.value, c.shift, c.volume, c.previous, c.age,
                                   CASE WHEN c.level - c.level_1 > 90000000 THEN 90000000
                                        WHEN c.level - c.level_1 < -90000000 THEN -90000000
                                        ELSE c.level - c.level_1 END AS change,
                                   CASE WHEN _tidemark.has_sessions(v_profile, v_group.step)
                                             AND c.ts - c.previous_at > v_group.step
                                        THEN _tidemark.opens_between(v_profile.market, c.previous_at, c.ts)
                                        ELSE false END AS is_first
                              FROM (
                                SELECT v.*, lag(v.level) OVER by_time AS level_1,
                                       _tidemark.in_shares_of(lag(v.value) OVER by_time,
                                                              lag(v.shift) OVER by_time - v.shift) AS previous,
                                       lag(v.ts) OVER by_time AS previous_at
                                  FROM (
                                    SELECT r.island, r.ts, r.value, coalesce(r.shift, 0) AS shift, r.volume,
                                           (ln(r.value) * 1e7)::bigint + coalesce(r.shift, 0) AS level,
                                           row_number() OVER (PARTITION BY r.island ORDER BY r.ts DESC) AS age
                                      FROM unnest(v_read.island, v_read.ts, v_read.value, v_read.is_usable,
                                                  v_read.volume, v_shift)
                                           AS r (island, ts, value, is_usable, volume, shift)
                                     WHERE r.is_usable
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
             GROUP BY w.island
        ), built AS (
            UPDATE _tidemark.series_memory AS m
               SET newest_at = b.newest_at,
                   newest = b.recent[1],
                   previous = b.previous,
                   volume = b.volumes[1],
                   previous_volume = b.volumes[2],
                   level_1 = (ln(b.recent[1]) * 1e7)::bigint,
                   level_2 = (ln(b.recent[2]) * 1e7)::bigint + b.shifts[2] - b.shifts[1],
                   level_3 = (ln(b.recent[3]) * 1e7)::bigint + b.shifts[3] - b.shifts[1],
                   level_4 = (ln(b.recent[4]) * 1e7)::bigint + b.shifts[4] - b.shifts[1],
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
                   market = v_group.market,
                   split_from = (SELECT min(_tidemark.action_starts_at(a)) - interval '24 hours'
                                   FROM public.corporate_actions AS a
                                  WHERE a.asset_id = v_group.assets[b.island] AND a.status = 'confirmed'
                                    AND _tidemark.action_starts_at(a) >= b.newest_at - interval '96 hours'),
                   is_live = clock_timestamp() <= b.newest_at + v_group.step
                                                  + _tidemark.allowed_lag(v_profile.allowed_lag, v_group.step)
                       OR _tidemark.was_live(v_target, m.series,
                                              CASE WHEN p_is_news THEN b.newest_at ELSE 'infinity' END,
                                             v_profile, v_group.step),
                   chunks = v_chunks,
                   lapses = v_group.lapses[b.island]
              FROM fresh AS b
             WHERE m.hypertable = p_hypertable
               AND m.series = v_group.series[b.island]
               AND b.newest_at = v_group.newest_ts[b.island]
            RETURNING m.series
        )
        SELECT array_agg(b.series) INTO v_some FROM built AS b;
        v_built := v_built || coalesce(v_some, '{}');
    END LOOP;

    -- Many lapses of a series become one of the same weight. Counted once, not for each lapse: many feeds leave many.
    WITH counted AS MATERIALIZED (
        SELECT o.series
          FROM _tidemark.memory_lapses AS o
         WHERE o.hypertable = p_hypertable
           AND (o.series IS NULL OR o.series IN (SELECT h FROM unnest(v_held) AS h))
         GROUP BY o.series
        HAVING count(*) > 16
    ), many AS (
        SELECT l.ctid AS place
          FROM _tidemark.memory_lapses AS l
         WHERE l.hypertable = p_hypertable
           AND (l.series IN (SELECT c.series FROM counted AS c)
                OR (l.series IS NULL AND EXISTS (SELECT FROM counted AS c WHERE c.series IS NULL)))
           FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM _tidemark.memory_lapses AS l
         USING many AS m
         WHERE l.ctid = m.place
        RETURNING l.series, l.weight
    )
    INSERT INTO _tidemark.memory_lapses (hypertable, series, weight)
    SELECT p_hypertable, g.series, sum(g.weight) FROM gone AS g GROUP BY g.series;
    RETURN v_built;
END
$func$;
COMMENT ON FUNCTION _tidemark.remember(regclass, jsonb [], timestamptz [], boolean) IS
'Builds the memories of series from their rows; returns the series of which something is remembered.';

-- Notes bars that look like an anomaly while they form, and when they close.
CREATE OR REPLACE FUNCTION _tidemark.wait_for_close(
    p_hypertable regclass,
    p_series jsonb[],
    p_ts timestamptz[],
    p_closes_at timestamptz[]
)
    RETURNS void
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    INSERT INTO _tidemark.waiting_bars (hypertable, series, ts, closes_at)
    SELECT p_hypertable, i.series, i.ts, i.closes_at
      FROM unnest(p_series, p_ts, p_closes_at) AS i (series, ts, closes_at)
     WHERE NOT EXISTS (
               SELECT FROM _tidemark.waiting_bars AS w
                WHERE w.hypertable = p_hypertable AND w.closes_at = i.closes_at AND w.series = i.series AND w.ts = i.ts
           );
$func$;
COMMENT ON FUNCTION _tidemark.wait_for_close(regclass, jsonb [], timestamptz [], timestamptz []) IS
'Notes bars that look like an anomaly while they form.';

-- Judges rows by what is remembered of their series and moves that along: each the next row of its series (p_is_new),
-- or another version of its newest. p_rows is a cursor over the rows, with
--
--     series, ts, value (NULL where it is no reference for others), row_count (how many rows of the series there are),
--     is_suspect (whether something else is wrong with the row), place, memory and profile (of the series, locked; NULL
--     where there is none), lapses, has_own_lapses and chunks (of the hypertable).
--
-- What comes back are the number of rows and those of them that are to be looked at: because they are suspect, or the
-- detector may flag them, or they may be a jump, or nothing certain is known. Of the latter a memory is built where
-- they are the newest of their series; else it is void from now on.
CREATE OR REPLACE FUNCTION _tidemark.recall(
    p_hypertable regclass,
    p_rows refcursor,
    p_is_new boolean,
    p_is_live boolean,
    p_now timestamptz,
    OUT row_count bigint,
    OUT series jsonb[],
    OUT ts timestamptz[]
)
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    r record;
    m _tidemark.series_memory;
    q public.quality_profiles;
    v_has_lapsed CONSTANT boolean := coalesce(current_setting('tidemark.has_lapsed', true), '') = 'on';
    -- Of the row that is judged:
    v_level bigint;
    v_level_1 bigint;
    v_level_2 bigint;
    v_level_3 bigint;
    v_previous double precision;
    v_deviation double precision;
    v_distance double precision;
    v_scale double precision;
    v_is_noteworthy boolean;
    v_may_stand_out boolean;
    v_closes_at timestamptz;
    -- What enters the ring and what leaves it:
    v_entering bigint;
    v_enters boolean;
    v_slot integer;
    v_slot_20 integer;
    v_leaving bigint;
    -- What was moved along, and where it lies:
    v_place tid[];
    v_moved _tidemark.series_memory[];
    v_count integer := 0;
    -- Rows of which nothing certain is known, and which of them may be the newest:
    v_unknown jsonb[];
    v_unknown_ts timestamptz[];
    v_newest jsonb[];
    v_newest_ts timestamptz[];
    v_built jsonb[];
    -- Rows that may stand out, but are still forming:
    v_waiting jsonb[];
    v_waiting_ts timestamptz[];
    v_waiting_until timestamptz[];
BEGIN
    row_count := 0;
    LOOP
        FETCH p_rows INTO r;
        EXIT WHEN NOT FOUND;
        row_count := row_count + 1;
        m := r.memory;
        IF m.newest IS NULL OR r.value IS NULL OR r.row_count > 1
           OR r.ts < m.newest_at OR (r.ts = m.newest_at) = p_is_new
           OR (NOT r.has_own_lapses AND m.lapses <> r.lapses)
           OR (r.has_own_lapses AND m.lapses <> _tidemark.lapses_of(p_hypertable, r.series))
           -- Somebody else's lapse in the meantime must not make up for one of this transaction.
           OR (v_has_lapsed AND m.lapses <> _tidemark.lapses_of(p_hypertable, r.series))
           OR (m.chunks <> r.chunks AND NOT _tidemark.has_chunks(p_hypertable, m.chunks))
           OR r.ts >= m.split_from -- a split may explain the change
           -- Where a series begins, its first rows are judged together, and the baselines with them: see beginnings().
           OR (m.kept_count <= (r.profile).min_samples AND m.row_count + 1 >= (r.profile).min_samples
               AND m.row_count < 2 * (r.profile).min_samples + 4)
        THEN
            series := series || r.series;
            ts := ts || r.ts;
            IF r.row_count = 1 AND r.value IS NOT NULL
               AND (r.ts < m.newest_at AND m.lapses = _tidemark.lapses_of(p_hypertable, r.series)) IS NOT TRUE THEN
                v_newest := v_newest || r.series;
                v_newest_ts := v_newest_ts || r.ts;
            ELSE
                v_unknown := v_unknown || r.series;
                v_unknown_ts := v_unknown_ts || r.ts;
            END IF;
            CONTINUE;
        END IF;
        q := r.profile;
        q.market := m.market;
        v_level := (ln(r.value) * 1e7)::bigint;
        IF p_is_new THEN
            -- The newest value so far enters the ring, and what is baseline_rows behind it leaves.
            v_entering := CASE WHEN m.is_first THEN NULL
                               WHEN m.level_1 - m.level_2 > 90000000 THEN 90000000
                               WHEN m.level_1 - m.level_2 < -90000000 THEN -90000000
                               ELSE m.level_1 - m.level_2 END;
            v_enters := CASE
                WHEN v_entering IS NULL THEN false
                WHEN m.base_count < q.min_samples THEN true
                ELSE abs(v_entering::double precision - m.base_sum::double precision / nullif(m.base_count, 0))
                     <= 4 * greatest(
                         sqrt(greatest(m.base_squares - m.base_sum::double precision * m.base_sum
                                                        / nullif(m.base_count, 0), 0) / nullif(m.base_count - 1, 0)),
                         1e7 * greatest(q.scale_floor, coalesce(q.tick_size, 0) / m.previous)
                     )
            END;
            v_slot := m.row_count % q.baseline_rows + 1;
            v_leaving := m.changes[v_slot];
            IF v_leaving IS NOT NULL THEN
                m.base_sum := m.base_sum - v_leaving;
                m.base_squares := m.base_squares - v_leaving * v_leaving;
                m.base_count := m.base_count - 1;
                IF m.is_kept[v_slot] THEN
                    m.kept_sum := m.kept_sum - v_leaving;
                    m.kept_squares := m.kept_squares - v_leaving * v_leaving;
                    m.kept_count := m.kept_count - 1;
                END IF;
            END IF;
            v_slot_20 := CASE WHEN m.row_count >= 20 THEN (m.row_count - 20) % q.baseline_rows + 1 END;
            IF m.is_kept[v_slot_20] THEN
                v_leaving := m.changes[v_slot_20];
                m.sum_20 := m.sum_20 - v_leaving;
                m.squares_20 := m.squares_20 - v_leaving * v_leaving;
                m.count_20 := m.count_20 - 1;
            END IF;
            m.changes[v_slot] := v_entering;
            m.is_kept[v_slot] := v_enters;
            m.row_count := m.row_count + 1;
            IF v_entering IS NOT NULL THEN
                m.base_sum := m.base_sum + v_entering;
                m.base_squares := m.base_squares + v_entering * v_entering;
                m.base_count := m.base_count + 1;
                IF v_enters THEN
                    m.kept_sum := m.kept_sum + v_entering;
                    m.kept_squares := m.kept_squares + v_entering * v_entering;
                    m.kept_count := m.kept_count + 1;
                    m.sum_20 := m.sum_20 + v_entering;
                    m.squares_20 := m.squares_20 + v_entering * v_entering;
                    m.count_20 := m.count_20 + 1;
                END IF;
            END IF;
            m.is_first := q.market IS NOT NULL AND r.ts - m.newest_at > m.step AND _tidemark.has_sessions(q, m.step)
                AND _tidemark.opens_between(q.market, m.newest_at, r.ts);
            m.previous := m.newest;
            m.previous_volume := m.volume;
            m.level_4 := m.level_3;
            m.level_3 := m.level_2;
            m.level_2 := m.level_1;
            m.newest_at := r.ts;
            m.is_live := (m.is_live AND p_is_live)
                OR p_now <= r.ts + m.step + _tidemark.allowed_lag(q.allowed_lag, m.step);
        END IF;
        m.newest := r.value;
        m.volume := r.volume;
        m.level_1 := v_level;
        m.chunks := r.chunks;
        v_count := v_count + 1;
        v_place[v_count] := r.place;
        v_moved[v_count] := m;

        -- As detect_logs has it; a hair is left for what is decided exactly there.
        v_is_noteworthy := r.is_suspect OR abs(r.value - m.previous) / m.previous >= q.max_change * 0.999999;
        v_may_stand_out := m.is_first;
        IF NOT v_is_noteworthy AND NOT v_may_stand_out AND m.kept_count >= q.min_samples THEN
            v_deviation := v_level - CASE
                WHEN m.level_4 IS NULL THEN m.level_3
                ELSE m.level_2 + m.level_3 + m.level_4 - greatest(m.level_2, m.level_3, m.level_4)
                     - least(m.level_2, m.level_3, m.level_4)
            END;
            v_distance := least(90000000, greatest(-90000000, v_level - m.level_2))
                - m.kept_sum::double precision / m.kept_count;
            v_scale := greatest(
                sqrt(greatest(m.kept_squares - m.kept_sum::double precision * m.kept_sum / m.kept_count, 0)
                     / nullif(m.kept_count - 1, 0)),
                sqrt(greatest(m.squares_20 - m.sum_20::double precision * m.sum_20 / nullif(m.count_20, 0), 0)
                     / nullif(m.count_20 - 1, 0)),
                1e7 * greatest(q.scale_floor, coalesce(q.tick_size, 0) / m.previous)
            );
            v_may_stand_out := least(abs(v_deviation), abs(v_distance)) > 0.999999 * q.anomaly_z * v_scale
                -- A field of the bar: see fields_… (545).
                OR r.wick * 1e7 > 0.599 * q.anomaly_z * v_scale
                OR (r.body * (r.body * 1e7 + v_level - m.level_2) > 0
                    AND least(abs(r.body * 1e7), abs(r.body * 1e7 + v_level - m.level_2)) > 0.499 * q.anomaly_z * v_scale)
                OR (m.volume >= 0 AND m.previous_volume >= 0 AND greatest(1 + m.volume, 1 + m.previous_volume)
                    > 19.9 * least(1 + m.volume, 1 + m.previous_volume));
        END IF;
        CONTINUE WHEN NOT v_is_noteworthy AND NOT v_may_stand_out;
        -- What may stand out and has no other fault is judged once its bar has closed.
        v_closes_at := CASE WHEN NOT v_is_noteworthy
                            THEN _tidemark.closes_at(r.ts, m.step, q.allowed_lag, p_now) END;
        IF v_closes_at > p_now THEN
            v_waiting := v_waiting || r.series;
            v_waiting_ts := v_waiting_ts || r.ts;
            v_waiting_until := v_waiting_until || v_closes_at;
        ELSE
            series := series || r.series;
            ts := ts || r.ts;
        END IF;
    END LOOP;
    CLOSE p_rows;
    IF v_waiting IS NOT NULL THEN
        PERFORM _tidemark.wait_for_close(p_hypertable, v_waiting, v_waiting_ts, v_waiting_until);
    END IF;
    IF v_count > 0 THEN
        UPDATE _tidemark.series_memory AS o
           SET newest_at = i.newest_at, newest = i.newest, previous = i.previous, volume = i.volume,
               previous_volume = i.previous_volume, level_1 = i.level_1,
               level_2 = i.level_2, level_3 = i.level_3, level_4 = i.level_4, is_first = i.is_first,
               row_count = i.row_count, changes = i.changes, is_kept = i.is_kept, base_sum = i.base_sum,
               base_squares = i.base_squares, base_count = i.base_count, kept_sum = i.kept_sum,
               kept_squares = i.kept_squares, kept_count = i.kept_count, sum_20 = i.sum_20, squares_20 = i.squares_20,
               count_20 = i.count_20, is_live = i.is_live, chunks = i.chunks
          FROM unnest(v_place, v_moved) AS i (place)
         WHERE o.ctid = i.place;
    END IF;
    IF v_newest IS NOT NULL THEN
        v_built := _tidemark.remember(p_hypertable, v_newest, v_newest_ts, p_is_new AND p_is_live);
        -- Those of which no memory could be built are like the others.
        SELECT v_unknown || array_agg(n.series), v_unknown_ts || array_agg(n.ts)
          INTO v_unknown, v_unknown_ts
          FROM unnest(v_newest, v_newest_ts) AS n (series, ts)
         WHERE n.series <> ALL (v_built);
    END IF;
    IF v_unknown IS NOT NULL THEN
        PERFORM _tidemark.forget_series(p_hypertable, v_unknown, v_unknown_ts);
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.recall(regclass, refcursor, boolean, boolean, timestamptz) IS
'Judges the next or newest rows of series by what is remembered of them, and moves that along.';
