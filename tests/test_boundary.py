"""Whatever happens in a verb ends in one line and an exit code, never in a traceback or a code of the server's."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import _database, adder
from test_queries import fill

from tidemark import lifecycle
from tidemark.cli import main
from tidemark.errors import Problem

TIDEMARK = [sys.executable, "-c", "from tidemark.cli import main; main()"]
LONG = "x" * 300


@pytest.fixture(scope="module")
def filled(server, template):
    with _database(server, template) as database:
        with database.connect(autocommit=False) as connection:
            fill(connection, adder(connection))
        yield database


@pytest.fixture
def run(monkeypatch):
    """`run(database, *arguments)` calls tidemark on it."""
    def call(database, *arguments: object, **keywords) -> Result:
        monkeypatch.setenv("DATABASE_URL", database.url)
        return CliRunner().invoke(main, list(map(str, arguments)), **keywords)
    return call


def line_of(result: Result, code: int) -> str:
    """The one line that is said, which is for people."""
    assert result.exit_code == code, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("tidemark: ")
    assert "SQLSTATE" not in line
    return line


def outside(database, *arguments: object, **keywords) -> subprocess.Popen:
    """A process of its own, for what signals and streams do."""
    environment = {**os.environ, "DATABASE_URL": database.url}
    environment.pop("PYTHONUNBUFFERED", None)  # as most people have it
    return subprocess.Popen([*TIDEMARK, *map(str, arguments)], env=environment, stderr=subprocess.PIPE, text=True,
                            **keywords)


@pytest.mark.parametrize("verb", [
    "stats", "maintain", "refresh", "compress", "clean --yes", "calendar", "query coverage", "query gaps source=x",
    "query daily_bars --csv", "query daily_bars --json", "anomalies list", "anomalies list --json", "anomalies ack 1",
])
def test_database_without_the_schema_is_told_apart(empty, run, verb):
    assert "tidemark migrate" in line_of(run(empty, *verb.split()), 2)


def test_database_behind_the_schema_is_told_apart(db, run):
    with db.connect() as connection:
        connection.execute("DROP VIEW coverage CASCADE; DELETE FROM _tidemark_migrations.applied_files"
                           " WHERE file = (SELECT max(file) FROM _tidemark_migrations.applied_files)")
    assert "behind schema/" in line_of(run(db, "query", "coverage"), 2)


@pytest.mark.parametrize(("arguments", "word"), [
    (["query", "latest_candles", "symbol=typo"], "symbol 'typo'"),
    (["query", "latest_candles", "symbol="], "symbol ''"),
    (["query", "latest_candles", "symbol=typo", "--json"], "symbol 'typo'"),
    (["query", "latest_candles", f"symbol={LONG}"], "there is no symbol"),
    (["query", "gaps", "source=typo", "--csv"], "source 'typo'"),
    (["query", "row_audit", "table=typo", "key={}"], "table 'typo'"),
    (["query", "row_audit", "table=a.b.c.d", "key={}"], "table 'a.b.c.d'"),
    (["query", "row_audit", "table=assets", "key={"], "key = '{' is no jsonb"),
    (["query", "latest_candles", "symbol=AAPL", "interval=7d"], "interval = '7d' is no candle_interval"),
    (["query", "daily_bars", "count=many"], "count = 'many' is no integer"),
    (["query", "daily_bars", "count=99999999999"], "is no integer"),
    (["query", "daily_bars", "count=-1"], "daily_bars cannot be asked so"),
    (["query", "daily_bars", "count=-1", "--csv"], "daily_bars cannot be asked so"),
    (["query", "average_price", "since=soon"], "since = 'soon' is no timestamptz"),
    (["query", LONG], "there is no query"),
    (["anomalies", "list", "--symbol", "typo"], "symbol 'typo'"),
    (["anomalies", "list", "--source", "typo"], "source 'typo'"),
    (["anomalies", "list", "--table", "typo"], "table 'typo'"),
    (["anomalies", "list", "--since", "soon"], "since = 'soon'"),
    (["anomalies", "list", "--limit", "-1"], "--limit"),
    (["anomalies", "ack", "9" * 30], "ANOMALY_ID"),
    (["refresh", "--from", "2024-01-02", "--to", "2024-01-01"], "--from"),
    (["compress", "--older-than", "soon"], "'soon'"),
    (["calendar", "--market", LONG], "unknown market"),
    (["rollback", "-n", "0"], "--help"),
    ([LONG], "--help"),
])
def test_what_does_not_exist_or_cannot_be_meant_is_named(filled, run, arguments, word):
    assert word in line_of(run(filled, *arguments), 2)


def test_verdict_on_an_anomaly_that_is_not_there(filled, run):
    assert "anomaly 99" in line_of(run(filled, "anomalies", "ack", 99), 1)


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "file").write_text("nothing")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "piped").mkdir()
    os.mkfifo(tmp_path / "piped" / "manifest.json")
    return tmp_path


@pytest.mark.parametrize("verb", [["restore"], ["backup", "--verify"]])
@pytest.mark.parametrize("name", ["file", "directory", "pipe", "piped", "absent", LONG])
def test_what_is_no_backup_is_refused(filled, run, place, verb, name):
    line_of(run(filled, *verb, place / name), 2)


@pytest.mark.parametrize("name", ["file", "file/below", "pipe", "piped", "absent/below", LONG])
def test_place_that_takes_no_backup_is_refused(filled, run, place, name):
    line_of(run(filled, "backup", place / name), 2)


@pytest.mark.parametrize("options", [[], ["--logic"]])
def test_file_name_too_long_for_the_disk(filled, run, options):
    assert "too long" in line_of(run(filled, "new", *options, LONG), 2)


@pytest.mark.parametrize(("error", "word", "code"), [
    (OSError(28, "No space left on device", "/a/file"), "free some space", 1),
    (PermissionError(13, "Permission denied", "/a/file"), "/a/file: Permission denied", 2),
    (OSError("no number"), "no number", 1),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "UTF-8", 1),
    (MemoryError(), "memory", 1),
    (RecursionError("deep"), "RecursionError", 1),
    (KeyError("two\nlines"), "KeyError", 1),
    (KeyboardInterrupt(), "interrupted", 130),
])
def test_any_error_is_one_line(filled, run, monkeypatch, error, word, code):
    def fail(connection):
        raise error

    monkeypatch.setattr(lifecycle, "stats", fail)
    assert word in line_of(run(filled, "stats"), code)


def test_error_of_any_length_is_a_line_one_can_read(filled, run, monkeypatch, tmp_path):
    names = ",".join(f"c{n}" for n in range(60_000))
    (tmp_path / "wide.csv").write_text(f"{names}\n" + f"2024-01-01T00:00Z,{names},1\n" * 2)
    assert len(line_of(run(filled, "load", tmp_path / "wide.csv", "--source", "s"), 2)) < 1000

    def fail(connection):
        raise Problem("x" * 100_000)

    monkeypatch.setattr(lifecycle, "stats", fail)
    assert len(line_of(run(filled, "stats"), 1)) < 5000


def test_debugging_shows_where(filled, run, monkeypatch):
    monkeypatch.setenv("TIDEMARK_DEBUG", "1")
    monkeypatch.setattr(lifecycle, "stats", lambda connection: {}[0])
    assert isinstance(run(filled, "stats").exception, KeyError)


@pytest.mark.parametrize("verb", ["reset", "rollback", "rollback --all"])
def test_question_is_seen_where_the_output_is_not_and_no_answer_is_a_no(filled, run, verb):
    result = run(filled, *verb.split(), input="")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "[y/N]" in result.stderr
    with filled.connect() as connection:
        assert connection.execute("SELECT count(*) > 0 FROM candles").fetchone() == (True,)


@pytest.mark.parametrize("verb", ["query", "query daily_bars --csv", "stats", "doctor", "status"])
def test_reader_that_has_had_enough_ends_it_without_a_word(filled, verb):
    reading, writing = os.pipe()
    os.close(reading)
    process = outside(filled, *verb.split(), stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == ""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("verb", ["--help", "query daily_bars"])
def test_output_that_is_full_or_closed_is_an_error(filled, verb):
    with Path("/dev/full").open("w") as full:
        process = outside(filled, *verb.split(), stdout=full)
        (line,) = process.communicate()[1].splitlines()
    assert (process.returncode, "No space left" in line) == (1, True)
    process = outside(filled, *verb.split(), preexec_fn=lambda: os.close(1))
    (line,) = process.communicate()[1].splitlines()
    assert (process.returncode, "closed" in line) == (2, True)


def test_character_that_the_terminal_lacks_is_spelled_out(db, monkeypatch):
    with db.connect() as connection:
        adder(connection)("sources", name="€ rates")
        connection.execute("INSERT INTO timeseries_data (source_id, timestamp, value) SELECT source_id, now(), 1"
                           " FROM sources")
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    process = outside(db, "query", "coverage", stdout=subprocess.PIPE)
    assert "\\u20ac rates" in process.communicate()[0]
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_is_one_line_and_lets_go(filled, number):
    with filled.connect(autocommit=False) as holder, filled.connect() as connection:
        holder.execute("LOCK TABLE assets")
        process = outside(filled, "query", "latest_candles", "symbol=AAPL", stdout=subprocess.PIPE)
        waiting = ("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidemark'"
                   " AND wait_event_type = 'Lock'")
        deadline = time.monotonic() + 20
        while connection.execute(waiting).fetchone() == (0,) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.communicate(timeout=20)[1].splitlines() == ["tidemark: interrupted"]
        assert process.returncode == 128 + number
        while connection.execute(waiting).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_server_that_goes_away_is_one_line(filled):
    with filled.connect(autocommit=False) as holder, filled.connect() as connection:
        holder.execute("LOCK TABLE assets")
        process = outside(filled, "query", "latest_candles", "symbol=AAPL", stdout=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while not connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ="
                                     " 'tidemark' AND wait_event_type = 'Lock'").fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (line,) = process.communicate(timeout=20)[1].splitlines()
    assert process.returncode == 1
    assert "SQLSTATE" not in line


@pytest.fixture
def flagged(db):
    """Anomalies of two assets and a source, one of them settled."""
    with db.connect() as connection:
        add = adder(connection)
        for number, symbol in enumerate(("AAPL", "MSFT", "MSFT")):
            asset = connection.execute("SELECT asset_id FROM assets WHERE symbol = %s", (symbol,)).fetchone()
            asset = asset[0] if asset else add("assets", symbol=symbol, exchange="X")
            anomaly(connection, "candles", {"asset_id": str(asset), "interval": "1d"}, number)
        anomaly(connection, "timeseries_data", {"source_id": add("sources", name="a feed")}, 3)
        connection.execute("UPDATE anomalies SET status = 'real_event', reviewed_by = 'me', reviewed_at = now()"
                           " WHERE timestamp = '2024-01-03 00:00+00'")
    return db


def anomaly(connection, table, series, number) -> None:
    connection.execute(
        "INSERT INTO anomalies (table_name, series, source_id, asset_id, interval, timestamp, severity, kind, z_score,"
        " value, observed, expected, scale, samples, detector_version)"
        " VALUES (%(table)s, %(series)s, %(source)s, %(asset)s, %(interval)s,"
        " timestamptz '2024-01-01 00:00+00' + %(n)s * interval '1 day', %(severity)s, 'spike', %(z)s, 1, 1, 0, 1, 100,"
        " 1)",
        {"table": table, "series": json.dumps(series), "source": series.get("source_id"), "n": number,
         "asset": series.get("asset_id"), "interval": series.get("interval"), "z": 5.0 + number,
         "severity": "black_swan" if number else "anomaly"},
    )


@pytest.mark.parametrize(("filters", "series"), [
    ("", ["a feed", "MSFT X 1d", "AAPL X 1d"]),
    ("--symbol MSFT", ["MSFT X 1d"]),
    ("--source", ["a feed"]),
    ("--table candles", ["MSFT X 1d", "AAPL X 1d"]),
    ("--severity black_swan", ["a feed", "MSFT X 1d"]),
    ("--status real_event", ["MSFT X 1d"]),
    ("--since 2024-01-02", ["a feed", "MSFT X 1d"]),
    ("--limit 1", ["a feed"]),
    ("--status dismissed", []),
])
def test_anomalies_are_listed_by_name_and_filtered(flagged, run, filters, series):
    arguments = ["--source", "a feed"] if filters == "--source" else filters.split()
    answer = run(flagged, "anomalies", "list", *arguments, "--json")
    assert [one["series"] for one in json.loads(answer.stdout)] == series
    answer = run(flagged, "anomalies", "list", *arguments, "--csv")
    assert [one["series"] for one in csv.DictReader(io.StringIO(answer.stdout))] == series
    assert [line for line in run(flagged, "anomalies", "list", *arguments).stdout.splitlines()[1:]
            if not any(name in line for name in series)] == []
