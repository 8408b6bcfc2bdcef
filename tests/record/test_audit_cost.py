"""What the record may cost where many rows come at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psycopg
import pytest

ROWS, TURNS = 100_000, 3
# The price of a bar may hardly change, as its arrival is not recorded. A row of a plain table is written twice, and the
# second one holds all of it as JSON and a hash of that.
BUDGETS = {
    "candles": (
        1.3, "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)"
             " SELECT asset_id, '1m', timestamptz '2024-01-01' + n * interval '1 minute', 10, 11, 9, 10, n"
             "   FROM assets, generate_series(1, %s) AS n"),
    "forecasts": (
        3.5, "INSERT INTO forecasts (source_id, target_ts, predicted, made_at)"
              " SELECT source_id, timestamptz '2100-01-01' + n * interval '1 minute', n, '2024-01-01'"
              "   FROM sources, generate_series(1, %s) AS n"),
}


def clock(connection: psycopg.Connection) -> Callable[[], float]:
    """The seconds that the server's process has worked, which other work on the machine does not touch; else those on
    the wall, where the process is on another machine."""
    stat = Path(f"/proc/{connection.info.backend_pid}/stat")
    if not stat.exists():
        return time.monotonic
    return lambda: sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13])) / 100


@pytest.mark.parametrize("table", BUDGETS)
def test_record_keeps_within_its_budget_when_many_rows_come(db, capsys, edition, table):
    budget, statement = BUDGETS[table]
    with db.connect() as connection:
        connection.execute("INSERT INTO assets (symbol, asset_type) VALUES ('A', 'stock')")
        connection.execute("INSERT INTO sources (name, data_type) VALUES ('S', 'ohlcv')")
        connection.execute("SET tidemark.ingest_mode = 'backfill'")
        now = clock(connection)
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for _turn in range(TURNS):
            for is_audited in (True, False):
                with connection.transaction(force_rollback=True):
                    if not is_audited:
                        connection.execute("SELECT detach_audit(%s::regclass)", [table])
                    begun = now()
                    connection.execute(statement, [ROWS])
                    seconds[is_audited].append(now() - begun)
        ratio = median(seconds[True]) / median(seconds[False])
    with capsys.disabled():
        print(f"\n12 {edition}: {ROWS:,} rows into {table}, on the record / not: {ratio:.2f}, budget {budget}")
    assert ratio <= budget
