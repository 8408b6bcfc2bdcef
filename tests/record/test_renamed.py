"""A table, a key or a column that is renamed keeps its record, under the names of today."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tidemark import backup


def clock(connection):
    return connection.execute("SELECT clock_timestamp()").fetchone()[0]


def as_of(connection, table, key, at):
    return connection.execute("SELECT row_as_of(%s, %s, %s)", (table, Jsonb(key), at)).fetchone()[0]


def history(connection, table, key):
    return [
        operation for (operation,) in connection.execute(
            "SELECT operation::text FROM row_history(%s, %s) ORDER BY audit_id", (table, Jsonb(key)))
    ]


def intact(connection):
    return connection.execute("SELECT * FROM verify_audit()").fetchall() == []


@pytest.fixture
def mine(tx):
    tx.execute("CREATE TABLE mine (k1 integer, k2 text, v numeric, note text, api_key text, PRIMARY KEY (k1, k2));"
               " SELECT attach_audit('mine', p_secrets => '{note}')")
    tx.execute("INSERT INTO mine VALUES (8, 'r', 8.8, 'MY-SECRET', 'MY-SECRET'), (8, 's', 1, NULL, NULL)")
    return tx


def test_renamed_key_is_followed(mine):
    before = clock(mine)
    mine.execute("ALTER TABLE mine RENAME COLUMN k2 TO kk")
    assert as_of(mine, "mine", {"k1": 8, "kk": "r"}, before)["v"] == 8.8, "also while nothing was written since"
    assert history(mine, "mine", {"k1": 8, "kk": "r"}) == ["insert"]
    mine.execute("UPDATE mine SET v = 9.9 WHERE kk = 'r'")
    between = clock(mine)
    mine.execute("UPDATE mine SET kk = 'q' WHERE kk = 'r'")
    mine.execute("ALTER TABLE mine RENAME COLUMN k1 TO k2")  # a name that another column had before
    mine.execute("UPDATE mine SET v = 7 WHERE kk = 'q'")
    mine.execute("DELETE FROM mine WHERE kk = 's'")
    assert mine.execute(
        "SELECT operation::text, row_key, new_key FROM audit_log WHERE table_name = 'mine' ORDER BY audit_id"
    ).fetchall()[2:] == [
        ("update", {"k1": 8, "kk": "r"}, None), ("update", {"k1": 8, "kk": "r"}, {"k1": 8, "kk": "q"}),
        ("update", {"k2": 8, "kk": "q"}, None), ("delete", {"k2": 8, "kk": "s"}, None),
    ]
    assert history(mine, "mine", {"k2": 8, "kk": "q"}) == ["insert", "update", "update", "update"]
    assert history(mine, "mine", {"k2": 8, "kk": "s"}) == ["insert", "delete"]
    secret = {"note": "[redacted]", "api_key": "[redacted]"}
    assert as_of(mine, "mine", {"k2": 8, "kk": "r"}, before) == {"k2": 8, "kk": "r", "v": 8.8, **secret}
    assert as_of(mine, "mine", {"k2": 8, "kk": "r"}, between) == {"k2": 8, "kk": "r", "v": 9.9, **secret}
    assert as_of(mine, "mine", {"k2": 8, "kk": "s"}, before)["v"] == 1
    with pytest.raises(psycopg.Error) as refused, mine.transaction():
        as_of(mine, "mine", {"k1": 8, "k2": "r"}, before)
    assert refused.value.sqlstate == "TM405"
    assert intact(mine)


def test_renamed_column_is_followed_and_one_that_takes_its_name_is_another(mine):
    before = clock(mine)
    mine.execute("UPDATE mine SET v = 9.9 WHERE k2 = 'r'")
    mine.execute("ALTER TABLE mine RENAME COLUMN v TO w")
    assert as_of(mine, "mine", {"k1": 8, "k2": "r"}, before)["w"] == 8.8
    mine.execute("ALTER TABLE mine ADD COLUMN v text DEFAULT 'new'")
    mine.execute("UPDATE mine SET w = 1, v = 'newer' WHERE k2 = 'r'")
    mine.execute("DELETE FROM mine WHERE k2 = 'r'")
    row = as_of(mine, "mine", {"k1": 8, "k2": "r"}, before)
    assert (row["w"], row["v"]) == (8.8, "new")
    mine.execute("ALTER TABLE mine DROP COLUMN w; ALTER TABLE mine ADD COLUMN w boolean")
    mine.execute("INSERT INTO mine (k1, k2) VALUES (1, 'x')")
    assert "w" not in as_of(mine, "mine", {"k1": 8, "k2": "r"}, before), "that one is gone"


def test_renamed_secret_stays_one(mine):
    mine.execute("ALTER TABLE mine RENAME COLUMN api_key TO plain; ALTER TABLE mine RENAME COLUMN note TO remark")
    mine.execute("UPDATE mine SET plain = 'MY-SECRET 2', remark = 'MY-SECRET 2', v = 3")
    mine.execute("SELECT attach_audit('mine')")
    mine.execute("UPDATE mine SET plain = 'MY-SECRET 3', remark = 'MY-SECRET 3', v = 4")
    at = clock(mine)
    mine.execute("DELETE FROM mine")
    mine.execute("INSERT INTO mine VALUES (8, 'r', 5, 'MY-SECRET', 'MY-SECRET'); TRUNCATE mine")
    assert as_of(mine, "mine", {"k1": 8, "k2": "r"}, at)["remark"] == "[redacted]"
    assert "MY-SECRET" not in str(mine.execute("SELECT * FROM audit_log WHERE table_name = 'mine'").fetchall())


@pytest.mark.parametrize("again", [False, True], ids=["as it is", "attached again"])
def test_renamed_table_is_followed(mine, again):
    before = clock(mine)
    mine.execute("ALTER TABLE mine RENAME TO mine2; CREATE SCHEMA other; ALTER TABLE mine2 SET SCHEMA other")
    if again:
        mine.execute("SELECT attach_audit('other.mine2', p_secrets => '{note}')")
    mine.execute("UPDATE other.mine2 SET v = 9.9 WHERE k2 = 'r'")
    assert as_of(mine, "other.mine2", {"k1": 8, "k2": "r"}, before)["v"] == 8.8
    assert history(mine, "other.mine2", {"k1": 8, "k2": "r"}) == ["insert", "update"]
    # Another table of the name it had is another table.
    mine.execute("CREATE TABLE mine (k1 integer, k2 text, PRIMARY KEY (k1, k2)); SELECT attach_audit('mine')")
    mine.execute("INSERT INTO mine VALUES (8, 'r')")
    assert history(mine, "mine", {"k1": 8, "k2": "r"}) == ["insert"]
    assert history(mine, "other.mine2", {"k1": 8, "k2": "r"}) == ["insert", "update"]
    assert as_of(mine, "mine", {"k1": 8, "k2": "r"}, before) is None
    mine.execute("SELECT detach_audit('other.mine2'); ALTER TABLE other.mine2 RENAME TO mine3;"
                 " SELECT attach_audit('other.mine3', p_secrets => '{note}')")
    assert "insert" in history(mine, "other.mine3", {"k1": 8, "k2": "r"}), "it is known again"
    assert intact(mine)


def test_key_that_is_gone_is_said_and_nothing_is_recorded_under_a_part_of_it(mine):
    mine.execute("ALTER TABLE mine DROP COLUMN k2")
    with pytest.raises(psycopg.Error) as refused, mine.transaction():
        mine.execute("UPDATE mine SET v = 5")
    assert refused.value.sqlstate == "TM408"
    mine.execute("ALTER TABLE mine ADD COLUMN id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
                 " SELECT attach_audit('mine')")
    mine.execute("UPDATE mine SET v = 5 WHERE id = 1")
    assert history(mine, "mine", {"id": 1}) == ["update"]


@pytest.fixture
def ticks(tx):
    tx.execute("CREATE TABLE my_ticks (at timestamptz, venue text, price float8, PRIMARY KEY (venue, at));"
               " SELECT create_hypertable('my_ticks', by_range('at')), attach_audit('my_ticks')")
    tx.execute("INSERT INTO my_ticks VALUES ('2024-01-01+00', 'X', 1), ('2024-01-02+00', 'X', 2),"
               " ('2024-02-02+00', 'Y', 3)")
    return tx


def test_renamed_hypertable_gives_back_what_was_deleted_before_and_after(ticks):
    ticks.execute("DELETE FROM my_ticks WHERE at = '2024-01-01+00'")
    ticks.execute("ALTER TABLE my_ticks RENAME COLUMN venue TO market;"
                  " ALTER TABLE my_ticks RENAME COLUMN price TO last;"
                  " ALTER TABLE my_ticks RENAME COLUMN at TO time; ALTER TABLE my_ticks RENAME TO trades_of_mine;"
                  " ALTER TABLE trades_of_mine ADD COLUMN price float8 DEFAULT -1")
    ticks.execute("DELETE FROM trades_of_mine WHERE market = 'X'")
    ticks.execute("ALTER TABLE trades_of_mine RENAME COLUMN last TO last_price")
    assert ticks.execute("SELECT restore_archived('trades_of_mine', '{\"market\": \"X\"}')").fetchone() == (2,)
    assert ticks.execute(
        "SELECT extract(day FROM time AT TIME ZONE 'UTC'), last_price, price FROM trades_of_mine ORDER BY time"
    ).fetchall() == [(1, 1, -1), (2, 2, -1), (2, 3, -1)]
    assert intact(ticks)
    ticks.execute("UPDATE trades_of_mine SET last_price = 5 WHERE market = 'Y'")
    assert history(ticks, "trades_of_mine", {"market": "Y", "time": "2024-02-02+00"}) == ["update"]
    assert as_of(ticks, "trades_of_mine", {"market": "X", "time": "2024-01-01+00"}, clock(ticks))["last_price"] == 1


def test_row_written_to_a_chunk_after_a_renaming_is_recorded_under_a_whole_key(ticks):
    chunk = ticks.execute("SELECT c::text FROM show_chunks('my_ticks') AS c LIMIT 1").fetchone()[0]
    ticks.execute("ALTER TABLE my_ticks RENAME COLUMN venue TO market")
    ticks.execute(f"UPDATE {chunk} SET price = 9")
    assert {tuple(key) for (key,) in ticks.execute("SELECT row_key FROM audit_log WHERE table_name = 'my_ticks'")} == {
        ("at", "market")
    }


def test_record_of_a_renamed_hypertable_is_still_compared_with_the_archive(ticks):
    ticks.execute("ALTER TABLE my_ticks RENAME TO ticks2; DELETE FROM ticks2 WHERE venue = 'X'")
    assert intact(ticks)
    ticks.execute("SET LOCAL tidemark.record_maintenance = 'on'; ALTER TABLE timeseries_archive DISABLE TRIGGER USER;"
                  " DELETE FROM timeseries_archive")
    assert {problem for problem, *_ in ticks.execute("SELECT * FROM verify_audit()")} == {"archive"}


def test_names_survive_a_dump_in_which_columns_have_other_numbers(db, empty, tmp_path):
    with db.connect() as connection:
        connection.execute("CREATE TABLE mine (gone integer, k integer PRIMARY KEY, v numeric, w numeric);"
                           " SELECT attach_audit('mine')")
        connection.execute("INSERT INTO mine VALUES (0, 1, 8.8, 1)")
        before = clock(connection)
        connection.execute("ALTER TABLE mine RENAME COLUMN v TO x; UPDATE mine SET w = 2")
        connection.execute("ALTER TABLE mine RENAME COLUMN k TO kk; ALTER TABLE mine DROP COLUMN gone")
        connection.execute("UPDATE mine SET x = 9.9")
        connection.execute("ALTER TABLE mine RENAME COLUMN w TO y")
        expected = {"kk": 1, "x": 8.8, "y": 1, "gone": 0}
        assert as_of(connection, "mine", {"kk": 1}, before) | {"gone": 0} == expected
    backup.backup(db.url, tmp_path / "b")
    backup.restore(empty.url, tmp_path / "b")
    with empty.connect() as connection:
        assert as_of(connection, "mine", {"kk": 1}, before) | {"gone": 0} == expected
        connection.execute("ALTER TABLE mine RENAME COLUMN x TO v; UPDATE mine SET v = 7")
        assert history(connection, "mine", {"kk": 1}) == ["insert", "update", "update", "update"]
        assert as_of(connection, "mine", {"kk": 1}, before) | {"gone": 0} == {"kk": 1, "v": 8.8, "y": 1, "gone": 0}
        assert intact(connection)
