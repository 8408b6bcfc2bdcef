"""docs/pictures/ shows the tables that there are, at a size that fits a page."""

from __future__ import annotations

import re
import shutil

import pytest

from tidemark import pictures
from tidemark.errors import Problem

PAGE = 675  # points: 900 pixels


def test_dot_files_are_up_to_date(tx):
    drawn = pictures.render(tx)
    assert {path.stem: path.read_text() for path in pictures.TARGET.glob("*.dot")} == drawn, "run: make docs"


@pytest.mark.parametrize("area", pictures.AREAS)
def test_svg_was_made_of_the_dot_beside_it_and_fits_a_page(area):
    dot, svg = ((pictures.TARGET / f"{area}.{kind}").read_text() for kind in ("dot", "svg"))
    assert pictures.mark(dot) in svg, "run: make docs"
    assert float(re.search(r'<svg width="([\d.]+)pt"', svg)[1]) <= PAGE
    assert min(float(size) for size in re.findall(r'font-size="([\d.]+)"', svg)) >= 9
    assert all(f">{table}</text>" in svg for table in pictures.AREAS[area])


def test_page_shows_every_picture():
    page = (pictures.TARGET / "README.md").read_text()
    assert re.findall(r"\]\((\w+)\.svg\)", page) == list(pictures.AREAS)


def test_every_table_is_in_a_picture_with_its_keys_and_links(tx):
    drawn = "".join(pictures.render(tx).values())
    tables = [name for (name,) in tx.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")]
    assert len(tables) > 30
    assert [name for name in tables if f"\n    {name} [label=" not in drawn] == []
    keys = tx.execute("""
        SELECT c.conrelid::regclass::text, a.attname, c.contype, nullif(c.confrelid, 0)::regclass::text
          FROM pg_constraint AS c
          JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
         WHERE c.contype IN ('p', 'f') AND c.connamespace = 'public'::regnamespace
           AND a.attname NOT LIKE 'app\\_%' -- they repeat others as an application spells them""").fetchall()
    for table, column, kind, target in keys:
        label = re.search(rf"\n    {table} \[label=<<table[^>]*>\n.*?</table>>\];", drawn, re.S)[0]
        assert (f"<u>{column}</u>" if kind == "p" else f'port="{column}"') in label
        if kind == "f":
            assert re.search(rf"\b{table}:{column}_type:e -> {target}:top:[ew] \[style=solid"
                             rf"|\b{target}:top:e -> {table}:{column}:w \[style=solid", drawn)


def test_link_that_no_foreign_key_enforces_is_dashed(tx):
    assert re.search(
        r"timeseries_data:source_id_type:e -> sources:top:w \[style=dashed", pictures.render(tx)["market_data"])


def test_table_in_no_area_is_refused(tx):
    tx.execute("CREATE TABLE public.homeless (a integer)")
    with pytest.raises(Problem) as refused:
        pictures.render(tx)
    assert refused.value.detail == "homeless"


def test_missing_graphviz_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Problem) as refused:
        pictures.draw("digraph {}")
    assert refused.value.exit_code == 2
