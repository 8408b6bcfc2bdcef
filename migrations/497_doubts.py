"""Which anomalies are for a reviewer, and how far apart those of an episode may be."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"496_series_memory"}

steps = [step(state(__file__), """
ALTER TABLE public.quality_profiles DROP COLUMN episode_rows;
DROP INDEX public.anomalies_undecided_idx;
ALTER TABLE public.anomalies DROP COLUMN is_doubtful;
COMMENT ON TABLE public.anomalies IS
'Observations out of line with their baseline, with the figures to recompute the score: z_score is '
'observed - expected or deviation, whichever is smaller in magnitude, divided by scale.';
""")]
