"""Each check of the doctor on a database that has the complaint, and on one that has not."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psycopg
import pytest
from applications.test_concurrency import race
from conftest import Database
from psycopg.conninfo import make_conninfo

from tidemark import doctor, migrations
from tidemark.doctor import Finding, examine, exit_code
from tidemark.installation import find_installation, version_tuple
from tidemark.server import throwaway
from tidemark.sql_files import named_statements


def findings(connection: psycopg.Connection, check: str) -> list[Finding]:
    return [finding for finding in examine(connection, set(doctor._SQL) - {check}) if finding.check == check]


def severities(connection: psycopg.Connection, check: str) -> set[str]:
    return {finding.severity for finding in findings(connection, check)}


@pytest.fixture
def limit(monkeypatch):
    """`limit(name=value)` moves a limit for the test."""
    return lambda **limits: [monkeypatch.setitem(doctor.LIMITS, name, value) for name, value in limits.items()]


def test_every_check_runs_and_the_worst_comes_first(db):
    with db.connect() as connection:
        found = examine(connection)
    assert {finding.check for finding in found} == {*doctor._SQL, "migrations"}
    assert [finding for finding in found if "not checked" in finding.found] == []
    order = [doctor.SEVERITIES.index(finding.severity) for finding in found]
    assert order == sorted(order, reverse=True)
    assert all(finding.advice for finding in found if finding.severity in ("warning", "critical"))
    assert json.dumps([asdict(finding) for finding in found])


def test_a_fresh_database_complains_of_nothing_but_its_server(db):
    """The server is a throw-away one: no fsync, no jobs, and perhaps an old TimescaleDB."""
    with db.connect() as connection:
        bad = {f.check for f in examine(connection) if f.severity in ("warning", "critical")}
    assert bad <= {"settings", "version", "postgresql", "jobs", "disk", "chunk_functions"}


def test_examining_writes_nothing(db):
    with db.connect(options="-c default_transaction_read_only=on") as connection:
        assert [finding for finding in examine(connection) if "not checked" in finding.found] == []


def test_ignored_checks_are_left_out(db):
    with db.connect() as connection:
        assert "settings" not in {finding.check for finding in examine(connection, ["settings"])}


@pytest.mark.parametrize(("severities", "code"), [
    ([], 0), (["ok"], 0), (["ok", "info"], 0), (["warning", "info"], 1), (["ok", "critical", "warning"], 2),
])
def test_exit_code_is_the_worst_finding(severities, code):
    assert exit_code([Finding(severity, "c", "f") for severity in severities]) == code


@pytest.fixture
def installed(monkeypatch):
    """`installed(version)` makes the doctor believe in another version; TimescaleDB itself does not let us lie."""
    def believe(version: str) -> None:
        for check in ("version", "extension_update", "chunk_functions"):
            monkeypatch.setitem(doctor._SQL, check, named_statements("doctor.sql")[check].replace(
                "pg_catalog.pg_extension AS x", f"(VALUES ('timescaledb', '{version}')) AS x (extname, extversion)"))
    return believe


def test_a_machine_with_nothing_newer_to_update_to_is_well(db, edition):
    with db.connect() as connection:
        version, offered = connection.execute(
            "SELECT extversion, default_version FROM pg_extension JOIN pg_available_extensions ON name = extname"
            " WHERE extname = 'timescaledb'").fetchone()
        expected = {"ok"} if version_tuple(version) >= (2, 29, 1) else {"info"} | (
            {"warning"} if edition == "community" else set())  # Community has a hole that is there every day
        assert version == offered
        assert severities(connection, "version") == expected


@pytest.mark.parametrize(("version", "expected"), [
    ("2.19.2", True), ("2.25.1", True), ("2.29.1", False), ("2.31.0-dev", False),
])
def test_version_below_the_security_floor(tx, installed, version, expected):
    installed(version)
    assert ("warning" in severities(tx, "version")) == expected
    assert ("ok" in severities(tx, "version")) == (not expected)


def test_version_that_the_server_is_ahead_of(tx, installed):
    assert severities(tx, "extension_update") == {"ok"}
    installed("2.19.0")
    assert severities(tx, "extension_update") == {"info"}


def test_a_view_that_an_update_of_the_extension_would_stumble_over(tx):
    tx.execute("CREATE VIEW mine AS SELECT hypertable_name FROM timescaledb_information.hypertables")
    assert severities(tx, "extension_update") == {"warning"}


@pytest.mark.parametrize("second", ["UPDATE plain SET n = n + 1", "DELETE FROM plain"])
def test_whether_an_update_that_waited_is_lost(db, second):
    """The doctor says what a plain hypertable, without anything of ours, does."""
    with (db.connect() as watch, db.connect(autocommit=False) as one, db.connect() as two):
        watch.execute("CREATE TABLE plain (ts timestamptz NOT NULL, n integer NOT NULL)")
        watch.execute("SELECT create_hypertable('plain', 'ts')")
        watch.execute("INSERT INTO plain VALUES ('2024-01-01', 0)")
        count = race((one, two, watch), ("UPDATE plain SET n = n + 1",), (second,))
        assert (count == 0) == (severities(watch, "waiting_updates") == {"info"})


@pytest.mark.parametrize(("version", "expected"), [("2.19.3", "critical"), ("2.29.1", "ok")])
def test_chunk_functions_open_to_everybody(tx, installed, version, expected):
    installed(version)
    tx.execute("REVOKE EXECUTE ON FUNCTION _timescaledb_functions.drop_chunk(regclass) FROM PUBLIC")
    assert severities(tx, "chunk_functions") == {"ok"}
    tx.execute("GRANT EXECUTE ON FUNCTION _timescaledb_functions.drop_chunk(regclass) TO PUBLIC")
    assert severities(tx, "chunk_functions") == {expected}


def test_dangerous_settings(tx):
    assert any("fsync" in f.found and f.severity == "critical" for f in findings(tx, "settings"))
    assert not any("zero_damaged_pages" in f.found for f in findings(tx, "settings"))
    tx.execute("SET LOCAL zero_damaged_pages = on")
    tx.execute("SET LOCAL synchronous_commit = on")
    found = findings(tx, "settings")
    assert any("zero_damaged_pages" in f.found and f.severity == "critical" for f in found)
    assert not any("synchronous_commit" in f.found for f in found)
    tx.execute("SET LOCAL synchronous_commit = off")
    assert any("synchronous_commit" in f.found and f.severity == "warning" for f in findings(tx, "settings"))


def test_restore_that_was_not_finished(db):
    with db.connect() as connection:
        assert severities(connection, "restoring") == {"ok"}
        connection.execute("SET timescaledb.restoring = on")
        assert severities(connection, "restoring") == {"critical"}


def test_hypertable_with_more_chunks_than_locks(tx, limit):
    tx.execute("INSERT INTO sources (source_id, name, data_type) VALUES (-1, 'd', 'scalar')")
    tx.execute("INSERT INTO timeseries_data (source_id, timestamp, value) VALUES (-1, '2024-01-01', 1)")
    assert severities(tx, "locks") == {"ok"}
    limit(share_of_locks=0)
    assert any("timeseries_data" in finding.found for finding in findings(tx, "locks"))


def test_connections_that_run_out(tx, limit):
    assert severities(tx, "connections") == {"ok"}
    limit(share_of_connections=0)
    assert severities(tx, "connections") == {"warning"}


def test_memory_too_small_for_the_data(tx, limit):
    assert severities(tx, "memory") == {"ok"}
    limit(data_per_buffer=0.001)
    assert severities(tx, "memory") == {"info"}


def test_transaction_left_open(db, limit):
    with db.connect() as connection, db.connect(autocommit=False) as other:
        other.execute("SELECT 1")
        pid = str(other.info.backend_pid)
        assert severities(connection, "long_transactions") == {"ok"}
        limit(idle_in_transaction="0 seconds")
        assert [f.severity for f in findings(connection, "long_transactions") if pid in f.found] == ["warning"]
        limit(forgotten_transaction="0 seconds")
        assert [f.severity for f in findings(connection, "long_transactions") if pid in f.found] == ["critical"]
        other.rollback()
        assert severities(connection, "long_transactions") == {"ok"}


def test_session_that_waits_for_a_lock(db, limit):
    with db.connect() as connection, db.connect(autocommit=False) as holder, db.connect() as waiter:
        holder.execute("LOCK TABLE users")
        waiter.execute("SET lock_timeout = '20s'")
        waiting = threading.Thread(target=lambda: waiter.execute("SELECT 1 FROM users"))
        waiting.start()
        try:
            limit(lock_wait="0 seconds")
            deadline = time.monotonic() + 10
            while severities(connection, "blocked") != {"warning"} and time.monotonic() < deadline:
                time.sleep(0.05)
            assert str(holder.info.backend_pid) in findings(connection, "blocked")[0].found
            limit(lock_wait="1 hour")
            assert severities(connection, "blocked") == {"ok"}
        finally:
            holder.rollback()
            waiting.join()


def flushed(connection: psycopg.Connection, *statements: str) -> None:
    """Run statements so that their statistics show."""
    for statement in statements:
        connection.execute(statement)
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.execute("SELECT 1")


def test_table_of_dead_rows(db, limit):
    with db.connect() as connection:
        flushed(connection, "CREATE TABLE dead (i integer) WITH (autovacuum_enabled = off)",
                "INSERT INTO dead SELECT generate_series(1, 100)", "DELETE FROM dead WHERE i > 60")
        assert severities(connection, "bloat") == {"ok"}
        limit(dead_rows=39)
        assert ["public.dead" in f.found for f in findings(connection, "bloat")] == [True]
        limit(dead_share=0.41)
        assert severities(connection, "bloat") == {"ok"}


def test_transactions_before_wraparound(tx, limit):
    age = tx.execute("SELECT max(age(datfrozenxid)) FROM pg_database").fetchone()[0]
    assert severities(tx, "wraparound") == {"ok"}
    limit(old_transactions=age)
    assert severities(tx, "wraparound") == {"warning"}
    limit(old_transactions=age // 2)
    assert severities(tx, "wraparound") == {"critical"}


@pytest.mark.parametrize(("options", "value", "expected"), [
    ("", 79, "ok"), ("", 81, "warning"), ("", 96, "critical"), ("CYCLE", 96, "ok"),
])
def test_sequence_near_its_end(tx, options, value, expected):
    tx.execute(f"CREATE SEQUENCE short MAXVALUE 100 {options}")
    tx.execute("SELECT setval('short', %s)", (value,))
    assert severities(tx, "sequences") == {expected}


def test_index_that_was_never_finished(db):
    with db.connect() as connection:
        connection.execute("CREATE TABLE twice (i integer)")
        connection.execute("INSERT INTO twice VALUES (1), (1)")
        assert severities(connection, "invalid_indexes") == {"ok"}
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY twice_key ON twice (i)")
        assert ["public.twice_key" in f.found for f in findings(connection, "invalid_indexes")] == [True]


@pytest.mark.parametrize(("index", "expected"), [
    ("", "info"), ("CREATE INDEX ON child (b)", "info"), ("CREATE INDEX ON child (b, a)", "ok"),
    ("CREATE INDEX ON child (a, b, c)", "ok"), ("CREATE INDEX ON child (c, a, b)", "info"),
])
def test_foreign_key_without_an_index(tx, index, expected):
    tx.execute("CREATE TABLE parent (a integer, b integer, PRIMARY KEY (a, b));"
               "CREATE TABLE child (a integer, b integer, c integer, FOREIGN KEY (a, b) REFERENCES parent)")
    if index:
        tx.execute(index)
    found = findings(tx, "missing_indexes")
    assert ("info" if any("public.child" in f.found for f in found) else "ok") == expected


def test_foreign_keys_of_the_schema_have_indexes(tx):
    assert severities(tx, "missing_indexes") == {"ok"}


def test_table_that_is_always_read_whole(db, limit):
    with db.connect() as connection:
        flushed(connection, "CREATE TABLE read_whole AS SELECT generate_series(1, 50) AS i",
                *["SELECT count(*) FROM read_whole"] * 3)
        assert severities(connection, "sequential_scans") == {"ok"}
        limit(scans=2, rows_of_a_scan=49)
        assert any("public.read_whole" in f.found for f in findings(connection, "sequential_scans"))


def test_index_that_nobody_uses(db, limit):
    with db.connect() as connection:
        flushed(connection, "CREATE TABLE lazy (i integer PRIMARY KEY, j integer, user_id uuid REFERENCES users)",
                "CREATE INDEX ON lazy (j)", "CREATE INDEX ON lazy (user_id)", "INSERT INTO lazy VALUES (1, 1)")
        assert severities(connection, "unused_indexes") == {"ok"}
        limit(index_size=10_000)
        connection.execute("INSERT INTO lazy SELECT i, i FROM generate_series(2, 5000) AS i")
        assert [f.found.split(" was ")[0] for f in findings(connection, "unused_indexes") if "lazy" in f.found] == [
            "index (btree (j)) of public.lazy"]
        flushed(connection, "SET enable_seqscan = off", "SELECT * FROM lazy WHERE j = 7")
        assert not any("lazy" in f.found for f in findings(connection, "unused_indexes"))


def test_index_that_the_schema_wants_is_not_advised_away(db, limit):
    limit(index_size=-1)
    with db.connect() as connection:
        connection.execute(
            "INSERT INTO assets (symbol, asset_type) VALUES ('X', 'stock');"
            "INSERT INTO candles (asset_id, interval, ts, close) SELECT asset_id, '1d', now(), 1 FROM assets;"
            "CREATE INDEX candles_mine ON candles (volume)")
        found = [f.found.split(" was ")[0] for f in findings(connection, "unused_indexes")]
    assert found == ["index (btree (volume)) of public.candles"]


@pytest.mark.parametrize(("ids", "step", "expected"), [
    ("(5)", 1, {"warning"}), ("(1)", 1, {"warning"}), ("(0)", 1, {"ok"}), ("(-5)", -1, {"warning"}),
    ("(5)", -1, {"ok"}),
])
def test_rows_ahead_of_their_sequence(tx, ids, step, expected):
    tx.execute(f'CREATE TABLE "O\'Neil" (n bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT {step}));'
               f'INSERT INTO "O\'Neil" VALUES {ids}')
    assert severities(tx, "sequences") == expected
    for finding in findings(tx, "sequences"):
        if finding.advice:
            tx.execute(finding.advice)
    assert severities(tx, "sequences") == {"ok"}


def test_unused_index_of_a_hypertable_counts_once_over_its_chunks(db, limit):
    with db.connect() as connection:
        connection.execute("CREATE TABLE wide (at timestamptz NOT NULL, i integer);"
                           "SELECT create_hypertable('wide', by_range('at', interval '1 day'));"
                           "CREATE INDEX ON wide (i);"
                           "INSERT INTO wide SELECT timestamptz '2024-01-01' + i * interval '1 hour', i"
                           "  FROM generate_series(1, 100) AS i")
        limit(index_size=20_000)  # more than that of one chunk, less than that of five
        found = [f for f in findings(connection, "unused_indexes") if "public.wide" in f.found and "(i)" in f.found]
        assert len(found) == 1


@pytest.mark.parametrize("version", [None, "1.7"])
def test_slow_queries_whatever_their_columns_are_called(db, limit, version):
    with db.connect() as connection:
        if not connection.execute("SELECT to_regclass('public.pg_stat_statements')").fetchone()[0]:
            pytest.skip("pg_stat_statements is not on this server")
        if version:
            connection.execute("DROP EXTENSION pg_stat_statements CASCADE")
            connection.execute(f"CREATE EXTENSION pg_stat_statements SCHEMA public VERSION '{version}'")
            columns = connection.execute("SELECT * FROM pg_stat_statements LIMIT 0").description
            assert "total_time" in [column.name for column in columns]
        assert severities(connection, "slow_queries") == {"ok"}
        for _ in range(3):
            connection.execute("SELECT count(*) AS tortoise FROM pg_sleep(0.2)")
        limit(slow_ms=190, slow_calls=3)
        assert ["tortoise" in f.found for f in findings(connection, "slow_queries")] == [True]


def test_chunks_that_do_not_fit_their_rows(db, limit):
    limit(spare_chunks=10)
    with db.connect() as connection:
        connection.execute("SELECT detach_quality('timeseries_data')")
        connection.execute("INSERT INTO sources (name, data_type) VALUES ('a', 'scalar')")
        connection.execute("INSERT INTO timeseries_data (source_id, timestamp, value)"
                           " SELECT 1, t, 1 FROM generate_series(now() - interval '6 years', now(), '1 day') AS t")
        assert severities(connection, "chunks") == {"warning"}
        connection.execute("CALL rechunk('timeseries_data')")
        assert severities(connection, "chunks") == {"ok"}


def test_aggregates_that_nobody_refreshes(db, limit):
    with db.connect() as connection:
        connection.execute("INSERT INTO sources (source_id, name, data_type) VALUES (-1, 'd', 'ohlcv')")
        connection.execute("INSERT INTO timeseries_data (source_id, timestamp, close) SELECT -1, t, 1"
                           "  FROM generate_series(now() - interval '20 days', now(), interval '1 hour') AS t")
        assert severities(connection, "aggregates") == {"warning"}
        connection.execute("CALL refresh_aggregates()")
        assert severities(connection, "aggregates") == {"ok"}


def test_record_that_nobody_seals(db, limit):
    with db.connect() as connection:
        connection.execute("INSERT INTO users (username, email) VALUES ('d', 'd@example.org')")
        assert severities(connection, "seals") == {"ok"}
        limit(unsealed="0 seconds")
        assert severities(connection, "seals") == {"warning"}
        connection.execute("SELECT seal_audit()")
        assert severities(connection, "seals") == {"ok"}


def test_calendars_that_end_are_missing_or_wrong(tx, add):
    assert severities(tx, "calendars") == {"ok"}
    tx.execute("INSERT INTO market_calendar (market, date)"
               " VALUES ('XLON', current_date + 29), ('FX', current_date + 31)")
    tx.execute("INSERT INTO market_calendar (market, date, opens_at, closes_at, origin) VALUES"
               " ('XHKG', '2023-09-01', '2023-09-01 01:30+00', '2023-09-01 08:00+00', 'generated'),"
               " ('XHKG', '2023-09-08', NULL, NULL, 'generated'), ('XHKG', current_date + 31, NULL, NULL, 'generated')")
    tx.execute("SET LOCAL tidemark.reason = 'a test'")
    tx.execute("INSERT INTO quality_profiles (name, market) VALUES ('mars', 'MARS')")
    said = findings(tx, "calendars")
    assert [finding.severity for finding in said] == ["warning"] * 3
    assert all(any(name in finding.found for finding in said) for name in ("XLON", "MARS", "1 session(s) of XHKG"))


def test_drifted_migrations(db):
    with db.connect() as connection:
        assert severities(connection, "migrations") == {"ok"}
        connection.execute("DELETE FROM _tidemark_migrations.applied_files WHERE file = '500_helpers.sql'")
        assert [(f.severity, "500_helpers.sql" in f.found) for f in findings(connection, "migrations")] == [
            ("warning", True)]
        connection.execute("UPDATE _tidemark_migrations.applied_files SET sha256 = 'edited' WHERE file ~ '^010'")
        assert "critical" in severities(connection, "migrations")


def test_full_disk(tx, limit):
    limit(free_share=2)
    assert "warning" in severities(tx, "disk") or "critical" in severities(tx, "disk")
    limit(free_share=100)
    assert "critical" in severities(tx, "disk")
    limit(free_share=0)
    assert severities(tx, "disk") == {"ok"}


@contextlib.contextmanager
def stranger(database: Database) -> Iterator[str]:
    """The URL of a role without any right."""
    with database.connect() as connection:
        connection.execute("CREATE ROLE doctor_test LOGIN PASSWORD 'doctor test'")
        try:
            yield make_conninfo(database.url, host="127.0.0.1", user="doctor_test", password="doctor test")
        finally:
            connection.execute("DROP OWNED BY doctor_test; DROP ROLE doctor_test")


def test_a_role_without_rights_learns_what_it_could_not_see(db):
    with stranger(db) as url, psycopg.connect(url, autocommit=True) as connection:
        found = examine(connection)
        assert {f.check for f in found if f.severity == "info"} >= {"visibility", "disk", "migrations"}
        assert all("not checked" not in f.found for f in found if f.severity in ("warning", "critical"))
        with db.connect() as admin:
            admin.execute("GRANT pg_monitor TO doctor_test")
        assert severities(connection, "visibility") == {"ok"}


# A server of its own for what no ordinary one has ----------------------------------------------------------------


@pytest.fixture(scope="module")
def sick(edition) -> Iterator[Database]:
    """A server that cannot archive, takes prepared transactions and standbys, and runs jobs."""
    directory = Path(tempfile.mkdtemp(prefix="tidemark-"))
    directory.chmod(0o755)
    (directory / "pg_hba.conf").write_text("local all,replication all peer map=tidemark\n")
    settings = {"archive_mode": "on", "archive_command": "false", "max_prepared_transactions": "5",
                "hba_file": str(directory / "pg_hba.conf"), "timescaledb.max_background_workers": "8"}
    with throwaway(find_installation(edition), edition, settings) as server:
        server.create_database()
        database = Database(server.url())
        with database.connect() as connection:
            migrations.migrate(connection)
        yield database
    shutil.rmtree(directory)


def eventually(connection: psycopg.Connection, check: str, word: str, severity: str) -> None:
    deadline = time.monotonic() + 30
    while not any(word in f.found and f.severity == severity for f in findings(connection, check)):
        assert time.monotonic() < deadline, findings(connection, check)
        time.sleep(0.1)


def test_archiving_that_fails(sick):
    with sick.connect() as connection:
        connection.execute("SELECT pg_switch_wal()")
        eventually(connection, "archiver", "fails", "critical")


def test_transaction_that_was_prepared_and_forgotten(sick, limit):
    with sick.connect() as connection:
        connection.execute("BEGIN; CREATE TABLE half (i integer); PREPARE TRANSACTION 'forgotten one'")
        try:
            assert severities(connection, "prepared_transactions") == {"ok"}
            limit(long_transaction="0 seconds")
            assert "forgotten one" in findings(connection, "prepared_transactions")[0].found
        finally:
            connection.execute("ROLLBACK PREPARED 'forgotten one'")


def test_slot_that_nobody_reads(sick, limit):
    with sick.connect() as connection:
        connection.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
        try:
            assert severities(connection, "slots") == {"ok"}
            limit(retained_wal=-1)
            assert "forgotten" in findings(connection, "slots")[0].found
        finally:
            connection.execute("SELECT pg_drop_replication_slot('forgotten')")


def test_standby_that_lags(sick, edition, limit, tmp_path):
    program = find_installation(edition).bindir / "pg_receivewal"
    receiver = subprocess.Popen([program, "-D", tmp_path, "-d", sick.url], stderr=subprocess.DEVNULL)
    try:
        with sick.connect() as connection:
            assert severities(connection, "replication") == {"ok"}
            limit(retained_wal=-1)
            eventually(connection, "replication", "pg_receivewal", "warning")
    finally:
        receiver.terminate()
        receiver.wait()


@pytest.mark.community
def test_jobs_that_fail_are_paused_or_late(sick, edition, limit):
    with sick.connect() as connection:
        connection.execute("CREATE PROCEDURE explode(job_id integer, config jsonb) LANGUAGE plpgsql AS"
                           " 'BEGIN RAISE EXCEPTION ''it exploded''; END'")
        job = connection.execute("SELECT add_job('explode', '1 hour')").fetchone()[0]
        eventually(connection, "jobs", "it exploded", "warning")
        paused = connection.execute("SELECT add_job('explode', '1 hour', scheduled => false)").fetchone()[0]
        assert any(f"alter_job({paused}," in f.advice for f in findings(connection, "jobs"))
        assert not any("has not run" in f.found for f in findings(connection, "jobs"))
        limit(late_job="-100 years")
        assert any("has not run" in f.found for f in findings(connection, "jobs"))
        assert not any("none runs" in f.found for f in findings(connection, "jobs"))
        connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
        eventually(connection, "jobs", "none runs", "warning")
        connection.execute("SELECT _timescaledb_functions.start_background_workers()")
        connection.execute("SELECT delete_job(j) FROM unnest(%s::integer[]) AS j", ([job, paused],))
