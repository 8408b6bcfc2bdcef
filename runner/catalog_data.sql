-- What runner/catalog.py has to know of a database's rows to compare its catalogue.

-- name: made_from_data
WITH target AS (
    SELECT t.label, t.is_attached, c.relname, format('%I.%I', n.nspname, c.relname) AS name,
           _tidemark.quality_functions(t.stem) AS functions
      FROM _tidemark.quality_targets AS t
      JOIN pg_catalog.pg_class AS c ON c.oid = t.hypertable
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
), routine AS (
    SELECT f.name, t.is_attached FROM target AS t CROSS JOIN LATERAL unnest(t.functions) AS f (name)
     UNION ALL
    SELECT format('log_%s_changes', s.name), true FROM _tidemark.rollup_sources AS s
)
SELECT p.part, format('routine _tidemark.%I(', r.name) AS prefix
  FROM routine AS r
 CROSS JOIN (VALUES ('varying'), ('known')) AS p (part)
UNION ALL
SELECT 'known', format('relation _tidemark.%I', r.name || s.suffix)
  FROM _tidemark.rollups AS r
 CROSS JOIN (VALUES ('_direct'), ('_precomputed')) AS s (suffix)
UNION ALL
SELECT 'known', format('relation _tidemark.%I', s.name || '_logged_before') FROM _tidemark.rollup_sources AS s
UNION ALL
SELECT 'lacking', format('%s _tidemark.%I(', k.kind, r.name)
  FROM routine AS r
 CROSS JOIN (VALUES ('routine'), ('privileges'), ('owner of')) AS k (kind)
 WHERE NOT r.is_attached
UNION ALL
SELECT 'lacking', format('trigger %s.%s', t.name, g.name)
  FROM target AS t
 CROSS JOIN LATERAL unnest(_tidemark.quality_triggers()) AS g (name)
 WHERE NOT t.is_attached
UNION ALL
SELECT 'lacking', format('constraint %s.%I', t.name, left(t.relname, 47) || '_notice_replica')
  FROM target AS t
 WHERE NOT t.is_attached
UNION ALL
SELECT 'varying', format('column %s.quality_score', t.name) FROM target AS t WHERE NOT t.is_attached;

-- name: roles
-- They belong to the server, so that a scratch database says nothing about them.
SELECT concat('role ', r.rolname, ' is ', p.power)
  FROM pg_catalog.pg_roles AS r
 CROSS JOIN LATERAL (VALUES (r.rolsuper, 'a superuser'), (r.rolbypassrls, 'not bound by row-level security'),
                            (r.rolcreaterole, 'able to create roles'), (r.rolcreatedb, 'able to create databases'),
                            (r.rolreplication, 'able to replicate'),
                            (r.rolcanlogin AND r.rolconnlimit <> 0
                             AND r.rolname IN ('tidemark_owner', 'tidemark_record'), 'able to log in')) AS p (has, power)
 WHERE p.has AND r.rolname = ANY (%(roles)s)
UNION ALL
SELECT concat('role ', m.member::regrole, ' is a member of ', m.roleid::regrole)
  FROM pg_catalog.pg_auth_members AS m
  JOIN pg_catalog.pg_roles AS r ON r.oid = m.member
 WHERE r.rolname = ANY (%(roles)s)
 ORDER BY 1;

-- name: stale
SELECT t.label
  FROM _tidemark.quality_targets AS t
 WHERE t.is_attached
   AND EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = t.hypertable)
   AND _tidemark.build_quality(t.hypertable)
 ORDER BY t.label;
