"""One throw-away server per edition, one migrated template in it, and a database for each test.

`tx` is a connection whose transaction is always rolled back: for most tests. `db` is a database of the test's own,
for tests that commit, use several connections or run what no transaction may hold. `empty` is one without a schema.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql.janitor import DatabaseJanitor

from tidemark import migrations
from tidemark.database import normalise
from tidemark.installation import find_installation
from tidemark.server import throwaway

ABSENT = "TimescaleDB Community is not on this machine"
_serial = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database-url", help="run on this server (a superuser's URL) instead of throw-away ones")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "community: needs the Community edition of TimescaleDB")
    url = config.getoption("--database-url")
    if url:
        with psycopg.connect(normalise(url)) as connection:
            licence = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()[0]
        config.editions = ("community" if licence == "timescale" else "apache",)
    else:
        config.editions = find_installation().editions


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
