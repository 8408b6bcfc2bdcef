"""What was rewritten behind the guards' back is found, named, and nothing else is."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time

import psycopg
import pytest
from conftest import _database
from psycopg import sql
from record.support import Rows, insert

from tidemark.installation import find_installation

SECONDS = float(os.environ.get("TIDEMARK_TEST_SECONDS", "4"))
CLEAN_ROWS = int(os.environ.get("TIDEMARK_TEST_ROWS", "20000"))


def problems(connection, root: bytes | None = None) -> list[tuple]:
    return connection.execute("SELECT problem, audit_id FROM verify_audit(%s)", [root]).fetchall()


@pytest.fixture(scope="module")
def sealed_database(server, template):
    """A record of some 60 entries of all kinds under three seals."""
    with _database(server, template) as database, database.connect() as connection:
        rows = Rows(connection)
        for _ in range(3):
            for table in ("assets", "users", "alerts", "signals", "quotes"):
                insert(connection, table, rows.row(table))
            connection.execute("UPDATE assets SET name = symbol")
            connection.execute("SET tidemark.reason = 'why'; SET tidemark.request = 'r'")
            connection.execute("DELETE FROM alerts WHERE alert_id = (SELECT min(alert_id) FROM alerts)")
            connection.execute("SELECT seal_audit()")
        assert connection.execute("SELECT count(*) FROM audit_seals").fetchone() == (3,)
        assert problems(connection) == []
        yield database


@pytest.fixture
def sealed(sealed_database):
    """A connection to it as a superuser who means no good; what he does is rolled back."""
    with sealed_database.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL session_replication_role = replica")
        yield connection


def unguarded(connection, statement: str, *parameters) -> int:
    """What a superuser can do who switches the guards off."""
    with connection.transaction():
        connection.execute("SET LOCAL tidemark.record_maintenance = 'on'")
        for table in ("audit_log", "audit_tx", "audit_seals", "timeseries_archive"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        changed = connection.execute(statement, parameters or None).rowcount
        for table in ("audit_log", "audit_tx", "audit_seals", "timeseries_archive"):
            connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER trg_refuse_change")
    return changed


HASH = ("_tidemark.audit_hash(audit_id, tx_id, table_name, operation, row_key, new_key, old_values, new_values,"
        " changed_fields, changed_by, db_role, changed_at, reason, created_at)")


@pytest.mark.parametrize(("forgery", "problem"), [
    ("UPDATE audit_log SET changed_by = 'nobody' WHERE audit_id = 40", ("changed", 40)),
    ("UPDATE audit_log SET new_values = '{}' WHERE audit_id = 40", ("changed", 40)),
    ("DELETE FROM audit_log WHERE audit_id = 40", ("missing", 40)),
    ("UPDATE audit_log SET audit_id = CASE audit_id WHEN 40 THEN -41 ELSE 40 END WHERE audit_id IN (40, 41);"
     " UPDATE audit_log SET audit_id = 41 WHERE audit_id = -41", ("changed", 40)),
    ("INSERT INTO audit_log (audit_id, tx_id, table_name, operation, changed_by, db_role, content_hash)"
     " SELECT 0, tx_id, 'assets', 'insert', 'x', 'x', sha256('x') FROM audit_tx LIMIT 1", ("changed", 0)),
    ("UPDATE audit_tx SET application = 'other' WHERE tx_id = (SELECT tx_id FROM audit_log WHERE audit_id = 40)",
     ("transaction", 40)),
    ("DELETE FROM audit_tx WHERE tx_id = (SELECT tx_id FROM audit_log WHERE audit_id = 40)", ("transaction", 40)),
])
def test_forged_row_is_named(sealed, forgery, problem):
    if problem[0] == "transaction":  # named by the first of its entries
        problem = ("transaction", sealed.execute(
            "SELECT min(audit_id) FROM audit_log WHERE tx_id = (SELECT tx_id FROM audit_log WHERE audit_id = 40)"
        ).fetchone()[0])
    for statement in forgery.split("; "):
        assert unguarded(sealed, statement) >= 1
    assert problems(sealed)[0] == problem


def test_row_with_a_hash_made_to_fit_is_named_by_its_seal(sealed):
    unguarded(sealed, "UPDATE audit_log SET changed_by = 'nobody' WHERE audit_id = 40")
    unguarded(sealed, f"UPDATE audit_log SET content_hash = {HASH} WHERE audit_id = 40")
    assert problems(sealed)[0] == ("rewritten", 40)


def test_row_put_between_sealed_ones_is_named_though_its_hash_fits(sealed):
    """Number 13 is free when a transaction rolled back."""
    free = sealed.execute(
        "SELECT n FROM generate_series(1, (SELECT max(audit_id) FROM audit_log)) AS n EXCEPT SELECT audit_id"
        " FROM audit_log ORDER BY 1 LIMIT 1").fetchone()
    number = free[0] if free else 0
    unguarded(sealed,
              "INSERT INTO audit_log (audit_id, tx_id, table_name, operation, changed_by, db_role, content_hash)"
              " SELECT %s, min(tx_id), 'assets', 'insert', 'x', 'x', '' FROM audit_tx", number)
    unguarded(sealed, f"UPDATE audit_log SET content_hash = {HASH} WHERE audit_id = {number}")
    assert problems(sealed)[0] == ("inserted", number)


def test_chain_made_anew_is_found_by_a_root_written_down(db):
    with db.connect() as connection:
        connection.execute("INSERT INTO assets (symbol, asset_type) SELECT 'A' || i, 'stock'"
                           " FROM generate_series(1, 9) AS i")
        root = connection.execute("SELECT root FROM seal_audit()").fetchone()[0]
        assert problems(connection, root) == []
        unguarded(connection, "DELETE FROM audit_seals")
        unguarded(connection, "DELETE FROM audit_log WHERE audit_id = 40")
        connection.execute("SELECT seal_audit()")
        assert problems(connection) == []
        assert problems(connection, root) == [("anchor", None)]


@pytest.mark.parametrize("forgery", [
    "UPDATE audit_seals SET root = sha256('x') WHERE seal_id = 2",
    "UPDATE audit_seals SET sealed_at = sealed_at + interval '1 us' WHERE seal_id = 2",
    "UPDATE audit_seals SET row_count = row_count + 1 WHERE seal_id = 2",
    "UPDATE audit_seals SET horizon = '1' WHERE seal_id = 2",
    "UPDATE audit_seals SET to_audit_id = to_audit_id - 1 WHERE seal_id = 2",
    "DELETE FROM audit_seals WHERE seal_id = 2",
    "UPDATE audit_seals SET previous_root = NULL WHERE seal_id = 2; DELETE FROM audit_seals WHERE seal_id = 1",
])
def test_forged_seal_is_found(sealed, forgery):
    for statement in forgery.split("; ")[::-1]:
        unguarded(sealed, statement)
    assert {kind for kind, _ in problems(sealed)} & {"seal", "chain"}


@pytest.mark.parametrize("forgery", [
    "UPDATE timeseries_archive SET row = row || '{\"price\": 99}'", "DELETE FROM timeseries_archive",
    "UPDATE timeseries_archive SET deleted_by = 'nobody'", "UPDATE timeseries_archive SET audit_id = audit_id - 1",
])
def test_forged_archive_is_found(sealed, forgery):
    sealed.execute("SET LOCAL session_replication_role = origin")
    sealed.execute("DELETE FROM quotes")
    assert problems(sealed) == []
    assert unguarded(sealed, forgery) == 3
    assert problems(sealed)[0][0] == "archive"


def test_each_of_a_hundred_flipped_bits_is_found(sealed):
    """One bit of one column of one row at a time, anywhere in the log, its transactions and its seals."""
    chance = random.Random(5)
    flips = {
        "bytea": "set_bit({c}, (%s %% (octet_length({c}) * 8))::integer, 1 - get_bit({c},"
                 " (%s %% (octet_length({c}) * 8))::integer))",
        "bigint": "({c} # (1::bigint << (%s %% 40)::integer) + 0 * %s)",
        "xid8": "((({c}::text::bigint) # (1::bigint << (%s %% 20)::integer)) + 0 * %s)::text::xid8",
        "timestamptz": "({c} + interval '1 microsecond' * (1::bigint << (%s %% 40)::integer) + 0 * %s * interval '0')",
        "text": "convert_from(set_bit(convert_to({c}, 'UTF8'), (%s %% 1 + 8 * (length({c}) - 1))::integer,"
                " 1 - get_bit(convert_to({c}, 'UTF8'), (%s %% 1 + 8 * (length({c}) - 1))::integer)), 'UTF8')",
        "jsonb": "regexp_replace({c}::text, '\"([a-z])', '\"' || chr((120 + 0 * (%s + %s))::integer))::jsonb",
        "text[]": "({c} || ('x' || 0 * (%s + %s)))",
        "int8multirange": "({c} - int8multirange(int8range(lower({c}), lower({c}) + 1 + 0 * (%s + %s)::bigint)))",
        "audit_operation": "CASE WHEN {c} = 'insert' AND 0 * (%s + %s) = 0 THEN 'update' ELSE 'insert'"
                           " END::audit_operation",
        "inet": "coalesce({c} + 1 + 0 * (%s + %s)::bigint, '10.0.0.1')",
    }
    columns = sealed.execute(
        "SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_attribute AS a JOIN pg_class AS c"
        " ON c.oid = a.attrelid WHERE c.relname IN ('audit_log', 'audit_tx', 'audit_seals')"
        " AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        # The number of a seal is its place in the chain, which the roots tell.
        " AND (c.relname, a.attname) <> ('audit_seals', 'seal_id')").fetchall()
    sealed.execute("SET LOCAL tidemark.record_maintenance = 'on'")
    for table in ("audit_log", "audit_tx", "audit_seals"):
        sealed.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    tried = found = 0
    while tried < 100:
        table, column, kind = chance.choice(columns)
        kind = {"timestamp with time zone": "timestamptz"}.get(kind, kind)
        bit = chance.randrange(10**6)
        expression = flips[kind].format(c=column)
        row = chance.choice(sealed.execute(sql.SQL("SELECT ctid::text FROM {} WHERE {} IS NOT NULL ORDER BY 1").format(
            sql.Identifier(table), sql.Identifier(column))).fetchall() or [None])
        if row is None:
            continue
        with sealed.transaction(force_rollback=True):
            try:
                with sealed.transaction():
                    before = sealed.execute(
                        f"SELECT {column}::text FROM {table} WHERE ctid = '{row[0]}'").fetchone()
                    after = sealed.execute(
                        f"UPDATE {table} SET {column} = {expression} WHERE ctid = '{row[0]}'"
                        f" RETURNING {column}::text", [bit, bit]).fetchone()
            except (psycopg.errors.UniqueViolation, psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation,
                    psycopg.errors.CharacterNotInRepertoire, psycopg.errors.DatetimeFieldOverflow):
                continue  # the server refuses that one itself
            if before == after:
                continue  # nothing was flipped
            tried += 1
            found += bool(problems(sealed))
    assert (tried, found) == (100, 100)


def test_clean_record_gives_no_alarm(db):
    with db.connect() as connection:
        connection.execute("INSERT INTO assets (symbol, asset_type) SELECT 'C' || i, 'stock'"
                           " FROM generate_series(1, %s) AS i",
                           [CLEAN_ROWS // 2])
        connection.execute("UPDATE assets SET name = symbol")
        connection.execute("SELECT seal_audit(p_rows => %s)", [CLEAN_ROWS // 7])
        assert connection.execute("SELECT count(*), sum(row_count) FROM audit_seals").fetchone() >= (7, CLEAN_ROWS)
        assert problems(connection) == []


def test_sealing_waits_for_a_transaction_that_has_a_number_already(db):
    """The row with the lower number is committed last; a seal made meanwhile must not end above it."""
    with db.connect(autocommit=False) as slow, db.connect() as fast, db.connect() as sealer:
        slow.execute("INSERT INTO assets (symbol, asset_type) VALUES ('SLOW', 'stock')")
        fast.execute("INSERT INTO assets (symbol, asset_type) VALUES ('FAST', 'stock')")
        assert sealer.execute("SELECT * FROM seal_audit('100 ms')").fetchall() == []
        slow.commit()
        assert sealer.execute("SELECT row_count FROM seal_audit()").fetchall()[-1][0] > 0
        assert problems(sealer) == []
        assert sealer.execute("SELECT * FROM seal_audit()").fetchall() == []


def test_transaction_that_has_written_does_not_seal_itself(tx, add):
    add("assets")
    started = time.monotonic()
    assert tx.execute("SELECT * FROM seal_audit()").fetchall() == []
    assert time.monotonic() - started < 5


def test_sixteen_writers_and_a_sealer_give_no_false_alarm(db):
    """Inserts, updates and rollbacks of random length, sealed all the while."""
    stop = time.monotonic() + SECONDS
    failures: list[BaseException] = []
    written = [0] * 16

    def write(number: int) -> None:
        chance = random.Random(number)
        try:
            with db.connect(autocommit=False) as connection:
                while time.monotonic() < stop:
                    for _ in range(chance.randint(1, 4)):
                        connection.execute("INSERT INTO assets (symbol, asset_type)"
                                           " VALUES (gen_random_uuid(), 'stock')")
                        connection.execute("UPDATE assets SET name = %s WHERE symbol = %s", [str(number), f"W{number}"])
                        time.sleep(chance.random() / 200)
                    if chance.random() < 0.2:
                        connection.rollback()
                    else:
                        connection.commit()
                        written[number] += 1
        except BaseException as failure:
            failures.append(failure)

    def seal() -> None:
        try:
            with db.connect() as connection:
                while time.monotonic() < stop:
                    connection.execute("SELECT seal_audit('1 s')")
                    alarms.extend(problems(connection))
                    time.sleep(0.05)
        except BaseException as failure:
            failures.append(failure)

    alarms: list[tuple] = []
    with db.connect() as connection:
        connection.execute("INSERT INTO assets (symbol, asset_type) SELECT 'W' || i, 'stock'"
                           " FROM generate_series(0, 15) AS i")
        threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
        threads.append(threading.Thread(target=seal))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert alarms == []
        connection.execute("SELECT seal_audit()")
        assert problems(connection) == []
        seals, sealed = connection.execute("SELECT count(*), sum(row_count)::bigint FROM audit_seals").fetchone()
        assert seals >= 2
        assert sealed == connection.execute("SELECT count(*) FROM audit_log").fetchone()[0]
        assert min(written) > 0


def test_two_sealers_at_once_do_not_fork_the_chain(db):
    with db.connect() as connection:
        def seal() -> None:
            with db.connect() as mine:
                for _ in range(10):
                    mine.execute("INSERT INTO assets (symbol, asset_type) VALUES (gen_random_uuid(), 'stock')")
                    mine.execute("SELECT seal_audit()")

        threads = [threading.Thread(target=seal) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connection.execute("SELECT seal_audit()")
        assert problems(connection) == []
        assert connection.execute(
            "SELECT count(*) - count(DISTINCT coalesce(previous_root, '')) FROM audit_seals").fetchone() == (0,)


@pytest.mark.parametrize("settings", [
    "SET timezone = 'America/New_York'", "SET extra_float_digits = 0", "SET extra_float_digits = 3",
    "SET datestyle = 'SQL, DMY'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'; SET search_path = ''",
])
def test_settings_of_the_session_change_no_hash(sealed, settings):
    sealed.execute(settings)
    assert sealed.execute("SELECT * FROM public.verify_audit()").fetchall() == []


def test_seals_hold_after_dump_and_restore(sealed, sealed_database, empty, edition):
    programs = find_installation(edition).bindir
    roots = sealed.execute("SELECT root FROM audit_seals ORDER BY seal_id").fetchall()
    with empty.connect() as target:
        target.execute("CREATE EXTENSION timescaledb")
        target.execute("SELECT timescaledb_pre_restore()")
    dump = subprocess.run([programs / "pg_dump", "--format=custom", sealed_database.url], check=True,
                          capture_output=True).stdout
    restore = subprocess.run([programs / "pg_restore", "--dbname", empty.url], input=dump, capture_output=True)
    with empty.connect() as target:
        target.execute("SELECT timescaledb_post_restore()")
    with empty.connect() as target:
        assert target.execute("SELECT root FROM audit_seals ORDER BY seal_id").fetchall() == roots, restore.stderr
        assert problems(target, roots[-1][0]) == []
        target.execute("SET timezone = 'Asia/Kathmandu'")
        target.execute("INSERT INTO assets (symbol, asset_type) VALUES ('AFTER', 'stock')")
        target.execute("SELECT seal_audit()")
        assert problems(target, roots[-1][0]) == []
