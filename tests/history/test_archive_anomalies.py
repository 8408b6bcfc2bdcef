"""docs/anomalies.archive.sql: over an archive, DuckDB and Spark find what rescore() found before the rows left.

What is the same and what is not is in docs/beyond-one-machine.md.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import itertools
import math
import os
import random
import re
import shutil
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest

from tidemark import lifecycle

pytest.importorskip("pyarrow", reason="the archive needs the package pyarrow")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "anomalies.archive.sql").read_text()
COLUMNS = "source_id, timestamp, open, high, low, close, volume"
DAY = timedelta(days=1)
FOUND = """
    SELECT {}, a.timestamp, a.field, a.severity::text, a.z_score, a.value, a.observed, a.expected, a.deviation, a.scale,
           a.samples, h.timestamp
      FROM anomalies AS a
      JOIN anomalies AS h ON h.anomaly_id = a.episode_id
     WHERE {}
     ORDER BY 1, 2
"""
HOURS_TEXT = TEXT.replace("INTERVAL '0' SECOND AS bar_length", "INTERVAL '1' HOUR AS bar_length")
# What a source is judged by that names a profile of its own, and the text for it.
OTHER = {"baseline_rows": 60, "min_samples": 20, "anomaly_z": 3.5, "black_swan_z": 5.0, "scale_floor": 0.0002,
         "tick_size": 0.001}
OTHER_TEXT = HOURS_TEXT.replace("BETWEEN 100 PRECEDING", "BETWEEN 60 PRECEDING").replace(
    "BETWEEN 200 PRECEDING", "BETWEEN 120 PRECEDING")
for _name, _figure in OTHER.items():
    OTHER_TEXT = re.sub(rf"\S+ AS {_name},", f"{_figure}{'e0' * isinstance(_figure, float)} AS {_name},", OTHER_TEXT)
Row = tuple[datetime, float | None, float | None, float | None, float | None, float | None]


def _stocks() -> list[list[Row]]:
    """Real daily bars of AAPL, FB, GOOG, IBM and MSFT."""
    rows: dict[str, list[Row]] = {}
    with gzip.open(resources.files("bokeh_sampledata") / "_data" / "stocks.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            at = datetime.fromisoformat(row["Date"]).replace(tzinfo=UTC)
            rows.setdefault(row["Ticker"], []).append(
                (at, *(float(row[c]) for c in ("Open", "High", "Low", "Close", "Volume"))))
    return list(rows.values())


def _wrong(rows: list[Row], dice: random.Random, share: float = 0.015) -> list[Row]:
    """Every kind of error and of what is no figure, in a share of the rows, the first of the series included."""
    rows = list(rows)
    for i in dice.sample(range(len(rows)), round(len(rows) * share)):
        at, o, h, lo, c, v = rows[i]
        far = math.exp(dice.choice((-1, 1)) * dice.uniform(0.02, 0.4))
        rows[i] = dice.choice([
            (at, o, h, lo, c * 10, v), (at, o, h, lo, c / 10, v), (at, o, h, lo, c * far, v),
            (at, o, h * 1.1, lo, c, v), (at, o, h, lo / 1.1, c, v), (at, o * far, h, lo, c, v),
            (at, o, h * 1.1, lo / 1.2, c, v), (at, o, h, lo, c, v * 1000), (at, o, h, lo, c, 0),
            (at, o, h, lo, None, v), (at, o, h, lo, 0, v), (at, o, h, lo, float("nan"), v),
            (at, o, h, lo, 1e200, v), (at, None, h, lo, c, v), (at, o, float("inf"), lo, c, v),
            (at, o, h * dice.uniform(1, 1.05), lo, c, v), (at, o, h, lo, c, v * dice.uniform(5, 60)),
            (at, o, h, lo, c, None), (at, o, h, lo, c, -1), (at, o, h, lo, c, float("nan")),
        ])
    return rows


def _walk(dice: random.Random, tick: float) -> list[Row]:
    """A new series, which moves by ticks and stands still for a share of its rows."""
    price, rows, rests = 10.0, [], dice.choice((0, 0.6, 0.9))
    for i in range(dice.randrange(33, 220)):
        first = round(price / tick) * tick
        price *= math.exp(dice.gauss(0, 0.004) * (dice.random() >= rests) * dice.choice((1, 1, 1, 4)))
        last = round(price / tick) * tick
        shadows = [math.exp(abs(dice.gauss(0, 0.002))) for _ in range(2)]
        rows.append((datetime(2006, 1, 1, tzinfo=UTC) + i * DAY, first, max(first, last) * shadows[0],
                     min(first, last) / shadows[1], last, math.exp(dice.gauss(8, 0.7))))
    return rows


def _halves() -> list[Row]:
    """Prices whose logarithms lie in the middle between two of the whole numbers that are made of them."""
    rows, price = [], 100.0
    for i in range(400):
        middle = math.floor(math.log(price * math.exp(0.001 * math.sin(i * i))) * 1e7) + 0.5
        price = math.exp(middle / 1e7) * (1.05 if i == 250 else 1)
        for _ in range(200):
            if math.log(price) * 1e7 == middle:
                break
            price = math.nextafter(price, math.inf if math.log(price) * 1e7 < middle else 0)
        rows.append((datetime(2005, 1, 1, tzinfo=UTC) + i * DAY, price, price, price, price, 1e3))
    assert sum(math.log(row[4]) * 1e7 % 1 == 0.5 for row in rows) > 300
    return rows


def _odd(dice: random.Random) -> list[list[Row]]:
    at = datetime(2004, 1, 1, tzinfo=UTC)
    flat = [(at + i * DAY, 5, 5, 5, 5 if i != 200 else 5.5, 1e3) for i in range(300)]
    same = [(at + i * DAY, 9, 9, 9, 9, 196 if i != 200 else 2e5) for i in range(300)]
    short = [(at + i * DAY, p, p, p, p, 1) for i, p in enumerate([10 + math.sin(i) / 9 for i in range(32)])]
    short[4] = (short[4][0], 99, 99, 99, 99, 1)
    walks = [_wrong(_walk(dice, dice.choice((1e-9, 0.01, 0.05))), dice, 0.06) for _ in range(40)]
    # Of most of these only the close is known: a high that is far off has no baseline.
    closes = [(at, *(None,) * 3, c, None) if n % 4 else (at, o, h * 1.5 ** (n == 160), lo, c, v)
              for n, (at, o, h, lo, c, v) in enumerate(_stocks()[1])]
    return [*walks, closes, _halves(), flat, same, short, short[:31], short[:2]]


def _hours(dice: random.Random) -> list[Row]:
    """Real hourly bars of EURUSD, some wrong: opens after pauses of two and three bars, highs after long ones."""
    data = Path(importlib.util.find_spec("gym_anytrading").submodule_search_locations[0], "datasets", "data")
    with (data / "FOREX_EURUSD_1H_ASK.csv").open() as lines:
        rows = [(datetime.strptime(next(iter(row.values())), "%d.%m.%Y %H:%M:%S.%f").replace(tzinfo=UTC),
                 *(float(row[c]) for c in ("Open", "High", "Low", "Close", "Volume")))
                for row in itertools.islice(csv.DictReader(lines), 2000)]
    rows = _wrong(rows, dice, 0.06)
    for i in range(1940, 100, -90):
        at, o, h, lo, c, v = rows[i]
        if None not in rows[i] + rows[i - 45] + rows[i - 46]:
            rows[i] = at, o * 1.1, h, lo, c, v
            at, o, h, lo, c, v = rows[i - 46]
            rows[i - 46] = at, o, h * 1.03, lo, c, v
            at, o, h, lo, c, v = rows[i - 45]
            rows[i - 45] = at, o, h * 1.05, lo, c, v
            del rows[i - 1 - i // 90 % 2 : i]
    return rows


@pytest.fixture
def archived(db, tmp_path):
    """The archive of daily bars (sources 1 to 99), hours of another profile (101, 102), scalars (999) and candles, and
    what rescore() had found of each of these but the scalars, before all it had found of source 1 was confirmed."""
    dice = random.Random(15)
    series = dict(enumerate([_wrong(rows, dice) for rows in _stocks()[:3]] + _odd(dice), 1))
    hours = {n: _hours(dice) for n in (101, 102)}
    with db.connect() as connection:
        connection.execute("SET tidemark.ingest_mode = 'backfill'")
        connection.execute("SELECT set_config('tidemark.reason', 'a test', false)")
        for table in ("timeseries_data", "candles"):
            connection.execute("SELECT set_chunk_time_interval(%s, interval '5 years')", [table])
        (profile,) = connection.execute(
            f"INSERT INTO quality_profiles (name, {', '.join(OTHER)}) VALUES ('other', %s, %s, %s, %s, %s, %s)"
            " RETURNING quality_profile_id", list(OTHER.values())).fetchone()
        connection.cursor().executemany(
            "INSERT INTO sources (source_id, name, data_type, quality_profile_id, interval)"
            " VALUES (%s, %s, %s, %s, %s)",
            [*((n, f"s{n}", "ohlcv", None, None) for n in series), (999, "a scalar", "scalar", None, None),
             *((n, f"s{n}", "ohlcv", profile, "1h") for n in hours)])
        (asset,) = connection.execute(
            "INSERT INTO assets (symbol, asset_type) VALUES ('EURUSD', 'forex') RETURNING asset_id").fetchone()
        with connection.cursor().copy("COPY timeseries_data (source_id, timestamp, open, high, low, close, volume)"
                                      " FROM STDIN") as stream:
            for n, rows in {**series, **hours}.items():
                for row in rows:
                    stream.write_row((n, *row))
        with connection.cursor().copy("COPY candles (asset_id, interval, ts, open, high, low, close, volume)"
                                      " FROM STDIN") as stream:
            for row in hours[101]:
                stream.write_row((asset, "1h", *row))
        connection.execute("INSERT INTO timeseries_data (source_id, timestamp, value) SELECT 999,"
                           " timestamptz '2004-01-01' + i * interval '1 day', 50 + sin(i) + 40 * (i = 150)::int"
                           "  FROM generate_series(1, 300) AS i")
        connection.execute("SELECT rescore('timeseries_data'), rescore('candles')")
        found = [connection.execute(FOUND.format(*what)).fetchall() for what in (
            ("a.source_id", "a.table_name = 'timeseries_data' AND a.source_id <= 99"),
            ("a.source_id", "a.table_name = 'timeseries_data' AND a.source_id BETWEEN 101 AND 102"),
            ("concat(a.asset_id, ' ', a.interval)", "a.table_name = 'candles'"))]
        # What an archive does not hold: scalars are judged by another transform, and reviews are kept elsewhere.
        assert connection.execute("SELECT FROM anomalies WHERE source_id = 999").fetchall()
        connection.execute("SELECT review_anomaly(anomaly_id, 'confirmed_error') FROM anomalies WHERE source_id = 1")
        assert connection.execute("SELECT rescore('timeseries_data', '{\"source_id\": 1}')").fetchone() > (0,)
        for hypertable in ("timeseries_data", "candles"):
            connection.execute("UPDATE data_policies SET compress_after = '30 days', drop_after = '90 days'"
                               " WHERE hypertable = %s", [hypertable])
        assert {chunk.hypertable for chunk in lifecycle.clean(connection, tmp_path)} == {"timeseries_data", "candles"}
        assert connection.execute("SELECT FROM timeseries_data UNION ALL SELECT FROM candles").fetchall() == []
    for part in found:
        assert {row[2] for row in part} == {None, "open", "high", "low", "volume"}
        assert {row[3] for row in part} == {"anomaly", "black_swan"}
        assert len({row[-1] for row in part}) < len(part), "some episodes have more than one"
    return tmp_path, found


# Where the view of the rows comes from, by engine: the two parts of timeseries_data, and candles.
PARTS = [
    ("timeseries_data", "SELECT * FROM archived WHERE source_id <= 99 OR source_id = 999", TEXT),
    ("timeseries_data", "SELECT * FROM archived WHERE source_id IN (101, 102)", OTHER_TEXT),
    ("candles", "SELECT concat(asset_id, ' ', interval) AS source_id, ts AS timestamp, open, high, low, close, volume,"
                " CAST(NULL AS double) AS value FROM archived", HOURS_TEXT),
]


def _same(found: list[tuple], expected: list[tuple]) -> None:
    """The same rows, flags and episodes; the figures of closes in every bit, those of other fields nearly."""
    def exact(source, at, field, severity, z, value, observed, expected, deviation, scale, samples, episode) -> tuple:
        figures = () if field else (z, observed, expected, deviation, scale)
        return source, at.timestamp(), field, severity, repr(value), samples, episode.timestamp(), *map(repr, figures)

    assert [exact(*row) for row in found] == [exact(*row) for row in expected]
    for row, same in zip(found, expected, strict=True):
        for figure, right in zip(row[4:10], same[4:10], strict=True):
            assert (figure is None) == (right is None)
            assert figure == right or math.isclose(figure, right, rel_tol=1e-11, abs_tol=1e-14)


def test_its_figures_are_those_of_the_database(tx):
    figures = re.findall(r"([\d.e-]+) AS (\w+),", TEXT.partition("), bars AS")[0])
    names = [name for _, name in figures]
    assert names == list(OTHER)
    of_profile = tx.execute(f"SELECT {', '.join(f'coalesce({name}, 0)' for name in names)} FROM quality_profiles"
                            " WHERE name = 'ohlcv'").fetchone()
    assert [float(figure) for figure, _ in figures] == list(of_profile)
    frames = {int(rows) for rows in re.findall(r"BETWEEN (\d+) PRECEDING", TEXT)}
    assert frames == {20, of_profile[0], 2 * of_profile[0]}
    assert tx.execute("SELECT _tidemark.detector_version()").fetchone()[0] in TEXT


def test_duckdb_finds_in_an_archive_what_rescore_found(archived):
    duckdb = pytest.importorskip("duckdb", reason="the package duckdb is not installed")
    archive, expected = archived
    for (table, rows, text), found in zip(PARTS, expected, strict=True):
        with duckdb.connect() as connection:
            connection.sql("SET TimeZone = 'UTC'")
            connection.sql(f"CREATE VIEW archived AS FROM read_parquet('{archive}/hypertable={table}/*/*.parquet')")
            connection.sql(f"CREATE VIEW timeseries_data AS {rows}")
            _same(connection.sql(text).fetchall(), found)


def test_pyspark_finds_in_an_archive_what_rescore_found(archived, monkeypatch):
    sql = pytest.importorskip("pyspark.sql", reason="the package pyspark is not installed")
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("PySpark needs Java, which is not on this machine")
    archive, expected = archived
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    spark = (sql.SparkSession.builder.master("local[1]").config("spark.sql.session.timeZone", "UTC")
             .config("spark.ui.enabled", "false").config("spark.sql.shuffle.partitions", 1).getOrCreate())
    try:
        for (table, rows, text), found in list(zip(PARTS, expected, strict=True))[:2]:
            spark.read.parquet(f"{archive}/hypertable={table}").createOrReplaceTempView("archived")
            spark.sql(rows).createOrReplaceTempView("timeseries_data")
            _same([tuple(row) for row in spark.sql(text).collect()], found)
    finally:
        spark.stop()
