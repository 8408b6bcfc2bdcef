-- daily_ohlcv over archived rows, in the SQL that DuckDB and Spark share. The session's time zone has to be UTC.
WITH figures AS (
    -- What is no figure (NaN, an infinity, beyond 1e100 or below 1e-100 in size) is no part of an aggregate.
    SELECT source_id,
           timestamp,
           CASE WHEN abs(open) BETWEEN 1e-100 AND 1e100 OR open = 0 THEN open END AS open,
           CASE WHEN abs(high) BETWEEN 1e-100 AND 1e100 OR high = 0 THEN high END AS high,
           CASE WHEN abs(low) BETWEEN 1e-100 AND 1e100 OR low = 0 THEN low END AS low,
           CASE WHEN abs(close) BETWEEN 1e-100 AND 1e100 OR close = 0 THEN close END AS close,
           CASE WHEN volume BETWEEN 1e-100 AND 1e100 OR volume = 0 THEN volume END AS volume
      FROM timeseries_data
     WHERE NOT is_excluded
)
SELECT source_id,
       CAST(timestamp AS date) AS day,
       min_by(open, timestamp) FILTER (WHERE open IS NOT NULL) AS open,
       max(high) AS high,
       min(low) AS low,
       max_by(close, timestamp) AS close,
       least(sum(volume), 1e100) AS volume,
       count(*) AS samples
  FROM figures
 WHERE close IS NOT NULL
 GROUP BY source_id, CAST(timestamp AS date)
 ORDER BY source_id, day
