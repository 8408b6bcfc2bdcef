"""The terminal: help that fits, tables that fit, progress, colour and completion."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tidemark.boundary import _first_sentence
from tidemark.cli import main

TIDEMARK = Path(sys.executable).with_name("tidemark")


def commands(group: click.Group, *path: str):
    for name, command in group.commands.items():
        yield [*path, name]
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)


def in_terminal(arguments: list[str], columns: int, environment: dict[str, str]) -> tuple[str, int]:
    """What a program prints in a terminal of that width, and its exit code."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "LINES")}
    process = subprocess.Popen(arguments, stdin=child, stdout=child, stderr=child, env={**inherited, **environment})
    os.close(child)
    parts = []

    def read() -> None:
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:
                return
            if not part:
                return
            parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(timeout=120)
    reader.join(timeout=10)
    os.close(parent)
    return b"".join(parts).decode().replace("\r\n", "\n"), code


@pytest.mark.parametrize("path", [[], *commands(main)], ids=" ".join)
def test_help_fits_eighty_columns_and_cuts_nothing(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(main, [*path, "--help"]).output
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "..." not in text.replace("[OPTIONS] COMMAND [ARGS]...", "").replace("...\n", "...").replace(
        "[PARAMETERS]...", "").replace("[FILES]...", "").replace("FILES...", "").replace("[ARGUMENTS]...", "")


def test_list_of_verbs_has_whole_sentences(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    for command in main.commands.values():
        assert _first_sentence(command) in text
    assert _first_sentence(main.commands["compress"]) == "Compress the chunks that are due; Community only."


def test_table_that_is_too_wide_becomes_records(desk):
    environment = {"DATABASE_URL": desk.database.url}
    arguments = [str(TIDEMARK), "query", "data_quality"]
    wide, code = in_terminal(arguments, 250, environment)
    assert code == 0 and wide.splitlines()[0].split() == [
        "table_name", "series", "rows", "scored", "average_score", "below_100", "anomalies"]
    narrow, code = in_terminal(arguments, 50, environment)
    assert code == 0
    records = narrow.strip().split("\n\n")
    assert len(records) == len(wide.strip().splitlines()) - 1
    assert re.search(r"^average_score  \d", narrow, re.M) and re.search(r"^series         BTCUSDT 1h$", narrow, re.M)
    piped = subprocess.run(arguments, env={**os.environ, **environment, "COLUMNS": "50"}, capture_output=True,
                           text=True, check=True).stdout
    assert piped == wide, "a pipe has no width"


@pytest.mark.parametrize(("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_is_for_severity_and_no_color_turns_it_off(desk, environment, is_coloured):
    text, _ = in_terminal([str(TIDEMARK), "anomalies", "list"], 300,
                          {"DATABASE_URL": desk.database.url, "TERM": "xterm-256color", **environment})
    assert "black_swan" in text
    coloured = re.findall(r"\x1b\[\d+m(\w+) *\x1b\[0m", text)
    assert (set(coloured) <= {"black_swan", "anomaly"} and bool(coloured)) == is_coloured
    assert ("\x1b[" in text) == is_coloured


def test_pipe_gets_no_colour(run):
    assert "\x1b" not in run("anomalies", "list").output


SLOW = """
import sys, time
from tidemark import terminal
terminal.PATIENCE = 0.1
with terminal.working("refreshing"):
    time.sleep(1.6)
print("done")
"""


def test_long_work_shows_the_time_in_a_terminal_and_nothing_in_a_pipe():
    text, code = in_terminal([sys.executable, "-c", SLOW], 80, {})
    assert code == 0 and re.search(r"refreshing: \d s", text) and text.endswith("done\n")
    piped = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("done\n", "")


def test_short_work_shows_nothing():
    text, _ = in_terminal([sys.executable, "-c", SLOW.replace("1.6", "0.01")], 80, {})
    assert text == "done\n"


@pytest.mark.parametrize("arguments", [["refresh"], ["backup", "{folder}"]])
def test_verbs_that_take_long_are_watched(desk, tmp_path, arguments):
    code = (
        "import sys, time\nfrom tidemark import terminal, lifecycle, backup\nterminal.PATIENCE = 0\n"
        "before = terminal.time.sleep\n"
        "import tidemark.cli as cli\n"
        "for module, name in ((lifecycle, 'refresh'), (backup, 'backup')):\n"
        "    real = getattr(module, name)\n"
        "    setattr(module, name, lambda *a, real=real, **k: (time.sleep(1.3), real(*a, **k))[1])\n"
        "cli.main(sys.argv[1:])\n"
    )
    typed = [argument.format(folder=tmp_path / "backup") for argument in arguments]
    text, status = in_terminal([sys.executable, "-c", code, *typed], 80, {"DATABASE_URL": desk.database.url})
    assert status == 0, text
    assert re.search(r": \d s", text)


@pytest.mark.parametrize(("words", "expected"), [
    ("tidemark ch", "chart"), ("tidemark re", "report"), ("tidemark query cover", "coverage"),
    ("tidemark anomalies con", "confirm"), ("tidemark chart --ou", "--output"),
])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_what_may_follow(shell, words, expected):
    last = words.split()[-1]
    environment = {"bash": {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
                   "zsh": {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
                   "fish": {"COMP_WORDS": words, "COMP_CWORD": last}}[shell]
    done = subprocess.run([TIDEMARK], env={**os.environ, **environment, "_TIDEMARK_COMPLETE": f"{shell}_complete"},
                          capture_output=True, text=True, check=False)
    assert expected in re.split(r"[\s,]+", done.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_one_that_the_shell_takes(shell):
    script = subprocess.run([TIDEMARK], env={**os.environ, "_TIDEMARK_COMPLETE": f"{shell}_source"}, text=True,
                            capture_output=True, check=False).stdout
    assert "tidemark" in script and f"{shell}_complete" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine; what the script is made of was compared")
    assert subprocess.run([shell, "-n" if shell != "fish" else "--no-execute", "/dev/stdin"], input=script, text=True,
                          capture_output=True, check=False).returncode == 0


def test_completion_is_documented_for_each_shell():
    page = (Path(__file__).parents[2] / "README.md").read_text()
    for shell in ("bash", "zsh", "fish"):
        assert f"_TIDEMARK_COMPLETE={shell}_source tidemark" in page
