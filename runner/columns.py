"""What stands in the columns of a file: the tables that they feed, and the numbers, instants and names in them."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tidemark.formats import DATA

NAMES: dict[str, list[str]] = DATA["names"]
INTERVALS: dict[str, list[str]] = DATA["intervals"]
_INTERVAL = {name: label for label, names in INTERVALS.items() for name in (*names, label.lower())} | {"1m": "1m"}
OHLC = ("open", "high", "low", "close")

MISSING = {"", ".", "-", "--", "na", "n/a", "#n/a", "nan", "nil", "none", "null", "nat", "<na>"}
NAN = math.nan

Errors = dict[int, str]  # by the index of the record


@dataclass(frozen=True)
class Target:
    """A table that can be loaded: its key, and its columns with the lists of names that they may have in a file."""

    name: str
    key: tuple[str, ...]  # the time is last
    numbers: dict[str, str]
    whole: frozenset[str] = frozenset()  # number columns without a fraction
    texts: dict[str, str] = field(default_factory=dict)
    sources: bool = False  # True: a series is a source; False: it is an asset
    metadata: bool = False  # True: other columns go into metadata; False: they are left out
    several: bool = False  # True: several rows in one instant

    @property
    def time(self) -> str:
        """The time column."""
        return self.key[-1]

    @property
    def single(self) -> str:
        """The column that holds a series' one figure."""
        return "close" if self.name == "candles" else next(iter(self.numbers))


_BAR = {**{name: name for name in OHLC}, "volume": "volume"}
TARGETS = {target.name: target for target in (
    Target("timeseries_data", ("source_id", "timestamp"), {"value": "value", **_BAR}, sources=True, metadata=True),
    Target("candles", ("asset_id", "interval", "ts"), {**_BAR, "trades": "trades", "vwap": "vwap"},
           whole=frozenset({"trades"})),
    Target("quotes", ("asset_id", "ts"), {
        "price": "quote_price", "open_price": "quote_open", "high": "high", "low": "low", "close": "quote_close",
        "volume": "volume", "bid": "bid", "ask": "ask", "change_24h": "change_24h",
        "change_percent_24h": "change_percent_24h",
    }),
    Target("ticks", ("asset_id", "seq", "ts"), {"price": "trade_price", "quantity": "quantity"},
           texts={"side": "side", "trade_id": "trade_id"}, several=True),
)}


def normal(name: str) -> str:
    """What of a name is compared with the lists of names."""
    name = re.sub(r"^\s*\d+[a-z]?\.\s+", "", re.sub(r"[(\[][^)\]]*[)\]]", "", name) or name)
    return re.sub(r"[\W_]", "", name.lower())


def interval(text: str) -> str | None:
    """The label of candle_interval that is meant, e.g. 1d by daily; 1m is a minute, 1M a month. None: no such one."""
    text = text.strip()
    return text if text in INTERVALS else _INTERVAL.get(text.lower().replace(" ", ""))


_LENGTHS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2_629_746}


def seconds(label: str) -> int:
    """The length of a bar, of a month the mean."""
    return int(label[:-1]) * _LENGTHS[label[-1]]


# Numbers ------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Style:
    """How numbers are written: the decimal sign, and the sign between thousands, if there is one."""

    decimal: str = "."
    thousands: str = ""
    scale: float = 1.0  # of prices


PLAIN = Style()
_GROUPED = {sign: re.compile(rf"[+-]?\d{{1,3}}({re.escape(sign)}\d{{2,3}})*{re.escape(sign)}\d{{3}}", re.ASCII)
            for sign in ",."}
_DRESSED = re.compile(r"([+-]?)\s*(?:[$€£¥₹]|USD|EUR)?\s*([+-]?[\d.,'\u2019\s\u00a0\u202f]*\d(?:[.,]?[eE][+-]?\d+)?)"
                      r"\s*([KMBkmb]?)\s*[%€$£]?")
_SUFFIXES = {"": 0, "k": 3, "m": 6, "b": 9}


def style_of(texts: Iterable[str], default: str | None) -> Style | None:
    """How these numbers are written; None where they do not tell. `default`: the decimal sign where that is known.

    1,234.5 and 0,5 tell, and so does 1.5; 1,234 does not: it is a thousand or one and a bit.
    """
    decimals, thousands, unclear = set(), set(), set()
    for text in texts:
        if not (match := _DRESSED.fullmatch(text.strip())):
            continue
        body = match[2].lstrip("+-")
        signs = [sign for sign in body if sign in ",."]
        if len(set(signs)) == 2:
            decimals.add(signs[-1])
            thousands.add(signs[0])
        elif len(signs) > 1:
            thousands.add(signs[0])
        elif signs:
            before, after = re.split(r"[.,]", body)
            if len(re.match(r"\d*", after)[0]) == 3 and re.fullmatch(r"[1-9]\d{0,2}", before):
                unclear.add(signs[0])
            else:
                decimals.add(signs[0])
    decimals |= {{",": ".", ".": ","}[sign] for sign in thousands}
    if default:
        return Style(default, "," if default == "." else ".")
    if len(decimals) > 1 or (not decimals and unclear == {",", "."}):
        return None
    if decimals:
        (decimal,) = decimals
        return Style(decimal, {",": ".", ".": ","}[decimal] if thousands or unclear - decimals else "")
    return PLAIN if not unclear else None


def numbers(column: Sequence[Any], style: Style = PLAIN) -> tuple[list[float], Errors]:
    """The values of a column as floats; a missing one is NaN, and so is one in the errors."""
    kinds = set(map(type, column))
    text = "".join(column) if kinds == {str} else ""
    if kinds <= {int, float} or (kinds == {str} and style.decimal == "." and "_" not in text and text.isascii()):
        try:
            result = list(map(float, column))
            if not any(map(math.isinf, result)):
                return result, {}
        except (ValueError, OverflowError):
            pass
    return _each(column, lambda value: _number(value, style), NAN)


def whole_numbers(column: Sequence[Any], style: Style = PLAIN) -> tuple[list[float], Errors]:
    """The same for numbers that have no fraction."""
    return _each(column, lambda value: _whole_number(value, style), NAN)


def _each(column: Sequence[Any], convert: Callable[[Any], Any], blank: Any) -> tuple[list[Any], Errors]:
    result, errors = [], {}
    for index, value in enumerate(column):
        try:
            result.append(convert(value))
        except (ValueError, OverflowError) as error:
            errors[index] = str(error)
            result.append(blank)
    return result, errors


def is_missing(value: Any) -> bool:
    """Whether a cell says that it holds nothing."""
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING) or value != value


def _number(value: Any, style: Style = PLAIN) -> float:
    if is_missing(value):
        return NAN
    # Python reads 1_000 and the digits of every script; a file that has them does not mean a number.
    if isinstance(value, str):
        text, power = _undressed(value, style)
        if text is None:
            raise ValueError(f"{_shown(value)} is not a number")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        text, power = value, 0
    elif hasattr(value, "as_tuple"):  # Decimal
        text, power = str(value), 0
    else:
        raise ValueError(f"{_shown(value)} is not a number")
    try:
        number = float(text) * 10**power if power else float(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(value)} is not a number") from None
    if math.isinf(number):
        raise ValueError(f"{_shown(value)} is not a finite number")
    return number


def _undressed(value: str, style: Style) -> tuple[str | None, int]:
    """A number without currency, thousands and K, M or B, and the power of ten that the last means."""
    match = _DRESSED.fullmatch(value.strip())
    if not match or "_" in value or not match[2].isascii() or (match[1] and match[2][0] in "+-"):
        return (value, 0) if value.isascii() and "_" not in value and style.decimal == "." else (None, 0)
    plain = re.sub(r"(?<=\d)['\u2019\s\u00a0\u202f](?=\d{3}(?!\d))", "", match[2])
    whole, decimal, rest = plain.partition(style.decimal)
    other = "," if style.decimal == "." else "."
    if other in whole:
        if style.thousands != other or not _GROUPED[other].fullmatch(whole):
            return None, 0
        whole = whole.replace(other, "")
    return f"{match[1]}{whole}{'.' if decimal else ''}{rest}", _SUFFIXES[match[3].lower()]


def _whole_number(value: Any, style: Style = PLAIN) -> float:
    number = _number(value, style)
    if not math.isnan(number) and (not number.is_integer() or abs(number) > 2**53):
        raise ValueError(f"{_shown(value)} is not a whole number")
    return number


# Instants -----------------------------------------------------------------------------------------------------------

UNIX = 946_684_800_000_000  # microseconds from 1970 to 2000
_NAIVE, _AWARE = datetime(2000, 1, 1), datetime(2000, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _micros(instant: datetime) -> int:
    delta = instant - (_AWARE if instant.tzinfo else _NAIVE)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


FIRST, LAST = _micros(datetime.min), _micros(datetime.max)
SOON = 4_102_444_800  # 2100: no number of a file counts seconds beyond it


def unit(column: Iterable[Any]) -> int | None:
    """What the numbers of a time column count, as so many per second; None where they are too small, or none at all.

    Seconds, milli-, micro- and nanoseconds since 1970 lie so far apart that each instant from 1973 to 5138 has only
    one reading. An earlier one looks like coarser units, hence the finest unit that is not just a stray number's.
    """
    values = list(column)
    if values and all(len(text := str(value).strip()) in _DIGITS and _digits(text) for value in values):
        return None  # 202503030930
    sizes = [abs(number) for value in values if (number := epoch(value)) is not None]
    for unit in (10**9, 10**6, 10**3, 1):
        if sum(1e8 <= size / unit < 1e11 for size in sizes) * 20 > len(sizes):
            return unit
    return None


def epoch(value: Any) -> float | int | None:
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
_DIGITS = {12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}


def _digits(text: str) -> datetime | None:
    """The instant that 12, 14 or 17 digits spell, within a century of today."""
    if not text.isdigit() or not "1900" <= text[:4] <= "2100":
        return None
    with contextlib.suppress(ValueError):
        return datetime.strptime(text, _DIGITS[len(text)])
    return None


_MONTHS = {name: number for number, name in enumerate(
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1)}
_DATE = re.compile(r"""(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?(?:
    (?P<y>\d{4})(?P<s>[-/.\ ])(?P<m>\d{1,2}|[a-z]{3,9})(?P=s)(?P<d>\d{1,2})(?!\d)
  | (?P<n1>\d{1,2})(?P<r>[-/.])(?P<n2>\d{1,2})(?P=r)(?P<n3>\d{4}|\d{2})(?!\d)
  | (?P<d2>\d{1,2})[-/.\ ]?(?P<m2>[a-z]{3,9})\.?[-/,\ ]*(?P<y2>\d{4}|\d{2})(?!\d)
  | (?P<m3>[a-z]{3,9})\.?\ +(?P<d3>\d{1,2}),?\ +(?P<y3>\d{4})
  | (?P<c>[12]\d{7})(?!\d)
)""", re.X | re.I | re.ASCII)
_CLOCK = re.compile(r"""[T,_\s-]\s*(?:
    (?P<h>\d{1,2}):(?P<min>\d{2})(?::(?P<sec>\d{2})(?:[.,:](?P<f>\d{1,9}))?)?\s*(?P<p>[ap]\.?m\.?)?
  | (?P<h2>\d{1,2})[-\s]?(?P<p2>[ap]m)
  | (?P<c>\d{1,9})
)""", re.X | re.I | re.ASCII)
_ZONE = re.compile(r"\s*(?:Z|\(?(?:UTC|GMT)?\)?\s*(?P<o>[+-]\d{2}(?::?\d{2}(?::?\d{2})?)?)?)", re.I | re.ASCII)


@dataclass(frozen=True)
class Moment:
    """An instant as it is written: microseconds since 2000 by its own clock, and by UTC where it says its offset."""

    local: int
    utc: int | None
    has_clock: bool


def moment(text: str, order: str | None = None, clock_digits: int = 6) -> Moment | None:
    """Read a date, or a date with a time of day; None for anything else.

    `order` is that of day, month and year where numbers do not say it (dmy, mdy or ymd); `clock_digits` how many
    digits a time of day without signs has at most: 930 of 4 is half past nine, of 6 nine minutes past midnight.
    """
    match = _DATE.match(text)
    days = match and _day(match, order)
    if days is None:
        return None
    micros, at, has_clock = 0, match.end(), False
    if clock := _CLOCK.match(text, at):
        read = _time_of_day(clock, clock_digits)
        if read is None:
            return None
        micros, at, has_clock = read, clock.end(), True
    zone = _ZONE.fullmatch(text, at)
    if zone is None:
        return None
    local = days * DAY + micros
    if not zone[0].strip():
        return Moment(local, None, has_clock)
    offset = re.sub(":", "", zone["o"] or "+0000").ljust(5, "0")
    east = int(offset[1:3]) * 3600 + int(offset[3:5]) * 60 + int(offset[5:7] or 0)
    return Moment(local, local - (east if offset[0] == "+" else -east) * 1_000_000, has_clock)


def is_clock(text: str) -> bool:
    """Whether this is a time of day alone."""
    text = text.strip()
    match = _CLOCK.fullmatch(f" {text}")
    return match is not None and _time_of_day(match, max(len(text), 6)) is not None


def _day(match: re.Match[str], order: str | None) -> int | None:
    """Days since 2000."""
    if match["c"]:
        year, month, day = match["c"][:4], match["c"][4:6], match["c"][6:]
    elif match["n1"]:
        parts = dict(zip(order or "", (match["n1"], match["n2"], match["n3"]), strict=False))
        if not parts or (len(match["n3"]) == 4 and order[2] != "y"):
            return None
        year, month, day = parts["y"], parts["m"], parts["d"]
    else:
        year, month, day = (match[name] or match[name + "2"] or match[name + "3"] for name in "ymd")
    number = _MONTHS.get(month[:3].lower()) if month.isalpha() else int(month)
    if number is None or (month.isalpha() and not _MONTH_NAME.fullmatch(month)):
        return None
    years = int(year) + (0 if len(year) == 4 else 2000 if int(year) < 69 else 1900)
    try:
        return date(years, number, int(day)).toordinal() - _NAIVE.toordinal()
    except ValueError:
        return None


_MONTH_NAME = re.compile("jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|"
                         "oct(ober)?|nov(ember)?|dec(ember)?", re.I)


def _time_of_day(match: re.Match[str], digits: int) -> int | None:
    """Microseconds since midnight."""
    fraction = match["f"] or ""
    if match["c"]:
        width = 4 if digits <= 4 else 6 if digits <= 6 else 9
        text = match["c"].rjust(width, "0")
        if len(text) > width:
            return None
        hour, minute, second, fraction = text[:2], text[2:4], text[4:6] or 0, text[6:]
    else:
        hour, minute, second = match["h"] or match["h2"], match["min"] or 0, match["sec"] or 0
    half = (match["p"] or match["p2"] or "").lower().replace(".", "")
    hour = int(hour)
    if half and not 1 <= hour <= 12:
        return None
    hour = hour % 12 + (12 if half == "pm" else 0) if half else hour
    if hour > 23 or int(minute) > 59 or int(second) > 59:
        return None
    return ((hour * 60 + int(minute)) * 60 + int(second)) * 1_000_000 + int(fraction[:6].ljust(6, "0") or 0)


@dataclass(frozen=True)
class Times:
    """How the instants of a file are written.

    A number counts from 1970 in units of which a second has `unit`, unless by its size it can only be another; where
    both would do, the one nearer to `around` (microseconds since 2000) is meant. A text is as `moment` reads it, or
    as `format` (strptime's) says. Without an offset of its own it is in `zone`, else UTC. `folds` says by line which
    of two passes through a repeated hour is meant.
    """

    unit: int | None = None
    around: int = 0
    fixed: bool = False
    order: str | None = None
    format: str | None = None
    digits: int = 6
    zone: ZoneInfo | None = None
    folds: dict[int, int] | None = None

    def instants(self, column: Sequence[Any], lines: Sequence[int] = ()) -> tuple[list[int], Errors]:
        """The values of a column as microseconds since 2000-01-01 UTC, PostgreSQL's own count; 0 for an error."""
        if self.unit and 1_000_000 % self.unit == 0 and set(map(type, column)) == {int}:
            factor, low, high = 1_000_000 // self.unit, 10**8 * self.unit, SOON * self.unit
            if column and min(column) >= low and max(column) < high:
                return [value * factor - UNIX for value in column], {}
        if not self.zone and not self.format:
            with contextlib.suppress(TypeError, ValueError):
                if all(value[4:5] == "-" for value in column):
                    return [_micros(instant) for instant in map(datetime.fromisoformat, column)], {}
        result, errors = [], {}
        for index, value in enumerate(column):
            try:
                result.append(self._instant(value, lines[index] if lines else 0))
            except (ValueError, OverflowError) as error:
                errors[index] = str(error)
                result.append(0)
        return result, errors

    def locals(self, column: Sequence[Any]) -> Iterator[int | None]:
        """The instants without an offset of their own, by their own clock; None for the others."""
        for value in column:
            found = self.read(value)
            yield found.local if found and found.utc is None else None

    def read(self, value: Any) -> Moment | None:
        """One value as it is written; None where it cannot be read, or is a number."""
        if isinstance(value, datetime):
            micros = _micros(value.replace(tzinfo=None))
            return Moment(micros, None if value.tzinfo is None else _micros(value), True)
        if isinstance(value, date):
            return Moment((value.toordinal() - _NAIVE.toordinal()) * DAY, None, False)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            return None
        value = value.strip()
        if self.format:
            with contextlib.suppress(ValueError):
                return self.read(datetime.strptime(value, self.format))
            return None
        if value[4:5] == "-":
            with contextlib.suppress(ValueError):
                found = datetime.fromisoformat(value)
                return self.read(found) if len(value) > 10 else self.read(found.date())
        if value.isdigit() and len(value) in _DIGITS:
            return (found := _digits(value)) and self.read(found)
        found = moment(value, self.order, self.digits)
        if found is None and len(value) > 10 and value[8:9] in "T " and value[:8].isdigit():
            with contextlib.suppress(ValueError):
                return self.read(datetime.fromisoformat(value))
        return found

    def _instant(self, value: Any, line: int) -> int:
        if value is None or value == "":
            raise ValueError("has no time")
        number = None if self.format else epoch(value)
        if number is not None and self.unit is not None:
            return self._count(number, value)
        found = self.read(value)
        if found is None:
            raise ValueError(f"{_shown(value)} is no time")
        if found.utc is not None:
            return _within(found.utc, value)
        return self._utc(found.local, line, value) if self.zone else _within(found.local, value)

    def _count(self, number: float | int, value: Any) -> int:
        """The instant that a number since 1970 means."""
        readings = []
        for unit in {self.unit} if self.fixed else (self.unit, *(u for u in UNITS.values() if u != self.unit)):
            scaled = round(number * (1_000_000 / unit)) if isinstance(number, float) else number * 1_000_000 // unit
            certain = 1e8 <= abs(number) / unit < SOON
            if FIRST <= scaled - UNIX <= LAST and (certain or unit == self.unit):
                readings.append((certain, scaled - UNIX))
        if not readings:
            raise ValueError(f"{_shown(value)} is no time")
        if readings[0][0]:
            return readings[0][1]
        return min((micros for _, micros in readings), key=lambda micros: abs(micros - self.around))

    def _utc(self, local: int, line: int, value: Any) -> int:
        """The instant of a local time."""
        naive = _NAIVE + timedelta(microseconds=local)
        first, second = (naive.replace(tzinfo=self.zone, fold=fold).utcoffset() for fold in (0, 1))
        if first != second:
            if first < second:
                raise ValueError(f"{_shown(value)} does not exist in {self.zone.key}: the clock was put forward")
            if self.folds is None or line not in self.folds:
                raise ValueError(f"{_shown(value)} is ambiguous in {self.zone.key}: the clock was put back")
            first = (first, second)[self.folds[line]]
        return _within(local - first // timedelta(microseconds=1), value)

    def is_repeated(self, local: int) -> bool:
        """Whether a local time stands for two instants."""
        naive = _NAIVE + timedelta(microseconds=local)
        first, second = (naive.replace(tzinfo=self.zone, fold=fold).utcoffset() for fold in (0, 1))
        return first > second


def _within(micros: int, value: Any) -> int:
    if not FIRST <= micros <= LAST:
        raise ValueError(f"{_shown(value)} is no time")
    return micros


# Names and what else ------------------------------------------------------------------------------------------------

def texts(column: Sequence[Any]) -> tuple[list[str], Errors]:
    """The values of a column as names of things."""
    return _each(column, _text, "")


def optional_texts(column: Sequence[Any]) -> tuple[list[str | None], Errors]:
    """The same, and None where there is no name."""
    return _each(column, lambda value: None if value is None or not str(value).strip() else _text(value), None)


def sides(column: Sequence[Any]) -> tuple[list[str | None], Errors]:
    """Who struck the trades: buy or sell; None where nothing says so. True means that the buyer had been waiting."""
    return _each(column, _side, None)


def source_ids(column: Sequence[Any]) -> tuple[list[int], Errors]:
    """The values of a column as numbers of sources."""
    return _each(column, _source_id, 0)


def intervals(column: Sequence[Any]) -> tuple[list[str], Errors]:
    """The values of a column as labels of candle_interval."""
    return _each(column, _label, "")


def documents(records: Sequence[dict[str, Any]]) -> tuple[list[bytes | None], Errors]:
    """Records as JSON in UTF-8; None for an empty one."""
    return _each(records, lambda record: _document(record) if record else None, None)


_SIDES = {"buy": "buy", "b": "buy", "bid": "buy", "false": "buy", "sell": "sell", "s": "sell", "ask": "sell",
          "a": "sell", "true": "sell"}


def _side(value: Any) -> str | None:
    if is_missing(value):
        return None
    if (side := _SIDES.get(str(value).strip().lower())) is None:
        raise ValueError(f"{_shown(value)} is neither buy nor sell")
    return side


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
        return json.dumps(record, ensure_ascii=False, allow_nan=False, default=str).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cannot be stored as JSON: {error}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
