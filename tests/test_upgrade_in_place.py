"""Logic is edited in place, whatever the edit: old logic with data in it becomes the new one, and nothing is lost."""

from __future__ import annotations

import re

import psycopg
import pytest
from test_migrations import migrate

from tidemark import catalog, migrations
from tidemark.lifecycle import refresh

DATA = """
    INSERT INTO assets (asset_id, symbol, asset_type) VALUES ('00000000-0000-0000-0000-000000000001', 'A', 'stock');
    INSERT INTO sources (source_id, name, data_type) OVERRIDING SYSTEM VALUE VALUES (1, 's', 'ohlcv');
    INSERT INTO timeseries_data (source_id, timestamp, open, high, low, close, volume)
    SELECT 1, timestamptz '2024-01-01 00:00+00' + i * interval '1 day', i, i + 1, i - 0.5, i, i
      FROM generate_series(1, 200) AS i;
    INSERT INTO candles (asset_id, interval, ts, open, high, low, close, volume, trades)
    SELECT '00000000-0000-0000-0000-000000000001', '1m', timestamptz '2024-01-01 00:00+00' + i * interval '20 minutes',
           i, i + 1, i - 0.5, i, i, i
      FROM generate_series(1, 3000) AS i;
    CREATE VIEW my_days AS SELECT day, high, volume FROM daily_ohlcv;
    COMMENT ON VIEW my_days IS 'Mine.';
    CREATE FUNCTION my_days() RETURNS SETOF my_days LANGUAGE sql AS 'SELECT * FROM my_days';
    CREATE VIEW my_view WITH (security_barrier = true) AS SELECT d.*, q.mean_score
      FROM my_days AS d LEFT JOIN quality_report AS q ON q.day = d.day;
    CREATE ROLE my_reader;
    GRANT SELECT ON my_view TO my_reader;
    CREATE TABLE my_log (day timestamptz);
    CREATE FUNCTION my_trigger() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO my_log VALUES (NEW.day); RETURN NEW; END';
    CREATE TRIGGER trg_mine INSTEAD OF INSERT ON my_view FOR EACH ROW EXECUTE FUNCTION my_trigger();
    SELECT add_rollup('my_hours', 'candles', '12 hours', ARRAY['asset_id'], ARRAY['max(high) AS high'],
                      p_parent => 'candles_1h');
"""
KEPT = {
    "daily_ohlcv": "day", "candles_5m": "bucket", "candles_1h": "bucket", "candles_1d": "bucket", "my_hours": "bucket",
    "timeseries_data_days": "day",
}
EDITS = {
    # a column more in the middle of an aggregate, and in those that are computed from one another
    "605_aggregates.sql": [
        (r"c_open, c_high, c_low,", "c_open, c_high, 'max(high) - min(low) AS span', c_low,"),
    ],
    # a column more in the middle of a view that others stand on; one fewer in an aggregate below it
    "608_days.sql": [
        (r"(?m)\b(g\.day, g\.row_count)", r"g.penalised, \1"), (r"\n *'count\(quality_score\) AS scored',", ""),
        (r"nullif\(g\.scored", "nullif(g.row_count"), (r"g\.scored, ", "g.row_count AS scored, "),
    ],
    # other columns of a function, another argument with a default, a function that becomes a procedure
    "500_helpers.sql": [(r"\Z", """
CREATE OR REPLACE FUNCTION public.edited(p_a integer, p_b integer DEFAULT 1) RETURNS TABLE (one integer, two text)
    LANGUAGE sql AS $func$ SELECT p_a, 'two' $func$;
CREATE OR REPLACE PROCEDURE public.edited_too(p_a integer) LANGUAGE sql AS $func$ SELECT 1 $func$;
DO $do$
BEGIN
    PERFORM public.edited(1);
END
$do$;
CREATE OR REPLACE VIEW public.edited_view AS SELECT 'x'::text AS other, e.* FROM public.edited(1) AS e;
""")],
}
BEFORE = """
CREATE OR REPLACE FUNCTION public.edited(p_a integer) RETURNS TABLE (one integer) LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE FUNCTION public.edited_too(p_a integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE OR REPLACE VIEW public.edited_view AS SELECT e.one, public.edited_too(1) AS two FROM public.edited(1) AS e;
"""


def rows(connection: psycopg.Connection, relation: str, columns: str = "*") -> list[tuple]:
    """Sums of floats to nine digits, because their last ones depend on the order in which they were added."""
    found = connection.execute(f"SELECT {columns} FROM {relation} AS t").fetchall()
    return sorted((tuple(float(f"{v:.9g}") if isinstance(v, float) else v for v in row) for row in found), key=str)


@pytest.fixture
def old(db, checkout):
    """A database with old logic and data, of which some raw rows are gone already."""
    helpers = next(checkout.rglob("500_helpers.sql"))
    text = helpers.read_text()
    helpers.write_text(text + BEFORE)
    migrate(db)
    with db.connect() as connection:
        for statement in re.split(r";\n", DATA)[:-1]:
            connection.execute(statement)
        refresh(connection)
        connection.execute("SELECT drop_chunks('timeseries_data', timestamptz '2024-04-01'),"
                           " drop_chunks('candles', timestamptz '2024-01-20')")
    helpers.write_text(text)
    yield checkout
    with db.connect() as connection:
        connection.execute("DROP OWNED BY my_reader; DROP ROLE my_reader")


def edit(checkout, name: str) -> None:
    file = next(checkout.rglob(name))
    text = file.read_text()
    for pattern, replacement in EDITS[name]:
        text, count = re.subn(pattern, replacement, text)
        assert count, (name, pattern)
    file.write_text(text)


def test_old_logic_with_data_becomes_the_new_one(db, old):
    with db.connect() as connection:
        columns = {
            name: connection.execute(
                "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attnum > 0"
                " AND attname <> 'scored' AND attrelid = %s::regclass", (name,)
            ).fetchone()[0] for name in KEPT
        }
        before = {name: rows(connection, name, columns[name]) for name in KEPT}
        mine, mine_too = rows(connection, "my_view"), rows(connection, "my_days()")
    for name in EDITS:
        edit(old, name)
    done = migrate(db)
    assert done.dropped == [
        "function public.edited(integer)", "function public.edited_too(integer)"
    ] or done.dropped == []
    with db.connect() as connection:
        assert {name: rows(connection, name, columns[name]) for name in KEPT} == before
        refresh(connection)
        assert {name: rows(connection, name, columns[name]) for name in KEPT} == before
        # what is new is there wherever raw rows are, and NULL where they are gone
        assert connection.execute("SELECT count(span), bool_and(span = 1.5) FROM daily_ohlcv WHERE day >= '2024-04-02'"
                                  ).fetchone() == (109, True)
        assert connection.execute("SELECT count(span), count(*) FROM daily_ohlcv WHERE day < '2024-03-01'"
                                  ).fetchone() == (0, 59)
        assert connection.execute("SELECT max(span) > 0 FROM candles_1d").fetchone() == (True,)
        assert "scored" not in [c.name for c in connection.execute("SELECT * FROM timeseries_data_days").description]
        # a user's own things stand where they stood
        assert rows(connection, "my_view") == mine
        assert rows(connection, "my_days()") == mine_too
        connection.execute("INSERT INTO my_view (day) VALUES ('2024-01-01')")
        assert connection.execute("SELECT count(*) FROM my_log").fetchone() == (1,)
        assert connection.execute(
            "SELECT obj_description('my_days'::regclass), has_table_privilege('my_reader', 'my_view', 'SELECT'),"
            " (SELECT reloptions FROM pg_class WHERE oid = 'my_view'::regclass)"
        ).fetchone() == ("Mine.", True, ["security_barrier=true"])
        assert connection.execute("SELECT * FROM edited_view").fetchone() == ("x", 1, "two")
        assert connection.execute("SELECT count(*) FROM pg_proc WHERE proname ~ '^edited'").fetchone() == (2,)
        # later changes are seen in them
        connection.execute("UPDATE timeseries_data SET high = 1000 WHERE timestamp = '2024-05-01'")
        assert connection.execute("SELECT high, span FROM daily_ohlcv WHERE day = '2024-05-01'").fetchone()[0] in (
            1000, 122)
        assert catalog.differences(connection) == []
        assert migrations.migrate(connection).up_to_date
        # and what was put back is the user's still, when something else changes
        helpers = next(old.rglob("500_helpers.sql"))
        helpers.write_text(helpers.read_text() + "-- Changed again.\n")
        assert migrations.migrate(connection).dropped == []
        assert rows(connection, "my_view", "day") != []
        assert connection.execute("SELECT count(*) FROM pg_proc WHERE proname IN ('my_days', 'my_trigger')"
                                  ).fetchone() == (2,)


def test_what_no_longer_fits_is_named_and_nothing_changes(db, old):
    """A user's view of a column that goes, and buckets that cannot be worked out again."""
    with db.connect() as connection:
        connection.execute("CREATE VIEW my_scored AS SELECT scored FROM timeseries_data_days")
        before = catalog.snapshot(connection), rows(connection, "timeseries_data_days")
    edit(old, "608_days.sql")
    with pytest.raises(psycopg.Error) as refused:
        migrate(db)
    assert refused.value.sqlstate == "TM011"
    assert "my_scored" in refused.value.diag.message_primary
    with db.connect() as connection:
        assert (catalog.snapshot(connection), rows(connection, "timeseries_data_days")) == before
        connection.execute("DROP VIEW my_scored")
        connection.execute("CREATE MATERIALIZED VIEW my_copy AS SELECT * FROM timeseries_data_days")
        with pytest.raises(psycopg.Error) as refused:
            migrations.migrate(connection)
        assert refused.value.sqlstate == "TM010"
        assert "my_copy" in refused.value.diag.message_detail
        connection.execute("DROP MATERIALIZED VIEW my_copy")
    file = next(old.rglob("605_aggregates.sql"))
    file.write_text(file.read_text().replace("'1 day', ARRAY['source_id']", "'2 days', ARRAY['source_id']"))
    with pytest.raises(psycopg.Error) as refused:
        migrate(db)
    assert refused.value.sqlstate == "TM603"
