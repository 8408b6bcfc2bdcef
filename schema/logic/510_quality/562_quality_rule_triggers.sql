-- Rules and profiles are checked when they are written, and put in force at once.

CREATE OR REPLACE FUNCTION _tidemark.check_rule()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_relation CONSTANT regclass := _tidemark.labelled_relation(NEW.applies_to);
BEGIN
    IF v_relation IS NULL THEN
        PERFORM _tidemark.refuse_rule(NEW.name, 'TM205', format('there is no table "%s"', NEW.applies_to));
    ELSIF NEW.source_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid = v_relation AND a.attnum > 0 AND a.atttypid = 'integer'::regtype
           AND a.attname = coalesce(
               (SELECT t.source_column FROM _tidemark.quality_targets AS t WHERE t.hypertable = v_relation), 'source_id'
           )
    ) THEN
        PERFORM _tidemark.refuse_rule(NEW.name, 'TM206', format('rows of %s have no source', v_relation));
    END IF;
    PERFORM _tidemark.rule_condition(NEW, v_relation, coalesce(
        (SELECT t.time_column FROM _tidemark.quality_targets AS t WHERE t.hypertable = v_relation), 'ts'
    ));
    -- What is put into the engine's templates holds no token of theirs.
    IF concat(NEW.name, NEW.applies_to, NEW.parameters - 'expression') ~ '@\w+@' THEN
        PERFORM _tidemark.refuse_rule(NEW.name, 'TM206', 'a word between two @ stands in its name or parameters');
    END IF;
    IF TG_OP = 'UPDATE' AND (NEW.applies_to, NEW.source_id, NEW.rule_type, NEW.parameters)
                            IS DISTINCT FROM (OLD.applies_to, OLD.source_id, OLD.rule_type, OLD.parameters) THEN
        NEW.version := OLD.version + 1;
    END IF;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.check_rule() FROM public;
COMMENT ON FUNCTION _tidemark.check_rule() IS
'Row trigger on validation_rules: refuses a rule that cannot be used, and counts the changes of its meaning.';

CREATE OR REPLACE TRIGGER trg_check_rule BEFORE INSERT OR UPDATE ON public.validation_rules
FOR EACH ROW EXECUTE FUNCTION _tidemark.check_rule();
COMMENT ON TRIGGER trg_check_rule ON public.validation_rules IS 'Refuses a rule that cannot be used; keeps version.';

-- With the rights of whoever writes the rule: reading an expression may run code that it brings with it.
CREATE OR REPLACE FUNCTION _tidemark.check_rule_expression()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
BEGIN
    PERFORM _tidemark.check_expression(NEW, _tidemark.labelled_relation(NEW.applies_to));
    RETURN NEW;
END
$func$;
COMMENT ON FUNCTION _tidemark.check_rule_expression() IS
'Row trigger on validation_rules: refuses an expression that cannot be used.';

CREATE OR REPLACE TRIGGER trg_check_rule_expression BEFORE INSERT OR UPDATE ON public.validation_rules
FOR EACH ROW WHEN (new.rule_type = 'expression') EXECUTE FUNCTION _tidemark.check_rule_expression();
COMMENT ON TRIGGER trg_check_rule_expression ON public.validation_rules IS
'Refuses an expression that cannot be used, with the rights of its writer.';

CREATE OR REPLACE FUNCTION _tidemark.put_rules_in_force()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_labels text[];
    v_target record;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(n.applies_to) INTO v_labels FROM new_rules AS n;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(o.applies_to) INTO v_labels FROM old_rules AS o;
    ELSE
        SELECT array_agg(r.applies_to) INTO v_labels
          FROM (SELECT n.applies_to FROM new_rules AS n UNION ALL SELECT o.applies_to FROM old_rules AS o) AS r;
    END IF;
    -- In one order, so that two sessions cannot wait for each other; the row lock makes the second see both changes.
    FOR v_target IN
        SELECT t.hypertable
          FROM _tidemark.quality_targets AS t
         WHERE t.is_attached
           AND t.label = ANY (v_labels)
           AND EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = t.hypertable)
         ORDER BY t.label
           FOR UPDATE
    LOOP
        PERFORM _tidemark.build_quality(v_target.hypertable);
    END LOOP;
    RETURN NULL;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.put_rules_in_force() FROM public;
COMMENT ON FUNCTION _tidemark.put_rules_in_force() IS
'Statement trigger on validation_rules: makes the functions that score the hypertables concerned again.';

CREATE OR REPLACE TRIGGER trg_enforce_inserted AFTER INSERT ON public.validation_rules
REFERENCING NEW TABLE AS new_rules FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.put_rules_in_force();
COMMENT ON TRIGGER trg_enforce_inserted ON public.validation_rules IS
'Rules are in force from the end of the statement that made them.';

CREATE OR REPLACE TRIGGER trg_enforce_updated AFTER UPDATE ON public.validation_rules
REFERENCING OLD TABLE AS old_rules NEW TABLE AS new_rules FOR EACH STATEMENT
EXECUTE FUNCTION _tidemark.put_rules_in_force();
COMMENT ON TRIGGER trg_enforce_updated ON public.validation_rules IS
'Rules are in force as changed from the end of the statement that changed them.';

CREATE OR REPLACE TRIGGER trg_enforce_deleted AFTER DELETE ON public.validation_rules
REFERENCING OLD TABLE AS old_rules FOR EACH STATEMENT EXECUTE FUNCTION _tidemark.put_rules_in_force();
COMMENT ON TRIGGER trg_enforce_deleted ON public.validation_rules IS
'Rules are no longer in force after the statement that deleted them.';

-- A misspelt field would be required of nobody.
CREATE OR REPLACE FUNCTION _tidemark.check_profile()
    RETURNS trigger
    LANGUAGE plpgsql
    VOLATILE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    v_field text;
BEGIN
    FOREACH v_field IN ARRAY NEW.required_fields LOOP
        IF NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS a
             WHERE a.attname = v_field AND a.attnum > 0
               AND a.attrelid IN (SELECT t.hypertable FROM _tidemark.quality_targets AS t)
        ) THEN
            RAISE EXCEPTION USING ERRCODE = 'TM213',
                MESSAGE = format('quality profile "%s" requires a field that no scored table has', NEW.name),
                DETAIL = format('Field: %s.', coalesce(v_field, 'NULL')),
                TABLE = 'quality_profiles';
        END IF;
    END LOOP;
    RETURN NEW;
END
$func$;
REVOKE ALL ON FUNCTION _tidemark.check_profile() FROM public;
COMMENT ON FUNCTION _tidemark.check_profile() IS
'Row trigger on quality_profiles: refuses a required field that no scored table has.';

CREATE OR REPLACE TRIGGER trg_check_profile BEFORE INSERT OR UPDATE OF required_fields ON public.quality_profiles
FOR EACH ROW EXECUTE FUNCTION _tidemark.check_profile();
COMMENT ON TRIGGER trg_check_profile ON public.quality_profiles IS 'Refuses a required field that no scored table has.';
