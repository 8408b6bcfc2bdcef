-- What is made for each hypertable that quality is attached to comes from templates. Here are the texts put into them:
-- its columns, its rules, the way to a series' profile.

-- The texts for the key of a series. In the templates a series goes by k1, k2, …; d is a row of the hypertable.
CREATE OR REPLACE FUNCTION _tidemark.key_tokens(p_target _tidemark.quality_targets)
    RETURNS jsonb
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT jsonb_build_object(
               'key_parameters', string_agg(format('p_k%s %s[]', k.position, k.type), ', ' ORDER BY k.position),
               'key_types', string_agg(format('%s[]', k.type), ', ' ORDER BY k.position),
               'key_arguments', string_agg(format('p_k%s', k.position), ', ' ORDER BY k.position),
               'key_arrays', string_agg(format('v_k%s', k.position), ', ' ORDER BY k.position),
               'key_array_declarations', string_agg(format('v_k%s %s[];', k.position, k.type), ' ' ORDER BY k.position),
               'key_values', string_agg(format('v_key%s', k.position), ', ' ORDER BY k.position),
               'key_value_arrays', string_agg(format('ARRAY[v_key%s]', k.position), ', ' ORDER BY k.position),
               'key_value_declarations', string_agg(format('v_key%s %s;', k.position, k.type), ' ' ORDER BY k.position),
               'key_slices', string_agg(format('v_k%s[i:i + 49]', k.position), ', ' ORDER BY k.position),
               'row_is_selected', string_agg(
                   format('(NOT p_series ? %1$L OR d.%1$I = (p_series ->> %1$L)::%2$s)', k.name, k.type), ' AND '
                   ORDER BY k.position),
               'keys', string_agg(format('k%s', k.position), ', ' ORDER BY k.position),
               'keys_of_g', string_agg(format('g.k%s', k.position), ', ' ORDER BY k.position),
               'aggregated_keys', string_agg(format('array_agg(g.k%s)', k.position), ', ' ORDER BY k.position),
               'keys_of_row', string_agg(format('d.%I AS k%s', k.name, k.position), ', ' ORDER BY k.position),
               'keys_of_finding', string_agg(format('p_k%1$s[f.island] AS k%1$s', k.position), ', '
                   ORDER BY k.position),
               'keys_of_series', string_agg(format('(v.series ->> %L)::%s AS k%s', k.name, k.type, k.position), ', '
                                            ORDER BY k.position),
               'row_is_of_i', string_agg(format('d.%I = i.k%s', k.name, k.position), ' AND ' ORDER BY k.position),
               'row_is_of_values', string_agg(format('d.%I = v_key%s', k.name, k.position), ' AND '
                   ORDER BY k.position),
               'row_is_of_anomaly', string_agg(format('d.%I = (a.series ->> %L)::%s', k.name, k.name, k.type), ' AND '
                                               ORDER BY k.position),
               'row_is_of_issue', string_agg(format('d.%I = (q.series ->> %L)::%s', k.name, k.name, k.type), ' AND '
                                             ORDER BY k.position),
               'literals', string_agg(format('v_verdict.series ->> %L', k.name), ', ' ORDER BY k.position),
               'series', format('jsonb_build_object(%s)', string_agg(format('%L, d.%I', k.name, k.name), ', '
                                                                     ORDER BY k.position)),
               'series_of_old', format('jsonb_build_object(%s)', string_agg(format('%L, o.%I', k.name, k.name), ', '
                                                                            ORDER BY k.position)),
               'series_of_deleted', format('jsonb_build_object(%s)',
                   string_agg(format('%L, OLD.%I', k.name, k.name), ', '
                                                                                ORDER BY k.position)),
               'same_key', string_agg(format('n.%1$I = o.%1$I', k.name), ' AND ' ORDER BY k.position),
               'anomaly_columns', (string_agg(k.reference || ', ', '' ORDER BY k.position)),
               'anomaly_values', (string_agg(format('(v.series ->> %L)::%s, ', k.name, k.type), '' ORDER BY k.position)
                                  FILTER (WHERE k.reference IS NOT NULL))
           )
      FROM (SELECT s.name, s.position, format_type(a.atttypid, NULL) AS type,
                   -- The column of anomalies in which the key is repeated, where it is a known one.
                   CASE WHEN s.name = p_target.source_column THEN 'source_id'
                        WHEN s.name = p_target.interval_column THEN 'interval'
                        WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint AS f
                                      WHERE f.conrelid = p_target.hypertable AND f.contype = 'f'
                                        AND f.confrelid = 'public.assets'::regclass AND f.conkey = ARRAY[a.attnum])
                        THEN 'asset_id' END AS reference
              FROM unnest(p_target.series_columns) WITH ORDINALITY AS s (name, position)
              JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p_target.hypertable AND a.attname = s.name) AS k;
$func$;
COMMENT ON FUNCTION _tidemark.key_tokens(_tidemark.quality_targets) IS
'Texts for the key of a series of a hypertable, for the templates of the quality engine.';

-- The texts for the rules of a hypertable.
CREATE OR REPLACE FUNCTION _tidemark.rule_tokens(p_target _tidemark.quality_targets)
    RETURNS jsonb
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH rules AS (
        SELECT r.rule_id, r.rule_type, r.name, r.source_id,
               r.rule_type = 'session_open' AND NOT r.parameters ? 'market' AS needs_market,
               coalesce((r.parameters ->> 'tolerance')::interval, interval '0') AS tolerance,
               replace(
                   CASE WHEN r.source_id IS NULL THEN '(%s) IS FALSE'
                        ELSE format('(d.%I = %s AND (%%s) IS FALSE)', coalesce(p_target.source_column, 'source_id'),
                            r.source_id)
                   END, '%s', _tidemark.rule_condition(r, p_target.hypertable, p_target.time_column)
               ) AS violation
          FROM public.validation_rules AS r
         WHERE r.applies_to = p_target.label
           AND r.is_active
    )
    SELECT jsonb_build_object(
               'broken', coalesce(string_agg(r.violation, ' OR ' ORDER BY r.rule_id), 'false'),
               -- Without what cannot be violated where the profile names no market.
               'broken_without_market', coalesce(string_agg(r.violation, ' OR ' ORDER BY r.rule_id)
                                                 FILTER (WHERE NOT r.needs_market), 'false'),
               'broken_rules', coalesce(string_agg(format('CASE WHEN %s THEN %s END', r.violation, r.rule_id), ', '
                                                   ORDER BY r.rule_id) FILTER (WHERE r.violation IS NOT NULL), 'NULL'),
               -- One block for each rule, so that a rule that fails is not evaluated and the others are.
               'try', CASE WHEN count(*) FILTER (WHERE r.rule_type = 'expression') > 0 THEN 'LOOP BEGIN' ELSE '' END,
               'end_try', CASE WHEN count(*) FILTER (WHERE r.rule_type = 'expression') > 0 THEN
                   format('EXIT; EXCEPTION WHEN %s THEN IF v_is_safe THEN RAISE; END IF;'
                          ' v_is_safe := true; END; END LOOP;', _tidemark.rule_failures()) ELSE '' END,
               'try_rules', coalesce(string_agg(format(
                   'BEGIN SELECT v_broken || t.broken INTO v_broken'
                   ' FROM (SELECT p_market AS market, p_step AS step) AS p'
                   ' CROSS JOIN LATERAL (SELECT CASE WHEN %2$s THEN ARRAY[%1$s] ELSE ARRAY[]::integer[] END AS broken'
                   ' FROM jsonb_populate_record(NULL::@table@, p_row) AS d) AS t;'
                   ' EXCEPTION WHEN %3$s THEN NULL; END;', r.rule_id, r.violation, _tidemark.rule_failures()
               ), ' ' ORDER BY r.rule_id) FILTER (WHERE r.violation IS NOT NULL), ''),
               'rule_failures', _tidemark.rule_failures(),
               'arrival_rules', coalesce(string_agg(r.rule_id::text, ', ')
                   FILTER (WHERE r.rule_type = 'not_future'), ''),
               'future_rules', coalesce(string_agg(format('(%s, %L::interval, %L::integer, %L)', r.rule_id, r.tolerance,
                                                          r.source_id, r.name), ', ' ORDER BY r.rule_id)
                                        FILTER (WHERE r.rule_type = 'not_future'),
                                        '(NULL::integer, NULL::interval, NULL::integer, NULL)'),
               -- No row up to this long after now can violate a rule about the future.
               'tolerance', coalesce(quote_literal(min(r.tolerance) FILTER (WHERE r.rule_type = 'not_future')),
                                     quote_literal('10000 years'))
           )
      FROM rules AS r;
$func$;
COMMENT ON FUNCTION _tidemark.rule_tokens(_tidemark.quality_targets) IS
'Texts for the rules of a hypertable, for the templates of the quality engine.';

-- All the texts for a hypertable.
CREATE OR REPLACE FUNCTION _tidemark.quality_tokens(p_target _tidemark.quality_targets)
    RETURNS jsonb
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_source_key CONSTANT integer := array_position(p_target.series_columns, p_target.source_column);
    v_interval_key CONSTANT integer := array_position(p_target.series_columns, p_target.interval_column);
    v_table text;
    v_value text;
    v_missing text;
    v_missing_fields text;
    v_needs text;
    v_writable text;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) INTO STRICT v_table
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_target.hypertable;
    SELECT format(CASE count(*) WHEN 1 THEN '%s' ELSE 'coalesce(%s)' END,
                  string_agg(format('d.%I::double precision', v.name), ', ' ORDER BY v.position))
      INTO STRICT v_value
      FROM unnest(p_target.value_columns) WITH ORDINALITY AS v (name, position);
    SELECT string_agg(format('(d.%I IS NULL AND p.needs_%s)', a.attname, a.attnum), ' OR ' ORDER BY a.attnum),
           string_agg(format('CASE WHEN d.%1$I IS NULL AND p.needs_%2$s THEN %1$L END', a.attname, a.attnum), ', '
                      ORDER BY a.attnum),
           string_agg(format(', %L = ANY (q.required_fields) AS needs_%s', a.attname, a.attnum), '' ORDER BY a.attnum)
      INTO v_missing, v_missing_fields, v_needs
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = p_target.hypertable
       AND a.attnum > 0
       AND NOT a.attisdropped
       AND NOT a.attnotnull
       AND a.attname NOT IN ('quality_score', 'is_anomaly');
    SELECT CASE WHEN bool_or(a.attgenerated <> '')
                THEN string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') END
      INTO v_writable
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = p_target.hypertable
       AND a.attnum > 0
       AND NOT a.attisdropped;
    RETURN jsonb_build_object(
        'table', v_table,
        'table_literal', quote_literal(v_table),
        -- All columns, also those added later, unless some may not be written to.
        'columns', coalesce(v_writable, 'n.*'),
        'into_columns', '(' || v_writable || ')',
        'chunk_interval', (SELECT quote_literal(d.time_interval)
                             FROM timescaledb_information.dimensions AS d
                            WHERE format('%I.%I', d.hypertable_schema, d.hypertable_name) = v_table
                              AND d.dimension_number = 1),
        'label', quote_literal(p_target.label),
        'stem', p_target.stem,
        'time', quote_ident(p_target.time_column),
        'open', CASE WHEN p_target.open_column IS NULL THEN 'NULL::double precision'
                     ELSE format('d.%I::double precision', p_target.open_column) END,
        'value', v_value,
        'missing', coalesce(v_missing, 'false'),
        'missing_fields', coalesce(v_missing_fields, 'NULL'),
        'needs', coalesce(v_needs, ''),
        -- Changes over night are judged apart where prices come more than once a day and the sessions are known.
        'has_sessions', '(p.transform = ''log_return'' AND p.market IS NOT NULL AND p.step > interval ''0'''
            ' AND p.step < interval ''1 day'')',
        -- The profile of series i: its source's own, else the one for the source's type of data, else the one for the
        -- length of the bar, else the hypertable's.
        'profile', format(
            $sql$(
                SELECT q.*@needs@,
                       CASE %1$s
                           WHEN '1m' THEN interval '1 minute' WHEN '3m' THEN interval '3 minutes'
                           WHEN '5m' THEN interval '5 minutes'
                           WHEN '15m' THEN interval '15 minutes' WHEN '30m' THEN interval '30 minutes'
                           WHEN '1h' THEN interval '1 hour' WHEN '2h' THEN interval '2 hours'
                           WHEN '4h' THEN interval '4 hours' WHEN '6h' THEN interval '6 hours'
                           WHEN '8h' THEN interval '8 hours' WHEN '12h' THEN interval '12 hours'
                           WHEN '1d' THEN interval '1 day' WHEN '1w' THEN interval '7 days'
                           WHEN '1M' THEN interval '1 month' ELSE interval '0'
                       END AS step
                  FROM (SELECT) AS one %2$s
                  JOIN public.quality_profiles AS q ON q.quality_profile_id = coalesce(%3$s%4$s%5$s)
            )$sql$,
            CASE WHEN v_interval_key IS NOT NULL THEN 'i.k' || v_interval_key
                 WHEN v_source_key IS NOT NULL THEN 'o.interval'
                 ELSE 'NULL::public.candle_interval' END,
            CASE WHEN v_source_key IS NOT NULL
                 THEN format('LEFT JOIN public.sources AS o ON o.source_id = i.k%s', v_source_key) END,
            CASE WHEN v_source_key IS NOT NULL THEN 'o.quality_profile_id, '
                 '(SELECT e.quality_profile_id FROM public.quality_profiles AS e'
                 ' WHERE e.data_type = o.data_type), ' END,
            CASE WHEN v_interval_key IS NOT NULL THEN format(
                 '(SELECT e.quality_profile_id FROM public.quality_profiles AS e WHERE e.interval = i.k%s), ',
                     v_interval_key)
            END,
            p_target.quality_profile_id
        ),
        -- Whether a value can be a reference for others. Beyond these bounds nothing is a price, and within them no
        -- ratio over- or underflows.
        'valid', '(@value@ < 1e100 AND (@value@ > 1e-100 OR (i.transform <> ''log_return'' AND @value@ > -1e100'
            ' AND (@value@ = 0 OR @value@ < -1e-100))))',
        -- What a reviewer confirmed to be an error is no reference either, until the value is corrected.
        'usable', 'CASE WHEN @valid@ IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS ('
            'SELECT FROM public.anomalies AS b WHERE b.table_name = @label@ AND b.series = @series@'
            ' AND b.timestamp = d.@time@ AND b.status = ''confirmed_error'' AND b.value = @value@) END'
    ) || _tidemark.key_tokens(p_target) || _tidemark.rule_tokens(p_target) || jsonb_build_object(
        'future_scope', CASE WHEN p_target.source_column IS NULL THEN 'true'
            ELSE format('(r.source_id IS NULL OR r.source_id = d.%I)', p_target.source_column) END,
        -- Filled by format with score, flag, key and time.
        'update_one', (
            SELECT quote_literal(format(
                       'UPDATE %s AS d SET quality_score = %%L, is_anomaly = %%L WHERE %s AND d.%s = %%L::timestamptz',
                       replace(v_table, '%', '%%'),
                       string_agg(format('d.%s = %%L::%s', replace(quote_ident(s.name), '%', '%%'),
                                         format_type(a.atttypid, NULL)), ' AND ' ORDER BY s.position),
                       replace(quote_ident(p_target.time_column), '%', '%%')
                   ))
              FROM unnest(p_target.series_columns) WITH ORDINALITY AS s (name, position)
              JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p_target.hypertable AND a.attname = s.name
        )
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.quality_tokens(_tidemark.quality_targets) IS
'Texts for the columns and rules of a hypertable, for the templates of the quality engine.';
