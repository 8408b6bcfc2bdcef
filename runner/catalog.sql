-- The database as its catalogue describes it: one row (object, definition) for everything in public and in the schemas
-- that tidemark.catalog_schemas names, separated by commas, that is not part of an extension. Chunks, job ids and what
-- TimescaleDB adds by itself are left out, so that two databases built in different ways can be compared.
WITH own AS (
    SELECT n.oid AS schema_oid, n.nspname AS schema_name, n.nspowner, n.nspacl
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname = 'public'
        OR n.nspname = ANY (string_to_array(current_setting('tidemark.catalog_schemas'), ','))
), relation AS (
    SELECT c.oid, format('%I.%I', o.schema_name, c.relname) AS name, c.relkind, c.relacl, c.relowner, c.reloptions,
           c.relrowsecurity, c.relforcerowsecurity, c.relpersistence
      FROM pg_catalog.pg_class AS c
      JOIN own AS o ON o.schema_oid = c.relnamespace
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
), routine AS (
    SELECT p.oid, format('%I.%I(%s)', o.schema_name, p.proname, pg_get_function_identity_arguments(p.oid)) AS name
      FROM pg_catalog.pg_proc AS p
      JOIN own AS o ON o.schema_oid = p.pronamespace
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
)
SELECT 'schema ' || quote_ident(o.schema_name) AS object, obj_description(o.schema_oid, 'pg_namespace') AS definition
  FROM own AS o
 WHERE o.schema_name <> 'public'
UNION ALL
SELECT 'relation ' || r.name AS object,
       concat_ws(' ', r.relkind, r.reloptions::text,
                 CASE WHEN r.relrowsecurity THEN 'row security' END,
                 CASE WHEN r.relforcerowsecurity THEN 'forced' END,
                 CASE WHEN r.relpersistence = 'u' THEN 'unlogged' END,
                 (SELECT format('%s from %s to %s by %s%s', q.seqtypid::regtype, q.seqmin, q.seqmax, q.seqincrement,
                                CASE WHEN q.seqcycle THEN ' cycle' END)
                    FROM pg_catalog.pg_sequence AS q WHERE q.seqrelid = r.oid),
                 obj_description(r.oid, 'pg_class')) AS definition
  FROM relation AS r
 WHERE r.relkind IN ('r', 'v', 'm', 'p', 'f', 'S')
UNION ALL
SELECT 'column ' || r.name || '.' || quote_ident(a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
                 a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum))
  FROM relation AS r
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE r.relkind IN ('r', 'v', 'm', 'p', 'f')
UNION ALL
SELECT 'constraint ' || r.name || '.' || quote_ident(k.conname),
       concat_ws(' ', pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'))
  FROM relation AS r
  JOIN pg_catalog.pg_constraint AS k ON k.conrelid = r.oid AND k.contype <> 't'
UNION ALL
SELECT 'index ' || format('%I', i.relname),
       concat_ws(' ', pg_get_indexdef(i.oid), obj_description(i.oid, 'pg_class'))
  FROM relation AS r
  JOIN pg_catalog.pg_index AS x ON x.indrelid = r.oid
  JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
UNION ALL
SELECT 'trigger ' || r.name || '.' || quote_ident(t.tgname),
       concat_ws(' ', t.tgenabled, pg_get_triggerdef(t.oid), obj_description(t.oid, 'pg_trigger'))
  FROM relation AS r
  JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal AND t.tgname !~ '^ts_'
UNION ALL
SELECT 'policy ' || p.schemaname || '.' || p.tablename || '.' || p.policyname,
       concat_ws(' ', p.permissive, p.roles, p.cmd, p.qual, p.with_check)
  FROM pg_catalog.pg_policies AS p
  JOIN own AS o ON o.schema_name = p.schemaname
UNION ALL
SELECT 'view ' || r.name, pg_get_viewdef(r.oid)
  FROM relation AS r
 WHERE r.relkind IN ('v', 'm')
   AND NOT EXISTS (SELECT FROM timescaledb_information.continuous_aggregates AS g
                    WHERE format('%I.%I', g.view_schema, g.view_name) = r.name)
UNION ALL
SELECT 'continuous aggregate ' || format('%I.%I', g.view_schema, g.view_name),
       concat_ws(' ', g.hypertable_name ~ '^_materialized', g.materialized_only, g.compression_enabled,
                 regexp_replace(g.view_definition, '_materialized_hypertable_\d+', '_materialized_hypertable', 'g'))
  FROM timescaledb_information.continuous_aggregates AS g
  JOIN own AS o ON o.schema_name = g.view_schema
UNION ALL
SELECT 'routine ' || r.name,
       CASE WHEN p.prokind = 'a' THEN 'aggregate' ELSE pg_get_functiondef(p.oid) END
       || coalesce(obj_description(r.oid, 'pg_proc'), '')
  FROM routine AS r
  JOIN pg_catalog.pg_proc AS p ON p.oid = r.oid
UNION ALL
SELECT 'type ' || format('%I.%I', o.schema_name, t.typname),
       concat_ws(' ', t.typtype, (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                                    FROM pg_catalog.pg_enum AS e WHERE e.enumtypid = t.oid),
                 obj_description(t.oid, 'pg_type'))
  FROM pg_catalog.pg_type AS t
  JOIN own AS o ON o.schema_oid = t.typnamespace
 WHERE t.typtype IN ('e', 'd')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL
SELECT 'composite type ' || r.name,
       (SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped)
  FROM relation AS r
 WHERE r.relkind = 'c'
UNION ALL
SELECT 'rule ' || r.name || '.' || quote_ident(w.rulename), pg_get_ruledef(w.oid)
  FROM relation AS r
  JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = r.oid AND w.rulename <> '_RETURN'
UNION ALL
SELECT 'event trigger ' || quote_ident(e.evtname),
       concat_ws(' ', e.evtevent, e.evtenabled, e.evttags::text, p.oid::regprocedure::text,
                 obj_description(e.oid, 'pg_event_trigger'))
  FROM pg_catalog.pg_event_trigger AS e
  JOIN pg_catalog.pg_proc AS p ON p.oid = e.evtfoid
  JOIN own AS o ON o.schema_oid = p.pronamespace AND o.schema_name <> 'public'
UNION ALL
SELECT 'owner of ' || q.name, pg_get_userbyid(q.owner)
  FROM (
        SELECT quote_ident(o.schema_name) AS name, o.nspowner AS owner FROM own AS o WHERE o.schema_name <> 'public'
        UNION ALL
        SELECT r.name, r.relowner FROM relation AS r WHERE r.relkind IN ('r', 'v', 'm', 'p', 'f')
        UNION ALL
        SELECT r.name, p.proowner FROM routine AS r JOIN pg_catalog.pg_proc AS p ON p.oid = r.oid
        UNION ALL
        SELECT format('%I.%I', o.schema_name, t.typname), t.typowner
          FROM pg_catalog.pg_type AS t
          JOIN own AS o ON o.schema_oid = t.typnamespace
         WHERE t.typtype IN ('e', 'd')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
       ) AS q
UNION ALL
SELECT 'privileges ' || g.name, string_agg(g.grantee || '=' || g.privileges, ' ' ORDER BY g.grantee)
  FROM (
        SELECT q.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee,
               string_agg(a.privilege_type, ',' ORDER BY a.privilege_type) AS privileges
          FROM (
                SELECT r.name, r.relowner AS owner, coalesce(r.relacl, acldefault('r', r.relowner)) AS acl
                  FROM relation AS r
                 WHERE r.relkind IN ('r', 'v', 'm', 'p', 'f')
                UNION ALL
                SELECT r.name, r.relowner, coalesce(r.relacl, acldefault('s', r.relowner))
                  FROM relation AS r
                 WHERE r.relkind = 'S'
                UNION ALL
                SELECT r.name || '.' || quote_ident(t.attname), r.relowner, t.attacl
                  FROM relation AS r
                  JOIN pg_catalog.pg_attribute AS t ON t.attrelid = r.oid AND NOT t.attisdropped
                UNION ALL
                SELECT quote_ident(o.schema_name), o.nspowner, coalesce(o.nspacl, acldefault('n', o.nspowner))
                  FROM own AS o
                UNION ALL
                SELECT r.name, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
                  FROM routine AS r
                  JOIN pg_catalog.pg_proc AS p ON p.oid = r.oid
               ) AS q
         CROSS JOIN LATERAL aclexplode(q.acl) AS a
         WHERE a.grantee <> q.owner
         GROUP BY q.name, a.grantee
       ) AS g
 GROUP BY g.name
UNION ALL
SELECT 'hypertable ' || format('%I.%I', d.hypertable_schema, d.hypertable_name),
       string_agg(concat_ws(' ', d.dimension_number, d.column_name, d.time_interval, d.integer_interval,
                            d.num_partitions), ', ' ORDER BY d.dimension_number)
  FROM timescaledb_information.dimensions AS d
  JOIN own AS o ON o.schema_name = d.hypertable_schema
 GROUP BY d.hypertable_schema, d.hypertable_name
 ORDER BY object;
