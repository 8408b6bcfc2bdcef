"""A read replica, made as docs/beyond-one-machine.md says: it serves what the primary serves, and writes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from faults.harness import standby_of
from psycopg import sql

from tidemark import lifecycle, migrations
from tidemark.installation import find_installation
from tidemark.server import Server, throwaway

SERVED = [
    "daily_ohlcv", "hourly_values", "candles_5m", "candles_15m", "candles_1h", "candles_4h", "candles_1d", "coverage",
    "timeseries_data", "candles", "quality_issues", "anomalies", "audit_log",
]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "beyond-one-machine.md").read_text()


def _settings(block: str) -> dict[str, str]:
    """The settings that the page shows in a block of postgresql.conf."""
    (text,) = re.findall(rf"```ini\n *# {block}\n(.*?)```", PAGE, re.S)
    return dict(re.findall(r"^ *(\w+) = (.*?)(?: +#.*)?$", text, re.M))


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, edition: str) -> Iterator[tuple[Server, Server]]:
    """A primary with a database, and its standby."""
    if request.config.getoption("--database-url"):
        pytest.skip("needs servers of its own, not one that is given")
    installation = find_installation(edition)
    with tempfile.TemporaryDirectory(prefix="tidemark-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the server's account comes through here
        access = directory / "access.conf"
        access.write_text("local all,replication all trust\n")
        access.chmod(0o644)
        given = {"hba_file": str(access)}
        with throwaway(installation, edition, _settings("primary") | given) as primary:
            primary.create_database("desk")
            with psycopg.connect(primary.url("desk"), autocommit=True) as connection:
                migrations.migrate(connection)
                _fill(connection)
            with psycopg.connect(primary.url("postgres"), autocommit=True) as connection:
                connection.execute("CREATE ROLE replicator LOGIN REPLICATION")
            standby = _standby(primary, directory, _settings("standby") | given)
            try:
                standby.start()
                yield primary, standby
            finally:
                standby.stop("immediate")


def _standby(primary: Server, directory: Path, settings: dict[str, str]) -> Server:
    """A copy of the primary, made with the page's options, that follows it once it is started."""
    fast = {"fsync": "off", "shared_buffers": "128MB", "timescaledb.max_background_workers": "0"}
    options = re.search(r"^ *pg_basebackup .*?(-X .*)$", PAGE, re.M)[1].split()
    return standby_of(primary, directory, fast | settings, "-U", "replicator", *options)


def _fill(connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO assets (symbol, asset_type) VALUES ('X', 'stock'), ('Y', 'crypto')")
    connection.execute("INSERT INTO sources (name, data_type, interval)"
                       " VALUES ('a', 'ohlcv', '1h'), ('b', 'scalar', '1h')")
    connection.execute(
        "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, value)"
        " SELECT s.source_id, t, 10, 12, 9, 11 + extract(hour FROM t) / 8, 0.1, 1.0 / 3 FROM sources AS s,"
        " generate_series(date_trunc('hour', now()) - interval '60 days', date_trunc('hour', now()), '1 hour') AS t"
    )
    connection.execute(
        "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume, trades)"
        " SELECT a.asset_id, '1m', t, 10, 12, 9, 11, 0.1, 3 FROM assets AS a,"
        " generate_series(date_trunc('hour', now()) - interval '20 days', date_trunc('hour', now()), '7 minutes') AS t"
    )
    connection.execute("UPDATE timeseries_data SET close = 999 WHERE source_id = 1"
                       " AND timestamp = date_trunc('hour', now()) - interval '5 days'")
    connection.execute("SELECT set_config('tidemark.reason', 'something is due', false)")
    connection.execute("UPDATE data_policies SET compress_after = NULL, drop_after = '7 days'"
                       " WHERE hypertable = 'candles'")
    lifecycle.refresh(connection)
    # Not refreshed: below what is precomputed, and above it.
    connection.execute("UPDATE timeseries_data SET high = 55 WHERE timestamp < now() - interval '59 days'")
    connection.execute("INSERT INTO timeseries_data (source_id, timestamp, close)"
                       " VALUES (1, date_trunc('hour', now()) + interval '1 minute', 7)")


@pytest.fixture
def primary(pair) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pair[0].url("desk"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def standby(pair) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pair[1].url("desk"), autocommit=True) as connection:
        yield connection


def _follow(primary: psycopg.Connection, standby: psycopg.Connection) -> None:
    """Wait until the standby has applied what the primary has committed so far."""
    (position,) = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    deadline = time.monotonic() + 30
    while not standby.execute("SELECT pg_last_wal_replay_lsn() >= %s", (position,)).fetchone()[0]:
        assert time.monotonic() < deadline, "the standby does not follow"
        time.sleep(0.02)


def _rows(connection: psycopg.Connection, relation: str) -> list:
    # coverage.stale_for counts up to now()
    columns = sql.SQL("(t.table_name, t.name, t.first_at, t.last_at)" if relation == "coverage" else "t")
    return sorted(connection.execute(
        sql.SQL("SELECT {}::text FROM {} AS t").format(columns, sql.Identifier(relation))
    ).fetchall())


def test_standby_follows_by_streaming(primary, standby):
    assert standby.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    assert primary.execute("SELECT state, usename, sync_state FROM pg_stat_replication").fetchall() == [
        ("streaming", "replicator", "async")
    ]
    assert primary.execute("SELECT slot_type, active FROM pg_replication_slots").fetchall() == [("physical", True)]


def test_standby_has_the_settings_that_the_page_shows(primary, standby):
    for connection, block in ((primary, "primary"), (standby, "standby")):
        shown = _settings(block)
        assert shown
        in_force = dict(connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)", (list(shown),)
        ).fetchall())
        assert in_force == shown


@pytest.mark.parametrize("relation", SERVED)
def test_standby_serves_the_same_rows(primary, standby, relation):
    _follow(primary, standby)
    rows = _rows(primary, relation)
    assert rows
    assert _rows(standby, relation) == rows


def test_standby_serves_what_is_not_precomputed(primary, standby):
    """The change below the watermark as the primary serves it, and the newest row."""
    _follow(primary, standby)
    question = ("SELECT day, high, close, samples FROM daily_ohlcv WHERE source_id = 1"
                " AND (day < now() - interval '58 days' OR day > now() - interval '2 days') ORDER BY day")
    rows = primary.execute(question).fetchall()
    assert rows[-1][2] == 7
    assert standby.execute(question).fetchall() == rows


def test_standby_answers_what_people_ask(primary, standby):
    _follow(primary, standby)
    for question in (
        "SELECT count(*) FROM find_gaps(1, now() - interval '9 days', now() - interval '1 day')",
        "SELECT hypertable, chunk, range_start FROM chunk_stats ORDER BY 1, 2",
        "SELECT * FROM chunk_compression_stats() ORDER BY 1, 2",
    ):
        assert standby.execute(question).fetchall() == primary.execute(question).fetchall()
    here, there = lifecycle.stats(primary), lifecycle.stats(standby)
    for name in ("edition", "timescaledb", "policies"):
        assert there[name] == here[name]
    assert [table["chunks"] for table in there["hypertables"]] == [table["chunks"] for table in here["hypertables"]]


def test_standby_follows_inserts_refreshes_and_new_aggregates(primary, standby, edition):
    at = "date_trunc('hour', now()) + interval '2 minutes'"
    primary.execute(f"INSERT INTO timeseries_data (source_id, timestamp, close, high) VALUES (1, {at}, 8, 77)")
    _follow(primary, standby)
    newest = "SELECT close, high FROM daily_ohlcv WHERE source_id = 1 ORDER BY day DESC LIMIT 1"
    assert standby.execute(newest).fetchall() == primary.execute(newest).fetchall() == [(8, 77)]
    lifecycle.refresh(primary)
    if edition == "community":
        assert lifecycle.compress(primary, "30 days") != []
    primary.execute("SELECT add_rollup('weekly_highs', 'timeseries_data', '7 days', ARRAY['source_id'],"
                    " ARRAY['max(high) AS high'])")
    _follow(primary, standby)
    for relation in (*SERVED, "weekly_highs"):
        assert _rows(standby, relation) == _rows(primary, relation)
    assert max(row for row, in standby.execute("SELECT max(high) FROM weekly_highs").fetchall()) == 77


@pytest.mark.parametrize("statement", [
    "INSERT INTO timeseries_data (source_id, timestamp, close) VALUES (1, now(), 5)",
    "UPDATE timeseries_data SET close = 5",
    "DELETE FROM timeseries_data",
    "TRUNCATE timeseries_data",
    "SELECT refresh_all_aggregates()",
    "CALL refresh_aggregates(now() - interval '9 days', now())",
    "CALL apply_retention()",
    "CALL maintain()",
    "CREATE TEMPORARY TABLE scratch (n integer)",
])
def test_standby_refuses_to_write(standby, statement):
    before = _rows(standby, "timeseries_data")
    with pytest.raises(psycopg.Error) as refused:
        standby.execute(statement)
    assert refused.value.sqlstate == "25006"
    assert _rows(standby, "timeseries_data") == before


def test_question_gives_way_to_a_drop_in_the_end(pair, primary, standby):
    """Here soon, on the page's settings after five minutes."""
    _follow(primary, standby)
    standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = '300ms'")
    standby.execute("SELECT pg_reload_conf()")
    try:
        primary.execute("CREATE TABLE prints (ts timestamptz NOT NULL, price float8)")
        primary.execute("SELECT create_hypertable('prints', by_range('ts', interval '1 day'))")
        primary.execute("INSERT INTO prints SELECT generate_series(now() - interval '5 days', now(), '1 hour'), 1")
        _follow(primary, standby)
        with psycopg.connect(pair[1].url("desk")) as reader:
            (count,) = reader.execute("SELECT count(*) FROM prints").fetchone()
            primary.execute("SELECT drop_chunks('prints', older_than => interval '2 days')")
            with pytest.raises(psycopg.OperationalError) as conflict:
                for _ in range(100):
                    assert reader.execute("SELECT count(*) FROM prints").fetchone() == (count,)
                    time.sleep(0.1)
            assert conflict.value.sqlstate in {"40001", "40P01"}
        _follow(primary, standby)
        assert standby.execute("SELECT count(*) FROM prints").fetchone()[0] < count
    finally:
        standby.execute("ALTER SYSTEM RESET max_standby_streaming_delay")
        standby.execute("SELECT pg_reload_conf()")
        primary.execute("DROP TABLE IF EXISTS prints")


def test_runner_says_in_one_line_what_a_standby_cannot_do(pair, tmp_path):
    def tidemark(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from tidemark.cli import main; main()", *arguments], capture_output=True, text=True,
            env={**os.environ, "DATABASE_URL": pair[1].url("desk")}, cwd=ROOT,
        )

    assert tidemark("status", "--exit-code").returncode == 0
    assert tidemark("migrate").returncode == 0  # because there is nothing to do
    file = tmp_path / "prices.csv"
    file.write_text("time,value\n2024-01-01,1\n")
    refused = tidemark("load", str(file))
    assert refused.returncode == 1
    assert "takes no changes" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_standby_that_was_away_catches_up(pair, primary):
    server = pair[1]
    server.stop()
    primary.execute("INSERT INTO timeseries_data (source_id, timestamp, close)"
                    " VALUES (1, date_trunc('hour', now()) + interval '3 minutes', 9)")
    primary.execute("SELECT pg_switch_wal()")
    primary.execute("CHECKPOINT")  # without the slot, what the standby misses might be gone
    server.start()
    with psycopg.connect(server.url("desk"), autocommit=True) as standby:
        _follow(primary, standby)
        assert _rows(standby, "daily_ohlcv") == _rows(primary, "daily_ohlcv")
        assert standby.execute("SELECT close FROM daily_ohlcv WHERE source_id = 1 ORDER BY day DESC LIMIT 1"
                               ).fetchone() == (9,)
