-- What the loader says to the database, one statement below each name. Braces are filled with identifiers.

-- name: labels
-- Values of an enumerated type; no row where it does not exist.
SELECT e.enumlabel
  FROM pg_catalog.pg_enum AS e
 WHERE e.enumtypid = to_regtype(%(type)s);

-- name: session
-- COPY sends UTF-8 whatever the client's own encoding.
SET client_encoding = 'UTF8';

-- name: stage
-- Records of one batch on their way into any table; n is their order. The transaction's end empties it.
CREATE TEMPORARY TABLE IF NOT EXISTS pg_temp.tidemark_stage ON COMMIT DELETE ROWS AS
SELECT 0::integer AS n,
       d.source_id,
       d.timestamp,
       d.value,
       c.asset_id,
       c.interval::text,
       c.ts,
       c.open,
       c.high,
       c.low,
       c.close,
       c.volume,
       c.trades::double precision,
       c.vwap,
       q.price,
       q.open_price,
       q.bid,
       q.ask,
       q.change_24h,
       q.change_percent_24h,
       d.metadata::text,
       k.quantity,
       k.side::text,
       k.trade_id
  FROM public.timeseries_data AS d,
       public.candles AS c,
       public.quotes AS q,
       public.ticks AS k
  WITH NO DATA;

-- name: stage_index
-- For the search for a record that the database refuses.
CREATE INDEX IF NOT EXISTS tidemark_stage_n_idx ON pg_temp.tidemark_stage (n);

-- name: lock
SELECT pg_advisory_lock(%(key)s);

-- name: unlock
SELECT pg_advisory_unlock(%(key)s);

-- name: find_task
-- Records to skip: none of what stored nothing.
  SELECT t.task_id,
         t.status = 'succeeded' AS done,
         CASE WHEN t.rows_written > 0 THEN t.rows_read ELSE 0 END
    FROM public.ingestion_tasks AS t
   WHERE t.digest = %(digest)s
     AND t.kind = 'file'
ORDER BY done DESC, t.task_id DESC
   LIMIT 1;

-- name: create_task
INSERT INTO public.ingestion_tasks (source_ref, digest, mode, status, started_at)
VALUES (%(file)s, %(digest)s, %(mode)s, 'running', now())
RETURNING task_id;

-- name: resume_task
UPDATE public.ingestion_tasks
   SET status = 'running',
       mode = %(mode)s,
       error = NULL,
       finished_at = NULL,
       rows_read = CASE WHEN %(anew)s THEN 0 ELSE rows_read END,
       rows_written = CASE WHEN %(anew)s THEN 0 ELSE rows_written END,
       rows_rejected = CASE WHEN %(anew)s THEN 0 ELSE rows_rejected END,
       rows_collapsed = CASE WHEN %(anew)s THEN 0 ELSE rows_collapsed END,
       rows_empty = CASE WHEN %(anew)s THEN 0 ELSE rows_empty END
 WHERE task_id = %(task)s;

-- name: forget_rejects
DELETE FROM public.ingestion_rejects
 WHERE task_id = %(task)s;

-- name: first_reject
  SELECT r.line_no,
         r.error
    FROM public.ingestion_rejects AS r
   WHERE r.task_id = %(task)s
ORDER BY r.line_no
   LIMIT 1;

-- name: count
UPDATE public.ingestion_tasks
   SET rows_read = rows_read + %(read)s,
       rows_written = rows_written + %(written)s,
       rows_rejected = rows_rejected + %(rejected)s,
       rows_collapsed = rows_collapsed + %(collapsed)s,
       rows_empty = rows_empty + %(empty)s
 WHERE task_id = %(task)s;

-- name: end_task
   UPDATE public.ingestion_tasks
      SET status = CASE WHEN %(error)s::text IS NULL THEN 'succeeded' ELSE 'failed' END::public.ingestion_status,
          error = %(error)s,
          finished_at = clock_timestamp()
    WHERE task_id = %(task)s;

-- name: counts
SELECT t.rows_read,
       t.rows_written,
       t.rows_rejected,
       t.rows_collapsed,
       t.rows_empty
  FROM public.ingestion_tasks AS t
 WHERE t.task_id = %(task)s;

-- name: begin_batch
-- The mode is for the scoring. Rows of compressed chunks are decompressed where they conflict: a batch is bounded
-- anyway, so TimescaleDB's own limit, which versions without compression do not have, is lifted.
SELECT set_config('tidemark.ingest_mode', %(mode)s, true),
       CASE WHEN current_setting('timescaledb.max_tuples_decompressed_per_dml_transaction', true) IS NOT NULL
            THEN set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true)
       END;

-- name: fit_chunks
SELECT public.fit_chunks(format('public.%%I', %(table)s::text)::regclass, %(first)s, %(last)s, %(rows)s::bigint);

-- name: find_assets
SELECT a.symbol,
       a.exchange,
       a.asset_id
  FROM public.assets AS a
 WHERE a.symbol = ANY (%(symbols)s);

-- name: create_asset
INSERT INTO public.assets (symbol, exchange, asset_type)
VALUES (%(symbol)s, %(exchange)s, %(type)s)
ON CONFLICT (symbol, exchange) DO NOTHING;

-- name: find_sources
SELECT s.name,
       s.source_id
  FROM public.sources AS s
 WHERE s.name = ANY (%(names)s)
    OR s.source_id = ANY (%(ids)s);

-- name: create_source
INSERT INTO public.sources (name, data_type, asset_id, interval)
VALUES (%(name)s, %(type)s, %(asset)s, %(interval)s)
ON CONFLICT (name) DO NOTHING;

-- name: copy
COPY pg_temp.tidemark_stage ({columns}) FROM STDIN (FORMAT binary);

-- name: insert
COPY public.{table} ({columns}) FROM STDIN (FORMAT binary);

-- name: any_there
SELECT EXISTS (
       SELECT
         FROM public.{table} AS t
        WHERE t.{series} = ANY (%(series)s)
          AND t.{time} BETWEEN %(first)s AND %(last)s
       );

-- name: kept
-- How many of the staged keys are stored.
SELECT count(*)
  FROM (SELECT DISTINCT {key} FROM pg_temp.tidemark_stage AS s) AS s
 WHERE EXISTS (SELECT FROM public.{table} AS t WHERE {same});

-- name: upsert
-- Of records with the same key the last one counts, and one that says what is stored already is left out at once.
WITH f AS (
    SELECT DISTINCT ON ({key}) {values}
      FROM pg_temp.tidemark_stage AS s
     WHERE s.n >= %(start)s
       AND s.n < %(stop)s
     ORDER BY {key}, s.n DESC
)
INSERT INTO public.{table} AS t ({columns})
SELECT f.*
  FROM f
  LEFT JOIN public.{table} AS o
    ON {same}
   AND o.{time} BETWEEN %(first)s AND %(last)s
 WHERE o.{time} IS NULL
    OR ({before}) IS DISTINCT FROM ({fresh})
ON CONFLICT ({conflict}) DO UPDATE
   SET {assignments}
 WHERE ({stored}) IS DISTINCT FROM ({new});

-- name: upsert_ticks
-- A trade is stored already where one of its instant has its id or, without ids, its figures, as often as this file
-- has had them. Others are numbered behind those that are there; the lock keeps two files from giving one number twice.
WITH locked AS MATERIALIZED (
    SELECT pg_advisory_xact_lock('public.ticks'::regclass::oid::bigint)
), f AS MATERIALIZED (
    SELECT s.n, s.asset_id, s.ts, s.price, s.quantity, s.side, s.trade_id, s.same,
           row_number() OVER (PARTITION BY s.asset_id, s.ts, s.same ORDER BY s.n) AS nth
      FROM (
        SELECT s.n, s.asset_id, s.ts, nullif(s.price, 'NaN') AS price, nullif(s.quantity, 'NaN') AS quantity, s.side,
               s.trade_id, coalesce('#' || s.trade_id, concat_ws('|', s.price, s.quantity, s.side)) AS same
          FROM pg_temp.tidemark_stage AS s, locked
         WHERE s.n < %(stop)s
      ) AS s
), o AS MATERIALIZED (
    SELECT t.asset_id, t.ts, t.seq, t.price, t.quantity, t.side, t.trade_id, t.same,
           row_number() OVER (PARTITION BY t.asset_id, t.ts, t.same ORDER BY t.seq) AS nth
      FROM (
        SELECT t.*, coalesce('#' || t.trade_id, concat_ws('|', coalesce(t.price, 'NaN'), coalesce(t.quantity, 'NaN'),
                                                          t.side)) AS same
          FROM (SELECT DISTINCT f.asset_id, f.ts FROM f) AS i
          JOIN public.ticks AS t
            ON t.asset_id = i.asset_id
           AND t.ts = i.ts
         WHERE t.ts BETWEEN %(first)s AND %(last)s
      ) AS t
), new AS (
    SELECT f.*, o.seq,
           coalesce((SELECT max(l.seq) + 1 FROM o AS l WHERE l.asset_id = f.asset_id AND l.ts = f.ts), 0)
           + row_number() OVER (PARTITION BY f.asset_id, f.ts, o.seq IS NULL ORDER BY f.n) - 1 AS next
      FROM f
      LEFT JOIN o
        ON o.asset_id = f.asset_id
       AND o.ts = f.ts
       AND o.same = f.same
       AND o.nth = f.nth
     WHERE f.n >= %(start)s
       AND (f.trade_id IS NULL OR f.nth = 1)
       AND (o.seq IS NULL OR (o.price, o.quantity, o.side::text) IS DISTINCT FROM (f.price, f.quantity, f.side))
)
INSERT INTO public.ticks AS t (asset_id, seq, ts, price, quantity, side, trade_id)
SELECT n.asset_id, coalesce(n.seq, n.next), n.ts, n.price, n.quantity, n.side::public.trade_type, n.trade_id
  FROM new AS n
ON CONFLICT (asset_id, seq, ts) DO UPDATE
   SET price = excluded.price,
       quantity = excluded.quantity,
       side = excluded.side;

-- name: kept_ticks
-- How many of the staged instants have a trade.
SELECT coalesce(sum(s.trades), 0)
  FROM (SELECT s.asset_id, s.ts, count(*) AS trades FROM pg_temp.tidemark_stage AS s GROUP BY 1, 2) AS s
 WHERE EXISTS (SELECT FROM public.ticks AS t WHERE t.asset_id = s.asset_id AND t.ts = s.ts);

-- name: copy_rejects
COPY public.ingestion_rejects (task_id, line_no, raw, error) FROM STDIN;
