-- How much of what each series should have is there, over time?
-- parameters: cells integer = 60, since timestamptz = 2000-01-01
-- columns: table_name text, source_id integer, asset_id uuid, interval candle_interval, name text,
--   first_at timestamptz, last_at timestamptz, starts_at timestamptz, ends_at timestamptz, expected bigint,
--   stored bigint
-- cost: a row per series and day since :since. Time is cut into :cells parts of whole days; expected is counted in the
--   market's own time, from the first row to the last one, or to yesterday where more is due. It is NULL where nobody
--   can say: the source is irregular, its calendar does not reach, or none is named for what is not traded around the
--   clock
WITH series AS MATERIALIZED (
    SELECT row_number() OVER () AS number,
           c.table_name,
           c.source_id,
           c.asset_id,
           c.interval,
           c.name,
           c.first_at,
           c.last_at,
           coalesce(
               _tidemark.series_market(c.source_id, CASE WHEN c.source_id IS NULL THEN c.asset_id END, c.interval),
               CASE WHEN a.asset_type <> 'crypto' THEN '?' ELSE '' END -- no stock trades around the clock
           ) AS market,
           public.time_bucket(interval '1 day', greatest(c.first_at, :'since')) AS first_day,
           public.time_bucket(interval '1 day', CASE
               WHEN coalesce(s.status = 'active', a.is_active) THEN greatest(c.last_at, now() - interval '1 day')
               ELSE c.last_at
           END) AS last_day
      FROM public.coverage AS c
      LEFT JOIN public.sources AS s ON s.source_id = c.source_id
      LEFT JOIN public.assets AS a ON a.asset_id = c.asset_id
     WHERE c.last_at >= :'since'
), axis AS MATERIALIZED (
    SELECT min(r.first_day) AS starts_at,
           greatest(ceil((date_part('epoch', max(r.last_day) - min(r.first_day)) / 86400 + 1) / :cells), 1)::integer
           AS days
      FROM series AS r
), stored AS (
    SELECT r.number,
           t.day,
           t.row_count
      FROM public.timeseries_data_days AS t
      JOIN series AS r ON r.source_id = t.source_id
     WHERE t.day >= public.time_bucket(interval '1 day', :'since'::timestamptz)
     UNION ALL
    SELECT r.number,
           c.day,
           c.row_count
      FROM public.candles_days AS c
      JOIN series AS r ON r.asset_id = c.asset_id AND r.interval = c.interval AND r.source_id IS NULL
     WHERE c.day >= public.time_bucket(interval '1 day', :'since'::timestamptz)
), expected AS (
    SELECT r.number,
           e.day,
           -- The first day counts for what it has, and so does the last one of a series that is at an end or under way.
           CASE WHEN e.day > r.first_day AND (e.day < r.last_day OR r.last_day > r.last_at) THEN e.bars END AS bars
      FROM (
            SELECT k.market,
                   k.interval,
                   min(k.first_day) AS first_day,
                   max(k.last_day) AS last_day
              FROM series AS k
             GROUP BY k.market, k.interval
           ) AS k
     CROSS JOIN LATERAL _tidemark.expected_by_day(
               nullif(k.market, ''), k.interval, k.first_day, k.last_day + interval '1 day'
           ) AS e
      JOIN series AS r
        ON r.market = k.market AND r.interval = k.interval AND r.first_day <= e.day AND r.last_day >= e.day
), cell AS (
    SELECT d.number,
           (date_part('epoch', d.day - x.starts_at)::integer / 86400) / x.days AS place,
           bool_or(d.is_due) AS is_due,
           sum(coalesce(d.bars, d.row_count)) FILTER (WHERE d.is_due) AS expected,
           sum(d.row_count) AS stored,
           -- Bars too many on one day do not make up for those missing on another.
           sum(least(d.row_count, coalesce(d.bars, d.row_count))) FILTER (WHERE d.is_due) AS of_expected
      FROM (
            SELECT coalesce(e.number, t.number) AS number,
                   coalesce(e.day, t.day) AS day,
                   e.number IS NOT NULL AS is_due,
                   e.bars,
                   coalesce(t.row_count, 0) AS row_count
              FROM expected AS e
              FULL JOIN stored AS t ON t.number = e.number AND t.day = e.day
           ) AS d
     CROSS JOIN axis AS x
     GROUP BY d.number, place
)
SELECT r.table_name,
       r.source_id,
       r.asset_id,
       r.interval,
       r.name,
       r.first_at,
       r.last_at,
       x.starts_at + c.place * x.days * interval '24 hours' AS starts_at,
       x.starts_at + (c.place + 1) * x.days * interval '24 hours' AS ends_at,
       CASE WHEN c.is_due THEN c.expected::bigint END AS expected,
       CASE WHEN r.interval >= '1d' THEN least(c.stored, c.expected)
            WHEN c.is_due THEN c.of_expected
            ELSE c.stored END::bigint AS stored
  FROM series AS r
  JOIN cell AS c ON c.number = r.number
 CROSS JOIN axis AS x
 ORDER BY r.table_name, r.name, r.number, starts_at;
