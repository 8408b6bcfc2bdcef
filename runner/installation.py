"""Which PostgreSQL installations of this machine have TimescaleDB, and which editions they offer."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tidemark.config import ROOT, setting
from tidemark.errors import Problem

MIN_POSTGRES = 15
MIN_TIMESCALEDB = (2, 19, 3)
GLOBS = [
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
]


@dataclass(frozen=True)
class Installation:
    """A PostgreSQL with TimescaleDB; `community` where the TSL module is there too."""

    bindir: Path
    pkglibdir: Path
    major: int
    timescaledb: str
    community: bool

    @property
    def editions(self) -> tuple[str, ...]:
        """The editions this build can be started as."""
        return ("apache", "community") if self.community else ("apache",)


class NoInstallation(Problem):
    """No usable PostgreSQL with TimescaleDB on this machine: what `tidemark.provision` is for."""


def path_setting(name: str) -> Path | None:
    value = setting(name)
    return ROOT / Path(value).expanduser() if value else None


def version_tuple(version: str) -> tuple[int, ...]:
    """`2.19.3+dfsg-1` as (2, 19, 3)."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def inspect(bindir: Path) -> Installation | str:
    """The installation at `bindir`, or in words why it cannot be used."""
    if not all((bindir / name).exists() for name in ("postgres", "initdb", "pg_ctl", "pg_config")):
        return f"no PostgreSQL server in {bindir}"
    try:
        out = subprocess.run([bindir / "pg_config", "--version", "--pkglibdir", "--sharedir"],
                             capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{bindir}/pg_config does not run: {error}"
    version, libdir, sharedir = out.splitlines()
    major = int(re.search(r"\d+", version)[0])
    if major < MIN_POSTGRES:
        return f"PostgreSQL {major} in {bindir} is older than {MIN_POSTGRES}"
    control = Path(sharedir, "extension", "timescaledb.control")
    found = re.search(r"default_version\s*=\s*'([^']+)'", control.read_text()) if control.is_file() else None
    if not found:
        return f"PostgreSQL {major} in {bindir} has no TimescaleDB"
    if version_tuple(found[1]) < MIN_TIMESCALEDB:
        oldest = ".".join(map(str, MIN_TIMESCALEDB))
        return f"TimescaleDB {found[1]} for {bindir} is older than {oldest}"
    community = any(Path(libdir).glob(f"timescaledb-tsl-{found[1]}.*"))
    return Installation(bindir, Path(libdir), major, found[1], community)


def _candidates() -> list[Path]:
    on_path = shutil.which("pg_config")
    paths = [p for pattern in GLOBS for p in Path("/").glob(pattern)]
    if on_path:
        found = subprocess.run([on_path, "--bindir"], capture_output=True, text=True)
        paths += [Path(line) for line in found.stdout.splitlines()[:1]]
    return list(dict.fromkeys(path.resolve() for path in paths))


def installations() -> list[Installation]:
    """Every usable PostgreSQL on the machine, best first; with TIDEMARK_PG_BIN set, only that one."""
    if chosen := path_setting("TIDEMARK_PG_BIN"):
        found = inspect(chosen)
        if isinstance(found, str):
            raise Problem("TIDEMARK_PG_BIN cannot be used", detail=found, exit_code=2,
                          hint="point it at the bin directory of a PostgreSQL with TimescaleDB")
        return [found]
    usable = [i for i in map(inspect, _candidates()) if isinstance(i, Installation)]
    return sorted(usable, key=lambda i: (i.community, i.major), reverse=True)


def find_installation(edition: str | None = None) -> Installation:
    """The best installation that can be started as `edition` (any, if None)."""
    usable = installations()
    for installation in usable:
        if edition is None or edition in installation.editions:
            return installation
    if usable:
        detail = ", ".join(f"TimescaleDB {i.timescaledb} in {i.bindir} is Apache-only" for i in usable)
        raise Problem(f"no {edition} edition of TimescaleDB on this machine", detail=detail, exit_code=2,
                      hint="TIDEMARK_PG_BIN names a Community build, or use `make up` (docker)")
    reasons = "; ".join(r for r in map(inspect, _candidates()) if isinstance(r, str))
    raise NoInstallation("no PostgreSQL with TimescaleDB found", detail=reasons, exit_code=2,
                         hint="`tidemark up` installs one, TIDEMARK_PG_BIN names one")
