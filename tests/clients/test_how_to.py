"""docs/how-to.md: its blocks run as they stand, one after the other, and do what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Database, _database
from psycopg import sql

from clients.conftest import fill, sqlalchemy_url
from tidemark.config import ROOT

PAGE = (ROOT / "docs/how-to.md").read_text()
BLOCKS = re.findall(r"^## (.*?)$|^```(\w+)\n(.*?)^```", PAGE, re.M | re.S)
ROLES = ("desk_volt", "desk_web", "grafana")
RUN = {
    "sql": ["psql", "-X", "-v", "ON_ERROR_STOP=1"],
    "sh": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
}
BARS = "date,open,high,low,close,volume\n" + "".join(f"2024-01-{d:02},1,2,1,{d},10\n" for d in range(2, 20))
GOLD = '[{"timestamp": "2024-01-01", "value": 2063.1}, {"timestamp": "2024-01-02", "value": "much"}]'


@pytest.fixture(scope="module")
def followed(server, template, tmp_path_factory):
    """The sample database after somebody typed all of the page; `said` is what each section printed."""
    folder = tmp_path_factory.mktemp("how-to")
    (folder / "bars.csv").write_text(BARS)
    (folder / "gold.json").write_text(GOLD)
    (folder / "grafana").symlink_to(ROOT / "grafana")
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    with _database(server, template) as database, _database(server, None) as other, database.connect() as admin:
        taken = admin.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)", [list(ROLES)]).fetchall()
        assert taken == [], "the server is not the tests' own"
        desk = fill(admin)
        admin.execute("SET tidemark.ingest_mode = 'backfill'")
        admin.execute("INSERT INTO quotes (asset_id, ts, price) VALUES (%s, '2015-06-01', 230)", [desk.asset])
        try:
            said = follow(database, other, folder)
            yield SimpleNamespace(said=said, database=database, other=other, folder=folder, desk=desk)
        finally:
            for role in ROLES:
                admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def follow(database: Database, other: Database, folder: Path) -> dict[str, str]:
    said, section = {}, ""
    environment = os.environ | {
        "DATABASE_URL": sqlalchemy_url(database).render_as_string(hide_password=False),
        "EMPTY_DATABASE_URL": sqlalchemy_url(other).render_as_string(hide_password=False),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for title, language, text in BLOCKS:
        if title:
            section = title
            continue
        commands = [text]
        if language == "crontab":  # five fields, and a % is written \%
            language = "sh"
            commands = [line.split(maxsplit=5)[5].replace("\\%", "%").replace("/srv/tidemark", str(folder))
                        for line in text.splitlines()]
        for command in commands:
            # psql reads a script, as several statements in one -c would be one transaction.
            arguments, script = (["-d", database.url], command) if language == "sql" else ([command], "")
            done = subprocess.run([*RUN[language], *arguments], input=script, text=True, capture_output=True,
                                  cwd=folder, env=environment, check=False)
            assert done.returncode == 0, f"{section}: {command}\n{done.stdout}\n{done.stderr}"
            said[section] = said.get(section, "") + done.stdout
    return said


def one(followed, query: str) -> tuple:
    with followed.database.connect() as connection:
        return connection.execute(query).fetchone()


def test_page_is_short_and_each_section_has_something_to_type():
    assert len(PAGE.splitlines()) <= 220
    headings = re.split(r"^## ", PAGE, flags=re.M)[1:]
    assert len(headings) >= 13
    assert [text.splitlines()[0] for text in headings if "\n```" not in text] == []


def test_files_are_loaded_and_what_is_wrong_is_told(followed):
    assert one(followed, "SELECT count(*) FROM candles JOIN assets USING (asset_id) WHERE symbol = 'AAPL'") == (18,)
    assert "much" in followed.said["Load files"]


def test_application_finds_its_tables(followed):
    assert re.search(r"ETHUSDT \| 2024-01-01 .*2281.5", followed.said["Point an application at it"])


def test_source_is_judged_by_its_profile_and_rule(followed):
    assert one(followed, "SELECT quality_score FROM timeseries_data JOIN sources USING (source_id)"
                         " WHERE name = 'eth_gas'") == (90,)
    assert "validation" in followed.said["Write a validation rule"]


def test_worst_episode_is_settled(followed):
    assert "spike" in followed.said["Review anomalies"]
    assert one(followed, "SELECT count(*) > 0 FROM anomalies WHERE status = 'confirmed_error'"
                         " AND notes = 'wrong digit'") == (True,)


def test_gap_is_found(followed):
    assert len(re.findall(r" 3\n", followed.said["Find gaps"])) == 1


def test_aggregate_has_rows(followed):
    assert "(3 rows)" in followed.said["Add an aggregate"]


def test_old_quote_went_to_a_file(followed):
    assert "dropped 1 chunks, 1 rows" in followed.said["Drop old data, and keep them elsewhere"]
    assert list((followed.folder / "archive").rglob("*.parquet"))
    assert one(followed, "SELECT count(*) FROM quotes WHERE ts < '2016-01-01'") == (0,)


def test_changes_are_told_and_undone(followed):
    assert re.search(r"\| ann +\|.*\{status\}", followed.said["See who changed a row, and undo it"])
    assert one(followed, "SELECT status::text FROM sources WHERE source_id = 1") == ("active",)
    assert one(followed, "SELECT count(*) FROM timeseries_data WHERE source_id = 1") == (297,)


def test_user_sees_himself_alone(followed):
    section = "Give a user a login, and show him his own rows only"
    assert "INSERT 0 1" in followed.said[section]
    assert one(followed, "SELECT count(*) FROM watchlists") == (1,)


def test_backup_is_proved_and_restored(followed):
    assert "restores" in followed.said["Back up and restore"]
    with followed.other.connect() as connection:
        assert connection.execute("SELECT count(*) FROM candles").fetchone() == (319,)


def test_frame_and_models_are_written(followed):
    assert one(followed, "SELECT count(*) FROM timeseries_data WHERE source_id = 2") == (300 + 278,)
    assert "class Candles(Base)" in (followed.folder / "models.py").read_text()


def test_cron_keeps_a_backup_and_a_calendar(followed):
    assert len(list((followed.folder / "backups").iterdir())) == 2
    assert one(followed, "SELECT count(*) > 365 FROM market_calendar WHERE market = '24/7'") == (True,)
