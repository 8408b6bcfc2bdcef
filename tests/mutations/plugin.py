"""pytest plugin: breaks the migrated template with the SQL in TIDEMARK_MUTATION."""

from __future__ import annotations

import os

import psycopg
import pytest

from runner import migrations


def pytest_configure() -> None:
    """Every database that is migrated from here on is broken."""
    migrate = migrations.migrate
    mutation = os.environ["TIDEMARK_MUTATION"]

    def broken(connection: psycopg.Connection, *arguments, **options):
        done = migrate(connection, *arguments, **options)
        try:
            with connection.transaction():
                connection.execute("SET LOCAL search_path = public; SET LOCAL tidemark.record_maintenance = 'on'")
                connection.execute(mutation)
        except psycopg.Error as failure:
            pytest.exit(f"the mutation cannot be applied: {failure}", returncode=3)
        return done

    migrations.migrate = broken
