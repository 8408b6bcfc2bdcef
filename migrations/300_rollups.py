"""Definitions of aggregates, and the aggregates made from them."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"290_shared_comments"}

# What add_rollup made goes first, coarse aggregates before the finer ones they are computed from.
steps = [step(state(__file__), """
DO $do$
DECLARE
    v_rollup record;
BEGIN
    FOR v_rollup IN SELECT r.name, r.is_native FROM _tidemark.rollups AS r ORDER BY r.bucket DESC LOOP
        IF v_rollup.is_native THEN
            EXECUTE format('DROP MATERIALIZED VIEW public.%I', v_rollup.name);
        ELSE
            EXECUTE format('DROP VIEW IF EXISTS public.%I', v_rollup.name);
            EXECUTE format('DROP TABLE _tidemark.%I', v_rollup.name || '_precomputed');
        END IF;
        EXECUTE format('DROP VIEW IF EXISTS _tidemark.%I', v_rollup.name || '_direct');
    END LOOP;
END
$do$;
DROP TABLE _tidemark.rollup_changes;
DROP TABLE _tidemark.rollup_frozen;
DROP TABLE _tidemark.rollup_chunks;
DROP TABLE _tidemark.rollup_sources;
DROP TABLE _tidemark.rollups;
""")]
