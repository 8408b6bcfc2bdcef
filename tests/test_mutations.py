"""`make prove` breaks one guard after the other; here, that each break still finds what it is to break."""

from __future__ import annotations

import os

import pytest
from mutations import collect

MUTATIONS = collect()


def test_each_has_a_name_of_its_own():
    assert len({one.title for one in MUTATIONS}) == len(MUTATIONS) > 150


@pytest.mark.parametrize("title", [one.title for one in MUTATIONS if one.sql])
def test_statement_applies(tx, edition, title):
    [one] = [one for one in MUTATIONS if one.title == title]
    if one.edition in ("", edition):
        with tx.transaction(force_rollback=True):
            one.break_database(tx)


@pytest.mark.parametrize("title", [one.title for one in MUTATIONS if one.patch])
def test_patch_applies(title):
    """In a process of its own, which it may break."""
    [one] = [one for one in MUTATIONS if one.title == title]
    child = os.fork()
    if child == 0:
        try:
            one.patch()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
