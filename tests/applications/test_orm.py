"""Each application as its ORM writes, on the drivers of today; docs/applications.md tells what passed.

The models are those of docs/models/. Every operation runs in a transaction of its own, which is rolled back; asyncpg
runs the same code below an AsyncSession.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from conftest import _database
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, joinedload

from tidemark.config import ROOT

DRIVERS = ("psycopg2", "psycopg", "asyncpg")
NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
HASH = "$2b$12$" + "a" * 53  # bcrypt, as most applications of this kind store


def models(application: str):
    name = f"models_of_{application}"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, ROOT / "docs" / "models" / f"{application}.py")
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def day(m, application):
    """What the operations below need of an application: its rows, and what is done to them."""
    naive = [(NOON + n * dt.timedelta(hours=1)).replace(tzinfo=None) for n in range(2000)]
    aware = [at.replace(tzinfo=dt.UTC) for at in naive]
    if application == "buddy_ai":
        def user(n=1):
            return m.User(username=f"u{n}", email=f"u{n}@example.org", hashed_password=HASH)
        return SimpleNamespace(
            parent=user, children=lambda: [m.Position(symbol=f"S{n}", market=m.Market.CRYPTO, side="long",
                                                      entry_price=100.5, quantity=n + 1.0) for n in range(3)],
            link="positions", child_link=m.Position.user, child=m.Position, order=m.Position.quantity,
            change=("current_price", 110.25), key="id", default=("is_open", True),
            like=(m.Position.market == m.Market.CRYPTO), unlike=(m.Position.market == m.Market.STOCK),
            bar=m.OHLCVData, bars=[{"symbol": "BTCUSDT", "market": m.Market.CRYPTO, "timeframe": "1h", "timestamp": at,
                                    "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 1.0}
                                   for at in aware], series=(m.OHLCVData.symbol == "BTCUSDT"),
            time=m.OHLCVData.timestamp, upsert=None)
    if application == "cryptovolt":
        return SimpleNamespace(
            parent=lambda n=1: m.User(username=f"u{n}", email=f"u{n}@example.org", password_hash=HASH),
            children=lambda: [m.TradingStrategy(name=f"s{n}", parameters={"n": n}) for n in range(3)],
            link="strategies", child_link=m.TradingStrategy.user, child=m.TradingStrategy, order=m.TradingStrategy.name,
            change=("is_active", True), key="strategy_id", default=("is_active", False),
            like=(m.TradingStrategy.is_active == sa.false()), unlike=(m.TradingStrategy.is_active == sa.true()),
            bar=m.MarketData, bars=[{"symbol": "BTCUSDT", "timestamp": at, "open_price": 1.0, "high_price": 2.0,
                                     "low_price": 0.5, "close_price": 1.5, "volume": 1.0, "source": "binance"}
                                    for at in naive], series=(m.MarketData.symbol == "BTCUSDT"),
            time=m.MarketData.timestamp, upsert=(m.Model, {"name": "m", "version": "1", "model_type": "forest"},
                                                 ["name", "version"], "accuracy", 0))
    if application == "trading_manager":
        asset = m.Asset(symbol="AAPL", asset_type="stock")
        return SimpleNamespace(
            parent=lambda n=1: m.Watchlist(user=m.User(username=f"u{n}", email=f"u{n}@example.org", password_hash=HASH),
                                           name="w"),
            children=lambda: [m.WatchlistItem(asset=m.Asset(symbol=f"S{n}", asset_type="crypto"), position=n)
                              for n in range(3)],
            link="items", child_link=m.WatchlistItem.watchlist, child=m.WatchlistItem, order=m.WatchlistItem.position,
            change=("notes", "n"), key="id", default=("position", 0),
            like=m.WatchlistItem.asset.has(m.Asset.asset_type == "crypto"),
            unlike=m.WatchlistItem.asset.has(m.Asset.asset_type == "stock"), needs=asset,
            bar=m.Candle, bars=lambda: [{"asset_id": asset.id, "interval": "1h", "ts": at, "open": 1.0, "high": 2.0,
                                         "low": 0.5, "close": 1.5, "volume": 1.0} for at in aware],
            series=(m.Candle.interval == "1h"), time=m.Candle.ts,
            upsert=(m.Candle, lambda: {"asset_id": asset.id, "interval": "1d", "ts": NOON},
                    ["asset_id", "interval", "ts"], "close", 2.0))
    if application == "hyperliquid":
        return SimpleNamespace(
            parent=lambda n=1: m.StrategyRule(name=f"r{n}", entry_type="breakout", source_type="youtube",
                                              conditions=[{"a": n}]),
            children=lambda: [m.TradeRecord(asset="ETH-USD", direction="long", entry_price=n + 1.0,
                                            outcome="breakeven") for n in range(3)],
            link="trades", child_link=m.TradeRecord.strategy_rule, child=m.TradeRecord, order=m.TradeRecord.entry_price,
            change=("reasoning", "because"), key="id", default=("is_backtest", False),
            like=(m.TradeRecord.outcome == "breakeven"), unlike=(m.TradeRecord.outcome == "win"),
            bar=m.CandleData, bars=[{"asset": "ETH-USD", "timeframe": "1h", "timestamp": at, "open": 1.0, "high": 2.0,
                                     "low": 0.5, "close": 1.5, "volume": 1.0} for at in aware],
            series=(m.CandleData.timeframe == "1h"), time=m.CandleData.timestamp,
            upsert=(m.LearningEntry, {"id": "L-1", "insight": "i"}, ["id"], "validation_count", 2))
    source = m.Source(name="bars", data_type="ohlcv")
    return SimpleNamespace(
        parent=lambda n=1: m.Source(name=f"s{n}", data_type="ohlcv"),
        children=lambda: [m.TimeseriesData(timestamp=aware[n], close=n + 1.0) for n in range(3)],
        link="rows", child_link=m.TimeseriesData.source, child=m.TimeseriesData, order=m.TimeseriesData.close,
        change=("volume", 5.0), key="timestamp", default=("is_anomaly", False),
        like=m.TimeseriesData.source.has(m.Source.status == "active"),
        unlike=m.TimeseriesData.source.has(m.Source.status == "paused"), needs=source,
        bar=m.TimeseriesData, bars=lambda: [{"source_id": source.source_id, "timestamp": at, "open": 1.0, "high": 2.0,
                                             "low": 0.5, "close": 1.5} for at in aware],
        series=(m.TimeseriesData.open == 1.0), time=m.TimeseriesData.timestamp,
        upsert=(m.TimeseriesData, lambda: {"source_id": source.source_id, "timestamp": NOON},
                ["source_id", "timestamp"], "close", 2.0))


def given(session, d):
    """The day with what its bars need stored."""
    if getattr(d, "needs", None) is not None:
        session.add(d.needs)
        session.flush()
    d.bars = d.bars() if callable(d.bars) else d.bars
    return d


def family(session, d):
    parent = d.parent()
    getattr(parent, d.link).extend(d.children())
    session.add(parent)
    session.flush()
    return parent, sorted(getattr(parent, d.link), key=lambda child: getattr(child, d.order.key))


def add_and_flush(session, d):
    _, children = family(session, d)
    assert all(getattr(child, d.key) is not None for child in children)
    name, value = d.default
    session.expire_all()
    assert getattr(children[0], name) == value


def add_all(session, d):
    parents = [d.parent(n) for n in range(30)]
    session.add_all(parents)
    session.flush()
    assert len({sa.inspect(parent).identity for parent in parents}) == 30


def bulk_save_objects(session, d):
    session.bulk_save_objects([d.parent(n) for n in range(5)] if d.link != "items" else [
        type(d.needs)(symbol=f"B{n}", asset_type="etf") for n in range(5)])


def bulk_insert_mappings(session, d):
    session.bulk_insert_mappings(d.bar, d.bars[:1200])
    assert session.scalar(sa.select(sa.func.count()).select_from(d.bar).where(d.series)) == 1200


def insert_returning(session, d):
    key = sa.inspect(d.bar).primary_key[0]
    told = session.execute(sa.insert(d.bar).returning(key), d.bars[:50]).scalars().all()
    assert len(told) == 50 and None not in told


def every_column_named(session, d):
    """A model names all its columns, and sends NULL for what nobody set."""
    required = d.bars[0]
    table = d.bar.__table__
    key = {column.name for column in table.primary_key} - set(required)
    row = {column.name: None for column in table.columns if column.name not in key}
    by_name = {d.bar.__mapper__.attrs[name].columns[0].name: value for name, value in required.items()}
    session.execute(sa.insert(table).values({**row, **by_name}))
    assert session.scalar(sa.select(sa.func.count()).select_from(d.bar).where(d.series)) == 1


def update_and_count(session, d):
    _, children = family(session, d)
    name, value = d.change
    for child in children:
        setattr(child, name, value)
    session.flush()  # raises where the row count is not that of the objects
    session.expire_all()
    assert [getattr(child, name) for child in children] == [value] * 3


def delete_and_count(session, d):
    _, children = family(session, d)
    session.delete(children[0])
    session.flush()
    assert session.scalar(sa.select(sa.func.count()).select_from(d.child)) == 2


def refresh(session, d):
    _, children = family(session, d)
    session.refresh(children[1])
    assert session.get(d.child, sa.inspect(children[1]).identity) is children[1]


def pagination(session, d):
    family(session, d)
    page = session.scalars(sa.select(d.child).order_by(d.order).offset(1).limit(1)).all()
    assert len(page) == 1


def filter_by_enumeration(session, d):
    family(session, d)
    count = sa.select(sa.func.count()).select_from(d.child)
    assert (session.scalar(count.where(d.like)), session.scalar(count.where(d.unlike))) == (3, 0)


def joined(session, d):
    family(session, d)
    session.expunge_all()
    found = session.scalars(sa.select(d.child).options(joinedload(d.child_link)).order_by(d.order)).unique().all()
    assert len(found) == 3 and len({id(getattr(child, d.child_link.key)) for child in found}) == 1


def update_by_query(session, d):
    family(session, d)
    name, value = d.change
    assert session.execute(sa.update(d.child).values({name: value})).rowcount == 3
    assert session.execute(sa.delete(d.child)).rowcount == 3


def period_newest_first(session, d):
    session.bulk_insert_mappings(d.bar, d.bars[:200])
    attribute = d.time.key
    since, until = d.bars[50][attribute], d.bars[60][attribute]
    found = session.scalars(sa.select(d.bar).where(d.series, d.time >= since, d.time < until).order_by(
        d.time.desc()).limit(5)).all()
    assert [getattr(bar, attribute) for bar in found] == [d.bars[n][attribute] for n in range(59, 54, -1)]


def bar_again(session, d):
    """The bar that forms: written again, whichever way the vocabulary has for it."""
    if d.upsert and d.upsert[0] is d.bar:
        return
    name = next(name for name in d.bars[0] if name.startswith("close"))
    if d.link == "positions":
        values = list(zip(*[row.values() for row in d.bars[:3]], strict=True))
        columns = [*map(list, values)]
        columns[1] = [market.value for market in columns[1]]
        for close in (1.5, 9.0):
            columns[list(d.bars[0]).index("close")] = [close] * 3
            assert session.scalar(sa.select(sa.func.upsert_ohlcv_data(*[
                sa.literal(column, sa.ARRAY(sa.DateTime(timezone=True) if isinstance(column[0], dt.datetime) else
                                            sa.Float() if isinstance(column[0], float) else sa.Text()))
                for column in columns]))) == 3
    else:
        for close in (1.5, 9.0):
            session.execute(sa.insert(d.bar), [{**row, name: close} for row in d.bars[:3]])
    assert session.scalars(sa.select(getattr(d.bar, name)).where(d.series)).all() == [9.0] * 3


def on_conflict(session, d):
    if d.upsert is None:
        parent = d.parent()
        statement = pg_insert(type(parent)).values(username="u", email="u@example.org", hashed_password=HASH)
        statement = statement.on_conflict_do_nothing(index_elements=["email"]).returning(type(parent).id)
        for count in (1, 0):
            assert len(session.execute(statement).all()) == count
        return
    model, row, key, column, value = d.upsert
    row = row() if callable(row) else row
    for n in range(2):
        statement = pg_insert(model).values({**row, column: value + n})
        session.execute(statement.on_conflict_do_update(index_elements=key,
                                                        set_={column: statement.excluded[column]}))
    assert session.scalars(sa.select(getattr(model, column))).all() == [value + 1]
    statement = pg_insert(model).values(row).on_conflict_do_nothing().returning(getattr(model, column))
    assert session.execute(statement).all() == []


OPERATIONS = {
    "add, flush order, defaults": add_and_flush, "add_all of 30": add_all, "bulk_save_objects": bulk_save_objects,
    "bulk_insert_mappings of 1,200 bars": bulk_insert_mappings, "insert … returning": insert_returning,
    "every column named, NULL where unset": every_column_named, "update, row counts": update_and_count,
    "delete, row counts": delete_and_count, "refresh, get": refresh, "order by, offset, limit": pagination,
    "filter by an enumeration": filter_by_enumeration, "joinedload": joined,
    "update and delete by query": update_by_query,
    "a period, newest first": period_newest_first, "the bar that forms": bar_again, "on conflict": on_conflict,
}
APPLICATIONS = ("buddy_ai", "cryptovolt", "trading_manager", "hyperliquid", "btc_dashboard")


@pytest.fixture(scope="module")
def database(server, template):
    with _database(server, template) as database:
        yield database


def url(database, driver):
    parameters = conninfo_to_dict(database.url)
    return sa.URL.create(f"postgresql+{driver}", username=parameters["user"], password=parameters.get("password"),
                         database=parameters["dbname"],
                         query={key: str(parameters[key]) for key in ("host", "port")})


@pytest.fixture(scope="module")
def engines(database):
    made = {}

    def engine(driver, application):
        if (driver, application) not in made:
            path = f"{application},public"
            if driver == "asyncpg":
                made[driver, application] = create_async_engine(
                    url(database, driver), poolclass=sa.NullPool,
                    connect_args={"server_settings": {"search_path": path}})
            else:
                made[driver, application] = sa.create_engine(
                    url(database, driver), connect_args={"options": f"-csearch_path={path} -ctimezone=UTC"})
        return made[driver, application]
    yield engine
    for (driver, _), engine in made.items():
        if driver != "asyncpg":
            engine.dispose()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("application", APPLICATIONS)
def test_operation(engines, request, application, driver, operation):
    request.node.add_marker(pytest.mark.operation(application, driver, operation))
    work, description = OPERATIONS[operation], day(models(application), application)
    if driver != "asyncpg":
        with Session(engines(driver, application)) as session:
            work(session, given(session, description))
        return

    async def run():
        async with AsyncSession(engines(driver, application)) as session:
            await session.run_sync(lambda s: work(s, given(s, description)))
    asyncio.run(run())


@pytest.mark.parametrize("application", APPLICATIONS)
def test_models_are_what_the_database_has(database, application):
    """Every table of the document has its model, every column its kind; in public a model may leave columns out."""
    kinds = {"text": {"text", "varchar"}, "character varying": {"varchar"}}
    with database.connect() as connection:
        found = {}
        for schema, table, column, kind in connection.execute("""
            SELECT table_schema, table_name, column_name, CASE data_type WHEN 'USER-DEFINED' THEN 'text' ELSE data_type
                   END FROM information_schema.columns WHERE table_schema IN (%s, 'public')
             ORDER BY table_schema = 'public'""", [application]):
            found.setdefault(table, (schema, {}))
            if found[table][0] == schema:
                found[table][1][column] = kind
    spelled = {"INTEGER": "integer", "BIGINT": "bigint", "SMALLINT": "smallint", "BOOLEAN": "boolean", "UUID": "uuid",
               "FLOAT": "double precision", "NUMERIC": "numeric", "JSONB": "jsonb", "TEXT": "text", "ARRAY": "ARRAY"}
    mapped = {mapper.local_table for mapper in models(application).Base.registry.mappers}
    assert {table.name for table in mapped} >= {
        name for name, (schema, _) in found.items() if schema == application} - {"pg_stat_statements"}
    for table in mapped:
        schema, columns = found[table.name]
        if schema == application and table.name != "ml_models":
            assert {column.name for column in table.columns} == set(columns), table.name
        for column in table.columns:
            kind = column.type.compile(sa.dialects.postgresql.dialect())
            kind = "TEXT" if kind.startswith("VARCHAR") or isinstance(column.type, sa.Enum) else kind
            kind = "ARRAY" if isinstance(column.type, sa.ARRAY) else kind
            wanted = spelled.get(kind, kind.lower())
            assert columns[column.name] in {wanted, *kinds.get(wanted, ())} \
                or (wanted, columns[column.name]) == ("integer", "bigint"), (table.name, column.name)
