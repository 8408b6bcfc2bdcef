-- What is remembered of a series knows its market, which may be that of its source or its asset.

ALTER TABLE _tidemark.series_memory ADD COLUMN market text;
COMMENT ON COLUMN _tidemark.series_memory.market IS 'Calendar that it is judged by; NULL: clock time.';
-- It is a cache, and what it holds lacks this.
DELETE FROM _tidemark.series_memory;

COMMENT ON COLUMN public.quality_profiles.market IS
'Calendar (market_calendar.market) that its series are judged by; NULL: that of the source''s config, else of the '
'asset''s exchange, else clock time.';
