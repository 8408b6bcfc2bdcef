-- How rows come into a hypertable through an application's view. A view that names assets by their symbols is over two
-- tables, so its rows are written by an INSTEAD OF trigger, one by one. Stored one by one they would be scored, audited
-- and rolled up one by one, too. So the rows of an INSERT are gathered, as text in a setting that
-- ends with the transaction, and stored by one statement when the INSERT ends, or when there are many.
--
-- A trigger does not see ON CONFLICT DO NOTHING, so it is read from the text of the statement. Then a row is stored at
-- once, and passed over where there is one already. Else the view decides: 'replace', or 'refuse', which is 23505.

-- Whether the statement that runs says ON CONFLICT DO NOTHING: the innermost one, where it is a function's own. A text
-- may hold several statements, of which it is not known which one runs: those that insert into the view have to agree.
CREATE OR REPLACE FUNCTION _tidemark.says_do_nothing(p_context text, p_view text)
    RETURNS boolean
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    -- Of SQL in functions the context tells the text, the innermost first; the client's statement is not in there.
    v_text text := coalesce(substring(p_context FROM '\nSQL statement "(.*?)"(?:\n|$)'), current_query());
    v_prepared CONSTANT text[] := regexp_match(v_text, '^\s*EXECUTE\s+(?:"([^"]+)"|(\w+))', 'i');
    v_says boolean[];
BEGIN
    IF v_prepared IS NOT NULL THEN
        SELECT p.statement INTO v_text
          FROM pg_catalog.pg_prepared_statements AS p
         WHERE p.name = coalesce(v_prepared[1], lower(v_prepared[2]));
    END IF;
    IF v_text !~* '\mNOTHING\M' THEN
        RETURN false;
    END IF;
    -- Without strings, comments and names in quotes that only look like it.
    v_text := regexp_replace(
        regexp_replace(v_text, '"(\w+)"', '\1', 'g'),
        $r$\mE'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\$(?:[a-z_]\w*)?\$[^$]*\$(?:[a-z_]\w*)?\$|--[^\n]*|$r$
        || $r$/\*(?:[^*]|\*+[^*/])*\*+/|"(?:[^"]|"")*"$r$, ' ', 'gi'
    );
    WITH inserts AS (
        SELECT lower(substring(t.part FROM '^\s*(?:\w+\s*\.\s*)?(\w+)')) = p_view AS is_ours,
               split_part(t.part, ';', 1)
               ~* 'ON\s+CONFLICT\s*(?:\([^()]*\)\s*|ON\s+CONSTRAINT\s+\S+\s+)?DO\s+NOTHING' AS says
          FROM regexp_split_to_table(v_text, '\mINSERT\s+INTO\M', 'i') WITH ORDINALITY AS t (part, place)
         WHERE t.place > 1
    )

    SELECT array_agg(DISTINCT i.says) INTO v_says
      FROM inserts AS i
     WHERE i.is_ours OR NOT EXISTS (SELECT FROM inserts AS o WHERE o.is_ours); -- a view of one's own over ours
    IF cardinality(v_says) > 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = format('one text inserts into %s with ON CONFLICT DO NOTHING and without', p_view),
            DETAIL = 'Which of the two a statement says is read from the text that was sent.',
            HINT = 'Send the statements one by one.', TABLE = p_view;
    END IF;
    RETURN coalesce(v_says[1], false);
END
$func$;
COMMENT ON FUNCTION _tidemark.says_do_nothing(text, text) IS
'Whether the statement that runs says ON CONFLICT DO NOTHING; p_context is PG_CONTEXT in a trigger of p_view.';

-- Begins a statement's arrivals. Rows that wait as text have to be read as they were written, so a session that writes
-- instants or figures in a way of its own has the usual one until the statement ends.
CREATE OR REPLACE FUNCTION _tidemark.begin_arrivals()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_context text;
    v_settings text := '';
BEGIN
    GET DIAGNOSTICS v_context = PG_CONTEXT;
    IF current_setting('datestyle') !~ '^ISO' OR current_setting('extra_float_digits')::integer < 1 THEN
        v_settings := concat(current_setting('datestyle'), '|', current_setting('extra_float_digits'));
        PERFORM set_config('datestyle', 'ISO', true), set_config('extra_float_digits', '1', true);
    END IF;
    PERFORM set_config('tidemark.arrivals', '', true), set_config('tidemark.arrivals_before', '', true),
            set_config('tidemark.arrivals_count', '0', true), set_config('tidemark.arriving_asset', '', true),
            set_config('tidemark.arriving_range', '', true), set_config('tidemark.arrivals_meet', '', true),
            set_config('tidemark.arrivals_first', '', true),
            set_config('tidemark.arrivals_settings', v_settings, true),
            set_config('tidemark.on_conflict',
                       CASE WHEN _tidemark.says_do_nothing(v_context, TG_TABLE_NAME) THEN 'nothing' ELSE TG_ARGV[0] END, true);
    RETURN NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.begin_arrivals() IS
'Statement trigger of a view: finds out what a conflict means, and forgets what was gathered before.';

-- find_or_create_asset for the rows of a statement, which often name one asset after the other.
CREATE OR REPLACE FUNCTION _tidemark.arriving_asset(
    p_symbol text,
    p_asset_type public.asset_type DEFAULT NULL,
    p_otherwise public.asset_type DEFAULT NULL
)
    RETURNS uuid
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_known CONSTANT text := current_setting('tidemark.arriving_asset');
    v_asset_id uuid;
BEGIN
    IF v_known <> '' AND substr(v_known, 38) = concat(p_asset_type, ' ', p_symbol) THEN
        RETURN left(v_known, 36)::uuid;
    END IF;
    v_asset_id := _tidemark.find_or_create_asset(p_symbol, p_asset_type, p_otherwise);
    PERFORM set_config('tidemark.arriving_asset', concat(v_asset_id, ' ', p_asset_type, ' ', p_symbol), true);
    RETURN v_asset_id;
END
$func$;
COMMENT ON FUNCTION _tidemark.arriving_asset(text, public.asset_type, public.asset_type) IS
'Asset of a symbol in a statement that inserts through a view; remembers the last one.';

-- Adds a row to those that wait, as text. Two settings, because each addition copies what is there: a short one, and a
-- long one to which that is added when there are 25.
CREATE OR REPLACE FUNCTION _tidemark.gather(p_row text)
    RETURNS integer
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_count CONSTANT integer := current_setting('tidemark.arrivals_count')::integer + 1;
    v_rows CONSTANT text := concat(current_setting('tidemark.arrivals'), chr(30), p_row);
BEGIN
    IF v_count % 25 = 0 THEN
        PERFORM set_config('tidemark.arrivals_before',
                           concat(current_setting('tidemark.arrivals_before'), v_rows), true),
                set_config('tidemark.arrivals', '', true), set_config('tidemark.arrivals_count', v_count::text, true);
    ELSE
        PERFORM set_config('tidemark.arrivals', v_rows, true),
                set_config('tidemark.arrivals_count', v_count::text, true);
    END IF;
    RETURN v_count;
END
$func$;
COMMENT ON FUNCTION _tidemark.gather(text) IS 'Adds a row to those that wait to be stored; returns how many they are.';

-- The rows that wait, as text, each once.
CREATE OR REPLACE FUNCTION _tidemark.hand_over()
    RETURNS text[]
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rows CONSTANT text := concat(
        current_setting('tidemark.arrivals_before'), current_setting('tidemark.arrivals')
    );
BEGIN
    PERFORM set_config('tidemark.arrivals', '', true), set_config('tidemark.arrivals_before', '', true),
            set_config('tidemark.arrivals_count', '0', true);
    RETURN string_to_array(substr(v_rows, 2), chr(30)); -- each begins with the mark
END
$func$;
COMMENT ON FUNCTION _tidemark.hand_over() IS 'The rows that wait to be stored; from then on none waits.';

-- Bars.
CREATE OR REPLACE FUNCTION _tidemark.store_bars()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rows CONSTANT public.candles[] := _tidemark.hand_over()::public.candles[];
    v_stored bigint;
BEGIN
    IF current_setting('tidemark.on_conflict') = 'refuse' THEN
        INSERT INTO public.candles (
            asset_id, interval, ts, open, high, low, close, volume, source_id, ingested_at, id
        )
        SELECT r.asset_id, r.interval, r.ts, r.open, r.high, r.low, r.close, r.volume, r.source_id, r.ingested_at, r.id
          FROM unnest(v_rows) AS r;
        RETURN;
    END IF;
    -- Bars that are new, as most are, need none of what an update sets in motion.
    IF current_setting('tidemark.arrivals_meet') = '' THEN
        INSERT INTO public.candles (
            asset_id, interval, ts, open, high, low, close, volume, source_id, ingested_at, id
        )
        SELECT r.asset_id, r.interval, r.ts, r.open, r.high, r.low, r.close, r.volume, r.source_id, r.ingested_at, r.id
          FROM unnest(v_rows) AS r
        ON CONFLICT (asset_id, interval, ts) DO NOTHING;
        GET DIAGNOSTICS v_stored = ROW_COUNT;
        IF v_stored = cardinality(v_rows) THEN
            RETURN;
        END IF;
    END IF;
    INSERT INTO public.candles AS c (
        asset_id, interval, ts, open, high, low, close, volume, source_id, ingested_at, id
    )
    SELECT DISTINCT ON (r.asset_id, r.interval, r.ts)
           r.asset_id, r.interval, r.ts, r.open, r.high, r.low, r.close, r.volume, r.source_id, r.ingested_at, r.id
      FROM unnest(v_rows) WITH ORDINALITY AS r (
               asset_id, interval, ts, open, high, low, close, volume, trades, vwap, source_id, quality_score,
               is_anomaly, is_excluded, ingested_at, id, place
           )
     ORDER BY r.asset_id, r.interval, r.ts, r.place DESC -- the later of two
    ON CONFLICT (asset_id, interval, ts) DO UPDATE
       SET open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
           volume = EXCLUDED.volume, source_id = coalesce(EXCLUDED.source_id, c.source_id), id = EXCLUDED.id;
END
$func$;
COMMENT ON FUNCTION _tidemark.store_bars() IS 'Stores the bars that wait, in one statement where they are new.';

-- Takes in a bar and returns the number that it has, or will have when it is stored; NULL where it is passed over. The
-- first of a statement, which is mostly the only one, is stored at once.
CREATE OR REPLACE FUNCTION _tidemark.take_bar(p_bar public.candles)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id bigint;
    v_on_conflict CONSTANT text := current_setting('tidemark.on_conflict');
    v_series text;
    v_range text[];
BEGIN
    p_bar.ingested_at := coalesce(p_bar.ingested_at, now());
    IF v_on_conflict = 'nothing' OR (v_on_conflict = 'replace' AND current_setting('tidemark.arrivals_first') = '') THEN
        PERFORM set_config('tidemark.arrivals_first', 'stored', true);
        LOOP
            INSERT INTO public.candles AS c (
                asset_id, interval, ts, open, high, low, close, volume, source_id, ingested_at, id
            )
            VALUES (
                p_bar.asset_id, p_bar.interval, p_bar.ts, p_bar.open, p_bar.high, p_bar.low, p_bar.close, p_bar.volume,
                p_bar.source_id, p_bar.ingested_at, coalesce(p_bar.id, nextval('public.candles_id_seq'))
            )
            ON CONFLICT (asset_id, interval, ts) DO NOTHING
            RETURNING c.id INTO v_id;
            IF v_id IS NOT NULL OR v_on_conflict = 'nothing' THEN
                RETURN v_id;
            END IF;
            UPDATE public.candles AS c
               SET open = p_bar.open, high = p_bar.high, low = p_bar.low, close = p_bar.close, volume = p_bar.volume,
                   source_id = coalesce(p_bar.source_id, c.source_id), id = coalesce(p_bar.id, c.id)
             WHERE c.asset_id = p_bar.asset_id AND c.interval = p_bar.interval AND c.ts = p_bar.ts
            RETURNING c.id INTO v_id;
            IF v_id IS NOT NULL THEN
                RETURN v_id;
            END IF; -- else somebody deleted it meanwhile
        END LOOP;
    END IF;
    -- A bar that is there keeps its number. Most of a statement's lie outside what is there.
    IF v_on_conflict = 'replace' AND p_bar.id IS NULL THEN
        v_series := concat(p_bar.asset_id, ' ', p_bar.interval);
        v_range := string_to_array(current_setting('tidemark.arriving_range'), '|');
        IF v_range[1] IS DISTINCT FROM v_series THEN
            SELECT ARRAY[v_series, min(c.ts)::text, max(c.ts)::text] INTO v_range
              FROM public.candles AS c
             WHERE c.asset_id = p_bar.asset_id AND c.interval = p_bar.interval;
            PERFORM set_config('tidemark.arriving_range', array_to_string(v_range, '|'), true);
        END IF;
        IF p_bar.ts BETWEEN v_range[2]::timestamptz AND v_range[3]::timestamptz THEN
            SELECT c.id INTO p_bar.id
              FROM public.candles AS c
             WHERE c.asset_id = p_bar.asset_id AND c.interval = p_bar.interval AND c.ts = p_bar.ts;
            IF FOUND THEN
                PERFORM set_config('tidemark.arrivals_meet', 'a row', true);
            END IF;
        END IF;
    END IF;
    p_bar.id := coalesce(p_bar.id, nextval('public.candles_id_seq'));
    IF _tidemark.gather(p_bar::text) >= 2000 THEN
        PERFORM _tidemark.store_bars();
    END IF;
    RETURN p_bar.id;
END
$func$;
COMMENT ON FUNCTION _tidemark.take_bar(public.candles) IS
'Takes in a bar from a view; returns its number, NULL where it is passed over.';

-- Stores bars given as arrays, in one statement; one that is there is replaced. NULL for an array: no such figures.
-- Returns how many bars were stored.
CREATE OR REPLACE FUNCTION _tidemark.upsert_bars(
    p_asset_ids uuid[],
    p_intervals public.candle_interval[],
    p_ts timestamptz[],
    p_open double precision[],
    p_high double precision[],
    p_low double precision[],
    p_close double precision[],
    p_volume double precision[]
)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_count bigint;
BEGIN
    INSERT INTO public.candles AS c (asset_id, interval, ts, open, high, low, close, volume)
    SELECT DISTINCT ON (r.asset_id, r.interval, r.ts)
           r.asset_id, r.interval, r.ts, r.open, r.high, r.low, r.close, r.volume
      FROM unnest(p_asset_ids, p_intervals, p_ts, p_open, p_high, p_low, p_close, p_volume) WITH ORDINALITY
           AS r (asset_id, interval, ts, open, high, low, close, volume, place)
     ORDER BY r.asset_id, r.interval, r.ts, r.place DESC -- the later of two
    ON CONFLICT (asset_id, interval, ts) DO UPDATE
       SET open = EXCLUDED.open, high = EXCLUDED.high, low = EXCLUDED.low, close = EXCLUDED.close,
           volume = EXCLUDED.volume;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$func$;
COMMENT ON FUNCTION _tidemark.upsert_bars(
    uuid [], public.candle_interval [], timestamptz [], double precision [], double precision [], double precision [],
    double precision [], double precision []
) IS 'Stores bars given as arrays, in one statement; one that is there is replaced. Returns how many.';

-- Quotes, in the same way.
CREATE OR REPLACE FUNCTION _tidemark.store_quotes()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_rows CONSTANT public.quotes[] := _tidemark.hand_over()::public.quotes[];
    v_stored bigint;
BEGIN
    IF current_setting('tidemark.arrivals_meet') = '' THEN
        INSERT INTO public.quotes (
            asset_id, ts, price, open_price, high, low, close, volume, change_24h, change_percent_24h, id
        )
        SELECT r.asset_id, r.ts, r.price, r.open_price, r.high, r.low, r.close, r.volume, r.change_24h,
               r.change_percent_24h, r.id
          FROM unnest(v_rows) AS r
        ON CONFLICT (asset_id, ts) DO NOTHING;
        GET DIAGNOSTICS v_stored = ROW_COUNT;
        IF v_stored = cardinality(v_rows) THEN
            RETURN;
        END IF;
    END IF;
    INSERT INTO public.quotes AS q (
        asset_id, ts, price, open_price, high, low, close, volume, change_24h, change_percent_24h, id
    )
    SELECT DISTINCT ON (r.asset_id, r.ts)
           r.asset_id, r.ts, r.price, r.open_price, r.high, r.low, r.close, r.volume, r.change_24h,
           r.change_percent_24h, r.id
      FROM unnest(v_rows) WITH ORDINALITY AS r (
               asset_id, ts, price, open_price, high, low, close, volume, bid, ask, change_24h, change_percent_24h,
               quality_score, is_anomaly, ingested_at, id, place
           )
     ORDER BY r.asset_id, r.ts, r.place DESC -- the later of two
    ON CONFLICT (asset_id, ts) DO UPDATE
       SET price = EXCLUDED.price, open_price = EXCLUDED.open_price, high = EXCLUDED.high, low = EXCLUDED.low,
           close = EXCLUDED.close, volume = EXCLUDED.volume, change_24h = EXCLUDED.change_24h,
           change_percent_24h = EXCLUDED.change_percent_24h, id = EXCLUDED.id;
END
$func$;
COMMENT ON FUNCTION _tidemark.store_quotes() IS 'Stores the quotes that wait, in one statement where they are new.';

CREATE OR REPLACE FUNCTION _tidemark.take_quote(p_quote public.quotes)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_id bigint;
    v_on_conflict CONSTANT text := current_setting('tidemark.on_conflict');
    v_range text[];
BEGIN
    IF v_on_conflict = 'nothing' OR current_setting('tidemark.arrivals_first') = '' THEN
        PERFORM set_config('tidemark.arrivals_first', 'stored', true);
        LOOP
            INSERT INTO public.quotes AS q (
                asset_id, ts, price, open_price, high, low, close, volume, change_24h, change_percent_24h, id
            )
            VALUES (
                p_quote.asset_id, p_quote.ts, p_quote.price, p_quote.open_price, p_quote.high, p_quote.low,
                p_quote.close, p_quote.volume, p_quote.change_24h, p_quote.change_percent_24h,
                coalesce(p_quote.id, nextval('public.quotes_id_seq'))
            )
            ON CONFLICT (asset_id, ts) DO NOTHING
            RETURNING q.id INTO v_id;
            IF v_id IS NOT NULL OR v_on_conflict = 'nothing' THEN
                RETURN v_id;
            END IF;
            UPDATE public.quotes AS q
               SET price = p_quote.price, open_price = p_quote.open_price, high = p_quote.high, low = p_quote.low,
                   close = p_quote.close, volume = p_quote.volume, change_24h = p_quote.change_24h,
                   change_percent_24h = p_quote.change_percent_24h, id = coalesce(p_quote.id, q.id)
             WHERE q.asset_id = p_quote.asset_id AND q.ts = p_quote.ts
            RETURNING q.id INTO v_id;
            IF v_id IS NOT NULL THEN
                RETURN v_id;
            END IF;
        END LOOP;
    END IF;
    IF p_quote.id IS NULL THEN
        v_range := string_to_array(current_setting('tidemark.arriving_range'), '|');
        IF v_range[1] IS DISTINCT FROM p_quote.asset_id::text THEN
            SELECT ARRAY[p_quote.asset_id::text, min(q.ts)::text, max(q.ts)::text] INTO v_range
              FROM public.quotes AS q
             WHERE q.asset_id = p_quote.asset_id;
            PERFORM set_config('tidemark.arriving_range', array_to_string(v_range, '|'), true);
        END IF;
        IF p_quote.ts BETWEEN v_range[2]::timestamptz AND v_range[3]::timestamptz THEN
            SELECT q.id INTO p_quote.id
              FROM public.quotes AS q
             WHERE q.asset_id = p_quote.asset_id AND q.ts = p_quote.ts;
            IF FOUND THEN
                PERFORM set_config('tidemark.arrivals_meet', 'a row', true);
            END IF;
        END IF;
    END IF;
    p_quote.id := coalesce(p_quote.id, nextval('public.quotes_id_seq'));
    IF _tidemark.gather(p_quote::text) >= 2000 THEN
        PERFORM _tidemark.store_quotes();
    END IF;
    RETURN p_quote.id;
END
$func$;
COMMENT ON FUNCTION _tidemark.take_quote(public.quotes) IS
'Takes in a quote from a view; returns its number, NULL where it is passed over.';

-- Texts, in the same way. Each is stored, however often it comes.
CREATE OR REPLACE FUNCTION _tidemark.store_texts()
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    INSERT INTO public.sentiment_data (
        asset_id, ts, sentiment_id, source, text, sentiment_score, extra_data, ingested_at
    )
    SELECT r.asset_id, r.ts, r.sentiment_id, r.source, r.text, r.sentiment_score, r.extra_data, r.ingested_at
      FROM unnest(_tidemark.hand_over()::public.sentiment_data[]) AS r;
END
$func$;
COMMENT ON FUNCTION _tidemark.store_texts() IS 'Stores the texts that wait, in one statement.';

CREATE OR REPLACE FUNCTION _tidemark.take_text(p_text public.sentiment_data)
    RETURNS bigint
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    p_text.sentiment_id := coalesce(p_text.sentiment_id, nextval('public.sentiment_data_sentiment_id_seq'));
    IF _tidemark.gather(p_text::text) >= 2000 THEN
        PERFORM _tidemark.store_texts();
    END IF;
    RETURN p_text.sentiment_id;
END
$func$;
COMMENT ON FUNCTION _tidemark.take_text(public.sentiment_data) IS 'Takes in a text from a view; returns its number.';

-- Stores what is left at the end of the statement; the argument says what it is.
CREATE OR REPLACE FUNCTION _tidemark.end_arrivals()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_settings CONSTANT text[] := string_to_array(current_setting('tidemark.arrivals_settings'), '|');
BEGIN
    IF current_setting('tidemark.arrivals_count') <> '0' THEN
        CASE TG_ARGV[0]
            WHEN 'bars' THEN PERFORM _tidemark.store_bars();
            WHEN 'quotes' THEN PERFORM _tidemark.store_quotes();
            WHEN 'texts' THEN PERFORM _tidemark.store_texts();
        END CASE;
    END IF;
    IF v_settings[1] <> '' THEN
        PERFORM set_config('datestyle', v_settings[1], true), set_config('extra_float_digits', v_settings[2], true);
    END IF;
    RETURN NULL;
END
$func$;
COMMENT ON FUNCTION _tidemark.end_arrivals() IS 'Statement trigger of a view: stores the rows that wait.';

-- An UPDATE or DELETE through a view found its rows in the snapshot that the statement began with. Where another
-- session has changed one since, its new values are not what the statement looked at: the writers store nothing then,
-- and ask here. A table would look again on its own; a view cannot, so the statement has to. Returns where the row is
-- gone, raises 40001 where it is another.
CREATE OR REPLACE FUNCTION _tidemark.raise_if_there(p_is_there boolean)
    RETURNS void
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF p_is_there THEN
        RAISE EXCEPTION USING ERRCODE = 'serialization_failure',
            MESSAGE = 'could not serialize access due to concurrent update',
            DETAIL = 'Another session changed the row since this statement began.', HINT = 'Run it again.';
    END IF;
END
$func$;
COMMENT ON FUNCTION _tidemark.raise_if_there(boolean) IS
'Raises 40001 where a row that was not found as it was is still there.';
