-- Upkeep: on Community by TimescaleDB's jobs, which follow data_policies; elsewhere by somebody who calls maintain.

-- The job behind retention on Community; TimescaleDB hands over its own number and configuration.
CREATE OR REPLACE PROCEDURE _tidemark.retention_job(
    p_job_id integer,
    p_config jsonb
)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
BEGIN
    CALL public.apply_retention();
END
$proc$;
COMMENT ON PROCEDURE _tidemark.retention_job(integer, jsonb) IS
'Job of TimescaleDB that applies retention; controls transactions.';

-- Makes sure that a job of Tidemark's is there, or not. The schedule of one that is there is left as it is.
CREATE OR REPLACE FUNCTION _tidemark.ensure_job(
    p_procedure name,
    p_every interval,
    p_is_wanted boolean
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_job_id integer;
BEGIN
    SELECT j.job_id INTO v_job_id
      FROM timescaledb_information.jobs AS j
     WHERE j.proc_schema = '_tidemark'
       AND j.proc_name = p_procedure;
    IF p_is_wanted AND v_job_id IS NULL THEN
        PERFORM public.add_job(format('_tidemark.%I', p_procedure)::regproc, p_every);
    ELSIF v_job_id IS NOT NULL AND NOT p_is_wanted THEN
        PERFORM public.delete_job(v_job_id);
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.ensure_job(name, interval, boolean) IS
'Makes sure that a job of Tidemark''s is there, or is not.';

-- Makes TimescaleDB's jobs follow data_policies: a compression policy per hypertable that says when, one job for
-- retention while any does, one for the aggregates. Community only; elsewhere there are no jobs.
CREATE OR REPLACE FUNCTION _tidemark.install_jobs()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_policy record;
BEGIN
    IF _tidemark.edition() <> 'community' THEN
        RETURN;
    END IF;
    PERFORM _tidemark.ensure_job('refresh_job', interval '5 minutes', true);
    PERFORM _tidemark.ensure_job(
        'retention_job', interval '1 hour',
        EXISTS (SELECT FROM public.data_policies AS p WHERE p.drop_after IS NOT NULL)
    );
    FOR v_policy IN
        SELECT t.hypertable, p.compress_after, p.segment_by, (j.config ->> 'compress_after')::interval AS installed
          FROM public.data_policies AS p
         CROSS JOIN LATERAL (SELECT _tidemark.policy_table(p.hypertable) AS hypertable) AS t
          LEFT JOIN timescaledb_information.jobs AS j
            ON format('%I.%I', j.hypertable_schema, j.hypertable_name) = _tidemark.qualified_name(t.hypertable)
           AND j.proc_name = 'policy_compression'
         WHERE t.hypertable IS NOT NULL
    LOOP
        -- A policy cannot be changed in a way that means the same in every version: it goes, and comes anew.
        CONTINUE WHEN v_policy.installed IS NOT DISTINCT FROM v_policy.compress_after;
        IF v_policy.installed IS NOT NULL THEN
            PERFORM public.remove_compression_policy(v_policy.hypertable);
        END IF;
        IF v_policy.compress_after IS NOT NULL THEN
            PERFORM _tidemark.enable_compression(v_policy.hypertable, v_policy.segment_by);
            PERFORM public.add_compression_policy(v_policy.hypertable, v_policy.compress_after);
        END IF;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.install_jobs() IS 'Makes TimescaleDB''s jobs follow data_policies; Community only.';

-- Trigger of data_policies: refuses a name that is no hypertable (TM606) and makes the jobs follow.
CREATE OR REPLACE FUNCTION _tidemark.follow_policies()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_hypertable CONSTANT regclass := _tidemark.policy_table(
        CASE TG_OP WHEN 'DELETE' THEN OLD.hypertable ELSE NEW.hypertable END
    );
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF v_hypertable IS NOT NULL AND _tidemark.edition() = 'community' THEN
            PERFORM public.remove_compression_policy(v_hypertable, true);
        END IF;
    ELSIF v_hypertable IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM606',
            MESSAGE = format('there is no hypertable %s', NEW.hypertable),
            HINT = 'Name a table of public, or one with its schema.';
    END IF;
    PERFORM _tidemark.install_jobs();
    RETURN NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.follow_policies() IS
'Row trigger of data_policies: refuses what is no hypertable and makes the jobs follow.';

CREATE OR REPLACE TRIGGER trg_follow_policies AFTER INSERT OR UPDATE OR DELETE ON public.data_policies
FOR EACH ROW EXECUTE FUNCTION _tidemark.follow_policies();
COMMENT ON TRIGGER trg_follow_policies ON public.data_policies IS 'Makes TimescaleDB''s jobs follow the policies.';

-- Everything that upkeep has to do, now: refreshes the aggregates, compresses what is due where that is possible, drops
-- what has outlived data_policies. For schedulers: safe every minute, because a second one at the same time returns at
-- once. Returns whether it was the one to do the work, in p_did_run.
CREATE OR REPLACE PROCEDURE public.maintain(INOUT p_did_run boolean DEFAULT NULL)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    c_lock CONSTANT bigint := pg_catalog.hashtextextended('tidemark.maintain', 0);
BEGIN
    p_did_run := pg_catalog.pg_try_advisory_lock(c_lock); -- ends with the session, should an error occur below
    IF p_did_run THEN
        CALL public.refresh_aggregates();
        IF _tidemark.edition() = 'community' THEN
            CALL public.compress_history();
        END IF;
        CALL public.apply_retention();
        PERFORM pg_catalog.pg_advisory_unlock(c_lock);
    END IF;
END
$proc$;
COMMENT ON PROCEDURE public.maintain(boolean) IS
'Refreshes, compresses and drops what is due, unless another session is at it; controls transactions.';

DO $do$
BEGIN
    PERFORM _tidemark.install_jobs();
END
$do$;
