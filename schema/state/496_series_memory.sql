-- What is remembered of a series knows its market, which may be that of its source or its asset, and until when no
-- split is due.

ALTER TABLE _tidemark.series_memory
ADD COLUMN market text,
ADD COLUMN split_from timestamptz;
COMMENT ON COLUMN _tidemark.series_memory.market IS 'Calendar that it is judged by; NULL: clock time.';
COMMENT ON COLUMN _tidemark.series_memory.split_from IS
'From here on a split may explain a change, and rows are judged by those before; NULL: none is known.';
-- It is a cache, and what it holds lacks these.
DELETE FROM _tidemark.series_memory;

COMMENT ON COLUMN public.quality_profiles.market IS
'Calendar (market_calendar.market) that its series are judged by; NULL: that of the source''s config, else of the '
'asset''s exchange, else clock time.';
