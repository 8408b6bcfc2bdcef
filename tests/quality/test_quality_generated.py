"""What the templates of the engine make for timeseries_data stands in generated.sql, to be read.

TIDEMARK_WRITE=1 writes the file anew.
"""

from __future__ import annotations

import os
from pathlib import Path

FILE = Path(__file__).with_name("generated.sql")
PREFACE = "-- Made from the templates of schema/logic/510_quality, and compared with them by a test; do not edit.\n"
MADE = """
    SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p
     WHERE p.pronamespace = '_tidemark'::regnamespace
       AND (p.proname = ANY (_tidemark.quality_functions('timeseries_data'))
            OR p.proname IN ('detect_logs', 'detect_levels'))
     ORDER BY p.proname
"""


def test_generated_functions_are_those_of_the_committed_file(tx):
    made = PREFACE + "".join(f"\n{text.rstrip()};\n" for (text,) in tx.execute(MADE))
    made = "".join(f"{line.rstrip()}\n" for line in made.splitlines())
    if os.environ.get("TIDEMARK_WRITE"):
        FILE.write_text(made)
    assert made.count("CREATE OR REPLACE FUNCTION") == 11
    assert FILE.read_text() == made
