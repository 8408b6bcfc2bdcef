"""Scores, flags and episodes do not know how rows came: single, in batches, late, corrected, twice, or with the server
killed, restored into another database, or given up for a standby in between. TIDEMARK_FAULTS=20 tries twenty seeds."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from faults.harness import EFFORT, clone, connect, durable, kill, standby_of
from quality_support import MINUTE, START, copy, everything, insert, walk

from tidemark import backup
from tidemark.server import Server

SERIES, LENGTH = 10, 500
UPDATE = ("ON CONFLICT (source_id, timestamp) DO UPDATE SET open = EXCLUDED.open, high = EXCLUDED.high,"
          " low = EXCLUDED.low, close = EXCLUDED.close, volume = EXCLUDED.volume")
Row = tuple


class Desk:
    """A database and the server that it lives in at the time."""

    def __init__(self, server: Server, name: str, directory: Path) -> None:
        self.primary, self.server, self.name, self.directory = server, server, name, directory
        self.connection = connect(server, name)

    def crash(self) -> None:
        self.connection.close()
        kill(self.server)
        self.server.start()
        self.connection = connect(self.server, self.name)

    def restore(self) -> None:
        self.connection.close()
        kept = self.directory / f"backup of {self.name}"
        backup.backup(self.server.url(self.name), kept)
        self.name += "_restored"
        with connect(self.server, "postgres") as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {self.name}")
            connection.execute(f"CREATE DATABASE {self.name} TEMPLATE template0")
        backup.restore(self.server.url(self.name), kept)
        self.connection = connect(self.server, self.name)

    def promote(self) -> None:
        """Go on with a standby; the old server stays where it is, for the next seed."""
        standby = standby_of(self.server, self.directory / "standby", self.server.settings, "-U", "postgres",
                             "-X", "stream", "-R")
        self.connection.close()
        standby.start()
        self.server = standby
        self.connection = connect(standby, self.name)
        assert self.connection.execute("SELECT pg_promote()").fetchone() == (True,)

    def close(self) -> None:
        self.connection.close()
        if self.server is not self.primary:
            self.server.stop("immediate")


def _rows(generator: random.Random) -> list[Row]:
    """Bars of some series, a few of them wrong, in order of time."""
    rows = []
    for source_id in range(1, SERIES + 1):
        for i, price in enumerate(walk(LENGTH, generator.randrange(10**6))):
            odd = generator.choice([10, 0.1, 1.05, 1.02]) if generator.random() < 0.01 else 1
            close = price * odd
            high = max(price, close) * (1 + generator.random() / 2000)
            low = min(price, close) * (1 - generator.random() / 2000)
            row = (source_id, START + i * MINUTE, price, high, low, close, generator.randint(0, 5000))
            rows.append(tuple(None if n > 1 and generator.random() < 0.002 else v for n, v in enumerate(row)))
    return sorted(rows, key=lambda row: (row[1], row[0]))


def _wrong(row: Row) -> Row:
    return (*row[:2], *(None if v is None else v * 1.3 for v in row[2:6]), row[6])


def _one_by_one(connection: psycopg.Connection, rows: list[Row]) -> None:
    for row in rows:
        insert(connection, [row])


def _formed(connection: psycopg.Connection, rows: list[Row]) -> None:
    insert(connection, [_wrong(row) for row in rows])
    insert(connection, rows, conflict=UPDATE)


def _corrected(connection: psycopg.Connection, rows: list[Row]) -> None:
    copy(connection, [_wrong(row) for row in rows])
    for row in rows:
        connection.execute("UPDATE timeseries_data SET open = %s, high = %s, low = %s, close = %s"
                           " WHERE source_id = %s AND timestamp = %s", [*row[2:6], *row[:2]])


def _deleted(connection: psycopg.Connection, rows: list[Row]) -> None:
    insert(connection, rows)
    connection.execute("DELETE FROM timeseries_data WHERE (source_id, timestamp) IN"
                       " (SELECT * FROM unnest(%s::integer[], %s::timestamptz[]))",
                       [[row[0] for row in rows], [row[1] for row in rows]])
    insert(connection, rows[::-1])


def _in_one_transaction(connection: psycopg.Connection, rows: list[Row]) -> None:
    with connection.transaction():
        copy(connection, rows[::2])
        if rows[1::2]:
            copy(connection, rows[1::2])


def _given_up(connection: psycopg.Connection, rows: list[Row]) -> None:
    with connection.transaction(force_rollback=True):
        insert(connection, [_wrong(row) for row in rows])
    insert(connection, rows)


def _unscored(connection: psycopg.Connection, rows: list[Row]) -> None:
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        copy(connection, rows)
    connection.execute("SELECT rescore('timeseries_data')")


WAYS: list[Callable[[psycopg.Connection, list[Row]], None]] = [
    insert, insert, copy, copy, _one_by_one, _one_by_one, _formed, _corrected, _deleted, _in_one_transaction,
    _given_up, _unscored,
]


def _deliver(desk: Desk, rows: list[Row], generator: random.Random) -> list[str]:
    """Bring the rows in pieces, each in some way; some come late, and three things happen. Returns what happened."""
    late: list[Row] = []
    places = sorted(generator.sample(range(len(rows)), 3))
    events = generator.sample([desk.crash, desk.restore, desk.promote], 3)
    happened, i = [], 0
    while i < len(rows):
        if places and i >= places[0]:
            places.pop(0)
            event = events.pop()
            event()
            happened.append(event.__name__)
        size = generator.choice([1, 1, 3, 10, 10, 40, 200])
        piece, i = rows[i : i + size], i + size
        if generator.random() < 0.1:
            late += piece
            continue
        generator.choice(WAYS)(desk.connection, piece)
        if late and generator.random() < 0.15:
            generator.shuffle(late)
            generator.choice(WAYS)(desk.connection, late)
            late = []
    for event in events[::-1]:
        event()
        happened.append(event.__name__)
    if late:
        insert(desk.connection, late)
    return happened


@contextmanager
def _desk(server: Server, name: str) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory(prefix="tidemark-") as directory:
        Path(directory).chmod(0o755)  # the server's account comes through here
        desk = Desk(server, clone(server, name), Path(directory))
        try:
            yield desk
        finally:
            desk.close()


def _add_sources(connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO sources (name, data_type, interval)"
                       " SELECT 's' || i, 'ohlcv', '1m' FROM generate_series(1, %s) AS i", [SERIES])


@pytest.fixture(scope="module")
def server(edition: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.config.getoption("--database-url"):
        pytest.skip("needs servers of its own, not one that is given")
    with tempfile.NamedTemporaryFile("w", prefix="tidemark-", suffix=".conf") as access:
        access.write("local all,replication all trust\n")
        access.flush()
        Path(access.name).chmod(0o644)  # the server's account reads it
        with durable(edition, {"hba_file": access.name}) as server:
            yield server


@pytest.mark.parametrize("seed", range(1, EFFORT + 1))
def test_any_mixture_of_arrivals_and_accidents_gives_the_same(
    server: Server, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = random.Random(seed)
    rows = _rows(generator)
    with connect(server, clone(server, "in_order")) as connection:
        _add_sources(connection)
        copy(connection, rows)
        expected = everything(connection)
    with _desk(server, "mixed") as desk:
        _add_sources(desk.connection)
        happened = _deliver(desk, rows, generator)
        assert sorted(happened) == ["crash", "promote", "restore"]
        found = everything(desk.connection)
        differences = {kind: len(set(map(repr, found[kind])) ^ set(map(repr, expected[kind]))) for kind in expected}
        with capsys.disabled():
            print(f"\nseed {seed}: {len(rows):,} rows, {len(expected['anomalies'])} anomalies, "
                  f"{len(expected['issues'])} issues, {', '.join(happened)}: {sum(differences.values())} differences")
        assert differences == dict.fromkeys(expected, 0)
        assert desk.connection.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
        assert everything(desk.connection) == found
