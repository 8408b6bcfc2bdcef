-- Whether an anomaly is for a reviewer to look at: most are moves that the market made, and the rows after them say so.

ALTER TABLE public.anomalies ADD COLUMN is_doubtful boolean;
COMMENT ON COLUMN public.anomalies.is_doubtful IS
'Whether it may be an error: the next row took the move back, or it is one of those that only a reviewer can tell. '
'False where the next row confirmed the move, NULL while there are no two rows after it.';

CREATE INDEX anomalies_undecided_idx ON public.anomalies (table_name, series) WHERE is_doubtful IS NULL;
COMMENT ON INDEX public.anomalies_undecided_idx IS 'What the next rows of its series are to decide.';
