"""Logic files in force: applied again as a whole, and what they no longer make is dropped.

What a file makes is taken from the catalogue, not from its text: much of it is made by loops over tables.

CREATE OR REPLACE has its limits: a view cannot lose or move a column, a function cannot return something else, and one
with another list of arguments is another function, beside the old one. Where the server refuses for such a reason,
everything is applied once more, statement by statement: what is in the way is dropped, and what stands on that is set
aside and put back at the end (`_tidemark.make_way`, `put_back`), a user's own views among it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator

import psycopg
from psycopg import sql

from tidemark.errors import Problem
from tidemark.schema_files import SchemaFile, schema_files
from tidemark.sql_files import named_statements
from tidemark.sql_text import statements

STATEMENTS = named_statements("logic.sql")
PUT_BACK = "985_put_back.sql"
# In this order: what stands on others first.
KINDS = ("event trigger", "policy", "trigger", "view", "operator", "cast", "procedure", "function")

# What CREATE OR REPLACE cannot do: move a column of a view, return something else, turn a function into a procedure,
# tell two functions apart of which one should have taken the place of the other.
IN_THE_WAY = (
    psycopg.errors.InvalidTableDefinition, psycopg.errors.InvalidFunctionDefinition, psycopg.errors.WrongObjectType,
    psycopg.errors.AmbiguousFunction,
)
_REPLACES = re.compile(
    r"\s*(?:--.*\s+)*create\s+or\s+replace\s+(?P<kind>view|function|procedure)\s+(?P<name>[\w.]+)", re.IGNORECASE
)
_CREATES_ROUTINE = re.compile(r"^CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE|AGGREGATE) ([\w.]+)", re.MULTILINE)

Object = tuple[str, str]  # kind and identity, as pg_identify_object has them
Guard = Callable[[SchemaFile], contextlib.AbstractContextManager]  # what has to hold around each file
Run = Callable[[], Iterable[str]]  # applies one file after the other, giving the name of each once it is done


def apply(
    connection: psycopg.Connection, files: list[SchemaFile], guard: Guard, *, is_all: bool = True
) -> list[Object]:
    """Apply logic files in the open transaction; returns what was dropped because no file makes it any more.

    Where there are more files than these, nothing is dropped.
    """
    def whole() -> Iterator[str]:
        for file in files:
            with guard(file):
                connection.execute(file.text)
            yield file.name

    def by_statements() -> Iterator[str]:
        for file in files:
            with guard(file):
                for statement, _ in statements(file.text):
                    _replace(connection, statement)
            yield file.name

    try:
        with connection.transaction():
            return _apply(connection, whole, is_all)
    except IN_THE_WAY:
        return _apply(connection, by_statements, is_all)


def _apply(connection: psycopg.Connection, run: Run, is_all: bool) -> list[Object]:
    """Apply what `run` does, drop what is recorded and no longer made, and record what is.

    An object that a file leaves alone where it is there looks unwanted too: after the drop everything is applied once
    more, and what then is back was wanted.
    """
    recorded = {(kind, identity): file for kind, identity, file in connection.execute(STATEMENTS["recorded"])}
    made = _made(connection, run)
    if not is_all:
        made = recorded | made
    unwanted = _existing(connection, recorded.keys() - made.keys())
    if unwanted:
        _drop(connection, unwanted)
        made = _made(connection, run)
    connection.execute(STATEMENTS["forget"])
    connection.execute(STATEMENTS["forget_set_aside"])
    with connection.cursor() as cursor:
        cursor.executemany(STATEMENTS["record"], [
            {"kind": kind, "identity": identity, "file": file} for (kind, identity), file in made.items()
        ])
    return sorted(unwanted - made.keys())


def _replace(connection: psycopg.Connection, statement: str) -> None:
    """Run a statement; where it replaces a view or a routine and cannot, get what is in its way out of it."""
    replaces = _REPLACES.match(statement)
    try:
        with connection.transaction():
            connection.execute(statement)
    except IN_THE_WAY:
        old = _replaced(connection, statement, replaces) if replaces else None
        if old is None:
            raise
        connection.execute(STATEMENTS["make_way"], old)
        connection.execute(statement)
    if replaces and replaces["kind"].lower() != "view":
        for (overload,) in connection.execute(STATEMENTS["overtaken"], {"name": replaces["name"]}).fetchall():
            connection.execute(STATEMENTS["make_way"], ("pg_proc", overload))


def _replaced(connection: psycopg.Connection, statement: str, replaces: re.Match) -> tuple[str, int] | None:
    """Class and oid of what the statement means to replace: of routines, the one with the same arguments."""
    if replaces["kind"].lower() == "view":
        (oid,) = connection.execute("SELECT to_regclass(%s)::oid", (replaces["name"],)).fetchone()
        return oid and ("pg_class", oid)
    elsewhere = statement[:replaces.start("name")] + "pg_temp.made_anew" + statement[replaces.end("name"):]
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL check_function_bodies = off")
        connection.execute(elsewhere)
        found = connection.execute(STATEMENTS["same_arguments"], {"name": replaces["name"]}).fetchone()
    return found and ("pg_proc", found[0])


def drop_all(connection: psycopg.Connection, schemas: list[str]) -> None:
    """Drop all logic in the open transaction; raises Problem, naming it, where something of others stands on it."""
    state = [name for file in schema_files() if not file.is_logic for name in _CREATES_ROUTINE.findall(file.text)]
    connection.execute(STATEMENTS["stop_jobs"], {"schemas": schemas})
    connection.execute(STATEMENTS["set_aside"], {"schemas": schemas})
    for table, constraint in connection.execute(STATEMENTS["attached"], {"schemas": schemas}).fetchall():
        connection.execute(sql.SQL(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"))
    found = set(connection.execute(STATEMENTS["everything"], {"schemas": schemas, "state": state}))
    if connection.execute("SELECT to_regclass('_tidemark.rollups') IS NOT NULL").fetchone()[0]:
        found |= set(connection.execute(STATEMENTS["rollups_views"]))
    _drop(connection, found)
    connection.execute(STATEMENTS["forget"])


def _made(connection: psycopg.Connection, run: Run) -> dict[Object, str]:
    """What the files make, each with the first file that does. What is only put back belongs to a user."""
    made: dict[Object, str] = {}
    put_back: set[Object] = set()
    for name in run():
        if name == PUT_BACK:  # the last one before what is made here gets its owner
            for (definition,) in connection.execute(STATEMENTS["put_back"]).fetchall():
                connection.execute(definition)
        touched = set(connection.execute(STATEMENTS["touched"]))
        if name == PUT_BACK:
            put_back = touched - made.keys()
        for found in touched - put_back:
            made.setdefault(found, name)
    return made


def _existing(connection: psycopg.Connection, objects: Iterable[Object]) -> set[Object]:
    kinds, identities = zip(*objects, strict=True) if objects else ((), ())
    values = {"kinds": list(kinds), "identities": list(identities)}
    return set(connection.execute(STATEMENTS["existing"], values).fetchall())


def _drop(connection: psycopg.Connection, objects: Iterable[Object]) -> None:
    """Drop objects that may stand on one another; raises Problem, naming it, where something else stands on one."""
    left = sorted(objects, key=lambda found: (KINDS.index(found[0]), found[1]))
    connection.execute("SELECT set_config('tidemark.record_maintenance', 'on', true)")
    while left:
        kept = []
        for kind, identity in left:
            try:
                with connection.transaction():
                    connection.execute(sql.SQL(f"DROP {kind} {identity}"))
            except psycopg.errors.DependentObjectsStillExist as error:
                kept.append((kind, identity))
                reason = error.diag.message_detail or error.diag.message_primary
        if kept == left:
            raise Problem(
                f"{kept[0][0]} {kept[0][1]} has to go, and something stands on it", detail=reason,
                hint="drop or change that first; it is none of Tidemark's",
            )
        left = kept
    connection.execute("SELECT set_config('tidemark.record_maintenance', '', true)")
