-- Hyperliquid bot: search_path = hyperliquid, public. Its keys are text, kept in external_id as given; one that is a
-- uuid is that of the table, too. backtest_configs, backtest_results and ingestion_tasks are those of public.

CREATE OR REPLACE VIEW hyperliquid.strategy_rules WITH (security_invoker = true) AS
SELECT r.external_id AS id,
       r.name,
       r.app_source_type AS source_type,
       r.source_ref,
       r.entry_type,
       r.conditions,
       r.confluence_required,
       r.risk_params,
       r.confidence,
       r.trade_count,
       r.win_rate,
       r.avg_r_multiple
  FROM public.strategy_rules AS r;
COMMENT ON VIEW hyperliquid.strategy_rules IS
'Strategy rules; the last three columns follow from the trades whenever one is closed. '
'COPY into public.strategy_rules.';

-- The rule with a key. NULL for NULL; raises 23503, as the application's own foreign key would, where there is none.
CREATE OR REPLACE FUNCTION hyperliquid.strategy_rule(p_id text)
    RETURNS uuid
    LANGUAGE plpgsql
    STABLE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rule_id uuid;
BEGIN
    SELECT r.rule_id INTO v_rule_id FROM public.strategy_rules AS r WHERE r.external_id = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = format('there is no strategy rule %L', p_id), CONSTRAINT = 'strategy_rules_external_id_key';
    END IF;
    RETURN v_rule_id;
END
$func$;
COMMENT ON FUNCTION hyperliquid.strategy_rule(text) IS 'The rule with a key; raises 23503 where there is none.';

-- The trades with those keys, in the same order. NULL for NULL; raises 23503 where one of them does not exist.
CREATE OR REPLACE FUNCTION hyperliquid.trades_with(p_ids text[])
    RETURNS uuid[]
    LANGUAGE plpgsql
    STABLE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_trades CONSTANT uuid[] := ARRAY(
        SELECT t.trade_id
          FROM unnest(p_ids) WITH ORDINALITY AS k (key, place)
          LEFT JOIN public.trades AS t ON t.external_id = k.key
         ORDER BY k.place
    );
BEGIN
    IF array_position(v_trades, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = format('there is no trade %L', p_ids[array_position(v_trades, NULL)]),
            CONSTRAINT = 'trades_external_id_key';
    END IF;
    RETURN v_trades;
END
$func$;
COMMENT ON FUNCTION hyperliquid.trades_with(text []) IS
'The trades with those keys, in order; raises 23503 where one does not exist.';

CREATE OR REPLACE VIEW hyperliquid.trade_records WITH (security_invoker = true) AS
SELECT t.external_id AS id,
       t.app_strategy_rule_id AS strategy_rule_id,
       t.app_symbol AS asset,
       t.app_direction AS direction,
       t.app_entry_price AS entry_price,
       t.app_exit_price AS exit_price,
       t.entry_time,
       t.exit_time,
       t.app_outcome AS outcome,
       t.pnl_r,
       t.app_pnl AS pnl_usd,
       t.reasoning,
       t.confidence,
       t.is_backtest
  FROM public.trades AS t
 WHERE t.status = 'executed';
COMMENT ON VIEW hyperliquid.trade_records IS
'Executed trades, live and simulated, of one unit each where no quantity is known. COPY into public.trades.';

CREATE OR REPLACE VIEW hyperliquid.learning_entries WITH (security_invoker = true) AS
SELECT l.external_id AS id,
       l.app_strategy_rule_id AS strategy_rule_id,
       l.insight,
       l.app_supporting_trades AS supporting_trades,
       l.confidence,
       l.impact_type,
       l.market_conditions,
       l.validation_count
  FROM public.learning_entries AS l;
COMMENT ON VIEW hyperliquid.learning_entries IS 'What was learnt from trades. COPY into public.learning_entries.';
COMMENT ON COLUMN hyperliquid.learning_entries.supporting_trades IS 'Trades it rests on (trade_records.id).';

-- The lengths of bars are joined as a list so that a search for one as text still finds its way into the primary key.
CREATE OR REPLACE VIEW hyperliquid.candle_data WITH (security_invoker = true) AS
SELECT c.id,
       a.symbol AS asset,
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
COMMENT ON VIEW hyperliquid.candle_data IS
'Bars by trading pair; one stored again for its instant replaces the one there. COPY into public.candles.';
COMMENT ON COLUMN hyperliquid.candle_data.id IS 'Number of the bar.';

CREATE OR REPLACE FUNCTION hyperliquid.write_candle_data()
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
        v_bar.asset_id := _tidemark.arriving_asset(NEW.asset, p_otherwise => 'crypto');
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
        IF NEW.asset IS DISTINCT FROM OLD.asset THEN
            v_asset_id := _tidemark.find_or_create_asset(NEW.asset, p_otherwise => 'crypto');
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
COMMENT ON FUNCTION hyperliquid.write_candle_data() IS 'INSTEAD OF trigger: writes candle_data to public.candles.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON hyperliquid.candle_data
FOR EACH ROW EXECUTE FUNCTION hyperliquid.write_candle_data();
COMMENT ON TRIGGER trg_write ON hyperliquid.candle_data IS 'Writes through the view.';

CREATE OR REPLACE TRIGGER trg_begin_arrivals BEFORE INSERT ON hyperliquid.candle_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.begin_arrivals('replace');
COMMENT ON TRIGGER trg_begin_arrivals ON hyperliquid.candle_data IS 'Finds out what a conflict means.';

CREATE OR REPLACE TRIGGER trg_end_arrivals AFTER INSERT ON hyperliquid.candle_data
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.end_arrivals('bars');
COMMENT ON TRIGGER trg_end_arrivals ON hyperliquid.candle_data IS 'Stores what was gathered.';
