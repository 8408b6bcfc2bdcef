"""Nobody but a superuser who means it takes anything off the record."""

from __future__ import annotations

import itertools

import psycopg
import pytest
from conftest import _database
from psycopg import sql
from record.support import RECORD, Rows, insert

ROLES = ("tidemark_admin", "tidemark_writer", "tidemark_app", "tidemark_reader", "tidemark_owner",
         "tidemark_trespasser")
ATTEMPTS = {
    "insert": "INSERT INTO {table} (created_at) SELECT created_at FROM {table} LIMIT 1",
    "update": "UPDATE {table} SET created_at = now()",
    "delete": "DELETE FROM {table}",
    "truncate": "TRUNCATE {table}",
    "drop": "DROP TABLE {table} CASCADE",
    "alter": "ALTER TABLE {table} ADD COLUMN forged text",
    "own": "ALTER TABLE {table} OWNER TO CURRENT_USER",
    "disable trigger": "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "drop trigger": "DROP TRIGGER trg_refuse_change ON {table}",
    "replace trigger": "CREATE OR REPLACE TRIGGER trg_refuse_change BEFORE"
                       " INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION _tidemark.refuse_record_change()",
    "rule": "CREATE RULE forged AS ON INSERT TO {table} DO INSTEAD NOTHING",
    "replica": "SET LOCAL session_replication_role = replica; DELETE FROM {table}",
    "maintenance": "SET LOCAL tidemark.record_maintenance = 'on'; DELETE FROM {table}",
    "become": "SET LOCAL ROLE tidemark_record; DELETE FROM {table}",
    "drop guard": "DROP FUNCTION _tidemark.refuse_record_change() CASCADE",
    "replace guard": "CREATE OR REPLACE FUNCTION _tidemark.audit_statement() RETURNS trigger LANGUAGE plpgsql AS"
                     " 'BEGIN RETURN NULL; END'",
    "make hypertable": "SELECT create_hypertable('{table}', 'created_at', migrate_data => true)",
    "write as trigger": "CREATE TEMP TABLE mine (id integer); CREATE TRIGGER forged AFTER INSERT"
                        " ON mine REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION"
                        " _tidemark.audit_statement('users', '{{id}}', '{{}}', '{{}}', '', '')",
    "snapshot": "SELECT _tidemark.record_snapshot('users')",
    "chunk drop": "SELECT _tidemark.record_chunk_drop('quotes', 'quotes', now(), now(), 0, '')",
    "seal sequence": "SELECT setval('audit_log_audit_id_seq', 1)",
}
# What the owner of everything else may do: write the record as the triggers of tables that he attaches do.
OWNERS = {"write as trigger", "snapshot", "chunk drop"}


@pytest.fixture(scope="module")
def recorded(server, template):
    """A database with something on record, sealed; shared, since nothing here may change it."""
    with _database(server, template) as database, database.connect() as connection:
        rows = Rows(connection)
        for _ in range(3):
            insert(connection, "quotes", rows.row("quotes"))
        connection.execute("DELETE FROM quotes WHERE ts = (SELECT min(ts) FROM quotes)")
        connection.execute("SELECT seal_audit()")
        connection.execute("DO $$ BEGIN CREATE ROLE tidemark_trespasser; EXCEPTION WHEN duplicate_object THEN NULL;"
                           " END $$")
        yield database
        connection.execute("DROP OWNED BY tidemark_trespasser; DROP ROLE tidemark_trespasser")


def fingerprint(connection) -> list:
    query = sql.SQL("SELECT count(*), md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} AS t")
    return [connection.execute(query.format(sql.Identifier(table))).fetchone() for table in RECORD]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_every_attempt_on_the_record_is_refused(recorded, attempt):
    with recorded.connect(autocommit=False) as connection:
        before = fingerprint(connection)
        for role, table in itertools.product(ROLES, RECORD):
            connection.execute(sql.SQL("SAVEPOINT before; SET LOCAL ROLE {}").format(sql.Identifier(role)))
            statement = ATTEMPTS[attempt].format(table=table)
            if role == "tidemark_owner" and attempt in OWNERS:
                connection.execute(statement)
            elif attempt == "insert" and role == "tidemark_admin":
                # Administration reads the record; writing to it is refused all the same.
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
            else:
                with pytest.raises(psycopg.Error) as refused:
                    connection.execute(statement)
                assert refused.value.sqlstate in ("42501", "TM403", "TM407"), str(refused.value)
            connection.execute("ROLLBACK TO before")
        assert fingerprint(connection) == before
        assert connection.execute("SELECT * FROM verify_audit()").fetchall() == []


def test_no_role_drops_chunks_by_the_back_door(recorded):
    """Functions that TimescaleDB keeps for itself, with any chunk there is."""
    with recorded.connect(autocommit=False) as connection:
        chunks = [chunk for (chunk,) in connection.execute(
            "SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks")]
        assert chunks
        for chunk, role in itertools.product(chunks, ROLES):
            for statement in ("SELECT _timescaledb_functions.drop_chunk(%s::regclass)",
                              "SELECT _timescaledb_functions.freeze_chunk(%s::regclass)",
                              "SELECT _timescaledb_functions.unfreeze_chunk(%s::regclass)"):
                connection.execute(sql.SQL("SAVEPOINT before; SET LOCAL ROLE {}").format(sql.Identifier(role)))
                if role == "tidemark_owner":  # whose chunks they are
                    assert connection.execute(
                        "SELECT relowner = %s::regrole FROM pg_class WHERE oid = %s::regclass", [role, chunk]
                    ).fetchone() == (True,)
                else:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement, [chunk])
                connection.execute("ROLLBACK TO before")
            for statement in ("TRUNCATE {}", "DROP TABLE {}", "DELETE FROM {}"):
                if role in ("tidemark_owner", "tidemark_admin", "tidemark_writer"):
                    continue
                connection.execute(sql.SQL("SAVEPOINT before; SET LOCAL ROLE {}").format(sql.Identifier(role)))
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.format(chunk))
                connection.execute("ROLLBACK TO before")
        assert connection.execute("SELECT count(*) FROM quotes").fetchone() == (2,)


@pytest.mark.parametrize("attempt", ["update", "delete", "truncate", "replica", "drop", "alter", "disable trigger",
                                     "drop trigger", "rule", "drop guard"])
def test_superuser_is_stopped_until_he_says_that_he_means_it(recorded, attempt):
    with recorded.connect(autocommit=False) as connection:
        for table in RECORD:
            connection.execute("SAVEPOINT before")
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(ATTEMPTS[attempt].format(table=table))
            assert refused.value.sqlstate in ("TM403", "TM407")
            connection.execute("ROLLBACK TO before")
            if attempt in ("alter", "disable trigger"):
                connection.execute("SET LOCAL tidemark.record_maintenance = 'on'")
                connection.execute(ATTEMPTS[attempt].format(table=table))
                connection.execute("ROLLBACK TO before")


def test_record_is_made_of_plain_tables_that_nobody_who_logs_in_owns(tx):
    assert tx.execute(
        "SELECT c.relname FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner WHERE c.relname = ANY (%s)"
        " AND c.relnamespace = 'public'::regnamespace AND r.rolname = 'tidemark_record' AND NOT r.rolcanlogin"
        " AND c.relname NOT IN (SELECT hypertable_name FROM timescaledb_information.hypertables)", [list(RECORD)]
    ).rowcount == len(RECORD)
    assert tx.execute("SELECT count(*) FROM pg_auth_members"
                      " WHERE roleid = 'tidemark_record'::regrole").fetchone() == (0,)


def test_archived_row_is_marked_as_restored_once_and_not_changed(tx):
    rows = Rows(tx)
    insert(tx, "quotes", rows.row("quotes"))
    tx.execute("DELETE FROM quotes")
    for change in ("restored_at = now(), reason = 'x'", "row = '{}'", "deleted_by = 'x'"):
        tx.execute("SAVEPOINT before")
        with pytest.raises(psycopg.Error) as refused:
            tx.execute(f"UPDATE timeseries_archive SET {change}")
        assert refused.value.sqlstate == "TM403"
        tx.execute("ROLLBACK TO before")
    tx.execute("UPDATE timeseries_archive SET restored_at = clock_timestamp()")
    with pytest.raises(psycopg.Error) as refused:
        tx.execute("UPDATE timeseries_archive SET restored_at = NULL")
    assert refused.value.sqlstate == "TM403"
