"""The Parquet archive as the way out: other engines make daily_ohlcv from it, and its files can go back.

The examples are those of docs/beyond-one-machine.md, run as they stand there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import psycopg
import pytest

from tidemark import lifecycle
from tidemark.errors import Problem
from tidemark.loader import LoadFailed

pyarrow = pytest.importorskip("pyarrow", reason="the archive needs the package pyarrow")
from tidemark import parquet  # noqa: E402

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "beyond-one-machine.md").read_text()
DAILY = "SELECT source_id, day AT TIME ZONE 'UTC', open, high, low, close, volume, samples FROM daily_ohlcv"
TABLE = "hypertable=timeseries_data"


def _fill(connection: psycopg.Connection) -> None:
    """Two sources, a row every three hours over a change of clocks, with all that daily_ohlcv has to mind.

    Figures are multiples of 1/8, so that sums are exact in any order.
    """
    connection.execute("INSERT INTO sources (name, data_type) VALUES ('a', 'ohlcv'), ('b', 'ohlcv')")
    connection.execute("""
        INSERT INTO timeseries_data
               (source_id, timestamp, open, high, low, close, volume, value, metadata, is_excluded)
        SELECT s.source_id, t.at,
               CASE WHEN t.n % 5 > 0 THEN 100 + t.n % 13 / 8.0 END, -- NULL first in some days
               CASE WHEN t.n % 11 > 0 THEN 105 + t.n % 17 / 8.0 END,
               95 - t.n % 19 / 8.0,
               CASE WHEN t.n % 7 > 0 AND NOT t.n BETWEEN 160 AND 170 THEN s.source_id * 100 + t.n % 23 / 8.0 END,
               CASE WHEN t.n % 3 > 0 THEN t.n % 29 / 8.0 END,
               0.1, '{"b": 1.0, "a": ["é", null]}', t.n % 31 = 0
          FROM sources AS s,
               (SELECT at, row_number() OVER (ORDER BY at) AS n
                  FROM generate_series(timestamptz '2024-02-25 22:30+00', '2024-04-28 21:30+00', '3 hours') AS at) AS t
    """)
    connection.execute("INSERT INTO timeseries_data (source_id, timestamp, close) VALUES (1, now(), 5)")


def _expire(connection: psycopg.Connection, hypertable: str = "timeseries_data") -> None:
    connection.execute("SELECT set_config('tidemark.reason', 'a test', false)")
    connection.execute(
        "UPDATE data_policies SET compress_after = '30 days', drop_after = '90 days' WHERE hypertable = %s",
        (hypertable,),
    )


@pytest.fixture
def archived(db, tmp_path):
    """A connection to a database whose old chunks were archived below `tmp_path/archive` and dropped."""
    with db.connect() as connection:
        _fill(connection)
        _expire(connection)
        connection.before = _rows(connection)
        connection.dropped = lifecycle.clean(connection, tmp_path / "archive")
        assert len(connection.dropped) == 3
        assert connection.execute("SELECT count(*) FROM timeseries_data").fetchone() == (1,)
        yield connection


def _rows(connection: psycopg.Connection, relation: str = "timeseries_data") -> list:
    return sorted(connection.execute(f"SELECT t::text FROM {relation} AS t").fetchall())


def _expected(connection: psycopg.Connection) -> list:
    """What daily_ohlcv still says of the days that were dropped."""
    rows = connection.execute(DAILY + " WHERE day < '2024-05-01' ORDER BY 1, 2").fetchall()
    assert len(rows) == 126  # of 128 days, one of each source has no close
    assert all(row[2] is not None and row[6] is not None for row in rows)  # though some of their rows have none
    return [[source, day.date().isoformat(), *rest] for source, day, *rest in rows]


def _example(engine: str, directory: Path, result: str) -> list:
    """Run the page's example in a process of its own, in a time zone that would show."""
    (block,) = re.findall(rf"```python\n# {engine}\n(.*?)```", PAGE, re.S)
    shutil.copytree(ROOT / "docs", directory / "docs", dirs_exist_ok=True)
    script = directory / "example.py"
    tell = f"print('RESULT', json.dumps([list(row) for row in {result}], default=str))"
    script.write_text(f"{block}\nimport json\n{tell}\n")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=directory, capture_output=True, text=True, timeout=180,
        env={**os.environ, "TZ": "Australia/Lord_Howe", "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return json.loads(line.removeprefix("RESULT"))


# Other engines


def test_duckdb_makes_daily_ohlcv_from_the_archive(archived, tmp_path):
    pytest.importorskip("duckdb", reason="the package duckdb is not installed")
    assert _example("DuckDB", tmp_path, "daily.fetchall()") == _expected(archived)


def test_pyspark_makes_daily_ohlcv_from_the_archive(archived, tmp_path):
    pytest.importorskip("pyspark", reason="the package pyspark is not installed")
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("PySpark needs Java, which is not on this machine")
    # as an archiving that was killed leaves it behind
    (tmp_path / "archive" / TABLE / "start=2024-05-17T00-00-00Z").mkdir()
    (tmp_path / "archive" / TABLE / "start=2024-05-17T00-00-00Z" / ".rows.parquet.partial").write_bytes(b"PAR1")
    assert _example("PySpark", tmp_path, "daily.collect()") == _expected(archived)


ODD = [
    # What a chunk holds: statistics of the second would end at 2 and of the third at -1, as if there were no NaN.
    [1.0, 2.0, float("nan"), float("inf"), float("-inf"), None, -0.0, 0.0, -3.5, 5e-324, 1.7976931348623157e308, 1e99],
    [1.0, 2.0, float("nan"), None],
    [-1.0, -2.0, float("nan")],
    [None, None],
    [float("nan")],
]
NAN = "CAST('NaN' AS double{})"
QUESTIONS = [
    *(f"close {sign} {value}" for sign in (">", ">=", "<", "<=", "=", "<>") for value in ("2", "2.5", "-1e308", NAN)),
    "NOT close > 2", "close IS NULL", "close IS NOT NULL", "close BETWEEN 0 AND 5", "close IN (1, 2)",
    f"close IN ({NAN})", f"NOT close = {NAN}", "close = high", "close > low", "close > 2 AND source_id = 1",
    "close > 2 OR volume IS NULL",
    "close < CAST('infinity' AS double{}) AND source_id = 2", "coalesce(close, 7) > 6",
]
FIGURES = [
    "count(*)", "count(close)", "count(DISTINCT close)", "min(close)", "count(CASE WHEN close > 2 THEN 1 END)",
    "sum(volume)", "max(source_id)", "min(CASE WHEN close > 0 THEN close END)",
]


@pytest.fixture
def odd(db, tmp_path):
    """What PostgreSQL says of odd rows, and the directory of their archive: of five chunks and two sources."""
    with db.connect() as connection:
        connection.execute("INSERT INTO sources (name, data_type) VALUES ('a', 'ohlcv'), ('b', 'ohlcv')")
        connection.cursor().executemany(
            "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)"
            " VALUES (%s, timestamptz '2024-02-05 12:00+00' + %s * interval '1 hour', %s, %s, %s, %s, %s)",
            [(source, 24 * 40 * chunk + i, v, values[i - 1], values[(i - 2) % len(values)], v, i if i % 4 else None)
             for source in (1, 2) for chunk, values in enumerate(ODD) for i, v in enumerate(values)],
        )
        _expire(connection)
        said = [connection.execute(f"SELECT {what} FROM timeseries_data").fetchone()
                for what in _asked(" precision")]
        days = connection.execute(DAILY + " ORDER BY 1, 2").fetchall()
        dropped = lifecycle.clean(connection, tmp_path / "archive")
        assert len(dropped) == 5
        said += [(str(start), rows) for start, rows in sorted(
            (chunk.range_start.strftime("%Y-%m-%dT%H-%M-%SZ"), chunk.rows) for chunk in dropped)]
        days = [(source, day.date(), *rest) for source, day, *rest in days]
        return repr(said), repr(days), tmp_path / "archive" / TABLE


def _asked(precision: str = "") -> list[str]:
    return [f"sum(CASE WHEN {what.format(precision)} THEN 1 ELSE 0 END) FROM (SELECT * FROM timeseries_data"
            f" WHERE {what.format(precision)}) AS t --" for what in QUESTIONS] + FIGURES


def _answers(ask) -> str:
    """All of it, as `ask` of an engine says."""
    said = [tuple(ask(f"SELECT {what} FROM timeseries_data".replace(" -- FROM timeseries_data", ""))[0])
            for what in _asked()]
    said += [tuple(row) for row in ask("SELECT start, count(*) FROM timeseries_data GROUP BY start ORDER BY start")]
    last = said[-1]
    for condition in (f"start = '{last[0]}'", f"start > '{last[0][:9]}'"):
        assert [tuple(row) for row in ask(f"SELECT count(*) FROM timeseries_data WHERE {condition}")] == [last[1:]]
    return repr(said)


def test_duckdb_and_polars_say_of_odd_figures_what_postgresql_says(odd):
    duckdb = pytest.importorskip("duckdb", reason="the package duckdb is not installed")
    polars = pytest.importorskip("polars", reason="the package polars is not installed")
    expected, days, archive = odd
    duckdb.sql("SET TimeZone = 'UTC'")
    duckdb.sql(f"CREATE OR REPLACE VIEW timeseries_data AS FROM read_parquet('{archive}/*/*.parquet')")
    assert _answers(lambda question: duckdb.sql(question).fetchall()) == expected
    assert repr(duckdb.sql((ROOT / "docs/daily_ohlcv.archive.sql").read_text()).fetchall()) == days
    rows = polars.SQLContext(timeseries_data=polars.scan_parquet(f"{archive}/*/*.parquet", hive_partitioning=True))
    assert _answers(lambda question: rows.execute(question, eager=True).rows()) == expected
    for file in parquet.files(archive):
        group = pyarrow.parquet.ParquetFile(file).metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
        described = {column.path_in_schema for column in columns if column.is_stats_set}
        assert {"source_id", "timestamp", "quality_score"} <= described, "by which readers skip rows"
        assert not described & {"value", "open", "high", "low", "close", "volume"}


def test_polars_answers_as_the_page_says(archived, tmp_path):
    pytest.importorskip("polars", reason="the package polars is not installed")
    said = _example("polars", tmp_path, "found.rows()")
    assert [start for start, _ in said] == [
        chunk.range_start.strftime("%Y-%m-%dT%H-%M-%SZ") for chunk in archived.dropped]


def test_pyspark_says_of_odd_figures_what_postgresql_says(odd, monkeypatch):
    sql = pytest.importorskip("pyspark.sql", reason="the package pyspark is not installed")
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("PySpark needs Java, which is not on this machine")
    expected, days, archive = odd
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    spark = (sql.SparkSession.builder.master("local[1]").config("spark.sql.session.timeZone", "UTC")
             .config("spark.ui.enabled", "false").getOrCreate())
    try:
        spark.read.parquet(str(archive)).createOrReplaceTempView("timeseries_data")
        assert _answers(lambda question: [tuple(row) for row in spark.sql(question).collect()]) == expected
        daily = spark.sql((ROOT / "docs/daily_ohlcv.archive.sql").read_text()).collect()
        assert repr([tuple(row) for row in daily]) == days
    finally:
        spark.stop()


def test_a_column_named_as_the_partitions_is_not_hidden(db, tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="the package duckdb is not installed")
    with db.connect() as connection:
        connection.execute("CREATE TABLE runs (id integer, start timestamptz, PRIMARY KEY (id, start));"
                           "SELECT create_hypertable('runs', by_range('start', interval '7 days'));"
                           "INSERT INTO runs VALUES (1, '2024-01-04 12:00+00')")
        connection.execute("SELECT set_config('tidemark.reason', 'a test', false)")
        connection.execute("INSERT INTO data_policies (hypertable, drop_after) VALUES ('runs', '90 days')")
        lifecycle.clean(connection, tmp_path)
        files = tmp_path / "hypertable=runs" / "start_=2024-01-04T00-00-00Z"
        assert duckdb.sql(f"SELECT id, epoch(start), start_ FROM read_parquet('{files}/*.parquet')").fetchall() == [
            (1, 1704369600, "2024-01-04T00-00-00Z")]
        parquet.put_back(connection, [tmp_path])
        assert connection.execute("SELECT id, extract(epoch FROM start)::int FROM runs").fetchall() == [(1, 1704369600)]


def test_a_migration_between_two_archivings_divides_no_archive(archived, tmp_path):
    """The files of before lack a column that the later ones have."""
    duckdb = pytest.importorskip("duckdb", reason="the package duckdb is not installed")
    archived.execute("ALTER TABLE timeseries_data ADD COLUMN turnover double precision")
    archived.execute("INSERT INTO timeseries_data (source_id, timestamp, close, turnover)"
                     " VALUES (1, '2024-01-03', 7, 8)")
    assert len(lifecycle.clean(archived, tmp_path / "archive")) == 1
    files = f"read_parquet('{tmp_path}/archive/{TABLE}/*/*.parquet', union_by_name = true)"
    rows = len(archived.before) - 1
    assert duckdb.sql(f"SELECT count(*), count(turnover), sum(turnover) FROM {files}").fetchall() == [(rows + 1, 1, 8)]
    parquet.put_back(archived, [tmp_path / "archive"])
    assert archived.execute("SELECT count(*), sum(turnover) FROM timeseries_data").fetchone() == (rows + 2, 8)


def test_row_that_comes_late_into_an_archived_range_is_archived_beside_it(archived, tmp_path):
    """Nothing that an archive holds is lost because the range is archived again."""
    archived.execute("INSERT INTO timeseries_data (source_id, timestamp, close) VALUES (1, '2024-03-05 00:17+00', 7)")
    lifecycle.clean(archived, tmp_path / "archive")
    (total,) = archived.execute("SELECT count(*) FROM timeseries_data").fetchone()
    assert total == 1
    parquet.put_back(archived, [tmp_path / "archive"])
    assert archived.execute("SELECT count(*) FROM timeseries_data").fetchone() == (len(archived.before) + 1,)


# Putting it back


def test_archive_goes_back_as_it_was_and_a_second_time_changes_nothing(archived, tmp_path):
    daily = _rows(archived, "daily_ohlcv")
    summaries = parquet.put_back(archived, [tmp_path / "archive"])
    assert _rows(archived) == archived.before
    assert _rows(archived, "daily_ohlcv") == daily
    assert [(s.file, s.table, s.read, s.written, s.rejected, s.already_loaded, s.error) for s in summaries] == [
        (chunk.archive, "timeseries_data", chunk.rows, chunk.rows, 0, False, "") for chunk in archived.dropped
    ]
    tasks = archived.execute(
        "SELECT source_ref, status::text, mode::text, rows_read, rows_written FROM ingestion_tasks ORDER BY task_id"
    ).fetchall()
    assert tasks == [
        (str(chunk.archive), "succeeded", "replay", chunk.rows, chunk.rows) for chunk in archived.dropped
    ]
    again = parquet.put_back(archived, [tmp_path / "archive"])
    assert [(summary.written, summary.already_loaded) for summary in again] == [(0, True)] * 3
    assert _rows(archived) == archived.before


def test_rows_that_are_there_stay_and_only_missing_ones_come_back(archived, tmp_path):
    chunk = archived.dropped[1]
    parquet.put_back(archived, [chunk.archive])
    archived.execute("UPDATE timeseries_data SET close = 77 WHERE (source_id, timestamp) = (2, '2024-03-19 22:30+00')")
    archived.execute("DELETE FROM timeseries_data WHERE source_id = 1 AND timestamp < '2024-03-20'")
    (missing,) = archived.execute(
        "SELECT %s - count(*) FROM timeseries_data WHERE timestamp < '2025-01-01'", (chunk.rows,)
    ).fetchone()
    (summary,) = parquet.put_back(archived, [chunk.archive])
    assert (summary.read, summary.written) == (chunk.rows, missing)
    assert missing > 0
    assert archived.execute("SELECT close FROM timeseries_data"
                            " WHERE (source_id, timestamp) = (2, '2024-03-19 22:30+00')").fetchone() == (77,)


@pytest.mark.parametrize("mode", ["live", "backfill"])
def test_rows_that_were_late_still_are_when_they_come_back_and_others_are_not(db, tmp_path, mode):
    with db.connect() as connection:
        connection.execute("SELECT set_config('tidemark.reason', 'a test', false)")
        connection.execute("UPDATE quality_profiles SET allowed_lag = '1 hour'")
        connection.execute("SELECT set_config('tidemark.ingest_mode', %s, false)", (mode,))
        _fill(connection)
        connection.execute("RESET tidemark.ingest_mode")
        (late,) = connection.execute("SELECT count(*) FROM quality_issues WHERE penalty = 'timeliness'").fetchone()
        _expire(connection)
        before = _rows(connection)
        assert late == (len(before) - 1 if mode == "live" else 0)
        lifecycle.clean(connection, tmp_path)
        parquet.put_back(connection, [tmp_path])
        assert _rows(connection) == before


def test_bars_of_assets_go_back_too(db, tmp_path):
    with db.connect() as connection:
        connection.execute("INSERT INTO assets (symbol, asset_type) VALUES ('X', 'stock'), ('Y', 'crypto')")
        connection.execute("INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume, trades)"
                           " SELECT a.asset_id, '1m', t, 1, 2, 0.5, 1.1, 3, 9007199254740993 FROM assets AS a,"
                           " generate_series(timestamptz '2024-03-01', '2024-03-15', '10 minutes') AS t")
        connection.execute("INSERT INTO sentiment_data (asset_id, ts, source, sentiment_score, extra_data)"
                           " SELECT asset_id, '2024-03-05', 'news', -0.5, '{\"a\": 1.10}' FROM assets")
        before = _rows(connection, "candles"), _rows(connection, "sentiment_data")
        _expire(connection, "candles")
        _expire(connection, "sentiment_data")
        lifecycle.clean(connection, tmp_path)
        assert (_rows(connection, "candles"), _rows(connection, "sentiment_data")) == ([], [])
        parquet.put_back(connection, [tmp_path])
        assert (_rows(connection, "candles"), _rows(connection, "sentiment_data")) == before


@pytest.mark.community
def test_rows_go_back_into_a_chunk_that_was_compressed_since(archived, tmp_path):
    chunk = archived.dropped[0]
    parquet.put_back(archived, [chunk.archive])
    archived.execute("DELETE FROM timeseries_data WHERE source_id = 2 AND timestamp < '2025-01-01'")
    assert lifecycle.compress(archived) != []
    (summary,) = parquet.put_back(archived, [chunk.archive])
    assert 0 < summary.written < summary.read
    rows = set(_rows(archived))
    assert rows < set(archived.before)
    assert len(rows) == chunk.rows + 1


def test_another_database_takes_the_rows_where_their_sources_are(archived, empty, tmp_path):
    from tidemark import migrations

    with empty.connect() as other:
        migrations.migrate(other)
        with pytest.raises(Problem):
            parquet.put_back(other, [tmp_path / "archive"])
        assert other.execute("SELECT status::text, rows_read, error <> '' FROM ingestion_tasks").fetchall() == [
            ("failed", 0, True)
        ]
        other.execute("INSERT INTO sources (source_id, name, data_type) VALUES (1, 'a', 'ohlcv'), (2, 'b', 'ohlcv')")
        parquet.put_back(other, [tmp_path / "archive"])
        assert other.execute(DAILY + " ORDER BY 1, 2").fetchall() == archived.execute(
            DAILY + " WHERE day < '2024-05-01' ORDER BY 1, 2"
        ).fetchall()


def test_interrupted_putting_back_is_completed_by_the_next(archived, tmp_path, monkeypatch):
    whole, file = parquet._batches, archived.dropped[1].archive
    monkeypatch.setattr(parquet, "BATCH_ROWS", 100)

    def broken(path: Path):
        batches = whole(path)
        yield next(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(parquet, "_batches", broken)
    with pytest.raises(KeyboardInterrupt):
        parquet.put_back(archived, [file])
    monkeypatch.setattr(parquet, "_batches", whole)
    (summary,) = parquet.put_back(archived, [file])
    assert (summary.read, summary.written) == (archived.dropped[1].rows, archived.dropped[1].rows - 100)
    assert archived.execute("SELECT status::text, rows_written FROM ingestion_tasks ORDER BY task_id").fetchall() == [
        ("failed", 100), ("succeeded", summary.written)
    ]


def test_damaged_file_keeps_nobody_from_the_others(archived, tmp_path):
    damaged, *others = [chunk.archive for chunk in archived.dropped]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 8:len(content) // 2] = bytes(len(content) // 2 - len(content) // 8)
    damaged.write_bytes(content)
    with pytest.raises(LoadFailed) as failed:
        parquet.put_back(archived, [tmp_path / "archive"])
    assert [bool(summary.error) for summary in failed.value.summaries] == [True, False, False]
    assert [summary.written for summary in failed.value.summaries[1:]] == [c.rows for c in archived.dropped[1:]]
    assert {file for (file,) in archived.execute("SELECT source_ref FROM ingestion_tasks WHERE status = 'succeeded'")
            } == set(map(str, others))


def test_file_that_cannot_go_back_is_refused_before_anything_is_written(archived, tmp_path):
    good = archived.dropped[0].archive

    def refused(path: Path) -> int:
        with pytest.raises(Problem) as problem:
            parquet.put_back(archived, [good, path])
        assert archived.execute("SELECT count(*) FROM ingestion_tasks").fetchone() == (0,)
        return problem.value.exit_code

    def copied(*parts: str) -> Path:
        path = tmp_path.joinpath(*parts, "rows.parquet")
        path.parent.mkdir(parents=True)
        return Path(shutil.copy(good, path))

    assert refused(copied("elsewhere")) == 2
    assert refused(copied("hypertable=nothing")) == 2
    assert refused(copied("hypertable=quotes")) == 2  # which has other columns
    short = copied("hypertable=timeseries_data")
    short.write_bytes(good.read_bytes()[:-100])
    assert refused(short) == 2
    archived.execute("ALTER TABLE timeseries_data DROP CONSTRAINT timeseries_data_pkey")
    assert refused(copied("again", "hypertable=timeseries_data")) == 2


def test_load_takes_archives_beside_other_files(db, archived, tmp_path):
    (tmp_path / "more.csv").write_text("time,value\n2024-01-01,1\n")
    done = subprocess.run(
        [sys.executable, "-c", "from tidemark.cli import main; main()", "load", "archive", "more.csv"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "DATABASE_URL": db.url},
    )
    assert done.returncode == 0, done.stderr
    assert archived.execute("SELECT count(*) FROM timeseries_data").fetchone() == (len(archived.before) + 1,)
    assert archived.execute("SELECT rows_written FROM ingestion_tasks ORDER BY task_id").fetchall() == [
        *((chunk.rows,) for chunk in archived.dropped), (1,)
    ]


def test_parquet_files_are_told_from_others(archived, tmp_path):
    (tmp_path / "a.csv").write_text("time,value\n2024-01-01,1\n")
    (tmp_path / "empty").mkdir()
    assert [parquet.is_archive(path) for path in (
        archived.dropped[0].archive, tmp_path / "archive", tmp_path / "a.csv", tmp_path / "empty", tmp_path / "none",
    )] == [True, True, False, False, False]


def test_names_of_series_go_along(db, tmp_path):
    commands = re.findall(r"^tidemark psql (.*)$", PAGE, re.M)
    assert len(commands) == 2
    if not shutil.which("psql"):
        pytest.skip("psql is not on this machine")
    (tmp_path / "archive").mkdir()
    with db.connect() as connection:
        connection.execute("INSERT INTO assets (symbol, asset_type) VALUES ('X', 'stock')")
        connection.execute("INSERT INTO sources (name, data_type) VALUES ('a, b', 'ohlcv')")
        asset, source = connection.execute(
            "SELECT a.asset_id::text, s.source_id::text FROM assets AS a, sources AS s"
        ).fetchone()
    for command in commands:
        subprocess.run(["psql", "-X", "-q", db.url, *shlex.split(command)], cwd=tmp_path, check=True)
    assert {file.name: file.read_text().splitlines() for file in (tmp_path / "archive").iterdir()} == {
        "assets.csv": ["asset_id,symbol,exchange", f"{asset},X,"],
        "sources.csv": ["source_id,name", f'{source},"a, b"'],
    }


def test_page_names_the_files_as_they_are(archived, tmp_path):
    names = re.findall(r"^archive/hypertable=\S+$", PAGE, re.M)
    pattern = re.compile(r"archive/hypertable=timeseries_data/start=\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ/\S+\.parquet")
    assert names and all(pattern.fullmatch(name) for name in names)
    assert all(pattern.fullmatch(str(chunk.archive.relative_to(tmp_path))) for chunk in archived.dropped)
    assert all(chunk.range_start.date() < date(2024, 5, 1) for chunk in archived.dropped)
