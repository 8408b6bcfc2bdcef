"""What an application's own login role needs: the two roles for writing, and BYPASSRLS as long as it names no user."""

from __future__ import annotations

import re

import pytest
from psycopg import errors

HASH = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0NTY$" + "A" * 43
STATEMENTS = {
    "buddy_ai": [
        f"INSERT INTO users (email, username, hashed_password) VALUES ('a@b.c', 'a', '{HASH}') RETURNING id",
        "INSERT INTO market_data (symbol, market, price) VALUES ('EURUSD', 'FOREX', 1) RETURNING id",
        "INSERT INTO ohlcv_data (symbol, market, timeframe, timestamp, close)"
        " VALUES ('BTCUSDT', 'CRYPTO', '1h', '2024-01-01', 1) RETURNING id",
        "UPDATE ohlcv_data SET close = 2 WHERE symbol = 'BTCUSDT' RETURNING id",
        "INSERT INTO predictions (user_id, symbol, market, model, current_price, predicted_price, direction,"
        " confidence,"
        " timeframe, horizon_hours) SELECT id, 'BTCUSDT', 'CRYPTO', 'TFT', 1, 2, 'BUY', 1, '1h', 1 FROM users"
        " RETURNING id",
        "INSERT INTO watchlists (user_id, symbol, market) SELECT id, 'AAPL', 'STOCK' FROM users RETURNING id",
        "INSERT INTO alerts (user_id, symbol, condition, target_value) SELECT id, 'AAPL', 'above', 1 FROM users"
        " RETURNING id",
        "INSERT INTO positions (user_id, symbol, market, side, entry_price, quantity)"
        " SELECT id, 'AAPL', 'STOCK', 'long', 1, 1 FROM users RETURNING id",
        "UPDATE positions SET is_open = false, exit_price = 2 RETURNING id",
        "UPDATE users SET is_verified = true RETURNING id",
    ],
    "cryptovolt": [
        f"INSERT INTO users (username, email, password_hash) VALUES ('a', 'a@b.c', '{HASH}') RETURNING user_id",
        "UPDATE users SET is_active = false RETURNING user_id",
        "INSERT INTO trading_strategies (user_id, name) SELECT user_id, 's' FROM users RETURNING strategy_id",
        "INSERT INTO market_data (symbol, timestamp, close_price, source) VALUES ('BTCUSDT', '2024-01-01', 1,"
        " 'binance')"
        " RETURNING data_id",
        "INSERT INTO sentiment_data (symbol, source, text, sentiment_score) VALUES ('BTCUSDT', 'news', 'x', 0)"
        " RETURNING sentiment_id",
        "INSERT INTO models (name, model_type) VALUES ('m', 'xgboost') RETURNING model_id",
        "INSERT INTO signals (model_id, symbol, signal_type) SELECT model_id, 'BTCUSDT', 'BUY' FROM models"
        " RETURNING signal_id",
        "INSERT INTO trades (signal_id, symbol, trade_type, price, quantity) SELECT signal_id, 'BTCUSDT', 'BUY', 1, 1"
        " FROM signals RETURNING trade_id",
        "INSERT INTO alerts (user_id, alert_type, message) SELECT user_id, 'SYSTEM', 'x' FROM users RETURNING alert_id",
        "DELETE FROM market_data RETURNING data_id",
    ],
    "trading_manager": [
        f"INSERT INTO users (username, email, password_hash) VALUES ('a', 'a@b.c', '{HASH}') RETURNING id",
        "INSERT INTO assets (symbol, asset_type) VALUES ('AAPL', 'stock') RETURNING id",
        "INSERT INTO candles (asset_id, ts, interval, close) SELECT id, '2024-01-01', '1d', 1 FROM assets RETURNING id",
        "INSERT INTO indicators (asset_id, ts, indicator_type, name, timeframe)"
        " SELECT id, '2024-01-01', 'rsi', 'rsi_14', '1d' FROM assets RETURNING id",
        "INSERT INTO signals (asset_id, ts, signal_type) SELECT id, '2024-01-01', 'buy' FROM assets RETURNING id",
        "INSERT INTO watchlists (user_id, name) SELECT id, 'w' FROM users RETURNING id",
        "INSERT INTO watchlist_items (watchlist_id, asset_id) SELECT w.id, a.id FROM watchlists w, assets a"
        " RETURNING id",
    ],
    "hyperliquid": [
        "INSERT INTO strategy_rules (id, name, entry_type) VALUES ('r', 'n', 'x') RETURNING id",
        "INSERT INTO trade_records (id, strategy_rule_id, asset, direction, entry_price)"
        " VALUES ('t', 'r', 'ETH-USD', 'long', 1) RETURNING id",
        "INSERT INTO learning_entries (strategy_rule_id, insight, supporting_trades) VALUES ('r', 'i', '{t}')"
        " RETURNING id",
        "INSERT INTO candle_data (asset, timeframe, timestamp, close) VALUES ('ETH-USD', '1h', '2024-01-01', 1)"
        " RETURNING id",
        "UPDATE trade_records SET reasoning = 'x' RETURNING id",
    ],
    "btc_dashboard": [
        "INSERT INTO sources (name, data_type) VALUES ('btc', 'ohlcv') RETURNING source_id",
        "INSERT INTO timeseries_data (source_id, timestamp, close) SELECT source_id, '2024-01-01', 1 FROM sources"
        " ON CONFLICT (source_id, timestamp) DO UPDATE SET close = excluded.close RETURNING source_id",
        "INSERT INTO ml_models (name, model_type) VALUES ('m', 'lstm') RETURNING model_id",
    ],
}


@pytest.mark.parametrize("application", STATEMENTS)
def test_login_of_an_application_can_do_its_work(use, application):
    connection = use(application)
    connection.execute("CREATE ROLE application LOGIN BYPASSRLS IN ROLE tidemark_app, tidemark_writer")
    connection.execute("SET LOCAL ROLE application")
    for statement in STATEMENTS[application]:
        assert len(connection.execute(statement).fetchall()) == 1, statement


def test_login_of_an_application_makes_nobody_an_administrator(use):
    connection = use("buddy_ai")
    connection.execute("CREATE ROLE application LOGIN BYPASSRLS IN ROLE tidemark_app, tidemark_writer")
    connection.execute("SET LOCAL ROLE application")
    insert = "INSERT INTO users (email, username, hashed_password, role) VALUES ('a@b.c', 'a', %s, %s)"
    with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
        connection.execute(insert, (HASH, "ADMIN"))
    connection.execute(insert, (HASH, "USER"))


def test_login_that_is_an_administrator_too_does_what_the_documents_services_do(use):
    connection = use("buddy_ai")
    connection.execute("CREATE ROLE application LOGIN BYPASSRLS IN ROLE tidemark_app, tidemark_writer, tidemark_admin")
    connection.execute("SET LOCAL ROLE application")
    connection.execute("INSERT INTO users (email, username, hashed_password, role) VALUES ('a@b.c', 'a', %s, 'ADMIN')",
                       (HASH,))
    assert connection.execute("UPDATE users SET role = 'PREMIUM' RETURNING role").fetchall() == [("PREMIUM",)]
    assert connection.execute("SELECT count(*) > 0 FROM public.audit_log").fetchone() == (True,)
    assert connection.execute("DELETE FROM users").rowcount == 1


@pytest.mark.parametrize("role", ["tidemark_writer", "tidemark_admin"])
def test_aggregates_are_refreshed_by_who_writes_and_who_administers(tx, role):
    tx.execute(f"SET LOCAL ROLE {role}")
    outcomes = {outcome for _, _, outcome in tx.execute("SELECT * FROM refresh_all_aggregates()").fetchall()}
    assert all(re.fullmatch(r"refreshed|job \d+ runs every 00:\d\d:00", outcome) for outcome in outcomes), outcomes


def test_a_user_deletes_his_own_account_and_no_other(tx, add):
    ann, _ = add("users", username="ann"), add("users", username="bob")
    tx.execute("SELECT set_config('tidemark.user_id', %s, true)", [str(ann)])
    tx.execute("SET LOCAL ROLE tidemark_app")
    assert tx.execute("DELETE FROM users").rowcount == 1
    tx.execute("RESET ROLE")
    assert tx.execute("SELECT username FROM users").fetchall() == [("bob",)]
