"""`tidemark chart`: which series, how much of it, from where it is read, and what it says where it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from conftest import adder
from psycopg import sql

from see.conftest import HOUR, START
from tidemark import chart as charts
from tidemark.errors import Problem


def drawn(connection, name="BTCUSDT", **options):
    return charts.read(connection, charts.find(connection, name), **options)


def test_bars_marks_gaps_and_levels_are_what_the_database_has(desk, asked):
    chart = drawn(asked)
    assert [(b.ts, b.open, b.high, b.low, b.close, b.volume) for b in chart.bars] == asked.execute(
        "SELECT ts, open, high, low, close, volume FROM candles WHERE asset_id = %s ORDER BY ts", (desk.asset,)
    ).fetchall()
    assert {(m.ts, m.z_score, m.status) for m in chart.marks if m.z_score is not None} == set(asked.execute(
        "SELECT timestamp, z_score, status::text FROM anomalies WHERE asset_id = %s", (desk.asset,)).fetchall())
    assert chart.gaps == [(*desk.gap, 10)]
    assert [(level.price, level.condition) for level in chart.levels] == [(104, "above")]
    by_kind = {mark.kind: mark for mark in chart.marks}
    assert (by_kind["late"].ts, by_kind["late"].points) == (desk.late, 20)
    assert (by_kind["penalised"].ts, by_kind["penalised"].points) == (desk.impossible, 10)
    assert "candles_bar_consistent" in by_kind["penalised"].detail
    assert (by_kind["split"].ts, by_kind["split"].status, by_kind["split"].detail) == (desk.split, "expected",
                                                                                     "two for one")


def test_expected_value_is_the_price_before_moved_by_the_baseline(desk, asked):
    mark = next(mark for mark in drawn(asked).marks if mark.ts == desk.spike)
    before = desk.prices[499]
    assert mark.expected == pytest.approx(before, rel=0.001) and abs(mark.value - before) > 0.05 * before


@pytest.mark.parametrize(("transform", "expected"), [("level", 600), ("difference", 605)])
def test_expected_value_is_in_units_of_the_value_whatever_is_judged(tx, transform, expected):
    """Of a baseline around 600 with a step of 5: what is expected next is 600 by level, the last value by step."""
    add = adder(tx)
    tx.execute("SET LOCAL tidemark.reason = 'a test'")
    profile = add("quality_profiles", name="own", transform=transform, required_fields="{value}")
    source = add("sources", name="own", data_type="scalar", interval="1h", quality_profile_id=profile)
    with tx.cursor().copy("COPY timeseries_data (source_id, timestamp, value) FROM STDIN") as stream:
        for n in range(121):
            stream.write_row((source, START + n * HOUR, 9000 if n == 120 else 605 if n % 2 else 595))
    (mark,) = (m for m in drawn(tx, "own").marks if m.z_score is not None)
    assert mark.ts == START + 120 * HOUR
    assert mark.expected == pytest.approx(expected, abs=1 if transform == "level" else 0.2)


@pytest.mark.parametrize(("options", "count"), [
    ({"start": START, "end": START + 5 * HOUR}, 5), ({"last": timedelta(hours=3)}, 3),
    ({"end": START + 2 * HOUR}, 2), ({"start": START + 1000 * HOUR}, 8),
])
def test_period_begins_at_its_start_and_ends_before_its_end(asked, options, count):
    assert len(drawn(asked, **options).bars) == count


def test_longer_spans_are_read_from_the_aggregate_that_matches(tx):
    add = adder(tx)
    tx.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
    asset = add("assets", symbol="LONG", asset_type="crypto")
    tx.execute(
        "INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)"
        " SELECT %s, '1m', t + m * interval '1 minute', 1, 2 + m, 1, 1, 1 FROM generate_series(%s::timestamptz, %s,"
        " '7 days') AS t, generate_series(0, 2) AS m", (asset, datetime(2014, 1, 6, tzinfo=UTC),
                                                        datetime(2024, 1, 1, tzinfo=UTC)))
    series = charts.find(tx, "LONG")
    for last, width, relation in ((timedelta(minutes=30), "1m", "candles"), (timedelta(days=3), "5m", "candles_5m"),
                                  (timedelta(days=30), "30m", "candles_15m"), (timedelta(days=60), "1h", "candles_1h"),
                                  (timedelta(days=200), "4h", "candles_4h"), (timedelta(days=365), "1d", "candles_1d"),
                                  (timedelta(days=3650), "1w", "candles_1d")):
        chart = charts.read(tx, series, last=last)
        assert (chart.width, chart.relation) == (width, relation)
        assert 1 <= len(chart.bars) <= charts.BARS
    assert [(bar.high, bar.volume, bar.rows) for bar in chart.bars[-2:]] == [(4, 3, 1), (4, 3, 1)]
    assert any("rows are drawn as" in note and "candles_1d" in note for note in chart.notes)
    assert "gaps are drawn by days" in chart.notes
    assert sum(gap[2] for gap in chart.gaps) == pytest.approx(3650 * 1440, rel=0.01)


def test_no_more_rows_are_read_than_the_bound_and_the_chart_says_so(asked, monkeypatch):
    monkeypatch.setattr(charts, "BARS", 100)
    monkeypatch.setattr(charts, "ROWS", 500)
    monkeypatch.setattr(charts, "MARKS", 2)
    chart = drawn(asked, "hash_rate")
    assert (chart.width, chart.relation, len(chart.bars)) == ("1d", "hourly_values", 42)
    assert chart.notes[0] == "1,008 rows are drawn as 42 bars of 1d, from hourly_values"
    chart = drawn(asked)
    assert len(chart.bars) <= 100
    assert any("the largest" in note for note in chart.notes) or max(chart.counts.values()) <= 2


def test_rows_without_a_distance_are_drawn_each_at_its_instant(tx):
    source = adder(tx)("sources", name="ticks", data_type="scalar")
    times = [START + timedelta(seconds=s) for s in (0, 0.25, 1, 50, 4000)]
    for at in times:
        tx.execute("INSERT INTO timeseries_data (source_id, timestamp, value) VALUES (%s, %s, 5)", (source, at))
    chart = drawn(tx, "ticks")
    assert [bar.ts for bar in chart.bars] == times and chart.width is None and chart.gaps == []
    assert charts.spec(chart, width=300)["layer"]


@pytest.mark.parametrize(("name", "words"), [
    ("BTCUSD", ["BTCUSDT"]), ("btcusdx", ["BTCUSDT"]), ("hashrate", ["hash_rate"]), ("qqqq", ["nearest"]),
])
def test_unknown_series_lists_the_nearest_names(run, name, words):
    result = run("chart", name)
    assert result.exit_code == 2 and result.stdout == ""
    assert all(word in result.stderr for word in ["there is no series", *words])


@pytest.mark.parametrize("period", [["--from", "2030-01-01"], ["--to", "2001-01-01"],
                                    ["--to", "2001-01-01", "--last", "3d"]])
def test_empty_period_says_what_there_is(run, period):
    result = run("chart", "BTCUSDT", *period)
    assert result.exit_code == 2 and result.stdout == ""
    assert "there are rows from 2024-03-04 00:00 to 2024-04-14 23:00" in result.stderr


def test_start_and_length_exclude_each_other(run):
    result = run("chart", "BTCUSDT", "--from", "2024-03-04", "--last", "3d")
    assert result.exit_code == 2 and "exclude" in result.stderr


def test_symbol_with_several_lengths_has_to_say_which(tx):
    add = adder(tx)
    asset = add("assets", symbol="TWO")
    for interval in ("1h", "1d"):
        tx.execute("INSERT INTO candles (asset_id, interval, ts, close) VALUES (%s, %s, %s, 1)",
                   (asset, interval, START))
    with pytest.raises(Problem) as refused:
        charts.find(tx, "two")
    assert "1h" in refused.value.detail and "1d" in refused.value.detail and "--interval" in refused.value.hint
    assert charts.find(tx, "TWO", "daily").interval == "1d"
    with pytest.raises(Problem) as refused:
        charts.find(tx, "TWO", "4h")
    assert "1h" in refused.value.detail


def test_stock_without_a_calendar_has_no_gaps_on_every_weekend(tx):
    asset = adder(tx)("assets", symbol="SHARE", asset_type="stock")
    tx.execute("INSERT INTO candles (asset_id, interval, ts, close) SELECT %s, '1d', t, 1 FROM generate_series("
               "timestamptz '2024-03-04 00:00+00', '2024-03-29', '1 day') AS t WHERE extract(isodow FROM t) < 6",
               (asset,))
    chart = drawn(tx, "SHARE")
    assert chart.gaps == [] and any("no calendar" in note for note in chart.notes)


def test_alerts_are_left_out_for_who_may_not_read_them(desk, asked):
    asked.execute("SET ROLE tidemark_reader")
    chart = drawn(asked)
    assert chart.levels == [] and any("alerts" in note for note in chart.notes)
    asked.execute("RESET ROLE")


@pytest.mark.parametrize(("ending", "beginning"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("html", b"<!doctype html>")])
def test_file_is_what_its_ending_says(run, tmp_path, ending, beginning):
    path = tmp_path / f"chart.{ending}"
    assert run("chart", "BTCUSDT", "-o", str(path)).exit_code == 0
    content = path.read_bytes()
    assert content.startswith(beginning) and len(content) < 5_000_000
    if ending == "svg":
        assert b"var(--" not in content


def test_ending_that_nobody_knows_and_folder_that_is_not_there(run, tmp_path):
    for path in (tmp_path / "chart.gif", tmp_path / "chart", tmp_path / "nowhere" / "chart.html"):
        result = run("chart", "BTCUSDT", "-o", str(path))
        assert result.exit_code == 2 and result.stderr.startswith("tidemark: ") and not path.exists()


@pytest.mark.parametrize("last", ["0d", "-3d", "90", "3 weeks", "x"])
def test_length_of_time_that_is_none(run, last):
    result = run("chart", "BTCUSDT", "--last", last)
    assert result.exit_code == 2 and "length of time" in result.stderr


def test_terminal_shows_blocks_and_figures(asked):
    chart = drawn(asked)
    lines = charts.sketch(chart, 60).splitlines()
    assert lines[0] == "BTCUSDT 1h"
    assert 20 < len(lines[1]) <= 60 and set(lines[1]) <= set(charts.BLOCKS) and {"▁", "█"} <= set(lines[1])
    assert f"last {chart.bars[-1].close:.6g}" in lines[2]
    assert "2 black swan" in lines[3] and "10 bars missing" in lines[3]  # the jump, and the impossible bar


def test_without_the_library_the_sketch_works_and_a_file_says_what_to_install(desk, tmp_path):
    """And nothing heavy is loaded for the help."""
    code = """
        import sys, json
        sys.modules["vl_convert"] = None
        from click.testing import CliRunner
        from tidemark.cli import main
        heavy = [name for name in ("pandas", "pyarrow", "selenium", "tidemark.chart") if name in sys.modules]
        result = CliRunner().invoke(main, ["chart", "BTCUSDT", "-o", sys.argv[1]])
        print(json.dumps([heavy, result.exit_code, result.stderr]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.png")], capture_output=True,
                          text=True, check=True, env={**os.environ, "DATABASE_URL": desk.database.url})
    heavy, code, message = json.loads(done.stdout)
    assert heavy == [] and code == 2 and "tidemark[charts]" in message


def test_reader_may_draw(desk):
    with desk.database.connect() as admin:
        admin.execute("DROP ROLE IF EXISTS tidemark_test_looker")
        admin.execute("CREATE ROLE tidemark_test_looker IN ROLE tidemark_reader")
    try:
        with desk.database.connect() as connection:
            connection.execute(sql.SQL("SET ROLE tidemark_test_looker"))
            assert drawn(connection).bars
    finally:
        with desk.database.connect() as admin:
            admin.execute("DROP ROLE tidemark_test_looker")


def test_series_that_takes_too_long_is_given_up(desk, asked, monkeypatch):
    monkeypatch.setattr(charts, "TIMEOUT", "1ms")
    with pytest.raises((Problem, psycopg.errors.QueryCanceled)) as refused:
        drawn(asked)
    assert isinstance(refused.value, Problem) and "tidemark refresh" in refused.value.hint
