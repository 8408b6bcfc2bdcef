"""What is remembered of a series knows its market and its splits."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"495_bar_fields"}

steps = [step(state(__file__), """
COMMENT ON COLUMN public.quality_profiles.market IS
'Calendar (market_calendar.market) in whose open time lateness is measured; NULL: clock time.';
ALTER TABLE _tidemark.series_memory DROP COLUMN split_from, DROP COLUMN market;
""")]
