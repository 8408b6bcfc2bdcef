-- Which statements take longest?
-- parameters: count integer = 10
-- columns: query text, calls bigint, mean_ms double precision, max_ms double precision, total_ms double precision,
--   rows bigint
-- cost: nothing of the data; needs pg_stat_statements, else there are no rows
SELECT s.query,
       s.calls,
       s.mean_exec_time AS mean_ms,
       s.max_exec_time AS max_ms,
       s.total_exec_time AS total_ms,
       s.rows
  FROM _tidemark.statement_statistics() AS s
  JOIN pg_catalog.pg_database AS d ON d.oid = s.dbid
 WHERE d.datname = current_database()
 ORDER BY s.mean_exec_time DESC
 LIMIT :count;
