"""Provisioning: what it would run on which system (as data), and the parts that run without root's rights."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemark import provision
from tidemark.errors import Problem

BOOKWORM = {"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm", "PRETTY_NAME": "Debian 12"}
TRIXIE = {"ID": "debian", "VERSION_ID": "13", "VERSION_CODENAME": "trixie"}
UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_CODENAME": "noble", "PRETTY_NAME": "Ubuntu 24.04"}
FEDORA = {"ID": "fedora", "VERSION_ID": "42", "PRETTY_NAME": "Fedora 42"}

ON_BOOKWORM = {"postgresql-15": "15.14-0+deb12u1"}
PACKAGED = {"postgresql-17": "17.6-1", "postgresql-17-timescaledb": "2.19.3+dfsg-1"}


def commands(steps: list[provision.Step]) -> str:
    return "\n".join(" ".join(step.command) for step in steps)


def test_a_release_with_the_package_gets_the_package() -> None:
    wanted = provision.plan(TRIXIE, PACKAGED)
    assert wanted == provision.Plan(17, ("postgresql-17-timescaledb",))
    assert wanted.fetch_steps(Path("/build")) == []
    assert wanted.package_steps()[-1].command[-1:] == ("postgresql-17-timescaledb",)


def test_pgvector_comes_along_where_it_is_packaged() -> None:
    wanted = provision.plan(UBUNTU, {**PACKAGED, "postgresql-17-pgvector": "0.8.0-1"})
    assert wanted.packages == ("postgresql-17-timescaledb", "postgresql-17-pgvector")


def test_the_newest_postgresql_wins_and_too_old_a_timescaledb_does_not_count() -> None:
    offered = {
        "postgresql-16-timescaledb": "2.20.0-1",
        "postgresql-17-timescaledb": "2.31.0+dfsg-1",
        "postgresql-18-timescaledb": "2.9.12-1",
        "postgresql-14-timescaledb": "2.19.3-1",
    }
    assert provision.plan(TRIXIE, offered).major == 17
    with pytest.raises(Problem):
        provision.plan(TRIXIE, {"postgresql-14-timescaledb": "2.19.3-1"})


def test_debian_12_builds_timescaledb_from_the_next_release() -> None:
    wanted = provision.plan(BOOKWORM, ON_BOOKWORM)
    assert (wanted.major, wanted.sources, wanted.suite) == (15, ("timescaledb", "pgvector"), "trixie")
    assert wanted.packages[:2] == ("postgresql-15", "postgresql-server-dev-15")
    for word in ("postgresql-15", "trixie", "timescaledb", "pgvector"):
        assert word in wanted.describe()


def test_debian_12_with_another_repository_takes_what_that_packages() -> None:
    assert provision.plan(BOOKWORM, {**ON_BOOKWORM, **PACKAGED}).sources == ()
    wanted = provision.plan(BOOKWORM, {**ON_BOOKWORM, "postgresql-15-pgvector": "0.8.0-1"})
    assert wanted.sources == ("timescaledb",)
    assert "postgresql-15-pgvector" in wanted.packages


def test_the_build_is_apache_only_and_for_the_right_postgresql() -> None:
    wanted = provision.plan(BOOKWORM, ON_BOOKWORM)
    built = commands(wanted.build_steps("timescaledb", Path("/build")))
    assert "-DAPACHE_ONLY=1" in built
    assert "-DPG_CONFIG=/usr/lib/postgresql/15/bin/pg_config" in built
    built = commands(wanted.build_steps("pgvector", Path("/build")))
    assert "PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config" in built


def test_only_what_changes_the_system_runs_as_root() -> None:
    wanted = provision.plan(BOOKWORM, ON_BOOKWORM)
    steps = wanted.fetch_steps(Path("/w")) + wanted.build_steps("timescaledb", Path("/w"))
    assert [step.what for step in steps if step.root] == ["Installing timescaledb"]
    assert all(step.root for step in wanted.package_steps())


def test_sources_are_fetched_in_a_private_state_of_apt() -> None:
    fetched = commands(provision.plan(BOOKWORM, ON_BOOKWORM).fetch_steps(Path("/build")))
    assert "/etc/apt" not in fetched
    for option in ("Dir::State::lists=/build/lists", "sourcelist=/dev/null", "sourceparts=/build/sources"):
        assert fetched.count(option) == 3


@pytest.mark.parametrize("os_release", [FEDORA, UBUNTU, {}], ids=["fedora", "ubuntu-24.04", "no-os-release"])
def test_any_other_system_is_told_the_two_ways_out(os_release: dict[str, str]) -> None:
    with pytest.raises(Problem) as raised:
        provision.plan(os_release, {"postgresql-16": "16.1"} if os_release is UBUNTU else {})
    assert "docker compose" in raised.value.hint
    assert "own packages" in raised.value.hint
    assert os_release.get("PRETTY_NAME", "") in raised.value.message
    assert raised.value.exit_code == 2


TARGET = "Origin: {}\nCodename: {}\nComponent: {}\nRepo-URI: {}\nSourcesentry: /etc/{}:1\n"
MIRROR = ("Debian", "bookworm", "main", "http://mirror.example/debian/")


def entry(files: dict[str, str], *rows: tuple[str, str, str, str]) -> str:
    targets = "\n".join(TARGET.format(*row, number) for number, row in enumerate(rows))
    return provision.source_entry("bookworm", "trixie", targets, files.__getitem__)


def test_the_entry_has_the_machines_mirror_and_only_another_suite() -> None:
    assert entry({"/etc/0": "deb http://mirror.example/debian bookworm main\n"}, MIRROR) == (
        "Types: deb-src\nURIs: http://mirror.example/debian/\nSuites: trixie\nComponents: main\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "deb [signed-by=/keys/other.gpg] http://other.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.example/debian bookworm main contrib\n",
        "Types: deb\nURIs: http://other.example/x\nSigned-By: /keys/other.gpg\n\n"
        "# a mirror\nTypes: deb\nURIs: http://mirror.example/debian\nSigned-By: /keys/debian.gpg\n",
    ],
    ids=["one-line", "deb822"],
)
def test_the_entry_keeps_the_machines_keyring(text: str) -> None:
    assert entry({"/etc/0": text}, MIRROR).endswith("\nSigned-By: /keys/debian.gpg\n")


def test_a_keyring_written_into_the_entry_is_kept_whole() -> None:
    key = " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQENBF\n -----END PGP PUBLIC KEY BLOCK-----"
    text = f"URIs: http://mirror.example/debian/\nSigned-By:\n{key}\nSuites: bookworm\n"
    assert entry({"/etc/0": text}, MIRROR).endswith(f"Signed-By: \n{key}\n")


def test_other_repositories_are_not_taken_for_the_distributions_mirror() -> None:
    vendor = ("Vendor", "bookworm", "main", "http://vendor.example/apt/")
    updates = ("Debian", "bookworm-updates", "main", "http://mirror.example/updates/")
    found = entry({"/etc/2": ""}, vendor, updates, MIRROR)
    assert "URIs: http://mirror.example/debian/\n" in found
    with pytest.raises(Problem, match="no mirror of bookworm"):
        entry({}, vendor, updates)


needs_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="needs APT")


@needs_apt
def test_what_apt_offers_here_is_read() -> None:
    offered = provision.available()
    if not offered:
        pytest.skip("APT has no package lists here")
    assert all(name.startswith("postgresql-") and version[0].isdigit() for name, version in offered.items())


def test_without_consent_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(provision, "available", lambda: PACKAGED)
    said: list[str] = []
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(Problem, match=r"--yes|needs root"):
            provision.provision(lambda question: pytest.fail("asked"), say=said.append)
    assert said == []


def test_a_refusal_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(provision, "available", lambda: PACKAGED)
    monkeypatch.setattr(provision, "_check_consent", lambda agreed: None)
    said: list[str] = []
    with pytest.raises(Problem, match="nothing was installed"):
        provision.provision(lambda question: False, say=said.append)
    assert said == [provision.plan(TRIXIE, PACKAGED).describe()]


def test_a_failing_command_is_quoted_and_its_log_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    step = provision.Step("Trying", ("sh", "-c", "echo 'E: no such package'; echo more; exit 100"))
    with pytest.raises(Problem) as raised:
        provision._run(step, log, lambda text: None)
    assert raised.value.message == "Trying: failed"
    assert "E: no such package" in raised.value.detail
    assert str(log) in raised.value.detail
    assert "more" in log.read_text()


@needs_apt
def test_the_installer_script_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    script = provision.INSTALL.replace("/etc/postgresql-common", f"{tmp_path}/postgresql-common")
    script = script.replace("apt-get install", f"cp -r {tmp_path}/postgresql-common {tmp_path}/seen; false")
    assert subprocess.run(["/bin/sh", "-c", script, "sh", "x"], capture_output=True).returncode != 0
    dropin = tmp_path / "seen" / "createcluster.d" / "tidemark.conf"
    assert dropin.read_text() == "create_main_cluster = false\n"
    assert not (tmp_path / "postgresql-common").exists()


@needs_apt
@pytest.mark.parametrize("whom", ["us", "all of us"])
def test_an_interrupted_installation_waits_for_apt_and_leaves_nothing_behind(tmp_path: Path, whom: str) -> None:
    """Ctrl-C reaches all of the terminal's processes, `kill` only ours."""
    fake = tmp_path / "bin" / "apt-get"
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable}\n"
                    "import os, pathlib, signal, sys, time\n"
                    "def stop(*_): time.sleep(0.3); sys.exit(100)\n"  # what dpkg has begun is finished first
                    "signal.signal(signal.SIGINT, stop)\n"
                    f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
                    "time.sleep(60)\n")
    fake.chmod(0o755)
    script = provision.INSTALL.replace("/etc/postgresql-common", f"{tmp_path}/etc")
    code = ("import pathlib; from tidemark import provision\n"
            f"provision._run(provision.Step('Installing', ('sh', '-c', {script!r}, 'sh', 'x')),"
            f" pathlib.Path({str(tmp_path / 'log')!r}), print)")
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True,
                               env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"})
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    assert (tmp_path / "etc/createcluster.d/tidemark.conf").exists()
    apt = int((tmp_path / "pid").read_text())
    (os.kill if whom == "us" else os.killpg)(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGINT
        assert not Path("/proc", str(apt)).exists()
        assert not (tmp_path / "etc").exists()
    finally:
        if Path("/proc", str(apt)).exists():
            os.kill(apt, signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("said", "word"), [
    ("sudo: a terminal is required to read the password; either use the -S option\nsudo: a password is required",
     "sudo -v"),
    ("me is not in the sudoers file.", "may not use sudo"),
    ("Err:1 http://mirror.example bookworm InRelease\n  Temporary failure resolving 'mirror.example'\n"
     "E: Failed to fetch http://mirror.example/x.deb\nE: Unable to fetch some archives", "network"),
    ("W: Some index files failed to download. They have been ignored, or old ones used instead.", "network"),
    ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk is full"),
    ("dpkg: error processing archive x.deb (--unpack):\n cannot copy extracted data: failed to write"
     " (No space left on device)\nE: Sub-process /usr/bin/dpkg returned an error code (1)", "disk is full"),
    ("cc1: error: fatal: /tmp/x.s: No space left on device", "disk is full"),
    ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (apt)", "another program"),
    ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "dpkg --configure -a"),
])
def test_the_real_reason_is_told(tmp_path: Path, said: str, word: str) -> None:
    step = provision.Step("Trying", ("sh", "-c", 'printf "%s\\n" "$1"; exit 1', "sh", said))
    with pytest.raises(Problem) as raised:
        provision._run(step, tmp_path / "log", lambda text: None)
    assert word in raised.value.hint


def test_a_reason_is_of_this_step_and_not_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Err:1 Temporary failure resolving 'dead.example'\n")
    with pytest.raises(Problem) as raised:
        provision._run(provision.Step("Trying", ("sh", "-c", "echo 'error: no'; exit 1")), tmp_path / "log", print)
    assert (raised.value.hint, "error: no" in raised.value.detail) == ("", True)


@needs_apt
@pytest.mark.parametrize(("said", "word"), [
    ("E: Failed to fetch http://mirror.example/InRelease  Temporary failure resolving 'mirror.example'", "network"),
    ("sudo: a password is required", "sudo -v"),
])
def test_a_machine_without_lists_is_not_blamed_for_its_network(
    monkeypatch: pytest.MonkeyPatch, said: str, word: str
) -> None:
    monkeypatch.setattr(provision, "available", dict)
    monkeypatch.setattr(provision, "LISTS", provision.Step("Reading", ("sh", "-c", f'echo "{said}"; exit 100')))
    monkeypatch.setattr(provision, "_check_consent", lambda agreed: None)
    with pytest.raises(Problem) as raised:
        provision.provision(lambda question: pytest.fail("asked"), yes=True, say=lambda text: None)
    assert word in raised.value.hint


def test_the_question_is_seen_where_the_output_goes_nowhere(tmp_path: Path) -> None:
    """As `make migrate` in a terminal: the URL of the server goes to /dev/null, the question must not."""
    code = ("from tidemark import cli, installation, provision\n"
            "def none(edition): raise installation.NoInstallation('none')\n"
            "installation.find_installation, provision.os.geteuid = none, lambda: 0\n"
            f"provision.available = lambda: {PACKAGED!r}\n"
            "cli.main(['up'])")
    terminal, ours = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=ours, stderr=ours, stdout=subprocess.DEVNULL,
                               env=environment)
    os.close(ours)
    try:
        seen = b""
        while b"[y/N]" not in seen:
            assert select.select([terminal], [], [], 15)[0], seen
            seen += os.read(terminal, 1000)
        assert b"postgresql-17-timescaledb" in seen
        os.write(terminal, b"n\n")
        with contextlib.suppress(OSError):  # EIO: nobody is at the other end any more
            while more := os.read(terminal, 10000):
                seen += more
        assert process.wait(30) == 2
        assert b"nothing was installed" in seen
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
