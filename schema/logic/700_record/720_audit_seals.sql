-- Tamper evidence. Each row of audit_log carries a hash of its content; seal_audit() closes ranges of rows into a chain
-- of hashes. Whoever rewrites the log has to rewrite every seal after it too, and then it no longer ends in a root that
-- somebody wrote down elsewhere, for instance in the manifest of a backup.
--
-- Numbers are given out before transactions commit, so a row can turn up below others that are long visible. A range is
-- closed only when every transaction that may have taken a number in it has ended.

-- The root of a seal, from the root before it, its own columns and its leaves one after the other.
CREATE OR REPLACE FUNCTION _tidemark.seal_root(
    p_previous_root bytea,
    p_horizon xid8,
    p_sealed_at timestamptz,
    p_leaves bytea
)
    RETURNS bytea
    LANGUAGE plpgsql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    RETURN sha256(
        coalesce(p_previous_root, '')
        || convert_to(format('%s %s ', p_horizon, (extract(EPOCH FROM p_sealed_at) * 1000000)::bigint), 'UTF8')
        || coalesce(p_leaves, '')
    );
END
$func$;
COMMENT ON FUNCTION _tidemark.seal_root(bytea, xid8, timestamptz, bytea) IS
'SHA-256 over the root before, the horizon and instant of a seal, and the leaves of its range.';

-- Closes what can be closed and returns the new seals, oldest first; no row where there is nothing new. It waits, up to
-- p_wait, for transactions that are writing at the moment; while one goes on for longer, nothing is closed, and a later
-- call will. Only one session seals at a time, others wait for it. To be called every few minutes, from a job or cron.
CREATE OR REPLACE FUNCTION public.seal_audit(
    p_wait interval DEFAULT interval '10 seconds',
    p_rows integer DEFAULT 100000
)
    RETURNS SETOF public.audit_seals
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_deadline CONSTANT timestamptz := clock_timestamp() + p_wait;
    v_last bigint;
    v_horizon xid8;
    v_from bigint;
    v_to bigint;
    v_root bytea;
    v_seal public.audit_seals;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RETURN; -- a transaction that has written will not end before it is sealed
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('tidemark.seal_audit', 0));
    SELECT s.to_audit_id + 1, s.root INTO v_from, v_root
      FROM public.audit_seals AS s
     ORDER BY s.seal_id DESC
     LIMIT 1;
    -- A trigger has a transaction id before it takes a number, so whoever took one up to v_last has one below ours.
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO v_last FROM public.audit_log_audit_id_seq AS s;
    IF v_last < coalesce(v_from, 1) THEN
        RETURN;
    END IF;
    v_horizon := pg_current_xact_id();
    WHILE pg_snapshot_xmin(pg_current_snapshot()) < v_horizon LOOP
        IF clock_timestamp() >= v_deadline THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    LOOP
        SELECT min(r.audit_id), max(r.audit_id) INTO v_from, v_to
          FROM (SELECT l.audit_id
                  FROM public.audit_log AS l
                 WHERE l.audit_id >= coalesce(v_from, (SELECT min(f.audit_id) FROM public.audit_log AS f))
                   AND l.audit_id <= v_last
                 ORDER BY l.audit_id
                 LIMIT p_rows) AS r;
        EXIT WHEN v_to IS NULL;
        INSERT INTO public.audit_seals (
            from_audit_id, to_audit_id, row_count, audit_ids, digests, root, previous_root, horizon, sealed_at,
            created_at
        )
        SELECT v_from, v_to, count(*), range_agg(int8range(l.audit_id, l.audit_id, '[]')),
               string_agg(substr(l.leaf, 1, 4), '' ORDER BY l.audit_id),
               _tidemark.seal_root(v_root, v_horizon, now(), string_agg(l.leaf, '' ORDER BY l.audit_id)),
               v_root, v_horizon, now(), now()
          FROM (SELECT e.audit_id, e.content_hash || coalesce(t.content_hash, '') AS leaf
                  FROM public.audit_log AS e
                  LEFT JOIN public.audit_tx AS t ON t.tx_id = e.tx_id
                 WHERE e.audit_id BETWEEN v_from AND v_to) AS l
        RETURNING * INTO v_seal;
        RETURN NEXT v_seal;
        v_root := v_seal.root;
        v_from := v_to + 1;
    END LOOP;
END
$func$;
REVOKE ALL ON FUNCTION public.seal_audit(interval, integer) FROM public;
COMMENT ON FUNCTION public.seal_audit(interval, integer) IS
'Closes settled rows of audit_log into the chain of seals and returns the new seals.';

-- Compares the record with its seals and with itself. One row for each problem, the one with the lowest audit_id first,
-- and none where the record is intact:
--
--     changed      a row of audit_log is not what was written; audit_id names it
--     missing      a sealed row is gone
--     inserted     a row stands below the last seal that was not sealed
--     rewritten    a row was changed and its hash made to fit, but not the seal's
--     transaction  the row of audit_tx behind a change is gone or not what was written
--     archive      a row of timeseries_archive is gone or not what audit_log says was deleted
--     seal         a seal does not fit its rows
--     chain        a seal does not follow the one before
--     anchor       p_root, a root written down elsewhere, is not in the chain: it was cut off or made anew
--
-- Rows that are not sealed yet are checked by their own hash only.
CREATE OR REPLACE FUNCTION public.verify_audit(p_root bytea DEFAULT NULL)
    RETURNS TABLE (problem text, audit_id bigint, seal_id bigint, detail text)
    LANGUAGE plpgsql
    STABLE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET jit = off
AS $func$
BEGIN
    RETURN QUERY
    WITH seals AS MATERIALIZED (
        SELECT s.*, lag(s.root) OVER w AS expected_root, lag(s.to_audit_id) OVER w AS before,
               s.row_count = (SELECT sum(upper(r.ids) - lower(r.ids)) FROM unnest(s.audit_ids) AS r (ids))
               AND octet_length(s.digests) = s.row_count * 4
               AND s.from_audit_id = lower(s.audit_ids)
               AND s.to_audit_id = upper(s.audit_ids) - 1
               AND s.created_at = s.sealed_at AS is_consistent
          FROM public.audit_seals AS s
        WINDOW w AS (ORDER BY s.seal_id)
    ), sealed AS MATERIALIZED (
        SELECT s.seal_id, i.audit_id, substr(s.digests, ((i.place - 1) * 4 + 1)::integer, 4) AS digest
          FROM seals AS s
         CROSS JOIN LATERAL (
                   SELECT g.audit_id, row_number() OVER (ORDER BY g.audit_id) AS place
                     FROM unnest(s.audit_ids) AS r (ids)
                    CROSS JOIN LATERAL generate_series(lower(r.ids), upper(r.ids) - 1) AS g (audit_id)
               ) AS i
         WHERE s.is_consistent -- or else it may claim any number of rows
    ), entries AS MATERIALIZED (
        SELECT l.audit_id, l.tx_id,
               l.content_hash IS DISTINCT FROM _tidemark.audit_hash(
                   l.audit_id, l.tx_id, l.table_name, l.operation, l.row_key, l.new_key, l.old_values, l.new_values,
                   l.changed_fields, l.changed_by, l.db_role, l.changed_at, l.reason, l.created_at
               ) AS is_changed,
               l.content_hash || coalesce(t.content_hash, '') AS leaf, t.is_intact AS has_transaction
          FROM public.audit_log AS l
          LEFT JOIN (
                   SELECT x.tx_id, x.content_hash,
                          x.content_hash = _tidemark.audit_tx_hash(
                              x.tx_id, x.xact_id, x.client, x.application, x.request, x.created_at
                          ) AS is_intact
                     FROM public.audit_tx AS x
               ) AS t ON t.tx_id = l.tx_id
    ), found AS (
        SELECT 'changed' AS problem, e.audit_id, NULL::bigint AS seal_id,
               'its content does not fit its hash' AS detail
          FROM entries AS e
         WHERE e.is_changed
        UNION ALL
        SELECT 'transaction', e.audit_id, NULL, format('audit_tx %s is missing or was changed', e.tx_id)
          FROM entries AS e
         WHERE e.has_transaction IS NOT TRUE
        UNION ALL
        SELECT 'missing', d.audit_id, d.seal_id, 'the row was sealed and is gone'
          FROM sealed AS d
         WHERE NOT EXISTS (SELECT FROM entries AS e WHERE e.audit_id = d.audit_id)
        UNION ALL
        SELECT 'inserted', e.audit_id, NULL, 'the row is below the last seal and in none'
          FROM entries AS e
         WHERE e.audit_id <= (SELECT max(s.to_audit_id) FROM seals AS s)
           AND NOT EXISTS (SELECT FROM seals AS s WHERE s.audit_ids @> e.audit_id)
        UNION ALL
        SELECT 'rewritten', d.audit_id, d.seal_id, 'its hash is not the one that was sealed'
          FROM sealed AS d
          JOIN entries AS e ON e.audit_id = d.audit_id
         WHERE substr(e.leaf, 1, 4) IS DISTINCT FROM d.digest
           AND NOT e.is_changed
        UNION ALL
        SELECT 'seal', s.from_audit_id, s.seal_id,
               format('rows %s to %s do not make its root', s.from_audit_id, s.to_audit_id)
          FROM seals AS s
          LEFT JOIN (
                   SELECT d.seal_id, string_agg(e.leaf, '' ORDER BY d.audit_id) AS leaves
                     FROM sealed AS d
                     LEFT JOIN entries AS e ON e.audit_id = d.audit_id
                    GROUP BY d.seal_id
               ) AS g ON g.seal_id = s.seal_id
         WHERE s.root IS DISTINCT FROM _tidemark.seal_root(s.previous_root, s.horizon, s.sealed_at, g.leaves)
            OR s.is_consistent IS NOT TRUE
        UNION ALL
        SELECT 'chain', s.from_audit_id, s.seal_id, 'it does not follow the seal before'
          FROM seals AS s
         WHERE s.previous_root IS DISTINCT FROM s.expected_root
            OR s.from_audit_id <= s.before
        UNION ALL
        SELECT 'archive', a.audit_id, NULL, format('archive_id %s is not what was deleted', a.archive_id)
          FROM public.timeseries_archive AS a
          LEFT JOIN public.audit_log AS l ON l.audit_id = a.audit_id
         WHERE a.audit_id IS NULL
            OR l.audit_id IS NULL
            OR l.table_name <> a.table_name
            OR l.changed_by <> a.deleted_by
            OR l.reason IS DISTINCT FROM a.reason
            OR (l.operation = 'delete' AND l.old_values::text <> a.row::text)
        UNION ALL
        SELECT 'archive', l.audit_id, NULL, 'a deleted row is not in the archive'
          FROM public.audit_log AS l
          LEFT JOIN (
                   SELECT a.audit_id, count(*) AS row_count, sum(_tidemark.row_digest(a.row))::text AS checksum
                     FROM public.timeseries_archive AS a
                    GROUP BY a.audit_id
               ) AS a ON a.audit_id = l.audit_id
         WHERE (l.operation = 'delete'
                AND a.row_count IS DISTINCT FROM 1
                AND l.table_name IN (SELECT _tidemark.record_name(c.oid)
                                       FROM timescaledb_information.hypertables AS h
                                       JOIN pg_catalog.pg_namespace AS n ON n.nspname = h.hypertable_schema
                                       JOIN pg_catalog.pg_class AS c
                                         ON c.relnamespace = n.oid AND c.relname = h.hypertable_name))
            OR (l.operation = 'drop_chunk'
                AND l.old_values ? 'archived_checksum'
                AND (a.row_count, a.checksum) IS DISTINCT FROM (
                    (l.old_values ->> 'rows')::bigint, l.old_values ->> 'archived_checksum'
                ))
        UNION ALL
        SELECT 'anchor', NULL, NULL, format('no seal has the root %s', encode(p_root, 'hex'))
         WHERE p_root IS NOT NULL
           AND NOT EXISTS (SELECT FROM seals AS s WHERE s.root = p_root)
    )
    SELECT f.problem, f.audit_id, f.seal_id, f.detail
      FROM found AS f
     -- A seal that does not fit is a consequence of what is listed before it, where anything is.
     ORDER BY f.problem IN ('seal', 'chain', 'anchor'), f.audit_id, f.problem;
END
$func$;
REVOKE ALL ON FUNCTION public.verify_audit(bytea) FROM public;
COMMENT ON FUNCTION public.verify_audit(bytea) IS
'Problems of the record, one row each, the first bad row first; none where it is intact.';
