"""Brings a database to the state of `schema/`: yoyo decides and applies, this module guards it.

yoyo 9.0.0 applies a migration and marks it in two transactions, keeps its lock in a row that outlives the
process, and identifies a migration by its file name alone. Here everything from reading to marking happens under
a session advisory lock, which dies with its connection; a file, its mark and its hash are one transaction; and a
file whose text changed after it was applied is refused by name.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from tidemark import catalog, config, logic, preflight
from tidemark.errors import Problem
from tidemark.later import Later
from tidemark.schema_files import SchemaFile, is_logic, next_number, schema_files
from tidemark.sql_text import transaction_control

if TYPE_CHECKING:
    from yoyo.migrations import Migration, MigrationList

    from tidemark import yoyo_backend
    from tidemark.yoyo_backend import Backend
else:  # only what changes a database needs yoyo
    yoyo_backend = Later("tidemark.yoyo_backend")

BOOKKEEPING = "_tidemark_migrations"
LOCK_TIMEOUT_S = 3
LOCK_ATTEMPTS = 5
WAIT_FOR_RUNNER_S = 120

Say = Callable[[str], None]


def state(migration_file: str) -> str:
    """Text of the state file that a migration of the same name applies."""
    migration = Path(migration_file)
    (text,) = [path.read_text() for path in (migration.parent.parent / "schema").rglob(f"{migration.stem}.sql")]
    return text


@dataclass
class Plan:
    """What is applied, what is to be done, and what forbids doing it."""

    files: list[SchemaFile]
    applied: dict[str, str]  # file name -> sha256 when it was applied
    pending: list[SchemaFile] = field(default_factory=list)  # state files to apply
    logic: list[SchemaFile] = field(default_factory=list)  # logic files to re-apply: all of them, or none
    gone: list[str] = field(default_factory=list)  # names of logic files that were applied and are there no longer
    dropped: list[str] = field(default_factory=list)  # logic that `migrate` dropped, because no file makes it any more
    refusals: list[Problem] = field(default_factory=list)

    @property
    def up_to_date(self) -> bool:
        return not (self.pending or self.logic or self.gone or self.refusals)

    def states(self) -> dict[str, str]:
        """Each file and how it stands: applied, pending, changed or removed."""
        return {
            file.name: "pending" if file.name not in self.applied else
            "applied" if self.applied[file.name] == file.sha256 else "changed" for file in self.files
        } | dict.fromkeys(self.gone, "removed")


def make_plan(connection: psycopg.Connection, files: list[SchemaFile] | None = None) -> Plan:
    """Compare `schema/` with the bookkeeping; only reads."""
    plan = Plan(files if files is not None else schema_files(), _applied(connection))
    on_disk = {file.name: file for file in plan.files}
    state_files = [file for file in plan.files if not file.is_logic]
    plan.pending = [file for file in state_files if file.name not in plan.applied]
    plan.gone = sorted(name for name in plan.applied if name not in on_disk and is_logic(name))
    # Logic is made from other logic and from the catalogue, so it is re-applied as a whole.
    if plan.pending or plan.gone or any(f.is_logic and plan.applied.get(f.name) != f.sha256 for f in plan.files):
        plan.logic = [file for file in plan.files if file.is_logic]

    for name, digest in sorted(plan.applied.items()):
        if name not in on_disk and not is_logic(name):
            plan.refusals.append(Problem(
                f"schema/{name} was applied and is missing",
                hint="call it where its project is, or with --dir" if name.startswith("own/")
                else "restore it: applied files are kept for ever",
            ))
        elif name in on_disk and not on_disk[name].is_logic and on_disk[name].sha256 != digest:
            plan.refusals.append(Problem(
                f"schema/{name} was edited after it was applied",
                detail=f"applied {digest[:12]}, now {on_disk[name].sha256[:12]}",
                hint="undo the edit and put the change into a new file: tidemark new NAME",
            ))
    plan.refusals += [
        Problem(
            f"schema/{file.name} comes before files that are applied already",
            hint="give it a number above the last applied one",
        )
        for file in plan.pending
        if any(f.number > file.number and f.is_own == file.is_own and f.name in plan.applied for f in state_files)
    ]
    plan.refusals += [
        refusal for file in [*plan.pending, *plan.logic]
        if (refusal := _own_transaction(f"schema/{file.name}", file.text))
    ]
    return plan


def _own_transaction(name: str, text: str) -> Problem | None:
    """What forbids a script that would end the transaction which applies and marks it."""
    if statement := transaction_control(text):
        return Problem(
            f"{name} controls the transaction itself", detail=f"it holds {statement.upper()}",
            hint="take that out: the runner applies each file in one transaction together with its mark",
        )
    return None


def migrate(connection: psycopg.Connection, say: Say = lambda line: None) -> Plan:
    """Apply pending state and changed logic; returns what was done. Safe to run from many places at once."""
    preflight.check_server(connection, is_written=False)
    with _runner_lock(connection):
        plan = make_plan(connection)
        if plan.refusals:
            raise plan.refusals[0]
        if plan.up_to_date:
            return plan
        preflight.check(connection, plan.pending, is_first=not plan.applied)
        backend = _backend(connection)
        migrations = {migration.id: migration for migration in backend.to_apply(_migrations())}
        shipped = [file for file in plan.logic if not file.is_own]
        for file in plan.pending:
            if file.is_own and any(plan.applied.get(f.name) != f.sha256 for f in shipped):
                say(f"applying logic ({len(shipped)} files)")  # what is shipped comes first, whole
                _with_lock_retries(lambda: _apply_logic(backend, shipped, [], is_all=False), say)
                plan.applied |= {file.name: file.sha256 for file in shipped}
            migration = migrations.get(file.migration_id)
            if migration is None:
                raise Problem(
                    f"schema/{file.name} has no migration to apply it",
                    detail=f"migrations/{file.migration_id}.py is missing, or marked applied by yoyo",
                    hint="see: tidemark new NAME, tidemark stamp",
                )
            say(f"applying {file.name}")
            _with_lock_retries(lambda f=file, m=migration: _apply_state(backend, f, m), say)
        if plan.logic or plan.gone:
            say(f"applying logic ({len(plan.logic)} files)")
            plan.dropped = _with_lock_retries(lambda: _apply_logic(backend, plan.logic, plan.gone), say)
        return plan


def pending_sql(plan: Plan) -> Iterator[str]:
    """The SQL that `migrate` would run, for people who apply it themselves and then call `stamp`."""
    for file in [*plan.pending, *plan.logic]:
        yield f"-- schema/{file.name}\nBEGIN;\nSET LOCAL search_path = public;\n{file.text}\nCOMMIT;\n"


def rollback(connection: psycopg.Connection, count: int | None, say: Say = lambda line: None) -> list[str]:
    """Undo the last `count` state files, or all (None), and return their names.

    Logic goes first, whole, because it stands on the tables: the next `migrate` puts it back.
    """
    with _runner_lock(connection):
        applied = _applied(connection)
        if not applied:
            return []
        backend = _backend(connection)
        migrations = _migrations()
        missing = sorted(
            name for name in applied if not is_logic(name) and Path(name).stem not in {m.id for m in migrations}
        )
        if missing:
            raise Problem(f"migrations/ has nothing to undo schema/{missing[0]} with", hint="restore the file")
        # Names of state sort as the files ran, own ones last.
        names = {Path(name).stem: name for name in sorted(applied) if not is_logic(name)}
        order = list(names)
        undo = sorted(backend.to_rollback(migrations), key=lambda one: order.index(one.id), reverse=True)[:count]

        def undo_all() -> None:
            with _transaction(backend):
                logic.drop_all(connection, catalog.own_schemas(connection))
                for name in filter(is_logic, applied):
                    _forget(connection, name)
                for migration in undo:
                    say(f"undoing {migration.id}")
                    try:
                        _run_steps(backend, migration, "rollback")
                    except psycopg.errors.DependentObjectsStillExist as error:
                        raise Problem(
                            f"{migration.id} cannot be undone: something of your own stands on it",
                            detail=error.diag.message_detail or error.diag.message_primary,
                            hint="drop that or put it on something else first; nothing was undone",
                        ) from None
                    backend.unmark_one(migration, log=False)
                    backend.log_migration(migration, "rollback")
                    _forget(connection, names[migration.id])
                if not _applied(connection):
                    connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(BOOKKEEPING)))

        _with_lock_retries(undo_all, say)
        return [migration.id for migration in undo]


def stamp(connection: psycopg.Connection) -> list[str]:
    """Record every file as applied without running it, for a database that `psql` built; returns the names.

    The caller makes sure first that the database is what `schema/` says (`catalog.differences`).
    """
    preflight.check_server(connection)
    with _runner_lock(connection):
        plan = make_plan(connection)
        if plan.refusals:
            raise plan.refusals[0]
        backend = _backend(connection)
        with _transaction(backend):
            backend.mark_migrations(backend.to_apply(_migrations()))
            for file in plan.pending:
                _remember(connection, file)
        _apply_logic(backend, plan.logic, plan.gone)  # which changes nothing, and records what it makes
        return [file.name for file in [*plan.pending, *plan.logic]]


def history(connection: psycopg.Connection) -> list[tuple]:
    """What was applied, marked and rolled back: (at, operation, migration, by), oldest first."""
    if not _exists(connection, f"{BOOKKEEPING}._yoyo_log"):
        return []
    return connection.execute(
        sql.SQL(
            "SELECT created_at_utc, operation, migration_id, username FROM {} ORDER BY created_at_utc, id"
        ).format(sql.Identifier(BOOKKEEPING, "_yoyo_log"))
    ).fetchall()


def new(name: str, *, logic: bool = False) -> list[Path]:
    """Create the next state file and its migration, or the next logic file; returns the paths."""
    slug = "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
    if not slug or not slug[0].isalpha():
        raise Problem(f"{name!r} does not make a file name", hint="start with a letter, e.g. add trade venue")
    if config.IS_INSTALLED and not config.PROJECT:
        raise Problem(
            "there is no project here", hint=f"name its directory: tidemark --dir DIR new {slug}", exit_code=2
        )
    folder = config.PROJECT or config.SCHEMA.parent
    if config.PROJECT and not (folder / config.MARKER).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / config.MARKER).write_text("# This directory adds to Tidemark: schema/, migrations/ and queries/.\n")
    files = schema_files()
    same = [file for file in files if file.is_logic == logic and file.is_own == bool(config.PROJECT)]
    number = next_number(same, logic=logic)
    schema_file = (same[-1].path.parent if same else folder / "schema" / ("logic" if logic else "state")) / (
        f"{number:03d}_{slug}.sql")
    schema_file.parent.mkdir(parents=True, exist_ok=True)
    schema_file.write_text("-- Why this is needed, in a sentence.\n")
    if logic:
        return [schema_file]
    previous = [file.migration_id for file in files if not file.is_logic][-1]
    migration_file = folder / "migrations" / f"{number:03d}_{slug}.py"
    migration_file.parent.mkdir(exist_ok=True)
    migration_file.write_text(
        f'"""What it adds, in a sentence."""\n\nfrom yoyo import step\n\nfrom tidemark.migrations import state\n\n'
        f'__depends__ = {{"{previous}"}}\n\nsteps = [step(state(__file__), """\n-- how to undo it\n""")]\n'
    )
    return [schema_file, migration_file]


def _backend(connection: psycopg.Connection) -> Backend:
    """yoyo's backend, its own tables in place; call it with the runner's lock held."""
    connection.execute(resources.files("tidemark").joinpath("ledger.sql").read_text())
    connection.execute(
        sql.SQL("SET search_path = {}, public").format(sql.Identifier(BOOKKEEPING))
    )
    backend = yoyo_backend.Backend(connection)
    backend.ensure_internal_schema_updated()
    return backend


def _migrations() -> MigrationList:
    try:
        own = [config.PROJECT / "migrations"] if config.PROJECT else []
        migrations = yoyo_backend.read_migrations(*map(str, [config.MIGRATIONS, *own]))
        for migration in migrations:
            migration.load()  # yoyo itself would skip one that does not load
    except yoyo_backend.UNUSABLE as error:
        raise Problem("a file in migrations/ cannot be used", detail=repr(error), hint="correct it") from error
    for migration in migrations:
        if not migration.use_transactions:
            raise Problem(
                f"migrations/{migration.id}.py is not transactional", detail="__transactional__ = False",
                hint="take that out: the runner applies each file in one transaction together with its mark",
            )
        for script in _scripts(migration.steps):
            if refusal := _own_transaction(f"migrations/{migration.id}.py", script):
                raise refusal
    return migrations


def _scripts(steps: Iterable[Any]) -> Iterator[str]:
    """The SQL of yoyo's steps, both ways; a step may wrap another, or hold several."""
    for step in steps:
        if inner := getattr(step, "steps", None) or ([step.step] if hasattr(step, "step") else []):
            yield from _scripts(inner)
        else:
            yield from (script for script in (step._apply, step._rollback) if isinstance(script, str))


@contextlib.contextmanager
def _transaction(backend: Backend) -> Iterator[None]:
    with backend.transaction():
        backend.connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
        yield


def _run_steps(backend: Backend, migration: Migration, direction: str) -> None:
    """Let yoyo run a migration inside the open transaction, with public first on the search_path."""
    backend.connection.execute("SET LOCAL search_path = public")
    with (
        _one_transaction(backend.connection, f"migrations/{migration.id}.py"),
        contextlib.redirect_stdout(io.StringIO()),  # yoyo prints what a SELECT returns
    ):
        migration.process_steps(backend, direction)
    backend.connection.execute(
        sql.SQL("SET LOCAL search_path = {}, public").format(sql.Identifier(BOOKKEEPING))
    )


@contextlib.contextmanager
def _one_transaction(connection: psycopg.Connection, name: str) -> Iterator[None]:
    """Refuse to mark what ran where it left another transaction or another role behind."""
    asked = "SELECT pg_current_xact_id(), current_user, session_user"
    before = connection.execute(asked).fetchone()
    yield
    if connection.execute(asked).fetchone() != before:
        raise Problem(
            f"{name} left another transaction or another role in force", detail="it is not marked as applied",
            hint="let it end neither the transaction nor the role's work; then see what is there: tidemark status",
        )


def _apply_state(backend: Backend, file: SchemaFile, migration: Migration) -> None:
    with _transaction(backend):
        _run_steps(backend, migration, "apply")
        backend.mark_one(migration, log=False)
        backend.log_migration(migration, "apply")
        _remember(backend.connection, file)


def _apply_logic(backend: Backend, files: list[SchemaFile], gone: list[str], *, is_all: bool = True) -> list[str]:
    """Apply logic and, where that is all, drop what no file makes any more; returns what that was."""
    connection = backend.connection

    @contextlib.contextmanager
    def guard(file: SchemaFile) -> Iterator[None]:
        connection.execute("SET LOCAL search_path = public")
        with _one_transaction(connection, f"schema/{file.name}"):
            yield

    with _transaction(backend):
        dropped = logic.apply(connection, files, guard, is_all=is_all)
        for file in files:
            _remember(connection, file)
        for name in gone:
            _forget(connection, name)
    return [f"{kind} {identity}" for kind, identity in dropped]


def apply_logic_again(connection: psycopg.Connection) -> None:
    """Run every logic file once more: what they make from the rows that are there follows these rows."""
    with _runner_lock(connection):
        backend, files = _backend(connection), [file for file in schema_files() if file.is_logic]
        _with_lock_retries(lambda: _apply_logic(backend, files, []), lambda line: None)


def _remember(connection: psycopg.Connection, file: SchemaFile) -> None:
    connection.execute(
        sql.SQL(
            "INSERT INTO {} (file, sha256) VALUES (%s, %s) ON CONFLICT (file) DO UPDATE"
            " SET sha256 = excluded.sha256, applied_at = now(), applied_by = session_user"
        ).format(sql.Identifier(BOOKKEEPING, "applied_files")),
        (file.name, file.sha256),
    )


def _forget(connection: psycopg.Connection, name: str) -> None:
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE file = %s").format(sql.Identifier(BOOKKEEPING, "applied_files")), (name,)
    )


def _applied(connection: psycopg.Connection) -> dict[str, str]:
    if not _exists(connection, f"{BOOKKEEPING}.applied_files"):
        return {}
    return dict(connection.execute(
        sql.SQL("SELECT file, sha256 FROM {}").format(sql.Identifier(BOOKKEEPING, "applied_files"))
    ).fetchall())


def _exists(connection: psycopg.Connection, relation: str) -> bool:
    return connection.execute("SELECT to_regclass(%s) IS NOT NULL", (relation,)).fetchone()[0]


@contextlib.contextmanager
def _runner_lock(connection: psycopg.Connection) -> Iterator[None]:
    """One runner at a time in this database; a killed one lets go within a second."""
    connection.execute("SET client_connection_check_interval = '500ms'")
    deadline = time.monotonic() + WAIT_FOR_RUNNER_S
    while not connection.execute(
        "SELECT pg_try_advisory_lock(hashtextextended('tidemark.migrate', 0))"
    ).fetchone()[0]:
        if time.monotonic() > deadline:
            raise Problem(
                "another runner is at work on this database", detail=f"waited {WAIT_FOR_RUNNER_S} s",
                hint="look for it in pg_stat_activity (application_name tidemark)",
            )
        time.sleep(0.1)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(hashtextextended('tidemark.migrate', 0))")


def _with_lock_retries(work: Callable[[], Any], say: Say) -> Any:
    """Do the work, which is one transaction, again while somebody holds a table it needs."""
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            return work()
        except psycopg.errors.LockNotAvailable as error:
            if attempt == LOCK_ATTEMPTS:
                raise Problem(
                    "a table that has to change is in use", detail=str(error).splitlines()[0],
                    hint="end the long transaction (pg_stat_activity) and run the command again",
                ) from None
            say(f"a table is in use, trying again ({attempt}/{LOCK_ATTEMPTS})")
            time.sleep(2 ** attempt / 2)
