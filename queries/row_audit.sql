-- Who changed a row, when and why?
-- parameters: table text in relations, key jsonb
-- columns: audit_id bigint, changed_at timestamptz, operation audit_operation, changed_by text, db_role text,
--   reason text, changed_fields text[], old_values jsonb, new_values jsonb
-- cost: the changes of that row, through an index; key is its primary key, e.g. {"rule_id": 1}
SELECT l.audit_id,
       l.changed_at,
       l.operation,
       l.changed_by,
       l.db_role,
       l.reason,
       l.changed_fields,
       l.old_values,
       l.new_values
  FROM public.audit_log AS l
 WHERE l.table_name = :'table' AND l.row_key = :'key'
 ORDER BY l.audit_id;
