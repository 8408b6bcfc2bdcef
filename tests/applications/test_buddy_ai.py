"""Buddy AI: create, read, update and delete in each of its tables, in its own spelling."""

from __future__ import annotations

import datetime as dt

import pytest
from psycopg import errors

NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0NTY$" + "A" * 43


def statement(line: int, title: str):
    return pytest.mark.statement("buddy_ai", line, title)


@pytest.fixture
def app(use):
    return use("buddy_ai")


@pytest.fixture
def user(app):
    return app.execute(
        "INSERT INTO users (email, username, hashed_password, full_name, role) VALUES (%s, %s, %s, %s, %s) RETURNING"
        " id",
        ("ann@example.org", "ann", HASH, "Ann", "PREMIUM"),
    ).fetchone()[0]


@statement(133, "SELECT * FROM users")
def test_all_users(app, user):
    cursor = app.execute("SELECT * FROM users")
    assert [column.name for column in cursor.description] == [
        "id", "email", "username", "hashed_password", "full_name", "role", "is_active", "is_verified",
        "preferred_currency", "preferred_theme", "enable_notifications", "created_at", "updated_at", "last_login",
    ]
    row = cursor.fetchone()
    assert row[:11] == (user, "ann@example.org", "ann", HASH, "Ann", "PREMIUM", True, False, "USD", "system", True)
    assert isinstance(user, int)


@statement(10, "INSERT INTO users with a key of its own, UPDATE, DELETE")
def test_user_is_changed_and_deleted(app):
    row = app.execute(
        "INSERT INTO users (id, email, username, hashed_password) VALUES (4711, 'b@example.org', 'bob', %s)"
        " RETURNING id, role, is_active", (HASH,)
    ).fetchone()
    assert row == (4711, "USER", True)
    assert app.execute(
        "UPDATE users SET role = 'ADMIN', is_verified = true, last_login = %s WHERE id = 4711"
        " RETURNING role, is_verified, last_login", (NOON,)
    ).fetchone() == ("ADMIN", True, NOON)
    assert app.execute("SELECT role::text FROM public.users WHERE user_no = 4711").fetchone() == ("admin",)
    assert app.execute("DELETE FROM users WHERE id = 4711").rowcount == 1
    assert app.execute("SELECT count(*) FROM public.users WHERE user_no = 4711").fetchone() == (0,)


@statement(10, "users: username and email are unique, a role outside the enumeration is refused")
def test_impossible_users_are_refused(app, user):
    with pytest.raises(errors.UniqueViolation), app.transaction():
        app.execute("INSERT INTO users (email, username, hashed_password) VALUES ('ANN@example.org', 'x', %s)", (HASH,))
    with pytest.raises(errors.InvalidTextRepresentation), app.transaction():
        app.execute("UPDATE users SET role = 'KING' WHERE id = %s", (user,))


@statement(22, "INSERT INTO market_data … RETURNING id; latest price of a symbol")
def test_market_data_is_written_and_read_by_symbol(app):
    insert = (
        "INSERT INTO market_data (symbol, market, price, high, low, volume, change_24h, timestamp)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id"
    )
    first = app.execute(insert, ("EURUSD", "FOREX", 1.08, 1.09, 1.07, 5, 0.01, NOON)).fetchone()[0]
    second = app.execute(
        insert, ("EURUSD", "FOREX", 1.085, 1.09, 1.07, 6, 0.01, NOON + dt.timedelta(minutes=1))
    ).fetchone()[0]
    assert app.execute(
        "SELECT id, price, market FROM market_data WHERE symbol = 'EURUSD' AND market = 'FOREX'"
        " ORDER BY timestamp DESC LIMIT 1"
    ).fetchone() == (second, 1.085, "FOREX")
    assert app.execute("SELECT symbol, price FROM market_data WHERE id = %s", (first,)).fetchone() == ("EURUSD", 1.08)
    assert app.execute("SELECT asset_type::text, quote_currency FROM public.assets WHERE symbol ="
        " 'EURUSD'").fetchall() \
        == [("forex", "USD")]


@statement(22, "market_data: a snapshot stored twice is one row, the later")
def test_market_data_stored_again_replaces(app):
    insert = "INSERT INTO market_data (symbol, market, price, timestamp) VALUES ('AAPL', 'STOCK', %s, %s) RETURNING id"
    ids = {app.execute(insert, (price, NOON)).fetchone()[0] for price in (180.0, 181.0)}
    assert len(ids) == 1
    assert app.execute("SELECT price FROM market_data WHERE symbol = 'AAPL'").fetchall() == [(181.0,)]


@statement(22, "UPDATE and DELETE market_data by id")
def test_market_data_is_changed_and_deleted_by_id(app):
    key = app.execute(
        "INSERT INTO market_data (symbol, market, price, timestamp) VALUES ('AAPL', 'STOCK', 180, %s) RETURNING id",
        (NOON,)
    ).fetchone()[0]
    assert app.execute("UPDATE market_data SET price = 182 WHERE id = %s RETURNING price", (key,)).fetchone() == (182,)
    assert app.execute("SELECT price FROM public.quotes").fetchall() == [(182,)]
    assert app.execute("DELETE FROM market_data WHERE id = %s", (key,)).rowcount == 1
    assert app.execute("SELECT count(*) FROM public.quotes").fetchone() == (0,)


@pytest.fixture
def bars(app):
    app.cursor().executemany(
        "INSERT INTO ohlcv_data (symbol, market, timeframe, timestamp, open, high, low, close, volume)"
        " VALUES ('BTCUSDT', 'CRYPTO', %s, %s, 1, 3, 0.5, %s, 10)",
        [("1h", NOON + dt.timedelta(hours=n), 2 + n / 10) for n in range(5)] + [("1d", NOON, 2)],
    )
    return app


@statement(31, "ohlcv_data by symbol, market, timeframe and period, newest first")
def test_ohlcv_by_symbol_and_period(bars):
    assert bars.execute(
        "SELECT timestamp, close FROM ohlcv_data WHERE symbol = %s AND market = %s AND timeframe = %s"
        " AND timestamp BETWEEN %s AND %s ORDER BY timestamp DESC LIMIT 2",
        ("BTCUSDT", "CRYPTO", "1h", NOON, NOON + dt.timedelta(hours=3)),
    ).fetchall() == [(NOON + dt.timedelta(hours=3), 2.3), (NOON + dt.timedelta(hours=2), 2.2)]


@statement(36, "ohlcv_data: unique by symbol, market, timeframe, timestamp")
def test_ohlcv_is_unique(bars):
    with pytest.raises(errors.UniqueViolation), bars.transaction():
        bars.execute(
            "INSERT INTO ohlcv_data (symbol, market, timeframe, timestamp, close)"
            " VALUES ('BTCUSDT', 'CRYPTO', '1h', %s, 9)", (NOON,)
        )
    key = bars.execute(
        "INSERT INTO ohlcv_data (symbol, market, timeframe, timestamp, close)"
        " VALUES ('BTCUSDT', 'CRYPTO', '4h', %s, 9) RETURNING id", (NOON,)
    ).fetchone()[0]
    assert bars.execute("SELECT timeframe, close FROM ohlcv_data WHERE id = %s", (key,)).fetchone() == ("4h", 9)


@statement(189, "SELECT create_hypertable('ohlcv_data', 'timestamp')")
def test_ohlcv_is_a_hypertable_already(app):
    assert app.execute("SELECT table_name, created FROM create_hypertable('ohlcv_data', 'timestamp')").fetchone() == (
        "candles", False
    )
    with pytest.raises(errors.WrongObjectType), app.transaction():
        app.execute("SELECT create_hypertable('users', 'created_at')")
    app.execute("CREATE TABLE notes (at timestamptz NOT NULL)")
    assert app.execute("SELECT table_name, created FROM create_hypertable('notes', 'at')").fetchone() == ("notes", True)


@statement(38, "INSERT INTO predictions … RETURNING; what came of it")
def test_prediction_is_made_and_evaluated(app, user):
    key, due = app.execute(
        "INSERT INTO predictions (user_id, symbol, market, model, current_price, predicted_price, direction,"
        " confidence,"
        " target_price, timeframe, horizon_hours, features_used, model_version, created_at)"
        " VALUES (%s, 'BTCUSDT', 'CRYPTO', 'LSTM', 60000.5, 61000, 'STRONG_BUY', 0.8, 62000, '1h', 24, '[\"rsi\"]',"
        " '2', %s)"
        " RETURNING id, prediction_for", (user, NOON)
    ).fetchone()
    assert due == NOON + dt.timedelta(hours=24)
    assert app.execute(
        "SELECT user_id, symbol, market, model, current_price, direction, features_used FROM predictions WHERE id ="
        " %s", (key,)
    ).fetchone() == (user, "BTCUSDT", "CRYPTO", "LSTM", 60000.5, "STRONG_BUY", ["rsi"])
    assert app.execute(
        "UPDATE predictions SET actual_price = 60900, accuracy_score = 0.99, evaluated_at = %s WHERE id = %s"
        " RETURNING actual_price", (due, key)
    ).fetchone() == (60900.0,)
    assert app.execute("SELECT id FROM predictions WHERE model = 'LSTM' AND direction ="
        " 'STRONG_BUY'").fetchall() == [(key,)]
    assert app.execute("DELETE FROM predictions WHERE id = %s", (key,)).rowcount == 1


@statement(43, "predictions: directions and models outside the enumerations are refused")
def test_impossible_predictions_are_refused(app):
    insert = (
        "INSERT INTO predictions (symbol, market, model, current_price, predicted_price, direction, confidence,"
        " timeframe,"
        " horizon_hours) VALUES ('X', 'STOCK', %s, 1, 2, %s, %s, '1h', 1)"
    )
    for model, direction, confidence, error in [
        ("ORACLE", "BUY", 0.5, errors.InvalidTextRepresentation), ("TFT", "UP", 0.5, errors.InvalidTextRepresentation),
        ("TFT", "BUY", 1.5, errors.CheckViolation),
    ]:
        with pytest.raises(error), app.transaction():
            app.execute(insert, (model, direction, confidence))
    app.execute(insert, ("TFT", "BUY", 0.5))


@statement(51, "INSERT, SELECT, UPDATE, DELETE watchlists by user")
def test_watchlist_of_symbols(app, user):
    for symbol in ("AAPL", "MSFT"):
        app.execute(
            "INSERT INTO watchlists (user_id, symbol, market, notes) VALUES (%s, %s, 'STOCK', 'n')", (user, symbol)
        )
    assert app.execute(
        "SELECT symbol, market, notes FROM watchlists WHERE user_id = %s ORDER BY symbol", (user,)
    ).fetchall() == [("AAPL", "STOCK", "n"), ("MSFT", "STOCK", "n")]
    assert app.execute("SELECT name, is_default FROM public.watchlists").fetchall() == [("Default", True)]
    with pytest.raises(errors.UniqueViolation), app.transaction():
        app.execute("INSERT INTO watchlists (user_id, symbol, market) VALUES (%s, 'AAPL', 'STOCK')", (user,))
    assert app.execute("UPDATE watchlists SET notes = 'm' WHERE symbol = 'AAPL' RETURNING notes").fetchone() == ("m",)
    assert app.execute("DELETE FROM watchlists WHERE user_id = %s AND symbol = 'AAPL'", (user,)).rowcount == 1
    assert app.execute("SELECT symbol FROM watchlists").fetchall() == [("MSFT",)]


@statement(54, "user_id is a foreign key")
def test_unknown_user_is_refused(app):
    with pytest.raises(errors.ForeignKeyViolation), app.transaction():
        app.execute("INSERT INTO watchlists (user_id, symbol, market) VALUES (987654, 'AAPL', 'STOCK')")


@statement(59, "INSERT INTO alerts, which name no market; trigger one")
def test_alert_finds_the_asset_of_its_symbol(app, user):
    app.execute("INSERT INTO market_data (symbol, market, price, timestamp) VALUES ('GBPUSD', 'FOREX', 1.2, %s)",
        (NOON,))
    keys = [
        app.execute(
            "INSERT INTO alerts (user_id, symbol, alert_type, condition, target_value, message)"
            " VALUES (%s, %s, 'price', 'above', 1.3, 'look') RETURNING id", (user, symbol)
        ).fetchone()[0] for symbol in ("GBPUSD", "USDJPY", "SOLUSDT", "NVDA")
    ]
    assert dict(app.execute("SELECT symbol, asset_type::text FROM public.assets").fetchall()) == {
        "GBPUSD": "forex", "USDJPY": "forex", "SOLUSDT": "crypto", "NVDA": "stock",
    }
    assert app.execute(
        "UPDATE alerts SET is_triggered = true WHERE id = %s RETURNING is_triggered, triggered_at IS NOT NULL",
        (keys[0],)
    ).fetchone() == (True, True)
    assert app.execute("SELECT count(*) FROM alerts WHERE is_active AND NOT is_triggered").fetchone() == (3,)
    assert app.execute("DELETE FROM alerts WHERE user_id = %s", (user,)).rowcount == 4


@statement(70, "open a position, follow its price, close it")
def test_position_is_opened_and_closed(app, user):
    key = app.execute(
        "INSERT INTO positions (user_id, symbol, market, side, entry_price, quantity, pnl)"
        " VALUES (%s, 'BTCUSDT', 'CRYPTO', 'short', 100, 2, 0) RETURNING id", (user,)
    ).fetchone()[0]
    assert app.execute(
        "UPDATE positions SET current_price = 90 WHERE id = %s RETURNING pnl, pnl_percent, is_open", (key,)
    ).fetchone() == (20.0, 10.0, True)
    assert app.execute(
        "UPDATE positions SET is_open = false, exit_price = 80 WHERE id = %s RETURNING pnl, closed_at IS NOT NULL",
        (key,)
    ).fetchone() == (40.0, True)
    assert app.execute("SELECT id FROM positions WHERE user_id = %s AND is_open", (user,)).fetchall() == []
    assert app.execute("DELETE FROM positions WHERE id = %s", (key,)).rowcount == 1


@statement(24, "one symbol in two markets is two assets")
def test_symbol_in_two_markets(app):
    for market, price in (("FOREX", 1.0), ("CRYPTO", 2.0)):
        app.execute(
            "INSERT INTO market_data (symbol, market, price, timestamp) VALUES ('BTCUSD', %s, %s, %s)", (market,
            price, NOON)
        )
    assert app.execute("SELECT market, price FROM market_data WHERE symbol = 'BTCUSD' ORDER BY price").fetchall() == [
        ("FOREX", 1.0), ("CRYPTO", 2.0)
    ]


@statement(24, "an update stays with its own asset where two carry the symbol")
def test_update_does_not_move_a_row_to_another_asset(app, add):
    app.execute("SET LOCAL search_path = public")
    old, other = (add("assets", symbol="DUAL", exchange=exchange) for exchange in (None, "XLON"))
    add("quotes", asset_id=other, ts=NOON, price=5)
    app.execute("SET LOCAL search_path = buddy_ai, public")
    app.execute("UPDATE market_data SET price = 6 WHERE symbol = 'DUAL'")
    assert app.execute("SELECT asset_id, price FROM public.quotes").fetchall() == [(other, 6)]
    assert old != other
