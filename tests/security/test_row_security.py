"""Each user of an application sees, changes and refers to his own rows, and there is no way around it."""

from __future__ import annotations

import contextlib
import uuid

import psycopg
import pytest
from conftest import _database
from psycopg import sql
from psycopg.types.json import Jsonb
from record.support import ARGON2ID, Rows, insert, key_of, names

OWNED = ("users", "watchlists", "watchlist_items", "alerts", "notifications", "positions", "trades", "predictions",
         "strategies", "strategy_rules", "learning_entries", "backtest_configs", "backtest_results")
RECORD = ("audit_log", "timeseries_archive")  # as much of it as its reader may read of the tables
NOBODY = ("", "not a uuid", "'; DROP TABLE users; --", "{}", "00000000")


@pytest.fixture(scope="module")
def shared(server, template):
    with _database(server, template) as database, database.connect() as connection:
        connection.execute("SET tidemark.reason = 'test'")
        alice, bob = Rows(connection), Rows(connection)
        for rows in (alice, bob):
            for table in OWNED:
                row = rows.row(table)
                if table == "learning_entries":
                    rule = insert(connection, "strategy_rules", rows.row("strategy_rules"))[0]
                    row |= {"strategy_rule_id": rule}
                insert(connection, table, row)
            alert = connection.execute("SELECT alert_id FROM alerts WHERE user_id = %s", [rows.user]).fetchone()[0]
            insert(connection, "notifications", {**rows.row("notifications"), "alert_id": alert})
        # What belongs to the house.
        insert(connection, "predictions", {**alice.row("predictions"), "user_id": None})
        house = insert(connection, "strategies", {"name": "house"})[0]
        insert(connection, "strategy_rules", {**alice.row("strategy_rules"), "strategy_id": house})
        insert(connection, "learning_entries", alice.row("learning_entries"))
        yield database, alice.user, bob.user


@pytest.fixture
def app(shared):
    """A connection of the application, on Bob's behalf; what it does is rolled back."""
    database, _, bob = shared
    with database.connect(autocommit=False) as connection:
        connection.execute("SET LOCAL ROLE tidemark_app")
        connection.execute("SELECT set_config('tidemark.user_id', %s, true)", [str(bob)])
        yield connection
        connection.rollback()


def keys(connection, table: str) -> set:
    """Primary keys of the rows that the connection sees."""
    return {key for (key,) in connection.execute(sql.SQL("SELECT {} FROM {}").format(
        sql.Identifier(key_of(connection, table)[0]), sql.Identifier(table)))}


MINE = {
    "watchlist_items": "SELECT item_id FROM watchlist_items JOIN watchlists USING (watchlist_id) WHERE user_id = %s",
    "strategy_rules": "SELECT rule_id FROM strategy_rules JOIN strategies USING (strategy_id) WHERE user_id = %s",
    "learning_entries": "SELECT entry_id FROM learning_entries JOIN strategy_rules ON rule_id = strategy_rule_id"
                        " JOIN strategies USING (strategy_id) WHERE user_id = %s",
    "backtest_configs": "SELECT config_id FROM backtest_configs JOIN strategies USING (strategy_id) WHERE user_id = %s",
    "backtest_results": "SELECT backtest_id FROM backtest_results JOIN backtest_configs USING (config_id)"
                        " JOIN strategies USING (strategy_id) WHERE user_id = %s",
}


@pytest.fixture(scope="module")
def alices(shared):
    """Primary keys of what is Alice's, by table, as nobody else may see it; found without the policies."""
    database, alice, _ = shared
    with database.connect() as connection:
        found = {}
        for table in OWNED:
            query = MINE.get(table)
            if query is None:
                key = key_of(connection, table)[0]
                query = sql.SQL("SELECT {} FROM {} WHERE user_id = %s").format(sql.Identifier(key),
                                                                               sql.Identifier(table))
            found[table] = {key for (key,) in connection.execute(query, [alice])}
            assert found[table], table
    return found


def test_each_user_sees_all_of_his_own_rows(shared, alices):
    database, alice, _ = shared
    with database.connect(autocommit=False) as connection:
        connection.execute("SET LOCAL ROLE tidemark_app")
        connection.execute("SELECT set_config('tidemark.user_id', %s, true)", [str(alice)])
        for table in OWNED:
            assert alices[table] <= keys(connection, table)


def test_tables_with_row_security_are_the_ones_tested_here(tx):
    found = tx.execute("SELECT relname::text FROM pg_class WHERE relrowsecurity ORDER BY relname").fetchall()
    assert {table for (table,) in found} == {*OWNED, *RECORD}
    # Whatever has a user's key is protected.
    assert tx.execute(
        "SELECT c.relname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attname = 'user_id'"
        " AND NOT c.relrowsecurity").fetchall() == []


@pytest.mark.parametrize("table", OWNED)
def test_rows_of_another_user_cannot_be_read_changed_or_deleted(app, alices, table):
    key = key_of(app, table)[0]
    parts = {"table": sql.Identifier(table), "key": sql.Identifier(key)}
    theirs = list(alices[table])
    for query in ("SELECT count(*) FROM {table} WHERE {key} = ANY (%s)",
                  "SELECT count(*) FROM (TABLE {table}) AS t WHERE {key} = ANY (%s)",
                  "SELECT count(*) FROM {table} AS t WHERE t::text = ANY (SELECT x::text FROM {table} AS x"
                  " WHERE x.{key} = ANY (%s))"):
        assert app.execute(sql.SQL(query).format(**parts), [theirs]).fetchone() == (0,)
    seen = keys(app, table)
    assert not seen & alices[table]
    [(plan,)] = app.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) SELECT FROM {table} WHERE {key} = ANY (%s)").format(
        **parts), [theirs])
    assert plan[0]["Plan"]["Actual Rows"] == 0
    with app.cursor().copy(sql.SQL("COPY (SELECT {key} FROM {table}) TO STDOUT").format(**parts)) as copy:
        assert not {str(key) for key in theirs} & {row[0] for row in copy.rows()}
    changeable = {"users": "full_name", "watchlist_items": "notes", "alerts": "message", "notifications": "message",
                  "positions": "quantity", "trades": "reasoning", "predictions": "model_version",
                  "learning_entries": "impact_type", "backtest_results": "trade_count"}.get(table, "name")
    assert app.execute(sql.SQL("UPDATE {table} SET {c} = {c} WHERE {key} = ANY (%s)").format(
        **parts, c=sql.Identifier(changeable)), [theirs]).rowcount == 0
    assert app.execute(sql.SQL("UPDATE {table} SET {c} = {c}").format(
        **parts, c=sql.Identifier(changeable))).rowcount <= len(seen)
    if table != "users":
        assert app.execute(sql.SQL("DELETE FROM {table} WHERE {key} = ANY (%s)").format(**parts),
                           [theirs]).rowcount == 0
    app.execute("SAVEPOINT before")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(sql.SQL("TRUNCATE {table} CASCADE").format(**parts))
    app.execute("ROLLBACK TO before")


def test_what_belongs_to_the_house_is_read_by_all_and_changed_by_none(app):
    for table, owner in (("predictions", "user_id"), ("strategies", "user_id"),
                         ("learning_entries", "strategy_rule_id")):
        parts = {"table": sql.Identifier(table), "owner": sql.Identifier(owner)}
        assert app.execute(sql.SQL("SELECT count(*) FROM {table}"
                                   " WHERE {owner} IS NULL").format(**parts)).fetchone() == (1,)
        assert app.execute(sql.SQL("UPDATE {table} SET created_at = now()"
                                   " WHERE {owner} IS NULL").format(**parts)).rowcount == 0
        assert app.execute(sql.SQL("DELETE FROM {table} WHERE {owner} IS NULL").format(**parts)).rowcount == 0


@pytest.mark.parametrize("table", OWNED)
@pytest.mark.parametrize("setting", NOBODY)
def test_without_a_user_there_are_no_rows(app, table, setting):
    app.execute("SELECT set_config('tidemark.user_id', %s, true)", [setting])
    assert keys(app, table) == set()
    app.execute("RESET tidemark.user_id")
    assert keys(app, table) == set()


@pytest.mark.parametrize("table", [table for table in OWNED if table != "users"])
def test_row_cannot_be_given_to_another_nor_made_for_him(shared, app, table):
    database, alice, _ = shared
    with database.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL tidemark.reason = 'test'")
        foreign = Rows(connection)
        row = foreign.row(table)
    with database.connect() as connection:
        mine_of_alice = {
            "user_id": alice,
            "watchlist_id": connection.execute("SELECT min(watchlist_id::text) FROM watchlists WHERE user_id = %s",
                                               [alice]).fetchone()[0],
            "strategy_id": connection.execute("SELECT min(strategy_id) FROM strategies WHERE user_id = %s",
                                              [alice]).fetchone()[0],
            "config_id": connection.execute(
                "SELECT min(config_id) FROM backtest_configs JOIN strategies USING (strategy_id) WHERE user_id = %s",
                [alice]).fetchone()[0],
            "strategy_rule_id": connection.execute(
                "SELECT min(rule_id::text) FROM strategy_rules JOIN strategies USING (strategy_id) WHERE user_id = %s",
                [alice]).fetchone()[0],
            "asset_id": connection.execute("SELECT min(asset_id::text) FROM assets").fetchone()[0],
        }
    if table == "learning_entries":
        row["strategy_rule_id"] = None
    owner = next(column for column in ("user_id", "watchlist_id", "strategy_id", "config_id", "strategy_rule_id")
                 if column in row)
    given = {column: mine_of_alice.get(column, value) for column, value in row.items()}
    app.execute("SAVEPOINT before")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table), names(given), sql.SQL(", ").join(map(sql.Literal, given.values()))))
    app.execute("ROLLBACK TO before")
    assert keys(app, table), "there is a row to give away"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(sql.SQL("UPDATE {} SET {} = {}").format(
            sql.Identifier(table), sql.Identifier(owner), sql.Literal(mine_of_alice[owner])))


def test_own_rows_can_be_made_and_changed(app, shared):
    """The accepted neighbour of everything that is refused above."""
    _, _, bob = shared
    asset = app.execute("SELECT asset_id FROM assets LIMIT 1").fetchone()[0]
    watchlist = insert(app, "watchlists", {"user_id": bob, "name": "mine"}, ["watchlist_id"])[0]
    insert(app, "watchlist_items", {"watchlist_id": watchlist, "asset_id": asset}, ["item_id"])
    alert = insert(app, "alerts", {"user_id": bob, "asset_id": asset, "condition": "above", "target_value": 1},
                   ["alert_id"])[0]
    insert(app, "notifications", {"user_id": bob, "notification_type": "alert", "message": "m", "alert_id": alert},
           ["notification_id"])
    strategy = insert(app, "strategies", {"user_id": bob, "name": "s"}, ["strategy_id"])[0]
    rule = insert(app, "strategy_rules", {"strategy_id": strategy, "name": "r", "entry_type": "e"}, ["rule_id"])[0]
    insert(app, "learning_entries", {"strategy_rule_id": rule, "insight": "i"}, ["entry_id"])
    insert(app, "trades", {"user_id": bob, "asset_id": asset, "trade_type": "buy", "quantity": 1,
                           "strategy_rule_id": rule}, ["trade_id"])
    assert app.execute("UPDATE users SET full_name = 'Bob'").rowcount == 1


@pytest.mark.parametrize(("table", "column", "owner_of"), [
    ("notifications", "alert_id", "SELECT alert_id FROM alerts WHERE user_id = %s"),
    ("trades", "strategy_rule_id",
     "SELECT rule_id FROM strategy_rules JOIN strategies USING (strategy_id) WHERE user_id = %s"),
    ("trades", "backtest_id",
     "SELECT backtest_id FROM backtest_results JOIN backtest_configs USING (config_id) JOIN strategies"
     " USING (strategy_id) WHERE user_id = %s"),
])
def test_reference_does_not_tell_whether_another_has_such_a_row(shared, app, table, column, owner_of):
    database, alice, bob = shared
    with database.connect() as connection:
        theirs = connection.execute(owner_of, [alice]).fetchone()[0]
        none = uuid.uuid4() if isinstance(theirs, uuid.UUID) else 10**9
        asset = connection.execute("SELECT asset_id FROM assets LIMIT 1").fetchone()[0]
    base = {"notifications": {"user_id": bob, "notification_type": "alert", "message": "m"},
            "trades": {"user_id": bob, "asset_id": asset, "trade_type": "buy", "quantity": 1, "is_backtest": True},
            }[table]
    answers = set()
    for reference in (theirs, none):
        app.execute("SAVEPOINT before")
        with pytest.raises(psycopg.Error) as refused:
            insert(app, table, {**base, column: reference}, ["created_at"])
        answers.add(refused.value.sqlstate)
        app.execute("ROLLBACK TO before")
    assert answers == {"42501"}


@pytest.mark.parametrize(("table", "column"), [
    ("alerts", "alert_id"), ("positions", "position_id"), ("users", "user_no")])
def test_number_of_a_row_cannot_be_chosen_to_see_whether_it_is_taken(app, shared, table, column):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(sql.SQL("INSERT INTO {} ({}) VALUES (1)").format(sql.Identifier(table), sql.Identifier(column)))


def test_application_cannot_make_its_user_an_administrator(app):
    app.execute("SAVEPOINT before")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("UPDATE users SET role = 'admin'")
    app.execute("ROLLBACK TO before")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("INSERT INTO users (user_id, username, email, role)"
                    " VALUES (_tidemark.current_user_id(), 'x', 'x@x', 'admin')")


def test_account_can_be_registered_and_found_for_login_but_not_by_who_is_logged_in(app, shared):
    app.execute("SELECT set_config('tidemark.user_id', %s, true)", [str(new := uuid.uuid4())])
    insert(app, "users", {"user_id": new, "username": "Carol", "email": "carol@example.org", "password_hash": ARGON2ID},
           ["user_id"])
    assert app.execute("SELECT * FROM find_login('carol')").fetchall() == []
    app.execute("SET LOCAL tidemark.user_id = ''")
    assert app.execute("SELECT * FROM find_login('CAROL')").fetchall() == [(new, ARGON2ID, True)]
    assert app.execute("SELECT * FROM find_login('Carol@example.org')").fetchall() == [(new, ARGON2ID, True)]
    assert app.execute("SELECT * FROM find_login('%')").fetchall() == []


def test_refused_password_is_not_repeated_to_the_application(app):
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        app.execute("UPDATE users SET password_hash = %s", ["correct horse"])
    assert "correct horse" not in f"{refused.value} {refused.value.diag.message_detail}"


def everything_said(error: psycopg.Error) -> str:
    return " ".join(filter(None, [str(error), error.diag.message_detail, error.diag.message_hint, error.diag.context]))


BAD_USERS = [
    ({"email": "nobody"}, "users_email_has_at_sign", "23514"), ({"username": " "}, "users_username_not_blank", "23514"),
    ({"email": None}, None, "23502"), ({"username": None}, None, "23502"), ({"password_hash": "T0PSECRET"},
                                                                     "users_password_hash_is_one", "23514"),
]


@pytest.mark.parametrize(("values", "constraint", "sqlstate"), BAD_USERS)
@pytest.mark.parametrize("owner", ["superuser", "tidemark_owner"])
def test_failed_constraint_on_users_shows_no_hash_to_anybody(tx, owner, values, constraint, sqlstate):
    """Nor to the log, which gets the same error."""
    secret = ARGON2ID.rpartition("$")[0][-11:]
    row = {"username": "u", "email": "u@example.org", "password_hash": ARGON2ID}
    insert(tx, "users", row | {"username": "v", "email": "v@example.org"})
    if owner != "superuser":
        tx.execute("SET LOCAL ROLE tidemark_owner")
    column, value = next(iter(values.items()))
    for attempt in (lambda: insert(tx, "users", row | values), lambda: tx.execute(
            sql.SQL("UPDATE users SET {} = %s WHERE username = 'v'").format(sql.Identifier(column)), [value])):
        with pytest.raises(psycopg.Error) as refused, tx.transaction():
            attempt()
        assert refused.value.sqlstate == sqlstate
        assert refused.value.diag.constraint_name == constraint
        assert refused.value.diag.table_name == "users"
        assert secret not in everything_said(refused.value)
        assert "T0PSECRET" not in everything_said(refused.value)


@pytest.mark.parametrize(("verbosity", "kept"), [("default", True), ("terse", False)])
def test_log_of_a_failed_copy_holds_its_line_unless_it_is_terse(tx, verbosity, kept):
    """What README says of the two errors that are the server's own."""
    secret = uuid.uuid4().hex
    tx.execute(sql.SQL("SET LOCAL log_error_verbosity = {}").format(verbosity))
    tx.execute("CREATE UNIQUE INDEX ON users (password_hash)")
    one = {"username": "u", "email": "u@example.org", "password_hash": ARGON2ID.rpartition("$")[0] + "$" + secret}
    insert(tx, "users", one)
    for statement, lines in (("COPY users (username, email, password_hash) FROM STDIN", f"v\tnobody\t{secret}\n"),
                             ("COPY users (username, email, password_hash) FROM STDIN",
                              f"v\tv@example.org\t{one['password_hash']}\n")):
        with pytest.raises(psycopg.errors.IntegrityError), tx.transaction(), tx.cursor().copy(statement) as copy:
            copy.write(lines)
    (log,) = tx.execute("SELECT pg_read_file('server.log', 0, 100000000, true)").fetchone()
    if log is None:
        pytest.skip("the log of a server that is given is not here")
    assert (secret in log) is kept


def test_so_it_is_with_any_table_of_secrets_on_record(tx):
    tx.execute("CREATE TABLE vault (id integer PRIMARY KEY, n integer NOT NULL, d integer GENERATED ALWAYS AS (n * 2)"
               " STORED, api_key text, pin text, CONSTRAINT n_positive CHECK (n > 0),"
               " CONSTRAINT d_small CHECK (d < 100)); SELECT attach_audit('vault', p_secrets => '{pin}')")
    for n, constraint in ((-1, "n_positive"), (None, None)):
        with pytest.raises(psycopg.Error) as refused, tx.transaction():
            tx.execute("INSERT INTO vault (id, n, api_key, pin) VALUES (1, %s, 'T0PSECRET', 'T0PSECRET')", [n])
        assert refused.value.diag.constraint_name == constraint
        assert "T0PSECRET" not in everything_said(refused.value)
    tx.execute("INSERT INTO vault (id, n) VALUES (1, 1)")
    with pytest.raises(psycopg.errors.CheckViolation), tx.transaction():
        tx.execute("UPDATE vault SET n = 60")
    tx.execute("SELECT detach_audit('vault')")
    assert tx.execute("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'vault'::regclass").fetchone() == (0,)


@pytest.mark.parametrize("role", ["tidemark_reader", "tidemark_writer", "tidemark_admin"])
def test_other_roles_see_no_users_rows(shared, role):
    database, alice, _ = shared
    with database.connect(autocommit=False) as connection:
        accounts = connection.execute("SELECT count(*) FROM users").fetchone()[0]
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        connection.execute("SELECT set_config('tidemark.user_id', %s, true)", [str(alice)])
        for table in OWNED:
            connection.execute("SAVEPOINT before")
            try:
                count = connection.execute(
                    sql.SQL("SELECT count(*) FROM {} AS t").format(sql.Identifier(table))).fetchone()[0]
            except psycopg.errors.InsufficientPrivilege:
                count = 0
            connection.execute("ROLLBACK TO before")
            if (role, table) == ("tidemark_admin", "users"):
                assert count == accounts
            elif (role, table) == ("tidemark_writer", "predictions"):
                # Predictions of the house; and those of the one user that this session names.
                assert count == 2
            else:
                assert count == 0, table
        if role == "tidemark_admin":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT password_hash FROM users")


READABLE = """
    SELECT c.oid::regclass::text
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm') AND has_any_column_privilege(c.oid, 'SELECT')
       AND (n.nspname = 'public' OR n.nspname = ANY (_tidemark.own_schemas()))
"""


@pytest.mark.parametrize("role", ["tidemark_admin", "tidemark_reader", "tidemark_writer"])
def test_other_roles_read_nothing_personal_wherever_it_leaves_a_trace(tx, role):
    """Tables, views, the record, the archive, a row's history: after rows were made, changed and deleted."""
    rows, rowkeys = Rows(tx), {}
    marked = {
        "watchlists": "description", "watchlist_items": "notes", "alerts": "message", "notifications": "message",
        "trades": "reasoning", "predictions": "model_version", "strategies": "description",
        "strategy_rules": "source_ref", "learning_entries": "insight", "backtest_configs": "name",
    }
    for table, column in marked.items():
        for is_deleted in (False, True):
            key = insert(tx, table, rows.row(table) | {column: "MY-SECRET"})[0]
            name = tx.execute(
                "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
                " WHERE indrelid = %s::regclass AND indisprimary", [table]).fetchone()[0]
            change = sql.SQL("UPDATE {} SET {} = 'MY-SECRET 2' WHERE {} = %s").format(
                *map(sql.Identifier, (table, column, name)))
            tx.execute(change, [key])
            if is_deleted:
                tx.execute(sql.SQL("DELETE FROM {} WHERE {} = %s").format(*map(sql.Identifier, (table, name))), [key])
            rowkeys[table, is_deleted] = Jsonb({name: str(key) if isinstance(key, uuid.UUID) else key})
    tx.execute("""
        CREATE TABLE private (id integer PRIMARY KEY, note text);
        SELECT attach_audit('private');
        INSERT INTO private VALUES (1, 'MY-SECRET');
        CREATE TABLE private_series (ts timestamptz PRIMARY KEY, note text);
        SELECT create_hypertable('private_series', by_range('ts')), attach_audit('private_series');
        INSERT INTO private_series VALUES (now(), 'MY-SECRET');
        DELETE FROM private_series
    """)
    assert tx.execute("SELECT count(*) FROM audit_log AS l WHERE l::text ~ 'MY-SECRET'").fetchone()[0] > 30
    tx.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    for (relation,) in tx.execute(READABLE).fetchall():
        columns = tx.execute(
            "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = %s::regclass"
            " AND attnum > 0 AND NOT attisdropped AND has_column_privilege(attrelid, attnum, 'SELECT')", [relation]
        ).fetchone()[0]
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege), tx.transaction():
            found = tx.execute(f"SELECT {columns} FROM {relation}").fetchall()
            assert "MY-SECRET" not in str(found), relation
    if role == "tidemark_admin":
        for table in marked:
            for is_deleted in (False, True):
                key = rowkeys[table, is_deleted]
                assert tx.execute("SELECT * FROM row_history(%s, %s)", [table, key]).fetchall() == [], table
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege), tx.transaction():
                    found = tx.execute("SELECT row_as_of(%s, %s, now())", [table, key]).fetchall()
                    assert found == [(None,)], table
        assert tx.execute("SELECT count(*) > 3 FROM audit_log").fetchone() == (True,), "accounts, assets and the like"


VIEWS = """
    WITH RECURSIVE protected AS (
        SELECT c.oid FROM pg_class AS c WHERE c.relrowsecurity
        UNION
        SELECT w.ev_class FROM protected AS p
          JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = p.oid AND d.classid =
            'pg_rewrite'::regclass
          JOIN pg_rewrite AS w ON w.oid = d.objid
    )
    SELECT c.oid::regclass::text, coalesce(c.reloptions, '{}') @> '{security_invoker=true}'
      FROM protected AS p JOIN pg_class AS c USING (oid) WHERE c.relkind = 'v' ORDER BY 1
"""


def test_each_view_over_protected_tables_runs_as_who_reads_it(tx):
    found = tx.execute(VIEWS).fetchall()
    assert found
    assert [view for view, is_invoker in found if not is_invoker] == []


def test_views_show_no_other_users_rows(shared, app, alices):
    secret = {str(key) for table in OWNED for key in alices[table] if isinstance(key, uuid.UUID)}
    secret.add(str(shared[1]))
    for view, _ in app.execute(VIEWS).fetchall():
        app.execute("SAVEPOINT before")
        try:
            text = "".join(row[0] for row in app.execute(f"SELECT v::text FROM {view} AS v"))
        except psycopg.errors.InsufficientPrivilege:
            text = ""
        app.execute("ROLLBACK TO before")
        assert not [key for key in secret if key in text], view


FUNCTIONS = """
    SELECT p.oid::regprocedure::text, p.proargtypes::regtype[]::text[] FROM pg_proc AS p
     WHERE p.pronamespace IN ('public'::regnamespace, '_tidemark'::regnamespace) AND p.prokind = 'f' AND p.prosecdef
       AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
       AND has_function_privilege('tidemark_app', p.oid, 'EXECUTE')
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.deptype = 'e')
"""


def test_functions_that_run_as_their_owner_tell_an_application_nothing_of_others(shared, app, alices):
    """Called with every kind of argument that could mean another user's rows."""
    secret = {str(key) for table in OWNED for key in alices[table] if isinstance(key, uuid.UUID)} | {ARGON2ID}
    names_of = ["user1", "user2", str(shared[1])]
    with shared[0].connect() as connection:
        names_of += [name for row in connection.execute("SELECT username, email FROM users") for name in row]
    values = {"text": names_of, "uuid": [str(shared[1])], "jsonb": ["{}"], "regclass": ["users", "positions"],
              "text[]": ["{}"], "interval": ["1 day"], "integer": ["1"], "bigint": ["1"], "name": ["users"],
              "timestamp with time zone": ["2024-01-01"], "date": ["2024-01-01"], "double precision": ["1"],
              "boolean": ["t"],
              "bytea": [""]}
    called = 0
    for function, types in app.execute(FUNCTIONS).fetchall():
        for n in range(max([len(values.get(kind, [])) for kind in types] or [1])):
            arguments = [values[kind][n % len(values[kind])] if kind in values else None for kind in types]
            name = function.split("(")[0]
            call = f"SELECT t::text FROM {name}({', '.join('%s::' + kind for kind in types)}) AS t"
            app.execute("SAVEPOINT before")
            try:
                text = "".join(str(row[0]) for row in app.execute(call, arguments))
            except psycopg.Error as refused:
                text = str(refused)
            app.execute("ROLLBACK TO before")
            called += 1
            assert not [key for key in secret if key in text and key not in arguments], call
    assert called > 2


PERSONAL_CHUNKS = """
    SELECT format('%I.%I', k.chunk_schema, k.chunk_name), r.rolname
      FROM timescaledb_information.chunks AS k
      JOIN pg_attribute AS a ON a.attrelid = format('%I.%I', k.hypertable_schema, k.hypertable_name)::regclass
                            AND a.attname = 'user_id' AND NOT a.attisdropped
     CROSS JOIN pg_roles AS r
     WHERE r.rolname IN ('tidemark_app', 'tidemark_reader', 'tidemark_writer', 'tidemark_admin')
       AND has_table_privilege(r.oid, format('%I.%I', k.chunk_schema, k.chunk_name)::regclass, 'SELECT')
"""


def test_no_role_reads_the_chunks_of_a_hypertable_with_users_rows(tx):
    """There is no such hypertable, and a policy on one would not protect its chunks; this would find it."""
    rows = Rows(tx)
    insert(tx, "quotes", rows.row("quotes"))
    assert tx.execute("SELECT count(*) FROM timescaledb_information.chunks").fetchone()[0] > 0
    assert tx.execute(PERSONAL_CHUNKS).fetchall() == []
    assert tx.execute(
        "SELECT c.relname FROM timescaledb_information.hypertables AS h JOIN pg_class AS c"
        " ON c.oid = format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass WHERE c.relrowsecurity"
    ).fetchall() == []
    tx.execute("CREATE TABLE personal (user_id uuid, ts timestamptz NOT NULL)")
    tx.execute("SELECT create_hypertable('personal', by_range('ts'))")
    tx.execute("INSERT INTO personal VALUES (gen_random_uuid(), now())")
    assert tx.execute(PERSONAL_CHUNKS).fetchall() == []
    tx.execute("GRANT SELECT ON personal TO tidemark_app")
    assert [role for _, role in tx.execute(PERSONAL_CHUNKS)] == ["tidemark_app"], "the question finds what it looks for"


@pytest.fixture(scope="module")
def million(server, template):
    """Tables large enough that the planner has to use what the policies offer."""
    with _database(server, template) as database, database.connect() as connection:
        connection.execute("SET synchronous_commit = off")
        rows = Rows(connection)
        connection.execute("SET session_replication_role = replica")
        for table in ("alerts", "notifications", "positions", "trades", "predictions", "watchlists", "watchlist_items",
                      "strategies", "strategy_rules"):
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(table)))
        connection.execute("INSERT INTO users (user_id, username, email)"
                           " SELECT lpad(i::text, 32, '0')::uuid, 'm' || i, i || '@example.org'"
                           " FROM generate_series(1, 5000) AS i")
        connection.execute("CREATE TEMP TABLE s AS SELECT i, lpad((i % 200 + 1)::text, 32, '0')::uuid AS user_id"
                           " FROM generate_series(1, 20000) AS i")
        for statement in (
            "INSERT INTO alerts (user_id, asset_id, condition, target_value) SELECT user_id, %(asset)s, 'above', i"
            " FROM s",
            "INSERT INTO notifications (user_id, notification_type, message) SELECT user_id, 'system', 'm' FROM s",
            "INSERT INTO positions (user_id, asset_id, side, entry_price, quantity)"
            " SELECT user_id, %(asset)s, 'long', 1, i FROM s",
            "INSERT INTO trades (user_id, asset_id, trade_type, quantity) SELECT user_id, %(asset)s, 'buy', i FROM s",
            "INSERT INTO predictions (user_id, asset_id, model_type, current_price, predicted_price, direction,"
            " confidence, interval, horizon_hours, prediction_for)"
            " SELECT user_id, %(asset)s, 'lstm', 1, 1, 'buy', 1, '1d', 1, now() FROM s",
            "INSERT INTO watchlists (user_id, name) SELECT user_id, i::text FROM s",
            "INSERT INTO watchlist_items (watchlist_id, asset_id) SELECT watchlist_id, %(asset)s FROM watchlists",
            "INSERT INTO strategies (user_id, name) SELECT user_id, 's' FROM s",
            "INSERT INTO strategy_rules (strategy_id, name, entry_type) SELECT strategy_id, 'r', 'e' FROM strategies",
        ):
            connection.execute(statement, {"asset": rows.asset})
        connection.execute("VACUUM ANALYZE")
        yield database


@pytest.mark.parametrize("table", ["users", "alerts", "notifications", "positions", "trades", "predictions",
                                   "watchlists",
                                   "watchlist_items", "strategies", "strategy_rules"])
def test_policy_is_evaluated_once_and_uses_an_index(million, table):
    with million.connect(autocommit=False) as connection:
        connection.execute("SET LOCAL ROLE tidemark_app")
        connection.execute("SET LOCAL tidemark.user_id = '00000000-0000-0000-0000-000000000007'")
        [(plan,)] = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON, VERBOSE) SELECT *"
                                               " FROM {}").format(sql.Identifier(table)))

        def nodes(node):
            yield node
            for child in node.get("Plans", []):
                yield from nodes(child)

        found = list(nodes(plan[0]["Plan"]))
        assert [node for node in found if node.get("Parent Relationship") == "InitPlan"], "evaluated once"
        for node in found:
            assert "current_user_id()" not in str(node.get("Filter", "")) + str(node.get("Index Cond", "")), "per row"
        scans = [node for node in found if node.get("Relation Name") == table]
        assert scans
        if table != "strategy_rules":  # what belongs to the house is found by a list of strategies
            assert all("Index" in node["Node Type"] or "Bitmap" in node["Node Type"] for node in scans), scans
