-- Every enumeration takes text and compares with it. Drivers send typed parameters ($1::varchar), which PostgreSQL
-- neither stores in a column of an enumerated type nor compares with one. One rule for all of them, in a loop over the
-- catalogue, so that a new one is not forgotten: casts on assignment, and operators that are inlined to the
-- enumeration's own, with which an index is used. A literal stays what it was: it is a constant of the type when the
-- statement is planned. Labels are never removed or renamed (010), so what a text stands for is immutable.
--
-- The operators stand in the applications' schemas, for whoever has one on the search_path, and not in public: with
-- them a literal in a comparison of rows, (interval, ts) = ('1h', …), has to be cast, because only a superuser could
-- enter them among the operators of an index.

DO $do$
DECLARE
    v_enum record;
    v_operator record;
    v_type text;
    v_schema name;
BEGIN
    FOR v_enum IN
        SELECT t.oid, t.typname AS name, t.oid::regtype::text AS qualified
          FROM pg_catalog.pg_type AS t
         WHERE t.typnamespace = 'public'::regnamespace
           AND t.typtype = 'e'
           AND obj_description(t.oid, 'pg_type') IS NOT NULL -- Tidemark's
    LOOP
        FOREACH v_type IN ARRAY ARRAY['text', 'varchar'] LOOP
            IF NOT EXISTS (SELECT FROM pg_catalog.pg_cast AS c
                            WHERE c.castsource = v_type::regtype AND c.casttarget = v_enum.oid) THEN
                EXECUTE format('CREATE CAST (%s AS public.%I) WITH INOUT AS ASSIGNMENT', v_type, v_enum.name);
            END IF;
        END LOOP;
        EXECUTE format(
            'CREATE OR REPLACE FUNCTION _tidemark.as_%1$s(p_label text) RETURNS public.%1$I LANGUAGE sql IMMUTABLE '
            'STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $func$ SELECT p_label::public.%1$I; $func$',
            v_enum.name
        );
        EXECUTE format('COMMENT ON FUNCTION _tidemark.as_%s(text) IS %L', v_enum.name,
                       format('The label of %s that a text is; raises 22P02 where there is none.', v_enum.name));
        FOR v_operator IN
            SELECT o.*, CASE WHEN s.side = 'left' THEN format('public.%I, text', v_enum.name)
                             ELSE format('text, public.%I', v_enum.name) END AS arguments,
                   CASE WHEN s.side = 'left' THEN format('public.%I', v_enum.name) ELSE 'text' END AS left_type,
                   CASE WHEN s.side = 'left' THEN 'text' ELSE format('public.%I', v_enum.name) END AS right_type,
                   CASE WHEN s.side = 'left' THEN format('$1 OPERATOR(pg_catalog.%s) _tidemark.as_%s($2)', o.symbol,
                                                         v_enum.name)
                        ELSE format('_tidemark.as_%s($1) OPERATOR(pg_catalog.%s) $2', v_enum.name, o.symbol)
                   END AS body,
                   CASE WHEN s.side = 'left' THEN format('%s_%s_text', v_enum.name, o.name)
                        ELSE format('text_%s_%s', o.name, v_enum.name) END AS function_name
              FROM (VALUES ('=', 'eq', '=', '<>', 'eq'), ('<>', 'ne', '<>', '=', 'neq'),
                           ('<', 'lt', '>', '>=', 'scalarlt'), ('<=', 'le', '>=', '>', 'scalarle'),
                           ('>', 'gt', '<', '<=', 'scalargt'), ('>=', 'ge', '<=', '<', 'scalarge')
                   ) AS o (symbol, name, commutator, negator, estimator)
             CROSS JOIN (VALUES ('left'), ('right')) AS s (side)
        LOOP
            EXECUTE format(
                'CREATE OR REPLACE FUNCTION _tidemark.%I(%s) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE '
                'AS $func$ SELECT %s; $func$', v_operator.function_name, v_operator.arguments, v_operator.body
            );
            EXECUTE format('COMMENT ON FUNCTION _tidemark.%I(%s) IS %L', v_operator.function_name,
                           v_operator.arguments, 'Compares with a label as text. Inlined.');
            FOREACH v_schema IN ARRAY ARRAY[
                'buddy_ai', 'cryptovolt', 'trading_manager', 'hyperliquid', 'btc_dashboard'
            ] LOOP
                -- One that another only named as its commutator or negator has no function yet.
                IF NOT EXISTS (
                    SELECT FROM pg_catalog.pg_operator AS o
                     WHERE o.oprname = v_operator.symbol AND o.oprnamespace = v_schema::text::regnamespace
                       AND o.oprleft = v_operator.left_type::regtype AND o.oprright = v_operator.right_type::regtype
                       AND o.oprcode <> 0
                ) THEN
                    EXECUTE format(
                        'CREATE OPERATOR %1$I.%2$s (LEFTARG = %3$s, RIGHTARG = %4$s, FUNCTION = _tidemark.%5$I, '
                        'COMMUTATOR = OPERATOR(%1$I.%6$s), NEGATOR = OPERATOR(%1$I.%7$s), RESTRICT = %8$ssel, '
                        'JOIN = %8$sjoinsel)', v_schema, v_operator.symbol, v_operator.left_type,
                        v_operator.right_type, v_operator.function_name, v_operator.commutator, v_operator.negator,
                        v_operator.estimator
                    );
                END IF;
            END LOOP;
        END LOOP;
    END LOOP;
END
$do$;

-- Patterns and case, as a column of text has them: one operator and one function each for all enumerations.
DO $do$
DECLARE
    v_operator record;
    v_schema name;
    v_function text;
BEGIN
    FOR v_operator IN
        SELECT o.*
          FROM (VALUES ('~~', 'like'), ('!~~', 'not_like'), ('~~*', 'ilike'), ('!~~*', 'not_ilike'),
                       ('~', 'matches'), ('!~', 'matches_not'), ('~*', 'imatches'), ('!~*', 'imatches_not')
               ) AS o (symbol, name)
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE FUNCTION _tidemark.enum_%s(anyenum, text) RETURNS boolean LANGUAGE sql STABLE '
            'PARALLEL SAFE AS $func$ SELECT $1::pg_catalog.text OPERATOR(pg_catalog.%s) $2; $func$',
            v_operator.name, v_operator.symbol
        );
        EXECUTE format('COMMENT ON FUNCTION _tidemark.enum_%s(anyenum, text) IS %L', v_operator.name,
                       'Compares a label with a pattern. Inlined.');
        FOREACH v_schema IN ARRAY ARRAY[
            'buddy_ai', 'cryptovolt', 'trading_manager', 'hyperliquid', 'btc_dashboard'
        ] LOOP
            IF NOT EXISTS (
                SELECT FROM pg_catalog.pg_operator AS o
                 WHERE o.oprname = v_operator.symbol AND o.oprnamespace = v_schema::text::regnamespace
                   AND o.oprleft = 'anyenum'::regtype
            ) THEN
                EXECUTE format('CREATE OPERATOR %I.%s (LEFTARG = anyenum, RIGHTARG = text, '
                               'FUNCTION = _tidemark.enum_%s)', v_schema, v_operator.symbol, v_operator.name);
            END IF;
        END LOOP;
    END LOOP;
    FOREACH v_schema IN ARRAY ARRAY['buddy_ai', 'cryptovolt', 'trading_manager', 'hyperliquid', 'btc_dashboard'] LOOP
        FOREACH v_function IN ARRAY ARRAY['lower', 'upper'] LOOP
            EXECUTE format(
                'CREATE OR REPLACE FUNCTION %1$I.%2$I(anyenum) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE '
                'SET search_path = pg_catalog, pg_temp AS $func$ SELECT %2$I($1::text); $func$', v_schema, v_function
            );
            EXECUTE format('COMMENT ON FUNCTION %I.%I(anyenum) IS %L', v_schema, v_function,
                           format('A label in %s case letters.', v_function));
        END LOOP;
    END LOOP;
END
$do$;
