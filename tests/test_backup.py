"""What a backup holds is what a restore gives back: rows, definitions, jobs, roles, and a database that takes rows."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from conftest import Database, _database
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tidemark import backup, migrations
from tidemark.backup import Manifest
from tidemark.errors import Problem
from tidemark.installation import find_installation
from tidemark.server import Server, throwaway

FILL = """
    INSERT INTO assets (asset_id, symbol, asset_type)
    SELECT gen_random_uuid(), 'B' || i, 'stock' FROM generate_series(1, 20) AS i;
    INSERT INTO sources (name, data_type, asset_id) SELECT 'source ' || symbol, 'ohlcv', asset_id FROM assets;
    INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, metadata)
    SELECT source_id, timestamptz '2024-01-01 00:00+00' + i * interval '1 day', 10, 11 + 1e-9 / i, 9, 10, i, '{"a": 1}'
      FROM sources, generate_series(1, 90) AS i;
    INSERT INTO users (username, email) SELECT 'b' || i, 'b' || i || '@example.org' FROM generate_series(1, 3) AS i;
    INSERT INTO watchlists (user_id, name) SELECT user_id, 'mine' FROM users;

    CREATE TABLE prints (at timestamptz NOT NULL, series integer NOT NULL, price float8, note text);
    SELECT create_hypertable('prints', by_range('at', interval '1 day'));
    CREATE TABLE prints_log (n bigint GENERATED ALWAYS AS IDENTITY, price float8);
    CREATE FUNCTION log_tick() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.prints_log (price) VALUES (coalesce(NEW.price, OLD.price)); RETURN NULL; END';
    INSERT INTO prints SELECT timestamptz '2024-01-01 00:00+00' + i * interval '1 minute', i % 5, i / 7.0, 'tick ' || i
      FROM generate_series(1, 10000) AS i;
    INSERT INTO prints VALUES ('2024-01-03 00:00:00.000001+00', 9, 'NaN', NULL), ('2024-01-03', 9, '-0', '');
    CREATE TRIGGER trg_log AFTER INSERT OR DELETE ON prints FOR EACH ROW EXECUTE FUNCTION log_tick();
    INSERT INTO prints VALUES ('2024-01-04 12:00+00', 1, 1, 'logged once');
    CREATE VIEW unnamed AS SELECT 'one'::text AS a, NULL::integer AS int4 UNION ALL SELECT NULL::text, 2;
    CREATE TABLE spent (n bigint GENERATED ALWAYS AS IDENTITY);
    INSERT INTO spent SELECT FROM generate_series(1, 5);
    DELETE FROM spent;
    CREATE TABLE vault (owner text, secret bytea);
    INSERT INTO vault SELECT 'somebody', sha256(i::text::bytea) FROM generate_series(1, 9) AS i;
    ALTER TABLE vault ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON vault USING (owner = current_user);
    CREATE TRIGGER trg_always AFTER INSERT ON vault EXECUTE FUNCTION log_tick();
    ALTER TABLE vault ENABLE ALWAYS TRIGGER trg_always;
    CREATE TRIGGER trg_off AFTER INSERT ON vault EXECUTE FUNCTION log_tick();
    ALTER TABLE vault DISABLE TRIGGER trg_off;
"""
FILL_COMMUNITY = """
    ALTER TABLE prints SET (timescaledb.compress, timescaledb.compress_segmentby = 'series',
                           timescaledb.compress_orderby = 'at');
    SELECT compress_chunk(c) FROM show_chunks('prints', older_than => timestamptz '2024-01-04') AS c;
    SELECT add_compression_policy('prints', interval '30 days');
    CREATE MATERIALIZED VIEW prints_hourly WITH (timescaledb.continuous) AS
    SELECT time_bucket('1 hour', at) AS hour, series, avg(price) AS price, count(*) AS n FROM prints GROUP BY 1, 2
    WITH NO DATA;
    SELECT add_continuous_aggregate_policy('prints_hourly', interval '100 years', interval '1 hour', interval '1 hour');
    CREATE PROCEDURE beat(job_id int, config jsonb) LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.prints_log (price) VALUES (job_id); END';
    SELECT add_job('beat', '1 second', config => '{"a": [1, 2]}');
"""


def fill(database: Database, edition: str) -> None:
    with database.connect() as connection:
        for statement in (FILL, FILL_COMMUNITY if edition == "community" else ""):
            connection.execute(statement)
        if edition == "community":
            connection.execute("CALL refresh_continuous_aggregate('prints_hourly', '2024-01-01', '2024-01-05')")
        connection.execute(sql.SQL("ALTER DATABASE {} SET search_path = public, \"$user\"").format(
            sql.Identifier(connection.info.dbname)))


@dataclass(frozen=True)
class Saved:
    """A filled database and its backup."""

    database: Database
    directory: Path
    manifest: Manifest


@pytest.fixture(scope="module")
def roles(server) -> Iterator[str]:
    """A login that belongs to a group with rights in the databases below."""
    admin = make_conninfo(host=server.host, port=server.port, user=server.user, password=server.password,
                          dbname=server.maintenance_dbname)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE ROLE backup_group; CREATE ROLE \"backup Login\" LOGIN CONNECTION LIMIT 7;"
                           "GRANT backup_group TO \"backup Login\" WITH ADMIN OPTION;"
                           "ALTER ROLE \"backup Login\" SET search_path = \"My Schema\", public;"
                           "ALTER ROLE \"backup Login\" SET statement_timeout = '3s'")
        yield "backup_group"
        connection.execute("DROP ROLE backup_group, \"backup Login\"")


@pytest.fixture(scope="module")
def saved(server, template, edition, roles, tmp_path_factory) -> Iterator[Saved]:
    with _database(server, template) as database:
        fill(database, edition)
        with database.connect() as connection:
            connection.execute(f"GRANT SELECT ON vault TO {roles}; ALTER TABLE prints_log OWNER TO {roles}")
        directory = tmp_path_factory.mktemp("backup") / "saved"
        yield Saved(database, directory, backup.backup(database.url, directory))
        with database.connect() as connection:
            connection.execute(f"DROP OWNED BY {roles}")


@pytest.fixture(scope="module")
def restored(server, saved, roles) -> Iterator[Database]:
    with _database(server, None) as database:
        backup.restore(database.url, saved.directory)
        yield database
        with database.connect() as connection:
            connection.execute(f"DROP OWNED BY {roles}")


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    """A backup of the test's own, to be tampered with."""
    return shutil.copytree(saved.directory, tmp_path / "copy")


def edit(directory: Path, **changes: object) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rows(database: Database, statement: str) -> list[tuple]:
    with database.connect() as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("query", [
    "SELECT * FROM prints ORDER BY at, series",
    "SELECT source_id, timestamp, high, metadata FROM timeseries_data ORDER BY 1, 2",
    "SELECT * FROM prints_log ORDER BY n",
    "SELECT * FROM watchlists ORDER BY 1",
    "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE tgname ~ '^trg_' ORDER BY 1, 2",
    "SELECT relname, relrowsecurity, pg_get_userbyid(relowner), relacl FROM pg_class WHERE relname IN"
    " ('vault', 'prints_log', 'candles') ORDER BY 1",
    "SELECT job_id, proc_name, schedule_interval, config, scheduled FROM timescaledb_information.jobs ORDER BY 1",
    "SELECT hypertable_name, range_start, is_compressed FROM timescaledb_information.chunks ORDER BY 1, 2",
    "SELECT setconfig FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase"
    " WHERE datname = current_database()",
    "SELECT file, sha256 FROM _tidemark_migrations.applied_files ORDER BY 1",
])
def test_restored_database_answers_as_its_origin(saved, restored, query):
    expected = rows(saved.database, query)
    assert repr(rows(restored, query)) == repr(expected)  # repr: NaN is not equal to itself
    assert expected or "jobs" in query


@pytest.mark.community
def test_continuous_aggregate_keeps_what_it_stored(saved, restored, edition):
    stored = "SELECT * FROM prints_hourly ORDER BY 1, 2"
    assert repr(rows(restored, stored)) == repr(rows(saved.database, stored))
    with restored.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("DELETE FROM prints")  # not there any more, and yet the aggregate has it
        assert connection.execute("SELECT count(*) FROM prints_hourly").fetchone()[0] > 0


def test_restored_database_takes_rows_and_its_sequences_go_on(restored):
    with restored.connect() as connection, connection.transaction(force_rollback=True):
        highest = connection.execute("SELECT max(source_id) FROM sources").fetchone()[0]
        connection.execute("INSERT INTO prints VALUES (now(), 1, 1, 'new')")
        new = connection.execute("INSERT INTO sources (name, data_type) VALUES ('new', 'scalar') RETURNING source_id")
        assert new.fetchone()[0] > highest


def test_restored_database_is_up_to_date_for_the_runner(restored):
    with restored.connect() as connection:
        assert migrations.make_plan(connection).up_to_date


def test_verify_accepts_a_good_backup_and_brings_its_roles(saved):
    manifest = backup.verify(saved.directory)
    assert manifest.tables["public.prints"][0] == 10003
    assert {role["name"] for role in manifest.roles} >= {"backup_group", "backup Login"}


def test_verify_names_what_differs(saved, copy):
    tables = {**saved.manifest.tables, "public.prints": [10004, "1"], "public.absent": [0, "0"]}
    edit(copy, tables=tables)
    with pytest.raises(Problem) as refused:
        backup.verify(copy)
    assert "public.prints" in refused.value.detail
    assert "public.absent" in refused.value.detail
    assert "public.assets" not in refused.value.detail


LOSSES = {
    "a row is missing": ("DELETE FROM watchlists WHERE user_id = (SELECT min(user_id::text)::uuid FROM users)",
                         "public.watchlists"),
    "a value is changed": ("UPDATE prints SET note = 'other' WHERE series = 9 AND price = 0", "public.prints"),
    "a value is in another row": ("UPDATE vault SET secret = sha256(secret)", "public.vault"),
    "a sequence is behind": ("ALTER SEQUENCE sources_source_id_seq RESTART 2", "public.sources_source_id_seq"),
    "a sequence gives its numbers again": ("ALTER SEQUENCE spent_n_seq RESTART 1", "public.spent_n_seq"),
    "a trigger is off": ("ALTER TABLE vault DISABLE TRIGGER trg_always", "vault.trg_always"),
    "a trigger is only on by default": ("ALTER TABLE vault ENABLE TRIGGER trg_always", "vault.trg_always"),
    "row security is off": ("ALTER TABLE vault DISABLE ROW LEVEL SECURITY", "public.vault"),
    "a policy is gone": ("DROP POLICY own ON vault", "public.vault.own"),
    "a constraint is gone": ("ALTER TABLE watchlists DROP CONSTRAINT watchlists_user_id_fkey",
                             "watchlists_user_id_fkey"),
    "a privilege is gone": ("REVOKE SELECT ON vault FROM backup_group", "public.vault"),
    "an owner is another": ("ALTER TABLE prints_log OWNER TO CURRENT_USER", "public.prints_log"),
    "a chunk is gone": ("SELECT drop_chunks('prints', timestamptz '2024-01-02')", "_hyper_"),
    "a view is another": ("CREATE OR REPLACE VIEW unnamed AS SELECT 'one'::text AS a, NULL::integer AS int4"
                          " UNION ALL SELECT NULL::text, 3", "public.unnamed"),
    "a function is another": ("CREATE OR REPLACE FUNCTION log_tick() RETURNS trigger LANGUAGE plpgsql"
                              " AS 'BEGIN RETURN NULL; END'", "public.log_tick()"),
}
LOSSES_COMMUNITY = {
    "a job is paused": ("SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs"
                        " WHERE proc_name = 'beat'", "job "),
    "a policy of compression is gone": ("SELECT remove_compression_policy('prints')", "job "),
    "an aggregate is gone": ("DROP MATERIALIZED VIEW prints_hourly", "public.prints_hourly"),
    "a chunk is decompressed": ("SELECT decompress_chunk(c, true) FROM show_chunks('prints') AS c", "_hyper_"),
}


def found_after(saved: Saved, restored: Database, statement: str) -> list[str]:
    with restored.connect() as connection, connection.transaction(force_rollback=True):
        assert backup.differences(connection, saved.directory, saved.manifest) == []
        with connection.transaction():
            connection.execute("SET LOCAL search_path = public")
            connection.execute(statement)
        return backup.differences(connection, saved.directory, saved.manifest)


@pytest.mark.parametrize("loss", LOSSES)
def test_comparison_sees_that(saved, restored, loss):
    statement, name = LOSSES[loss]
    found = found_after(saved, restored, statement)
    assert any(name in line for line in found), found


@pytest.mark.community
@pytest.mark.parametrize("loss", LOSSES_COMMUNITY)
def test_comparison_sees_on_community_that(saved, restored, edition, loss):
    statement, name = LOSSES_COMMUNITY[loss]
    found = found_after(saved, restored, statement)
    assert any(name in line for line in found), found


@pytest.mark.community
def test_jobs_run_again_after_a_restore(saved, edition):
    workers = {"timescaledb.max_background_workers": "8", "max_worker_processes": "20"}
    with throwaway(find_installation(edition), edition, workers) as server:
        server.create_database("restored")
        backup.restore(server.url("restored"), saved.directory)
        beats = "SELECT count(*) > 0 FROM prints_log WHERE price >= 1000 AND price = round(price)"
        before = rows(saved.database, beats)
        assert before == [(False,)]
        deadline = time.monotonic() + 90
        while not rows(Database(server.url("restored")), beats)[0][0]:
            assert time.monotonic() < deadline, "the job did not run"
            time.sleep(0.2)


def test_backup_is_of_one_instant_while_others_write(db, empty, tmp_path):
    """Each transaction writes one row into both tables: a dump or a manifest of two instants would tell them apart."""
    with db.connect() as connection:
        connection.execute("CREATE TABLE one (i integer); CREATE TABLE two (i integer)")
    stop = threading.Event()

    def write() -> None:
        with db.connect() as connection:
            while not stop.is_set():
                connection.execute("WITH a AS (INSERT INTO one VALUES (1)) INSERT INTO two VALUES (1)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifest = backup.backup(db.url, tmp_path / "b")
    finally:
        stop.set()
        writer.join()
    backup.restore(empty.url, tmp_path / "b")
    assert rows(empty, "SELECT (SELECT count(*) FROM one) - (SELECT count(*) FROM two)") == [(0,)]
    assert rows(empty, "SELECT count(*) FROM one")[0][0] == manifest.tables["public.one"][0]
    assert rows(db, "SELECT count(*) FROM one")[0][0] > manifest.tables["public.one"][0]


def test_directory_that_holds_something_is_refused(db, tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(Problem):
        backup.backup(db.url, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_failing_backup_leaves_nothing_behind(db, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "_program", lambda name, major: Path("/bin/false"))
    with pytest.raises(Problem):
        backup.backup(db.url, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_backup_that_dies_before_its_manifest_leaves_nothing_behind(db, tmp_path, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "_write_json", die)
    with pytest.raises(KeyboardInterrupt):
        backup.backup(db.url, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_no_program_is_given_jobs_or_row_security_or_a_password(db, empty, tmp_path, monkeypatch):
    calls = []
    run = backup._run
    monkeypatch.setattr(backup, "_run", lambda *arguments, **more: (calls.append(arguments), run(*arguments, **more)))
    url = make_conninfo(db.url, password="hunter2hunter2")
    backup.backup(url, tmp_path / "b")
    backup.restore(empty.url, tmp_path / "b")
    assert [call[0].name for call in calls] == ["pg_dump", "pg_restore"]
    said = " ".join(str(word) for call in calls for word in call)
    assert "hunter2" not in said
    assert "hunter2" not in (tmp_path / "b" / "manifest.json").read_text()
    for word in ("-j", "--jobs", "--enable-row-security", "--data-only", "--disable-triggers"):
        assert f" {word}" not in said


def test_nobody_writes_while_a_restore_is_under_way(saved, empty, roles, monkeypatch):
    restoring = []
    run = backup._run

    def look(program: Path, *arguments: str, **more: str) -> None:
        with empty.connect() as connection:
            restoring.append((program.name, connection.execute("SHOW timescaledb.restoring").fetchone()[0]))
        run(program, *arguments, **more)

    monkeypatch.setattr(backup, "_run", look)
    backup.restore(empty.url, saved.directory)
    with empty.connect() as connection:
        restoring.append(("afterwards", connection.execute("SHOW timescaledb.restoring").fetchone()[0]))
        connection.execute(f"DROP OWNED BY {roles}")
    assert restoring == [("pg_restore", "on"), ("afterwards", "off")]


def refused_restore(database: Database, directory: Path) -> Problem:
    with pytest.raises(Problem) as refused:
        backup.restore(database.url, directory)
    return refused.value


def test_database_with_something_in_it_is_refused(copy, empty):
    with empty.connect() as connection:
        connection.execute("CREATE TABLE mine (a integer)")
    assert "mine" in refused_restore(empty, copy).detail
    assert rows(empty, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") == [(0,)]


def test_database_with_nothing_but_the_extension_is_accepted(copy, empty, roles):
    with empty.connect() as connection:
        connection.execute("CREATE EXTENSION timescaledb")
    backup.restore(empty.url, copy)
    with empty.connect() as connection:
        connection.execute(f"DROP OWNED BY {roles}")


@pytest.mark.parametrize(("changes", "word"), [
    ({"timescaledb": "2.18.2"}, "2.18.2"),
    ({"postgresql": "99.1"}, "99"),
    ({"edition": "enterprise"}, "enterprise"),
    ({"extensions": ["no_such_extension"]}, "no_such_extension"),
    ({"roles": [{"name": "lost_superuser", "superuser": True}]}, "lost_superuser"),
])
def test_server_that_cannot_hold_the_backup_is_refused_and_told_why(copy, empty, changes, word):
    edit(copy, **changes)
    problem = refused_restore(empty, copy)
    assert word in problem.message
    assert problem.hint
    assert rows(empty, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") == [(0,)]


@pytest.mark.parametrize(("inherits", "inherit", "set_", "old"), [
    (True, True, True, True), (False, False, True, True), (False, True, True, True), (True, False, True, False),
    (True, True, False, False), (True, False, False, False),
])
def test_membership_on_another_major_never_gives_more(tx, inherits, inherit, set_, old):
    """As PostgreSQL 16 and later know memberships, on a server that may know only one kind."""
    tx.execute("CREATE ROLE zz_group NOLOGIN")
    group = {"role": "zz_group", "admin_option": False, "inherit_option": inherit, "set_option": set_}
    role = dict.fromkeys(backup.ROLE_FLAGS, False) | {
        "name": "zz_member", "inherit": inherits, "connection_limit": -1, "comment": None, "settings": [],
        "member_of": [group]}
    said = []
    backup._create_roles(tx, Manifest("logical", "", roles=[role]), said.append)
    knows = tx.info.server_version >= 160000
    assert tx.execute("SELECT pg_has_role('zz_member', 'zz_group', 'MEMBER')").fetchone()[0] is (knows or old)
    if knows or old:
        assert tx.execute("SELECT pg_has_role('zz_member', 'zz_group', 'USAGE')").fetchone()[0] is (
            inherit if knows else inherits)
    assert any("zz_group" in line for line in said) is not (knows or old)


def test_server_that_names_no_edition_runs_the_default_of_its_build(copy, edition):
    """As PostgreSQL's own configuration and TimescaleDB's image come; an empty database has not loaded the library."""
    installation = find_installation(edition)
    default, other = ("community", "apache") if installation.community else ("apache", "community")
    with throwaway(installation, edition) as server:
        settings = server.directory / "tidemark.conf"
        settings.write_text(re.sub("timescaledb.license.*", "", settings.read_text()))
        server.create_database("target")
        with Database(server.url("target")).connect() as connection:
            connection.execute("SELECT pg_reload_conf()")
        edit(copy, edition=other)
        assert f"runs the {default} edition" in refused_restore(Database(server.url("target")), copy).message
        if default == edition:
            edit(copy, edition=default)
            backup.restore(server.url("target"), copy)


def test_other_version_is_refused_with_both_versions(copy, empty, edition):
    edit(copy, timescaledb="2.18.2")
    assert find_installation(edition).timescaledb in refused_restore(empty, copy).message


@pytest.mark.parametrize("name", ["database.dump", "catalogue.json"])
def test_changed_or_missing_file_is_refused_by_name(copy, empty, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert name in refused_restore(empty, copy).message
    (copy / name).unlink()
    assert name in refused_restore(empty, copy).message


def test_directory_without_a_manifest_is_no_backup(empty, tmp_path):
    assert refused_restore(empty, tmp_path).exit_code == 2


@contextlib.contextmanager
def login(database: Database, options: str, grants: str = "") -> Iterator[str]:
    """The URL of a role that exists for the test."""
    with database.connect() as connection:
        connection.execute(f"CREATE ROLE backup_test LOGIN {options} PASSWORD 'backup test'; {grants}")
        try:
            # peer authentication knows the superuser only
            yield make_conninfo(database.url, host="127.0.0.1", user="backup_test", password="backup test")
        finally:
            connection.execute("DROP OWNED BY backup_test; DROP ROLE backup_test")


def test_role_bound_by_row_security_is_refused(db, tmp_path):
    with db.connect() as connection:
        connection.execute("CREATE TABLE a_vault (a integer); ALTER TABLE a_vault ENABLE ROW LEVEL SECURITY")
    with login(db, "", "GRANT pg_read_all_data TO backup_test") as url:
        with pytest.raises(Problem) as refused:
            backup.backup(url, tmp_path / "b")
        assert "a_vault" in refused.value.detail
        assert list(tmp_path.iterdir()) == []


def test_role_that_may_not_read_everything_is_refused(db, tmp_path):
    with db.connect() as connection:
        connection.execute("CREATE TABLE closed (a integer)")
    with login(db, "BYPASSRLS") as url, pytest.raises(Problem) as refused:
        backup.backup(url, tmp_path / "b")
    assert refused.value.detail


def test_role_that_bypasses_row_security_and_reads_everything_makes_a_whole_backup(saved, tmp_path):
    with login(saved.database, "BYPASSRLS", "GRANT pg_read_all_data TO backup_test") as url:
        manifest = backup.backup(url, tmp_path / "b")
    assert manifest.tables == saved.manifest.tables


def test_manifest_names_the_last_seal(db, tmp_path):
    with db.connect() as connection:
        connection.execute("INSERT INTO users (username, email) VALUES ('sealed', 'sealed@example.org')")
        connection.execute("SELECT seal_audit()")
        expected = connection.execute("SELECT encode(root, 'hex') FROM audit_seals ORDER BY seal_id DESC").fetchone()[0]
    assert backup.backup(db.url, tmp_path / "b").seal["root"] == expected


OVERTAKEN = """
    INSERT INTO sources (source_id, name, data_type) VALUES (1, 'first by hand', 'scalar'), (7, 'by hand', 'scalar');
    CREATE TABLE always (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
    INSERT INTO always OVERRIDING SYSTEM VALUE VALUES (40);
    CREATE TABLE serials (n serial, other integer);
    ALTER TABLE serials ALTER other SET DEFAULT nextval('serials_n_seq');
    INSERT INTO serials (n, other) VALUES (1, 90);
    CREATE SEQUENCE down INCREMENT -1;
    CREATE TABLE debts (n integer DEFAULT nextval('down'));
    INSERT INTO debts VALUES (-5);
    CREATE SEQUENCE texts;
    CREATE TABLE invoices (number text DEFAULT 'I-' || nextval('texts'));
    INSERT INTO invoices SELECT FROM generate_series(1, 3);
    CREATE TABLE spent_all (n bigint GENERATED ALWAYS AS IDENTITY);
    SELECT setval('spent_all_n_seq', 9223372036854775807);
"""


def test_rows_that_bring_their_own_ids_are_restored_as_they_are(db, empty, tmp_path):
    with db.connect() as connection:
        connection.execute(OVERTAKEN)
    manifest = backup.backup(db.url, tmp_path / "b")
    assert {name for name, (_, _, was_overtaken) in manifest.sequences.items() if was_overtaken} == {
        "public.sources_source_id_seq", "public.always_n_seq", "public.serials_n_seq", "public.down",
    }
    backup.verify(tmp_path / "b")
    backup.restore(empty.url, tmp_path / "b")
    assert rows(empty, "SELECT max(source_id), current_setting('timescaledb.restoring') FROM sources") == [(7, "off")]
    with empty.connect() as connection:
        connection.execute("ALTER SEQUENCE down RESTART -1; ALTER SEQUENCE texts RESTART 2")
        found = backup.differences(connection, tmp_path / "b", manifest)
    assert [name for name in ("public.down", "public.texts") if any(name in line for line in found)] == ["public.texts"]


def test_sequence_that_counts_down_and_was_set_back_is_seen(db, empty, tmp_path):
    with db.connect() as connection:
        connection.execute("CREATE TABLE debts (n integer GENERATED ALWAYS AS IDENTITY (INCREMENT -1));"
                           "INSERT INTO debts SELECT FROM generate_series(1, 5)")
    manifest = backup.backup(db.url, tmp_path / "b")
    backup.restore(empty.url, tmp_path / "b")
    with empty.connect() as connection:
        connection.execute("ALTER SEQUENCE debts_n_seq RESTART -2")
        found = backup.differences(connection, tmp_path / "b", manifest)
    assert any("public.debts_n_seq" in line for line in found), found


def test_role_that_cannot_restore_is_told_so_in_time(saved, empty, copy, tmp_path):
    said = []
    with login(saved.database, "BYPASSRLS", "GRANT pg_read_all_data TO backup_test") as url:
        backup.backup(url, tmp_path / "b", say=said.append)
    assert [line for line in said if "superuser" in line], said
    with login(empty, "BYPASSRLS CREATEDB", "GRANT CREATE ON SCHEMA public TO backup_test") as url:
        with pytest.raises(Problem) as refused:
            backup.restore(url, copy)
        assert refused.value.exit_code == 2
        assert "superuser" in refused.value.hint
    assert rows(empty, "SELECT to_regclass('assets'), current_setting('timescaledb.restoring', true)")[0][0] is None


# Physical backups -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archiving(edition) -> Iterator[tuple[Server, Path]]:
    """A server whose WAL is archived, with a filled database."""
    wal = Path(tempfile.mkdtemp(prefix="tidemark-wal-"))
    wal.chmod(0o777)
    hba = wal / "pg_hba.conf"
    hba.write_text("local all,replication all peer map=tidemark\n")
    settings = {"archive_mode": "on", "archive_command": f"cp %p {wal}/%f", "hba_file": str(hba)}
    with throwaway(find_installation(edition), edition, settings) as server:
        server.create_database()
        database = Database(server.url())
        with database.connect() as connection:
            migrations.migrate(connection)
        fill(database, edition)
        yield server, wal
    shutil.rmtree(wal)


def test_physical_backup_is_verified_and_damage_is_found(archiving, tmp_path):
    server, _ = archiving
    manifest = backup.backup(server.url(), tmp_path / "b", physical=True)
    assert manifest.tables["public.prints"][0] == 10003
    backup.verify(tmp_path / "b")
    edit(tmp_path / "b", tables={**manifest.tables, "public.prints": [1, "1"]})
    with pytest.raises(Problem) as refused:
        backup.verify(tmp_path / "b")
    assert "public.prints" in refused.value.detail
    with pytest.raises(Problem) as refused:
        backup.restore(server.url("postgres"), tmp_path / "b")
    assert refused.value.hint
    victim = max((tmp_path / "b" / "base" / "base").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    with victim.open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(Problem) as refused:
        backup.verify(tmp_path / "b")
    assert victim.name in refused.value.detail


def recover(server: Server, base: Path, wal: Path, target: str) -> None:
    """Put a server's data back to the base backup and replay the archive up to the target."""
    owner = server.data.stat()
    server.stop("immediate")
    shutil.rmtree(server.data)
    shutil.copytree(base, server.data, symlinks=True)
    with (server.data / "postgresql.auto.conf").open("w") as conf:
        conf.write(f"restore_command = 'cp {wal}/%f %p'\nrecovery_target_name = '{target}'\n"
                   "recovery_target_action = 'promote'\n")
    (server.data / "recovery.signal").touch()
    subprocess.run(["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", server.data], check=True)
    server.data.chmod(0o700)
    server.start()


def test_recovery_to_a_marker_shows_its_transaction_and_not_the_next(archiving, tmp_path):
    server, wal = archiving
    backup.backup(server.url(), tmp_path / "b", physical=True)
    with Database(server.url()).connect() as connection:
        connection.execute("CREATE TABLE marks (a integer)")
        connection.execute("INSERT INTO marks VALUES (1)")
        connection.execute("SELECT pg_create_restore_point('marker')")
        connection.execute("INSERT INTO marks VALUES (2)")
        segment = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()[0]
    wait_for(lambda: (wal / segment).exists() and (wal / segment).stat().st_size == 16 * 2**20)
    recover(server, tmp_path / "b" / "base", wal, "marker")
    recovered = Database(server.url())
    wait_for(lambda: rows(recovered, "SELECT pg_is_in_recovery()") == [(False,)])
    assert rows(recovered, "SELECT a FROM marks") == [(1,)]
    assert rows(recovered, "SELECT count(*) FROM prints") == [(10003,)]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
