"""Loading while the loader, its connection, the disk or the connections run out: the same command completes it."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from faults.harness import (
    EFFORT,
    EPOCH,
    chooser,
    clone,
    connect,
    die,
    durable,
    fork,
    ledger,
    outcome,
    partial,
    prepare,
    struck,
    tell,
    wait_for,
    write,
)
from tidemark.errors import Problem
from tidemark.loader import Summary, load
from tidemark.server import Server

ROWS = 450
INSTANTS = 10 * EFFORT


def bars(path: Path, rows: int = ROWS) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["timestamp", "open", "high", "low", "close", "volume"])
        for n in range(rows):
            close = (100 + 0.05 * ((n * 7919) % 13 - 6)) * (1.2 if n % 200 == 155 else 1)
            table.writerow([(EPOCH + timedelta(minutes=n)).isoformat(), close, close + 0.1, close - 0.1, close, n])
        table.writerow(["no time at all", 1, 1, 1, 1, 1])
    return path


def load_bars(server: Server, name: str, file: Path, source: str) -> Summary:
    with connect(server, name) as connection:
        (summary,) = load(connection, [file], table="timeseries_data", source=source, mode="backfill", batch_rows=100)
    return summary


def loaded(connection: psycopg.Connection, source: str) -> dict[str, object]:
    """All that a load leaves behind, but for numbers and clocks."""
    one = connection.execute("SELECT source_id FROM sources WHERE name = %s", (source,)).fetchone()
    queries = {
        "rows": "SELECT to_jsonb(t) - '{source_id,ingested_at}'::text[] FROM timeseries_data AS t"
                " WHERE source_id = %(id)s",
        "anomalies": "SELECT to_jsonb(a) - '{anomaly_id,episode_id,source_id,series,created_at}'::text[]"
                     "  FROM anomalies AS a WHERE source_id = %(id)s",
        "issues": "SELECT to_jsonb(i) - '{issue_id,series,created_at}'::text[] FROM quality_issues AS i"
                  " WHERE series = jsonb_build_object('source_id', %(id)s::integer)",
        "rejects": "SELECT jsonb_build_array(r.line_no, r.raw, r.error) FROM ingestion_rejects AS r"
                   "  JOIN ingestion_tasks AS t USING (task_id) WHERE t.task_id = %(task)s",
        "task": "SELECT jsonb_build_array(status, rows_read, rows_rejected, error) FROM ingestion_tasks"
                " WHERE task_id = %(task)s",
    }
    task = connection.execute("SELECT max(task_id) FROM ingestion_tasks").fetchone()[0]
    return {what: sorted(str(row) for row in connection.execute(query, {"id": one[0], "task": task}).fetchall())
            for what, query in queries.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bars(tmp_path_factory.mktemp("bars") / "bars.csv")


@pytest.fixture(scope="module")
def expected(victim: Server, file: Path) -> tuple[dict[str, object], int]:
    """What an uninterrupted load leaves behind, and in how many steps."""
    clone(victim, "loading")
    load_bars(victim, "loading", file, "warm up")
    with struck(None, die) as steps:
        load_bars(victim, "loading", file, "uninterrupted")
    with connect(victim, "loading") as connection:
        found = loaded(connection, "uninterrupted")
    assert (len(found["rows"]), len(found["rejects"])) == (ROWS, 1)
    assert found["anomalies"]
    return found, steps[0]


def test_23_killed_loader_is_completed_by_the_same_command(victim, edition, file, expected):
    whole, steps = expected
    instants = sorted(chooser(f"23 client {edition}").sample(range(steps), min(steps, INSTANTS)))
    for at in instants:
        def attempt(at: int = at) -> None:
            with struck(at, die):
                load_bars(victim, "loading", file, f"killed at {at}")
        assert outcome(fork(attempt)) == -signal.SIGKILL
        load_bars(victim, "loading", file, f"killed at {at}")
        with connect(victim, "loading") as connection:
            assert loaded(connection, f"killed at {at}") == whole, f"killed at step {at}"
    tell(f"23 {edition}: loader killed at {len(instants)} of {steps} steps, all completed by a second run")


def test_23_loader_that_loses_its_connection_says_so_and_is_completed_by_the_same_command(
    victim, edition, file, expected
):
    whole, steps = expected
    instants = sorted(chooser(f"23 backend {edition}").sample(range(steps), min(steps, INSTANTS)))
    told = 0
    for at in instants:
        name = f"cut off at {at}"
        with connect(victim, "loading") as connection:
            def cut(pid: int = connection.info.backend_pid) -> None:
                with connect(victim, "loading") as other:
                    other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            with pytest.raises((Problem, psycopg.OperationalError)) as lost, struck(at, cut):
                load(connection, [file], table="timeseries_data", source=name, mode="backfill", batch_rows=100)
            told += isinstance(lost.value, Problem) and "goes on where this one stopped" in lost.value.hint
        load_bars(victim, "loading", file, name)
        with connect(victim, "loading") as connection:
            assert loaded(connection, name) == whole, f"cut off at step {at}"
    assert told > len(instants) / 2  # the first steps only look at the file
    tell(f"23 {edition}: connection ended at {len(instants)} of {steps} steps, all completed by a second run")


def test_24_of_eight_loaders_of_one_file_one_loads_it(victim, edition, file, expected):
    whole, _ = expected
    children = [fork(lambda: 10 if load_bars(victim, "loading", file, "by eight").already_loaded else 0)
                for _ in range(8)]
    assert sorted(outcome(child) for child in children) == [0] + [10] * 7
    with connect(victim, "loading") as connection:
        assert loaded(connection, "by eight") == whole
        assert connection.execute("SELECT count(*) FROM timeseries_data JOIN sources USING (source_id)"
                                  " WHERE name = 'by eight'").fetchone() == (ROWS,)
    tell(f"24 {edition}: 8 loaders at once, 1 loaded and 7 found it loaded")


# The disk ----------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(server: Server, megabytes: int) -> Iterator[Path]:
    """A file system of a few megabytes that the server may write to."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small file system that this needs")
    place = Path(tempfile.mkdtemp(prefix="tidemark-disk-"))
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", place],
                           capture_output=True, text=True)
    try:
        if mount.returncode:
            pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
        owner = server.data.stat()
        os.chown(place, owner.st_uid, owner.st_gid)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], capture_output=True)
        shutil.rmtree(place, ignore_errors=True)


def fill(place: Path, leave: int) -> Path:
    """Take the free space of a file system but for `leave` bytes."""
    space = os.statvfs(place)
    ballast = place / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(space.f_bavail * space.f_frsize - leave, 1))
    return ballast


def test_25_full_tablespace_is_told_costs_nothing_and_is_overcome(victim, edition, file, expected):
    whole, _ = expected
    with small_disk(victim, 100) as place:
        with connect(victim, "postgres") as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
            connection.execute("CREATE DATABASE crammed TEMPLATE migrated TABLESPACE small")
        try:
            with connect(victim, "crammed") as connection:
                connection.execute("CHECKPOINT")
            load_bars(victim, "crammed", file, "before")
            ballast = fill(place, leave=100_000)
            with pytest.raises(Problem) as refused:
                for n in range(20):
                    load_bars(victim, "crammed", file, f"too much {n}")
            assert "No space left on device" in refused.value.detail
            assert refused.value.hint
            ballast.unlink()
            for again in range(n + 1):
                load_bars(victim, "crammed", file, f"too much {again}")
            with connect(victim, "crammed") as connection:
                assert connection.execute("SELECT count(*) FROM timeseries_data").fetchone() == (ROWS * (n + 2),)
                assert loaded(connection, f"too much {n}") == whole
        finally:
            with connect(victim, "postgres") as connection:
                connection.execute("DROP DATABASE crammed WITH (FORCE)")
                connection.execute("DROP TABLESPACE small")
    tell(f"25 {edition}: tablespace full, the loader was told, nothing lost, completed after space came back")


def test_25_full_wal_stops_the_server_and_loses_nothing(edition):
    settings = {"max_wal_size": "1GB", "min_wal_size": "32MB", "checkpoint_timeout": "1h"}
    with durable(edition, settings) as server, small_disk(server, 160) as place:
        server.stop()
        wal = server.data / "pg_wal"
        subprocess.run(["cp", "-a", f"{wal}/.", place], check=True)
        shutil.rmtree(wal)
        wal.symlink_to(place)
        server.start()
        clone(server, "flooded")
        with connect(server, "flooded") as connection:
            prepare(connection)
        acknowledged: set[int] = set()
        ballast = fill(place, leave=1_000_000)
        with pytest.raises(psycopg.OperationalError), connect(server, "flooded") as connection:
            for _ in range(20):  # leave the segments behind that are there already
                if not connection.execute("SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
                                          " AND name > pg_walfile_name(pg_current_wal_lsn())").fetchone()[0]:
                    break
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 12 * 1024 * 1024))")
            for batch in range(2000):
                write(connection, batch)
                acknowledged.add(batch)
        wait_for(lambda: not server.alive or server.running, "the server stops, or comes back by itself")
        ballast.unlink()
        wait_for(lambda: _restarted(server), "the server starts once there is space")
        with connect(server, "flooded") as connection:
            there = ledger(connection)
            assert partial(connection) == []
            lost = acknowledged - there
            for batch in sorted(set(range(len(acknowledged) + 5)) - there):
                write(connection, batch)
            assert partial(connection) == []
        server.stop()
        shutil.rmtree(server.data / "pg_wal", ignore_errors=True)
    tell(f"25 {edition}: WAL volume full after {len(acknowledged)} acknowledged batches, {len(lost)} lost")
    assert acknowledged
    assert lost == set()


def _restarted(server: Server) -> bool:
    try:
        server.start()
        psycopg.connect(server.url("postgres")).close()
    except (Problem, psycopg.OperationalError):
        return False
    return True


# Connections -------------------------------------------------------------------------------------------------------


def test_26_storm_of_connections_lets_the_running_load_finish(victim, edition, tmp_path):
    clone(victim, "storm")
    big = bars(tmp_path / "big.csv", 5000)
    with connect(victim, "storm") as connection:
        most = int(connection.execute("SHOW max_connections").fetchone()[0])
    loader = fork(lambda: load_bars(victim, "storm", big, "in the storm").rejected - 1)
    with connect(victim, "storm") as connection:
        wait_for(lambda: connection.execute("SELECT EXISTS (SELECT FROM timeseries_data)").fetchone()[0], "a batch")
    held: list[psycopg.Connection] = []
    refused: list[str] = []
    slowest: list[float] = []

    def visit() -> None:
        begun = time.monotonic()
        try:
            held.append(psycopg.connect(victim.url("storm"), connect_timeout=30))
            held[-1].execute("SELECT count(*) FROM timeseries_data")
        except psycopg.OperationalError as error:
            refused.append(str(error))
        slowest.append(time.monotonic() - begun)

    visitors = [threading.Thread(target=visit) for _ in range(2 * most)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len(held) + len(refused) >= 2 * most
    assert len(refused) >= most
    assert all("too many clients" in error or "connection slots" in error for error in refused)  # no SQLSTATE yet
    assert outcome(loader) == 0  # while no slot is free
    for connection in held:
        connection.close()
    with connect(victim, "storm") as connection:
        assert connection.execute("SELECT count(*) FROM timeseries_data").fetchone() == (5000,)
        left = ("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'")
        wait_for(lambda: connection.execute(left).fetchone() == (0,), "the sessions end", 30)
        assert connection.execute(
            "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND l.pid <> pg_backend_pid()").fetchone() == (0,)
    tell(f"26 {edition}: {2 * most} connections on max_connections = {most}, {len(refused)} refused within"
         f" {max(slowest):.1f} s, the running load finished")
