-- Quality on Tidemark's own hypertables, and their functions made again after the code they are made from changed.

DO $do$
DECLARE
    v_name text;
    v_target record;
BEGIN
    PERFORM _tidemark.forget_dropped_targets();
    FOREACH v_name IN ARRAY ARRAY['timeseries_data', 'candles', 'quotes', 'ticks'] LOOP
        -- Once: whoever detached it meant it.
        IF NOT EXISTS (
            SELECT FROM _tidemark.quality_targets AS t WHERE t.hypertable = format('public.%I', v_name)::regclass
        ) THEN
            PERFORM public.attach_quality(
                format('public.%I', v_name)::regclass,
                p_value => CASE v_name WHEN 'quotes' THEN ARRAY['price'] END,
                p_open => CASE v_name WHEN 'quotes' THEN 'price' END,
                p_profile => CASE v_name WHEN 'quotes' THEN 'quote' WHEN 'ticks' THEN 'tick' END
            );
        END IF;
    END LOOP;
    FOR v_target IN SELECT t.hypertable FROM _tidemark.quality_targets AS t WHERE t.is_attached ORDER BY t.label LOOP
        PERFORM public.attach_quality(v_target.hypertable);
    END LOOP;
END
$do$;
