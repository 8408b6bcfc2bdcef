"""How far apart anomalies of an episode may be."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"498_doubtful"}

steps = [step(state(__file__), """
ALTER TABLE public.quality_profiles DROP COLUMN episode_rows;
COMMENT ON TABLE public.anomalies IS
'Observations out of line with their baseline, with the figures to recompute the score: z_score is '
'observed - expected or deviation, whichever is smaller in magnitude, divided by scale.';
""")]
