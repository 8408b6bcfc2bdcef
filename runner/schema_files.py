"""The numbered SQL files: state, which runs once, and logic, which is re-applied when its text changes.

Their order is that of their numbers, whatever folder they lie in; folders only help a reader. A file is known by its
name without the folder, so that moving one changes nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from tidemark import config
from tidemark.errors import Problem

FIRST_LOGIC_NUMBER = 500
_NAME = re.compile(r"(\d{3})_[a-z][a-z0-9_]*\.sql")


@dataclass(frozen=True)
class SchemaFile:
    """One file below `schema/`."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def number(self) -> int:
        return int(self.name[:3])

    @property
    def is_logic(self) -> bool:
        return self.number >= FIRST_LOGIC_NUMBER

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def migration_id(self) -> str:
        return self.name.removesuffix(".sql")


def schema_files(directory: Path | None = None) -> list[SchemaFile]:
    """All files in the order in which they run; raises Problem where a name or number is wrong."""
    directory = directory or config.SCHEMA
    paths = sorted(directory.rglob("*.sql"), key=lambda path: path.name)
    files = [SchemaFile(path, path.read_text()) for path in paths]
    for file in files:
        if not _NAME.fullmatch(file.name):
            raise Problem(f"schema/{file.name} is not named NNN_lower_case.sql")
    for earlier, later in itertools.pairwise(files):
        if earlier.number == later.number:
            raise Problem(f"schema/{earlier.name} and schema/{later.name} have the same number")
    return files
