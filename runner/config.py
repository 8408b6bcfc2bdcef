"""Where the files are, whose project this is, and which database the caller means.

The schema, its migrations and the questions come with Tidemark: beside the package in a checkout, inside it where it
was installed. A project of one's own is a directory with a file `tidemark.toml` (or the one that `--dir` names): what
it has under `schema/`, `migrations/` and `queries/` comes after what is shipped.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

MARKER = "tidemark.toml"
CHECKOUT = Path(__file__).resolve().parent.parent


def _shipped(name: str) -> Path:
    """A folder that comes with Tidemark."""
    installed = resources.files("tidemark").joinpath("_shipped", name)
    return Path(str(installed)) if installed.is_dir() else CHECKOUT / name


def _found() -> Path | None:
    """The project that TIDEMARK_DIR names or that the working directory lies in; None where there is none."""
    if named := os.environ.get("TIDEMARK_DIR"):
        return Path(named).absolute()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / MARKER).is_file()), None)


def use(project: Path | None) -> None:
    """Take this directory for the project; without one, ROOT is the checkout or the working directory."""
    global PROJECT, ROOT
    PROJECT = project
    ROOT = project or (Path.cwd() if IS_INSTALLED else CHECKOUT)


SCHEMA, MIGRATIONS, QUERIES, DOCS = map(_shipped, ("schema", "migrations", "queries", "docs"))
IS_INSTALLED = SCHEMA != CHECKOUT / "schema"
PROJECT: Path | None  # the user's own directory, where there is one
ROOT: Path  # where `.env` is looked for, and what the embedded server belongs to
use(_found())


def setting(name: str) -> str | None:
    """One setting: the environment first, then `.env` in ROOT; None where neither has it."""
    if value := os.environ.get(name):
        return value
    if not (file := ROOT / ".env").exists():
        return None
    from dotenv import dotenv_values

    return dotenv_values(file).get(name) or None
