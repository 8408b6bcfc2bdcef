"""A move brings everything into another server: the other edition, another major, and back.

The target is of the other edition where the machine has one, and of the installation that TIDEMARK_TEST_TARGET_PG_BIN
names.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from click.testing import CliRunner
from conftest import Database, _database
from psycopg.conninfo import conninfo_to_dict

from tidemark import backup, catalog, migrations, move
from tidemark.cli import main
from tidemark.errors import Problem
from tidemark.installation import find_installation, inspect
from tidemark.server import throwaway

FILL = """
    INSERT INTO assets (symbol, asset_type) SELECT 'M' || i, 'stock' FROM generate_series(1, 2) AS i;
    INSERT INTO sources (source_id, name, data_type) VALUES (7, 'by hand', 'ohlcv');
    INSERT INTO users (username, email) SELECT 'm' || i, 'm' || i || '@example.org' FROM generate_series(1, 5) AS i;
    UPDATE users SET full_name = 'changed' WHERE username = 'm1';
    INSERT INTO watchlists (user_id, name) SELECT user_id, 'mine' FROM users;
    INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)
    SELECT asset_id, '1m', timestamptz '2024-01-01 00:00+00' + i * interval '10 minutes', 10, 11, 9, 10 + sin(i), i
      FROM assets, generate_series(0, 4000) AS i;
    UPDATE candles SET close = 100, high = 101 WHERE ts = '2024-01-20 10:00+00';
    INSERT INTO timeseries_data (source_id, timestamp, value, open, high, low, close, volume, metadata)
    SELECT 7, timestamptz '2023-10-01 00:00+00' + i * interval '6 hours', i, 10, 12, 8, 10 + sin(i), 5, '{"a": 1}'
      FROM generate_series(0, 500) AS i;
    DELETE FROM timeseries_data WHERE timestamp = '2023-12-12 00:00+00';

    CREATE TABLE readings (at timestamptz NOT NULL, series integer NOT NULL, price float8, tags text[],
                        PRIMARY KEY (series, at));
    SELECT create_hypertable('readings', by_range('at', interval '1 day'), create_default_indexes => false);
    INSERT INTO readings SELECT timestamptz '2024-01-01 00:00+00' + i * interval '10 minutes', i % 5, i / 7.0, '{a,b}'
      FROM generate_series(1, 1000) AS i;
    SELECT attach_quality('readings'), attach_audit('readings');
    SELECT add_rollup('readings_hourly', 'readings', interval '1 hour', ARRAY['series'],
                      ARRAY['max(price) AS price', 'count(*) AS n']);
    CREATE TYPE mood AS ENUM ('sad', 'good');
    CREATE SCHEMA mine;
    CREATE TABLE mine.notes (
        note_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id uuid REFERENCES users, mood mood, moods mood[],
        body text, length integer GENERATED ALWAYS AS (length(body)) STORED, "an Odd name" float8 DEFAULT '-0'
    );
    COMMENT ON COLUMN mine.notes.mood IS 'How it was.';
    INSERT INTO mine.notes (user_id, mood, moods, body) SELECT user_id, 'good', '{sad,good}', 'n' FROM users;
    CREATE FUNCTION mine.upper_body() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.body := upper(NEW.body); RETURN NEW; END';
    CREATE TRIGGER trg_upper BEFORE INSERT ON mine.notes FOR EACH ROW EXECUTE FUNCTION mine.upper_body();
    CREATE INDEX notes_mood_idx ON mine.notes (mood);
    SELECT attach_audit('mine.notes');
    UPDATE mine.notes SET body = 'changed' WHERE note_id = 2;
    CREATE VIEW mine.hourly AS SELECT * FROM readings_hourly;
    CREATE VIEW mine.daily AS SELECT * FROM daily_ohlcv;
    SELECT set_config('tidemark.reason', 'for the test', false);
    INSERT INTO validation_rules (name, applies_to, rule_type, parameters, severity)
    VALUES ('mine', 'candles', 'expression', '{"expression": "close < 50"}', 'warning');
    UPDATE data_policies SET drop_after = interval '100 years' WHERE hypertable = 'candles';
    SELECT count(*) FROM seal_audit();
"""
LATER = """
    INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)
    SELECT asset_id, '1m', timestamptz '2024-02-01' + i * interval '10 minutes', 10, 11, 9, 10, i
      FROM assets, generate_series(0, 100) AS i;
    UPDATE candles SET close = 10.5 WHERE ts = '2024-01-24 10:00+00';
    DELETE FROM readings WHERE at < '2024-01-01 02:00+00';
    UPDATE users SET full_name = 'later' WHERE username = 'm4';
    DELETE FROM watchlists WHERE user_id = (SELECT user_id FROM users WHERE username = 'm5');
    INSERT INTO mine.notes (body) VALUES ('later');
    CREATE TABLE mine.second AS SELECT 1 AS one;
    SELECT count(*) FROM seal_audit();
"""
AGGREGATES = {  # sums of floats depend on the order in which they are taken
    "candles_5m": "asset_id, bucket, open, high, low, close, volume", "candles_days": "*", "readings_hourly": "*",
    "candles_1d": "asset_id, bucket, open, high, low, close, volume", "daily_ohlcv": "*", "mine.hourly": "*",
    "timeseries_data_days": "*", "hourly_values": "source_id, hour, min_value, max_value, last_value, samples",
}


def fill(database: Database) -> None:
    """With raw rows dropped below aggregates."""
    with database.connect() as connection:
        connection.execute(FILL)
        connection.execute("CALL refresh_aggregates()")
        for table, before in (("candles", "2024-01-15"), ("timeseries_data", "2023-11-15")):
            connection.execute(f"SELECT count(*) FROM drop_chunks('{table}', timestamptz '{before} 00:00+00')")
        connection.execute("CALL refresh_aggregates()")


@pytest.fixture(scope="module")
def target(edition) -> Iterator[SimpleNamespace]:
    """A second server."""
    elsewhere = os.environ.get("TIDEMARK_TEST_TARGET_PG_BIN")
    installation = inspect(Path(elsewhere)) if elsewhere else find_installation(edition)
    others = [name for name in installation.editions if name != edition]
    with throwaway(installation, (others or installation.editions)[0]) as server:
        parameters = conninfo_to_dict(server.url("postgres"))
        yield SimpleNamespace(host=parameters["host"], port=parameters["port"], user="postgres", password=None,
                              maintenance_dbname="postgres")


@pytest.fixture
def source(server, template) -> Iterator[Database]:
    with _database(server, template) as database:
        fill(database)
        yield database


@pytest.fixture
def fresh(target) -> Iterator[Database]:
    """An empty database of the target's."""
    with _database(target, None) as database:
        yield database


def held(database: Database) -> dict[str, list]:
    """Rows and checksum of every table, and where the sequences stand."""
    with database.connect() as connection:
        connection.execute("SET search_path = pg_catalog; SET timezone = 'UTC'")
        tables = {name: backup._fingerprint(connection, table) for name, table in backup._tables(connection).items()}
        return tables | {name: [one.upcoming] for name, one in backup.sequences(connection).items()}


def asked(database: Database, query: str) -> list[tuple]:
    with database.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        return connection.execute(query).fetchall()


def assert_same(source: Database, fresh: Database) -> None:
    for name, columns in AGGREGATES.items():
        query = f"SELECT {columns} FROM {name} AS t ORDER BY 1, 2, 3"
        assert asked(fresh, query) == asked(source, query), name
    made = {f"public.{name}" for name, in asked(source, "SELECT name FROM _tidemark.rollups")}
    expected, found = ({name: facts for name, facts in held(database).items()
                        if name.startswith(("public.", "mine.")) and name not in made} for database in (source, fresh))
    assert found == expected
    assert asked(fresh, "SELECT * FROM verify_audit()") == []


def test_everything_arrives_and_goes_on(source, fresh):
    before = held(source)
    said = []
    moved = move.move(source.url, fresh.url, say=said.append)
    assert not any("policy_compression" in line for line in said)  # its policy comes along
    assert held(source) == before
    assert_same(source, fresh)
    rows = {one.relation: one.rows for one in moved}
    assert rows["public.candles"] == asked(source, "SELECT count(*) FROM candles")[0][0] > 0
    assert min(asked(fresh, "SELECT min(bucket) FROM candles_1d")[0][0],
               asked(fresh, "SELECT min(ts) FROM candles")[0][0]).day == 1  # its raw rows are gone
    with fresh.connect() as connection:
        assert migrations.make_plan(connection).up_to_date
        assert catalog.differences(connection) == []
        connection.execute("INSERT INTO readings (at, series, price) VALUES ('2024-01-07 01:05+00', 1, 3.21)")
        assert connection.execute("SELECT quality_score FROM readings WHERE price = 3.21").fetchone()[0] is not None
        note = connection.execute("INSERT INTO mine.notes (body) VALUES ('new') RETURNING note_id, body").fetchone()
        assert note == (6, "NEW")
        asset = connection.execute("INSERT INTO candles (asset_id, interval, ts, close) SELECT asset_id, '1m',"
                                   " '2024-03-01', 60 FROM assets LIMIT 1 RETURNING asset_id").fetchone()[0]
        assert connection.execute(
            "SELECT count(*) FROM quality_issues AS i JOIN validation_rules AS r USING (rule_id)"
            " WHERE r.name = 'mine' AND i.series ->> 'asset_id' = %s AND i.ts = '2024-03-01'", (str(asset),),
        ).fetchone() == (1,)
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("DELETE FROM audit_log")
        assert refused.value.sqlstate == "TM403"
        assert connection.execute("SELECT count(*) FROM seal_audit()").fetchone() == (1,)
        assert connection.execute("SELECT * FROM verify_audit()").fetchall() == []


def test_second_pass_brings_what_came_meanwhile_and_only_that(source, fresh):
    move.move(source.url, fresh.url)
    with source.connect() as connection:
        connection.execute(LATER)
        connection.execute("SELECT count(*) FROM drop_chunks('candles', timestamptz '2024-01-19')")
    assert "tidemark refresh" in refused(source.url, fresh.url).hint
    with source.connect() as connection:
        connection.execute("CALL refresh_aggregates()")
    with fresh.connect() as connection:  # which nobody should
        connection.execute("UPDATE candles SET close = 77 WHERE ts = '2024-01-20 11:00+00'")
    moved = {one.relation: one for one in move.move(source.url, fresh.url)}
    assert_same(source, fresh)
    assert (moved["public.sources"].copied, moved["public.timeseries_data"].copied) == (0, 0)
    assert 0 < moved["public.candles"].copied < moved["public.candles"].parts
    assert moved["public.readings"].copied == 1
    assert asked(fresh, "SELECT one FROM mine.second") == [(1,)]
    again = CliRunner().invoke(main, ["move", source.url, fresh.url, "--json"])
    assert again.exit_code == 0, again.output
    # But for what each database knows of itself: where the columns of its tables lie.
    assert {one["relation"] for one in json.loads(again.stdout) if one["copied"]} <= {"_tidemark.audit_shapes"}
    assert "are the same in both" in again.stderr


def test_interrupted_move_and_one_that_loses_something_are_made_good(source, fresh, monkeypatch):
    bring, stream, done = move._bring, move._stream, []

    def interrupted(*arguments):
        if len(done) == 20:
            raise KeyboardInterrupt
        done.append(arguments)
        return bring(*arguments)

    def lossy(reader, writer, part, target):
        stream(reader, writer, part, target)
        if part.relation == "public.users":
            writer.execute("UPDATE public.users SET full_name = 'forged' WHERE username = 'm3'")

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(move, "_bring", interrupted)
        move.move(source.url, fresh.url)
    with monkeypatch.context() as patched, pytest.raises(Problem, match=r"public\.users did not arrive"):
        patched.setattr(move, "_stream", lossy)
        move.move(source.url, fresh.url)
    moved = move.move(source.url, fresh.url)
    assert sum(one.parts - one.copied for one in moved if one.rows) > 0  # what had arrived did not come again
    assert_same(source, fresh)


def refused(source: str, target: str) -> Problem:
    with pytest.raises(Problem) as raised:
        move.move(source, target)
    assert raised.value.exit_code == 2
    return raised.value


def test_target_that_holds_something_else_is_refused(db, fresh, target):
    with fresh.connect() as connection:
        connection.execute("CREATE TABLE theirs (i integer)")
    assert "not empty" in refused(db.url, fresh.url).message
    assert "not empty" in refused(db.url, db.url).message
    result = CliRunner().invoke(main, ["move", db.url, fresh.url])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_target_that_another_database_moved_into_is_refused(db, fresh):
    with fresh.connect() as connection:
        connection.execute(move.STATEMENTS["ledger"] + "; INSERT INTO _tidemark_move.origin VALUES ('another')")
    assert "another database" in refused(db.url, fresh.url).message


def test_source_that_is_none_is_refused(empty, db, fresh):
    assert "not a database of Tidemark" in refused(empty.url, fresh.url).message
    with db.connect() as connection:
        connection.execute("DELETE FROM _tidemark_migrations.applied_files"
                           " WHERE file = (SELECT max(file) FROM _tidemark_migrations.applied_files)")
    assert "tidemark migrate" in refused(db.url, fresh.url).hint


def test_role_without_the_rights_is_refused(db, fresh):
    for database in (db, fresh):
        with contextlib.suppress(psycopg.Error), database.connect() as connection:
            connection.execute("CREATE ROLE move_test LOGIN PASSWORD 'move test'")
    login = {"host": "127.0.0.1", "user": "move_test", "password": "move test"}
    try:
        refused(psycopg.conninfo.make_conninfo(db.url, **login), fresh.url)
        with fresh.connect() as connection:
            connection.execute("GRANT CREATE ON SCHEMA public TO move_test; ALTER ROLE move_test CREATEROLE;"
                               f"GRANT CREATE ON DATABASE {connection.info.dbname} TO move_test")
        assert "superuser" in refused(db.url, psycopg.conninfo.make_conninfo(fresh.url, **login)).hint
    finally:
        for database in (db, fresh):
            with contextlib.suppress(psycopg.errors.UndefinedObject), database.connect() as connection:
                connection.execute("DROP OWNED BY move_test; DROP ROLE move_test")
