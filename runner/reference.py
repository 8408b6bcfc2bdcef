"""Writes docs/reference.md from the comments in the database; fails where one is missing.

Run it through `make docs`; a test compares the file with what it would write.
"""

from __future__ import annotations

from importlib import resources
from itertools import groupby
from operator import itemgetter

import psycopg

from tidemark import config
from tidemark.errors import Problem

TARGET = config.CHECKOUT / "docs" / "reference.md"
PREFACE = """# Reference

Generated from the comments in the database by `make docs`; do not edit.
Tables and views come first, then functions and procedures, then types.
"""


def render(connection: psycopg.Connection) -> str:
    """The reference as Markdown; Problem where an object has no comment."""
    rows = connection.execute(resources.files("tidemark").joinpath("reference.sql").read_text()).fetchall()
    bare = [f"{name} {part or ''}".strip() for _, name, part, _, comment in rows if not comment]
    if bare:
        raise Problem("objects without a comment", detail=", ".join(bare), hint="COMMENT ON them")
    pages = [PREFACE]
    for section, members in groupby(rows, key=itemgetter(0)):
        pages.append(f"\n## {section}\n")
        for name, lines in groupby(members, key=itemgetter(1)):
            (_, _, _, kind, comment), *parts = lines
            pages.append(f"\n### {name}\n\n{comment}{f' ({kind})' if kind else ''}\n")
            if parts:
                pages.append("\n| column | type | meaning |\n|---|---|---|\n")
                pages += [f"| {part} | {kind} | {_cell(comment)} |\n" for _, _, part, kind, comment in parts]
    return "".join(pages)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    from tidemark.cli import database

    with database() as opened:
        TARGET.write_text(render(opened))
