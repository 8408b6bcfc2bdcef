"""Enumerations take text and compare with it: every one, by one rule, and with the index still in use."""

from __future__ import annotations

import pytest
from psycopg import errors


def enums(tx) -> dict[str, str]:
    """Each enumeration of Tidemark's with its labels."""
    return dict(tx.execute("""
        SELECT t.typname, array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_type AS t
          JOIN pg_enum AS e ON e.enumtypid = t.oid
         WHERE t.typnamespace = 'public'::regnamespace GROUP BY 1""").fetchall())


@pytest.mark.parametrize("application", ["buddy_ai", "btc_dashboard"])
def test_every_enumeration_takes_text_and_compares_with_it(tx, application):
    tx.execute(f"SET LOCAL search_path = {application}, public")
    found = enums(tx)
    assert len(found) > 25
    for name, labels in found.items():
        tx.execute(f"CREATE TEMP TABLE t (label {name}) ON COMMIT DROP")
        for kind in ("text", "varchar", "varchar(50)"):
            tx.execute(f"PREPARE put ({kind}) AS INSERT INTO t VALUES ($1)")
            tx.execute(f"PREPARE change ({kind}) AS UPDATE t SET label = $1 WHERE label = $1")
            tx.execute(f"PREPARE look ({kind}) AS SELECT label = $1, $1 = label, label <> $1, label < $1, label <= $1,"
                       " label > $1, label >= $1, $1 < label, $1 >= label, label IN ($1, $1) FROM t")
            tx.execute(f"EXECUTE put ('{labels[-1]}')")
            tx.execute(f"EXECUTE change ('{labels[-1]}')")
            assert tx.execute(f"EXECUTE look ('{labels[-1]}')").fetchall() == [
                (True, True, False, False, True, False, True, False, True, True)], name
            if len(labels) > 1:
                assert tx.execute(f"EXECUTE look ('{labels[0]}')").fetchall() == [
                    (False, False, True, False, False, True, True, True, False, False)], name
            assert tx.execute(f"SELECT label = ANY (ARRAY['{labels[-1]}']::{kind}[]) FROM t").fetchall() == [(True,)]
            with pytest.raises(errors.InvalidTextRepresentation), tx.transaction():
                tx.execute("EXECUTE look ('no label')")
            tx.execute("DEALLOCATE ALL; DELETE FROM t")
        tx.execute("DROP TABLE t")


@pytest.mark.parametrize("application", ["buddy_ai", "cryptovolt", "trading_manager", "hyperliquid", "btc_dashboard"])
def test_every_enumeration_has_patterns_and_case_as_text_has(tx, application):
    tx.execute(f"SET LOCAL search_path = {application}, public")
    for name, labels in enums(tx).items():
        label = labels[-1]
        for kind in ("text", "varchar"):
            value, pattern = f"'{label}'::{name}", f"'{label[:2].swapcase()}%'::{kind}"
            assert tx.execute(f"""
                SELECT {value} LIKE '{label[:2]}%', {value} ILIKE {pattern}, {value} NOT LIKE '%x%'::{kind},
                       {value} NOT ILIKE {pattern}, {value} ~ ('^' || '{label}')::{kind}, {value} ~* upper('{label}'),
                       {value} !~ '{label}'::{kind}, {value} !~* upper('{label}'), lower({value}), upper({value})
                """).fetchone() == (True, True, "x" not in label, False, True, True, False, False, label.lower(),
                                    label.upper()), name
    # Text is compared as ever.
    assert tx.execute("SELECT 'Ab' LIKE 'A%', lower('Ab'), upper('a' || 'b'), lower(int4range(1, 2)), 'a' ~ 'A',"
                      " name ILIKE 'x%' FROM (VALUES ('X1')) AS s (name)").fetchone() == (
        True, "ab", "AB", 1, False, True)


def test_every_application_has_the_operators(tx):
    counts = tx.execute("""
        SELECT o.oprnamespace::regnamespace::text, count(*) FROM pg_operator AS o
         WHERE o.oprcode <> 0 AND 'e' IN (SELECT t.typtype FROM pg_type AS t WHERE t.oid IN (o.oprleft, o.oprright))
         GROUP BY 1""").fetchall()
    assert dict(counts) == dict.fromkeys(
        ("buddy_ai", "cryptovolt", "trading_manager", "hyperliquid", "btc_dashboard"), 12 * len(enums(tx)))


def test_text_is_stored_whatever_the_search_path(tx):
    tx.execute("PREPARE put (varchar, text) AS INSERT INTO sources (name, data_type, status) VALUES ('n', $1, $2)"
               " RETURNING status::text")
    assert tx.execute("EXECUTE put ('scalar', 'paused')").fetchall() == [("paused",)]


def test_rows_of_literals_compare_as_before_in_public(tx):
    assert tx.execute("SELECT count(*) FROM candles WHERE (interval, ts) = ('1h', '2024-01-01')").fetchone() == (0,)


def test_text_from_a_parameter_finds_the_index_as_a_literal_does(tx):
    tx.execute("SET LOCAL search_path = trading_manager, public")
    tx.execute("CREATE TABLE pg_temp.t AS SELECT i.interval, n FROM generate_series(1, 500) AS n,"
               " unnest(enum_range(NULL::candle_interval)) AS i (interval); CREATE INDEX ON t (interval, n); ANALYZE t")
    tx.execute("CREATE INDEX t_partial ON t (n) WHERE interval = '1h'")
    tx.execute("PREPARE look (varchar) AS SELECT * FROM t WHERE interval = $1 AND n = 7")
    for mode in ("force_custom_plan", "force_generic_plan"):
        tx.execute(f"SET LOCAL plan_cache_mode = {mode}")
        plan = tx.execute("EXPLAIN (FORMAT JSON) EXECUTE look ('1d')").fetchone()[0][0]["Plan"]
        assert "Index Cond" in str(plan) and "Filter" not in str(plan), plan
    # A literal is a constant when the statement is planned, so that partial indexes are seen.
    tx.execute("SET LOCAL enable_seqscan = off; DROP INDEX t_interval_n_idx")
    plan = str(tx.execute("EXPLAIN (FORMAT JSON) SELECT n FROM t WHERE interval = '1h' ORDER BY n LIMIT 1").fetchone())
    assert "t_partial" in plan


def test_lists_of_literals_stay_what_they_were(tx):
    plan = str(tx.execute("EXPLAIN SELECT * FROM sources WHERE status IN ('active', 'paused')").fetchall())
    assert "ANY ('{active,paused}'::source_status[])" in plan
