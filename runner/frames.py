"""Answers of queries/ as Arrow: for Parquet and Arrow files, from which pandas and polars read the right types."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tidemark import query as questions
from tidemark.errors import Problem

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 50_000
# By the server's names of types. Instants are UTC; a numeric is a float, as no column of objects serves anybody;
# whatever is not here is text, as str() has it, and JSON as JSON.
TYPES = {
    "bool": "bool", "int2": "int16", "int4": "int32", "int8": "int64", "float4": "float32", "float8": "float64",
    "numeric": "float64", "date": "date32[day]", "interval": "duration[us]",
}


def write(connection: psycopg.Connection, name: str, values: Mapping[str, str], path: Path, kind: str) -> int:
    """Write the answer to a question as `parquet` or `arrow` (an IPC file); returns the number of rows.

    A file appears under its name only when it is complete; a pipe or a device is written to, and stays what it is, as
    a link does. Memory does not grow with the number of rows.
    """
    arrow = _pyarrow()
    path = path.resolve()
    is_special = path.exists() and not path.is_file()
    rows = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if is_special else path.parent
        partial = folder / f".{path.name}.partial"
        stack.callback(partial.unlink, missing_ok=True)
        with questions.stream(connection, name, values) as cursor:
            schema = _schema(connection, cursor)
            with _writer(arrow, kind, partial, schema) as writer:
                for batch in _batches(cursor, schema):
                    writer.write_batch(batch)
                    rows += batch.num_rows
        if is_special:
            with partial.open("rb") as made, path.open("wb") as target:
                shutil.copyfileobj(made, target)
        else:
            partial.replace(path)
    return rows


def _writer(arrow: Any, kind: str, path: Path, schema: pyarrow.Schema) -> Any:
    if kind == "arrow":
        return arrow.ipc.new_file(str(path), schema)
    return arrow.parquet.ParquetWriter(path, schema, compression="zstd")


def _schema(connection: psycopg.Connection, cursor: psycopg.Cursor) -> pyarrow.Schema:
    import pyarrow

    fields = []
    for column in cursor.description or ():
        known = connection.adapters.types.get(column.type_code)
        name = known.name if known else ""
        kind = pyarrow.timestamp("us", "UTC") if name == "timestamptz" else \
            pyarrow.timestamp("us") if name == "timestamp" else pyarrow.type_for_alias(TYPES.get(name, "string"))
        if known and column.type_code == known.array_oid:
            kind = pyarrow.list_(pyarrow.string())
        fields.append(pyarrow.field(column.name, kind))
    return pyarrow.schema(fields)


def _batches(cursor: psycopg.Cursor, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow

    convert = [_text if str(kind) == "string" else _texts if str(kind).startswith("list") else
               _float if str(kind) == "double" else None for kind in schema.types]
    while rows := cursor.fetchmany(BATCH_ROWS):
        yield pyarrow.RecordBatch.from_arrays([
            pyarrow.array(_each(values, how), kind)
            for values, how, kind in zip(zip(*rows, strict=True), convert, schema.types, strict=True)
        ], schema=schema)


def _each(values: tuple[Any, ...], how: Callable[[Any], Any] | None) -> list[Any]:
    return list(values) if how is None else [None if value is None else how(value) for value in values]


def _float(value: Any) -> float:
    return float(value) if isinstance(value, Decimal) else value


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def _texts(value: list[Any]) -> list[str | None]:
    return [None if part is None else _text(part) for part in value]


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise Problem("this needs the package pyarrow", hint="pip install 'tidemark[archive]'", exit_code=2) from None
    return pyarrow
