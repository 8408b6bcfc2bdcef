-- What a series is judged by is asked here: its profile, the length of its bars, its market, what is late. And the
-- texts that the templates of a hypertable (545, 560) are filled with: its columns, its keys, its rules.

CREATE OR REPLACE FUNCTION _tidemark.bar_length(p_interval public.candle_interval)
    RETURNS interval
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT CASE p_interval
        WHEN '1m' THEN interval '1 minute'
        WHEN '3m' THEN interval '3 minutes'
        WHEN '5m' THEN interval '5 minutes'
        WHEN '15m' THEN interval '15 minutes'
        WHEN '30m' THEN interval '30 minutes'
        WHEN '1h' THEN interval '1 hour'
        WHEN '2h' THEN interval '2 hours'
        WHEN '4h' THEN interval '4 hours'
        WHEN '6h' THEN interval '6 hours'
        WHEN '8h' THEN interval '8 hours'
        WHEN '12h' THEN interval '12 hours'
        WHEN '1d' THEN interval '1 day'
        WHEN '1w' THEN interval '7 days'
        WHEN '1M' THEN interval '1 month'
    END;
$func$;
COMMENT ON FUNCTION _tidemark.bar_length(public.candle_interval) IS 'Length of a bar; NULL for NULL. Inlined.';

-- How long after the end of its bar a row may arrive, of what a profile says and the length of the bars: where the
-- profile says nothing, as long as a bar took, at least five minutes. NULL: instants are not late unless one says when.
CREATE OR REPLACE FUNCTION _tidemark.allowed_lag(
    p_allowed_lag interval,
    p_step interval
)
    RETURNS interval
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT coalesce(p_allowed_lag, CASE WHEN p_step > interval '0' THEN greatest(p_step, interval '5 minutes') END);
$func$;
COMMENT ON FUNCTION _tidemark.allowed_lag(interval, interval) IS
'How long after the end of its bar a row may arrive; NULL: lateness is not judged. Inlined.';

-- When a row that starts at p_ts is history: once its bar has ended and may no longer be late. Until then it forms.
-- NULL where it does not form: for instants, and for what is dated into the future.
CREATE OR REPLACE FUNCTION _tidemark.closes_at(
    p_ts timestamptz,
    p_step interval,
    p_allowed_lag interval,
    p_now timestamptz
)
    RETURNS timestamptz
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    -- All of it in UTC, which no setting of the session changes: else it could not be inlined.
    SELECT CASE WHEN p_step > interval '0' AND p_ts AT TIME ZONE 'UTC' <= p_now AT TIME ZONE 'UTC' + interval '1 minute'
                THEN (p_ts AT TIME ZONE 'UTC' + p_step + _tidemark.allowed_lag(p_allowed_lag, p_step))
                     AT TIME ZONE 'UTC' END;
$func$;
COMMENT ON FUNCTION _tidemark.closes_at(timestamptz, interval, interval, timestamptz) IS
'When the bar that starts at an instant has closed; NULL where it does not form. Inlined.';

-- The profile of a series, or of a row: its source's own, else the one for the source's type of data, else the one for
-- the length of the bar, else the hypertable's. bar is the length of its bars, NULL where they are instants; transform
-- is the profile's, but no logarithm where the prices of its asset, or of its source's, may be negative. named_market
-- is the profile's, else "market" in the config of its source; asset_id its source's, else that in its key.
CREATE OR REPLACE FUNCTION _tidemark.series_profile(
    p_target _tidemark.quality_targets,
    p_series jsonb
)
    RETURNS TABLE (
        quality_profile_id integer, bar public.candle_interval, allowed_lag interval, transform public.change_transform,
        named_market text, asset_id uuid
    )
    LANGUAGE sql
    STABLE
AS $func$
    SELECT q.quality_profile_id, CASE WHEN p_target.interval_column IS NULL THEN o.interval ELSE i.bar END,
           q.allowed_lag,
           CASE WHEN q.transform = 'log_return' AND EXISTS (
                    SELECT FROM public.assets AS a
                     WHERE a.has_negative_prices
                       AND (a.asset_id = o.asset_id
                            OR a.asset_id::text IN (SELECT e.value FROM jsonb_each_text(p_series) AS e))
                ) THEN 'difference' ELSE q.transform END,
           coalesce(q.market, _tidemark.market_code(o.config ->> 'market')),
           coalesce(o.asset_id, (
               SELECT a.asset_id
                 FROM jsonb_each_text(p_series) AS e
                 JOIN public.assets AS a ON a.asset_id = CASE
                          WHEN e.value ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN e.value::uuid END
                LIMIT 1
           ))
      FROM (SELECT (p_series ->> p_target.source_column)::integer AS source_id,
                   (p_series ->> p_target.interval_column)::public.candle_interval AS bar) AS i
      LEFT JOIN public.sources AS o ON o.source_id = i.source_id
      -- There always is one; who asks for the bar alone is spared looking for it.
      LEFT JOIN public.quality_profiles AS q ON q.quality_profile_id = coalesce(
               o.quality_profile_id,
               (SELECT d.quality_profile_id FROM public.quality_profiles AS d WHERE d.data_type = o.data_type),
               (SELECT b.quality_profile_id FROM public.quality_profiles AS b WHERE b.interval = i.bar),
               p_target.quality_profile_id
           );
$func$;
COMMENT ON FUNCTION _tidemark.series_profile(_tidemark.quality_targets, jsonb) IS
'Profile, length of a bar, transform, named market and asset of a series of a hypertable. Inlined.';

-- The same of many series, by their numbers; step is the length of the bars, zero where they are instants. market is
-- the calendar that a series is judged by and in which its bars are expected, so that no row is both missing and out of
-- session: the named one, else the exchange of its asset, where market_calendar has it; NULL: clock time.
CREATE OR REPLACE FUNCTION _tidemark.series_profiles(
    p_target _tidemark.quality_targets,
    p_series jsonb[]
)
    RETURNS TABLE (
        n integer, quality_profile_id integer, step interval, transform public.change_transform, market text,
        asset_id uuid
    )
    LANGUAGE sql
    STABLE
AS $func$
    SELECT s.n::integer, p.quality_profile_id, coalesce(_tidemark.bar_length(p.bar), interval '0'), p.transform,
           coalesce(p.named_market, (
               SELECT c.market
                 FROM (SELECT _tidemark.market_code(a.exchange) AS code
                         FROM public.assets AS a WHERE a.asset_id = p.asset_id OFFSET 0) AS x
                CROSS JOIN LATERAL (SELECT m.market FROM public.market_calendar AS m WHERE m.market = x.code LIMIT 1) AS c
           )), p.asset_id
      FROM unnest(p_series) WITH ORDINALITY AS s (series, n)
     CROSS JOIN LATERAL _tidemark.series_profile(p_target, s.series) AS p;
$func$;
COMMENT ON FUNCTION _tidemark.series_profiles(_tidemark.quality_targets, jsonb []) IS
'Profile, length of a bar, transform, market and asset of each series of a hypertable. Inlined.';

-- A profile as it judges series of that transform and market.
CREATE OR REPLACE FUNCTION _tidemark.profile_for(
    p_quality_profile_id integer,
    p_transform public.change_transform,
    p_market text
)
    RETURNS public.quality_profiles
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT p.*
      FROM public.quality_profiles AS q
     CROSS JOIN LATERAL jsonb_populate_record(
               q, jsonb_build_object('transform', p_transform, 'market', p_market)
           ) AS p
     WHERE q.quality_profile_id = p_quality_profile_id;
$func$;
COMMENT ON FUNCTION _tidemark.profile_for(integer, public.change_transform, text) IS
'A profile as it judges series of a transform and a market.';

-- Whether the last row of a series before p_before came from a live feed: in time, or late and judged to be. Where the
-- table does not say when rows arrived (ingested_at), nothing is known of it: false.
CREATE OR REPLACE FUNCTION _tidemark.was_live(
    p_target _tidemark.quality_targets,
    p_series jsonb,
    p_before timestamptz,
    p_profile public.quality_profiles,
    p_step interval
)
    RETURNS boolean
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_ts timestamptz;
    v_arrived_at timestamptz;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = p_target.hypertable AND a.attname = 'ingested_at' AND a.atttypid = 'timestamptz'::regtype
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'SELECT d.%1$I, d.ingested_at FROM %2$s AS d, (SELECT $1 AS series) AS i WHERE %3$s AND d.%1$I < $2'
        ' ORDER BY d.%1$I DESC LIMIT 1',
        p_target.time_column, p_target.hypertable::text, _tidemark.is_of_series(p_target, 'i.series')
    ) INTO v_ts, v_arrived_at USING p_series, p_before;
    RETURN v_ts >= _tidemark.late_before(
               p_profile.market, _tidemark.allowed_lag(p_profile.allowed_lag, p_step), p_step, v_arrived_at
           )
        OR EXISTS (SELECT FROM public.quality_issues AS q
                    WHERE q.table_name = p_target.label AND q.series = p_series AND q.ts = v_ts
                      AND q.penalty = 'timeliness');
END
$func$;
COMMENT ON FUNCTION _tidemark.was_live(
    _tidemark.quality_targets, jsonb, timestamptz, public.quality_profiles, interval
) IS 'Whether the last row of a series before an instant came from a live feed.';

-- Rows of each island, given as series and first instant, that start before this instant are late when they arrive
-- at p_now; NULL where that is not judged. Where a profile says how late is late, that holds for whatever arrives.
-- Where it does not, nobody has said either that what arrives is news: then only a row after one that came from a live
-- feed is late, so that a series may begin with its history.
CREATE OR REPLACE FUNCTION _tidemark.late_bounds(
    p_target _tidemark.quality_targets,
    p_series jsonb[],
    p_from timestamptz[],
    p_now timestamptz
)
    RETURNS timestamptz[]
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_bounds timestamptz[];
BEGIN
    WITH profiles AS MATERIALIZED (
        SELECT p.n, p.quality_profile_id, p.step, p.transform, p.market
          FROM _tidemark.series_profiles(p_target, p_series) AS p
    ), bounds AS MATERIALIZED (
        SELECT q AS profile, k.step,
               _tidemark.late_before(q.market, _tidemark.allowed_lag(q.allowed_lag, k.step), k.step, p_now) AS bound
          FROM (SELECT DISTINCT p.quality_profile_id, p.step, p.transform, p.market FROM profiles AS p) AS k
         CROSS JOIN LATERAL _tidemark.profile_for(k.quality_profile_id, k.transform, k.market) AS q
         WHERE _tidemark.allowed_lag(q.allowed_lag, k.step) IS NOT NULL
    )
    SELECT array_agg(CASE WHEN (b.profile).allowed_lag IS NOT NULL THEN b.bound
                          WHEN p_from[p.n] >= b.bound THEN b.bound
                          WHEN _tidemark.was_live(p_target, p_series[p.n], p_from[p.n], b.profile, b.step)
                          THEN b.bound END ORDER BY p.n)
      INTO v_bounds
      FROM profiles AS p
      LEFT JOIN bounds AS b
        ON (b.profile).quality_profile_id = p.quality_profile_id AND b.step = p.step
       AND (b.profile).transform = p.transform AND (b.profile).market IS NOT DISTINCT FROM p.market;
    RETURN v_bounds;
END
$func$;
COMMENT ON FUNCTION _tidemark.late_bounds(_tidemark.quality_targets, jsonb [], timestamptz [], timestamptz) IS
'Start of a bar before which a row of each island is late; NULL where lateness is not judged.';

-- A condition that a row d of the hypertable belongs to the series in an expression over jsonb, e.g. i.series.
CREATE OR REPLACE FUNCTION _tidemark.is_of_series(
    p_target _tidemark.quality_targets,
    p_expression text
)
    RETURNS text
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT string_agg(format('d.%I = (%s ->> %L)::%s', k.name, p_expression, k.name, format_type(a.atttypid, NULL)),
                      ' AND ' ORDER BY k.position)
      FROM unnest(p_target.series_columns) WITH ORDINALITY AS k (name, position)
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p_target.hypertable AND a.attname = k.name;
$func$;
COMMENT ON FUNCTION _tidemark.is_of_series(_tidemark.quality_targets, text) IS
'Condition that a row d belongs to the series in a jsonb expression.';

-- The texts for the rules of a hypertable, over d (the row) and p (its profile, market, step and transform).
CREATE OR REPLACE FUNCTION _tidemark.rule_tokens(p_target _tidemark.quality_targets)
    RETURNS jsonb
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH rules AS (
        SELECT r.rule_id, r.rule_type, r.name, r.source_id,
               coalesce((r.parameters ->> 'tolerance')::interval, interval '0') AS tolerance,
               replace(
                   CASE WHEN r.source_id IS NULL AND NOT r.parameters ? 'transform' THEN '(%s) IS FALSE'
                        ELSE format('(%s(%%s) IS FALSE)', concat(
                            CASE WHEN r.source_id IS NOT NULL
                                 THEN format('d.%I = %s AND ', coalesce(p_target.source_column, 'source_id'),
                                             r.source_id) END,
                            CASE WHEN r.parameters ? 'transform'
                                 THEN format('p.transform = %L AND ', r.parameters ->> 'transform') END
                        )) END, '%s', _tidemark.rule_condition(r, p_target.hypertable, p_target.time_column)
               ) AS violation
          FROM public.validation_rules AS r
         WHERE r.applies_to = p_target.label
           AND r.is_active
    )
    SELECT jsonb_build_object(
               'broken', coalesce(string_agg(r.violation, E'\n    OR ' ORDER BY r.rule_id), 'false'),
               'broken_rules', coalesce(string_agg(format('CASE WHEN %s THEN %s END', r.violation, r.rule_id), E',\n    '
                                                   ORDER BY r.rule_id) FILTER (WHERE r.violation IS NOT NULL), 'NULL'),
               -- Where a rule fails to evaluate, nothing is certain about any row.
               'try', CASE WHEN count(*) FILTER (WHERE r.rule_type = 'expression') > 0 THEN 'BEGIN' END,
               'catch', CASE WHEN count(*) FILTER (WHERE r.rule_type = 'expression') > 0 THEN $sql$
        EXCEPTION WHEN @rule_failures@ THEN
            v_is_safe := true;
            v_row_count := 0;
        END;$sql$ END,
               -- One block for each rule, so that a rule that fails is not evaluated and the others are.
               'try_rules', coalesce(string_agg(format($sql$
    BEGIN
        IF (SELECT %2$s FROM jsonb_populate_record(NULL::@table@, p_row) AS d
             CROSS JOIN (SELECT p_market AS market, p_step AS step, p_transform AS transform) AS p)
        THEN
            v_broken := v_broken || %1$s;
        END IF;
    EXCEPTION WHEN @rule_failures@ THEN
        NULL;
    END;$sql$, r.rule_id, r.violation
               ), '' ORDER BY r.rule_id) FILTER (WHERE r.violation IS NOT NULL), ''),
               'rule_failures', _tidemark.rule_failures(),
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

-- All the texts for a hypertable. In the templates d is a row of it, i.series a series, p its profile with step.
CREATE OR REPLACE FUNCTION _tidemark.quality_tokens(p_target _tidemark.quality_targets)
    RETURNS jsonb
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_table text;
    v_columns record;
    v_keys record;
    v_value text;
    -- A bar is what has these names; without a volume it has none.
    v_is_bar CONSTANT boolean := 4 = (
        SELECT count(*) FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = p_target.hypertable AND NOT a.attisdropped
           AND a.attname IN ('open', 'high', 'low', 'close') AND a.attname <> ALL (p_target.series_columns)
    ) AND p_target.open_column = 'open' AND p_target.value_columns[1] = 'close';
    v_volume CONSTANT text := CASE WHEN v_is_bar AND EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = p_target.hypertable AND NOT a.attisdropped AND a.attname = 'volume'
    ) THEN 'd.volume::double precision' ELSE 'NULL::double precision' END;
BEGIN
    SELECT format('%I.%I', n.nspname, c.relname) INTO STRICT v_table
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = p_target.hypertable;
    SELECT format(CASE count(*) WHEN 1 THEN '%s' ELSE 'coalesce(%s)' END,
                  string_agg(format('d.%I::double precision', v.name), ', ' ORDER BY v.position))
      INTO STRICT v_value
      FROM unnest(p_target.value_columns) WITH ORDINALITY AS v (name, position);
    -- NULL where it must not be: the cheap half of the condition comes first.
    SELECT string_agg(format('(d.%1$I IS NULL AND %1$L = ANY (p.required_fields))', a.attname), E'\n    OR '
                      ORDER BY a.attnum) AS missing,
           string_agg(format('CASE WHEN d.%1$I IS NULL AND %1$L = ANY (p.required_fields) THEN %1$L END', a.attname),
                      E',\n    ' ORDER BY a.attnum) AS missing_fields,
           (SELECT CASE WHEN bool_or(g.attgenerated <> '')
                        THEN string_agg(quote_ident(g.attname), ', ' ORDER BY g.attnum)
                             FILTER (WHERE g.attgenerated = '') END
              FROM pg_catalog.pg_attribute AS g
             WHERE g.attrelid = p_target.hypertable AND g.attnum > 0 AND NOT g.attisdropped) AS writable
      INTO v_columns
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = p_target.hypertable
       AND a.attnum > 0
       AND NOT a.attisdropped
       AND NOT a.attnotnull
       AND a.attname NOT IN ('quality_score', 'is_anomaly');
    SELECT string_agg(format('d.%I AS k%s', k.name, k.position), ', ' ORDER BY k.position) AS of_row,
           string_agg(format('d.%I', k.name), ', ' ORDER BY k.position) AS of_d,
           string_agg(format('k%s', k.position), ', ' ORDER BY k.position) AS names,
           string_agg(format('%L, k%s', k.name, k.position), ', ' ORDER BY k.position) AS object,
           string_agg(format('%L, d.%I', k.name, k.name), ', ' ORDER BY k.position) AS object_of_row,
           string_agg(format('%L, o.%I', k.name, k.name), ', ' ORDER BY k.position) AS object_of_old,
           string_agg(format('%L, OLD.%I', k.name, k.name), ', ' ORDER BY k.position) AS object_of_deleted
      INTO v_keys
      FROM unnest(p_target.series_columns) WITH ORDINALITY AS k (name, position);
    RETURN jsonb_build_object(
        'table', v_table,
        'table_literal', quote_literal(v_table),
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
        'missing', coalesce(v_columns.missing, 'false'),
        'missing_fields', coalesce(v_columns.missing_fields, 'NULL'),
        'keys_of_row', v_keys.of_row,
        'keys', v_keys.names,
        'series_of_keys', format('jsonb_build_object(%s)', v_keys.object),
        'series', format('jsonb_build_object(%s)', v_keys.object_of_row),
        'series_of_old', format('jsonb_build_object(%s)', v_keys.object_of_old),
        'series_of_deleted', format('jsonb_build_object(%s)', v_keys.object_of_deleted),
        'is_remembered', (_tidemark.replica_constraint(p_target.hypertable) IS NOT NULL)::text,
        'keys_of_d', v_keys.of_d,
        -- All columns, also those added later, unless some may not be written to.
        'columns', coalesce(v_columns.writable, 'n.*'),
        'into_columns', '(' || v_columns.writable || ')',
        'row_is_of_i', _tidemark.is_of_series(p_target, 'i.series'),
        'future_scope', CASE WHEN p_target.source_column IS NULL THEN 'true'
            ELSE format('(r.source_id IS NULL OR r.source_id = d.%I)', p_target.source_column) END,
        'high', CASE WHEN v_is_bar THEN 'd.high::double precision' ELSE 'NULL::double precision' END,
        'low', CASE WHEN v_is_bar THEN 'd.low::double precision' ELSE 'NULL::double precision' END,
        'volume', v_volume,
        'wicks', CASE WHEN v_is_bar THEN 'array_agg(r.wick)' ELSE 'NULL' END,
        'bodies', CASE WHEN v_is_bar THEN 'array_agg(r.body)' ELSE 'NULL' END,
        'volumes', CASE WHEN v_is_bar THEN 'array_agg(r.volume)' ELSE 'NULL' END,
        -- How far high and low lie outside open and close, and open from close, as logarithms of what are prices.
        'has_bar', CASE WHEN v_is_bar THEN '(d.open < 1e100 AND d.open > 1e-100 AND d.high < 1e100 AND d.high > 1e-100'
            ' AND d.low < 1e100 AND d.low > 1e-100 AND d.close < 1e100 AND d.close > 1e-100)' ELSE 'false' END,
        'upper', CASE WHEN v_is_bar
            THEN 'CASE WHEN @has_bar@ THEN ln(d.high::double precision / greatest(d.open, d.close)) END'
            ELSE 'NULL::double precision' END,
        'lower', CASE WHEN v_is_bar
            THEN 'CASE WHEN @has_bar@ THEN ln(least(d.open, d.close)::double precision / d.low) END'
            ELSE 'NULL::double precision' END,
        'wick', CASE WHEN v_is_bar THEN 'CASE WHEN @has_bar@ THEN greatest('
            'abs(ln(d.high::double precision / greatest(d.open, d.close))), '
            'abs(ln(least(d.open, d.close)::double precision / d.low))) ELSE 0 END' ELSE '0::double precision' END,
        'body', CASE WHEN v_is_bar
            THEN 'CASE WHEN @has_bar@ THEN ln(d.open::double precision / d.close) ELSE 0 END'
            ELSE '0::double precision' END,
        'known_volume', format('CASE WHEN %1$s >= 0 AND %1$s < 1e300 THEN %1$s ELSE -1 END', v_volume),
        -- Whether a value can be a reference for others. Beyond these bounds nothing is a price, and within them no
        -- ratio over- or underflows. can_be_split() has the same.
        'valid_price', '(@value@ < 1e100 AND @value@ > 1e-100)',
        'valid', '(@value@ < 1e100 AND (@value@ > 1e-100 OR (NOT v_is_log AND @value@ > -1e100'
            ' AND (@value@ = 0 OR @value@ < -1e-100))))',
        -- What a reviewer confirmed to be an error is no reference either, until the value is corrected.
        'usable', 'CASE WHEN @valid@ IS NOT TRUE THEN false WHEN NOT d.is_anomaly THEN true ELSE NOT EXISTS ('
            'SELECT FROM public.anomalies AS b WHERE b.table_name = @label@ AND b.series = @series@'
            ' AND b.timestamp = d.@time@ AND b.status = ''confirmed_error'' AND b.field IS NULL'
            ' AND b.value = @value@) END'
    ) || _tidemark.rule_tokens(p_target);
END
$func$;
COMMENT ON FUNCTION _tidemark.quality_tokens(_tidemark.quality_targets) IS
'Texts for the columns and rules of a hypertable, for the templates of the quality engine.';
