"""Mutations of what keeps history small and fast: aggregates, refresh, compression, retention, upkeep."""

from __future__ import annotations

from . import Mutation, recoded, rewritten

AGGREGATES, CONCURRENCY = "history/test_aggregates.py", "history/test_aggregates_concurrency.py"
PROPERTY, LIFECYCLE = "history/test_aggregates_property.py", "history/test_lifecycle.py"
ODD = "history/test_odd_rows.py"
COMPRESSED = {"edition": "community"}
PRECOMPUTED = {"edition": "apache"}

MUTATIONS = [
    # 1 aggregates
    Mutation("history 1", "late updates are not logged", "DROP TRIGGER trg_log_update ON timeseries_data", AGGREGATES,
             "late_change", **PRECOMPUTED),
    Mutation("history 1", "an update is logged where the row was and not where it is",
             rewritten("_tidemark.log_changes_of", "' UNION ALL (SELECT %1$s FROM new_rows WHERE %2$s EXCEPT ALL"
                       " SELECT %1$s FROM old_rows WHERE %2$s)'", "''"), PROPERTY, **PRECOMPUTED),
    Mutation("history 1", "new rows are logged", rewritten("_tidemark.log_timeseries_data_changes",
             "to_timestamp(pg_sequence_last_value", "'infinity'; v_unused CONSTANT timestamptz := to_timestamp("
             "pg_sequence_last_value"), AGGREGATES, "cost_no_entry", **PRECOMPUTED),
    Mutation("history 1", "days are those of the session",
             "ALTER VIEW daily_ohlcv RENAME TO hidden; CREATE VIEW daily_ohlcv AS SELECT source_id,"
             " date_trunc('day', day) AS day, open, high, low, close, volume, samples FROM hidden", AGGREGATES,
             "whatever_the_session", **PRECOMPUTED),
    Mutation("history 1", "a confirmed error counts until the next refresh of everything",
             "DROP TRIGGER trg_exclude_reviewed ON anomalies", AGGREGATES, "left_out"),
    Mutation("history 1", "Community stores only what is materialised",
             "ALTER MATERIALIZED VIEW daily_ohlcv SET (timescaledb.materialized_only = true)", AGGREGATES,
             "cost_no_entry", **COMPRESSED),
    # 2 refresh
    Mutation("history 2", "buckets of dropped rows are computed again",
             rewritten("_tidemark.freeze", "WHERE r.hypertable = p_hypertable LOOP", "WHERE false LOOP"), LIFECYCLE,
             "recorded_and_leave"),
    Mutation("history 2", "a drop hides whatever comes into its period",
             rewritten("_tidemark.freeze", "range_agg(b.span)", "''{(,)}''::tstzmultirange"), ODD, "hides_no_history"),
    Mutation("history 2", "one aggregate that cannot be computed keeps all others back",
             rewritten("_tidemark.refresh_source", "WHEN data_exception THEN", "WHEN syntax_error THEN"), ODD,
             "keeps_no_other", **PRECOMPUTED),
    Mutation("history 2", "everything is computed again",
             rewritten("_tidemark.refresh_rollup", "IF p_from IS NOT NULL OR p_to IS NOT NULL THEN", "IF true THEN"),
             AGGREGATES, "nothing_else", **PRECOMPUTED),
    Mutation("history 2", "a refresh does not wait for those who write",
             rewritten("_tidemark.writers", "SELECT coalesce(array_agg(DISTINCT l.virtualtransaction), '{}')",
                       "SELECT '{}'::text[]"), CONCURRENCY, "moved_past_it", **PRECOMPUTED),
    Mutation("history 2", "a change that is logged while a refresh works is forgotten",
             rewritten("_tidemark.refresh_source", "c.hypertable = p_hypertable AND c.is_taken",
                       "c.hypertable = p_hypertable"), CONCURRENCY, "left_to_the_next_one", **PRECOMPUTED),
    Mutation("history 2", "refresh_all_aggregates leaves the job to its schedule",
             rewritten("public.refresh_all_aggregates", "PERFORM public.alter_job(r.job_id, next_start => now());",
                       "PERFORM 1;"),
             AGGREGATES, "run_now", **COMPRESSED),
    # 3 compression
    Mutation("history 3", "quotes are not grouped by their series",
             "ALTER TABLE quotes SET (timescaledb.compress_segmentby = '')", LIFECYCLE, "newest_first", **COMPRESSED),
    Mutation("history 3", "nothing is ever due",
             rewritten("_tidemark.compressible_chunks", "coalesce(p_older_than, p.compress_after)", "p_older_than"),
             LIFECYCLE, "say_the_same", **COMPRESSED),
    Mutation("history 3", "what comes into a compressed chunk stays as it is",
             rewritten("_tidemark.compressible_chunks", "OR pg_relation_size(c.chunk) > 0", ""), LIFECYCLE,
             "that_others_take", **COMPRESSED),
    Mutation("history 3", "Apache-2 does not say that it cannot compress",
             rewritten("public.compress_history", "RAISE NOTICE", "RAISE DEBUG"), LIFECYCLE, "said_not_to_be_there",
             **PRECOMPUTED),
    # 4 retention
    Mutation("history 4", "history is dropped unasked", "UPDATE data_policies SET drop_after = '60 days'", LIFECYCLE,
             "nobody_asked"),
    Mutation("history 4", "what was dropped is not on record",
             rewritten("_tidemark.drop_chunk", "PERFORM _tidemark.record_chunk_drop(", "PERFORM concat("), LIFECYCLE,
             "recorded_and_leave"),
    Mutation("history 4", "chunks go before the aggregates have what they need",
             rewritten("_tidemark.drop_chunk", "r.watermark < _tidemark.bucket_ceiling(r.bucket, p_to)",
                       "false")
             + rewritten("_tidemark.drop_chunk", "NULL, NULL, v_through, '2 seconds'", "NULL, NULL, NULL, '0 seconds'"),
             LIFECYCLE, "everything_may_go", **PRECOMPUTED),
    Mutation("history 4", "an archive is not read back", "", LIFECYCLE, "does_not_hold_everything",
             patch=recoded("tidemark.lifecycle:_prove", "if found != expected:", "if False:")),
    # 5 upkeep
    Mutation("history 5", "jobs do not follow the policies", "DROP TRIGGER trg_follow_policies ON data_policies",
             LIFECYCLE, "jobs_follow", **COMPRESSED),
    Mutation("history 5", "a policy for nothing is accepted",
             rewritten("_tidemark.name_policy", "ELSIF v_relation IS NULL THEN", "ELSIF false THEN"), LIFECYCLE,
             "no_hypertable_is_refused"),
    Mutation("history 5", "everybody maintains at once",
             rewritten("public.maintain", "pg_catalog.pg_try_advisory_lock(c_lock)", "true"), LIFECYCLE,
             "one_at_a_time"),
    Mutation("history 5", "upkeep drops nothing",
             rewritten("public.maintain", "CALL _tidemark.drop_expired(v_failed, v_waiting);", ""), LIFECYCLE,
             "does_everything"),
]
