"""Compression after 30 days for every hypertable; no retention."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"300_rollups"}

# What is compressed stays compressed, and can be.
steps = [step(state(__file__), """
SELECT public.delete_job(j.job_id)
  FROM timescaledb_information.jobs AS j
 WHERE j.proc_schema = '_tidemark'
    OR (j.proc_name = 'policy_compression'
        AND to_regclass(format('%I.%I', j.hypertable_schema, j.hypertable_name)) IN (
            SELECT p.relation FROM public.data_policies AS p));
DELETE FROM public.data_policies AS p
 WHERE p.relation IN ('public.timeseries_data'::regclass, 'public.candles'::regclass, 'public.quotes'::regclass,
                      'public.ticks'::regclass, 'public.sentiment_data'::regclass, 'public.indicators'::regclass,
                      'public.features'::regclass);
ALTER TABLE public.data_policies DROP COLUMN segment_by;
""")]
