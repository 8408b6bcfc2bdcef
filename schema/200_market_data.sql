-- Market data hypertables. Their scores are written by Tidemark, never by a loader: quality_score is NULL on a
-- row that nobody scored. The primary key is the series followed by time and serves every query of one series
-- over a period, so no separate time index is kept unless a seed asks for one.

CREATE TABLE public.timeseries_data (
    source_id integer NOT NULL,
    timestamp timestamptz NOT NULL,
    value double precision,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    quality_score smallint,
    is_anomaly boolean NOT NULL DEFAULT false,
    metadata jsonb,
    ingested_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT timeseries_data_pkey PRIMARY KEY (source_id, timestamp),
    CONSTRAINT timeseries_data_source_id_fkey FOREIGN KEY (source_id) REFERENCES public.sources (source_id),
    CONSTRAINT timeseries_data_timestamp_finite CHECK (isfinite(timestamp)),
    CONSTRAINT timeseries_data_quality_score_in_range CHECK (quality_score BETWEEN 0 AND 100)
);
SELECT public.create_hypertable(
    'public.timeseries_data', public.by_range('timestamp', interval '1 month'), create_default_indexes => false
);
CREATE INDEX timeseries_data_quality_score_idx ON public.timeseries_data (quality_score, timestamp)
WHERE quality_score < 100;
CREATE INDEX timeseries_data_is_anomaly_idx ON public.timeseries_data (source_id, timestamp) WHERE is_anomaly;
COMMENT ON INDEX public.timeseries_data_quality_score_idx IS 'Rows of low quality; rows without fault are left out.';
COMMENT ON INDEX public.timeseries_data_is_anomaly_idx IS 'Flagged rows only.';
COMMENT ON TABLE public.timeseries_data IS 'Every source''s rows: bars in open … volume, single figures in value.';
COMMENT ON COLUMN public.timeseries_data.source_id IS 'Source, and series, of the row.';
COMMENT ON COLUMN public.timeseries_data.timestamp IS 'Instant of a figure, or start of a bar.';
COMMENT ON COLUMN public.timeseries_data.value IS 'Figure of a scalar or sentiment source.';
COMMENT ON COLUMN public.timeseries_data.open IS 'First price of the bar.';
COMMENT ON COLUMN public.timeseries_data.high IS 'Highest price of the bar.';
COMMENT ON COLUMN public.timeseries_data.low IS 'Lowest price of the bar.';
COMMENT ON COLUMN public.timeseries_data.close IS 'Last price of the bar.';
COMMENT ON COLUMN public.timeseries_data.volume IS 'Units traded in the bar.';
COMMENT ON COLUMN public.timeseries_data.metadata IS 'Whatever else the source delivered with the row.';

CREATE TABLE public.candles (
    asset_id uuid NOT NULL,
    interval public.candle_interval NOT NULL,
    ts timestamptz NOT NULL,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    trades bigint,
    vwap double precision,
    source_id integer,
    quality_score smallint,
    is_anomaly boolean NOT NULL DEFAULT false,
    ingested_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT candles_pkey PRIMARY KEY (asset_id, interval, ts),
    CONSTRAINT candles_asset_id_fkey FOREIGN KEY (asset_id) REFERENCES public.assets (asset_id),
    CONSTRAINT candles_source_id_fkey FOREIGN KEY (source_id) REFERENCES public.sources (source_id),
    CONSTRAINT candles_ts_finite CHECK (isfinite(ts)),
    CONSTRAINT candles_quality_score_in_range CHECK (quality_score BETWEEN 0 AND 100)
);
SELECT public.create_hypertable(
    'public.candles', public.by_range('ts', interval '7 days'), create_default_indexes => false
);
CREATE INDEX candles_asset_id_ts_idx ON public.candles (asset_id, ts, interval);
CREATE INDEX candles_ts_asset_id_idx ON public.candles (ts, asset_id);
CREATE INDEX candles_source_id_idx ON public.candles (source_id) WHERE source_id IS NOT NULL;
CREATE INDEX candles_quality_score_idx ON public.candles (quality_score, ts) WHERE quality_score < 100;
CREATE INDEX candles_is_anomaly_idx ON public.candles (asset_id, interval, ts) WHERE is_anomaly;
COMMENT ON INDEX public.candles_asset_id_ts_idx IS 'An asset''s bars of all lengths over a period.';
COMMENT ON INDEX public.candles_ts_asset_id_idx IS 'All assets at an instant.';
COMMENT ON INDEX public.candles_source_id_idx IS 'Bars that a source delivered.';
COMMENT ON INDEX public.candles_quality_score_idx IS 'Bars of low quality; bars without fault are left out.';
COMMENT ON INDEX public.candles_is_anomaly_idx IS 'Flagged bars only.';
COMMENT ON TABLE public.candles IS 'Bars of assets, one per asset, length and start.';
COMMENT ON COLUMN public.candles.asset_id IS 'Asset traded.';
COMMENT ON COLUMN public.candles.interval IS 'Length of the bar.';
COMMENT ON COLUMN public.candles.ts IS 'Start of the bar.';
COMMENT ON COLUMN public.candles.open IS 'First price of the bar.';
COMMENT ON COLUMN public.candles.high IS 'Highest price of the bar.';
COMMENT ON COLUMN public.candles.low IS 'Lowest price of the bar.';
COMMENT ON COLUMN public.candles.close IS 'Last price of the bar.';
COMMENT ON COLUMN public.candles.volume IS 'Units traded in the bar.';
COMMENT ON COLUMN public.candles.trades IS 'Number of trades in the bar.';
COMMENT ON COLUMN public.candles.vwap IS 'Volume-weighted average price of the bar.';
COMMENT ON COLUMN public.candles.source_id IS 'Who delivered the bar, where known.';

CREATE TABLE public.quotes (
    asset_id uuid NOT NULL,
    ts timestamptz NOT NULL,
    price double precision,
    open_price double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    bid double precision,
    ask double precision,
    change_24h double precision,
    change_percent_24h double precision,
    quality_score smallint,
    is_anomaly boolean NOT NULL DEFAULT false,
    ingested_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT quotes_pkey PRIMARY KEY (asset_id, ts),
    CONSTRAINT quotes_asset_id_fkey FOREIGN KEY (asset_id) REFERENCES public.assets (asset_id),
    CONSTRAINT quotes_ts_finite CHECK (isfinite(ts)),
    CONSTRAINT quotes_quality_score_in_range CHECK (quality_score BETWEEN 0 AND 100)
);
SELECT public.create_hypertable(
    'public.quotes', public.by_range('ts', interval '1 day'), create_default_indexes => false
);
CREATE INDEX quotes_ts_idx ON public.quotes (ts DESC);
CREATE INDEX quotes_quality_score_idx ON public.quotes (quality_score, ts) WHERE quality_score < 100;
CREATE INDEX quotes_is_anomaly_idx ON public.quotes (asset_id, ts) WHERE is_anomaly;
COMMENT ON INDEX public.quotes_ts_idx IS 'All assets within a period.';
COMMENT ON INDEX public.quotes_quality_score_idx IS 'Quotes of low quality; quotes without fault are left out.';
COMMENT ON INDEX public.quotes_is_anomaly_idx IS 'Flagged quotes only.';
COMMENT ON TABLE public.quotes IS 'Snapshots of an asset''s market.';
COMMENT ON COLUMN public.quotes.asset_id IS 'Asset quoted.';
COMMENT ON COLUMN public.quotes.ts IS 'Instant of the snapshot.';
COMMENT ON COLUMN public.quotes.price IS 'Last price.';
COMMENT ON COLUMN public.quotes.open_price IS 'First price of the trading day.';
COMMENT ON COLUMN public.quotes.high IS 'Highest price of the trading day so far.';
COMMENT ON COLUMN public.quotes.low IS 'Lowest price of the trading day so far.';
COMMENT ON COLUMN public.quotes.close IS 'Close of the trading day before.';
COMMENT ON COLUMN public.quotes.volume IS 'Units traded in the trading day so far.';
COMMENT ON COLUMN public.quotes.bid IS 'Best price offered by buyers.';
COMMENT ON COLUMN public.quotes.ask IS 'Best price asked by sellers.';
COMMENT ON COLUMN public.quotes.change_24h IS 'Change over 24 hours, in price.';
COMMENT ON COLUMN public.quotes.change_percent_24h IS 'Change over 24 hours, in percent.';
