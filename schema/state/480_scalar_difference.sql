-- Scalars are judged by their differences. By their levels, what stands out is a drift and not an error: see
-- docs/quality.md. A profile that somebody made their own stays as it is.

SELECT set_config('tidemark.reason', 'scalars are judged by their differences', true);
UPDATE public.quality_profiles AS q
   SET transform = 'difference'
 WHERE q.name = 'scalar'
   AND q.transform = 'level'
   AND q.updated_at = q.created_at;
