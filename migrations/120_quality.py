"""Validation rules, quality issues, anomalies."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"110_people"}

steps = [step(state(__file__), """
DROP TABLE public.anomalies;
DROP TABLE public.quality_issues;
DROP TABLE public.validation_rules;
""")]
