"""`tidemark move` against `pg_dump | pg_restore`: the same database into a second server of the same version."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Callable

from tidemark import backup, migrations, move
from tidemark.database import connect
from tidemark.server import Server

SERIES = 10
FILL = """
    INSERT INTO assets (symbol, asset_type) SELECT 'B' || i, 'stock' FROM generate_series(1, %(series)s) AS i;
"""
BARS = """
    INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)
    SELECT a.asset_id, '1m', timestamptz '2022-01-01 00:00+00' + i * interval '1 minute', 100 + sin(i), 101 + sin(i),
           99 + sin(i), 100 + cos(i), i %% 1000
      FROM assets AS a, generate_series(%(from)s::integer, %(to)s::integer) AS i
"""


def run(source: Server, target: Server, rows: int) -> None:
    """Print rows per second of both, their ratio, and processor time of the servers and of us."""
    source.create_database("bench_move")
    origin = source.url("bench_move")
    with connect(origin) as connection:
        migrations.migrate(connection)
        connection.execute(FILL.replace("%(series)s", str(SERIES)))
        minutes, step = rows // SERIES, 200_000
        for start in range(0, minutes, step):
            connection.execute(BARS, {"from": start, "to": min(start + step, minutes) - 1})
        connection.execute("CALL refresh_aggregates()")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        with connect(target.url("postgres")) as empty:  # a dump of a database holds no roles
            backup.copy_roles(connection, empty, lambda line: None)
    figures = {}
    for name, how in (("pg_dump | pg_restore", _dump_and_restore), ("tidemark move", move.move)):
        database = f"bench_{how.__name__.strip('_')}"
        target.create_database(database)
        figures[name] = _measured(lambda how=how, database=database: how(origin, target.url(database)), source, target)
        with connect(target.url(database)) as connection:
            arrived = connection.execute("SELECT count(*) FROM candles").fetchone()[0]
        assert arrived == minutes * SERIES
        wall, cpu = figures[name]
        print(f"{name:<22} {wall:7.1f} s  {rows / wall:9,.0f} rows/s  {cpu:7.1f} s of processor", flush=True)
        with connect(target.url("postgres")) as connection:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
    (dump_wall, dump_cpu), (move_wall, move_cpu) = figures.values()
    print(f"rate of move / pg_dump | pg_restore: {dump_wall / move_wall:.2f} by the clock, "
          f"{dump_cpu / move_cpu:.2f} by processor time (0.5)")
    print(f"memory of move: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at most")


def _dump_and_restore(origin: str, target: str) -> None:
    """As TimescaleDB's manual has it: one job, between pre_restore and post_restore."""
    with connect(target) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public")
    with connect(target) as connection:
        connection.execute("SELECT public.timescaledb_pre_restore()")
        major = connection.info.server_version // 10000
    programs = [backup._program(name, major) for name in ("pg_dump", "pg_restore")]
    with subprocess.Popen([programs[0], "--format=custom", "--compress=0", "--dbname", origin],
                          stdout=subprocess.PIPE) as dump:
        done = subprocess.run([programs[1], "--dbname", target], stdin=dump.stdout, capture_output=True)
    assert dump.returncode == 0 and b"error" not in done.stderr, done.stderr[-500:]
    with connect(target) as connection:
        connection.execute("SELECT public.timescaledb_post_restore()")
        connection.execute("ANALYZE")


def _measured(work: Callable[[], object], *servers: Server) -> tuple[float, float]:
    """Seconds by the clock, and of processor: ours, our programs', and the servers'."""
    before, began = _processor(*servers), time.monotonic()
    work()
    wall = time.monotonic() - began
    return wall, _processor(*servers) - before


def _processor(*servers: Server) -> float:
    """Of us, of children that ended, and of each server's process with all its children that ended."""
    for server in servers:
        with connect(server.url("postgres")) as connection:
            while connection.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                                     " AND pid <> pg_backend_pid()").fetchone()[0]:
                time.sleep(0.05)  # a backend's time is known when it has ended
    time.sleep(0.2)
    tick = os.sysconf("SC_CLK_TCK")
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    for server in servers:
        pid = (server.data / "postmaster.pid").read_text().split()[0]
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()  # noqa: PTH123, SIM115
        total += sum(map(int, fields[11:15])) / tick
    return total
