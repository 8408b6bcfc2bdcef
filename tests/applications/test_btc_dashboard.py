"""BTC dashboard: its ORM's queries on the real tables, its bulk upsert, its aggregates and its record."""

from __future__ import annotations

import datetime as dt

import pytest

DAY = dt.timedelta(days=1)
NAIVE = dt.datetime(2024, 1, 1)
START = NAIVE.replace(tzinfo=dt.UTC)


def statement(line: int, title: str):
    return pytest.mark.statement("btc_dashboard", line, title)


@pytest.fixture
def app(use):
    connection = use("btc_dashboard")
    connection.execute("SET LOCAL timezone = 'UTC'")
    return connection


@pytest.fixture
def sources(app):
    return [
        app.execute(
            "INSERT INTO sources (name, display_name, data_type, status) VALUES (%s, %s, %s, %s) RETURNING source_id",
            (name, name.title(), kind, status)
        ).fetchone()[0]
        for name, kind, status in (("btc_price", "ohlcv", "active"), ("hash_rate", "scalar", "active"), ("old",
            "scalar", "retired"))
    ]


UPSERT = (
    "INSERT INTO timeseries_data (source_id, timestamp, close, value) VALUES (%s, %s, %s, %s), (%s, %s, %s, %s)"
    " ON CONFLICT (source_id, timestamp) DO UPDATE SET close = excluded.close, value = excluded.value"
)


@statement(161, "bulk_upsert on (source_id, timestamp), run twice")
def test_bulk_upsert(app, sources):
    one = sources[0]
    for first in (42000.5, 42001.5):
        app.execute(UPSERT, (one, NAIVE, first, None, one, NAIVE + DAY, 42500.75, None))
    assert app.execute(
        "SELECT timestamp, close, value FROM timeseries_data WHERE source_id = %s ORDER BY timestamp", (one,)
    ).fetchall() == [(START, 42001.5, None), (START + DAY, 42500.75, None)]


@statement(122, "all active sources")
def test_active_sources(app, sources):
    assert app.execute(
        "SELECT name, data_type FROM sources WHERE status = 'active' ORDER BY name"
    ).fetchall() == [("btc_price", "ohlcv"), ("hash_rate", "scalar")]


@statement(128, "a source's rows since a date, newest first")
def test_rows_since(app, sources):
    one = sources[0]
    app.execute(UPSERT, (one, NAIVE, 1, None, one, NAIVE + 40 * DAY, 2, None))
    assert app.execute(
        "SELECT close FROM timeseries_data WHERE source_id = %s AND timestamp >= %s ORDER BY timestamp DESC", (one,
        NAIVE + DAY)
    ).fetchall() == [(2,)]


@statement(170, "latest point per source with its quality")
def test_latest_point_per_source(app, sources):
    one, two, _ = sources
    app.execute(UPSERT, (one, NAIVE, 1, None, one, NAIVE + DAY, 2, None))
    app.execute(UPSERT, (two, NAIVE, None, 7, two, NAIVE + DAY, None, 8))
    rows = app.execute(
        "SELECT DISTINCT ON (s.name) s.name, s.display_name, t.timestamp, t.value, t.quality_score FROM sources s"
        " JOIN timeseries_data t ON s.source_id = t.source_id ORDER BY s.name, t.timestamp DESC"
    ).fetchall()
    assert [row[:4] for row in rows] == [("btc_price", "Btc_Price", START + DAY, None), ("hash_rate", "Hash_Rate",
        START + DAY, 8)]
    assert all(score is None or 0 <= score <= 100 for *_, score in rows)


@statement(346, "count rows; create_hypertable with migrate_data on what is one")
def test_timeseries_data_is_a_hypertable_already(app, sources):
    app.execute(UPSERT, (sources[0], NAIVE, 1, None, sources[0], NAIVE + DAY, 2, None))
    assert app.execute("SELECT COUNT(*) FROM timeseries_data").fetchone() == (2,)
    assert app.execute(
        "SELECT table_name, created FROM create_hypertable('timeseries_data', 'timestamp', migrate_data => TRUE)"
    ).fetchone() == ("timeseries_data", False)
    assert app.execute("SELECT COUNT(*) FROM timeseries_data").fetchone() == (2,)


@statement(238, "daily bars of a source since a date")
def test_daily_ohlcv(app, sources):
    one = sources[0]
    for hour, close in enumerate((10.0, 12.0, 9.0, 11.0)):
        app.execute(
            "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume) VALUES (%s, %s, %s,"
            " %s, %s, %s, 2)",
            (one, NAIVE + 2 * DAY + dt.timedelta(hours=hour), close, close + 1, close - 1, close)
        )
    rows = app.execute(
        "SELECT day, open, high, low, close, volume FROM daily_ohlcv WHERE source_id = %s AND day > '2024-01-01'",
        (one,)
    ).fetchall()
    assert rows == [(START + 2 * DAY, 10, 13, 8, 11, 8)]


@statement(241, "hourly values of the last seven days")
def test_hourly_values(app, sources):
    two = sources[1]
    hour = app.execute("SELECT date_trunc('hour', now()) - interval '3 hours'").fetchone()[0]
    for minute, value in ((0, 1.0), (20, 3.0), (40, 2.0)):
        app.execute(
            "INSERT INTO timeseries_data (source_id, timestamp, value) VALUES (%s, %s, %s)",
            (two, hour + dt.timedelta(minutes=minute), value)
        )
    assert app.execute(
        "SELECT hour, avg_value, min_value, max_value, last_value FROM hourly_values"
        " WHERE source_id = %s AND hour > NOW() - INTERVAL '7 days'", (two,)
    ).fetchall() == [(hour, 2, 1, 3, 2)]


@statement(216, "ml_models, with upsert")
def test_models(app):
    upsert = (
        "INSERT INTO ml_models (name, version, model_type, accuracy) VALUES ('lstm_daily', '1', 'lstm', %s)"
        " ON CONFLICT (name, version) DO UPDATE SET accuracy = excluded.accuracy RETURNING model_id"
    )
    assert app.execute(upsert, (0.5,)).fetchone() == app.execute(upsert, (0.6,)).fetchone()
    assert app.execute("SELECT name, accuracy, stage FROM ml_models").fetchall() == [("lstm_daily", 0.6, "development")]
    assert app.execute("DELETE FROM ml_models").rowcount == 1


@statement(355, "the scoring trigger is there and enabled")
def test_scoring_trigger(app):
    assert ("trg_calculate_quality_score", "O") in app.execute(
        "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = 'timeseries_data'::regclass"
    ).fetchall()


@statement(292, "slow queries")
def test_slow_queries(app):
    cursor = app.execute(
        "SELECT query, mean_exec_time, calls FROM pg_stat_statements WHERE mean_exec_time > 500 ORDER BY"
        " mean_exec_time DESC"
    )
    assert [column.type_code for column in cursor.description] == [25, 701, 20]
