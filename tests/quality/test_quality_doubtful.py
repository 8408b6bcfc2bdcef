"""What a reviewer sees: a move that the next row takes back, not one that the market made."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta

import psycopg
import pytest
from click.testing import CliRunner
from quality_support import COLUMNS, MINUTE, START, bars, configure, copy, insert, walk

from tidemark.cli import main

UPDATE = ("ON CONFLICT (source_id, timestamp) DO UPDATE SET open = EXCLUDED.open, high = EXCLUDED.high,"
          " low = EXCLUDED.low, close = EXCLUDED.close, volume = EXCLUDED.volume")
AT = 200


def _doubtful(connection: psycopg.Connection, at: int = AT) -> bool | None:
    (answer,), = connection.execute(
        "SELECT is_doubtful FROM anomalies WHERE timestamp = %s", [START + at * MINUTE]
    ).fetchall()
    return answer


def _queue(connection: psycopg.Connection) -> list[datetime]:
    return [at for at, in connection.execute("SELECT starts_at FROM anomaly_queue ORDER BY 1")]


def _joined(source_id: int, closes: list[float]) -> list[tuple]:
    """Bars that open where the one before them closed, as those of a market do that trades all the time."""
    opens = [closes[0], *closes[:-1]]
    return [(source_id, START + i * MINUTE, o, max(o, c), min(o, c), c, 1000.0)
            for i, (o, c) in enumerate(zip(opens, closes, strict=True))]


def _moved(length: int = 210, by: float = 1.02) -> list[float]:
    """Prices that are at another height from a row on."""
    return [p * (by if i >= AT else 1) for i, p in enumerate(walk(length, 3))]


def _wrong(length: int = 210, by: float = 1.02, rows: int = 1) -> list[float]:
    """Prices of which some are wrong."""
    return [p * (by if AT <= i < AT + rows else 1) for i, p in enumerate(walk(length, 3))]


@pytest.mark.parametrize(("by", "is_one"), [(1.02, False), (0.98, False), (1.6, True), (0.4, True)])
def test_a_move_that_stays_is_for_nobody_unless_it_is_more_than_half(tx, add, by, is_one):
    copy(tx, bars(add("sources", interval="1m"), _moved(by=by)))
    assert (_doubtful(tx), _queue(tx)) == (is_one, [START + AT * MINUTE] if is_one else [])


def test_a_move_that_may_be_a_split_is_for_a_reviewer(tx, add):
    copy(tx, bars(add("sources", interval="1m"), _moved(by=1 / 1.5)))
    assert (_doubtful(tx), len(_queue(tx))) == (True, 1)


@pytest.mark.parametrize("by", [1.02, 0.98, 10])
def test_a_move_that_the_next_row_takes_back_is_for_a_reviewer(tx, add, by):
    copy(tx, bars(add("sources", interval="1m"), _wrong(by=by)))
    assert (_doubtful(tx), _queue(tx)) == (True, [START + AT * MINUTE])


def test_the_first_of_two_wrong_rows_and_the_return_are_one_episode_for_a_reviewer(tx, add):
    copy(tx, bars(add("sources", interval="1m"), _wrong(by=3, rows=2)))
    assert _queue(tx) == [START + AT * MINUTE]


@pytest.mark.parametrize(("back", "is_one"), [(0.3, False), (0.75, False), (0.9, True)])
def test_a_bar_that_opens_where_the_move_ended_must_come_back_further(tx, add, back, is_one):
    closes = _moved(by=1.02)
    level = closes[AT - 1]
    closes[AT] = level * 1.02
    for i in range(AT + 1, len(closes)):
        closes[i] = level * math.exp(math.log(1.02) * (1 - back))
    copy(tx, _joined(add("sources", interval="1m"), closes))
    assert _doubtful(tx) is is_one


def test_a_series_without_opens_comes_back_by_half_of_its_value(tx, add):
    source_id = add("sources", data_type="scalar", interval="1m")
    values = walk(AT, 3)
    rows = [(source_id, START + i * MINUTE, v)
            for i, v in enumerate([*values, values[-1] + 2, *[values[-1] + 0.9] * 5])]
    copy(tx, rows, columns="source_id, timestamp, value")
    assert _doubtful(tx) is True
    tx.execute("UPDATE timeseries_data SET value = %s WHERE timestamp = %s", [values[-1] + 1.1, rows[AT + 1][1]])
    assert _doubtful(tx) is False


def test_the_next_row_tells_once_another_has_come(tx, add):
    rows = bars(add("sources", interval="1m"), _moved())
    copy(tx, rows[:AT])
    said = []
    for row in rows[AT : AT + 3]:
        insert(tx, [row])
        said.append((_doubtful(tx), len(_queue(tx))))
    assert said == [(None, 1), (None, 1), (False, 0)]


def test_a_next_bar_that_forms_says_nothing_before_it_has_closed(tx, add):
    rows = bars(add("sources", interval="1m"), _wrong())
    copy(tx, rows[: AT + 1])
    for factor in (1.02, 1.01, 1.02, 1):
        insert(tx, [(*rows[AT + 1][:2], *(v * factor for v in rows[AT + 1][2:6]), 1000.0)], conflict=UPDATE)
        assert _doubtful(tx) is None
    insert(tx, [rows[AT + 2]])
    assert _doubtful(tx) is True


def test_what_changes_after_a_row_decides_anew(tx, add):
    source_id = add("sources", interval="1m")
    rows = bars(source_id, _moved())
    copy(tx, rows)
    assert _doubtful(tx) is False
    back = [v / 1.02 for v in rows[AT + 1][2:6]]
    tx.execute("UPDATE timeseries_data SET open = %s, high = %s, low = %s, close = %s WHERE timestamp = %s",
               [*back, rows[AT + 1][1]])
    assert _doubtful(tx) is True
    # A row that came late is the next one from then on.
    insert(tx, [(source_id, rows[AT][1] + MINUTE / 2, *rows[AT][2:])])
    assert _doubtful(tx) is False
    tx.execute("DELETE FROM timeseries_data WHERE timestamp = %s", [rows[AT][1] + MINUTE / 2])
    tx.execute("SELECT rescore('timeseries_data')")
    assert _doubtful(tx) is True


def test_rows_without_a_price_are_no_next_row(tx, add):
    source_id = add("sources", interval="1m")
    rows = bars(source_id, _wrong())
    rows[AT + 1] = (*rows[AT + 1][:2], None, None, None, None, None)
    rows[AT + 2] = (*rows[AT + 2][:2], -1.0, -1.0, -1.0, -1.0, 1.0)
    copy(tx, rows)
    assert _doubtful(tx) is True


@pytest.mark.parametrize(("field", "factor", "is_one"), [
    ("high", 1.008, False), ("high", 1.1, True), ("low", 0.992, False), ("low", 0.9, True), ("volume", 100, False),
    ("volume", 1000, True),
])
def test_what_else_of_a_bar_stands_out_is_for_a_reviewer_where_it_matters(tx, add, field, factor, is_one):
    rows = _joined(add("sources", interval="1m"), walk(210, 3, sigma=0.0002, heavy=0))
    column = COLUMNS.split(", ").index(field)
    rows[AT] = (*rows[AT][:column], rows[AT][column] * factor, *rows[AT][column + 1 :])
    copy(tx, rows)
    assert tx.execute("SELECT field, is_doubtful FROM anomalies WHERE timestamp = %s",
                      [rows[AT][1]]).fetchall() == [(field, is_one)]


def test_a_profile_says_what_more_than_half_is(tx, add):
    profile = configure(tx, "quality_profiles", max_change=0.01, required_fields=["close"])
    copy(tx, bars(add("sources", interval="1m", quality_profile_id=profile), _moved(by=1.02)))
    assert _doubtful(tx) is True


def test_the_list_shows_moves_that_stay_when_asked(db, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", db.url)
    with db.connect() as connection:
        source_id, = connection.execute(
            "INSERT INTO sources (name, data_type, interval) VALUES ('s', 'ohlcv', '1m') RETURNING source_id"
        ).fetchone()
        copy(connection, bars(source_id, _moved()))
    for options in [(), ("--held",), ("--status", "open"), ("--status", "open", "--held")]:
        answer = CliRunner().invoke(main, ["anomalies", "list", "--json", *options])
        starts = [datetime.fromisoformat(episode["starts_at"]) for episode in json.loads(answer.output)]
        assert (START + AT * MINUTE in starts) is ("--held" in options)


def test_nothing_is_decided_by_days_when_series_pause(tx, add):
    """The row after a weekend is the next one, whenever it comes."""
    rows = bars(add("sources", interval="1m"), _wrong())
    rows = [row if i <= AT else (row[0], row[1] + timedelta(days=3), *row[2:]) for i, row in enumerate(rows)]
    copy(tx, rows)
    assert _doubtful(tx) is True


def test_a_first_row_that_is_found_late_is_decided_too(tx, add):
    prices = walk(60, 3, heavy=0)
    prices[9] *= 10
    for i in (20, 25):
        prices[i] *= 1.05
    for row in bars(add("sources", interval="1m"), prices):
        insert(tx, [row])
    assert _doubtful(tx, 9) is True
    assert tx.execute("SELECT count(*) FROM anomalies WHERE is_doubtful IS NULL").fetchone() == (0,)
