-- What the applications' own tables (8xx) have in common. They are views: a plain one where PostgreSQL can write
-- through it, so that ON CONFLICT keeps working, else one with an INSTEAD OF trigger that spells the row as Tidemark
-- does. Every view runs with the rights of whoever asks (security_invoker), so row-level security holds there too.

-- What a symbol that nobody has described is most likely the name of: a currency pair, a coin against a currency or
-- another coin, else a share. Symbols as brokers and exchanges spell them: EURUSD, EUR/USD, BTCUSDT, ETH-USD, AAPL.
CREATE OR REPLACE FUNCTION _tidemark.likely_asset_type(p_symbol text)
    RETURNS public.asset_type
    LANGUAGE sql
    IMMUTABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE
        WHEN regexp_replace(p_symbol, '[/_-]', '') ~ (
            '^(AUD|CAD|CHF|CNH|CNY|DKK|EUR|GBP|HKD|JPY|MXN|NOK|NZD|PLN|SEK|SGD|TRY|USD|ZAR)'
            '(AUD|CAD|CHF|CNH|CNY|DKK|EUR|GBP|HKD|JPY|MXN|NOK|NZD|PLN|SEK|SGD|TRY|USD|ZAR)$'
        ) THEN 'forex'::public.asset_type
        WHEN p_symbol ~ '\w(USDT|USDC|BUSD|[/_-]?(USD|EUR|BTC|ETH))$' THEN 'crypto'
        ELSE 'stock'
    END;
$func$;
COMMENT ON FUNCTION _tidemark.likely_asset_type(text) IS
'Class of instrument that a symbol is most likely the name of, from its spelling alone.';

-- Whoever is about to write an asset or a source lets nobody make a chunk until he commits. A new chunk gets the
-- foreign keys of its hypertable, for which TimescaleDB locks first the hypertable, then what the keys refer to. A
-- transaction that had written a new asset and then needed a chunk took the two the other way round: a deadlock. Now it
-- takes them in the same order. They are first tried for, because one that waits for the second with the first held can
-- meet somebody who makes chunks of two hypertables the other way round. Whoever has made a chunk has nothing to wait
-- for.
CREATE OR REPLACE FUNCTION _tidemark.hold_back_chunks()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    FOR i IN 1..50 LOOP
        BEGIN
            LOCK TABLE ONLY public.candles, ONLY public.quotes, ONLY public.sentiment_data, ONLY public.indicators,
                ONLY public.features IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF EXISTS (SELECT FROM pg_catalog.pg_locks AS l
                        WHERE l.pid = pg_backend_pid() AND l.relation = 'public.assets'::regclass AND l.granted
                          AND l.mode = 'ShareRowExclusiveLock') THEN
                RETURN;
            END IF;
            PERFORM pg_sleep(0.01);
        END;
    END LOOP;
    LOCK TABLE ONLY public.candles, ONLY public.quotes, ONLY public.sentiment_data, ONLY public.indicators,
        ONLY public.features IN SHARE UPDATE EXCLUSIVE MODE;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.hold_back_chunks() FROM public;
COMMENT ON FUNCTION _tidemark.hold_back_chunks() IS
'Takes the locks that a new chunk takes, in the same order, before an asset or source is written.';

-- The asset of a symbol, created where there is none. Applications know no exchange, so where several carry the
-- symbol the one without an exchange comes first, then one that trades, then the oldest. With p_asset_type only an
-- asset of that class will do (stock stands for shares, funds, indices and commodities alike); without it any, and
-- p_otherwise is the class of a new one, by default what its symbol looks like. Raises 23502 for NULL.
CREATE OR REPLACE FUNCTION _tidemark.find_or_create_asset(
    p_symbol text,
    p_asset_type public.asset_type DEFAULT NULL,
    p_otherwise public.asset_type DEFAULT NULL
)
    RETURNS uuid
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_asset_id uuid;
    v_asset_type CONSTANT public.asset_type :=
        coalesce(p_asset_type, p_otherwise, _tidemark.likely_asset_type(p_symbol));
BEGIN
    IF p_symbol IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'not_null_violation', MESSAGE = 'the symbol is missing', COLUMN = 'symbol';
    END IF;
    LOOP
        SELECT a.asset_id INTO v_asset_id
          FROM public.assets AS a
         WHERE a.symbol = p_symbol
           AND (p_asset_type IS NULL OR p_asset_type = CASE
                    WHEN a.asset_type IN ('forex', 'crypto') THEN a.asset_type ELSE 'stock'
                END)
         ORDER BY a.exchange IS NOT NULL, NOT a.is_active, a.created_at, a.asset_id
         LIMIT 1;
        EXIT WHEN v_asset_id IS NOT NULL;
        -- Once more after a conflict: another session created it, or the symbol stands for something of another
        -- class. The latter keeps its place, and the new asset has the name of its class for an exchange.
        PERFORM _tidemark.hold_back_chunks();
        INSERT INTO public.assets (symbol, asset_type, quote_currency, exchange)
        VALUES (
            p_symbol, v_asset_type,
            CASE WHEN v_asset_type IN ('forex', 'crypto')
                THEN coalesce(substring(p_symbol FROM '(USDT|USDC|BUSD|BTC|ETH|[A-Z]{3})$'), 'USD') ELSE 'USD' END,
            CASE WHEN EXISTS (SELECT FROM public.assets AS a WHERE a.symbol = p_symbol AND a.exchange IS NULL)
                THEN v_asset_type::text END
        )
        ON CONFLICT (symbol, exchange) DO NOTHING;
    END LOOP;
    RETURN v_asset_id;
END
$func$;
COMMENT ON FUNCTION _tidemark.find_or_create_asset(text, public.asset_type, public.asset_type) IS
'Asset of a symbol, created where there is none.';

-- The source of an asset's bars at a provider, created where there is none. NULL without a provider.
CREATE OR REPLACE FUNCTION _tidemark.find_or_create_source(
    p_provider text,
    p_asset_id uuid,
    p_interval public.candle_interval
)
    RETURNS integer
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_source_id integer;
    v_name text;
BEGIN
    SELECT s.source_id INTO v_source_id
      FROM public.sources AS s
     WHERE s.asset_id = p_asset_id
       AND s.interval = p_interval
       AND s.provider = p_provider
       AND s.data_type = 'ohlcv'
     ORDER BY s.source_id
     LIMIT 1;
    IF FOUND OR p_provider IS NULL THEN
        RETURN v_source_id;
    END IF;
    SELECT concat_ws('_', p_provider, a.symbol, a.exchange, p_interval) INTO STRICT v_name
      FROM public.assets AS a
     WHERE a.asset_id = p_asset_id;
    PERFORM _tidemark.hold_back_chunks();
    INSERT INTO public.sources (name, data_type, asset_id, interval, provider)
    VALUES (v_name, 'ohlcv', p_asset_id, p_interval, p_provider)
    ON CONFLICT (name) DO NOTHING;
    RETURN (SELECT s.source_id FROM public.sources AS s WHERE s.name = v_name);
END
$func$;
COMMENT ON FUNCTION _tidemark.find_or_create_source(text, uuid, public.candle_interval) IS
'Source of an asset''s bars at a provider, created where there is none.';

-- The account with a number. NULL for NULL; raises 23503, as the application's own foreign key would, where there is
-- none, or none that the session may see.
CREATE OR REPLACE FUNCTION _tidemark.numbered_user(p_user_no integer)
    RETURNS uuid
    LANGUAGE plpgsql
    STABLE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_user_id uuid;
BEGIN
    SELECT u.user_id INTO v_user_id FROM public.users AS u WHERE u.user_no = p_user_no;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = format('there is no user %s', p_user_no), CONSTRAINT = 'users_user_no_key';
    END IF;
    RETURN v_user_id;
END
$func$;
COMMENT ON FUNCTION _tidemark.numbered_user(integer) IS 'The account with a number; raises 23503 where there is none.';

-- A key as it stands in a uuid column: itself where it is a uuid, else NULL; the latter goes to external_id.
CREATE OR REPLACE FUNCTION _tidemark.uuid_or_null(p_key text)
    RETURNS uuid
    LANGUAGE sql
    IMMUTABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE WHEN p_key ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN p_key::uuid END;
$func$;
COMMENT ON FUNCTION _tidemark.uuid_or_null(text) IS 'A key as a uuid, NULL where it is not spelled like one.';

-- What create_hypertable says in the applications' schemas: their documents call it on tables that are hypertables
-- already, or views over one. Those are left as they are, with the NOTICE that if_not_exists gives; any other table
-- is converted. Raises 42809 for a view with no hypertable, or more than one, behind it.
CREATE OR REPLACE FUNCTION _tidemark.create_hypertable(
    p_relation regclass,
    p_time_column name,
    p_chunk_time_interval interval,
    p_migrate_data boolean,
    p_if_not_exists boolean
)
    RETURNS TABLE (hypertable_id integer, schema_name name, table_name name, created boolean)
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_behind regclass[];
    v_time_column name;
BEGIN
    SELECT array_agg(DISTINCT format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass),
           min(d.column_name::text)
      INTO v_behind, v_time_column
      FROM timescaledb_information.dimensions AS d
     WHERE d.dimension_number = 1
       AND (format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass = p_relation
            OR format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass IN (
                SELECT p.refobjid
                  FROM pg_catalog.pg_rewrite AS r
                  JOIN pg_catalog.pg_depend AS p ON p.classid = 'pg_rewrite'::regclass AND p.objid = r.oid
                 WHERE r.ev_class = p_relation AND p.refclassid = 'pg_class'::regclass
            ));
    IF cardinality(v_behind) = 1 THEN
        RETURN QUERY
        SELECT h.* FROM public.create_hypertable(v_behind[1], v_time_column, if_not_exists => true) AS h;
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = p_relation AND c.relkind = 'v') THEN
        RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
            MESSAGE = format('%s is a view of no hypertable', p_relation),
            HINT = 'Its rows are kept in a plain table of public, which is small and needs no chunks.';
    ELSE
        RETURN QUERY
        SELECT h.*
          FROM public.create_hypertable(
                   p_relation, p_time_column, chunk_time_interval => coalesce(p_chunk_time_interval, interval '7 days'),
                   migrate_data => p_migrate_data, if_not_exists => p_if_not_exists
               ) AS h;
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.create_hypertable(regclass, name, interval, boolean, boolean) IS
'create_hypertable as the applications'' documents call it: what is a hypertable already stays one.';

-- What pg_stat_statements has counted, under the names its columns have had since version 1.8; times are in
-- milliseconds. No row where the extension is not installed, not preloaded, or not readable.
CREATE OR REPLACE FUNCTION _tidemark.statement_statistics()
    RETURNS TABLE (
        userid oid,
        dbid oid,
        queryid bigint,
        query text,
        calls bigint,
        total_exec_time double precision,
        min_exec_time double precision,
        max_exec_time double precision,
        mean_exec_time double precision,
        stddev_exec_time double precision,
        rows bigint
    )
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_schema regnamespace;
BEGIN
    SELECT e.extnamespace INTO v_schema FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pg_stat_statements';
    -- Its own setting is there once the library is loaded; the list of preloaded libraries is not for everybody.
    IF v_schema IS NULL OR current_setting('pg_stat_statements.max', true) IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT s.userid, s.dbid, s.queryid, s.query, s.calls, s.total_exec_time, s.min_exec_time, s.max_exec_time, '
        's.mean_exec_time, s.stddev_exec_time, s.rows FROM %s.pg_stat_statements AS s', v_schema
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.statement_statistics() IS
'Statistics of pg_stat_statements, times in milliseconds; no row where it is not installed or not preloaded.';
