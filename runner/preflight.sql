-- What runner/preflight.py asks the database.

-- name: server
-- Versions of TimescaleDB and the schema it is in, whether the role may install it, whether it is preloaded, whether the
-- role may create objects, the encoding, whether there is a schema public, why nothing can be written (NULL: it can).
SELECT (SELECT e.default_version FROM pg_catalog.pg_available_extensions AS e WHERE e.name = 'timescaledb'),
       i.extversion,
       i.extnamespace::regnamespace::text,
       (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user)
       OR EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions AS v
                   WHERE v.name = 'timescaledb' AND v.trusted AND has_database_privilege(current_database(), 'CREATE')),
       -- The loader defines this setting; shared_preload_libraries itself is a superuser's to read.
       EXISTS (SELECT FROM pg_catalog.pg_settings AS s WHERE s.name = 'timescaledb.max_background_workers'),
       has_database_privilege(current_database(), 'CREATE')
       AND coalesce(has_schema_privilege(to_regnamespace('public')::oid, 'CREATE'), false),
       current_setting('server_encoding'),
       to_regnamespace('public') IS NOT NULL,
       CASE WHEN pg_is_in_recovery() THEN 'it is a standby'
            WHEN current_setting('transaction_read_only') = 'on' THEN 'default_transaction_read_only is on' END
  FROM (VALUES (true)) AS one (is_there)
  LEFT JOIN pg_catalog.pg_extension AS i ON i.extname = 'timescaledb';

-- name: ledgers
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND ((n.nspname = 'public' AND c.relname = ANY (%(names)s)) OR n.nspname || '.' || c.relname = ANY (%(names)s))
 ORDER BY 1;

-- name: ownership
SELECT pg_get_userbyid(n.nspowner), pg_has_role(n.nspowner, 'USAGE')
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname = '_tidemark';

-- name: taken
SELECT q.name
  FROM (
        SELECT 'public.' || c.relname AS name, 'pg_class'::regclass AS classid, c.oid
          FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY (%(names)s)
         UNION ALL
        SELECT 'public.' || t.typname, 'pg_type'::regclass, t.oid
          FROM pg_catalog.pg_type AS t
         WHERE t.typnamespace = to_regnamespace('public') AND t.typname = ANY (%(names)s) AND t.typrelid = 0
         UNION ALL
        SELECT 'public.' || p.proname || '()', 'pg_proc'::regclass, p.oid
          FROM pg_catalog.pg_proc AS p
         WHERE p.pronamespace = to_regnamespace('public') AND p.proname = ANY (%(names)s)
         UNION ALL
        SELECT 'schema ' || n.nspname, 'pg_namespace'::regclass, n.oid
          FROM pg_catalog.pg_namespace AS n
         WHERE n.nspname = ANY (%(schemas)s)
       ) AS q
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = q.classid AND d.objid = q.oid AND d.deptype = 'e')
 ORDER BY q.name;
