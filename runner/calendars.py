"""Market calendars: sessions and holidays from exchange_calendars, FX by its own rule, and the hourly grid.

Where the package is known to be wrong, calendar_corrections.csv has the row with the exchange's own announcement.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from importlib import resources
from importlib.metadata import version
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
from psycopg.types.json import Jsonb

from tidemark.errors import Problem

MARKETS = ("XNYS", "XNAS", "XLON", "XETR", "XTKS", "XHKG", "24/7", "FX")  # filled where nobody names one
# Usual names that exchange_calendars does not know, or knows as another market's.
ALIASES = {"NASDAQ": "XNAS", "XETRA": "XETR", "FOREX": "FX", "CRYPTO": "24/7", "EURONEXT": "XPAR", "SGX": "XSES",
           "KRX": "XKRX", "B3": "BVMF", "JSE": "XJSE", "TWSE": "XTAI", "BIST": "XIST", "BME": "XMAD", "GPW": "XWAR"}
# Of exchange_calendars 4.13.2 with pandas 3: no calendar at all, or one without its special Saturdays (compared with
# pandas 2.3.3 for 2015 to 2026; the other 64 are the same).
WRONG_WITH_PANDAS_3 = {"ASEX", "XBEL", "XBOM", "XBSE", "XCYS", "XMOS", "XTAE"}
GRID_MARKET = "XNYS"  # whose sessions are the trading days of time_index
EARLIEST = date(1997, 1, 1)  # where exchange_calendars' rules for Tokyo begin
LATEST = date(2049, 12, 31)  # where those for Hong Kong, with its lunar holidays, end
FX_ZONE = ZoneInfo("America/New_York")
FX_ROLL = time(17)  # the FX day ends, and the next begins, at 17:00 in New York
FX_VERSION = "FX rule 1"


class Stored(NamedTuple):
    """What filling one market changed; `kept` counts the manual rows in the period, which stay as they are."""

    market: str
    inserted: int
    updated: int
    deleted: int
    kept: int


def default_period() -> tuple[date, date]:
    """From 2000 to the end of next year: as far as the rules can be trusted ahead."""
    return date(2000, 1, 1), date(datetime.now(UTC).year + 1, 12, 31)


def fill(
    connection: psycopg.Connection,
    start: date,
    end: date,
    markets: Sequence[str] = MARKETS,
    progress: Callable[[str], None] = lambda market: None,
) -> list[Stored]:
    """Bring market_calendar up to date for the markets from start to end, both dates included.

    With XNYS among them the hourly grid time_index follows for the same dates. Everything or nothing: one
    transaction. `progress` is called with each market before it is worked on.
    """
    markets = [resolve(market) for market in markets]
    if not EARLIEST <= start <= end <= LATEST:
        raise Problem(
            "the period cannot be generated", detail=f"{start} to {end}",
            hint=f"start before the end, from {EARLIEST} to {LATEST}", exit_code=2,
        )
    results = []
    with connection.transaction():
        for market in dict.fromkeys(markets):
            progress(market)
            origin, rows = generate(market, start, end)
            counts = connection.execute(
                "SELECT inserted, updated, deleted, kept FROM _tidemark.store_calendar(%s, %s, %s, %s, %s)",
                [market, start, end, origin, Jsonb(rows)],
            ).fetchone()
            results.append(Stored(market, *counts))
        if GRID_MARKET in markets:
            progress("time_index")
            connection.execute("SELECT _tidemark.fill_time_index(%s, %s)", [start, end])
    return results


def resolve(name: str) -> str:
    """The code under which market_calendar has a market, by that code or a usual name, in any case."""
    name = ALIASES.get(name.upper(), name.upper())
    if name in MARKETS:
        return name
    package = _package()
    known = {alias.upper(): alias for alias in package.get_calendar_names(include_aliases=True)}
    if name not in known:
        near = get_close_matches(name, [*known, *ALIASES], n=3, cutoff=0.5)
        raise Problem(f"unknown market {name}", exit_code=2,
                      hint=f"did you mean {' or '.join(near)}?" if near else
                      f"a code of exchange_calendars, or one of {', '.join(MARKETS)}")
    return package.resolve_alias(known[name])


def generate(market: str, start: date, end: date) -> tuple[str, list[dict[str, Any]]]:
    """Who generated the rows, and one row for each session and each weekday without one, both dates included.

    Raises Problem (exit code 2) where exchange_calendars is missing, or cannot be believed for the market.
    """
    if market == "FX":
        return FX_VERSION, list(_fx(start, end))
    fixed = {row["date"]: row for row in corrections() if row["market"] == market}
    rows = [fixed.get(row["date"], row) for row in _exchange(market, start, end)]
    return f"exchange_calendars {version('exchange_calendars')}", rows


def corrections() -> list[dict[str, Any]]:
    """The rows of calendar_corrections.csv, as store_calendar() takes them and with their market.

    They only change weekdays, on which a calendar has a row anyhow.
    """
    with resources.files("tidemark").joinpath("calendar_corrections.csv").open(encoding="utf-8", newline="") as file:
        return [
            {**{name: value or None for name, value in row.items()}, "is_holiday": not row["opens_at"],
             "is_early_close": False}
            for row in csv.DictReader(file)
        ]


def _package() -> Any:
    try:
        import exchange_calendars
    except ImportError:
        raise Problem(
            "exchange_calendars is not installed", hint="pip install 'tidemark[calendar]'", exit_code=2
        ) from None
    return exchange_calendars


def _exchange(market: str, start: date, end: date) -> Iterator[dict[str, Any]]:
    package = _package()
    if market in WRONG_WITH_PANDAS_3 and int(version("pandas").split(".")[0]) >= 3:
        raise Problem(
            f"the calendar of {market} cannot be had with pandas {version('pandas')}", exit_code=2,
            detail=f"exchange_calendars {version('exchange_calendars')} gives none, or wrong sessions, with pandas 3",
            hint="pip install 'pandas<3' beside it, or enter the rows by hand (origin manual)",
        )
    # Whole years, because a calendar without a single session is refused.
    try:
        calendar = package.get_calendar(market, start=f"{start.year}-01-01", end=f"{end.year}-12-31")
    except ValueError as error:  # the package says from and until when it knows the market
        raise Problem(f"the calendar of {market} cannot be generated for {start} to {end}", detail=str(error),
                      hint="choose --from and --to inside what is known", exit_code=2) from error
    sessions = {session.date(): times for session, times in calendar.schedule.iterrows()}
    early = {session.date() for session in calendar.early_closes}
    names: dict[date, str] = {}
    if calendar.regular_holidays is not None:
        holidays = calendar.regular_holidays.holidays(f"{start.year}-01-01", f"{end.year}-12-31", return_name=True)
        for day, name in holidays.items():
            names.setdefault(day.date(), name)
    for day in _days(start, end):
        if day in sessions:
            times = sessions[day]
            yield _row(
                day, is_early_close=day in early, opens_at=times["open"], closes_at=times["close"],
                break_starts_at=times["break_start"], break_ends_at=times["break_end"],
            )
        elif day.weekday() < 5:
            yield _row(day, is_holiday=True, holiday_name=names.get(day))  # closures ad hoc have no name


def _fx(start: date, end: date) -> Iterator[dict[str, Any]]:
    """Sunday 17:00 to Friday 17:00 in New York, as one session per trading date; no 25 December, no 1 January."""
    holidays = {(12, 25): "Christmas Day", (1, 1): "New Year's Day"}
    for day in _days(start, end):
        if day.weekday() >= 5:
            continue
        name = holidays.get((day.month, day.day))
        if name:
            yield _row(day, is_holiday=True, holiday_name=name)
        else:
            yield _row(
                day, opens_at=datetime.combine(day - timedelta(days=1), FX_ROLL, FX_ZONE),
                closes_at=datetime.combine(day, FX_ROLL, FX_ZONE),
            )


def _days(start: date, end: date) -> Iterator[date]:
    return (start + timedelta(days=n) for n in range((end - start).days + 1))


def _row(
    day: date, *, is_holiday: bool = False, holiday_name: str | None = None, is_early_close: bool = False,
    **times: datetime,
) -> dict[str, Any]:
    """One row as store_calendar() takes it. Instants carry their offset; pandas' NaT, unequal to itself, is none."""
    return {
        "date": day.isoformat(), "is_holiday": is_holiday, "holiday_name": holiday_name,
        "is_early_close": is_early_close,
        **{name: instant.isoformat() for name, instant in times.items() if instant == instant},
    }
