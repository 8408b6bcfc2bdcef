"""From a release on: its state files never change, and a database that it made becomes what a fresh one is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import fill

from tidemark import catalog, config, migrations, release
from tidemark.errors import Problem
from tidemark.lifecycle import refresh
from tidemark.schema_files import schema_files

RELEASES = sorted(release.FOLDER.glob("*.tar.xz"))
HISTORY = """
    INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, value)
    SELECT (SELECT min(source_id) FROM sources), timestamptz '2025-01-01' + i * interval '1 hour',
           i, i + 1, i - 0.5, i, i, i
      FROM generate_series(1, 500) AS i
"""


@pytest.fixture
def root(tmp_path) -> Path:
    """A copy of what a release takes from the checkout, with a heading for its version."""
    for name in ("schema", "migrations"):
        shutil.copytree(config.CHECKOUT / name, tmp_path / "next" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(config.CHECKOUT / name, tmp_path / "next")
    with (tmp_path / "next/CHANGELOG.md").open("a") as changes:
        changes.write("\n## [0.1.0]\n")
    return tmp_path / "next"


def use(monkeypatch, root: Path) -> None:
    monkeypatch.setattr(config, "SCHEMA", root / "schema")
    monkeypatch.setattr(config, "MIGRATIONS", root / "migrations")


def numbers(connection) -> dict[str, tuple[int, str]]:
    """Rows and a checksum of each table of public, of the columns that it had."""
    tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
    return {table: connection.execute(
        f"SELECT count(*), sum(hashtextextended(to_jsonb(t)::text, 0)::numeric)::text FROM {table} AS t"
    ).fetchone() for (table,) in tables}


def upgrade(monkeypatch, database, old: Path, new: Path) -> None:
    """Make a database with the old files, use it, and migrate it to the new ones."""
    use(monkeypatch, old)
    with database.connect() as connection:
        migrations.migrate(connection)
        fill(connection)
        connection.execute(HISTORY)
        connection.execute("SELECT set_config('tidemark.reason', 'test', false)")
        connection.execute("INSERT INTO quality_profiles (name, market) VALUES ('by a usual name', 'NYSE')")
        refresh(connection)
        before = numbers(connection)
        audit = connection.execute("SELECT count(*) FROM verify_audit()").fetchone()  # a made-up seal holds for nothing
    use(monkeypatch, new)
    with database.connect() as connection:
        migrations.migrate(connection)
        assert catalog.differences(connection) == []
        after = numbers(connection)
        # The record grows by what a migration changes of what it covers, and by nothing else.
        grown = {table: after[table][0] - before[table][0] for table in before}
        assert {table for table in grown if grown[table]} <= {"audit_log", "audit_tx"}
        assert grown["audit_log"] == connection.execute(
            "SELECT count(*) FROM audit_log WHERE reason IN ('scalars are judged by their differences',"
            " 'markets are named by the codes of their calendars')").fetchone()[0]
        assert connection.execute("SELECT count(*) FROM verify_audit()").fetchone() == audit
        assert migrations.migrate(connection).up_to_date


def test_released_state_files_are_what_they_were():
    assert release.broken() == []
    assert {version for _, version in release.released().values()} <= {
        path.name.removesuffix(".tar.xz") for path in RELEASES}


@pytest.mark.parametrize("archive", RELEASES, ids=lambda path: path.name)
def test_database_of_a_release_is_migrated_to_what_is_here(empty, monkeypatch, tmp_path, archive):
    release.unpack(archive, tmp_path)
    upgrade(monkeypatch, empty, tmp_path, config.CHECKOUT)


def test_release_is_made_and_migrated_from(empty, monkeypatch, tmp_path, root):
    """The machinery, on a release of what is here and a version after it."""
    folder = tmp_path / "releases"
    assert release.release(folder, root) == "0.1.0"
    assert {version for _, version in release.released(folder).values()} == {"0.1.0"}
    release.unpack(folder / "0.1.0.tar.xz", tmp_path / "old")
    (root / "schema/state/9999_venues.sql").write_text(
        "CREATE TABLE public.venues (venue_id integer PRIMARY KEY);\n"
        "COMMENT ON TABLE public.venues IS 'x'; COMMENT ON COLUMN public.venues.venue_id IS 'x';\n"
        "ALTER TABLE public.assets ADD COLUMN venue_id integer REFERENCES public.venues;\n"
        "COMMENT ON COLUMN public.assets.venue_id IS 'x';\n"
    )
    (root / "migrations/9999_venues.py").write_text(
        "from yoyo import step\nfrom tidemark.migrations import state\n__depends__ = {'460_trading_state'}\n"
        "steps = [step(state(__file__), 'ALTER TABLE public.assets DROP COLUMN venue_id; DROP TABLE public.venues')]\n"
    )
    upgrade(monkeypatch, empty, tmp_path / "old", root)


def test_release_is_made_once_and_never_of_what_changed(tmp_path, root):
    folder = tmp_path / "releases"
    changes = root / "CHANGELOG.md"
    text = changes.read_text()
    changes.write_text(text.replace("## [0.1.0]", ""))
    with pytest.raises(Problem, match="heading"):
        release.release(folder, root)
    changes.write_text(text)
    release.release(folder, root)
    with pytest.raises(Problem, match="already"):
        release.release(folder, root)
    project = root / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "0.1.0"', 'version = "0.2.0"'))
    changes.write_text(text + "\n## [0.2.0]\n")
    edited = root / "schema/state/010_enums.sql"
    original = edited.read_text()
    edited.write_text(original + "-- edited\n")
    (root / "schema/state/9999_more.sql").write_text("SELECT 1;\n")
    assert release.broken(folder, root) == ["schema/state/010_enums.sql of 0.1.0 was edited"]
    with pytest.raises(Problem, match="changed"):
        release.release(folder, root)
    edited.write_text(original)
    assert release.release(folder, root) == "0.2.0"
    assert release.released(folder)["9999_more.sql"][1] == "0.2.0"
    assert release.released(folder)["010_enums.sql"][1] == "0.1.0"
    assert list(release.released(folder)) == [
        *(file.name for file in schema_files() if not file.is_logic), "9999_more.sql"]
    more = root / "schema/state/9999_more.sql"
    more.write_text("SELECT 2;\n")
    assert release.broken(folder, root) == ["schema/state/9999_more.sql of 0.2.0 was edited"]
    more.unlink()
    assert release.broken(folder, root) == ["schema/state/9999_more.sql of 0.2.0 is missing"]
    more.write_text("SELECT 1;\n")
    edited.unlink()
    assert release.broken(folder, root) == ["schema/state/010_enums.sql of 0.1.0 is missing"]
