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
from typing import Any

import psycopg
import yoyo
from psycopg import sql
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, MigrationList, default_migration_table

from tidemark import catalog, config, logic
from tidemark.database import where
from tidemark.errors import Problem
from tidemark.schema_files import FIRST_LOGIC_NUMBER, SchemaFile, schema_files
from tidemark.sql_text import transaction_control

BOOKKEEPING = "_tidemark_migrations"
MINIMUM_POSTGRESQL = 15
MINIMUM_TIMESCALEDB = (2, 19, 3)
LOCK_TIMEOUT_S = 3
LOCK_ATTEMPTS = 5
WAIT_FOR_RUNNER_S = 120

Say = Callable[[str], None]


def state(migration_file: str) -> str:
    """Text of the state file that a migration of the same name applies."""
    return (config.SCHEMA / "state" / Path(migration_file).with_suffix(".sql").name).read_text()


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
    plan.gone = sorted(name for name in plan.applied if name not in on_disk and int(name[:3]) >= FIRST_LOGIC_NUMBER)
    # Logic is made from other logic and from the catalogue, so it is re-applied as a whole.
    if plan.pending or plan.gone or any(f.is_logic and plan.applied.get(f.name) != f.sha256 for f in plan.files):
        plan.logic = [file for file in plan.files if file.is_logic]

    last_applied = max((f.number for f in state_files if f.name in plan.applied), default=-1)
    for name, digest in sorted(plan.applied.items()):
        number = int(name[:3])
        if name not in on_disk and number < FIRST_LOGIC_NUMBER:
            plan.refusals.append(Problem(
                f"schema/{name} was applied and is missing", hint="restore it: applied files are kept for ever"
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
        for file in plan.pending if file.number < last_applied
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
    check_server(connection)
    with _runner_lock(connection):
        plan = make_plan(connection)
        if plan.refusals:
            raise plan.refusals[0]
        if plan.up_to_date:
            return plan
        backend = _backend(connection)
        migrations = {migration.id: migration for migration in backend.to_apply(_migrations())}
        for file in plan.pending:
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
        undo = list(backend.to_rollback(_migrations()))[:count]
        missing = sorted(
            name for name in applied
            if int(name[:3]) < FIRST_LOGIC_NUMBER and name.removesuffix(".sql") not in {m.id for m in _migrations()}
        )
        if missing:
            raise Problem(f"migrations/ has nothing to undo schema/{missing[0]} with", hint="restore the file")

        def undo_all() -> None:
            with _transaction(backend):
                logic.drop_all(connection, catalog.own_schemas(connection))
                for name in applied:
                    if int(name[:3]) >= FIRST_LOGIC_NUMBER:
                        _forget(connection, name)
                for migration in undo:
                    say(f"undoing {migration.id}")
                    _run_steps(backend, migration, "rollback")
                    backend.unmark_one(migration, log=False)
                    backend.log_migration(migration, "rollback")
                    _forget(connection, f"{migration.id}.sql")
                if not _applied(connection):
                    connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(BOOKKEEPING)))

        _with_lock_retries(undo_all, say)
        return [migration.id for migration in undo]


def stamp(connection: psycopg.Connection) -> list[str]:
    """Record every file as applied without running it, for a database that `psql` built; returns the names.

    The caller makes sure first that the database is what `schema/` says (`catalog.differences`).
    """
    check_server(connection)
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
    files = schema_files()
    same = [file for file in files if file.is_logic == logic]
    number = same[-1].number + 1 if same else (500 if logic else 400)
    folder = same[-1].path.parent if same else config.SCHEMA / ("logic/500_base" if logic else "state")
    folder.mkdir(parents=True, exist_ok=True)
    if number >= (1000 if logic else 500):
        raise Problem("there is no number left for another file")
    schema_file = folder / f"{number:03d}_{slug}.sql"
    schema_file.write_text("-- Why this is needed, in a sentence.\n")
    if logic:
        return [schema_file]
    previous = [file.migration_id for file in files if not file.is_logic][-1]
    migration_file = config.MIGRATIONS / f"{number:03d}_{slug}.py"
    migration_file.write_text(
        f'"""What it adds, in a sentence."""\n\nfrom yoyo import step\n\nfrom tidemark.migrations import state\n\n'
        f'__depends__ = {{"{previous}"}}\n\nsteps = [step(state(__file__), """\n-- how to undo it\n""")]\n'
    )
    return [schema_file, migration_file]


def check_server(connection: psycopg.Connection) -> None:
    """Refuse, before anything is touched, a server or a role that cannot carry Tidemark (exit code 2)."""
    if connection.info.server_version < MINIMUM_POSTGRESQL * 10000:
        raise Problem(
            f"PostgreSQL {connection.info.server_version // 10000} is too old", detail=where(connection),
            hint=f"Tidemark needs PostgreSQL {MINIMUM_POSTGRESQL} or newer", exit_code=2,
        )
    available, installed, preloaded, may_create = connection.execute(
        "SELECT (SELECT e.default_version FROM pg_catalog.pg_available_extensions AS e"
        "         WHERE e.name = 'timescaledb'),"
        "       (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'timescaledb'),"
        # The loader defines this setting; shared_preload_libraries itself is a superuser's to read.
        "       EXISTS (SELECT FROM pg_catalog.pg_settings AS s WHERE s.name = 'timescaledb.max_background_workers'),"
        "       has_database_privilege(current_database(), 'CREATE')"
        "       AND has_schema_privilege('public', 'CREATE')"
    ).fetchone()
    if available is None:
        raise Problem(
            "TimescaleDB is not installed on the server", detail=where(connection),
            hint="install its package there, or unset DATABASE_URL and run: tidemark up", exit_code=2,
        )
    if not preloaded:
        raise Problem(
            "TimescaleDB is not preloaded", detail=where(connection),
            hint="set shared_preload_libraries = 'timescaledb' in postgresql.conf and restart the server",
            exit_code=2,
        )
    version = installed or available
    if tuple(int(part) for part in version.split("-")[0].split(".")[:3]) < MINIMUM_TIMESCALEDB:
        raise Problem(
            f"TimescaleDB {version} is too old", detail=where(connection),
            hint=f"Tidemark needs {'.'.join(map(str, MINIMUM_TIMESCALEDB))} or newer", exit_code=2,
        )
    if not may_create:
        raise Problem(
            f"role {connection.info.user} may not create objects in {where(connection)}",
            hint="GRANT CREATE ON DATABASE … and ON SCHEMA public to it, or use the database's owner", exit_code=2,
        )


class _Backend(PostgresqlPsycopgBackend):
    """yoyo on a connection that is open already and holds the runner's lock."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._open = connection
        super().__init__(
            DatabaseURI("postgresql+psycopg", None, None, None, None, connection.info.dbname, {}),
            default_migration_table,
        )

    def connect(self, dburi: DatabaseURI) -> psycopg.Connection:
        return self._open

    @contextlib.contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:
        yield


def _backend(connection: psycopg.Connection) -> _Backend:
    """yoyo's backend, its own tables in place; call it with the runner's lock held."""
    connection.execute(resources.files("tidemark").joinpath("ledger.sql").read_text())
    connection.execute(
        sql.SQL("SET search_path = {}, public").format(sql.Identifier(BOOKKEEPING))
    )
    backend = _Backend(connection)
    backend.ensure_internal_schema_updated()
    return backend


def _migrations() -> MigrationList:
    try:
        migrations = yoyo.read_migrations(str(config.MIGRATIONS))
        for migration in migrations:
            migration.load()  # yoyo itself would skip one that does not load
    except (yoyo.exceptions.BadMigration, yoyo.exceptions.MigrationConflict) as error:
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
def _transaction(backend: _Backend) -> Iterator[None]:
    with backend.transaction():
        backend.connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
        yield


def _run_steps(backend: _Backend, migration: Migration, direction: str) -> None:
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


def _apply_state(backend: _Backend, file: SchemaFile, migration: Migration) -> None:
    with _transaction(backend):
        _run_steps(backend, migration, "apply")
        backend.mark_one(migration, log=False)
        backend.log_migration(migration, "apply")
        _remember(backend.connection, file)


def _apply_logic(backend: _Backend, files: list[SchemaFile], gone: list[str]) -> list[str]:
    """Apply all logic and drop what no file makes any more; returns what that was."""
    connection = backend.connection

    def run() -> Iterator[str]:
        for file in files:
            connection.execute("SET LOCAL search_path = public")
            with _one_transaction(connection, f"schema/{file.name}"):
                connection.execute(file.text)
            yield file.name

    with _transaction(backend):
        dropped = logic.apply(connection, run)
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
