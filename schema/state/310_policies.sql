-- How long each hypertable keeps its rows and when it compresses them, from the start: compressed after 30 days, and
-- nothing is ever dropped unless somebody asks for it.

ALTER TABLE public.data_policies ADD COLUMN segment_by text [];
COMMENT ON COLUMN public.data_policies.segment_by IS
'Columns whose values compressed rows share, the series; NULL: the primary key without the time.';

INSERT INTO public.data_policies (hypertable, relation, compress_after, segment_by)
VALUES ('timeseries_data', 'public.timeseries_data', interval '30 days', ARRAY['source_id']),
       ('candles', 'public.candles', interval '30 days', ARRAY['asset_id', 'interval']),
       ('quotes', 'public.quotes', interval '30 days', ARRAY['asset_id']),
       ('ticks', 'public.ticks', interval '30 days', ARRAY['asset_id']),
       ('sentiment_data', 'public.sentiment_data', interval '30 days', ARRAY['asset_id']),
       ('indicators', 'public.indicators', interval '30 days', ARRAY['asset_id', 'interval', 'name']),
       ('features', 'public.features', interval '30 days', ARRAY['asset_id', 'feature_set', 'name', 'version']);
