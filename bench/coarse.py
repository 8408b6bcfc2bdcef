"""Long coarse history: daily bars of years, by themselves as `seed` loads them, and beside minutes in the same table.

Beside the hypertable stands a plain table in the same database: the key and the columns that are filled, the same rows
in the order in which they came. Both take turns, statement by statement, and medians are compared, by the clock and by
the processor time of the server process. A bar that is new is the next business day of its asset, in a transaction of
its own; into the hypertable it goes scored, on record, and with all that is attached as shipped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from bench.applications import timed
from bench.quality import database

DAILY, INTRADAY, YEARS, DAYS, SESSION = 500, 50, 20, 252, 390  # assets, of them with minutes; days with minutes
# Connections, and statements in one of them as they come, and prepared; the first of those are not counted.
WAYS = {"new connection": 20, "repeated": 40, "prepared": 40}
WARM = 10
FED = 40  # assets that get new bars; the last days that are over are left for them
LEFT = 1 + sum(WAYS.values()) // FED + 1
TABLES = ("candles", "plain")
COLUMNS = "asset_id, interval, ts, open, high, low, close, volume"
LATEST = ("SELECT ts, open, high, low, close, volume FROM {} WHERE asset_id = %s AND interval = '1d'"
          " ORDER BY ts DESC LIMIT 30")
NEW = f"INSERT INTO {{}} ({COLUMNS}) VALUES (%s, '1d', %s, %s, %s, %s, %s, %s)"
# A walk in cents; its steps are the sum of three uniform ones, which looks normal.
BARS = f"""
    INSERT INTO candles ({COLUMNS})
    SELECT %(asset)s, %(interval)s, t, open, round(greatest(open, close) * 100.1) / 100,
           round(least(open, close) * 99.9) / 100, close, floor(1000 + 9000 * random())
      FROM (SELECT t, round(p / exp(r) * 100) / 100 AS open, round(p * 100) / 100 AS close
              FROM (SELECT t, r, 100 * exp(sum(r) OVER (ORDER BY t)) AS p
                      FROM (SELECT d + %(opens)s + n * interval '1 minute' AS t,
                                   (random() + random() + random() - 1.5) * %(step)s AS r
                              FROM unnest(%(days)s::timestamptz[]) AS d, generate_series(0, %(each)s - 1) AS n
                             ORDER BY 1) AS step) AS walk) AS bar"""


def business_days(day: datetime, step: int) -> Iterator[datetime]:
    """Those after a day, or before it."""
    while True:
        day += timedelta(days=step)
        if day.weekday() < 5:
            yield day


def fill(connection: psycopg.Connection, interval: str, assets: list, days: list[datetime], each: int) -> None:
    """Bars of some assets, one after the other, into chunks that are fitted first, as who uses SQL is told to."""
    rows = len(assets) * len(days) * each
    begun = time.perf_counter()
    connection.execute("SELECT fit_chunks('candles', %s, %s, %s)", (days[0], days[-1], rows))
    for asset in assets:
        connection.execute(BARS, {"asset": asset, "interval": interval, "days": days, "each": each,
                                  "opens": timedelta(hours=14.5 if each > 1 else 0), "step": 0.03 / each ** 0.5})
    taken = time.perf_counter() - begun
    print(f"  {rows:,} bars of {interval} loaded in {taken:.0f} s, {rows / taken:,.0f} rows/s", flush=True)


def line(what: str, found: dict[str, tuple[float, ...]], unit: str, required: float, *, ratio: bool) -> None:
    """A figure of the hypertable beside the plain table's; what is required is a ratio, or the figure itself."""
    own, plain = (found[table] for table in TABLES)
    processor = "".join(f" (processor {a / b:.2f})" for a, b in zip(own[1:], plain[1:], strict=True))
    met = (own[0] / plain[0] if ratio else own[0]) <= required
    print(f"  {what:46} {own[0]:9,.2f} {unit}, plain {plain[0]:9,.2f}, ratio {own[0] / plain[0]:.2f}{processor}"
          f" <= {required} {'x' if ratio else unit}{'' if met else '  NOT MET'}", flush=True)


def spend(url: str, what: str, statement: str, parameters: Iterator[tuple], required: float, *, ratio: bool,
          ways: dict[str, int] = WAYS) -> None:
    """Median milliseconds of a statement, in new connections and repeated in one, each with parameters of its own."""
    for way, times in ways.items():
        anew = way == "new connection"
        spent: dict[str, list[tuple[float, float]]] = {table: [] for table in TABLES}
        with psycopg.connect(url, autocommit=True) as standing:
            for one, table in itertools.product(itertools.islice(parameters, times), TABLES):
                with psycopg.connect(url, autocommit=True) if anew else contextlib.nullcontext(standing) as connection:
                    spent[table].append(timed(connection, lambda c=connection, t=table, p=one, w=way: c.execute(
                        statement.format(t), p, prepare=w == "prepared")))
        found = {table: tuple(statistics.median(one) * 1000 for one in zip(*taken[0 if anew else WARM:], strict=True))
                 for table, taken in spent.items()}
        line(f"{what}, {way}", found, "ms", required, ratio=ratio)


def new_bars(last: dict[object, tuple[datetime, float]]) -> Iterator[tuple]:
    """The next business day of each asset, and again from the first one on."""
    for asset in itertools.cycle(list(last)):
        day, close = last[asset]
        last[asset] = day, close = next(business_days(day, 1)), close
        yield asset, day, close, close * 1.01, close * 0.99, close, 1000


def compare(url: str, groups: dict[str, list]) -> None:
    """Latest bars of assets of each group, bytes, and new bars; prints a line for each figure."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE plain AS SELECT {COLUMNS} FROM candles WITH NO DATA")
        connection.execute("ALTER TABLE plain ADD PRIMARY KEY (asset_id, interval, ts)")
        connection.execute(f"INSERT INTO plain SELECT {COLUMNS} FROM candles ORDER BY id")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        size = connection.execute("SELECT hypertable_size('candles') / 1e6, pg_total_relation_size('plain') / 1e6,"
                                  " (SELECT count(*) FROM show_chunks('candles'))").fetchone()
        bars = {asset: connection.execute(LATEST.format("plain"), (asset,)).fetchone()
                for asset in itertools.islice(itertools.chain(*groups.values()), FED)}
    print(f"  {size[2]} chunks")
    line("all chunks and indexes", {"candles": (float(size[0]),), "plain": (float(size[1]),)}, "MB", 4, ratio=True)
    for name, assets in groups.items():
        spend(url, f"latest 30{name}", LATEST, ((asset,) for asset in itertools.cycle(assets)), 5, ratio=True)
    new = new_bars({asset: (bar[0], bar[4]) for asset, bar in bars.items()})
    if len(bars) == FED:
        spend(url, "first new bar of a series", NEW, new, 10, ratio=False, ways={"repeated": FED})
    spend(url, "new bar", NEW, new, 10, ratio=False)


def run(url: str, rows: int) -> None:
    """Measure on a server, in databases that are made and dropped, and print."""
    with database(url, "scored", 1) as own:
        begun = time.perf_counter()
        subprocess.run([Path(sys.executable).with_name("tidemark"), "seed"], env={**os.environ, "DATABASE_URL": own},
                       check=True, capture_output=True)
        taken = time.perf_counter() - begun
        with psycopg.connect(own) as connection:
            assets = [asset for (asset,) in connection.execute("SELECT asset_id FROM assets ORDER BY symbol")]
        print(f"thirteen years of daily bars of {len(assets)} shares\n"
              f"  tidemark seed {taken:.2f} s <= 3 s{'' if taken <= 3 else '  NOT MET'}", flush=True)
        compare(own, {"": assets})
    share = rows / (DAILY * YEARS * 261 + INTRADAY * DAYS * SESSION)
    daily, intraday = max(FED, round(DAILY * share)), max(1, round(INTRADAY * share))
    print(f"{YEARS} years of daily bars of {daily} assets; {DAYS} days with {SESSION} minutes of {intraday} of them")
    with database(url, "scored", 1) as own:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        days = list(itertools.islice(business_days(today, -1), LEFT, YEARS * 261))[::-1]
        with psycopg.connect(own, autocommit=True) as connection:
            assets = [asset for (asset,) in connection.execute(
                "INSERT INTO assets (symbol, asset_type) SELECT 'S' || n, 'stock' FROM generate_series(1, %s) AS n"
                " RETURNING asset_id", (daily,))]
            connection.execute("SET tidemark.ingest_mode = 'backfill'")
            connection.execute("SELECT setseed(0.5)")
            fill(connection, "1d", assets, days, 1)
            fill(connection, "1m", assets[:intraday], days[-DAYS:], SESSION)
        compare(own, {", asset with minutes": assets[:intraday], ", asset without": assets[intraday:]})
