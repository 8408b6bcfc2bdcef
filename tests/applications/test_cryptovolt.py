"""CryptoVolt: what its ORM and DatabaseService do, as the SQL they send, in its own spelling."""

from __future__ import annotations

import datetime as dt

import pytest
from psycopg import errors

NOON = dt.datetime(2024, 3, 1, 12)
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0NTY$" + "A" * 43


def statement(line: int, title: str):
    return pytest.mark.statement("cryptovolt", line, title)


@pytest.fixture
def app(use):
    return use("cryptovolt")


@pytest.fixture
def user(app):
    return app.execute(
        "INSERT INTO users (username, email, password_hash) VALUES ('trader', 'trader@cryptovolt.local', %s)"
        " RETURNING user_id", (HASH,)
    ).fetchone()[0]


@statement(272, "create a user; query active users; update; delete")
def test_user_crud(app, user):
    active = "SELECT user_id, username, email, password_hash, is_active FROM users WHERE is_active = true"
    assert app.execute(active).fetchall() == [(user, "trader", "trader@cryptovolt.local", HASH, True)]
    assert app.execute("UPDATE users SET is_active = false WHERE user_id = %s", (user,)).rowcount == 1
    assert app.execute(active).fetchall() == []
    assert app.execute("DELETE FROM users WHERE user_id = %s", (user,)).rowcount == 1
    assert app.execute("SELECT count(*) FROM public.users").fetchone() == (0,)


@statement(143, "trading_strategies: create with JSON parameters, switch on, find by user")
def test_strategy_crud(app, user):
    key, active = app.execute(
        "INSERT INTO trading_strategies (user_id, name, parameters) VALUES (%s, 'grid', '{\"step\": 2}')"
        " RETURNING strategy_id, is_active", (user,)
    ).fetchone()
    assert active is False
    assert app.execute(
        "UPDATE trading_strategies SET is_active = true WHERE strategy_id = %s RETURNING user_id,"
        " parameters->>'step'", (key,)
    ).fetchone() == (user, "2")
    with pytest.raises(errors.ForeignKeyViolation), app.transaction():
        app.execute("INSERT INTO trading_strategies (user_id, name) VALUES (987654, 'x')")
    assert app.execute("DELETE FROM trading_strategies WHERE user_id = %s", (user,)).rowcount == 1


@pytest.fixture
def bars(app):
    app.cursor().executemany(
        "INSERT INTO market_data (symbol, timestamp, open_price, high_price, low_price, close_price, volume, source)"
        " VALUES (%s, %s, 1, 9, 0.5, %s, 10, 'binance')",
        [(symbol, NOON + dt.timedelta(hours=n), close + n) for symbol, close in (("BTCUSDT", 4), ("ETHUSDT", 2))
         for n in range(4)],
    )
    return app


@statement(301, "average price by symbol")
def test_average_price(bars):
    assert bars.execute(
        "SELECT symbol, AVG(close_price) as avg_price FROM market_data GROUP BY symbol ORDER BY avg_price DESC"
    ).fetchall() == [("BTCUSDT", 5.5), ("ETHUSDT", 3.5)]


@statement(329, "filter_by_symbol, filter_by_date_range, list_all with skip and limit")
def test_market_data_is_filtered_and_paged(bars):
    assert bars.execute("SELECT count(*) FROM market_data WHERE symbol = 'BTCUSDT'").fetchone() == (4,)
    assert bars.execute(
        "SELECT symbol, timestamp FROM market_data WHERE timestamp >= %s AND timestamp <= %s ORDER BY symbol",
        (NOON + dt.timedelta(hours=3), NOON + dt.timedelta(days=1)),
    ).fetchall() == [("BTCUSDT", NOON + dt.timedelta(hours=3)), ("ETHUSDT", NOON + dt.timedelta(hours=3))]
    pages = [
        bars.execute("SELECT data_id FROM market_data ORDER BY data_id LIMIT 3 OFFSET %s", (skip,)).fetchall()
        for skip in (0, 3, 6, 9)
    ]
    assert [len(page) for page in pages] == [3, 3, 2, 0]
    assert len({key for page in pages for key in page}) == 8


@statement(322, "read, update and delete one market_data row by its id")
def test_market_data_by_id(bars):
    key, source = bars.execute(
        "SELECT data_id, source FROM market_data WHERE symbol = 'ETHUSDT' AND timestamp = %s", (NOON,)
    ).fetchone()
    assert source == "binance"
    assert bars.execute("SELECT symbol, close_price FROM market_data WHERE data_id = %s", (key,)).fetchone() == (
        "ETHUSDT", 2.0
    )
    assert bars.execute(
        "UPDATE market_data SET close_price = 2.5, source = 'kraken' WHERE data_id = %s RETURNING close_price,"
        " source", (key,)
    ).fetchone() == (2.5, "kraken")
    assert bars.execute("SELECT provider, count(*) FROM public.sources GROUP BY 1 ORDER BY 1").fetchall() == [
        ("binance", 2), ("kraken", 1)
    ]
    assert bars.execute("DELETE FROM market_data WHERE data_id = %s", (key,)).rowcount == 1
    assert bars.execute("SELECT count(*) FROM public.candles").fetchone() == (7,)


@statement(161, "a bar delivered twice is one row, the later; RETURNING tells its id")
def test_market_data_delivered_again_replaces(bars):
    key = bars.execute("SELECT data_id FROM market_data WHERE symbol = 'BTCUSDT' AND timestamp = %s",
        (NOON,)).fetchone()
    assert bars.execute(
        "INSERT INTO market_data (symbol, timestamp, close_price) VALUES ('BTCUSDT', %s, 7) RETURNING data_id", (NOON,)
    ).fetchone() == key
    assert bars.execute(
        "SELECT close_price FROM market_data WHERE symbol = 'BTCUSDT' AND timestamp = %s", (NOON,)
    ).fetchall() == [(7.0,)]


@statement(164, "TIMESTAMP is UTC, whatever the session's time zone")
def test_instants_are_utc(app):
    app.execute("SET LOCAL timezone = 'Asia/Tokyo'")
    assert app.execute(
        "INSERT INTO market_data (symbol, timestamp, close_price) VALUES ('BTCUSDT', %s, 7) RETURNING timestamp",
        (NOON,)
    ).fetchone() == (NOON,)
    assert app.execute("SELECT timestamp FROM market_data").fetchone() == (NOON,)
    assert app.execute("SELECT ts = '2024-03-01 12:00+00' FROM public.candles").fetchone() == (True,)


@statement(159, "the length of the bars is a setting")
def test_length_of_bars(app):
    app.execute("INSERT INTO market_data (symbol, timestamp, close_price) VALUES ('BTCUSDT', %s, 1)", (NOON,))
    app.execute("SET LOCAL cryptovolt.interval = '15m'")
    assert app.execute("SELECT count(*) FROM market_data").fetchone() == (0,)
    app.execute("INSERT INTO market_data (symbol, timestamp, close_price) VALUES ('BTCUSDT', %s, 2)", (NOON,))
    assert app.execute("SELECT interval::text, close FROM public.candles ORDER BY close").fetchall() == [("1h", 1),
        ("15m", 2)]


@statement(326, "bulk_create market_data in one statement")
def test_bulk_create(app):
    keys = app.execute(
        "INSERT INTO market_data (symbol, timestamp, close_price)"
        " SELECT 'BTCUSDT', %s + n * interval '1 hour', n FROM generate_series(1, 500) AS n RETURNING data_id", (NOON,)
    ).fetchall()
    assert len(set(keys)) == 500
    assert app.execute("SELECT count(*), count(*) FILTER (WHERE symbol = 'BTCUSDT') FROM"
        " market_data").fetchone() == (500, 500)
    assert app.execute("SELECT count(*) FROM public.assets").fetchone() == (1,)


@statement(331, "search_text in sentiment_data; by source; scores kept in range")
def test_sentiment_is_searched(app):
    insert = "INSERT INTO sentiment_data (symbol, source, text, sentiment_score, timestamp, extra_data) VALUES" \
             " ('BTCUSDT', %s, %s, %s, %s, '{\"likes\": 3}') RETURNING sentiment_id"
    key = app.execute(insert, ("reddit", "Bitcoin to the MOON", 0.9, NOON)).fetchone()[0]
    app.execute(insert, ("news", "rates rise", -0.2, NOON))
    assert app.execute(
        "SELECT sentiment_id, symbol, extra_data->>'likes', timestamp FROM sentiment_data"
        " WHERE text ILIKE '%moon%' OR source ILIKE '%moon%'"
    ).fetchall() == [(key, "BTCUSDT", "3", NOON)]
    assert app.execute("SELECT avg(sentiment_score) FROM sentiment_data WHERE source = 'news'").fetchone() == (-0.2,)
    with pytest.raises(errors.CheckViolation), app.transaction():
        app.execute(insert, ("news", "x", 1.5, NOON))
    assert app.execute(
        "UPDATE sentiment_data SET sentiment_score = 0.8 WHERE sentiment_id = %s RETURNING sentiment_score", (key,)
    ).fetchone() == (0.8,)


@statement(117, "clean: texts older than 30 days, bars older than 90")
def test_old_rows_are_cleaned(bars):
    bars.execute(
        "INSERT INTO sentiment_data (symbol, source, text, sentiment_score, timestamp) VALUES ('BTCUSDT', 'news',"
        " 'x', 0, %s),"
        " ('BTCUSDT', 'news', 'x', 0, %s)", (NOON, NOON + dt.timedelta(days=100))
    )
    cutoff = NOON + dt.timedelta(hours=2)
    assert bars.execute("DELETE FROM sentiment_data WHERE timestamp < %s", (cutoff,)).rowcount == 1
    assert bars.execute("DELETE FROM market_data WHERE timestamp < %s", (cutoff,)).rowcount == 4
    assert bars.execute("SELECT count(*) FROM market_data").fetchone() == (4,)


@pytest.fixture
def signal(app, user):
    strategy = app.execute(
        "INSERT INTO trading_strategies (user_id, name) VALUES (%s, 'grid') RETURNING strategy_id", (user,)
    ).fetchone()[0]
    model = app.execute(
        "INSERT INTO models (name, model_type, version, accuracy, trained_on, extra_data)"
        " VALUES ('m', 'xgboost', '1', 0.7, %s, '{\"depth\": 3}') RETURNING model_id", (NOON,)
    ).fetchone()[0]
    return app.execute(
        "INSERT INTO signals (strategy_id, model_id, symbol, signal_type, confidence, timestamp)"
        " VALUES (%s, %s, 'BTCUSDT', 'BUY', 0.8, %s) RETURNING signal_id", (strategy, model, NOON)
    ).fetchone()[0]


@statement(194, "signals of a model and a strategy, by type and time")
def test_signal(app, signal):
    assert app.execute(
        "SELECT s.signal_id, s.symbol, s.signal_type, s.timestamp, t.name, m.model_type, m.trained_on,"
        " m.extra_data->>'depth'"
        " FROM signals s JOIN trading_strategies t ON t.strategy_id = s.strategy_id JOIN models m ON m.model_id ="
        " s.model_id"
        " WHERE s.signal_type = 'BUY' AND s.timestamp >= %s", (NOON,)
    ).fetchall() == [(signal, "BTCUSDT", "BUY", NOON, "grid", "xgboost", NOON, "3")]
    assert app.execute(
        "UPDATE signals SET signal_type = 'sell' WHERE signal_id = %s RETURNING signal_type", (signal,)
    ).fetchone() == ("SELL",)
    with pytest.raises(errors.InvalidTextRepresentation), app.transaction():
        app.execute("UPDATE signals SET signal_type = 'MAYBE'")


@statement(228, "models of any type keep their name for it")
def test_model_of_unknown_type(app):
    key, kind = app.execute(
        "INSERT INTO models (name, model_type) VALUES ('f', 'random_forest') RETURNING model_id, model_type"
    ).fetchone()
    assert kind == "random_forest"
    assert app.execute("SELECT model_type::text FROM public.models").fetchone() == ("other",)
    assert app.execute("UPDATE models SET model_type = 'LSTM', auc = 0.9 WHERE model_id = %s RETURNING model_type,"
        " auc", (key,)
                       ).fetchone() == ("lstm", 0.9)
    assert app.execute("DELETE FROM models WHERE model_id = %s", (key,)).rowcount == 1


@statement(209, "record a trade on a signal; execute it; book its result")
def test_trade(app, signal):
    key, status, paper = app.execute(
        "INSERT INTO trades (signal_id, symbol, trade_type, price, quantity, timestamp)"
        " VALUES (%s, 'BTCUSDT', 'BUY', 60000.5, 0.1, %s) RETURNING trade_id, status, is_paper_trade", (signal, NOON)
    ).fetchone()
    assert (status, paper) == ("PENDING", True)
    assert isinstance(key, int)
    assert app.execute(
        "UPDATE trades SET status = 'EXECUTED' WHERE trade_id = %s RETURNING status, price, quantity, timestamp", (key,)
    ).fetchone() == ("EXECUTED", 60000.5, 0.1, NOON)
    assert app.execute("SELECT trade_id FROM trades WHERE symbol = 'BTCUSDT' AND status ="
        " 'EXECUTED'").fetchall() == [(key,)]
    short = app.execute(
        "INSERT INTO trades (symbol, trade_type, price, quantity) VALUES ('BTCUSDT', 'SELL', 1, 1) RETURNING trade_id"
    ).fetchone()[0]
    assert app.execute("SELECT direction::text FROM public.trades WHERE trade_no = %s",
        (short,)).fetchone() == ("short",)
    assert app.execute("DELETE FROM trades WHERE trade_id = %s", (key,)).rowcount == 1


@statement(245, "alerts for a user and for all; mark as read")
def test_alerts(app, user):
    app.execute(
        "INSERT INTO alerts (user_id, alert_type, message, timestamp) VALUES (%s, 'SIGNAL', 'buy', %s),"
        " (NULL, 'SYSTEM', 'down', %s)", (user, NOON, NOON)
    )
    assert app.execute(
        "UPDATE alerts SET is_read = true WHERE user_id = %s RETURNING alert_type, message, is_read, timestamp,"
        " created_at",
        (user,)
    ).fetchall() == [("SIGNAL", "buy", True, NOON, NOON)]
    assert app.execute("SELECT alert_type, user_id FROM alerts WHERE is_read = false").fetchall() == [("SYSTEM", None)]
    assert app.execute("DELETE FROM alerts").rowcount == 2


@statement(334, "get_table_row_count of every table")
def test_row_counts(app, signal):
    tables = ("users", "trading_strategies", "market_data", "sentiment_data", "signals", "trades", "models", "alerts")
    assert {table: app.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables} == {
        "users": 1, "trading_strategies": 1, "market_data": 0, "sentiment_data": 0, "signals": 1, "trades": 0,
        "models": 1, "alerts": 0,
    }
