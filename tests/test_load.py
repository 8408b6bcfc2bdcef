"""Loading's promises: every record is stored or rejected with its reason, once, whatever interrupts the load."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bokeh_sampledata import stocks as sampledata_stocks
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tidemark import columns, look, readers
from tidemark.columns import INTERVALS, TARGETS, Times
from tidemark.config import ROOT
from tidemark.errors import Problem
from tidemark.formats import said
from tidemark.loader import LoadFailed, load, looked

STOCKS = Path(sampledata_stocks.__file__).parent / "_data" / "stocks.csv.gz"
BARS = [
    ("2024-01-02", 10.0, 12.5, 9.5, 11.0, 1000.0),
    ("2024-01-03", 11.0, 13.0, 10.5, 12.0, 2000.0),
    ("2024-01-04", 12.0, 12.0, 11.0, 11.5, None),
]
NAMES = ("date", "open", "high", "low", "close", "volume")


@pytest.fixture
def conn(db):
    with db.connect() as connection:
        yield connection


@pytest.fixture
def untouched(_shared):
    """A connection for what is refused: it leaves nothing behind."""
    with _shared.connect() as connection:
        yield connection
        assert connection.execute("SELECT count(*) FROM ingestion_tasks").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM sources").fetchone() == (0,)


@pytest.fixture
def file(tmp_path):
    """`file(name, text or bytes)` writes a file, gzipped if the name says so, and returns its path."""

    def write(name: str, content: str | bytes) -> Path:
        content = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


def as_csv(rows, names=NAMES, delimiter=",", quoting=csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerows([names, *rows])
    return text.getvalue()


def minutes(count: int, start: int = 0) -> list[tuple]:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    return [((begin + timedelta(minutes=n)).isoformat(), n % 97 + 0.25) for n in range(start, start + count)]


def series(conn, name="prices", what="value") -> dict[datetime, float]:
    statement = "SELECT timestamp, {} FROM timeseries_data JOIN sources USING (source_id) WHERE name = %s ORDER BY 1"
    return dict(conn.execute(statement.format(what), [name]))


def stored(conn) -> list[tuple]:
    return conn.execute("""SELECT name, timestamp, value, open, high, low, close, volume, metadata
                             FROM timeseries_data JOIN sources USING (source_id) ORDER BY 1, 2""").fetchall()


def rejects(conn) -> dict[int, tuple[str, str]]:
    rows = conn.execute("SELECT line_no, raw, error FROM ingestion_rejects ORDER BY task_id, line_no")
    return {line: (raw, error) for line, raw, error in rows}


def counts(summary) -> tuple[int, int, int]:
    return summary.read, summary.written, summary.rejected


# Formats

FORMATS = {
    "prices.csv": as_csv(BARS),
    "prices.semicolon.csv": as_csv(BARS, delimiter=";"),
    "prices.tsv": as_csv(BARS, delimiter="\t"),
    "prices.quoted.csv": as_csv(BARS, quoting=csv.QUOTE_ALL),
    "prices.crlf.csv": "\ufeff\r\n" + as_csv(BARS).replace("\n", "\r\n\r\n").rstrip(),
    "prices.json": json.dumps([dict(zip(NAMES, bar, strict=True)) for bar in BARS]),
    "prices.pretty.json": json.dumps([dict(zip(NAMES, bar, strict=True)) for bar in BARS], indent=2),
    "prices.ndjson": "\n\n".join(json.dumps(dict(zip(NAMES, bar, strict=True))) for bar in BARS),
    "prices.lines": "\n".join(json.dumps(dict(zip(NAMES, bar, strict=True))) for bar in BARS) + "\n",
    "prices.arrays.json": json.dumps([[int(datetime.fromisoformat(bar[0] + "T00Z").timestamp()) * 1000, *bar[1:]]
                                      for bar in BARS]),
    "prices.nan.json": json.dumps([dict(zip(NAMES, [math.nan if v is None else v for v in bar], strict=True))
                                   for bar in BARS]),
}


def test_every_format_gives_the_same_rows(conn, file):
    for number, (name, content) in enumerate(FORMATS.items()):
        path = file(name + ".gz" if number % 2 else name, content)
        (summary,) = load(conn, [path], table="timeseries_data", source=name)
        assert counts(summary) == (3, 3, 0), name
        assert not summary.already_loaded
    rows: dict[str, list] = {}
    for name, *row in stored(conn):
        rows.setdefault(name, []).append(row)
    expected = [
        [datetime.fromisoformat(bar[0]).replace(tzinfo=UTC), None, *bar[1:], None] for bar in BARS
    ]
    assert rows == {name: expected for name in FORMATS}


def test_real_daily_bars(conn):
    (summary,) = load(conn, [STOCKS], table="timeseries_data", mode="backfill")
    assert counts(summary) == (12154, 12154, 0)
    with gzip.open(STOCKS, "rt") as text:
        expected = {
            (f"stocks:{row['Ticker']}", row["Ticker"], row["Date"]):
            tuple(float(row[name]) for name in ("Open", "High", "Low", "Close", "Volume"))
            for row in csv.DictReader(text)
        }
    rows = conn.execute("""SELECT s.name, a.symbol, t.timestamp::date::text, open, high, low, close, volume
                             FROM timeseries_data AS t JOIN sources AS s USING (source_id)
                             JOIN assets AS a USING (asset_id) WHERE t.metadata IS NULL""").fetchall()
    assert {row[:3]: row[3:] for row in rows} == expected


def test_files_of_one_series_each_are_named_by_their_stem(conn, file):
    load(conn, [
        file("btc_dominance.json", "[[1668556800000, 40.5], [1668643200000, null]]"),
        file("psar_btc.json.gz", "[[1746230400000, 96935.67, -1]]"),
        file("gdp.csv", "DATE,GDP\n2024-01-01,28.3\n2024-04-01,.\n"),
        file("btc_price.json", "[[1645228800000, 39974.45, 40444.32, 39639.03, 40079.17, 18038.7]]"),
    ], table="timeseries_data")
    day = lambda *ymd: datetime(*ymd, tzinfo=UTC)  # noqa: E731
    assert series(conn, "btc_dominance") == {day(2022, 11, 16): 40.5}  # a record without a figure is no row
    assert series(conn, "psar_btc", "(value, metadata)::text") == {day(2025, 5, 3): '(96935.67,"{""column_3"": -1}")'}
    assert series(conn, "gdp") == {day(2024, 1, 1): 28.3}
    assert series(conn, "btc_price", "(open, high, low, close, volume)::text") == {
        day(2022, 2, 19): "(39974.45,40444.32,39639.03,40079.17,18038.7)"}
    types = dict(conn.execute("SELECT name, data_type::text FROM sources"))
    assert types == {"btc_dominance": "scalar", "psar_btc": "scalar", "gdp": "scalar", "btc_price": "ohlcv"}


def test_unknown_columns_are_metadata_of_timeseries_data_only(conn, file):
    text = "Date,Close,Adj Close,Note,quality_score\n2024-01-02,5,4,fine,1\n2024-01-03,6,4,,1\n"
    load(conn, [file("prices.csv", text)], table="timeseries_data")
    assert list(series(conn, what="metadata").values()) == [{"Note": "fine"}, None]
    load(conn, [file("candles.csv", text)], table="candles", symbol="ABC", interval="1d")
    assert conn.execute("SELECT count(*), max(close) FROM candles").fetchone() == (2, 6)
    for statement in ("SELECT count(*) FROM timeseries_data WHERE quality_score = 1",
                      "SELECT count(*) FROM candles WHERE quality_score = 1"):
        assert conn.execute(statement).fetchone() == (0,)  # a score is never what a file says


def test_date_and_time_may_stand_in_two_columns(conn, file):
    text = "<DATE>\t<TIME>\t<CLOSE>\n2024.01.02\t09:30\t5\n2024.01.02\t09:31:00\t6\n"
    load(conn, [file("prices.txt", text)], table="timeseries_data")
    assert series(conn, what="close") == {
        datetime(2024, 1, 2, 9, 30, tzinfo=UTC): 5, datetime(2024, 1, 2, 9, 31, tzinfo=UTC): 6}


# Where the rows go

def test_candles_of_several_symbols_and_intervals(conn, file):
    rows = [("AAA", "", "daily", "2024-01-02", 1, 7), ("AAA", " ", "1M", "2024-01-01", 2, 8),
            ("AAA", "", "daily", "2024-01-02", 1, 7.5), ("BBB", "XNAS", "1d", "2024-01-02", 3, "")]
    path = file("bars.csv", as_csv(rows, ("ticker", "venue", "timeframe", "ts", "c", "trades")))
    (summary,) = load(conn, [path], table="candles", source="broker", asset_type="etf")
    assert counts(summary) == (4, 3, 1)
    assert list(rejects(conn)) == [4]
    assert conn.execute("""SELECT symbol, exchange, asset_type::text, c.interval::text, ts::date::text, c.close, trades,
                                  s.name
                             FROM candles AS c JOIN assets USING (asset_id) JOIN sources AS s USING (source_id)
                         ORDER BY symbol, c.interval""").fetchall() == [
        ("AAA", None, "etf", "1d", "2024-01-02", 1, 7, "broker"),
        ("AAA", None, "etf", "1M", "2024-01-01", 2, 8, "broker"),
        ("BBB", "XNAS", "etf", "1d", "2024-01-02", 3, None, "broker")]


def test_quotes(conn, file):
    text = '{"symbol": "AAA", "t": 1700000000, "last": 5.5, "bid": 5, "ask": 6, "change_percent_24h": -1}\n'
    load(conn, [file("quotes.ndjson", text)], table="quotes", exchange="XNAS")
    assert conn.execute("""SELECT symbol, exchange, extract(epoch FROM ts)::int, price, bid, ask, change_24h,
                                  change_percent_24h
                             FROM quotes JOIN assets USING (asset_id)""").fetchall() == [
        ("AAA", "XNAS", 1700000000, 5.5, 5, 6, None, -1)]


def test_sources_by_column(conn, file):
    number, = conn.execute(
        "INSERT INTO sources (name, data_type) VALUES ('old', 'scalar') RETURNING source_id").fetchone()
    load(conn, [file("a.csv", "source,time,value\nold,2024-01-02,1\nnew,2024-01-02,2\n ,2024-01-02,3\n")],
         table="timeseries_data")
    load(conn, [file("b.csv", f"source_id,time,value\n{number},2024-01-03,4\n0,2024-01-03,5\n")],
         table="timeseries_data")
    assert [(row[0], row[2]) for row in stored(conn)] == [("new", 2), ("old", 1), ("old", 4)]
    assert {line: raw for line, (raw, _) in rejects(conn).items()} == {
        4: " ,2024-01-02,3", 3: "0,2024-01-03,5"}


def test_a_symbol_means_the_asset_that_is_there(conn, file):
    conn.execute("INSERT INTO assets (symbol, exchange, asset_type) VALUES ('ONE', 'XNAS', 'stock'), "
                 "('TWO', 'XNAS', 'stock'), ('TWO', 'XETR', 'stock')")
    path = file("bars.csv", "symbol,date,close\nONE,2024-01-02,1\nTWO,2024-01-02,2\nNEW,2024-01-02,3\n")
    (summary,) = load(conn, [path], table="candles", interval="1d")
    assert counts(summary) == (3, 2, 1)
    assert "XETR, XNAS" in rejects(conn)[3][1]
    load(conn, [path], table="candles", interval="1d", exchange="XETR")
    assert conn.execute("""SELECT symbol, exchange, close FROM candles JOIN assets USING (asset_id)
                         ORDER BY symbol, exchange""").fetchall() == [
        ("NEW", "XETR", 3), ("NEW", None, 3), ("ONE", "XETR", 1), ("ONE", "XNAS", 1), ("TWO", "XETR", 2)]


def test_source_of_one_asset(conn, file):
    load(conn, [file("a.csv", as_csv(BARS))], table="timeseries_data", source="feed", symbol="BTC", exchange="BIN",
         asset_type="crypto", interval="D")
    assert conn.execute("""SELECT s.name, s.interval::text, a.symbol, a.exchange, a.asset_type::text
                             FROM sources AS s JOIN assets AS a USING (asset_id)""").fetchall() == [
        ("feed", "1d", "BTC", "BIN", "crypto")]


def test_mode_reaches_the_triggers_and_the_task(conn, file):
    conn.execute("""
        CREATE TABLE seen (mode text);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO seen VALUES (current_setting('tidemark.ingest_mode')); RETURN NULL; END $$;
        CREATE TRIGGER see AFTER INSERT ON timeseries_data FOR EACH STATEMENT EXECUTE FUNCTION see()""")
    load(conn, [file("a.csv", as_csv(BARS))], table="timeseries_data", mode="correction")
    assert conn.execute("SELECT mode FROM seen").fetchall() == [("correction",)]
    assert conn.execute("SELECT mode::text, kind::text, status::text FROM ingestion_tasks").fetchall() == [
        ("correction", "file", "succeeded")]
    assert conn.execute("SELECT current_setting('tidemark.ingest_mode', true)").fetchone()[0] in (None, "")


# Upserts

def test_a_record_replaces_what_its_file_has_columns_for(conn, file):
    load(conn, [file("a.csv", as_csv(BARS))], table="timeseries_data", source="s")
    text = "date,close,volume\n2024-01-03,99,\n2024-01-05,1,1\n"
    (summary,) = load(conn, [file("b.csv", text)], table="timeseries_data", source="s")
    assert counts(summary) == (2, 2, 0)
    assert [row[3:8] for row in stored(conn)] == [
        (10, 12.5, 9.5, 11, 1000), (11, 13, 10.5, 99, None), (12, 12, 11, 11.5, None), (None, None, None, 1, 1)]


def test_of_records_with_the_same_key_the_last_one_counts(conn, file):
    text = "date,value\n" + "".join(f"2024-01-0{n % 3 + 1},{n}\n" for n in range(9))
    for rows in (1, 2, 100):  # repetitions within a batch and in different ones
        (summary,) = load(conn, [file(f"by{rows}.csv", text)], table="timeseries_data", batch_rows=rows)
        assert (summary.read, summary.rejected) == (9, 0)
    assert [list(series(conn, f"by{rows}").values()) for rows in (1, 2, 100)] == [[6, 7, 8]] * 3


def test_rows_that_are_stored_already_are_not_written_again(conn, file):
    load(conn, [file("a.csv", as_csv(BARS) + ",,,,,\n")], table="timeseries_data", source="s")
    before = conn.execute("SELECT timestamp, xmin::text, ctid::text FROM timeseries_data ORDER BY 1").fetchall()
    changed = [*BARS[:2], ("2024-01-04", 12.0, 12.0, 11.0, 11.75, None)]
    (summary,) = load(conn, [file("b.csv", as_csv(changed))], table="timeseries_data", source="s")
    after = conn.execute("SELECT timestamp, xmin::text, ctid::text FROM timeseries_data ORDER BY 1").fetchall()
    assert counts(summary) == (3, 1, 0)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False]


def test_the_same_file_is_loaded_once_into_one_place(conn, file):
    path = file("prices.csv", as_csv(BARS))
    (first,) = load(conn, [path], table="timeseries_data")
    (second,) = load(conn, [path], table="timeseries_data", mode="backfill")
    assert (second.already_loaded, second.task_id, counts(second)) == (True, first.task_id, counts(first))
    (other,) = load(conn, [file("other.csv", as_csv(BARS))], table="timeseries_data")
    assert (other.already_loaded, counts(other)) == (False, (3, 3, 0))
    for place in ({"source": "feed"}, {"table": "candles", "symbol": "A", "interval": "1d"},
                  {"table": "candles", "symbol": "B", "interval": "1d"},
                  {"table": "candles", "symbol": "B", "interval": "1d", "said": said(tz="Europe/Athens")}):
        (other,) = load(conn, [path], **{"table": "timeseries_data", **place})
        assert (other.already_loaded, counts(other)) == (False, (3, 3, 0))
    conn.execute("DELETE FROM ingestion_tasks WHERE task_id = %s", [first.task_id])
    (third,) = load(conn, [path], table="timeseries_data", source="prices")
    assert (third.already_loaded, counts(third)) == (False, (3, 0, 0))


@pytest.mark.parametrize("place", [
    {"table": "timeseries_data"}, {"table": "candles", "symbol": "A", "interval": "1d"}])
def test_a_file_whose_rows_were_deleted_is_loaded_again(conn, file, place):
    table = place["table"]
    path = file("prices.csv", as_csv([*BARS, ("2024-01-05", "oops", 1, 1, 1, 1)]))
    (first,) = load(conn, [path], **place)
    everything = conn.execute(f"SELECT to_jsonb(t) - '{{ingested_at,id}}'::text[] FROM {table} AS t").fetchall()
    conn.execute(f"DELETE FROM {table}")
    (second,) = load(conn, [path], **place)
    assert (second.already_loaded, second.task_id, counts(second)) == (False, first.task_id, counts(first))
    assert conn.execute(f"SELECT to_jsonb(t) - '{{ingested_at,id}}'::text[] FROM {table} AS t").fetchall() == everything
    # Some rows may be gone on purpose, and others corrected: that is told, and left to the caller.
    time = TARGETS[table].time
    conn.execute(f"DELETE FROM {table} WHERE {time} = '2024-01-03'")
    (third,) = load(conn, [path], **place)
    assert third.already_loaded and third.note == "1 of its first 3 rows are gone: --again loads them"
    (fourth,) = load(conn, [path], again=True, **place)
    assert (fourth.already_loaded, counts(fourth)) == (False, (4, 1, 1))
    assert list(rejects(conn)) == [5]
    assert conn.execute("SELECT count(*) FROM ingestion_tasks").fetchone() == (1,)


# Rejects

def test_broken_lines_of_csv_cost_only_themselves(conn, file):
    lines = {
        2: "2024-01-01,1,a",
        3: "2024-01-02,1,oops",
        4: "2024-01-03,oops,3",
        5: "",
        6: "2024-01-04,4",
        7: "2024-01-05,5,6,7",
        8: '2024-01-06,"6,x',
        9: "2024-01-07,7,x",
        10: '2024-01-08,"8"8,x',
        11: "2024-01-32,9,x",
        12: ",9,x",
        13: "2024-01-10,1_0,x",
        14: "2024-01-11,inf,x",
        15: "2024-01-12,\u0661,x",
        16: "2024-01-13,1e999,x",
        17: '2024-01-14,14,"x\ny, ""z"""',
        19: '2024-01-15,15,"',
        20: '2024-01-16, " 16" ,x',
        21: "2024-01-17,17,x",
    }
    path = file("prices.csv", "date,value,note\n" + "\n".join(lines.values()))
    (summary,) = load(conn, [path], table="timeseries_data", batch_rows=4)
    assert {time.day: value for time, value in series(conn).items()} == {1: 1, 2: 1, 7: 7, 14: 14, 17: 17}
    assert series(conn, what="metadata")[datetime(2024, 1, 14, tzinfo=UTC)] == {"note": 'x\ny, "z"'}
    wrong = [4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 19, 20]
    assert counts(summary) == (18, 5, 13)
    assert {line: raw for line, (raw, _) in rejects(conn).items()} == {line: lines[line] for line in wrong}
    assert all(error for _, error in rejects(conn).values())
    assert rejects(conn)[4][1].startswith("value: 'oops'")


def test_two_stray_quotes_cost_two_lines(conn, file):
    """Between them they would swallow what lies in between."""
    lines = [f"2024-01-{day:02},{day},x" for day in range(1, 31)]
    lines[4] = lines[4].replace(",5", ',"5')
    lines[20] = lines[20].replace(",21", ',"21')
    path = file("prices.csv", "\n".join(["date,value,note", *lines]))
    (summary,) = load(conn, [path], table="timeseries_data")
    assert counts(summary) == (30, 28, 2)
    assert list(rejects(conn)) == [6, 22]


def test_broken_records_of_json(conn, file):
    good = {
        '{"t": 1700000000, "v": 1}': 1, '{"t": 1700000004, "v": "4"}': 4,
        '{"t": 1700000005, "v": 5, "x": NaN}': 5,
        '{"t": 1700000010, "v": 10, "x": "\\\\u0000"}': 10, '{"t": 1700000011, "v": 11, "timestamp": "x"}': 11,
    }
    bad = [
        "7", '"text"', "null", "[1700000001]", "[1700000002, 2]", '{"t": "never", "v": 3}', '{"v": 3}',
        '{"t": 1700000003, "v": true}', '{"t": 1700000005, "v": {"a": 1}}', '{"t": 1700000006, "v": 6, "x": Infinity}',
        '{"t": 1700000007, "v": 7, "x": "\\ud800"}', '{"t": 1700000008, "v": 8, "x": "\\u0000"}',
        f'{{"t": 1700000009, "v": 1{"0" * 5000}}}', '{"t": 1e300, "v": 1}', '{"t": true, "v": 1}',
    ]
    records = random.Random(3).sample([*good, *bad, *good, *bad], 40)
    for name, text in {"a.json": "[" + ",\n".join(records) + "]", "b.jsonl": "\n".join(records)}.items():
        (summary,) = load(conn, [file(name, text)], table="timeseries_data")
        assert list(series(conn, name[0]).values()) == list(good.values()), name
        assert (summary.read, summary.rejected) == (40, 30)
        held = conn.execute("SELECT line_no, raw FROM ingestion_rejects WHERE task_id = %s ORDER BY 1",
                            [summary.task_id]).fetchall()
        assert held == [(n, readers.escaped(raw)) for n, raw in enumerate(records, 1) if raw in bad]


def test_names_that_only_later_records_have(conn, file, monkeypatch):
    monkeypatch.setattr(look, "SAMPLE", 5)
    lines = [{"t": 1700000000 + n, "c": n} | ({"v": n, "note": "x"} if n > 7 else {}) for n in range(10)]
    load(conn, [file("a.ndjson", "\n".join(map(json.dumps, lines)))], table="timeseries_data")
    assert list(series(conn, "a", "volume").values()) == [None] * 8 + [8, 9]
    assert list(series(conn, "a", "metadata").values()) == [None] * 8 + [{"note": "x"}] * 2
    lines[9]["symbol"] = "ABC"
    path = file("b.ndjson", "".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(LoadFailed, match="says the symbol itself"):
        load(conn, [path], table="timeseries_data", symbol="XYZ", batch_rows=5)
    assert len(series(conn, "b")) == 5


def test_broken_lines_of_ndjson(conn, file):
    lines = ['{"t": 1700000000, "v": 1}', '{"t": 1700000001, "v": 1', '{"t": 1700000002, "v": 2} {}', "[" * 5000,
             '{"t": 1700000003, "v": 3}']
    (summary,) = load(conn, [file("a.json", "\n".join(lines))], table="timeseries_data")
    assert counts(summary) == (5, 2, 3)
    assert list(rejects(conn)) == [2, 3, 4]


def test_bytes_that_postgresql_cannot_store(conn, file):
    text = b"date,value,note\n2024-01-01,1,\xff\n2024-01-02,2,a\0b\n2024-01-03,3,\xc3\xa9\n"
    (summary,) = load(conn, [file("prices.csv", text)], table="timeseries_data")
    assert counts(summary) == (3, 1, 2)
    assert {line: raw for line, (raw, _) in rejects(conn).items()} == {
        2: "2024-01-01,1,\\xff", 3: "2024-01-02,2,a\\x00b"}
    assert "UTF-8" in rejects(conn)[2][1] and "NUL" in rejects(conn)[3][1]
    array = b'[{"t": "2024-01-01", "v": 1, "note": "\xff"}, {"t": "2024-01-02", "v": 2, "note": "\xc3\xa9"}]'
    (summary,) = load(conn, [file("array.json", array)], table="timeseries_data")
    assert counts(summary) == (2, 1, 1)


def test_records_that_a_constraint_refuses(conn, file):
    """They are found by halving the batch, and what is stored under their keys stays."""
    conn.execute("ALTER TABLE timeseries_data ADD CONSTRAINT test_positive CHECK (value > 0)")
    load(conn, [file("a.csv", as_csv([("2024-01-01", 5), ("2024-01-01T00:07Z", 7)], ("ts", "value")))],
         table="timeseries_data", source="s")
    rows = minutes(1000)
    bad = {7, *random.Random(7).sample(range(1000), 40)}
    for n in bad:
        rows[n] = (rows[n][0], -n - 1)
    failing(conn, "false", "XX000")
    (summary,) = load(conn, [file("b.csv", as_csv(rows, ("ts", "value")))], table="timeseries_data", source="s")
    assert counts(summary) == (1000, 1000 - len(bad), len(bad))
    assert {line: raw for line, (raw, _) in rejects(conn).items()} == {
        n + 2: ",".join(map(str, rows[n])) for n in bad}
    assert all("23514" in error and "test_positive" in error for _, error in rejects(conn).values())
    assert series(conn, "s")[datetime(2024, 1, 1, 0, 7, tzinfo=UTC)] == 7
    attempts, = conn.execute("SELECT last_value FROM calls").fetchone()
    assert attempts < 8 * len(bad), "halving takes more attempts than it needs"


def test_a_refused_repetition_leaves_its_predecessor(conn, file):
    conn.execute("ALTER TABLE timeseries_data ADD CONSTRAINT test_positive CHECK (value > 0)")
    path = file("prices.csv", "date,value\n2024-01-01,1\n2024-01-01,2\n2024-01-01,-3\n2024-01-02,4\n")
    load(conn, [path], table="timeseries_data")
    assert list(series(conn).values()) == [2, 4]
    assert list(rejects(conn)) == [4]


def test_names_that_the_database_refuses(conn, file):
    long = "x" * 5000  # too long for a symbol
    text = "".join(f"{symbol},2024-01-01,1\n" for symbol in ("A", os.urandom(3000).hex() + long, "B"))
    (summary,) = load(conn, [file("bars.csv", "symbol,date,close\n" + text)], table="candles", interval="1d")
    assert counts(summary) == (3, 2, 1)
    assert "23514" in rejects(conn)[3][1]
    assert conn.execute("SELECT array_agg(symbol ORDER BY symbol) FROM assets").fetchone() == (["A", "B"],)


# What cannot be loaded at all

@pytest.mark.parametrize(("name", "content", "said"), [
    ("missing.csv", None, "does not exist"),
    ("empty.csv", "", "is empty"),
    ("blank.csv.gz", "\n \n", "is empty"),
    ("a.parquet", b"PAR1\x15\x00\x15", "is damaged"),
    ("a.csv", b"\x00\x01\x02\x00\x00\x00\n", "unknown format"),
    ("a.json", '{\n "data": []\n}', "no list of records"),
    ("b.json", "date,value\n", "unknown format"),
    ("cut.csv", b"\x1f\x8b\x08\x00", "cannot be read"),
    ("a.csv", "when,value\n1,2\n", "no time column"),
    ("a.csv", "date,comment,mood\n2024-01-01,2,3\n", "no value column"),
    ("a.csv", "date,comment,mood\n1,2,3\n", "no readable time"),
    ("a.json", '[{"time": 1700000000, "x": 2, "y": 3}]', "no value column"),
    ("a.json", "[1, 2]", "no readable record"),
    ("a.csv", "date,value,value\n2024-01-01,2,3\n", "the same name"),
    ("a.csv", '"date,value\n', "no column names"),
])
def test_a_file_that_cannot_be_loaded(untouched, file, tmp_path, name, content, said):
    path = tmp_path / name if content is None else file(name, content)
    with pytest.raises(Problem) as problem:
        load(untouched, [file("good.csv", as_csv(BARS)), path], table="timeseries_data")
    assert said in str(problem.value) and name in str(problem.value)
    assert "\n" not in str(problem.value)
    assert problem.value.exit_code == 2


@pytest.mark.parametrize(("options", "said"), [
    ({"table": "trades"}, "unknown table"),
    ({"table": "candles", "symbol": "A", "interval": "2d"}, "unknown interval"),
    ({"mode": "later"}, "unknown ingest mode"),
    ({"asset_type": "thing"}, "unknown asset type"),
    ({"source": " "}, "blank"),
    ({"table": "quotes", "symbol": "A", "source": "s"}, "quotes do not record a source"),
    ({"table": "candles", "symbol": "A"}, "no interval column"),
    ({"table": "candles", "interval": "1d"}, "no symbol column"),
])
def test_options_that_cannot_be_used(untouched, file, options, said):
    with pytest.raises(Problem) as problem:
        load(untouched, [file("a.csv", as_csv(BARS))], **{"table": "timeseries_data", **options})
    assert said in str(problem.value)
    assert problem.value.exit_code == 2


@pytest.mark.parametrize("column", ["source", "symbol", "exchange", "interval"])
def test_an_option_may_not_contradict_the_file(untouched, file, column):
    table = "candles" if column == "interval" else "timeseries_data"
    path = file("a.csv", f"{column},date,close,symbol\n1d,2024-01-01,1,A\n".replace(
        ",symbol", "" if column == "symbol" else ",symbol").replace(",A", "" if column == "symbol" else ",A"))
    with pytest.raises(Problem, match=f"says the {column} itself"):
        load(untouched, [path], table=table, **{column: "1d"})


def test_a_directory_and_a_database_without_schema(untouched, file, tmp_path, empty):
    with pytest.raises(Problem, match="is not a file"):
        load(untouched, [tmp_path], table="timeseries_data")
    with empty.connect() as bare, pytest.raises(Problem, match="tidemark migrate"):
        load(bare, [file("a.csv", as_csv(BARS))], table="timeseries_data")


def test_files_without_records_are_loaded(conn, file):
    paths = [file("a.csv", "date,value\n"), file("b.json", "[]"), file("c.json", " [ ] \n")]
    summaries = load(conn, paths, table="timeseries_data")
    assert [(counts(summary), summary.already_loaded) for summary in summaries] == [((0, 0, 0), False)] * 3
    assert conn.execute("SELECT status::text FROM ingestion_tasks").fetchall() == [("succeeded",)] * 3


# Files that break off

def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize(("kind", "chunk"), [("csv.gz", 4096), ("csv.gz", 1 << 20), ("json", 4096), ("json.gz", 4096)])
def test_of_a_truncated_file_the_beginning_is_loaded(conn, tmp_path, file, kind, chunk, monkeypatch):
    monkeypatch.setattr(readers, "CHUNK", chunk)
    rows = [(moment, n * math.pi % 1) for n, (moment, _) in enumerate(minutes(5000))]
    text = as_csv(rows, ("ts", "value")) if kind == "csv.gz" else json.dumps(rows)
    whole = gzip.compress(text.encode()) if kind.endswith("gz") else text.encode()
    path = tmp_path / f"prices.{kind}"
    path.write_bytes(truncated(whole))
    other = file("other.csv", as_csv(BARS))
    with pytest.raises(LoadFailed) as failure:
        load(conn, [path, other], table="timeseries_data", batch_rows=500)
    cut, intact = failure.value.summaries
    assert (intact.written, intact.error) == (3, "")
    assert 2000 < cut.read == cut.written < 5000
    assert series(conn) == {datetime.fromisoformat(moment): value for moment, value in rows[:cut.read]}
    status, error = conn.execute("SELECT status::text, error FROM ingestion_tasks WHERE task_id = %s",
                                 [cut.task_id]).fetchone()
    assert status == "failed" and error == cut.error and cut.error in str(failure.value)
    assert failure.value.exit_code == 1 and "\n" not in str(failure.value)
    with pytest.raises(LoadFailed) as again:
        load(conn, [path, other], table="timeseries_data", batch_rows=500)
    assert [(s.task_id, counts(s)) for s in again.value.summaries] == [
        (s.task_id, counts(s)) for s in failure.value.summaries]
    path.write_bytes(whole)
    (complete,) = load(conn, [path], table="timeseries_data")
    assert (complete.read, complete.error, len(series(conn))) == (5000, "", 5000)


def test_a_file_that_grows_while_it_is_read_is_not_done(conn, file):
    path = file("prices.csv", as_csv(minutes(50), ("ts", "value")))
    size = path.stat().st_size

    def grow(_: int) -> None:
        if path.stat().st_size == size:
            with path.open("a") as text:
                text.write("2025-01-01,1\n")

    with pytest.raises(LoadFailed, match="changed while"):
        load(conn, [path], table="timeseries_data", batch_rows=10, progress=grow)
    (summary,) = load(conn, [path], table="timeseries_data")
    assert not summary.already_loaded and len(series(conn)) == 51


# Interruptions

LOADER = """
    import os, sys, psycopg
    from pathlib import Path
    from tidemark import readers
    from tidemark.loader import load
    readers.CHUNK = 2048
    with psycopg.connect(os.environ["URL"], autocommit=True) as conn:
        load(conn, [Path(os.environ["FILE"])], table="timeseries_data", batch_rows=int(sys.argv[1]),
             progress=lambda size: print(size, flush=True))
"""


def run_loader(db, path: Path, rows: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LOADER), str(rows)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "URL": db.url, "FILE": str(path), "PYTHONPATH": str(ROOT)})


def messy(count: int) -> tuple[str, dict[datetime, float], list[int]]:
    """A CSV file with broken lines and repetitions, the rows that it must give, and the lines to be rejected."""
    rng, good, bad, lines = random.Random(5), {}, [], ["ts,value"]
    for n, (text, value) in enumerate(minutes(count)):
        if rng.random() < 0.05:
            bad.append(n + 2)
            lines.append(rng.choice([f"{text},oops", f"{text}", f'"{text},1', f"{text},1,2"]))
        else:
            moment = datetime.fromisoformat(text) - timedelta(minutes=rng.choice([0, 0, 0, 3]))
            good[moment] = value
            lines.append(f"{moment.isoformat()},{value}")
    return "\n".join(lines), good, bad


def test_a_loader_killed_at_any_point_is_completed_by_the_next(db, conn, file):
    text, good, bad = messy(6000)
    path, rng, states = file("prices.csv.gz", text), random.Random(11), []
    for _ in range(6):
        process = run_loader(db, path, rng.choice([40, 100, 170]))
        for _ in range(rng.randrange(1, 8)):
            process.stdout.readline()
        time.sleep(rng.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        states.append(conn.execute("SELECT status::text, rows_read FROM ingestion_tasks").fetchall())
    assert all(len(state) <= 1 for state in states)
    assert any(state and state[0][0] == "running" and 0 < state[0][1] < 6000 for state in states)
    (summary,) = load(conn, [path], table="timeseries_data")
    assert not summary.already_loaded
    assert (summary.read, summary.rejected) == (6000, len(bad))
    assert series(conn) == good
    assert list(rejects(conn)) == bad
    assert conn.execute("SELECT status::text, rows_read, rows_rejected, error FROM ingestion_tasks").fetchall() == [
        ("succeeded", 6000, len(bad), None)]
    (again,) = load(conn, [path], table="timeseries_data")
    assert again.already_loaded and counts(again) == counts(summary)


@pytest.mark.parametrize("way", ["interrupted", "disconnected"])
def test_a_stopped_load_is_completed_by_the_next(db, conn, file, way):
    text, good, bad = messy(1000)
    path, calls = file("prices.csv", text), []

    def stop(_: int) -> None:
        calls.append(None)
        if len(calls) == 4 and way == "interrupted":
            raise KeyboardInterrupt
        if len(calls) == 4 and way == "disconnected":
            conn.execute("SELECT pg_terminate_backend(%s)", [pid])

    with db.connect() as victim:
        pid = victim.info.backend_pid
        with pytest.raises(KeyboardInterrupt if way == "interrupted" else Problem) as stopped:
            load(victim, [path], table="timeseries_data", batch_rows=100, progress=stop)
    state = conn.execute("SELECT status::text, rows_read, error IS NOT NULL FROM ingestion_tasks").fetchone()
    assert state[0] == ("running" if way == "disconnected" else "failed")
    assert 0 < state[1] < 1000 and state[2] == (way != "disconnected")
    if way == "disconnected":
        assert "connection was lost" in str(stopped.value)
    (summary,) = load(conn, [path], table="timeseries_data", batch_rows=70)
    assert (summary.read, summary.rejected, summary.error) == (1000, len(bad), "")
    assert series(conn) == good and list(rejects(conn)) == bad
    assert conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


def test_eight_at_once_load_a_file_once(db, conn, file):
    text, good, bad = messy(3000)
    path = file("prices.csv", text)

    def one(_: int):
        with db.connect() as connection:
            return load(connection, [path], table="timeseries_data", batch_rows=300)[0]

    with ThreadPoolExecutor(8) as pool:
        summaries = list(pool.map(one, range(8)))
    assert sorted(summary.already_loaded for summary in summaries) == [False] + [True] * 7
    assert len({(summary.task_id, counts(summary)) for summary in summaries}) == 1
    assert series(conn) == good and list(rejects(conn)) == bad


def test_eight_files_of_the_same_series_at_once(db, conn, file):
    """Their rows collide, in opposite order; nobody sees a deadlock."""
    paths = []
    for n in range(8):
        rows = [(f"S{k % 5}", time, n) for k, (time, _) in enumerate(minutes(2000))]
        paths.append(file(f"{n}.csv", as_csv(rows[::-1] if n % 2 else rows, ("symbol", "ts", "value"))))

    def one(path: Path):
        with db.connect() as connection:
            return load(connection, [path], table="timeseries_data", source="s", batch_rows=500)[0]

    with ThreadPoolExecutor(8) as pool:
        summaries = list(pool.map(one, paths))
    assert [(s.read, s.rejected, s.error) for s in summaries] == [(2000, 0, "")] * 8
    assert conn.execute("SELECT count(*), count(DISTINCT source_id) FROM timeseries_data").fetchone() == (2000, 5)
    assert conn.execute("SELECT count(*) FROM assets").fetchone() == (5,)


def failing(conn, condition: str, sqlstate: str) -> None:
    """Make inserts fail while a condition holds; `calls` counts attempts, and survives their rollback."""
    conn.execute(f"""
        CREATE SEQUENCE calls;
        CREATE FUNCTION call() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM nextval('calls'); RETURN NULL; END $$;
        CREATE TRIGGER call BEFORE INSERT ON timeseries_data FOR EACH STATEMENT EXECUTE FUNCTION call();
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE v_call bigint := currval('calls');
        BEGIN
            IF {condition} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER fail AFTER INSERT ON timeseries_data REFERENCING NEW TABLE AS fresh
            FOR EACH STATEMENT EXECUTE FUNCTION fail()""")


@pytest.mark.parametrize("sqlstate", ["40P01", "40001"])
def test_a_batch_is_tried_again_after_a_deadlock(conn, file, sqlstate):
    failing(conn, "v_call <= 3", sqlstate)
    (summary,) = load(conn, [file("prices.csv", as_csv(BARS))], table="timeseries_data")
    assert counts(summary) == (3, 3, 0)
    assert conn.execute("SELECT last_value FROM calls").fetchone() == (4,)


@pytest.mark.parametrize("sqlstate", ["40P01", "53100", "42501", "57014"])
def test_an_error_that_no_record_caused_ends_the_load(conn, file, sqlstate):
    failing(conn, "v_call > 1", sqlstate)
    path = file("prices.csv", as_csv(minutes(20), ("ts", "value")))
    with pytest.raises(Problem, match=f"the database refused .*SQLSTATE {sqlstate}"):
        load(conn, [path], table="timeseries_data", batch_rows=10)
    assert conn.execute("SELECT status::text, rows_read, rows_rejected, error FROM ingestion_tasks").fetchall() == [
        ("failed", 10, 0, f"no (SQLSTATE {sqlstate})")]
    conn.execute("DROP TRIGGER fail ON timeseries_data")
    (summary,) = load(conn, [path], table="timeseries_data")
    assert counts(summary) == (20, 20, 0)


def test_batches_shrink_where_the_server_has_too_few_locks(conn, file):
    failing(conn, "(SELECT count(*) FROM fresh) > 7", "53200")
    path = file("prices.csv", as_csv(minutes(40), ("ts", "value")))
    (summary,) = load(conn, [path], table="timeseries_data", batch_rows=20)
    assert counts(summary) == (40, 40, 0)
    # 20 fails, the short way and the long one, 10 fails, then four times 5; and again 20, which fails the short way
    assert conn.execute("SELECT last_value FROM calls").fetchone() == (12,)


@pytest.mark.community
def test_corrections_of_compressed_history(db, conn, file):
    load(conn, [file("a.csv", as_csv(minutes(5000), ("ts", "value")))], table="timeseries_data", source="s")
    conn.execute("ALTER TABLE timeseries_data SET (timescaledb.compress, timescaledb.compress_segmentby = 'source_id',"
                 " timescaledb.compress_orderby = 'timestamp')")
    conn.execute("SELECT compress_chunk(c) FROM show_chunks('timeseries_data') AS c")
    conn.execute(f"ALTER DATABASE {conn.info.dbname} SET timescaledb.max_tuples_decompressed_per_dml_transaction = 10")
    rows = [(time, -1.0) for time, _ in minutes(5000)[::500]]
    with db.connect() as limited:
        (summary,) = load(limited, [file("b.csv", as_csv(rows, ("ts", "value")))], table="timeseries_data",
                          source="s", mode="correction")
    assert counts(summary) == (10, 10, 0)
    assert list(series(conn, "s").values()).count(-1.0) == 10


# Trades

TRADES = [("2025-03-03T00:00:00Z", 310.5, 0.25, "buy"), ("2025-03-03T00:00:00Z", 310.6, 0.5, "buy"),
          ("2025-03-03T00:00:00Z", 310.5, 0.25, "buy"), ("2025-03-03T00:00:01Z", 310.7, 2.0, "sell"),
          ("2025-03-03T00:00:01Z", 310.7, 2.0, "sell"), ("2025-03-03T00:01:00Z", 310.9, 1.0, "")]
TICKS = ("timestamp", "price", "amount", "side")


def ticks(conn) -> list[tuple]:
    rows = conn.execute("SELECT ts, price, quantity, coalesce(side::text, '') FROM ticks ORDER BY ts, seq").fetchall()
    return [(f"{row[0].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", *row[1:]) for row in rows]


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_trades_of_one_instant_are_all_kept_and_once(conn, file, rows):
    """Whatever the batches; two with the same figures are two, and the same file once more adds none."""
    path = file("trades.csv", as_csv(TRADES, TICKS))
    (summary,) = load(conn, [path], table="ticks", symbol="A", batch_rows=rows)
    assert counts(summary) == (6, 6, 0)
    assert ticks(conn) == TRADES
    assert conn.execute("SELECT seq FROM ticks ORDER BY ts, seq").fetchall() == [(0,), (1,), (2,), (0,), (1,), (0,)]
    (again,) = load(conn, [path], table="ticks", symbol="A", again=True, batch_rows=rows)
    assert counts(again) == (6, 0, 0)
    assert conn.execute("SELECT count(*) FROM ticks WHERE quality_score IS NULL").fetchone() == (0,)
    (overlap,) = load(conn, [file("more.csv", as_csv([*TRADES[3:], ("2025-03-03T00:01:00Z", 311, 1.0, "buy")], TICKS))],
                      table="ticks", symbol="A", batch_rows=rows)
    assert (overlap.written, len(ticks(conn))) == (1, 7)


def test_trades_with_ids_are_known_by_them(conn, file):
    rows = [(n, *trade) for n, trade in enumerate(TRADES)]
    load(conn, [file("a.csv", as_csv(rows, ("id", *TICKS)))], table="ticks", symbol="A")
    changed = [(4, "2025-03-03T00:00:01Z", 310.7, 3.0, "sell"), (3, *TRADES[3]), (3, *TRADES[3]), (9, *TRADES[3])]
    (summary,) = load(conn, [file("b.csv", as_csv(changed, ("id", *TICKS)))], table="ticks", symbol="A")
    assert (summary.read, summary.written) == (4, 2)
    assert dict(conn.execute("SELECT trade_id, quantity FROM ticks")) == {
        "0": 0.25, "1": 0.5, "2": 0.25, "3": 2, "4": 3, "5": 1, "9": 2}


def test_bars_of_trades(conn, file):
    load(conn, [file("trades.csv", as_csv(TRADES, TICKS))], table="ticks", symbol="A", mode="backfill")
    conn.execute((ROOT / "README.md").read_text().split("```sql\n")[1].split("```")[0])
    assert conn.execute("SELECT open, high, low, close, volume, trades FROM ticks_1m ORDER BY bucket").fetchall() == [
        (310.5, 310.7, 310.5, 310.7, 5, 5), (310.9, 310.9, 310.9, 310.9, 1, 1)]
    conn.execute("CALL refresh_aggregates(NULL, NULL)")
    assert conn.execute("SELECT count(*) FROM ticks_1m").fetchone() == (2,)


def test_an_outlier_among_trades_is_flagged(conn, file):
    rows = [((datetime(2025, 3, 3, tzinfo=UTC) + timedelta(seconds=n)).isoformat(),
             100 + n * n % 7 * 0.01 if n != 150 else 130, 1, "buy") for n in range(200)]
    load(conn, [file("trades.csv", as_csv(rows, TICKS))], table="ticks", symbol="A", mode="backfill")
    assert conn.execute("SELECT price FROM ticks WHERE is_anomaly ORDER BY ts LIMIT 1").fetchone() == (130,)


# Size

def test_memory_does_not_grow_with_the_file(db, tmp_path):
    """Every format with 6 MB, then every format with 60 MB, in a process of its own."""
    code = r"""
        import os, re, sys, psycopg
        from pathlib import Path
        from tidemark.loader import load
        def told():
            print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
        with psycopg.connect(os.environ["URL"], autocommit=True) as conn:
            told()  # what the interpreter and its packages take, which is theirs
            for path in map(Path, sys.argv[1:]):
                load(conn, [path], table="candles", symbol=path.name, interval="1m")
                told()
    """
    names, paths = ("ts", "close", "note"), []
    for count in (200, 2_000):
        rows = [(moment, value, "x" * 30_000) for moment, value in minutes(count)]
        objects = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        texts = {"csv": as_csv(rows, names), "json": f"[{', '.join(objects)}]", "ndjson": "\n".join(objects)}
        for kind, text in texts.items():
            paths.append(tmp_path / f"{count}.{kind}.gz")
            paths[-1].write_bytes(gzip.compress(text.encode(), 1))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *paths], cwd=ROOT, capture_output=True,
                          text=True, check=True, env={**os.environ, "URL": db.url, "PYTHONPATH": str(ROOT)})
    start, *peaks = map(int, done.stdout.split())
    assert len(peaks) == 6 and peaks[5] < peaks[2] + 20 and peaks[5] < start + 90, (start, peaks)


def test_progress_adds_up_to_the_size_of_the_files(conn, file):
    paths = [file("a.csv.gz", as_csv(minutes(500), ("ts", "value"))), file("b.json", json.dumps(minutes(500))),
             file("c.csv", "ts,value\n")]
    for _ in range(2):
        steps: list[int] = []
        load(conn, paths, table="timeseries_data", batch_rows=100, progress=steps.append)
        assert sum(steps) == sum(path.stat().st_size for path in paths)


# Reading, without a database

def records(path: Path, rows: int = 7, skip: int = 0):
    return [
        (line, raw) for batch in readers.open_file(path).batches(rows, skip)
        for line, raw in zip(batch.lines, batch.raws, strict=True)
    ]


QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.text(st.sampled_from('ab1",;\n \r\u00e9'), max_size=6)


@QUICK
@given(st.lists(st.tuples(CELLS, CELLS), max_size=12), st.integers(1, 5))
def test_csv_is_read_as_python_reads_it(tmp_path, rows, size):
    rows = [(first.replace("\r", ""), second.replace("\r", "")) for first, second in rows]
    path = tmp_path / "a.csv"
    path.write_text(as_csv(rows, ("a", "b"), quoting=csv.QUOTE_ALL))
    reader = readers.open_file(path)
    tables = [reader.table(batch) for batch in reader.batches(size)]
    assert [reject for table in tables for reject in table.rejects] == []
    found = [pair for table in tables for pair in zip(table.column("a"), table.column("b"), strict=True)]
    assert found == rows


@QUICK
@given(st.lists(st.sampled_from(["1,2", '1,"2', '3"', '"4",5', "", "6", 'a"b,7', '8,"', '"', '9","10']), max_size=20),
       st.integers(5, 40), st.integers(0, 12))
def test_records_do_not_depend_on_where_the_file_is_cut(tmp_path, lines, chunk, skip):
    """Neither the size of the chunks nor of the batches, nor where a load goes on, changes what is a record."""
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["a,b", *lines]))
    try:
        whole = records(path)
    except Problem:  # most of the records have more fields than the header
        reject()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CHUNK", chunk)
        patch.setattr(readers, "QUOTED_LINES", 4)
        small = records(path, 1)
        assert records(path, 3, skip) == small[skip:]
        patch.setattr(readers, "CHUNK", 1 << 20)
        assert records(path) == small
    assert [line for line, _ in whole] == sorted({line for line, _ in whole})


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=6)


@QUICK
@given(st.lists(JSON, max_size=8), st.integers(1, 20), st.sampled_from([None, 1]), st.integers(0, 5))
def test_arrays_are_read_as_python_reads_them(tmp_path, items, chunk, indent, skip):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CHUNK", chunk)
        batches = list(readers.JsonArray(path).batches(2, skip))
    assert [item for batch in batches for item in batch.items] == items[skip:]
    assert [json.loads(raw) for batch in batches for raw in batch.raws] == items[skip:]


@pytest.mark.parametrize(("text", "count"), [
    ("[[1, 1], [2, 2]", 2), ("[[1, 1], [2, 2],]", 2), ("[[1, 1], [2, 2]] 3", 2), ("[[1, 1] [2, 2]]", 1),
    ("[[1, 1], [2, 2}]", 1), ('[[1, 1], [2, "2]', 1), ("[[1, 1],, [2, 2]]", 1), ("[[1, 1]]]", 1), ("[,]", 0),
])
def test_malformed_arrays_break_behind_their_good_records(tmp_path, text, count):
    path, found = tmp_path / "a.json", []
    path.write_text(text)
    with pytest.raises(readers.Broken) as broken:
        for batch in readers.open_file(path).batches(10):
            found += batch.items
    assert found == [[1, 1], [2, 2]][:count]
    assert "\n" not in str(broken.value)


def test_what_is_longer_than_any_record_ends_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "CHUNK", 512)
    monkeypatch.setattr(readers, "LONGEST", 2048)
    for name, text in {"a.csv": "a,b\n1,2\n" + "x" * 50_000, "a.json": '[{"a": 1}, {"b": "' + "x" * 50_000}.items():
        (tmp_path / name).write_text(text)
        found, read = [], []
        with pytest.raises(readers.Broken):
            for batch in readers.open_file(tmp_path / name).batches(10, progress=read.append):
                found += batch.raws
        assert len(found) == 1 and sum(read) < 5000


def test_a_quoted_field_has_an_end(tmp_path):
    """What is not closed within QUOTED_LINES lines costs one line, also at a later chunk."""
    lines = ['1,"2', *(f"{n},x" for n in range(300)), '3,"4']
    (tmp_path / "a.csv").write_text("a,b\n" + "\n".join(lines))
    assert [line for line, _ in records(tmp_path / "a.csv")] == list(range(2, 304))


def test_escaped_text_can_be_stored_and_is_not_endless():
    assert readers.escaped("a\0b\udcff") == "a\\x00b\\xff"
    assert len(readers.escaped("x" * 100_000)) < 10_100


# Values, without a database

INSTANTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))


def micros(moment: datetime) -> int:
    return (moment - datetime(2000, 1, 1, tzinfo=moment.tzinfo)) // timedelta(microseconds=1)


@given(INSTANTS)
def test_instants(moment):
    utc, minute = moment.replace(tzinfo=UTC), moment.replace(second=0, microsecond=0)
    day = minute.replace(hour=0, minute=0)
    texts = {
        moment.isoformat(): moment, moment.isoformat(" "): moment, f" {utc.isoformat()} ": moment,
        f"{moment.isoformat()}Z": moment, f"{moment.isoformat(' ')} UTC": moment,
        f"{moment.isoformat()}+01:00": moment - timedelta(hours=1), f"{moment:%Y/%m/%d %H:%M:%S.%f}": moment,
        f"{minute:%Y.%m.%d %H:%M}": minute, f"{moment.year:04}-{moment.month}-{moment.day} {minute:%H:%M}": minute,
        f"{moment:%Y%m%dT%H%M%S}": moment.replace(microsecond=0), f"{moment:%Y-%m-%d}": day, f"{moment:%Y%m%d}": day,
    }
    for text, expected in texts.items():
        assert Times().instants([text]) == ([micros(expected)], {}), text
        assert Times().instants([text, None]) == ([micros(expected), 0], {1: "has no time"}), text


@given(st.lists(INSTANTS, min_size=1), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_counts_since_1970(moments, unit):
    moments = [*moments, datetime(1973, 4, 1), datetime(1970, 8, 22, 21, 21, 41)]  # 20240501 seconds: not a date
    seconds = [moment.replace(microsecond=0) for moment in moments]
    numbers = [int((moment - datetime(1970, 1, 1)).total_seconds()) * unit for moment in seconds]
    expected = [micros(moment) for moment in seconds]
    assert columns.unit(numbers) == unit
    for column in (numbers, list(map(str, numbers)), [*numbers[:-1], str(numbers[-1])]):
        assert Times(unit=columns.unit(column), around=micros(datetime(1973, 1, 1))).instants(column) == (expected, {})


def test_numbers_that_are_no_time():
    assert columns.unit([44197, 44198]) is None
    for value in (44197, "44197", 1.5, "1.5", True, [1], "24-01-01", "01/02/2024", "2024-02-30", "2024", "infinity"):
        assert list(Times().instants([value])[1]) == [0], value
    assert list(Times(unit=1, fixed=True).instants([10**18, 1700000000])[1]) == [0]
    assert columns.unit([*range(1700000000, 1700000030), 1e300, 1700000000000]) == 1


@given(st.lists(st.one_of(
    st.floats(allow_infinity=False).map(repr), st.integers().map(str), st.text(max_size=4),
    st.sampled_from(["", " 1 ", "1_0", "nan", "NULL", ".", "-", "inf", "1e999", "1e-999", "\u0663", "0x1", "1,5"]))))
def test_a_number_does_not_depend_on_its_neighbours(values):
    together, wrong = columns.numbers(values)
    for index, value in enumerate(values):
        ((alone,), errors) = columns.numbers([value])
        assert (index in wrong) == bool(errors)
        assert together[index] == alone or (math.isnan(together[index]) and math.isnan(alone))
        with contextlib.suppress(ValueError):  # dressed as $5 or 0K: see test_numbers
            assert errors or math.isnan(alone) or alone == float(value)


def test_numbers():
    assert columns.numbers([1, 2.5, 10**400])[1].keys() == {2}
    nan = pytest.approx(math.nan, nan_ok=True)
    assert columns.numbers([1, True, None, "2"]) == ([1, nan, nan, 2], {1: "True is not a number"})
    assert columns.whole_numbers(["7", 7.0, 7.5, 2**60])[1].keys() == {2, 3}


def test_intervals():
    assert {name: columns.interval(name) for name in ("1m", "1M", "D", "daily", " 1H ", "60min", "M1", "1mo", "2d")} \
        == {"1m": "1m", "1M": "1M", "D": "1d", "daily": "1d", " 1H ": "1h", "60min": "1h", "M1": "1m", "1mo": "1M",
            "2d": None}


@pytest.mark.parametrize(("table", "names", "expected"), [
    ("timeseries_data", ["t", "v"], {"value": "v"}),
    ("timeseries_data", ["t", "o", "h", "l", "c", "v"],
     {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}),
    ("timeseries_data", ["Timestamp", "ratio"], {"value": "ratio"}),
    ("timeseries_data", ["Date", "Price"], {"value": "Price"}),
    ("quotes", ["symbol", "ts", "Last Price", "bid", "ask", "volume", "Open"],
     {"price": "Last Price", "bid": "bid", "ask": "ask", "volume": "volume", "open_price": "Open"}),
])
def test_columns_by_their_usual_names(file, table, names, expected):
    path = file("a.csv", as_csv([["A" if name == "symbol" else 1700000000 if name.lower() in columns.NAMES["time"]
                                  else 5 for name in names]], names))
    (found,) = looked([path], table=table)
    assert (found.numbers, found.time) == (expected, tuple(n for n in names if n.lower() in columns.NAMES["time"])[:1])
    assert found.extended(names) == found


def test_what_the_loader_knows_of_the_tables(tx):
    labels = tx.execute("SELECT enum_range(NULL::candle_interval)::text[]").fetchone()[0]
    assert list(INTERVALS) == labels
    for target in TARGETS.values():
        there = dict(tx.execute("SELECT attname, atttypid::regtype::text FROM pg_attribute "
                                "WHERE attrelid = %s::regclass", [target.name]).fetchall())
        types = {name: there[name] for name in target.numbers}
        assert set(types.values()) <= {"double precision", "bigint"}
        assert {name for name, kind in types.items() if kind == "bigint"} == target.whole
        key = tx.execute("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass "
                         "AND contype = 'p'", [target.name]).fetchone()[0]
        assert key == f"PRIMARY KEY ({', '.join(target.key)})".replace("timestamp", '"timestamp"') \
            .replace("interval", '"interval"')


def test_time_to_look_at_a_file_of_many_columns_grows_with_their_number(file):
    names = [f"SYM{n}" for n in range(60_000)]
    wide = file("wide.csv", as_csv([("2024-01-01", *[1.5] * len(names))], ("Date", *names)))
    began = time.process_time()
    (layout,) = looked([wide], table="timeseries_data", said=said(wide=True))
    assert len(layout.wide) == len(names)
    assert time.process_time() - began < 8, "the square of it takes 30 s"
