"""Both pages opened in Chromium: what is to be seen is there, where it belongs, and nobody is asked for anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from see.conftest import HOSTILE, HOUR
from tidemark import chart as charts
from tidemark import drawing
from tidemark import report as reports

LOOKS = [(390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")]
# Position of what carries data, and the instant that the axis has there.
POSITIONS = """
    const scale = view.scale('x'), plot = document.querySelector('#chart svg .mark-group.role-frame.root')
        .getBoundingClientRect(), zero = document.querySelector('#chart svg g.root > g > path.background')
        .getBoundingClientRect().left;
    return [...document.querySelectorAll('#chart svg g.%s_marks path')].filter(p => p.__data__).map(p => {
        const box = p.getBoundingClientRect(), x = (box.left + box.right) / 2 - zero;
        return {at: +scale.invert(x), ms: scale.invert(1) - scale.invert(0), datum: p.__data__.datum,
                left: +scale.invert(box.left - zero), right: +scale.invert(box.right - zero),
                top: box.top, bottom: box.bottom, width: box.width, stroke: getComputedStyle(p).stroke,
                fill: getComputedStyle(p).fill, faint: +getComputedStyle(p).fillOpacity};
    });
"""
# The contrast of each text with the page, by WCAG's formula; the size in pixels as it is seen.
TEXTS = """
    const parse = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
    const shine = rgb => parse(rgb).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const page = shine(getComputedStyle(document.body).backgroundColor);
    return [...document.querySelectorAll('h1, h2, p, th, td, code, figcaption, svg text')].filter(
        e => e.textContent.trim() && e.getBoundingClientRect().width > 0 && e.checkVisibility()
             && +getComputedStyle(e).opacity > 0
    ).map(e => {
        const style = getComputedStyle(e), own = shine(e.tagName === 'text' ? style.fill : style.color);
        const m = e.getScreenCTM ? e.getScreenCTM() : {a: 1, b: 0};
        return {text: e.textContent, contrast: (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05),
                size: parseFloat(style.fontSize) * Math.hypot(m.a, m.b)};
    });
"""


@pytest.fixture
def chart_page(desk, asked, tmp_path):
    """The chart of the coin as a file."""
    path = tmp_path / "chart.html"
    charts.write(charts.read(asked, charts.find(asked, "BTCUSDT")), path)
    return path


@pytest.fixture
def report_page(asked, tmp_path):
    """The report as a file."""
    path = tmp_path / "report.html"
    path.write_text(reports.page(reports.figures(asked)))
    return path


def assert_quiet(browser, path):
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [path.resolve().as_uri()]


def assert_readable(browser):
    assert browser.ask("return document.documentElement.scrollWidth <= innerWidth"), "the page itself never scrolls"
    texts = browser.ask(TEXTS)
    assert len(texts) > 15
    assert [t for t in texts if t["contrast"] < 4.5] == []
    assert [t for t in texts if t["size"] < 9.5] == []


def colour(name: str, scheme: str) -> str:
    value = drawing.COLOURS[name][scheme == "dark"].lstrip("#")
    return f"rgb({int(value[:2], 16)}, {int(value[2:4], 16)}, {int(value[4:], 16)})"


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_chart_shows_its_marks_at_their_instants(browser, desk, chart_page, width, scheme):
    browser.open(chart_page, width=width, scheme=scheme)
    browser.driver.implicitly_wait(5)
    browser.driver.find_element("css selector", "#chart svg g.marks_marks path")
    marks = {(mark["datum"]["kind"], mark["datum"]["t"]): mark for mark in browser.ask(POSITIONS % "marks")}
    expected = {("black swan", desk.spike): "black_swan", ("split", desk.split): "split",
                ("lost points", desk.impossible): "penalised", ("late", desk.late): "late"}
    for (kind, at), name in expected.items():
        mark = marks[kind, round(at.timestamp() * 1000)]
        assert abs(mark["at"] - at.timestamp() * 1000) <= mark["ms"], kind  # to the pixel
        assert mark["stroke"] == colour(name, scheme)
        assert mark["faint"] == pytest.approx(0.05 if kind == "split" else 0.75), "only what was reviewed is hollow"
    bodies = browser.ask(POSITIONS % "bodies")
    assert len(bodies) == len(desk.times) - 10
    by_time = {body["datum"]["t"]: body for body in bodies}
    spike = round(desk.spike.timestamp() * 1000)
    body, mark = by_time[spike], marks["black swan", spike]
    assert body["top"] - 1 <= (mark["top"] + mark["bottom"]) / 2 <= body["bottom"] + 1, "the mark is on the price"
    assert {body["fill"] for body in bodies} == {colour("up", scheme), colour("down", scheme)}
    (gap,) = browser.ask(POSITIONS % "gaps")
    for side, at in (("left", desk.gap[0]), ("right", desk.gap[1])):
        assert abs(gap[side] - at.timestamp() * 1000) <= 2 * gap["ms"]
    seen = browser.ask("return document.body.innerText + [...document.querySelectorAll('svg text')].map(t =>"
                       " t.textContent).join('\\n')")
    for text in ("alert above 104", "black swan", "1 gaps with 10 bars missing", "two for one", "z +"):
        assert text in seen
    assert_readable(browser)
    assert_quiet(browser, chart_page)


def test_chart_can_be_zoomed_and_tells_what_it_points_at(browser, desk, chart_page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    browser.open(chart_page)
    browser.driver.implicitly_wait(5)
    mark = browser.driver.find_element("css selector", "#chart svg g.marks_marks path")
    ActionChains(browser.driver).move_to_element(mark).perform()
    tip = browser.driver.find_element("css selector", "#vg-tooltip-element.visible")
    assert "review" in tip.text and "expected" in tip.text
    before = browser.ask("return view.scale('x').domain().map(Number)")
    ActionChains(browser.driver).scroll_from_origin(ScrollOrigin.from_element(mark), 0, -400).perform()
    browser.ask("return view.runAsync().then(() => 1)")
    after = browser.ask("return view.scale('x').domain().map(Number)")
    assert after[1] - after[0] < before[1] - before[0]
    assert_quiet(browser, chart_page)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_report_is_readable_everywhere(browser, report_page, width, scheme):
    browser.open(report_page, width=width, scheme=scheme)
    headings = browser.ask("return [...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert headings == ["What is here", "What is wrong now", "How quality went", "What is late or stale",
                        "How fast it grows, and what is due", "The record"]
    drawings = browser.ask(
        "return [...document.querySelectorAll('svg')].filter(s => s.checkVisibility()).map(s =>"
        " [s.getBoundingClientRect().width, s.querySelectorAll('path').length])")
    assert len(drawings) >= 5
    assert all(100 < across <= width and paths for across, paths in drawings)
    assert browser.ask("return document.querySelectorAll('script').length") == 0
    assert_readable(browser)
    assert_quiet(browser, report_page)


def test_report_draws_the_flagged_bar_in_each_card_and_the_gap_on_the_map(browser, asked, report_page):
    browser.open(report_page)
    cards = browser.ask("""
        return [...document.querySelectorAll('figure')].map(figure => {
            const symbols = [...figure.querySelectorAll('g.mark-symbol.role-mark path')];  // a line has points, too
            return {text: figure.innerText, ring: Math.max(0, ...symbols.map(s => s.getBoundingClientRect().width)),
                    bars: figure.querySelectorAll('g.mark-rect.role-mark path').length, points: symbols.length};
        });
    """)
    assert cards and all(card["ring"] > 5 for card in cards)
    # A scalar is a line, and of one that is flagged among the first of its series there are fewer before it.
    assert all(card["bars"] >= 20 or (card["bars"] == 0 and card["points"] > 10) for card in cards)
    assert "BTCUSDT" in cards[0]["text"] and "tidemark anomalies real" in cards[0]["text"]
    fills = browser.ask("return [...document.querySelectorAll('.broad:first-of-type svg g.mark-rect.role-mark path')]"
                        ".map(p => p.getAttribute('fill'))")
    coin = next(row for row in reports.figures(asked)["coverage"] if row["name"] == "BTCUSDT")
    classes = [reports._class(cell) for cell in coin["cells"]]
    assert {f"var(--{name})" for name in classes} <= set(fills)
    assert "share3" in classes and len(set(classes)) >= 2, "some days are complete, and some are not"


@pytest.mark.parametrize("kind", ["chart", "report"])
def test_name_from_outside_is_only_a_name(browser, asked, tmp_path, kind):
    path = tmp_path / "page.html"
    if kind == "chart":
        charts.write(charts.read(asked, charts.find(asked, HOSTILE)), path)
    else:
        path.write_text(reports.page(reports.figures(asked)))
    browser.open(path)
    assert HOSTILE in browser.ask("return document.body.textContent")
    assert "gotcha" not in browser.ask("return document.title").replace(HOSTILE, "")
    assert browser.ask("return document.querySelectorAll('img').length") == 0
    assert_quiet(browser, path)


def test_the_test_itself_sees_a_request_a_complaint_and_pale_text(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<body style='background:#fff'><p style='color:#bbb'>pale</p><img src='http://127.0.0.1:9/x.png'>"
                    "<script>console.error('sick')</script>")
    browser.open(path)
    with pytest.raises(AssertionError):
        assert_quiet(browser, path)
    assert browser.ask(TEXTS)[0]["contrast"] < 4.5


def test_forming_bar_is_open_to_the_page(browser, desk, asked, tmp_path):
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with asked.transaction(force_rollback=True):
        asked.execute("INSERT INTO candles (asset_id, interval, ts, open, high, low, close) VALUES (%s, '1h', %s, 1, 3,"
                      " 1, 2)", (desk.calm, at))
        chart = charts.read(asked, charts.find(asked, "ETHUSDT"), last=timedelta(hours=3))
    assert chart.is_forming and chart.bars[-1].ts == at and chart.bars[-1].ends_at == at + HOUR
    charts.write(chart, tmp_path / "chart.html")
    browser.open(tmp_path / "chart.html")
    browser.driver.implicitly_wait(5)
    browser.driver.find_element("css selector", "#chart svg g.bodies_marks path")
    assert [body["fill"] for body in browser.ask(POSITIONS % "bodies")][-1] == colour("page", "light")
    assert "forming" in browser.ask("return document.body.innerText")
