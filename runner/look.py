"""Look at a file before it is loaded: what feeds what, and how its times and numbers are written.

Only what the file's first records make certain is taken from them. Where several readings remain, the file is refused,
with the readings and the option that decides.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from tidemark import columns
from tidemark.columns import DAY, NAMES, OHLC, UNITS, Style, Target, Times, is_clock, is_missing, normal
from tidemark.errors import Problem
from tidemark.formats import DATA, Said, of_texts
from tidemark.readers import Broken, Csv, Melted, Reader, Table, is_unicode, open_file, stem

SAMPLE = 5_000  # records from which a file is understood
PRICES = frozenset((*OHLC, "value", "price", "open_price", "vwap", "bid", "ask"))
WEAK = frozenset(("last", "settle", "settlement", "settleprice", "lastprice", "price"))  # a close if nothing else is
ROLES = ("symbol", "exchange", "interval", "source", "source_id")


@dataclass(frozen=True)
class Layout:
    """How the records of a file are read: which of its names feed what, and how values are written."""

    reader: Reader
    target: Target
    time: tuple[str, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)  # of ROLES
    numbers: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    wide: tuple[str, ...] = ()  # the series of a wide file, and its time
    time_names: tuple[str, ...] = ()
    symbol: str | None = None  # of all records
    times: Times = field(default_factory=Times)
    style: Style = columns.PLAIN
    sample: Table | None = None
    block: tuple[str, ...] = ()

    @property
    def used(self) -> set[str]:
        """The names that say something other than metadata."""
        return {*self.time, *self.roles.values(), *self.numbers.values(), *self.texts.values(), *self.ignored}

    def table(self, batch: Any) -> Table:
        """The records of a batch with a figure of one series in each."""
        table = self.reader.table(batch)
        return Melted(table, self.time_names, self.wide) if self.wide else table

    def extended(self, names: Iterable[str]) -> Layout:
        """The same, with names that only later records of JSON have, for what has no name yet."""
        if self.wide or not self.time or set(names) <= self.used or not self.reader.named:
            return self
        rest = _by_normal(name for name in names if name not in self.used)
        numbers, texts, roles = dict(self.numbers), dict(self.texts), dict(self.roles)
        bars = bool(set(OHLC) & numbers.keys())
        for column, key in sorted(self.target.numbers.items(), key=lambda one: (one[0] == "value") == bars):
            if column not in numbers and (name := _first(rest, NAMES[key])) and (name not in numbers.values()):
                numbers[column] = name
                rest.pop(normal(name), None)
        for role in ROLES:
            if role not in roles and _concerns(self.target, role) and (name := _first(rest, NAMES[role])):
                roles[role] = name
        return replace(self, numbers=numbers, texts=texts, roles=roles)


def look(path: Any, target: Target, said: Said, *, symbol: str | None, interval: str | None) -> Layout:
    """Look at the first records of a file; raises Problem (exit code 2) where it cannot be loaded with certainty."""
    reader = open_file(path, said)
    try:
        with closing(reader.batches(SAMPLE)) as batches:
            batch = next((batch for batch in batches if len(batch)), None)
    except Broken as error:
        raise Problem(f"{path} cannot be read", detail=str(error), exit_code=2) from None
    if batch is None:
        return Layout(reader, target, block=(f"{path.name}: {_form(reader)}; no records",))
    table = reader.table(batch)
    some = batch.raws[:1000]
    other = sum(not is_unicode(raw) for raw in some)
    if other == len(some) or other > max(2, len(some) / 20):
        raise Problem(f"{path} is not {reader.encoding.upper()}", exit_code=2,
                      detail="more than a stray record holds other bytes",
                      hint="name its encoding: --encoding cp1252, shift_jis, gb18030, …")
    if not table.names:
        first = table.rejects[0]
        raise Problem(f"{path} has no readable record", detail=f"record {first.line} {first.reason}", exit_code=2)
    return _Look(reader, table, target, said, symbol, interval).layout()


class _Look:
    """What one file's sample shows."""

    def __init__(self, reader: Reader, table: Table, target: Target, said: Said, symbol: str | None,
                 interval: str | None) -> None:
        self.reader, self.table, self.target, self.said = reader, table, target, said
        self.path, self.interval = reader.path, interval
        self.symbol = symbol
        self.numbers: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.roles: dict[str, str] = {}
        self.time: tuple[str, ...] = ()
        self.ignored: set[str] = set()
        self.notes: list[str] = []
        self.names = _by_normal(name for name in table.usual)
        self.positional = not reader.named or all(re.fullmatch(r"column_\d+", name) for name in table.names)

    def refuse(self, what: str, *, detail: str = "", hint: str = "") -> Problem:
        return Problem(f"{self.path} {what}", detail=detail, hint=hint, exit_code=2)

    # The steps

    def layout(self) -> Layout:
        """All steps in their order."""
        self._say_symbol()
        if self.positional and not self.said.columns:
            self._recognise_rows()
        self._take_said()
        self._find_roles()
        times = self._find_time()
        if self.said.wide:
            return self._wide(times)
        if not self.positional:
            self._find_numbers()
            self._refuse_units()
        self._refuse_repeated()
        self._check_needs()
        style = self._style(self.numbers.values())
        layout = Layout(
            self.reader, self.target, self.time, self.roles, self.numbers, self.texts, frozenset(self.ignored),
            symbol=self.symbol, times=times, style=style, sample=self.table)
        return self._checked(layout)

    def _say_symbol(self) -> None:
        """The symbol that the file, or its name, says of all records."""
        context = self.reader.context.get("symbol")
        if self.said.symbol_from_name:
            if self.symbol or context:
                raise self.refuse("has its symbol already", hint="leave --symbol-from-name out",
                                  detail=f"{self.symbol or context}")
            self.symbol = symbol_of(stem(self.path))
        elif context and self.symbol and context != self.symbol:
            raise self.refuse("says the symbol itself", detail=f"{context}, not {self.symbol}",
                              hint="leave --symbol out")
        else:
            self.symbol = self.symbol or context

    def _column(self, name: str) -> Sequence[Any]:
        return self.table.column(name)

    def _values(self, name: str, most: int = SAMPLE) -> list[Any]:
        return [value for value in self._column(name)[:most] if not is_missing(value)]

    def _recognise_rows(self) -> None:
        """Rows without names: a bundle by its signature, else the one order that bars can have."""
        names = list(self.table.names)
        for bundle, one in DATA["formats"].items():
            signature = one.get("signature")
            if not signature or "fields" not in signature or signature.get("ticks", False) != self.target.several:
                continue
            if self._fits(signature, names):
                if not signature.get("certain", True):
                    raise self.refuse(
                        "can be read in two ways", detail=f"as it stands, or as {one['about']}",
                        hint=f"--format {bundle}, or --columns {one['columns']}")
                options = of_texts({key: value for key, value in one.items() if key not in ("about", "signature")})
                self.said = replace(self.said, columns=options.columns, decimal=self.said.decimal or options.decimal)
                self.notes.append(f"recognised as {bundle}: {one['about']}")
                return
        start = 2 if len(names) > 2 and self._is_day(names[0]) and self._is_clock(names[1]) else 1
        self.time, rest = tuple(names[:start]), names[start:]
        if self.target.sources and len(rest) < 4:
            self.numbers = {"value": rest[0]} if rest else {}
        elif len(rest) >= 4 and not self.target.several and self.target.name != "quotes":
            self.numbers = self._order(rest)
        else:
            raise self.refuse("has no names of columns", detail=f"a record holds {len(names)} values",
                              hint="say by their positions which is which: --columns ts=1,price=2,…")

    def _fits(self, signature: dict[str, Any], names: list[str]) -> bool:
        """Whether all rows look as a bundle says."""
        if len(names) != signature["fields"] or (
                "delimiter" in signature and getattr(self.reader, "delimiter", None) != signature["delimiter"]):
            return False
        first = [str(value).strip() for value in self._column(names[0])]
        if not all(re.fullmatch(signature["time"], value) for value in first):
            return False
        for position in signature.get("whole", ()):
            if not all(re.fullmatch(r"\d+", str(value)) for value in self._column(names[position - 1])):
                return False
        for position in signature.get("flags", ()):
            if not all(str(value).lower() in ("true", "false") for value in self._column(names[position - 1])):
                return False
        if "end" in signature:
            ends = self._column(names[signature["end"] - 1])
            if not all(str(end).isdigit() and int(start) < int(end) for start, end in zip(first, ends, strict=True)):
                return False
        return bool(signature.get("ticks")) or self._bars(
            dict(zip(OHLC, names[2:6] if self._is_clock(names[1]) else names[1:5], strict=True)))

    def _refuse_units(self) -> None:
        """Prices that some source writes in a unit of its own."""
        for bundle, one in DATA["formats"].items():
            marks = one.get("signature", {}).get("names")
            said = self.said.columns or self.said.format == bundle
            if not marks or said or not set(marks) <= set(self.table.names):
                continue
            if one["signature"].get("certain", True):
                self.said = replace(self.said, decimal=self.said.decimal or one.get("decimal"))
                continue
            prices = [value for column in self.numbers.keys() & PRICES for value in self._figures(self.numbers[column])]
            if all(value.is_integer() for value in prices if value == value):
                names = ",".join(map("=".join, self.numbers.items()))
                raise self.refuse("can be read in two ways", detail=f"as it stands, or as {one['about']}",
                                  hint=f"--format {bundle}, or --columns {names}")

    def _figures(self, name: str) -> list[float]:
        default = self.said.decimal
        style = columns.style_of((value for value in self._column(name) if isinstance(value, str)), default)
        return columns.numbers(self._column(name), style or columns.PLAIN)[0]

    def _bars(self, names: dict[str, str]) -> bool:
        """Whether low <= open, close <= high in every row."""
        rows = list(zip(*(self._figures(names[column]) for column in OHLC), strict=True))
        whole = [row for row in rows if all(value == value for value in row)]
        return bool(whole) and all(low <= min(first, last) and max(first, last) <= high
                                   for first, high, low, last in whole)

    def _order(self, rest: list[str]) -> dict[str, str]:
        """The one order in which the figures of a row are a bar."""
        holding: dict[str, dict[str, str]] = {}
        for label, order in DATA["orders"].items():
            if "_" in order and len(rest) < len(order):
                continue
            found = {column: name for column, name in zip(order, rest, strict=False) if column != "_"}
            if set(OHLC) <= found.keys() and self._bars(found) and self._plausible(found, label):
                holding[label] = found
        several = {tuple(sorted(found.items())): label for label, found in holding.items()}
        if len(several) != 1:
            raise self.refuse(
                "has no names of columns, and " + ("no order of a bar fits every row" if not holding
                                                   else "several orders of a bar fit every row"),
                detail="; ".join(f"{label}: {', '.join(found)}" for label, found in holding.items())
                or f"tried {', '.join(DATA['orders'])}",
                hint="say by their positions which is which: --columns ts=1,open=2,high=3,low=4,close=5,volume=6")
        found = {column: name for column, name in next(iter(holding.values())).items() if column in self.target.numbers}
        self.notes.append(f"order of the figures: {', '.join(found)}; no other one keeps low <= open, close <= high")
        return found

    def _plausible(self, found: dict[str, str], label: str) -> bool:
        """Whether what stands beside the prices of an order can be what it says."""
        low, high = self._figures(found["low"]), self._figures(found["high"])
        inside = lambda name: all(  # noqa: E731
            a <= value <= b for a, value, b in zip(low, self._figures(name), high, strict=True) if value == value)
        if "vwap" in found and not inside(found["vwap"]):
            return False
        if "trades" in found and columns.whole_numbers(self._column(found["trades"]))[1]:
            del found["trades"]
        if "volume" in found:
            volume = [value for value in self._figures(found["volume"]) if value == value]
            if any(value < 0 for value in volume):
                return False
            if "vwap" not in found and len(volume) > 2 and inside(found["volume"]) and low != high:
                return False
        opens, closes = self._figures(found["open"]), self._figures(found["close"])
        order = sorted(range(len(opens)), key=lambda n: _sortable(self._column(self.time[0])[n]))
        straight = sum(abs(opens[b] - closes[a]) for a, b in pairwise(order) if opens[b] == opens[b])
        turned = sum(abs(closes[b] - opens[a]) for a, b in pairwise(order) if closes[b] == closes[b])
        return len(opens) < 10 or turned >= straight / 4  # the close before the open would join on much better

    def _take_said(self) -> None:
        """What --columns says."""
        times = {"ts", "time", "timestamp", self.target.time}
        for column, names in self.said.columns.items():
            found = tuple(self._named(name) for name in names)
            if column in times and found:
                self.time = found
            elif column in self.target.numbers and len(found) < 2:
                self.numbers[column] = found[0] if found else ""
            elif column in self.target.texts and len(found) < 2:
                self.texts[column] = found[0] if found else ""
            elif column in ROLES and len(found) < 2:
                self.roles[column] = found[0] if found else ""
            else:
                known = ["ts", *self.target.numbers, *self.target.texts, *ROLES]
                raise Problem(f"--columns cannot feed {column!r} of {self.target.name}", exit_code=2,
                              detail=f"it knows {', '.join(known)}", hint="one name each, but ts=Date+Time")

    def _named(self, text: str) -> str:
        """The column that an option means: by its name, or by its position."""
        names = list(self.table.names)
        if text in self.reader.repeated:
            raise self.refuse(f"has several columns named {text!r}", hint="name it by its position")
        if text in names:
            return text
        alike = self.names.get(normal(text), [])
        if len(alike) == 1 and not text.isdigit():
            return alike[0]
        if text.isdigit() and 1 <= int(text) <= len(names) and (self.reader.named is False or self.positional
                                                                 or isinstance(self.reader, Csv)):
            return names[int(text) - 1]
        raise self.refuse(f"has no column {text!r}", detail=_listed(names), hint="names are as in the file")

    def _find_roles(self) -> None:
        """Symbol, exchange, length and source, where columns say them."""
        if self.positional:
            return
        for role in ROLES:
            if role in self.roles or not _concerns(self.target, role):
                continue
            name = _first(self.names, NAMES[role], taken=self._taken())
            if name is None and role == "symbol" and not self.target.sources and not self.symbol:
                name = next((one for one in (_first(self.names, [key]) for key in NAMES["maybe_symbol"]) if one and all(
                    re.fullmatch(r"[\w.^=/:-]{1,24}", str(value)) for value in self._values(one))), None)
            if name and role == "interval" and not any(columns.interval(str(v)) for v in self._values(name, 50)):
                continue
            if name:
                self.roles[role] = name
        self.roles = {role: name for role, name in self.roles.items() if name}

    def _taken(self) -> set[str]:
        return {*self.time, *self.roles.values(), *self.numbers.values(), *self.texts.values()} - {""}

    # Time

    def _is_day(self, name: str) -> bool:
        """Whether a column holds dates without a time of day."""
        values = self._values(name, 200)
        return bool(values) and all(self._day(value) for value in values)

    @staticmethod
    def _day(value: Any) -> bool:
        found = next(filter(None, (Times(order=order).read(value) for order in ("dmy", "mdy", "ymd"))), None)
        return found is not None and not found.has_clock and columns.unit([value]) is None

    def _is_clock(self, name: str) -> bool:
        values = self._values(name, 200)
        return bool(values) and all(is_clock(str(value)) for value in values)

    def _find_time(self) -> Times:
        """Which column is the time, and how it is written."""
        if not self.time:
            self.time = self._time_columns()
        if not self.time:
            known = f"{self.target.name} knows {', '.join((self.target.time, *self.target.numbers))}, and usual names"
            raise self.refuse("has no time column", detail=f"it has {_listed(self.table.names)}",
                              hint=f"{known}; say it by --columns ts=NAME")
        times = self._written(self.time)
        if times is None:
            example = next(iter(self.table.joined(self.time)), None)
            raise self.refuse(f"has no readable time in {' + '.join(self.time)}", detail=f"for example {example!r}",
                              hint="say how it is written: --time-format '%d/%m/%Y %H:%M', or --columns ts=NAME")
        return times

    def _time_columns(self) -> tuple[str, ...]:
        present = [name for key in NAMES["time"] for name in self.names.get(key, [])]
        if "" in self.table.names and self.table.names[0] == "":
            present.append("")
        present = [name for name in present if normal(name) not in NAMES["end"] and name not in self._taken()]
        pair = _first(self.names, NAMES["day"]), _first(self.names, NAMES["clock"])
        if all(pair) and pair[0] != pair[1] and self._is_day(pair[0]) and self._is_clock(pair[1]):
            return pair
        epochs = [name for name in present if columns.unit(self._values(name)) is not None]
        if {"t", "T"} <= set(epochs):
            ends = [b - a for a, b in zip(*map(self._figures, "tT"), strict=True)]
            if not all(0 < end < 3_000_000_000 for end in ends):
                raise self.refuse("has two columns of times, t and T", detail="T is not the end of the bar from t",
                                  hint="--columns ts=t or --columns ts=T")
            epochs.remove("T")
        texts = [name for name in present if name not in epochs and self._values(name)
                 and any(Times(order=order).read(self._values(name)[0]) for order in ("dmy", "mdy", "ymd"))]
        return tuple((epochs + texts + [name for name in present if name])[:1])

    def _written(self, names: tuple[str, ...]) -> Times | None:
        """How a column of times is written; None where it cannot be read."""
        values = [value for value in self.table.joined(names) if not is_missing(value) and str(value).strip()]
        said = self.said.time_format
        digits = max((len(match[1]) for value in values if (match := re.search(r"[T\s_-](\d{1,9})$", str(value)))),
                     default=6)
        times = Times(digits=digits, zone=self.said.tz)
        if said in UNITS:
            return self._zoned(replace(times, unit=UNITS[said], fixed=True), values, names)
        if said and "%" in said:
            times = replace(times, format=said)
            return self._zoned(times, values, names) if any(map(times.read, values)) else None
        unit = columns.unit(values) if said is None else None
        if unit is not None:
            certain = sorted(Times(unit=unit).instants([value for value in values if 1e8 <= abs(
                columns.epoch(value) or 0) / unit < 4e9])[0])
            middle = certain[len(certain) // 2] if certain else 0
            return self._zoned(replace(times, unit=unit, around=middle), values, names)
        order = said or self._day_order(values, times)
        times = replace(times, order=order)
        if not any(map(times.read, values)):
            return None
        return self._zoned(times, values, names)

    def _day_order(self, values: list[Any], times: Times) -> str | None:
        """The order of day, month and year, where the dates need one."""
        if sum(times.read(value) is None for value in values) * 20 <= len(values):
            return None
        read = {order: [replace(times, order=order).read(value) for value in values] for order in ("dmy", "mdy", "ymd")}
        most = max(sum(found is not None for found in moments) for moments in read.values())
        if most == 0:
            return None
        alone = {order for order, moments in read.items() if any(
            found is not None and all(other[n] is None for key, other in read.items() if key != order)
            for n, found in enumerate(moments))}
        likely = {order: moments for order, moments in read.items() if sum(map(bool, moments)) == most}
        if len(alone) > 1 and len(likely) == 1:
            stray = sum(found is not None for order in alone - likely.keys() for n, found in enumerate(read[order])
                        if next(iter(likely.values()))[n] is None)
            if stray * 20 > len(values):
                likely = {order: read[order] for order in alone}
        different = {tuple(found and found.local for found in moments): order for order, moments in likely.items()}
        if len(different) > 1 and "dmy" in likely and all(re.match(r"\d+\.\d+\.", str(value)) for value in values):
            return "dmy"
        if len(different) > 1:
            ordered = [order for order, moments in likely.items() if self._is_ordered(moments)]
            likely = {ordered[0]: []} if len(ordered) == 1 else likely
            different = {(): ordered[0]} if len(ordered) == 1 else different
        if len(different) > 1:
            example = next(n for n, _ in enumerate(values) if len({m[n] and m[n].local for m in likely.values()}) > 1)
            readings = [f"{_shown(moments[example].local)} ({order})" for order, moments in likely.items()
                        if moments[example]]
            raise self.refuse("has dates of several readings", detail=f"{values[example]} is {' or '.join(readings)}",
                              hint="--time-format " + " or ".join(likely))
        return next(iter(likely))

    def _is_ordered(self, moments: list[Any]) -> bool:
        """Whether each series goes one way in time."""
        symbol = self.roles.get("symbol")
        keys = self._column(symbol) if symbol else [None] * len(moments)
        series: dict[Any, list[int]] = defaultdict(list)
        for key, found in zip(keys, moments, strict=False):
            if found:
                series[key].append(found.local)
        return all(one in (sorted(one), sorted(one, reverse=True)) for one in series.values())

    def _zoned(self, times: Times, values: list[Any], names: tuple[str, ...]) -> Times:
        """The zone of times that do not say theirs."""
        sample = values[:200]
        naive = any(True for found in times.locals(sample) if found is not None) if times.unit is None else any(
            columns.epoch(value) is None for value in sample)
        label = normal(" ".join(names))
        says_utc = "utc" in label or "gmt" in label
        stated = self.reader.context.get("tz")
        if self.said.tz and (not naive or (says_utc and self.said.tz.key not in ("UTC", "Etc/UTC", "GMT"))):
            what = "count from 1970 in UTC" if times.unit else "say their zone themselves"
            raise self.refuse(f"needs no --tz: the times in {' + '.join(names)} {what}", hint="leave --tz out")
        if naive and "local" in label and not (self.said.tz or stated):
            raise self.refuse(f"has local times in {' + '.join(names)}", hint="say where: --tz Europe/Athens",
                              detail=f"for example {values[0]}")
        clocks = any(found and found.has_clock for found in map(times.read, sample))
        if naive and stated and not self.said.tz and clocks:
            self.notes.append(f"the file says its time zone: {stated}")
            return replace(times, zone=ZoneInfo(stated))
        self.zone = "UTC" if not naive else str(self.said.tz) if self.said.tz else \
            "UTC, as the name says" if says_utc else "UTC, since nothing says otherwise (--tz)"
        return times

    zone = ""

    # Figures

    def _find_numbers(self) -> None:
        """Which columns feed the figures."""
        names, target = self.names, self.target
        said = set(self.numbers)
        bars = bool({"open", "high", "low", "close"} & target.numbers.keys()) and target.name != "quotes" and any(
            _first(names, [key for key in NAMES[column] if key not in WEAK], taken=self._taken()) for column in OHLC)
        if not bars and not said and target.name in ("candles", "timeseries_data"):
            names = self.names = self._without_affix(names)
            bars = any(name in names for name in OHLC)
        for column in sorted(target.numbers, key=lambda one: (one == "value") == bars):
            if column in self.numbers:
                continue
            keys = NAMES[target.numbers[column]]
            if column == "value" and bars:
                keys = ["value"]
            if column == "close" and not bars:
                keys = [key for key in keys if key not in WEAK] if target.sources else keys
            name = _first(names, keys, taken=self._taken())
            if column == "close" and name and normal(name) in WEAK:
                self._refuse_rivals(column, [one for key in keys if key in WEAK for one in names.get(key, [])])
            if column == "volume" and target.name != "quotes":
                name = self._volume(name, bars)
            if name is not None:
                self.numbers[column] = name
        for column, key in target.texts.items():
            if column not in self.texts and (name := _first(names, NAMES[key], taken=self._taken())):
                if column == "side" and columns.sides(self._values(name, 500))[1]:
                    continue
                self.texts[column] = name
        self.ignored |= {name for key in NAMES["ignored"] for name in names.get(key, [])} - self._taken()
        if "" in self.table.names and "" not in self._taken():
            self.ignored.add("")
        rest = [name for name in self.table.usual if name not in self._taken() | self.ignored]
        if target.sources and not self.numbers and len(rest) == 1:
            self.numbers["value"] = rest[0]
        self.numbers = {column: name for column, name in self.numbers.items() if name}
        self.texts = {column: name for column, name in self.texts.items() if name}
        if bars or target.name == "candles":
            self._refuse_lookalikes(rest, said)

    def _without_affix(self, names: dict[str, list[str]]) -> dict[str, list[str]]:
        """Names that share what stands before or behind them: AAPL.Open, ('Close', 'AAPL'), BidOpen."""
        known = {key: column for column in (*OHLC, "volume") for key in NAMES[column]
                 if len(key) > 2 and key not in WEAK}
        known |= {key: key for key in NAMES["ignored"]}
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for name in (one for group in names.values() for one in group):
            plain = re.sub(r"[()'\"]", "", name).strip()
            for pattern in (r"(?P<affix>.+?)[._ ,]+(?P<what>[A-Za-z]+)", r"(?P<what>[A-Za-z]+)[._ ,]+(?P<affix>.+)",
                            r"(?P<affix>[Bb]id|[Aa]sk|[Mm]id)(?P<what>[A-Za-z]+)"):
                match = re.fullmatch(pattern, plain)
                if match and normal(match["what"]) in known:
                    found[match["affix"]].setdefault(known[normal(match["what"])], name)
                    break
        whole = {affix: fields for affix, fields in found.items() if "close" in fields}
        if not whole:
            return names
        if len(whole) > 1:
            raise self.refuse(
                "has the bars of several side by side", detail=", ".join(list(whole)[:20]),
                hint="choose one: --columns " + ",".join(
                    f"{column}={name}" for column, name in next(iter(whole.values())).items() if column in OHLC))
        (affix, fields), = whole.items()
        result = {key: [one for one in group if one not in fields.values()] for key, group in names.items()}
        result = {key: group for key, group in result.items() if group}
        for column, name in fields.items():
            result.setdefault(column, []).insert(0, name)
        if re.fullmatch(r"[A-Z0-9][A-Z0-9.^=/-]*", affix) and "symbol" not in self.roles and not self.symbol:
            self.symbol = affix
        return result

    def _volume(self, name: str | None, bars: bool) -> str | None:
        """The column of the volume: of the base currency where there are several, of ticks where there is no other."""
        if name is None and bars:
            units = {key.removeprefix("volume").removeprefix("vol"): group[0] for key, group in self.names.items()
                     if key.startswith("vol") and key not in ("vol", "volume") and group[0] not in self._taken()}
            symbol = self.roles.get("symbol")
            symbols = {str(value) for value in self._values(symbol)} if symbol else {self.symbol or ""}
            base = [one for unit, one in units.items() if unit and all(
                re.split(r"[/_:-]", text.lower())[0] == unit or (len(unit) > 2 and text.lower().startswith(unit))
                for text in symbols)]
            name = base[0] if len(base) == 1 else None
        ticks = _first(self.names, NAMES["tick_volume"], taken=self._taken())
        counts = [name and any(value for value in self._figures(name) if value == value) for name in (name, ticks)]
        if counts[0] or not counts[1]:
            return name
        why = ""
        if name:
            why = f"{name} is zero throughout: "
            self.ignored.add(name)
        self.notes.append(f"{why}{ticks}, the number of ticks, is the volume")
        return ticks

    def _refuse_rivals(self, column: str, rivals: list[str]) -> None:
        rivals = [name for name in dict.fromkeys(rivals) if name not in self._taken() - set(self.numbers.values())]
        if len(rivals) > 1 and len({tuple(map(str, self._column(name))) for name in rivals}) > 1:
            raise self.refuse(f"has several columns for {column}", detail=", ".join(rivals),
                              hint=f"--columns {column}={rivals[0]}, or another")

    def _refuse_lookalikes(self, rest: list[str], said: set[str]) -> None:
        """A column of a bar that nothing feeds, while the file has a name like it: that is not left out silently."""
        for column in (*OHLC, "volume"):
            if column in self.numbers or column in said or column not in self.target.numbers:
                continue
            alike = [name for name in rest if name not in self.ignored and column[:4] in normal(name).replace(
                "volatility", "") and not re.search("adj|prev|change|interest|time", normal(name))]
            if column == "volume":
                alike = [name for name in rest if re.search("vol|turnover|quantity|qty", normal(name))
                         and not re.search("volatility|quote|taker|change", normal(name))]
            if alike:
                raise self.refuse(f"has no column {column}, but {' and '.join(alike)}",
                                  hint=f"--columns {column}={alike[0]}, or --columns {column}= to leave it out")

    def _refuse_repeated(self) -> None:
        for what, name in {**self.numbers, **self.texts, **self.roles, "time": self.time[0]}.items():
            if name in self.reader.repeated and not any(
                    one.isdigit() for one in self.said.columns.get("ts" if what == "time" else what, ())):
                raise self.refuse(f"has several columns with the same name, {name!r}, one of which is the {what}",
                                  hint=f"name it by its position: --columns {what}=N")

    def _check_needs(self) -> None:
        """Refuse a file that lacks a column without which no record can be stored, or that contradicts an option."""
        target = self.target
        hint = f"{target.name} knows {', '.join((target.time, *target.numbers))}, and usual names for them; " \
               f"--columns {target.single}=NAME says which is which; --wide: a column per series"
        needs: list[tuple[str, Any, str]] = [("value", self.numbers, hint)]
        bar = target.name == "candles" or (target.sources and {"open", "high", "low"} & self.numbers.keys())
        if bar and self.numbers:
            needs.append(("close", self.numbers.get("close"), "say which it is: --columns close=NAME"))
        if target.several:
            needs += [("price", self.numbers.get("price"), "--columns price=NAME")]
        if not target.sources:
            needs.append(("symbol", self.roles.get("symbol") or self.symbol,
                          "name it with --symbol or --symbol-from-name, or its column: --columns symbol=NAME"))
        for what, column, hint in needs:
            if not column:
                raise self.refuse(f"has no {what} column", detail=f"it has {_listed(self.table.names)}", hint=hint)

    def _style(self, names: Iterable[str]) -> Style:
        """How the numbers are written."""
        texts = [value for name in names for value in self._column(name)[:1000] if isinstance(value, str)]
        style = columns.style_of(texts, self.said.decimal)
        if style is None:
            signs = {sign for sign in ",." for text in texts if sign in text}
            # Where the comma separates fields, or the values are JSON's, the decimal sign is the point.
            point = getattr(self.reader, "delimiter", ",") == ","
            if signs == {"."} and point:
                style = columns.PLAIN
            else:
                example = next(text for text in texts if "," in text or "." in text)
                sign = "," if "," in example else "."
                raise self.refuse("has numbers of two readings", hint="--decimal , or --decimal .",
                                  detail=f"{example} is {example.replace(sign, '')} or {example.replace(sign, '.')}")
        return replace(style, scale=self.said.price_scale)

    # Wide files, and what is checked at the end

    def _wide(self, times: Times) -> Layout:
        """A column per series."""
        taken = self._taken()
        named = [name for name in self.table.names if name and name not in taken
                 and not re.fullmatch(r"column_\d+", name)]
        fields = {key for column in (*OHLC, "volume") for key in NAMES[column] if len(key) > 2}
        if odd := [name for name in named if any(normal(word) in fields for word in re.split(r"[._ ,()']+", name))]:
            raise self.refuse("is not wide: its columns hold parts of bars", detail=_listed(odd),
                              hint="leave --wide out, and choose by --columns")
        series = tuple(name for name in named if (values := self._values(name, 200)) and sum(
            columns.style_of([str(value)], ".") is not None and re.search(r"\d", str(value)) is not None
            for value in values) * 2 > len(values))
        if not series or "symbol" in self.roles:
            raise self.refuse("is not wide", detail=f"it has {_listed(self.table.names)}", hint="leave --wide out")
        if self.symbol:
            raise self.refuse("has a symbol in each column", hint="leave --symbol out")
        style = self._style(series)
        chosen = set(series)
        left = [name for name in named if name not in chosen]
        melted = Melted(self.table, self.time, series)
        layout = Layout(
            self.reader, self.target, ("time",), {"symbol": "symbol"}, {self.target.single: "value"}, wide=series,
            time_names=self.time, times=times, style=style, sample=melted)
        self.notes.append(f"a column per series: {_listed(series)}" + (f"; left out {_listed(left)}" if left else ""))
        return self._checked(layout)

    def _checked(self, layout: Layout) -> Layout:
        """Compare lengths and keys of the sample, and write down what was found."""
        table = layout.sample
        instants, wrong = layout.times.instants(table.joined(layout.time), table.lines)
        keys = [name for role, name in layout.roles.items() if role != "exchange"]
        series: dict[Any, list[int]] = defaultdict(list)
        for n, (instant, key) in enumerate(zip(instants, zip(*map(table.column, keys), strict=True) if keys
                                               else [()] * len(instants), strict=True)):
            if n not in wrong:
                series[key].append(instant)
        spacing = Counter(b - a for one in series.values() for a, b in pairwise(sorted(set(one))))
        label = _label(spacing)
        if "interval" in self.target.key and not (self.interval or "interval" in self.roles):
            raise self.refuse("has no interval column", hint=f"name it with --interval{f' {label}' if label else ''}",
                              detail=f"its rows are {_apart(spacing)} apart" if spacing else "")
        self._check_spacing(layout, series, spacing)
        self._check_collisions(layout, series)
        return replace(layout, block=tuple(self._block(layout, spacing, label)))

    def _check_spacing(self, layout: Layout, series: dict[Any, list[int]], spacing: Counter) -> None:
        """An interval that is not how far the rows are apart."""
        if self.interval:
            self._check_length(self.interval, spacing)
        elif name := layout.roles.get("interval"):
            keys = [one for role, one in layout.roles.items() if role != "exchange"]
            by_label: dict[str, Counter] = defaultdict(Counter)
            for key, one in series.items():
                if label := columns.interval(str(key[keys.index(name)])):
                    by_label[label].update(b - a for a, b in pairwise(sorted(set(one))))
            for label, one in by_label.items():
                self._check_length(label, one)

    def _check_length(self, label: str, spacing: Counter) -> None:
        length, total = columns.seconds(label) * 1_000_000, sum(spacing.values())
        if not total:
            return
        usual = _label(spacing)
        close = sum(count for step, count in spacing.items() if step < 0.9 * length)
        exact = any(0.9 * length <= step <= 1.1 * length for step in spacing)
        most = max(spacing.values())
        if close * 5 > total or (not exact and usual not in (None, label) and most > 2 and most * 5 > total * 4):
            raise self.refuse(f"does not hold bars of {label}", detail=f"its rows are {_apart(spacing)} apart",
                              hint=f"--interval {usual}" if usual else "say the right --interval")

    def _check_collisions(self, layout: Layout, series: dict[Any, list[int]]) -> None:
        """Records that share a key while only one of them can be stored."""
        if self.target.several:
            return
        total = sum(map(len, series.values()))
        same = total - sum(len(set(one)) for one in series.values()) - (
            len(self.table.raws) - len(set(self.table.raws)))
        trades = self.target.name == "quotes" and not {"bid", "ask", "high"} & self.numbers.keys() and any(
            _first(self.names, NAMES[key]) for key in ("side", "trade_id"))
        sharing = sum(count for one in series.values() for count in Counter(one).values() if count > 1)
        if (trades and same) or (total > 9 and same * 2 > total):
            raise self.refuse(
                f"has {sharing} records with the same {'symbol' if not self.target.sources else 'source'} and instant",
                detail=f"{self.target.name} keeps one per instant",
                hint="these are trades: load --table ticks" if trades else
                "name the column that tells them apart: --columns symbol=NAME")

    def _block(self, layout: Layout, spacing: Counter, label: str | None) -> Iterator[str]:
        """What was found, for people. Columns without names are called by their positions."""
        for line in self._lines(layout, spacing, label):
            yield re.sub(r"\bcolumn_(\d+)\b", r"\1", line) if self.positional else line

    def _lines(self, layout: Layout, spacing: Counter, label: str | None) -> Iterator[str]:
        yield f"{self.path.name}: {_form(self.reader)}"
        if isinstance(self.reader, Csv) and self.reader.preamble:
            yield f"  skipped   {len(self.reader.preamble)} line(s) above: {_listed(self.reader.preamble, 3)}"
        time = layout.time_names or layout.time
        zone = self.zone or layout.times.zone
        yield f"  time      {' + '.join(map(_quoted, time))}, {_written(layout.times)}; zone {zone}"
        roles = [f"{role} <- {name}" for role, name in layout.roles.items() if not layout.wide]
        fed = {**layout.numbers, **layout.texts} if not layout.wide else {}
        lacking = [column for column in self.target.numbers if fed and column not in fed
                   and column in (*OHLC, "volume") and set(OHLC) & fed.keys()]
        yield f"  {'columns':9} " + ", ".join([f"{column} <- {name}" for column, name in fed.items()] + roles) + (
            f"; nothing feeds {', '.join(lacking)}" if lacking else "") if fed else f"  columns   {self.notes.pop()}"
        if layout.symbol:
            yield f"  symbol    {layout.symbol}"
        if layout.style != columns.PLAIN:
            style = layout.style
            thousands = f", thousands {style.thousands}" if style.thousands else ""
            yield f"  numbers   decimal {style.decimal}{thousands}" + (
                f", prices times {style.scale}" if style.scale != 1 else "")
        if spacing:
            yield f"  spacing   {label or _apart(spacing)}" + (f", as {self.interval} bars" if self.interval else "")
        used = layout.used | set(layout.wide) | set(layout.time_names) | {""}
        left = [name for name in self.table.names if name not in used | {""}] if not layout.wide else []
        left += sorted(layout.ignored - {""})
        if left:
            yield f"  {'metadata' if self.target.metadata else 'left out':9} {_listed(left)}"
        for note in self.notes:
            yield f"  note      {note}"


def folds(layout: Layout) -> dict[int, int]:
    """Which pass through a repeated hour the local times of a file mean, by their lines, as far as order shows it.

    Where a series goes forward, its clock goes back once between the two passes. What order does not show is left out.
    """
    if layout.times.zone is None:
        return {}
    repeated: dict[int, bool] = {}
    runs: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    before: dict[Any, int] = {}
    result: dict[int, int] = {}

    def close(key: Any, after: int | None) -> None:
        run, previous = runs.pop(key, []), before.get(key)
        if not run:
            return
        known = [moment for moment in (previous, after) if moment is not None]
        forward = {moment < run[0][1] if moment is previous else moment > run[-1][1] for moment in known}
        if len(forward) != 1:
            return
        (forward,) = forward
        breaks = [n for n, ((_, a), (_, b)) in enumerate(pairwise(run), 1) if (b <= a if forward else b >= a)]
        if len(breaks) == 1:
            for n, (line, _) in enumerate(run):
                result[line] = int((n >= breaks[0]) == forward)

    names = [name for role, name in layout.roles.items() if role != "exchange"]
    with closing(layout.reader.batches(SAMPLE)) as batches:
        for batch in batches:
            table = layout.table(batch)
            keys = list(zip(*map(table.column, names), strict=True)) if names else [()] * len(table.lines)
            moments = layout.times.locals(table.joined(layout.time))
            for line, key, local in zip(table.lines, keys, moments, strict=True):
                if local is None:
                    continue
                quarter = local // 900_000_000
                if quarter not in repeated:
                    repeated[quarter] = layout.times.is_repeated(local)
                if repeated[quarter]:
                    runs[key].append((line, local))
                else:
                    close(key, local)
                    before[key] = local
    for key in list(runs):
        close(key, None)
    return result


def symbol_of(name: str) -> str:
    """The symbol in a file's name: what stands before lengths of bars and dates."""
    while match := re.fullmatch(r"(.+?)[-_ ,]+([\w.]+)", name):
        tail = match[2]
        dates_and_kinds = r"\d{4}|\d{6,8}|\d{1,2}|ohlcv?|candles|bars|klines"
        if not (columns.interval(tail) or re.fullmatch(dates_and_kinds, tail.lower())):
            break
        name = match[1].rstrip("-_ ,")
    return name.strip()


def _by_normal(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by what is compared; of several that differ by case only, the one in small letters first."""
    result: dict[str, list[str]] = defaultdict(list)
    for name in names:
        result[normal(name)].append(name)
    return {key: sorted(group, key=lambda name: not name.islower()) if len(group) > 1 else group
            for key, group in result.items() if key}


def _first(names: dict[str, list[str]], keys: Iterable[str], taken: Iterable[str] = ()) -> str | None:
    return next((name for key in keys for name in names.get(key, ())[:1] if name not in taken), None)


def _concerns(target: Target, role: str) -> bool:
    return {"interval": "interval" in target.key, "source": target.sources, "source_id": target.sources}.get(role, True)


def _sortable(value: Any) -> tuple[int, Any]:
    return (0, float(value)) if columns.epoch(value) is not None else (1, str(value))


def _label(spacing: Counter) -> str | None:
    """The length of bar that rows so far apart have."""
    if not spacing:
        return None
    usual = spacing.most_common(1)[0][0] / 1_000_000
    return next((label for label in columns.INTERVALS if 0.95 * columns.seconds(label) <= usual
                 <= 1.05 * columns.seconds(label) or (label == "1M" and 27 * 86_400 < usual < 32 * 86_400)), None)


def _apart(spacing: Counter) -> str:
    label = _label(spacing)
    step = spacing.most_common(1)[0][0]
    return label or (f"{step / DAY:g} days" if step >= DAY else f"{step / 1_000_000:g} s")


def _form(reader: Reader) -> str:
    encoding = "" if reader.encoding == "utf-8" or reader.form in ("Parquet", "Feather") else f", {reader.encoding}"
    return (f"{reader.container}, " if reader.container else "") + reader.form + encoding


def _written(times: Times) -> str:
    if times.unit:
        return {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}[times.unit] + \
            " since 1970" + ("" if times.fixed else " (each number by its size)")
    return times.format or {"dmy": "day, month, year", "mdy": "month, day, year", "ymd": "year, month, day",
                            None: "dates"}[times.order]


def _quoted(name: str) -> str:
    return name or "the first column, without a name,"


def _shown(local: int) -> str:
    return f"{columns._NAIVE + columns.timedelta(microseconds=local):%d %b %Y}"


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join([*map(str, names[:most]), *(["…"] if len(names) > most else [])])
