-- Keeps the columns app_… (470) the same as what they spell otherwise. Two row triggers a table, of one shape:
--
--   trg_adopt_spelling  before all others: where an app_… column was written, the column behind it follows;
--   trg_spell           after all others: app_… columns follow whatever became of those behind them.
--
-- What an application wrote stands as it wrote it as long as it means the same. Column by column, so that either side
-- may be written; the app_… columns win where both are.

-- The class of asset that a market stands for. Raises 22P02 for one that is none of the three.
CREATE OR REPLACE FUNCTION _tidemark.asset_class(p_market text)
    RETURNS public.asset_type
    LANGUAGE plpgsql
    IMMUTABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF lower(p_market) NOT IN ('forex', 'crypto', 'stock') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_text_representation',
            MESSAGE = format('there is no market %L', p_market), HINT = 'It is FOREX, CRYPTO or STOCK.';
    END IF;
    RETURN lower(p_market);
END
$func$;
COMMENT ON FUNCTION _tidemark.asset_class(text) IS
'Class of asset that FOREX, CRYPTO or STOCK stands for; raises 22P02 for anything else.';

-- What an asset is called, and the market it is in: STOCK stands for everything listed, shares, funds, indices and
-- commodities.
CREATE OR REPLACE FUNCTION _tidemark.market_of(p_asset_type public.asset_type)
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE p_asset_type WHEN 'forex' THEN 'FOREX' WHEN 'crypto' THEN 'CRYPTO' ELSE 'STOCK' END;
$func$;
COMMENT ON FUNCTION _tidemark.market_of(public.asset_type) IS 'FOREX, CRYPTO, or STOCK for whatever is listed.';

-- The default list of a user, made where there is none.
CREATE OR REPLACE FUNCTION _tidemark.default_watchlist(p_user_id uuid)
    RETURNS uuid
    LANGUAGE plpgsql
    VOLATILE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    INSERT INTO public.watchlists (user_id, name, is_default) VALUES (p_user_id, 'Default', true)
    ON CONFLICT DO NOTHING; -- there is a default list, or one of that name
    RETURN (
        SELECT w.watchlist_id
          FROM public.watchlists AS w
         WHERE w.user_id = p_user_id AND (w.is_default OR w.name = 'Default')
         ORDER BY w.is_default DESC
         LIMIT 1
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.default_watchlist(uuid) IS 'The default list of a user, made where there is none.';

-- A word as the label of an enumeration where it is one, else other: an application may have words of its own. NULL for
-- NULL; p_of says which enumeration and may be NULL.
CREATE OR REPLACE FUNCTION _tidemark.label_or_other(p_word text, p_of anyenum)
    RETURNS anyenum
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT l.label
      FROM unnest(enum_range(p_of)) AS l (label)
     WHERE p_word IS NOT NULL AND l.label::text IN (lower(p_word), 'other')
     ORDER BY l.label::text = 'other'
     LIMIT 1;
$func$;
COMMENT ON FUNCTION _tidemark.label_or_other(text, anyenum) IS
'A word as the label of an enumeration where it is one, else other.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_user()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    -- What a user is allowed is decided by an administrator.
    IF NEW.app_role IS DISTINCT FROM OLD.app_role AND NEW.app_role IS NOT NULL THEN
        NEW.role := lower(NEW.app_role);
    ELSIF NEW.app_is_admin IS DISTINCT FROM OLD.app_is_admin AND (NEW.app_is_admin OR TG_OP = 'UPDATE') THEN
        NEW.role := CASE WHEN NEW.app_is_admin THEN 'admin' ELSE 'user' END;
    END IF;
    IF NEW.role <> coalesce(OLD.role, 'user') AND NOT has_column_privilege('public.users', 'role', 'UPDATE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = 'permission denied for column role of table users',
            DETAIL = 'What a user is allowed is decided by an administrator.', TABLE = 'users', COLUMN = 'role';
    END IF;
    IF NEW.app_created_at IS DISTINCT FROM OLD.app_created_at AND NEW.app_created_at IS NOT NULL THEN
        NEW.created_at := NEW.app_created_at AT TIME ZONE 'UTC';
    END IF;
    IF NEW.app_updated_at IS DISTINCT FROM OLD.app_updated_at AND NEW.app_updated_at IS NOT NULL THEN
        NEW.updated_at := NEW.app_updated_at AT TIME ZONE 'UTC';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_user() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_user()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_role := upper(NEW.role::text);
    NEW.app_created_at := NEW.created_at AT TIME ZONE 'UTC';
    NEW.app_updated_at := NEW.updated_at AT TIME ZONE 'UTC';
    NEW.app_is_admin := NEW.role = 'admin';
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.spell_user() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_prediction()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF (NEW.app_symbol, NEW.app_market) IS DISTINCT FROM (OLD.app_symbol, OLD.app_market) THEN
        NEW.asset_id := _tidemark.find_or_create_asset(NEW.app_symbol, _tidemark.asset_class(NEW.app_market));
    END IF;
    IF NEW.app_user_id IS DISTINCT FROM OLD.app_user_id THEN
        NEW.user_id := _tidemark.numbered_user(NEW.app_user_id);
    END IF;
    IF NEW.app_model_type IS DISTINCT FROM OLD.app_model_type THEN
        NEW.model_type := lower(NEW.app_model_type);
    END IF;
    IF NEW.app_direction IS DISTINCT FROM OLD.app_direction THEN
        NEW.direction := lower(NEW.app_direction);
    END IF;
    IF NEW.app_current_price IS DISTINCT FROM OLD.app_current_price THEN
        NEW.current_price := NEW.app_current_price;
    END IF;
    IF NEW.app_predicted_price IS DISTINCT FROM OLD.app_predicted_price THEN
        NEW.predicted_price := NEW.app_predicted_price;
    END IF;
    IF NEW.app_target_price IS DISTINCT FROM OLD.app_target_price THEN
        NEW.target_price := NEW.app_target_price;
    END IF;
    IF NEW.app_stop_loss IS DISTINCT FROM OLD.app_stop_loss THEN
        NEW.stop_loss := NEW.app_stop_loss;
    END IF;
    IF NEW.app_take_profit IS DISTINCT FROM OLD.app_take_profit THEN
        NEW.take_profit := NEW.app_take_profit;
    END IF;
    IF NEW.app_actual_price IS DISTINCT FROM OLD.app_actual_price THEN
        NEW.actual_price := NEW.app_actual_price;
    END IF;
    IF NEW.app_interval IS DISTINCT FROM OLD.app_interval THEN
        NEW.interval := NEW.app_interval;
    END IF;
    IF TG_OP = 'INSERT' THEN
        NEW.prediction_for := coalesce(
            NEW.prediction_for, NEW.created_at + make_interval(hours => NEW.horizon_hours)
        );
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_prediction() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_prediction()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_user_id := (SELECT u.user_no FROM public.users AS u WHERE u.user_id = NEW.user_id);
    NEW.app_model_type := upper(NEW.model_type::text);
    NEW.app_direction := upper(NEW.direction::text);
    IF NEW.app_current_price::numeric IS DISTINCT FROM NEW.current_price THEN
        NEW.app_current_price := NEW.current_price;
    END IF;
    IF NEW.app_predicted_price::numeric IS DISTINCT FROM NEW.predicted_price THEN
        NEW.app_predicted_price := NEW.predicted_price;
    END IF;
    IF NEW.app_target_price::numeric IS DISTINCT FROM NEW.target_price THEN
        NEW.app_target_price := NEW.target_price;
    END IF;
    IF NEW.app_stop_loss::numeric IS DISTINCT FROM NEW.stop_loss THEN
        NEW.app_stop_loss := NEW.stop_loss;
    END IF;
    IF NEW.app_take_profit::numeric IS DISTINCT FROM NEW.take_profit THEN
        NEW.app_take_profit := NEW.take_profit;
    END IF;
    IF NEW.app_actual_price::numeric IS DISTINCT FROM NEW.actual_price THEN
        NEW.app_actual_price := NEW.actual_price;
    END IF;
    NEW.app_interval := NEW.interval;
    SELECT a.symbol, _tidemark.market_of(a.asset_type) INTO NEW.app_symbol, NEW.app_market
      FROM public.assets AS a
     WHERE a.asset_id = NEW.asset_id;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_prediction() FROM public;
COMMENT ON FUNCTION _tidemark.spell_prediction() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_watchlist_item()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF (NEW.app_symbol, NEW.app_market) IS DISTINCT FROM (OLD.app_symbol, OLD.app_market) THEN
        NEW.asset_id := _tidemark.find_or_create_asset(NEW.app_symbol, _tidemark.asset_class(NEW.app_market));
    END IF;
    -- An application with one list a user means the default one.
    IF NEW.app_user_id IS DISTINCT FROM OLD.app_user_id
       AND NEW.watchlist_id IS NOT DISTINCT FROM OLD.watchlist_id THEN
        NEW.watchlist_id := _tidemark.default_watchlist(_tidemark.numbered_user(NEW.app_user_id));
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_watchlist_item() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_watchlist_item()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    SELECT a.symbol, _tidemark.market_of(a.asset_type) INTO NEW.app_symbol, NEW.app_market
      FROM public.assets AS a
     WHERE a.asset_id = NEW.asset_id;
    SELECT u.user_no INTO NEW.app_user_id
      FROM public.watchlists AS w
      JOIN public.users AS u ON u.user_id = w.user_id
     WHERE w.watchlist_id = NEW.watchlist_id;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_watchlist_item() FROM public;
COMMENT ON FUNCTION _tidemark.spell_watchlist_item() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_alert()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.app_symbol IS DISTINCT FROM OLD.app_symbol THEN
        NEW.asset_id := _tidemark.find_or_create_asset(NEW.app_symbol);
    END IF;
    IF NEW.app_user_id IS DISTINCT FROM OLD.app_user_id THEN
        NEW.user_id := _tidemark.numbered_user(NEW.app_user_id);
    END IF;
    IF NEW.app_target_value IS DISTINCT FROM OLD.app_target_value THEN
        NEW.target_value := NEW.app_target_value;
    END IF;
    IF NEW.app_alert_type IS DISTINCT FROM OLD.app_alert_type AND NEW.app_alert_type IS NOT NULL THEN
        NEW.alert_type := lower(NEW.app_alert_type);
    END IF;
    IF NEW.app_condition IS DISTINCT FROM OLD.app_condition THEN
        NEW.condition := lower(NEW.app_condition);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_alert() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_alert()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_user_id := (SELECT u.user_no FROM public.users AS u WHERE u.user_id = NEW.user_id);
    IF NEW.app_target_value::numeric IS DISTINCT FROM NEW.target_value THEN
        NEW.app_target_value := NEW.target_value;
    END IF;
    NEW.app_alert_type := NEW.alert_type;
    NEW.app_condition := NEW.condition;
    SELECT a.symbol INTO NEW.app_symbol FROM public.assets AS a WHERE a.asset_id = NEW.asset_id;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_alert() FROM public;
COMMENT ON FUNCTION _tidemark.spell_alert() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_notification()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_created_at := coalesce(NEW.app_created_at, NEW.app_timestamp);
    IF NEW.app_user_id IS DISTINCT FROM OLD.app_user_id THEN
        NEW.user_id := _tidemark.numbered_user(NEW.app_user_id);
    END IF;
    IF NEW.app_notification_type IS DISTINCT FROM OLD.app_notification_type THEN
        NEW.notification_type := _tidemark.label_or_other(NEW.app_notification_type, NEW.notification_type);
    END IF;
    IF NEW.app_created_at IS DISTINCT FROM OLD.app_created_at AND NEW.app_created_at IS NOT NULL THEN
        NEW.created_at := NEW.app_created_at AT TIME ZONE 'UTC';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_notification() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_notification()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_user_id := (SELECT u.user_no FROM public.users AS u WHERE u.user_id = NEW.user_id);
    IF NEW.notification_type <> 'other'
       OR _tidemark.label_or_other(NEW.app_notification_type, NEW.notification_type)
          IS DISTINCT FROM NEW.notification_type THEN
        NEW.app_notification_type := upper(NEW.notification_type::text);
    END IF;
    NEW.app_created_at := NEW.created_at AT TIME ZONE 'UTC';
    NEW.app_timestamp := coalesce(NEW.app_timestamp, NEW.app_created_at);
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_notification() FROM public;
COMMENT ON FUNCTION _tidemark.spell_notification() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_position()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF (NEW.app_symbol, NEW.app_market) IS DISTINCT FROM (OLD.app_symbol, OLD.app_market) THEN
        NEW.asset_id := _tidemark.find_or_create_asset(NEW.app_symbol, _tidemark.asset_class(NEW.app_market));
    END IF;
    -- What the application says of a result stands until what it follows from changes and it says nothing.
    IF (NEW.exit_price, NEW.current_price, NEW.entry_price, NEW.quantity, NEW.side, NEW.app_exit_price,
        NEW.app_current_price, NEW.app_entry_price, NEW.app_quantity)
       IS DISTINCT FROM
       (OLD.exit_price, OLD.current_price, OLD.entry_price, OLD.quantity, OLD.side, OLD.app_exit_price,
        OLD.app_current_price, OLD.app_entry_price, OLD.app_quantity)
    THEN
        NEW.app_pnl := nullif(NEW.app_pnl, OLD.app_pnl);
        NEW.app_pnl_percent := nullif(NEW.app_pnl_percent, OLD.app_pnl_percent);
    END IF;
    IF NEW.app_user_id IS DISTINCT FROM OLD.app_user_id THEN
        NEW.user_id := _tidemark.numbered_user(NEW.app_user_id);
    END IF;
    IF NEW.app_entry_price IS DISTINCT FROM OLD.app_entry_price THEN
        NEW.entry_price := NEW.app_entry_price;
    END IF;
    IF NEW.app_current_price IS DISTINCT FROM OLD.app_current_price THEN
        NEW.current_price := NEW.app_current_price;
    END IF;
    IF NEW.app_exit_price IS DISTINCT FROM OLD.app_exit_price THEN
        NEW.exit_price := NEW.app_exit_price;
    END IF;
    IF NEW.app_quantity IS DISTINCT FROM OLD.app_quantity THEN
        NEW.quantity := NEW.app_quantity;
    END IF;
    IF NEW.app_side IS DISTINCT FROM OLD.app_side THEN
        NEW.side := lower(NEW.app_side);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_position() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_position()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_gain numeric; -- per unit
BEGIN
    NEW.app_user_id := (SELECT u.user_no FROM public.users AS u WHERE u.user_id = NEW.user_id);
    IF NEW.app_entry_price::numeric IS DISTINCT FROM NEW.entry_price THEN
        NEW.app_entry_price := NEW.entry_price;
    END IF;
    IF NEW.app_current_price::numeric IS DISTINCT FROM NEW.current_price THEN
        NEW.app_current_price := NEW.current_price;
    END IF;
    IF NEW.app_exit_price::numeric IS DISTINCT FROM NEW.exit_price THEN
        NEW.app_exit_price := NEW.exit_price;
    END IF;
    IF NEW.app_quantity::numeric IS DISTINCT FROM NEW.quantity THEN
        NEW.app_quantity := NEW.quantity;
    END IF;
    NEW.app_side := NEW.side;
    SELECT a.symbol, _tidemark.market_of(a.asset_type) INTO NEW.app_symbol, NEW.app_market
      FROM public.assets AS a
     WHERE a.asset_id = NEW.asset_id;
    v_gain := (coalesce(NEW.exit_price, NEW.current_price) - NEW.entry_price)
        * CASE NEW.side WHEN 'long' THEN 1 ELSE -1 END; -- as the columns pnl and pnl_percent are computed
    NEW.app_pnl := coalesce(NEW.app_pnl, v_gain * NEW.quantity);
    NEW.app_pnl_percent := coalesce(NEW.app_pnl_percent, v_gain / nullif(NEW.entry_price, 0) * 100);
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_position() FROM public;
COMMENT ON FUNCTION _tidemark.spell_position() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_strategy()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.app_user_id IS DISTINCT FROM OLD.app_user_id THEN
        NEW.user_id := _tidemark.numbered_user(NEW.app_user_id);
    END IF;
    IF NEW.app_created_at IS DISTINCT FROM OLD.app_created_at AND NEW.app_created_at IS NOT NULL THEN
        NEW.created_at := NEW.app_created_at AT TIME ZONE 'UTC';
    END IF;
    IF NEW.app_updated_at IS DISTINCT FROM OLD.app_updated_at AND NEW.app_updated_at IS NOT NULL THEN
        NEW.updated_at := NEW.app_updated_at AT TIME ZONE 'UTC';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_strategy() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_strategy()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_user_id := (SELECT u.user_no FROM public.users AS u WHERE u.user_id = NEW.user_id);
    NEW.app_created_at := NEW.created_at AT TIME ZONE 'UTC';
    NEW.app_updated_at := NEW.updated_at AT TIME ZONE 'UTC';
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_strategy() FROM public;
COMMENT ON FUNCTION _tidemark.spell_strategy() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_signal()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.app_symbol IS DISTINCT FROM OLD.app_symbol THEN
        NEW.asset_id := _tidemark.find_or_create_asset(NEW.app_symbol, p_otherwise => 'crypto');
        NEW.ts := coalesce(NEW.ts, now());
    END IF;
    IF NEW.app_signal_type IS DISTINCT FROM OLD.app_signal_type THEN
        NEW.signal_type := lower(NEW.app_signal_type);
    END IF;
    IF NEW.app_ts IS DISTINCT FROM OLD.app_ts THEN
        NEW.ts := NEW.app_ts AT TIME ZONE 'UTC';
    END IF;
    IF NEW.app_created_at IS DISTINCT FROM OLD.app_created_at AND NEW.app_created_at IS NOT NULL THEN
        NEW.created_at := NEW.app_created_at AT TIME ZONE 'UTC';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_signal() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_signal()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_signal_type := upper(NEW.signal_type::text);
    NEW.app_ts := NEW.ts AT TIME ZONE 'UTC';
    NEW.app_created_at := NEW.created_at AT TIME ZONE 'UTC';
    SELECT a.symbol INTO NEW.app_symbol FROM public.assets AS a WHERE a.asset_id = NEW.asset_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.spell_signal() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_sentiment()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.app_symbol IS DISTINCT FROM OLD.app_symbol THEN
        NEW.asset_id := _tidemark.find_or_create_asset(NEW.app_symbol, p_otherwise => 'crypto');
        NEW.ts := coalesce(NEW.ts, now());
    END IF;
    IF NEW.app_ts IS DISTINCT FROM OLD.app_ts AND NEW.app_ts IS NOT NULL THEN
        NEW.ts := NEW.app_ts AT TIME ZONE 'UTC';
    END IF;
    IF NEW.app_ingested_at IS DISTINCT FROM OLD.app_ingested_at AND NEW.app_ingested_at IS NOT NULL THEN
        NEW.ingested_at := NEW.app_ingested_at AT TIME ZONE 'UTC';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_sentiment() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_sentiment()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_ts := NEW.ts AT TIME ZONE 'UTC';
    NEW.app_ingested_at := NEW.ingested_at AT TIME ZONE 'UTC';
    SELECT a.symbol INTO NEW.app_symbol FROM public.assets AS a WHERE a.asset_id = NEW.asset_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.spell_sentiment() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_model()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.app_model_type IS DISTINCT FROM OLD.app_model_type THEN
        NEW.model_type := _tidemark.label_or_other(NEW.app_model_type, NEW.model_type);
    END IF;
    IF NEW.app_trained_on IS DISTINCT FROM OLD.app_trained_on THEN
        NEW.trained_on := NEW.app_trained_on AT TIME ZONE 'UTC';
    END IF;
    IF NEW.app_created_at IS DISTINCT FROM OLD.app_created_at AND NEW.app_created_at IS NOT NULL THEN
        NEW.created_at := NEW.app_created_at AT TIME ZONE 'UTC';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_model() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_model()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.model_type <> 'other'
       OR _tidemark.label_or_other(NEW.app_model_type, NEW.model_type) IS DISTINCT FROM NEW.model_type THEN
        NEW.app_model_type := NEW.model_type;
    END IF;
    NEW.app_trained_on := NEW.trained_on AT TIME ZONE 'UTC';
    NEW.app_created_at := NEW.created_at AT TIME ZONE 'UTC';
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.spell_model() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_trade()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.app_symbol IS DISTINCT FROM OLD.app_symbol THEN
        NEW.asset_id := _tidemark.find_or_create_asset(NEW.app_symbol, p_otherwise => 'crypto');
        NEW.user_id := coalesce(NEW.user_id, _tidemark.current_user_id());
    END IF;
    IF NEW.app_trade_type IS DISTINCT FROM OLD.app_trade_type THEN
        NEW.app_direction := CASE lower(NEW.app_trade_type) WHEN 'sell' THEN 'short' ELSE 'long' END;
    ELSIF TG_OP = 'INSERT' AND NEW.trade_type IS NULL AND num_nonnulls(NEW.quantity, NEW.app_quantity) = 0 THEN
        -- Known by its direction alone: carried out, of one unit.
        NEW.trade_type := CASE lower(NEW.app_direction) WHEN 'short' THEN 'sell' ELSE 'buy' END;
        NEW.quantity := 1;
        NEW.status := 'executed';
        NEW.is_paper_trade := NEW.is_backtest;
    ELSIF NEW.app_direction <> OLD.app_direction THEN
        NEW.trade_type := CASE lower(NEW.app_direction) WHEN 'short' THEN 'sell' ELSE 'buy' END;
    END IF;
    IF NEW.external_id IS DISTINCT FROM OLD.external_id THEN
        NEW.trade_id := coalesce(_tidemark.uuid_or_null(NEW.external_id), NEW.trade_id);
    END IF;
    IF NEW.app_trade_type IS DISTINCT FROM OLD.app_trade_type THEN
        NEW.trade_type := lower(NEW.app_trade_type);
    END IF;
    IF NEW.app_direction IS DISTINCT FROM OLD.app_direction AND NEW.app_direction IS NOT NULL THEN
        NEW.direction := lower(NEW.app_direction);
    END IF;
    IF NEW.app_status IS DISTINCT FROM OLD.app_status AND NEW.app_status IS NOT NULL THEN
        NEW.status := _tidemark.label_or_other(NEW.app_status, NEW.status);
    END IF;
    IF NEW.app_outcome IS DISTINCT FROM OLD.app_outcome AND NEW.app_outcome IS NOT NULL THEN
        NEW.outcome := _tidemark.label_or_other(NEW.app_outcome, NEW.outcome);
    END IF;
    IF NEW.app_strategy_rule_id IS DISTINCT FROM OLD.app_strategy_rule_id THEN
        NEW.strategy_rule_id := hyperliquid.strategy_rule(NEW.app_strategy_rule_id);
    END IF;
    IF NEW.app_entry_price IS DISTINCT FROM OLD.app_entry_price THEN
        NEW.entry_price := NEW.app_entry_price;
    END IF;
    IF NEW.app_exit_price IS DISTINCT FROM OLD.app_exit_price THEN
        NEW.exit_price := NEW.app_exit_price;
    END IF;
    IF NEW.app_quantity IS DISTINCT FROM OLD.app_quantity THEN
        NEW.quantity := NEW.app_quantity;
    END IF;
    IF NEW.app_pnl IS DISTINCT FROM OLD.app_pnl THEN
        NEW.pnl := NEW.app_pnl;
    END IF;
    IF NEW.app_entry_time IS DISTINCT FROM OLD.app_entry_time AND NEW.app_entry_time IS NOT NULL THEN
        NEW.entry_time := NEW.app_entry_time AT TIME ZONE 'UTC';
    END IF;
    IF NEW.app_created_at IS DISTINCT FROM OLD.app_created_at AND NEW.app_created_at IS NOT NULL THEN
        NEW.created_at := NEW.app_created_at AT TIME ZONE 'UTC';
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_trade() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_trade()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_trade_type := upper(NEW.trade_type::text);
    NEW.app_direction := NEW.direction;
    IF NEW.status <> 'other' OR _tidemark.label_or_other(NEW.app_status, NEW.status) IS DISTINCT FROM NEW.status THEN
        NEW.app_status := upper(NEW.status::text);
    END IF;
    IF NEW.outcome <> 'other'
       OR _tidemark.label_or_other(NEW.app_outcome, NEW.outcome) IS DISTINCT FROM NEW.outcome THEN
        NEW.app_outcome := NEW.outcome;
    END IF;
    NEW.app_strategy_rule_id := (
        SELECT r.external_id FROM public.strategy_rules AS r WHERE r.rule_id = NEW.strategy_rule_id
    );
    IF NEW.app_entry_price::numeric IS DISTINCT FROM NEW.entry_price THEN
        NEW.app_entry_price := NEW.entry_price;
    END IF;
    IF NEW.app_exit_price::numeric IS DISTINCT FROM NEW.exit_price THEN
        NEW.app_exit_price := NEW.exit_price;
    END IF;
    IF NEW.app_quantity::numeric IS DISTINCT FROM NEW.quantity THEN
        NEW.app_quantity := NEW.quantity;
    END IF;
    IF NEW.app_pnl::numeric IS DISTINCT FROM NEW.pnl THEN
        NEW.app_pnl := NEW.pnl;
    END IF;
    NEW.app_entry_time := NEW.entry_time AT TIME ZONE 'UTC';
    NEW.app_created_at := NEW.created_at AT TIME ZONE 'UTC';
    IF NEW.external_id IS NULL OR NEW.external_id = OLD.trade_id::text THEN
        NEW.external_id := NEW.trade_id::text;
    END IF;
    SELECT a.symbol INTO NEW.app_symbol FROM public.assets AS a WHERE a.asset_id = NEW.asset_id;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_trade() FROM public;
COMMENT ON FUNCTION _tidemark.spell_trade() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_strategy_rule()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.external_id IS DISTINCT FROM OLD.external_id THEN
        NEW.rule_id := coalesce(_tidemark.uuid_or_null(NEW.external_id), NEW.rule_id);
    END IF;
    IF NEW.app_source_type IS DISTINCT FROM OLD.app_source_type AND NEW.app_source_type IS NOT NULL THEN
        NEW.source_type := _tidemark.label_or_other(NEW.app_source_type, NEW.source_type);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_strategy_rule() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_strategy_rule()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.source_type <> 'other'
       OR _tidemark.label_or_other(NEW.app_source_type, NEW.source_type) IS DISTINCT FROM NEW.source_type THEN
        NEW.app_source_type := NEW.source_type;
    END IF;
    IF NEW.external_id IS NULL OR NEW.external_id = OLD.rule_id::text THEN
        NEW.external_id := NEW.rule_id::text;
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.spell_strategy_rule() IS 'Row trigger: keeps app_… columns.';

CREATE OR REPLACE FUNCTION _tidemark.adopt_learning_entry()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.external_id IS DISTINCT FROM OLD.external_id THEN
        NEW.entry_id := coalesce(_tidemark.uuid_or_null(NEW.external_id), NEW.entry_id);
    END IF;
    IF NEW.app_supporting_trades IS DISTINCT FROM OLD.app_supporting_trades
       AND NEW.app_supporting_trades IS NOT NULL THEN
        NEW.supporting_trades := hyperliquid.trades_with(NEW.app_supporting_trades);
    END IF;
    IF NEW.app_strategy_rule_id IS DISTINCT FROM OLD.app_strategy_rule_id THEN
        NEW.strategy_rule_id := hyperliquid.strategy_rule(NEW.app_strategy_rule_id);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.adopt_learning_entry() IS 'Row trigger: takes over what app_… columns say.';

CREATE OR REPLACE FUNCTION _tidemark.spell_learning_entry()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.app_strategy_rule_id := (
        SELECT r.external_id FROM public.strategy_rules AS r WHERE r.rule_id = NEW.strategy_rule_id
    );
    IF NEW.external_id IS NULL OR NEW.external_id = OLD.entry_id::text THEN
        NEW.external_id := NEW.entry_id::text;
    END IF;
    NEW.app_supporting_trades := ARRAY(
        SELECT t.external_id
          FROM unnest(NEW.supporting_trades) WITH ORDINALITY AS s (trade_id, place)
          LEFT JOIN public.trades AS t ON t.trade_id = s.trade_id
         ORDER BY s.place
    );
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.spell_learning_entry() FROM public;
COMMENT ON FUNCTION _tidemark.spell_learning_entry() IS 'Row trigger: keeps app_… columns.';

DO $do$
DECLARE
    v_table record;
BEGIN
    FOR v_table IN
        SELECT t.name, t.singular
          FROM (VALUES
                ('users', 'user'),
                ('predictions', 'prediction'),
                ('watchlist_items', 'watchlist_item'),
                ('alerts', 'alert'),
                ('notifications', 'notification'),
                ('positions', 'position'),
                ('strategies', 'strategy'),
                ('signals', 'signal'),
                ('sentiment_data', 'sentiment'),
                ('models', 'model'),
                ('trades', 'trade'),
                ('strategy_rules', 'strategy_rule'),
                ('learning_entries', 'learning_entry')
               ) AS t (name, singular)
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER trg_adopt_spelling BEFORE INSERT OR UPDATE ON public.%I '
                       'FOR EACH ROW EXECUTE FUNCTION _tidemark.adopt_%s()', v_table.name, v_table.singular);
        EXECUTE format('COMMENT ON TRIGGER trg_adopt_spelling ON public.%I IS %L', v_table.name,
                       'What an application wrote in its spelling goes where it belongs.');
        EXECUTE format('CREATE OR REPLACE TRIGGER trg_spell BEFORE INSERT OR UPDATE ON public.%I '
                       'FOR EACH ROW EXECUTE FUNCTION _tidemark.spell_%s()', v_table.name, v_table.singular);
        EXECUTE format('COMMENT ON TRIGGER trg_spell ON public.%I IS %L', v_table.name,
                       'Keeps what is stored in an application''s spelling, too.');
    END LOOP;
END
$do$;

-- Whoever renames an asset, or the key of a trade, renames it in what an application sees.
CREATE OR REPLACE FUNCTION _tidemark.respell()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_RELID = 'public.trades'::regclass THEN
        UPDATE public.learning_entries AS l SET supporting_trades = l.supporting_trades
         WHERE l.supporting_trades @> ARRAY[NEW.trade_id];
    ELSE
        UPDATE public.predictions AS p SET asset_id = p.asset_id WHERE p.asset_id = NEW.asset_id;
        UPDATE public.watchlist_items AS i SET asset_id = i.asset_id WHERE i.asset_id = NEW.asset_id;
        UPDATE public.alerts AS l SET asset_id = l.asset_id WHERE l.asset_id = NEW.asset_id;
        UPDATE public.positions AS p SET asset_id = p.asset_id WHERE p.asset_id = NEW.asset_id;
        UPDATE public.signals AS s SET asset_id = s.asset_id WHERE s.asset_id = NEW.asset_id;
        UPDATE public.trades AS t SET asset_id = t.asset_id WHERE t.asset_id = NEW.asset_id;
        -- An UPDATE that had to wait would change nothing on TimescaleDB 2.28.1 and newer.
        PERFORM FROM public.sentiment_data AS d WHERE d.asset_id = NEW.asset_id FOR NO KEY UPDATE;
        UPDATE public.sentiment_data AS d SET asset_id = d.asset_id WHERE d.asset_id = NEW.asset_id;
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.respell() FROM public;
COMMENT ON FUNCTION _tidemark.respell() IS 'Row trigger: a new name of an asset or key of a trade, wherever it stands.';

CREATE OR REPLACE TRIGGER trg_respell AFTER UPDATE ON public.assets
FOR EACH ROW WHEN (old.symbol <> new.symbol OR old.asset_type <> new.asset_type)
EXECUTE FUNCTION _tidemark.respell();
COMMENT ON TRIGGER trg_respell ON public.assets IS 'Renames the asset in what applications see.';

CREATE OR REPLACE TRIGGER trg_respell AFTER UPDATE ON public.trades
FOR EACH ROW WHEN (old.external_id IS DISTINCT FROM new.external_id)
EXECUTE FUNCTION _tidemark.respell();
COMMENT ON TRIGGER trg_respell ON public.trades IS 'Renames the trade in the insights that rest on it.';
