"""Load files of splits into corporate_actions: delimited text with a header, one action a line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import psycopg

from tidemark.errors import Problem

NAMES = {
    "symbol": {"symbol", "ticker", "code"},
    "ex_date": {"ex_date", "exdate", "date", "effective_date", "execution_date"},
    "ratio": {"ratio", "split_ratio", "splitratio", "stock_splits", "split_factor", "split", "splits"},
    "kind": {"kind", "type"},
}
RATIOS = "shares after for each share before: 2, 2:1, 1:10"
KINDS = {"split": "split", "splits": "split", "stock_dividend": "stock_dividend"}


@dataclass(frozen=True)
class Action:
    """A line of a file: `ratio` is shares after for each share before."""

    line: int
    symbol: str
    ex_date: date
    kind: str
    ratio: Decimal


def read(path: Path, symbol: str | None = None) -> list[Action]:
    """The actions in a file; lines with a ratio of 0 or none, as days without a split have, are none.

    A ratio is a number, or two as in 2:1, 2/1, 2-for-1. Raises Problem for what is not certain.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{path} cannot be read", detail=str(error), exit_code=2) from None
    try:
        dialect = csv.Sniffer().sniff(text.partition("\n")[0], ",;\t|")
    except csv.Error:
        raise _refused(path, 1, "a header with a date and a ratio is wanted") from None
    lines = csv.reader(text.splitlines(), dialect)
    header = [re.sub(r"\W+", "_", name.strip()).lower() for name in next(lines, [])]
    places = {field: [i for i, name in enumerate(header) if name in names] for field, names in NAMES.items()}
    for field, found in places.items():
        if len(found) > 1 or (not found and field in ("ex_date", "ratio")):
            raise _refused(path, 1, f"{len(found)} columns can be {field}: {', '.join(header)}")
    if not places["symbol"] and symbol is None:
        raise _refused(path, 1, "no column says which asset", "--symbol says it for the whole file")
    actions = []
    for number, cells in enumerate(lines, start=2):
        row = {field: cells[found[0]].strip() for field, found in places.items() if found and found[0] < len(cells)}
        try:
            ratio = ratio_of(row.get("ratio", ""))
        except ValueError as error:
            raise _refused(path, number, str(error), RATIOS) from None
        if ratio is None:
            continue
        kind = re.sub(r"\W+", "_", row.get("kind") or "split").lower()
        if kind not in KINDS:
            raise _refused(path, number, f"{row['kind']!r} is no kind of action", "split or stock_dividend")
        name = row.get("symbol") or symbol
        if not name:
            raise _refused(path, number, "no symbol")
        actions.append(Action(number, name, _date(path, number, row.get("ex_date", "")), KINDS[kind], ratio))
    return actions


def load(
    connection: psycopg.Connection, paths: Iterable[Path], *, symbol: str | None = None, exchange: str | None = None
) -> dict[Path, int]:
    """Store what files hold, all of them or nothing; returns how many actions are new or changed, by file."""
    files = {path: read(path, symbol) for path in paths}
    with connection.transaction():
        return {path: sum(_store(connection, path, action, exchange) for action in actions)
                for path, actions in files.items()}


def _store(connection: psycopg.Connection, path: Path, action: Action, exchange: str | None) -> bool:
    try:
        with connection.transaction():
            (changed,) = connection.execute(
                "SELECT public.load_corporate_action(%s, %s, %s, %s::public.corporate_action_kind, %s, %s)",
                (action.symbol, exchange, action.ex_date, action.kind, action.ratio, path.name),
            ).fetchone()
    except (psycopg.errors.NoDataFound, psycopg.errors.TooManyRows, psycopg.errors.CheckViolation) as error:
        raise _refused(path, action.line, error.diag.message_primary or "", error.diag.message_hint or "") from None
    return changed


def ratio_of(text: str) -> Decimal | None:
    """Shares after for each share before; None where nothing was split. Raises ValueError for what is no ratio."""
    if not text:
        return None
    parts = re.fullmatch(r"([0-9.]+)(?:\s*(?::|/|-?for-?)\s*([0-9.]+))?", text.strip(), re.I)
    try:
        after, before = (Decimal(part or "1") for part in parts.groups()) if parts else (Decimal("NaN"), Decimal(1))
        ratio = after / before
    except ArithmeticError:
        ratio = Decimal("NaN")
    if ratio.is_nan():
        raise ValueError(f"{text} is no ratio")
    return None if ratio in (0, 1) else ratio


def _date(path: Path, line: int, text: str) -> date:
    try:
        return datetime.fromisoformat(text).date()  # of yfinance, a midnight in the exchange's zone
    except ValueError:
        raise _refused(path, line, f"{text!r} is no date", "YYYY-MM-DD") from None


def _refused(path: Path, line: int, what: str, hint: str = "") -> Problem:
    return Problem(f"{path} line {line}: {what}", hint=hint, exit_code=2)
