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
     WHERE q.table_name = p_label AND q.series = g.series
       AND (q.series, q.ts) >= (g.series, g.ts) AND (q.series, q.ts) <= (g.series, g.ts); -- as in record_verdicts()

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
    DELETE FROM _tidemark.waiting_bars AS w WHERE w.hypertable = TG_RELID;
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
      OR old.quality_profile_id IS DISTINCT FROM new.quality_profile_id OR old.asset_id IS DISTINCT FROM new.asset_id
      OR old.config ->> 'market' IS DISTINCT FROM new.config ->> 'market')
EXECUTE FUNCTION _tidemark.lapse_all();
COMMENT ON TRIGGER trg_lapse ON public.sources IS 'Baselines depend on the profile and the market of the source.';
ALTER TABLE public.sources ENABLE ALWAYS TRIGGER trg_lapse;

CREATE OR REPLACE TRIGGER trg_lapse AFTER UPDATE ON public.assets
FOR EACH ROW
WHEN (old.has_negative_prices <> new.has_negative_prices OR old.exchange IS DISTINCT FROM new.exchange)
EXECUTE FUNCTION _tidemark.lapse_all();
COMMENT ON TRIGGER trg_lapse ON public.assets IS
'Baselines depend on whether prices may be negative, and on the market.';
ALTER TABLE public.assets ENABLE ALWAYS TRIGGER trg_lapse;

CREATE OR REPLACE TRIGGER trg_lapse AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON _tidemark.market_names
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.lapse_all();
COMMENT ON TRIGGER trg_lapse ON _tidemark.market_names IS 'Markets are found by their names.';
ALTER TABLE _tidemark.market_names ENABLE ALWAYS TRIGGER trg_lapse;

-- One lapse is enough for all that a transaction does to splits until it builds a memory, in remember().
CREATE OR REPLACE FUNCTION _tidemark.lapse_split()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF coalesce(current_setting('tidemark.split_lapsed', true), '') <> 'on' THEN
        PERFORM _tidemark.lapse(t.hypertable, NULL) FROM _tidemark.quality_targets AS t;
        PERFORM set_config('tidemark.split_lapsed', 'on', true);
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.lapse_split() FROM public;
COMMENT ON FUNCTION _tidemark.lapse_split() IS
'Statement trigger on corporate_actions: what is remembered of all series is void.';

CREATE OR REPLACE TRIGGER trg_lapse AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public.corporate_actions
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.lapse_split();
COMMENT ON TRIGGER trg_lapse ON public.corporate_actions IS 'Baselines contain no splits.';
ALTER TABLE public.corporate_actions ENABLE ALWAYS TRIGGER trg_lapse;

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

-- Islands of rows, given as periods of series: those of a series that are far apart, so that reading what lies between
-- would cost more than it tells, stay apart.
CREATE OR REPLACE FUNCTION _tidemark.merge_periods(
    p_series jsonb[],
    p_from timestamptz[],
    p_to timestamptz[],
    p_far interval
)
    RETURNS TABLE (series jsonb[], starts timestamptz[], ends timestamptz[])
    LANGUAGE sql
    IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT array_agg(g.series), array_agg(g.starts_at), array_agg(g.ends_at)
      FROM (
        SELECT b.series, min(b.starts_at) AS starts_at, max(b.ends_at) AS ends_at
          FROM (
            SELECT a.*, count(*) FILTER (WHERE a.is_far) OVER (PARTITION BY a.series ORDER BY a.starts_at) AS part
              FROM (
                SELECT i.*, i.starts_at - lag(i.ends_at) OVER (PARTITION BY i.series ORDER BY i.starts_at) > p_far AS is_far
                  FROM unnest(p_series, p_from, p_to) AS i (series, starts_at, ends_at)
              ) AS a
          ) AS b
         GROUP BY b.series, b.part
      ) AS g;
$func$;
COMMENT ON FUNCTION _tidemark.merge_periods(jsonb [], timestamptz [], timestamptz [], interval) IS
'Periods of series, those of a series that are not far apart as one.';

-- What both triggers are: the rows are judged by what is remembered of their series, a cursor over them being handed to
-- recall(); what that leaves is islands, which p_body judges. A large statement, as of history that is loaded, is
-- islands at once, and so is that of a transaction that sees an older state of the rows than others: a memory would be
-- ahead of it.
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
BEGIN@begin@
    -- Bars that looked like an anomaly while they formed, and have closed: by the clock, or by what came now.
    IF EXISTS (SELECT FROM _tidemark.waiting_bars AS w WHERE w.hypertable = @table_literal@::regclass) THEN
        PERFORM _tidemark.judge_closed(@table_literal@::regclass, array_agg(i.series), array_agg(i.ts))
           FROM _tidemark.waiting_bars AS i
          WHERE i.hypertable = @table_literal@::regclass
            AND ((v_is_live AND i.closes_at <= v_now)
                 -- The newest of each series by its text: not all rows again for each bar that waits.
                 OR i.ts < ((SELECT jsonb_object_agg(n.series, n.newest_at)
                               FROM (SELECT @series@::text AS series, max(d.@time@) AS newest_at
                                       FROM new_rows AS d
                                      GROUP BY @keys_of_d@) AS n) ->> i.series::text)::timestamptz)
         HAVING count(*) > 0;
    END IF;
    IF NOT EXISTS (SELECT FROM new_rows) THEN -- as of an upsert that found all its rows there
        RETURN NULL;
    END IF;
    IF @is_remembered@ AND current_setting('transaction_isolation') = 'read committed' THEN
        @try@
        OPEN v_rows NO SCROLL FOR
            SELECT i.series, d.@time@ AS ts, CASE WHEN @valid_price@ THEN @value@ END AS value,
                   d.tidemark_row_count AS row_count, m.place, m.memory, m.profile,
                   (d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false@arrival@
                    OR @missing@
                    OR @broken@) IS TRUE AS is_suspect,
                   (SELECT coalesce(sum(l.weight), 0)::bigint FROM _tidemark.memory_lapses AS l
                     WHERE l.hypertable = @table_literal@::regclass AND l.series IS NULL) AS lapses,
                   EXISTS (SELECT FROM _tidemark.memory_lapses AS l
                            WHERE l.hypertable = @table_literal@::regclass AND l.series IS NOT NULL) AS has_own_lapses,
                   (SELECT _tidemark.chunks_of(@table_literal@::regclass)) AS chunks,
                   @wick@ AS wick, @body@ AS body, @known_volume@ AS volume
              FROM (SELECT d.*, count(*) OVER (PARTITION BY @keys_of_d@) AS tidemark_row_count
                      FROM new_rows AS d
                     WHERE (SELECT count(*) <= 5000 FROM (SELECT FROM new_rows LIMIT 5001) AS c)) AS d
             CROSS JOIN LATERAL (SELECT @series@ AS series OFFSET 0) AS i
              LEFT JOIN LATERAL (
                       SELECT o.ctid AS place, o AS memory, q AS profile, o.market, o.step, q.required_fields,
                              _tidemark.allowed_lag(q.allowed_lag, o.step) AS lag,
                              q.allowed_lag IS NOT NULL OR o.is_live AS is_live
                         FROM _tidemark.series_memory AS o
                         JOIN public.quality_profiles AS q ON q.quality_profile_id = o.quality_profile_id
                        WHERE o.hypertable = @table_literal@::regclass
                          AND o.series = i.series
                          FOR NO KEY UPDATE OF o SKIP LOCKED
                   ) AS m ON true
             CROSS JOIN LATERAL (SELECT m.market, m.step, m.required_fields, m.lag, m.is_live,
                                        'log_return'::public.change_transform AS transform) AS p;
        SELECT r.row_count, r.series, r.ts, r.ts INTO v_row_count, v_series, v_from, v_to
          FROM _tidemark.recall(@table_literal@::regclass, v_rows, @is_insert@, v_is_live, v_now) AS r;
        -- What these rows say of the anomalies right before them.
        IF v_row_count > 0 AND EXISTS (
            SELECT FROM public.anomalies AS a WHERE a.table_name = @label@ AND a.is_doubtful IS NULL
        ) THEN
            PERFORM _tidemark.decide_doubtful(
                        @table_literal@::regclass, array_agg(i.series), array_agg(i.ts), array_agg(i.ts)
                    )
               FROM (SELECT @series@ AS series, min(d.@time@) AS ts FROM new_rows AS d GROUP BY 1) AS i
              WHERE EXISTS (SELECT FROM public.anomalies AS a
                             WHERE a.table_name = @label@ AND a.series = i.series AND a.is_doubtful IS NULL)
             HAVING count(*) > 0;
        END IF;
        IF v_row_count > 0 AND v_series IS NULL THEN
            RETURN NULL;
        END IF;
        @catch@
    END IF;
    IF v_row_count = 0 THEN
        SELECT array_agg(@series_of_keys@), array_agg(g.starts_at), array_agg(g.ends_at)
          INTO v_series, v_from, v_to
          FROM (
            SELECT @keys_of_row@, min(d.@time@) AS starts_at, max(d.@time@) AS ends_at,
                   date_bin(@chunk_interval@, d.@time@, '2000-01-03 00:00+00') AS bucket
              FROM new_rows AS d
             GROUP BY @keys@, bucket
          ) AS g;
        IF v_series IS NULL THEN
            RETURN NULL;
        END IF;
        PERFORM _tidemark.forget_series(@table_literal@::regclass, v_series, v_to);
    END IF;
$sql$ || p_body || $sql$
    RETURN NULL;
END
$sql$;
$func$;
COMMENT ON FUNCTION _tidemark.trigger_text(text) IS 'Body of a trigger that scores rows; a template.';

-- score_…: trg_calculate_quality_score.
CREATE OR REPLACE FUNCTION _tidemark.insert_template()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.trigger_text($sql$
    SELECT i.series, i.starts, i.ends INTO v_series, v_from, v_to
      FROM _tidemark.merge_periods(v_series, v_from, v_to, 5 * @chunk_interval@::interval) AS i;
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
        SELECT _tidemark.late_bounds(t, v_series, v_from, v_now) INTO v_late_before
          FROM _tidemark.quality_targets AS t
         WHERE t.hypertable = @table_literal@::regclass;
        IF EXISTS (
            SELECT FROM unnest(v_late_before, v_from) AS i (late_before, starts_at) WHERE i.starts_at < i.late_before
        ) THEN
            INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, detail)
            SELECT @label@, i.series, d.@time@, 'timeliness', 20,
                   to_char(v_now AT TIME ZONE 'UTC', '"arrived at" YYYY-MM-DD"T"HH24:MI:SS"Z"')
              FROM new_rows AS d
              JOIN unnest(v_series, v_from, v_to, v_late_before) AS i (series, starts_at, ends_at, late_before)
                ON @series@ = i.series AND d.@time@ BETWEEN i.starts_at AND i.ends_at AND d.@time@ < i.late_before
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
    SELECT array_agg(@series_of_old@), array_agg(o.@time@) INTO v_left, v_left_ts
      -- No join: one that was planned for a single row would pair all of a large statement.
      FROM (SELECT @keys_of_d@, d.@time@ FROM old_rows AS d
            EXCEPT
            SELECT @keys_of_d@, d.@time@ FROM new_rows AS d) AS o;
    IF v_left IS NOT NULL THEN
        PERFORM _tidemark.forget_series(@table_literal@::regclass, v_left, v_left_ts);
        PERFORM _tidemark.forget_rows(@label@, v_left, v_left_ts);
    END IF;
    SELECT i.series, i.starts, i.ends INTO v_series, v_from, v_to
      FROM _tidemark.merge_periods(
               v_series || v_left, v_from || v_left_ts, v_to || v_left_ts, 5 * @chunk_interval@::interval
           ) AS i;
    PERFORM _tidemark.judge(
        @table_literal@::regclass, v_series, v_from, v_to, NULL, 'infinity', true, v_is_safe
    );$sql$);
$func$;
COMMENT ON FUNCTION _tidemark.update_template() IS 'Body of the trigger that judges updated rows; a template.';
