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
        SELECT p.relation AS hypertable, p.compress_after, p.segment_by,
               (j.config ->> 'compress_after')::interval AS installed
          FROM public.data_policies AS p
          LEFT JOIN timescaledb_information.jobs AS j
            ON to_regclass(format('%I.%I', j.hypertable_schema, j.hypertable_name)) = p.relation
           AND j.proc_name = 'policy_compression'
         WHERE _tidemark.is_hypertable(p.relation)
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

-- The hypertable that a name means: as SQL reads it, in public where it has no schema, or as the catalogue has it,
-- without quotes; NULL where there is none.
CREATE OR REPLACE FUNCTION _tidemark.find_hypertable(p_name text)
    RETURNS regclass
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_parts text[];
BEGIN
    BEGIN
        v_parts := parse_ident(p_name);
    EXCEPTION WHEN invalid_parameter_value THEN
        v_parts := '{}';
    END;
    -- By the catalogue, because resolving a name takes a privilege on its schema.
    RETURN (
        SELECT c.oid::regclass
          FROM timescaledb_information.hypertables AS h
          JOIN pg_catalog.pg_namespace AS n ON n.nspname = h.hypertable_schema
          JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = h.hypertable_name
         CROSS JOIN LATERAL (
                   SELECT ARRAY[n.nspname, c.relname]::text[] IN (v_parts, 'public'::text || v_parts) AS as_sql
               ) AS m
         WHERE m.as_sql
            OR p_name IN (n.nspname || '.' || c.relname, CASE n.nspname WHEN 'public' THEN c.relname::text END)
         ORDER BY m.as_sql DESC
         LIMIT 1
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.find_hypertable(text) IS 'The hypertable that a name means; NULL where there is none.';

-- Row trigger of data_policies, before: however a hypertable is spelled, there is one policy for it. Refuses what is no
-- hypertable (TM606).
CREATE OR REPLACE FUNCTION _tidemark.name_policy()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_relation regclass := _tidemark.find_hypertable(NEW.hypertable);
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.hypertable = OLD.hypertable THEN -- which may have been renamed since
        v_relation := OLD.relation;
    ELSIF v_relation IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM606',
            MESSAGE = format('there is no hypertable %s', NEW.hypertable),
            HINT = 'Name a table of public, or one with its schema.';
    END IF;
    NEW.relation := v_relation;
    NEW.hypertable := coalesce(_tidemark.label(v_relation), NEW.hypertable);
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.name_policy() IS
'Row trigger of data_policies: refuses what is no hypertable, and spells its name in the one way.';

CREATE OR REPLACE TRIGGER trg_name_policy BEFORE INSERT OR UPDATE ON public.data_policies
FOR EACH ROW EXECUTE FUNCTION _tidemark.name_policy();
COMMENT ON TRIGGER trg_name_policy ON public.data_policies IS 'One spelling, and one policy, for each hypertable.';

-- Row trigger of data_policies, after: TimescaleDB's jobs follow.
CREATE OR REPLACE FUNCTION _tidemark.follow_policies()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    -- What no policy names any more keeps no job of it.
    IF TG_OP <> 'INSERT'
       AND _tidemark.edition() = 'community'
       AND _tidemark.is_hypertable(OLD.relation)
       AND NOT EXISTS (SELECT FROM public.data_policies AS p WHERE p.relation = OLD.relation) THEN
        PERFORM public.remove_compression_policy(OLD.relation, true);
    END IF;
    PERFORM _tidemark.install_jobs();
    RETURN NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.follow_policies() IS 'Row trigger of data_policies: makes the jobs follow.';

CREATE OR REPLACE TRIGGER trg_follow_policies AFTER INSERT OR UPDATE OR DELETE ON public.data_policies
FOR EACH ROW EXECUTE FUNCTION _tidemark.follow_policies();
COMMENT ON TRIGGER trg_follow_policies ON public.data_policies IS 'Makes TimescaleDB''s jobs follow the policies.';

-- Policies of hypertables that were renamed get the new name, those of hypertables that were dropped go.
CREATE OR REPLACE FUNCTION _tidemark.tidy_policies()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_reason CONSTANT text := coalesce(current_setting('tidemark.reason', true), '');
BEGIN
    IF EXISTS (SELECT FROM public.data_policies AS p WHERE p.hypertable IS DISTINCT FROM _tidemark.label(p.relation))
    THEN
        PERFORM set_config('tidemark.reason', 'the hypertable was renamed or dropped', true);
        DELETE FROM public.data_policies AS p WHERE _tidemark.label(p.relation) IS NULL;
        UPDATE public.data_policies AS p
           SET hypertable = _tidemark.label(p.relation)
         WHERE p.hypertable <> _tidemark.label(p.relation);
        PERFORM set_config('tidemark.reason', v_reason, true);
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.tidy_policies() IS
'Policies of hypertables that were renamed get the new name, those of hypertables that were dropped go.';

-- Everything that upkeep has to do, now: judges bars that have closed, refreshes the aggregates, drops what has
-- outlived data_policies, compresses what is due where that is possible. For schedulers: safe every minute, because a
-- second one at the same time returns at once. Returns whether it was the one to do the work, in p_did_run.
CREATE OR REPLACE PROCEDURE public.maintain(INOUT p_did_run boolean DEFAULT NULL)
    LANGUAGE plpgsql
    -- A procedure with settings of its own may not control transactions.
AS $proc$
DECLARE
    c_lock CONSTANT bigint := pg_catalog.hashtextextended('tidemark.maintain', 0);
    v_failures text;
    v_failed integer;
    v_waiting integer;
BEGIN
    p_did_run := pg_catalog.pg_try_advisory_lock(c_lock); -- ends with the session, should an error occur below
    IF p_did_run THEN
        PERFORM _tidemark.tidy_policies();
        PERFORM public.judge_closed_bars();
        CALL _tidemark.refresh(NULL, NULL, NULL, NULL, v_failures);
        -- Where one of them ends in an error, what is more urgent is done: disks fill up.
        CALL _tidemark.drop_expired(v_failed, v_waiting);
        IF _tidemark.edition() = 'community' THEN
            CALL public.compress_history();
        END IF;
        PERFORM pg_catalog.pg_advisory_unlock(c_lock);
        PERFORM _tidemark.raise_failures(v_failures);
        PERFORM _tidemark.raise_left_over(v_failed, v_waiting);
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
