-- Aggregates leave out rows that a reviewer confirmed as errors, where the profile of their series says so. An
-- aggregate cannot look anything up, so what the review found is written to the row itself: is_excluded. When a value
-- is corrected, the quality engine judges the row anew, the confirmed anomaly goes or is open again, and
-- the row counts.

-- Writes to the row that an anomaly is about whether aggregates leave it out: while p_is_error, and the profile of its
-- series says so, and the row still has the value that was reviewed. Does nothing where the row is gone, or where its
-- hypertable has no column is_excluded.
CREATE OR REPLACE FUNCTION _tidemark.exclude_row(
    p_anomaly public.anomalies,
    p_is_error boolean
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_target record;
BEGIN
    SELECT t.hypertable, t.time_column,
           -- As the quality engine finds it: the source's own, its type's, the bar's, the hypertable's.
           (SELECT q.exclude_confirmed_errors
              FROM public.quality_profiles AS q
             WHERE q.quality_profile_id = coalesce(
                       s.quality_profile_id,
                       (SELECT d.quality_profile_id FROM public.quality_profiles AS d WHERE d.data_type = s.data_type),
                       (SELECT d.quality_profile_id FROM public.quality_profiles AS d
                         WHERE d.interval = p_anomaly.interval),
                       t.quality_profile_id
                   )) AS leaves_out,
           (SELECT string_agg(
                       format('r.%I = %s', c.name, _tidemark.series_field(t.hypertable, c.name, '$1')), ' AND '
                   )
              FROM unnest(t.series_columns) AS c (name)) AS is_series,
           -- What stood out of the row: a field of a bar, or what is judged.
           coalesce(
               quote_ident(p_anomaly.field) || '::double precision',
               (SELECT string_agg(format('r.%I', c.name), ', ' ORDER BY c.position)
                  FROM unnest(t.value_columns) WITH ORDINALITY AS c (name, position))
           ) AS value_columns
      INTO v_target
      FROM _tidemark.quality_targets AS t
      LEFT JOIN public.sources AS s ON s.source_id = p_anomaly.source_id
     WHERE t.label = p_anomaly.table_name
       AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                    WHERE a.attrelid = t.hypertable AND a.attname = 'is_excluded' AND NOT a.attisdropped);
    IF FOUND THEN
        -- An UPDATE that had to wait would change nothing on TimescaleDB 2.28.1 and newer.
        EXECUTE format(
            'SELECT FROM %1$s AS r WHERE %2$s AND r.%3$I = $2 FOR NO KEY UPDATE', v_target.hypertable,
            v_target.is_series, v_target.time_column
        ) USING p_anomaly.series, p_anomaly.timestamp;
        EXECUTE format(
            'UPDATE %1$s AS r SET is_excluded = e.is_excluded'
            ' FROM (SELECT $2 AND coalesce(%2$s) IS NOT DISTINCT FROM $3 AS is_excluded'
            '         FROM %1$s AS r WHERE %3$s AND r.%4$I = $4) AS e'
            ' WHERE %3$s AND r.%4$I = $4 AND r.is_excluded <> e.is_excluded',
            v_target.hypertable, v_target.value_columns, v_target.is_series,
            v_target.time_column
        ) USING p_anomaly.series, p_is_error AND v_target.leaves_out, p_anomaly.value, p_anomaly.timestamp;
    END IF;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.exclude_row(public.anomalies, boolean) FROM public;
COMMENT ON FUNCTION _tidemark.exclude_row(public.anomalies, boolean) IS
'Writes to the row that an anomaly is about whether aggregates leave it out.';

-- Row trigger of anomalies: a review that confirms an error, or takes that back, reaches the row.
CREATE OR REPLACE FUNCTION _tidemark.follow_review()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM _tidemark.exclude_row(OLD, false);
    ELSE
        PERFORM _tidemark.exclude_row(NEW, NEW.status = 'confirmed_error');
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.follow_review() FROM public;
COMMENT ON FUNCTION _tidemark.follow_review() IS
'Row trigger of anomalies: a review that confirms an error, or takes that back, reaches the row.';

-- Statement trigger of quality_profiles and sources: another profile, another answer.
CREATE OR REPLACE FUNCTION _tidemark.follow_profiles()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.exclude_row(a, true) FROM public.anomalies AS a WHERE a.status = 'confirmed_error';
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.follow_profiles() FROM public;
COMMENT ON FUNCTION _tidemark.follow_profiles() IS
'Statement trigger of quality_profiles and sources: decides anew which confirmed errors aggregates leave out.';

CREATE OR REPLACE TRIGGER trg_exclude_inserted AFTER INSERT ON public.anomalies
FOR EACH ROW WHEN (new.status = 'confirmed_error') EXECUTE FUNCTION _tidemark.follow_review();
CREATE OR REPLACE TRIGGER trg_exclude_reviewed AFTER UPDATE OF status ON public.anomalies
FOR EACH ROW WHEN (
    old.status <> new.status AND (old.status = 'confirmed_error' OR new.status = 'confirmed_error')
) EXECUTE FUNCTION _tidemark.follow_review();
CREATE OR REPLACE TRIGGER trg_exclude_deleted AFTER DELETE ON public.anomalies
FOR EACH ROW WHEN (old.status = 'confirmed_error') EXECUTE FUNCTION _tidemark.follow_review();
CREATE OR REPLACE TRIGGER trg_exclude_by_profile AFTER UPDATE OF exclude_confirmed_errors ON public.quality_profiles
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.follow_profiles();
CREATE OR REPLACE TRIGGER trg_exclude_by_source AFTER UPDATE OF quality_profile_id, data_type ON public.sources
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.follow_profiles();
COMMENT ON TRIGGER trg_exclude_inserted ON public.anomalies IS 'A confirmed error is left out of aggregates.';
COMMENT ON TRIGGER trg_exclude_reviewed ON public.anomalies IS 'A confirmed error is left out of aggregates.';
COMMENT ON TRIGGER trg_exclude_deleted ON public.anomalies IS 'What is no anomaly any more counts again.';
COMMENT ON TRIGGER trg_exclude_by_profile ON public.quality_profiles IS
'Whether confirmed errors are left out of aggregates is decided anew.';
COMMENT ON TRIGGER trg_exclude_by_source ON public.sources IS
'Whether confirmed errors are left out of aggregates is decided anew.';
