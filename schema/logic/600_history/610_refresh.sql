-- Bringing aggregates up to date: by hand, from a script, from a job.

-- The range that a refresh of a continuous aggregate covers: from the first bucket (NULL: from the beginning) to the
-- last one that has ended, and not beyond p_from and p_to, where given, by more than a bucket. Frozen buckets in it
-- keep what they have. The bucket of the newest row is left out, unless p_through lies behind it: once materialised,
-- rows that arrive in it would be late ones. No row where there is nothing to refresh.
CREATE OR REPLACE FUNCTION _tidemark.refresh_window(
    p_name text,
    p_from timestamptz,
    p_to timestamptz,
    p_through timestamptz
)
    RETURNS TABLE (window_start timestamptz, window_end timestamptz)
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rollup _tidemark.rollups;
    v_newest timestamptz;
BEGIN
    SELECT r.* INTO STRICT v_rollup FROM _tidemark.rollups AS r WHERE r.name = p_name;
    v_newest := _tidemark.newest_row(v_rollup.hypertable);
    PERFORM _tidemark.note_drops(v_rollup.hypertable);
    -- TimescaleDB takes everything before the end of a refresh for materialised: leave no gap before its start.
    window_start := nullif(
        CASE WHEN isfinite(p_from) THEN least(public.time_bucket(v_rollup.bucket, p_from), v_rollup.watermark) END,
        '-infinity'
    );
    window_end := least(
        -- Buckets refreshed before stay within reach, though all their rows may have been deleted since.
        greatest(
            public.time_bucket(v_rollup.bucket, v_newest),
            _tidemark.bucket_ceiling(v_rollup.bucket, p_through),
            v_rollup.watermark
        ),
        _tidemark.bucket_ceiling(v_rollup.bucket, p_to)
    );
    IF isfinite(window_end) AND (window_start < window_end) IS NOT FALSE THEN
        RETURN NEXT;
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.refresh_window(text, timestamptz, timestamptz, timestamptz) IS
'Range that a refresh of a continuous aggregate covers; no row where there is nothing to refresh.';

-- Whether a continuous aggregate that failed the last time fails again; says in rollups.failure where.
CREATE OR REPLACE FUNCTION _tidemark.cannot_refresh(
    p_name text,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_failure text;
BEGIN
    PERFORM FROM _tidemark.rollups AS r WHERE r.name = p_name AND r.failure IS NOT NULL;
    IF FOUND THEN
        v_failure := _tidemark.find_culprit(p_name, p_from, p_to);
    END IF;
    SELECT coalesce(v_failure, 'cannot be computed from ' || parent.name) INTO v_failure
      FROM _tidemark.rollups AS r
      LEFT JOIN _tidemark.rollups AS parent ON parent.name = r.parent AND parent.failure IS NOT NULL
     WHERE r.name = p_name;
    UPDATE _tidemark.rollups AS r SET failure = v_failure WHERE r.name = p_name AND v_failure IS NOT NULL;
    RETURN v_failure IS NOT NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.cannot_refresh(text, timestamptz, timestamptz) IS
'Whether a continuous aggregate that failed the last time fails again; says in rollups.failure where.';

-- The process that holds the lock of a refresh, NULL where none does. One without a transaction has left it behind: a
-- refresh that fails keeps it, because a lock of the session survives an error.
CREATE OR REPLACE FUNCTION _tidemark.refreshing()
    RETURNS TABLE (pid integer, is_working boolean)
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT l.pid, EXISTS (SELECT FROM pg_catalog.pg_locks AS v WHERE v.pid = l.pid AND v.locktype = 'virtualxid')
      FROM pg_catalog.pg_locks AS l
     WHERE l.locktype = 'advisory'
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
       AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('tidemark.refresh', 0)
       AND l.objsubid = 1
       AND l.granted;
$func$;
COMMENT ON FUNCTION _tidemark.refreshing() IS
'The process that holds the lock of a refresh, and whether it is in a transaction; no row where none holds it.';

-- What refresh_aggregates does, for all hypertables or one, and at least up to p_through where given. An aggregate that
-- cannot be computed does not keep the others from it: p_failures names those, NULL where there are none. On Community
-- an error of TimescaleDB's own cannot be caught; the next call knows by it which aggregate to look at first.
CREATE OR REPLACE PROCEDURE _tidemark.refresh(
    p_hypertable regclass,
    p_from timestamptz,
    p_to timestamptz,
    p_through timestamptz,
    INOUT p_failures text
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions, so every name below carries its schema.
AS $proc$
DECLARE
    c_lock CONSTANT bigint := pg_catalog.hashtextextended('tidemark.refresh', 0);
    v_is_batched CONSTANT boolean := EXISTS (
        SELECT FROM pg_catalog.pg_proc AS p
         WHERE p.proname = 'refresh_continuous_aggregate'
           AND p.pronamespace = 'public'::pg_catalog.regnamespace
           AND 'options' = ANY (p.proargnames)
    );
    v_idle_looks integer := 0;
    v_rollup record;
    v_window record;
BEGIN
    -- Newer versions of TimescaleDB refuse a second refresh of the same range instead of waiting for the first. A lock
    -- of the session, because those of a transaction end with each commit below.
    WHILE NOT pg_catalog.pg_try_advisory_lock(c_lock) LOOP
        v_idle_looks := CASE WHEN EXISTS (SELECT FROM _tidemark.refreshing() AS f WHERE f.is_working) THEN 0
                             ELSE v_idle_looks + 1 END;
        EXIT WHEN v_idle_looks > 40;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
    PERFORM _tidemark.tidy_rollups();
    FOR v_rollup IN
        SELECT r.name, r.hypertable, r.is_native, r.failure
          FROM _tidemark.rollups AS r
         WHERE (r.hypertable = p_hypertable OR p_hypertable IS NULL)
           AND (r.is_native OR r.bucket = (SELECT pg_catalog.min(o.bucket) FROM _tidemark.rollups AS o
                                             WHERE o.hypertable = r.hypertable AND NOT o.is_native)) -- only once each
         ORDER BY r.bucket -- parents have shorter buckets
    LOOP
        IF NOT v_rollup.is_native THEN
            PERFORM _tidemark.refresh_source(v_rollup.hypertable, p_from, p_to, p_through, '2 seconds');
            CONTINUE;
        END IF;
        SELECT w.* INTO v_window FROM _tidemark.refresh_window(v_rollup.name, p_from, p_to, p_through) AS w;
        CONTINUE WHEN NOT FOUND;
        -- The last attempt has not ended: look whether this one can.
        CONTINUE WHEN _tidemark.cannot_refresh(v_rollup.name, v_window.window_start, v_window.window_end);
        -- TimescaleDB commits this before it computes anything.
        UPDATE _tidemark.rollups AS r SET failure = 'its refresh has not ended' WHERE r.name = v_rollup.name;
        IF v_is_batched THEN -- From 2.29 on by default a transaction for each bucket. All at once, as before.
            CALL public.refresh_continuous_aggregate(
                pg_catalog.format('public.%I', v_rollup.name)::pg_catalog.regclass,
                v_window.window_start, v_window.window_end, options => '{"buckets_per_batch": 0}'
            );
        ELSE
            CALL public.refresh_continuous_aggregate(
                pg_catalog.format('public.%I', v_rollup.name)::pg_catalog.regclass,
                v_window.window_start, v_window.window_end
            );
        END IF;
        UPDATE _tidemark.rollups AS r
           SET watermark = greatest(r.watermark, v_window.window_end), refreshed_at = pg_catalog.clock_timestamp(),
               failure = NULL
         WHERE r.name = v_rollup.name;
        -- TimescaleDB tells the aggregates made from this one what changed when the transaction commits, not before.
        COMMIT;
    END LOOP;
    -- Also what an earlier call of this session has left behind.
    WHILE EXISTS (SELECT FROM _tidemark.refreshing() AS f WHERE f.pid = pg_catalog.pg_backend_pid()) LOOP
        PERFORM pg_catalog.pg_advisory_unlock(c_lock);
    END LOOP;
    SELECT pg_catalog.string_agg(r.name || ': ' || r.failure, '; ' ORDER BY r.bucket, r.name) INTO p_failures
      FROM _tidemark.rollups AS r
     WHERE (r.hypertable = p_hypertable OR p_hypertable IS NULL)
       AND r.failure IS NOT NULL;
    IF p_failures IS NOT NULL THEN
        COMMIT; -- What was refreshed stays, whatever becomes of the failures.
    END IF;
END
$proc$;
COMMENT ON PROCEDURE _tidemark.refresh(regclass, timestamptz, timestamptz, timestamptz, text) IS
'Refreshes the aggregates of all hypertables or of one; controls transactions.';

-- Raises TM611 where aggregates could not be computed; nothing where p_failures is NULL.
CREATE OR REPLACE FUNCTION _tidemark.raise_failures(p_failures text)
    RETURNS void
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_failures IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM611',
            MESSAGE = 'an aggregate cannot be computed; all others are up to date',
            DETAIL = p_failures,
            HINT = 'Correct the rows, or define the aggregate so that it bears them: drop_rollup, add_rollup.';
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.raise_failures(text) IS 'Raises TM611 where aggregates could not be computed.';

-- Brings all aggregates up to date with the raw rows that are there. From p_from to p_to, where one is given, Apache-2
-- recomputes everything, Community what it knows to have changed. Buckets whose raw rows were dropped are left as they
-- are. Call it outside a transaction: on Community every aggregate is refreshed in transactions of its own, and inside
-- one TimescaleDB raises 25001. Loads go on meanwhile; a second refresh waits for the first. Raises TM611, after all
-- others are up to date, where an aggregate cannot be computed.
CREATE OR REPLACE PROCEDURE public.refresh_aggregates(
    p_from timestamptz DEFAULT NULL,
    p_to timestamptz DEFAULT NULL
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    v_failures text;
BEGIN
    CALL _tidemark.refresh(NULL, p_from, p_to, NULL, v_failures);
    PERFORM _tidemark.raise_failures(v_failures);
END
$proc$;
COMMENT ON PROCEDURE public.refresh_aggregates(timestamptz, timestamptz) IS
'Brings all aggregates up to date, never recomputing what raw rows were dropped of; controls transactions.';

-- The job behind that on Community; TimescaleDB hands over its own number and configuration.
CREATE OR REPLACE PROCEDURE _tidemark.refresh_job(
    p_job_id integer,
    p_config jsonb
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
BEGIN
    PERFORM public.judge_closed_bars();
    CALL public.refresh_aggregates();
END
$proc$;
COMMENT ON PROCEDURE _tidemark.refresh_job(integer, jsonb) IS
'Job of TimescaleDB that refreshes all aggregates; controls transactions.';

-- Refreshes the aggregates that are kept here, and says so, one row per aggregate; job_id is that of TimescaleDB's job
-- which refreshes the others, NULL where there is none.
CREATE OR REPLACE FUNCTION _tidemark.refresh_own()
    RETURNS TABLE (aggregate text, precomputed_to timestamptz, job_id integer, outcome text)
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_source record;
    v_outcome text;
BEGIN
    PERFORM _tidemark.tidy_rollups();
    FOR v_source IN
        SELECT DISTINCT r.hypertable, r.is_native FROM _tidemark.rollups AS r ORDER BY r.hypertable
    LOOP
        IF v_source.is_native THEN
            v_outcome := NULL;
        ELSIF _tidemark.refresh_source(v_source.hypertable, NULL, NULL, NULL, '2 seconds') THEN
            v_outcome := 'refreshed';
        ELSE
            v_outcome := 'refreshed, as far as transactions that are still writing allow';
        END IF;
        RETURN QUERY
        SELECT r.name, nullif(r.watermark, '-infinity'),
               (SELECT min(j.job_id) FROM timescaledb_information.jobs AS j
                 WHERE r.is_native AND j.proc_schema = '_tidemark' AND j.proc_name = 'refresh_job'),
               coalesce(r.failure, v_outcome)
          FROM _tidemark.rollups AS r
         WHERE r.hypertable = v_source.hypertable
           AND r.is_native = v_source.is_native
         ORDER BY r.bucket;
    END LOOP;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.refresh_own() FROM public;
COMMENT ON FUNCTION _tidemark.refresh_own() IS
'Refreshes the aggregates that TimescaleDB does not keep, and lists all, with the job for the others.';

-- Refreshes all aggregates as far as a function can, and says so, one row per aggregate: what TimescaleDB keeps cannot
-- be refreshed inside a transaction, so its job is told to run now, which its owner and superusers may; for others it
-- runs when it is due. Everything else is refreshed right here. precomputed_to is the instant up to which buckets are
-- precomputed; later ones are computed when read.
CREATE OR REPLACE FUNCTION public.refresh_all_aggregates()
    RETURNS TABLE (aggregate text, precomputed_to timestamptz, outcome text)
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    r record;
    v_told text;
BEGIN
    FOR r IN SELECT * FROM _tidemark.refresh_own() LOOP
        IF r.job_id IS NOT NULL AND v_told IS NULL THEN
            BEGIN
                PERFORM public.alter_job(r.job_id, next_start => now());
                v_told := format('job %s runs now', r.job_id);
            EXCEPTION WHEN insufficient_privilege THEN
                v_told := format('job %s runs every %s', r.job_id, (
                    SELECT j.schedule_interval FROM timescaledb_information.jobs AS j WHERE j.job_id = r.job_id
                ));
            END;
        END IF;
        aggregate := r.aggregate;
        precomputed_to := r.precomputed_to;
        outcome := coalesce(r.outcome, CASE WHEN r.job_id IS NOT NULL THEN v_told END,
                            'there is no job for it: CALL refresh_aggregates()');
        RETURN NEXT;
    END LOOP;
END
$func$;
REVOKE ALL ON FUNCTION public.refresh_all_aggregates() FROM public;
COMMENT ON FUNCTION public.refresh_all_aggregates() IS
'Refreshes all aggregates, or has the job that does so run now; one row per aggregate.';
