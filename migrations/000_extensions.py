"""Extensions and the schema of the helpers."""

from yoyo import step

from tidemark.migrations import state

steps = [step(state(__file__), """
-- Extensions stay: they hold nothing of Tidemark's, and may serve others.
DROP SCHEMA _tidemark;
""")]
