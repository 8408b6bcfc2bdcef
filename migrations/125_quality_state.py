"""What the quality engine keeps for itself; default profiles and shipped rules."""

import re

from yoyo import step

from tidemark.migrations import state

__depends__ = {"120_quality"}

# Rows of the file's own go, not those of a user; what refers to them no longer does. Penalties are worked out again.
SHIPPED = ", ".join(f"'{name}'" for name in re.findall(r"^\('(\w+)', ", state(__file__), re.MULTILINE))

UNDO = """
DROP TABLE _tidemark.waiting_bars;
DROP TABLE _tidemark.memory_lapses;
DROP TABLE _tidemark.series_memory;
DROP TABLE _tidemark.quality_targets;
DELETE FROM public.quality_issues;
DELETE FROM public.validation_rules AS r WHERE r.name IN ({SHIPPED});
UPDATE public.sources AS s
   SET quality_profile_id = NULL
  FROM public.quality_profiles AS p
 WHERE p.quality_profile_id = s.quality_profile_id
   AND p.name IN ({SHIPPED});
DELETE FROM public.quality_profiles AS p WHERE p.name IN ({SHIPPED});
DROP TYPE _tidemark.judged_row;
DROP TYPE _tidemark.verdict;
DROP TYPE _tidemark.finding;
DROP TYPE _tidemark.penalty;
DROP AGGREGATE _tidemark.moving_sum(bigint);
"""
steps = [step(state(__file__), UNDO.replace("{SHIPPED}", SHIPPED))]
