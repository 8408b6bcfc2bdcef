"""The wheel and the sdist are the product: each installed on its own, away from the checkout, migrates and answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tidemark import config

PROJECT = tomllib.loads((config.CHECKOUT / "pyproject.toml").read_text())["project"]
# What a base install may bring along: the four that are named, and what these need.
LIGHT = {
    "tidemark", "psycopg", "psycopg-binary", "typing-extensions", "yoyo-migrations", "importlib-metadata", "zipp",
    "sqlparse", "tabulate", "click", "python-dotenv", "pip", "setuptools", "lazy-importer",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """Both, built from a copy of what git has and of what is new, so that nothing is left in the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], text=True,
                            cwd=config.CHECKOUT, capture_output=True)
    names = listed.stdout.split("\0")[:-1] or [
        str(path.relative_to(config.CHECKOUT)) for path in config.CHECKOUT.rglob("*") if path.is_file()]
    for name in names:
        if (config.CHECKOUT / name).is_file() and not name.startswith(("tests/", ".venv/", "bench/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((config.CHECKOUT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--outdir", target, source], check=True, capture_output=True)
    return {"wheel": next(target.glob("*.whl")), "sdist": next(target.glob("*.tar.gz"))}


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def bindir(request, built, tmp_path_factory) -> Path:
    """Where the programs of a fresh environment are that has nothing but Tidemark and what it needs."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/pip", "install", "--quiet", built[request.param]], check=True, capture_output=True)
    return folder / "bin"


@pytest.fixture
def installed(bindir, tmp_path):
    """`installed(*arguments)` calls the installed program in an empty directory; fails where it does."""
    def call(*arguments: str, code: int = 0, cwd: Path = tmp_path, **environment: str) -> str:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TIDEMARK", "PYTHON", "DATABASE_URL"))}
        done = subprocess.run([bindir / "tidemark", *arguments], cwd=cwd, env=clean | environment,
                              capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr
    return call


def test_everything_that_is_needed_is_inside_and_nothing_beside_it(built):
    names = zipfile.ZipFile(built["wheel"]).namelist()
    assert {name.partition("/")[0] for name in names} == {"tidemark", f"tidemark-{PROJECT['version']}.dist-info"}
    shipped = {f"tidemark/_shipped/{path.relative_to(config.CHECKOUT)}"
               for folder in ("schema", "migrations", "queries", "grafana", "docs")
               for path in (config.CHECKOUT / folder).rglob("*") if path.is_file() and "__pycache__" not in str(path)}
    assert shipped - set(names) == set()
    own = {f"tidemark/{path.name}" for path in (config.CHECKOUT / "runner").iterdir() if path.is_file()}
    assert own - set(names) == set()


def test_base_install_is_light(bindir):
    listed = subprocess.run([bindir / "pip", "list", "--format=json"], check=True, capture_output=True)
    assert {one["name"].lower().replace("_", "-") for one in json.loads(listed.stdout)} <= LIGHT


def test_installed_program_migrates_proves_and_answers(installed, empty):
    url = {"DATABASE_URL": empty.url}
    assert "applied" in installed("migrate", **url)
    assert "the database is what schema/ says" in installed("verify", **url)
    assert "coverage" in installed("query", **url)
    installed("query", "coverage", **url)
    # The throw-away server does without fsync, of which the doctor rightly says that it is critical.
    assert re.search(r"^ok +migrations", installed("doctor", code=2, **url), re.M)
    assert "pip install" in installed("seed", code=2, **url)
    assert "--dir DIR" in installed("new", "venues", code=2, **url)


def test_project_of_ones_own_comes_after_what_is_shipped(installed, empty, tmp_path):
    """A table, a rule, a view and a question in a directory of the user's: applied, proved, asked, undone."""
    url = {"DATABASE_URL": empty.url}
    desk = tmp_path / "desk"
    installed("--dir", "desk", "new", "venues")
    installed("new", "--dir", "desk", "--logic", "busy venues")
    (desk / "schema/state/100_venues.sql").write_text(
        "CREATE TABLE public.venues (venue_id integer PRIMARY KEY, asset_id uuid REFERENCES public.assets);\n"
        "SET LOCAL tidemark.reason = 'ours';\n"
        "INSERT INTO public.validation_rules (name, applies_to, rule_type, parameters)\n"
        "VALUES ('ours', 'candles', 'range', '{\"column\": \"volume\", \"max\": 1e12}');\n"
    )
    migration = desk / "migrations/100_venues.py"
    migration.write_text(migration.read_text().replace(
        "-- how to undo it", "DELETE FROM public.validation_rules WHERE name = 'ours';\nDROP TABLE public.venues;"))
    logic = desk / "schema/logic/500_busy_venues.sql"
    logic.write_text("CREATE OR REPLACE VIEW public.busy_venues AS SELECT v.venue_id FROM public.venues AS v;\n")
    (desk / "queries").mkdir()
    (desk / "queries/venues.sql").write_text(
        "-- Which venues are busy?\n-- parameters:\n-- columns: venue_id integer\n-- cost: few rows\n"
        "SELECT b.venue_id FROM public.busy_venues AS b;\n")
    assert "own/100_venues.sql" in installed("migrate", cwd=desk / "schema", **url)
    assert "the database is what schema/ says" in installed("verify", "--dir", str(desk), **url)
    with empty.connect() as connection:
        connection.execute("INSERT INTO venues VALUES (7)")
    assert installed("query", "venues", "--csv", cwd=desk, **url) == "venue_id\n7\n"
    assert "nothing to do" in installed("migrate", cwd=desk, **url)
    logic.write_text("CREATE OR REPLACE VIEW public.quiet_venues AS SELECT 1 AS one;\n")
    assert "view public.busy_venues" in installed("migrate", cwd=desk, **url)
    assert "own/100_venues.sql" in installed("migrate", code=1, **url)  # elsewhere it would be forgotten
    assert "undone: 100_venues" in installed("rollback", "--yes", cwd=desk, **url)
    with empty.connect() as connection:
        assert connection.execute("SELECT to_regclass('venues'), to_regclass('assets') IS NOT NULL").fetchone() == (
            None, True)
    migration.unlink()
    (desk / "schema/state/100_venues.sql").unlink()
    assert "applied 0 state" in installed("migrate", cwd=desk, **url)


def test_installed_program_without_its_schema_says_so(bindir, installed, empty):
    package = subprocess.run([bindir / "python", "-c", "import tidemark; print(tidemark.__path__[0])"], check=True,
                             capture_output=True, text=True, cwd="/").stdout.strip()
    away = Path(package, "_shipped")
    away.rename(away.with_name("gone"))
    try:
        for verb in ("migrate", "status", "verify"):
            assert "there is no schema to apply" in installed(verb, code=2, DATABASE_URL=empty.url)
    finally:
        away.with_name("gone").rename(away)


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A directory in which the path of a socket is short enough for the system."""
    with tempfile.TemporaryDirectory(prefix="tm") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_installed_program_has_a_server_of_its_own_for_a_directory(installed, tmp_path, short_home, edition):
    home = {"TIDEMARK_HOME": str(short_home)}
    if chosen := os.environ.get("TIDEMARK_PG_BIN"):
        home["TIDEMARK_PG_BIN"] = chosen
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)  # the server's account comes through here
    try:
        assert installed("up", "--edition", edition, **home).strip().startswith("postgresql://")
        installed("migrate", **home)
        installed("query", "coverage", **home)
    finally:
        installed("down", **home)


def test_compose_pins_what_ci_passes_and_keeps_its_data():
    """The image of PostgreSQL 18 keeps its data one level higher than those before."""
    service = yaml.safe_load((config.CHECKOUT / "docker-compose.yml").read_text())["services"]["timescaledb"]
    assert service["image"] == "timescale/timescaledb:2.29.2-pg18"
    assert service["volumes"] == ["data18:/var/lib/postgresql"]
    assert service["environment"]["PGDATA"] == "/var/lib/postgresql/18/docker"
    assert "shared_preload_libraries=timescaledb,pg_stat_statements" in service["command"]
