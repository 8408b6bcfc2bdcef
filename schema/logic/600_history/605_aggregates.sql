-- The aggregates that Tidemark brings along. A bar's open, high, low, close and volume compose, so the longer candles
-- are made from the shorter ones with the same expressions.
--
-- What is no figure is no part of them: NaN, ±Infinity, and what has a size that no market has. From 1e100 on feeds
-- write "no value" (the largest double, for one), and below 1e-100 products are lost; between these, sums of products
-- stay within what double precision can hold. Nor is a volume below zero, nor a bar that has no price at all.
--
-- A bar's part in the vwap is its own vwap, where it has one (0 is none), otherwise its typical price,
-- (high + low + close) / 3, or as much of that as it has. So the vwap of a bucket lies among the prices of its bars;
-- the bounds keep it there where rounding would not.

DO $do$
DECLARE
    -- Written out wherever a column stands in brackets, because aggregates outlive any function that they would call.
    c_figure CONSTANT text[] := ARRAY[
        '\[(\w+)\]', '(CASE WHEN abs(\1) BETWEEN 1e-100 AND 1e100 OR \1 = 0 THEN \1 END)', 'g'
    ];
    c_open CONSTANT text := 'first(open, {time}) FILTER (WHERE [open] IS NOT NULL) AS open';
    c_close CONSTANT text := 'last(close, {time}) FILTER (WHERE [close] IS NOT NULL) AS close';
    -- A sum of figures is one, so that the longer candles take it on.
    c_volume CONSTANT text := replace(
        'CASE WHEN {sum} > 1e100 THEN 1e100 ELSE {sum} END AS volume',
        '{sum}', 'sum([volume]) FILTER (WHERE volume >= 0)'
    );
    c_trades CONSTANT text := replace(
        'CASE WHEN {sum} > 9e18 THEN 9e18 ELSE {sum} END::bigint AS trades',
        '{sum}', 'sum(trades) FILTER (WHERE trades BETWEEN 0 AND 9e18)'
    );
    c_price CONSTANT text :=
        'coalesce(nullif([vwap], 0), ([high] + [low] + [close]) / 3, [close], ([high] + [low]) / 2, [open], [high],'
        ' [low])';
    c_vwap CONSTANT text := format(
        'greatest(least(sum(%1$s * volume) FILTER (WHERE %2$s) / sum(volume) FILTER (WHERE %2$s),'
        ' max(%1$s) FILTER (WHERE %2$s)), min(%1$s) FILTER (WHERE %2$s)) AS vwap',
        c_price, 'volume > 0 AND [volume] IS NOT NULL'
    );
    c_high CONSTANT text := 'max([high]) AS high';
    c_low CONSTANT text := 'min([low]) AS low';
BEGIN
    PERFORM _tidemark.ship_rollup(
        r.name, r.hypertable, r.bucket, r.series,
        ARRAY(SELECT regexp_replace(c.text, c_figure[1], c_figure[2], c_figure[3])
                FROM unnest(string_to_array(r.columns, ' | ')) WITH ORDINALITY AS c (text, position)
               ORDER BY c.position),
        p_filter => regexp_replace(r.filter, c_figure[1], c_figure[2], c_figure[3]),
        p_parent => r.parent,
        p_bucket_column => r.bucket_column
    )
       FROM (
        SELECT d.*, NULL::text AS parent
          FROM (VALUES
                (1, 'daily_ohlcv', 'public.timeseries_data'::regclass, interval '1 day', ARRAY['source_id'],
                 concat_ws(' | ', c_open, c_high, c_low, 'last(close, {time}) AS close', c_volume,
                           'count(*) AS samples'),
                 '[close] IS NOT NULL AND NOT is_excluded', 'day'),
                (2, 'hourly_values', 'public.timeseries_data', interval '1 hour', ARRAY['source_id'],
                 'avg(value) AS avg_value | min(value) AS min_value | max(value) AS max_value'
                 ' | last(value, {time}) AS last_value | count(*) AS samples',
                 '[value] IS NOT NULL AND NOT is_excluded', 'hour')
               ) AS d (position, name, hypertable, bucket, series, columns, filter, bucket_column)
        UNION ALL
        SELECT c.position, c.name, 'public.candles', c.width, ARRAY['asset_id'],
               concat_ws(' | ', c_open, c_high, c_low, c_close, c_volume, c_trades, c_vwap),
               CASE WHEN c.parent IS NULL
                    THEN format('interval = ''1m'' AND NOT is_excluded AND %s IS NOT NULL', c_price) END,
               'bucket', c.parent
          FROM (VALUES
                (3, 'candles_5m', interval '5 minutes', NULL),
                (4, 'candles_15m', interval '15 minutes', 'candles_5m'),
                (5, 'candles_1h', interval '1 hour', 'candles_15m'),
                (6, 'candles_4h', interval '4 hours', 'candles_1h'),
                (7, 'candles_1d', interval '1 day', 'candles_4h')
               ) AS c (position, name, width, parent)
       ) AS r
      ORDER BY r.position;
END
$do$;

COMMENT ON VIEW public.daily_ohlcv IS
'Bars of timeseries_data per source and day (UTC); samples counts the rows that went in.';
COMMENT ON VIEW public.hourly_values IS
'Figures of timeseries_data per source and hour (UTC); samples counts the rows that went in.';
COMMENT ON VIEW public.candles_5m IS 'Candles of 5 minutes, from those of 1 minute.';
COMMENT ON VIEW public.candles_15m IS 'Candles of 15 minutes, from those of 1 minute.';
COMMENT ON VIEW public.candles_1h IS 'Candles of 1 hour, from those of 1 minute.';
COMMENT ON VIEW public.candles_4h IS 'Candles of 4 hours (UTC), from those of 1 minute.';
COMMENT ON VIEW public.candles_1d IS 'Candles of 1 day (UTC), from those of 1 minute.';
