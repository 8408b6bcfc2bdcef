-- What became of predictions, forecasts and signals.

-- Fills actual_price, accuracy_score (1 less the relative error, never below 0; NULL where the price is 0 or the figure
-- foretold is none) and evaluated_at of predictions whose instant has come. The price is the close of the first bar, of
-- the length the model looked at, that starts at or after that instant and has ended. Where none starts within
-- p_patience, or within the length of a bar where that is more, the prediction stays as it is. So does, with a warning,
-- one that cannot be evaluated: it keeps no other from being so. Returns how many were evaluated.
CREATE OR REPLACE FUNCTION _tidemark.store_prediction_outcomes(
    p_prediction_ids uuid[],
    p_prices numeric[]
)
    RETURNS bigint
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH evaluated AS (
        UPDATE public.predictions AS p
           SET actual_price = o.price,
               accuracy_score = CASE
                   WHEN o.price = 0 OR p.predicted_price = 'NaN' THEN NULL
                   WHEN abs(p.predicted_price) < 1e30
                   THEN greatest(0, 1 - abs(p.predicted_price - o.price) / abs(o.price))
                   ELSE 0 END,
               evaluated_at = now()
          FROM unnest(p_prediction_ids, p_prices) AS o (prediction_id, price)
         WHERE p.prediction_id = o.prediction_id AND p.evaluated_at IS NULL
        RETURNING p.prediction_id
    )
    SELECT count(*) FROM evaluated;
$func$;
COMMENT ON FUNCTION _tidemark.store_prediction_outcomes(uuid[], numeric[]) IS
'Stores what became of predictions and returns of how many.';

CREATE OR REPLACE FUNCTION public.evaluate_predictions(p_patience interval DEFAULT '7 days')
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_ids uuid[];
    v_prices numeric[];
    v_count bigint := 0;
BEGIN
    SELECT array_agg(p.prediction_id), array_agg(trim_scale(round(b.close::numeric, 30))) INTO v_ids, v_prices
      FROM public.predictions AS p
     CROSS JOIN LATERAL (SELECT _tidemark.bar_length(p.interval) AS length) AS l
     CROSS JOIN LATERAL (
               SELECT c.close
                 FROM public.candles AS c
                WHERE c.asset_id = p.asset_id
                  AND c.interval = p.interval
                  AND c.ts >= p.prediction_for
                  AND c.ts <= p.prediction_for + greatest(p_patience, l.length)
                  AND c.ts + l.length <= now()
                  AND c.close > -1e30 -- what predictions hold
                  AND c.close < 1e30
                ORDER BY c.ts
                LIMIT 1
          ) AS b
     WHERE p.evaluated_at IS NULL AND p.prediction_for <= now();
    BEGIN
        RETURN _tidemark.store_prediction_outcomes(v_ids, v_prices);
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR raise_exception THEN
        FOR i IN 1 .. cardinality(v_ids) LOOP
            BEGIN
                v_count := v_count + _tidemark.store_prediction_outcomes(v_ids[i:i], v_prices[i:i]);
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR raise_exception THEN
                RAISE WARNING USING ERRCODE = SQLSTATE,
                    MESSAGE = format('prediction %s cannot be evaluated', v_ids[i]), DETAIL = SQLERRM;
            END;
        END LOOP;
        RETURN v_count;
    END;
END
$func$;
REVOKE ALL ON FUNCTION public.evaluate_predictions(interval) FROM public;
COMMENT ON FUNCTION public.evaluate_predictions(interval) IS
'Fills the actual price and the accuracy of predictions from the first ended bar at or after their instant; returns '
'how many. A bar later than p_patience, or than the length of a bar where that is more, does not count.';

-- The same for forecasts, all of them, from timeseries_data: value, or close where the source delivers bars. A bar
-- counts once it has ended; of a source without an interval every row does. Errors are NULL where the figure foretold
-- is none, and percentage_error also where the value is 0; it is 1e100 at most.
CREATE OR REPLACE FUNCTION _tidemark.store_forecast_outcomes(
    p_forecast_ids bigint[],
    p_figures double precision[]
)
    RETURNS bigint
    LANGUAGE sql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH evaluated AS (
        UPDATE public.forecasts AS f
           SET actual = o.figure,
               absolute_error = e.error::double precision,
               -- Beyond these bounds a quotient is no double precision.
               percentage_error = CASE WHEN e.percent >= 1e100 THEN 1e100 WHEN e.percent < 1e-100 THEN 0
                                       ELSE e.percent::double precision END,
               evaluated_at = now()
          FROM unnest(p_forecast_ids, p_figures) AS o (forecast_id, figure)
          JOIN public.forecasts AS g ON g.forecast_id = o.forecast_id
         CROSS JOIN LATERAL (
                   SELECT CASE WHEN abs(g.predicted) < 1e300 AND abs(o.figure) < 1e300
                               THEN abs(g.predicted::numeric - o.figure::numeric) END AS error
              ) AS d
         CROSS JOIN LATERAL (
                   SELECT CASE WHEN d.error = 0 OR d.error >= 1e-300 THEN d.error ELSE 0 * d.error END AS error,
                          d.error / nullif(abs(o.figure::numeric), 0) * 100 AS percent
              ) AS e
         WHERE f.forecast_id = o.forecast_id AND f.evaluated_at IS NULL
        RETURNING f.forecast_id
    )
    SELECT count(*) FROM evaluated;
$func$;
COMMENT ON FUNCTION _tidemark.store_forecast_outcomes(bigint[], double precision[]) IS
'Stores what became of forecasts and returns of how many.';

CREATE OR REPLACE FUNCTION public.evaluate_forecasts(p_patience interval DEFAULT '7 days')
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_ids bigint[];
    v_figures double precision[];
    v_count bigint := 0;
BEGIN
    SELECT array_agg(f.forecast_id), array_agg(r.figure) INTO v_ids, v_figures
      FROM public.forecasts AS f
      JOIN public.sources AS s ON s.source_id = f.source_id
     CROSS JOIN LATERAL (
               SELECT coalesce(_tidemark.bar_length(s.interval), interval '0') AS length,
                      s.data_type = 'ohlcv' AS has_bars
          ) AS l
     CROSS JOIN LATERAL (
               SELECT v.figure
                 FROM public.timeseries_data AS t
                CROSS JOIN LATERAL (SELECT CASE WHEN l.has_bars THEN t.close ELSE t.value END AS figure) AS v
                WHERE t.source_id = f.source_id
                  AND t.timestamp >= f.target_ts
                  AND t.timestamp <= f.target_ts + greatest(p_patience, l.length)
                  AND t.timestamp + CASE WHEN l.has_bars THEN l.length ELSE interval '0' END <= now()
                  AND v.figure > '-infinity'
                  AND v.figure < 'infinity'
                ORDER BY t.timestamp
                LIMIT 1
          ) AS r
     WHERE f.evaluated_at IS NULL AND f.target_ts <= now();
    BEGIN
        RETURN _tidemark.store_forecast_outcomes(v_ids, v_figures);
    EXCEPTION WHEN data_exception OR integrity_constraint_violation OR raise_exception THEN
        FOR i IN 1 .. cardinality(v_ids) LOOP
            BEGIN
                v_count := v_count + _tidemark.store_forecast_outcomes(v_ids[i:i], v_figures[i:i]);
            EXCEPTION WHEN data_exception OR integrity_constraint_violation OR raise_exception THEN
                RAISE WARNING USING ERRCODE = SQLSTATE,
                    MESSAGE = format('forecast %s cannot be evaluated', v_ids[i]), DETAIL = SQLERRM;
            END;
        END LOOP;
        RETURN v_count;
    END;
END
$func$;
REVOKE ALL ON FUNCTION public.evaluate_forecasts(interval) FROM public;
COMMENT ON FUNCTION public.evaluate_forecasts(interval) IS
'Fills the actual value and the errors of forecasts from the first row at or after their instant; returns how many. '
'A row later than p_patience, or than the length of a bar where that is more, does not count.';

CREATE OR REPLACE VIEW public.model_leaderboard WITH (security_invoker = true) AS
WITH outcomes AS (
    SELECT p.model_id,
           CASE WHEN p.model_id IS NULL THEN p.model_type END AS model_type,
           CASE WHEN p.model_id IS NULL THEN p.model_version END AS version,
           true AS is_prediction,
           p.evaluated_at,
           p.accuracy_score AS accuracy,
           CASE WHEN p.evaluated_at IS NOT NULL
                THEN sign(p.predicted_price - p.current_price) = sign(p.actual_price - p.current_price)
           END AS is_way_right,
           NULL::double precision AS percentage_error,
           NULL::boolean AS is_within
      FROM public.predictions AS p
     UNION ALL
    SELECT f.model_id,
           NULL,
           NULL,
           false,
           f.evaluated_at,
           CASE WHEN f.percentage_error IS NOT NULL THEN greatest(0, 1 - f.percentage_error / 100) END,
           NULL,
           f.percentage_error,
           f.actual BETWEEN f.lower AND f.upper
      FROM public.forecasts AS f
)
SELECT rank() OVER (ORDER BY avg(o.accuracy) DESC NULLS LAST) AS rank,
       o.model_id,
       m.name,
       coalesce(m.version, o.version) AS version,
       coalesce(m.model_type, o.model_type) AS model_type,
       m.stage,
       count(*) FILTER (WHERE o.is_prediction) AS predictions,
       count(*) FILTER (WHERE NOT o.is_prediction) AS forecasts,
       count(o.evaluated_at) AS evaluated,
       avg(o.accuracy) AS mean_accuracy,
       avg(o.is_way_right::integer)::double precision AS direction_rate,
       avg(o.percentage_error) AS mean_percentage_error,
       avg(o.is_within::integer)::double precision AS interval_coverage
  FROM outcomes AS o
  LEFT JOIN public.models AS m ON m.model_id = o.model_id
 GROUP BY o.model_id, o.model_type, o.version, m.model_id;
COMMENT ON VIEW public.model_leaderboard IS
'How well models foretold, best first by rank: registered ones, and others by type and version as their predictions '
'give them. Run evaluate_predictions() and evaluate_forecasts() before. Cost: every prediction and forecast.';
COMMENT ON COLUMN public.model_leaderboard.rank IS 'Place by mean_accuracy; models without outcomes come last.';
COMMENT ON COLUMN public.model_leaderboard.model_id IS 'Registered model; NULL: not registered.';
COMMENT ON COLUMN public.model_leaderboard.name IS 'Its name.';
COMMENT ON COLUMN public.model_leaderboard.version IS 'Version of the model.';
COMMENT ON COLUMN public.model_leaderboard.model_type IS 'Architecture; NULL: forecasts of nobody in particular.';
COMMENT ON COLUMN public.model_leaderboard.stage IS 'Stage of the registered model.';
COMMENT ON COLUMN public.model_leaderboard.predictions IS 'Predictions made.';
COMMENT ON COLUMN public.model_leaderboard.forecasts IS 'Forecasts made.';
COMMENT ON COLUMN public.model_leaderboard.evaluated IS 'How many of both have an outcome.';
COMMENT ON COLUMN public.model_leaderboard.mean_accuracy IS
'Mean of 1 less the relative error, never below 0, over both.';
COMMENT ON COLUMN public.model_leaderboard.direction_rate IS
'Share of evaluated predictions whose price moved the way foretold, 0 to 1.';
COMMENT ON COLUMN public.model_leaderboard.mean_percentage_error IS 'Mean error of forecasts in percent of the value.';
COMMENT ON COLUMN public.model_leaderboard.interval_coverage IS
'Share of outcomes within the bounds given with a forecast, 0 to 1.';

-- The bar a signal is about is the last one, of the signal's length (a day where it names none), that starts at or
-- before it; a return is the close of the n-th bar after that over its own close. What lies between: 60 bars and 10
-- days are enough for 20 bars of a market that closes over night. A figure that is no price makes no return.
CREATE OR REPLACE VIEW public.signal_performance WITH (security_invoker = true) AS
SELECT coalesce(s.strategy, t.name) AS strategy,
       s.signal_type,
       count(*) AS signals,
       avg(r.return_1) AS return_1,
       avg(r.return_5) AS return_5,
       avg(r.return_20) AS return_20,
       count(r.return_1) AS measured_1,
       count(r.return_5) AS measured_5,
       count(r.return_20) AS measured_20
  FROM public.signals AS s
  LEFT JOIN public.strategies AS t ON t.strategy_id = s.strategy_id
 CROSS JOIN LATERAL (
       SELECT i.interval,
              _tidemark.bar_length(i.interval) AS length
         FROM (SELECT coalesce(s.interval, '1d') AS interval) AS i
       ) AS l
  LEFT JOIN LATERAL (
       SELECT c.ts,
              c.close
         FROM public.candles AS c
        WHERE c.asset_id = s.asset_id
          AND c.interval = l.interval
          AND c.ts <= s.ts
          AND c.ts > s.ts - 2 * l.length - interval '10 days'
        ORDER BY c.ts DESC
        LIMIT 1
       ) AS b ON true
  LEFT JOIN LATERAL (
       SELECT n.closes[1] / n.base - 1 AS return_1,
              n.closes[5] / n.base - 1 AS return_5,
              n.closes[20] / n.base - 1 AS return_20
         FROM (SELECT array_agg(CASE WHEN abs(f.close) < 1e30 THEN f.close END ORDER BY f.ts) AS closes,
                      CASE WHEN abs(b.close) BETWEEN 1e-30 AND 1e30 THEN b.close END AS base
                 FROM (SELECT c.ts,
                              c.close
                         FROM public.candles AS c
                        WHERE c.asset_id = s.asset_id
                          AND c.interval = l.interval
                          AND c.ts > b.ts
                          AND c.ts < b.ts + 60 * l.length + interval '10 days'
                        ORDER BY c.ts
                        LIMIT 20) AS f) AS n
       ) AS r ON true
 GROUP BY coalesce(s.strategy, t.name), s.signal_type;
COMMENT ON VIEW public.signal_performance IS
'What followed signals: mean return of the price 1, 5 and 20 bars after the bar they are about. Cost: 21 bars per '
'signal.';
COMMENT ON COLUMN public.signal_performance.strategy IS 'Strategy as the signal names it, else of its strategy_id.';
COMMENT ON COLUMN public.signal_performance.signal_type IS 'The advice.';
COMMENT ON COLUMN public.signal_performance.signals IS 'Signals given.';
COMMENT ON COLUMN public.signal_performance.return_1 IS
'Mean return after 1 bar, as a fraction; of the price, so that a sell was right where it is negative.';
COMMENT ON COLUMN public.signal_performance.return_5 IS 'The same after 5 bars.';
COMMENT ON COLUMN public.signal_performance.return_20 IS 'The same after 20 bars.';
COMMENT ON COLUMN public.signal_performance.measured_1 IS 'Signals that return_1 is the mean of.';
COMMENT ON COLUMN public.signal_performance.measured_5 IS 'Signals that return_5 is the mean of.';
COMMENT ON COLUMN public.signal_performance.measured_20 IS 'Signals that return_20 is the mean of.';

CREATE OR REPLACE VIEW public.latest_signals WITH (security_invoker = true) AS
SELECT l.signal_id,
       l.asset_id,
       a.symbol,
       l.ts,
       l.signal_type,
       l.strength,
       l.confidence,
       l.price,
       l.target_price,
       l.stop_loss,
       l.strategy_id,
       l.strategy,
       l.model_id,
       l.interval,
       l.rationale,
       l.expires_at
  FROM public.assets AS a
 CROSS JOIN LATERAL (
       SELECT s.*
         FROM public.signals AS s
        WHERE s.asset_id = a.asset_id AND s.is_active AND (s.expires_at IS NULL OR s.expires_at > now())
        ORDER BY s.ts DESC, s.signal_id DESC
        LIMIT 1
       ) AS l;
COMMENT ON VIEW public.latest_signals IS
'The newest signal in force of each asset. Cost: the newest signals of each asset, until one in force is found.';
COMMENT ON COLUMN public.latest_signals.signal_id IS 'Identity of the signal.';
COMMENT ON COLUMN public.latest_signals.asset_id IS 'Asset advised on.';
COMMENT ON COLUMN public.latest_signals.symbol IS 'Its symbol.';
COMMENT ON COLUMN public.latest_signals.ts IS 'Bar the signal is about.';
COMMENT ON COLUMN public.latest_signals.signal_type IS 'The advice.';
COMMENT ON COLUMN public.latest_signals.strength IS 'Strength on the strategy''s own scale.';
COMMENT ON COLUMN public.latest_signals.confidence IS 'Confidence, 0 to 1.';
COMMENT ON COLUMN public.latest_signals.price IS 'Price when the signal was given.';
COMMENT ON COLUMN public.latest_signals.target_price IS 'Price to aim for.';
COMMENT ON COLUMN public.latest_signals.stop_loss IS 'Price at which to give up.';
COMMENT ON COLUMN public.latest_signals.strategy_id IS 'Strategy behind it, where there is one.';
COMMENT ON COLUMN public.latest_signals.strategy IS 'Name of the strategy as the application gives it.';
COMMENT ON COLUMN public.latest_signals.model_id IS 'Model behind it, where there is one.';
COMMENT ON COLUMN public.latest_signals.interval IS 'Bars it was made from.';
COMMENT ON COLUMN public.latest_signals.rationale IS 'Why, for people.';
COMMENT ON COLUMN public.latest_signals.expires_at IS 'When it lapses; NULL: never.';

CREATE OR REPLACE FUNCTION public.expire_signals()
    RETURNS bigint
    LANGUAGE sql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
    WITH expired AS (
        UPDATE public.signals AS s
           SET is_active = false
         WHERE s.is_active AND s.expires_at <= now()
        RETURNING s.signal_id
    )
    SELECT count(*) FROM expired;
$func$;
REVOKE ALL ON FUNCTION public.expire_signals() FROM public;
COMMENT ON FUNCTION public.expire_signals() IS
'Puts signals out of force whose expires_at has come; returns how many. latest_signals leaves them out before that.';
