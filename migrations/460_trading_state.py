"""What triggers on alerts, trades, learning entries and lineage keep for themselves."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"450_applications"}

steps = [step(state(__file__), """
DROP INDEX public.learning_entries_supporting_trades_idx;
DROP TABLE _tidemark.lineage_turn;
DROP TABLE _tidemark.stale_rules;
DROP TABLE _tidemark.armed_alerts;
""")]
