"""Trading Manager: its tables with uuid keys, its common queries, and candles as the hypertable it manages."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from psycopg import errors

DAY = dt.timedelta(days=1)
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0NTY$" + "A" * 43


def statement(line: int, title: str):
    return pytest.mark.statement("trading_manager", line, title)


@pytest.fixture
def app(use):
    return use("trading_manager")


@pytest.fixture
def assets(app):
    """Two assets with forty daily bars each and an hourly one that daily questions must not see."""
    keys = {
        symbol: app.execute(
            "INSERT INTO assets (symbol, name, asset_type, exchange, sector, industry)"
            " VALUES (%s, %s, 'stock', 'XNAS', 'Technology', 'Software') RETURNING id", (symbol, symbol)
        ).fetchone()[0] for symbol in ("MSFT", "AAPL")
    }
    app.cursor().executemany(
        "INSERT INTO candles (asset_id, ts, interval, open, high, low, close, volume, trades, vwap)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, 1000, 5, %s)",
        [(key, START + n * DAY, "1d", base + n, base + n + 2, base + n - 1, base + n + 1, base + n)
         for key, base in zip(keys.values(), (100, 10), strict=True) for n in range(40)]
        + [(keys["AAPL"], START, "1h", 1, 999, 0.1, 500, 1)],
    )
    return keys


@statement(223, "latest candles of an asset")
def test_latest_candles(app, assets):
    rows = app.execute(
        "SELECT ts, open, high, low, close, volume FROM candles WHERE asset_id = %s AND interval = '1d'"
        " ORDER BY ts DESC LIMIT 30", (assets["AAPL"],)
    ).fetchall()
    assert len(rows) == 30
    assert rows[0] == (START + 39 * DAY, 49, 51, 48, 50, 1000)


@statement(234, "latest indicators")
def test_latest_indicators(app, assets):
    insert = (
        "INSERT INTO indicators (asset_id, ts, indicator_type, name, value, value2, parameters, timeframe)"
        " VALUES (%s, %s, 'macd', 'macd_12_26', %s, 2, '{\"fast\": 12}', '1d') RETURNING id"
    )
    now = app.execute("SELECT now()").fetchone()[0]
    first = app.execute(insert, (assets["AAPL"], now - DAY, 1.5)).fetchone()[0]
    second = app.execute(insert, (assets["MSFT"], now - 8 * DAY, 9)).fetchone()[0]
    assert first != second
    assert app.execute(
        "SELECT a.symbol, i.name, i.value, i.ts FROM indicators i JOIN assets a ON a.id = i.asset_id"
        " WHERE i.ts >= NOW() - INTERVAL '7 days' ORDER BY a.symbol, i.ts DESC"
    ).fetchall() == [("AAPL", "macd_12_26", 1.5, now - DAY)]
    assert app.execute(
        "INSERT INTO indicators (asset_id, ts, indicator_type, name, value, timeframe) VALUES (%s, %s, 'macd',"
        " 'macd_12_26', 3, '1d')"
        " ON CONFLICT (asset_id, timeframe, name, ts) DO UPDATE SET value = excluded.value RETURNING id, value",
        (assets["AAPL"], now - DAY)
    ).fetchone() == (first, 3)
    assert app.execute("DELETE FROM indicators WHERE id = %s", (second,)).rowcount == 1


@pytest.fixture
def signals(app, assets):
    for symbol, day, kind, active in (
        ("AAPL", 1, "buy", "true"), ("AAPL", 3, "strong_buy", "true"), ("AAPL", 5, "sell", "false"), ("MSFT", 2,
            "hold", "true"),
    ):
        app.execute(
            "INSERT INTO signals (asset_id, ts, signal_type, strength, confidence, price, stop_loss, strategy,"
            " rationale,"
            " indicators_used, timeframe, is_active) VALUES (%s, %s, %s, 2.5, 0.7, 10.5, 9, 's', %s, '[\"rsi\"]',"
            " '1d', %s)",
            (assets[symbol], START + day * DAY, kind, f"day {day}", active),
        )
    return app


@statement(248, "active signals")
def test_active_signals(signals):
    assert signals.execute(
        "SELECT a.symbol, s.signal_type, s.strength, s.confidence, s.rationale, s.ts FROM signals s"
        " JOIN assets a ON a.id = s.asset_id WHERE s.is_active = 'true' ORDER BY s.ts DESC"
    ).fetchall() == [
        ("AAPL", "strong_buy", 2.5, 0.7, "day 3", START + 3 * DAY), ("MSFT", "hold", 2.5, 0.7, "day 2",
            START + 2 * DAY),
        ("AAPL", "buy", 2.5, 0.7, "day 1", START + DAY),
    ]


@statement(264, "latest signal per asset")
def test_latest_signal_per_asset(signals):
    assert signals.execute(
        "WITH ranked AS (SELECT s.*, a.symbol, ROW_NUMBER() OVER (PARTITION BY s.asset_id ORDER BY s.ts DESC) AS rn"
        " FROM signals s JOIN assets a ON a.id = s.asset_id WHERE s.is_active = 'true')"
        " SELECT symbol, signal_type, rationale FROM ranked WHERE rn = 1 ORDER BY ts DESC"
    ).fetchall() == [("AAPL", "strong_buy", "day 3"), ("MSFT", "hold", "day 2")]


@statement(61, "signals are generated, switched off, deleted by id")
def test_signal_crud(signals):
    key, generated = signals.execute(
        "UPDATE signals SET is_active = 'false', expires_at = ts + interval '1 day' WHERE rationale = 'day 1'"
        " RETURNING id, generated_at IS NOT NULL"
    ).fetchone()
    assert generated
    assert signals.execute("SELECT is_active FROM public.signals WHERE signal_id = %s", (key,)).fetchone() == (False,)
    assert signals.execute("DELETE FROM signals WHERE id = %s", (key,)).rowcount == 1


@statement(288, "price statistics by asset")
def test_price_statistics(app, assets):
    assert app.execute(
        "SELECT a.symbol, COUNT(*) as candle_count, MIN(c.ts) as first_date, MAX(c.ts) as last_date, MIN(c.low) as"
        " all_time_low, MAX(c.high) as all_time_high, AVG(c.close) as avg_price FROM candles c JOIN assets a ON a.id"
        " = c.asset_id"
        " WHERE c.interval = '1d' GROUP BY a.symbol ORDER BY a.symbol"
    ).fetchall() == [
        ("AAPL", 40, START, START + 39 * DAY, 9, 51, 30.5), ("MSFT", 40, START, START + 39 * DAY, 99, 141, 120.5)
    ]


@statement(306, "recent price changes")
def test_recent_changes(app, assets):
    assert app.execute(
        "WITH latest AS (SELECT DISTINCT ON (asset_id) asset_id, close AS current_price, ts AS current_date FROM"
        " candles"
        " WHERE interval = '1d' ORDER BY asset_id, ts DESC), previous AS (SELECT DISTINCT ON (c.asset_id) c.asset_id,"
        " c.close AS previous_price FROM candles c JOIN latest l ON l.asset_id = c.asset_id WHERE c.interval = '1d'"
        " AND c.ts < l.current_date ORDER BY c.asset_id, c.ts DESC) SELECT a.symbol, ROUND(((l.current_price -"
        " p.previous_price)"
        " / p.previous_price * 100)::numeric, 2) FROM latest l JOIN previous p ON p.asset_id = l.asset_id"
        " JOIN assets a ON a.id = l.asset_id ORDER BY 2 DESC"
    ).fetchall() == [("AAPL", Decimal("2.04")), ("MSFT", Decimal("0.72"))]


@statement(46, "candles: id, created_at, upsert, delete")
def test_candle_crud(app, assets):
    key = app.execute(
        "INSERT INTO candles (asset_id, ts, interval, open, high, low, close, volume)"
        " VALUES (%s, %s, '4h', 1, 2, 0.5, 1.5, 10) RETURNING id", (assets["AAPL"], START)
    ).fetchone()[0]
    assert app.execute("SELECT c.id, c.close, c.created_at <= now() FROM candles c WHERE id = %s",
        (key,)).fetchone() == (
        key, 1.5, True
    )
    assert app.execute(
        "INSERT INTO candles (asset_id, ts, interval, close) VALUES (%s, %s, '4h', 1.6)"
        " ON CONFLICT (asset_id, interval, ts) DO UPDATE SET close = excluded.close RETURNING id, close",
        (assets["AAPL"], START)
    ).fetchone() == (key, 1.6)
    assert app.execute("DELETE FROM candles WHERE id = %s", (key,)).rowcount == 1


@statement(18, "users: create an administrator, promote, demote")
def test_user_crud(app, add):
    key, admin = app.execute(
        "INSERT INTO users (username, email, password_hash, is_admin) VALUES ('root', 'r@example.org', %s, true)"
        " RETURNING id, is_admin", (HASH,)
    ).fetchone()
    assert admin is True
    assert app.execute(
        "UPDATE users SET is_admin = false, last_login = %s WHERE id = %s RETURNING is_admin, last_login", (START, key)
    ).fetchone() == (False, START)
    app.execute("UPDATE public.users SET role = 'premium' WHERE user_id = %s", (key,))
    app.execute("UPDATE users SET is_active = false WHERE id = %s", (key,))
    assert app.execute("SELECT role::text, is_active FROM public.users").fetchone() == ("premium", False)
    with pytest.raises(errors.UniqueViolation), app.transaction():
        app.execute("INSERT INTO users (username, email, password_hash) VALUES ('ROOT', 'x@example.org', %s)", (HASH,))
    assert app.execute("DELETE FROM users WHERE id = %s", (key,)).rowcount == 1


@statement(36, "watchlists and their items, unique together, upserted, deleted with their list")
def test_watchlists(app, assets):
    user = app.execute(
        "INSERT INTO users (username, email, password_hash) VALUES ('u', 'u@example.org', %s) RETURNING id", (HASH,)
    ).fetchone()[0]
    watchlist = app.execute(
        "INSERT INTO watchlists (user_id, name, color, is_default) VALUES (%s, 'Tech', 'red', true) RETURNING id",
        (user,)
    ).fetchone()[0]
    insert = "INSERT INTO watchlist_items (watchlist_id, asset_id, position, price_alert_high) VALUES (%s, %s, %s, 200)"
    app.execute(insert, (watchlist, assets["AAPL"], 0))
    with pytest.raises(errors.UniqueViolation), app.transaction():
        app.execute(insert, (watchlist, assets["AAPL"], 1))
    app.execute(
        insert + " ON CONFLICT (watchlist_id, asset_id) DO UPDATE SET position = excluded.position",
        (watchlist, assets["AAPL"], 7),
    )
    assert app.execute(
        "SELECT a.symbol, i.position, i.price_alert_high FROM watchlist_items i JOIN assets a ON a.id = i.asset_id"
        " WHERE i.watchlist_id = %s ORDER BY i.position", (watchlist,)
    ).fetchall() == [("AAPL", 7, Decimal(200))]
    assert app.execute("DELETE FROM watchlists WHERE id = %s", (watchlist,)).rowcount == 1
    assert app.execute("SELECT count(*) FROM watchlist_items").fetchone() == (0,)


@statement(24, "assets: update, retire, delete")
def test_asset_crud(app):
    key = app.execute("INSERT INTO assets (symbol, asset_type) VALUES ('GLD', 'etf') RETURNING id").fetchone()[0]
    assert app.execute("UPDATE assets SET name = 'Gold' WHERE id = %s RETURNING name, asset_type",
        (key,)).fetchone() == (
        "Gold", "etf"
    )
    assert app.execute("DELETE FROM assets WHERE symbol = 'GLD'").rowcount == 1


@statement(169, "chunks of candles, newest first; the hypertable's stats")
def test_chunks_and_stats(app, assets):
    chunks = app.execute(
        "SELECT range_start FROM timescaledb_information.chunks WHERE hypertable_name = 'candles' ORDER BY"
        " range_start DESC"
    ).fetchall()
    assert len(chunks) >= 6
    assert chunks == sorted(chunks, reverse=True)
    number, total, parts = app.execute(
        "SELECT num_chunks, total_bytes, table_bytes + index_bytes + toast_bytes FROM"
        " timescaledb_information.hypertable_stats"
        " WHERE hypertable_name = 'candles'"
    ).fetchone()
    assert number == len(chunks)
    assert total == parts > 100_000


@statement(480, "create_hypertable on candles, which is one")
def test_candles_is_a_hypertable_already(app):
    assert app.execute(
        "SELECT table_name, created FROM create_hypertable('candles', 'ts', chunk_time_interval => INTERVAL '7 days')"
    ).fetchone() == ("candles", False)


@statement(197, "compress every chunk of candles by its plain name")
@pytest.mark.community
def test_chunks_are_compressed_by_name(app, assets):
    app.execute("ALTER TABLE candles SET (timescaledb.compress, timescaledb.compress_segmentby = 'asset_id')")
    before = app.execute("SELECT sum(close) FROM candles").fetchone()
    done = app.execute(
        "SELECT compress_chunk(chunk_name) FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'candles' AND NOT is_compressed"
    ).rowcount
    assert done >= 6
    assert app.execute(
        "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'candles' AND NOT is_compressed"
    ).fetchone() == (0,)
    assert app.execute("SELECT sum(close) FROM candles").fetchone() == before
    with pytest.raises(errors.UndefinedTable), app.transaction():
        app.execute("SELECT compress_chunk('_hyper_0_0_chunk'::name)")


@statement(190, "a compression policy that is there already stays")
@pytest.mark.community
def test_compression_policy(app):
    app.execute("ALTER TABLE candles SET (timescaledb.compress, timescaledb.compress_segmentby = 'asset_id')")
    jobs = (
        "SELECT count(*) FROM timescaledb_information.jobs WHERE hypertable_name = 'candles'"
        " AND proc_name ~ 'compression'"
    )
    app.execute("SELECT add_compression_policy('candles', INTERVAL '30 days')")
    assert app.execute(jobs).fetchone() == (1,)
    assert app.execute("SELECT add_compression_policy('candles', INTERVAL '30 days')").fetchone() == (-1,)
    assert app.execute(jobs).fetchone() == (1,)


@statement(418, "slow queries, under the columns' old names")
def test_slow_queries(app):
    cursor = app.execute("SELECT query, calls, total_time, mean_time, max_time FROM pg_stat_statements ORDER BY"
        " mean_time DESC LIMIT 10")
    assert [column.type_code for column in cursor.description] == [25, 20, 701, 701, 701]
