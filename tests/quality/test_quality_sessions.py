"""Prices within a session and over night are different things: each has its own baseline."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from quality_reference import judge
from quality_support import anomalies, configure, copy, dice, everything, insert, pieces

FIRST = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def sessions(tx):
    """Sixty-five weeks of sessions from 14:30 to 21:00 UTC, the weekend and a Thursday closed."""
    days = []
    for n in range(455):
        day = FIRST + timedelta(days=n)
        is_open = day.weekday() < 5 and n != 24
        days.append(
            (
                day.date(),
                *((day + timedelta(hours=14, minutes=30), day + timedelta(hours=21)) if is_open else (None, None)),
            )
        )
    with tx.cursor().copy("COPY market_calendar (market, date, opens_at, closes_at) FROM STDIN") as stream:
        for row in days:
            stream.write_row(("M", *row))
    return [opens for _, opens, _ in days if opens]


@pytest.fixture
def source(tx, add, sessions):
    profile = configure(tx, "quality_profiles", market="M")
    return add("sources", interval="30m", quality_profile_id=profile)


def series(sessions, seed=1):
    """13 bars a session; the change over night is five times as large. Yields (time, price, opens a session)."""
    generator, price, rows = dice(seed), 100.0, []
    for opens in sessions:
        for i in range(13):
            price *= math.exp(generator.gauss(0, 0.005 if i == 0 else 0.001))
            rows.append((opens + i * timedelta(minutes=30), price, i == 0))
    return rows


def bars(source_id, rows):
    return [(source_id, at, p, p, p, p, 1.0) for at, p, _ in rows]


def test_changes_over_night_are_judged_among_their_like(tx, source, sessions):
    rows = series(sessions)
    copy(tx, bars(source, rows))
    found = anomalies(tx, source)
    nights = [at for at, _, is_first in rows if is_first]
    assert sum(at in found for at in nights) <= 3, "five times as large is usual over night"

    # The same again by definition: the changes over night as a series of their own.
    levels = [round(math.log(p) * 1e7) for _, p, _ in rows]
    changes = [(at, (levels[i] - levels[i - 1]) / 1e7) for i, (at, _, is_first) in enumerate(rows) if is_first and i]
    total, fake = 0.0, [1.0]
    for _, change in changes:
        total += change
        fake.append(math.exp(total))
    judged = dict(zip([at for at, _ in changes], judge(fake)[1:], strict=True))
    for at, (_, _, z) in found.items():
        if at in judged:
            assert abs(z) <= abs(judged[at].z) * 1.01


def test_without_sessions_the_open_is_flagged_again_and_again(tx, add, source, sessions):
    other = add("sources", interval="30m")
    rows = series(sessions)
    copy(tx, bars(source, rows) + bars(other, rows))
    with_sessions, without = len(anomalies(tx, source)), len(anomalies(tx, other))
    assert with_sessions < without / 3


def test_error_within_a_session_and_over_night_is_found(tx, source, sessions):
    rows = series(sessions, 2)
    night = 13 * 200
    for i, factor in [(night, 1.06), (13 * 150 + 5, 1.02)]:
        rows[i] = (rows[i][0], rows[i][1] * factor, rows[i][2])
    copy(tx, bars(source, rows))
    found = anomalies(tx, source)
    assert rows[night][0] in found
    assert rows[13 * 150 + 5][0] in found


@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_gives_the_same(tx, source, sessions, seed):
    generator = dice(seed)
    rows = series(sessions[:90], seed)
    for i in generator.sample(range(len(rows)), 12):
        rows[i] = (rows[i][0], rows[i][1] * 1.05, rows[i][2])
    rows = bars(source, rows)
    copy(tx, rows)
    in_order = everything(tx)
    assert len(in_order["anomalies"]) > 5
    tx.execute("TRUNCATE timeseries_data")
    for piece in pieces(rows, generator, 150):
        insert(tx, piece)
    assert everything(tx) == in_order
    tx.execute("TRUNCATE timeseries_data")
    generator.shuffle(rows)
    for piece in pieces(rows, generator, 300):
        insert(tx, piece)
    tx.execute("SELECT rescore('timeseries_data')")
    assert everything(tx) == in_order


@pytest.mark.parametrize("seed", range(2))
def test_rows_without_a_price_that_open_a_session(tx, source, sessions, seed):
    """They are not the first row of their session: that is the first one with a price."""
    generator = dice(seed)
    rows = bars(source, series(sessions[:70], seed))
    for i in generator.sample(range(0, len(rows), 13), 30):
        rows[i] = (*rows[i][:2], None, None, None, None, None)
        if generator.random() < 0.3:
            rows[i + 1] = (*rows[i + 1][:2], None, None, None, None, None)
    for i in generator.sample(range(300, len(rows)), 25):
        if rows[i][5]:
            rows[i] = (*rows[i][:2], *[rows[i][5] * 1.05] * 4, 1.0)
    copy(tx, rows)
    batch = everything(tx)
    assert len(batch["anomalies"]) > 10
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    tx.execute("TRUNCATE timeseries_data")
    for row in rows:
        insert(tx, [row])
    assert everything(tx) == batch
