"""Other clients at the applications' views: SQLModel, Peewee, Django, Alembic, as docs/orm.md says."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import pytest
import sqlalchemy as sa
from conftest import _database
from psycopg.conninfo import conninfo_to_dict

HASH = "$2b$12$" + "a" * 53


@pytest.fixture(scope="module")
def database(server, template):
    with _database(server, template) as database:
        with database.connect() as connection:
            connection.execute("INSERT INTO buddy_ai.users (id, email, username)"
                               " VALUES (7, 'seven@example.org', 'seven')")
        yield database


def options(database, application):
    return {**conninfo_to_dict(database.url), "options": f"-csearch_path={application},public"}


def test_sqlmodel(database):
    from sqlalchemy.orm import registry
    from sqlmodel import Field, Session, SQLModel, create_engine, select

    class Base(SQLModel, registry=registry()):  # or the other edition's test finds its table declared already
        pass

    class Position(Base, table=True):
        __tablename__ = "positions"
        id: int | None = Field(default=None, primary_key=True)
        user_id: int
        symbol: str
        market: str
        side: str
        entry_price: float
        quantity: float
        pnl: float | None = None
        current_price: float | None = None
        is_open: bool = True

    place = conninfo_to_dict(database.url)
    engine = create_engine(sa.URL.create("postgresql+psycopg", username=place["user"], database=place["dbname"], query={
        key: str(place[key]) for key in ("host", "port")}), connect_args={"options": "-csearch_path=buddy_ai,public"})
    with Session(engine) as session:
        session.add(Position(user_id=7, symbol="AAPL", market="STOCK", side="long", entry_price=100, quantity=2))
        session.flush()
        found = session.exec(select(Position)).one()
        found.current_price = 110
        session.flush()
        session.refresh(found)
        assert (found.id is not None, found.pnl) == (True, 20)
        session.delete(found)
        session.flush()
        assert session.exec(select(Position)).all() == []
    engine.dispose()


def test_peewee(database):
    import peewee

    place = options(database, "cryptovolt")
    connection = peewee.PostgresqlDatabase(place["dbname"], user=place["user"], host=place["host"], port=place["port"],
                                           options=place["options"])

    class Strategy(peewee.Model):
        strategy_id = peewee.AutoField()
        user_id = peewee.IntegerField(null=True)
        name = peewee.CharField(100)
        is_active = peewee.BooleanField(default=False)
        created_at = peewee.DateTimeField(default=dt.datetime.now)

        class Meta:
            database = connection
            table_name = "trading_strategies"

    with connection.atomic() as transaction:
        made = Strategy.create(user_id=7, name="s")
        made.name = "t"
        assert made.save() == 1  # writes all columns
        assert Strategy.get_by_id(made.strategy_id).name == "t"
        Strategy.insert_many([{"name": f"s{n}"} for n in range(3)]).execute()
        assert Strategy.update(is_active=True).where(Strategy.name.startswith("s")).execute() == 3
        assert Strategy.select().where(Strategy.is_active).count() == 3
        assert made.delete_instance() == 1
        transaction.rollback()
    connection.close()


DJANGO = '''
import django, sys
from django.conf import settings
settings.configure(DATABASES={{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": {dbname!r},
    "USER": {user!r}, "HOST": {host!r}, "PORT": {port!r}, "OPTIONS": {{"options": {options!r}}}}}}},
    INSTALLED_APPS=[], USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()
from django.core.management import call_command
from django.db import models, transaction
call_command("inspectdb", "positions", "users", "ohlcv_data", include_views=True)

class Alert(models.Model):
    user_id = models.IntegerField()
    symbol = models.CharField(max_length=20)
    alert_type = models.CharField(max_length=20, default="price")
    condition = models.CharField(max_length=20)
    target_value = models.FloatField()
    is_active = models.BooleanField(default=True)
    is_triggered = models.BooleanField(default=False)
    message = models.TextField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    triggered_at = models.DateTimeField(null=True)

    class Meta:
        app_label, managed, db_table = "buddy", False, "alerts"

class Bar(models.Model):
    symbol = models.CharField(max_length=20)
    market = models.CharField(max_length=10)
    timeframe = models.CharField(max_length=5)
    timestamp = models.DateTimeField()
    close = models.FloatField(null=True)

    class Meta:
        app_label, managed, db_table = "buddy", False, "ohlcv_data"

with transaction.atomic():
    alert = Alert.objects.create(user_id=7, symbol="AAPL", condition="above", target_value=1.5)
    alert.message = "look"
    alert.save()  # writes all columns
    assert Alert.objects.filter(symbol="AAPL", is_active=True).update(target_value=models.F("target_value") + 1) == 1
    alert.refresh_from_db()
    assert (alert.target_value, alert.message) == (2.5, "look")
    from datetime import datetime, timedelta, timezone
    at = datetime(2024, 1, 1, tzinfo=timezone.utc)
    bars = [Bar(symbol="AAPL", market="STOCK", timeframe="1h", timestamp=at + n * timedelta(hours=1), close=n)
            for n in range(50)]
    Bar.objects.bulk_create(bars)
    assert len({{bar.pk for bar in bars}}) == 50
    assert Bar.objects.bulk_create(bars and [Bar(symbol="AAPL", market="STOCK", timeframe="1h", timestamp=at,
                                                 close=9)], ignore_conflicts=True)
    assert Bar.objects.get(timestamp=at).close == 0
    assert Bar.objects.filter(symbol="AAPL").order_by("-timestamp")[0].close == 49
    assert alert.delete()[0] == 1
    transaction.set_rollback(True)
print("Django", django.__version__)
'''


def test_django(database):
    place = {key: str(value) for key, value in options(database, "buddy_ai").items()}
    told = subprocess.run([sys.executable, "-c", DJANGO.format(**place)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.rstrip().splitlines()[-1].startswith("Django")
    for line in ("class Positions(models.Model):", "entry_price = models.FloatField(", "managed = False",
                 "hashed_password = models.TextField(", "created_at = models.DateTimeField("):
        assert line in told.stdout
    assert "didn't match" not in told.stdout and "Unable to inspect" not in told.stdout


ENVIRONMENT = '''
import importlib.util, sys
from alembic import context
import sqlalchemy as sa
specification = importlib.util.spec_from_file_location("models", {models!r})
models = sys.modules["models"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(models)
target_metadata = models.Base.metadata

def include_object(obj, name, kind, reflected, compare_to):
    return kind != "table" or (not reflected and name not in views)

with sa.create_engine({url!r}, connect_args={{"options": {options!r}}}).connect() as connection:
    views = set(sa.inspect(connection).get_view_names())
    context.configure(connection=connection, target_metadata=target_metadata, include_object=include_object,
                      version_table_schema="public")
    with context.begin_transaction():
        context.run_migrations()
'''


@pytest.mark.parametrize("application", ["buddy_ai", "cryptovolt", "hyperliquid"])
def test_alembic(database, application, tmp_path):
    from alembic import command
    from alembic.config import Config

    from clients.conftest import sqlalchemy_url
    from tidemark.config import ROOT

    (tmp_path / "versions").mkdir()
    (tmp_path / "script.py.mako").write_text(
        "revision, down_revision = ${repr(up_revision)}, None\n"
        "def upgrade():\n    ${upgrades if upgrades else 'pass'}\n")
    (tmp_path / "env.py").write_text(ENVIRONMENT.format(
        models=str(ROOT / "docs" / "models" / f"{application}.py"),
        url=sqlalchemy_url(database).render_as_string(hide_password=False),
        options=f"-csearch_path={application},public"))
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    command.current(config)
    command.stamp(config, "base")
    command.revision(config, "nothing", autogenerate=True)
    [revision] = (tmp_path / "versions").glob("*.py")
    body = [line.strip() for line in revision.read_text().split("def upgrade():")[1].splitlines()]
    assert [line for line in body if line and not line.startswith("#")] == ["pass"]


def test_a_pooled_transaction_leaves_nothing_behind(database):
    """As behind PgBouncer in transaction mode: the next client of the session finds none of the last one's settings."""
    with database.connect(autocommit=False, prepare_threshold=None) as connection:
        connection.execute("SELECT set_config('tidemark.user_id', gen_random_uuid()::text, true)")
        connection.execute("INSERT INTO hyperliquid.candle_data (asset, timeframe, timestamp, close) VALUES ('A', '1h',"
                           " '2024-01-01', 1) ON CONFLICT DO NOTHING")
        connection.commit()
        left = connection.execute("""
            SELECT s FROM unnest(ARRAY['tidemark.user_id', 'tidemark.on_conflict', 'tidemark.arrivals',
                'tidemark.arrivals_before']) AS s WHERE current_setting(s, true) <> ''""").fetchall()
        assert left == []
        connection.execute("DELETE FROM hyperliquid.candle_data")
        connection.commit()
