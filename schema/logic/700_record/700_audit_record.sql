-- The audit record: what the triggers of an audited table write into audit_log.
--
-- Plain tables are watched by statement triggers with transition tables, a hypertable by row triggers: TimescaleDB has
-- no transition tables for DELETE on compressed hypertables, and those for UPDATE would collect all the scores that the
-- quality engine writes. The arguments of every trigger, set by attach_audit, are
--
--     0 label of the table      1 key columns                            2 bookkeeping columns
--     3 secret columns          4 'reason' where one is demanded         5 time column of a hypertable, else ''
--     6 how long a row of a hypertable forms; '': as scoring has it
--
-- as they were called then. What they are called now tells _tidemark.audit_shapes, which follows them when they are
-- renamed: before an entry is written, the columns are compared with those of the entry before.
--
-- There is no lock and no counter that writers would queue for: a row gets a number from a sequence and a hash of its
-- own content; the chain over them is closed later, by seal_audit().

-- Columns whose values never reach the record, in any table.
CREATE OR REPLACE FUNCTION _tidemark.secret_columns()
    RETURNS text[]
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT ARRAY[
        'password', 'password_hash', 'hashed_password', 'secret', 'client_secret', 'api_key', 'api_key_hash',
        'api_secret', 'private_key', 'totp_seed', 'totp_secret', 'token', 'access_token', 'refresh_token'
    ];
$func$;
COMMENT ON FUNCTION _tidemark.secret_columns() IS
'Names of columns that are redacted in the audit record of every table; attach_audit takes more.';

-- Columns that somebody's change drags along. A change of nothing else is no change; with one they are recorded too.
CREATE OR REPLACE FUNCTION _tidemark.bookkeeping_columns()
    RETURNS text[]
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT ARRAY['updated_at', 'ingested_at', 'computed_at', 'quality_score', 'is_anomaly', 'is_excluded'];
$func$;
COMMENT ON FUNCTION _tidemark.bookkeeping_columns() IS
'Columns that Tidemark keeps itself: an update of nothing else leaves no audit record.';

-- The columns of a table of Tidemark's that repeat others as an application spells them (470): app_….
CREATE OR REPLACE FUNCTION _tidemark.spelling_columns(p_table regclass)
    RETURNS text[]
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}')
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = p_table
       AND a.attname LIKE 'app\_%'
       AND NOT a.attisdropped
       AND p_table IN (
           'public.users', 'public.predictions', 'public.watchlist_items', 'public.alerts', 'public.notifications',
           'public.positions', 'public.strategies', 'public.signals', 'public.models', 'public.trades',
           'public.strategy_rules', 'public.learning_entries', 'public.sentiment_data'
       );
$func$;
COMMENT ON FUNCTION _tidemark.spelling_columns(regclass) IS
'Columns app_… of a table of Tidemark''s: they repeat others as an application spells them.';

-- Numbers and names of the columns of a table.
CREATE OR REPLACE FUNCTION _tidemark.columns_now(p_relation oid)
    RETURNS jsonb
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN (SELECT jsonb_object_agg(a.attnum, a.attname)
              FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = p_relation AND a.attnum > 0 AND NOT a.attisdropped);
END
$func$;
COMMENT ON FUNCTION _tidemark.columns_now(oid) IS 'Numbers and names of the columns of a table.';

-- Where the numbers of tables and columns hold: in this database of this server.
CREATE OR REPLACE FUNCTION _tidemark.database_identity()
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT format('%s/%s', s.system_identifier, d.oid)
      FROM pg_control_system() AS s, pg_catalog.pg_database AS d
     WHERE d.datname = current_database();
$func$;
COMMENT ON FUNCTION _tidemark.database_identity() IS 'This database of this server.';

-- What these columns, by their names in p_then, are called in p_now, in the same order; those that are gone are left
-- out.
CREATE OR REPLACE FUNCTION _tidemark.renamed(
    p_names text[],
    p_then jsonb,
    p_now jsonb
)
    RETURNS text[]
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(array_agg(p_now ->> c.key ORDER BY n.place) FILTER (WHERE p_now ? c.key), '{}')
      FROM unnest(p_names) WITH ORDINALITY AS n (name, place)
      JOIN jsonb_each_text(p_then) AS c ON c.value = n.name;
$func$;
COMMENT ON FUNCTION _tidemark.renamed(text[], jsonb, jsonb) IS
'What columns are called now, from their names then and the numbers and names of both.';

-- The columns p_any with the numbers that they have in p_now, where p_last are the newest of their old numbering: after
-- a dump was restored, or a table was made anew. By their place where as many are left and p_by_place, else by name.
CREATE OR REPLACE FUNCTION _tidemark.renumbered(
    p_any jsonb,
    p_last jsonb,
    p_now jsonb,
    p_by_place boolean
)
    RETURNS jsonb
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH last AS (
        SELECT l.key, l.value, row_number() OVER (ORDER BY l.key::integer) AS place, count(*) OVER () AS total
          FROM jsonb_each_text(p_last) AS l
         WHERE l.key ~ '^\d+$'
    ), now AS (
        SELECT n.key, n.value, row_number() OVER (ORDER BY n.key::integer) AS place, count(*) OVER () AS total
          FROM jsonb_each_text(p_now) AS n
    )
    SELECT jsonb_object_agg(coalesce(m.key, CASE WHEN a.key ~ '^\d+$' THEN 'was ' ELSE '' END || a.key), a.value)
      FROM jsonb_each_text(p_any) AS a
      LEFT JOIN (
               SELECT l.key AS old_key, n.key
                 FROM last AS l
                 JOIN now AS n ON CASE WHEN p_by_place AND l.total = n.total THEN n.place = l.place
                                       ELSE n.value = l.value END
           ) AS m ON m.old_key = a.key;
$func$;
COMMENT ON FUNCTION _tidemark.renumbered(jsonb, jsonb, jsonb, boolean) IS
'Columns with the numbers that a restored dump, or a table made anew, gives them.';

-- The present shape of a table on record. Where its columns are others than when the last entry was written, that is
-- noted first, with a number that lies between the entries before and after. Raises TM408 where a column of the key is
-- gone. p_keys and p_secrets, where given, are those from now on, by their present names; p_is_remade says that the
-- table comes on record anew, and may be another one of the same name.
CREATE OR REPLACE FUNCTION _tidemark.audit_shape(
    p_record_name text,
    p_relation oid,
    p_keys text[] DEFAULT NULL,
    p_secrets text[] DEFAULT NULL,
    p_is_remade boolean DEFAULT false
)
    RETURNS _tidemark.audit_shapes
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_now CONSTANT jsonb := _tidemark.columns_now(p_relation);
    v_last _tidemark.audit_shapes;
    v_new record; -- of the same type; pgspot reads assignments to the fields of records only
BEGIN
    SELECT s.* INTO v_last
      FROM _tidemark.audit_shapes AS s
     WHERE s.record_name = p_record_name
     ORDER BY s.since DESC
     LIMIT 1;
    IF v_last.columns = v_now AND v_last.relation = p_relation AND p_keys IS NULL THEN
        RETURN v_last;
    END IF;

    -- One writer notes it, and others wait for him; nobody writes while a column is being renamed.
    PERFORM pg_advisory_xact_lock(hashtextextended('tidemark.audit_shape ' || p_record_name, 0));
    SELECT s.* INTO v_last
      FROM _tidemark.audit_shapes AS s
     WHERE s.record_name = p_record_name
     ORDER BY s.since DESC
     LIMIT 1;
    IF v_last.relation <> p_relation OR v_last.database <> _tidemark.database_identity() THEN
        UPDATE _tidemark.audit_shapes AS s
           SET columns = _tidemark.renumbered(s.columns, v_last.columns, v_now, NOT p_is_remade),
               relation = p_relation,
               database = _tidemark.database_identity()
         WHERE s.record_name = p_record_name;
        SELECT s.* INTO v_last
          FROM _tidemark.audit_shapes AS s
         WHERE s.record_name = p_record_name
         ORDER BY s.since DESC
         LIMIT 1;
    END IF;
    v_new := v_last;
    v_new.columns := v_now;
    v_new.keys := coalesce(p_keys, _tidemark.renamed(v_last.keys, v_last.columns, v_now));
    v_new.secrets := ARRAY(
        SELECT DISTINCT n.name
          FROM unnest(coalesce(p_secrets, v_last.secrets)
                      || CASE WHEN p_is_remade THEN '{}'
                              ELSE _tidemark.renamed(v_last.secrets, v_last.columns, v_now) END) AS n (name)
         ORDER BY n.name
    );
    IF v_new.keys = '{}' OR cardinality(v_new.keys) < cardinality(v_last.keys) AND p_keys IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM408',
            MESSAGE = format('rows of %s can no longer be told apart', p_relation::regclass),
            DETAIL = format('Of the key that they are recorded by (%s) a column is gone.',
                            array_to_string(v_last.keys, ', ')),
            HINT = 'attach_audit(…) takes the key that the table has now, detach_audit(…) takes it off the record.';
    END IF;
    IF (v_new.columns, v_new.keys, v_new.secrets)
       IS DISTINCT FROM (v_last.columns, v_last.keys, v_last.secrets) THEN
        INSERT INTO _tidemark.audit_shapes AS s (record_name, since, relation, database, columns, keys, secrets)
        VALUES (p_record_name,
                CASE WHEN v_last.record_name IS NOT NULL THEN nextval('public.audit_log_audit_id_seq') ELSE 0 END,
                p_relation, _tidemark.database_identity(),
                v_new.columns, v_new.keys, v_new.secrets)
        RETURNING s.* INTO v_last;
    END IF;
    RETURN v_last;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.audit_shape(text, oid, text[], text[], boolean) FROM public;
COMMENT ON FUNCTION _tidemark.audit_shape(text, oid, text[], text[], boolean) IS
'The present shape of a table on record, noted where it is new; raises TM408 where a column of the key is gone.';

-- Statement trigger of a hypertable before UPDATE and DELETE, whose row triggers see chunks only.
CREATE OR REPLACE FUNCTION _tidemark.audit_columns()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.audit_shape(TG_ARGV[0], TG_RELID);
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.audit_columns() FROM public;
COMMENT ON FUNCTION _tidemark.audit_columns() IS
'Statement trigger of a hypertable: notes what its columns are called, where that changed.';

-- The object with the values of secrets replaced; what is NULL stays NULL.
CREATE OR REPLACE FUNCTION _tidemark.redact(
    p_object jsonb,
    p_secrets text[]
)
    RETURNS jsonb
    LANGUAGE plpgsql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_object ?| p_secrets THEN
        SELECT p_object || coalesce(jsonb_object_agg(s.key, '[redacted]'::text), '{}') INTO p_object
          FROM unnest(p_secrets) AS s (key)
         WHERE p_object ->> s.key IS NOT NULL;
    END IF;
    RETURN p_object;
END
$func$;
COMMENT ON FUNCTION _tidemark.redact(jsonb, text[]) IS 'The object with the values of secrets replaced.';

-- The transaction's identity in the record. It needs no look-up and cannot be set by a client: the second in which the
-- transaction began, and the server's number of it. A dump restored elsewhere begins to count anew, but later.
CREATE OR REPLACE FUNCTION _tidemark.audit_tx_id()
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN ((extract(EPOCH FROM transaction_timestamp())::bigint - 1735689600) << 32) -- seconds since 2025
        | (pg_current_xact_id()::text::bigint & 4294967295);
END
$func$;
COMMENT ON FUNCTION _tidemark.audit_tx_id() IS 'Identity of the current transaction in audit_tx.';

-- Hash of a row of audit_tx. Nothing in it depends on a setting.
CREATE OR REPLACE FUNCTION _tidemark.audit_tx_hash(
    p_tx_id bigint,
    p_xact_id xid8,
    p_client inet,
    p_application text,
    p_request text,
    p_created_at timestamptz
)
    RETURNS bytea
    LANGUAGE plpgsql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN sha256(convert_to(ROW(
        p_tx_id, p_xact_id, p_client, p_application, p_request, (extract(EPOCH FROM p_created_at) * 1000000)::bigint
    )::text, 'UTF8'));
END
$func$;
COMMENT ON FUNCTION _tidemark.audit_tx_hash(bigint, xid8, inet, text, text, timestamptz) IS
'SHA-256 of the columns of a row of audit_tx.';

-- Hash of a row of audit_log. Instants count as microseconds, so no setting of a session changes it. It has no settings
-- of its own, because only then does the planner put its body in the place of the call; its callers have them.
CREATE OR REPLACE FUNCTION _tidemark.audit_hash(
    p_audit_id bigint,
    p_tx_id bigint,
    p_table_name text,
    p_operation public.audit_operation,
    p_row_key jsonb,
    p_new_key jsonb,
    p_old_values jsonb,
    p_new_values jsonb,
    p_changed_fields text[],
    p_changed_by text,
    p_db_role text,
    p_changed_at timestamptz,
    p_reason text,
    p_created_at timestamptz
)
    RETURNS bytea
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
AS $func$
    SELECT sha256(convert_to(ROW(
        p_audit_id, p_tx_id, p_table_name, p_operation, p_row_key, p_new_key, p_old_values, p_new_values,
        p_changed_fields, p_changed_by, p_db_role, (extract(EPOCH FROM p_changed_at) * 1000000)::bigint, p_reason,
        (extract(EPOCH FROM p_created_at) * 1000000)::bigint
    )::text, 'UTF8'));
$func$;
COMMENT ON FUNCTION _tidemark.audit_hash(
    bigint, bigint, text, public.audit_operation, jsonb, jsonb, jsonb, jsonb, text[], text, text, timestamptz, text,
    timestamptz
) IS 'SHA-256 of the columns of a row of audit_log. Inlined.';

-- Puts the current transaction on record, once. Raises TM401 where the table demands a reason and none was given.
CREATE OR REPLACE FUNCTION _tidemark.record_transaction(
    p_label text,
    p_is_reason_demanded boolean
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_is_reason_demanded AND coalesce(current_setting('tidemark.reason', true), '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'TM401',
            MESSAGE = format('a change of %s needs a reason', p_label),
            HINT = 'Say why, in the same transaction: SET LOCAL tidemark.reason = ''…''.',
            TABLE = p_label;
    END IF;
    INSERT INTO public.audit_tx (tx_id, xact_id, client, application, request, created_at, content_hash)
    SELECT t.*, _tidemark.audit_tx_hash(t.tx_id, t.xact_id, t.client, t.application, t.request, t.created_at)
      FROM (SELECT _tidemark.audit_tx_id() AS tx_id, pg_current_xact_id() AS xact_id, inet_client_addr() AS client,
                   nullif(current_setting('application_name'), '') AS application,
                   nullif(current_setting('tidemark.request', true), '') AS request, now() AS created_at) AS t
    ON CONFLICT ON CONSTRAINT audit_tx_pkey DO NOTHING;
END
$func$;
COMMENT ON FUNCTION _tidemark.record_transaction(text, boolean) IS
'Puts the current transaction into audit_tx; raises TM401 where a reason is demanded and missing.';

-- The condition that a column changed, of two row expressions. Equal values of the types named here also look the same;
-- others need not (1.0 and 1.00, arrays of them, JSON) and are compared by what is recorded.
CREATE OR REPLACE FUNCTION _tidemark.changed_condition(
    p_column name,
    p_type oid,
    p_old text,
    p_new text
)
    RETURNS text
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT format(
               CASE WHEN t.typcategory = 'S' AND t.typtype = 'b' AND t.typcollation <> 0
                    THEN '%2$s.%1$I COLLATE "C" IS DISTINCT FROM %3$s.%1$I COLLATE "C"'
                    WHEN t.typtype = 'e' OR t.oid IN (
                        'boolean'::regtype, 'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'uuid'::regtype,
                        'timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype, 'bytea'::regtype
                    ) THEN '%2$s.%1$I IS DISTINCT FROM %3$s.%1$I'
                    ELSE 'to_jsonb(%2$s.%1$I)::text IS DISTINCT FROM to_jsonb(%3$s.%1$I)::text'
               END, p_column, p_old, p_new
           )
      FROM pg_catalog.pg_type AS t
     WHERE t.oid = p_type;
$func$;
COMMENT ON FUNCTION _tidemark.changed_condition(name, oid, text, text) IS
'Condition that a column has another value in one row than in the other.';

-- The query that records an UPDATE of many rows. It compares columns in their own types, which takes half as long as
-- comparing JSON, and looks only at columns that the statement changed in some row: p_touched, from this function with
-- p_touched NULL. Both versions give the same records as the short way in audit_statement().
CREATE OR REPLACE FUNCTION _tidemark.bulk_update_query(
    p_table oid,
    p_keys text[],
    p_bookkeeping text[],
    p_secrets text[],
    p_touched text[]
)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH columns AS (
        SELECT a.attname AS name, _tidemark.changed_condition(a.attname, a.atttypid, '(o.r)', '(n.r)') AS changed
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = p_table
           AND a.attnum > 0
           AND NOT a.attisdropped
           AND (p_touched IS NULL OR a.attname = ANY (p_touched))
         ORDER BY length(a.attname), a.attname COLLATE "C" -- as in jsonb
    ), texts AS (
        SELECT string_agg(format('CASE WHEN bool_or(%s) THEN %L END', c.changed, c.name), ', ') AS any_changed,
               string_agg(format('CASE WHEN %s THEN %L END', c.changed, c.name), ', ')
               FILTER (WHERE c.name <> ALL (p_bookkeeping)) AS changed,
               string_agg(format('CASE WHEN %s THEN NULL ELSE %L END', c.changed, c.name), ', ') AS same,
               string_agg(format('%1$L, (o.r).%1$I', c.name), ', ') AS old_members,
               string_agg(format('%1$L, (n.r).%1$I', c.name), ', ') AS new_members
          FROM columns AS c
    )
    SELECT CASE WHEN p_touched IS NULL THEN format('SELECT array_remove(ARRAY[%s]::text[], NULL) FROM ', t.any_changed)
           ELSE format(
               $query$
               INSERT INTO public.audit_log (
                   audit_id, tx_id, table_name, operation, row_key, new_key, old_values, new_values, changed_fields,
                   changed_by, db_role, changed_at, reason, created_at, content_hash
               )
               SELECT c.*, _tidemark.audit_hash(
                          c.audit_id, c.tx_id, c.table_name, c.operation, c.row_key, c.new_key, c.old_values,
                          c.new_values, c.changed_fields, c.changed_by, c.db_role, c.changed_at, c.reason, c.created_at
                      )
                 FROM (
                   SELECT nextval('public.audit_log_audit_id_seq') AS audit_id, $1 AS tx_id, $2 AS table_name,
                          'update'::public.audit_operation AS operation, d.row_key,
                          CASE WHEN d.changed_fields && %1$L::text[] THEN d.new_key END AS new_key,
                          %2$s AS old_values, %3$s AS new_values, d.changed_fields, $3 AS changed_by,
                          session_user::text AS db_role, $4 AS changed_at, $5 AS reason, now() AS created_at
                     FROM (
                       SELECT jsonb_build_object(%4$s) AS row_key, jsonb_build_object(%5$s) AS new_key,
                              jsonb_build_object(%6$s) - s.same AS old_values,
                              jsonb_build_object(%7$s) - s.same AS new_values,
                              s.changed_fields
                         FROM @pairs@
                        CROSS JOIN LATERAL (
                                  SELECT array_remove(ARRAY[%8$s]::text[], NULL) AS changed_fields,
                                         array_remove(ARRAY[%9$s]::text[], NULL) AS same
                                  OFFSET 0
                              ) AS s
                        WHERE cardinality(s.changed_fields) > 0
                       OFFSET 0
                     ) AS d
                   OFFSET 0
                 ) AS c
               $query$,
               p_keys,
               format(
                   'CASE WHEN d.old_values ?| %1$L::text[] THEN _tidemark.redact(d.old_values, %1$L) '
                   'ELSE d.old_values END',
                   p_secrets
               ),
               format(
                   'CASE WHEN d.new_values ?| %1$L::text[] THEN _tidemark.redact(d.new_values, %1$L) '
                   'ELSE d.new_values END',
                   p_secrets
               ),
               (SELECT string_agg(format('%1$L, (o.r).%1$I', k.key), ', ') FROM unnest(p_keys) AS k (key)),
               (SELECT string_agg(format('%1$L, (n.r).%1$I', k.key), ', ') FROM unnest(p_keys) AS k (key)),
               t.old_members, t.new_members, t.changed, t.same
           ) END
      FROM texts AS t;
$func$;
COMMENT ON FUNCTION _tidemark.bulk_update_query(oid, text[], text[], text[], text[]) IS
'Query that records an UPDATE of many rows; with p_touched NULL, the beginning of one that names the changed columns.';

-- Statement trigger of a plain table. An UPDATE's old and new rows are matched by their order, which is the order in
-- which the server updated them, so that a row is followed when its key changes.
CREATE OR REPLACE FUNCTION _tidemark.audit_statement()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- The same row is recorded as the same JSON, whatever the session's settings.
    SET timezone = 'UTC'
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
    SET jit = off
    SET enable_hashjoin = on -- pairs, also of a statement whose function plans without: write_verdicts()
AS $func$
DECLARE
    -- A whole row is named by an alias that no column has.
    c_pairs CONSTANT text := '(SELECT row_number() OVER () AS place, "the.row" AS r FROM old_rows AS "the.row") AS o '
        'JOIN (SELECT row_number() OVER () AS place, "the.row" AS r FROM new_rows AS "the.row") AS n USING (place)';
    c_bulk CONSTANT integer := 1000; -- rows from which on preparing a query of its own pays
    v_shape CONSTANT _tidemark.audit_shapes := _tidemark.audit_shape(TG_ARGV[0], TG_RELID);
    v_keys CONSTANT text[] := v_shape.keys;
    v_bookkeeping CONSTANT text[] := TG_ARGV[2];
    v_secrets CONSTANT text[] := v_shape.secrets;
    v_tx_id bigint;
    v_changed_by text;
    v_touched text[];
    v_is_recorded boolean := true;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM FROM new_rows AS t OFFSET c_bulk LIMIT 1;
        IF FOUND THEN
            EXECUTE _tidemark.bulk_update_query(TG_RELID, v_keys, v_bookkeeping, v_secrets, NULL) || c_pairs
               INTO v_touched;
        END IF;
    END IF;
    IF v_touched <@ v_bookkeeping THEN
        RETURN NULL;
    ELSIF cardinality(v_touched) < 50 THEN -- jsonb_build_object takes 100 arguments
        v_tx_id := _tidemark.audit_tx_id();
        v_changed_by := coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user);
        EXECUTE replace(
            _tidemark.bulk_update_query(TG_RELID, v_keys, v_bookkeeping, v_secrets, v_touched), '@pairs@', c_pairs
        )
          USING v_tx_id, TG_ARGV[0], v_changed_by, clock_timestamp(),
                nullif(current_setting('tidemark.reason', true), '');
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO public.audit_log (
            audit_id, tx_id, table_name, operation, row_key, new_key, old_values, new_values, changed_fields,
            changed_by, db_role, changed_at, reason, created_at, content_hash
        )
        SELECT c.*, _tidemark.audit_hash(
                   c.audit_id, c.tx_id, c.table_name, c.operation, c.row_key, c.new_key, c.old_values, c.new_values,
                   c.changed_fields, c.changed_by, c.db_role, c.changed_at, c.reason, c.created_at
               )
          FROM (
            SELECT nextval('public.audit_log_audit_id_seq') AS audit_id, i.tx_id, TG_ARGV[0] AS table_name,
                   'update'::public.audit_operation AS operation,
                   (SELECT jsonb_object_agg(k.key, d.o -> k.key) FROM unnest(v_keys) AS k (key)) AS row_key,
                   CASE WHEN f.changed_fields && v_keys
                        THEN (SELECT jsonb_object_agg(k.key, d.n -> k.key) FROM unnest(v_keys) AS k (key))
                   END AS new_key,
                   CASE WHEN f.o ?| v_secrets THEN _tidemark.redact(f.o, v_secrets) ELSE f.o END AS old_values,
                   CASE WHEN f.n ?| v_secrets THEN _tidemark.redact(f.n, v_secrets) ELSE f.n END AS new_values,
                   f.changed_fields, i.changed_by, session_user::text AS db_role, i.changed_at, i.reason,
                   now() AS created_at
              FROM (SELECT _tidemark.audit_tx_id() AS tx_id, clock_timestamp() AS changed_at,
                           coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user) AS changed_by,
                           nullif(current_setting('tidemark.reason', true), '') AS reason OFFSET 0) AS i
             CROSS JOIN (
                       SELECT p.o, p.n,
                              -- Compared as text: to jsonb 1.0 and 1.00 are the same.
                              ARRAY(SELECT e.key FROM jsonb_each(p.o) AS e WHERE e.value::text = (p.n -> e.key)::text)
                              AS same
                         FROM unnest(
                                  ARRAY(SELECT to_jsonb(t.*) FROM old_rows AS t),
                                  ARRAY(SELECT to_jsonb(t.*) FROM new_rows AS t)
                              ) AS p (o, n)
                       OFFSET 0
                   ) AS d
             CROSS JOIN LATERAL (
                       SELECT d.o - d.same AS o, d.n - d.same AS n,
                              ARRAY(SELECT jsonb_object_keys(d.n - d.same - v_bookkeeping)) AS changed_fields
                       OFFSET 0
                   ) AS f
             WHERE cardinality(f.changed_fields) > 0
            OFFSET 0
          ) AS c;
        v_is_recorded := FOUND;
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO public.audit_log (
            audit_id, tx_id, table_name, operation, row_key, new_values, changed_by, db_role, changed_at, reason,
            created_at, content_hash
        )
        SELECT c.*, _tidemark.audit_hash(
                   c.audit_id, c.tx_id, c.table_name, c.operation, c.row_key, NULL, NULL, c.new_values, NULL,
                   c.changed_by, c.db_role, c.changed_at, c.reason, c.created_at
               )
          FROM (
            SELECT nextval('public.audit_log_audit_id_seq') AS audit_id, i.tx_id, TG_ARGV[0] AS table_name,
                   'insert'::public.audit_operation AS operation,
                   (SELECT jsonb_object_agg(k.key, d.n -> k.key) FROM unnest(v_keys) AS k (key)) AS row_key,
                   CASE WHEN d.n ?| v_secrets THEN _tidemark.redact(d.n, v_secrets) ELSE d.n END
                   AS new_values,
                   i.changed_by, session_user::text AS db_role, i.changed_at, i.reason, now() AS created_at
              FROM (SELECT _tidemark.audit_tx_id() AS tx_id, clock_timestamp() AS changed_at,
                           coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user) AS changed_by,
                           nullif(current_setting('tidemark.reason', true), '') AS reason OFFSET 0) AS i
             CROSS JOIN (SELECT to_jsonb(t.*) AS n FROM new_rows AS t OFFSET 0) AS d
            OFFSET 0
          ) AS c;
        v_is_recorded := FOUND;
    ELSE
        INSERT INTO public.audit_log (
            audit_id, tx_id, table_name, operation, row_key, old_values, changed_by, db_role, changed_at, reason,
            created_at, content_hash
        )
        SELECT c.*, _tidemark.audit_hash(
                   c.audit_id, c.tx_id, c.table_name, c.operation, c.row_key, NULL, c.old_values, NULL, NULL,
                   c.changed_by, c.db_role, c.changed_at, c.reason, c.created_at
               )
          FROM (
            SELECT nextval('public.audit_log_audit_id_seq') AS audit_id, i.tx_id, TG_ARGV[0] AS table_name,
                   'delete'::public.audit_operation AS operation,
                   (SELECT jsonb_object_agg(k.key, d.o -> k.key) FROM unnest(v_keys) AS k (key)) AS row_key,
                   CASE WHEN d.o ?| v_secrets THEN _tidemark.redact(d.o, v_secrets) ELSE d.o END
                   AS old_values,
                   i.changed_by, session_user::text AS db_role, i.changed_at, i.reason, now() AS created_at
              FROM (SELECT _tidemark.audit_tx_id() AS tx_id, clock_timestamp() AS changed_at,
                           coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user) AS changed_by,
                           nullif(current_setting('tidemark.reason', true), '') AS reason OFFSET 0) AS i
             CROSS JOIN (SELECT to_jsonb(t.*) AS o FROM old_rows AS t OFFSET 0) AS d
            OFFSET 0
          ) AS c;
        v_is_recorded := FOUND;
    END IF;
    IF v_is_recorded THEN
        PERFORM _tidemark.record_transaction(TG_ARGV[0], TG_ARGV[4] = 'reason');
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.audit_statement() FROM public;
COMMENT ON FUNCTION _tidemark.audit_statement() IS
'Statement trigger of a plain table: one row of audit_log for each changed row.';

-- Writes one entry and returns its number. For rows that come one at a time; p_old and p_new are whole rows, of which
-- an update keeps what changed. Nothing happens, and NULL is returned, where an update changed nothing but bookkeeping.
CREATE OR REPLACE FUNCTION _tidemark.record_change(
    p_label text,
    p_operation public.audit_operation,
    p_keys text[],
    p_bookkeeping text[],
    p_secrets text[],
    p_is_reason_demanded boolean,
    p_old jsonb,
    p_new jsonb
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_same text[] := '{}';
    v_audit_id bigint;
BEGIN
    IF p_operation = 'update' THEN
        v_same := ARRAY(SELECT e.key FROM jsonb_each(p_old) AS e WHERE e.value::text = (p_new -> e.key)::text);
        IF p_new - v_same - p_bookkeeping = '{}' THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO public.audit_log (
        audit_id, tx_id, table_name, operation, row_key, new_key, old_values, new_values, changed_fields, changed_by,
        db_role, changed_at, reason, created_at, content_hash
    )
    SELECT c.*, _tidemark.audit_hash(
               c.audit_id, c.tx_id, c.table_name, c.operation, c.row_key, c.new_key, c.old_values, c.new_values,
               c.changed_fields, c.changed_by, c.db_role, c.changed_at, c.reason, c.created_at
           )
      FROM (
        SELECT nextval('public.audit_log_audit_id_seq') AS audit_id, i.tx_id, p_label AS table_name,
               p_operation AS operation,
               (SELECT jsonb_object_agg(k.key, coalesce(p_old, p_new) -> k.key) FROM unnest(p_keys) AS k (key))
               AS row_key,
               CASE WHEN i.changed_fields && p_keys
                    THEN (SELECT jsonb_object_agg(k.key, p_new -> k.key) FROM unnest(p_keys) AS k (key))
               END AS new_key,
               _tidemark.redact(p_old - v_same, p_secrets) AS old_values,
               _tidemark.redact(p_new - v_same, p_secrets) AS new_values, i.changed_fields,
               coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user) AS changed_by,
               session_user::text AS db_role, clock_timestamp() AS changed_at,
               nullif(current_setting('tidemark.reason', true), '') AS reason, now() AS created_at
          FROM (
            SELECT _tidemark.audit_tx_id() AS tx_id,
                   CASE p_operation
                       WHEN 'update' THEN ARRAY(SELECT jsonb_object_keys(p_new - v_same - p_bookkeeping))
                   END AS changed_fields
            OFFSET 0
          ) AS i
        OFFSET 0
      ) AS c
    RETURNING audit_id INTO v_audit_id;
    PERFORM _tidemark.record_transaction(p_label, p_is_reason_demanded);
    RETURN v_audit_id;
END
$func$;
COMMENT ON FUNCTION _tidemark.record_change(
    text, public.audit_operation, text[], text[], text[], boolean, jsonb, jsonb
) IS 'Writes one entry of audit_log and returns its number; NULL where nothing but bookkeeping changed.';

-- What quality has on record about a row of a hypertable; NULL where nothing. It is gone once the row is.
CREATE OR REPLACE FUNCTION _tidemark.row_findings(
    p_label text,
    p_time_column text,
    p_row jsonb
)
    RETURNS jsonb
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_ts CONSTANT timestamptz := p_row ->> p_time_column;
    v_findings jsonb;
BEGIN
    IF NOT p_row ? 'quality_score' OR (p_row ->> 'quality_score' = '100' AND p_row ->> 'is_anomaly' = 'false') THEN
        RETURN NULL;
    END IF;
    SELECT jsonb_strip_nulls(jsonb_build_object(
               'issues', (SELECT jsonb_agg(to_jsonb(q) - 'issue_id' ORDER BY q.issue_id)
                            FROM public.quality_issues AS q
                           WHERE q.table_name = p_label AND q.ts = v_ts AND p_row @> q.series),
               'anomalies', (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.anomaly_id)
                               FROM public.anomalies AS a
                               JOIN _tidemark.quality_targets AS t ON t.label = a.table_name
                              WHERE a.table_name = p_label
                                AND a.series = (SELECT jsonb_object_agg(k.key, p_row -> k.key)
                                                  FROM unnest(t.series_columns) AS k (key))
                                AND a.timestamp = v_ts)
           ))
      INTO v_findings;
    RETURN nullif(v_findings, '{}');
END
$func$;
COMMENT ON FUNCTION _tidemark.row_findings(text, text, jsonb) IS
'Penalties and anomalies of a row of a hypertable; NULL where there are none.';

-- Whether a row of a hypertable, or of a chunk of one, forms at an instant, and is no history yet: from its time on as
-- long as p_forming says, else until its bar has closed, as scoring knows it (attach_quality). Asked for each tick of
-- each series: so long as the bar has not even ended, nobody needs to know how late its last word may come.
CREATE OR REPLACE FUNCTION _tidemark.is_forming(
    p_relation oid,
    p_row jsonb,
    p_time_column text,
    p_forming interval,
    p_at timestamptz
)
    RETURNS boolean
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_ts CONSTANT timestamptz := p_row ->> p_time_column;
    v_length interval := p_forming;
    v_lag interval := '0';
BEGIN
    IF p_forming IS NULL THEN
        SELECT _tidemark.bar_length(p.bar) INTO v_length
          FROM _tidemark.quality_targets AS t
         CROSS JOIN LATERAL _tidemark.series_profile(t, p_row) AS p
         WHERE t.hypertable = coalesce(
                   (SELECT h.inhparent FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = p_relation), p_relation
               );
        IF v_length IS NOT NULL
           AND _tidemark.closes_at(v_ts, v_length, v_lag, clock_timestamp()) <= p_at THEN
            SELECT p.allowed_lag INTO v_lag
              FROM _tidemark.quality_targets AS t
             CROSS JOIN LATERAL _tidemark.series_profile(t, p_row) AS p
             WHERE t.hypertable = coalesce(
                       (SELECT h.inhparent FROM pg_catalog.pg_inherits AS h WHERE h.inhrelid = p_relation), p_relation
                   );
        END IF;
    END IF;
    RETURN coalesce(_tidemark.closes_at(v_ts, v_length, v_lag, clock_timestamp()) > p_at, false);
END
$func$;
COMMENT ON FUNCTION _tidemark.is_forming(oid, jsonb, text, interval, timestamptz) IS
'Whether a row of a hypertable, or of a chunk of one, forms at an instant, as far as that is known.';

-- Records what happened to a row of a hypertable. A deleted row also goes to the archive, in the same transaction.
CREATE OR REPLACE FUNCTION _tidemark.record_hypertable_row(
    p_arguments text[],
    p_operation public.audit_operation,
    p_chunk oid,
    p_old record,
    p_new record
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
    -- The same row is recorded as the same JSON, whatever the session's settings.
    SET timezone = 'UTC'
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
AS $func$
DECLARE
    v_old CONSTANT jsonb := to_jsonb(p_old);
    v_keys text[];
    v_secrets text[];
    v_time_column text := p_arguments[6];
    v_audit_id bigint;
BEGIN
    SELECT s.keys, s.secrets INTO v_keys, v_secrets
      FROM _tidemark.audit_shapes AS s
     WHERE s.record_name = p_arguments[1]
     ORDER BY s.since DESC
     LIMIT 1;
    IF (v_old ?& v_keys) IS NOT true THEN -- written to a chunk, past the trigger that would have noted new names
        SELECT s.keys, s.secrets INTO v_keys, v_secrets
          FROM pg_catalog.pg_inherits AS h
         CROSS JOIN LATERAL _tidemark.audit_shape(p_arguments[1], h.inhparent) AS s
         WHERE h.inhrelid = p_chunk;
    END IF;
    IF p_operation = 'update' THEN
        PERFORM _tidemark.record_change(
            p_arguments[1], 'update', v_keys, p_arguments[3]::text[], v_secrets, p_arguments[5] = 'reason', v_old,
            to_jsonb(p_new)
        );
        RETURN;
    END IF;
    IF NOT v_old ? v_time_column THEN
        SELECT _tidemark.time_column(h.inhparent) INTO v_time_column
          FROM pg_catalog.pg_inherits AS h
         WHERE h.inhrelid = p_chunk;
    END IF;
    v_audit_id := _tidemark.record_change(
        p_arguments[1], 'delete', v_keys, p_arguments[3]::text[], v_secrets, p_arguments[5] = 'reason', v_old, NULL
    );
    INSERT INTO public.timeseries_archive (table_name, row, findings, audit_id, deleted_at, deleted_by, reason)
    VALUES (
        p_arguments[1], _tidemark.redact(v_old, v_secrets),
        _tidemark.row_findings(p_arguments[1], v_time_column, v_old), v_audit_id, clock_timestamp(),
        coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user),
        nullif(current_setting('tidemark.reason', true), '')
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.record_hypertable_row(text [], public.audit_operation, oid, record, record) IS
'Records an update or delete of a row of a hypertable, and archives what is deleted.';

-- Row trigger of a hypertable. A version of a bar that forms is not recorded: not where somebody gives a reason, or
-- corrects, or the row gets another key, or is on record already. So what is recorded of a row has no gap: it begins
-- with what the row was when it closed. Forms first, because that comes many times a second.
CREATE OR REPLACE FUNCTION _tidemark.audit_hypertable_row()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- Versions and keys are compared as JSON, which is the same whatever the session's settings.
    SET timezone = 'UTC'
    SET extra_float_digits = 1
AS $func$
DECLARE
    v_old jsonb;
    v_new jsonb;
    v_keys text[] := TG_ARGV[1];
    v_time_column text := TG_ARGV[5];
    v_column text;
    v_key jsonb := '{}';
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM _tidemark.record_hypertable_row(TG_ARGV[:], 'delete', TG_RELID, OLD, NULL);
        RETURN NULL;
    END IF;
    v_old := to_jsonb(OLD.*);
    v_new := to_jsonb(NEW.*);
    IF NOT v_old ?& (v_keys || v_time_column) THEN -- renamed since
        SELECT s.keys, _tidemark.time_column(s.relation) INTO v_keys, v_time_column
          FROM _tidemark.audit_shapes AS s
         WHERE s.record_name = TG_ARGV[0]
         ORDER BY s.since DESC
         LIMIT 1;
    END IF;
    IF coalesce(current_setting('tidemark.reason', true), '') = ''
       AND coalesce(current_setting('tidemark.ingest_mode', true), '') <> 'correction'
       AND _tidemark.is_forming(
           TG_RELID, v_old, v_time_column, nullif(TG_ARGV[6], '')::interval, clock_timestamp()
       )
    THEN
        FOREACH v_column IN ARRAY v_keys LOOP
            v_key := v_key || jsonb_build_object(v_column, v_old -> v_column);
        END LOOP;
        IF v_new @> v_key
           AND NOT EXISTS (SELECT FROM public.audit_log AS l
                            WHERE l.row_key_hash = jsonb_hash_extended(v_key, 0)
                              AND l.row_key = v_key AND l.table_name = TG_ARGV[0])
           AND NOT EXISTS (SELECT FROM public.audit_log AS l
                            WHERE l.new_key_hash = jsonb_hash_extended(v_key, 0)
                              AND l.new_key = v_key AND l.table_name = TG_ARGV[0])
        THEN
            RETURN NULL;
        END IF;
    END IF;
    IF (v_old - TG_ARGV[2]::text[])::text <> (v_new - TG_ARGV[2]::text[])::text THEN -- not the quality engine at work
        PERFORM _tidemark.record_hypertable_row(TG_ARGV[:], 'update', TG_RELID, OLD, NEW);
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.audit_hypertable_row() FROM public;
COMMENT ON FUNCTION _tidemark.audit_hypertable_row() IS
'Row trigger of a hypertable: records updates and deletes, and archives what is deleted.';

-- A row's share in a checksum of many: the first 64 bits of its hash, as a number. Added up, they do not depend on the
-- order of the rows.
CREATE OR REPLACE FUNCTION _tidemark.row_digest(p_row jsonb)
    RETURNS numeric
    LANGUAGE plpgsql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN ('x' || encode(substr(sha256(convert_to(p_row::text, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint;
END
$func$;
COMMENT ON FUNCTION _tidemark.row_digest(jsonb) IS
'A row''s share in a checksum of many rows: 64 bits of the SHA-256 of its JSON, as a number.';

-- Statement trigger before TRUNCATE. Rows of a plain table are recorded one by one; what a hypertable held, too much
-- for that, as a number of rows and a checksum.
CREATE OR REPLACE FUNCTION _tidemark.audit_truncate()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'postgres'
    SET extra_float_digits = 1
    SET bytea_output = 'hex'
AS $func$
DECLARE
    v_shape CONSTANT _tidemark.audit_shapes := _tidemark.audit_shape(TG_ARGV[0], TG_RELID);
    v_row jsonb;
BEGIN
    IF TG_ARGV[5] <> '' THEN
        EXECUTE format(
            'SELECT jsonb_build_object(''rows'', count(*),'
            '                          ''checksum'', sum(_tidemark.row_digest(to_jsonb(t.*)))::text)'
            '  FROM %I.%I AS t', TG_TABLE_SCHEMA, TG_TABLE_NAME
        ) INTO v_row;
        IF v_row ->> 'rows' <> '0' THEN
            PERFORM _tidemark.record_change(
                TG_ARGV[0], 'truncate', '{}', '{}', '{}', TG_ARGV[4] = 'reason', v_row, NULL
            );
        END IF;
        RETURN NULL;
    END IF;
    FOR v_row IN EXECUTE format('SELECT to_jsonb(t.*) FROM %I.%I AS t', TG_TABLE_SCHEMA, TG_TABLE_NAME) LOOP
        PERFORM _tidemark.record_change(
            TG_ARGV[0], 'truncate', v_shape.keys, '{}', v_shape.secrets, TG_ARGV[4] = 'reason', v_row, NULL
        );
    END LOOP;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.audit_truncate() FROM public;
COMMENT ON FUNCTION _tidemark.audit_truncate() IS 'Statement trigger before TRUNCATE: records what is about to go.';
