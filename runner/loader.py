"""Load files of prices into timeseries_data, candles or quotes.

Each batch is one transaction: it COPYs its records into a temporary table, upserts them from there at once, and
keeps the task's counts and the rejects with them. So whatever interrupts a load, the same command completes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain, compress, repeat
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql

from tidemark import columns
from tidemark.columns import OHLC, TARGETS, Mapping, Target, extended, mapping
from tidemark.errors import Problem
from tidemark.readers import Batch, Broken, Progress, Reader, Reject, Table, escaped, open_file, stem
from tidemark.series import Ids, Key, Series
from tidemark.statements import STATEMENTS, blames_record, execute, reason

ROWS = 20_000  # records of a batch; larger ones are not faster
SAMPLE = 5_000  # records from which the columns of a file are learnt
RETRIES = 3


@dataclass(frozen=True)
class Summary:
    """What became of a file. The counts are those of its task, over all the runs that it took.

    `read` are records, `written` those that made a row or changed one, `rejected` those in ingestion_rejects. The
    remaining ones said nothing new: they are repeated in their batch, or were stored already.
    """

    file: Path
    table: str
    task_id: int
    read: int
    written: int
    rejected: int
    already_loaded: bool
    seconds: float
    error: str = ""


class LoadFailed(Problem):
    """A file could not be loaded to its end; `summaries` tells of all files."""

    def __init__(self, summaries: list[Summary]) -> None:
        self.summaries = summaries
        failed = [summary for summary in summaries if summary.error]
        super().__init__(
            f"{len(failed)} of {len(summaries)} files could not be loaded to the end",
            detail="; ".join(f"{s.file}: {s.error}; {s.read} records before that are in" for s in failed),
            hint="load them again when they are whole",
        )


@dataclass(frozen=True)
class Options:
    """How the caller wants the files understood."""

    target: Target
    source: str | None
    symbol: str | None
    exchange: str | None
    asset_type: str
    interval: str | None
    mode: str


def load(
    conn: psycopg.Connection,
    files: Sequence[Path],
    *,
    table: str,
    source: str | None = None,
    symbol: str | None = None,
    exchange: str | None = None,
    asset_type: str = "stock",
    interval: str | None = None,
    mode: str = "live",
    batch_rows: int = ROWS,
    progress: Progress | None = None,
) -> list[Summary]:
    """Load files into `table` (timeseries_data, candles or quotes) over an autocommit connection.

    A file is CSV with a header, a JSON array or NDJSON, plain or gzipped. Its columns are recognised by their usual
    names (see runner/columns.py); others go into the metadata of timeseries_data, and are left out of candles and
    quotes. A JSON record may be an array too: time and value, or time, open, high, low, close and volume.
    A record replaces what is stored under its key; columns that the file does not have stay as they are.

    A series of timeseries_data is a source: `source`, else the file's stem, or what a column source or source_id
    says; with a column symbol it is SOURCE:SYMBOL. A series of candles or quotes is an asset: `symbol` or a column;
    candles need an `interval` or a column. Sources and assets that are missing are created, assets of `asset_type`.
    Without an exchange, a symbol means the asset without one, else the only asset of that symbol.

    A file that was loaded to its end into the same place is not loaded again, unless its row in ingestion_tasks is
    deleted. Raises Problem before anything is written where a file or an option cannot be used, Problem where the
    database refuses to go on, and LoadFailed after the last file where one breaks off. `progress` hears of bytes
    that are done with, in total the size of the files.
    """
    if not conn.autocommit:
        raise ValueError("load needs an autocommit connection")
    options = _options(conn, table, source, symbol, exchange, asset_type, interval, mode)
    plans = [_plan(Path(file), options) for file in files]
    execute(conn, "session")
    execute(conn, "stage")
    execute(conn, "stage_index")
    summaries = [_File(conn, plan, options, batch_rows, progress).load() for plan in plans]
    if any(summary.error for summary in summaries):
        raise LoadFailed(summaries)
    return summaries


def _options(conn: psycopg.Connection, table: str, source: str | None, symbol: str | None, exchange: str | None,
             asset_type: str, interval: str | None, mode: str) -> Options:
    def check(what: str, value: str, known: Iterable[str]) -> None:
        if value not in known:
            raise Problem(f"unknown {what} {value!r}", hint=f"one of {', '.join(known)}", exit_code=2)

    check("table", table, TARGETS)
    for what, value in (("asset_type", asset_type), ("ingest_mode", mode)):
        labels = [label for label, in execute(conn, "labels", type=f"public.{what}")]
        if not labels:
            raise Problem("the database has no Tidemark schema", hint="run `tidemark migrate`", exit_code=2)
        check(what.replace("_", " "), value, labels)
    if interval is not None and columns.interval(interval) is None:
        check("interval", interval, columns.INTERVALS)
    for what, value in (("source", source), ("symbol", symbol), ("exchange", exchange)):
        if value is not None and not value.strip():
            raise Problem(f"the {what} is blank", exit_code=2)
    if source is not None and table == "quotes":
        raise Problem("quotes do not record a source", hint="leave --source out", exit_code=2)
    return Options(TARGETS[table], source, symbol, exchange, asset_type, interval and columns.interval(interval), mode)


@dataclass(frozen=True)
class Plan:
    """How a file is read: the meaning of its columns and the unit of its times, as its first records show them."""

    reader: Reader
    columns: Mapping
    unit: int | None


def _plan(path: Path, options: Options) -> Plan:
    """Look at the first records of a file, and refuse it if it cannot be loaded as a whole."""
    reader = open_file(path)
    try:
        with closing(reader.batches(SAMPLE)) as batches:
            batch = next(batches, None)
    except Broken as error:
        raise Problem(f"{path} cannot be read", detail=str(error), exit_code=2) from None
    if batch is None:
        return Plan(reader, Mapping(), None)
    table = reader.table(batch)
    if not table.names:
        first = table.rejects[0]
        raise Problem(f"{path} has no readable record", detail=f"record {first.line} {first.reason}", exit_code=2)
    # An odd name in a single record does not take the place of the one that the others use.
    found = extended(mapping(table.usual, options.target), table.names, options.target)
    _check(path, table.names, found, options)
    return Plan(reader, found, columns.unit(_times(table, found)))


def _check(path: Path, names: Sequence[str], found: Mapping, options: Options) -> None:
    """Refuse a file that lacks a column without which no record can be stored, or that contradicts an option."""
    target = options.target
    known = f"{target.name} knows {', '.join((target.time, *target.numbers))}, and usual names for them"
    needs = [("time", found.time, known), ("value", found.numbers, known)]
    if not target.sources:
        needs.append(("symbol", found.symbol or options.symbol, "name it with --symbol"))
    if "interval" in target.key:
        needs.append(("interval", found.interval or options.interval, "name it with --interval"))
    for what, column, hint in needs:
        if not column:
            there = ", ".join([*names[:20], *(["…"] if len(names) > 20 else [])])
            raise Problem(f"{path} has no {what} column", detail=f"it has {there}", hint=hint, exit_code=2)
    given = {"source": found.source or found.source_id, "symbol": found.symbol, "exchange": found.exchange,
             "interval": found.interval}
    for what, column in given.items():
        if column is not None and getattr(options, what) is not None:
            raise Problem(f"{path} says the {what} itself, in its column {column}", hint=f"leave --{what} out",
                          exit_code=2)


def _times(table: Table, found: Mapping) -> Sequence[Any]:
    dates = table.column(found.time)
    if found.clock is None:
        return dates
    return [f"{date} {clock}" for date, clock in zip(dates, table.column(found.clock), strict=True)]


@dataclass
class Prepared:
    """The records of a batch by the columns of their table; `packed` are fields as COPY sends them."""

    lines: list[int]
    raws: list[str]
    keys: list[Key]
    times: list[int]
    numbers: dict[str, list[float]]
    packed: dict[str, list[bytes]]
    rejects: list[Reject]

    def reject(self, problems: columns.Errors) -> None:
        """Take records out, by their index."""
        if not problems:
            return
        self.rejects += [Reject(self.lines[n], self.raws[n], problem) for n, problem in problems.items()]
        keep = [n not in problems for n in range(len(self.lines))]
        self.lines, self.raws, self.keys, self.times = (
            list(compress(values, keep)) for values in (self.lines, self.raws, self.keys, self.times))
        self.numbers = {name: list(compress(values, keep)) for name, values in self.numbers.items()}
        self.packed = {name: list(compress(values, keep)) for name, values in self.packed.items()}


class _File:
    """One file on its way into the database."""

    def __init__(self, conn: psycopg.Connection, plan: Plan, options: Options, rows: int,
                 progress: Progress | None) -> None:
        self.conn, self.plan, self.options, self.rows = conn, plan, options, rows
        self.progress = progress or (lambda count: None)
        self.path, self.target = plan.reader.path, options.target
        self.source = options.source or stem(self.path)
        self.series = Series(
            conn, are_sources=self.target.sources, source=self.source, symbol=options.symbol,
            exchange=options.exchange, asset_type=options.asset_type, interval=options.interval)
        self.task: int | None = None
        self.bytes_read = self.bytes_told = 0

    def load(self) -> Summary:
        """Load it, unless that was done before or somebody else is doing it at this moment."""
        begun, stat, done, error = time.monotonic(), self.path.stat(), False, ""
        digest = self._digest()
        key = int.from_bytes(digest[:8], signed=True)
        try:
            execute(self.conn, "lock", key=key)
            try:
                found = execute(self.conn, "find_task", digest=digest).fetchone()
                if found and found[1]:
                    self.task, done, _ = found
                    self.progress(stat.st_size)
                else:
                    error = self._run(digest, found, stat)
                counts = execute(self.conn, "counts", task=self.task).fetchone()
            finally:
                with suppress(psycopg.OperationalError):  # a lost connection has lost its locks
                    execute(self.conn, "unlock", key=key)
        except psycopg.Error as problem:
            raise self._stopped(problem) from problem
        return Summary(self.path, self.target.name, self.task, *counts, done, time.monotonic() - begun, error)

    def _digest(self) -> bytes:
        """What makes two loads the same work: the file's bytes, and where they go."""
        with self.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        o, found = self.options, self.plan.columns
        named = self.target.sources and not (found.source or found.source_id)
        place = [content, o.target.name, self.source if named else o.source, o.symbol, o.exchange, o.interval]
        return hashlib.sha256(json.dumps(place).encode()).digest()

    def _run(self, digest: bytes, found: tuple[int, bool, int] | None, stat: os.stat_result) -> str:
        """Load what is not stored yet, and return why that ended early, if it did."""
        skip, mode, error = 0, self.options.mode, None
        if found:
            self.task, _, skip = found
            execute(self.conn, "resume_task", task=self.task, mode=mode)
        else:
            new = execute(self.conn, "create_task", file=str(self.path), digest=digest, mode=mode)
            (self.task,) = new.fetchone()
        try:
            with closing(self._batches(skip)) as batches:
                for batch, prepared in batches:
                    self._store(batch, prepared)
                    self._tell()
            self._tell()
            now = self.path.stat()
            if (now.st_size, now.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
                raise Broken("it changed while it was being read")
        except (Broken, OSError, Problem) as problem:
            error = str(problem)
        except psycopg.Error:
            raise
        except BaseException as problem:
            self._give_up(f"stopped by {type(problem).__name__}")
            raise
        execute(self.conn, "end_task", task=self.task, error=error)
        return error or ""

    def _stopped(self, error: psycopg.Error) -> Problem:
        lost = self.conn.closed
        if not lost:
            self._give_up(reason(error))
        return Problem(
            f"{'the connection was lost' if lost else 'the database refused'} while {self.path} was being loaded",
            detail=reason(error), hint="the same command goes on where this one stopped",
        )

    def _give_up(self, error: str) -> None:
        if self.task is not None:
            with suppress(psycopg.Error):
                execute(self.conn, "end_task", task=self.task, error=error)

    def _tell(self) -> None:
        read = self.bytes_read
        self.progress(read - self.bytes_told)
        self.bytes_told = read

    def _batches(self, skip: int) -> Iterator[tuple[Batch, Prepared]]:
        """The batches, each prepared while the database is busy with the one before."""

        def count(size: int) -> None:
            self.bytes_read += size

        def following() -> tuple[Batch, Prepared] | None:
            batch = next(batches, None)
            return batch and (batch, self._prepare(batch))

        batches = self.plan.reader.batches(self.rows, skip, count)
        with closing(batches), ThreadPoolExecutor(1) as reader:
            ready = reader.submit(following)
            while item := ready.result():
                ready = reader.submit(following)
                yield item

    def _prepare(self, batch: Batch) -> Prepared:
        """Read the values of a batch."""
        table = self.plan.reader.table(batch)
        found = extended(self.plan.columns, table.names, self.target)
        if found != self.plan.columns:  # records of JSON may have names that the first ones have not
            _check(self.path, table.names, found, self.options)
        problems: columns.Errors = {}

        def read(name: str | None, convert: Callable[[Sequence[Any]], tuple[list[Any], columns.Errors]]) -> list[Any]:
            if name is None:
                return [None] * len(table.lines)
            values, wrong = convert(_times(table, found) if name == found.time else table.column(name))
            for index, problem in wrong.items():
                problems.setdefault(index, f"{name}: {problem}")
            return values

        times = read(found.time, lambda values: columns.instants(values, self.plan.unit))
        numbers = {
            column: read(name, columns.whole_numbers if column in self.target.whole else columns.numbers)
            for column, name in found.numbers.items()
        }
        sources = read(found.source, columns.texts) if found.source else read(found.source_id, columns.source_ids)
        symbols, exchanges = read(found.symbol, columns.texts), read(found.exchange, columns.optional_texts)
        packed = {}
        if "interval" in self.target.key:
            labels = read(found.interval, columns.intervals) if found.interval else [self.options.interval] * len(times)
            packed["interval"] = list(map(_packed, labels))
        if self.target.metadata and not found.used >= set(table.names):
            documents, wrong = columns.documents(table.others(found.used))
            problems = wrong | problems
            packed["metadata"] = list(map(_packed, documents))
        keys = list(zip(sources, symbols, exchanges, strict=True))
        prepared = Prepared(table.lines, table.raws, keys, times, numbers, packed, table.rejects)
        prepared.reject(problems)
        return prepared

    def _store(self, batch: Batch, prepared: Prepared | None) -> None:
        """Store a batch in one transaction; in several where the server has too few locks for its many chunks."""
        done = attempt = 0
        while done < len(batch):
            part = batch[done:done + self.rows]
            if len(part) < len(batch) or prepared is None:
                prepared = self._prepare(part)
            try:
                self._transaction(prepared, len(part))
            except (errors.DeadlockDetected, errors.SerializationFailure):
                if attempt == RETRIES:
                    raise
                attempt += 1
                time.sleep(0.05 * 2**attempt)
            except errors.OutOfMemory:
                if len(part) == 1:
                    raise
                self.rows = len(part) // 2
            else:
                done += len(part)
            prepared = None

    def _transaction(self, prepared: Prepared, read: int) -> None:
        with self.conn.transaction():
            execute(self.conn, "begin_batch", mode=self.options.mode)
            ids = self.series.find(set(prepared.keys), bars=bool(OHLC.keys() & prepared.numbers.keys()))
            prepared.reject({n: ids[key] for n, key in enumerate(prepared.keys) if isinstance(ids[key], str)})
            written = 0
            if prepared.lines:
                if self.options.source and not self.target.sources:
                    packed = struct.pack(">ii", 4, self.series.source_id())
                    prepared.packed["source_id"] = [packed] * len(prepared.lines)
                self._copy(prepared, ids)
                written, refused = self._upsert(self._statement(prepared), prepared, 0, len(prepared.lines))
                prepared.rejects += refused
            if prepared.rejects:
                with self.conn.cursor().copy(STATEMENTS["copy_rejects"]) as copy:
                    for reject in prepared.rejects:
                        copy.write_row((self.task, reject.line, escaped(reject.raw), escaped(reject.reason)))
            execute(self.conn, "count", task=self.task, read=read, written=written, rejected=len(prepared.rejects))
        self.series.keep(ids)

    def _copy(self, prepared: Prepared, ids: Ids) -> None:
        """Send the records in PostgreSQL's binary format: of each field its length and its bytes."""
        fields = ("n", self.target.key[0], self.target.time, *prepared.numbers, *prepared.packed)
        series, size = ("i", 4) if self.target.sources else ("16s", 16)
        record = struct.Struct(f">hiii{series}iq{'id' * len(prepared.numbers)}")
        numbers = chain.from_iterable((repeat(8), column) for column in prepared.numbers.values())
        records: Iterable[bytes] = map(
            record.pack, repeat(len(fields)), repeat(4), range(len(prepared.lines)), repeat(size),
            map(ids.__getitem__, prepared.keys), repeat(8), prepared.times, *numbers)
        if prepared.packed:
            records = chain.from_iterable(zip(records, *prepared.packed.values(), strict=True))
        statement = sql.SQL(STATEMENTS["copy"]).format(columns=_identifiers(fields))
        with self.conn.cursor().copy(statement) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"".join(records) + b"\xff\xff")

    def _statement(self, prepared: Prepared) -> sql.Composed:
        """The upsert for these columns. In the temporary table NaN stands for a missing number."""
        target = self.target
        values: dict[str, sql.Composable] = {name: sql.Identifier("s", name) for name in target.key}
        for name in prepared.numbers:
            number = sql.SQL("nullif({}, 'NaN')").format(sql.Identifier("s", name))
            values[name] = sql.SQL("({})::bigint").format(number) if name in target.whole else number
        for name in prepared.packed:
            values[name] = sql.SQL("{}" + _CASTS[name]).format(sql.Identifier("s", name))
        rest = [name for name in values if name not in target.key]
        return sql.SQL(STATEMENTS["upsert"]).format(
            table=sql.Identifier(target.name),
            columns=_identifiers(values),
            values=sql.SQL(", ").join(values.values()),
            key=_identifiers(target.key, "s"),
            conflict=_identifiers(target.key),
            assignments=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in rest),
            stored=_identifiers(rest, "t"),
            new=_identifiers(rest, "excluded"),
        )

    def _upsert(self, statement: sql.Composed, prepared: Prepared, start: int, stop: int,
                doomed: bool = False) -> tuple[int, list[Reject]]:
        """Upsert these records; where the database refuses one, halve them until it is found.

        Returns the rows written and the rejects. `doomed`: one of the records is known to fail.
        """
        single = stop - start == 1
        if single or not doomed:
            try:
                with self.conn.transaction():
                    return self.conn.execute(statement, {"start": start, "stop": stop}).rowcount, []
            except psycopg.Error as error:
                if not blames_record(error):
                    raise
                if single:
                    return 0, [Reject(prepared.lines[start], prepared.raws[start], reason(error))]
        middle = (start + stop) // 2
        written, rejects = self._upsert(statement, prepared, start, middle)
        more, others = self._upsert(statement, prepared, middle, stop, doomed=not rejects)
        return written + more, rejects + others


# What the temporary table holds is cast where the table has another type.
_CASTS = {"interval": "::public.candle_interval", "metadata": "::jsonb", "source_id": ""}


def _identifiers(names: Iterable[str], *qualifier: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*qualifier, name) for name in names)


def _packed(value: bytes | str | None) -> bytes:
    """A text field as COPY's binary format has it."""
    if value is None:
        return struct.pack(">i", -1)
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">i", len(value)) + value
