"""A series' market is asked once: what is out of session is not missing, and what is missing is not out of session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb
from quality_support import anomalies, bars, configure, copy, dice, everything, insert, penalties, pieces, walk

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MONDAY = datetime(2024, 7, 1, tzinfo=UTC)
DAYS = 70
OUT = ("validation", 10, "timeseries_data_in_session")


@pytest.fixture(autouse=True)
def _calendars(tx):
    """New York, from 13:30 to 20:00, shut on the Fourth and on weekends; Tokyo, from midnight to six; one that never
    closes."""
    for n in range(-7, DAYS):
        day = MONDAY + n * DAY
        for market, opens, closes, shut in (
            ("XNYS", 13.5 * HOUR, 20 * HOUR, day.weekday() > 4 or n == 3),
            ("XTKS", 0 * HOUR, 6 * HOUR, day.weekday() > 4), ("24/7", 0 * HOUR, DAY, False),
        ):
            tx.execute("INSERT INTO market_calendar (market, date, opens_at, closes_at) VALUES (%s, %s, %s, %s)",
                       [market, day.date(), None if shut else day + opens, None if shut else day + closes])


# How a series comes by its market, and whose calendar that is.
WAYS = {
    "the exchange of its asset": (dict(exchange="NYSE"), {}, None, "XNYS"),
    "its asset, though that trades crypto": (dict(exchange="crypto", asset_type="crypto"), {}, None, "24/7"),
    "an exchange without a calendar": (dict(exchange="BINANCE", asset_type="crypto"), {}, None, None),
    "no exchange": (dict(exchange=None), {}, None, None),
    "its config": (None, dict(market="nyse"), None, "XNYS"),
    "its config before its asset": (dict(exchange="NYSE"), dict(market="24/7"), None, "24/7"),
    "its profile before both": (dict(exchange="NYSE"), dict(market="24/7"), "XTKS", "XTKS"),
    "nothing": (None, {}, None, None),
}


@pytest.fixture
def make(tx, add):
    """Makes a source that comes by its market in one of the ways."""
    def source(way: str, interval: str) -> int:
        asset, config, market, _ = WAYS[way]
        columns = {} if asset is None else {"asset_id": add("assets", **asset)}
        if market:
            columns["quality_profile_id"] = configure(tx, "quality_profiles", market=market)
        return add("sources", interval=interval, config=Jsonb(config), **columns)
    return source


@pytest.mark.parametrize("interval", ["1h", "1d"])
@pytest.mark.parametrize("way", WAYS)
def test_a_row_is_either_expected_or_out_of_session(tx, make, way, interval):
    source_id, step = make(way, interval), HOUR if interval == "1h" else DAY
    times = [MONDAY + n * step for n in range(7 * DAY // step)]
    copy(tx, [row for at in times for row in bars(source_id, [1.0], at=at)])
    out = {at for at in times if OUT in penalties(tx, source_id, at)}
    tx.execute("DELETE FROM timeseries_data")
    expected = tx.execute("SELECT e.bar_start, e.bar_end FROM _tidemark.expected_bars("
                          " _tidemark.series_market(%s, NULL, NULL), %s, %s, %s) AS e",
                          [source_id, interval, MONDAY, MONDAY + 7 * DAY]).fetchall()
    assert tx.execute("SELECT sum(missing_bars) FROM find_gaps(%s, %s, %s)",
                      [source_id, MONDAY, MONDAY + 7 * DAY]).fetchone() == (len(expected),)
    assert out == {at for at in times if not any(at < ends and at + step > starts for starts, ends in expected)}
    hours, days = {"XNYS": (4 * 7, 4), "XTKS": (5 * 6, 5)}.get(WAYS[way][3], (7 * 24, 7))
    assert len(times) - len(out) == (hours if interval == "1h" else days)


@pytest.mark.parametrize(("exchange", "lost"), [("NYSE", [0, 0, 0, 10, 0, 10, 10]), ("binance", [0] * 7),
                                                (None, [0] * 7)])
def test_candles_of_an_asset(tx, add, exchange, lost):
    asset_id = add("assets", exchange=exchange)
    for n in range(7):
        insert(tx, [(asset_id, "1d", MONDAY + n * DAY, 1, 1, 1, 1)], "candles",
               "asset_id, interval, ts, open, high, low, close")
    scores = [100 - score for score, in tx.execute("SELECT quality_score FROM candles ORDER BY ts")]
    assert scores == lost
    tx.execute("DELETE FROM candles")
    missing, = tx.execute("SELECT sum(missing_bars) FROM find_candle_gaps(%s, '1d', %s, %s)",
                          [asset_id, MONDAY, MONDAY + 7 * DAY]).fetchone()
    assert missing == lost.count(0)


@pytest.mark.parametrize("table", ["quotes", "ticks"])
def test_quotes_and_ticks_follow_the_exchange_too(tx, add, table):
    asset_id = add("assets", exchange="NYSE")
    for hour in (14, 21):
        columns = dict(ts=MONDAY + hour * HOUR, price=1) | (dict(quantity=1, seq=hour) if table == "ticks" else {})
        add(table, asset_id=asset_id, **columns)
    assert tx.execute("SELECT ts, detail FROM quality_issues WHERE table_name = %s AND penalty = 'validation'",
                      [table]).fetchall() == [(MONDAY + 21 * HOUR, f"{table}_in_session")]


@pytest.mark.parametrize(("stamp", "lost"), [(0, [3, 5, 6, 12, 13]), (5, [3, 5, 6, 12, 13]), (13.5, [3, 5, 6, 12, 13]),
                                            (20, [5, 12])])  # one on Sunday evening may be Monday's
def test_a_day_may_be_stamped_with_its_midnight_its_opening_or_its_close(tx, make, stamp, lost):
    source_id = make("the exchange of its asset", "1d")
    times = [MONDAY + n * DAY + stamp * HOUR for n in range(14)]
    copy(tx, [row for at in times for row in bars(source_id, [1.0], at=at)])
    assert [n for n, at in enumerate(times) if OUT in penalties(tx, source_id, at)] == lost


def test_lateness_is_measured_in_the_open_time_of_the_series_own_market(tx, make):
    """Friday's last hour, on Monday a minute after the opening: late by the clock, but not in New York."""
    ways = ["the exchange of its asset", "its config", "nothing"]
    tx.execute("SET LOCAL tidemark.reason = 'test'")
    tx.execute("UPDATE quality_profiles SET allowed_lag = '10 minutes' WHERE name = 'ohlcv'")
    series = [Jsonb({"source_id": make(way, "1h")}) for way in ways]
    friday, now = MONDAY - 3 * DAY + 19 * HOUR, MONDAY + 13.5 * HOUR + timedelta(minutes=1)
    bounds, = tx.execute("SELECT _tidemark.late_bounds(t, %s::jsonb[], %s, %s) FROM _tidemark.quality_targets AS t"
                         " WHERE t.label = 'timeseries_data'", [series, [friday] * 3, now]).fetchone()
    assert [bound > friday for bound in bounds] == [False, False, True]


def rows_of_sessions(source_id: int, seed: int) -> list[tuple]:
    """Half hours of New York's sessions; over night prices change five times as much; some of them are wrong."""
    generator, price, rows = dice(seed), 100.0, []
    for n in range(DAYS):
        at = MONDAY + n * DAY
        if at.weekday() > 4 or n == 3:
            continue
        for i in range(13):
            price *= 2.718281828 ** generator.gauss(0, 0.005 if i == 0 else 0.001)
            wrong = 1.05 if generator.random() < 0.02 else 1
            rows += bars(source_id, [price * wrong], at=at + 13.5 * HOUR + i * HOUR / 2)
    return rows


@pytest.mark.parametrize("way", ["the exchange of its asset", "its config"])
def test_sessions_and_any_order_give_the_same(tx, make, way):
    """Changes over night are judged among their like, row by row as in a batch and by rescore()."""
    source_id, generator = make(way, "30m"), dice(5)
    rows = rows_of_sessions(source_id, 5)
    copy(tx, rows)
    batch = everything(tx)
    assert len(batch["anomalies"]) > 5
    by_clock = make("nothing", "30m")
    copy(tx, [(by_clock, *row[1:]) for row in rows])
    assert len(anomalies(tx, by_clock)) > len(anomalies(tx, source_id)), "the opening is flagged again and again"
    tx.execute("TRUNCATE timeseries_data")
    for row in rows:
        insert(tx, [row])
    assert everything(tx) == batch
    memory = ("SELECT market, is_first, base_sum, base_squares, base_count, kept_sum, kept_squares, kept_count, sum_20,"
              " squares_20, count_20 FROM _tidemark.series_memory"
              " WHERE series = jsonb_build_object('source_id', %s::int)")
    moved_along = tx.execute(memory, [source_id]).fetchone()
    tx.execute("DELETE FROM timeseries_data WHERE timestamp = %s", [rows[-1][1]])
    insert(tx, rows[-1:])
    assert tx.execute(memory, [source_id]).fetchone() == moved_along, "as it is built from the rows"
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (0,)
    tx.execute("TRUNCATE timeseries_data")
    generator.shuffle(rows)
    for piece in pieces(rows, generator, 100):
        insert(tx, piece)
    tx.execute("SELECT rescore('timeseries_data')")
    assert everything(tx) == batch


CHANGES = {
    "the exchange": ("UPDATE assets SET exchange = 'NYSE'", "UPDATE assets SET exchange = NULL"),
    "the asset of the source": ("UPDATE sources SET asset_id = (SELECT asset_id FROM assets WHERE exchange = 'NASDAQ')",
                                "UPDATE sources SET asset_id = (SELECT asset_id FROM assets WHERE symbol = 'S')"),
    "the config": ("UPDATE sources SET config = '{\"market\": \"NYSE\"}'", "UPDATE sources SET config = '{}'"),
    "a name": ("INSERT INTO _tidemark.market_names VALUES ('LOCAL', 'XNYS')", "DELETE FROM _tidemark.market_names"),
    "the profile": ("UPDATE quality_profiles SET market = 'XNYS' WHERE name = 'ohlcv'",
                    "UPDATE quality_profiles SET market = NULL WHERE name = 'ohlcv'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_market_holds_from_the_next_row_on_and_for_the_others_from_rescore(tx, add, change):
    tx.execute("SET LOCAL tidemark.reason = 'test'")
    add("assets", symbol="T", exchange="NASDAQ")
    tx.execute("INSERT INTO market_calendar (market, date, opens_at, closes_at)"
               " SELECT 'NASDAQ', date, opens_at, closes_at FROM market_calendar WHERE market = 'XNYS'")
    source_id = add("sources", interval="1m", asset_id=add("assets", symbol="S", exchange="LOCAL" if change == "a name"
                                                           else None))
    at = MONDAY + 18 * HOUR  # two hours until the close
    rows = bars(source_id, walk(400, 3), at=at)
    for row in rows[:240]:
        insert(tx, [row])
    assert tx.execute("SELECT newest_at FROM _tidemark.series_memory WHERE newest IS NOT NULL"
                      ).fetchone() == (rows[239][1],)
    assert tx.execute("SELECT count(*) FROM quality_issues").fetchone() == (0,)
    for n, statement in enumerate(CHANGES[change]):
        tx.execute(statement)
        piece = rows[240 + 20 * n:260 + 20 * n]
        for row in piece:
            insert(tx, [row])
        assert [OUT in penalties(tx, source_id, row[1]) for row in piece] == [n == 0] * 20
    tx.execute(CHANGES[change][0])
    tx.execute("SELECT rescore('timeseries_data')")
    assert [OUT in penalties(tx, source_id, row[1]) for row in rows[:280]] == [False] * 120 + [True] * 160
