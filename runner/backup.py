"""Backups that are known to restore: made in one snapshot, described by a manifest, compared after restoring.

    <directory>/manifest.json     versions, counts and checksums per table, roles, last seal; written last
    <directory>/database.dump     a logical backup: pg_dump's custom format, and
    <directory>/catalogue.json    every object and its definition, to be compared after restoring
    <directory>/base/             a physical backup: a data directory with the WAL to make it consistent

TimescaleDB restores only into its own version, between timescaledb_pre_restore and timescaledb_post_restore and in
one job: parallel jobs break its catalogue. Row security would leave rows out silently, so it is never enabled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tidemark import catalog
from tidemark.database import SESSION, UNLIMITED, child_environment, connect, prepare, where, without_password
from tidemark.errors import Problem
from tidemark.installation import GLOBS, Installation, installations
from tidemark.preflight import check_server
from tidemark.server import Server, throwaway
from tidemark.sql_files import named_statements

FORMAT = 1
MANIFEST, DUMP, CATALOGUE, BASE = "manifest.json", "database.dump", "catalogue.json", "base"
# A hidden row must be an error.
PINNED = SESSION | UNLIMITED | {"row_security": "off", "search_path": "pg_catalog"}
# Lists whose value the catalogue keeps quoted, item by item; any other value is one string.
QUOTED_LISTS = ("search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries")
ROLE_FLAGS = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")
_SQL = named_statements("backup.sql")

Say = Callable[[str], None]


def _quiet(line: str) -> None:
    """Nobody listens."""


@dataclass
class Manifest:
    """What a backup holds, and what it takes to restore it."""

    kind: str  # logical or physical
    started_at: str
    finished_at: str = ""
    format: int = FORMAT
    tidemark: str = ""
    postgresql: str = ""
    timescaledb: str = ""
    edition: str = ""
    database: str = ""
    role: str = ""
    extensions: list[str] = field(default_factory=list)
    # name -> [rows, checksum]; null for a table that changed while a physical backup was being taken
    tables: dict[str, list | None] = field(default_factory=dict)
    # name -> [next value, the column it feeds, whether that column holds the next value or a later one already]
    sequences: dict[str, list] = field(default_factory=dict)
    roles: list[dict[str, Any]] = field(default_factory=list)
    database_settings: list[dict[str, Any]] = field(default_factory=list)
    database_privileges: list[dict[str, Any]] = field(default_factory=list)
    seal: dict[str, Any] | None = None  # the last seal of the audit record: seal_id, to_audit_id, root
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256

    @property
    def major(self) -> int:
        return int(self.postgresql.split(".")[0])

    @property
    def rows(self) -> int:
        return sum(facts[0] for facts in self.tables.values() if facts)


def backup(url: str, directory: Path, *, physical: bool = False, say: Say = _quiet) -> Manifest:
    """Back the database up into `directory`, which must be new or empty; it appears complete or not at all."""
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Problem(f"{directory} is there already", hint="name a new or an empty directory", exit_code=2)
    if not directory.parent.is_dir():
        raise Problem(f"{directory.parent} is not a directory", exit_code=2)
    with connect(url) as connection, _unfinished(directory) as target:
        prepare(connection, PINNED)
        manifest = _describe(connection, "physical" if physical else "logical", say)
        (_physical if physical else _logical)(url, connection, target, manifest, say)
        manifest.finished_at = _now()
        _write_json(target / MANIFEST, asdict(manifest))
    return manifest


def restore(url: str, directory: Path, *, say: Say = _quiet) -> Manifest:
    """Restore a logical backup into the empty database at `url`, and compare it with the manifest."""
    manifest = read_manifest(directory)
    if manifest.kind == "physical":
        raise Problem(
            f"{directory} is a physical backup: a whole server, not a database",
            hint=f"copy {directory / BASE} to a new data directory of PostgreSQL {manifest.major} and start it",
            exit_code=2,
        )
    _check_files(directory, manifest)
    with connect(url) as connection:
        _refuse_role(connection)
        check_server(connection)
        _refuse_target(url, connection, manifest)
        _create_roles(connection, manifest, say)
        connection.execute(
            sql.SQL("CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public VERSION {}")
            .format(manifest.timescaledb)
        )
    with connect(url) as connection:  # a new session, which loads the library of that version
        connection.execute("SELECT public.timescaledb_pre_restore()")
    say("restoring")
    program = _program("pg_restore", max(manifest.major, _server_major(url)))
    _run(program, "--exit-on-error", "--dbname", without_password(url)[0], str(directory / DUMP), url=url,
         hint="the database is incomplete: drop and create it before another attempt")
    with connect(url) as connection:
        _configure_database(connection, manifest)
        # Jobs change things as soon as they may run, so compare before; for us alone, TimescaleDB works already.
        connection.execute("SET timescaledb.restoring = off")
        say("analyzing")
        connection.execute("ANALYZE")
        say("comparing")
        _raise_differences(differences(connection, directory, manifest), directory)
    with connect(url) as connection:
        connection.execute("SELECT public.timescaledb_post_restore()")
        # Before TimescaleDB 2.26.4 the scheduler that it started saw a database still in restore, and ended.
        connection.execute("SELECT _timescaledb_functions.start_background_workers()")
    return manifest


def verify(directory: Path, *, say: Say = _quiet) -> Manifest:
    """Restore the backup into a server of its own, compare everything and write to it; the server is gone afterwards.

    Needs the same TimescaleDB on this machine. Raises Problem with every difference found.
    """
    manifest = read_manifest(directory)
    _check_files(directory, manifest)
    installation = _installation(manifest)
    settings = {"max_connections": "30", "max_locks_per_transaction": "1024"}
    with throwaway(installation, manifest.edition, settings) as scratch:
        if manifest.kind == "physical":
            address = _start_physical(scratch, directory, manifest, say)
        else:
            scratch.create_database("verify")
            address = scratch.url("verify")
            with connect(address) as connection:
                _create_roles(connection, manifest, _quiet, superusers=True)
            restore(address, directory, say=say)
        with connect(address) as connection:
            found = differences(connection, directory, manifest) if manifest.kind == "physical" else []
            roles = _rows(connection, "roles")
            found += [f"role {role['name']} is different" for role in manifest.roles if role not in roles]
            found += _broken_record(connection, manifest)
            found += _broken_use(connection)
    _raise_differences(found, directory)
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the backup in `directory`."""
    if (directory / MANIFEST).exists() and not (directory / MANIFEST).is_file():
        raise Problem(f"{directory / MANIFEST} is not a file", exit_code=2)  # a pipe would keep us waiting
    try:
        content = json.loads((directory / MANIFEST).read_text())
        if content["format"] != FORMAT:
            raise Problem(f"{directory} was written by Tidemark {content['tidemark']}",
                          hint="restore it with that version", exit_code=2)
        return Manifest(**content)
    except FileNotFoundError:
        raise Problem(f"there is no backup in {directory}", detail=f"no {MANIFEST}", exit_code=2) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem(f"the manifest in {directory} cannot be read", detail=str(error), exit_code=2) from None


def differences(connection: psycopg.Connection, directory: Path, manifest: Manifest) -> list[str]:
    """What in the database is not as the backup says, one line each."""
    prepare(connection, PINNED)
    found = []
    tables = _tables(connection)
    for name, expected in manifest.tables.items():
        actual = _fingerprint(connection, tables[name]) if name in tables else None
        if actual is None:
            found.append(f"table {name} is missing")
        elif expected and actual != expected:
            found.append(f"table {name} has {actual[0]} rows instead of {expected[0]}" if actual[0] != expected[0]
                         else f"table {name} has other content")
    now = sequences(connection)
    for name, (expected, column, was_overtaken) in manifest.sequences.items():
        if name not in now:
            found.append(f"sequence {name} is missing")
        elif now[name].is_before(expected):
            found.append(f"sequence {name} is at {now[name].upcoming} instead of {expected}")
        elif now[name].is_overtaken and not was_overtaken:
            found.append(f"sequence {name} is at {now[name].upcoming}, but {column} holds {now[name].furthest} already")
    if manifest.kind == "logical":
        expected_objects = json.loads((directory / CATALOGUE).read_text())
        objects = _catalogue(connection)
        found += [
            f"{name} is {'different' if name in objects else 'missing'}"
            for name, definition in expected_objects.items()
            if objects.get(name) != definition
            and not (name in objects and name.startswith("view ")
                     and _is_same_view(connection, definition, objects[name]))
        ]
    return found


def _is_same_view(connection: psycopg.Connection, expected: str, actual: str) -> bool:
    """Whether a view made from the expected text is printed as the actual one is: once made anew, some change."""
    with contextlib.suppress(psycopg.Error), connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("CREATE TEMPORARY VIEW made_anew AS {}").format(sql.SQL(expected)))
        return connection.execute("SELECT pg_get_viewdef('pg_temp.made_anew'::regclass)").fetchone()[0] == actual
    return False


# Backing up -----------------------------------------------------------------------------------------------------


def _logical(url: str, connection: psycopg.Connection, target: Path, manifest: Manifest, say: Say) -> None:
    """pg_dump and our own counts look at the same snapshot."""
    refuse_reader(connection)
    dump = _program("pg_dump", _server_major(url))
    before = sequences(connection)  # nextval() knows of no snapshot: the dump has this value or a later one
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot = connection.execute("SELECT pg_export_snapshot()").fetchone()[0]
        say("dumping")
        _run(dump, "--format=custom", f"--snapshot={snapshot}", "--lock-wait-timeout=60s",
             "--dbname", without_password(url)[0], "--file", str(target / DUMP), url=url)
        say("counting")
        manifest.seal, manifest.sequences = last_seal(connection), _listed(before, sequences(connection))
        _write_json(target / CATALOGUE, _catalogue(connection))
        manifest.tables = {name: _fingerprint(connection, table) for name, table in _tables(connection).items()}
    manifest.files = {name: _sha256(target / name) for name in (DUMP, CATALOGUE)}


def _physical(url: str, connection: psycopg.Connection, target: Path, manifest: Manifest, say: Say) -> None:
    """pg_basebackup has no snapshot: what is equal before and after it is in it, for the rest we cannot say."""
    refuse_reader(connection)
    if elsewhere := _names(connection, "tablespaces"):
        raise Problem(
            "a physical backup of a server with tablespaces is not made here", detail=", ".join(elsewhere),
            hint="take a logical backup, or call pg_basebackup", exit_code=2,
        )
    program = _program("pg_basebackup", _server_major(url))

    def facts() -> dict[str, list]:
        return {name: _fingerprint(connection, table) for name, table in _tables(connection).items()}

    say("counting")
    numbers, manifest.seal, before = sequences(connection), last_seal(connection), facts()
    say("copying")
    base = target / BASE
    _run(program, "--pgdata", str(base), "--wal-method=stream", "--checkpoint=fast", "--manifest-checksums=SHA256",
         "--dbname", without_password(url)[0], url=url,
         hint="it takes a role with REPLICATION and a line for `replication` in pg_hba.conf")
    say("checking")
    _run(program.with_name("pg_verifybackup"), "--quiet", str(base))
    after = facts()
    manifest.sequences = _listed(numbers, sequences(connection))
    manifest.tables = {name: known if after.get(name) == known else None for name, known in before.items()}
    manifest.files = {f"{BASE}/backup_manifest": _sha256(base / "backup_manifest")}


def _describe(connection: psycopg.Connection, kind: str, say: Say) -> Manifest:
    """The manifest's heading: what runs, and which roles and settings the database relies on."""
    heading = _rows(connection, "heading")[0]
    if heading["timescaledb"] is None:
        raise Problem(
            f"{where(connection)} is not a database of Tidemark", detail="TimescaleDB is not installed in it",
            exit_code=2,
        )
    if not heading.pop("is_superuser"):
        say(f"{heading['role']} can make a backup but not restore it: that takes a superuser")
    return Manifest(
        kind, _now(), tidemark=metadata.version("tidemark"), **heading, roles=_rows(connection, "roles"),
        database_settings=_rows(connection, "database_settings"),
        database_privileges=_rows(connection, "database_privileges"),
    )


def refuse_reader(connection: psycopg.Connection, verb: str = "back up") -> None:
    """Refuse a role that does not see every row of every table."""
    role, hint = connection.info.user, f"{verb} as a superuser, or as a role with BYPASSRLS and pg_read_all_data"
    if hidden := _names(connection, "hidden"):
        raise Problem(f"row-level security hides rows from role {role}", detail=_some(hidden), hint=hint, exit_code=2)
    if unreadable := _names(connection, "unreadable"):
        raise Problem(f"role {role} may not read everything", detail=_some(unreadable), hint=hint, exit_code=2)


@contextlib.contextmanager
def _unfinished(directory: Path) -> Iterator[Path]:
    """A directory beside `directory` that takes its name once everything is on disk, and goes away otherwise."""
    target = Path(tempfile.mkdtemp(prefix=f".{directory.name}.unfinished-", dir=directory.parent))
    try:
        yield target
        for path in [*target.rglob("*"), target]:
            if path.is_file() or path.is_dir():
                _sync(path)
        target.rename(directory)
        _sync(directory.parent)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# What a database holds ------------------------------------------------------------------------------------------


def _rows(connection: psycopg.Connection, name: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[name]).fetchall()


def _names(connection: psycopg.Connection, name: str) -> list[str]:
    return [row["name"] for row in _rows(connection, name)]


def _tables(connection: psycopg.Connection) -> dict[str, sql.Identifier]:
    return {row["label"]: sql.Identifier(row["schema"], row["name"]) for row in _rows(connection, "tables")}


def _fingerprint(connection: psycopg.Connection, table: sql.Identifier) -> list:
    """[rows, checksum]: the sum of the rows' hashes, whatever their order."""
    return list(connection.execute(
        sql.SQL("SELECT count(*), coalesce(sum(hashtextextended(ROW(t.*)::text, 0)::numeric), 0)::text FROM {} AS t")
        .format(table)
    ).fetchone())


@dataclass(frozen=True)
class Numbers:
    """A sequence: what it gives next, a column it feeds, and the furthest value there (None: no rows or no column)."""

    name: sql.Identifier
    upcoming: int
    step: int
    column: str | None
    furthest: int | None

    def is_before(self, value: int) -> bool:
        """Whether it has yet to come to that value; one that counts down comes from above."""
        return self.upcoming < value if self.step > 0 else self.upcoming > value

    @property
    def is_overtaken(self) -> bool:
        """Whether somebody wrote a value himself that it has yet to give: an insert will fail then."""
        return self.furthest is not None and (self.upcoming == self.furthest or self.is_before(self.furthest))


def sequences(connection: psycopg.Connection) -> dict[str, Numbers]:
    """The database's sequences by name; of several columns that one feeds, the one that is ahead of it."""
    found: dict[str, Numbers] = {}
    for row in _rows(connection, "sequences"):
        column, furthest = None, sql.SQL("NULL")
        if row["column_name"]:
            column = f"{row['table_schema']}.{row['table_name']}.{row['column_name']}"
            furthest = sql.SQL("(SELECT {}({}) FROM {})").format(
                sql.SQL("max" if row["step"] > 0 else "min"), sql.Identifier(row["column_name"]),
                sql.Identifier(row["table_schema"], row["table_name"]),
            )
        name = sql.Identifier(row["schema"], row["name"])
        # numeric: after its last number the next one is outside bigint
        upcoming, held = connection.execute(
            sql.SQL("SELECT (last_value + CASE WHEN is_called THEN {}::numeric ELSE 0 END)::text, {}::text FROM {}")
            .format(row["step"], furthest, name)
        ).fetchone()
        one = Numbers(name, int(upcoming), row["step"], column, None if held is None else int(held))
        if row["label"] not in found or one.is_overtaken:
            found[row["label"]] = one
    return found


def _listed(before: dict[str, Numbers], after: dict[str, Numbers]) -> dict[str, list]:
    """For the manifest: where each stood at first, and whether a column was ahead of it even in the end."""
    return {name: [one.upcoming, one.column, name in after and after[name].is_overtaken]
            for name, one in before.items()}


def contents(connection: psycopg.Connection) -> list[str]:
    """What makes the database not empty."""
    return _names(connection, "contents")


def _catalogue(connection: psycopg.Connection) -> dict[str, str]:
    return catalog.snapshot(connection) | dict(connection.execute(_SQL["catalogue"]).fetchall())


def last_seal(connection: psycopg.Connection) -> dict[str, Any] | None:
    if connection.execute("SELECT to_regclass('public.audit_seals')").fetchone()[0] is None:
        return None
    return next(iter(_rows(connection, "seal")), None)


# Restoring ------------------------------------------------------------------------------------------------------


def _refuse_role(connection: psycopg.Connection) -> None:
    """Refuse a role that is no superuser, whatever else it may do."""
    heading = _rows(connection, "heading")[0]
    if not heading["is_superuser"]:
        raise Problem(
            f"role {heading['role']} cannot restore: TimescaleDB's own tables are a superuser's to fill",
            hint="restore as a superuser; where there is none, use tidemark move", exit_code=2,
        )


def _refuse_target(url: str, connection: psycopg.Connection, manifest: Manifest) -> None:
    """Refuse a database that holds something, and a server that cannot hold the backup."""
    target, heading = where(connection), _rows(connection, "heading")[0]
    major, installed, edition = connection.info.server_version // 10000, heading["timescaledb"], heading["edition"]
    offered: dict[str, list[str]] = {}
    for extension in _rows(connection, "offered"):
        offered.setdefault(extension["name"], []).append(extension["version"])
    if major < manifest.major:
        raise Problem(
            f"the backup is of PostgreSQL {manifest.major}, {target} is {major}",
            hint=f"restore it on PostgreSQL {manifest.major} or newer", exit_code=2,
        )
    if installed not in (None, manifest.timescaledb) or manifest.timescaledb not in offered["timescaledb"]:
        raise Problem(
            f"the backup is of TimescaleDB {manifest.timescaledb}, "
            f"{target} has {installed or ', '.join(offered['timescaledb'])}",
            hint=f"install TimescaleDB {manifest.timescaledb} there, restore, then ALTER EXTENSION timescaledb UPDATE",
            exit_code=2,
        )
    if edition is None:
        with connect(url) as other:
            other.execute(sql.SQL("LOAD {}").format(f"$libdir/timescaledb-{manifest.timescaledb}"))
            edition = _rows(other, "heading")[0]["edition"]
    if edition != manifest.edition:
        raise Problem(
            f"the backup is of the {manifest.edition} edition, {target} runs the {edition} edition",
            hint="set timescaledb.license in postgresql.conf and restart the server", exit_code=2,
        )
    if absent := [name for name in manifest.extensions if name not in offered]:
        raise Problem(f"{target} has no extension {', '.join(absent)}", hint="install its package there", exit_code=2)
    if held := contents(connection):
        raise Problem(
            f"{target} is not empty", detail=_some(held), hint="restore into a new database", exit_code=2
        )


def _create_roles(
    connection: psycopg.Connection, manifest: Manifest, say: Say, *, superusers: bool = False
) -> None:
    """Create the roles that are missing here, without passwords, which no backup holds; leave others as they are."""
    here = {name for name, in connection.execute("SELECT rolname FROM pg_roles")}
    missing = [role for role in manifest.roles if role["name"] not in here]
    refused = [role["name"] for role in missing if role["superuser"]]
    if refused and not superusers:
        raise Problem(
            f"the backup belongs to role {', '.join(refused)}, a superuser that is not there",
            hint="; ".join(f'CREATE ROLE "{name}" SUPERUSER' for name in refused), exit_code=2,
        )
    with connection.transaction():
        for role in missing:
            options = [flag.upper() if role[flag] else f"NO{flag.upper()}" for flag in ROLE_FLAGS]
            connection.execute(sql.SQL("CREATE ROLE {} {} CONNECTION LIMIT {}").format(
                sql.Identifier(role["name"]), sql.SQL(" ".join(options)), sql.Literal(role["connection_limit"])
            ))
            if role["comment"]:
                connection.execute(
                    sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role["name"]), role["comment"])
                )
            for setting in role["settings"]:
                _set(connection, sql.SQL("ALTER ROLE {}").format(sql.Identifier(role["name"])), setting)
        for role in missing:
            for group in role["member_of"]:
                options = _membership(connection, role, group)
                if options is None:
                    say(f"left out: {role['name']} as a member of {group['role']}, which here would have "
                        "more rights than it has")
                    continue
                connection.execute(sql.SQL("GRANT {} TO {} {}").format(
                    sql.Identifier(group["role"]), sql.Identifier(role["name"]),
                    sql.SQL(f"WITH {', '.join(options)}" if options else ""),
                ))
    if missing:
        say(f"created roles: {', '.join(role['name'] for role in missing)}")
    if logins := [role["name"] for role in missing if role["login"] and role["connection_limit"] != 0]:
        say(f"roles without a password yet: {', '.join(logins)}")


def _membership(connection: psycopg.Connection, role: dict, group: dict) -> list[str] | None:
    """Options of a GRANT that makes the role a member as it was; None where the server can only give more.

    PostgreSQL 16 tells inheritance and SET ROLE apart; before, both came with the membership, the first as far as the
    role inherits at all.
    """
    admin = ["ADMIN OPTION"] if group["admin_option"] else []
    told = {option: group[option] for option in ("inherit_option", "set_option") if option in group}
    if connection.info.server_version >= 160000:
        return [f"{option.removesuffix('_option').upper()} {value}" for option, value in told.items()] + admin
    if not told.get("set_option", True) or (role["inherit"] and not told.get("inherit_option", True)):
        return None
    return admin


def copy_roles(origin: psycopg.Connection, here: psycopg.Connection, say: Say) -> None:
    """Create the roles that the origin's database relies on and that are missing here, but no superusers."""
    roles = [role for role in _rows(origin, "roles") if not role["superuser"]]
    known = {role["name"] for role in roles} | {name for name, in here.execute("SELECT rolname FROM pg_roles")}
    for role in roles:
        role["member_of"] = [group for group in role["member_of"] if group["role"] in known]
    _create_roles(here, Manifest("logical", _now(), roles=roles), say)


def _set(connection: psycopg.Connection, statement: sql.Composed, setting: str) -> None:
    """`ALTER … SET name = value` from `name=value` as the catalogue keeps it."""
    name, value = setting.split("=", 1)
    quoted = name in QUOTED_LISTS and value not in ("", '""')
    connection.execute(sql.SQL("{} SET {} = {}").format(
        statement, sql.Identifier(*name.split(".")), sql.SQL(value) if quoted else sql.Literal(value.strip('"')),
    ))


def _configure_database(connection: psycopg.Connection, manifest: Manifest) -> None:
    """Settings and privileges of the database itself, which pg_dump leaves out."""
    database = sql.Identifier(connection.info.dbname)
    with connection.transaction():
        for row in manifest.database_settings:
            whose = sql.SQL("ALTER DATABASE {}").format(database)
            if row["role"]:
                whose = sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(row["role"]), database)
            _set(connection, whose, row["setting"])
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        for row in manifest.database_privileges:
            connection.execute(sql.SQL("GRANT {} ON DATABASE {} TO {} {}").format(
                sql.SQL(row["privilege"]), database,
                sql.SQL("PUBLIC") if row["grantee"] == "PUBLIC" else sql.Identifier(row["grantee"]),
                sql.SQL("WITH GRANT OPTION" if row["is_grantable"] else ""),
            ))


def _start_physical(scratch: Server, directory: Path, manifest: Manifest, say: Say) -> str:
    """Put the backup in the place of the scratch server's data and start it; returns the database's URL."""
    say("starting a copy")
    owner = scratch.data.stat()
    scratch.stop()
    shutil.rmtree(scratch.data)
    shutil.copytree(directory / BASE, scratch.data, symlinks=True)
    (scratch.data / "postgresql.conf").write_text(f"include '{scratch.directory / 'tidemark.conf'}'\n")
    (scratch.data / "postgresql.auto.conf").write_text("")  # what ALTER SYSTEM set is about the origin's machine
    for path in [scratch.data, *scratch.data.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)
    scratch.data.chmod(0o700)
    scratch.start()
    return scratch.url(manifest.database)


def _broken_record(connection: psycopg.Connection, manifest: Manifest) -> list[str]:
    return record_problems(connection, manifest.seal)


def record_problems(connection: psycopg.Connection, seal: dict[str, Any] | None) -> list[str]:
    """What the audit record's own check finds, against a seal known from elsewhere; nothing where there is no check."""
    if connection.execute("SELECT to_regprocedure('public.verify_audit(bytea)')").fetchone()[0] is None:
        return []
    return [f"audit record: {problem} at {audit_id} ({detail})" for problem, audit_id, detail in connection.execute(
        "SELECT problem, audit_id, detail FROM public.verify_audit(decode(%s, 'hex'))", (seal and seal["root"],),
    )]


def _broken_use(connection: psycopg.Connection) -> list[str]:
    """Whether the database takes rows; leaves none behind, but moves sequences on: for a scratch server."""
    if connection.execute("SELECT to_regclass('public.timeseries_data')").fetchone()[0] is None:
        return []
    for one in sequences(connection).values():
        if one.is_overtaken:  # as at the origin: no fault of the backup
            connection.execute("SELECT setval(%s::regclass, %s)", (one.name.as_string(), one.furthest))
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(resources.files("tidemark").joinpath("backup_probe.sql").read_text())
    except psycopg.Error as error:
        return [f"it does not take rows: {error.diag.message_primary}"]
    return []


def _installation(manifest: Manifest) -> Installation:
    """The installation of this machine that can hold the backup."""
    offered = installations()
    for installation in offered:
        if (installation.major, installation.timescaledb) == (manifest.major, manifest.timescaledb) \
                and manifest.edition in installation.editions:
            return installation
    raise Problem(
        f"this machine has no PostgreSQL {manifest.major} with TimescaleDB {manifest.timescaledb} ({manifest.edition})",
        detail=", ".join(f"PostgreSQL {i.major} with TimescaleDB {i.timescaledb} ({i.editions[-1]})" for i in offered),
        hint="TIDEMARK_PG_BIN names one", exit_code=2,
    )


def _check_files(directory: Path, manifest: Manifest) -> None:
    """Refuse a backup whose files are not those that were written."""
    for name, digest in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise Problem(f"{path} is missing", hint="use another backup")
        if _sha256(path) != digest:
            raise Problem(f"{path} has changed since it was written", hint="use another backup")
    if manifest.kind == "physical":
        _run(_program("pg_verifybackup", manifest.major), "--quiet", str(directory / BASE), hint="use another backup")


def _raise_differences(found: Sequence[str], directory: Path) -> None:
    if found:
        raise Problem(f"the restored database is not what {directory} says", detail=_some(found),
                      hint="do not use it: drop it. It stays in restore mode, in which it takes no rows")


# Programs and files ---------------------------------------------------------------------------------------------


def _server_major(url: str) -> int:
    with connect(url) as connection:
        return connection.info.server_version // 10000


def _program(name: str, major: int) -> Path:
    """PostgreSQL's program of that major version: beside a server, else where clients are installed."""
    with contextlib.suppress(Problem):
        for installation in installations():
            if installation.major == major and (installation.bindir / name).exists():
                return installation.bindir / name
    candidates = [path / name for pattern in GLOBS for path in Path("/").glob(pattern)]
    candidates += [Path(directory, name) for directory in os.get_exec_path()]
    for candidate in candidates:
        if candidate.exists():
            said = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
            if (found := re.search(r"\) (\d+)", said)) and int(found[1]) == major:
                return candidate
    raise Problem(f"there is no {name} of PostgreSQL {major} on this machine",
                  hint=f"install the package postgresql-client-{major}", exit_code=2)


def dump(url: str, major: int, file: Path, *options: str) -> None:
    """Call the pg_dump of that version, which is not below the server's."""
    _run(_program("pg_dump", major), *options, "--format=custom", "--lock-wait-timeout=60s",
         "--dbname", without_password(url)[0], "--file", str(file), url=url)


def dumped(major: int, file: Path, *options: str) -> str:
    """What the pg_restore of that version writes about a dump; nothing is restored."""
    done = subprocess.run([_program("pg_restore", major), *options, str(file)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Problem("pg_restore failed", detail=done.stderr.strip()[:300])
    return done.stdout


def _run(program: Path, *arguments: str, url: str = "", hint: str = "") -> None:
    """Run one of PostgreSQL's programs; a Problem with what it said where it fails."""
    environment = {**child_environment(), "LC_ALL": "C.UTF-8", **(without_password(url)[1] if url else {})}
    done = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment,
                          stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        telling = [line for line in lines if re.search("error|fatal", line, re.I)] or lines
        raise Problem(f"{program.name} failed", detail="; ".join(telling[:3]), hint=hint)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _some(names: Sequence[str], most: int = 10) -> str:
    return "; ".join(names[:most]) + (f"; and {len(names) - most} more" if len(names) > most else "")
