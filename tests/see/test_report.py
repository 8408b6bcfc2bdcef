"""`tidemark report`: its figures are those of SQL over the rows themselves, on the page and in JSON."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from conftest import adder

from see.conftest import HOURS, START
from tidemark import query
from tidemark import report as reports
from tidemark.errors import Problem


@pytest.fixture
def figures(run):
    """What --json prints."""
    result = run("report", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def one(connection, statement, *values):
    return connection.execute(statement, values).fetchone()[0]


def test_rows_scores_and_flags_are_those_of_the_rows(asked, figures):
    expected = {}
    for table, name, series in (
        ("candles", "concat_ws(' ', symbol, exchange, interval)", "JOIN assets USING (asset_id)"),
        ("timeseries_data", "name", "JOIN sources USING (source_id)"),
    ):
        for row in asked.execute(
            f"SELECT {name}, count(*), count(quality_score), round(avg(quality_score), 2)::text,"
            f" count(*) FILTER (WHERE quality_score < 100), count(*) FILTER (WHERE is_anomaly) FROM {table} {series}"
            " GROUP BY 1"
        ):
            expected[table, row[0]] = row[1:]
    assert {(row["table_name"], row["series"]): (row["rows"], row["scored"], row["average_score"], row["below_100"],
                                                 row["anomalies"]) for row in figures["quality"]} == expected


def test_open_episodes_are_those_that_nobody_reviewed_largest_first(asked, figures):
    expected = asked.execute(
        "SELECT episode_id FROM anomalies WHERE episode_id IN (SELECT episode_id FROM anomalies WHERE status = 'open'"
        " AND is_doubtful IS NOT FALSE) GROUP BY 1 ORDER BY max(abs(z_score)) DESC, 1").fetchall()
    assert [(row["episode_id"],) for row in figures["episodes"]] == expected
    assert figures["open_episodes"] == len(expected) > 0
    first = figures["episodes"][0]
    assert first["command"] == f"tidemark anomalies real {expected[0][0]}"
    around = asked.execute(
        "(SELECT ts, close FROM candles WHERE asset_id = %(a)s AND ts < %(t)s ORDER BY ts DESC LIMIT 10) UNION ALL"
        " (SELECT ts, close FROM candles WHERE asset_id = %(a)s AND ts >= %(t)s ORDER BY ts LIMIT 10) ORDER BY 1",
        {"a": first["asset_id"], "t": first["starts_at"]}).fetchall()
    assert [(str(ts), close) for ts, close in around] == [(bar["ts"], bar["close"]) for bar in first["bars"]]


def test_map_counts_what_is_there_and_what_is_due(asked, desk, figures):
    (coin,) = (row for row in figures["coverage"] if row["name"] == "BTCUSDT")
    assert coin["stored"] == one(asked, "SELECT count(*) FROM candles WHERE asset_id = %s", desk.asset) == HOURS - 10
    # Active: more was due every hour until yesterday.
    until = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert coin["expected"] in {(until - START - timedelta(days=n)) // timedelta(hours=1) for n in (-1, 0, 1)}
    (rate,) = (row for row in figures["coverage"] if row["name"] == "hash_rate")
    assert (rate["stored"], rate["expected"]) == (HOURS, HOURS), "paused: nothing is due after its last row"
    for row in figures["coverage"]:
        assert sum(cell["stored"] for cell in row["cells"]) == row["stored"]
        assert row["cells"] == sorted(row["cells"], key=lambda cell: cell["starts_at"])
    gap = [cell for cell in coin["cells"] if cell["starts_at"] <= str(desk.gap[0]) < cell["ends_at"]]
    assert [cell["expected"] - cell["stored"] for cell in gap] == [10]


def test_map_takes_what_is_too_much_on_one_day_for_no_other(tx):
    add = adder(tx)
    source = add("sources", name="sixty", interval="1h", data_type="scalar", status="paused")
    for day, minutes in ((0, 60), (1, 20), (2, 120), (3, 60)):  # 24, 72, 12 and 24 rows
        tx.execute("INSERT INTO timeseries_data (source_id, timestamp, value) SELECT %s, t, 1 FROM generate_series("
                   "%s::timestamptz, %s::timestamptz - interval '1 second', make_interval(mins => %s)) AS t",
                   (source, START + timedelta(days=day), START + timedelta(days=day + 1), minutes))
    rows = query.rows(tx, "coverage_map", cells=1)
    assert [(row.expected, row.stored) for row in rows] == [(96, 84)]
    assert [(row.expected, row.stored) for row in query.rows(tx, "coverage_map", cells=4)] == [
        (24, 24), (24, 24), (24, 12), (24, 24)]


def test_map_knows_nothing_of_what_is_irregular_or_has_no_calendar(tx):
    add = adder(tx)
    for name, columns in {"irregular": {}, "mars": {"interval": "1h", "config": '{"market": "MARS"}'}}.items():
        source = add("sources", name=name, data_type="scalar", **columns)
        tx.execute("INSERT INTO timeseries_data (source_id, timestamp, value) VALUES (%s, %s, 1)", (source, START))
    asset = add("assets", symbol="SHARE", asset_type="stock")
    tx.execute("INSERT INTO candles (asset_id, interval, ts, close) VALUES (%s, '1h', %s, 1)", (asset, START))
    assert {(row.name, row.expected, row.stored) for row in query.rows(tx, "coverage_map")} == {
        ("irregular", None, 1), ("mars", None, 1), ("SHARE", None, 1)}


def test_trend_is_what_the_rows_and_penalties_say(asked, figures):
    assert figures["trend_width"] == "1 day"
    expected = asked.execute("""
        SELECT day, sum(n)::int, round(sum(points)::numeric / nullif(sum(scored), 0), 2)::text FROM (
            SELECT time_bucket('1 day', ts) AS day, count(*) AS n, sum(quality_score) AS points, count(quality_score)
                   AS scored FROM candles GROUP BY 1
            UNION ALL SELECT time_bucket('1 day', timestamp), count(*), sum(quality_score), count(quality_score)
              FROM timeseries_data GROUP BY 1) AS r GROUP BY 1 ORDER BY 1""").fetchall()
    assert [(row["starts_at"], row["rows"], row["average_score"]) for row in figures["trend"]] == [
        (str(day), count, score) for day, count, score in expected]
    for penalty in reports.PENALTIES:
        assert sum(row[penalty] for row in figures["trend"]) == one(
            asked, "SELECT count(*) FROM quality_issues WHERE penalty = %s", penalty)
    assert sum(row["timeliness"] for row in figures["trend"]) == 1


def test_growth_sizes_and_record_are_those_of_the_catalogue(asked, figures):
    assert sum(row["rows"] for row in figures["growth"] if row["table_name"] == "candles") == one(
        asked, "SELECT count(*) FROM candles")
    assert {row["hypertable"]: row["chunks"] for row in figures["hypertables"]} == dict(asked.execute(
        "SELECT hypertable, count(*) FROM chunk_stats GROUP BY 1").fetchall())
    assert figures["record"]["unsealed"] == one(asked, "SELECT count(*) FROM audit_log WHERE audit_id > coalesce("
                                                       "(SELECT max(to_audit_id) FROM audit_seals), 0)")
    assert figures["record"]["seals"] == one(asked, "SELECT count(*) FROM audit_seals")


def test_page_tells_the_figures(run, figures):
    text = html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", run("report").stdout, flags=re.S))
    text = re.sub(r"\s+", " ", text)
    rows = sum(row["rows"] for row in figures["quality"])
    for words in (f"{len(figures['coverage'])} series", f"{rows:,} rows", f"{figures['open_episodes']} episodes wait",
                  f"tidemark anomalies real {figures['episodes'][0]['episode_id']}", "1 rows came late",
                  "2 series are stale", "never sealed"):
        assert words in text


def test_some_series_since_some_day(run):
    result = run("report", "--json", "--series", "BTCUSDT", "--since", "2024-04-01")
    figures = json.loads(result.stdout)
    assert {row["name"] for row in figures["coverage"]} == {"BTCUSDT"}
    assert [row["series"] for row in figures["quality"]] == ["BTCUSDT 1h"]
    assert figures["quality"][0]["rows"] == 14 * 24
    assert all(row["series"] == "BTCUSDT 1h" for row in figures["episodes"])
    assert "BTCUSDT" in run("report", "--series", "BTCUSDT").stdout


@pytest.mark.parametrize(("options", "words"), [
    (["--series", "nobody"], ["nobody", "BTCUSDT"]),
    (["--since", "2090-01-01"], ["2090", "the newest row is of 2024-04-14"]),
])
def test_what_cannot_be_told_is_one_line(run, options, words):
    result = run("report", *options)
    assert result.exit_code == 2 and result.stdout == ""
    assert all(word in result.stderr for word in words)


def test_database_without_rows(tx):
    with pytest.raises(Problem) as refused:
        reports.figures(tx)
    assert "nothing to report" in refused.value.message and refused.value.exit_code == 2


def test_reader_gets_a_page_without_the_record(asked):
    asked.execute("SET ROLE tidemark_reader")
    figures = reports.figures(asked)
    asked.execute("RESET ROLE")
    assert figures["record"] is None and figures["due"] is None and "may not read the record" in reports.page(figures)


def test_page_stays_small_whatever_the_number_of_series(asked):
    """Five hundred series with holes of their own: bounded drawings, everything in JSON."""
    figures = reports.figures(asked)
    cells = figures["coverage"][0]["cells"]
    figures["coverage"] = [
        {**figures["coverage"][0], "name": f"series {n}", "expected": 1000, "stored": 1000 - n,
         "cells": [{**cell, "expected": 10, "stored": 10 - (n + place) % 7} for place, cell in enumerate(cells[:20])]}
        for n in range(500)]
    page = reports.page(figures)
    assert len(page) < 5_000_000 and "400 further series" in page
    assert "series 499" in page and "series 0 " not in page
