-- Rows, scores and flags of each series on each day, kept up to date, and what is read from them: how far each series
-- reaches and how good it is. What is asked of a day costs the same whatever the number of rows in it.

DO $do$
DECLARE
    v_target record;
BEGIN
    FOR v_target IN
        SELECT t.name, t.series
          FROM (VALUES ('timeseries_data', ARRAY['source_id']),
                       ('candles', ARRAY['asset_id', 'interval']),
                       ('quotes', ARRAY['asset_id'])) AS t (name, series)
    LOOP
        PERFORM _tidemark.ship_rollup(
            v_target.name || '_days', format('public.%I', v_target.name)::regclass, interval '1 day', v_target.series,
            ARRAY[
                'count(*) AS row_count',
                'count(quality_score) AS scored',
                'sum(quality_score) AS score_sum',
                'round(avg(quality_score), 2) AS mean_score',
                'count(*) FILTER (WHERE quality_score < 100) AS penalised',
                'count(*) FILTER (WHERE is_anomaly) AS anomalies',
                'min({time}) AS first_at',
                'max({time}) AS last_at'
            ],
            p_bucket_column => 'day'
        );
        EXECUTE format(
            'COMMENT ON VIEW public.%I IS %L', v_target.name || '_days',
            format('Rows, scores and flags of each series of %s on each day (UTC), kept after its rows were dropped.',
                   v_target.name)
        );
    END LOOP;
END
$do$;

-- The day (UTC) that the oldest chunk of a hypertable begins with; infinity where it has none. Figures of days before
-- outlive their rows. From TimescaleDB's catalogue, because timescaledb_information.chunks takes time with the square
-- of the number of chunks.
CREATE OR REPLACE FUNCTION _tidemark.first_stored_day(p_hypertable regclass)
    RETURNS timestamptz
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(
               public.time_bucket(interval '1 day', timestamptz 'epoch' + min(s.range_start) * interval '1 microsecond'),
               'infinity'
           )
      FROM pg_catalog.pg_class AS r
      JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
      JOIN _timescaledb_catalog.hypertable AS h ON h.schema_name = n.nspname AND h.table_name = r.relname
      JOIN _timescaledb_catalog.dimension AS d ON d.hypertable_id = h.id AND d.interval_length IS NOT NULL
      JOIN _timescaledb_catalog.dimension_slice AS s ON s.dimension_id = d.id
     WHERE r.oid = p_hypertable;
$func$;
COMMENT ON FUNCTION _tidemark.first_stored_day(regclass) IS
'Day that the oldest chunk of a hypertable begins with; infinity where it has none.';

-- A day without lost points has no penalties to look for.
CREATE OR REPLACE VIEW public.quality_report AS
SELECT 'timeseries_data'::text AS table_name, jsonb_build_object('source_id', g.source_id) AS series, g.source_id,
       NULL::uuid AS asset_id, NULL::public.candle_interval AS interval, g.day, g.row_count, g.scored, g.mean_score,
       coalesce(q.counts[1], 0) AS completeness, coalesce(q.counts[2], 0) AS timeliness,
       coalesce(q.counts[3], 0) AS consistency, coalesce(q.counts[4], 0) AS validation,
       g.anomalies, g.anomalies::double precision / nullif(g.scored, 0) AS exceedance_rate
  FROM public.timeseries_data_days AS g
 CROSS JOIN LATERAL (
       SELECT CASE WHEN g.penalised > 0 THEN (
           SELECT ARRAY[count(*) FILTER (WHERE i.penalty = 'completeness'),
                        count(*) FILTER (WHERE i.penalty = 'timeliness'),
                        count(*) FILTER (WHERE i.penalty = 'consistency'),
                        count(*) FILTER (WHERE i.penalty = 'validation')]
             FROM public.quality_issues AS i
            WHERE i.table_name = 'timeseries_data'
              AND i.series = jsonb_build_object('source_id', g.source_id)
              AND i.ts >= g.day
              AND i.ts < g.day + interval '24 hours'
       ) END AS counts
         FROM (VALUES (true)) AS one (is_there)
        ORDER BY one.is_there
        LIMIT 1 -- else the look-up is made for each of the four
       ) AS q
 WHERE g.day >= (SELECT _tidemark.first_stored_day('public.timeseries_data'))
 UNION ALL
SELECT 'candles', jsonb_build_object('asset_id', g.asset_id, 'interval', g.interval), NULL, g.asset_id, g.interval,
       g.day, g.row_count, g.scored, g.mean_score,
       coalesce(q.counts[1], 0), coalesce(q.counts[2], 0),
       coalesce(q.counts[3], 0), coalesce(q.counts[4], 0),
       g.anomalies, g.anomalies::double precision / nullif(g.scored, 0)
  FROM public.candles_days AS g
 CROSS JOIN LATERAL (
       SELECT CASE WHEN g.penalised > 0 THEN (
           SELECT ARRAY[count(*) FILTER (WHERE i.penalty = 'completeness'),
                        count(*) FILTER (WHERE i.penalty = 'timeliness'),
                        count(*) FILTER (WHERE i.penalty = 'consistency'),
                        count(*) FILTER (WHERE i.penalty = 'validation')]
             FROM public.quality_issues AS i
            WHERE i.table_name = 'candles'
              AND i.series = jsonb_build_object('asset_id', g.asset_id, 'interval', g.interval)
              AND i.ts >= g.day
              AND i.ts < g.day + interval '24 hours'
       ) END AS counts
         FROM (VALUES (true)) AS one (is_there)
        ORDER BY one.is_there
        LIMIT 1 -- else the look-up is made for each of the four
       ) AS q
 WHERE g.day >= (SELECT _tidemark.first_stored_day('public.candles'))
 UNION ALL
SELECT 'quotes', jsonb_build_object('asset_id', g.asset_id), NULL, g.asset_id, NULL,
       g.day, g.row_count, g.scored, g.mean_score,
       coalesce(q.counts[1], 0), coalesce(q.counts[2], 0),
       coalesce(q.counts[3], 0), coalesce(q.counts[4], 0),
       g.anomalies, g.anomalies::double precision / nullif(g.scored, 0)
  FROM public.quotes_days AS g
 CROSS JOIN LATERAL (
       SELECT CASE WHEN g.penalised > 0 THEN (
           SELECT ARRAY[count(*) FILTER (WHERE i.penalty = 'completeness'),
                        count(*) FILTER (WHERE i.penalty = 'timeliness'),
                        count(*) FILTER (WHERE i.penalty = 'consistency'),
                        count(*) FILTER (WHERE i.penalty = 'validation')]
             FROM public.quality_issues AS i
            WHERE i.table_name = 'quotes'
              AND i.series = jsonb_build_object('asset_id', g.asset_id)
              AND i.ts >= g.day
              AND i.ts < g.day + interval '24 hours'
       ) END AS counts
         FROM (VALUES (true)) AS one (is_there)
        ORDER BY one.is_there
        LIMIT 1 -- else the look-up is made for each of the four
       ) AS q
 WHERE g.day >= (SELECT _tidemark.first_stored_day('public.quotes'));
COMMENT ON VIEW public.quality_report IS
'Quality of each series on each day (UTC); quality_report_of() gives the same for any hypertable.';
COMMENT ON COLUMN public.quality_report.table_name IS 'Hypertable.';
COMMENT ON COLUMN public.quality_report.series IS 'Key of the series without the time.';
COMMENT ON COLUMN public.quality_report.source_id IS 'Source, where the series has one.';
COMMENT ON COLUMN public.quality_report.asset_id IS 'Asset, where the series has one.';
COMMENT ON COLUMN public.quality_report.interval IS 'Bar length, where the series has one.';
COMMENT ON COLUMN public.quality_report.day IS 'Start of the day.';
COMMENT ON COLUMN public.quality_report.row_count IS 'Rows stored.';
COMMENT ON COLUMN public.quality_report.scored IS 'Rows that have a score.';
COMMENT ON COLUMN public.quality_report.mean_score IS 'Their mean score; NULL where none has one.';
COMMENT ON COLUMN public.quality_report.completeness IS 'Rows that lack a required field.';
COMMENT ON COLUMN public.quality_report.timeliness IS 'Rows that came late.';
COMMENT ON COLUMN public.quality_report.consistency IS 'Rows that moved more than the profile allows.';
COMMENT ON COLUMN public.quality_report.validation IS 'Violations of rules.';
COMMENT ON COLUMN public.quality_report.anomalies IS 'Rows that are flagged.';
COMMENT ON COLUMN public.quality_report.exceedance_rate IS
'Flagged share of the scored rows: what the thresholds really mean for this series. Real prices exceed 4 deviations on '
'0.4 to 0.8 % of rows, not on the 0.006 % of a normal distribution.';

-- How far each series reaches, from the two ends of its primary key: the rows between are never read, whatever their
-- number. A LATERAL per series, because min() and max() over a GROUP BY would read them all. Which lengths of bar an
-- asset has is known from the figures of days, because one that it does not have would be looked for in every chunk.
CREATE OR REPLACE VIEW public.coverage AS
SELECT 'timeseries_data'::text AS table_name,
       s.source_id,
       s.asset_id,
       s.interval,
       s.name,
       f.timestamp AS first_at,
       l.timestamp AS last_at,
       CASE WHEN s.status = 'active' THEN _tidemark.open_time(
           _tidemark.series_market(s.source_id, NULL, NULL),
           l.timestamp + coalesce(_tidemark.bar_length(s.interval), interval '0'), now()
       ) END AS stale_for
  FROM public.sources AS s
  LEFT JOIN LATERAL (
       SELECT t.timestamp FROM public.timeseries_data AS t
        WHERE t.source_id = s.source_id ORDER BY t.timestamp LIMIT 1
       ) AS f ON true
  LEFT JOIN LATERAL (
       SELECT t.timestamp FROM public.timeseries_data AS t
        WHERE t.source_id = s.source_id AND f.timestamp IS NOT NULL ORDER BY t.timestamp DESC LIMIT 1
       ) AS l ON true
 UNION ALL
SELECT 'candles',
       NULL,
       a.asset_id,
       k.interval,
       a.symbol,
       f.ts,
       l.ts,
       CASE WHEN a.is_active THEN _tidemark.open_time(
           _tidemark.series_market(NULL, a.asset_id, k.interval), l.ts + _tidemark.bar_length(k.interval), now()
       ) END
  FROM (SELECT DISTINCT d.asset_id, d.interval FROM public.candles_days AS d) AS k
  JOIN public.assets AS a ON a.asset_id = k.asset_id
 CROSS JOIN LATERAL (
       SELECT c.ts FROM public.candles AS c
        WHERE c.asset_id = k.asset_id AND c.interval = k.interval ORDER BY c.ts LIMIT 1
       ) AS f
 CROSS JOIN LATERAL (
       SELECT c.ts FROM public.candles AS c
        WHERE c.asset_id = k.asset_id AND c.interval = k.interval ORDER BY c.ts DESC LIMIT 1
       ) AS l;
COMMENT ON VIEW public.coverage IS
'What data there is: every source, and every asset and bar length that has candles, with its first and last row. A new '
'asset or length whose bars are all older than the last refresh is seen after the next one on Community.';
COMMENT ON COLUMN public.coverage.table_name IS 'Hypertable that holds the series.';
COMMENT ON COLUMN public.coverage.source_id IS 'Source, for timeseries_data.';
COMMENT ON COLUMN public.coverage.asset_id IS 'Asset of the candles, or that the source is about.';
COMMENT ON COLUMN public.coverage.interval IS 'Distance between rows; NULL for an irregular source.';
COMMENT ON COLUMN public.coverage.name IS 'Name of the source, or symbol of the asset.';
COMMENT ON COLUMN public.coverage.first_at IS 'First row; NULL for a source that never delivered.';
COMMENT ON COLUMN public.coverage.last_at IS 'Last row.';
COMMENT ON COLUMN public.coverage.stale_for IS
'Open-market time since the last bar ended: above one interval, bars are missing at the end. NULL for a series that '
'never delivered or is not expected to (a source paused or retired, an asset that no longer trades), and where the '
'market''s calendar does not reach.';

-- How many bars start on each day (UTC) in [p_from, p_to), in a market's calendar or, without a market, by the clock:
-- what expected_bars lists, counted without listing it. No rows where the calendar does not reach over the period, and
-- none for a day without a bar. A bar of a day or longer counts on the day it opens.
CREATE OR REPLACE FUNCTION _tidemark.expected_by_day(
    p_market text,
    p_interval public.candle_interval,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS TABLE (day timestamptz, bars bigint)
    LANGUAGE plpgsql
    STABLE
    ROWS 400
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_length CONSTANT interval := _tidemark.bar_length(p_interval);
    v_seconds CONSTANT double precision := extract(epoch FROM v_length);
BEGIN
    IF (p_from < p_to) IS NOT TRUE OR p_interval IS NULL
       OR p_market IS NOT NULL AND NOT _tidemark.calendar_covers(p_market, p_from, p_to)
    THEN
        RETURN;
    ELSIF p_interval >= '1d' THEN
        RETURN QUERY
        SELECT public.time_bucket(interval '1 day', e.bar_start), count(*)
          FROM _tidemark.expected_bars(p_market, p_interval, p_from, p_to) AS e
         GROUP BY 1;
        RETURN;
    END IF;
    RETURN QUERY
    WITH open AS ( -- stretches in which bars follow each other from the beginning
        SELECT s.starts_at, s.ends_at
          FROM public.market_calendar AS c
         CROSS JOIN LATERAL (VALUES (c.opens_at, coalesce(c.break_starts_at, c.closes_at)),
                                    (c.break_ends_at, c.closes_at)) AS s (starts_at, ends_at)
         WHERE c.market = p_market
           AND c.date BETWEEN (p_from AT TIME ZONE 'UTC')::date - 2 AND (p_to AT TIME ZONE 'UTC')::date + 2
         UNION ALL
        -- Every length divides a day, and the grid of the clock begins with it.
        SELECT public.time_bucket(interval '1 day', p_from), p_to
         WHERE p_market IS NULL
    ), part AS (
        SELECT d.day, o.starts_at,
               extract(epoch FROM greatest(o.starts_at, d.day, p_from) - o.starts_at)::double precision AS first_second,
               extract(epoch FROM least(o.ends_at, d.day + interval '24 hours', p_to) - o.starts_at)::double precision
               AS last_second
          FROM open AS o
         CROSS JOIN LATERAL (
               SELECT generate_series(public.time_bucket(interval '1 day', o.starts_at),
                                      o.ends_at, interval '24 hours')
               ) AS d (day)
         WHERE o.starts_at < o.ends_at
           AND o.ends_at > p_from
           AND o.starts_at < p_to
    )
    SELECT p.day, sum(ceil(p.last_second / v_seconds) - ceil(p.first_second / v_seconds))::bigint
      FROM part AS p
     WHERE p.first_second < p.last_second
     GROUP BY p.day
    HAVING sum(ceil(p.last_second / v_seconds) - ceil(p.first_second / v_seconds)) > 0;
END
$func$;
COMMENT ON FUNCTION _tidemark.expected_by_day(text, public.candle_interval, timestamptz, timestamptz) IS
'Number of bars that start on each day (UTC) of a period according to a market''s calendar (NULL: by the clock).';
