"""How fast history is: questions, refreshes, inserts, compression, and the same question asked of the archive.

Prints one line per figure with its target. Times are those a client sees, planning and transfer included: the median
of many runs that alternate between what is compared.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from bench.duckdb_archive import Comparison, compare
from tidemark import lifecycle, migrations

START = "2020-01-01 00:00+00"
BARS = """
    SELECT %(source)s AS source_id, %(start)s::timestamptz + make_interval(mins => n) AS timestamp,
           round(p::numeric, 2)::float8 AS open, round((p + abs(r)), 2)::float8 AS high,
           round((p - abs(r)), 2)::float8 AS low, round(p + r / 2, 2)::float8 AS close, v AS volume,
           NULL::float8 AS value
      FROM (SELECT n, 100 + round(sum(r) OVER (ORDER BY n), 2) AS p, r, v
              FROM (SELECT n, round((random() - 0.5)::numeric / 10, 2) AS r, floor(random() * 1000)::float8 AS v
                      FROM generate_series(%(first)s::int, %(last)s::int) AS n) AS step) AS walk"""
COLUMNS = "source_id, timestamp, open, high, low, close, volume, value"
YEAR = "source_id = 1 AND {0} >= '2020-01-01' AND {0} < '2021-01-01'"


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that something takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def alternating(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median of each, in milliseconds, over rounds in which all of them take their turn."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(timed(work))
    return {name: statistics.median(values) for name, values in taken.items()}


def load(connection: psycopg.Connection, rows: int, sources: int) -> float:
    """One-minute bars as a random walk of cents, the sources one after the other; rows per second."""
    connection.execute("SELECT setseed(0.5)")
    connection.execute("INSERT INTO sources (name, data_type, interval) SELECT 'bench_' || n, 'ohlcv', '1m'"
                       " FROM generate_series(1, %s) AS n", (sources,))
    each = rows // sources
    taken = sum(
        timed(lambda s=source: connection.execute(
            f"INSERT INTO timeseries_data ({COLUMNS}) {BARS}",
            {"source": s, "start": START, "first": 0, "last": each - 1},
        )) for source in range(1, sources + 1)
    )
    connection.execute("ANALYZE timeseries_data")
    return sources * each / taken * 1000


def questions(connection: psycopg.Connection) -> dict[str, float]:
    """One source-year: from the aggregate, from the raw rows, from a plain table with the same days."""
    connection.execute("CREATE TABLE plain AS SELECT * FROM daily_ohlcv")
    connection.execute("ALTER TABLE plain ADD PRIMARY KEY (source_id, day)")
    connection.execute("ANALYZE plain")
    asked = {
        name: lambda relation=relation: connection.execute(
            f"SELECT * FROM {relation} WHERE {YEAR.format('day')}"
        ).fetchall()
        for name, relation in (("daily_ohlcv", "daily_ohlcv"), ("plain", "plain"))
    }
    assert sorted(asked["daily_ohlcv"]()) == sorted(asked["plain"]())
    result = alternating(asked, 200)
    raw = f"SELECT * FROM _tidemark.daily_ohlcv_direct WHERE {YEAR.format('day')}"
    result["raw"] = alternating({"raw": lambda: connection.execute(raw).fetchall()}, 5)["raw"]
    return result


def changed_day(connection: psycopg.Connection) -> float:
    """Milliseconds that a refresh takes after one day of one source changed."""
    taken = []
    for day in range(5):
        connection.execute("UPDATE timeseries_data SET volume = volume + 1 WHERE source_id = 1 AND timestamp >= "
                           "'2020-02-01'::timestamptz + make_interval(days => %(d)s) AND timestamp <"
                           " '2020-02-02'::timestamptz + make_interval(days => %(d)s)", {"d": day})
        taken.append(timed(lambda: lifecycle.refresh(connection)))
    return statistics.median(taken)


def inserts(connection: psycopg.Connection, batch: int, batches: int) -> dict[str, float]:
    """Rows per second in order, into two hypertables that differ in their aggregates alone."""
    for name in ("bare", "aggregated"):
        connection.execute(f"CREATE TABLE {name} (LIKE timeseries_data INCLUDING ALL)")
        connection.execute("SELECT create_hypertable(%s, by_range('timestamp', interval '1 month'),"
                           " create_default_indexes => false)", (name,))
    connection.execute("""
        SELECT add_rollup('bench_' || r.name, 'aggregated', r.bucket, r.series, r.columns, r.filter)
          FROM _tidemark.rollups AS r WHERE r.hypertable = 'timeseries_data'::regclass ORDER BY r.bucket""")
    last = batch * (batches + 1) - 1
    rows = connection.execute(BARS, {"source": 1, "start": START, "first": 0, "last": last}).fetchall()

    def insert(name: str, number: int) -> None:
        part = rows[number * batch:(number + 1) * batch]
        if batch == 1:
            connection.execute(f"INSERT INTO {name} ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                               part[0])
            return
        with connection.cursor() as cursor, cursor.copy(f"COPY {name} ({COLUMNS}) FROM STDIN") as copy:
            for row in part:
                copy.write_row(row)

    for name in ("bare", "aggregated"):
        insert(name, 0)
    lifecycle.refresh(connection)  # from here on there is a watermark to compare with
    taken = {"bare": 0.0, "aggregated": 0.0}
    for number in range(1, batches + 1):
        for name in sorted(taken, reverse=bool(number % 2)):
            taken[name] += timed(lambda n=name, i=number: insert(n, i))
    for (name,) in connection.execute("SELECT name FROM _tidemark.rollups WHERE name LIKE 'bench_%'"
                                      " ORDER BY bucket DESC").fetchall():
        connection.execute("SELECT drop_rollup(%s)", (name,))
    connection.execute("DROP TABLE bare")
    connection.execute("DROP TABLE aggregated")
    return {name: batch * batches / value * 1000 for name, value in taken.items()}


def run(url: str, rows: int = 10_000_000, sources: int = 10) -> None:
    """Measure in an empty database and print."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrations.migrate(connection)
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        for what, value, target in verdicts(measure(connection, rows, sources)):
            print(f"{what:58} {value:>14}  {target}", flush=True)


def measure(connection: psycopg.Connection, rows: int, sources: int) -> dict:
    """All figures of one server."""
    server = lifecycle.stats(connection)
    connection.execute("SET tidemark.reason = 'benchmark'")
    # What scoring costs is measured elsewhere.
    connection.execute("SELECT detach_quality('timeseries_data')")
    figures: dict = {"rows": rows, "sources": sources}
    figures["inserts"] = inserts(connection, 1000, 200)
    figures["single_inserts"] = inserts(connection, 1, 3000)
    figures["load_rows_per_s"] = load(connection, rows, sources)
    figures["full_refresh_ms"] = timed(lambda: lifecycle.refresh(connection))
    figures["questions_ms"] = questions(connection)
    figures["changed_day_ms"] = changed_day(connection)
    if server["edition"] == "community":
        figures["compression"] = compression(connection)
    figures["archive"] = archive(connection)
    return figures


def archive(connection: psycopg.Connection) -> tuple[float, int, Comparison]:
    """Seconds that archiving the oldest chunks took, the bytes they had, and the question asked of both."""
    month = datetime(2020, 4, 1, tzinfo=UTC)
    connection.execute("UPDATE data_policies SET compress_after = NULL, drop_after = now() - %s"
                       " WHERE hypertable = 'timeseries_data'", (month,))
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        dropped = lifecycle.clean(connection, Path(directory))
        taken = time.perf_counter() - began
        last = max(chunk.range_end for chunk in dropped)
        first = datetime(2020, 1, 1, tzinfo=UTC)
        return taken, sum(chunk.before for chunk in dropped), compare(connection, Path(directory), 1, first, last)


def compression(connection: psycopg.Connection) -> dict[str, float]:
    """How many times smaller the bars become, and the same bars as candles, with the indexes that each table has."""
    connection.execute("INSERT INTO assets (symbol, asset_type) VALUES ('BENCH', 'stock')")
    connection.execute("""
        INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume, trades, vwap)
        SELECT a.asset_id, '1m', t.timestamp, t.open, t.high, t.low, t.close, t.volume, t.volume / 7,
               round(((t.high + t.low + t.close) / 3)::numeric, 4)::float8
          FROM timeseries_data AS t, assets AS a WHERE t.source_id = 1""")
    connection.execute("CALL compress_history('1 day')")
    return {table: float(ratio) for table, ratio in connection.execute(
        "SELECT hypertable, sum(before_bytes) / sum(after_bytes) FROM chunk_compression_stats() GROUP BY 1"
    ).fetchall()}


def verdicts(figures: dict) -> list[tuple[str, str, str]]:
    """(what, figure, target) as they are printed."""
    asked = figures["questions_ms"]
    lines = [
        (f"one-minute rows of {figures['sources']} sources", f"{figures['rows']:,}", ""),
        ("a source-year from daily_ohlcv", f"{asked['daily_ohlcv']:.2f} ms", ""),
        ("  faster than from raw rows", f"{asked['raw'] / asked['daily_ohlcv']:.0f} x", "at least 100 x"),
        ("  slower than from a plain indexed table", f"{asked['daily_ohlcv'] / asked['plain']:.2f} x", "at most 2 x"),
        ("full refresh", f"{figures['full_refresh_ms'] / 1000:.1f} s", ""),
        ("  refresh after a changed day, of that",
         f"{figures['changed_day_ms'] / figures['full_refresh_ms']:.2%}", "at most 1 %"),
        ("COPY of 1000 rows, with aggregates to without",
         f"{figures['inserts']['aggregated'] / figures['inserts']['bare']:.2f}", "at least 0.9"),
        ("INSERT of one row, with aggregates to without",
         f"{figures['single_inserts']['aggregated'] / figures['single_inserts']['bare']:.2f}", "at least 0.9"),
    ]
    lines += [(f"{table} compressed to one part in", f"{ratio:.1f}", "at least 6")
              for table, ratio in figures.get("compression", {}).items()]
    taken, before, answer = figures["archive"]
    lines += [
        (f"archived and dropped, {answer.files} chunks", f"{taken:.0f} s", ""),
        ("  Parquet smaller than the table by", f"{before / answer.bytes:.1f} x", ""),
        (f"{answer.days} days of a source from daily_ohlcv", f"{answer.daily_ohlcv * 1000:.1f} ms", ""),
        ("  the same of DuckDB over the archive", f"{answer.duckdb * 1000:.1f} ms", ""),
    ]
    return lines
