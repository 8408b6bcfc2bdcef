-- What does the record hold, and when was it last sealed?
-- parameters:
-- columns: changes bigint, newest_change timestamptz, seals bigint, sealed_at timestamptz, unsealed bigint,
--   archived_rows bigint
-- cost: the newest seal, the changes since, and the server's estimates of the rest; needs the rights of an
--   administrator
SELECT greatest(l.last_id, 0) AS changes,
       l.changed_at AS newest_change,
       s.seals,
       s.sealed_at,
       (SELECT count(*) FROM public.audit_log AS u WHERE u.audit_id > coalesce(s.last_id, 0)) AS unsealed,
       (SELECT count(*) FROM public.timeseries_archive AS v WHERE v.restored_at IS NULL) AS archived_rows
  FROM (SELECT count(*) AS seals, max(e.sealed_at) AS sealed_at, max(e.to_audit_id) AS last_id
          FROM public.audit_seals AS e) AS s
 CROSS JOIN (SELECT max(c.audit_id) AS last_id, max(c.changed_at) AS changed_at FROM public.audit_log AS c) AS l;
