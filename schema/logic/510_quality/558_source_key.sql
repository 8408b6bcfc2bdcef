-- The key of timeseries_data to sources. As a FOREIGN KEY it costs more than half of what storing a row does, because
-- it is checked row by row; checked once per statement, for the sources that occur in it, it costs next to nothing. It
-- refuses the same rows with the same SQLSTATE (23503) and constraint name, and locks the sources it saw (FOR KEY
-- SHARE) until the transaction ends, so that none can be deleted in between.

CREATE OR REPLACE FUNCTION _tidemark.refuse_source_key(
    p_source_id integer,
    p_is_missing boolean
)
    RETURNS void
    LANGUAGE plpgsql
    IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'foreign_key_violation',
        MESSAGE = CASE WHEN p_is_missing THEN 'row of timeseries_data refers to a source that does not exist'
                       ELSE 'source has rows in timeseries_data' END,
        DETAIL = format(CASE WHEN p_is_missing THEN 'Key (source_id)=(%s) is not present in table "sources".'
                             ELSE 'Key (source_id)=(%s) is still referenced from table "timeseries_data".' END,
                        p_source_id),
        SCHEMA = 'public',
        TABLE = 'timeseries_data',
        CONSTRAINT = 'timeseries_data_source_id_fkey';
END
$func$;
COMMENT ON FUNCTION _tidemark.refuse_source_key(integer, boolean) IS
'Raises what the foreign key timeseries_data_source_id_fkey would.';

CREATE OR REPLACE FUNCTION _tidemark.check_source_exists()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_source_id integer;
    v_row_count bigint;
    v_source_ids integer[];
    v_found integer[];
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        v_source_ids := ARRAY[NEW.source_id];
    ELSE
        SELECT n.source_id, (SELECT count(*) FROM (SELECT FROM new_rows LIMIT 2) AS c)
          INTO v_source_id, v_row_count
          FROM new_rows AS n
         LIMIT 1;
        IF v_row_count = 1 THEN
            PERFORM FROM public.sources AS s WHERE s.source_id = v_source_id FOR KEY SHARE;
            IF FOUND THEN
                RETURN NULL;
            END IF;
        END IF;
        SELECT array_agg(DISTINCT n.source_id) INTO v_source_ids FROM new_rows AS n;
    END IF;
    -- In order of the key, so that two statements cannot wait for each other.
    SELECT array_agg(s.source_id) INTO v_found
      FROM (SELECT s.source_id
              FROM public.sources AS s
             WHERE s.source_id = ANY (v_source_ids)
             ORDER BY s.source_id
               FOR KEY SHARE) AS s;
    IF cardinality(v_source_ids) > coalesce(cardinality(v_found), 0) THEN
        PERFORM _tidemark.refuse_source_key(i.source_id, true)
           FROM unnest(v_source_ids) AS i (source_id)
          WHERE i.source_id <> ALL (coalesce(v_found, '{}'))
          ORDER BY i.source_id
          LIMIT 1;
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.check_source_exists() FROM public;
COMMENT ON FUNCTION _tidemark.check_source_exists() IS
'Trigger on timeseries_data: refuses rows of sources that do not exist (23503).';

CREATE OR REPLACE TRIGGER trg_check_source AFTER INSERT ON public.timeseries_data
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.check_source_exists();
COMMENT ON TRIGGER trg_check_source ON public.timeseries_data IS
'Foreign key to sources, checked once per statement.';

CREATE OR REPLACE TRIGGER trg_check_moved_source AFTER UPDATE OF source_id ON public.timeseries_data
FOR EACH ROW WHEN (old.source_id IS DISTINCT FROM new.source_id)
EXECUTE FUNCTION _tidemark.check_source_exists();
COMMENT ON TRIGGER trg_check_moved_source ON public.timeseries_data IS
'Foreign key to sources, for a row that moves to another source.';

-- The other side: a source that has rows can neither be deleted nor get another number. Deleting it waits for whoever
-- inserts rows of it, and then has to see them, which a snapshot taken before could not: hence READ COMMITTED only.
CREATE OR REPLACE FUNCTION _tidemark.check_source_unused()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF EXISTS (SELECT FROM public.timeseries_data) THEN
            PERFORM _tidemark.refuse_source_key(t.source_id, false) FROM public.timeseries_data AS t LIMIT 1;
        END IF;
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'TM209',
            MESSAGE = 'sources are deleted in READ COMMITTED transactions only',
            DETAIL = 'The snapshot of this transaction may lack rows of the source that others have stored since.',
            HINT = 'Use SET TRANSACTION ISOLATION LEVEL READ COMMITTED.';
    END IF;
    IF EXISTS (SELECT FROM public.timeseries_data AS t WHERE t.source_id = OLD.source_id) THEN
        PERFORM _tidemark.refuse_source_key(OLD.source_id, false);
    END IF;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.check_source_unused() FROM public;
COMMENT ON FUNCTION _tidemark.check_source_unused() IS
'Trigger on sources: refuses to delete or renumber a source that has rows in timeseries_data (23503).';

CREATE OR REPLACE TRIGGER trg_check_unused_on_delete AFTER DELETE ON public.sources
FOR EACH ROW EXECUTE FUNCTION _tidemark.check_source_unused();
COMMENT ON TRIGGER trg_check_unused_on_delete ON public.sources IS 'Foreign key of timeseries_data.';

CREATE OR REPLACE TRIGGER trg_check_unused_on_update AFTER UPDATE OF source_id ON public.sources
FOR EACH ROW WHEN (old.source_id IS DISTINCT FROM new.source_id)
EXECUTE FUNCTION _tidemark.check_source_unused();
COMMENT ON TRIGGER trg_check_unused_on_update ON public.sources IS 'Foreign key of timeseries_data.';

CREATE OR REPLACE TRIGGER trg_check_unused_on_truncate BEFORE TRUNCATE ON public.sources
FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.check_source_unused();
COMMENT ON TRIGGER trg_check_unused_on_truncate ON public.sources IS 'Foreign key of timeseries_data.';
