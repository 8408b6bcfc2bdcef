"""The embedded server: a PostgreSQL of this machine, started for this checkout, reached by a socket.

It runs as an unprivileged account and nothing it needs lies in the checkout, which that account may not
be able to read. Everything is below one state directory (TIDEMARK_HOME):

    <home>/<checkout>-<8 hex>/current.json        the servers below and which of them is meant
    <home>/<checkout>-<8 hex>/checkout            path of the checkout that they belong to
    <home>/<checkout>-<8 hex>/<major>-<edition>/  one server: data/, run/ (socket) and its configuration

The checkout names that directory in `.tidemark-server`, so that it finds its data after it was renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from psycopg import sql

from tidemark.config import ROOT
from tidemark.database import connect
from tidemark.errors import Problem, cause
from tidemark.installation import Installation, find_installation, inspect, installations, path_setting

FIRST_PORT = 54320
START_SECONDS = 60
SOCKET_PATH_MAX = 100  # bytes; the kernels' own limits are 104 to 108
MARK = ".tidemark-server"
STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

Say = Callable[[str], None]


def _quiet(line: str) -> None:
    """Nobody listens."""


def _account() -> pwd.struct_passwd | None:
    """The account the server runs as where it is not the caller: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Problem("PostgreSQL does not run as root and there is no account to run it as", exit_code=2,
                  hint="create an account `postgres`, or call as an ordinary user")


def _string(value: object) -> str:
    """`value` as a string of postgresql.conf."""
    return "'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'"


def _memory_mb() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cgroup = Path("/sys/fs/cgroup/memory.max")
    limit = cgroup.read_text().strip() if cgroup.is_file() else "max"
    return min(total, int(limit) if limit.isdigit() else total) // 2**20


def _sized_to_machine() -> dict[str, str]:
    """Modest shares: a developer's machine has other work to do."""
    memory, cpus = _memory_mb(), os.cpu_count() or 1

    def share(divisor: int, low: int, high: int) -> str:
        return f"{max(low, min(high, memory // divisor))}MB"

    return {
        "shared_buffers": share(8, 128, 1024),
        "effective_cache_size": share(2, 512, 16384),
        "maintenance_work_mem": share(32, 64, 512),
        "work_mem": share(256, 8, 64),
        "timescaledb.max_background_workers": "8",
        "max_worker_processes": str(11 + 2 * cpus),
        "max_locks_per_transaction": "256",  # every chunk that a statement touches takes locks
    }


class Process:
    """The server's process over one directory, whatever started it and wherever its binaries are by now."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.data = directory, directory / "data"

    @property
    def alive(self) -> bool:
        """True if the server's process is there, be it still starting, recovering or stopping."""
        return self._pid() is not None

    def stop(self, mode: str = "fast") -> None:
        """Stop the server (fast or immediate); nothing happens where it does not run."""
        deadline = time.monotonic() + START_SECONDS
        pid = self._pid()
        if pid is not None:
            os.kill(pid, STOPS[mode])
        while self.alive:
            if time.monotonic() > deadline:
                raise Problem("the server does not stop in time", hint=f"see {self.data / 'server.log'}")
            time.sleep(0.02)

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return []

    def _pid(self) -> int | None:
        """The server's process; None where its number is left over, or another process's by now."""
        try:
            pid = int(self._pid_file()[0])
            os.kill(pid, 0)
            proc = Path("/proc", str(pid))
            return pid if not proc.exists() or (proc / "cwd").samefile(self.data) else None
        except (IndexError, ValueError, OSError):
            return None


class Server(Process):
    """One server in one directory: created by the first `start`, stopped by `stop`, `settings` on top."""

    def __init__(self, directory: Path, installation: Installation, edition: str,
                 settings: Mapping[str, str] | None = None, first_port: int = FIRST_PORT) -> None:
        if edition not in installation.editions:
            raise Problem(f"the TimescaleDB in {installation.bindir} has no {edition} edition",
                          hint=f"choose from: {', '.join(installation.editions)}", exit_code=2)
        super().__init__(directory)
        self.installation, self.edition = installation, edition
        self.settings, self.first_port = dict(settings or {}), first_port
        self.socket_dir = directory / "run"
        self.log, self._port_file = self.data / "server.log", directory / "port"

    @property
    def port(self) -> int:
        return int(self._port_file.read_text()) if self._port_file.exists() else self.first_port

    @property
    def running(self) -> bool:
        """True if the server accepts connections."""
        if not self.alive or [line.strip() for line in self._pid_file()[7:8]] != ["ready"]:
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket_dir / f".s.PGSQL.{self.port}")) == 0

    def url(self, dbname: str = "tidemark") -> str:
        """A URL for psql, psycopg and SQLAlchemy alike."""
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql://postgres@/{quote(dbname, safe='')}?host={host}&port={self.port}"

    def start(self) -> None:
        """Create the server where there is none, and start it where it does not run."""
        if self.running:
            return
        with _umask(0o022):
            self._create()
            if self.log.exists():
                self.log.replace(self.log.with_suffix(".log.1"))
            deadline = time.monotonic() + START_SECONDS
            while not self.running:
                if time.monotonic() > deadline:
                    raise Problem("the server does not start in time", detail=self._last_line(),
                                  hint=f"see {self.log}")
                if self.alive or not self._launch():
                    time.sleep(0.1)

    def _launch(self) -> bool:
        """Start the process. False where it is worth another try."""
        self._configure()
        before = len(self._log_text())
        done = self._run("pg_ctl", "start", "-s", "-w", "-t", START_SECONDS, "-D", self.data, "-l", self.log)
        if done.returncode == 0:
            return True
        said = self._log_text()[before:]
        if "lock file" in said:  # of a killed server whose process number is somebody else's by now
            for left in (self.data / "postmaster.pid", *self.socket_dir.glob(".s.PGSQL.*")):
                left.unlink(missing_ok=True)
        # still: backends that outlive a killed server for a moment; already: a port lost in between
        elif not re.search("still in use|already in use", said):
            self._fail("the server does not start", done)
        return False

    def create_database(self, dbname: str = "tidemark") -> None:
        """Create the database where it is missing."""
        with connect(self.url("postgres")) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [dbname]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(dbname)))

    def _owner(self) -> pwd.struct_passwd | None:
        """The server's account: for a server that exists whoever owns it, so that it stays the same."""
        if os.geteuid() == 0 and self.data.exists():
            return pwd.getpwuid(self.data.stat().st_uid)
        return _account()

    def _run(self, program: str, *args: object) -> subprocess.CompletedProcess[str]:
        """One of PostgreSQL's programs, as the server's account and with nothing of our environment."""
        options: dict[str, Any] = {}
        if owner := self._owner():
            groups = os.getgrouplist(owner.pw_name, owner.pw_gid)
            options = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": groups}
        env = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
        command = [str(self.installation.bindir / program), *map(str, args)]
        try:
            return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/",
                                  env=env, start_new_session=True, umask=0o077, **options)
        except OSError as error:
            who = f" as {owner.pw_name}" if owner else ""
            raise Problem(f"cannot run {command[0]}{who}", detail=str(error), exit_code=2,
                          hint="the account that runs the server must be able to read it") from error

    def _create(self) -> None:
        if self.data.exists():
            return
        longest = self.socket_dir / f".s.PGSQL.{self.first_port}"
        if len(os.fsencode(longest)) >= SOCKET_PATH_MAX:
            raise Problem("the path of the server's socket is too long", detail=str(longest),
                          hint="set TIDEMARK_HOME to a shorter directory", exit_code=2)
        owner, unfinished = _account(), self.directory / "data.new"
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for path in (unfinished, self.socket_dir):  # left over where an earlier attempt was interrupted
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o700)
            if owner:
                os.chown(path, owner.pw_uid, owner.pw_gid)
        sync = ["--no-sync"] if self.settings.get("fsync") == "off" else []
        done = self._run("initdb", "-D", unfinished, "-U", "postgres", "--data-checksums",
                         "--auth-local=peer", "--auth-host=scram-sha-256",
                         "--encoding=UTF8", "--locale=C.UTF-8", *sync)
        if done.returncode:
            self._fail("cannot create the server's data directory", done,
                       hint=f"{owner.pw_name if owner else 'you'} must be able to reach {self.directory}; "
                       "TIDEMARK_HOME names another place")
        with (unfinished / "postgresql.conf").open("a") as conf:
            conf.write(f"\ninclude {_string(self.directory / 'tidemark.conf')}\n")
        unfinished.rename(self.data)

    def _configure(self) -> None:
        """Write the configuration; not in the data directory, whose owner we may not be."""
        port = self.port
        while not _free(port):
            port += 1
        self._port_file.write_text(f"{port}\n")
        preload = ["timescaledb"]
        preload += [m for m in ("pg_stat_statements",) if any(self.installation.pkglibdir.glob(f"{m}.*"))]
        settings = _sized_to_machine() | {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": f'"{self.socket_dir}"',
            "unix_socket_permissions": "0700",
            "hba_file": str(self.directory / "pg_hba.conf"),
            "ident_file": str(self.directory / "pg_ident.conf"),
            "password_encryption": "scram-sha-256",
            "shared_preload_libraries": ",".join(preload),
            "timescaledb.license": "timescale" if self.edition == "community" else "apache",
            "timescaledb.telemetry_level": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
        } | self.settings
        lines = [f"{name} = {_string(value)}" for name, value in settings.items()]
        text = "# Rewritten at every start; ALTER SYSTEM overrides it.\n" + "\n".join(lines) + "\n"
        (self.directory / "tidemark.conf").write_text(text)
        (self.directory / "pg_hba.conf").write_text(
            "local all all peer map=tidemark\nhost all all 127.0.0.1/32 scram-sha-256\n")
        accounts = {pwd.getpwuid(uid).pw_name for uid in (os.geteuid(), self.data.stat().st_uid)}
        ident = "".join(f'tidemark "{name}" postgres\n' for name in sorted(accounts))
        (self.directory / "pg_ident.conf").write_text(ident)

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _last_line(self) -> str:
        """The last line of the log that says what went wrong."""
        lines = [line for line in self._log_text().splitlines() if line.strip()]
        telling = [line for line in lines if re.search("FATAL|PANIC", line)] or lines
        return re.sub(r"^[-\d]+ [:.\d]+ \w+ \[\d+\] ", "", telling[-1]) if telling else ""

    def _fail(self, message: str, done: subprocess.CompletedProcess[str], hint: str = "") -> None:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        detail = self._last_line() or " ".join(said[-2:])
        raise Problem(message, detail=detail, hint=cause(detail) or hint or f"see {self.log}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def throwaway(installation: Installation, edition: str,
              settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server for tests: in a temporary directory, fast rather than safe, without jobs, gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="tidemark-"))
    directory.chmod(0o755)  # the server's account comes through here
    fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "128MB",
            "timescaledb.max_background_workers": "0"}
    server = Server(directory, installation, edition, fast | dict(settings or {}), FIRST_PORT + 1000)
    try:
        server.start()
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(directory, ignore_errors=True)


def home() -> Path:
    """Where Tidemark keeps what belongs to a machine rather than to a checkout."""
    if chosen := path_setting("TIDEMARK_HOME"):
        return chosen
    if os.geteuid() == 0:
        return Path("/var/lib/tidemark")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tidemark"


def _state() -> Path:
    """The state directory of this checkout: the one it names, wherever the checkout lay then, else one by its path."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", ROOT.name)[:20]
    default = f"{name}-{hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]}"
    named = _read(ROOT / MARK)
    names = [named] if re.fullmatch(r"\w[A-Za-z0-9._-]*", named) else []
    return next(state for state in (home() / one for one in chain(names, _numbered(default))) if _is_ours(state))


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def _is_ours(state: Path) -> bool:
    """Whether no other checkout that is still there has its data in it."""
    owner = Path(_read(state / "checkout") or ROOT)
    return owner == ROOT or _read(owner / MARK) != state.name


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    """Root's own umask may be 077; the server's account has to read what we write for it."""
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


@contextmanager
def _locked() -> Iterator[Path]:
    """The state directory of this checkout, ours alone for the moment."""
    state = _state()
    try:
        with _umask(0o022):
            state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
        if _read(state / "checkout") != str(ROOT):
            (state / "checkout").write_text(f"{ROOT}\n")
    except OSError as error:
        raise Problem("cannot write the state directory", detail=str(error), exit_code=2,
                      hint=cause(str(error)) or "set TIDEMARK_HOME to a directory of your own") from error
    with suppress(OSError):  # a checkout that we may not write has its path alone
        if _read(ROOT / MARK) != state.name:
            (ROOT / MARK).write_text(f"{state.name}\n")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield state


def _remembered() -> dict[str, Any]:
    """The edition that ran last, and by name the directory of each server's binaries, the last started one last."""
    try:
        return json.loads((_state() / "current.json").read_text())
    except (OSError, ValueError):
        return {"edition": None, "servers": {}}


def embedded(edition: str | None = None) -> Server | None:
    """This checkout's server, running or not; None where `up` never made one (of that edition).

    Raises Problem where the PostgreSQL that it was made with is not on the machine any more.
    """
    remembered = _remembered()
    edition = edition or remembered["edition"]
    for name, bindir in reversed(remembered["servers"].items()):
        if name.endswith(f"-{edition}"):
            return Server(_state() / name, _binaries(name, Path(bindir)), edition)
    return None


def _binaries(name: str, bindir: Path) -> Installation:
    """The installation a server was made with, or another of the same major version."""
    found = inspect(bindir)
    if isinstance(found, Installation):
        return found
    major, edition = name.split("-")
    with suppress(Problem):
        for other in installations():
            if other.major == int(major) and edition in other.editions:
                return other
    raise Problem(
        f"this checkout's data are in PostgreSQL {major} ({edition}), which is not on this machine any more",
        detail=found, exit_code=2,
        hint=f"install PostgreSQL {major} with TimescaleDB again; TIDEMARK_PG_BIN names another, with data of its own",
    )


def up(edition: str | None = None, dbname: str = "tidemark", say: Say = _quiet) -> Server:
    """The running server of this checkout with its database; makes and starts what is missing, and says so.

    Without `edition` the one that ran last, at first the fullest that the machine offers.
    """
    with _locked() as state:
        server, chosen = None, path_setting("TIDEMARK_PG_BIN")
        with suppress(Problem) if chosen else nullcontext():
            server = embedded(edition)
        if server is None or (chosen and chosen != server.installation.bindir):
            installation = find_installation(edition)
            edition = edition or installation.editions[-1]
            server = Server(state / f"{installation.major}-{edition}", installation, edition)
        is_new = not server.data.exists()
        server.start()
        remembered = _remembered()
        name = server.directory.name
        others = {key: value for key, value in remembered["servers"].items() if key != name}
        now = {"edition": server.edition, "servers": others | {name: str(server.installation.bindir)}}
        fresh = state / "current.json.new"
        fresh.write_text(json.dumps(now, indent=1) + "\n")
        fresh.replace(state / "current.json")
        server.create_database(dbname)
        if is_new and others:
            say(f"this is a new server ({name}) with an empty database; the data of {', '.join(others)} stay there")
    return server


def down(edition: str | None = None) -> list[str]:
    """Stop this checkout's servers (of that edition), of whatever version; the names of those that ran."""
    def running() -> list[Process]:
        found = sorted(_state().glob(f"*-{edition or '*'}/data/postmaster.pid"))
        return [process for process in (Process(path.parent.parent) for path in found) if process.alive]

    if not running():
        return []
    with _locked():
        stopped = running()
        for process in stopped:
            process.stop()
    return [process.directory.name for process in stopped]


def url(edition: str | None = None, dbname: str = "tidemark") -> str:
    """The URL of the running server; a Problem where none runs."""
    server = embedded(edition)
    if server is None or not server.running:
        raise Problem("the embedded server is not running", exit_code=2,
                      hint="start it with `tidemark up`, or set DATABASE_URL")
    return server.url(dbname)
