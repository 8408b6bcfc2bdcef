-- Whose rows are whose. An application says on whose behalf it works, per transaction,
--
--     SET LOCAL tidemark.user_id = '0b0e7a52-…';
--
-- and sees that user's rows and nobody else's; it can neither give rows away nor refer to another's. Without the
-- setting, or with one that is no uuid, there are no rows. Owners of tables, superusers and roles with BYPASSRLS are
-- not bound.
--
-- Every session can set it to anything: it keeps one user's rows from another as far as the application can be trusted
-- to set it. What an application must not be trusted with needs a role of its own.
--
-- Policies are on plain tables only. TimescaleDB neither compresses a hypertable that has them nor applies them to its
-- chunks, so nothing that belongs to a user may be kept in one.

CREATE OR REPLACE FUNCTION _tidemark.current_user_id()
    RETURNS uuid
    LANGUAGE sql
    STABLE
    PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT CASE
        WHEN s.setting ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN s.setting::uuid
    END
      FROM (SELECT current_setting('tidemark.user_id', true) AS setting) AS s;
$func$;
COMMENT ON FUNCTION _tidemark.current_user_id() IS
'The user whom the application works for, from tidemark.user_id; NULL where that is not set or no uuid.';

-- What an application needs to check a password: found by user name or address, whatever the case. No row where a user
-- is already named in tidemark.user_id, so that nobody who has logged in can ask for another's.
CREATE OR REPLACE FUNCTION public.find_login(p_login text)
    RETURNS TABLE (user_id uuid, password_hash text, is_active boolean)
    LANGUAGE sql
    STABLE
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $func$
    SELECT u.user_id, u.password_hash, u.is_active
      FROM public.users AS u
     WHERE coalesce(current_setting('tidemark.user_id', true), '') = ''
       AND (lower(u.username) = lower(p_login) OR lower(u.email) = lower(p_login));
$func$;
REVOKE ALL ON FUNCTION public.find_login(text) FROM public;
COMMENT ON FUNCTION public.find_login(text) IS
'Account of a login name or address, to check a password against; no row once tidemark.user_id is set.';

-- Calls are wrapped in SELECTs, and lists of keys in arrays, so that they are evaluated once per statement and an index
-- is used. Subqueries on another table see of it what its own policy lets through.
DO $do$
DECLARE
    c_me CONSTANT text := '(SELECT _tidemark.current_user_id())';
    v_policy record;
BEGIN
    PERFORM set_config('tidemark.record_maintenance', 'on', true); -- see record_ddl_guard
    FOR v_policy IN
        WITH policies AS (
            SELECT * FROM (VALUES
                ('users', 'own', 'ALL', NULL, 'user_id = @me@', 'user_id = @me@'),
                ('watchlists', 'own', 'ALL', NULL, 'user_id = @me@', 'user_id = @me@'),
                ('watchlist_items', 'own', 'ALL', NULL,
                 'watchlist_id = ANY (ARRAY(SELECT w.watchlist_id FROM public.watchlists AS w'
                 ' WHERE w.user_id = @me@))',
                 'watchlist_id = ANY (ARRAY(SELECT w.watchlist_id FROM public.watchlists AS w'
                 ' WHERE w.user_id = @me@))'),
                ('alerts', 'own', 'ALL', NULL, 'user_id = @me@', 'user_id = @me@'),
                ('notifications', 'own', 'ALL', NULL, 'user_id = @me@',
                 'user_id = @me@ AND (alert_id IS NULL'
                 ' OR EXISTS (SELECT FROM public.alerts AS a WHERE a.alert_id = notifications.alert_id))'),
                ('positions', 'own', 'ALL', NULL, 'user_id = @me@', 'user_id = @me@'),
                ('trades', 'own', 'ALL', NULL, 'user_id = @me@',
                 'user_id = @me@ AND (strategy_rule_id IS NULL'
                 ' OR EXISTS (SELECT FROM public.strategy_rules AS r WHERE r.rule_id = trades.strategy_rule_id))'
                 ' AND (backtest_id IS NULL'
                 ' OR EXISTS (SELECT FROM public.backtest_results AS b WHERE b.backtest_id = trades.backtest_id))'),
                -- What has no owner is everybody''s to read: predictions and strategies of the house.
                ('predictions', 'own', 'ALL', NULL, 'user_id = @me@', 'user_id = @me@'),
                ('predictions', 'shared', 'SELECT', NULL, 'user_id IS NULL AND @me@ IS NOT NULL', NULL),
                ('predictions', 'of_the_house', 'ALL', 'tidemark_writer', 'user_id IS NULL', 'user_id IS NULL'),
                ('strategies', 'own', 'ALL', NULL, 'user_id = @me@', 'user_id = @me@'),
                ('strategies', 'shared', 'SELECT', NULL, 'user_id IS NULL AND @me@ IS NOT NULL', NULL),
                ('strategy_rules', 'own', 'ALL', NULL,
                 'strategy_id = ANY (ARRAY(SELECT s.strategy_id FROM public.strategies AS s WHERE s.user_id = @me@))',
                 'strategy_id = ANY (ARRAY(SELECT s.strategy_id FROM public.strategies AS s WHERE s.user_id = @me@))'),
                ('strategy_rules', 'shared', 'SELECT', NULL,
                 '@me@ IS NOT NULL AND (strategy_id IS NULL'
                 ' OR strategy_id = ANY (ARRAY(SELECT s.strategy_id FROM public.strategies AS s'
                 ' WHERE s.user_id IS NULL)))',
                 NULL),
                ('learning_entries', 'own', 'ALL', NULL,
                 'strategy_rule_id = ANY (ARRAY(SELECT r.rule_id FROM public.strategy_rules AS r'
                 ' JOIN public.strategies AS s ON s.strategy_id = r.strategy_id WHERE s.user_id = @me@))',
                 'strategy_rule_id = ANY (ARRAY(SELECT r.rule_id FROM public.strategy_rules AS r'
                 ' JOIN public.strategies AS s ON s.strategy_id = r.strategy_id WHERE s.user_id = @me@))'),
                ('learning_entries', 'shared', 'SELECT', NULL,
                 '@me@ IS NOT NULL AND (strategy_rule_id IS NULL'
                 ' OR strategy_rule_id = ANY (ARRAY(SELECT r.rule_id FROM public.strategy_rules AS r)))',
                 NULL),
                ('backtest_configs', 'own', 'ALL', NULL,
                 'strategy_id = ANY (ARRAY(SELECT s.strategy_id FROM public.strategies AS s))'
                 ' OR rule_id = ANY (ARRAY(SELECT r.rule_id FROM public.strategy_rules AS r))',
                 '(strategy_id IS NULL OR strategy_id = ANY (ARRAY(SELECT s.strategy_id FROM public.strategies AS s)))'
                 ' AND (rule_id IS NULL OR rule_id = ANY (ARRAY(SELECT r.rule_id FROM public.strategy_rules AS r)))'),
                ('backtest_results', 'own', 'ALL', NULL,
                 'config_id = ANY (ARRAY(SELECT c.config_id FROM public.backtest_configs AS c))',
                 'config_id = ANY (ARRAY(SELECT c.config_id FROM public.backtest_configs AS c))'),
                -- Administration sees accounts, not what they own; no privilege lets it see a password''s hash.
                ('users', 'administration', 'ALL', 'tidemark_admin', 'true', 'true'),
                -- The record shows nobody what the tables it is of do not show him.
                ('audit_log', 'readable', 'SELECT', NULL,
                 'table_name = ANY (ARRAY(SELECT _tidemark.readable_records()))', NULL),
                ('timeseries_archive', 'readable', 'SELECT', NULL,
                 'table_name = ANY (ARRAY(SELECT _tidemark.readable_records()))', NULL)
            ) AS p (table_name, name, command, roles, visible, writable)
            UNION ALL
            -- The record reads what it takes a snapshot of, and what TRUNCATE is about to remove.
            SELECT t.table_name, 'record', 'SELECT', 'tidemark_record', 'true', NULL
              FROM unnest(ARRAY[
                       'users', 'watchlists', 'watchlist_items', 'alerts', 'notifications', 'positions', 'trades',
                       'predictions', 'strategies', 'strategy_rules', 'learning_entries', 'backtest_configs',
                       'backtest_results'
                   ]) AS t (table_name)
        )
        SELECT p.table_name, p.name, p.command, p.roles, replace(p.visible, '@me@', c_me) AS visible,
               replace(p.writable, '@me@', c_me) AS writable
          FROM policies AS p
         WHERE p.roles IS NULL OR to_regrole(p.roles) IS NOT NULL
    LOOP
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', v_policy.table_name);
        IF EXISTS (SELECT FROM pg_catalog.pg_policies AS o
                    WHERE o.schemaname = 'public'
                      AND o.tablename = v_policy.table_name
                      AND o.policyname = v_policy.name) THEN
            EXECUTE format('DROP POLICY %I ON public.%I', v_policy.name, v_policy.table_name);
        END IF;
        EXECUTE format(
            'CREATE POLICY %I ON public.%I FOR %s TO %s USING (%s)%s', v_policy.name, v_policy.table_name,
            v_policy.command, coalesce(quote_ident(v_policy.roles), 'PUBLIC'), v_policy.visible,
            ' WITH CHECK (' || v_policy.writable || ')'
        );
    END LOOP;
    PERFORM set_config('tidemark.record_maintenance', '', true);
END
$do$;
