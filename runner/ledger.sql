-- What was applied. Outside the schema it keeps account of, so that it survives a rollback of everything.

CREATE SCHEMA IF NOT EXISTS _tidemark_migrations;
COMMENT ON SCHEMA _tidemark_migrations IS 'Bookkeeping of the runner and of yoyo; the database works without it.';

CREATE TABLE IF NOT EXISTS _tidemark_migrations.applied_files (
    file text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL DEFAULT session_user,

    CONSTRAINT applied_files_pkey PRIMARY KEY (file)
);
COMMENT ON TABLE _tidemark_migrations.applied_files IS 'Files of schema/ as they were last applied.';
COMMENT ON COLUMN _tidemark_migrations.applied_files.file IS 'Name of the file, without its folder.';
COMMENT ON COLUMN _tidemark_migrations.applied_files.sha256 IS 'SHA-256 of its text, in hex.';
COMMENT ON COLUMN _tidemark_migrations.applied_files.applied_at IS 'When it was applied last.';
COMMENT ON COLUMN _tidemark_migrations.applied_files.applied_by IS 'Role that applied it.';

CREATE TABLE IF NOT EXISTS _tidemark_migrations.logic_objects (
    kind text NOT NULL,
    identity text NOT NULL,
    file text NOT NULL,

    CONSTRAINT logic_objects_pkey PRIMARY KEY (kind, identity)
);
COMMENT ON TABLE _tidemark_migrations.logic_objects IS
'What the logic files made when they were last applied; what they no longer make is dropped.';
COMMENT ON COLUMN _tidemark_migrations.logic_objects.kind IS 'function, procedure, view, trigger, policy, event trigger.';
COMMENT ON COLUMN _tidemark_migrations.logic_objects.identity IS 'Its name, as pg_identify_object has it.';
COMMENT ON COLUMN _tidemark_migrations.logic_objects.file IS 'The file that made it.';

CREATE TABLE IF NOT EXISTS _tidemark_migrations.set_aside (
    relation text NOT NULL,
    name name NOT NULL,
    definition text NOT NULL,

    CONSTRAINT set_aside_pkey PRIMARY KEY (relation, name)
);
COMMENT ON TABLE _tidemark_migrations.set_aside IS
'Triggers of Tidemark''s functions on tables of others, which went with the logic and come back with it.';
COMMENT ON COLUMN _tidemark_migrations.set_aside.relation IS 'The table, with its schema.';
COMMENT ON COLUMN _tidemark_migrations.set_aside.name IS 'The trigger.';
COMMENT ON COLUMN _tidemark_migrations.set_aside.definition IS 'Statements that make it.';
