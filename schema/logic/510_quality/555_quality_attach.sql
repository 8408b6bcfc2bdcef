-- attach_quality and detach_quality: scoring on any hypertable.

-- The functions that are made for a hypertable, by its stem, in an order in which they can be dropped.
CREATE OR REPLACE FUNCTION _tidemark.quality_functions(p_stem text)
    RETURNS text[]
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT array_agg(f.name || p_stem ORDER BY f.position)
      FROM unnest(ARRAY['score_', 'rescore_updated_', 'forget_', 'rows_', 'try_rules_', 'nights_', 'fields_', 'doubts_',
                        'read_'])
           WITH ORDINALITY AS f (name, position);
$func$;
COMMENT ON FUNCTION _tidemark.quality_functions(text) IS 'Names of the functions that are made for a hypertable.';

CREATE OR REPLACE FUNCTION _tidemark.quality_triggers()
    RETURNS text[]
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT ARRAY['trg_expect_scores', 'trg_calculate_quality_score', 'trg_rescore_updated', 'trg_forget_deleted',
                 'trg_lapse_deleted', 'trg_forget_truncated'];
$func$;
COMMENT ON FUNCTION _tidemark.quality_triggers() IS 'Names of the triggers that attach_quality() makes.';

-- Drops the functions that were made for a hypertable.
CREATE OR REPLACE FUNCTION _tidemark.drop_quality_functions(p_stem text)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_name text;
BEGIN
    FOREACH v_name IN ARRAY _tidemark.quality_functions(p_stem) LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS _tidemark.%I', v_name);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.drop_quality_functions(text) IS 'Drops the functions that were made for a hypertable.';

-- Forgets hypertables that were dropped while scoring was attached to them.
CREATE OR REPLACE FUNCTION _tidemark.forget_dropped_targets()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_target record;
BEGIN
    FOR v_target IN
        DELETE FROM _tidemark.quality_targets AS t
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = t.hypertable)
        RETURNING t.stem, t.hypertable
    LOOP
        PERFORM _tidemark.drop_quality_functions(v_target.stem);
        DELETE FROM _tidemark.waiting_bars AS w WHERE w.hypertable = v_target.hypertable;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.forget_dropped_targets() IS
'Forgets hypertables that were dropped while scoring was attached to them, and drops their functions.';

-- Makes the functions of a hypertable for its columns and for the rules in force. Two sessions that change rules at the
-- same time do so one after the other: the second waits for the row of quality_targets and then sees both changes, or,
-- in a REPEATABLE READ transaction, fails with a serialization error rather than forget the other's rule.
CREATE OR REPLACE FUNCTION _tidemark.build_quality(p_hypertable regclass)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_target _tidemark.quality_targets;
    v_tokens jsonb;
    v_function record;
    v_is_new boolean := false;
    v_pinned CONSTANT text := 'SET search_path = pg_catalog, pg_temp';
    -- Days are those of UTC. Planning for the rows of each statement anew takes longer than going through them; the plan
    -- has to do for one row and for thousands.
    v_trigger CONSTANT text := 'SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = ''UTC'''
        ' SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = ''force_generic_plan''';
BEGIN
    SELECT t.* INTO STRICT v_target FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable FOR UPDATE;
    v_tokens := _tidemark.quality_tokens(v_target);
    FOR v_function IN
        SELECT f.*
          FROM (VALUES
              ('read_', 'p_series jsonb[], p_from timestamptz[], p_to timestamptz[], p_late_before timestamptz[], '
               'p_future_after timestamptz, p_profile public.quality_profiles, p_step interval, p_followers boolean, '
               'p_every boolean, p_most integer, OUT island integer[], OUT ts timestamptz[], '
               'OUT value double precision[], OUT is_usable boolean[], OUT is_marked boolean[], '
               'OUT lowest timestamptz, OUT highest timestamptz, OUT judged_from timestamptz[], '
               'OUT first_island integer[], OUT first_ts timestamptz[], OUT first_value double precision[], '
               'OUT wick double precision[], OUT body double precision[], OUT volume double precision[]', 'record',
               v_pinned, _tidemark.reader_template(), '{}'::jsonb, 'rows of islands of %s and their baselines'),
              ('nights_', 'p_series jsonb[], p_from timestamptz[], p_found _tidemark.finding[], '
               'p_profile public.quality_profiles, p_step interval', '_tidemark.finding[]', v_pinned,
               _tidemark.nights_template(), '{}', 'first rows of sessions of %s'),
              ('fields_', 'p_series jsonb[], p_found _tidemark.finding[], p_profile public.quality_profiles, '
               'p_step interval, p_lowest timestamptz, p_highest timestamptz', '_tidemark.finding[]', v_pinned,
               _tidemark.fields_template(), '{}', 'what else of bars of %s stands out'),
              ('try_rules_', 'p_row jsonb, p_market text, p_step interval, p_transform public.change_transform',
               'integer[]', v_pinned, _tidemark.try_rules_template(), '{}',
               'rules that a row of %s violates, where some fail to evaluate'),
              ('rows_', 'p_series jsonb[], p_ts timestamptz[], p_profile public.quality_profiles, p_step interval, '
               'p_is_safe boolean', 'SETOF _tidemark.judged_row', v_pinned, _tidemark.rows_template(), '{}',
               'rows of %s that are judged'),
              ('doubts_', 'p_target _tidemark.quality_targets, p_ids bigint[], p_series jsonb[]',
               'TABLE (anomaly_id bigint, is_doubtful boolean)',
               v_pinned || ' SET plan_cache_mode = ''force_generic_plan''', _tidemark.doubts_template(), '{}',
               'anomalies of %s of which it is to be said anew whether they may be errors'),
              ('score_', '', 'trigger', v_trigger, _tidemark.insert_template(), jsonb_build_object(
                   'begin', E'\n    PERFORM set_config(''tidemark.scoring'', '''', true); -- as expect_scores set it',
                   'is_insert', 'true',
                   'arrival', E'\n           OR d.@time@ > v_now + @tolerance@::interval\n           OR (v_is_live AND '
                              'p.is_live AND d.@time@ + p.step + p.lag < v_now)'
               ), 'statement trigger that scores new rows of %s'),
              ('rescore_updated_', '', 'trigger', v_trigger, _tidemark.update_template(), jsonb_build_object(
                   'is_insert', 'false', 'arrival', '', 'begin', ''
               ), 'statement trigger that scores updated rows of %s'),
              ('forget_', '', 'trigger', 'SECURITY DEFINER ' || v_pinned,
               'BEGIN PERFORM _tidemark.forget_rows(@label@, ARRAY[@series_of_deleted@], ARRAY[OLD.@time@]); '
               'RETURN NULL; END', '{}', 'row trigger that removes what is on record about a deleted row of %s')
          ) AS f (prefix, arguments, returns, attributes, template, tokens, use)
    LOOP
        v_is_new := _tidemark.make_function(
            v_function.prefix || v_target.stem, v_function.arguments, v_function.returns, v_function.attributes,
            _tidemark.fill_template(v_function.template, v_tokens || v_function.tokens),
            'Made by attach_quality: ' || format(v_function.use, v_target.label) || '.'
        ) OR v_is_new;
    END LOOP;
    IF v_is_new THEN
        UPDATE _tidemark.quality_targets AS t SET builds = t.builds + 1 WHERE t.hypertable = p_hypertable;
    END IF;
    RETURN v_is_new;
END
$func$;
COMMENT ON FUNCTION _tidemark.build_quality(regclass) IS
'Makes the functions that score a hypertable, for its columns and the rules in force; says whether any changed.';

-- Makes a trigger unless it is there already, made the same way; its comment is made in any case.
CREATE OR REPLACE FUNCTION _tidemark.make_trigger(
    p_name text,
    p_hypertable regclass,
    -- What stands between name and EXECUTE, with %s for the table, as pg_get_triggerdef prints it: or the trigger is
    -- made anew each time.
    p_definition text,
    p_function text,
    p_argument text,
    p_comment text
)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_definition CONSTANT text := format(
        '%I %s EXECUTE FUNCTION _tidemark.%I(%s)', p_name, format(p_definition, p_hypertable), p_function,
        CASE WHEN p_argument IS NOT NULL THEN quote_literal(p_argument) END
    );
    v_is_new CONSTANT boolean := NOT EXISTS (
        SELECT FROM pg_catalog.pg_trigger AS t
         WHERE t.tgrelid = p_hypertable AND t.tgname = p_name
           AND pg_get_triggerdef(t.oid) = 'CREATE TRIGGER ' || v_definition
    );
    v_owner regrole;
BEGIN
    IF v_is_new THEN
        -- TimescaleDB makes the triggers of chunks as the owner of the hypertable.
        SELECT c.relowner::regrole INTO v_owner FROM pg_catalog.pg_class AS c WHERE c.oid = p_hypertable;
        IF NOT has_function_privilege(v_owner, format('_tidemark.%I', p_function)::regproc, 'EXECUTE') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION _tidemark.%I TO %s', p_function, v_owner);
        END IF;
        EXECUTE 'CREATE OR REPLACE TRIGGER ' || v_definition;
    END IF;
    EXECUTE format('COMMENT ON TRIGGER %I ON %s IS %L', p_name, p_hypertable, p_comment);
    RETURN v_is_new;
END
$func$;
COMMENT ON FUNCTION _tidemark.make_trigger(text, regclass, text, text, text, text) IS
'Makes a trigger unless it is there already; says whether it did.';

-- Puts scoring on a hypertable over a timestamptz. From then on every row inserted or updated has a quality_score, its
-- penalties stand in quality_issues and what stands out in anomalies. Rows that are there already get theirs from
-- rescore().
--
-- What is left out is taken from the table, or from the call before: p_series, the columns that tell one series from
-- another, are the key without the time; p_value, of which the first that is not NULL is judged, those of close, price
-- and value that exist; p_open, by which splits are recognised, is open; p_source and p_interval, which lead to the
-- series' profile, are the series columns source_id and those of type candle_interval; p_profile, for series that have
-- no profile that way, is ohlcv. The columns quality_score and is_anomaly are added where they are missing.
--
-- Returns whether anything changed. Raises TM201 where p_hypertable is none, TM202 for a column that is missing or of
-- the wrong type, TM203 where series and time are not unique, TM204 for an unknown profile.
CREATE OR REPLACE FUNCTION public.attach_quality(
    p_hypertable regclass,
    p_series text[] DEFAULT NULL,
    p_value text[] DEFAULT NULL,
    p_open text DEFAULT NULL,
    p_source text DEFAULT NULL,
    p_interval text DEFAULT NULL,
    p_profile text DEFAULT NULL
)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_old _tidemark.quality_targets;
    v_new record; -- of the same type; pgspot reads assignments to the fields of records only
    v_relation record;
    v_column record;
    v_changed boolean := false;
BEGIN
    SELECT c.relname, n.nspname, format('%I.%I', n.nspname, c.relname) AS name, h.time_column INTO v_relation
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (
               SELECT d.column_name::text AS time_column
                 FROM timescaledb_information.dimensions AS d
                WHERE d.hypertable_schema = n.nspname AND d.hypertable_name = c.relname
                  AND d.dimension_number = 1 AND d.column_type = 'timestamptz'::regtype
           ) AS h
     WHERE c.oid = p_hypertable;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM201',
            MESSAGE = format('%s is not a hypertable over a timestamptz', coalesce(p_hypertable::text, 'NULL')),
            HINT = 'Make it one with create_hypertable.';
    END IF;
    PERFORM _tidemark.forget_dropped_targets();
    SELECT t.* INTO v_old FROM _tidemark.quality_targets AS t WHERE t.hypertable = p_hypertable;

    v_new := v_old;
    v_new.hypertable := p_hypertable;
    v_new.label := _tidemark.label(p_hypertable);
    v_new.time_column := v_relation.time_column;
    v_new.series_columns := coalesce(p_series, v_old.series_columns, (
        SELECT array_agg(a.attname::text ORDER BY k.position)
          FROM pg_catalog.pg_constraint AS c
         CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k (attnum, position)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
         WHERE c.conrelid = p_hypertable AND c.contype = 'p' AND a.attname <> v_relation.time_column
    ));
    v_new.value_columns := coalesce(p_value, v_old.value_columns, (
        SELECT array_agg(a.attname::text ORDER BY array_position(ARRAY['close', 'price', 'value'], a.attname::text))
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = p_hypertable AND a.attname IN ('close', 'price', 'value')
    ));
    v_new.open_column := coalesce(p_open, v_old.open_column, (
        SELECT a.attname::text FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = p_hypertable AND a.attname = 'open'
    ));
    v_new.source_column := coalesce(p_source, (
        SELECT v_old.source_column WHERE v_old.source_column = ANY (v_new.series_columns)
    ), (
        SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = p_hypertable AND a.attname = 'source_id' AND a.atttypid = 'integer'::regtype
           AND a.attname = ANY (v_new.series_columns)
    ));
    v_new.interval_column := coalesce(p_interval, (
        SELECT v_old.interval_column WHERE v_old.interval_column = ANY (v_new.series_columns)
    ), (
        SELECT min(a.attname::text) FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = p_hypertable AND a.atttypid = 'public.candle_interval'::regtype
           AND a.attname = ANY (v_new.series_columns)
    ));
    IF p_profile IS NULL AND v_old.quality_profile_id IS NOT NULL THEN
        v_new.quality_profile_id := v_old.quality_profile_id;
    ELSE
        SELECT q.quality_profile_id INTO v_new.quality_profile_id
          FROM public.quality_profiles AS q
         WHERE q.name = coalesce(p_profile, 'ohlcv');
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'TM204',
                MESSAGE = format('there is no quality profile "%s"', coalesce(p_profile, 'ohlcv'));
        END IF;
    END IF;

    FOR v_column IN
        SELECT c.name, c.use, c.type
          FROM (
            SELECT s.name, 'series' AS use, NULL AS type FROM unnest(v_new.series_columns) AS s (name)
             UNION ALL SELECT v.name, 'value', 'numeric' FROM unnest(v_new.value_columns) AS v (name)
             UNION ALL SELECT v_new.open_column, 'open', 'numeric' WHERE v_new.open_column IS NOT NULL
             UNION ALL SELECT v_new.source_column, 'source', 'integer' WHERE v_new.source_column IS NOT NULL
             UNION ALL SELECT v_new.interval_column, 'interval', 'candle_interval'
                 WHERE v_new.interval_column IS NOT NULL
          ) AS c
          LEFT JOIN pg_catalog.pg_attribute AS a
            ON a.attrelid = p_hypertable AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
         WHERE a.attname IS NULL
            OR (c.type = 'numeric' AND t.typcategory <> 'N')
            OR (c.type IN ('integer', 'candle_interval')
                AND (t.oid <> CASE c.type WHEN 'integer' THEN 'integer'::regtype
                                          ELSE 'public.candle_interval'::regtype END
                     OR NOT c.name = ANY (v_new.series_columns)))
    LOOP
        RAISE EXCEPTION USING ERRCODE = 'TM202',
            MESSAGE = format('column "%s" of %s cannot serve as %s', v_column.name, p_hypertable, v_column.use),
            DETAIL = 'It is missing, of another type, or not among the series columns.';
    END LOOP;
    IF v_new.series_columns IS NULL OR v_new.value_columns IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM202',
            MESSAGE = format('the %s columns of %s are not known',
                             CASE WHEN v_new.series_columns IS NULL THEN 'series' ELSE 'value' END, p_hypertable),
            HINT = 'Name them in p_series and p_value.';
    END IF;
    IF NOT EXISTS (
        SELECT
          FROM pg_catalog.pg_index AS x
         WHERE x.indrelid = p_hypertable AND x.indisunique AND x.indpred IS NULL AND x.indexprs IS NULL
           AND (SELECT array_agg(a.attname::text ORDER BY a.attname)
                  FROM pg_catalog.pg_attribute AS a
                 WHERE a.attrelid = p_hypertable AND a.attnum = ANY (x.indkey))
               = (SELECT array_agg(c.name ORDER BY c.name)
                    FROM unnest(v_new.series_columns || v_new.time_column) AS c (name))
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM203',
            MESSAGE = format('%s is not unique in series and time', p_hypertable),
            DETAIL = format('Needed: (%s).', array_to_string(v_new.series_columns || v_new.time_column, ', ')),
            HINT = 'A row needs an identity for its score to be on record.';
    END IF;

    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = p_hypertable AND a.attname = 'quality_score'
    ) THEN
        EXECUTE format('ALTER TABLE %s ADD COLUMN quality_score smallint', v_relation.name);
        EXECUTE format('COMMENT ON COLUMN %s.quality_score IS %L', v_relation.name,
                       'Quality from 0 to 100, with the reasons in quality_issues; NULL: not scored.');
        v_changed := true;
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = p_hypertable AND a.attname = 'is_anomaly'
    ) THEN
        EXECUTE format('ALTER TABLE %s ADD COLUMN is_anomaly boolean NOT NULL DEFAULT false', v_relation.name);
        EXECUTE format('COMMENT ON COLUMN %s.is_anomaly IS %L', v_relation.name,
            'Whether the row stands in anomalies.');
        v_changed := true;
    END IF;

    PERFORM _tidemark.let_owner_in(p_hypertable, 'SELECT, INSERT, UPDATE');
    v_new.stem := coalesce(v_old.stem, left(lower(regexp_replace(v_new.label, '[^A-Za-z0-9_]', '_', 'g')), 40)
        || CASE WHEN EXISTS (
            SELECT FROM _tidemark.quality_targets AS t
             WHERE t.stem = left(lower(regexp_replace(v_new.label, '[^A-Za-z0-9_]', '_', 'g')), 40)
        ) THEN '_' || p_hypertable::oid ELSE '' END);
    INSERT INTO _tidemark.quality_targets AS t (
        hypertable, label, stem, series_columns, time_column, value_columns, open_column, source_column,
        interval_column, quality_profile_id
    )
    VALUES (v_new.hypertable, v_new.label, v_new.stem, v_new.series_columns, v_new.time_column, v_new.value_columns,
            v_new.open_column, v_new.source_column, v_new.interval_column, v_new.quality_profile_id)
    ON CONFLICT (hypertable) DO UPDATE
       SET label = EXCLUDED.label,
           series_columns = EXCLUDED.series_columns,
           time_column = EXCLUDED.time_column,
           value_columns = EXCLUDED.value_columns,
           open_column = EXCLUDED.open_column,
           source_column = EXCLUDED.source_column,
           interval_column = EXCLUDED.interval_column,
           quality_profile_id = EXCLUDED.quality_profile_id,
           is_attached = true
     WHERE (t.label, t.series_columns, t.time_column, t.value_columns, t.open_column, t.source_column,
            t.interval_column, t.quality_profile_id, t.is_attached)
           IS DISTINCT FROM
           (EXCLUDED.label, EXCLUDED.series_columns, EXCLUDED.time_column, EXCLUDED.value_columns, EXCLUDED.open_column,
            EXCLUDED.source_column, EXCLUDED.interval_column, EXCLUDED.quality_profile_id, true);
    v_changed := FOUND OR v_changed;
    -- Rows that are written where triggers do not run have to be noticed, or nothing may be remembered of the series.
    IF _tidemark.replica_constraint(p_hypertable) IS NULL THEN
        BEGIN
            EXECUTE format(
                'ALTER TABLE %s ADD CONSTRAINT %I CHECK (current_setting(''session_replication_role'') <> ''replica'''
                ' OR _tidemark.notice_replica(%L)) NOT VALID',
                v_relation.name, left(v_relation.relname, 47) || '_notice_replica', v_new.label
            );
            EXECUTE format('COMMENT ON CONSTRAINT %I ON %s IS %L',
                           left(v_relation.relname, 47) || '_notice_replica', v_relation.name,
                           'Always holds: scoring learns of rows that are written where triggers do not run.');
            v_changed := true;
        EXCEPTION WHEN feature_not_supported THEN
            NULL; -- a hypertable with compressed chunks takes no constraint: its rows are judged by reading the others
        END;
    END IF;
    v_changed := _tidemark.build_quality(p_hypertable) OR v_changed;

    -- NULL but for rows that are about to be judged: see expect_scores.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attrdef AS d
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
         WHERE d.adrelid = p_hypertable AND a.attname = 'quality_score'
           AND pg_get_expr(d.adbin, d.adrelid) LIKE '%tidemark.scoring%'
    ) THEN
        EXECUTE format(
            'ALTER TABLE %s ALTER COLUMN quality_score SET DEFAULT'
            ' CASE WHEN current_setting(''tidemark.scoring'', true) = %L THEN 100::smallint END',
            v_relation.name, v_new.stem
        );
        v_changed := true;
    END IF;
    v_changed := _tidemark.make_trigger(
        'trg_expect_scores', p_hypertable, 'BEFORE INSERT ON %s FOR EACH STATEMENT', 'expect_scores', v_new.stem,
        'Has the scores of rows that are about to be judged begin with 100.'
    ) OR v_changed;
    v_changed := _tidemark.make_trigger(
        'trg_calculate_quality_score', p_hypertable,
            'AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT',
        'score_' || v_new.stem, NULL, 'Scores new rows, notes why they lost points and what stands out.'
    ) OR v_changed;
    -- What the clerk writes is a verdict already. The setting alone could be forged, the role cannot.
    v_changed := _tidemark.make_trigger(
        'trg_rescore_updated', p_hypertable,
        'AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT WHEN '
        '(((COALESCE(current_setting(''tidemark.writing_scores''::text, true), ''''::text) <> ''on''::text)'
        ' OR (NOT _tidemark.is_clerk())))',
        'rescore_updated_' || v_new.stem, NULL,
            'Scores updated rows again, and puts back a score that was tampered with.'
    ) OR v_changed;
    -- For each row, because the columnstore allows no transition table on DELETE; rows without fault cost nothing.
    v_changed := _tidemark.make_trigger(
        'trg_forget_deleted', p_hypertable,
        'AFTER DELETE ON %s FOR EACH ROW WHEN (((old.quality_score < 100) OR old.is_anomaly))',
        'forget_' || v_new.stem, NULL,
        'Removes the penalties and the anomaly of a deleted row.'
    ) OR v_changed;
    v_changed := _tidemark.make_trigger(
        'trg_lapse_deleted', p_hypertable, 'AFTER DELETE ON %s FOR EACH STATEMENT', 'lapse_deleted', NULL,
        'What is remembered of the series is void.'
    ) OR v_changed;
    v_changed := _tidemark.make_trigger(
        'trg_forget_truncated', p_hypertable, 'AFTER TRUNCATE ON %s FOR EACH STATEMENT', 'forget_all_rows', v_new.label,
        'Removes all penalties and anomalies of the hypertable.'
    ) OR v_changed;
    IF v_changed THEN
        PERFORM _tidemark.lapse(p_hypertable, NULL);
    END IF;
    RETURN v_changed;
END
$func$;
COMMENT ON FUNCTION public.attach_quality(regclass, text[], text[], text, text, text, text) IS
'Puts scoring and anomaly detection on a hypertable; a second call changes nothing. Returns whether anything changed.';

-- Takes scoring off a hypertable. Scores, penalties and anomalies that were given stay; new rows get none. Returns
-- whether it was attached.
CREATE OR REPLACE FUNCTION public.detach_quality(p_hypertable regclass)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_target _tidemark.quality_targets;
    v_name text;
BEGIN
    UPDATE _tidemark.quality_targets AS t
       SET is_attached = false
     WHERE t.hypertable = p_hypertable
       AND t.is_attached
    RETURNING t.* INTO v_target;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM _tidemark.waiting_bars AS w WHERE w.hypertable = p_hypertable;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN quality_score DROP DEFAULT', p_hypertable);
    BEGIN
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', p_hypertable,
                       coalesce(_tidemark.replica_constraint(p_hypertable), 'none'));
    EXCEPTION WHEN feature_not_supported THEN
        NULL; -- in nobody's way
    END;
    FOREACH v_name IN ARRAY _tidemark.quality_triggers() LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_name, p_hypertable);
    END LOOP;
    PERFORM _tidemark.drop_quality_functions(v_target.stem);
    RETURN true;
END
$func$;
COMMENT ON FUNCTION public.detach_quality(regclass) IS
'Takes scoring off a hypertable; what was scored stays as it is. Returns whether it was attached.';
