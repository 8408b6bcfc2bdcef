"""yoyo on a connection that is open already and holds the runner's lock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.exceptions import BadMigration, MigrationConflict
from yoyo.migrations import default_migration_table

__all__ = ["UNUSABLE", "Backend", "read_migrations"]

UNUSABLE = (BadMigration, MigrationConflict)  # what reading or loading a file may end in


class Backend(PostgresqlPsycopgBackend):
    """yoyo's backend without what it does to connections and locks."""

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
