"""A database with a desk's day in it, and the two ways in which clients are told where it is."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psycopg
import pytest
import sqlalchemy
from conftest import Database, _database, adder
from psycopg.conninfo import conninfo_to_dict

# As old as a dashboard's default period looks back, and in whole hours, so that bars lie on their grid.
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def sqlalchemy_url(database: Database) -> sqlalchemy.URL:
    """Where the database is, as SQLAlchemy's clients write it."""
    parameters = conninfo_to_dict(database.url)
    place = {key: str(parameters[key]) for key in ("host", "port")}
    return sqlalchemy.URL.create(
        "postgresql+psycopg", username=parameters["user"], password=parameters.get("password"),
        database=parameters["dbname"], query=place,
    )


def walk(length: int, start: float) -> list[float]:
    """Prices that wander by about 0.1 % a step; the same in every run."""
    generator, prices = random.Random(7), [start]
    while len(prices) < length:
        prices.append(prices[-1] * math.exp(generator.gauss(0, 0.001)))
    return prices


def fill(connection: psycopg.Connection) -> SimpleNamespace:
    """Bars, figures and quotes of the last days with one spike, one impossible bar and one gap of three hours."""
    add = adder(connection)
    asset = add("assets", symbol="BTCUSDT", asset_type="crypto", quote_currency="USDT")
    price = add("sources", name="btc_price", data_type="ohlcv", interval="1h", asset_id=asset)
    rate = add("sources", name="hash_rate", data_type="scalar", interval="1h")

    def copy(table: str, columns: str, rows: list[tuple]) -> None:
        with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as stream:
            for row in rows:
                stream.write_row(row)

    prices = walk(300, 42000)
    prices[-30] *= 1.08
    bars = [(p, p * 1.001, p * 0.999, p, 10.0) for p in prices]
    bars[-20] = (prices[-20], prices[-20] * 0.9, prices[-20] * 1.1, prices[-20], 10.0)  # its high is below its low
    minutes = [NOW - timedelta(minutes=300 - i) for i in range(300)]
    hours = [NOW - timedelta(hours=300 - i) for i in range(300)]
    with connection.transaction():
        connection.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
        copy("candles", "asset_id, interval, ts, open, high, low, close, volume",
             [(asset, "1m", at, *bar) for at, bar in zip(minutes, bars, strict=True)])
        copy("timeseries_data", "source_id, timestamp, open, high, low, close, volume",
             [(price, at, *bar) for i, (at, bar) in enumerate(zip(hours, bars, strict=True)) if not 280 <= i < 283])
        copy("timeseries_data", "source_id, timestamp, value",
             [(rate, at, 600 + i % 7) for i, at in enumerate(hours)])
        copy("quotes", "asset_id, ts, price",
             [(asset, at + timedelta(seconds=1), p) for at, p in zip(minutes, prices, strict=True)])
    connection.execute("CALL refresh_aggregates()")
    connection.execute("ANALYZE")
    return SimpleNamespace(asset=asset, price=price, rate=rate, spike=minutes[-30], impossible=minutes[-20],
                           gap=hours[280])


@pytest.fixture(scope="module")
def desk(server: SimpleNamespace, template: str) -> Iterator[SimpleNamespace]:
    """A migrated database with those rows; `desk.database` is where, the rest is what to look for."""
    with _database(server, template) as database:
        with database.connect() as connection:
            found = fill(connection)
        yield SimpleNamespace(database=database, **vars(found))


@pytest.fixture
def engine(db: Database) -> Iterator[sqlalchemy.Engine]:
    """SQLAlchemy on a database of the test's own."""
    made = sqlalchemy.create_engine(sqlalchemy_url(db))
    yield made
    made.dispose()
