"""Usual names of markets."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"470_spellings"}

steps = [step(state(__file__), "DROP TABLE _tidemark.market_names")]
