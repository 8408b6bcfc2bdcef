"""Put archived chunks (Parquet files that `tidemark clean --archive` wrote) back into their hypertables.

A file goes where the directory above it says, `hypertable=NAME`. Its rows are stored as they were, quality scores
included; a row whose key is there already stays as it is, so putting a file back twice changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import psycopg
from psycopg import sql

from tidemark.errors import Problem
from tidemark.lifecycle import write_batch
from tidemark.loader import LoadFailed, Summary
from tidemark.sql_files import named_statements
from tidemark.statements import execute

if TYPE_CHECKING:
    import pyarrow

STATEMENTS = named_statements("parquet.sql")
BATCH_ROWS = 20_000

Progress = Callable[[int], None]


def is_archive(path: Path) -> bool:
    """Whether this is what `clean --archive` wrote: Parquet files below a directory hypertable=NAME, or one of them."""
    if path.is_dir():
        return any(map(is_archive, path.rglob("*.parquet")))
    return path.suffix == ".parquet" and any(part.startswith("hypertable=") for part in path.absolute().parts)


def files(path: Path) -> list[Path]:
    """The Parquet files below a directory in their order; of anything else the path itself."""
    return sorted(path.rglob("*.parquet")) if path.is_dir() else [path]


def put_back(
    connection: psycopg.Connection, paths: Iterable[Path], progress: Progress = lambda count: None
) -> list[Summary]:
    """Put archived files, and all those below directories, back over an autocommit connection.

    Every batch is a transaction, entered with its counts in ingestion_tasks. The rows count as a replay: they are
    never late. Buckets of aggregates that were frozen when the rows were dropped stay as they are. Raises Problem
    before anything is written where a file cannot be used, Problem where the database refuses a row, and LoadFailed
    after the last file where one breaks off. `progress` hears of bytes that are done with.
    """
    chunks = [_Chunk(connection, file) for path in paths for file in files(path)]
    summaries = []
    for chunk in chunks:
        summaries.append(chunk.put_back())
        progress(chunk.path.stat().st_size)
    if any(summary.error for summary in summaries):
        raise LoadFailed(summaries)
    return summaries


class _Chunk:
    """One file, found to fit its hypertable."""

    def __init__(self, connection: psycopg.Connection, path: Path) -> None:
        self.connection, self.path = connection, path
        name = next((unquote(part.removeprefix("hypertable=")) for part in path.absolute().parts[::-1]
                     if part.startswith("hypertable=")), None)
        if name is None:
            raise Problem(
                f"{path} is not in an archive", exit_code=2,
                hint="a Parquet file is put back from below the directory hypertable=NAME that clean --archive made",
            )
        self.names = _open(path).schema_arrow.names
        found = connection.execute(STATEMENTS["hypertable"], {"name": name}).fetchone()
        if found is None:
            raise Problem(f"there is no hypertable {name} for {path}", exit_code=2)
        self.table, there, self.key = found
        if not self.key:
            raise Problem(
                f"{name} has no primary key, so {path} might be put back twice", exit_code=2,
                hint="COPY it there, or give the table a key",
            )
        if lacking := sorted(set(self.names) - set(there)) or sorted(set(self.key) - set(self.names)):
            raise Problem(
                f"{path} does not fit {name}", detail=f"only one of them has {', '.join(lacking)}", exit_code=2,
                hint="put it back into the schema it comes from",
            )

    def put_back(self) -> Summary:
        begun, error = time.monotonic(), None
        (task,) = execute(
            self.connection, "create_task", file=str(self.path), digest=None, mode="replay"
        ).fetchone()
        try:
            for batch in _batches(self.path):
                self._store(task, batch)
        except _Damaged as problem:
            error = str(problem)
        except psycopg.Error as problem:
            if not self.connection.closed:
                execute(self.connection, "end_task", task=task, error=str(problem))
            raise Problem(
                f"the database refused while {self.path} was being put back", detail=str(problem),
                hint="the same command goes on where this one stopped",
            ) from problem
        except BaseException as problem:
            execute(self.connection, "end_task", task=task, error=f"stopped by {type(problem).__name__}")
            raise
        execute(self.connection, "end_task", task=task, error=error)
        read, written, rejected, *_ = execute(self.connection, "counts", task=task).fetchone()
        return Summary(
            self.path, self.table, task, read, written, rejected, already_loaded=not error and written == 0,
            seconds=time.monotonic() - begun, error=error or "",
        )

    def _store(self, task: int, batch: pyarrow.RecordBatch) -> None:
        table, columns = sql.SQL(self.table), _list(self.names)
        with self.connection.transaction():
            execute(self.connection, "begin_batch", mode="replay")
            # The file holds text for all types that Parquet has not; only the table knows which they are.
            self.connection.execute(sql.SQL(STATEMENTS["stage"]).format(columns=columns, table=table))
            with self.connection.cursor().copy(sql.SQL(STATEMENTS["copy"]).format(columns=columns)) as copy:
                write_batch(copy, batch)
            written = self.connection.execute(
                sql.SQL(STATEMENTS["put_back"]).format(table=table, columns=columns, key=_list(self.key))
            ).rowcount
            execute(self.connection, "count", task=task, read=batch.num_rows, written=written, rejected=0,
                    collapsed=0, empty=0)


class _Damaged(Exception):
    """The file cannot be read beyond this point."""


def _batches(path: Path) -> Iterable[pyarrow.RecordBatch]:
    import pyarrow

    try:
        yield from _open(path).iter_batches(BATCH_ROWS)
    except (pyarrow.ArrowException, OSError) as error:
        raise _Damaged(f"the file is damaged: {error}") from error


def _open(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Problem(
            "Parquet files need the package pyarrow", hint="pip install 'tidemark[archive]'", exit_code=2
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise Problem(f"{path} cannot be read", detail=str(error).splitlines()[0], exit_code=2) from None


def _list(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
