"""Where the checkout is and which database the caller means."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "schema"
MIGRATIONS = ROOT / "migrations"
QUERIES = ROOT / "queries"


def setting(name: str) -> str | None:
    """One setting: the environment first, then `.env` in the checkout; None where neither has it."""
    return os.environ.get(name) or dotenv_values(ROOT / ".env").get(name) or None
