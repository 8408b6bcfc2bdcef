-- Functions that are made of templates (fill_template in 520): few, and only where the text depends on a table.

-- Makes a function unless it is there with the same text already; its comment is made in any case, by which the runner
-- knows what logic is still wanted.
CREATE OR REPLACE FUNCTION _tidemark.make_function(
    p_name text,
    p_arguments text,
    p_returns text,
    p_attributes text,
    p_body text,
    p_comment text
)
    RETURNS boolean
    LANGUAGE plpgsql
    VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $func$
DECLARE
    -- The attributes are part of the text, so that a change of them is one of the text.
    v_body CONSTANT text := format(E'\n-- %s\n%s', replace(p_attributes, E'\n', ' '), p_body);
    v_old regprocedure;
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_proc AS p
         WHERE p.pronamespace = '_tidemark'::regnamespace AND p.proname = p_name AND p.prosrc = v_body
    ) THEN
        EXECUTE format('COMMENT ON FUNCTION _tidemark.%I IS %L', p_name, p_comment);
        RETURN false;
    END IF;
    -- An earlier version may have had other arguments or results. On the function of a trigger that depends.
    IF p_returns <> 'trigger' THEN
        FOR v_old IN
            SELECT p.oid::regprocedure FROM pg_catalog.pg_proc AS p
             WHERE p.pronamespace = '_tidemark'::regnamespace AND p.proname = p_name
        LOOP
            EXECUTE format('DROP FUNCTION %s', v_old);
        END LOOP;
    END IF;
    EXECUTE format('CREATE OR REPLACE FUNCTION _tidemark.%I(%s) RETURNS %s LANGUAGE plpgsql VOLATILE %s AS %L',
                   p_name, p_arguments, p_returns, p_attributes, v_body);
    EXECUTE format('REVOKE ALL ON FUNCTION _tidemark.%I FROM PUBLIC', p_name);
    EXECUTE format('COMMENT ON FUNCTION _tidemark.%I IS %L', p_name, p_comment);
    -- Whoever changes a rule later makes it anew as tidemark_owner. Migrations hand over everything at their end.
    IF _tidemark.can_act_as(
           (SELECT pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace AS n WHERE n.nspname = '_tidemark')
       ) THEN
        EXECUTE format('ALTER FUNCTION _tidemark.%I OWNER TO %s', p_name, (
            SELECT n.nspowner::regrole FROM pg_catalog.pg_namespace AS n WHERE n.nspname = '_tidemark'
        ));
    END IF;
    RETURN true;
END
$func$;
COMMENT ON FUNCTION _tidemark.make_function(text, text, text, text, text, text) IS
'Makes a function unless it is there with the same text already; says whether it did.';
