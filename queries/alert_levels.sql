-- At which prices of an asset do alerts wait?
-- parameters: asset_id uuid = 00000000-0000-0000-0000-000000000000
-- columns: price double precision, condition alert_condition, alerts bigint
-- cost: the alerts of that asset; of the caller's own where row security binds him
SELECT l.target_value::double precision AS price,
       l.condition,
       count(*) AS alerts
  FROM public.alerts AS l
 WHERE l.asset_id = :'asset_id' AND l.is_active AND l.alert_type = 'price'
 GROUP BY l.target_value, l.condition
 ORDER BY l.target_value, l.condition;
