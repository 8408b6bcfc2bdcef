"""The numbered SQL files: state, which runs once, and logic, which is re-applied when its text changes.

State comes before logic, each in the order of its numbers, whatever folder they lie in; folders only help a reader. A
file is known by its name without the folder, so that moving one changes nothing. Those of the user's own project have
numbers of their own, come after all that is shipped, and are known by a name that begins with `own/`.

State has the numbers 000 to 499 and then 5000 to 9999, logic has 500 to 999. After 499 comes 5000 and not 1000, so that
names of state files that are sorted as text, by a shell, yoyo or Python, are in the order in which the files run.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from tidemark import config
from tidemark.errors import Problem

_STATE_NUMBERS = [*range(500), *range(5000, 10_000)]
_LOGIC_NUMBERS = range(500, 1000)
_NAME = re.compile(r"([0-9]{3}|[5-9][0-9]{3})_[a-z][a-z0-9_]*\.sql")


@dataclass(frozen=True)
class SchemaFile:
    """One file below `schema/`."""

    path: Path
    text: str
    is_own: bool = False

    @property
    def name(self) -> str:
        return f"own/{self.path.name}" if self.is_own else self.path.name

    @property
    def number(self) -> int:
        return number(self.name)

    @property
    def is_logic(self) -> bool:
        return is_logic(self.name)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def migration_id(self) -> str:
        return self.path.stem


def number(name: str) -> int:
    """The number of a file by its name."""
    return int(name.rpartition("/")[2].partition("_")[0])


def is_logic(name: str) -> bool:
    """Whether a file of that name holds logic."""
    return number(name) in _LOGIC_NUMBERS


def next_number(files: list[SchemaFile], *, logic: bool) -> int:
    """The number for a file that comes after these, which are of its kind; raises Problem where none is left."""
    last = files[-1].number if files else 99  # a project's own state begins with 100
    for free in _LOGIC_NUMBERS if logic else _STATE_NUMBERS:
        if free > last:
            return free
    raise Problem("there is no number left for another file")


def schema_files() -> list[SchemaFile]:
    """All files in the order in which they run: what is shipped, then the project's own; raises Problem where there are
    none, or a name or number is wrong."""
    shipped = _files(config.SCHEMA, False)
    if not shipped:
        raise Problem(
            "there is no schema to apply", detail=f"no SQL files in {config.SCHEMA}",
            hint="install Tidemark again: its package brings them along", exit_code=2,
        )
    return shipped + (_files(config.PROJECT / "schema", True) if config.PROJECT else [])


def _files(directory: Path, is_own: bool) -> list[SchemaFile]:
    paths = sorted(directory.rglob("*.sql"), key=lambda path: path.name)
    for path in paths:
        if not _NAME.fullmatch(path.name):
            raise Problem(
                f"schema/{path.name} is not named NUMBER_lower_case.sql",
                hint="state has the numbers 000 to 499 and then 5000 to 9999, logic 500 to 999",
            )
    paths.sort(key=lambda path: is_logic(path.name))  # within each kind names stay sorted, and so do numbers
    files = [SchemaFile(path, path.read_text(), is_own) for path in paths]
    for earlier, later in itertools.pairwise(files):
        if earlier.number == later.number:
            raise Problem(f"schema/{earlier.name} and schema/{later.name} have the same number")
    return files
