-- NULL in a column that has a default and may not be NULL means what leaving the column out means: an ORM names all
-- columns of a model, and sends NULL for those that nobody set. The trigger looks at a row only where there is such a
-- NULL, so that all others cost a comparison.

DO $do$
DECLARE
    v_table record;
    v_search_path CONSTANT text := current_setting('search_path');
BEGIN
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true); -- so that defaults are told with their schemas
    FOR v_table IN
        SELECT c.oid::regclass AS name, c.relname,
               string_agg(format('NEW.%I IS NULL', a.attname), ' OR ' ORDER BY a.attnum) AS is_absent,
               string_agg(
                   format('    NEW.%1$I := coalesce(NEW.%1$I, %2$s);', a.attname,
                          coalesce(pg_get_expr(d.adbin, d.adrelid),
                                   format('nextval(%L)', pg_get_serial_sequence(c.oid::regclass::text, a.attname)))),
                   E'\n' ORDER BY a.attnum
               ) AS fill
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'public'::regnamespace
           AND c.relkind = 'r'
           -- Tidemark's own, and not the record, which only Tidemark writes.
           AND c.relname IN (
               'assets', 'sources', 'ingestion_tasks', 'models', 'predictions', 'forecasts', 'lineage', 'strategies',
               'strategy_rules', 'signals', 'backtest_configs', 'backtest_results', 'trades', 'positions',
               'learning_entries', 'users', 'watchlists', 'watchlist_items', 'alerts', 'notifications',
               'timeseries_data', 'candles', 'quotes', 'sentiment_data', 'indicators', 'features', 'time_index',
               'market_calendar', 'validation_rules', 'quality_profiles', 'corporate_actions'
           )
           AND a.attnotnull
           AND a.attgenerated = ''
           AND (d.adbin IS NOT NULL OR a.attidentity = 'd')
         GROUP BY c.oid, c.relname
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE FUNCTION _tidemark.fill_absent_%1$s() RETURNS trigger LANGUAGE plpgsql VOLATILE '
            'SET search_path = pg_catalog, pg_temp AS $func$' || E'\nBEGIN\n%2$s\n    RETURN NEW;\nEND\n$func$',
            v_table.relname, v_table.fill
        );
        EXECUTE format('COMMENT ON FUNCTION _tidemark.fill_absent_%s() IS %L', v_table.relname,
                       'Row trigger: NULL in a column that has a default means the default.');
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER trg_absent_values BEFORE INSERT ON %s FOR EACH ROW WHEN (%s) '
            'EXECUTE FUNCTION _tidemark.fill_absent_%s()', v_table.name, v_table.is_absent, v_table.relname
        );
        EXECUTE format('COMMENT ON TRIGGER trg_absent_values ON %s IS %L', v_table.name,
                       'NULL in a column that has a default means the default.');
    END LOOP;
    PERFORM set_config('search_path', v_search_path, true);
END
$do$;
