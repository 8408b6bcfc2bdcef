"""What the engine remembers of a series: used where it is right, and void where rows changed behind its back."""

from __future__ import annotations

import os
import random
import threading
import time
from datetime import timedelta

import pytest
from conftest import adder
from quality_support import MINUTE, START, bars, configure, copy, everything, insert

REMEMBERED = (
    "SELECT newest_at, newest FROM _tidemark.series_memory WHERE hypertable = 'timeseries_data'::regclass"
    " AND series = jsonb_build_object('source_id', %s::integer)"
)
VOLATILE, CALM = 150, 60


def moves(volatile: int, calm: int) -> list[float]:
    """Prices that move by two percent to and fro, then by a twentieth of that."""
    prices = [100.0]
    for i in range(volatile + calm):
        size = 0.02 if i < volatile else 0.0005
        prices.append(prices[-1] * (1 + size * (1 if i % 2 else -1) * (1 + i % 3 / 10)))
    return prices


@pytest.fixture
def series(tx, add):
    """A source whose baseline is wide, because it was volatile, and is remembered. A chunk ends where it calms down."""
    source_id = add("sources", interval="1m")
    insert(tx, bars(source_id, [100.0]))
    border = tx.execute("SELECT max(range_end) FROM timescaledb_information.chunks"
                        " WHERE hypertable_name = 'timeseries_data'").fetchone()[0]
    tx.execute("DELETE FROM timeseries_data")
    rows = bars(source_id, moves(VOLATILE, CALM), at=border - (VOLATILE + 1) * MINUTE)
    copy(tx, rows[:-2])
    insert(tx, rows[-2:-1])
    insert(tx, rows[-1:])
    assert tx.execute(REMEMBERED, [source_id]).fetchone() == (rows[-1][1], rows[-1][5])
    return source_id, rows


def next_row(rows, after=1):
    """A row that moves by 0.7 percent: nothing to a volatile series, and far out for a calm one."""
    source_id, at, *_, close, volume = rows[-1]
    price = close * 1.007
    return (source_id, at + after * MINUTE, price, price, price, price, volume)


def calm(rows):
    """The rows as if the series had been calm all along."""
    return [(r[0], r[1], *[100 + 0.01 * (i % 3)] * 4, r[6]) for i, r in enumerate(rows)]


def correct(tx, rows, settings=""):
    tx.execute(settings or "SELECT 1")
    for source_id, at, o, h, lo, c, _ in calm(rows):
        tx.execute(
            "UPDATE timeseries_data SET open = %s, high = %s, low = %s, close = %s"
            " WHERE source_id = %s AND timestamp = %s", [o, h, lo, c, source_id, at])
    tx.execute("RESET session_replication_role")


def replicate(tx, rows, **options):
    tx.execute("SET session_replication_role = replica")
    copy(tx, rows, **options)
    tx.execute("RESET session_replication_role")


def reload(tx, source_id, rows):
    tx.execute("TRUNCATE timeseries_data")
    replicate(tx, calm(rows))


def reattach(tx, source_id, rows):
    tx.execute("SELECT detach_quality('timeseries_data')")
    correct(tx, rows)
    tx.execute("SELECT attach_quality('timeseries_data')")


def choose_profile(tx, source_id, rows):
    profile = configure(tx, "quality_profiles", baseline_rows=50)
    tx.execute("UPDATE sources SET quality_profile_id = %s WHERE source_id = %s", [profile, source_id])


EVENTS = {
    "deleted": lambda tx, s, rows: tx.execute("DELETE FROM timeseries_data WHERE timestamp < %s", [rows[VOLATILE][1]]),
    "corrected": lambda tx, s, rows: correct(tx, rows),
    "corrected where triggers do not run":
        lambda tx, s, rows: correct(tx, rows, "SET session_replication_role = replica"),
    "late rows": lambda tx, s, rows: insert(
        tx, [(*r[:1], r[1] + MINUTE / 4, *rows[-1][2:]) for r in rows[-50:]] * 1),
    "late rows where triggers do not run": lambda tx, s, rows: replicate(
        tx, [(*r[:1], r[1] + MINUTE / 4, *rows[-1][2:]) for r in rows[-50:]]),
    "next rows where triggers do not run": lambda tx, s, rows: replicate(
        tx, [(*rows[-1][:1], rows[-1][1] + (i + 1) * MINUTE / 100, *rows[-1][2:]) for i in range(90)]),
    "reloaded": reload,
    "chunk dropped": lambda tx, s, rows: tx.execute(
        "SELECT drop_chunks('timeseries_data', older_than => %s::timestamptz)", [rows[VOLATILE + 1][1]]),
    "detached meanwhile": reattach,
    "profile changed": lambda tx, s, rows: tx.execute(
        "UPDATE quality_profiles SET baseline_rows = 50 WHERE name = 'ohlcv'"),
    "profile chosen": choose_profile,
}


def test_nothing_happened(tx, series):
    source_id, rows = series
    insert(tx, [next_row(rows)])
    assert tx.execute("SELECT count(*) FROM anomalies WHERE timestamp = %s", [next_row(rows)[1]]).fetchone() == (0,)
    assert tx.execute(REMEMBERED, [source_id]).fetchone() == (next_row(rows)[1], next_row(rows)[5])
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)


@pytest.mark.parametrize("event", EVENTS)
def test_rows_that_change_behind_its_back(tx, series, event):
    """The next row is judged by the rows as they are, and so is the one after it."""
    source_id, rows = series
    tx.execute("SELECT set_config('tidemark.reason', 'test', true)")
    EVENTS[event](tx, source_id, rows)
    judged = [next_row(rows)]
    insert(tx, judged)
    judged.append(next_row(judged))
    insert(tx, judged[1:])
    verdicts = "SELECT timestamp, quality_score, is_anomaly FROM timeseries_data WHERE timestamp >= %s ORDER BY 1"
    found = tx.execute(verdicts, [judged[0][1]]).fetchall()
    assert found[0][2], "a calm series does not move like that"
    tx.execute("SELECT rescore('timeseries_data')")
    assert tx.execute(verdicts, [judged[0][1]]).fetchall() == found


def test_version_of_a_forming_bar_is_judged_by_what_is_before_it(tx, add):
    source_id = add("sources", interval="1m")
    prices = moves(0, 140)
    rows = bars(source_id, prices)
    copy(tx, rows[:-1])
    upsert = ("ON CONFLICT (source_id, timestamp) DO UPDATE SET open = EXCLUDED.open, high = EXCLUDED.high,"
              " low = EXCLUDED.low, close = EXCLUDED.close")
    at = rows[-1][1]
    for factor, flagged in [(1, False), (1.0001, False), (1.02, True), (0.9999, False), (1.03, True), (1, False)]:
        insert(tx, bars(source_id, [prices[-1] * factor], at=at), conflict=upsert)
        assert tx.execute("SELECT is_anomaly FROM timeseries_data WHERE timestamp = %s", [at]).fetchone() == (flagged,)
    assert tx.execute(REMEMBERED, [source_id]).fetchone() == (at, prices[-1])
    before = everything(tx)
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(tx) == before


def test_two_feeds_of_the_same_series_neither_wait_nor_mislead(db):
    """Whoever does not get hold of what is remembered judges by the rows, and voids it."""
    with db.connect() as connection, db.connect(autocommit=False) as other:
        source_id = adder(connection)("sources", interval="1m")
        rows = bars(source_id, moves(VOLATILE, CALM))
        copy(connection, rows[:-1])
        insert(connection, rows[-1:])
        later = [next_row(rows, i)[:2] + rows[-1][2:] for i in range(2, 80, 2)]
        connection.execute("SET statement_timeout = '5s'")
        insert(other, [next_row(rows)[:2] + rows[-1][2:]])  # holds the memory until it commits
        insert(connection, later)
        other.commit()
        insert(connection, [next_row(later)])
        rescored = connection.execute("SELECT rescore('timeseries_data', NULL, %s)", [later[-1][1] + MINUTE]).fetchone()
        assert rescored == (0,)
        lapses = connection.execute("SELECT count(*) FROM _tidemark.memory_lapses WHERE series IS NOT NULL").fetchone()
        assert lapses == (1,)


NEWEST = "ON CONFLICT (source_id, timestamp) DO UPDATE SET open = EXCLUDED.open, high = EXCLUDED.high," \
         " low = EXCLUDED.low, close = EXCLUDED.close"


class Feed:
    """A client that brings rows of the series that all of them bring, in any order and way, until its time is over."""

    def __init__(self, db, number, ids, assets, seconds):
        self.db, self.ids, self.assets, self.seconds = db, ids, assets, seconds
        self.dice, self.offset = random.Random(number), timedelta(seconds=number)
        self.minute, self.failure, self.statements = 200, None, 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _row(self, source_id, minute, offset=None):
        price = 100 * self.dice.choice([1, 1, 1.001, 0.999, 1.5])
        return bars(source_id, [price], at=START + minute * MINUTE + (self.offset if offset is None else offset))[0]

    def _some(self):
        return self.dice.sample(self.ids, self.dice.randint(1, len(self.ids)))

    def single_row(self, own):
        self.minute += 1
        insert(own, [self._row(self.dice.choice(self.ids), self.minute)])

    def batch(self, own):
        self.minute += 1
        insert(own, [self._row(i, self.minute + n) for i in self._some() for n in range(2)])
        self.minute += 1

    def versions_of_the_newest(self, own):
        insert(own, [self._row(i, self.minute) for i in self._some()], conflict=NEWEST)

    def late_rows(self, own):
        insert(own, [self._row(i, self.dice.randint(150, self.minute)) for i in self._some()],
               conflict="ON CONFLICT DO NOTHING")

    def _run(self):
        end = time.monotonic() + self.seconds
        own_rows = [self.single_row, self.batch, self.versions_of_the_newest, self.late_rows]
        try:
            with self.db.connect(autocommit=False) as own:
                while time.monotonic() < end:
                    # Of rows that nobody else brings, in transactions of several statements.
                    for work in self.dice.choices(own_rows, k=self.dice.randint(1, 4)):
                        work(own)
                        self.statements += 1
                    own.commit()
                    # Of the same rows as others: in one order, as any table would have it, and a bar that forms now.
                    insert(own, [self._row(i, self.minute, MINUTE / 2) for i in sorted(self._some())], conflict=NEWEST)
                    own.commit()
                    price = 100 * self.dice.choice([1, 1.0001, 0.9999, 1.5])
                    insert(own, [(asset, "1m", price) for asset in sorted(self.assets)], "candles",
                           "asset_id, interval, close", "ON CONFLICT (asset_id, interval, ts) DO UPDATE SET close ="
                           " EXCLUDED.close")
                    own.commit()
                    self.statements += 2
        except Exception as failure:  # a thread's exception would be lost otherwise
            self.failure = failure


@pytest.mark.parametrize("feeds", [1, 2, 4])
def test_overlapping_feeds_neither_deadlock_nor_fail(db, feeds, capsys):
    """Nobody waits in a circle, and each score, flag and episode is as if judged in one piece: of one feed at once, of
    several after rescore(), because a row is judged without those before it that another feed has not committed yet."""
    series, seconds = 12, float(os.environ.get("TIDEMARK_TEST_FEED_SECONDS", "3"))
    with db.connect() as connection:
        add = adder(connection)
        ids = [add("sources", interval="1m") for _ in range(series)]
        assets = [str(add("assets")) for _ in range(series)]
        connection.execute("ALTER TABLE candles ALTER COLUMN ts SET DEFAULT date_trunc('minute', now())")
        copy(connection, [row for i in ids for row in bars(i, moves(0, 120))])
        now = connection.execute("SELECT date_trunc('minute', now())").fetchone()[0]
        copy(connection, [(asset, "1m", now - n * MINUTE, price) for asset in assets
                          for n, price in enumerate(moves(0, 120), 1)], "candles", "asset_id, interval, ts, close")
        clients = [Feed(db, number, ids, assets, seconds) for number in range(1, feeds + 1)]
        for client in clients:
            client.thread.join()
        assert [client.failure for client in clients if client.failure] == []
        assert connection.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
                                  ).fetchone() == (0,)
        of_candles = ("candles", "ts", "'asset_id', d.asset_id, 'interval', d.interval")
        for table in (("timeseries_data",), of_candles):
            lived = everything(connection, *table)
            rescored = connection.execute("SELECT rescore(%s)", [table[0]]).fetchone()[0]
            rows = len(lived["scores"])
            with capsys.disabled():
                print(f"\n{feeds} feeds, {seconds:g} s, {sum(c.statements for c in clients):,} statements, {table[0]}:"
                      f" {rows:,} rows, {len(lived['anomalies']):,} anomalies, no deadlock, {rescored:,} rescored")
            if feeds == 1:
                assert rescored == 0
                assert everything(connection, *table) == lived
        canonical = everything(connection)
        assert canonical["anomalies"]
        stored = connection.execute("SELECT source_id, timestamp, open, high, low, close, volume FROM timeseries_data"
                                    " ORDER BY 2, 1").fetchall()
        connection.execute("TRUNCATE timeseries_data")
        copy(connection, stored)
        assert everything(connection) == canonical


def test_transaction_that_sees_an_older_state_is_not_refused(db):
    with db.connect() as connection, db.connect(autocommit=False) as other:
        source_id = adder(connection)("sources", interval="1m")
        rows = bars(source_id, moves(VOLATILE, CALM))
        copy(connection, rows[:-2])
        insert(connection, rows[-2:-1])
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM timeseries_data")
        insert(connection, rows[-1:])
        insert(other, [next_row(rows)])
        other.commit()
        insert(connection, [next_row(rows, 2)])
        rescored = connection.execute("SELECT rescore('timeseries_data', NULL, %s)", [next_row(rows, 2)[1]]).fetchone()
        assert rescored == (0,)
