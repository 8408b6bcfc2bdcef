"""What the engine does with the rows of many series grows with them, and not with their square, in a database whose
tables have no statistics yet: whatever the planner believes of them."""

from __future__ import annotations

import contextlib
import re

import pytest
from quality_support import MINUTE, START, bars, configure, copy, insert

COUNT, STORED = 120, 40


@pytest.fixture
def sources(tx):
    """Series with some rows, which were loaded just now."""
    ids = [r[0] for r in tx.execute(
        "INSERT INTO sources (name, data_type, interval) SELECT 'many ' || i, 'ohlcv', '1m'"
        "  FROM generate_series(1, %s) AS i RETURNING source_id", [COUNT]).fetchall()]
    copy(tx, [row for s in ids for row in bars(s, [100 + 0.01 * (i % 7) for i in range(STORED)])])
    return ids


@contextlib.contextmanager
def explained(tx):
    """The plans of all statements, also those that functions make, with what they did."""
    plans = []

    def handler(notice):
        plans.append(notice.message_primary)

    tx.add_notice_handler(handler)
    tx.execute("LOAD 'auto_explain'; SET LOCAL auto_explain.log_min_duration = 0")
    tx.execute("SET LOCAL auto_explain.log_analyze = on; SET LOCAL auto_explain.log_nested_statements = on")
    tx.execute("SET LOCAL client_min_messages = log")
    yield plans
    tx.execute("SET LOCAL auto_explain.log_min_duration = -1; SET LOCAL client_min_messages = notice")
    tx.remove_notice_handler(handler)


def looked_at(plan):
    """How many rows the node of a plan that looked at most of them looked at, with those that it passed over."""
    most, loops = (0, ""), 1
    for line in plan.splitlines():
        if node := re.search(r"rows=(\d+)(?:\.\d+)? loops=(\d+)\)", line):
            loops, name = int(node[2]), line.strip()
            most = max(most, (int(node[1]) * loops, name))
        elif passed := re.search(r"Rows Removed by (?:Join )?Filter: (\d+)", line):
            most = max(most, (int(passed[1]) * loops, name))
    return most


def test_rows_of_many_series_are_read_once_to_remember_them(tx, sources):
    """After a load the first statement of a feed is not to work out all series again for each of them."""
    with explained(tx) as plans:
        insert(tx, [bars(s, [100.0], at=START + STORED * MINUTE)[0] for s in sources])
    (plan,) = [p for p in plans if "Update on series_memory" in p and "WindowAgg" in p]
    assert max(int(n) for n in re.findall(r"WindowAgg .* loops=(\d+)\)", plan)) == 1
    assert tx.execute("SELECT count(*) FROM _tidemark.series_memory WHERE newest IS NOT NULL").fetchone()[0] >= COUNT


def test_penalties_are_looked_up_by_series(tx, sources):
    """Many series have a row at the same time: where all of them break a rule, to look at all penalties of that time
    for each of them is to look at their square."""
    configure(tx, "validation_rules", applies_to="timeseries_data", rule_type="range",
              parameters={"column": "volume", "max": 10})
    for n in range(2):
        insert(tx, [bars(s, [100.0], at=START + (STORED + n) * MINUTE)[0] for s in sources])
    with explained(tx) as plans:
        tx.execute("UPDATE timeseries_data SET volume = 5 WHERE timestamp = %s", [START + STORED * MINUTE])
        tx.execute("UPDATE timeseries_data SET timestamp = timestamp + interval '1 hour' WHERE timestamp = %s",
                   [START + (STORED + 1) * MINUTE])
    found = [p for p in plans if re.search(r"(Scan|Delete) .*on quality_issues", p)]
    assert found
    assert max(map(looked_at, found)) <= (2 * STORED * COUNT, "~")
    assert tx.execute("SELECT count(*) FROM quality_issues WHERE ts = %s", [START + STORED * MINUTE]).fetchone() == (0,)


def test_lapses_are_counted_once(tx, sources):
    """Those of many series become one of each, with a look at each of them."""
    for n in range(2):
        insert(tx, [bars(s, [100.0], at=START + (STORED + n) * MINUTE)[0] for s in sources])
    lapses = "SELECT count(*), sum(weight) FROM _tidemark.memory_lapses WHERE series IS NOT NULL"
    for _ in range(20):
        tx.execute("SELECT _tidemark.lapse('timeseries_data', array_agg(jsonb_build_object('source_id', s)))"
                   "  FROM unnest(%s::integer[]) AS s", [sources])
    assert tx.execute(lapses).fetchone() == (20 * COUNT, 20 * COUNT)
    with explained(tx) as plans:
        insert(tx, [bars(s, [100.0], at=START + (STORED + 2) * MINUTE)[0] for s in sources])
    (plan,) = [p for p in plans if "Delete on memory_lapses" in p]
    assert looked_at(plan) <= (25 * COUNT, "~")
    assert tx.execute(lapses).fetchone() == (COUNT, 20 * COUNT)


def test_anomalies_are_linked_and_recorded_in_one_pass(tx, sources):
    """Each with the rows between it and the one before, and with its old version for the record."""
    rows = [row for s in sources for row in bars(
        s, [(120 if i % 40 == 39 else 100) + 0.01 * (i % 7) for i in range(480)], at=START + 60 * MINUTE)]
    with explained(tx) as plans:
        copy(tx, rows)
    count = tx.execute("SELECT count(*) FROM anomalies").fetchone()[0]
    linking = [p for p in plans if "CTE headed" in p]
    recording = [p for p in plans if "bool_or((o.r)" in p]
    assert linking and recording, count  # in bulk, as there are more than 1000
    assert max(map(looked_at, linking + recording)) <= (4 * count, "~")


def test_waiting_bars_are_looked_up_among_new_rows(tx, sources):
    """Rows of history that arrive while bars wait for their close are not read once for each of these."""
    now = tx.execute("SELECT date_trunc('minute', now())").fetchone()[0]
    tx.execute("INSERT INTO _tidemark.waiting_bars (hypertable, series, ts, closes_at)"
               " SELECT 'timeseries_data'::regclass, jsonb_build_object('source_id', s), %s, %s"
               "  FROM unnest(%s::integer[]) AS s", [now, now + 10 * MINUTE, sources])
    closed = [s for i, s in enumerate(sources) if i % 2]
    with explained(tx) as plans:
        insert(tx, [row for s in sources for row in bars(s, [100.0] * 20, at=START + STORED * MINUTE)])
        insert(tx, [bars(s, [100.0], at=now + MINUTE / 2)[0] for s in closed])
    found = [p for p in plans if "new_rows" in p and "on waiting_bars" in p]
    assert found
    assert max(map(looked_at, found)) <= (20 * COUNT, "~")
    waiting = tx.execute("SELECT (series ->> 'source_id')::integer FROM _tidemark.waiting_bars ORDER BY 1").fetchall()
    assert [s for (s,) in waiting] == sorted(set(sources) - set(closed))


def test_updated_rows_are_compared_in_one_pass(tx, sources):
    """Also where the session's first UPDATE was of one row, and the plan made for that."""
    update = "UPDATE timeseries_data SET volume = 5 WHERE timestamp < %s AND source_id = ANY (%s)"
    end = START + 5 * MINUTE
    tx.execute(update, [START + MINUTE / 2, sources[:1]])
    with explained(tx) as plans:
        tx.execute(update, [end, sources])
    (plan,) = [p for p in plans if "FROM old_rows AS d" in p or "FROM old_rows AS o" in p]
    assert looked_at(plan) <= (5 * COUNT * 2, "~")
