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
        -- Column by column, because NEW.* may not be compared while generated columns are still to be computed.
        SELECT string_agg(format('OLD.%1$I IS DISTINCT FROM NEW.%1$I', a.attname), ' OR ' ORDER BY a.attnum)
          INTO STRICT v_columns
          FROM pg_catalog.pg_attribute AS a
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
