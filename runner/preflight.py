"""What stands in the way of a migration, looked for before anything is written, and told all at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg

from tidemark import config
from tidemark.database import where
from tidemark.errors import Problem
from tidemark.schema_files import SchemaFile
from tidemark.sql_files import named_statements

MINIMUM_POSTGRESQL = 15
MINIMUM_TIMESCALEDB = (2, 19, 3)
# Where other tools keep account of what they applied: a database that has one of them is theirs.
OTHER_TOOLS = {
    "alembic_version": "Alembic", "django_migrations": "Django", "flyway_schema_history": "Flyway",
    "databasechangelog": "Liquibase", "schema_migrations": "Rails, golang-migrate or dbmate", "_prisma_migrations":
    "Prisma", "knex_migrations": "Knex", "goose_db_version": "goose", "gorp_migrations": "sql-migrate",
    "__EFMigrationsHistory": "Entity Framework", "_sqlx_migrations": "sqlx", "__diesel_schema_migrations": "Diesel",
    "ar_internal_metadata": "Rails", "SequelizeMeta": "Sequelize", "typeorm_metadata": "TypeORM",
    "_yoyo_migration": "yoyo", "drizzle.__drizzle_migrations": "Drizzle", "sqitch.changes": "Sqitch",
}
_SQL = named_statements("preflight.sql")


def check_server(connection: psycopg.Connection, *, is_written: bool = True) -> None:
    """Refuse, before anything is touched, a server or a role that cannot carry Tidemark (exit code 2).

    Not `is_written`: a standby will do, as where nothing is to be applied.
    """
    _refuse(connection, _of_server(connection, is_written))


def check(connection: psycopg.Connection, pending: list[SchemaFile], *, is_first: bool) -> None:
    """Refuse, before anything is written, a database in which the pending state files would not come through.

    One Problem (exit code 2) with all that was found and the way out. `is_first`: nothing is applied yet.
    """
    found = _of_server(connection)
    names = _relations_of(pending)
    if is_first:
        found += _of_somebody_else(connection)
        names |= _shipped_names()
    else:
        found += _of_ownership(connection)
    found += _taken(connection, sorted(names), is_first)
    _refuse(connection, found)


def _refuse(connection: psycopg.Connection, found: list[Problem]) -> None:
    if len(found) == 1:
        raise found[0]
    if found:
        raise Problem(
            f"{len(found)} things stand in the way in {where(connection)}, and nothing was applied",
            detail="; ".join(f"{problem.message} ({problem.detail})" if problem.detail else problem.message
                             for problem in found),
            hint="; ".join(dict.fromkeys(problem.hint for problem in found if problem.hint)), exit_code=2,
        )


def _of_server(connection: psycopg.Connection, is_written: bool = True) -> list[Problem]:
    """What is wrong with the server; that nothing can be written alone is nothing where nothing is to be written."""
    *facts, read_only = connection.execute(_SQL["server"]).fetchone()
    found = list(_of_facts(connection, *facts))
    if read_only and (is_written or found):
        found.append(Problem(
            f"the database takes no changes: {read_only}", detail=where(connection),
            hint="DATABASE_URL has to name the primary, without default_transaction_read_only", exit_code=2,
        ))
    return found


def _of_facts(
    connection: psycopg.Connection, available: str | None, installed: str | None, schema: str | None,
    may_install: bool, preloaded: bool, may_create: bool, encoding: str, has_public: bool,
) -> Iterator[Problem]:
    """The server's version, TimescaleDB in it, and what the role may do there."""
    major, place, role = connection.info.server_version // 10000, where(connection), connection.info.user
    if major < MINIMUM_POSTGRESQL:
        yield Problem(
            f"PostgreSQL {major} is too old", detail=place,
            hint=f"Tidemark needs PostgreSQL {MINIMUM_POSTGRESQL} or newer", exit_code=2,
        )
    if available is None:
        yield Problem(
            "TimescaleDB is not installed on the server", detail=place,
            hint="install its package there, or unset DATABASE_URL and run: tidemark up", exit_code=2,
        )
    elif not preloaded:
        yield Problem(
            "TimescaleDB is not preloaded", detail=place,
            hint="set shared_preload_libraries = 'timescaledb' in postgresql.conf and restart the server", exit_code=2,
        )
    if version := installed or available:
        if tuple(int(part) for part in version.split("-")[0].split(".")[:3]) < MINIMUM_TIMESCALEDB:
            yield Problem(
                f"TimescaleDB {version} is too old", detail=place,
                hint=f"Tidemark needs {'.'.join(map(str, MINIMUM_TIMESCALEDB))} or newer", exit_code=2,
            )
        if schema not in (None, "public"):
            yield Problem(
                f"TimescaleDB is installed in schema {schema}", detail=place,
                hint="Tidemark expects it in public: take a database of its own (createdb)", exit_code=2,
            )
        if not (installed or may_install):
            yield Problem(
                f"role {role} may not install TimescaleDB", detail=place,
                hint="have a superuser run there: CREATE EXTENSION timescaledb", exit_code=2,
            )
    if not has_public:
        yield Problem(f"there is no schema public in {place}", hint="CREATE SCHEMA public", exit_code=2)
    elif not may_create:
        yield Problem(
            f"role {role} may not create objects in {place}",
            hint="GRANT CREATE ON DATABASE … and ON SCHEMA public to it, or use the database's owner", exit_code=2,
        )
    if encoding != "UTF8":
        yield Problem(
            f"the database is encoded in {encoding}", detail=place,
            hint="Tidemark needs UTF8: createdb --encoding=UTF8 --template=template0 NAME", exit_code=2,
        )


def _of_somebody_else(connection: psycopg.Connection) -> Iterator[Problem]:
    """A database that psql built, or that another tool looks after."""
    if connection.execute("SELECT to_regclass('_tidemark.rollups') IS NOT NULL").fetchone()[0]:
        raise Problem(
            f"{where(connection)} has Tidemark's objects and no record of them", detail="psql built it?",
            hint="have them proved and recorded: tidemark stamp", exit_code=2,
        )
    for (relation,) in connection.execute(_SQL["ledgers"], {"names": list(OTHER_TOOLS)}):
        tool = OTHER_TOOLS.get(relation.removeprefix("public.").replace('"', ""), "another tool")
        yield Problem(
            f"another tool looks after this database: {relation} ({tool})",
            hint="give Tidemark a database of its own: createdb NAME, and name it in DATABASE_URL", exit_code=2,
        )


def _of_ownership(connection: psycopg.Connection) -> Iterator[Problem]:
    owner, may_change = connection.execute(_SQL["ownership"]).fetchone() or (None, True)
    if not may_change:
        yield Problem(
            f"role {connection.info.user} may not change what belongs to {owner}",
            hint=f"migrate as {owner}, as one of its members that inherits its rights, or as a superuser", exit_code=2,
        )


def _taken(connection: psycopg.Connection, names: list[str], is_first: bool) -> Iterator[Problem]:
    """Names that something of a user's has already."""
    schemas = ["_tidemark", *_application_schemas()] if is_first else []
    found = [name for (name,) in connection.execute(_SQL["taken"], {"names": names, "schemas": schemas})]
    if found:
        yield Problem(
            "names that Tidemark needs are taken: " + ", ".join(found[:12])
            + (f" and {len(found) - 12} more" if len(found) > 12 else ""),
            hint="give Tidemark a database of its own: createdb NAME, and name it in DATABASE_URL", exit_code=2,
        )


def _relations_of(files: list[SchemaFile]) -> set[str]:
    """What state files make in public."""
    made = re.compile(r"^CREATE (?:TABLE|TYPE|SEQUENCE) public\.(\w+)|^CREATE (?:UNIQUE )?INDEX (\w+)", re.MULTILINE)
    return {name or index for file in files for name, index in made.findall(file.text)}


def _shipped_names() -> set[str]:
    """All that there is in public once everything is applied, loops included: as the reference has it."""
    reference = config.DOCS / "reference.md"
    text = reference.read_text() if reference.is_file() else ""
    return {re.match(r"\w+", name)[0] for name in re.findall(r"^### (.+)$", text, re.MULTILINE)}


def _application_schemas() -> list[str]:
    return [name for path in config.SCHEMA.rglob("450_applications.sql")
            for name in re.findall(r"^CREATE SCHEMA (\w+)", path.read_text(), re.MULTILINE)]
