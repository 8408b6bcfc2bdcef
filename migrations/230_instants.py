"""Bounds of all instants."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"220_corporate_actions"}

steps = [step(state(__file__), """
DO $do$
DECLARE
    v_constraint record;
BEGIN
    FOR v_constraint IN
        SELECT k.conrelid::regclass AS name, k.conname
          FROM pg_catalog.pg_constraint AS k
         WHERE k.connamespace = 'public'::regnamespace AND k.conname LIKE '%\\_instants\\_in\\_range'
           AND k.conislocal AND k.coninhcount = 0
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', v_constraint.name, v_constraint.conname);
    END LOOP;
END
$do$;
""")]
