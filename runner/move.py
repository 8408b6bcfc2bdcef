"""`tidemark move`: everything that Tidemark keeps, from one database into another of any edition, version and major.

Nothing of TimescaleDB's own catalogue is carried over: the target is migrated, rows are streamed into it (COPY to COPY)
with triggers off, and what is made from rows (functions of rules, jobs, aggregates) is made there. A part, which is a
table, a range of its numbers or of a hypertable's chunks, is done when both servers have counted and hashed the same
rows. A pass compares every part so, in one snapshot of the source, and copies those that differ: continuing an
interrupted one, and a second one for what came meanwhile, are the same.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tidemark import backup, migrations, preflight
from tidemark.database import connect, where
from tidemark.errors import Problem
from tidemark.sql_files import named_statements

STATEMENTS = named_statements("move.sql")
WORKERS = 2  # one part is hashed while another is copied
RANGE = 250_000  # numbers in a part of a long table
KEPT = "kept"  # the part of aggregates whose raw rows are gone
STREAM_BYTES = 1 << 18
# Text and names must not depend on who asks.
_ENTRY = re.compile(r"^(\d+); \d+ \d+ (.*) \S+$", re.M)  # number and what it is, of pg_restore's list, less the owner
# What only psql understands, what an older server does not know, and what PostgreSQL 15.20 notes for itself while the
# pg_dump of 18.6 takes it for the user's.
_FOREIGN = re.compile(r"^(\\(un)?restrict .*|SET transaction_timeout .*|ALTER TABLE .* SET \(pg_attver=\d+\);)$", re.M)
SESSION = {"search_path": "pg_catalog", "row_security": "off"}

Progress = Callable[[int, int, str], None]  # bytes done, of how many, what comes next
Say = Callable[[str], None]


def _no_progress(done: int, total: int, what: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a relation that travel together; `condition` chooses them in both databases."""

    relation: str
    name: str
    condition: sql.Composable
    columns: tuple[str, ...]
    hashed: sql.Composable
    is_binary: bool
    bytes: int
    time_range: tuple[str, str] | None = None
    places: tuple[str, str] | None = None  # where the rows lie in both, if not under that name

    @property
    def origin(self) -> str:
        return self.places[0] if self.places else self.relation

    @property
    def target(self) -> str:
        return self.places[1] if self.places else self.relation

    def select(self) -> sql.Composed:
        """The rows, for COPY."""
        return sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(self.names(), sql.SQL(self.origin), self.condition)

    def names(self) -> sql.Composed:
        return sql.SQL(", ").join(map(sql.Identifier, self.columns))

    def checksum(self, relation: str) -> sql.Composed:
        """[rows, sum of their hashes], whatever their order."""
        return sql.SQL(
            "SELECT count(*), coalesce(sum(hash_record_extended({}, 0)), 0) FROM {} AS t WHERE {}"
        ).format(self.hashed, sql.SQL(relation), self.condition)


@dataclass(frozen=True)
class Moved:
    """What a pass did with a table."""

    relation: str
    parts: int
    copied: int  # parts
    rows: int
    checksum: int


def move(source: str, target: str, *, progress: Progress = _no_progress,
         say: Say = lambda line: None) -> list[Moved]:
    """Make the database at `target` hold what the one at `source` does, which is only read; see the module.

    Raises Problem where one of them cannot be used, or a part does not arrive as it was sent.
    """
    with connect(source) as origin, connect(target) as here:
        _check_source(origin)
        is_new = _check_target(origin, here)
        _say_what_stays(origin, here, say)
        if is_new:
            say("migrating the target")
            migrations.migrate(here)
        backup.copy_roles(origin, here, say)  # Tidemark's own are the migration's: their options depend on the edition
        _set(here)
        here.execute(STATEMENTS["ledger"])
        here.execute("INSERT INTO _tidemark_move.origin (identity) SELECT %s"
                     " WHERE NOT EXISTS (SELECT FROM _tidemark_move.origin)", _identity(origin))
        # Jobs would compress, drop and refresh what is on its way.
        here.execute("SELECT _timescaledb_functions.stop_background_workers()")
        with _snapshot(origin) as snapshot:
            own = _definitions(source, target, origin, here, say)
            _run_script(target, own.tables)
            _hypertables(origin, here)
            parts = [part for table in _rows(origin, "tables") for part in _parts(origin, here, table)]
            say("copying")
            changed = _copy_all(source, target, snapshot, parts, progress)
            _forget_lost(here, parts)
            if caches := [sql.SQL(row["name"]) for row in _rows(here, "caches")]:
                here.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(caches)))
            _run_script(target, own.rest)
            _sequences(origin, here)
            say("making aggregates, rules and jobs")
            _make_again(origin, here, target)
            _refresh(origin, here, changed)
            for frozen in _frozen(origin, here):
                parts += frozen
                changed |= _copy_all(source, target, snapshot, frozen, _no_progress)
            _guard(here)
            _run_script(target, own.views)
        with connect(target) as last:
            last.execute("ANALYZE")
            _prove_record(origin, last)
            last.execute("UPDATE _tidemark_move.origin SET passes = passes + 1, finished_at = now()")
            last.execute("SELECT _timescaledb_functions.start_background_workers()")
        return _summary(parts, changed, here)


# Before anything is touched -------------------------------------------------------------------------------------


def _check_source(origin: psycopg.Connection) -> None:
    origin.execute("SET default_transaction_read_only = on")
    backup.refuse_reader(origin, "move")
    plan = migrations.make_plan(origin)
    if not plan.applied:
        raise Problem(f"{where(origin)} is not a database of Tidemark", hint="name the source first, then the target",
                      exit_code=2)
    if not plan.up_to_date:
        raise Problem(
            f"{where(origin)} is not what this version of Tidemark makes", detail=str(plan.refusals[0])
            if plan.refusals else f"pending: {', '.join(file.name for file in [*plan.pending, *plan.logic][:5])}",
            hint="run tidemark migrate on it first, or move with the version that it is of", exit_code=2,
        )
    _set(origin)
    if dropped := [row["name"] for row in _rows(origin, "unnoticed")]:
        raise Problem(f"chunks of {', '.join(dropped)} were dropped since the aggregates were refreshed",
                      hint="run tidemark refresh on the source, which only it can", exit_code=2)


def _check_target(origin: psycopg.Connection, here: psycopg.Connection) -> bool:
    """Whether the target is empty; refuses one that holds anything else than an earlier pass from the same source."""
    preflight.check_server(here)
    role, is_superuser = here.execute(
        "SELECT current_user, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").fetchone()
    if not is_superuser:
        raise Problem(f"role {role} cannot take rows in as they are: triggers and the record's guards stand before it",
                      hint="move as a superuser of the target", exit_code=2)
    if here.execute("SELECT to_regclass('_tidemark_move.origin')").fetchone()[0] is None:
        if contents := backup.contents(here):
            raise Problem(f"{where(here)} is not empty", detail=", ".join(contents[:5]),
                          hint="move into a new database", exit_code=2)
        return True
    known = here.execute("SELECT identity FROM _tidemark_move.origin").fetchone()
    if known and known != _identity(origin):
        raise Problem(f"{where(here)} holds what was moved from another database", hint="move into a new database",
                      exit_code=2)
    plan = migrations.make_plan(here)
    if plan.refusals:
        raise plan.refusals[0]
    return not plan.up_to_date


def _say_what_stays(origin: psycopg.Connection, here: psycopg.Connection, say: Say) -> None:
    """Name what stays behind."""
    offered = [name for name, in here.execute("SELECT name::text FROM pg_catalog.pg_available_extensions")]
    left = [row["name"] for row in _rows(origin, "left_behind", offered=offered)]
    if left:
        say(f"not moved, as Tidemark did not make it: {', '.join(left)}")


def _identity(connection: psycopg.Connection) -> tuple[str]:
    return connection.execute(STATEMENTS["identity"]).fetchone()


def _set(connection: psycopg.Connection) -> None:
    for name, value in SESSION.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))


def _rows(connection: psycopg.Connection, statement: str, /, **values: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(STATEMENTS[statement], values or None).fetchall()


@contextlib.contextmanager
def _snapshot(origin: psycopg.Connection) -> Iterator[str]:
    """One instant of the source for the whole pass."""
    with origin.transaction():
        origin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield origin.execute("SELECT pg_export_snapshot()").fetchone()[0]


# Definitions of the user's own ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Definitions:
    """SQL of what the target lacks: tables and all they need; their indexes and triggers; views."""

    tables: str
    rest: str
    views: str


def _definitions(source: str, target: str, origin: psycopg.Connection, here: psycopg.Connection,
                 say: Say) -> Definitions:
    """What the source has and Tidemark, TimescaleDB and extensions did not make."""
    with tempfile.TemporaryDirectory(prefix="tidemark-move-") as directory:
        listed, major = {}, max(one.info.server_version // 10000 for one in (origin, here))
        for url in (source, target):
            file = Path(directory, "source" if url == source else "target")
            schemas = ("_timescaledb*", "timescaledb_*", "_tidemark*")
            backup.dump(url, major, file, "--schema-only", *(f"--exclude-schema={schema}" for schema in schemas))
            listed[file.name] = dict(_ENTRY.findall(backup.dumped(major, file, "--list")))
        known, skipped = set(listed["target"].values()), _not_ours(origin)
        wanted = {number: entry for number, entry in listed["source"].items()
                  if entry not in known and not any(pattern.search(entry) for pattern in skipped)
                  and not _is_of_known_column(entry, known)}
        if wanted:
            say(f"making {len(wanted)} definitions of your own")
        views = [number for number, entry in wanted.items() if re.match(r"(MATERIALIZED )?VIEW |RULE ", entry)]
        about = re.compile("|".join(re.escape(wanted[number].split(" ", 1)[1]) + "$" for number in views) or r"(?!)")
        views += [n for n, entry in wanted.items() if n not in views and entry.startswith(("ACL", "COMMENT"))
                  and about.search(entry.replace(" VIEW ", " ").replace(" TABLE ", " "))]
        others = [number for number in wanted if number not in views]

        def script(numbers: list[str], *options: str) -> str:
            chosen = Path(directory, "list")
            chosen.write_text("".join(f"{number}; 0 0 x\n" for number in numbers))
            text = backup.dumped(major, Path(directory, "source"), *options, f"--use-list={chosen}", "--file=-")
            return _FOREIGN.sub("", text).replace("\nALTER TABLE ONLY ", "\nALTER TABLE ")  # hypertables know no ONLY

        return Definitions(script(others, "--section=pre-data"), script(others, "--section=post-data"), script(views))


def _is_of_known_column(entry: str, known: set[str]) -> bool:
    """Whether it is the comment of a column of a table that is there."""
    found = re.match(r"COMMENT (\S+) COLUMN (.*)\.", entry)
    return bool(found) and not known.isdisjoint({f"TABLE {found[1]} {found[2]}", f"VIEW {found[1]} {found[2]}"})


def _not_ours(origin: psycopg.Connection) -> list[re.Pattern[str]]:
    """Entries that TimescaleDB or Tidemark make themselves: aggregates, and triggers of what is attached."""
    names = [re.escape(name) for name, in origin.execute(
        "SELECT view_name FROM timescaledb_information.continuous_aggregates UNION SELECT name FROM _tidemark.rollups")]
    triggers = [name for name, in origin.execute(
        "SELECT DISTINCT t.tgname FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid"
        "  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace"
        " WHERE NOT t.tgisinternal AND (n.nspname ~ '^_timescaledb'"
        "   OR (n.nspname = '_tidemark' AND t.tgname !~ '^trg_audit_'))")]
    return [re.compile(pattern) for pattern in (
        *(rf" {name}$| {name}\." for name in names),
        *(rf"TRIGGER .*\b{re.escape(name)}( ON .*)?$" for name in triggers),
        r"(^| )_timescaledb", r"^EVENT TRIGGER ", r"^(EXTENSION|COMMENT - EXTENSION) ", r"^SCHEMA - public$")]


def _run_script(target: str, text: str) -> None:
    """Run SQL of a dump in a session of its own, which it changes the settings of."""
    if re.search(r"^(?!--|SET |SELECT pg_catalog.set_config).*\S", text, re.M):
        with connect(target) as fresh:
            fresh.execute(text)


def _hypertables(origin: psycopg.Connection, here: psycopg.Connection) -> None:
    """Make hypertables of the user's own tables, and chunks as long as the source's from now on."""
    there = {(row["hypertable"], row["number"]): row for row in _rows(here, "dimensions")}
    for row in _rows(origin, "dimensions"):
        key = row["hypertable"], row["number"]
        interval = row["time_interval"] or row["integer_interval"]
        length = sql.SQL("interval {}" if row["time_interval"] else "{}").format(sql.Literal(interval))
        if key in there:
            known = there[key]
            if interval is not None and (known["time_interval"] or known["integer_interval"]) != interval:
                here.execute(sql.SQL("SELECT public.set_chunk_time_interval({}::regclass, {}, {})").format(
                    row["hypertable"], length, row["column_name"]))
            continue
        if row["num_partitions"]:
            how = sql.SQL("public.by_hash({}, {})").format(row["column_name"], row["num_partitions"])
        else:
            how = sql.SQL("public.by_range({}, {})").format(row["column_name"], length)
        make = "SELECT public.create_hypertable({}::regclass, {}, create_default_indexes => false)" \
            if row["number"] == 1 else "SELECT public.add_dimension({}::regclass, {})"
        here.execute(sql.SQL(make).format(row["hypertable"], how))


# Rows -----------------------------------------------------------------------------------------------------------


def _parts(origin: psycopg.Connection, here: psycopg.Connection, table: dict[str, Any]) -> list[Part]:
    """A table in parts: a hypertable by its chunks, a long table by its numbers, any other whole."""
    everything = _whole(origin, here, table["label"], table["bytes"])
    if table["time_column"]:
        ranges = _rows(origin, "chunks", schema=table["schema"], name=table["name"])
        column = sql.SQL("t.{}").format(sql.Identifier(table["time_column"]))
        kind = sql.SQL(table["time_type"])
        size = _hypertable_bytes(origin, table["label"]) // max(len(ranges), 1)
        return [
            _some(everything, f"{row['range_start']} .. {row['range_end']}", size,
                  sql.SQL("{c} >= {a}::{k} AND {c} < {b}::{k}").format(
                      c=column, k=kind, a=sql.Literal(row["range_start"]), b=sql.Literal(row["range_end"])),
                  (row["range_start"], row["range_end"]))
            for row in ranges
        ]
    key = _rows(origin, "number_key", relation=table["label"])
    if not key or table["bytes"] < 1 << 25:
        return [everything]
    column = sql.SQL("t.{}").format(sql.Identifier(key[0]["attname"]))
    numbers = origin.execute(sql.SQL("SELECT DISTINCT floor({}::numeric / {})::bigint AS n FROM {} AS t ORDER BY n")
                             .format(column, RANGE, sql.SQL(table["label"]))).fetchall()
    return [
        _some(everything, f"{n * RANGE} ..", table["bytes"] // max(len(numbers), 1),
              sql.SQL("{c} >= {a} AND {c} < {b}").format(c=column, a=n * RANGE, b=(n + 1) * RANGE), None)
        for n, in numbers
    ]


def _whole(origin: psycopg.Connection, here: psycopg.Connection, relation: str, size: int) -> Part:
    """All rows of a relation; raises Problem where it has a column with values that the target has not."""
    there = {column["name"] for column in _rows(here, "columns", relation=relation)}
    columns = []
    for column in _rows(origin, "columns", relation=relation):
        if column["name"] in there:
            columns.append(column)
        elif origin.execute(sql.SQL("SELECT EXISTS (SELECT FROM {} AS t WHERE t.{} IS NOT NULL)").format(
                sql.SQL(relation), sql.Identifier(column["name"]))).fetchone()[0]:
            raise Problem(f"{relation} has no column {column['name']} in the target, and rows that need one",
                          hint="install the extension its type comes from (pgvector?), and move into a new database")
    hashed = sql.SQL("ROW({})").format(sql.SQL(", ").join(
        sql.SQL("t.{}" if column["is_hashable"] else "t.{}::text").format(sql.Identifier(column["name"]))
        for column in columns
    ))
    return Part(relation, "", sql.SQL("true"), tuple(column["name"] for column in columns), hashed,
                all(column["is_plain"] for column in columns), size)


def _some(whole: Part, name: str, size: int, condition: sql.Composed, time_range: tuple[str, str] | None) -> Part:
    return Part(whole.relation, name, condition, whole.columns, whole.hashed, whole.is_binary, size, time_range)


def _hypertable_bytes(origin: psycopg.Connection, relation: str) -> int:
    return origin.execute("SELECT coalesce(public.hypertable_size(%s::regclass), 0)", (relation,)).fetchone()[0]


def _copy_all(source: str, target: str, snapshot: str, parts: list[Part], progress: Progress) -> set[Part]:
    """Bring every part that differs; returns those. Raises what the first of them to fail raises."""
    pairs: Queue[tuple[psycopg.Connection, psycopg.Connection]] = Queue()
    total, done, changed = sum(part.bytes for part in parts), 0, set()
    with contextlib.ExitStack() as stack:
        for _ in range(WORKERS):
            reader, writer = stack.enter_context(connect(source)), stack.enter_context(connect(target))
            _set(reader)
            _set(writer)
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            reader.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(snapshot))
            # Scores, flags, ids and times come as they are; foreign keys held where the rows come from.
            writer.execute("SET session_replication_role = replica")
            writer.execute("SET synchronous_commit = off")
            pairs.put((reader, writer))
        known = {relation for relation, in writer.execute("SELECT relation FROM _tidemark_move.parts")}
        for relation in {part.relation for part in parts if not part.places} - known:
            with writer.transaction(), _triggers_off(writer, relation):  # what the migration put there
                writer.execute(sql.SQL("DELETE FROM {}").format(sql.SQL(relation)))

        def bring(part: Part) -> bool:
            reader, writer = pair = pairs.get()
            try:
                return _bring(reader, writer, part)
            finally:
                pairs.put(pair)

        pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
        connections = [connection for pair in pairs.queue for connection in pair]
        coming = [pool.submit(bring, part) for part in parts]
        try:
            for part, outcome in zip(parts, coming, strict=True):
                progress(done, total, f"{part.relation} {part.name}".strip())
                if outcome.result():
                    changed.add(part)
                done += part.bytes
        except BaseException:  # what runs ends at once, what waits does not begin
            pool.shutdown(wait=False, cancel_futures=True)
            for connection in connections:
                connection.cancel_safe(timeout=5)
            raise
        progress(total, total, "")
    return changed


def _bring(reader: psycopg.Connection, writer: psycopg.Connection, part: Part) -> bool:
    """Copy a part that the target does not hold as it is; whether it did."""
    target = part.target
    sent = reader.execute(part.checksum(part.origin)).fetchone()
    there = writer.execute(part.checksum(target)).fetchone()
    differs = there != sent
    if differs:
        with writer.transaction(), _triggers_off(writer, target):
            if there[0]:
                writer.execute(sql.SQL("DELETE FROM {} AS t WHERE {}").format(sql.SQL(target), part.condition))
            if sent[0]:
                _stream(reader, writer, part, target)
        there = writer.execute(part.checksum(target)).fetchone()
    if there != sent:
        raise Problem(
            f"{part.relation} {part.name} did not arrive as it was sent".replace("  ", " "),
            detail=f"{sent[0]} rows, checksum {sent[1]}; there {there[0]} rows, checksum {there[1]}",
            hint="see that nobody writes to the target, and run it again",
        )
    writer.execute(
        "INSERT INTO _tidemark_move.parts (relation, part, rows, checksum) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (relation, part) DO UPDATE SET rows = excluded.rows, checksum = excluded.checksum,"
        " proved_at = now()", (part.relation, part.name, *there))
    return differs


def _stream(reader: psycopg.Connection, writer: psycopg.Connection, part: Part, target: str) -> None:
    """COPY to COPY, in pieces of a size that neither memory nor the calls notice."""
    form = sql.SQL("(FORMAT {})").format(sql.SQL("binary" if part.is_binary else "text"))
    take = sql.SQL("COPY ({}) TO STDOUT {}").format(part.select(), form)
    give = sql.SQL("COPY {} ({}) FROM STDIN {}").format(sql.SQL(target), part.names(), form)
    with reader.cursor().copy(take) as rows, writer.cursor().copy(give) as copy:
        pieces, size = [], 0
        for piece in rows:
            pieces.append(piece)
            size += len(piece)
            if size >= STREAM_BYTES:
                copy.write(b"".join(pieces))
                pieces, size = [], 0
        copy.write(b"".join(pieces))


@contextlib.contextmanager
def _triggers_off(writer: psycopg.Connection, relation: str) -> Iterator[None]:
    """Also those that fire for replicas, which guard the record; in the open transaction alone."""
    always = [row["name"] for row in _rows(writer, "always", relation=relation)]
    if always:
        writer.execute("SET LOCAL tidemark.record_maintenance = 'on'")
    for state in ("DISABLE", "ENABLE ALWAYS"):
        for name in always:
            writer.execute(sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(
                sql.SQL(relation), sql.SQL(state), sql.Identifier(name)))
        if state == "DISABLE":
            yield


def _forget_lost(here: psycopg.Connection, parts: list[Part]) -> None:
    """Remove what an earlier pass brought and the source has no more, as the rows of chunks that were dropped."""
    now = {(part.relation, part.name) for part in parts}
    lost = [key for key in here.execute("SELECT relation, part FROM _tidemark_move.parts WHERE part <> %s", (KEPT,))
            if key not in now]
    for relation in {relation for relation, _ in lost}:
        if here.execute("SELECT to_regclass(%s) IS NULL", (relation,)).fetchone()[0]:
            continue
        conditions = [part.condition for part in parts if part.relation == relation]
        with here.transaction(), _triggers_off(here, relation):
            here.execute("SET LOCAL session_replication_role = replica")
            here.execute(sql.SQL("DELETE FROM {} AS t WHERE NOT ({})").format(
                sql.SQL(relation), sql.SQL(" OR ").join(conditions) if conditions else sql.SQL("false")))
    for key in lost:
        here.execute("DELETE FROM _tidemark_move.parts WHERE relation = %s AND part = %s", key)


def _sequences(origin: psycopg.Connection, here: psycopg.Connection) -> None:
    """Let the target's sequences go on where the source's stand."""
    there = backup.sequences(here)
    for label, numbers in backup.sequences(origin).items():
        if label in there and not label.endswith("_logged_before"):  # which is about the target's own aggregates
            last = origin.execute(sql.SQL("SELECT last_value, is_called FROM {}").format(numbers.name)).fetchone()
            here.execute("SELECT setval(%s::regclass, %s, %s)", (label, *last))


# What is made from rows -----------------------------------------------------------------------------------------


def _make_again(origin: psycopg.Connection, here: psycopg.Connection, target: str) -> None:
    """Make the aggregates that are missing, and what else follows from rows: functions of rules, triggers, jobs."""
    there = {row["name"] for row in _rows(here, "rollups")}
    for row in _rows(origin, "rollups"):
        if row["name"] not in there:
            here.execute("SELECT public.add_rollup(%(name)s, %(hypertable)s::regclass, %(bucket)s::interval,"
                         " %(series)s, %(columns)s, %(filter)s, %(parent)s, %(bucket_column)s)", row)
    with connect(target) as fresh:
        migrations.apply_logic_again(fresh)


def _frozen(origin: psycopg.Connection, here: psycopg.Connection) -> Iterator[list[Part]]:
    """What cannot be computed again: first which buckets are frozen, their raw rows being gone, then these buckets.

    They come after everything else was computed, and replace what was made of the raw rows that remain of them.
    """
    yield [replace(_whole(origin, here, "_tidemark.rollup_frozen", 0), name=KEPT)]
    stores = {row["name"]: row["store"] for row in _rows(here, "rollups")}
    kept = []
    for row in _rows(origin, "rollups"):
        if row["is_frozen"]:
            whole = _whole(origin, here, f"public.{sql.Identifier(row['name']).as_string()}", 0)
            key = sql.SQL(", ").join(sql.SQL("{}, t.{}").format(sql.Literal(name), sql.Identifier(name))
                                     for name in row["series"])
            condition = sql.SQL(
                "EXISTS (SELECT FROM _tidemark.rollup_frozen AS z WHERE z.name = {}"
                " AND z.series = jsonb_build_object({}) AND z.buckets @> t.{})"
            ).format(row["name"], key, sql.Identifier(row["bucket_column"]))
            kept.append(replace(whole, name=KEPT, condition=condition, places=(row["store"], stores[row["name"]])))
    yield kept


def _guard(here: psycopg.Connection) -> None:
    """Keep refreshes off the frozen buckets. TimescaleDB shows stored ones up to the end of what was refreshed last:
    where nothing was left to refresh, that is yet to be told."""
    here.execute("SELECT _tidemark.guard_frozen(r) FROM _tidemark.rollups AS r")
    for row in _rows(here, "rollups"):
        if row["is_native"] and row["is_frozen"] and row["watermark"]:
            here.execute("CALL public.refresh_continuous_aggregate(format('public.%%I', %s::text)::regclass,"
                         " %s::timestamptz - %s::interval, %s::timestamptz, force => true)",
                         (row["name"], row["watermark"], row["bucket"], row["watermark"]))


def _refresh(origin: psycopg.Connection, here: psycopg.Connection, changed: set[Part]) -> None:
    """Compute the aggregates as far as the source's are, again where a later pass changed raw rows below that."""
    late: dict[str, tuple[str, str]] = {}
    for part in changed:
        if part.time_range:
            first, last = late.get(part.relation, part.time_range)
            late[part.relation] = (min(first, part.time_range[0]), max(last, part.time_range[1]))
    for row in _rows(here, "rollups"):  # parents first
        period = late.get(_label(here, row["hypertable"]))
        if not row["was_refreshed"] or not period:
            continue
        if row["is_native"]:  # which does not know: the rows came behind its back
            here.execute("CALL public.refresh_continuous_aggregate(format('public.%%I', %s::text)::regclass,"
                         " public.time_bucket(%s::interval, %s::timestamptz),"
                         " _tidemark.bucket_ceiling(%s::interval, %s::timestamptz), force => true)",
                         (row["name"], row["bucket"], period[0], row["bucket"], period[1]))
        else:
            _call_refresh(here, row["hypertable"], *period, None)
    reach: dict[str, str | None] = {}
    for row in _rows(origin, "rollups"):
        reach[row["hypertable"]] = max(filter(None, [row["watermark"], reach.get(row["hypertable"])]), default=None)
    for hypertable, through in reach.items():
        _call_refresh(here, hypertable, None, None, through)


def _call_refresh(here: psycopg.Connection, hypertable: str, first: str | None, last: str | None,
                  through: str | None) -> None:
    failures = here.execute(
        "CALL _tidemark.refresh(%s::regclass, %s::timestamptz, %s::timestamptz, %s::timestamptz, NULL)",
        (hypertable, first, last, through)).fetchone()[0]
    if failures:
        raise Problem("an aggregate cannot be computed in the target", detail=failures,
                      hint="remove the cause in the source, and run it again")


def _label(connection: psycopg.Connection, relation: str) -> str:
    """A relation as the list of tables has it."""
    return connection.execute(
        "SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c"
        "  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = %s::regclass", (relation,)
    ).fetchone()[0]


def _prove_record(origin: psycopg.Connection, here: psycopg.Connection) -> None:
    """The record verifies in the target, down to the last seal; what was wrong before is not the move's fault."""
    found = backup.record_problems(here, backup.last_seal(origin))
    if found and (new := sorted(set(found) - set(backup.record_problems(origin, None)))):
        raise Problem("the record did not arrive whole", detail="; ".join(new[:10]), hint="do not use the target")


def _summary(parts: list[Part], changed: set[Part], here: psycopg.Connection) -> list[Moved]:
    known = {(relation, name): (rows, checksum) for relation, name, rows, checksum in here.execute(
        "SELECT relation, part, rows, checksum FROM _tidemark_move.parts")}
    found: dict[str, Moved] = {}
    for part in parts:
        rows, checksum = known[part.relation, part.name]
        so_far = found.get(part.relation, Moved(part.relation, 0, 0, 0, 0))
        found[part.relation] = Moved(part.relation, so_far.parts + 1, so_far.copied + (part in changed),
                                     so_far.rows + rows, so_far.checksum + int(checksum))
    return [found[relation] for relation in sorted(found)]
