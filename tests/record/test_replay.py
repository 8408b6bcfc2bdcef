"""The record alone is enough to make every audited table again, as it is and as it was at any moment."""

from __future__ import annotations

import os
import random

import pytest
from psycopg import sql
from record.support import AUDITED, CHANGE, UNRECORDED_INSERTS, Rows, insert, key_of, literals, names

OPERATIONS = int(os.environ.get("TIDEMARK_TEST_OPERATIONS", "10000"))
# Where each INSERT is recorded the record is complete; the rest has its own tests.
TABLES = [table for table in AUDITED if table not in (*UNRECORDED_INSERTS, "data_policies")]


def state(connection, tables) -> dict[str, dict[str, str]]:
    """Each table's rows by their key, as the JSON that the record uses, but with secrets."""
    return {
        table: dict(connection.execute(sql.SQL(
            "SELECT (SELECT jsonb_object_agg(k, to_jsonb(t.*) -> k)"
            " FROM unnest(%s::text[]) AS k)::text, _tidemark.redact(to_jsonb(t.*),"
            " _tidemark.secret_columns())::text FROM {} AS t"
        ).format(sql.Identifier(table)), [key_of(connection, table)]).fetchall())
        for table in tables
    }


class Replay:
    """Tables made from entries alone, as far as `advance` has gone."""

    def __init__(self, connection, tables) -> None:
        self.connection, self.last = connection, 0
        self.rows: dict[str, dict[str, list[str]]] = {table: {} for table in tables}

    def advance(self, until: int) -> dict[str, dict[str, str]]:
        for table, operation, key, new_key, row in self.connection.execute(
            "SELECT table_name, operation::text, row_key::text, coalesce(new_key, row_key)::text, new_values::text"
            " FROM audit_log WHERE audit_id > %s AND audit_id <= %s AND table_name = ANY (%s) ORDER BY audit_id",
            [self.last, until, list(self.rows)]
        ):
            rows = self.rows[table]
            if operation in ("insert", "snapshot"):
                rows[key] = [row]
            elif operation == "update":
                rows[new_key] = [*rows.pop(key), row]
            else:
                del rows[key]
        self.last = until
        # The server lays the changes over the rows, so that what is compared is its own JSON.
        changed = [(table, key, parts) for table, rows in self.rows.items() for key, parts in rows.items()
                   if len(parts) > 1]
        for (table, key, _), (text,) in zip(changed, self.connection.execute(
            "SELECT (SELECT jsonb_object_agg(e.key, e.value) FROM (   SELECT DISTINCT ON (m.key) m.key, m.value"
            " FROM jsonb_array_elements(i.parts) WITH ORDINALITY AS p (part, n)   CROSS"
            " JOIN LATERAL jsonb_each(p.part) AS m ORDER BY m.key, p.n DESC) AS e)::text FROM unnest(%s::jsonb[])"
            " WITH ORDINALITY AS i (parts, place) ORDER BY i.place",
            [[f"[{','.join(parts)}]" for _, _, parts in changed]],
        ), strict=True):
            self.rows[table][key] = [text]
        return {table: {key: parts[0] for key, parts in rows.items()} for table, rows in self.rows.items()}


@pytest.mark.parametrize("seed", [20240229])
def test_replaying_the_record_makes_every_table_again(db, seed):
    chance = random.Random(seed)
    with db.connect(autocommit=False) as connection:
        connection.execute("SET timezone = 'UTC'; SET tidemark.reason = 'replay'")
        rows = Rows(connection)
        connection.commit()
        live = {table: [] for table in TABLES}
        moments = sorted(chance.sample(range(OPERATIONS), 20))
        witnessed = {}
        done = 0
        while done < OPERATIONS:
            size = chance.choice([1, 1, 1, 5, 40])
            undo = chance.random() < 0.1
            kept = {table: list(keys) for table, keys in live.items()}
            for _ in range(size):
                table = chance.choice(TABLES)
                kind = chance.random()
                key = key_of_cached(connection, table)
                if kind < 0.5 or not live[table]:
                    live[table].append(insert(connection, table, rows.row(table), key))
                elif kind < 0.85:
                    column, *values = CHANGE[table]
                    connection.execute(sql.SQL("UPDATE {} SET {} = {} WHERE ({}) = ({})").format(
                        sql.Identifier(table), sql.Identifier(column), sql.Literal(chance.choice(values)), names(key),
                        literals(chance.choice(live[table]))))
                elif kind < 0.87:
                    # All rows at once, each to a value of its own chance.
                    column, *values = CHANGE[table]
                    kind_of = connection.execute(
                        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass"
                        " AND attname = %s", [table, column]).fetchone()[0]
                    connection.execute(sql.SQL(
                        "UPDATE {0} SET {1} = CASE hashtext(ctid::text) % 3 WHEN 0 THEN {2} WHEN 1 THEN {3} ELSE {1}"
                        " END"
                    ).format(sql.Identifier(table), sql.Identifier(column), *(
                        sql.SQL("{}::" + kind_of).format(sql.Literal(v)) for v in values)))
                elif table in ("alerts", "forecasts", "lineage", "notifications", "learning_entries", "trades",
                               "predictions", "positions", "signals", "ingestion_tasks", "market_calendar",
                               "backtest_results", "watchlist_items", "validation_rules"):
                    victim = live[table].pop(chance.randrange(len(live[table])))
                    connection.execute(sql.SQL("DELETE FROM {} WHERE ({}) = ({})").format(
                        sql.Identifier(table), names(key), literals(victim)))
            if undo:
                connection.rollback()
                live = kept
            else:
                connection.commit()
            done += size
            if moments and done >= moments[0]:
                while moments and done >= moments[0]:
                    moments.pop(0)
                last = connection.execute("SELECT max(audit_id) FROM audit_log").fetchone()[0]
                witnessed[last] = state(connection, TABLES)
                connection.commit()
        last = connection.execute("SELECT max(audit_id) FROM audit_log").fetchone()[0]
        witnessed[last] = state(connection, TABLES)
        assert len(witnessed) >= 20
        record = Replay(connection, TABLES)
        for until, expected in witnessed.items():
            actual = record.advance(until)
            for table in TABLES:
                assert actual[table] == expected[table], f"{table} at {until}"


_keys: dict[str, list[str]] = {}


def key_of_cached(connection, table: str) -> list[str]:
    if table not in _keys:
        _keys[table] = key_of(connection, table)
    return _keys[table]
