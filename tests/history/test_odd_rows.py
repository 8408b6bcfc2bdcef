"""One odd row hurts neither its neighbours nor the aggregates: what is no figure is no part of them, what cannot be
computed keeps nothing else back, and history that was dropped hides none that is there."""

from __future__ import annotations

import math
import random
import threading
import time

import psycopg
import pytest

from tidemark import lifecycle

AGGREGATES = ["candles_5m", "candles_15m", "candles_1h", "candles_4h", "candles_1d", "daily_ohlcv", "hourly_values"]
NO_FIGURES = ["1.7976931348623157e308", "1e300", "-1e101", "1e-200", "NaN", "Infinity", "-Infinity"]
SQUARES = "SELECT add_rollup('squares', 'timeseries_data', '1 hour', '{source_id}', '{sum(value * value) AS s}')"
BAR = "asset_id, interval, ts, open, high, low, close, volume, trades, vwap"


@pytest.fixture
def free(db):
    """A connection that commits, to a database of the test's own, without scoring to wait for."""
    with db.connect(prepare_threshold=None) as connection:
        connection.execute("SET tidemark.reason = 'as the test has it'")
        connection.execute("SET timezone = 'UTC'")
        connection.execute("SELECT detach_quality(t) FROM unnest('{timeseries_data,candles}'::regclass[]) AS t")
        yield connection


def series(connection: psycopg.Connection, name: str) -> tuple:
    """An asset and a source of that name."""
    return (
        connection.execute("INSERT INTO assets (symbol, asset_type) VALUES (%s, 'crypto') RETURNING asset_id", (name,)
                           ).fetchone()[0],
        connection.execute("INSERT INTO sources (name, data_type) VALUES (%s, 'ohlcv') RETURNING source_id", (name,)
                           ).fetchone()[0],
    )


def bars(connection: psycopg.Connection, asset, source: int, first: str, last: str, step: str = "5 minutes") -> None:
    connection.execute(
        f"INSERT INTO candles ({BAR}) SELECT %s, '1m', t, 10, 12, 9, 11, 5, 2, 10.5"
        " FROM generate_series(%s::timestamptz, %s::timestamptz, %s::interval) AS t", (asset, first, last, step),
    )
    connection.execute(
        "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, value)"
        " SELECT %s, t, 10, 12, 9, 11, 5, 7 FROM generate_series(%s::timestamptz, %s::timestamptz, %s::interval) AS t",
        (source, first, last, step),
    )


def rows(connection: psycopg.Connection, relation: str) -> list:
    return connection.execute(f"SELECT * FROM {relation} ORDER BY 1, 2").fetchall()


def count(connection: psycopg.Connection, relation: str) -> int:
    return connection.execute(f"SELECT count(*) FROM {relation}").fetchone()[0]


# What is no figure


@pytest.mark.parametrize("is_refreshed", [False, True])
def test_what_is_no_figure_is_no_part_of_an_aggregate(free, is_refreshed):
    asset, source = series(free, "A")
    bars(free, asset, source, "2026-03-02 00:00+00", "2026-03-02 23:55+00")
    bars(free, asset, source, "2026-03-03 00:00+00", "2026-03-03 00:00+00")
    if is_refreshed:
        lifecycle.refresh(free)
    expected = {name: rows(free, name) for name in AGGREGATES}
    for n, odd in enumerate(NO_FIGURES):
        at = f"2026-03-02 10:{n + 1:02}:20+00"
        # Whole bars that are none, and bars in which one figure is none, beside a bar that is whole.
        free.execute(f"INSERT INTO candles ({BAR}) VALUES (%(a)s, '1m', %(t)s, %(o)s, %(o)s, %(o)s, %(o)s, %(o)s,"
                     " 9223372036854775807, %(o)s)", {"a": asset, "t": at, "o": odd})
        free.execute("INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, value)"
                     " VALUES (%(s)s, %(t)s, %(o)s, %(o)s, %(o)s, %(o)s, %(o)s, %(o)s)",
                     {"s": source, "t": at, "o": odd})
        for m, column in enumerate(("open", "high", "low", "close", "volume", "vwap")):
            values = {"open": 10, "high": 12, "low": 9, "close": 11, "volume": 0, "vwap": 10.5, column: odd}
            free.execute(f"INSERT INTO candles ({BAR}) VALUES (%s, '1m', %s, %s, %s, %s, %s, %s, 0, %s)",
                         (asset, f"2026-03-02 1{m + 1}:{n + 1:02}:30+00", *values.values()))
    for _ in range(2):
        for name in AGGREGATES:
            assert rows(free, f"_tidemark.{name}_direct") == expected[name], name
        lifecycle.refresh(free)
        for name in AGGREGATES:
            assert rows(free, name) == expected[name], name
    assert lifecycle.maintain(free) is True


def test_volume_below_zero_or_beyond_counting_is_none(free):
    asset, source = series(free, "A")
    bars(free, asset, source, "2026-03-02 10:00+00", "2026-03-02 10:00+00")
    free.execute(f"INSERT INTO candles ({BAR}) VALUES"
                 " (%(a)s, '1m', '2026-03-02 10:01+00', 10, 12, 9, 11, -5, -2, 10.5),"
                 " (%(a)s, '1m', '2026-03-02 10:02+00', 10, 12, 9, 11, 1e100, 9000000000000000000, 10.5),"
                 " (%(a)s, '1m', '2026-03-02 10:07+00', 10, 12, 9, 11, 1e100, 9000000000000000000, 10.5)", {"a": asset})
    lifecycle.refresh(free)
    for name in ("candles_5m", "candles_15m", "candles_1d"):
        assert set(free.execute(f"SELECT volume, trades, vwap FROM {name}").fetchall()) == {
            (1e100, 9_000_000_000_000_000_000, 10.5)
        }


def test_vwap_lies_among_the_prices_whatever_a_bar_lacks(free):
    """And the longer candles say of partial bars what the bars themselves say."""
    asset, _ = series(free, "A")
    chance = random.Random(4)
    for n in range(600):
        bar = {"open": 100, "high": 101 + n % 5, "low": 99 - n % 7, "close": 100 + n % 3, "volume": n % 11,
               "trades": n % 4, "vwap": 100.25}
        for column in chance.sample(sorted(bar), chance.choice([0, 1, 2, 3, 7])):
            bar[column] = None
        if bar["vwap"] is not None and n % 13 == 0:
            bar["vwap"] = 0  # as feeds write it that have none
        free.execute(f"INSERT INTO candles ({BAR}) VALUES (%s, '1m', '2026-03-02'::timestamptz + %s * interval"
                     " '1 minute', %s, %s, %s, %s, %s, %s, %s)", (asset, n, *bar.values()))
    lifecycle.refresh(free)
    for name in AGGREGATES[:5]:
        got, direct = rows(free, name), rows(free, f"_tidemark.{name}_direct")
        assert [row[:-1] for row in got] == [row[:-1] for row in direct]
        for (*_, one), (*_, other) in zip(got, direct, strict=True):
            assert (one is None) == (other is None)
            assert one is None or (math.isclose(one, other, rel_tol=1e-12) and 93 <= one <= 105)
    free.execute("TRUNCATE candles")
    free.execute(f"""INSERT INTO candles ({BAR}) VALUES
        (%(a)s, '1m', '2024-03-04 10:00+00', 100, 100, 100, 100, 10, NULL, NULL),
        (%(a)s, '1m', '2024-03-04 10:01+00', 100, NULL, 100, 100, 10, NULL, NULL)""", {"a": asset})
    lifecycle.refresh(free)
    assert free.execute("SELECT vwap, volume FROM candles_5m UNION ALL SELECT vwap, volume FROM candles_1d"
                        ).fetchall() == [(100, 20), (100, 20)]


# An aggregate that cannot be computed


def test_aggregate_that_cannot_be_computed_keeps_no_other_from_it(free):
    asset, source = series(free, "A")
    bars(free, asset, source, "2026-01-01 00:00+00", "2026-03-02 00:00+00", "1 hour")
    free.execute(SQUARES)
    free.execute("SELECT add_rollup('more', 'timeseries_data', '6 hours', '{source_id}', '{max(value) AS m}')")
    free.execute("UPDATE timeseries_data SET value = 1e200 WHERE timestamp = '2026-02-03 05:00+00'")
    free.execute("UPDATE data_policies SET compress_after = NULL, drop_after = now() - '2026-03-05 00:00+00'"
                 " WHERE hypertable = 'timeseries_data'")
    for attempt in (lifecycle.refresh, lifecycle.maintain):
        with pytest.raises(psycopg.Error) as failed:
            attempt(free)
        assert failed.value.sqlstate == "TM611"
        assert "squares: the row of source_id = " in failed.value.diag.message_detail
        assert "2026-02-03 05:00:00+00" in failed.value.diag.message_detail
        for name in [*AGGREGATES, "more"]:
            assert rows(free, name) == rows(free, f"_tidemark.{name}_direct")
        assert free.execute("SELECT name FROM _tidemark.rollups WHERE failure IS NOT NULL").fetchall() == [("squares",)]
        assert free.execute("SELECT count(*) FROM _tidemark.rollups WHERE watermark > '2026-03-01'"
                            " AND name = ANY (%s)", (AGGREGATES,)).fetchone() == (len(AGGREGATES),)
    # Nothing goes that it still needs.
    assert count(free, "timeseries_data WHERE timestamp < '2026-02-04'") == 34 * 24
    free.execute("UPDATE timeseries_data SET value = 2 WHERE timestamp = '2026-02-03 05:00+00'")
    direct = rows(free, "_tidemark.squares_direct")
    lifecycle.maintain(free)
    assert rows(free, "squares") == direct
    assert free.execute("SELECT count(*) FROM _tidemark.rollups WHERE failure IS NOT NULL").fetchone() == (0,)
    assert count(free, "timeseries_data WHERE timestamp < '2026-02-04'") == 0


def test_refresh_all_aggregates_says_which_one_fails(free, edition):
    _, source = series(free, "A")
    free.execute(SQUARES)
    free.execute("INSERT INTO timeseries_data (source_id, timestamp, value) VALUES"
                 " (%(s)s, '2026-01-01 00:00+00', 1e200), (%(s)s, '2026-01-05 00:00+00', 1)", {"s": source})
    outcome = dict(free.execute("SELECT aggregate, outcome FROM refresh_all_aggregates()").fetchall())
    if edition == "apache":
        assert "the row of source_id = " in outcome["squares"]
        assert outcome["hourly_values"] == "refreshed"


# What was dropped


@pytest.mark.parametrize("by", ["drop_chunks", "apply_retention"])
def test_dropped_history_hides_no_history_that_is_there(free, by):
    asset, source = series(free, "A")
    bars(free, asset, source, "2025-06-01 00:00+00", "2026-06-01 00:00+00", "1 day")
    bars(free, asset, source, "1970-01-01 00:00+00", "1970-01-01 00:00+00", "1 day")  # a time of 0
    lifecycle.refresh(free)
    drop(free, by, "2025-10-01 00:00+00")
    kept = {name: rows(free, name) for name in AGGREGATES}
    assert kept["daily_ohlcv"][0][1].year == 1970
    assert len(kept["daily_ohlcv"]) == 367
    # A period that nothing was ever stored in, one that was dropped of another series, and one that was of this one.
    bars(free, asset, source, "2024-01-01 00:00+00", "2024-12-31 00:00+00", "1 day")
    other, other_source = series(free, "B")
    bars(free, other, other_source, "2025-06-01 00:00+00", "2025-12-31 00:00+00", "1 day")
    bars(free, other, other_source, "1970-01-01 00:00+00", "1970-01-03 00:00+00", "1 day")
    free.execute("INSERT INTO timeseries_data (source_id, timestamp, close, high)"
                 " VALUES (%s, '2025-07-01 05:00+00', 1, 99)", (source,))
    free.execute(f"INSERT INTO candles ({BAR}) VALUES (%s, '1m', '2025-07-01 00:01+00', 1, 99, 1, 1, 1, 1, 1)",
                 (asset,))
    expected = {}
    for name in AGGREGATES:
        direct = {row[:2]: row for row in rows(free, f"_tidemark.{name}_direct")}
        expected[name] = sorted((direct | {row[:2]: row for row in kept[name]}).values(), key=lambda row: row[:2])
    for again in range(3):
        lifecycle.refresh(free)
        for name in AGGREGATES:
            assert rows(free, name) == expected[name], (name, again)
    free.execute("CALL refresh_aggregates('1960-01-01', '2026-06-01')")
    for name in AGGREGATES:
        assert rows(free, name) == expected[name], name
    # What came into a dropped period is history like any other: it changes, and is dropped in its turn.
    free.execute("UPDATE timeseries_data SET close = 12 WHERE source_id = %s", (other_source,))
    lifecycle.refresh(free)
    assert free.execute("SELECT DISTINCT close FROM daily_ohlcv WHERE source_id = %s", (other_source,)
                        ).fetchall() == [(12,)]
    assert free.execute("SELECT DISTINCT close FROM daily_ohlcv WHERE source_id = %s AND day < '2025-09-01'"
                        " AND day > '2025-01-01'", (source,)).fetchall() == [(11,)]
    now = rows(free, "daily_ohlcv")
    drop(free, by, "2025-11-01 00:00+00")
    lifecycle.refresh(free)
    assert rows(free, "daily_ohlcv") == now


def drop(connection: psycopg.Connection, by: str, before: str) -> None:
    """Everything before an instant, as TimescaleDB does it or as Tidemark does."""
    for hypertable in ("timeseries_data", "candles"):
        if by == "drop_chunks":
            connection.execute("SELECT drop_chunks(%s::regclass, older_than => %s::timestamptz)", (hypertable, before))
        connection.execute("UPDATE data_policies SET compress_after = NULL, drop_after = now() - %s::timestamptz"
                           " WHERE hypertable = %s", (before, hypertable))
    if by == "apply_retention":
        connection.execute("CALL apply_retention()")
    else:
        connection.execute("UPDATE data_policies SET drop_after = NULL")
        lifecycle.refresh(connection)


def test_history_that_comes_before_anybody_notices_a_drop_is_no_part_of_it(free):
    """drop_chunks, then a load into the same chunk, then a refresh."""
    asset, source = series(free, "A")
    bars(free, asset, source, "2025-06-01 00:00+00", "2025-12-01 00:00+00", "1 day")
    lifecycle.refresh(free)
    kept = rows(free, "daily_ohlcv")
    free.execute("SELECT drop_chunks('timeseries_data', older_than => '2025-10-01 00:00+00'::timestamptz)")
    other, other_source = series(free, "B")
    bars(free, other, other_source, "2025-07-01 00:00+00", "2025-07-31 00:00+00", "1 day")
    free.execute("INSERT INTO timeseries_data (source_id, timestamp, close, high)"
                 " VALUES (%s, '2025-07-01 05:00+00', 1, 99)", (source,))
    lifecycle.refresh(free)
    assert [row for row in rows(free, "daily_ohlcv") if row[0] == source] == kept
    assert count(free, f"daily_ohlcv WHERE source_id = {other_source}") == 31


# Refreshes, one after the other


@pytest.mark.community
def test_refresh_takes_few_transactions(free):
    """TimescaleDB 2.29 takes one for each bucket, if it is let."""
    asset, source = series(free, "A")
    bars(free, asset, source, "2026-06-01 00:00+00", "2026-06-20 00:00+00", "6 hours")
    taken = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    before = free.execute(taken).fetchone()[0]
    lifecycle.refresh(free)
    assert free.execute(taken).fetchone()[0] - before < 100


def test_second_refresh_waits_for_one_that_works_and_not_for_one_that_failed(db, free):
    asset, source = series(free, "A")
    bars(free, asset, source, "2026-06-01 00:00+00", "2026-06-02 00:00+00")
    taken = []

    def work() -> None:
        with db.connect() as connection:
            began = time.monotonic()
            lifecycle.refresh(connection)
            taken.append(time.monotonic() - began)

    with db.connect() as first:
        first.execute("SELECT pg_advisory_lock(hashtextextended('tidemark.refresh', 0))")
        with first.transaction():  # at work
            first.execute("SELECT 1")
            second = threading.Thread(target=work)
            second.start()
            time.sleep(3.5)
            assert taken == []
        second.join(timeout=20)  # left behind
        assert len(taken) == 1
