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
       u.app_created_at AS created_at,
       u.app_updated_at AS updated_at
  FROM public.users AS u;
COMMENT ON VIEW cryptovolt.users IS 'Accounts, numbered. COPY into public.users.';

CREATE OR REPLACE VIEW cryptovolt.trading_strategies WITH (security_invoker = true) AS
SELECT s.strategy_id,
       s.app_user_id AS user_id,
       s.name,
       s.description,
       s.parameters,
       s.is_active,
       s.app_created_at AS created_at,
       s.app_updated_at AS updated_at
  FROM public.strategies AS s;
COMMENT ON VIEW cryptovolt.trading_strategies IS 'Strategies. COPY into public.strategies.';

CREATE OR REPLACE VIEW cryptovolt.market_data WITH (security_invoker = true) AS
SELECT c.id AS data_id,
       a.symbol,
       c.ts AT TIME ZONE 'UTC' AS timestamp,
       c.open AS open_price,
       c.high AS high_price,
       c.low AS low_price,
       c.close AS close_price,
       c.volume,
       (SELECT s.provider FROM public.sources AS s WHERE s.source_id = c.source_id) AS source, -- joined, no FOR UPDATE
       c.ingested_at AT TIME ZONE 'UTC' AS created_at
  FROM public.candles AS c
  JOIN public.assets AS a ON a.asset_id = c.asset_id
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
    v_bar public.candles;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'INSERT' THEN
        v_bar.asset_id := _tidemark.arriving_asset(NEW.symbol, p_otherwise => 'crypto');
        v_bar.interval := cryptovolt.bar_interval();
        v_bar.ts := NEW.timestamp AT TIME ZONE 'UTC';
        v_bar.open := NEW.open_price;
        v_bar.high := NEW.high_price;
        v_bar.low := NEW.low_price;
        v_bar.close := NEW.close_price;
        v_bar.volume := NEW.volume;
        IF NEW.source IS NOT NULL THEN
            v_bar.source_id := _tidemark.find_or_create_source(NEW.source, v_bar.asset_id, v_bar.interval);
        END IF;
        NEW.created_at := coalesce(NEW.created_at, now() AT TIME ZONE 'UTC');
        v_bar.ingested_at := NEW.created_at AT TIME ZONE 'UTC';
        v_bar.id := NEW.data_id;
        NEW.data_id := _tidemark.take_bar(v_bar);
        RETURN CASE WHEN NEW.data_id IS NOT NULL THEN NEW END;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF NEW.symbol IS DISTINCT FROM OLD.symbol THEN
            v_asset_id := _tidemark.find_or_create_asset(NEW.symbol, p_otherwise => 'crypto');
        END IF;
        UPDATE public.candles AS c
           SET id = NEW.data_id, asset_id = coalesce(v_asset_id, c.asset_id),
               ts = NEW.timestamp AT TIME ZONE 'UTC', open = NEW.open_price,
               high = NEW.high_price, low = NEW.low_price, close = NEW.close_price, volume = NEW.volume,
               ingested_at = CASE WHEN NEW.created_at IS DISTINCT FROM OLD.created_at
                   THEN NEW.created_at AT TIME ZONE 'UTC' ELSE c.ingested_at END,
               source_id = CASE WHEN NEW.source IS NOT DISTINCT FROM OLD.source AND v_asset_id IS NULL
                   THEN c.source_id
                   ELSE _tidemark.find_or_create_source(NEW.source, coalesce(v_asset_id, c.asset_id), c.interval) END
         WHERE c.id = OLD.data_id AND c.ts = OLD.timestamp AT TIME ZONE 'UTC'
           AND (c.open, c.high, c.low, c.close, c.volume)
               IS NOT DISTINCT FROM (OLD.open_price, OLD.high_price, OLD.low_price, OLD.close_price, OLD.volume);
    ELSE
        DELETE FROM public.candles AS c
         WHERE c.id = OLD.data_id AND c.ts = OLD.timestamp AT TIME ZONE 'UTC'
           AND (c.open, c.high, c.low, c.close, c.volume)
               IS NOT DISTINCT FROM (OLD.open_price, OLD.high_price, OLD.low_price, OLD.close_price, OLD.volume);
    END IF;
    IF NOT FOUND THEN
        PERFORM _tidemark.raise_if_there(EXISTS (
            SELECT FROM public.candles AS c WHERE c.id = OLD.data_id AND c.ts = OLD.timestamp AT TIME ZONE 'UTC'
        ));
        RETURN NULL;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$func$;
COMMENT ON FUNCTION cryptovolt.write_market_data() IS 'INSTEAD OF trigger: writes market_data to public.candles.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON cryptovolt.market_data
FOR EACH ROW EXECUTE FUNCTION cryptovolt.write_market_data();
COMMENT ON TRIGGER trg_write ON cryptovolt.market_data IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_begin_arrivals BEFORE INSERT ON cryptovolt.market_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.begin_arrivals('replace');
COMMENT ON TRIGGER trg_begin_arrivals ON cryptovolt.market_data IS 'Finds out what a conflict means.';

CREATE OR REPLACE TRIGGER trg_end_arrivals AFTER INSERT ON cryptovolt.market_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.end_arrivals('bars');
COMMENT ON TRIGGER trg_end_arrivals ON cryptovolt.market_data IS 'Stores what was gathered.';

CREATE OR REPLACE VIEW cryptovolt.sentiment_data WITH (security_invoker = true) AS
SELECT d.sentiment_id,
       d.app_symbol AS symbol,
       d.source,
       d.text,
       d.sentiment_score,
       d.app_ts AS timestamp,
       d.extra_data,
       d.app_ingested_at AS created_at
  FROM public.sentiment_data AS d;
COMMENT ON VIEW cryptovolt.sentiment_data IS 'Texts and their sentiment by symbol. COPY into public.sentiment_data.';
COMMENT ON COLUMN cryptovolt.sentiment_data.timestamp IS
'When the text appeared, in UTC without a zone.';

-- A new text needs its instant before TimescaleDB looks for its chunk.
CREATE OR REPLACE FUNCTION cryptovolt.insert_sentiment_data()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_text public.sentiment_data;
BEGIN
    NEW.timestamp := coalesce(NEW.timestamp, now() AT TIME ZONE 'UTC');
    NEW.created_at := coalesce(NEW.created_at, now() AT TIME ZONE 'UTC');
    NEW.extra_data := coalesce(NEW.extra_data, '{}');
    v_text.asset_id := _tidemark.arriving_asset(NEW.symbol, p_otherwise => 'crypto');
    v_text.ts := NEW.timestamp AT TIME ZONE 'UTC';
    v_text.sentiment_id := NEW.sentiment_id;
    v_text.source := NEW.source;
    v_text.text := NEW.text;
    v_text.sentiment_score := NEW.sentiment_score;
    v_text.extra_data := NEW.extra_data;
    v_text.ingested_at := NEW.created_at AT TIME ZONE 'UTC';
    NEW.sentiment_id := _tidemark.take_text(v_text);
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.insert_sentiment_data() IS
'INSTEAD OF trigger: inserts sentiment_data into public.sentiment_data.';

CREATE OR REPLACE TRIGGER trg_insert INSTEAD OF INSERT ON cryptovolt.sentiment_data
FOR EACH ROW EXECUTE FUNCTION cryptovolt.insert_sentiment_data();
COMMENT ON TRIGGER trg_insert ON cryptovolt.sentiment_data IS 'Inserts through the view.';

-- Without it an UPDATE or DELETE that waited would be lost on TimescaleDB 2.28.1 and newer (README, "Limits").
CREATE OR REPLACE FUNCTION cryptovolt.change_sentiment_data()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.sentiment_data AS d
           SET sentiment_id = NEW.sentiment_id, app_symbol = NEW.symbol, source = NEW.source, text = NEW.text,
               sentiment_score = NEW.sentiment_score, app_ts = NEW.timestamp, extra_data = NEW.extra_data,
               app_ingested_at = NEW.created_at
         WHERE d.sentiment_id = OLD.sentiment_id AND d.ts = OLD.timestamp AT TIME ZONE 'UTC'
           AND (d.app_symbol, d.source, d.text, d.sentiment_score, d.extra_data, d.app_ingested_at) IS NOT DISTINCT FROM
               (OLD.symbol, OLD.source, OLD.text, OLD.sentiment_score, OLD.extra_data, OLD.created_at)
        RETURNING d.sentiment_id, d.app_symbol, d.source, d.text, d.sentiment_score, d.app_ts, d.extra_data,
                  d.app_ingested_at
          INTO NEW;
    ELSE
        DELETE FROM public.sentiment_data AS d
         WHERE d.sentiment_id = OLD.sentiment_id AND d.ts = OLD.timestamp AT TIME ZONE 'UTC'
           AND (d.app_symbol, d.source, d.text, d.sentiment_score, d.extra_data, d.app_ingested_at) IS NOT DISTINCT FROM
               (OLD.symbol, OLD.source, OLD.text, OLD.sentiment_score, OLD.extra_data, OLD.created_at);
    END IF;
    IF NOT FOUND THEN
        PERFORM _tidemark.raise_if_there(EXISTS (
            SELECT FROM public.sentiment_data AS d
             WHERE d.sentiment_id = OLD.sentiment_id AND d.ts = OLD.timestamp AT TIME ZONE 'UTC'
        ));
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION cryptovolt.change_sentiment_data() IS
'INSTEAD OF trigger: changes and deletes rows of public.sentiment_data.';

CREATE OR REPLACE TRIGGER trg_change INSTEAD OF UPDATE OR DELETE ON cryptovolt.sentiment_data
FOR EACH ROW EXECUTE FUNCTION cryptovolt.change_sentiment_data();
COMMENT ON TRIGGER trg_change ON cryptovolt.sentiment_data IS 'Changes and deletes through the view.';

CREATE OR REPLACE TRIGGER trg_begin_arrivals BEFORE INSERT ON cryptovolt.sentiment_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.begin_arrivals('insert');
COMMENT ON TRIGGER trg_begin_arrivals ON cryptovolt.sentiment_data IS 'Forgets what was gathered before.';

CREATE OR REPLACE TRIGGER trg_end_arrivals AFTER INSERT ON cryptovolt.sentiment_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.end_arrivals('texts');
COMMENT ON TRIGGER trg_end_arrivals ON cryptovolt.sentiment_data IS 'Stores what was gathered.';

CREATE OR REPLACE VIEW cryptovolt.signals WITH (security_invoker = true) AS
SELECT s.signal_id,
       s.strategy_id,
       s.model_id,
       s.app_symbol AS symbol,
       s.app_signal_type AS signal_type,
       s.confidence,
       s.app_ts AS timestamp,
       s.extra_data,
       s.app_created_at AS created_at
  FROM public.signals AS s;
COMMENT ON VIEW cryptovolt.signals IS 'Signals by symbol. COPY into public.signals.';
COMMENT ON COLUMN cryptovolt.signals.signal_type IS 'BUY, SELL, HOLD, STRONG_BUY or STRONG_SELL.';

CREATE OR REPLACE VIEW cryptovolt.trades WITH (security_invoker = true) AS
SELECT t.trade_no AS trade_id,
       t.signal_id,
       t.app_symbol AS symbol,
       t.app_trade_type AS trade_type,
       t.app_entry_price AS price,
       t.app_quantity AS quantity,
       t.app_status AS status,
       t.is_paper_trade,
       t.app_pnl AS pnl,
       t.app_entry_time AS timestamp,
       t.app_created_at AS created_at
  FROM public.trades AS t;
COMMENT ON VIEW cryptovolt.trades IS 'Trades, numbered, by symbol. COPY into public.trades.';
COMMENT ON COLUMN cryptovolt.trades.trade_type IS 'BUY, which opens a long trade, or SELL, a short one.';
COMMENT ON COLUMN cryptovolt.trades.status IS
'PENDING, EXECUTED, FAILED or CANCELLED, or a word of the application''s own.';

-- A type of model that Tidemark has no name for is kept as it was written, and the model counts as other.
CREATE OR REPLACE VIEW cryptovolt.models WITH (security_invoker = true) AS
SELECT m.model_id,
       m.name,
       m.app_model_type AS model_type,
       m.version,
       m.accuracy,
       m.precision,
       m.recall,
       m.auc,
       m.app_trained_on AS trained_on,
       m.extra_data,
       m.app_created_at AS created_at
  FROM public.models AS m;
COMMENT ON VIEW cryptovolt.models IS 'Models. COPY into public.models.';

CREATE OR REPLACE VIEW cryptovolt.alerts WITH (security_invoker = true) AS
SELECT n.notification_id AS alert_id,
       n.app_user_id AS user_id,
       n.app_notification_type AS alert_type,
       n.message,
       n.is_read,
       n.app_timestamp AS timestamp,
       n.app_created_at AS created_at
  FROM public.notifications AS n;
COMMENT ON VIEW cryptovolt.alerts IS
'Messages for a user, or without one for all: what public.notifications holds. COPY into public.notifications.';
COMMENT ON COLUMN cryptovolt.alerts.alert_type IS
'SIGNAL, TRADE, SYSTEM or ALERT, or a word of the application''s own.';
COMMENT ON COLUMN cryptovolt.alerts.timestamp IS
'When it happened, in UTC without a zone; where that is not given, created_at.';
