"""Where the command line ends: whatever happens in a verb becomes one line and an exit code.

0 done, 1 failed, 2 could not begin (usage, a path, no server, no rights), 128 + n interrupted by signal n; 3 and more
where a verb says so. `TIDEMARK_DEBUG=1` shows the traceback instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tidemark.errors import Problem, cause

if TYPE_CHECKING:
    import psycopg

ELSEWHERE = {  # the words of the applications' own tools, and what they are here
    "upgrade": "migrate", "init": "migrate", "downgrade": "rollback", "current": "status", "generate": "new",
    "revision": "new",
}
BAD_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM,
            errno.ELOOP, errno.ENXIO, errno.ESPIPE, errno.EINVAL, errno.EROFS}
# What the server refuses, in our words; every other message is its own, with its SQLSTATE.
HINTS = {
    "42501": "call as the owner of the database, or as a member of tidemark_admin",
    "25006": "this server takes no changes (a standby?): DATABASE_URL names another",
    "53100": "free some space where the server keeps its data",
    "53300": "end idle sessions, or raise max_connections",
    "55P03": "end the transaction that holds it (tidemark doctor) and run the command again",
    "57014": "raise statement_timeout for this role, or look at tidemark doctor",
    "57P01": "run the command again when the server is back",
}
ABSENT = {"42P01", "42883", "42704", "42703", "3F000"}  # a table, function, object, column, schema that is not there


class Interrupted(KeyboardInterrupt):
    """A signal that asks us to end; clears up as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def use_directory(context: click.Context, option: click.Parameter, directory: Path | None) -> None:
    """What --dir does, before or after the verb."""
    if directory:
        from tidemark import config

        config.use(directory.absolute())


class Verb(click.Command):
    """A verb, which takes what goes for all of them too."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(click.Option(["--dir"], type=click.Path(path_type=Path, file_okay=False), hidden=True,
                                        expose_value=False, callback=use_directory))


class Verbs(click.Group):
    """The group of all verbs. `state_of` asks the database why something is missing; None where it does not know."""

    command_class = Verb
    state_of: Callable[[], Problem | None] = staticmethod(lambda: None)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args and args[0] in ELSEWHERE:
            raise click.UsageError(f"there is no {args[0]!r} here: use tidemark {ELSEWHERE[args[0]]}", context)
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with the whole first sentence of each: click would cut what is longer than a line."""
        verbs = [(name, self.get_command(context, name)) for name in self.list_commands(context)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(verb)) for name, verb in verbs if verb and not verb.hidden])

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as interrupt:  # click would call it an abortion, which is the user's own No
            raise Problem("interrupted", exit_code=128 + getattr(interrupt, "number", signal.SIGINT)) from None
        except BrokenPipeError:  # whoever read us has had enough: no error, and nothing more to say
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(128 + signal.SIGPIPE)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            with _signals():
                _check_streams()
                code = super().main(*args, standalone_mode=False, **extra)
                sys.stdout.flush()
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.NoArgsIsHelpError as usage:
            usage.show()
            sys.exit(usage.exit_code)
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("TIDEMARK_DEBUG"):
                raise
            _fail(self.problem(error))

    def problem(self, error: BaseException) -> Problem:
        """Any error as what a person can act on."""
        match error:
            case Problem():
                return error
            case click.UsageError(ctx=context):
                path = context.command_path if context else "tidemark"
                return Problem(error.format_message(), hint=f"see {path} --help", exit_code=2)
            case click.Abort():
                return Problem("nobody agreed: nothing was changed", hint="--yes agrees in advance")
            case click.ClickException():
                return Problem(error.format_message(), exit_code=error.exit_code)
            case KeyboardInterrupt():
                return Problem("interrupted", exit_code=128 + signal.SIGINT)
            case _ if _is_of_database(error):
                return self._of_database(error)
            case OSError():
                what = error.strerror or str(error) or type(error).__name__
                names = ", ".join(_short(str(name)) for name in (error.filename, error.filename2) if name is not None)
                return Problem(f"{names}: {what}" if names else what, hint=cause(str(error)),
                               exit_code=2 if error.errno in BAD_PATH else 1)
            case UnicodeError():
                return Problem("there is text that is not UTF-8", detail=str(error))
            case MemoryError():
                return Problem("there is not enough memory", hint="end other programs, or work in smaller parts")
        return Problem(
            f"this should not happen: {type(error).__name__}", detail=str(error),
            hint="please report it, with what TIDEMARK_DEBUG=1 shows",
        )

    def _of_database(self, error: psycopg.Error) -> Problem:
        diag = error.diag
        if diag.sqlstate in ABSENT:
            with contextlib.suppress(Exception):
                if (state := self.state_of()) is not None:
                    return state
        if diag.sqlstate is None:
            lines = [line for line in str(error).splitlines() if line.strip()]
            if any(kind.__name__ == "OperationalError" for kind in type(error).__mro__):
                return Problem("the connection to the server was lost", detail=" ".join(lines[:2]),
                               hint="see whether it runs (tidemark doctor), and run the command again")
            return Problem(lines[0] if lines else type(error).__name__)
        hint = HINTS.get(diag.sqlstate, "")
        ours = diag.sqlstate.startswith("TM") or bool(hint)
        return Problem(
            diag.message_primary or str(error), hint=diag.message_hint or hint,
            detail=", ".join(filter(None, [diag.message_detail, "" if ours else f"SQLSTATE {diag.sqlstate}"])),
        )


def _first_sentence(verb: click.Command) -> str:
    text = " ".join((verb.help or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0]


def _is_of_database(error: BaseException) -> bool:
    """Whether it is psycopg's, which is not imported for this."""
    return any(kind.__module__ == "psycopg" and kind.__name__ == "Error" for kind in type(error).__mro__)


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _fail(problem: Problem) -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo(f"tidemark: {_short(str(problem), 4000)}", err=True)
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:  # what is left to be written would be an error once more when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(problem.exit_code)


def _check_streams() -> None:
    """Refuse to work for nobody, and let no character that the terminal lacks stop us."""
    for number in range(3):  # else the next file or socket to be opened would be taken for it
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        raise Problem("standard output is closed", hint="send it to /dev/null where nobody wants it", exit_code=2)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does: servers, scratch databases and files are cleared up."""
    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:  # not where nohup or a caller decided otherwise
                signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
