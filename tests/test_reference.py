"""docs/reference.md is what the database says of itself."""

from __future__ import annotations

import pytest

from tidemark import reference
from tidemark.errors import Problem


def test_reference_is_up_to_date(tx):
    assert reference.TARGET.read_text() == reference.render(tx), "run: make docs"


def test_object_without_a_comment_is_refused(tx):
    tx.execute("CREATE TABLE public.unexplained (a integer)")
    with pytest.raises(Problem) as refused:
        reference.render(tx)
    assert "unexplained" in refused.value.detail
