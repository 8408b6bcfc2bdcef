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
       d.metadata::text
  FROM public.timeseries_data AS d,
       public.candles AS c,
       public.quotes AS q
  WITH NO DATA;

-- name: stage_index
-- For the search for a record that the database refuses.
CREATE INDEX IF NOT EXISTS tidemark_stage_n_idx ON pg_temp.tidemark_stage (n);

-- name: lock
SELECT pg_advisory_lock(%(key)s);

-- name: unlock
SELECT pg_advisory_unlock(%(key)s);

-- name: find_task
  SELECT t.task_id,
         t.status = 'succeeded' AS done,
         t.rows_read
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
       finished_at = NULL
 WHERE task_id = %(task)s;

-- name: count
UPDATE public.ingestion_tasks
   SET rows_read = rows_read + %(read)s,
       rows_written = rows_written + %(written)s,
       rows_rejected = rows_rejected + %(rejected)s
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
       t.rows_rejected
  FROM public.ingestion_tasks AS t
 WHERE t.task_id = %(task)s;

-- name: begin_batch
-- The mode is for the scoring. Rows of compressed chunks are decompressed where they conflict: a batch is bounded
-- anyway, so TimescaleDB's own limit, which versions without compression do not have, is lifted.
SELECT set_config('tidemark.ingest_mode', %(mode)s, true),
       CASE WHEN current_setting('timescaledb.max_tuples_decompressed_per_dml_transaction', true) IS NOT NULL
            THEN set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true)
       END;

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

-- name: upsert
-- Of records with the same key the last one counts, and one that says what is stored already changes nothing.
INSERT INTO public.{table} AS t ({columns})
SELECT DISTINCT ON ({key}) {values}
  FROM pg_temp.tidemark_stage AS s
 WHERE s.n >= %(start)s
   AND s.n < %(stop)s
 ORDER BY {key}, s.n DESC
ON CONFLICT ({conflict}) DO UPDATE
   SET {assignments}
 WHERE ({stored}) IS DISTINCT FROM ({new});

-- name: copy_rejects
COPY public.ingestion_rejects (task_id, line_no, raw, error) FROM STDIN;
