"""Who may do what is what the committed matrix says; what runs as its owner cannot be led astray."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from record.support import Rows, insert

from tidemark import config

MATRIX = Path(__file__).with_name("privileges.txt")
ROLES = ["tidemark_admin", "tidemark_app", "tidemark_reader", "tidemark_writer"]

PRIVILEGES = """
    WITH schemas AS (
        SELECT n.oid, n.nspname, n.nspacl, n.nspowner FROM pg_namespace AS n
         WHERE n.nspname = 'public' OR n.nspname = ANY (_tidemark.own_schemas())
    ), found AS (
        SELECT a.grantee, a.privilege_type AS privilege, 'schema ' || n.nspname AS object
          FROM schemas AS n CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
         WHERE a.grantee <> n.nspowner
        UNION ALL
        SELECT a.grantee, a.privilege_type, format('%s.%s', n.nspname, c.relname)
          FROM pg_class AS c JOIN schemas AS n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL aclexplode(c.relacl) AS a
         WHERE c.relkind IN ('r', 'v', 'm', 'S') AND a.grantee <> c.relowner AND n.nspname <> '_tidemark'
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
        UNION ALL
        SELECT a.grantee, a.privilege_type || ' (' || string_agg(t.attname, ', ' ORDER BY t.attname) || ')',
               format('%s.%s', n.nspname, c.relname)
          FROM pg_class AS c JOIN schemas AS n ON n.oid = c.relnamespace
          JOIN pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped
         CROSS JOIN LATERAL aclexplode(t.attacl) AS a
         WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
         GROUP BY a.grantee, a.privilege_type, n.nspname, c.relname
        UNION ALL
        SELECT a.grantee, a.privilege_type, format('%s.%s() as %s', n.nspname, p.proname, pg_get_userbyid(p.proowner))
          FROM pg_proc AS p JOIN schemas AS n ON n.oid = p.pronamespace
         CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
         WHERE p.prosecdef AND a.grantee <> p.proowner
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
    )
    SELECT format('%s: %s: %s', CASE f.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(f.grantee) END, f.object,
                  string_agg(f.privilege, ', ' ORDER BY f.privilege))
      FROM found AS f
     GROUP BY f.grantee, f.object
     ORDER BY 1
"""


def matrix(connection) -> list[str]:
    return [line for (line,) in connection.execute(PRIVILEGES)]


def test_privileges_are_those_of_the_committed_matrix(tx):
    """TIDEMARK_UPDATE_PRIVILEGES=1 writes the file anew; read the difference before you commit it."""
    found = matrix(tx)
    if os.environ.get("TIDEMARK_UPDATE_PRIVILEGES"):
        MATRIX.write_text("\n".join(found) + "\n")
    assert found == MATRIX.read_text().splitlines()


def test_granting_again_takes_away_what_was_granted_on_the_side(tx):
    before = matrix(tx)
    tx.execute("GRANT ALL ON users, audit_log TO tidemark_reader; GRANT UPDATE (password_hash) ON users"
               " TO tidemark_admin; GRANT EXECUTE ON FUNCTION seal_audit(interval, integer) TO PUBLIC;"
               " GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert matrix(tx) != before
    tx.execute((config.SCHEMA / "logic/900_security/990_privileges.sql").read_text())
    assert matrix(tx) == before


def test_nobody_creates_objects_where_functions_look_things_up(tx):
    assert tx.execute(
        "SELECT n.nspname FROM pg_namespace AS n CROSS"
        " JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a WHERE a.grantee = 0"
        " AND a.privilege_type = 'CREATE'").fetchall() == []
    for role in ROLES:
        assert tx.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'"
                          " AND has_schema_privilege(%s, oid, 'CREATE')", [role]).fetchall() == []


DEFINERS = """
    SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE p.prosecdef AND (n.nspname = 'public' OR n.nspname = ANY (_tidemark.own_schemas()))
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
"""


def test_what_runs_as_its_owner_is_not_for_everybody(tx):
    assert tx.execute(DEFINERS).rowcount > 5
    assert tx.execute(DEFINERS + " AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f',"
                                 " p.proowner))) AS a WHERE a.grantee = 0)").fetchall() == []


def test_what_runs_as_its_owner_pins_its_search_path(tx):
    assert tx.execute(DEFINERS + " AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s"
                                 " WHERE s ~ '^search_path=pg_catalog,.*pg_temp$')"
                      ).fetchall() == []


def test_no_object_belongs_to_a_role_that_logs_in(tx):
    assert tx.execute(
        "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE (n.nspname = 'public' OR n.nspname = ANY (_tidemark.own_schemas()))"
        " AND pg_get_userbyid(c.relowner) NOT IN ('tidemark_owner', 'tidemark_record')"
        " AND c.relkind IN ('r', 'v', 'm', 'S', 'i') AND NOT EXISTS (SELECT FROM pg_depend AS d"
        " WHERE d.objid = c.oid AND d.deptype = 'e')").fetchall() == []
    assert tx.execute(
        "SELECT p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
        " WHERE (n.nspname = 'public' OR n.nspname = ANY (_tidemark.own_schemas()))"
        " AND pg_get_userbyid(p.proowner) NOT IN ('tidemark_owner', 'tidemark_record') AND NOT EXISTS (SELECT"
        " FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')").fetchall() == []
    assert tx.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^tidemark_' AND rolcanlogin AND rolconnlimit <> 0"
                      ).fetchall() == []


def test_chunks_of_hypertables_change_hands_with_them(tx):
    rows = Rows(tx)
    for table in ("quotes", "candles", "timeseries_data"):
        insert(tx, table, rows.row(table))
    assert tx.execute("SELECT DISTINCT pg_get_userbyid(c.relowner)::text FROM timescaledb_information.chunks AS k"
                      " JOIN pg_class AS c ON c.oid = format('%I.%I', k.chunk_schema, k.chunk_name)::regclass"
                      ).fetchall() == [("tidemark_owner",)]


# In a schema of their own: functions and operators of pg_temp are never found without saying so.
HOSTILE = """
    CREATE SCHEMA hostile;
    CREATE TEMP TABLE audit_log (LIKE public.audit_log);
    CREATE TEMP TABLE audit_tx (LIKE public.audit_tx);
    CREATE TEMP TABLE users (LIKE public.users);
    CREATE TEMP TABLE timeseries_archive (LIKE public.timeseries_archive);
    CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '2000-01-01'::timestamptz $$;
    CREATE FUNCTION hostile.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT '\\x00'::bytea $$;
    CREATE FUNCTION hostile.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'hostile' $$;
    CREATE FUNCTION hostile.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{}'::jsonb $$;
    CREATE FUNCTION hostile.always(jsonb, jsonb) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
    CREATE FUNCTION hostile.alwaystext(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
    CREATE OPERATOR hostile.= (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = hostile.always);
    CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.alwaystext);
    CREATE OPERATOR hostile.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.alwaystext);
    GRANT USAGE ON SCHEMA hostile TO PUBLIC;
    SET LOCAL search_path = hostile, pg_temp, pg_catalog, public;
"""


def test_hostile_objects_in_the_callers_path_change_nothing(tx):
    """What a session puts before the real tables, functions and operators is not looked at."""
    rows = Rows(tx)
    tx.execute("GRANT INSERT, SELECT, UPDATE, DELETE ON public.quotes, public.alerts TO tidemark_writer")
    user = rows.user
    tx.execute(sql.SQL(HOSTILE))
    tx.execute("SELECT pg_catalog.set_config('tidemark.user_id', %s, true)", [str(user)])
    log = "SELECT count(*) FROM public.audit_log"
    before = tx.execute(log).fetchone()[0]
    alert = {**rows.row("alerts")}
    tx.execute("SET LOCAL search_path = public")
    row = rows.row("quotes")
    tx.execute("SET LOCAL search_path = hostile, pg_temp, pg_catalog, public")
    tx.execute("INSERT INTO public.alerts (user_id, asset_id, condition, target_value)"
               " VALUES (%(user_id)s, %(asset_id)s, 'above', 1e12)",
               alert)
    tx.execute("INSERT INTO public.quotes (asset_id, ts, price) VALUES (%(asset_id)s, %(ts)s, 10)", row)
    tx.execute("DELETE FROM public.quotes")
    tx.execute("SELECT public.restore_archived('public.quotes')")
    assert tx.execute(log).fetchone()[0] == before + 3
    assert tx.execute("SELECT count(*) FROM pg_temp.audit_log").fetchone() == (0,)
    tx.execute("SET LOCAL search_path = pg_catalog")
    assert tx.execute("SELECT count(*) FROM public.audit_log AS l WHERE l.changed_at < '2020-01-01'"
                      " OR l.content_hash <> _tidemark.audit_hash(audit_id, tx_id, table_name, operation, row_key,"
                      " new_key, old_values, new_values, changed_fields, changed_by, db_role, changed_at, reason,"
                      " created_at)"
                      ).fetchone() == (0,)
    tx.execute("SET LOCAL search_path = hostile, pg_temp, pg_catalog, public")
    tx.execute("SET LOCAL tidemark.user_id = ''")
    assert tx.execute("SELECT count(*) FROM public.find_login('nobody')").fetchone() == (0,)
    assert tx.execute("SELECT count(*) FROM public.verify_audit()").fetchone() == (0,)


PAYLOADS = ["'", "''", "';", "\"", "'); DROP TABLE users; --", "%s", "%I %L %1$s %%", "$$", "$func$", "\\", "\n", "/*",
            "--",
            "é€😀", "a" * 3000, "{}", "[]", "null", "public.users", "pg_class; SELECT 1", "1 OR 1=1",
             "x' OR 'x' = 'x"]
FUZZED = """
    SELECT p.oid::regprocedure::text, p.proargtypes::regtype[]::text[], p.prokind FROM pg_proc AS p
     WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f'
       AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
       AND p.proargtypes::regtype[] && '{text,text[],jsonb,regclass,name}'::regtype[]
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
     ORDER BY 1
"""


def test_text_is_never_taken_for_sql(db):
    """Every text parameter of every public function, with quotes and formats: no syntax error, nothing gone."""
    with db.connect(autocommit=False) as connection:
        rows = Rows(connection)
        insert(connection, "quotes", rows.row("quotes"))
        connection.execute("SET LOCAL tidemark.reason = 'fuzz'; SET LOCAL statement_timeout = '20s'")
        tables = connection.execute("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'v')").fetchone()
        users = connection.execute("SELECT count(*) FROM users").fetchone()
        functions = connection.execute(FUZZED).fetchall()
        assert len(functions) >= 8
        fixed = {
            "interval": "1 day", "integer": "1", "bigint": "1", "boolean": "t", "date": "2024-01-01",
            "uuid": str(rows.asset), "timestamp with time zone": "2024-01-01", "double precision": "1",
            "regclass": "public.quotes", "bytea": "x",
        }
        called = 0
        for function, types, _ in functions:
            fuzzable = [n for n, kind in enumerate(types) if kind in ("text", "text[]", "jsonb", "regclass", "name")]
            for position in fuzzable:
                for payload in PAYLOADS:
                    values = []
                    for n, kind in enumerate(types):
                        value = payload if n == position else "x"
                        if kind == "text[]":
                            value = [value]
                        elif kind == "jsonb":
                            value = psycopg.types.json.Jsonb({"asset_id": value, value: value} if n == position else {})
                        elif kind in fixed and n != position:
                            value = fixed[kind]
                        elif kind not in ("text", "name", "regclass"):
                            value = fixed.get(kind)
                        values.append(value)
                    call = f"SELECT * FROM {function.split('(')[0]}({', '.join('%s::' + kind for kind in types)})"
                    connection.execute("SAVEPOINT before")
                    try:
                        connection.execute(call, values).fetchall()
                    except psycopg.Error as refused:
                        state = refused.sqlstate
                        # A name that is none is refused by regclass itself, as 42601 or 42P01, before we see it.
                        assert not state.startswith("42") or types[position] == "regclass" or state in (
                            "42501", "42704", "42P01", "42703"), (call, values, str(refused))
                        assert state != "42601" or types[position] == "regclass", (call, values, str(refused))
                    connection.execute("ROLLBACK TO before")
                    called += 1
        assert called > 200
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'v')").fetchone() == tables
        assert connection.execute("SELECT count(*) FROM users").fetchone() == users


def test_pgspot_has_nothing_to_say():
    """The functions named here are made to be put in the place of their call; their callers pin the path."""
    inlined = ["_tidemark.audit_hash(p_audit_id bigint,p_tx_id bigint,p_table_name text,p_operation"
               " public.audit_operation,"
               "p_row_key jsonb,p_new_key jsonb,p_old_values jsonb,p_new_values jsonb,p_changed_fields text[],"
               "p_changed_by text,p_db_role text,p_changed_at timestamptz,p_reason text,p_created_at timestamptz)"]
    pgspot = Path(os.sys.executable).with_name("pgspot")
    files = sorted(config.SCHEMA.glob("logic/[79]*/[79]*.sql"))
    done = subprocess.run(
        [pgspot, *(f"--ignore=PS0{n}" for n in ("01", "02", "15", "16", "17")),
         *(f"--proc-without-search-path={name}" for name in inlined), *map(str, files)],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("role", ["tidemark_writer"])
def test_writer_ingests_and_is_scored(tx, role):
    rows = Rows(tx)
    row = rows.row("quotes")
    tx.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    insert(tx, "quotes", row)
    insert(tx, "timeseries_data", {**rows.row("timeseries_data"), "close": None})
    tx.execute("UPDATE quotes SET price = -1")
    assert tx.execute("SELECT count(*) FROM quotes WHERE quality_score < 100").fetchone() == (1,)
    assert tx.execute("SELECT count(*) FROM quality_issues").fetchone()[0] >= 2
    tx.execute("DELETE FROM quotes")


def test_reader_reads_aggregates_and_nothing_personal(tx):
    rows = Rows(tx)
    insert(tx, "timeseries_data", rows.row("timeseries_data"))
    tx.execute("SET LOCAL ROLE tidemark_reader")
    for view in ("daily_ohlcv", "hourly_values", "candles_5m", "candles_1d", "coverage"):
        tx.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(view))).fetchall()
    assert tx.execute("SELECT count(*) FROM daily_ohlcv").fetchone() == (1,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        tx.execute("SELECT * FROM users")


def test_administrator_changes_rules_reviews_and_restores(tx):
    rows = Rows(tx)
    insert(tx, "quotes", rows.row("quotes"))
    tx.execute("SET LOCAL tidemark.reason = 'test'")
    rule = insert(tx, "validation_rules", rows.row("validation_rules"))[0]
    insert(tx, "anomalies", rows.row("anomalies"))
    tx.execute("SET LOCAL ROLE tidemark_admin")
    tx.execute("UPDATE validation_rules SET severity = 'info' WHERE rule_id = %s", [rule])
    tx.execute("UPDATE anomalies SET status = 'dismissed', reviewed_at = now()")
    tx.execute("DELETE FROM quotes")
    assert tx.execute("SELECT restore_archived('quotes')").fetchone() == (1,)
    assert tx.execute("SELECT * FROM verify_audit()").fetchall() == []
    tx.execute("SELECT * FROM row_history('validation_rules', jsonb_build_object('rule_id', %s::integer))", [rule])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        tx.execute("UPDATE anomalies SET z_score = 0")
