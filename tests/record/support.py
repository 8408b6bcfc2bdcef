"""What the tests of the record share: rows of every audited table, and the entries that changes leave."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

ARGON2ID = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQxMjM$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo"
HYPERTABLES = ("timeseries_data", "candles", "quotes", "sentiment_data", "indicators", "features", "ticks")
UNRECORDED_INSERTS = (*HYPERTABLES, "anomalies", "time_index")
REASON_DEMANDED = ("validation_rules", "quality_profiles", "data_policies")
RECORD = ("audit_log", "audit_tx", "audit_seals", "timeseries_archive")
NOT_AUDITED = (*RECORD, "quality_issues", "ingestion_rejects")
_serial = itertools.count(1)


class Rows:
    """Valid rows of any audited table, each different from the others, with what they refer to in place."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.asset, self.source = self._new("assets"), self._new("sources")
        self.user, self.model = self._new("users"), self._new("models")
        self.strategy = self._new("strategies")
        self.watchlist, self.config = self._new("watchlists"), self._new("backtest_configs")

    def _new(self, table: str) -> Any:
        return insert(self.connection, table, self.row(table))[0]

    def _hypertable(self, name: str) -> str:
        self.connection.execute(sql.SQL("CREATE TABLE {} (ts timestamptz PRIMARY KEY)").format(sql.Identifier(name)))
        self.connection.execute("SELECT create_hypertable(%s, by_range('ts'))", [name])
        return name

    def row(self, table: str) -> dict[str, Any]:
        i = next(_serial)
        ts = str(datetime(2024, 1, 1, 0, 0, 0, 123456, UTC) + timedelta(minutes=i))
        span = {"period_start": "2024-01-01+00", "period_end": "2024-06-01+00"}
        return {
            "alerts": lambda: {"user_id": self.user, "asset_id": self.asset, "condition": "above", "target_value": i},
            "anomalies": lambda: {
                "table_name": "quotes", "series": f'{{"n": {i}}}', "timestamp": ts, "severity": "anomaly", "z_score": 5,
                "observed": 1, "expected": 0, "scale": 1, "samples": 99, "detector_version": "x"},
            "assets": lambda: {"symbol": f"T{i}", "asset_type": "stock"},
            "backtest_configs": lambda: {"name": "b", "strategy_id": self.strategy, "interval": "1d",
                                         "asset_universe": [self.asset], **span},
            "backtest_results": lambda: {"config_id": self.config, **span},
            "candles": lambda: {"asset_id": self.asset, "interval": "1h", "ts": ts, "open": 10, "high": 11, "low": 9,
                                "close": 10.5, "volume": 1},
            "corporate_actions": lambda: {"asset_id": self.asset, "ex_date": str(date(2024, 1, 1) + timedelta(days=i)),
                                          "ratio": 2, "source": "a file"},
            "data_policies": lambda: {"hypertable": self._hypertable(f"h{i}")},
            "features": lambda: {"asset_id": self.asset, "ts": ts, "feature_set": "f", "name": f"n{i}", "value": 1},
            "forecasts": lambda: {"source_id": self.source, "target_ts": "2100-01-01+00", "predicted": i,
                                  "made_at": ts},
            "indicators": lambda: {"asset_id": self.asset, "ts": ts, "interval": "1d", "indicator_type": "sma",
                                   "name": f"n{i}", "value": 1},
            "ingestion_tasks": lambda: {"source_ref": f"file {i}"},
            "learning_entries": lambda: {"insight": f"insight {i}"},
            "lineage": lambda: {"target_kind": "feature", "target_ref": f"t{i}", "upstream_kind": "source",
                                "upstream_ref": f"u{i}"},
            "market_calendar": lambda: {"market": f"M{i}", "date": "2024-01-02"},
            "models": lambda: {"name": f"m{i}", "model_type": "lstm"},
            "notifications": lambda: {"user_id": self.user, "notification_type": "system", "message": f"m{i}"},
            "positions": lambda: {"user_id": self.user, "asset_id": self.asset, "side": "long", "entry_price": 10,
                                  "quantity": i},
            "predictions": lambda: {
                "user_id": self.user, "asset_id": self.asset, "model_type": "lstm", "current_price": 1,
                "predicted_price": 2, "direction": "buy", "confidence": 0.5, "interval": "1d", "horizon_hours": i,
                "prediction_for": "2100-01-01+00"},
            "quality_profiles": lambda: {"name": f"profile {i}"},
            "quotes": lambda: {"asset_id": self.asset, "ts": ts, "price": 10},
            "sentiment_data": lambda: {"asset_id": self.asset, "ts": ts, "source": "news", "sentiment_score": 0.5,
                                       "sentiment_id": i},
            "signals": lambda: {"asset_id": self.asset, "ts": ts, "signal_type": "buy"},
            "sources": lambda: {"name": f"source {i}", "data_type": "ohlcv"},
            "strategies": lambda: {"name": f"s{i}", "user_id": self.user},
            "strategy_rules": lambda: {"name": f"r{i}", "entry_type": "breakout", "strategy_id": self.strategy},
            "ticks": lambda: {"asset_id": self.asset, "ts": ts, "seq": i, "price": 10, "quantity": 1},
            "time_index": lambda: {
                "timestamp": f"{2200 + i}-01-01+00", "date_only": f"{2200 + i}-01-01", "year": 2200 + i, "quarter": 1,
                "month": 1, "iso_week": 1, "day_of_week": 1, "hour": 0, "is_weekend": False, "is_month_end": False,
                "is_trading_day": False},
            "timeseries_data": lambda: {"source_id": self.source, "timestamp": ts, "open": 10, "high": 11, "low": 9,
                                        "close": 10.5, "volume": 1},
            "trades": lambda: {"user_id": self.user, "asset_id": self.asset, "trade_type": "buy", "quantity": i},
            "users": lambda: {"username": f"user{i}", "email": f"user{i}@example.org", "password_hash": ARGON2ID},
            "validation_rules": lambda: {"name": f"rule {i}", "applies_to": "quotes", "rule_type": "not_null",
                                         "parameters": '{"column": "bid"}', "is_active": False},
            "watchlist_items": lambda: {"watchlist_id": self.watchlist,
                                        "asset_id": insert(self.connection, "assets", self.row("assets"))[0]},
            "watchlists": lambda: {"user_id": self.user, "name": f"w{i}"},
        }[table]()


# A column of each table that may change, and two values for it.
CHANGE = {
    "alerts": ("message", "new", "newer"), "anomalies": ("notes", "new", "newer"), "assets": ("name", "new", "newer"),
    "backtest_configs": ("name", "new", "newer"), "backtest_results": ("sharpe", 1.5, 2.5),
    "candles": ("volume", 2.0, 3.0), "corporate_actions": ("notes", "new", "newer"),
    "data_policies": ("drop_after", "100 days", "200 days"),
    "features": ("value", 2.0, 3.0), "forecasts": ("upper", 1e9, 2e9), "indicators": ("value", 2.0, 3.0),
    "ingestion_tasks": ("rows_read", 7, 8), "learning_entries": ("impact_type", "new", "newer"),
    "lineage": ("transformation", "new", "newer"), "market_calendar": ("holiday_name", "new", "newer"),
    "models": ("accuracy", 0.5, 0.25), "notifications": ("is_read", True, False),
    "positions": ("entry_price", 11, 12), "predictions": ("model_version", "new", "newer"),
    "quality_profiles": ("market", "XNYS", "XLON"), "quotes": ("volume", 2.0, 3.0),
    "sentiment_data": ("text", "new", "newer"), "signals": ("rationale", "new", "newer"),
    "sources": ("display_name", "new", "newer"), "strategies": ("description", "new", "newer"),
    "strategy_rules": ("source_ref", "new", "newer"), "ticks": ("quantity", 2.0, 3.0),
    "time_index": ("is_trading_day", True, False),
    "timeseries_data": ("volume", 2.0, 3.0), "trades": ("reasoning", "new", "newer"),
    "users": ("full_name", "new", "newer"), "validation_rules": ("severity", "info", "error"),
    "watchlist_items": ("notes", "new", "newer"), "watchlists": ("color", "new", "newer"),
}
AUDITED = tuple(CHANGE)


def names(columns: Any) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def literals(values: Any) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, values))


def insert(connection: psycopg.Connection, table: str, row: dict[str, Any], returning: Any = None) -> tuple:
    """Insert the row; returns the given columns of it, or all."""
    return connection.execute(sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING {}").format(
        sql.Identifier(table), names(row), literals(row.values()), names(returning) if returning else sql.SQL("*")
    )).fetchone()


def key_of(connection: psycopg.Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute(
        "SELECT a.attname FROM pg_index AS i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (n, place)"
        " JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.n"
        " WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY k.place", [table])]


class Log:
    """The entries that were made since this was created, or since `clear`."""

    def __init__(self, connection: psycopg.Connection, table: str) -> None:
        self.connection, self.table = connection, table
        self.clear()

    def clear(self) -> None:
        self.since = self.connection.execute("SELECT coalesce(max(audit_id), 0) FROM audit_log").fetchone()[0]

    def entries(self, *columns: str) -> list[tuple]:
        """The given columns of the new entries about the table, and forget them."""
        found = self.connection.execute(
            sql.SQL("SELECT {} FROM audit_log WHERE audit_id > %s AND table_name = %s ORDER BY audit_id").format(
                names(columns)), [self.since, self.table]).fetchall()
        self.clear()
        return found

    def operations(self) -> list[str]:
        return [operation for (operation,) in self.entries("operation")]
