"""Style, asked of the catalogue: each query returns the offenders, so a failure is a to-do list."""

from __future__ import annotations

import pytest

# What Tidemark made, in either of its schemas; what belongs to an extension does not count.
OWN = """
    WITH own AS (
        SELECT n.oid FROM pg_namespace AS n WHERE n.nspname IN ('public', '_tidemark')
    ), relation AS (
        SELECT c.* FROM pg_class AS c
         WHERE c.relnamespace IN (SELECT oid FROM own)
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
    ), routine AS (
        SELECT p.* FROM pg_proc AS p
         WHERE p.pronamespace IN (SELECT oid FROM own)
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
    )
"""

OFFENDERS = {
    "every table, view and sequence-free relation has a comment": """
        SELECT r.oid::regclass::text FROM relation AS r
         WHERE r.relkind IN ('r', 'v', 'm') AND obj_description(r.oid, 'pg_class') IS NULL""",
    "every column has a comment": """
        SELECT r.oid::regclass || '.' || a.attname FROM relation AS r JOIN pg_attribute AS a ON a.attrelid = r.oid
         WHERE r.relkind IN ('r', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
           AND col_description(r.oid, a.attnum) IS NULL""",
    # What an update of an extension drops and makes again, which it cannot where a view stands on it. Aggregates of
    # TimescaleDB's are its own affair.
    "no view stands on views of an extension": """
        SELECT DISTINCT r.oid::regclass || ' on ' || d.refobjid::regclass
          FROM pg_class AS r JOIN pg_rewrite AS w ON w.ev_class = r.oid
          JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
               AND d.refclassid = 'pg_class'::regclass
          JOIN pg_depend AS e ON e.classid = 'pg_class'::regclass AND e.objid = d.refobjid AND e.deptype = 'e'
         WHERE NOT EXISTS (SELECT FROM pg_depend AS o WHERE o.objid = r.oid AND o.deptype = 'e')""",
    "no view calls functions of an extension but those that aggregates are made of": """
        SELECT DISTINCT r.oid::regclass || ' calls ' || d.refobjid::regprocedure
          FROM pg_class AS r JOIN pg_rewrite AS w ON w.ev_class = r.oid
          JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
               AND d.refclassid = 'pg_proc'::regclass
          JOIN pg_depend AS e ON e.classid = 'pg_proc'::regclass AND e.objid = d.refobjid AND e.deptype = 'e'
          JOIN pg_proc AS p ON p.oid = d.refobjid
         WHERE NOT EXISTS (SELECT FROM pg_depend AS o WHERE o.objid = r.oid AND o.deptype = 'e')
           AND r.relnamespace <> '_timescaledb_internal'::regnamespace
           AND p.proname NOT IN ('time_bucket', 'first', 'last', 'cagg_watermark', 'to_timestamp')""",
    "every type has a comment": """
        SELECT t.oid::regtype::text FROM pg_type AS t
         WHERE t.typnamespace IN (SELECT oid FROM own) AND t.typtype IN ('e', 'd')
           AND obj_description(t.oid, 'pg_type') IS NULL""",
    "every routine has a comment": """
        SELECT r.oid::regprocedure::text FROM routine AS r WHERE obj_description(r.oid, 'pg_proc') IS NULL""",
    "every trigger has a comment": """
        SELECT r.relname || '.' || t.tgname FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid
         WHERE NOT t.tgisinternal AND t.tgname !~ '^ts_' AND obj_description(t.oid, 'pg_trigger') IS NULL""",
    "every index that no constraint made has a comment": """
        SELECT x.indexrelid::regclass::text FROM pg_index AS x JOIN relation AS r ON r.oid = x.indrelid
         WHERE NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = x.indexrelid)
           AND obj_description(x.indexrelid, 'pg_class') IS NULL""",
    "every foreign key is indexed": """
        SELECT k.conname FROM pg_constraint AS k JOIN relation AS r ON r.oid = k.conrelid
         WHERE k.contype = 'f' AND NOT EXISTS (
               SELECT FROM pg_index AS x
                WHERE x.indrelid = k.conrelid AND k.conkey <@ (x.indkey::int2[])[0:cardinality(k.conkey) - 1])""",
    "no foreign key points at a hypertable": """
        SELECT k.conname FROM pg_constraint AS k
          JOIN timescaledb_information.hypertables AS h
            ON k.confrelid = format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass
         WHERE k.contype = 'f'""",
    "every constraint is named after its table": """
        SELECT k.conname FROM pg_constraint AS k JOIN relation AS r ON r.oid = k.conrelid
         WHERE k.contype IN ('p', 'u', 'f', 'c', 'x') AND NOT starts_with(k.conname, r.relname || '_')""",
    "every constraint's name ends as its kind has it": """
        SELECT k.conname FROM pg_constraint AS k JOIN relation AS r ON r.oid = k.conrelid
         WHERE (k.contype = 'p' AND k.conname !~ '_pkey$') OR (k.contype = 'u' AND k.conname !~ '_key$')
            OR (k.contype = 'f' AND k.conname !~ '_fkey$')
            OR (k.contype = 'c' AND k.conname ~ '_(check|not_null)[0-9]*$')""",
    "every index's name ends in _idx or says what it keeps unique": """
        SELECT x.indexrelid::regclass::text FROM pg_index AS x JOIN relation AS r ON r.oid = x.indrelid
         WHERE x.indexrelid::regclass::text !~ CASE WHEN x.indisunique THEN '_(pkey|key)$' ELSE '_idx$' END""",
    "every trigger's name begins with trg_": """
        SELECT r.relname || '.' || t.tgname FROM pg_trigger AS t JOIN relation AS r ON r.oid = t.tgrelid
         WHERE NOT t.tgisinternal AND t.tgname !~ '^(ts_|trg_)'""",
    "every routine pins its search_path, pg_temp last": """
        SELECT r.oid::regprocedure::text FROM routine AS r
         WHERE NOT EXISTS (SELECT FROM unnest(r.proconfig) AS s WHERE s ~ '^search_path=pg_catalog,.*pg_temp$')
           AND NOT (r.prokind = 'p' AND obj_description(r.oid, 'pg_proc') ~ 'controls transactions')
           AND obj_description(r.oid, 'pg_proc') !~ 'Inlined'""",
    "no routine is overloaded": """
        SELECT r.pronamespace::regnamespace || '.' || r.proname FROM routine AS r
         GROUP BY r.pronamespace, r.proname HAVING count(*) > 1""",
    "every plain table says when a row was stored": """
        SELECT r.relname::text FROM relation AS r
         WHERE r.relkind = 'r' AND r.relnamespace = 'public'::regnamespace
           AND r.relname NOT IN (SELECT hypertable_name FROM timescaledb_information.hypertables)
           AND NOT EXISTS (SELECT FROM pg_attribute AS a
                            WHERE a.attrelid = r.oid AND a.attname = 'created_at' AND a.attnotnull)""",
    "every instant is a timestamptz, every JSON a jsonb, every text a text": """
        SELECT r.relname || '.' || a.attname FROM relation AS r JOIN pg_attribute AS a ON a.attrelid = r.oid
         WHERE a.attnum > 0 AND r.relkind IN ('r', 'v') AND a.attname !~ '^app_' -- an application's spelling
           AND a.atttypid IN ('timestamp'::regtype, 'json'::regtype, 'varchar'::regtype, 'bpchar'::regtype)""",
}


@pytest.mark.parametrize("rule", OFFENDERS)
def test_convention(tx, rule):
    assert [offender for (offender,) in tx.execute(OWN + OFFENDERS[rule])] == []


def test_extension_is_in_public(tx):
    assert tx.execute(
        "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'timescaledb'"
    ).fetchone() == ("public",)
