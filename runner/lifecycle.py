"""Refreshing, compressing, archiving and dropping history; what it all amounts to.

Every function takes an autocommit connection: the work is done in many transactions, one per chunk, so that a run
that is interrupted has done a part of it for good.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tidemark.errors import Problem
from tidemark.sql_files import named_statements

if TYPE_CHECKING:
    import pyarrow

STATEMENTS = named_statements("lifecycle.sql")
BATCH_ROWS = 50_000
ARROW_TYPES = {  # everything else is stored as PostgreSQL writes it, in text
    "smallint": "int16", "integer": "int32", "bigint": "int64", "real": "float32", "double precision": "float64",
    "boolean": "bool", "text": "string",
}

Progress = Callable[[int, int, "Chunk"], None]  # done before this one, of how many, the next one


def _no_progress(done: int, total: int, what: Any) -> None:
    pass


@dataclass(frozen=True)
class Chunk:
    """A chunk of a hypertable, by their labels and numbers; `before` and `after` are bytes, None: nobody asked."""

    hypertable: str
    name: str
    range_start: datetime
    range_end: datetime
    hypertable_oid: int
    oid: int
    rows: int | None = None
    before: int | None = None
    after: int | None = None
    archive: Path | None = None


def _ask(connection: psycopg.Connection, statement: str, **values: Any) -> psycopg.Cursor:
    return connection.execute(STATEMENTS[statement], values)


def refresh(connection: psycopg.Connection, start: datetime | None = None, end: datetime | None = None) -> None:
    """Bring all aggregates up to date; with bounds, recompute what lies between them."""
    _twice(connection, "CALL public.refresh_aggregates(%s::timestamptz, %s::timestamptz)", (start, end))


def _twice(connection: psycopg.Connection, statement: str, values: Sequence[Any] = ()) -> psycopg.Cursor:
    """Call a procedure that refreshes, and again where TimescaleDB itself could not compute an aggregate.

    The second call knows which one it was, brings all others up to date, and says what is wrong with that one.
    """
    try:
        return connection.execute(statement, values)
    except psycopg.DataError:
        return connection.execute(statement, values)


def compress(
    connection: psycopg.Connection, older_than: str | None = None, progress: Progress = _no_progress
) -> list[Chunk]:
    """Compress what is due, by age (an interval, e.g. `7 days`) or by data_policies; the chunks, before and after.

    Raises Problem on Apache-2, which has no compression.
    """
    if _ask(connection, "server").fetchone()[0] != "community":
        raise Problem(
            "this edition of TimescaleDB has no compression: nothing changed", detail="license: apache",
            hint="history can still be archived and dropped: tidemark clean --archive DIR",
        )
    due = [Chunk(*row) for row in _ask(connection, "due_for_compression", older_than=older_than)]
    before = _sizes(connection, due)
    for number, chunk in enumerate(due):
        progress(number, len(due), chunk)
        _ask(connection, "compress", hypertable=chunk.hypertable_oid, chunk=chunk.oid)
    after = _sizes(connection, due)
    return [replace(chunk, before=before.get(chunk.oid), after=after.get(chunk.oid)) for chunk in due]


def what_would_go(connection: psycopg.Connection) -> list[Chunk]:
    """The chunks that `clean` would drop now, with their rows counted, oldest first; empty while no policy drops."""
    due = [Chunk(*row) for row in _ask(connection, "expired", counted=True)]
    sizes = _sizes(connection, due)
    return [replace(chunk, before=sizes.get(chunk.oid)) for chunk in due]


def _sizes(connection: psycopg.Connection, chunks: list[Chunk]) -> dict[int, int]:
    """Bytes of all chunks of the hypertables that these are of, by number."""
    return dict(_ask(connection, "sizes", hypertables=list({chunk.hypertable_oid for chunk in chunks})).fetchall())


def clean(
    connection: psycopg.Connection, archive: Path | None = None, progress: Progress = _no_progress
) -> list[Chunk]:
    """Drop what has outlived data_policies, after writing it to Parquet files below `archive` where that is given.

    A chunk is dropped in the transaction that has proved its file complete: the file is read back into the
    server, and row count and checksum are those of the chunk. One that another session drops meanwhile, such as
    `maintain`, is left to it. Returns what was dropped. Raises Problem where a chunk had to stay; those before it
    are gone.
    """
    if archive is not None:
        _pyarrow()  # before anything is refreshed or dropped
    due = [Chunk(*row) for row in _ask(connection, "expired", counted=False)]
    sizes = _sizes(connection, due)
    for hypertable, end in {chunk.hypertable_oid: chunk.range_end for chunk in due}.items():  # its last one
        _refresh_before_drop(connection, hypertable, end)
    dropped = []
    for number, chunk in enumerate(due):
        progress(number, len(due), chunk)
        gone = _drop(connection, chunk, archive)
        if gone is not None and gone.rows is None:  # rows came late: once more
            _refresh_before_drop(connection, chunk.hypertable_oid, chunk.range_end)
            gone = _drop(connection, chunk, archive)
        if gone is None:
            continue
        if gone.rows is None:
            raise Problem(
                f"{chunk.name} of {chunk.hypertable} cannot be dropped yet",
                detail=f"transactions that write to it go on; {len(dropped)} other chunk(s) were dropped",
                hint="run it again when they have ended",
            )
        dropped.append(replace(gone, before=sizes.get(chunk.oid)))
    return dropped


def _refresh_before_drop(connection: psycopg.Connection, hypertable: int, end: datetime) -> None:
    connection.execute("CALL _tidemark.refresh_before_drop(%s::oid::regclass, %s::timestamptz)", (hypertable, end))


def _drop(connection: psycopg.Connection, chunk: Chunk, archive: Path | None) -> Chunk | None:
    """Archive a chunk and drop it; None where it is gone already, without `rows` where it has to stay for now."""
    with connection.transaction() as transaction:
        # Readers go on, writers wait: what is archived is what is dropped.
        if not _ask(connection, "claim", chunk=chunk.oid).fetchone()[0]:
            return None
        path = archive_chunk(connection, chunk, archive) if archive is not None else None
        rows = _ask(connection, "drop", hypertable=chunk.hypertable_oid, chunk=chunk.oid, start=chunk.range_start,
                    end=chunk.range_end).fetchone()[0]
        if rows is None:
            raise psycopg.Rollback(transaction)
    return replace(chunk, rows=rows, archive=path)


def folder_name(label: str) -> str:
    """A hypertable's label as the name of a directory, as Hive and its readers have it."""
    return quote(label, safe='".')


def archive_chunk(connection: psycopg.Connection, chunk: Chunk, directory: Path) -> Path:
    """Write a chunk to `directory/hypertable=NAME/start=INSTANT/rows.parquet` and prove that nothing is missing.

    Columns of figures have no statistics: these leave out NaN, so that readers that skip rows by them (DuckDB, Spark)
    lose NaN where PostgreSQL has it above all numbers. INSTANT is text to every reader; some take one with colons, or
    with nothing between the digits, for a time, and others do not.

    To be called in a transaction in which nobody can write to the chunk. The file appears under its name only
    when it is complete and on disk; one that is there already, from a run that did not get further, is replaced.
    """
    parquet = _pyarrow()
    columns = _ask(connection, "columns", hypertable=chunk.hypertable_oid).fetchall()
    schema = _schema(columns)
    start = "start"
    while start in schema.names:  # readers would show the directory's value instead of the rows'
        start += "_"
    start += chunk.range_start.astimezone(UTC).strftime("=%Y-%m-%dT%H-%M-%SZ")
    folder = directory / f"hypertable={folder_name(chunk.hypertable)}" / start
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".rows.parquet.partial"  # a name that other readers leave out
    described = [name for name, kind in columns if ARROW_TYPES.get(kind) not in ("float32", "float64")]
    try:
        with parquet.ParquetWriter(
            partial, schema, compression="zstd", write_statistics=described or False
        ) as writer:
            for batch in _batches(connection, chunk, columns, schema):
                writer.write_batch(batch)
        _prove(connection, chunk, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        path = folder / "rows.parquet"
        for number in count(2):
            if not path.exists() or _holds(connection, chunk, path):
                break
            path = folder / f"rows-{number}.parquet"
        partial.replace(path)
        _sync(folder)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path


def _prove(connection: psycopg.Connection, chunk: Chunk, file: Path) -> None:
    """Read the file back into the server and compare it with the chunk there."""
    expected = _ask(connection, "checksum", relation=chunk.name, hypertable=chunk.hypertable_oid).fetchone()
    with _archived(connection, chunk, file) as archived:
        found = _ask(connection, "checksum", relation=archived, hypertable=chunk.hypertable_oid).fetchone()
    if found != expected:
        raise Problem(
            f"the archive of {chunk.name} is not what the chunk is: nothing was dropped",
            detail=f"{expected[0]} rows, checksum {expected[1]}; read back {found[0]} rows, checksum {found[1]}",
            hint="check the disk below the archive directory and run it again",
        )


def _holds(connection: psycopg.Connection, chunk: Chunk, file: Path) -> bool:
    """Whether a chunk has all rows of an older file, as when a run ended between writing it and dropping the chunk."""
    with _archived(connection, chunk, file) as archived:
        (holds,) = connection.execute(sql.SQL(
            "SELECT NOT EXISTS (SELECT t::text FROM {} AS t EXCEPT SELECT t::text FROM {} AS t)"
        ).format(sql.SQL(archived), sql.SQL(chunk.name))).fetchone()
    return holds


@contextlib.contextmanager
def _archived(connection: psycopg.Connection, chunk: Chunk, file: Path) -> Iterator[str]:
    """Name of a temporary table with the rows of an archive file of the chunk; where it fails, the transaction does."""
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE archived (LIKE {}) ON COMMIT DROP").format(sql.SQL(chunk.name))
    )
    read_back(connection, file, "pg_temp.archived")
    yield "pg_temp.archived"
    connection.execute("DROP TABLE pg_temp.archived")


def read_back(connection: psycopg.Connection, file: Path, table: str) -> int:
    """Copy the rows of an archive file into a table (an SQL name) with the same columns; returns how many."""
    reader = _pyarrow().ParquetFile(file)
    names = reader.schema_arrow.names
    rows = 0
    with connection.cursor() as cursor, cursor.copy(
        sql.SQL("COPY {} ({}) FROM STDIN").format(sql.SQL(table), sql.SQL(", ").join(map(sql.Identifier, names)))
    ) as copy:
        for batch in reader.iter_batches(BATCH_ROWS):
            write_batch(copy, batch)
            rows += batch.num_rows
    return rows


def write_batch(copy: psycopg.Copy, batch: pyarrow.RecordBatch) -> None:
    """Send the rows of a record batch into a COPY."""
    for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        copy.write_row(row)


@dataclass(frozen=True)
class Regroup:
    """Chunks of a hypertable that are to become one, or one that is to become several."""

    hypertable: str
    range_start: datetime
    range_end: datetime
    chunks: int
    rows: int
    pieces: int
    hypertable_oid: int
    ranges: list[str]


def rechunk_plan(connection: psycopg.Connection, hypertable: str | None = None) -> list[Regroup]:
    """What `rechunk` would do, of one hypertable (its name, in SQL) or of all."""
    return [Regroup(*row) for row in _ask(connection, "rechunk_plan", hypertable=hypertable)]


def rechunk(
    connection: psycopg.Connection, groups: Sequence[Regroup],
    progress: Callable[[int, int, Regroup], None] = _no_progress,
) -> int:
    """Put chunks together and divide them as planned, each group in a transaction of its own; rows that were moved."""
    moved = 0
    for number, group in enumerate(groups):
        progress(number, len(groups), group)
        moved += _ask(connection, "replace_chunks", hypertable=group.hypertable_oid, pieces=group.ranges).fetchone()[0]
    return moved


def maintain(connection: psycopg.Connection) -> bool:
    """Refresh, compress and drop what is due; False where another session is at it and nothing was done."""
    return _twice(connection, "CALL public.maintain()").fetchone()[0]


def stats(connection: psycopg.Connection) -> dict[str, Any]:
    """Rows, chunks, sizes, compression, aggregates with their lag, policies and jobs; ready for JSON."""
    edition, timescaledb, postgresql, size = _ask(connection, "server").fetchone()
    with connection.cursor(row_factory=dict_row) as cursor:
        parts = {
            name: [
                {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
                for row in cursor.execute(STATEMENTS[name])
            ]
            for name in ("hypertables", "aggregates", "policies", "jobs")
        }
    return {
        "edition": edition, "timescaledb": timescaledb, "postgresql": postgresql, "database_bytes": size, **parts,
    }


def _batches(
    connection: psycopg.Connection, chunk: Chunk, columns: list[tuple[str, str]], schema: pyarrow.Schema
) -> Iterator[pyarrow.RecordBatch]:
    """The chunk's rows, in the order of the primary key, as Parquet is to hold them."""
    import pyarrow

    key = [name for (name,) in _ask(connection, "primary_key", hypertable=chunk.hypertable_oid)]
    query = sql.SQL("SELECT {} FROM {}{}").format(
        sql.SQL(", ").join(
            sql.SQL("{}" if kind in ARROW_TYPES or kind == "timestamp with time zone" else "{}::text").format(
                sql.Identifier(name)
            ) for name, kind in columns
        ),
        sql.SQL(chunk.name),
        sql.SQL(" ORDER BY {}").format(sql.SQL(", ").join(map(sql.Identifier, key))) if key else sql.SQL(""),
    )
    with connection.cursor("archive", binary=True) as cursor:
        cursor.itersize = BATCH_ROWS
        cursor.execute(query)
        while rows := cursor.fetchmany(BATCH_ROWS):
            columns_of_batch = zip(zip(*rows, strict=True), schema.types, strict=True)
            yield pyarrow.RecordBatch.from_arrays(
                [pyarrow.array(values, kind) for values, kind in columns_of_batch], schema=schema
            )


def _schema(columns: list[tuple[str, str]]) -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema([
        (name, pyarrow.timestamp("us", "UTC") if kind == "timestamp with time zone"
         else pyarrow.type_for_alias(ARROW_TYPES.get(kind, "string")))
        for name, kind in columns
    ])


def _sync(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise Problem(
            "archiving needs the package pyarrow", hint="pip install 'tidemark[archive]'", exit_code=2
        ) from None
    return pyarrow.parquet
