"""Files as traders have them: stored right, or refused by name. One folder per shape, with what has to come of it.

`tests/files/README.md` says where each shape is from. Every command is run as it would be typed.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from tidemark import cli

FILES = Path(__file__).parent / "files"
CASES = {path.parent.name: json.loads(path.read_text()) for path in sorted(FILES.glob("*/expected.json"))}
QUERIES = {
    "candles": "SELECT a.symbol, c.interval::text, c.ts, open, high, low, close, volume, trades, vwap, s.name AS source"
               "  FROM candles AS c JOIN assets AS a USING (asset_id) LEFT JOIN sources AS s USING (source_id)",
    "timeseries_data": "SELECT s.name AS source, t.timestamp AS ts, value, open, high, low, close, volume, metadata"
                       "  FROM timeseries_data AS t JOIN sources AS s USING (source_id)",
    "quotes": "SELECT a.symbol, q.ts, price, volume, bid, ask FROM quotes AS q JOIN assets AS a USING (asset_id)",
    "ticks": "SELECT a.symbol, t.ts, seq, price, quantity, side::text, trade_id"
             "  FROM ticks AS t JOIN assets AS a USING (asset_id)",
}


@pytest.fixture(scope="module")
def desk(server, template):
    """A database for all shapes, one after the other."""
    from conftest import _database

    with _database(server, template) as database:
        yield database


@pytest.fixture
def place(desk):
    """The database, empty again."""
    with desk.connect() as connection:
        for table in (*QUERIES, "ingestion_tasks", "sources", "assets"):
            connection.execute(f"DELETE FROM {table}")
        yield desk


def run(place, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["load", *arguments], env={"DATABASE_URL": place.url, "COLUMNS": "300"})


def stored(place, table: str) -> list[dict[str, Any]]:
    with place.connect(row_factory=psycopg.rows.dict_row) as connection:
        connection.execute("SET timezone = 'UTC'")
        rows = connection.execute(f"{QUERIES[table]} ORDER BY ts, 1").fetchall()
    return [{**row, "ts": row["ts"].isoformat().replace("+00:00", "Z")} for row in rows]


def rejected(place) -> int:
    with place.connect() as connection:
        return connection.execute("SELECT count(*) FROM ingestion_rejects").fetchone()[0]


def cut(rows: list[dict[str, Any]], like: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the fields that are expected only, in an order of their own."""
    names = like[0].keys() if like else ()
    return sorted(({name: pytest.approx(row[name]) if isinstance(row[name], float) else row[name] for name in names}
                   for row in rows), key=lambda row: (row.get("symbol") or row.get("source") or "", row["ts"]))


def check(place, case: dict[str, Any], result: Result) -> None:
    table = case.get("table", "candles")
    got, wanted = stored(place, table), case.get("rows", [])
    if "refusal" in case:
        assert result.exit_code == 2, result.output
        assert result.stderr.count("\n") == 1 and " -> " in result.stderr
        assert got == [] and rejected(place) == 0
        for word in case.get("names", ()):
            assert word in result.stderr
        return
    assert result.exit_code == 0, result.output
    wanted = [{name: float(value) if isinstance(value, int) and name not in ("trades", "seq") else value
               for name, value in row.items()} for row in wanted]
    order = lambda row: (row.get("symbol") or row.get("source") or "", row["ts"], row.get("seq", 0))  # noqa: E731
    assert cut(got, wanted) == sorted(wanted, key=order)
    assert rejected(place) == case.get("rejected", 0)
    for word in case.get("says", ()):
        assert word in result.output


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "rows" in case])
def test_shape(place, name):
    case = CASES[name]
    path, options = str(FILES / name / case["file"]), shlex.split(case["command"])
    if "without_options" in case:  # not certain by itself
        check(place, {"refusal": case["without_options"], "table": case.get("table", "candles")},
              run(place, *options, path))
        options += shlex.split(case["options_needed"].split(", or")[0].replace("COMMA", ","))
    check(place, case, run(place, *options, path))


def test_trades_that_share_an_instant_are_refused_as_quotes(place):
    path = str(FILES / "trades_same_instant" / "BCHEUR.csv")
    result = run(place, "--table", "quotes", "--mode", "backfill", "--symbol", "BCHEUR", path)
    assert result.exit_code == 2
    assert "3 records with the same symbol and instant" in result.stderr and "--table ticks" in result.stderr
    assert stored(place, "quotes") == []


def test_a_record_without_any_figure_is_told_of(place):
    path = str(FILES / "rows_of_null" / "TSLA.csv")
    result = run(place, *shlex.split(CASES["rows_of_null"]["command"]), path)
    assert "1 without any figure: not stored" in result.output


EXAMPLES = {
    "eurofxref-hist.csv": ("wide_ecb/eurofxref-hist.csv", "timeseries_data", 14),
    "BTCUSDT-1h-2025-03.zip": ("klines_zip/BTCUSDT-1h-2025-03.zip", "candles", 12),
    "EURUSD_H1.csv": ("metatrader5_broker_time/EURUSD_H1.csv", "candles", 8),
    "dax.csv": ("european_decimal_comma/dax.csv", "candles", 6),
    "ambiguous.csv": ("date_order_ambiguous/AAPL.csv", "candles", 5),
    "aapl.zip": ("lean_daily_zip/aapl.zip", "candles", 6),
    "trades.csv": ("trades_same_instant/BCHEUR.csv", "ticks", 4),
}


def test_the_examples_of_the_help_run_and_use_every_option(place, tmp_path, monkeypatch):
    shown = CliRunner().invoke(cli.main, ["load", "--help"], env={"COLUMNS": "200"}).output
    examples = re.findall(r"^ +tidemark load (.*)$", re.sub(r"\\\n\s*", "", shown), re.M)
    assert len(examples) == 8
    options = {option for parameter in cli.load.params if not getattr(parameter, "hidden", False)
               for option in parameter.opts if option.startswith("--")}
    assert options == {word for example in examples for word in shlex.split(example) if word.startswith("--")}
    for name, (source, _, _) in EXAMPLES.items():
        shutil.copy(FILES / source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        arguments = shlex.split(example)
        _, table, rows = EXAMPLES[arguments[-1]]
        before = len(stored(place, table))
        result = run(place, *arguments)
        assert result.exit_code == 0, result.output
        assert len(stored(place, table)) - before == (0 if "--dry-run" in arguments else rows), example
        if "--dry-run" in arguments:
            assert "BCHEUR" in result.output and "310.5" in result.output


def test_a_bundle_of_ones_own(place, tmp_path, monkeypatch):
    (tmp_path / "formats.toml").write_text(
        '[formats.desk]\ncolumns = "ts=Datum,open=Eröffnung,high=Hoch,low=Tief,close=Schluss,volume=Volumen"\n'
        'encoding = "cp1252"\n')
    monkeypatch.setenv("TIDEMARK_FORMATS", str(tmp_path / "formats.toml"))
    path = str(FILES / "european_decimal_comma" / "dax.csv")
    options = ("--table", "candles", "--mode", "backfill", "--symbol", "DAX", "--interval", "1d")
    result = run(place, *options, "--format", "desk", path)
    assert result.exit_code == 0, result.output
    assert len(stored(place, "candles")) == 6
    assert run(place, *options, "--format", "other", path).stderr.startswith("tidemark: unknown format 'other'")
    (tmp_path / "formats.toml").write_text('[formats.desk]\ncolour = "red"\n')
    refused = run(place, *options, "--format", "desk", path)
    assert (refused.exit_code, "colour" in refused.stderr) == (2, True)


def test_a_folder_of_files_is_the_files_in_it(place, tmp_path):
    for symbol in ("AAPL", "MSFT"):
        shutil.copy(FILES / "close_last_iso" / "AAPL.csv", tmp_path / f"{symbol}.csv")
    (tmp_path / ".hidden").write_text("no prices")
    result = run(place, "--table", "candles", "--interval", "1d", "--symbol-from-name", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert [row["symbol"] for row in stored(place, "candles")].count("MSFT") == 8
    assert len(stored(place, "candles")) == 16


def test_what_a_file_of_nothing_but_rejects_says_and_that_it_can_be_tried_again(place, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("date,close\n" + "".join(f"2025-03-{day:02},12x{day}\n" for day in range(1, 9)))
    options = ("--table", "candles", "--symbol", "A", "--interval", "1d", str(path))
    for _ in range(2):
        result = run(place, *options)
        assert result.exit_code == 1
        assert "nothing could be stored: line 2: close: '12x1' is not a number" in result.stderr
        assert rejected(place) == 8
    path.write_text(path.read_text().replace("x", "."))
    assert run(place, *options).exit_code == 0
    assert len(stored(place, "candles")) == 8


def test_collapsed_records_are_counted_and_shown(place, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("date,close\n" + "".join(f"2025-03-{day:02},{day}\n" for day in (1, 2, 3, 4, 4, 5, 6, 7)))
    path.write_text(path.read_text().replace("04,4\n2025-03-04,4", "04,4\n2025-03-04,4.5"))
    result = run(place, "--table", "candles", "--symbol", "A", "--interval", "1d", str(path))
    assert "1 shared a key with a later record" in result.output
    with place.connect() as connection:
        assert connection.execute("SELECT rows_read, rows_written, rows_collapsed, rows_empty FROM ingestion_tasks"
                                  ).fetchone() == (8, 7, 1, 0)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "pandas" in case])
def test_pandas_reads_the_same(name):
    """Told how, pandas finds the same instants and closes: the expected rows are not of our own making alone."""
    import pandas as pd

    case, path = CASES[name], FILES / name / CASES[name]["file"]
    how = case["pandas"]
    frame = getattr(pd, how["call"])(path, **how.get("options", {}), **(
        {"convert_dates": False, "convert_axes": False} if how["call"] == "read_json" else {}))
    times = frame.index.to_series().astype("int64") if how["time"] is None else frame[how["time"]]
    unit = {"unit": how.get("unit", "ms")} if "unit" in how or how["time"] is None else {"format": how.get("format")}
    instants = pd.to_datetime(times, **unit)
    if "zone" in how:
        instants = instants.dt.tz_localize(how["zone"])
    close = pd.to_numeric(frame[how["close"]], errors="coerce")
    read = sorted((pd.Timestamp(moment).tz_convert("UTC") if pd.Timestamp(moment).tzinfo else
                   pd.Timestamp(moment, tz="UTC"), value)
                  for moment, value in zip(instants, close, strict=True) if value == value)
    figure = "value" if case["table"] == "timeseries_data" else "close"
    wanted = sorted((pd.Timestamp(row["ts"]), row[figure]) for row in case["rows"]
                    if row.get("symbol") != "MSFT" or name != "wide_closes")
    assert [moment for moment, _ in read] == [moment for moment, _ in wanted]
    assert [value for _, value in read] == pytest.approx([value for _, value in wanted])
