"""Rules: refused when they are broken, in force at once, and never in the way of a row."""

from __future__ import annotations

import threading
from datetime import timedelta

import psycopg
import pytest
from conftest import adder
from psycopg.types.json import Jsonb
from quality_support import MINUTE, START, configure, copy, insert, penalties, scores
from test_quality_score import WEEK, bar, calendar


def rule(tx, rule_type, name="made for a test", **parameters):
    return configure(
        tx, "validation_rules", name=name, applies_to="timeseries_data", rule_type=rule_type, parameters=parameters
    )


@pytest.mark.parametrize(
    ("rule_type", "parameters", "code"),
    [
        ("range", {}, "TM206"),
        ("range", {"column": "volume"}, "TM206"),
        ("range", {"min": 0}, "TM206"),
        ("range", {"columns": [], "min": 0}, "TM206"),
        ("range", {"column": "nothing", "min": 0}, "TM206"),
        ("range", {"column": "metadata", "min": 0}, "TM206"),
        ("range", {"column": "volume", "min": "many"}, "TM206"),
        ("not_null", {}, "TM206"),
        ("ohlc_consistent", {"open": "opening"}, "TM206"),
        ("not_future", {"tolerance": "soon"}, "TM206"),
        ("aligned", {"offset": "a bit"}, "TM206"),
        ("expression", {}, "TM206"),
        ("expression", {"expression": "close >"}, "TM207"),
        ("expression", {"expression": "nothing > 0"}, "TM207"),
        ("expression", {"expression": "close + 1"}, "TM207"),
        ("expression", {"expression": "close > 'a'"}, "TM207"),
        ("expression", {"expression": "v_rows > 0"}, "TM207"),  # no way to the variables of the engine
        ("expression", {"expression": "p.market IS NULL"}, "TM207"),
        ("expression", {"expression": "timestamp < now()"}, "TM208"),
        ("expression", {"expression": "random() < close"}, "TM208"),
        ("expression", {"expression": "timestamp::date = '2024-01-01'"}, "TM208"),  # depends on the session's zone
        ("expression", {"expression": "close > (SELECT 1)"}, "TM208"),
        ("expression", {"expression": "max(close) > 1"}, "TM208"),
        ("expression", {"expression": "lag(close) OVER () > 1"}, "TM208"),
        ("expression", {"expression": "public.time_bucket('1 day', timestamp) = timestamp"}, "TM208"),
        ("expression", {"expression": "true); DROP TABLE anomalies; --"}, "TM208"),
        ("expression", {"expression": "true) OR (true /* "}, "TM208"),
        ("expression", {"expression": "true)), ((true"}, "TM207"),
    ],
)
def test_broken_rule_is_refused(tx, rule_type, parameters, code):
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        rule(tx, rule_type, **parameters)
    assert refused.value.sqlstate == code


def test_rule_for_an_unknown_table_is_refused(tx):
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        configure(tx, "validation_rules", applies_to="nothing", rule_type="not_null", parameters={"column": "x"})
    assert refused.value.sqlstate == "TM205"


@pytest.mark.parametrize(
    ("rule_type", "parameters", "values", "violating"),
    [
        ("range", {"column": "volume", "min": 1, "max": 2}, [0.9, 1, 1.5, 2, 2.1, None], [0.9, 2.1]),
        ("range", {"column": "volume", "above": 1, "below": 2}, [1, 1.5, 2], [1, 2]),
        ("range", {"column": "volume", "max": 10}, [-1e9, 10, 11], [11]),
        ("range", {"column": "volume", "max": 10}, [float("nan"), float("-inf")], [float("nan"), float("-inf")]),
        ("not_null", {"column": "volume"}, [1, None], [None]),
        ("expression", {"expression": "volume BETWEEN open AND close"}, [99, 100, 101, None], [99, 101]),
        (
            "expression",
            {"expression": "volume IN (1, 2) OR metadata @> '{\"block\": true}'"},
            [1, 3],
            [],
        ),  # NULL: not evaluated
    ],
)
def test_rule(tx, add, rule_type, parameters, values, violating):
    rule(tx, rule_type, **parameters)
    source_id = add("sources")
    for i, value in enumerate(values):
        insert(tx, [bar(source_id, START + i * MINUTE, volume=value)])
        found = [name for _, _, name in penalties(tx, source_id, START + i * MINUTE) if name == "made for a test"]
        assert bool(found) is any(value is v or value == v or (value != value and v != v) for v in violating), value


@pytest.mark.parametrize(
    ("interval", "on", "off"),
    [
        ("1m", "00:07", "00:07:30"),
        ("5m", "00:10", "00:11"),
        ("15m", "00:15", "00:05"),
        ("1h", "05:00", "05:20"),
        ("1h", "14:30", "14:31"),  # New York's opening
        ("1h", "03:45", "03:50"),  # Mumbai's
        ("4h", "22:00", "22:10"),  # 17:00 in New York
        ("1d", "00:00", "05:01"),
        ("1d", "18:15", "18:15:30"),  # midnight in Kathmandu
        ("1d", "16:35", "16:36"),  # London's closing auction
        ("1w", "96:00", "96:02"),
        ("1M", "24:00", "24:01"),
        (None, "00:00:01", None),
    ],
)
def test_aligned(tx, add, interval, on, off):
    source_id = add("sources", interval=interval)
    for offset, violated in [(on, False), (off, True)]:
        if offset is None:
            continue
        at = START + timedelta(**dict(zip(("hours", "minutes", "seconds"), map(int, offset.split(":")), strict=False)))
        insert(tx, [bar(source_id, at)])
        assert (("validation", 10, "timeseries_data_on_grid") in penalties(tx, source_id, at)) is violated


def test_aligned_with_an_offset(tx, add):
    rule(tx, "aligned", offset="30 minutes")
    source_id = add("sources", interval="1h")
    insert(tx, [bar(source_id, START + 30 * MINUTE), bar(source_id, START + 60 * MINUTE)])
    assert penalties(tx, source_id, START + 30 * MINUTE) == []
    assert penalties(tx, source_id, START + 60 * MINUTE) == [("validation", 10, "made for a test")]


@pytest.mark.parametrize(
    ("interval", "at", "violated"),
    [
        ("5m", "2024-05-06T13:30", False),
        ("5m", "2024-05-06T13:25", True),
        ("5m", "2024-05-06T19:55", False),
        ("5m", "2024-05-06T20:00", True),
        ("1h", "2024-05-06T13:00", False),  # a bar that a session begins in
        ("5m", "2024-05-05T15:00", True),
        ("5m", "2024-05-07T16:30", True),
        ("5m", "2024-05-07T17:00", False),
        ("1d", "2024-05-06T00:00", False),
        ("1d", "2024-05-05T00:00", True),
        (None, "2024-05-06T20:00", False),
        (None, "2024-05-06T20:00:01", True),
        ("5m", "2024-05-02T15:00", False),
        ("5m", "2024-05-09T15:00", False),  # outside the calendar nothing is known
    ],
)
def test_session_open(tx, add, interval, at, violated):
    calendar(tx, "M", WEEK)
    profile = configure(tx, "quality_profiles", market="M")
    source_id = add("sources", interval=interval, quality_profile_id=profile)
    insert(tx, [bar(source_id, f"{at}+00")])
    assert (("validation", 10, "timeseries_data_in_session") in penalties(tx, source_id, f"{at}+00")) is violated


def test_rule_is_in_force_from_its_statement_on_and_counts_its_versions(tx, add):
    source_id = add("sources")
    rule_id = rule(tx, "range", column="volume", min=10)
    insert(tx, [bar(source_id)])
    tx.execute(
        "UPDATE validation_rules SET parameters = %s WHERE rule_id = %s",
        [Jsonb({"column": "volume", "min": 0}), rule_id],
    )
    insert(tx, [bar(source_id, START + MINUTE)])
    tx.execute("UPDATE validation_rules SET severity = 'error' WHERE rule_id = %s", [rule_id])
    assert tx.execute("SELECT version FROM validation_rules WHERE rule_id = %s", [rule_id]).fetchone() == (2,)
    assert scores(tx, source_id) == [90, 100]
    assert tx.execute("SELECT rescore('timeseries_data')").fetchone() == (1,)
    assert scores(tx, source_id) == [100, 100]
    tx.execute(
        "UPDATE validation_rules SET parameters = %s WHERE rule_id = %s",
        [Jsonb({"column": "volume", "min": 9}), rule_id],
    )
    tx.execute("UPDATE validation_rules SET is_active = false WHERE rule_id = %s", [rule_id])
    insert(tx, [bar(source_id, START + 2 * MINUTE)])
    tx.execute("DELETE FROM validation_rules WHERE rule_id = %s", [rule_id])
    assert scores(tx, source_id) == [100, 100, 100]


def test_rule_of_one_source(tx, add):
    one, other = add("sources"), add("sources")
    configure(
        tx,
        "validation_rules",
        applies_to="timeseries_data",
        rule_type="range",
        source_id=one,
        parameters={"column": "volume", "min": 10},
    )
    insert(tx, [bar(one), bar(other)])
    assert (scores(tx, one), scores(tx, other)) == ([90], [100])
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        configure(
            tx,
            "validation_rules",
            applies_to="quotes",
            rule_type="not_null",
            source_id=one,
            parameters={"column": "bid"},
        )
    assert refused.value.sqlstate == "TM206"


def test_rule_that_fails_on_a_row_never_blocks_it(tx, add):
    rule(tx, "expression", name="fails", expression="1 / (high - low) > 0.01")
    rule(tx, "expression", name="holds not", expression="volume > 10")
    source_id = add("sources", interval="1m")
    insert(tx, [bar(source_id, high=150.0)])
    insert(tx, [bar(source_id, START + MINUTE), bar(source_id, START + 2 * MINUTE, high=300.0)])
    insert(tx, [bar(source_id, START + 3 * MINUTE)])
    tx.execute("UPDATE timeseries_data SET volume = 2")
    tx.execute("SELECT rescore('timeseries_data')")
    assert [[name for _, _, name in penalties(tx, source_id, START + i * MINUTE)] for i in range(4)] == [
        ["holds not"],
        ["holds not"],
        ["fails", "holds not"],
        ["holds not"],
    ]


def test_rules_changed_by_two_sessions_are_both_in_force(db):
    with db.connect(autocommit=False) as one, db.connect(autocommit=False) as other:
        rule(one, "range", name="one", column="volume", min=10)
        thread = threading.Thread(target=lambda: rule(other, "range", name="other", column="volume", max=0))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "the second waits for the first"
        one.commit()
        thread.join()
        other.commit()
        source_id = adder(one)("sources")
        insert(one, [bar(source_id)])
        assert [name for _, _, name in penalties(one, source_id, START)] == ["one", "other"]


def test_required_field_that_no_table_has_is_refused(tx):
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        configure(tx, "quality_profiles", required_fields=["clsoe"])
    assert refused.value.sqlstate == "TM213"


@pytest.mark.parametrize(
    ("columns", "violated"),
    [
        ({}, []),
        ({"bid": 101.0, "ask": 100.0}, ["quotes_bid_not_above_ask"]),
        ({"price": 120.0}, ["quotes_price_within_day"]),
        ({"bid": None}, []),
        ({"volume": -1}, ["quotes_volume_not_negative"]),
        ({"price": -1.0}, ["quotes_price_positive", "quotes_price_within_day"]),
    ],
)
def test_quotes(tx, add, columns, violated):
    row = {
        "asset_id": add("assets"),
        "ts": START,
        "price": 100.0,
        "low": 90.0,
        "high": 110.0,
        "bid": 99.9,
        "ask": 100.1,
        "volume": 5.0,
        **columns,
    }
    insert(tx, [tuple(row.values())], table="quotes", columns=", ".join(row))
    assert tx.execute(
        "SELECT r.name FROM quality_issues AS q JOIN validation_rules AS r USING (rule_id) WHERE q.table_name"
        " = 'quotes' ORDER BY 1"
    ).fetchall() == [(name,) for name in violated]
    assert tx.execute("SELECT quality_score FROM quotes").fetchone() == (100 - 10 * len(violated),)


def test_candles_are_judged_by_the_profile_of_their_interval(tx, add):
    tx.execute("SELECT set_config('tidemark.reason', 'test', true)")
    tx.execute("UPDATE quality_profiles SET max_change = 0.01 WHERE name = 'candle_1h'")
    asset_id = add("assets")
    rows = [
        (asset_id, interval, START + i * step, p, p, p, p)
        for interval, step in [("1m", MINUTE), ("1h", 60 * MINUTE)]
        for i, p in enumerate([100.0, 102.0])
    ]
    copy(tx, rows, table="candles", columns="asset_id, interval, ts, open, high, low, close")
    assert tx.execute(
        "SELECT c.interval::text, c.quality_score FROM candles AS c ORDER BY c.interval, c.ts"
    ).fetchall() == [
        ("1m", 100),
        ("1m", 100),
        ("1h", 100),
        ("1h", 75),
    ]


BRINGS_CODE = {
    "function": "pg_temp.evil(1)",
    "function of a column": "pg_temp.evil(close::integer)",
    "operator": "1 OPERATOR(pg_temp.<<<) 1",
    "domain": "close::integer::pg_temp.evil_domain > 0",
    "domain of a constant": "1::pg_temp.evil_domain > 0",
    "array of a domain": "'{1}'::pg_temp.evil_domain[] IS NOT NULL",
    "array of a domain, of a column": "ARRAY[close::integer]::pg_temp.evil_domain[] IS NOT NULL",
    "range over a domain": "'[1,2]'::pg_temp.evil_range IS NOT NULL",
    "composite": "'(1)'::pg_temp.evil_row IS NOT NULL",
    "composite of a column": "ROW(close::integer)::pg_temp.evil_row IS NOT NULL",
    "composite of jsonb": "jsonb_populate_record(NULL::pg_temp.evil_row, metadata) IS NOT NULL",
    "table's row type": "NULL::pg_temp.evil_table IS NULL",
    "enum": "'a'::pg_temp.evil_enum = 'a'",
    "collation": "metadata::text < 'a' COLLATE pg_temp.evil_collation",
    "relation": "'pg_temp.evil_table'::regclass IS NOT NULL",
    "extension's type": "'[1]'::public.candle_interval[] IS NOT NULL",
    "whole row": "tidemark_rule_check IS NOT NULL",
    "row in a function": "row_to_json(tidemark_rule_check) IS NOT NULL",
}
BRINGS_CODE_17 = {
    "domain from json": "JSON_VALUE(metadata, '$.a' RETURNING pg_temp.evil_domain) IS NOT NULL",
    "domain from a json query": "JSON_QUERY(metadata, '$.a' RETURNING pg_temp.evil_domain) IS NOT NULL",
    "domain for a json constructor": "JSON_OBJECT('a': close RETURNING pg_temp.evil_text) IS NOT NULL",
}


def as_admin_with_code(tx) -> list[str]:
    """Act as tidemark_admin with code of its own in pg_temp; the list fills with the roles that it ran as."""
    ran_as: list[str] = []
    tx.add_notice_handler(lambda notice: ran_as.append(notice.message_primary))
    tx.execute("SELECT set_config('tidemark.reason', 'test', true); SET ROLE tidemark_admin")
    tx.execute("""
        CREATE FUNCTION pg_temp.evil(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
            $$BEGIN RAISE WARNING USING MESSAGE = current_user; RETURN true; END$$;
        CREATE FUNCTION pg_temp.evil2(integer, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS
            'SELECT pg_temp.evil($1)';
        CREATE FUNCTION pg_temp.evil3(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT pg_temp.evil(1)';
        CREATE OPERATOR pg_temp.<<< (FUNCTION = pg_temp.evil2, LEFTARG = integer, RIGHTARG = integer);
        CREATE DOMAIN pg_temp.evil_domain AS integer CHECK (pg_temp.evil(VALUE));
        CREATE DOMAIN pg_temp.evil_text AS text CHECK (pg_temp.evil3(VALUE));
        CREATE TYPE pg_temp.evil_range AS RANGE (SUBTYPE = pg_temp.evil_domain);
        CREATE TYPE pg_temp.evil_row AS (a pg_temp.evil_domain);
        CREATE TEMPORARY TABLE evil_table (a pg_temp.evil_domain);
        CREATE TYPE pg_temp.evil_enum AS ENUM ('a');
        CREATE COLLATION pg_temp.evil_collation FROM "C";
    """)
    return ran_as


def test_rule_that_brings_code_is_refused_and_runs_with_no_more_rights_than_its_writer_has(tx):
    """A domain, a range or a composite runs its constraints as soon as a constant of it is read."""
    ran_as = as_admin_with_code(tx)
    accepted, cases = [], {**BRINGS_CODE, **(BRINGS_CODE_17 if tx.info.server_version >= 170000 else {})}
    for name, expression in cases.items():
        try:
            with tx.transaction(force_rollback=True):
                rule(tx, "expression", expression=expression)
                accepted.append(name)
        except psycopg.Error as refused:
            assert refused.sqlstate in ("TM207", "TM208"), (name, refused)
    assert accepted == []
    assert set(ran_as) <= {"tidemark_admin"}


@pytest.mark.parametrize(
    "expression",
    [
        "interval IN ('1m', '1h') OR close > 0",  # the type of a column of the table's own
        "interval >= '1h'::public.candle_interval",
        "close::numeric(10, 2) = round(close::numeric, 2)",
        "ln(nullif(volume, 0)) < 50 AND ARRAY[open, close] <@ ARRAY[low, high, open, close]",
    ],
)
def test_what_is_built_in_may_be_used_by_an_administrator(tx, expression):
    tx.execute("SET ROLE tidemark_admin")
    configure(
        tx, "validation_rules", applies_to="candles", rule_type="expression", parameters={"expression": expression}
    )


@pytest.mark.parametrize("token", ["@label@", "@broken@", "@try_rules@"])
def test_rule_holds_no_token_of_the_templates_it_is_put_into(tx, token):
    for parameters, code in [
        ({"rule_type": "expression", "parameters": {"expression": f"metadata::text <> '{token}'"}}, "TM208"),
        ({"rule_type": "session_open", "parameters": {"market": token}}, "TM206"),
        ({"rule_type": "not_future", "parameters": {}, "name": token}, "TM206"),
    ]:
        with pytest.raises(psycopg.Error) as refused, tx.transaction():
            configure(tx, "validation_rules", applies_to="timeseries_data", **parameters)
        assert refused.value.sqlstate == code


def test_rule_that_no_longer_compiles_stops_no_insert(tx):
    tx.execute("""
        CREATE TABLE mine (id integer, ts timestamptz, value float8, note text, extra float8, PRIMARY KEY (id, ts));
        SELECT create_hypertable('mine', 'ts'); SELECT attach_quality('mine')
    """)
    for rule_type, parameters in [
        ("expression", {"expression": "note ~ '^x'"}),
        ("range", {"column": "value", "max": 10}),
    ]:
        configure(tx, "validation_rules", applies_to="mine", rule_type=rule_type, parameters=parameters)
    tx.execute("INSERT INTO mine VALUES (1, now(), 1, 'y', 1)")
    tx.execute("ALTER TABLE mine ALTER COLUMN note TYPE integer USING 1")
    tx.execute("INSERT INTO mine VALUES (2, now(), 11, 5, 1)")
    tx.execute("UPDATE mine SET value = 12 WHERE id = 2")
    assert tx.execute("SELECT id, quality_score FROM mine ORDER BY id").fetchall() == [(1, 90), (2, 90)]
    tx.execute("SELECT rescore('mine')")
    assert tx.execute("SELECT id, quality_score FROM mine ORDER BY id").fetchall() == [(1, 100), (2, 90)]
