"""The one list of records inside a JSON document, as the answers of price services have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidemark.columns import NAMES, Times, epoch, normal, unit
from tidemark.errors import Problem

_SYMBOL = {"symbol", "ticker"}
_TIMES = Times(order="dmy")


def records(path: Path, document: Any) -> tuple[list[Any], dict[str, str], str]:
    """The records, what the document says of all of them (symbol, time zone), and where they are.

    A record is an object or an array with a time. A list of them, an object whose keys are times or symbols, and
    columns that are lists of the same length give records. Raises Problem where there are none, or several lists.
    """
    found = [(where, rows) for where, rows in _lists(document, ()) if rows and any(map(_has_time, rows))]
    found = _one_table(found) if len(found) > 1 else found
    if len(found) != 1:
        raise Problem(
            f"{path} has {'several lists' if found else 'no list'} of records", exit_code=2,
            detail=", ".join(".".join(where) or "the document" for where, _ in found[:5]),
            hint="take the one that you mean out of it, for instance with jq")
    where, rows = found[0]
    return rows, _context(document), ".".join(where) or "the document"


def _lists(part: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    if isinstance(part, list):
        if part and all(isinstance(row, list) for row in part) and _is_header(part[0]):
            yield where, [dict(zip(part[0], row, strict=False)) for row in part[1:]]
        elif part and all(isinstance(row, (dict, list)) for row in part) and any(map(_has_time, part)):
            yield where, part
        else:
            for n, inner in enumerate(part):
                yield from _lists(inner, (*where, str(n)) if len(part) > 1 else where)
        return
    if not isinstance(part, dict):
        return
    columns = _columns(part)
    if columns:
        yield where, columns
        return
    if part and all(_is_time(key) for key in part):  # {"2025-03-03": {…}, …}
        yield where, [{"key": key, **(row if isinstance(row, dict) else {"value": row})} for key, row in part.items()]
        return
    turned = _turned(part)
    if turned:
        yield where, turned
        return
    split = part.get("columns"), part.get("data")
    if isinstance(split[0], list) and isinstance(split[1], list) and all(isinstance(name, str) for name in split[0]):
        index = part.get("index") or [None] * len(split[1])
        yield (*where, "data"), [{"index": key, **dict(zip(split[0], row, strict=False))}
                                 for key, row in zip(index, split[1], strict=False)]
        return
    for key, inner in part.items():
        yield from _lists(inner, (*where, str(key)))


def _columns(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of {"t": [1, 2], "c": [3, 4]}, also where the figures stand deeper than the times, as in Yahoo's."""
    lists = {name: value for name, value in _deep(part) if len(value) > 0}
    times = [name for name, value in lists.items()
             if normal(name) in NAMES["time"] and all(_is_time(one) for one in value[:50])]
    if len(times) != 1:
        return []
    length = len(lists[times[0]])
    fitting = {name: value for name, value in lists.items() if len(value) == length}
    return [dict(zip(fitting, row, strict=True)) for row in zip(*fitting.values(), strict=True)] \
        if len(fitting) > 1 else []


def _deep(part: Any, depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    for name, value in part.items():
        if isinstance(value, list) and not any(isinstance(one, (dict, list)) for one in value):
            yield name, value
        elif depth < 2:
            inner = value[0] if isinstance(value, list) and len(value) == 1 else value
            if isinstance(inner, dict):
                yield from _deep(inner, depth + 1)


def _turned(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of {"close": {"2025-03-03": 1}}: columns that are objects with the same times as keys."""
    inner = {name: value for name, value in part.items() if isinstance(value, dict) and value}
    if len(inner) < 2 or len(inner) != len(part):
        return []
    keys = list(next(iter(inner.values())))
    if not all(list(value) == keys for value in inner.values()) or not all(map(_is_time, keys)):
        return []
    return [{"key": key, **{name: value[key] for name, value in inner.items()}} for key in keys]


def _one_table(found: list[tuple[tuple[str, ...], list[Any]]]) -> list[tuple[tuple[str, ...], list[Any]]]:
    """One list of several: pairs with the same times are columns, and lists below symbols are theirs."""
    wheres, lists = zip(*found, strict=True)
    if all(isinstance(row, list) and len(row) == 2 for rows in lists for row in rows):
        times = [[row[0] for row in rows] for rows in lists]
        if all(one == times[0] for one in times):
            return [(wheres[0][:-1], [
                {"time": time, **{where[-1]: row[1] for where, row in zip(wheres, rows, strict=True)}}
                for time, *rows in zip(times[0], *lists, strict=True)])]
    parents = {where[:-1] for where in wheres}
    keys = [set(rows[0]) for rows in lists if isinstance(rows[0], dict)]
    if len(parents) == 1 and len(keys) == len(lists) and all(one == keys[0] for one in keys):
        return [(next(iter(parents)), [
            {"symbol": where[-1], **row} for where, rows in found for row in rows])]
    return found


def _context(document: Any) -> dict[str, str]:
    """The symbol and the time zone that stand beside the records."""
    result: dict[str, str] = {}
    stack = [document]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack += [inner for inner in part if isinstance(inner, dict)] if len(part) == 1 else []
            continue
        for key, value in part.items():
            if isinstance(value, (dict, list)):
                stack.append(value)
            elif isinstance(value, str) and normal(key) in _SYMBOL:
                result.setdefault("symbol", value)
            elif isinstance(value, str) and normal(key) in ("timezone", "exchangetimezonename") and "/" in value:
                result["tz"] = value
    return result


def _is_header(row: Any) -> bool:
    return isinstance(row, list) and len(row) > 1 and all(isinstance(name, str) for name in row) and \
        not any(map(_is_time, row)) and not any(name.replace(".", "").isdigit() for name in row)


def _has_time(row: Any) -> bool:
    values = row.values() if isinstance(row, dict) else row
    return len(row) > 1 and any(_is_time(value) for value in values if not isinstance(value, (dict, list)))


def _is_time(value: Any) -> bool:
    number = epoch(value)
    return unit([number]) is not None if number is not None else _TIMES.read(value) is not None
