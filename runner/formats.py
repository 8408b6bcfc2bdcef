"""What the caller says of a file, by options or by a bundle of them that has a name; and the table of bundles."""

from __future__ import annotations

import codecs
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tidemark.config import setting
from tidemark.errors import Problem

DATA = tomllib.loads(resources.files("tidemark").joinpath("formats.toml").read_text())


@dataclass(frozen=True)
class Said:
    """How a file is to be understood, as far as its content does not decide that; empty where nothing was said."""

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)  # what is fed -> names or positions, () by none
    tz: ZoneInfo | None = None
    time_format: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    wide: bool = False
    symbol_from_name: bool = False
    header: bool | None = None
    delimiter: str | None = None
    price_scale: float = 1.0
    format: str | None = None

    @property
    def positions(self) -> bool:
        """Whether all columns are named by their position, so that a header is not needed."""
        names = [name for names in self.columns.values() for name in names]
        return bool(names) and all(name.isdigit() for name in names)

    def key(self) -> list[str]:
        """What tells these options from others that read the same bytes differently."""
        usual = Said()
        return [f"{one.name}={getattr(self, one.name)}" for one in fields(self)
                if one.name != "format" and getattr(self, one.name) != getattr(usual, one.name)]


def said(*, format: str | None = None, **options: Any) -> Said:
    """The options of `load` as text, put over those of a bundle. Raises Problem where one makes no sense."""
    values: dict[str, Any] = {}
    if format is not None:
        known = bundles()
        if format not in known:
            raise Problem(f"unknown format {format!r}", exit_code=2, hint="one of " + ", ".join(sorted(known)))
        values = {name: value for name, value in known[format].items() if name not in ("about", "signature")}
    values |= {name: value for name, value in options.items() if value not in (None, False)}
    return replace(of_texts(values), format=format)


def of_texts(values: dict[str, Any]) -> Said:
    """Options as they are written, each checked."""
    if unknown := values.keys() - {one.name for one in fields(Said)}:
        raise Problem(f"unknown option {sorted(unknown)[0]!r} in a format", exit_code=2)
    values = dict(values)
    if "columns" in values:
        values["columns"] = _columns(values["columns"])
    if "tz" in values:
        try:
            values["tz"] = ZoneInfo(values["tz"])
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise Problem(f"unknown time zone {values['tz']!r}", exit_code=2,
                          hint="a name of the tz database, as Europe/Athens; Etc/GMT+5 is five hours WEST") from None
    if "encoding" in values:
        try:
            codecs.lookup(values["encoding"])
        except LookupError:
            raise Problem(f"unknown encoding {values['encoding']!r}", exit_code=2,
                          hint="for example cp1252, utf-16, shift_jis, gb18030") from None
    if values.get("decimal") not in (None, ",", "."):
        raise Problem(f"{values['decimal']!r} is no decimal sign", hint="--decimal , or --decimal .", exit_code=2)
    time_format = values.get("time_format")
    if time_format and time_format not in TIME_FORMATS and "%" not in time_format:
        raise Problem(f"{time_format!r} is no time format", exit_code=2,
                      hint=f"one of {', '.join(TIME_FORMATS)}, or as strptime takes it: '%d/%m/%Y %H:%M'")
    return Said(**values)


TIME_FORMATS = ("dmy", "mdy", "ymd", "s", "ms", "us", "ns")


def _columns(text: str) -> dict[str, tuple[str, ...]]:
    """`ts=Date+Time,close=5`: what each of the table's columns is fed by; `volume=` by nothing."""
    result = {}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        name, sign, names = part.partition("=")
        if not sign:
            raise Problem(f"{part.strip()!r} does not say which column it feeds", exit_code=2,
                          hint="--columns ts=Datum,close=Schluss, by names or positions")
        result[name.strip().lower()] = tuple(one.strip() for one in names.split("+") if one.strip())
    return result


def bundles() -> dict[str, dict[str, Any]]:
    """The bundles that are shipped, and over them the user's own, of the file that TIDEMARK_FORMATS names."""
    path = Path(setting("TIDEMARK_FORMATS") or "~/.config/tidemark/formats.toml").expanduser()
    if not path.is_file():
        return DATA["formats"]
    try:
        own = tomllib.loads(path.read_text())
        return DATA["formats"] | {name: dict(bundle) for name, bundle in own.get("formats", {}).items()}
    except (OSError, ValueError) as error:
        raise Problem(f"{path} cannot be read", detail=str(error), exit_code=2) from None
