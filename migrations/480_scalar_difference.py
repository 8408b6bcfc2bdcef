"""Scalars are judged by their differences."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"470_spellings"}

steps = [step(state(__file__), """
SELECT set_config('tidemark.reason', 'scalars are judged by their levels again', true);
UPDATE public.quality_profiles AS q
   SET transform = 'level'
 WHERE q.name = 'scalar' AND q.transform = 'difference';
""")]
