"""Which statement of which application a test answers, counted and told at the end of the run."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import psycopg
import pytest

from tidemark.config import ROOT

APPLICATIONS = ("buddy_ai", "cryptovolt", "trading_manager", "hyperliquid", "btc_dashboard")
PAGE = ROOT / "docs" / "applications.md"
HEADING = """# The applications' statements

What runs with nothing but `search_path` changed. `document` is a statement of the application's document as written,
`own` a test of ours in its tables, columns and shapes; `not run` is about the server, not the schema, and
`tests/applications/test_documents.py` says why. Written by
`TIDEMARK_UPDATE_APPLICATIONS=1 make test ARGS='-n0 tests/applications'`.

| application | line | kind | statement | outcome |
|---|---|---|---|---|
"""
ORM_HEADING = """
## Through an ORM

The models of [models/](models/) on each driver, an operation a row; what each does is in
`tests/applications/test_orm.py`.

"""
_operations: dict[tuple[str, str, str], str] = {}
_results: dict[tuple[str, int, str, str], str] = {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "statement(application, line, title): answers that line of the application's document"
    )
    config.addinivalue_line("markers", "operation(application, driver, title): what an application's ORM does")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = (yield).get_result()
    mark = item.get_closest_marker("statement")
    if mark and (report.when == "call" or report.failed or report.skipped):
        kind = "document" if "document" in item.nodeid else "own"
        key = (*mark.args, kind)
        outcome = "not run" if report.skipped else report.outcome
        worst = ("passed", "not run", "failed")
        _results[key] = max(_results.get(key, "passed"), outcome, key=worst.index)
    operation = item.get_closest_marker("operation")
    if operation and (report.when == "call" or report.failed):
        worst = ("passed", "failed")
        _operations[operation.args] = max(_operations.get(operation.args, "passed"), report.outcome, key=worst.index)


def operations_table() -> str:
    """The table of applications and operations by driver, with the drivers' versions."""
    drivers = list(dict.fromkeys(driver for _, driver, _ in _operations))
    heads = [f"{driver} {version(driver + ('-binary' if driver == 'psycopg2' else ''))}" for driver in drivers]
    rows = dict.fromkeys((application, title) for application, _, title in _operations)
    lines = [f"SQLAlchemy {version('sqlalchemy')}.", "",
             f"| application | operation | {' | '.join(heads)} |", f"|---|---|{'---|' * len(drivers)}"]
    lines += [f"| {application} | {title} | " + " | ".join(
        _operations.get((application, driver, title), "not run") for driver in drivers) + " |"
        for application, title in sorted(rows, key=lambda row: APPLICATIONS.index(row[0]))]
    return "\n".join(lines) + "\n"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _results:
        return
    terminalreporter.section("the applications' statements")
    order = sorted(_results, key=lambda key: (APPLICATIONS.index(key[0]), key[1], key[3]))
    if os.environ.get("TIDEMARK_UPDATE_APPLICATIONS"):
        PAGE.write_text(HEADING + "".join(
            f"| {application} | {line} | {kind} | `{title.replace('|', '¦')}` | {_results[key]} |\n"
            for key in order for application, line, title, kind in [key]
        ) + ORM_HEADING + operations_table())
    for application in APPLICATIONS:
        for kind in ("own", "document"):
            counts = Counter(_results[key] for key in order if key[0] == application and key[3] == kind)
            if counts:
                told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(counts.items()))
                terminalreporter.write_line(f"{application}, {kind} statements: {told}")


Use = Callable[[str], psycopg.Connection]


@pytest.fixture
def use(tx: psycopg.Connection) -> Use:
    """`use("cryptovolt")` is a connection on which only the search_path is that application's."""
    def use(application: str) -> psycopg.Connection:
        tx.execute(f"SET LOCAL search_path = {application}, public")
        return tx
    return use
