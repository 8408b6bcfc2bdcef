"""Pictures and pages that need no network: Vega-Lite specifications, drawn by vl-convert, and the page around them.

Colours are CSS variables, so that one drawing serves light and dark; in a picture they are those of light.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from tidemark.errors import Problem

COLOURS = {  # name: light, dark
    "page": ("#ffffff", "#0d1117"), "text": ("#1f2328", "#e6edf3"), "muted": ("#59636e", "#9198a1"),
    "line": ("#d1d9e0", "#3d444d"), "soft": ("#f6f8fa", "#151b23"), "up": ("#1a7f37", "#3fb950"),
    "down": ("#cf222e", "#f85149"), "volume": ("#8c959f", "#656c76"), "gap": ("#afb8c1", "#656c76"),
    "black_swan": ("#8250df", "#bc8cff"), "anomaly": ("#bc4c00", "#ffa657"), "penalised": ("#9a6700", "#e3b341"),
    "late": ("#0969da", "#58a6ff"), "split": ("#59636e", "#9198a1"), "level": ("#1b7c83", "#39c5cf"),
    "share0": ("#cf222e", "#f85149"), "share1": ("#e16f24", "#f0883e"), "share2": ("#d4a72c", "#d29922"),
    "share3": ("#2da44e", "#2ea043"), "unknown": ("#afb8c1", "#656c76"),
}
CONFIG = {
    "background": "transparent", "font": "system-ui, sans-serif", "view": {"stroke": None}, "aria": False,
    "axis": {"labelColor": "var(--text)", "titleColor": "var(--text)", "gridColor": "var(--line)",
             "domainColor": "var(--line)", "tickColor": "var(--line)", "titleFontWeight": "normal",
             "labelFontSize": 11},
    "legend": {"labelColor": "var(--text)", "titleColor": "var(--text)", "labelFontSize": 11},
    "title": {"color": "var(--text)", "subtitleColor": "var(--muted)", "anchor": "start"},
}
_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;padding:16px;max-width:1240px;background:var(--page);color:var(--text);
 font:15px/1.45 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:22px;margin:0 0 4px}h2{font-size:18px;margin:32px 0 8px;border-bottom:1px solid var(--line)}
p{margin:4px 0 12px}.muted,figcaption{color:var(--muted);font-size:13px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:3px 12px 3px 0;border-bottom:1px solid var(--line);vertical-align:top;
 overflow-wrap:normal;white-space:nowrap}td.wide{white-space:normal;min-width:180px}
th{font-weight:600}td.number,th.number{text-align:right}
code{font:12px ui-monospace,monospace;background:var(--soft);padding:1px 4px;border-radius:4px}
figure{margin:0;padding:8px;border:1px solid var(--line);border-radius:6px;min-width:0}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:12px}
.cards svg{width:100%;height:auto}.narrow{display:none}
.key span{display:inline-block;margin-right:14px;white-space:nowrap;font-size:13px}
.key i{display:inline-block;width:12px;height:12px;margin-right:5px;border-radius:2px;vertical-align:-1px}
#chart{width:100%}#vg-tooltip-element{background:var(--page)!important;color:var(--text)!important;
 border:1px solid var(--line)!important}#vg-tooltip-element table tr td.key{color:var(--muted)!important}
.warning{color:var(--penalised)}.critical{color:var(--down)}
@media(max-width:760px){body{padding:10px}.narrow{display:block}.broad{display:none}}
"""
_serial = count(1)


def converter() -> Any:
    """The module vl_convert; raises Problem where it is not installed."""
    try:
        import vl_convert
    except ImportError:
        raise Problem(
            "drawing needs the package vl-convert-python", hint="pip install 'tidemark[charts]'", exit_code=2
        ) from None
    return vl_convert


def svg(spec: dict[str, Any], *, inline: bool = True) -> str:
    """The drawing as SVG: for a page that has the colours (`inline`), or with colours of its own."""
    text = converter().vegalite_to_svg(_complete(spec) if inline else solid(_complete(spec)))
    # Ids have to be unique on a page.
    return re.sub(r"\b((?:clip|gradient)\w*?\d+)(?=[\")])", rf"\1-{next(_serial)}", text) if inline else text


def png(spec: dict[str, Any]) -> bytes:
    """The drawing as PNG, two pixels to a unit, on white."""
    return converter().vegalite_to_png({**solid(_complete(spec)), "background": COLOURS["page"][0]}, scale=2)


def solid(spec: Any) -> Any:
    """The same with the colours of light instead of variables."""
    text = re.sub(r"var\(--(\w+)\)", lambda match: COLOURS[match[1]][0], json.dumps(spec))
    return json.loads(text)


def _complete(spec: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": CONFIG, **spec}


def page(title: str, body: str, spec: dict[str, Any] | None = None) -> str:
    """A page of its own that asks no host for anything, which it could not: its policy forbids it.

    `spec` is drawn into the element #chart and can be zoomed; without one there is no script.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    script = ""
    if spec is not None:
        policy += "; script-src 'unsafe-inline' 'unsafe-eval'"  # Vega compiles expressions
        script = (
            f"<script>{runtime()}</script>\n<script>\nvegaEmbed('#chart', {embedded(_complete(spec))},"
            " {renderer: 'svg', actions: false}).then(chart => { window.view = chart.view; });\n</script>\n"
        )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{_colours()}{_STYLE}</style>\n</head>\n<body>\n{body}\n{script}</body>\n</html>\n"
    )


def embedded(data: Any) -> str:
    """JSON as it may stand in a script: no text in it can end that."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(
        "\u2028", "\\u2028").replace("\u2029", "\\u2029")


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Iterable[int] = (),
          wide: Iterable[int] = ()) -> str:
    """Rows as an HTML table; `numbers` are the columns set to the right, `wide` those whose text may wrap.

    A cell that is `Html` goes in as it is, any other as text.
    """
    kinds = {**dict.fromkeys(wide, ' class="wide"'), **dict.fromkeys(numbers, ' class="number"')}

    def line(tag: str, cells: Sequence[Any]) -> str:
        return "<tr>" + "".join(
            f"<{tag}{kinds.get(place, '')}>{cell if isinstance(cell, Html) else html.escape(shown(cell))}</{tag}>"
            for place, cell in enumerate(cells)) + "</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="scroll"><table>\n<thead>{line("th", headings)}</thead>\n<tbody>{body}</tbody></table></div>'


class Html(str):
    """Text that is HTML already."""


def shown(value: Any) -> str:
    """A value as people read it: UTC to the second, numbers with up to six digits that count."""
    if value is None:
        return "–"  # noqa: RUF001
    if isinstance(value, datetime):
        at = value.astimezone(UTC)
        return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second) == (0, 0, 0) else f"{at:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, timedelta):
        return f"{value.days:,} days" if value.days and not value.seconds else str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _colours() -> str:
    light, dark = (";".join(f"--{name}:{pair[number]}" for name, pair in COLOURS.items()) for number in (0, 1))
    return f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def runtime() -> str:
    """Vega as one script; vl-convert takes a second to put it together, so it is kept for the next time."""
    made = converter()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemark"
    kept = folder / f"vega-{made.__version__}.js"
    with contextlib.suppress(OSError):
        text = kept.read_text()
        if text.endswith("\n// complete\n"):
            return text
    text = made.javascript_bundle().replace("</script", "<\\/script") + "\n// complete\n"
    with contextlib.suppress(OSError):  # a home that cannot be written to costs a second each time
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(text)
        Path(file.name).replace(kept)
    return text
