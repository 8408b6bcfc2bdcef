"""The anomaly detector: that it does what its definition says, however the rows arrive."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from conftest import adder
from quality_reference import judge
from quality_support import MINUTE, START, anomalies, bars, configure, copy, dice, everything, insert, pieces, walk


def with_errors(prices: list[float], seed: int, share: float = 0.01) -> list[float]:
    generator = dice(seed)
    return [p * generator.choice([10, 0.1, 1.05, 0.95]) if generator.random() < share else p for p in prices]


def expected_anomalies(prices, **profile):
    return {START + i * MINUTE: j for i, j in enumerate(judge(prices, **profile)) if j.z is not None and abs(j.z) > 4}


def found_figures(tx, source_id):
    return {
        at: figures
        for at, *figures in tx.execute(
            "SELECT timestamp, z_score, observed, expected, deviation, scale, samples FROM anomalies WHERE"
            " source_id = %s",
            [source_id],
        )
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_detector_agrees_with_its_definition(tx, add, seed):
    source_id = add("sources", interval="1m")
    prices = with_errors(walk(3000, seed), seed)
    prices[60] *= 2
    copy(tx, bars(source_id, prices))
    expected, found = expected_anomalies(prices), found_figures(tx, source_id)
    assert len(expected) > 20
    assert found.keys() == expected.keys()
    for at, figures in found.items():
        j = expected[at]
        assert figures == pytest.approx(
            [j.z, j.observed, j.expected, j.deviation, j.scale, j.samples], rel=1e-9, abs=1e-15
        )


@pytest.mark.parametrize("transform", ["level", "difference"])
def test_levels_and_differences_agree_with_the_definition(tx, add, transform):
    generator = dice(3)
    values = [generator.gauss(5, 1) for _ in range(800)]
    if transform == "difference":
        values = list(itertools.accumulate(values))
    profile = configure(tx, "quality_profiles", transform=transform, max_change=float("inf"), required_fields=["value"])
    source_id = add("sources", data_type="scalar", quality_profile_id=profile)
    for i in (700, 750, 790):
        values[i] += 40
    rows = [(source_id, START + i * MINUTE, v) for i, v in enumerate(values)]
    copy(tx, rows, columns="source_id, timestamp, value")
    expected, found = expected_anomalies(values, transform=transform), found_figures(tx, source_id)
    assert START + 700 * MINUTE in expected
    assert found.keys() == expected.keys()
    for at, figures in found.items():
        j = expected[at]
        assert figures == pytest.approx(
            [j.z, j.observed, j.expected, j.deviation, j.scale, j.samples], rel=1e-6, abs=1e-9
        )


def test_row_by_row_equals_one_batch(tx, add):
    prices = with_errors(walk(600, 5), 5, 0.02)
    one, other = add("sources", interval="1m"), add("sources", interval="1m")
    copy(tx, bars(one, prices))
    for row in bars(other, prices):
        insert(tx, [row])
    assert found_figures(tx, one) == found_figures(tx, other)
    assert len(found_figures(tx, one)) > 5


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_arrival_gives_the_same(tx, add, seed):
    generator = dice(seed)
    ids = [add("sources", interval="1m") for _ in range(3)]
    rows = [row for i in ids for row in bars(i, with_errors(walk(700, seed + i), i, 0.02))]
    copy(tx, rows)
    in_order = everything(tx)
    tx.execute("TRUNCATE timeseries_data")
    assert everything(tx) == {"scores": [], "issues": [], "anomalies": []}
    generator.shuffle(rows)
    for piece in pieces(rows, generator, 400):
        insert(tx, piece)
    # The trigger judges the rows after late ones too, so that alone gives the same; rescore has nothing to add.
    assert everything(tx) == in_order
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(tx) == in_order


def test_rescore_of_rows_stored_without_scoring(db):
    with db.connect() as connection:
        source_id = adder(connection)("sources", interval="1m")
        rows = bars(source_id, with_errors(walk(2000, 8), 8))
        copy(connection, rows)
        scored = everything(connection)
        connection.execute("TRUNCATE timeseries_data")
        connection.execute("SET session_replication_role = replica")
        copy(connection, rows)
        connection.execute("RESET session_replication_role")
        assert connection.execute(
            "SELECT count(*) FROM timeseries_data WHERE quality_score IS NOT NULL"
        ).fetchone() == (0,)
        assert connection.execute("SELECT rescore('timeseries_data')").fetchone() == (2000,)
        assert everything(connection) == scored


def test_a_hundred_thousand_rows_in_one_batch_in_pieces_and_rescored(tx, add):
    ids = [add("sources", interval="1m") for _ in range(20)]
    rows = [row for i in ids for row in bars(i, with_errors(walk(5000, i), i, 0.003))]
    rows.sort(key=lambda row: row[1])
    copy(tx, rows)
    batch = everything(tx)
    assert len(batch["scores"]) == 100_000
    assert len(batch["anomalies"]) > 300
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(tx) == batch
    tx.execute("TRUNCATE timeseries_data")
    for piece in pieces(rows, dice(1), 20_000):
        copy(tx, piece)
    assert everything(tx) == batch


def test_a_batch_with_days_between_its_rows(tx, add):
    """Rows far apart are judged apart, each with its own baseline."""
    source_id = add("sources", interval="1m")
    prices = with_errors(walk(2500, 11), 11, 0.02)
    late = set(dice(0).sample(range(2500), 25))
    rows = bars(source_id, prices[:1250]) + bars(source_id, prices[1250:], at=START + timedelta(days=400))
    copy(tx, rows)
    in_order = everything(tx)
    tx.execute("TRUNCATE timeseries_data")
    copy(tx, [row for i, row in enumerate(rows) if i not in late])
    copy(tx, [row for i, row in enumerate(rows) if i in late])
    assert everything(tx) == in_order


# The edge cases that decide whether a detector can be trusted.


def test_flat_series_one_tick_is_nothing_five_percent_is(tx, add):
    profile = configure(tx, "quality_profiles", tick_size=0.01, anomaly_z=0.5)
    source_id = add("sources", interval="1m", quality_profile_id=profile)
    copy(tx, bars(source_id, [10.0] * 200 + [10.01]))
    (z,) = [z for _, _, z in anomalies(tx, source_id).values()]
    assert z == pytest.approx(1.0, abs=0.001)
    tx.execute("DELETE FROM timeseries_data WHERE timestamp = %s", [START + 200 * MINUTE])
    tx.execute("UPDATE quality_profiles SET anomaly_z = 4 WHERE quality_profile_id = %s", [profile])
    insert(tx, bars(source_id, [10.01], at=START + 200 * MINUTE))
    assert anomalies(tx, source_id) == {}
    insert(tx, bars(source_id, [10.5, 10.0], at=START + 201 * MINUTE))
    found = anomalies(tx, source_id)
    assert found.keys() == {START + 201 * MINUTE}, "the return to normal is not one"
    assert found[START + 201 * MINUTE][2] == pytest.approx(48, abs=2)


def test_fewer_than_thirty_changes_give_no_score(tx, add):
    source_id = add("sources", interval="1m")
    copy(tx, bars(source_id, [*walk(30, 1), 1000.0]))
    assert anomalies(tx, source_id) == {}
    other = add("sources", interval="1m")
    copy(tx, bars(other, [*walk(31, 1), 1000.0]))
    assert anomalies(tx, other).keys() == {START + 31 * MINUTE}


def test_row_is_not_part_of_its_own_baseline(tx, add):
    """With itself in a window of n rows no z could exceed (n - 1) / sqrt(n): 5.2 for thirty."""
    profile = configure(tx, "quality_profiles", baseline_rows=30)
    source_id = add("sources", interval="1m", quality_profile_id=profile)
    copy(tx, bars(source_id, [*walk(40, 2, heavy=0), 150.0]))
    assert abs(anomalies(tx, source_id)[START + 40 * MINUTE][2]) > 100


def test_masking_one_error_does_not_hide_the_next(tx, add):
    source_id = add("sources", interval="1m")
    prices = walk(300, 3, heavy=0)
    prices[200] *= 10
    prices[210] *= 1.02
    copy(tx, bars(source_id, prices))
    assert {START + 200 * MINUTE, START + 210 * MINUTE} <= anomalies(tx, source_id).keys()


def test_echo_the_good_row_after_a_bad_one_is_left_alone(tx, add):
    source_id = add("sources", interval="1m")
    prices = walk(300, 4, heavy=0)
    prices[200] *= 10
    copy(tx, bars(source_id, prices))
    assert anomalies(tx, source_id).keys() == {START + 200 * MINUTE}


@pytest.mark.parametrize("bad", [None, 0.0, -5.0, float("nan"), float("inf"), 1e200, 1e-200])
def test_values_that_are_no_prices_are_no_reference(tx, add, bad):
    clean, dirty = add("sources", interval="1m"), add("sources", interval="1m")
    prices = with_errors(walk(300, 6), 6, 0.02)
    rows = bars(dirty, [*prices[:150], bad, *prices[150:]])
    copy(tx, bars(clean, prices))
    copy(tx, rows)
    shifted = {
        at + (MINUTE if at >= START + 150 * MINUTE else 0 * MINUTE): f for at, f in found_figures(tx, clean).items()
    }
    assert found_figures(tx, dirty) == shifted
    assert shifted


def test_level_shift_is_flagged_once(tx, add):
    source_id = add("sources", interval="1m")
    prices = walk(300, 7, heavy=0)
    copy(tx, bars(source_id, prices[:200] + [p * 1.3 for p in prices[200:]]))
    assert anomalies(tx, source_id).keys() == {START + 200 * MINUTE}


def test_thresholds_are_strict_and_the_profile_s(tx, add):
    """A row exactly at its own z is not flagged; a hair below, it is."""
    prices = walk(200, 9, heavy=0)
    prices[150] *= 1.03
    z = abs(judge(prices)[150].z)
    for threshold, flagged in [(z * (1 + 1e-9), False), (z * (1 - 1e-9), True)]:
        profile = configure(tx, "quality_profiles", anomaly_z=threshold, black_swan_z=threshold)
        source_id = add("sources", interval="1m", quality_profile_id=profile)
        copy(tx, bars(source_id, prices))
        assert (START + 150 * MINUTE in anomalies(tx, source_id)) is flagged


def test_severity(tx, add):
    source_id = add("sources", interval="1m")
    copy(tx, bars(source_id, with_errors(walk(2000, 10), 10, 0.01)))
    found = anomalies(tx, source_id).values()
    assert {s for s, _, z in found if abs(z) > 6} == {"black_swan"}
    assert {s for s, _, z in found if abs(z) <= 6} == {"anomaly"}
