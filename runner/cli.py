"""The command line: each verb opens the database, calls one library function and prints its result."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tidemark.boundary import ELSEWHERE, Verbs, use_directory
from tidemark.errors import Problem
from tidemark.later import Later
from tidemark.terminal import table, working

# A verb imports what it uses.
psycopg, webbrowser = Later("psycopg"), Later("webbrowser")
backups = Later("tidemark.backup")
calendars = Later("tidemark.calendars")
catalog = Later("tidemark.catalog")
config = Later("tidemark.config")
databases = Later("tidemark.database")
examination = Later("tidemark.doctor")
formats = Later("tidemark.formats")
lifecycle = Later("tidemark.lifecycle")
loader = Later("tidemark.loader")
look = Later("tidemark.look")
machine = Later("tidemark.installation")
migrations = Later("tidemark.migrations")
parquet = Later("tidemark.parquet")
provision = Later("tidemark.provision")
questions = Later("tidemark.query")
server = Later("tidemark.server")
moving = Later("tidemark.move")


def _url() -> str:
    return config.setting("DATABASE_URL") or server.url()


def database(*, limited: bool = False) -> psycopg.Connection:
    """A connection to the database the caller means; the server's time limits hold only where `limited`."""
    return databases.connect(_url(), limited=limited)


def _state() -> Problem | None:
    """Why something that `schema/` makes is not in the database; None where the database has all of it."""
    with database() as connection:
        plan = migrations.make_plan(connection)
        if plan.up_to_date:
            return None
        what = "behind schema/" if plan.applied else "not migrated"
        return Problem(f"{databases.where(connection)} is {what}", hint="run: tidemark migrate", exit_code=2)


Verbs.state_of = staticmethod(_state)


def _ask(question: str) -> bool:
    """The question goes to standard error, as standard output may be a file or nowhere."""
    return click.confirm(question, err=True)


def _agree(question: str, yes: bool) -> None:
    """Go on only where somebody agrees."""
    if not yes and not _ask(question):
        raise click.Abort


def _say(line: str) -> None:
    click.echo(line, err=True)


def _complete_questions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of questions that begin so, for the shell."""
    return [name for name in questions.names() if name.startswith(incomplete)]


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
             epilog="Known elsewhere as: " + ", ".join(f"{theirs} = {ours}" for theirs, ours in ELSEWHERE.items()))
@click.option("--dir", type=click.Path(path_type=Path, file_okay=False), expose_value=False, callback=use_directory,
              help="Directory of your own project, whose schema/, migrations/ and queries/ come after the shipped ones."
              "  [default: where tidemark.toml is, here or above]")
@click.version_option(package_name="tidemark")
def main() -> None:
    """The database of a trading desk: apply it, look after it, ask it.

    The database is DATABASE_URL (environment, then .env), else this directory's own server (tidemark up).
    """


@main.command()
@click.option("--edition", type=click.Choice(["community", "apache"]),
              help="Start this edition; each has data of its own.  [default: the last one]")
@click.option("--install-only", is_flag=True, help="Install what is missing and start nothing.")
@yes_option
def up(edition: str | None, install_only: bool, yes: bool) -> None:
    """Start this checkout's own server; install PostgreSQL with TimescaleDB where there is none."""
    try:
        machine.find_installation(edition)
    except machine.NoInstallation:
        provision.provision(_ask, yes=yes, say=_say)
    if not install_only:
        click.echo(server.up(edition, say=_say).url())


@main.command()
@click.option("--edition", type=click.Choice(["community", "apache"]), help="Stop those of this one.  [default: all]")
def down(edition: str | None) -> None:
    """Stop this checkout's own servers; their data stay."""
    stopped = server.down(edition)
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "was not running")


@main.command()
def url() -> None:
    """Print the URL of the database, for psql and applications."""
    click.echo(_url())


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database; ARGUMENTS go to psql."""
    try:
        conninfo, secret = databases.without_password(_url())
        # Who sits before psql may have chosen otherwise.
        environment = {**databases.child_environment(), **os.environ, **secret}
        os.execvpe("psql", ["psql", conninfo, *arguments], environment)  # noqa: S606, S607
    except FileNotFoundError:
        raise Problem("psql is not installed", hint="install the package postgresql-client") from None


@main.command()
@click.option("--sql", "print_sql", is_flag=True, help="Print what would be run, and run nothing.")
def migrate(print_sql: bool) -> None:
    """Bring the database to the state of schema/: apply pending files, re-apply changed logic."""
    with database() as connection:
        if print_sql:
            plan = migrations.make_plan(connection)
            if plan.refusals:
                raise plan.refusals[0]
            click.echo("".join(migrations.pending_sql(plan)), nl=False)
            return
        done = migrations.migrate(connection, _say)
        if not done.up_to_date:
            lifecycle.refresh(connection)  # continuous aggregates are created without data
        _say("nothing to do" if done.up_to_date else
             f"applied {len(done.pending)} state and {len(done.logic)} logic files")
        if done.dropped:
            _say(f"dropped, because schema/ no longer has it: {', '.join(done.dropped)}")
        click.echo(f"the database is {databases.where(connection)}")
        click.echo("next: tidemark seed, or tidemark psql")


@main.command()
@click.option("-n", "count", type=click.IntRange(min=1), default=1, show_default=True,
              help="How many state files to undo.")
@click.option("--all", "everything", is_flag=True, help="Undo all of them.")
@yes_option
def rollback(count: int, everything: bool, yes: bool) -> None:
    """Undo the last state files and the data in their tables. Logic goes with them; migrate puts it back."""
    with database() as connection:
        what = "every table" if everything else f"the last {count} state file(s)"
        _agree(f"Undo {what} of {databases.where(connection)}, data included?", yes)
        undone = migrations.rollback(connection, None if everything else count, _say)
        click.echo(f"undone: {', '.join(undone) or 'nothing'}")


@main.command()
@click.option("--exit-code", is_flag=True, help="Exit with 3 where there is something to do, 1 where it is refused.")
@json_option
def status(exit_code: bool, as_json: bool) -> None:
    """Say which files are applied, pending, changed or refused. Only reads."""
    with database() as connection:
        plan = migrations.make_plan(connection)
        states = plan.states()
        if as_json:
            click.echo(json.dumps({
                "database": databases.where(connection), "files": states, "up_to_date": plan.up_to_date,
                "refused": [str(refusal) for refusal in plan.refusals],
            }, indent=2))
        else:
            click.echo(f"{databases.where(connection)}: {'up to date' if plan.up_to_date else 'not up to date'}")
            table(["file", "state"], list(states.items()))
            for refusal in plan.refusals:
                click.echo(f"refused: {refusal}")
    if exit_code and not plan.up_to_date:
        sys.exit(1 if plan.refusals else 3)


@main.command()
@json_option
def history(as_json: bool) -> None:
    """List what was applied, stamped and rolled back, oldest first (times in UTC)."""
    with database() as connection:
        headings = ["at", "operation", "migration", "by"]
        rows = [[at.isoformat(timespec="seconds"), *rest] for at, *rest in migrations.history(connection)]
        if as_json:
            click.echo(json.dumps([dict(zip(headings, row, strict=True)) for row in rows], indent=2))
        else:
            table(headings, rows)


@main.command()
def stamp() -> None:
    """Record a database that psql built from schema/*.sql as migrated, once it is proved to be so."""
    with database() as connection:
        _refuse_differences(connection)
        click.echo(f"recorded {len(migrations.stamp(connection))} files as applied")


@main.command()
@click.argument("name")
@click.option("--logic", is_flag=True, help="A file of functions, triggers or views instead of one of tables.")
def new(name: str, logic: bool) -> None:
    """Create the next numbered file for NAME, and its migration.

    State is numbered to 499 and then from 5000 to 9999, logic from 500 to 999.
    """
    for path in migrations.new(name, logic=logic):
        click.echo(os.path.relpath(path))


@main.command()
def verify() -> None:
    """Prove that the database is what schema/ says: every object, column, constraint, comment and privilege."""
    with database() as connection:
        plan = migrations.make_plan(connection)
        if plan.refusals:
            raise plan.refusals[0]
        if not plan.up_to_date:
            raise Problem("the database is behind schema/", hint="run: tidemark migrate")
        _refuse_differences(connection)
        click.echo("the database is what schema/ says")


def _refuse_differences(connection: psycopg.Connection) -> None:
    if found := catalog.differences(connection):
        raise Problem(
            f"{len(found)} object(s) differ from schema/", detail="; ".join(found[:20]),
            hint="undo the change by hand, or put it into a migration",
        )


LOAD_EXAMPLES = """\b
Examples:
  tidemark load --mode backfill --source ecb --wide eurofxref-hist.csv
  tidemark load --table candles --interval 1h --symbol-from-name \\
      BTCUSDT-1h-2025-03.zip
  tidemark load --table candles --interval 1h --symbol EURUSD \\
      --asset-type forex --tz Europe/Athens EURUSD_H1.csv
  tidemark load --table candles --interval 1d --symbol DAX --exchange XETR \\
      --encoding cp1252 --decimal , --columns \\
      ts=Datum,open=Eröffnung,high=Hoch,low=Tief,close=Schluss,volume=6 \\
      dax.csv
  tidemark load --table candles --interval 1d --symbol ABC \\
      --time-format mdy ambiguous.csv
  tidemark load --table candles --interval 1d --symbol-from-name \\
      --format lean aapl.zip
  tidemark load --table ticks --symbol BCHEUR --dry-run trades.csv
  tidemark load --table ticks --symbol BCHEUR --again trades.csv
"""


@main.command(epilog=LOAD_EXAMPLES)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--table", type=click.Choice(["timeseries_data", "candles", "quotes", "ticks", "corporate_actions"]),
              default="timeseries_data", show_default=True, help="Where the records go.")
@click.option("--source", help="Source of the records.  [default: the file's name without its endings]")
@click.option("--symbol", help="Symbol of all records, where the file has no such column.")
@click.option("--symbol-from-name", is_flag=True, help="The file's name says the symbol: AAPL.csv, BTCUSDT-1h.zip.")
@click.option("--exchange", help="Exchange of the symbols.")
@click.option("--asset-type", default="stock", show_default=True, help="Type of assets that are created.")
@click.option("--interval", help="Length of the bars, e.g. 1m or 1d, where the file has no such column.")
@click.option("--mode", default="live", show_default=True, help="backfill, live, correction or replay.")
@click.option("--columns", help="What feeds what, by names or positions: ts=Date+Time,close=Schluss,volume=7.")
@click.option("--tz", help="Time zone of times that do not say theirs: Europe/Athens.  [default: UTC]")
@click.option("--time-format", help="dmy, mdy, ymd; s, ms, us, ns since 1970; or as strptime has it: '%d.%m.%Y %H:%M'.")
@click.option("--decimal", help="The decimal sign: , or .")
@click.option("--encoding", help="Encoding of the text: cp1252, shift_jis, utf-16.  [default: UTF-8, or as marked]")
@click.option("--wide", is_flag=True, help="Every column but the time is a series of its own.")
@click.option("--format", "bundle", help="A bundle of these options by its name: lean, histdata, mt5, klines, …")
@click.option("--dry-run", is_flag=True, help="Show how the files are understood and their first rows; write nothing.")
@click.option("--again", is_flag=True, help="Also what was loaded before: brings back rows that were deleted.")
def load(files: tuple[Path, ...], symbol_from_name: bool, columns: str | None, tz: str | None, time_format: str | None,
         decimal: str | None, encoding: str | None, wide: bool, bundle: str | None, dry_run: bool, again: bool,
         **options: Any) -> None:
    """Load FILES of prices: delimited text, JSON, Parquet or Feather, plain, gzip, zip, bzip2, xz or zstd.

    First it says how it understands each file. What the file does not make certain it refuses, and names the option
    that decides. Run it again to complete an interrupted load. A folder stands for the files in it. Parquet files and
    folders that `clean --archive` wrote go back into the hypertable they came from. Files of splits, with a date and a
    ratio (2, 2:1), go into corporate_actions.
    """
    if options["table"] == "corporate_actions":
        _load_actions([one for path in files for one in _inside(path)], options["symbol"], options["exchange"], dry_run)
        return
    said = formats.said(
        format=bundle, columns=columns, tz=tz, time_format=time_format, decimal=decimal, encoding=encoding, wide=wide,
        symbol_from_name=symbol_from_name)
    archives = [path for path in files if parquet.is_archive(path)]
    others = [one for path in files if path not in archives for one in _inside(path)]
    if dry_run:
        place = {key: options[key] for key in ("table", "symbol", "interval")}
        for layout in loader.looked(others, said=said, **place):
            _print_layout(layout)
            rows = loader.preview(layout, options["interval"])
            if rows:
                table(list(rows[0]), [list(row.values()) for row in rows])
        return
    size = sum(file.stat().st_size for path in (*archives, *others) for file in parquet.files(path) if file.is_file())
    hidden = not sys.stderr.isatty()
    summaries: list[loader.Summary] = []
    with (
        database() as connection,
        click.progressbar(length=size, label="loading", file=sys.stderr, hidden=hidden) as bar,
    ):
        try:
            if archives:
                summaries += parquet.put_back(connection, archives, bar.update)
            if others:
                summaries += loader.load(connection, others, progress=bar.update, said=said, again=again,
                                         show=_print_layout, **options)
        except loader.LoadFailed as failed:
            _print_loads([*summaries, *failed.summaries])
            raise
    _print_loads(summaries)


def _load_actions(paths: list[Path], symbol: str | None, exchange: str | None, dry_run: bool) -> None:
    from tidemark import actions

    if dry_run:
        table(["file", "line", "symbol", "ex_date", "kind", "ratio"],
              [[str(path), a.line, a.symbol, a.ex_date, a.kind, a.ratio]
               for path in paths for a in actions.read(path, symbol)])
        return
    with database() as connection:
        for path, count in actions.load(connection, paths, symbol=symbol, exchange=exchange).items():
            click.echo(f"{path}: {count} actions are new or changed")


def _inside(path: Path) -> list[Path]:
    """The files in a folder, in their order; of a file itself."""
    return sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")) \
        if path.is_dir() else [path]


def _print_layout(layout: look.Layout) -> None:
    for line in layout.block:
        click.echo(line)


@main.command()
def seed() -> None:
    """Load sample data: the real daily bars of five shares that the package bokeh_sampledata brings."""
    try:
        from importlib import resources

        bars = resources.files("bokeh_sampledata") / "_data" / "stocks.csv.gz"
    except ModuleNotFoundError:
        raise Problem("the sample data are not installed", hint="pip install bokeh_sampledata", exit_code=2) from None
    with database() as connection:
        _print_loads(loader.load(connection, [Path(str(bars))], table="candles", interval="1d", mode="backfill"))


@main.command()
@click.option("--from", "start", type=click.DateTime(["%Y-%m-%d"]), help="First date.  [default: 2000-01-01]")
@click.option("--to", "end", type=click.DateTime(["%Y-%m-%d"]), help="Last date.  [default: end of next year]")
@click.option("--market", "markets", multiple=True,
              help="Only this one, by code or usual name; repeatable.  [default: the eight of README]")
def calendar(start: datetime | None, end: datetime | None, markets: tuple[str, ...]) -> None:
    """Fill market_calendar and time_index; rows of origin manual are never touched."""
    first, last = calendars.default_period()
    with database() as connection:
        stored = calendars.fill(
            connection, start.date() if start else first, end.date() if end else last,
            markets=markets or calendars.MARKETS,
        )
    table(["market", "inserted", "updated", "deleted", "kept"],
           [[s.market, s.inserted, s.updated, s.deleted, s.kept] for s in stored])


def _print_loads(summaries: Sequence[loader.Summary]) -> None:
    """What became of files; what else than written and rejected there is, only where there is some."""
    headings, rows = ["file", "read", "written", "rejected"], []
    more = [name for name in ("collapsed", "empty") if any(getattr(s, name) for s in summaries)]
    for s in summaries:
        said = [s.error or ("already loaded" if s.already_loaded else ""), s.note,
                f"{s.collapsed} shared a key with a later record, which is stored" if s.collapsed else "",
                f"{s.empty} without any figure: not stored" if s.empty else "",
                f"see ingestion_rejects, task {s.task_id}" if s.rejected and not s.already_loaded else ""]
        rows.append([s.file.name, s.read, s.written, s.rejected, *(getattr(s, name) for name in more),
                     f"{s.seconds:.1f}", "; ".join(filter(None, said))])
    table([*headings, *more, "seconds", ""], rows)


@main.command()
@yes_option
def reset(yes: bool) -> None:
    """Delete everything Tidemark keeps in the database and build it anew."""
    with database() as connection:
        _agree(f"Delete all data in {databases.where(connection)}?", yes)
        migrations.rollback(connection, None, _say)
        migrations.migrate(connection, _say)
        click.echo(f"{databases.where(connection)} is as new")


@main.command()
@click.option("--from", "start", type=click.DateTime(), help="Recompute from here (UTC).")
@click.option("--to", "end", type=click.DateTime(), help="… up to here, itself left out.")
def refresh(start: datetime | None, end: datetime | None) -> None:
    """Bring all aggregates up to date; with bounds, recompute what lies between them."""
    if start and end and start >= end:
        raise Problem("there is nothing between --from and --to", hint="--from comes before --to", exit_code=2)
    with database() as connection, working("refreshing"):
        lifecycle.refresh(connection, start and start.replace(tzinfo=UTC), end and end.replace(tzinfo=UTC))


@main.command()
@click.option("--older-than", help="An age, e.g. '7 days'.  [default: what data_policies says]")
def compress(older_than: str | None) -> None:
    """Compress the chunks that are due; Community only."""
    with database() as connection, _chunk_progress("compressing") as progress:
        try:
            connection.execute("SELECT %s::interval", (older_than,))
        except psycopg.DataError:
            raise Problem(f"{older_than!r} is no age", hint="write it as '7 days'", exit_code=2) from None
        done = lifecycle.compress(connection, older_than, progress)
    table(["hypertable", "from", "to", "before", "after", "ratio"], [
        [c.hypertable, f"{c.range_start:%Y-%m-%d}", f"{c.range_end:%Y-%m-%d}", _size(c.before), _size(c.after),
         f"{c.before / c.after:.1f}" if c.after else None] for c in done
    ])


@main.command()
@click.option("--archive", type=click.Path(path_type=Path, file_okay=False),
              help="First write the rows to Parquet files below this directory, and prove them complete.")
@yes_option
def clean(archive: Path | None, yes: bool) -> None:
    """Drop the chunks that have outlived data_policies; shows them first, and asks."""
    with database() as connection:
        due = lifecycle.what_would_go(connection)
        _print_chunks(due)
        if not due:
            click.echo("nothing has outlived its policy")
            return
        _agree(f"Drop {len(due)} chunks, {sum(c.rows for c in due)} rows?", yes)
        with _chunk_progress("dropping") as progress:
            dropped = lifecycle.clean(connection, archive, progress)
        click.echo(f"dropped {len(dropped)} chunks, {sum(c.rows for c in dropped)} rows")


def _print_chunks(chunks: Sequence[lifecycle.Chunk]) -> None:
    table(["hypertable", "from", "to", "rows", "size"], [
        [c.hypertable, f"{c.range_start:%Y-%m-%d}", f"{c.range_end:%Y-%m-%d}", c.rows, _size(c.before)] for c in chunks
    ])


def _size(count: int | None) -> str | None:
    """Bytes for people."""
    if count is None:
        return None
    for unit in ("B", "kB", "MB", "GB"):
        if count < 10240:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.0f} TB"


@contextmanager
def _chunk_progress(label: str) -> Iterator[lifecycle.Progress]:
    """A bar that counts chunks; silent where nobody watches."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=hidden) as bar:
        def progress(done: int, total: int, chunk: lifecycle.Chunk) -> None:
            bar.length = total
            bar.update(done - bar.pos)
        yield progress


@main.command()
@click.argument("hypertable", required=False)
@yes_option
def rechunk(hypertable: str | None, yes: bool) -> None:
    """Put chunks that are too small together and divide those that are too large; shows them first, and asks."""
    with database() as connection:
        groups = lifecycle.rechunk_plan(connection, hypertable)
        table(["hypertable", "from", "to", "rows", "chunks", "become"], [
            [g.hypertable, f"{g.range_start:%Y-%m-%d}", f"{g.range_end:%Y-%m-%d}", g.rows, g.chunks, g.pieces]
            for g in groups
        ])
        if not groups:
            click.echo("all chunks fit their data")
            return
        _agree(f"Replace {sum(g.chunks for g in groups)} chunks by {sum(g.pieces for g in groups)}?", yes)
        with _chunk_progress("rechunking") as progress:
            moved = lifecycle.rechunk(connection, groups, progress)
        click.echo(f"moved {moved} rows")


@main.command()
def maintain() -> None:
    """Refresh, compress and drop what is due, one run at a time; for cron, as often as every minute."""
    with database() as connection:
        if not lifecycle.maintain(connection):
            click.echo("another session is at it")


@main.command()
@json_option
def stats(as_json: bool) -> None:
    """Rows, chunks, sizes and compression of each hypertable; aggregates and their lag; policies and their last run."""
    with database() as connection:
        figures = lifecycle.stats(connection)
    if as_json:
        click.echo(json.dumps(figures, indent=2, default=str))
        return
    click.echo(f"TimescaleDB {figures['timescaledb']} ({figures['edition']}) on PostgreSQL {figures['postgresql']}, "
               f"{_size(figures['database_bytes'])}")
    for part in ("hypertables", "aggregates", "policies", "jobs"):
        if figures[part]:
            click.echo(f"\n{part}")
            table(list(figures[part][0]), [list(row.values()) for row in figures[part]])


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Examine version, settings, disk, bloat, indexes, jobs, record and migrations; say what to do.

    Exits with 1 where there is a warning, 2 where something is critical.
    """
    with database() as connection:
        findings = examination.examine(connection)
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        table(["severity", "check", "found", "what to do"], [list(vars(finding).values()) for finding in findings])
    sys.exit(examination.exit_code(findings))


@main.command()
@click.argument("name", required=False, shell_complete=_complete_questions)
@click.argument("parameters", nargs=-1)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
@click.option("--parquet", type=click.Path(path_type=Path, dir_okay=False), help="Write a Parquet file.")
@click.option("--arrow", type=click.Path(path_type=Path, dir_okay=False), help="Write an Arrow file (Feather).")
def query(name: str | None, parameters: tuple[str, ...], as_csv: bool, as_json: bool, **files: Path | None) -> None:
    """Ask the question queries/NAME.sql, with PARAMETERS as name=value; without NAME, list the questions."""
    if name is None:
        table(["name", "question", "parameters"], [
            [one.name, one.question, ", ".join(map(str, one.parameters))]
            for one in map(questions.load, questions.names())
        ])
        return
    chosen = {kind: path for kind, path in files.items() if path is not None}
    if len(chosen) + as_csv + as_json > 1:
        raise Problem("--csv, --json, --parquet and --arrow exclude each other", exit_code=2)
    _answer(name, questions.assignments(parameters), as_csv=as_csv, as_json=as_json, files=chosen)


def _answer(name: str, values: dict[str, str], *, as_csv: bool, as_json: bool,
            files: dict[str, Path] | None = None) -> None:
    """Ask a question of queries/ and print what it gives, or write it into a file."""
    with database(limited=True) as connection:
        questions.check(connection, name, values)
        try:
            for kind, path in (files or {}).items():
                from tidemark import frames

                click.echo(f"{frames.write(connection, name, values, path, kind)} rows in {path}")
            if files:
                return
            if as_csv:
                for part in questions.as_csv(connection, name, values):
                    click.echo(part, nl=False)
            elif as_json:
                click.echo(questions.as_json(connection, name, values))
            else:
                result = questions.run(connection, name, values)
                table(result.columns, result.rows)
        except psycopg.DataError as error:  # each value is one of its type, and yet not what this question takes
            raise Problem(f"{name} cannot be asked so", detail=error.diag.message_primary or "", exit_code=2) from None


@main.group()
def anomalies() -> None:
    """List flagged observations and say what they are."""


@anomalies.command("list")
@click.option("--status", type=click.Choice(["open", "acknowledged", "confirmed_error", "real_event", "expected",
                                             "dismissed"]), help="Those with this verdict.  [default: open]")
@click.option("--symbol", help="Only this asset's.")
@click.option("--source", help="Only this source's.")
@click.option("--table", help="Only this hypertable's.")
@click.option("--severity", type=click.Choice(["anomaly", "black_swan"]), help="At least this.  [default: anomaly]")
@click.option("--since", help="Only those that reach past this time.")
@click.option("--held", is_flag=True, default=None, help="Open ones that the rows after them bear out, too.")
@click.option("--limit", "count", type=click.IntRange(0, 2**63 - 1), help="How many episodes.  [default: 20]")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def anomalies_list(as_csv: bool, as_json: bool, **filters: Any) -> None:
    """Open episodes that may be errors, largest first."""
    values = {name: str(value) for name, value in filters.items() if value is not None}
    _answer("anomaly_episodes", values, as_csv=as_csv, as_json=as_json)


def _review(verb: str, status: str, meaning: str) -> None:
    @anomalies.command(verb, help=meaning)
    @click.argument("anomaly_id", type=click.IntRange(1, 2**63 - 1))
    @click.option("--notes", help="What you found.")
    @click.option("--one", is_flag=True, help="Only this observation, not its whole episode.")
    def review(anomaly_id: int, notes: str | None, one: bool) -> None:
        with database() as connection:
            (reviewed,) = connection.execute(
                "SELECT public.review_anomaly(%s, %s::public.anomaly_status, %s, %s)",
                (anomaly_id, status, notes, not one),
            ).fetchone()
        click.echo(f"{reviewed} anomalies are {status}")


_review("ack", "acknowledged", "Somebody is looking at it.")
_review("confirm", "confirmed_error", "It is bad data: later baselines leave it out once rescored.")
_review("real", "real_event", "The market did that: it stays in the baselines.")
_review("expected", "expected", "A split, a holiday, a halt.")
_review("dismiss", "dismissed", "Not worth a verdict.")


@anomalies.command("split")
@click.argument("episode", type=click.IntRange(1, 2**63 - 1))
@click.option("--ratio", required=True, help="Shares after for each share before: 2, 2:1, 1:10.")
@click.option("--notes", help="What you found.")
def anomalies_split(episode: int, ratio: str, notes: str | None) -> None:
    """It is a split: bars before it are adjusted when they are read."""
    from tidemark import actions

    try:
        value = actions.ratio_of(ratio)
    except ValueError as error:
        raise Problem(str(error), hint=actions.RATIOS, exit_code=2) from None
    with database() as connection:
        (action,) = connection.execute("SELECT public.record_split(%s, %s, %s)", (episode, value, notes)).fetchone()
    click.echo(f"action {action}: bars before it are adjusted")


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--physical", is_flag=True, help="The whole server, by pg_basebackup with WAL.")
@click.option("--verify", "verify_only", is_flag=True,
              help="Prove the backup in DIRECTORY instead: restore it into a scratch server and compare everything.")
def backup(directory: Path, physical: bool, verify_only: bool) -> None:
    """Back the database up into DIRECTORY, which must be new or empty."""
    if verify_only:
        with working("restoring into a scratch server"):
            manifest = backups.verify(directory, say=_say)
        click.echo(f"{directory} restores: {len(manifest.tables)} tables, {manifest.rows} rows")
        return
    with working("backing up"):
        manifest = backups.backup(_url(), directory, physical=physical, say=_say)
    click.echo(f"{manifest.kind} backup of {manifest.rows} rows in {directory}")
    if manifest.seal:
        click.echo(f"seal {manifest.seal['seal_id']}: {manifest.seal['root']}")


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
def restore(directory: Path) -> None:
    """Restore the logical backup in DIRECTORY into an empty database, and compare it with its manifest."""
    with working("restoring"):
        manifest = backups.restore(_url(), directory, say=_say)
    click.echo(f"restored {len(manifest.tables)} tables, {manifest.rows} rows")


@main.command()
@click.argument("series")
@click.option("--interval", help="Length of the bars, where a symbol has several, e.g. 1d.")
@click.option("--exchange", help="Exchange, where a symbol is traded on several.")
@click.option("--from", "start", type=click.DateTime(), metavar="WHEN",
              help="Draw from here (UTC).  [default: the first row]")
@click.option("--to", "end", type=click.DateTime(), metavar="WHEN", help="… up to here, itself left out.")
@click.option("--last", help="Draw the last stretch, e.g. 90d, 12h or 2y.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False),
              help="Write it to this file: .html, .png or .svg.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def chart(series: str, start: datetime | None, end: datetime | None, output: Path | None, show: bool,
          **options: Any) -> None:
    """Draw SERIES, a symbol or a source, with what is flagged in it and what is missing.

    As a page that needs no network; in a terminal, without --output or --open, as a line of blocks. The page
    goes to standard output where that is redirected.
    """
    from tidemark import chart as charts

    last = charts.stretch(options["last"]) if options["last"] else None
    with database() as connection:
        found = charts.find(connection, series, options["interval"], options["exchange"])
        drawn = charts.read(connection, found, start and start.replace(tzinfo=UTC), end and end.replace(tzinfo=UTC),
                            last)
    if output or show:
        path = output or Path(tempfile.mkdtemp(prefix="tidemark-")) / "chart.html"
        charts.write(drawn, path)
        _written(path, show)
    elif sys.stdout.isatty():
        click.echo(charts.sketch(drawn, shutil.get_terminal_size().columns))
    else:
        click.echo(charts.page(drawn), nl=False)


@main.command()
@click.option("--series", multiple=True, help="Only of this source or symbol; repeatable.")
@click.option("--since", type=click.DateTime(), metavar="WHEN", help="Only of rows since then (UTC).")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write the page to this file.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures of the page as JSON.")
def report(series: tuple[str, ...], since: datetime | None, output: Path | None, show: bool, as_json: bool) -> None:
    """Say on one page how good the data is: what is here, what is wrong, late, due and sealed.

    Goes to tidemark-report.html, or to standard output where that is redirected. It needs no network and no
    script, and can be mailed.
    """
    from tidemark import report as reports

    with database() as connection:
        figures = reports.figures(connection, series, since and since.replace(tzinfo=UTC))
    if as_json:
        click.echo(json.dumps(figures, indent=2, default=str))
        return
    page = reports.page(figures)
    if output is None and not show and not sys.stdout.isatty():
        click.echo(page, nl=False)
        return
    path = output or Path("tidemark-report.html")
    path.write_text(page)
    _written(path, show)


def _written(path: Path, show: bool) -> None:
    click.echo(f"written: {path}")
    if show and not webbrowser.open(path.resolve().as_uri()):
        _say("there is no browser to open it in")


@main.command()
@click.argument("source")
@click.argument("target")
@json_option
def move(source: str, target: str, as_json: bool) -> None:
    """Copy everything that the database SOURCE keeps into the empty database TARGET: URLs, or apache and community.

    Any edition, version and PostgreSQL that Tidemark runs on. The source is only read. Run it again to continue, or to
    bring what came meanwhile: for the last pass nobody writes to the source.
    """
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=1, label="moving", file=sys.stderr, hidden=hidden) as bar:
        def progress(done: int, total: int, what: str) -> None:
            bar.length = max(total, 1)
            bar.label = f"moving {what}"
            bar.update(done - bar.pos)
        moved = moving.move(_address(source), _address(target), progress=progress, say=_say)
    if as_json:
        click.echo(json.dumps([vars(one) for one in moved], indent=2))
    else:
        table(["table", "rows", "parts", "copied", "checksum"],
              [[one.relation, one.rows, one.parts, one.copied, one.checksum] for one in moved])
    click.echo(f"{sum(one.rows for one in moved)} rows of {len(moved)} tables are the same in both", err=as_json)


def _address(text: str) -> str:
    """A URL as given, or that of this checkout's running server of an edition."""
    return server.url(text) if text in ("apache", "community") else text
