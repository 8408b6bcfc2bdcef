-- Market calendars: how generated rows are stored, the hourly grid derived from them, and open-market time.

-- Stores what a generator found for one market over a range of trading dates, both ends included.
-- p_sessions is a JSON array of objects with the columns date, is_holiday, holiday_name, is_early_close, opens_at,
-- closes_at, break_starts_at, break_ends_at and correction (on what a corrected row rests). Dates that generation no
-- longer yields are deleted. Manual rows are neither changed nor deleted, rows that are the same stay untouched, with
-- the version that wrote them.
-- Returns the numbers of rows inserted, updated and deleted, and of manual rows that stood in the way.
CREATE OR REPLACE FUNCTION _tidemark.store_calendar(
    p_market text,
    p_from date,
    p_to date,
    p_origin_version text,
    p_sessions jsonb
)
    RETURNS TABLE (inserted bigint, updated bigint, deleted bigint, kept bigint)
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH fresh AS MATERIALIZED (
        SELECT r.*
          FROM jsonb_to_recordset(p_sessions) AS r (
                   date date, is_holiday boolean, holiday_name text, is_early_close boolean, opens_at timestamptz,
                   closes_at timestamptz, break_starts_at timestamptz, break_ends_at timestamptz, correction text
               )
         WHERE r.date BETWEEN p_from AND p_to
    ), removed AS (
        DELETE FROM public.market_calendar AS c
         WHERE c.market = p_market
           AND c.date BETWEEN p_from AND p_to
           AND c.origin <> 'manual'
           -- NOT IN is hashed; as NOT EXISTS it would become a loop in a loop, since the planner expects few rows here.
           AND c.date NOT IN (SELECT f.date FROM fresh AS f)
        RETURNING c.date
    ), stored AS (
        INSERT INTO public.market_calendar AS c (
            market, date, is_holiday, holiday_name, is_early_close, opens_at, closes_at, break_starts_at, break_ends_at,
            origin, origin_version
        )
        SELECT p_market, f.date, f.is_holiday, f.holiday_name, f.is_early_close, f.opens_at, f.closes_at,
               f.break_starts_at, f.break_ends_at,
               CASE WHEN f.correction IS NULL THEN 'generated' ELSE 'corrected' END::public.calendar_origin,
               coalesce(f.correction, p_origin_version)
          FROM fresh AS f
         ORDER BY f.date
        ON CONFLICT (market, date) DO UPDATE
           SET is_holiday = EXCLUDED.is_holiday,
               holiday_name = EXCLUDED.holiday_name,
               is_early_close = EXCLUDED.is_early_close,
               opens_at = EXCLUDED.opens_at,
               closes_at = EXCLUDED.closes_at,
               break_starts_at = EXCLUDED.break_starts_at,
               break_ends_at = EXCLUDED.break_ends_at,
               origin = EXCLUDED.origin,
               origin_version = EXCLUDED.origin_version
         WHERE c.origin <> 'manual'
           AND (c.origin, c.is_holiday, c.holiday_name, c.is_early_close, c.opens_at, c.closes_at, c.break_starts_at,
                c.break_ends_at)
               IS DISTINCT FROM
               (EXCLUDED.origin, EXCLUDED.is_holiday, EXCLUDED.holiday_name, EXCLUDED.is_early_close, EXCLUDED.opens_at,
                EXCLUDED.closes_at, EXCLUDED.break_starts_at, EXCLUDED.break_ends_at)
        RETURNING c.xmax = 0 AS is_new -- an updated row version carries the updating transaction
    )
    SELECT (SELECT count(*) FROM stored AS s WHERE s.is_new),
           (SELECT count(*) FROM stored AS s WHERE NOT s.is_new),
           (SELECT count(*) FROM removed),
           (SELECT count(*)
              FROM public.market_calendar AS c
             WHERE c.market = p_market AND c.date BETWEEN p_from AND p_to AND c.origin = 'manual');
$func$;
COMMENT ON FUNCTION _tidemark.store_calendar(text, date, date, text, jsonb) IS
'Stores the generated sessions of a market over a range of dates; manual rows and unchanged ones stay as they are.';

-- Fills the hourly grid in UTC from p_from to p_to, both dates included, and brings is_trading_day up to date with
-- the sessions of XNYS, manual rows included. Returns the number of rows inserted or changed.
CREATE OR REPLACE FUNCTION _tidemark.fill_time_index(
    p_from date,
    p_to date
)
    RETURNS bigint
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH stored AS (
        INSERT INTO public.time_index AS t (
            timestamp, date_only, year, quarter, month, iso_week, day_of_week, hour, is_weekend, is_month_end,
            is_trading_day
        )
        SELECT (d.day + make_interval(hours => h.hour)) AT TIME ZONE 'UTC', d.day::date, extract(year FROM d.day),
               extract(quarter FROM d.day), extract(month FROM d.day), extract(week FROM d.day),
               extract(isodow FROM d.day), h.hour, extract(isodow FROM d.day) > 5,
               extract(day FROM d.day + interval '1 day') = 1, c.opens_at IS NOT NULL
          FROM generate_series(p_from::timestamp, p_to::timestamp, interval '1 day') AS d (day)
          LEFT JOIN public.market_calendar AS c ON c.market = 'XNYS' AND c.date = d.day::date
         CROSS JOIN generate_series(0, 23) AS h (hour)
         ORDER BY 1
        ON CONFLICT (timestamp) DO UPDATE -- everything else follows from the timestamp
           SET is_trading_day = EXCLUDED.is_trading_day
         WHERE t.is_trading_day <> EXCLUDED.is_trading_day
        RETURNING 1
    )
    SELECT count(*) FROM stored;
$func$;
COMMENT ON FUNCTION _tidemark.fill_time_index(date, date) IS
'Fills the hourly grid between two dates; trading days are those on which market_calendar has a session of XNYS.';

-- Whether market_calendar says something about the whole of [p_from, p_to): its first and last date of the market,
-- taken as UTC dates, embrace the period. False for a market without rows; NULL where an argument is NULL.
CREATE OR REPLACE FUNCTION _tidemark.calendar_covers(
    p_market text,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS boolean
    LANGUAGE sql
    STABLE
    STRICT
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT coalesce(
        p_from >= min(c.date)::timestamp AT TIME ZONE 'UTC' AND p_to <= (max(c.date) + 1)::timestamp AT TIME ZONE 'UTC',
        false
    )
      FROM public.market_calendar AS c
     WHERE c.market = p_market;
$func$;
COMMENT ON FUNCTION _tidemark.calendar_covers(text, timestamptz, timestamptz) IS
'Whether the calendar of a market reaches over a period; without rows for it the market is unknown, not closed.';

-- Time in [p_from, p_to) during which the market is open, breaks left out; zero where p_to is not after p_from.
-- Without a market (NULL) the clock never stops. NULL where the calendar does not reach over the period, where a
-- bound is infinite or NULL: an unfilled calendar must not read as a market that is closed.
CREATE OR REPLACE FUNCTION _tidemark.open_time(
    p_market text,
    p_from timestamptz,
    p_to timestamptz
)
    RETURNS interval
    LANGUAGE plpgsql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_from IS NULL OR p_to IS NULL OR NOT isfinite(p_from) OR NOT isfinite(p_to) THEN
        RETURN NULL;
    ELSIF p_to <= p_from THEN
        RETURN interval '0';
    ELSIF p_market IS NULL THEN
        RETURN p_to - p_from;
    ELSIF NOT _tidemark.calendar_covers(p_market, p_from, p_to) THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT coalesce(sum(least(s.ends_at, p_to) - greatest(s.starts_at, p_from)), interval '0')
          FROM public.market_calendar AS c
         CROSS JOIN LATERAL (VALUES (c.opens_at, coalesce(c.break_starts_at, c.closes_at)),
                                    (c.break_ends_at, c.closes_at)) AS s (starts_at, ends_at)
         WHERE c.market = p_market
           -- A session lies within two days of its trading date, seen from UTC.
           AND c.date BETWEEN (p_from AT TIME ZONE 'UTC')::date - 2 AND (p_to AT TIME ZONE 'UTC')::date + 2
           AND s.starts_at < p_to
           AND s.ends_at > p_from
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.open_time(text, timestamptz, timestamptz) IS
'Time during which a market is open within a period; clock time without a market, NULL where its calendar does not '
'reach.';

-- A profile says market by its code: NYSE becomes XNYS. One that no calendar is known for is taken with a warning,
-- because its calendar may come later, and without one it means nothing.
CREATE OR REPLACE FUNCTION _tidemark.name_market()
    RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    NEW.market := _tidemark.market_code(NEW.market);
    IF NOT EXISTS (SELECT FROM public.market_calendar AS c WHERE c.market = NEW.market) THEN
        RAISE WARNING USING
            MESSAGE = format('market_calendar has no rows of market %L', NEW.market),
            DETAIL = format('Until it has, profile %L is judged by the clock.', NEW.name),
            HINT = format('Fill it with: tidemark calendar --from DATE --to DATE --market %s', NEW.market);
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.name_market() IS
'Row trigger: a profile names its market by the code of its calendar, and is warned where there is none.';

CREATE OR REPLACE TRIGGER trg_name_market BEFORE INSERT OR UPDATE OF market ON public.quality_profiles FOR EACH ROW
WHEN (new.market IS NOT NULL) EXECUTE FUNCTION _tidemark.name_market();
COMMENT ON TRIGGER trg_name_market ON public.quality_profiles IS 'The market is named by the code of its calendar.';
