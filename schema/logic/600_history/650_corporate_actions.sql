-- Splits that are put right. Raw rows stay as they came; the views …_adjusted divide, when they are read, what was
-- before a split by its ratio, so that an action that is loaded, corrected or rejected shows at once, on both editions
-- and in every aggregate. What the detector flagged because of a split is closed as expected; where the split is known,
-- it flags nothing, and no baseline contains it (split_shifts() in 530).

-- The instant from which prices are those of the new shares.
CREATE OR REPLACE FUNCTION _tidemark.action_starts_at(p_action public.corporate_actions)
    RETURNS timestamptz
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT coalesce(p_action.effective_at, p_action.ex_date::timestamp AT TIME ZONE 'UTC');
$func$;
COMMENT ON FUNCTION _tidemark.action_starts_at(public.corporate_actions) IS
'Instant from which prices are those of the new shares. Inlined.';

-- What prices of an asset in a bar that ends at an instant are divided by, and volumes multiplied with: the ratios of
-- what came at or after that. A bar in which it came counts as after it.
CREATE OR REPLACE FUNCTION _tidemark.adjustment(
    p_asset_id uuid,
    p_ends_at timestamptz
)
    RETURNS double precision
    LANGUAGE plpgsql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN (SELECT _tidemark.product(a.ratio)
              FROM public.corporate_actions AS a
             WHERE a.asset_id = p_asset_id AND a.status = 'confirmed'
               AND coalesce(a.effective_at, a.ex_date::timestamp AT TIME ZONE 'UTC') >= p_ends_at);
END
$func$;
COMMENT ON FUNCTION _tidemark.adjustment(uuid, timestamptz) IS
'What prices of an asset in a bar that ends at an instant are divided by, and volumes multiplied with.';

CREATE OR REPLACE VIEW public.candles_adjusted AS
SELECT c.asset_id, c.interval, c.ts, c.open / f.factor AS open, c.high / f.factor AS high, c.low / f.factor AS low,
       c.close / f.factor AS close, c.volume * f.factor AS volume, c.trades, c.vwap / f.factor AS vwap, c.source_id,
       c.quality_score, c.is_anomaly, c.is_excluded, f.factor
  FROM public.candles AS c
 CROSS JOIN LATERAL _tidemark.adjustment(
           c.asset_id, (c.ts AT TIME ZONE 'UTC' + _tidemark.bar_length(c.interval)) AT TIME ZONE 'UTC'
       ) AS f (factor);
COMMENT ON VIEW public.candles_adjusted IS 'candles in today''s shares: adjusted for corporate_actions when read.';

CREATE OR REPLACE VIEW public.daily_ohlcv_adjusted AS
SELECT d.source_id, d.day, d.open / f.factor AS open, d.high / f.factor AS high, d.low / f.factor AS low,
       d.close / f.factor AS close, d.volume * f.factor AS volume, d.samples, f.factor
  FROM public.daily_ohlcv AS d
  LEFT JOIN public.sources AS s ON s.source_id = d.source_id
 CROSS JOIN LATERAL _tidemark.adjustment(s.asset_id, d.day + interval '24 hours') AS f (factor);
COMMENT ON VIEW public.daily_ohlcv_adjusted IS
'daily_ohlcv in today''s shares: adjusted for corporate_actions of the sources'' assets when read.';

DO $do$
DECLARE
    v_view record;
    v_column text;
BEGIN
    FOR v_view IN
        SELECT r.name, r.width
          FROM (VALUES ('candles_5m', interval '5 minutes'), ('candles_15m', interval '15 minutes'),
                       ('candles_1h', interval '1 hour'), ('candles_4h', interval '4 hours'),
                       ('candles_1d', interval '24 hours')) AS r (name, width)
    LOOP
        EXECUTE format($sql$
            CREATE OR REPLACE VIEW public.%1$I AS
            SELECT c.asset_id, c.bucket, c.open / f.factor AS open, c.high / f.factor AS high, c.low / f.factor AS low,
                   c.close / f.factor AS close, c.volume * f.factor AS volume, c.trades, c.vwap / f.factor AS vwap,
                   f.factor
              FROM public.%2$I AS c
             CROSS JOIN LATERAL _tidemark.adjustment(c.asset_id, c.bucket + %3$L::interval) AS f (factor)$sql$,
            v_view.name || '_adjusted', v_view.name, v_view.width);
        EXECUTE format('COMMENT ON VIEW public.%I IS %L', v_view.name || '_adjusted',
                       v_view.name || ' in today''s shares: adjusted for corporate_actions when read.');
    END LOOP;
    FOR v_view IN
        SELECT c.oid::regclass AS name, a.attname,
               coalesce(
                   CASE a.attname WHEN 'factor' THEN 'What prices were divided by, and the volume multiplied with.' END,
                   col_description(b.attrelid, b.attnum)
               ) AS meaning
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
          LEFT JOIN pg_catalog.pg_attribute AS b
            ON b.attrelid = format('public.%I', left(c.relname, -9))::regclass AND b.attname = a.attname
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
           AND c.relname IN ('candles_adjusted', 'daily_ohlcv_adjusted', 'candles_5m_adjusted', 'candles_15m_adjusted',
                             'candles_1h_adjusted', 'candles_4h_adjusted', 'candles_1d_adjusted')
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', v_view.name, v_view.attname, v_view.meaning);
    END LOOP;
END
$do$;

-- Whether a ratio explains a change of logarithms: what is left without it is less than half of it, and of 0.25.
CREATE OR REPLACE FUNCTION _tidemark.ratio_explains(
    p_ratio numeric,
    p_observed double precision
)
    RETURNS boolean
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT abs(p_observed + ln(p_ratio::double precision)) < least(0.25, abs(ln(p_ratio::double precision)) / 2);
$func$;
COMMENT ON FUNCTION _tidemark.ratio_explains(numeric, double precision) IS
'Whether the ratio of a split explains a change of logarithms. Inlined.';

-- Whether a confirmed action explains what was observed in a series: on its date or, where nothing was traded then,
-- within four days.
CREATE OR REPLACE FUNCTION _tidemark.is_explained(
    p_action public.corporate_actions,
    p_timestamp timestamptz,
    p_observed double precision
)
    RETURNS boolean
    LANGUAGE sql
    IMMUTABLE
    PARALLEL SAFE
AS $func$
    SELECT p_action.status = 'confirmed'
       AND p_timestamp BETWEEN _tidemark.action_starts_at(p_action) - interval '24 hours'
                           AND _tidemark.action_starts_at(p_action) + interval '96 hours'
       AND _tidemark.ratio_explains(p_action.ratio, p_observed);
$func$;
COMMENT ON FUNCTION _tidemark.is_explained(public.corporate_actions, timestamptz, double precision) IS
'Whether a confirmed action explains a change of logarithms at an instant. Inlined.';

-- What is added to a change of logarithms, in 1e-7, because a confirmed split of the asset explains it; no row
-- where none does.
CREATE OR REPLACE FUNCTION _tidemark.split_at(
    p_asset_id uuid,
    p_ts timestamptz,
    p_observed double precision
)
    RETURNS TABLE (jump bigint)
    LANGUAGE sql
    STABLE
AS $func$
    SELECT round(1e7 * ln(a.ratio))::bigint
      FROM public.corporate_actions AS a
     WHERE a.asset_id = p_asset_id
       AND _tidemark.is_explained(a, p_ts, p_observed)
     ORDER BY abs(p_observed + ln(a.ratio::double precision)), a.action_id
     LIMIT 1;
$func$;
COMMENT ON FUNCTION _tidemark.split_at(uuid, timestamptz, double precision) IS
'What is added to a change of logarithms because a split explains it, in 1e-7. Inlined.';

-- Row trigger of anomalies, before INSERT: one that is explained already waits for nobody.
CREATE OR REPLACE FUNCTION _tidemark.explain_anomaly()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_action public.corporate_actions;
BEGIN
    SELECT a.* INTO v_action
      FROM public.corporate_actions AS a
     WHERE a.asset_id = coalesce(
               NEW.asset_id, (SELECT s.asset_id FROM public.sources AS s WHERE s.source_id = NEW.source_id)
           )
       AND _tidemark.is_explained(a, NEW.timestamp, NEW.observed)
     LIMIT 1;
    IF FOUND THEN
        NEW.status := 'expected';
        NEW.reviewed_by := v_action.source;
        NEW.reviewed_at := now();
        NEW.notes := format('%s %s', v_action.kind, v_action.ratio);
    END IF;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.explain_anomaly() FROM public;
COMMENT ON FUNCTION _tidemark.explain_anomaly() IS
'Row trigger of anomalies: one that a corporate action explains is expected.';
CREATE OR REPLACE TRIGGER trg_explain BEFORE INSERT ON public.anomalies
FOR EACH ROW WHEN (new.status = 'open') EXECUTE FUNCTION _tidemark.explain_anomaly();
COMMENT ON TRIGGER trg_explain ON public.anomalies IS 'What a corporate action explains is expected.';

-- Row trigger of corporate_actions: open anomalies that an action explains are expected, and open again without it.
CREATE OR REPLACE FUNCTION _tidemark.explain_anomalies()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE public.anomalies AS a
           SET status = 'open', reviewed_by = NULL, reviewed_at = NULL, notes = NULL
         WHERE (a.asset_id = OLD.asset_id
                OR a.source_id IN (SELECT s.source_id FROM public.sources AS s WHERE s.asset_id = OLD.asset_id))
           AND a.status = 'expected'
           AND a.reviewed_by = OLD.source AND a.notes = format('%s %s', OLD.kind, OLD.ratio)
           -- Judged since, it shows what is left without the split.
           AND a.timestamp BETWEEN _tidemark.action_starts_at(OLD) - interval '24 hours'
                               AND _tidemark.action_starts_at(OLD) + interval '96 hours';
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE public.anomalies AS a
           SET status = 'expected', reviewed_by = NEW.source, reviewed_at = now(),
               notes = format('%s %s', NEW.kind, NEW.ratio)
         WHERE (a.asset_id = NEW.asset_id
                OR a.source_id IN (SELECT s.source_id FROM public.sources AS s WHERE s.asset_id = NEW.asset_id))
           AND a.status IN ('open', 'acknowledged')
           AND _tidemark.is_explained(NEW, a.timestamp, a.observed);
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.explain_anomalies() FROM public;
COMMENT ON FUNCTION _tidemark.explain_anomalies() IS
'Row trigger of corporate_actions: closes the anomalies that an action explains, and opens them where it is gone.';
CREATE OR REPLACE TRIGGER trg_explain AFTER INSERT OR UPDATE OR DELETE ON public.corporate_actions
FOR EACH ROW EXECUTE FUNCTION _tidemark.explain_anomalies();
COMMENT ON TRIGGER trg_explain ON public.corporate_actions IS 'Anomalies that an action explains are expected.';

-- Records that an anomaly, or the one of its episode that looks most like it, was a split: p_ratio shares after for
-- each share before. From then on the adjusted views show it, and the anomaly is expected. Returns the action; raises
-- TM212 for an unknown anomaly, TM214 where its series is of no asset, TM215 where the ratio does not explain what it
-- shows.
CREATE OR REPLACE FUNCTION public.record_split(
    p_anomaly_id bigint,
    p_ratio numeric,
    p_notes text DEFAULT NULL
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_anomaly record;
    v_action_id bigint;
BEGIN
    IF (p_ratio BETWEEN 1e-6 AND 1e6 AND p_ratio <> 1) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'TM215', MESSAGE = format('%s is not the ratio of a split', p_ratio),
            HINT = 'Shares after for each share before: 2 for a split 2:1, 0.1 where ten become one.';
    END IF;
    SELECT e.anomaly_id, e.timestamp, e.observed, e.kind, coalesce(e.asset_id, s.asset_id) AS asset_id
      INTO v_anomaly
      FROM public.anomalies AS e
      LEFT JOIN public.sources AS s ON s.source_id = e.source_id
     WHERE e.anomaly_id = p_anomaly_id
        OR e.episode_id = (SELECT o.episode_id FROM public.anomalies AS o WHERE o.anomaly_id = p_anomaly_id)
     ORDER BY e.kind = 'split_candidate' DESC, abs(e.observed + ln(p_ratio::double precision)), e.anomaly_id
     LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM212', MESSAGE = format('there is no anomaly %s', p_anomaly_id);
    ELSIF v_anomaly.asset_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM214', MESSAGE = 'the series is of no asset, and only assets split',
            HINT = 'Say which asset the source is about: UPDATE sources SET asset_id.';
    -- What does not look like a split, as a share that doubles in a day like many others, has to be one very nearly.
    ELSIF NOT _tidemark.ratio_explains(p_ratio, v_anomaly.observed)
          OR (v_anomaly.kind <> 'split_candidate' AND abs(v_anomaly.observed + ln(p_ratio::double precision)) > 0.1)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'TM215',
            MESSAGE = format('a split by %s does not explain the episode', p_ratio),
            DETAIL = format('Its value became %s of the one before, at %s.',
                            round(exp(v_anomaly.observed)::numeric, 4), v_anomaly.timestamp),
            HINT = 'The ratio is shares after for each share before. What is certain all the same goes into'
                   ' corporate_actions.';
    END IF;
    INSERT INTO public.corporate_actions AS c (asset_id, ex_date, ratio, effective_at, source, notes)
    VALUES (v_anomaly.asset_id, (v_anomaly.timestamp AT TIME ZONE 'UTC')::date, p_ratio, v_anomaly.timestamp,
            coalesce(nullif(current_setting('tidemark.actor', true), ''), session_user::text), p_notes)
    ON CONFLICT ON CONSTRAINT corporate_actions_asset_id_ex_date_kind_key DO UPDATE
       SET ratio = EXCLUDED.ratio,
           effective_at = EXCLUDED.effective_at,
           source = EXCLUDED.source,
           notes = coalesce(EXCLUDED.notes, c.notes),
           status = 'confirmed'
    RETURNING c.action_id INTO v_action_id;
    RETURN v_action_id;
END
$func$;
COMMENT ON FUNCTION public.record_split(bigint, numeric, text) IS
'Records that an anomaly was a split, p_ratio shares after for each share before: bars are adjusted, the anomaly is '
'expected. Returns the action.';

-- Stores an action of a file, by the asset's symbol (p_exchange NULL: the only one of that symbol); returns whether it
-- is new or changed. One that was rejected stays so. Raises P0002 where there is no such asset, P0003 where there are
-- more.
CREATE OR REPLACE FUNCTION public.load_corporate_action(
    p_symbol text,
    p_exchange text,
    p_ex_date date,
    p_kind public.corporate_action_kind,
    p_ratio numeric,
    p_source text
)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_assets uuid[] := ARRAY(
        SELECT a.asset_id FROM public.assets AS a
         WHERE a.symbol = p_symbol AND (p_exchange IS NULL OR a.exchange = p_exchange)
    );
BEGIN
    IF cardinality(v_assets) <> 1 THEN
        RAISE EXCEPTION USING ERRCODE = CASE cardinality(v_assets) WHEN 0 THEN 'P0002' ELSE 'P0003' END,
            MESSAGE = format('there are %s assets %s%s', cardinality(v_assets), p_symbol, ' at ' || p_exchange),
            HINT = 'An action is of one asset: load its prices first, or say the exchange.';
    END IF;
    INSERT INTO public.corporate_actions AS c (asset_id, ex_date, kind, ratio, source)
    VALUES (v_assets[1], p_ex_date, p_kind, p_ratio, p_source)
    ON CONFLICT ON CONSTRAINT corporate_actions_asset_id_ex_date_kind_key DO UPDATE
       SET ratio = EXCLUDED.ratio,
           source = EXCLUDED.source
     WHERE c.ratio <> EXCLUDED.ratio;
    RETURN FOUND;
END
$func$;
COMMENT ON FUNCTION public.load_corporate_action(
    text, text, date, public.corporate_action_kind, numeric, text
) IS 'Stores an action of a file, by the asset''s symbol; returns whether it is new or changed.';
