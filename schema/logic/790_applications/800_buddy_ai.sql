-- Buddy AI: search_path = buddy_ai, public. Its keys are integers, its enumerations upper-case, its assets symbols in
-- one of three markets.

CREATE OR REPLACE FUNCTION buddy_ai.create_hypertable(
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
COMMENT ON FUNCTION buddy_ai.create_hypertable(regclass, name, interval, boolean, boolean) IS
'create_hypertable for tables that are hypertables already, as ohlcv_data and market_data are.';

CREATE OR REPLACE VIEW buddy_ai.users WITH (security_invoker = true) AS
SELECT u.user_no AS id,
       u.email,
       u.username,
       u.password_hash AS hashed_password,
       u.full_name,
       upper(u.role::text) AS role,
       u.is_active,
       u.is_verified,
       u.preferred_currency,
       u.preferred_theme,
       u.enable_notifications,
       u.created_at,
       u.updated_at,
       u.last_login
  FROM public.users AS u;
ALTER VIEW buddy_ai.users ALTER COLUMN role SET DEFAULT 'USER';
ALTER VIEW buddy_ai.users ALTER COLUMN is_active SET DEFAULT true;
ALTER VIEW buddy_ai.users ALTER COLUMN is_verified SET DEFAULT false;
ALTER VIEW buddy_ai.users ALTER COLUMN preferred_currency SET DEFAULT 'USD';
ALTER VIEW buddy_ai.users ALTER COLUMN preferred_theme SET DEFAULT 'system';
ALTER VIEW buddy_ai.users ALTER COLUMN enable_notifications SET DEFAULT true;
ALTER VIEW buddy_ai.users ALTER COLUMN created_at SET DEFAULT now();
COMMENT ON VIEW buddy_ai.users IS 'Accounts, numbered. COPY into public.users.';
COMMENT ON COLUMN buddy_ai.users.role IS 'USER, PREMIUM or ADMIN.';

CREATE OR REPLACE FUNCTION buddy_ai.write_user()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_no integer;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.users AS u WHERE u.user_no = OLD.id;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE public.users AS u
           SET email = NEW.email, username = NEW.username, password_hash = NEW.hashed_password,
               full_name = NEW.full_name, is_active = NEW.is_active, is_verified = NEW.is_verified,
               preferred_currency = NEW.preferred_currency, preferred_theme = NEW.preferred_theme,
               enable_notifications = NEW.enable_notifications, last_login = NEW.last_login
         WHERE u.user_no = OLD.id
        RETURNING u.user_no INTO v_no;
    ELSE
        INSERT INTO public.users AS u (
            email, username, password_hash, full_name, is_active, is_verified, preferred_currency, preferred_theme,
            enable_notifications, created_at, last_login
        )
        VALUES (
            NEW.email, NEW.username, NEW.hashed_password, NEW.full_name, NEW.is_active, NEW.is_verified,
            NEW.preferred_currency, NEW.preferred_theme, NEW.enable_notifications, NEW.created_at, NEW.last_login
        )
        RETURNING u.user_no INTO v_no;
    END IF;
    NEW.id := coalesce(NEW.id, v_no);
    -- Numbers and roles are not every application's to give, so they are named only where they differ.
    IF NEW.id <> v_no OR upper(NEW.role) <> coalesce(OLD.role, 'USER') THEN
        UPDATE public.users AS u
           SET user_no = NEW.id, role = lower(NEW.role)::public.user_role
         WHERE u.user_no = v_no;
    END IF;
    SELECT v.* INTO NEW FROM buddy_ai.users AS v WHERE v.id = NEW.id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_user() IS 'INSTEAD OF trigger: writes Buddy AI''s users to public.users.';

-- STOCK stands for everything listed: shares, funds, indices, commodities.
CREATE OR REPLACE VIEW buddy_ai.market_data WITH (security_invoker = true) AS
SELECT q.id,
       a.symbol,
       CASE WHEN a.asset_type IN ('forex', 'crypto') THEN upper(a.asset_type::text) ELSE 'STOCK' END AS market,
       q.price,
       q.open_price,
       q.high,
       q.low,
       q.close,
       q.volume,
       q.change_24h,
       q.change_percent_24h,
       q.ts AS timestamp
  FROM public.quotes AS q
  JOIN public.assets AS a ON a.asset_id = q.asset_id;
ALTER VIEW buddy_ai.market_data ALTER COLUMN timestamp SET DEFAULT now();
COMMENT ON VIEW buddy_ai.market_data IS
'Quotes by symbol; one stored again for its instant replaces the one there. COPY into public.quotes.';

CREATE OR REPLACE FUNCTION buddy_ai.write_market_data()
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
        DELETE FROM public.quotes AS q WHERE q.id = OLD.id AND q.ts = OLD.timestamp;
        RETURN OLD;
    END IF;
    IF (NEW.symbol, NEW.market) IS DISTINCT FROM (OLD.symbol, OLD.market) THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, lower(NEW.market)::public.asset_type);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.quotes AS q
           SET id = NEW.id, asset_id = coalesce(v_asset_id, q.asset_id), ts = NEW.timestamp, price = NEW.price,
               open_price = NEW.open_price, high = NEW.high, low = NEW.low, close = NEW.close,
               volume = NEW.volume, change_24h = NEW.change_24h, change_percent_24h = NEW.change_percent_24h
         WHERE q.id = OLD.id AND q.ts = OLD.timestamp;
    ELSE
        INSERT INTO public.quotes AS q (
            asset_id, ts, price, open_price, high, low, close, volume, change_24h, change_percent_24h
        )
        VALUES (
            v_asset_id, NEW.timestamp, NEW.price, NEW.open_price, NEW.high, NEW.low, NEW.close, NEW.volume,
            NEW.change_24h, NEW.change_percent_24h
        )
        ON CONFLICT (asset_id, ts) DO UPDATE
           SET price = EXCLUDED.price, open_price = EXCLUDED.open_price, high = EXCLUDED.high, low = EXCLUDED.low,
               close = EXCLUDED.close, volume = EXCLUDED.volume, change_24h = EXCLUDED.change_24h,
               change_percent_24h = EXCLUDED.change_percent_24h
        RETURNING q.id INTO v_id;
        IF NEW.id <> v_id THEN
            UPDATE public.quotes AS q SET id = NEW.id WHERE q.id = v_id AND q.ts = NEW.timestamp;
        END IF;
        NEW.id := coalesce(NEW.id, v_id);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_market_data() IS
'INSTEAD OF trigger: writes Buddy AI''s market_data to public.quotes.';

-- The lengths of bars are joined as a list so that a search for one as text still finds its way into the primary key.
CREATE OR REPLACE VIEW buddy_ai.ohlcv_data WITH (security_invoker = true) AS
SELECT c.id,
       a.symbol,
       CASE WHEN a.asset_type IN ('forex', 'crypto') THEN upper(a.asset_type::text) ELSE 'STOCK' END AS market,
       i.interval::text AS timeframe,
       c.ts AS timestamp,
       c.open,
       c.high,
       c.low,
       c.close,
       c.volume
  FROM public.candles AS c
  JOIN public.assets AS a ON a.asset_id = c.asset_id
  JOIN unnest(enum_range(NULL::public.candle_interval)) AS i (interval) ON i.interval = c.interval;
COMMENT ON VIEW buddy_ai.ohlcv_data IS 'Bars by symbol. COPY into public.candles.';

CREATE OR REPLACE FUNCTION buddy_ai.write_ohlcv_data()
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
        DELETE FROM public.candles AS c WHERE c.id = OLD.id AND c.ts = OLD.timestamp;
        RETURN OLD;
    END IF;
    IF (NEW.symbol, NEW.market) IS DISTINCT FROM (OLD.symbol, OLD.market) THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, lower(NEW.market)::public.asset_type);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.candles AS c
           SET id = NEW.id, asset_id = coalesce(v_asset_id, c.asset_id),
               interval = NEW.timeframe::public.candle_interval, ts = NEW.timestamp, open = NEW.open,
               high = NEW.high, low = NEW.low, close = NEW.close, volume = NEW.volume
         WHERE c.id = OLD.id AND c.ts = OLD.timestamp;
    ELSE
        INSERT INTO public.candles AS c (asset_id, interval, ts, open, high, low, close, volume)
        VALUES (
            v_asset_id, NEW.timeframe::public.candle_interval,
            NEW.timestamp, NEW.open, NEW.high, NEW.low, NEW.close, NEW.volume
        )
        RETURNING c.id INTO v_id;
        IF NEW.id <> v_id THEN
            UPDATE public.candles AS c SET id = NEW.id WHERE c.id = v_id AND c.ts = NEW.timestamp;
        END IF;
        NEW.id := coalesce(NEW.id, v_id);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_ohlcv_data() IS
'INSTEAD OF trigger: writes Buddy AI''s ohlcv_data to public.candles; a bar that is there already is 23505.';

CREATE OR REPLACE VIEW buddy_ai.predictions WITH (security_invoker = true) AS
SELECT p.prediction_no AS id,
       u.user_no AS user_id,
       a.symbol,
       CASE WHEN a.asset_type IN ('forex', 'crypto') THEN upper(a.asset_type::text) ELSE 'STOCK' END AS market,
       upper(p.model_type::text) AS model,
       p.current_price::double precision AS current_price,
       p.predicted_price::double precision AS predicted_price,
       upper(p.direction::text) AS direction,
       p.confidence,
       p.target_price::double precision AS target_price,
       p.stop_loss::double precision AS stop_loss,
       p.take_profit::double precision AS take_profit,
       p.interval::text AS timeframe,
       p.horizon_hours,
       p.features_used,
       p.model_version,
       p.actual_price::double precision AS actual_price,
       p.accuracy_score,
       p.created_at,
       p.prediction_for,
       p.evaluated_at
  FROM public.predictions AS p
  JOIN public.assets AS a ON a.asset_id = p.asset_id
  LEFT JOIN public.users AS u ON u.user_id = p.user_id;
ALTER VIEW buddy_ai.predictions ALTER COLUMN features_used SET DEFAULT '[]';
ALTER VIEW buddy_ai.predictions ALTER COLUMN created_at SET DEFAULT now();
COMMENT ON VIEW buddy_ai.predictions IS 'Predictions, numbered, by symbol. COPY into public.predictions.';
COMMENT ON COLUMN buddy_ai.predictions.model IS 'TFT, LSTM, ENSEMBLE, PROPHET, MULTIMODAL, XGBOOST or OTHER.';
COMMENT ON COLUMN buddy_ai.predictions.direction IS 'BUY, SELL, HOLD, STRONG_BUY or STRONG_SELL.';
COMMENT ON COLUMN buddy_ai.predictions.prediction_for IS
'Instant foretold; where it is not given, created_at and horizon_hours.';

CREATE OR REPLACE FUNCTION buddy_ai.write_prediction()
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
        DELETE FROM public.predictions AS p WHERE p.prediction_no = OLD.id;
        RETURN OLD;
    END IF;
    IF (NEW.symbol, NEW.market) IS DISTINCT FROM (OLD.symbol, OLD.market) THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, lower(NEW.market)::public.asset_type);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.predictions AS p
           SET prediction_no = NEW.id, user_id = _tidemark.numbered_user(NEW.user_id),
               asset_id = coalesce(v_asset_id, p.asset_id),
               model_type = lower(NEW.model)::public.model_type, current_price = NEW.current_price,
               predicted_price = NEW.predicted_price, direction = lower(NEW.direction)::public.signal_type,
               confidence = NEW.confidence, target_price = NEW.target_price, stop_loss = NEW.stop_loss,
               take_profit = NEW.take_profit, interval = NEW.timeframe::public.candle_interval,
               horizon_hours = NEW.horizon_hours, features_used = NEW.features_used,
               model_version = NEW.model_version, actual_price = NEW.actual_price,
               accuracy_score = NEW.accuracy_score, prediction_for = NEW.prediction_for,
               evaluated_at = NEW.evaluated_at
         WHERE p.prediction_no = OLD.id;
    ELSE
        INSERT INTO public.predictions AS p (
            user_id, asset_id, model_type, current_price, predicted_price, direction, confidence,
            target_price, stop_loss, take_profit, interval, horizon_hours, features_used, model_version,
            actual_price, accuracy_score, created_at, prediction_for, evaluated_at
        )
        VALUES (
            _tidemark.numbered_user(NEW.user_id),
            v_asset_id, lower(NEW.model)::public.model_type, NEW.current_price, NEW.predicted_price,
            lower(NEW.direction)::public.signal_type, NEW.confidence, NEW.target_price, NEW.stop_loss,
            NEW.take_profit, NEW.timeframe::public.candle_interval, NEW.horizon_hours, NEW.features_used,
            NEW.model_version, NEW.actual_price, NEW.accuracy_score, NEW.created_at,
            coalesce(NEW.prediction_for, NEW.created_at + make_interval(hours => NEW.horizon_hours)),
            NEW.evaluated_at
        )
        RETURNING p.prediction_no INTO v_no;
        IF NEW.id <> v_no THEN
            UPDATE public.predictions AS p SET prediction_no = NEW.id WHERE p.prediction_no = v_no;
        END IF;
        NEW.id := coalesce(NEW.id, v_no);
    END IF;
    SELECT v.* INTO NEW FROM buddy_ai.predictions AS v WHERE v.id = NEW.id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_prediction() IS
'INSTEAD OF trigger: writes Buddy AI''s predictions to public.predictions.';

CREATE OR REPLACE VIEW buddy_ai.watchlists WITH (security_invoker = true) AS
SELECT i.item_no AS id,
       u.user_no AS user_id,
       a.symbol,
       CASE WHEN a.asset_type IN ('forex', 'crypto') THEN upper(a.asset_type::text) ELSE 'STOCK' END AS market,
       i.notes,
       i.created_at
  FROM public.watchlist_items AS i
  JOIN public.watchlists AS w ON w.watchlist_id = i.watchlist_id
  JOIN public.users AS u ON u.user_id = w.user_id
  JOIN public.assets AS a ON a.asset_id = i.asset_id;
ALTER VIEW buddy_ai.watchlists ALTER COLUMN created_at SET DEFAULT now();
COMMENT ON VIEW buddy_ai.watchlists IS
'What each user follows, over all lists; new symbols go on the default list, which is created where there is none. '
'COPY into public.watchlist_items.';

CREATE OR REPLACE FUNCTION buddy_ai.write_watchlist()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_no integer;
    v_asset_id uuid;
    v_user_id uuid;
    v_watchlist_id uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.watchlist_items AS i WHERE i.item_no = OLD.id;
        RETURN OLD;
    END IF;
    IF (NEW.symbol, NEW.market) IS DISTINCT FROM (OLD.symbol, OLD.market) THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, lower(NEW.market)::public.asset_type);
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.user_id = OLD.user_id THEN
        UPDATE public.watchlist_items AS i
           SET item_no = NEW.id, asset_id = coalesce(v_asset_id, i.asset_id), notes = NEW.notes
         WHERE i.item_no = OLD.id;
        RETURN NEW;
    END IF;
    v_user_id := _tidemark.numbered_user(NEW.user_id);
    INSERT INTO public.watchlists (user_id, name, is_default) VALUES (v_user_id, 'Default', true)
    ON CONFLICT DO NOTHING; -- there is a default list, or one of that name
    SELECT w.watchlist_id INTO v_watchlist_id
      FROM public.watchlists AS w
     WHERE w.user_id = v_user_id AND (w.is_default OR w.name = 'Default')
     ORDER BY w.is_default DESC
     LIMIT 1;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.watchlist_items AS i
           SET item_no = NEW.id, watchlist_id = v_watchlist_id,
               asset_id = coalesce(v_asset_id, i.asset_id), notes = NEW.notes
         WHERE i.item_no = OLD.id;
    ELSE
        INSERT INTO public.watchlist_items AS i (watchlist_id, asset_id, notes, created_at)
        VALUES (
            v_watchlist_id, v_asset_id, NEW.notes,
            NEW.created_at
        )
        RETURNING i.item_no INTO v_no;
        IF NEW.id <> v_no THEN
            UPDATE public.watchlist_items AS i SET item_no = NEW.id WHERE i.item_no = v_no;
        END IF;
        NEW.id := coalesce(NEW.id, v_no);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_watchlist() IS
'INSTEAD OF trigger: writes Buddy AI''s watchlists to public.watchlist_items, on the user''s default list.';

CREATE OR REPLACE VIEW buddy_ai.alerts WITH (security_invoker = true) AS
SELECT l.alert_id AS id,
       u.user_no AS user_id,
       a.symbol,
       l.alert_type::text AS alert_type,
       l.condition::text AS condition,
       l.target_value::double precision AS target_value,
       l.is_active,
       l.is_triggered,
       l.message,
       l.created_at,
       l.triggered_at
  FROM public.alerts AS l
  JOIN public.users AS u ON u.user_id = l.user_id
  JOIN public.assets AS a ON a.asset_id = l.asset_id;
ALTER VIEW buddy_ai.alerts ALTER COLUMN alert_type SET DEFAULT 'price';
ALTER VIEW buddy_ai.alerts ALTER COLUMN is_active SET DEFAULT true;
ALTER VIEW buddy_ai.alerts ALTER COLUMN is_triggered SET DEFAULT false;
ALTER VIEW buddy_ai.alerts ALTER COLUMN created_at SET DEFAULT now();
COMMENT ON VIEW buddy_ai.alerts IS 'Alerts by symbol, of whatever market. COPY into public.alerts.';

CREATE OR REPLACE FUNCTION buddy_ai.write_alert()
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
        DELETE FROM public.alerts AS l WHERE l.alert_id = OLD.id;
        RETURN OLD;
    END IF;
    IF NEW.symbol IS DISTINCT FROM OLD.symbol THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol);
    END IF;
    NEW.triggered_at := CASE WHEN NEW.is_triggered THEN coalesce(NEW.triggered_at, now()) END;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.alerts AS l
           SET alert_id = NEW.id, user_id = _tidemark.numbered_user(NEW.user_id),
               asset_id = coalesce(v_asset_id, l.asset_id),
               alert_type = NEW.alert_type::public.alert_type, condition = NEW.condition::public.alert_condition,
               target_value = NEW.target_value, is_active = NEW.is_active, is_triggered = NEW.is_triggered,
               message = NEW.message, triggered_at = NEW.triggered_at
         WHERE l.alert_id = OLD.id;
    ELSE
        INSERT INTO public.alerts AS l (
            user_id, asset_id, alert_type, condition, target_value, is_active, is_triggered, message,
            created_at, triggered_at
        )
        VALUES (
            _tidemark.numbered_user(NEW.user_id),
            v_asset_id, NEW.alert_type::public.alert_type, NEW.condition::public.alert_condition, NEW.target_value,
            NEW.is_active, NEW.is_triggered, NEW.message, NEW.created_at, NEW.triggered_at
        )
        RETURNING l.alert_id INTO v_id;
        IF NEW.id <> v_id THEN
            UPDATE public.alerts AS l SET alert_id = NEW.id WHERE l.alert_id = v_id;
        END IF;
        NEW.id := coalesce(NEW.id, v_id);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_alert() IS 'INSTEAD OF trigger: writes Buddy AI''s alerts to public.alerts.';

CREATE OR REPLACE VIEW buddy_ai.positions WITH (security_invoker = true) AS
SELECT p.position_id AS id,
       u.user_no AS user_id,
       a.symbol,
       CASE WHEN a.asset_type IN ('forex', 'crypto') THEN upper(a.asset_type::text) ELSE 'STOCK' END AS market,
       p.side::text AS side,
       p.entry_price::double precision AS entry_price,
       p.current_price::double precision AS current_price,
       p.exit_price::double precision AS exit_price,
       p.quantity::double precision AS quantity,
       p.pnl::double precision AS pnl,
       p.pnl_percent::double precision AS pnl_percent,
       p.is_open,
       p.opened_at,
       p.closed_at
  FROM public.positions AS p
  JOIN public.users AS u ON u.user_id = p.user_id
  JOIN public.assets AS a ON a.asset_id = p.asset_id;
ALTER VIEW buddy_ai.positions ALTER COLUMN is_open SET DEFAULT true;
ALTER VIEW buddy_ai.positions ALTER COLUMN opened_at SET DEFAULT now();
COMMENT ON VIEW buddy_ai.positions IS
'Positions by symbol. pnl and pnl_percent are computed: what is written to them is left aside. A position closed '
'without an exit price or an instant gets the current price and now. COPY into public.positions.';

CREATE OR REPLACE FUNCTION buddy_ai.write_position()
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
        DELETE FROM public.positions AS p WHERE p.position_id = OLD.id;
        RETURN OLD;
    END IF;
    IF (NEW.symbol, NEW.market) IS DISTINCT FROM (OLD.symbol, OLD.market) THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, lower(NEW.market)::public.asset_type);
    END IF;
    IF NOT NEW.is_open THEN
        NEW.exit_price := coalesce(NEW.exit_price, NEW.current_price);
        NEW.closed_at := coalesce(NEW.closed_at, now());
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.positions AS p
           SET position_id = NEW.id, user_id = _tidemark.numbered_user(NEW.user_id),
               asset_id = coalesce(v_asset_id, p.asset_id),
               side = lower(NEW.side)::public.position_side, entry_price = NEW.entry_price,
               current_price = NEW.current_price, exit_price = NEW.exit_price, quantity = NEW.quantity,
               is_open = NEW.is_open, opened_at = NEW.opened_at, closed_at = NEW.closed_at
         WHERE p.position_id = OLD.id;
    ELSE
        INSERT INTO public.positions AS p (
            user_id, asset_id, side, entry_price, current_price, exit_price, quantity, is_open,
            opened_at, closed_at
        )
        VALUES (
            _tidemark.numbered_user(NEW.user_id),
            v_asset_id, lower(NEW.side)::public.position_side, NEW.entry_price, NEW.current_price, NEW.exit_price,
            NEW.quantity, NEW.is_open, NEW.opened_at, NEW.closed_at
        )
        RETURNING p.position_id INTO v_id;
        IF NEW.id <> v_id THEN
            UPDATE public.positions AS p SET position_id = NEW.id WHERE p.position_id = v_id;
        END IF;
        NEW.id := coalesce(NEW.id, v_id);
    END IF;
    SELECT v.* INTO NEW FROM buddy_ai.positions AS v WHERE v.id = NEW.id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_position() IS
'INSTEAD OF trigger: writes Buddy AI''s positions to public.positions.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.users
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_user();
COMMENT ON TRIGGER trg_write ON buddy_ai.users IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.market_data
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_market_data();
COMMENT ON TRIGGER trg_write ON buddy_ai.market_data IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.ohlcv_data
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_ohlcv_data();
COMMENT ON TRIGGER trg_write ON buddy_ai.ohlcv_data IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.predictions
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_prediction();
COMMENT ON TRIGGER trg_write ON buddy_ai.predictions IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.watchlists
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_watchlist();
COMMENT ON TRIGGER trg_write ON buddy_ai.watchlists IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.alerts
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_alert();
COMMENT ON TRIGGER trg_write ON buddy_ai.alerts IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.positions
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_position();
COMMENT ON TRIGGER trg_write ON buddy_ai.positions IS 'Writes through the view.';
