-- The baseline that the quality engine is compared with: scoring and a z-score as a trigger for each row, the way the
-- manuals do it. It computes the same penalties and looks up the 100 rows before, within a day, so that not every chunk
-- is searched. Its z-score is the plain one of the log-return.

CREATE FUNCTION public.textbook_score()
    RETURNS trigger
    LANGUAGE plpgsql
AS $func$
DECLARE
    v_previous double precision;
    v_mean double precision;
    v_deviation double precision;
    v_count bigint;
    v_z double precision;
    v_lag interval;
    v_step interval;
    v_series jsonb;
    v_score integer := 100;
BEGIN
    v_series := jsonb_build_object('source_id', NEW.source_id);
    SELECT q.allowed_lag, CASE s.interval WHEN '1m' THEN interval '1 minute' WHEN '1h' THEN interval '1 hour' END
      INTO v_lag, v_step
      FROM public.sources AS s
      JOIN public.quality_profiles AS q
        ON q.quality_profile_id = coalesce(s.quality_profile_id, (
            SELECT p.quality_profile_id FROM public.quality_profiles AS p WHERE p.data_type = s.data_type))
     WHERE s.source_id = NEW.source_id;

    IF NEW.open IS NULL OR NEW.high IS NULL OR NEW.low IS NULL OR NEW.close IS NULL THEN
        v_score := v_score - 30;
        INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, detail)
        VALUES ('textbook', v_series, NEW.timestamp, 'completeness', 30, 'missing');
    END IF;
    IF now() - (NEW.timestamp + v_step) > v_lag THEN
        v_score := v_score - 20;
        INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, detail)
        VALUES ('textbook', v_series, NEW.timestamp, 'timeliness', 20, 'late');
    END IF;
    IF NEW.open <= 0 OR NEW.high <= 0 OR NEW.low <= 0 OR NEW.close <= 0 OR NEW.low > NEW.open OR NEW.low > NEW.close
       OR NEW.high < NEW.open OR NEW.high < NEW.close OR NEW.volume < 0 OR NEW.timestamp > now() + interval '1 minute'
       OR date_bin(v_step, NEW.timestamp, '2000-01-03 00:00+00') <> NEW.timestamp THEN
        v_score := v_score - 10;
        INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, rule_id, detail)
        VALUES ('textbook', v_series, NEW.timestamp, 'validation', 10, 1, 'rule');
    END IF;

    SELECT r.close INTO v_previous
      FROM public.timeseries_data AS r
     WHERE r.source_id = NEW.source_id
       AND r.timestamp < NEW.timestamp
       AND r.timestamp >= NEW.timestamp - interval '1 day'
       AND r.close > 0
     ORDER BY r.timestamp DESC
     LIMIT 1;
    IF abs(NEW.close - v_previous) > 0.5 * v_previous THEN
        v_score := v_score - 25;
        INSERT INTO public.quality_issues (table_name, series, ts, penalty, points, detail)
        VALUES ('textbook', v_series, NEW.timestamp, 'consistency', 25, 'moved');
    END IF;

    SELECT avg(c.change), stddev_samp(c.change), count(c.change)
      INTO v_mean, v_deviation, v_count
      FROM (SELECT ln(r.close / lag(r.close) OVER (ORDER BY r.timestamp)) AS change
              FROM (SELECT t.timestamp, t.close
                      FROM public.timeseries_data AS t
                     WHERE t.source_id = NEW.source_id
                       AND t.timestamp < NEW.timestamp
                       AND t.timestamp >= NEW.timestamp - interval '1 day'
                       AND t.close > 0
                     ORDER BY t.timestamp DESC
                     LIMIT 101) AS r) AS c;
    NEW.is_anomaly := false;
    IF v_count >= 30 AND v_deviation > 0 AND NEW.close > 0 THEN
        v_z := (ln(NEW.close / v_previous) - v_mean) / v_deviation;
        IF abs(v_z) > 4 THEN
            NEW.is_anomaly := true;
            INSERT INTO public.anomalies (table_name, series, source_id, timestamp, severity, z_score, observed,
                expected,
                                          scale, samples, detector_version)
            VALUES ('textbook', v_series, NEW.source_id, NEW.timestamp,
                    CASE WHEN abs(v_z) > 6 THEN 'black_swan' ELSE 'anomaly' END::public.anomaly_severity, v_z,
                    ln(NEW.close / v_previous), v_mean, v_deviation, v_count, 'textbook');
        END IF;
    END IF;
    NEW.quality_score := greatest(v_score, 0);
    RETURN NEW;
END
$func$;

CREATE TRIGGER trg_textbook_score BEFORE INSERT ON public.timeseries_data
FOR EACH ROW EXECUTE FUNCTION public.textbook_score();
