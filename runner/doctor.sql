-- The checks of `tidemark doctor`. Each returns one row per finding: severity (ok, info, warning, critical), found and
-- advice (what to do); none where all is well. A check that needs an object is left out where the object is missing.
-- Limits are settings doctor.…, from doctor.py.

-- name: version
-- Below these versions TimescaleDB has known holes. One of the update itself waits until there is something to update to.
WITH installed AS (
    SELECT x.extversion,
           string_to_array(regexp_replace(x.extversion, '[^0-9.].*$', ''), '.')::integer[] AS number,
           coalesce(current_setting('timescaledb.license', true), '') = 'timescale' AS is_community
      FROM pg_catalog.pg_extension AS x
     WHERE x.extname = 'timescaledb'
)
SELECT CASE WHEN f.is_community OR e.default_version <> i.extversion THEN f.severity ELSE 'info' END AS severity,
       format('TimescaleDB %s %s', i.extversion, f.hole) AS found,
       format('update to %s or newer%s', f.floor, CASE
           WHEN current_setting('server_version_num')::integer < 160000 AND f.number >= '{2,29,0}'
           THEN ', which needs PostgreSQL 16'
       END) AS advice
  FROM installed AS i
 CROSS JOIN (VALUES
       ('{2,25,2}'::integer[], '2.25.2', 'warning', false, 'trusts the caller''s search_path in its update scripts'),
       ('{2,27,1}', '2.27.1', 'warning', true, 'shows everybody the errors of other roles'' jobs'),
       ('{2,29,1}', '2.29.1', 'info', true, 'trusts compressed data that may be malformed')
       ) AS f (number, floor, severity, is_community, hole)
  JOIN pg_catalog.pg_available_extensions AS e ON e.name = 'timescaledb'
 WHERE i.number < f.number
   AND (i.is_community OR NOT f.is_community);

-- name: chunk_functions
-- Before TimescaleDB 2.29.1 its internal functions checked no permission.
SELECT 'critical' AS severity,
       format('every role may call %s and so remove chunks it has no right to', p.oid::regprocedure) AS found,
       format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', p.oid::regprocedure) AS advice
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_extension AS x ON x.extname = 'timescaledb'
 WHERE p.pronamespace = to_regnamespace('_timescaledb_functions')
   AND p.proname IN ('drop_chunk', 'detach_chunk')
   AND string_to_array(regexp_replace(x.extversion, '[^0-9.].*$', ''), '.')::integer[] < '{2,29,1}'
   AND has_function_privilege('public', p.oid, 'EXECUTE');

-- name: waiting_updates
-- TimescaleDB looks at the row once more with a plan that yields none, since it puts off making the real one. Nothing
-- can be updated to yet, hence no warning, which would never go away.
SELECT 'info' AS severity,
       format('in TimescaleDB %s an UPDATE or DELETE of a hypertable''s row that waited for another session changes nothing',
              x.extversion) AS found,
       'SELECT … FOR UPDATE first, or use REPEATABLE READ, which raises 40001; look at the row count' AS advice
  FROM pg_catalog.pg_extension AS x
 WHERE x.extname = 'timescaledb'
   AND string_to_array(regexp_replace(x.extversion, '[^0-9.].*$', ''), '.')::integer[] >= '{2,28,1}';

-- name: postgresql
-- Before these releases, restoring a dump could run code of whoever owned the dumped server (CVE-2025-8714).
SELECT 'warning' AS severity,
       format('PostgreSQL %s lets a dump run commands on the machine that restores it (CVE-2025-8714)',
              split_part(current_setting('server_version'), ' ', 1)) AS found,
       format('update to %s.%s or newer', f.major, f.minor) AS advice
  FROM (VALUES (15, 14), (16, 10), (17, 6)) AS f (major, minor)
 WHERE current_setting('server_version_num')::integer / 10000 = f.major
   AND current_setting('server_version_num')::integer % 10000 < f.minor;

-- name: extension_update
SELECT 'info' AS severity,
       format('the server has TimescaleDB %s, the database uses %s', e.default_version, x.extversion) AS found,
       'in a new session of `psql -X`, as its first command: ALTER EXTENSION timescaledb UPDATE' AS advice
  FROM pg_catalog.pg_extension AS x
  JOIN pg_catalog.pg_available_extensions AS e ON e.name = x.extname
 WHERE x.extname = 'timescaledb'
   AND e.default_version <> x.extversion
UNION ALL
SELECT 'warning', format('view %s stands on %s of TimescaleDB: an update of the extension will fail',
                         c.oid::regclass, string_agg(DISTINCT d.refobjid::regclass::text, ', ')),
       'ask them through a function, or drop the view before the update and make it again'
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = c.oid
  JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
       AND d.refclassid = 'pg_class'::regclass
  JOIN pg_catalog.pg_depend AS e ON e.classid = 'pg_class'::regclass AND e.objid = d.refobjid AND e.deptype = 'e'
  JOIN pg_catalog.pg_extension AS t ON e.refclassid = 'pg_extension'::regclass AND t.oid = e.refobjid
 WHERE t.extname = 'timescaledb'
   AND c.relkind IN ('v', 'm')
   AND d.refobjid <> c.oid
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS o
                    WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.deptype = 'e')
 GROUP BY c.oid;

-- name: restoring
SELECT 'critical' AS severity, 'the database is in restore: it refuses writes and runs no jobs' AS found,
       'SELECT timescaledb_post_restore(), if no restore is running' AS advice
 WHERE current_setting('timescaledb.restoring', true) = 'on';

-- name: settings
SELECT f.severity, format('%s is %s: %s', s.name, s.setting, f.consequence) AS found, f.advice
  FROM pg_catalog.pg_settings AS s
  JOIN (VALUES
       ('fsync', 'on', 'critical', 'a crash of the machine can destroy the database', 'set fsync = on'),
       ('full_page_writes', 'on', 'critical', 'a crash of the machine can destroy pages', 'set full_page_writes = on'),
       ('zero_damaged_pages', 'off', 'critical', 'damaged pages are emptied silently',
        'set zero_damaged_pages = off'),
       ('ignore_checksum_failure', 'off', 'critical', 'damaged pages are read as if whole',
        'set ignore_checksum_failure = off'),
       ('synchronous_commit', 'on', 'warning', 'a crash can lose what was acknowledged just before',
        'set synchronous_commit = on'),
       ('autovacuum', 'on', 'warning', 'tables bloat and statistics age', 'set autovacuum = on'),
       ('track_counts', 'on', 'warning', 'autovacuum is blind without it', 'set track_counts = on'),
       ('password_encryption', 'scram-sha-256', 'warning', 'passwords are stored weakly',
        'set password_encryption = ''scram-sha-256'' and the passwords anew'),
       ('data_checksums', 'on', 'info', 'damage by the disk goes unnoticed',
        'stop the server and run pg_checksums --enable'),
       ('wal_level', 'replica', 'info', 'there can be no base backup and no archive', 'set wal_level = replica'),
       ('timescaledb.telemetry_level', 'off', 'info', 'TimescaleDB reports to its maker',
        'set timescaledb.telemetry_level = off'),
       ('TimeZone', 'UTC', 'info', 'days begin at its midnight in questions that do not say otherwise',
        'ALTER DATABASE … SET timezone = ''UTC''')
       ) AS f (name, wanted, severity, consequence, advice) ON f.name = s.name
 WHERE s.setting <> f.wanted
   AND NOT (s.name = 'TimeZone' AND s.setting IN ('Etc/UTC', 'GMT', 'Etc/GMT', 'Universal', 'Zulu'))
   AND NOT (s.name = 'wal_level' AND s.setting = 'logical')
   AND NOT (s.name = 'synchronous_commit' AND s.setting IN ('local', 'remote_write', 'remote_apply'))
   AND NOT (s.name = 'autovacuum' AND s.setting = 'on');

-- name: memory
SELECT 'info' AS severity,
       format('shared_buffers is %s for a database of %s', current_setting('shared_buffers'),
              pg_size_pretty(pg_database_size(current_database()))) AS found,
       'set shared_buffers to about a quarter of the machine''s memory' AS advice
 WHERE pg_size_bytes(current_setting('shared_buffers')) * current_setting('doctor.data_per_buffer')::numeric
       < pg_database_size(current_database())
   AND pg_size_bytes(current_setting('shared_buffers')) < 512 * 1024 * 1024;

-- name: locks
-- A statement over a whole hypertable locks every chunk and every index of every chunk.
SELECT 'warning' AS severity,
       format('a statement over all of %s takes %s of %s locks', h.name, h.locks, h.sessions * h.per_session) AS found,
       format('set max_locks_per_transaction = %s, or keep longer chunks',
              ceil(4.0 * h.locks / h.sessions / 64) * 64) AS advice
  FROM (
        SELECT t.name, t.num_chunks * (
                   1 + (SELECT count(*) FROM pg_catalog.pg_index AS i WHERE i.indrelid = t.name::regclass)
               ) AS locks,
               current_setting('max_locks_per_transaction')::bigint AS per_session,
               current_setting('max_connections')::bigint
               + current_setting('max_prepared_transactions')::bigint AS sessions
          FROM (SELECT format('%I.%I', y.hypertable_schema, y.hypertable_name) AS name, y.num_chunks
                  FROM timescaledb_information.hypertables AS y) AS t
       ) AS h
 WHERE h.locks > h.sessions * h.per_session * current_setting('doctor.share_of_locks')::float8;

-- name: chunks
-- needs: public.data_policies
-- Every chunk is a table with all indexes: planning takes longer than reading where there are hundreds of small ones.
SELECT 'warning' AS severity,
       format('%s chunks of %s, with %s rows, do not fit them: %s would', sum(p.chunk_count),
              _tidemark.label(p.hypertable), sum(p.row_count), sum(cardinality(p.pieces))) AS found,
       format('tidemark rechunk %s', _tidemark.label(p.hypertable)) AS advice
  FROM public.rechunk_plan() AS p
 GROUP BY p.hypertable
HAVING abs(sum(p.chunk_count) - sum(cardinality(p.pieces))) > current_setting('doctor.spare_chunks')::bigint
 ORDER BY p.hypertable;

-- name: connections
SELECT CASE WHEN c.used >= c.available THEN 'critical' ELSE 'warning' END AS severity,
       format('%s of %s connections are in use', c.used, c.available) AS found,
       'put a pooler (PgBouncer) in front, or raise max_connections' AS advice
  FROM (
        SELECT count(*) FILTER (WHERE a.backend_type IS DISTINCT FROM 'walsender' AND a.datid IS NOT NULL) AS used,
               current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
               AS available
          FROM pg_catalog.pg_stat_activity AS a
       ) AS c
 WHERE c.used > c.available * current_setting('doctor.share_of_connections')::float8;

-- name: long_transactions
-- They keep rows from being vacuumed and tables from being migrated.
SELECT CASE WHEN a.age > current_setting('doctor.forgotten_transaction')::interval THEN 'critical'
            ELSE 'warning' END AS severity,
       format('process %s of %s (%s) is %s, its transaction %s old', a.pid, a.usename,
              coalesce(nullif(a.application_name, ''), 'no name'), a.state, date_trunc('second', a.age)) AS found,
       format('end it there, or: SELECT pg_terminate_backend(%s)', a.pid) AS advice
  FROM (
        SELECT s.*, clock_timestamp() - s.xact_start AS age
          FROM pg_catalog.pg_stat_activity AS s
         WHERE s.datname = current_database()
           AND s.backend_type = 'client backend'
           AND s.pid <> pg_backend_pid()
       ) AS a
 WHERE a.age > current_setting('doctor.long_transaction')::interval
    OR (a.state LIKE 'idle in transaction%'
        AND clock_timestamp() - a.state_change > current_setting('doctor.idle_in_transaction')::interval)
 ORDER BY a.age DESC;

-- name: prepared_transactions
SELECT 'critical' AS severity,
       format('transaction %L was prepared by %s and is %s old', p.gid, p.owner,
              date_trunc('second', now() - p.prepared)) AS found,
       format('ROLLBACK PREPARED %L, or COMMIT PREPARED', p.gid) AS advice
  FROM pg_catalog.pg_prepared_xacts AS p
 WHERE p.database = current_database()
   AND now() - p.prepared > current_setting('doctor.long_transaction')::interval;

-- name: blocked
SELECT 'warning' AS severity,
       format('process %s waits since %s for a lock that process %s holds', l.pid,
              date_trunc('second', clock_timestamp() - l.waitstart),
              array_to_string(pg_blocking_pids(l.pid), ', ')) AS found,
       'end the transaction that holds it' AS advice
  FROM pg_catalog.pg_locks AS l
 WHERE NOT l.granted
   AND clock_timestamp() - l.waitstart > current_setting('doctor.lock_wait')::interval;

-- name: bloat
SELECT 'warning' AS severity,
       format('%s: %s of %s rows are dead, last vacuumed %s', t.relid::regclass, t.n_dead_tup,
              t.n_live_tup + t.n_dead_tup,
              coalesce(date_trunc('second', greatest(t.last_vacuum, t.last_autovacuum))::text, 'never')) AS found,
       format('VACUUM (ANALYZE) %s; if they stay, an old transaction or slot holds them', t.relid::regclass) AS advice
  FROM pg_catalog.pg_stat_user_tables AS t
 WHERE t.n_dead_tup > current_setting('doctor.dead_rows')::bigint
   AND t.n_dead_tup > current_setting('doctor.dead_share')::float8 * (t.n_live_tup + t.n_dead_tup)
 ORDER BY t.n_dead_tup DESC
 LIMIT 5;

-- name: wraparound
-- PostgreSQL stops taking writes some three million transactions before 2,147 million.
SELECT CASE WHEN d.age < current_setting('doctor.old_transactions')::bigint THEN 'ok'
            WHEN d.age < current_setting('doctor.old_transactions')::bigint * 2 THEN 'warning'
            ELSE 'critical' END AS severity,
       format('the oldest transaction of database %s is %s million back, of 2,147 million', d.datname,
              d.age / 1000000) AS found,
       CASE WHEN d.age < current_setting('doctor.old_transactions')::bigint THEN ''
            ELSE format('in %s: end old transactions and slots, then VACUUM (FREEZE)', d.datname) END AS advice
  FROM (
        SELECT b.datname, greatest(age(b.datfrozenxid), mxid_age(b.datminmxid)) AS age
          FROM pg_catalog.pg_database AS b
       ) AS d
 ORDER BY d.age DESC
 LIMIT 1;

-- name: sequences
SELECT CASE WHEN s.used >= 0.95 THEN 'critical' ELSE 'warning' END AS severity,
       format('sequence %I.%I has used %s %% of its numbers', s.schemaname, s.sequencename,
              round(s.used * 100)) AS found,
       'make the column bigint, and ALTER SEQUENCE … AS bigint' AS advice
  FROM (
        SELECT q.*, q.last_value::numeric / q.max_value AS used
          FROM pg_catalog.pg_sequences AS q
         WHERE q.increment_by > 0 AND NOT q.cycle
       ) AS s
 WHERE s.used > current_setting('doctor.share_of_sequence')::numeric;

-- name: replication
SELECT 'warning' AS severity,
       format('standby %s is %s behind, in time %s',
              coalesce(nullif(r.application_name, ''), r.client_addr::text, r.pid::text),
              pg_size_pretty(r.behind), coalesce(r.replay_lag::text, 'unknown')) AS found,
       'look at its load, its disk and the network in between' AS advice
  FROM (
        SELECT s.*, pg_wal_lsn_diff(
                        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                        coalesce(s.replay_lsn, s.flush_lsn, s.sent_lsn)
                    ) AS behind
          FROM pg_catalog.pg_stat_replication AS s
         WHERE s.state <> 'backup'
       ) AS r
 WHERE r.replay_lag > current_setting('doctor.replication_lag')::interval
    OR r.behind > current_setting('doctor.retained_wal')::bigint;

-- name: slots
SELECT CASE WHEN s.wal_status IN ('unreserved', 'lost') THEN 'critical' ELSE 'warning' END AS severity,
       format('replication slot %s is %s and holds %s of WAL (%s)', s.slot_name,
              CASE WHEN s.active THEN 'in use' ELSE 'not in use' END,
              coalesce(pg_size_pretty(s.held), 'none'), s.wal_status) AS found,
       format('start its reader, or: SELECT pg_drop_replication_slot(%L)', s.slot_name) AS advice
  FROM (
        SELECT r.*, pg_wal_lsn_diff(
                        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                        r.restart_lsn
                    ) AS held
          FROM pg_catalog.pg_replication_slots AS r
       ) AS s
 WHERE s.wal_status IN ('unreserved', 'lost')
    OR s.held > current_setting('doctor.retained_wal')::bigint;

-- name: archiver
SELECT 'critical' AS severity,
       format('archiving WAL fails since %s, last at %s',
              coalesce(date_trunc('second', a.last_archived_time)::text, 'ever'), a.last_failed_wal) AS found,
       'see archive_command and the server''s log: until it works, WAL piles up and no backup is complete' AS advice
  FROM pg_catalog.pg_stat_archiver AS a
 WHERE a.last_failed_time > coalesce(a.last_archived_time, '-infinity');

-- name: invalid_indexes
SELECT 'warning' AS severity, format('index %s is not valid and answers no question', i.indexrelid::regclass) AS found,
       format('REINDEX INDEX %s, or drop it', i.indexrelid::regclass) AS advice
  FROM pg_catalog.pg_index AS i
 WHERE NOT i.indisvalid;

-- name: missing_indexes
-- Deleting or changing a referenced row reads the whole referencing table where no index leads with its columns.
SELECT 'info' AS severity, format('foreign key %s of %s has no index', k.conname, k.conrelid::regclass) AS found,
       format('CREATE INDEX ON %s (%s)', k.conrelid::regclass, k.columns) AS advice
  FROM (
        SELECT c.conname, c.conrelid, c.conkey,
               (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.position)
                  FROM unnest(c.conkey) WITH ORDINALITY AS u (attnum, position)
                  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = u.attnum) AS columns
          FROM pg_catalog.pg_constraint AS c
          JOIN pg_catalog.pg_class AS r ON r.oid = c.conrelid
          JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
         WHERE c.contype = 'f'
           AND n.nspname !~ '^(pg_|_timescaledb|information_schema$)'
       ) AS k
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i
                    WHERE i.indrelid = k.conrelid
                      AND i.indisvalid
                      AND (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey)
 ORDER BY found;

-- name: sequential_scans
SELECT 'info' AS severity,
       format('%s was read from end to end %s times, %s rows each', t.relid::regclass, t.seq_scan,
              round(t.seq_tup_read::numeric / t.seq_scan)) AS found,
       'look for the question behind it (slow_queries), and for an index that answers it' AS advice
  FROM pg_catalog.pg_stat_user_tables AS t
 WHERE t.seq_scan > current_setting('doctor.scans')::bigint
   AND t.seq_tup_read / t.seq_scan > current_setting('doctor.rows_of_a_scan')::bigint
 ORDER BY t.seq_tup_read DESC
 LIMIT 5;

-- name: unused_indexes
-- Indexes of a hypertable count over all chunks. Unique ones and those of foreign keys have other duties; those that
-- schema/ creates (doctor.shipped_indexes), or Tidemark and TimescaleDB for themselves, are not the reader's to drop.
SELECT 'info' AS severity,
       format('index (%s) of %s was never used and takes %s', u.definition, u.table_name,
              pg_size_pretty(u.size)) AS found,
       'drop it, unless standbys or rare reports use it' AS advice
  FROM (
        SELECT coalesce(quote_ident(c.hypertable_schema) || '.' || quote_ident(c.hypertable_name),
                        s.relid::regclass::text) AS table_name,
               regexp_replace(pg_get_indexdef(s.indexrelid), '^.* USING ', '') AS definition,
               sum(s.idx_scan) AS scans, sum(pg_relation_size(s.indexrelid)) AS size
          FROM pg_catalog.pg_stat_user_indexes AS s
          JOIN pg_catalog.pg_index AS i ON i.indexrelid = s.indexrelid
          LEFT JOIN timescaledb_information.chunks AS c
                 ON c.chunk_schema = s.schemaname AND c.chunk_name = s.relname
          LEFT JOIN pg_catalog.pg_class AS r
                 ON r.relname = c.hypertable_name AND r.relnamespace = to_regnamespace(quote_ident(c.hypertable_schema))
         WHERE NOT i.indisunique
           AND coalesce(c.hypertable_schema, s.schemaname) !~ '^_(tidemark|timescaledb)'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS w
                             JOIN pg_catalog.pg_class AS n ON n.oid = w.indexrelid
                            WHERE w.indrelid = coalesce(r.oid, s.relid)
                              AND n.relname = ANY (string_to_array(current_setting('doctor.shipped_indexes'), ','))
                              AND regexp_replace(pg_get_indexdef(w.indexrelid), '^.* USING ', '')
                                  = regexp_replace(pg_get_indexdef(s.indexrelid), '^.* USING ', ''))
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
                            WHERE k.contype = 'f' AND k.conrelid = s.relid
                              AND (i.indkey::smallint[])[0:cardinality(k.conkey) - 1] @> k.conkey)
         GROUP BY 1, 2
       ) AS u
 WHERE u.scans = 0
   AND u.size > current_setting('doctor.index_size')::bigint
 ORDER BY u.size DESC
 LIMIT 5;

-- name: slow_queries
-- needs: public.pg_stat_statements
-- The columns are called total_time and mean_time before version 1.8 of the extension.
SELECT 'info' AS severity,
       format('%s s on average, %s calls, %s %% of all time: %s', round((q.mean_ms / 1000)::numeric, 1), q.calls,
              round((100 * q.total_ms / q.all_ms)::numeric),
              left(regexp_replace(q.query, '\s+', ' ', 'g'), 100)) AS found,
       'EXPLAIN (ANALYZE, BUFFERS) it' AS advice
  FROM (
        SELECT j ->> 'query' AS query, (j ->> 'calls')::bigint AS calls,
               coalesce(j ->> 'mean_exec_time', j ->> 'mean_time')::double precision AS mean_ms,
               coalesce(j ->> 'total_exec_time', j ->> 'total_time')::double precision AS total_ms,
               sum(coalesce(j ->> 'total_exec_time', j ->> 'total_time')::double precision) OVER () AS all_ms
          FROM public.pg_stat_statements AS s
         CROSS JOIN LATERAL to_jsonb(s) AS j
         WHERE j ->> 'dbid' = (SELECT d.oid::text FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
       ) AS q
 WHERE q.mean_ms > current_setting('doctor.slow_ms')::float8
   AND q.calls >= current_setting('doctor.slow_calls')::bigint
 ORDER BY q.total_ms DESC
 LIMIT 5;

-- name: jobs
-- needs: timescaledb_information.jobs
-- Community only: elsewhere TimescaleDB runs none.
WITH job AS (
    SELECT j.job_id, j.application_name, j.schedule_interval, j.scheduled, s.last_run_status, s.last_run_started_at,
           s.next_start, e.sqlerrcode, e.err_message
      FROM timescaledb_information.jobs AS j
      LEFT JOIN timescaledb_information.job_stats AS s ON s.job_id = j.job_id
      LEFT JOIN LATERAL (
               SELECT r.sqlerrcode, r.err_message
                 FROM timescaledb_information.job_errors AS r
                WHERE r.job_id = j.job_id
                ORDER BY r.finish_time DESC
                LIMIT 1
           ) AS e ON true
     WHERE current_setting('timescaledb.license', true) = 'timescale'
)
SELECT 'warning' AS severity,
       format('job %s failed at %s: %s', j.application_name, date_trunc('second', j.last_run_started_at),
              coalesce(format('%s (SQLSTATE %s)', j.err_message, j.sqlerrcode), 'see the server''s log')) AS found,
       format('remove the cause, then: CALL run_job(%s)', j.job_id) AS advice
  FROM job AS j
 WHERE j.last_run_status = 'Failed'
UNION ALL
SELECT 'warning',
       format('job %s was due at %s and has not run', j.application_name, date_trunc('second', j.next_start)),
       'see whether workers are left: timescaledb.max_background_workers, max_worker_processes'
  FROM job AS j
 WHERE j.scheduled
   AND isfinite(j.next_start)
   AND j.next_start < now() - current_setting('doctor.late_job')::interval
UNION ALL
SELECT 'info', format('job %s is paused', j.application_name),
       format('SELECT alter_job(%s, scheduled => true)', j.job_id)
  FROM job AS j
 WHERE NOT j.scheduled
UNION ALL
SELECT 'warning', format('%s jobs wait for a scheduler and none runs', count(*)),
       CASE current_setting('timescaledb.max_background_workers') WHEN '0'
            THEN 'set timescaledb.max_background_workers and restart the server'
            ELSE 'SELECT _timescaledb_functions.start_background_workers()' END
  FROM job AS j
 WHERE j.scheduled
   AND pg_has_role('pg_read_all_stats', 'USAGE')  -- others cannot see it
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a
                    WHERE a.datname = current_database()
                      AND a.backend_type = 'TimescaleDB Background Worker Scheduler')
HAVING count(*) > 0;

-- name: aggregates
-- needs: _tidemark.rollups
SELECT 'warning' AS severity,
       format('aggregates of %s were last refreshed %s, rows reach to %s', r.hypertable,
              coalesce(date_trunc('second', r.refreshed_at)::text, 'never'), date_trunc('second', r.newest)) AS found,
       CASE current_setting('timescaledb.license', true) WHEN 'timescale'
            THEN 'see what keeps the job refresh_job from running, or: CALL refresh_aggregates()'
            ELSE 'call `tidemark maintain` from cron every few minutes' END AS advice
  FROM (
        SELECT q.hypertable, min(q.refreshed_at) AS refreshed_at, min(q.watermark + 2 * q.bucket) AS reach,
               _tidemark.newest_row(q.hypertable) AS newest
          FROM _tidemark.rollups AS q
         GROUP BY q.hypertable
       ) AS r
 WHERE r.newest > r.reach
   AND coalesce(r.refreshed_at, '-infinity') < now() - current_setting('doctor.stale_aggregate')::interval
 UNION ALL
SELECT 'critical', format('the aggregate %s cannot be computed: %s', q.name, q.failure),
       'correct the row, or define the aggregate so that it bears it: drop_rollup, add_rollup'
  FROM _tidemark.rollups AS q
 WHERE q.failure IS NOT NULL
   AND q.refreshed_at IS NOT NULL;

-- name: scores
-- needs: _tidemark.quality_targets
-- Rows that came while the triggers were off, were replicated, or were there before scoring.
SELECT 'warning' AS severity,
       format('%s%s rows of %s have no quality_score', CASE WHEN u.rows > 1000 THEN 'more than ' END,
              least(u.rows, 1000), t.label) AS found,
       format('SELECT rescore(%L)', t.label) AS advice
  FROM _tidemark.quality_targets AS t
 CROSS JOIN LATERAL (SELECT _tidemark.count_unscored(t.hypertable, 1001) AS rows) AS u
 WHERE t.is_attached
   AND EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = t.hypertable)
   AND u.rows > 0;

-- name: calendars
-- needs: public.market_calendar
-- A calendar that has run out reads as a market that nobody knows; one made of a package known to be wrong as no better.
SELECT 'warning' AS severity,
       format('the calendar of %s ends on %s', c.market, max(c.date)) AS found,
       format('tidemark calendar --market %s', c.market) AS advice
  FROM public.market_calendar AS c
 GROUP BY c.market
HAVING max(c.date) < current_date + 30
 UNION ALL
SELECT 'warning', format('profile %s asks for the market %s, of which there is no calendar', p.name, p.market),
       format('tidemark calendar --market %s', p.market)
  FROM public.quality_profiles AS p
 WHERE p.market IS NOT NULL
   AND NOT EXISTS (SELECT FROM public.market_calendar AS c WHERE c.market = p.market)
 UNION ALL
SELECT 'warning', format('%s session(s) of %s are there that its exchange cancelled, or hours that it changed',
                         count(*), c.market),
       format('tidemark calendar --market %s', c.market)
  FROM public.market_calendar AS c
  JOIN jsonb_to_recordset(current_setting('doctor.calendar_corrections')::jsonb) AS f (
           market text, date date, opens_at timestamptz
       ) ON f.market = c.market AND f.date = c.date
 WHERE c.origin = 'generated'
   AND c.opens_at IS DISTINCT FROM f.opens_at
 GROUP BY c.market;

-- name: seals
-- needs: public.audit_seals
SELECT 'warning' AS severity,
       format('%s rows of the audit record are not sealed, the oldest from %s', count(*),
              date_trunc('second', min(l.changed_at))) AS found,
       'SELECT seal_audit(), and have it called every few minutes' AS advice
  FROM public.audit_log AS l
 WHERE l.audit_id > (SELECT coalesce(max(s.to_audit_id), 0) FROM public.audit_seals AS s)
HAVING min(l.changed_at) < now() - current_setting('doctor.unsealed')::interval;

-- name: visibility
-- What the caller cannot see, so that silence is not taken for health.
SELECT 'info' AS severity, format('role %s does not see other sessions, nor what they do', current_user) AS found,
       format('GRANT pg_monitor TO %I', current_user) AS advice
 WHERE NOT pg_has_role('pg_read_all_stats', 'USAGE');

-- name: disk
-- Not a check by itself: how much there is, and where, as far as the caller may know.
SELECT pg_size_pretty(d.bytes) AS size, d.bytes,
       (SELECT s.setting FROM pg_catalog.pg_settings AS s WHERE s.name = 'data_directory') AS data_directory,
       (SELECT coalesce(array_agg(pg_tablespace_location(t.oid)), '{}')
          FROM pg_catalog.pg_tablespace AS t
         WHERE pg_tablespace_location(t.oid) <> '') AS tablespaces
  FROM (SELECT pg_database_size(current_database()) AS bytes) AS d;
