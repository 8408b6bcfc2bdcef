"""The loader's statements (loader.sql), and who is to blame when one fails."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from tidemark.sql_files import named_statements

# A record is to blame for errors of these classes: data, constraints, a view's check, the limits of a row, and what
# triggers raise. Any other (a missing right, a full disk, a cancelled statement) ends the load.
RECORD_CLASSES = {"22", "23", "44", "54", "P0", "TM"}

STATEMENTS = {
    name: re.sub(r"^--.*\n", "", body, flags=re.M) for name, body in named_statements("loader.sql").items()
}


def execute(conn: psycopg.Connection, statement: str, /, **values: Any) -> psycopg.Cursor:
    """Execute one of them by its name."""
    return conn.execute(STATEMENTS[statement], values)


def blames_record(error: psycopg.Error) -> bool:
    """Whether the statement would succeed without the record that it is about."""
    return (error.sqlstate or "")[:2] in RECORD_CLASSES


def reason(error: psycopg.Error) -> str:
    """The error in one line."""
    return f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})" if error.sqlstate else str(error)
