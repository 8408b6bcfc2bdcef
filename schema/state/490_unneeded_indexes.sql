-- What the detector flagged is asked of anomalies, which has its figures, its review and an index of its own. No
-- question, constraint or function reads the hypertables by is_anomaly, and each chunk had a relation more for it.

-- Each is empty but for what is flagged, and the lock lasts as long.
-- squawk-ignore-file require-concurrent-index-deletion
DROP INDEX public.timeseries_data_is_anomaly_idx;
DROP INDEX public.candles_is_anomaly_idx;
DROP INDEX public.quotes_is_anomaly_idx;
DROP INDEX public.ticks_is_anomaly_idx;
