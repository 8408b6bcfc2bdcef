"""The command line: help everywhere, one line for an error, and the exit code a script can read."""

from __future__ import annotations

import json
import re

import psycopg
import pytest
from click.testing import CliRunner, Result
from conftest import fill

from tidemark import config, migrations, preflight
from tidemark.cli import ELSEWHERE, main
from tidemark.errors import Problem
from tidemark.installation import find_installation
from tidemark.server import throwaway

VERBS = sorted(main.commands)


@pytest.fixture
def run(monkeypatch):
    """`run(url, *arguments)` calls tidemark on that database."""
    def call(url: str, *arguments: str, **keywords) -> Result:
        monkeypatch.setenv("DATABASE_URL", url)
        return CliRunner().invoke(main, arguments, **keywords)
    return call


def assert_refused(result: Result, *words: str, code: int) -> None:
    """One line, which names what, where and what to do; and nothing of a traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("tidemark: ")
    assert "->" in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("verb", VERBS)
def test_verb_explains_itself(verb):
    result = CliRunner().invoke(main, [verb, "--help"])
    assert result.exit_code == 0
    assert main.commands[verb].help


@pytest.mark.parametrize("verb", VERBS)
def test_verb_is_in_the_readme(verb):
    assert f"`{verb}`" in (config.ROOT / "README.md").read_text()


@pytest.mark.parametrize(("theirs", "ours"), ELSEWHERE.items())
def test_word_of_another_tool_leads_to_ours(theirs, ours):
    assert f"{theirs} = {ours}" in re.sub(r"\s+", " ", CliRunner().invoke(main, ["--help"]).output)
    result = CliRunner().invoke(main, [theirs])
    assert result.exit_code == 2
    assert f"tidemark {ours}" in result.output


def test_every_target_of_make_is_listed_by_make():
    text = (config.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\S+)", text, re.MULTILINE))
    assert targets - set(re.findall(r"^(\S+):.*##", text, re.MULTILINE)) == set()


def test_migrate_says_where_and_what_next(empty, run):
    result = run(empty.url, "migrate")
    assert result.exit_code == 0, result.output
    assert "the database is" in result.stdout
    assert "next:" in result.stdout


def test_status_tells_a_script_what_is_to_be_done(empty, db, run):
    assert run(empty.url, "status", "--exit-code").exit_code == 3
    assert run(empty.url, "status").exit_code == 0
    result = run(db.url, "status", "--exit-code", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["up_to_date"] is True


def test_printing_sql_executes_nothing(empty, run):
    assert "CREATE TABLE public.assets" in run(empty.url, "migrate", "--sql").stdout
    with empty.connect() as connection:
        assert connection.execute("SELECT to_regclass('assets')").fetchone() == (None,)


@pytest.mark.parametrize("verb", [["rollback", "--all"], ["reset"]])
def test_destructive_verb_asks(db, run, verb):
    assert run(db.url, *verb, input="n\n").exit_code == 1
    with db.connect() as connection:
        assert connection.execute("SELECT to_regclass('assets') IS NOT NULL").fetchone() == (True,)


def test_reset_leaves_an_empty_database_of_the_same_schema(db, run):
    with db.connect() as connection:
        fill(connection)
    assert run(db.url, "reset", "--yes").exit_code == 0
    with db.connect() as connection:
        assert connection.execute("SELECT count(*) FROM assets").fetchone() == (0,)
        assert migrations.make_plan(connection).up_to_date


def test_verify_fails_on_a_change_by_hand(db, run):
    assert run(db.url, "verify").exit_code == 0
    with db.connect() as connection:
        connection.execute("DROP INDEX trades_asset_id_idx")
    assert_refused(run(db.url, "verify"), "trades_asset_id_idx", code=1)


def test_no_server(run):
    assert_refused(run("postgresql://nobody@127.0.0.1:1/none", "status"), "127.0.0.1:1", "tidemark up", code=2)


def test_url_that_is_none(run):
    assert_refused(run("nonsense://", "status"), "DATABASE_URL", code=2)


UNREADABLE = [
    "postgresql://u:S3CRET%zz@h/db", "postgresql://u:pa%ss S3CRET@h/db", "postgresql://u:a@S3CRET@127.0.0.1:1/db",
    "postgresql://u:a/S3CRET@127.0.0.1:1/db", "postgresql://u:a?S3CRET@127.0.0.1:1/db", "postgresql://u:S3CRET#@h/db",
    "postgresql://u:a#S3CRET@127.0.0.1:1/db", "postgresql://127.0.0.1:S3CRET/db", "mysql://u:S3CRET@h/db",
    "jdbc:postgresql://u:S3CRET@h/db", "postgresql:/u:S3CRET@h/db", "u:S3CRET@h/db", "S3CRET",
    "host=127.0.0.1 password=a S3CRET", "host=127.0.0.1 password='S3CRET", "postgresql://u:S3CRET@h/db?sslmod=require",
    "postgresql+asyncpg://u:S3CRET@h/db?ssl=1", "postgresql://u:[S3CRET]@127.0.0.1:1/db",
]


@pytest.mark.parametrize("url", UNREADABLE)
@pytest.mark.parametrize("verb", [["status"], ["psql"], ["backup", "nowhere"], ["restore", "nowhere"]], ids=str)
def test_password_of_a_url_that_cannot_be_read_is_in_no_error(run, monkeypatch, tmp_path, url, verb):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execvpe", lambda *_: pytest.fail("psql was called"))
    (tmp_path / "nowhere").mkdir()
    result = run(url, *verb)
    assert result.exit_code in (1, 2)
    assert "S3CRET" not in result.output + str(result.exception)
    if verb in (["status"], ["psql"]):
        assert_refused(result, "DATABASE_URL cannot be read", code=2)


@pytest.mark.parametrize("url", ["postgresql://u:S3CRET@127.0.0.1:1/db", "postgresql://u:S3CRE%54@127.0.0.1:1/db",
                                 "postgresql+psycopg://u:S3CRET@127.0.0.1:1/db?sslmode=prefer&",
                                 "host=127.0.0.1 port=1 user=u password=S3CRET"])
def test_password_is_in_no_error_of_a_connection_and_in_no_command_line(run, monkeypatch, url):
    assert_refused(result := run(url, "status"), "127.0.0.1:1", code=2)
    assert "S3CRE" not in result.output
    calls = []
    monkeypatch.setattr("os.execvpe", lambda program, arguments, environment: calls.append((arguments, environment)))
    run(url, "psql", "-c", "SELECT 1")
    [(arguments, environment)] = calls
    assert "S3CRE" not in str(arguments)
    assert "127.0.0.1" in arguments[1]
    assert environment["PGPASSWORD"] == "S3CRET"


@pytest.fixture(scope="module")
def bare():
    """A server without TimescaleDB preloaded, and with a role that may do nothing."""
    installation = find_installation()
    with throwaway(installation, installation.editions[0], {"shared_preload_libraries": ""}) as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
        yield server


def test_missing_database(bare, run):
    assert_refused(run(bare.url("absent"), "status"), "absent", "createdb", code=2)


def test_wrong_password(bare, run):
    url = f"postgresql://guest:wrong@127.0.0.1:{bare.port}/postgres"
    assert_refused(run(url, "status"), "login", "password", code=2)


def test_timescaledb_not_preloaded(bare, run):
    assert_refused(run(bare.url("postgres"), "migrate"), "preloaded", "shared_preload_libraries", code=2)


def test_no_rights_to_create(empty):
    with empty.connect() as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
        try:
            with empty.connect() as guest:
                guest.execute("SET SESSION AUTHORIZATION guest")
                with pytest.raises(Problem) as refused:
                    migrations.migrate(guest)
            assert refused.value.exit_code == 2
            assert "GRANT CREATE" in refused.value.hint
            assert connection.execute("SELECT to_regnamespace('_tidemark_migrations')").fetchone() == (None,)
        finally:
            connection.execute("DROP ROLE guest")


@pytest.mark.parametrize(("name", "value"), [("MINIMUM_TIMESCALEDB", (99, 0, 0)), ("MINIMUM_POSTGRESQL", 99)])
def test_too_old_a_server(empty, run, monkeypatch, name, value):
    monkeypatch.setattr(preflight, name, value)
    assert_refused(run(empty.url, "migrate"), "too old", "99", code=2)
    with empty.connect() as connection:
        assert connection.execute("SELECT to_regnamespace('_tidemark_migrations')").fetchone() == (None,)


def test_error_of_the_server_is_one_line_with_its_sqlstate(empty, run, monkeypatch, tmp_path):
    for name, folder in {"SCHEMA": tmp_path / "schema", "MIGRATIONS": tmp_path / "migrations"}.items():
        (folder / "state").mkdir(parents=True)
        monkeypatch.setattr(config, name, folder)
    (config.SCHEMA / "state/000_broken.sql").write_text("SELECT 1 / 0;\n")
    (config.MIGRATIONS / "000_broken.py").write_text(
        "from yoyo import step\nfrom tidemark.migrations import state\nsteps = [step(state(__file__))]\n"
    )
    result = run(empty.url, "migrate")
    assert result.exit_code == 1
    assert "SQLSTATE 22012" in result.stderr
    assert "Traceback" not in result.output
