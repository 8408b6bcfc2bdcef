"""How good the data is, on one page that a person without the database can read: figures of queries/, and drawings.

The page holds no script: it can be mailed. `figures` is what it shows, as `--json` prints it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

import psycopg

from tidemark import drawing
from tidemark import query as questions
from tidemark.database import where
from tidemark.drawing import Html
from tidemark.errors import Problem

EPISODES = 24  # drawn; twice as many are listed
SERIES = 100  # drawn on the map, those that lack most
WORST = 20
CLASSES = ((0.995, "share3", "complete"), (0.9, "share2", "above 90 %"), (0.5, "share1", "above half"),
           (0.0, "share0", "less than half"))
UNKNOWN = ("unknown", "there, but nobody says how much is due")
PENALTIES = {"completeness": "share0", "timeliness": "late", "consistency": "black_swan", "validation": "penalised"}
HYPERTABLES = {"timeseries_data": "late", "candles": "up", "quotes": "penalised"}


def figures(connection: psycopg.Connection, series: Sequence[str] = (), since: datetime | None = None
            ) -> dict[str, Any]:
    """Everything the page tells, ready for JSON. `series` are names; none: all. Only reads.

    Raises Problem where a name is unknown or nothing is stored since then.
    """
    start = {} if since is None else {"since": since}
    named = {row.name for row in questions.rows(connection, "coverage")}
    if unknown := [name for name in series if name not in named]:
        raise Problem(f"there is no series {unknown[0]!r}", exit_code=2, hint=f"one of: {_some(sorted(named))}"
                      if named else "nothing is stored yet: tidemark load")
    chosen = set(series)
    cells = 60 if len(chosen or named) <= 100 else 30 if len(chosen or named) <= 300 else 20
    coverage = [
        {"table_name": key[0], "name": key[2], "interval": key[3], "first_at": key[4], "last_at": key[5],
         "expected": sum(row.expected for row in rows) if all(row.expected is not None for row in rows) else None,
         "stored": sum(row.stored for row in rows),
         "cells": [{"starts_at": row.starts_at, "ends_at": row.ends_at, "expected": row.expected,
                    "stored": row.stored} for row in rows]}
        for key, rows in _grouped(questions.rows(connection, "coverage_map", cells=cells, **start))
        if not chosen or key[2] in chosen
    ]
    if not coverage:
        raise Problem("there is nothing to report" if since is None else
                      f"there are no rows since {drawing.shown(since)}",
                      detail=_reach(connection), hint="tidemark load" if since is None else "", exit_code=2)
    first = max(min(row["first_at"] for row in coverage), since or datetime.min.replace(tzinfo=UTC))
    span = max(row["last_at"] for row in coverage) - first
    width = "1 day" if span <= timedelta(days=120) else "7 days" if span <= timedelta(days=1100) else "1 month"
    episodes = [row for row in questions.rows(connection, "open_episodes", count=10_000 if series else 2 * EPISODES)
                if _is_of(row.series, chosen)]
    quality = [row for row in questions.rows(connection, "data_quality", **start) if _is_of(row.series, chosen)]
    result: dict[str, Any] = {
        "database": where(connection),
        "made_at": connection.execute("SELECT now()").fetchone()[0],
        "since": since, "series": sorted(series),
        "coverage": coverage,
        "open_episodes": len(episodes) if series else episodes[0].total if episodes else 0,
        "episodes": [{**_dict(row, "total"), "command": f"tidemark anomalies "
                      f"{'expected' if row.kind == 'split_candidate' else 'real'} {row.episode_id}"}
                     for row in episodes[:2 * EPISODES]],
        "quality": [_dict(row) for row in quality],
        "freshness": [_dict(row) for row in questions.rows(connection, "freshness")
                      if not chosen or row.name in chosen],
        "hypertables": [_dict(row) for row in questions.rows(connection, "hypertables")],
        "growth": [_dict(row) for row in questions.rows(connection, "growth", months=24)],
        "due": _allowed(connection, "due"),
        "record": (_allowed(connection, "record") or [None])[0],
    }
    result["trend_width"] = width
    # The questions of all data cannot be asked of some of it.
    result["trend"] = None if series else [
        _dict(row) for row in questions.rows(connection, "quality_trend", since=since or first, width=width)]
    for episode in result["episodes"][:EPISODES]:
        episode["bars"] = [_dict(row) for row in questions.rows(
            connection, "bars_around", source_id=episode["source_id"], interval=episode["interval"],
            asset_id=None if episode["source_id"] else episode["asset_id"], at=episode["starts_at"], count=20)]
    return result


def page(figures: dict[str, Any]) -> str:
    """The page, in the order in which a person asks."""
    name = figures["database"].split(" at ")[0]
    since = f", since {drawing.shown(figures['since'])}" if figures["since"] else ""
    some = f" of {_some(figures['series'])}" if figures["series"] else ""
    parts = [
        f"<h1>How good is the data{html.escape(some)}?</h1>\n<p>{html.escape(name)}, "
        f"{drawing.shown(figures['made_at'])} UTC{since}</p>",
        _summary(figures), _here(figures), _wrong(figures), _went(figures), _late(figures), _grows(figures),
        _sealed(figures),
    ]
    return drawing.page(f"Tidemark: {name}", "\n".join(parts))


def _summary(figures: dict[str, Any]) -> str:
    rows = sum(row["rows"] for row in figures["quality"])
    scored = sum(row["scored"] for row in figures["quality"])
    known = [row for row in figures["coverage"] if row["expected"]]
    share = sum(row["stored"] for row in known) / sum(row["expected"] for row in known) if known else None
    worst = min((row["average_score"] for row in figures["quality"] if row["average_score"] is not None), default=None)
    facts = [
        f"<b>{len(figures['coverage']):,}</b> series", f"<b>{rows:,}</b> rows, {scored:,} of them scored",
        f"<b>{_percent(share)}</b> of what is due is there" if share is not None else "",
        f"<b>{figures['open_episodes']:,}</b> episodes wait for a review",
        f"<b>{drawing.shown(worst)}</b> is the lowest mean score of a series" if worst is not None else "",
    ]
    return "<p>" + "; ".join(fact for fact in facts if fact) + ".</p>"


def _here(figures: dict[str, Any]) -> str:
    rows = sorted(figures["coverage"], key=lambda row: _share(row["stored"], row["expected"]))
    drawn = sorted(rows[:SERIES], key=lambda row: (row["table_name"], row["name"], str(row["interval"])))
    left = len(rows) - len(drawn)
    key = "".join(f'<span><i style="background:var(--{colour})"></i>{html.escape(text)}</span>'
                  for colour, text in (*((c, t) for _, c, t in CLASSES), UNKNOWN))
    note = f"<p class=\"muted\">{left:,} further series lack no more than these and are not drawn.</p>" if left else ""
    listed = [[row["name"], row["interval"], row["first_at"], row["last_at"], row["stored"], row["expected"],
               None if row["expected"] is None else row["expected"] - row["stored"],
               None if not row["expected"] else _percent(_share(row["stored"], row["expected"]))] for row in drawn]
    return (
        "<h2>What is here</h2>\n<p class=\"muted\">Each line is a series, each step of it days in its own market's "
        f"time: bars there, of those that the calendar expects.</p>\n<p class=\"key\">{key}</p>\n"
        + _both(lambda width: _map(drawn, width)) + note
        + "\n<details><summary>The same in figures</summary>\n"
        + drawing.table(["series", "interval", "first", "last", "there", "due", "missing", "share"], listed,
                        numbers=(4, 5, 6, 7)) + "</details>"
    )


def _map(rows: list[dict[str, Any]], width: int) -> dict[str, Any]:
    stretches = []
    for row in rows:
        label = " ".join(filter(None, [row["name"], row["interval"]]))
        for colour, cells in groupby(row["cells"], key=_class):
            cells = list(cells)
            stretches.append({"series": label, "a": _ms(cells[0]["starts_at"]), "b": _ms(cells[-1]["ends_at"]),
                              "colour": f"var(--{colour})"})
    return {
        "width": width, "height": {"step": 15}, "data": {"values": stretches},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "mark": {"type": "bar", "height": {"band": 0.8}},
        "encoding": {
            "x": {"field": "a", "type": "temporal", "scale": {"type": "utc", "nice": False},
                  "axis": {"title": None, "orient": "top", "tickCount": max(width // 120, 2)}},
            "x2": {"field": "b"},
            "y": {"field": "series", "type": "nominal", "sort": None,
                  "axis": {"title": None, "labelLimit": 110 if width < 500 else 200}},
            "fill": {"field": "colour", "type": "nominal", "scale": None},
        },
    }


def _class(cell: dict[str, Any]) -> str:
    if cell["expected"] is None:
        return UNKNOWN[0]
    share = _share(cell["stored"], cell["expected"])
    return next(colour for least, colour, _ in CLASSES if share >= least)


def _wrong(figures: dict[str, Any]) -> str:
    found = figures["episodes"]
    if not found:
        return "<h2>What is wrong now</h2>\n<p>No episode waits for a review.</p>"
    cards = []
    for episode in found[:EPISODES]:
        what = f"{episode['severity'].replace('_', ' ')}, {episode['fields'] or episode['kind'].replace('_', ' ')}"
        cards.append(
            f"<figure>{drawing.svg(_card(episode))}<figcaption><b>{html.escape(episode['series'])}</b>, "
            f"{drawing.shown(episode['starts_at'])}: z {episode['z_score']:+.1f}, {html.escape(what)}"
            + (f", {episode['waiting']} rows" if episode["waiting"] > 1 else "")
            + f"<br><code>{html.escape(episode['command'])}</code></figcaption></figure>"
        )
    rest = found[EPISODES:]
    total = figures["open_episodes"]
    return (
        f"<h2>What is wrong now</h2>\n<p>{total:,} episodes wait for a review; the {len(cards):,} largest, each with "
        "the twenty bars around it. <code>real</code> says that the market did it; <code>confirm</code> that the "
        "data is wrong, <code>expected</code> that it was to be (a split), <code>dismiss</code> that it is not worth a "
        f"verdict.</p>\n<div class=\"cards\">{''.join(cards)}</div>"
        + (f"\n<details><summary>The next {len(rest):,}</summary>" + drawing.table(
            ["series", "at", "z", "severity", "of", "rows", "command"],
            [[row["series"], row["starts_at"], round(row["z_score"], 1), row["severity"], row["fields"], row["waiting"],
              Html(f"<code>{html.escape(row['command'])}</code>")] for row in rest], numbers=(2, 5)) + "</details>"
           if rest else "")
    )


def _card(episode: dict[str, Any]) -> dict[str, Any]:
    rows = [{**{name: bar[name] for name in ("open", "high", "low", "close")}, "n": number,
             "at": drawing.shown(bar["ts"]), "up": bar["open"] is None or bar["close"] is None
             or bar["close"] >= bar["open"],
             "flagged": episode["starts_at"] <= bar["ts"] <= episode["ends_at"] and bar["is_anomaly"]}
            for number, bar in enumerate(episode["bars"])]
    labels = {str(row["n"]): row["at"] for row in rows}
    x = {"field": "n", "type": "ordinal", "axis": {
        "title": None, "labelAngle": 0, "values": [row["n"] for row in rows if row["flagged"]][:1],
        "labelExpr": f"{drawing.embedded(labels)}[datum.value]", "labelOverlap": False, "labelLimit": 200}}
    price = {"type": "quantitative", "scale": {"zero": False}, "axis": {"title": None, "tickCount": 4}}
    colour = {"condition": {"test": "datum.up", "value": "var(--up)"}, "value": "var(--down)"}
    is_bar = any(row["open"] is not None for row in rows)
    drawn = [
        {"mark": {"type": "rule"}, "encoding": {"x": x, "y": {"field": "low", **price}, "y2": {"field": "high"},
                                                "stroke": colour}},
        {"mark": {"type": "bar", "size": 7, "strokeWidth": 1}, "encoding": {
            "x": x, "y": {"field": "open", **price}, "y2": {"field": "close"}, "fill": colour, "stroke": colour}},
    ] if is_bar else [{"mark": {"type": "line", "stroke": "var(--late)", "point": {"fill": "var(--late)", "size": 12}},
                       "encoding": {"x": x, "y": {"field": "close", **price}}}]
    return {
        "width": 300, "height": 130, "autosize": {"type": "fit", "contains": "padding"}, "data": {"values": rows},
        "layer": [*drawn, {
            "transform": [{"filter": "datum.flagged"}],
            "mark": {"type": "point", "size": 90, "strokeWidth": 2, "stroke": f"var(--{episode['severity']})"},
            "encoding": {"x": x, "y": {"field": "close", **price}}}],
    }


def _went(figures: dict[str, Any]) -> str:
    worst = [row for row in figures["quality"] if row["average_score"] is not None][:WORST]
    text = "<h2>How quality went</h2>\n"
    if figures["trend"]:
        text += (f"<p class=\"muted\">Mean score of all rows, and penalties by kind, in steps of "
                 f"{figures['trend_width']}.</p>\n" + _both(lambda width: _trend(figures["trend"], width))
                 + _both(lambda width: _penalties(figures["trend"], width)))
    rows = [[row["series"], row["table_name"], row["rows"], row["scored"], row["average_score"], row["below_100"],
             row["anomalies"]] for row in worst]
    return text + "<p>The series with the lowest mean score:</p>\n" + drawing.table(
        ["series", "table", "rows", "scored", "mean score", "rows that lost points", "flagged"], rows,
        numbers=(2, 3, 4, 5, 6))


def _trend(trend: list[dict[str, Any]], width: int) -> dict[str, Any]:
    rows = [{"t": _ms(row["starts_at"]), "score": None if row["average_score"] is None else float(row["average_score"])}
            for row in trend]
    return {
        "width": width, "height": 150, "data": {"values": rows}, "autosize": {"type": "fit", "contains": "padding"},
        "mark": {"type": "line", "stroke": "var(--up)", "point": {"size": 10, "fill": "var(--up)"}}, "encoding": {
            "x": _time(width), "y": {"field": "score", "type": "quantitative", "scale": {"zero": False},
                                     "axis": {"title": "mean score", "tickCount": 4}}},
    }


def _penalties(trend: list[dict[str, Any]], width: int) -> dict[str, Any]:
    rows = [{"t": _ms(row["starts_at"]), "kind": kind, "rows": row[kind]}
            for row in trend for kind in PENALTIES if row[kind]]
    return _stacked(rows, "penalties", PENALTIES, width, [_ms(row["starts_at"]) for row in trend])


def _grows(figures: dict[str, Any]) -> str:
    rows = [{"t": _ms(row["month"]), "kind": row["table_name"], "rows": row["rows"]} for row in figures["growth"]]
    due = {row["hypertable"]: row for row in figures["due"] or []}
    sizes = [[row["hypertable"], row["rows"], _size(row["bytes"]), row["chunks"], row["compressed"],
              *(due.get(row["hypertable"], {}).get(name) for name in ("compress_after", "compress_due", "drop_after",
                                                                      "drop_due"))] for row in figures["hypertables"]]
    times = sorted({row["t"] for row in rows})
    return (
        "<h2>How fast it grows, and what is due</h2>\n<p class=\"muted\">Rows a month by their own time, of the newest "
        "two years.</p>\n" + _both(lambda width: _stacked(rows, "rows", HYPERTABLES, width, times))
        + drawing.table(["hypertable", "rows, about", "size", "chunks", "compressed", "compressed after",
                         "due to be", "dropped after", "due to be"], sizes, numbers=(1, 2, 3, 4, 6, 8))
        + ("" if figures["due"] is not None else "<p>The role that asked may not read what is due.</p>")
    )


def _stacked(rows: list[dict[str, Any]], title: str, colours: dict[str, str], width: int, times: list[int]
             ) -> dict[str, Any]:
    there = [kind for kind in colours if any(row["kind"] == kind for row in rows)]
    step = min((b - a for a, b in pairwise(times)), default=86_400_000)
    steps = (times[-1] - times[0]) / step + 1 if times else 1
    return {
        "width": width, "height": 130, "data": {"values": rows}, "autosize": {"type": "fit", "contains": "padding"},
        "mark": {"type": "bar", "width": max(0.85 * (width - 60) / steps, 1)}, "encoding": {
            "x": {**_time(width), "scale": {"type": "utc", "nice": False, **(
                {"domain": [times[0] - step / 2, times[-1] + step / 2]} if times else {})}},
            "y": {"field": "rows", "type": "quantitative", "stack": "zero", "axis": {
                "title": title, "tickCount": 4, "format": "~s"}},
            "fill": {"field": "kind", "type": "nominal", "sort": there, "legend": {"title": None, "orient": "bottom"},
                     "scale": {"domain": there, "range": [f"var(--{colours[kind]})" for kind in there]}}},
    }


def _late(figures: dict[str, Any]) -> str:
    late = [row for row in figures["freshness"] if row["stale_for"] and row["stale_for"] > _seconds(row["interval"])]
    unknown = sum(row["stale_for"] is None for row in figures["freshness"])
    came_late = sum(row["timeliness"] for row in figures["trend"] or [])
    rows = [[row["name"], row["interval"], row["last_at"], _duration(row["stale_for"])] for row in late[:WORST]]
    text = f"{came_late:,} rows came late. " if figures["trend"] else ""
    text += f"{len(late):,} series are stale: their market was open for more than a bar since the last one ended."
    if unknown:
        text += f" Of {unknown:,} nobody can say: paused, without a calendar that reaches, or without a row."
    return f"<h2>What is late or stale</h2>\n<p>{text}</p>\n" + (drawing.table(
        ["series", "interval", "last row", "open-market time since"], rows) if rows else "") + (
        f"<p class=\"muted\">The {WORST} longest of {len(late):,}.</p>" if len(late) > WORST else "")


def _sealed(figures: dict[str, Any]) -> str:
    record = figures["record"]
    if record is None:
        text = "The role that asked may not read the record."
    elif not record["seals"]:
        text = f"The record holds {record['changes']:,} changes and was never sealed: <code>SELECT seal_audit()</code>."
    else:
        text = (f"Last sealed {drawing.shown(record['sealed_at'])}, {record['seals']:,} seals; {record['unsealed']:,} "
                f"changes since are not sealed. {record['archived_rows']:,} deleted rows are kept in the archive.")
    verify = "When it was last verified is not stored: <code>verify_audit()</code> returns no row where it is intact."
    return f"<h2>The record</h2>\n<p>{text}</p>\n<p class=\"muted\">{verify}</p>"


# Small things


def _both(spec: Any) -> str:
    """A drawing for wide and one for narrow windows."""
    return "".join(f'<div class="{kind}">{drawing.svg(spec(width))}</div>'
                   for kind, width in (("broad", 1180), ("narrow", 350)))


def _time(width: int) -> dict[str, Any]:
    return {"field": "t", "type": "temporal", "scale": {"type": "utc", "nice": False},
            "axis": {"title": None, "tickCount": max(width // 120, 2), "grid": False, "labelOverlap": True}}


def _grouped(rows: Iterable[Any]) -> Iterable[tuple[tuple, list[Any]]]:
    def key(row: Any) -> tuple:
        return (row.table_name, row.source_id or row.asset_id, row.name, row.interval, row.first_at, row.last_at)

    return [(found, list(group)) for found, group in groupby(rows, key=key)]


def _dict(row: Any, *without: str) -> dict[str, Any]:
    return {name: value for name, value in row._asdict().items() if name not in without}


def _share(stored: int, expected: int | None) -> float:
    """1 where nothing is due; unknown counts as complete, and so comes last."""
    return stored / expected if expected else 1.0 if expected == 0 else 1.5


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %" if 0.99 <= share < 1 else f"{share * 100:.0f} %"


def _is_of(label: str, names: set[str]) -> bool:
    """Whether a series as the questions print it (with exchange and interval) has one of these names; none: any."""
    return not names or any(label == name or label.startswith(f"{name} ") for name in names)


def _allowed(connection: psycopg.Connection, question: str) -> list[dict[str, Any]] | None:
    """The rows of a question; None where this role may not ask it."""
    try:
        return [_dict(row) for row in questions.rows(connection, question)]
    except psycopg.errors.InsufficientPrivilege:
        return None


def _reach(connection: psycopg.Connection) -> str:
    rows = [row for row in questions.rows(connection, "coverage") if row.last_at]
    return f"the newest row is of {drawing.shown(max(row.last_at for row in rows))}" if rows else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def _seconds(interval: str | None) -> float:
    from tidemark.chart import LENGTHS

    return LENGTHS[interval].total_seconds() if interval else 0.0


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 10_240:
            return f"{count:.0f} {unit}"
        count /= 1_024
    return f"{count:.0f} TB"


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
