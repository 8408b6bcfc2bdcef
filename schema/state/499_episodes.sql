-- How many rows without a flag end an episode.

-- No more than the baseline has: a verdict on a row is given with those on as many rows after it.
ALTER TABLE public.quality_profiles
ADD COLUMN episode_rows integer NOT NULL DEFAULT 20
CONSTRAINT quality_profiles_episode_rows_in_range CHECK (episode_rows BETWEEN 1 AND baseline_rows);
COMMENT ON COLUMN public.quality_profiles.episode_rows IS
'An anomaly at most so many rows after the one before it belongs to the same episode.';

COMMENT ON TABLE public.anomalies IS
'Observations out of line with their baseline, with the figures to recompute the score: z_score is '
'observed - expected or, where levels as they are are not what is judged, deviation, whichever is smaller in '
'magnitude, divided by scale.';
