-- What a reviewer sees: whether an anomaly is for him to look at, as most are moves that the market made and the rows
-- after them say so, and how many rows without a flag end an episode.

ALTER TABLE public.anomalies ADD COLUMN is_doubtful boolean;
COMMENT ON COLUMN public.anomalies.is_doubtful IS
'Whether it may be an error: the next row took the move back, or it is one of those that only a reviewer can tell. '
'False where the next row confirmed the move, NULL while there are no two rows after it.';
COMMENT ON TABLE public.anomalies IS
'Observations out of line with their baseline, with the figures to recompute the score: z_score is '
'observed - expected or, where levels as they are are not what is judged, deviation, whichever is smaller in '
'magnitude, divided by scale.';

CREATE INDEX anomalies_undecided_idx ON public.anomalies (table_name, series) WHERE is_doubtful IS NULL;
COMMENT ON INDEX public.anomalies_undecided_idx IS 'What the next rows of its series are to decide.';

-- No more than the baseline has: a verdict on a row is given with those on as many rows after it.
ALTER TABLE public.quality_profiles
ADD COLUMN episode_rows integer NOT NULL DEFAULT 20
CONSTRAINT quality_profiles_episode_rows_in_range CHECK (episode_rows BETWEEN 1 AND baseline_rows);
COMMENT ON COLUMN public.quality_profiles.episode_rows IS
'An anomaly at most so many rows after the one before it belongs to the same episode.';
