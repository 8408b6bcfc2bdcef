"""Where nothing is known yet, clients get NULL: an infinite instant is an error to psycopg, and year 1 to asyncpg."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

RELATIONS = """
    SELECT 'SELECT * FROM ' || c.oid::regclass::text
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm') AND n.nspname <> '_tidemark'
       AND (n.nspname = 'public' OR n.nspname = ANY (_tidemark.own_schemas()))
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
     ORDER BY 1
"""
FUNCTIONS = """
    SELECT n.nspname, p.proname, p.proargnames[1:p.pronargs],
           ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) AS t), p.pronargs - p.pronargdefaults
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE p.prokind = 'f' AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
       AND n.nspname <> '_tidemark' AND (n.nspname = 'public' OR n.nspname = ANY (_tidemark.own_schemas()))
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
     ORDER BY 1, 2
"""
DAY = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
INFINITE = {dt.datetime.max, dt.datetime.min, dt.date.max, dt.date.min}


def fill(connection: psycopg.Connection) -> None:
    """A series with a gap, bars, quotes, what was foretold of them, and entries of the record."""
    connection.execute("""
        INSERT INTO sources (name, data_type, interval) VALUES ('s', 'ohlcv', '1h'), ('empty', 'ohlcv', NULL);
        INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)
        SELECT 1, '2024-03-04+00'::timestamptz + i * interval '1 hour', 1, 1, 1, 1, 0
          FROM generate_series(1, 50) AS i WHERE i NOT BETWEEN 20 AND 23;
        INSERT INTO assets (symbol, asset_type) VALUES ('A', 'crypto'), ('EMPTY', 'crypto');
        INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)
        SELECT a.asset_id, '1h', '2024-03-04+00'::timestamptz + i * interval '1 hour', 1, 1, 1, 1, 0
          FROM assets AS a, generate_series(1, 50) AS i WHERE a.symbol = 'A' AND i NOT BETWEEN 20 AND 23;
        INSERT INTO quotes (asset_id, ts, price) SELECT a.asset_id, '2024-03-04+00', 1 FROM assets AS a;
        INSERT INTO signals (asset_id, ts, signal_type) SELECT a.asset_id, '2024-03-04+00', 'buy' FROM assets AS a;
        INSERT INTO models (name, model_type) VALUES ('m', 'lstm');
        DELETE FROM timeseries_data WHERE timestamp = '2024-03-04 05:00+00'
    """)


def calls(connection: psycopg.Connection) -> Iterator[str]:
    """Every public function, with what each of its arguments may be: an end of time where that is what it takes."""
    asset = connection.execute("SELECT coalesce((SELECT asset_id::text FROM assets LIMIT 1), gen_random_uuid()::text)"
                               ).fetchone()[0]
    kinds = {
        "uuid": [f"'{asset}'"], "integer": ["1"], "bigint": ["1"], "boolean": ["false"], "text": ["'x'"],
        "date": ["'2024-03-04'"], "corporate_action_kind": ["'split'"], "numeric": ["'2'"],
        "corporate_action_status": ["'confirmed'"],
        "interval": ["'1 day'"], "jsonb": ["'{\"source_id\": 1, \"timestamp\": \"2024-03-04 05:00+00\"}'"],
        "regclass": ["'timeseries_data'"], "candle_interval": ["'1h'"], "lineage_kind": ["'source'"],
        "double precision[]": ["'{1}'"], "text[]": ["'{x}'"], "bytea": ["'\\x00'"], "name": ["'x'"],
        "timestamp with time zone[]": ["'{2024-03-04+00}'"], "anomaly_status": ["'expected'"],
        "candles": ["(SELECT c FROM candles AS c LIMIT 1)"], "anyenum": ["'1h'::candle_interval"],
        "timestamp with time zone": ["'2024-03-01+00'", "'-infinity'", "'infinity'"],
    }
    for schema, name, names, types, required in connection.execute(FUNCTIONS).fetchall():
        values = [kinds[kind.removeprefix("public.")] for kind in types]
        given = [value[0] for value in values]
        for argument, kind in enumerate(types):  # …_to and …_at come last
            if kind == "timestamp with time zone" and not names[argument].endswith("_from"):
                given[argument] = "'2024-03-10+00'"
        variants = {tuple(given), tuple(given[:required])}
        variants.add(tuple(
            {"_from": value[1], "_to": value[2], "p_at": value[2]}.get(
                next((end for end in ("_from", "_to", "p_at") if names[n].endswith(end)), ""), value[0])
            if len(value) == 3 else value[0] for n, value in enumerate(values)
        ))
        for variant in sorted(variants):
            yield f'SELECT * FROM {schema}."{name}"({", ".join(variant)})'


def infinite(value: Any) -> bool:
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None) in INFINITE
    if isinstance(value, asyncpg.Range):
        return infinite(value.lower) or infinite(value.upper)
    if isinstance(value, list | tuple | asyncpg.Record):
        return any(map(infinite, value))
    return value in INFINITE if isinstance(value, dt.date) else False


async def read(url: str, queries: list[str]) -> list[str]:
    """Queries that give asyncpg an instant that means infinity."""
    found, parameters = [], conninfo_to_dict(url)
    connection = await asyncpg.connect(host=parameters["host"], port=parameters["port"], user=parameters["user"],
                                       password=parameters.get("password"), database=parameters["dbname"])
    try:
        for query in queries:
            transaction = connection.transaction()
            await transaction.start()
            try:
                if any(map(infinite, await connection.fetch(query))):
                    found.append(query)
            except asyncpg.PostgresError as error:
                assert error.sqlstate != "XX000", (query, error)
            finally:
                await transaction.rollback()
    finally:
        await connection.close()
    return found


@pytest.mark.parametrize("state", ["fresh", "used", "refreshed"])
def test_no_client_gets_an_infinite_instant_where_nothing_is_known_yet(db, state):
    with db.connect() as connection:
        if state != "fresh":
            fill(connection)
        if state == "refreshed":
            connection.execute("CALL refresh_aggregates()")
            connection.execute("SELECT * FROM seal_audit()")
        queries = [query for (query,) in connection.execute(RELATIONS)] + list(calls(connection))
        assert len(queries) > 100
        unreadable, answered = [], 0
        for query in queries:
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(query).fetchall()
                answered += 1
            except psycopg.DataError as error:
                if error.sqlstate is None:  # the driver's own
                    unreadable.append((query, str(error)))
            except psycopg.Error as error:
                assert error.sqlstate != "XX000", query
        assert unreadable == []
        assert answered > 100
    assert asyncio.run(read(db.url, queries)) == []


def test_what_would_be_infinite_is_found(db):
    """The test above looks where it says."""
    queries = ["SELECT 'infinity'::timestamptz", "SELECT '-infinity'::date", "SELECT ARRAY['-infinity'::timestamptz]",
               "SELECT tstzrange('-infinity', now())"]
    assert asyncio.run(read(db.url, queries)) == queries
    with db.connect() as connection, pytest.raises(psycopg.DataError):
        connection.execute(queries[0]).fetchall()
