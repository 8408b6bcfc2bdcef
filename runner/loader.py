"""Load files of prices into timeseries_data, candles, quotes or ticks.

Each batch is one transaction: it COPYs its records into the table where nothing is in their way, else into a temporary
table from where it upserts them, and keeps the task's counts and the rejects with them. So whatever interrupts a load,
the same command completes it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, compress, repeat
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors, sql

from tidemark import columns
from tidemark.columns import OHLC, TARGETS, Target
from tidemark.errors import Problem
from tidemark.formats import Said
from tidemark.look import PRICES, Layout, folds, look
from tidemark.quick import Arrays, quick
from tidemark.readers import Batch, Broken, Progress, Reject, Table, escaped, stem
from tidemark.series import Ids, Key, Series
from tidemark.statements import STATEMENTS, blames_record, execute, reason

ROWS = 20_000  # records of a batch; larger ones are not faster
RETRIES = 3


@dataclass(frozen=True)
class Summary:
    """What became of a file. The counts are those of its task, over all the runs that it took.

    `read` are records, `written` those that made a row or changed one, `rejected` those in ingestion_rejects,
    `collapsed` those that shared their key with a later one of their batch, `empty` those without any figure. The
    remaining ones said nothing new: they were stored already.
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
    collapsed: int = 0
    empty: int = 0
    note: str = ""


class LoadFailed(Problem):
    """A file could not be loaded to its end, or nothing of it; `summaries` tells of all files."""

    def __init__(self, summaries: list[Summary]) -> None:
        self.summaries = summaries
        failed = [summary for summary in summaries if summary.error]
        super().__init__(
            f"{len(failed)} of {len(summaries)} files could not be loaded to the end",
            detail="; ".join(f"{s.file}: {s.error}; {s.written} of {s.read} records are in" for s in failed),
            hint="the same command loads them when they are whole, or say by its options how they are to be read",
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
    said: Said
    again: bool


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
    said: Said | None = None,
    again: bool = False,
    batch_rows: int = ROWS,
    progress: Progress | None = None,
    show: Callable[[Layout], None] | None = None,
) -> list[Summary]:
    """Load files into `table` (timeseries_data, candles, quotes or ticks) over an autocommit connection.

    A file is delimited text, JSON, NDJSON, Parquet or Feather, plain or compressed. Every file is looked at first
    (`show` is given what was found), and all are refused where one is not certain: `said` decides. A column that
    feeds nothing goes into the metadata of timeseries_data, and is left out of the other tables. A record replaces
    what is stored under its key; columns that the file does not have stay as they are. A record without any figure
    is no row.

    A series of timeseries_data is a source: `source`, else the file's stem, or what a column source or source_id
    says; with a column symbol it is SOURCE:SYMBOL. A series of the other tables is an asset: `symbol` or a column;
    candles need an `interval` or a column. Sources and assets that are missing are created, assets of `asset_type`.
    Without an exchange, a symbol means the asset without one, else the only asset of that symbol.

    A file that was loaded to its end into the same place, read the same way, is not loaded once more, unless none of
    its first records is stored any longer, or with `again`. Raises Problem before anything is written where a file
    or an option cannot be used, Problem where the database refuses to go on, and LoadFailed after the last file where
    one breaks off or gives nothing. `progress` hears of bytes that are done with, in total the size of the files.
    """
    if not conn.autocommit:
        raise ValueError("load needs an autocommit connection")
    options = _options(conn, table, source, symbol, exchange, asset_type, interval, mode, said or Said(), again)
    layouts = [look(Path(file), options.target, options.said, symbol=symbol, interval=options.interval)
               for file in files]
    for layout in layouts:
        _check_options(layout, options)
        if show:
            show(layout)
    execute(conn, "session")
    execute(conn, "stage")
    execute(conn, "stage_index")
    summaries = [_File(conn, layout, options, batch_rows, progress).load() for layout in layouts]
    if any(summary.error for summary in summaries):
        raise LoadFailed(summaries)
    return summaries


def looked(files: Sequence[Path], *, table: str, symbol: str | None = None, interval: str | None = None,
           said: Said | None = None) -> list[Layout]:
    """What `load` would find in files, without a database."""
    label = interval and columns.interval(interval)
    return [look(Path(file), TARGETS[table], said or Said(), symbol=symbol, interval=label) for file in files]


def preview(layout: Layout, interval: str | None = None, rows: int = 5) -> list[dict[str, Any]]:
    """The first rows of a file as they would be stored; times in UTC."""
    if layout.sample is None:
        return []
    prepared = _prepared(layout, layout.sample, interval and columns.interval(interval), folds(layout))
    start = datetime(2000, 1, 1)
    return [{
        **{role: values[n] for role, values in prepared.roles.items()},
        layout.target.time: f"{start + timedelta(microseconds=prepared.times[n])}",
        **{name: None if math.isnan(values[n]) else values[n] for name, values in prepared.numbers.items()},
    } for n in range(min(rows, len(prepared.lines)))]


def _options(conn: psycopg.Connection, table: str, source: str | None, symbol: str | None, exchange: str | None,
             asset_type: str, interval: str | None, mode: str, said: Said, again: bool) -> Options:
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
    if source is not None and not TARGETS[table].sources and table != "candles":
        raise Problem(f"{table} do not record a source", hint="leave --source out", exit_code=2)
    return Options(TARGETS[table], source, symbol, exchange, asset_type, interval and columns.interval(interval), mode,
                   said, again)


def _check_options(layout: Layout, options: Options) -> None:
    """Refuse a file that says itself what an option says of it."""
    given = {"source": "source", "source_id": "source", "symbol": "symbol", "exchange": "exchange",
             "interval": "interval"}
    for role, what in given.items():
        said = layout.symbol if role == "symbol" and not layout.reader.context else getattr(options, what)
        if role in layout.roles and said is not None:
            raise Problem(f"{layout.reader.path} says the {what} itself, in its column {layout.roles[role]}",
                          hint=f"leave --{what} out", exit_code=2)


@dataclass
class Prepared:
    """The records of a batch by the columns of their table; `packed` are fields as COPY sends them."""

    lines: list[int]
    raws: Sequence[str]
    keys: list[Key]
    times: list[int]
    roles: dict[str, list[Any]]
    numbers: dict[str, list[float]]
    packed: dict[str, list[bytes]]
    rejects: list[Reject]
    empty: int = 0
    last: list[int] | None = None  # without those that share their key with a later one

    def reject(self, problems: columns.Errors) -> None:
        """Take records out, by their index."""
        self.rejects += [Reject(self.lines[n], self.raws[n], problem) for n, problem in problems.items()]
        self.keep([n not in problems for n in range(len(self.lines))] if problems else [])

    def keep(self, which: list[bool]) -> None:
        """Only these records; all of them for an empty list."""
        if not which or all(which):
            return
        self.lines, self.raws, self.keys, self.times = (
            list(compress(values, which)) for values in (self.lines, self.raws, self.keys, self.times))
        for columns_ in (self.roles, self.numbers, self.packed):
            for name, values in columns_.items():
                columns_[name] = list(compress(values, which))

    def collapse(self) -> int:
        """Find the records that share their key with a later one; returns how many."""
        keys = list(zip(self.keys, self.roles.get("interval") or repeat(None), self.times, strict=False))
        self.last = None
        if len(set(keys)) < len(keys):
            self.last = sorted({key: n for n, key in enumerate(keys)}.values())
            return len(keys) - len(self.last)
        return 0


def _prepared(layout: Layout, table: Table, interval: str | None, repeated: dict[int, int]) -> Prepared:
    """Read the values of records."""
    target = layout.target
    problems: columns.Errors = {}

    def read(name: str | None, convert: Callable[[Sequence[Any]], tuple[list[Any], columns.Errors]]) -> list[Any]:
        if name is None:
            return [None] * len(table.lines)
        values, wrong = convert(table.column(name))
        for index, problem in wrong.items():
            problems.setdefault(index, f"{name}: {problem}")
        return values

    times, wrong = replace(layout.times, folds=repeated).instants(table.joined(layout.time), table.lines)
    problems |= {n: f"{' + '.join(layout.time)}: {problem}" for n, problem in wrong.items()}
    numbers = {}
    for column, name in layout.numbers.items():
        convert = columns.whole_numbers if column in target.whole else columns.numbers
        numbers[column] = read(name, partial(convert, style=layout.style))
        if layout.style.scale != 1 and column in PRICES:
            divisor = 1 / layout.style.scale
            divisor = round(divisor) if abs(divisor - round(divisor)) < 1e-6 else divisor
            numbers[column] = [value / divisor for value in numbers[column]]
    roles = layout.roles
    sources = read(roles.get("source"), columns.texts) if "source" in roles else read(
        roles.get("source_id"), columns.source_ids)
    symbols, exchanges = read(roles.get("symbol"), columns.texts), read(roles.get("exchange"), columns.optional_texts)
    said: dict[str, list[Any]] = {"symbol": symbols} if "symbol" in roles else {}
    packed = {}
    if "interval" in target.key:
        labels = read(roles["interval"], columns.intervals) if "interval" in roles else [interval] * len(times)
        said["interval"] = labels
        packed["interval"] = list(map(_packed, labels))
    for column, name in layout.texts.items():
        values = read(name, columns.sides if column == "side" else columns.optional_texts)
        said[column], packed[column] = values, list(map(_packed, values))
    if target.metadata and not layout.wide and not layout.used >= set(table.names):
        documents, wrong = columns.documents(table.others(layout.used))
        problems = wrong | problems
        packed["metadata"] = list(map(_packed, documents))
    prepared = Prepared(table.lines, table.raws, list(zip(sources, symbols, exchanges, strict=True)), times, said,
                        numbers, packed, list(table.rejects))
    prepared.reject(problems)
    figures = list(prepared.numbers.values())
    if figures and any(value != value for value in figures[0]):
        empty = [all(value != value for value in row) for row in zip(*figures, strict=True)]
        prepared.empty = sum(empty)
        prepared.keep([not one for one in empty])
    return prepared


class _File:
    """One file on its way into the database."""

    def __init__(self, conn: psycopg.Connection, layout: Layout, options: Options, rows: int,
                 progress: Progress | None) -> None:
        self.conn, self.layout, self.options = conn, layout, options
        self.rows = max(1, rows // (len(layout.wide) or 1))
        self.progress = progress or (lambda count: None)
        self.path, self.target = layout.reader.path, options.target
        self.source = options.source or stem(self.path)
        self.folds: dict[int, int] = {}
        self.quick = quick(layout)
        self.series = Series(
            conn, are_sources=self.target.sources, source=self.source, symbol=layout.symbol,
            exchange=options.exchange, asset_type=options.asset_type, interval=options.interval)
        self.task: int | None = None
        self.bytes_read = self.bytes_told = 0

    def load(self) -> Summary:
        """Load it, unless that was done before or somebody else is doing it at this moment."""
        begun, stat, done, error, note = time.monotonic(), self.path.stat(), False, "", ""
        digest = self._digest()
        key = int.from_bytes(digest[:8], signed=True)
        try:
            execute(self.conn, "lock", key=key)
            try:
                found = execute(self.conn, "find_task", digest=digest).fetchone()
                kept, looked_at = self._kept() if found and found[1] and not self.options.again else (0, 0)
                if found and found[1] and not self.options.again and (kept or not looked_at):
                    self.task, done, _ = found
                    if kept < looked_at:
                        note = f"{looked_at - kept} of its first {looked_at} rows are gone: --again loads them"
                    self.progress(stat.st_size)
                else:
                    error = self._run(digest, found, stat)
                counts = execute(self.conn, "counts", task=self.task).fetchone()
            finally:
                with suppress(psycopg.OperationalError):  # a lost connection has lost its locks
                    execute(self.conn, "unlock", key=key)
        except psycopg.Error as problem:
            raise self._stopped(problem) from problem
        read, written, rejected, collapsed, empty = counts
        return Summary(self.path, self.target.name, self.task, read, written, rejected, done,
                       time.monotonic() - begun, error, collapsed, empty, note)

    def _kept(self) -> tuple[int, int]:
        """How many of the first rows of a file that was loaded are stored still, and how many these are."""
        if self.layout.sample is None:
            return 0, 0
        prepared = _prepared(self.layout, self.layout.sample, self.options.interval, folds(self.layout))
        ids = self.series.there(set(prepared.keys))
        prepared.keep([key in ids for key in prepared.keys])
        rows = len(self.layout.sample.lines) - len(prepared.rejects) - prepared.empty - (
            0 if self.target.several else prepared.collapse())
        if not prepared.lines:
            return 0, rows
        with self.conn.transaction():
            self._copy(prepared, ids)
            (kept,) = self.conn.execute(STATEMENTS["kept_ticks"] if self.target.several else sql.SQL(
                STATEMENTS["kept"]).format(
                table=sql.Identifier(self.target.name), key=_identifiers(self.target.key, "s"),
                same=self._same("s", "t"))).fetchone()
        return min(kept, rows), rows

    def _digest(self) -> bytes:
        """What makes two loads the same work: the file's bytes, and where they go."""
        with self.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        o, found = self.options, self.layout.roles
        named = self.target.sources and not found.keys() & {"source", "source_id"}
        place = [content, o.target.name, self.source if named else o.source, self.layout.symbol, o.exchange, o.interval,
                 *o.said.key()]
        return hashlib.sha256(json.dumps(place).encode()).digest()

    def _run(self, digest: bytes, found: tuple[int, bool, int] | None, stat: os.stat_result) -> str:
        """Load what is not stored yet, and return why that ended early, if it did."""
        skip, mode, error = 0, self.options.mode, None
        self.folds = folds(self.layout)
        if found:
            self.task, done, skip = found
            if done or skip == 0:  # what stored nothing begins anew
                execute(self.conn, "forget_rejects", task=self.task)
                skip = 0
            execute(self.conn, "resume_task", task=self.task, mode=mode, anew=skip == 0)
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
            error = self._nothing()
        except (Broken, OSError, Problem) as problem:
            error = str(problem)
        except psycopg.Error:
            raise
        except BaseException as problem:
            self._give_up(f"stopped by {type(problem).__name__}")
            raise
        execute(self.conn, "end_task", task=self.task, error=error)
        return error or ""

    def _nothing(self) -> str | None:
        """Why nothing of a file could be stored, where that is so."""
        read, written, rejected, _, empty = execute(self.conn, "counts", task=self.task).fetchone()
        if not read or written or rejected + empty < read:
            return None
        first = execute(self.conn, "first_reject", task=self.task).fetchone()
        return f"nothing could be stored: line {first[0]}: {first[1]}" if first else \
            "nothing could be stored: no record holds a figure"

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

    def _batches(self, skip: int) -> Iterator[tuple[Batch, Prepared | Arrays]]:
        """The batches, each prepared while the database is busy with the one before."""

        def count(size: int) -> None:
            self.bytes_read += size

        held: list[Batch] = []

        def following() -> tuple[Batch, Prepared | Arrays] | None:
            batch = next(batches, None)
            if not self.target.several:
                return batch and (batch, (self.quick and self.quick.read(batch)) or self._prepare(batch))
            while batch is not None or held:
                whole = Batch(*(list(chain(*parts)) for parts in zip(
                    *((one.lines, one.raws, one.items) for one in (*held, *([batch] if batch else []))), strict=True)))
                held.clear()
                prepared = self._prepare(whole)
                # Trades of one instant stay together: whether one is known is asked of all at once.
                cut = len(whole) if batch is None else _last_instant(prepared, whole)
                if cut:
                    if cut < len(whole):
                        held.append(whole[cut:])
                        prepared = self._prepare(whole[:cut])
                    return whole[:cut], prepared
                held.append(whole)
                batch = next(batches, None)
            return None

        batches = self.layout.reader.batches(self.rows, skip, count)
        with closing(batches), ThreadPoolExecutor(1) as reader:
            ready = reader.submit(following)
            while item := ready.result():
                ready = reader.submit(following)
                yield item

    def _prepare(self, batch: Batch) -> Prepared:
        """Read the values of a batch."""
        table = self.layout.table(batch)
        layout = self.layout.extended(table.names)
        if layout is not self.layout:  # records of JSON may have names that the first ones have not
            _check_options(layout, self.options)
        prepared = _prepared(layout, table, self.options.interval, self.folds)
        if self.layout.wide and len(set(self.layout.wide)) > 1:
            prepared.rejects = list({reject.line: reject for reject in prepared.rejects}.values())
        return prepared

    def _store(self, batch: Batch, prepared: Prepared | Arrays | None) -> None:
        """Store a batch in one transaction; in several where the server has too few locks for its many chunks."""
        if isinstance(prepared, Arrays):
            if self._store_arrays(prepared):
                return
            prepared = None
        done = attempt = 0
        most = len(batch) if self.target.several else self.rows
        while done < len(batch):
            part = batch[done:done + most]
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
                self.rows = most = len(part) // 2
            else:
                done += len(part)
            prepared = None

    def _store_arrays(self, arrays: Arrays) -> bool:
        """Store a batch that came the short way; False, and nothing is stored, where the long way has to be taken."""
        key, target = (None, None, None), self.target
        try:
            with self.conn.transaction():
                execute(self.conn, "begin_batch", mode=self.options.mode)
                ids = self.series.find({key}, bars=bool(set(OHLC) & arrays.numbers.keys()))
                if isinstance(ids[key], str):
                    raise psycopg.Rollback
                constants = {target.key[0]: struct.pack(">i", ids[key]) if target.sources else ids[key]}
                if "interval" in target.key:
                    constants["interval"] = self.options.interval.encode()
                if self.options.source and not target.sources:
                    constants["source_id"] = struct.pack(">i", self.series.source_id())
                period = {"first": _instant(int(arrays.times.min())), "last": _instant(int(arrays.times.max()))}
                there = self._any_there({ids[key]}, period)
                fields, rows = arrays.packed(constants, target.whole, target.time, numbered=there)
                count = len(arrays.times)
                self._send_rows(None if there else target.name, fields, rows)
                written = count
                if there:
                    rest = [name for name in (*arrays.numbers, *constants) if name not in target.key]
                    written = self.conn.execute(self._statement(list(arrays.numbers), rest[len(arrays.numbers):]), {
                        "start": 0, "stop": count, **period}).rowcount
                execute(self.conn, "count", task=self.task, read=count, written=written, rejected=0, collapsed=0,
                        empty=0)
                self.series.keep(ids)
                return True
        except psycopg.Error as error:
            if not blames_record(error) and not isinstance(
                    error, (errors.DeadlockDetected, errors.SerializationFailure, errors.OutOfMemory)):
                raise
        return False

    def _transaction(self, prepared: Prepared, read: int) -> None:
        with self.conn.transaction():
            execute(self.conn, "begin_batch", mode=self.options.mode)
            ids = self.series.find(set(prepared.keys), bars=bool(set(OHLC) & prepared.numbers.keys()))
            prepared.reject({n: ids[key] for n, key in enumerate(prepared.keys) if isinstance(ids[key], str)})
            written = collapsed = 0
            if prepared.lines:
                if self.options.source and not self.target.sources:
                    packed = struct.pack(">ii", 4, self.series.source_id())
                    prepared.packed["source_id"] = [packed] * len(prepared.lines)
                collapsed = 0 if self.target.several else prepared.collapse()
                self._fit_chunks(prepared)
                stored = self._insert(prepared, ids)
                if stored is None:
                    self._copy(prepared, ids)
                    statement = STATEMENTS["upsert_ticks"] if self.target.several else self._statement(
                        prepared.numbers, prepared.packed)
                    stored = self._upsert(statement, prepared, 0, len(prepared.lines))
                written, refused = stored
                prepared.rejects += refused
            if prepared.rejects:
                with self.conn.cursor().copy(STATEMENTS["copy_rejects"]) as copy:
                    for reject in prepared.rejects:
                        copy.write_row((self.task, reject.line, escaped(reject.raw), escaped(reject.reason)))
            execute(self.conn, "count", task=self.task, read=read, written=written, rejected=len(prepared.rejects),
                    collapsed=collapsed, empty=prepared.empty)
        self.series.keep(ids)

    def _insert(self, prepared: Prepared, ids: Ids) -> tuple[int, list[Reject]] | None:
        """COPY a batch straight into its table, where none of its series has a row in its period; None elsewhere."""
        if self.target.several or self._any_there({ids[key] for key in prepared.keys}, self._period(prepared)):
            return None
        try:
            with self.conn.transaction():
                return self._send(self.target.name, prepared, ids, prepared.last), []
        except psycopg.Error as error:
            if not blames_record(error):
                raise
            return None  # the way by the temporary table finds out which record it was

    def _any_there(self, ids: set[int | bytes | str], period: dict[str, datetime]) -> bool:
        """Whether a series has rows in a period."""
        series = [UUID(bytes=one) if isinstance(one, bytes) else one for one in ids]
        statement = sql.SQL(STATEMENTS["any_there"]).format(
            table=sql.Identifier(self.target.name), series=sql.Identifier(self.target.key[0]),
            time=sql.Identifier(self.target.time))
        return self.conn.execute(statement, {"series": series, **period}).fetchone()[0]

    @staticmethod
    def _period(prepared: Prepared) -> dict[str, datetime]:
        return {"first": _instant(min(prepared.times)), "last": _instant(max(prepared.times))}

    def _fit_chunks(self, prepared: Prepared) -> None:
        """Have chunks made that are as long as the density of the records wants them."""
        rows = len(prepared.lines)
        if len(set(prepared.keys)) == 1 and self.bytes_read:  # one series after the other: as many as the file has
            rows = int(rows * max(1.0, self.path.stat().st_size / self.bytes_read))
        execute(self.conn, "fit_chunks", table=self.target.name, rows=rows, **self._period(prepared))

    def _copy(self, prepared: Prepared, ids: Ids) -> None:
        """Send the records into the temporary table, where NaN stands for a missing number."""
        self._send(None, prepared, ids, None)

    def _send(self, table: str | None, prepared: Prepared, ids: Ids, only: list[int] | None) -> int:
        """Send records in PostgreSQL's binary format (of each field its length and its bytes); returns how many."""
        count = range(len(prepared.lines))
        fields: dict[str, Iterable[tuple]] = {} if table else {"n": ("i", 4, count)}
        fields[self.target.key[0]] = ("i" if self.target.sources else "16s", 4 if self.target.sources else 16,
                                      list(map(ids.__getitem__, prepared.keys)))
        fields[self.target.time] = ("q", 8, prepared.times)
        packed = dict(prepared.packed)
        for name, values in prepared.numbers.items():
            whole = table is not None and name in self.target.whole
            if table is not None and any(value != value for value in values):
                packed[name] = [_NULL if value != value else
                                (_WHOLE if whole else _FLOAT)(8, int(value) if whole else value) for value in values]
            else:
                fields[name] = ("q", 8, list(map(int, values))) if whole else ("d", 8, values)
        if table is not None and "metadata" in packed:
            packed["metadata"] = [value if value == _NULL else _binary_json(value) for value in packed["metadata"]]
        record = struct.Struct(">h" + "".join(f"i{kind}" for kind, _, _ in fields.values()))
        columns_ = chain.from_iterable((repeat(size), values) for _, size, values in fields.values())
        records: Iterable[bytes] = map(record.pack, repeat(len(fields) + len(packed)), *columns_)
        if packed:
            records = map(b"".join, zip(records, *packed.values(), strict=False))
        if only is not None:
            rows = list(records)
            records, count = map(rows.__getitem__, only), only
        self._send_rows(table, [*fields, *packed], b"".join(records))
        return len(count)

    def _send_rows(self, table: str | None, fields: Sequence[str], rows: bytes) -> None:
        """COPY rows that are packed into a table, or into the temporary one."""
        statement = sql.SQL(STATEMENTS["insert" if table else "copy"]).format(
            table=sql.Identifier(table or ""), columns=_identifiers(fields))
        with self.conn.cursor().copy(statement) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            copy.write(rows)
            copy.write(b"\xff\xff")

    def _same(self, one: str, other: str) -> sql.Composed:
        """That two rows have the same key."""
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}" + _CASTS.get(name, "")).format(sql.Identifier(other, name), sql.Identifier(one, name))
            for name in self.target.key)

    def _statement(self, numbers: Iterable[str], others: Iterable[str]) -> sql.Composed:
        """The upsert for these columns. In the temporary table NaN stands for a missing number."""
        target = self.target
        values: dict[str, sql.Composable] = {name: sql.Identifier("s", name) for name in target.key}
        for name in numbers:
            number = sql.SQL("nullif({}, 'NaN')").format(sql.Identifier("s", name))
            values[name] = sql.SQL("({})::bigint").format(number) if name in target.whole else number
        for name in others:
            values[name] = sql.SQL("{}" + _CASTS[name]).format(sql.Identifier("s", name))
        rest = [name for name in values if name not in target.key]
        return sql.SQL(STATEMENTS["upsert"]).format(
            table=sql.Identifier(target.name),
            columns=_identifiers(values),
            values=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in values.items()),
            key=_identifiers(target.key, "s"),
            conflict=_identifiers(target.key),
            same=sql.SQL(" AND ").join(
                sql.SQL("o.{0} = f.{0}").format(sql.Identifier(name)) for name in target.key),
            time=sql.Identifier(target.time),
            assignments=sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in rest),
            before=_identifiers(rest, "o"),
            fresh=_identifiers(rest, "f"),
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
                    part = {"start": start, "stop": stop, **self._period(prepared)}
                    return self.conn.execute(statement, part).rowcount, []
            except psycopg.Error as error:
                if not blames_record(error):
                    raise
                if single:
                    return 0, [Reject(prepared.lines[start], prepared.raws[start], reason(error))]
        middle = (start + stop) // 2
        written, rejects = self._upsert(statement, prepared, start, middle)
        more, others = self._upsert(statement, prepared, middle, stop, doomed=not rejects)
        return written + more, rejects + others


def _last_instant(prepared: Prepared, batch: Batch) -> int:
    """Where in a batch its last instant begins."""
    if not prepared.times:
        return len(batch)
    last = next((n for n in range(len(prepared.times) - 1, -1, -1) if prepared.times[n] != prepared.times[-1]), None)
    return 0 if last is None else list(batch.lines).index(prepared.lines[last]) + 1


# What the temporary table holds is cast where the table has another type.
_CASTS = {"interval": "::public.candle_interval", "metadata": "::jsonb", "source_id": "", "side": "::public.trade_type",
          "trade_id": ""}
_NULL = struct.pack(">i", -1)
_FLOAT, _WHOLE = struct.Struct(">id").pack, struct.Struct(">iq").pack


def _instant(micros: int) -> datetime:
    """PostgreSQL's count of microseconds as a time."""
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _binary_json(packed: bytes) -> bytes:
    """A packed text as jsonb has it: behind the number of its version."""
    return struct.pack(">i", len(packed) - 3) + b"\1" + packed[4:]


def _identifiers(names: Iterable[str], *qualifier: str) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(*qualifier, name) for name in names)


def _packed(value: bytes | str | None) -> bytes:
    """A text field as COPY's binary format has it."""
    if value is None:
        return struct.pack(">i", -1)
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">i", len(value)) + value
