"""Files in generated dialects: what is understood is right, and what is not certain is refused. Without a database."""

from __future__ import annotations

import itertools
import math
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tidemark import loader
from tidemark.columns import TARGETS
from tidemark.errors import Problem
from tidemark.formats import said
from tidemark.look import look
from tidemark.quick import quick

MANY = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
STEPS = {"1m": timedelta(minutes=1), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
DATES = {
    "iso": "%Y-%m-%d", "slashed iso": "%Y/%m/%d", "digits": "%Y%m%d", "dmy": "%d/%m/%Y", "mdy": "%m/%d/%Y",
    "dotted": "%d.%m.%Y", "dashed dmy": "%d-%m-%Y", "dmy2": "%d/%m/%y", "named": "%d-%b-%Y", "english": "%b %d, %Y",
    "named short": "%d-%b-%y",
}
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
CLOCKS = {"padded": " %H:%M:%S", "minutes": " %H:%M", "twelve": " %I:%M:%S %p"}
HEADERS = {
    "usual": ("Date", "Open", "High", "Low", "Close", "Volume"),
    "short": ("t", "o", "h", "l", "c", "v"),
    "bracketed": ("<DATE>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<VOL>"),
    "prefixed": ("Index", "ABC.Open", "ABC.High", "ABC.Low", "ABC.Close", "ABC.Volume"),
    "numbered": ("timestamp", "1. open", "2. high", "3. low", "4. close", "5. volume"),
    None: None,
}
ORDERS = {"usual": "ohlcv", "close second": "ochlv", "low first": "lhocv", "shuffled": "vclho"}


@st.composite
def files(draw):
    """A file's text, its bars, and all that was chosen."""
    label = draw(st.sampled_from(list(STEPS)))
    rows = draw(st.integers(1, 40))
    zone = draw(st.sampled_from([None, "America/New_York", "Europe/Athens", "Asia/Kolkata"]))
    start = datetime(2025, draw(st.integers(1, 12)), draw(st.integers(1, 28)), draw(st.integers(0, 23)))
    if label == "1d":
        start = start.replace(hour=0)
    date = draw(st.sampled_from([*DATES, *UNITS]))
    clock = draw(st.sampled_from(list(CLOCKS)))
    decimal = draw(st.sampled_from([".", ","]))
    grouped = draw(st.booleans())
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    # Who separates fields by commas writes a decimal point; the other way round it takes quotes.
    assume(not (delimiter == decimal == "," and grouped))
    header, order = draw(st.sampled_from(list(HEADERS))), draw(st.sampled_from(list(ORDERS)))
    backwards = draw(st.booleans())
    digits = draw(st.integers(0, 6))
    ground = draw(st.sampled_from([0.5, 4, 97, 1234, 54_321]))
    steps = draw(st.lists(st.integers(0, 60), min_size=rows * 4, max_size=rows * 4))
    bars = []
    for n in range(rows):
        low = round(ground + n * ground / 100, digits)
        first, last = (round(low + step * ground / 1000, digits) for step in steps[n * 4:n * 4 + 2])
        high = round(max(first, last) + steps[n * 4 + 2] * ground / 1000, digits)
        bars.append((start + n * STEPS[label], first, high, min(low, first, last), last, steps[n * 4 + 3] * 100))

    def number(value: float) -> str:
        text = f"{value:{',' if grouped else ''}.{digits if isinstance(value, float) else 0}f}"
        text = text if decimal == "." else text.translate(str.maketrans(",.", ".,"))
        return f'"{text}"' if delimiter in text else text

    def moment(at: datetime) -> str:
        if date in UNITS:
            aware = at.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
            return str(int(aware.timestamp()) * UNITS[date])
        text = at.strftime(DATES[date] + ("" if label == "1d" else CLOCKS[clock]))
        return f'"{text}"' if delimiter in text else text

    lines = []
    names = HEADERS[header]
    letters = ORDERS[order]
    if names:
        lines.append(delimiter.join([names[0], *(names["ohlcv".index(letter) + 1] for letter in letters)]))
    for at, first, high, low, last, volume in reversed(bars) if backwards else bars:
        value = {"o": first, "h": high, "l": low, "c": last, "v": volume}
        lines.append(delimiter.join([moment(at), *(number(value[letter]) for letter in letters)]))
    instants = [at.replace(tzinfo=ZoneInfo(zone or "UTC")) for at, *_ in bars]
    assume(all(at.utcoffset() == at.replace(fold=1).utcoffset() for at in instants))
    return {
        "text": "\n".join(lines) + "\n", "bars": [(at.astimezone(UTC), *bar[1:]) for at, bar in zip(instants, bars,
                                                                                                      strict=True)],
        "label": label, "zone": zone if date not in UNITS else None, "date": date, "decimal": decimal,
        "header": header, "order": order, "delimiter": delimiter, "grouped": grouped, "clock": clock,
    }


def understood(path: Path, label: str, **options) -> list[tuple]:
    """The bars as they would be stored; Problem where the file is refused, and AssertionError where it loses a line."""
    layout = look(path, TARGETS["candles"], said(**options), symbol="ABC", interval=label)
    prepared = loader._prepared(layout, layout.sample, label, {})
    assert prepared.rejects == []
    start = datetime(2000, 1, 1, tzinfo=UTC)
    columns = [prepared.numbers.get(name, [math.nan] * len(prepared.times))
               for name in ("open", "high", "low", "close", "volume")]
    return sorted((start + timedelta(microseconds=at), *row)
                  for at, *row in zip(prepared.times, *columns, strict=True))


@MANY
@given(files())
def test_generated_files_are_stored_right_or_refused(tmp_path, case):
    """By itself, `load` never stores anything but what was meant; `--tz` is told, since no file can show its zone."""
    path = tmp_path / "a.csv"
    path.write_text(case["text"])
    try:
        found = understood(path, case["label"], tz=case["zone"])
    except Problem as refusal:
        assert refusal.exit_code == 2 and refusal.hint
        return
    assert found == case["bars"]


@MANY
@given(files())
def test_told_all_about_them_generated_files_are_read(tmp_path, case):
    """With every option given nothing is left to be refused for."""
    path = tmp_path / "a.csv"
    path.write_text(case["text"])
    letters, names = ORDERS[case["order"]], HEADERS[case["header"]]
    columns = dict(zip("ohlcv", ("open", "high", "low", "close", "volume"), strict=True))
    places = {letter: position for position, letter in enumerate(letters, 2)}
    spelled = [f"ts={names[0] if names and case['header'] != 'prefixed' else 1}"]
    spelled += [f"{columns[letter]}={names['ohlcv'.index(letter) + 1] if names else place}"
                for letter, place in places.items()]
    order = {"dmy": "dmy", "mdy": "mdy", "dashed dmy": "dmy", "dmy2": "dmy", "dotted": "dmy"}.get(case["date"])
    try:
        found = understood(path, case["label"], tz=case["zone"], columns=",".join(spelled), decimal=case["decimal"],
                           time_format=case["date"] if case["date"] in UNITS else order)
    except Problem as refusal:
        # Numbers of one column in a text with comma both as delimiter and as decimal sign stand in quotes; a single
        # line may show neither its delimiter nor that it is no header.
        assert len(case["bars"]) == 1, refusal
        return
    assert found == case["bars"]


@MANY
@given(files(), st.integers(1, 9))
def test_the_short_way_finds_what_the_long_way_finds(tmp_path, case, size):
    path = tmp_path / "a.csv"
    path.write_text(case["text"])
    try:
        layout = look(path, TARGETS["candles"], said(tz=case["zone"]), symbol="ABC", interval=case["label"])
    except Problem:
        assume(False)
    short = quick(layout)
    assume(short is not None)
    for batch in layout.reader.batches(size):
        arrays = short.read(batch)
        if arrays is None:
            assert case["date"] not in ("iso", *UNITS) or case["grouped"] or case["clock"] == "twelve"
            continue
        prepared = loader._prepared(layout, layout.table(batch), case["label"], {})
        assert prepared.rejects == [] and prepared.empty == 0
        assert arrays.times.tolist() == prepared.times
        assert {name: values.tolist() for name, values in arrays.numbers.items()} == prepared.numbers


@given(st.lists(st.text(string.printable, max_size=12), min_size=1, max_size=5))
def test_no_line_is_read_the_short_way_that_the_long_way_rejects(lines):
    """Whatever a line holds: the short way declines a batch in which the long one finds something to reject."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_text("ts,open,high,low,close\n2025-03-03T00:00:00,1,2,0.5,1.5\n2025-03-03T00:01:00,1,2,0.5,1.5\n"
                        + "".join(f"2025-03-03T00:{n:02}:00,1,2,0.5,{line}\n" for n, line in enumerate(lines, 2)))
        try:
            layout = look(path, TARGETS["candles"], said(), symbol="ABC", interval="1m")
        except Problem:
            return
        short = quick(layout)
        for batch in layout.reader.batches(100):
            arrays = short.read(batch) if short else None
            if arrays is not None:
                prepared = loader._prepared(layout, layout.table(batch), "1m", {})
                assert prepared.rejects == [] and arrays.times.tolist() == prepared.times
                assert {name: values.tolist() for name, values in arrays.numbers.items()} == prepared.numbers


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Athens", "Australia/Lord_Howe"])
@pytest.mark.parametrize("step", [1, 15, 30])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_year_of_local_time_comes_back(tmp_path, zone, step, backwards):
    """Every instant of a year with its two changes of the clock, written by the local clock and read again."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    count = 366 * 24 * 60 // step
    near = [n for n in range(0, count) if (start + timedelta(minutes=n * step)).month in (3, 4, 10, 11)
            and (start + timedelta(minutes=n * step)).day in (1, 2, 3, 4, 5, 6, 8, 9, 10, 25, 26, 27, 29, 30, 31)]
    moments = [start + timedelta(minutes=n * step) for n in near]
    lines = [f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S},1" for at in moments]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["ts,close", *(reversed(lines) if backwards else lines)]))
    layout = look(path, TARGETS["candles"], said(tz=zone), symbol="A", interval=f"{step}m")
    from tidemark.look import folds

    repeated = folds(layout)
    found = []
    for batch in layout.reader.batches(997):
        prepared = loader._prepared(layout, layout.table(batch), f"{step}m", repeated)
        assert prepared.rejects == []
        found += prepared.times
    zero = datetime(2000, 1, 1, tzinfo=UTC)
    assert sorted(found) == [(at - zero) // timedelta(microseconds=1) for at in moments]


def test_a_single_pass_through_the_repeated_hour_is_rejected_by_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ts,close\n2025-11-01 23:00:00,1\n2025-11-02 00:00:00,1\n2025-11-02 01:00:00,2\n"
                    "2025-11-02 02:00:00,3\n2025-03-09 02:30:00,4\n")
    from tidemark.look import folds

    layout = look(path, TARGETS["candles"], said(tz="America/New_York"), symbol="A", interval="1h")
    prepared = loader._prepared(layout, layout.sample, "1h", folds(layout))
    assert {reject.line: reject.reason.split(" in America")[0].split("' ")[1] for reject in prepared.rejects} == {
        4: "is ambiguous", 6: "does not exist"}


@pytest.mark.parametrize("order", list(itertools.permutations("ohlc")))
def test_rows_without_names_have_one_order_or_none(tmp_path, order):
    """Of the 24 orders of a bar the known ones are told apart, and no other one is taken for a known one."""
    rows = []
    price = 100.0
    for n in range(60):
        first, last = price, price + math.sin(n * n) * 2
        bar = {"o": first, "h": max(first, last) + 0.5 + n % 3, "l": min(first, last) - 0.75, "c": last}
        rows.append(f"{1741564800 + n * 3600}," + ",".join(f"{bar[one]:.4f}" for one in order) + ",5000")
        price = last
    path = tmp_path / "a.csv"
    path.write_text("\n".join(rows))
    known = {tuple("ohlc"), tuple("ochl"), tuple("lhoc")}
    try:
        found = understood(path, "1h")
    except Problem:
        assert order not in known
        return
    assert order in known
    assert found[1][1:5] == tuple(float(f"{value:.4f}") for value in (
        100.0 + math.sin(0) * 2, max(100.0, 100 + math.sin(1) * 2) + 1.5, 100 - 0.75, 100 + math.sin(1) * 2))
