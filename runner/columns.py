"""What the columns of a file mean: which one feeds which column of a table, and the numbers and instants in them."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

# Names are compared without regard to case, blanks and punctuation: "Adj Close" is adjclose.
# Where a file has several names of one list, the first in the list is meant.
TIME = ("timestamp", "ts", "datetime", "opentime", "timeopen", "date", "time", "t", "unix", "epoch", "unixtime")
SYMBOL = ("symbol", "ticker", "asset", "sym", "instrument")
EXCHANGE = ("exchange", "venue")
INTERVAL = ("interval", "timeframe", "resolution")
SOURCE = ("source", "sourcename")
SOURCE_ID = ("sourceid",)
OHLC = {
    "open": ("open", "o", "openprice"),
    "high": ("high", "h", "highprice"),
    "low": ("low", "l", "lowprice"),
    "close": ("close", "c", "closeprice"),
}
VOLUME = ("volume", "vol", "v")
VALUE = ("value", "val", "price", "rate", "v")
IGNORED = {"", "adjclose", "adjustedclose", "qualityscore", "isanomaly", "ingestedat"}

INTERVALS = {
    "1m": ("1min", "m1", "minute", "60s"), "5m": ("5min", "m5"), "15m": ("15min", "m15"), "30m": ("30min", "m30"),
    "1h": ("60m", "60min", "h1", "hour", "hourly", "1hour"), "4h": ("240m", "240min", "h4", "4hour"),
    "1d": ("d", "d1", "day", "daily", "1day", "24h"), "1w": ("w", "w1", "week", "weekly", "1week", "7d"),
    "1M": ("mn", "mn1", "month", "monthly", "1mo", "1mon", "1month"),
}
_INTERVAL = {name: label for label, names in INTERVALS.items() for name in (*names, label.lower())} | {"1m": "1m"}

MISSING = {"", ".", "-", "na", "n/a", "#n/a", "nan", "nil", "none", "null"}
NAN = math.nan

Errors = dict[int, str]  # by the index of the record


@dataclass(frozen=True)
class Target:
    """A table that can be loaded: its key, and the number columns with the names they may have in a file."""

    name: str
    key: tuple[str, ...]
    numbers: dict[str, tuple[str, ...]]
    whole: frozenset[str] = frozenset()  # number columns without a fraction
    sources: bool = False  # True: a series is a source; False: it is an asset
    metadata: bool = False  # True: other columns go into metadata; False: they are left out

    @property
    def time(self) -> str:
        """The time column."""
        return self.key[-1]


TARGETS = {target.name: target for target in (
    Target("timeseries_data", ("source_id", "timestamp"), {"value": VALUE, **OHLC, "volume": VOLUME},
           sources=True, metadata=True),
    Target("candles", ("asset_id", "interval", "ts"), {
        **OHLC, "volume": VOLUME,
        "trades": ("trades", "tradecount", "numberoftrades", "count", "n"),
        "vwap": ("vwap", "vw"),
    }, whole=frozenset({"trades"})),
    Target("quotes", ("asset_id", "ts"), {
        "price": ("price", "last", "lastprice", "p"),
        "open_price": ("openprice", "open", "o"),
        "high": ("high", "h", "highprice"),
        "low": ("low", "l", "lowprice"),
        "close": ("close", "c", "previousclose", "prevclose"),
        "volume": VOLUME,
        "bid": ("bid", "bidprice", "b"),
        "ask": ("ask", "askprice", "a"),
        "change_24h": ("change24h", "change", "pricechange"),
        "change_percent_24h": ("changepercent24h", "changepercent", "pricechangepercent", "percentchange"),
    }),
)}


@dataclass(frozen=True)
class Mapping:
    """Which names of a file feed what; None where it has none. `clock` stands beside a `time` that is only a date."""

    time: str | None = None
    clock: str | None = None
    symbol: str | None = None
    exchange: str | None = None
    interval: str | None = None
    source: str | None = None
    source_id: str | None = None
    numbers: dict[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()

    @property
    def used(self) -> set[str]:
        """The names that say something other than metadata."""
        single = (self.time, self.clock, self.symbol, self.exchange, self.interval, self.source, self.source_id)
        return {*(name for name in single if name is not None), *self.numbers.values(), *self.ignored}


def mapping(names: Iterable[str], target: Target) -> Mapping:
    """How the columns of a file with these names are understood.

    A file whose only other column has a name that says nothing (`ratio`) holds its value there.
    """
    left = _normalised(names)
    found = extended(Mapping(), names, target)
    rest = [name for name in left.values() if name not in found.used]
    if target.sources and not found.numbers and len(rest) == 1:
        return replace(found, numbers={"value": rest[0]})
    return found


def extended(known: Mapping, names: Iterable[str], target: Target) -> Mapping:
    """The same, with further names for what the known ones do not say."""
    left = {short: name for short, name in _normalised(names).items() if name not in known.used}

    def take(candidates: Iterable[str]) -> str | None:
        return next((left.pop(name) for name in candidates if name in left), None)

    ignored = known.ignored | {left.pop(name) for name in IGNORED & left.keys()}
    time, clock = known.time, known.clock
    if time is None:
        both = {"date", "time"} <= left.keys() and not set(TIME[:TIME.index("date")]) & left.keys()
        time, clock = take(TIME), take(["time"]) if both else None
    # v is the volume of a bar, and otherwise the value.
    bars = OHLC.keys() & known.numbers.keys() or any(set(candidates) & left.keys() for candidates in OHLC.values())
    order = [column for column in target.numbers if column not in known.numbers]
    order.sort(key=lambda column: (column == "value") == bool(bars))
    return Mapping(
        time=time, clock=clock,
        symbol=known.symbol or take(SYMBOL),
        exchange=known.exchange or take(EXCHANGE),
        interval=known.interval or (take(INTERVAL) if "interval" in target.key else None),
        source=known.source or (take(SOURCE) if target.sources else None),
        source_id=known.source_id or (take(SOURCE_ID) if target.sources else None),
        numbers=known.numbers | {column: name for column in order if (name := take(target.numbers[column]))},
        ignored=ignored,
    )


def _normalised(names: Iterable[str]) -> dict[str, str]:
    """The names by what is compared; of two that are the same then, the first."""
    result: dict[str, str] = {}
    for name in names:
        result.setdefault(re.sub(r"[^a-z0-9]", "", name.lower()), name)
    return result


def interval(text: str) -> str | None:
    """The label of candle_interval that is meant, e.g. 1d by daily; 1m is a minute, 1M a month. None: no such one."""
    text = text.strip()
    return text if text in INTERVALS else _INTERVAL.get(text.lower().replace(" ", ""))


def numbers(column: Sequence[Any]) -> tuple[list[float], Errors]:
    """The values of a column as floats; a missing one is NaN, and so is one in the errors."""
    kinds = set(map(type, column))
    text = "".join(column) if kinds == {str} else ""
    if kinds <= {int, float} or (kinds == {str} and "_" not in text and text.isascii()):
        try:
            result = list(map(float, column))
            if not any(map(math.isinf, result)):
                return result, {}
        except (ValueError, OverflowError):
            pass
    return _each(column, _number, NAN)


def whole_numbers(column: Sequence[Any]) -> tuple[list[float], Errors]:
    """The same for numbers that have no fraction."""
    return _each(column, _whole_number, NAN)


def instants(column: Sequence[Any], unit: int | None) -> tuple[list[int], Errors]:
    """The values of a column as microseconds since 2000-01-01 UTC, PostgreSQL's own count; 0 for one in the errors.

    A text is ISO 8601 (also with / or . in the date), in UTC unless it says otherwise. A number counts from 1970 in
    units of which a second has `unit`; without a unit it is an error.
    """
    if unit and 1_000_000 % unit == 0 and set(map(type, column)) == {int}:
        factor = 1_000_000 // unit
        result = [value * factor - UNIX for value in column]
        if result and min(result) >= FIRST and max(result) <= LAST:
            return result, {}
    with contextlib.suppress(TypeError, ValueError):
        if all(value[4:5] == "-" for value in column):
            return [_micros(instant) for instant in map(datetime.fromisoformat, column)], {}
    return _each(column, lambda value: _instant(value, unit), 0)


def texts(column: Sequence[Any]) -> tuple[list[str], Errors]:
    """The values of a column as names of things."""
    return _each(column, _text, "")


def optional_texts(column: Sequence[Any]) -> tuple[list[str | None], Errors]:
    """The same, and None where there is no name."""
    return _each(column, lambda value: None if value is None or not str(value).strip() else _text(value), None)


def source_ids(column: Sequence[Any]) -> tuple[list[int], Errors]:
    """The values of a column as numbers of sources."""
    return _each(column, _source_id, 0)


def intervals(column: Sequence[Any]) -> tuple[list[str], Errors]:
    """The values of a column as labels of candle_interval."""
    return _each(column, _label, "")


def documents(records: Sequence[dict[str, Any]]) -> tuple[list[bytes | None], Errors]:
    """Records as JSON in UTF-8; None for an empty one."""
    return _each(records, lambda record: _document(record) if record else None, None)


def unit(column: Iterable[Any]) -> int | None:
    """What the numbers of a time column count, as so many per second; None where they are too small, or none at all.

    Seconds, milli-, micro- and nanoseconds since 1970 lie so far apart that each instant from 1973 to 5138 has only
    one reading. An earlier one looks like coarser units, hence the finest unit that is not just a stray number's.
    """
    sizes = [abs(number) for value in column if (number := _epoch(value)) is not None]
    for unit in (10**9, 10**6, 10**3, 1):
        if sum(1e8 <= size / unit < 1e11 for size in sizes) * 20 > len(sizes):
            return unit
    return None


UNIX = 946_684_800_000_000  # microseconds from 1970 to 2000
_NAIVE, _AWARE = datetime(2000, 1, 1), datetime(2000, 1, 1, tzinfo=UTC)


def _micros(instant: datetime) -> int:
    delta = instant - (_AWARE if instant.tzinfo else _NAIVE)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


FIRST, LAST = _micros(datetime.min), _micros(datetime.max)


def _each(column: Sequence[Any], convert: Callable[[Any], Any], blank: Any) -> tuple[list[Any], Errors]:
    result, errors = [], {}
    for index, value in enumerate(column):
        try:
            result.append(convert(value))
        except (ValueError, OverflowError) as error:
            errors[index] = str(error)
            result.append(blank)
    return result, errors


def _number(value: Any) -> float:
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return NAN
    # Python reads 1_000 and the digits of every script; a file that has them does not mean a number.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        pass
    elif not isinstance(value, str) or "_" in value or not value.isascii():
        raise ValueError(f"{_shown(value)} is not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(value)} is not a number") from None
    if math.isinf(number):
        raise ValueError(f"{_shown(value)} is not a finite number")
    return number


def _whole_number(value: Any) -> float:
    number = _number(value)
    if not math.isnan(number) and (not number.is_integer() or abs(number) > 2**53):
        raise ValueError(f"{_shown(value)} is not a whole number")
    return number


def _epoch(value: Any) -> float | int | None:
    """The number that a value is or spells; None where it does not."""
    if isinstance(value, str):
        value = value.strip()
        if value[4:5] == "-" or not _NUMBER.fullmatch(value):
            return None
        return float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


_NUMBER = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]*)?", re.ASCII)


def _instant(value: Any, unit: int | None) -> int:
    if isinstance(value, str):
        value = value.strip()
        if value[4:5] == "-":
            with contextlib.suppress(ValueError):
                return _micros(datetime.fromisoformat(value))
    if value is None or value == "":
        raise ValueError("has no time")
    number = _epoch(value)
    if number is not None and unit is not None:
        scaled = round(number * (1_000_000 / unit)) if isinstance(number, float) else number * 1_000_000 // unit
        if FIRST <= scaled - UNIX <= LAST:
            return scaled - UNIX
    elif number is None or re.fullmatch(r"\d{8}", str(value), re.ASCII):  # 20240131
        # ISO 8601 separates the parts of a date by hyphens, and has no UTC behind it as pandas prints.
        text = re.sub(r"^(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)", _hyphens, str(value)).removesuffix(" UTC")
        with contextlib.suppress(ValueError):
            return _micros(datetime.fromisoformat(text))
    raise ValueError(f"{_shown(value)} is no time")


def _hyphens(date: re.Match[str]) -> str:
    return f"{date[1]}-{date[3]:>02}-{date[4]:>02}"


def _text(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if text is None or (isinstance(text, str) and not text.strip()):
        raise ValueError("is empty")
    if not isinstance(text, str) or "\0" in text or not _is_unicode(text):
        raise ValueError(f"{_shown(value)} is not a name")
    return text.strip()


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can spell."""
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def _source_id(value: Any) -> int:
    text = _text(value)
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise ValueError(f"{_shown(value)} is no source")
    return int(text)


def _label(value: Any) -> str:
    label = interval(_text(value))
    if label is None:
        raise ValueError(f"{_shown(value)} is no interval")
    return label


def _document(record: dict[str, Any]) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cannot be stored as JSON: {error}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
