"""What each test would let through if it were not there: a mutation breaks one guard, and its test has to turn red.

    python -m tests.mutations                       all of them
    python -m tests.mutations --number 8            those of one numbered test
    python -m tests.mutations --number 'quality 3'  those of one part of the quality engine
    python -m tests.mutations --list

A module of this package with a list MUTATIONS adds to them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg


@dataclass(frozen=True)
class Mutation:
    """One guard broken, in the migrated database or in the runner, and the tests that have to notice."""

    number: int | str  # of the test in the specification, or a part of the project: "quality 3"
    name: str
    sql: str  # executed in every database once it is migrated
    tests: str  # what pytest is to run: file::test, relative to tests/
    only: str = ""  # a -k expression, where some of its cases will do
    environment: dict[str, str] = field(default_factory=dict)
    edition: str = ""  # the edition it needs, where it needs one
    undo: str = ""  # executed afterwards, where sql goes beyond its database: roles are the server's
    patch: Callable[[], None] | None = None  # called before the tests are imported; sql may be empty then

    @property
    def label(self) -> str:
        return f"test {self.number}" if isinstance(self.number, int) else self.number

    @property
    def title(self) -> str:
        return f"{self.label}: {self.name}"

    def break_database(self, connection: psycopg.Connection) -> None:
        """Execute `sql` in the transaction that is open, as whoever maintains the record would."""
        connection.execute("SET LOCAL search_path = public; SET LOCAL tidemark.record_maintenance = 'on';"
                           " SET LOCAL tidemark.reason = 'a mutation'")
        connection.execute(self.sql)

    @property
    def order(self) -> tuple[str, int]:
        """Numbered tests first, then part by part."""
        words, number = re.fullmatch(r"(\D*)(\d+)", str(self.number)).groups()
        return words, int(number)


def collect() -> list[Mutation]:
    """The mutations of all modules of this package, in the order of the tests."""
    found: list[Mutation] = []
    for module in pkgutil.iter_modules(__path__):
        if module.name not in ("__main__", "plugin"):
            found += getattr(importlib.import_module(f"{__name__}.{module.name}"), "MUTATIONS", [])
    return sorted(found, key=lambda one: one.order)


def rewritten(function: str, before: str, after: str) -> str:
    """SQL that replaces a text in a function's definition, and fails where the text is not there any more."""
    return _replaced(function, f"pg_get_functiondef('{function}'::regproc)", before, after)


def rewritten_view(view: str, before: str, after: str) -> str:
    """The same for a view, whose definition is as the server prints it."""
    query = f"pg_get_viewdef('{view}'::regclass)"
    return _replaced(view, f"'CREATE OR REPLACE VIEW {view} AS ' || {query}", before, after)


def _replaced(name: str, definition: str, before: str, after: str) -> str:
    return f"""
        DO $mutation$
        DECLARE
            v_definition CONSTANT text := {definition};
        BEGIN
            IF strpos(v_definition, $before${before}$before$) = 0 THEN
                RAISE EXCEPTION 'the text to replace is not in {name}';
            END IF;
            EXECUTE replace(v_definition, $before${before}$before$, $after${after}$after$);
        END
        $mutation$;
    """


def recoded(function: str, before: str, after: str, *more: tuple[str, str]) -> Callable[[], None]:
    """A patch that replaces texts in a Python function (module:function or module:Class.function), or fails."""

    def patch() -> None:
        module_name, path = function.split(":")
        module = importlib.import_module(module_name)
        *outer, name = path.split(".")
        owner = getattr(module, outer[0]) if outer else module
        source = textwrap.dedent(inspect.getsource(inspect.getattr_static(owner, name)))
        for text, replacement in ((before, after), *more):
            if text not in source:
                raise ValueError(f"the text to replace is not in {function}: {text!r}")
            source = source.replace(text, replacement)
        made: dict[str, object] = {}
        exec(source, vars(module), made)  # noqa: S102
        setattr(owner, name, made[name])

    return patch


def reworded(module: str, dictionary: str, key: str, before: str, after: str) -> Callable[[], None]:
    """The same for a statement that the runner keeps in a dictionary."""

    def patch() -> None:
        statements = getattr(importlib.import_module(module), dictionary)
        if before not in statements[key]:
            raise ValueError(f"the text to replace is not in {key}")
        statements[key] = statements[key].replace(before, after)

    return patch
