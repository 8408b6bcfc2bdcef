"""A split that is known is no change: nothing is flagged because of it, and no baseline contains it."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from conftest import adder
from quality_reference import judge
from quality_support import MINUTE, START, anomalies, bars, copy, dice, everything, insert, penalties, pieces, walk

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def make(tx, add):
    """Makes a source of an asset of its own, with the splits that are known of it: instant and ratio of each."""
    def source(interval: str, *splits: tuple) -> int:
        asset_id = add("assets")
        for (at, ratio), kind in zip(splits, ("split", "stock_dividend"), strict=False):
            record(tx, asset_id, at, ratio, kind)
        return add("sources", interval=interval, asset_id=asset_id)
    return source


def record(connection, asset_id, at, ratio, kind="split"):
    connection.execute("INSERT INTO corporate_actions (asset_id, ex_date, effective_at, ratio, kind, source)"
                       " VALUES (%s, %s, %s, %s, %s, 'a file')", [asset_id, at.date(), at, str(ratio), kind])


def split(prices: list[float], at: int, ratio: float) -> list[float]:
    return prices[:at] + [price / ratio for price in prices[at:]]


def wrong(prices: list[float], seed: int, share: float = 0.03) -> list[float]:
    generator = dice(seed)
    return [p * generator.choice([10, 0.1, 1.05, 1.02]) if generator.random() < share else p for p in prices]


@pytest.mark.parametrize("ratio", [2, 4, 20, 0.1, 1.05])
@pytest.mark.parametrize("is_batch", [True, False])
def test_nothing_is_flagged_announced_or_penalised_where_a_split_is_known(db, ratio, is_batch):
    with db.connect() as connection, db.connect() as listener:
        add = adder(connection)
        asset_id = add("assets")
        source_id = add("sources", interval="1d", asset_id=asset_id)
        record(connection, asset_id, START + 120 * DAY, ratio)
        listener.execute("LISTEN tidemark_anomaly")
        rows = [(*row[:6], 1000 * (ratio if i >= 120 else 1) * (1 + i % 7 / 10))
                for i, row in enumerate(bars(source_id, split(walk(160, 1, heavy=0), 120, ratio), step=DAY))]
        for piece in [rows] if is_batch else [[row] for row in rows]:
            insert(connection, piece)
        assert connection.execute("SELECT count(*) FROM anomalies").fetchone() == (0,)
        assert connection.execute("SELECT * FROM quality_issues WHERE penalty = 'consistency'").fetchall() == []
        assert list(listener.notifies(timeout=0.2)) == []


@pytest.mark.parametrize("at", [5, 33, 150, 210])
@pytest.mark.parametrize("ratio", [2, 1.05, 0.125])
def test_figures_are_those_of_the_definition(tx, make, at, ratio):
    """Of errors before and after a split, also where a series begins."""
    prices = wrong(split(walk(400, at), at, ratio), at)
    prices[at - 1 : at + 1] = split(walk(400, at), at, ratio)[at - 1 : at + 1]
    source_id = make("1m", (START + at * MINUTE, ratio))
    copy(tx, bars(source_id, prices))
    found = tx.execute("SELECT timestamp, z_score, observed, expected, deviation, scale, samples FROM anomalies"
                       " WHERE field IS NULL ORDER BY 1").fetchall()
    # What a price that is wrong by a tenth makes of the next one is explained by a split by eight.
    splits = {i: ratio for i in range(1, 400)
              if abs(math.log(prices[i] / prices[i - 1]) + math.log(ratio)) < min(0.25, abs(math.log(ratio)) / 2)}
    assert at in splits
    expected = [(START + i * MINUTE, j) for i, j in enumerate(judge(prices, splits=splits)) if j.z and abs(j.z) > 4]
    assert [row[0] for row in found] == [when for when, _ in expected]
    assert len(found) > 5
    for (_, *figures, samples), (_, j) in zip(found, expected, strict=True):
        assert figures == pytest.approx([j.z, j.observed, j.expected, j.deviation, j.scale], rel=1e-9)
        assert samples == j.samples


SHAPES = {"1m": MINUTE, "1h": HOUR, "1d": DAY}


@pytest.mark.parametrize("interval", SHAPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_gives_the_same(tx, make, interval, seed):
    generator, step = dice(seed), SHAPES[interval]
    rows, places = [], {1: (3, 260), 2: (45, 130)}[seed]
    for sigma in (0.001, 0.02):
        prices = wrong(walk(330, seed, sigma=sigma), seed)
        for at, ratio in zip(places, (3, 1.1), strict=True):
            prices = split(prices, at, ratio)
        source_id = make(interval, *((START + at * step, ratio) for at, ratio in zip(places, (3, 1.1), strict=True)))
        rows += bars(source_id, prices, step=step)
    rows.sort(key=lambda row: row[1])
    copy(tx, rows)
    batch = everything(tx)
    assert len(batch["anomalies"]) > 5
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    tx.execute("TRUNCATE timeseries_data")
    for row in rows:
        insert(tx, [row])
    assert everything(tx) == batch
    tx.execute("TRUNCATE timeseries_data")
    generator.shuffle(rows)
    for piece in pieces(rows, generator, 60):
        insert(tx, piece)
    assert everything(tx) == batch
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)


def test_over_night(tx, add):
    """Where the first rows of sessions are judged among their like, those before a split are so without it."""
    for n in range(90):
        day = START + n * DAY
        tx.execute("INSERT INTO market_calendar (market, date, opens_at, closes_at) VALUES ('XNYS', %s, %s, %s)",
                   [day.date(), day + 14.5 * HOUR, day + 21 * HOUR])
    asset_id = add("assets", exchange="NYSE")
    source_id = add("sources", interval="30m", asset_id=asset_id)
    generator, price, rows = dice(4), 100.0, []
    for n in range(90):
        for i in range(13):
            price *= math.exp(generator.gauss(0, 0.02 if i == 0 else 0.001)) / (1.05 if n == 55 and i == 0 else 1)
            rows += bars(source_id, [price * (1.15 if (n, i) in ((70, 0), (75, 0), (60, 5)) else 1)],
                         at=START + n * DAY + 14.5 * HOUR + i * HOUR / 2)
    record(tx, asset_id, START + 55 * DAY + 14.5 * HOUR, 1.05)
    copy(tx, rows)
    batch = everything(tx)
    assert {rows[70 * 13][1], rows[75 * 13][1]} <= set(anomalies(tx, source_id))
    tx.execute("TRUNCATE timeseries_data")
    for row in rows:
        insert(tx, [row])
    assert everything(tx) == batch
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    judged = "SELECT scale FROM anomalies WHERE timestamp = %s"
    known, = tx.execute(judged, [rows[70 * 13][1]]).fetchone()
    tx.execute("DELETE FROM corporate_actions")
    tx.execute("SELECT rescore('timeseries_data')")
    unknown, = tx.execute(judged, [rows[70 * 13][1]]).fetchone()
    assert known < unknown, "among the nights is none with a split"


CHANGES = {
    "recorded": "INSERT INTO corporate_actions (asset_id, ex_date, effective_at, ratio, source)"
                " SELECT asset_id, %(at)s, %(at)s, 1.05, 'me' FROM assets WHERE symbol = 'A'",
    "confirmed": "UPDATE corporate_actions SET status = 'confirmed'",
    "rejected": "UPDATE corporate_actions SET status = 'rejected'",
    "of another ratio": "UPDATE corporate_actions SET ratio = 1.02",
    "of another day": "UPDATE corporate_actions SET ex_date = ex_date + 30, effective_at = NULL",
    "deleted": "DELETE FROM corporate_actions",
}


def dividend() -> list[float]:
    """Days in which a stock dividend of a twentieth is within what is usual: part of baselines unless it is known."""
    prices = walk(400, 9, sigma=0.02, heavy=0)
    return split(prices[:180] + [p * prices[179] / prices[180] for p in prices[180:]], 180, 1.05)


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_of_a_split_holds_from_the_next_row_on(tx, add, change):
    asset_id, at = add("assets", symbol="A"), START + 180 * DAY
    source_id = add("sources", interval="1d", asset_id=asset_id)
    rows = bars(source_id, dividend(), step=DAY)
    if change != "recorded":
        record(tx, asset_id, at, 1.05)
    if change == "confirmed":
        tx.execute("UPDATE corporate_actions SET status = 'proposed'")
    memory = ("SELECT kept_sum, kept_squares, level_2 FROM _tidemark.series_memory"
              " WHERE series = %s AND newest IS NOT NULL")
    series = f'{{"source_id": {source_id}}}'
    for row in rows[:220]:
        insert(tx, [row])
    before = tx.execute(memory, [series]).fetchone()
    with tx.transaction(force_rollback=True):
        insert(tx, rows[220:221])
        insert(tx, rows[221:222])
        unchanged = tx.execute(memory, [series]).fetchone()
    tx.execute(CHANGES[change], {"at": at} if "%" in CHANGES[change] else None)
    insert(tx, rows[220:221])
    insert(tx, rows[221:222])
    changed = tx.execute(memory, [series]).fetchone()
    assert before and changed[:2] != unchanged[:2]
    tx.execute("TRUNCATE timeseries_data")
    copy(tx, rows[:221])
    insert(tx, rows[221:222])
    assert tx.execute(memory, [series]).fetchone() == changed, "as if it had been so all along"


def test_several_changes_in_one_transaction_are_all_noticed(tx, add):
    asset_id, at = add("assets", symbol="A"), START + 180 * DAY
    source_id = add("sources", interval="1d", asset_id=asset_id)
    rows = bars(source_id, dividend(), step=DAY)
    copy(tx, rows[:220])
    seen = []
    for n, change in enumerate(["recorded", "rejected", "confirmed"]):
        tx.execute(CHANGES[change], {"at": at} if "%" in CHANGES[change] else None)
        tx.execute("UPDATE corporate_actions SET notes = 'once more'")
        for row in rows[220 + 2 * n:222 + 2 * n]:
            insert(tx, [row])
        seen.append(tx.execute("SELECT changes @> ARRAY[%s] FROM _tidemark.series_memory WHERE newest IS NOT NULL", [
            round(math.log(rows[180][5]) * 1e7) - round(math.log(rows[179][5]) * 1e7)]).fetchone()[0])
    assert seen == [False, True, False]


def test_prices_that_are_adjusted_already_stay_as_they_are(tx, make):
    """Nobody has to know whether a file was: an action that shows in no change is none to the detector."""
    rows = bars(make("1d", (START + 150 * DAY, 4)), wrong(walk(300, 3), 3), step=DAY)
    copy(tx, rows)
    known = everything(tx)
    assert known["anomalies"]
    tx.execute("DELETE FROM corporate_actions")
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(tx) == known


def test_an_error_at_a_split_is_found(tx, make):
    """What is left of the change without the split is judged."""
    prices = split(walk(200, 6, heavy=0), 150, 2)
    prices[150] *= 1.1
    source_id = make("1d", (START + 150 * DAY, 2))
    copy(tx, bars(source_id, prices, step=DAY))
    (at, (severity, kind, z)), = anomalies(tx, source_id).items()
    assert (at, severity, kind) == (START + 150 * DAY, "black_swan", "spike")
    assert z > 20
    assert tx.execute("SELECT observed, status::text FROM anomalies").fetchone() == (
        pytest.approx(0.0953, abs=0.01), "open")
    assert penalties(tx, source_id, at) == []


def test_the_split_of_another_asset_another_week_or_another_way_explains_nothing(tx, make):
    ids = [make("1d"), make("1d", (START + 140 * DAY, 2)), make("1d", (START + 150 * DAY, 0.5)),
           make("1d", (START + 150 * DAY, 2))]
    for source_id in ids:
        copy(tx, bars(source_id, split(walk(200, 6, heavy=0), 150, 2), step=DAY))
    assert [kind for source_id in ids for _, kind, _ in anomalies(tx, source_id).values()] == ["split_candidate"] * 3


@pytest.mark.parametrize("stays", [True, False])
def test_a_split_right_after_a_flagged_row_does_not_hide_whether_its_move_stays(tx, make, stays):
    source_id = make("1d", (START + 121 * DAY, 2))
    prices = [p * (1.1 if i == 120 or (stays and i > 120) else 1) for i, p in enumerate(walk(160, 1, heavy=0))]
    copy(tx, bars(source_id, split(prices, 121, 2), step=DAY))
    assert tx.execute("SELECT timestamp, is_doubtful FROM anomalies").fetchall() == [(START + 120 * DAY, not stays)]
