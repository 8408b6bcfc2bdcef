-- daily_ohlcv over archived rows, in the SQL that DuckDB and Spark share. The session's time zone has to be UTC.
SELECT source_id,
       CAST(timestamp AS date) AS day,
       min_by(open, timestamp) FILTER (WHERE open IS NOT NULL) AS open,
       max(high) AS high,
       min(low) AS low,
       max_by(close, timestamp) AS close,
       sum(volume) AS volume,
       count(*) AS samples
  FROM timeseries_data
 WHERE close IS NOT NULL
   AND NOT is_excluded
 GROUP BY source_id, CAST(timestamp AS date)
 ORDER BY source_id, day
