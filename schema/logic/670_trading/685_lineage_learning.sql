-- Lineage without cycles, insights with trades that exist, similar insights, equity curves.

-- Statement trigger of lineage: raises TM613 where an edge closes a cycle. All writers update one row first, so that
-- the second sees what the first stored, or fails with a serialization error where its isolation level does not let it.
CREATE OR REPLACE FUNCTION _tidemark.check_lineage()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_edge record;
BEGIN
    IF NOT EXISTS (SELECT FROM new_rows) THEN
        RETURN NULL;
    END IF;
    UPDATE _tidemark.lineage_turn AS t SET turn = t.turn + 1;

    -- Only what is derived from something and has something derived from it lies on a cycle.
    WITH RECURSIVE suspects AS (
        SELECT n.target_kind, n.target_ref, n.upstream_kind, n.upstream_ref
          FROM new_rows AS n
         WHERE EXISTS (SELECT FROM public.lineage AS l
                        WHERE l.upstream_kind = n.target_kind AND l.upstream_ref = n.target_ref)
           AND EXISTS (SELECT FROM public.lineage AS l
                        WHERE l.target_kind = n.upstream_kind AND l.target_ref = n.upstream_ref)
    ), reached AS (
        SELECT s.target_kind, s.target_ref, s.upstream_kind AS kind, s.upstream_ref AS ref FROM suspects AS s
         UNION
        SELECT r.target_kind, r.target_ref, l.upstream_kind, l.upstream_ref
          FROM reached AS r
          JOIN public.lineage AS l ON l.target_kind = r.kind AND l.target_ref = r.ref
    )
    SELECT r.* INTO v_edge FROM reached AS r WHERE r.kind = r.target_kind AND r.ref = r.target_ref LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM613',
            MESSAGE = format('%s %s would be derived from itself', v_edge.target_kind, v_edge.target_ref),
            HINT = 'See lineage_upstream() for what it is derived from.',
            TABLE = 'lineage';
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.check_lineage() FROM public;
COMMENT ON FUNCTION _tidemark.check_lineage() IS
'Statement trigger of lineage: raises TM613 where an edge closes a cycle, also with one that is being written '
'elsewhere.';

CREATE OR REPLACE TRIGGER trg_check_lineage_inserted AFTER INSERT ON public.lineage
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.check_lineage();
COMMENT ON TRIGGER trg_check_lineage_inserted ON public.lineage IS 'Refuses edges that close a cycle.';

CREATE OR REPLACE TRIGGER trg_check_lineage_updated AFTER UPDATE ON public.lineage
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.check_lineage();
COMMENT ON TRIGGER trg_check_lineage_updated ON public.lineage IS 'Refuses edges that close a cycle.';

-- What is connected with a thing, by steps: the things one step away, then those two steps away that were not met
-- before, and so on. So every thing is met once, by a shortest path, however many ways lead to it.
CREATE OR REPLACE FUNCTION _tidemark.walk_lineage(
    p_kind public.lineage_kind,
    p_ref text,
    p_is_upstream boolean
)
    RETURNS TABLE (depth integer, kind public.lineage_kind, ref text, transformation text, path text[])
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
#variable_conflict use_column
DECLARE
    v_depth integer := 0;
    v_kinds public.lineage_kind[] := ARRAY[p_kind];
    v_refs text[] := ARRAY[p_ref];
    v_paths jsonb[] := ARRAY[jsonb_build_array(p_kind || ' ' || p_ref)];
    v_transformations text[];
    v_met jsonb := jsonb_build_object(p_kind || ' ' || p_ref, true);
BEGIN
    LOOP
        SELECT array_agg(n.kind), array_agg(n.ref), array_agg(n.transformation), array_agg(n.path)
          INTO v_kinds, v_refs, v_transformations, v_paths
          FROM (
            SELECT DISTINCT ON (e.kind, e.ref)
                   e.kind, e.ref, e.transformation, f.path || to_jsonb(e.kind || ' ' || e.ref) AS path
              FROM unnest(v_kinds, v_refs, v_paths) AS f (kind, ref, path)
             CROSS JOIN LATERAL (
                       SELECT l.upstream_kind, l.upstream_ref, l.transformation, l.lineage_id
                         FROM public.lineage AS l
                        WHERE p_is_upstream AND l.target_kind = f.kind AND l.target_ref = f.ref
                        UNION ALL
                       SELECT l.target_kind, l.target_ref, l.transformation, l.lineage_id
                         FROM public.lineage AS l
                        WHERE NOT p_is_upstream AND l.upstream_kind = f.kind AND l.upstream_ref = f.ref
                  ) AS e (kind, ref, transformation, lineage_id)
             WHERE NOT v_met ? (e.kind || ' ' || e.ref)
             ORDER BY e.kind, e.ref, e.lineage_id DESC -- of several versions of an edge the newest
          ) AS n;
        EXIT WHEN v_kinds IS NULL;
        v_depth := v_depth + 1;
        SELECT v_met || jsonb_object_agg(n.kind || ' ' || n.ref, true) INTO v_met
          FROM unnest(v_kinds, v_refs) AS n (kind, ref);
        RETURN QUERY
        SELECT v_depth, n.kind, n.ref, n.transformation, ARRAY(SELECT jsonb_array_elements_text(n.path))
          FROM unnest(v_kinds, v_refs, v_transformations, v_paths) AS n (kind, ref, transformation, path);
    END LOOP;
END
$func$;
COMMENT ON FUNCTION _tidemark.walk_lineage(public.lineage_kind, text, boolean) IS
'What is connected with a thing in one direction, each once, by a shortest path.';

CREATE OR REPLACE FUNCTION public.lineage_upstream(
    p_kind public.lineage_kind,
    p_ref text
)
    RETURNS TABLE (depth integer, kind public.lineage_kind, ref text, transformation text, path text[])
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT w.* FROM _tidemark.walk_lineage(p_kind, p_ref, true) AS w;
$func$;
COMMENT ON FUNCTION public.lineage_upstream(public.lineage_kind, text) IS
'What a thing was derived from, directly (depth 1) and through others: each thing once, with how its neighbour on '
'the path was derived from it, and a shortest path from the thing to it as kinds and names.';

CREATE OR REPLACE FUNCTION public.lineage_downstream(
    p_kind public.lineage_kind,
    p_ref text
)
    RETURNS TABLE (depth integer, kind public.lineage_kind, ref text, transformation text, path text[])
    LANGUAGE sql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT w.* FROM _tidemark.walk_lineage(p_kind, p_ref, false) AS w;
$func$;
COMMENT ON FUNCTION public.lineage_downstream(public.lineage_kind, text) IS
'What was derived from a thing, directly (depth 1) and through others: each thing once, with how it was derived from'
' its neighbour on the path, and a shortest path from the thing to it as kinds and names.';

-- Supporting trades exist: as a foreign key would have it, if arrays had foreign keys.
CREATE OR REPLACE FUNCTION _tidemark.check_supporting_trades()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_missing uuid[];
BEGIN
    IF NEW.supporting_trades = '{}' THEN
        RETURN NEW;
    END IF;
    -- Locked, so that nobody deletes them before this is stored.
    WITH found AS MATERIALIZED (
        SELECT t.trade_id FROM public.trades AS t WHERE t.trade_id = ANY (NEW.supporting_trades) FOR KEY SHARE
    )
    SELECT array_agg(s.trade_id) INTO v_missing
      FROM unnest(NEW.supporting_trades) AS s (trade_id)
     WHERE NOT EXISTS (SELECT FROM found AS f WHERE f.trade_id = s.trade_id);
    IF v_missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM612',
            MESSAGE = 'an insight rests on trades that do not exist',
            DETAIL = array_to_string(v_missing, ', ', 'NULL'),
            TABLE = 'learning_entries', COLUMN = 'supporting_trades';
    END IF;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.check_supporting_trades() FROM public;
COMMENT ON FUNCTION _tidemark.check_supporting_trades() IS
'Row trigger of learning_entries: raises TM612 where a supporting trade does not exist.';

CREATE OR REPLACE TRIGGER trg_check_supporting_trades
BEFORE INSERT OR UPDATE OF supporting_trades ON public.learning_entries
FOR EACH ROW EXECUTE FUNCTION _tidemark.check_supporting_trades();
COMMENT ON TRIGGER trg_check_supporting_trades ON public.learning_entries IS
'Refuses supporting trades that do not exist.';

CREATE OR REPLACE FUNCTION _tidemark.keep_supporting_trades()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_entry_id uuid;
    v_lost uuid[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        SELECT l.entry_id INTO v_entry_id FROM public.learning_entries AS l WHERE l.supporting_trades <> '{}' LIMIT 1;
    ELSE
        SELECT array_agg(o.trade_id) INTO v_lost
          FROM old_rows AS o
         WHERE NOT EXISTS (SELECT FROM public.trades AS t WHERE t.trade_id = o.trade_id);
        SELECT l.entry_id INTO v_entry_id FROM public.learning_entries AS l WHERE l.supporting_trades && v_lost LIMIT 1;
    END IF;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM612',
            MESSAGE = format('insight %s rests on the trade', v_entry_id),
            HINT = 'Take the trade out of learning_entries.supporting_trades first.',
            TABLE = 'trades';
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.keep_supporting_trades() FROM public;
COMMENT ON FUNCTION _tidemark.keep_supporting_trades() IS
'Statement trigger of trades: raises TM612 where an insight rests on a trade that goes.';

CREATE OR REPLACE TRIGGER trg_keep_supporting_trades_deleted AFTER DELETE ON public.trades
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.keep_supporting_trades();
COMMENT ON TRIGGER trg_keep_supporting_trades_deleted ON public.trades IS 'Keeps trades that insights rest on.';

CREATE OR REPLACE TRIGGER trg_keep_supporting_trades_updated AFTER UPDATE ON public.trades
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.keep_supporting_trades();
COMMENT ON TRIGGER trg_keep_supporting_trades_updated ON public.trades IS
'Keeps the keys of trades that insights rest on.';

CREATE OR REPLACE TRIGGER trg_keep_supporting_trades_truncated BEFORE TRUNCATE ON public.trades
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.keep_supporting_trades();
COMMENT ON TRIGGER trg_keep_supporting_trades_truncated ON public.trades IS 'Keeps trades that insights rest on.';

-- Insights by how much their embedding is like p_embedding: cosine similarity, 1 for the same direction, -1 for the
-- opposite. Embeddings of another length do not count. Without pgvector there are no embeddings: no rows, and a notice.
CREATE OR REPLACE FUNCTION public.similar_insights(
    p_embedding double precision[],
    p_limit integer DEFAULT 10
)
    RETURNS TABLE (
        entry_id uuid, strategy_rule_id uuid, insight text, confidence double precision, similarity double precision
    )
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = 'public.learning_entries'::regclass AND a.attname = 'embedding' AND NOT a.attisdropped
    ) THEN
        RAISE NOTICE 'insights have no embeddings in this database, so none can be compared'
            USING HINT = 'They need the extension vector (pgvector), installed before Tidemark''s tables were made.';
        RETURN;
    END IF;
    RETURN QUERY EXECUTE
        'SELECT e.entry_id, e.strategy_rule_id, e.insight, e.confidence,'
        '       1 - (e.embedding OPERATOR(public.<=>) $1::public.vector)'
        '  FROM public.learning_entries AS e'
        ' WHERE public.vector_dims(e.embedding) = cardinality($1)'
        ' ORDER BY e.embedding OPERATOR(public.<=>) $1::public.vector, e.entry_id'
        ' LIMIT $2'
        USING p_embedding, p_limit;
END
$func$;
COMMENT ON FUNCTION public.similar_insights(double precision[], integer) IS
'Insights whose embedding is most like p_embedding (of a vector: embedding::real[]), by cosine similarity, -1 to 1; '
'without pgvector no rows and a notice.';

-- The equity curve of a backtest as rows, with the drawdown from the highest equity so far, as a fraction of it. Raises
-- TM615 where there is no such backtest, or none that the caller may see.
CREATE OR REPLACE FUNCTION public.equity_curve(p_backtest_id bigint)
    RETURNS TABLE (ts timestamptz, equity double precision, drawdown double precision)
    LANGUAGE plpgsql
    STABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_curve jsonb;
BEGIN
    SELECT b.equity_curve INTO v_curve FROM public.backtest_results AS b WHERE b.backtest_id = p_backtest_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'TM615',
            MESSAGE = format('there is no backtest %s', coalesce(p_backtest_id::text, 'NULL'));
    END IF;
    RETURN QUERY
    SELECT p.ts, p.equity, 1 - p.equity / nullif(max(p.equity) OVER (ORDER BY p.ts), 0)
      FROM jsonb_to_recordset(v_curve) AS p (ts timestamptz, equity double precision)
     ORDER BY p.ts;
END
$func$;
COMMENT ON FUNCTION public.equity_curve(bigint) IS
'Equity curve of a backtest as rows in time order, with the drawdown from the highest equity so far, as a fraction '
'of it; raises TM615 where there is no such backtest.';
