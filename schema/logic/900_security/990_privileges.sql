-- Who owns what and who may do what. Everything of Tidemark belongs to tidemark_owner, the record to tidemark_record;
-- nobody is granted more than the tables below say, and what they do not say is taken away again. Runs after everything
-- else, whenever anything was changed, since what is new belongs to whoever made it.
--
-- Objects in public count as Tidemark's where they carry a comment and belong to the role that migrates; a table that a
-- user made there as the same role, with a comment, changes hands too, which costs that role nothing.

-- Schemas that hold nothing but Tidemark's objects; the applications' own among them.
CREATE OR REPLACE FUNCTION _tidemark.own_schemas()
    RETURNS name[]
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT ARRAY['_tidemark', 'buddy_ai', 'cryptovolt', 'trading_manager', 'hyperliquid', 'btc_dashboard']::name[];
$func$;
COMMENT ON FUNCTION _tidemark.own_schemas() IS 'Schemas that hold nothing but Tidemark''s objects.';

-- Privileges on tables and views, one row each: what a role may do with which columns, NULL for all of them.
CREATE OR REPLACE FUNCTION _tidemark.wanted_privileges()
    RETURNS TABLE (role_name name, relation regclass, privilege text, columns name[])
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH groups AS (
        SELECT g.name, t.table_name
          FROM (VALUES
                ('market', '{timeseries_data,candles,quotes,ticks,sentiment_data,indicators,features}'::text[]),
                ('reference', '{assets,sources,market_calendar,time_index,corporate_actions}'),
                ('judgement', '{quality_profiles,validation_rules,quality_issues,anomalies}'),
                ('research', '{models,forecasts,signals,lineage}'),
                ('ingestion', '{ingestion_tasks,ingestion_rejects}'),
                ('record', '{audit_tx,audit_log,audit_seals,timeseries_archive}'),
                ('personal', '{watchlists,watchlist_items,alerts,notifications,positions,trades,predictions,strategies,'
                 'strategy_rules,learning_entries,backtest_configs,backtest_results}')
               ) AS g (name, tables)
         CROSS JOIN LATERAL unnest(g.tables) AS t (table_name)
    ), own_view AS (
        -- Views and aggregates; those over personal tables are for applications.
        SELECT c.oid, n.nspname, c.relname, 'security_invoker=true' = ANY (coalesce(c.reloptions, '{}')) AS is_invoker
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('v', 'm')
           AND (n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public')
           AND (c.relowner = to_regrole('tidemark_owner')
                -- Where objects stay with who migrated, his own views are told by having no comment.
                OR (c.relowner = (SELECT o.nspowner FROM pg_catalog.pg_namespace AS o WHERE o.nspname = '_tidemark')
                    AND (n.nspname <> 'public' OR obj_description(c.oid, 'pg_class') IS NOT NULL)))
    ), wanted AS (
        SELECT 'tidemark_' || r.role AS role_name, to_regclass('public.' || quote_ident(g.table_name)) AS relation,
               p.privilege, NULL::text[] AS only_columns, '{}'::text[] AS except_columns
          FROM (VALUES
                ('reader', '{market,reference,judgement}'::text[], '{SELECT}'::text[]),
                ('app', '{market,reference,judgement,research}', '{SELECT}'),
                ('app', '{personal}', '{SELECT,INSERT,UPDATE,DELETE}'),
                ('writer', '{market,research,ingestion}', '{SELECT,INSERT,UPDATE,DELETE}'),
                ('writer', '{reference,judgement}', '{SELECT}'),
                ('admin', '{market}', '{SELECT,UPDATE,DELETE}'),
                ('admin', '{reference,judgement,research,ingestion,record}', '{SELECT}')
               ) AS r (role, groups, privileges)
          JOIN groups AS g ON g.name = ANY (r.groups)
         CROSS JOIN LATERAL unnest(r.privileges) AS p (privilege)
        UNION ALL
        SELECT 'tidemark_' || r.role, to_regclass('public.' || quote_ident(t.table_name)), p.privilege, r.only_columns,
               r.except_columns
          FROM (VALUES
                ('app', '{users}'::text[], '{SELECT,DELETE}'::text[], NULL::text[], '{}'::text[]),
                -- What a user is allowed is decided by an administrator.
                ('app', '{users}', '{INSERT,UPDATE}', NULL, '{role,user_no}'),
                ('app', '{assets}', '{INSERT}', NULL, '{}'), -- a symbol that nobody has named before
                ('writer', '{assets,sources}', '{INSERT,UPDATE}', NULL, '{}'),
                ('writer', '{market_calendar,time_index,corporate_actions}', '{INSERT,UPDATE,DELETE}', NULL, '{}'),
                ('writer', '{predictions}', '{SELECT,INSERT,UPDATE,DELETE}', NULL, '{}'), -- those of the house
                ('writer', '{data_policies}', '{SELECT}', NULL, '{}'),
                ('admin', '{validation_rules,quality_profiles,data_policies,market_calendar,corporate_actions}',
                 '{SELECT,INSERT,UPDATE,DELETE}', NULL, '{}'),
                ('admin', '{assets,sources}', '{INSERT,UPDATE}', NULL, '{}'),
                ('admin', '{anomalies}', '{UPDATE}', '{status,reviewed_by,reviewed_at,notes}', '{}'),
                ('admin', '{users}', '{SELECT}', NULL, '{password_hash}'),
                ('admin', '{users}', '{UPDATE}', '{role,is_active,is_verified}', '{}')
               ) AS r (role, tables, privileges, only_columns, except_columns)
         CROSS JOIN LATERAL unnest(r.tables) AS t (table_name)
         CROSS JOIN LATERAL unnest(r.privileges) AS p (privilege)
        UNION ALL
        SELECT 'tidemark_' || r.role, v.oid, p.privilege, NULL, '{}'
          FROM own_view AS v
         CROSS JOIN unnest(ARRAY['app', 'writer', 'reader', 'admin']) AS r (role)
         CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
         WHERE CASE
                   -- An application's vocabulary: what may be done through it is decided by the tables behind.
                   WHEN v.nspname NOT IN ('public', '_tidemark') THEN r.role IN ('app', 'writer')
                   WHEN v.nspname = '_tidemark' THEN false
                   WHEN v.is_invoker THEN r.role = 'app' AND p.privilege = 'SELECT'
                   ELSE p.privilege = 'SELECT'
               END
    )
    SELECT w.role_name::name, w.relation::regclass, w.privilege, k.columns
      FROM wanted AS w
     CROSS JOIN LATERAL (
               -- Identities are given out, not chosen: to an application a number that is taken would tell of a row
               -- that it may not see.
               SELECT array_agg(a.attname ORDER BY a.attname)
                      FILTER (WHERE a.attname = ANY (coalesce(w.only_columns, ARRAY[a.attname::text]))
                                AND a.attname <> ALL (w.except_columns)
                                AND NOT (w.privilege = 'INSERT' AND a.attidentity <> ''
                                         AND w.role_name = 'tidemark_app'))
                      AS listed,
                      count(*) AS total
                 FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = w.relation
                  AND a.attnum > 0
                  AND NOT a.attisdropped
           ) AS c
     CROSS JOIN LATERAL (SELECT CASE WHEN cardinality(c.listed) < c.total THEN c.listed END AS columns) AS k
     WHERE w.relation IS NOT NULL
       AND to_regrole(w.role_name) IS NOT NULL;
$func$;
COMMENT ON FUNCTION _tidemark.wanted_privileges() IS
'What each role may do with which table, view and columns (NULL: all); 990_privileges brings it about.';

-- The privileges that the roles have on tables and views, in the same form, column by column.
CREATE OR REPLACE FUNCTION _tidemark.granted_privileges()
    RETURNS TABLE (role_name name, relation regclass, privilege text, columns name[])
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH relation AS (
        SELECT c.oid, c.relacl
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm')
           AND (n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public')
    ), role AS (
        SELECT r.oid, r.rolname
          FROM pg_catalog.pg_roles AS r
         WHERE r.rolname IN ('tidemark_admin', 'tidemark_writer', 'tidemark_app', 'tidemark_reader')
    )
    SELECT r.rolname, c.oid::regclass, a.privilege_type, NULL::name[]
      FROM relation AS c
     CROSS JOIN LATERAL aclexplode(c.relacl) AS a
      JOIN role AS r ON r.oid = a.grantee
    UNION ALL
    SELECT r.rolname, c.oid::regclass, a.privilege_type, array_agg(t.attname ORDER BY t.attname)
      FROM relation AS c
      JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped
     CROSS JOIN LATERAL aclexplode(t.attacl) AS a
      JOIN role AS r ON r.oid = a.grantee
     GROUP BY r.rolname, c.oid, a.privilege_type;
$func$;
COMMENT ON FUNCTION _tidemark.granted_privileges() IS
'What each role may do with which table, view and columns (NULL: all), as the catalogue has it.';

DO $do$
DECLARE
    c_record_tables CONSTANT text[] := '{audit_tx,audit_log,audit_seals,timeseries_archive,audit_shapes}';
    -- What the record does as its owner; everything else is done as tidemark_owner or as the caller.
    c_record_functions CONSTANT text[] := ARRAY[
        'audit_statement', 'audit_hypertable_row', 'audit_truncate', 'audit_columns', 'audit_shape', 'record_snapshot',
        'seal_audit', 'verify_audit', 'restore_archived', 'record_chunk_drop'
    ];
    v_object record;
    v_maintenance CONSTANT text := coalesce(current_setting('tidemark.record_maintenance', true), '');
BEGIN
    IF EXISTS (
        SELECT FROM unnest(ARRAY['owner', 'record', 'admin', 'writer', 'app', 'reader']) AS r (name)
         WHERE to_regrole('tidemark_' || r.name) IS NULL
    ) THEN
        RETURN; -- 005_roles has said so
    END IF;
    PERFORM set_config('tidemark.record_maintenance', 'on', true);

    -- Ownership. Handing objects over takes a superuser, or a member of both owners; else they stay where they are, all
    -- of them. Without a superuser, chunks go only to who may create objects where TimescaleDB keeps them.
    IF (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user)
       OR (_tidemark.can_act_as('tidemark_owner')
           AND _tidemark.can_act_as('tidemark_record')
           AND ('_tidemark'::regnamespace IN (SELECT n.oid FROM pg_catalog.pg_namespace AS n
                                               WHERE n.nspowner = to_regrole('tidemark_owner'))
                OR has_schema_privilege('tidemark_owner', '_timescaledb_internal', 'CREATE'))) THEN
        -- Unless a superuser does it, the new owner must be one who may create objects there.
        FOR v_object IN
            SELECT n.nspname AS name
              FROM pg_catalog.pg_namespace AS n
             WHERE n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public'
        LOOP
            EXECUTE format('GRANT CREATE ON SCHEMA %I TO tidemark_owner, tidemark_record', v_object.name);
        END LOOP;
        FOR v_object IN
            WITH own AS (
                SELECT n.oid AS schema_oid, n.nspname FROM pg_catalog.pg_namespace AS n
                 WHERE n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public'
            ), object AS (
                SELECT CASE WHEN c.relkind = 'v' THEN 'VIEW' WHEN c.relkind = 'm' THEN 'MATERIALIZED VIEW'
                            ELSE 'TABLE' END AS kind,
                       c.oid::regclass::text AS name, c.relowner AS owner, o.nspname, c.relname AS bare_name,
                       'pg_class'::regclass AS class, c.oid
                  FROM pg_catalog.pg_class AS c
                  JOIN own AS o ON o.schema_oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'v', 'm')
                UNION ALL
                SELECT CASE WHEN p.prokind = 'p' THEN 'PROCEDURE' WHEN p.prokind = 'a' THEN 'AGGREGATE'
                            ELSE 'FUNCTION' END,
                       p.oid::regprocedure::text, p.proowner, o.nspname, p.proname, 'pg_proc'::regclass, p.oid
                  FROM pg_catalog.pg_proc AS p
                  JOIN own AS o ON o.schema_oid = p.pronamespace
                UNION ALL
                SELECT 'TYPE', t.oid::regtype::text, t.typowner, o.nspname, t.typname, 'pg_type'::regclass, t.oid
                  FROM pg_catalog.pg_type AS t
                  JOIN own AS o ON o.schema_oid = t.typnamespace
                 WHERE t.typtype IN ('e', 'd')
                    OR EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.reltype = t.oid AND c.relkind = 'c')
                UNION ALL
                SELECT 'SCHEMA', quote_ident(n.nspname), n.nspowner, n.nspname, n.nspname,
                       'pg_namespace'::regclass, n.oid
                  FROM pg_catalog.pg_namespace AS n
                 WHERE n.nspname = ANY (_tidemark.own_schemas())
            )
            SELECT CASE WHEN g.view_name IS NOT NULL THEN 'MATERIALIZED VIEW' ELSE b.kind END AS kind, b.name,
                   CASE WHEN b.bare_name = ANY (c_record_tables) AND b.kind = 'TABLE' THEN 'tidemark_record'
                        WHEN b.bare_name = ANY (c_record_functions) AND b.kind = 'FUNCTION' THEN 'tidemark_record'
                        ELSE 'tidemark_owner'
                   END AS owner
              FROM object AS b
              LEFT JOIN timescaledb_information.continuous_aggregates AS g
                ON g.view_schema = b.nspname AND g.view_name = b.bare_name AND b.kind = 'VIEW'
             WHERE (b.nspname <> 'public'
                    OR (b.owner = current_user::regrole AND obj_description(b.oid, b.class::text) IS NOT NULL))
               AND b.owner NOT IN (to_regrole('tidemark_owner'), to_regrole('tidemark_record'))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                WHERE d.classid = b.class AND d.objid = b.oid AND d.deptype = 'e')
        LOOP
            EXECUTE format('ALTER %s %s OWNER TO %I', v_object.kind, v_object.name, v_object.owner);
        END LOOP;
        FOR v_object IN
            SELECT n.nspname AS name
              FROM pg_catalog.pg_namespace AS n
             WHERE n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public'
        LOOP
            EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM tidemark_record', v_object.name);
        END LOOP;
    ELSE
        RAISE NOTICE 'Tidemark''s objects stay the property of %', current_user
            USING DETAIL = 'Handing them to tidemark_owner and tidemark_record takes a superuser.',
                  HINT = 'Run migrate as a superuser once, if the record is to be safe from this role.';
    END IF;

    -- Views over what policies protect run as whoever reads them, or they would show everybody's rows.
    FOR v_object IN
        WITH RECURSIVE protected AS (
            SELECT c.oid FROM pg_catalog.pg_class AS c
             WHERE c.relrowsecurity AND c.relnamespace = 'public'::regnamespace
            UNION
            SELECT w.ev_class
              FROM protected AS p
              JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = p.oid
                                            AND d.classid = 'pg_rewrite'::regclass
              JOIN pg_catalog.pg_rewrite AS w ON w.oid = d.objid
        )
        SELECT c.oid::regclass::text AS name
          FROM protected AS p
          JOIN pg_catalog.pg_class AS c ON c.oid = p.oid
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind = 'v'
           AND (n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public')
           AND NOT coalesce(c.reloptions, '{}') @> ARRAY['security_invoker=true']
    LOOP
        EXECUTE format('ALTER VIEW %s SET (security_invoker = true)', v_object.name);
    END LOOP;

    -- Nobody creates anything where functions look things up.
    FOR v_object IN
        SELECT n.nspname
          FROM pg_catalog.pg_namespace AS n
         WHERE n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public'
    LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_namespace AS n
                    CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
                    WHERE n.nspname = v_object.nspname AND a.grantee = 0 AND a.privilege_type = 'CREATE') THEN
            EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', v_object.nspname);
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO tidemark_record, tidemark_admin, tidemark_writer, tidemark_app%s',
                       v_object.nspname,
                       CASE WHEN v_object.nspname IN ('public', '_tidemark') THEN ', tidemark_reader' END);
    END LOOP;

    -- What runs with the rights of its owner is for those whom it is meant for.
    FOR v_object IN
        SELECT p.oid::regprocedure::text AS name
          FROM pg_catalog.pg_proc AS p
          JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
         WHERE p.prosecdef
           AND p.proowner IN (to_regrole('tidemark_owner'), to_regrole('tidemark_record'), current_user::regrole)
           AND (n.nspname = ANY (_tidemark.own_schemas()) OR n.nspname = 'public')
           AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a WHERE a.grantee = 0)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', v_object.name);
    END LOOP;
    FOR v_object IN
        SELECT p.oid::regprocedure::text AS name, g.grantees
          FROM (VALUES
                ('public', 'find_login', 'tidemark_app'),
                ('public', 'refresh_all_aggregates', 'tidemark_writer, tidemark_admin'),
                ('_tidemark', 'refresh_own', 'tidemark_writer, tidemark_admin'),
                ('public', 'restore_archived', 'tidemark_admin'),
                ('public', 'seal_audit', 'tidemark_admin'),
                ('public', 'verify_audit', 'tidemark_admin'),
                ('_tidemark', 'audit_statement', 'tidemark_owner'),
                ('_tidemark', 'audit_hypertable_row', 'tidemark_owner'),
                ('_tidemark', 'audit_truncate', 'tidemark_owner'),
                ('_tidemark', 'audit_columns', 'tidemark_owner'),
                ('_tidemark', 'audit_shape', 'tidemark_owner'),
                ('_tidemark', 'record_snapshot', 'tidemark_owner'),
                ('_tidemark', 'make_own_chunk', 'tidemark_owner, tidemark_writer, tidemark_admin'),
                ('_tidemark', 'record_chunk_drop', 'tidemark_owner'),
                ('_tidemark', 'hold_back_chunks', 'tidemark_writer, tidemark_app'), -- whoever may insert assets
                -- The aggregates of the Apache-2 edition ask these whoever reads them.
                ('_tidemark', 'rollup_watermark', 'tidemark_admin, tidemark_writer, tidemark_app, tidemark_reader'),
                ('_tidemark', 'stale_buckets', 'tidemark_admin, tidemark_writer, tidemark_app, tidemark_reader'),
                ('_tidemark', 'aggregate_series', 'tidemark_admin, tidemark_writer, tidemark_app, tidemark_reader')
               ) AS g (schema_name, name, grantees)
          JOIN pg_catalog.pg_proc AS p ON p.proname = g.name AND p.pronamespace = to_regnamespace(g.schema_name)
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', v_object.name, v_object.grantees);
    END LOOP;

    -- What the columns of tables are and were called, the catalogue says as much.
    GRANT SELECT ON _tidemark.audit_shapes TO PUBLIC;
    -- Rows that come through a view are numbered before they are stored.
    GRANT USAGE ON SEQUENCE public.candles_id_seq, public.quotes_id_seq, public.sentiment_data_sentiment_id_seq
    TO tidemark_writer;

    -- The archive keeps what quality found of a deleted row, and brings it back.
    GRANT SELECT, INSERT ON public.quality_issues, public.anomalies TO tidemark_record;
    -- And the record, as whoever reads it, asks whether a bar has closed.
    GRANT SELECT ON _tidemark.quality_targets TO PUBLIC;

    -- Tables and views: only where something differs, because on a hypertable it means touching every chunk.
    FOR v_object IN
        WITH wanted AS MATERIALIZED (
            SELECT w.* FROM _tidemark.wanted_privileges() AS w
        ), different AS (
            SELECT coalesce(w.role_name, g.role_name) AS role_name, coalesce(w.relation, g.relation) AS relation
              FROM wanted AS w
              FULL JOIN _tidemark.granted_privileges() AS g
                ON (g.role_name, g.relation, g.privilege) = (w.role_name, w.relation, w.privilege)
               AND coalesce(g.columns::text, '') = coalesce(w.columns::text, '')
             WHERE w.relation IS NULL OR g.relation IS NULL
             GROUP BY 1, 2
        )
        SELECT d.role_name, d.relation,
               (SELECT string_agg(
                           w.privilege || coalesce(
                               (SELECT ' (' || string_agg(quote_ident(c.name), ', ') || ')'
                                  FROM unnest(w.columns) AS c (name)), ''
                           ), ', '
                       )
                  FROM wanted AS w
                 WHERE w.role_name = d.role_name AND w.relation = d.relation) AS privileges
          FROM different AS d
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %I', v_object.relation::text, v_object.role_name);
        IF v_object.privileges IS NOT NULL THEN
            EXECUTE format('GRANT %s ON %s TO %I', v_object.privileges, v_object.relation::text, v_object.role_name);
        END IF;
    END LOOP;

    -- Functions of TimescaleDB's own that do not ask who is calling, before 2.29.1: with one of them a role without any
    -- privilege drops a chunk.
    BEGIN
        FOR v_object IN
            SELECT p.oid::regprocedure::text AS name
              FROM pg_catalog.pg_proc AS p
             WHERE p.pronamespace = to_regnamespace('_timescaledb_functions')
               AND p.proname IN (
                   'drop_chunk', 'create_chunk', 'create_chunk_table', 'create_compressed_chunk', 'freeze_chunk',
                   'unfreeze_chunk', 'attach_osm_table_chunk', 'drop_osm_chunk', 'lock_osm_chunk_dimension_slice',
                   'remove_dropped_chunk_metadata', 'chunk_constraint_add_table_constraint', 'chunk_index_clone',
                   'chunk_index_replace', 'chunk_rewrite_cleanup', 'chunk_statistics_reset'
               )
               AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
                            WHERE a.grantee = 0)
        LOOP
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO tidemark_owner', v_object.name);
            EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', v_object.name);
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE '% may not revoke TimescaleDB''s internal functions from PUBLIC', current_user
            USING HINT = 'Before 2.29.1 anybody can drop a chunk with them: have an administrator run migrate.';
    END;
    PERFORM set_config('tidemark.record_maintenance', v_maintenance, true);
END
$do$;
