"""What positions and trades are worth, and how the rules behind them do."""

from __future__ import annotations

import datetime as dt
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from conftest import adder
from psycopg import errors

NOON = dt.datetime(2025, 6, 2, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def user(add):
    return add("users")


@pytest.fixture
def asset(add):
    return add("assets", symbol="ACME")


@pytest.fixture
def position(add, user, asset):
    return lambda **columns: add("positions", **{
        "user_id": user, "asset_id": asset, "side": "long", "entry_price": 100, "quantity": 3, "opened_at": NOON,
        **columns,
    })


@pytest.fixture
def quote(add, asset):
    return lambda ts, price: add("quotes", asset_id=asset, ts=ts, price=price)


@pytest.fixture
def bar(add, asset):
    return lambda ts, close, interval="1d": add("candles", asset_id=asset, interval=interval, ts=ts, close=close)


@pytest.fixture
def live(tx):
    return lambda: tx.execute(
        "SELECT price, price_origin, priced_at, pnl, round(pnl_percent, 2) FROM open_positions_live"
        " ORDER BY position_id"
    ).fetchall()


def test_open_positions_follow_the_latest_price(position, quote, live):
    position()
    position(side="short", quantity=2)
    quote(NOON, 110)
    assert live() == [(110, "quote", NOON, 30, 10), (110, "quote", NOON, -20, -10)]
    quote(NOON + DAY, 95.5)
    assert live() == [(Decimal("95.5"), "quote", NOON + DAY, Decimal("-13.5"), Decimal("-4.5")),
                      (Decimal("95.5"), "quote", NOON + DAY, 9, Decimal("4.5"))]


def test_latest_price_is_that_of_whatever_is_newer_quote_or_bar(tx, asset, quote, bar):
    def latest(at=None):
        return tx.execute("SELECT price, ts, origin FROM latest_price(%s, coalesce(%s, now()))", (asset, at)).fetchone()

    assert latest() is None
    bar(NOON - 400 * DAY, 80)
    assert latest() == (80, NOON - 400 * DAY, "candle"), "however old"
    quote(NOON, 100)
    assert latest() == (100, NOON, "quote")
    bar(NOON, 101, "1h")
    assert latest() == (100, NOON, "quote")
    bar(NOON + DAY, 104, "1h")
    bar(NOON + DAY, 103, "4h")
    bar(NOON + DAY, None, "1d")
    assert latest() == (103, NOON + DAY, "candle")
    quote(NOON + 2 * DAY, float("nan"))
    assert latest() == (103, NOON + DAY, "candle")
    assert latest(NOON + DAY + dt.timedelta(hours=2)) == (104, NOON + DAY, "candle"), "the longer bar had not ended"
    assert latest(NOON - DAY) == (80, NOON - 400 * DAY, "candle")


def test_open_position_without_a_market_price_shows_what_the_application_wrote(position, live):
    position()
    position(current_price=120)
    assert live() == [(None, None, None, None, None), (120, "application", None, 60, 20)]


def test_closing_a_position_fills_in_when_and_at_what_price(tx, position, quote, live):
    key = position(current_price=90)
    quote(NOON + DAY, 130)
    closed = tx.execute(
        "UPDATE positions SET is_open = false WHERE position_id = %s"
        " RETURNING exit_price, closed_at = now(), pnl, round(pnl_percent, 2)", (key,)
    ).fetchone()
    assert closed == (130, True, 90, 30)
    assert live() == []


def test_what_is_said_on_closing_stands(tx, position, quote):
    key = position(side="short")
    quote(NOON, 130)
    quote(NOON + DAY, 70)
    assert tx.execute(
        "UPDATE positions SET is_open = false, exit_price = 80, closed_at = %s WHERE position_id = %s"
        " RETURNING exit_price, closed_at, pnl", (NOON + DAY, key)
    ).fetchone() == (80, NOON + DAY, 60)
    earlier = position(is_open=False, closed_at=NOON + DAY / 2)
    assert tx.execute("SELECT exit_price FROM positions WHERE position_id = %s", (earlier,)).fetchone() == (130,)


def test_position_without_a_market_price_closes_at_the_applications_or_not_at_all(tx, position):
    key = position(current_price=90)
    assert tx.execute(
        "UPDATE positions SET is_open = false WHERE position_id = %s RETURNING exit_price", (key,)
    ).fetchone() == (90,)
    with pytest.raises(errors.CheckViolation) as refused:
        position(is_open=False)
    assert refused.value.diag.constraint_name == "positions_closed_has_exit"


def test_exit_before_entry_is_refused(tx, add, asset, position):
    for constraint, statement, values in [
        ("positions_closed_after_opened", position,
         {"is_open": False, "exit_price": 1, "closed_at": NOON - DAY}),
        ("trades_exit_after_entry", add,
         {"table": "trades", "asset_id": asset, "trade_type": "buy", "quantity": 1, "entry_price": 1,
          "entry_time": NOON, "status": "executed", "exit_price": 1, "exit_time": NOON - DAY}),
        ("trades_exit_after_entry", add,
         {"table": "trades", "asset_id": asset, "trade_type": "buy", "quantity": 1, "entry_price": 1,
          "entry_time": dt.datetime.now(dt.UTC) + DAY, "status": "executed", "exit_price": 1}),
    ]:
        with pytest.raises(errors.CheckViolation) as refused, tx.transaction():
            statement(**values)
        assert refused.value.diag.constraint_name == constraint


@pytest.fixture
def trade(add, asset):
    return lambda **columns: add("trades", **{
        "asset_id": asset, "trade_type": "buy", "quantity": 2, "entry_price": 100, "entry_time": NOON,
        "status": "executed", **columns,
    })


@pytest.fixture
def rule(add):
    return lambda **columns: add("strategy_rules", **{"name": "r", "entry_type": "x", **columns})


@pytest.fixture
def signal(add, asset):
    return lambda **columns: add("signals", **{"asset_id": asset, "ts": NOON, "signal_type": "buy", **columns})


@pytest.fixture
def result(tx):
    return lambda key: tx.execute(
        "SELECT outcome::text, pnl, pnl_r FROM trades WHERE trade_id = %s", (key,)
    ).fetchone()


@pytest.mark.parametrize(("direction", "exit_price", "expected"), [
    ("long", 110, ("win", 20)), ("long", 95, ("loss", -10)), ("short", 95, ("win", 10)), ("short", 110, ("loss", -20)),
    ("long", 100, ("loss", 0)), ("long", 0, ("loss", -200)),
])
def test_trade_is_settled_when_it_gets_an_exit(tx, trade, result, direction, exit_price, expected):
    key = trade(direction=direction)
    assert result(key) == ("pending", None, None)
    tx.execute("UPDATE trades SET exit_price = %s WHERE trade_id = %s", (exit_price, key))
    assert result(key) == (*expected, None)
    assert tx.execute("SELECT exit_time = now() FROM trades").fetchone() == (True,)
    assert result(trade(direction=direction, exit_price=exit_price, exit_time=NOON)) == (*expected, None)


@pytest.mark.parametrize(("stop", "params", "direction", "r"), [
    (95, {}, "long", 2.0), (105, {}, "short", -2.0), (None, {"stop_distance": 4}, "long", 2.5),
    (None, {"stop_percent": 2.5}, "short", -4.0), (98, {"stop_distance": 4}, "long", 5.0),
    (105, {"stop_distance": 4}, "long", 2.5), (105, {}, "long", None), (None, {"stop_distance": "far"}, "long", None),
    (None, {"stop_distance": 0}, "long", None), (None, {"stop_percent": -1}, "long", None), (100, {}, "long", None),
])
def test_r_multiple_comes_from_the_signals_stop_else_from_the_rules_risk(
    trade, rule, signal, result, stop, params, direction, r,
):
    key = trade(direction=direction, exit_price=110, signal_id=signal(stop_loss=stop),
                strategy_rule_id=rule(risk_params=json.dumps(params)))
    assert result(key)[2] == r


def test_what_the_application_states_about_a_trade_stands(tx, trade, result):
    key = trade()
    tx.execute("UPDATE trades SET exit_price = 90, outcome = 'win', pnl = 7, pnl_r = 0.5 WHERE trade_id = %s", (key,))
    assert result(key) == ("win", 7, 0.5)
    tx.execute("UPDATE trades SET reasoning = 'hm' WHERE trade_id = %s", (key,))
    assert result(key) == ("win", 7, 0.5)
    assert result(trade(exit_price=110, pnl=-1)) == ("loss", -1, None), "fees took the gain"


def test_corrected_exit_settles_a_trade_again_and_a_withdrawn_one_unsettles_it(tx, trade, signal, result):
    key = trade(exit_price=110, signal_id=signal(stop_loss=90))
    assert result(key) == ("win", 20, 1.0)
    tx.execute("UPDATE trades SET exit_price = 85 WHERE trade_id = %s", (key,))
    assert result(key) == ("loss", -30, -1.5)
    tx.execute("UPDATE trades SET quantity = 4 WHERE trade_id = %s", (key,))
    assert result(key) == ("loss", -60, -1.5)
    tx.execute("UPDATE trades SET exit_price = NULL, exit_time = NULL WHERE trade_id = %s", (key,))
    assert result(key) == ("pending", None, None)


@pytest.mark.parametrize("status", ["pending", "failed", "cancelled"])
def test_trade_that_was_not_executed_has_no_result(trade, result, status):
    assert result(trade(status=status, exit_price=110)) == ("pending", None, None)


def test_exit_of_a_simulated_trade_is_not_dated_today(tx, trade):
    key = trade(exit_price=110, is_backtest=True)
    assert tx.execute(
        "SELECT exit_time, outcome::text FROM trades WHERE trade_id = %s", (key,)
    ).fetchone() == (None, "win")


def test_trade_on_a_signal_of_another_asset_is_refused(tx, add, trade, signal):
    other = add("assets")
    stray = signal(asset_id=other)
    with pytest.raises(errors.Error) as refused, tx.transaction():
        trade(signal_id=stray)
    assert refused.value.sqlstate == "TM611"
    key = trade(signal_id=signal())
    for statement, value in [("UPDATE trades SET signal_id = %s", stray), ("UPDATE trades SET asset_id = %s", other),
                             ("UPDATE signals SET asset_id = %s WHERE signal_id <> 0", other)]:
        with pytest.raises(errors.Error) as refused, tx.transaction():
            tx.execute(statement, (value,))
        assert refused.value.sqlstate == "TM611", statement
    tx.execute("UPDATE trades SET signal_id = %s, asset_id = %s WHERE trade_id = %s", (stray, other, key))
    with pytest.raises(errors.ForeignKeyViolation):
        trade(signal_id=0)


@pytest.fixture
def figures(tx):
    def read(rule):
        tx.execute("SET CONSTRAINTS ALL IMMEDIATE")
        found = tx.execute(
            "SELECT trade_count, win_rate, avg_r_multiple FROM strategy_rules WHERE rule_id = %s", (rule,)
        ).fetchone()
        tx.execute("SET CONSTRAINTS ALL DEFERRED")
        return found

    return read


def test_rules_follow_their_closed_trades(tx, trade, rule, figures):
    one, two = rule(risk_params='{"stop_distance": 10}'), rule()
    assert figures(one) == (0, None, None)
    win = trade(strategy_rule_id=one, exit_price=120)
    trade(strategy_rule_id=one)
    trade(strategy_rule_id=one, exit_price=110, is_backtest=True)
    trade(exit_price=110)
    assert figures(one) == (1, 1.0, 2.0)
    loss = trade(strategy_rule_id=one, exit_price=90)
    trade(strategy_rule_id=one, exit_price=95)
    assert figures(one) == (3, pytest.approx(1 / 3), pytest.approx((2 - 1 - 0.5) / 3))
    tx.execute("UPDATE trades SET exit_price = 130 WHERE trade_id = %s", (loss,))
    assert figures(one) == (3, pytest.approx(2 / 3), pytest.approx((2 + 3 - 0.5) / 3))
    tx.execute("UPDATE trades SET strategy_rule_id = %s WHERE trade_id = %s", (two, win))
    assert (figures(one), figures(two)) == ((2, 0.5, 1.25), (1, 1.0, 2.0))
    tx.execute("UPDATE trades SET is_backtest = true WHERE trade_id = %s", (loss,))
    assert figures(one) == (1, 0.0, -0.5)
    tx.execute("UPDATE trades SET is_backtest = false WHERE trade_id = %s", (loss,))
    tx.execute("DELETE FROM trades WHERE trade_id = %s", (loss,))
    assert figures(one) == (1, 0.0, -0.5)
    tx.execute("TRUNCATE trades")
    assert (figures(one), figures(two)) == ((0, None, None), (0, None, None))
    assert tx.execute("SELECT count(*) FROM _tidemark.stale_rules").fetchone() == (0,)


def test_rule_whose_trades_did_not_change_is_left_alone(tx, trade, rule, figures):
    key = rule()
    trade(strategy_rule_id=key, exit_price=120)
    assert figures(key) == (1, 1.0, None)
    before = tx.execute("SELECT ctid FROM strategy_rules").fetchone()
    tx.execute("UPDATE trades SET reasoning = 'hm'")
    trade(strategy_rule_id=key)
    assert figures(key) == (1, 1.0, None)
    assert tx.execute("SELECT ctid FROM strategy_rules").fetchone() == before


def test_rules_count_right_under_writers_that_take_them_in_opposite_order(db):
    writers, rounds = 4, 8
    with db.connect() as connection:
        add = adder(connection)
        asset = add("assets")
        rules = [add("strategy_rules", name=str(number), entry_type="x", risk_params='{"stop_distance": 10}')
                 for number in range(3)]

    def work(number):
        order = rules if number % 2 else rules[::-1]
        with db.connect() as connection:
            connection.execute("SET deadlock_timeout = '100ms'")
            for turn in range(rounds):
                with connection.transaction():
                    for rule in order:
                        connection.execute(
                            "INSERT INTO trades (asset_id, trade_type, quantity, entry_price, exit_price, status,"
                            " strategy_rule_id) VALUES (%s, 'buy', 1, 100, %s, 'executed', %s)",
                            (asset, 110 if turn % 4 else 90, rule),
                        )
                        started.wait() if turn == 0 and rule is order[0] else None

    started = threading.Barrier(writers, timeout=30)
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(work, range(writers)))
    with db.connect() as connection:
        assert connection.execute("SELECT trade_count, win_rate, avg_r_multiple FROM strategy_rules").fetchall() == [
            (writers * rounds, 0.75, 0.5)
        ] * 3


def test_writer_whose_snapshot_is_too_old_to_count_fails_rather_than_miscounts(db):
    with db.connect() as first, db.connect() as second:
        add = adder(first)
        asset, rule = add("assets"), add("strategy_rules", name="r", entry_type="x")
        statement = ("INSERT INTO trades (asset_id, trade_type, quantity, entry_price, exit_price, status,"
                     " strategy_rule_id) VALUES (%s, 'buy', 1, 100, 110, 'executed', %s)", (asset, rule))
        second.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        second.execute(*statement)
        first.execute(*statement)
        with pytest.raises(errors.SerializationFailure):
            second.execute("COMMIT")
        assert first.execute(
            "SELECT trade_count, (SELECT count(*) FROM trades) FROM strategy_rules"
        ).fetchone() == (1, 1)
