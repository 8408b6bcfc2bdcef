"""What the fault tests have in common: servers to be killed, work that is acknowledged batch by batch, and the count.

A server here is as durable as in production. Killing processes proves what PostgreSQL has handed to the kernel, not
what the kernel has handed to the disk: for that the machine itself would have to lose its power.

TIDEMARK_FAULTS=n tries n times as many instants as a run of the whole suite has time for.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tidemark import migrations
from tidemark.installation import find_installation
from tidemark.server import Server, throwaway

EFFORT = int(os.environ.get("TIDEMARK_FAULTS", "1"))
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "32MB",
           "max_connections": "40", "log_min_messages": "warning", "recovery_init_sync_method": "syncfs",
           "max_wal_size": "256MB"}
IN_MEMORY = Path("/dev/shm")  # noqa: S108
TEMPLATE = "migrated"
COUNTS: list[str] = []  # told at the end of the run

BATCH_ROWS = 120
SERIES = 3
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def tell(line: str) -> None:
    """Have it printed at the end of the run."""
    COUNTS.append(line)


def chooser(seed: str) -> random.Random:
    """Random instants that are the same in every run."""
    return random.Random(seed)


@contextmanager
def durable(edition: str, settings: dict[str, str] | None = None) -> Iterator[Server]:
    """A throw-away server that keeps what it acknowledges, with a migrated database to clone."""
    with _fast_place(), throwaway(find_installation(edition), edition, DURABLE | (settings or {})) as server:
        with connect(server, "postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        with connect(server, TEMPLATE) as connection:
            migrations.migrate(connection)
        yield server


@contextmanager
def _fast_place() -> Iterator[None]:
    """In memory where there is enough: a killed process is none of the disk's business, and it is ten times faster."""
    with pytest.MonkeyPatch.context() as patch:
        if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > 3 * 2**30:
            patch.setattr(tempfile, "tempdir", str(IN_MEMORY))
        yield


def clone(server: Server, name: str, template: str = TEMPLATE) -> str:
    """Name of a new database; one of that name from an earlier test goes away."""
    with connect(server, "postgres") as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template)))
        # Until the next checkpoint a crash sets the sequences of a clone back, over numbers that were given out.
        connection.execute("CHECKPOINT")
    return name


def connect(server: Server, name: str) -> psycopg.Connection:
    """To a database of the server, where it listens now: another may have taken its port while it was down."""
    return psycopg.connect(server.url(name), autocommit=True)


def standby_of(primary: Server, directory: Path, settings: dict[str, str], *options: str) -> Server:
    """A copy of the primary in the directory, made by pg_basebackup with the options; it is not started."""
    standby = Server(directory, primary.installation, primary.edition, settings, primary.port + 1)
    for path in (standby.data, standby.socket_dir):
        path.mkdir(parents=True, mode=0o700)
        shutil.chown(path, primary.data.owner(), primary.data.group())
    done = standby._run("pg_basebackup", "-h", primary.socket_dir, "-p", primary.port, "-D", standby.data,
                        "--checkpoint=fast", "--no-sync", *options)
    assert done.returncode == 0, done.stderr
    configuration = standby.data / "postgresql.conf"  # which includes the primary's own
    configuration.write_text(configuration.read_text().replace(str(primary.directory), str(standby.directory)))
    return standby


# Killing --------------------------------------------------------------------------------------------------------


def postmaster(server: Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def kill(server: Server, *, everything: bool = True) -> None:
    """SIGKILL the postmaster, and its children at once or as they notice; returns when all are gone."""
    parent = postmaster(server)
    children = _children(parent)
    for process in [parent, *(children if everything else [])]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    wait_for(lambda: not any(Path("/proc", str(process), "exe").exists() or _running(process)
                             for process in [parent, *children]), "the server's processes end")


def _running(process: int) -> bool:
    try:
        return Path("/proc", str(process), "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)
    return value


def fork(work: Callable[[], int | None]) -> int:
    """Do the work in a child process; returns its number. It exits with what the work returns, 255 where it raised."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            code = work() or 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return child


def outcome(child: int) -> int:
    """Exit code of a child, -9 where it was killed."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@contextmanager
def struck(at: int | None, strike: Callable[[], object]) -> Iterator[list[int]]:
    """Have `strike` called before step number `at` of whatever psycopg is asked to do; yields the steps so far.

    A step is a statement, or a piece of a COPY.
    """
    steps = [0]

    def stepping(method: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            steps[0] += 1
            if steps[0] - 1 == at:
                strike()
            return method(*arguments, **more)
        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", stepping(psycopg.Cursor.execute))
        patch.setattr(psycopg.Copy, "write", stepping(psycopg.Copy.write))
        yield steps


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# Work that is acknowledged --------------------------------------------------------------------------------------


def prepare(connection: psycopg.Connection) -> None:
    """The sources that the batches below belong to."""
    for number in range(1, SERIES + 1):
        connection.execute("INSERT INTO sources (source_id, name, data_type, interval) VALUES (%s, %s, 'ohlcv', '1m')",
                           (number, f"series {number}"))


def rows(batch: int) -> list[tuple]:
    """The rows of a batch: a quiet series of bars with one that stands out."""
    source, nth = batch % SERIES + 1, batch // SERIES
    found = []
    for i in range(BATCH_ROWS):
        n = nth * BATCH_ROWS + i
        close = 100 + 0.05 * ((n * 7919) % 13 - 6)
        if i == 77 and nth % 2:
            close *= 1.2
        found.append((source, EPOCH + timedelta(minutes=n), close, close + 0.1, close - 0.1, close, 1000 + n % 17))
    return found


def write(connection: psycopg.Connection, batch: int, pause: Callable[[], None] = lambda: None) -> None:
    """Store a batch with its entry in the ledger and a change that the audit records, in one transaction."""
    source = batch % SERIES + 1
    with connection.transaction():
        connection.execute(
            "INSERT INTO ingestion_tasks (kind, source_ref, digest, status, rows_written, started_at, finished_at)"
            " VALUES ('feed', %s, %s, 'succeeded', %s, now(), now())",
            (f"batch {batch}", hashlib.sha256(str(batch).encode()).digest(), BATCH_ROWS),
        )
        connection.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
        with connection.cursor().copy(
            "COPY timeseries_data (source_id, timestamp, open, high, low, close, volume) FROM STDIN"
        ) as copy:
            for row in rows(batch):
                copy.write_row(row)
                pause()
        connection.execute("UPDATE sources SET config = jsonb_build_object('batch', %s::integer) WHERE source_id = %s",
                           (batch, source))


def ledger(connection: psycopg.Connection) -> set[int]:
    """The batches that the database says it has."""
    return {int(ref.split()[1]) for ref, in connection.execute(
        "SELECT source_ref FROM ingestion_tasks WHERE status = 'succeeded' AND source_ref ~ '^batch '")}


def partial(connection: psycopg.Connection) -> list[int]:
    """Batches of which there are some rows, but not all, or rows without an entry in the ledger."""
    there = {}
    for source, nth, count in connection.execute(
        "SELECT source_id, (extract(epoch FROM timestamp - %s) / 60)::bigint / %s, count(*)"
        "  FROM timeseries_data GROUP BY 1, 2", (EPOCH, BATCH_ROWS)
    ):
        there[int(nth) * SERIES + source - 1] = count
    known = ledger(connection)
    return sorted(batch for batch in there.keys() | known
                  if there.get(batch, 0) != (BATCH_ROWS if batch in known else 0))


# What two databases must have in common, though one was interrupted: all but numbers and clocks.
CONTENT = {
    "rows": "SELECT to_jsonb(t) - 'ingested_at' FROM timeseries_data AS t",
    "anomalies": "SELECT to_jsonb(a) - '{anomaly_id,episode_id,created_at}'::text[] FROM anomalies AS a",
    "issues": "SELECT to_jsonb(i) - '{issue_id,created_at}'::text[] FROM quality_issues AS i",
    "record": "SELECT jsonb_build_array(l.table_name, l.operation, l.row_key, l.changed_fields,"
              "                         l.new_values -> 'config') FROM audit_log AS l"
              " WHERE l.table_name ~ 'sources$'",
    "transactions": "SELECT to_jsonb(l.tx_id IS NULL) FROM audit_log AS l LEFT JOIN audit_tx AS x USING (tx_id)"
                    " WHERE x.tx_id IS NULL",
}


def content(connection: psycopg.Connection) -> dict[str, tuple[int, str]]:
    """(rows, checksum) of what matters, whatever the order."""
    return {name: connection.execute(sql.SQL(
        "SELECT count(*), coalesce(sum(hashtextextended(q.j::text, 0)::numeric), 0)::text FROM ({}) AS q (j)"
    ).format(sql.SQL(query))).fetchone() for name, query in CONTENT.items()}
