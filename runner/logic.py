"""Logic files in force: applied again as a whole, and what they no longer make is dropped.

What a file makes is taken from the catalogue, not from its text: much of it is made by loops over tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psycopg
from psycopg import sql

from tidemark.errors import Problem
from tidemark.sql_files import named_statements

STATEMENTS = named_statements("logic.sql")
# In this order: what stands on others first.
KINDS = ("event trigger", "policy", "trigger", "view", "operator", "cast", "procedure", "function")

Object = tuple[str, str]  # kind and identity, as pg_identify_object has them
Run = Callable[[], Iterable[str]]  # applies one file after the other, giving the name of each once it is done


def apply(connection: psycopg.Connection, run: Run) -> list[Object]:
    """Apply all logic files in the open transaction; returns what was dropped because they no longer make it.

    An object that a file leaves alone where it is there looks unwanted too: after the drop everything is applied once
    more, and what then is back was wanted.
    """
    recorded = {(kind, identity) for kind, identity, _ in connection.execute(STATEMENTS["recorded"])}
    made = _made(connection, run)
    unwanted = _existing(connection, recorded - made.keys())
    if unwanted:
        _drop(connection, unwanted)
        made = _made(connection, run)
    connection.execute(STATEMENTS["forget"])
    with connection.cursor() as cursor:
        cursor.executemany(STATEMENTS["record"], [
            {"kind": kind, "identity": identity, "file": file} for (kind, identity), file in made.items()
        ])
    return sorted(unwanted - made.keys())


def drop_all(connection: psycopg.Connection, schemas: list[str]) -> None:
    """Drop all logic in the open transaction; raises Problem, naming it, where something of others stands on it."""
    connection.execute(STATEMENTS["stop_jobs"], {"schemas": schemas})
    for table, name in connection.execute(STATEMENTS["constraints"]).fetchall():
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    found = set(connection.execute(STATEMENTS["everything"], {"schemas": schemas}))
    if connection.execute("SELECT to_regclass('_tidemark.rollups') IS NOT NULL").fetchone()[0]:
        found |= set(connection.execute(STATEMENTS["rollups_views"]))
    _drop(connection, found)
    connection.execute(STATEMENTS["forget"])


def _made(connection: psycopg.Connection, run: Run) -> dict[Object, str]:
    """What the files make, each with the first file that does."""
    made: dict[Object, str] = {}
    for name in run():
        for found in connection.execute(STATEMENTS["touched"]).fetchall():
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
