"""Connections: from a URL as applications write it to a psycopg connection, with errors people can act on."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tidemark.errors import Problem


def normalise(url: str) -> str:
    """The URL as libpq takes it: SQLAlchemy's `postgresql+driver://` loses its driver."""
    return re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", url)


def connect(url: str, **parameters: Any) -> psycopg.Connection:
    """An autocommit connection; raises Problem (exit code 2) where there is none to be had."""
    try:
        conninfo = make_conninfo(
            normalise(url), **{"application_name": "tidemark", "connect_timeout": 10, **parameters}
        )
    except psycopg.ProgrammingError as error:
        raise Problem(
            "DATABASE_URL cannot be read", detail=str(error), hint="write it as postgresql://user@host:5432/name",
            exit_code=2,
        ) from None
    try:
        return psycopg.connect(conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        raise _why(conninfo, error) from None


def where(connection: psycopg.Connection) -> str:
    """The database a connection leads to, for people: name, host and port, never the password."""
    info = connection.info
    return f"{info.dbname} at {info.host or 'local socket'}:{info.port}"


def _why(conninfo: str, error: psycopg.OperationalError) -> Problem:
    """Tell a missing database, a refused login and an absent server apart.

    libpq gives no SQLSTATE for a failed connection and its texts are translated, so ask the server itself.
    """
    parameters = conninfo_to_dict(conninfo)
    target = f"{parameters.get('host') or 'local socket'}:{parameters.get('port') or 5432}"
    detail = str(error).strip().splitlines()[-1]
    name = parameters.get("dbname") or parameters.get("user")
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
