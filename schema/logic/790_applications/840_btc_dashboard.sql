-- BTC dashboard: search_path = btc_dashboard, public. Its tables are those of public, so that its bulk upserts and its
-- statements on the hypertable find the real thing; only what has another name there stands here.

CREATE OR REPLACE FUNCTION btc_dashboard.create_hypertable(
    relation regclass, -- named as TimescaleDB names them, because callers do
    time_column_name name,
    chunk_time_interval interval DEFAULT NULL,
    migrate_data boolean DEFAULT false,
    if_not_exists boolean DEFAULT false
)
    RETURNS TABLE (hypertable_id integer, schema_name name, table_name name, created boolean)
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT h.*
      FROM _tidemark.create_hypertable(
               relation, time_column_name, chunk_time_interval, migrate_data, if_not_exists
           ) AS h;
$func$;
COMMENT ON FUNCTION btc_dashboard.create_hypertable(regclass, name, interval, boolean, boolean) IS
'create_hypertable for tables that are hypertables already, as timeseries_data is.';

CREATE OR REPLACE VIEW btc_dashboard.ml_models WITH (security_invoker = true) AS
SELECT m.model_id,
       m.name,
       m.version,
       m.model_type,
       m.stage,
       m.accuracy,
       m.precision,
       m.recall,
       m.auc,
       m.trained_on,
       m.parameters,
       m.features,
       m.extra_data,
       m.created_at,
       m.updated_at
  FROM public.models AS m;
COMMENT ON VIEW btc_dashboard.ml_models IS 'Registry of models. COPY into public.models.';

CREATE OR REPLACE VIEW btc_dashboard.pg_stat_statements WITH (security_invoker = true) AS
SELECT s.userid,
       s.dbid,
       s.queryid,
       s.query,
       s.calls,
       s.total_exec_time,
       s.min_exec_time,
       s.max_exec_time,
       s.mean_exec_time,
       s.stddev_exec_time,
       s.rows
  FROM _tidemark.statement_statistics() AS s;
COMMENT ON VIEW btc_dashboard.pg_stat_statements IS
'pg_stat_statements, its columns that matter most; empty where it is not installed. Times in ms.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.userid IS 'Role that ran the statement.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.dbid IS 'Database it ran in.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.queryid IS 'Hash of the statement without its constants.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.query IS 'Text, constants left out.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.calls IS 'How often it ran.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.total_exec_time IS 'Time of all runs, in milliseconds.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.min_exec_time IS 'Shortest run, in milliseconds.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.max_exec_time IS 'Longest run, in milliseconds.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.mean_exec_time IS 'Mean of the runs, in milliseconds.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.stddev_exec_time IS 'Standard deviation of them, in milliseconds.';
COMMENT ON COLUMN btc_dashboard.pg_stat_statements.rows IS 'Rows returned or changed by all runs.';
