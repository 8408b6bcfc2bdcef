"""Migrating while the runner or the server dies, ten at a time, and in the way of others."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from faults.harness import EFFORT, chooser, clone, connect, die, fork, kill, outcome, struck, tell, wait_for
from tidemark import catalog, config, migrations
from tidemark.errors import Problem
from tidemark.schema_files import schema_files
from tidemark.server import Server

FILES = schema_files()
STATE = [file for file in FILES if not file.is_logic]
CLIENT_KILLS, SERVER_KILLS = EFFORT, EFFORT  # per migration; a server, which takes longer, at first for every third

DATA = {  # what a database holds when a migration comes, as soon as there is a table for it
    "assets": "INSERT INTO assets (symbol, asset_type) SELECT 'S' || i, 'stock' FROM generate_series(1, 5) AS i",
    "sources": "INSERT INTO sources (name, data_type) SELECT 'source ' || i, 'ohlcv' FROM generate_series(1, 3) AS i",
    "users": "INSERT INTO users (username, email) VALUES ('somebody', 'somebody@example.org')",
    "watchlists": "INSERT INTO watchlists (user_id, name) SELECT user_id, 'mine' FROM users",
    "ingestion_tasks": "INSERT INTO ingestion_tasks (source_ref) VALUES ('file')",
    "positions": "INSERT INTO positions (user_id, asset_id, side, entry_price, quantity)"
                 " SELECT user_id, asset_id, 'long', 1, 1 FROM users, assets",
    "timeseries_data": "INSERT INTO timeseries_data (source_id, timestamp, close)"
                       " SELECT source_id, timestamptz '2024-01-01' + i * interval '1 day', i"
                       "   FROM sources, generate_series(1, 40) AS i",
    "candles": "INSERT INTO candles (asset_id, interval, ts, close) SELECT asset_id, '1d', '2024-01-01', 1 FROM assets",
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty schema/ and migrations/, to be filled file by file."""
    for name, directory in (("SCHEMA", "schema"), ("MIGRATIONS", "migrations")):
        (tmp_path / directory / "state").mkdir(parents=True)
        monkeypatch.setattr(config, name, tmp_path / directory)
    return tmp_path


ORIGINAL_SCHEMA, ORIGINAL_MIGRATIONS = config.SCHEMA, config.MIGRATIONS


def add(checkout: Path, *files) -> None:
    for file in files:
        shutil.copy(file.path, checkout / "schema/state")
        if not file.is_logic:
            shutil.copy(ORIGINAL_MIGRATIONS / f"{file.migration_id}.py", checkout / "migrations")


def migrate(server: Server, name: str) -> int:
    with connect(server, name) as connection:
        return len(migrations.migrate(connection).pending)


def shape(server: Server, name: str) -> tuple[dict[str, str], dict[str, int]]:
    """Definition of every object, and rows of every table."""
    with connect(server, name) as connection:
        tables = [table for table in DATA if exists(connection, table)]
        counts = {table: connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
                  .fetchone()[0] for table in tables}
        return catalog.snapshot(connection), counts


def exists(connection: psycopg.Connection, table: str) -> bool:
    return connection.execute("SELECT to_regclass('public.' || %s) IS NOT NULL", (table,)).fetchone()[0]


def fill(server: Server, name: str) -> None:
    with connect(server, name) as connection:
        for table, statement in DATA.items():
            if exists(connection, table) and not connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            ).fetchone()[0]:
                connection.execute(statement)


def test_27_each_migration_is_completed_after_its_runner_or_its_server_was_killed(victim, edition, checkout):
    random = chooser(f"27 {edition}")
    clone(victim, "before", "template0")
    tried = {"client": 0, "server": 0}
    for nth, files in enumerate([*([file] for file in STATE), [file for file in FILES if file.is_logic]]):
        add(checkout, *files)
        clone(victim, "after", "before")
        with struck(None, die) as steps:
            migrate(victim, "after")
        expected = shape(victim, "after")
        server_kills = SERVER_KILLS if EFFORT > 1 or nth % 3 == len(STATE) % 3 else 0
        for way, kills in (("client", CLIENT_KILLS), ("server", server_kills)):
            for at in random.sample(range(steps[0]), min(kills, steps[0])):
                clone(victim, "struck", "before")
                if way == "client":
                    def attempt(at: int = at) -> None:
                        with struck(at, die):
                            migrate(victim, "struck")
                    assert outcome(fork(attempt)) == -signal.SIGKILL
                else:
                    with pytest.raises((psycopg.Error, Problem)), struck(at, lambda: kill(victim)):
                        migrate(victim, "struck")
                    victim.start()
                begun = time.monotonic()
                migrate(victim, "struck")
                assert time.monotonic() - begun < 30
                assert shape(victim, "struck") == expected, f"{files[0].name}, {way} killed at step {at}"
                tried[way] += 1
        fill(victim, "after")
        clone(victim, "before", "after")
    tell(f"27 {edition}: {len(STATE)} migrations and the logic: runner killed at {tried['client']} instants, server at"
         f" {tried['server']}, every next run completed")


def test_28_ten_runners_apply_each_file_once(victim, edition, checkout):
    """On a database that lacks the last state file and all logic; tests/test_migrations.py has the empty one."""
    add(checkout, *STATE[:-1])
    clone(victim, "ten", "template0")
    migrate(victim, "ten")
    fill(victim, "ten")
    clone(victim, "one", "ten")
    add(checkout, *FILES)
    migrate(victim, "one")
    runners = [fork(lambda: migrate(victim, "ten")) for _ in range(10)]
    assert sorted(outcome(runner) for runner in runners) == [0] * 9 + [1]
    assert shape(victim, "ten") == shape(victim, "one")
    tell(f"28 {edition}: 10 runners at once on a database one file behind: applied once, all ended well")


def test_28_runner_killed_in_the_middle_of_a_statement_blocks_the_next_for_less_than_5_s(victim, edition, checkout):
    add(checkout, STATE[0])
    clone(victim, "asleep", "template0")
    migrate(victim, "asleep")
    schema_file, migration_file = migrations.new("slow")
    migration_file.write_text(migration_file.read_text().replace("-- how to undo it", "SELECT 1"))
    schema_file.write_text("SELECT pg_sleep(120);\n")
    runner = fork(lambda: migrate(victim, "asleep"))
    with connect(victim, "asleep") as connection:
        wait_for(lambda: connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND pid <> pg_backend_pid()"
            " AND wait_event = 'PgSleep'").fetchone() == (1,), "the runner is at it")
    die_at = time.monotonic()
    os.kill(runner, signal.SIGKILL)
    outcome(runner)
    schema_file.write_text("SELECT 1;\n")
    assert migrate(victim, "asleep") == 1
    waited = time.monotonic() - die_at
    tell(f"28 {edition}: runner killed with the lock in its hands, the next one was through after {waited:.1f} s")
    assert waited < 5


def test_29_renamed_file_is_refused_by_the_name_it_was_applied_under(victim, checkout):
    add(checkout, *STATE[:2])
    clone(victim, "renamed", "template0")
    migrate(victim, "renamed")
    number, rest = STATE[1].name.split("_", 1)
    (checkout / "schema/state" / STATE[1].name).rename(checkout / "schema/state" / f"{number}_other_{rest}")
    with pytest.raises(Problem) as refused:
        migrate(victim, "renamed")
    assert STATE[1].name in refused.value.message


def test_29_every_file_runs_under_a_lock_timeout(victim, checkout):
    add(checkout, STATE[0])
    clone(victim, "timeouts", "template0")
    migrate(victim, "timeouts")
    check = ("DO $do$ BEGIN IF current_setting('lock_timeout') = '0' THEN RAISE EXCEPTION 'no lock_timeout'; END IF;"
             " END $do$;\n")
    schema_file, migration_file = migrations.new("checked")
    migration_file.write_text(migration_file.read_text().replace("-- how to undo it", "SELECT 1"))
    schema_file.write_text(check)
    (logic,) = migrations.new("checked too", logic=True)
    logic.write_text(check)
    assert migrate(victim, "timeouts") == 1


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """The runner's lock_timeout: its own with TIDEMARK_FAULTS, else a shorter one."""
    if EFFORT == 1:
        monkeypatch.setattr(migrations, "LOCK_TIMEOUT_S", 0.5)
        monkeypatch.setattr(migrations, "LOCK_ATTEMPTS", 3)
    yield migrations.LOCK_TIMEOUT_S


def test_29_migration_in_the_way_of_a_long_reader_gives_up_and_holds_nobody_up(victim, edition, checkout, patience):
    add(checkout, *FILES)
    clone(victim, "busy", "migrated")
    fill(victim, "busy")
    schema_file, migration_file = migrations.new("wait")
    migration_file.write_text(migration_file.read_text().replace("-- how to undo it", "SELECT 1"))
    schema_file.write_text("ALTER TABLE public.assets ADD COLUMN venue text;\n")
    latencies: list[float] = []
    stop = threading.Event()

    def read() -> None:
        with connect(victim, "busy") as connection:
            while not stop.is_set():
                begun = time.monotonic()
                connection.execute("SELECT symbol FROM assets LIMIT 1")
                latencies.append(time.monotonic() - begun)
                time.sleep(0.005)

    readers = [threading.Thread(target=read) for _ in range(2)]
    with psycopg.connect(victim.url("busy")) as long_reader:
        long_reader.execute("SET idle_in_transaction_session_timeout = '90s'")  # else a patient runner never ends
        long_reader.execute("SELECT count(*) FROM assets")
        for reader in readers:
            reader.start()
        try:
            with pytest.raises(Problem) as refused:
                migrate(victim, "busy")
        finally:
            stop.set()
            for reader in readers:
                reader.join()
    assert refused.value.hint
    p99, slowest = sorted(latencies)[int(len(latencies) * 0.99)], max(latencies)
    tell(f"29 {edition}: migration waiting for a long reader gave up; of {len(latencies)} other reads p99 {p99:.2f} s,"
         f" slowest {slowest:.2f} s, with a lock_timeout of {patience} s")
    assert p99 <= slowest < patience + 0.5
    assert slowest > patience / 2, "nobody was ever in anybody's way"
    assert len(latencies) > 20
    assert migrate(victim, "busy") == 1
