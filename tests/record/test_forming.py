"""A bar is no history until it has closed: what it was while it formed is not recorded, what it became is."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from conftest import adder

HOUR = timedelta(hours=1)
UPSERT = ("INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume)"
          " VALUES (%s, %s, %s, %s, %s, %s, %s, 1) ON CONFLICT (asset_id, interval, ts) DO UPDATE SET"
          " high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close, volume = candles.volume + 1")


def tick(connection, asset, at, price, interval="1h"):
    connection.execute(UPSERT, [asset, interval, at, price, price, price, price])


def entries(connection, table="candles"):
    return connection.execute(
        "SELECT operation::text, old_values ->> 'close', new_values ->> 'close' FROM audit_log WHERE table_name = %s"
        " ORDER BY audit_id", [table]).fetchall()


def as_of(connection, asset, at, when, interval="1h"):
    key = "jsonb_build_object('asset_id', %s::uuid, 'interval', %s::text, 'ts', %s::timestamptz)"
    row = connection.execute(f"SELECT row_as_of('candles', {key}, %s)", [asset, interval, at, when]).fetchone()[0]
    return row and row["close"]


def lag(connection, interval, value):
    connection.execute("SELECT set_config('tidemark.reason', 'a test', false)")
    connection.execute("UPDATE quality_profiles SET allowed_lag = %s WHERE interval = %s", [value, interval])
    connection.execute("RESET tidemark.reason")


def test_bar_is_on_record_from_its_close_on(db):
    """Ticks, the close, a correction and another: the record has the two, and gives back each state since the close."""
    with db.connect() as connection:
        lag(connection, "1h", "0")
        asset, at = adder(connection)("assets"), datetime.now(UTC) - HOUR + timedelta(seconds=2)
        for price in (10, 11, 12, 13):
            tick(connection, asset, at, price)
        while_it_formed = datetime.now(UTC)
        assert entries(connection) == []
        assert as_of(connection, asset, at, datetime.now(UTC) + HOUR) == 13
        time.sleep(max(0, (at + HOUR - datetime.now(UTC)).total_seconds()) + 0.05)
        states = []
        for price in (None, 14, 15):
            if price:
                tick(connection, asset, at, price)
            states.append((datetime.now(UTC), price or 13))
            time.sleep(0.01)
        assert entries(connection) == [("update", "13", "14"), ("update", "14", "15")]
        for when, price in states:
            assert as_of(connection, asset, at, when) == price
        assert as_of(connection, asset, at, while_it_formed) is None, "and not what it became afterwards"


def test_lag_of_the_profile_counts(tx, add):
    """The last word on a bar comes when it has ended."""
    asset, at = add("assets"), datetime.now(UTC) - HOUR - timedelta(minutes=10)
    tick(tx, asset, at, 10)
    tick(tx, asset, at, 11)
    assert entries(tx) == [], "as long as it is not late, by default as long as a bar"
    lag(tx, "1h", "5 minutes")
    tick(tx, asset, at, 12)
    assert entries(tx) == [("update", "11", "12")]


@pytest.mark.parametrize("setting", ["SET LOCAL tidemark.reason = 'a slip'",
                                     "SET LOCAL tidemark.ingest_mode = 'correction'"])
def test_correction_of_a_forming_bar_is_one_and_so_is_what_follows(tx, add, setting):
    asset, at = add("assets"), datetime.now(UTC) - HOUR / 2
    tick(tx, asset, at, 10)
    tx.execute("SAVEPOINT s")
    tx.execute(setting)
    tick(tx, asset, at, 11)
    tx.execute("RESET tidemark.reason; RESET tidemark.ingest_mode")
    tick(tx, asset, at, 12)
    assert entries(tx) == [("update", "10", "11"), ("update", "11", "12")]


def test_what_follows_a_correction_is_recorded_in_any_zone(tx, add):
    """A row on record is found again by its key, which says an instant as no session's zone does."""
    asset, at = add("assets"), datetime.now(UTC) - HOUR / 2
    tick(tx, asset, at, 10)
    for zone, price in (("UTC", 11), ("Asia/Tokyo", 12), ("America/New_York", 13)):
        tx.execute("SELECT set_config('timezone', %s, true), set_config('tidemark.reason', %s, true)",
                   [zone, "a slip" if price == 11 else ""])
        tick(tx, asset, at, price)
    assert entries(tx) == [("update", "10", "11"), ("update", "11", "12"), ("update", "12", "13")]


def test_nobody_hides_a_change_behind_a_bar_that_forms(tx, add):
    """A closed row that is moved to where a bar forms, changed there and moved back is what it was in the record."""
    asset, now = add("assets"), datetime.now(UTC)
    closed, forms = now - 30 * HOUR, now - HOUR / 2
    tick(tx, asset, closed, 10)
    before = tx.execute("SELECT clock_timestamp()").fetchone()[0]
    tx.execute("UPDATE candles SET ingested_at = ts")
    move = "UPDATE candles SET ts = %s WHERE asset_id = %s"
    tx.execute(move, [forms, asset])
    tick(tx, asset, forms, 99)
    tx.execute(move, [closed, asset])
    assert ("update", "10", "99") in entries(tx)
    assert as_of(tx, asset, closed, before) == 10


def test_deleted_row_that_formed_is_in_the_archive(tx, add):
    asset, at = add("assets"), datetime.now(UTC) - HOUR / 2
    tick(tx, asset, at, 10)
    tick(tx, asset, at, 11)
    tx.execute("DELETE FROM candles")
    assert entries(tx) == [("delete", "11", None)]
    assert tx.execute("SELECT restore_archived('candles')").fetchone() == (1,)
    assert tx.execute("SELECT close FROM candles").fetchone() == (11,)


def test_what_has_no_bars_or_lies_in_the_future_is_recorded_at_once(tx, add):
    asset = add("assets")
    tick(tx, asset, datetime.now(UTC) + HOUR, 10)
    tick(tx, asset, datetime.now(UTC), 10)
    tx.execute("UPDATE candles SET close = 11 WHERE ts > now() + interval '30 minutes'")
    assert entries(tx) == [("update", "10", "11")]
    tx.execute("INSERT INTO quotes (asset_id, ts, price) VALUES (%s, now(), 10)", [asset])
    tx.execute("UPDATE quotes SET price = 11")
    assert len(entries(tx, "quotes")) == 1


@pytest.mark.parametrize(("forming", "recorded"), [
    ("", 2), (", p_forming => '10 minutes'", 1), (", p_forming => '0'", 2), (", p_forming => '2 days'", 0),
])
def test_table_says_how_long_its_rows_form(tx, forming, recorded):
    tx.execute("CREATE TABLE mine (at timestamptz PRIMARY KEY, close integer);"
               " SELECT create_hypertable('mine', by_range('at'));"
               " INSERT INTO mine VALUES (now() - interval '5 minutes', 1), (now() - interval '1 day', 1);"
               f" SELECT attach_audit('mine'{forming}); UPDATE mine SET close = 2")
    assert entries(tx, "mine") == [("update", "1", "2")] * recorded


def test_time_column_that_is_renamed_still_tells(tx):
    tx.execute("CREATE TABLE mine (at timestamptz PRIMARY KEY, close integer);"
               " SELECT create_hypertable('mine', by_range('at')); SELECT attach_audit('mine', p_forming => '1 hour');"
               " INSERT INTO mine VALUES (now(), 1); ALTER TABLE mine RENAME at TO moment; UPDATE mine SET close = 2")
    assert entries(tx, "mine") == []
    tx.execute("UPDATE mine SET moment = moment - interval '2 hours'")
    assert len(entries(tx, "mine")) == 1


@pytest.mark.parametrize(("table", "forming"), [("assets", "1 hour"), ("candles", "-1 hour")])
def test_what_does_not_form_is_refused(tx, table, forming):
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        tx.execute("SELECT attach_audit(%s, p_forming => %s)", [table, forming])
    assert refused.value.sqlstate == "TM402"
    assert refused.value.diag.message_hint == "Leave p_forming out."
