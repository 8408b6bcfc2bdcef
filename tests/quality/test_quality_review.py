"""Anomalies as people meet them: episodes, notifications, reviews, reports."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import psycopg
import pytest
from conftest import adder
from quality_support import MINUTE, START, anomalies, bars, configure, copy, everything, insert, scores, walk
from test_quality_detector import with_errors


def spiked(length, *at, factor=10.0, seed=1):
    prices = walk(length, seed, heavy=0)
    for i in at:
        prices[i] *= factor
    return prices


def episodes(tx):
    """The rows, counted from the start, of each episode."""
    found = {}
    for at, head in tx.execute(
        "SELECT a.timestamp, e.timestamp FROM anomalies AS a JOIN anomalies AS e ON e.anomaly_id ="
        " a.episode_id ORDER BY 1"
    ):
        found.setdefault(head, []).append((at - START) // MINUTE)
    return list(found.values())


def test_anomalies_up_to_twenty_rows_apart_are_one_episode(tx, add):
    copy(tx, bars(add("sources", interval="1m"), spiked(400, 150, 170, 190, 211, 300)))
    assert episodes(tx) == [[150, 170, 190], [211], [300]]


@pytest.mark.parametrize(("apart", "expected"), [
    (1, [[150], [170], [190], [230]]), (40, [[150, 170, 190, 230]]), (39, [[150, 170, 190], [230]]),
])
def test_the_profile_says_how_far_apart_they_may_be(tx, add, apart, expected):
    rows = bars(add("sources", interval="1m", quality_profile_id=configure(
        tx, "quality_profiles", episode_rows=apart, required_fields=["close"]
    )), spiked(300, 150, 170, 190, 230))
    copy(tx, rows[:140])
    for row in rows[140:]:
        insert(tx, [row])
    assert episodes(tx) == expected
    tx.execute("UPDATE anomalies SET episode_id = NULL")
    tx.execute("SELECT rescore('timeseries_data')")
    assert episodes(tx) == expected


def test_a_level_that_stays_away_is_flagged_until_it_is_usual(tx, add):
    profile = configure(tx, "quality_profiles", transform="level", required_fields=["value"])
    values = [math.sin(i) + (30 if 200 <= i < 210 else 0) for i in range(240)]
    source_id = add("sources", data_type="scalar", quality_profile_id=profile)
    copy(tx, [(source_id, START + i * MINUTE, v) for i, v in enumerate(values)], columns="source_id, timestamp, value")
    assert episodes(tx) == [list(range(200, 207))], "until the others of its height make it usual"


def test_late_rows_join_and_cut_episodes(tx, add):
    source_id = add("sources", interval="1m")
    rows = bars(source_id, spiked(500, 150, 170, 190, 210, 400))
    insert(tx, [row for i, row in enumerate(rows) if i != 180])
    assert episodes(tx) == [[150, 170, 190, 210], [400]]
    insert(tx, [rows[180]])
    tx.execute("DELETE FROM timeseries_data WHERE timestamp = %s", [rows[170][1]])
    tx.execute("SELECT rescore('timeseries_data')")
    assert episodes(tx) == [[150], [190, 210], [400]]
    insert(tx, [rows[170]])
    assert episodes(tx) == [[150, 170, 190, 210], [400]]
    tx.execute(
        "UPDATE timeseries_data SET open = open / 10, close = open / 10, high = open / 10, low = open / 10"
        " WHERE timestamp = %s",
        [rows[150][1]],
    )
    assert episodes(tx) == [[170, 190, 210], [400]]


def test_one_notification_for_an_episode(db):
    with db.connect() as connection, db.connect() as listener:
        add = adder(connection)
        source_id = add("sources", interval="1m")
        listener.execute("LISTEN tidemark_anomaly")
        rows = bars(source_id, spiked(400, 200, 205, 210, 300))
        copy(connection, rows[:206])
        insert(connection, rows[206:212])
        insert(connection, rows[212:])
        heard = [json.loads(note.payload) for note in listener.notifies(timeout=0.5)]
        # Everybody may listen: of the series and its figures those learn who may read anomalies.
        keys = [h.pop("episode_id") for h in heard]
        assert heard == [
            {"table": "timeseries_data", "anomalies": 2, "severity": "black_swan", "kind": "split_candidate"},
            {"table": "timeseries_data", "anomalies": 1, "severity": "black_swan", "kind": "split_candidate"},
        ]
        assert set(keys) == {
            e for (e,) in connection.execute("SELECT DISTINCT episode_id FROM anomalies")
        }
        connection.execute("TRUNCATE timeseries_data")
        connection.execute("SET tidemark.ingest_mode = 'backfill'")
        copy(connection, rows)
        assert list(listener.notifies(timeout=0.2)) == [], "history alarms nobody"


@pytest.mark.parametrize("status", ["acknowledged", "confirmed_error", "real_event", "expected", "dismissed"])
def test_review(tx, add, status):
    copy(tx, bars(add("sources", interval="1m"), spiked(400, 200, 205)))
    (first, second) = [i for (i,) in tx.execute("SELECT anomaly_id FROM anomalies ORDER BY timestamp")]
    tx.execute("SET LOCAL tidemark.actor = 'jill'")
    assert tx.execute("SELECT review_anomaly(%s, %s, 'seen')", [first, status]).fetchone() == (1,)
    assert tx.execute(
        "SELECT status::text, reviewed_by, reviewed_at IS NOT NULL, notes FROM anomalies ORDER BY timestamp"
    ).fetchall() == [
        (status, "jill", True, "seen"),
        ("open", None, False, None),
    ]
    assert tx.execute("SELECT review_anomaly(%s, %s, p_whole_episode => true)", [second, status]).fetchone() == (2,)
    tx.execute("SET LOCAL tidemark.actor = ''")
    tx.execute("SELECT review_anomaly(%s, %s)", [first, status])
    assert tx.execute("SELECT reviewed_by = session_user FROM anomalies WHERE anomaly_id = %s", [first]).fetchone() == (
        True,
    )
    tx.execute("SELECT review_anomaly(%s, 'open')", [first])
    assert tx.execute("SELECT reviewed_by, reviewed_at FROM anomalies WHERE anomaly_id = %s", [first]).fetchone() == (
        None,
        None,
    )
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        tx.execute("SELECT review_anomaly(-1, 'open')")
    assert refused.value.sqlstate == "TM212"


def test_confirmed_error_leaves_later_baselines_on_rescore(tx, add):
    one, other = add("sources", interval="1m"), add("sources", interval="1m")
    prices = with_errors(
        spiked(500, 200, 201, seed=3), 3, 0.02
    )  # two bad rows in a row: the second hides behind the first
    copy(tx, bars(one, prices) + bars(other, [p if i not in (200, 201) else None for i, p in enumerate(prices)]))
    for i in (200, 201):
        found = tx.execute(
            "SELECT anomaly_id FROM anomalies WHERE source_id = %s AND timestamp = %s", [one, START + i * MINUTE]
        ).fetchone()
        if found:
            tx.execute("SELECT review_anomaly(%s, 'confirmed_error')", found)
            tx.execute(
                "SELECT rescore('timeseries_data', %s, %s)", [json.dumps({"source_id": one}), START + 200 * MINUTE]
            )
    after = {at: v for at, v in anomalies(tx, one).items() if at > START + 201 * MINUTE}
    assert after == {at: v for at, v in anomalies(tx, other).items() if at > START + 201 * MINUTE}
    assert anomalies(tx, one).keys() >= {START + 200 * MINUTE, START + 201 * MINUTE}
    assert scores(tx, one)[200] == 75, "the verdict on the error itself stands"


def test_real_event_stays_in_the_baseline(tx, add):
    source_id = add("sources", interval="1m")
    copy(tx, bars(source_id, spiked(400, 200, 205, 250, factor=1.2)))
    before = everything(tx)
    tx.execute("SELECT review_anomaly(anomaly_id, 'real_event') FROM anomalies")
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    after = everything(tx)
    assert [row[:11] for row in after["anomalies"]] == [row[:11] for row in before["anomalies"]]


def test_review_ends_when_the_value_is_corrected(tx, add):
    source_id = add("sources", interval="1m")
    prices = spiked(400, 200)
    copy(tx, bars(source_id, prices))
    tx.execute("SELECT review_anomaly(anomaly_id, 'confirmed_error') FROM anomalies")
    at = START + 200 * MINUTE
    tx.execute("UPDATE timeseries_data SET close = close * 2, high = high * 2 WHERE timestamp = %s", [at])
    assert tx.execute("SELECT status::text, reviewed_by FROM anomalies WHERE timestamp = %s", [at]).fetchone() == (
        "open",
        None,
    )
    tx.execute("SELECT review_anomaly(anomaly_id, 'confirmed_error') FROM anomalies WHERE timestamp = %s", [at])
    p = prices[200] / 10
    tx.execute(
        "UPDATE timeseries_data SET open = %s, high = %s, low = %s, close = %s WHERE timestamp = %s", [p, p, p, p, at]
    )
    assert tx.execute("SELECT count(*) FROM anomalies").fetchone() == (0,)
    assert set(scores(tx, source_id)) == {100}


def test_queue_shows_open_episodes_largest_first(tx, add):
    one, other = add("sources", interval="1m"), add("sources", interval="1m")
    copy(tx, bars(one, spiked(400, 200, 205, 300)) + bars(other, spiked(400, 200, factor=1000.0)))
    queue = tx.execute(
        "SELECT source_id, starts_at, anomalies, waiting, severity::text, abs(z_score) FROM anomaly_queue"
    ).fetchall()
    assert [row[5] for row in queue] == sorted((row[5] for row in queue), reverse=True)
    assert sorted(row[:5] for row in queue) == [
        (one, START + 200 * MINUTE, 2, 2, "black_swan"),
        (one, START + 300 * MINUTE, 1, 1, "black_swan"),
        (other, START + 200 * MINUTE, 1, 1, "black_swan"),
    ]
    tx.execute(
        "SELECT review_anomaly(episode_id, 'dismissed', p_whole_episode => true) FROM anomaly_queue WHERE anomalies = 2"
    )
    assert len(tx.execute("SELECT FROM anomaly_queue").fetchall()) == 2


def test_report(tx, add):
    source_id = add("sources", interval="1h")
    prices = spiked(24 * 20, 300, 301, 400)
    rows = bars(source_id, prices, step=timedelta(hours=1))
    rows[310] = (*rows[310][:2], None, *rows[310][3:])
    rows[311] = (*rows[311][:6], -1.0)
    copy(tx, rows)
    report = tx.execute(
        "SELECT day, row_count, scored, mean_score, completeness, timeliness, consistency, validation, anomalies,"
        " exceedance_rate FROM quality_report WHERE source_id = %s ORDER BY day",
        [source_id],
    ).fetchall()
    assert len(report) == 20
    assert sum(row[1] for row in report) == len(rows)
    day = report[300 // 24]
    flagged = [at for at in anomalies(tx, source_id) if at.date() == day[0].date()]
    lost = sum(100 - s for s in scores(tx, source_id)[288:312])
    assert (day[1:3], day[4:6], day[7:]) == ((24, 24), (1, 0), (1, len(flagged), len(flagged) / 24))
    assert day[6] == 2, "the first of two bad rows in a row, and the return: the median of three has moved by then"
    assert float(day[3]) == pytest.approx(100 - lost / 24, abs=0.006)
    assert (
        tx.execute(
            "SELECT series, day, row_count, mean_score, completeness, consistency, validation, anomalies FROM"
            " quality_report ORDER BY 2"
        ).fetchall()
        == tx.execute(
            "SELECT series, day, row_count, mean_score, completeness, consistency, validation, anomalies FROM"
            " quality_report_of('timeseries_data') ORDER BY 2"
        ).fetchall()
    )
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        tx.execute("SELECT FROM quality_report_of('assets')")
    assert refused.value.sqlstate == "TM210"


def test_report_of_some_days_reads_the_chunks_of_these_days(tx, add):
    source_id = add("sources", interval="1d")
    copy(tx, bars(source_id, walk(1000, 1), step=timedelta(days=1)))
    plan = "\n".join(
        line
        for (line,) in tx.execute(
            "EXPLAIN SELECT * FROM quality_report WHERE table_name = 'timeseries_data' AND day >= '2024-06-01'"
            " AND day < '2024-06-10'"
        )
    )
    assert len(tx.execute("SELECT show_chunks('timeseries_data')").fetchall()) > 30
    assert len({word for word in plan.split() if word.startswith("_hyper_")}) <= 2
