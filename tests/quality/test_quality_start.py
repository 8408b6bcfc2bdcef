"""Where a series begins: its first rows are judged together, later, and a bad one does not blind what follows."""

from __future__ import annotations

import itertools
import math
import statistics
from datetime import timedelta

import pytest
from quality_reference import judge
from quality_support import MINUTE, START, anomalies, bars, configure, copy, dice, everything, insert, pieces, walk


def bad_start(seed: int, length: int = 160) -> tuple[list[float], int, int]:
    """Prices whose rows 3 to 28 hold one ten times too large, rows 36 to 125 one of 20 usual deviations; where."""
    generator = dice(seed)
    prices = walk(length, seed)
    usual = 1.4826 * statistics.median(abs(math.log(b / a)) for a, b in itertools.pairwise(prices))
    first, later = generator.randint(3, 28), generator.randint(36, min(125, length - 1))
    prices[first] *= generator.choice([10, 0.1])
    prices[later] *= math.exp(20 * usual * generator.choice([1, -1]))
    return prices, first, later


def test_bad_first_price_is_found_and_blinds_nobody(tx, add):
    series = {add("sources", interval="1m"): bad_start(seed) for seed in range(60)}
    copy(tx, [row for source_id, (prices, _, _) in series.items() for row in bars(source_id, prices)])
    found = {source_id: anomalies(tx, source_id).keys() for source_id in series}
    assert sum(START + first * MINUTE in found[s] for s, (_, first, _) in series.items()) == len(series)
    assert sum(START + later * MINUTE in found[s] for s, (_, _, later) in series.items()) >= 0.95 * len(series)
    assert sum(map(len, found.values())) <= 4 * len(series)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
def test_start_agrees_with_its_definition_row_by_row_and_rescored(tx, add, seed, transform):
    prices, first, _ = bad_start(seed, 140)
    if transform == "level":
        prices = [p / q for p, q in zip(prices, [*bad_start(seed + 50, 140)[0][1:], 100], strict=True)]
    profile = configure(tx, "quality_profiles", transform=transform, required_fields=["close"])
    one, other = (add("sources", interval="1m", quality_profile_id=profile) for _ in range(2))
    copy(tx, bars(one, prices))
    for row in bars(other, prices):
        insert(tx, [row])
    query = ("SELECT timestamp, z_score, observed, expected, scale, samples FROM anomalies WHERE source_id = %s"
             " ORDER BY timestamp")
    found = tx.execute(query, [one]).fetchall()
    assert tx.execute(query, [other]).fetchall() == found
    expected = [(START + i * MINUTE, j.z, j.observed, j.expected, j.scale, j.samples)
                for i, j in enumerate(judge(prices, transform=transform)) if j.z is not None and abs(j.z) > 4]
    assert [at for at, *_ in found] == [at for at, *_ in expected]
    for figures, j in zip(found, expected, strict=True):
        assert figures[1:] == pytest.approx(j[1:], rel=1e-6, abs=1e-12)
    assert START + first * MINUTE in [at for at, *_ in found]
    before = everything(tx)
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(tx) == before


@pytest.mark.parametrize("seed", range(4))
def test_start_in_any_order(tx, add, seed):
    generator = dice(seed)
    ids = [add("sources", interval="1m") for _ in range(4)]
    rows = [row for n, i in enumerate(ids) for row in bars(i, bad_start(10 * seed + n, generator.randint(40, 320))[0]
                                                           if n else walk(generator.randint(20, 70), seed))]
    copy(tx, rows)
    in_order = everything(tx)
    assert in_order["anomalies"]
    tx.execute("TRUNCATE timeseries_data")
    generator.shuffle(rows)
    for piece in pieces(rows, generator, 60):
        insert(tx, piece)
    assert everything(tx) == in_order


def test_first_rows_are_judged_once_thirty_others_are_known(tx, add):
    source_id = add("sources", interval="1m")
    prices = walk(60, 3, heavy=0)
    prices[10] *= 10
    rows = bars(source_id, prices)
    for i, row in enumerate(rows):
        insert(tx, [row])
        assert anomalies(tx, source_id).keys() == ({START + 10 * MINUTE} if i >= 31 else set()), i


def test_corrected_first_price_is_no_anomaly_any_more(tx, add):
    source_id = add("sources", interval="1m")
    prices = walk(80, 3, heavy=0)
    wrong = [p * 10 if i == 10 else p for i, p in enumerate(prices)]
    for row in bars(source_id, wrong):
        insert(tx, [row])
    assert anomalies(tx, source_id).keys() == {START + 10 * MINUTE}
    tx.execute("UPDATE timeseries_data SET open = %s, high = %s, low = %s, close = %s WHERE timestamp = %s",
               [prices[10]] * 4 + [START + 10 * MINUTE])
    assert anomalies(tx, source_id) == {}


def test_start_of_a_series_that_mostly_stands_still(tx, add):
    """More than half of the first changes are zero, and so is their MAD: moves by a tick are nothing special."""
    generator = dice(1)
    source_id = add("sources", interval="1m")
    ticks = itertools.accumulate(generator.choice([0, 0, 0, 0, 1, -1]) for _ in range(200))
    prices = [0.5 + 0.01 * t for t in ticks]
    prices[12] *= 10
    copy(tx, bars(source_id, prices))
    assert anomalies(tx, source_id).keys() == {START + 12 * MINUTE}


def pennies(seed: int, length: int = 1500) -> list[float]:
    """A share that moves by a tick now and then."""
    generator = dice(seed)
    ticks = itertools.accumulate((generator.choice([-1, 1]) if generator.random() < 0.08 else 0) for _ in range(length))
    return [round(2 + 0.01 * t, 2) for t in ticks]


def test_a_move_by_a_tick_is_nothing_and_an_error_is_one(tx, add):
    clean, wrong = add("sources", interval="1m"), add("sources", interval="1m")
    prices = pennies(1)
    copy(tx, bars(clean, prices))
    errors = set(range(300, 1500, 100))
    copy(tx, bars(wrong, [round(p + 0.1, 2) if i in errors else p for i, p in enumerate(prices)]))
    assert len(anomalies(tx, clean)) <= 3
    found = anomalies(tx, wrong).keys()
    assert {START + i * MINUTE for i in errors} <= found
    assert len(found) <= len(errors) + 3


@pytest.mark.parametrize("seed", [1, 2])
def test_ticks_agree_with_the_definition(tx, add, seed):
    prices = [round(p + 0.05, 2) if i % 61 == 60 else p for i, p in enumerate(pennies(seed, 700))]
    one, other = add("sources", interval="1m"), add("sources", interval="1m")
    copy(tx, bars(one, prices))
    for row in bars(other, prices):
        insert(tx, [row])
    query = "SELECT timestamp, z_score, scale FROM anomalies WHERE source_id = %s ORDER BY timestamp"
    found = tx.execute(query, [one]).fetchall()
    assert tx.execute(query, [other]).fetchall() == found
    expected = [(START + i * timedelta(minutes=1), j.z, j.scale) for i, j in enumerate(judge(prices))
                if j.z is not None and abs(j.z) > 4]
    assert [at for at, *_ in found] == [at for at, *_ in expected]
    for figures, j in zip(found, expected, strict=True):
        assert figures[1:] == pytest.approx(j[1:], rel=1e-6)
    assert len(found) >= 10


def test_scalars_are_judged_by_their_differences(tx, add):
    """A level that drifts hides an error of ten of its usual moves, which its differences show."""
    generator = dice(5)
    source_id = add("sources", data_type="scalar", interval="1h")
    values = list(itertools.accumulate(generator.gauss(0, 1) for _ in range(600)))
    errors = set(range(200, 600, 40))
    rows = [(source_id, START + i * timedelta(hours=1), v + (10 if i in errors else 0)) for i, v in enumerate(values)]
    copy(tx, rows, columns="source_id, timestamp, value")
    assert {START + i * timedelta(hours=1) for i in errors} == anomalies(tx, source_id).keys()
