"""A desk's own minute: one statement with the new bar of many series, and bars that form.

Databases that differ in what is attached take turns, statement by statement, and the sums of their times are divided:
by the clock, and by the processor time of the server processes. Each statement is a transaction of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg

from bench.quality import VARIANTS, database, processor_time

SERIES, STORED = 500, 600
MINUTE = timedelta(minutes=1)
COLUMNS = "(source_id, timestamp, open, high, low, close, volume)"
UPSERT = (" ON CONFLICT (source_id, timestamp) DO UPDATE SET close = EXCLUDED.close, volume = EXCLUDED.volume,"
          " high = greatest(timeseries_data.high, EXCLUDED.high), low = least(timeseries_data.low, EXCLUDED.low)")
# Sessions of a day, which the rules ask about for each row, and how late is late.
SESSIONS = """
    SET tidemark.reason = 'the bench';
    INSERT INTO market_calendar (market, date, opens_at, closes_at)
    SELECT 'BENCH', d::date, d, d + interval '1 day'
      FROM generate_series(now() - interval '40 days', now() + interval '2 days', interval '1 day') AS n,
           date_trunc('day', n, 'UTC') AS d;
    UPDATE quality_profiles SET market = 'BENCH', allowed_lag = '6 hours';
"""
DETACHED = VARIANTS["unscored"] + "SELECT detach_audit('timeseries_data');"


class Desk:
    """A database with some history of all series."""

    def __init__(self, url: str, start: datetime, price: Callable[[int, int], float]) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.wall = self.processor = 0.0
        self.start = start
        self.connection.execute("SET tidemark.ingest_mode = 'backfill'")
        with self.connection.cursor().copy(f"COPY timeseries_data {COLUMNS} FROM STDIN") as stream:
            for n, s in itertools.product(range(STORED), range(1, SERIES + 1)):
                p = price(s, n)
                stream.write_row((s, start + n * MINUTE, p, p, p, p, 1000))
        self.connection.execute("VACUUM ANALYZE timeseries_data")
        self.connection.execute("CHECKPOINT")
        self.connection.execute("RESET tidemark.ingest_mode")
        for n in (STORED, STORED + 1):  # from here on each series is remembered, where it is
            self.store([(s, start + n * MINUTE, *[price(s, n)] * 4, 1000) for s in range(1, SERIES + 1)])

    def store(self, rows: list[tuple], conflict: str = "") -> None:
        values = ", ".join(["(%s, %s, %s, %s, %s, %s, %s)"] * len(rows))
        statement = f"INSERT INTO timeseries_data {COLUMNS} VALUES {values}{conflict}"
        parameters = [value for row in rows for value in row]
        pid = self.connection.info.backend_pid
        self.processor -= processor_time(pid)
        self.wall -= time.perf_counter()
        self.connection.execute(statement, parameters, prepare=True)
        self.wall += time.perf_counter()
        self.processor += processor_time(pid)


def walk() -> Callable[[int, int], float]:
    """Prices by series and minute, the same however often one asks."""
    generator = random.Random(7)
    levels: dict[int, list[float]] = {}

    def price(series: int, n: int) -> float:
        own = levels.setdefault(series, [100.0])
        while len(own) <= n:
            own.append(own[-1] * (1 + generator.gauss(0, 0.001)))
        return own[n]

    return price


def by_turns(desks: dict[str, Desk], k: int, rows: int, first: int, price: Callable[[int, int], float],
             forming: datetime | None = None) -> dict[str, tuple[float, float]]:
    """Clock and processor seconds a row; each desk gets the same statements with the bars of k series.

    The bars are those of minute `first` and after it, or all of them versions of the one that starts at `forming`. Each
    series gets as many: one that missed minutes would jump, and what is measured then is the judging of jumps.
    """
    turn, noise = itertools.cycle(range(1, SERIES + 1)), random.Random(k)
    warm_up, count = SERIES // k, -(-rows // SERIES) * SERIES // k
    for n in range(warm_up + count):
        if n == warm_up:  # plans are made, what is remembered is there, and so are the bars that form
            for desk in desks.values():
                desk.wall = desk.processor = 0.0
        minute = first if forming else first + n * k // SERIES
        batch = [
            (s, forming or desks["attached"].start + minute * MINUTE,
             *[price(s, minute) * (1 + (noise.gauss(0, 0.0001) if forming else 0))] * 4, 1000.0 + n)
            for s in itertools.islice(turn, k)
        ]
        for desk in desks.values():
            desk.store(batch, UPSERT if forming else "")
    return {name: (desk.wall / count / k, desk.processor / count / k) for name, desk in desks.items()}


def _line(what: str, spent: dict[str, tuple[float, float]], base: str, required: float | None) -> None:
    for name in spent:
        if name != base:
            ratio, processor = (spent[base][i] / spent[name][i] for i in (0, 1))
            met = "" if required is None or ratio >= required else "  NOT MET"
            print(f"  {what:30} {name:>9} {spent[name][0] * 1e6:9,.0f} us a row, {base} {spent[base][0] * 1e6:9,.0f},"
                  f" ratio {ratio:.2f} (processor {processor:.2f}){'' if required is None else f' >= {required}'}{met}",
                  flush=True)


def run(url: str, rows: int = 3_000) -> None:
    """Measure on a server, in databases that are made and dropped, and print."""
    price = walk()
    # New bars come within the hours before now, so that none is late where six hours are allowed; one forms now.
    start = datetime.now(UTC).replace(second=0, microsecond=0) - (STORED + 300) * MINUTE
    with contextlib.ExitStack() as stack:
        desks = {}
        for name, wanted in (("detached", DETACHED), ("attached", ""), ("sessions", SESSIONS)):
            own = stack.enter_context(database(url, "scored", SERIES))
            with psycopg.connect(own, autocommit=True) as connection:
                connection.execute(wanted or "SELECT 1")
            desks[name] = Desk(own, start, price)
            stack.callback(desks[name].connection.close)
        print(f"{SERIES} series of one-minute bars, {STORED} bars each stored; rows that arrive live")
        some = {name: desks[name] for name in ("detached", "attached")}
        place = STORED + 2
        for k in (1, 10, 100, 500):
            spent = by_turns(desks, k, rows if k > 1 else rows // 4, place, price)
            place += 1 + -(-(rows if k > 1 else rows // 4) // SERIES)  # the minutes of by_turns
            _line(f"new bars, k = {k}", {n: s for n, s in spent.items() if n != "sessions"}, "detached",
                  {1: 0.6, 10: 0.4, 100: 0.25, 500: 0.2}[k])
            slower = spent["sessions"][1] / spent["attached"][1]
            print(f"  {'with market, sessions and lag':40} {spent['sessions'][0] * 1e6:9,.0f} us a row,"
                  f" {spent['sessions'][0] / spent['attached'][0]:.2f} x (processor {slower:.2f} x) <= 1.5"
                  f"{'' if slower <= 1.5 else '  NOT MET'}", flush=True)
        some = {name: desks[name] for name in ("detached", "attached")}
        for k in (1, 100):
            now = datetime.now(UTC).replace(second=0, microsecond=0)
            spent = by_turns(some, k, rows if k > 1 else rows // 4, place, price, now)
            _line(f"forming bar, k = {k}", spent, "detached", 0.4)
        recorded = desks["attached"].connection.execute(
            "SELECT count(*) FROM audit_log WHERE operation = 'update' AND table_name = 'timeseries_data'"
        ).fetchone()[0]
        print(f"  audit rows of forming bars: {recorded}{'' if recorded == 0 else '  NOT MET'}")
