"""Files of records (delimited text, JSON, Parquet, Feather, plain or compressed), read in batches of bounded size.

A file is read in chunks, so that memory does not grow with it. A record that cannot be read costs only itself;
where a file breaks off, what came before is still handed out, and then Broken is raised.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

from tidemark import documents
from tidemark.columns import NAMES, Times, is_missing, normal, style_of
from tidemark.errors import Problem
from tidemark.formats import Said

CHUNK = 1 << 20  # bytes of text that are read at once; also bounds a batch
LONGEST = 16 << 20  # characters that a line, or an element of an array, or a document, may have
QUOTED_LINES = 100  # lines over which a quoted field may go on
HEAD = 1 << 16  # characters by which the form of a text is told

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

    lines: Sequence[int]
    raws: Sequence[str]
    items: Sequence[Any]

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

    def joined(self, names: Sequence[str]) -> Sequence[Any]:
        """A column, or the texts of several with a blank between them."""
        if len(names) == 1:
            return self.column(names[0])
        return [" ".join(str(part).strip() for part in parts if not is_missing(part))
                for parts in zip(*map(self.column, names), strict=True)]


class _Rows(Table):
    """Records that all have the same columns."""

    def __init__(self, batch: Batch, names: Sequence[str], rejects: list[Reject]) -> None:
        super().__init__(batch, names, names, rejects)
        values = zip(*batch.items, strict=True) if batch.items else [()] * len(names)
        self.columns = dict(zip(names, values, strict=True))

    def column(self, name: str) -> Sequence[Any]:
        return self.columns[name]

    def others(self, used: set[str]) -> list[dict[str, Any]]:
        names = [name for name in self.names if name not in used and name]
        rows = zip(*(self.columns[name] for name in names), strict=True)
        return [{name: value for name, value in zip(names, row, strict=True) if value not in (None, "")}
                for row in rows] if names else [{}] * len(self.lines)


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


class Melted(Table):
    """A table with a column per series, as one with a row per series: its time, the series' name, the figure."""

    def __init__(self, table: Table, time: Sequence[str], series: Sequence[str]) -> None:
        cells = [(n, name, value) for name in series for n, value in enumerate(table.column(name))
                 if not is_missing(value)]
        cells.sort(key=lambda cell: cell[0])
        rows, times = [n for n, _, _ in cells], table.joined(time)
        super().__init__(Batch([table.lines[n] for n in rows], [table.raws[n] for n in rows], ()),
                         ("time", "symbol", "value"), ("time", "symbol", "value"), table.rejects)
        self.columns = {"time": [times[n] for n in rows], "symbol": [name for _, name, _ in cells],
                        "value": [value for _, _, value in cells]}

    def column(self, name: str) -> Sequence[Any]:
        return self.columns[name]

    def others(self, used: set[str]) -> list[dict[str, Any]]:
        return [{}] * len(self.lines)


class Reader:
    """A file of one format. It can be read more than once, each time from its beginning."""

    container = ""  # what the file is packed in
    form = ""  # what the file is, for people
    named = True  # whether its columns have names
    context: dict[str, str]  # what the file says of all records
    repeated: frozenset[str] = frozenset()  # names of several columns

    def __init__(self, path: Path, said: Said | None = None) -> None:
        self.path, self.said, self.context = path, said or Said(), {}
        self.encoding = self.said.encoding or "utf-8"

    def batches(self, rows: int, skip: int = 0, progress: Progress | None = None) -> Iterator[Batch]:
        """The records after the first `skip`, at most `rows` at a time.

        `progress` hears how many bytes of the file (compressed ones, if it is) were read since it heard last.
        """
        for lines, raws, items in self._blocks(progress):
            for start in range(skip, len(lines), rows):
                yield Batch(lines, raws, items)[start:start + rows]
            skip = max(0, skip - len(lines))

    def table(self, batch: Batch) -> Table:
        """The columns of these records. PostgreSQL stores neither NUL nor what is not Unicode: rejects."""
        text = "".join(batch.raws)
        if "\0" not in text and is_unicode(text):
            return self._table(batch, [])
        wrong = f"is not {self.encoding.upper()}"
        return self._table(*batch.without([
            "contains a NUL byte" if "\0" in raw else None if is_unicode(raw) else wrong for raw in batch.raws
        ]))

    def _texts(self, progress: Progress | None) -> Iterator[str]:
        return texts(self.path, self.encoding, progress)

    def _blocks(self, progress: Progress | None) -> Iterator[tuple[Sequence[int], Sequence[str], Sequence[Any]]]:
        raise NotImplementedError

    def _table(self, batch: Batch, rejects: list[Reject]) -> Table:
        raise NotImplementedError


class Csv(Reader):
    """A record per line, below a line with the columns' names or without; a quoted field may span several lines."""

    def __init__(self, path: Path, said: Said | None = None, encoding: str | None = None) -> None:
        super().__init__(path, said)
        self.encoding = encoding or self.encoding
        self.names: list[str] = []
        self.preamble: list[str] = []
        with closing(texts(path, self.encoding)) as pieces:
            head = ""
            while len(head) < HEAD and (piece := next(pieces, "")):
                head += piece
        lines = head.split("\n")
        numbered = [(n, line) for n, line in enumerate(lines[:-1] if len(head) >= HEAD else lines, 1)
                    if not _is_blank(line)]
        if not numbered:
            raise Problem(f"{path} is empty", exit_code=2)
        self._understand(numbered)

    def _understand(self, lines: list[tuple[int, str]]) -> None:
        """Tell delimiter, preamble and header by the first lines."""
        self.delimiter, self.header, comment = self.said.delimiter or "", 0, None
        while lines and (mark := re.fullmatch(r"sep=(.)|#(.*)", lines[0][1].strip())):
            self.header, text = lines.pop(0)
            self.delimiter = self.delimiter or mark[1] or ""
            comment = mark[2] if mark[2] is not None else comment
            self.preamble.append(text.strip())
        self.delimiter = self.delimiter or self._delimiter([line for _, line in lines])
        numbers, raws, _ = self._join(0, [line for _, line in lines], True)
        rows = [(lines[n][0], fields) for n, raw in zip(numbers, raws, strict=True)
                if isinstance(fields := self._fields(raw), list)]
        if not rows:
            raise Problem(f"{self.path}: the first line has no column names", exit_code=2)
        width = max(Counter(len(fields) for _, fields in rows).items(), key=lambda one: (one[1], one[0]))[0]
        width = max(width, len(rows[0][1])) if width == 1 else width  # lines of one field are no table
        data = next((n for n, (_, fields) in enumerate(rows) if len(fields) == width and _is_data(fields)), None)
        above = rows[:1] if data is None else rows[:data]
        titles = [row for row in above if len(row[1]) > 1 or width == 1]
        number, names = next((row for row in titles if len(row[1]) == width), titles[0] if titles else (0, []))
        if not titles and comment and len(parts := self._fields(comment)) == width and not _is_data(parts):
            names = parts
        elif titles and (levels := self._levels([row[1] for row in titles], width)):
            number, names = titles[-1][0], levels
        self.preamble += [" ".join(fields).strip() for n, fields in above if n < number or not names]
        self.header = max([self.header, number, *(n for n, _ in above if not names)])
        self._name(names, width, [fields for _, fields in rows[data or 0:] if len(fields) == width])

    def _levels(self, titles: list[list[str]], width: int) -> list[str] | None:
        """The names of a file as pandas writes columns of two levels: what, then whose, then the index's name."""
        last, above = titles[-1], [row for row in titles[:-1] if len(row) == width]
        if not above or len(last) != width or any(last[1:]) or normal(last[0]) not in NAMES["time"]:
            return None
        whose = above[1][1:] if len(above) > 1 else []
        if len(set(whose)) > 1:
            return [last[0], *map(" ".join, zip(above[0][1:], whose, strict=True))]
        self.context = {"symbol": whose[0]} if whose else {}
        return [last[0], *above[0][1:]]

    def _delimiter(self, lines: list[str]) -> str:
        """The sign that cuts most lines into equally many fields, more than one."""
        lines, best = [re.sub('"[^"]*"', '""', line) for line in lines[:200]], (0.0, ",")
        for sign in "\t;|,":
            counts = Counter(line.count(sign) for line in lines)
            most, share = max(((count, n) for count, n in counts.items() if count), default=(0, 0),
                              key=lambda one: one[1])
            if not (most and (sign in lines[0] or share > 0.8 * len(lines) or not set("\t;|,") & set(lines[0]))):
                continue
            if share / len(lines) > best[0] + 0.2:
                best = share / len(lines), sign
        if best[0] == 0 and sum(" " in line.strip() for line in lines) * 2 > len(lines):
            return " "
        return best[1]

    def _name(self, names: list[str], width: int, rows: list[list[str]]) -> None:
        """Give each field a name; refuse where there are more fields than names."""
        names = [name.strip() for name in names]
        if self.said.positions or self.said.header is False:
            names = names if len(names) == width else []
        if names and len(names) < width and all(_is_blank(value) for fields in rows for value in fields[len(names):]):
            names += [""] * (width - len(names))
        if names and len(names) > width and not any(names[width:]):
            names = names[:width]
        if names and len(names) != width and len(rows) > 1 and _is_data(rows[0]):
            raise Problem(
                f"{self.path}: the records have {width} fields where the header has {len(names)}", exit_code=2,
                detail=f"header {_start(self.delimiter.join(names))}; "
                       f"first record {_start(self.delimiter.join(rows[0]))}",
                hint="say by their positions which is which: --columns ts=1,open=2,…",
            )
        self.named = bool(names)
        counts = Counter(names)
        self.repeated = frozenset(name for name in counts if name and counts[name] > 1)
        seen: set[str] = set()
        for position, name in enumerate(names or [""] * width, 1):
            is_own = name not in seen and names and (name or position == 1)
            unique = name if is_own else f"{name or 'column'}_{position}"
            seen.add(unique)
            self.names.append(unique)
        sign = {"\t": "tabs", " ": "blanks"}.get(self.delimiter, f'"{self.delimiter}"')
        self.form = f"text, separated by {sign}, " + ("with names" if names else "no names")

    def _parse(self, records: Iterable[str]) -> Iterator[list[str]]:
        return csv.reader(records, delimiter=self.delimiter, skipinitialspace=True, strict=True)

    def _blocks(self, progress: Progress | None) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        waiting: list[str] = []
        for first, lines, final in _lines(self._texts(progress)):
            first, lines = first - len(waiting), waiting + lines
            numbers, raws, used = self._join(first, lines, final)
            waiting = lines[used:]
            yield numbers, raws, raws

    def _join(self, first: int, lines: list[str], final: bool) -> tuple[list[int], list[str], int]:
        """The records in these lines, and how many of the lines they use; the others need their successors."""
        text = "".join(lines)
        if first > self.header and '"' not in text and "" not in lines and not any(map(str.isspace, lines)):
            return list(range(first, first + len(lines))), lines, len(lines)
        if not self.names:
            first = 0
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
            if (first + at > self.header or not self.names) and not _is_blank(raw):
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
        if self.names and len(fields) != len(self.names):
            return f"has {len(fields)} fields where the others have {len(self.names)}"
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


_DATES = Times(order="dmy"), Times(order="mdy")


def _is_data(fields: Sequence[str]) -> bool:
    """Whether a row holds figures or instants, as no header does."""
    return any(
        (style_of([field], ".") and re.fullmatch(r"\W*\d[\d.,'\s]*[KMB%]?\W*", field.strip()))
        or any(times.read(field) for times in _DATES) for field in fields if field.strip()
    )


class _Json(Reader):
    """Records that are JSON objects, or arrays."""

    form = "JSON"

    def _table(self, batch: Batch, rejects: list[Reject]) -> Table:
        records = list(map(_record, batch.items))
        batch, more = Batch(batch.lines, batch.raws, records).without(
            [record if isinstance(record, str) else None for record in records])
        return _Objects(batch, rejects + more)


class JsonLines(_Json):
    """One record per line (NDJSON)."""

    form = "JSON, a record per line"

    def _blocks(self, progress: Progress | None) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        for first, lines, _ in _lines(self._texts(progress)):
            kept = [(number, line.strip()) for number, line in enumerate(lines, first) if not _is_blank(line)]
            raws = [line for _, line in kept]
            yield [number for number, _ in kept], raws, raws

    def _table(self, batch: Batch, rejects: list[Reject]) -> Table:
        return super()._table(Batch(batch.lines, batch.raws, list(map(_decoded, batch.raws))), rejects)


class JsonDocument(_Json):
    """A document with one list of records somewhere in it; read as a whole, so of bounded size."""

    def __init__(self, path: Path, document: Any, said: Said | None = None) -> None:
        super().__init__(path, said)
        self.records, self.context, where = documents.records(path, document)
        self.form = f"JSON, the records in {where}"

    def _blocks(self, progress: Progress | None) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        for start in range(0, len(self.records), 10_000):
            part = self.records[start:start + 10_000]
            yield list(range(start + 1, start + 1 + len(part))), list(map(json.dumps, part)), part
        if progress:
            progress(self.path.stat().st_size)


class JsonArray(_Json):
    """One array of records."""

    form = "JSON, an array of records"

    def _blocks(self, progress: Progress | None) -> Iterator[tuple[list[int], list[str], list[Any]]]:
        number, text, at = 0, "", 0
        expected, broken = "[", ""  # one of: [ at the start, ? or ] behind [, ? behind a comma, more, nothing
        for piece in chain(self._texts(progress), [""]):
            text, at = text[at:] + piece, 0
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


class Columnar(Reader):
    """A Parquet or Feather file, whose records have numbers instead of lines."""

    def __init__(self, path: Path, form: str, said: Said | None = None) -> None:
        super().__init__(path, said)
        self.form = form
        with closing(self._arrow()) as parts:
            schema = next(parts)
        self.names = [name for name in schema.names]

    def _arrow(self) -> Iterator[Any]:
        """The schema, then the record batches."""
        pyarrow = needed("pyarrow", self.path)
        try:
            if self.form == "Parquet":
                file = pyarrow.parquet.ParquetFile(self.path)
                yield file.schema_arrow
                yield from file.iter_batches(10_000)
                return
            with pyarrow.memory_map(str(self.path)) as mapped:
                file = pyarrow.ipc.open_file(mapped)
                yield file.schema
                for n in range(file.num_record_batches):
                    batch = file.get_batch(n)
                    yield from (batch.slice(at, 10_000) for at in range(0, batch.num_rows, 10_000))
        except (pyarrow.ArrowException, OSError) as error:
            raise Broken(f"the file is damaged: {str(error).splitlines()[0]}") from None

    def _blocks(self, progress: Progress | None) -> Iterator[tuple[Sequence[int], Sequence[str], Sequence[Any]]]:
        number = 1
        with closing(self._arrow()) as parts:
            next(parts)
            for part in parts:
                rows = list(zip(*map(_values, part.columns), strict=True))
                yield range(number, number + len(rows)), _Shown(rows), rows
                number += len(rows)
        if progress:
            progress(self.path.stat().st_size)

    def table(self, batch: Batch) -> Table:
        return _Rows(batch, self.names, [])


def _values(column: Any) -> list[Any]:
    """The values of an Arrow column; instants to the microsecond, and a category's name."""
    pyarrow = needed("pyarrow", Path())
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    return column.to_pylist()


class _Shown(Sequence[str]):
    """Records as texts, made when somebody looks."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        return _Shown(self.rows[at]) if isinstance(at, slice) else ", ".join(map(str, self.rows[at]))


def open_file(path: Path, said: Said | None = None) -> Reader:
    """The reader for a file, chosen by its content; raises Problem where it cannot be read or has no such format."""
    said = said or Said()
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise Problem(f"{path} {what}", exit_code=2)
        with path.open("rb") as file:
            magic = file.read(8)
        if magic[:4] == b"PAR1":
            return Columnar(path, "Parquet", said)
        if magic[:6] == b"ARROW1":
            return Columnar(path, "Feather", said)
        reader = _text_reader(path, said)
        reader.container = _kind(magic)
        return reader
    except (Broken, OSError, csv.Error) as error:
        raise Problem(f"{path} cannot be read", detail=str(error), exit_code=2) from None


def _text_reader(path: Path, said: Said) -> Reader:
    with closing(chunks(path)) as pieces:
        start = next(pieces, b"")
    encoding = said.encoding or next((name for mark, name in _MARKS.items() if start.startswith(mark)), None) \
        or _without_mark(start)
    try:
        text = _decode(start, encoding).lstrip("\ufeff \t\r\n")
    except UnicodeError as error:
        raise Problem(f"{path} is not {encoding}", detail=str(error), exit_code=2) from None
    if not text:
        raise Problem(f"{path} is empty", exit_code=2)
    line, suffixes = text.split("\n", 1)[0], [suffix.lower() for suffix in path.suffixes]
    lines = ".ndjson" in suffixes or ".jsonl" in suffixes
    reader: Reader
    if lines or (text[:1] == "{" and isinstance(_decoded(line.strip()), dict) and text[len(line):].strip()):
        reader = JsonLines(path, said)
    elif text[:1] == "[":
        reader = JsonArray(path, said)
    elif text[:1] == "{":
        document = _document(path, encoding)
        plain = isinstance(document, dict) and not any(isinstance(part, (dict, list)) for part in document.values())
        reader = JsonLines(path, said) if plain else JsonDocument(path, document, said)
    elif ".json" in suffixes or "\0" in line or len(line) == len(text) >= CHUNK:
        raise Problem(
            f"{path} has an unknown format", exit_code=2,
            hint="load takes delimited text, JSON, Parquet and Feather; another encoding by --encoding")
    elif not is_unicode(line) and (named := _of_names(start, said)):
        return Csv(path, said, named)
    elif not is_unicode(line):
        raise Problem(
            f"{path} is not UTF-8", detail=f"its first line begins {escaped(line[:40])}", exit_code=2,
            hint="name its encoding: --encoding cp1252, shift_jis, gb18030, …")
    else:
        return Csv(path, said, encoding)
    reader.encoding = encoding
    return reader


def _document(path: Path, encoding: str) -> Any:
    """A JSON document as a whole."""
    text = ""
    for piece in texts(path, encoding):
        text += piece
        if len(text) > LONGEST:
            raise Problem(
                f"{path} is a JSON document of more than {LONGEST >> 20} MiB", exit_code=2,
                hint="take the list of records out of it; an array of records may have any size")
    document = _decoded(text.strip())
    if isinstance(document, _NotJson):
        raise Problem(f"{path} has an unknown format", detail=str(document), exit_code=2)
    return document


def stem(path: Path) -> str:
    """The file's name without what says how it is packed, and without its own extension."""
    return Path(path.stem).stem if path.suffix.lower() in (".gz", ".bz2", ".xz", ".zst") else path.stem


_MARKS = {codecs.BOM_UTF8: "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def _without_mark(start: bytes) -> str:
    """UTF-16 shows by the zeros between its letters; anything else is UTF-8 until somebody says otherwise."""
    some = start[:200]
    for place, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(some) > 3 and some[place::2].count(0) > 0.9 * len(some[place::2]) and 0 not in some[1 - place::2]:
            return name
    return "utf-8"


def _of_names(start: bytes, said: Said) -> str | None:
    """The encoding in which the first line has all the names that the caller gives, one of them not in ASCII."""
    names = [name for names in said.columns.values() for name in names]
    if "".join(names).isascii():
        return None
    for encoding in ("cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "euc_kr", "big5"):
        try:
            line = start.split(b"\n", 1)[0].decode(encoding)
        except UnicodeError:
            continue
        if all(name in line for name in names if not name.isdigit()):
            return encoding
    return None


def needed(module: str, path: Path) -> Any:
    """A package that only some files need."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise Problem(f"{path} needs the package {module}", hint="pip install 'tidemark[archive]'",
                      exit_code=2) from None
    return pyarrow


_KINDS = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def _kind(magic: bytes) -> str:
    return next((kind for mark, kind in _KINDS.items() if magic.startswith(mark)), "")


def _unpacked(path: Path, file: Any, kind: str) -> Any:
    """The stream of bytes in a file that is packed."""
    if kind == "zip":
        archive = zipfile.ZipFile(file)
        members = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
        if len(members) != 1:
            raise Problem(f"{path} holds {len(members)} files", exit_code=2, hint="unpack it, and load what is in it",
                          detail=", ".join(one.filename for one in members[:5]))
        if members[0].flag_bits & 1:
            raise Problem(f"{path} is encrypted", hint="unpack it first", exit_code=2)
        return archive.open(members[0])
    if kind == "zstd":
        return io.BufferedReader(_Raw(needed("pyarrow", path).CompressedInputStream(file, "zstd")), CHUNK)
    return {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}[kind](file)


class _Raw(io.RawIOBase):
    """A stream of pyarrow's as one of Python's."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.stream.read(len(buffer))
        buffer[:len(piece)] = piece
        return len(piece)


def chunks(path: Path, progress: Progress | None = None) -> Iterator[bytes]:
    """The bytes of a file, unpacked if need be."""
    with path.open("rb") as file:
        kind = _kind(file.read(8))
        file.seek(0)
        try:
            stream: Any = _unpacked(path, file, kind) if kind else file
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise Broken(f"the compressed file is damaged: {error}") from None
        told = 0
        while True:
            pieces, size, error = [], 0, None
            try:
                # read1, because read loses what it has when the rest is damaged
                while size < CHUNK and (piece := stream.read1(CHUNK)):
                    pieces.append(piece)
                    size += len(piece)
            except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as problem:
                error = problem
            if progress:
                at = file.tell() if size else path.stat().st_size
                progress(at - told)
                told = at
            if size:
                yield b"".join(pieces)
            if error:
                raise Broken(f"the compressed file is damaged: {error}" if kind else str(error))
            if not size:
                return


def texts(path: Path, encoding: str, progress: Progress | None = None) -> Iterator[str]:
    """The text of a file, without a byte order mark, its lines ended by \\n. Bytes that are none become surrogates."""
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(encoding)("surrogateescape"), translate=True)
    broken, mark = None, "\ufeff"
    pieces = chunks(path, progress)
    with closing(pieces):
        while True:
            try:
                piece = next(pieces, b"")
            except Broken as error:
                broken, piece = error, b""
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeError as error:
                text, broken, piece = "", Broken(f"the text is not {encoding}: {error}"), b""
            if text:
                yield text.removeprefix(mark)
                mark = ""
            if not piece:
                break
    if broken:
        raise broken


def _decode(start: bytes, encoding: str) -> str:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)("surrogateescape"), translate=True)
    return decoder.decode(start)


def escaped(raw: str) -> str:
    """The text of a record as PostgreSQL can store it: what it cannot becomes \\x.., a very long one is cut."""
    text = raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return text if len(text) <= 10_000 else f"{text[:10_000]}… ({len(text)} characters)"


def _lines(pieces: Iterator[str]) -> Iterator[tuple[int, list[str], bool]]:
    """Blocks of whole lines: the number of the first, the lines, and whether they are the last ones."""
    number, rest, broken = 1, "", None
    try:
        for piece in pieces:
            whole, newline, tail = piece.rpartition("\n")
            if not newline:
                rest += piece
                if len(rest) > LONGEST:
                    raise Broken(f"line {number} is longer than {LONGEST >> 20} MiB")
                continue
            lines = (rest + whole).split("\n")
            rest = tail
            yield number, lines, False
            number += len(lines)
    except Broken as error:
        rest, broken = "", error
    yield number, [rest] if rest else [], True
    if broken:
        raise broken


def _is_blank(line: str) -> bool:
    return not line or line.isspace()


def is_unicode(text: str) -> bool:
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
        return {f"column_{number}": value for number, value in enumerate(item, 1)}
    return item if isinstance(item, _NotJson) else "is neither an object nor an array of a time and figures"


def _brief(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _start(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
