"""Scores: 100 less what is wrong, with a row in quality_issues for every lost point."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from psycopg import errors
from quality_support import (
    COLUMNS,
    MINUTE,
    START,
    bars,
    configure,
    copy,
    everything,
    insert,
    penalties,
    score,
    scores,
    walk,
)

from tidemark import doctor


def bar(source_id, at=START, price=100.0, **columns):
    row = {
        "source_id": source_id,
        "timestamp": at,
        "open": price,
        "high": price,
        "low": price,
        "close": price,
        "volume": 1.0,
        **columns,
    }
    return tuple(row[c] for c in COLUMNS.split(", "))


def test_row_without_fault(tx, add):
    source_id = add("sources", interval="1m")
    insert(tx, [bar(source_id)])
    assert (score(tx, source_id, START), penalties(tx, source_id, START)) == (100, [])


@pytest.mark.parametrize(
    ("columns", "lost"),
    [
        ({"open": None}, [("completeness", 30, None)]),
        ({"open": None, "high": None, "low": None}, [("completeness", 30, None)]),  # once, however many
        ({"volume": -1.0}, [("validation", 10, "timeseries_data_volume_not_negative")]),
        ({"high": 99.0}, [("validation", 10, "timeseries_data_bar_consistent")]),
        ({"low": 101.0}, [("validation", 10, "timeseries_data_bar_consistent")]),
        ({"open": 0.0, "low": 0.0}, [("validation", 10, "timeseries_data_price_positive")]),
        (
            {"close": float("nan")},
            [
                ("validation", 10, "timeseries_data_bar_consistent"),
                ("validation", 10, "timeseries_data_price_positive"),
            ],
        ),
        (
            {"open": -1.0, "low": 5.0, "volume": -1.0},
            [
                ("validation", 10, "timeseries_data_bar_consistent"),
                ("validation", 10, "timeseries_data_price_positive"),
                ("validation", 10, "timeseries_data_volume_not_negative"),
            ],
        ),
        ({"timestamp": START + timedelta(seconds=30)}, [("validation", 10, "timeseries_data_on_grid")]),
        ({"volume": None}, []),  # not required, and a rule about it cannot be evaluated
    ],
)
def test_points_lost(tx, add, columns, lost):
    source_id = add("sources", interval="1m")
    insert(tx, [bar(source_id, **columns)])
    at = columns.get("timestamp", START)
    assert penalties(tx, source_id, at) == lost
    assert score(tx, source_id, at) == 100 - sum(points for _, points, _ in lost)


def test_score_is_never_below_zero(tx, add):
    for i in range(9):
        configure(
            tx,
            "validation_rules",
            name=f"r{i}",
            applies_to="timeseries_data",
            rule_type="range",
            parameters={"column": "volume", "max": 0},
        )
    source_id = add("sources", interval="1m")
    insert(tx, [bar(source_id, open=None)])
    assert score(tx, source_id, START) == 0
    assert sum(points for _, points, _ in penalties(tx, source_id, START)) == 120


@pytest.mark.parametrize(
    ("prices", "lost"),
    [
        ([100, 150], []),  # exactly half is not more than half
        ([100, 150.0001], [1]),
        ([100, 50], []),
        ([100, 49.9999], [1]),
        ([1.2, 1.8], []),  # in binary 1.8 - 1.2 is more than half of 1.2
        ([100, 200, 100], [1]),  # the good row after the bad one is back where it was
        ([100, 100, 100, 1000, 100, 100], [3]),
        ([100, 100, 100, 200, 200, 200], [3]),
        ([100, None, 40], [2]),  # the previous valid value counts
        ([100, 0, 90], [1]),  # nothing is a price of zero, but it has moved
    ],
)
def test_consistency(tx, add, prices, lost):
    source_id = add("sources", interval="1m")
    copy(tx, bars(source_id, prices))
    assert [
        i for i in range(len(prices)) if ("consistency", 25, None) in penalties(tx, source_id, START + i * MINUTE)
    ] == lost


def test_consistency_is_judged_by_time_not_by_arrival(tx, add):
    source_id = add("sources", interval="1m")
    rows = bars(source_id, [100, 130, 160])
    insert(tx, [rows[0]])
    insert(tx, [rows[2]])
    assert scores(tx, source_id) == [100, 75]
    insert(tx, [rows[1]])
    assert scores(tx, source_id) == [100, 100, 100]


@pytest.mark.parametrize("statement", ["INSERT", "COPY"])
def test_explicit_score_is_corrected(tx, add, statement):
    source_id = add("sources", interval="1m")
    rows = [(*row, given) for row, given in zip(bars(source_id, [100, 101, -1]), [7, None, 100], strict=True)]
    {"INSERT": insert, "COPY": copy}[statement](tx, rows, columns=f"{COLUMNS}, quality_score")
    assert scores(tx, source_id) == [100, 100, 65]


def test_scoring_changes_nothing_else_and_rejects_nothing(tx, add):
    source_id = add("sources", interval="1m")
    rows = [
        bar(source_id, START + i * MINUTE, open=o, high=h, low=lo, close=c, volume=v)
        for i, (o, h, lo, c, v) in enumerate(
            [
                (None, None, None, None, None),
                (float("inf"), float("-inf"), float("nan"), 1e308, -1e308),
                (5e-324, -5e-324, 0, 1e-308, 0),
                (1, 2, 3, float("nan"), -5),
                (-1e308, 1e308, 0, -1e308, float("nan")),
            ]
        )
    ]
    copy(tx, rows)
    stored = tx.execute(
        f"SELECT {COLUMNS} FROM timeseries_data WHERE source_id = %s ORDER BY timestamp", [source_id]
    ).fetchall()
    assert [tuple(map(repr, row)) for row in stored] == [
        tuple(repr(float(v)) if isinstance(v, int) and i > 1 else repr(v) for i, v in enumerate(row)) for row in rows
    ]
    assert None not in scores(tx, source_id)


def test_row_that_nobody_scored_has_no_score(db):
    with db.connect() as connection:
        connection.execute("INSERT INTO sources (source_id, name, data_type) VALUES (1, 's', 'ohlcv')")
        connection.execute("SET session_replication_role = replica")
        insert(connection, [bar(1)])
        connection.execute("RESET session_replication_role")
        assert scores(connection, 1) == [None]
        connection.execute("SELECT detach_quality('timeseries_data')")
        insert(connection, [bar(1, START + MINUTE)])
        assert scores(connection, 1) == [None, None]


def chunk_of(connection, table="timeseries_data"):
    return connection.execute("SELECT c::text FROM show_chunks(%s) AS c", [table]).fetchone()[0]


@pytest.mark.parametrize("way", ["into the chunk", "trigger dropped", "trigger of the same name",
                                 "all triggers dropped"])
def test_row_that_the_triggers_do_not_see_has_no_score_and_doctor_says_so(db, way):
    with db.connect() as connection:
        connection.execute("INSERT INTO sources (source_id, name, data_type) VALUES (1, 's', 'ohlcv')")
        insert(connection, [bar(1)])
        table = "timeseries_data"
        if way == "into the chunk":
            table = chunk_of(connection)
        else:
            connection.execute("DROP TRIGGER trg_calculate_quality_score ON timeseries_data")
        if way == "trigger of the same name":
            connection.execute(
                "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                "CREATE TRIGGER trg_calculate_quality_score AFTER INSERT ON timeseries_data EXECUTE FUNCTION mine()")
        elif way == "all triggers dropped":
            connection.execute("DROP TRIGGER trg_expect_scores ON timeseries_data")
        with connection.transaction():
            # A statement that is judged leaves nothing behind.
            connection.execute("INSERT INTO timeseries_data SELECT 1, '1990-01-01', 1 WHERE false")
            insert(connection, [bar(1, START + MINUTE)], table=table)
        copy(connection, [bar(1, START + 2 * MINUTE)], table=table)
        assert scores(connection, 1) == [100, None, None]
        assert [(f.severity, f.found) for f in doctor.examine(connection) if f.check == "scores"] == [
            ("warning", "2 rows of timeseries_data have no quality_score")]
        connection.execute("SELECT rescore('timeseries_data')")
        assert scores(connection, 1) == [100, 100, 100]
        assert [f.severity for f in doctor.examine(connection) if f.check == "scores"] == ["ok"]


def test_rows_that_are_judged_begin_with_100_in_nested_statements_too(tx, add):
    """A trigger that writes to another hypertable ends the expectation early: the rest is judged all the same."""
    source_id, asset_id = add("sources"), add("assets")
    tx.execute(f"""
        CREATE FUNCTION pg_temp.mirror() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)
            VALUES ({source_id}, NEW.ts, 1, 1, 1, 1, 1); RETURN NEW; END$$;
        CREATE TRIGGER mirror BEFORE INSERT ON quotes FOR EACH ROW EXECUTE FUNCTION pg_temp.mirror()""")
    insert(tx, [(asset_id, START + i * MINUTE, 1.0) for i in range(5)], table="quotes", columns="asset_id, ts, price")
    assert scores(tx, source_id) == [100] * 5
    assert tx.execute("SELECT quality_score FROM quotes").fetchall() == [(100,)] * 5


def test_score_that_is_tampered_with_is_put_back(tx, add):
    source_id = add("sources", interval="1m")
    insert(tx, [bar(source_id, volume=-1.0)])
    tx.execute("UPDATE timeseries_data SET quality_score = 100, is_anomaly = true")
    assert tx.execute("SELECT quality_score, is_anomaly FROM timeseries_data").fetchone() == (90, False)


def test_forged_setting_does_not_stop_scoring_of_updates(db):
    with db.connect() as connection:
        connection.execute("INSERT INTO sources (source_id, name, data_type) VALUES (1, 's', 'ohlcv')")
        insert(connection, [bar(1)])
        connection.execute("DROP ROLE IF EXISTS quality_test_writer")
        connection.execute("CREATE ROLE quality_test_writer")
        try:
            connection.execute("GRANT USAGE ON SCHEMA _tidemark TO quality_test_writer")
            connection.execute("GRANT SELECT, UPDATE ON timeseries_data TO quality_test_writer")
            connection.execute("SET ROLE quality_test_writer")
            connection.execute("SET tidemark.writing_scores = 'on'")
            connection.execute("UPDATE timeseries_data SET volume = -1")
            connection.execute("RESET ROLE")
            assert scores(connection, 1) == [90]
        finally:
            connection.execute("DROP OWNED BY quality_test_writer")
            connection.execute("DROP ROLE quality_test_writer")


def test_correction_by_update_rescores_the_row_and_those_after_it(tx, add):
    source_id = add("sources", interval="1m")
    prices = walk(300, 1, heavy=0)
    copy(tx, bars(source_id, prices))
    clean = everything(tx)
    at = START + 200 * MINUTE
    tx.execute("UPDATE timeseries_data SET close = close * 10, high = high * 10 WHERE timestamp = %s", [at])
    assert score(tx, source_id, at) == 75
    assert tx.execute("SELECT is_anomaly FROM timeseries_data WHERE timestamp = %s", [at]).fetchone() == (True,)
    tx.execute("UPDATE timeseries_data SET close = %s, high = %s WHERE timestamp = %s", [prices[200], prices[200], at])
    assert everything(tx) == clean


def test_upserts(tx, add):
    source_id = add("sources", interval="1m")
    rows = bars(source_id, [100, 101, 102])
    insert(tx, rows)
    insert(
        tx,
        [*bars(source_id, [-1]), *bars(source_id, [103], at=START + 3 * MINUTE)],
        conflict=("ON CONFLICT (source_id, timestamp) DO UPDATE SET close = EXCLUDED.close, low = EXCLUDED.low"),
    )
    assert scores(tx, source_id) == [90, 100, 100, 100]
    insert(tx, [bar(source_id, START + MINUTE, price=-5.0)], conflict="ON CONFLICT DO NOTHING")
    assert scores(tx, source_id) == [90, 100, 100, 100]
    assert penalties(tx, source_id, START + MINUTE) == []


def test_partial_update_of_columns_that_do_not_matter(tx, add):
    source_id = add("sources", interval="1m")
    insert(tx, [bar(source_id, volume=-1.0)])
    before = everything(tx)
    tx.execute("UPDATE timeseries_data SET metadata = '{}'")
    assert everything(tx) == before


def test_row_that_moves_takes_its_penalties_with_it(tx, add):
    source_id, other = add("sources", interval="1m"), add("sources", interval="1m")
    insert(tx, [bar(source_id, volume=-1.0)])
    tx.execute("UPDATE timeseries_data SET source_id = %s", [other])
    assert penalties(tx, source_id, START) == []
    assert penalties(tx, other, START) == [("validation", 10, "timeseries_data_volume_not_negative")]


def test_delete_removes_what_is_on_record(tx, add):
    source_id = add("sources", interval="1m")
    prices = walk(300, 1, heavy=0)
    prices[200] *= 10
    prices[210] *= 10
    copy(tx, bars(source_id, prices))
    (head, tail) = tx.execute("SELECT anomaly_id, episode_id FROM anomalies ORDER BY timestamp").fetchall()
    assert head[1] == tail[1] == head[0]
    tx.execute("DELETE FROM timeseries_data WHERE timestamp = %s", [START + 200 * MINUTE])
    assert tx.execute("SELECT anomaly_id, episode_id FROM anomalies").fetchall() == [(tail[0], tail[0])]
    assert penalties(tx, source_id, START + 200 * MINUTE) == []
    tx.execute("TRUNCATE timeseries_data")
    assert everything(tx) == {"scores": [], "issues": [], "anomalies": []}


def test_several_series_chunks_and_profiles_in_one_statement(tx, add):
    tick = configure(tx, "quality_profiles", max_change=0.01, baseline_rows=50)
    ids = [
        add("sources", interval="1m"),
        add("sources", interval="1m", quality_profile_id=tick),
        add("sources", data_type="scalar"),
        add("sources", data_type="sentiment"),
    ]
    rows = [
        (i, START + d * timedelta(days=40), None if i == ids[0] else 1.0 + d, 100 + 2 * d)
        for i in ids
        for d in range(4)
    ]
    insert(tx, [(i, at, p, p, p, p, 1.0, v) for i, at, v, p in rows], columns=f"{COLUMNS}, value")
    assert scores(tx, ids[0]) == [100] * 4
    assert scores(tx, ids[1]) == [100, 75, 75, 75]
    copy(
        tx,
        [(ids[2], START + timedelta(days=400), None), (ids[3], START + timedelta(days=401), -0.5)],
        columns="source_id, timestamp, value",
    )
    assert scores(tx, ids[2])[-1] == 70
    assert scores(tx, ids[3])[-1] == 100


def test_unknown_source_is_refused_as_by_a_foreign_key(tx, add):
    source_id = add("sources")
    with pytest.raises(errors.ForeignKeyViolation) as refused, tx.transaction():
        insert(tx, [bar(source_id), bar(source_id + 999)])
    assert refused.value.diag.constraint_name == "timeseries_data_source_id_fkey"
    with pytest.raises(errors.ForeignKeyViolation), tx.transaction():
        insert(tx, [bar(source_id + 999)])
    insert(tx, [bar(source_id)])
    for statement in [
        "DELETE FROM sources",
        "UPDATE sources SET source_id = source_id + 1",
        "UPDATE timeseries_data SET source_id = source_id + 1",
    ]:
        with pytest.raises(errors.ForeignKeyViolation) as refused, tx.transaction():
            tx.execute(statement)
        assert refused.value.diag.constraint_name == "timeseries_data_source_id_fkey"
    with pytest.raises(errors.Error), tx.transaction():
        tx.execute("TRUNCATE sources CASCADE")
    tx.execute("DELETE FROM timeseries_data")
    tx.execute("DELETE FROM sources")


# Lateness


def calendar(tx, market, days):
    for day, (opens, closes, *pause) in days.items():
        instant = [
            None if h is None else datetime.fromisoformat(f"{day}T{h}+00:00")
            for h in (opens, closes, *(pause or (None, None)))
        ]
        tx.execute(
            "INSERT INTO market_calendar (market, date, opens_at, closes_at, break_starts_at, break_ends_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [market, day, *instant],
        )


WEEK = {
    "2024-05-03": ("13:30", "20:00"),
    "2024-05-04": (None, None),
    "2024-05-05": (None, None),
    "2024-05-06": ("13:30", "20:00"),
    "2024-05-07": ("13:30", "20:00", "16:00", "17:00"),
    "2024-05-08": ("13:30", "20:00"),
}


@pytest.mark.parametrize(
    ("market", "lag", "step", "now", "late_before"),
    [
        (None, "10 min", "0", "2024-05-06T13:30:01", "2024-05-06T13:20:01"),
        (None, "10 min", "5 min", "2024-05-06T13:30:01", "2024-05-06T13:15:01"),
        (
            None,
            "10 min",
            "1 month",
            "2024-05-06T13:30:01",
            "2024-05-01T00:00:00",
        ),  # April's bar ended on the first of May
        (None, "10 min", "1 month", "2024-05-01T00:10:00", "2024-04-01T00:00:00"),  # and is not late ten minutes later
        # One second of Monday's session has passed: Friday's last bar is a second old.
        ("M", "10 min", "5 min", "2024-05-06T13:30:01", "2024-05-03T19:45:01"),
        ("M", "1 s", "5 min", "2024-05-06T13:30:01", "2024-05-03T19:55:00"),
        ("M", "1 s", "5 min", "2024-05-06T13:30:02", "2024-05-06T13:25:01"),
        ("M", "0", "0", "2024-05-05T12:00:00", "2024-05-03T20:00:00"),  # closed: nothing ages
        ("M", "90 min", "0", "2024-05-07T18:00:00", "2024-05-07T15:30:00"),  # the break does not count
        ("M", "10 min", "0", "2024-06-01T12:00:00", "-infinity"),  # beyond the calendar nothing is known
        ("unknown", "10 min", "0", "2024-05-06T13:30:01", "-infinity"),
    ],
)
def test_lateness_is_measured_in_open_time(tx, market, lag, step, now, late_before):
    calendar(tx, "M", WEEK)
    assert tx.execute(
        "SELECT _tidemark.late_before(%s, %s::interval, %s::interval, (%s || '+00')::timestamptz)"
        " = (%s || CASE WHEN %s LIKE '-%%' THEN '' ELSE '+00' END)::timestamptz",
        [market, lag, step, now, late_before, late_before],
    ).fetchone() == (True,)


@pytest.mark.parametrize(
    ("mode", "late"),
    [(None, True), ("live", True), ("", True), ("backfill", False), ("correction", False), ("replay", False)],
)
def test_late_rows_lose_points_unless_loaded_as_history(tx, add, mode, late):
    profile = configure(tx, "quality_profiles", allowed_lag="10 minutes")
    source_id = add("sources", quality_profile_id=profile)
    if mode is not None:
        tx.execute("SELECT set_config('tidemark.ingest_mode', %s, true)", [mode])
    # Half a minute off either way, so that the time the test takes does not matter.
    rows = bars(source_id, walk(20, 1), at=datetime.now(UTC) - timedelta(minutes=19.5))
    copy(tx, rows)
    assert scores(tx, source_id) == ([80] * 10 + [100] * 10 if late else [100] * 20)
    if late:
        assert penalties(tx, source_id, rows[0][1]) == [("timeliness", 20, None)]
    before = everything(tx)
    tx.execute("SELECT rescore('timeseries_data')")
    assert everything(tx) == before, "when a row came does not change afterwards"


def test_thousand_backfilled_rows_are_not_late(tx, add):
    profile = configure(tx, "quality_profiles", allowed_lag="1 second")
    source_id = add("sources", interval="1m", quality_profile_id=profile)
    tx.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
    copy(tx, bars(source_id, walk(1000, 1)))
    assert tx.execute("SELECT count(*) FROM quality_issues WHERE penalty = 'timeliness'").fetchone() == (0,)
    tx.execute("TRUNCATE timeseries_data")
    tx.execute("SET LOCAL tidemark.ingest_mode = 'live'")
    copy(tx, bars(source_id, walk(1000, 1)))
    assert tx.execute("SELECT count(*) FROM quality_issues WHERE penalty = 'timeliness'").fetchone() == (1000,)


def test_correcting_a_late_row_leaves_it_late_and_one_on_time_on_time(tx, add):
    profile = configure(tx, "quality_profiles", allowed_lag="10 minutes")
    source_id = add("sources", interval="1m", quality_profile_id=profile)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    insert(tx, [bar(source_id, now - timedelta(hours=1)), bar(source_id, now - timedelta(minutes=1))])
    tx.execute("UPDATE timeseries_data SET close = close * 1.001, high = high * 1.001")
    assert scores(tx, source_id) == [80, 100]


def test_future_timestamp(tx, add):
    source_id = add("sources")
    now = datetime.now(UTC)
    insert(tx, [bar(source_id, now + timedelta(seconds=20))])
    insert(tx, [bar(source_id, now + timedelta(hours=1)), bar(source_id, now - timedelta(hours=1))])
    assert scores(tx, source_id) == [100, 100, 90]
    insert(tx, [bar(source_id, now + timedelta(hours=2))])
    assert penalties(tx, source_id, now + timedelta(hours=2)) == [("validation", 10, "timeseries_data_not_in_future")]


def test_all_three_fire(tx, add):
    profile = configure(tx, "quality_profiles", allowed_lag="10 minutes", required_fields=["volume"])
    source_id = add("sources", interval="1m", quality_profile_id=profile)
    insert(tx, [bar(source_id), bar(source_id, START + MINUTE, price=200.0, volume=None)])
    assert scores(tx, source_id) == [80, 25]
