-- The aggregates that Tidemark brings along. A bar's open, high, low, close and volume compose, so the longer candles
-- are made from the shorter ones with the same expressions. What is no figure (NaN, ±Infinity, a feed's "no value") is
-- no part of them, nor is a volume below zero, nor a bar that has no price at all.
--
-- A bar's part in the vwap is its own vwap, where it has one (0 is none), otherwise its typical price,
-- (high + low + close) / 3, or as much of that as it has. So the vwap of a bucket lies among the prices of its bars;
-- the bounds keep it there where rounding would not.

DO $do$
DECLARE
    c_open CONSTANT text :=
        'first(open, {time}) FILTER (WHERE _tidemark.figure(open) IS NOT NULL) AS open';
    c_high CONSTANT text := 'max(_tidemark.figure(high)) AS high';
    c_low CONSTANT text := 'min(_tidemark.figure(low)) AS low';
    -- A sum of figures is one, so that the longer candles take it on.
    c_volume CONSTANT text := replace(
        'CASE WHEN [sum] > 1e100 THEN 1e100 ELSE [sum] END AS volume',
        '[sum]', 'sum(_tidemark.figure(volume)) FILTER (WHERE volume >= 0)'
    );
    c_price CONSTANT text := regexp_replace(
        'coalesce(nullif([vwap], 0), ([high] + [low] + [close]) / 3, [close], ([high] + [low]) / 2, [open], [high],'
        ' [low])',
        '\[(\w+)\]', '_tidemark.figure(\1)', 'g'
    );
    c_weight CONSTANT text := 'volume > 0 AND _tidemark.figure(volume) IS NOT NULL';
    v_candle CONSTANT text[] := ARRAY[
        c_open, c_high, c_low,
        'last(close, {time}) FILTER (WHERE _tidemark.figure(close) IS NOT NULL) AS close',
        c_volume,
        replace(
            'CASE WHEN [sum] > 9e18 THEN 9e18 ELSE [sum] END::bigint AS trades',
            '[sum]', 'sum(trades) FILTER (WHERE trades BETWEEN 0 AND 9e18)'
        ),
        format(
            'greatest(least(sum(%1$s * volume) FILTER (WHERE %2$s) / sum(volume) FILTER (WHERE %2$s),'
            ' max(%1$s) FILTER (WHERE %2$s)), min(%1$s) FILTER (WHERE %2$s)) AS vwap',
            c_price, c_weight
        )
    ];
BEGIN
    PERFORM public.add_rollup(
        'daily_ohlcv', 'public.timeseries_data', interval '1 day', ARRAY['source_id'],
        ARRAY[c_open, c_high, c_low, 'last(close, {time}) AS close', c_volume, 'count(*) AS samples'],
        p_filter => '_tidemark.figure(close) IS NOT NULL AND NOT is_excluded',
        p_bucket_column => 'day'
    );
    PERFORM public.add_rollup(
        'hourly_values', 'public.timeseries_data', interval '1 hour', ARRAY['source_id'],
        ARRAY[
            'avg(value) AS avg_value',
            'min(value) AS min_value',
            'max(value) AS max_value',
            'last(value, {time}) AS last_value',
            'count(*) AS samples'
        ],
        p_filter => '_tidemark.figure(value) IS NOT NULL AND NOT is_excluded',
        p_bucket_column => 'hour'
    );
    PERFORM public.add_rollup(
        'candles_5m', 'public.candles', interval '5 minutes', ARRAY['asset_id'], v_candle,
        p_filter => format('interval = ''1m'' AND NOT is_excluded AND %s IS NOT NULL', c_price)
    );
    PERFORM public.add_rollup(
        r.name, 'public.candles', r.width, ARRAY['asset_id'], v_candle, p_parent => r.parent
    )
       FROM (VALUES
             (1, 'candles_15m', interval '15 minutes', 'candles_5m'),
             (2, 'candles_1h', interval '1 hour', 'candles_15m'),
             (3, 'candles_4h', interval '4 hours', 'candles_1h'),
             (4, 'candles_1d', interval '1 day', 'candles_4h')
            ) AS r (position, name, width, parent);
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
