"""Hyperliquid bot: text keys, trades in R, and what was learnt from them."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from psycopg import errors

NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)


def statement(line: int, title: str):
    return pytest.mark.statement("hyperliquid", line, title)


@pytest.fixture
def app(use):
    return use("hyperliquid")


@pytest.fixture(params=["a uuid", "a name"])
def rule(app, request):
    key = str(uuid.uuid4()) if request.param == "a uuid" else "fvg-london-open"
    assert app.execute(
        "INSERT INTO strategy_rules (id, name, source_type, source_ref, entry_type, conditions, confluence_required,"
        " risk_params, confidence) VALUES (%s, 'London FVG', 'youtube', 'https://example.org/v', 'fair_value_gap',"
        " '[{\"type\": \"fvg\"}]', '[\"1h\"]', '{\"stop\": 1}', 0.8) RETURNING id", (key,)
    ).fetchone() == (key,)
    return key


@statement(21, "strategy_rules by id, and by confidence, win rate and trades")
def test_rule_crud(app, rule):
    assert app.execute(
        "SELECT name, source_type, conditions->0->>'type', confidence, trade_count FROM strategy_rules WHERE id = %s",
        (rule,)
    ).fetchone() == ("London FVG", "youtube", "fvg", 0.8, 0)
    generated = app.execute(
        "INSERT INTO strategy_rules (name, entry_type) VALUES ('other', 'breakout') RETURNING id, source_type"
    ).fetchone()
    assert uuid.UUID(generated[0])
    assert generated[1] == "manual"
    assert app.execute(
        "SELECT id FROM strategy_rules ORDER BY confidence DESC, win_rate DESC, trade_count DESC LIMIT 1"
    ).fetchone() == (rule,)
    assert app.execute("UPDATE strategy_rules SET confidence = 0.9 WHERE id = %s RETURNING id, confidence", (rule,)
                       ).fetchone() == (rule, 0.9)
    assert app.execute("UPDATE strategy_rules SET id = 'renamed' WHERE id = %s RETURNING id",
        (rule,)).fetchone() == ("renamed",)
    assert app.execute("DELETE FROM strategy_rules WHERE id = 'renamed'").rowcount == 1


@statement(29, "a confidence outside 0 to 1 and a key used twice are refused")
def test_impossible_rules_are_refused(app, rule):
    with pytest.raises(errors.CheckViolation), app.transaction():
        app.execute("UPDATE strategy_rules SET confidence = 1.1")
    with pytest.raises(errors.UniqueViolation), app.transaction():
        app.execute("INSERT INTO strategy_rules (id, name, entry_type) VALUES (%s, 'again', 'x')", (rule,))


@pytest.fixture
def trade(app, rule):
    return app.execute(
        "INSERT INTO trade_records (id, strategy_rule_id, asset, direction, entry_price, entry_time, reasoning,"
        " confidence)"
        " VALUES ('trade-1', %s, 'ETH-USD', 'short', 3000.5, %s, 'swept the highs', 0.7) RETURNING id", (rule, NOON)
    ).fetchone()[0]


@statement(39, "open a trade; close it; find trades by asset and time")
def test_trade_is_opened_and_closed(app, rule, trade):
    assert app.execute(
        "SELECT strategy_rule_id, asset, direction, entry_price, exit_price, outcome, is_backtest FROM trade_records"
        " WHERE id = %s",
        (trade,)
    ).fetchone() == (rule, "ETH-USD", "short", 3000.5, None, "pending", False)
    closed = app.execute(
        "UPDATE trade_records SET exit_price = 2900.5, exit_time = %s, outcome = 'win', pnl_r = 2, pnl_usd = 100"
        " WHERE id = %s"
        " RETURNING outcome, pnl_usd, exit_price", (NOON + dt.timedelta(hours=2), trade)
    ).fetchone()
    assert closed == ("win", 100.0, 2900.5)
    assert app.execute(
        "SELECT id FROM trade_records WHERE asset = 'ETH-USD' AND NOT is_backtest ORDER BY entry_time DESC"
    ).fetchall() == [(trade,)]
    assert app.execute("SELECT symbol, asset_type::text, quote_currency FROM public.assets").fetchall() == [
        ("ETH-USD", "crypto", "USD")
    ]
    assert app.execute("DELETE FROM trade_records WHERE id = %s", (trade,)).rowcount == 1


@statement(40, "trades of a rule that does not exist are refused")
def test_trade_of_unknown_rule_is_refused(app):
    with pytest.raises(errors.ForeignKeyViolation), app.transaction():
        app.execute(
            "INSERT INTO trade_records (strategy_rule_id, asset, direction, entry_price) VALUES ('nobody',"
            " 'ETH-USD', 'long', 1)"
        )


@statement(58, "learning_entries and the trades that support them")
def test_learning_entry(app, rule, trade):
    key = app.execute(
        "INSERT INTO learning_entries (strategy_rule_id, insight, supporting_trades, confidence, impact_type,"
        " market_conditions)"
        " VALUES (%s, 'works in trends', %s, 0.6, 'filter', '{\"trend\": \"up\"}') RETURNING id", (rule, [trade])
    ).fetchone()[0]
    assert app.execute(
        "SELECT strategy_rule_id, supporting_trades, market_conditions->>'trend', validation_count FROM"
        " learning_entries"
        " WHERE %s = ANY (supporting_trades)", (trade,)
    ).fetchall() == [(rule, [trade], "up", 0)]
    assert app.execute(
        "UPDATE learning_entries SET validation_count = validation_count + 1 WHERE id = %s RETURNING"
        " validation_count", (key,)
    ).fetchone() == (1,)
    with pytest.raises(errors.ForeignKeyViolation), app.transaction():
        app.execute("UPDATE learning_entries SET supporting_trades = '{trade-9}'")
    assert app.execute("SELECT id FROM learning_entries ORDER BY validation_count DESC, confidence"
        " DESC").fetchall() == [(key,)]
    assert app.execute("DELETE FROM learning_entries WHERE id = %s", (key,)).rowcount == 1


@statement(72, "candle_data by asset and timeframe, newest first")
def test_candles(app):
    insert = (
        "INSERT INTO candle_data (asset, timeframe, timestamp, open, high, low, close, volume)"
        " VALUES ('ETH-USD', %s, %s, 1, 2, 0.5, %s, 10) RETURNING id"
    )
    keys = [app.execute(insert, ("5m", NOON + dt.timedelta(minutes=5 * n), n)).fetchone()[0] for n in range(4)]
    app.execute(insert, ("1h", NOON, 9))
    assert app.execute(
        "SELECT id, close FROM candle_data WHERE asset = 'ETH-USD' AND timeframe = '5m' ORDER BY timestamp DESC LIMIT 2"
    ).fetchall() == [(keys[3], 3), (keys[2], 2)]
    assert app.execute(insert, ("5m", NOON, 5)).fetchone() == (keys[0],)
    assert app.execute("UPDATE candle_data SET close = 6 WHERE id = %s RETURNING close", (keys[0],)).fetchone() == (6,)
    assert app.execute("DELETE FROM candle_data WHERE id = %s", (keys[0],)).rowcount == 1
    assert app.execute("SELECT count(*) FROM public.candles").fetchone() == (4,)


@statement(83, "backtest_configs, backtest_results and ingestion_tasks are Tidemark's own")
def test_backtests_and_tasks(app, rule):
    config = app.execute(
        "INSERT INTO backtest_configs (rule_id, name, asset_universe, interval, period_start, period_end)"
        " SELECT hyperliquid.strategy_rule(%s), 'run', ARRAY[_tidemark.find_or_create_asset('ETH-USD')], '1h', %s, %s"
        " RETURNING config_id", (rule, NOON, NOON + dt.timedelta(days=30))
    ).fetchone()[0]
    assert app.execute(
        "INSERT INTO backtest_results (config_id, period_start, period_end, win_rate, trade_count) VALUES (%s, %s,"
        " %s, 0.6, 10)"
        " RETURNING win_rate", (config, NOON, NOON + dt.timedelta(days=30))
    ).fetchone() == (0.6,)
    assert app.execute(
        "INSERT INTO ingestion_tasks (kind, source_ref) VALUES ('pdf', 'book.pdf') RETURNING status::text"
    ).fetchone() == ("queued",)


@statement(228, "strategy performance and trades by asset")
def test_performance(app, rule, trade):
    app.execute(
        "UPDATE trade_records SET exit_price = 2900.5, exit_time = %s, outcome = 'win', pnl_usd = 100 WHERE id = %s",
        (NOON + dt.timedelta(hours=2), trade)
    )
    assert app.execute(
        "SELECT r.name, t.asset, count(*), avg((t.outcome = 'win')::int)::float8, sum(t.pnl_usd) FROM strategy_rules r"
        " JOIN trade_records t ON t.strategy_rule_id = r.id GROUP BY 1, 2"
    ).fetchall() == [("London FVG", "ETH-USD", 1, 1.0, 100.0)]
