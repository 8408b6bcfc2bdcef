-- What is missing: bars that the calendar expects and nobody delivered, stale runs.

-- The source of that number; raises TM301 where there is none.
CREATE OR REPLACE FUNCTION _tidemark.known_source(p_source_id integer)
    RETURNS public.sources
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_source public.sources;
BEGIN
    SELECT s.* INTO v_source FROM public.sources AS s WHERE s.source_id = p_source_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM301',
            MESSAGE = format('there is no source %s', coalesce(p_source_id::text, 'NULL')),
            HINT = 'SELECT source_id, name FROM sources lists them.';
    END IF;
    RETURN v_source;
END
$func$;
COMMENT ON FUNCTION _tidemark.known_source(integer) IS 'The source of that number; raises TM301 where there is none.';

-- The asset whose candles of one length are asked for; raises TM301 where there is none, TM302 without a length.
CREATE OR REPLACE FUNCTION _tidemark.known_asset(
    p_asset_id uuid,
    p_interval public.candle_interval
)
    RETURNS public.assets
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_asset public.assets;
BEGIN
    SELECT a.* INTO v_asset FROM public.assets AS a WHERE a.asset_id = p_asset_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM301',
            MESSAGE = format('there is no asset %s', coalesce(p_asset_id::text, 'NULL')),
            HINT = 'SELECT asset_id, symbol FROM assets lists them.';
    ELSIF p_interval IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM302',
            MESSAGE = 'the length of the candles is missing',
            HINT = 'Name one, e.g. 1d.';
    END IF;
    RETURN v_asset;
END
$func$;
COMMENT ON FUNCTION _tidemark.known_asset(uuid, public.candle_interval) IS
'The asset whose candles are asked for; raises TM301 where there is none, TM302 without a length of bar.';

-- The calendar in which the bars of a source (p_asset_id is NULL) or an asset's candles are expected, which is the one
-- that they are scored by: see series_profiles(). NULL: clock time.
CREATE OR REPLACE FUNCTION _tidemark.series_market(
    p_source_id integer,
    p_asset_id uuid,
    p_interval public.candle_interval
)
    RETURNS text
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT p.market
      FROM _tidemark.quality_targets AS t
     CROSS JOIN LATERAL _tidemark.series_profiles(t, ARRAY[
               CASE WHEN p_asset_id IS NULL THEN jsonb_build_object('source_id', p_source_id)
                    ELSE jsonb_build_object('asset_id', p_asset_id, 'interval', p_interval) END
           ]) AS p
     WHERE t.label = CASE WHEN p_asset_id IS NULL THEN 'timeseries_data' ELSE 'candles' END;
$func$;
COMMENT ON FUNCTION _tidemark.series_market(integer, uuid, public.candle_interval) IS
'Calendar of a source, or of an asset''s candles, which they are scored by, too; NULL: clock time.';

-- The bars that start in [p_from, p_to), in a market's calendar or, without a market, by the clock in UTC.
-- Both bounds are finite and the calendar covers them: callers see to that. Bars shorter than a day lie on the grid
-- opens_at + k * length; a break starts the grid anew and the last bar before a break or the close may be short.
-- A longer bar runs from the first opening to the last close of its trading date, ISO week or month; one without a
-- session is not expected. A bar counts as delivered when a row lies in [match_from, match_to): for longer bars that
-- reaches back to the midnight their date begins with, in any zone (the earliest is UTC+14), and for weeks to
-- Sunday, because such bars are stamped with the date, the week or the opening. It never reaches into another bar.
-- With p_phase the bars of a session lie on the grid p_phase + k * length of the clock instead, from the one that the
-- session opens in: the hour from 9:00 for a market that opens at 9:30.
CREATE OR REPLACE FUNCTION _tidemark.expected_bars(
    p_market text,
    p_interval public.candle_interval,
    p_from timestamptz,
    p_to timestamptz,
    p_phase interval DEFAULT NULL
)
    RETURNS TABLE (bar_start timestamptz, bar_end timestamptz, match_from timestamptz, match_to timestamptz)
    LANGUAGE plpgsql
    STABLE
    ROWS 100000
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    c_epoch CONSTANT timestamptz := '2000-01-01 00:00:00+00';
    v_length CONSTANT interval := _tidemark.bar_length(p_interval);
    v_first_date CONSTANT date := (p_from AT TIME ZONE 'UTC')::date;
    v_last_date CONSTANT date := (p_to AT TIME ZONE 'UTC')::date;
BEGIN
    IF p_interval < '1d' AND p_market IS NULL THEN
        RETURN QUERY
        SELECT g.starts_at, g.starts_at + v_length, g.starts_at, g.starts_at + v_length
          FROM generate_series(date_bin(v_length, p_from, c_epoch), p_to, v_length) AS g (starts_at)
         WHERE g.starts_at >= p_from
           AND g.starts_at < p_to;
    ELSIF p_interval < '1d' THEN
        RETURN QUERY
        -- A bar by the clock may reach over a break, and is one.
        SELECT g.starts_at, max(e.ends_at), g.starts_at, max(e.ends_at)
          FROM public.market_calendar AS c
         CROSS JOIN LATERAL (VALUES (c.opens_at, coalesce(c.break_starts_at, c.closes_at)),
                                    (c.break_ends_at, c.closes_at)) AS s (starts_at, ends_at)
         CROSS JOIN LATERAL generate_series(
                   coalesce(date_bin(v_length, s.starts_at, c_epoch + p_phase), s.starts_at), s.ends_at, v_length
               ) AS g (starts_at)
         CROSS JOIN LATERAL (SELECT least(g.starts_at + v_length, s.ends_at)) AS e (ends_at)
         WHERE c.market = p_market
           -- A session lies within two days of its trading date, seen from UTC.
           AND c.date BETWEEN v_first_date - 2 AND v_last_date + 2
           AND g.starts_at < s.ends_at
           AND g.starts_at >= p_from
           AND g.starts_at < p_to
         GROUP BY g.starts_at;
    ELSE
        RETURN QUERY
        WITH day AS ( -- with a whole period to spare on both sides
            SELECT c.date, c.opens_at, c.closes_at
              FROM public.market_calendar AS c
             WHERE c.market = p_market
               AND c.date BETWEEN v_first_date - 40 AND v_last_date + 40
               AND c.opens_at IS NOT NULL
             UNION ALL
            SELECT d.day::date, d.day AT TIME ZONE 'UTC', (d.day + interval '1 day') AT TIME ZONE 'UTC'
              FROM generate_series(
                       (v_first_date - 40)::timestamp, (v_last_date + 40)::timestamp, interval '1 day'
                   ) AS d (day)
             WHERE p_market IS NULL
        ), period AS (
            SELECT f.first_date, min(d.opens_at) AS opens_at, max(d.closes_at) AS closes_at
              FROM day AS d
             CROSS JOIN LATERAL (
                   SELECT CASE p_interval
                              WHEN '1w' THEN date_trunc('week', d.date::timestamp)
                              WHEN '1M' THEN date_trunc('month', d.date::timestamp)
                              ELSE d.date::timestamp
                          END
                   ) AS f (first_date)
             GROUP BY f.first_date
        ), bar AS (
            SELECT p.opens_at, p.closes_at,
                   greatest(
                       lag(p.closes_at) OVER (ORDER BY p.first_date),
                       least(
                           p.opens_at,
                           (p.first_date - make_interval(hours => CASE p_interval WHEN '1w' THEN 38 ELSE 14 END))
                           AT TIME ZONE 'UTC'
                       )
                   ) AS match_from
              FROM period AS p
        )
        SELECT b.opens_at, b.closes_at, b.match_from, b.closes_at
          FROM bar AS b
         WHERE b.opens_at >= p_from
           AND b.opens_at < p_to;
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.expected_bars(text, public.candle_interval, timestamptz, timestamptz, interval) IS
'Bars that start in a period according to a market''s calendar (NULL: clock time, in UTC), with the range in which a '
'row counts as their delivery.';

-- Where a series stamps its bars by the clock and not from the opening of its market, the part of the bar's length
-- that its stamps are past the grid of midnight (UTC); else NULL. Its own rows decide: whichever grid more of them are
-- on.
CREATE OR REPLACE FUNCTION _tidemark.clock_phase(
    p_market text,
    p_interval public.candle_interval,
    p_from timestamptz,
    p_to timestamptz,
    p_times timestamptz[]
)
    RETURNS interval
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH phase AS (
        SELECT mode() WITHIN GROUP (ORDER BY t.at - date_bin(
                   _tidemark.bar_length(p_interval), t.at, timestamptz '2000-01-01 00:00:00+00'
               )) AS phase
          FROM unnest(p_times) AS t (at)
         WHERE p_market IS NOT NULL AND p_interval < '1d'
    )
    SELECT p.phase
      FROM phase AS p
     WHERE p.phase IS NOT NULL
       AND (SELECT count(*) FROM _tidemark.expected_bars(p_market, p_interval, p_from, p_to, p.phase) AS e
             WHERE EXISTS (SELECT FROM unnest(p_times) AS t (at) WHERE t.at = e.bar_start))
           > (SELECT count(*) FROM _tidemark.expected_bars(p_market, p_interval, p_from, p_to) AS e
               WHERE EXISTS (SELECT FROM unnest(p_times) AS t (at) WHERE t.at = e.bar_start));
$func$;
COMMENT ON FUNCTION _tidemark.clock_phase(
    text, public.candle_interval, timestamptz, timestamptz, timestamptz[]
) IS 'How far past the grid of midnight a series stamps its bars, where it does not count them from the opening.';

-- Ranges of expected bars for which p_times, the timestamps of a series in any order, has no row. Bars that have not
-- ended yet are not missing. Missing bars that follow each other in the calendar form one range, also across a night.
CREATE OR REPLACE FUNCTION _tidemark.gaps_between(
    p_market text,
    p_interval public.candle_interval,
    p_from timestamptz,
    p_to timestamptz,
    p_times timestamptz[]
)
    RETURNS TABLE (gap_start timestamptz, gap_end timestamptz, missing_bars bigint)
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH expected AS (
        SELECT e.*, row_number() OVER (ORDER BY e.bar_start) AS bar_number
          FROM _tidemark.expected_bars(
                   p_market, p_interval, p_from, p_to,
                   _tidemark.clock_phase(p_market, p_interval, p_from, p_to, p_times)
               ) AS e
         WHERE e.bar_end <= now()
    ), event AS (
        SELECT e.bar_number, e.bar_start, e.bar_end, e.match_to, e.match_from AS at, false AS is_row FROM expected AS e
         UNION ALL
        SELECT NULL, NULL, NULL, NULL, r.at, true FROM unnest(p_times) AS r (at)
    ), followed AS ( -- the ranges do not overlap, so a delivered bar is followed by its own row
        SELECT e.*,
               coalesce(lead(e.is_row) OVER by_time AND lead(e.at) OVER by_time < e.match_to, false) AS is_delivered
          FROM event AS e
        WINDOW by_time AS (ORDER BY e.at, e.is_row)
    ), missing AS (
        SELECT f.bar_start, f.bar_end, f.bar_number - row_number() OVER (ORDER BY f.bar_number) AS island
          FROM followed AS f
         WHERE NOT f.is_row
           AND NOT f.is_delivered
    )
    SELECT min(m.bar_start), max(m.bar_end), count(*)
      FROM missing AS m
     GROUP BY m.island
     ORDER BY 1;
$func$;
COMMENT ON FUNCTION _tidemark.gaps_between(
    text, public.candle_interval, timestamptz, timestamptz, timestamptz[]
) IS 'Ranges of expected bars that have no row among the given timestamps.';

-- Raises TM303 unless p_from is before p_to.
CREATE OR REPLACE FUNCTION _tidemark.check_period(
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS void
    LANGUAGE plpgsql
    IMMUTABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF (p_from < p_to) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'TM303',
            MESSAGE = 'the period is empty',
            DETAIL = format('It runs from %s to %s.', coalesce(p_from::text, 'NULL'), coalesce(p_to::text, 'NULL')),
            HINT = 'Give a start before the end; -infinity and infinity mean everything.';
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.check_period(timestamptz, timestamptz) IS
'Raises TM303 unless the start of a period lies before its end.';

-- The gaps of one series: of a source in timeseries_data where p_source_id is given, else of an asset in candles.
-- -infinity starts at the first row stored. Nothing is missing yet that ends after now, nor, where the series is not
-- expected to deliver any more, after its last row. Raises TM304 where the calendar does not reach over the period.
CREATE OR REPLACE FUNCTION _tidemark.series_gaps(
    p_source_id integer,
    p_asset_id uuid,
    p_interval public.candle_interval,
    p_market text,
    p_is_active boolean,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS TABLE (gap_start timestamptz, gap_end timestamptz, missing_bars bigint)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
    -- A generic plan would open every chunk of the table, a custom one only those in the period.
    SET plan_cache_mode = force_custom_plan
AS $func$
DECLARE
    -- How far outside its bar the row of a longer bar may be stamped; see expected_bars.
    c_margin CONSTANT interval := interval '40 days';
    v_from timestamptz := p_from;
    v_to timestamptz := least(p_to, now());
    v_times timestamptz[];
BEGIN
    IF v_from = '-infinity' THEN
        v_from := CASE WHEN p_source_id IS NOT NULL THEN (
            SELECT t.timestamp FROM public.timeseries_data AS t WHERE t.source_id = p_source_id
             ORDER BY t.timestamp LIMIT 1
        ) ELSE (
            SELECT c.ts FROM public.candles AS c WHERE c.asset_id = p_asset_id AND c.interval = p_interval
             ORDER BY c.ts LIMIT 1
        ) END;
    END IF;
    IF NOT p_is_active THEN
        v_to := least(v_to, coalesce(CASE WHEN p_source_id IS NOT NULL THEN (
            SELECT t.timestamp FROM public.timeseries_data AS t WHERE t.source_id = p_source_id
             ORDER BY t.timestamp DESC LIMIT 1
        ) ELSE (
            SELECT c.ts FROM public.candles AS c WHERE c.asset_id = p_asset_id AND c.interval = p_interval
             ORDER BY c.ts DESC LIMIT 1
        ) END, '-infinity'));
    END IF;
    IF (v_from < v_to) IS NOT TRUE THEN
        RETURN;
    END IF;
    IF NOT _tidemark.calendar_covers(p_market, v_from, v_to) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM304',
            MESSAGE = format('the calendar of market %L does not reach over the period', p_market),
            DETAIL = format('Asked for %s to %s; the calendar has %s.', v_from, v_to, (
                SELECT coalesce(min(c.date) || ' to ' || max(c.date), 'no rows')
                  FROM public.market_calendar AS c
                 WHERE c.market = p_market
            )),
            HINT = 'Fill it with: tidemark calendar --from DATE --to DATE --market MARKET';
    END IF;
    IF p_source_id IS NOT NULL THEN
        v_times := ARRAY(
            SELECT t.timestamp
              FROM public.timeseries_data AS t
             WHERE t.source_id = p_source_id
               AND t.timestamp >= v_from - c_margin
               AND t.timestamp < v_to + c_margin
        );
    ELSE
        v_times := ARRAY(
            SELECT c.ts
              FROM public.candles AS c
             WHERE c.asset_id = p_asset_id
               AND c.interval = p_interval
               AND c.ts >= v_from - c_margin
               AND c.ts < v_to + c_margin
        );
    END IF;
    RETURN QUERY SELECT g.* FROM _tidemark.gaps_between(p_market, p_interval, v_from, v_to, v_times) AS g;
END
$func$;
COMMENT ON FUNCTION _tidemark.series_gaps(
    integer, uuid, public.candle_interval, text, boolean, timestamptz, timestamptz
) IS 'The gaps of one series of timeseries_data or of candles; raises TM304 where the calendar ends too early.';

-- Bars missing from a source among those that start in [p_from, p_to), as ranges from the first missing bar's start
-- to the last one's end, with their number. Expected is what the source's interval and calendar say (the market of its
-- quality profile, else "market" in its config, else the exchange of its asset, else clock time), up to now. -infinity
-- stands for the source's first row, infinity for now. A source with no row at all lacks every bar of a period with a
-- finite start. A source that is paused or retired is judged up to its last row. Raises TM301 for an unknown source,
-- TM302 for an irregular one, TM303 for an empty period, TM304 where the calendar does not reach over the period.
CREATE OR REPLACE FUNCTION public.find_gaps(
    p_source_id integer,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS TABLE (gap_start timestamptz, gap_end timestamptz, missing_bars bigint)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_source CONSTANT public.sources := _tidemark.known_source(p_source_id);
BEGIN
    PERFORM _tidemark.check_period(p_from, p_to);
    IF v_source.interval IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM302',
            MESSAGE = format('source %s delivers at no fixed interval', p_source_id),
            DETAIL = 'Without an interval no row is expected at any time, so none can be missing.',
            HINT = 'Set sources.interval if its rows come at a regular distance.';
    END IF;
    RETURN QUERY
    SELECT g.*
      FROM _tidemark.series_gaps(
               p_source_id, NULL, v_source.interval, _tidemark.series_market(p_source_id, NULL, NULL),
               v_source.status = 'active', p_from, p_to
           ) AS g;
END
$func$;
COMMENT ON FUNCTION public.find_gaps(integer, timestamptz, timestamptz) IS
'Bars missing from a source in a period, as ranges, by its interval and its market''s calendar.';

-- As find_gaps, for an asset's candles of one length. p_market defaults to the market of their quality profile, else to
-- the asset's exchange where market_calendar has it, else to clock time. The candles of an asset that no longer trades
-- are judged up to the last one. Raises TM301 for an unknown asset, TM302 without an interval, TM303 and TM304 as
-- find_gaps.
CREATE OR REPLACE FUNCTION public.find_candle_gaps(
    p_asset_id uuid,
    p_interval public.candle_interval,
    p_from timestamptz,
    p_to timestamptz,
    p_market text DEFAULT NULL
)
    RETURNS TABLE (gap_start timestamptz, gap_end timestamptz, missing_bars bigint)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_asset CONSTANT public.assets := _tidemark.known_asset(p_asset_id, p_interval);
BEGIN
    PERFORM _tidemark.check_period(p_from, p_to);
    RETURN QUERY
    SELECT g.*
      FROM _tidemark.series_gaps(
               NULL, p_asset_id, p_interval,
               coalesce(_tidemark.market_code(p_market), _tidemark.series_market(NULL, p_asset_id, p_interval)),
               v_asset.is_active,
               p_from, p_to
           ) AS g;
END
$func$;
COMMENT ON FUNCTION public.find_candle_gaps(uuid, public.candle_interval, timestamptz, timestamptz, text) IS
'Bars missing from an asset''s candles in a period, as ranges, by a market''s calendar.';

-- Behind stale_runs and stale_candle_runs: the runs of a source where p_source_id is given, else of candles.
CREATE OR REPLACE FUNCTION _tidemark.series_stale_runs(
    p_source_id integer,
    p_asset_id uuid,
    p_interval public.candle_interval,
    p_from timestamptz,
    p_to timestamptz,
    p_min_rows integer
)
    RETURNS TABLE (run_start timestamptz, run_end timestamptz, row_count bigint, price double precision)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
    -- A generic plan would read both tables and open every chunk.
    SET plan_cache_mode = force_custom_plan
AS $func$
BEGIN
    PERFORM _tidemark.check_period(p_from, p_to);
    IF (p_min_rows >= 2) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'TM305',
            MESSAGE = format('a run of %s rows is none', coalesce(p_min_rows::text, 'NULL')),
            HINT = 'Ask for runs of at least 2 rows.';
    END IF;
    RETURN QUERY
    WITH tick AS (
        SELECT t.timestamp AS at, coalesce(t.close, t.value) AS price, t.volume,
               ROW(t.open, t.high, t.low, t.close, t.value) AS prices
          FROM public.timeseries_data AS t
         WHERE t.source_id = p_source_id
           AND t.timestamp >= p_from
           AND t.timestamp < p_to
         UNION ALL
        SELECT c.ts, c.close, c.volume, ROW(c.open, c.high, c.low, c.close, NULL::double precision)
          FROM public.candles AS c
         WHERE c.asset_id = p_asset_id
           AND c.interval = p_interval
           AND c.ts >= p_from
           AND c.ts < p_to
    ), judged AS (
        SELECT t.at, t.price, t.prices,
               t.price IS NOT NULL AND (
                   coalesce(t.volume, 0) = 0
                   OR (t.prices, t.volume)
                       IS NOT DISTINCT FROM (lag(t.prices) OVER by_time, lag(t.volume) OVER by_time)
                   OR (t.prices, t.volume)
                       IS NOT DISTINCT FROM (lead(t.prices) OVER by_time, lead(t.volume) OVER by_time)
               ) AS is_dead
          FROM tick AS t
        WINDOW by_time AS (ORDER BY t.at)
    ), marked AS (
        SELECT j.at, j.price, j.is_dead IS TRUE AS is_dead,
               j.is_dead IS DISTINCT FROM lag(j.is_dead) OVER by_time
               OR j.prices IS DISTINCT FROM lag(j.prices) OVER by_time AS is_change
          FROM judged AS j
        WINDOW by_time AS (ORDER BY j.at)
    ), run AS (
        SELECT m.at, m.price, m.is_dead, count(*) FILTER (WHERE m.is_change) OVER (ORDER BY m.at) AS run_number
          FROM marked AS m
    )
    SELECT min(r.at), max(r.at), count(*), min(r.price)
      FROM run AS r
     WHERE r.is_dead
     GROUP BY r.run_number
    HAVING count(*) >= p_min_rows
     ORDER BY 1;
END
$func$;
COMMENT ON FUNCTION _tidemark.series_stale_runs(
    integer, uuid, public.candle_interval, timestamptz, timestamptz, integer
) IS 'Runs of unchanged prices in which nothing is known to be traded, in a series of timeseries_data or candles.';

-- Runs of at least p_min_rows consecutive rows of a source, stamped in [p_from, p_to), whose prices are all the same
-- and in which nothing is known to be traded: what a feed that repeats its last price looks like. Such a row has no
-- volume, zero or NULL, or repeats that of its neighbour with the prices. The row whose price is repeated is not part
-- of the run, as long as its volume is another. Ordered by start.
-- Raises TM301 for an unknown source, TM303 for an empty period, TM305 for p_min_rows below 2.
CREATE OR REPLACE FUNCTION public.stale_runs(
    p_source_id integer,
    p_from timestamptz,
    p_to timestamptz,
    p_min_rows integer DEFAULT 10
)
    RETURNS TABLE (run_start timestamptz, run_end timestamptz, row_count bigint, price double precision)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.known_source(p_source_id);
    RETURN QUERY
    SELECT r.* FROM _tidemark.series_stale_runs(p_source_id, NULL, NULL, p_from, p_to, p_min_rows) AS r;
END
$func$;
COMMENT ON FUNCTION public.stale_runs(integer, timestamptz, timestamptz, integer) IS
'Runs of identical prices without volume, or with the same, in a source''s rows: a feed that repeats itself.';

-- As stale_runs, for an asset's candles of one length. Raises TM301 for an unknown asset, TM302 without an interval.
CREATE OR REPLACE FUNCTION public.stale_candle_runs(
    p_asset_id uuid,
    p_interval public.candle_interval,
    p_from timestamptz,
    p_to timestamptz,
    p_min_rows integer DEFAULT 10
)
    RETURNS TABLE (run_start timestamptz, run_end timestamptz, row_count bigint, price double precision)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.known_asset(p_asset_id, p_interval);
    RETURN QUERY
    SELECT r.* FROM _tidemark.series_stale_runs(NULL, p_asset_id, p_interval, p_from, p_to, p_min_rows) AS r;
END
$func$;
COMMENT ON FUNCTION public.stale_candle_runs(uuid, public.candle_interval, timestamptz, timestamptz, integer) IS
'Runs of identical prices without volume, or with the same, in an asset''s candles.';
