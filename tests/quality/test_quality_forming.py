"""While a bar forms nobody is woken: its anomaly begins when it has closed, or when a later row of its series comes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from conftest import adder
from quality_support import MINUTE, bars, configure, copy, dice, everything, insert, penalties, scores, walk

UPSERT = ("ON CONFLICT (source_id, timestamp) DO UPDATE SET open = EXCLUDED.open, high = EXCLUDED.high,"
          " low = EXCLUDED.low, close = EXCLUDED.close, volume = EXCLUDED.volume")
HOUR = 60 * MINUTE
PRICES = walk(141, 1, heavy=0)


def tick(connection, source_id, at, price):
    insert(connection, bars(source_id, [price], at=at), conflict=UPSERT)


def flagged(connection, source_id):
    return [at for (at,) in connection.execute(
        "SELECT timestamp FROM timeseries_data WHERE source_id = %s AND is_anomaly ORDER BY 1", [source_id])]


def make(connection, at, **profile):
    """A calm source of bars of an hour, remembered, up to just before a bar that starts then."""
    profile_id = configure(connection, "quality_profiles", required_fields=["close"], **profile)
    # Bars that begin when the test does are on no grid.
    connection.execute("UPDATE validation_rules SET is_active = false WHERE name = 'timeseries_data_on_grid'")
    source_id = adder(connection)("sources", interval="1h", quality_profile_id=profile_id)
    rows = bars(source_id, PRICES[:-1], at=at - 140 * HOUR, step=HOUR)
    connection.execute("SET tidemark.ingest_mode = 'backfill'")
    copy(connection, rows[:-1])
    insert(connection, rows[-1:])
    connection.execute("RESET tidemark.ingest_mode")
    return source_id


def began(ago):
    return datetime.now(UTC) - ago


def closed(connection):
    """Whether the two ways to the result agree, and nothing waits."""
    before = everything(connection)
    assert connection.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(connection) == before
    return connection.execute("SELECT count(*) FROM _tidemark.waiting_bars").fetchone() == (0,)


@pytest.mark.parametrize("is_remembered", [True, False])
def test_forming_bar_is_no_anomaly_until_a_later_row_comes(tx, is_remembered):
    at = began(20 * MINUTE)
    source_id = make(tx, at)
    for factor in (1, 1.1, 1.2, 1.7, 1.1):
        if not is_remembered:
            tx.execute("DELETE FROM _tidemark.series_memory")
        tick(tx, source_id, at, PRICES[-1] * factor)
        assert flagged(tx, source_id) == []
        assert scores(tx, source_id)[-1] == (75 if factor == 1.7 else 100), "what is wrong with the row itself counts"
        assert not closed(tx) or factor == 1, "rescore knows that it forms"
    tick(tx, source_id, at + 15 * MINUTE, PRICES[-1])
    assert flagged(tx, source_id) == [at]
    assert tx.execute("SELECT count(*), count(episode_id) FROM anomalies").fetchone() == (1, 1)
    assert closed(tx)


def test_bar_that_came_back_before_it_closed_is_none(tx):
    at = began(20 * MINUTE)
    source_id = make(tx, at)
    for factor in (1, 1.2, 1):
        tick(tx, source_id, at, PRICES[-1] * factor)
    tick(tx, source_id, at + 15 * MINUTE, PRICES[-1])
    assert flagged(tx, source_id) == []
    assert closed(tx)


def test_row_that_lies_before_later_ones_or_in_the_future_does_not_form(tx):
    at = began(20 * MINUTE)
    source_id = make(tx, at)
    tick(tx, source_id, at + 5 * MINUTE, PRICES[-1])
    tick(tx, source_id, at, PRICES[-1] * 1.2)
    assert flagged(tx, source_id) == [at]
    tick(tx, source_id, at + 10 * HOUR, PRICES[-1] * 0.8)
    assert at + 10 * HOUR in flagged(tx, source_id), "or else it would wait until then"
    assert closed(tx)


def test_instants_do_not_form(tx, add):
    source_id = add("sources")
    at = began(MINUTE)
    copy(tx, bars(source_id, [*PRICES[:100], 1.2 * PRICES[99]], at=at - 100 * MINUTE))
    assert flagged(tx, source_id) == [at]


@pytest.mark.parametrize("by", ["row of another series", "judge_closed_bars", "maintain"])
def test_episode_begins_with_the_close_though_nothing_is_written_to_the_series(db, by):
    with db.connect() as connection, db.connect() as listener:
        at = began(HOUR - timedelta(seconds=2))
        source_id, other = make(connection, at, allowed_lag="0"), adder(connection)("sources", interval="1h")
        listener.execute("LISTEN tidemark_anomaly")
        for factor in (1.1, 1.2):
            tick(connection, source_id, at, PRICES[-1] * factor)
        # History that somebody loads has no part in it.
        connection.execute("SET tidemark.ingest_mode = 'backfill'")
        tick(connection, other, at - 5 * HOUR, 100)
        connection.execute("RESET tidemark.ingest_mode")
        assert connection.execute("SELECT judge_closed_bars()").fetchone() == (0,)
        assert list(listener.notifies(timeout=0.1)) == []
        time.sleep(max(0, (at + HOUR - datetime.now(UTC)).total_seconds() + 0.01))
        assert flagged(connection, source_id) == []
        if by == "row of another series":
            tick(connection, other, at, 100)
        elif by == "maintain":
            connection.execute("CALL maintain()")
        else:
            assert connection.execute("SELECT judge_closed_bars()").fetchone() == (1,)
        assert flagged(connection, source_id) == [at]
        heard = list(listener.notifies(timeout=1, stop_after=1))
        assert len(heard) == 1
        assert closed(connection)


def test_price_alert_fires_at_once(tx, add):
    """A price that is reached is news whether the bar has closed or not."""
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    asset = add("assets")
    tx.execute("SET tidemark.ingest_mode = 'backfill'")
    rows = [(asset, "1h", at - (140 - i) * HOUR, p, p, p, p, 1) for i, p in enumerate(PRICES)]
    copy(tx, rows, "candles", "asset_id, interval, ts, open, high, low, close, volume")
    tx.execute("RESET tidemark.ingest_mode")
    add("alerts", user_id=add("users"), asset_id=asset, condition="above", target_value=PRICES[-1] * 1.1)
    tx.execute("UPDATE candles SET high = close * 1.2, close = close * 1.2 WHERE ts = %s", [at])
    assert tx.execute("SELECT is_triggered FROM alerts").fetchone() == (True,)
    assert tx.execute("SELECT count(*) FROM anomalies").fetchone() == (0,)


def test_truncate_and_detach_leave_nothing_that_waits(tx):
    at = began(20 * MINUTE)
    source_id = make(tx, at)
    for take_off in ("TRUNCATE timeseries_data", "SELECT detach_quality('timeseries_data')"):
        tx.execute("INSERT INTO _tidemark.waiting_bars VALUES ('timeseries_data',"
                   " jsonb_build_object('source_id', %s::integer), %s, now())", [source_id, at])
        tx.execute(take_off)
        assert tx.execute("SELECT count(*) FROM _tidemark.waiting_bars").fetchone() == (0,)


def test_chunk_dropped_meanwhile_is_in_nobodys_way(tx):
    at = began(20 * MINUTE)
    source_id = make(tx, at)
    tick(tx, source_id, at, PRICES[-1] * 1.2)
    tx.execute("SELECT drop_chunks('timeseries_data', newer_than => '-infinity'::timestamptz)")
    tick(tx, source_id, at + 15 * MINUTE, PRICES[-1])
    assert flagged(tx, source_id) == []
    assert closed(tx)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_formed_on_the_way_the_end_is_that_of_the_closed_bars(tx, add, seed):
    """Each newest row forms, because it may be late for a year; what is left must be as if only the last had come."""
    generator = dice(seed)
    profile = configure(tx, "quality_profiles", allowed_lag="400 days", min_samples=10, baseline_rows=20,
                        **({"market": "M"} if seed == 2 else {}))
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 150 * HOUR
    if seed == 2:  # by the first row, so that the last one opens no session at any time of day: it would wait
        tx.execute("INSERT INTO market_calendar (market, date, opens_at, closes_at)"
                   " SELECT 'M', d::date, d, d + interval '12 hours'"
                   " FROM generate_series(%s - interval '2 days', now(), interval '1 day') AS d", [start])
    ids = [add("sources", interval="1h", quality_profile_id=profile) for _ in range(4)]
    final = {}
    for n in range(140):
        at = start + n * HOUR
        for _ in range(generator.randint(1, 3)):
            chosen = [i for i in ids if generator.random() < 0.8] or ids[:1]
            rows = [bars(i, [100 * (1 + 0.001 * generator.random()) * factor], at=at)[0]
                    for i in chosen for factor in [generator.choice([1] * 12 + [1.2, 1.7])]]
            if generator.random() < 0.1:  # and one that is late
                rows.append(bars(ids[0], [100 * generator.choice([1, 1.3])], at=at - 30 * MINUTE)[0])
            for batch in ([rows] if generator.random() < 0.7 else [[row] for row in rows]):
                insert(tx, batch, conflict=UPSERT)
            final.update({row[:2]: row for row in rows})
        if generator.random() < 0.03:
            assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    last = [bars(i, [100], at=start + 141 * HOUR)[0] for i in ids]
    insert(tx, last)
    after = everything(tx)
    assert closed(tx)
    assert len(after["anomalies"]) > 10
    tx.execute("TRUNCATE timeseries_data")
    copy(tx, [*final.values(), *last])
    for kind, found in everything(tx).items():
        assert found == after[kind], kind


def test_feeds_whose_bars_form_never_deadlock(db):
    """Two feeds bring ticks of the same bars, out of line, in opposite orders."""
    at = began(20 * MINUTE)
    with db.connect() as connection, db.connect(autocommit=False) as one, db.connect(autocommit=False) as two:
        ids = [make(connection, at) for _ in range(2)]
        for other in (one, two):
            other.execute("SET statement_timeout = '5s'")
        tick(one, ids[0], at, PRICES[-1] * 1.2)
        tick(two, ids[1], at, PRICES[-1] * 1.2)
        tick(one, ids[1], at + MINUTE, PRICES[-1] * 1.2)
        tick(two, ids[0], at + MINUTE, PRICES[-1] * 1.2)
        one.commit()
        two.commit()
        for i in ids:
            tick(connection, i, at + 2 * MINUTE, PRICES[-1])
        connection.execute("SELECT rescore('timeseries_data')")
        assert all(at in flagged(connection, i) for i in ids)
        assert connection.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)


def test_live_feed_is_late_by_the_length_of_its_bars(tx, add):
    """Nobody set a lag. Neither the history that a series begins with is late, nor what has no bars."""
    source_id, plain = add("sources", interval="1m"), add("sources")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    copy(tx, bars(source_id, PRICES[:60], at=now - 100 * MINUTE))  # as a feed begins with
    for n, price in enumerate(PRICES[60:100]):
        insert(tx, bars(source_id, [price], at=now - (40 - n) * MINUTE))
    insert(tx, bars(plain, PRICES[:1], at=now - 100 * MINUTE))
    assert set(scores(tx, source_id) + scores(tx, plain)) == {100}
    insert(tx, bars(source_id, [100.0], at=now + MINUTE / 4))
    late = now - 30 * MINUTE + MINUTE / 2
    insert(tx, bars(source_id, [PRICES[70]], at=late))
    assert "timeliness" not in [p for p, _, _ in penalties(tx, source_id, late)], "it was not fed yet then"


@pytest.mark.parametrize("is_remembered", [True, False])
@pytest.mark.parametrize("mode", ["", "live", "backfill"])
def test_row_that_comes_late_into_a_live_feed_is_late(tx, add, mode, is_remembered):
    source_id = add("sources", interval="1m")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    rows = bars(source_id, PRICES[:40], at=now - 60 * MINUTE)
    copy(tx, rows)
    tx.execute("UPDATE timeseries_data SET ingested_at = timestamp + interval '1 minute'")  # as they came, in time
    tx.execute("DELETE FROM _tidemark.series_memory")
    tx.execute("SELECT set_config('tidemark.ingest_mode', %s, true)", [mode])
    # After an outage: one by one, and the last at once.
    for n in range(40, 50):
        if not is_remembered:
            tx.execute("DELETE FROM _tidemark.series_memory")
        insert(tx, bars(source_id, PRICES[n:n + 1], at=now - (60 - n) * MINUTE))
    copy(tx, bars(source_id, PRICES[50:53], at=now - 10 * MINUTE) + bars(source_id, PRICES[57:60], at=now - 3 * MINUTE))
    assert scores(tx, source_id) == [100] * 40 + ([100] * 16 if mode == "backfill" else [80] * 13 + [100] * 3)
    before = everything(tx)
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    assert everything(tx) == before


def test_lag_of_longer_bars_is_as_long_as_they_are(tx):
    for step, lag in (("1m", "00:05"), ("5m", "00:05"), ("1h", "01:00"), ("1d", "1 day"), ("1M", "1 month")):
        assert tx.execute("SELECT _tidemark.allowed_lag(NULL, _tidemark.bar_length(%s)) = %s::interval",
                          [step, lag]).fetchone() == (True,)
    assert tx.execute("SELECT _tidemark.allowed_lag(NULL, '0') IS NULL,"
                      " _tidemark.allowed_lag('3 hours', '1 minute') = '3 hours'").fetchone() == (True, True)
