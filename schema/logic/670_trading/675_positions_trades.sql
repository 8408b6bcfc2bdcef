-- What positions and trades are worth, and how rules do.

CREATE OR REPLACE VIEW public.open_positions_live WITH (security_invoker = true) AS
SELECT p.position_id,
       p.user_id,
       p.asset_id,
       a.symbol,
       p.side,
       p.quantity,
       p.entry_price,
       v.price,
       l.ts AS priced_at,
       coalesce(l.origin, CASE WHEN v.price IS NOT NULL THEN 'application' END) AS price_origin,
       (v.price - p.entry_price) * p.quantity * CASE WHEN p.side = 'long' THEN 1 ELSE -1 END AS pnl,
       (v.price - p.entry_price) / p.entry_price * 100 * CASE WHEN p.side = 'long' THEN 1 ELSE -1 END AS pnl_percent,
       p.opened_at
  FROM public.positions AS p
  JOIN public.assets AS a ON a.asset_id = p.asset_id
  LEFT JOIN LATERAL public.latest_price(p.asset_id) AS l ON true
 CROSS JOIN LATERAL (SELECT coalesce(l.price::numeric, p.current_price) AS price) AS v
 WHERE p.is_open;
COMMENT ON VIEW public.open_positions_live IS
'Open positions at the latest price of the market. Cost: the newest quote and bar of each asset.';
COMMENT ON COLUMN public.open_positions_live.position_id IS 'Identity of the position.';
COMMENT ON COLUMN public.open_positions_live.user_id IS 'Owner.';
COMMENT ON COLUMN public.open_positions_live.asset_id IS 'Asset held.';
COMMENT ON COLUMN public.open_positions_live.symbol IS 'Its symbol.';
COMMENT ON COLUMN public.open_positions_live.side IS 'Whether it gains when the price rises or falls.';
COMMENT ON COLUMN public.open_positions_live.quantity IS 'Units of the asset.';
COMMENT ON COLUMN public.open_positions_live.entry_price IS 'Price it was opened at, in the asset''s quote currency.';
COMMENT ON COLUMN public.open_positions_live.price IS
'Latest price of the market, else the one the application wrote; NULL: neither is known.';
COMMENT ON COLUMN public.open_positions_live.priced_at IS
'Instant of the quote, or start of the bar; NULL: not from the market.';
COMMENT ON COLUMN public.open_positions_live.price_origin IS 'quote, candle or application.';
COMMENT ON COLUMN public.open_positions_live.pnl IS 'Profit or loss at that price, in the asset''s quote currency.';
COMMENT ON COLUMN public.open_positions_live.pnl_percent IS 'The same in percent of the entry price.';
COMMENT ON COLUMN public.open_positions_live.opened_at IS 'When it was opened.';

-- A position that is closed without saying when or at what price is closed now, at the latest price, or where the
-- market has none at the one the application wrote last.
CREATE OR REPLACE FUNCTION _tidemark.close_position()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.is_open THEN
        RETURN NEW;
    END IF;
    NEW.closed_at := coalesce(NEW.closed_at, now());
    IF NEW.exit_price IS NULL THEN
        SELECT trim_scale(round(l.price::numeric, 30)) INTO NEW.exit_price
          FROM public.latest_price(NEW.asset_id, NEW.closed_at) AS l
         WHERE l.price >= 0 AND l.price < 1e30; -- what positions hold
        NEW.exit_price := coalesce(NEW.exit_price, NEW.current_price);
    END IF;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.close_position() FROM public;
COMMENT ON FUNCTION _tidemark.close_position() IS
'Row trigger: fills in when and at what price a position was closed, where that was not said.';

CREATE OR REPLACE TRIGGER trg_close_position BEFORE INSERT OR UPDATE ON public.positions
FOR EACH ROW EXECUTE FUNCTION _tidemark.close_position();
COMMENT ON TRIGGER trg_close_position ON public.positions IS
'Fills in when and at what price a position was closed, where that was not said.';

-- What a trade risked per unit: the distance to the signal's stop, where that lies on the losing side; else what the
-- rule's risk_params say: stop_distance, in the price's unit, or stop_percent, in percent of the entry. NULL where none
-- of them is a number above 0.
CREATE OR REPLACE FUNCTION _tidemark.risk_per_unit(p_trade public.trades)
    RETURNS numeric
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_risk numeric;
    v_params jsonb;
BEGIN
    SELECT (p_trade.entry_price - s.stop_loss) * CASE p_trade.direction WHEN 'long' THEN 1 ELSE -1 END INTO v_risk
      FROM public.signals AS s
     WHERE s.signal_id = p_trade.signal_id;
    IF v_risk > 0 THEN
        RETURN v_risk;
    END IF;
    SELECT r.risk_params INTO v_params FROM public.strategy_rules AS r WHERE r.rule_id = p_trade.strategy_rule_id;
    IF jsonb_typeof(v_params -> 'stop_distance') = 'number' THEN
        v_risk := (v_params ->> 'stop_distance')::numeric;
    ELSIF jsonb_typeof(v_params -> 'stop_percent') = 'number' THEN
        v_risk := p_trade.entry_price * (v_params ->> 'stop_percent')::numeric / 100;
    ELSE
        RETURN NULL;
    END IF;
    RETURN CASE WHEN v_risk > 0 THEN v_risk END;
END
$func$;
COMMENT ON FUNCTION _tidemark.risk_per_unit(public.trades) IS
'What a trade risked per unit, from its signal''s stop_loss or its rule''s risk_params (stop_distance, stop_percent).';

-- Checks a trade and works out what follows from its prices. What the application states stands; what it leaves out
-- (pnl, pnl_r, outcome; of a live trade exit_time) is computed once there is an exit price, and again when what it
-- rests on changes and the same statement does not state it. An exit price taken back takes the result with it. A trade
-- that did not gain is a loss. Raises TM611 where the signal is about another asset.
CREATE OR REPLACE FUNCTION _tidemark.settle_trade()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_asset_id uuid;
    v_gain numeric; -- per unit
    v_states_pnl boolean := NEW.pnl IS NOT NULL;
    v_states_pnl_r boolean := NEW.pnl_r IS NOT NULL;
    v_states_outcome boolean := NEW.outcome <> 'pending';
BEGIN
    IF NEW.signal_id IS NOT NULL THEN
        -- Locked as a foreign key would, so that the signal cannot move to another asset meanwhile.
        SELECT s.asset_id INTO v_asset_id FROM public.signals AS s WHERE s.signal_id = NEW.signal_id FOR KEY SHARE;
        IF v_asset_id <> NEW.asset_id THEN
            RAISE EXCEPTION USING ERRCODE = 'TM611',
                MESSAGE = format('signal %s is about another asset than the trade', NEW.signal_id),
                DETAIL = format('signal: %s, trade: %s', v_asset_id, NEW.asset_id),
                TABLE = 'trades', COLUMN = 'signal_id';
        END IF;
    END IF;

    IF TG_OP = 'UPDATE' THEN
        IF (OLD.direction, OLD.quantity, OLD.entry_price, OLD.exit_price, OLD.status, OLD.signal_id,
            OLD.strategy_rule_id)
           IS NOT DISTINCT FROM
           (NEW.direction, NEW.quantity, NEW.entry_price, NEW.exit_price, NEW.status, NEW.signal_id,
            NEW.strategy_rule_id)
        THEN
            RETURN NEW;
        END IF;
        v_states_pnl := NEW.pnl IS NOT NULL AND NEW.pnl IS DISTINCT FROM OLD.pnl;
        v_states_pnl_r := NEW.pnl_r IS NOT NULL AND NEW.pnl_r IS DISTINCT FROM OLD.pnl_r;
        v_states_outcome := NEW.outcome <> 'pending' AND NEW.outcome <> OLD.outcome;
        IF NEW.exit_price IS NULL AND OLD.exit_price IS NOT NULL THEN
            NEW.pnl := CASE WHEN v_states_pnl THEN NEW.pnl END;
            NEW.pnl_r := CASE WHEN v_states_pnl_r THEN NEW.pnl_r END;
            NEW.outcome := CASE WHEN v_states_outcome THEN NEW.outcome ELSE 'pending' END;
        END IF;
    END IF;
    IF NEW.status <> 'executed' OR NEW.exit_price IS NULL THEN
        RETURN NEW;
    END IF;

    v_gain := (NEW.exit_price - NEW.entry_price) * CASE NEW.direction WHEN 'long' THEN 1 ELSE -1 END;
    IF NEW.exit_time IS NULL AND NOT NEW.is_backtest THEN
        NEW.exit_time := now();
    END IF;
    IF NOT v_states_pnl THEN
        NEW.pnl := v_gain * NEW.quantity;
    END IF;
    IF NOT v_states_pnl_r THEN
        NEW.pnl_r := coalesce((v_gain / _tidemark.risk_per_unit(NEW))::double precision, NEW.pnl_r);
    END IF;
    IF NOT v_states_outcome THEN
        NEW.outcome := CASE WHEN NEW.pnl > 0 THEN 'win' ELSE 'loss' END;
    END IF;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.settle_trade() FROM public;
COMMENT ON FUNCTION _tidemark.settle_trade() IS
'Row trigger of trades: raises TM611 where the signal is about another asset; works out exit_time, pnl, pnl_r and '
'outcome where the application does not state them.';

CREATE OR REPLACE TRIGGER trg_settle_trade BEFORE INSERT OR UPDATE ON public.trades
FOR EACH ROW EXECUTE FUNCTION _tidemark.settle_trade();
COMMENT ON TRIGGER trg_settle_trade ON public.trades IS
'Refuses a signal about another asset; works out exit_time, pnl, pnl_r and outcome where they are not stated.';

-- The other way round: a signal that trades followed stays with its asset. Raises TM611.
CREATE OR REPLACE FUNCTION _tidemark.check_traded_signal()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.asset_id = OLD.asset_id THEN
        RETURN NEW;
    END IF;
    PERFORM FROM public.signals AS s WHERE s.signal_id = OLD.signal_id FOR UPDATE; -- waits for trades being made
    IF EXISTS (SELECT FROM public.trades AS t WHERE t.signal_id = OLD.signal_id AND t.asset_id <> NEW.asset_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM611',
            MESSAGE = format('trades in another asset followed signal %s', OLD.signal_id),
            TABLE = 'signals', COLUMN = 'asset_id';
    END IF;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.check_traded_signal() FROM public;
COMMENT ON FUNCTION _tidemark.check_traded_signal() IS
'Row trigger of signals: raises TM611 where trades followed a signal that is to move to another asset.';

CREATE OR REPLACE TRIGGER trg_check_traded_signal BEFORE UPDATE OF asset_id ON public.signals
FOR EACH ROW EXECUTE FUNCTION _tidemark.check_traded_signal();
COMMENT ON TRIGGER trg_check_traded_signal ON public.signals IS 'A signal that trades followed stays with its asset.';

-- How rules do: trade_count, win_rate and avg_r_multiple of strategy_rules, over closed trades that are no backtest's.
-- The triggers on trades note the rules they touched, and they are counted when the transaction commits, in the order
-- of their keys: two transactions wait for each other for no longer than a commit takes, never in a circle, and the
-- second counts what the first stored. To see the figures before, SET CONSTRAINTS ALL IMMEDIATE.
CREATE OR REPLACE FUNCTION _tidemark.note_stale_rules()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO _tidemark.stale_rules (rule_id)
        SELECT DISTINCT n.strategy_rule_id
          FROM new_rows AS n
         WHERE n.strategy_rule_id IS NOT NULL AND n.outcome <> 'pending' AND NOT n.is_backtest
        ON CONFLICT DO NOTHING;
    ELSIF TG_OP = 'UPDATE' THEN
        -- What counts before and not after, or the other way round, or counts otherwise.
        INSERT INTO _tidemark.stale_rules (rule_id)
        SELECT DISTINCT c.strategy_rule_id
          FROM ((SELECT o.trade_id, o.strategy_rule_id, o.outcome, o.pnl_r FROM old_rows AS o
                  WHERE o.strategy_rule_id IS NOT NULL AND o.outcome <> 'pending' AND NOT o.is_backtest
                 EXCEPT
                 SELECT n.trade_id, n.strategy_rule_id, n.outcome, n.pnl_r FROM new_rows AS n WHERE NOT n.is_backtest)
                 UNION ALL
                (SELECT n.trade_id, n.strategy_rule_id, n.outcome, n.pnl_r FROM new_rows AS n
                  WHERE n.strategy_rule_id IS NOT NULL AND n.outcome <> 'pending' AND NOT n.is_backtest
                 EXCEPT
                 SELECT o.trade_id, o.strategy_rule_id, o.outcome, o.pnl_r
                   FROM old_rows AS o
                  WHERE NOT o.is_backtest)) AS c
        ON CONFLICT DO NOTHING;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO _tidemark.stale_rules (rule_id)
        SELECT DISTINCT o.strategy_rule_id
          FROM old_rows AS o
         WHERE o.strategy_rule_id IS NOT NULL AND o.outcome <> 'pending' AND NOT o.is_backtest
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO _tidemark.stale_rules (rule_id)
        SELECT r.rule_id FROM public.strategy_rules AS r WHERE r.trade_count > 0
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.note_stale_rules() FROM public;
COMMENT ON FUNCTION _tidemark.note_stale_rules() IS
'Statement trigger of trades: notes the rules whose closed trades changed.';

CREATE OR REPLACE TRIGGER trg_note_stale_rules_inserted AFTER INSERT ON public.trades
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.note_stale_rules();
COMMENT ON TRIGGER trg_note_stale_rules_inserted ON public.trades IS 'Notes the rules whose closed trades changed.';

CREATE OR REPLACE TRIGGER trg_note_stale_rules_updated AFTER UPDATE ON public.trades
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.note_stale_rules();
COMMENT ON TRIGGER trg_note_stale_rules_updated ON public.trades IS 'Notes the rules whose closed trades changed.';

CREATE OR REPLACE TRIGGER trg_note_stale_rules_deleted AFTER DELETE ON public.trades
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.note_stale_rules();
COMMENT ON TRIGGER trg_note_stale_rules_deleted ON public.trades IS 'Notes the rules whose closed trades changed.';

CREATE OR REPLACE TRIGGER trg_note_stale_rules_truncated AFTER TRUNCATE ON public.trades
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.note_stale_rules();
COMMENT ON TRIGGER trg_note_stale_rules_truncated ON public.trades IS 'Notes the rules that had trades.';

CREATE OR REPLACE FUNCTION _tidemark.count_stale_rules()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rule_ids uuid[];
BEGIN
    -- The first of the transaction's events does the work for all of them.
    WITH noted AS (
        DELETE FROM _tidemark.stale_rules AS s WHERE s.transaction_id = pg_current_xact_id() RETURNING s.rule_id
    )
    SELECT array_agg(n.rule_id) INTO v_rule_ids FROM noted AS n;
    IF v_rule_ids IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM FROM public.strategy_rules AS r WHERE r.rule_id = ANY (v_rule_ids) ORDER BY r.rule_id FOR NO KEY UPDATE;
    -- A statement of its own, so that it sees what those stored whom it waited for.
    UPDATE public.strategy_rules AS r
       SET trade_count = c.trade_count, win_rate = c.win_rate, avg_r_multiple = c.avg_r_multiple
      FROM unnest(v_rule_ids) AS n (rule_id)
     CROSS JOIN LATERAL (
               SELECT count(*) AS trade_count, avg((t.outcome = 'win')::integer)::double precision AS win_rate,
                      avg(t.pnl_r) AS avg_r_multiple
                 FROM public.trades AS t
                WHERE t.strategy_rule_id = n.rule_id AND t.outcome <> 'pending' AND NOT t.is_backtest
           ) AS c
     WHERE r.rule_id = n.rule_id
       AND (r.trade_count, r.win_rate, r.avg_r_multiple) IS DISTINCT FROM (c.trade_count, c.win_rate, c.avg_r_multiple);
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.count_stale_rules() FROM public;
COMMENT ON FUNCTION _tidemark.count_stale_rules() IS
'Deferred trigger of stale_rules: counts the closed trades of the rules that the transaction touched.';

-- A constraint trigger cannot be replaced.
DROP TRIGGER IF EXISTS trg_count_stale_rules ON _tidemark.stale_rules;
CREATE CONSTRAINT TRIGGER trg_count_stale_rules AFTER INSERT ON _tidemark.stale_rules
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION _tidemark.count_stale_rules();
COMMENT ON TRIGGER trg_count_stale_rules ON _tidemark.stale_rules IS
'Counts the trades of the rules that the transaction touched, when it commits.';
