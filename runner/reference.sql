-- One row per public object (part NULL), followed by a row per column: section, object, part, kind or type, comment.
WITH relation AS (
    SELECT c.oid, c.relname, CASE c.relkind WHEN 'r' THEN 'Tables' ELSE 'Views' END AS section,
           CASE WHEN h.hypertable_name IS NOT NULL THEN 'hypertable' END AS kind
      FROM pg_catalog.pg_class AS c
      LEFT JOIN timescaledb_information.hypertables AS h
        ON h.hypertable_schema = 'public' AND h.hypertable_name = c.relname
     WHERE c.relnamespace = 'public'::regnamespace
       AND c.relkind IN ('r', 'v')
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT o.section, o.object, o.part, o.kind, o.comment
  FROM (
        SELECT 1 AS place, r.section, r.relname::text AS object, 0 AS number, NULL::text AS part, r.kind,
               obj_description(r.oid, 'pg_class') AS comment
          FROM relation AS r
        UNION ALL
        SELECT 1, r.section, r.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
               col_description(r.oid, a.attnum)
          FROM relation AS r
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE a.attname <> 'embedding' -- only where pgvector is installed
        UNION ALL
        SELECT 2, 'Functions and procedures',
               format('%s(%s)', p.proname, pg_get_function_arguments(p.oid)), 0, NULL,
               CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'returns ' || pg_get_function_result(p.oid) END,
               obj_description(p.oid, 'pg_proc')
          FROM pg_catalog.pg_proc AS p
         WHERE p.pronamespace = 'public'::regnamespace
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
        UNION ALL
        SELECT 3, 'Types', t.typname, 0, NULL,
               (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
                  FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid),
               obj_description(t.oid, 'pg_type')
          FROM pg_catalog.pg_type AS t
         WHERE t.typnamespace = 'public'::regnamespace AND t.typtype = 'e'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
       ) AS o
 ORDER BY o.place, o.section, o.object, o.number;
