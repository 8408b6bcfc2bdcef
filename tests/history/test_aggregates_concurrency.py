"""Aggregates stay right while several sessions write and refresh at once, and when one of them is killed."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from psycopg import errors

DIFFERENCE = """
    WITH fast AS (SELECT * FROM daily_ohlcv), direct AS (SELECT * FROM _tidemark.daily_ohlcv_direct)
    (SELECT 'too much', * FROM (SELECT * FROM fast EXCEPT SELECT * FROM direct) AS a)
    UNION ALL (SELECT 'missing', * FROM (SELECT * FROM direct EXCEPT SELECT * FROM fast) AS b)"""


@pytest.fixture
def writer(db):
    with db.connect(autocommit=False) as connection:
        yield connection


@pytest.fixture
def other(db):
    with db.connect() as connection:
        yield connection


@pytest.fixture
def source(other):
    other.execute("SELECT detach_quality('timeseries_data')")  # which would only take time here
    return other.execute(
        "INSERT INTO sources (name, data_type) VALUES ('s', 'ohlcv') RETURNING source_id"
    ).fetchone()[0]


def insert(connection: psycopg.Connection, source: int, first: str, last: str, step: str = "1 hour") -> None:
    connection.execute(
        "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
        " SELECT %s, t, 1, 2, 0, extract(epoch FROM t)::int %% 7, 1"
        " FROM generate_series(%s::timestamptz, %s::timestamptz, %s::interval) AS t", (source, first, last, step),
    )


def refresh(connection: psycopg.Connection) -> None:
    connection.execute("CALL refresh_aggregates()")


def watermark(connection: psycopg.Connection) -> str:
    return connection.execute("SELECT watermark::text FROM _tidemark.rollups WHERE name = 'daily_ohlcv'").fetchone()[0]


def test_row_that_is_committed_after_the_refresh_moved_past_it_is_not_lost(writer, other, source):
    insert(other, source, "2024-05-01", "2024-05-03")
    refresh(other)
    insert(writer, source, "2024-05-03 01:00", "2024-05-03 05:00")  # above the watermark, not committed
    insert(other, source, "2024-05-06", "2024-05-08")
    refresh(other)
    writer.commit()
    refresh(other)
    assert other.execute(DIFFERENCE).fetchall() == []


@pytest.mark.parametrize("isolation", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.SERIALIZABLE])
def test_row_written_while_the_refresh_waits_is_not_lost(db, other, source, edition, isolation):
    """Its writer began before the refresh and writes after the announcement: it has to log what it writes."""
    insert(other, source, "2024-05-01", "2024-05-08")
    refresh(other)
    insert(other, source, "2024-05-08 01:00", "2024-05-12")
    with db.connect(autocommit=False) as early, db.connect(autocommit=False) as blocker:
        early.isolation_level = isolation
        early.execute("SELECT count(*) FROM timeseries_data")  # its snapshot, where it keeps one
        insert(blocker, source, "2024-05-12 01:00", "2024-05-12 02:00")
        refreshing = threading.Thread(target=refresh, args=(other,))
        refreshing.start()
        time.sleep(0.3)
        insert(early, source, "2024-05-09 00:30", "2024-05-09 04:30")
        blocker.commit()
        refreshing.join()
        early.commit()
    if edition == "community":
        refresh(other)
    assert other.execute(DIFFERENCE).fetchall() == []
    refresh(other)
    assert other.execute(DIFFERENCE).fetchall() == []


def test_row_late_in_an_hour_that_is_logged_already_is_not_lost(writer, other, source, edition):
    """The entry of another transaction does not cover it: a refresh may take that one without seeing this row."""
    insert(other, source, "2024-05-01", "2024-05-08")
    refresh(other)
    insert(other, source, "2024-05-02 05:10", "2024-05-02 05:10")
    insert(writer, source, "2024-05-02 05:20", "2024-05-02 05:20")
    refresh(other)
    writer.commit()
    if edition == "community":
        refresh(other)
    assert other.execute(DIFFERENCE).fetchall() == []


def test_change_logged_while_a_refresh_works_is_left_to_the_next_one(db, writer, other, source, edition):
    insert(other, source, "2024-05-01", "2024-05-08")
    refresh(other)
    insert(other, source, "2024-05-02 05:10", "2024-05-02 05:10")
    with db.connect() as refresher:
        # Stops it when it has computed everything and not yet forgotten the log.
        writer.execute("SELECT FROM _tidemark.rollups WHERE name = 'daily_ohlcv' FOR UPDATE")
        refreshing = threading.Thread(target=refresh, args=(refresher,))
        refreshing.start()
        time.sleep(0.3)
        insert(other, source, "2024-05-02 05:20", "2024-05-02 05:20")
        writer.commit()
        refreshing.join()
    if edition == "community":
        refresh(other)
    assert other.execute(DIFFERENCE).fetchall() == []


def test_readers_snapshot_is_served_whole_though_a_refresh_moves_on(db, other, source):
    insert(other, source, "2024-05-01", "2024-05-08")
    with db.connect(autocommit=False) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        before = reader.execute("SELECT * FROM daily_ohlcv ORDER BY 1, 2").fetchall()
        insert(other, source, "2024-05-08 01:00", "2024-05-12")
        other.execute("UPDATE timeseries_data SET close = 99")
        refresh(other)
        assert reader.execute("SELECT * FROM daily_ohlcv ORDER BY 1, 2").fetchall() == before


def test_plan_kept_from_before_a_refresh_still_answers_right(db, other, source, edition):
    insert(other, source, "2024-05-01", "2024-05-08")
    refresh(other)
    with db.connect(prepare_threshold=0) as reader:
        question = "SELECT * FROM daily_ohlcv ORDER BY 1, 2"
        for _ in range(8):
            reader.execute(question)
        insert(other, source, "2024-05-08 01:00", "2024-05-12")
        refresh(other)
        other.execute("UPDATE timeseries_data SET close = 99 WHERE timestamp >= '2024-05-07'")
        if edition == "community":
            refresh(other)
        assert reader.execute(question).fetchall() == other.execute(
            "SELECT * FROM _tidemark.daily_ohlcv_direct ORDER BY 1, 2"
        ).fetchall()


def test_killed_refresh_leaves_nothing_behind_and_the_next_one_completes(db, other, source):
    insert(other, source, "2024-05-01", "2024-05-20", "1 minute")
    killed: list = []

    def refresh_and_be_killed() -> None:
        with pytest.raises(errors.OperationalError):
            refresh(victim)
        killed.append(victim.broken)

    with db.connect(autocommit=False) as blocker, db.connect() as victim:
        # A lock on what the refresh stores last stops it in the middle of its work.
        blocker.execute("LOCK TABLE _tidemark.rollups IN SHARE MODE")
        refreshing = threading.Thread(target=refresh_and_be_killed)
        refreshing.start()
        time.sleep(0.7)
        assert other.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,)).fetchone() == (True,)
        refreshing.join()
    assert killed == [True]
    assert other.execute(DIFFERENCE).fetchall() == []
    insert(other, source, "2024-05-20 01:00", "2024-05-21")
    assert other.execute(DIFFERENCE).fetchall() == []
    refresh(other)
    assert other.execute(DIFFERENCE).fetchall() == []
    assert watermark(other) == "2024-05-21 00:00:00+00"


def test_refreshes_and_loads_at_once_lose_and_double_nothing(db, other, source, edition):
    """Three loaders, in order, late and correcting; two refreshers; a reader who must never see a wrong day."""
    insert(other, source, "2024-05-01", "2024-05-04")
    refresh(other)
    done = threading.Event()
    wrong: list = []

    def load(first: int) -> None:
        source = other.execute(
            "INSERT INTO sources (name, data_type) VALUES (%s, 'ohlcv') RETURNING source_id", (f"s{first}",)
        ).fetchone()[0]
        with db.connect(autocommit=False) as connection:
            for hour in range(first, first + 24 * 10, 3):
                connection.execute(
                    "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
                    " SELECT %s, '2024-05-04 01:00+00'::timestamptz + make_interval(hours => %s - h * 40,"
                    " mins => %s), 1, 2, 0, h, 1 FROM generate_series(0, 1) AS h ON CONFLICT (source_id, timestamp)"
                    " DO UPDATE SET volume = timeseries_data.volume + 1", (source, hour, first),
                )
                if hour % 5 == 0:
                    connection.execute(
                        "DELETE FROM timeseries_data WHERE source_id = %s AND timestamp = "
                        "'2024-05-04 01:00+00'::timestamptz + make_interval(hours => %s)", (source, hour - 30)
                    )
                if hour % 2:
                    connection.commit()
            connection.commit()

    def keep_refreshing() -> None:
        with db.connect() as connection:
            while not done.is_set():
                refresh(connection)

    def keep_reading() -> None:
        with db.connect(prepare_threshold=None) as connection:
            while not done.is_set():
                wrong.extend(connection.execute(DIFFERENCE).fetchall())

    loaders = [threading.Thread(target=load, args=(first,)) for first in range(3)]
    others = [threading.Thread(target=keep_refreshing) for _ in range(2)]
    if edition == "apache":  # never stale, not even for a moment
        others.append(threading.Thread(target=keep_reading))
    for thread in [*loaders, *others]:
        thread.start()
    for thread in loaders:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert wrong == []
    refresh(other)
    assert other.execute(DIFFERENCE).fetchall() == []
    assert other.execute("SELECT count(*) FROM _tidemark.rollup_changes").fetchone() == (0,)
