"""One throw-away server per edition, one migrated template in it, and a database for each test.

`tx` is a connection whose transaction is always rolled back: for most tests. `db` is a database of the test's own,
for tests that commit, use several connections or run what no transaction may hold. `empty` is one without a schema.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor

from tidemark import config, migrations
from tidemark.database import normalise
from tidemark.installation import find_installation
from tidemark.server import throwaway

ABSENT = "TimescaleDB Community is not on this machine"
_serial = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database-url", help="run on this server (a superuser's URL) instead of throw-away ones")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background deaf to Ctrl-C, and programs hand that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "community: needs the Community edition of TimescaleDB")
    url = config.getoption("--database-url")
    if url:
        with psycopg.connect(normalise(url)) as connection:
            licence = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()[0]
        config.editions = ("community" if licence == "timescale" else "apache",)
    else:
        config.editions = find_installation().editions


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """On a server that is given, tests would be in each other's way: its roles and settings are everybody's."""
    return 1 if config.getoption("--database-url") else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "edition" not in metafunc.fixturenames:
        return
    editions = [pytest.param(edition) for edition in metafunc.config.editions]
    if metafunc.definition.get_closest_marker("community"):
        editions = [
            pytest.param("community", marks=[] if "community" in metafunc.config.editions
                         else pytest.mark.skip(reason=ABSENT))
        ]
    metafunc.parametrize("edition", editions, indirect=True, scope="session")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = itertools.chain.from_iterable(terminalreporter.stats.values())
    if "community" not in config.editions:
        names = {r.nodeid for r in reports if getattr(r, "nodeid", "") and ("[apache" in r.nodeid or "[community" in
                                                                           r.nodeid)}
        terminalreporter.write_line(f"{ABSENT}: {len(names)} tests could not run on it", yellow=True)


@pytest.fixture(scope="session")
def edition(request: pytest.FixtureRequest) -> str:
    """The edition the test runs on: apache or community."""
    return request.param


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, edition: str) -> Iterator[SimpleNamespace]:
    """Where a server of that edition is reached."""
    with contextlib.ExitStack() as stack:
        url = request.config.getoption("--database-url")
        if not url:
            url = stack.enter_context(throwaway(find_installation(edition), edition)).url("postgres")
        parameters = conninfo_to_dict(normalise(url))
        yield SimpleNamespace(
            host=parameters["host"], port=parameters.get("port", 5432), user=parameters["user"],
            password=parameters.get("password"), maintenance_dbname=parameters.get("dbname", "postgres"),
        )


class _Janitor(DatabaseJanitor):
    """pytest-postgresql's keeper of one database: made on entry, dropped on exit whoever is connected."""

    def _build_create_database_sql(self) -> psycopg.sql.Composed:
        # Copying files instead of logging every page makes a clone in a quarter of the time.
        return super()._build_create_database_sql() + psycopg.sql.SQL(" STRATEGY file_copy")


def _janitor(server: SimpleNamespace, name: str, **options: Any) -> DatabaseJanitor:
    return _Janitor(
        user=server.user, host=server.host, port=server.port, password=server.password, dbname=name,
        maintenance_dbname=server.maintenance_dbname, connection_timeout=10, **options,
    )


def _migrate(host: str, port: str, user: str, dbname: str, password: str | None, **_: Any) -> None:
    conninfo = make_conninfo(host=host, port=port, user=user, dbname=dbname, password=password)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        migrations.migrate(connection)


@pytest.fixture(scope="session")
def template(server: SimpleNamespace) -> Iterator[str]:
    """Name of the migrated database that the tests' own are cloned from."""
    with _janitor(server, "tidemark_test_template", as_template=True) as janitor:
        janitor.load(_migrate)
        yield janitor.dbname


@dataclass(frozen=True)
class Database:
    """A database of the test's own; `url` is a libpq connection string."""

    url: str

    def connect(self, **parameters: Any) -> psycopg.Connection:
        return psycopg.connect(self.url, **{"autocommit": True, **parameters})


@contextlib.contextmanager
def _database(server: SimpleNamespace, template: str | None) -> Iterator[Database]:
    name = f"tidemark_test_{next(_serial)}"
    with _janitor(server, name, template_dbname=template):
        yield Database(make_conninfo(
            host=server.host, port=server.port, user=server.user, password=server.password, dbname=name
        ))


@pytest.fixture
def db(server: SimpleNamespace, template: str) -> Iterator[Database]:
    """A migrated database of the test's own."""
    with _database(server, template) as database:
        yield database


@pytest.fixture
def empty(server: SimpleNamespace) -> Iterator[Database]:
    """A database of the test's own with nothing in it."""
    with _database(server, None) as database:
        yield database


@pytest.fixture(scope="session")
def _shared(server: SimpleNamespace, template: str) -> Iterator[Database]:
    with _database(server, template) as database:
        yield database


@pytest.fixture
def tx(_shared: Database) -> Iterator[psycopg.Connection]:
    """A connection to a migrated database; what the test does is rolled back."""
    with _shared.connect(autocommit=False) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of schema/ and migrations/ that a test may change."""
    for name, original in {"SCHEMA": config.SCHEMA, "MIGRATIONS": config.MIGRATIONS}.items():
        shutil.copytree(original, tmp_path / original.name, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(config, name, tmp_path / original.name)
    return tmp_path


Add = Callable[..., Any]


@pytest.fixture
def add(tx: psycopg.Connection) -> Add:
    """`add(table, **columns)` inserts a row and returns its first column; a test names only what matters to it."""
    return adder(tx)


def adder(connection: psycopg.Connection) -> Add:
    """The same for a connection of the test's own."""
    defaults: dict[str, Callable[[], dict[str, Any]]] = {
        "assets": lambda: {"symbol": f"S{next(_serial)}", "asset_type": "stock"},
        "sources": lambda: {"name": f"source_{next(_serial)}", "data_type": "ohlcv"},
        "users": lambda: {"username": f"u{next(_serial)}", "email": f"u{next(_serial)}@example.org"},
    }

    def add(table: str, **columns: Any) -> Any:
        row = {**defaults.get(table, dict)(), **columns}
        statement = psycopg.sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
            psycopg.sql.Identifier(table), psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, row)),
            psycopg.sql.SQL(", ").join(psycopg.sql.Placeholder() * len(row)),
        )
        return connection.execute(statement, list(row.values())).fetchone()[0]

    return add


def fill(connection: psycopg.Connection) -> None:
    """A row in every table of public, with every link set: what a database in use may look like."""
    columns = connection.execute("""
        SELECT c.relname, a.attname, a.atttypid::regtype::text,
               (SELECT format('(SELECT %I FROM %s LIMIT 1)', r.attname, k.confrelid::regclass)
                  FROM pg_constraint AS k
                  JOIN pg_attribute AS r ON r.attrelid = k.confrelid AND r.attnum = k.confkey[1]
                 WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conkey = ARRAY[a.attnum] LIMIT 1),
               (SELECT quote_literal(e.enumlabel) FROM pg_enum AS e WHERE e.enumtypid = a.atttypid
                 ORDER BY e.enumsortorder LIMIT 1),
               (a.attnotnull OR EXISTS (SELECT FROM pg_constraint AS k WHERE k.contype = 'f' AND k.confrelid = c.oid
                                         AND k.confkey = ARRAY[a.attnum]))
               AND NOT a.atthasdef AND a.attidentity = ''
          FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
           AND a.attgenerated = ''
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
    """).fetchall()
    by_type = {"uuid": "gen_random_uuid()", "jsonb": "'{}'", "bytea": "'\\x00'", "xid8": "'1'", "boolean": "true",
               "tstzrange": "'[2024-01-01, 2024-01-02)'", "regclass": "'assets'"}
    special = {
        "users.email": "'a@example.org'", "forecasts.target_ts": "now() + interval '1 day'",
        "lineage.upstream_ref": "'2'", "backtest_configs.asset_universe": "ARRAY[gen_random_uuid()]",
        "backtest_configs.period_end": "'2024-01-03'", "backtest_results.period_end": "'2024-01-03'",
        "audit_seals.audit_ids": "'{[1,2)}'", "audit_seals.root": "sha256('')", "audit_seals.digests": "sha256('')",
        "trades.is_backtest": "true", "corporate_actions.ratio": "2",
    }
    rows: dict[str, dict[str, str]] = {}
    for table, name, kind, link, label, is_needed in columns:
        rows.setdefault(table, {})
        if link or is_needed or f"{table}.{name}" in special:
            rows[table][name] = special.get(f"{table}.{name}") or link or label or by_type.get(kind) or (
                "'2024-01-02'" if re.match("date|timestamp", kind) else "'{}'" if kind.endswith("[]") else
                "'1 day'" if kind == "interval" else "'1'")
    connection.execute("SET session_replication_role = replica; SET tidemark.reason = 'a test'")
    while rows:
        waiting = {}
        for table, values in rows.items():
            linked = " AND ".join(f"{value} IS NOT NULL" for value in values.values() if value.startswith("(SELECT"))
            names = f"({', '.join(values)}) SELECT {', '.join(values.values())} WHERE {linked or 'true'}"
            if not connection.execute(f"INSERT INTO {table} {names if values else 'DEFAULT VALUES'}").rowcount:
                waiting[table] = values  # for what it refers to
        assert len(waiting) < len(rows), waiting
        rows = waiting
    connection.execute("RESET session_replication_role; RESET tidemark.reason")
