"""What one user writes makes nobody else's statement fail."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors, sql
from record.support import Rows, insert

PERSONAL_FIGURES = """
    SELECT c.relname, a.attname, a.atttypid = 'numeric'::regtype
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
     WHERE c.relrowsecurity AND c.relname <> 'predictions' -- may foretell anything: evaluate_predictions() copes
       AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
       AND a.attgenerated = '' AND (a.atttypid = 'numeric'::regtype OR (c.relname, a.attname) = ('trades', 'pnl_r'))
     ORDER BY 1, 2
"""


def test_figures_of_users_are_bounded_where_they_are_written(tx):
    rows, unbounded = Rows(tx), []
    figures = tx.execute(PERSONAL_FIGURES).fetchall()
    assert len(figures) > 10
    for table, column, is_numeric in figures:
        row = rows.row(table)
        for value in ("NaN", "12." + "0" * 8999 + "1", "1e300") if is_numeric else ("NaN", "1e300", "Infinity"):
            try:
                with tx.transaction(force_rollback=True):
                    insert(tx, table, row | {column: value})
                    unbounded.append((table, column, value[:10]))
            except errors.CheckViolation:
                pass
    assert unbounded == []


def test_trade_of_one_user_does_not_fail_anothers_commit(tx):
    """A rule of the house counts the trades of all."""
    rows = Rows(tx)
    rule = insert(tx, "strategy_rules", rows.row("strategy_rules") | {"strategy_id": None})[0]
    closed = {"strategy_rule_id": rule, "status": "executed", "outcome": "win", "entry_price": 1}
    with pytest.raises(psycopg.Error) as refused, tx.transaction():
        insert(tx, "trades", rows.row("trades") | closed | {"pnl_r": 1e308})
    assert refused.value.diag.constraint_name == "trades_pnl_r_in_range"
    insert(tx, "trades", rows.row("trades") | closed | {"pnl_r": 1e14})
    insert(tx, "trades", rows.row("trades") | closed | {"pnl_r": 2})
    tx.execute("SET CONSTRAINTS ALL IMMEDIATE")
    assert tx.execute(
        sql.SQL("SELECT trade_count FROM strategy_rules WHERE rule_id = {}").format(rule)
    ).fetchone() == (2,)
