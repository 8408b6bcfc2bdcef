-- What else of a bar stands out than the value that is judged: its open, high, low or volume.

ALTER TABLE public.anomalies ADD COLUMN field text;
COMMENT ON COLUMN public.anomalies.field IS
'What of the bar stands out: open, high, low or volume, and value is that one; NULL: the judged value.';

ALTER TYPE _tidemark.finding ADD ATTRIBUTE field text; -- empty: not known yet, to be looked at
ALTER TYPE _tidemark.verdict ADD ATTRIBUTE field text;
ALTER TYPE _tidemark.judged_row
ADD ATTRIBUTE highest double precision,
ADD ATTRIBUTE lowest double precision,
ADD ATTRIBUTE volume double precision;

ALTER TABLE _tidemark.series_memory
ADD COLUMN volume double precision,
ADD COLUMN previous_volume double precision;
COMMENT ON COLUMN _tidemark.series_memory.volume IS 'Volume of the newest row, where it is judged.';
COMMENT ON COLUMN _tidemark.series_memory.previous_volume IS 'Volume of the valid row before it.';
-- It is a cache, and what it holds lacks these.
DELETE FROM _tidemark.series_memory;
