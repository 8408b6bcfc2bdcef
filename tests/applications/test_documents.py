"""Every SQL statement of the applications' documents, as written, where the documents stand beside the checkout.

Only the search_path is the application's. A placeholder is filled in, a CREATE TABLE and a list of columns is compared
with what stands there, and what is about the server rather than the schema is left out, each with its reason.
"""

from __future__ import annotations

import re

import pytest
from conftest import _database
from psycopg import errors

from applications import documents

NOT_RUN = {  # pattern -> why
    r"^CREATE DATABASE|^\\c |ON DATABASE": "another database: this one is already chosen by its URL",
    r"^CREATE USER|TO trading_user": "accounts of the server are its administrator's affair, not the schema's",
    r"^\\dt": "a command of psql, not SQL",
    r"^CREATE EXTENSION timescaledb": "for a database without the extension: here Tidemark has created it",
    r"^DROP SCHEMA public|^CREATE SCHEMA public": "destroys the database for all five: tidemark reset does that,"
        " asking first",
}
COMMUNITY = r"timescaledb\.compress|(compress_chunk|add_compression_policy|(add|remove)_retention_policy)\("
TYPES = {  # as declared -> as information_schema has it
    "serial": {"integer", "bigint"}, "integer": {"integer", "bigint"}, "varchar": {"text"}, "text": {"text"},
    "boolean": {"boolean"}, "timestamp": {"timestamp without time zone"}, "jsonb": {"jsonb"},
    "float": {"double precision"}, "string": {"text"}, "json": {"jsonb"}, "array": {"ARRAY"},
    "datetime": {"timestamp with time zone"},
}
ANSWERS = {  # rows that a statement must give, in the database of the fixture below
    ("buddy_ai", 133): 1, ("cryptovolt", 301): 1, ("trading_manager", 169): 5, ("trading_manager", 174): 1,
    ("trading_manager", 223): 30, ("trading_manager", 234): 1, ("trading_manager", 248): 2, ("trading_manager", 264): 1,
    ("trading_manager", 288): 1, ("trading_manager", 306): 1, ("trading_manager", 470): 1, ("trading_manager", 477): 1,
    ("btc_dashboard", 226): 8, ("btc_dashboard", 238): 1, ("btc_dashboard", 241): 1, ("btc_dashboard", 346): 1,
}

if documents.documents_are_here():
    STATEMENTS = [
        pytest.param(s, marks=pytest.mark.statement(s.application, s.line, s.title), id=f"{s.application}-{s.line}")
        for application in documents.FILES for s in documents.statements(application)
    ]
else:
    STATEMENTS = [pytest.param(None, marks=pytest.mark.skip(reason="the documents are not beside this checkout"))]


@pytest.fixture(scope="module")
def filled(server, template):
    """A database with a little of everything, sources numbered 1 and 2, first chunk of the first hypertable filled."""
    with _database(server, template) as database, database.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.execute("""
            INSERT INTO sources (source_id, name, data_type) VALUES (1, 'btc_price', 'ohlcv'), (2, 'hash_rate',
                'scalar');
            INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close)
            VALUES (1, '2024-03-01', 1, 2, 0.5, 1.5);
            INSERT INTO timeseries_data (source_id, timestamp, value) VALUES (2, now() - interval '2 days', 7);
            INSERT INTO users (username, email) VALUES ('ann', 'ann@example.org');
            INSERT INTO assets (asset_id, symbol, asset_type)
            VALUES ('00000000-0000-4000-8000-000000000001', 'BTCUSDT', 'crypto');
            INSERT INTO candles (asset_id, interval, ts, open, high, low, close)
            SELECT a.asset_id, i.interval::candle_interval, t.ts, 1, 2, 0.5, 1.5
              FROM assets AS a, (VALUES ('1d'), ('1h')) AS i (interval),
                   generate_series(timestamptz '2024-02-29', '2024-03-31', interval '1 day') AS t (ts)
             WHERE i.interval = '1d' OR t.ts < '2024-03-02' AND t.ts > '2024-02-29';
            INSERT INTO indicators (asset_id, ts, interval, indicator_type, name, value)
            SELECT asset_id, now() - interval '1 day', '1d', 'rsi', 'rsi_14', 50 FROM assets;
            INSERT INTO signals (asset_id, ts, signal_type) SELECT asset_id, now() - n * interval '1 day', 'buy'
              FROM assets, generate_series(1, 2) AS n;
        """)
        yield database


@pytest.fixture
def connection(filled):
    """A connection to it; what the statement does is rolled back."""
    with filled.connect(autocommit=False) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection
        connection.rollback()


def columns(connection, application: str, table: str) -> dict[str, str]:
    return dict(connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
        (application, table)
    ).fetchall())


def declared(statement: documents.Statement) -> tuple[str, dict[str, str]]:
    """The table and its columns with their declared types: of CREATE TABLE, or of a list under a heading."""
    if statement.text.startswith("CREATE TABLE"):
        table, body = re.fullmatch(r"CREATE TABLE (\w+) \((.*)\);", statement.text, re.S).groups()
        return table, dict(re.findall(r"^ *(\w+) ([A-Z]+)", body, re.M))
    lines = (documents.DIRECTORY / documents.FILES[statement.application]).read_text().splitlines()
    table = next(m[1] for line in reversed(lines[:statement.line]) if (m := re.fullmatch(r"#+ `(\w+)`", line)))
    names = re.findall(r"^- ([\w, ]+?) +\((\w+)", statement.text, re.M)
    return table, {name.strip(): kind for group, kind in names for name in group.split(",")}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statement(connection, edition, statement):
    for pattern, why in NOT_RUN.items():
        if re.search(pattern, statement.text):
            pytest.skip(why)
    connection.execute(f"SET search_path = {statement.application}, public")

    if re.match(r"CREATE TABLE|- ", statement.text):
        table, wanted = declared(statement)
        found = columns(connection, statement.application, table)
        assert len(wanted) > 5
        assert {name: found.get(name) in TYPES[kind.lower()] for name,
            kind in wanted.items()} == dict.fromkeys(wanted, True)
        assert set(found) == set(wanted)
        return

    text = statement.text.replace("your-asset-uuid-here", "00000000-0000-4000-8000-000000000001")
    if text.endswith("..."):  # "re-create trigger if needed": as it was
        definition = connection.execute(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'trg_calculate_quality_score'"
            " AND tgrelid = 'timeseries_data'::regclass"
        ).fetchone()[0]
        connection.execute("DROP TRIGGER trg_calculate_quality_score ON timeseries_data")
        assert definition.startswith(text.removesuffix(" ..."))
        text = definition
    if re.search(r"remove_retention_policy", text) and edition == "community":
        connection.execute("SELECT add_retention_policy('candles', INTERVAL '1 year')")  # the statement before it
    if re.search(COMMUNITY, text) and edition == "apache":
        with pytest.raises(errors.FeatureNotSupported):
            connection.execute(text)
        return
    cursor = connection.execute(text)
    if (statement.application, statement.line) in ANSWERS:
        assert cursor.rowcount == ANSWERS[statement.application, statement.line]
