-- Enumerated types. A value is never removed or renamed; the order is meaningful where the comment says so.

CREATE TYPE public.asset_type AS ENUM ('stock', 'etf', 'crypto', 'forex', 'commodity', 'index');
COMMENT ON TYPE public.asset_type IS 'Class of a tradeable instrument.';

CREATE TYPE public.candle_interval AS ENUM (
    '1m', '3m', '5m', '15m', '30m', '1h', '2h', '4h', '6h', '8h', '12h', '1d', '1w', '1M'
);
COMMENT ON TYPE public.candle_interval IS 'Length of a bar, ordered from short to long; 1M is a calendar month.';

CREATE TYPE public.source_data_type AS ENUM (
    'ohlcv', -- bars: open, high, low, close, volume
    'scalar', -- one number per instant, in the column value
    'sentiment' -- one score per instant, in the column value
);
COMMENT ON TYPE public.source_data_type IS 'Shape of the rows that a source delivers.';

CREATE TYPE public.source_status AS ENUM (
    'active', -- delivers; silence is a gap
    'paused', -- delivers nothing for now, on purpose
    'retired' -- never again; kept for its history
);
COMMENT ON TYPE public.source_status IS 'Whether a source is expected to deliver.';

CREATE TYPE public.calendar_origin AS ENUM (
    'generated', -- by a package or a rule
    'corrected', -- by the corrections that come with Tidemark, where a package is known to be wrong
    'manual' -- by hand: regeneration leaves it as it is
);
COMMENT ON TYPE public.calendar_origin IS 'Who wrote a calendar row; regeneration never touches a manual one.';

CREATE TYPE public.ingest_mode AS ENUM (
    'live', -- as it happens: lateness counts
    'backfill', -- history loaded afterwards: never late
    'correction', -- a better value for a row already there: never late
    'replay' -- the same feed once more: never late
);
COMMENT ON TYPE public.ingest_mode IS 'How rows arrive; decides whether lateness is judged.';

CREATE TYPE public.indicator_type AS ENUM (
    'sma', 'ema', 'rsi', 'macd', 'bbands', 'atr', 'obv', 'stoch', 'adx', 'cci'
);
COMMENT ON TYPE public.indicator_type IS 'Family of a technical indicator.';

CREATE TYPE public.signal_type AS ENUM ('strong_sell', 'sell', 'hold', 'buy', 'strong_buy');
COMMENT ON TYPE public.signal_type IS 'Advice, ordered from most bearish to most bullish.';

CREATE TYPE public.model_type AS ENUM (
    'tft', 'lstm', 'ensemble', 'prophet', 'multimodal', 'xgboost', 'other'
);
COMMENT ON TYPE public.model_type IS 'Architecture of a predictive model.';

CREATE TYPE public.change_transform AS ENUM (
    'log_return', -- ln(x[t] / x[t-1]): prices
    'level', -- x[t]: stationary scalars
    'difference' -- x[t] - x[t-1]: scalars that wander and may be negative
);
COMMENT ON TYPE public.change_transform IS 'What the anomaly detector compares with its baseline.';

CREATE TYPE public.rule_type AS ENUM (
    'range', -- column between min and max
    'not_null', -- column present
    'ohlc_consistent', -- low <= open, close <= high
    'not_future', -- timestamp not ahead of the clock
    'session_open', -- timestamp inside the market's session
    'aligned', -- timestamp on the interval's grid
    'expression' -- boolean SQL over the row
);
COMMENT ON TYPE public.rule_type IS 'Kind of a validation rule; says which parameters it takes.';

CREATE TYPE public.rule_severity AS ENUM ('info', 'warning', 'error');
COMMENT ON TYPE public.rule_severity IS 'Weight of a violated rule, ordered; the penalty is the same for all.';

CREATE TYPE public.quality_penalty AS ENUM (
    'completeness', -- 30: a required field is missing
    'timeliness', -- 20: the row came later than allowed
    'consistency', -- 25: moved more than the profile's max_change
    'validation' -- 10 for each violated rule
);
COMMENT ON TYPE public.quality_penalty IS 'Reason for which a row lost quality points.';

CREATE TYPE public.anomaly_severity AS ENUM ('anomaly', 'black_swan');
COMMENT ON TYPE public.anomaly_severity IS 'How far out an observation lies, ordered: |z| > 4, |z| > 6 by default.';

CREATE TYPE public.anomaly_kind AS ENUM (
    'spike', -- out of line with the baseline
    'split_candidate' -- the overnight ratio is that of a stock split
);
COMMENT ON TYPE public.anomaly_kind IS 'What an anomaly looks like.';

CREATE TYPE public.anomaly_status AS ENUM (
    'open', -- nobody has looked
    'acknowledged', -- somebody is looking
    'confirmed_error', -- bad data: later baselines leave it out
    'real_event', -- the market did that: stays in the baseline
    'expected', -- split, holiday, halt
    'dismissed' -- not worth a verdict
);
COMMENT ON TYPE public.anomaly_status IS 'Where the review of an anomaly stands.';

CREATE TYPE public.audit_operation AS ENUM (
    'snapshot', -- the row as it was when auditing began
    'insert',
    'update',
    'delete',
    'truncate', -- all rows of a table at once
    'drop_chunk' -- a time range dropped by retention
);
COMMENT ON TYPE public.audit_operation IS 'What happened to an audited row.';

CREATE TYPE public.ingestion_kind AS ENUM ('file', 'pdf', 'video', 'feed');
COMMENT ON TYPE public.ingestion_kind IS 'What an ingestion task reads.';

CREATE TYPE public.ingestion_status AS ENUM ('queued', 'running', 'succeeded', 'failed');
COMMENT ON TYPE public.ingestion_status IS
'State of an ingestion task: queued, then running, then one of the last two.';

CREATE TYPE public.user_role AS ENUM ('user', 'premium', 'admin');
COMMENT ON TYPE public.user_role IS 'What an application lets its user do.';

CREATE TYPE public.alert_type AS ENUM ('price', 'prediction', 'indicator');
COMMENT ON TYPE public.alert_type IS 'Which figure an alert watches.';

CREATE TYPE public.alert_condition AS ENUM (
    'above', -- the figure is above the target
    'below', -- the figure is below the target
    'cross' -- the figure passes the target, either way
);
COMMENT ON TYPE public.alert_condition IS 'When an alert fires.';

CREATE TYPE public.notification_type AS ENUM ('signal', 'trade', 'system', 'alert', 'other');
COMMENT ON TYPE public.notification_type IS 'What a notification is about.';

CREATE TYPE public.position_side AS ENUM ('long', 'short');
COMMENT ON TYPE public.position_side IS 'Whether a position gains when the price rises (long) or falls (short).';

CREATE TYPE public.trade_type AS ENUM ('buy', 'sell');
COMMENT ON TYPE public.trade_type IS 'Side of the opening order.';

CREATE TYPE public.trade_status AS ENUM (
    'pending', -- ordered
    'executed', -- filled; open until exit_time is set
    'failed', -- refused by the venue
    'cancelled', -- withdrawn before it was filled
    'other' -- a state that only the application knows
);
COMMENT ON TYPE public.trade_status IS 'State of a trade: pending, then one of the others.';

CREATE TYPE public.trade_outcome AS ENUM ('pending', 'win', 'loss', 'other');
COMMENT ON TYPE public.trade_outcome IS
'Result of a trade; pending until it is closed; other where an application has a word of its own for it.';

CREATE TYPE public.strategy_source_type AS ENUM ('pdf', 'youtube', 'manual', 'other');
COMMENT ON TYPE public.strategy_source_type IS 'Where a strategy rule was taken from.';

CREATE TYPE public.lineage_kind AS ENUM (
    'file', 'source', 'table', 'aggregate', 'feature', 'model', 'prediction', 'forecast', 'signal', 'backtest'
);
COMMENT ON TYPE public.lineage_kind IS 'Kind of thing that lineage connects.';
