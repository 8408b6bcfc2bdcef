"""What scoring costs: COPY of a million rows and single-row INSERT, with scoring, without, and with a textbook trigger.

Every measurement is of the
same table with the same key and indexes. Without scoring (a) the foreign key to sources is in place, as it would be if
Tidemark did not check it once per statement; with scoring (b) the table is as shipped. The textbook trigger (c) is
measured on fewer rows, after a hundred of each series. Each is repeated, the variants taking turns, and the median
reported, by the wall clock and by the processor time of the server process, which other load disturbs less.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tidemark import migrations

START = datetime(2024, 1, 1, tzinfo=UTC)
COPY = "COPY timeseries_data (source_id, timestamp, open, high, low, close, volume) FROM STDIN"
INSERT = (
    "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s)"
)
VARIANTS = {
    "unscored": """
        SELECT detach_quality('timeseries_data');
        DROP TRIGGER trg_check_source ON timeseries_data;
        DROP TRIGGER trg_check_moved_source ON timeseries_data;
        ALTER TABLE timeseries_data ADD CONSTRAINT timeseries_data_source_id_fkey
        FOREIGN KEY (source_id) REFERENCES sources (source_id);
    """,
    "scored": "",
    "textbook": """
        SELECT detach_quality('timeseries_data');
        DROP TRIGGER trg_check_source ON timeseries_data;
        DROP TRIGGER trg_check_moved_source ON timeseries_data;
        ALTER TABLE timeseries_data ADD CONSTRAINT timeseries_data_source_id_fkey
        FOREIGN KEY (source_id) REFERENCES sources (source_id);
    """
    + Path(__file__).with_name("textbook_trigger.sql").read_text(),
}
_serial = itertools.count(1)


def prices(series: int, length: int) -> Iterator[float]:
    """A walk with heavy tails: half a percent of its steps exceed four deviations, as they do in real prices."""
    generator = random.Random(series)
    price = 100.0
    for _ in range(length):
        price *= math.exp(generator.gauss(0, 0.001) * (3 if generator.random() < 0.05 else 1))
        yield price


def feed(series: int, rows: int, at: datetime = START) -> bytes:
    """Bars of all series minute by minute, as text for COPY."""
    length = rows // series
    walks = [list(prices(s, length)) for s in range(1, series + 1)]
    out = io.StringIO()
    for i in range(length):
        instant = (at + timedelta(minutes=i)).isoformat()
        for s, walk in enumerate(walks, 1):
            p = walk[i]
            out.write(f"{s}\t{instant}\t{p * 0.9999:.6f}\t{p * 1.001:.6f}\t{p * 0.999:.6f}\t{p:.6f}\t1000\n")
    return out.getvalue().encode()


@contextlib.contextmanager
def database(url: str, variant: str, series: int) -> Iterator[str]:
    """A database of a variant's own with that many sources."""
    name = f"tidemark_bench_{os.getpid()}_{next(_serial)}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            own = make_conninfo(url, dbname=name)
            with psycopg.connect(own, autocommit=True) as connection:
                migrations.migrate(connection)
                connection.execute(
                    "INSERT INTO sources (source_id, name, data_type, interval)"
                    " SELECT i, 'bench ' || i, 'ohlcv', '1m' FROM generate_series(1, %s::integer) AS i",
                    [series],
                )
                connection.execute(VARIANTS[variant])
            yield own
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def processor_time(pid: int) -> float:
    """Seconds of processor time of a process of this machine; not a number elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return math.nan
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def copy(url: str, text: bytes, *, empty: bool = True) -> tuple[float, float]:
    """Wall-clock and processor seconds of one COPY; the rows are removed again unless told otherwise."""
    with psycopg.connect(url, autocommit=True) as connection:
        pid = connection.info.backend_pid
        wall, processor = time.perf_counter(), processor_time(pid)
        with connection.cursor().copy(COPY) as stream:
            for i in range(0, len(text), 1 << 20):
                stream.write(text[i : i + (1 << 20)])
        spent = time.perf_counter() - wall, processor_time(pid) - processor
        if empty:
            connection.execute("TRUNCATE timeseries_data")
            connection.execute("DELETE FROM quality_issues")
            connection.execute("DELETE FROM anomalies")
    return spent


def store(url: str, series: int, rows: int) -> datetime:
    """Fill the table with unflagged history by other means than COPY; returns the time of the first row after it."""
    length = rows // series
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for month in range(0, length, 43_200):
            connection.execute(
                "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, quality_score)"
                " SELECT s, %s::timestamptz + i * interval '1 minute', p, p * 1.001, p * 0.999, p, 1000, 100"
                "   FROM generate_series(%s::integer, %s::integer) AS i, generate_series(1, %s::integer) AS s,"
                "        LATERAL (SELECT 100 + sin(i * s) * 0.2 + random() * 0.1 AS p) AS x",
                [START, month, min(month + 43_200, length) - 1, series],
            )
        connection.execute("VACUUM ANALYZE timeseries_data")
    return START + timedelta(minutes=length)


def _client(
    url: str, client: int, clients: int, series: int, at: datetime, seconds: float, results: multiprocessing.Queue
) -> None:
    own = [(s, prices(s, 1_000_000)) for s in range(1 + client, series + 1, clients)]
    done, minute = 0, 0
    with psycopg.connect(url, autocommit=True) as connection:
        for minute in range(120):  # so that every series has its history
            connection.cursor().executemany(
                INSERT,
                [
                    (s, at + timedelta(minutes=minute), p * 0.9999, p * 1.001, p * 0.999, p, 1000)
                    for s, walk in own
                    for p in [next(walk)]
                ],
            )
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            minute += 1
            for s, walk in own:
                p = next(walk)
                connection.execute(
                    INSERT, (s, at + timedelta(minutes=minute), p * 0.9999, p * 1.001, p * 0.999, p, 1000), prepare=True
                )
                done += 1
    results.put(done / seconds)


def insert(url: str, clients: int, series: int, at: datetime, seconds: float) -> float:
    """Rows a second that some clients store one by one, each in a transaction of its own."""
    results: multiprocessing.Queue = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=_client, args=(url, c, clients, series, at, seconds, results))
        for c in range(clients)
    ]
    for process in processes:
        process.start()
    rates = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rates)


def compare(url: str, series: int, rows: int, repeat: int, stored: int, seconds: float) -> None:
    """Measure one shape of data and print its table."""
    sample = max(series * 20, rows // 50)
    with contextlib.ExitStack() as stack:
        urls = {
            v: stack.enter_context(database(url, v, series))
            for v in (VARIANTS if not stored else ("unscored", "scored"))
        }
        at = START
        if stored:
            at = max(store(own, series, stored) for own in urls.values())
        text = feed(series, rows, at)
        spent: dict[str, list[tuple[float, float]]] = {v: [] for v in urls}
        for i in range(repeat):
            for variant in ("unscored", "scored"):
                if stored:
                    text = feed(series, rows, at + timedelta(minutes=i * rows // series))
                spent[variant].append(copy(urls[variant], text, empty=not stored))
        if "textbook" in urls:
            copy(urls["textbook"], feed(series, series * 100), empty=False)
            part = feed(series, sample, at + timedelta(minutes=100))
            spent["textbook"] = [tuple(s * rows / sample for s in copy(urls["textbook"], part))]
        wall = {v: statistics.median(w for w, _ in s) for v, s in spent.items()}
        processor = {v: statistics.median(p for _, p in s) for v, s in spent.items()}
        print(f"\nCOPY of {rows:,} rows over {series:,} series{f', {stored:,} rows stored' if stored else ''}")
        for variant, seconds_taken in wall.items():
            print(
                f"  {variant:10} {seconds_taken:8.2f} s  {rows / seconds_taken:10,.0f} rows/s  "
                f" {processor[variant]:8.2f} s processor"
                f"{'   (from ' + format(sample, ',') + ' rows)' if variant == 'textbook' else ''}"
            )
        print(
            f"  scored / unscored {wall['unscored'] / wall['scored']:.2f} (processor"
            f" {processor['unscored'] / processor['scored']:.2f})",
            end="",
        )
        print(f", scored / textbook {wall['textbook'] / wall['scored']:.1f}" if "textbook" in wall else "")
        if seconds:
            last = at + timedelta(minutes=(repeat if stored else 0) * rows // series)
            rates = {v: insert(urls[v], 4, series, last, seconds) for v in ("unscored", "scored")}
            print(
                "  single-row INSERT, 4 clients: "
                + ", ".join(f"{v} {rate:,.0f} rows/s" for v, rate in rates.items())
                + f", ratio {rates['scored'] / rates['unscored']:.2f}"
            )


def run(url: str, rows: int = 1_000_000, stored: int = 0, repeat: int = 3, seconds: float = 10) -> None:
    """Measure on a server, in databases that are made and dropped, and print."""
    for series in (50, 1000):
        compare(url, series, rows, repeat, stored, seconds)
