-- How long is what kept, and do the jobs run?
-- parameters:
-- columns: hypertable text, compress_after interval, drop_after interval, job text, schedule interval,
--   last_run_status text, last_run_at timestamptz, next_start timestamptz
-- cost: the catalogue; no rows. Without jobs (Apache-2) the last five columns are empty
SELECT _tidemark.label(p.relation) AS hypertable,
       p.compress_after,
       p.drop_after,
       j.proc_name::text AS job,
       j.schedule_interval AS schedule,
       t.last_run_status,
       t.last_run_started_at AS last_run_at,
       j.next_start
  FROM public.data_policies AS p
  LEFT JOIN timescaledb_information.jobs AS j
    ON to_regclass(quote_ident(j.hypertable_schema) || '.' || quote_ident(j.hypertable_name)) = p.relation
  LEFT JOIN timescaledb_information.job_stats AS t ON t.job_id = j.job_id
 WHERE _tidemark.is_hypertable(p.relation)
 ORDER BY 1, job;
