"""pytest plugin: breaks the runner, and every database that it migrates, as the mutation in TIDEMARK_MUTATION says."""

from __future__ import annotations

import os
import sys

import psycopg
import pytest

from tidemark import migrations

from . import Mutation, collect

CANNOT_BE_APPLIED = 3


def _break_migrated(mutation: Mutation) -> None:
    migrate = migrations.migrate

    def broken(connection: psycopg.Connection, *arguments, **options):
        done = migrate(connection, *arguments, **options)
        try:
            with connection.transaction():
                mutation.break_database(connection)
        except psycopg.Error as failure:
            pytest.exit(f"the mutation cannot be applied: {failure}", returncode=CANNOT_BE_APPLIED)
        return done

    migrations.migrate = broken


# When the plugin is imported, which is before any conftest.py takes functions from the runner.
(_mutation,) = (one for one in collect() if one.title == os.environ["TIDEMARK_MUTATION"])
if _mutation.patch:
    try:
        _mutation.patch()
    except Exception as failure:
        print(f"the mutation cannot be applied: {failure!r}")
        sys.exit(CANNOT_BE_APPLIED)
if _mutation.sql:
    _break_migrated(_mutation)
