-- Roles. They belong to the server, not to a database, so several databases share them. Where the server does not let
-- us create them, everything stays with the role that migrates, and no grants are made.
--
-- Nobody logs in as the owner. On Community TimescaleDB runs a hypertable's policies as the owner of the hypertable and
-- refuses one without LOGIN; a connection limit of 0, which does not count background jobs, shuts everybody else out.

DO $do$
DECLARE
    v_role record;
    v_missing text[] := '{}';
BEGIN
    FOR v_role IN
        SELECT r.name, r.options, r.meaning
          FROM (VALUES
                (1, 'tidemark_owner',
                 CASE current_setting('timescaledb.license', true)
                     WHEN 'timescale' THEN 'LOGIN CONNECTION LIMIT 0' ELSE 'NOLOGIN' END,
                 'Owns Tidemark''s objects except the record.'),
                (2, 'tidemark_record', 'NOLOGIN', 'Owns the audit record and the archive; granted to nobody.'),
                (3, 'tidemark_admin', 'NOLOGIN', 'Changes rules and policies, reviews, restores, seals.'),
                (4, 'tidemark_writer', 'NOLOGIN', 'Writes market data and what is computed from it.'),
                (5, 'tidemark_app', 'NOLOGIN',
                 'Applications: bound by row-level security to the user named in tidemark.user_id.'),
                (6, 'tidemark_reader', 'NOLOGIN', 'Reads market data and aggregates.')
               ) AS r (position, name, options, meaning)
         WHERE to_regrole(r.name) IS NULL
         ORDER BY r.position
    LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I %s', v_role.name, v_role.options);
            EXECUTE format('COMMENT ON ROLE %I IS %L', v_role.name, v_role.meaning);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- another database of the server was faster
            WHEN insufficient_privilege THEN
                v_missing := v_missing || v_role.name;
        END;
    END LOOP;
    IF v_missing <> '{}' THEN
        RAISE NOTICE 'role % may not create roles: Tidemark''s objects stay its own, nobody else is granted anything',
            current_user
            USING DETAIL = format('missing: %s', array_to_string(v_missing, ', ')),
                  HINT = 'To have them, create these roles as an administrator and run migrate again.';
    END IF;
END
$do$;
