"""Whether a desk's feeds are kept up with: 5,000 series that bring a bar a minute, and 500 quotes a second, from four
clients.

A client has a quarter of both. Its bars come when the minute is over, in statements of a hundred, and its quotes one
statement a tick, ten ticks a second. Each statement has an instant at which it is due; its lag is how much later it is
committed. What the servers' processes took is compared with one processor.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from datetime import UTC, datetime, timedelta

import psycopg

from bench.quality import database, processor_time

SERIES, QUOTES, CLIENTS, BATCH, TICKS = 5_000, 500, 4, 100, 10
HISTORY = 120  # minutes that each series begins with
BARS = "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume) VALUES "
TICK = "INSERT INTO quotes (asset_id, ts, price) VALUES "


def client(url: str, number: int, start: float, seconds: float, done: multiprocessing.Queue) -> None:
    generator = random.Random(number)
    own = list(range(1 + number, SERIES + 1, CLIENTS))
    prices = dict.fromkeys(own, 100.0)
    with psycopg.connect(url, autocommit=True) as connection:
        assets = [a for (a,) in connection.execute("SELECT asset_id FROM assets ORDER BY symbol")][number::CLIENTS]
        pid = connection.info.backend_pid
        # Instants at which something is due: a minute's bars spread over its first seconds, as they come from outside.
        due = [(second + tick / TICKS, "quotes", tick) for second in range(int(seconds)) for tick in range(TICKS)]
        due += [(minute * 60 + place / len(own) * 5, "bars", place)
                for minute in range(int(seconds) // 60) for place in range(0, len(own), BATCH)]
        lags: dict[str, list[float]] = {"quotes": [], "bars": []}
        processor, stored = -processor_time(pid), 0
        for at, what, place in sorted(due):
            time.sleep(max(0, start + at - time.time()))
            if what == "bars":
                minute = datetime.fromtimestamp(start + at, UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
                rows = []
                for s in own[place:place + BATCH]:
                    prices[s] *= 1 + generator.gauss(0, 0.0005)
                    rows.append((s, minute, *[prices[s]] * 4, 1000.0))
            else:
                rows = [(asset, datetime.fromtimestamp(start + at, UTC), 100 + generator.gauss(0, 0.05))
                        for asset in generator.sample(assets, QUOTES // CLIENTS // TICKS + place % 2)]
            values = ", ".join([f"({', '.join(['%s'] * len(rows[0]))})"] * len(rows))
            connection.execute((BARS if what == "bars" else TICK) + values, [v for row in rows for v in row],
                               prepare=True)
            lags[what].append(time.time() - start - at)
            stored += len(rows)
        done.put((lags, processor + processor_time(pid), stored))


def run(url: str, seconds: float = 600) -> None:
    """Measure on a server, in a database that is made and dropped, and print."""
    with database(url, "scored", SERIES) as own:
        with psycopg.connect(own, autocommit=True) as connection:
            connection.execute("INSERT INTO assets (symbol, asset_type) SELECT 'S' || n, 'crypto'"
                               " FROM generate_series(1, 500) AS n")
            connection.execute("SET tidemark.ingest_mode = 'backfill'")
            connection.execute(
                "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
                " SELECT s, date_trunc('minute', now()) - n * interval '1 minute', p, p, p, p, 1000"
                "   FROM generate_series(3, %s + 2) AS n, generate_series(1, %s) AS s,"
                "        LATERAL (SELECT 100 + sin(n * s) * 0.1 AS p) AS x", [HISTORY, SERIES])
            connection.execute("VACUUM ANALYZE")
        done: multiprocessing.Queue = multiprocessing.Queue()
        start = (time.time() // 60 + 1) * 60
        clients = [multiprocessing.Process(target=client, args=(own, n, start, seconds, done)) for n in range(CLIENTS)]
        for process in clients:
            process.start()
        answers = [done.get() for _ in clients]
        for process in clients:
            process.join()
    processor = sum(answer[1] for answer in answers) / seconds
    print(f"{SERIES:,} series with a bar a minute, and {QUOTES} quotes a second for {seconds / 60:g} minutes,"
          f" {CLIENTS} clients: {sum(answer[2] for answer in answers):,} rows")
    for what in ("bars", "quotes"):
        lags = sorted(lag * 1000 for answer in answers for lag in answer[0][what])
        print(f"  {what:8} lag {statistics.median(lags):8.1f} ms in the middle,"
              f" 99 % {lags[len(lags) * 99 // 100]:8.1f}, at most {lags[-1]:8.1f}")
    print(f"  processor time of the clients' server processes: {processor:.0%} of one core (at most 50 %)"
          f"{'' if processor <= 0.5 else '  NOT MET'}", flush=True)
