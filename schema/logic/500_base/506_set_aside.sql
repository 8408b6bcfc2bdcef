-- What stands on an object that has to be dropped and made anew: views on a view whose columns changed, triggers of a
-- function that returns something else. It is set aside with what it takes to make it again, a user's as well as
-- Tidemark's own, and put back once everything else is in place (985): unless the logic has made it again by then.

-- Statements that give an object of the catalogue back its owner, its comments and its privileges.
CREATE OR REPLACE FUNCTION _tidemark.dressing(
    p_classid regclass,
    p_objid oid,
    p_kind text,
    p_identity text
)
    RETURNS text[]
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH object AS (
        SELECT c.relowner AS owner, c.relacl AS acl, 'r'::"char" AS kind
          FROM pg_catalog.pg_class AS c WHERE p_classid = 'pg_class'::regclass AND c.oid = p_objid
         UNION ALL
        SELECT p.proowner, p.proacl, 'f'
          FROM pg_catalog.pg_proc AS p WHERE p_classid = 'pg_proc'::regclass AND p.oid = p_objid
    )
    SELECT coalesce(array_agg(s.statement ORDER BY s.position), '{}')
      FROM (
            SELECT 1 AS position, format('ALTER %s %s OWNER TO %s', p_kind, p_identity, o.owner::regrole) AS statement
              FROM object AS o
             UNION ALL
            SELECT 2, format('COMMENT ON %s %s IS %L', p_kind, p_identity, obj_description(p_objid, p_classid::text))
             UNION ALL
            SELECT 3, format('COMMENT ON COLUMN %s.%I IS %L', p_identity, a.attname, col_description(p_objid, a.attnum))
              FROM pg_catalog.pg_attribute AS a
             WHERE p_classid = 'pg_class'::regclass
               AND a.attrelid = p_objid
               AND col_description(p_objid, a.attnum) IS NOT NULL
             UNION ALL
            SELECT 4, format('REVOKE ALL ON %s %s FROM PUBLIC', CASE o.kind WHEN 'r' THEN 'TABLE' ELSE 'ROUTINE' END,
                             p_identity)
              FROM object AS o
             WHERE o.acl IS NOT NULL
             UNION ALL
            SELECT 5, format('GRANT %s ON %s %s TO %s', a.privilege_type,
                             CASE o.kind WHEN 'r' THEN 'TABLE' ELSE 'ROUTINE' END, p_identity,
                             CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
              FROM object AS o
             CROSS JOIN LATERAL aclexplode(o.acl) AS a
             WHERE a.grantee <> o.owner
           ) AS s
     WHERE s.statement IS NOT NULL;
$func$;
COMMENT ON FUNCTION _tidemark.dressing(regclass, oid, text, text) IS
'Statements that give an object back its owner, its comments and its privileges.';

-- Sets aside everything that stands on an object, directly or not. Raises TM010 where that is nothing that can be made
-- again from its definition: a table's constraint, index, default or column, a materialised view.
CREATE OR REPLACE FUNCTION _tidemark.set_aside_dependents(
    p_classid regclass,
    p_objid oid
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_maintenance CONSTANT text := coalesce(current_setting('tidemark.record_maintenance', true), '');
    v_object record;
    v_statements text[];
    v_identity text;
BEGIN
    IF to_regclass('pg_temp.tidemark_set_aside') IS NULL THEN
        CREATE TEMPORARY TABLE tidemark_set_aside (
            position integer GENERATED ALWAYS AS IDENTITY, kind text, identity text, relation text, name text,
            statements text[]
        ) ON COMMIT DROP;
    END IF;
    FOR v_object IN
        SELECT DISTINCT
               CASE WHEN w.oid IS NOT NULL OR v.oid IS NOT NULL THEN 'pg_class'::regclass ELSE d.classid END AS classid,
               coalesce(w.ev_class, v.oid, d.objid) AS objid
          FROM pg_catalog.pg_depend AS d
          LEFT JOIN pg_catalog.pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
          LEFT JOIN pg_catalog.pg_attrdef AS f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
          LEFT JOIN pg_catalog.pg_class AS v ON v.oid = f.adrelid AND v.relkind = 'v'
         WHERE d.deptype IN ('n', 'a')
           AND ((d.refclassid = p_classid AND d.refobjid = p_objid)
                OR (p_classid = 'pg_class'::regclass AND d.refclassid = 'pg_type'::regclass
                    AND d.refobjid IN (SELECT t.oid FROM pg_catalog.pg_type AS t WHERE t.typrelid = p_objid
                                        UNION ALL
                                       SELECT t.typarray FROM pg_catalog.pg_type AS t WHERE t.typrelid = p_objid)))
           AND (p_classid, p_objid)
               <> (CASE WHEN w.oid IS NOT NULL OR v.oid IS NOT NULL THEN 'pg_class'::regclass ELSE d.classid END,
                   coalesce(w.ev_class, v.oid, d.objid))
         ORDER BY 1, 2
    LOOP
        SELECT i.identity INTO v_identity
          FROM pg_identify_object(v_object.classid, v_object.objid, 0) AS i;
        CONTINUE WHEN v_identity IS NULL; -- it went with another
        v_statements := CASE v_object.classid
            WHEN 'pg_class'::regclass THEN (
                SELECT format('CREATE VIEW %s%s AS %s', v_identity,
                              ' WITH (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid))
                       || coalesce((SELECT array_agg(format('ALTER VIEW %s ALTER COLUMN %I SET DEFAULT %s', v_identity,
                                                            a.attname, pg_get_expr(f.adbin, f.adrelid)))
                                      FROM pg_catalog.pg_attrdef AS f
                                      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.adrelid
                                                                       AND a.attnum = f.adnum
                                     WHERE f.adrelid = c.oid), '{}')
                       || _tidemark.dressing(v_object.classid, c.oid, 'VIEW', v_identity)
                  FROM pg_catalog.pg_class AS c
                 WHERE c.oid = v_object.objid
                   AND c.relkind = 'v'
                   -- A continuous aggregate is a view too, and holds data.
                   AND NOT EXISTS (SELECT FROM timescaledb_information.continuous_aggregates AS g
                                    WHERE format('%I.%I', g.view_schema, g.view_name) = v_identity))
            WHEN 'pg_proc'::regclass THEN (
                SELECT pg_get_functiondef(p.oid)
                       || _tidemark.dressing(v_object.classid, p.oid, 'ROUTINE', v_identity)
                  FROM pg_catalog.pg_proc AS p
                 WHERE p.oid = v_object.objid AND p.prokind IN ('f', 'p'))
            WHEN 'pg_trigger'::regclass THEN (
                SELECT (ARRAY[
                           pg_get_triggerdef(t.oid),
                           format('ALTER TABLE %s %s TRIGGER %I', t.tgrelid::regclass,
                                  CASE t.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA'
                                       WHEN 'D' THEN 'DISABLE' ELSE 'ENABLE' END, t.tgname)
                       ])[:CASE t.tgenabled WHEN 'O' THEN 1 ELSE 2 END]
                       || _tidemark.dressing(v_object.classid, t.oid, 'TRIGGER', v_identity)
                  FROM pg_catalog.pg_trigger AS t
                 WHERE t.oid = v_object.objid AND NOT t.tgisinternal)
            WHEN 'pg_policy'::regclass THEN (
                SELECT format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', p.polname, p.polrelid::regclass,
                              CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                              CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                   WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
                              (SELECT string_agg(CASE r.oid WHEN 0 THEN 'PUBLIC' ELSE r.oid::regrole::text END, ', ')
                                 FROM unnest(p.polroles) AS r (oid)))
                       || coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '')
                       || coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
                       || _tidemark.dressing(v_object.classid, p.oid, 'POLICY', v_identity)
                  FROM pg_catalog.pg_policy AS p
                 WHERE p.oid = v_object.objid)
        END;
        IF v_statements IS NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'TM010',
                MESSAGE = format('%s has to be made anew, and something stands on it',
                                 pg_describe_object(p_classid, p_objid, 0)),
                DETAIL = format('%s cannot be set aside meanwhile.',
                                pg_describe_object(v_object.classid, v_object.objid, 0)),
                HINT = 'Drop that first, or put it on something else.';
        END IF;
        PERFORM _tidemark.set_aside_dependents(v_object.classid, v_object.objid);
        INSERT INTO pg_temp.tidemark_set_aside (kind, identity, relation, name, statements)
        SELECT i.type, i.identity, coalesce(t.tgrelid, p.polrelid)::regclass::text, coalesce(t.tgname, p.polname),
               v_statements
          FROM pg_identify_object(v_object.classid, v_object.objid, 0) AS i
          LEFT JOIN pg_catalog.pg_trigger AS t ON v_object.classid = 'pg_trigger'::regclass AND t.oid = v_object.objid
          LEFT JOIN pg_catalog.pg_policy AS p ON v_object.classid = 'pg_policy'::regclass AND p.oid = v_object.objid;
        PERFORM set_config('tidemark.record_maintenance', 'on', true);
        EXECUTE (SELECT format('DROP %s %s', i.type, i.identity)
                   FROM pg_identify_object(v_object.classid, v_object.objid, 0) AS i);
        PERFORM set_config('tidemark.record_maintenance', v_maintenance, true);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.set_aside_dependents(regclass, oid) IS
'Drops what stands on an object and remembers how to make it again; raises TM010 where that cannot be done.';

-- Drops a view or a routine that has to be made anew, after setting aside what stands on it.
CREATE OR REPLACE FUNCTION _tidemark.make_way(
    p_classid regclass,
    p_objid oid
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.set_aside_dependents(p_classid, p_objid);
    EXECUTE (SELECT format('DROP %s %s', i.type, i.identity) FROM pg_identify_object(p_classid, p_objid, 0) AS i);
END
$func$;
COMMENT ON FUNCTION _tidemark.make_way(regclass, oid) IS
'Drops a view or a routine that has to be made anew; what stands on it is put back later.';

-- Puts back what was set aside in this transaction and has not been made again; raises TM011 where it no longer fits.
CREATE OR REPLACE FUNCTION _tidemark.put_back()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
    -- The body of a user's function means the path that he calls it with.
    SET check_function_bodies = off
AS $func$
DECLARE
    v_maintenance CONSTANT text := coalesce(current_setting('tidemark.record_maintenance', true), '');
    v_object record;
    v_statement text;
BEGIN
    IF to_regclass('pg_temp.tidemark_set_aside') IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('tidemark.record_maintenance', 'on', true);
    FOR v_object IN
        SELECT s.* FROM pg_temp.tidemark_set_aside AS s
         WHERE CASE s.kind
                   WHEN 'view' THEN to_regclass(s.identity) IS NULL
                   WHEN 'trigger' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                                                    WHERE t.tgrelid = to_regclass(s.relation) AND t.tgname = s.name)
                   WHEN 'policy' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS p
                                                   WHERE p.polrelid = to_regclass(s.relation) AND p.polname = s.name)
                   ELSE to_regprocedure(s.identity) IS NULL
               END
         ORDER BY s.position DESC
    LOOP
        FOREACH v_statement IN ARRAY v_object.statements LOOP
            BEGIN
                EXECUTE v_statement;
            EXCEPTION WHEN OTHERS THEN
                RAISE EXCEPTION USING ERRCODE = 'TM011',
                    MESSAGE = format('%s %s stands on what changed, and no longer fits', v_object.kind,
                                     v_object.identity),
                    DETAIL = SQLERRM,
                    HINT = 'Drop it or change it first.';
            END;
        END LOOP;
    END LOOP;
    DROP TABLE pg_temp.tidemark_set_aside;
    PERFORM set_config('tidemark.record_maintenance', v_maintenance, true);
END
$func$;
COMMENT ON FUNCTION _tidemark.put_back() IS
'Puts back what was set aside in this transaction and has not been made again; raises TM011 where it no longer fits.';
