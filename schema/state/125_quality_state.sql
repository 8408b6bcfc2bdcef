-- Quality: what the engine keeps for itself, the profiles that rows are judged by unless told otherwise, and the
-- rules that ship.

-- sum(bigint) answers in numeric and is slow in a moving frame. This one stays a bigint: two additions a row.
CREATE AGGREGATE _tidemark.moving_sum(bigint) (
    sfunc = pg_catalog.int8pl,
    stype = bigint,
    initcond = '0',
    msfunc = pg_catalog.int8pl,
    minvfunc = pg_catalog.int8mi,
    mstype = bigint,
    minitcond = '0',
    parallel = safe
);
COMMENT ON AGGREGATE _tidemark.moving_sum(bigint) IS
'Exact sum of whole numbers whose window frame moves cheaply; 0 over no rows. Inlined functions of the server only.';

CREATE TYPE _tidemark.penalty AS (
    penalty public.quality_penalty,
    points smallint,
    rule_id integer,
    detail text
);
COMMENT ON TYPE _tidemark.penalty IS 'One reason for which a row lost points.';

CREATE TYPE _tidemark.finding AS (
    island integer, -- position of its stretch in the arguments of the judge
    ts timestamptz,
    previous double precision, -- the valid value before
    reference double precision, -- median of the three valid values before
    observed double precision,
    expected double precision,
    deviation double precision,
    scale double precision,
    samples integer,
    z_score double precision, -- NULL: not judged by the detector
    is_first boolean -- first row of a session: judged among its like
);
COMMENT ON TYPE _tidemark.finding IS 'A row that a pass over its series found worth a closer look.';

CREATE TYPE _tidemark.verdict AS (
    series jsonb,
    ts timestamptz,
    score smallint,
    is_anomaly boolean,
    penalties _tidemark.penalty [],
    severity public.anomaly_severity, -- NULL: leave a reviewed anomaly as it stands
    kind public.anomaly_kind,
    z_score double precision,
    value double precision,
    observed double precision,
    expected double precision,
    deviation double precision,
    scale double precision,
    samples integer
);
COMMENT ON TYPE _tidemark.verdict IS 'What a row is worth and why.';

CREATE TYPE _tidemark.judged_row AS (
    n bigint, -- position among the findings
    value double precision,
    first_value double precision, -- of the bar
    quality_score smallint,
    is_anomaly boolean,
    missing text [], -- required fields that are NULL
    broken integer [] -- rules that are violated
);
COMMENT ON TYPE _tidemark.judged_row IS 'A row that is judged, as it is stored.';

CREATE TABLE _tidemark.quality_targets (
    hypertable regclass NOT NULL,
    label text NOT NULL,
    stem text NOT NULL,
    series_columns text [] NOT NULL,
    time_column text NOT NULL,
    value_columns text [] NOT NULL,
    open_column text,
    source_column text,
    interval_column text,
    quality_profile_id integer NOT NULL,
    is_attached boolean NOT NULL DEFAULT true,
    builds bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT quality_targets_pkey PRIMARY KEY (hypertable),
    CONSTRAINT quality_targets_label_key UNIQUE (label),
    CONSTRAINT quality_targets_stem_key UNIQUE (stem),
    CONSTRAINT quality_targets_quality_profile_id_fkey FOREIGN KEY (quality_profile_id)
    REFERENCES public.quality_profiles (quality_profile_id)
);
CREATE INDEX quality_targets_quality_profile_id_idx ON _tidemark.quality_targets (quality_profile_id);
COMMENT ON INDEX _tidemark.quality_targets_quality_profile_id_idx IS 'Hypertables that fall back on a profile.';
COMMENT ON TABLE _tidemark.quality_targets IS 'Hypertables that attach_quality was called for.';
COMMENT ON COLUMN _tidemark.quality_targets.hypertable IS 'The hypertable.';
COMMENT ON COLUMN _tidemark.quality_targets.label IS 'Its name in quality_issues, anomalies and validation_rules.';
COMMENT ON COLUMN _tidemark.quality_targets.stem IS 'Ending of the names of the functions made for it.';
COMMENT ON COLUMN _tidemark.quality_targets.series_columns IS 'Columns that tell one series from another.';
COMMENT ON COLUMN _tidemark.quality_targets.time_column IS 'Column that orders a series.';
COMMENT ON COLUMN _tidemark.quality_targets.value_columns IS 'Columns of which the first that is not NULL is judged.';
COMMENT ON COLUMN _tidemark.quality_targets.open_column IS 'First price of a bar, by which splits are recognised.';
COMMENT ON COLUMN _tidemark.quality_targets.source_column IS 'Series column that refers to sources.';
COMMENT ON COLUMN _tidemark.quality_targets.interval_column IS 'Series column that holds the length of a bar.';
COMMENT ON COLUMN _tidemark.quality_targets.quality_profile_id IS 'Profile where neither source nor interval has one.';
COMMENT ON COLUMN _tidemark.quality_targets.is_attached IS 'False after detach_quality, which an update respects.';
COMMENT ON COLUMN _tidemark.quality_targets.builds IS
'Counts the times its functions were made; raising it also makes whoever else changes rules wait.';
COMMENT ON COLUMN _tidemark.quality_targets.created_at IS 'When the row was stored.';

-- What the engine remembers of a series, so that the next row need not be judged by reading the rows before it. A
-- cache: it is empty after a crash, on a promoted standby and after a restore, and rebuilds itself from the rows. A row
-- whose newest is NULL remembers nothing.
--
-- The newest row is no part of its own baseline, and may change while its bar forms. Those before it, up to the
-- profile's baseline_rows, lie in a ring: row number i of row_count in element (i - 1) % baseline_rows + 1. A change is
-- in whole 1e-7 of a logarithm, NULL where it is part of no baseline; is_kept says whether pass 1 kept it. base_… are
-- sums over the changes, kept_… over those kept, …_20 over those kept among the last twenty.
CREATE UNLOGGED TABLE _tidemark.series_memory (
    hypertable regclass NOT NULL,
    series jsonb NOT NULL,
    newest_at timestamptz,
    newest double precision,
    previous double precision,
    level_1 bigint,
    level_2 bigint,
    level_3 bigint,
    level_4 bigint,
    is_first boolean,
    row_count bigint,
    changes integer [],
    is_kept boolean [],
    base_sum bigint,
    base_squares bigint,
    base_count bigint,
    kept_sum bigint,
    kept_squares bigint,
    kept_count bigint,
    sum_20 bigint,
    squares_20 bigint,
    count_20 bigint,
    quality_profile_id integer,
    step interval,
    is_live boolean,
    chunks bigint,
    lapses bigint,

    CONSTRAINT series_memory_pkey PRIMARY KEY (hypertable, series)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.5);
-- In place: an array that is moved elsewhere, or compressed, is slow to replace.
ALTER TABLE _tidemark.series_memory
ALTER COLUMN changes SET STORAGE PLAIN,
ALTER COLUMN is_kept SET STORAGE PLAIN;
COMMENT ON TABLE _tidemark.series_memory IS
'A cache of what the next row of a series is judged by; rebuilt from the rows whenever it is not certain to be right.';
COMMENT ON COLUMN _tidemark.series_memory.hypertable IS 'Hypertable.';
COMMENT ON COLUMN _tidemark.series_memory.series IS 'Key of the series without the time.';
COMMENT ON COLUMN _tidemark.series_memory.newest_at IS 'Time of its newest valid row, as far as is known.';
COMMENT ON COLUMN _tidemark.series_memory.newest IS 'Value of that row; NULL: nothing is remembered.';
COMMENT ON COLUMN _tidemark.series_memory.previous IS 'Valid value before it.';
COMMENT ON COLUMN _tidemark.series_memory.level_1 IS 'Logarithm of the newest value, in 1e-7.';
COMMENT ON COLUMN _tidemark.series_memory.level_2 IS 'Logarithm of the value before it.';
COMMENT ON COLUMN _tidemark.series_memory.level_3 IS 'Logarithm of the second value before it.';
COMMENT ON COLUMN _tidemark.series_memory.level_4 IS 'Logarithm of the third value before it.';
COMMENT ON COLUMN _tidemark.series_memory.is_first IS 'Whether the newest row is the first of its session.';
COMMENT ON COLUMN _tidemark.series_memory.row_count IS 'Rows that went into the ring.';
COMMENT ON COLUMN _tidemark.series_memory.changes IS 'Ring of changes, in 1e-7; NULL: part of no baseline.';
COMMENT ON COLUMN _tidemark.series_memory.is_kept IS 'Ring: whether pass 1 kept the change.';
COMMENT ON COLUMN _tidemark.series_memory.base_sum IS 'Sum of the changes in the ring.';
COMMENT ON COLUMN _tidemark.series_memory.base_squares IS 'Sum of their squares.';
COMMENT ON COLUMN _tidemark.series_memory.base_count IS 'How many there are.';
COMMENT ON COLUMN _tidemark.series_memory.kept_sum IS 'Sum of the changes that pass 1 kept.';
COMMENT ON COLUMN _tidemark.series_memory.kept_squares IS 'Sum of their squares.';
COMMENT ON COLUMN _tidemark.series_memory.kept_count IS 'How many there are.';
COMMENT ON COLUMN _tidemark.series_memory.sum_20 IS 'Sum of the kept among the last twenty.';
COMMENT ON COLUMN _tidemark.series_memory.squares_20 IS 'Sum of their squares.';
COMMENT ON COLUMN _tidemark.series_memory.count_20 IS 'How many there are.';
COMMENT ON COLUMN _tidemark.series_memory.quality_profile_id IS 'Profile that it is judged by.';
COMMENT ON COLUMN _tidemark.series_memory.step IS 'Length of its bars; zero: instants.';
COMMENT ON COLUMN _tidemark.series_memory.is_live IS 'Whether its newest row is known to have come from a live feed.';
COMMENT ON COLUMN _tidemark.series_memory.chunks IS
'How many chunks there were, and the highest number of one in the lower half: one that is dropped is missed.';
COMMENT ON COLUMN _tidemark.series_memory.lapses IS 'Weight of the lapses that this takes into account.';

-- Whoever changes rows of a series, or how they are judged, without holding its memory leaves a lapse. Adding a row is
-- in nobody's way, and a memory is valid while the weights that its reader sees add up to those that its builder saw.
CREATE UNLOGGED TABLE _tidemark.memory_lapses (
    hypertable regclass NOT NULL,
    series jsonb,
    weight bigint NOT NULL DEFAULT 1
);
CREATE INDEX memory_lapses_hypertable_idx ON _tidemark.memory_lapses (hypertable);
COMMENT ON INDEX _tidemark.memory_lapses_hypertable_idx IS 'Lapses of a hypertable.';
COMMENT ON TABLE _tidemark.memory_lapses IS 'Changes that a memory has to know of, or else is void.';
COMMENT ON COLUMN _tidemark.memory_lapses.hypertable IS 'Hypertable.';
COMMENT ON COLUMN _tidemark.memory_lapses.series IS 'Series; NULL: all of the hypertable.';
COMMENT ON COLUMN _tidemark.memory_lapses.weight IS 'How many lapses this one stands for.';
-- Bars that looked like an anomaly while they formed. Nobody is told before they have closed, and then they are judged
-- again. Whoever appends does not wait for others, so that one bar may stand here twice.
CREATE TABLE _tidemark.waiting_bars (
    hypertable regclass NOT NULL,
    series jsonb NOT NULL,
    ts timestamptz NOT NULL,
    closes_at timestamptz NOT NULL
);
CREATE INDEX waiting_bars_hypertable_idx ON _tidemark.waiting_bars (hypertable, closes_at);
COMMENT ON INDEX _tidemark.waiting_bars_hypertable_idx IS 'Bars of a hypertable that have closed.';
COMMENT ON TABLE _tidemark.waiting_bars IS
'Bars that looked like an anomaly while they formed; judged once they closed.';
COMMENT ON COLUMN _tidemark.waiting_bars.hypertable IS 'Hypertable.';
COMMENT ON COLUMN _tidemark.waiting_bars.series IS 'Key of the series without the time.';
COMMENT ON COLUMN _tidemark.waiting_bars.ts IS 'Start of the bar.';
COMMENT ON COLUMN _tidemark.waiting_bars.closes_at IS 'When it closes, unless a later row of its series comes first.';
-- A migration that was killed here has used numbers up; the functions made from the rules hold these numbers.
SELECT setval(pg_get_serial_sequence('public.quality_profiles', 'quality_profile_id'), 1, false);
SELECT setval(pg_get_serial_sequence('public.validation_rules', 'rule_id'), 1, false);

-- allowed_lag stays NULL here: what is late is told by the length of the bars (_tidemark.allowed_lag).
INSERT INTO public.quality_profiles (name, data_type, interval, required_fields, transform, max_change) VALUES
('ohlcv', 'ohlcv', NULL, '{open,high,low,close}', 'log_return', 0.5),
('scalar', 'scalar', NULL, '{value}', 'level', 0.5),
-- A score that crosses zero has no relative change.
('sentiment', 'sentiment', NULL, '{value}', 'level', 'infinity'),
('quote', NULL, NULL, '{price}', 'log_return', 0.5),
('tick', NULL, NULL, '{price,quantity}', 'log_return', 0.5),
('candle_1m', NULL, '1m', '{open,high,low,close}', 'log_return', 0.5),
('candle_3m', NULL, '3m', '{open,high,low,close}', 'log_return', 0.5),
('candle_5m', NULL, '5m', '{open,high,low,close}', 'log_return', 0.5),
('candle_15m', NULL, '15m', '{open,high,low,close}', 'log_return', 0.5),
('candle_30m', NULL, '30m', '{open,high,low,close}', 'log_return', 0.5),
('candle_1h', NULL, '1h', '{open,high,low,close}', 'log_return', 0.5),
('candle_2h', NULL, '2h', '{open,high,low,close}', 'log_return', 0.5),
('candle_4h', NULL, '4h', '{open,high,low,close}', 'log_return', 0.5),
('candle_6h', NULL, '6h', '{open,high,low,close}', 'log_return', 0.5),
('candle_8h', NULL, '8h', '{open,high,low,close}', 'log_return', 0.5),
('candle_12h', NULL, '12h', '{open,high,low,close}', 'log_return', 0.5),
('candle_1d', NULL, '1d', '{open,high,low,close}', 'log_return', 0.5),
('candle_1w', NULL, '1w', '{open,high,low,close}', 'log_return', 0.5),
('candle_1M', NULL, '1M', '{open,high,low,close}', 'log_return', 0.5);

INSERT INTO public.validation_rules (name, applies_to, rule_type, severity, parameters) VALUES
-- Where prices may be negative, changes are not judged by logarithms. From 1e100 on nothing is a price: see 535.
('timeseries_data_price_positive', 'timeseries_data', 'range', 'error',
 '{"columns": ["open", "high", "low", "close"], "above": 0, "below": "1e100", "transform": "log_return"}'),
('timeseries_data_bar_consistent', 'timeseries_data', 'ohlc_consistent', 'error', '{}'),
('timeseries_data_volume_not_negative', 'timeseries_data', 'range', 'warning', '{"column": "volume", "min": 0}'),
('timeseries_data_not_in_future', 'timeseries_data', 'not_future', 'error', '{"tolerance": "1 minute"}'),
('timeseries_data_on_grid', 'timeseries_data', 'aligned', 'warning', '{}'),
('timeseries_data_in_session', 'timeseries_data', 'session_open', 'warning', '{}'),
('candles_price_positive', 'candles', 'range', 'error',
 '{"columns": ["open", "high", "low", "close"], "above": 0, "below": "1e100", "transform": "log_return"}'),
('candles_bar_consistent', 'candles', 'ohlc_consistent', 'error', '{}'),
('candles_volume_not_negative', 'candles', 'range', 'warning', '{"column": "volume", "min": 0}'),
('candles_not_in_future', 'candles', 'not_future', 'error', '{"tolerance": "1 minute"}'),
('candles_on_grid', 'candles', 'aligned', 'warning', '{}'),
('candles_in_session', 'candles', 'session_open', 'warning', '{}'),
('quotes_price_positive', 'quotes', 'range', 'error',
 '{"columns": ["price", "bid", "ask"], "above": 0, "below": "1e100", "transform": "log_return"}'),
('quotes_price_within_day', 'quotes', 'expression', 'warning', '{"expression": "price BETWEEN low AND high"}'),
('quotes_bid_not_above_ask', 'quotes', 'expression', 'error', '{"expression": "bid <= ask"}'),
('quotes_volume_not_negative', 'quotes', 'range', 'warning', '{"column": "volume", "min": 0}'),
('quotes_not_in_future', 'quotes', 'not_future', 'error', '{"tolerance": "1 minute"}'),
('quotes_in_session', 'quotes', 'session_open', 'warning', '{}'),
('ticks_price_positive', 'ticks', 'range', 'error',
 '{"column": "price", "above": 0, "below": "1e100", "transform": "log_return"}'),
('ticks_quantity_positive', 'ticks', 'range', 'error', '{"column": "quantity", "above": 0}'),
('ticks_not_in_future', 'ticks', 'not_future', 'error', '{"tolerance": "1 minute"}'),
('ticks_in_session', 'ticks', 'session_open', 'warning', '{}');
