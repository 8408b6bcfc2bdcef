"""Which anomalies are for a reviewer."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"497_known_splits"}

steps = [step(state(__file__), """
DROP INDEX public.anomalies_undecided_idx;
ALTER TABLE public.anomalies DROP COLUMN is_doubtful;
""")]
