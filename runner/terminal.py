"""What the command line shows people: tables that fit, time that passes, and colour for what is severe."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

PATIENCE = 2.0  # seconds before anybody wonders
COLOURS = {"warning": "yellow", "anomaly": "yellow", "critical": "red", "black_swan": "red", "refused": "red"}


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows as aligned columns; in a terminal that is too narrow for them, as records, a line a column.

    Severities are coloured in a terminal, unless NO_COLOR is set.
    """
    cells = [[("" if value is None else str(value)) for value in row] for row in [headings, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    columns = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) > columns:
        label = max(map(len, headings))
        for number, row in enumerate(cells[1:]):
            if number:
                click.echo()
            for name, value in zip(headings, row, strict=True):
                click.echo(f"{name.ljust(label)}  {_coloured(value)}".rstrip())
        return
    for row in cells:
        line = "  ".join(_coloured(value, width) for value, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _coloured(value: str, width: int = 0) -> str:
    padded = value.ljust(width)
    if value in COLOURS and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return click.style(padded, fg=COLOURS[value])
    return padded


@contextlib.contextmanager
def working(label: str) -> Iterator[None]:
    """Shows how long something has taken already, once it takes long; silent where nobody watches."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        started = time.monotonic()
        if done.wait(PATIENCE):
            return
        while not done.wait(1):
            sys.stderr.write(f"\r{label}: {time.monotonic() - started:.0f} s")
            sys.stderr.flush()
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
