"""Compression and retention: what is due, what becomes of it, and that nothing is lost which nobody asked to lose."""

from __future__ import annotations

import json
import threading
import time

import psycopg
import pytest
from psycopg import errors

from tidemark import lifecycle
from tidemark.errors import Problem

HYPERTABLES = ["candles", "features", "indicators", "quotes", "sentiment_data", "ticks", "timeseries_data"]


@pytest.fixture
def history(db):
    """A database with a hundred days of two sources, a bar every three hours, up to now."""
    with db.connect(prepare_threshold=None) as connection:
        connection.execute("SET tidemark.reason = 'as the test has it'")
        connection.execute("INSERT INTO sources (name, data_type) VALUES ('a', 'ohlcv'), ('b', 'ohlcv')")
        connection.execute(
            "INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume, value, metadata)"
            " SELECT s.source_id, t, 105, 110, 100, 100 + extract(epoch FROM t)::int / 10800 % 10, 0.125, 1.0 / 3,"
            "        '{\"b\": 1, \"a\": [2]}'"
            " FROM sources AS s, generate_series(date_trunc('hour', now()) - interval '100 days',"
            " date_trunc('hour', now()), '3 hours') AS t"
        )
        yield connection


def keep(connection: psycopg.Connection, drop_after: str, hypertable: str = "timeseries_data") -> None:
    connection.execute(
        "UPDATE data_policies SET drop_after = %s::interval,"
        " compress_after = CASE WHEN compress_after < %s::interval THEN compress_after END WHERE hypertable = %s",
        (drop_after, drop_after, hypertable),
    )


def late_bar(connection: psycopg.Connection, close: float) -> None:
    connection.execute("INSERT INTO timeseries_data (source_id, timestamp, close)"
                       " VALUES (1, now() - interval '95 days', %s)", (close,))


def rows(connection: psycopg.Connection, relation: str) -> set:
    return set(connection.execute(f"SELECT t::text FROM {relation} AS t").fetchall())


def count(connection: psycopg.Connection, relation: str) -> int:
    return connection.execute(f"SELECT count(*) FROM {relation}").fetchone()[0]


@pytest.fixture
def policies(tx):
    """A transaction that may change policies."""
    tx.execute("SET LOCAL tidemark.reason = 'as the test has it'")
    return tx


# Policies


def test_every_hypertable_has_a_policy_and_none_drops(tx):
    assert tx.execute(
        "SELECT hypertable, compress_after = '30 days', drop_after FROM data_policies ORDER BY 1"
    ).fetchall() == [(name, True, None) for name in HYPERTABLES]


def test_policy_for_what_is_no_hypertable_is_refused(policies):
    with pytest.raises(psycopg.Error) as refused:
        policies.execute("INSERT INTO data_policies (hypertable) VALUES ('assets')")
    assert refused.value.sqlstate == "TM606"


def test_policy_may_name_a_hypertable_in_another_schema(policies):
    policies.execute("CREATE SCHEMA lab")
    policies.execute("CREATE TABLE lab.ticks (ts timestamptz NOT NULL, s int NOT NULL, PRIMARY KEY (s, ts))")
    policies.execute("SELECT create_hypertable('lab.ticks', by_range('ts', interval '1 day'))")
    policies.execute("INSERT INTO data_policies (hypertable, drop_after) VALUES ('lab.ticks', '2 days')")
    policies.execute("INSERT INTO lab.ticks VALUES (now() - interval '9 days', 1), (now(), 1)")
    assert policies.execute("SELECT s.hypertable, s.row_count FROM _tidemark.expired_chunks() AS e"
                      " JOIN chunk_stats AS s ON s.chunk = e.chunk::text").fetchall() == [("lab.ticks", 1)]


@pytest.fixture
def ticks(policies):
    """The label of an hypertable of the user's own, on no record, whose names take quotes."""
    policies.execute('CREATE SCHEMA "Lab"')
    policies.execute('CREATE TABLE "Lab"."Tick/s" (ts timestamptz NOT NULL, s int NOT NULL, PRIMARY KEY (s, ts))')
    policies.execute("""SELECT create_hypertable('"Lab"."Tick/s"', by_range('ts', interval '1 day'))""")
    policies.execute("""INSERT INTO "Lab"."Tick/s" VALUES (now() - interval '9 days', 1), (now(), 1)""")
    return '"Lab"."Tick/s"'


@pytest.mark.parametrize("spelling", ["quotes", "QUOTES", "public.quotes", '"quotes"', '"public"."quotes"'])
def test_hypertable_has_one_policy_however_it_is_spelled(policies, spelling):
    with pytest.raises(errors.UniqueViolation) as refused:
        policies.execute("INSERT INTO data_policies (hypertable) VALUES (%s)", (spelling,))
    assert refused.value.diag.constraint_name == "data_policies_pkey"


@pytest.mark.parametrize("spelling", ["Lab.Tick/s", '"Lab"."Tick/s"'])
def test_dropped_rows_are_kept_however_the_hypertable_is_spelled_and_on_record_or_not(policies, ticks, spelling):
    policies.execute("INSERT INTO data_policies (hypertable, drop_after, keep_dropped) VALUES (%s, '2 days', true)",
                     (spelling,))
    assert policies.execute("SELECT hypertable FROM data_policies WHERE relation = %s::regclass", (ticks,)
                            ).fetchall() == [(ticks,)]
    dropped = policies.execute(
        "SELECT _tidemark.drop_chunk(e.hypertable, e.chunk, e.range_start, e.range_end)"
        " FROM _tidemark.expired_chunks() AS e WHERE _tidemark.claim_chunk(e.chunk)"
    ).fetchall()
    assert dropped == [(1,)]
    assert policies.execute("SELECT table_name, row ->> 's' FROM timeseries_archive").fetchall() == [(ticks, "1")]
    policies.execute("SELECT attach_audit(%s)", (ticks,))
    assert policies.execute("SELECT restore_archived(%s::regclass)", (ticks,)).fetchone() == (1,)
    assert count(policies, ticks) == 2


def test_policy_follows_its_hypertable_when_that_is_renamed_and_goes_with_it(policies, ticks):
    policies.execute("INSERT INTO data_policies (hypertable, drop_after) VALUES (%s, '2 days')", (ticks,))
    policies.execute(f"ALTER TABLE {ticks} RENAME TO flows")
    assert policies.execute("SELECT count(*) FROM _tidemark.expired_chunks()").fetchone() == (1,)
    policies.execute("SELECT _tidemark.tidy_policies()")
    assert count(policies, """data_policies WHERE hypertable = '"Lab".flows' AND drop_after = '2 days'""") == 1
    policies.execute('DROP TABLE "Lab".flows')
    policies.execute("SELECT _tidemark.tidy_policies()")
    assert [name for (name,) in policies.execute("SELECT hypertable FROM data_policies ORDER BY 1")] == HYPERTABLES


@pytest.mark.parametrize("column", ["compress_after", "drop_after"])
def test_policy_without_an_end_is_null_not_infinite(policies, column):
    """Before PostgreSQL 17 no interval is."""
    with pytest.raises(psycopg.Error) as refused:
        policies.execute(f"UPDATE data_policies SET {column} = 'infinity'")
    can_be = policies.info.server_version >= 170000
    assert refused.value.sqlstate == ("23514" if can_be else "22007")
    assert refused.value.diag.constraint_name == (f"data_policies_{column}_in_range" if can_be else None)


@pytest.mark.community
def test_every_hypertable_is_compressed_by_series_newest_first(tx):
    settings = dict(tx.execute(
        "SELECT hypertable::text, segmentby || '/' || orderby"
        " FROM timescaledb_information.hypertable_compression_settings WHERE hypertable::text !~ '^_'"
    ).fetchall())
    assert settings == {
        "timeseries_data": 'source_id/"timestamp" DESC',
        "candles": "asset_id,interval/ts DESC",
        "quotes": "asset_id/ts DESC",
        "ticks": "asset_id/ts DESC,seq",
        "sentiment_data": "asset_id/ts DESC,sentiment_id",
        "indicators": "asset_id,interval,name/ts DESC",
        "features": "asset_id,feature_set,name,version/ts DESC",
    }


def jobs(connection: psycopg.Connection) -> dict:
    return dict(connection.execute(
        "SELECT proc_name || coalesce(' ' || hypertable_name, ''), config ->> 'compress_after'"
        " FROM timescaledb_information.jobs WHERE job_id >= 1000"
    ).fetchall())


@pytest.mark.community
def test_jobs_follow_the_policies(policies):
    installed = {"refresh_job": None, **{f"policy_compression {name}": "30 days" for name in HYPERTABLES}}
    assert jobs(policies) == installed
    policies.execute("UPDATE data_policies SET compress_after = '7 days' WHERE hypertable = 'quotes'")
    policies.execute("UPDATE data_policies SET compress_after = NULL WHERE hypertable = 'features'")
    policies.execute("DELETE FROM data_policies WHERE hypertable = 'indicators'")
    del installed["policy_compression features"], installed["policy_compression indicators"]
    assert jobs(policies) == {**installed, "policy_compression quotes": "7 days"}
    policies.execute("UPDATE data_policies SET drop_after = '90 days' WHERE hypertable = 'quotes'")
    assert jobs(policies) == {**installed, "policy_compression quotes": "7 days", "retention_job": None}
    policies.execute("UPDATE data_policies SET drop_after = NULL")
    assert "retention_job" not in jobs(policies)


def test_apache_has_no_jobs(tx, edition):
    assert edition == "community" or jobs(tx) == {}


# Compression


def test_compression_is_done_or_is_said_not_to_be_there(history, edition):
    before = rows(history, "chunk_stats")
    notices: list = []
    history.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    if edition == "community":
        assert lifecycle.compress(history, "1 day") != []
        assert rows(history, "chunk_stats") != before
        return
    history.execute("CALL compress_history('1 day')")
    assert len(notices) == 1
    with pytest.raises(Problem):
        lifecycle.compress(history, "1 day")
    assert rows(history, "chunk_stats") == before
    assert history.execute("SELECT DISTINCT is_compressed, before_bytes, after_bytes, ratio"
                           " FROM chunk_compression_stats()").fetchall() == [(False, None, None, None)]


@pytest.mark.community
def test_old_chunks_are_compressed_and_say_the_same(history):
    before = rows(history, "timeseries_data")
    seen = []
    done = lifecycle.compress(history, progress=lambda n, of, chunk: seen.append((n, of, chunk.name)))
    assert [(n, len(done), chunk.name) for n, chunk in enumerate(done)] == seen
    assert all(chunk.after < chunk.before for chunk in done)
    stats = history.execute("SELECT is_compressed, range_end <= now() - interval '30 days' FROM chunk_stats").fetchall()
    assert all(compressed == old for compressed, old in stats)
    assert len(done) == sum(old for _, old in stats) > 0
    assert rows(history, "timeseries_data") == before
    assert lifecycle.compress(history) == []


@pytest.mark.community
def test_compressed_chunks_take_everything_that_others_take(history):
    at = history.execute("SELECT min(timestamp) + interval '6 hours' FROM timeseries_data").fetchone()
    history.execute("CALL compress_history('1 day')")
    key = (1, *at)
    history.execute("INSERT INTO timeseries_data (source_id, timestamp, close)"
                    " VALUES (1, %s + interval '1 minute', 107)", at)
    with pytest.raises(errors.UniqueViolation):
        history.execute("INSERT INTO timeseries_data (source_id, timestamp, close) VALUES (%s, %s, 108)", key)
    history.execute("INSERT INTO timeseries_data (source_id, timestamp, close) VALUES (%s, %s, 108)"
                    " ON CONFLICT (source_id, timestamp) DO UPDATE SET close = excluded.close", key)
    history.execute("UPDATE timeseries_data SET volume = 9 WHERE (source_id, timestamp) = (%s, %s)", key)
    history.execute("DELETE FROM timeseries_data WHERE (source_id, timestamp) = (%s, %s - interval '3 hours')", key)
    question = ("SELECT close, volume, quality_score FROM timeseries_data WHERE (source_id, timestamp) = (%s, %s)", key)
    expected = history.execute(*question).fetchall()
    assert (expected[0][:2], expected[0][2] is None) == ((108.0, 9.0), False)
    total = count(history, "timeseries_data")
    assert len(lifecycle.compress(history, "1 day")) == 1  # again, because of the rows that came later
    assert history.execute(*question).fetchall() == expected
    assert count(history, "timeseries_data") == total
    lifecycle.refresh(history)
    assert rows(history, "daily_ohlcv") == rows(history, "_tidemark.daily_ohlcv_direct")


def test_chunk_stats_tell_what_is_there(history):
    history.execute("ANALYZE timeseries_data")
    total, chunks, size = history.execute(
        "SELECT sum(row_count), count(*), sum(total_bytes) FROM chunk_stats"
    ).fetchone()
    assert (total, chunks) == (count(history, "timeseries_data"), count(history, "show_chunks('timeseries_data')"))
    assert size == history.execute("SELECT sum(pg_total_relation_size(c)) FROM show_chunks('timeseries_data') AS c"
                                   ).fetchone()[0]


# Retention


def test_nothing_is_dropped_that_nobody_asked_to_drop(history):
    before = count(history, "timeseries_data")
    history.execute("CALL apply_retention()")
    history.execute("CALL maintain()")
    assert lifecycle.what_would_go(history) == []
    assert lifecycle.clean(history) == []
    assert count(history, "timeseries_data") == before


def test_old_rows_go_are_recorded_and_leave_their_aggregates_behind(history):
    direct = rows(history, "_tidemark.daily_ohlcv_direct"), rows(history, "_tidemark.hourly_values_direct")
    keep(history, "40 days")
    expected = lifecycle.what_would_go(history)
    checksums = [
        history.execute("SELECT * FROM _tidemark.rows_checksum(%s::regclass,"
                        " _tidemark.column_list('timeseries_data', false))", (chunk.name,)).fetchone()
        for chunk in expected
    ]
    before = count(history, "timeseries_data")
    history.execute("SELECT set_config('tidemark.actor', 'carla', false)")
    history.execute("CALL apply_retention()")
    gone = sum(chunk.rows for chunk in expected)
    assert (before - gone, True) == (count(history, "timeseries_data"), gone > 0)
    assert history.execute(
        "SELECT min(timestamp) >= now() - interval '75 days' FROM timeseries_data"
    ).fetchone() == (True,)
    assert history.execute(
        "SELECT operation::text, table_name, row_key ->> 'chunk', (old_values ->> 'rows')::int,"
        " old_values ->> 'checksum', changed_by FROM audit_log WHERE operation = 'drop_chunk' ORDER BY audit_id"
    ).fetchall() == [
        ("drop_chunk", "timeseries_data", chunk.name, *checksum, "carla")
        for chunk, checksum in zip(expected, checksums, strict=True)
    ]
    assert (rows(history, "daily_ohlcv"), rows(history, "hourly_values")) == direct
    lifecycle.refresh(history)
    history.execute("CALL refresh_aggregates(now() - interval '1000 days', now())")
    assert (rows(history, "daily_ohlcv"), rows(history, "hourly_values")) == direct


def test_row_that_comes_late_into_a_dropped_range_changes_no_aggregate(history):
    direct = rows(history, "_tidemark.daily_ohlcv_direct")
    keep(history, "40 days")
    history.execute("CALL apply_retention()")
    late_bar(history, 77)
    assert rows(history, "daily_ohlcv") == direct
    lifecycle.refresh(history)
    assert rows(history, "daily_ohlcv") == direct


def test_chunks_that_somebody_else_drops_leave_their_aggregates_behind(history):
    """With drop_chunks, or a policy of TimescaleDB's own: noticed at the next refresh."""
    lifecycle.refresh(history)
    before = rows(history, "daily_ohlcv")
    history.execute("SELECT drop_chunks('timeseries_data', older_than => interval '50 days')")
    lifecycle.refresh(history)
    history.execute("CALL refresh_aggregates('2000-01-01', now())")
    assert rows(history, "daily_ohlcv") == before


def test_truncated_table_has_empty_aggregates_after_a_refresh(history):
    """And what comes then is no remnant of dropped history, however old it is."""
    lifecycle.refresh(history)
    history.execute("TRUNCATE timeseries_data")
    lifecycle.refresh(history)
    assert count(history, "daily_ohlcv") == 0
    history.execute("INSERT INTO timeseries_data (source_id, timestamp, close) "
                    "VALUES (1, now() - interval '9 days', 1)")
    lifecycle.refresh(history)
    late_bar(history, 77)
    lifecycle.refresh(history)
    assert count(history, "daily_ohlcv") == 2


def test_everything_may_go_and_the_aggregates_stay(history):
    history.execute("DELETE FROM timeseries_data WHERE timestamp > now() - interval '33 days'")
    direct = rows(history, "_tidemark.daily_ohlcv_direct")
    keep(history, "1 day")
    history.execute("CALL apply_retention()")
    # Even the days of the newest rows, which no refresh had precomputed before.
    assert count(history, "timeseries_data") == 0
    assert rows(history, "daily_ohlcv") == direct
    lifecycle.refresh(history)
    assert rows(history, "daily_ohlcv") == direct


def test_chunk_that_somebody_writes_to_stays_until_he_has_done(db, history):
    direct_before = count(history, "timeseries_data")
    keep(history, "40 days")
    with db.connect(autocommit=False) as writer:
        late_bar(writer, 5)
        history.execute("SET lock_timeout = '200ms'")
        with pytest.raises(errors.LockNotAvailable):
            lifecycle.clean(history)
        assert count(history, "timeseries_data") == direct_before
        writer.commit()
    history.execute("SET lock_timeout = 0")
    assert lifecycle.clean(history) != []
    assert history.execute("SELECT sum(samples) FROM daily_ohlcv").fetchone() == (direct_before + 1,)


def test_looking_for_chunks_costs_the_same_for_many_as_for_few(history):
    """Asking TimescaleDB for one chunk takes as long as asking for all."""
    calls = ("SELECT sum(calls) FROM pg_stat_user_functions WHERE schemaname = '_tidemark'"
             " AND funcname IN ('chunks', 'expires_before', 'newest_row', 'refresh_source')")
    asked = []
    history.execute("SELECT set_chunk_time_interval('candles', interval '1 day')")
    history.execute("INSERT INTO assets (symbol, asset_type) VALUES ('A', 'stock')")
    history.execute("INSERT INTO candles (asset_id, interval, ts, close) SELECT asset_id, '1d', t, 1 FROM assets,"
                    " generate_series(now() - interval '300 days', now(), '10 days') AS t")
    lifecycle.refresh(history)
    for days, chunks in ((290, 1), (90, 20)):
        keep(history, f"{days} days", "candles")
        history.execute("SET track_functions = 'all'")
        history.execute("SELECT pg_stat_force_next_flush()")
        before = history.execute(calls).fetchone()[0] or 0
        assert len(lifecycle.clean(history)) == chunks
        history.execute("SELECT pg_stat_force_next_flush()")
        asked.append(history.execute(calls).fetchone()[0] - before)
    assert asked[0] == asked[1] > 0


@pytest.mark.parametrize("other", [lifecycle.clean, lambda connection: connection.execute("CALL apply_retention()")])
def test_chunk_that_another_session_drops_meanwhile_is_left_to_it(db, history, other):
    keep(history, "40 days")
    due = lifecycle.what_would_go(history)
    total = count(history, "timeseries_data")
    failures = []

    def work() -> None:
        try:
            with db.connect() as connection:
                other(connection)
        except (psycopg.Error, Problem) as error:
            failures.append(error)

    with db.connect(autocommit=False) as first:
        assert first.execute("SELECT _tidemark.claim_chunk(%s::oid::regclass)", (due[0].oid,)).fetchone() == (True,)
        second = threading.Thread(target=work)
        second.start()
        deadline = time.monotonic() + 20
        while count(history, "pg_locks WHERE NOT granted") == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        first.execute("SELECT _tidemark.drop_chunk(%s::oid::regclass, %s::oid::regclass, %s, %s)",
                      (due[0].hypertable_oid, due[0].oid, due[0].range_start, due[0].range_end))
        first.commit()
    second.join()
    assert failures == []
    assert count(history, "timeseries_data") == total - sum(chunk.rows for chunk in due)
    assert count(history, "audit_log WHERE operation = 'drop_chunk'") == len(due) > 1


def test_preset_of_ninety_and_thirty_days_is_two_statements(policies):
    policies.execute("UPDATE data_policies SET drop_after = '90 days' WHERE hypertable IN ('candles', 'quotes')")
    policies.execute("UPDATE data_policies SET compress_after = '7 days', drop_after = '30 days'"
               " WHERE hypertable = 'sentiment_data'")
    assert policies.execute("SELECT count(*) FROM data_policies WHERE drop_after IS NOT NULL").fetchone() == (3,)


# Archive


def test_archive_holds_exactly_what_was_dropped(db, history, tmp_path):
    pytest.importorskip("pyarrow")
    keep(history, "40 days")
    before = rows(history, "timeseries_data")
    dropped = lifecycle.clean(history, tmp_path)
    files = sorted(tmp_path.rglob("*"))
    assert [file for file in files if file.is_file()] == sorted(chunk.archive for chunk in dropped) != []
    assert all(chunk.archive.parent.parent.name == "hypertable=timeseries_data" for chunk in dropped)
    after = rows(history, "timeseries_data")
    history.execute("CREATE TABLE back (LIKE timeseries_data)")
    assert sum(lifecycle.read_back(history, chunk.archive, "back") for chunk in dropped) == sum(c.rows for c in dropped)
    assert rows(history, "back") == before - after
    # and back where they came from, changing nothing that is frozen
    daily = rows(history, "daily_ohlcv")
    for chunk in dropped:
        lifecycle.read_back(history, chunk.archive, "timeseries_data")
    lifecycle.refresh(history)
    assert (rows(history, "timeseries_data"), rows(history, "daily_ohlcv")) == (before, daily)


def test_archive_that_does_not_hold_everything_drops_nothing(history, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    keep(history, "40 days")
    before = rows(history, "timeseries_data")
    whole = lifecycle._batches
    monkeypatch.setattr(lifecycle, "_batches", lambda *args: (batch.slice(1) for batch in whole(*args)))
    with pytest.raises(Problem):
        lifecycle.clean(history, tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    assert rows(history, "timeseries_data") == before
    assert count(history, "audit_log WHERE operation = 'drop_chunk'") == 0


def test_every_column_type_survives_the_archive(history, tmp_path):
    pytest.importorskip("pyarrow")
    history.execute("""
        CREATE TABLE odd (s text NOT NULL, ts timestamptz NOT NULL, a uuid, b numeric, c jsonb, d text[], e boolean,
                          f real, g float8, h smallint, i bigint, j candle_interval, k date, l bytea, m interval,
                          PRIMARY KEY (s, ts));
        SELECT create_hypertable('odd', by_range('ts', interval '1 day'));
        INSERT INTO data_policies (hypertable, drop_after) VALUES ('odd', '2 days');
        INSERT INTO odd VALUES
            ('x', '2024-03-31 01:30:00.123456+00', gen_random_uuid(), 1.230, '{"b": [1.0, null], "a": "é\\n"}',
             '{a,NULL,"b c"}', true, 0.1, 'NaN', -1, 9007199254740993, '1M', '2024-02-29', '\\x00ff', '1 mon 2 days'),
            ('y "z"\\,', '2024-03-31 00:00+00', NULL, NULL, NULL, NULL, NULL, '-Infinity', 1e-320, NULL, NULL, NULL,
             NULL, NULL, NULL)""")
    before = rows(history, "odd")
    history.execute("SET timezone = 'Australia/Lord_Howe'")
    (dropped,) = lifecycle.clean(history, tmp_path)
    assert (dropped.rows, count(history, "odd")) == (2, 0)
    lifecycle.read_back(history, dropped.archive, "odd")
    history.execute("SET timezone = 'UTC'")
    assert rows(history, "odd") == before


# Upkeep


def test_maintain_does_everything_and_one_at_a_time(db, history, edition):
    keep(history, "70 days")
    with db.connect() as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('tidemark.maintain', 0))")
        assert lifecycle.maintain(history) is False
        assert count(history, "audit_log WHERE operation = 'drop_chunk'") == 0
        other.execute("SELECT pg_advisory_unlock_all()")
    assert lifecycle.maintain(history) is True
    assert lifecycle.what_would_go(history) == []
    assert history.execute("SELECT bool_and(refreshed_at IS NOT NULL) FROM _tidemark.rollups"
                           " WHERE hypertable = 'timeseries_data'::regclass").fetchone() == (True,)
    if edition == "community":
        assert count(history, "chunk_stats WHERE is_compressed") > 0
    assert lifecycle.maintain(history) is True  # and gives its lock back


def test_ten_maintainers_at_once_do_the_work_once(db, history):
    keep(history, "40 days")
    due = len(lifecycle.what_would_go(history))
    failures: list = []

    def work() -> None:
        try:
            with db.connect() as connection:
                lifecycle.maintain(connection)
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert count(history, "audit_log WHERE operation = 'drop_chunk'") == due > 0


def test_stats_are_json_and_true(history, edition):
    history.execute("ANALYZE timeseries_data")
    lifecycle.refresh(history)
    stats = json.loads(json.dumps(lifecycle.stats(history)))
    assert stats["edition"] == edition
    (table,) = stats["hypertables"]
    assert (table["name"], table["rows"]) == ("timeseries_data", count(history, "timeseries_data"))
    aggregates = {row["name"]: row for row in stats["aggregates"]}
    assert 0 <= aggregates["daily_ohlcv"]["lag_seconds"] < 86400
    assert aggregates["daily_ohlcv"]["refreshed_at"] is not None
    assert aggregates["candles_1d"]["lag_seconds"] is None
    assert [row["hypertable"] for row in stats["policies"]] == HYPERTABLES
    assert bool(stats["jobs"]) == (edition == "community")
    assert stats["database_bytes"] > time.time() % 1


def test_chunk_that_cannot_be_dropped_keeps_no_other_from_being_so(history):
    keep(history, "10 days")
    oldest, *_ = [chunk for (chunk,) in history.execute(
        "SELECT chunk FROM chunk_stats WHERE hypertable = 'timeseries_data' ORDER BY range_start")]
    history.execute(f"CREATE VIEW in_the_way AS SELECT * FROM {oldest}")
    warned = []
    history.add_notice_handler(lambda notice: warned.append(notice.message_primary))
    with pytest.raises(errors.Error) as refused:
        history.execute("CALL maintain(NULL)")
    assert refused.value.sqlstate == "TM609"
    assert [text for text in warned if "cannot be dropped" in text] == [
        f"{oldest} of timeseries_data cannot be dropped"
    ]
    assert history.execute(
        "SELECT min(range_start) FILTER (WHERE chunk <> %s) > now() - interval '50 days', bool_or(chunk = %s)"
        " FROM chunk_stats WHERE hypertable = 'timeseries_data'", (oldest, oldest)).fetchone() == (True, True)
    history.execute("DROP VIEW in_the_way")
    history.execute("CALL apply_retention()")


@pytest.mark.community
def test_chunk_that_cannot_be_compressed_keeps_no_other_from_being_so(history):
    oldest, *_ = [chunk for (chunk,) in history.execute(
        "SELECT chunk FROM chunk_stats WHERE hypertable = 'timeseries_data' ORDER BY range_start")]
    body = history.execute("SELECT prosrc FROM pg_proc WHERE oid = '_tidemark.compress_chunk'::regproc").fetchone()[0]
    history.execute(
        "CREATE OR REPLACE FUNCTION _tidemark.compress_chunk(p_hypertable regclass, p_chunk regclass) RETURNS void"
        " LANGUAGE plpgsql AS $f$" + body.replace("BEGIN", f"BEGIN IF p_chunk = '{oldest}'::regclass THEN RAISE"
                                                  " EXCEPTION 'not this one'; END IF;", 1) + "$f$")
    with pytest.raises(errors.Error) as refused:
        history.execute("CALL compress_history('1 day')")
    assert refused.value.sqlstate == "TM609"
    assert history.execute(
        "SELECT chunk FROM chunk_stats WHERE hypertable = 'timeseries_data' AND range_end < now() - interval '1 day'"
        " AND NOT is_compressed").fetchall() == [(oldest,)]
