"""What is remembered of a series knows until when no split is due."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"496_series_market"}

steps = [step(state(__file__), "ALTER TABLE _tidemark.series_memory DROP COLUMN split_from")]
