"""What became of predictions, forecasts and signals."""

from __future__ import annotations

import datetime as dt

import pytest

NOW = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
START = NOW - 100 * DAY


@pytest.fixture
def asset(add):
    return add("assets", symbol="ACME")


@pytest.fixture
def bar(add, asset):
    return lambda ts, close, interval="1h": add("candles", asset_id=asset, interval=interval, ts=ts, close=close)


@pytest.fixture
def prediction(add, asset):
    return lambda **columns: add("predictions", **{
        "asset_id": asset, "model_type": "lstm", "current_price": 100, "predicted_price": 110, "direction": "buy",
        "confidence": 0.5, "interval": "1h", "horizon_hours": 1, "prediction_for": START, **columns,
    })


@pytest.fixture
def outcome(tx):
    return lambda key: tx.execute(
        "SELECT actual_price, accuracy_score, evaluated_at IS NOT NULL FROM predictions WHERE prediction_id = %s",
        (key,),
    ).fetchone()


def evaluate(tx, what="predictions", *arguments):
    return tx.execute(f"SELECT evaluate_{what}({', '.join(['%s'] * len(arguments))})", arguments).fetchone()[0]


@pytest.mark.parametrize(("price", "accuracy"), [(110, 1.0), (100, 0.9), (88, 0.75), (55, 0.0), (20, 0.0), (0, None)])
def test_prediction_gets_the_first_bar_at_or_after_its_instant_and_its_accuracy(
    tx, prediction, bar, outcome, price, accuracy,
):
    key = prediction()
    bar(START - HOUR, 1)
    bar(START + HOUR, 2)
    bar(START, price)
    bar(START, 3, "5m")
    assert evaluate(tx) == 1
    assert outcome(key) == (price, accuracy if accuracy is None else pytest.approx(accuracy), True)
    tx.execute("UPDATE candles SET close = 7")
    assert evaluate(tx) == 0
    assert outcome(key)[0] == price


def test_prediction_between_bars_takes_the_next_one(tx, prediction, bar, outcome):
    key = prediction(prediction_for=START + dt.timedelta(minutes=1))
    bar(START, 1)
    bar(START + 2 * HOUR, None)
    bar(START + 3 * HOUR, 105)
    assert evaluate(tx) == 1
    assert outcome(key)[0] == 105


def test_prediction_waits_for_its_instant_and_for_the_bar_to_end(tx, prediction, bar, outcome):
    now = tx.execute("SELECT date_trunc('hour', now())").fetchone()[0]  # the suite may run over the hour
    early, soon = prediction(prediction_for=now + 5 * HOUR), prediction(prediction_for=now)
    bar(now + 5 * HOUR, 105)
    bar(now, 106)
    assert evaluate(tx) == 0, "the bar that began this hour can still change"
    assert outcome(early) == outcome(soon) == (None, None, False)


def test_prediction_does_not_take_a_bar_that_came_much_later(tx, prediction, bar, outcome):
    key, monthly = prediction(), prediction(interval="1M")
    bar(START + 8 * DAY, 105)
    bar(START + 20 * DAY, 106, "1M")
    assert evaluate(tx) == 1
    assert outcome(key) == (None, None, False)
    assert outcome(monthly)[0] == 106, "the next month's bar begins within a month"
    assert evaluate(tx, "predictions", 8 * DAY) == 1
    assert outcome(key)[0] == 105


@pytest.fixture
def forecast(add):
    return lambda source, predicted, **columns: add("forecasts", **{
        "source_id": source, "made_at": START - DAY, "target_ts": START, "predicted": predicted, **columns
    })


def test_forecast_gets_the_first_value_and_its_errors(tx, add, forecast):
    scalar = add("sources", data_type="scalar")
    bars = add("sources", data_type="ohlcv", interval="1d")
    for ts, value in [(START - HOUR, 1), (START + HOUR, 80), (START + 2 * HOUR, 2)]:
        add("timeseries_data", source_id=scalar, timestamp=ts, value=value)
        add("timeseries_data", source_id=bars, timestamp=ts, close=value * 2, value=3)
    keys = [forecast(scalar, 100), forecast(bars, 100), forecast(scalar, 5, target_ts=START + 3 * HOUR)]
    assert evaluate(tx, "forecasts") == 2
    assert evaluate(tx, "forecasts") == 0
    assert tx.execute(
        "SELECT actual, absolute_error, percentage_error FROM forecasts WHERE forecast_id = ANY(%s)"
        " ORDER BY forecast_id", (keys,)
    ).fetchall() == [(80, 20, 25), (160, 60, 37.5), (None, None, None)]


def test_forecast_of_nought_has_no_percentage_error(tx, add, forecast):
    source = add("sources", data_type="scalar")
    add("timeseries_data", source_id=source, timestamp=START, value=0)
    forecast(source, 2)
    assert evaluate(tx, "forecasts") == 1
    assert tx.execute("SELECT actual, absolute_error, percentage_error FROM forecasts").fetchone() == (0, 2, None)


def test_forecast_waits_for_the_bar_to_end(tx, add, forecast):
    bars, scalar = add("sources", data_type="ohlcv", interval="1d"), add("sources", data_type="scalar", interval="1d")
    for source in (bars, scalar):
        add("timeseries_data", source_id=source, timestamp=NOW - HOUR, value=4, close=4)
        forecast(source, 5, target_ts=NOW - HOUR)
    assert evaluate(tx, "forecasts") == 1
    assert tx.execute("SELECT source_id FROM forecasts WHERE actual = 4").fetchall() == [(scalar,)]


def test_only_those_who_may_evaluate(tx):
    tx.execute("CREATE ROLE nobody_in_particular")
    assert tx.execute(
        "SELECT p.proname FROM pg_proc AS p WHERE p.proname IN ('evaluate_predictions', 'evaluate_forecasts',"
        " 'expire_signals') AND p.prosecdef AND has_function_privilege('nobody_in_particular', p.oid, 'EXECUTE')"
    ).fetchall() == []


def test_leaderboard_ranks_models_by_how_near_they_came(tx, add, prediction, forecast, bar):
    good = add("models", name="good", model_type="tft", version="2", stage="production")
    poor = add("models", name="poor", model_type="xgboost")
    source = add("sources", data_type="scalar")
    bar(START, 120)
    add("timeseries_data", source_id=source, timestamp=START, value=100)
    prediction(model_id=good, predicted_price=126)
    prediction(model_id=good, predicted_price=114, model_type="other", model_version="whatever")
    prediction(model_id=good, prediction_for=NOW + DAY)
    prediction(model_version="0.1", predicted_price=96)
    prediction(model_version="0.1", predicted_price=96)
    forecast(source, 140, model_id=poor, lower=90, upper=150)
    forecast(source, 80, model_id=poor, lower=70, upper=90, made_at=START - 2 * DAY)
    evaluate(tx)
    evaluate(tx, "forecasts")
    found = tx.execute(
        "SELECT rank, model_id, name, version, model_type::text, stage, predictions, forecasts, evaluated,"
        " round(mean_accuracy::numeric, 4)::float8, direction_rate, mean_percentage_error, interval_coverage"
        " FROM model_leaderboard ORDER BY rank"
    ).fetchall()
    assert found == [
        (1, good, "good", "2", "tft", "production", 3, 0, 2, 0.95, 1.0, None, None),
        (2, None, None, "0.1", "lstm", None, 2, 0, 2, 0.8, 0.0, None, None),
        (3, poor, "poor", "1", "xgboost", "development", 0, 2, 2, 0.7, None, 30.0, 0.5),
    ]


@pytest.fixture
def signal(add, asset):
    return lambda **columns: add("signals", **{
        "asset_id": asset, "ts": START, "signal_type": "buy", "strategy": "trend", "interval": "1h", **columns
    })


def test_signals_are_measured_by_what_followed(tx, add, signal, bar):
    for hour in range(25):
        bar(START + hour * HOUR, 100 + hour)
    bar(START - 3 * DAY, 100, "1d")
    bar(START, 50, "1d")
    signal()
    signal(ts=START + dt.timedelta(minutes=200))
    signal(ts=START + 22 * HOUR)
    signal(signal_type="sell", strategy=None, strategy_id=add("strategies", name="house"), interval=None,
           ts=START - HOUR)
    signal(signal_type="hold", strategy="unheard", asset_id=add("assets"))
    rows = {row[:2]: row[2:] for row in tx.execute(
        "SELECT strategy, signal_type::text, signals, measured_1, measured_5, measured_20, return_1, return_5,"
        " return_20 FROM signal_performance"
    )}
    assert rows == {
        ("trend", "buy"): (3, 3, 2, 2, pytest.approx((0.01 + 1 / 103 + 1 / 122) / 3),
                           pytest.approx((0.05 + 5 / 103) / 2), pytest.approx((0.2 + 20 / 103) / 2)),
        ("house", "sell"): (1, 1, 0, 0, pytest.approx(-0.5), None, None),
        ("unheard", "hold"): (1, 0, 0, 0, None, None, None),
    }


def test_latest_signal_is_the_newest_in_force(tx, add, asset, signal):
    other = add("assets", symbol="OTHER")
    signal()
    newest = signal(ts=START + HOUR, expires_at=NOW + DAY)
    signal(ts=START + 2 * HOUR, expires_at=NOW - HOUR)
    signal(ts=START + 3 * HOUR, is_active=False)
    alone = signal(asset_id=other, ts=START - DAY)
    add("assets", symbol="SILENT")
    assert set(tx.execute("SELECT symbol, signal_id FROM latest_signals")) == {("ACME", newest), ("OTHER", alone)}


def test_signals_expire(tx, signal):
    keys = [signal(expires_at=NOW - HOUR), signal(expires_at=NOW + DAY), signal(),
            signal(expires_at=NOW - HOUR, is_active=False)]
    assert tx.execute("SELECT expire_signals()").fetchone() == (1,)
    assert tx.execute("SELECT expire_signals()").fetchone() == (0,)
    assert tx.execute(
        "SELECT signal_id FROM signals WHERE is_active ORDER BY signal_id"
    ).fetchall() == [(keys[1],), (keys[2],)]


@pytest.mark.parametrize(("figure", "accuracy"), [
    ("NaN", None), ("Infinity", 0), ("-Infinity", 0), ("1e300", 0), ("12." + "0" * 8999 + "1", 0.12),
])
def test_one_odd_prediction_keeps_no_other_from_being_evaluated(tx, prediction, bar, outcome, figure, accuracy):
    odd, fine = prediction(predicted_price=figure), prediction()
    bar(START, 100)
    assert evaluate(tx) == 2
    assert outcome(odd)[1] == (accuracy if accuracy is None else pytest.approx(accuracy))
    assert outcome(fine)[1] == pytest.approx(0.9)
    tx.execute("SELECT * FROM model_leaderboard").fetchall()


@pytest.mark.parametrize("price", [1e300, 1e-300, 1e31, -1e300, float("nan")])
def test_nor_does_one_odd_price(tx, add, prediction, bar, outcome, price):
    odd, fine = prediction(), prediction(prediction_for=START + 8 * DAY)
    bar(START, price)
    bar(START + 8 * DAY, 100)
    assert evaluate(tx) >= 1
    assert outcome(odd)[1] is None
    assert outcome(fine)[1] == pytest.approx(0.9)


def test_prediction_that_cannot_be_stored_is_warned_of_and_left(tx, prediction, bar, outcome):
    keys = [prediction() for _ in range(3)]
    bar(START, 100)
    tx.execute("CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$")
    tx.execute(f"CREATE TRIGGER fail BEFORE UPDATE ON predictions FOR EACH ROW WHEN (OLD.prediction_id = '{keys[1]}')"
               " EXECUTE FUNCTION pg_temp.fail()")
    warned = []
    tx.add_notice_handler(lambda notice: warned.append(notice.message_primary))
    assert evaluate(tx) == 2
    assert [outcome(key)[2] for key in keys] == [True, False, True]
    assert len(warned) == 1 and str(keys[1]) in warned[0]


@pytest.mark.parametrize(("predicted", "value", "errors"), [
    (float("nan"), 1.0, (None, None)), (float("inf"), 1.0, (None, None)), (1.7e308, -1.7e308, (None, None)),
    (1e299, 1e-300, (1e299, 1e100)), (1e-320, 1e-310, (0, pytest.approx(100))), (2.0, 1.0, (1, 100)),
])
def test_one_odd_forecast_keeps_no_other_from_being_evaluated(tx, add, predicted, value, errors):
    odd, fine = add("sources", data_type="scalar"), add("sources", data_type="scalar")
    for source, figure in ((odd, predicted), (fine, 110)):
        add("forecasts", source_id=source, made_at=START - DAY, target_ts=START, predicted=figure)
    add("timeseries_data", source_id=odd, timestamp=START, value=value)
    add("timeseries_data", source_id=fine, timestamp=START, value=100)
    assert evaluate(tx, "forecasts") == 2
    assert tx.execute("SELECT absolute_error, percentage_error FROM forecasts ORDER BY forecast_id").fetchall() == [
        errors, (10, pytest.approx(10))
    ]
    tx.execute("SELECT * FROM model_leaderboard").fetchall()


@pytest.mark.parametrize("odd", [1e300, 1e-300, float("nan"), float("inf")])
def test_one_odd_price_leaves_signal_performance_readable(tx, add, asset, bar, odd):
    for day, close in enumerate([odd, 1e200, odd, 5.0]):
        bar(START + day * DAY, close, "1d")
        add("signals", asset_id=asset, ts=START + day * DAY, signal_type="buy", strategy="s")
    assert tx.execute("SELECT signals, measured_1 FROM signal_performance").fetchall() == [(4, 0)]
