"""What the quality engine keeps for itself; default profiles and shipped rules."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"120_quality"}

steps = [step(state(__file__), """
DO $do$
DECLARE
    v_routine regprocedure;
BEGIN
    -- What was generated for the hypertables with scoring is left when the logic is gone.
    FOR v_routine IN
        SELECT p.oid::regprocedure
          FROM pg_catalog.pg_proc AS p
          JOIN _tidemark.quality_targets AS t ON right(p.proname, length(t.stem) + 1) = '_' || t.stem
         WHERE p.pronamespace = '_tidemark'::regnamespace
    LOOP
        EXECUTE format('DROP ROUTINE %s CASCADE', v_routine);
    END LOOP;
END
$do$;
DROP TABLE _tidemark.memory_lapses;
DROP TABLE _tidemark.series_memory;
DROP TABLE _tidemark.quality_targets;
DELETE FROM public.validation_rules;
DELETE FROM public.quality_profiles;
DROP TYPE _tidemark.judged_row;
DROP TYPE _tidemark.verdict;
DROP TYPE _tidemark.finding;
DROP TYPE _tidemark.penalty;
DROP AGGREGATE _tidemark.moving_sum(bigint);
""")]
