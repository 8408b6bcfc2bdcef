"""The questions in `queries/`: what each needs and gives, and running one with its parameters filled in.

A file runs in psql too (`psql -v symbol=AAPL -f queries/latest_candles.sql`), so its parameters are psql's variables.
Here each becomes a literal of the type that the file's heading gives it; nothing is ever pasted in as text.
"""

from __future__ import annotations

import contextlib
import re
from collections import namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tidemark import config
from tidemark.errors import Problem

_VARIABLE = re.compile(r"(?<![:\w]):(?:'(\w+)'|([a-z_]\w*))")
_PARAMETER = re.compile(r"(\w+) ([a-z_ ]+?(?:\[\])?)(?: in (\w+(?:\.\w+)?))?(?: = (.*))?")
_COLUMN = re.compile(r"(\w+) ([a-z_ ]+(?:\[\])?)")


@dataclass(frozen=True)
class Parameter:
    """A parameter; without a default it has to be given.

    `among` says whose name it is: a column (`assets.symbol`) or `relations`; the empty text stands for all of them.
    """

    name: str
    type: str
    among: str | None
    default: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.type}" + ("" if self.default is None else f" = {self.default}".rstrip())


@dataclass(frozen=True)
class Query:
    """One file of `queries/`."""

    name: str
    question: str
    parameters: tuple[Parameter, ...]
    columns: tuple[tuple[str, str], ...]  # name and type, in order
    cost: str
    body: str

    def variables(self) -> set[str]:
        """Names of the variables that the body uses."""
        return {quoted or bare for quoted, bare in _VARIABLE.findall(self.body)}


@dataclass(frozen=True)
class Result:
    """What a query answered."""

    columns: list[str]
    rows: list[tuple]


def names() -> list[str]:
    """Every question there is, in alphabetical order."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    """The file of each question; the project's own come after those that are shipped, and take their place."""
    folders = [config.QUERIES, *([config.PROJECT / "queries"] if config.PROJECT else [])]
    return {path.stem: path for folder in folders for path in folder.glob("*.sql")}


def load(name: str) -> Query:
    """The query of that name; raises Problem where there is none or its heading cannot be read."""
    if name not in names():
        raise Problem(f"there is no query {name!r}", hint=f"one of: {', '.join(names())}", exit_code=2)
    text = _files()[name].read_text()
    heading = re.match(
        r"-- (?P<question>.+\?)\n-- parameters:(?P<parameters>.*)\n-- columns: (?P<columns>.+)\n"
        r"-- cost: (?P<cost>.+)\n",
        re.sub(r"\n--   +", " ", text),
    )
    if not heading:
        raise Problem(f"the heading of queries/{name}.sql cannot be read",
                      hint="-- Question?, -- parameters: …, -- columns: …, -- cost: …, longer indented below")
    return Query(
        name, heading["question"],
        tuple(Parameter(*_PARAMETER.fullmatch(part).groups()) for part in _parts(heading["parameters"])),
        tuple(_COLUMN.fullmatch(part).groups() for part in _parts(heading["columns"])),
        heading["cost"], re.sub(r"\A(--.*\n)+", "", text).strip().removesuffix(";"),
    )


def run(connection: psycopg.Connection, name: str, values: Mapping[str, str]) -> Result:
    """Run a query and fetch its rows."""
    query = load(name)
    with _read_only(connection):
        cursor = connection.execute(statement(query, values))
        return Result([column.name for column in cursor.description], cursor.fetchall())


def rows(connection: psycopg.Connection, name: str, /, **values: Any) -> list[Any]:
    """Run a query; its rows as named tuples. A value that is None is left to the parameter's default."""
    result = run(connection, name, {key: str(value) for key, value in values.items() if value is not None})
    row = namedtuple("row", result.columns, rename=True)
    return [row(*found) for found in result.rows]


def as_csv(connection: psycopg.Connection, name: str, values: Mapping[str, str]) -> Iterator[str]:
    """The rows as the server writes them to CSV, headings first."""
    query = load(name)
    copy = sql.SQL("COPY ({}) TO STDOUT WITH (FORMAT csv, HEADER)").format(statement(query, values))
    with _read_only(connection), connection.cursor().copy(copy) as rows:
        for part in rows:
            yield bytes(part).decode()


def as_json(connection: psycopg.Connection, name: str, values: Mapping[str, str]) -> str:
    """The rows as the server writes them to JSON: an array of objects, one on a line."""
    query = load(name)
    objects = sql.SQL("SELECT to_json(q)::text FROM ({}) AS q").format(statement(query, values))
    with _read_only(connection):
        return "[" + ",\n ".join(row for (row,) in connection.execute(objects)) + "]"


@contextlib.contextmanager
def stream(connection: psycopg.Connection, name: str, values: Mapping[str, str]) -> Iterator[psycopg.Cursor]:
    """A cursor over the rows of a query, which stay on the server until they are fetched."""
    query = load(name)
    with _read_only(connection), connection.cursor("answer") as cursor:
        cursor.execute(statement(query, values))
        yield cursor


def check(connection: psycopg.Connection, name: str, values: Mapping[str, str]) -> None:
    """Refuse values that are none of their type, and names of what is not there; raises Problem."""
    query = load(name)
    statement(query, values)
    for parameter in query.parameters:
        if parameter.name not in values:
            continue
        value = values[parameter.name]
        literal = sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(parameter.type))
        with _read_only(connection):
            try:
                connection.execute(sql.SQL("SELECT {}").format(literal))
            except psycopg.DataError as error:
                raise Problem(
                    f"{parameter.name} = {value[:80]!r} is no {parameter.type}",
                    detail=error.diag.message_primary or "", exit_code=2,
                ) from None
            if parameter.among and value != parameter.default and not _is_there(connection, parameter.among, literal):
                what = parameter.name
                raise Problem(f"there is no {what} {value[:80]!r}", hint="tidemark query coverage shows what there is",
                              exit_code=2)


def _is_there(connection: psycopg.Connection, among: str, literal: sql.Composed) -> bool:
    if among == "relations":
        try:
            return connection.execute(sql.SQL("SELECT to_regclass({}) IS NOT NULL").format(literal)).fetchone()[0]
        except psycopg.ProgrammingError:  # it cannot even be a name
            return False
    table, column = map(sql.Identifier, among.split("."))
    found = sql.SQL("SELECT EXISTS (SELECT FROM {} AS t WHERE t.{} = {})").format(table, column, literal)
    return connection.execute(found).fetchone()[0]


def statement(query: Query, values: Mapping[str, str]) -> sql.Composed:
    """The body with each variable replaced by a literal of its type; raises Problem where one is missing or unknown."""
    known = {parameter.name: parameter for parameter in query.parameters}
    usage = ", ".join(map(str, query.parameters)) or "none"
    for name in values:
        if name not in known:
            raise Problem(f"{query.name} has no parameter {name!r}", detail=f"parameters: {usage}", exit_code=2)
    missing = [p.name for p in query.parameters if p.default is None and p.name not in values]
    if missing:
        raise Problem(f"{query.name} needs {', '.join(missing)}", detail=f"parameters: {usage}",
                      hint=f"tidemark query {query.name} {missing[0]}=…", exit_code=2)
    parts: list[sql.Composable] = []
    end = 0
    for variable in _VARIABLE.finditer(query.body):
        parameter = known[variable[1] or variable[2]]
        parts += [
            sql.SQL(query.body[end:variable.start()]), sql.Literal(values.get(parameter.name, parameter.default)),
            sql.SQL(f"::{parameter.type}"),
        ]
        end = variable.end()
    return sql.Composed([*parts, sql.SQL(query.body[end:])])


def assignments(arguments: list[str] | tuple[str, ...]) -> dict[str, str]:
    """`name=value` arguments as a dictionary; raises Problem for any other."""
    for argument in arguments:
        if not re.match(r"\w+=", argument):
            raise Problem(f"{argument!r} is not a parameter", hint="write it as name=value", exit_code=2)
    return dict(argument.split("=", 1) for argument in arguments)


@contextlib.contextmanager
def _read_only(connection: psycopg.Connection) -> Iterator[None]:
    """A question changes nothing, and means the tables of public whatever the session's search_path."""
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        # Compiling takes longer than any of these questions; costs are overrated where few rows are behind a function.
        connection.execute("SET LOCAL search_path = public; SET LOCAL jit = off")
        yield


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r",\s+", text.strip()) if part]
