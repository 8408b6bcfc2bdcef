"""Values that cannot be prices lose points, negative prices are possible where the asset has them, and neither makes a
split of the row after it."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb
from quality_support import (
    MINUTE,
    START,
    anomalies,
    bars,
    configure,
    copy,
    dice,
    everything,
    insert,
    penalties,
    pieces,
    score,
    scores,
    walk,
)

INF, NAN = float("inf"), float("nan")
MOVED, NO_PRICE = ("consistency", 25, None), ("validation", 10, "timeseries_data_price_positive")
DAY = timedelta(days=1)
# WTI, the front future's days around 2020-04-20, when it ended at -37.63 (May) after 18.27.
OIL = [22.76, 20.11, 19.87, 19.87, 18.27, -36.98, 10.01, 13.78, 16.50, 16.94]
# GME, as traded in January 2021 (open, close): the largest moves of any share that year, and no split among them.
GME = [
    (19.00, 17.25), (17.35, 17.37), (17.34, 18.36), (18.47, 18.08), (18.18, 17.69), (19.41, 19.94), (19.96, 19.95),
    (20.42, 31.40), (38.09, 39.91), (38.49, 35.50), (41.55, 39.36), (37.37, 39.12), (39.23, 43.03), (42.59, 65.01),
    (96.73, 76.79), (88.56, 147.98), (354.83, 347.51), (265.00, 193.60), (379.71, 325.00), (316.56, 225.00),
    (140.76, 90.00), (112.01, 92.41), (91.19, 53.50), (54.04, 63.77),
]


def asset_bars(asset: str, prices: list[float], *, step: timedelta = MINUTE) -> list[tuple]:
    return [(asset, "1d" if step == DAY else "1m", START + i * step, *[p] * 4, 5) for i, p in enumerate(prices)]


CANDLES = {"table": "candles", "columns": "asset_id, interval, ts, open, high, low, close, volume"}


def candle(connection: psycopg.Connection, asset: str, at: timedelta) -> tuple:
    """Score, flag and kind of anomaly."""
    return connection.execute(
        "SELECT quality_score, is_anomaly, (SELECT kind::text FROM anomalies AS a WHERE a.asset_id = c.asset_id"
        " AND a.timestamp = c.ts) FROM candles AS c WHERE asset_id = %s AND ts = %s", [asset, START + at]).fetchone()


@pytest.mark.parametrize("way", ["next row", "batch", "update"])
@pytest.mark.parametrize(("value", "lost"), [
    (101, []), (149, []), (160, [MOVED]), (1e99, [MOVED]),
    (0, [MOVED, NO_PRICE]), (-5, [MOVED, NO_PRICE]), (-100, [MOVED, NO_PRICE]),
    (1e100, [MOVED, NO_PRICE]), (1e200, [MOVED, NO_PRICE]), (1.7976931348623157e308, [MOVED, NO_PRICE]),
    (1e-101, [MOVED]), (5e-324, [MOVED]), (-1.7976931348623157e308, [MOVED, NO_PRICE]),
    (INF, [MOVED, NO_PRICE]), (-INF, [MOVED, NO_PRICE]), (NAN, [MOVED, NO_PRICE]),
])
def test_values_that_cannot_be_prices_lose_consistency(tx, add, value, lost, way):
    source = add("sources", interval="1m")
    rows = bars(source, [100.0] * 60 + [value, 100.5])
    if way == "batch":
        copy(tx, rows)
    else:
        copy(tx, rows[:59])
        insert(tx, rows[59:60])
        insert(tx, rows[60:61] if way == "next row" else bars(source, [100.0] * 61)[60:])
        if way == "update":
            tx.execute("UPDATE timeseries_data SET open = %s, high = %s, low = %s, close = %s WHERE source_id = %s"
                       " AND timestamp = %s", [*[value] * 4, source, rows[60][1]])
        insert(tx, rows[61:])
    found = penalties(tx, source, rows[60][1])
    assert found == lost
    assert scores(tx, source) == [100] * 60 + [100 - sum(points for _, points, _ in lost), 100]
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)


@pytest.mark.parametrize("value", [0, -5, 1e100, 1e-101, INF, -INF, NAN])
def test_scalars_lose_consistency_by_any_transform(tx, add, value):
    for transform in ("log_return", "level", "difference"):
        profile = configure(tx, "quality_profiles", transform=transform, required_fields=["value"])
        source = add("sources", interval="1m", quality_profile_id=profile)
        for i in range(3):
            insert(tx, [(source, START + i * MINUTE, value if i == 2 else 100)], columns="source_id, timestamp, value")
        assert penalties(tx, source, START + 2 * MINUTE) == [MOVED]
    profile = configure(tx, "quality_profiles", max_change=INF, required_fields=["value"])
    source = add("sources", interval="1m", quality_profile_id=profile)
    insert(tx, [(source, START + i * MINUTE, [100, value][i]) for i in range(2)], columns="source_id, timestamp, value")
    assert scores(tx, source) == [100, 100], "where no change is too large, this one is not"


def test_first_row_has_not_moved_and_is_no_price_all_the_same(tx, add):
    source = add("sources", interval="1m")
    insert(tx, bars(source, [1e200]))
    assert penalties(tx, source, START) == [NO_PRICE]
    insert(tx, bars(source, [1e200, -1])[1:])
    assert penalties(tx, source, START + MINUTE) == [NO_PRICE], "there is nothing it could have moved from"
    insert(tx, [(source, START + 2 * MINUTE, 100, 1e200, 99, 100, 5)])
    assert penalties(tx, source, START + 2 * MINUTE) == [NO_PRICE], "a high is a price too"


@pytest.mark.parametrize("seed", range(6))
def test_batch_row_by_row_any_order_and_rescore_agree(tx, add, seed):
    generator = dice(seed)
    source = add("sources", interval="1m")
    prices: list[float | None] = list(walk(180, seed))
    for i in generator.sample(range(180), 30):
        prices[i] = generator.choice([None, 0.0, -5.0, 1e100, 1e200, 1e-101, INF, -INF, NAN, prices[i] * 3])
    prices[-1] = 0.0
    rows = bars(source, prices)

    def judged(batches) -> dict:
        tx.execute("TRUNCATE timeseries_data")
        for batch in batches:
            insert(tx, batch)
        found = everything(tx)
        assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
        assert everything(tx) == found
        return found

    once = judged([rows])
    assert sum(penalty == "consistency" for _, _, penalty, *_ in once["issues"]) > 15
    assert judged([row] for row in rows) == once
    assert judged(pieces(generator.sample(rows, len(rows)), generator, 20)) == once


def test_last_row_is_judged_again_when_the_row_before_it_comes_late(tx, add):
    source = add("sources", interval="1m")
    rows = bars(source, [100, 120, NAN])
    insert(tx, [rows[0]])
    insert(tx, [rows[2]])
    insert(tx, [rows[1]])
    detail = "SELECT detail FROM quality_issues WHERE penalty = 'consistency'"
    assert tx.execute(detail).fetchall() == [("from 120 to NaN",)]
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)


def test_a_confirmed_error_keeps_its_points(tx, add):
    source = add("sources", interval="1m")
    prices = walk(60, 1)
    rows = bars(source, [*prices, prices[-1] * 5])
    copy(tx, rows)
    lost = penalties(tx, source, rows[-1][1])
    assert lost == [MOVED]
    tx.execute("UPDATE anomalies SET status = 'confirmed_error', reviewed_by = 'me', reviewed_at = now()")
    tx.execute("SELECT rescore('timeseries_data')")
    assert penalties(tx, source, rows[-1][1]) == lost


@pytest.mark.parametrize("told", ["asset", "source's asset", "later"])
def test_negative_prices_are_possible_where_the_asset_has_them(tx, add, told):
    asset = add("assets", symbol="CL", asset_type="commodity", has_negative_prices=told != "later")
    prices = [p / 4 for p in walk(60, 2, sigma=0.1, heavy=0)] + OIL
    after = 60 + OIL.index(10.01)
    if told == "source's asset":
        source = add("sources", interval="1d", asset_id=asset)
        for batch in pieces(bars(source, prices, step=DAY), dice(1), 4):
            insert(tx, batch)
        before = START + (after - 1) * DAY
        assert penalties(tx, source, before) == [MOVED]
        assert anomalies(tx, source)[before][:2] == ["black_swan", "spike"]
        assert score(tx, source, before + DAY) == 100
        assert before + DAY not in anomalies(tx, source)
        return
    for batch in pieces(asset_bars(asset, prices, step=DAY), dice(1), 4):
        insert(tx, batch, **CANDLES)
    if told == "later":
        assert candle(tx, asset, (after - 1) * DAY) == (65, False, None), "not a price of an ordinary asset"
        score_then, flagged, kind = candle(tx, asset, after * DAY)
        assert (score_then, flagged, kind) == (100, True, "spike"), "45 percent down from 18.27, and no split"
        tx.execute("UPDATE assets SET has_negative_prices = true")
        assert tx.execute("SELECT rescore('candles')").fetchone()[0] > 0
    assert candle(tx, asset, (after - 1) * DAY) == (75, True, "spike"), "possible, and far out"
    assert candle(tx, asset, after * DAY) == (100, False, None)
    insert(tx, asset_bars(asset, [*prices, 17.0], step=DAY)[-1:], **CANDLES)
    assert tx.execute("SELECT rescore('candles')").fetchone() == (0,)
    lost = [(p, points) for p, points in tx.execute("SELECT penalty::text, points FROM quality_issues").fetchall()]
    assert lost == [("consistency", 25)]


@pytest.mark.parametrize("between", [None, -36.98, 0.0, NAN, 1e200])
def test_a_split_follows_a_price(tx, add, between):
    """A row whose value is missing is nothing between a split and the row before."""
    prices = walk(60, 3)
    prices = [*prices, between, prices[-1] / 2, prices[-1] / 2]
    source = add("sources", interval="1d")
    for row in bars(source, prices, step=DAY):
        insert(tx, [row])
    kind = anomalies(tx, source)[START + 61 * DAY][1]
    assert kind == ("split_candidate" if between is None else "spike")
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)


def test_gamestop_did_not_split(tx, add):
    source = add("sources", interval="1d")
    calm = [price / walk(60, 5)[-1] * 19 for price in walk(60, 5, sigma=0.03)]
    rows = bars(source, calm, step=DAY) + [
        (source, START + (60 + i) * DAY, o, max(o, c), min(o, c), c, 1e7) for i, (o, c) in enumerate(GME)]
    copy(tx, rows)
    found = anomalies(tx, source)
    assert START + 67 * DAY in found, "the 13th of January stands out"
    assert {kind for _, kind, _ in found.values()} == {"spike"}


def test_a_rule_can_be_for_one_transform(tx, add):
    rule = configure(tx, "validation_rules", applies_to="timeseries_data", rule_type="range",
                     parameters=Jsonb({"column": "value", "below": 5, "transform": "difference"}))
    name = tx.execute("SELECT name FROM validation_rules WHERE rule_id = %s", [rule]).fetchone()[0]
    for transform in ("log_return", "level", "difference"):
        profile = configure(tx, "quality_profiles", transform=transform, required_fields=["value"])
        source = add("sources", interval="1m", quality_profile_id=profile)
        insert(tx, [(source, START, 7)], columns="source_id, timestamp, value")
        assert [rule for *_, rule in penalties(tx, source, START)] == [name] * (transform == "difference")
    configure(tx, "validation_rules", applies_to="timeseries_data", rule_type="expression",
              parameters=Jsonb({"expression": "1 / (value - 7) < 100", "transform": "difference"}))
    insert(tx, [(source, START + MINUTE, 7.5), (source, START + 2 * MINUTE, 7)], columns="source_id, timestamp, value")
    assert len(penalties(tx, source, START + MINUTE)) == 1, "one that cannot be evaluated does not hide the others"
    with pytest.raises(psycopg.Error) as error:
        configure(tx, "validation_rules", applies_to="timeseries_data", rule_type="range",
                  parameters=Jsonb({"column": "value", "below": 5, "transform": "cube"}))
    assert error.value.sqlstate == "TM206"
