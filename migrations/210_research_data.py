"""Hypertables of sentiment, indicators and features."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"200_market_data"}

steps = [step(state(__file__), """
DROP TABLE public.features;
DROP TABLE public.indicators;
DROP TABLE public.sentiment_data;
""")]
