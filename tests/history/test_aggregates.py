"""What the aggregates are, on either edition: columns, buckets, definitions, and how users add their own."""

from __future__ import annotations

import datetime
import re

import psycopg
import pytest

from tidemark import lifecycle, migrations

UTC = datetime.UTC
CANDLE = {"asset_id": "uuid", "bucket": "timestamp with time zone", "open": "double precision",
          "high": "double precision", "low": "double precision", "close": "double precision",
          "volume": "double precision", "trades": "bigint", "vwap": "double precision"}
DAY = {"day": "timestamp with time zone", "row_count": "bigint", "scored": "bigint", "score_sum": "bigint",
       "mean_score": "numeric", "penalised": "bigint", "anomalies": "bigint", "first_at": "timestamp with time zone",
       "last_at": "timestamp with time zone"}
COLUMNS = {
    "daily_ohlcv": {"source_id": "integer", "day": "timestamp with time zone", "open": "double precision",
                    "high": "double precision", "low": "double precision", "close": "double precision",
                    "volume": "double precision", "samples": "bigint"},
    "hourly_values": {"source_id": "integer", "hour": "timestamp with time zone", "avg_value": "double precision",
                      "min_value": "double precision", "max_value": "double precision",
                      "last_value": "double precision", "samples": "bigint"},
    **{f"candles_{name}": CANDLE for name in ("5m", "15m", "1h", "4h", "1d")},
    "timeseries_data_days": {"source_id": "integer", **DAY},
    "candles_days": {"asset_id": "uuid", "interval": "candle_interval", **DAY},
    "quotes_days": {"asset_id": "uuid", **DAY},
}
WIDTHS = {"daily_ohlcv": "1 day", "hourly_values": "1 hour", "candles_5m": "5 minutes", "candles_15m": "15 minutes",
          "candles_1h": "1 hour", "candles_4h": "4 hours", "candles_1d": "1 day",
          "timeseries_data_days": "1 day", "candles_days": "1 day", "quotes_days": "1 day"}


@pytest.fixture
def free(db):
    """A connection of the test's own that commits, to a database of its own, without scoring to wait for."""
    with db.connect(prepare_threshold=None) as connection:
        connection.execute("SET tidemark.reason = 'as the test has it'")
        connection.execute("SELECT detach_quality(t) FROM unnest('{timeseries_data,candles}'::regclass[]) AS t")
        yield connection


@pytest.fixture
def source(free):
    return free.execute("INSERT INTO sources (name, data_type) VALUES ('s', 'ohlcv') RETURNING source_id").fetchone()[0]


@pytest.fixture
def asset(free):
    return free.execute(
        "INSERT INTO assets (symbol, asset_type) VALUES ('A', 'stock') RETURNING asset_id"
    ).fetchone()[0]


def fill(connection: psycopg.Connection, source: int, first: str, last: str, step: str = "1 hour") -> None:
    connection.execute(
        "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, value)"
        " SELECT %s, t, 1, 2, 0, extract(hour FROM t AT TIME ZONE 'UTC'), 1, extract(minute FROM t)"
        " FROM generate_series(%s::timestamptz, %s::timestamptz, %s::interval) AS t", (source, first, last, step),
    )


def rows(connection: psycopg.Connection, relation: str) -> list:
    return connection.execute(f"SELECT * FROM {relation} ORDER BY 1, 2").fetchall()


# What there is


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_the_same_on_every_edition(tx, name):
    assert dict(tx.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " ORDER BY attnum", (name,)
    ).fetchall()) == COLUMNS[name]


def test_each_edition_keeps_them_its_own_way(tx, edition):
    native = {name for (name,) in tx.execute(
        "SELECT view_name FROM timescaledb_information.continuous_aggregates WHERE NOT materialized_only"
    ).fetchall()} if edition == "community" else set()
    assert native == (set(COLUMNS) if edition == "community" else set())
    assert dict(tx.execute("SELECT name, bucket::text FROM _tidemark.rollups WHERE is_native = %s",
                           (edition == "community",)).fetchall()) == dict(tx.execute(
                               "SELECT k, v::interval::text FROM json_each_text(%s::json) AS e (k, v)",
                               (psycopg.types.json.Json(WIDTHS),)).fetchall())


@pytest.mark.community
def test_longer_candles_are_made_from_shorter_ones(tx):
    made_from = dict(tx.execute("""
        SELECT a.view_name, p.view_name FROM timescaledb_information.continuous_aggregates AS a
          LEFT JOIN timescaledb_information.continuous_aggregates AS p
            ON p.materialization_hypertable_name = a.hypertable_name""").fetchall())
    assert made_from == {"daily_ohlcv": None, "hourly_values": None, "candles_5m": None, "candles_15m": "candles_5m",
                         "candles_1h": "candles_15m", "candles_4h": "candles_1h", "candles_1d": "candles_4h",
                         "timeseries_data_days": None, "candles_days": None, "quotes_days": None}


# What they say


def test_a_day_of_bars(free, source):
    free.execute("""
        INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume) VALUES
            (%(s)s, '2024-01-02 23:59:59.999999+00', 4, 40, 0.5, 14, 400),
            (%(s)s, '2024-01-02 00:00+00', NULL, 10, 1, 11, 100),
            (%(s)s, '2024-01-02 09:00+00', 2, 99, 1, 12, NULL),
            (%(s)s, '2024-01-02 10:00+00', 3, NULL, NULL, 13, 300),
            (%(s)s, '2024-01-02 11:00+00', 7, 7, 7, NULL, 7),
            (%(s)s, '2024-01-03 00:00+00', 5, 5, 5, 5, 5)""", {"s": source})
    expected = [(source, datetime.datetime(2024, 1, 2, tzinfo=UTC), 2.0, 99.0, 0.5, 14.0, 800.0, 4),
                (source, datetime.datetime(2024, 1, 3, tzinfo=UTC), 5.0, 5.0, 5.0, 5.0, 5.0, 1)]
    assert rows(free, "daily_ohlcv") == expected
    lifecycle.refresh(free)
    assert rows(free, "daily_ohlcv") == expected


def test_an_hour_of_values(free, source):
    free.execute("INSERT INTO timeseries_data (source_id, timestamp, value) SELECT %s, v.ts::timestamptz, v.value FROM"
                 " (VALUES ('2024-01-02 10:00+00', 3), ('2024-01-02 10:59+00', 1), ('2024-01-02 10:30+00', 5),"
                 " ('2024-01-02 10:59:30+00', NULL), ('2024-01-02 11:00+00', 7)) AS v (ts, value)", (source,))
    expected = [(source, datetime.datetime(2024, 1, 2, 10, tzinfo=UTC), 3.0, 1.0, 5.0, 1.0, 3),
                (source, datetime.datetime(2024, 1, 2, 11, tzinfo=UTC), 7.0, 7.0, 7.0, 7.0, 1)]
    assert rows(free, "hourly_values") == expected
    lifecycle.refresh(free)
    assert rows(free, "hourly_values") == expected


def test_candles_weigh_by_volume_and_leave_other_lengths_alone(free, asset):
    free.execute("""
        INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume, trades, vwap) VALUES
            (%(a)s, '1m', '2024-01-02 10:00+00', 10, 12, 9, 11, 100, 5, 10),
            (%(a)s, '1m', '2024-01-02 10:01+00', 11, 15, 11, 13, 300, 7, 14),
            (%(a)s, '1m', '2024-01-02 10:07+00', 13, 16, 10, 13, 100, NULL, NULL),
            (%(a)s, '1m', '2024-01-02 10:16+00', 20, 20, 20, 20, 0, 0, NULL),
            (%(a)s, '5m', '2024-01-02 10:00+00', 99, 99, 99, 99, 99, 99, 99),
            (%(a)s, '1d', '2024-01-02 00:00+00', 99, 99, 99, 99, 99, 99, 99)""", {"a": asset})
    def at(minute: int) -> datetime.datetime:
        return datetime.datetime(2024, 1, 2, 10, minute, tzinfo=UTC)

    for _ in range(2):
        assert rows(free, "candles_5m") == [
            (asset, at(0), 10.0, 15.0, 9.0, 13.0, 400.0, 12, 13.0),
            (asset, at(5), 13.0, 16.0, 10.0, 13.0, 100.0, None, 13.0),  # its typical price
            (asset, at(15), 20.0, 20.0, 20.0, 20.0, 0.0, 0, None),
        ]
        assert rows(free, "candles_15m") == [
            (asset, at(0), 10.0, 16.0, 9.0, 13.0, 500.0, 12, 13.0),
            (asset, at(15), 20.0, 20.0, 20.0, 20.0, 0.0, 0, None),
        ]
        for name, hour in (("candles_1h", 10), ("candles_4h", 8), ("candles_1d", 0)):
            assert rows(free, name) == [
                (asset, at(0).replace(hour=hour), 10.0, 20.0, 9.0, 20.0, 500.0, 12, pytest.approx(13.0))
            ]
        lifecycle.refresh(free)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe"])
def test_buckets_are_those_of_utc_whatever_the_session(free, source, zone):
    """Over the days on which the clocks change, and over the end of a month."""
    free.execute("SELECT add_rollup('monthly', 'timeseries_data', '1 month', ARRAY['source_id'],"
                 " ARRAY['count(*) AS samples'], p_parent => NULL)")
    free.execute("SELECT set_config('timezone', %s, false)", (zone,))
    for year, months in ((2024, ((3, 31), (4, 30))), (2023, ((10, 31), (11, 30)))):
        first, last = (datetime.datetime(year, month, 1, tzinfo=UTC) for month, _ in months)
        fill(free, source, first.isoformat(), (last + datetime.timedelta(days=months[1][1], hours=-1)).isoformat())
        lifecycle.refresh(free)
        late = datetime.timedelta(days=30, hours=23, minutes=30)
        free.execute("INSERT INTO timeseries_data (source_id, timestamp, close) VALUES (%s, %s, 5)",
                     (source, first + late))
        lifecycle.refresh(free)
        days = free.execute("SELECT day, samples, open FROM daily_ohlcv WHERE day >= %s AND day < %s ORDER BY 1",
                            (first, last + datetime.timedelta(days=months[1][1]))).fetchall()
        assert [(day.astimezone(UTC), n) for day, n, _ in days] == [
            (first + datetime.timedelta(days=n), 25 if n == 30 else 24) for n in range(sum(d for _, d in months))
        ]
        assert [(month.astimezone(UTC), n) for month, n in free.execute(
            "SELECT bucket, samples FROM monthly WHERE bucket >= %s AND bucket <= %s ORDER BY 1", (first, last))
        ] == [(first, 31 * 24 + 1), (last, months[1][1] * 24)]


def test_new_rows_show_at_once_and_cost_no_entry(free, source, edition):
    fill(free, source, "2024-01-01", "2024-01-10")
    lifecycle.refresh(free)
    fill(free, source, "2024-01-10 01:00", "2024-01-11 05:00")
    assert free.execute("SELECT samples FROM daily_ohlcv ORDER BY day DESC LIMIT 2").fetchall() == [(6,), (24,)]
    assert rows(free, "_tidemark.rollup_changes") == []


def test_late_change_shows_at_once_on_apache_and_after_a_refresh_on_community(free, source, edition):
    fill(free, source, "2024-01-01", "2024-01-10")
    lifecycle.refresh(free)
    old = rows(free, "daily_ohlcv")
    free.execute("UPDATE timeseries_data SET high = 77 WHERE timestamp = '2024-01-03 10:00+00'")
    free.execute("DELETE FROM timeseries_data WHERE timestamp = '2024-01-04 10:00+00'")
    new = rows(free, "_tidemark.daily_ohlcv_direct")
    assert new != old
    assert rows(free, "daily_ohlcv") == (new if edition == "apache" else old)
    lifecycle.refresh(free)
    assert rows(free, "daily_ohlcv") == new
    assert rows(free, "_tidemark.rollup_changes") == []


def test_refresh_recomputes_what_changed_and_nothing_else(free, source, edition):
    if edition == "community":
        table = free.execute(
            "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)"
            " FROM timescaledb_information.continuous_aggregates WHERE view_name = 'daily_ohlcv'"
        ).fetchone()[0]
    else:
        table = "_tidemark.daily_ohlcv_precomputed"
    fill(free, source, "2024-01-01", "2024-03-10")
    lifecycle.refresh(free)
    stored = dict(free.execute(f"SELECT day, ctid::text || tableoid FROM {table}").fetchall())
    free.execute("UPDATE timeseries_data SET high = 77 WHERE timestamp = '2024-02-03 10:00+00'")
    lifecycle.refresh(free)
    again = dict(free.execute(f"SELECT day, ctid::text || tableoid FROM {table}").fetchall())
    assert [day for day in stored if stored[day] != again[day]] == [datetime.datetime(2024, 2, 3, tzinfo=UTC)]


def test_columns_that_no_aggregate_reads_are_no_change(free, source):
    fill(free, source, "2024-01-01", "2024-01-10")
    lifecycle.refresh(free)
    free.execute("UPDATE timeseries_data SET metadata = '{}', ingested_at = '2024-06-01' WHERE close > 3")
    assert rows(free, "_tidemark.rollup_changes") == []


def test_days_tell_of_scores_written_to_old_rows(free, source, edition):
    fill(free, source, "2024-01-01", "2024-01-10")
    lifecycle.refresh(free)
    free.execute("UPDATE timeseries_data SET quality_score = 5, is_anomaly = true WHERE timestamp < '2024-01-02 12:00'")
    expected = [(24, 24, 5, 24, 24), (24, 12, 5, 12, 12), *[(24, 0, None, 0, 0)] * 7, (1, 0, None, 0, 0)]
    figures = "SELECT row_count, scored, mean_score, penalised, anomalies FROM timeseries_data_days ORDER BY day"
    if edition == "apache":
        assert free.execute(figures).fetchall() == expected
    lifecycle.refresh(free)
    assert free.execute(figures).fetchall() == expected
    assert rows(free, "timeseries_data_days") == rows(free, "_tidemark.timeseries_data_days_direct")


def test_row_of_a_day_that_is_not_over_is_logged_only_for_shorter_buckets(free, asset, edition):
    """A bar of an hour that is still forming is written again and again; nothing precomputed has it yet."""
    if edition == "community":
        pytest.skip("TimescaleDB keeps the log there")
    free.execute("INSERT INTO candles (asset_id, interval, ts, close) SELECT %s, '1m', t, 1 FROM generate_series("
                 "'2024-01-01 00:00+00'::timestamptz, '2024-01-02 10:58+00', '1 minute') AS t", (asset,))
    lifecycle.refresh(free)
    for interval, ts, logged in (("1h", "2024-01-02 10:00+00", False), ("1h", "2024-01-01 10:00+00", True),
                                 ("1m", "2024-01-02 10:00+00", True)):
        before = len(rows(free, "_tidemark.rollup_changes"))
        for _ in range(2):
            free.execute("INSERT INTO candles (asset_id, interval, ts, close) VALUES (%s, %s, %s, 2) ON CONFLICT"
                         " (asset_id, interval, ts) DO UPDATE SET close = candles.close + 1", (asset, interval, ts))
        assert (len(rows(free, "_tidemark.rollup_changes")) > before) == logged
        for name in ("candles_days", "candles_5m"):
            assert set(rows(free, name)) == set(rows(free, f"_tidemark.{name}_direct"))


def test_refresh_repairs_a_window_whose_changes_nobody_saw(free, source, edition):
    fill(free, source, "2024-01-01", "2024-01-10")
    lifecycle.refresh(free)
    with free.transaction():
        free.execute("SET LOCAL session_replication_role = replica")  # no trigger fires
        free.execute("UPDATE timeseries_data SET high = 77 WHERE timestamp = '2024-01-03 10:00+00'")
    free.execute("CALL refresh_aggregates('2024-01-03 05:00+00', '2024-01-03 06:00+00')")
    if edition == "apache":
        assert rows(free, "daily_ohlcv") == rows(free, "_tidemark.daily_ohlcv_direct")


def test_old_questions_read_no_raw_rows(free, source):
    """The plan for a year that is precomputed has no chunk of the raw rows in it."""
    fill(free, source, "2022-01-01", "2024-01-10", "6 hours")
    lifecycle.refresh(free)
    free.execute("SET enable_seqscan = off")  # these are few rows
    raw = {name for (name,) in free.execute("SELECT relname FROM show_chunks('timeseries_data') AS c"
                                            " JOIN pg_class ON oid = c").fetchall()}
    plan = "\n".join(line for (line,) in free.execute(
        "EXPLAIN SELECT * FROM daily_ohlcv WHERE source_id = 1 AND day >= '2023-01-01' AND day < '2024-01-01'"
    ))
    assert len(raw) > 20
    assert [name for name in raw if f" {name} " in plan or f" {name}\n" in plan] == []
    assert "Seq Scan on daily_ohlcv_precomputed" not in plan


# Refreshing


def test_refresh_all_aggregates_names_every_aggregate(tx, edition):
    result = tx.execute("SELECT aggregate, outcome FROM refresh_all_aggregates()").fetchall()
    assert {name for name, _ in result} == set(COLUMNS)
    assert all(("job" in outcome) == (edition == "community") for _, outcome in result)


@pytest.mark.community
def test_refresh_all_aggregates_has_the_job_run_now(free):
    free.execute("UPDATE _timescaledb_internal.bgw_job_stat SET next_start = 'infinity'")
    free.execute("SELECT refresh_all_aggregates()")
    assert free.execute("SELECT bool_and(next_start <= now()) FROM timescaledb_information.jobs"
                        " WHERE proc_name = 'refresh_job'").fetchone() == (True,)


@pytest.mark.community
def test_aggregates_that_are_kept_here_stand_beside_those_of_the_job(tx):
    """As in a database that began on the other edition."""
    tx.execute("""
        CREATE OR REPLACE FUNCTION _tidemark.refresh_own()
            RETURNS TABLE (aggregate text, precomputed_to timestamptz, job_id integer, outcome text) LANGUAGE sql AS $$
            SELECT r.name, NULL::timestamptz, CASE WHEN r.name <> 'own' THEN j.job_id END, r.outcome
              FROM (VALUES (1, 'a', NULL), (2, 'own', 'refreshed'), (3, 'b', NULL)) AS r (n, name, outcome)
              JOIN timescaledb_information.jobs AS j ON j.proc_name = 'refresh_job' ORDER BY r.n $$""")
    outcome = dict(tx.execute("SELECT aggregate, outcome FROM refresh_all_aggregates()").fetchall())
    assert outcome["own"] == "refreshed"
    assert re.fullmatch(r"job \d+ runs now", outcome["a"]) and outcome["b"] == outcome["a"]


@pytest.mark.community
def test_jobs_do_their_work(free, source):
    fill(free, source, "2024-01-01", "2024-05-10")
    free.execute("UPDATE data_policies SET drop_after = '400 days' WHERE hypertable = 'timeseries_data'")
    job = dict(free.execute("SELECT proc_name, job_id FROM timescaledb_information.jobs").fetchall())
    free.execute("CALL run_job(%s)" % job["refresh_job"])  # noqa: UP031
    assert free.execute("SELECT watermark = '2024-05-10' FROM _tidemark.rollups WHERE name = 'daily_ohlcv'"
                        ).fetchone() == (True,)
    before = rows(free, "daily_ohlcv")
    free.execute("CALL run_job(%s)" % job["retention_job"])  # noqa: UP031
    assert rows(free, "timeseries_data") == []
    assert rows(free, "daily_ohlcv") == before


def test_refresh_inside_a_transaction_is_done_or_refused_clearly(db, free, source, edition):
    fill(free, source, "2024-01-01", "2024-01-10")
    with db.connect(autocommit=False) as connection:
        if edition == "community":
            with pytest.raises(psycopg.errors.ActiveSqlTransaction):
                lifecycle.refresh(connection)
        else:
            lifecycle.refresh(connection)
            connection.commit()
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with pytest.raises(psycopg.Error) as refused:
                lifecycle.refresh(connection)
            assert refused.value.sqlstate == "TM605"


# Aggregates of the user's own


def add_weekly(connection: psycopg.Connection, **changed) -> None:
    arguments = {"name": "weekly", "hypertable": "quotes", "bucket": "7 days", "series": ["asset_id"],
                 "columns": ["max(price) AS high", "count(*) AS samples"], "filter": None, "parent": None, **changed}
    connection.execute("SELECT add_rollup(%(name)s, %(hypertable)s::regclass, %(bucket)s, %(series)s, %(columns)s,"
                       " p_filter => %(filter)s, p_parent => %(parent)s)", arguments)


def test_users_add_and_drop_aggregates_of_their_own(free, asset, edition):
    made = "SELECT count(*) FROM pg_class WHERE relname ~ '^(weekly|monthly_|quotes_)'"
    before = free.execute(made).fetchone()
    add_weekly(free)
    add_weekly(free)  # changes nothing
    add_weekly(free, name="monthly_", bucket="1 month", filter="price > 5")
    free.execute("INSERT INTO quotes (asset_id, ts, price) SELECT %s, '2024-01-01 12:00+00'::timestamptz"
                 " + make_interval(days => d), d FROM generate_series(0, 20) AS d", (asset,))
    expected = [(asset, datetime.datetime(2024, 1, 1 + 7 * n, tzinfo=UTC), 6 + 7 * n, 7) for n in range(3)]
    assert rows(free, "weekly") == expected
    lifecycle.refresh(free)
    assert rows(free, "weekly") == expected
    free.execute("DELETE FROM quotes WHERE price BETWEEN 10 AND 13")
    lifecycle.refresh(free)
    assert [row[2:] for row in rows(free, "weekly")] == [(6, 7), (9, 3), (20, 7)]
    assert [row[2:] for row in rows(free, "monthly_")] == [(20, 11)]
    free.execute("SELECT drop_rollup('weekly'), drop_rollup('monthly_')")
    assert free.execute(made).fetchone() == before
    free.execute("INSERT INTO quotes (asset_id, ts, price) VALUES (%s, '2024-01-01', 1)", (asset,))
    add_weekly(free, columns=["min(price) AS low"])
    assert len(rows(free, "weekly")) == 3


def test_aggregate_of_an_aggregate_keeps_up(free, asset):
    add_weekly(free, name="hourly_quotes", bucket="1 hour", columns=["max(high) AS high", "sum(volume) AS volume"])
    add_weekly(free, name="daily_quotes", bucket="1 day", columns=["max(high) AS high", "sum(volume) AS volume"],
               parent="hourly_quotes")
    free.execute("INSERT INTO quotes (asset_id, ts, high, volume) SELECT %s, t, 1, 1 FROM"
                 " generate_series('2024-01-01'::timestamptz, '2024-01-05', '10 minutes') AS t", (asset,))
    lifecycle.refresh(free)
    free.execute("UPDATE quotes SET high = 9 WHERE ts = '2024-01-02 10:10+00'")
    lifecycle.refresh(free)
    assert [row[2:] for row in rows(free, "daily_quotes")] == [(1, 144), (9, 144), (1, 144), (1, 144), (1, 1)]
    with pytest.raises(psycopg.Error) as refused:
        free.execute("SELECT drop_rollup('hourly_quotes')")
    assert refused.value.sqlstate == "TM602"


def test_renamed_hypertable_keeps_its_aggregates(free):
    free.execute("CREATE TABLE odd (s int NOT NULL, ts timestamptz NOT NULL, PRIMARY KEY (s, ts))")
    free.execute("SELECT create_hypertable('odd', by_range('ts'))")
    free.execute("SELECT add_rollup('odd_daily', 'odd', '1 day', ARRAY['s'], ARRAY['count(*) AS samples'])")
    free.execute("INSERT INTO odd VALUES (1, '2024-01-01'), (1, '2024-01-09')")
    lifecycle.refresh(free)
    free.execute("ALTER TABLE odd RENAME TO even")
    free.execute("INSERT INTO even VALUES (1, '2024-01-01 05:00'), (1, '2024-01-08'), (1, '2024-01-10')")
    lifecycle.refresh(free)
    assert [samples for _, _, samples in rows(free, "odd_daily")] == [2, 1, 1, 1]
    add_weekly(free, name="odd_weekly", hypertable="even", series=["s"], columns=["count(*) AS samples"])
    free.execute("INSERT INTO even VALUES (1, '2024-01-01 06:00')")
    lifecycle.refresh(free)
    assert [samples for _, _, samples in rows(free, "odd_weekly")] == [3, 3]


def test_hypertable_that_is_gone_stands_in_nobodys_way(free, source):
    free.execute("CREATE TABLE odd (s int NOT NULL, ts timestamptz NOT NULL, PRIMARY KEY (s, ts))")
    free.execute("SELECT create_hypertable('odd', by_range('ts'))")
    free.execute("SELECT add_rollup('odd_daily', 'odd', '1 day', ARRAY['s'], ARRAY['count(*) AS samples'])")
    free.execute("INSERT INTO data_policies (hypertable, drop_after) VALUES ('odd', '1 day')")
    free.execute("INSERT INTO odd VALUES (1, '2024-01-01'), (1, '2024-01-09')")
    lifecycle.refresh(free)
    free.execute("DROP TABLE odd CASCADE")
    fill(free, source, "2024-01-01", "2024-01-10")
    assert lifecycle.maintain(free)
    assert lifecycle.what_would_go(free) == []
    assert "odd_daily" not in {row["name"] for row in lifecycle.stats(free)["aggregates"]}
    assert free.execute("SELECT count(*) FROM pg_class WHERE relname ~ '^odd'").fetchone() == (0,)


@pytest.mark.parametrize(("changed", "sqlstate"), [
    ({"hypertable": "assets"}, "TM601"),
    ({"name": "Weekly"}, "TM602"),
    ({"name": "w" * 48}, "TM602"),
    ({"bucket": "0 seconds"}, "TM602"),
    ({"bucket": "0.5 seconds"}, "TM602"),
    ({"bucket": "1 month 1 day"}, "TM602"),
    ({"series": ["price"]}, "TM602"),
    ({"series": ["nothing"]}, "TM602"),
    ({"parent": "nothing"}, "TM602"),
    ({"parent": "candles_5m"}, "TM602"),
    ({"hypertable": "candles", "parent": "candles_15m", "bucket": "20 minutes"}, "TM602"),
    ({"hypertable": "candles", "parent": "candles_1d", "bucket": "1 hour"}, "TM602"),
    ({"hypertable": "candles", "parent": "candles_5m", "filter": "open > 0"}, "TM602"),
    ({"hypertable": "candles", "parent": "candles_5m", "series": ["asset_id", "interval"]}, "TM602"),
    ({"name": "assets"}, "TM603"),
    ({"name": "daily_ohlcv"}, "TM603"),
])
def test_definition_that_makes_no_sense_is_refused(tx, changed, sqlstate):
    with tx.transaction(force_rollback=True):
        add_weekly(tx)  # the neighbour that is accepted
    with pytest.raises(psycopg.Error) as refused:
        add_weekly(tx, **changed)
    assert refused.value.sqlstate == sqlstate


def test_aggregate_that_is_not_there_cannot_be_dropped(tx):
    with pytest.raises(psycopg.Error) as refused:
        tx.execute("SELECT drop_rollup('nothing')")
    assert refused.value.sqlstate == "TM604"


def test_aggregates_survive_a_rollback_of_something_else(db, free, source):
    """Logic goes with every rollback and comes back with migrate; what it kept up to date must not go."""
    add_weekly(free)
    fill(free, source, "2024-01-01", "2024-01-10")
    lifecycle.refresh(free)
    with db.connect() as connection:
        later = [m for m in migrations.make_plan(connection).files if not m.is_logic and m.number > 310]
        if later:
            migrations.rollback(connection, len(later))
        migrations.migrate(connection)
    before = rows(free, "daily_ohlcv")
    assert free.execute("SELECT watermark = '2024-01-10' FROM _tidemark.rollups WHERE name = 'daily_ohlcv'"
                        ).fetchone() == (True,)
    free.execute("UPDATE timeseries_data SET high = 9 WHERE timestamp = '2024-01-03 10:00+00'")
    lifecycle.refresh(free)
    assert rows(free, "daily_ohlcv") == rows(free, "_tidemark.daily_ohlcv_direct") != before
    assert rows(free, "weekly") == []


# Confirmed errors


WILD = """
    FROM (SELECT '2024-01-02 00:00+00'::timestamptz + make_interval(mins => n) AS ts,
                 CASE n WHEN 50 THEN 999 ELSE 100 + mod(n, 3) END AS x -- one bar among sixty that nobody believes
            FROM generate_series(1, 60) AS n) AS bar"""


@pytest.fixture
def reviewed(tx, add):
    """A source whose profile leaves confirmed errors out, and the one bar of it that stands in anomalies."""
    tx.execute("SET LOCAL tidemark.reason = 'as the test has it'")
    profile = tx.execute("INSERT INTO quality_profiles (name, exclude_confirmed_errors) VALUES ('strict', true)"
                         " RETURNING quality_profile_id").fetchone()[0]
    source = add("sources", quality_profile_id=profile)
    tx.execute(f"INSERT INTO timeseries_data (source_id, timestamp, close, high) SELECT %s, ts, x, x {WILD}",
               (source,))
    return source, tx.execute("SELECT anomaly_id FROM anomalies WHERE source_id = %s", (source,)).fetchone()[0]


def review(connection: psycopg.Connection, anomaly: int, status: str) -> None:
    connection.execute("UPDATE anomalies SET status = %s, reviewed_at = now() WHERE anomaly_id = %s", (status, anomaly))


def day(connection: psycopg.Connection, source: int) -> tuple:
    return connection.execute("SELECT high, samples FROM daily_ohlcv WHERE source_id = %s", (source,)).fetchone()


def test_confirmed_error_is_left_out_until_the_review_is_taken_back(tx, reviewed):
    source, anomaly = reviewed
    assert day(tx, source) == (999, 60)
    review(tx, anomaly, "confirmed_error")
    assert day(tx, source) == (102, 59)
    review(tx, anomaly, "real_event")
    assert day(tx, source) == (999, 60)


def test_confirmed_error_counts_where_the_profile_does_not_leave_it_out(tx, reviewed):
    source, anomaly = reviewed
    review(tx, anomaly, "confirmed_error")
    tx.execute("UPDATE quality_profiles SET exclude_confirmed_errors = false WHERE name = 'strict'")
    assert day(tx, source) == (999, 60)
    tx.execute("UPDATE quality_profiles SET exclude_confirmed_errors = true WHERE name = 'strict'")
    assert day(tx, source) == (102, 59)
    tx.execute("UPDATE sources SET quality_profile_id = NULL WHERE source_id = %s", (source,))
    assert day(tx, source) == (999, 60)


def test_corrected_value_counts_again(tx, reviewed):
    source, anomaly = reviewed
    review(tx, anomaly, "confirmed_error")
    tx.execute("UPDATE timeseries_data SET close = 101, high = 101 WHERE source_id = %s AND close = 999", (source,))
    assert day(tx, source) == (102, 60)


def test_error_of_a_candle_is_left_out_too(tx, add):
    asset = add("assets")
    tx.execute("SET LOCAL tidemark.reason = 'as the test has it'")
    tx.execute("UPDATE quality_profiles SET exclude_confirmed_errors = true WHERE name = 'candle_1m'")
    tx.execute("INSERT INTO candles (asset_id, interval, ts, open, high, low, close)"
               f" SELECT %s, '1m', ts, x, x, x, x {WILD}", (asset,))
    anomaly = tx.execute("SELECT anomaly_id FROM anomalies WHERE asset_id = %s", (asset,)).fetchone()[0]
    review(tx, anomaly, "confirmed_error")
    assert tx.execute("SELECT max(high) FROM candles_5m WHERE asset_id = %s", (asset,)).fetchone() == (102,)
    tx.execute("DELETE FROM anomalies WHERE anomaly_id = %s", (anomaly,))
    assert tx.execute("SELECT max(high) FROM candles_5m WHERE asset_id = %s", (asset,)).fetchone() == (999,)
