"""Indexes that nothing asks for."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"480_scalar_difference"}

steps = [step(state(__file__), """
CREATE INDEX timeseries_data_is_anomaly_idx ON public.timeseries_data (source_id, timestamp) WHERE is_anomaly;
COMMENT ON INDEX public.timeseries_data_is_anomaly_idx IS 'Flagged rows only.';
CREATE INDEX candles_is_anomaly_idx ON public.candles (asset_id, interval, ts) WHERE is_anomaly;
COMMENT ON INDEX public.candles_is_anomaly_idx IS 'Flagged bars only.';
CREATE INDEX quotes_is_anomaly_idx ON public.quotes (asset_id, ts) WHERE is_anomaly;
COMMENT ON INDEX public.quotes_is_anomaly_idx IS 'Flagged quotes only.';
CREATE INDEX ticks_is_anomaly_idx ON public.ticks (asset_id, ts) WHERE is_anomaly;
COMMENT ON INDEX public.ticks_is_anomaly_idx IS 'Flagged trades only.';
""")]
