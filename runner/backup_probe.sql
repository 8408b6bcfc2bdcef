-- Use a restored database: a row into reference data and one into each hypertable of prices, as an application
-- would write them. The caller rolls it back.
DO $do$
DECLARE
    v_asset_id public.assets.asset_id%TYPE;
    v_source_id public.sources.source_id%TYPE;
BEGIN
    INSERT INTO public.assets (symbol, asset_type)
    VALUES ('backup probe ' || gen_random_uuid(), 'stock')
    RETURNING asset_id INTO STRICT v_asset_id;

    INSERT INTO public.sources (name, data_type, asset_id)
    VALUES ('backup probe ' || gen_random_uuid(), 'ohlcv', v_asset_id)
    RETURNING source_id INTO STRICT v_source_id;

    INSERT INTO public.timeseries_data (source_id, timestamp, open, high, low, close, volume)
    VALUES (v_source_id, date_trunc('day', now()), 10, 12, 9, 11, 100);

    INSERT INTO public.candles (asset_id, interval, ts, open, high, low, close, volume)
    VALUES (v_asset_id, '1d', date_trunc('day', now()), 10, 12, 9, 11, 100);

    INSERT INTO public.quotes (asset_id, ts, price)
    VALUES (v_asset_id, now(), 11);
END
$do$;
