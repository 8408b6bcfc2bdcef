-- Bringing aggregates up to date: by hand, from a script, from a job.

-- The range that a refresh of a continuous aggregate may cover: from the first bucket whose raw rows were not dropped
-- (NULL: from the beginning) to the last one that has ended, and not beyond p_from and p_to, where given, by more than
-- a bucket. The bucket of the newest row is left out, unless p_through lies behind it: once materialised, rows that
-- arrive in it would be late ones. No row where there is nothing to refresh.
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
    window_start := nullif(greatest(
        -- TimescaleDB takes everything before the end of a refresh for materialised: leave no gap before its start.
        CASE WHEN isfinite(p_from) THEN least(public.time_bucket(v_rollup.bucket, p_from), v_rollup.watermark) END,
        _tidemark.bucket_ceiling(v_rollup.bucket, _tidemark.note_drops(v_rollup.hypertable))
    ), '-infinity');
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
'Range that a refresh of a continuous aggregate may cover; no row where there is nothing to refresh.';

-- What refresh_aggregates does, for all hypertables or one, and at least up to p_through where given.
CREATE OR REPLACE PROCEDURE _tidemark.refresh(
    p_hypertable regclass,
    p_from timestamptz,
    p_to timestamptz,
    p_through timestamptz
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions, so every name below carries its schema.
AS $proc$
DECLARE
    c_lock CONSTANT bigint := pg_catalog.hashtextextended('tidemark.refresh', 0);
    v_deadline CONSTANT timestamptz := pg_catalog.clock_timestamp() + interval '30 seconds';
    v_is_locked boolean;
    v_rollup record;
    v_window record;
BEGIN
    -- Newer versions of TimescaleDB refuse a second refresh of the same range instead of waiting for the first. A lock
    -- of the session, because those of a transaction end with each commit below; where an error left one behind, the
    -- deadline gets past it.
    LOOP
        v_is_locked := pg_catalog.pg_try_advisory_lock(c_lock);
        EXIT WHEN v_is_locked OR pg_catalog.clock_timestamp() > v_deadline;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
    PERFORM _tidemark.tidy_rollups();
    FOR v_rollup IN
        SELECT r.name, r.hypertable, r.is_native
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
        CALL public.refresh_continuous_aggregate(
            pg_catalog.format('public.%I', v_rollup.name)::pg_catalog.regclass,
            v_window.window_start, v_window.window_end
        );
        UPDATE _tidemark.rollups AS r
           SET watermark = greatest(r.watermark, v_window.window_end), refreshed_at = pg_catalog.clock_timestamp()
         WHERE r.name = v_rollup.name;
        -- TimescaleDB tells the aggregates made from this one what changed when the transaction commits, not before.
        COMMIT;
    END LOOP;
    IF v_is_locked THEN
        PERFORM pg_catalog.pg_advisory_unlock(c_lock);
    END IF;
END
$proc$;
COMMENT ON PROCEDURE _tidemark.refresh(regclass, timestamptz, timestamptz, timestamptz) IS
'Refreshes the aggregates of all hypertables or of one; controls transactions.';

-- Brings all aggregates up to date with the raw rows that are there. From p_from to p_to, where one is given, Apache-2
-- recomputes everything, Community what it knows to have changed. Buckets whose raw rows were dropped are left as they
-- are. Call it outside a transaction: on Community every aggregate is refreshed in transactions of its own, and inside
-- one TimescaleDB raises 25001. Loads go on meanwhile; a second refresh waits for the first.
CREATE OR REPLACE PROCEDURE public.refresh_aggregates(
    p_from timestamptz DEFAULT NULL,
    p_to timestamptz DEFAULT NULL
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
BEGIN
    CALL _tidemark.refresh(NULL, p_from, p_to, NULL);
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
    CALL public.refresh_aggregates();
END
$proc$;
COMMENT ON PROCEDURE _tidemark.refresh_job(integer, jsonb) IS
'Job of TimescaleDB that refreshes all aggregates; controls transactions.';

-- Refreshes all aggregates as far as a function can, and says so, one row per aggregate: what TimescaleDB keeps cannot
-- be refreshed inside a transaction, so its job is told to run now; everything else is refreshed right here.
-- precomputed_to is the instant up to which buckets are precomputed; later ones are computed when read.
CREATE OR REPLACE FUNCTION public.refresh_all_aggregates()
    RETURNS TABLE (aggregate text, precomputed_to timestamptz, outcome text)
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_source record;
    v_outcome text;
    v_job_id integer;
BEGIN
    PERFORM _tidemark.tidy_rollups();
    FOR v_source IN
        SELECT DISTINCT r.hypertable, r.is_native FROM _tidemark.rollups AS r ORDER BY r.hypertable
    LOOP
        IF v_source.is_native THEN
            SELECT j.job_id INTO v_job_id
              FROM timescaledb_information.jobs AS j
             WHERE j.proc_schema = '_tidemark'
               AND j.proc_name = 'refresh_job';
            IF FOUND THEN
                PERFORM public.alter_job(v_job_id, next_start => now());
                v_outcome := format('job %s runs now', v_job_id);
            ELSE
                v_outcome := 'there is no job for it: CALL refresh_aggregates()';
            END IF;
        ELSIF _tidemark.refresh_source(v_source.hypertable, NULL, NULL, NULL, '2 seconds') THEN
            v_outcome := 'refreshed';
        ELSE
            v_outcome := 'refreshed, as far as transactions that are still writing allow';
        END IF;
        RETURN QUERY
        SELECT r.name, r.watermark, v_outcome
          FROM _tidemark.rollups AS r
         WHERE r.hypertable = v_source.hypertable
           AND r.is_native = v_source.is_native
         ORDER BY r.bucket;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION public.refresh_all_aggregates() IS
'Refreshes all aggregates, or has the job that does so run now; one row per aggregate.';
