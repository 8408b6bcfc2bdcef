"""Files of records (CSV, JSON arrays, NDJSON, each plain or gzipped), read in batches of bounded size.

A file is read in chunks, so that memory does not grow with it. A record that cannot be read costs only itself;
where a file breaks off, what came before is still handed out, and then Broken is raised.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

from tidemark.errors import Problem

CHUNK = 1 << 20  # bytes of text that are read at once; also bounds a batch
LONGEST = 16 << 20  # bytes that a line, or an element of an array, may have
QUOTED_LINES = 100  # lines over which a quoted field may go on

# An array in place of an object names its fields by their order.
POINT = ("time", "value")
BAR = ("time", "open", "high", "low", "close", "volume")

Progress = Callable[[int], None]


class Broken(Exception):
    """The file cannot be read beyond this point."""


@dataclass(frozen=True)
class Reject:
    """A record that cannot be stored: its line (in an array: its number), its text, and why."""

    line: int
    raw: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Consecutive records as they stand in the file: lines (or numbers), texts, and values where known already."""

    lines: list[int]
    raws: list[str]
    items: list[Any]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(self.lines[part], self.raws[part], self.items[part])

    def without(self, reasons: Sequence[str | None]) -> tuple[Batch, list[Reject]]:
        """The records for which there is no reason to reject them, and the others."""
        good = [reason is None for reason in reasons]
        rejects = [
            Reject(*record) for record in zip(self.lines, self.raws, reasons, strict=True) if record[2] is not None
        ]
        return Batch(*(list(compress(values, good)) for values in (self.lines, self.raws, self.items))), rejects


class Table:
    """The readable records of a batch by their columns, and the rejects. Most records have the `usual` columns."""

    def __init__(self, batch: Batch, names: Sequence[str], usual: Sequence[str], rejects: list[Reject]) -> None:
        self.lines, self.raws, self.rejects = batch.lines, batch.raws, rejects
        self.names, self.usual = names, usual

    def column(self, name: str) -> Sequence[Any]:
        """One value per record; None (CSV: an empty text) where it has none."""
        raise NotImplementedError

    def others(self, used: set[str]) -> list[dict[str, Any]]:
        """What each record has in other columns than these; empty values are left out."""
        raise NotImplementedError


class _Rows(Table):
    """Records that all have the same columns."""

    def __init__(self, batch: Batch, names: Sequence[str], rejects: list[Reject]) -> None:
        super().__init__(batch, names, names, rejects)
        values = zip(*batch.items, strict=True) if batch.items else [()] * len(names)
        self.columns = dict(zip(names, values, strict=True))

    def column(self, name: str) -> Sequence[str]:
        return self.columns[name]

    def others(self, used: set[str]) -> list[dict[str, str]]:
        names = [name for name in self.names if name not in used]
        rows = zip(*(self.columns[name] for name in names), strict=True)
        return [{name: value for name, value in zip(names, row, strict=True) if value} for row in rows]


class _Objects(Table):
    """Records that each have columns of their own."""

    def __init__(self, batch: Batch, rejects: list[Reject]) -> None:
        counts = Counter(chain.from_iterable(batch.items))
        super().__init__(batch, list(counts), [name for name in counts if counts[name] * 2 > len(batch)], rejects)
        self.objects = batch.items

    def column(self, name: str) -> list[Any]:
        return [record.get(name) for record in self.objects]

    def others(self, used: set[str]) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in record.items() if name not in used and value is not None}
            for record in self.objects
        ]


class Reader:
    """A file of one format. It can be read more than once, each time from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def batches(self, rows: int, skip: int = 0, progress: Progress | None = None) -> Iterator[Batch]:
        """The records after the first `skip`, at most `rows` at a time.

        `progress` hears how many bytes of the file (compressed ones, if it is) were read since it heard last.
        """
        for lines, raws, items in self._blocks(chunks(self.path, progress)):
            for start in range(skip, len(lines), rows):
                yield Batch(lines, raws, items)[start:start + rows]
            skip = max(0, skip - len(lines))

    def table(self, batch: Batch) -> Table:
        """The columns of these records. PostgreSQL stores neither NUL nor what is not UTF-8: rejects."""
        text = "".join(batch.raws)
        if "\0" not in text and _is_utf8(text):
            return self._table(batch, [])
        return self._table(*batch.without([
            "contains a NUL byte" if "\0" in raw else None if _is_utf8(raw) else "is not UTF-8"
            for raw in batch.raws
        ]))

    def _blocks(self, pieces: Iterator[bytes]) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        raise NotImplementedError

    def _table(self, batch: Batch, rejects: list[Reject]) -> Table:
        raise NotImplementedError


class Csv(Reader):
    """A line with the columns' names, then a record per line; a quoted field may go on over several lines."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with closing(_lines(chunks(path))) as blocks:
            numbered = chain.from_iterable(enumerate(lines, first) for first, lines, _ in blocks)
            self.header, line = next((number, line) for number, line in numbered if not _is_blank(line))
        self.delimiter = max(",;\t", key=line.count)
        try:
            self.names = [name.strip() for name in next(self._parse([line]))]
        except csv.Error as error:
            raise Problem(f"{path}: the first line has no column names", detail=str(error), exit_code=2) from None
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise Problem(f"{path}: columns have the same name", detail=", ".join(map(repr, twice)), exit_code=2)

    def _parse(self, records: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(records, delimiter=self.delimiter, skipinitialspace=True, strict=True)

    def _blocks(self, pieces: Iterator[bytes]) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        waiting: list[str] = []
        for first, lines, final in _lines(pieces):
            first, lines = first - len(waiting), waiting + lines
            numbers, raws, used = self._join(first, lines, final)
            waiting = lines[used:]
            yield numbers, raws, raws

    def _join(self, first: int, lines: list[str], final: bool) -> tuple[list[int], list[str], int]:
        """The records in these lines, and how many of the lines they use; the others need their successors."""
        text = "".join(lines)
        if first > self.header and '"' not in text and "" not in lines and not any(map(str.isspace, lines)):
            return list(range(first, first + len(lines))), lines, len(lines)
        numbers, raws, at = [], [], 0
        while at < len(lines):
            raw, used = lines[at], 1
            if '"' in raw and raw.count('"') % 2:
                end = next((n for n in range(at + 1, min(at + QUOTED_LINES, len(lines)))
                            if lines[n].count('"') % 2), None)
                if end is None and not final and len(lines) < at + QUOTED_LINES:
                    break
                # A quote that some later line's quote seems to close may be a stray one: it costs its own line,
                # not those in between, unless all of them make exactly one record.
                joined = "" if end is None else "\n".join(lines[at:end + 1])
                if joined and isinstance(self._fields(joined), list):
                    raw, used = joined, end + 1 - at
            if first + at > self.header and not _is_blank(raw):
                numbers.append(first + at)
                raws.append(raw)
            at += used
        return numbers, raws, at

    def _fields(self, raw: str) -> list[str] | str:
        """The fields of one record, or why it has none."""
        try:
            (fields,) = self._parse([raw])
        except csv.Error as error:
            return f"is not CSV: {error}"
        if len(fields) != len(self.names):
            return f"has {len(fields)} fields where the header has {len(self.names)}"
        return fields

    def _table(self, batch: Batch, rejects: list[Reject]) -> Table:
        try:
            rows: list[list[str] | str] = list(self._parse(batch.raws))
        except csv.Error:
            rows = []
        if len(rows) != len(batch) or not set(map(len, rows)) <= {len(self.names)}:
            rows = [self._fields(raw) for raw in batch.raws]
            batch, more = Batch(batch.lines, batch.raws, rows).without(
                [row if isinstance(row, str) else None for row in rows])
            return _Rows(batch, self.names, rejects + more)
        return _Rows(Batch(batch.lines, batch.raws, rows), self.names, rejects)


class _Json(Reader):
    """Records that are JSON objects, or arrays of a time and figures."""

    def _table(self, batch: Batch, rejects: list[Reject]) -> Table:
        records = list(map(_record, batch.items))
        batch, more = Batch(batch.lines, batch.raws, records).without(
            [record if isinstance(record, str) else None for record in records])
        return _Objects(batch, rejects + more)


class JsonLines(_Json):
    """One record per line (NDJSON)."""

    def _blocks(self, pieces: Iterator[bytes]) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        for first, lines, _ in _lines(pieces):
            kept = [(number, line.strip()) for number, line in enumerate(lines, first) if not _is_blank(line)]
            raws = [line for _, line in kept]
            yield [number for number, _ in kept], raws, raws

    def _table(self, batch: Batch, rejects: list[Reject]) -> Table:
        return super()._table(Batch(batch.lines, batch.raws, list(map(_decoded, batch.raws))), rejects)


class JsonArray(_Json):
    """One array of records."""

    def _blocks(self, pieces: Iterator[bytes]) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        number, text, at = 0, "", 0
        expected, broken = "[", ""  # one of: [ at the start, ? or ] behind [, ? behind a comma, more, nothing
        for piece in chain(pieces, [b""]):
            text, at = text[at:] + decode(piece, final=not piece), 0
            lines, raws, items = [], [], []
            while not broken and (at := _SPACE.match(text, at).end()) < len(text):
                char = text[at]
                if expected == "[" or (expected == "more" and char == ","):
                    expected, at = "? or ]" if expected == "[" else "?", at + 1
                elif expected in ("? or ]", "more") and char == "]":
                    expected, at = "nothing", at + 1
                elif expected in ("more", "nothing"):
                    broken = f"unexpected text behind record {number}"
                else:
                    try:
                        item, end = _DECODER.raw_decode(text, at)
                    except (ValueError, RecursionError) as error:
                        if piece and len(text) - at < LONGEST:
                            break  # it may go on in the next piece
                        broken = f"record {number + 1} is not JSON: {_brief(error)}"
                        continue
                    # 12 may go on as 123 or 12.3 in the next piece
                    if piece and len(text) - at < LONGEST and (end == len(text) or _unfinished(item, text[end])):
                        break
                    number, expected = number + 1, "more"
                    lines.append(number)
                    raws.append(text[at:end])
                    items.append(item)
                    at = end
            yield lines, raws, items
            if broken:
                raise Broken(broken)
        if expected != "nothing":
            raise Broken(f"the array does not end: the file breaks off behind record {number}")


def open_file(path: Path) -> Reader:
    """The reader for a file, chosen by its content; raises Problem where it cannot be read or has no such format."""
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise Problem(f"{path} {what}", exit_code=2)
        with closing(chunks(path)) as pieces:
            start = next(pieces, b"").lstrip()
    except (Broken, OSError) as error:
        raise Problem(f"{path} cannot be read", detail=str(error), exit_code=2) from None
    if not start:
        raise Problem(f"{path} is empty", exit_code=2)
    line, suffixes = start.split(b"\n", 1)[0], [suffix.lower() for suffix in path.suffixes]
    if ".ndjson" in suffixes or ".jsonl" in suffixes:
        return JsonLines(path)
    if start[:1] == b"[":
        return JsonArray(path)
    if start[:1] == b"{" and isinstance(_decoded(_text(line).strip()), dict):
        return JsonLines(path)
    text = b"\0" not in line and _is_utf8(_text(line))
    if start[:1] == b"{" or ".json" in suffixes or not text or len(line) == len(start) >= CHUNK:
        raise Problem(f"{path} has an unknown format", exit_code=2,
                      hint="load takes CSV with a header, a JSON array of records, or one JSON record per line")
    try:
        return Csv(path)
    except Broken as error:
        raise Problem(f"{path} cannot be read", detail=str(error), exit_code=2) from None


def stem(path: Path) -> str:
    """The file's name without .gz and without its own extension."""
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def chunks(path: Path, progress: Progress | None = None) -> Iterator[bytes]:
    """The text of a file, decompressed if need be and without a byte order mark."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if compressed else file
        told, mark = 0, codecs.BOM_UTF8
        while True:
            pieces, size, error = [], 0, None
            try:
                # read1, because read loses what it has when the rest is damaged
                while size < CHUNK and (piece := stream.read1(CHUNK)):
                    pieces.append(piece)
                    size += len(piece)
            except (EOFError, OSError, zlib.error) as problem:
                error = problem
            if progress:
                progress(file.tell() - told)
                told = file.tell()
            if size:
                yield b"".join(pieces).removeprefix(mark)
                mark = b""
            if error:
                raise Broken(f"the compressed file is damaged: {error}" if compressed else str(error))
            if not size:
                return


def escaped(raw: str) -> str:
    """The text of a record as PostgreSQL can store it: what it cannot becomes \\x.., a very long one is cut."""
    text = raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return text if len(text) <= 10_000 else f"{text[:10_000]}… ({len(text)} characters)"


def _lines(pieces: Iterator[bytes]) -> Iterator[tuple[int, list[str], bool]]:
    """Blocks of whole lines: the number of the first, the lines, and whether they are the last ones."""
    number, rest, broken = 1, b"", None
    try:
        for piece in pieces:
            whole, newline, tail = piece.rpartition(b"\n")
            if not newline:
                rest += piece
                if len(rest) > LONGEST:
                    raise Broken(f"line {number} is longer than {LONGEST >> 20} MiB")
                continue
            lines = _text(rest + whole + newline).split("\n")[:-1]
            rest = tail
            yield number, lines, False
            number += len(lines)
    except Broken as error:
        rest, broken = b"", error
    yield number, [_text(rest)] if rest else [], True
    if broken:
        raise broken


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _is_blank(line: str) -> bool:
    return not line or line.isspace()


def _is_utf8(text: str) -> bool:
    """False for text that was decoded from something else."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


# Python writes NaN into JSON where it should write null; integers have no bound there, but floats do.
_DECODER = json.JSONDecoder(
    strict=False,
    parse_int=lambda digits: int(digits) if len(digits) < 400 else float(digits),
    parse_constant=lambda name: None if name == "NaN" else float(name.replace("Infinity", "inf")),
)
_SPACE = re.compile(r"[ \t\n\r]*")


class _NotJson(str):
    """Why a text is not JSON, in place of its value."""


def _decoded(raw: str) -> Any:
    """The value of one line of JSON."""
    try:
        item, end = _DECODER.raw_decode(raw)
    except (ValueError, RecursionError) as error:
        return _NotJson(f"is not JSON: {_brief(error)}")
    return item if end == len(raw) else _NotJson("is not JSON: more than one value on the line")


def _unfinished(item: Any, following: str) -> bool:
    return isinstance(item, (int, float)) and following in ".eE+-"


def _record(item: Any) -> dict[str, Any] | str:
    """The columns of a value, or why it is no record."""
    if isinstance(item, dict):
        return item
    if isinstance(item, list) and len(item) > 1:
        names = BAR if len(item) >= len(BAR) - 1 else POINT
        more = (f"column_{number}" for number in range(len(names) + 1, len(item) + 1))
        return dict(zip(chain(names, more), item, strict=False))
    return item if isinstance(item, _NotJson) else "is neither an object nor an array of a time and figures"


def _brief(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
