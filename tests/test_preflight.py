"""`migrate` looks before it writes: all that stands in the way in one message, and nothing is applied."""

from __future__ import annotations

import psycopg
import pytest
from conftest import _database
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tidemark import catalog, migrations, preflight
from tidemark.errors import Problem

THEIRS = """
    CREATE TABLE users (name text);
    CREATE TABLE other.trades (a integer);
    CREATE VIEW quotes_days AS SELECT 1 AS a;
    CREATE TYPE asset_type AS ENUM ('a');
    CREATE FUNCTION rescore(a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
    CREATE SCHEMA buddy_ai;
    CREATE TABLE alembic_version (version_num text);
    CREATE SCHEMA drizzle;
    CREATE TABLE drizzle.__drizzle_migrations (id integer);
"""


def refused(connection: psycopg.Connection) -> str:
    """What migrate says; nothing was applied."""
    with pytest.raises(Problem) as problem:
        migrations.migrate(connection)
    assert problem.value.exit_code == 2
    assert problem.value.hint
    assert connection.execute("SELECT to_regnamespace('_tidemark_migrations')").fetchone() == (None,)
    return str(problem.value)


def test_everything_in_the_way_is_in_one_message(empty):
    with empty.connect() as connection:
        connection.execute("CREATE SCHEMA other")
        connection.execute(THEIRS)
        said = refused(connection)
        for name in ("public.users", "public.quotes_days", "public.asset_type", "public.rescore()", "schema buddy_ai",
                     "public.alembic_version (Alembic)", "drizzle.__drizzle_migrations (Drizzle)", "createdb"):
            assert name in said
        assert "other.trades" not in said


@pytest.mark.parametrize("table", preflight.OTHER_TOOLS)
def test_database_of_another_tool_is_left_to_it(_shared_empty, table):
    schema, _, name = table.rpartition(".")
    with _shared_empty.connect(autocommit=False) as connection:
        if schema:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE TABLE {} (a integer)").format(sql.Identifier(schema or "public", name)))
        (problem,) = preflight._of_somebody_else(connection)
        assert preflight.OTHER_TOOLS[table] in problem.message
        connection.rollback()


@pytest.fixture(scope="module")
def _shared_empty(server):
    with _database(server, None) as database:
        yield database


def test_tables_of_other_names_are_nobodys_business(empty):
    with empty.connect() as connection:
        connection.execute("CREATE TABLE accounts (a integer); CREATE VIEW mine AS SELECT 1 AS a; CREATE SCHEMA desk")
        migrations.migrate(connection)
        assert catalog.differences(connection) == []


def test_encoding_place_of_the_extension_and_rights_are_told_together(empty, server):
    with empty.connect() as admin:
        admin.execute("CREATE DATABASE tidemark_test_latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
        try:
            url = make_conninfo(empty.url, dbname="tidemark_test_latin")
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE SCHEMA ext; CREATE EXTENSION timescaledb WITH SCHEMA ext")
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("CREATE ROLE tidemark_test_guest")
                connection.execute("SET SESSION AUTHORIZATION tidemark_test_guest;"
                                   " SET default_transaction_read_only = on")
                said = refused(connection)
            for words in ("LATIN1", "schema ext", "may not create objects", "default_transaction_read_only"):
                assert words in said
        finally:
            admin.execute("DROP DATABASE tidemark_test_latin WITH (FORCE)")
            admin.execute("DROP ROLE tidemark_test_guest")


def test_role_that_may_not_install_the_extension(empty, monkeypatch):
    """Debian marks TimescaleDB trusted; where it is not, a superuser is needed once."""
    monkeypatch.setitem(preflight._SQL, "server", preflight._SQL["server"].replace("v.trusted", "false"))
    with empty.connect() as connection:
        connection.execute("CREATE ROLE tidemark_test_guest")
        try:
            connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO tidemark_test_guest").format(
                sql.Identifier(connection.info.dbname)))
            with empty.connect() as guest:
                guest.execute("SET SESSION AUTHORIZATION tidemark_test_guest")
                assert "CREATE EXTENSION timescaledb" in refused(guest)
        finally:
            connection.execute("REASSIGN OWNED BY tidemark_test_guest TO CURRENT_USER; DROP ROLE tidemark_test_guest")


def test_database_that_psql_built_is_to_be_stamped(empty):
    with empty.connect() as connection:
        catalog.build(connection)
        assert "tidemark stamp" in refused(connection)


def test_upgrade_looks_for_names_and_rights_too(db, checkout):
    with db.connect() as connection:
        schema_file, _ = migrations.new("venues")
        schema_file.write_text("CREATE TABLE public.venues (a int);\nCREATE INDEX venue_idx ON public.venues (a);\n")
        connection.execute("CREATE TABLE venues (mine integer); CREATE INDEX venue_idx ON venues (mine)")
        connection.execute("CREATE ROLE tidemark_test_guest; GRANT CREATE ON SCHEMA public TO tidemark_test_guest")
        connection.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO tidemark_test_guest").format(
            sql.Identifier(connection.info.dbname)))
        connection.execute("GRANT USAGE ON SCHEMA _tidemark_migrations TO tidemark_test_guest;"
                           " GRANT SELECT ON ALL TABLES IN SCHEMA _tidemark_migrations TO tidemark_test_guest")
        try:
            with db.connect() as guest:
                guest.execute("SET SESSION AUTHORIZATION tidemark_test_guest")
                with pytest.raises(Problem) as problem:
                    migrations.migrate(guest)
        finally:
            connection.execute("DROP OWNED BY tidemark_test_guest; DROP ROLE tidemark_test_guest")
    for words in ("public.venues", "public.venue_idx", "may not change what belongs to"):
        assert words in str(problem.value)
