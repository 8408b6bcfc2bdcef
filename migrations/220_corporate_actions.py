"""Splits and stock dividends."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"210_research_data"}

steps = [step(state(__file__), """
DROP AGGREGATE _tidemark.product(numeric);
DROP TABLE public.corporate_actions;
DROP TYPE public.corporate_action_status;
DROP TYPE public.corporate_action_kind;
""")]
