"""Each question of queries/: its heading is true, it runs in psql and in Python, and it reads no chunk it need not."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess

import pytest
from conftest import _database, adder
from psycopg import errors

from tidemark import config, query
from tidemark.errors import Problem

QUERIES = query.names()
ASSET = "00000000-0000-4000-8000-000000000001"
SAMPLES = {  # for parameters without a default
    "latest_candles": {"symbol": "AAPL"},
    "gaps": {"source": "daily", "until": "2024-05-23"},
    "series_named": {"name": "aapl"},
    "row_audit": {"table": "assets", "key": json.dumps({"asset_id": ASSET})},
}
WEEKS = 20  # candles are cut into chunks of seven days, from a Thursday
ROWS = {  # answers in the database of the fixture below
    "latest_candles": 30, "latest_indicators": 1, "active_signals": 2, "latest_signal_per_asset": 1, "daily_bars": 5,
    "price_statistics": 2, "recent_changes": 2, "average_price": 2, "latest_points": 1, "strategy_performance": 1,
    "trades_by_asset": 2, "data_quality": 3, "series_named": 1, "freshness": 3, "quality_trend": 140,
    "growth": 10, "record": 1, "chart_bars": 0, "gaps": 1, "latest_prices": 2, "weekly_bars": 5,
}
CHUNKS = [  # query, parameters, most chunks it may touch
    ("latest_candles", {"symbol": "AAPL", "count": "3"}, 1),
    ("latest_candles", {"symbol": "AAPL", "count": "10"}, 2),
    ("daily_bars", {"count": "3"}, 1),
    ("weekly_bars", {"count": "2"}, 14),
    ("latest_prices", {}, 1),
    ("recent_changes", {}, 1),
    ("latest_points", {}, 1),
    ("average_price", {"since": "2024-05-09"}, 2),
    ("price_statistics", {"since": "2024-05-09"}, 2),
    ("data_quality", {"since": "2024-05-16"}, 3),
    ("latest_indicators", {"days": "3"}, 2),
]
# So many more rows for the plan checks: TIDEMARK_TEST_ROWS=10000000 for a long run.
MORE_ROWS = int(os.environ.get("TIDEMARK_TEST_ROWS", "0"))


@pytest.fixture(scope="module")
def database(server, template):
    """Twenty weeks of daily bars of two assets and of a source that misses a day, and a little of the rest."""
    with _database(server, template) as database:
        with database.connect(autocommit=False) as connection:
            fill(connection, adder(connection))
        yield database


@pytest.fixture
def filled(database):
    """A connection to it; what the test does is rolled back."""
    with database.connect(autocommit=False) as connection:
        connection.execute("SET timezone = 'UTC'")
        yield connection
        connection.rollback()


def fill(tx, add):
    tx.execute("SET LOCAL timezone = 'UTC'")
    if MORE_ROWS:
        tx.execute("SET LOCAL session_replication_role = replica")  # plans are asked for, not scores
    asset = add("assets", asset_id=ASSET, symbol="AAPL")
    other = add("assets", symbol="MSFT")
    source = add("sources", name="daily", interval="1d")
    minutes = WEEKS * 7 * 1440
    tx.execute(
        "WITH more AS (INSERT INTO assets (symbol, asset_type) SELECT 'M' || n, 'stock' FROM generate_series(1, %s)"
        " AS n"
        " RETURNING asset_id) INSERT INTO candles (asset_id, interval, ts, close)"
        " SELECT m.asset_id, '1m', timestamptz '2024-01-04' + n * interval '1 minute', 1"
        " FROM more AS m, generate_series(0, %s) AS n", (MORE_ROWS // minutes, minutes - 1)
    )
    tx.execute(
        "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)"
        " SELECT a.asset_id, '1d', timestamptz '2024-01-04' + n * interval '1 day', 1, 3, 0.5, 2 + n / 100.0, 10"
        " FROM assets AS a, generate_series(0, %s) AS n", (WEEKS * 7 - 1,)
    )
    tx.execute(
        "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close)"
        " SELECT %s, timestamptz '2024-01-04' + n * interval '1 day', 1, 3, 0.5, 2 + n / 100.0"
        " FROM generate_series(0, %s) AS n WHERE n <> 70", (source, WEEKS * 7 - 1)
    )
    tx.execute(
        "INSERT INTO indicators (asset_id, ts, interval, indicator_type, name, value)"
        " SELECT %s, date_trunc('hour', now()) - n * interval '1 day', '1d', 'rsi', 'rsi_14', n"
        " FROM generate_series(0, 99) AS n", (asset,)
    )
    for ts, kind, active in (("2024-05-01", "buy", True), ("2024-05-02", "sell", True), ("2024-05-03", "hold", False)):
        add("signals", asset_id=asset, ts=ts, signal_type=kind, is_active=active)
    rule = add("strategy_rules", name="fvg", entry_type="gap")
    add("trades", asset_id=asset, strategy_rule_id=rule, trade_type="buy", quantity=1, entry_price=10, exit_price=12,
        entry_time="2024-05-01", exit_time="2024-05-02", status="executed", outcome="win", pnl=2)
    add("trades", asset_id=other, trade_type="buy", quantity=1, entry_price=10, status="executed",
        entry_time="2024-05-01")
    tx.execute("ANALYZE candles")


@pytest.mark.parametrize("name", QUERIES)
def test_heading_names_the_variables_that_the_body_uses(name):
    loaded = query.load(name)
    assert loaded.variables() == {parameter.name for parameter in loaded.parameters}


@pytest.mark.parametrize("name", QUERIES)
def test_columns_are_those_of_the_heading(filled, name):
    with filled.transaction():
        cursor = filled.execute(query.statement(query.load(name), SAMPLES.get(name, {})))
    found = [(column.name, column.type_code) for column in cursor.description]
    expected = [
        (column, filled.execute("SELECT %s::regtype::oid", (kind,)).fetchone()[0])
        for column, kind in query.load(name).columns
    ]
    assert found == expected
    if name in ROWS and not MORE_ROWS:
        assert cursor.rowcount == ROWS[name]


@pytest.mark.parametrize("name", QUERIES)
def test_psql_gives_the_columns_of_the_heading(database, name):
    loaded = query.load(name)
    values = {p.name: p.default for p in loaded.parameters} | SAMPLES.get(name, {})
    variables = [argument for pair in values.items() for argument in ("-v", "=".join(pair))]
    output = subprocess.run(
        ["psql", "-X", "--csv", "-v", "ON_ERROR_STOP=1", *variables, "-d", database.url,
         "-f", config.QUERIES / f"{name}.sql"], capture_output=True, text=True, check=True
    ).stdout
    assert next(csv.reader(io.StringIO(output))) == [column for column, _ in loaded.columns]


@pytest.mark.parametrize(("name", "values", "most"), CHUNKS)
def test_query_touches_no_chunk_it_need_not(filled, name, values, most):
    explain = b"EXPLAIN (ANALYZE, FORMAT JSON) " + query.statement(query.load(name), values).as_bytes(filled)
    touched = set(chunks(filled.execute(explain).fetchone()[0][0]["Plan"]))
    assert 1 <= len(touched) <= most


def chunks(node: dict) -> list[str]:
    """Chunks that a plan really read."""
    name = node.get("Relation Name", "")
    here = [name] if name.startswith("_hyper_") and node["Actual Loops"] else []
    return here + [chunk for child in node.get("Plans", []) for chunk in chunks(child)]


def test_gap_is_the_day_that_is_missing(filled):
    result = query.run(filled, "gaps", SAMPLES["gaps"])
    assert result.columns == ["gap_start", "gap_end", "missing_bars"]
    assert [(start.isoformat(), end.isoformat(), bars) for start, end, bars in result.rows] == [
        ("2024-03-14T00:00:00+00:00", "2024-03-15T00:00:00+00:00", 1)
    ]


def test_csv_and_json_are_the_rows(filled):
    values = {"symbol": "AAPL", "count": "2"}
    rows = list(csv.DictReader(io.StringIO("".join(query.as_csv(filled, "latest_candles", values)))))
    objects = json.loads(query.as_json(filled, "latest_candles", values))
    assert [row["ts"] for row in rows] == ["2024-05-22 00:00:00+00", "2024-05-21 00:00:00+00"]
    assert [row["ts"] for row in objects] == ["2024-05-22T00:00:00+00:00", "2024-05-21T00:00:00+00:00"]
    assert [float(row["close"]) for row in rows] == [row["close"] for row in objects] == [3.39, 3.38]
    assert json.loads(query.as_json(filled, "gaps", {"source": "nobody"})) == []


@pytest.mark.parametrize("hostile", ["x'; DROP TABLE assets; --", "' OR true --", "\\", "$$", ":'interval'"])
def test_value_is_a_value_whatever_it_says(filled, hostile):
    assert query.run(filled, "latest_candles", {"symbol": hostile}).rows == []
    assert filled.execute("SELECT count(*) FROM assets WHERE symbol = 'AAPL'").fetchone() == (1,)


def test_value_of_the_wrong_type_is_refused(filled):
    with pytest.raises(errors.InvalidTextRepresentation), filled.transaction():
        query.run(filled, "daily_bars", {"count": "5; DELETE FROM assets"})


def test_query_cannot_write(tx, monkeypatch, tmp_path):
    (tmp_path / "sneaky.sql").write_text(
        "-- Does it write?\n-- parameters:\n-- columns: setval bigint\n-- cost: none\n"
        "SELECT setval('public.users_user_no_seq', 1000);\n"
    )
    monkeypatch.setattr(config, "QUERIES", tmp_path)
    with pytest.raises(errors.ReadOnlySqlTransaction), tx.transaction():
        query.run(tx, "sneaky", {})


@pytest.mark.parametrize(("name", "values", "named"), [
    ("latest_candels", {}, "latest_candles"), ("latest_candles", {}, "symbol"),
    ("latest_candles", {"symbol": "A", "limit": "3"}, "limit"),
])
def test_wrong_call_says_what_would_be_right(tx, name, values, named):
    with pytest.raises(Problem) as refused:
        query.run(tx, name, values)
    assert named in str(refused.value)
    assert refused.value.exit_code == 2


def test_assignments_are_split_at_the_first_sign():
    assert query.assignments(["key={\"a\": \"b=c\"}", "count=3"]) == {"key": '{"a": "b=c"}', "count": "3"}
    with pytest.raises(Problem):
        query.assignments(["count"])


def test_heading_that_cannot_be_read_is_refused(monkeypatch, tmp_path):
    (tmp_path / "odd.sql").write_text("SELECT 1;\n")
    monkeypatch.setattr(config, "QUERIES", tmp_path)
    with pytest.raises(Problem):
        query.load("odd")
