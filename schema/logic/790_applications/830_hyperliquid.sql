-- Hyperliquid bot: search_path = hyperliquid, public. Its keys are text: a uuid goes into the key of the table, any
-- other into external_id. backtest_configs, backtest_results and ingestion_tasks are those of public.

CREATE OR REPLACE VIEW hyperliquid.strategy_rules WITH (security_invoker = true) AS
SELECT coalesce(r.external_id, r.rule_id::text) AS id,
       r.name,
       r.source_type::text AS source_type,
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
ALTER VIEW hyperliquid.strategy_rules ALTER COLUMN source_type SET DEFAULT 'manual';
ALTER VIEW hyperliquid.strategy_rules ALTER COLUMN conditions SET DEFAULT '[]';
ALTER VIEW hyperliquid.strategy_rules ALTER COLUMN confluence_required SET DEFAULT '[]';
ALTER VIEW hyperliquid.strategy_rules ALTER COLUMN risk_params SET DEFAULT '{}';
ALTER VIEW hyperliquid.strategy_rules ALTER COLUMN confidence SET DEFAULT 0;
COMMENT ON VIEW hyperliquid.strategy_rules IS
'Strategy rules; the last three columns follow from the trades, and what is written to them is left aside. '
'COPY into public.strategy_rules.';

CREATE OR REPLACE FUNCTION hyperliquid.write_strategy_rule()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.strategy_rules AS r WHERE coalesce(r.external_id, r.rule_id::text) = OLD.id;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE public.strategy_rules AS r
           SET rule_id = coalesce(_tidemark.uuid_or_null(NEW.id), r.rule_id),
               external_id = CASE WHEN _tidemark.uuid_or_null(NEW.id) IS NULL THEN NEW.id END,
               name = NEW.name, source_type = NEW.source_type::public.strategy_source_type,
               source_ref = NEW.source_ref, entry_type = NEW.entry_type, conditions = NEW.conditions,
               confluence_required = NEW.confluence_required, risk_params = NEW.risk_params,
               confidence = NEW.confidence
         WHERE coalesce(r.external_id, r.rule_id::text) = OLD.id;
    ELSE
        INSERT INTO public.strategy_rules AS r (
            rule_id, external_id, name, source_type, source_ref, entry_type, conditions, confluence_required,
            risk_params, confidence
        )
        VALUES (
            coalesce(_tidemark.uuid_or_null(NEW.id), gen_random_uuid()),
            CASE WHEN _tidemark.uuid_or_null(NEW.id) IS NULL THEN NEW.id END, NEW.name,
            NEW.source_type::public.strategy_source_type, NEW.source_ref, NEW.entry_type, NEW.conditions,
            NEW.confluence_required, NEW.risk_params, NEW.confidence
        )
        RETURNING coalesce(r.external_id, r.rule_id::text) INTO NEW.id;
    END IF;
    SELECT v.* INTO NEW FROM hyperliquid.strategy_rules AS v WHERE v.id = NEW.id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION hyperliquid.write_strategy_rule() IS
'INSTEAD OF trigger: writes strategy_rules to public.strategy_rules.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON hyperliquid.strategy_rules
FOR EACH ROW EXECUTE FUNCTION hyperliquid.write_strategy_rule();
COMMENT ON TRIGGER trg_write ON hyperliquid.strategy_rules IS 'Writes through the view.';

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
    SELECT r.rule_id INTO v_rule_id
      FROM public.strategy_rules AS r
     WHERE coalesce(r.external_id, r.rule_id::text) = p_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = format('there is no strategy rule %L', p_id), CONSTRAINT = 'strategy_rules_external_id_key';
    END IF;
    RETURN v_rule_id;
END
$func$;
COMMENT ON FUNCTION hyperliquid.strategy_rule(text) IS 'The rule with a key; raises 23503 where there is none.';

CREATE OR REPLACE VIEW hyperliquid.trade_records WITH (security_invoker = true) AS
SELECT coalesce(t.external_id, t.trade_id::text) AS id,
       coalesce(r.external_id, r.rule_id::text) AS strategy_rule_id,
       a.symbol AS asset,
       t.direction::text AS direction,
       t.entry_price::double precision AS entry_price,
       t.exit_price::double precision AS exit_price,
       t.entry_time,
       t.exit_time,
       t.outcome::text AS outcome,
       t.pnl_r,
       t.pnl::double precision AS pnl_usd,
       t.reasoning,
       t.confidence,
       t.is_backtest
  FROM public.trades AS t
  JOIN public.assets AS a ON a.asset_id = t.asset_id
  LEFT JOIN public.strategy_rules AS r ON r.rule_id = t.strategy_rule_id
 WHERE t.status = 'executed';
ALTER VIEW hyperliquid.trade_records ALTER COLUMN entry_time SET DEFAULT now();
ALTER VIEW hyperliquid.trade_records ALTER COLUMN outcome SET DEFAULT 'pending';
ALTER VIEW hyperliquid.trade_records ALTER COLUMN is_backtest SET DEFAULT false;
COMMENT ON VIEW hyperliquid.trade_records IS
'Executed trades, live and simulated, of one unit each where no quantity is known. COPY into public.trades.';

CREATE OR REPLACE FUNCTION hyperliquid.write_trade_record()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.trades AS t WHERE coalesce(t.external_id, t.trade_id::text) = OLD.id;
        RETURN OLD;
    END IF;
    IF NEW.asset IS DISTINCT FROM OLD.asset THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.asset, p_otherwise => 'crypto');
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.trades AS t
           SET trade_id = coalesce(_tidemark.uuid_or_null(NEW.id), t.trade_id),
               external_id = CASE WHEN _tidemark.uuid_or_null(NEW.id) IS NULL THEN NEW.id END,
               strategy_rule_id = hyperliquid.strategy_rule(NEW.strategy_rule_id),
               asset_id = coalesce(v_asset_id, t.asset_id), direction = lower(NEW.direction)::public.position_side,
               trade_type = CASE lower(NEW.direction) WHEN 'short' THEN 'sell' ELSE 'buy' END::public.trade_type,
               entry_price = NEW.entry_price, exit_price = NEW.exit_price, entry_time = NEW.entry_time,
               exit_time = NEW.exit_time, outcome = lower(NEW.outcome)::public.trade_outcome, pnl_r = NEW.pnl_r,
               pnl = NEW.pnl_usd, reasoning = NEW.reasoning, confidence = NEW.confidence,
               is_backtest = NEW.is_backtest
         WHERE coalesce(t.external_id, t.trade_id::text) = OLD.id;
    ELSE
        INSERT INTO public.trades AS t (
            user_id, trade_id, external_id, strategy_rule_id, asset_id, direction, trade_type, quantity, status,
            entry_price, exit_price, entry_time, exit_time, outcome, pnl_r, pnl, reasoning, confidence, is_backtest,
            is_paper_trade
        )
        VALUES (
            _tidemark.current_user_id(), coalesce(_tidemark.uuid_or_null(NEW.id), gen_random_uuid()),
            CASE WHEN _tidemark.uuid_or_null(NEW.id) IS NULL THEN NEW.id END,
            hyperliquid.strategy_rule(NEW.strategy_rule_id), v_asset_id,
            lower(NEW.direction)::public.position_side,
            CASE lower(NEW.direction) WHEN 'short' THEN 'sell' ELSE 'buy' END::public.trade_type, 1, 'executed',
            NEW.entry_price, NEW.exit_price, NEW.entry_time, NEW.exit_time,
            lower(NEW.outcome)::public.trade_outcome, NEW.pnl_r, NEW.pnl_usd, NEW.reasoning, NEW.confidence,
            NEW.is_backtest, NEW.is_backtest
        )
        RETURNING coalesce(t.external_id, t.trade_id::text) INTO NEW.id;
    END IF;
    SELECT v.* INTO NEW FROM hyperliquid.trade_records AS v WHERE v.id = NEW.id;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION hyperliquid.write_trade_record() IS 'INSTEAD OF trigger: writes trade_records to public.trades.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON hyperliquid.trade_records
FOR EACH ROW EXECUTE FUNCTION hyperliquid.write_trade_record();
COMMENT ON TRIGGER trg_write ON hyperliquid.trade_records IS 'Writes through the view.';

CREATE OR REPLACE VIEW hyperliquid.learning_entries WITH (security_invoker = true) AS
SELECT coalesce(l.external_id, l.entry_id::text) AS id,
       coalesce(r.external_id, r.rule_id::text) AS strategy_rule_id,
       l.insight,
       coalesce((
           SELECT array_agg(coalesce(t.external_id, s.trade_id::text) ORDER BY s.position)
             FROM unnest(l.supporting_trades) WITH ORDINALITY AS s (trade_id, position)
             LEFT JOIN public.trades AS t ON t.trade_id = s.trade_id
       ), '{}') AS supporting_trades,
       l.confidence,
       l.impact_type,
       l.market_conditions,
       l.validation_count
  FROM public.learning_entries AS l
  LEFT JOIN public.strategy_rules AS r ON r.rule_id = l.strategy_rule_id;
ALTER VIEW hyperliquid.learning_entries ALTER COLUMN supporting_trades SET DEFAULT '{}';
ALTER VIEW hyperliquid.learning_entries ALTER COLUMN confidence SET DEFAULT 0;
ALTER VIEW hyperliquid.learning_entries ALTER COLUMN market_conditions SET DEFAULT '{}';
ALTER VIEW hyperliquid.learning_entries ALTER COLUMN validation_count SET DEFAULT 0;
COMMENT ON VIEW hyperliquid.learning_entries IS 'What was learnt from trades. COPY into public.learning_entries.';
COMMENT ON COLUMN hyperliquid.learning_entries.supporting_trades IS 'Trades it rests on (trade_records.id).';

-- The trades with those keys, in the same order. Raises 23503 where one of them does not exist.
CREATE OR REPLACE FUNCTION hyperliquid.trades_with(p_ids text [])
    RETURNS uuid []
    LANGUAGE plpgsql
    STABLE
    STRICT
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_trades CONSTANT uuid[] := ARRAY(
        SELECT t.trade_id
          FROM unnest(p_ids) WITH ORDINALITY AS i (id, position)
          LEFT JOIN public.trades AS t ON coalesce(t.external_id, t.trade_id::text) = i.id
         ORDER BY i.position
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

CREATE OR REPLACE FUNCTION hyperliquid.write_learning_entry()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.learning_entries AS l WHERE coalesce(l.external_id, l.entry_id::text) = OLD.id;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE public.learning_entries AS l
           SET entry_id = coalesce(_tidemark.uuid_or_null(NEW.id), l.entry_id),
               external_id = CASE WHEN _tidemark.uuid_or_null(NEW.id) IS NULL THEN NEW.id END,
               strategy_rule_id = hyperliquid.strategy_rule(NEW.strategy_rule_id), insight = NEW.insight,
               supporting_trades = hyperliquid.trades_with(NEW.supporting_trades), confidence = NEW.confidence,
               impact_type = NEW.impact_type, market_conditions = NEW.market_conditions,
               validation_count = NEW.validation_count
         WHERE coalesce(l.external_id, l.entry_id::text) = OLD.id;
    ELSE
        INSERT INTO public.learning_entries AS l (
            entry_id, external_id, strategy_rule_id, insight, supporting_trades, confidence, impact_type,
            market_conditions, validation_count
        )
        VALUES (
            coalesce(_tidemark.uuid_or_null(NEW.id), gen_random_uuid()),
            CASE WHEN _tidemark.uuid_or_null(NEW.id) IS NULL THEN NEW.id END,
            hyperliquid.strategy_rule(NEW.strategy_rule_id), NEW.insight,
            hyperliquid.trades_with(NEW.supporting_trades), NEW.confidence, NEW.impact_type,
            NEW.market_conditions, NEW.validation_count
        )
        RETURNING coalesce(l.external_id, l.entry_id::text) INTO NEW.id;
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION hyperliquid.write_learning_entry() IS
'INSTEAD OF trigger: writes learning_entries to public.learning_entries.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON hyperliquid.learning_entries
FOR EACH ROW EXECUTE FUNCTION hyperliquid.write_learning_entry();
COMMENT ON TRIGGER trg_write ON hyperliquid.learning_entries IS 'Writes through the view.';

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
    v_id bigint;
    v_asset_id uuid;
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM public.candles AS c WHERE c.id = OLD.id AND c.ts = OLD.timestamp;
        RETURN OLD;
    END IF;
    IF NEW.asset IS DISTINCT FROM OLD.asset THEN
        v_asset_id := _tidemark.find_or_create_asset(NEW.asset, p_otherwise => 'crypto');
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
        ON CONFLICT (asset_id, interval, ts) DO UPDATE
           SET open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
               volume = EXCLUDED.volume
        RETURNING c.id INTO v_id;
        IF NEW.id <> v_id THEN
            UPDATE public.candles AS c SET id = NEW.id WHERE c.id = v_id AND c.ts = NEW.timestamp;
        END IF;
        NEW.id := coalesce(NEW.id, v_id);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION hyperliquid.write_candle_data() IS 'INSTEAD OF trigger: writes candle_data to public.candles.';

CREATE OR REPLACE TRIGGER trg_write INSTEAD OF INSERT OR UPDATE OR DELETE ON hyperliquid.candle_data
FOR EACH ROW EXECUTE FUNCTION hyperliquid.write_candle_data();
COMMENT ON TRIGGER trg_write ON hyperliquid.candle_data IS 'Writes through the view.';
