-- The aggregates that Tidemark brings along. A bar's open, high, low, close and volume compose, so the longer candles
-- are made from the shorter ones with the same expressions; a bar without a vwap of its own counts with its typical
-- price, (high + low + close) / 3.

DO $do$
DECLARE
    v_candle CONSTANT text[] := ARRAY[
        'first(open, {time}) FILTER (WHERE open IS NOT NULL) AS open',
        'max(high) AS high',
        'min(low) AS low',
        'last(close, {time}) FILTER (WHERE close IS NOT NULL) AS close',
        'sum(volume) AS volume',
        'sum(trades)::bigint AS trades',
        'sum(coalesce(vwap, (high + low + close) / 3) * volume) / nullif(sum(volume), 0) AS vwap'
    ];
BEGIN
    PERFORM public.add_rollup(
        'daily_ohlcv', 'public.timeseries_data', interval '1 day', ARRAY['source_id'],
        ARRAY[
            'first(open, {time}) FILTER (WHERE open IS NOT NULL) AS open',
            'max(high) AS high',
            'min(low) AS low',
            'last(close, {time}) AS close',
            'sum(volume) AS volume',
            'count(*) AS samples'
        ],
        p_filter => 'close IS NOT NULL AND NOT is_excluded',
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
        p_filter => 'value IS NOT NULL AND NOT is_excluded',
        p_bucket_column => 'hour'
    );
    PERFORM public.add_rollup(
        'candles_5m', 'public.candles', interval '5 minutes', ARRAY['asset_id'], v_candle,
        p_filter => 'interval = ''1m'' AND NOT is_excluded'
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
