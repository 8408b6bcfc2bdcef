"""Which anomalies are for a reviewer."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"495_bar_fields"}

steps = [step(state(__file__), """
DROP INDEX public.anomalies_undecided_idx;
ALTER TABLE public.anomalies DROP COLUMN is_doubtful;
""")]
