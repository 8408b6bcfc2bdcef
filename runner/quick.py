"""The short way through a batch: pyarrow reads its text and NumPy packs it, where every field is what it should be.

It is taken by plain files of one series only. Whatever is odd about a batch (a broken line, a missing figure, a time
that goes back) sends it the long way, which finds out what it is; so this one knows no rejects.
"""

from __future__ import annotations

import itertools
from typing import Any

from tidemark import columns
from tidemark.columns import PLAIN, UNITS, UNIX, Times
from tidemark.look import Layout
from tidemark.readers import Batch, Csv

numpy: Any = None
pyarrow: Any = None


class Quick:
    """How the batches of a file are read the short way."""

    def __init__(self, layout: Layout) -> None:
        self.layout, reader, times = layout, layout.reader, layout.times
        self.fields = dict.fromkeys(reader.names, pyarrow.string())
        self.fields |= {name: pyarrow.int64() if column in layout.target.whole else pyarrow.float64()
                        for column, name in layout.numbers.items()}
        (self.time,) = layout.time
        self.fields[self.time] = pyarrow.int64() if times.unit else pyarrow.timestamp("us")
        self.used = [self.time, *layout.numbers.values()]
        self.parse = pyarrow.csv.ParseOptions(delimiter=reader.delimiter, quote_char=False, newlines_in_values=False)
        self.convert = pyarrow.csv.ConvertOptions(column_types={name: self.fields[name] for name in self.used},
                                          include_columns=self.used, null_values=[], strings_can_be_null=False)

    def read(self, batch: Batch) -> Arrays | None:
        """The instants and the figures of a batch; None where it has to go the long way."""
        text = "\n".join(batch.raws)
        if '"' in text or "\0" in text or not text.isascii():
            return None
        content = text.encode()
        names = pyarrow.csv.ReadOptions(
            column_names=self.layout.reader.names, use_threads=False, block_size=len(content) + 1)
        for zone in (None, "UTC"):
            try:
                table = pyarrow.csv.read_csv(pyarrow.BufferReader(content), names, self.parse, self.convert)
                break
            except pyarrow.ArrowInvalid:
                if zone or self.layout.times.unit or self.fields[self.time].tz:
                    return None
                # Times with an offset of their own are another type to pyarrow.
                self.fields[self.time] = pyarrow.timestamp("us", "UTC")
                self.convert.column_types = {name: self.fields[name] for name in self.used}
        arrays = {name: self._plain(table.column(name)) for name in self.used}
        if table.num_rows != len(batch) or any(values is None for values in arrays.values()):
            return None
        instants = self._instants(arrays.pop(self.time), self.layout.times)
        if instants is None or not all(numpy.isfinite(values).all() for values in arrays.values()):
            return None
        if len(instants) > 1 and not ((steps := numpy.diff(instants)) > 0).all() and not (steps < 0).all():
            return None
        return Arrays(instants, {column: arrays[name] for column, name in self.layout.numbers.items()})

    @staticmethod
    def _plain(column: Any) -> Any:
        """A column without holes as NumPy has it; pyarrow's own way there would import pandas."""
        values = column.combine_chunks()
        if values.null_count:
            return None
        kind = "float64" if pyarrow.types.is_floating(values.type) else "int64"
        return numpy.frombuffer(values.buffers()[1], kind)[values.offset:values.offset + len(values)]

    @staticmethod
    def _instants(values: Any, times: Times) -> Any:
        if not times.unit:
            return values - UNIX
        low, high = values.min(), values.max()
        if low < 10**8 * times.unit or high >= columns.SOON * times.unit:
            return None
        return (values * (10**6 // times.unit) if times.unit <= 10**6 else values // (times.unit // 10**6)) - UNIX


class Arrays:
    """The columns of a batch; all in one direction of time, none of them with a hole."""

    def __init__(self, times: Any, numbers: dict[str, Any]) -> None:
        self.times, self.numbers = times, numbers

    def packed(self, constants: dict[str, bytes], whole: frozenset[str], time: str, *, numbered: bool) -> tuple[
            list[str], bytes]:
        """The names of the fields and the rows as COPY's binary format has them; `constants` are in each of them."""
        names = [*(["n"] if numbered else []), *constants, time, *self.numbers]
        columns_ = {"n": numpy.arange(len(self.times)), time: self.times, **self.numbers}
        kinds = {"n": ">i4", time: ">i8"} | {
            name: ">i8" if name in whole and not numbered else ">f8" for name in self.numbers}
        kinds |= {name: f"V{len(value)}" for name, value in constants.items()}
        record = numpy.dtype([("count", ">i2"), *itertools.chain.from_iterable(
            ((f"size {name}", ">i4"), (name, kinds[name])) for name in names)])
        rows = numpy.empty(len(self.times), record)
        rows["count"] = len(names)
        for name in names:
            rows[f"size {name}"] = record[name].itemsize
            rows[name] = numpy.void(constants[name]) if name in constants else columns_[name]
        return names, rows.tobytes()


def quick(layout: Layout) -> Quick | None:
    """The short way for a file, if it may take it."""
    plain = (
        isinstance(layout.reader, Csv) and not layout.wide and not layout.target.several
        and not layout.roles and not layout.texts and len(layout.time) == 1 and layout.style == PLAIN
        and layout.times.zone is None and layout.times.format is None and layout.times.order is None
        and (layout.times.unit is None or layout.times.unit in UNITS.values()) and layout.reader.delimiter != " "
        and len(set(layout.numbers.values()) | set(layout.time)) == len(layout.numbers) + 1
    )
    if plain and layout.target.metadata:
        plain = layout.used >= set(layout.reader.names)
    return Quick(layout) if plain and layout.numbers and _imported() else None


def _imported() -> bool:
    """Import what only this way needs, and say whether it is there."""
    global numpy, pyarrow
    try:
        import numpy
        import pyarrow
        import pyarrow.csv
    except ImportError:  # the long way does without
        return False
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # gives back what a batch took
    return True
