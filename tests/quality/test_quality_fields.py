"""Of a bar, open, high, low and volume are judged too: rollups and indicators are made of them."""

from __future__ import annotations

import math

import pytest
from quality_reference import judge_bars
from quality_support import COLUMNS, MINUTE, START, copy, dice, everything, insert, pieces
from test_quality_acceptance import others, stocks

FOUND = (
    "SELECT timestamp, field, value, z_score, observed, expected, deviation, scale, samples FROM anomalies"
    " WHERE source_id = %s ORDER BY timestamp"
)
ERRORS = {
    "high": lambda o, h, lo, c, v, g: (o, h * 1.1, lo, c, v),
    "low": lambda o, h, lo, c, v, g: (o, h, lo * 0.9, c, v),
    "open": lambda o, h, lo, c, v, g: (w := o * g.choice([1.1, 0.9]), max(h, w), min(lo, w), c, v),
    "volume": lambda o, h, lo, c, v, g: (o, h, lo, c, v * 1000),
}


def walk_of_bars(length: int, seed: int) -> list[tuple[float, float, float, float, float]]:
    """Bars of a price that wanders, with shadows and a volume of their own."""
    generator, price, bars = dice(seed), 100.0, []
    for _ in range(length):
        first = price * math.exp(generator.gauss(0, 0.0002))
        price = first * math.exp(generator.gauss(0, 0.001) * (4 if generator.random() < 0.02 else 1))
        shadows = [math.exp(abs(generator.gauss(0, 0.0005))) for _ in range(2)]
        bars.append((first, max(first, price) * shadows[0], min(first, price) / shadows[1], price,
                     math.exp(generator.gauss(8, 0.7))))
    return bars


def with_errors(
    bars: list[tuple], seed: int, share: float = 0.008, first: int = 150
) -> tuple[list[tuple], dict[int, str]]:
    """Some of the bars with one field wrong: high or low by a tenth outwards, open by a tenth, volume by a thousand."""
    generator, wrong, places = dice(seed), list(bars), {}
    while len(places) < round(share * len(bars)):
        i = generator.randrange(first, len(bars) - 5)
        if all(abs(i - p) > 5 for p in places):
            places[i] = generator.choice(list(ERRORS))
            wrong[i] = ERRORS[places[i]](*bars[i], generator)
    return wrong, places


def rows_of(source_id: int, bars: list[tuple]) -> list[tuple]:
    return [(source_id, START + i * MINUTE, *bar) for i, bar in enumerate(bars)]


def test_errors_in_fields_of_real_bars(tx, add, capsys):
    tx.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
    errors, found = dict.fromkeys(ERRORS, 0), dict.fromkeys(ERRORS, 0)
    clean = flagged = 0
    for rows in {**stocks(), **others()}.values():
        for seed in range(2):
            bars, places = with_errors([row[1:] for row in rows], seed)
            source_id = add("sources")
            copy(tx, [(source_id, row[0], *bar) for row, bar in zip(rows, bars, strict=True)], columns=COLUMNS)
            stands_out = {at: field for at, field, *_ in tx.execute(FOUND, [source_id])}
            for i, field in places.items():
                errors[field] += 1
                found[field] += stands_out.pop(rows[i][0], None) == field
            clean += len(rows) - len(places)
            flagged += sum(field is not None for field in stands_out.values())
    with capsys.disabled():
        print(f"\n{clean:,} clean bars, {flagged / clean:.2%} flagged for a field; found of "
              + ", ".join(f"{field} {found[field] / n:.3f} ({n})" for field, n in errors.items()))
    assert min(errors.values()) > 50
    assert found["high"] + found["low"] >= 0.95 * (errors["high"] + errors["low"])
    assert found["open"] >= 0.95 * errors["open"]
    assert found["volume"] >= 0.95 * errors["volume"]
    assert flagged <= 0.002 * clean


@pytest.mark.parametrize("seed", [1, 2])
def test_fields_agree_with_their_definition_row_by_row_and_rescored(tx, add, seed):
    bars, places = with_errors(walk_of_bars(500, seed), seed, 0.05, 40)
    one, other = add("sources", interval="1m"), add("sources", interval="1m")
    copy(tx, rows_of(one, bars))
    for row in rows_of(other, bars):
        insert(tx, [row])
    found = tx.execute(FOUND, [one]).fetchall()
    assert tx.execute(FOUND, [other]).fetchall() == found
    expected = [(START + i * MINUTE, j.field, j) for i, j in enumerate(judge_bars(bars))
                if j.z is not None and abs(j.z) > 4]
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert {START + i * MINUTE for i in places} <= {at for at, *_ in found}
    assert {field for _, field, *_ in found} == {None, *ERRORS}
    for (_, field, value, *figures), (at, _, j) in zip(found, expected, strict=True):
        assert (figures.pop(3) is None) == (j.deviation is None)
        assert figures == pytest.approx([j.z, j.observed, j.expected, j.scale, j.samples], rel=1e-6, abs=1e-9)
        assert value == bars[(at - START) // MINUTE][{"open": 0, "high": 1, "low": 2, "volume": 4}.get(field, 3)]
    before = everything(tx)
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(tx) == before


@pytest.mark.parametrize(("seed", "anomaly_z"), [(0, 4), (1, 4), (2, 2.5)])
def test_fields_in_any_order_with_rows_that_lack_some(tx, add, seed, anomaly_z):
    generator = dice(seed)
    tx.execute("SET LOCAL tidemark.reason = 'a test'")
    tx.execute("UPDATE quality_profiles SET anomaly_z = %s WHERE name = 'ohlcv'", [anomaly_z])
    ids = [add("sources", interval="1m") for _ in range(2)]
    walks = [with_errors(walk_of_bars(400, 9 * seed + n), n, 0.05)[0] for n in range(2)]
    rows = [row for i, walk in zip(ids, walks, strict=True) for row in rows_of(i, walk)]
    for i in generator.sample(range(len(rows)), 60):
        missing = generator.choice([(2,), (3,), (4,), (5,), (6,), (2, 3, 4, 5, 6)])
        rows[i] = tuple(None if k in missing else value for k, value in enumerate(rows[i]))
    copy(tx, rows)
    in_order = everything(tx)
    assert len({row[11] for row in in_order["anomalies"]}) == 5
    tx.execute("TRUNCATE timeseries_data")
    for row in rows:
        insert(tx, [row])
    assert everything(tx) == in_order
    tx.execute("TRUNCATE timeseries_data")
    generator.shuffle(rows)
    for piece in pieces(rows, generator, 150):
        insert(tx, piece)
    assert everything(tx) == in_order


def test_review_is_of_the_field(tx, add):
    """A confirmed error of a high leaves the close in its baselines, and a corrected one is none any more."""
    tx.execute("SET LOCAL tidemark.reason = 'a test'")
    tx.execute("UPDATE quality_profiles SET exclude_confirmed_errors = true")
    source_id = add("sources", interval="1m")
    bars = walk_of_bars(300, 4)
    copy(tx, rows_of(source_id, [(o, h * 1.1 if i == 200 else h, lo, c * 1.1 if i == 230 else c, v)
                                 for i, (o, h, lo, c, v) in enumerate(bars)]))
    at = START + 200 * MINUTE
    [(number, value)] = tx.execute(
        "SELECT anomaly_id, value FROM anomalies WHERE field = 'high' AND timestamp = %s", [at])
    assert value == bars[200][1] * 1.1
    excluded = "SELECT is_excluded FROM timeseries_data WHERE timestamp = %s"
    assert tx.execute("SELECT fields FROM anomaly_queue WHERE %s BETWEEN starts_at AND ends_at", [at]).fetchone()[0] \
        in ("high", "high, low", "high, low, volume", "high, volume")
    tx.execute("SELECT review_anomaly(%s, 'confirmed_error')", [number])
    assert tx.execute(excluded, [at]).fetchone() == (True,), "a day's high is not that one"
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,), "the close is as good as ever"
    tx.execute("UPDATE timeseries_data SET high = %s WHERE timestamp = %s", [bars[200][1], at])
    assert tx.execute("SELECT count(*) FROM anomalies WHERE timestamp = %s", [at]).fetchone() == (0,)
    assert tx.execute(excluded, [at]).fetchone() == (False,)


def test_a_feed_whose_open_is_another_thing(tx, add):
    """Some repeat the day's open in every bar: no row of theirs stands out for what all of them are."""
    source_id = add("sources", interval="1m")
    bars = [(100.0, max(h, 100), min(lo, 100), c, v) for _, h, lo, c, v in walk_of_bars(600, 7)]
    copy(tx, rows_of(source_id, bars))
    [count] = tx.execute("SELECT count(*) FROM anomalies WHERE field = 'open'").fetchone()
    assert count < 6


def test_fields_after_the_first_rows_only_and_not_of_quotes(tx, add):
    source_id = add("sources", interval="1m")
    bars = walk_of_bars(40, 5)
    copy(tx, rows_of(source_id, [(o, h * 1.1, lo, c, v) if i == 20 else (o, h, lo, c, v)
                                 for i, (o, h, lo, c, v) in enumerate(bars)]))
    assert tx.execute("SELECT count(*) FROM anomalies WHERE field IS NOT NULL").fetchone() == (0,)
    asset = add("assets", symbol="Q", asset_type="stock")
    rows = [(asset, START + i * MINUTE, c, c * (1.1 if i == 250 else 1.02), c * 0.98, v)
            for i, (_, _, _, c, v) in enumerate(walk_of_bars(300, 6))]
    copy(tx, rows, table="quotes", columns="asset_id, ts, price, high, low, volume")
    assert tx.execute("SELECT count(*) FROM anomalies WHERE field IS NOT NULL").fetchone() == (0,), "those are a day's"


def test_volume_after_volumes_that_were_all_the_same(tx, add):
    """The mean of a hundred equal logarithms is not always that logarithm, nor their deviation 0."""
    volumes = [1, 196, 246, 274, 319, 324, 342, 394, 459, 1000]
    for volume in volumes:
        bars = [(100 + math.sin(i), 102, 98, 100 + math.sin(i + 1), volume) for i in range(120)]
        bars[110] = (*bars[110][:4], volume * 1000)
        source_id = add("sources")
        copy(tx, rows_of(source_id, bars))
        assert [row[:2] for row in tx.execute(FOUND, [source_id])] == [(START + 110 * MINUTE, "volume")], volume
