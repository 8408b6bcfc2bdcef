"""psql: files in and out, what it says about tables, and how a script learns of an error."""

from __future__ import annotations

import subprocess

import pytest
from conftest import adder

FILE = """timestamp,close,value,metadata
2024-03-31 00:30:00+00,1.5,,"{""a"": ""x, y""}"
2024-03-31 03:30:00+02,NaN,0,
2024-03-31 02:30:00Z,,-2.25,
"""


@pytest.fixture
def source(db):
    with db.connect() as connection:
        return adder(connection)("sources", name="file", data_type="scalar")


def psql(db, script: str, *options: str, status: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, "-d", db.url], input=script,
                          text=True, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_copy_reads_a_csv_file_and_writes_it_again(db, source, tmp_path):
    arriving, leaving = tmp_path / "in.csv", tmp_path / "out.csv"
    arriving.write_text(FILE)
    # A COPY into a table names all columns or a default for the rest; the source is the same in every line.
    psql(db, f"""
        CREATE TEMP TABLE arriving (timestamp timestamptz, close float8, value float8, metadata jsonb);
        \\copy arriving FROM '{arriving}' (FORMAT csv, HEADER)
        INSERT INTO timeseries_data (source_id, timestamp, close, value, metadata)
        SELECT :source, * FROM arriving;
        SET timezone = 'UTC';
        \\copy (SELECT timestamp, close, value, metadata FROM timeseries_data ORDER BY 1) TO '{leaving}' (FORMAT csv)
    """, "-v", f"source={source}")
    assert leaving.read_text().splitlines() == [
        '2024-03-31 00:30:00+00,1.5,,"{""a"": ""x, y""}"',
        "2024-03-31 01:30:00+00,NaN,0,",
        "2024-03-31 02:30:00+00,,-2.25,",
    ]


def test_copy_straight_into_a_table_is_scored(db, source):
    psql(db, "COPY timeseries_data (source_id, timestamp, value) FROM STDIN;\n"
             f"{source}\t2024-01-01 00:00+00\t1\n{source}\t2024-01-01 01:00+00\t\\N\n\\.\n")
    answer = psql(db, "SELECT value, quality_score FROM timeseries_data ORDER BY timestamp", "--csv", "-t")
    assert answer.stdout.splitlines() == ["1,100", ",70"]


def test_description_of_a_table_says_what_it_and_its_columns_mean(db):
    for table in ("candles", "sources", "users"):
        described = psql(db, f"\\d+ {table}").stdout
        assert f"{table}_pkey" in described
        comments = psql(db, f"""
            SELECT coalesce(col_description(attrelid, attnum), 'no comment') FROM pg_attribute
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped""", "-A", "-t").stdout
        assert len(comments.splitlines()) > 10
        assert all(comment in described for comment in comments.splitlines())
    assert "Bars of assets" in psql(db, "\\dt+ candles").stdout
    assert "Brings all aggregates up to date" in psql(db, "\\df+ public.refresh_aggregates", "-A").stdout


def test_script_ends_at_an_error_and_can_tell_which(db, source):
    bad = f"INSERT INTO timeseries_data (source_id, timestamp) VALUES ({source}, 'infinity');"
    failed = psql(db, f"\\set VERBOSITY sqlstate\n{bad}\n\\echo not reached", status=3)
    assert (failed.stdout, failed.stderr.strip().endswith("23514")) == ("", True)
    told = psql(db, f"\\set ON_ERROR_STOP off\n{bad}\n\\echo :SQLSTATE")
    assert told.stdout == "23514\n"
