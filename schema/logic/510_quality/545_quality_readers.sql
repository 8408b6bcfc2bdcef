-- What reads the rows of a hypertable is made for it, because only a text with its columns and rules in it is planned
-- well: the bodies of these functions as templates. build_quality (555) makes them; tests/quality/generated.sql shows
-- what comes out for timeseries_data.

-- read_…: the rows of islands and what their judgement depends on, as arrays for detect(). An island that starts at
-- infinity is left out, and no more than p_most rows come at once: whole islands, the last one cut off.
CREATE OR REPLACE FUNCTION _tidemark.reader_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.fill_template($read$
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
        - CASE p_step WHEN interval '0' THEN @chunk_interval@::interval
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
                 FROM (SELECT d.@time@ AS ts
                         FROM @table@ AS d
                        WHERE @row_is_of_i@ AND d.@time@ < i.starts_at AND @valid@
                          AND d.@time@ >= v_back_to AND d.@time@ < v_last_start
                        ORDER BY d.@time@ DESC
                        LIMIT v_back) AS t
           ) AS b
     CROSS JOIN LATERAL (
               -- Where there are no more, up to the last row: what follows may hold values that are no reference.
               SELECT CASE WHEN count(*) = v_back THEN max(t.ts) WHEN p_followers THEN 'infinity' END AS ends_at
                 FROM (SELECT d.@time@ AS ts
                         FROM @table@ AS d
                        WHERE p_followers AND @row_is_of_i@ AND d.@time@ > i.ends_at AND @valid@
                          AND d.@time@ > v_first_end
                        ORDER BY d.@time@
                        LIMIT v_back) AS t
           ) AS f;
    FOR v_island IN
        SELECT i.n, b.starts_at, b.row_count
          FROM unnest(p_series, p_from) WITH ORDINALITY AS i (series, starts_at, n)
         CROSS JOIN LATERAL (
                   SELECT min(t.ts) AS starts_at, count(*) AS row_count
                     FROM (SELECT d.@time@ AS ts
                             FROM @table@ AS d
                            WHERE @row_is_of_i@ AND d.@time@ < i.starts_at AND @valid@ AND d.@time@ < v_last_start
                            ORDER BY d.@time@ DESC
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
                   SELECT d.@time@ AS ts, @value@ AS value
                     FROM @table@ AS d
                    WHERE @row_is_of_i@ AND d.@time@ >= i.starts_at AND d.@time@ >= lowest AND d.@time@ <= highest
                      AND @usable@
                    ORDER BY d.@time@
                    LIMIT v_first
               ) AS d
         WHERE i.row_count < v_back AND i.judged_from < 'infinity'
      ) AS f;
    IF p_every THEN
@read_every@
    ELSE
@read_marked@
    END IF;
END
$read$, jsonb_build_object(
        'read_every', format(r.text, 'true'),
        -- What stands out without a look at the rows before.
        'read_marked', format(r.text, $sql$
                              d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false
                              OR d.@time@ < i.late_before OR d.@time@ > p_future_after
                              OR @valid@ IS FALSE
                              OR @missing@
                              OR @broken@
                          $sql$)
    ))
      FROM (SELECT $sql$    SELECT array_agg(r.island), array_agg(r.ts), array_agg(r.value), array_agg(r.is_usable),
           array_agg(r.is_marked), @wicks@, @bodies@, @volumes@
      INTO island, ts, value, is_usable, is_marked, wick, body, volume
      FROM (
        SELECT i.n::integer AS island, d.ts, d.value, d.is_usable, d.is_marked, d.wick, d.body, d.volume
          FROM unnest(p_series, judged_from, p_late_before, v_start, v_end) WITH ORDINALITY
               AS i (series, judged_from, late_before, starts_at, ends_at, n)
         CROSS JOIN LATERAL (
                   SELECT d.@time@ AS ts, @value@ AS value, @usable@ AS is_usable,
                          d.@time@ >= i.judged_from AND (%s) AS is_marked,
                          @wick@ AS wick, @body@ AS body, @known_volume@ AS volume
                     FROM @table@ AS d
                    CROSS JOIN (SELECT v_market AS market, p_step AS step, v_transform AS transform,
                                       v_required AS required_fields) AS p
                    WHERE @row_is_of_i@ AND d.@time@ >= i.starts_at AND d.@time@ <= i.ends_at
                      AND d.@time@ >= lowest AND d.@time@ <= highest
                    ORDER BY d.@time@
               ) AS d
         WHERE i.judged_from < 'infinity'
         LIMIT p_most
      ) AS r;$sql$) AS r (text);
$func$;
COMMENT ON FUNCTION _tidemark.reader_template() IS 'Body of read_…: rows of islands and their baselines; a template.';

-- rows_…: rows of which a verdict is wanted, with what they lack and the rules they violate.
CREATE OR REPLACE FUNCTION _tidemark.rows_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.fill_template($rows$
DECLARE
    v_market CONSTANT text := p_profile.market;
    v_required CONSTANT text[] := p_profile.required_fields;
    v_transform CONSTANT public.change_transform := p_profile.transform;
    v_lowest CONSTANT timestamptz := (SELECT min(t) FROM unnest(p_ts) AS t);
    v_highest CONSTANT timestamptz := (SELECT max(t) FROM unnest(p_ts) AS t);
BEGIN
    IF p_is_safe THEN
@rows_tried@
    ELSE
@rows_judged@
    END IF;
END
$rows$, jsonb_build_object(
        'rows_tried', format(r.text, '_tidemark.try_rules_@stem@(to_jsonb(d), p.market, p.step, p.transform)'),
        'rows_judged', format(r.text, 'array_remove(ARRAY[@broken_rules@]::integer[], NULL)')
    ))
      FROM (SELECT $sql$    RETURN QUERY
    SELECT i.n, d.value, d.first_value, d.quality_score, d.is_anomaly, d.missing, d.broken, d.highest, d.lowest,
           d.volume
      FROM unnest(p_series, p_ts) WITH ORDINALITY AS i (series, ts, n)
     CROSS JOIN LATERAL (
               SELECT @value@ AS value, @open@ AS first_value, d.quality_score, d.is_anomaly,
                      array_remove(ARRAY[@missing_fields@]::text[], NULL) AS missing,
                      %s AS broken, @high@ AS highest, @low@ AS lowest, @volume@ AS volume
                 FROM @table@ AS d
                CROSS JOIN (SELECT v_market AS market, p_step AS step, v_transform AS transform,
                                   v_required AS required_fields) AS p
                WHERE @row_is_of_i@ AND d.@time@ = i.ts AND d.@time@ BETWEEN v_lowest AND v_highest
           ) AS d;$sql$) AS r (text);
$func$;
COMMENT ON FUNCTION _tidemark.rows_template() IS 'Body of rows_…: rows that are judged, as stored; a template.';

-- try_rules_…: the rules that a row violates, where some fail to evaluate. The row comes as jsonb, because a parameter
-- of the table's type would keep the table from being dropped.
CREATE OR REPLACE FUNCTION _tidemark.try_rules_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $try$
#variable_conflict use_column
DECLARE
    v_broken integer[] := '{}';
BEGIN@try_rules@
    RETURN v_broken;
END
$try$;
$func$;
COMMENT ON FUNCTION _tidemark.try_rules_template() IS
'Body of try_rules_…: the rules that a row violates, each evaluated on its own; a template.';

-- nights_…: the first rows of sessions among p_found, and those of earlier sessions, found through the calendar.
CREATE OR REPLACE FUNCTION _tidemark.nights_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $nights$
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
$nights$;
$func$;
COMMENT ON FUNCTION _tidemark.nights_template() IS
'Body of nights_…: the first rows of sessions and of those before; a template.';

-- fields_…: which of open, high, low and volume stand out of the bars among p_found whose field is empty; scale is S.
--
-- * A shadow, as a logarithm, against those of its side in the baseline_rows before: it is at least twice as long as
--   any of the bar before, more than 2.4 S, and more than 8.5 of their deviations and 2.4 S away from their mean.
-- * An open that lies outside of the close before and its own close, by 2 S from the nearer one and against how far
--   those before lay outside, as there are feeds whose open is another thing. Within a day, not after a pause.
-- * A volume, ln(1 + v), that is 20 times or a 20th of the one before, against those before and against the median of
--   three.
--
-- Scales are such that all are flagged by the same anomaly_z as prices are; the figures above are those of 4.
CREATE OR REPLACE FUNCTION _tidemark.fields_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $fields$
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
                   SELECT @upper@ AS upper, @lower@ AS lower, @wick@ AS wick, @body@ AS body, @known_volume@ AS volume
                     FROM @table@ AS d
                    WHERE @row_is_of_i@ AND d.@time@ = f.ts AND d.@time@ BETWEEN p_lowest AND p_highest
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
                             FROM (SELECT d.@time@ AS ts, @value@ AS value, @upper@ AS upper, @lower@ AS lower,
                                          @wick@ AS wick, @body@ AS body, @known_volume@ AS volume
                                     FROM @table@ AS d
                                    WHERE @row_is_of_i@ AND d.@time@ < f.ts AND @usable@
                                      AND d.@time@ >= p_lowest AND d.@time@ < p_highest
                                    ORDER BY d.@time@ DESC
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
$fields$;
$func$;
COMMENT ON FUNCTION _tidemark.fields_template() IS
'Body of fields_…: which of open, high, low and volume of bars stand out; a template.';

-- doubts_…: which anomalies may be errors (is_doubtful), where that is not what is on record. A market's move stays and
-- an error does not: a row whose move the next one takes back, by half with its open or by four fifths with its value,
-- is doubtful, and so is what may be a split or exceeds max_change. What else of a bar stands out is, where it matters:
-- from 1 % of the price on, a volume from 200 times the usual on. The next row counts once there is another after it,
-- so that it is not one that is still forming.
CREATE OR REPLACE FUNCTION _tidemark.doubts_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $sql$
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
                       SELECT d.@time@ AS ts, @value@ AS value,
                              CASE WHEN @open@ < 1e100 AND (@open@ > 1e-100 OR i.transform <> 'log_return')
                                   THEN @open@ ELSE @value@ END AS first_value
                         FROM @table@ AS d
                        WHERE @row_is_of_i@ AND d.@time@ > i.ts
                          AND @value@ < 1e100
                          AND (@value@ > 1e-100 OR (i.transform <> 'log_return' AND @value@ > -1e100))
                        ORDER BY d.@time@
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
$sql$;
$func$;
COMMENT ON FUNCTION _tidemark.doubts_template() IS 'Body of doubts_…: which anomalies may be errors; a template.';
