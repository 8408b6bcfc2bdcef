"""Missing bars, coverage and stale runs: against the calendar, at its edges, and without reading every row."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import exchange_calendars
import psycopg
import pytest
from conftest import adder
from psycopg.types.json import Jsonb

from tidemark import calendars

pytestmark = [  # between two libraries that are not ours
    pytest.mark.filterwarnings("ignore::DeprecationWarning:exchange_calendars"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pandas"),
]

PERIODS = {"1m": "1min", "3m": "3min", "5m": "5min", "15m": "15min", "30m": "30min", "1h": "1h", "2h": "2h",
           "4h": "4h", "6h": "6h", "8h": "8h", "12h": "12h"}
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def every(step: timedelta, start: datetime, end: datetime) -> list[datetime]:
    return [start + n * step for n in range((end - start) // step)]


@pytest.fixture(scope="module")
def generated_2024():
    period = date(2024, 1, 1), date(2024, 12, 31)
    markets = "XNYS", "XTKS", "XHKG", "FX", "24/7"
    return [(market, *period, *calendars.generate(market, *period)) for market in markets]


@pytest.fixture
def calendar_2024(tx, generated_2024):
    """The calendars of 2024, without the hourly grid."""
    for *arguments, rows in generated_2024:
        tx.execute("SELECT _tidemark.store_calendar(%s, %s, %s, %s, %s)", [*arguments, Jsonb(rows)])


def deliver(connection: psycopg.Connection, source_id: int, times: Iterable[datetime], **columns: float) -> None:
    names = ["close", *columns]
    with connection.cursor().copy(
        f"COPY timeseries_data (source_id, timestamp, {', '.join(names)}) FROM STDIN"
    ) as copy:
        for at in times:
            copy.write_row([source_id, at, 1.0, *columns.values()])


def gaps(connection: psycopg.Connection, source_id: int, start: datetime | str, end: datetime | str) -> list[tuple]:
    return connection.execute("SELECT * FROM find_gaps(%s, %s, %s)", [source_id, start, end]).fetchall()


def expected(connection: psycopg.Connection, market: str | None, interval: str, start: datetime, end: datetime):
    return connection.execute(
        "SELECT bar_start, bar_end FROM _tidemark.expected_bars(%s, %s, %s, %s) ORDER BY bar_start",
        [market, interval, start, end],
    ).fetchall()


# Which bars are expected


@pytest.mark.parametrize("interval", ["1m", "15m", "4h", "1d", "1w", "1M"])
@pytest.mark.parametrize("market", [None, "XNYS", "XTKS", "XHKG", "FX", "24/7"])
def test_bars_counted_by_day_are_those_that_are_listed(tx, calendar_2024, market, interval):
    for start, end in ((utc(2024, 3, 8), utc(2024, 3, 13)), (utc(2024, 7, 3, 14, 7), utc(2024, 7, 9, 15, 31))):
        counted = tx.execute(
            "SELECT day, bars FROM _tidemark.expected_by_day(%s, %s, %s, %s) ORDER BY 1", [market, interval, start, end]
        ).fetchall()
        listed = Counter(at.astimezone(UTC).replace(hour=0, minute=0)
                         for at, _ in expected(tx, market, interval, start, end))
        assert counted == sorted(listed.items())


def test_nothing_is_counted_where_the_calendar_does_not_reach(tx, calendar_2024):
    for market, end in (("XNYS", utc(2026, 1, 1)), ("MARS", utc(2024, 7, 1)), (None, utc(2024, 1, 1))):
        assert tx.execute("SELECT * FROM _tidemark.expected_by_day(%s, '1h', %s, %s)",
                          [market, utc(2024, 6, 1), end]).fetchall() == []


@pytest.mark.parametrize("interval", PERIODS)
@pytest.mark.parametrize("market", ["XNYS", "XTKS", "XHKG"])
def test_intraday_grid_is_that_of_exchange_calendars(tx, calendar_2024, market, interval):
    """Around the change of the clocks, early closes, holidays, lunch breaks and Tokyo's longer day."""
    calendar = exchange_calendars.get_calendar(market, start="2024-01-01", end="2024-12-31")
    index = calendar.trading_index("2024-10-28", calendar.last_session, PERIODS[interval], force=True)
    assert expected(tx, market, interval, utc(2024, 10, 28), utc(2025, 1, 1)) == [
        (bar.left.to_pydatetime(), bar.right.to_pydatetime()) for bar in index
    ]


def test_intraday_grid_by_the_clock(tx):
    assert expected(tx, None, "4h", utc(2024, 1, 1, 1), utc(2024, 1, 1, 12)) == [
        (utc(2024, 1, 1, 4), utc(2024, 1, 1, 8)), (utc(2024, 1, 1, 8), utc(2024, 1, 1, 12))
    ]
    assert expected(tx, None, "1m", utc(2024, 1, 1, 0, 0, 30), utc(2024, 1, 1, 0, 2)) == [
        (utc(2024, 1, 1, 0, 1), utc(2024, 1, 1, 0, 2))
    ]


@pytest.mark.parametrize("interval", ["1m", "1h", "4h", "1d", "1w", "1M"])
def test_the_clock_and_the_market_that_never_closes_agree(tx, calendar_2024, interval):
    period = utc(2024, 3, 4), utc(2024, 6, 2)
    bars = expected(tx, None, interval, *period)
    assert len(bars) >= 2 and bars == expected(tx, "24/7", interval, *period)


def test_the_session_time_zone_does_not_matter(tx, calendar_2024):
    period = utc(2024, 1, 1), utc(2024, 6, 1)
    cases = [(market, interval) for market in (None, "XNYS") for interval in ("4h", "1d", "1w", "1M")]
    before = [expected(tx, *case, *period) for case in cases]
    tx.execute("SET LOCAL timezone = 'America/New_York'")
    assert [expected(tx, *case, *period) for case in cases] == before


def test_longer_bars_run_from_the_first_opening_to_the_last_close(tx, calendar_2024):
    period = utc(2024, 7, 1), utc(2024, 7, 15)
    assert expected(tx, "XNYS", "1d", *period)[2:4] == [  # an early close, and the day after the holiday
        (utc(2024, 7, 3, 13, 30), utc(2024, 7, 3, 17)), (utc(2024, 7, 5, 13, 30), utc(2024, 7, 5, 20))
    ]
    assert expected(tx, "XNYS", "1w", *period) == [
        (utc(2024, 7, 1, 13, 30), utc(2024, 7, 5, 20)), (utc(2024, 7, 8, 13, 30), utc(2024, 7, 12, 20))
    ]
    assert expected(tx, "XNYS", "1M", utc(2024, 3, 1), utc(2024, 4, 1)) == [
        (utc(2024, 3, 1, 14, 30), utc(2024, 3, 28, 20))  # Good Friday was the 29th
    ]


@pytest.mark.parametrize("market", ["XNYS", "XTKS", "FX", "24/7"])
@pytest.mark.parametrize("interval", ["1d", "1w", "1M"])
@pytest.mark.parametrize("stamp", ["date in UTC", "date in the market's zone", "opening"])
def test_longer_bars_are_found_however_they_are_stamped(tx, calendar_2024, add, market, interval, stamp):
    zone = {"XNYS": "America/New_York", "FX": "America/New_York", "XTKS": "Asia/Tokyo", "24/7": "UTC"}[market]
    source = add("sources", interval=interval, config=Jsonb({"market": market}))
    unit = {"1d": "day", "1w": "week", "1M": "month"}[interval]
    tx.execute(
        """
        INSERT INTO timeseries_data (source_id, timestamp, close)
        SELECT %(source)s, CASE %(stamp)s WHEN 'opening' THEN min(c.opens_at)
                           WHEN 'date in UTC' THEN f.first_date AT TIME ZONE 'UTC'
                           ELSE f.first_date AT TIME ZONE %(zone)s END, 1
          FROM market_calendar AS c
         CROSS JOIN LATERAL (SELECT date_trunc(%(unit)s, c.date::timestamp)) AS f (first_date)
         WHERE c.market = %(market)s AND c.opens_at IS NOT NULL
         GROUP BY f.first_date
        """,
        {"source": source, "stamp": stamp, "zone": zone, "unit": unit, "market": market},
    )
    period = utc(2024, 2, 1), utc(2024, 12, 1)
    bars = expected(tx, market, interval, *period)
    assert len(bars) >= 9 and gaps(tx, source, *period) == []
    starts, ends = bars[len(bars) // 2]
    tx.execute(
        "DELETE FROM timeseries_data WHERE timestamp > %s AND timestamp < %s",
        [starts - (15 * HOUR if market != "24/7" else MINUTE), ends - MINUTE],
    )
    assert gaps(tx, source, *period) == [(starts, ends, 1)]


def test_a_bar_on_the_weekend_does_not_stand_in_for_monday(tx, calendar_2024, add):
    source = add("sources", interval="1d", config=Jsonb({"market": "XNYS"}))
    deliver(tx, source, [utc(2024, 7, n) for n in (10, 11, 12, 13, 14, 16)])
    assert gaps(tx, source, utc(2024, 7, 10), utc(2024, 7, 17)) == [(utc(2024, 7, 15, 13, 30), utc(2024, 7, 15, 20), 1)]


# find_gaps


def runs(bars: list[tuple], missing: set[int]) -> Iterator[tuple]:
    """What find_gaps must answer when the bars of these numbers are missing."""
    numbers = sorted(missing)
    first = [n for n in numbers if n - 1 not in missing]
    last = [n for n in numbers if n + 1 not in missing]
    return ((bars[a][0], bars[b][1], b - a + 1) for a, b in zip(first, last, strict=True))


@pytest.mark.parametrize("market", ["XNYS", "XTKS", "FX", None])
@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_bars_that_were_left_out_are_missing(tx, calendar_2024, add, market, seed):
    draw = random.Random(seed)
    source = add("sources", interval="15m", config=Jsonb({"market": market} if market else {}))
    period = utc(2024, 3, 1), utc(2024, 4, 1)
    bars = expected(tx, market, "15m", *period)
    starts = draw.sample(range(len(bars)), 12)
    missing = {n for start in starts for n in range(start, start + draw.choice([1, 1, 5, 60])) if n < len(bars)}
    missing |= {0, len(bars) - 1}
    deliver(tx, source, [bar[0] for n, bar in enumerate(bars) if n not in missing])
    found = gaps(tx, source, *period)
    assert found == list(runs(bars, missing))
    for start, end, count in found:
        assert gaps(tx, source, start, end) == [(start, end, count)], "a gap is found again within its own bounds"


def test_nothing_is_expected_on_holidays_and_after_an_early_close(tx, calendar_2024, add):
    source = add("sources", interval="1h", config=Jsonb({"market": "XNYS"}))
    deliver(tx, source, [
        *every(HOUR, utc(2024, 7, 2, 13, 30), utc(2024, 7, 2, 20, 30)),
        *every(HOUR, utc(2024, 7, 3, 13, 30), utc(2024, 7, 3, 17, 30)),
        *every(HOUR, utc(2024, 7, 5, 13, 30), utc(2024, 7, 5, 20, 30)),
    ])
    assert gaps(tx, source, utc(2024, 7, 2), utc(2024, 7, 8)) == []
    tx.execute("DELETE FROM timeseries_data WHERE timestamp = '2024-07-03 16:30Z'")
    assert gaps(tx, source, utc(2024, 7, 2), utc(2024, 7, 8)) == [(utc(2024, 7, 3, 16, 30), utc(2024, 7, 3, 17), 1)]


def test_a_gap_runs_on_over_the_night(tx, calendar_2024, add):
    source = add("sources", interval="1h", config=Jsonb({"market": "XNYS"}))
    deliver(tx, source, [
        *every(HOUR, utc(2024, 7, 12, 13, 30), utc(2024, 7, 12, 18, 30)),
        *every(HOUR, utc(2024, 7, 15, 14, 30), utc(2024, 7, 15, 20, 30)),
    ])
    assert gaps(tx, source, utc(2024, 7, 12), utc(2024, 7, 16)) == [
        (utc(2024, 7, 12, 18, 30), utc(2024, 7, 15, 14, 30), 3)
    ]


def test_a_manual_closure_is_no_gap(tx, calendar_2024, add):
    source = add("sources", interval="1d", config=Jsonb({"market": "XNYS"}))
    deliver(tx, source, [utc(2024, 7, n) for n in (8, 9, 11, 12)])
    period = utc(2024, 7, 8), utc(2024, 7, 13)
    assert gaps(tx, source, *period) == [(utc(2024, 7, 10, 13, 30), utc(2024, 7, 10, 20), 1)]
    tx.execute("UPDATE market_calendar SET origin = 'manual', is_holiday = true, opens_at = NULL, closes_at = NULL "
               " WHERE market = 'XNYS' AND date = '2024-07-10'")
    assert gaps(tx, source, *period) == []


def test_a_late_stamp_within_the_bar_counts_and_one_before_it_does_not(tx, add):
    source = add("sources", interval="1h")
    deliver(tx, source, [utc(2024, 7, 1, 0, 0, 3), utc(2024, 7, 1, 1, 59, 59), utc(2024, 7, 1, 3)])
    assert gaps(tx, source, utc(2024, 7, 1), utc(2024, 7, 1, 4)) == [(utc(2024, 7, 1, 2), utc(2024, 7, 1, 3), 1)]


def test_the_profile_names_the_market_before_the_config(tx, calendar_2024, add):
    tx.execute("SET LOCAL tidemark.reason = 'a test'")
    profile = add("quality_profiles", name="tokyo", market="XTKS")
    source = add("sources", interval="1d", quality_profile_id=profile,
                 config=Jsonb({"market": "XNYS"}))
    assert gaps(tx, source, utc(2024, 7, 4), utc(2024, 7, 5)) == [(utc(2024, 7, 4), utc(2024, 7, 4, 6), 1)]
    tx.execute("UPDATE sources SET quality_profile_id = NULL")
    assert gaps(tx, source, utc(2024, 7, 4), utc(2024, 7, 5)) == []
    tx.execute("UPDATE sources SET config = '{}'")
    assert gaps(tx, source, utc(2024, 7, 4), utc(2024, 7, 5)) == [(utc(2024, 7, 4), utc(2024, 7, 5), 1)]


@pytest.mark.parametrize(("market", "interval", "step"), [
    ("XNYS", "1h", HOUR), ("XNYS", "30m", HOUR / 2), ("XHKG", "1h", HOUR), ("XTKS", "2h", 2 * HOUR),
    ("XNYS", "4h", 4 * HOUR),
])
def test_bars_stamped_by_the_clock_leave_no_gap_but_those_that_are_left_out(tx, calendar_2024, add, market, interval,
                                                                            step):
    """A market that opens at 9:30 has an hour from 9:00, for those who count hours by the clock."""
    start, end = utc(2024, 11, 4), utc(2024, 12, 21)  # without a change of New York's clocks
    sessions = tx.execute(
        "SELECT s.opens_at, s.closes_at FROM market_calendar AS c, LATERAL (VALUES (opens_at,"
        " coalesce(break_starts_at, closes_at)), (break_ends_at, closes_at)) AS s (opens_at, closes_at)"
        " WHERE market = %s AND date BETWEEN %s AND %s AND s.opens_at IS NOT NULL ORDER BY 1",
        [market, start, end]).fetchall()
    times = sorted({at for opens, closes in sessions for at in every(step, start, end) if opens - step < at < closes})
    source_id = add("sources", interval=interval, config=Jsonb({"market": market}))
    deliver(tx, source_id, times)
    assert gaps(tx, source_id, start, end) == []
    tx.execute("DELETE FROM timeseries_data WHERE timestamp = ANY (%s)", [times[10:12]])
    assert [(at, bars) for at, _, bars in gaps(tx, source_id, start, end)] == [(times[10], 2)]


@pytest.mark.parametrize("name", ["NYSE", "xnys", "Nyse"])
def test_a_market_may_be_called_by_its_usual_name(tx, calendar_2024, add, name):
    tx.execute("SET LOCAL tidemark.reason = 'test'")
    saturday, week = utc(2024, 7, 6), (utc(2024, 7, 8), utc(2024, 7, 13))
    profile = add("quality_profiles", name="p", market=name)
    sources = [add("sources", interval="1d", quality_profile_id=profile),
               add("sources", interval="1d", config=Jsonb({"market": name})),
               add("sources", interval="1d", asset_id=add("assets", exchange=name))]
    assert tx.execute("SELECT market FROM quality_profiles WHERE name = 'p'").fetchone() == ("XNYS",)
    for source_id in sources:
        deliver(tx, source_id, every(DAY, *week))
        assert gaps(tx, source_id, saturday, week[1]) == []
        assert [bars for *_, bars in gaps(tx, source_id, saturday, utc(2024, 7, 17))] == [2]
    # what is not missing on a Saturday is out of session there
    tx.execute("INSERT INTO validation_rules (name, applies_to, rule_type)"
               " VALUES ('o', 'timeseries_data', 'session_open')")
    deliver(tx, sources[0], [saturday])
    assert tx.execute("SELECT quality_score FROM timeseries_data WHERE timestamp = %s", [saturday]).fetchone()[0] < 100


def test_candles_are_missed_and_scored_by_the_same_market(tx, calendar_2024, add):
    """The profile's, though the asset says no exchange."""
    tx.execute("SET LOCAL tidemark.reason = 'test'")
    asset_id = add("assets", exchange=None)
    tx.execute("UPDATE quality_profiles SET market = 'NYSE'")
    add("candles", asset_id=asset_id, interval="1d", ts=utc(2024, 7, 5), close=1)
    assert tx.execute("SELECT missing_bars FROM find_candle_gaps(%s, '1d', %s, %s)",
                      [asset_id, utc(2024, 7, 5), utc(2024, 7, 10)]).fetchall() == [(2,)]  # Monday and Tuesday


def test_a_profile_of_a_market_without_a_calendar_is_warned_of(tx):
    tx.execute("SET LOCAL tidemark.reason = 'test'")
    said = []
    tx.add_notice_handler(lambda notice: said.append((notice.severity, notice.message_primary, notice.message_hint)))
    tx.execute("INSERT INTO quality_profiles (name, market) VALUES ('p', 'XNYZ')")
    (severity, message, hint), = said
    assert severity == "WARNING" and "XNYZ" in message and "tidemark calendar" in hint


def test_a_source_without_rows_lacks_everything_asked_for(tx, add):
    source = add("sources", interval="1h")
    assert gaps(tx, source, utc(2024, 7, 1), utc(2024, 7, 2)) == [(utc(2024, 7, 1), utc(2024, 7, 2), 24)]
    assert gaps(tx, source, "-infinity", "infinity") == [], "nobody knows when it should have begun"


def test_infinite_bounds_are_the_first_row_and_now(tx, add):
    source = add("sources", interval="1h")
    now = tx.execute("SELECT now()").fetchone()[0]
    hour = now.replace(minute=0, second=0, microsecond=0)
    deliver(tx, source, [hour - 6 * HOUR, hour - 5 * HOUR, hour - 3 * HOUR])
    assert gaps(tx, source, "-infinity", "infinity") == [
        (hour - 4 * HOUR, hour - 3 * HOUR, 1), (hour - 2 * HOUR, hour, 2)  # not the hour in progress
    ]
    assert gaps(tx, source, now, "infinity") == []
    assert gaps(tx, source, now + DAY, now + 2 * DAY) == []


@pytest.mark.parametrize("status", ["paused", "retired"])
def test_an_idle_source_lacks_nothing_after_its_last_row(tx, add, status):
    source = add("sources", interval="1d", status=status)
    assert gaps(tx, source, utc(2024, 7, 1), utc(2024, 7, 5)) == []
    deliver(tx, source, [utc(2024, 7, 1), utc(2024, 7, 3)])
    assert gaps(tx, source, utc(2024, 6, 30), "infinity") == [
        (utc(2024, 6, 30), utc(2024, 7, 1), 1), (utc(2024, 7, 2), utc(2024, 7, 3), 1)
    ]


def test_other_sources_fill_no_gap(tx, add):
    source, other = add("sources", interval="1h"), add("sources", interval="1h")
    deliver(tx, other, every(HOUR, utc(2024, 7, 1), utc(2024, 7, 2)))
    assert gaps(tx, source, utc(2024, 7, 1), utc(2024, 7, 2)) == [(utc(2024, 7, 1), utc(2024, 7, 2), 24)]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("find_gaps(-1, '2024-07-01', '2024-07-02')", "TM301"),
        ("find_gaps(NULL, '2024-07-01', '2024-07-02')", "TM301"),
        ("find_gaps(1, '2024-07-01', '2024-07-02')", "TM302"),
        ("find_gaps(2, '2024-07-02', '2024-07-02')", "TM303"),
        ("find_gaps(2, '2024-07-02', '2024-07-01')", "TM303"),
        ("find_gaps(2, NULL, '2024-07-01')", "TM303"),
        ("find_gaps(2, 'infinity', 'infinity')", "TM303"),
        ("find_gaps(2, '-infinity', '-infinity')", "TM303"),
        ("find_gaps(3, '2024-07-01', '2024-07-02')", "TM304"),
        ("find_gaps(4, '2023-12-31', '2024-01-03')", "TM304"),
        ("find_gaps(4, '2024-12-01', '2025-01-03')", "TM304"),
        ("find_candle_gaps(gen_random_uuid(), '1d', '2024-07-01', '2024-07-02')", "TM301"),
        ("find_candle_gaps((SELECT asset_id FROM assets), NULL, '2024-07-01', '2024-07-02')", "TM302"),
        ("find_candle_gaps((SELECT asset_id FROM assets), '1d', '2024-07-02', '2024-07-02')", "TM303"),
        ("find_candle_gaps((SELECT asset_id FROM assets), '1d', '2024-07-01', '2024-07-02', 'MARS')", "TM304"),
        ("stale_runs(-1, '2024-07-01', '2024-07-02')", "TM301"),
        ("stale_runs(2, '2024-07-02', '2024-07-02')", "TM303"),
        ("stale_runs(2, '2024-07-01', '2024-07-02', 1)", "TM305"),
        ("stale_runs(2, '2024-07-01', '2024-07-02', NULL)", "TM305"),
        ("stale_candle_runs(gen_random_uuid(), '1d', '2024-07-01', '2024-07-02')", "TM301"),
        ("stale_candle_runs((SELECT asset_id FROM assets), NULL, '2024-07-01', '2024-07-02')", "TM302"),
    ],
)
def test_errors_have_codes(tx, calendar_2024, add, call, code):
    add("assets")
    for source_id, columns in enumerate([
        {}, {"interval": "1h"}, {"interval": "1h", "config": Jsonb({"market": "MARS"})},
        {"interval": "1h", "config": Jsonb({"market": "XNYS"})},
    ], start=1):
        add("sources", source_id=source_id, **columns)
    with pytest.raises(psycopg.Error) as error:
        tx.execute(f"SELECT * FROM {call}")
    assert error.value.sqlstate == code
    assert error.value.diag.message_hint


# find_candle_gaps


def candles(connection: psycopg.Connection, asset_id: str, interval: str, times: Iterable[datetime], **columns: float):
    names = ["close", *columns]
    with connection.cursor().copy(
        f"COPY candles (asset_id, interval, ts, {', '.join(names)}) FROM STDIN"
    ) as copy:
        for at in times:
            copy.write_row([asset_id, interval, at, 1.0, *columns.values()])


def test_candle_gaps(tx, calendar_2024, add):
    asset = add("assets", exchange="XNYS")
    candles(tx, asset, "1d", [utc(2024, 7, n) for n in (1, 2, 5, 8)])
    candles(tx, asset, "1h", every(HOUR, utc(2024, 7, 1), utc(2024, 7, 9)))

    def found(*arguments) -> list[tuple]:
        return tx.execute(
            "SELECT * FROM find_candle_gaps(%s, %s, %s, %s, %s)", [*arguments, None][:5]
        ).fetchall()

    period = utc(2024, 7, 1), utc(2024, 7, 9)
    third, fourth = (utc(2024, 7, 3, 13, 30), utc(2024, 7, 3, 17), 1), (utc(2024, 7, 3), utc(2024, 7, 5), 2)
    assert found(asset, "1d", *period) == [third], "the calendar of the asset's exchange"
    assert found(asset, "1d", *period, "24/7") == [fourth, (utc(2024, 7, 6), utc(2024, 7, 8), 2)]
    assert found(asset, "1h", *period, "24/7") == []
    assert found(asset, "5m", utc(2024, 7, 1), utc(2024, 7, 2)) == [(utc(2024, 7, 1, 13, 30), utc(2024, 7, 1, 20), 78)]
    assert found(asset, "5m", "-infinity", "infinity") == []
    tx.execute("UPDATE assets SET exchange = 'a venue without a calendar', is_active = false")
    assert found(asset, "1d", utc(2024, 7, 1), "infinity") == [fourth, (utc(2024, 7, 6), utc(2024, 7, 8), 2)]


# coverage


def coverage(connection: psycopg.Connection) -> list[tuple]:
    return connection.execute(
        "SELECT table_name, source_id, asset_id, interval, name, first_at, last_at FROM coverage "
        " ORDER BY table_name, source_id, interval"
    ).fetchall()


def test_coverage_lists_every_series(tx, add):
    asset, bare = add("assets", symbol="AAA"), add("assets", symbol="BBB")
    source = add("sources", source_id=1, name="a", interval="1h", asset_id=asset)
    empty = add("sources", source_id=2, name="b")
    deliver(tx, source, [utc(2020, 1, 1), utc(2022, 6, 1), utc(2024, 7, 1)])
    candles(tx, asset, "1d", [utc(2021, 1, 1), utc(2024, 7, 2)])
    candles(tx, asset, "1M", [utc(2021, 2, 1)])
    assert bare not in {row[2] for row in coverage(tx)}
    assert coverage(tx) == [
        ("candles", None, asset, "1d", "AAA", utc(2021, 1, 1), utc(2024, 7, 2)),
        ("candles", None, asset, "1M", "AAA", utc(2021, 2, 1), utc(2021, 2, 1)),
        ("timeseries_data", source, asset, "1h", "a", utc(2020, 1, 1), utc(2024, 7, 1)),
        ("timeseries_data", empty, None, None, "b", None, None),
    ]


def test_coverage_says_how_stale_a_series_is(tx, add):
    def stale() -> dict[str, timedelta | None]:
        return dict(tx.execute("SELECT name, stale_for FROM coverage").fetchall())

    now = tx.execute("SELECT now()").fetchone()[0]
    today = now.astimezone(UTC).date()
    for name, columns in {
        "hourly": {"interval": "1h"}, "fresh": {"interval": "1h"}, "irregular": {}, "paused": {"status": "paused"},
        "never": {}, "closed": {"config": Jsonb({"market": "TEST"})},
        "unknown": {"config": Jsonb({"market": "MARS"})},
    }.items():
        source = add("sources", name=name, **columns)
        if name != "never":
            deliver(tx, source, [now - (10 * MINUTE if name == "fresh" else 5 * HOUR)])
    for days in (-2, 3):  # a calendar that reaches over today, without a session
        add("market_calendar", market="TEST", date=today + timedelta(days=days), is_holiday=True)
    asset = add("assets", symbol="A", exchange="TEST")
    candles(tx, asset, "1h", [now - 5 * HOUR])
    assert stale() == {
        "hourly": 4 * HOUR, "fresh": timedelta(0), "irregular": 5 * HOUR, "paused": None, "never": None,
        "closed": timedelta(0), "unknown": None, "A": timedelta(0),
    }


def test_coverage_and_the_report_read_no_rows_of_days_that_are_over(db):
    """However many there are; what has not been precomputed yet is the last day, 24 rows a series."""
    with db.connect() as connection:
        add = adder(connection)
        connection.execute("SET tidemark.ingest_mode = 'backfill'")
        for source in [add("sources", interval="1h") for _ in range(4)]:
            deliver(connection, source, every(HOUR, utc(2024, 1, 1), utc(2024, 7, 1)))
        for asset in [add("assets") for _ in range(4)]:
            candles(connection, asset, "1h", every(HOUR, utc(2024, 1, 1), utc(2024, 3, 1)))
        connection.execute("CALL refresh_aggregates()")
        connection.execute("ANALYZE")
        for view, count in (("coverage", 8), ("quality_report", 4 * (182 + 60))):
            plan = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM {view}").fetchone()[0][0]["Plan"]
            assert plan["Actual Rows"] == count
            raw = {name for (name,) in connection.execute(
                "SELECT relname FROM unnest('{timeseries_data,candles}'::regclass[]) AS h, show_chunks(h) AS c"
                " JOIN pg_class ON oid = c")}
            read = list(rows_of(plan, raw))
            ends = 2 * 8 if view == "coverage" else 4 * 24
            assert sum(read) <= 4 * 24 + ends, "the day that is not over, and of each series its first and last row"


def rows_of(node: dict, tables: set[str]) -> Iterator[float]:
    """Rows that a plan got from these tables."""
    if node.get("Relation Name") in tables:
        yield node["Actual Rows"] * node["Actual Loops"]
    for child in node.get("Plans", []):
        yield from rows_of(child, tables)


def test_coverage_ends_where_chunks_were_dropped(db):
    with db.connect() as connection:
        source = adder(connection)("sources", interval="1h")
        deliver(connection, source, every(HOUR, utc(2024, 1, 1), utc(2024, 4, 1)))
        connection.execute("CALL refresh_aggregates()")
        assert [row[5:] for row in coverage(connection)] == [(utc(2024, 1, 1), utc(2024, 3, 31, 23))]
        connection.execute("SELECT drop_chunks('timeseries_data', older_than => timestamptz '2024-02-25 00:00+00')")
        first = connection.execute("SELECT min(timestamp) FROM timeseries_data").fetchone()[0]
        assert first > utc(2024, 1, 15)
        for _ in range(2):
            assert [row[5:] for row in coverage(connection)] == [(first, utc(2024, 3, 31, 23))]
            assert connection.execute("SELECT min(day) FROM quality_report").fetchone() == (first,)
            connection.execute("CALL refresh_aggregates()")
        kept = connection.execute("SELECT min(day) FROM timeseries_data_days").fetchone()
        assert kept == (utc(2024, 1, 1),)


def test_find_gaps_opens_only_the_chunks_of_its_period(db):
    """Locks tell which chunks a query opened: a day, with 40 days of margin on each side, touches 4 months."""
    with db.connect(autocommit=False) as connection:
        source = adder(connection)("sources", interval="1d")
        deliver(connection, source, every(DAY, utc(2022, 1, 1), utc(2024, 1, 1)))
        connection.commit()
        for _ in range(8):  # more often than a plan is made anew unless that is asked for
            assert gaps(connection, source, utc(2023, 6, 15), utc(2023, 6, 16)) == []
        opened = connection.execute(
            "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation "
            " WHERE l.pid = pg_backend_pid() AND c.relname LIKE '\\_hyper\\_%\\_chunk'"
        ).fetchone()[0]
    assert 1 <= opened <= 5


@pytest.mark.community
def test_compressed_rows_are_seen(tx, add):
    source, asset = add("sources", interval="1h"), add("assets")
    times = [at for at in every(HOUR, utc(2024, 1, 1), utc(2024, 3, 1)) if at != utc(2024, 1, 15)]
    deliver(tx, source, times, volume=0.0)
    candles(tx, asset, "1h", times, volume=0.0)

    def answers() -> list:
        return [coverage(tx), gaps(tx, source, "-infinity", utc(2024, 3, 1)), *(
            tx.execute(statement, [series]).fetchall() for statement, series in (
                ("SELECT * FROM stale_runs(%s, '-infinity', 'infinity')", source),
                ("SELECT * FROM find_candle_gaps(%s, '1h', '-infinity', '2024-03-01')", asset),
                ("SELECT * FROM stale_candle_runs(%s, '1h', '-infinity', 'infinity')", asset),
            )
        )]

    before = answers()
    assert before[1] == [(utc(2024, 1, 15), utc(2024, 1, 15, 1), 1)]
    for table, segment, order in (
        ("timeseries_data", "source_id", "timestamp"), ("candles", "asset_id, interval", "ts"),
    ):
        tx.execute(f"ALTER TABLE {table} SET (timescaledb.compress, timescaledb.compress_segmentby = '{segment}', "
                   f"timescaledb.compress_orderby = '{order}')")
        (compressed,), = tx.execute("SELECT count(compress_chunk(c)) FROM show_chunks(%s::regclass) AS c", [table])
        assert compressed >= 2
    assert answers() == before


# Stale runs


def bars(connection: psycopg.Connection, source_id: int, rows: Iterable[tuple[float | None, float | None]]) -> None:
    """(close, volume) once a minute from 2024-07-01 on."""
    for n, (close, volume) in enumerate(rows):
        connection.execute(
            "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [source_id, utc(2024, 7, 1) + n * MINUTE, close, close, close, close, volume],
        )


def stale_runs(connection: psycopg.Connection, source_id: int, min_rows: int, start="-infinity", end="infinity"):
    """(minute of the first row, minute of the last, rows, price)"""
    found = connection.execute(
        "SELECT * FROM stale_runs(%s, %s, %s, %s)", [source_id, start, end, min_rows]
    ).fetchall()
    return [((a - utc(2024, 7, 1)) // MINUTE, (b - utc(2024, 7, 1)) // MINUTE, n, price) for a, b, n, price in found]


@pytest.mark.parametrize(
    ("rows", "runs"),
    [
        ([], []),
        ([(10, 5), (10, 0), (10, 0), (10, 0), (11, 3)], [(1, 3, 3, 10)]),
        ([(10, 0), (10, 0), (11, 0), (11, 0), (11, 0)], [(0, 1, 2, 10), (2, 4, 3, 11)]),
        ([(10, 0), (10, 0), (10, 1), (10, 0), (10, 0)], [(0, 1, 2, 10), (3, 4, 2, 10)]),
        ([(10, 0), (11, 0), (10, 0), (11, 0)], []),
        ([(10, 7), (10, 8), (10, 7), (10, 8)], []),
        ([(10, 7), (10, 7), (10, 7)], [(0, 2, 3, 10)]),
        ([(10, 6), (10, 7), (10, 7), (11, 7), (11, 8)], [(1, 2, 2, 10)]),
        ([(10, 5), (10, 7), (10, 7), (10, 0), (10, None), (10, 5)], [(1, 4, 4, 10)]),
        ([(10, None), (10, None), (10, None)], [(0, 2, 3, 10)]),
        ([(10, 0), (10, 0), (10, None), (10, 0)], [(0, 3, 4, 10)]),
        ([(10, 5)] * 50, [(0, 49, 50, 10)]),
        ([(11, 5)] + [(10, None)] * 50, [(1, 50, 50, 10)]),
        ([(None, 0), (None, 0), (None, 0)], []),
        ([(10, 0), (10, 0), (None, 0), (10, 0), (10, 0)], [(0, 1, 2, 10), (3, 4, 2, 10)]),
    ],
    ids=["empty", "after the last trade", "two prices", "a trade between", "to and fro", "traded", "volume repeated",
         "volume repeated at another price", "repeated and then none", "volume unknown", "volume unknown between",
         "fifty", "fifty unknown", "no price", "no price between"],
)
def test_stale_runs(tx, add, rows, runs):
    source = add("sources")
    bars(tx, source, rows)
    assert stale_runs(tx, source, 2) == runs


def test_stale_runs_of_enough_rows_in_the_period(tx, add):
    source = add("sources")
    bars(tx, source, [(10, 0)] * 4 + [(11, 0)] * 3)
    assert stale_runs(tx, source, 4) == [(0, 3, 4, 10)]
    assert stale_runs(tx, source, 5) == []
    assert stale_runs(tx, source, 2, utc(2024, 7, 1, 0, 2), utc(2024, 7, 1, 0, 6)) == [(2, 3, 2, 10), (4, 5, 2, 11)]


def test_a_bar_that_moved_within_is_not_stale(tx, add):
    source = add("sources")
    bars(tx, source, [(10, 0)] * 4)
    tx.execute("UPDATE timeseries_data SET high = 12 WHERE timestamp = '2024-07-01 00:02Z'")
    assert stale_runs(tx, source, 2) == [(0, 1, 2, 10)]


def test_a_scalar_has_no_volume_so_its_value_decides(tx, add):
    source = add("sources", data_type="scalar")
    tx.execute(
        "INSERT INTO timeseries_data (source_id, timestamp, value) "
        "SELECT %s, t, CASE WHEN t < '2024-07-01 00:03Z' THEN 5 ELSE extract(minute FROM t) END "
        "  FROM generate_series('2024-07-01 00:00Z'::timestamptz, '2024-07-01 00:10Z', '1 minute') AS t", [source])
    assert stale_runs(tx, source, 2) == [(0, 2, 3, 5)]


def test_stale_candle_runs(tx, add):
    asset, other = add("assets"), add("assets")
    times = every(MINUTE, utc(2024, 7, 1), utc(2024, 7, 1, 0, 12))
    candles(tx, asset, "1m", times, volume=0.0)
    candles(tx, asset, "5m", times[:3], volume=0.0)
    candles(tx, other, "1m", times, volume=1.0)
    found = {
        key: tx.execute("SELECT * FROM stale_candle_runs(%s, %s, '-infinity', 'infinity')", key).fetchall()
        for key in ((asset, "1m"), (asset, "5m"), (other, "1m"))
    }
    run = [(times[0], times[-1], 12, 1.0)]
    assert found == {(asset, "1m"): run, (asset, "5m"): [], (other, "1m"): run}


def test_stale_runs_and_gaps_on_a_long_series(tx, add):
    """Half a million rows, for the sums; each with its own answer known beforehand."""
    tx.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
    source = add("sources", interval="1m")
    tx.execute(
        "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume) "
        "SELECT %s, t, (n / 1000), (n / 1000), (n / 1000), (n / 1000), n %% 100 FROM generate_series(0, 499999) AS n, "
        "       LATERAL (SELECT '2023-01-01 00:00Z'::timestamptz + n * interval '1 minute') AS s (t) "
        " WHERE n %% 50000 NOT BETWEEN 100 AND 109", [source])
    found = gaps(tx, source, "-infinity", utc(2023, 1, 1) + 500000 * MINUTE)
    assert [count for _, _, count in found] == [10] * 10
    assert all(b[0] - a[0] == 50000 * MINUTE for a, b in pairwise(found))
    assert tx.execute("SELECT count(*) FROM stale_runs(%s, '-infinity', 'infinity', 2)", [source]).fetchone() == (0,)
