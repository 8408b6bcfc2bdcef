"""A schema for each application."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"310_policies"}

steps = [step(state(__file__), """
-- The views in them are logic and gone by now; the domains that are ours say so.
DO $do$
DECLARE
    v_domain regtype;
BEGIN
    FOR v_domain IN
        SELECT t.oid::regtype
          FROM pg_catalog.pg_type AS t
         WHERE t.typtype = 'd'
           AND t.typnamespace::regnamespace::text
               IN ('btc_dashboard', 'hyperliquid', 'trading_manager', 'cryptovolt', 'buddy_ai')
           AND obj_description(t.oid, 'pg_type')
               = 'Text, under the name that an ORM gives the type of an enumeration.'
    LOOP
        EXECUTE format('DROP DOMAIN %s', v_domain);
    END LOOP;
END
$do$;
DROP SCHEMA btc_dashboard, hyperliquid, trading_manager, cryptovolt, buddy_ai;
""")]
