-- An application's column means what the column behind it means, and its comment is taken from there unless the view's
-- own file says more. Listed are each view, the table behind it, and the columns that have another name there.

DO $do$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT v.view_name, a.attname AS column_name,
               coalesce(
                   o.meaning,
                   (SELECT col_description(b.attrelid, b.attnum)
                      FROM pg_catalog.pg_attribute AS b
                     WHERE b.attrelid = format('public.%I', v.table_name)::regclass
                       AND b.attname = coalesce(v.renamed ->> a.attname, a.attname))
               ) AS meaning
          FROM (VALUES
                ('buddy_ai.users', 'users', '{"id": "user_no", "hashed_password": "password_hash"}'::jsonb),
                ('buddy_ai.market_data', 'quotes', '{"timestamp": "ts"}'),
                ('buddy_ai.ohlcv_data', 'candles', '{"timeframe": "interval", "timestamp": "ts"}'),
                ('buddy_ai.predictions', 'predictions', '{"id": "prediction_no", "timeframe": "interval"}'),
                ('buddy_ai.watchlists', 'watchlist_items', '{"id": "item_no"}'),
                ('buddy_ai.alerts', 'alerts', '{"id": "alert_id"}'),
                ('buddy_ai.positions', 'positions', '{"id": "position_id"}'),
                ('cryptovolt.users', 'users', '{"user_id": "user_no"}'),
                ('cryptovolt.trading_strategies', 'strategies', '{}'),
                ('cryptovolt.market_data', 'candles',
                 '{"data_id": "id", "open_price": "open", "high_price": "high", "low_price": "low",
                   "close_price": "close", "created_at": "ingested_at"}'),
                ('cryptovolt.sentiment_data', 'sentiment_data', '{"created_at": "ingested_at"}'),
                ('cryptovolt.signals', 'signals', '{"timestamp": "ts"}'),
                ('cryptovolt.trades', 'trades',
                 '{"trade_id": "trade_no", "price": "entry_price", "timestamp": "entry_time"}'),
                ('cryptovolt.models', 'models', '{}'),
                ('cryptovolt.alerts', 'notifications', '{"alert_id": "notification_id"}'),
                ('trading_manager.users', 'users', '{"id": "user_id"}'),
                ('trading_manager.assets', 'assets', '{"id": "asset_id"}'),
                ('trading_manager.watchlists', 'watchlists', '{"id": "watchlist_id"}'),
                ('trading_manager.watchlist_items', 'watchlist_items', '{"id": "item_id"}'),
                ('trading_manager.indicators', 'indicators', '{"timeframe": "interval"}'),
                ('trading_manager.signals', 'signals', '{"id": "signal_id", "timeframe": "interval"}'),
                ('hyperliquid.strategy_rules', 'strategy_rules', '{}'),
                ('hyperliquid.trade_records', 'trades', '{"pnl_usd": "pnl"}'),
                ('hyperliquid.learning_entries', 'learning_entries', '{}'),
                ('hyperliquid.candle_data', 'candles', '{"timeframe": "interval", "timestamp": "ts"}'),
                ('btc_dashboard.ml_models', 'models', '{}')
               ) AS v (view_name, table_name, renamed)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = v.view_name::regclass
          LEFT JOIN (VALUES
                ('buddy_ai', 'symbol', 'Symbol of the asset, which is created where there is none.'),
                ('buddy_ai', 'market', 'FOREX, CRYPTO, or STOCK for whatever is listed.'),
                ('buddy_ai', 'user_id', 'Number of the account.'),
                ('cryptovolt', 'user_id', 'Number of the account.'),
                ('cryptovolt', 'symbol', 'Symbol of the asset, which is created where there is none.'),
                ('hyperliquid', 'asset', 'Symbol of the asset, which is created where there is none.'),
                ('hyperliquid', 'strategy_rule_id', 'Rule it followed or is about (strategy_rules.id).'),
                ('hyperliquid', 'id', 'Key as the application gave it, else the one it was given.')
               ) AS o (schema_name, column_name, meaning)
            ON o.schema_name = split_part(v.view_name, '.', 1) AND o.column_name = a.attname
         WHERE a.attnum > 0
           AND col_description(a.attrelid, a.attnum) IS NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', v_column.view_name, v_column.column_name, v_column.meaning);
    END LOOP;
END
$do$;
