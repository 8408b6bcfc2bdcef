"""Files as traders have them: stored right, or refused by name. One folder per shape, with what has to come of it.

`tests/files/README.md` says where each shape is from. Every command is run as it would be typed.
"""

from __future__ import annotations

import json
import shlex
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
        options += shlex.split(case["options_needed"].split(",")[0])
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
