"""Whatever happens to the raw rows, in any order, every aggregate says what aggregating them directly says.

Two rules bend that, and the test knows them: buckets over dropped rows stay as they were, and on Community a change
below the watermark counts from the next refresh.
"""

from __future__ import annotations

import datetime
import random

import psycopg
import pytest

UTC = datetime.UTC
DAY = datetime.timedelta(days=1)
# From before the end of winter time in Europe to after the end of a month.
FIRST = datetime.datetime(2024, 3, 29, tzinfo=UTC)
SERIES = ["a", "b", "c"]
ZONES = ["UTC", "America/New_York", "Australia/Lord_Howe", "Europe/Berlin"]
ROLLUPS = {"prints_15m": "15 minutes", "prints_3h": "3 hours", "prints_1d": "1 day", "prints_1mon": "1 month"}

def add_prints(connection: psycopg.Connection, edition: str) -> None:
    """A hypertable of the user's own with a chain of aggregates of his own."""
    connection.execute("""
        CREATE TABLE prints (
            venue text NOT NULL, kind candle_interval NOT NULL, ts timestamptz NOT NULL, price float8, size float8,
            samples bigint NOT NULL DEFAULT 1, quality_score smallint, PRIMARY KEY (venue, kind, ts)
        );
        SELECT create_hypertable('prints', by_range('ts', interval '1 day'), create_default_indexes => false)""")
    if edition == "community":
        connection.execute("ALTER TABLE prints SET (timescaledb.compress, timescaledb.compress_orderby = 'ts DESC',"
                           " timescaledb.compress_segmentby = 'venue, kind')")
    parent = None
    for name, width in ROLLUPS.items():
        connection.execute(
            "SELECT add_rollup(%s, 'prints', %s, ARRAY['venue', 'kind'], ARRAY['first(price, {time}) AS price',"
            " 'sum(size) AS size', 'sum(samples)::bigint AS samples'], p_filter => %s, p_parent => %s)",
            (name, width, None if parent else "price > 0", parent),
        )
        parent = name


class History:
    """Random things done to the hypertable, and what the aggregates have to say afterwards."""

    def __init__(self, connection: psycopg.Connection, edition: str, seed: int) -> None:
        self.connection = connection
        self.edition = edition
        self.random = random.Random(seed)
        self.now = FIRST  # rows in order come after this
        self.dropped_before = FIRST - 400 * DAY
        self.kept: dict[str, dict] = {name: {} for name in ROLLUPS}  # buckets over dropped rows
        self.log: list[str] = []

    def run(self, steps: int) -> None:
        actions = [
            (self.insert_in_order, 6), (self.insert_late, 4), (self.update, 4), (self.score, 2), (self.delete, 3),
            (self.move, 1), (self.refresh, 4), (self.refresh_window, 1), (self.drop, 1), (self.truncate, 0.2),
            (self.roll_back, 1),
        ]
        if self.edition == "community":
            actions.append((self.compress, 3))
        for _ in range(steps):
            self.connection.execute("SELECT set_config('timezone', %s, false)", (self.random.choice(ZONES),))
            action = self.random.choices([a for a, _ in actions], [w for _, w in actions])[0]
            self.log.append(action.__name__)
            action()
            self.check(exact=action in (self.refresh, self.drop))

    def check(self, *, exact: bool) -> None:
        self.connection.execute("SET timezone = 'UTC'")
        for name in ROLLUPS:
            got = self.rows(name)
            context = f"{name} after {self.log}"
            if self.edition == "apache" or exact:
                assert got == self.expected(name), context
            else:
                # What is not materialised is live: coarser buckets as live as the finer ones they are made of.
                watermark, live = self.live(name)
                assert {k: v for k, v in got.items() if k[2] >= watermark} == live, context

    def expected(self, name: str) -> dict:
        return {**self.rows(f"_tidemark.{name}_direct"), **self.kept[name]}

    def rows(self, relation: str) -> dict:
        return {row[:3]: row[3:] for row in self.connection.execute(
            f"SELECT venue, kind, bucket, price, size, samples FROM {relation}"
        )}

    def live(self, name: str) -> tuple[datetime.datetime, dict]:
        """Community: the watermark, and the buckets from there on computed from the raw rows or the finer aggregate."""
        watermark, query = self.connection.execute("""
            SELECT greatest(r.watermark, '2000-01-01 00:00+00'),
                   _tidemark.rollup_query(r.name, r.parent, format('{time} >= %%L', r.watermark))
              FROM _tidemark.rollups AS r WHERE r.name = %s""", (name,)).fetchone()
        return watermark, self.rows(f"({query}) AS live")

    # What may happen

    def times(self, first: datetime.datetime, last: datetime.datetime, count: int) -> list[datetime.datetime]:
        minutes = max(int((last - first).total_seconds() // 60), 1)
        return [first + datetime.timedelta(minutes=self.random.randrange(minutes)) for _ in range(count)]

    def insert(self, times: list[datetime.datetime]) -> None:
        rows = [(self.random.choice(SERIES), self.random.choice(["1m", "5m"]), ts,
                 self.random.choice([None, *range(-1, 9)]), self.random.randrange(10)) for ts in times]
        for at in range(0, len(rows), self.random.choice([1, 7, 1000])) or [0]:
            with self.connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO prints (venue, kind, ts, price, size) SELECT DISTINCT ON (1, 2, 3) * FROM unnest("
                    "%s::text[], %s::candle_interval[], %s::timestamptz[], %s::float8[], %s::float8[])"
                    " ON CONFLICT (venue, kind, ts) DO UPDATE SET price = excluded.price",
                    [list(column) for column in zip(*rows[at:at + 40], strict=True)],
                )

    def insert_in_order(self) -> None:
        until = self.now + datetime.timedelta(hours=self.random.choice([1, 10, 40]))
        self.insert(self.times(self.now, until, self.random.choice([1, 10, 60])))
        self.now = until

    def insert_late(self) -> None:
        self.insert(self.times(max(FIRST, self.dropped_before) - DAY, self.now, self.random.choice([1, 5, 20])))

    def somewhere(self) -> tuple:
        start = self.times(FIRST, self.now, 1)[0]
        return self.random.choice(SERIES), start, start + self.random.choice([DAY / 24, DAY, 3 * DAY])

    def update(self) -> None:
        self.connection.execute(
            "UPDATE prints SET price = 3 - price, size = size + 1 WHERE venue = %s AND ts >= %s AND ts < %s",
            self.somewhere(),
        )

    def score(self) -> None:
        before = self.connection.execute("SELECT count(*) FROM _tidemark.rollup_changes").fetchone()
        self.connection.execute(
            "UPDATE prints SET quality_score = 50 WHERE venue = %s AND ts >= %s AND ts < %s", self.somewhere()
        )
        assert before == self.connection.execute("SELECT count(*) FROM _tidemark.rollup_changes").fetchone()

    def move(self) -> None:
        """Another key: both series change."""
        venue, start, end = self.somewhere()
        self.connection.execute(
            "UPDATE prints AS t SET venue = 'c' WHERE venue = %s AND ts >= %s AND ts < %s AND NOT EXISTS"
            " (SELECT FROM prints AS o WHERE o.venue = 'c' AND o.kind = t.kind AND o.ts = t.ts)",
            (venue, start, end),
        )

    def delete(self) -> None:
        self.connection.execute("DELETE FROM prints WHERE venue = %s AND ts >= %s AND ts < %s", self.somewhere())

    def truncate(self) -> None:
        self.connection.execute("TRUNCATE prints")

    def roll_back(self) -> None:
        with self.connection.transaction(force_rollback=True):
            self.insert_late()
            with self.connection.transaction(force_rollback=True):
                self.update()
            self.delete()

    def compress(self) -> None:
        chunks = self.connection.execute("SELECT show_chunks('prints')").fetchall()
        for (chunk,) in self.random.sample(chunks, min(2, len(chunks))):
            self.connection.execute("SELECT compress_chunk(%s)", (chunk,))

    def refresh(self) -> None:
        self.connection.execute("CALL refresh_aggregates()")

    def refresh_window(self) -> None:
        _, start, end = self.somewhere()
        self.connection.execute("CALL refresh_aggregates(%s::timestamptz, %s::timestamptz)", (start, end))

    def drop(self) -> None:
        """The user's own drop_chunks where every aggregate has done with the rows; buckets that reach in are frozen."""
        self.refresh()
        chunk = self.connection.execute("""
            SELECT range_end FROM timescaledb_information.chunks
             WHERE hypertable_name = 'prints' AND range_end <= (SELECT min(watermark) FROM _tidemark.rollups
                                                                WHERE hypertable = 'prints'::regclass)
             ORDER BY range_start LIMIT 1""").fetchone()
        if chunk is None:
            return
        for name in ROLLUPS:
            self.kept[name] |= {k: v for k, v in self.rows(name).items() if k[2] < chunk[0]}
        self.connection.execute("SELECT drop_chunks('prints', older_than => %s::timestamptz)", chunk)
        self.dropped_before = max(self.dropped_before, chunk[0])
        self.refresh()  # which is when it is noticed


@pytest.mark.parametrize("seed", range(3))
def test_aggregates_say_what_direct_aggregation_says(db, edition, seed):
    # TimescaleDB 2.19 does not plan a prepared statement anew when a compressed chunk gets uncompressed rows.
    with db.connect(prepare_threshold=None) as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0")  # starting workers takes longer than the work
        add_prints(connection, edition)
        History(connection, edition, seed).run(40)
