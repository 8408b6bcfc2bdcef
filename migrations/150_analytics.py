"""Models, predictions, forecasts, lineage."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"140_ingestion"}

steps = [step(state(__file__), """
DROP TABLE public.lineage;
DROP TABLE public.forecasts;
DROP TABLE public.predictions;
DROP TABLE public.models;
""")]
