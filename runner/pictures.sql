-- What the pictures in docs/pictures/ are drawn from; the areas themselves are listed in pictures.py.

-- name: columns
-- One row per table and column, in order. Rank says how much a picture would lose without the column: 1 keys, 2 links,
-- 3 what else tells rows apart, 4 kinds and states, 5 anything else, 6 bookkeeping.
WITH own AS (
    SELECT c.oid, c.relname::text AS name, h.hypertable_name IS NOT NULL AS is_hypertable
      FROM pg_catalog.pg_class AS c
      LEFT JOIN timescaledb_information.hypertables AS h
        ON h.hypertable_schema = 'public' AND h.hypertable_name = c.relname
     WHERE c.relnamespace = 'public'::regnamespace
       AND c.relkind IN ('r', 'p')
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT o.name AS table_name, o.is_hypertable, a.attname::text AS column_name,
       format_type(a.atttypid, a.atttypmod) AS type_name,
       k.is_primary, k.is_foreign,
       CASE WHEN k.is_primary THEN 1
            WHEN k.is_foreign THEN 2
            WHEN a.attname IN ('created_at', 'updated_at', 'ingested_at', 'external_id') OR a.attidentity <> '' THEN 6
            WHEN k.is_unique THEN 3
            WHEN t.typtype = 'e' THEN 4
            ELSE 5
       END AS rank
  FROM own AS o
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
 CROSS JOIN LATERAL (
           SELECT coalesce(bool_or(c.contype = 'p'), false) AS is_primary,
                  coalesce(bool_or(c.contype = 'f'), false) AS is_foreign,
                  coalesce(bool_or(c.contype = 'u'), false) AS is_unique
             FROM pg_catalog.pg_constraint AS c
            WHERE c.conrelid = o.oid AND c.conkey @> ARRAY[a.attnum]
       ) AS k
 WHERE a.attname <> 'embedding' -- only where pgvector is installed
   AND a.attname <> ALL (_tidemark.spelling_columns(o.oid))
 ORDER BY o.name, a.attnum;

-- name: links
-- Which column leads to which table, one row each. Foreign keys; and, not enforced by one, columns named like the only
-- primary key of that name, unless it is a time.
WITH own AS (
    SELECT c.oid, c.relname::text AS name
      FROM pg_catalog.pg_class AS c
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
), target AS (
    SELECT min(c.conrelid::bigint)::oid AS oid, a.attname, min(a.atttypid::bigint)::oid AS type_oid
      FROM pg_catalog.pg_constraint AS c
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
     WHERE c.contype = 'p' AND cardinality(c.conkey) = 1 AND c.conrelid IN (SELECT o.oid FROM own AS o)
       AND a.atttypid <> 'timestamptz'::regtype
     GROUP BY a.attname
    HAVING count(*) = 1
)
SELECT f.name AS from_table, a.attname::text AS from_column, t.name AS to_table, true AS is_enforced,
       a.attnotnull AS is_required
  FROM pg_catalog.pg_constraint AS c
  JOIN own AS f ON f.oid = c.conrelid
  JOIN own AS t ON t.oid = c.confrelid
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
 WHERE c.contype = 'f'
   AND a.attname <> ALL (_tidemark.spelling_columns(f.oid))
 UNION
SELECT f.name, a.attname::text, t.name, false, a.attnotnull
  FROM own AS f
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN target AS g ON g.attname = a.attname AND g.type_oid = a.atttypid AND g.oid <> f.oid
  JOIN own AS t ON t.oid = g.oid
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS c
                    WHERE c.conrelid = f.oid AND c.contype = 'f' AND c.conkey @> ARRAY[a.attnum])
 ORDER BY 1, 2, 3;
