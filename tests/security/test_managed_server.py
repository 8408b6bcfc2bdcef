"""A managed server: nobody is a superuser, the extensions are there, and who migrates may create roles."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from tidemark import catalog, migrations
from tidemark.database import connect
from tidemark.installation import find_installation
from tidemark.server import throwaway

ROLES = [f"tidemark_{name}" for name in ("admin", "app", "owner", "reader", "record", "writer")]


@pytest.fixture(scope="module")
def managed(edition):
    """A server of its own, because roles belong to a server and those of Tidemark must not be there yet."""
    with throwaway(find_installation(edition), edition) as server:
        with connect(server.url("postgres")) as connection:
            connection.execute("CREATE ROLE cloud LOGIN CREATEDB CREATEROLE PASSWORD 'cloud'")
        yield server


def roles(connection: psycopg.Connection) -> list[str]:
    found = connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^tidemark' ORDER BY 1")
    return [name for (name,) in found]


def migrate_by_cloud(managed, name: str, *, grants: str = "", settings: str = "") -> str:
    """Migrate, change logic, verify, load and roll back as that role; returns who owned the objects meanwhile."""
    with connect(managed.url("postgres")) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER cloud").format(sql.Identifier(name)))
    with connect(managed.url(name)) as connection:
        connection.execute("CREATE EXTENSION timescaledb")
        if grants:
            connection.execute(grants)
    url = f"postgresql://cloud:cloud@127.0.0.1:{managed.port}/{name}"
    with connect(url, options=settings) as connection:
        migrations.migrate(connection)
        assert migrations.make_plan(connection).up_to_date
        assert roles(connection) == ROLES
        assert catalog.differences(connection) == []
        connection.execute("DELETE FROM _tidemark_migrations.applied_files WHERE file ~ '^[5-9]\\d\\d_'")
        assert migrations.migrate(connection).logic  # it can be edited afterwards
        connection.execute("INSERT INTO sources (name, data_type) VALUES ('s', 'scalar')")
        connection.execute(
            "INSERT INTO timeseries_data (source_id, timestamp, value) SELECT source_id, '2024-01-02', 1 FROM sources"
        )
        assert connection.execute("SELECT quality_score IS NOT NULL FROM timeseries_data").fetchone() == (True,)
        owners = connection.execute(
            "SELECT array_agg(DISTINCT tableowner ORDER BY tableowner) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()[0]
        migrations.rollback(connection, None)
        assert roles(connection) == []
    return " ".join(owners)


def test_owner_with_createrole_migrates_and_keeps_what_is_his(managed):
    """From PostgreSQL 16 on he is a member of the roles that he makes, but may neither be them nor use their rights."""
    assert migrate_by_cloud(managed, "plain") == "cloud"


@pytest.mark.parametrize("granted", ["set", "inherit", "set, inherit"])
def test_membership_alone_hands_nothing_over(managed, granted):
    """The chunks could not follow: TimescaleDB's schemas belong to who made the extension."""
    if managed.installation.major < 16:
        pytest.skip("createrole_self_grant came with PostgreSQL 16")
    settings = f"-c createrole_self_grant={granted.replace(' ', '')}"
    assert migrate_by_cloud(managed, f"granted_{len(granted)}", settings=settings) == "cloud"


def test_membership_hands_everything_over_where_chunks_can_follow(managed):
    if managed.installation.major < 16:
        pytest.skip("createrole_self_grant came with PostgreSQL 16")
    owners = migrate_by_cloud(
        managed, "handed_over", grants="GRANT CREATE ON SCHEMA _timescaledb_internal TO PUBLIC",
        settings="-c createrole_self_grant=set,inherit",
    )
    assert owners == "tidemark_owner tidemark_record"
