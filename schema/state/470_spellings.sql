-- Columns in which an application finds what it calls by another name or in another type: numbers of users, symbols,
-- FLOAT and TIMESTAMP, enumerations in capitals, keys that are text. They stand in the table itself, because then its
-- view (8xx) is one that PostgreSQL writes through on its own: two sessions wait for each other and look again, ON
-- CONFLICT finds its key, RETURNING and row counts are those of a table. Triggers (792) keep each pair the same,
-- whichever of the two is written.

DO $do$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT c.table_name, c.name, t.type
          FROM (VALUES
                ('text', 'users', '{app_role}'::text[]),
                ('boolean', 'users', '{app_is_admin}'),
                ('timestamp', 'users', '{app_created_at,app_updated_at}'),
                ('integer', 'predictions', '{app_user_id}'),
                ('text', 'predictions', '{app_symbol,app_market,app_model_type,app_direction,app_interval}'),
                ('double precision', 'predictions',
                 '{app_current_price,app_predicted_price,app_target_price,app_stop_loss,app_take_profit,'
                 'app_actual_price}'),
                ('integer', 'watchlist_items', '{app_user_id}'),
                ('text', 'watchlist_items', '{app_symbol,app_market}'),
                ('integer', 'alerts', '{app_user_id}'),
                ('text', 'alerts', '{app_symbol,app_alert_type,app_condition}'),
                ('double precision', 'alerts', '{app_target_value}'),
                ('integer', 'notifications', '{app_user_id}'),
                ('text', 'notifications', '{app_notification_type}'),
                ('timestamp', 'notifications', '{app_timestamp,app_created_at}'),
                ('integer', 'positions', '{app_user_id}'),
                ('text', 'positions', '{app_symbol,app_market,app_side}'),
                ('double precision', 'positions',
                 '{app_entry_price,app_current_price,app_exit_price,app_quantity,app_pnl,app_pnl_percent}'),
                ('integer', 'strategies', '{app_user_id}'),
                ('timestamp', 'strategies', '{app_created_at,app_updated_at}'),
                ('text', 'signals', '{app_symbol,app_signal_type}'),
                ('timestamp', 'signals', '{app_ts,app_created_at}'),
                ('text', 'sentiment_data', '{app_symbol}'),
                ('timestamp', 'sentiment_data', '{app_ts,app_ingested_at}'),
                ('text', 'models', '{app_model_type}'),
                ('timestamp', 'models', '{app_trained_on,app_created_at}'),
                ('text', 'trades',
                 '{app_symbol,app_trade_type,app_direction,app_status,app_outcome,app_strategy_rule_id}'),
                ('double precision', 'trades', '{app_entry_price,app_exit_price,app_quantity,app_pnl}'),
                ('timestamp', 'trades', '{app_entry_time,app_created_at}'),
                ('text', 'strategy_rules', '{app_source_type}'),
                ('text', 'learning_entries', '{app_strategy_rule_id}'),
                ('text[]', 'learning_entries', '{app_supporting_trades}')
               ) AS t (type, table_name, names)
         CROSS JOIN LATERAL (SELECT t.table_name, n.name FROM unnest(t.names) AS n (name)) AS c
    LOOP
        EXECUTE format('ALTER TABLE public.%I ADD COLUMN %I %s', v_column.table_name, v_column.name, v_column.type);
        EXECUTE format(
            'COMMENT ON COLUMN public.%I.%I IS %L', v_column.table_name, v_column.name,
            format('%s as an application spells it; kept the same.', substring(v_column.name FROM 5))
        );
    END LOOP;
END
$do$;
COMMENT ON COLUMN public.users.app_is_admin IS 'Whether the role is admin; kept the same.';
COMMENT ON COLUMN public.positions.app_pnl IS 'pnl, or what the application wrote last in its place.';
COMMENT ON COLUMN public.positions.app_pnl_percent IS 'pnl_percent, or what the application wrote last in its place.';
COMMENT ON COLUMN public.notifications.app_timestamp IS 'Instant that an application gave it, in UTC; else created_at.';

-- An application changes the number of a user, or the key of a rule, in one place.
-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid
ALTER TABLE public.predictions ADD CONSTRAINT predictions_app_user_id_fkey
FOREIGN KEY (app_user_id) REFERENCES public.users (user_no) ON UPDATE CASCADE;
ALTER TABLE public.watchlist_items ADD CONSTRAINT watchlist_items_app_user_id_fkey
FOREIGN KEY (app_user_id) REFERENCES public.users (user_no) ON UPDATE CASCADE;
ALTER TABLE public.alerts ADD CONSTRAINT alerts_app_user_id_fkey
FOREIGN KEY (app_user_id) REFERENCES public.users (user_no) ON UPDATE CASCADE;
ALTER TABLE public.notifications ADD CONSTRAINT notifications_app_user_id_fkey
FOREIGN KEY (app_user_id) REFERENCES public.users (user_no) ON UPDATE CASCADE;
ALTER TABLE public.positions ADD CONSTRAINT positions_app_user_id_fkey
FOREIGN KEY (app_user_id) REFERENCES public.users (user_no) ON UPDATE CASCADE;
ALTER TABLE public.strategies ADD CONSTRAINT strategies_app_user_id_fkey
FOREIGN KEY (app_user_id) REFERENCES public.users (user_no) ON UPDATE CASCADE;
ALTER TABLE public.trades ADD CONSTRAINT trades_app_strategy_rule_id_fkey
FOREIGN KEY (app_strategy_rule_id) REFERENCES public.strategy_rules (external_id) ON UPDATE CASCADE;
ALTER TABLE public.learning_entries ADD CONSTRAINT learning_entries_app_strategy_rule_id_fkey
FOREIGN KEY (app_strategy_rule_id) REFERENCES public.strategy_rules (external_id) ON UPDATE CASCADE;

-- What the documents index, in their spelling.
CREATE INDEX predictions_app_user_id_idx ON public.predictions (app_user_id);
CREATE INDEX watchlist_items_app_user_id_idx ON public.watchlist_items (app_user_id);
CREATE INDEX alerts_app_user_id_idx ON public.alerts (app_user_id);
CREATE INDEX notifications_app_user_id_idx ON public.notifications (app_user_id);
CREATE INDEX positions_app_user_id_idx ON public.positions (app_user_id);
CREATE INDEX strategies_app_user_id_idx ON public.strategies (app_user_id);
CREATE INDEX trades_app_strategy_rule_id_idx ON public.trades (app_strategy_rule_id);
CREATE INDEX learning_entries_app_strategy_rule_id_idx ON public.learning_entries (app_strategy_rule_id);
CREATE INDEX predictions_app_symbol_idx ON public.predictions (app_symbol, created_at DESC);
CREATE INDEX signals_app_symbol_idx ON public.signals (app_symbol, app_ts DESC);
CREATE INDEX signals_app_ts_idx ON public.signals (app_ts DESC);
CREATE INDEX trades_app_symbol_idx ON public.trades (app_symbol, app_entry_time DESC);
CREATE INDEX trades_app_entry_time_idx ON public.trades (app_entry_time DESC);
CREATE INDEX sentiment_data_app_symbol_idx ON public.sentiment_data (app_symbol, app_ts DESC);
CREATE INDEX sentiment_data_app_ts_idx ON public.sentiment_data (app_ts DESC);
CREATE UNIQUE INDEX users_username_exact_key ON public.users (username);
CREATE UNIQUE INDEX users_email_exact_key ON public.users (email);
COMMENT ON INDEX public.predictions_app_user_id_idx IS 'Predictions for a user by number.';
COMMENT ON INDEX public.watchlist_items_app_user_id_idx IS 'What a user follows, by number.';
COMMENT ON INDEX public.alerts_app_user_id_idx IS 'Alerts of a user by number.';
COMMENT ON INDEX public.notifications_app_user_id_idx IS 'Notifications of a user by number.';
COMMENT ON INDEX public.positions_app_user_id_idx IS 'Positions of a user by number.';
COMMENT ON INDEX public.strategies_app_user_id_idx IS 'Strategies of a user by number.';
COMMENT ON INDEX public.trades_app_strategy_rule_id_idx IS 'Trades of a rule by its application''s key.';
COMMENT ON INDEX public.learning_entries_app_strategy_rule_id_idx IS
'What was learnt about a rule, by its application''s key.';
COMMENT ON INDEX public.predictions_app_symbol_idx IS 'Predictions for a symbol, newest first.';
COMMENT ON INDEX public.signals_app_symbol_idx IS 'Signals for a symbol, newest first.';
COMMENT ON INDEX public.signals_app_ts_idx IS 'Signals within a period of naive instants.';
COMMENT ON INDEX public.trades_app_symbol_idx IS 'Trades in a symbol, newest first.';
COMMENT ON INDEX public.trades_app_entry_time_idx IS 'Trades within a period of naive instants.';
COMMENT ON INDEX public.sentiment_data_app_symbol_idx IS 'Texts about a symbol, newest first.';
COMMENT ON INDEX public.sentiment_data_app_ts_idx IS 'Texts within a period of naive instants.';
COMMENT ON INDEX public.users_username_exact_key IS 'What ON CONFLICT (username) finds.';
COMMENT ON INDEX public.users_email_exact_key IS 'What ON CONFLICT (email) finds.';
