"""What the command line says when something goes wrong: one line with what, detail and hint."""

from __future__ import annotations


class Problem(Exception):
    """An error a person can act on.

    `message` says what went wrong, `detail` what was found, `hint` what to do. `exit_code` is 1 for a
    failure of the work itself, 2 where the command could not start (no server, no rights, bad usage).
    """

    def __init__(self, message: str, *, detail: str = "", hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        parts = [self.message, self.detail and f"({self.detail})", self.hint and f"-> {self.hint}"]
        return " ".join(" ".join(part.split()) for part in parts if part)
