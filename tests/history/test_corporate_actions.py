"""Splits that are put right: recorded from an episode or a file, adjusted when read, and explained."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from click.testing import CliRunner
from conftest import adder

from tidemark import actions
from tidemark.cli import main
from tidemark.errors import Problem

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = "(asset_id, interval, ts, open, high, low, close, volume, vwap)"


def fill(connection: psycopg.Connection, asset: str, interval: str, step: timedelta, split: int, ratio: float,
         start: datetime = START, rows: int = 60) -> None:
    """Bars at about 100, and from row `split` on at a `ratio`th of that; volume 1000 and `ratio` times as much."""
    connection.cursor().executemany(
        f"INSERT INTO candles {COLUMNS} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [(asset, interval, start + i * step, *[100 * (1 + i % 5 / 1000) / (ratio if i >= split else 1)] * 4,
          1000 * (ratio if i >= split else 1), 100 / (ratio if i >= split else 1)) for i in range(rows)])


def adjusted(connection: psycopg.Connection, asset: str, view: str = "candles_adjusted", time: str = "ts") -> list:
    return connection.execute(
        f"SELECT round(close::numeric, 6), volume, factor FROM {view} WHERE asset_id = %s ORDER BY {time}", [asset]
    ).fetchall()


def review(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute("SELECT status::text, notes FROM anomalies ORDER BY timestamp").fetchall()


@pytest.mark.parametrize("ratio", [2, 1.5, 20, 0.1, 0.05])
def test_an_episode_becomes_a_split(tx, add, ratio):
    asset = add("assets", symbol="S")
    fill(tx, asset, "1d", DAY, 50, ratio)
    raw = tx.execute("SELECT c::text FROM candles AS c ORDER BY ts").fetchall()
    (episode, kind), = tx.execute("SELECT episode_id, kind::text FROM anomaly_queue").fetchall()
    assert kind == ("split_candidate" if ratio in (2, 1.5, 0.1) else "spike"), "20 is no usual one, and yet may be one"
    tx.execute("SELECT set_config('tidemark.actor', 'ada', false)")
    tx.execute("SELECT record_split(%s, %s, 'as announced')", [episode, Decimal(str(ratio))])
    found = adjusted(tx, asset)
    assert [(float(close), volume) for close, volume, _ in found] == [
        (pytest.approx(100 * (1 + i % 5 / 1000) / ratio, abs=1e-5), pytest.approx(1000 * ratio)) for i in range(60)]
    assert [factor for *_, factor in found] == [ratio] * 50 + [1] * 10
    assert tx.execute("SELECT c::text FROM candles AS c ORDER BY ts").fetchall() == raw
    assert review(tx) == [("expected", f"split {ratio}")]
    assert tx.execute("SELECT count(*) FROM anomaly_queue").fetchone() == (0,)
    assert tx.execute("SELECT ex_date, ratio::float, effective_at, source, status::text, notes FROM corporate_actions"
                      ).fetchall() == [(date(2024, 2, 20), pytest.approx(ratio), START + 50 * DAY, "ada", "confirmed",
                                        "as announced")]
    tx.execute("SELECT rescore('candles')")
    assert review(tx) == [("expected", f"split {ratio}")]
    tx.execute("UPDATE corporate_actions SET status = 'rejected'")
    assert review(tx) == [("open", None)]
    assert {factor for *_, factor in adjusted(tx, asset)} == {1}


def test_several_splits_multiply(tx, add):
    asset, other = add("assets", symbol="S"), add("assets", symbol="T")
    for one in (asset, other):
        fill(tx, one, "1d", DAY, 99, 2, rows=4)
    for ex_date, ratio, status in ((2, 7, "confirmed"), (3, 4, "confirmed"), (4, 10, "proposed"), (4, 3, "rejected")):
        tx.execute("INSERT INTO corporate_actions (asset_id, ex_date, ratio, source, status, kind)"
                   " VALUES (%s, %s, %s, 'me', %s, %s)", [asset, date(2024, 1, ex_date), ratio, status,
                                "split" if status != "rejected" else "stock_dividend"])
    assert [factor for *_, factor in adjusted(tx, asset)] == [28, 4, 1, 1]
    assert [factor for *_, factor in adjusted(tx, other)] == [1] * 4


def test_aggregates_are_adjusted_by_the_bar_and_count_the_day_of_the_split_as_after_it(tx, add):
    asset = add("assets", symbol="S")
    source = add("sources", interval="1d", asset_id=asset)
    opens = START + DAY + timedelta(hours=14, minutes=30)
    fill(tx, asset, "1m", MINUTE, 40, 2, start=opens - DAY - 40 * MINUTE, rows=40)
    fill(tx, asset, "1m", MINUTE, 0, 2, start=opens, rows=30)
    tx.execute("INSERT INTO timeseries_data (source_id, timestamp, close, volume)"
               " VALUES (%s, %s, 100, 5), (%s, %s, 50, 9)", [source, START, source, START + DAY])
    tx.execute("INSERT INTO corporate_actions (asset_id, ex_date, ratio, effective_at, source)"
               " VALUES (%s, %s, 2, %s, 'me')", [asset, (START + DAY).date(), opens])
    for view in ("candles_5m", "candles_15m", "candles_1h", "candles_4h", "candles_1d"):
        found = adjusted(tx, asset, f"{view}_adjusted", "bucket")
        plain = tx.execute(f"SELECT count(*) FROM {view}").fetchone()[0]
        assert len(found) == plain
        assert all(close == pytest.approx(50, abs=0.3) for close, *_ in found), view
        assert {factor for *_, factor in found} == {1, 2}
    assert tx.execute("SELECT close, volume, factor FROM daily_ohlcv_adjusted ORDER BY day").fetchall() == [
        (50, 10, 2), (50, 9, 1)]


def test_an_action_explains_what_came_and_nothing_is_flagged_where_it_was_known(tx, add):
    asset = add("assets", symbol="S")
    source = add("sources", interval="1d", asset_id=asset)
    tx.execute("INSERT INTO corporate_actions (asset_id, ex_date, ratio, source)"
               " VALUES (%s, '2024-02-20', 2, 'a file')", [asset])
    fill(tx, asset, "1d", DAY, 50, 2)
    tx.execute("INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
               " SELECT %s, ts, open, high, low, close, volume FROM candles", [source])
    assert review(tx) == []
    tx.execute("DELETE FROM corporate_actions")
    assert review(tx) == [], "until it is judged again"
    for table in ("candles", "timeseries_data"):
        tx.execute("SELECT rescore(%s)", [table])
    assert review(tx) == [("open", None)] * 2
    tx.execute("INSERT INTO corporate_actions (asset_id, ex_date, ratio, source)"
               " VALUES (%s, '2024-02-20', 2.2, 'a file')", [asset])
    assert review(tx) == [("expected", "split 2.2")] * 2, "a ratio of about that"
    tx.execute("UPDATE corporate_actions SET ratio = 10")
    assert review(tx) == [("open", None)] * 2
    tx.execute("UPDATE corporate_actions SET ratio = 2.2")
    for table in ("candles", "timeseries_data"):
        tx.execute("SELECT rescore(%s)", [table])
    assert review(tx) == [("expected", "split 2.2")] * 2, "what is left of it, a tenth, stands out, but was looked at"
    tx.execute("UPDATE corporate_actions SET status = 'rejected'")
    assert review(tx) == [("open", None)] * 2


def test_what_is_no_split_is_refused(tx, add):
    asset = add("assets", symbol="S")
    fill(tx, asset, "1d", DAY, 50, 2)
    fill(tx, asset, "1h", timedelta(hours=1), 50, 1.2)
    source = add("sources", interval="1d")
    tx.execute("INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
               " SELECT %s, ts, open, high, low, close, volume FROM candles WHERE interval = '1d'", [source])

    def episode(condition: str) -> int:
        return tx.execute(f"SELECT episode_id FROM anomalies WHERE {condition}").fetchone()[0]
    for number, ratio, code in (
        (episode("interval = '1d'"), 3, "TM215"), (episode("interval = '1d'"), 0.5, "TM215"),
        (episode("interval = '1d'"), 1, "TM215"), (episode("interval = '1d'"), "NaN", "TM215"),
        (episode("interval = '1h'"), 1.35, "TM215"), (episode("source_id IS NOT NULL"), 2, "TM214"),
        (10**9, 2, "TM212"),
    ):
        with pytest.raises(psycopg.Error) as error, tx.transaction():
            tx.execute("SELECT record_split(%s, %s)", [number, Decimal(str(ratio))])
        assert error.value.sqlstate == code
    assert tx.execute("SELECT count(*) FROM corporate_actions").fetchone() == (0,)


def test_verbs(db, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", db.url)

    def said(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, list(map(str, arguments)))
        return result.exit_code, result.output

    file = tmp_path / "splits.csv"
    file.write_text("date,split\n2024-01-20,1:3\n2024-02-20,2:1\n")
    with db.connect() as connection:
        asset = adder(connection)("assets", symbol="S", exchange="X")
        fill(connection, asset, "1d", DAY, 50, 2)
        episode, = connection.execute("SELECT episode_id FROM anomaly_queue").fetchone()
        code, text = said("anomalies", "split", episode, "--ratio", "2:0")
        assert (code, text.count("\n")) == (2, 1) and "2:0 is no ratio" in text
        code, text = said("anomalies", "split", episode, "--ratio", "5")
        assert (code, text.count("\n")) == (1, 1) and "0.4980 of the one before" in text
        assert said("anomalies", "split", episode, "--ratio", "2:1", "--notes", "8-K") == (
            0, "action 1: bars before it are adjusted\n")
        assert said("load", "--table", "corporate_actions", "--symbol", "S", "--dry-run", file)[0] == 0
        assert connection.execute("SELECT count(*) FROM corporate_actions").fetchone() == (1,)
        assert said("load", "--table", "corporate_actions", "--symbol", "S", "--exchange", "X", file) == (
            0, f"{file}: 1 actions are new or changed\n")
        code, text = said("load", "--table", "corporate_actions", "--symbol", "Z", file)
        assert (code, text.count("\n")) == (2, 1) and "there are 0 assets Z" in text
        stored = "SELECT round(ratio, 4), notes FROM corporate_actions ORDER BY ex_date"
        assert connection.execute(stored).fetchall() == [(Decimal("0.3333"), None), (2, "8-K")]


FILES = {
    "yfinance": ("Date,Dividends,Stock Splits\n2020-08-30 00:00:00-04:00,0.2,0.0\n"
                 "2020-08-31 00:00:00-04:00,0.0,4.0\n",
                 [("AAPL", date(2020, 8, 31), "4")]),
    "symbols": ("ticker;ex_date;ratio\nAAPL;2014-06-09;7:1\nGE;2021-08-02;1:8\n",
                [("AAPL", date(2014, 6, 9), "7"), ("GE", date(2021, 8, 2), "0.125")]),
    "words": ("\ufeffSymbol\tExecution Date\tSplit Ratio\nAAPL\t2005-02-28\t2-for-1\n",
              [("AAPL", date(2005, 2, 28), "2")]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_actions(tx, add, tmp_path, name):
    text, expected = FILES[name]
    file = tmp_path / f"{name}.csv"
    file.write_text(text)
    symbol = "AAPL" if name == "yfinance" else None
    for one in ("AAPL", "GE"):
        add("assets", symbol=one)
    stored = ("SELECT symbol, ex_date, trim_scale(ratio)::text FROM corporate_actions JOIN assets USING (asset_id)"
              " ORDER BY ex_date")
    assert actions.load(tx, [file], symbol=symbol) == {file: len(expected)}
    assert tx.execute(stored).fetchall() == sorted(expected, key=lambda row: row[1])
    tx.execute("UPDATE corporate_actions SET status = 'rejected'")
    assert actions.load(tx, [file], symbol=symbol) == {file: 0}
    assert tx.execute("SELECT DISTINCT status::text FROM corporate_actions").fetchall() == [("rejected",)]


@pytest.mark.parametrize(("text", "line"), [
    ("date,ratio\n2020-01-02,2\n", 1), ("symbol,date\nA,2020-01-02\n", 1),
    ("symbol,date,ratio,split\nA,2020-01-02,2,2\n", 1),
    ("symbol,date,ratio\nA,02/01/2020,2\n", 2), ("symbol,date,ratio\nA,2020-01-02,two\n", 2),
    ("symbol,date,ratio\nA,2020-01-02,2:0\n", 2), ("symbol,date,ratio\nA,2020-01-02,2\nB,2020-01-02,2\n", 3),
    ("symbol,date,ratio\nA,2020-01-02,1e9\n", 2), ("symbol,date,ratio\nA,2020-01-02,9999999\n", 2),
    ("symbol,date,ratio,kind\nA,2020-01-02,2,merger\n", 2), ("symbol,date,ratio\nC,2020-01-02,2\n", 2), ("nonsense", 1),
])
def test_a_file_that_is_not_certain_stores_nothing(tx, add, tmp_path, text, line):
    add("assets", symbol="A")
    for exchange in ("X", "Y"):
        add("assets", symbol="C", exchange=exchange)
    file = tmp_path / "actions.csv"
    file.write_text(text)
    with pytest.raises(Problem) as refused:
        actions.load(tx, [file])
    assert f"actions.csv line {line}:" in str(refused.value)
    assert tx.execute("SELECT count(*) FROM corporate_actions").fetchone() == (0,)
