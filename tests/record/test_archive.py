"""What is deleted from a hypertable can come back as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import psycopg
import pytest
from psycopg import sql
from record.support import HYPERTABLES, Rows, insert, names

QUERY = "SELECT coalesce(array_agg(to_jsonb(t.*)::text ORDER BY to_jsonb(t.*)::text), '{{}}') FROM {} AS t"


def contents(connection, *tables: str) -> list:
    return [connection.execute(sql.SQL(QUERY).format(sql.Identifier(table))).fetchone()[0] for table in tables]


def findings(connection) -> list:
    """What quality has on record, without the numbers of the entries."""
    return connection.execute(
        "SELECT table_name, series::text, ts, penalty::text, points, detail FROM quality_issues UNION ALL"
        " SELECT table_name, series::text, timestamp, status::text, z_score::integer, notes FROM anomalies"
        " ORDER BY 1, 2, 3, 4, 5").fetchall()


@pytest.mark.parametrize("table", HYPERTABLES)
def test_deleted_rows_are_archived_and_come_back_the_same(tx, table):
    rows = Rows(tx)
    for _ in range(5):
        insert(tx, table, rows.row(table))
    before = contents(tx, table)
    assert tx.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table))).rowcount == 5
    assert contents(tx, table) == [[]]
    archived = tx.execute("SELECT count(*), count(restored_at) FROM timeseries_archive WHERE table_name = %s", [table])
    assert archived.fetchone() == (5, 0)
    assert tx.execute("SELECT restore_archived(%s)", [table]).fetchone() == (5,)
    assert contents(tx, table) == before
    assert tx.execute("SELECT restore_archived(%s)", [table]).fetchone() == (0,), "a second time is none"
    assert contents(tx, table) == before
    assert tx.execute("SELECT count(restored_at) FROM timeseries_archive").fetchone() == (5,)


def test_scores_penalties_and_reviews_come_back(db):
    with db.connect() as connection:
        rows = Rows(connection)
        connection.execute("SET tidemark.reason = 'lateness is judged'")
        connection.execute("UPDATE quality_profiles SET allowed_lag = '1 hour' WHERE data_type = 'ohlcv'")
        connection.execute(
            "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
            " SELECT %s, '2024-01-01'::timestamptz + i * interval '1 hour', c, c + 1, c - 1,       "
            " CASE i WHEN 90 THEN NULL WHEN 95 THEN c * 3 ELSE c END, 1   FROM (SELECT i, 100 + sin(i * i) AS c"
            " FROM generate_series(1, 120) AS i) AS s", [rows.source])
        connection.execute("UPDATE anomalies SET status = 'real_event', reviewed_at = now(), notes = 'seen'")
        before, judged = contents(connection, "timeseries_data"), findings(connection)
        assert {penalty for _, _, _, penalty, _, _ in judged} >= {"timeliness", "completeness", "real_event"}
        connection.execute("DELETE FROM timeseries_data WHERE timestamp > '2024-01-04'")
        assert len(findings(connection)) < len(judged)
        connection.execute("SELECT restore_archived('timeseries_data')")
        assert contents(connection, "timeseries_data") == before
        assert findings(connection) == judged


def test_aggregates_have_the_rows_again(db):
    query = "SELECT day, open, high, low, close, volume, samples FROM daily_ohlcv ORDER BY day"
    with db.connect() as connection:
        rows = Rows(connection)
        connection.execute(
            "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
            " SELECT %s, '2024-01-01'::timestamptz + i * interval '6 hours', i, i + 1, i - 1, i, 1  "
            " FROM generate_series(1, 40) AS i", [rows.source])
        connection.execute("CALL refresh_aggregates()")
        before = connection.execute(query).fetchall()
        connection.execute("DELETE FROM timeseries_data WHERE timestamp >= '2024-01-05' AND timestamp < '2024-01-07'")
        connection.execute("CALL refresh_aggregates()")
        assert len(connection.execute(query).fetchall()) == len(before) - 2
        connection.execute("SELECT restore_archived('timeseries_data')")
        connection.execute("CALL refresh_aggregates()")
        assert connection.execute(query).fetchall() == before


def test_part_of_what_was_deleted_can_be_restored(tx):
    rows = Rows(tx)
    other = insert(tx, "assets", rows.row("assets"))[0]
    for _ in range(4):
        row = rows.row("quotes")
        insert(tx, "quotes", row)
        insert(tx, "quotes", {**row, "asset_id": other})
    tx.execute("DELETE FROM quotes")
    assert tx.execute("SELECT restore_archived('quotes', jsonb_build_object('asset_id', %s::uuid))",
                      [other]).fetchone() == (4,)
    assert tx.execute("SELECT array_agg(DISTINCT asset_id) FROM quotes").fetchone() == ([other],)
    assert tx.execute("SELECT restore_archived('quotes', p_deleted_from => 'infinity')").fetchone() == (0,)
    assert tx.execute("SELECT restore_archived('quotes')").fetchone() == (4,)


def test_row_deleted_twice_comes_back_as_it_was_last(tx):
    row = Rows(tx).row("quotes")
    for price in (1, 2):
        insert(tx, "quotes", {**row, "price": price})
        tx.execute("DELETE FROM quotes")
    assert tx.execute("SELECT restore_archived('quotes')").fetchone() == (1,)
    assert tx.execute("SELECT price FROM quotes").fetchall() == [(2,)]
    assert tx.execute("SELECT restore_archived('quotes')").fetchone() == (0,)


def test_key_that_was_taken_meanwhile_is_a_clear_conflict(tx):
    rows = Rows(tx)
    row, neighbour = rows.row("quotes"), rows.row("quotes")
    insert(tx, "quotes", row)
    insert(tx, "quotes", neighbour)
    tx.execute("DELETE FROM quotes")
    insert(tx, "quotes", {**row, "price": 77})
    tx.execute("SAVEPOINT before")
    with pytest.raises(psycopg.Error) as refused:
        tx.execute("SELECT restore_archived('quotes')")
    assert refused.value.sqlstate == "TM406"
    assert "(asset_id, ts)" in refused.value.diag.message_detail
    tx.execute("ROLLBACK TO before")
    assert tx.execute("SELECT count(*), max(price) FROM quotes").fetchone() == (1, 77)
    tx.execute("SELECT count(restored_at) = 0 FROM timeseries_archive")
    tx.execute("DELETE FROM quotes")
    assert tx.execute("SELECT restore_archived('quotes')").fetchone() == (2,)
    assert tx.execute("SELECT max(price) FROM quotes").fetchone() == (77,)


@pytest.mark.parametrize("table", ["assets", "quality_issues", "timeseries_archive", "mine"])
def test_only_audited_hypertables_have_an_archive(tx, table):
    tx.execute("CREATE TABLE mine (ts timestamptz PRIMARY KEY); SELECT create_hypertable('mine', by_range('ts'))")
    with pytest.raises(psycopg.Error) as refused:
        tx.execute("SELECT restore_archived(%s)", [table])
    assert refused.value.sqlstate == "TM404"


def test_hypertable_of_a_user_is_archived_too_with_columns_that_come_and_go(tx):
    tx.execute('CREATE TABLE mine (ts timestamptz, "my key" integer, gone text, n numeric,'
               ' twice numeric GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY ("my key", ts))')
    tx.execute("SELECT create_hypertable('mine', by_range('ts', interval '1 day'))")
    tx.execute("SELECT attach_audit('mine')")
    tx.execute("INSERT INTO mine (ts, \"my key\", gone, n)"
               " SELECT '2024-01-01'::timestamptz + i * interval '9 hours', i, 'x', 1.50"
               " FROM generate_series(1, 9) AS i")
    tx.execute("DELETE FROM mine WHERE \"my key\" > 3")
    tx.execute("ALTER TABLE mine DROP COLUMN gone")
    tx.execute("ALTER TABLE mine ADD COLUMN came integer NOT NULL DEFAULT 7")
    assert tx.execute("SELECT restore_archived('mine')").fetchone() == (6,)
    assert tx.execute("SELECT count(*), min(came), max(twice::text) FROM mine").fetchone() == (9, 7, "3.00")


def test_two_sessions_that_restore_the_same_rows_restore_them_once(db):
    with db.connect() as connection:
        rows = Rows(connection)
        for _ in range(20):
            insert(connection, "quotes", rows.row("quotes"))
        connection.execute("DELETE FROM quotes")
        counts = []

        def restore() -> None:
            with db.connect() as mine:
                counts.append(mine.execute("SELECT restore_archived('quotes')").fetchone()[0])

        threads = [threading.Thread(target=restore) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(counts) == [0, 0, 0, 20]
        assert connection.execute("SELECT count(*) FROM quotes").fetchone() == (20,)


def retention(connection, rows: Rows, kept: bool = True) -> None:
    """Two years of quotes, of which retention takes the first."""
    connection.execute(
        "INSERT INTO quotes (asset_id, ts, price, quality_score)"
        " SELECT %s, now() - interval '1 day' * i, 100 + i / 3.0, 100 FROM generate_series(1, 45) AS i", [rows.asset])
    connection.execute("SET tidemark.reason = 'retention test'")
    connection.execute("UPDATE data_policies SET compress_after = '20 days', drop_after = '30 days',"
                       " keep_dropped = %s WHERE hypertable = 'quotes'", [kept])


def test_retention_archives_chunk_by_chunk_and_what_it_took_comes_back(db):
    with db.connect() as connection:
        rows = Rows(connection)
        retention(connection, rows)
        before = contents(connection, "quotes")
        connection.execute("CALL apply_retention()")
        left = connection.execute("SELECT count(*) FROM quotes").fetchone()[0]
        assert 25 <= left <= 32
        entries = connection.execute(
            "SELECT l.audit_id, (l.old_values ->> 'rows')::integer, l.old_values ->> 'archived_checksum', count(a.*),"
            " sum(_tidemark.row_digest(a.row))::text, l.row_key ?& '{chunk,from,to}'  FROM audit_log AS l LEFT"
            " JOIN timeseries_archive AS a USING (audit_id) WHERE l.operation = 'drop_chunk'"
            " GROUP BY l.audit_id").fetchall()
        assert len(entries) >= 12, "one entry for each chunk"
        assert all(rows == archived and checksum == again and has_key
                   for _, rows, checksum, archived, again, has_key in entries)
        assert sum(count for _, count, *_ in entries) == 45 - left
        assert connection.execute("SELECT * FROM verify_audit()").fetchall() == []

        connection.execute("UPDATE data_policies SET drop_after = NULL WHERE hypertable = 'quotes'")
        assert connection.execute("SELECT restore_archived('quotes')").fetchone() == (45 - left,)
        assert contents(connection, "quotes") == before
        assert connection.execute("SELECT restore_archived('quotes')").fetchone() == (0,)
        assert connection.execute("SELECT * FROM verify_audit()").fetchall() == []


def test_retention_that_keeps_nothing_is_on_record_all_the_same(db):
    with db.connect() as connection:
        retention(connection, Rows(connection), kept=False)
        connection.execute("CALL apply_retention()")
        assert connection.execute("SELECT count(*) >= 12, bool_and(old_values ? 'checksum') FROM audit_log"
                                  " WHERE operation = 'drop_chunk'").fetchone() == (True, True)
        assert connection.execute("SELECT count(*) FROM timeseries_archive").fetchone() == (0,)
        connection.execute("CALL apply_retention()")


@pytest.mark.parametrize("seed", range(3))
def test_row_is_never_in_neither_place_when_retention_is_killed(db, seed):
    with db.connect() as connection:
        retention(connection, Rows(connection))
        everything = ("SELECT count(*) FROM (SELECT ts FROM quotes UNION ALL SELECT (row ->> 'ts')::timestamptz"
                      " FROM timeseries_archive) AS t")
        victim = subprocess.Popen(
            [sys.executable, "-c", "import psycopg, sys; c = psycopg.connect(sys.argv[1], autocommit=True);"
             " print(c.info.backend_pid, flush=True); c.execute('CALL apply_retention()')", db.url],
            stdout=subprocess.PIPE, text=True)
        backend = int(victim.stdout.readline())
        # Killed when so many chunks are gone.
        while connection.execute("SELECT count(*) FROM audit_log"
                                 " WHERE operation = 'drop_chunk'").fetchone()[0] < 1 + 4 * seed:
            if victim.poll() is not None:
                break
        connection.execute("SELECT pg_terminate_backend(%s)", [backend])
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        while connection.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [backend]).fetchone()[0]:
            pass
        assert connection.execute(everything).fetchone() == (45,), "in one of the two, and not in both"
        connection.execute("CALL apply_retention()")
        assert connection.execute(everything).fetchone() == (45,)
        assert connection.execute("SELECT * FROM verify_audit()").fetchall() == []


def test_names_of_columns_are_no_sql(tx):
    tx.execute('CREATE TABLE "a b" (ts timestamptz, "x); DROP TABLE users; --" integer,'
               ' PRIMARY KEY ("x); DROP TABLE users; --", ts))')
    tx.execute("""SELECT create_hypertable('"a b"', by_range('ts'))""")
    tx.execute("""SELECT attach_audit('"a b"')""")
    tx.execute("""INSERT INTO "a b" VALUES (now(), 1)""")
    tx.execute("""DELETE FROM "a b" """)
    assert tx.execute("""SELECT restore_archived('"a b"')""").fetchone() == (1,)
    assert names(["a"])
