"""The catalogue of a database, compared with the one that `schema/` makes on the same server."""

from __future__ import annotations

import secrets
from importlib import resources

import psycopg
from psycopg import sql

from tidemark.database import SESSION, connect, prepare
from tidemark.errors import Problem
from tidemark.schema_files import schema_files


def snapshot(connection: psycopg.Connection) -> dict[str, str]:
    """Every object of Tidemark's schemas and its definition, independent of how it came to be."""
    with connection.transaction():
        # Definitions are printed with or without a schema depending on the search_path: fix it.
        prepare(connection, SESSION | {"search_path": "pg_catalog"}, local=True)
        return dict(connection.execute(resources.files("tidemark").joinpath("catalog.sql").read_text()).fetchall())


def build(connection: psycopg.Connection) -> None:
    """Run every file of `schema/` in order, as `cat schema/state/*.sql schema/logic/*/*.sql | psql` does."""
    connection.execute("SET search_path = public")
    for file in schema_files():
        connection.execute(file.text)


def differences(connection: psycopg.Connection) -> list[str]:
    """What the database lacks or has differently, one line each; objects of its own do not count.

    Builds a scratch database on the same server to compare with, and drops it again.
    """
    scratch = f"tidemark_verify_{secrets.token_hex(4)}"
    try:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(scratch)))
    except psycopg.errors.InsufficientPrivilege:
        raise Problem(
            "verifying needs a scratch database and the role may not create one",
            hint=f"ALTER ROLE {connection.info.user} CREATEDB, or verify as another role", exit_code=2,
        ) from None
    try:
        with connect(connection.info.dsn, dbname=scratch, password=connection.info.password or None) as reference:
            build(reference)
            expected = snapshot(reference)
    finally:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(scratch)))
    actual = snapshot(connection)
    return [
        f"{name} is {'different' if name in actual else 'missing'}"
        for name, definition in expected.items() if actual.get(name) != definition
    ]
