"""Hypertables of market data."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"160_trading"}

steps = [step(state(__file__), """
DROP TABLE public.ticks;
DROP TABLE public.quotes;
DROP TABLE public.candles;
DROP TABLE public.timeseries_data;
""")]
