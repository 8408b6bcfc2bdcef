"""Breaks one guard after the other and reports whether its test turned red."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

from runner.installation import find_installation
from runner.server import throwaway

from . import Mutation, __path__

TESTS = Path(__file__).resolve().parents[1]
GREEN, RED = 0, 1  # pytest's exit codes; 2 and more mean that it could not run


def run(mutations: list[Mutation], url: str, mutation: str | None) -> tuple[int, str]:
    """Run the tests of the mutations on the server, broken by SQL or whole; returns pytest's exit code and output."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "-p", "no:cacheprovider", "--database-url", url]
    environment = {**os.environ}
    if mutation is not None:
        command += ["-p", "tests.mutations.plugin"]
        environment["TIDEMARK_MUTATION"] = mutation
    if len(mutations) == 1 and mutations[0].only:
        command += ["-k", mutations[0].only]
    for one in mutations:
        environment |= one.environment
    command += sorted({str(TESTS / one.tests) for one in mutations})
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def collect() -> list[Mutation]:
    """The mutations of all modules of this package, in the order of the tests."""
    found: list[Mutation] = []
    for module in pkgutil.iter_modules(__path__):
        if module.name not in ("__main__", "plugin"):
            found += getattr(importlib.import_module(f"{__package__}.{module.name}"), "MUTATIONS", [])
    return sorted(found, key=lambda one: one.number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--number", type=int, action="append", help="only the mutations of this test")
    parser.add_argument("--edition", help="the edition to run on; by default the first one installed")
    parser.add_argument("--no-baseline", action="store_true", help="do not make sure first that the tests are green")
    parser.add_argument("--list", action="store_true", help="print the mutations and do nothing")
    options = parser.parse_args()
    mutations = [one for one in collect() if not options.number or one.number in options.number]
    if options.list:
        for one in mutations:
            print(f"test {one.number}: {one.name} ({one.tests})")
        return 0
    edition = options.edition or find_installation().editions[0]
    mutations = [one for one in mutations if one.edition in ("", edition)]
    reds, numbers = 0, {one.number for one in mutations}
    failed: set[int] = set()
    started = time.monotonic()
    with throwaway(find_installation(edition), edition) as server:
        url = server.url("postgres")
        if not options.no_baseline:
            code, output = run(mutations, url, None)
            if code != GREEN:
                print(output)
                print("the tests are not green to begin with: red would mean nothing", file=sys.stderr)
                return 2
        for one in mutations:
            code, output = run([one], url, one.sql)
            # A test that fails, not one that cannot be set up.
            is_red = code == RED and " failed" in output and " error" not in output.splitlines()[-1]
            reds += is_red
            if not is_red:
                failed.add(one.number)
            print(f"test {one.number}: {'red' if is_red else 'NOT RED'}  {one.name}", flush=True)
            if not is_red:
                print("\n".join(f"    {line}" for line in output.splitlines()[-15:]))
    print(f"{reds} of {len(mutations)} mutations turned their test red; {len(numbers - failed)} of {len(numbers)} tests"
          f" proved on {edition} in {time.monotonic() - started:.0f} s")
    return 0 if reds == len(mutations) else 1


if __name__ == "__main__":
    sys.exit(main())
