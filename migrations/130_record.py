"""Audit record, archive, data policies."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"125_quality_state"}

steps = [step(state(__file__), """
DROP TABLE public.data_policies;
DROP TABLE _tidemark.audit_shapes;
DROP TABLE public.timeseries_archive;
DROP TABLE public.audit_seals;
DROP TABLE public.audit_log;
DROP TABLE public.audit_tx;
""")]
