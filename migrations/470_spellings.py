"""Columns in which applications find what they spell otherwise."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"460_trading_state"}

steps = [step(state(__file__), """
DROP INDEX public.users_email_exact_key;
DROP INDEX public.users_username_exact_key;
DO $do$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT a.attrelid::regclass AS name, string_agg(format('DROP COLUMN %I', a.attname), ', ') AS dropped
          FROM pg_catalog.pg_attribute AS a
          JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
           AND a.attname LIKE 'app\\_%' AND NOT a.attisdropped
         GROUP BY 1
    LOOP
        EXECUTE format('ALTER TABLE %s %s', v_column.name, v_column.dropped);
    END LOOP;
END
$do$;
""")]
