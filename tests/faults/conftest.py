"""Servers for the fault tests, and their counts at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from faults.harness import COUNTS, durable
from tidemark.server import Server


@pytest.fixture(scope="session")
def victim(edition: str) -> Iterator[Server]:
    """A server that may be killed; whoever kills it starts it again."""
    with durable(edition) as server:
        yield server


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if COUNTS:
        terminalreporter.section("faults")
        for line in COUNTS:
            terminalreporter.write_line(line)
