-- The triggers of a hypertable that quality is attached to. After an INSERT trg_calculate_quality_score judges the new
-- rows, and the rows after late ones. A row that nobody finds fault with is written once, because trg_expect_scores has
-- its score begin with 100; rows with faults are written a second time, by the clerk. One that nobody scored has no
-- score: the default is NULL wherever that trigger did not find the other one in force.

-- Whether the current role is the one that the clerks act as.
CREATE OR REPLACE FUNCTION _tidemark.is_clerk()
    RETURNS boolean
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT current_user = pg_get_userbyid(p.proowner)
      FROM pg_catalog.pg_proc AS p
     WHERE p.oid = '_tidemark.is_clerk'::regproc;
$func$;
COMMENT ON FUNCTION _tidemark.is_clerk() IS 'Whether the current role is the one that scores are written as.';

-- Removes what is on record about rows that are gone. An episode whose first anomaly goes passes to the next one.
CREATE OR REPLACE FUNCTION _tidemark.forget_rows(
    p_label text,
    p_series jsonb[],
    p_ts timestamptz[]
)
    RETURNS void
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    DELETE FROM public.quality_issues AS q
     USING unnest(p_series, p_ts) AS g (series, ts)
     WHERE q.table_name = p_label AND q.series = g.series AND q.ts = g.ts;

    UPDATE public.anomalies AS a
       SET episode_id = n.new_episode_id
      FROM unnest(p_series, p_ts) AS g (series, ts)
      JOIN public.anomalies AS h ON h.table_name = p_label AND h.series = g.series AND h.timestamp = g.ts
     CROSS JOIN LATERAL (
               SELECT m.anomaly_id AS new_episode_id
                 FROM public.anomalies AS m
                WHERE m.episode_id = h.anomaly_id
                  AND (m.series, m.timestamp)
                      NOT IN (SELECT r.series, r.ts FROM unnest(p_series, p_ts) AS r (series, ts))
                ORDER BY m.timestamp
                LIMIT 1
           ) AS n
     WHERE a.episode_id = h.anomaly_id;

    DELETE FROM public.anomalies AS a
     USING unnest(p_series, p_ts) AS g (series, ts)
     WHERE a.table_name = p_label AND a.series = g.series AND a.timestamp = g.ts;
$func$;
COMMENT ON FUNCTION _tidemark.forget_rows(text, jsonb[], timestamptz[]) IS
'Removes the penalties and anomalies of rows that are gone.';

CREATE OR REPLACE FUNCTION _tidemark.forget_all_rows()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    DELETE FROM public.quality_issues AS q WHERE q.table_name = TG_ARGV[0];
    DELETE FROM public.anomalies AS a WHERE a.table_name = TG_ARGV[0];
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.forget_all_rows() FROM public;
COMMENT ON FUNCTION _tidemark.forget_all_rows() IS
'Statement trigger after TRUNCATE: removes the penalties and anomalies of the hypertable.';

-- Islands of rows: per series the periods that the rows of @source@ (alias d) cover. Rows that are far apart, so that
-- reading what lies between would cost more than it tells, are islands of their own.
CREATE OR REPLACE FUNCTION _tidemark.islands_query()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $sql$
        SELECT @aggregated_keys@, array_agg(g.starts_at), array_agg(g.ends_at), max(g.ends_at)
          INTO @key_arrays@, v_from, v_to, v_latest
          FROM (
            SELECT @keys@, min(c.starts_at) AS starts_at, max(c.ends_at) AS ends_at
              FROM (
                SELECT b.*, count(*) FILTER (WHERE b.is_far) OVER (PARTITION BY @keys@ ORDER BY b.bucket) AS part
                  FROM (
                    SELECT a.*, a.bucket - lag(a.bucket) OVER (PARTITION BY @keys@ ORDER BY a.bucket)
                                > 5 * @chunk_interval@::interval AS is_far
                      FROM (
                        SELECT @keys_of_row@, min(d.@time@) AS starts_at, max(d.@time@) AS ends_at,
                               date_bin(@chunk_interval@, d.@time@, '2000-01-03 00:00+00') AS bucket
                          FROM @source@
                         GROUP BY @keys@, bucket
                      ) AS a
                  ) AS b
              ) AS c
             GROUP BY @keys@, c.part
          ) AS g
    $sql$;
$func$;
COMMENT ON FUNCTION _tidemark.islands_query() IS 'Query for the periods that changed rows cover; a template.';

-- Whether the detector certainly leaves the newest row of a series alone, from its level and those of the 51 rows
-- before it (ln(p) in 1e-7, newest first, in v_levels), without computing its baseline of v_rows rows. False means
-- nothing.
--
-- Let C be the 30 changes 22 to 51 rows back, with mean c and sum of squares A around it. Every one of the 20 changes R
-- after them has C in its own baseline of at most N = v_rows changes, with mean m and deviation s, so that (N - 1) s^2
-- >= A + 30 (c - m)^2. A change x of R is kept by pass 1 if |x - m| <= 4 s, and
--     |x - m| <= |x - c| + |c - m|,   min over m of 4 s - |c - m| = sqrt(A / (N - 1) * (16 - (N - 1) / 30)).
-- What of R lies within that of c is therefore kept for certain; its sum of squares B around its own mean is part of
-- what s20 is made of, so S >= s20 >= sqrt(B / 19). And |z| <= |d| / S.
-- Loops, because a query over arrays of this size takes longer to begin than they to end.
CREATE OR REPLACE FUNCTION _tidemark.certainty_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $block$
                v_center := (v_levels[22] - v_levels[52]) / 30.0::double precision;
                v_squares := 0;
                FOR i IN 22 .. 51 LOOP
                    v_change := v_levels[i] - v_levels[i + 1] - v_center;
                    v_squares := v_squares + v_change * v_change;
                END LOOP;
                v_limit := 0.999 * sqrt(v_squares / (v_rows - 1) * (16 - (v_rows - 1) / 30.0::double precision));
                v_count := 0;
                v_sum := 0;
                v_squares := 0;
                FOR i IN 2 .. 21 LOOP
                    v_change := v_levels[i] - v_levels[i + 1] - v_center;
                    IF abs(v_change) <= v_limit THEN
                        v_count := v_count + 1;
                        v_sum := v_sum + v_change;
                        v_squares := v_squares + v_change * v_change;
                    END IF;
                END LOOP;
                v_is_certain := v_count > 0 AND abs(v_levels[1] - (
                    v_levels[2] + v_levels[3] + v_levels[4] - greatest(v_levels[2], v_levels[3], v_levels[4])
                    - least(v_levels[2], v_levels[3], v_levels[4])
                )) <= 0.999 * v_anomaly_z * greatest(
                    sqrt(greatest(v_squares - v_sum * v_sum / v_count, 0) / 19), 1e7 * v_scale_floor
                );
$block$;
$func$;
COMMENT ON FUNCTION _tidemark.certainty_template() IS
'Statements that tell whether the detector certainly leaves the newest of 52 rows alone; a template.';

-- Statement trigger before INSERT: the rows of a statement that trg_calculate_quality_score will judge begin with the
-- score 100. It takes that back (insert_template). In what the two do not see, because they are switched off, rows are
-- replicated or go into a chunk directly, the score stays NULL.
CREATE OR REPLACE FUNCTION _tidemark.expect_scores()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM set_config('tidemark.scoring', TG_ARGV[0], true)
       FROM pg_catalog.pg_trigger AS t
       JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
      WHERE t.tgrelid = TG_RELID
        AND t.tgname = 'trg_calculate_quality_score'
        AND t.tgenabled IN ('O', 'A')
        AND p.proname = 'score_' || TG_ARGV[0];
    RETURN NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.expect_scores() IS
'Statement trigger before INSERT: rows begin with the score 100 where the trigger that judges them is in force.';

-- The body of trg_calculate_quality_score.
CREATE OR REPLACE FUNCTION _tidemark.insert_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $trigger$
#variable_conflict use_column
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp(); -- one clock for all rows of the statement
    v_is_live CONSTANT boolean := coalesce(current_setting('tidemark.ingest_mode', true), '')
        NOT IN ('backfill', 'correction', 'replay');
    @key_array_declarations@
    v_from timestamptz[];
    v_to timestamptz[];
    v_late_before timestamptz[];
    v_latest timestamptz;
    v_compressed tstzrange[];
    -- Of the first row:
    @key_value_declarations@
    v_row_count bigint;
    v_has_few_chunks boolean;
    v_mode text;
    v_ts timestamptz;
    v_value double precision;
    v_is_suspect boolean;
    v_transform public.change_transform;
    v_rows integer;
    v_max_change double precision;
    v_anomaly_z double precision;
    v_scale_floor double precision;
    v_lag interval;
    v_market text;
    v_step interval;
    v_back_to timestamptz;
    v_levels bigint[];
    v_is_late boolean;
    v_center double precision;
    v_change double precision;
    v_limit double precision;
    v_count integer;
    v_sum double precision;
    v_squares double precision;
    v_is_certain boolean;
    v_is_near_anomaly boolean;
    v_is_safe boolean := false; -- a rule failed to evaluate: look at each on its own
BEGIN
    PERFORM set_config('tidemark.scoring', '', true);
    @try@
    IF NOT v_is_safe THEN
        SELECT (SELECT count(*) FROM (SELECT FROM new_rows LIMIT 2) AS c),
               (SELECT count(*) <= 40 FROM (SELECT FROM pg_catalog.pg_inherits AS h
                                             WHERE h.inhparent = @table_literal@::regclass LIMIT 41) AS c), @keys@, x.ts, x.value, x.is_suspect,
               p.transform, p.baseline_rows, p.max_change, p.anomaly_z, p.scale_floor, p.allowed_lag, p.market, p.step
          INTO v_row_count, v_has_few_chunks, @key_values@, v_ts, v_value, v_is_suspect,
               v_transform, v_rows, v_max_change, v_anomaly_z, v_scale_floor, v_lag, v_market, v_step
          FROM (SELECT * FROM new_rows LIMIT 1) AS d
         CROSS JOIN LATERAL (SELECT @keys_of_row@) AS i
         CROSS JOIN LATERAL @profile@ AS p
         CROSS JOIN LATERAL (
                   SELECT d.@time@ AS ts, @value@ AS value,
                          d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false OR @missing@
                          OR @broken_without_market@ AS is_suspect
                     FROM (SELECT d.*) AS d
               ) AS x;
        IF v_row_count IS NULL THEN
            RETURN NULL;
        END IF;

        -- One row at the end of its series, as feeds deliver them: where it is certain that the detector would not flag
        -- it, it need not run.
        IF v_row_count = 1
           AND NOT v_is_suspect
           AND v_transform = 'log_return'
           AND v_rows BETWEEN 51 AND 450
           AND v_value > 1e-100
           AND v_value < 1e100
           AND v_ts <= v_now + @tolerance@::interval
           AND (v_lag IS NULL OR NOT v_is_live)
           AND v_market IS NULL
        THEN
            -- Of few chunks all may be locked, which saves planning the look-back anew every time. Else it is planned for
            -- the chunks of its period: hence a variable.
            IF v_has_few_chunks THEN
                v_mode := set_config('plan_cache_mode', 'force_generic_plan', true);
            END IF;
            v_back_to := v_ts - CASE v_step WHEN interval '0' THEN @chunk_interval@::interval
                                ELSE 312 * v_step + interval '4 days' END;
            SELECT array_agg(CASE WHEN r.value > 1e-100 AND r.value < 1e100 THEN (ln(r.value) * 1e7)::bigint END),
                   bool_or(r.ts > v_ts), bool_or(r.is_anomaly)
              INTO v_levels, v_is_late, v_is_near_anomaly
              FROM (SELECT @value@ AS value, d.@time@ AS ts, d.is_anomaly
                      FROM @table@ AS d
                     WHERE @row_is_of_values@ AND d.@time@ >= v_back_to
                     ORDER BY d.@time@ DESC
                     LIMIT 52) AS r;
            IF NOT v_is_late
               AND cardinality(v_levels) = 52
               AND array_position(v_levels, NULL) IS NULL
               AND abs(v_value * exp(v_levels[2]::double precision / -1e7) - 1) < v_max_change * 0.999999
               AND NOT (v_is_near_anomaly AND EXISTS (
                   SELECT FROM public.anomalies AS b
                    WHERE b.table_name = @label@ AND b.status = 'confirmed_error'
                      AND b.timestamp BETWEEN v_back_to AND v_ts
               ))
            THEN
                @certainty@
                IF v_is_certain THEN
                    RETURN NULL;
                END IF;
            END IF;
        END IF;
    END IF;

    @islands@;

    -- A chunk that was compressed as a whole until this statement shows its new rows to nobody before the statement
    -- ends. Bringing one of them again, which stores nothing, ends a statement.
    SELECT array_agg(c) INTO v_compressed
      FROM _tidemark.compressed_periods(@table_literal@, (SELECT min(f) FROM unnest(v_from) AS f), v_latest) AS c;
    IF v_compressed IS NOT NULL THEN
        INSERT INTO @table@ @into_columns@ OVERRIDING SYSTEM VALUE
        SELECT @columns@
          FROM unnest(v_compressed) AS c (period)
         CROSS JOIN LATERAL (SELECT d.* FROM new_rows AS d WHERE d.@time@ <@ c.period LIMIT 1) AS n
        ON CONFLICT DO NOTHING;
    END IF;

    -- What is judged against the clock.
    IF v_latest > v_now + @tolerance@::interval THEN
        INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, rule_id, detail)
        SELECT @label@, @series@, d.@time@, 'validation', 10, r.rule_id, r.name
          FROM new_rows AS d
          JOIN (VALUES @future_rules@) AS r (rule_id, tolerance, source_id, name) ON d.@time@ > v_now + r.tolerance
         WHERE @future_scope@
        ON CONFLICT ON CONSTRAINT quality_issues_series_ts_penalty_key DO NOTHING;
    END IF;
    IF v_is_live THEN
        SELECT array_agg(CASE WHEN p.allowed_lag IS NOT NULL
                              THEN _tidemark.late_before(p.market, p.allowed_lag, p.step, v_now) END ORDER BY i.island)
          INTO v_late_before
          FROM unnest(@key_arrays@) WITH ORDINALITY AS i (@keys@, island)
         CROSS JOIN LATERAL @profile@ AS p;
        IF EXISTS (
            SELECT FROM unnest(v_late_before, v_from) AS i (late_before, starts_at) WHERE i.starts_at < i.late_before
        ) THEN
            INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, detail)
            SELECT @label@, @series@, d.@time@, 'timeliness', 20,
                   to_char(v_now AT TIME ZONE 'UTC', '"arrived at" YYYY-MM-DD"T"HH24:MI:SS"Z"')
              FROM new_rows AS d
              JOIN unnest(@key_arrays@, v_late_before) AS i (@keys@, late_before)
                ON @row_is_of_i@ AND d.@time@ < i.late_before
            ON CONFLICT ON CONSTRAINT quality_issues_series_ts_penalty_key DO NOTHING;
        ELSE
            v_late_before := NULL;
        END IF;
    END IF;
    IF v_is_safe THEN
        PERFORM _tidemark.judge_safely_@stem@(
            @key_arrays@, v_from, v_to, v_late_before, v_now + @tolerance@::interval, true
        );
    ELSE
        PERFORM _tidemark.judge_@stem@(@key_arrays@, v_from, v_to, v_late_before, v_now + @tolerance@::interval, true);
    END IF;
    @end_try@
    RETURN NULL;
END
$trigger$;
$func$;
COMMENT ON FUNCTION _tidemark.insert_template() IS 'Body of the trigger that scores new rows; a template.';

-- The body of trg_rescore_updated: updated rows are judged where they were and where they are.
CREATE OR REPLACE FUNCTION _tidemark.update_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $trigger$
#variable_conflict use_column
DECLARE
    @key_array_declarations@
    v_from timestamptz[];
    v_to timestamptz[];
    v_latest timestamptz;
    v_series jsonb[];
    v_ts timestamptz[];
    v_is_safe boolean := false; -- a rule failed to evaluate: look at each on its own
BEGIN
    @try@
    @islands@;
    IF v_from IS NULL THEN
        RETURN NULL;
    END IF;
    -- Rows that moved to another key took nothing with them.
    SELECT array_agg(@series_of_old@), array_agg(o.@time@) INTO v_series, v_ts
      FROM old_rows AS o
     WHERE NOT EXISTS (SELECT FROM new_rows AS n WHERE @same_key@ AND n.@time@ = o.@time@);
    IF v_ts IS NOT NULL THEN
        PERFORM _tidemark.forget_rows(@label@, v_series, v_ts);
    END IF;
    IF v_is_safe THEN
        PERFORM _tidemark.judge_safely_@stem@(@key_arrays@, v_from, v_to, NULL, 'infinity', true);
    ELSE
        PERFORM _tidemark.judge_@stem@(@key_arrays@, v_from, v_to, NULL, 'infinity', true);
    END IF;
    @end_try@
    RETURN NULL;
END
$trigger$;
$func$;
COMMENT ON FUNCTION _tidemark.update_template() IS 'Body of the trigger that judges updated rows; a template.';
