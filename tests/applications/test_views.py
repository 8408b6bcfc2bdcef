"""What holds for every view of every application, asked of the catalogue."""

from __future__ import annotations

import pytest

VIEWS = """
    WITH views AS (
        SELECT c.* FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind = 'v'
           AND n.nspname IN ('buddy_ai', 'cryptovolt', 'trading_manager', 'hyperliquid', 'btc_dashboard')
    )
"""
OFFENDERS = {
    "has a comment that tells bulk writers where to COPY": """
        SELECT v.oid::regclass::text FROM views AS v
         WHERE coalesce(obj_description(v.oid, 'pg_class'), '') !~ 'COPY into public\\.\\w+\\.'
           AND v.relname <> 'pg_stat_statements'""",
    "names a table to COPY into that exists": """
        SELECT v.oid::regclass::text FROM views AS v
         WHERE to_regclass(substring(obj_description(v.oid, 'pg_class') FROM 'COPY into (public\\.\\w+)\\.')) IS NULL
           AND v.relname <> 'pg_stat_statements'""",
    "has a comment on each column": """
        SELECT v.oid::regclass || '.' || a.attname FROM views AS v
          JOIN pg_attribute AS a ON a.attrelid = v.oid AND a.attnum > 0
         WHERE col_description(v.oid, a.attnum) IS NULL""",
    "runs with the rights of whoever asks": """
        SELECT v.oid::regclass::text FROM views AS v
         WHERE NOT coalesce('security_invoker=true' = ANY (v.reloptions), false)""",
    "can be inserted into, updated and deleted from": """
        SELECT v.oid::regclass::text FROM views AS v
         WHERE pg_relation_is_updatable(v.oid, true) & 28 <> 28 AND v.relname <> 'pg_stat_statements'""",
}


@pytest.mark.parametrize("rule", OFFENDERS)
def test_every_view(tx, rule):
    assert tx.execute(VIEWS + "SELECT count(*) > 20 FROM views").fetchone() == (True,)
    assert tx.execute(VIEWS + OFFENDERS[rule]).fetchall() == []


def test_every_function_has_a_comment_and_a_search_path(tx):
    """But for those that are made to be put in the place of their call, which name everything in full."""
    assert tx.execute("""
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
         WHERE p.pronamespace::regnamespace::text IN
               ('buddy_ai', 'cryptovolt', 'trading_manager', 'hyperliquid', 'btc_dashboard')
           AND (obj_description(p.oid, 'pg_proc') IS NULL
                OR (NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s WHERE s ~ '^search_path=pg_catalog,.*pg_temp$')
                    AND (obj_description(p.oid, 'pg_proc') !~ ' Inlined[.]$' OR p.prosrc !~ '^ *SELECT pg_catalog[.]')))
    """).fetchall() == []


def test_symbol_and_timeframe_lead_into_the_primary_key(tx):
    """A search by text for the bars of one symbol and length reads those, not all of the symbol's bars."""
    tx.execute(
        "INSERT INTO assets (symbol, asset_type) SELECT 'S' || n, 'crypto' FROM generate_series(1, 10) AS n;"
        "INSERT INTO candles (asset_id, interval, ts, close)"
        " SELECT a.asset_id, '1m', timestamptz '2024-01-04' + n * interval '1 minute', 1"
        " FROM assets AS a, generate_series(1, 3000) AS n;"
        "INSERT INTO candles (asset_id, interval, ts, close)"
        " SELECT a.asset_id, '1h', timestamptz '2024-01-05', 1 FROM assets AS a;"
        "ANALYZE assets; ANALYZE candles"
    )
    for view, symbol in (("buddy_ai.ohlcv_data", "symbol"), ("hyperliquid.candle_data", "asset")):
        question = f"SELECT * FROM {view} WHERE {symbol} = 'S7' AND timeframe = '1h'"
        plan = tx.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {question}").fetchone()[0][0]["Plan"]
        assert plan["Actual Rows"] == 1
        assert most_rows(plan) < 100


LATEST = {
    "public.candles": "asset_id = (SELECT asset_id FROM assets WHERE symbol = %s::varchar) AND interval = '1m'"
                      " ORDER BY ts",
    "buddy_ai.ohlcv_data": "symbol = %s::varchar AND timeframe = '1m'::varchar ORDER BY timestamp",
    "hyperliquid.candle_data": "asset = %s::varchar AND timeframe = '1m'::varchar ORDER BY timestamp",
    "buddy_ai.market_data": "symbol = %s::varchar ORDER BY timestamp",
}


@pytest.mark.parametrize("relation", LATEST)
def test_latest_by_symbol_do_not_read_the_history(tx, relation):
    """The order comes from an index, whatever type the client sends: of what came last among all symbols, as far back
    as the symbol's rows asked for. So it costs with the number of symbols, and nothing with the length of history."""
    symbols, bars, asked = 5, 4000, 20
    tx.execute("INSERT INTO assets (symbol, asset_type) SELECT 'S' || n, 'crypto' FROM generate_series(1, %s) AS n",
               [symbols])
    tx.execute("SET LOCAL session_replication_role = replica")
    for table, columns, values in (("candles", "close, interval", "1, '1m'"), ("quotes", "price", "1")):
        tx.execute(f"INSERT INTO {table} (asset_id, ts, {columns}) SELECT a.asset_id, timestamptz '2024-01-04'"
                   f" + n * interval '1 minute', {values} FROM assets AS a, generate_series(1, %s) AS n", [bars])
        tx.execute(f"ANALYZE {table}")
    tx.execute("ANALYZE assets")
    question = f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM {relation} WHERE {LATEST[relation]} DESC LIMIT {asked}"
    plan = tx.execute(question, ["S3"]).fetchone()[0][0]["Plan"]
    assert plan["Actual Rows"] == asked
    assert most_rows(plan) < 3 * symbols * asked


KEYS = {  # rows whose key the application chooses itself
    "buddy_ai.market_data": ("id", "(id, symbol, market, price) VALUES (4711, 'A', 'STOCK', 1)"),
    "buddy_ai.ohlcv_data": (
        "id", "(id, symbol, market, timeframe, timestamp) VALUES (4711, 'A', 'STOCK', '1h', '2024-01-01')"),
    "buddy_ai.predictions": (
        "id", "(id, symbol, market, model, current_price, predicted_price, direction, confidence, timeframe,"
        " horizon_hours) VALUES (4711, 'A', 'STOCK', 'TFT', 1, 2, 'BUY', 1, '1h', 1)"),
    "buddy_ai.watchlists": ("id", "(id, user_id, symbol, market) VALUES (4711, 4712, 'A', 'STOCK')"),
    "buddy_ai.alerts": ("id", "(id, user_id, symbol, condition, target_value) VALUES (4711, 4712, 'A', 'above', 1)"),
    "buddy_ai.positions": (
        "id", "(id, user_id, symbol, market, side, entry_price, quantity) VALUES (4711, 4712, 'A', 'STOCK', 'long',"
        " 1, 1)"),
    "cryptovolt.users": (
        "user_id", "(user_id, username, email, password_hash) VALUES (4711, 'x', 'x@example.org', NULL)"),
    "cryptovolt.trading_strategies": ("strategy_id", "(strategy_id, name) VALUES (4711, 's')"),
    "cryptovolt.market_data": ("data_id", "(data_id, symbol, timestamp) VALUES (4711, 'A', '2024-01-01')"),
    "cryptovolt.sentiment_data": ("sentiment_id", "(sentiment_id, symbol, source) VALUES (4711, 'A', 'news')"),
    "cryptovolt.signals": ("signal_id", "(signal_id, symbol, signal_type) VALUES (4711, 'A', 'BUY')"),
    "cryptovolt.trades": (
        "trade_id", "(trade_id, symbol, trade_type, price, quantity) VALUES (4711, 'A', 'BUY', 1, 1)"),
    "cryptovolt.models": ("model_id", "(model_id, name, model_type) VALUES (4711, 'm', 'lstm')"),
    "cryptovolt.alerts": ("alert_id", "(alert_id, alert_type, message) VALUES (4711, 'SYSTEM', 'x')"),
    "hyperliquid.candle_data": ("id", "(id, asset, timeframe, timestamp) VALUES (4711, 'A', '1h', '2024-01-01')"),
}


@pytest.mark.parametrize("view", KEYS)
def test_key_may_be_the_applications_own_and_later_change(tx, view):
    key, row = KEYS[view]
    tx.execute("INSERT INTO buddy_ai.users (id, email, username) VALUES (4712, 'u@example.org', 'u')")
    for statement, answer in (
        (f"INSERT INTO {view} {row} RETURNING {key}", [(4711,)]),
        (f"UPDATE {view} SET {key} = 4713 WHERE {key} = 4711 RETURNING {key}", [(4713,)]),
        (f"DELETE FROM {view} WHERE {key} = 4713 RETURNING {key}", [(4713,)]),
        (f"SELECT {key} FROM {view} WHERE {key} IN (4711, 4713)", []),
    ):
        assert tx.execute(statement).fetchall() == answer


def most_rows(node: dict) -> float:
    here = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return max([here, *(most_rows(child) for child in node.get("Plans", []))])
