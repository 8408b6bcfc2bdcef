-- Aggregates that are kept up to date: their definitions, how far each is precomputed, and what changed below that.
-- The aggregates themselves are made from these definitions by add_rollup: continuous aggregates on Community,
-- tables and views on Apache-2.

CREATE TABLE _tidemark.rollups (
    name text NOT NULL,
    hypertable regclass NOT NULL,
    parent text,
    bucket interval NOT NULL,
    bucket_column text NOT NULL,
    series text [] NOT NULL,
    columns text [] NOT NULL,
    filter text,
    is_native boolean NOT NULL,
    watermark timestamptz NOT NULL DEFAULT '-infinity',
    refreshed_at timestamptz,
    failure text,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT rollups_pkey PRIMARY KEY (name),
    CONSTRAINT rollups_parent_fkey FOREIGN KEY (parent) REFERENCES _tidemark.rollups (name),
    CONSTRAINT rollups_bucket_positive CHECK (bucket > interval '0'),
    CONSTRAINT rollups_series_not_empty CHECK (cardinality(series) > 0),
    CONSTRAINT rollups_columns_not_empty CHECK (cardinality(columns) > 0),
    CONSTRAINT rollups_filter_is_the_parents CHECK (parent IS NULL OR filter IS NULL)
);
CREATE INDEX rollups_parent_idx ON _tidemark.rollups (parent);
CREATE INDEX rollups_hypertable_idx ON _tidemark.rollups (hypertable);
COMMENT ON INDEX _tidemark.rollups_parent_idx IS 'Aggregates built on an aggregate.';
COMMENT ON INDEX _tidemark.rollups_hypertable_idx IS 'Aggregates of a hypertable.';
COMMENT ON TABLE _tidemark.rollups IS
'One definition per aggregate; both editions, and the views that aggregate directly, are made from it.';
COMMENT ON COLUMN _tidemark.rollups.name IS 'Name of the view in public.';
COMMENT ON COLUMN _tidemark.rollups.hypertable IS 'Hypertable with the raw rows.';
COMMENT ON COLUMN _tidemark.rollups.parent IS 'Finer aggregate it is computed from; NULL: from the raw rows.';
COMMENT ON COLUMN _tidemark.rollups.bucket IS 'Length of a bucket; buckets start on the grid of time_bucket, in UTC.';
COMMENT ON COLUMN _tidemark.rollups.bucket_column IS 'Name of the column with the start of the bucket.';
COMMENT ON COLUMN _tidemark.rollups.series IS 'Columns that tell one series from another.';
COMMENT ON COLUMN _tidemark.rollups.columns IS
'Aggregates as "expression AS name"; {time} stands for the time column of the rows, raw or of the parent.';
COMMENT ON COLUMN _tidemark.rollups.filter IS 'Condition that raw rows have to meet; NULL: all do, or the parent''s.';
COMMENT ON COLUMN _tidemark.rollups.is_native IS 'A continuous aggregate of TimescaleDB keeps it.';
COMMENT ON COLUMN _tidemark.rollups.watermark IS
'Buckets that start before this are precomputed, later ones are computed when read.';
COMMENT ON COLUMN _tidemark.rollups.refreshed_at IS 'Last refresh that Tidemark made.';
COMMENT ON COLUMN _tidemark.rollups.failure IS
'Why the last refresh could not compute it, and where; NULL where it could. Others go on without it.';
COMMENT ON COLUMN _tidemark.rollups.created_at IS 'When the row was stored.';

CREATE TABLE _tidemark.rollup_sources (
    hypertable regclass NOT NULL,
    name text NOT NULL,
    dropped_before timestamptz,
    announced timestamptz NOT NULL DEFAULT '-infinity',
    awaited text [] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT rollup_sources_pkey PRIMARY KEY (hypertable),
    CONSTRAINT rollup_sources_name_key UNIQUE (name)
);
COMMENT ON TABLE _tidemark.rollup_sources IS 'Hypertables with aggregates, and what their refreshes have to know.';
COMMENT ON COLUMN _tidemark.rollup_sources.hypertable IS 'The hypertable.';
COMMENT ON COLUMN _tidemark.rollup_sources.name IS 'Beginning of the names of the objects made for it.';
COMMENT ON COLUMN _tidemark.rollup_sources.dropped_before IS
'End of the latest period whose raw rows were dropped, NULL while none were; for people: rollup_frozen has what '
'follows from it.';
COMMENT ON COLUMN _tidemark.rollup_sources.announced IS
'Changes before this are logged by every transaction that began writing since; see _tidemark.refresh_source.';
COMMENT ON COLUMN _tidemark.rollup_sources.awaited IS
'Transactions (virtual ids) that were writing when that was announced, and may not have logged.';
COMMENT ON COLUMN _tidemark.rollup_sources.created_at IS 'When the row was stored.';

CREATE TABLE _tidemark.rollup_chunks (
    hypertable regclass NOT NULL,
    chunk text NOT NULL,
    period tstzrange NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT rollup_chunks_pkey PRIMARY KEY (hypertable, chunk),
    CONSTRAINT rollup_chunks_period_not_empty CHECK (NOT isempty(period))
);
COMMENT ON TABLE _tidemark.rollup_chunks IS
'Chunks that hypertables with aggregates had at the last refresh: what is gone by the next one was dropped.';
COMMENT ON COLUMN _tidemark.rollup_chunks.hypertable IS 'The hypertable.';
COMMENT ON COLUMN _tidemark.rollup_chunks.chunk IS 'Name of the chunk; none is given twice.';
COMMENT ON COLUMN _tidemark.rollup_chunks.period IS 'What the chunk spans.';
COMMENT ON COLUMN _tidemark.rollup_chunks.created_at IS 'When the row was stored.';

CREATE TABLE _tidemark.rollup_frozen (
    name text NOT NULL,
    series jsonb NOT NULL,
    buckets tstzmultirange NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT rollup_frozen_pkey PRIMARY KEY (name, series),
    CONSTRAINT rollup_frozen_name_fkey FOREIGN KEY (name) REFERENCES _tidemark.rollups (name) ON DELETE CASCADE
);
COMMENT ON TABLE _tidemark.rollup_frozen IS
'Buckets that an aggregate had when raw rows of them were dropped: they keep what they have and are never recomputed.';
COMMENT ON COLUMN _tidemark.rollup_frozen.name IS 'The aggregate.';
COMMENT ON COLUMN _tidemark.rollup_frozen.series IS 'Key of the series without the time, e.g. {"source_id": 1}.';
COMMENT ON COLUMN _tidemark.rollup_frozen.buckets IS 'What the buckets span.';
COMMENT ON COLUMN _tidemark.rollup_frozen.created_at IS 'When the row was stored.';

CREATE TABLE _tidemark.rollup_changes (
    change_id bigint GENERATED BY DEFAULT AS IDENTITY NOT NULL,
    hypertable regclass NOT NULL,
    series jsonb NOT NULL,
    period tstzrange NOT NULL,
    is_taken boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT rollup_changes_pkey PRIMARY KEY (change_id),
    CONSTRAINT rollup_changes_period_not_empty CHECK (NOT isempty(period))
);
CREATE INDEX rollup_changes_hypertable_series_idx ON _tidemark.rollup_changes (hypertable, series);
COMMENT ON INDEX _tidemark.rollup_changes_hypertable_series_idx IS 'Changes of a series.';
COMMENT ON TABLE _tidemark.rollup_changes IS
'Raw rows that changed where aggregates are precomputed already, until a refresh has recomputed the buckets.';
COMMENT ON COLUMN _tidemark.rollup_changes.change_id IS 'Identity of the entry.';
COMMENT ON COLUMN _tidemark.rollup_changes.hypertable IS 'Hypertable of the rows.';
COMMENT ON COLUMN _tidemark.rollup_changes.series IS 'Key of the series without the time, e.g. {"source_id": 1}.';
COMMENT ON COLUMN _tidemark.rollup_changes.period IS 'Hours in which rows changed.';
COMMENT ON COLUMN _tidemark.rollup_changes.is_taken IS
'The running refresh has taken the entry on; never seen outside of it.';
COMMENT ON COLUMN _tidemark.rollup_changes.created_at IS 'When the row was stored.';
