-- Rules: from a row of validation_rules to a condition on a row of its hypertable, refused when it is broken.
-- A condition is true where the rule holds, false where it is violated and NULL where it cannot be evaluated.

-- A relation by its label in quality_issues, anomalies and validation_rules (_tidemark.label). NULL where none is.
CREATE OR REPLACE FUNCTION _tidemark.labelled_relation(p_label text)
    RETURNS regclass
    LANGUAGE sql
    STABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT c.oid::regclass
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE p_label = CASE n.nspname WHEN 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END || quote_ident(c.relname)
       AND c.relkind IN ('r', 'p')
     ORDER BY n.nspname = 'public' DESC
     LIMIT 1;
$func$;
COMMENT ON FUNCTION _tidemark.labelled_relation(text) IS
'Table by its label, as label() gives it; NULL where there is none.';

-- Replaces every @token@ of a template by its text, also in the texts put in.
CREATE OR REPLACE FUNCTION _tidemark.fill_template(
    p_template text,
    p_tokens jsonb
)
    RETURNS text
    LANGUAGE plpgsql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_before text;
    v_token record;
BEGIN
    LOOP
        v_before := p_template;
        FOR v_token IN SELECT t.key, t.value FROM jsonb_each_text(p_tokens) AS t LOOP
            p_template := replace(p_template, '@' || v_token.key || '@', coalesce(v_token.value, ''));
        END LOOP;
        EXIT WHEN p_template = v_before;
    END LOOP;
    RETURN p_template;
END
$func$;
COMMENT ON FUNCTION _tidemark.fill_template(text, jsonb) IS
'Replaces every @token@ of a template by its text, also in the texts put in.';

-- Refuses a rule: one message for all kinds of malformed rules.
CREATE OR REPLACE FUNCTION _tidemark.refuse_rule(
    p_name text,
    p_code text,
    p_detail text
)
    RETURNS void
    LANGUAGE plpgsql
    IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_code,
        MESSAGE = format('validation rule "%s" cannot be used', p_name),
        DETAIL = p_detail,
        HINT = 'The comment on validation_rules.parameters says what each type of rule takes.',
        TABLE = 'validation_rules';
END
$func$;
COMMENT ON FUNCTION _tidemark.refuse_rule(text, text, text) IS 'Raises TM205 to TM208 for a rule that cannot be used.';

-- Columns that a rule names in "column" or "columns"; raises TM206 where one is missing from the table, or not a number
-- though p_numeric.
CREATE OR REPLACE FUNCTION _tidemark.rule_columns(
    p_rule public.validation_rules,
    p_relation regclass,
    p_numeric boolean
)
    RETURNS text[]
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_columns text[] := CASE WHEN jsonb_typeof(p_rule.parameters -> 'columns') = 'array'
        THEN ARRAY(SELECT jsonb_array_elements_text(p_rule.parameters -> 'columns'))
        ELSE ARRAY[p_rule.parameters ->> 'column'] END;
    v_column text;
BEGIN
    IF cardinality(v_columns) = 0 OR array_position(v_columns, NULL) IS NOT NULL THEN
        PERFORM _tidemark.refuse_rule(p_rule.name, 'TM206', 'parameters name no column');
    END IF;
    FOREACH v_column IN ARRAY v_columns LOOP
        IF NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
             WHERE a.attrelid = p_relation AND a.attname = v_column AND a.attnum > 0
               AND (NOT p_numeric OR t.typcategory = 'N')
        ) THEN
            PERFORM _tidemark.refuse_rule(p_rule.name, 'TM206', format(
                '%s has no %s column "%s"', p_relation, CASE WHEN p_numeric THEN 'numeric' ELSE '' END, v_column
            ));
        END IF;
    END LOOP;
    RETURN v_columns;
END
$func$;
COMMENT ON FUNCTION _tidemark.rule_columns(public.validation_rules, regclass, boolean) IS
'Columns that a rule names; raises TM206 where the table lacks one.';

-- The grid on which bars of that length may begin, wherever they are traded: sessions open, and days begin, on quarters
-- of an hour; a bar of a day and longer may be stamped with the close, which is on five minutes. Shorter bars lie on
-- their own. NULL for instants, which have none.
CREATE OR REPLACE FUNCTION _tidemark.grid(p_step interval)
    RETURNS interval
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT CASE WHEN p_step >= interval '1 day' THEN interval '5 minutes'
                WHEN p_step >= interval '15 minutes' THEN interval '15 minutes'
                WHEN p_step > interval '0' THEN p_step END;
$func$;
COMMENT ON FUNCTION _tidemark.grid(interval) IS
'Grid on which bars of a length may begin, whatever the market; NULL for instants. Inlined.';

-- The condition of a rule as SQL over d (the row) and p (market, step and transform of its series). NULL for
-- not_future, which is judged once, when the row arrives. Raises TM206 for parameters that make no sense.
CREATE OR REPLACE FUNCTION _tidemark.rule_condition(
    p_rule public.validation_rules,
    p_relation regclass,
    p_time text
)
    RETURNS text
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_time CONSTANT text := format('d.%I', p_time);
    v_parameters CONSTANT jsonb := p_rule.parameters;
    v_condition text;
BEGIN
    PERFORM (v_parameters ->> 'transform')::public.change_transform;
    CASE p_rule.rule_type
    WHEN 'range' THEN
        IF NOT v_parameters ?| ARRAY['min', 'max', 'above', 'below'] THEN
            PERFORM _tidemark.refuse_rule(p_rule.name, 'TM206', 'a range needs min, max, above or below');
        END IF;
        -- Neither NaN nor an infinity lies in any range.
        SELECT string_agg(format('d.%I %s %L::%s', c.name, b.operator, b.bound, c.type), ' AND ' ORDER BY c.position)
          INTO v_condition
          FROM (SELECT n.position, a.attname AS name,
                       CASE WHEN a.atttypid IN ('real'::regtype, 'double precision'::regtype)
                            THEN 'double precision' ELSE 'numeric' END AS type
                  FROM unnest(_tidemark.rule_columns(p_rule, p_relation, true)) WITH ORDINALITY AS n (name, position)
                  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p_relation AND a.attname = n.name) AS c
         CROSS JOIN (VALUES ('>=', v_parameters ->> 'min'),
                            ('<=', v_parameters ->> 'max'),
                            ('>', coalesce(v_parameters ->> 'above',
                                           CASE WHEN NOT v_parameters ? 'min' THEN '-Infinity' END)),
                            ('<', coalesce(v_parameters ->> 'below',
                                           CASE WHEN NOT v_parameters ? 'max' THEN 'Infinity' END)))
               AS b (operator, bound)
         WHERE b.bound IS NOT NULL
           -- Raises where it is no number, or none of the column's type.
           AND CASE c.type WHEN 'numeric' THEN b.bound::numeric IS NOT NULL
               ELSE b.bound::double precision IS NOT NULL END;
        RETURN v_condition;
    WHEN 'not_null' THEN
        RETURN (SELECT string_agg(format('d.%I IS NOT NULL', c.name), ' AND ')
                  FROM unnest(_tidemark.rule_columns(p_rule, p_relation, false)) AS c (name));
    WHEN 'ohlc_consistent' THEN
        v_condition := 'NOT (d.@low@ > d.@open@ OR d.@low@ > d.@close@ OR d.@open@ > d.@high@ OR d.@close@ > d.@high@ '
            'OR d.@low@ > d.@high@)';
        RETURN _tidemark.fill_template(v_condition, (
            SELECT jsonb_object_agg(f.field, quote_ident((_tidemark.rule_columns(
                       jsonb_populate_record(p_rule, jsonb_build_object('parameters', jsonb_build_object(
                           'column', coalesce(v_parameters ->> f.field, f.field)))),
                       p_relation, true))[1]))
              FROM unnest(ARRAY['open', 'high', 'low', 'close']) AS f (field)
        ));
    WHEN 'not_future' THEN
        -- now() and it have to make an instant.
        IF (v_parameters ->> 'tolerance')::interval NOT BETWEEN interval '-1000 years' AND interval '1000 years' THEN
            PERFORM _tidemark.refuse_rule(p_rule.name, 'TM206', 'a tolerance is less than 1000 years');
        END IF;
        RETURN NULL;
    WHEN 'aligned' THEN
        RETURN replace(
            CASE WHEN v_parameters ? 'offset' THEN
                $sql$CASE p.step WHEN interval '0' THEN NULL
                WHEN interval '1 month' THEN date_trunc('month', @time@, 'UTC') = @time@
                ELSE date_bin(p.step, @time@, '2000-01-03 00:00+00') = @time@ END$sql$
            ELSE
                $sql$date_bin(_tidemark.grid(p.step), @time@, '2000-01-03 00:00+00') = @time@$sql$
            END,
            '@time@', CASE WHEN v_parameters ? 'offset'
                THEN format('(%s - %L::interval)', v_time, (v_parameters ->> 'offset')::interval) ELSE v_time END
        );
    WHEN 'session_open' THEN
        -- A bar must overlap a session; an instant must lie in one, ends included, and a bar of a day and longer may be
        -- stamped with the close. Before the calendar's first and after its last date nothing is known.
        RETURN format(
            $sql$CASE WHEN %2$s IS NULL THEN NULL WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = %2$s
                   AND c.date BETWEEN (%1$s AT TIME ZONE 'UTC')::date - 2
                       AND (%1$s AT TIME ZONE 'UTC' + p.step)::date + 2
                   AND c.opens_at
                       < (%1$s AT TIME ZONE 'UTC' + greatest(p.step, interval '1 microsecond')) AT TIME ZONE 'UTC'
                   AND (c.closes_at > %1$s
                        OR (c.closes_at = %1$s AND (p.step = interval '0' OR p.step >= interval '1 day')))
                   AND (c.break_starts_at <= %1$s AND c.break_ends_at > %1$s
                        AND c.break_ends_at >= (%1$s AT TIME ZONE 'UTC' + p.step) AT TIME ZONE 'UTC') IS NOT TRUE
            ) THEN true WHEN EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = %2$s AND c.date >= (%1$s AT TIME ZONE 'UTC')::date
            ) AND EXISTS (
                SELECT FROM public.market_calendar AS c
                 WHERE c.market = %2$s AND c.date <= (%1$s AT TIME ZONE 'UTC')::date
            ) THEN false END$sql$,
            v_time, coalesce(quote_literal(_tidemark.market_code(v_parameters ->> 'market')), 'p.market')
        );
    WHEN 'expression' THEN
        IF v_parameters ->> 'expression' IS NULL THEN
            PERFORM _tidemark.refuse_rule(p_rule.name, 'TM206', 'parameters hold no "expression"');
        END IF;
        RETURN format('((%s))::boolean', v_parameters ->> 'expression');
    END CASE;
EXCEPTION
    WHEN invalid_text_representation OR invalid_datetime_format OR datetime_field_overflow
         OR interval_field_overflow OR numeric_value_out_of_range THEN
        PERFORM _tidemark.refuse_rule(p_rule.name, 'TM206', SQLERRM);
END
$func$;
COMMENT ON FUNCTION _tidemark.rule_condition(public.validation_rules, regclass, text) IS
'Condition of a rule as SQL: true where it holds, NULL where it cannot be evaluated; raises TM206.';

-- The conditions of plpgsql under which a rule counts as not evaluated: it fails on the row, or no longer compiles
-- because what it names is gone or of another type.
CREATE OR REPLACE FUNCTION _tidemark.rule_failures()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT 'data_exception OR program_limit_exceeded OR syntax_error_or_access_rule_violation'
        ' OR invalid_schema_name OR feature_not_supported';
$func$;
COMMENT ON FUNCTION _tidemark.rule_failures() IS
'Conditions of plpgsql under which a rule counts as not evaluated on a row.';

-- Refuses an expression that does not compile (TM207) or may not be used (TM208): only columns of the row and built-in
-- immutable functions, no subquery, aggregate or window.
--
-- An expression brings code of its writer's with it in many ways: functions and operators, casts, the constraints of a
-- domain, also of one inside an array, a range or a composite, and these as soon as a constant of it is read. So
-- nothing is evaluated before all that it uses is known to be the server's own, made by initdb. And this function runs
-- with the rights of whoever writes the rule, who gains nothing if code of his runs here. Enums bring no code; they are
-- taken where a column of the table is of their type.
--
-- What is left the server decides: what it accepts as a generated column has exactly the properties wanted.
--
-- The engine evaluates it in its own query, as the owner. That gives nothing away: what is immutable, built in and
-- over the columns of one row reads no table, no file and no setting, asks for no privilege and writes nothing, so it
-- answers the same whoever evaluates it. A role without rights would cost a call of a function for each row and rule.
CREATE OR REPLACE FUNCTION _tidemark.check_expression(
    p_rule public.validation_rules,
    p_relation regclass
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    c_first_made CONSTANT oid := 16384; -- objects below were made by initdb
    v_expression CONSTANT text := p_rule.parameters ->> 'expression';
    v_detail text;
BEGIN
    -- What could end the expression early, or hide the rest of it; and the tokens of templates.
    IF v_expression ~ ';|--|/\*|@\w+@' THEN
        PERFORM _tidemark.refuse_rule(p_rule.name, 'TM208',
                                      'an expression may not contain a semicolon, a comment or a word between two @');
    END IF;
    BEGIN
        -- A view is parsed when it is made, and not planned.
        EXECUTE format('CREATE TEMPORARY TABLE tidemark_rule_check (%s) ON COMMIT DROP', (
            SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
              FROM pg_catalog.pg_attribute AS a
             WHERE a.attrelid = p_relation AND a.attnum > 0 AND NOT a.attisdropped
        ));
        EXECUTE format('CREATE TEMPORARY VIEW tidemark_rule_parsed AS'
                       ' SELECT ((%s))::boolean AS holds FROM pg_temp.tidemark_rule_check', v_expression);
        WITH enum AS (
            SELECT unnest(ARRAY[t.oid, t.typarray]) AS oid
              FROM pg_catalog.pg_attribute AS a
              JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid AND t.typtype = 'e'
             WHERE a.attrelid = p_relation AND a.attnum > 0
        ), used AS (
            -- What the server notes that the view depends on: relations, operator families, configurations and more.
            SELECT k.refclassid AS class, k.refobjid AS oid
              FROM pg_catalog.pg_rewrite AS w
              JOIN pg_catalog.pg_depend AS k ON k.classid = 'pg_rewrite'::regclass AND k.objid = w.oid
             WHERE w.ev_class = 'pg_temp.tidemark_rule_parsed'::regclass
               AND k.refclassid <> 'pg_namespace'::regclass
            UNION
            -- It does not note every type that a value has in between; the parsed text does.
            SELECT CASE WHEN m.key ~ 'coll(id)?$' THEN 'pg_collation'::regclass WHEN m.key ~ 'opno$'
                        THEN 'pg_operator'::regclass WHEN m.key ~ 'funcid$' THEN 'pg_proc'::regclass
                        ELSE 'pg_type'::regclass END,
                   m.number::oid
              FROM pg_catalog.pg_rewrite AS w
             CROSS JOIN LATERAL regexp_matches(
                       w.ev_action::text, ':(\w*(?:type|typid|typeid|funcid|opno|coll|collid)) (\d+)', 'g') AS r (parts)
             CROSS JOIN LATERAL (SELECT r.parts[1] AS key, r.parts[2] AS number) AS m
             WHERE w.ev_class = 'pg_temp.tidemark_rule_parsed'::regclass
        )
        SELECT string_agg(DISTINCT pg_catalog.pg_describe_object(u.class, u.oid, 0), ', ') INTO v_detail
          FROM used AS u
         WHERE u.oid >= c_first_made
           AND (u.class, u.oid) NOT IN (
               ('pg_class'::regclass, 'pg_temp.tidemark_rule_check'::regclass),
               ('pg_class'::regclass, 'pg_temp.tidemark_rule_parsed'::regclass)
           )
           AND NOT (u.class = 'pg_type'::regclass AND u.oid IN (SELECT e.oid FROM enum AS e));
        DROP VIEW pg_temp.tidemark_rule_parsed;
        IF v_detail IS NULL THEN
            EXECUTE format(
                'ALTER TABLE pg_temp.tidemark_rule_check'
                ' ADD COLUMN tidemark_rule_holds boolean GENERATED ALWAYS AS ((%s)) STORED',
                v_expression
            );
        END IF;
        DROP TABLE pg_temp.tidemark_rule_check;
    EXCEPTION
        WHEN invalid_object_definition OR feature_not_supported OR grouping_error OR windowing_error THEN
            PERFORM _tidemark.refuse_rule(p_rule.name, 'TM208', SQLERRM);
        WHEN syntax_error_or_access_rule_violation OR data_exception OR invalid_schema_name THEN
            PERFORM _tidemark.refuse_rule(p_rule.name, 'TM207', SQLERRM);
    END;
    IF v_detail IS NOT NULL THEN
        PERFORM _tidemark.refuse_rule(p_rule.name, 'TM208', format('only what is built in, not %s', v_detail));
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.check_expression(public.validation_rules, regclass) IS
'Refuses an expression that does not compile (TM207), or uses more than its row and what is built in (TM208).';

-- Rows of a series that start before this instant are late when they arrive at p_now: the open-market time from the end
-- of their bar until then exceeds p_lag. p_step is the length of a bar, zero for instants. -infinity, that is nothing
-- is late, where the calendar of the market does not reach to p_now.
CREATE OR REPLACE FUNCTION _tidemark.late_before(
    p_market text,
    p_lag interval,
    p_step interval,
    p_now timestamptz
)
    RETURNS timestamptz
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
    -- Days and months are those of UTC.
    SET timezone = 'UTC'
AS $func$
DECLARE
    v_session record;
    v_open interval := interval '0';
    v_end timestamptz; -- bars that ended before are late
BEGIN
    IF p_market IS NULL THEN
        v_end := p_now - p_lag;
    ELSIF EXISTS (
        SELECT FROM public.market_calendar AS c WHERE c.market = p_market AND c.date >= p_now::date
    ) THEN
        FOR v_session IN
            SELECT s.starts_at, least(s.ends_at, p_now) AS ends_at
              FROM public.market_calendar AS c
             CROSS JOIN LATERAL (VALUES (c.break_ends_at, c.closes_at),
                                        (c.opens_at, coalesce(c.break_starts_at, c.closes_at)))
                        AS s (starts_at, ends_at)
             WHERE c.market = p_market
               AND c.date <= p_now::date + 2
               AND s.starts_at < p_now
             ORDER BY c.date DESC, s.starts_at DESC
        LOOP
            v_open := v_open + (v_session.ends_at - v_session.starts_at);
            IF v_open > p_lag THEN
                v_end := v_session.starts_at + (v_open - p_lag);
                EXIT;
            END IF;
        END LOOP;
    END IF;
    RETURN CASE
        WHEN v_end IS NULL THEN '-infinity'
        -- A month's bar ends where the next month starts.
        WHEN p_step = interval '1 month' THEN date_trunc('month', v_end - interval '1 microsecond')
        ELSE v_end - p_step
    END;
END
$func$;
COMMENT ON FUNCTION _tidemark.late_before(text, interval, interval, timestamptz) IS
'Start of a bar before which a row is late, in open-market time; -infinity where the calendar does not reach.';
