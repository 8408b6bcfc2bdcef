"""Two sessions at one row, through each view: what a table would do, or 40001; and nobody waits in a circle."""

from __future__ import annotations

import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from conftest import _database
from psycopg import errors

USER = "INSERT INTO buddy_ai.users (id, email, username) VALUES (1234, 'u@example.org', 'u')"
# view -> its key, a row, two columns that nothing else follows from with new values for them, a number
VIEWS = {
    "buddy_ai.users": ("id", "(id, email, username) VALUES (%s, 'a@example.org', 'a')",
                       ("full_name", "Ann"), ("preferred_theme", "dark"), None),
    "buddy_ai.market_data": ("id", "(id, symbol, market, price, volume, high) VALUES (%s, 'A', 'STOCK', 1, 1, 2)",
                             ("volume", 5), ("high", 9), "price"),
    "buddy_ai.ohlcv_data": ("id", "(id, symbol, market, timeframe, timestamp, close, volume) VALUES (%s, 'A', 'STOCK',"
                            " '1h', '2024-01-01', 1, 1)", ("volume", 5), ("high", 9), "close"),
    "buddy_ai.predictions": ("id", "(id, symbol, market, model, current_price, predicted_price, direction, confidence,"
                             " timeframe, horizon_hours) VALUES (%s, 'A', 'STOCK', 'TFT', 1, 2, 'BUY', 1, '1h', 1)",
                             ("stop_loss", 5), ("direction", "SELL"), "current_price"),
    "buddy_ai.watchlists": ("id", "(id, user_id, symbol, market) VALUES (%s, 1234, 'A', 'STOCK')",
                            ("notes", "n"), ("created_at", dt.datetime(2024, 1, 1, tzinfo=dt.UTC)), None),
    "buddy_ai.alerts": ("id", "(id, user_id, symbol, condition, target_value) VALUES (%s, 1234, 'A', 'above', 1)",
                        ("message", "m"), ("condition", "below"), "target_value"),
    "buddy_ai.positions": ("id", "(id, user_id, symbol, market, side, entry_price, quantity)"
                           " VALUES (%s, 1234, 'A', 'STOCK', 'long', 1, 1)",
                           ("current_price", 5), ("side", "short"), "quantity"),
    "cryptovolt.users": ("user_id", "(user_id, username, email) VALUES (%s, 'a', 'a@example.org')",
                         ("is_active", False), ("created_at", dt.datetime(2024, 1, 1)), None),
    "cryptovolt.trading_strategies": ("strategy_id", "(strategy_id, name) VALUES (%s, 's')",
                                      ("description", "d"), ("is_active", True), None),
    "cryptovolt.market_data": ("data_id", "(data_id, symbol, timestamp, close_price, volume)"
                               " VALUES (%s, 'A', '2024-01-01', 1, 1)", ("volume", 5), ("high_price", 9),
                               "close_price"),
    "cryptovolt.sentiment_data": ("sentiment_id", "(sentiment_id, symbol, source, sentiment_score)"
                                  " VALUES (%s, 'A', 'news', 0)", ("text", "t"), ("source", "reddit"), None),
    "cryptovolt.signals": ("signal_id", "(signal_id, symbol, signal_type, confidence) VALUES (%s, 'A', 'BUY', 0)",
                           ("extra_data", psycopg.types.json.Jsonb({"a": 1})), ("signal_type", "SELL"), None),
    "cryptovolt.trades": ("trade_id", "(trade_id, symbol, trade_type, price, quantity) VALUES (%s, 'A', 'BUY', 1, 1)",
                          ("price", 5), ("is_paper_trade", False), "quantity"),
    "cryptovolt.models": ("model_id", "(model_id, name, model_type, accuracy) VALUES (%s, 'm', 'lstm', 0)",
                          ("recall", 1), ("model_type", "forest"), None),
    "cryptovolt.alerts": ("alert_id", "(alert_id, alert_type, message) VALUES (%s, 'SYSTEM', 'x')",
                          ("message", "y"), ("is_read", True), None),
    "trading_manager.users": ("id", "(id, username, email) VALUES (lpad(%s::text, 32, '0')::uuid, 'a', 'a@b.org')",
                              ("is_active", False), ("is_admin", True), None),
    "hyperliquid.strategy_rules": ("id", "(id, name, entry_type) VALUES (%s, 'n', 'x')",
                                   ("name", "m"), ("source_type", "pdf"), None),
    "hyperliquid.trade_records": ("id", "(id, asset, direction, entry_price) VALUES (%s, 'A', 'long', 1)",
                                  ("reasoning", "r"), ("direction", "short"), "entry_price"),
    "hyperliquid.learning_entries": ("id", "(id, insight) VALUES (%s, 'i')",
                                     ("insight", "j"), ("impact_type", "k"), "validation_count"),
    "hyperliquid.candle_data": ("id", "(id, asset, timeframe, timestamp, close, volume)"
                                " VALUES (%s, 'A', '1h', '2024-01-01', 1, 1)", ("volume", 5), ("high", 9), "close"),
}
# What they write lies in two tables, or in a hypertable, where newer TimescaleDB loses an UPDATE that waited.
WRITTEN_BY_TRIGGER = ("buddy_ai.market_data", "buddy_ai.ohlcv_data", "cryptovolt.market_data",
                      "cryptovolt.sentiment_data", "hyperliquid.candle_data")


def race(sessions, first, second) -> int | None:
    """Row count of a statement that waits for another session's, which then commits; None where it says 40001."""
    one, two, watch = sessions
    assert one.execute(*first).rowcount == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: two.execute(*second).rowcount)
        deadline = time.monotonic() + 10
        while not watch.execute("SELECT pg_blocking_pids(%s)", [two.info.backend_pid]).fetchone()[0]:
            assert time.monotonic() < deadline and not waiting.done()
            time.sleep(0.002)
        one.commit()
        try:
            count = waiting.result()
        except errors.SerializationFailure:
            two.rollback()
            return None
        two.commit()
        return count


@pytest.fixture(scope="module")
def sessions(server, template):
    with (_database(server, template) as database, database.connect(autocommit=False) as one,
          database.connect(autocommit=False) as two, database.connect() as watch):
        watch.execute(USER)
        yield one, two, watch


@pytest.mark.parametrize("view", VIEWS)
def test_two_sessions_at_one_row_do_as_on_a_table(sessions, view):
    one, _, watch = sessions
    key, values, (a, new_a), (b, new_b), number = VIEWS[view]
    plain_a = getattr(new_a, "obj", new_a)
    is_written_by_trigger = view in WRITTEN_BY_TRIGGER
    wanted = (lambda count: None) if is_written_by_trigger else (lambda count: count)
    chosen = "r" if view.startswith("hyper") and not is_written_by_trigger else 4711
    set_a = f"UPDATE {view} SET {a} = %s WHERE {key} = %s"

    def new_row():
        return watch.execute(f"INSERT INTO {view} {values} RETURNING {key}", [chosen]).fetchone()[0]

    def end_of(row, *columns):
        told = watch.execute(f"DELETE FROM {view} WHERE {key} = %s RETURNING {', '.join(columns or [key])}", [row])
        return told.fetchone()

    # Different columns: both changes stand.
    row = new_row()
    count = race(sessions, (set_a, [new_a, row]), (f"UPDATE {view} SET {b} = %s WHERE {key} = %s", [new_b, row]))
    assert count == wanted(1)
    assert end_of(row, a, b)[:1 if is_written_by_trigger else 2] == (plain_a, new_b)[:1 if is_written_by_trigger else 2]

    # Increments: both count.
    if number:
        row = new_row()
        [before] = watch.execute(f"SELECT {number} FROM {view} WHERE {key} = %s", [row]).fetchone()
        add = (f"UPDATE {view} SET {number} = {number} + 1 WHERE {key} = %s", [row])
        assert race(sessions, add, add) == wanted(1)
        assert end_of(row, number) == (before + (1 if is_written_by_trigger else 2),)

    # Compare and set: the second finds nothing to do.
    row = new_row()
    compare = (f"{set_a} AND {a} IS DISTINCT FROM %s", [new_a, row, new_a])
    assert race(sessions, compare, compare) == wanted(0)
    end_of(row)

    # A condition on what the statement does not set.
    row = new_row()
    assert race(sessions, (set_a, [new_a, row]), (
        f"UPDATE {view} SET {b} = %s WHERE {key} = %s AND {a} IS DISTINCT FROM %s", [new_b, row, new_a])) == wanted(0)
    assert race(sessions, (f"UPDATE {view} SET {b} = %s WHERE {key} = %s", [new_b, row]), (
        f"DELETE FROM {view} WHERE {key} = %s AND {b} IS DISTINCT FROM %s", [row, new_b])) == wanted(0)
    assert end_of(row) == (row,)

    # A row that the other deleted is not counted.
    delete = f"DELETE FROM {view} WHERE {key} = %s"
    row = new_row()
    assert race(sessions, (delete, [row]), (set_a, [new_a, row])) == 0
    row = new_row()
    assert race(sessions, (delete, [row]), (delete, [row])) == 0

    # Under REPEATABLE READ a table says 40001.
    row = new_row()
    one.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    one.execute(f"SELECT count(*) FROM {view}")
    watch.execute(set_a, [new_a, row])
    with pytest.raises(errors.SerializationFailure):
        one.execute(set_a, [new_a, row])
    one.rollback()
    end_of(row)


def test_rows_of_every_view_can_be_locked(tx):
    """As with_for_update() does."""
    for view in VIEWS:
        for lock in ("FOR UPDATE", "FOR SHARE NOWAIT", "FOR NO KEY UPDATE SKIP LOCKED"):
            tx.execute(f"SELECT * FROM {view} {lock}")


def test_every_view_is_here(tx):
    assert [view for (view,) in tx.execute("""
        SELECT c.oid::regclass::text FROM pg_class AS c
         WHERE c.relkind = 'v' AND c.relnamespace::regnamespace::text IN ('buddy_ai', 'cryptovolt', 'hyperliquid')
           AND c.oid::regclass::text <> ALL (%s)""", [list(VIEWS)])] == []
    assert [view for (view,) in tx.execute("""
        SELECT DISTINCT t.tgrelid::regclass::text FROM pg_trigger AS t
         WHERE t.tgtype::integer & 64 <> 0 AND t.tgtype::integer & 16 <> 0 ORDER BY 1""")] == sorted(WRITTEN_BY_TRIGGER)


@pytest.mark.parametrize("statement", [
    "INSERT INTO cryptovolt.market_data (symbol, timestamp, close_price) VALUES (%(symbol)s, %(at)s, 1)",
    "INSERT INTO buddy_ai.market_data (symbol, market, timestamp, price) VALUES (%(symbol)s, 'CRYPTO', %(at)s, 1)",
    "INSERT INTO cryptovolt.sentiment_data (symbol, timestamp, source) VALUES (%(symbol)s, %(at)s, 'news')",
    "INSERT INTO cryptovolt.market_data (symbol, timestamp, close_price, source) VALUES ('OLD', %(at)s, 1, %(symbol)s)",
])
def test_writers_of_a_new_symbol_and_of_a_new_chunk_do_not_wait_in_a_circle(db, statement):
    def at(year):
        return dt.datetime(year, 1, 1)

    with db.connect(autocommit=False) as one, db.connect(autocommit=False) as two, db.connect() as watch:
        watch.execute(statement, {"symbol": "OLD", "at": at(2024)})
        one.execute(statement, {"symbol": "NEW", "at": at(2024) + dt.timedelta(hours=1)})  # an asset, no chunk

        def add_chunk():
            two.execute(statement, {"symbol": "OLD", "at": at(2010)})
            two.commit()

        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(add_chunk)
            deadline = time.monotonic() + 10
            while not watch.execute("SELECT pg_blocking_pids(%s)", [two.info.backend_pid]).fetchone()[0] \
                    and not adding.done():
                assert time.monotonic() < deadline
                time.sleep(0.005)
            one.execute(statement, {"symbol": "NEW", "at": at(2012)})  # and now a chunk
            one.commit()
            adding.result()
