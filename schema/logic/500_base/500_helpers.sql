-- Helpers used all over: which edition runs, and updated_at.

CREATE OR REPLACE FUNCTION _tidemark.edition()
    RETURNS text
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE current_setting('timescaledb.license', true) WHEN 'timescale' THEN 'community' ELSE 'apache' END;
$func$;
COMMENT ON FUNCTION _tidemark.edition() IS
'Edition of TimescaleDB that runs: community or apache. The licence is fixed when the server starts.';

-- The code of a market, given that or a usual name, in any case; what is not known stays as it is, because a calendar
-- may be of a user's own making.
CREATE OR REPLACE FUNCTION _tidemark.market_code(p_name text)
    RETURNS text
    LANGUAGE sql
    STABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(
        (SELECT c.market FROM public.market_calendar AS c WHERE c.market = p_name LIMIT 1),
        (SELECT n.market FROM _tidemark.market_names AS n WHERE n.name = upper(p_name)),
        (SELECT c.market FROM public.market_calendar AS c WHERE c.market = upper(p_name) LIMIT 1),
        p_name
    );
$func$;
COMMENT ON FUNCTION _tidemark.market_code(text) IS
'Code of a market by that code or a usual name, in any case; what is not known stays as it is.';

-- The name by which people and the record know a relation, and the only one: as SQL writes it, with the schema unless
-- that is public. NULL where there is no such relation, or not any more. In SQL text a regclass writes itself.
CREATE OR REPLACE FUNCTION _tidemark.label(p_relation regclass)
    RETURNS text
    LANGUAGE sql
    STABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE n.nspname WHEN 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END || quote_ident(c.relname)
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_relation;
$func$;
COMMENT ON FUNCTION _tidemark.label(regclass) IS
'Name of a relation as SQL writes it, with the schema unless that is public; NULL where there is none.';

CREATE OR REPLACE FUNCTION _tidemark.is_hypertable(p_relation regclass)
    RETURNS boolean
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT EXISTS (
        SELECT FROM timescaledb_information.hypertables AS h
          JOIN pg_catalog.pg_namespace AS n ON n.nspname = h.hypertable_schema
          JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = h.hypertable_name
         WHERE c.oid = p_relation
    );
$func$;
COMMENT ON FUNCTION _tidemark.is_hypertable(regclass) IS 'Whether a relation is a hypertable, and still there.';

-- The chunks of a hypertable, oldest first. Asking costs as much for one as for all, so ask once.
CREATE OR REPLACE FUNCTION _tidemark.chunks(p_hypertable regclass)
    RETURNS TABLE (chunk regclass, range_start timestamptz, range_end timestamptz, is_compressed boolean)
    LANGUAGE sql
    STABLE
    STRICT
    ROWS 100
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT format('%I.%I', c.chunk_schema, c.chunk_name)::regclass, c.range_start, c.range_end, c.is_compressed
      FROM timescaledb_information.chunks AS c
     WHERE (c.hypertable_schema, c.hypertable_name) = (
               SELECT n.nspname, h.relname
                 FROM pg_catalog.pg_class AS h
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = h.relnamespace
                WHERE h.oid = p_hypertable
           )
     ORDER BY c.range_start;
$func$;
COMMENT ON FUNCTION _tidemark.chunks(regclass) IS 'Chunks of a hypertable, oldest first.';

-- Whether the current role can give objects to another and still change them afterwards. To give takes SET ROLE, to
-- change takes inherited rights: since PostgreSQL 16 a membership may have either, or, as that of who created a role
-- without being a superuser, neither.
CREATE OR REPLACE FUNCTION _tidemark.can_act_as(p_role name)
    RETURNS boolean
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT pg_has_role(current_user, p_role,
                       CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
           AND pg_has_role(current_user, p_role, 'USAGE');
$func$;
COMMENT ON FUNCTION _tidemark.can_act_as(name) IS
'Whether the current role can give objects to another role and still change them afterwards.';

-- A trigger that is made for a hypertable with chunks is made for each chunk as the hypertable's owner, who has to be
-- allowed its function. Migrations make functions before they hand them over.
DO $do$
BEGIN
    IF to_regrole('tidemark_owner') IS NOT NULL THEN
        ALTER DEFAULT PRIVILEGES IN SCHEMA _tidemark GRANT EXECUTE ON FUNCTIONS TO tidemark_owner;
    END IF;
END
$do$;

-- Gives a role, as whom functions of Tidemark's run, what they need of a table that a user made elsewhere.
CREATE OR REPLACE FUNCTION _tidemark.let_in(p_role regrole, p_table regclass, p_privileges text)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_schema name;
BEGIN
    SELECT n.nspname INTO v_schema
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_table;
    IF NOT has_schema_privilege(p_role, v_schema, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', v_schema, p_role);
    END IF;
    IF NOT (SELECT bool_and(has_table_privilege(p_role, p_table, p.privilege))
              FROM string_to_table(p_privileges, ', ') AS p (privilege)) THEN
        EXECUTE format('GRANT %s ON %s TO %s', p_privileges, p_table::text, p_role);
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.let_in(regrole, regclass, text) IS
'Gives a role, as whom functions of Tidemark''s run, privileges on a table that a user made elsewhere.';

-- The same for Tidemark's owner.
CREATE OR REPLACE FUNCTION _tidemark.let_owner_in(p_table regclass, p_privileges text)
    RETURNS void
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT _tidemark.let_in(n.nspowner::regrole, p_table, p_privileges)
      FROM pg_catalog.pg_namespace AS n
     WHERE n.nspname = '_tidemark';
$func$;
COMMENT ON FUNCTION _tidemark.let_owner_in(regclass, text) IS
'Gives Tidemark''s owner, as whom its functions run, privileges on a table that a user made elsewhere.';

-- Tells who listens. Everybody may listen, so a payload holds nothing but what everybody may know: keys by which those
-- who may read the rest find it. A notification that cannot be given is no reason to refuse what it is about: one that
-- is too long is left out, and all are where listeners are so far behind that the queue is filling up, because a full
-- one makes everybody's COMMIT fail.
CREATE OR REPLACE FUNCTION _tidemark.notify(
    p_channel text,
    p_payload jsonb
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF octet_length(p_payload::text) >= 8000 OR pg_notification_queue_usage() > 0.5 THEN
        RAISE WARNING USING MESSAGE = format('nobody was notified on %s', p_channel),
            DETAIL = format('The payload has %s bytes, the queue is filled to %s %%.', octet_length(p_payload::text),
                            round(100 * pg_notification_queue_usage())),
            HINT = 'A session that listens and stays in a transaction keeps the queue from being emptied.';
        RETURN;
    END IF;
    PERFORM pg_notify(p_channel, p_payload::text);
END
$func$;
COMMENT ON FUNCTION _tidemark.notify(text, jsonb) IS
'Notifies a channel of what everybody may know; warns, and does not fail, where that cannot be done.';

-- Row trigger of a table that holds secrets. Where a constraint fails, the server shows the whole row to whoever may
-- read it, and to its log. This looks first, and fails the same way without the row. What is generated is not there
-- yet, so constraints over such columns are left to the server; a key that is taken shows the key alone.
CREATE OR REPLACE FUNCTION _tidemark.withhold_secrets()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_row CONSTANT jsonb := to_jsonb(NEW.*);
    v_check record;
    v_is_violated boolean;
BEGIN
    FOR v_check IN
        SELECT a.attname AS name, NULL AS condition
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = TG_RELID
           AND a.attnum > 0
           AND NOT a.attisdropped
           AND a.attnotnull
           AND a.attgenerated = ''
           AND v_row ->> a.attname IS NULL
        UNION ALL
        SELECT c.conname, pg_get_expr(c.conbin, c.conrelid)
          FROM pg_catalog.pg_constraint AS c
         WHERE c.conrelid = TG_RELID
           AND c.contype = 'c'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                            WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) AND a.attgenerated <> '')
         ORDER BY 2 NULLS FIRST, 1
    LOOP
        IF v_check.condition IS NULL THEN
            RAISE not_null_violation USING
                MESSAGE = format('null value in column "%s" of relation "%s" violates not-null constraint',
                                 v_check.name, TG_TABLE_NAME),
                SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = v_check.name;
        END IF;
        EXECUTE format('SELECT (%s) IS FALSE FROM (SELECT ($1).*) AS %I', v_check.condition, TG_TABLE_NAME)
           INTO v_is_violated
          USING NEW;
        IF v_is_violated THEN
            RAISE check_violation USING
                MESSAGE = format('new row for relation "%s" violates check constraint "%s"', TG_TABLE_NAME,
                                 v_check.name),
                SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = v_check.name;
        END IF;
    END LOOP;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.withhold_secrets() IS
'Row trigger of a table with secrets: a constraint that fails does not show the row.';

CREATE OR REPLACE FUNCTION _tidemark.set_updated_at()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at OR NEW.updated_at IS NULL THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.set_updated_at() IS
'Row trigger: stamps updated_at with the time of the transaction, unless the statement gives it a time of its own.';

DO $do$
DECLARE
    v_table text;
    v_columns text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY[
        'assets', 'sources', 'quality_profiles', 'validation_rules', 'ingestion_tasks', 'users', 'watchlists',
        'watchlist_items', 'models', 'strategies', 'strategy_rules', 'trades', 'positions', 'learning_entries',
        'corporate_actions'
    ] LOOP
        -- Column by column, because NEW.* may not be compared while generated columns are still to be computed. What an
        -- extension brings is compared as text, because restoring a dump looks for no operators where extensions are.
        SELECT string_agg(
                   format('OLD.%1$I%2$s IS DISTINCT FROM NEW.%1$I%2$s', a.attname,
                          CASE WHEN t.typtype = 'b' AND t.typnamespace <> 'pg_catalog'::regnamespace
                               THEN '::text' END),
                   ' OR ' ORDER BY a.attnum
               )
          INTO STRICT v_columns
          FROM pg_catalog.pg_attribute AS a
          JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
         WHERE a.attrelid = format('public.%I', v_table)::regclass
           AND a.attnum > 0
           AND NOT a.attisdropped
           AND a.attgenerated = '';
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER trg_set_updated_at BEFORE UPDATE ON public.%I FOR EACH ROW '
            'WHEN (%s) EXECUTE FUNCTION _tidemark.set_updated_at()', v_table, v_columns
        );
        EXECUTE format(
            'COMMENT ON TRIGGER trg_set_updated_at ON public.%I IS %L', v_table,
            'Keeps updated_at; an update that changes nothing leaves it alone.'
        );
    END LOOP;
END
$do$;
