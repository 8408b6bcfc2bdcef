"""Ingestion tasks and their rejects."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"130_record"}

steps = [step(state(__file__), """
DROP TABLE public.ingestion_rejects;
DROP TABLE public.ingestion_tasks;
""")]
