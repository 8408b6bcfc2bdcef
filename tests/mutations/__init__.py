"""What each test would let through if it were not there: a mutation breaks one guard, and its test has to turn red.

    python -m tests.mutations                 all of them
    python -m tests.mutations --number 8      those of one test
    python -m tests.mutations --list

A module of this package with a list MUTATIONS adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mutation:
    """One guard broken, by SQL on the migrated template, and the tests that have to notice."""

    number: int  # of the test in the specification
    name: str
    sql: str
    tests: str  # what pytest is to run: file::test, relative to tests/
    only: str = ""  # a -k expression, where some of its cases will do
    environment: dict[str, str] = field(default_factory=dict)
    edition: str = ""  # the edition it needs, where it needs one


def rewritten(function: str, before: str, after: str) -> str:
    """SQL that replaces a text in a function's definition, and fails where the text is not there any more."""
    return f"""
        DO $mutation$
        DECLARE
            v_definition CONSTANT text := pg_get_functiondef('{function}'::regproc);
        BEGIN
            IF strpos(v_definition, $before${before}$before$) = 0 THEN
                RAISE EXCEPTION 'the text to replace is not in {function}';
            END IF;
            EXECUTE replace(v_definition, $before${before}$before$, $after${after}$after$);
        END
        $mutation$;
    """
