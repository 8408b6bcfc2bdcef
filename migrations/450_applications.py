"""A schema for each application."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"310_policies"}

steps = [step(state(__file__), """
-- The views in them are logic and gone by now.
DROP SCHEMA btc_dashboard, hyperliquid, trading_manager, cryptovolt, buddy_ai;
""")]
