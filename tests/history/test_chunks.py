"""Chunks fit the data: a month of one-minute bars and twenty years of daily ones are both well placed."""

from __future__ import annotations

import threading
from itertools import pairwise

import psycopg
import pytest

from tidemark import lifecycle, loader

WEEK = 7 * 86400


@pytest.fixture
def free(db):
    """A connection that commits, to a database of the test's own, with two assets and no scoring to wait for."""
    with db.connect(prepare_threshold=None) as connection:
        connection.execute("SET tidemark.reason = 'as the test has it'")
        connection.execute("SET timezone = 'UTC'")
        connection.execute("SELECT detach_quality('candles')")
        connection.execute("INSERT INTO assets (symbol, asset_type) VALUES ('A', 'stock'), ('B', 'stock')")
        yield connection


def bars(connection: psycopg.Connection, first: str, last: str, step: str, interval: str = "1d") -> None:
    connection.execute(
        "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume, trades, vwap, quality_score)"
        " SELECT asset_id, %s::candle_interval, t, 1, 2, 0.5, extract(day FROM t), 7, 3, 1.5, 95 FROM assets,"
        " generate_series(%s::timestamptz, %s::timestamptz, %s::interval) AS t", (interval, first, last, step),
    )


def chunks(connection: psycopg.Connection, hypertable: str = "candles") -> list[tuple[int, int]]:
    """Weeks that each chunk spans, and its rows, oldest first."""
    return connection.execute(
        "SELECT (extract(epoch FROM range_end - range_start) / %s)::int, _tidemark.count_rows(chunk)"
        " FROM _tidemark.chunks(%s::regclass)", (WEEK, hypertable)
    ).fetchall()


def rows(connection: psycopg.Connection, relation: str) -> set:
    return set(connection.execute(f"SELECT t::text FROM {relation} AS t").fetchall())


# While they are filled


def test_years_of_daily_bars_lie_in_a_handful_of_chunks(free, tmp_path):
    days = free.execute("SELECT to_char(t, 'YYYY-MM-DD') FROM generate_series('2004-01-02'::timestamp, '2023-12-29',"
                        " '1 day') AS t WHERE extract(isodow FROM t) < 6").fetchall()
    file = tmp_path / "A.csv"
    file.write_text("symbol,date,open,high,low,close,volume\n"
                    + "".join(f"{s},{day},1,2,0.5,1.5,7\n" for s in ("A", "B") for (day,) in days))
    loader.load(free, [file], table="candles", interval="1d", mode="backfill")
    placed = chunks(free)
    assert sum(n for _, n in placed) == 2 * len(days)
    assert len(placed) <= 8
    assert free.execute("SELECT bool_and(range_end <= now()) FROM _tidemark.chunks('candles')").fetchone() == (True,)
    # What comes next finds the length that the hypertable has of its own.
    bars(free, "yesterday", "yesterday", "1 day")
    assert chunks(free)[-1] == (1, 2)


def test_dense_bars_keep_the_chunks_of_the_hypertable(free):
    assert free.execute("SELECT fit_chunks('candles', '2024-01-01', '2024-12-31', 50 * 365 * 1440)").fetchone() == (0,)
    assert free.execute("SELECT fit_chunks('candles', '2024-01-01', '2024-02-01', 62)").fetchone() == (0,)
    assert free.execute("SELECT fit_chunks('candles', '2024-01-01', '2024-12-31', 0)").fetchone() == (0,)
    assert chunks(free) == []


def test_chunks_are_fitted_around_those_that_are_there_and_before_now(free):
    bars(free, "2022-06-01 00:00+00", "2022-06-07 00:00+00", "1 minute", "1m")
    there = set(free.execute("SELECT range_start, range_end FROM _tidemark.chunks('candles')").fetchall())
    made = free.execute("SELECT fit_chunks('candles', '2020-01-01', now() + interval '1 day', 5000)").fetchone()[0]
    spans = free.execute("SELECT range_start, range_end FROM _tidemark.chunks('candles') ORDER BY 1").fetchall()
    assert there < set(spans)
    assert len(spans) == len(there) + made
    assert made <= 30
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert free.execute("SELECT max(range_end) <= now() FROM _tidemark.chunks('candles')").fetchone() == (True,)
    bars(free, "2020-01-01 00:00+00", "2026-11-01 00:00+00", "1 day")
    # No policy is in the way of a chunk's end: it spans a tenth of its rows' life at most.
    free.execute("UPDATE data_policies SET compress_after = NULL, drop_after = '420 weeks'"
                 " WHERE hypertable = 'candles'")
    free.execute("SELECT fit_chunks('candles', '2010-01-01', '2019-12-31', 5000)")
    assert max(weeks for weeks, _ in chunks(free) if weeks) <= 256
    assert free.execute("SELECT max(range_end - range_start) FROM _tidemark.chunks('candles')"
                        " WHERE range_end < '2020-01-01'").fetchone()[0].days <= 42 * 7


# Afterwards


def test_rechunk_puts_small_chunks_together_and_nobody_sees_it(free, edition):
    bars(free, "2014-01-01 00:00+00", "2024-06-30 00:00+00", "1 day")
    bars(free, "2024-06-01 00:00+00", "2024-06-02 00:00+00", "1 minute", "1m")
    lifecycle.refresh(free)
    if edition == "community":
        free.execute("CALL compress_history('5 years')")
    seen = {name: rows(free, name) for name in ("candles", "candles_1d", "audit_log", "timeseries_archive",
                                                "anomalies", "quality_issues", "_tidemark.rollup_changes")}
    before = chunks(free)
    planned = lifecycle.rechunk_plan(free)
    assert chunks(free) == before
    assert {(p.hypertable, p.pieces) for p in planned} == {("candles", 1)}
    assert sum(p.chunks for p in planned) > 500
    done = []
    lifecycle.rechunk(free, planned, lambda n, of, group: done.append((n, of)))
    assert done == [(n, len(planned)) for n in range(len(planned))]
    after = chunks(free)
    assert len(after) <= 20
    assert sum(n for _, n in after) == sum(n for _, n in before)
    for name, was in seen.items():
        assert rows(free, name) == was, name
    lifecycle.refresh(free)
    free.execute("CALL refresh_aggregates('2014-01-01', '2024-07-01')")
    assert rows(free, "candles_1d") == seen["candles_1d"]
    assert free.execute("SELECT count(*) FROM _tidemark.rollup_frozen").fetchone() == (0,)
    assert lifecycle.rechunk_plan(free) == []
    if edition == "community":
        assert free.execute("SELECT count(*) > 0 FROM _tidemark.chunks('candles') WHERE is_compressed"
                            ).fetchone() == (True,)
    # A chunk like any other: with its indexes, its keys, its triggers and its privileges.
    odd = free.execute("""
        SELECT c.chunk FROM _tidemark.chunks('candles') AS c
         WHERE (SELECT count(*) FROM pg_index AS i WHERE i.indrelid = c.chunk)
               <> (SELECT count(*) FROM pg_index AS i WHERE i.indrelid = 'candles'::regclass)
            OR (SELECT count(*) FROM pg_trigger AS t WHERE t.tgrelid = c.chunk AND t.tgname ~ '^trg_audit')
               <> (SELECT count(*) FROM pg_trigger AS t
                    WHERE t.tgrelid = 'candles'::regclass AND t.tgname ~ '^trg_audit' AND t.tgtype & 1 = 1)
            OR (SELECT relacl FROM pg_class WHERE oid = c.chunk) IS DISTINCT FROM
               (SELECT relacl FROM pg_class WHERE oid = 'candles'::regclass)""").fetchall()
    assert odd == []
    free.execute("UPDATE candles SET close = 5 WHERE ts = '2015-03-04 00:00+00' AND interval = '1d'")
    assert free.execute("SELECT count(*) FROM audit_log WHERE table_name = 'candles'").fetchone() == (2,)
    with pytest.raises(psycopg.errors.UniqueViolation):
        bars(free, "2015-03-04 00:00+00", "2015-03-04 00:00+00", "1 day")


def test_rechunk_divides_what_is_too_large(free):
    free.execute("SELECT set_chunk_time_interval('candles', interval '64 weeks')")
    bars(free, "2023-01-01 00:00+00", "2024-02-01 00:00+00", "1 day")
    bars(free, "2024-01-01 00:00+00", "2024-01-20 00:00+00", "10 minutes", "1m")
    free.execute("SELECT set_chunk_time_interval('candles', interval '1 week')")
    was = rows(free, "candles")
    count = len(chunks(free))
    free.execute("CALL rechunk('candles', 1000)")
    after = chunks(free)
    assert len(after) > count
    assert rows(free, "candles") == was
    assert all(n <= 1000 or weeks == 1 for weeks, n in after)
    assert any(weeks >= 16 for weeks, _ in after)


def test_rechunk_that_is_interrupted_has_lost_nothing_and_goes_on(db, free):
    bars(free, "2014-01-01 00:00+00", "2016-06-30 00:00+00", "1 day")
    bars(free, "2018-01-01 00:00+00", "2020-06-30 00:00+00", "1 day")
    was = rows(free, "candles")
    planned = lifecycle.rechunk_plan(free)
    assert len(planned) > 1
    with db.connect() as other:
        other.execute("SET statement_timeout = '300ms'")
        with other.cursor() as cursor, pytest.raises(psycopg.errors.QueryCanceled):
            cursor.execute("SELECT _tidemark.replace_chunks('candles', %s::tstzrange[]) FROM pg_sleep(0.29)",
                           ([f"[{planned[0].range_start},{planned[0].range_end})"],))
            cursor.execute("SELECT pg_sleep(1)")
    assert rows(free, "candles") == was
    lifecycle.rechunk(free, planned[:1])
    assert rows(free, "candles") == was
    lifecycle.rechunk(free, lifecycle.rechunk_plan(free))
    assert rows(free, "candles") == was
    assert lifecycle.rechunk_plan(free) == []


def test_writers_wait_while_chunks_are_replaced(db, free):
    bars(free, "2014-01-01 00:00+00", "2015-06-30 00:00+00", "1 day")
    (first, *_) = lifecycle.rechunk_plan(free)
    written = []

    def write() -> None:
        with db.connect() as connection:
            bars(connection, "2014-06-02 12:00+00", "2014-06-02 12:00+00", "1 day")
            written.append(True)

    with db.connect(autocommit=False) as other:
        other.execute("SELECT _tidemark.replace_chunks('candles', %s::tstzrange[])",
                      ([f"[{first.range_start},{first.range_end})"],))
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(timeout=1)
        assert written == []
        other.commit()
    writer.join(timeout=20)
    assert written == [True]
    assert free.execute("SELECT count(*) FROM candles").fetchone() == (2 * (546 + 1),)


def test_chunks_of_the_users_own_are_put_together_with_their_triggers_quiet(free):
    free.execute("""
        CREATE TABLE heard (n int);
        CREATE TABLE flows (ts timestamptz NOT NULL, s int NOT NULL, kind candle_interval NOT NULL, note text NOT NULL,
                            doubled int GENERATED ALWAYS AS (s * 2) STORED, PRIMARY KEY (s, ts));
        CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO heard VALUES (1); RETURN NEW; END';
        SELECT create_hypertable('flows', by_range('ts', interval '1 day'));
        INSERT INTO flows SELECT t, 1, '1d', 'x' FROM generate_series('2020-01-01'::timestamptz, '2020-05-01', '1 day')
            AS t;
        CREATE TRIGGER trg_hear BEFORE INSERT ON flows FOR EACH ROW EXECUTE FUNCTION hear()""")
    was = rows(free, "flows")
    free.execute("CALL rechunk('flows')")
    assert len(chunks(free, "flows")) < 12
    assert rows(free, "flows") == was
    assert rows(free, "heard") == set()
    assert free.execute("SHOW session_replication_role").fetchone() == ("origin",)
    assert free.execute("SELECT time_interval FROM timescaledb_information.dimensions WHERE hypertable_name = 'flows'"
                        ).fetchone()[0].days == 1
