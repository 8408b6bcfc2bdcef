"""Tables as the design contract names them, and the constraints that keep impossible rows out."""

from __future__ import annotations

import datetime
from decimal import Decimal

import psycopg
import pytest
from psycopg import errors

HYPERTABLES = {
    "timeseries_data": ("timestamp", "1 month"), "candles": ("ts", "7 days"), "quotes": ("ts", "1 day"),
    "ticks": ("ts", "1 day"),
    "sentiment_data": ("ts", "1 month"), "indicators": ("ts", "7 days"), "features": ("ts", "1 month"),
}
COLUMNS = {
    "assets": "asset_id symbol name asset_type exchange sector industry quote_currency is_active created_at updated_at",
    "sources": "source_id name display_name data_type asset_id interval provider status quality_profile_id config",
    "market_calendar": "market date is_holiday holiday_name is_early_close opens_at closes_at origin origin_version",
    "time_index": "timestamp date_only year quarter month iso_week day_of_week hour is_weekend is_month_end "
                  "is_trading_day",
    "timeseries_data": "source_id timestamp value open high low close volume quality_score is_anomaly metadata "
                       "ingested_at",
    "candles": "asset_id interval ts open high low close volume trades vwap source_id quality_score is_anomaly "
               "ingested_at",
    "quotes": "asset_id ts price open_price high low close volume bid ask change_24h change_percent_24h quality_score "
              "is_anomaly ingested_at",
    "ticks": "asset_id seq ts price quantity side trade_id quality_score is_anomaly ingested_at",
    "sentiment_data": "asset_id ts sentiment_id source text sentiment_score extra_data",
    "indicators": "asset_id ts interval indicator_type name value value2 value3 parameters computed_at",
    "features": "asset_id ts feature_set name value version computed_at",
    "quality_profiles": "required_fields allowed_lag max_change transform baseline_rows min_samples anomaly_z "
                        "black_swan_z scale_floor market updated_at",
    "validation_rules": "rule_id name applies_to source_id rule_type parameters severity is_active version updated_at",
    "quality_issues": "table_name series ts penalty points rule_id detail",
    "anomalies": "anomaly_id table_name source_id asset_id interval timestamp severity z_score observed expected scale "
                 "samples kind detector_version episode_id status reviewed_by reviewed_at notes",
    "timeseries_archive": "archive_id table_name row deleted_at deleted_by reason restored_at",
    "audit_log": "audit_id tx_id table_name operation row_key old_values new_values changed_fields changed_by db_role "
                 "changed_at reason content_hash",
    "audit_tx": "client application request",
    "ingestion_tasks": "task_id kind source_ref digest mode status rows_read rows_written rows_rejected error "
                       "started_at finished_at updated_at",
    "ingestion_rejects": "task_id line_no raw error",
    "models": "model_id name version model_type stage accuracy precision recall auc trained_on parameters features "
              "extra_data updated_at",
    "predictions": "prediction_id user_id asset_id model_id model_type model_version current_price predicted_price "
                   "direction confidence target_price stop_loss take_profit interval horizon_hours features_used "
                   "prediction_for actual_price accuracy_score evaluated_at",
    "forecasts": "forecast_id source_id model_id made_at target_ts predicted lower upper actual absolute_error "
                 "percentage_error evaluated_at",
    "signals": "signal_id asset_id strategy_id model_id ts signal_type strength confidence price target_price "
               "stop_loss strategy rationale indicators_used interval is_active generated_at expires_at extra_data",
    "lineage": "lineage_id target_kind target_ref upstream_kind upstream_ref transformation version task_id",
    "backtest_configs": "strategy_id rule_id interval parameters",
    "backtest_results": "config_id total_return cagr sharpe sortino max_drawdown win_rate profit_factor trade_count "
                        "equity_curve metrics",
    "strategies": "strategy_id user_id name description parameters is_active updated_at",
    "strategy_rules": "rule_id strategy_id name source_type source_ref entry_type conditions confluence_required "
                      "risk_params confidence trade_count win_rate avg_r_multiple updated_at",
    "trades": "trade_id user_id signal_id strategy_rule_id backtest_id asset_id direction trade_type quantity "
              "entry_price exit_price entry_time exit_time status outcome pnl pnl_r reasoning confidence "
              "is_paper_trade is_backtest updated_at",
    "positions": "position_id user_id asset_id side entry_price current_price exit_price quantity pnl pnl_percent "
                 "is_open opened_at closed_at updated_at",
    "learning_entries": "entry_id strategy_rule_id insight supporting_trades confidence impact_type market_conditions "
                        "validation_count updated_at",
    "users": "user_id username email password_hash full_name role is_active is_verified preferred_currency "
             "preferred_theme enable_notifications last_login updated_at",
    "watchlists": "watchlist_id user_id name description color icon is_default updated_at",
    "watchlist_items": "item_id watchlist_id asset_id position notes price_alert_high price_alert_low updated_at",
    "alerts": "alert_id user_id asset_id alert_type condition target_value is_active is_triggered message "
              "triggered_at",
    "notifications": "notification_id user_id alert_id notification_type message is_read",
    "data_policies": "hypertable compress_after drop_after",
}
ENUMS = {
    "asset_type": "stock etf crypto forex commodity index",
    "candle_interval": "1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 1w 1M",
    "indicator_type": "sma ema rsi macd bbands atr obv stoch adx cci",
    "signal_type": "strong_sell sell hold buy strong_buy",
    "model_type": "tft lstm ensemble prophet multimodal xgboost other",
    "anomaly_status": "open acknowledged confirmed_error real_event expected dismissed",
}


@pytest.mark.parametrize("table", COLUMNS)
def test_table_has_the_columns_of_the_contract(tx, table):
    found = {name for (name,) in tx.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s", (table,)
    )}
    assert set(COLUMNS[table].split()) <= found


@pytest.mark.parametrize("enum", ENUMS)
def test_enum_has_the_values_of_the_contract_in_order(tx, enum):
    assert tx.execute(f"SELECT enum_range(NULL::{enum})::text[]").fetchone() == (ENUMS[enum].split(),)


ASKED = {  # what each index of candles is for: of a question that is shipped, or of a constraint
    "candles_pkey": "asset_id = (SELECT min(asset_id::text)::uuid FROM assets) AND interval = '1m'"
                    " ORDER BY ts DESC LIMIT 30",  # latest_candles and what else names a series
    "candles_asset_id_ts_idx": "asset_id = (SELECT min(asset_id::text)::uuid FROM assets) AND ts <= '2025-01-02'"
                               " ORDER BY ts DESC, interval DESC LIMIT 1",  # latest_price(): bars of any length
    "candles_ts_asset_id_idx": "true ORDER BY ts DESC LIMIT 30",  # daily_bars, weekly_bars, the applications' views
    "candles_source_id_idx": "source_id = 7",  # candles_source_id_fkey, where a source is deleted
    "candles_quality_score_idx": "quality_score IS NULL",  # doctor: rows that nobody scored
    "candles_id_idx": "id = 7",  # the views' UPDATE and DELETE, by the number that an application knows
}


def test_each_index_of_candles_answers_something(tx):
    """And there is no other: each costs every bar that is stored."""
    found = {name for (name,) in tx.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'"
                                            " AND tablename = 'candles'")}
    assert found == set(ASKED)
    tx.execute("INSERT INTO assets (symbol, asset_type) SELECT 'S' || n, 'crypto' FROM generate_series(1, 20) AS n;"
               "INSERT INTO candles (asset_id, interval, ts, close) SELECT asset_id, i::candle_interval,"
               " timestamptz '2025-01-02' + n * interval '1 minute', 1"
               " FROM assets, unnest(ARRAY['1m', '5m']) AS i, generate_series(1, 300) AS n;"
               "ANALYZE candles; ANALYZE assets; SET LOCAL enable_seqscan = off")
    for index, condition in ASKED.items():
        plan = "\n".join(line for (line,) in tx.execute("EXPLAIN (ANALYZE, COSTS off, TIMING off) SELECT * FROM candles"
                                                        f" WHERE {condition}"))
        assert f"_{index}" in plan, plan


def test_hypertables_are_cut_as_the_contract_says(tx):
    found = tx.execute(
        "SELECT hypertable_name, column_name, time_interval FROM timescaledb_information.dimensions"
        " WHERE hypertable_schema = 'public'"
    ).fetchall()
    seconds = {"1 month": 30 * 86400, "7 days": 7 * 86400, "1 day": 86400}
    assert {name: (column, length.total_seconds()) for name, column, length in found} == {
        name: (column, seconds[length]) for name, (column, length) in HYPERTABLES.items()
    }


def test_edition_is_the_one_the_server_was_started_with(tx, edition):
    assert tx.execute("SELECT _tidemark.edition()").fetchone() == (edition,)


REFUSED = [
    ("assets", {"symbol": " ", "asset_type": "stock"}, {"symbol": "X", "asset_type": "stock"},
     "assets_symbol_not_blank"),
    ("users", {"username": "a", "email": "nowhere"}, {"username": "a", "email": "a@b.c"}, "users_email_has_at_sign"),
    ("quality_profiles", {"name": "p", "anomaly_z": 7}, {"name": "p", "anomaly_z": 5},
     "quality_profiles_thresholds_ordered"),
    ("quality_profiles", {"name": "p", "min_samples": 101}, {"name": "p", "min_samples": 100},
     "quality_profiles_samples_fit_baseline"),
    ("models", {"name": "m", "model_type": "lstm", "accuracy": 1.1}, {"name": "m", "model_type": "lstm", "accuracy": 1},
     "models_accuracy_in_range"),
    ("market_calendar", {"market": "M", "date": "2024-01-01", "opens_at": "2024-01-01 10:00+00"},
     {"market": "M", "date": "2024-01-01"}, "market_calendar_session_has_both_ends"),
    ("lineage", {"target_kind": "file", "target_ref": "a", "upstream_kind": "file", "upstream_ref": "a"},
     {"target_kind": "file", "target_ref": "a", "upstream_kind": "file", "upstream_ref": "b"},
     "lineage_not_its_own_upstream"),
    ("ingestion_tasks", {"source_ref": "f", "status": "failed"}, {"source_ref": "f", "status": "running"},
     "ingestion_tasks_end_is_dated"),
]


@pytest.mark.parametrize(("table", "bad", "good", "constraint"), REFUSED, ids=[case[3] for case in REFUSED])
def test_impossible_row_is_refused_and_its_neighbour_taken(tx, add, table, bad, good, constraint):
    tx.execute("SET LOCAL tidemark.reason = 'a test'")  # without one, configuration takes no change
    with pytest.raises(errors.CheckViolation) as refused, tx.transaction():
        add(table, **bad)
    assert refused.value.diag.constraint_name == constraint
    add(table, **good)


@pytest.mark.parametrize("column", ["username", "email"])
def test_users_are_unique_without_regard_to_case(tx, add, column):
    values = {"username": "Ada", "email": "ada@example.org"}
    add("users", **values)
    with pytest.raises(errors.UniqueViolation) as refused, tx.transaction():
        add("users", **{**{"username": "b", "email": "b@example.org"}, column: values[column].upper()})
    assert refused.value.diag.constraint_name == f"users_{column}_key"


def test_symbol_is_unique_per_exchange_and_no_exchange_is_one(tx, add):
    add("assets", symbol="AAA", exchange="XNYS")
    add("assets", symbol="AAA", exchange="XLON")
    add("assets", symbol="AAA")
    with pytest.raises(errors.UniqueViolation), tx.transaction():
        add("assets", symbol="AAA")


def test_user_has_one_default_watchlist(tx, add):
    user = add("users")
    add("watchlists", user_id=user, name="a", is_default=True)
    add("watchlists", user_id=user, name="b")
    with pytest.raises(errors.UniqueViolation) as refused, tx.transaction():
        add("watchlists", user_id=user, name="c", is_default=True)
    assert refused.value.diag.constraint_name == "watchlists_one_default_key"


@pytest.mark.parametrize("ts", ["infinity", "-infinity"])
def test_infinite_time_is_refused(tx, add, ts):
    source = add("sources")
    with pytest.raises(psycopg.DataError if ts.startswith("-") else errors.CheckViolation), tx.transaction():
        add("timeseries_data", source_id=source, timestamp=ts, close=1)
    add("timeseries_data", source_id=source, timestamp="2024-01-01", close=1)


def test_row_of_an_unknown_source_is_refused(tx, add):
    with pytest.raises(errors.ForeignKeyViolation), tx.transaction():
        add("timeseries_data", source_id=999_999, timestamp="2024-01-01", close=1)


def test_one_row_per_series_and_instant(tx, add):
    asset = add("assets")
    add("candles", asset_id=asset, interval="1d", ts="2024-01-01", close=1)
    add("candles", asset_id=asset, interval="1h", ts="2024-01-01", close=1)
    with pytest.raises(errors.UniqueViolation) as refused, tx.transaction():
        add("candles", asset_id=asset, interval="1d", ts="2024-01-01", close=2)
    assert refused.value.diag.constraint_name.endswith("candles_pkey")


def test_odd_price_is_stored_as_it_came(tx, add):
    source = add("sources")
    add("timeseries_data", source_id=source, timestamp="2024-01-01", open=-1, high=0, low=5, close=float("nan"))
    assert tx.execute("SELECT open, high, low, close::text FROM timeseries_data WHERE source_id = %s", (source,)
                      ).fetchone() == (-1, 0, 5, "NaN")


@pytest.mark.parametrize(("side", "pnl", "percent"), [("long", 50, 25), ("short", -50, -25)])
def test_pnl_follows_the_price(tx, add, side, pnl, percent):
    add("positions", user_id=add("users"), asset_id=add("assets"), side=side, entry_price=20, current_price=25,
        quantity=10)
    assert tx.execute("SELECT pnl, pnl_percent FROM positions").fetchone() == (Decimal(pnl), Decimal(percent))


def test_pnl_of_a_closed_position_is_at_its_exit(tx, add):
    add("positions", user_id=add("users"), asset_id=add("assets"), side="long", entry_price=20, current_price=25,
        quantity=10, exit_price=19, is_open=False, closed_at="2999-01-01")
    assert tx.execute("SELECT pnl FROM positions").fetchone() == (-10,)


TOUCHED = ["assets", "sources", "quality_profiles", "validation_rules", "ingestion_tasks", "users", "watchlists",
           "watchlist_items", "models", "strategies", "strategy_rules", "trades", "positions", "learning_entries",
           "corporate_actions"]


@pytest.mark.parametrize("table", TOUCHED)
def test_updated_at_has_its_trigger(tx, table):
    assert tx.execute(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = 'trg_set_updated_at'"
        " AND tgenabled = 'O'", (table,)
    ).fetchone() == (1,)


def test_updated_at_moves_with_a_change_and_only_then(tx, add):
    position = add("positions", user_id=add("users"), asset_id=add("assets"), side="long", entry_price=20, quantity=1,
                   updated_at="2000-01-01")
    old = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    read = "SELECT updated_at FROM positions WHERE position_id = %s"
    tx.execute("UPDATE positions SET quantity = 1 WHERE position_id = %s", (position,))
    assert tx.execute(read, (position,)).fetchone() == (old,)
    tx.execute("UPDATE positions SET quantity = 2 WHERE position_id = %s", (position,))
    assert tx.execute(read, (position,)).fetchone()[0] > old


def test_sentiment_is_found_by_its_words(tx, add):
    add("sentiment_data", asset_id=add("assets"), ts="2024-01-01", source="news", text="Miners were selling coins",
        sentiment_score=-0.5)
    query = ("SELECT count(*) FROM sentiment_data"
             " WHERE to_tsvector('english', text) @@ websearch_to_tsquery('english', %s)")
    assert tx.execute(query, ("miner sell",)).fetchone() == (1,)
    assert tx.execute(query, ("whale",)).fetchone() == (0,)
