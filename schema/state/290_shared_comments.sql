-- Columns that mean the same wherever they stand are described once, here.

DO $do$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT c.oid::regclass AS table_name, a.attname AS column_name, m.meaning
          FROM (VALUES
                ('created_at', 'When the row was stored.'),
                ('updated_at', 'When the row was changed last; kept by a trigger.'),
                ('quality_score', 'Quality from 0 to 100, with the reasons in quality_issues; NULL: not scored.'),
                ('is_anomaly', 'Whether the row stands in anomalies.'),
                ('is_excluded', 'Left out of aggregates: reviewed as a confirmed error, and the profile says so.'),
                ('ingested_at', 'When the row arrived.')
               ) AS m (column_name, meaning)
          JOIN pg_catalog.pg_attribute AS a ON a.attname = m.column_name
          JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'public'::regnamespace
           AND c.relkind = 'r'
           AND col_description(c.oid, a.attnum) IS NULL
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
           )
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', v_column.table_name, v_column.column_name, v_column.meaning);
    END LOOP;
END
$do$;
