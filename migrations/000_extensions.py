"""Extensions and the schema of the helpers."""

from yoyo import step

from tidemark.migrations import state

steps = [step(state(__file__), """
-- Extensions other than TimescaleDB stay: they hold nothing of Tidemark's.
DROP SCHEMA _tidemark CASCADE;
DROP EXTENSION timescaledb;
""")]
