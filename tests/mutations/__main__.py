"""Breaks one guard after the other and reports whether its test turned red."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from tidemark.installation import find_installation
from tidemark.server import throwaway

from . import Mutation, collect

TESTS = Path(__file__).resolve().parents[1]
GREEN, RED = 0, 1  # pytest's exit codes; 2 and more mean that it could not run


def run(tests: str, only: str, url: str, environment: dict[str, str], *plugin: str) -> tuple[int, str]:
    """Run tests on the server; returns pytest's exit code and output."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "-p", "no:cacheprovider", "--database-url", url,
         *plugin, *(["-k", only] if only else []), str(TESTS / tests)],
        cwd=TESTS.parent, env={**os.environ, **environment}, capture_output=True, text=True,
    )
    return done.returncode, done.stdout + done.stderr


def broken(mutation: Mutation, url: str) -> tuple[int, str]:
    """Run the tests of a mutation where it has broken what they test."""
    environment = {**mutation.environment, "TIDEMARK_MUTATION": mutation.title}
    try:
        return run(mutation.tests, mutation.only, url, environment, "-p", "tests.mutations.plugin")
    finally:
        if mutation.undo:
            with psycopg.connect(url) as connection:
                connection.execute(mutation.undo)


def whole(mutations: list[Mutation], url: str) -> str:
    """Run the tests of all mutations where nothing is broken; returns the output of those that fail."""
    groups: dict[tuple, set[str]] = {}
    for one in mutations:
        file, _, name = one.tests.partition("::")
        groups.setdefault((file, *one.environment.items()), set()).add(one.only or name)
    for (file, *environment), names in groups.items():
        only = "" if "" in names else " or ".join(f"({name})" for name in sorted(names))
        code, output = run(file, only, url, dict(environment))
        if code != GREEN:
            return output
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--number", action="append", help="only the mutations of this test or part: 7, 'quality 3'")
    parser.add_argument("--name", default="", help="only the mutations with this text in their names")
    parser.add_argument("--edition", help="the edition to run on; by default the first one installed")
    parser.add_argument("--no-baseline", action="store_true", help="do not make sure first that the tests are green")
    parser.add_argument("--verbose", action="store_true", help="print how each test failed")
    parser.add_argument("--list", action="store_true", help="print the mutations and do nothing")
    options = parser.parse_args()
    chosen = [
        one for one in collect()
        if (not options.number or str(one.number) in options.number) and options.name in one.name
    ]
    if options.list:
        for one in chosen:
            print(f"{one.title} ({one.tests}{f', {one.edition} only' if one.edition else ''})")
        return 0
    edition = options.edition or find_installation().editions[0]
    chosen = [one for one in chosen if one.edition in ("", edition)]
    if not chosen:
        print(f"there is no such mutation on {edition}", file=sys.stderr)
        return 2
    red = 0
    failed: set[int | str] = set()
    started = time.monotonic()
    with throwaway(find_installation(edition), edition) as server:
        url = server.url("postgres")
        if not options.no_baseline and (output := whole(chosen, url)):
            print(output)
            print("the tests are not green to begin with: red would mean nothing", file=sys.stderr)
            return 2
        for one in chosen:
            code, output = broken(one, url)
            # A test that fails, not one that cannot be set up.
            is_red = code == RED and " failed" in output and " error" not in output.splitlines()[-1]
            red += is_red
            if not is_red:
                failed.add(one.number)
            print(f"{one.label}: {'red' if is_red else 'NOT RED'}  {one.name}", flush=True)
            if not is_red or options.verbose:
                print("\n".join(f"    {line}" for line in output.splitlines()[-15:]))
    numbers = {one.number for one in chosen}
    tests, parts = ({n for n in numbers if isinstance(n, kind)} for kind in (int, str))
    print(f"mutations {red} of {len(chosen)} red; {len(tests - failed)} of {len(tests)} tests and"
          f" {len(parts - failed)} of {len(parts)} parts proved on {edition} in {time.monotonic() - started:.0f} s")
    return 0 if red == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
