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
       u.app_role AS role,
       u.is_active,
       u.is_verified,
       u.preferred_currency,
       u.preferred_theme,
       u.enable_notifications,
       u.created_at,
       u.updated_at,
       u.last_login
  FROM public.users AS u;
COMMENT ON VIEW buddy_ai.users IS 'Accounts, numbered. COPY into public.users.';
COMMENT ON COLUMN buddy_ai.users.role IS 'USER, PREMIUM or ADMIN.';

-- STOCK stands for everything listed: shares, funds, indices, commodities.
CREATE OR REPLACE VIEW buddy_ai.market_data WITH (security_invoker = true) AS
SELECT q.id,
       a.symbol,
       _tidemark.market_of(a.asset_type) AS market,
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
    v_quote public.quotes;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'INSERT' THEN
        v_quote.asset_id := _tidemark.arriving_asset(NEW.symbol, _tidemark.asset_class(NEW.market));
        v_quote.ts := coalesce(NEW.timestamp, now());
        v_quote.price := NEW.price;
        v_quote.open_price := NEW.open_price;
        v_quote.high := NEW.high;
        v_quote.low := NEW.low;
        v_quote.close := NEW.close;
        v_quote.volume := NEW.volume;
        v_quote.change_24h := NEW.change_24h;
        v_quote.change_percent_24h := NEW.change_percent_24h;
        v_quote.id := NEW.id;
        NEW.id := _tidemark.take_quote(v_quote);
        NEW.timestamp := v_quote.ts;
        RETURN CASE WHEN NEW.id IS NOT NULL THEN NEW END;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF (NEW.symbol, NEW.market) IS DISTINCT FROM (OLD.symbol, OLD.market) THEN
            v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, _tidemark.asset_class(NEW.market));
        END IF;
        UPDATE public.quotes AS q
           SET id = NEW.id, asset_id = coalesce(v_asset_id, q.asset_id), ts = NEW.timestamp, price = NEW.price,
               open_price = NEW.open_price, high = NEW.high, low = NEW.low, close = NEW.close,
               volume = NEW.volume, change_24h = NEW.change_24h, change_percent_24h = NEW.change_percent_24h
         WHERE q.id = OLD.id AND q.ts = OLD.timestamp
           AND (q.price, q.open_price, q.high, q.low, q.close, q.volume, q.change_24h, q.change_percent_24h)
               IS NOT DISTINCT FROM
               (OLD.price, OLD.open_price, OLD.high, OLD.low, OLD.close, OLD.volume, OLD.change_24h,
                OLD.change_percent_24h);
    ELSE
        DELETE FROM public.quotes AS q
         WHERE q.id = OLD.id AND q.ts = OLD.timestamp
           AND (q.price, q.open_price, q.high, q.low, q.close, q.volume, q.change_24h, q.change_percent_24h)
               IS NOT DISTINCT FROM
               (OLD.price, OLD.open_price, OLD.high, OLD.low, OLD.close, OLD.volume, OLD.change_24h,
                OLD.change_percent_24h);
    END IF;
    IF NOT FOUND THEN
        PERFORM _tidemark.raise_if_there(EXISTS (
            SELECT FROM public.quotes AS q WHERE q.id = OLD.id AND q.ts = OLD.timestamp
        ));
        RETURN NULL;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_market_data() IS 'INSTEAD OF trigger: writes market_data to public.quotes.';

-- The lengths of bars are joined as a list so that a search for one as text still finds its way into the primary key.
CREATE OR REPLACE VIEW buddy_ai.ohlcv_data WITH (security_invoker = true) AS
SELECT c.id,
       a.symbol,
       _tidemark.market_of(a.asset_type) AS market,
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
    v_bar public.candles;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'INSERT' THEN
        v_bar.asset_id := _tidemark.arriving_asset(NEW.symbol, _tidemark.asset_class(NEW.market));
        v_bar.interval := NEW.timeframe::public.candle_interval;
        v_bar.ts := NEW.timestamp;
        v_bar.open := NEW.open;
        v_bar.high := NEW.high;
        v_bar.low := NEW.low;
        v_bar.close := NEW.close;
        v_bar.volume := NEW.volume;
        v_bar.id := NEW.id;
        NEW.id := _tidemark.take_bar(v_bar);
        RETURN CASE WHEN NEW.id IS NOT NULL THEN NEW END;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF (NEW.symbol, NEW.market) IS DISTINCT FROM (OLD.symbol, OLD.market) THEN
            v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, _tidemark.asset_class(NEW.market));
        END IF;
        UPDATE public.candles AS c
           SET id = NEW.id, asset_id = coalesce(v_asset_id, c.asset_id),
               interval = NEW.timeframe::public.candle_interval, ts = NEW.timestamp, open = NEW.open,
               high = NEW.high, low = NEW.low, close = NEW.close, volume = NEW.volume
         WHERE c.id = OLD.id AND c.ts = OLD.timestamp
           AND (c.open, c.high, c.low, c.close, c.volume)
               IS NOT DISTINCT FROM (OLD.open, OLD.high, OLD.low, OLD.close, OLD.volume);
    ELSE
        DELETE FROM public.candles AS c
         WHERE c.id = OLD.id AND c.ts = OLD.timestamp
           AND (c.open, c.high, c.low, c.close, c.volume)
               IS NOT DISTINCT FROM (OLD.open, OLD.high, OLD.low, OLD.close, OLD.volume);
    END IF;
    IF NOT FOUND THEN
        PERFORM _tidemark.raise_if_there(EXISTS (
            SELECT FROM public.candles AS c WHERE c.id = OLD.id AND c.ts = OLD.timestamp
        ));
        RETURN NULL;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$func$;
COMMENT ON FUNCTION buddy_ai.write_ohlcv_data() IS
'INSTEAD OF trigger: writes ohlcv_data to public.candles; a bar that is there already is 23505.';

-- ohlcv_data refuses a bar that is there already, and a view takes no ON CONFLICT … DO UPDATE: this does, for as many
-- bars as the arrays have. Returns how many it stored.
CREATE OR REPLACE FUNCTION buddy_ai.upsert_ohlcv_data(
    symbol text[], -- named as the columns are, because callers know those
    market text[],
    timeframe text[],
    "timestamp" timestamptz[],
    open double precision[] DEFAULT NULL,
    high double precision[] DEFAULT NULL,
    low double precision[] DEFAULT NULL,
    close double precision[] DEFAULT NULL,
    volume double precision[] DEFAULT NULL
)
    RETURNS bigint
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH asset AS MATERIALIZED (
        SELECT n.symbol, n.market,
               _tidemark.find_or_create_asset(n.symbol, _tidemark.asset_class(n.market)) AS asset_id
          FROM (SELECT DISTINCT u.symbol, u.market FROM unnest($1, $2) AS u (symbol, market)) AS n
    )
    SELECT _tidemark.upsert_bars(
               (SELECT array_agg(a.asset_id ORDER BY u.place)
                  FROM unnest($1, $2) WITH ORDINALITY AS u (symbol, market, place)
                  JOIN asset AS a ON (a.symbol, a.market) = (u.symbol, u.market)),
               $3::public.candle_interval[], $4, $5, $6, $7, $8, $9
           );
$func$;
COMMENT ON FUNCTION buddy_ai.upsert_ohlcv_data(
    text [], text [], text [], timestamptz [], double precision [], double precision [], double precision [],
    double precision [], double precision []
) IS
'INSERT INTO ohlcv_data … ON CONFLICT (symbol, market, timeframe, timestamp) DO UPDATE, from arrays; returns how many.';

CREATE OR REPLACE VIEW buddy_ai.predictions WITH (security_invoker = true) AS
SELECT p.prediction_no AS id,
       p.app_user_id AS user_id,
       p.app_symbol AS symbol,
       p.app_market AS market,
       p.app_model_type AS model,
       p.app_current_price AS current_price,
       p.app_predicted_price AS predicted_price,
       p.app_direction AS direction,
       p.confidence,
       p.app_target_price AS target_price,
       p.app_stop_loss AS stop_loss,
       p.app_take_profit AS take_profit,
       p.app_interval AS timeframe,
       p.horizon_hours,
       p.features_used,
       p.model_version,
       p.app_actual_price AS actual_price,
       p.accuracy_score,
       p.created_at,
       p.prediction_for,
       p.evaluated_at
  FROM public.predictions AS p;
COMMENT ON VIEW buddy_ai.predictions IS 'Predictions, numbered, by symbol. COPY into public.predictions.';
COMMENT ON COLUMN buddy_ai.predictions.model IS 'TFT, LSTM, ENSEMBLE, PROPHET, MULTIMODAL, XGBOOST or OTHER.';
COMMENT ON COLUMN buddy_ai.predictions.direction IS 'BUY, SELL, HOLD, STRONG_BUY or STRONG_SELL.';
COMMENT ON COLUMN buddy_ai.predictions.prediction_for IS
'Instant foretold; where it is not given, created_at and horizon_hours.';

CREATE OR REPLACE VIEW buddy_ai.watchlists WITH (security_invoker = true) AS
SELECT i.item_no AS id,
       i.app_user_id AS user_id,
       i.app_symbol AS symbol,
       i.app_market AS market,
       i.notes,
       i.created_at
  FROM public.watchlist_items AS i;
COMMENT ON VIEW buddy_ai.watchlists IS
'What each user follows, over all lists; new symbols go on the default list, which is created where there is none. '
'COPY into public.watchlist_items.';

CREATE OR REPLACE VIEW buddy_ai.alerts WITH (security_invoker = true) AS
SELECT l.alert_id AS id,
       l.app_user_id AS user_id,
       l.app_symbol AS symbol,
       l.app_alert_type AS alert_type,
       l.app_condition AS condition,
       l.app_target_value AS target_value,
       l.is_active,
       l.is_triggered,
       l.message,
       l.created_at,
       l.triggered_at
  FROM public.alerts AS l;
COMMENT ON VIEW buddy_ai.alerts IS 'Alerts by symbol, of whatever market. COPY into public.alerts.';

CREATE OR REPLACE VIEW buddy_ai.positions WITH (security_invoker = true) AS
SELECT p.position_id AS id,
       p.app_user_id AS user_id,
       p.app_symbol AS symbol,
       p.app_market AS market,
       p.app_side AS side,
       p.app_entry_price AS entry_price,
       p.app_current_price AS current_price,
       p.app_exit_price AS exit_price,
       p.app_quantity AS quantity,
       p.app_pnl AS pnl,
       p.app_pnl_percent AS pnl_percent,
       p.is_open,
       p.opened_at,
       p.closed_at
  FROM public.positions AS p;
COMMENT ON VIEW buddy_ai.positions IS
'Positions by symbol. pnl and pnl_percent are computed unless they are written. A position closed without an exit '
'price or an instant gets the latest price and now. COPY into public.positions.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.market_data
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_market_data();
COMMENT ON TRIGGER trg_write ON buddy_ai.market_data IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_begin_arrivals BEFORE INSERT ON buddy_ai.market_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.begin_arrivals('replace');
COMMENT ON TRIGGER trg_begin_arrivals ON buddy_ai.market_data IS 'Finds out what a conflict means.';

CREATE OR REPLACE TRIGGER trg_end_arrivals AFTER INSERT ON buddy_ai.market_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.end_arrivals('quotes');
COMMENT ON TRIGGER trg_end_arrivals ON buddy_ai.market_data IS 'Stores what was gathered.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON buddy_ai.ohlcv_data
FOR EACH ROW EXECUTE FUNCTION buddy_ai.write_ohlcv_data();
COMMENT ON TRIGGER trg_write ON buddy_ai.ohlcv_data IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_begin_arrivals BEFORE INSERT ON buddy_ai.ohlcv_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.begin_arrivals('refuse');
COMMENT ON TRIGGER trg_begin_arrivals ON buddy_ai.ohlcv_data IS 'Finds out what a conflict means.';

CREATE OR REPLACE TRIGGER trg_end_arrivals AFTER INSERT ON buddy_ai.ohlcv_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.end_arrivals('bars');
COMMENT ON TRIGGER trg_end_arrivals ON buddy_ai.ohlcv_data IS 'Stores what was gathered.';
