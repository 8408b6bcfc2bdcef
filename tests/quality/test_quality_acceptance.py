"""What the detector finds, and what it costs in false alarms, on real prices with errors put in on purpose."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import itertools
import math
import statistics
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path

import pytest
from quality_support import COLUMNS, copy, dice

SEEDS = range(4)


@cache
def stocks() -> dict[str, list[tuple]]:
    """Daily unadjusted bars of five shares, 12,154 rows, with three splits."""
    rows: dict[str, list[tuple]] = {}
    with gzip.open(resources.files("bokeh_sampledata") / "_data" / "stocks.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            at = datetime.fromisoformat(row["Date"]).replace(tzinfo=UTC)
            rows.setdefault(row["Ticker"], []).append(
                (at, *(float(row[c]) for c in ("Open", "High", "Low", "Close", "Volume")))
            )
    return rows


@cache
def others() -> dict[str, list[tuple]]:
    """Hourly EURUSD and daily GOOGL of gym-anytrading, found without importing it."""
    data = Path(importlib.util.find_spec("gym_anytrading").submodule_search_locations[0], "datasets", "data")
    rows = {}
    for name, file, form in [
        ("EURUSD", "FOREX_EURUSD_1H_ASK.csv", "%d.%m.%Y %H:%M:%S.%f"),
        ("GOOGL", "STOCKS_GOOGL.csv", "%Y-%m-%d"),
    ]:
        with (data / file).open() as lines:
            rows[name] = [
                (
                    datetime.strptime(row[next(iter(row))], form).replace(tzinfo=UTC),
                    *(float(row[c]) for c in ("Open", "High", "Low", "Close", "Volume")),
                )
                for row in csv.DictReader(lines)
            ]
    return rows


def with_errors(rows: list[tuple], seed: int) -> tuple[list[tuple], set[datetime]]:
    """0.4 % of the closes wrong: ten times, a tenth, 10 or 20 of the usual deviations up or down, or 5 % where that is
    an error: a share moves by as much on many a day, so that nothing can tell the two apart."""
    generator = dice(seed)
    changes = [abs(math.log(b[4] / a[4])) for a, b in itertools.pairwise(rows)]
    places: list[int] = []
    while len(places) < round(0.004 * len(rows)):
        i = generator.randrange(150, len(rows) - 5)
        if all(abs(i - p) > 5 for p in places):
            places.append(i)
    wrong = list(rows)
    for i in places:
        usual = 1.4826 * statistics.median(changes[max(0, i - 100) : i]) or 1e-4
        factors = [10, 0.1, *(math.exp(sign * n * usual) for n in (10, 20) for sign in (1, -1))]
        if usual < 0.005:
            factors += [1.05, 0.95]
        at, o, h, lo, c, v = rows[i]
        c *= generator.choice(factors)
        wrong[i] = (at, o, max(h, c), min(lo, c), c, v)
    return wrong, {rows[i][0] for i in places}


def flagged(tx, add, rows) -> dict[datetime, tuple[float, bool]]:
    """|z| of the flagged rows, and whether their price is."""
    source_id = add("sources")
    copy(tx, [(source_id, *row) for row in rows], columns=COLUMNS)
    found = tx.execute("SELECT timestamp, abs(z_score), field IS NULL FROM anomalies WHERE source_id = %s", [source_id])
    return {at: (z, is_price) for at, z, is_price in found}


def test_errors_in_real_prices(tx, add, capsys):
    counts = dict.fromkeys(["rows", "errors", "found", "echoes", "clean", "false4", "false6", "false_price"], 0)
    tx.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
    pool = {**stocks(), **others()}
    usual = {name: flagged(tx, add, rows) for name, rows in pool.items()}
    for name, rows in pool.items():
        after = dict(zip([row[0] for row in rows], [row[0] for row in rows[1:]], strict=False))
        for seed in SEEDS:
            wrong, places = with_errors(rows, seed)
            found = flagged(tx, add, wrong)
            false = found.keys() - places
            counts["rows"] += len(rows)
            counts["errors"] += len(places)
            counts["found"] += len(places & found.keys())
            counts["echoes"] += sum(after[at] in false and after[at] not in usual[name] for at in places)
            counts["clean"] += len(rows) - len(places)
            counts["false4"] += len(false)
            counts["false6"] += sum(found[at][0] > 6 for at in false)
            counts["false_price"] += sum(found[at][1] for at in false)
    recall, echo = counts["found"] / counts["errors"], counts["echoes"] / counts["errors"]
    precision = counts["found"] / (counts["found"] + counts["false_price"])
    over4, over6 = counts["false4"] / counts["clean"], counts["false6"] / counts["clean"]
    with capsys.disabled():
        print(
            f"\n{', '.join(pool)}: {counts['rows']:,} rows, {counts['errors']} errors: recall {recall:.3f}, precision"
            f" {precision:.3f}, echoes per error {echo:.3f}, clean rows flagged {over4:.2%} (> 6: {over6:.2%})"
        )
    assert counts["errors"] > 250
    assert recall >= 0.96
    assert echo <= 0.02
    assert over4 <= 0.006
    assert over6 <= 0.002
    assert precision >= 0.45


def test_the_three_splits_are_found_as_such_and_nothing_else(tx, add):
    sources = {}
    for ticker, rows in stocks().items():
        sources[add("sources", interval="1d")] = ticker
        copy(tx, [(max(sources), *row) for row in rows], columns=COLUMNS)
    found = tx.execute(
        "SELECT source_id, timestamp::date::text, round(z_score::numeric, 1)::float8 FROM anomalies WHERE kind"
        " = 'split_candidate' ORDER BY 2"
    ).fetchall()
    assert [(sources[s], day) for s, day, _ in found] == [
        ("AAPL", "2000-06-21"),
        ("MSFT", "2003-02-18"),
        ("AAPL", "2005-02-28"),
    ]
    assert [z for _, _, z in found] == pytest.approx([-12.8, -24.5, -29.3], abs=0.1)
    splits = [(s, day) for s, day, _ in found]
    lost = tx.execute(
        "SELECT (series ->> 'source_id')::int, ts::date::text FROM quality_issues WHERE penalty = 'consistency'"
    ).fetchall()
    assert not set(splits) & set(lost), "none of them moved by more than half"
