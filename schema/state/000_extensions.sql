-- Extensions and schemas. TimescaleDB always lives in public; helpers live in _tidemark.
-- pg_stat_statements and pgvector are used where the server has them and missed nowhere else.

CREATE SCHEMA IF NOT EXISTS _tidemark;
COMMENT ON SCHEMA _tidemark IS 'Tidemark''s helpers and bookkeeping; applications use public.';

CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;

DO $do$
DECLARE
    v_extension text;
BEGIN
    FOREACH v_extension IN ARRAY ARRAY['pg_stat_statements', 'vector'] LOOP
        CONTINUE WHEN NOT EXISTS (
            SELECT FROM pg_catalog.pg_available_extensions AS e WHERE e.name = v_extension
        );
        BEGIN
            EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA public', v_extension);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'extension % is available but needs a superuser to install it', v_extension;
        END;
    END LOOP;
END
$do$;
