"""Alerts fire once, for news that reaches them, and for nothing else."""

from __future__ import annotations

import datetime as dt
import json
import threading
from decimal import Decimal

import psycopg
import pytest
from conftest import adder
from psycopg import errors

NOON = dt.datetime(2025, 6, 2, 12, tzinfo=dt.UTC)


def at(minutes):
    return NOON + dt.timedelta(minutes=minutes)


@pytest.fixture
def user(add):
    return add("users")


@pytest.fixture
def asset(add):
    return add("assets", symbol="ACME")


@pytest.fixture
def alert(add, user, asset):
    def make(condition, target, **columns):
        return add("alerts", **{"user_id": user, "asset_id": asset, "condition": condition, "target_value": target,
                                **columns})

    return make


@pytest.fixture
def quote(tx, asset):
    """`quote((minute, price), …)` stores quotes with one statement."""

    def store(*rows, on=None):
        values = psycopg.sql.SQL(", ").join(psycopg.sql.SQL("(%s, %s, %s)") for _ in rows)
        tx.execute(
            psycopg.sql.SQL("INSERT INTO quotes (asset_id, ts, price) VALUES {}").format(values),
            [value for minute, price in rows for value in (on or asset, at(minute), price)],
        )

    return store


@pytest.fixture
def bar(tx, asset):
    """Stores or replaces a bar of 5 minutes."""

    def store(minute, open_, high, low, close, interval="5m"):
        tx.execute(
            "INSERT INTO candles (asset_id, interval, ts, open, high, low, close) VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (asset_id, interval, ts) DO UPDATE SET high = EXCLUDED.high, low = EXCLUDED.low,"
            " close = EXCLUDED.close",
            (asset, interval, at(minute), open_, high, low, close),
        )

    return store


@pytest.fixture
def fired(tx):
    """Keys of the alerts that have fired."""
    return lambda: [key for (key,) in tx.execute("SELECT alert_id FROM alerts WHERE is_triggered ORDER BY alert_id")]


@pytest.fixture
def messages(tx):
    return lambda: [text for (text,) in tx.execute(
        "SELECT message FROM notifications WHERE notification_type = 'alert' ORDER BY notification_id"
    )]


@pytest.mark.parametrize(("condition", "reaching", "short_of"), [("above", 100.01, 100), ("below", 99.99, 100)])
def test_price_fires_an_alert_once_it_is_past_the_target(tx, alert, quote, fired, messages, condition, reaching,
                                                         short_of):
    key = alert(condition, 100, message="look")
    quote((0, short_of))
    assert fired() == []
    quote((1, reaching))
    assert fired() == [key]
    assert tx.execute("SELECT triggered_at <= clock_timestamp() FROM alerts").fetchone() == (True,)
    assert messages() == [f"look (ACME {condition} 100: {reaching})"]
    quote((2, short_of), (3, reaching))
    assert len(messages()) == 1


@pytest.mark.parametrize(("before", "reaching"), [(95, 100), (95, 104), (105, 100), (105, 96)])
def test_cross_fires_when_the_price_gets_to_the_target_from_where_it_was(alert, quote, fired, before, reaching):
    quote((0, before))
    key = alert("cross", 100)
    quote((1, before), (2, before + (100 - before) / 2))
    assert fired() == []
    quote((3, reaching))
    assert fired() == [key]


def test_cross_without_a_price_before_starts_from_the_first_one_that_is_not_the_target(alert, quote, fired, messages):
    key = alert("cross", 100)
    quote((0, 100))
    quote((1, 100), (2, 100))
    quote((3, 101))
    assert fired() == []
    quote((4, 102), (5, 99.5), (6, 103))
    assert fired() == [key]
    assert messages() == ["ACME crossed 100: 99.5"]


def test_cross_on_both_sides_within_one_statement_is_noticed(alert, quote, fired):
    key = alert("cross", 100)
    quote((3, 101), (1, 95), (2, 101))
    assert fired() == [key]


def test_rows_of_a_statement_count_in_time_order_whatever_their_order_in_it(alert, quote, messages):
    alert("above", 100)
    alert("above", 104)
    alert("below", 98)
    quote((3, 105), (1, 101), (2, 97), (4, 96))
    assert messages() == ["ACME above 100: 101", "ACME below 98: 97", "ACME above 104: 105"]


def test_price_that_comes_late_fires_nothing(alert, quote, fired):
    quote((10, 99))
    key = alert("above", 100)
    quote((5, 101))
    quote((4, 102), (5.5, 99))
    assert fired() == []
    quote((6, 103), (11, 99.5))
    assert fired() == [], "the late part of a statement does not count either"
    quote((12, 101))
    assert fired() == [key]


def test_row_from_the_future_hides_nothing_that_comes_after_it(tx, alert, asset, fired):
    tx.execute("INSERT INTO quotes (asset_id, ts, price) VALUES (%s, now() + interval '3 days', 90)", (asset,))
    key = alert("above", 100)
    tx.execute("INSERT INTO quotes (asset_id, ts, price) VALUES (%s, now(), 101)", (asset,))
    assert fired() == [key]


@pytest.mark.parametrize("mode", ["backfill", "correction", "replay"])
def test_rows_that_are_no_news_fire_nothing(tx, alert, quote, fired, mode):
    key = alert("above", 100)
    tx.execute("SELECT set_config('tidemark.ingest_mode', %s, true)", (mode,))
    quote((0, 101))
    tx.execute("UPDATE quotes SET price = 102")
    assert fired() == []
    tx.execute("SELECT set_config('tidemark.ingest_mode', 'live', true)")
    quote((1, 101))
    assert fired() == [key]


@pytest.mark.parametrize("price", [None, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_price_fires_nothing(alert, quote, bar, fired, price):
    alert("above", 100)
    alert("below", 90)
    alert("cross", 95)
    quote((0, price))
    quote((1, price), *((minute, price) for minute in range(2, 20)))
    bar(0, price, price, price, price)
    assert fired() == []


def test_alert_that_is_off_or_on_another_asset_does_not_fire(tx, add, alert, quote, fired):
    off = alert("above", 100, is_active=False)
    alert("above", 100, asset_id=add("assets"))
    quote((0, 101))
    assert fired() == []
    tx.execute("UPDATE alerts SET is_active = true WHERE alert_id = %s", (off,))
    quote((1, 101))
    assert fired() == [off]


def test_alert_armed_again_fires_again(tx, alert, quote, fired, messages):
    key = alert("above", 100)
    quote((0, 101))
    tx.execute("UPDATE alerts SET is_triggered = false")
    assert tx.execute("SELECT triggered_at FROM alerts").fetchone() == (None,)
    quote((1, 102))
    assert fired() == [key]
    assert len(messages()) == 2


def test_alert_follows_its_new_target(tx, alert, quote, fired):
    key = alert("above", 100)
    tx.execute("UPDATE alerts SET target_value = 200")
    quote((0, 150))
    assert fired() == []
    tx.execute("UPDATE alerts SET condition = 'below', target_value = 140")
    quote((1, 139))
    assert fired() == [key]


def test_crossing_armed_again_starts_from_the_latest_price(tx, alert, quote, fired, messages):
    quote((0, 95))
    alert("cross", 100)
    quote((1, 105))
    tx.execute("UPDATE alerts SET is_triggered = false")
    quote((2, 106))
    assert fired() == []
    quote((3, 99))
    assert messages() == ["ACME crossed 100: 105", "ACME crossed 100: 99"]


def test_bar_fires_by_its_high_and_low(alert, bar, fired):
    above, below = alert("above", 110), alert("below", 90)
    bar(0, 100, 110, 90, 100)
    assert fired() == []
    bar(5, 100, 111, 95, 100)
    assert fired() == [above]
    bar(10, 100, 105, 89, 100)
    assert fired() == [above, below]


def test_bar_that_crosses_between_its_open_and_its_high_fires(alert, bar, fired):
    key = alert("cross", 105)
    bar(0, 100, 106, 99, 101)
    assert fired() == [key]


def test_of_an_updated_bar_counts_what_is_new(alert, bar, fired):
    bar(0, 100, 111, 99, 100)
    key = alert("above", 110)
    bar(0, 100, 111, 98, 101)
    assert fired() == [], "the high was known before the alert was made"
    bar(0, 100, 112, 98, 101)
    assert fired() == [key]


def test_updated_bar_that_is_not_the_newest_fires_nothing(alert, bar, fired):
    bar(0, 100, 101, 99, 100)
    bar(5, 100, 101, 99, 100)
    key = alert("above", 110)
    bar(0, 100, 120, 99, 119)
    assert fired() == []
    bar(5, 100, 111, 99, 105)
    assert fired() == [key]


def test_updated_quote_fires(tx, alert, quote, fired):
    quote((0, 99), (1, 99))
    key = alert("above", 100)
    tx.execute("UPDATE quotes SET volume = 1, bid = 101")
    tx.execute("UPDATE quotes SET price = 101 WHERE ts = %s", (at(0),))
    assert fired() == []
    tx.execute("UPDATE quotes SET price = 101")
    assert fired() == [key]


def test_scores_written_by_the_quality_engine_fire_nothing(tx, alert, quote, fired):
    quote(*((minute, 99) for minute in range(10)))
    alert("above", 98)
    tx.execute("SELECT rescore('quotes', NULL, %s, %s)", (at(-10), at(20)))
    assert fired() == []


@pytest.mark.parametrize("rows", [1, 50])
def test_many_alerts_fire_with_one_statement_each_by_the_first_price_past_it(tx, user, asset, quote, rows):
    tx.execute(
        "INSERT INTO alerts (user_id, asset_id, condition, target_value)"
        " SELECT %s, %s, 'above', i FROM generate_series(1, 300) AS i", (user, asset),
    )
    quote(*((row, 200 * (row + 1) / rows) for row in range(rows)))
    found = tx.execute(
        "SELECT count(*), max(target_value) FROM alerts WHERE is_triggered").fetchone()
    assert found == (199, Decimal(199))
    step = 200 // rows
    assert tx.execute(
        "SELECT count(*) FROM notifications AS n JOIN alerts AS a USING (alert_id)"
        " WHERE n.message <> format('ACME above %%s: %%s', a.target_value,"
        "                           (floor(a.target_value / %s) + 1) * %s)", (step, step)
    ).fetchone() == (0,)


def test_each_asset_of_a_statement_fires_its_own_alerts(tx, add, user, fired):
    assets = [add("assets") for _ in range(12)]
    keys = [add("alerts", user_id=user, asset_id=asset, condition="above", target_value=100 + place)
            for place, asset in enumerate(assets)]
    tx.execute("INSERT INTO quotes (asset_id, ts, price) SELECT unnest(%s::uuid[]), %s, 106", (assets, NOON))
    assert fired() == keys[:6]


def test_watchlist_prices_fire_once_each_until_they_are_changed(tx, add, user, asset, quote, messages):
    item = add("watchlist_items", watchlist_id=add("watchlists", user_id=user, name="w"), asset_id=asset,
               price_alert_high=110, price_alert_low=90)
    del item
    quote((0, 110), (1, 90))
    assert messages() == []
    quote((2, 111))
    quote((3, 112), (4, 89), (5, 88))
    assert messages() == ["ACME above 110: 111", "ACME below 90: 89"]
    assert tx.execute(
        "SELECT high_triggered_at IS NOT NULL, low_triggered_at > high_triggered_at FROM watchlist_items"
    ).fetchone() == (True, True)
    tx.execute("UPDATE watchlist_items SET price_alert_high = 115, notes = 'raised'")
    assert tx.execute(
        "SELECT high_triggered_at, low_triggered_at IS NULL FROM watchlist_items"
    ).fetchone() == (None, False)
    quote((6, 80), (7, 116))
    assert messages()[2:] == ["ACME above 115: 116"]


def test_both_prices_of_an_item_fire_with_one_statement(tx, add, user, asset, quote, messages):
    add("watchlist_items", watchlist_id=add("watchlists", user_id=user, name="w"), asset_id=asset,
        price_alert_high=110, price_alert_low=90)
    quote((0, 111), (1, 89))
    assert messages() == ["ACME above 110: 111", "ACME below 90: 89"]
    assert tx.execute("SELECT count(*) FROM _tidemark.armed_alerts").fetchone() == (0,)


def test_user_who_wants_no_notifications_gets_none(tx, add, asset, alert, quote, fired):
    silent = add("users", enable_notifications=False)
    key = alert("above", 100, user_id=silent)
    quote((0, 101))
    assert fired() == [key]
    assert tx.execute("SELECT count(*) FROM notifications").fetchone() == (0,)


@pytest.fixture
def indicator(tx, asset):
    def store(minute, value, name="rsi_14", family="rsi", interval="1h"):
        tx.execute(
            "INSERT INTO indicators (asset_id, ts, interval, indicator_type, name, value)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (asset_id, interval, name, ts)"
            " DO UPDATE SET value = EXCLUDED.value",
            (asset, at(minute), interval, family, name, value),
        )

    return store


@pytest.mark.parametrize("columns", [{"indicator": "rsi_14"}, {"indicator": "RSI"}, {"message": "RSI_14 is hot"},
                                     {"message": "when the rsi is over 70"}])
def test_indicator_alert_watches_the_indicator_it_names(alert, indicator, quote, fired, columns):
    key = alert("above", 70, alert_type="indicator", **columns)
    indicator(0, 71, name="ema_20", family="ema")
    quote((0, 71))
    indicator(0, 70)
    assert fired() == []
    indicator(60, 70.5)
    assert fired() == [key]


def test_indicator_alert_crosses_and_follows_updates_of_the_newest_figure(alert, indicator, fired, messages):
    indicator(0, 60)
    indicator(60, 65)
    cross, other = (alert("cross", 70, alert_type="indicator", indicator=name) for name in ("rsi_14", "rsi_7"))
    indicator(0, 75)
    assert fired() == []
    indicator(60, 70)
    assert fired() == [cross]
    assert messages() == ["ACME rsi_14 crossed 70: 70"]
    indicator(0, 50, name="rsi_7")
    indicator(30, 71, name="rsi_7")
    assert fired() == [cross, other]


def test_indicator_alert_that_names_none_warns_and_never_fires(tx, alert, indicator, fired):
    warnings = []
    tx.add_notice_handler(lambda notice: warnings.append(notice.severity_nonlocalized))
    alert("above", 70, alert_type="indicator", message="hot")
    assert warnings == ["WARNING"]
    indicator(0, 99)
    assert fired() == []


def test_price_alert_has_no_indicator(tx, alert):
    alert("above", 70, indicator="rsi")
    assert tx.execute("SELECT indicator FROM alerts").fetchone() == (None,)


@pytest.fixture
def prediction(add, asset):
    def store(minute, price, **columns):
        return add("predictions", **{
            "asset_id": asset, "model_type": "lstm", "current_price": 100, "predicted_price": price, "direction": "buy",
            "confidence": 0.5, "interval": "1h", "horizon_hours": 1, "prediction_for": at(minute), **columns,
        })

    return store


def test_prediction_alert_watches_what_is_foretold(tx, alert, quote, prediction, fired, messages):
    above, cross = (alert(condition, 120, alert_type="prediction") for condition in ("above", "cross"))
    quote((0, 130))
    prediction(60, 120)
    assert fired() == []
    later = prediction(120, 119)
    prediction(90, 125)
    assert fired() == [], "a prediction for an earlier instant is no news"
    tx.execute("UPDATE predictions SET predicted_price = 120, confidence = 0.6 WHERE prediction_id = %s", (later,))
    assert fired() == [cross]
    prediction(180, 121)
    assert fired() == [above, cross]
    assert messages() == ["ACME prediction crossed 120: 120", "ACME prediction above 120: 121"]


def test_other_users_predictions_fire_nothing(add, user, alert, prediction, fired):
    key = alert("above", 120, alert_type="prediction")
    prediction(60, 130, user_id=add("users"))
    assert fired() == []
    prediction(60, 130, user_id=user)
    assert fired() == [key]


def test_channel_carries_keys_and_nothing_of_their_owners(db):
    """Any role may listen; who the owner is and what he waits for learns only he."""
    with db.connect() as listener, db.connect() as writer:
        add = adder(writer)
        user, asset = add("users"), add("assets", symbol="ACME")
        key = add("alerts", user_id=user, asset_id=asset, condition="above", target_value=100)
        item = add("watchlist_items", watchlist_id=add("watchlists", user_id=user, name="w"), asset_id=asset,
                   price_alert_low=50)
        listener.execute("LISTEN tidemark_alert")
        writer.execute("INSERT INTO quotes (asset_id, ts, price) VALUES (%s, %s, 101.5), (%s, %s, 49)",
                       (asset, NOON, asset, at(1)))
        told = [json.loads(notice.payload) for notice in listener.notifies(timeout=5, stop_after=2)]
    assert told == [{"alert_id": key}, {"item_id": str(item)}]


def test_two_writers_that_cross_the_same_alerts_fire_each_once(db):
    with db.connect() as first, db.connect() as second, db.connect() as watcher:
        add = adder(watcher)
        user, asset = add("users"), add("assets")
        for target in range(100, 140):
            add("alerts", user_id=user, asset_id=asset, condition=("above", "cross")[target % 2], target_value=target)
        first.execute("BEGIN")
        first.execute("INSERT INTO quotes (asset_id, ts, price) VALUES (%s, %s, 90), (%s, %s, 150)",
                      (asset, NOON, asset, at(1)))
        rival = threading.Thread(target=second.execute, args=(
            "INSERT INTO quotes (asset_id, ts, price) VALUES (%s, %s, 91), (%s, %s, 151)", (asset, at(2), asset, at(3)),
        ))
        rival.start()
        while not watcher.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]:
            assert rival.is_alive(), "the second writer has to wait for the first"
        first.execute("COMMIT")
        rival.join()
        assert watcher.execute(
            "SELECT count(*) FILTER (WHERE is_triggered), (SELECT count(*) FROM notifications),"
            " (SELECT count(DISTINCT alert_id) FROM notifications), (SELECT count(*) FROM _tidemark.armed_alerts)"
            " FROM alerts"
        ).fetchone() == (40, 40, 40, 0)


def test_alert_stays_armed_when_the_writer_takes_its_price_back(db):
    with db.connect() as connection:
        add = adder(connection)
        asset = add("assets")
        add("alerts", user_id=add("users"), asset_id=asset, condition="above", target_value=100)
        insert = "INSERT INTO quotes (asset_id, ts, price) VALUES (%s, %s, 101)"
        with connection.transaction(force_rollback=True):
            connection.execute(insert, (asset, NOON))
            assert connection.execute("SELECT is_triggered FROM alerts").fetchone() == (True,)
        assert connection.execute("SELECT is_triggered FROM alerts").fetchone() == (False,)
        connection.execute(insert, (asset, NOON))
        assert connection.execute("SELECT is_triggered FROM alerts").fetchone() == (True,)


def test_writer_needs_no_privilege_on_alerts(tx, alert, quote, fired):
    key = alert("above", 100)
    tx.execute("CREATE ROLE feed; GRANT INSERT ON quotes TO feed; SET LOCAL ROLE feed")
    quote((0, 101))
    tx.execute("RESET ROLE")
    assert fired() == [key]


def test_default_watchlist_is_passed_on(tx, add, user):
    first = add("watchlists", user_id=user, name="a", is_default=True)
    second = add("watchlists", user_id=user, name="b")
    others = add("watchlists", user_id=add("users"), name="c", is_default=True)
    for _ in range(2):
        tx.execute("SELECT set_default_watchlist(%s)", (second,))
        assert set(tx.execute("SELECT watchlist_id FROM watchlists WHERE is_default")) == {(second,), (others,)}
    tx.execute("SELECT set_default_watchlist(%s)", (first,))
    with pytest.raises(errors.Error) as refused:
        tx.execute("SELECT set_default_watchlist(NULL)")
    assert refused.value.sqlstate == "TM614"


@pytest.mark.parametrize(
    ("target", "columns"),
    [("12." + "0" * 8999 + "1", {}), ("1e300", {}), ("NaN", {}), ("1", {"message": "m" * 9000}),
     ("1", {"alert_type": "indicator", "indicator": "i" * 9000})],
    ids=["digits", "magnitude", "NaN", "message", "indicator"],
)
def test_what_an_alert_says_is_bounded_where_it_is_written(tx, alert, target, columns):
    with pytest.raises(errors.CheckViolation), tx.transaction():
        alert("above", Decimal(target), **columns)


@pytest.mark.parametrize("column", ["price_alert_high", "price_alert_low"])
def test_so_is_a_watchlists_price(tx, add, user, asset, column):
    for value in ("12." + "0" * 8999 + "1", "NaN"):
        with pytest.raises(errors.CheckViolation), tx.transaction():
            add("watchlist_items", watchlist_id=add("watchlists", user_id=user, name="w"), asset_id=asset,
                **{column: Decimal(value)})


def test_alert_that_cannot_be_fired_stops_neither_the_feed_nor_other_alerts(tx, alert, quote, fired):
    """As if something past the bounds had got in, or somebody's own trigger failed."""
    keys = [alert("above", 100, message=text) for text in ("fine", "poison", "fine too")]
    tx.execute("""
        CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'not this one'; END$$;
        CREATE TRIGGER fail BEFORE INSERT ON notifications FOR EACH ROW WHEN (new.message LIKE 'poison%')
            EXECUTE FUNCTION pg_temp.fail()
    """)
    warned = []
    tx.add_notice_handler(lambda notice: warned.append(notice.message_detail))
    quote((0, 101))
    assert fired() == [keys[0], keys[2]]
    assert warned == [f"alert_id: {keys[1]}"]
    assert tx.execute("SELECT count(*) FROM quotes").fetchone() == (1,)
    tx.execute("DROP TRIGGER fail ON notifications")
    quote((1, 101))
    assert fired() == keys, "it stayed armed"


@pytest.mark.parametrize("condition", ["above", "cross"])
def test_alert_that_its_owner_keeps_locked_does_not_stop_the_feed(db, condition):
    with db.connect() as owner, db.connect() as feed:
        add = adder(owner)
        asset = add("assets")
        keys = [add("alerts", user_id=add("users"), asset_id=asset, condition=condition, target_value=100)
                for _ in range(2)]
        store = "INSERT INTO quotes (asset_id, ts, price) VALUES (%s, %s, 90), (%s, %s, 110)"
        with owner.transaction():
            owner.execute("UPDATE alerts SET message = 'mine' WHERE alert_id = %s", (keys[0],))
            feed.execute("SET statement_timeout = '10s'")
            feed.execute(store, (asset, NOON, asset, at(1)))
        feed.execute(store, (asset, at(2), asset, at(3)))
        assert feed.execute("SELECT alert_id FROM alerts WHERE is_triggered ORDER BY 1").fetchall() == [
            (key,) for key in keys
        ]


def test_notification_that_cannot_be_given_is_no_failure(tx):
    warned = []
    tx.add_notice_handler(lambda notice: warned.append(notice.severity))
    tx.execute("SELECT _tidemark.notify('tidemark_alert', jsonb_build_object('a', repeat('x', 9000)))")
    assert warned == ["WARNING"]
