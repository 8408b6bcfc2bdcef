-- The judge of a hypertable: scores the rows of some islands, an island being a series and a period. It only computes
-- what differs from the rows; its clerk (545) writes that down.

-- The body of a judge, to be filled with the texts of its hypertable.
CREATE OR REPLACE FUNCTION _tidemark.judge_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $judge$
#variable_conflict use_column
DECLARE
    -- One element per island.
    v_profiles integer[];
    v_transforms public.change_transform[];
    v_steps interval[];
    v_markets text[];
    v_groups integer[]; -- islands with the same thresholds are judged together
    v_start timestamptz[]; -- from here on rows are read: the baseline of p_from
    v_end timestamptz[]; -- up to here rows are judged

    v_back integer; -- rows before the first judged one that its score depends on, and after the last
    v_back_to timestamptz;
    -- Bounds of all islands: the planner leaves out chunks by what it knows to be constant.
    v_first_end CONSTANT timestamptz := (SELECT min(i) FROM unnest(p_to) AS i);
    v_last_start CONSTANT timestamptz := (SELECT max(i) FROM unnest(p_from) AS i);
    v_lowest timestamptz;
    v_highest timestamptz;
    v_short integer[];
    v_island record;
    -- The thresholds of a group.
    v_group integer;
    v_rows integer;
    v_transform public.change_transform;
    v_sessions boolean;
    v_max_change double precision;
    v_min_samples integer;
    v_anomaly_z double precision;
    v_scale_floor double precision;
    v_tick double precision;
    v_some _tidemark.finding[];
    v_found _tidemark.finding[] := '{}';
    v_verdicts _tidemark.verdict[];
BEGIN
    SELECT array_agg(g.quality_profile_id ORDER BY g.island), array_agg(g.transform ORDER BY g.island),
           array_agg(g.step ORDER BY g.island), array_agg(g.market ORDER BY g.island),
           array_agg(g.group_no ORDER BY g.island),
           2 * max(g.baseline_rows) + 24,
           min(g.starts_at - CASE g.step WHEN interval '0' THEN @chunk_interval@::interval
                             ELSE 6 * (2 * g.baseline_rows + 3) * g.step + interval '4 days' END)
      INTO v_profiles, v_transforms, v_steps, v_markets, v_groups, v_back, v_back_to
      FROM (
        SELECT i.island, i.starts_at, p.quality_profile_id, p.transform, p.step, p.market, p.baseline_rows,
               dense_rank() OVER (
                   ORDER BY p.baseline_rows, p.transform, p.max_change, p.min_samples, p.anomaly_z, p.scale_floor,
                            p.tick_size, @has_sessions@
               ) AS group_no
          FROM unnest(@key_arguments@, p_from) WITH ORDINALITY AS i (@keys@, starts_at, island)
         CROSS JOIN LATERAL @profile@ AS p
      ) AS g;

    -- Where the baselines begin, and up to where the judged rows are part of others' baselines. First only as far back
    -- as should suffice, so that few chunks are looked at; then without that bound for whom it did not.
    SELECT array_agg(coalesce(b.starts_at, i.starts_at) ORDER BY i.island),
           array_agg(greatest(i.ends_at, f.ends_at) ORDER BY i.island),
           array_agg(i.island ORDER BY i.island) FILTER (WHERE b.row_count < v_back)
      INTO v_start, v_end, v_short
      FROM unnest(@key_arguments@, p_from, p_to, v_transforms) WITH ORDINALITY
           AS i (@keys@, starts_at, ends_at, transform, island)
     CROSS JOIN LATERAL (
               SELECT min(t.ts) AS starts_at, count(*) AS row_count
                 FROM (SELECT d.@time@ AS ts
                         FROM @table@ AS d
                        WHERE @row_is_of_i@ AND d.@time@ < i.starts_at AND @valid@
                          AND d.@time@ >= v_back_to AND d.@time@ < v_last_start
                        ORDER BY d.@time@ DESC
                        LIMIT v_back) AS t
           ) AS b
     CROSS JOIN LATERAL (
               SELECT max(t.ts) AS ends_at
                 FROM (SELECT d.@time@ AS ts
                         FROM @table@ AS d
                        WHERE p_followers AND @row_is_of_i@ AND d.@time@ > i.ends_at AND @valid@
                          AND d.@time@ > v_first_end
                        ORDER BY d.@time@
                        LIMIT v_back) AS t
           ) AS f;
    IF v_short IS NOT NULL THEN
        FOR v_island IN
            SELECT i.island, b.starts_at
              FROM unnest(@key_arguments@, p_from, v_transforms) WITH ORDINALITY
                   AS i (@keys@, starts_at, transform, island)
             CROSS JOIN LATERAL (
                       SELECT min(t.ts) AS starts_at
                         FROM (SELECT d.@time@ AS ts
                                 FROM @table@ AS d
                                WHERE @row_is_of_i@ AND d.@time@ < i.starts_at AND @valid@ AND d.@time@ < v_last_start
                                ORDER BY d.@time@ DESC
                                LIMIT v_back) AS t
                   ) AS b
             WHERE i.island = ANY (v_short)
               AND b.starts_at IS NOT NULL
        LOOP
            v_start[v_island.island] := v_island.starts_at;
        END LOOP;
    END IF;
    SELECT min(s) INTO v_lowest FROM unnest(v_start) AS s;
    SELECT max(e) INTO v_highest FROM unnest(v_end) AS e;

    FOR v_group IN 1 .. (SELECT max(g) FROM unnest(v_groups) AS g) LOOP
        SELECT p.baseline_rows, p.transform, @has_sessions@, p.max_change, p.min_samples, p.anomaly_z, p.scale_floor,
               coalesce(p.tick_size, 0)
          INTO STRICT v_rows, v_transform, v_sessions, v_max_change, v_min_samples, v_anomaly_z, v_scale_floor, v_tick
          FROM (SELECT q.*, v_steps[array_position(v_groups, v_group)] AS step
                  FROM public.quality_profiles AS q
                 WHERE q.quality_profile_id = v_profiles[array_position(v_groups, v_group)]) AS p;
        IF v_sessions THEN
            @detect_sessions@ INTO v_some;
            v_found := v_found || coalesce(v_some, '{}');
            -- The first rows of their sessions, among their like.
            IF EXISTS (SELECT FROM unnest(v_some) AS f WHERE f.is_first) THEN
                @detect_nights@ INTO v_some;
                v_found := v_found || coalesce(v_some, '{}');
            END IF;
        ELSIF v_transform = 'log_return' THEN
            @detect_log@ INTO v_some;
            v_found := v_found || coalesce(v_some, '{}');
        ELSE
            @detect_plain@ INTO v_some;
            v_found := v_found || coalesce(v_some, '{}');
        END IF;
    END LOOP;
    IF v_found = '{}' THEN
        RETURN 0;
    END IF;

    SELECT array_agg(ROW(
               v.series, v.ts, v.score, v.is_anomaly, v.penalties, v.severity, v.kind, v.z_score, v.value, v.observed,
               v.expected, v.deviation, v.scale, v.samples
           )::_tidemark.verdict ORDER BY v.series, v.ts)
      INTO v_verdicts
      FROM (
        SELECT d.series, f.ts, d.value, d.quality_score, d.is_anomaly AS was_anomaly, a.figures,
               coalesce(q.recorded, '{}') AS recorded,
               greatest(0, 100 - (SELECT coalesce(sum(u.points), 0) FROM unnest(w.penalties) AS u))::smallint AS score,
               coalesce(abs(f.z_score) > p.anomaly_z, false) OR a.is_kept IS TRUE AS is_anomaly,
               w.penalties,
               CASE WHEN abs(f.z_score) > p.black_swan_z THEN 'black_swan'::public.anomaly_severity
                    WHEN abs(f.z_score) > p.anomaly_z THEN 'anomaly' END AS severity,
               CASE WHEN p.transform = 'log_return' AND d.first_value > 0 AND f.previous > 0 AND EXISTS (
                    SELECT FROM unnest(ARRAY[1.5, 2, 3, 4, 5, 7, 10]::double precision[]) AS s (ratio)
                     WHERE abs(abs(ln(d.first_value) - ln(f.previous)) - ln(s.ratio)) <= 0.03
               ) THEN 'split_candidate'::public.anomaly_kind ELSE 'spike' END AS kind,
               f.z_score, f.observed, f.expected, f.deviation, f.scale, f.samples
          FROM (
            SELECT DISTINCT ON (@keys@, f.ts) f.*, @keys_of_finding@
              FROM unnest(v_found) AS f
             ORDER BY @keys@, f.ts, f.z_score NULLS LAST
          ) AS f
         CROSS JOIN LATERAL (
                   SELECT q.transform, q.max_change, q.anomaly_z, q.black_swan_z, v_markets[f.island] AS market,
                          v_steps[f.island] AS step@needs@
                     FROM public.quality_profiles AS q
                    WHERE q.quality_profile_id = v_profiles[f.island]
               ) AS p
         CROSS JOIN LATERAL (SELECT f.*) AS i
         CROSS JOIN LATERAL (
                   SELECT @series@ AS series, @value@ AS value, @open@ AS first_value, d.quality_score, d.is_anomaly,
                          array_remove(ARRAY[@missing_fields@]::text[], NULL) AS missing_fields,
                          @broken_expression@ AS broken_rules
                     FROM @table@ AS d
                    WHERE @row_is_of_i@ AND d.@time@ = i.ts AND d.@time@ BETWEEN v_lowest AND v_highest
               ) AS d
          LEFT JOIN LATERAL (
                   SELECT b.status = 'confirmed_error' AS is_error, b.status <> 'open' AS is_kept,
                          (b.severity, b.kind, b.z_score, b.observed, b.expected, b.deviation, b.scale, b.samples)
                          AS figures
                     FROM public.anomalies AS b
                    WHERE b.table_name = @label@ AND b.series = d.series AND b.timestamp = f.ts
                      AND b.detector_version = 'lr2p-1' AND b.value IS NOT DISTINCT FROM d.value
                      AND d.is_anomaly
                   OFFSET 0 -- look up, do not join: fresh tables have no statistics
               ) AS a ON true
         CROSS JOIN LATERAL (
                   SELECT array_agg(ROW(q.penalty, q.points, q.rule_id, q.detail)::_tidemark.penalty
                                    ORDER BY q.penalty, q.rule_id) AS recorded,
                          -- What was judged when the row arrived, against the clock of that moment, stands; so does the
                          -- verdict on a row that a reviewer confirmed to be an error.
                          array_agg(ROW(q.penalty, q.points, q.rule_id, q.detail)::_tidemark.penalty)
                          FILTER (WHERE q.penalty = 'timeliness' OR q.rule_id = ANY (ARRAY[@arrival_rules@]::integer[])
                                     OR (q.penalty = 'consistency' AND a.is_error)) AS kept
                     FROM public.quality_issues AS q
                    WHERE q.table_name = @label@ AND q.series = d.series AND q.ts = f.ts
               ) AS q
         CROSS JOIN LATERAL (
                   SELECT coalesce(q.kept, '{}')
                          || CASE WHEN cardinality(d.missing_fields) > 0 THEN ARRAY[ROW(
                                 'completeness', 30, NULL, 'missing: ' || array_to_string(d.missing_fields, ', ')
                             )::_tidemark.penalty] ELSE '{}' END
                          -- Strictly more than max_change, in decimals, so that half is not more than half. The good
                          -- row after a bad one also moves that much, but is back at the median of the three before.
                          || CASE WHEN d.value <> 'NaN' AND f.previous <> 0
                                   AND abs(d.value::numeric - f.previous::numeric)
                                       > p.max_change::numeric * abs(f.previous::numeric)
                                   AND (abs(d.value - f.reference) <= p.max_change * abs(f.reference)) IS NOT TRUE
                             THEN ARRAY[ROW(
                                 'consistency', 25, NULL, format('from %s to %s', f.previous, d.value)
                             )::_tidemark.penalty] ELSE '{}' END
                          || ARRAY(SELECT ROW('validation', 10, r.rule_id, r.name)::_tidemark.penalty
                                     FROM public.validation_rules AS r
                                    WHERE r.rule_id = ANY (d.broken_rules)
                                    ORDER BY r.rule_id) AS penalties
               ) AS w
      ) AS v
     -- What differs from what is on record.
     WHERE v.quality_score IS DISTINCT FROM v.score
        OR v.was_anomaly IS DISTINCT FROM v.is_anomaly
        OR (v.severity IS NOT NULL AND v.figures IS DISTINCT FROM
            (v.severity, v.kind, v.z_score, v.observed, v.expected, v.deviation, v.scale, v.samples))
        OR ARRAY(SELECT u FROM unnest(v.penalties) AS u ORDER BY u.penalty, u.rule_id) <> v.recorded;
    IF v_verdicts IS NULL THEN
        RETURN 0;
    END IF;
    RETURN _tidemark.@clerk@(v_verdicts, v_lowest, v_highest);
END
$judge$;
$func$;
COMMENT ON FUNCTION _tidemark.judge_template() IS 'Body of the judge of a hypertable; a template.';

-- The judge's text for a hypertable. p_safe makes the one that is called where a rule fails to evaluate: it looks at
-- every row of the islands and evaluates each rule on its own.
CREATE OR REPLACE FUNCTION _tidemark.judge_body(
    p_tokens jsonb,
    p_safe boolean
)
    RETURNS text
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_first CONSTANT text := $sql$coalesce(g.ts - g.previous_ts > v_steps[g.island] AND EXISTS (
        SELECT FROM public.market_calendar AS c
         WHERE c.market = v_markets[g.island]
           AND c.date BETWEEN (g.previous_ts AT TIME ZONE 'UTC')::date - 1 AND (g.ts AT TIME ZONE 'UTC')::date + 1
           AND c.opens_at > g.previous_ts
           AND c.opens_at <= g.ts
    ), false)$sql$;
    v_rows CONSTANT text := $sql$
        SELECT i.island::integer AS island, d.ts, d.value, d.is_marked, d.usable
          FROM unnest(@key_arguments@, p_from, p_late_before, v_start, v_end, v_profiles, v_transforms, v_groups,
                      v_markets, v_steps) WITH ORDINALITY
               AS i (@keys@, judged_from, late_before, starts_at, ends_at, profile, transform, group_no,
                     market, step, island)
         -- A barrier: what is required is decided once for an island.
         CROSS JOIN LATERAL (
                   SELECT i.market, i.step@needs@
                     FROM public.quality_profiles AS q
                    WHERE q.quality_profile_id = i.profile
                   OFFSET 0
               ) AS p
         CROSS JOIN LATERAL (
                   SELECT d.@time@ AS ts, @value@ AS value, @usable@ AS usable,
                          d.@time@ >= i.judged_from AND (@marked@) AS is_marked
                     FROM @table@ AS d
                    WHERE @row_is_of_i@ AND d.@time@ >= i.starts_at AND d.@time@ <= i.ends_at
                      AND d.@time@ >= v_lowest AND d.@time@ <= v_highest
                    ORDER BY d.@time@
               ) AS d
         WHERE i.group_no = v_group$sql$;
    -- The first rows of earlier sessions, found through the calendar, before those that are judged.
    v_nights CONSTANT text := $sql$
        SELECT f.island, f.ts, true AS usable, false AS is_marked, f.previous, NULL::timestamptz AS previous_ts,
               (f.observed * 1e7)::bigint AS change, (f.deviation * 1e7)::bigint AS deviation
          FROM unnest(v_some) AS f
         WHERE f.is_first
         UNION ALL
        SELECT i.island::integer, b.ts, true, false, b.previous, NULL,
               greatest(-90000000, least(90000000, (ln(b.value) * 1e7)::bigint - (ln(b.previous) * 1e7)::bigint)), NULL
          FROM unnest(@key_arguments@, p_from, v_transforms, v_markets, v_steps) WITH ORDINALITY
               AS i (@keys@, judged_from, transform, market, step, island)
         CROSS JOIN LATERAL (
                   SELECT n.ts, n.value, o.previous
                     FROM public.market_calendar AS c
                    CROSS JOIN LATERAL (
                              SELECT d.@time@ AS ts, @value@ AS value
                                FROM @table@ AS d
                               WHERE @row_is_of_i@ AND d.@time@ >= c.opens_at AND d.@time@ < i.judged_from AND @usable@
                                 AND d.@time@ < v_last_start
                               ORDER BY d.@time@
                               LIMIT 1
                          ) AS n
                    CROSS JOIN LATERAL (
                              SELECT d.@time@ AS ts, @value@ AS previous
                                FROM @table@ AS d
                               WHERE @row_is_of_i@ AND d.@time@ < n.ts AND @usable@ AND d.@time@ < v_last_start
                               ORDER BY d.@time@ DESC
                               LIMIT 1
                          ) AS o
                    WHERE c.market = i.market
                      AND c.date <= (i.judged_from AT TIME ZONE 'UTC')::date + 1
                      AND c.opens_at < i.judged_from
                      AND o.ts < c.opens_at
                      AND n.ts - o.ts > i.step
                      AND NOT EXISTS (
                          SELECT FROM public.market_calendar AS l
                           WHERE l.market = i.market AND l.date > c.date
                             AND l.date <= (n.ts AT TIME ZONE 'UTC')::date + 1
                             AND l.opens_at <= n.ts
                      )
                    ORDER BY c.date DESC
                    LIMIT 2 * v_rows + 3
               ) AS b
         WHERE i.island IN (SELECT f.island FROM unnest(v_some) AS f WHERE f.is_first)$sql$;
BEGIN
    RETURN _tidemark.fill_template(_tidemark.judge_template(), p_tokens || jsonb_build_object(
        'detect_log', _tidemark.fill_template(
            _tidemark.detector_query(true),
                jsonb_build_object('changes', _tidemark.changes_query(true), 'first', 'false')),
        'detect_plain', _tidemark.fill_template(
            _tidemark.detector_query(false),
                jsonb_build_object('changes', _tidemark.changes_query(false), 'first', 'false')),
        'detect_sessions', _tidemark.fill_template(
            _tidemark.detector_query(true),
                jsonb_build_object('changes', _tidemark.changes_query(true), 'first', v_first)),
        'detect_nights', _tidemark.fill_template(
            _tidemark.detector_query(true), jsonb_build_object('changes', v_nights, 'first', 'false')),
        'rows', v_rows,
        'clerk', format('write_%s', p_tokens ->> 'stem'),
        'marked', CASE WHEN p_safe THEN 'true' ELSE
            'd.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false OR d.@time@ < i.late_before'
            ' OR d.@time@ > p_future_after OR @missing@ OR @broken@' END,
        'broken_expression', CASE WHEN p_safe
            THEN format('_tidemark.try_rules_%s(to_jsonb(d), p.market, p.step)', p_tokens ->> 'stem')
            ELSE 'array_remove(ARRAY[@broken_rules@]::integer[], NULL)' END
    ));
END
$func$;
COMMENT ON FUNCTION _tidemark.judge_body(jsonb, boolean) IS 'Text of the judge of a hypertable.';
