-- Alerts that fire. Statement triggers on quotes, candles, indicators and predictions look at what a statement brought;
-- an alert, or the price of a watchlist item, that is reached fires once.
--
-- An alert watches what becomes known:
--
--     above   the figure is above the target. Of a bar the figure is its high.
--     below   the figure is below the target. Of a bar the figure is its low.
--     cross   the figure gets to the target or past it, from the side on which the last figure lay when the alert was
--             armed; where there was none, or it was just the target, from the side of the first one that is not. So
--             the alert waits for a rise or for a fall, like the other two, and needs no look at the past to fire.
--
-- Only rows newer than every other row of their series (asset; asset, bar length and name) count: one that comes late
-- says nothing about now. Of an updated row counts what is new about it: its close, a high above or a low below the one
-- before. Rows loaded as backfill, correction or replay (tidemark.ingest_mode) are no news and fire nothing. A row
-- dated into the future does not hide what comes after it.
--
-- An indicator alert watches the first figure (value) of the indicator it names, on bars of every length. A prediction
-- alert watches predicted_price; a series of predictions is an asset, model, horizon and user, and other users' own
-- predictions do not count.
--
-- What can still fire stands in _tidemark.armed_alerts, kept by triggers on alerts and watchlist_items. Two writers
-- that reach the same alert wait for each other, and one of them fires it. Neither what users wrote nor what they keep
-- locked makes a writer's statement fail: what cannot be fired stays armed, for the next figure beyond its target.

-- The last known price of an asset at p_at: of the newest quote or the newest bar, whichever is later. A bar counts
-- from its start, and a quote before a bar of the same instant, a longer bar before a shorter one. For an instant in
-- the past only bars that had ended by then count. origin is quote or candle. No row where nothing is known.
CREATE OR REPLACE FUNCTION public.latest_price(
    p_asset_id uuid,
    p_at timestamptz DEFAULT now()
)
    RETURNS TABLE (price double precision, ts timestamptz, origin text)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_since timestamptz;
BEGIN
    -- Ten days are enough for what is traded, and a few chunks; only where they are empty the rest is looked through.
    FOREACH v_since IN ARRAY ARRAY[p_at - interval '10 days', '-infinity'] LOOP
        RETURN QUERY
        SELECT l.*
          FROM ((SELECT q.price, q.ts, 'quote'
                   FROM public.quotes AS q
                  WHERE q.asset_id = p_asset_id
                    AND q.ts BETWEEN v_since AND p_at
                    AND q.price > '-infinity'
                    AND q.price < 'infinity'
                  ORDER BY q.ts DESC
                  LIMIT 1)
                 UNION ALL
                (SELECT c.close, c.ts, 'candle'
                   FROM public.candles AS c
                  WHERE c.asset_id = p_asset_id
                    AND c.ts BETWEEN v_since AND p_at
                    AND c.close > '-infinity'
                    AND c.close < 'infinity'
                    AND (p_at >= now() OR c.ts + _tidemark.bar_length(c.interval) <= p_at)
                  ORDER BY c.ts DESC, c.interval DESC
                  LIMIT 1)) AS l (price, ts, origin)
         ORDER BY l.ts DESC, l.origin DESC
         LIMIT 1;
        EXIT WHEN FOUND;
    END LOOP;
END
$func$;
COMMENT ON FUNCTION public.latest_price(uuid, timestamptz) IS
'Last known price of an asset at an instant, from quotes and bars, with its own instant and origin (quote, candle); '
'no row where nothing is known. A bar counts from its start.';

-- Fires what is reached: an array of {armed_id, alert_id, item_id, ts, value}.
CREATE OR REPLACE FUNCTION _tidemark.fire_reached(p_matches jsonb)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_fired jsonb;
BEGIN
    -- Locked in the same order by everybody, so that two writers that reach the same alerts wait for each other instead
    -- of failing; alerts before what is armed, as their owners do.
    PERFORM
       FROM public.alerts AS a
      WHERE a.alert_id IN (SELECT m.alert_id FROM jsonb_to_recordset(p_matches) AS m (alert_id bigint))
      ORDER BY a.alert_id
        FOR NO KEY UPDATE;
    PERFORM
       FROM public.watchlist_items AS i
      WHERE i.item_id IN (SELECT m.item_id FROM jsonb_to_recordset(p_matches) AS m (item_id uuid))
      ORDER BY i.item_id
        FOR NO KEY UPDATE;

    -- What is still armed now fires. An alert that its owner changed meanwhile was armed anew.
    SELECT jsonb_agg(f.*) INTO v_fired
      FROM (
        SELECT m.alert_id, m.item_id, m.value, a.target, a.condition, a.asset_id, a.figure,
               coalesce(l.user_id, w.user_id) AS user_id
          FROM jsonb_to_recordset(p_matches) AS m (
                   armed_id bigint, alert_id bigint, item_id uuid, ts timestamptz, value numeric
               )
          JOIN _tidemark.armed_alerts AS a ON a.armed_id = m.armed_id
          LEFT JOIN public.alerts AS l ON l.alert_id = m.alert_id
          LEFT JOIN public.watchlist_items AS i ON i.item_id = m.item_id
          LEFT JOIN public.watchlists AS w ON w.watchlist_id = i.watchlist_id
         ORDER BY m.ts, m.armed_id
      ) AS f;

    -- The triggers of these tables take what has fired from armed_alerts.
    UPDATE public.alerts AS a
       SET is_triggered = true, triggered_at = clock_timestamp()
     WHERE a.alert_id IN (SELECT f.alert_id FROM jsonb_to_recordset(v_fired) AS f (alert_id bigint));

    UPDATE public.watchlist_items AS i
       SET high_triggered_at = CASE WHEN f.is_high THEN clock_timestamp() ELSE i.high_triggered_at END,
           low_triggered_at = CASE WHEN f.is_low THEN clock_timestamp() ELSE i.low_triggered_at END
      FROM (SELECT g.item_id, bool_or(g.condition = 'above') AS is_high, bool_or(g.condition = 'below') AS is_low
              FROM jsonb_to_recordset(v_fired) AS g (item_id uuid, condition text)
             GROUP BY g.item_id) AS f
     WHERE i.item_id = f.item_id;

    INSERT INTO public.notifications (user_id, alert_id, notification_type, message)
    SELECT f.user_id, f.alert_id, 'alert',
           CASE WHEN a.message ~ '\S' THEN format('%s (%s)', a.message, t.event) ELSE t.event END
      FROM jsonb_to_recordset(v_fired) AS f (
               user_id uuid, alert_id bigint, asset_id uuid, figure text, condition text, target text, value text
           )
      LEFT JOIN public.alerts AS a ON a.alert_id = f.alert_id
      JOIN public.assets AS s ON s.asset_id = f.asset_id
      JOIN public.users AS u ON u.user_id = f.user_id AND u.enable_notifications
     CROSS JOIN LATERAL (
               SELECT concat_ws(' ', s.symbol, nullif(regexp_replace(f.figure, '^indicator ', ''), 'price'),
                                CASE f.condition WHEN 'cross' THEN 'crossed' ELSE f.condition END, f.target || ':',
                                f.value) AS event
           ) AS t;

    -- Whose it is and what was reached learns who may read it.
    PERFORM _tidemark.notify('tidemark_alert', jsonb_strip_nulls(
                jsonb_build_object('alert_id', f.fired -> 'alert_id', 'item_id', f.fired -> 'item_id')
            ))
       FROM jsonb_array_elements(v_fired) AS f (fired);
END
$func$;
COMMENT ON FUNCTION _tidemark.fire_reached(jsonb) IS
'Fires alerts and watchlist prices that were reached: marks them, tells their users, notifies tidemark_alert.';

-- Fires what the figures reach. The arrays have an element per observation: series numbers those that belong together,
-- figure names what was observed, user_id is whose own it is, first is what an observation starts with.
CREATE OR REPLACE FUNCTION _tidemark.fire_alerts(
    p_series integer[],
    p_asset_ids uuid[],
    p_figures text[],
    p_user_ids uuid[],
    p_ts timestamptz[],
    p_first double precision[],
    p_low double precision[],
    p_high double precision[]
)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- Few rows by index, however little is known about a fresh chunk or about what the statement brings.
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan
    SET jit = off
    -- As long as another writer may take, and no longer than a user may keep everybody waiting.
    SET lock_timeout = '500ms'
AS $func$
DECLARE
    v_matches jsonb;
    v_match jsonb;
BEGIN
    -- Crossings that do not know yet from which side learn it from the first figure of a series; those that are
    -- locked from a later one.
    BEGIN
        WITH firsts AS MATERIALIZED (
            SELECT DISTINCT ON (o.series) o.asset_id, o.figure, o.user_id, o.first
              FROM unnest(p_series, p_asset_ids, p_figures, p_user_ids, p_ts, p_first)
                   AS o (series, asset_id, figure, user_id, ts, first)
             WHERE o.first > '-infinity' AND o.first < 'infinity'
             ORDER BY o.series, o.ts
        ), unsettled AS MATERIALIZED (
            SELECT a.armed_id, f.first
              FROM firsts AS f
              JOIN _tidemark.armed_alerts AS a
                ON a.asset_id = f.asset_id AND a.figure = f.figure AND a.waits_for_rise AND a.reach = '-infinity'
              JOIN public.alerts AS l ON l.alert_id = a.alert_id
             WHERE f.user_id IS NULL OR f.user_id = a.user_id
             ORDER BY l.alert_id
               FOR NO KEY UPDATE OF l
        )
        UPDATE _tidemark.armed_alerts AS a
           SET waits_for_rise = u.first < a.target::double precision, reach = a.target
          FROM unsettled AS u
         WHERE a.armed_id = u.armed_id AND a.target::double precision <> u.first;
    EXCEPTION WHEN lock_not_available OR transaction_rollback THEN
        NULL;
    END;

    -- A step is an observation that goes further than all before it in its series, and reaches what lies between. So
    -- each alert is found once, by its target, however many observations there are.
    WITH steps AS MATERIALIZED (
        SELECT o.*,
               coalesce(max(o.high) OVER before, '-infinity') AS max_before,
               coalesce(min(o.low) OVER before, 'infinity') AS min_before
          FROM unnest(p_series, p_asset_ids, p_figures, p_user_ids, p_ts, p_low, p_high)
               AS o (series, asset_id, figure, user_id, ts, low, high)
        WINDOW before AS (PARTITION BY o.series ORDER BY o.ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ), spans AS MATERIALIZED (
        SELECT s.asset_id, s.figure, s.user_id, s.ts, true AS rises, s.max_before AS lower, s.high AS upper,
               s.high AS value
          FROM steps AS s
         WHERE s.high > s.max_before
         UNION ALL
        SELECT s.asset_id, s.figure, s.user_id, s.ts, false, s.low, s.min_before, s.low
          FROM steps AS s
         WHERE s.low < s.min_before
    )
    SELECT jsonb_agg(m.*) INTO v_matches
      FROM (
        SELECT DISTINCT ON (a.armed_id) a.armed_id, a.alert_id, a.item_id, s.ts, s.value::numeric AS value
          FROM spans AS s
          JOIN _tidemark.armed_alerts AS a
            ON a.asset_id = s.asset_id
           AND a.figure = s.figure
           AND a.waits_for_rise = s.rises
           AND a.reach BETWEEN s.lower AND s.upper
           AND a.reach > '-infinity'
           AND (a.condition = 'cross' OR a.reach <> s.value)
         WHERE s.user_id IS NULL OR s.user_id = a.user_id
         ORDER BY a.armed_id, s.ts
      ) AS m;
    IF v_matches IS NULL THEN
        RETURN;
    END IF;

    -- What users wrote, or keep locked, must not make the statement fail that brought the figures. If not all can be
    -- fired, each is tried on its own, and what cannot be fired stays armed.
    BEGIN
        PERFORM _tidemark.fire_reached(v_matches);
    EXCEPTION WHEN OTHERS THEN
        PERFORM set_config('lock_timeout', '10ms', true);
        FOR v_match IN SELECT m FROM jsonb_array_elements(v_matches) AS m LOOP
            BEGIN
                PERFORM _tidemark.fire_reached(jsonb_build_array(v_match));
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING USING ERRCODE = SQLSTATE,
                    MESSAGE = 'an alert was reached and could not be fired',
                    DETAIL = concat('alert_id: ' || (v_match ->> 'alert_id'), 'item_id: ' || (v_match ->> 'item_id')),
                    HINT = 'It stays armed.';
            END;
        END LOOP;
    END;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.fire_alerts(
    integer[], uuid[], text[], uuid[], timestamptz[], double precision[], double precision[],
    double precision[]
) FROM public;
COMMENT ON FUNCTION _tidemark.fire_alerts(
    integer[], uuid[], text[], uuid[], timestamptz[], double precision[], double precision[],
    double precision[]
) IS
'Fires the alerts and watchlist prices that series of figures reach; never fails because of one of them.';

-- The statement triggers below do the same for a table each. If what the statement brought reaches anything, they take
--
--     INSERT   the rows newer than the newest one that is not of the statement. That is where the list of the stored
--              rows of a series and the list of those of the statement, both newest first, part.
--     UPDATE   the newest row of each series, if it is the newest of all and its figure changed. (Asked by a subquery,
--              as NOT EXISTS could become a join that reads the whole series.)

-- Whether anything is reached takes one look at an index. In the order of (waits_for_rise, reach) what waits for a fall
-- to the price or above it comes last of its kind, followed by what waits for a rise, the lowest first: so the first
-- entry from there on tells.

-- A series is an asset; its figure is price.
CREATE OR REPLACE FUNCTION _tidemark.fire_alerts_on_quotes()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- Few rows by index, however little is known about a fresh chunk or about what the statement brings.
    SET enable_seqscan = off
AS $func$
DECLARE
    v_reached uuid[];
    v_since timestamptz;
    v_until timestamptz;
BEGIN
    -- A few rows are looked up one by one, which is quicker than to group them.
    IF NOT EXISTS (
        SELECT FROM (SELECT n.asset_id, n.price AS low, n.price AS high FROM new_rows AS n LIMIT 8) AS n
         WHERE (SELECT true FROM new_rows OFFSET 8 LIMIT 1)
            OR (SELECT NOT a.waits_for_rise OR a.reach <= n.high
                  FROM _tidemark.armed_alerts AS a
                 WHERE a.asset_id = n.asset_id
                   AND a.figure = 'price'
                   AND (a.waits_for_rise, a.reach) >= (false, n.low)
                 ORDER BY a.waits_for_rise, a.reach
                 LIMIT 1)
    ) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(d.asset_id), min(d.first_ts) - interval '10 days', greatest(max(d.last_ts), now())
      INTO v_reached, v_since, v_until
      FROM (SELECT n.asset_id, min(n.price) AS low, max(n.price) AS high, min(n.ts) AS first_ts, max(n.ts) AS last_ts
              FROM new_rows AS n
             WHERE n.price > '-infinity' AND n.price < 'infinity'
             GROUP BY n.asset_id) AS d
     WHERE (SELECT NOT a.waits_for_rise OR a.reach <= d.high
              FROM _tidemark.armed_alerts AS a
             WHERE a.asset_id = d.asset_id
               AND a.figure = 'price'
               AND (a.waits_for_rise, a.reach) >= (false, d.low)
             ORDER BY a.waits_for_rise, a.reach
             LIMIT 1);
    IF v_reached IS NULL THEN
        RETURN NULL;
    END IF;

    IF TG_OP = 'INSERT' THEN
        PERFORM _tidemark.fire_alerts(
                    array_agg(s.series), array_agg(s.asset_id), array_agg('price'::text), array_agg(NULL::uuid),
                    array_agg(n.ts), array_agg(n.price), array_agg(n.price), array_agg(n.price)
                )
           FROM (
             SELECT row_number() OVER ()::integer AS series, n.asset_id,
                    array_agg(n.ts ORDER BY n.ts DESC) AS ts, array_agg(n.price ORDER BY n.ts DESC) AS prices
               FROM new_rows AS n
              WHERE n.asset_id = ANY (v_reached)
              GROUP BY n.asset_id
           ) AS s
           LEFT JOIN LATERAL (
                     SELECT q.ts
                       FROM (SELECT q.ts, row_number() OVER (ORDER BY q.ts DESC) AS place
                               FROM public.quotes AS q
                              WHERE q.asset_id = s.asset_id AND q.ts BETWEEN v_since AND v_until
                              ORDER BY q.ts DESC
                              LIMIT cardinality(s.ts) + 1) AS q
                      WHERE s.ts[q.place] IS DISTINCT FROM q.ts
                      ORDER BY q.place
                      LIMIT 1
                ) AS f ON true
          CROSS JOIN LATERAL unnest(s.ts, s.prices) AS n (ts, price)
          WHERE (n.ts > f.ts) IS NOT false AND n.price > '-infinity' AND n.price < 'infinity'
         HAVING count(*) > 0;
    ELSE
        PERFORM _tidemark.fire_alerts(
                    array_agg(n.series), array_agg(n.asset_id), array_agg('price'::text), array_agg(NULL::uuid),
                    array_agg(n.ts), array_agg(n.price), array_agg(n.price), array_agg(n.price)
                )
           FROM (SELECT DISTINCT ON (n.asset_id) row_number() OVER ()::integer AS series, n.asset_id, n.ts, n.price
                   FROM new_rows AS n
                  WHERE n.asset_id = ANY (v_reached)
                  ORDER BY n.asset_id, n.ts DESC) AS n
           LEFT JOIN old_rows AS o ON o.asset_id = n.asset_id AND o.ts = n.ts
          WHERE n.price > '-infinity'
            AND n.price < 'infinity'
            AND n.price IS DISTINCT FROM o.price
            AND (SELECT true
                   FROM public.quotes AS q
                  WHERE q.asset_id = n.asset_id AND q.ts > n.ts AND q.ts BETWEEN v_since AND v_until
                  LIMIT 1) IS NULL
         HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.fire_alerts_on_quotes() FROM public;
COMMENT ON FUNCTION _tidemark.fire_alerts_on_quotes() IS
'Statement trigger of quotes: fires the alerts that new prices reach.';

-- A series is an asset and a length of bars; the figures of a bar are its low, its high and its close.
CREATE OR REPLACE FUNCTION _tidemark.fire_alerts_on_candles()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- Few rows by index, however little is known about a fresh chunk or about what the statement brings.
    SET enable_seqscan = off
AS $func$
DECLARE
    v_reached uuid[];
    v_since timestamptz;
    v_until timestamptz;
BEGIN
    -- A few rows are looked up one by one, which is quicker than to group them.
    IF NOT EXISTS (
        SELECT FROM (SELECT n.asset_id, least(n.low, n.close) AS low, greatest(n.high, n.close) AS high
                       FROM new_rows AS n
                      LIMIT 8) AS n
         WHERE (SELECT true FROM new_rows OFFSET 8 LIMIT 1)
            OR (SELECT NOT a.waits_for_rise OR a.reach <= n.high
                  FROM _tidemark.armed_alerts AS a
                 WHERE a.asset_id = n.asset_id
                   AND a.figure = 'price'
                   AND (a.waits_for_rise, a.reach) >= (false, n.low)
                 ORDER BY a.waits_for_rise, a.reach
                 LIMIT 1)
    ) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(d.asset_id), min(d.first_ts) - interval '10 days' - max(_tidemark.bar_length(d.longest)),
           greatest(max(d.last_ts), now())
      INTO v_reached, v_since, v_until
      FROM (SELECT n.asset_id, min(least(n.low, n.close)) AS low, max(greatest(n.high, n.close)) AS high,
                   min(n.ts) AS first_ts, max(n.ts) AS last_ts, max(n.interval) AS longest
              FROM new_rows AS n
             WHERE least(n.low, n.close) > '-infinity' AND greatest(n.high, n.close) < 'infinity'
             GROUP BY n.asset_id) AS d
     WHERE (SELECT NOT a.waits_for_rise OR a.reach <= d.high
              FROM _tidemark.armed_alerts AS a
             WHERE a.asset_id = d.asset_id
               AND a.figure = 'price'
               AND (a.waits_for_rise, a.reach) >= (false, d.low)
             ORDER BY a.waits_for_rise, a.reach
             LIMIT 1);
    IF v_reached IS NULL THEN
        RETURN NULL;
    END IF;

    IF TG_OP = 'INSERT' THEN
        PERFORM _tidemark.fire_alerts(
                    array_agg(s.series), array_agg(s.asset_id), array_agg('price'::text), array_agg(NULL::uuid),
                    array_agg(n.ts), array_agg(coalesce(n.open, n.low)), array_agg(n.low), array_agg(n.high)
                )
           FROM (
             SELECT row_number() OVER ()::integer AS series, n.asset_id, n.interval,
                    array_agg(n.ts ORDER BY n.ts DESC) AS ts, array_agg(n.open ORDER BY n.ts DESC) AS opens,
                    array_agg(least(n.low, n.close) ORDER BY n.ts DESC) AS lows,
                    array_agg(greatest(n.high, n.close) ORDER BY n.ts DESC) AS highs
               FROM new_rows AS n
              WHERE n.asset_id = ANY (v_reached)
              GROUP BY n.asset_id, n.interval
           ) AS s
           LEFT JOIN LATERAL (
                     SELECT c.ts
                       FROM (SELECT c.ts, row_number() OVER (ORDER BY c.ts DESC) AS place
                               FROM public.candles AS c
                              WHERE c.asset_id = s.asset_id
                                AND c.interval = s.interval
                                AND c.ts BETWEEN v_since AND v_until
                              ORDER BY c.ts DESC
                              LIMIT cardinality(s.ts) + 1) AS c
                      WHERE s.ts[c.place] IS DISTINCT FROM c.ts
                      ORDER BY c.place
                      LIMIT 1
                ) AS f ON true
          CROSS JOIN LATERAL unnest(s.ts, s.opens, s.lows, s.highs) AS n (ts, open, low, high)
          WHERE (n.ts > f.ts) IS NOT false AND n.low > '-infinity' AND n.high < 'infinity'
         HAVING count(*) > 0;
    ELSE
        PERFORM _tidemark.fire_alerts(
                    array_agg(n.series), array_agg(n.asset_id), array_agg('price'::text), array_agg(NULL::uuid),
                    array_agg(n.ts), array_agg(coalesce(o.close, n.open, x.low)), array_agg(x.low), array_agg(x.high)
                )
           FROM (SELECT DISTINCT ON (n.asset_id, n.interval)
                        row_number() OVER ()::integer AS series, n.asset_id, n.interval, n.ts, n.open, n.low, n.high,
                        n.close
                   FROM new_rows AS n
                  WHERE n.asset_id = ANY (v_reached)
                  ORDER BY n.asset_id, n.interval, n.ts DESC) AS n
           LEFT JOIN old_rows AS o ON o.asset_id = n.asset_id AND o.interval = n.interval AND o.ts = n.ts
          CROSS JOIN LATERAL (
                     SELECT CASE WHEN (n.low >= o.low) IS true THEN n.close ELSE least(n.low, n.close) END AS low,
                            CASE WHEN (n.high <= o.high) IS true THEN n.close ELSE greatest(n.high, n.close) END AS high
                ) AS x
          WHERE x.low > '-infinity'
            AND x.high < 'infinity'
            AND (n.low, n.high, n.close) IS DISTINCT FROM (o.low, o.high, o.close)
            AND (SELECT true
                   FROM public.candles AS c
                  WHERE c.asset_id = n.asset_id
                    AND c.interval = n.interval
                    AND c.ts > n.ts
                    AND c.ts BETWEEN v_since AND v_until
                  LIMIT 1) IS NULL
         HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.fire_alerts_on_candles() FROM public;
COMMENT ON FUNCTION _tidemark.fire_alerts_on_candles() IS
'Statement trigger of candles: fires the alerts that new bars reach.';

-- A series is an asset, a length of bars and a name; its figure is value. Alerts name the indicator or its family.
CREATE OR REPLACE FUNCTION _tidemark.fire_alerts_on_indicators()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    -- Few rows by index, however little is known about a fresh chunk or about what the statement brings.
    SET enable_seqscan = off
AS $func$
DECLARE
    v_reached uuid[];
    v_since timestamptz;
    v_until timestamptz;
BEGIN
    IF NOT EXISTS (
        SELECT FROM (SELECT n.asset_id FROM new_rows AS n LIMIT 8) AS n
         WHERE (SELECT true FROM new_rows OFFSET 8 LIMIT 1)
            OR EXISTS (SELECT FROM _tidemark.armed_alerts AS a
                        WHERE a.asset_id = n.asset_id AND a.figure >= 'indicator ' AND a.figure < 'indicator!')
    ) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(d.asset_id), min(d.first_ts) - interval '10 days' - max(_tidemark.bar_length(d.longest)),
           greatest(max(d.last_ts), now())
      INTO v_reached, v_since, v_until
      FROM (SELECT n.asset_id, min(n.ts) AS first_ts, max(n.ts) AS last_ts, max(n.interval) AS longest
              FROM new_rows AS n GROUP BY n.asset_id) AS d
     WHERE EXISTS (SELECT FROM _tidemark.armed_alerts AS a
                    WHERE a.asset_id = d.asset_id AND a.figure >= 'indicator ' AND a.figure < 'indicator!');
    IF v_reached IS NULL THEN
        RETURN NULL;
    END IF;

    IF TG_OP = 'INSERT' THEN
        PERFORM _tidemark.fire_alerts(
                    array_agg(s.series), array_agg(s.asset_id), array_agg('indicator ' || s.indicator),
                    array_agg(NULL::uuid), array_agg(n.ts), array_agg(n.value), array_agg(n.value), array_agg(n.value)
                )
           FROM (
             SELECT row_number() OVER ()::integer AS series, g.*, k.indicator
               FROM (SELECT n.asset_id, n.interval, n.name, min(n.indicator_type) AS indicator_type,
                            array_agg(n.ts ORDER BY n.ts DESC) AS ts, array_agg(n.value ORDER BY n.ts DESC) AS figures
                       FROM new_rows AS n
                      WHERE n.asset_id = ANY (v_reached)
                      GROUP BY n.asset_id, n.interval, n.name) AS g
              CROSS JOIN LATERAL (SELECT lower(g.name) UNION SELECT g.indicator_type::text) AS k (indicator)
           ) AS s
           LEFT JOIN LATERAL (
                     SELECT i.ts
                       FROM (SELECT i.ts, row_number() OVER (ORDER BY i.ts DESC) AS place
                               FROM public.indicators AS i
                              WHERE i.asset_id = s.asset_id
                                AND i.interval = s.interval
                                AND i.name = s.name
                                AND i.ts BETWEEN v_since AND v_until
                              ORDER BY i.ts DESC
                              LIMIT cardinality(s.ts) + 1) AS i
                      WHERE s.ts[i.place] IS DISTINCT FROM i.ts
                      ORDER BY i.place
                      LIMIT 1
                ) AS f ON true
          CROSS JOIN LATERAL unnest(s.ts, s.figures) AS n (ts, value)
          WHERE (n.ts > f.ts) IS NOT false AND n.value > '-infinity' AND n.value < 'infinity'
         HAVING count(*) > 0;
    ELSE
        PERFORM _tidemark.fire_alerts(
                    array_agg(n.series), array_agg(n.asset_id), array_agg('indicator ' || n.indicator),
                    array_agg(NULL::uuid), array_agg(n.ts), array_agg(n.value), array_agg(n.value), array_agg(n.value)
                )
           FROM (SELECT row_number() OVER ()::integer AS series, g.*, k.indicator
                   FROM (SELECT DISTINCT ON (n.asset_id, n.interval, n.name) n.*
                           FROM new_rows AS n
                          WHERE n.asset_id = ANY (v_reached)
                          ORDER BY n.asset_id, n.interval, n.name, n.ts DESC) AS g
                  CROSS JOIN LATERAL (SELECT lower(g.name) UNION SELECT g.indicator_type::text) AS k (indicator)) AS n
           LEFT JOIN old_rows AS o
             ON o.asset_id = n.asset_id AND o.interval = n.interval AND o.name = n.name AND o.ts = n.ts
          WHERE n.value > '-infinity'
            AND n.value < 'infinity'
            AND n.value IS DISTINCT FROM o.value
            AND (SELECT true
                   FROM public.indicators AS i
                  WHERE i.asset_id = n.asset_id
                    AND i.interval = n.interval
                    AND i.name = n.name
                    AND i.ts > n.ts
                    AND i.ts BETWEEN v_since AND v_until
                  LIMIT 1) IS NULL
         HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.fire_alerts_on_indicators() FROM public;
COMMENT ON FUNCTION _tidemark.fire_alerts_on_indicators() IS
'Statement trigger of indicators: fires the alerts that new figures reach.';

-- A series is an asset, a model, a horizon and a user, in the order of what is foretold; its figure is predicted_price.
-- Of updates those count that change the figure before its outcome is known.
CREATE OR REPLACE FUNCTION _tidemark.fire_alerts_on_predictions()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NOT EXISTS (SELECT FROM new_rows AS n
                     JOIN _tidemark.armed_alerts AS a ON a.asset_id = n.asset_id AND a.figure = 'prediction') THEN
        RETURN NULL;
    END IF;

    IF TG_OP = 'INSERT' THEN
        PERFORM _tidemark.fire_alerts(
                    array_agg(s.series), array_agg(s.asset_id), array_agg('prediction'::text), array_agg(s.user_id),
                    array_agg(s.prediction_for), array_agg(s.figure), array_agg(s.figure), array_agg(s.figure)
                )
           FROM (SELECT n.*, n.predicted_price::double precision AS figure,
                        dense_rank() OVER (ORDER BY n.asset_id, n.user_id, n.model_id, n.model_type, n.model_version,
                                                n.horizon_hours)::integer AS series
                   FROM new_rows AS n
                  WHERE n.predicted_price > '-infinity' AND n.predicted_price < 'infinity') AS s
           LEFT JOIN LATERAL (
                     SELECT p.prediction_for
                       FROM public.predictions AS p
                      WHERE p.asset_id = s.asset_id
                        AND p.user_id IS NOT DISTINCT FROM s.user_id
                        AND p.model_id IS NOT DISTINCT FROM s.model_id
                        AND p.model_type = s.model_type
                        AND p.model_version IS NOT DISTINCT FROM s.model_version
                        AND p.horizon_hours = s.horizon_hours
                        AND p.prediction_id NOT IN (SELECT o.prediction_id FROM new_rows AS o)
                      ORDER BY p.prediction_for DESC
                      LIMIT 1
                ) AS f ON true
          WHERE (s.prediction_for >= f.prediction_for) IS NOT false
         HAVING count(*) > 0;
    ELSE
        PERFORM _tidemark.fire_alerts(
                    array_agg(s.series), array_agg(s.asset_id), array_agg('prediction'::text), array_agg(s.user_id),
                    array_agg(s.prediction_for), array_agg(s.figure), array_agg(s.figure), array_agg(s.figure)
                )
           FROM (SELECT n.asset_id, n.user_id, n.prediction_for, n.predicted_price::double precision AS figure,
                        row_number() OVER ()::integer AS series
                   FROM new_rows AS n
                   JOIN old_rows AS o ON o.prediction_id = n.prediction_id
                  WHERE n.predicted_price <> o.predicted_price
                    AND n.predicted_price > '-infinity'
                    AND n.predicted_price < 'infinity'
                    AND n.evaluated_at IS NULL) AS s
         HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.fire_alerts_on_predictions() FROM public;
COMMENT ON FUNCTION _tidemark.fire_alerts_on_predictions() IS
'Statement trigger of predictions: fires the alerts that what is foretold reaches.';

-- One trigger for new rows and one for updated ones. What the quality engine writes changes no figure.
DO $do$
DECLARE
    c_is_news CONSTANT text :=
        'coalesce(current_setting(''tidemark.ingest_mode'', true), '''') '
        'NOT IN (''backfill'', ''correction'', ''replay'')';
    c_is_verdict CONSTANT text :=
        'coalesce(current_setting(''tidemark.writing_scores'', true), '''') = ''on'' AND _tidemark.is_clerk()';
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['quotes', 'candles', 'indicators', 'predictions'] LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER trg_fire_alerts AFTER INSERT ON public.%1$I REFERENCING NEW TABLE AS new_rows '
            'FOR EACH STATEMENT WHEN (%2$s) EXECUTE FUNCTION _tidemark.%3$I()',
            v_table, c_is_news, 'fire_alerts_on_' || v_table
        );
        EXECUTE format('COMMENT ON TRIGGER trg_fire_alerts ON public.%I IS %L', v_table,
                       'Fires the alerts that new rows reach.');
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER trg_fire_alerts_updated AFTER UPDATE ON public.%1$I '
            'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows '
            'FOR EACH STATEMENT WHEN (%2$s AND NOT (%3$s)) EXECUTE FUNCTION _tidemark.%4$I()',
            v_table, c_is_news, c_is_verdict, 'fire_alerts_on_' || v_table
        );
        EXECUTE format('COMMENT ON TRIGGER trg_fire_alerts_updated ON public.%I IS %L', v_table,
                       'Fires the alerts that updated rows reach.');
    END LOOP;
END
$do$;

-- The last of the figures that an alert watches; NULL where none is known. Looks back 10 days, and without bound where
-- there is nothing.
CREATE OR REPLACE FUNCTION _tidemark.last_figure(p_alert public.alerts)
    RETURNS double precision
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_since timestamptz;
    v_figure double precision;
BEGIN
    IF p_alert.alert_type = 'price' THEN
        SELECT l.price INTO v_figure FROM public.latest_price(p_alert.asset_id) AS l;
    ELSIF p_alert.alert_type = 'indicator' THEN
        FOREACH v_since IN ARRAY ARRAY[now() - interval '10 days', '-infinity'] LOOP
            SELECT i.value INTO v_figure
              FROM public.indicators AS i
             WHERE i.asset_id = p_alert.asset_id
               AND p_alert.indicator IN (lower(i.name), i.indicator_type::text)
               AND i.ts >= v_since
               AND i.value > '-infinity'
               AND i.value < 'infinity'
             ORDER BY i.ts DESC
             LIMIT 1;
            EXIT WHEN v_figure IS NOT NULL;
        END LOOP;
    ELSE
        SELECT p.predicted_price INTO v_figure
          FROM public.predictions AS p
         WHERE p.asset_id = p_alert.asset_id AND (p.user_id IS NULL OR p.user_id = p_alert.user_id)
         ORDER BY p.prediction_for DESC
         LIMIT 1;
    END IF;
    RETURN v_figure;
END
$func$;
COMMENT ON FUNCTION _tidemark.last_figure(public.alerts) IS
'The last of the figures that an alert watches; NULL where none is known.';

-- Brings armed_alerts up to date with these alerts.
CREATE OR REPLACE FUNCTION _tidemark.arm_alerts(p_alert_ids bigint[])
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    DELETE FROM _tidemark.armed_alerts AS d WHERE d.alert_id = ANY (p_alert_ids);

    INSERT INTO _tidemark.armed_alerts (asset_id, figure, waits_for_rise, reach, target, condition, user_id, alert_id)
    SELECT a.asset_id, concat_ws(' ', a.alert_type, a.indicator),
           CASE a.condition WHEN 'above' THEN true WHEN 'below' THEN false ELSE coalesce(s.is_below, true) END,
           CASE WHEN a.condition = 'cross' AND s.is_below IS NULL THEN '-infinity' ELSE a.target_value END,
           a.target_value, a.condition, a.user_id, a.alert_id
      FROM public.alerts AS a
      LEFT JOIN LATERAL (
                SELECT CASE WHEN f.figure <> a.target_value::double precision
                            THEN f.figure < a.target_value::double precision END AS is_below
                  FROM _tidemark.last_figure(a) AS f (figure)
                 WHERE a.condition = 'cross'
           ) AS s ON true
     WHERE a.alert_id = ANY (p_alert_ids)
       AND a.is_active
       AND NOT a.is_triggered
       AND (a.alert_type <> 'indicator' OR a.indicator IS NOT NULL);
END
$func$;
COMMENT ON FUNCTION _tidemark.arm_alerts(bigint[]) IS 'Brings armed_alerts up to date with these alerts.';

-- Brings armed_alerts up to date with these watchlist items.
CREATE OR REPLACE FUNCTION _tidemark.arm_items(p_item_ids uuid[])
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    DELETE FROM _tidemark.armed_alerts AS d WHERE d.item_id = ANY (p_item_ids);

    INSERT INTO _tidemark.armed_alerts (asset_id, figure, waits_for_rise, reach, target, condition, item_id)
    SELECT i.asset_id, 'price', v.condition = 'above', v.target, v.target, v.condition, i.item_id
      FROM public.watchlist_items AS i
     CROSS JOIN LATERAL (VALUES
               ('above'::public.alert_condition, i.price_alert_high, i.high_triggered_at),
               ('below', i.price_alert_low, i.low_triggered_at)
           ) AS v (condition, target, triggered_at)
     WHERE i.item_id = ANY (p_item_ids) AND v.target IS NOT NULL AND v.triggered_at IS NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.arm_items(uuid[]) IS 'Brings armed_alerts up to date with these watchlist items.';

-- Statement trigger of alerts and watchlist_items: arms what is new or changed in what matters.
CREATE OR REPLACE FUNCTION _tidemark.arm_changed()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_TABLE_NAME = 'alerts' AND TG_OP = 'INSERT' THEN
        PERFORM _tidemark.arm_alerts(ARRAY(SELECT n.alert_id FROM new_rows AS n));
    ELSIF TG_TABLE_NAME = 'alerts' THEN
        PERFORM _tidemark.arm_alerts(ARRAY(
            SELECT c.alert_id
              FROM (SELECT n.alert_id, n.user_id, n.asset_id, n.alert_type, n.indicator, n.condition, n.target_value,
                           n.is_active, n.is_triggered
                      FROM new_rows AS n
                    EXCEPT
                    SELECT o.alert_id, o.user_id, o.asset_id, o.alert_type, o.indicator, o.condition, o.target_value,
                           o.is_active, o.is_triggered
                      FROM old_rows AS o) AS c
        ));
    ELSIF TG_OP = 'INSERT' THEN
        PERFORM _tidemark.arm_items(ARRAY(SELECT n.item_id FROM new_rows AS n));
    ELSE
        PERFORM _tidemark.arm_items(ARRAY(
            SELECT c.item_id
              FROM (SELECT n.item_id, n.asset_id, n.price_alert_high, n.price_alert_low, n.high_triggered_at,
                           n.low_triggered_at
                      FROM new_rows AS n
                    EXCEPT
                    SELECT o.item_id, o.asset_id, o.price_alert_high, o.price_alert_low, o.high_triggered_at,
                           o.low_triggered_at
                      FROM old_rows AS o) AS c
        ));
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.arm_changed() FROM public;
COMMENT ON FUNCTION _tidemark.arm_changed() IS
'Statement trigger of alerts and watchlist_items: arms what is new or changed in what matters.';

CREATE OR REPLACE TRIGGER trg_arm_inserted AFTER INSERT ON public.alerts
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.arm_changed();
COMMENT ON TRIGGER trg_arm_inserted ON public.alerts IS 'Arms new alerts.';

CREATE OR REPLACE TRIGGER trg_arm_updated AFTER UPDATE ON public.alerts
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.arm_changed();
COMMENT ON TRIGGER trg_arm_updated ON public.alerts IS 'Arms changed alerts anew, and disarms those that fired.';

CREATE OR REPLACE TRIGGER trg_arm_inserted AFTER INSERT ON public.watchlist_items
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.arm_changed();
COMMENT ON TRIGGER trg_arm_inserted ON public.watchlist_items IS 'Arms the prices of new items.';

CREATE OR REPLACE TRIGGER trg_arm_updated AFTER UPDATE ON public.watchlist_items
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.arm_changed();
COMMENT ON TRIGGER trg_arm_updated ON public.watchlist_items IS
'Arms the prices of changed items anew, and disarms those that fired.';

-- Completes what a user writes. An alert on an indicator that names none takes the first one that its message names;
-- where there is none, a warning says that it cannot fire. Whether an alert has fired and when go together.
CREATE OR REPLACE FUNCTION _tidemark.complete_alert()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.alert_type <> 'indicator' THEN
        NEW.indicator := NULL;
    ELSE
        NEW.indicator := lower(coalesce(NEW.indicator, (regexp_match(
            NEW.message,
            '\m((?:sma|ema|rsi|macd|bbands|atr|obv|stoch|adx|cci)(?:_[a-z0-9_.]*[a-z0-9])?)(?![a-z0-9_])', 'i'
        ))[1]));
        IF NEW.indicator IS NULL AND NEW.is_active THEN
            RAISE WARNING USING MESSAGE = 'the alert names no indicator and cannot fire',
                HINT = 'Name one in the column indicator, or in the message, as in rsi_14.';
        END IF;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.is_triggered IS DISTINCT FROM OLD.is_triggered THEN
        NEW.triggered_at := CASE WHEN NEW.is_triggered THEN coalesce(NEW.triggered_at, now()) END;
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.complete_alert() IS
'Row trigger of alerts: finds the indicator in the message and keeps triggered_at with is_triggered.';

CREATE OR REPLACE TRIGGER trg_complete_alert BEFORE INSERT OR UPDATE ON public.alerts
FOR EACH ROW EXECUTE FUNCTION _tidemark.complete_alert();
COMMENT ON TRIGGER trg_complete_alert ON public.alerts IS
'Finds the indicator in the message and keeps triggered_at with is_triggered.';

CREATE OR REPLACE FUNCTION _tidemark.rearm_watchlist_item()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NEW.price_alert_high IS DISTINCT FROM OLD.price_alert_high OR NEW.asset_id <> OLD.asset_id THEN
        NEW.high_triggered_at := NULL;
    END IF;
    IF NEW.price_alert_low IS DISTINCT FROM OLD.price_alert_low OR NEW.asset_id <> OLD.asset_id THEN
        NEW.low_triggered_at := NULL;
    END IF;
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.rearm_watchlist_item() IS 'Row trigger: a new price to wait for begins anew.';

CREATE OR REPLACE TRIGGER trg_rearm_watchlist_item
BEFORE UPDATE OF asset_id, price_alert_high, price_alert_low ON public.watchlist_items
FOR EACH ROW EXECUTE FUNCTION _tidemark.rearm_watchlist_item();
COMMENT ON TRIGGER trg_rearm_watchlist_item ON public.watchlist_items IS 'A new price to wait for begins anew.';

-- Makes a watchlist its owner's default, in the place of the one that was. Raises TM614 where there is none of that
-- key.
CREATE OR REPLACE FUNCTION public.set_default_watchlist(p_watchlist_id uuid)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_user_id uuid;
BEGIN
    SELECT w.user_id INTO v_user_id FROM public.watchlists AS w WHERE w.watchlist_id = p_watchlist_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM614',
            MESSAGE = format('there is no watchlist %s', coalesce(p_watchlist_id::text, 'NULL'));
    END IF;
    -- All of the owner's lists, so that of two that choose at the same time the later one wins.
    PERFORM FROM public.watchlists AS w WHERE w.user_id = v_user_id ORDER BY w.watchlist_id FOR NO KEY UPDATE;
    UPDATE public.watchlists AS w
       SET is_default = false
     WHERE w.user_id = v_user_id AND w.is_default AND w.watchlist_id <> p_watchlist_id;
    UPDATE public.watchlists AS w SET is_default = true WHERE w.watchlist_id = p_watchlist_id AND NOT w.is_default;
END
$func$;
COMMENT ON FUNCTION public.set_default_watchlist(uuid) IS
'Makes a watchlist its owner''s default, in the place of the one that was; raises TM614 where there is none of that '
'key.';

-- Alerts that were written while these triggers were not there.
DO $do$
BEGIN
    PERFORM _tidemark.arm_alerts(ARRAY(
        SELECT a.alert_id
          FROM public.alerts AS a
          LEFT JOIN _tidemark.armed_alerts AS d ON d.alert_id = a.alert_id
         WHERE (a.is_active AND NOT a.is_triggered) = (d.alert_id IS NULL)
    ));
    PERFORM _tidemark.arm_items(ARRAY(
        SELECT i.item_id
          FROM public.watchlist_items AS i
         WHERE num_nonnulls(i.price_alert_high, i.price_alert_low)
               <> (SELECT count(*) FROM _tidemark.armed_alerts AS d WHERE d.item_id = i.item_id)
    ));
END
$do$;
