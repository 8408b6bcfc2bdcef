"""Install PostgreSQL with TimescaleDB on a machine that has none, by the machine's own package manager.

A release that carries `postgresql-NN-timescaledb` gets that package. Debian 12 does not carry one: it gets
its own PostgreSQL 15, and TimescaleDB built from the source package of the next release. APT fetches and
verifies that one too, from the mirror and with the keyring that the machine is set up for, in a private
state that leaves /etc/apt and the machine's package lists alone.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tidemark.errors import Problem, cause
from tidemark.installation import MIN_POSTGRES, MIN_TIMESCALEDB, version_tuple

# Debian releases without the package: which PostgreSQL they have, and which suite has the source for it.
BUILT = {("debian", "bookworm"): (15, "trixie")}
BUILD_TOOLS = ("cmake", "dpkg-dev", "gcc", "libc6-dev", "libkrb5-dev", "libssl-dev", "make")
OPTIONAL = ("pgvector",)

# Debian creates and starts a cluster `main` with every new server package. A drop-in prevents it for as
# long as this one installation takes; existing clusters are not touched, nor installed packages upgraded.
# Interrupted, it ends with apt-get: apt-get takes SIGINT at once while it downloads, and after dpkg's work is whole.
INSTALL = """
dir=/etc/postgresql-common/createcluster.d
[ -d "$dir" ] || made=$dir
tidy() { rm -f "$dir/tidemark.conf"; [ -z "$made" ] || rmdir -p "$made" 2>/dev/null; }
trap tidy EXIT
trap 'kill -INT $apt 2>/dev/null; wait $apt; exit 130' INT TERM HUP
mkdir -p "$dir" && echo "create_main_cluster = false" > "$dir/tidemark.conf" || exit 1
env --default-signal=INT DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends --no-upgrade \\
    -o DPkg::Lock::Timeout=120 "$@" &
apt=$!
wait $apt
"""


@dataclass(frozen=True)
class Step:
    """One command, in words and as it is run; `root` where it changes the system."""

    what: str
    command: tuple[str, ...]
    root: bool = False


# Without the option APT calls it a success when it reached nobody.
LISTS = Step("Reading the package lists", ("apt-get", "-o", "APT::Update::Error-Mode=any", "update"), root=True)


@dataclass(frozen=True)
class Plan:
    """What to install: packages of this `release`, and source packages of `suite` that are built here."""

    major: int
    packages: tuple[str, ...]
    sources: tuple[str, ...] = ()
    release: str = ""
    suite: str = ""

    def describe(self) -> str:
        """The plan for a person who is asked to agree."""
        text = f"Tidemark will install with apt-get: {' '.join(self.packages)}"
        if self.sources:
            text += (f"\nand build from Debian's source packages ({self.suite}): {' '.join(self.sources)}"
                     f"\n(into PostgreSQL {self.major}'s own lib and extension directories)")
        return text

    def package_steps(self) -> list[Step]:
        """The commands that install the packages, once the package lists are read."""
        return [Step("Installing packages", ("sh", "-c", INSTALL, "sh", *self.packages), root=True)]

    def fetch_steps(self, work: Path) -> list[Step]:
        """The commands that fetch the sources into `work`, where `sources/` holds the APT entry."""
        apt = ("apt-get", "-o", f"Dir::State::lists={work}/lists", "-o", f"Dir::Cache={work}/cache",
               "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={work}/sources")
        fetch = 'mkdir -p "$0" && cd "$0" && "$@" && dpkg-source -x *.dsc src'
        source = (*apt, "source", "--download-only")
        steps = [Step(f"Reading the source lists of {self.suite}", (*apt, "update"))] if self.sources else []
        for name in self.sources:
            steps.append(Step(f"Fetching {name}", ("sh", "-c", fetch, f"{work}/{name}", *source, name)))
        return steps

    def build_steps(self, name: str, work: Path) -> list[Step]:
        """The commands that build one fetched source and install it."""
        source, build = f"{work}/{name}/src", f"{work}/{name}/build"
        pg_config = f"/usr/lib/postgresql/{self.major}/bin/pg_config"
        make = ("make", f"-j{os.cpu_count() or 1}")
        if name == "timescaledb":
            flags = ("-DCMAKE_BUILD_TYPE=Release", "-DAPACHE_ONLY=1", "-DREGRESS_CHECKS=OFF",
                     "-DTAP_CHECKS=OFF", "-DUSE_TELEMETRY=OFF", f"-DPG_CONFIG={pg_config}")
            configure = [Step(f"Configuring {name}", ("cmake", "-S", source, "-B", build, *flags))]
            in_tree: tuple[str, ...] = ("-C", build)
        else:
            configure, in_tree = [], ("-C", source, f"PG_CONFIG={pg_config}", "with_llvm=no")
        return [
            *configure,
            Step(f"Building {name}", (*make, *in_tree)),
            Step(f"Installing {name}", ("make", *in_tree, "install"), root=True),
        ]


def plan(os_release: Mapping[str, str], available: Mapping[str, str]) -> Plan:
    """What to install on this system, where APT offers `available` (package name -> version)."""
    packaged = [
        int(found[1])
        for name, version in available.items()
        if (found := re.fullmatch(r"postgresql-(\d+)-timescaledb", name))
        and int(found[1]) >= MIN_POSTGRES
        and version_tuple(version) >= MIN_TIMESCALEDB
    ]
    if packaged:
        major = max(packaged)
        vector = (f"postgresql-{major}-pgvector",)
        return Plan(major, (f"postgresql-{major}-timescaledb", *(p for p in vector if p in available)))
    release = os_release.get("VERSION_CODENAME", "")
    major, suite = BUILT.get((os_release.get("ID", ""), release), (0, ""))
    if f"postgresql-{major}" not in available:
        name = os_release.get("PRETTY_NAME") or platform.system()
        raise Problem(f"Tidemark cannot install TimescaleDB on {name} by itself", exit_code=2,
                      hint="start a container with `make up` (docker compose), or install TimescaleDB's own "
                      "packages as docs.tigerdata.com describes, and call again")
    server = (f"postgresql-{major}", f"postgresql-server-dev-{major}")
    if f"postgresql-{major}-pgvector" in available:
        packages = (*server, f"postgresql-{major}-pgvector", *BUILD_TOOLS)
        return Plan(major, packages, ("timescaledb",), release, suite)
    return Plan(major, (*server, *BUILD_TOOLS), ("timescaledb", "pgvector"), release, suite)


def available() -> dict[str, str]:
    """The PostgreSQL packages that APT offers, and their newest versions; empty without APT or its lists."""
    if not shutil.which("apt-cache"):
        return {}
    names = _output("apt-cache", "pkgnames", "postgresql-").split()
    wanted = [n for n in names if re.fullmatch(r"postgresql-\d+(-timescaledb|-pgvector)?", n)]
    rows = [line.split("|") for line in _output("apt-cache", "madison", *wanted).splitlines() if wanted]
    return {row[0].strip(): row[1].strip() for row in reversed(rows)}


def source_entry(release: str, suite: str, targets: str, read: Callable[[str], str]) -> str:
    """An APT entry for the sources of `suite`, from the machine's own entry for its `release`.

    `targets` is what `apt-get indextargets` says, `read` gives the text of a file it names: APT does not
    print the keyring of an entry, so that is looked up where the entry stands.
    """
    for block in targets.strip().split("\n\n"):
        field = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if [field.get(name) for name in ("Origin", "Component", "Codename")] == ["Debian", "main", release]:
            break
    else:
        raise Problem(f"APT knows no mirror of {release}", hint="see `apt-get indextargets`", exit_code=2)
    uri, text = field["Repo-URI"], read(field["Sourcesentry"].rsplit(":", 1)[0])
    here = re.escape(uri.rstrip("/"))
    keyring = re.search(rf"^deb\s+\[[^\]]*signed-by=([^\s\]]+)[^\]]*\]\s+{here}/?\s", text, re.M)
    for stanza in re.split(r"\n[ \t]*\n", text):
        if re.search(rf"^URIs:.*{here}/?(\s|$)", stanza, re.M):
            keyring = keyring or re.search(r"^Signed-By:[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.M)
    entry = f"Types: deb-src\nURIs: {uri}\nSuites: {suite}\nComponents: main\n"
    return entry + (f"Signed-By: {keyring[1]}\n" if keyring else "")


def install(plan: Plan, say: Callable[[str], None] = print) -> None:
    """Carry out a plan. Sources and build trees are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tidemark-build-") as directory, _log() as log:
        work = Path(directory)
        work.chmod(0o755)  # APT downloads as an account of its own
        _refresh(log, say)
        for step in plan.package_steps():
            _run(step, log, say)
        if plan.sources:
            for part in ("sources", "lists", "cache"):
                (work / part).mkdir()
            targets = _output("apt-get", "indextargets", "Created-By: Packages")
            entry = source_entry(plan.release, plan.suite, targets, lambda path: Path(path).read_text())
            (work / "sources" / "tidemark.sources").write_text(entry)
        for step in plan.fetch_steps(work):
            _run(step, log, say)
        for source in plan.sources:
            try:
                for step in plan.build_steps(source, work):
                    _run(step, log, say)
            except Problem as problem:
                if source not in OPTIONAL:
                    raise
                say(f"{source} is left out: {problem}")


def provision(confirm: Callable[[str], bool], yes: bool = False, say: Callable[[str], None] = print) -> None:
    """Say what will be installed, ask (`confirm` gets the question; not with `yes` or in CI), install it."""
    agreed = yes or bool(os.environ.get("CI"))
    offered = available()
    if shutil.which("apt-get") and not offered:  # a fresh container has no package lists
        _check_consent(agreed)
        with _log() as log:
            failure = _refresh(log, say)
            offered = available()
            if failure and not offered:
                raise failure
    try:
        os_release = platform.freedesktop_os_release()
    except OSError:
        os_release = {}
    wanted = plan(os_release, offered)
    _check_consent(agreed)
    say(wanted.describe())
    if not agreed and not confirm("Go on?"):
        raise Problem("nothing was installed", hint="DATABASE_URL names a server elsewhere", exit_code=2)
    install(wanted, say)


def _check_consent(agreed: bool) -> None:
    if os.geteuid() != 0 and not shutil.which("sudo"):
        raise Problem("installing PostgreSQL with TimescaleDB needs root or sudo", exit_code=2,
                      hint="call as root, or set DATABASE_URL to a server elsewhere")
    if not agreed and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Problem("no PostgreSQL with TimescaleDB found, and nobody here to ask whether to install it",
                      hint="add --yes (or set CI), or set DATABASE_URL to a server elsewhere", exit_code=2)


@contextmanager
def _log() -> Iterator[Path]:
    """A log file for the commands; kept where they fail, since the error names it."""
    handle, name = tempfile.mkstemp(prefix="tidemark-provision-", suffix=".log")
    os.close(handle)
    try:
        yield Path(name)
    except KeyboardInterrupt:
        Path(name).unlink()
        raise
    Path(name).unlink()


def _run(step: Step, log: Path, say: Callable[[str], None]) -> None:
    say(f"{step.what} ...")
    sudo = ("sudo",) if step.root and os.geteuid() != 0 else ()
    with log.open("a") as out:
        print("+", *step.command, file=out, flush=True)
        start = out.tell()
        code = _wait(subprocess.Popen([*sudo, *step.command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                      env=os.environ | {"LC_ALL": "C.UTF-8"}), step, say)
    if code:
        said = log.read_bytes()[start:].decode(errors="replace")
        lines = [line for line in said.splitlines() if line.strip()] or [f"exit code {code}"]
        telling = [line for line in lines if re.search(r"^E: |error:|Error|^sudo: ", line)] or lines
        raise Problem(f"{step.what}: failed", detail=f"{telling[-1].strip()}; all of it in {log}", hint=cause(said))


def _wait(process: subprocess.Popen, step: Step, say: Callable[[str], None]) -> int:
    """Its exit code. Interrupted, we pass it on and stay until the process has ended: never half an installation."""
    interrupted = False
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
            say(f"{step.what}: waiting for it to stop")
            with suppress(OSError):  # sudo passes it on, where it is not ours to signal
                process.send_signal(signal.SIGINT)
    if interrupted:
        raise KeyboardInterrupt
    return code


def _refresh(log: Path, say: Callable[[str], None]) -> Problem | None:
    """Read the package lists; the failure is for the caller to judge: a dead source beside good ones does no harm."""
    try:
        _run(LISTS, log, say)
    except Problem as failure:
        if not re.search(r"^E: |^W: |^Err:", log.read_text(errors="replace"), re.M):
            raise  # not APT's: sudo did not let us
        return failure
    return None


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C.UTF-8"})
    return done.stdout
