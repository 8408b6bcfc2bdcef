-- What runner/logic.py asks the database.

-- name: touched
-- Logic that this transaction made, replaced or commented on: its rows of pg_depend or pg_description are ours. Chunks'
-- triggers, continuous aggregates and what belongs to an extension are none of it.
WITH ours AS MATERIALIZED (
    SELECT d.classid, d.objid
      FROM pg_catalog.pg_depend AS d
     WHERE age(d.xmin) <= 0
       AND pg_xact_status((pg_current_xact_id()::text::bigint - age(d.xmin))::text::xid8) = 'in progress'
     UNION
    SELECT c.classoid, c.objoid
      FROM pg_catalog.pg_description AS c
     WHERE age(c.xmin) <= 0
       AND pg_xact_status((pg_current_xact_id()::text::bigint - age(c.xmin))::text::xid8) = 'in progress'
), continuous_aggregate AS (
    -- Views over what TimescaleDB materialised, which are data. It may not be there to ask.
    SELECT w.ev_class AS oid
      FROM pg_catalog.pg_depend AS d
      JOIN pg_catalog.pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
      JOIN pg_catalog.pg_class AS m ON d.refclassid = 'pg_class'::regclass AND m.oid = d.refobjid
     WHERE m.relnamespace = to_regnamespace('_timescaledb_internal')
), logic AS (
    SELECT o.classid, o.objid
      FROM ours AS o
     WHERE o.classid IN ('pg_proc'::regclass, 'pg_policy'::regclass, 'pg_event_trigger'::regclass)
     UNION
    SELECT o.classid, o.objid
      FROM ours AS o
      JOIN pg_catalog.pg_trigger AS t ON t.oid = o.objid
     WHERE o.classid = 'pg_trigger'::regclass AND NOT t.tgisinternal AND t.tgname !~ '^ts_'
     UNION
    SELECT 'pg_class'::regclass, c.oid
      FROM ours AS o
      LEFT JOIN pg_catalog.pg_rewrite AS w ON o.classid = 'pg_rewrite'::regclass AND w.oid = o.objid
      JOIN pg_catalog.pg_class AS c ON c.relkind = 'v'
       AND c.oid = CASE o.classid WHEN 'pg_class'::regclass THEN o.objid ELSE w.ev_class END
     WHERE NOT EXISTS (SELECT FROM continuous_aggregate AS g WHERE g.oid = c.oid)
)
SELECT i.type, i.identity
  FROM logic AS l
 CROSS JOIN LATERAL pg_identify_object(l.classid, l.objid, 0) AS i
 WHERE i.identity IS NOT NULL
   AND i.identity !~ '(^|\son\s)(pg_temp|_timescaledb_\w+)\.'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = l.classid AND d.objid = l.objid AND d.deptype = 'e');

-- name: make_way
SELECT _tidemark.make_way(%s::regclass, %s);

-- name: same_arguments
SELECT p.oid
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_proc AS t ON t.pronamespace = pg_my_temp_schema()
                              AND t.proname = 'made_anew'
                              AND t.proargtypes = p.proargtypes
 WHERE concat_ws('.', n.nspname, p.proname) = %(name)s;

-- name: overtaken
-- Functions of that name that logic made, and that this transaction has not made again: another has taken their place.
SELECT p.oid
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
 CROSS JOIN LATERAL pg_identify_object('pg_proc'::regclass, p.oid, 0) AS i
  JOIN _tidemark_migrations.logic_objects AS o ON (o.kind, o.identity) = (i.type, i.identity)
 WHERE concat_ws('.', n.nspname, p.proname) = %(name)s
   AND (age(p.xmin) > 0
        OR pg_xact_status((pg_current_xact_id()::text::bigint - age(p.xmin))::text::xid8) <> 'in progress');

-- name: recorded
SELECT o.kind, o.identity, o.file FROM _tidemark_migrations.logic_objects AS o;

-- name: existing
-- Which of those are still there, as their names are now.
WITH logic AS (
    SELECT 'pg_proc'::regclass AS classid, p.oid FROM pg_catalog.pg_proc AS p
     UNION ALL
    SELECT 'pg_policy'::regclass, p.oid FROM pg_catalog.pg_policy AS p
     UNION ALL
    SELECT 'pg_event_trigger'::regclass, e.oid FROM pg_catalog.pg_event_trigger AS e
     UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid FROM pg_catalog.pg_trigger AS t WHERE NOT t.tgisinternal
     UNION ALL
    SELECT 'pg_class'::regclass, c.oid FROM pg_catalog.pg_class AS c WHERE c.relkind = 'v'
)
SELECT i.type, i.identity
  FROM logic AS l
 CROSS JOIN LATERAL pg_identify_object(l.classid, l.oid, 0) AS i
 WHERE (i.type, i.identity) IN (SELECT u.kind, u.identity
                                  FROM unnest(%(kinds)s::text[], %(identities)s::text[]) AS u (kind, identity));

-- name: forget
DELETE FROM _tidemark_migrations.logic_objects;

-- name: record
INSERT INTO _tidemark_migrations.logic_objects (kind, identity, file) VALUES (%(kind)s, %(identity)s, %(file)s);

-- name: stop_jobs
SELECT public.delete_job(j.job_id) FROM timescaledb_information.jobs AS j WHERE j.proc_schema = ANY (%(schemas)s);

-- name: attached
-- Constraints that attaching puts on tables, and that call functions of schemas of ours; attaching makes them again.
SELECT DISTINCT k.conrelid::regclass::text, quote_ident(k.conname)
  FROM pg_catalog.pg_depend AS d
  JOIN pg_catalog.pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
 WHERE n.nspname = ANY (%(schemas)s)
   AND k.coninhcount = 0;

-- name: rollups_views
-- The views of aggregates, a user's own too, where TimescaleDB does not keep them.
SELECT 'view', format('public.%I', r.name)
  FROM _tidemark.rollups AS r
 WHERE NOT r.is_native
   AND to_regclass(format('public.%I', r.name)) IS NOT NULL;

-- name: everything
-- All logic that stands on Tidemark's tables or that anything of ours made: what is recorded, what lies in schemas of
-- ours, and triggers that call such functions wherever they are.
WITH own_schema AS (
    SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = ANY (%(schemas)s)
), routine AS (
    SELECT p.oid
      FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
     WHERE n.oid IN (SELECT o.oid FROM own_schema AS o)
       AND concat_ws('.', n.nspname, p.proname) <> ALL (%(state)s)
     UNION
    SELECT p.oid
      FROM pg_catalog.pg_proc AS p
     CROSS JOIN LATERAL pg_identify_object('pg_proc'::regclass, p.oid, 0) AS i
      JOIN _tidemark_migrations.logic_objects AS r ON (r.kind, r.identity) = (i.type, i.identity)
), continuous_aggregate AS (
    -- Views over what TimescaleDB materialised, which are data. It may not be there to ask.
    SELECT w.ev_class AS oid
      FROM pg_catalog.pg_depend AS d
      JOIN pg_catalog.pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
      JOIN pg_catalog.pg_class AS m ON d.refclassid = 'pg_class'::regclass AND m.oid = d.refobjid
     WHERE m.relnamespace = to_regnamespace('_timescaledb_internal')
), logic AS (
    SELECT 'pg_proc'::regclass AS classid, r.oid FROM routine AS r
     UNION ALL
    SELECT 'pg_event_trigger'::regclass, e.oid
      FROM pg_catalog.pg_event_trigger AS e
     WHERE e.evtfoid IN (SELECT r.oid FROM routine AS r)
     UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid
      FROM pg_catalog.pg_trigger AS t
      JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
     WHERE t.tgfoid IN (SELECT r.oid FROM routine AS r)
       AND NOT t.tgisinternal
       AND c.relnamespace::regnamespace::text !~ '^_timescaledb_'
     UNION ALL
    SELECT 'pg_class'::regclass, c.oid
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL pg_identify_object('pg_class'::regclass, c.oid, 0) AS i
     WHERE c.relkind = 'v'
       AND (n.oid IN (SELECT o.oid FROM own_schema AS o)
            OR ('view', i.identity) IN (SELECT r.kind, r.identity FROM _tidemark_migrations.logic_objects AS r))
       AND NOT EXISTS (SELECT FROM continuous_aggregate AS g WHERE g.oid = c.oid)
     UNION ALL
    SELECT 'pg_operator'::regclass, o.oid
      FROM pg_catalog.pg_operator AS o
     WHERE o.oprcode IN (SELECT r.oid FROM routine AS r)
     UNION ALL
    SELECT 'pg_cast'::regclass, c.oid -- from text, as for each of our enumerations
      FROM pg_catalog.pg_cast AS c
      JOIN pg_catalog.pg_type AS t ON t.oid = c.casttarget
     WHERE t.typtype = 'e' AND c.castmethod = 'i' AND to_regproc(format('_tidemark.as_%%s', t.typname)) IS NOT NULL
     UNION ALL
    SELECT 'pg_policy'::regclass, p.oid
      FROM pg_catalog.pg_policy AS p
     CROSS JOIN LATERAL pg_identify_object('pg_policy'::regclass, p.oid, 0) AS i
     WHERE (i.type, i.identity) IN (SELECT r.kind, r.identity FROM _tidemark_migrations.logic_objects AS r)
)
SELECT i.type, i.identity
  FROM logic AS l
 CROSS JOIN LATERAL pg_identify_object(l.classid, l.oid, 0) AS i;

-- name: set_aside
-- Triggers that no file made, of functions that a file does: those of a table that somebody put on record.
INSERT INTO _tidemark_migrations.set_aside (relation, name, definition)
SELECT format('%%I.%%I', n.nspname, c.relname), t.tgname,
       concat_ws(E';\n', pg_get_triggerdef(t.oid),
                 CASE WHEN t.tgenabled <> 'O' THEN format('ALTER TABLE %%I.%%I %%s TRIGGER %%I', n.nspname, c.relname,
                      CASE t.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END,
                      t.tgname) END,
                 format('COMMENT ON TRIGGER %%I ON %%I.%%I IS %%L', t.tgname, n.nspname, c.relname,
                        obj_description(t.oid, 'pg_trigger')))
  FROM pg_catalog.pg_trigger AS t
  JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL pg_identify_object('pg_trigger'::regclass, t.oid, 0) AS i
 CROSS JOIN LATERAL pg_identify_object('pg_proc'::regclass, t.tgfoid, 0) AS f
 WHERE NOT t.tgisinternal
   AND n.nspname <> ALL (%(schemas)s)
   AND n.nspname !~ '^_timescaledb_'
   AND (f.type, f.identity) IN (SELECT r.kind, r.identity FROM _tidemark_migrations.logic_objects AS r)
   AND (i.type, i.identity) NOT IN (SELECT r.kind, r.identity FROM _tidemark_migrations.logic_objects AS r)
    ON CONFLICT DO NOTHING;

-- name: put_back
SELECT s.definition
  FROM _tidemark_migrations.set_aside AS s
 WHERE to_regclass(s.relation) IS NOT NULL
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                    WHERE t.tgrelid = to_regclass(s.relation) AND t.tgname = s.name);

-- name: forget_set_aside
DELETE FROM _tidemark_migrations.set_aside;
