"""One look at a database in use: what is wrong or will be soon, and what to do about it."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tidemark import backup, calendars, migrations
from tidemark.schema_files import schema_files
from tidemark.sql_files import named_statements

SEVERITIES = ("ok", "info", "warning", "critical")
# Above these it is worth a word. Sizes in bytes, shares from 0 to 1.
LIMITS: dict[str, Any] = {
    "long_transaction": "5 minutes",
    "idle_in_transaction": "1 minute",
    "forgotten_transaction": "1 hour",
    "lock_wait": "30 seconds",
    "share_of_connections": 0.8,
    "share_of_locks": 0.5,
    "share_of_sequence": 0.8,
    "spare_chunks": 100,
    "data_per_buffer": 8,  # how often shared_buffers goes into the database
    "dead_rows": 10_000,
    "dead_share": 0.2,
    "old_transactions": 800_000_000,  # the end is at 2,147 million
    "replication_lag": "1 minute",
    "retained_wal": 2**30,
    "scans": 50,
    "rows_of_a_scan": 100_000,
    "index_size": 10 * 2**20,
    "slow_ms": 1000,
    "slow_calls": 5,
    "late_job": "1 hour",
    "stale_aggregate": "1 day",
    "unsealed": "1 day",
    "free_share": 0.1,  # of a file system; half of it is critical
}
# A sick database must not keep us waiting; names are printed with their schema.
_SESSION = {"statement_timeout": "30s", "lock_timeout": "3s", "search_path": "pg_catalog"}
_SQL = named_statements("doctor.sql")


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do; `advice` is empty where nothing needs doing."""

    severity: str
    check: str
    found: str
    advice: str = ""


def examine(connection: psycopg.Connection, ignore: Iterable[str] = ()) -> list[Finding]:
    """Run every check but those in `ignore`; at least one finding of each, the worst first. Only reads.

    Works for any role: what it may not see is a finding of its own.
    """
    skipped = set(ignore)
    findings = [
        finding for name in [*_SQL, "migrations"] if name not in skipped for finding in _check(connection, name)
    ]
    return sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity))


def exit_code(findings: Iterable[Finding]) -> int:
    """2 where something is critical, 1 where there is a warning, else 0."""
    return max([0, *(SEVERITIES.index(finding.severity) - 1 for finding in findings)])


def _check(connection: psycopg.Connection, name: str) -> list[Finding]:
    try:
        with connection.transaction():
            told = {"shipped_indexes": ",".join(_shipped_indexes()), **LIMITS,
                    "calendar_corrections": json.dumps(calendars.corrections())}
            for setting, value in [*_SESSION.items(), *((f"doctor.{name}", value) for name, value in told.items())]:
                connection.execute("SELECT set_config(%s, %s, true)", (setting, str(value)))
            if name == "migrations":
                found = list(_migrations(connection))
            elif name == "disk":
                found = list(_disk(connection))
            elif _is_missing(connection, name):
                return []
            else:
                found = [Finding(row["severity"], name, row["found"], row["advice"])
                         for row in _rows(connection, name)]
                if name == "sequences":
                    found += _overtaken(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        return [Finding("info", name, f"not checked: {error.diag.message_primary}",
                        f"GRANT pg_monitor TO {connection.info.user}, or ask as the owner")]
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        return [Finding("info", name, f"not checked: {error.diag.message_primary}", "")]
    except psycopg.Error as error:
        if connection.broken:
            raise
        return [Finding("warning", name, f"not checked: {error.diag.message_primary} (SQLSTATE {error.sqlstate})",
                        "look at the findings of blocked and locks, and try again")]
    return found or [Finding("ok", name, "nothing found")]


@functools.cache
def _shipped_indexes() -> list[str]:
    """Names of the indexes that `schema/` creates and `verify` therefore wants."""
    return [name for file in schema_files()
            for name in re.findall(r"^CREATE (?:UNIQUE )?INDEX (\w+)", file.text, re.M | re.I)]


def _rows(connection: psycopg.Connection, name: str) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[name]).fetchall()


def _is_missing(connection: psycopg.Connection, name: str) -> bool:
    """Whether the check is about something that this database does not have (`-- needs: relation`)."""
    needed = re.search(r"^-- needs: (\S+)$", _SQL[name], re.M)
    return needed is not None and connection.execute("SELECT to_regclass(%s) IS NULL", (needed[1],)).fetchone()[0]


def _migrations(connection: psycopg.Connection) -> Iterator[Finding]:
    plan = migrations.make_plan(connection)
    for refusal in plan.refusals:
        yield Finding("critical", "migrations", f"{refusal.message} {refusal.detail}".strip(), refusal.hint)
    if behind := [name for name, state in plan.states().items() if state != "applied"]:
        names = ", ".join(behind[:5]) + (f" and {len(behind) - 5} more" if len(behind) > 5 else "")
        yield Finding("warning", "migrations", f"not applied as they are in schema/: {names}", "tidemark migrate")


def _overtaken(connection: psycopg.Connection) -> Iterator[Finding]:
    """Rows that brought their own ids, ahead of the sequence that will give the same ones."""
    for label, numbers in backup.sequences(connection).items():
        if numbers.is_overtaken:
            yield Finding(
                "warning", "sequences", f"sequence {label} is at {numbers.upcoming}, but {numbers.column} holds "
                f"{numbers.furthest} already: an insert will fail or repeat it",
                sql.SQL("SELECT setval({}, {})").format(label, numbers.furthest).as_string(),
            )


def _disk(connection: psycopg.Connection) -> Iterator[Finding]:
    """Free space, where the server's directories are this machine's; else the size of the database alone."""
    facts = _rows(connection, "disk")[0]
    size = f"the database takes {facts['size']}"
    data = facts["data_directory"] and Path(facts["data_directory"])
    if not data or not _is_local(connection, data):
        yield Finding("info", "disk", f"{size}; free space cannot be seen from here", "watch it on the server")
        return
    places = [data, data / "pg_wal", *map(Path, facts["tablespaces"])]
    seen = set()
    for place in places:
        try:
            device, space = place.stat().st_dev, os.statvfs(place)
        except OSError:
            continue  # not ours to look into
        if device in seen:
            continue
        seen.add(device)
        free, share = space.f_bavail * space.f_frsize, space.f_bavail / max(space.f_blocks, 1)
        severity = "ok" if share >= LIMITS["free_share"] else \
            "warning" if share >= LIMITS["free_share"] / 2 else "critical"
        yield Finding(severity, "disk", f"{size}; {free / 2**30:.1f} GiB ({share:.0%}) are free where {place} lies",
                      "" if severity == "ok" else "free space, or apply retention: without any the server stops")


def _is_local(connection: psycopg.Connection, data: Path) -> bool:
    """Whether the data directory of that path on this machine is that server's: its process has it open."""
    if not connection.info.host.startswith(("/", "@")):
        return False  # a port may lead into a container with paths of its own
    try:
        return (data / "postmaster.pid").exists()
    except OSError:
        return False
