"""Assets, quality profiles, sources, market calendar, time index."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"010_enums"}

steps = [step(state(__file__), """
DROP TABLE public.time_index;
DROP TABLE public.market_calendar;
DROP TABLE public.sources;
DROP TABLE public.quality_profiles;
DROP TABLE public.assets;
""")]
