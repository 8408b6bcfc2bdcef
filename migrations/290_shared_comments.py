"""Comments of the columns that all tables share."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"230_instants"}

steps = [step(state(__file__), """
-- The comments go with their columns.
""")]
