"""What a release leaves behind: digests of its state files, frozen from then on, and a copy of what it applied.

    releases/state.sha256         a line per released state file: digest, name, the version that brought it
    releases/<version>.tar.xz     schema/ and migrations/ as they were released, to make a database of that version from

Run it through `make release`, once per version, after CHANGELOG.md has a heading for it. Tests compare the state files
with the digests, and migrate a database that was made by each release's own files.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import tomllib
from pathlib import Path

from tidemark import config
from tidemark.errors import Problem

FOLDER = config.CHECKOUT / "releases"
LIST = "state.sha256"


def released(folder: Path = FOLDER) -> dict[str, tuple[str, str]]:
    """Digest and version of each released state file, by its name."""
    path = folder / LIST
    lines = path.read_text().splitlines() if path.exists() else []
    return {name: (digest, version) for digest, name, version in map(str.split, lines)}


def state_digests(root: Path) -> dict[str, str]:
    """SHA-256 of each state file below `root`, by its name, in the order in which they run."""
    files = sorted((root / "schema/state").glob("*.sql"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def broken(folder: Path = FOLDER, root: Path = config.CHECKOUT) -> list[str]:
    """Released state files that are not what they were, one line each."""
    now = state_digests(root)
    return [
        f"schema/state/{name} of {version} {'was edited' if name in now else 'is missing'}"
        for name, (digest, version) in released(folder).items() if now.get(name) != digest
    ]


def release(folder: Path = FOLDER, root: Path = config.CHECKOUT) -> str:
    """Freeze the state files, keep a copy of schema/ and migrations/; returns the version, that of pyproject.toml."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    archive = folder / f"{version}.tar.xz"
    if archive.exists():
        raise Problem(f"{version} is released already", hint="raise the version in pyproject.toml")
    if not re.search(rf"^## \[{re.escape(version)}\]", (root / "CHANGELOG.md").read_text(), re.MULTILINE):
        raise Problem(f"CHANGELOG.md has no heading for {version}", hint=f"write ## [{version}] above what it brings")
    if found := broken(folder, root):
        raise Problem("released state files changed", detail="; ".join(found), hint="put changes into new files")
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=9) as copy:
        for path in sorted([*(root / "schema").rglob("*.sql"), *(root / "migrations").glob("*.py")]):
            copy.add(path, str(path.relative_to(root)), filter=_anonymous)
    known = released(folder)
    lines = [f"{digest}  {name}  {known[name][1] if name in known else version}\n"
             for name, digest in state_digests(root).items()]
    (folder / LIST).write_text("".join(lines))
    return version


def unpack(archive: Path, target: Path) -> None:
    """The schema/ and migrations/ of a release, as they were."""
    with tarfile.open(archive) as copy:
        copy.extractall(target, filter="data")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same archive whoever makes it, and whenever."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


if __name__ == "__main__":
    try:
        print(f"released {release()}: commit releases/ and tag it")
    except Problem as problem:
        raise SystemExit(f"release: {problem}") from None
