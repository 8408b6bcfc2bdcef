-- Trading Manager: search_path = trading_manager, public. Its columns are those of public but for the keys' name, so
-- nearly all of it is plain views, through which ON CONFLICT works too. candles is public.candles itself, because its
-- document compresses, converts and analyses it, which only a table can bear.

CREATE OR REPLACE FUNCTION trading_manager.create_hypertable(
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
COMMENT ON FUNCTION trading_manager.create_hypertable(regclass, name, interval, boolean, boolean) IS
'create_hypertable for tables that are hypertables already, as candles is.';

-- compress_chunk for the plain chunk_name of timescaledb_information.chunks, of type name, which TimescaleDB 2 does
-- not take. Returns the chunk; raises 42P01 where there is none, and what public.compress_chunk raises.
CREATE OR REPLACE FUNCTION trading_manager.compress_chunk(chunk name)
    RETURNS regclass
    LANGUAGE plpgsql
    VOLATILE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_chunk regclass := to_regclass(chunk::text);
BEGIN
    IF v_chunk IS NULL THEN
        SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass INTO v_chunk
          FROM timescaledb_information.chunks AS c
         WHERE c.chunk_name = chunk;
    END IF;
    IF v_chunk IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_table', MESSAGE = format('there is no chunk %s', chunk);
    END IF;
    RETURN public.compress_chunk(v_chunk);
END
$func$;
COMMENT ON FUNCTION trading_manager.compress_chunk(name) IS
'compress_chunk for a chunk''s plain name, as timescaledb_information.chunks has it.';

-- add_compression_policy where Tidemark may have set one already: that one stays, as with if_not_exists, and its job's
-- number is not given (-1). SELECT * FROM data_policies shows it.
CREATE OR REPLACE FUNCTION trading_manager.add_compression_policy(
    hypertable regclass,
    compress_after interval
)
    RETURNS integer
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT public.add_compression_policy(hypertable, compress_after, if_not_exists => true);
$func$;
COMMENT ON FUNCTION trading_manager.add_compression_policy(regclass, interval) IS
'add_compression_policy that leaves a policy that is there already as it is.';

-- candles.created_at: PostgreSQL reads table.function as function(table).
CREATE OR REPLACE FUNCTION trading_manager.created_at(candle public.candles)
    RETURNS timestamptz
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT candle.ingested_at;
$func$;
COMMENT ON FUNCTION trading_manager.created_at(public.candles) IS
'When the bar arrived, to be read as candles.created_at.';

CREATE OR REPLACE VIEW trading_manager.users WITH (security_invoker = true) AS
SELECT u.user_id AS id,
       u.username,
       u.email,
       u.password_hash,
       u.is_active,
       u.app_is_admin AS is_admin,
       u.created_at,
       u.updated_at,
       u.last_login
  FROM public.users AS u;
COMMENT ON VIEW trading_manager.users IS 'Accounts. COPY into public.users.';
COMMENT ON COLUMN trading_manager.users.is_admin IS
'Whether the role is admin; taking it away leaves a user, and a premium user stays one.';

CREATE OR REPLACE VIEW trading_manager.assets WITH (security_invoker = true) AS
SELECT a.asset_id AS id,
       a.symbol,
       a.name,
       a.asset_type,
       a.exchange,
       a.sector,
       a.industry,
       a.created_at,
       a.updated_at
  FROM public.assets AS a;
COMMENT ON VIEW trading_manager.assets IS 'Assets. COPY into public.assets.';

CREATE OR REPLACE VIEW trading_manager.watchlists WITH (security_invoker = true) AS
SELECT w.watchlist_id AS id,
       w.user_id,
       w.name,
       w.description,
       w.color,
       w.icon,
       w.is_default,
       w.created_at,
       w.updated_at
  FROM public.watchlists AS w;
COMMENT ON VIEW trading_manager.watchlists IS 'Watchlists. COPY into public.watchlists.';

CREATE OR REPLACE VIEW trading_manager.watchlist_items WITH (security_invoker = true) AS
SELECT i.item_id AS id,
       i.watchlist_id,
       i.asset_id,
       i.position,
       i.notes,
       i.price_alert_high,
       i.price_alert_low,
       i.created_at,
       i.updated_at
  FROM public.watchlist_items AS i;
COMMENT ON VIEW trading_manager.watchlist_items IS 'Assets on watchlists. COPY into public.watchlist_items.';

CREATE OR REPLACE VIEW trading_manager.indicators WITH (security_invoker = true) AS
SELECT i.id,
       i.asset_id,
       i.ts,
       i.indicator_type,
       i.name,
       i.value,
       i.value2,
       i.value3,
       i.parameters,
       i.interval AS timeframe,
       i.computed_at
  FROM public.indicators AS i;
COMMENT ON VIEW trading_manager.indicators IS 'Indicators. COPY into public.indicators.';

CREATE OR REPLACE VIEW trading_manager.signals WITH (security_invoker = true) AS
SELECT s.signal_id AS id,
       s.asset_id,
       s.ts,
       s.signal_type,
       s.strength,
       s.confidence,
       s.price,
       s.target_price,
       s.stop_loss,
       s.strategy,
       s.rationale,
       s.indicators_used,
       s.interval AS timeframe,
       s.is_active,
       s.generated_at,
       s.expires_at
  FROM public.signals AS s;
COMMENT ON VIEW trading_manager.signals IS 'Signals. COPY into public.signals.';

CREATE OR REPLACE VIEW trading_manager.pg_stat_statements WITH (security_invoker = true) AS
SELECT s.userid,
       s.dbid,
       s.queryid,
       s.query,
       s.calls,
       s.total_exec_time AS total_time,
       s.min_exec_time AS min_time,
       s.max_exec_time AS max_time,
       s.mean_exec_time AS mean_time,
       s.stddev_exec_time AS stddev_time,
       s.rows
  FROM _tidemark.statement_statistics() AS s;
COMMENT ON VIEW trading_manager.pg_stat_statements IS
'pg_stat_statements with the names its columns had before version 1.8; empty where it is not installed. Times in ms.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.userid IS 'Role that ran the statement.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.dbid IS 'Database it ran in.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.queryid IS 'Hash of the statement without its constants.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.query IS 'Text, constants left out.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.calls IS 'How often it ran.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.total_time IS 'Time of all runs, in milliseconds.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.min_time IS 'Shortest run, in milliseconds.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.max_time IS 'Longest run, in milliseconds.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.mean_time IS 'Mean of the runs, in milliseconds.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.stddev_time IS 'Standard deviation of them, in milliseconds.';
COMMENT ON COLUMN trading_manager.pg_stat_statements.rows IS 'Rows returned or changed by all runs.';

-- Behind a function, as chunk_stats is: an update of TimescaleDB drops the views that it asks.
CREATE OR REPLACE FUNCTION trading_manager.hypertable_stats()
    RETURNS TABLE (
        hypertable_schema name,
        hypertable_name name,
        num_chunks bigint,
        table_bytes bigint,
        index_bytes bigint,
        toast_bytes bigint,
        total_bytes bigint
    )
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT h.hypertable_schema, h.hypertable_name, h.num_chunks, s.table_bytes, s.index_bytes, s.toast_bytes,
           s.total_bytes
      FROM timescaledb_information.hypertables AS h
     CROSS JOIN LATERAL public.hypertable_detailed_size(
               format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass
           ) AS s;
$func$;
COMMENT ON FUNCTION trading_manager.hypertable_stats() IS 'What timescaledb_information.hypertable_stats shows.';

-- timescaledb_information.hypertable_stats is named with its schema, so it can stand nowhere but there. TimescaleDB
-- never had a view of that name in version 2 and does not look at what else is in the schema. Where the role may not
-- create there (a managed server), the statement that asks for it stays unanswered, and nothing else is missing.
DO $do$
BEGIN
    IF NOT has_schema_privilege('timescaledb_information', 'CREATE') THEN
        RAISE NOTICE 'timescaledb_information.hypertable_stats is left out: % may not create in that schema',
            current_user;
        RETURN;
    END IF;
    EXECUTE $view$
CREATE OR REPLACE VIEW timescaledb_information.hypertable_stats WITH (security_invoker = true) AS
SELECT s.hypertable_schema,
       s.hypertable_name,
       s.num_chunks,
       s.table_bytes,
       s.index_bytes,
       s.toast_bytes,
       s.total_bytes
  FROM trading_manager.hypertable_stats() AS s
    $view$;
    COMMENT ON VIEW timescaledb_information.hypertable_stats IS
    'Tidemark''s: chunks and sizes per hypertable, in bytes, for Trading Manager, which asks for a view of this name.';
END
$do$;
