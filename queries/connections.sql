-- Who is connected, and what is waiting?
-- parameters:
-- columns: username text, application text, client text, state text, connections bigint, waiting bigint,
--   longest_transaction interval
-- cost: the list of sessions
SELECT s.usename::text AS username,
       s.application_name AS application,
       coalesce(host(s.client_addr), 'local') AS client,
       s.state,
       count(*) AS connections,
       count(*) FILTER (WHERE s.wait_event_type = 'Lock') AS waiting,
       max(clock_timestamp() - s.xact_start) AS longest_transaction
  FROM pg_catalog.pg_stat_activity AS s
 WHERE s.datname = current_database() AND s.backend_type = 'client backend'
 GROUP BY s.usename, s.application_name, s.client_addr, s.state
 ORDER BY connections DESC, username ASC, application ASC;
