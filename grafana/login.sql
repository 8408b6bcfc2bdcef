-- The role that Grafana logs in as: it reads market data, and, for the dashboard of operations, the server's statistics.
-- Run it once after `migrate`, and again to change the password, with GRAFANA_DB_PASSWORD in the environment:
--
--     tidemark psql -v ON_ERROR_STOP=1 -f grafana/login.sql
\set password ''
\getenv password GRAFANA_DB_PASSWORD
SELECT :'password' = '' AS is_missing \gset
\if :is_missing
    DO $do$ BEGIN RAISE EXCEPTION 'GRAFANA_DB_PASSWORD is not set'; END $do$;
\endif
SELECT 'CREATE ROLE grafana' WHERE to_regrole('grafana') IS NULL \gexec
ALTER ROLE grafana LOGIN INHERIT CONNECTION LIMIT 20 PASSWORD :'password';
GRANT tidemark_reader, pg_monitor TO grafana;
ALTER ROLE grafana SET default_transaction_read_only = on;
ALTER ROLE grafana SET statement_timeout = '30s';
ALTER ROLE grafana SET search_path = public;
COMMENT ON ROLE grafana IS 'Grafana: reads market data and the server''s statistics.';
