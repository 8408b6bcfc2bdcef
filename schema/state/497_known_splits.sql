-- What is remembered of a series knows until when no split is due.

ALTER TABLE _tidemark.series_memory ADD COLUMN split_from timestamptz;
COMMENT ON COLUMN _tidemark.series_memory.split_from IS
'From here on a split may explain a change, and rows are judged by those before; NULL: none is known.';
-- It is a cache, and what it holds lacks this.
DELETE FROM _tidemark.series_memory;
