"""What alerts cost the writers of quotes and candles.

A writer sends statements of 1, 100 and 10,000 rows, each a transaction. Compared are the median time that it waits
for a statement and the time that its backend is on a processor meanwhile. The writer does not wait for the disk, which
would hide what alerts cost. The states take many short turns, so that whatever else the machine does hits them alike:

    without     the triggers are dropped
    elsewhere   nobody watches the asset that is written; there are 10,000 alerts on another
    10,000      that other asset is written; a third of its alerts each are above, below and cross, and none is reached
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import psycopg

from tidemark import migrations

STATES = ("without", "elsewhere", "10,000")
PLANS = ((1, 80, 60), (100, 12, 21), (10_000, 2, 6))  # rows in a statement, statements in a turn, turns
ALERTS = 10_000

# Rows of one asset, one a second or a minute, that stay between 99 and 103: many in a statement, or one.
WRITES = {
    "quotes": (
        "INSERT INTO quotes (asset_id, ts, price)"
        " SELECT %(asset)s, timestamptz '2025-06-02' + i * interval '1 second', 100 + sin(i)"
        "   FROM generate_series(%(at)s::bigint + 1, %(at)s::bigint + %(rows)s::integer) AS i",
        "INSERT INTO quotes (asset_id, ts, price)"
        " VALUES (%(asset)s, timestamptz '2025-06-02' + %(at)s::bigint * interval '1 second',"
        " 100 + sin(%(at)s::bigint))",
    ),
    "candles": (
        "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)"
        " SELECT %(asset)s, '1m', timestamptz '2020-06-02' + i * interval '1 minute', 100, 102, 99, 100 + sin(i), 1"
        "   FROM generate_series(%(at)s::bigint + 1, %(at)s::bigint + %(rows)s::integer) AS i",
        "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)"
        " VALUES (%(asset)s, '1m', timestamptz '2020-06-02' + %(at)s::bigint * interval '1 minute', 100, 102, 99,"
        " 100 + sin(%(at)s::bigint), 1)",
    ),
}


class Bench:
    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection, self.position = connection, 0
        self.assets = {state: connection.execute(
            "INSERT INTO assets (symbol, asset_type) VALUES (%s, 'stock') RETURNING asset_id", (state,)
        ).fetchone()[0] for state in STATES}
        connection.execute(
            "WITH users AS (INSERT INTO users (username, email) VALUES ('b', 'b@example.org') RETURNING user_id)"
            " INSERT INTO alerts (user_id, asset_id, condition, target_value)"
            " SELECT user_id, %s, (enum_range(NULL::alert_condition))[1 + i %% 3],"
            "        CASE i %% 3 WHEN 1 THEN 90 - i / 1000.0 ELSE 110 + i / 1000.0 END"
            "   FROM users, generate_series(1, %s) AS i", (self.assets["10,000"], ALERTS)
        )
        connection.execute("VACUUM ANALYZE _tidemark.armed_alerts")
        self.triggers = dict(connection.execute(
            "SELECT format('%I ON %s', tgname, tgrelid::regclass), pg_get_triggerdef(oid) FROM pg_trigger"
            " WHERE tgname ~ '^trg_fire_alerts' AND tgrelid IN ('quotes'::regclass, 'candles'::regclass)"
        ).fetchall())

    def enter(self, state: str) -> None:
        self.state = state
        for name, definition in self.triggers.items():
            self.connection.execute(f"DROP TRIGGER IF EXISTS {name}")
            if state != "without":
                self.connection.execute(definition)

    def on_processor_ns(self) -> int:
        return int(Path(f"/proc/{self.connection.info.backend_pid}/schedstat").read_text().split()[0])

    def turn(self, table: str, rows: int, statements: int) -> tuple[float, float]:
        """Microseconds that a statement took, and those on a processor."""
        waits, begun = [], 0
        for number in range(-15 if rows == 1 else -1, statements):  # the first ones make their plans
            if number == 0:
                begun = self.on_processor_ns()
            values = {"asset": self.assets[self.state], "at": self.position}
            sent = time.perf_counter_ns()
            if rows == 1:
                self.connection.execute(WRITES[table][1], values, prepare=True)
            else:
                self.connection.execute(WRITES[table][0], values | {"rows": rows}, prepare=True)
            if number >= 0:
                waits.append(time.perf_counter_ns() - sent)
            self.position += rows
        return statistics.median(waits) / 1000, (self.on_processor_ns() - begun) / statements / 1000


def run(url: str) -> None:
    """Measure in an empty database and print."""
    with psycopg.connect(url, autocommit=True) as connection:
        migrations.migrate(connection)
        connection.execute("SET synchronous_commit = off")
        bench = Bench(connection)
        heads = [f"{measure} {state}" for measure in ("waiting", "processor") for state in STATES[1:]]
        heading = "".join(f"{head:>21}" for head in heads)
        print(f"{'alerts':8} {'rows':>6} {'without':>12}{heading}   (at most 1.10)")
        for table in WRITES:
            for rows, statements, turns in PLANS:
                spent: dict[str, list[tuple[float, float]]] = {state: [] for state in STATES}
                for turn in range(turns):
                    for state in STATES[turn % 3:] + STATES[:turn % 3]:
                        bench.enter(state)
                        spent[state].append(bench.turn(table, rows, statements))
                ratios = [
                    statistics.median(a[measure] / b[measure]
                                      for a, b in zip(spent[state], spent["without"], strict=True))
                    for measure in (0, 1) for state in STATES[1:]
                ]
                waited = statistics.median(wait for wait, _ in spent["without"])
                print(f"{table:8} {rows:6} {waited:9.0f} us{''.join(f'{ratio:21.2f}' for ratio in ratios)}", flush=True)
