-- What data is there?
-- parameters:
-- columns: table_name text, name text, interval candle_interval, first_at timestamptz, last_at timestamptz
-- cost: two index look-ups a series, whatever its length
SELECT c.table_name,
       c.name,
       c.interval,
       c.first_at,
       c.last_at
  FROM public.coverage AS c
 WHERE c.first_at IS NOT NULL
 ORDER BY c.table_name, c.name, c.interval;
