"""The series that the records of a file belong to: sources or assets, found by name and created where missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import psycopg

from tidemark.errors import Problem
from tidemark.statements import blames_record, execute, reason

# A series as a record names it: the source (name or id), the symbol and the exchange; None for what it leaves out.
Key = tuple[str | int | None, str | None, str | None]
# Its id (an integer for a source, 16 bytes for an asset), or a text that says why it has none.
Ids = dict[Key, int | bytes | str]


class Series:
    """Sources (`are_sources`) or assets; what the records leave out is as the caller of the loader says."""

    def __init__(self, conn: psycopg.Connection, *, are_sources: bool, source: str, symbol: str | None,
                 exchange: str | None, asset_type: str, interval: str | None) -> None:
        self.conn, self.are_sources, self.source = conn, are_sources, source
        self.symbol, self.exchange, self.asset_type, self.interval = symbol, exchange, asset_type, interval
        self.known: Ids = {}

    def find(self, keys: set[Key], bars: bool) -> Ids:
        """The ids of these series. `bars`: a source that is created here delivers bars.

        What is created belongs to the caller's transaction: it calls `keep` when that is committed.
        """
        ids = {key: self.known[key] for key in keys & self.known.keys()}
        missing = keys - ids.keys()
        if missing and self.are_sources:
            ids |= self._sources(missing, bars)
        elif missing:
            assets = self._assets(missing)
            ids |= {key: asset.bytes if isinstance(asset, UUID) else asset for key, asset in assets.items()}
        return ids

    def there(self, keys: set[Key]) -> Ids:
        """The ids of those that exist; nothing is created."""
        if self.are_sources:
            names = {key: self._name(key) for key in keys}
            found = self._found_sources(names.values())
            return {key: found[name] for key, name in names.items() if name in found}
        places = {key: (key[1] or self.symbol, key[2] or self.exchange) for key in keys}
        assets = self._found_assets([symbol for symbol, _ in places.values()])
        chosen = {key: _choose(assets, *place) for key, place in places.items()}
        return {key: one.bytes for key, one in chosen.items() if isinstance(one, UUID)}

    def keep(self, ids: Ids) -> None:
        """Remember ids for the next batch."""
        self.known |= {key: value for key, value in ids.items() if not isinstance(value, str)}

    def source_id(self) -> int:
        """The caller's source itself."""
        (found,) = self._sources({(None, None, None)}, bars=True).values()
        if isinstance(found, str):
            raise Problem(f"source {self.source!r} cannot be created", detail=found, exit_code=2)
        return found

    def _sources(self, keys: Iterable[Key], bars: bool) -> dict[Key, int | str]:
        names = {key: self._name(key) for key in keys}
        found = self._found_sources(names.values())
        new = sorted((key for key, name in names.items() if isinstance(name, str) and name not in found), key=str)
        assets = self._assets(key for key in new if key[1] or self.symbol)
        problems = {}
        for key in new:
            asset = assets.get(key)
            problems[key] = asset if isinstance(asset, str) else self._create(
                "create_source", name=names[key], type="ohlcv" if bars else "scalar", asset=asset,
                interval=self.interval)
        if new:
            found = self._found_sources(names.values())
        return {
            key: found.get(name) or problems.get(key) or f"there is no source {name}" for key, name in names.items()
        }

    def _name(self, key: Key) -> str | int:
        """The name of a source, or its number."""
        source, symbol, _ = key
        name = self.source if source is None else source
        return f"{name}:{symbol}" if isinstance(name, str) and symbol is not None else name

    def _found_sources(self, names: Iterable[str | int]) -> dict[str | int, int]:
        wanted = {kind: [name for name in names if isinstance(name, kind)] for kind in (str, int)}
        rows = execute(self.conn, "find_sources", names=wanted[str], ids=wanted[int]).fetchall()
        return dict(rows) | {number: number for _, number in rows}

    def _assets(self, keys: Iterable[Key]) -> dict[Key, UUID | str]:
        places = {key: (key[1] or self.symbol, key[2] or self.exchange) for key in sorted(keys, key=str)}
        symbols = [symbol for symbol, _ in places.values()]
        if not symbols:
            return {}
        found = self._found_assets(symbols)
        problems = {
            place: self._create("create_asset", symbol=place[0], exchange=place[1], type=self.asset_type)
            for place in dict.fromkeys(places.values()) if _choose(found, *place) is None
        }
        if problems:
            found = self._found_assets(symbols)
        return {key: _choose(found, *place) or problems[place] for key, place in places.items()}

    def _found_assets(self, symbols: list[str]) -> dict[tuple[str, str | None], UUID]:
        rows = execute(self.conn, "find_assets", symbols=symbols).fetchall()
        return {(symbol, exchange): asset for symbol, exchange, asset in rows}

    def _create(self, statement: str, **values: Any) -> str:
        """Create one; returns why the database refuses it, if it does."""
        try:
            with self.conn.transaction():
                execute(self.conn, statement, **values)
        except psycopg.Error as error:
            if not blames_record(error):
                raise
            return reason(error)
        return ""


def _choose(found: dict[tuple[str, str | None], UUID], symbol: str, exchange: str | None) -> UUID | str | None:
    """The asset that is meant, None where it is yet to be created, or why it is not clear."""
    if exchange is not None or (symbol, None) in found:
        return found.get((symbol, exchange))
    exchanges = sorted(place for name, place in found if name == symbol)
    if len(exchanges) > 1:
        return f"{symbol} is traded on several exchanges: {', '.join(exchanges)}"
    return found[symbol, exchanges[0]] if exchanges else None
