"""Lineage without cycles, insights that rest on trades that exist, equity curves."""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid

import psycopg
import pytest
from conftest import adder
from psycopg import errors

NOON = dt.datetime(2025, 6, 2, 12, tzinfo=dt.UTC)


@pytest.fixture
def edge(add):
    """`edge("model a", "table b")`: a was derived from b."""

    def make(target, upstream, **columns):
        (target_kind, target_ref), (upstream_kind, upstream_ref) = target.split(" ", 1), upstream.split(" ", 1)
        return add("lineage", target_kind=target_kind, target_ref=target_ref, upstream_kind=upstream_kind,
                   upstream_ref=upstream_ref, **columns)

    return make


@pytest.fixture
def walk(tx):
    def read(direction, kind, ref):
        return {
            f"{row[1]} {row[2]}": (row[0], row[3], row[4]) for row in tx.execute(
                psycopg.sql.SQL("SELECT depth, kind::text, ref, transformation, path FROM {}(%s, %s)").format(
                    psycopg.sql.Identifier(f"lineage_{direction}")), (kind, ref)
            )
        }

    return read


def test_lineage_is_walked_both_ways_by_shortest_paths(edge, walk):
    edge("table prices", "file a.csv", transformation="load")
    edge("feature trend", "table prices", transformation="slope")
    edge("model m", "feature trend", transformation="fit")
    edge("model m", "table prices", transformation="fit too")
    edge("signal s", "model m", transformation="predict")
    edge("feature other", "file b.csv")
    assert walk("upstream", "signal", "s") == {
        "model m": (1, "predict", ["signal s", "model m"]),
        "feature trend": (2, "fit", ["signal s", "model m", "feature trend"]),
        "table prices": (2, "fit too", ["signal s", "model m", "table prices"]),
        "file a.csv": (3, "load", ["signal s", "model m", "table prices", "file a.csv"]),
    }
    assert walk("downstream", "file", "a.csv") == {
        "table prices": (1, "load", ["file a.csv", "table prices"]),
        "feature trend": (2, "slope", ["file a.csv", "table prices", "feature trend"]),
        "model m": (2, "fit too", ["file a.csv", "table prices", "model m"]),
        "signal s": (3, "predict", ["file a.csv", "table prices", "model m", "signal s"]),
    }
    assert walk("upstream", "file", "a.csv") == walk("downstream", "signal", "s") == {}
    assert walk("upstream", "file", "unknown") == {}


def test_walk_tells_the_newest_version_of_an_edge(edge, walk):
    edge("table t", "file f", version="2", transformation="new")
    edge("table t", "file f", version="1", transformation="written last")
    assert walk("upstream", "table", "t") == {"file f": (1, "written last", ["table t", "file f"])}


def test_thing_reached_in_many_ways_is_walked_once(edge, walk):
    # A ladder of 25 rungs has 2^25 paths.
    for rung in range(25):
        for side in "ab":
            for below in "ab":
                edge(f"table {rung + 1}{side}", f"table {rung}{below}")
    assert len(walk("upstream", "table", "25a")) == 50


@pytest.mark.parametrize("length", [2, 3, 7])
def test_edge_that_closes_a_cycle_is_refused(tx, edge, length):
    for number in range(length - 1):
        edge(f"table {number}", f"table {number + 1}")
    with pytest.raises(errors.Error) as refused, tx.transaction():
        edge(f"table {length - 1}", "table 0")
    assert refused.value.sqlstate == "TM613"
    edge(f"file {length - 1}", "table 0")


def test_cycle_within_one_statement_or_by_update_is_refused(tx, edge):
    with pytest.raises(errors.Error) as refused, tx.transaction():
        tx.execute(
            "INSERT INTO lineage (target_kind, target_ref, upstream_kind, upstream_ref)"
            " SELECT 'table', i, 'table', (i + 1) % 4 FROM generate_series(0, 3) AS i"
        )
    assert refused.value.sqlstate == "TM613"
    edge("table a", "table b")
    edge("table b", "table c")
    with pytest.raises(errors.Error) as refused:
        tx.execute("UPDATE lineage SET upstream_ref = 'a' WHERE upstream_ref = 'c'")
    assert refused.value.sqlstate == "TM613"


@pytest.mark.parametrize(("isolation", "refusal"), [
    ("READ COMMITTED", "TM613"), ("REPEATABLE READ", "40001"), ("SERIALIZABLE", "40001"),
])
def test_two_writers_cannot_close_a_cycle_between_them(db, isolation, refusal):
    statement = ("INSERT INTO lineage (target_kind, target_ref, upstream_kind, upstream_ref)"
                 " VALUES ('table', %s, 'table', %s)")
    with db.connect() as first, db.connect() as second, db.connect() as watcher:
        for connection in (first, second):
            connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            connection.execute("SELECT 1 FROM lineage")
        first.execute(statement, ("a", "b"))
        outcome = []

        def rival():
            try:
                second.execute(statement, ("b", "a"))
            except errors.Error as error:
                outcome.append(error.sqlstate)

        thread = threading.Thread(target=rival)
        thread.start()
        while not watcher.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]:
            assert thread.is_alive(), "the second writer has to wait for the first"
        first.execute("COMMIT")
        thread.join()
        second.rollback()
        assert outcome == [refusal]
        assert watcher.execute("SELECT count(*) FROM lineage").fetchone() == (1,)


@pytest.fixture
def asset(add):
    return add("assets")


@pytest.fixture
def trade(add, asset):
    return lambda: add("trades", asset_id=asset, trade_type="buy", quantity=1)


@pytest.fixture
def insight(add):
    return lambda *trades, **columns: add("learning_entries", insight="i", supporting_trades=list(trades), **columns)


def test_insight_rests_on_trades_that_exist(tx, trade, insight):
    known = trade()
    insight()
    insight(known, trade(), known)
    for trades in ([uuid.uuid4()], [known, uuid.uuid4()], [known, None]):
        for write in (lambda t: insight(*t),
                      lambda t: tx.execute("UPDATE learning_entries SET supporting_trades = %s", (t,))):
            with pytest.raises(errors.Error) as refused, tx.transaction():
                write(trades)
            assert refused.value.sqlstate == "TM612"


def test_trade_that_an_insight_rests_on_stays(tx, trade, insight):
    held, free = trade(), trade()
    insight(held)
    for statement in ("DELETE FROM trades", "UPDATE trades SET trade_id = gen_random_uuid()", "TRUNCATE trades"):
        with pytest.raises(errors.Error) as refused, tx.transaction():
            tx.execute(statement)
        assert refused.value.sqlstate == "TM612", statement
    tx.execute("UPDATE trades SET reasoning = 'r'")
    tx.execute("DELETE FROM trades WHERE trade_id = %s", (free,))
    tx.execute("DELETE FROM learning_entries")
    tx.execute("DELETE FROM trades")
    insight()
    tx.execute("TRUNCATE trades")


@pytest.mark.parametrize("deleter_is_first", [True, False])
def test_insight_and_deletion_at_the_same_time_leave_no_dangling_trade(db, deleter_is_first):
    with db.connect() as one, db.connect() as two, db.connect() as watcher:
        add = adder(watcher)
        trade = add("trades", asset_id=add("assets"), trade_type="buy", quantity=1)
        statements = [("DELETE FROM trades", ()),
                      ("INSERT INTO learning_entries (insight, supporting_trades) VALUES ('i', %s)", ([trade],))]
        if not deleter_is_first:
            statements.reverse()
        one.execute("BEGIN")
        one.execute(*statements[0])
        outcome = []

        def rival():
            try:
                two.execute(*statements[1])
            except errors.Error as error:
                outcome.append(error.sqlstate)

        thread = threading.Thread(target=rival)
        thread.start()
        while not watcher.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]:
            assert thread.is_alive(), "the second has to wait for the first"
        one.execute("COMMIT")
        thread.join()
        assert outcome == ["TM612"]


def test_similar_insights_are_found_where_there_are_embeddings(tx, insight):
    notices = []
    tx.add_notice_handler(lambda notice: notices.append(notice.severity_nonlocalized))

    def similar(embedding, limit=10):
        return tx.execute("SELECT entry_id, similarity FROM similar_insights(%s, %s)", (embedding, limit)).fetchall()

    if tx.execute("SELECT to_regtype('public.vector')").fetchone() == (None,):
        assert similar([1.0, 0.0]) == []
        assert notices == ["NOTICE"]
        return
    keys = [insight(embedding=json.dumps(embedding)) for embedding in ([0, 2], [3, 0], [1, 1], [-1, 0])]
    insight()
    insight(embedding="[1, 0, 0]")
    found = similar([1.0, 0.0])
    assert [key for key, _ in found] == [keys[1], keys[2], keys[0], keys[3]]
    assert [similarity for _, similarity in found] == pytest.approx([1, 0.5**0.5, 0, -1])
    assert [key for key, _ in similar([0.0, 1.0], 1)] == [keys[0]]
    assert notices == []


@pytest.fixture
def backtest(add, asset):
    def make(curve):
        config = add("backtest_configs", strategy_id=add("strategies", name="s"), name="c", asset_universe=[asset],
                     interval="1d", period_start=NOON, period_end=NOON + dt.timedelta(days=9))
        return add("backtest_results", config_id=config, period_start=NOON, period_end=NOON + dt.timedelta(days=9),
                   equity_curve=json.dumps(curve))

    return make


def test_equity_curve_is_read_in_time_order_with_its_drawdown(tx, backtest):
    days = [NOON + dt.timedelta(days=number) for number in range(4)]
    key = backtest([{"ts": day.isoformat(), "equity": equity} for day, equity in
                    zip([days[2], days[0], days[1], days[3]], [90, 100, 120, 150], strict=True)])
    assert tx.execute("SELECT * FROM equity_curve(%s)", (key,)).fetchall() == [
        (days[0], 100, 0), (days[1], 120, 0), (days[2], 90, 0.25), (days[3], 150, 0)
    ]
    assert tx.execute("SELECT * FROM equity_curve(%s)", (backtest([]),)).fetchall() == []


def test_equity_curve_of_nothing_is_an_error(tx):
    with pytest.raises(errors.Error) as refused:
        tx.execute("SELECT * FROM equity_curve(0)")
    assert refused.value.sqlstate == "TM615"


def test_backtest_that_tests_nothing_is_refused(tx, add, asset, backtest):
    with pytest.raises(errors.CheckViolation) as refused, tx.transaction():
        backtest({"ts": 1})
    assert refused.value.diag.constraint_name == "backtest_results_equity_curve_is_array"
    with pytest.raises(errors.CheckViolation) as refused:
        add("backtest_configs", name="c", asset_universe=[asset], interval="1d", period_start=NOON,
            period_end=NOON + dt.timedelta(days=9))
    assert refused.value.diag.constraint_name == "backtest_configs_tests_something"
