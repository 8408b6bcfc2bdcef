-- CryptoVolt: search_path = cryptovolt, public. Its keys are integers, its figures FLOAT, its instants TIMESTAMP, which
-- is UTC here whatever the session's zone. It knows one length of bars: the setting cryptovolt.interval says which.

-- Length of CryptoVolt's bars: the setting cryptovolt.interval, 1h where it is not set. To change it for good:
-- ALTER ROLE … SET cryptovolt.interval = '15m', or options=-ccryptovolt.interval%3D15m in the application's URL.
CREATE OR REPLACE FUNCTION cryptovolt.bar_interval()
    RETURNS public.candle_interval
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(nullif(current_setting('cryptovolt.interval', true), ''), '1h')::public.candle_interval;
$func$;
COMMENT ON FUNCTION cryptovolt.bar_interval() IS
'Length of the bars that market_data holds: the setting cryptovolt.interval, else 1h.';

CREATE OR REPLACE VIEW cryptovolt.users WITH (security_invoker = true) AS
SELECT u.user_no AS user_id,
       u.username,
       u.email,
       u.password_hash,
       u.is_active,
       u.created_at AT TIME ZONE 'UTC' AS created_at,
       u.updated_at AT TIME ZONE 'UTC' AS updated_at
  FROM public.users AS u;
ALTER VIEW cryptovolt.users ALTER COLUMN is_active SET DEFAULT true;
ALTER VIEW cryptovolt.users ALTER COLUMN created_at SET DEFAULT (now() AT TIME ZONE 'UTC');
COMMENT ON VIEW cryptovolt.users IS 'Accounts, numbered. COPY into public.users.';

CREATE OR REPLACE FUNCTION cryptovolt.write_user()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_no integer;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.users AS u WHERE u.user_no = OLD.user_id;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE public.users AS u
           SET username = NEW.username, email = NEW.email, password_hash = NEW.password_hash,
               is_active = NEW.is_active
         WHERE u.user_no = OLD.user_id
        RETURNING u.user_no INTO v_no;
    ELSE
        INSERT INTO public.users AS u (username, email, password_hash, is_active, created_at)
        VALUES (
            NEW.username, NEW.email, NEW.password_hash,
            NEW.is_active, NEW.created_at AT TIME ZONE 'UTC'
        )
        RETURNING u.user_no INTO v_no;
    END IF;
    NEW.user_id := coalesce(NEW.user_id, v_no);
    IF NEW.user_id <> v_no THEN -- numbers are not every application's to give
        UPDATE public.users AS u SET user_no = NEW.user_id WHERE u.user_no = v_no;
    END IF;
    SELECT v.* INTO NEW FROM cryptovolt.users AS v WHERE v.user_id = NEW.user_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_user() IS 'INSTEAD OF trigger: writes users to public.users.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.users
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_user();
COMMENT ON TRIGGER trg_write ON cryptovolt.users IS 'Writes through the view.';

CREATE OR REPLACE VIEW cryptovolt.trading_strategies WITH (security_invoker = true) AS
SELECT s.strategy_id,
       u.user_no AS user_id,
       s.name,
       s.description,
       s.parameters,
       s.is_active,
       s.created_at AT TIME ZONE 'UTC' AS created_at,
       s.updated_at AT TIME ZONE 'UTC' AS updated_at
  FROM public.strategies AS s
  LEFT JOIN public.users AS u ON u.user_id = s.user_id;
ALTER VIEW cryptovolt.trading_strategies ALTER COLUMN parameters SET DEFAULT '{}';
ALTER VIEW cryptovolt.trading_strategies ALTER COLUMN is_active SET DEFAULT false;
ALTER VIEW cryptovolt.trading_strategies ALTER COLUMN created_at SET DEFAULT (now() AT TIME ZONE 'UTC');
COMMENT ON VIEW cryptovolt.trading_strategies IS 'Strategies. COPY into public.strategies.';

CREATE OR REPLACE FUNCTION cryptovolt.write_trading_strategy()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id integer;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.strategies AS s WHERE s.strategy_id = OLD.strategy_id;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE public.strategies AS s
           SET strategy_id = NEW.strategy_id, user_id = _tidemark.numbered_user(NEW.user_id), name = NEW.name,
               description = NEW.description, parameters = NEW.parameters, is_active = NEW.is_active
         WHERE s.strategy_id = OLD.strategy_id;
    ELSE
        INSERT INTO public.strategies AS s (
            user_id, name, description, parameters, is_active, created_at
        )
        VALUES (
            _tidemark.numbered_user(NEW.user_id), NEW.name, NEW.description, NEW.parameters, NEW.is_active,
            NEW.created_at AT TIME ZONE 'UTC'
        )
        RETURNING s.strategy_id INTO v_id;
        IF NEW.strategy_id <> v_id THEN
            UPDATE public.strategies AS s SET strategy_id = NEW.strategy_id WHERE s.strategy_id = v_id;
        END IF;
        NEW.strategy_id := coalesce(NEW.strategy_id, v_id);
    END IF;
    SELECT v.* INTO NEW FROM cryptovolt.trading_strategies AS v WHERE v.strategy_id = NEW.strategy_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_trading_strategy() IS
'INSTEAD OF trigger: writes trading_strategies to public.strategies.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.trading_strategies
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_trading_strategy();
COMMENT ON TRIGGER trg_write ON cryptovolt.trading_strategies IS 'Writes through the view.';

CREATE OR REPLACE VIEW cryptovolt.market_data WITH (security_invoker = true) AS
SELECT c.id AS data_id,
       a.symbol,
       c.ts AT TIME ZONE 'UTC' AS timestamp,
       c.open AS open_price,
       c.high AS high_price,
       c.low AS low_price,
       c.close AS close_price,
       c.volume,
       s.provider AS source,
       c.ingested_at AT TIME ZONE 'UTC' AS created_at
  FROM public.candles AS c
  JOIN public.assets AS a ON a.asset_id = c.asset_id
  LEFT JOIN public.sources AS s ON s.source_id = c.source_id
 WHERE c.interval = cryptovolt.bar_interval();
COMMENT ON VIEW cryptovolt.market_data IS
'Bars of the length cryptovolt.bar_interval() by symbol; one stored again for its instant replaces the one there. '
'COPY into public.candles.';
COMMENT ON COLUMN cryptovolt.market_data.timestamp IS
'Start of the bar, in UTC without a zone. Search it together with the symbol: alone it reads all bars.';
COMMENT ON COLUMN cryptovolt.market_data.source IS
'Who delivered the bar; the source is created with the first bar of a symbol.';

CREATE OR REPLACE FUNCTION cryptovolt.write_market_data()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id bigint;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.candles AS c WHERE c.id = OLD.data_id AND c.ts = OLD.timestamp AT TIME ZONE 'UTC';
        RETURN OLD;
    END IF;
    IF NEW.symbol IS DISTINCT FROM OLD.symbol THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, p_otherwise => 'crypto');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.candles AS c
           SET id = NEW.data_id, asset_id = coalesce(v_asset_id, c.asset_id), ts = NEW.timestamp AT TIME ZONE 'UTC',
               open = NEW.open_price, high = NEW.high_price, low = NEW.low_price, close = NEW.close_price,
               volume = NEW.volume,
               source_id = CASE WHEN NEW.source IS NOT DISTINCT FROM OLD.source AND v_asset_id IS NULL
                   THEN c.source_id
                   ELSE _tidemark.find_or_create_source(NEW.source, coalesce(v_asset_id, c.asset_id), c.interval) END
         WHERE c.id = OLD.data_id AND c.ts = OLD.timestamp AT TIME ZONE 'UTC';
    ELSE
        INSERT INTO public.candles AS c (asset_id, interval, ts, open, high, low, close, volume, source_id)
        VALUES (
            v_asset_id, cryptovolt.bar_interval(),
            NEW.timestamp AT TIME ZONE 'UTC', NEW.open_price, NEW.high_price, NEW.low_price, NEW.close_price,
            NEW.volume, _tidemark.find_or_create_source(NEW.source, v_asset_id, cryptovolt.bar_interval())
        )
        ON CONFLICT (asset_id, interval, ts) DO UPDATE
           SET open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
               volume = EXCLUDED.volume, source_id = EXCLUDED.source_id
        RETURNING c.id, c.ingested_at AT TIME ZONE 'UTC' INTO v_id, NEW.created_at;
        IF NEW.data_id <> v_id THEN
            UPDATE public.candles AS c SET id = NEW.data_id
             WHERE c.id = v_id AND c.ts = NEW.timestamp AT TIME ZONE 'UTC';
        END IF;
        NEW.data_id := coalesce(NEW.data_id, v_id);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_market_data() IS 'INSTEAD OF trigger: writes market_data to public.candles.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.market_data
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_market_data();
COMMENT ON TRIGGER trg_write ON cryptovolt.market_data IS 'Writes through the view.';

CREATE OR REPLACE VIEW cryptovolt.sentiment_data WITH (security_invoker = true) AS
SELECT d.sentiment_id,
       a.symbol,
       d.source,
       d.text,
       d.sentiment_score,
       d.ts AT TIME ZONE 'UTC' AS timestamp,
       d.extra_data,
       d.ingested_at AT TIME ZONE 'UTC' AS created_at
  FROM public.sentiment_data AS d
  JOIN public.assets AS a ON a.asset_id = d.asset_id;
ALTER VIEW cryptovolt.sentiment_data ALTER COLUMN timestamp SET DEFAULT (now() AT TIME ZONE 'UTC');
ALTER VIEW cryptovolt.sentiment_data ALTER COLUMN extra_data SET DEFAULT '{}';
COMMENT ON VIEW cryptovolt.sentiment_data IS 'Texts and their sentiment by symbol. COPY into public.sentiment_data.';
COMMENT ON COLUMN cryptovolt.sentiment_data.timestamp IS
'When the text appeared, in UTC without a zone. Search it together with the symbol: alone it reads all texts.';

CREATE OR REPLACE FUNCTION cryptovolt.write_sentiment_data()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id bigint;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.sentiment_data AS d
         WHERE d.sentiment_id = OLD.sentiment_id AND d.ts = OLD.timestamp AT TIME ZONE 'UTC';
        RETURN OLD;
    END IF;
    IF NEW.symbol IS DISTINCT FROM OLD.symbol THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, p_otherwise => 'crypto');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.sentiment_data AS d
           SET sentiment_id = NEW.sentiment_id, asset_id = coalesce(v_asset_id, d.asset_id), source = NEW.source,
               text = NEW.text, sentiment_score = NEW.sentiment_score, ts = NEW.timestamp AT TIME ZONE 'UTC',
               extra_data = NEW.extra_data
         WHERE d.sentiment_id = OLD.sentiment_id AND d.ts = OLD.timestamp AT TIME ZONE 'UTC';
    ELSE
        INSERT INTO public.sentiment_data AS d (
            asset_id, source, text, sentiment_score, ts, extra_data
        )
        VALUES (
            v_asset_id, NEW.source,
            NEW.text, NEW.sentiment_score, NEW.timestamp AT TIME ZONE 'UTC', NEW.extra_data
        )
        RETURNING d.sentiment_id, d.ingested_at AT TIME ZONE 'UTC' INTO v_id, NEW.created_at;
        IF NEW.sentiment_id <> v_id THEN
            UPDATE public.sentiment_data AS d SET sentiment_id = NEW.sentiment_id
             WHERE d.sentiment_id = v_id AND d.ts = NEW.timestamp AT TIME ZONE 'UTC';
        END IF;
        NEW.sentiment_id := coalesce(NEW.sentiment_id, v_id);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_sentiment_data() IS
'INSTEAD OF trigger: writes sentiment_data to public.sentiment_data.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.sentiment_data
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_sentiment_data();
COMMENT ON TRIGGER trg_write ON cryptovolt.sentiment_data IS 'Writes through the view.';

CREATE OR REPLACE VIEW cryptovolt.signals WITH (security_invoker = true) AS
SELECT s.signal_id,
       s.strategy_id,
       s.model_id,
       a.symbol,
       upper(s.signal_type::text) AS signal_type,
       s.confidence,
       s.ts AT TIME ZONE 'UTC' AS timestamp,
       s.extra_data,
       s.created_at AT TIME ZONE 'UTC' AS created_at
  FROM public.signals AS s
  JOIN public.assets AS a ON a.asset_id = s.asset_id;
ALTER VIEW cryptovolt.signals ALTER COLUMN timestamp SET DEFAULT (now() AT TIME ZONE 'UTC');
ALTER VIEW cryptovolt.signals ALTER COLUMN extra_data SET DEFAULT '{}';
ALTER VIEW cryptovolt.signals ALTER COLUMN created_at SET DEFAULT (now() AT TIME ZONE 'UTC');
COMMENT ON VIEW cryptovolt.signals IS 'Signals by symbol. COPY into public.signals.';
COMMENT ON COLUMN cryptovolt.signals.signal_type IS 'BUY, SELL, HOLD, STRONG_BUY or STRONG_SELL.';

CREATE OR REPLACE FUNCTION cryptovolt.write_signal()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id bigint;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.signals AS s WHERE s.signal_id = OLD.signal_id;
        RETURN OLD;
    END IF;
    IF NEW.symbol IS DISTINCT FROM OLD.symbol THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, p_otherwise => 'crypto');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.signals AS s
           SET signal_id = NEW.signal_id, strategy_id = NEW.strategy_id, model_id = NEW.model_id,
               asset_id = coalesce(v_asset_id, s.asset_id), signal_type = lower(NEW.signal_type)::public.signal_type,
               confidence = NEW.confidence, ts = NEW.timestamp AT TIME ZONE 'UTC', extra_data = NEW.extra_data
         WHERE s.signal_id = OLD.signal_id;
    ELSE
        INSERT INTO public.signals AS s (
            strategy_id, model_id, asset_id, signal_type, confidence, ts, extra_data, created_at
        )
        VALUES (
            NEW.strategy_id, NEW.model_id,
            v_asset_id, lower(NEW.signal_type)::public.signal_type, NEW.confidence,
            NEW.timestamp AT TIME ZONE 'UTC', NEW.extra_data, NEW.created_at AT TIME ZONE 'UTC'
        )
        RETURNING s.signal_id INTO v_id;
        IF NEW.signal_id <> v_id THEN
            UPDATE public.signals AS s SET signal_id = NEW.signal_id WHERE s.signal_id = v_id;
        END IF;
        NEW.signal_id := coalesce(NEW.signal_id, v_id);
    END IF;
    SELECT v.* INTO NEW FROM cryptovolt.signals AS v WHERE v.signal_id = NEW.signal_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_signal() IS 'INSTEAD OF trigger: writes signals to public.signals.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.signals
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_signal();
COMMENT ON TRIGGER trg_write ON cryptovolt.signals IS 'Writes through the view.';

CREATE OR REPLACE VIEW cryptovolt.trades WITH (security_invoker = true) AS
SELECT t.trade_no AS trade_id,
       t.signal_id,
       a.symbol,
       upper(t.trade_type::text) AS trade_type,
       t.entry_price::double precision AS price,
       t.quantity::double precision AS quantity,
       upper(t.status::text) AS status,
       t.is_paper_trade,
       t.pnl::double precision AS pnl,
       t.entry_time AT TIME ZONE 'UTC' AS timestamp,
       t.created_at AT TIME ZONE 'UTC' AS created_at
  FROM public.trades AS t
  JOIN public.assets AS a ON a.asset_id = t.asset_id;
ALTER VIEW cryptovolt.trades ALTER COLUMN status SET DEFAULT 'PENDING';
ALTER VIEW cryptovolt.trades ALTER COLUMN is_paper_trade SET DEFAULT true;
ALTER VIEW cryptovolt.trades ALTER COLUMN timestamp SET DEFAULT (now() AT TIME ZONE 'UTC');
ALTER VIEW cryptovolt.trades ALTER COLUMN created_at SET DEFAULT (now() AT TIME ZONE 'UTC');
COMMENT ON VIEW cryptovolt.trades IS 'Trades, numbered, by symbol. COPY into public.trades.';
COMMENT ON COLUMN cryptovolt.trades.trade_type IS 'BUY, which opens a long trade, or SELL, a short one.';
COMMENT ON COLUMN cryptovolt.trades.status IS 'PENDING, EXECUTED, FAILED or CANCELLED.';

CREATE OR REPLACE FUNCTION cryptovolt.write_trade()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_no integer;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.trades AS t WHERE t.trade_no = OLD.trade_id;
        RETURN OLD;
    END IF;
    IF NEW.symbol IS DISTINCT FROM OLD.symbol THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, p_otherwise => 'crypto');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.trades AS t
           SET trade_no = NEW.trade_id, signal_id = NEW.signal_id, asset_id = coalesce(v_asset_id, t.asset_id),
               trade_type = lower(NEW.trade_type)::public.trade_type,
               direction = CASE WHEN NEW.trade_type = OLD.trade_type THEN t.direction
                                WHEN upper(NEW.trade_type) = 'SELL' THEN 'short' ELSE 'long' END,
               entry_price = NEW.price, quantity = NEW.quantity, status = lower(NEW.status)::public.trade_status,
               is_paper_trade = NEW.is_paper_trade, pnl = NEW.pnl, entry_time = NEW.timestamp AT TIME ZONE 'UTC'
         WHERE t.trade_no = OLD.trade_id;
    ELSE
        INSERT INTO public.trades AS t (
            user_id, signal_id, asset_id, trade_type, direction, entry_price, quantity, status, is_paper_trade, pnl,
            entry_time, created_at
        )
        VALUES (
            _tidemark.current_user_id(), NEW.signal_id, v_asset_id, lower(NEW.trade_type)::public.trade_type,
            CASE WHEN upper(NEW.trade_type) = 'SELL' THEN 'short' ELSE 'long' END::public.position_side, NEW.price,
            NEW.quantity, lower(NEW.status)::public.trade_status, NEW.is_paper_trade, NEW.pnl,
            NEW.timestamp AT TIME ZONE 'UTC', NEW.created_at AT TIME ZONE 'UTC'
        )
        RETURNING t.trade_no INTO v_no;
        IF NEW.trade_id <> v_no THEN
            UPDATE public.trades AS t SET trade_no = NEW.trade_id WHERE t.trade_no = v_no;
        END IF;
        NEW.trade_id := coalesce(NEW.trade_id, v_no);
    END IF;
    SELECT v.* INTO NEW FROM cryptovolt.trades AS v WHERE v.trade_id = NEW.trade_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_trade() IS 'INSTEAD OF trigger: writes trades to public.trades.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.trades
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_trade();
COMMENT ON TRIGGER trg_write ON cryptovolt.trades IS 'Writes through the view.';

-- A type of model that Tidemark has no name for is kept in parameters, and the model counts as other.
CREATE OR REPLACE VIEW cryptovolt.models WITH (security_invoker = true) AS
SELECT m.model_id,
       m.name,
       coalesce(m.parameters ->> 'model_type', m.model_type::text) AS model_type,
       m.version,
       m.accuracy,
       m.precision,
       m.recall,
       m.auc,
       m.trained_on AT TIME ZONE 'UTC' AS trained_on,
       m.extra_data,
       m.created_at AT TIME ZONE 'UTC' AS created_at
  FROM public.models AS m;
ALTER VIEW cryptovolt.models ALTER COLUMN version SET DEFAULT '1';
ALTER VIEW cryptovolt.models ALTER COLUMN extra_data SET DEFAULT '{}';
ALTER VIEW cryptovolt.models ALTER COLUMN created_at SET DEFAULT (now() AT TIME ZONE 'UTC');
COMMENT ON VIEW cryptovolt.models IS 'Models. COPY into public.models.';

CREATE OR REPLACE FUNCTION cryptovolt.write_model()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id integer;
    v_model_type public.model_type;
    v_parameters jsonb := '{}';
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.models AS m WHERE m.model_id = OLD.model_id;
        RETURN OLD;
    END IF;
    IF lower(NEW.model_type) = ANY (enum_range(NULL::public.model_type)::text[]) THEN
        v_model_type := lower(NEW.model_type);
    ELSIF NEW.model_type IS NOT NULL THEN
        v_model_type := 'other';
        v_parameters := jsonb_build_object('model_type', NEW.model_type);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.models AS m
           SET model_id = NEW.model_id, name = NEW.name, model_type = v_model_type, version = NEW.version,
               accuracy = NEW.accuracy, precision = NEW.precision, recall = NEW.recall, auc = NEW.auc,
               trained_on = NEW.trained_on AT TIME ZONE 'UTC', extra_data = NEW.extra_data,
               parameters = (m.parameters - 'model_type') || v_parameters
         WHERE m.model_id = OLD.model_id;
    ELSE
        INSERT INTO public.models AS m (
            name, model_type, version, accuracy, precision, recall, auc, trained_on, extra_data,
            created_at, parameters
        )
        VALUES (
            NEW.name, v_model_type, NEW.version,
            NEW.accuracy, NEW.precision, NEW.recall, NEW.auc, NEW.trained_on AT TIME ZONE 'UTC', NEW.extra_data,
            NEW.created_at AT TIME ZONE 'UTC', v_parameters
        )
        RETURNING m.model_id INTO v_id;
        IF NEW.model_id <> v_id THEN
            UPDATE public.models AS m SET model_id = NEW.model_id WHERE m.model_id = v_id;
        END IF;
        NEW.model_id := coalesce(NEW.model_id, v_id);
    END IF;
    SELECT v.* INTO NEW FROM cryptovolt.models AS v WHERE v.model_id = NEW.model_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_model() IS 'INSTEAD OF trigger: writes models to public.models.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.models
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_model();
COMMENT ON TRIGGER trg_write ON cryptovolt.models IS 'Writes through the view.';

CREATE OR REPLACE VIEW cryptovolt.alerts WITH (security_invoker = true) AS
SELECT n.notification_id AS alert_id,
       u.user_no AS user_id,
       upper(n.notification_type::text) AS alert_type,
       n.message,
       n.is_read,
       n.created_at AT TIME ZONE 'UTC' AS timestamp,
       n.created_at AT TIME ZONE 'UTC' AS created_at
  FROM public.notifications AS n
  LEFT JOIN public.users AS u ON u.user_id = n.user_id;
ALTER VIEW cryptovolt.alerts ALTER COLUMN is_read SET DEFAULT false;
COMMENT ON VIEW cryptovolt.alerts IS
'Messages for a user, or without one for all: what public.notifications holds. COPY into public.notifications.';
COMMENT ON COLUMN cryptovolt.alerts.alert_type IS 'SIGNAL, TRADE, SYSTEM or ALERT.';
COMMENT ON COLUMN cryptovolt.alerts.timestamp IS 'When the message was stored, in UTC without a zone, as created_at.';

CREATE OR REPLACE FUNCTION cryptovolt.write_alert()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id bigint;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.notifications AS n WHERE n.notification_id = OLD.alert_id;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE public.notifications AS n
           SET notification_id = NEW.alert_id, user_id = _tidemark.numbered_user(NEW.user_id),
               notification_type = lower(NEW.alert_type)::public.notification_type, message = NEW.message,
               is_read = NEW.is_read
         WHERE n.notification_id = OLD.alert_id;
    ELSE
        INSERT INTO public.notifications AS n (
            user_id, notification_type, message, is_read, created_at
        )
        VALUES (
            _tidemark.numbered_user(NEW.user_id), lower(NEW.alert_type)::public.notification_type, NEW.message,
            NEW.is_read, coalesce(coalesce(NEW.timestamp, NEW.created_at) AT TIME ZONE 'UTC', now())
        )
        RETURNING n.notification_id INTO v_id;
        IF NEW.alert_id <> v_id THEN
            UPDATE public.notifications AS n SET notification_id = NEW.alert_id WHERE n.notification_id = v_id;
        END IF;
        NEW.alert_id := coalesce(NEW.alert_id, v_id);
    END IF;
    SELECT v.* INTO NEW FROM cryptovolt.alerts AS v WHERE v.alert_id = NEW.alert_id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_alert() IS 'INSTEAD OF trigger: writes alerts to public.notifications.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.alerts
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_alert();
COMMENT ON TRIGGER trg_write ON cryptovolt.alerts IS 'Writes through the view.';
