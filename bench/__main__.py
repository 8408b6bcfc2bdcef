"""What Tidemark costs and what it saves: ratios within one run, on throw-away servers that write durably.

    python -m bench [quality] [stored] [desk] [feeds] [history] [audit] [alerts] [applications] [move] [loading]
                    [coarse] [--edition E] [--rows N] [--stored N]

`stored` is `quality` with many rows in the table already. Every edition that the installed binaries offer is measured.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import UTC, datetime

import psycopg
from psycopg.conninfo import make_conninfo

from bench import alerts, applications, audit, coarse, desk, feeds, history, loading, move, quality
from tidemark.database import normalise
from tidemark.installation import find_installation
from tidemark.server import throwaway

# As a user's server: what is committed is on disk. Memory for ten million rows; no jobs in between.
SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "1GB", "max_wal_size": "8GB",
}
PARTS = (
    "quality", "stored", "desk", "feeds", "history", "audit", "alerts", "applications", "move", "loading", "coarse",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="what to measure; by default everything")
    parser.add_argument("--edition", choices=("apache", "community"))
    parser.add_argument("--rows", type=int, help="a million for scoring, ten for history, 7.5 for coarse")
    parser.add_argument("--stored", type=int, default=50_000_000, help="rows in the table before `stored` begins")
    options = parser.parse_args()
    for edition in [options.edition] if options.edition else find_installation().editions:
        with throwaway(find_installation(edition), edition, SETTINGS) as server:
            url = normalise(server.url("postgres"))
            _print_heading(url, edition)
            for part in options.parts or PARTS:
                print()
                if part == "move":
                    with throwaway(find_installation(edition), edition, SETTINGS) as target:
                        move.run(server, target, options.rows or 10_000_000)
                else:
                    _measure(part, url, options)


def _measure(part: str, url: str, options: argparse.Namespace) -> None:
    if part == "quality":
        quality.run(url, options.rows or 1_000_000)
        return
    if part == "stored":
        quality.run(url, options.rows or 1_000_000, options.stored, repeat=1)
        return
    if part == "desk":
        desk.run(url, options.rows or 3_000)
        return
    if part == "feeds":
        feeds.run(url)
        return
    if part == "loading":
        loading.run(url, options.rows or 1_000_000)
        return
    if part == "coarse":
        coarse.run(url, options.rows or 7_524_000)
        return
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE bench_{part}")
        own = make_conninfo(url, dbname=f"bench_{part}")
        if part == "history":
            history.run(own, options.rows or 10_000_000)
        elif part == "applications":
            applications.run(own, options.rows or 1_000_000)
        else:
            {"audit": audit, "alerts": alerts}[part].run(own)
        admin.execute(f"DROP DATABASE bench_{part} WITH (FORCE)")


def _print_heading(url: str, edition: str) -> None:
    with psycopg.connect(url) as connection:
        postgresql, timescaledb = connection.execute(
            "SELECT current_setting('server_version'),"
            "       (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb')"
        ).fetchone()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {edition}, TimescaleDB {timescaledb}, PostgreSQL {postgresql},"
          f" {os.cpu_count()} processors, {platform.machine()}", flush=True)


if __name__ == "__main__":
    main()
