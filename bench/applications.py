"""What an application's vocabulary costs beside the base table: the latest bars by symbol, and writing bars and quotes.

Reading: the latest hundred rows of each of ten symbols among fifty, with the parameters as text, as drivers send them.
The same question goes to the base table, which is asked for the symbol's asset first. Asked with `rows` rows stored,
and with ten times as many; the rows are copied past the triggers, for nothing but their number matters.

Writing: bars of one new symbol by executemany, and in statements of a thousand rows; into the base table they go with
the asset's key. What is compared is the rate, by the wall clock and by the processor time of the server process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from tidemark import migrations

START = datetime(2005, 1, 1, tzinfo=UTC)
SYMBOLS = 50
ASKED = {
    "candles": (
        "public.candles",
        "SELECT * FROM public.candles WHERE asset_id = (SELECT asset_id FROM public.assets WHERE symbol = %s::text)"
        " AND interval = '1h' ORDER BY ts DESC LIMIT 100"),
    "hyperliquid": (
        "hyperliquid.candle_data",
        "SELECT * FROM hyperliquid.candle_data WHERE asset = %s::text AND timeframe = '1h'::text"
        " ORDER BY timestamp DESC LIMIT 100"),
    "buddy_ai": (
        "buddy_ai.ohlcv_data",
        "SELECT * FROM buddy_ai.ohlcv_data WHERE symbol = %s::text AND timeframe = '1h'::text"
        " ORDER BY timestamp DESC LIMIT 100"),
    "cryptovolt": (
        "cryptovolt.market_data",
        "SELECT * FROM cryptovolt.market_data WHERE symbol = %s::text ORDER BY timestamp DESC LIMIT 100"),
    "quotes": (
        "public.quotes",
        "SELECT * FROM public.quotes WHERE asset_id = (SELECT asset_id FROM public.assets WHERE symbol = %s::text)"
        " ORDER BY ts DESC LIMIT 100"),
    "buddy_ai quotes": (
        "buddy_ai.market_data",
        "SELECT * FROM buddy_ai.market_data WHERE symbol = %s::text ORDER BY timestamp DESC LIMIT 100"),
}
BASES = {"hyperliquid": "candles", "buddy_ai": "candles", "cryptovolt": "candles", "buddy_ai quotes": "quotes"}
FILL = {
    "candles":
        "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)"
        " SELECT a.asset_id, '1h', %(from)s + i * interval '1 hour', 1, 2, 0.5, 1.5, 10"
        "   FROM generate_series(%(since)s::int, %(until)s::int - 1) AS i CROSS JOIN assets AS a",
    "quotes":
        "INSERT INTO quotes (asset_id, ts, price)"
        " SELECT a.asset_id, %(from)s + i * interval '1 hour', 1.5"
        "   FROM generate_series(%(since)s::int, %(until)s::int - 1) AS i CROSS JOIN assets AS a",
}
# Columns beside the instant and four prices; the first is the symbol, or the asset.
WRITTEN = {
    "candles": ("public.candles", "asset_id, interval, ts, open, high, low, close",
                "%s::uuid, '1h', %s, %s, %s, %s, %s"),
    "hyperliquid": ("hyperliquid.candle_data", "asset, timeframe, timestamp, open, high, low, close",
                    "%s, '1h', %s, %s, %s, %s, %s"),
    "buddy_ai": ("buddy_ai.ohlcv_data", "symbol, market, timeframe, timestamp, open, high, low, close",
                 "%s, 'crypto', '1h', %s, %s, %s, %s, %s"),
    "cryptovolt": ("cryptovolt.market_data",
                   "symbol, timestamp, open_price, high_price, low_price, close_price",
                   "%s, %s::timestamptz AT TIME ZONE 'UTC', %s, %s, %s, %s"),
}


def _on_processor(connection: psycopg.Connection) -> float:
    return int(Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9


def timed(connection: psycopg.Connection, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the server process on a processor."""
    clock, processor = time.perf_counter(), _on_processor(connection)
    work()
    return time.perf_counter() - clock, _on_processor(connection) - processor


def reading(connection: psycopg.Connection, stored: int) -> dict[str, float]:
    """Median milliseconds of a question to each relation; prints them beside the base table's."""
    spent: dict[str, list[float]] = {name: [] for name in ASKED}
    for turn in range(12):
        for name, (_, question) in ASKED.items():
            for symbol in range(0, SYMBOLS, 5):
                begun = time.perf_counter()
                rows = connection.execute(question, (f"S{symbol}",)).fetchall()
                if turn > 1:
                    spent[name].append((time.perf_counter() - begun) * 1000)
                assert len(rows) == 100, (name, len(rows))
    medians = {name: statistics.median(times) for name, times in spent.items()}
    for name, (relation, _) in ASKED.items():
        beside = f" / base {medians[name] / medians[BASES[name]]:5.2f}  (at most 3)" if name in BASES else ""
        print(f"  latest 100 of {relation:24} {stored:>11,} rows {medians[name]:8.2f} ms{beside}", flush=True)
    return medians


def writing(connection: psycopg.Connection) -> None:
    """Prints rates beside the base table's: 10,000 rows by executemany, and in ten statements of a thousand."""
    spent: dict[str, dict[str, list[tuple[float, float]]]] = {"executemany": {}, "statement": {}}
    serial = 0
    for turn in range(3):
        for name, (relation, columns, values) in WRITTEN.items():
            for way, found in spent.items():
                serial += 1
                symbol = f"W{serial}"
                if name == "candles":
                    symbol = connection.execute(
                        "INSERT INTO assets (symbol, asset_type) VALUES (%s, 'crypto') RETURNING asset_id", (symbol,)
                    ).fetchone()[0]
                rows = [(symbol, START + timedelta(hours=n), 1.0, 2.0, 0.5, 1.0 + n % 7 / 100) for n in range(10_000)]
                one = f"INSERT INTO {relation} ({columns}) VALUES ({values})"
                many = f"INSERT INTO {relation} ({columns}) VALUES " + ", ".join([f"({values})"] * 1000)

                def work(rows=rows, way=way, one=one, many=many) -> None:
                    with connection.transaction(), connection.cursor() as cursor:
                        if way == "executemany":
                            cursor.executemany(one, rows)
                        else:
                            for begin in range(0, len(rows), 1000):
                                cursor.execute(many, [value for row in rows[begin:begin + 1000] for value in row])
                taken = timed(connection, work)
                if turn:
                    found.setdefault(name, []).append(taken)
    for way, found in spent.items():
        base = [statistics.median(one[part] for one in found["candles"]) for part in (0, 1)]
        for name, times in found.items():
            wall, processor = (statistics.median(one[part] for one in times) for part in (0, 1))
            print(f"  {'10,000 by executemany' if way == 'executemany' else '10 statements of 1,000':22}"
                  f" {WRITTEN[name][0]:24} {10_000 / wall:8,.0f} rows/s; / base {base[0] / wall:.2f}"
                  f" (processor {base[1] / processor:.2f}; at least 0.5)", flush=True)


def run(url: str, rows: int) -> None:
    """Measure in an empty database and print."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrations.migrate(connection)
        connection.execute("SET tidemark.ingest_mode = 'backfill'")
        print("applications: the vocabularies beside the base tables")
        writing(connection)
        connection.execute("TRUNCATE candles, quotes")
        connection.execute("DELETE FROM assets")
        connection.execute("INSERT INTO assets (symbol, asset_type) SELECT 'S' || i, 'crypto'"
                           "  FROM generate_series(0, %s - 1) AS i", (SYMBOLS,))
        medians, since = [], 0
        for size in (rows, 10 * rows):
            until = size // SYMBOLS
            # Chunks that the data fit, as `tidemark load` makes them.
            for table, statement in FILL.items():
                connection.execute("SELECT fit_chunks(%s::regclass, %s, %s, %s)", (
                    table, START + timedelta(hours=since), START + timedelta(hours=until), size))
                connection.execute("SET session_replication_role = replica")
                connection.execute(statement, {"from": START, "since": since, "until": until})
                connection.execute("RESET session_replication_role")
                connection.execute(f"VACUUM ANALYZE {table}")
            since = until
            medians.append(reading(connection, size))
        for name, (relation, _) in ASKED.items():
            print(f"  {relation:38} with ten times the rows {medians[1][name] / medians[0][name]:5.2f}", flush=True)
