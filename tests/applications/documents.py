"""The SQL in the applications' documents: every statement of a fenced block, with the line it stands on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlparse

from tidemark.config import ROOT

DIRECTORY = ROOT.parent / "shared" / "seeds"
FILES = {
    "buddy_ai": "000_a5a19dcd7d8db7f1.txt", "cryptovolt": "001_97120951183bc402.txt",
    "trading_manager": "002_1c6dc5360de2514a.txt", "hyperliquid": "003_b90e4982d6f879d9.txt",
    "btc_dashboard": "004_9ccf88781766d7b4.txt",
}
_FENCED = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.S | re.M)
# SQL inside other languages: arguments of execute() and text(), psql -c "…", and lines typed at a psql prompt.
_EMBEDDED = {
    "python": re.compile(r'(?:execute|text)\("(?:"")?(.*?)"(?:"")?\)', re.S),
    "bash": re.compile(r'psql\b[^\n]*?-c "([^"]*)"|^((?:SELECT|CREATE) [^\n]*;|\\c \w+)$', re.M),
}


@dataclass(frozen=True)
class Statement:
    """One statement, as written but for the space around it."""

    application: str
    line: int
    text: str

    @property
    def title(self) -> str:
        text = re.sub(r"--[^\n]*", "", self.text)
        return re.sub(r"\s+", " ", text).strip()[:72]


def statements(application: str) -> list[Statement]:
    """Every statement of an application's document, in order; column lists in SQL fences are statements of one line."""
    document = (DIRECTORY / FILES[application]).read_text()
    found = []
    for block in _FENCED.finditer(document):
        language, body, start = block[1], block[2], block.start(2)
        if language == "sql":
            parts = [(start + at, part) for at, part in _split(body)]
        elif language in _EMBEDDED:
            parts = [
                (start + match.start(match.lastindex) + at, part)
                for match in _EMBEDDED[language].finditer(body) for at, part in _split(match[match.lastindex])
            ]
        else:
            continue
        found += [Statement(application, document.count("\n", 0, at) + 1, part) for at, part in parts]
    return found


def _split(body: str) -> list[tuple[int, str]]:
    """(offset, statement) of each statement; psql's backslash commands stand by themselves."""
    if body.lstrip().startswith("- "):
        return [(len(body) - len(body.lstrip()), body.strip())]
    parts, position = [], 0
    pieces = re.split(r"(^\\\w+.*$)", body, flags=re.M)
    for piece in pieces:
        for statement in [piece] if piece.startswith("\\") else sqlparse.split(piece):
            bare = re.sub(r"^(\s|--[^\n]*\n)*", "", statement)
            position = body.index(bare, position) if bare else position
            if re.sub(r"--[^\n]*", "", bare).strip():
                parts.append((position, bare.strip()))
                position += len(bare)
    return parts


def documents_are_here() -> bool:
    return all((DIRECTORY / name).is_file() for name in FILES.values())
