"""SQLAlchemy: every table reflects, and models that sqlacodegen writes insert, read, change and delete."""

from __future__ import annotations

import datetime as dt
import importlib.util
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path

import pgvector.sqlalchemy  # noqa: F401 (makes the type known to reflection)
import pytest
import sqlalchemy
from conftest import _database
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, selectinload

from clients.conftest import sqlalchemy_url

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
UNKNOWN = {"horizon", "xact_id"}  # xid8, which SQLAlchemy has no type for
UNMAPPED = {"audit_seals", "audit_tx"}  # so these two, which only the record writes, can have no model


@pytest.fixture(scope="module")
def generated(server, template, tmp_path_factory):
    """What sqlacodegen makes of the database, imported."""
    file = tmp_path_factory.mktemp("models") / "models.py"
    with _database(server, template) as database:
        url = sqlalchemy_url(database)
        inspector = sqlalchemy.inspect(sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool))
        names = {*inspector.get_table_names(), *inspector.get_view_names()} - UNMAPPED
        # As text, because a Python enumeration tells 1m from 1M only by the case.
        subprocess.run([
            Path(sys.executable).with_name("sqlacodegen"), "--options", "nonativeenums", "--tables", ",".join(names),
            "--outfile", file, url.render_as_string(hide_password=False),
        ], check=True, capture_output=True)
    specification = importlib.util.spec_from_file_location(f"models_{id(file)}", file)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # SQLAlchemy looks annotations up there
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


@pytest.fixture
def session(engine):
    with Session(engine) as session:
        yield session


def test_every_table_reflects_with_all_its_columns_and_keys(engine, db):
    metadata = sqlalchemy.MetaData()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        metadata.reflect(engine, schema="public")
    # That a CHECK is NOT VALID it hands on as the option of a dialect called "dialect" (2.1.9), and goes on.
    assert [str(one.message) for one in told if issubclass(one.category, sqlalchemy.exc.SAWarning)
            and not any(f"'{name}'" in str(one.message) for name in (*UNKNOWN, "dialect_options"))] == []
    with db.connect() as connection:
        columns = {}
        for table, column, is_nullable, comment in connection.execute("""
            SELECT c.relname, a.attname, NOT a.attnotnull, col_description(c.oid, a.attnum)
              FROM pg_class AS c
              JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"""):
            columns.setdefault(table, {})[column] = (is_nullable, comment)
        keys = dict(connection.execute("""
            SELECT c.conrelid::regclass::text, array_agg(a.attname::text ORDER BY a.attnum)
              FROM pg_constraint AS c
              JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
             WHERE c.contype = 'p' AND c.connamespace = 'public'::regnamespace GROUP BY 1"""))
    assert len(columns) > 30
    assert {table.name: {c.name: (c.nullable, c.comment) for c in table.columns}
            for table in metadata.tables.values()} == columns
    assert {table.name: sorted(c.name for c in table.primary_key) for table in metadata.tables.values()
            if table.primary_key} == {name: sorted(key) for name, key in keys.items()}
    assert {c.name for table in metadata.tables.values() for c in table.columns
            if isinstance(c.type, sqlalchemy.types.NullType)} <= UNKNOWN


def test_every_view_reflects(engine):
    inspector = sqlalchemy.inspect(engine)
    names = set(inspector.get_view_names("public"))
    assert {"daily_ohlcv", "candles_1h", "coverage", "quality_report", "chunk_stats"} <= names
    columns = {column["name"]: str(column["type"]) for column in inspector.get_columns("daily_ohlcv", "public")}
    assert columns["day"] == "TIMESTAMP"
    assert (columns["open"], columns["samples"]) == ("DOUBLE PRECISION", "BIGINT")


def test_there_is_a_model_for_every_table(generated, engine):
    mapped = {mapper.local_table.name for mapper in generated.Base.registry.mappers}
    tables = set(sqlalchemy.inspect(engine).get_table_names("public"))
    with_key = {name for name in tables if sqlalchemy.inspect(engine).get_pk_constraint(name)["constrained_columns"]}
    assert len(with_key) > 30
    assert mapped == with_key - UNMAPPED
    assert tables - UNMAPPED <= {table.name for table in generated.Base.metadata.tables.values()}


def test_models_insert_and_read_bars_of_a_source(generated, engine, session):
    asset = generated.Assets(symbol="EURUSD", asset_type="forex", quote_currency="USD")
    source = generated.Sources(name="eurusd", data_type="ohlcv", config={"depth": [1, 2]},
                               asset=asset)
    session.add(source)
    session.flush()
    assert (source.asset_id, source.status) == (asset.asset_id, "active")
    session.add_all(generated.TimeseriesData(
        source_id=source.source_id, timestamp=START + i * HOUR, open=p, high=p, low=p, close=p, volume=None,
        metadata_={"n": i},
    ) for i, p in enumerate([1.1, 1.2, 1.15]))
    session.commit()
    with Session(engine) as other:
        rows = other.scalars(sqlalchemy.select(generated.TimeseriesData).order_by("timestamp")).all()
        assert [(r.timestamp, r.close, r.volume, r.metadata_, r.quality_score, r.is_anomaly) for r in rows] == [
            (START + i * HOUR, p, None, {"n": i}, 100, False) for i, p in enumerate([1.1, 1.2, 1.15])]
        stored = other.scalars(sqlalchemy.select(generated.Sources)).one()
        assert (stored.config, stored.asset.symbol) == ({"depth": [1, 2]}, "EURUSD")


def test_models_insert_and_upsert_candles(generated, session):
    asset = generated.Assets(symbol="AAA", asset_type="stock")
    session.add(asset)
    session.flush()
    key = {"asset_id": asset.asset_id, "interval": "1h", "ts": START}
    bar = generated.Candles(**key, open=10, high=12, low=9, close=11, volume=100)
    session.add(bar)
    session.flush()
    assert bar.id > 0
    statement = insert(generated.Candles).values(**key, close=11.5)
    session.execute(statement.on_conflict_do_update(
        index_elements=["asset_id", "interval", "ts"], set_={"close": statement.excluded.close}))
    session.commit()
    session.refresh(bar)
    assert (bar.close, bar.high, bar.asset.symbol, bar.interval) == (11.5, 12, "AAA", "1h")
    assert session.get(generated.Candles, tuple(key.values())) is bar


def test_models_keep_watchlists_with_their_items(generated, session):
    user = generated.Users(username="ann", email="ann@example.org")
    assets = [generated.Assets(symbol=name, asset_type="stock") for name in ("AAA", "BBB")]
    listed = generated.Watchlists(user=user, name="mine", is_default=True)
    session.add_all(generated.WatchlistItems(watchlist=listed, asset=asset, position=i,
                                             price_alert_high=Decimal("9.99")) for i, asset in enumerate(assets))
    session.commit()
    session.expunge_all()
    found = session.scalars(sqlalchemy.select(generated.Users).options(
        selectinload(generated.Users.watchlists).selectinload(generated.Watchlists.watchlist_items))).one()
    assert found.role == "user"
    items = sorted(found.watchlists[0].watchlist_items, key=lambda item: item.position)
    assert [(i.asset.symbol, i.price_alert_high) for i in items] == [("AAA", Decimal("9.99")), ("BBB", Decimal("9.99"))]
    session.delete(items[0])
    session.commit()
    assert [i.asset.symbol for i in session.scalars(sqlalchemy.select(generated.WatchlistItems))] == ["BBB"]
    session.add(generated.WatchlistItems(watchlist=found.watchlists[0], asset=items[1].asset, position=5))
    with pytest.raises(sqlalchemy.exc.IntegrityError) as refused:
        session.commit()
    assert refused.value.orig.sqlstate == "23505"


def test_models_read_what_the_server_computes(generated, session):
    user = generated.Users(username="bob", email="bob@example.org")
    asset = generated.Assets(symbol="AAA", asset_type="stock")
    position = generated.Positions(user=user, asset=asset, side="short", entry_price=Decimal(100),
                                   current_price=Decimal(90), quantity=Decimal(3))
    session.add(position)
    session.commit()
    assert (position.pnl, position.pnl_percent, position.is_open) == (Decimal(30), Decimal(10), True)
    before = position.updated_at
    position.current_price = Decimal(110)
    session.commit()
    assert position.pnl == Decimal(-30)
    assert position.updated_at > before


def test_models_query_an_aggregate(generated, session):
    source = generated.Sources(name="days", data_type="ohlcv")
    session.add(source)
    session.flush()
    session.add_all(generated.TimeseriesData(source_id=source.source_id, timestamp=START + i * HOUR, close=i)
                    for i in range(30))
    session.commit()
    daily = generated.Base.metadata.tables["daily_ohlcv"]
    assert session.execute(sqlalchemy.select(daily.c.day, daily.c.close, daily.c.samples).where(
        daily.c.source_id == source.source_id).order_by(daily.c.day)).all() == [
        (START, 23, 24), (START + 24 * HOUR, 29, 6)]
