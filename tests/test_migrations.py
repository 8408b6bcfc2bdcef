"""The runner's promises: one way to the same database, whoever applies it, however often it is killed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psycopg
import pytest
from conftest import _database, fill
from psycopg.conninfo import make_conninfo

from tidemark import catalog, config, migrations
from tidemark.errors import Problem
from tidemark.schema_files import schema_files

STATE = [file for file in schema_files() if not file.is_logic]


def migrate(database) -> migrations.Plan:
    with database.connect() as connection:
        return migrations.migrate(connection)


def run_python(code: str, database, *, schema: Path | None = None) -> subprocess.Popen:
    """A runner in a process of its own, so that it can be killed."""
    environment = {**os.environ, "URL": database.url, "PYTHONPATH": str(config.ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, cwd=config.ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def snapshot(database) -> dict[str, str]:
    with database.connect() as connection:
        return catalog.snapshot(connection)


def test_second_migrate_does_nothing(empty):
    assert not migrate(empty).up_to_date
    assert migrate(empty).up_to_date


def test_psql_over_the_schema_equals_migrate(empty, db):
    paths = [path for glob in ("state/*.sql", "logic/*/*.sql") for path in sorted(config.SCHEMA.glob(glob))]
    assert [path.name for path in paths] == [file.name for file in schema_files()]
    script = "".join(path.read_text() for path in paths)
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty.url], input=script, text=True,
                   check=True, capture_output=True)
    assert snapshot(empty) == snapshot(db)


def test_psql_built_database_is_stamped_and_then_up_to_date(empty):
    with empty.connect() as connection:
        catalog.build(connection)
    with empty.connect() as connection:
        assert catalog.differences(connection) == []
        assert len(migrations.stamp(connection)) == len(schema_files())
        assert migrations.migrate(connection).up_to_date


def test_down_to_nothing_and_up_again_equals_a_fresh_build(empty, db):
    migrate(empty)
    with empty.connect() as connection:
        assert migrations.rollback(connection, None) == [file.migration_id for file in reversed(STATE)]
        left = connection.execute(
            "SELECT c.oid::regclass FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname !~ '^(pg_|_?timescaledb_|information_schema)' AND NOT EXISTS"
            " (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')"
        ).fetchall()
        assert left == []
        assert connection.execute(
            "SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'public'::regnamespace AND NOT EXISTS"
            " (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')"
        ).fetchall() == []
        assert connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ 'tidemark'"
        ).fetchall() == []
    migrate(empty)
    assert snapshot(empty) == snapshot(db)


@pytest.mark.parametrize("count", [1, 2, 4, len(STATE) // 2, len(STATE) - 2])
def test_each_rollback_can_be_migrated_again(empty, db, count):
    migrate(empty)
    with empty.connect() as connection:
        assert len(migrations.rollback(connection, count)) == count
    migrate(empty)
    assert snapshot(empty) == snapshot(db)


OWN = """
    CREATE TABLE own (asset text, ts timestamptz, value float, PRIMARY KEY (asset, ts));
    SELECT create_hypertable('own', 'ts');
    SELECT attach_quality('own'), attach_audit('own');
    INSERT INTO own SELECT 'a', timestamptz '2024-01-01' + i * interval '1 day', -i FROM generate_series(1, 9) AS i;
    SELECT add_rollup('own_daily', 'own', '1 day', ARRAY['asset'], ARRAY['sum(value) AS total']);
    SELECT add_rollup('more_daily', 'timeseries_data', '1 day', ARRAY['source_id'], ARRAY['max(value) AS most']);
    SET tidemark.reason = 'a test';
    INSERT INTO validation_rules (name, applies_to, rule_type, parameters)
    VALUES ('own_positive', 'own', 'range', '{"column": "value", "min": 0}');
"""


def test_database_in_use_is_undone_file_by_file_and_built_again(empty, db):
    """With a row in every table, and with a hypertable of a user's own that keeps its rows."""
    migrate(empty)
    with empty.connect() as connection:
        for statement in OWN.split(";\n")[:-1]:
            connection.execute(statement)
        fill(connection)
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert [t for (t,) in tables if connection.execute(f"SELECT FROM {t} LIMIT 1").fetchone() is None] == []
        for file in reversed(STATE):
            assert migrations.rollback(connection, 1) == [file.migration_id]
        assert connection.execute("SELECT count(*), sum(value) FROM own").fetchone() == (10, -45)
    migrate(empty)
    with empty.connect() as connection:
        assert catalog.differences(connection) == []
        connection.execute("SELECT attach_quality('own'), attach_audit('own')")
        connection.execute("DROP TABLE own CASCADE")
        assert migrations.rollback(connection, None)


STANDS_ON_IT = {
    "CREATE TABLE mine (asset_id uuid REFERENCES assets)": "mine",
    "CREATE TABLE mine (step candle_interval)": "mine",
    "CREATE VIEW mine AS SELECT * FROM quotes": "mine",
    "CREATE VIEW mine AS SELECT * FROM anomaly_queue": "mine",
    "CREATE VIEW mine AS SELECT * FROM candles_1d": "mine",
    "CREATE TABLE buddy_ai.mine (a integer)": "mine",
    "CREATE TABLE _tidemark.mine (a integer)": "mine",
}


def test_what_a_user_built_on_it_is_named_and_nothing_is_undone(db):
    before = snapshot(db)
    with db.connect() as connection:
        for statement, name in STANDS_ON_IT.items():
            connection.execute(statement)
            with pytest.raises(Problem) as refused:
                migrations.rollback(connection, None)
            assert name in refused.value.detail, statement
            assert "CASCADE" not in str(refused.value)
            kind, qualified = statement.split()[1:3]
            connection.execute(f"DROP {kind} {qualified}")
    assert snapshot(db) == before


def test_edited_applied_file_is_refused_by_name(empty, checkout):
    migrate(empty)
    with (checkout / "schema/state" / STATE[1].name).open("a") as file:
        file.write("-- edited\n")
    with pytest.raises(Problem) as refused:
        migrate(empty)
    assert STATE[1].name in refused.value.message


def test_missing_applied_file_is_refused_by_name(empty, checkout):
    migrate(empty)
    (checkout / "schema/state" / STATE[-1].name).unlink()
    with pytest.raises(Problem) as refused:
        migrate(empty)
    assert STATE[-1].name in refused.value.message


def test_file_numbered_before_an_applied_one_is_refused_by_name(empty, checkout):
    migrate(empty)
    (checkout / "schema/state/011_late.sql").write_text("SELECT 1;\n")
    with pytest.raises(Problem) as refused:
        migrate(empty)
    assert "011_late.sql" in refused.value.message


def test_state_file_without_a_migration_is_refused_by_name(empty, checkout):
    (checkout / "schema/state/9999_orphan.sql").write_text("SELECT 1;\n")
    with pytest.raises(Problem) as refused:
        migrate(empty)
    assert "9999_orphan.sql" in refused.value.message


def test_changed_logic_is_applied_though_nothing_is_pending(empty, checkout):
    migrate(empty)
    logic = checkout / "schema/logic/500_base/500_helpers.sql"
    logic.write_text(logic.read_text() + "COMMENT ON SCHEMA _tidemark IS 'changed';\n")
    with empty.connect() as connection:
        states = migrations.make_plan(connection).states()
    assert [name for name, state in states.items() if state != "applied"] == ["500_helpers.sql"]
    assert migrate(empty).dropped == []
    with empty.connect() as connection:
        assert connection.execute(
            "SELECT obj_description('_tidemark'::regnamespace, 'pg_namespace')"
        ).fetchone() == ("changed",)


def test_applying_all_logic_again_changes_nothing(db):
    before = snapshot(db)
    with db.connect() as connection:
        connection.execute("SET search_path = public")
        for file in schema_files():
            if file.is_logic:
                connection.execute(file.text)
    assert snapshot(db) == before


# What a file may make, in each way in which the files make it, and what becomes of it.
MADE = """
CREATE OR REPLACE FUNCTION public.of_old(p_a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE FUNCTION public.of_old(p_a text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE PROCEDURE _tidemark.old_way() LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE VIEW public.old_view AS SELECT public.of_old(1) AS one;
CREATE OR REPLACE VIEW buddy_ai.old_view AS SELECT * FROM public.old_view;
CREATE OR REPLACE TRIGGER trg_old BEFORE UPDATE ON public.assets
FOR EACH ROW EXECUTE FUNCTION _tidemark.set_updated_at();
DO $do$
BEGIN
    PERFORM set_config('tidemark.record_maintenance', 'on', true);
    EXECUTE 'CREATE OR REPLACE TRIGGER trg_old_in_a_loop BEFORE UPDATE ON public.audit_seals'
        ' FOR EACH ROW EXECUTE FUNCTION _tidemark.set_updated_at()';
    IF NOT EXISTS (SELECT FROM pg_policies WHERE policyname = 'kept') THEN
        CREATE POLICY old ON public.users USING (true);
        CREATE POLICY kept ON public.trades USING (false);
    END IF;
END
$do$;
"""
STILL_MADE = """
CREATE OR REPLACE FUNCTION public.of_old(p_a text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_policies WHERE policyname = 'kept') THEN
        CREATE POLICY kept ON public.trades USING (false);
    END IF;
END
$do$;
"""
DROPPED = [
    "function public.of_old(integer)", "policy old on public.users", "procedure _tidemark.old_way()",
    "trigger trg_old on public.assets", "trigger trg_old_in_a_loop on public.audit_seals", "view buddy_ai.old_view",
    "view public.old_view",
]


@pytest.fixture
def made(db, checkout):
    """A logic file that made some things, beside things of a user's own."""
    (logic,) = migrations.new("made", logic=True)
    logic.write_text(MADE)
    assert migrate(db).dropped == []
    with db.connect() as connection:
        connection.execute("SET tidemark.record_maintenance = on")
        connection.execute("CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
        connection.execute("COMMENT ON FUNCTION public.mine() IS 'Mine.'")
        connection.execute("CREATE VIEW public.my_view AS SELECT public.mine()")
        connection.execute("CREATE TRIGGER trg_mine BEFORE UPDATE ON public.assets FOR EACH ROW"
                           " EXECUTE FUNCTION _tidemark.set_updated_at()")
        connection.execute("CREATE POLICY mine ON public.users USING (true)")
    return logic


def test_what_a_logic_file_no_longer_makes_is_dropped(db, made):
    """Renamed, given other arguments, put on another table or left out: all the same. What is guarded stays."""
    before = snapshot(db)
    made.write_text(STILL_MADE)
    assert migrate(db).dropped == DROPPED
    after = snapshot(db)
    gone = before.keys() - after.keys()
    assert {"view buddy_ai.old_view", "trigger public.assets.trg_old", "policy public.users.old"} <= gone
    assert not [name for name in gone if "mine" in name or "my_view" in name]
    assert before["policy public.trades.kept"] == after["policy public.trades.kept"]
    assert "routine public.of_old(p_a text)" in after
    assert migrate(db).up_to_date


def test_logic_file_that_is_removed_takes_what_it_made_along(db, made):
    made.unlink()
    with db.connect() as connection:
        assert migrations.make_plan(connection).states()[made.name] == "removed"
    more = ["function public.of_old(pg_catalog.text)", "policy kept on public.trades"]
    assert migrate(db).dropped == sorted(DROPPED + more)
    assert migrate(db).up_to_date


def test_what_vanished_stays_whole_where_something_of_a_users_stands_on_it(db, made):
    with db.connect() as connection:
        connection.execute("CREATE VIEW public.on_top AS SELECT * FROM public.old_view")
    before = snapshot(db)
    made.unlink()
    with pytest.raises(Problem) as refused:
        migrate(db)
    assert "old_view" in refused.value.message
    assert "on_top" in refused.value.detail
    assert "CASCADE" not in str(refused.value)
    assert snapshot(db) == before


def test_stamping_records_what_logic_makes(empty, checkout):
    with empty.connect() as connection:
        catalog.build(connection)
        migrations.stamp(connection)
    logic = next(checkout.rglob("*_rule_triggers.sql"))
    logic.write_text(logic.read_text().replace("trg_check_profile", "trg_check_new_profile"))
    assert migrate(empty).dropped == ["trigger trg_check_profile on public.quality_profiles"]


@pytest.mark.parametrize("file", schema_files(), ids=lambda file: file.name)
def test_number_says_what_kind_of_file_it_is(file):
    """State makes tables and types once, and what tables and aggregates are made with; logic can be run again."""
    created = re.findall(r"^CREATE (?:UNIQUE |UNLOGGED )?(OR REPLACE \w+|\w+)", file.text, re.MULTILINE)
    once = {"AGGREGATE", "FUNCTION", "TABLE", "TYPE", "INDEX", "EXTENSION", "SCHEMA", "ROLE", "SEQUENCE"}
    again = {*(f"OR REPLACE {kind}" for kind in ("FUNCTION", "PROCEDURE", "VIEW", "TRIGGER")), "CONSTRAINT", "EVENT"}
    assert set(created) <= (again if file.is_logic else once)


def test_new_makes_a_migration_that_applies_and_rolls_back(empty, checkout, monkeypatch):
    migrate(empty)
    schema_file, migration_file = migrations.new("Add trade venue")
    schema_file.write_text("CREATE TABLE public.venues (venue_id integer);\n")
    migration_file.write_text(migration_file.read_text().replace("-- how to undo it", "DROP TABLE public.venues;"))
    assert [file.name for file in migrate(empty).pending] == [schema_file.name]
    with empty.connect() as connection:
        assert connection.execute("SELECT to_regclass('public.venues')::text").fetchone() == ("venues",)
        assert migrations.rollback(connection, 1) == [migration_file.stem]
        assert connection.execute("SELECT to_regclass('public.venues')").fetchone() == (None,)


def test_failing_file_leaves_nothing_half_done(empty, checkout):
    migrate(empty)
    before = snapshot(empty)
    schema_file, _ = migrations.new("broken")
    schema_file.write_text("CREATE TABLE public.half (a integer);\nSELECT 1 / 0;\n")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty)
    assert snapshot(empty) == before
    with empty.connect() as connection:
        assert [file.name for file in migrations.make_plan(connection).pending] == [schema_file.name]


@pytest.mark.parametrize(("sql", "named"), [
    ("BEGIN;\nCREATE TABLE public.half (a integer);\nCOMMIT;", "BEGIN"),
    ("CREATE TABLE public.half (a integer);\nCOMMIT;\nSELECT 1 / 0;", "COMMIT"),
    ("CREATE TABLE public.half (a integer);\nROLLBACK;", "ROLLBACK"),
    ("CREATE TABLE public.half (a integer); /* a /* b */ ; */ end;", "END"),
    ("CREATE TABLE public.half (a integer); COMMIT AND CHAIN;", "COMMIT AND"),
    ("CREATE TABLE public.half (a integer); SELECT ';'';'; abort work", "ABORT WORK"),
    ("START TRANSACTION; CREATE TABLE public.half (a integer);", "START TRANSACTION"),
    ("CREATE TABLE public.half (a integer); PREPARE TRANSACTION 'x';", "PREPARE TRANSACTION"),
    ("SELECT E'\\';'; COMMIT;", "COMMIT"),
])
@pytest.mark.parametrize("logic", [False, True], ids=["state", "logic"])
def test_file_that_controls_the_transaction_is_refused_by_name_and_nothing_is_there(
    empty, checkout, small, sql, named, logic
):
    migrate(empty)
    schema_file = migrations.new("half", logic=logic)[0]
    schema_file.write_text(sql)
    for _ in range(2):
        with pytest.raises(Problem) as refused:
            migrate(empty)
        assert schema_file.name in refused.value.message
        assert refused.value.detail == f"it holds {named}"
    with empty.connect() as connection:
        plan = migrations.make_plan(connection)
        assert schema_file.name in [file.name for file in [*plan.pending, *plan.logic]]
        assert connection.execute("SELECT to_regclass('public.half')").fetchone() == (None,)


@pytest.mark.parametrize("sql", [
    "SAVEPOINT a; ROLLBACK TO a; ROLLBACK WORK TO SAVEPOINT a; RELEASE a;",
    "-- COMMIT;\n/* BEGIN; /* COMMIT; */ ROLLBACK; */ SELECT 'COMMIT; ''COMMIT;', \"commit;\""
    " FROM (SELECT 1) AS t (\"commit;\");",
    "DO $do$ BEGIN PERFORM 1; END $do$; DO $$ BEGIN NULL; END; $$;",
    "CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END;",
    "CREATE TABLE public.begin (a$commit integer); PREPARE commit AS SELECT 1; DEALLOCATE commit;",
])
def test_words_that_end_no_transaction_are_allowed(empty, checkout, small, sql):
    migrate(empty)
    schema_file, _ = migrations.new("whole")
    schema_file.write_text(sql)
    assert [file.name for file in migrate(empty).pending] == [schema_file.name]


@pytest.mark.parametrize(("edit", "named"), [
    (("-- how to undo it", "DROP TABLE public.half; COMMIT;"), "COMMIT"),
    (("steps = ", "__transactional__ = False\nsteps = "), "__transactional__"),
])
def test_migration_that_controls_the_transaction_is_refused_by_name(empty, checkout, small, edit, named):
    migrate(empty)
    schema_file, migration_file = migrations.new("half")
    schema_file.write_text("CREATE TABLE public.half (a integer);\n")
    migration_file.write_text(migration_file.read_text().replace(*edit))
    with pytest.raises(Problem) as refused:
        migrate(empty)
    assert migration_file.name in refused.value.message
    assert named in refused.value.detail
    with empty.connect() as connection:
        assert connection.execute("SELECT to_regclass('public.half')").fetchone() == (None,)


@pytest.mark.parametrize("step", [
    "lambda c: c.execute('COMMIT; BEGIN')", "lambda c: c.execute('SET ROLE pg_monitor')",
])
def test_step_that_leaves_another_transaction_or_role_is_not_marked(empty, checkout, small, step):
    migrate(empty)
    schema_file, migration_file = migrations.new("half")
    migration_file.write_text(migration_file.read_text().replace("step(state(__file__)", f"step({step}"))
    with pytest.raises(Problem) as refused:
        migrate(empty)
    assert migration_file.name in refused.value.message
    with empty.connect() as connection:
        assert schema_file.name in [file.name for file in migrations.make_plan(connection).pending]


def test_ten_runners_at_once_apply_each_file_once(empty, db):
    code = """
        import os, psycopg
        from tidemark import migrations
        with psycopg.connect(os.environ["URL"], autocommit=True) as connection:
            print(len(migrations.migrate(connection).pending))
    """
    runners = [run_python(code, empty) for _ in range(10)]
    outcomes = [runner.communicate(timeout=120) for runner in runners]
    assert [runner.returncode for runner in runners] == [0] * 10, outcomes
    assert sorted(int(out) for out, _ in outcomes) == [0] * 9 + [len(STATE)]
    assert snapshot(empty) == snapshot(db)


def killed_runner(database, instant: int) -> bool:
    """Run a runner that is killed when it is about to execute its statement number `instant`; False if it ended."""
    class Dying(psycopg.Cursor):
        left = instant

        def execute(self, *args, **kwargs):
            Dying.left -= 1
            if Dying.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*args, **kwargs)

    runner = os.fork()
    if runner == 0:
        try:
            with database.connect(cursor_factory=Dying) as connection:
                migrations.migrate(connection)
        finally:
            os._exit(0)
    _, status = os.waitpid(runner, 0)
    return os.WIFSIGNALED(status)


def complete(database) -> None:
    started = time.monotonic()
    migrate(database)
    assert time.monotonic() - started < 60, "the next runner was blocked"


@pytest.fixture
def small(checkout):
    """Two small files of state and one of logic; what is around a file is the same for a large one."""
    for path in [*(checkout / "schema").rglob("*.sql"), *(checkout / "migrations").iterdir()]:
        path.unlink()
    for number, previous in [(1, ""), (2, "'001_a'")]:
        (checkout / "schema/state" / f"00{number}_a.sql").write_text(f"CREATE TABLE public.t{number} (a integer);\n")
        (checkout / "migrations" / f"00{number}_a.py").write_text(
            f"from yoyo import step\nfrom tidemark.migrations import state\n__depends__ = {{{previous}}}\n"
            f"steps = [step(state(__file__), 'DROP TABLE public.t{number}')]\n"
        )
    view = "CREATE OR REPLACE VIEW public.v AS SELECT * FROM public.t1;\n"
    (checkout / "schema/logic/500_base/500_v.sql").write_text(view)


def add_state(name: str, sql: str, undo: str, *, number: str = "") -> str:
    """What `new` makes, filled in and with that number instead of its own; returns the name of both files."""
    schema_file, migration_file = migrations.new(name)
    schema_file.write_text(sql)
    migration_file.write_text(migration_file.read_text().replace("-- how to undo it", undo))
    assert schema_file.stem == migration_file.stem
    if number:
        schema_file, migration_file = [
            path.rename(path.with_name(f"{number}_{name}{path.suffix}")) for path in (schema_file, migration_file)]
    return schema_file.stem


def rename_column(old: str, new: str) -> str:
    """The next state file, which needs the one before it."""
    change = "ALTER TABLE public.full_to RENAME COLUMN {} TO {};"
    return add_state(new, change.format(old, new), change.format(new, old))


@pytest.fixture
def used_up(small, checkout) -> Path:
    """The small files, and state that has come to 499."""
    add_state("full_to", "CREATE EXTENSION IF NOT EXISTS timescaledb;\nCREATE TABLE public.full_to (a integer);\n",
              "DROP TABLE public.full_to;", number="499")
    return checkout


def test_state_goes_on_at_5000_after_499(server, used_up):
    """On a database that has what came before, and on a new one; before logic, and back again."""
    with _database(server, None) as old, _database(server, None) as fresh:
        migrate(old)
        assert rename_column("a", "b") == "5000_b"
        assert [file.name for file in migrate(old).pending] == ["5000_b.sql"]
        assert rename_column("b", "c") == "5001_c"
        (used_up / "schema/logic/500_base/500_v.sql").write_text(
            "CREATE OR REPLACE VIEW public.v AS SELECT f.c AS a FROM public.full_to AS f;\n")
        order = ["001_a", "002_a", "499_full_to", "5000_b", "5001_c"]
        for database in (old, fresh):
            migrate(database)
            assert migrate(database).up_to_date
            with database.connect() as connection:
                assert [migration for _, _, migration, _ in migrations.history(connection)] == order
        assert snapshot(old) == snapshot(fresh)
        (used_up / "schema/state/498_late.sql").write_text("SELECT 1;\n")
        with pytest.raises(Problem, match=r"498_late\.sql comes before files that are applied"):
            migrate(old)
        for database, count in ((old, 3), (fresh, None)):
            with database.connect() as connection:
                assert migrations.rollback(connection, count) == order[::-1][:count]


def test_names_sort_as_files_run(used_up):
    """State is whole before logic, and README's cat reads the same."""
    rename_column("a", "b")
    add_state("c", "SELECT 1;\n", "SELECT 1;", number="5010")
    add_state("d", "SELECT 1;\n", "SELECT 1;", number="9999")
    (used_up / "schema/logic/500_base/999_w.sql").write_text("SELECT 1;\n")
    files = schema_files()
    assert [file.name for file in files] == [
        "001_a.sql", "002_a.sql", "499_full_to.sql", "5000_b.sql", "5010_c.sql", "9999_d.sql", "500_v.sql", "999_w.sql"]
    assert [file.is_logic for file in files] == [False] * 6 + [True] * 2
    assert [migration.id for migration in migrations._migrations()] == [file.migration_id for file in files[:6]]
    cat = subprocess.run(["sh", "-c", "cat schema/state/*.sql schema/logic/*/*.sql"], cwd=used_up, check=True,
                         capture_output=True, text=True)
    assert cat.stdout == "".join(file.text for file in files)
    for logic in (False, True):
        with pytest.raises(Problem, match="no number left"):
            migrations.new("more", logic=logic)


def test_own_state_goes_on_at_5000_after_499(server, used_up, monkeypatch):
    """A project's own numbers are its own, and its files come after all that is shipped."""
    rename_column("a", "b")
    monkeypatch.setattr(config, "PROJECT", used_up / "desk")
    (logic,) = migrations.new("mine", logic=True)
    logic.write_text("CREATE OR REPLACE VIEW public.mine AS SELECT o.d FROM public.own AS o;\n")
    add_state("own", "CREATE TABLE public.own (c integer);", "DROP TABLE public.own;", number="499")
    with _database(server, None) as old, _database(server, None) as fresh:
        logic.rename(logic.with_suffix(".away"))
        migrate(old)
        logic.with_suffix(".away").rename(logic)
        change = "ALTER TABLE public.own RENAME COLUMN {} TO {};"
        assert add_state("next", change.format("c", "d"), change.format("d", "c")) == "5000_next"
        assert [file.name for file in schema_files()] == [
            "001_a.sql", "002_a.sql", "499_full_to.sql", "5000_b.sql", "500_v.sql",
            "own/499_own.sql", "own/5000_next.sql", "own/500_mine.sql"]
        assert [file.name for file in migrate(old).pending] == ["own/5000_next.sql"]
        migrate(fresh)
        assert snapshot(old) == snapshot(fresh)
        with fresh.connect() as connection:
            assert migrations.rollback(connection, None) == [
                "5000_next", "499_own", "5000_b", "499_full_to", "002_a", "001_a"]


@pytest.mark.parametrize("name", [
    "99_a", "1000_a", "4999_a", "0500_a", "10000_a", "50000_a", "498", "498a", "498-a", "498_A", "5000_1",
    "\u0664\u0669\u0668_a",  # digits of another script
])
def test_wrong_name_is_refused(small, checkout, name):
    (checkout / f"schema/state/{name}.sql").write_text("SELECT 1;\n")
    with pytest.raises(Problem, match=f"schema/{name}.sql is not named") as refused:
        schema_files()
    assert "5000 to 9999" in refused.value.hint


def test_runner_killed_at_each_statement_is_completed_by_the_next(server, small):
    """Every boundary."""
    instants = 0
    while True:
        with _database(server, None) as victim:
            if not killed_runner(victim, instants):
                break
            complete(victim)
            with victim.connect() as connection:
                assert connection.execute(
                    "SELECT array_agg(relname ORDER BY relname) FROM pg_class"
                    " WHERE relnamespace = 'public'::regnamespace"
                ).fetchone() == (["t1", "t2", "v"],)
                assert migrations.make_plan(connection).up_to_date
        instants += 1
    assert instants > 20


@pytest.mark.parametrize("seed", range(8))
def test_runner_killed_at_any_statement_of_the_real_schema_is_completed_by_the_next(empty, db, seed):
    assert killed_runner(empty, random.Random(seed).randrange(120))
    complete(empty)
    assert snapshot(empty) == snapshot(db)


def test_table_in_use_makes_migrate_give_up_with_a_reason(db, checkout, monkeypatch):
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(migrations, "LOCK_ATTEMPTS", 2)
    schema_file, _ = migrations.new("wait")
    schema_file.write_text("ALTER TABLE public.assets ADD COLUMN venue text;\n")
    with db.connect(autocommit=False) as reader, db.connect() as other:
        reader.execute("SELECT * FROM assets")
        with pytest.raises(Problem) as refused:
            migrate(db)
        assert refused.value.hint
        other.execute("SET statement_timeout = '1s'")
        other.execute("SELECT * FROM assets")  # nobody queues behind the migration
    assert [file.name for file in migrate(db).pending] == [schema_file.name]


def test_verify_names_what_was_changed_by_hand(db):
    with db.connect() as connection:
        assert catalog.differences(connection) == []
        connection.execute("ALTER TABLE signals DROP CONSTRAINT signals_confidence_in_range")
        connection.execute("ALTER TABLE users ALTER COLUMN full_name SET NOT NULL")
        connection.execute("DROP INDEX trades_asset_id_idx")
        connection.execute("ALTER SEQUENCE sources_source_id_seq INCREMENT 5")
        connection.execute("ALTER TYPE asset_type OWNER TO tidemark_admin")
        connection.execute("ALTER TABLE _tidemark.series_memory SET LOGGED")
        connection.execute("CREATE TABLE mine (a integer)")  # what a user adds is his own affair
        assert sorted(catalog.differences(connection)) == [
            "column public.users.full_name is different",
            "constraint public.signals.signals_confidence_in_range is missing",
            "index trades_asset_id_idx is missing", "owner of public.asset_type is different",
            "relation _tidemark.series_memory is different", "relation public.sources_source_id_seq is different",
        ]


def test_verify_names_what_is_too_many(db):
    with db.connect() as connection:
        connection.execute("CREATE FUNCTION _tidemark.left_over() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
        connection.execute("CREATE FUNCTION public.rescore(p_old integer) RETURNS integer LANGUAGE sql AS 'SELECT 1'")
        connection.execute("CREATE VIEW buddy_ai.left_over AS SELECT 1 AS one")
        connection.execute("CREATE POLICY left_over ON users USING (true)")
        connection.execute("CREATE TRIGGER trg_left_over BEFORE UPDATE ON trades FOR EACH ROW"
                           " EXECUTE FUNCTION _tidemark.set_updated_at()")
        connection.execute("CREATE RULE left_over AS ON INSERT TO watchlists DO INSTEAD NOTHING")
        connection.execute("GRANT SELECT ON _tidemark.armed_alerts TO public")
        connection.execute("GRANT UPDATE (full_name) ON users TO tidemark_admin")
        assert sorted(catalog.differences(connection)) == [
            "policy public.users.left_over is too many", "privileges _tidemark.armed_alerts is too many",
            "privileges public.users.full_name is different", "relation buddy_ai.left_over is too many",
            "routine _tidemark.left_over() is too many", "routine public.rescore(p_old integer) is too many",
            "rule public.watchlists.left_over is too many", "trigger public.trades.trg_left_over is too many",
        ]


def test_verify_names_roles_that_may_more_than_they_should(db):
    changes = {
        "ALTER ROLE tidemark_app BYPASSRLS": "ALTER ROLE tidemark_app NOBYPASSRLS",
        "GRANT tidemark_record TO tidemark_admin": "REVOKE tidemark_record FROM tidemark_admin",
        "GRANT pg_read_all_data TO tidemark_reader": "REVOKE pg_read_all_data FROM tidemark_reader",
    }
    with db.connect() as connection:
        try:
            for change in changes:
                connection.execute(change)
            assert catalog.differences(connection) == [
                "role tidemark_admin is a member of tidemark_record",
                "role tidemark_app is not bound by row-level security",
                "role tidemark_reader is a member of pg_read_all_data",
            ]
        finally:
            for undo in changes.values():
                connection.execute(undo)


APPLICATIONS = {
    "buddy_ai": "DROP VIEW buddy_ai.ohlcv_data", "cryptovolt": "ALTER VIEW cryptovolt.trades RENAME TO deals",
    "hyperliquid": "ALTER VIEW hyperliquid.strategy_rules OWNER TO CURRENT_USER",
    "trading_manager": "COMMENT ON SCHEMA trading_manager IS 'changed'",
    "btc_dashboard": "REVOKE USAGE ON SCHEMA btc_dashboard FROM tidemark_app",
}


def test_verify_looks_at_the_schemas_of_the_applications(db):
    with db.connect() as connection:
        assert {*APPLICATIONS, "_tidemark"} == set(catalog.own_schemas(connection))
        for change in APPLICATIONS.values():
            connection.execute(change)
        found = catalog.differences(connection)
    for schema in APPLICATIONS:
        assert [line for line in found if schema in line], schema


def test_verify_takes_what_comes_of_rows_for_what_it_is(db):
    """Rules, aggregates and attachments of one's own, and what was detached; but not what rules do not say."""
    with db.connect() as connection:
        connection.execute("SET tidemark.reason = 'test'")
        connection.execute(
            "INSERT INTO validation_rules (name, applies_to, rule_type, parameters)"
            " VALUES ('m', 'timeseries_data', 'range', '{\"column\": \"value\", \"max\": 2000}')"
        )
        connection.execute("UPDATE validation_rules SET is_active = false WHERE name = 'candles_price_positive'")
        connection.execute("SELECT detach_quality('quotes'), attach_quality('features')")
        connection.execute("CREATE TABLE own (a integer, ts timestamptz, value float, PRIMARY KEY (a, ts))")
        connection.execute("SELECT create_hypertable('own', 'ts')")
        connection.execute("SELECT attach_quality('own'), attach_audit('own')")
        connection.execute("SELECT add_rollup(name, hypertable, '2 hours', ARRAY[series], ARRAY['max(value) AS v'])"
                           " FROM (VALUES ('own_2h', 'own'::regclass, 'a'),"
                           " ('more_2h', 'timeseries_data', 'source_id')) AS r (name, hypertable, series)")
        assert catalog.differences(connection) == []
        connection.execute("CREATE OR REPLACE FUNCTION _tidemark.score_candles() RETURNS trigger LANGUAGE plpgsql"
                           " AS 'BEGIN RETURN NULL; END'")
        assert catalog.differences(connection) == ["the functions that score candles are not those of its rules"]


def test_verify_after_logic_was_applied_to_tables_with_columns_more(db):
    """What fills absent values is made from a table's columns, also from those that are not Tidemark's."""
    with db.connect() as connection:
        connection.execute("SELECT attach_quality('features')")
        connection.execute("ALTER TABLE assets ADD COLUMN mine integer NOT NULL DEFAULT 7")
        migrations.apply_logic_again(connection)
        connection.execute("INSERT INTO assets (symbol, asset_type, mine) VALUES ('X', 'stock', NULL)")
        assert connection.execute("SELECT mine FROM assets").fetchone() == (7,)
        assert catalog.differences(connection) == []
        connection.execute("DROP TRIGGER trg_absent_values ON candles")
        assert catalog.differences(connection) == ["trigger public.candles.trg_absent_values is missing"]


def test_verify_where_template1_is_not_empty(db, server):
    """Whoever made the server may have put anything there; a new database brings it along."""
    with psycopg.connect(make_conninfo(db.url, dbname="template1"), autocommit=True) as template1:
        template1.execute("CREATE TABLE users (a integer)")
        try:
            with db.connect() as connection:
                assert catalog.differences(connection) == []
        finally:
            template1.execute("DROP TABLE users")


def test_history_tells_what_was_applied_and_undone(empty):
    migrate(empty)
    with empty.connect() as connection:
        migrations.rollback(connection, 1)
        steps = [(operation, migration) for _, operation, migration, _ in migrations.history(connection)]
    assert steps == [("apply", file.migration_id) for file in STATE] + [("rollback", STATE[-1].migration_id)]


def test_printed_sql_is_what_migrate_runs(empty, db):
    with empty.connect() as connection:
        script = "".join(migrations.pending_sql(migrations.make_plan(connection)))
    with empty.connect() as connection:
        connection.execute("SET client_min_messages = warning")
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty.url], input=script, text=True,
                   check=True, capture_output=True)
    assert snapshot(empty) == snapshot(db)


@pytest.mark.parametrize("file", STATE, ids=lambda file: file.name)
def test_each_state_file_has_a_migration(file):
    assert (config.MIGRATIONS / f"{file.migration_id}.py").exists()


def test_tables_of_a_users_own_are_on_record_again_after_a_rollback(db):
    """With the arguments that they were put on record with."""
    triggers = ("SELECT array_agg(pg_get_triggerdef(oid) || tgenabled::text || obj_description(oid) ORDER BY tgname)"
                " FROM pg_trigger WHERE tgrelid = 'mine'::regclass AND NOT tgisinternal")
    with db.connect() as connection:
        connection.execute("CREATE TABLE mine (a integer PRIMARY KEY, b text, token text)")
        connection.execute("CREATE TABLE gone (a integer PRIMARY KEY)")
        connection.execute("SELECT attach_audit('mine', p_secrets => '{token}'), attach_audit('gone')")
        connection.execute("ALTER TABLE mine ENABLE ALWAYS TRIGGER trg_audit_update")
        before = connection.execute(triggers).fetchone()
        migrations.rollback(connection, 1)
        connection.execute("DROP TABLE gone")
        migrations.migrate(connection)
        assert connection.execute(triggers).fetchone() == before
        connection.execute("INSERT INTO mine VALUES (1, 'x', 'secret')")
        assert connection.execute("SELECT new_values ->> 'token' <> 'secret' FROM audit_log WHERE table_name = 'mine'"
                                  ).fetchone() == (True,)
