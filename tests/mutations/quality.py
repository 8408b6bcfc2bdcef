"""Mutations of the quality engine, part by part of what it promises."""

from __future__ import annotations

from . import Mutation, rewritten, rewritten_view

SCORE, RULES = "quality/test_quality_score.py", "quality/test_quality_rules.py"
DETECTOR, REVIEW, DOUBTFUL = (f"quality/test_quality_{name}.py" for name in ("detector", "review", "doubtful"))
ATTACH, SESSIONS = "quality/test_quality_attach.py", "quality/test_quality_sessions.py"
MEMORY, OF_BARS = "quality/test_quality_memory.py", "quality/test_quality_fields.py"
ACCEPTANCE, GAPS, CALENDAR = "quality/test_quality_acceptance.py", "test_gaps.py", "test_calendar.py"

VERDICTS, TRIGGER = "_tidemark.verdicts", "_tidemark.score_timeseries_data"
LOGS, READER = "_tidemark.detect_logs", "_tidemark.read_timeseries_data"
FIELDS = "_tidemark.fields_timeseries_data"
RECALL, RECORDER, LINKER = "_tidemark.recall", "_tidemark.record_verdicts", "_tidemark.link_episodes"
REBUILD = "SELECT _tidemark.build_quality(t.hypertable) FROM _tidemark.quality_targets AS t"

MUTATIONS = [
    # 1 the score
    Mutation("quality 1", "rows are not scored as they come", "DROP TRIGGER trg_calculate_quality_score ON"
             " timeseries_data", SCORE, "points_lost"),
    Mutation("quality 1", "a missing field costs as much as a broken rule",
             rewritten(VERDICTS, "'completeness', 30,", "'completeness', 10,"), SCORE, "points_lost"),
    Mutation("quality 1", "each missing field costs",
             rewritten(VERDICTS, "THEN ARRAY[ROW(\n                                 'completeness', 30,",
                       "THEN ARRAY[ROW(\n                                 'completeness',"
                       " 30 * cardinality(d.missing),"), SCORE, "points_lost"),
    Mutation("quality 1", "a score falls below zero",
             rewritten(VERDICTS, "greatest(0, 100 - ", "greatest(-100, 100 - ")
             + "ALTER TABLE timeseries_data DROP CONSTRAINT timeseries_data_quality_score_in_range",
             SCORE, "below_zero"),
    Mutation("quality 1", "half is more than half",
             rewritten(VERDICTS, "> p_profile.max_change::numeric * abs(f.previous::numeric)",
                       ">= p_profile.max_change::numeric * abs(f.previous::numeric)")
             + rewritten(RECALL, "q.max_change * 0.999999", "0.4"), SCORE, "test_consistency"),
    Mutation("quality 1", "the good row after a jump pays for it too",
             rewritten(VERDICTS, "(abs(d.value - f.reference) <= p_profile.max_change * abs(f.reference))", "NULL"),
             SCORE, "test_consistency"),
    Mutation("quality 1", "rows loaded as history are late",
             rewritten(TRIGGER, "'backfill', 'correction', 'replay'", "'x'"), SCORE, "late_rows"),
    Mutation("quality 1", "rows age while the market is closed",
             rewritten("_tidemark.late_before", "IF p_market IS NULL THEN", "IF true THEN"), SCORE, "open_time"),
    Mutation("quality 1", "a lost point has no reason",
             rewritten(RECORDER, "CROSS JOIN LATERAL unnest(v.penalties) AS u\n    ON CONFLICT",
                       "CROSS JOIN LATERAL unnest(v.penalties) AS u WHERE false\n    ON CONFLICT"),
             SCORE, "points_lost"),
    Mutation("quality 1", "the caller's own score is believed",
             rewritten(TRIGGER, "d.quality_score IS DISTINCT FROM 100", "false")
             + rewritten(READER, "d.quality_score IS DISTINCT FROM 100 OR d.is_anomaly IS DISTINCT FROM false",
                         "false"),
             SCORE, "explicit_score"),
    # 2 rules
    Mutation("quality 2", "an expression that does not compile is accepted",
             rewritten("_tidemark.check_expression", "PERFORM _tidemark.refuse_rule(p_rule.name, 'TM207', SQLERRM)",
                       "NULL"), RULES, "broken_rule"),
    Mutation("quality 2", "an expression that is not immutable is accepted",
             rewritten("_tidemark.check_expression", "PERFORM _tidemark.refuse_rule(p_rule.name, 'TM208', SQLERRM)",
                       "NULL"), RULES, "broken_rule"),
    Mutation("quality 2", "rules are not checked at all", "DROP TRIGGER trg_check_rule ON validation_rules", RULES,
             "broken_rule"),
    Mutation("quality 2", "a new rule waits for the next migration",
             "DROP TRIGGER trg_enforce_inserted ON validation_rules", RULES, "in_force"),
    Mutation("quality 2", "a rule that fails on a row blocks it",
             rewritten("_tidemark.rule_failures", "data_exception OR program_limit_exceeded", "raise_exception")
             + REBUILD + "; " + rewritten("_tidemark.judge", "WHEN data_exception OR program_limit_exceeded",
                                "WHEN raise_exception"), RULES, "never_blocks"),
    Mutation("quality 2", "an open below the low is in order",
             rewritten("_tidemark.rule_condition", "d.@low@ > d.@open@ OR ", "") + REBUILD, SCORE, "points_lost"),
    Mutation("quality 2", "NULL violates a rule",
             rewritten("_tidemark.rule_tokens", "(%s) IS FALSE'", "(%s) IS NOT TRUE'") + REBUILD, SCORE,
             "points_lost"),
    Mutation("quality 2", "any instant is on the grid",
             rewritten("_tidemark.rule_condition", "date_bin(p.step, @time@, '2000-01-03 00:00+00') = @time@", "true")
             + REBUILD, RULES, "aligned"),
    Mutation("quality 2", "the break is part of the session",
             rewritten("_tidemark.rule_condition", "(c.break_starts_at <= %1$s", "(c.break_starts_at <> %1$s AND false")
             + REBUILD, RULES, "session_open"),
    # 3 anomalies
    Mutation("quality 3", "the echo of a bad row is flagged",
             rewritten(LOGS, "THEN w.deviation::double precision * w.deviation::double precision *",
                       "THEN w.change::double precision * w.change::double precision *")
             + rewritten(LOGS, "THEN e.deviation::double precision ELSE e.change::double precision - e.mean END",
                         "THEN e.change::double precision - e.mean ELSE e.change::double precision - e.mean END"),
             DETECTOR, "echo"),
    Mutation("quality 3", "splits are spikes", rewritten(VERDICTS, "THEN 'split_candidate'::", "THEN 'spike'::"),
             ACCEPTANCE, "splits"),
    Mutation("quality 3", "any jump is a split", rewritten(VERDICTS, "<= 0.03", "<= 0.3"), ACCEPTANCE, "splits"),
    Mutation("quality 3", "30 changes are enough", rewritten("_tidemark.beginnings", "HAVING count(*) > v_min_samples",
             "HAVING count(*) >= v_min_samples"), DETECTOR, "fewer_than_thirty"),
    Mutation("quality 3", "one tick of a flat series is infinitely far",
             rewritten(LOGS, "1e7 * greatest(v_scale_floor, v_tick / c.previous)", "1e-30"), DETECTOR,
             "flat_series"),
    Mutation("quality 3", "one error hides the next",
             rewritten(LOGS, "<= 4 * greatest(", "<= 1e9 * greatest("), DETECTOR, "masking"),
    Mutation("quality 3", "a row is part of its own baseline",
             rewritten(LOGS, "BETWEEN v_rows PRECEDING AND 1 PRECEDING", "BETWEEN v_rows PRECEDING AND CURRENT ROW")
             + rewritten(LOGS, "<= 4 * greatest(", "<= 40 * greatest("),  # else it is left out: it stands out
             DETECTOR, "own_baseline"),
    Mutation("quality 3", "a burst of volatility is measured by the calm before it",
             rewritten(LOGS, "BETWEEN 20 PRECEDING AND 1 PRECEDING", "BETWEEN 20 PRECEDING AND 20 PRECEDING"),
             DETECTOR, "agrees_with_its_definition"),
    Mutation("quality 3", "what is beyond 6 is an anomaly like others",
             rewritten(VERDICTS, "WHEN abs(f.z_score) > p_profile.black_swan_z THEN", "WHEN false THEN"), DETECTOR,
             "test_severity"),
    Mutation("quality 3", "changes over night are judged like others", rewritten(LOGS, "THEN p_profile.market END",
             "THEN NULL END"), SESSIONS, "among_their_like"),
    Mutation("quality 3", "every anomaly is an episode",
             rewritten(LINKER, "WHERE c.is_apart\n", "WHERE true\n"), REVIEW,
             "one_episode"),
    Mutation("quality 3", "nobody is notified", rewritten(LINKER, "_tidemark.notify('tidemark_anomaly', v_payload)",
             "v_payload"), REVIEW, "one_notification"),
    Mutation("quality 3", "a confirmed error stays in later baselines",
             rewritten(READER, "b.status = 'confirmed_error' AND b.field", "false AND b.field"), REVIEW,
             "leaves_later_baselines"),
    Mutation("quality 3", "a review outlives the value it was of",
             rewritten(RECORDER, "IS NOT DISTINCT FROM (EXCLUDED.value, EXCLUDED.field)\n"
                       "                             THEN a.status ELSE 'open' END",
                       "IS NOT DISTINCT FROM (EXCLUDED.value, EXCLUDED.field)\n"
                       "                             THEN a.status ELSE a.status END"),
             REVIEW, "review_ends"),
    Mutation("quality 3", "nobody looks at highs", rewritten(FIELDS, "WHERE abs(b.upper) >",
             "WHERE false AND abs(b.upper) >"), OF_BARS, "real_bars"),
    Mutation("quality 3", "a bar that comes alone is judged by its close",
             rewritten(RECALL, "OR r.wick * 1e7 > 0.599", "OR r.wick * 1e7 > 1e9"), OF_BARS, "row_by_row"),
    Mutation("quality 3", "an open is measured by its own bar alone",
             rewritten(FIELDS, "'open', x.open, s.mean,", "'open', x.open, 0::double precision,"), OF_BARS,
             "another_thing"),
    # 4 one engine, any table
    Mutation("quality 4", "attaching again makes everything anew",
             rewritten("_tidemark.make_function", "p.prosrc = v_body", "false"), ATTACH, "again_changes_nothing"),
    Mutation("quality 4", "candles of all intervals are one series",
             rewritten("_tidemark.read_candles",
                       """ AND d."interval" = (i.series ->> 'interval')::public.candle_interval""", ""),
             ATTACH, "are_a_series"),
    Mutation("quality 4", "rows without identity are accepted",
             rewritten("public.attach_quality", "'TM203'", "'TM204'"), ATTACH, "without_identity"),
    Mutation("quality 4", "whoever scores waits for others without end",
             "ALTER FUNCTION _tidemark.write_verdicts RESET lock_timeout", ATTACH, "late_row_does_not_wait"),
    Mutation("quality 4", "rows in compressed chunks are looked for before they show",
             rewritten("_tidemark.compressed_periods", "IF _tidemark.edition() = 'community' THEN", "IF false THEN"),
             ATTACH, "compressed_chunks", edition="community"),
    Mutation("quality 4", "rows of no source are stored", "DROP TRIGGER trg_check_source ON timeseries_data", SCORE,
             "unknown_source"),
    Mutation("quality 4", "what was said about a deleted row stays", "DROP TRIGGER trg_forget_deleted ON"
             " timeseries_data", SCORE, "test_delete_removes"),
    # 5 the canonical result
    Mutation("quality 5", "rows after a late one keep their scores",
             rewritten(TRIGGER, "true, v_is_safe", "false, v_is_safe"), DETECTOR,
             "any_order"),
    Mutation("quality 5", "the look-back is too short",
             rewritten(READER, "2 * p_profile.baseline_rows + greatest(24, v_first + 2)", "p_profile.baseline_rows"),
             DETECTOR, "row_by_row"),
    Mutation("quality 5", "a row alone is not judged by the detector",
             rewritten(RECALL, "WHEN NOT v_is_noteworthy AND NOT v_may_stand_out;", "WHEN NOT v_is_noteworthy;"),
             DETECTOR, "row_by_row"),
    Mutation("quality 5", "rescore passes over rows that nobody scored",
             rewritten("public.rescore", "BETWEEN $2 AND $3\n                 GROUP BY",
                       "BETWEEN $2 AND $3 AND d.quality_score IS NOT NULL\n                 GROUP BY"),
             DETECTOR, "stored_without_scoring"),
    Mutation("quality 5", "what is remembered is believed whatever happened since",
             rewritten(RECALL, "OR (NOT r.has_own_lapses AND m.lapses <> r.lapses)", "")
             + rewritten(RECALL, "OR (v_has_lapsed AND m.lapses", "OR (false AND m.lapses"), MEMORY, "behind_its_back"),
    Mutation("quality 5", "a dropped chunk leaves no trace in what is remembered",
             rewritten(RECALL, "NOT _tidemark.has_chunks(", "_tidemark.has_chunks("), MEMORY, "behind_its_back"),
    Mutation("quality 5", "whoever cannot hold a memory leaves no lapse",
             rewritten("_tidemark.forget_series", "HAVING count(*) > 0", "HAVING false"), MEMORY, "two_feeds"),
    # 6 what is missing
    Mutation("quality 6", "the rows of other sources fill gaps",
             rewritten("_tidemark.series_gaps", "WHERE t.source_id = p_source_id\n               AND t.timestamp >=",
                       "WHERE t.timestamp >="), GAPS, "other_sources"),
    Mutation("quality 6", "beyond the calendar nothing is missing",
             rewritten("_tidemark.series_gaps", "RAISE EXCEPTION USING ERRCODE = 'TM304',", "RETURN; RAISE EXCEPTION"
                       " USING ERRCODE = 'TM304',"), GAPS, "errors_have_codes"),
    Mutation("quality 6", "a source that was retired still lacks rows",
             rewritten("_tidemark.series_gaps", "IF NOT p_is_active THEN", "IF false THEN"), GAPS, "idle_source"),
    Mutation("quality 6", "a price that is traded at is stale",
             rewritten("_tidemark.series_stale_runs", "coalesce(t.volume, 0) = 0", "true"), GAPS, "test_stale_runs"),
    Mutation("quality 6", "coverage reads every row",
             rewritten_view("coverage", "candles_days", "_tidemark.candles_days_direct"), GAPS, "read_no_rows"),
    Mutation("quality 6", "the report tells of rows that were dropped",
             rewritten_view("quality_report", "g.day >= ( SELECT", "g.day <> ( SELECT"), GAPS, "chunks_were_dropped"),
    Mutation("quality 6", "the calendar overwrites what was entered by hand",
             rewritten("_tidemark.store_calendar", "WHERE c.origin <> 'manual'\n           AND (c.origin",
                       "WHERE (c.origin"), CALENDAR, "manual_rows"),
    # 7 seeing it
    Mutation("quality 7", "the report counts flags that are none",
             rewritten_view("quality_report", "g.anomalies,", "g.row_count AS anomalies,"), REVIEW, "test_report"),
    Mutation("quality 7", "the report reads all chunks",
             rewritten_view("quality_report", "g.day,", "g.day + '00:00:00'::interval AS day,"), REVIEW,
             "reads_the_chunks"),
    Mutation("quality 7", "the queue shows what was reviewed",
             rewritten_view("anomaly_queue", "(o.status = 'open'::anomaly_status)", "true"), REVIEW, "queue_shows"),
    Mutation("quality 7", "the queue shows moves that the market made",
             rewritten_view("anomaly_queue", "AND (o.is_doubtful IS NOT FALSE)", ""), DOUBTFUL, "stays_is_for_nobody"),
    Mutation("quality 7", "the newest row tells whether a move stays",
             rewritten("_tidemark.doubts_timeseries_data", "n.row_count < 2", "n.row_count < 1"), DOUBTFUL,
             "forms_says_nothing"),
    Mutation("quality 7", "an open that came back says nothing",
             rewritten("_tidemark.doubts_timeseries_data", "ln(n.first_value) + c.split", "ln(n.next_value) + c.split"),
             DOUBTFUL, "must_come_back_further"),
    Mutation("quality 7", "rows that came before are not decided by the next",
             rewritten("_tidemark.decide_doubtful", "LIMIT 2)", "LIMIT 0)"), DOUBTFUL, "once_another_has_come"),
    Mutation("quality 7", "the queue begins with the smallest",
             rewritten_view("anomaly_queue", " DESC, ", ", "), REVIEW,
             "queue_shows"),
]
