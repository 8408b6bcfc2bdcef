-- What rescore() finds in bars, over archived rows, in the SQL that DuckDB and Spark share: the detector of quality.md
-- (lr2p-2) for log_return, without sessions and known splits. The session's time zone has to be UTC.
-- beyond-one-machine.md says what is the same as in the database and what is not.
WITH profile AS (
    -- Figures of the quality_profiles that the series have; bar_length is that of the source's interval, 0 where it
    -- names none. baseline_rows also stands in the windows below, as 100, and twice that as 200: a frame has to be a
    -- constant.
    SELECT 100 AS baseline_rows,
           30 AS min_samples,
           4e0 AS anomaly_z,
           6e0 AS black_swan_z,
           1e-6 AS scale_floor,
           0e0 AS tick_size,
           INTERVAL '0' SECOND AS bar_length,
           20 AS episode_gap
), bars AS (
    -- Series without any close are no bars.
    SELECT source_id,
           timestamp,
           row_number() OVER (PARTITION BY source_id ORDER BY timestamp) AS place,
           coalesce(close, value) AS price,
           open,
           high,
           low,
           close,
           volume,
           open > 1e-100 AND open < 1e100 AND high > 1e-100 AND high < 1e100
           AND low > 1e-100 AND low < 1e100 AND close > 1e-100 AND close < 1e100 AS is_bar,
           CASE WHEN volume >= 0 AND volume < 1e300 THEN 1 + volume END AS volume_1
      FROM timeseries_data
     WHERE source_id IN (SELECT source_id FROM timeseries_data WHERE close IS NOT NULL)
), prices AS (
    SELECT *,
           row_number() OVER (PARTITION BY source_id ORDER BY timestamp) AS n,
           -- Logarithms in 1e-7. To add 1.5 * 2^52 and take it off again rounds half to even, as PostgreSQL does.
           CAST(ln(price) * 1e7 + 6755399441055744e0 - 6755399441055744e0 AS bigint) AS level,
           CASE WHEN is_bar THEN ln(high / greatest(open, close)) END AS upper,
           CASE WHEN is_bar THEN ln(least(open, close) / low) END AS lower,
           CASE WHEN is_bar THEN ln(open / close) ELSE 0e0 END AS body,
           CASE WHEN volume_1 >= 1 THEN ln(volume_1) END AS log_volume
      FROM bars
     WHERE price > 1e-100 AND price < 1e100
), lags AS (
    SELECT *,
           lag(price) OVER by_time AS previous,
           lag(timestamp) OVER by_time AS previous_timestamp,
           lag(level) OVER by_time AS level_1,
           lag(level, 2) OVER by_time AS level_2,
           lag(level, 3) OVER by_time AS level_3,
           lag(coalesce(greatest(abs(upper), abs(lower)), 0e0)) OVER by_time AS previous_wick,
           lag(volume_1) OVER by_time AS previous_volume_1,
           -- Of the rows whose volume is known:
           lag(log_volume) OVER by_volume AS log_volume_1,
           lag(log_volume, 2) OVER by_volume AS log_volume_2,
           lag(log_volume, 3) OVER by_volume AS log_volume_3
      FROM prices
    WINDOW by_time AS (PARTITION BY source_id ORDER BY timestamp),
           by_volume AS (PARTITION BY source_id, log_volume IS NULL ORDER BY timestamp)
), changes AS (
    SELECT l.*,
           CASE WHEN n > 1 THEN least(greatest(level - level_1, -90000000), 90000000) END AS change,
           level - CASE WHEN n <= 3 THEN level_2
                        ELSE level_1 + level_2 + level_3 - greatest(level_1, level_2, level_3)
                             - least(level_1, level_2, level_3) END AS deviation,
           abs(price - previous) AS move,
           n - n % p.baseline_rows AS block,
           -- How far the open lies outside of its close and the close before.
           greatest(least(body, body + ln(price / previous)), 0e0)
           + least(greatest(body, body + ln(price / previous)), 0e0) AS outside,
           1e7 * greatest(p.scale_floor, p.tick_size / previous) AS floor
      FROM lags AS l
     CROSS JOIN profile AS p
-- Where a series begins: what its first rows are judged by, and which of its changes no baseline contains.
), first_changes AS (
    SELECT source_id,
           change,
           floor,
           1e7 * nullif(move, 0) / previous AS step,
           p.min_samples,
           row_number() OVER (PARTITION BY source_id ORDER BY change) AS rank
      FROM changes
     CROSS JOIN profile AS p
     WHERE n BETWEEN 2 AND p.min_samples + 2
), middles AS (
    SELECT *,
           CAST(max(CASE WHEN 2 * rank BETWEEN min_samples + 1 AND min_samples + 2 THEN change END) OVER of_series
                AS double) AS middle,
           CASE WHEN count(step) OVER of_series >= 3 THEN min(step) OVER of_series ELSE 0e0 END AS tick,
           count(*) OVER of_series AS first_samples
      FROM first_changes
    WINDOW of_series AS (PARTITION BY source_id)
), distances AS (
    SELECT *,
           abs(change - middle) AS distance,
           row_number() OVER (PARTITION BY source_id ORDER BY abs(change - middle)) AS distance_rank
      FROM middles
     WHERE first_samples > min_samples
), deviations AS (
    SELECT *,
           max(CASE WHEN 2 * distance_rank BETWEEN min_samples + 1 AND min_samples + 2 THEN distance END) OVER of_series
           AS mad,
           sum(distance) OVER of_series / (min_samples + 1) AS mean_distance
      FROM distances
    WINDOW of_series AS (PARTITION BY source_id)
), reaches AS (
    SELECT *,
           greatest(CASE WHEN mad > 0 THEN 1.4826e0 * mad ELSE 1.253314e0 * mean_distance END, tick) AS reach
      FROM deviations
), fitting AS (
    SELECT source_id,
           middle,
           reach,
           tick,
           count(*) AS samples,
           CAST(sum(change) AS double) AS total,
           CAST(sum(change * change) AS double) AS squares
      FROM reaches
     WHERE distance <= 4 * greatest(reach, floor)
     GROUP BY source_id, middle, reach, tick
), beginnings AS (
    SELECT source_id,
           middle,
           reach,
           samples AS first_samples,
           total / samples AS first_mean,
           greatest(sqrt(greatest(squares - total * total / samples, 0e0) / (samples - 1)), tick) AS first_spread
      FROM fitting
     WHERE samples > 1
-- The two passes.
), bases AS (
    SELECT c.*,
           b.first_samples,
           b.first_mean,
           b.first_spread,
           CASE WHEN n <= p.min_samples + 2 AND abs(change - b.middle) > 4 * greatest(b.reach, floor) THEN NULL
                ELSE change END AS base
      FROM changes AS c
     CROSS JOIN profile AS p
      LEFT JOIN beginnings AS b ON b.source_id = c.source_id
), pass_1 AS (
    SELECT *,
           count(base) OVER n_rows AS base_rows,
           CAST(sum(base) OVER n_rows AS bigint) AS base_sum,
           CAST(sum(base * base) OVER n_rows AS bigint) AS base_squares
      FROM bases
    WINDOW n_rows AS (PARTITION BY source_id ORDER BY timestamp ROWS BETWEEN 100 PRECEDING AND 1 PRECEDING)
), usual AS (
    SELECT s.*,
           CASE WHEN base_rows < p.min_samples THEN base
                WHEN abs(base - CAST(base_sum AS double) / nullif(base_rows, 0))
                     <= 4 * greatest(
                                sqrt(greatest(base_squares - CAST(base_sum AS double) * base_sum / nullif(base_rows, 0),
                                              0e0) / nullif(base_rows - 1, 0)), floor)
                THEN base END AS kept
      FROM pass_1 AS s
     CROSS JOIN profile AS p
), pass_2 AS (
    SELECT *,
           count(kept) OVER n_rows AS kept_rows,
           CAST(sum(kept) OVER n_rows AS bigint) AS kept_sum,
           CAST(sum(kept * kept) OVER n_rows AS bigint) AS kept_squares,
           count(kept) OVER twenty_rows AS rows_20,
           CAST(sum(kept) OVER twenty_rows AS bigint) AS sum_20,
           CAST(sum(kept * kept) OVER twenty_rows AS bigint) AS squares_20,
           lag(change) OVER by_time AS change_1,
           lag(change, 2) OVER by_time AS change_2,
           lag(change, 3) OVER by_time AS change_3,
           lag(change, 4) OVER by_time AS change_4,
           lag(change, 5) OVER by_time AS change_5,
           count(nullif(move, 0)) OVER two_n_rows AS moves,
           min(nullif(move, 0)) OVER two_n_rows AS least_move
      FROM usual
    WINDOW by_time AS (PARTITION BY source_id ORDER BY timestamp),
           n_rows AS (PARTITION BY source_id ORDER BY timestamp ROWS BETWEEN 100 PRECEDING AND 1 PRECEDING),
           two_n_rows AS (PARTITION BY source_id ORDER BY timestamp ROWS BETWEEN 200 PRECEDING AND 1 PRECEDING),
           twenty_rows AS (PARTITION BY source_id ORDER BY timestamp ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING)
), baselines AS (
    SELECT s.*,
           p.anomaly_z,
           kept_rows < p.min_samples AS is_early,
           CASE WHEN kept_rows >= p.min_samples THEN kept_rows ELSE first_samples END AS samples,
           CASE WHEN kept_rows >= p.min_samples THEN CAST(kept_sum AS double) / nullif(kept_rows, 0) ELSE first_mean
           END AS mean,
           CASE WHEN kept_rows >= p.min_samples
                THEN greatest(sqrt(greatest(kept_squares - CAST(kept_sum AS double) * kept_sum / nullif(kept_rows, 0),
                                            0e0) / nullif(kept_rows - 1, 0)),
                              sqrt(greatest(squares_20 - CAST(sum_20 AS double) * sum_20 / nullif(rows_20, 0), 0e0)
                                   / nullif(rows_20 - 1, 0)),
                              floor)
                ELSE greatest(first_spread, floor) END AS scale
      FROM pass_2 AS s
     CROSS JOIN profile AS p
     WHERE kept_rows >= p.min_samples OR (n BETWEEN 2 AND 2 * p.min_samples + 2 AND first_samples > 1)
), scores AS (
    SELECT *,
           change / 1e7 AS observed,
           mean / 1e7 AS expected,
           scale / 1e7 AS narrow,
           CASE WHEN abs(deviation) < abs(change - mean) THEN deviation ELSE change - mean END / scale AS narrow_z,
           coalesce((change_1 / 1e7 - mean / 1e7) / (scale / 1e7), 0e0) AS z_1,
           coalesce((change_2 / 1e7 - mean / 1e7) / (scale / 1e7), 0e0) AS z_2,
           coalesce((change_3 / 1e7 - mean / 1e7) / (scale / 1e7), 0e0) AS z_3,
           coalesce((change_4 / 1e7 - mean / 1e7) / (scale / 1e7), 0e0) AS z_4,
           coalesce((change_5 / 1e7 - mean / 1e7) / (scale / 1e7), 0e0) AS z_5
      FROM baselines
), widths AS (
    -- S may be wider than what z was made with: s5, and the smallest move where there are three.
    SELECT *,
           greatest(1e0,
                    sqrt((least(z_1 * z_1, 9e0) + least(z_2 * z_2, 9e0) + least(z_3 * z_3, 9e0) + least(z_4 * z_4, 9e0)
                          + least(z_5 * z_5, 9e0)) / nullif(least(n - 2, 5), 0)),
                    CASE WHEN moves >= 3 AND least_move > narrow * previous THEN least_move / previous / narrow END
           ) AS width
      FROM scores
), closes AS (
    SELECT *,
           narrow_z / width AS z_score,
           narrow * width AS wide,
           greatest(least(body, body + observed), 0e0) + least(greatest(body, body + observed), 0e0) AS outside_now,
           log_volume - (log_volume_1 + log_volume_2 + log_volume_3
                         - greatest(log_volume_1, log_volume_2, log_volume_3)
                         - least(log_volume_1, log_volume_2, log_volume_3)) AS volume_deviation
      FROM widths
-- What is flagged by its close, and else what of the bar may stand out. The rows before, of which there are
-- baseline_rows, lie in two blocks of as many.
), asked AS (
    SELECT c.source_id,
           c.timestamp,
           c.place,
           c.n,
           c.n - c.n % p.baseline_rows - f.back * p.baseline_rows AS block,
           f.field,
           c.wide,
           CASE f.field WHEN 'high' THEN c.high WHEN 'low' THEN c.low WHEN 'open' THEN c.open WHEN 'volume' THEN c.volume
                        ELSE c.price END AS value,
           CASE f.field WHEN 'high' THEN c.upper WHEN 'low' THEN c.lower WHEN 'open' THEN c.outside_now
                        WHEN 'volume' THEN c.log_volume ELSE c.observed END AS observed,
           CASE f.field WHEN 'volume' THEN c.volume_deviation WHEN 'close' THEN c.deviation / 1e7 END AS deviation,
           c.expected,
           c.z_score,
           c.samples
      FROM closes AS c
     CROSS JOIN profile AS p
     CROSS JOIN (VALUES ('close', 0), ('high', 0), ('high', 1), ('low', 0), ('low', 1), ('open', 0), ('open', 1),
                        ('volume', 0), ('volume', 1)) AS f (field, back)
     WHERE CASE WHEN abs(c.z_score) > p.anomaly_z THEN f.field = 'close'
                WHEN c.is_early THEN false
                WHEN f.field = 'high' THEN abs(c.upper) > greatest(2 * c.previous_wick, 0.6e0 * p.anomaly_z * c.wide)
                WHEN f.field = 'low' THEN abs(c.lower) > greatest(2 * c.previous_wick, 0.6e0 * p.anomaly_z * c.wide)
                WHEN f.field = 'open'
                THEN abs(c.outside_now) > p.anomaly_z * c.wide / 2
                     AND (p.bar_length = INTERVAL '0' SECOND OR p.bar_length >= INTERVAL '1' DAY
                          OR c.timestamp <= c.previous_timestamp + p.bar_length * 2)
                WHEN f.field = 'volume'
                THEN c.volume_1 > 20 * c.previous_volume_1 OR c.previous_volume_1 > 20 * c.volume_1
                ELSE false END
), neighbours AS (
    SELECT a.*,
           CASE a.field WHEN 'high' THEN b.upper WHEN 'low' THEN b.lower WHEN 'volume' THEN b.log_volume
                        WHEN 'open' THEN CASE WHEN b.n > greatest(a.n - p.baseline_rows, 1) THEN b.outside END
           END AS usual
      FROM asked AS a
     CROSS JOIN profile AS p
      LEFT JOIN changes AS b
        ON b.source_id = a.source_id AND b.block = a.block AND b.n < a.n AND b.n >= a.n - p.baseline_rows
           AND a.field <> 'close'
), spreads AS (
    SELECT *,
           abs(usual - avg(usual) OVER of_field) <= 4 * stddev_samp(usual) OVER of_field + 1e-9 AS is_steady
      FROM neighbours
    WINDOW of_field AS (PARTITION BY source_id, timestamp, field)
), steady AS (
    SELECT source_id,
           timestamp,
           place,
           field,
           value,
           observed,
           deviation,
           wide,
           z_score,
           CASE field WHEN 'close' THEN expected ELSE avg(usual) END AS expected,
           stddev_samp(usual) AS spread,
           CASE field WHEN 'close' THEN samples ELSE count(usual) END AS samples
      FROM spreads
     WHERE is_steady OR field = 'close'
     GROUP BY source_id, timestamp, place, field, value, observed, deviation, wide, z_score, expected, samples
), scales AS (
    SELECT *,
           CASE WHEN field IN ('high', 'low') THEN greatest(2.125e0 * spread, 0.6e0 * wide)
                WHEN field = 'open' THEN greatest(spread, wide / 2)
                WHEN field = 'volume' THEN greatest(spread, 0.1e0)
                ELSE wide END AS scale
      FROM steady
), findings AS (
    SELECT source_id,
           timestamp,
           place,
           field,
           value,
           observed,
           expected,
           deviation,
           scale,
           samples,
           CASE WHEN field = 'close' THEN z_score
                WHEN abs(deviation) < abs(observed - expected) THEN deviation / scale
                ELSE (observed - expected) / scale END AS z_score
      FROM scales
), ranks AS (
    SELECT f.*,
           row_number() OVER (PARTITION BY source_id, timestamp ORDER BY abs(z_score) DESC) AS rank
      FROM findings AS f
     CROSS JOIN profile AS p
     WHERE abs(z_score) > p.anomaly_z
       AND (field = 'close' OR samples >= p.min_samples OR (field = 'open' AND samples >= p.min_samples - 1))
-- An episode goes on where no more than episode_gap rows, of whatever content, lie between two.
), heads AS (
    SELECT r.*,
           place - lag(place) OVER (PARTITION BY source_id ORDER BY timestamp) <= p.episode_gap AS goes_on
      FROM ranks AS r
     CROSS JOIN profile AS p
     WHERE rank = 1
)
SELECT source_id,
       timestamp,
       nullif(field, 'close') AS field,
       CASE WHEN abs(z_score) > p.black_swan_z THEN 'black_swan' ELSE 'anomaly' END AS severity,
       z_score,
       value,
       observed,
       expected,
       deviation,
       scale,
       samples,
       max(CASE WHEN goes_on IS NOT TRUE THEN timestamp END) OVER (PARTITION BY source_id ORDER BY timestamp) AS episode
  FROM heads
 CROSS JOIN profile AS p
 ORDER BY source_id, timestamp
