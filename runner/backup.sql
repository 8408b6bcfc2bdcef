-- What backup.py asks a database: what it holds, who may see it, and whether another may be restored into it.

-- name: heading
-- What runs here; timescaledb is NULL where it is not installed in this database, and so is edition where no file of
-- settings names it: only the extension's library knows its own default.
SELECT split_part(current_setting('server_version'), ' ', 1) AS postgresql,
       (SELECT x.extversion FROM pg_catalog.pg_extension AS x WHERE x.extname = 'timescaledb') AS timescaledb,
       CASE nullif(current_setting('timescaledb.license', true), '')
           WHEN 'timescale' THEN 'community' WHEN 'apache' THEN 'apache' END AS edition,
       current_database()::text AS database,
       current_user::text AS role,
       (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) AS is_superuser,
       (SELECT array_agg(x.extname::text ORDER BY x.extname) FROM pg_catalog.pg_extension AS x) AS extensions;

-- name: tables
-- Every table with rows of its own: plain ones, hypertables, and what continuous aggregates have stored. Unlogged ones
-- are caches, of which a copy of the files brings back nothing.
SELECT format('%I.%I', n.nspname, c.relname) AS label, n.nspname AS schema, c.relname AS name
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND c.relpersistence = 'p'
   AND NOT c.relispartition
   AND n.nspname !~ '^(pg_|_timescaledb|timescaledb_|information_schema$|toolkit_)'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT format('%I.%I', g.view_schema, g.view_name), g.materialization_hypertable_schema,
       g.materialization_hypertable_name
  FROM timescaledb_information.continuous_aggregates AS g
 ORDER BY label;

-- name: sequences
-- Sequences, and the columns of whole numbers whose values come from them, one row each.
SELECT format('%I.%I', n.nspname, c.relname) AS label, n.nspname AS schema, c.relname AS name,
       s.seqincrement AS step, tn.nspname AS table_schema, t.relname AS table_name, a.attname AS column_name
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = c.oid
  LEFT JOIN (
           SELECT d.objid AS sequence_oid, d.refobjid AS table_oid, d.refobjsubid AS attnum -- identity
             FROM pg_catalog.pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
              AND d.deptype = 'i' AND d.refobjsubid > 0
            UNION ALL
           SELECT d.refobjid, f.adrelid, f.adnum -- DEFAULT nextval(…)
             FROM pg_catalog.pg_depend AS d
             JOIN pg_catalog.pg_attrdef AS f ON f.oid = d.objid
            WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
       ) AS u ON u.sequence_oid = c.oid
  LEFT JOIN pg_catalog.pg_attribute AS a
         ON a.attrelid = u.table_oid AND a.attnum = u.attnum
        AND a.atttypid IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype)
  LEFT JOIN pg_catalog.pg_class AS t ON t.oid = a.attrelid
  LEFT JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
 WHERE n.nspname !~ '^(pg_|_timescaledb|timescaledb_|information_schema$|toolkit_)'
 ORDER BY label, table_schema, table_name, column_name;

-- name: roles
-- The roles that the database mentions and those called tidemark_…, whoever belongs to them, and their groups.
WITH RECURSIVE mentioned AS (
    SELECT d.refobjid AS oid
      FROM pg_catalog.pg_shdepend AS d
      JOIN pg_catalog.pg_database AS b ON b.datname = current_database()
     WHERE d.refclassid = 'pg_authid'::regclass
       AND (d.dbid = b.oid OR (d.classid = 'pg_database'::regclass AND d.objid = b.oid))
    UNION
    SELECT b.datdba FROM pg_catalog.pg_database AS b WHERE b.datname = current_database()
    UNION
    -- What the first superuser owns is in no list of dependencies.
    SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.oid >= 16384
    UNION
    SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname ~ '^tidemark_'
), member AS (
    SELECT m.oid FROM mentioned AS m
    UNION
    SELECT a.member
      FROM member AS m
      JOIN pg_catalog.pg_auth_members AS a ON a.roleid = m.oid
     WHERE a.roleid >= 16384  -- not whoever reads or monitors by way of a predefined role
), related AS (
    SELECT m.oid FROM member AS m
    UNION
    SELECT a.roleid
      FROM related AS r
      JOIN pg_catalog.pg_auth_members AS a ON a.member = r.oid
)
SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS createrole,
       r.rolcreatedb AS createdb, r.rolcanlogin AS login, r.rolreplication AS replication,
       r.rolbypassrls AS bypassrls, r.rolconnlimit AS connection_limit,
       shobj_description(r.oid, 'pg_authid') AS comment,
       (SELECT coalesce(jsonb_agg(to_jsonb(a) - '{oid,roleid,member,grantor}'::text[]
                                  || jsonb_build_object('role', g.rolname) ORDER BY g.rolname), '[]')
          FROM pg_catalog.pg_auth_members AS a
          JOIN pg_catalog.pg_roles AS g ON g.oid = a.roleid
         WHERE a.member = r.oid) AS member_of,
       (SELECT coalesce(array_agg(c ORDER BY c), '{}')
          FROM pg_catalog.pg_db_role_setting AS s
         CROSS JOIN LATERAL unnest(s.setconfig) AS c
         WHERE s.setrole = r.oid AND s.setdatabase = 0) AS settings
  FROM pg_catalog.pg_roles AS r
 WHERE r.oid IN (SELECT x.oid FROM related AS x)
   AND r.rolname !~ '^pg_'
 ORDER BY name;

-- name: database_settings
-- ALTER DATABASE … SET, and ALTER ROLE … IN DATABASE … SET.
SELECT r.rolname AS role, c AS setting
  FROM pg_catalog.pg_db_role_setting AS s
 CROSS JOIN LATERAL unnest(s.setconfig) AS c
  JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
  LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
 WHERE d.datname = current_database()
   AND c !~ '^timescaledb.restoring='
 ORDER BY role NULLS FIRST, setting;

-- name: database_privileges
SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS grantee,
       a.privilege_type AS privilege, a.is_grantable
  FROM pg_catalog.pg_database AS d
 CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
 WHERE d.datname = current_database()
   AND a.grantee <> d.datdba
 ORDER BY grantee, privilege;

-- name: hidden
-- Tables whose rows row-level security hides from the caller.
SELECT c.oid::regclass::text AS name
  FROM pg_catalog.pg_class AS c
 WHERE c.relrowsecurity
   AND row_security_active(c.oid)
 ORDER BY name;

-- name: unreadable
-- Tables and sequences that the caller may not read.
SELECT c.oid::regclass::text AS name
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'S')
   AND n.nspname !~ '^(pg_|information_schema$)'
   AND NOT (has_schema_privilege(n.oid, 'USAGE')
            AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                               ELSE has_table_privilege(c.oid, 'SELECT') END)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY name;

-- name: tablespaces
SELECT t.spcname AS name FROM pg_catalog.pg_tablespace AS t WHERE pg_tablespace_location(t.oid) <> '' ORDER BY name;

-- name: seal
-- The last seal of the audit record.
SELECT s.seal_id, s.to_audit_id, encode(s.root, 'hex') AS root
  FROM public.audit_seals AS s
 ORDER BY s.seal_id DESC
 LIMIT 1;

-- name: offered
-- Extensions that the server has, in each version.
SELECT v.name, v.version FROM pg_catalog.pg_available_extension_versions AS v ORDER BY v.name, v.version;

-- name: contents
-- What makes a database not empty: anything that no extension brought.
SELECT o.name
  FROM (
        SELECT 'pg_class'::regclass AS classid, c.oid, c.oid::regclass::text AS name, c.relnamespace AS namespace
          FROM pg_catalog.pg_class AS c
         WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S')
        UNION ALL
        SELECT 'pg_proc'::regclass, p.oid, p.oid::regproc::text, p.pronamespace
          FROM pg_catalog.pg_proc AS p
        UNION ALL
        SELECT 'pg_type'::regclass, t.oid, t.oid::regtype::text, t.typnamespace
          FROM pg_catalog.pg_type AS t
         WHERE t.typtype IN ('e', 'd')
        UNION ALL
        SELECT 'pg_namespace'::regclass, s.oid, s.nspname, s.oid
          FROM pg_catalog.pg_namespace AS s
         WHERE s.nspname <> 'public'
       ) AS o
  JOIN pg_catalog.pg_namespace AS n ON n.oid = o.namespace
 WHERE n.nspname !~ '^(pg_|information_schema$)'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = o.classid AND d.objid = o.oid AND d.deptype IN ('e', 'i'))
 ORDER BY o.name;

-- name: catalogue
-- What a restored database must have in common with its origin besides what catalog.sql tells: one row
-- (object, definition) for owners, schemas, extensions, event triggers, default privileges, and for all that
-- TimescaleDB keeps: chunks, compression, continuous aggregates, jobs and policies.
WITH own AS (
    SELECT n.oid, n.nspname, n.nspowner, n.nspacl
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname !~ '^(pg_|_timescaledb|timescaledb_|information_schema$|toolkit_)'
), extension_member AS (
    SELECT d.classid, d.objid
      FROM pg_catalog.pg_depend AS d
     WHERE d.deptype = 'e'
)
SELECT 'schema ' || quote_ident(o.nspname) AS object,
       concat_ws(' ', pg_get_userbyid(o.nspowner), CASE WHEN o.nspname <> 'public' THEN (
           SELECT string_agg(a::text, ',' ORDER BY a::text)
             FROM unnest(coalesce(o.nspacl, acldefault('n', o.nspowner))) AS a
       ) END) AS definition
  FROM own AS o
 WHERE o.nspname <> 'public'
UNION ALL
SELECT 'owner of relation ' || format('%I.%I', o.nspname, c.relname), pg_get_userbyid(c.relowner)
  FROM pg_catalog.pg_class AS c
  JOIN own AS o ON o.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S')
   AND NOT EXISTS (SELECT FROM extension_member AS e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid)
UNION ALL
SELECT 'owner of routine ' || format('%I.%I(%s)', o.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
       pg_get_userbyid(p.proowner)
  FROM pg_catalog.pg_proc AS p
  JOIN own AS o ON o.oid = p.pronamespace
 WHERE NOT EXISTS (SELECT FROM extension_member AS e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
UNION ALL
SELECT 'extension ' || quote_ident(x.extname),
       CASE x.extname WHEN 'timescaledb' THEN x.extversion ELSE 'there' END  -- others may be newer on the new server
  FROM pg_catalog.pg_extension AS x
UNION ALL
SELECT 'event trigger ' || quote_ident(t.evtname),
       concat_ws(' ', t.evtevent, t.evtenabled, t.evtfoid::regprocedure, t.evttags, pg_get_userbyid(t.evtowner))
  FROM pg_catalog.pg_event_trigger AS t
 WHERE NOT EXISTS (SELECT FROM extension_member AS e
                    WHERE e.classid = 'pg_event_trigger'::regclass AND e.objid = t.oid)
UNION ALL
SELECT 'default privileges of ' || concat_ws(' ', pg_get_userbyid(d.defaclrole), o.nspname, d.defaclobjtype),
       d.defaclacl::text
  FROM pg_catalog.pg_default_acl AS d
  LEFT JOIN own AS o ON o.oid = d.defaclnamespace
UNION ALL
SELECT 'chunk ' || format('%I.%I', c.chunk_schema, c.chunk_name),
       concat_ws(' ', c.hypertable_name, c.range_start, c.range_end, c.range_start_integer, c.range_end_integer,
                 CASE WHEN c.is_compressed THEN 'compressed' END)
  FROM timescaledb_information.chunks AS c
UNION ALL
SELECT 'compression of ' || s.hypertable::text, concat_ws(' ', s.segmentby, '|', s.orderby)
  FROM timescaledb_information.hypertable_columnstore_settings AS s
UNION ALL
SELECT 'materialization of ' || format('%I.%I', g.view_schema, g.view_name),
       concat_ws(' ', g.materialization_hypertable_name, w.watermark)
  FROM timescaledb_information.continuous_aggregates AS g
  JOIN _timescaledb_catalog.hypertable AS h
       ON h.schema_name = g.materialization_hypertable_schema AND h.table_name = g.materialization_hypertable_name
  LEFT JOIN _timescaledb_catalog.continuous_aggs_watermark AS w ON w.mat_hypertable_id = h.id
UNION ALL
SELECT 'job ' || j.job_id,
       concat_ws(' ', j.proc_schema, j.proc_name, j.owner, j.scheduled, j.schedule_interval, j.max_runtime,
                 j.max_retries, j.retry_period, j.fixed_schedule, j.initial_start, j.config, j.hypertable_name)
  FROM timescaledb_information.jobs AS j
 WHERE j.job_id >= 1000  -- those below come with the extension
 ORDER BY object;
