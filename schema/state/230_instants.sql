-- Every instant is one that all clients can read: most know the years 1 to 9999, and an infinite one is an error to
-- psycopg and another instant to asyncpg. So what somebody writes keeps nobody from reading the table. The time of a
-- hypertable keeps a distance from these ends, as a chunk may be centuries long and its ends are shown too. The record
-- takes its instants from the clock.

DO $do$
DECLARE
    v_table record;
BEGIN
    FOR v_table IN
        SELECT c.oid::regclass AS name, left(c.relname, 45) || '_instants_in_range' AS constraint_name,
               string_agg(
                   format(
                       '%1$I >= %2$L::%4$s AND %1$I < %3$L::%4$s', a.attname,
                       CASE WHEN d.column_name IS NULL THEN '0001-01-02 00:00+00' ELSE '1000-01-01 00:00+00' END,
                       CASE WHEN d.column_name IS NULL THEN '10000-01-01 00:00+00' ELSE '9000-01-01 00:00+00' END,
                       format_type(a.atttypid, NULL)
                   ), ' AND ' ORDER BY a.attnum
               ) AS condition
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_attribute AS a
            ON a.attrelid = c.oid AND a.attnum > 0
           AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
          LEFT JOIN timescaledb_information.dimensions AS d
            ON d.hypertable_schema = 'public' AND d.hypertable_name = c.relname AND d.column_name = a.attname
         WHERE c.relnamespace = 'public'::regnamespace
           AND c.relkind = 'r'
           AND c.relname NOT IN ('audit_tx', 'audit_log', 'audit_seals', 'timeseries_archive')
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_depend AS k
                WHERE k.classid = 'pg_catalog.pg_class'::regclass AND k.objid = c.oid AND k.deptype = 'e'
           )
         GROUP BY c.oid, c.relname
    LOOP
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s)',
                       v_table.name, v_table.constraint_name, v_table.condition);
    END LOOP;
END
$do$;
