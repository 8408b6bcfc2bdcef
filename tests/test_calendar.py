"""Market calendars against published figures, re-runs, manual rows, the hourly grid and open-market time."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import exchange_calendars
import pandas
import pandas_market_calendars
import psycopg
import pytest

from tidemark import calendars
from tidemark.errors import Problem

pytestmark = [  # between two libraries that are not ours
    pytest.mark.filterwarnings("ignore::DeprecationWarning:exchange_calendars"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pandas"),
]

NEW_YORK = ZoneInfo("America/New_York")
START, END = date(2015, 1, 1), date(2026, 12, 31)
PUBLISHED = {  # holidays, early closes, sessions from START to END
    "XNYS": (114, 25, 3017),
    "XNAS": (114, 25, 3017),
    "XLON": (99, 24, 3032),
    "XETR": (87, 12, 3044),
    "XTKS": (202, 0, 2929),
    "XHKG": (178, 26, 2953),  # of which two closures are corrected
    "24/7": (0, 0, 4383),
    "FX": (18, 0, 3113),  # 25 December and 1 January, where they are weekdays
}


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def day(connection: psycopg.Connection, market: str, on: date) -> dict | None:
    cursor = connection.execute(
        "SELECT is_holiday, holiday_name, is_early_close, opens_at, closes_at, break_starts_at, break_ends_at, origin, "
        "       origin_version, xmin FROM market_calendar WHERE market = %s AND date = %s", [market, on],
    )
    row = cursor.fetchone()
    return row and dict(zip([column.name for column in cursor.description], row, strict=True))


@pytest.fixture
def tx(tx):
    tx.execute("SELECT 1")  # begins the transaction, without which fill() would begin and commit one of its own
    return tx


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[date, dict]]:
    """Generated rows by market and date, for questions that need no database."""
    return {
        market: {date.fromisoformat(row["date"]): row for row in calendars.generate(market, START, END)[1]}
        for market in calendars.MARKETS
    }


def test_published_counts(tx):
    calendars.fill(tx, START, END)
    found = tx.execute(
        "SELECT market, count(*) FILTER (WHERE is_holiday), count(*) FILTER (WHERE is_early_close), count(opens_at), "
        "       count(*) FILTER (WHERE NOT is_holiday) - count(opens_at) FROM market_calendar GROUP BY market"
    ).fetchall()
    assert {market: tuple(counts) for market, *counts in found} == {m: (*n, 0) for m, n in PUBLISHED.items()}


def test_new_york_by_year(tx):
    calendars.fill(tx, START, END, ["XNYS"])
    found = tx.execute(
        "SELECT count(*) FILTER (WHERE is_holiday), count(*) FILTER (WHERE is_early_close) FROM market_calendar "
        " GROUP BY extract(year FROM date) ORDER BY extract(year FROM date)"
    ).fetchall()
    assert [holidays for holidays, _ in found] == [9, 9, 9, 10, 9, 9, 9, 9, 10, 10, 11, 10]
    assert [early for _, early in found] == [2, 1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2]


@pytest.mark.parametrize("on", [date(2018, 12, 5), date(2025, 1, 9)])
def test_closures_ad_hoc_are_holidays_without_a_name(rows, on):
    assert rows["XNYS"][on]["is_holiday"] and rows["XNYS"][on]["holiday_name"] is None


def test_regular_holidays_have_their_name(rows):
    assert rows["XNYS"][date(2025, 7, 4)]["holiday_name"] == "July 4th"
    assert rows["XLON"][date(2024, 3, 29)]["holiday_name"] == "Good Friday"


def test_early_closes_in_new_york_are_at_13(rows):
    early = {on: row for on, row in rows["XNYS"].items() if row["is_early_close"]}
    assert {date(2026, 11, 27), date(2026, 12, 24)} <= set(early)
    closes = {datetime.fromisoformat(row["closes_at"]).astimezone(NEW_YORK).time() for row in early.values()}
    assert closes == {time(13)}


def test_regular_hours_follow_daylight_saving(tx):
    calendars.fill(tx, date(2024, 3, 8), date(2024, 3, 11), ["XNYS"])
    friday, monday = (day(tx, "XNYS", on) for on in (date(2024, 3, 8), date(2024, 3, 11)))
    assert (friday["opens_at"], friday["closes_at"]) == (utc(2024, 3, 8, 14, 30), utc(2024, 3, 8, 21))
    assert (monday["opens_at"], monday["closes_at"]) == (utc(2024, 3, 11, 13, 30), utc(2024, 3, 11, 20))


def test_session_times_belong_to_the_date(tx):
    """Tokyo closes half an hour later from 5 November 2024 on; both days keep the lunch break."""
    calendars.fill(tx, date(2024, 11, 1), date(2024, 11, 5), ["XTKS"])
    before, after = (day(tx, "XTKS", on) for on in (date(2024, 11, 1), date(2024, 11, 5)))
    assert before["closes_at"] == utc(2024, 11, 1, 6) and after["closes_at"] == utc(2024, 11, 5, 6, 30)
    assert (after["break_starts_at"], after["break_ends_at"]) == (utc(2024, 11, 5, 2, 30), utc(2024, 11, 5, 3, 30))
    assert day(tx, "XTKS", date(2024, 11, 4))["is_holiday"]


def test_an_early_close_before_the_break_has_no_break(tx):
    calendars.fill(tx, date(2024, 12, 24), date(2024, 12, 24), ["XHKG"])
    row = day(tx, "XHKG", date(2024, 12, 24))
    assert row["is_early_close"] and row["closes_at"] == utc(2024, 12, 24, 4)
    assert row["break_starts_at"] is None and row["break_ends_at"] is None


def test_only_weekdays_and_sessions_have_rows(rows):
    for market, by_date in rows.items():
        weekend = [on for on in by_date if on.weekday() >= 5]
        assert bool(weekend) == (market == "24/7"), market


def test_fx_week(rows):
    fx = rows["FX"]
    monday, friday = fx[date(2024, 7, 8)], fx[date(2024, 7, 12)]
    assert datetime.fromisoformat(monday["opens_at"]) == datetime(2024, 7, 7, 17, tzinfo=NEW_YORK)  # a Sunday
    assert datetime.fromisoformat(friday["closes_at"]) == datetime(2024, 7, 12, 17, tzinfo=NEW_YORK)
    week = [fx[date(2024, 7, 8) + timedelta(days=n)] for n in range(5)]
    assert all(a["closes_at"] == b["opens_at"] for a, b in pairwise(week))


def test_fx_holidays_and_daylight_saving(rows):
    fx = rows["FX"]
    assert {(on.month, on.day) for on, row in fx.items() if row["is_holiday"]} == {(12, 25), (1, 1)}
    hours = {row["opens_at"][11:] for row in fx.values() if "opens_at" in row}
    assert hours == {"17:00:00-05:00", "17:00:00-04:00"}
    assert all(
        datetime.fromisoformat(row["closes_at"]) - datetime.fromisoformat(row["opens_at"]) == timedelta(days=1)
        for row in fx.values() if "opens_at" in row
    )


def test_a_second_run_writes_nothing(tx):
    period = date(2024, 1, 1), date(2024, 12, 31)
    first = calendars.fill(tx, *period)
    assert [result.market for result in first] == list(calendars.MARKETS)
    assert all(result.inserted >= 262 and result[2:] == (0, 0, 0) for result in first)

    def versions() -> list:
        return tx.execute(
            "SELECT ctid::text, xmin::text FROM market_calendar UNION ALL SELECT ctid::text, xmin::text FROM time_index"
        ).fetchall()

    before = versions()
    assert all(result[1:] == (0, 0, 0, 0) for result in calendars.fill(tx, *period))
    assert versions() == before


def test_generated_rows_are_brought_up_to_date(tx):
    period = date(2024, 7, 1), date(2024, 7, 7)
    calendars.fill(tx, *period, ["XNYS"])
    kept = day(tx, "XNYS", date(2024, 7, 5))
    tx.execute("UPDATE market_calendar SET closes_at = closes_at + interval '1 hour', origin_version = 'older' "
               " WHERE date = '2024-07-02'")
    tx.execute("UPDATE market_calendar SET origin_version = 'older' WHERE date = '2024-07-05'")
    tx.execute("DELETE FROM market_calendar WHERE date = '2024-07-03'")
    tx.execute("INSERT INTO market_calendar (market, date, origin) VALUES ('XNYS', '2024-07-06', 'generated')")
    assert calendars.fill(tx, *period, ["XNYS"]) == [("XNYS", 1, 1, 1, 0)]
    row = day(tx, "XNYS", date(2024, 7, 2))
    assert row["closes_at"] == utc(2024, 7, 2, 20) and row["origin_version"].startswith("exchange_calendars 4.")
    assert day(tx, "XNYS", date(2024, 7, 6)) is None
    same = day(tx, "XNYS", date(2024, 7, 5))
    assert same["origin_version"] == "older" and same["closes_at"] == kept["closes_at"]


def test_manual_rows_are_kept(tx, add):
    add("market_calendar", market="XNYS", date=date(2024, 7, 2), is_holiday=True, holiday_name="power cut")
    add("market_calendar", market="XNYS", date=date(2024, 7, 6), opens_at=utc(2024, 7, 6, 14),
        closes_at=utc(2024, 7, 6, 18))
    before = [day(tx, "XNYS", date(2024, 7, n)) for n in (2, 6)]
    assert calendars.fill(tx, date(2024, 7, 1), date(2024, 7, 7), ["XNYS"]) == [("XNYS", 4, 0, 0, 2)]
    assert [day(tx, "XNYS", date(2024, 7, n)) for n in (2, 6)] == before


def test_nothing_outside_the_period_or_the_market_is_touched(tx):
    calendars.fill(tx, date(2024, 7, 1), date(2024, 7, 31), ["XNYS", "XLON"])
    tx.execute("UPDATE market_calendar SET closes_at = closes_at + interval '1 hour'")
    assert calendars.fill(tx, date(2024, 7, 8), date(2024, 7, 12), ["XNYS"])[0][1:] == (0, 5, 0, 0)
    still = tx.execute(
        "SELECT market, count(*) FROM market_calendar "
        " WHERE (closes_at AT TIME ZONE 'UTC')::time IN ('21:00', '18:00', '16:30') GROUP BY market"
    ).fetchall()
    assert dict(still) == {"XNYS": 22 - 5, "XLON": 23}


@pytest.mark.parametrize(("name", "market"), [
    ("NYSE", "XNYS"), ("nasdaq", "XNAS"), ("LSE", "XLON"), ("fx", "FX"), ("TSX", "XTSE"), ("krx", "XKRX"),
    ("SIX", "XSWX"), ("US_futures", "us_futures"), ("crypto", "24/7"),
])
def test_markets_by_their_common_names(tx, name, market):
    calendars.fill(tx, date(2024, 7, 1), date(2024, 7, 1), [name])
    assert tx.execute("SELECT DISTINCT market FROM market_calendar").fetchall() == [(market,)]


def test_names_of_markets_mean_the_same_to_the_database_and_the_runner(tx):
    named = dict(tx.execute("SELECT name, market FROM _tidemark.market_names").fetchall())
    assert {name: calendars.resolve(name) for name in named} == named
    package = exchange_calendars.get_calendar_names(include_aliases=True)
    for name in {*package, *calendars.ALIASES} - set(named):
        assert calendars.resolve(name).upper() == name.upper(), name


@pytest.mark.parametrize(
    ("start", "end", "markets"),
    [
        (date(2024, 1, 1), date(2024, 1, 31), ["XNYS", "MARS"]),
        (date(2016, 1, 1), date(2016, 1, 31), ["AIXK"]),
        (date(2024, 2, 1), date(2024, 1, 31), ["XNYS"]),
        (date(1990, 1, 1), date(1990, 1, 31), ["XNYS"]),
        (date(2024, 1, 1), date(2050, 1, 1), ["XNYS"]),
    ],
    ids=["unknown market", "before the exchange", "reversed", "too early", "too late"],
)
def test_what_cannot_be_generated_is_refused(tx, start, end, markets):
    with pytest.raises(Problem) as problem:
        calendars.fill(tx, start, end, markets)
    assert problem.value.exit_code == 2 and problem.value.hint
    assert tx.execute("SELECT count(*) FROM market_calendar").fetchone() == (0,)


def test_an_unknown_market_is_told_its_neighbours():
    with pytest.raises(Problem) as problem:
        calendars.resolve("XNYC")
    assert "XNYS" in problem.value.hint


def test_every_calendar_of_the_package_is_generated_or_refused_by_name():
    """A week of each: no calendar may fail with somebody else's words."""
    names = exchange_calendars.get_calendar_names(include_aliases=False)
    refused = set()
    for name in names:
        try:
            rows = calendars.generate(calendars.resolve(name), date(2025, 9, 8), date(2025, 9, 12))[1]
        except Problem as problem:
            assert name in problem.message and problem.exit_code == 2 and problem.hint
            refused.add(name)
        else:
            assert any("opens_at" in row for row in rows), name
    pandas_3 = int(pandas.__version__.split(".")[0]) >= 3
    assert refused == (calendars.WRONG_WITH_PANDAS_3 if pandas_3 else set())
    assert len(names) > 60


@pytest.mark.parametrize(("on", "opens"), [
    (date(2020, 8, 19), utc(2020, 8, 19, 5, 30)), (date(2021, 6, 28), utc(2021, 6, 28, 5, 30)),
    (date(2020, 10, 13), None), (date(2021, 4, 6), None), (date(2021, 10, 13), None), (date(2023, 9, 1), None),
    (date(2023, 9, 8), None), (date(2024, 9, 6), None),
])
def test_hong_kong_as_its_exchange_announced_it(tx, on, opens):
    calendars.fill(tx, on, on, ["XHKG"])
    row = day(tx, "XHKG", on)
    assert (row["opens_at"], row["is_holiday"]) == (opens, opens is None)
    corrected = on.isoformat() in {row["date"] for row in calendars.corrections()}
    assert row["origin"] == ("corrected" if corrected else "generated")
    assert row["origin_version"].startswith("HKEX " if corrected else "exchange_calendars ")


def test_a_correction_replaces_a_generated_row_and_is_replaced_by_no_manual_one(tx, add):
    period = date(2023, 9, 1), date(2023, 9, 8)
    add("market_calendar", market="XHKG", date=period[1], holiday_name="by hand")
    add("market_calendar", market="XHKG", date=period[0], opens_at=utc(2023, 9, 1, 1), closes_at=utc(2023, 9, 1, 8),
        origin="generated", origin_version="older")
    assert calendars.fill(tx, *period, ["XHKG"])[0] == ("XHKG", 4, 1, 0, 1)
    assert day(tx, "XHKG", period[0])["holiday_name"] == "Typhoon Saola"
    assert day(tx, "XHKG", period[1])["holiday_name"] == "by hand"
    assert calendars.fill(tx, *period, ["XHKG"])[0] == ("XHKG", 0, 0, 0, 1)


# Where the two packages disagree about a session, and who is right. Times of day are left out: the second package has
# whole markets' hours differently. A new disagreement turns the test red: look it up, correct or explain it here.
EXPLAINED = {
    "XHKG": {
        **dict.fromkeys(["2020-10-13", "2021-04-06", "2021-10-13", "2024-09-06"],
                        "closed, as the first says: typhoons, and the day after Easter Monday"),
        **dict.fromkeys(["2023-09-01", "2023-09-08"], "closed, as the second says: corrected"),
    },
}
PEERS = {"XNYS": "NYSE", "XLON": "LSE", "XTKS": "JPX", "XHKG": "HKEX", "XTSE": "TSX", "XSWX": "SIX", "XSHG": "SSE"}


@pytest.mark.parametrize("market", PEERS)
def test_two_packages_agree_or_it_is_explained(market):
    start, end = date(2018, 1, 1), date(2026, 12, 31)
    ours = {row["date"] for row in calendars.generate(market, start, end)[1] if not row["is_holiday"]}
    theirs = {str(on.date()) for on in pandas_market_calendars.get_calendar(PEERS[market]).valid_days(start, end)}
    corrected = {row["date"] for row in calendars.corrections() if row["market"] == market}
    first = {str(on.date()) for on in exchange_calendars.get_calendar(market, start=start, end=end).sessions}
    assert first ^ theirs == set(EXPLAINED.get(market, {}))
    assert (ours ^ first) <= corrected, "nothing but corrections differs from the first package"


def test_all_markets_or_none(db, monkeypatch):
    """Where the third market fails, the first two are not stored either."""
    generate = calendars.generate

    def failing(market: str, start: date, end: date):
        if market == "XLON":
            raise Problem("broken")
        return generate(market, start, end)

    monkeypatch.setattr(calendars, "generate", failing)
    with db.connect() as connection:
        with pytest.raises(Problem):
            calendars.fill(connection, date(2024, 7, 1), date(2024, 7, 5), ["FX", "XNYS", "XLON"])
        assert connection.execute("SELECT count(*) FROM market_calendar").fetchone() == (0,)


def test_without_exchange_calendars_only_fx_can_be_generated(tx, monkeypatch):
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    assert calendars.fill(tx, date(2024, 7, 1), date(2024, 7, 5), ["FX"])[0].inserted == 5
    with pytest.raises(Problem) as problem:
        calendars.fill(tx, date(2024, 7, 1), date(2024, 7, 5), ["XNYS"])
    assert "tidemark[calendar]" in problem.value.hint


def test_the_default_period_embraces_the_published_one():
    start, end = calendars.default_period()
    assert start <= START and end > datetime.now(UTC).date()
    assert start >= calendars.EARLIEST and end <= calendars.LATEST


# The hourly grid


def test_time_index_says_what_the_date_says(tx):
    calendars.fill(tx, date(2023, 12, 25), date(2024, 3, 3), ["XNYS"])
    found = tx.execute(
        "SELECT timestamp, date_only, year, quarter, month, iso_week, day_of_week, hour, is_weekend, is_month_end "
        "  FROM time_index ORDER BY timestamp"
    ).fetchall()
    assert len(found) == 70 * 24
    for n, row in enumerate(found):
        at = utc(2023, 12, 25) + timedelta(hours=n)
        assert row == (
            at, at.date(), at.year, (at.month + 2) // 3, at.month, at.isocalendar().week, at.isoweekday(), at.hour,
            at.isoweekday() > 5, (at + timedelta(days=1)).day == 1,
        )


def test_time_index_does_not_depend_on_the_session_time_zone(tx):
    tx.execute("SET LOCAL timezone = 'Asia/Kolkata'")
    calendars.fill(tx, date(2024, 7, 1), date(2024, 7, 1), ["XNYS"])
    assert tx.execute("SELECT min(timestamp), max(timestamp), count(*) FROM time_index").fetchone() == (
        utc(2024, 7, 1), utc(2024, 7, 1, 23), 24
    )


def test_trading_days_follow_new_york_and_manual_rows(tx, add):
    def trading() -> list[date]:
        return [on for (on,) in tx.execute(
            "SELECT date_only FROM time_index WHERE is_trading_day GROUP BY 1 HAVING count(*) = 24 ORDER BY 1"
        )]

    week = date(2024, 7, 1), date(2024, 7, 7)
    calendars.fill(tx, *week)
    assert trading() == [date(2024, 7, n) for n in (1, 2, 3, 5)]
    tx.execute("DELETE FROM market_calendar WHERE market = 'XNYS' AND date = '2024-07-02'")
    add("market_calendar", market="XNYS", date=date(2024, 7, 2), is_holiday=True, holiday_name="power cut")
    calendars.fill(tx, *week, ["FX"])
    assert trading() == [date(2024, 7, n) for n in (1, 2, 3, 5)], "only New York moves the grid"
    calendars.fill(tx, *week, ["XNYS"])
    assert trading() == [date(2024, 7, n) for n in (1, 3, 5)]


# Open-market time


def open_time(connection: psycopg.Connection, market: str | None, start: datetime | str, end: datetime | str):
    return connection.execute(
        "SELECT _tidemark.open_time(%s, %s::timestamptz, %s::timestamptz)", [market, start, end]
    ).fetchone()[0]


@pytest.mark.parametrize(
    ("market", "start", "end", "open_for"),
    [
        ("XNYS", utc(2024, 7, 12, 20), utc(2024, 7, 15, 13, 30, 1), timedelta(seconds=1)),  # over a weekend
        ("XNYS", utc(2024, 7, 12, 19), utc(2024, 7, 15, 14), timedelta(minutes=90)),
        ("XNYS", utc(2024, 7, 3, 16), utc(2024, 7, 5, 13, 30), timedelta(hours=1)),  # early close, then a holiday
        ("XNYS", utc(2024, 3, 8, 20), utc(2024, 3, 11, 14), timedelta(minutes=90)),  # over the change of the clocks
        ("XTKS", utc(2024, 7, 16, 2), utc(2024, 7, 16, 4), timedelta(hours=1)),  # over lunch
        ("FX", utc(2024, 7, 12, 20), utc(2024, 7, 14, 22), timedelta(hours=2)),
        ("24/7", utc(2024, 7, 12, 20), utc(2024, 7, 14, 22), timedelta(hours=50)),
        (None, utc(2024, 7, 12, 20), utc(2024, 7, 14, 22), timedelta(hours=50)),
        ("XNYS", utc(2024, 7, 15), utc(2024, 7, 12), timedelta(0)),
    ],
)
def test_open_time(tx, market, start, end, open_for):
    calendars.fill(tx, date(2024, 1, 1), date(2024, 12, 31))
    assert open_time(tx, market, start, end) == open_for


@pytest.mark.parametrize(
    ("market", "start", "end"),
    [
        ("MARS", utc(2024, 7, 1), utc(2024, 7, 2)),
        ("XNYS", utc(2023, 12, 31), utc(2024, 7, 2)),
        ("XNYS", utc(2024, 7, 1), utc(2025, 1, 2)),
        ("XNYS", "-infinity", utc(2024, 7, 1)),
        (None, utc(2024, 7, 1), "infinity"),
        ("XNYS", None, utc(2024, 7, 1)),
    ],
)
def test_open_time_is_unknown_where_the_calendar_does_not_reach(tx, market, start, end):
    calendars.fill(tx, date(2024, 1, 1), date(2024, 12, 31), ["XNYS"])
    assert open_time(tx, market, start, end) is None


@pytest.mark.parametrize("market", ["XNYS", "XTKS", "XHKG"])
def test_open_time_of_a_year(tx, market):
    calendars.fill(tx, date(2024, 1, 1), date(2024, 12, 31), [market])
    calendar = exchange_calendars.get_calendar(market, start="2024-01-01", end="2024-12-31")
    minutes = len(calendar.minutes)  # one for each minute that opens a minute of trading
    assert open_time(tx, market, utc(2024, 1, 1), utc(2025, 1, 1)) == timedelta(minutes=minutes)
