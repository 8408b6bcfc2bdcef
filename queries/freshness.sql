-- How fresh is each series?
-- parameters:
-- columns: table_name text, name text, interval candle_interval, last_at timestamptz, stale_for double precision
-- cost: two index look-ups a series; stale_for is seconds in which its market was open since the last bar ended
SELECT c.table_name,
       c.name,
       c.interval,
       c.last_at,
       extract(EPOCH FROM c.stale_for)::double precision AS stale_for
  FROM public.coverage AS c
 ORDER BY c.stale_for DESC NULLS LAST, c.name ASC, c.interval ASC;
