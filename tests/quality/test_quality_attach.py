"""One engine for any hypertable: attached, detached, concurrent, compressed."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import psycopg
import pytest
from conftest import adder
from quality_support import START, anomalies, bars, configure, copy, dice, everything, insert, scores, walk
from test_quality_detector import with_errors

OWN = """
    CREATE SCHEMA desk;
    CREATE TABLE desk."Ticks" (
        venue text NOT NULL, "Symbol" text NOT NULL, at timestamptz NOT NULL, price numeric, size bigint,
        CONSTRAINT ticks_pkey PRIMARY KEY (venue, "Symbol", at)
    );
    SELECT public.create_hypertable('desk."Ticks"', public.by_range('at', interval '1 day'));
"""


def definitions(connection, table):
    """What attaching makes: functions, triggers, defaults, all with the transaction that wrote them last."""
    return connection.execute(
        "SELECT p.proname, p.prosrc, p.proacl::text, p.xmin::text FROM pg_proc AS p WHERE p.pronamespace ="
        " '_tidemark'::regnamespace"
        " UNION ALL SELECT t.tgname, pg_get_triggerdef(t.oid), NULL, t.xmin::text FROM pg_trigger AS t WHERE"
        " t.tgrelid = %s::regclass"
        " UNION ALL SELECT 'default', pg_get_expr(d.adbin, d.adrelid), NULL, d.xmin::text FROM pg_attrdef AS d"
        " WHERE d.adrelid = %s::regclass"
        " UNION ALL SELECT q.label, q::text, NULL, q.xmin::text FROM _tidemark.quality_targets AS q ORDER BY 1, 2",
        [table, table],
    ).fetchall()


def test_own_hypertable(tx):
    tx.execute(OWN)
    assert tx.execute("""SELECT attach_quality('desk."Ticks"')""").fetchone() == (True,)
    configure(
        tx,
        "validation_rules",
        applies_to='desk."Ticks"',
        rule_type="expression",
        name="size",
        parameters={"expression": "size > 0"},
    )
    prices = with_errors(walk(400, 1), 1, 0.02)
    rows = [
        (v, s, START + i * timedelta(hours=1), round(p, 4), 1 if i != 5 else 0)
        for i, p in enumerate(prices)
        for v, s in [("X", "A'B"), ("X", "%L@x@")]
    ]
    copy(tx, rows, table='desk."Ticks"', columns='venue, "Symbol", at, price, size')
    assert tx.execute(
        """SELECT "Symbol", count(*), count(quality_score), bool_or(is_anomaly) FROM desk."Ticks" GROUP BY 1"""
    ).fetchall() == [
        ("%L@x@", 400, 400, True),
        ("A'B", 400, 400, True),
    ]
    assert tx.execute(
        """SELECT DISTINCT series FROM anomalies WHERE table_name = 'desk."Ticks"' ORDER BY 1"""
    ).fetchall() == [({"venue": "X", "Symbol": s},) for s in ("%L@x@", "A'B")]
    assert tx.execute("SELECT count(*) FROM quality_issues WHERE penalty = 'validation'").fetchone() == (2,)
    assert tx.execute("""SELECT rescore('desk."Ticks"', '{"Symbol": "A''B"}')""").fetchone() == (0,)
    assert tx.execute(
        """SELECT sum(row_count), sum(validation) FROM quality_report_of('desk."Ticks"')"""
    ).fetchone() == (800, 2)
    tx.execute("""UPDATE desk."Ticks" SET size = 1""")
    assert tx.execute("SELECT count(*) FROM quality_issues WHERE penalty = 'validation'").fetchone() == (0,)
    tx.execute("""DELETE FROM desk."Ticks" WHERE is_anomaly""")
    assert tx.execute("SELECT count(*) FROM anomalies").fetchone() == (0,)


@pytest.mark.parametrize("table", ["timeseries_data", "candles", "quotes"])
def test_attaching_again_changes_nothing(db, table):
    with db.connect() as connection:
        before = definitions(connection, table)
        assert len(before) > 20
        assert connection.execute("SELECT attach_quality(%s)", [table]).fetchone() == (False,)
        assert definitions(connection, table) == before


def test_dropped_hypertable_is_forgotten(tx):
    tx.execute(OWN)
    tx.execute("""SELECT attach_quality('desk."Ticks"')""")
    tx.execute("""DROP TABLE desk."Ticks" """)
    tx.execute("SELECT attach_quality('candles')")
    left = (
        "SELECT (SELECT count(*) FROM _tidemark.quality_targets),"
        "       (SELECT count(*) FROM pg_proc WHERE proname ~ 'desk_ticks')"
    )
    assert tx.execute(left).fetchone() == (4, 0)
    tx.execute(OWN.replace("CREATE SCHEMA desk;", ""))
    assert tx.execute("""SELECT attach_quality('desk."Ticks"')""").fetchone() == (True,)


@pytest.mark.community
def test_column_added_after_attaching_is_in_nobody_s_way(db):
    with db.connect() as connection:
        source_id = adder(connection)("sources", interval="1h")
        copy(connection, bars(source_id, walk(100, 1), step=timedelta(hours=1)))
        connection.execute(
            "ALTER TABLE timeseries_data SET (timescaledb.compress, timescaledb.compress_segmentby = 'source_id',"
            " timescaledb.compress_orderby = 'timestamp')"
        )
        connection.execute("SELECT count(compress_chunk(c, true)) FROM show_chunks('timeseries_data') AS c")
        connection.execute("ALTER TABLE timeseries_data ADD COLUMN extra integer NOT NULL DEFAULT 1")
        insert(connection, bars(source_id, [-1], at=START + timedelta(hours=200)))
        assert scores(connection, source_id)[-1] == 65


def test_detach_and_attach_again(db):
    with db.connect() as connection:
        before = [(name, text) for name, text, *_ in definitions(connection, "candles")]
        assert connection.execute("SELECT detach_quality('candles')").fetchone() == (True,)
        assert connection.execute("SELECT detach_quality('candles')").fetchone() == (False,)
        left = connection.execute(
            "SELECT proname FROM pg_proc WHERE proname = ANY (_tidemark.quality_functions('candles'))"
        ).fetchall()
        assert left == []
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("SELECT rescore('candles')")
        assert refused.value.sqlstate == "TM210"
        assert connection.execute("SELECT attach_quality('candles')").fetchone() == (True,)
        after = [(name, text) for name, text, *_ in definitions(connection, "candles")]
        assert [d for d in after if d[0] != "candles"] == [d for d in before if d[0] != "candles"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("'assets'", "TM201"),
        ("NULL", "TM201"),
        ("'candles', p_series => '{nothing}'", "TM202"),
        ("'candles', p_value => '{interval}'", "TM202"),
        ("'candles', p_source => 'source_id'", "TM202"),
        ("'candles', p_series => '{asset_id}'", "TM203"),
        ("'candles', p_profile => 'nothing'", "TM204"),
        ("'candles', p_open => 'asset_id'", "TM202"),
    ],
)
def test_attach_refuses_what_it_cannot_score(tx, arguments, code):
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        tx.execute(f"SELECT attach_quality({arguments})")
    assert refused.value.sqlstate == code


def test_attach_refuses_rows_without_identity(tx):
    tx.execute("CREATE TABLE loose (series int NOT NULL, ts timestamptz NOT NULL, value float8)")
    tx.execute("SELECT create_hypertable('loose', by_range('ts'))")
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        tx.execute("SELECT attach_quality('loose', p_series => '{series}')")
    assert refused.value.sqlstate == "TM203"
    tx.execute("CREATE UNIQUE INDEX ON loose (series, ts)")
    assert tx.execute("SELECT attach_quality('loose', p_series => '{series}')").fetchone() == (True,)


def test_rescore_refuses_unknown_keys(tx):
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        tx.execute("SELECT rescore('candles', '{\"source_id\": 1}')")
    assert refused.value.sqlstate == "TM211"


def test_candles_of_one_asset_and_interval_are_a_series(tx, add):
    one, other = add("assets"), add("assets")
    prices = with_errors(walk(300, 2), 2, 0.02)
    rows = [
        (a, i, START + n * timedelta(days=1), p, p, p, p)
        for n, p in enumerate(prices)
        for a, i in [(one, "1d"), (other, "1d"), (one, "1w")]
    ]
    copy(tx, rows, table="candles", columns="asset_id, interval, ts, open, high, low, close")
    keys = "'asset_id', d.asset_id, 'interval', d.interval"
    found = everything(tx, "candles", "ts", keys)
    assert len({row[0] for row in found["anomalies"]}) == 3
    assert tx.execute("SELECT DISTINCT asset_id, interval::text FROM anomalies ORDER BY 1, 2").fetchall() == sorted(
        [(one, "1d"), (one, "1w"), (other, "1d")]
    )
    of_one, of_other = (tx.execute(
        "SELECT timestamp, z_score, observed, scale, samples FROM anomalies WHERE asset_id = %s AND interval = '1d'"
        " ORDER BY 1", [asset]).fetchall() for asset in (one, other))
    assert of_one == of_other, "bars of another length among them change nothing"
    tx.execute("TRUNCATE candles")
    dice(0).shuffle(rows)
    for i in range(0, len(rows), 100):
        insert(tx, rows[i : i + 100], table="candles", columns="asset_id, interval, ts, open, high, low, close")
    assert everything(tx, "candles", "ts", keys) == found


# Concurrency


def test_concurrent_writers_to_one_series_neither_deadlock_nor_lose_flags(db):
    """Four sessions bring interleaved late rows, corrections and conflicts, in transactions of several statements."""
    prices = with_errors(walk(700, 7), 7, 0.03)
    with db.connect() as connection:
        ids = [adder(connection)("sources", interval="1m") for _ in range(2)]
        rows = [row for i in ids for row in bars(i, prices)]
        copy(connection, rows[::4])
        failures: list[Exception] = []

        def write(share, seed, statements):
            order = dice(seed)
            share = list(share)
            order.shuffle(share)
            try:
                with db.connect(autocommit=False) as own:
                    for i in range(0, len(share), 20 * statements):
                        for j in range(i, min(i + 20 * statements, len(share)), 20):
                            piece = sorted(share[j : j + 20], key=lambda row: row[:2])
                            insert(
                                own,
                                piece,
                                conflict="ON CONFLICT (source_id, timestamp) DO UPDATE SET volume = EXCLUDED.volume",
                            )
                        own.commit()
            except Exception as failure:  # a thread's exception would be lost otherwise
                failures.append(failure)

        # Two of them bring the same rows: in order, a statement at a time, or they would wait for each other's.
        threads = [
            threading.Thread(target=write, args=arguments)
            for arguments in [(rows[1::4], 1, 1), (rows[1::4], 2, 1), (rows[2::4], 3, 3), (rows[3::4], 4, 3)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        flags = connection.execute(
            "SELECT count(*) FROM timeseries_data AS d WHERE d.is_anomaly IS DISTINCT FROM EXISTS (SELECT FROM"
            " anomalies AS a"
            " WHERE a.source_id = d.source_id AND a.timestamp = d.timestamp)"
        ).fetchone()
        assert flags == (0,), "flag and anomaly belong together"
        points = connection.execute(
            "SELECT count(*) FROM timeseries_data AS d WHERE d.quality_score <> greatest(0, 100 -"
            " coalesce((SELECT sum(q.points)"
            " FROM quality_issues AS q WHERE q.series = jsonb_build_object('source_id', d.source_id) AND q.ts"
            " = d.timestamp), 0))"
        ).fetchone()
        assert points == (0,), "score and penalties belong together"
        connection.execute("SELECT rescore('timeseries_data')")
        concurrent = everything(connection)
        connection.execute("TRUNCATE timeseries_data")
        copy(connection, rows)
        assert everything(connection) == concurrent


def test_late_row_does_not_wait_for_whoever_holds_a_row_after_it(db):
    with db.connect() as connection, db.connect(autocommit=False) as other:
        source_id = adder(connection)("sources", interval="1m")
        rows = bars(source_id, [100, 130, 160])
        insert(connection, [rows[0], rows[2]])
        assert scores(connection, source_id) == [100, 75]
        other.execute("UPDATE timeseries_data SET metadata = '{}' WHERE timestamp = %s", [rows[2][1]])
        connection.execute("SET statement_timeout = '5s'")
        insert(connection, [rows[1]])
        assert scores(connection, source_id) == [100, 100, 75], "left to rescore"
        other.rollback()
        assert connection.execute(
            "SELECT rescore('timeseries_data', %s)", [json.dumps({"source_id": source_id})]
        ).fetchone() == (1,)
        assert scores(connection, source_id) == [100, 100, 100]


def test_source_cannot_be_deleted_while_its_first_row_is_being_stored(db):
    with db.connect() as connection, db.connect(autocommit=False) as other:
        source_id = adder(connection)("sources")
        insert(other, bars(source_id, [100]))
        outcome: list[str | None] = []

        def delete():
            try:
                connection.execute("DELETE FROM sources WHERE source_id = %s", [source_id])
                outcome.append(None)
            except psycopg.Error as error:
                outcome.append(error.sqlstate)

        thread = threading.Thread(target=delete)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive(), "it waits"
        other.commit()
        thread.join()
        assert outcome == ["23503"]
        with pytest.raises(psycopg.Error) as refused, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("DELETE FROM sources WHERE source_id = %s", [source_id])
        assert refused.value.sqlstate == "TM209"


# Compression


@pytest.mark.community
def test_compressed_chunks(db):
    prices = with_errors(walk(900, 12), 12, 0.02)
    with db.connect() as connection:
        add = adder(connection)
        one, other = add("sources", interval="1h"), add("sources", interval="1h")
        rows = [row for i in (one, other) for row in bars(i, prices, step=timedelta(hours=1))]
        copy(connection, rows)
        expected = everything(connection)
        connection.execute("TRUNCATE timeseries_data")
        late = [row for row in rows if row[1].hour == 7]
        copy(connection, [row for row in rows if row not in late])
        connection.execute(
            "ALTER TABLE timeseries_data SET (timescaledb.compress, timescaledb.compress_segmentby ="
            " 'source_id', timescaledb.compress_orderby = 'timestamp')"
        )
        connection.execute("SELECT count(compress_chunk(c, true)) FROM show_chunks('timeseries_data') AS c")
        for i in range(0, len(late), 10):
            insert(connection, late[i : i + 10])
        assert (
            connection.execute("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed").fetchone()[0]
            >= 2
        )
        assert everything(connection) == expected
        at = START + timedelta(hours=450)
        connection.execute(
            "UPDATE timeseries_data SET close = close * 10, high = high * 10 WHERE source_id = %s AND timestamp = %s",
            [one, at],
        )
        assert at in anomalies(connection, one)
        connection.execute("DELETE FROM timeseries_data WHERE source_id = %s AND timestamp = %s", [one, at])
        assert at not in anomalies(connection, one)
        assert connection.execute("SELECT count(*) FROM quality_issues WHERE ts = %s", [at]).fetchone() == (0,)
        insert(connection, [row for row in rows if row[:2] == (one, at)])
        connection.execute("SELECT rescore('timeseries_data')")
        assert everything(connection) == expected
