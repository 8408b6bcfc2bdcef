"""Files that hold several statements, each under a heading `-- name: …`."""

from __future__ import annotations

import re
from importlib import resources


def named_statements(file: str) -> dict[str, str]:
    """The statements of `runner/<file>` by name, in the order in which they are written."""
    text = resources.files("tidemark").joinpath(file).read_text()
    return {name: body.strip().removesuffix(";")
            for name, body in re.findall(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", text, re.S | re.M)}
