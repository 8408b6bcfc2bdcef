"""The runner means the same whatever the server, the database or the role have for settings."""

from __future__ import annotations

import json
import os
import subprocess

from click.testing import CliRunner

from tidemark import database
from tidemark.cli import main

# Everything that changes how values are written and read, what a statement means, or how long it may take.
ODD = {
    "client_encoding": "LATIN1", "DateStyle": "German, DMY", "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "0", "bytea_output": "escape", "quote_all_identifiers": "on",
    "standard_conforming_strings": "off", "backslash_quote": "on", "array_nulls": "off", "transform_null_equals": "on",
    "search_path": '"nowhere"', "row_security": "off", "check_function_bodies": "off",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
    "client_min_messages": "debug1",
    "statement_timeout": "250ms", "lock_timeout": "1ms", "idle_in_transaction_session_timeout": "250ms",
}
BARS = "timestamp,value,open,high,low,close,volume\n2024-01-02T10:00:00Z,1.1,1,2,0.5,1.1,10\n"


def odd_settings(url: str) -> None:
    with database.connect(url) as connection:
        name = connection.info.dbname
        for setting, value in ODD.items():
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")


def tidemark(url: str, *arguments: str) -> str:
    result = CliRunner().invoke(main, arguments, env={"DATABASE_URL": url})
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


def test_each_setting_is_odd(empty):
    """Or the test below would prove nothing."""
    with empty.connect() as connection:
        for setting, value in ODD.items():
            usual = connection.execute("SELECT setting FROM pg_settings WHERE lower(name) = lower(%s)", (setting,))
            assert usual.fetchone()[0] != value


def test_verbs_answer_the_same_under_odd_settings(empty, tmp_path):
    odd_settings(empty.url)
    file = tmp_path / "bars.csv"
    file.write_text(BARS)
    tidemark(empty.url, "migrate")
    tidemark(empty.url, "load", str(file), "--source", "odd", "--interval", "1d")
    tidemark(empty.url, "verify")
    for verb in (["refresh"], ["maintain"], ["stats"], ["anomalies", "list"], ["query", "coverage"], ["history"]):
        tidemark(empty.url, *verb)
    assert json.loads(tidemark(empty.url, "status", "--json"))["up_to_date"] is True
    (series,) = [s for s in json.loads(tidemark(empty.url, "stats", "--json"))["hypertables"] if s["rows"]]
    assert series["oldest"] == "2023-12-19T00:00:00+00:00"
    (bar,) = json.loads(tidemark(empty.url, "query", "coverage", "--json"))
    assert "2024-01-02T10:00:00+00:00" in bar.values()
    with database.connect(empty.url) as connection:
        assert connection.execute("SELECT close, volume FROM timeseries_data").fetchone() == (1.1, 10)


def test_backup_under_odd_settings_is_the_backup_without(empty, db, tmp_path):
    odd_settings(db.url)
    tidemark(db.url, "backup", str(tmp_path / "backup"))
    tidemark(empty.url, "restore", str(tmp_path / "backup"))


def test_only_questions_keep_the_servers_time_limits(empty):
    odd_settings(empty.url)
    with database.connect(empty.url) as patient, database.connect(empty.url, limited=True) as limited:
        for name in database.UNLIMITED:
            asked = "SELECT setting FROM pg_settings WHERE name = %s AND setting <> '0'"
            assert patient.execute(asked, (name,)).fetchone() is None
        assert limited.execute("SHOW statement_timeout").fetchone() == ("250ms",)


def test_psql_is_set_the_same_unless_its_user_chose_otherwise(db, tmp_path, monkeypatch):
    odd_settings(db.url)
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setattr(os, "execvpe", lambda file, arguments, environment: calls.append((arguments, environment)))
    calls = []
    tidemark(db.url, "psql", "-XAtc", "SELECT '→', timestamptz '2024-01-02 00:00+00', 1.5::real")
    (arguments, environment), = calls
    said = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == "→|2024-01-02 09:00:00+09|1.5\n"
