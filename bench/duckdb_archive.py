"""The same daily question asked of DuckDB over the Parquet archive and of daily_ohlcv."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import psycopg

QUESTION = Path(__file__).parents[1] / "docs" / "daily_ohlcv.archive.sql"


@dataclass(frozen=True)
class Comparison:
    """Medians in seconds; both answers have `days` rows and are the same."""

    days: int
    daily_ohlcv: float
    duckdb: float
    files: int
    rows: int
    bytes: int


def compare(
    connection: psycopg.Connection, archive: Path, source_id: int, start: datetime, end: datetime, runs: int = 7
) -> Comparison:
    """Ask both for one source's days from `start` until before `end`, midnights in UTC whose rows are archived.

    Both are asked once before the clock runs, so that neither reads from disk what the other has in memory. Raises
    AssertionError where the answers differ.
    """
    import duckdb

    files = archive / "hypertable=timeseries_data"
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.execute(
            "CREATE VIEW timeseries_data AS"
            f" FROM read_parquet('{files}/*/*.parquet', union_by_name = true)"
            f" WHERE source_id = {int(source_id)}"
            f" AND timestamp >= TIMESTAMPTZ '{start.isoformat()}' AND timestamp < TIMESTAMPTZ '{end.isoformat()}'"
        )
        question = QUESTION.read_text()
        there = _timed(lambda: engine.execute(question).fetchall(), runs)
        (rows,) = engine.execute("SELECT count(*) FROM timeseries_data").fetchone()
    here = _timed(lambda: connection.execute(
        "SELECT source_id, (day AT TIME ZONE 'UTC')::date, open, high, low, close, volume, samples"
        " FROM public.daily_ohlcv WHERE source_id = %s AND day >= %s AND day < %s ORDER BY day",
        (source_id, start, end),
    ).fetchall(), runs)
    assert _rounded(here[1]) == _rounded(there[1]), "daily_ohlcv and the archive disagree"
    parts = list(files.rglob("*.parquet"))
    return Comparison(
        len(here[1]), here[0], there[0], len(parts), rows, sum(part.stat().st_size for part in parts)
    )


def _timed(ask: Callable[[], list[tuple]], runs: int) -> tuple[float, list[tuple]]:
    answer, seconds = ask(), []
    for _ in range(runs):
        begun = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - begun)
    return median(seconds), answer


def _rounded(rows: list[tuple]) -> list[tuple]:
    """Sums of volumes depend on the order of their terms."""
    return [(*row[:6], row[6] and float(f"{row[6]:.9g}"), row[7]) for row in rows]
