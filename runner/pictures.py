"""Draws docs/pictures/: the tables of each area with their keys and links, as the catalogue has them.

Run it through `make docs`; it needs Graphviz's program `dot`. A test compares the .dot files, and the mark that each
.svg carries of the .dot it was made from, with what it would write.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections import defaultdict
from html import escape
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from tidemark import config
from tidemark.errors import Problem
from tidemark.sql_files import named_statements

TARGET = config.CHECKOUT / "docs" / "pictures"
AREAS = {
    "reference": ("assets", "corporate_actions", "sources", "market_calendar", "time_index"),
    "market_data": ("timeseries_data", "candles", "quotes", "ticks", "sentiment_data", "indicators", "features"),
    "quality": ("quality_profiles", "validation_rules", "quality_issues", "anomalies"),
    "people": ("users", "watchlists", "watchlist_items", "alerts", "notifications"),
    "analytics": ("models", "predictions", "forecasts", "signals", "lineage"),
    "trading": ("strategies", "strategy_rules", "trades", "positions"),
    "learning": ("backtest_configs", "backtest_results", "learning_entries"),
    "record": ("audit_tx", "audit_log", "audit_seals", "timeseries_archive"),
    "upkeep": ("ingestion_tasks", "ingestion_rejects", "data_policies"),
}
COLUMNS = 8  # of a table; keys and links are always shown
SHORT = {"timestamp with time zone": "timestamptz", "double precision": "float8"}
HEAD = """digraph {name} {{
    graph [rankdir=LR, nodesep=0.25, ranksep=0.55, pad=0.1];
    node [shape=plain, fontname="Helvetica,Arial,sans-serif", fontsize=10];
    edge [color="#52606d", arrowsize=0.7, dir=both];

"""


def render(connection: psycopg.Connection) -> dict[str, str]:
    """The .dot text of each area by its name; Problem where a table belongs to none, or to two."""
    statements = named_statements("pictures.sql")
    cursor = connection.cursor(row_factory=namedtuple_row)
    tables = defaultdict(list)
    for column in cursor.execute(statements["columns"]):
        tables[column.table_name].append(column)
    links = cursor.execute(statements["links"]).fetchall()
    listed = [name for area in AREAS.values() for name in area]
    if sorted(listed) != sorted(tables):
        raise Problem(
            "the areas in runner/pictures.py are not the tables of the database",
            detail=", ".join(sorted(set(listed) ^ set(tables)) or sorted({n for n in listed if listed.count(n) > 1})),
            hint="put each table into one area",
        )
    return {area: _picture(area, members, tables, links) for area, members in AREAS.items()}


def draw(dot: str) -> str:
    """The picture as SVG, without what differs from one Graphviz to the next, and with a mark of what it shows."""
    program = shutil.which("dot")
    if program is None:
        raise Problem("Graphviz is not installed", hint="install the package graphviz", exit_code=2)
    made = subprocess.run([program, "-Tsvg"], input=dot, capture_output=True, text=True, check=True).stdout
    made = re.sub(r"<!--.*?-->\n?|<\?xml.*?\?>\n|<!DOCTYPE.*?>\n", "", made, flags=re.S)
    return f"<!-- {mark(dot)} -->\n{made}"


def mark(dot: str) -> str:
    """What an .svg says of the .dot that it was made from."""
    return f"sha256 of the .dot: {hashlib.sha256(dot.encode()).hexdigest()}"


def _picture(area: str, members: tuple[str, ...], tables: dict[str, list[Any]], links: list[Any]) -> str:
    shown = [link for link in links if link.from_table in members]
    strangers = sorted({link.to_table for link in shown} - set(members))
    linked = {(link.from_table, link.from_column) for link in shown}
    parts = [HEAD.format(name=area)]
    parts += [_table(tables[name], linked) for name in members]
    parts += [f'    {name} [label=<<table border="0" cellborder="1" cellspacing="0" cellpadding="4" color="#9aa5b1">'
              f'<tr><td bgcolor="#f5f7fa" port="top"><font color="#52606d">{name}</font></td></tr></table>>];\n'
              for name in strangers]
    parts.append("\n")
    # Tables that lead to other areas only stand on both sides of these, or the picture would be one long column.
    inner = {name for link in shown if link.to_table in members for name in (link.from_table, link.to_table)}
    right = [name for name in members if name not in inner][1::2]
    for link in shown:
        style = "solid" if link.is_enforced else "dashed"
        one = "none" if link.is_required else "odot"
        if link.from_table in right:
            parts.append(f"    {link.to_table}:top:e -> {link.from_table}:{link.from_column}:w "
                         f"[style={style}, arrowtail={one}, arrowhead=crow];\n")
        else:
            # In at the left; a table that refers to itself at the right, or the line would cross its rows.
            end = "e" if link.from_table == link.to_table else "w"
            parts.append(f"    {link.from_table}:{link.from_column}_type:e -> {link.to_table}:top:{end} "
                         f"[style={style}, arrowtail=crow, arrowhead={one}];\n")
    return "".join(parts) + "}\n"


def _table(columns: list[Any], linked: set[tuple[str, str]]) -> str:
    """A table as an HTML-like label: keys, links and what tells most, in the table's own order."""
    first = columns[0]
    ranked = sorted(columns, key=lambda column: column.rank)
    kept = {
        column.column_name for place, column in enumerate(ranked)
        if place < COLUMNS or column.rank == 1 or (first.table_name, column.column_name) in linked
    }
    kind = " <i>hypertable</i>" if first.is_hypertable else ""
    rows = [f'<tr><td colspan="2" bgcolor="#d9e2ec" port="top"><b>{first.table_name}</b>{kind}</td></tr>']
    for column in columns:
        if column.column_name in kept:
            name = f"<u>{column.column_name}</u>" if column.is_primary else column.column_name
            type_name = escape(SHORT.get(column.type_name, column.type_name))
            rows.append(f'<tr><td align="left" port="{column.column_name}">{name}</td>'
                        f'<td align="left" port="{column.column_name}_type">'
                        f'<font color="#52606d">{type_name}</font></td></tr>')
    if left := len(columns) - len(kept):
        rows.append(f'<tr><td colspan="2" align="left"><font color="#52606d">and {left} more</font></td></tr>')
    body = "\n        ".join(rows)
    return (f'    {first.table_name} [label=<<table border="0" cellborder="1" cellspacing="0" cellpadding="3" '
            f'color="#9aa5b1">\n        {body}\n    </table>>];\n')


if __name__ == "__main__":
    from tidemark.cli import database

    with database() as opened:
        pictures = render(opened)
    TARGET.mkdir(exist_ok=True)
    for old in [*TARGET.glob("*.dot"), *TARGET.glob("*.svg")]:
        if old.stem not in pictures:
            old.unlink()
    for area, dot in pictures.items():
        (TARGET / f"{area}.dot").write_text(dot)
        (TARGET / f"{area}.svg").write_text(draw(dot))
