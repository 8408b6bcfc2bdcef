"""The embedded server, on a real PostgreSQL: what `up`, `down` and `url` promise."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tidemark import doctor, migrations, server
from tidemark import installation as installations
from tidemark.errors import Problem


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of our own; not tmp_path, which the server's account could not enter."""
    directory = Path(tempfile.mkdtemp(prefix="tm-"))
    directory.chmod(0o755)
    monkeypatch.setenv("TIDEMARK_HOME", str(directory))
    yield directory
    server.down()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def installation() -> installations.Installation:
    return installations.find_installation()


@pytest.fixture(scope="module")
def running(installation: installations.Installation) -> Iterator[server.Server]:
    with server.throwaway(installation, installation.editions[-1]) as started:
        yield started


def ask(where: server.Server, query: str, dbname: str = "postgres") -> object:
    with psycopg.connect(where.url(dbname), autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def postmaster(where: server.Server) -> int:
    return int((where.data / "postmaster.pid").read_text().split()[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen_addresses", "127.0.0.1"),
        ("TimeZone", "UTC"),
        ("log_timezone", "UTC"),
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
        ("timescaledb.telemetry_level", "off"),
        ("timescaledb.max_background_workers", "0"),
        ("fsync", "off"),
    ],
)
def test_the_server_runs_with_the_promised_setting(running: server.Server, name: str, value: str) -> None:
    assert ask(running, f"SELECT current_setting('{name}')") == value


def test_timescaledb_is_preloaded_and_its_settings_are_accepted(running: server.Server) -> None:
    assert ask(running, "SHOW shared_preload_libraries").split(",")[0] == "timescaledb"
    assert ask(running, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == 0
    assert ask(running, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'TimescaleDB%'") == 0


def test_the_time_zone_does_not_depend_on_the_machine(running: server.Server) -> None:
    ours = "SELECT count(*) FROM pg_settings WHERE name ~* 'timezone$' AND sourcefile ~ 'tidemark.conf$'"
    assert ask(running, ours) == 2


def test_databases_sort_by_code_point(running: server.Server) -> None:
    assert ask(running, "SELECT datcollate FROM pg_database WHERE datname = 'template1'") == "C.UTF-8"


def test_the_server_is_not_root_and_only_it_and_the_caller_reach_the_socket(running: server.Server) -> None:
    owner = running.data.stat().st_uid
    assert owner != 0
    assert Path("/proc", str(postmaster(running))).stat().st_uid == owner
    assert running.socket_dir.stat().st_mode & 0o077 == 0
    assert (running.socket_dir / f".s.PGSQL.{running.port}").stat().st_mode & 0o077 == 0
    assert ask(running, "SELECT current_user") == "postgres"


def test_tcp_asks_for_a_password(running: server.Server) -> None:
    tcp = f"host=127.0.0.1 port={running.port} user=postgres dbname=postgres connect_timeout=5"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(tcp)
    with psycopg.connect(running.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE visitor LOGIN PASSWORD 'a long one'")
    with psycopg.connect(tcp.replace("user=postgres", "user=visitor"), password="a long one"):
        pass


def test_psql_accepts_the_url(running: server.Server) -> None:
    psql = [running.installation.bindir / "psql", "-XAtc", "SELECT 1", running.url("postgres")]
    assert subprocess.run(psql, capture_output=True, text=True).stdout == "1\n"


def test_a_throwaway_server_is_gone_afterwards(installation: installations.Installation) -> None:
    with server.throwaway(installation, "apache", {"work_mem": "5MB"}) as started:
        process = postmaster(started)
        assert ask(started, "SHOW work_mem") == "5MB"
        assert ask(started, "SHOW timescaledb.license") == "apache"
    assert not started.directory.exists()
    assert not Path("/proc", str(process), "cwd").exists()


def test_up_makes_the_database_and_a_second_up_changes_nothing_and_is_fast(home: Path) -> None:
    first = server.up()
    process = postmaster(first)
    assert ask(first, "SELECT current_database()", "tidemark") == "tidemark"
    began = time.monotonic()
    assert server.up().url() == first.url() == server.url()
    assert time.monotonic() - began < 0.3
    assert postmaster(first) == process


def test_down_stops_and_up_brings_the_data_back(home: Path) -> None:
    first = server.up()
    with psycopg.connect(first.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.down() == [first.directory.name]
    assert not first.alive
    assert server.down() == []
    with pytest.raises(Problem, match="not running"):
        server.url()
    assert ask(server.up(), "SELECT answer FROM kept", "tidemark") == 42


def test_a_fresh_server_is_well_in_the_eyes_of_the_doctor(home: Path) -> None:
    with psycopg.connect(server.up("apache").url(), autocommit=True) as connection:
        migrations.migrate(connection)
        bad = [found for found in doctor.examine(connection) if found.severity not in ("ok", "info")]
    assert [found for found in bad if found.check not in ("disk", "postgresql")] == []  # these are the machine's


def test_nothing_runs_before_the_first_up(home: Path) -> None:
    assert server.embedded() is None
    assert server.down() == []
    assert list(home.iterdir()) == []


@pytest.fixture
def second(home: Path, installation: installations.Installation) -> server.Server:
    """Another server of the same checkout and edition, as of another PostgreSQL; it runs."""
    first = server.up("apache")
    other = server.Server(first.directory.parent / "99-apache", installation, "apache")
    other.start()
    return other


@pytest.mark.parametrize("which", [None, "apache"])
def test_down_stops_every_server_of_whatever_version(second: server.Server, which: str | None) -> None:
    first = server.embedded()
    assert server.down("community") == []
    assert (first.alive, second.alive) == (True, True)
    assert sorted(server.down(which)) == sorted([first.directory.name, "99-apache"])
    assert (first.alive, second.alive) == (False, False)


def forget(home: Path, **servers: str) -> None:
    """Make this checkout believe in other servers."""
    content = {"edition": "apache", "servers": {name.strip("_").replace("_", "-"): to for name, to in servers.items()}}
    (server._state() / "current.json").write_text(json.dumps(content))


def test_a_server_whose_binaries_are_gone_is_stopped_all_the_same(home: Path, tmp_path: Path) -> None:
    first = server.up("apache")
    forget(home, _15_apache=str(tmp_path))
    assert server.down("apache") == [first.directory.name]
    assert not first.alive


def test_no_empty_database_takes_the_place_of_one_whose_postgresql_is_gone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.up("apache")
    server.down()
    monkeypatch.delenv("TIDEMARK_PG_BIN", raising=False)
    monkeypatch.setattr(server, "path_setting", lambda name: home if name == "TIDEMARK_HOME" else None)
    forget(home, _14_apache=str(tmp_path))
    with pytest.raises(Problem, match="PostgreSQL 14") as raised:
        server.up()
    assert "TIDEMARK_PG_BIN" in raised.value.hint
    assert len(list(server._state().glob("*-*"))) == 1


def test_binaries_that_moved_are_found_again(home: Path, tmp_path: Path) -> None:
    first = server.up("apache")
    forget(home, **{f"_{first.installation.major}_apache": str(tmp_path)})
    assert server.embedded().installation.major == first.installation.major
    assert server.up().url() == first.url()


@pytest.mark.skipif("community" not in installations.find_installation().editions, reason="needs two editions")
def test_a_second_server_of_a_checkout_is_announced(home: Path) -> None:
    said: list[str] = []
    server.up("apache", say=said.append)
    assert said == []
    server.up("community", say=said.append)
    assert len(said) == 1
    assert "empty database" in said[0]


def answer(where: server.Server) -> object:
    return ask(where, "SELECT to_regclass('kept')::text", "tidemark")


def test_a_renamed_checkout_keeps_its_data_and_a_copy_has_its_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, copy = tmp_path / "here", tmp_path / "there", tmp_path / "copy"
    here.mkdir()
    monkeypatch.setattr(server, "ROOT", here)
    with psycopg.connect(server.up().url()) as connection:
        connection.execute("CREATE TABLE kept (i integer)")
    here.rename(there)
    monkeypatch.setattr(server, "ROOT", there)
    assert server.embedded().running
    assert answer(server.up()) == "kept"
    assert len(server.down()) == 1
    shutil.copytree(there, copy)
    monkeypatch.setattr(server, "ROOT", copy)
    assert server.embedded() is None
    here.mkdir()
    monkeypatch.setattr(server, "ROOT", here)  # a new checkout in the old place
    assert server.embedded() is None
    with server._locked() as state:
        assert server._read(state / "checkout") == str(here)
    monkeypatch.setattr(server, "ROOT", there)
    assert server.embedded() is not None


@pytest.mark.parametrize("name", ["../../etc", "/etc", ".", "", "a\nb"])
def test_a_mark_that_leads_elsewhere_is_not_followed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / server.MARK).write_text(name)
    monkeypatch.setattr(server, "ROOT", tmp_path)
    assert server._state().parent == home
    assert server._state().name.startswith(tmp_path.name[:20])


def test_a_renamed_checkout_can_be_cleaned(home: Path, tmp_path: Path) -> None:
    """With make, in a checkout of its own whose virtual environment has our packages and not us."""
    old, new = tmp_path / "old", tmp_path / "new"
    for name in ("Makefile", "pyproject.toml"):
        (old / name).parent.mkdir(exist_ok=True)
        shutil.copy(server.ROOT / name, old / name)
    shutil.copytree(Path(server.__file__).parent, old / "runner")
    venv.create(old / ".venv", with_pip=False)
    packages = next((old / ".venv").glob("lib/python*/site-packages"))
    (packages / "ours.pth").write_text(str(Path(psycopg.__file__).parent.parent))
    (packages / "us.pth").write_text(str(old / "here"))  # as an editable installation: a path that will be gone
    (old / "here").mkdir()
    (old / "here" / "tidemark").symlink_to("../runner")
    subprocess.run([old / ".venv/bin/python", "-c", "from tidemark.cli import main; main(['up'])"], check=True)
    (process,) = home.glob("old-*/*/data/postmaster.pid")
    old.rename(new)
    (new / "here" / "tidemark").unlink()
    done = subprocess.run(["make", "clean"], cwd=new, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stopped" in done.stdout
    assert not process.exists()
    assert not (new / ".venv").exists()


def test_recipes_of_make_are_for_any_shell() -> None:
    text = (server.ROOT / "Makefile").read_text()
    assert "bash" not in text
    targets = [name for name in re.findall(r"^([a-z]+):.*##", text, re.M) if name != "help"]
    recipes = subprocess.run(["make", "-n", *targets], cwd=server.ROOT, capture_output=True, text=True, check=True)
    subprocess.run(["sh", "-n"], input=recipes.stdout, text=True, check=True)


def test_a_full_disk_is_called_so(home: Path, installation: installations.Installation,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    full = subprocess.CompletedProcess([], 1, "", "initdb: error: could not write to file: No space left on device\n")
    monkeypatch.setattr(server.Server, "_run", lambda *_: full)
    with pytest.raises(Problem) as raised:
        server.Server(home / "x", installation, "apache").start()
    assert "disk is full" in raised.value.hint


def test_a_killed_server_is_recovered(home: Path) -> None:
    first = server.up()
    with psycopg.connect(first.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(postmaster(first), signal.SIGKILL)
    while first.alive:
        time.sleep(0.01)
    assert ask(server.up(), "SELECT answer FROM kept", "tidemark") == 42


def test_a_process_number_that_is_somebody_elses_by_now_is_no_server(home: Path) -> None:
    first = server.up()
    pid_file = first.data / "postmaster.pid"
    lines = pid_file.read_text().split("\n")
    owner = first.data.stat()
    server.down()
    as_the_owner = {"user": owner.st_uid} if os.geteuid() == 0 else {}
    other = subprocess.Popen(["/bin/sleep", "60"], cwd="/", **as_the_owner)
    try:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]))
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        assert not first.alive
        assert server.up().running
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_port_that_is_taken_is_passed_over(home: Path) -> None:
    port = server.up().port
    server.down()
    with socket.create_server(("127.0.0.1", port)):
        moved = server.up()
    assert moved.port > port
    assert f"port={moved.port}" in server.url()
    assert ask(moved, "SHOW port") == str(moved.port)


def test_several_up_at_once_make_one_server(home: Path) -> None:
    code = "from tidemark import server; print((server.up().data / 'postmaster.pid').read_text().split()[0])"
    several = [
        subprocess.Popen([sys.executable, "-c", code], cwd=server.ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    pids = [one.communicate()[0] for one in several]
    assert [one.returncode for one in several] == [0] * 4
    assert len(set(pids)) == 1


def test_an_interrupted_creation_is_made_good(home: Path, installation: installations.Installation) -> None:
    half = server.Server(home / "half", installation, "apache")
    (half.directory / "data.new").mkdir(parents=True)
    (half.directory / "data.new" / "PG_VERSION").write_text("half")
    try:
        half.start()
        assert ask(half, "SELECT 1") == 1
        assert not (half.directory / "data.new").exists()
    finally:
        half.stop()


def test_a_strict_umask_does_not_lock_the_servers_account_out(home: Path) -> None:
    previous = os.umask(0o077)
    try:
        assert server.up().running
    finally:
        os.umask(previous)


def test_the_editions_of_a_community_build_live_side_by_side(
    home: Path, installation: installations.Installation
) -> None:
    if not installation.community:
        pytest.skip("needs a Community build of TimescaleDB: set TIDEMARK_PG_BIN")
    community, apache = server.up(), server.up("apache")
    assert ask(community, "SHOW timescaledb.license") == "timescale"
    assert ask(apache, "SHOW timescaledb.license") == "apache"
    assert apache.data != community.data
    assert server.up().url() == server.url() == apache.url()
    assert server.url("community") == community.url()
    server.down("apache")
    assert (apache.alive, community.alive) == (False, True)


def test_an_apache_build_does_not_start_as_community(home: Path, installation: installations.Installation) -> None:
    apache_only = replace(installation, community=False)
    assert apache_only.editions == ("apache",)
    with pytest.raises(Problem, match="no community edition"):
        server.Server(home / "x", apache_only, "community")


def test_a_server_that_does_not_start_says_why(home: Path, installation: installations.Installation) -> None:
    settings = {"shared_preload_libraries": "no_such_library"}
    broken = server.Server(home / "x", installation, "apache", settings)
    with pytest.raises(Problem) as raised:
        broken.start()
    assert "no_such_library" in raised.value.detail
    assert str(broken.log) in raised.value.hint


def test_a_socket_path_too_long_for_the_kernel_is_refused_at_once(
    home: Path, installation: installations.Installation
) -> None:
    deep = server.Server(home / ("x" * 80), installation, "apache")
    with pytest.raises(Problem) as raised:
        deep.start()
    assert "TIDEMARK_HOME" in raised.value.hint
    assert not deep.directory.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another account")
def test_a_place_that_the_servers_account_cannot_enter_is_named(
    home: Path, installation: installations.Installation
) -> None:
    (home / "private").mkdir(mode=0o700)
    with pytest.raises(Problem) as raised:
        server.Server(home / "private" / "x", installation, "apache").start()
    assert "must be able to reach" in raised.value.hint


def build(directory: Path, major: int, timescaledb: str | None, tsl: bool = False) -> Path:
    """A directory that looks like an installation, for finding one (nothing in it is started)."""
    for name in ("postgres", "initdb", "pg_ctl"):
        (directory / "bin").mkdir(parents=True, exist_ok=True)
        (directory / "bin" / name).touch()
    pg_config = directory / "bin" / "pg_config"
    answer = f"'PostgreSQL {major}.3' {directory}/lib {directory}/share"
    pg_config.write_text(f"#!/bin/sh\nprintf '%s\\n' {answer}\n")
    pg_config.chmod(0o755)
    (directory / "lib").mkdir()
    (directory / "share" / "extension").mkdir(parents=True)
    if timescaledb:
        control = directory / "share" / "extension" / "timescaledb.control"
        control.write_text(f"# timescaledb extension\ndefault_version = '{timescaledb}'\n")
    if tsl:
        (directory / "lib" / f"timescaledb-tsl-{timescaledb}.so").touch()
    return directory / "bin"


@pytest.mark.parametrize(
    ("major", "timescaledb", "reason"),
    [
        (14, "2.19.3", "PostgreSQL 14 in .* is older than 15"),
        (15, None, "has no TimescaleDB"),
        (15, "2.9.10", "2.9.10 .* is older than 2.19.3"),
    ],
)
def test_an_installation_that_will_not_do_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, major: int, timescaledb: str | None, reason: str
) -> None:
    monkeypatch.setenv("TIDEMARK_PG_BIN", str(build(tmp_path / "pg", major, timescaledb)))
    with pytest.raises(Problem, match=reason):
        installations.installations()


def test_tidemark_pg_bin_is_the_only_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bindir = build(tmp_path / "pg", 15, "2.19.3")
    monkeypatch.setenv("TIDEMARK_PG_BIN", str(bindir))
    assert [found.bindir for found in installations.installations()] == [bindir]
    monkeypatch.setenv("TIDEMARK_PG_BIN", str(tmp_path))
    with pytest.raises(Problem, match="TIDEMARK_PG_BIN"):
        installations.installations()


def test_community_comes_before_apache_and_newer_before_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEMARK_PG_BIN", raising=False)
    monkeypatch.setattr(installations, "setting", os.environ.get)
    builds = [
        build(tmp_path / "a", 17, "2.31.0"),
        build(tmp_path / "b", 15, "2.19.3", tsl=True),
        build(tmp_path / "c", 18, "2.31.0+dfsg"),
        build(tmp_path / "d", 16, "2.18.0"),
    ]
    monkeypatch.setattr(installations, "GLOBS", [f"{tmp_path}/*/bin".lstrip("/")])
    monkeypatch.setenv("PATH", "/nonexistent")
    assert [found.bindir for found in installations.installations()] == [builds[1], builds[2], builds[0]]
    assert installations.find_installation("apache").bindir == builds[1]


def test_a_machine_without_timescaledb_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEMARK_PG_BIN", raising=False)
    monkeypatch.setattr(installations, "setting", os.environ.get)
    monkeypatch.setattr(installations, "GLOBS", [f"{tmp_path}/*/bin".lstrip("/")])
    monkeypatch.setenv("PATH", "/nonexistent")
    build(tmp_path / "a", 16, None)
    with pytest.raises(installations.NoInstallation, match=r"PostgreSQL 16 in .* has no TimescaleDB"):
        installations.find_installation()
    build(tmp_path / "b", 16, "2.20.0")
    with pytest.raises(Problem, match="Apache-only") as raised:
        installations.find_installation("community")
    assert not isinstance(raised.value, installations.NoInstallation)


def test_each_checkout_has_its_own_state(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = server._state()
    monkeypatch.setattr(server, "ROOT", Path("/elsewhere", server.ROOT.name))
    assert server._state() != here
    assert server._state().parent == here.parent == home
