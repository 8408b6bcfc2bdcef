"""SQL as text: where one statement ends and the next begins, and which of them end a transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n]* )
    | (?P<block> /\* )
    | (?P<escaped> \b[eE]'(?:[^'\\]|\\.|'')*' )
    | (?P<string> '[^']*' )                       # a doubled quote is two strings
    | (?P<name> "[^"]*" )
    | (?P<dollar> \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ )
    | (?P<word> [^\W\d][\w$]* )
    | (?P<end> ; )
    | (?P<other> \d[\w.]* | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_CREATES_ROUTINE = re.compile(r"create (or replace )?(function|procedure)\b")
_ENDS_TRANSACTION = re.compile(
    r"(begin|end|abort|start transaction|prepare transaction|commit|rollback)\b"
    r"(?! (work |transaction )?to\b)"  # a savepoint's end is not the transaction's
)


def statements(text: str) -> Iterator[tuple[str, str]]:
    """Each statement of a script as it is written, and its bare words in lower case, one space between them.

    Comments, strings, quoted names and dollar-quoted bodies hide what they hold; so does the body of a routine in
    standard SQL, BEGIN ATOMIC … END. Text that the server would refuse is cut somehow, and refused there.
    """
    start = at = 0
    words: list[str] = []
    depth = 0  # of BEGIN ATOMIC and CASE
    while at < len(text):
        token = _TOKEN.match(text, at)
        at = _after_comment(text, at) if token["block"] else token.end()
        if token["word"]:
            word = token["word"].lower()
            if depth and word in {"begin", "case"}:
                depth += 1
            elif depth and word == "end":
                depth -= 1
            elif word == "atomic" and words[-1:] == ["begin"] and _CREATES_ROUTINE.match(" ".join(words[:4])):
                depth = 1
            words.append(word)
        elif token["end"] and not depth:
            if words:
                yield text[start:at], " ".join(words)
            start, words = at, []
    if words:
        yield text[start:], " ".join(words)


def transaction_control(text: str) -> str | None:
    """The first words of the first statement of a script that begins or ends a transaction; None: it has none."""
    return next((" ".join(words.split()[:2]) for _, words in statements(text) if _ENDS_TRANSACTION.match(words)), None)


def _after_comment(text: str, at: int) -> int:
    """Where the comment that begins at `at` ends; they nest."""
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(text)
