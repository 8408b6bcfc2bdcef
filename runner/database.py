"""Connections: from a URL as applications write it to a psycopg connection, with errors people can act on."""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tidemark.errors import Problem

# What the runner's statements, and what it reads of their answers, rely on. A server, a database or a role may have
# other defaults; names that a version of PostgreSQL does not know are left out.
SESSION = {
    # how values are written and read
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
    # what statements mean
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "search_path": '"$user", public',
    "row_security": "on",
    "check_function_bodies": "on",
    "restrict_nonsystem_relation_kind": "",
    "default_tablespace": "",
    "default_table_access_method": "heap",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "client_min_messages": "notice",
}
# The runner sets limits of its own where it needs them; these would end work that is meant to take long.
UNLIMITED = dict.fromkeys(
    ("statement_timeout", "lock_timeout", "transaction_timeout", "idle_in_transaction_session_timeout",
     "idle_session_timeout"), "0"
)
_SET = (
    "SELECT pg_catalog.set_config(s.name, s.value, %(local)s)"
    "  FROM unnest(%(names)s::text[], %(values)s::text[]) AS s (name, value)"
    " WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL"
)


def normalise(url: str) -> str:
    """The URL as libpq takes it: SQLAlchemy's `postgresql+driver://` loses its driver."""
    return re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url)


def parameters(url: str) -> dict[str, Any]:
    """What a URL says, by libpq's names. Raises Problem (exit code 2) where it cannot be read.

    No error repeats what may be a password. libpq quotes what it cannot read; and it takes what follows an `@`, `/` or
    `?` in a password for a host, a port or a database, which it names later on.
    """
    url = normalise(url)
    detail = _misread(url)
    if not detail:
        try:
            found = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            known = {option.split("=")[0] for option in url.partition("?")[2].split("&")}
            detail = re.sub(r'"([^"]*)"', lambda m: m[0] if m[1] in known else '"…"', str(error)).strip()
        else:
            if re.fullmatch(r"[0-9,]*", str(found.get("port") or "")):
                return found
            detail = "the port is no number"
    raise Problem("DATABASE_URL cannot be read", detail=detail, hint="write it as postgresql://user@host:5432/name",
                  exit_code=2)


def _misread(url: str) -> str:
    """Why libpq would read something else from a URL than was meant; nothing where it would not."""
    if not re.match(r"postgres(ql)?://", url):
        return ""
    before, _, options = url.partition("://")[2].partition("?")
    is_cut = bool(options) and not all("=" in option for option in options.split("&") if option)
    who = before.rpartition("@")[0]
    if is_cut or re.search(r"[@/#\[\]\s]", who):
        return "user and password hold one of @ / ? # [ ] or a space: write %40 %2F %3F %23 %5B %5D %20 for them"
    if re.search(r"%(?![0-9A-Fa-f]{2})", who):
        return "user or password holds a % that stands for itself: write %25 for it"
    return ""


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """For programs that are called: the connection string, which others can read in the list of processes, without the
    password, and what to set in their environment instead."""
    found = parameters(url)
    password = found.pop("password", None)
    return make_conninfo(**found), {} if password is None else {"PGPASSWORD": str(password)}


def connect(url: str, *, limited: bool = False, **overrides: Any) -> psycopg.Connection:
    """An autocommit connection, set as SESSION says; raises Problem (exit code 2) where there is none to be had.

    The server's time limits hold only where `limited`, for questions that may be too much for it.
    """
    conninfo = make_conninfo(
        **{**parameters(url), "application_name": "tidemark", "connect_timeout": 10, **overrides}
    )
    try:
        connection = psycopg.connect(conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        raise _why(conninfo, error) from None
    prepare(connection, SESSION if limited else SESSION | UNLIMITED)
    return connection


def prepare(connection: psycopg.Connection, settings: dict[str, str], *, local: bool = False) -> None:
    """Make the settings those of the session, or, with `local`, of the open transaction."""
    values = {"names": list(settings), "values": list(settings.values()), "local": local}
    connection.execute(_SET, values, prepare=False)


def child_environment() -> dict[str, str]:
    """For psql, pg_dump and their like: text is UTF-8, instants are ISO in UTC, whatever the server's settings.

    What else the programs rely on, they set for themselves.
    """
    return {**os.environ, "PGCLIENTENCODING": "UTF8", "PGDATESTYLE": "ISO", "PGTZ": "UTC"}


def where(connection: psycopg.Connection) -> str:
    """The database a connection leads to, for people: name, host and port, never the password."""
    info = connection.info
    return f"{info.dbname} at {info.host or 'local socket'}:{info.port}"


def _why(conninfo: str, error: psycopg.OperationalError) -> Problem:
    """Tell a missing database, a refused login and an absent server apart.

    libpq gives no SQLSTATE for a failed connection and its texts are translated, so ask the server itself.
    """
    meant = conninfo_to_dict(conninfo)
    target = f"{meant.get('host') or 'local socket'}:{meant.get('port') or 5432}"
    detail = str(error).strip().splitlines()[-1]
    name = meant.get("dbname") or meant.get("user")
    try:
        psycopg.connect(make_conninfo(conninfo, dbname="postgres")).close()
    except psycopg.OperationalError:
        pass
    else:
        return Problem(
            f"there is no usable database {name!r} on {target}", detail=detail,
            hint=f"create it (createdb {name}) or correct DATABASE_URL", exit_code=2,
        )
    if psycopg.pq.PGconn.ping(conninfo.encode()) == psycopg.pq.Ping.OK:
        return Problem(
            f"the server on {target} refused the login", detail=detail,
            hint="correct user and password in DATABASE_URL", exit_code=2,
        )
    return Problem(
        f"no PostgreSQL server answers on {target}", detail=detail,
        hint="start it, correct DATABASE_URL, or unset it and run: tidemark up", exit_code=2,
    )
