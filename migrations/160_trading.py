"""Strategies, signals, backtests, trades, positions, learning."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"150_analytics"}

steps = [step(state(__file__), """
DROP TABLE public.learning_entries;
DROP TABLE public.positions;
DROP TABLE public.trades;
DROP TABLE public.backtest_results;
DROP TABLE public.backtest_configs;
DROP TABLE public.signals;
DROP TABLE public.strategy_rules;
DROP TABLE public.strategies;
""")]
