-- Helpers used all over: which edition runs, and updated_at.

CREATE OR REPLACE FUNCTION _tidemark.edition()
    RETURNS text
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE current_setting('timescaledb.license', true) WHEN 'timescale' THEN 'community' ELSE 'apache' END;
$func$;
COMMENT ON FUNCTION _tidemark.edition() IS
'Edition of TimescaleDB that runs: community or apache. The licence is fixed when the server starts.';

-- A trigger that is made for a hypertable with chunks is made for each chunk as the hypertable's owner, who has to be
-- allowed its function. Migrations make functions before they hand them over.
DO $do$
BEGIN
    IF to_regrole('tidemark_owner') IS NOT NULL THEN
        ALTER DEFAULT PRIVILEGES IN SCHEMA _tidemark GRANT EXECUTE ON FUNCTIONS TO tidemark_owner;
    END IF;
END
$do$;

-- Gives Tidemark's owner, as whom its functions run, what they need of a table that a user made elsewhere.
CREATE OR REPLACE FUNCTION _tidemark.let_owner_in(p_table regclass, p_privileges text)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_owner CONSTANT regrole := (
        SELECT n.nspowner FROM pg_catalog.pg_namespace AS n WHERE n.nspname = '_tidemark'
    );
    v_schema name;
BEGIN
    SELECT n.nspname INTO v_schema
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_table;
    IF NOT has_schema_privilege(v_owner, v_schema, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', v_schema, v_owner);
    END IF;
    IF NOT (SELECT bool_and(has_table_privilege(v_owner, p_table, p.privilege))
              FROM string_to_table(p_privileges, ', ') AS p (privilege)) THEN
        EXECUTE format('GRANT %s ON %s TO %s', p_privileges, p_table::text, v_owner);
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.let_owner_in(regclass, text) IS
'Gives Tidemark''s owner, as whom its functions run, privileges on a table that a user made elsewhere.';

CREATE OR REPLACE FUNCTION _tidemark.set_updated_at()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.set_updated_at() IS 'Row trigger: stamps updated_at with the time of the transaction.';

DO $do$
DECLARE
    v_table text;
    v_columns text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'assets', 'sources', 'quality_profiles', 'validation_rules', 'ingestion_tasks', 'users', 'watchlists',
        'watchlist_items', 'models', 'strategies', 'strategy_rules', 'trades', 'positions', 'learning_entries'
    ] LOOP
        -- Column by column, because NEW.* may not be compared while generated columns are still to be computed. What an
        -- extension brings is compared as text, because restoring a dump looks for no operators where extensions are.
        SELECT string_agg(
                   format('OLD.%1$I%2$s IS DISTINCT FROM NEW.%1$I%2$s', a.attname,
                          CASE WHEN t.typtype = 'b' AND t.typnamespace <> 'pg_catalog'::regnamespace
                               THEN '::text' END),
                   ' OR ' ORDER BY a.attnum
               )
          INTO STRICT v_columns
          FROM pg_catalog.pg_attribute AS a
          JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
         WHERE a.attrelid = format('public.%I', v_table)::regclass
           AND a.attnum > 0
           AND NOT a.attisdropped
           AND a.attgenerated = '';
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER trg_set_updated_at BEFORE UPDATE ON public.%I FOR EACH ROW '
            'WHEN (%s) EXECUTE FUNCTION _tidemark.set_updated_at()', v_table, v_columns
        );
        EXECUTE format(
            'COMMENT ON TRIGGER trg_set_updated_at ON public.%I IS %L', v_table,
            'Keeps updated_at; an update that changes nothing leaves it alone.'
        );
    END LOOP;
END
$do$;
