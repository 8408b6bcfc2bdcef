"""Each change of each audited row leaves exactly one entry, which says what changed, by whom and why."""

from __future__ import annotations

import random

import psycopg
import pytest
from psycopg import sql
from record.support import (
    ARGON2ID,
    AUDITED,
    CHANGE,
    HYPERTABLES,
    NOT_AUDITED,
    REASON_DEMANDED,
    UNRECORDED_INSERTS,
    Log,
    Rows,
    insert,
    key_of,
    literals,
    names,
)

PLAIN = [table for table in AUDITED if table not in HYPERTABLES]


@pytest.fixture
def rows(tx):
    tx.execute("SET LOCAL tidemark.reason = 'test'")
    return Rows(tx)


def test_each_table_is_audited_or_named_as_one_that_is_not(tx):
    found = tx.execute(
        "SELECT relname::text, _tidemark.audit_arguments(oid) IS NOT NULL FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT EXISTS (SELECT"
        " FROM pg_depend AS d WHERE d.objid = pg_class.oid AND d.deptype = 'e')").fetchall()
    assert {table for table, is_audited in found if is_audited} == set(AUDITED)
    assert {table for table, is_audited in found if not is_audited} == set(NOT_AUDITED)


@pytest.mark.parametrize("table", ["assets", "quotes"])
def test_column_that_comes_later_is_watched_too(tx, rows, table):
    insert(tx, table, rows.row(table))
    tx.execute(sql.SQL("ALTER TABLE {} ADD COLUMN later numeric").format(sql.Identifier(table)))
    log = Log(tx, table)
    tx.execute(sql.SQL("UPDATE {} SET later = 1.00").format(sql.Identifier(table)))
    assert {tuple(changed) for (changed,) in log.entries("changed_fields")} == {("later",)}


@pytest.mark.parametrize("table", AUDITED)
def test_each_way_to_change_a_row_leaves_one_entry(tx, rows, table):
    inserted = [] if table in UNRECORDED_INSERTS else ["insert"]
    column, value, other = CHANGE[table]
    key = key_of(tx, table)
    made = [rows.row(table) for _ in range(4)]
    parts = {"table": sql.Identifier(table), "column": sql.Identifier(column), "value": sql.Literal(value),
             "other": sql.Literal(other), "key": names(key)}
    log = Log(tx, table)

    found = insert(tx, table, made[0], key)
    insert(tx, table, made[1])
    assert log.operations() == inserted * 2
    with tx.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names(made[2]))) as copy:
        copy.write_row(list(made[2].values()))
    assert log.operations() == inserted

    parts["where"] = sql.SQL("({}) = ({})").format(names(key), literals(found))
    change = sql.SQL("UPDATE {table} SET {column} = {value} WHERE {where}").format(**parts)
    assert tx.execute(change).rowcount == 1
    [(operation, changed, old, new, row_key)] = log.entries(
        "operation", "changed_fields", "old_values", "new_values", "row_key")
    computed = {"pnl", "pnl_percent"} & set(changed)
    assert (operation, set(changed) - computed) == ("update", {column})
    spelled = {name for name in new if name.startswith("app_")}  # the same once more, as an application spells it
    assert set(old) == set(new) == set(changed) | ({"updated_at"} & set(new)) | spelled
    assert set(row_key) == set(key)
    tx.execute(change)
    assert log.operations() == [], "an update that changes nothing is no change"

    upsert = sql.SQL("INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE"
                     " SET {column} = {other}")
    again = {**made[0], **dict(zip(key, found, strict=True))}
    tx.execute(upsert.format(**parts, columns=names(again), values=literals(again.values())))
    assert log.operations() == ["update"], "an upsert of a row that is there is an update and no insert"
    tx.execute(upsert.format(**parts, columns=names(made[3]), values=literals(made[3].values())))
    assert log.operations() == inserted

    if table not in HYPERTABLES:  # TimescaleDB has no MERGE for compressed ones
        fifth = rows.row(table)
        log.clear()
        tx.execute(sql.SQL(
            "MERGE INTO {table} AS t USING (VALUES (1), (2)) AS s (n) ON s.n = 1 AND {where} WHEN MATCHED THEN"
            " UPDATE SET {column} = {value} WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"
        ).format(**parts, columns=names(fifth), values=literals(fifth.values())))
        assert sorted(log.operations()) == sorted([*inserted, "update"])

    tx.execute(sql.SQL("DELETE FROM {table} WHERE {where}").format(**parts))
    [(operation, old, new)] = log.entries("operation", "old_values", "new_values")
    assert (operation, new) == ("delete", None)
    assert set(old) == {name for (name,) in tx.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped", [table])}


def test_one_statement_over_many_rows_leaves_one_entry_for_each(tx, rows):
    log = Log(tx, "assets")
    tx.execute("INSERT INTO assets (symbol, asset_type) SELECT 'MANY' || i, 'stock' FROM generate_series(1, 3000) AS i")
    assert log.operations() == ["insert"] * 3000
    # Two thousand rows change, each its own way; a thousand do not.
    tx.execute("UPDATE assets SET name = CASE WHEN right(symbol, 1) < '5' THEN symbol END, sector ="
               " CASE WHEN right(symbol, 1) IN ('1', '7', '8') THEN 'x' END WHERE symbol LIKE 'MANY%'")
    entries = log.entries("operation", "changed_fields", "row_key", "old_values", "new_values")
    assert len(entries) == 3000 * 7 // 10
    expected = {"1": ["name", "sector"], "7": ["sector"], "8": ["sector"]}
    for _, changed, key, old, new in entries:
        symbol, name, sector = tx.execute(
            "SELECT symbol, name, sector FROM assets WHERE asset_id = %s", [key["asset_id"]]).fetchone()
        assert sorted(changed) == expected.get(symbol[-1], ["name"])
        now = {"name": name, "sector": sector}
        assert {k: v for k, v in new.items() if k != "updated_at"} == {k: now[k] for k in changed}
        assert {k: v for k, v in old.items() if k != "updated_at"} == dict.fromkeys(changed)
    tx.execute("DELETE FROM assets WHERE symbol LIKE 'MANY%'")
    assert log.operations() == ["delete"] * 3000


def test_both_ways_to_compare_give_the_same_entries(tx, rows):
    """Above a thousand rows columns are compared in their types, below as JSON."""
    tx.execute("CREATE TABLE ways (id integer PRIMARY KEY, n numeric, f double precision, t text, a numeric[],"
               " j jsonb, b bytea, at timestamptz, d date, i interval, e public.asset_type,"
               " g numeric GENERATED ALWAYS AS (n * 2) STORED, password_hash text, long text)")
    tx.execute("SELECT attach_audit('ways')")
    seed = random.Random(7)
    values = {
        "n": ["1.0", "1.00", "NaN", None, "-0.5"], "f": ["NaN", "Infinity", "1e300", None, "0.1"],
        "t": ["", None, "a", "A", "ä"], "a": ["{1.0,2}", "{2,1.0}", "{1.00,2}", None, "{}"],
        "j": ['{"a": 1.0}', '{"a": 1.00}', '{"a": [1, 2]}', '{"a": [2, 1]}', None],
        "b": ["\\x00", "\\xff", None, "", "x"],
        "at": ["infinity", "2024-01-01 00:00:00.000001+00", None, "-infinity", "2024-01-01+00"],
        "d": ["infinity", "2024-02-29", None], "i": ["1 mon", "30 days", "-00:00:01", None],
        "e": ["stock", "etf", None], "password_hash": ["p1", "p2", None], "long": ["x" * 50_000, "y" * 50_000, None],
    }

    def change(low: int, high: int) -> None:
        for column, choices in values.items():
            case = " ".join(f"WHEN {i} THEN {sql.Literal(choice).as_string(tx)}" for i,
                            choice in enumerate(picks[column]))
            kind = tx.execute("SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
                              " WHERE attrelid = 'ways'::regclass AND attname = %s", [column]).fetchone()[0]
            assignments.append(f"{column} = (CASE id % 1100 {case} END)::{kind}")
            assert choices
        tx.execute(f"UPDATE ways SET {', '.join(assignments)} WHERE id >= {low} AND id < {high}")
        assignments.clear()

    assignments: list[str] = []
    rows_of = {}
    for start in (0, 1100):
        tx.execute(f"INSERT INTO ways (id) SELECT generate_series({start}, {start + 1099})")
    for _ in range(2):
        picks = {column: [seed.choice(choices) for _ in range(60)] for column, choices in values.items()}
        log = Log(tx, "ways")
        change(0, 1100)
        rows_of["typed"] = log.entries("row_key", "old_values", "new_values", "changed_fields")
        change(1100, 1160)
        rows_of["json"] = log.entries("row_key", "old_values", "new_values", "changed_fields")
        as_text = {
            way: {key["id"] % 1100: (repr(old), repr(new), changed) for key, old, new, changed in entries}
            for way, entries in rows_of.items()
        }
        assert as_text["typed"] == as_text["json"]
        assert len(as_text["json"]) > 50


@pytest.mark.parametrize(("table", "column"), [("candles", "close"), ("mine", "score")])
def test_no_setting_hides_a_change(tx, add, table, column):
    """A tenth more is a change, though with few digits both look the same."""
    tx.execute("CREATE TABLE mine (id integer PRIMARY KEY, score double precision);"
               " SELECT attach_audit('mine'); INSERT INTO mine VALUES (1, 100)")
    add("candles", asset_id=add("assets"), interval="1h", ts="2024-01-01", close=100)
    log = Log(tx, table)
    tx.execute("SET LOCAL extra_float_digits = -15")
    tx.execute(f"UPDATE {table} SET {column} = 104")
    assert log.entries("operation", "old_values", "new_values") == [("update", {column: 100}, {column: 104})]


def test_types_come_back_as_they_were(tx, rows):
    """What is on record turns into the same row again: NaN, infinity, scale, order, nesting, length, bytes."""
    tx.execute("CREATE TABLE kinds (id integer PRIMARY KEY, n numeric, f double precision, at timestamptz, d date,"
               " a text[], j jsonb, t text, long text, b bytea, g numeric GENERATED ALWAYS AS (n * 2) STORED,"
               " i interval, r tstzrange)")
    tx.execute("SELECT attach_audit('kinds')")
    log = Log(tx, "kinds")
    odd = ("SET LOCAL timezone = 'America/New_York'; SET LOCAL datestyle = 'SQL, DMY';"
           " SET LOCAL extra_float_digits = 0; SET LOCAL bytea_output = 'escape'; SET LOCAL intervalstyle = 'iso_8601'")
    usual = ("SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, MDY'; SET LOCAL extra_float_digits = 1;"
             " SET LOCAL bytea_output = 'hex'; SET LOCAL intervalstyle = 'postgres'")
    tx.execute(odd)
    tx.execute("""INSERT INTO kinds (id, n, f, at, d, a, j, t, long, b, i, r) VALUES
        (1, 'NaN', 'NaN', 'infinity', '-infinity', '{b,a,NULL,""}', '{"z": [1.0, 1.00, {"k": null}], "a": ""}', '',
          repeat('é', 25000),
         '\\x00ff', '1 mon -1 day', '[2024-01-01 00:00:00.000001+00,)'),
        (2, 1.0, 0.1, '2024-03-10 02:30:00.123456+00', '2024-02-29', '{}', 'null', NULL, NULL, '', '0', 'empty'),
        (3, 1.00, -1.7976931348623157e308, NULL, NULL, NULL, '1.10', 'NULL', '\\', NULL, NULL, NULL)""")
    for settings in (usual, odd, usual):
        tx.execute(settings)
        tx.execute("UPDATE kinds SET id = id + 100")
        tx.execute("UPDATE kinds SET id = id - 100")
    tx.execute("DELETE FROM kinds")
    entries = log.entries("operation", "row_key", "old_values", "new_values")
    inserted = {key["id"]: new for operation, key, _, new in entries if operation == "insert"}
    deleted = {key["id"]: old for operation, key, old, _ in entries if operation == "delete"}
    assert repr(inserted) == repr(deleted), "settings of the session changed what was recorded"
    found = tx.execute(
        "SELECT r.n::text, r.f::text, r.at::text, r.d::text, r.a::text, r.j::text, r.t, length(r.long), r.b,"
        " r.g::text, r.i::text, r.r::text FROM audit_log AS l CROSS"
        " JOIN jsonb_populate_record(NULL::kinds, l.old_values) AS r WHERE l.table_name = 'kinds'"
        " AND l.operation = 'delete' ORDER BY r.id").fetchall()
    assert found == [
        ("NaN", "NaN", "infinity", "-infinity", '{b,a,NULL,""}', '{"a": "", "z": [1.0, 1.00, {"k": null}]}', "", 25000,
         b"\x00\xff", "NaN", "1 mon -1 days", '["2024-01-01 00:00:00.000001+00",)'),
        # A JSON null as the whole value of a column cannot be told from NULL.
        ("1.0", "0.1", "2024-03-10 02:30:00.123456+00", "2024-02-29", "{}", None, None, None, b"", "2.0", "00:00:00",
         "empty"),
        ("1.00", "-1.7976931348623157e+308", None, None, None, "1.10", "NULL", 1, None, "2.00", None, None),
    ]


def test_a_change_of_scale_or_order_is_a_change(tx, rows):
    tx.execute("CREATE TABLE scales (id integer PRIMARY KEY, n numeric, a text[], j jsonb)")
    tx.execute("INSERT INTO scales VALUES (1, 1.0, '{a,b}', '{\"x\": 1.0}')")
    tx.execute("SELECT attach_audit('scales')")
    log = Log(tx, "scales")
    for column, value in [("n", "1.00"), ("a", "{b,a}"), ("j", '{"x": 1.00}')]:
        tx.execute(sql.SQL("UPDATE scales SET {} = {}").format(sql.Identifier(column), sql.Literal(value)))
        assert log.entries("operation", "changed_fields") == [("update", [column])]


def test_changed_key_is_followed(tx, rows):
    tx.execute("CREATE TABLE moves (a integer, b integer, t text, PRIMARY KEY (a, b))")
    tx.execute("SELECT attach_audit('moves')")
    tx.execute("INSERT INTO moves VALUES (1, 1, 'x'), (2, 2, 'y')")
    tx.execute("UPDATE moves SET t = 'x2' WHERE a = 1")
    tx.execute("UPDATE moves SET a = a + 10")
    tx.execute("UPDATE moves SET t = 'x3' WHERE a = 11")
    # The old key goes to somebody else, who is another row.
    tx.execute("INSERT INTO moves VALUES (1, 1, 'stranger')")

    def history(key: str) -> list[str]:
        return [row[0] for row in tx.execute(
            "SELECT coalesce(new_values ->> 't', new_values ->> 'a') FROM row_history('moves', %s)", [key])]

    assert history('{"a": 11, "b": 1}') == ["x", "x2", "11", "x3"]
    assert history('{"a": 1, "b": 1}') == ["x", "x2", "11", "x3", "stranger"]
    assert history('{"a": 12, "b": 2}') == ["y", "12"]


def test_swapped_keys_are_not_mixed_up(tx, rows):
    tx.execute("CREATE TABLE swaps (id integer, t text, CONSTRAINT swaps_pkey PRIMARY KEY (id) DEFERRABLE)")
    tx.execute("SELECT attach_audit('swaps')")
    tx.execute("INSERT INTO swaps VALUES (1, 'one'), (2, 'two')")
    log = Log(tx, "swaps")
    tx.execute("UPDATE swaps SET id = 3 - id")
    assert log.entries("row_key", "new_key", "old_values", "new_values") == [
        ({"id": 1}, {"id": 2}, {"id": 1}, {"id": 2}), ({"id": 2}, {"id": 1}, {"id": 2}, {"id": 1})]


@pytest.mark.parametrize("table", REASON_DEMANDED)
def test_configuration_is_not_changed_without_a_reason(tx, rows, table):
    tx.execute("SET LOCAL tidemark.reason = ''")
    row = rows.row(table)
    for statement in (
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table), names(row), literals(row.values())),
        sql.SQL("UPDATE {} SET {} = {}").format(
            sql.Identifier(table), sql.Identifier(CHANGE[table][0]), sql.Literal(CHANGE[table][1])),
        sql.SQL("DELETE FROM {}").format(sql.Identifier(table)),
    ):
        before = tx.execute(sql.SQL("SELECT array_agg(t::text ORDER BY t::text) FROM {} AS t").format(
            sql.Identifier(table))).fetchone()
        tx.execute("SAVEPOINT before")
        with pytest.raises(psycopg.Error) as refused:
            tx.execute(statement)
        tx.execute("ROLLBACK TO before")
        if "DELETE" not in statement.as_string(tx):  # which a foreign key may refuse first
            assert refused.value.sqlstate == "TM401"
        assert tx.execute(sql.SQL("SELECT array_agg(t::text ORDER BY t::text) FROM {} AS t").format(
            sql.Identifier(table))).fetchone() == before
    tx.execute("SET LOCAL tidemark.reason = 'because'")
    log = Log(tx, table)
    insert(tx, table, row)
    assert log.entries("reason") == [("because",)]


@pytest.mark.parametrize("table", [t for t in PLAIN if t not in REASON_DEMANDED and t not in UNRECORDED_INSERTS])
def test_applications_need_not_give_a_reason(tx, rows, table):
    tx.execute("SET LOCAL tidemark.reason = ''")
    log = Log(tx, table)
    row = rows.row(table)
    log.clear()
    insert(tx, table, row)
    assert log.entries("reason", "changed_by", "db_role") == [
        (None, *tx.execute("SELECT session_user::text, session_user::text").fetchone())]


def test_actor_of_one_transaction_never_shows_in_the_next(db):
    """A pool hands the same connection to one request after the other; every other one names its actor."""
    with db.connect() as connection:
        connection.execute("INSERT INTO assets (symbol, asset_type) VALUES ('POOL', 'stock')")
        for i in range(1000):
            with connection.transaction():
                if i % 2:
                    connection.execute(
                        "SELECT set_config('tidemark.actor', %(a)s, true), set_config('tidemark.reason', %(a)s, true),"
                        " set_config('tidemark.request', %(a)s, true)", {"a": f"actor {i}"})
                connection.execute("UPDATE assets SET name = %s WHERE symbol = 'POOL'", [str(i)])
        found = connection.execute(
            "SELECT (l.new_values ->> 'name')::integer, l.changed_by, l.reason, t.request, l.db_role"
            " FROM audit_log AS l JOIN audit_tx AS t USING (tx_id) WHERE l.table_name = 'assets'"
            " AND l.operation = 'update'").fetchall()
        me = connection.info.user
    assert len(found) == 1000
    assert [row for row in found if row != (
        (row[0], f"actor {row[0]}", f"actor {row[0]}", f"actor {row[0]}", me) if row[0] % 2
        else (row[0], me, None, None, me))] == []


def test_transaction_is_on_record_once(db):
    with db.connect(application_name="teller") as connection:
        with connection.transaction():
            connection.execute("SET LOCAL tidemark.request = 'r1'")
            for i in range(3):
                connection.execute("INSERT INTO assets (symbol, asset_type) VALUES (%s, 'stock')", [f"ONCE{i}"])
            connection.execute("SAVEPOINT s")
            connection.execute("DELETE FROM assets")
            connection.execute("ROLLBACK TO s")
            connection.execute("UPDATE assets SET name = 'x' WHERE symbol = 'ONCE1'")
        assert connection.execute(
            "SELECT count(DISTINCT l.tx_id), count(*), min(t.application), min(t.request) FROM audit_log AS l"
            " JOIN audit_tx AS t USING (tx_id) WHERE l.table_name = 'assets'"
        ).fetchone() == (1, 4, "teller", "r1")


def test_small_change_beside_a_large_column_is_small(tx, rows):
    tx.execute("CREATE TABLE wide (id integer PRIMARY KEY, small integer, large text)")
    tx.execute("SELECT attach_audit('wide')")
    tx.execute("INSERT INTO wide SELECT i, 0, (SELECT string_agg(md5(i || ' ' || n), '')"
               " FROM generate_series(1, 1600) AS n) FROM generate_series(1, 200) AS i")
    assert tx.execute("SELECT min(length(large)) FROM wide").fetchone()[0] > 50_000
    before = tx.execute("SELECT pg_total_relation_size('audit_log')").fetchone()[0]
    tx.execute("UPDATE wide SET small = 1")
    after = tx.execute("SELECT pg_total_relation_size('audit_log')").fetchone()[0]
    assert (after - before) / 200 < 2000


def test_secrets_are_nowhere_but_in_their_table(db, tmp_path):
    secrets = {"password_hash": ARGON2ID.replace("aGFz", "SECRET1"), "api_key": "SECRET2", "totp_seed": "SECRET3",
               "pin": "SECRET4"}
    with db.connect() as connection:
        connection.execute("CREATE TABLE credentials (id integer PRIMARY KEY, password_hash text, api_key text,"
                           " totp_seed text, pin text, other text)")
        connection.execute("INSERT INTO credentials VALUES (0, %(password_hash)s, %(api_key)s, %(totp_seed)s, %(pin)s)",
                           secrets)
        connection.execute("SELECT attach_audit('credentials', p_secrets => '{pin}')")
        connection.execute("INSERT INTO credentials VALUES (1, %(password_hash)s, %(api_key)s, %(totp_seed)s, %(pin)s)",
                           secrets)
        connection.execute("UPDATE credentials SET password_hash = password_hash || '1', api_key = api_key || '1',"
                           " totp_seed = totp_seed || '1', pin = pin || '1', other = 'x'")
        connection.execute("INSERT INTO credentials SELECT i, %s, 'SECRET2', 'SECRET3', 'SECRET4'"
                           " FROM generate_series(2, 1200) AS i", [secrets["password_hash"]])
        connection.execute("UPDATE credentials SET api_key = api_key || '1', pin = NULL")
        connection.execute("DELETE FROM credentials")
        connection.execute("INSERT INTO users (username, email, password_hash) VALUES ('a', 'a@example.org', %s)",
                           [secrets["password_hash"]])
        connection.execute("UPDATE users SET password_hash = password_hash || 'b'")
        [(changed, old, new)] = connection.execute(
            "SELECT changed_fields, old_values ->> 'password_hash', new_values ->> 'password_hash' FROM audit_log"
            " WHERE table_name = 'users' AND operation = 'update'").fetchall()
        assert (changed, old, new) == (["password_hash"], "[redacted]", "[redacted]")
        user_id = connection.execute("SELECT user_id FROM users").fetchone()[0]
        key = psycopg.types.json.Jsonb({"user_id": str(user_id)})
        assert "SECRET" not in str(connection.execute("SELECT row_as_of('users', %s, now())", [key]).fetchone())
        text = "".join(str(row) for table in ("audit_log", "audit_tx", "timeseries_archive")
                       for row in connection.execute(
                           sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(table))))
        assert "SECRET" not in text
        assert "[redacted]" in text


@pytest.mark.parametrize("secret", ["plain", "", "5f4dcc3b5aa765d61d8327deb882cf99", ARGON2ID + "\nplain"])
def test_password_that_is_no_hash_is_refused(tx, add, secret):
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        add("users", password_hash=secret)
    assert refused.value.diag.constraint_name == "users_password_hash_is_one"


def test_hash_or_none_is_accepted(tx, add):
    add("users", password_hash=ARGON2ID)
    add("users", password_hash=None)


def test_scores_are_no_change(tx, rows):
    log = Log(tx, "quotes")
    insert(tx, "quotes", rows.row("quotes"))
    tx.execute("UPDATE quotes SET quality_score = 3, is_anomaly = true")
    assert log.operations() == []


def test_attaching_again_changes_nothing_and_detaching_stops(tx, rows):
    definitions = ("SELECT array_agg(pg_get_triggerdef(oid) || tgenabled::text ORDER BY oid::text)"
                   " FROM pg_trigger WHERE tgrelid = 'sources'::regclass AND tgname ~ '^trg_audit'")
    log = Log(tx, "sources")
    before = tx.execute(definitions).fetchone()
    assert all(definition.endswith("A") for definition in before[0])
    tx.execute("SELECT attach_audit('sources')")
    assert sorted(tx.execute(definitions).fetchone()[0]) == sorted(before[0])
    assert log.operations() == []
    tx.execute("SELECT detach_audit('sources')")
    tx.execute("SELECT detach_audit('sources')")
    insert(tx, "sources", rows.row("sources"))
    assert log.operations() == []
    held = tx.execute("SELECT count(*) FROM sources").fetchone()[0]
    tx.execute("SELECT attach_audit('sources')")
    assert log.operations() == ["snapshot"] * held


@pytest.mark.parametrize("what", ["daily_ohlcv", "audit_log", "pg_class", "no_key"])
def test_what_cannot_be_audited_is_refused(tx, what):
    tx.execute("CREATE TABLE no_key (a integer)")
    with pytest.raises(psycopg.Error) as refused:
        tx.execute("SELECT attach_audit(%s)", [what])
    assert refused.value.sqlstate == "TM402"


def test_table_with_odd_names_is_audited(tx):
    tx.execute('CREATE SCHEMA "Odd; Schema"')
    tx.execute('CREATE TABLE "Odd; Schema"."it\'s 100% "" odd" ("the key" integer PRIMARY KEY, "50% of $1" text,'
               ' "place" integer, "r" text)')
    tx.execute('SELECT attach_audit(\'"Odd; Schema"."it\'\'s 100% "" odd"\')')
    tx.execute('INSERT INTO "Odd; Schema"."it\'s 100% "" odd" SELECT i FROM generate_series(1, 1500) AS i')
    tx.execute('UPDATE "Odd; Schema"."it\'s 100% "" odd" SET "50% of $1" = \'x\', "r" = \'y\'')
    assert tx.execute("SELECT count(*), min(changed_fields::text) FROM audit_log WHERE operation = 'update'"
                      " AND table_name ~ 'Odd'").fetchone() == (1500, '{r,"50% of $1"}')


def test_truncate_of_a_plain_table_is_recorded_row_by_row_and_of_a_hypertable_as_a_whole(tx, rows):
    for _ in range(3):
        insert(tx, "alerts", rows.row("alerts"))
        insert(tx, "quotes", rows.row("quotes"))
    log = Log(tx, "alerts")
    tx.execute("TRUNCATE alerts CASCADE")
    assert [(operation, "target_value" in old) for operation, old in log.entries("operation", "old_values")] == [
        ("truncate", True)] * 3
    log = Log(tx, "quotes")
    tx.execute("TRUNCATE quotes")
    [(operation, old)] = log.entries("operation", "old_values")
    assert (operation, old["rows"]) == ("truncate", 3)


def test_row_as_it_was(db):
    with db.connect() as connection:
        instants = []

        def step(statement: str) -> None:
            with connection.transaction():
                connection.execute(statement)
            instants.append(connection.execute("SELECT clock_timestamp()").fetchone()[0])

        step("INSERT INTO assets (asset_id, symbol, asset_type)"
             " VALUES ('00000000-0000-0000-0000-000000000001', 'A', 'stock')")
        step("UPDATE assets SET name = 'first'")
        step("UPDATE assets SET asset_id = '00000000-0000-0000-0000-000000000002', name = 'moved'")
        step("DELETE FROM assets")
        step("INSERT INTO assets (asset_id, symbol, asset_type)"
             " VALUES ('00000000-0000-0000-0000-000000000001', 'B', 'stock')")

        def at(number: int) -> list:
            return [connection.execute(
                "SELECT r ->> 'symbol', r ->> 'name'"
                " FROM row_as_of('assets', jsonb_build_object('asset_id', %s::text), %s) AS r",
                [f"00000000-0000-0000-0000-00000000000{number}", instant]).fetchone() for instant in instants]

        nobody = (None, None)
        assert at(1) == [("A", None), ("A", "first"), nobody, nobody, ("B", None)]
        assert at(2) == [nobody, nobody, ("A", "moved"), nobody, nobody]


@pytest.mark.parametrize(("table", "key", "code"), [
    ("quality_issues", '{"issue_id": 1}', "TM404"), ("assets", '{"symbol": "A"}', "TM405"),
    ("assets", '{"asset_id": "no uuid"}', "TM405"), ("assets", "[]", "TM405"),
])
def test_what_is_no_key_is_refused(tx, table, key, code):
    for function in ("row_history(%s, %s)", "row_as_of(%s, %s, now())"):
        tx.execute("SAVEPOINT before")
        with pytest.raises(psycopg.Error) as refused:
            tx.execute(f"SELECT {function}", [table, key])
        assert refused.value.sqlstate == code
        tx.execute("ROLLBACK TO before")
