"""docs/notebooks.md: its blocks run as they stand and do what the page says; and answers as Parquet and Arrow."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import polars as pl
import pyarrow.parquet
import pytest
from conftest import _database

from see.conftest import HOURS, fill
from tidemark import frames
from tidemark.config import ROOT

PAGE = (ROOT / "docs/notebooks.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.M | re.S)
RUN = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.fixture(scope="module")
def followed(server, template, tmp_path_factory):
    """The desk's database after somebody ran all of the page."""
    folder = tmp_path_factory.mktemp("notebook")
    with _database(server, template) as database:
        with database.connect() as connection:
            found = fill(connection)
        environment = os.environ | {"DATABASE_URL": database.url,
                                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        said = []
        for language, text in BLOCKS:
            done = subprocess.run([*RUN[language], text], text=True, capture_output=True, cwd=folder, env=environment,
                                  check=False)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
        yield SimpleNamespace(database=database, folder=folder, said=said, desk=found)


def test_frames_have_the_right_types(followed):
    bars = pd.read_parquet(followed.folder / "bars.parquet")
    assert len(bars) == HOURS - 10
    assert isinstance(bars.ts.dtype, pd.DatetimeTZDtype) and str(bars.ts.dtype.tz) == "UTC"
    assert {str(bars[name].dtype) for name in ("open", "high", "low", "close", "volume")} == {"float64"}
    schema = pl.read_parquet(followed.folder / "bars.parquet").schema
    assert schema["ts"] == pl.Datetime("us", "UTC") and schema["close"] == pl.Float64
    assert "datetime64[us, UTC]" in followed.said[1]
    assert re.findall(r"^(\w+) +object$", followed.said[1], re.M) == []
    # As an OrderedDict is shown, which changed with Python 3.12.
    assert re.search("'is_anomaly'[,:] Boolean", followed.said[2])
    assert re.search(r"'ts'[,:] Datetime\(time_unit='us', time_zone='UTC'\)", followed.said[2])


def test_picture_is_drawn(followed):
    assert (followed.folder / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_correction_is_stored_judged_and_on_the_record(followed):
    spike = followed.desk.spike
    with followed.database.connect() as connection:
        close, flagged = connection.execute(
            "SELECT close, is_anomaly FROM candles WHERE asset_id = %s AND ts = %s", (followed.desk.asset, spike)
        ).fetchone()
        before, after = followed.desk.prices[499], followed.desk.prices[501]
        assert close == pytest.approx((before + after) / 2) and not flagged
        assert connection.execute(
            "SELECT changed_by, reason FROM row_history('candles', jsonb_build_object('asset_id', %s::uuid, 'interval',"
            " '1h', 'ts', %s::timestamptz)) WHERE operation = 'update' ORDER BY 1 LIMIT 1", (followed.desk.asset, spike)
        ).fetchone() in (("ann", "wrong tick, from the exchange"), None)
    assert "1 bar corrected" in followed.said[-1] and str(followed.desk.split)[:10] in followed.said[-1]


KINDS = """-- Which kinds are there?
-- parameters:
-- columns: a smallint, b integer, c bigint, d double precision, e numeric, f boolean, g text, h timestamptz, i date,
--   j interval, k uuid, l jsonb, m text[], n anomaly_severity
-- cost: none
SELECT 1::smallint AS a, 2::integer AS b, 3::bigint AS c, 4.5::double precision AS d, 6.25::numeric AS e, true AS f,
       'text'::text AS g, timestamptz '2024-01-02 03:04:05.678901+02' AS h, date '2024-02-29' AS i,
       interval '1 day 2 hours' AS j, '00000000-0000-4000-8000-000000000001'::uuid AS k, '{"a": [1, null]}'::jsonb AS l,
       ARRAY['x', NULL] AS m, 'black_swan'::anomaly_severity AS n
 UNION ALL SELECT NULL, NULL, NULL, 'nan', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
"""


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_each_type_goes_into_a_file_and_comes_back(tx, monkeypatch, tmp_path, kind):
    from tidemark import config

    (tmp_path / "kinds.sql").write_text(KINDS)
    monkeypatch.setattr(config, "QUERIES", tmp_path)
    path = tmp_path / f"kinds.{kind}"
    assert frames.write(tx, "kinds", {}, path, kind) == 2
    table = pl.read_parquet(path).to_arrow() if kind == "parquet" else pyarrow.ipc.open_file(path).read_all()
    first, second = table.to_pylist()
    assert first == {
        "a": 1, "b": 2, "c": 3, "d": 4.5, "e": 6.25, "f": True, "g": "text",
        "h": datetime(2024, 1, 2, 1, 4, 5, 678901, tzinfo=UTC), "i": datetime(2024, 2, 29).date(),
        "j": timedelta(days=1, hours=2), "k": "00000000-0000-4000-8000-000000000001", "l": '{"a": [1, null]}',
        "m": ["x", None], "n": "black_swan"}
    assert second.pop("d") != 0 and set(second.values()) == {None}


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_pipes_devices_and_links_are_written_to_and_not_replaced(tx, tmp_path, kind):
    """As root a rename would put a file where /dev/null was, for the whole machine."""
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    link.symlink_to(file)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    frames.write(tx, "coverage", {}, pipe, kind)
    reader.join(10)
    frames.write(tx, "coverage", {}, link, kind)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and link.is_symlink()
    assert received == [file.read_bytes()] != [b""]


def test_answer_without_rows_keeps_its_columns(run, tmp_path):
    path = tmp_path / "none.parquet"
    result = run("query", "gaps", "source=hash_rate", "--parquet", str(path))
    assert result.exit_code == 0 and "0 rows" in result.stdout, result.output
    assert pl.read_parquet(path).schema == {"gap_start": pl.Datetime("us", "UTC"), "gap_end": pl.Datetime("us", "UTC"),
                                            "missing_bars": pl.Int64}


def test_file_that_cannot_be_written_leaves_nothing_behind(run, tmp_path):
    result = run("query", "coverage", "--arrow", str(tmp_path / "nowhere" / "a.arrow"))
    assert result.exit_code == 2 and result.stderr.startswith("tidemark: ")
    assert list(tmp_path.iterdir()) == []
    assert run("query", "coverage", "--arrow", "a", "--csv").exit_code == 2
