-- The clerk writes verdicts down: the score on the row, the penalties in quality_issues, what stands out in anomalies,
-- in episodes, with a notification for each new one.
--
-- Two sessions may want to write to the same row when both brought late rows before it. The update of the row comes
-- first, even where score and flag stay, and decides who may write its penalties and its anomaly; nobody waits longer
-- than the clerk's lock_timeout, so that inserting cannot end in a deadlock. A row that somebody else holds for longer
-- keeps its verdict until rescore().

-- Stores penalties and anomalies of rows of a hypertable; returns the identities of the new anomalies.
CREATE OR REPLACE FUNCTION _tidemark.record_verdicts(
    p_target _tidemark.quality_targets,
    p_verdicts _tidemark.verdict[]
)
    RETURNS bigint[]
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_asset_column CONSTANT text := (
        SELECT a.attname
          FROM pg_catalog.pg_constraint AS f
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.conrelid AND f.conkey = ARRAY[a.attnum]
         WHERE f.conrelid = p_target.hypertable AND f.contype = 'f' AND f.confrelid = 'public.assets'::regclass
           AND a.attname = ANY (p_target.series_columns)
         LIMIT 1
    );
    v_new bigint[];
BEGIN
    -- Looked up for each verdict, here and below, however little is known of a fresh table. Not as two equalities: one that
    -- was empty when this was planned is looked up by time alone, and many series have a row at the same time.
    DELETE FROM public.quality_issues AS q
     WHERE q.issue_id = ANY (ARRAY(
               SELECT o.issue_id
                 FROM unnest(p_verdicts) AS v
                CROSS JOIN LATERAL (
                          SELECT u.issue_id, u.penalty, u.rule_id
                            FROM public.quality_issues AS u
                           WHERE u.table_name = p_target.label AND u.series = v.series
                             AND (u.series, u.ts) >= (v.series, v.ts) AND (u.series, u.ts) <= (v.series, v.ts)
                          OFFSET 0
                      ) AS o
                WHERE NOT EXISTS (
                          SELECT FROM unnest(v.penalties) AS u
                           WHERE u.penalty = o.penalty AND u.rule_id IS NOT DISTINCT FROM o.rule_id
                      )
           ));
    INSERT INTO public.quality_issues AS q (table_name, series, ts, penalty, points, rule_id, detail)
    SELECT p_target.label, v.series, v.ts, u.penalty, u.points, u.rule_id, u.detail
      FROM unnest(p_verdicts) AS v
     CROSS JOIN LATERAL unnest(v.penalties) AS u
    ON CONFLICT ON CONSTRAINT quality_issues_series_ts_penalty_key DO UPDATE
       SET points = EXCLUDED.points,
           detail = EXCLUDED.detail
     WHERE (q.points, q.detail) IS DISTINCT FROM (EXCLUDED.points, EXCLUDED.detail);

    DELETE FROM public.anomalies AS a
     USING unnest(p_verdicts) AS v
     WHERE a.table_name = p_target.label AND a.series = v.series
       AND (a.series, a.timestamp) >= (v.series, v.ts) AND (a.series, a.timestamp) <= (v.series, v.ts)
       AND NOT v.is_anomaly;
    -- What an earlier definition found is judged by this one now, and keeps its identity and its review.
    UPDATE public.anomalies AS a
       SET detector_version = _tidemark.detector_version()
      FROM unnest(p_verdicts) AS v
     WHERE a.table_name = p_target.label AND a.series = v.series
       AND (a.series, a.timestamp) >= (v.series, v.ts) AND (a.series, a.timestamp) <= (v.series, v.ts)
       AND a.detector_version <> _tidemark.detector_version();
    WITH stored AS (
        INSERT INTO public.anomalies AS a (
            table_name, series, source_id, asset_id, interval, timestamp, severity, z_score, value, observed, expected,
            deviation, scale, samples, kind, field, detector_version
        )
        SELECT p_target.label, v.series, (v.series ->> p_target.source_column)::integer,
               (v.series ->> v_asset_column)::uuid, (v.series ->> p_target.interval_column)::public.candle_interval,
               v.ts, v.severity, v.z_score, v.value, v.observed, v.expected,
               v.deviation, v.scale, v.samples, v.kind, v.field, _tidemark.detector_version()
          FROM unnest(p_verdicts) AS v
         WHERE v.is_anomaly
           AND v.severity IS NOT NULL
        ON CONFLICT ON CONSTRAINT anomalies_series_timestamp_key DO UPDATE
           SET severity = EXCLUDED.severity,
               z_score = EXCLUDED.z_score,
               value = EXCLUDED.value,
               observed = EXCLUDED.observed,
               expected = EXCLUDED.expected,
               deviation = EXCLUDED.deviation,
               scale = EXCLUDED.scale,
               samples = EXCLUDED.samples,
               kind = EXCLUDED.kind,
               field = EXCLUDED.field,
               -- A review was of the value that was there then.
               status = CASE WHEN (a.value, a.field) IS NOT DISTINCT FROM (EXCLUDED.value, EXCLUDED.field)
                             THEN a.status ELSE 'open' END,
               reviewed_by = CASE WHEN (a.value, a.field) IS NOT DISTINCT FROM (EXCLUDED.value, EXCLUDED.field)
                             THEN a.reviewed_by END,
               reviewed_at = CASE WHEN (a.value, a.field) IS NOT DISTINCT FROM (EXCLUDED.value, EXCLUDED.field)
                             THEN a.reviewed_at END,
               notes = CASE WHEN (a.value, a.field) IS NOT DISTINCT FROM (EXCLUDED.value, EXCLUDED.field)
                             THEN a.notes END
         WHERE (a.severity, a.z_score, a.value, a.observed, a.expected, a.deviation, a.scale, a.samples, a.kind,
                a.field)
               IS DISTINCT FROM
               (EXCLUDED.severity, EXCLUDED.z_score, EXCLUDED.value, EXCLUDED.observed, EXCLUDED.expected,
                EXCLUDED.deviation, EXCLUDED.scale, EXCLUDED.samples, EXCLUDED.kind, EXCLUDED.field)
        RETURNING a.anomaly_id, a.xmax = 0 AS is_new -- an updated row version carries the updating transaction
    )
    SELECT array_agg(s.anomaly_id) INTO v_new FROM stored AS s WHERE s.is_new;
    RETURN coalesce(v_new, '{}');
END
$func$;
COMMENT ON FUNCTION _tidemark.record_verdicts(_tidemark.quality_targets, _tidemark.verdict []) IS
'Stores the penalties and anomalies of rows of a hypertable; returns the identities of the new ones.';

-- Whether more than a number of rows lie after the one instant and not after the other in each series.
CREATE OR REPLACE FUNCTION _tidemark.are_apart(
    p_target _tidemark.quality_targets,
    p_series jsonb[],
    p_after timestamptz[],
    p_until timestamptz[],
    p_most integer[],
    p_lowest timestamptz,
    p_highest timestamptz
)
    RETURNS TABLE (n bigint, is_apart boolean)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT i.n, EXISTS (SELECT FROM %1$s AS d WHERE %2$s AND d.%3$I > i.after AND d.%3$I <= i.until'
        ' AND d.%3$I >= $5 AND d.%3$I <= $6 OFFSET i.most)'
        ' FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS i (series, after, until, most, n) WHERE i.after IS NOT NULL',
        p_target.hypertable::text, _tidemark.is_of_series(p_target, 'i.series'), p_target.time_column
    ) USING p_series, p_after, p_until, p_most, p_lowest, p_highest;
END
$func$;
COMMENT ON FUNCTION _tidemark.are_apart(
    _tidemark.quality_targets, jsonb [], timestamptz [], timestamptz [], integer [], timestamptz, timestamptz
) IS 'Whether more than a number of rows lie between two instants of each series.';

-- Puts anomalies into episodes: an anomaly at most as many rows as the profile says (episode_rows) after the one before
-- it in its series belongs to the same episode, which goes by its first anomaly. A verdict on one row can start, end,
-- join or cut episodes around it, but never more rows away than these.
CREATE OR REPLACE FUNCTION _tidemark.link_episodes(
    p_target _tidemark.quality_targets,
    p_verdicts _tidemark.verdict[],
    p_new bigint[],
    p_lowest timestamptz,
    p_highest timestamptz
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
#variable_conflict use_column
DECLARE
    v_ids bigint[];
    v_episodes bigint[];
    v_payload jsonb;
BEGIN
    -- Anomalies of the series from the first verdict on, up to where rows were judged, with the episode each follows.
    WITH touched AS MATERIALIZED (
        SELECT g.series, g.starts_at, q.episode_rows
          FROM (SELECT v.series, min(v.ts) AS starts_at FROM unnest(p_verdicts) AS v GROUP BY v.series) AS g
         CROSS JOIN LATERAL _tidemark.series_profile(p_target, g.series) AS p
          JOIN public.quality_profiles AS q ON q.quality_profile_id = p.quality_profile_id
    ), scope AS MATERIALIZED (
        SELECT a.*, t.episode_rows,
               coalesce(lag(a.timestamp) OVER (PARTITION BY a.series ORDER BY a.timestamp), b.timestamp) AS previous_at,
               b.episode_id AS episode_before
          FROM touched AS t
          LEFT JOIN LATERAL (
                   SELECT e.timestamp, e.episode_id
                     FROM public.anomalies AS e
                    WHERE e.table_name = p_target.label AND e.series = t.series
                      AND (e.series, e.timestamp) < (t.series, t.starts_at)
                    ORDER BY e.timestamp DESC
                    LIMIT 1
               ) AS b ON true
         CROSS JOIN LATERAL (
                   SELECT e.anomaly_id, e.series, e.timestamp, e.episode_id
                     FROM public.anomalies AS e
                    WHERE e.table_name = p_target.label AND e.series = t.series
                      AND (e.series, e.timestamp) >= (t.series, t.starts_at)
                      AND (e.series, e.timestamp) <= (t.series, p_highest)
                   OFFSET 0
               ) AS a
    ), headed AS MATERIALIZED (
        SELECT a.*,
               -- Looked up, not joined: write_verdicts() allows no hash join, and both are as many as anomalies.
               a.previous_at IS NULL OR a.n IN (
                   SELECT c.n
                     FROM _tidemark.are_apart(
                              p_target,
                              ARRAY(SELECT s.series FROM scope AS s), ARRAY(SELECT s.previous_at FROM scope AS s),
                              ARRAY(SELECT s.timestamp FROM scope AS s), ARRAY(SELECT s.episode_rows FROM scope AS s),
                              p_lowest, p_highest
                          ) AS c
                    WHERE c.is_apart
               ) AS is_head
          FROM (SELECT s.*, row_number() OVER () AS n FROM scope AS s) AS a
    ), numbered AS (
        SELECT h.*, count(*) FILTER (WHERE h.is_head) OVER (PARTITION BY h.series ORDER BY h.timestamp) AS episode
          FROM headed AS h
    ), linked AS MATERIALIZED (
        SELECT n.anomaly_id, n.series, n.timestamp, n.episode_id AS was,
               CASE WHEN n.episode = 0 THEN n.episode_before
                    ELSE first_value(n.anomaly_id) OVER (PARTITION BY n.series, n.episode ORDER BY n.timestamp)
               END AS episode_id
          FROM numbered AS n
    ), tail AS (
        -- What follows the last of them up to the next head goes with it.
        SELECT e.anomaly_id, e.was, l.episode_id
          FROM (SELECT DISTINCT ON (k.series) k.* FROM linked AS k ORDER BY k.series, k.timestamp DESC) AS l
         CROSS JOIN LATERAL (
                   SELECT a.anomaly_id, a.episode_id AS was
                     FROM public.anomalies AS a
                    WHERE a.table_name = p_target.label AND a.series = l.series
                      AND (a.series, a.timestamp) > (l.series, p_highest)
                      AND a.timestamp < coalesce((
                              SELECT h.timestamp
                                FROM public.anomalies AS h
                               WHERE h.table_name = p_target.label AND h.series = l.series
                                 AND (h.series, h.timestamp) > (l.series, p_highest)
                                 AND h.episode_id = h.anomaly_id
                               ORDER BY h.timestamp
                               LIMIT 1
                          ), 'infinity')
                   OFFSET 0
               ) AS e
    )
    SELECT array_agg(c.anomaly_id), array_agg(c.episode_id)
      INTO v_ids, v_episodes
      FROM (SELECT l.anomaly_id, l.was, l.episode_id FROM linked AS l
             UNION ALL
            SELECT t.anomaly_id, t.was, t.episode_id FROM tail AS t) AS c
     WHERE c.was IS DISTINCT FROM c.episode_id;
    UPDATE public.anomalies AS a
       SET episode_id = c.episode_id
      FROM unnest(v_ids, v_episodes) AS c (anomaly_id, episode_id)
     WHERE a.anomaly_id = c.anomaly_id;

    -- One notification for an episode that is new as a whole; history that is loaded afterwards alarms nobody.
    IF coalesce(current_setting('tidemark.ingest_mode', true), '') NOT IN ('backfill', 'replay') THEN
        FOR v_payload IN
            SELECT jsonb_build_object(
                       'episode_id', e.episode_id, 'table', p_target.label, 'anomalies', e.anomalies,
                       'severity', e.severity, 'kind', e.kind
                   )
              FROM (
                SELECT a.episode_id, count(*) AS anomalies, max(a.severity) AS severity, max(a.kind) AS kind
                  FROM unnest(p_new) AS n (anomaly_id)
                  JOIN public.anomalies AS a ON a.anomaly_id = n.anomaly_id
                 GROUP BY a.episode_id
              ) AS e
             WHERE e.anomalies = (SELECT count(*) FROM public.anomalies AS m WHERE m.episode_id = e.episode_id)
             ORDER BY e.episode_id
        LOOP
            PERFORM _tidemark.notify('tidemark_anomaly', v_payload);
        END LOOP;
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.link_episodes(
    _tidemark.quality_targets, _tidemark.verdict [], bigint [], timestamptz, timestamptz
) IS 'Puts the anomalies of a hypertable into episodes, and announces new ones.';

-- Says of the anomalies of periods of series, of the last two before each and of those nothing is said of yet whether
-- they may be errors, as doubts_… (545) finds.
CREATE OR REPLACE FUNCTION _tidemark.decide_doubtful(
    p_hypertable regclass,
    p_series jsonb[],
    p_from timestamptz[],
    p_to timestamptz[]
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET enable_bitmapscan = off
    SET enable_seqscan = off
    SET lock_timeout = '50ms'
AS $func$
DECLARE
    v_target _tidemark.quality_targets;
    v_ids bigint[];
    v_series jsonb[];
    v_doubtful boolean[];
BEGIN
    SELECT t.* INTO STRICT v_target FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable;
    SELECT array_agg(DISTINCT a.anomaly_id), array_agg(DISTINCT i.series) INTO v_ids, v_series
      FROM unnest(p_series, p_from, p_to) AS i (series, starts_at, ends_at)
     CROSS JOIN LATERAL (
               (SELECT b.anomaly_id
                  FROM public.anomalies AS b
                 WHERE b.table_name = v_target.label AND b.series = i.series
                   AND (b.series, b.timestamp) < (i.series, i.starts_at)
                 ORDER BY b.timestamp DESC
                 LIMIT 2)
                UNION ALL
               (SELECT c.anomaly_id
                  FROM public.anomalies AS c
                 WHERE c.table_name = v_target.label AND c.series = i.series
                   AND (c.series, c.timestamp) >= (i.series, i.starts_at)
                   AND (c.series, c.timestamp) <= (i.series, i.ends_at))
                UNION ALL
               -- The first rows of a series are found late.
               (SELECT e.anomaly_id
                  FROM public.anomalies AS e
                 WHERE e.table_name = v_target.label AND e.series = i.series AND e.is_doubtful IS NULL)
           ) AS a;
    IF v_ids IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT array_agg(d.anomaly_id), array_agg(d.is_doubtful) FROM _tidemark.%I($1, $2, $3) AS d',
                   'doubts_' || v_target.stem)
       INTO v_ids, v_doubtful USING v_target, v_ids, v_series;
    IF v_ids IS NOT NULL THEN
        BEGIN
            -- What somebody else is at stays as it is, to be decided with the next row, or by rescore().
            UPDATE public.anomalies AS a
               SET is_doubtful = i.is_doubtful
              FROM unnest(v_ids, v_doubtful) AS i (anomaly_id, is_doubtful)
             WHERE a.anomaly_id = i.anomaly_id
               AND a.anomaly_id IN (SELECT o.anomaly_id FROM public.anomalies AS o
                                     WHERE o.anomaly_id = ANY (v_ids) FOR NO KEY UPDATE SKIP LOCKED);
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END IF;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.decide_doubtful(regclass, jsonb [], timestamptz [], timestamptz []) FROM public;
COMMENT ON FUNCTION _tidemark.decide_doubtful(regclass, jsonb [], timestamptz [], timestamptz []) IS
'Says of the anomalies of periods of series whether they may be errors, by the rows after them.';

-- Compressed chunks of a hypertable within a period, both ends included, as the periods they cover.
CREATE OR REPLACE FUNCTION _tidemark.compressed_periods(
    p_hypertable regclass,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS SETOF tstzrange
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF _tidemark.edition() = 'community' THEN
        RETURN QUERY
        SELECT tstzrange(c.range_start, c.range_end)
          FROM pg_catalog.pg_class AS t
          JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
          JOIN timescaledb_information.chunks AS c ON c.hypertable_schema = n.nspname AND c.hypertable_name = t.relname
         WHERE t.oid = p_hypertable
           AND c.is_compressed
           AND c.range_start <= p_to
           AND c.range_end > p_from;
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.compressed_periods(regclass, timestamptz, timestamptz) IS
'Periods of the compressed chunks of a hypertable within a period.';

-- Writes verdicts on rows of a hypertable, which lie between p_lowest and p_highest with their baselines. Returns the
-- number of rows that changed.
CREATE OR REPLACE FUNCTION _tidemark.write_verdicts(
    p_target _tidemark.quality_targets,
    p_verdicts _tidemark.verdict[],
    p_lowest timestamptz,
    p_highest timestamptz
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET lock_timeout = '50ms'
AS $func$
DECLARE
    v_from CONSTANT timestamptz := (SELECT min(v.ts) FROM unnest(p_verdicts) AS v);
    v_to CONSTANT timestamptz := (SELECT max(v.ts) FROM unnest(p_verdicts) AS v);
    -- An update in a compressed chunk decompresses what its constants select, or else the whole chunk.
    v_one_by_one boolean := EXISTS (SELECT FROM _tidemark.compressed_periods(p_target.hypertable, v_from, v_to));
    v_verdict _tidemark.verdict;
    v_row_count bigint;
    v_changed bigint := 0;
    v_new bigint[] := '{}';
BEGIN
    PERFORM set_config('tidemark.writing_scores', 'on', true);
    IF NOT v_one_by_one THEN
        BEGIN
            EXECUTE format(
                'UPDATE %1$s AS d SET quality_score = i.score, is_anomaly = i.is_anomaly FROM unnest($1) AS i'
                ' WHERE %2$s AND d.%3$I = i.ts AND d.%3$I BETWEEN %4$L::timestamptz AND %5$L::timestamptz',
                p_target.hypertable::text, _tidemark.is_of_series(p_target, 'i.series'), p_target.time_column, v_from,
                v_to
            ) USING p_verdicts;
            GET DIAGNOSTICS v_changed = ROW_COUNT;
            -- A row that another session has changed meanwhile is joined once more, where it may get lost.
            IF v_changed < cardinality(p_verdicts) THEN
                RAISE lock_not_available;
            END IF;
            v_new := _tidemark.record_verdicts(p_target, p_verdicts);
        EXCEPTION WHEN lock_not_available THEN
            v_one_by_one := true;
            v_changed := 0;
            PERFORM set_config('tidemark.writing_scores', 'on', true);
        END;
    END IF;
    IF v_one_by_one THEN
        FOREACH v_verdict IN ARRAY p_verdicts LOOP
            BEGIN
                FOR v_attempt IN 1..2 LOOP -- the first finds nothing where it waited, on TimescaleDB 2.28.1 and newer
                    EXECUTE (
                        SELECT format('UPDATE %s AS d SET quality_score = %L, is_anomaly = %L'
                                      ' WHERE d.%I = %L::timestamptz AND %s',
                                      p_target.hypertable::text, v_verdict.score, v_verdict.is_anomaly,
                                      p_target.time_column, v_verdict.ts,
                                      string_agg(format('d.%I = %L::%s', k, v_verdict.series ->> k,
                                                        format_type(a.atttypid, NULL)), ' AND '))
                          FROM unnest(p_target.series_columns) AS k
                          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p_target.hypertable AND a.attname = k
                    );
                    GET DIAGNOSTICS v_row_count = ROW_COUNT;
                    EXIT WHEN v_row_count > 0;
                END LOOP;
                IF v_row_count > 0 THEN -- else it was deleted
                    v_new := v_new || _tidemark.record_verdicts(p_target, ARRAY[v_verdict]);
                    v_changed := v_changed + v_row_count;
                END IF;
            EXCEPTION WHEN lock_not_available THEN
                NULL; -- left to rescore
            END;
        END LOOP;
    END IF;
    PERFORM set_config('tidemark.writing_scores', '', true);
    IF EXISTS (SELECT FROM unnest(p_verdicts) AS v WHERE v.is_anomaly) OR v_changed > 0 THEN
        BEGIN
            PERFORM _tidemark.link_episodes(p_target, p_verdicts, v_new, p_lowest, p_highest);
        EXCEPTION WHEN lock_not_available THEN
            NULL; -- left to rescore
        END;
    END IF;
    RETURN v_changed;
END
$func$;
COMMENT ON FUNCTION _tidemark.write_verdicts(
    _tidemark.quality_targets, _tidemark.verdict [], timestamptz, timestamptz
) IS 'Writes verdicts on rows of a hypertable; returns how many rows changed.';
