"""What the command line says when something goes wrong: one line with what, detail and hint."""

from __future__ import annotations

import re

# What a machine lacks when something else fails, by the words that programs use for it, and what to do.
CAUSES = {
    r"No space left on device|enough free space|Disk quota exceeded|disk is full|could not extend file":
        "the disk is full: free some space",
    r"Temporary failure (in name resolution|resolving)|Could not resolve|Name or service not known|"
    r"Network is unreachable|No route to host|Could not connect|Connection (timed out|refused|failed)|"
    r"Unable to connect|Failed to fetch|Some index files failed to download":
        "the network: see that this machine reaches its package mirror (a proxy goes into http_proxy and https_proxy)",
    r"sudo: .*(password is required|terminal is required|no tty|askpass)":
        "sudo wants a password and has nobody to ask: call `sudo -v` first, or call as root",
    r"not in the sudoers|not allowed to (run|execute)|may not run sudo|sudo: .*(uid is not 0|no new privileges)":
        "this account may not use sudo: call as root, or ask whoever may to install PostgreSQL with TimescaleDB",
    r"Could not get lock|Unable to acquire the dpkg|is another process using it":
        "another program installs packages: wait for it to end",
    r"dpkg was interrupted": "an earlier installation was cut short: sudo dpkg --configure -a",
}


def cause(text: str) -> str:
    """What to do about the real reason where the output of a program names one of the usual ones, else nothing."""
    return next((advice for words, advice in CAUSES.items() if re.search(words, text, re.I)), "")


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
