"""What one user writes makes nobody else's statement fail."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import errors, sql
from record.support import NOT_AUDITED, Rows, insert

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


INSTANTS = """
    SELECT c.relname, a.attname
      FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
       AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) AND c.relname <> ALL (%s)
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
     ORDER BY 1, 2
"""


def test_every_instant_is_one_that_clients_can_read(tx):
    """psycopg refuses to read a table that has an infinite one, or one beyond the years 1 to 9999."""
    tx.execute("SELECT set_config('tidemark.reason', 'test', true), set_config('tidemark.ingest_mode', 'replay', true)")
    rows, unreadable = Rows(tx), []
    instants = tx.execute(INSTANTS, (list(NOT_AUDITED),)).fetchall()
    assert len(instants) > 90
    for table, column in instants:
        row = {k: v for k, v in rows.row(table).items() if k != column}
        for value in ("infinity", "-infinity", "4000-01-01 BC", "12000-01-01"):
            try:
                with tx.transaction(force_rollback=True):
                    kept = insert(tx, table, row | {column: value}, returning=[column])[0]
                    unreadable.append((table, column, value, str(kept)))
            except (errors.CheckViolation, errors.DatetimeFieldOverflow):
                pass
            except psycopg.DataError as error:  # it is stored, and psycopg cannot read it
                unreadable.append((table, column, value, str(error)))
    assert unreadable == []


FAR = ("9000 years", "200000 years", "100000000 years")


@pytest.mark.parametrize("far", FAR)
def test_span_that_no_instant_can_be_reached_by_is_refused_at_the_door(tx, far):
    """What is taken off now() in a job of all, or in everybody's INSERT."""
    tx.execute("SELECT set_config('tidemark.reason', 'test', true)")
    for table, column in (("data_policies", "drop_after"), ("data_policies", "compress_after"),
                          ("quality_profiles", "allowed_lag")):
        with pytest.raises(errors.CheckViolation) as refused, tx.transaction():
            tx.execute(f"UPDATE {table} SET {column} = %s", (far,))
        assert refused.value.diag.constraint_name == f"{table}_{column}_in_range"
        tx.execute(f"UPDATE {table} SET {column} = '1000 years'")
        tx.execute("SELECT count(*) FROM _tidemark.expired_chunks()")
        tx.execute(f"UPDATE {table} SET {column} = NULL")


@pytest.mark.parametrize("rule_type, parameters", [
    ("not_future", {"tolerance": "-200000 years"}), ("not_future", {"tolerance": "200000 years"}),
    ("not_future", {"tolerance": "9999999999 years"}),
    ("range", {"column": "value", "max": 10**400}), ("range", {"column": "value", "min": "1e-400"}),
])
def test_rule_that_would_fail_on_every_row_is_refused_at_the_door(tx, rule_type, parameters):
    tx.execute("SELECT set_config('tidemark.reason', 'test', true)")
    rows = Rows(tx)
    row = rows.row("timeseries_data")
    try:
        with tx.transaction():
            insert(tx, "validation_rules", {"name": "far", "applies_to": "timeseries_data", "rule_type": rule_type,
                                            "parameters": json.dumps(parameters)})
    except psycopg.Error as refused:
        assert refused.sqlstate == "TM206"
    insert(tx, "timeseries_data", row)
