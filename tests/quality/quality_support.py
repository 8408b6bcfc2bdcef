"""Rows to score, and everything that scoring left behind, in a form that can be compared."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
_serial = itertools.count(1)


def dice(seed: int) -> random.Random:
    """A generator whose every draw is the same in every run."""
    return random.Random(seed)


def walk(length: int, seed: int, *, start: float = 100, sigma: float = 0.001, heavy: float = 0.02) -> list[float]:
    """Prices whose logarithm wanders, with a share of heavy steps, as real ones have."""
    generator = dice(seed)
    price, prices = start, []
    for _ in range(length):
        price *= math.exp(generator.gauss(0, sigma * (4 if generator.random() < heavy else 1)))
        prices.append(price)
    return prices


def bars(
    source_id: int, prices: Iterable[float | None], *, at: datetime = START, step: timedelta = MINUTE
) -> list[tuple[Any, ...]]:
    """Rows of timeseries_data without fault but for what the prices are."""
    return [
        (source_id, at + i * step, p, None if p is None else p, None if p is None else p, p, 1000.0)
        for i, p in enumerate(prices)
    ]


COLUMNS = "source_id, timestamp, open, high, low, close, volume"


def copy(
    connection: psycopg.Connection,
    rows: Sequence[tuple[Any, ...]],
    table: str = "timeseries_data",
    columns: str = COLUMNS,
) -> None:
    """Store rows in one statement."""
    with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as stream:
        for row in rows:
            stream.write_row(row)


def insert(
    connection: psycopg.Connection,
    rows: Sequence[tuple[Any, ...]],
    table: str = "timeseries_data",
    columns: str = COLUMNS,
    conflict: str = "",
) -> None:
    """Store rows in one INSERT."""
    values = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
    connection.execute(
        f"INSERT INTO {table} ({columns}) VALUES {', '.join([values] * len(rows))} {conflict}",
        [value for row in rows for value in row],
    )


def scores(connection: psycopg.Connection, source_id: int) -> list[int | None]:
    return [
        score
        for (score,) in connection.execute(
            "SELECT quality_score FROM timeseries_data WHERE source_id = %s ORDER BY timestamp", [source_id]
        )
    ]


def score(connection: psycopg.Connection, source_id: int, at: datetime) -> int | None:
    return connection.execute(
        "SELECT quality_score FROM timeseries_data WHERE source_id = %s AND timestamp = %s", [source_id, at]
    ).fetchone()[0]


def penalties(connection: psycopg.Connection, source_id: int, at: datetime) -> list[tuple[str, int, str | None]]:
    """Penalty, points and rule of a row."""
    return connection.execute(
        "SELECT q.penalty::text, q.points, r.name FROM quality_issues AS q LEFT JOIN validation_rules AS r"
        " USING (rule_id)"
        " WHERE q.table_name = 'timeseries_data' AND q.series = jsonb_build_object('source_id', %s::int) AND q.ts = %s"
        " ORDER BY q.penalty, r.name",
        [source_id, at],
    ).fetchall()


def anomalies(connection: psycopg.Connection, source_id: int) -> dict[datetime, tuple[str, str, float]]:
    """Severity, kind and z-score by time."""
    return {
        at: rest
        for at, *rest in connection.execute(
            "SELECT timestamp, severity::text, kind::text, z_score FROM anomalies WHERE source_id = %s ORDER BY 1",
            [source_id],
        )
    }


def everything(
    connection: psycopg.Connection,
    table: str = "timeseries_data",
    time: str = "timestamp",
    keys: str = "'source_id', d.source_id",
) -> dict[str, list[tuple[Any, ...]]]:
    """All that scoring leaves behind on a table, without the numbers that identities gave out."""
    return {
        "scores": connection.execute(
            f"SELECT jsonb_build_object({keys})::text, d.{time}, d.quality_score, d.is_anomaly FROM {table} AS d"
            " ORDER BY 1, 2"
        ).fetchall(),
        "issues": connection.execute(
            "SELECT series::text, ts, penalty, points, rule_id, detail FROM quality_issues WHERE table_name ="
            " %s ORDER BY 1, 2, 3, 5",
            [table],
        ).fetchall(),
        "anomalies": connection.execute(
            "SELECT a.series::text, a.timestamp, a.severity, a.z_score, a.value, a.observed, a.expected, a.deviation,"
            " a.scale, a.samples, a.kind, a.field, a.is_doubtful, a.status, e.timestamp FROM anomalies AS a"
            " LEFT JOIN anomalies AS e ON e.anomaly_id = a.episode_id WHERE a.table_name = %s ORDER BY 1, 2",
            [table],
        ).fetchall(),
    }


def pieces(rows: Sequence[Any], generator: random.Random, largest: int) -> Iterator[Sequence[Any]]:
    """The rows in their order, cut at random."""
    i = 0
    while i < len(rows):
        size = generator.randint(1, largest)
        yield rows[i : i + size]
        i += size


def configure(connection: psycopg.Connection, table: str, **columns: Any) -> int:
    """Insert a profile or a rule, with the reason that the record demands, and return its number."""
    connection.execute("SELECT set_config('tidemark.reason', 'a test', false)")
    columns = {"name": f"made for a test {next(_serial)}", **columns}
    statement = psycopg.sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
        psycopg.sql.Identifier(table),
        psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns)),
        psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(columns)),
    )
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    return connection.execute(statement, values).fetchone()[0]
