"""What of a bar stands out."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"490_unneeded_indexes"}

steps = [step(state(__file__), """
DELETE FROM public.anomalies AS a WHERE a.field IS NOT NULL;
ALTER TABLE _tidemark.series_memory DROP COLUMN volume, DROP COLUMN previous_volume;
ALTER TYPE _tidemark.judged_row DROP ATTRIBUTE highest, DROP ATTRIBUTE lowest, DROP ATTRIBUTE volume;
ALTER TYPE _tidemark.verdict DROP ATTRIBUTE field;
ALTER TYPE _tidemark.finding DROP ATTRIBUTE field;
ALTER TABLE public.anomalies DROP COLUMN field;
""")]
