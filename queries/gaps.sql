-- Which bars of a source are missing?
-- parameters: source text in sources.name, since timestamptz = -infinity, until timestamptz = infinity
-- columns: gap_start timestamptz, gap_end timestamptz, missing_bars bigint
-- cost: the rows of that source in the period
SELECT g.gap_start,
       g.gap_end,
       g.missing_bars
  FROM public.sources AS s
 CROSS JOIN LATERAL public.find_gaps(s.source_id, :'since', :'until') AS g
 WHERE s.name = :'source'
 ORDER BY g.gap_start;
