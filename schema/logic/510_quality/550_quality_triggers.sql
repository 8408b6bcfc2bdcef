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
    DELETE FROM _tidemark.series_memory AS m WHERE m.hypertable = TG_RELID;
    PERFORM _tidemark.lapse(TG_RELID, NULL);
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.forget_all_rows() FROM public;
COMMENT ON FUNCTION _tidemark.forget_all_rows() IS
'Statement trigger after TRUNCATE: removes the penalties and anomalies of the hypertable.';

-- Deleting rows leaves a lapse for the hypertable, because the columnstore allows no transition table on DELETE.
CREATE OR REPLACE FUNCTION _tidemark.lapse_deleted()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.lapse(TG_RELID, NULL);
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.lapse_deleted() FROM public;
COMMENT ON FUNCTION _tidemark.lapse_deleted() IS
'Statement trigger after DELETE: what is remembered of the hypertable''s series is void.';

-- Always true: a constraint of each hypertable asks it about rows that are written where triggers do not run, and so it
-- learns of them. A transaction leaves one lapse. It acts with the rights of whoever writes: only superusers, and those
-- whom they allow it, can set session_replication_role.
CREATE OR REPLACE FUNCTION _tidemark.notice_replica(p_label text)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF coalesce(current_setting('tidemark.noticed', true), '') <> p_label THEN
        PERFORM _tidemark.lapse(t.hypertable, NULL) FROM _tidemark.quality_targets AS t WHERE t.label = p_label;
        PERFORM set_config('tidemark.noticed', p_label, true);
    END IF;
    RETURN true;
END
$func$;
COMMENT ON FUNCTION _tidemark.notice_replica(text) IS
'Always true; notes that rows of a hypertable are written where triggers do not run.';

-- The constraint by which that is noticed; NULL where there is none.
CREATE OR REPLACE FUNCTION _tidemark.replica_constraint(p_hypertable regclass)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT c.conname::text
      FROM pg_catalog.pg_constraint AS c
     WHERE c.conrelid = p_hypertable AND c.contype = 'c'
       AND pg_get_constraintdef(c.oid) LIKE '%\_tidemark.notice\_replica(%';
$func$;
COMMENT ON FUNCTION _tidemark.replica_constraint(regclass) IS
'Name of the constraint by which rows that are written where triggers do not run are noticed.';

-- What shapes the baselines of series leaves a lapse for all hypertables.
CREATE OR REPLACE FUNCTION _tidemark.lapse_all()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.lapse(t.hypertable, NULL) FROM _tidemark.quality_targets AS t;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.lapse_all() FROM public;
COMMENT ON FUNCTION _tidemark.lapse_all() IS 'Trigger: what is remembered of all series is void.';

CREATE OR REPLACE TRIGGER trg_lapse AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.quality_profiles
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.lapse_all();
COMMENT ON TRIGGER trg_lapse ON public.quality_profiles IS 'Baselines depend on profiles.';
ALTER TABLE public.quality_profiles ENABLE ALWAYS TRIGGER trg_lapse;

CREATE OR REPLACE TRIGGER trg_lapse AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.market_calendar
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.lapse_all();
COMMENT ON TRIGGER trg_lapse ON public.market_calendar IS 'Baselines depend on sessions.';
ALTER TABLE public.market_calendar ENABLE ALWAYS TRIGGER trg_lapse;

CREATE OR REPLACE TRIGGER trg_lapse AFTER UPDATE ON public.sources
FOR EACH ROW
-- Not as a comparison of rows: that is another text once it was dumped and restored.
WHEN (old.data_type IS DISTINCT FROM new.data_type OR old.interval IS DISTINCT FROM new.interval
      OR old.quality_profile_id IS DISTINCT FROM new.quality_profile_id)
EXECUTE FUNCTION _tidemark.lapse_all();
COMMENT ON TRIGGER trg_lapse ON public.sources IS 'Baselines depend on the profile of the source.';
ALTER TABLE public.sources ENABLE ALWAYS TRIGGER trg_lapse;

-- A row that was confirmed to be an error, or no longer is, counts otherwise in later baselines.
CREATE OR REPLACE FUNCTION _tidemark.lapse_reviewed()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_anomaly CONSTANT public.anomalies := CASE WHEN TG_OP = 'INSERT' THEN NEW ELSE OLD END;
BEGIN
    PERFORM _tidemark.lapse(t.hypertable, ARRAY[v_anomaly.series])
       FROM _tidemark.quality_targets AS t
      WHERE t.label = v_anomaly.table_name;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.lapse_reviewed() FROM public;
COMMENT ON FUNCTION _tidemark.lapse_reviewed() IS
'Row trigger on anomalies: what is remembered of a series is void when an error of it is confirmed, or no longer is.';

CREATE OR REPLACE TRIGGER trg_lapse_inserted AFTER INSERT ON public.anomalies
FOR EACH ROW WHEN (new.status = 'confirmed_error') EXECUTE FUNCTION _tidemark.lapse_reviewed();
COMMENT ON TRIGGER trg_lapse_inserted ON public.anomalies IS 'Baselines leave out confirmed errors.';
ALTER TABLE public.anomalies ENABLE ALWAYS TRIGGER trg_lapse_inserted;

CREATE OR REPLACE TRIGGER trg_lapse_updated AFTER UPDATE ON public.anomalies
FOR EACH ROW
WHEN (
    'confirmed_error' IN (old.status, new.status)
    AND (old.status, old.value) IS DISTINCT FROM (new.status, new.value)
)
EXECUTE FUNCTION _tidemark.lapse_reviewed();
COMMENT ON TRIGGER trg_lapse_updated ON public.anomalies IS 'Baselines leave out confirmed errors.';
ALTER TABLE public.anomalies ENABLE ALWAYS TRIGGER trg_lapse_updated;

CREATE OR REPLACE TRIGGER trg_lapse_deleted AFTER DELETE ON public.anomalies
FOR EACH ROW WHEN (old.status = 'confirmed_error') EXECUTE FUNCTION _tidemark.lapse_reviewed();
COMMENT ON TRIGGER trg_lapse_deleted ON public.anomalies IS 'Baselines leave out confirmed errors.';
ALTER TABLE public.anomalies ENABLE ALWAYS TRIGGER trg_lapse_deleted;

-- What both triggers begin with. Islands: per series the periods that the rows of @source@ (alias d) cover. A statement
-- with one row of each series, as feeds bring them, is judged by what is remembered: v_codes says what became of that,
-- v_suspects which rows the rules find fault with. Rows of a large statement that are far apart, so that reading what
-- lies between would cost more than it tells, are islands of their own.
CREATE OR REPLACE FUNCTION _tidemark.islands_text()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $sql$
    SELECT max(d.@time@) - min(d.@time@) > 5 * @chunk_interval@::interval, count(*) INTO v_is_wide, v_row_count
      FROM @source@;
    IF v_row_count = 0 THEN
        RETURN NULL;
    ELSIF v_row_count > 5000 OR v_is_wide THEN
        SELECT array_agg(g.series), array_agg(g.starts_at), array_agg(g.ends_at)
          INTO v_series, v_from, v_to
          FROM (
            SELECT @series_of_keys@ AS series, min(c.starts_at) AS starts_at, max(c.ends_at) AS ends_at
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
          ) AS g;
    ELSE
        @try@
        SELECT array_agg(g.series), array_agg(g.starts_at), array_agg(g.ends_at),
               array_agg(CASE WHEN g.starts_at = g.ends_at THEN g.value END), array_agg(g.is_suspect)
          INTO v_series, v_from, v_to, v_value, v_suspects
          FROM (
            SELECT i.series, min(d.@time@) AS starts_at, max(d.@time@) AS ends_at,
                   max(CASE WHEN @valid_price@@is_new@ THEN @value@ END) AS value,
                   bool_or(
                       d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false@arrival@
                       OR @missing@
                       OR @broken@
                   ) AS is_suspect
              FROM @source@
             CROSS JOIN LATERAL (SELECT @series@ AS series OFFSET 0) AS i
              -- Its profile; what nothing is remembered of is looked at in any case.
              LEFT JOIN LATERAL (
                       SELECT q.market, m.step, q.required_fields, q.allowed_lag
                         FROM _tidemark.series_memory AS m
                         JOIN public.quality_profiles AS q ON q.quality_profile_id = m.quality_profile_id
                        WHERE m.hypertable = @table_literal@::regclass
                          AND m.series = i.series
                       OFFSET 0
                   ) AS p ON true
             GROUP BY i.series
          ) AS g;
        @catch@
        @recall@
        IF array_position(v_codes, NULL) IS NULL AND array_position(v_codes, 1) IS NULL
           AND array_position(v_suspects, true) IS NULL AND v_codes IS NOT NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT array_agg(i.series), array_agg(i.starts_at), array_agg(i.ends_at),
           array_agg(i.series) FILTER (WHERE i.code IS NULL), array_agg(i.ends_at) FILTER (WHERE i.code IS NULL)
      INTO v_series, v_from, v_to, v_unknown, v_unknown_to
      FROM unnest(v_series, v_from, v_to, v_codes, v_suspects) AS i (series, starts_at, ends_at, code, is_suspect)
     WHERE i.code IS DISTINCT FROM 0
        OR i.is_suspect;
    IF v_unknown IS NOT NULL THEN
        PERFORM _tidemark.forget_series(@table_literal@::regclass, v_unknown, v_unknown_to);
    END IF;$sql$;
$func$;
COMMENT ON FUNCTION _tidemark.islands_text() IS
'What the triggers begin with: the periods that changed rows cover, less what memory is certain of; a template.';

-- What both triggers are: p_body after what they begin with.
CREATE OR REPLACE FUNCTION _tidemark.trigger_text(p_body text)
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT $sql$
#variable_conflict use_column
DECLARE
    v_now CONSTANT timestamptz := clock_timestamp(); -- one clock for all rows of the statement
    v_is_live CONSTANT boolean := coalesce(current_setting('tidemark.ingest_mode', true), '')
        NOT IN ('backfill', 'correction', 'replay');
    v_is_safe boolean := false; -- a rule failed to evaluate: the judge is to look at each on its own
    v_series jsonb[];
    v_from timestamptz[];
    v_to timestamptz[];
    v_value double precision[];
    v_is_wide boolean;
    v_row_count bigint;
    v_codes integer[];
    v_suspects boolean[];
    v_unknown jsonb[];
    v_unknown_to timestamptz[];
    v_late_before timestamptz[];
    v_compressed tstzrange[];
BEGIN@begin@@islands@
$sql$ || p_body || $sql$
    RETURN NULL;
END
$sql$;
$func$;
COMMENT ON FUNCTION _tidemark.trigger_text(text) IS 'Body of a trigger that scores rows; a template.';

-- Statement trigger before INSERT: the rows of a statement that trg_calculate_quality_score will judge begin with the
-- score 100. That one takes it back. In what the two do not see, because they are switched off, rows are
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

-- score_…: trg_calculate_quality_score.
CREATE OR REPLACE FUNCTION _tidemark.insert_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.trigger_text($sql$
    -- A chunk that was compressed as a whole until this statement shows its new rows to nobody before the statement
    -- ends. Bringing one of them again, which stores nothing, ends a statement.
    SELECT array_agg(c) INTO v_compressed
      FROM _tidemark.compressed_periods(
               @table_literal@, (SELECT min(f) FROM unnest(v_from) AS f), (SELECT max(t) FROM unnest(v_to) AS t)
           ) AS c;
    IF v_compressed IS NOT NULL THEN
        INSERT INTO @table@ @into_columns@ OVERRIDING SYSTEM VALUE
        SELECT @columns@
          FROM unnest(v_compressed) AS c (period)
         CROSS JOIN LATERAL (SELECT d.* FROM new_rows AS d WHERE d.@time@ <@ c.period LIMIT 1) AS n
        ON CONFLICT DO NOTHING;
    END IF;

    -- What is judged against the clock.
    IF (SELECT max(t) FROM unnest(v_to) AS t) > v_now + @tolerance@::interval THEN
        INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, rule_id, detail)
        SELECT @label@, @series@, d.@time@, 'validation', 10, r.rule_id, r.name
          FROM new_rows AS d
          JOIN (VALUES @future_rules@) AS r (rule_id, tolerance, source_id, name) ON d.@time@ > v_now + r.tolerance
         WHERE @future_scope@
        ON CONFLICT ON CONSTRAINT quality_issues_series_ts_penalty_key DO NOTHING;
    END IF;
    IF v_is_live THEN
        SELECT _tidemark.late_bounds(t, v_series, v_now) INTO v_late_before
          FROM _tidemark.quality_targets AS t
         WHERE t.hypertable = @table_literal@::regclass;
        IF EXISTS (
            SELECT FROM unnest(v_late_before, v_from) AS i (late_before, starts_at) WHERE i.starts_at < i.late_before
        ) THEN
            INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, detail)
            SELECT @label@, i.series, d.@time@, 'timeliness', 20,
                   to_char(v_now AT TIME ZONE 'UTC', '"arrived at" YYYY-MM-DD"T"HH24:MI:SS"Z"')
              FROM new_rows AS d
              JOIN (SELECT DISTINCT l.series, l.late_before
                      FROM unnest(v_series, v_late_before) AS l (series, late_before)) AS i
                ON @series@ = i.series AND d.@time@ < i.late_before
            ON CONFLICT ON CONSTRAINT quality_issues_series_ts_penalty_key DO NOTHING;
        ELSE
            v_late_before := NULL;
        END IF;
    END IF;
    PERFORM _tidemark.judge(
        @table_literal@::regclass, v_series, v_from, v_to, v_late_before, v_now + @tolerance@::interval, true, v_is_safe
    );$sql$);
$func$;
COMMENT ON FUNCTION _tidemark.insert_template() IS 'Body of the trigger that scores new rows; a template.';

-- rescore_updated_…: trg_rescore_updated judges updated rows where they were and where they are.
CREATE OR REPLACE FUNCTION _tidemark.update_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.trigger_text($sql$
    -- Rows that moved to another key took nothing with them.
    PERFORM _tidemark.forget_rows(@label@, array_agg(@series_of_old@), array_agg(o.@time@))
       FROM old_rows AS o
      WHERE NOT EXISTS (SELECT FROM new_rows AS n WHERE @same_key@ AND n.@time@ = o.@time@)
     HAVING count(*) > 0;
    PERFORM _tidemark.judge(
        @table_literal@::regclass, v_series, v_from, v_to, NULL, 'infinity', true, v_is_safe
    );$sql$);
$func$;
COMMENT ON FUNCTION _tidemark.update_template() IS 'Body of the trigger that judges updated rows; a template.';
