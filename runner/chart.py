"""One series as a picture: its bars, what is flagged in them, what is missing, and what waits for a price.

What is drawn is asked of queries/; here it is only read and drawn. However long the series, at most `BARS` bars are
drawn: longer spans are read from the aggregate that matches.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg

from tidemark import drawing
from tidemark import query as questions
from tidemark.errors import Problem

BARS = 1_500  # drawn at most: more are narrower than a pixel
ROWS = 200_000  # read at most from the raw rows of a source
MARKS = 300  # of each kind
TIMEOUT = "60s"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
LENGTHS = {"1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "30m": 30 * MINUTE, "1h": 60 * MINUTE,
           "4h": 240 * MINUTE, "1d": DAY, "1w": 7 * DAY, "1M": 30 * DAY}
INTERVALS = {"1m": "1 minute", "5m": "5 minutes", "15m": "15 minutes", "30m": "30 minutes", "1h": "1 hour",
             "4h": "4 hours", "1d": "1 day", "1w": "7 days", "1M": "1 month"}
# The aggregate that has what a width of minute bars is made of.
ROLLUPS = {"5m": "candles_5m", "15m": "candles_15m", "30m": "candles_15m", "1h": "candles_1h", "4h": "candles_4h",
           "1d": "candles_1d", "1w": "candles_1d", "1M": "candles_1d"}
KINDS = {"black_swan": "black swan", "anomaly": "anomaly", "split": "split", "penalised": "lost points",
         "late": "late"}
LATER = datetime.max.replace(tzinfo=UTC)
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Series:
    """A series as queries/series_named.sql knows it."""

    table_name: str
    source_id: int | None
    asset_id: Any
    interval: str | None
    name: str
    exchange: str | None
    data_type: str | None
    first_at: datetime
    last_at: datetime
    market: str | None

    @property
    def key(self) -> dict[str, str]:
        """The parameters by which the questions know it."""
        found = {"source_id": self.source_id, "asset_id": None if self.source_id else self.asset_id,
                 "interval": self.interval}
        return {name: str(value) for name, value in found.items() if value is not None}

    @property
    def title(self) -> str:
        """Its name for people."""
        parts = [self.name, self.exchange if self.source_id is None else None, self.interval]
        return " ".join(part for part in parts if part)


@dataclass
class Chart:
    """What is drawn of a series: rows of the questions, and notes on what is not."""

    series: Series
    start: datetime
    end: datetime
    width: str | None  # of a bar; None: the rows themselves, which have no regular distance
    relation: str
    bars: list[Any] = field(default_factory=list)
    marks: list[Any] = field(default_factory=list)
    gaps: list[tuple[datetime, datetime, int]] = field(default_factory=list)
    levels: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    now: datetime = LATER

    @property
    def is_forming(self) -> bool:
        """Whether the last bar is not over."""
        return self.width is not None and bool(self.bars) and self.bars[-1].ends_at > self.now

    @property
    def has_candles(self) -> bool:
        """Whether there are bars to draw, and not only values."""
        return any(bar.open is not None for bar in self.bars)

    @property
    def counts(self) -> dict[str, int]:
        """Marks of each kind in the period, drawn or not."""
        return {mark.kind: mark.total for mark in self.marks}


def stretch(text: str) -> timedelta:
    """A length of time as 90d, 12h, 30m, 2w or 1y; raises Problem for any other text."""
    units = {"m": MINUTE, "h": 60 * MINUTE, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}
    found = re.fullmatch(r"([0-9]{1,6})([mhdwy])", text.strip().lower(), re.ASCII)
    if not found or not int(found[1]):
        raise Problem(f"{text!r} is no length of time", hint="a number with m, h, d, w or y, e.g. 90d", exit_code=2)
    return int(found[1]) * units[found[2]]


def find(connection: psycopg.Connection, name: str, interval: str | None = None,
         exchange: str | None = None) -> Series:
    """The series that a name means; raises Problem with the nearest names, or with what there is to choose from."""
    from tidemark.columns import interval as label

    wanted = label(interval) if interval else None
    if interval and wanted is None:
        raise Problem(f"{interval!r} is no interval", hint=f"one of: {', '.join(LENGTHS)}", exit_code=2)
    rows = [Series(**row._asdict()) for row in questions.rows(connection, "series_named", name=name)]
    found = [row for row in rows if row.name == name] or rows
    if not found:
        names = sorted({row.name for row in questions.rows(connection, "coverage")})
        near = difflib.get_close_matches(name.lower(), [known.lower() for known in names], 5, 0.5)
        close = [known for known in names if known.lower() in near] or names[:5]
        raise Problem(f"there is no series {name!r}", detail="", exit_code=2,
                      hint=f"nearest: {', '.join(close)}" if close else "nothing is stored yet: tidemark load")
    chosen = [row for row in found if row.first_at is not None]
    if not chosen:
        raise Problem(f"{name} has no rows yet", hint="tidemark load", exit_code=2)
    if wanted:
        chosen = [row for row in chosen if row.interval == wanted]
    if exchange:
        chosen = [row for row in chosen if row.exchange == exchange]
    if len(chosen) == 1:
        return chosen[0]
    there_is = "; ".join(f"{row.title} ({row.table_name})" for row in found if row.first_at is not None)
    if not chosen:
        raise Problem(f"{name} has no such bars", detail=f"there is: {there_is}", exit_code=2)
    raise Problem(f"{name} means several series", detail=there_is, exit_code=2,
                  hint="say which: --interval, --exchange, or the name of the source")


def read(connection: psycopg.Connection, series: Series, start: datetime | None = None, end: datetime | None = None,
         last: timedelta | None = None) -> Chart:
    """What there is to draw from `start` to before `end`, or the `last` stretch before the end of the series.

    Raises Problem where there is nothing, and says what there is.
    """
    own = LENGTHS.get(series.interval or "")
    if last is not None and start is not None:
        raise Problem("--from and --last exclude each other", hint="give one of them", exit_code=2)
    end = end or series.last_at + timedelta(microseconds=1)
    if last is not None:
        start = end - last
    is_given, start = start is not None, start or series.first_at
    if is_given and start >= end and start <= series.last_at:
        raise Problem("the period is empty", detail=f"it runs from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}",
                      exit_code=2)
    first, until = max(start, series.first_at), min(end, series.last_at + timedelta(microseconds=1))
    there = None
    if first < until:
        (there,) = questions.rows(connection, "rows_between", **series.key, since=first, until=until)
    if there is None or not there.rows:
        raise Problem(f"{series.title} has no rows from {start:%Y-%m-%d %H:%M} to {max(start, end):%Y-%m-%d %H:%M}",
                      detail=f"there are rows from {series.first_at:%Y-%m-%d %H:%M} to {series.last_at:%Y-%m-%d %H:%M}",
                      exit_code=2)
    width, relation = _width(series, own, until - first, there.rows)
    chart = Chart(series, start, end, width, relation)
    chart.now = connection.execute("SELECT now()").fetchone()[0]
    with connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", (TIMEOUT,))
        try:
            chart.bars = questions.rows(
                connection, "chart_bars", **series.key, relation=relation, since=first, until=until, count=BARS + 1,
                width=INTERVALS[width] if width else "1 microsecond",
            )
        except psycopg.errors.QueryCanceled:
            raise Problem(f"{series.title} took longer than {TIMEOUT} to read", detail=f"read from {relation}",
                          hint="bring the aggregates up to date (tidemark refresh), or ask for less: --last 30d"
                          ) from None
        if not chart.bars:
            raise Problem(f"{series.title} has no values from {first:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}",
                          hint="its rows are empty, or excluded as confirmed errors", exit_code=2)
        if len(chart.bars) > BARS:
            chart.bars = chart.bars[-BARS:]
            chart.notes.append(f"only the last {BARS:,} points are drawn")
        chart.marks = questions.rows(connection, "chart_marks", **series.key, since=first, until=until, count=MARKS)
    drawn = Counter(mark.kind for mark in chart.marks)
    chart.notes += [f"{drawn[kind]:,} of {total:,} marks “{KINDS[kind]}” are drawn, the largest"
                    for kind, total in chart.counts.items() if total > drawn[kind]]
    if relation != series.table_name or width != series.interval:
        wide = f"bars of {width}" if width else "the rows themselves"
        chart.notes.insert(0, f"{there.rows:,} rows are drawn as {len(chart.bars):,} {wide}, from {relation}")
    if series.market == "?":
        chart.notes.append("gaps are not drawn: no calendar is known for it (assets.exchange, tidemark calendar)")
    elif own:
        chart.gaps = _gaps(connection, chart, first, min(end, chart.now), own)
    if series.source_id is None:
        try:
            with connection.transaction():
                chart.levels = questions.rows(connection, "alert_levels", asset_id=series.asset_id)
        except psycopg.errors.InsufficientPrivilege:
            chart.notes.append("levels of alerts are not drawn: this role may not read them")
    return chart


def _width(series: Series, own: timedelta | None, span: timedelta, rows: int) -> tuple[str | None, str]:
    """Width of a bar, and the relation to read it from."""
    fitting = next((name for name, length in LENGTHS.items()
                    if length >= (own or timedelta(0)) and span / length <= BARS), "1M")
    if series.table_name == "candles":
        return fitting, ROLLUPS.get(fitting, "candles") if series.interval == "1m" else "candles"
    if rows <= BARS and not own:
        return None, "timeseries_data"
    if rows <= ROWS:
        return series.interval if own and rows <= BARS else fitting, "timeseries_data"
    finest, relation = ("1d", "daily_ohlcv") if series.data_type == "ohlcv" else ("1h", "hourly_values")
    return max(fitting, finest, key=lambda name: LENGTHS[name]), relation


def _gaps(connection: psycopg.Connection, chart: Chart, first: datetime, until: datetime,
          own: timedelta) -> list[tuple[datetime, datetime, int]]:
    """What the calendar says is missing: ranges of bars, or of days where there are too many bars to look at each."""
    series = chart.series
    try:
        with connection.transaction():
            if (until - first) / own <= ROWS:
                found = [tuple(row) for row in
                         questions.rows(connection, "series_gaps", **series.key, since=first, until=until)]
            else:
                days = questions.rows(connection, "missing_days", **series.key, market=series.market or "-",
                            since=first.replace(hour=0, minute=0, second=0, microsecond=0) + DAY, until=until)
                found = []
                for row in days:
                    if found and row.day - found[-1][1] <= timedelta(0):
                        found[-1] = (found[-1][0], row.day + DAY, found[-1][2] + row.expected - row.stored)
                    else:
                        found.append((row.day, row.day + DAY, row.expected - row.stored))
                chart.notes.append("gaps are drawn by days")
    except psycopg.errors.DatabaseError as error:
        if error.sqlstate != "TM304":
            raise
        chart.notes.append(f"gaps are not drawn: {error.diag.message_primary}")
        return []
    if len(found) > MARKS:
        chart.notes.append(f"{MARKS:,} of {len(found):,} gaps are drawn, the largest")
        found = sorted(sorted(found, key=lambda gap: -gap[2])[:MARKS])
    return found


# Drawing


def spec(chart: Chart, *, width: int | None = None) -> dict[str, Any]:
    """The chart as a Vega-Lite specification: as wide as its place and to be zoomed, or `width` and still."""
    bars = _bars(chart)
    layers: list[dict[str, Any]] = []
    x = {"field": "t", "type": "temporal", "scale": {"type": "utc", "nice": False}, "axis": {"title": None,
         "labelOverlap": True, "tickCount": {"expr": "max(3, floor(width / 110))"}}}
    price = {"type": "quantitative", "scale": {"zero": False, "nice": False}, "axis": {"title": None, "orient": "right",
             "tickCount": 6, "grid": True}}
    if chart.gaps:
        layers.append({
            "name": "gaps", "data": {"values": [{"t": _ms(a), "u": _ms(b), "missing": n, "from": drawing.shown(a),
                                                 "to": drawing.shown(b)} for a, b, n in chart.gaps]},
            "mark": {"type": "rect", "fill": "var(--gap)", "opacity": 0.35},
            "encoding": {"x": x, "x2": {"field": "u"}, "tooltip": [
                {"field": "from", "title": "gap from"}, {"field": "to"},
                {"field": "missing", "title": "bars missing"}]},
        })
    shown = [{"field": name, "type": "nominal"} for name in ("at", "open", "high", "low", "close", "volume", "rows")]
    colour = {"condition": {"test": "datum.up", "value": "var(--up)"}, "value": "var(--down)"}
    main: list[dict[str, Any]] = []
    if chart.has_candles:
        main += [
            {"name": "wicks", "mark": {"type": "rule"}, "encoding": {
                "x": x, "y": {"field": "low", **price}, "y2": {"field": "high"}, "stroke": colour}},
            {"name": "bodies", "mark": {"type": "bar", "strokeWidth": 1}, "encoding": {
                "x": {**x, "field": "a"}, "x2": {"field": "b"},
                "y": {"field": "open", **price}, "y2": {"field": "close"},
                "fill": {"condition": [{"test": "datum.forming", "value": "var(--page)"}, colour["condition"]],
                         "value": colour["value"]},
                "stroke": colour, "tooltip": shown}},
        ]
    else:
        main += [
            {"name": "range", "mark": {"type": "area", "opacity": 0.18, "fill": "var(--late)"}, "encoding": {
                "x": x, "y": {"field": "low", **price}, "y2": {"field": "high"}}},
            {"name": "line", "mark": {"type": "line", "stroke": "var(--late)", "strokeWidth": 1.3}, "encoding": {
                "x": x, "y": {"field": "close", **price}}},
            {"name": "points", "mark": {"type": "point", "opacity": 0, "size": 60}, "encoding": {
                "x": x, "y": {"field": "close", **price}, "tooltip": [e for e in shown if e["field"] != "open"]}},
        ]
    if chart.levels:
        levels = [{"price": level.price, "label": f"alert {level.condition} {drawing.shown(level.price)}"
                   + (f" ({level.alerts})" if level.alerts > 1 else "")} for level in chart.levels]
        main += [
            {"name": "levels", "data": {"values": levels},
             "mark": {"type": "rule", "stroke": "var(--level)", "strokeDash": [6, 3]},
             "encoding": {"y": {"field": "price", **price}}},
            {"data": {"values": levels},
             "mark": {"type": "text", "align": "left", "dx": 4, "dy": -5, "x": 0, "fill": "var(--level)"},
             "encoding": {"y": {"field": "price", **price}, "text": {"field": "label", "type": "nominal"}}},
        ]
    main += _mark_layers(chart, x, price)
    if any(bar.volume for bar in chart.bars):
        top = max(bar.volume or 0 for bar in chart.bars)
        layers.append({
            "name": "volume", "mark": {"type": "bar", "fill": "var(--volume)", "opacity": 0.35}, "encoding": {
                "x": {**x, "field": "a"}, "x2": {"field": "b"}, "y": {"field": "volume", "type": "quantitative",
                "axis": None, "scale": {"domain": [0, 5 * top]}}, "y2": {"datum": 0}}})
    result: dict[str, Any] = {
        "data": {"values": bars}, "height": 420, "width": width or "container", "layer": [*layers, {"layer": main}],
        "resolve": {"scale": {"y": "independent"}}, "autosize": {"type": "fit", "contains": "padding"},
    }
    if width is None:
        zoom = [{"name": "zoom", "select": {"type": "interval", "encodings": ["x"]}, "bind": "scales"}]
        result["layer"][-1]["layer"][0]["params"] = zoom
    else:
        result["title"] = {"text": chart.series.title, "subtitle": [subtitle(chart), *chart.notes]}
    return result


def _bars(chart: Chart) -> list[dict[str, Any]]:
    times = [_ms(bar.ts) for bar in chart.bars]
    near = sorted(b - a for a, b in pairwise(times))
    own = (chart.bars[0].ends_at - chart.bars[0].ts).total_seconds() * 1000 if chart.width else \
        near[len(near) // 2] if near else 60_000
    half = 0.38 * own
    return [{
        "t": at, "a": at - half, "b": at + half, "open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close,
        "volume": bar.volume, "rows": bar.rows, "at": drawing.shown(bar.ts),
        "up": bar.open is None or bar.close is None or bar.close >= bar.open,
        "forming": chart.is_forming and number == len(times) - 1,
    } for number, (at, bar) in enumerate(zip(times, chart.bars, strict=True))]


def _mark_layers(chart: Chart, x: dict[str, Any], price: dict[str, Any]) -> list[dict[str, Any]]:
    if not chart.marks:
        return []
    starts = [bar.ts for bar in chart.bars]
    rows = []
    largest = {mark.ts for mark in sorted((m for m in chart.marks if m.z_score is not None),
                                          key=lambda mark: -abs(mark.z_score))[:8]}
    for mark in chart.marks:
        bar = chart.bars[max(bisect_right(starts, mark.ts) - 1, 0)]
        value = mark.value if mark.value is not None else bar.low if bar.low is not None else bar.close
        expected = mark.expected if mark.expected is None or abs(mark.expected) != float("inf") else None
        if value is None:
            continue
        rows.append({
            "t": _ms(mark.ts), "value": value, "expected": expected, "kind": KINDS[mark.kind],
            "at": drawing.shown(mark.ts), "z": None if mark.z_score is None else round(mark.z_score, 1),
            "is": drawing.shown(mark.value), "should": drawing.shown(expected), "status": drawing.shown(mark.status),
            "open": mark.status in (None, "open"), "detail": drawing.shown(mark.detail), "points": mark.points,
            "label": f"z {mark.z_score:+.1f}" if mark.ts in largest and mark.z_score is not None else "",
        })
    kinds = [name for kind, name in KINDS.items() if kind in chart.counts]
    colour = {"field": "kind", "type": "nominal", "legend": {"title": None, "orient": "bottom", "columns": 3},
              "scale": {"domain": kinds, "range": [f"var(--{kind})" for kind in KINDS if kind in chart.counts]}}
    shapes = {"black_swan": "diamond", "anomaly": "circle", "split": "cross", "penalised": "triangle-up",
              "late": "square"}
    shape = {"field": "kind", "type": "nominal", "legend": colour["legend"], "scale": {
        "domain": kinds, "range": [shapes[kind] for kind in KINDS if kind in chart.counts]}}
    text = [{"field": name, "type": "nominal", "title": title} for name, title in (
        ("kind", "mark"), ("at", "at"), ("z", "z"), ("is", "value"), ("should", "expected"), ("status", "review"),
        ("points", "points lost"), ("detail", "detail"))]
    y = {"field": "value", **price}
    return [
        {"name": "expected", "data": {"values": [row for row in rows if row["expected"] is not None]},
         "mark": {"type": "rule", "strokeDash": [2, 2], "opacity": 0.8},
         "encoding": {"x": x, "y": y, "y2": {"field": "expected"}, "stroke": colour}},
        {"name": "marks", "data": {"values": rows},
         "mark": {"type": "point", "size": 70, "strokeWidth": 1.5}, "encoding": {
             "x": x, "y": y, "stroke": colour, "shape": shape, "tooltip": text,
             "fill": colour,
             "fillOpacity": {"condition": {"test": "datum.open", "value": 0.75}, "value": 0.05}}},
        {"name": "labels", "data": {"values": [row for row in rows if row["label"]]},
         "mark": {"type": "text", "dy": -11, "fontSize": 11, "fill": "var(--text)"},
         "encoding": {"x": x, "y": y, "text": {"field": "label", "type": "nominal"}}},
    ]


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def subtitle(chart: Chart) -> str:
    """Period, market and the last value, for people."""
    last, market = chart.bars[-1], chart.series.market
    text = (f"{drawing.shown(chart.bars[0].ts)} to {drawing.shown(last.ts)} UTC, "
            f"{'no calendar' if market == '?' else market or 'around the clock'}; last {drawing.shown(last.close)}")
    return text + (" (bar still forming)" if chart.is_forming else "")


def page(chart: Chart) -> str:
    """The chart as a page of its own, with what is marked as a table below."""
    import html

    order = sorted(chart.marks, key=lambda m: (-abs(m.z_score or 0), -(m.points or 0), m.ts))[:50]
    review = "tidemark anomalies confirm|real|expected|dismiss ID"
    notes = "".join(f'<p class="muted">{html.escape(note)}</p>' for note in chart.notes)
    marked = drawing.table(
        ["mark", "at (UTC)", "z", "value", "expected", "review", "points lost", "episode", "detail"],
        [[KINDS[m.kind], m.ts, None if m.z_score is None else round(m.z_score, 2), m.value, m.expected, m.status,
          m.points, None if m.episode_id is None else str(m.episode_id), m.detail] for m in order],
        numbers=(2, 3, 4, 6), wide=(8,),
    ) if order else "<p>Nothing is marked in this period.</p>"
    counts = ", ".join(f"{total:,} {KINDS[kind]}" for kind, total in chart.counts.items())
    missing = sum(gap[2] for gap in chart.gaps)
    facts = [counts or "no marks",
             f"{len(chart.gaps):,} gaps with {missing:,} bars missing" if chart.gaps else "no gaps"]
    body = (
        f"<h1>{html.escape(chart.series.title)}</h1>\n<p>{html.escape(subtitle(chart))}</p>\n"
        f'<div id="chart"></div>\n<p class="muted">Drag to move, turn the wheel to zoom; grey: bars missing by the '
        f"calendar; dashed from a mark: the value that was expected; hollow: reviewed. Times are UTC.</p>\n{notes}"
        f"<h2>Marked</h2>\n<p>{html.escape('; '.join(facts))}. Review one by the number of its episode: "
        f"<code>{html.escape(review)}</code></p>\n{marked}"
    )
    return drawing.page(chart.series.title, body, spec(chart))


def write(chart: Chart, path: Path) -> None:
    """Write the chart into a file, as its ending says: .html, .png or .svg; raises Problem for any other."""
    kind = path.suffix.lower()
    if kind not in (".html", ".htm", ".png", ".svg"):
        raise Problem(f"nobody knows how to draw a {kind or 'file without an ending'}",
                      hint="one of: .html, .png, .svg", exit_code=2)
    try:
        if kind == ".png":
            path.write_bytes(drawing.png(spec(chart, width=1200)))
        else:
            path.write_text(drawing.svg(spec(chart, width=1200), inline=False) if kind == ".svg" else page(chart))
    except OSError as error:
        raise Problem(f"cannot write {path}", detail=error.strerror or str(error), exit_code=2) from None


def sketch(chart: Chart, columns: int = 80) -> str:
    """The closes as a line of blocks, and the latest figures, for a terminal of that many columns."""
    values = [bar.close for bar in chart.bars if bar.close is not None]
    cells = max(min(columns - 2, 100, len(values)), 1)
    picked = (values[number * len(values) // cells:(number + 1) * len(values) // cells] for number in range(cells))
    means = [sum(part) / len(part) for part in picked if part]
    low, high = min(means, default=0), max(means, default=0)
    step = (high - low) / (len(BLOCKS) - 1) or 1
    line = "".join(BLOCKS[round((mean - low) / step)] for mean in means)
    figures = [("last", drawing.shown(values[-1] if values else None)), ("at", drawing.shown(chart.bars[-1].ts)),
               ("low", drawing.shown(min(values, default=None))), ("high", drawing.shown(max(values, default=None)))]
    if len(values) > 1 and values[0]:
        figures.insert(1, ("change", f"{(values[-1] / values[0] - 1) * 100:+.2f} %"))
    counts = [f"{total:,} {KINDS[kind]}" for kind, total in chart.counts.items()]
    counts += [f"{sum(gap[2] for gap in chart.gaps):,} bars missing"] if chart.gaps else []
    return "\n".join([chart.series.title, line, "  ".join(f"{name} {value}" for name, value in figures),
                      "; ".join(counts) or "nothing marked", *chart.notes])
