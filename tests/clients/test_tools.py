"""Tools of others at the database: PgBouncer, the JDBC driver, dbt, Drizzle, DuckDB; docs/orm.md says what they want.

None of them belongs to the extra `dev`: each test runs where its tool is installed, and says elsewhere what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from conftest import _database
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.ext.asyncio import create_async_engine

JDBC = Path("/usr/share/java/postgresql.jar")
VOCABULARIES = ["btc_dashboard", "buddy_ai", "cryptovolt", "hyperliquid", "trading_manager"]


def tool(name: str, how: str) -> str:
    """Where that program is, in PATH, beside this Python or where Debian keeps servers."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/sbin"])
    return shutil.which(name, path=path) or pytest.skip(f"{name} is not installed ({how})")


def run(*command, **options) -> str:
    told = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert told.returncode == 0, (told.stdout + told.stderr)[-3000:]
    return told.stdout


@pytest.fixture(scope="module")
def database(server, template):
    """Three days of hourly bars, and logins that reach the server by TCP: an application's, a user's, an owner's."""
    with _database(server, template) as database, database.connect() as connection:
        connection.execute("""
            SET tidemark.ingest_mode = 'backfill';
            INSERT INTO sources (source_id, name, data_type) OVERRIDING SYSTEM VALUE VALUES (71, 'hours', 'ohlcv');
            INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)
            SELECT 71, timestamptz '2024-01-30 00:00+00' + n * interval '1 hour', n + 1, n + 2, n + 1, n + 1.5, 1
              FROM generate_series(0, 71) AS n;
            INSERT INTO buddy_ai.users (id, email, username) VALUES (7, 'seven@example.org', 'seven'),
                (8, 'eight@example.org', 'eight');
            INSERT INTO buddy_ai.positions (user_id, symbol, market, side, entry_price, quantity)
            VALUES (7, 'AAPL', 'STOCK', 'long', 100.5, 2);
            CREATE ROLE tools_desk LOGIN BYPASSRLS PASSWORD 'desk'
                IN ROLE tidemark_app, tidemark_writer, tidemark_admin;
            ALTER ROLE tools_desk SET search_path = cryptovolt, public;
            CREATE ROLE tools_web LOGIN PASSWORD 'web' IN ROLE tidemark_app;
            CREATE ROLE tools_boss LOGIN SUPERUSER PASSWORD 'boss';
            CREATE SCHEMA dbt_desk AUTHORIZATION tools_desk""")
        try:
            yield database
        finally:
            connection.execute("DROP SCHEMA dbt_desk CASCADE; DROP OWNED BY tools_desk, tools_web, tools_boss CASCADE;"
                               " DROP ROLE tools_desk, tools_web, tools_boss")


def place(database, role: str) -> dict[str, str]:
    """Host, port, dbname, user and password of that login."""
    known = conninfo_to_dict(database.url)
    host = str(known["host"])
    return {"host": "127.0.0.1" if host.startswith("/") else host, "port": str(known["port"]),
            "dbname": str(known["dbname"]), "user": f"tools_{role}", "password": role}


def url(database, role: str) -> str:
    where = place(database, role)
    return f"postgresql://{where['user']}:{where['password']}@{where['host']}:{where['port']}/{where['dbname']}"


# PgBouncer ----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def pooler(database) -> Iterator[SimpleNamespace]:
    """PgBouncer in transaction mode before it: database `one` has one session of the server, `two` has two."""
    binary = tool("pgbouncer", "apt-get install pgbouncer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = place(database, "desk")
    folder = Path(tempfile.mkdtemp(prefix="tidemark-pooler-"))
    folder.chmod(0o755)  # it gives up being root before it reads again
    server = f"host={where['host']} port={where['port']} dbname={where['dbname']}"
    (folder / "users").write_text('"tools_desk" "desk"\n"tools_web" "web"\n')
    (folder / "ini").write_text(
        f"[databases]\none = {server} pool_size=1\ntwo = {server} pool_size=2\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {folder / 'users'}\npool_mode = transaction\n")
    user = ["--user=nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([binary, *user, folder / "ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield SimpleNamespace(port=port, version=run(binary, "--version").split("\n")[0])
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def pooled(pooler, pool: str, role: str, **options) -> psycopg.Connection:
    return psycopg.connect(host="127.0.0.1", port=pooler.port, dbname=pool, user=f"tools_{role}",
                           **{"prepare_threshold": None, **options})


# cryptovolt's table of that name has other columns than any of public
BARS = "SELECT count(close_price), pg_backend_pid() FROM market_data WHERE symbol = {} AND timestamp >= {}"
SINCE = dt.datetime(2024, 1, 1)


async def by_psycopg(pooler, times):
    async with await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=pooler.port, dbname="two", user="tools_desk", autocommit=True,
            prepare_threshold=None) as connection:
        for _ in range(times):
            yield await (await connection.execute(BARS.format("%s", "%s"), ["POOL", SINCE])).fetchone()


async def by_asyncpg(pooler, times):
    connection = await asyncpg.connect(host="127.0.0.1", port=pooler.port, database="two", user="tools_desk",
                                       statement_cache_size=0)
    for _ in range(times):
        yield tuple(await connection.fetchrow(BARS.format("$1", "$2"), "POOL", SINCE))
    await connection.close()


async def by_sqlalchemy(pooler, times, url, **arguments):
    engine = create_async_engine(f"{url}://tools_desk@127.0.0.1:{pooler.port}/two", connect_args=arguments)
    for _ in range(times):
        async with engine.begin() as connection:
            row = tuple((await connection.execute(sa.text(BARS.format(":symbol", ":since")),
                                                  {"symbol": "POOL", "since": SINCE})).one())
        yield row
    await engine.dispose()


DRIVERS = {
    "psycopg": by_psycopg,
    "asyncpg": by_asyncpg,
    "sqlalchemy+psycopg": lambda *a: by_sqlalchemy(*a, "postgresql+psycopg", prepare_threshold=None),
    "sqlalchemy+asyncpg": lambda *a: by_sqlalchemy(
        *a, "postgresql+asyncpg", statement_cache_size=0, prepared_statement_cache_size=0,
        prepared_statement_name_func=lambda: f"__asyncpg_{uuid.uuid4()}__"),
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_behind_pgbouncer_a_statement_runs_in_whichever_session_is_free(pooler, driver):
    with pooled(pooler, "two", "desk") as connection:
        connection.execute("INSERT INTO market_data (symbol, timestamp, close_price) VALUES ('POOL', '2024-01-01', 1)"
                           " ON CONFLICT DO NOTHING")

    async def ask():
        """Where each of twelve equal statements ran: six times in one session, then, while that is taken, another."""
        found = []
        async for row in DRIVERS[driver](pooler, 12):
            found.append(row)
            if len(found) == 6:
                other.execute("SELECT 1")  # begins a transaction in the session that was used last
        return found

    with pooled(pooler, "two", "desk") as other:
        found = asyncio.run(ask())
    assert {count for count, _ in found} == {1}
    assert len({pid for _, pid in found}) == 2


def test_behind_pgbouncer_a_user_is_named_for_his_transaction(database, pooler):
    with database.connect() as connection:
        people = [user for (user,) in connection.execute("SELECT user_id::text FROM users ORDER BY username DESC")]
    with pooled(pooler, "one", "web") as first, pooled(pooler, "one", "web") as second:
        def lists(connection, user=None):
            """The process that answered and the lists that it showed."""
            with connection.transaction():
                if user:
                    connection.execute("SELECT set_config('tidemark.user_id', %s, true)", [user])
                return connection.execute("SELECT pg_backend_pid(), array(SELECT name FROM watchlists)").fetchone()

        for connection, user in zip((first, second), people, strict=True):
            with connection.transaction():
                connection.execute("SELECT set_config('tidemark.user_id', %s, true)", [user])
                connection.execute("INSERT INTO watchlists (user_id, name) VALUES (%s, %s)", [user, user])
        pids, shown = zip(*(lists(connection, user) for user in (None, *people, None)
                            for connection in (first, second)), strict=True)
        assert len(set(pids)) == 1  # everybody in one session of the server
        none, [seven, eight] = [], people
        assert list(shown) == [none, none, [seven], [seven], [eight], [eight], none, none]
        with contextlib.suppress(psycopg.Error), first.transaction():  # and where a transaction failed
            first.execute("SELECT set_config('tidemark.user_id', %s, true)", [seven])
            first.execute("SELECT 1 / 0")
        assert lists(second)[1] == none


# The JDBC driver ----------------------------------------------------------------------------------------------------

JAVA = """
import java.sql.*;
import java.time.*;
import java.util.*;

public class Desk {
    public static void main(String[] where) throws Exception {
        try (Connection desk = DriverManager.getConnection(where[0])) {
            DatabaseMetaData about = desk.getMetaData();
            System.out.println("driver " + about.getDriverVersion());
            try (ResultSet r = about.getTables(null, "buddy_ai", "%", new String[] {"VIEW"})) {
                while (r.next()) System.out.println("view " + r.getString("TABLE_NAME"));
            }
            try (ResultSet r = about.getPrimaryKeys(null, "public", "candles")) {
                while (r.next()) System.out.println("key " + r.getString("COLUMN_NAME"));
            }
            desk.setAutoCommit(false);
            try (PreparedStatement p = desk.prepareStatement("INSERT INTO ohlcv_data (symbol, market, timeframe,"
                    + " timestamp, close) VALUES (?, ?, ?, ?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int hour = 0; hour < 20; hour++) {
                    p.setString(1, "JAVA");
                    p.setString(2, "STOCK");
                    p.setString(3, "1h");
                    p.setObject(4, OffsetDateTime.of(2024, 1, 1, hour, 0, 0, 0, ZoneOffset.UTC));
                    p.setDouble(5, hour);
                    p.addBatch();
                }
                System.out.println("inserted " + Arrays.stream(p.executeBatch()).sum());
                Set<Long> ids = new HashSet<>();
                for (ResultSet r = p.getGeneratedKeys(); r.next();) ids.add(r.getLong("id"));
                System.out.println("ids " + ids.size());
            }
            String newest = null;
            try (PreparedStatement p = desk.prepareStatement("SELECT timestamp, close, market FROM ohlcv_data"
                    + " WHERE symbol = ? AND market = ? AND timeframe = ? AND timestamp >= ?"
                    + " ORDER BY timestamp DESC LIMIT ?")) {
                for (int n = 0; n < 8; n++) { // from the fifth time on with a plan on the server
                    p.setString(1, "JAVA");
                    p.setString(2, "STOCK");
                    p.setString(3, "1h");
                    p.setTimestamp(4, Timestamp.from(Instant.parse("2024-01-01T00:00:00Z")));
                    p.setInt(5, 1);
                    ResultSet r = p.executeQuery();
                    r.next();
                    newest = r.getObject(1, OffsetDateTime.class).toInstant() + " " + r.getDouble(2) + r.getString(3);
                }
            }
            System.out.println("newest " + newest);
            try (PreparedStatement p = desk.prepareStatement("UPDATE public.sources SET status = ? WHERE data_type = ?"
                    + " AND status = ?")) { // enumerations of public as strings
                p.setString(1, "paused");
                p.setString(2, "ohlcv");
                p.setString(3, "active");
                System.out.println("paused " + p.executeUpdate());
            }
            desk.rollback();
        }
    }
}
"""


def test_jdbc(database, tmp_path):
    how = "apt-get install default-jdk-headless libpostgresql-jdbc-java"
    java = tool("java", how)
    if not JDBC.exists():
        pytest.skip(f"the JDBC driver is not installed ({how})")
    if "jdk.compiler" not in run(java, "--list-modules"):
        pytest.skip(f"java is without its compiler ({how})")
    (tmp_path / "Desk.java").write_text(JAVA)
    where = place(database, "desk")
    told = run(java, "-cp", JDBC, tmp_path / "Desk.java",
               f"jdbc:postgresql://{where['host']}:{where['port']}/{where['dbname']}?user={where['user']}"
               f"&password={where['password']}&currentSchema=buddy_ai,public").splitlines()
    assert told[0].startswith("driver ")
    assert told[1:] == [
        *(f"view {name}" for name in ("alerts", "market_data", "ohlcv_data", "positions", "predictions", "users",
                                      "watchlists")),
        "key asset_id", "key interval", "key ts", "inserted 20", "ids 20", "newest 2024-01-01T19:00:00Z 19.0STOCK",
        "paused 1"]


# dbt ----------------------------------------------------------------------------------------------------------------

DBT = {
    "dbt_project.yml": "{name: desk, version: '1.0', profile: desk, model-paths: [models]}",
    "models/sources.yml": """{
        sources: [{name: tidemark, schema: public, tables: [
            {name: daily_ohlcv, columns: [{name: day, data_tests: [not_null]}]}]}],
        models: [{name: months, columns: [{name: month, data_tests: [not_null]}]}]}""",
    "models/months.sql": """
        {{ config(materialized='table') }}
        SELECT source_id, date_trunc('month', day, 'UTC') AS month, max(high) AS high, sum(samples) AS samples
          FROM {{ source('tidemark', 'daily_ohlcv') }} GROUP BY 1, 2""",
    "models/changes.sql": """
        {{ config(materialized='view') }}
        SELECT source_id, day, close / lag(close) OVER (PARTITION BY source_id ORDER BY day) - 1 AS change
          FROM {{ source('tidemark', 'daily_ohlcv') }}""",
    "models/days.sql": """
        {{ config(materialized='incremental', unique_key=['source_id', 'day']) }}
        SELECT source_id, day, close FROM {{ source('tidemark', 'daily_ohlcv') }}
        {% if is_incremental() %} WHERE day >= (SELECT max(day) FROM {{ this }}) {% endif %}""",
}


def test_dbt(database, tmp_path):
    dbt = tool("dbt", "pip install 'dbt-core<1.12' dbt-postgres")
    for name, text in DBT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    where = place(database, "desk")
    (tmp_path / "profiles.yml").write_text(json.dumps({"desk": {"target": "t", "outputs": {"t": {
        "type": "postgres", **where, "port": int(where["port"]), "schema": "dbt_desk", "threads": 2}}}}))
    options = {"cwd": tmp_path, "env": {**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}}
    assert "PASS=5 WARN=0 ERROR=0" in run(dbt, "build", "--profiles-dir", tmp_path, **options)
    with database.connect() as connection:
        connection.execute("UPDATE timeseries_data SET close = 70 WHERE source_id = 71"
                           " AND timestamp = '2024-02-01 23:00+00'")
        run(dbt, "run", "--select", "days", "--profiles-dir", tmp_path, **options)
        assert connection.execute("SELECT month::text, high, samples FROM dbt_desk.months ORDER BY 1").fetchall() == [
            ("2024-01-01 00:00:00+00", 49, 48), ("2024-02-01 00:00:00+00", 73, 24)]
        assert connection.execute("SELECT close FROM dbt_desk.days ORDER BY day").fetchall() == [
            (24.5,), (48.5,), (70,)]
        assert connection.execute("SELECT round(change::numeric, 3)::text FROM dbt_desk.changes ORDER BY day"
                                  ).fetchall() == [(None,), ("0.980",), ("0.443",)]


# Drizzle ------------------------------------------------------------------------------------------------------------

def test_drizzle_introspects_tables_keys_enumerations_and_views(database, tmp_path):
    """As the owner would: to others information_schema shows no keys."""
    drizzle = tool("drizzle-kit", "npm install --global drizzle-kit drizzle-orm pg")
    (tmp_path / "drizzle.config.json").write_text(json.dumps({
        "dialect": "postgresql", "out": "pulled", "schemaFilter": ["public", *VOCABULARIES],
        "dbCredentials": {"url": url(database, "boss")}}))
    run(drizzle, "pull", cwd=tmp_path)
    pulled = (tmp_path / "pulled" / "schema.ts").read_text()
    with database.connect() as connection:
        relations = connection.execute("""
            SELECT c.relnamespace::regnamespace::text, c.relname, CASE c.relkind WHEN 'r' THEN 'table' ELSE 'view' END
              FROM pg_class AS c WHERE c.relnamespace = ANY (%s::regnamespace[]) AND c.relkind IN ('r', 'v')
             ORDER BY 1, 2""", [["public", *VOCABULARIES]]).fetchall()
        labels = dict(connection.execute("""
            SELECT t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
              FROM pg_enum AS e JOIN pg_type AS t ON t.oid = e.enumtypid
             WHERE t.typnamespace = 'public'::regnamespace GROUP BY 1"""))
        [keys] = connection.execute("SELECT count(*) FROM pg_constraint WHERE contype = 'p'"
                                    " AND connamespace = 'public'::regnamespace").fetchone()
    assert len(relations) > 90 and len(labels) > 30 and keys > 35
    schemas = {"pg": "public", **{name.split("_")[0] + "".join(w.title() for w in name.split("_")[1:]) + ".": name
                                  for name in VOCABULARIES}}
    found = re.findall(r'= (pg|\w+\.)(table|view)\("(\w+)"', pulled, re.IGNORECASE)
    assert sorted((schemas[schema], name, kind.lower()) for schema, kind, name in found) == relations
    assert {name: re.findall("'([^']*)'", values) for name, values in
            re.findall(r'= pgEnum\("(\w+)", \[(.*)\]\)', pulled)} == labels
    assert len(re.findall(r"\bprimaryKey\(\{|\.primaryKey\(", pulled)) == keys
    assert 'primaryKey({ columns: [table.assetId, table.interval, table.ts], name: "candles_pkey"})' in pulled
    assert set(re.findall(r"failed to parse database type '([^']+)'", pulled)) <= {
        "xid8", "bytea", "int8multirange", "regclass", "oid"}


# DuckDB -------------------------------------------------------------------------------------------------------------

def test_duckdb_reads_tables_views_and_aggregates(database):
    """Its reader is an extension that it downloads; where it is not there, nothing is claimed."""
    import duckdb

    connection = duckdb.connect()
    try:
        connection.execute("LOAD postgres")
    except duckdb.Error:
        pytest.skip("DuckDB's extension postgres is not installed (INSTALL postgres, or the package"
                    " duckdb-extension-postgres-scanner)")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{make_conninfo(**place(database, 'desk'))}' AS desk (TYPE postgres, READ_ONLY)")

    def ask(statement):
        return connection.execute(statement).fetchall()

    assert ask("SELECT username FROM desk.buddy_ai.users WHERE id = 7") == [("seven",)]
    assert ask("SELECT symbol, market, pnl FROM desk.buddy_ai.positions") == [("AAPL", "STOCK", None)]
    # A hypertable is read whole, however many chunks it has, and a period of it is asked for as such.
    assert ask("SELECT count(*), count(DISTINCT timestamp), sum(volume) FROM desk.public.timeseries_data") == [
        (72, 72, 72)]
    assert ask("SELECT count(*) FROM desk.public.timeseries_data WHERE timestamp >= '2024-02-01'::timestamptz") == [
        (24,)]
    assert ask("SELECT day::text, open, close, samples FROM desk.public.daily_ohlcv ORDER BY day LIMIT 2") == [
        ("2024-01-30 00:00:00+00", 1, 24.5, 24), ("2024-01-31 00:00:00+00", 25, 48.5, 24)]
    assert ask("SELECT name FROM desk.public.sources WHERE status = 'active' AND data_type = 'ohlcv'") == [("hours",)]
    for schema in ("public", *VOCABULARIES):
        for (name,) in ask(f"SELECT table_name FROM duckdb_tables() WHERE database_name = 'desk' AND schema_name ="
                           f" '{schema}' AND table_name NOT LIKE 'pg_stat%'"):
            connection.execute(f'CREATE OR REPLACE TEMP TABLE seen AS SELECT * FROM desk."{schema}"."{name}" LIMIT 3')
