"""What loading costs: `load` beside psql's \\copy of the same rows into the same scored table, first and once more.

Both run as processes of their own against fresh databases; reported are the wall clock and the processor time of
client and server together, which other work disturbs less. \\copy is given the file as the table has it, with the
number of its source in each line; `load` recognises the columns, finds the source and keeps its task. `again` loads
rows that are there already. The packed files and the peak of memory are those of `load` alone.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
import tempfile
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.quality import database, prices

END = datetime(2026, 1, 1, tzinfo=UTC)  # of the rows, however many
HEADER = "timestamp,open,high,low,close,volume\n"
# Wall clock and processor time of the server process, as the process itself sees them.
NOW = (
    "SELECT extract(epoch FROM clock_timestamp()),"
    " (SELECT sum(t::numeric) / 100 FROM unnest((string_to_array(pg_read_file('/proc/self/stat'), ' '))[14:15]) AS t)"
)
LOAD = f"""
import os, resource, sys, time, psycopg
from pathlib import Path
from tidemark.loader import load
with psycopg.connect(os.environ["URL"], autocommit=True) as connection:
    before, client = connection.execute({NOW!r}).fetchone(), time.process_time()
    load(connection, [Path(sys.argv[1])], table="timeseries_data", source="bench 1", interval="1m", mode="backfill",
         again=True)
    after = connection.execute({NOW!r}).fetchone()
    print(after[0] - before[0], float(after[1] - before[1]) + time.process_time() - client,
          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write(folder: Path, rows: int) -> dict[str, Path]:
    """One-minute bars of one series, as a file for `load` in several containers and as one for \\copy."""
    paths = {kind: folder / f"bars.csv{ending}" for kind, ending in (
        ("plain", ""), ("copy", ".copy"), ("gzip", ".gz"), ("zip", ".zip"), ("zstd", ".zst"))}
    with paths["plain"].open("w") as plain, paths["copy"].open("w") as copy:
        plain.write(HEADER)
        start = END - timedelta(minutes=rows)  # a bar of the future would be penalised, and cost more
        for n, price in enumerate(prices(1, rows)):
            line = f"{start + timedelta(minutes=n):%Y-%m-%dT%H:%M:%SZ}," + ",".join(
                f"{price * factor:.6f}" for factor in (0.9999, 1.001, 0.999, 1)) + ",1000\n"
            plain.write(line)
            copy.write(f"1,{line}")
    with paths["plain"].open("rb") as plain, gzip.open(paths["gzip"], "wb", 6) as packed:
        packed.writelines(plain)
    with zipfile.ZipFile(paths["zip"], "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(paths["plain"], "bars.csv")
    with contextlib.suppress(ImportError):
        import pyarrow

        with pyarrow.CompressedOutputStream(str(paths["zstd"]), "zstd") as packed, paths["plain"].open("rb") as plain:
            while piece := plain.read(1 << 20):
                packed.write(piece)
    return {kind: path for kind, path in paths.items() if path.exists()}


def load(url: str, path: Path) -> tuple[float, float, float]:
    """Wall-clock seconds, processor seconds of both sides, and MB of memory at most, of one load."""
    done = subprocess.run([sys.executable, "-c", LOAD, path], text=True, capture_output=True, check=True,
                          env={**os.environ, "URL": url})
    wall, processor, peak = map(float, done.stdout.split())
    return wall, processor, peak / 1024


def copy(url: str, path: Path) -> tuple[float, float]:
    """The same of psql's \\copy; what psql itself spends is next to nothing, and left out."""
    table = "timeseries_data (source_id, timestamp, open, high, low, close, volume)"
    statement = f"\\copy {table} FROM '{path}' (FORMAT csv)"
    done = subprocess.run(
        ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", *(part for one in (
            "SET tidemark.ingest_mode = 'backfill'", NOW, statement, NOW) for part in ("-c", one)), url],
        text=True, capture_output=True, check=True)
    before, after = ([float(value) for value in line.split("|")] for line in done.stdout.split())
    return after[0] - before[0], after[1] - before[1]


def run(url: str, rows: int = 1_000_000, most: int = 10_000_000) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="tidemark-bench-") as place:
        paths = write(Path(place), rows)
        print(f"{rows:,} one-minute bars of one source, {paths['plain'].stat().st_size >> 20} MB")
        with database(url, "scored", 1) as own:
            copied = copy(own, paths["copy"])
            print(f"  by psql            {copied[0]:7.2f} s  {copied[1]:7.2f} s processor", flush=True)
        for kind in ("plain", "gzip", "zip", "zstd"):
            if kind not in paths:
                continue
            with database(url, "scored", 1) as own:
                _tell(f"load {kind}", load(own, paths[kind]), copied)
                if kind == "plain":
                    _tell("load again", load(own, paths[kind]), copied)
        if most > rows:
            big = write(Path(place), most)["plain"]
            with database(url, "scored", 1) as own:
                _tell(f"load of {most:,}", load(own, big), tuple(one * most / rows for one in copied))


def _tell(what: str, spent: tuple[float, float, float], copied: tuple[float, float]) -> None:
    print(f"  {what:18} {spent[0]:7.2f} s  {spent[1]:7.2f} s processor  {spent[2]:5.0f} MB;"
          f" / \\copy {spent[0] / copied[0]:.2f} (processor {spent[1] / copied[1]:.2f})", flush=True)
