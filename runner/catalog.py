"""The catalogue of a database, compared with the one that `schema/` makes on the same server."""

from __future__ import annotations

import re
import secrets
from importlib import resources

import psycopg
from psycopg import sql

from tidemark.database import SESSION, connect, prepare
from tidemark.errors import Problem
from tidemark.schema_files import schema_files
from tidemark.sql_files import named_statements

Snapshot = dict[str, str]  # each object and its definition
_SQL = named_statements("catalog_data.sql")
_ROLES = [f"tidemark_{role}" for role in ("owner", "record", "admin", "writer", "app", "reader")]
_TECHNICAL = re.compile(r"(?:^| )(?:tidemark_owner|tidemark_record)=\S+")  # privileges that follow from who owns what


def snapshot(connection: psycopg.Connection) -> Snapshot:
    """Every object of Tidemark's schemas and its definition, independent of how it came to be."""
    with connection.transaction():
        # Definitions are printed with or without a schema depending on the search_path: fix it.
        prepare(connection, SESSION | {"search_path": "pg_catalog"}, local=True)
        schemas = ",".join(own_schemas(connection))
        connection.execute("SELECT set_config('tidemark.catalog_schemas', %s, true)", (schemas,))
        return dict(connection.execute(resources.files("tidemark").joinpath("catalog.sql").read_text()).fetchall())


def own_schemas(connection: psycopg.Connection) -> list[str]:
    """The schemas that hold nothing but Tidemark's objects; none where it is not there."""
    if connection.execute("SELECT to_regproc('_tidemark.own_schemas') IS NULL").fetchone()[0]:
        return []
    return connection.execute("SELECT _tidemark.own_schemas()::text[]").fetchone()[0]


def build(connection: psycopg.Connection) -> None:
    """Run every file of `schema/` in order, as `cat schema/state/*.sql schema/logic/*/*.sql | psql` does.

    What a project of the user's adds comes next, and all logic again, as when it is migrated.
    """
    connection.execute("SET search_path = public")
    files = schema_files()
    shipped, own = [f for f in files if not f.is_own], [f for f in files if f.is_own and not f.is_logic]
    for file in shipped + (own + [f for f in files if f.is_logic] if shipped != files else []):
        connection.execute(file.text)


def differences(connection: psycopg.Connection) -> list[str]:
    """What the database lacks, has differently, or has too much where only Tidemark's objects belong, one line each.

    Objects of its own do not count, nor does what is made for them; what is made from rules is compared with the rules
    that are in force. Builds a scratch database on the same server to compare with, and drops it again.
    """
    scratch = f"tidemark_verify_{secrets.token_hex(4)}"
    try:
        # Nothing in it, whatever template1 holds, and nothing of a locale that could be refused.
        connection.execute(sql.SQL(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C'"
        ).format(sql.Identifier(scratch)))
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
    if "schema _tidemark" not in actual:
        return [f"{name} is missing" for name in expected]
    if actual["owner of _tidemark"] != expected["owner of _tidemark"]:
        expected, actual = _whoever_owns_it(expected), _whoever_owns_it(actual)
    made = _made_from_data(connection)
    made["varying"] += _made_from_columns(expected, actual)
    found = [
        f"{name} is {'different' if name in actual else 'missing'}" for name, definition in expected.items()
        if actual.get(name) != definition and not name.startswith(made["varying" if name in actual else "lacking"])
    ]
    found += [f"{name} is too many" for name in _too_many(expected, actual) if not name.startswith(made["known"])]
    found += [line for (line,) in connection.execute(_SQL["roles"], {"roles": _ROLES})]
    return found + [f"the functions that score {label} are not those of its rules" for label in _stale(connection)]


def _whoever_owns_it(objects: Snapshot) -> Snapshot:
    """Without what depends on who may own: who migrated was a superuser, and who asks is not, or the reverse."""
    return {
        name: kept for name, definition in objects.items()
        if not name.startswith(("owner of ", "event trigger "))
        and ((kept := _TECHNICAL.sub("", definition or "").strip() if name.startswith("privileges ") else definition)
             or not name.startswith("privileges "))
    }


def _too_many(expected: Snapshot, actual: Snapshot) -> list[str]:
    """What is left over of Tidemark's: objects in schemas of its own; triggers of another name that call its functions,
    policies and rules of its tables, privileges on what nobody else has any on, overloads of its routines in public."""
    schemas = [name.removeprefix("schema ") for name in expected if name.startswith("schema ")]
    own = tuple(f"{kind} {schema}." for kind in ("relation", "routine", "trigger", "policy", "type", "composite type",
                                                 "rule") for schema in schemas)
    triggers = {name.rpartition(".")[2] for name in expected if name.startswith("trigger ")}
    found = []
    for name, definition in actual.items():
        if name in expected:
            continue
        kind, _, rest = name.partition(" ")
        on_own_table = f"relation {rest.rpartition('.')[0]}" in expected
        if name.startswith((*own, "event trigger ")) or (kind in ("policy", "rule") and on_own_table):
            found.append(name)
        elif kind == "privileges":
            if any(f"{kind} {rest}" in expected for kind in ("owner of", "relation", "column")):
                found.append(name)
        elif kind == "trigger" and on_own_table:
            # Those that attaching makes have the same names wherever they are.
            calls = re.search(r"EXECUTE FUNCTION (\S+)\(", definition)[1]
            if rest.rpartition(".")[2] not in triggers and calls.partition(".")[0] in schemas:
                found.append(name)
        elif kind == "routine" and any(other.startswith(name.partition("(")[0] + "(") for other in expected):
            found.append(name)
    return found


def _made_from_data(connection: psycopg.Connection) -> dict[str, tuple[str, ...]]:
    """How the names of objects begin that a database's own rows make: `varying` differ with rules and aggregates,
    `known` are not too many, `lacking` may be absent because somebody detached what makes them."""
    made: dict[str, list[str]] = {"varying": [], "known": [], "lacking": []}
    for part, prefix in connection.execute(_SQL["made_from_data"]):
        made[part].append(prefix)
    return {part: tuple(prefixes) for part, prefixes in made.items()}


def _made_from_columns(expected: Snapshot, actual: Snapshot) -> tuple[str, ...]:
    """How the names begin of what 500_helpers.sql and 791_absent_values.sql make from a table's columns, for tables
    that have got columns more: quality was attached to them, or somebody added his own."""
    more = {name.split(".")[1] for name in actual.keys() - expected.keys() if name.startswith("column public.")}
    return tuple(
        made.format(table) for table in more
        for made in ("routine _tidemark.fill_absent_{}(", "trigger public.{}.trg_absent_values",
                     "trigger public.{}.trg_set_updated_at")
    )


def _stale(connection: psycopg.Connection) -> list[str]:
    """Labels of the hypertables whose scoring functions are not what its rules would make of them now."""
    with connection.transaction(force_rollback=True):
        return [label for (label,) in connection.execute(_SQL["stale"])]
