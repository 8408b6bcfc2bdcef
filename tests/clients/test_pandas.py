"""pandas: frames out of the database and into it, with their instants, gaps and scores."""

from __future__ import annotations

import pandas as pd
import pytest
import sqlalchemy
from conftest import adder

from clients.conftest import sqlalchemy_url

# Across the hour that Berlin has twice and the one that it has not.
HOURS = pd.date_range("2024-03-30 22:00", periods=5, freq="h", tz="UTC").append(
    pd.date_range("2024-10-26 22:00", periods=5, freq="h", tz="UTC"))


@pytest.fixture
def source(db):
    with db.connect() as connection:
        return adder(connection)("sources", name="frame", data_type="ohlcv")


@pytest.fixture
def bars(source):
    close = [100.0 + i for i in range(len(HOURS))]
    frame = pd.DataFrame({"source_id": source, "timestamp": HOURS, "open": close, "high": close, "low": close,
                          "close": close, "volume": 1.5})
    frame.loc[3, ["open", "volume"]] = float("nan")
    return frame


def read(engine: sqlalchemy.Engine) -> pd.DataFrame:
    return pd.read_sql("SELECT source_id, timestamp, open, high, low, close, volume FROM timeseries_data ORDER BY 2",
                       engine)


def test_frame_comes_back_as_it_went_in(engine, bars):
    bars.to_sql("timeseries_data", engine, if_exists="append", index=False)
    pd.testing.assert_frame_equal(
        read(engine).astype({"timestamp": bars.timestamp.dtype}), bars, check_dtype=False, check_exact=True)


@pytest.mark.parametrize("method", [None, "multi"])
def test_nan_is_null_and_null_is_nan(engine, bars, method):
    bars.to_sql("timeseries_data", engine, if_exists="append", index=False, method=method)
    with engine.connect() as connection:
        row = connection.execute(sqlalchemy.text(
            "SELECT timestamp, open IS NULL, volume IS NULL, quality_score FROM timeseries_data"
            " WHERE open IS NULL OR volume IS NULL OR open = 'NaN' OR volume = 'NaN'")).all()
    assert row == [(HOURS[3].to_pydatetime(), True, True, 70)]
    frame = read(engine)
    assert frame.open.dtype == float
    assert frame.open.isna().tolist() == [i == 3 for i in range(10)]


def test_appended_rows_are_scored(engine, bars):
    bars.to_sql("timeseries_data", engine, if_exists="append", index=False)
    scores = pd.read_sql("SELECT timestamp, quality_score FROM timeseries_data", engine, index_col="timestamp")
    assert scores.quality_score.sort_index().tolist() == [100, 100, 100, 70] + [100] * 6


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_instants_are_the_same_whatever_the_zone_of_frame_and_session(db, bars, zone):
    engine = sqlalchemy.create_engine(sqlalchemy_url(db), connect_args={"options": f"-c timezone={zone}"})
    local = bars.assign(timestamp=bars.timestamp.dt.tz_convert("Europe/Berlin"))
    local.to_sql("timeseries_data", engine, if_exists="append", index=False)
    frame = pd.read_sql("SELECT timestamp FROM timeseries_data ORDER BY 1", engine,
                        parse_dates={"timestamp": {"utc": True}})
    assert isinstance(frame.timestamp.dtype, pd.DatetimeTZDtype)
    assert frame.timestamp.tolist() == HOURS.tolist()
    engine.dispose()


def refused(frame: pd.DataFrame, engine: sqlalchemy.Engine) -> sqlalchemy.exc.IntegrityError:
    """The server's refusal; pandas 3 wraps it into an error of its own."""
    with pytest.raises((pd.errors.DatabaseError, sqlalchemy.exc.IntegrityError)) as caught:
        frame.to_sql("timeseries_data", engine, if_exists="append", index=False)
    error = caught.value
    return error if isinstance(error, sqlalchemy.exc.IntegrityError) else error.__cause__


def test_rows_that_are_there_are_refused_as_a_whole(engine, bars):
    bars.head(4).to_sql("timeseries_data", engine, if_exists="append", index=False)
    assert refused(bars, engine).orig.sqlstate == "23505"
    assert len(read(engine)) == 4


def test_row_of_an_unknown_source_is_refused(engine, bars):
    error = refused(bars.assign(source_id=-1), engine)
    assert error.orig.diag.constraint_name == "timeseries_data_source_id_fkey"


def test_aggregate_is_what_pandas_makes_of_the_same_rows(engine, bars):
    bars.to_sql("timeseries_data", engine, if_exists="append", index=False)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sqlalchemy.text("CALL refresh_aggregates()"))
    days = pd.read_sql("SELECT day, open, high, low, close, volume, samples FROM daily_ohlcv", engine, index_col="day")
    expected = bars.set_index("timestamp").resample("D").agg(
        open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last"),
        volume=("volume", "sum"), samples=("close", "count")).query("samples > 0")
    pd.testing.assert_frame_equal(days.sort_index(), expected, check_dtype=False, check_names=False,
                                  check_index_type=False, check_freq=False)


def test_parameters_and_chunks(engine, source, bars):
    bars.to_sql("timeseries_data", engine, if_exists="append", index=False)
    parts = list(pd.read_sql(
        sqlalchemy.text("SELECT close FROM timeseries_data WHERE source_id = :source AND timestamp >= :since ORDER BY"
                        " timestamp"),
        engine, params={"source": source, "since": HOURS[2].to_pydatetime()}, chunksize=3,
    ))
    assert [len(part) for part in parts] == [3, 3, 2]
    assert pd.concat(parts).close.tolist() == bars.close.tolist()[2:]
