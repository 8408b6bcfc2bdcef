"""What a write through a view leaves behind: one entry in the record, no value dropped, and NULL for what is filled."""

from __future__ import annotations

import datetime as dt

import pytest
from psycopg import errors

from applications.test_concurrency import USER, VIEWS

AUDITED_INSERTS = [view for view in VIEWS if not view.endswith(("market_data", "ohlcv_data", "candle_data",
                                                                 "sentiment_data"))]
NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize("view", AUDITED_INSERTS)
def test_a_row_with_a_key_of_its_own_is_one_insert_on_record(tx, view):
    tx.execute(USER)
    tx.execute("INSERT INTO assets (symbol, asset_type) VALUES ('A', 'stock')")
    tx.execute("SELECT public.set_default_watchlist(w.watchlist_id) FROM watchlists AS w")
    before = tx.execute("SELECT count(*) FROM audit_log").fetchone()[0]
    values = VIEWS[view][1]
    tx.execute(f"INSERT INTO {view} {values}", ["r" if view.startswith("hyper") else 4711])
    told = [operation for table, operation in tx.execute(
        "SELECT table_name, operation::text FROM audit_log ORDER BY audit_id OFFSET %s", [before])
        if table != "watchlists"]
    assert told == ["insert"]


@pytest.mark.parametrize("view", VIEWS)
def test_an_update_is_one_update_on_record_of_what_changed(tx, view):
    tx.execute(USER)
    key, values, (column, new), *_ = VIEWS[view]
    row = tx.execute(f"INSERT INTO {view} {values} RETURNING {key}",
                     ["r" if view.startswith("hyper") and "candle" not in view else 4711]).fetchone()[0]
    before = tx.execute("SELECT coalesce(max(audit_id), 0) FROM audit_log").fetchone()[0]
    tx.execute(f"UPDATE {view} SET {column} = %s WHERE {key} = %s", [new, row])
    [(operation, fields)] = tx.execute(
        "SELECT operation::text, changed_fields FROM audit_log WHERE audit_id > %s", [before]).fetchall()
    assert operation == "update"
    assert not [field for field in fields if field.startswith("app_")]
    # Leaving everything as it is leaves no trace.
    before = tx.execute("SELECT max(audit_id) FROM audit_log").fetchone()[0]
    assert tx.execute(f"UPDATE {view} SET {column} = {column} WHERE {key} = %s", [row]).rowcount == 1
    assert tx.execute("SELECT max(audit_id) FROM audit_log").fetchone()[0] == before


def test_what_the_application_sets_is_kept(tx):
    tx.execute(USER)
    tx.execute("SET LOCAL search_path = buddy_ai, public")
    position = tx.execute(
        "INSERT INTO positions (user_id, symbol, market, side, entry_price, current_price, quantity, pnl, pnl_percent)"
        " VALUES (1234, 'A', 'STOCK', 'long', 100, 110, 2, 19.5, 9.75) RETURNING id, pnl, pnl_percent").fetchone()
    assert position[1:] == (19.5, 9.75)  # net of fees, which Tidemark does not know of
    update = "UPDATE positions SET {} WHERE id = %s RETURNING pnl, pnl_percent"
    assert tx.execute(update.format("is_open = is_open"), position[:1]).fetchone() == (19.5, 9.75)
    assert tx.execute(update.format("current_price = 120, pnl = 39"), position[:1]).fetchone() == (39, 20)
    assert tx.execute(update.format("current_price = 130"), position[:1]).fetchone() == (60, 30)
    assert tx.execute("SELECT pnl::float, pnl_percent::float FROM public.positions").fetchone() == (60, 30)
    tx.execute("SET LOCAL search_path = cryptovolt, public")
    naive, later = dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)
    assert tx.execute("UPDATE users SET updated_at = %s WHERE user_id = 1234 RETURNING updated_at",
                      [naive]).fetchone() == (naive,)
    assert tx.execute("INSERT INTO alerts (user_id, alert_type, message, timestamp, created_at) VALUES (1234, 'MARGIN',"
                      " 'm', %s, %s) RETURNING alert_type, timestamp, created_at", [naive, later]).fetchone() == (
        "MARGIN", naive, later)
    assert tx.execute("SELECT notification_type::text FROM notifications").fetchone() == ("other",)
    assert tx.execute("INSERT INTO trades (symbol, trade_type, price, quantity, status) VALUES ('A', 'BUY', 0.1, 0.3,"
                      " 'PARTIALLY_FILLED') RETURNING status, price, quantity").fetchone() == (
        "PARTIALLY_FILLED", 0.1, 0.3)


def test_words_of_its_own_and_keys_as_they_are_given(tx):
    tx.execute("SET LOCAL search_path = hyperliquid, public")
    key = "0B0E7A52-1111-4222-8333-ABCDEFABCDEF"
    assert tx.execute("INSERT INTO strategy_rules (id, name, entry_type, source_type) VALUES (%s, 'n', 'x', 'discord')"
                      " RETURNING id, source_type", [key]).fetchone() == (key, "discord")
    assert tx.execute("SELECT rule_id::text, source_type::text FROM public.strategy_rules").fetchone() == (
        key.lower(), "other")
    assert tx.execute("INSERT INTO trade_records (id, strategy_rule_id, asset, direction, entry_price, outcome)"
                      " VALUES ('t', %s, 'A', 'long', 1, 'breakeven') RETURNING outcome, strategy_rule_id",
                      [key]).fetchone() == ("breakeven", key)
    assert tx.execute("SELECT count(*) FROM strategy_rules WHERE id = %s", [key]).fetchone() == (1,)
    # A key that changes, changes wherever it stands.
    tx.execute("INSERT INTO learning_entries (id, insight, strategy_rule_id, supporting_trades) VALUES ('l', 'i', %s,"
               " '{t}')", [key])
    tx.execute("UPDATE strategy_rules SET id = 'named'; UPDATE trade_records SET id = 'u'")
    assert tx.execute("SELECT strategy_rule_id, supporting_trades FROM learning_entries").fetchone() == (
        "named", ["u"])
    assert tx.execute("SELECT strategy_rule_id FROM trade_records").fetchone() == ("named",)


def test_what_is_written_in_public_shows_in_every_spelling(tx):
    tx.execute(USER)
    tx.execute("INSERT INTO assets (symbol, asset_type) VALUES ('GOLD', 'commodity')")
    tx.execute("INSERT INTO positions (user_id, asset_id, side, entry_price, quantity)"
               " SELECT user_id, asset_id, 'short', 10.5, 2 FROM users, assets")
    tx.execute("INSERT INTO trades (user_id, asset_id, trade_type, quantity, entry_price, status, entry_time)"
               " SELECT user_id, asset_id, 'sell', 2, 10.5, 'executed', %s FROM users, assets", [NOON])
    assert tx.execute("SELECT user_id, symbol, market, side, entry_price FROM buddy_ai.positions").fetchone() == (
        1234, "GOLD", "STOCK", "short", 10.5)
    assert tx.execute("SELECT symbol, trade_type, price, timestamp FROM cryptovolt.trades").fetchone() == (
        "GOLD", "SELL", 10.5, NOON.replace(tzinfo=None))
    tx.execute("UPDATE users SET role = 'admin'; UPDATE assets SET symbol = 'XAUUSD', asset_type = 'forex'")
    tx.execute("UPDATE users SET user_no = 77; UPDATE positions SET quantity = 3")
    assert tx.execute("SELECT role FROM buddy_ai.users").fetchone() == ("ADMIN",)
    assert tx.execute("SELECT is_admin FROM trading_manager.users").fetchone() == (True,)
    assert tx.execute("SELECT user_id, symbol, market, quantity FROM buddy_ai.positions").fetchone() == (
        77, "XAUUSD", "FOREX", 3)
    assert tx.execute("SELECT asset FROM hyperliquid.trade_records").fetchone() == ("XAUUSD",)


def test_market_that_is_none_is_refused_at_once(tx):
    for market in ("ETF", "BOND"):
        with pytest.raises(errors.InvalidTextRepresentation), tx.transaction():
            tx.execute("INSERT INTO buddy_ai.market_data (symbol, market, price) VALUES ('A', %s, 1)", [market])


def fill_nulls(tx, relation):
    """(column, whether NULL may stand in it) of the columns that the relation's rows get a value for."""
    return tx.execute("""
        SELECT a.attname, pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '' FROM pg_attribute AS a
          LEFT JOIN pg_attrdef AS d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
         WHERE a.attrelid = %s::regclass AND a.attnotnull AND a.attgenerated = ''
           AND (d.adbin IS NOT NULL OR a.attidentity = 'd')""", [relation]).fetchall()


ROWS = {  # what each table needs besides
    "assets": "symbol, asset_type) VALUES ('N', 'stock'", "sources": "name, data_type) VALUES ('n', 'ohlcv'",
    "models": "name, model_type) VALUES ('n', 'lstm'", "strategies": "name) VALUES ('n'",
    "strategy_rules": "name, entry_type) VALUES ('n', 'x'", "users": "username, email) VALUES ('n', 'n@example.org'",
    "learning_entries": "insight) VALUES ('n'", "ingestion_tasks": "source_ref) VALUES ('n'",
    "timeseries_data": "source_id, timestamp, close) VALUES (1, '2024-01-01', 1",
    "candles": "asset_id, interval, ts, close) VALUES (@a, '1h', '2024-01-01', 1",
    "quotes": "asset_id, ts, price) VALUES (@a, '2024-01-01', 1",
    "sentiment_data": "asset_id, ts, source) VALUES (@a, '2024-01-01', 'news'",
    "indicators": "asset_id, ts, interval, indicator_type, name) VALUES (@a, '2024-01-01', '1h', 'rsi', 'r'",
    "features": "asset_id, ts, feature_set, name) VALUES (@a, '2024-01-01', 's', 'n'",
    "signals": "asset_id, ts, signal_type) VALUES (@a, '2024-01-01', 'buy'",
    "trades": "asset_id, trade_type, quantity) VALUES (@a, 'buy', 1",
    "positions": "user_id, asset_id, side, entry_price, quantity) VALUES (@u, @a, 'long', 1, 1",
    "predictions": "asset_id, model_type, current_price, predicted_price, direction, confidence, interval,"
                   " horizon_hours) VALUES (@a, 'tft', 1, 1, 'buy', 1, '1h', 1",
    "alerts": "user_id, asset_id, condition, target_value) VALUES (@u, @a, 'above', 1",
    "notifications": "notification_type, message) VALUES ('system', 'm'",
    "watchlists": "user_id, name) VALUES (@u, 'n'",
    "watchlist_items": "watchlist_id, asset_id) VALUES (@w, @a",
    "forecasts": "source_id, target_ts, predicted) VALUES (1, now() + interval '1 day', 1",
    "lineage": "target_kind, target_ref, upstream_kind, upstream_ref) VALUES ('model', 'a', 'source', 'b'",
    "backtest_configs": "strategy_id, name, asset_universe, interval, period_start, period_end)"
                        " VALUES (1, 'n', ARRAY[@a], '1d', '2024-01-01', '2024-01-02'",
    "backtest_results": "config_id, period_start, period_end) VALUES (1, '2024-01-01', '2024-01-02'",
    "corporate_actions": "asset_id, ex_date, ratio, source) VALUES (@a, '2024-01-02', 2, 'file'",
}


@pytest.mark.parametrize("table", ROWS)
def test_null_where_a_default_stands_means_the_default(tx, add, table):
    asset, user = add("assets"), add("users")
    add("sources", source_id=1, name="first")
    tx.execute("INSERT INTO strategies (strategy_id, name) VALUES (1, 's')")
    tx.execute("SELECT setval(pg_get_serial_sequence(t, k), 10) FROM (VALUES ('sources', 'source_id'), ('strategies',"
               " 'strategy_id'), ('backtest_configs', 'config_id')) AS s (t, k)")
    watchlist = add("watchlists", user_id=user, name="w")
    tx.execute("INSERT INTO backtest_configs (config_id, strategy_id, name, asset_universe, interval, period_start,"
               " period_end) VALUES (1, 1, 'n', %s, '1d', '2024-01-01', '2024-01-02')", [[asset]])
    filled = [name for name, *_ in fill_nulls(tx, table)]
    columns, values = ROWS[table].split(") VALUES (")
    for name, value in (("@a", asset), ("@u", user), ("@w", watchlist)):
        values = values.replace(name, f"'{value}'::uuid")
    row = tx.execute(f"INSERT INTO {table} ({', '.join([columns, *filled])}) VALUES"
                     f" ({values}{', NULL' * len(filled)}) RETURNING {', '.join(filled)}").fetchone()
    assert filled and None not in row


def test_null_is_filled_through_an_upsert_too(tx, add):
    add("sources", source_id=1)
    for close in (1, 2):
        tx.execute(
            "INSERT INTO timeseries_data AS t (source_id, timestamp, close, quality_score, is_anomaly, metadata)"
            " VALUES (1, '2024-01-01', %s, NULL, NULL, NULL) ON CONFLICT (source_id, timestamp) DO UPDATE"
            " SET close = excluded.close, is_anomaly = excluded.is_anomaly", [close])
    assert tx.execute("SELECT close, is_anomaly, quality_score > 0 FROM timeseries_data").fetchall() == [
        (2, False, True)]


ARGON2 = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM0NTY$" + "A" * 43
HASHES = [
    ARGON2, ARGON2.replace("argon2id", "argon2i"), f"argon2{ARGON2}",
    "$2b$12$" + "a" * 53, "$2y$10$" + "./" + "a" * 51, "bcrypt$$2b$12$" + "a" * 53, "bcrypt_sha256$$2b$12$" + "a" * 53,
    "$bcrypt-sha256$v=2,t=2b,r=12$" + "a" * 22 + "$" + "a" * 31,
    "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
    "scrypt$16384$abcdefghijklmnopqrstuv$8$5$" + "A" * 86 + "==", "scrypt:32768:8:1$abcdefgh12345678$" + "0f" * 64,
    "pbkdf2_sha256$1000000$abcdefghijklmnopqrstuv$" + "A" * 43 + "=", "pbkdf2_sha1$1$saltsalt$" + "A" * 27 + "=",
    "$pbkdf2-sha256$29000$N2YMIWQsBWBMae09x1jrPQ$1t8iyB2A.WF/Z5JZv.lfCIhXXN33N23OSgQYThBYRfk",
    "pbkdf2:sha256:600000$abcdefgh12345678$" + "0f" * 32, "$6$rounds=656000$saltsaltsalt$" + "a" * 86,
    "$5$saltsalt$" + "a" * 43, "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$" + "X" * 43,
]
NO_HASHES = [
    "", "secret", "hashed_password", "correct horse battery staple", "5f4dcc3b5aa765d61d8327deb882cf99", "0f" * 20,
    "0f" * 32, "0f" * 64, "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8", "md5$salt$" + "0f" * 16, "$1$salt$" + "a" * 22,
    "md5" + "0f" * 16, "sha1$salt$" + "0f" * 20, "$2b$12$short", ARGON2 + "\nplain", "plain\n" + ARGON2,
    "$argon2id$", "pbkdf2_sha256$1$s$x", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
    "XohImNooBHFR0OVvjcYpJ3NgPQ1qq73WKhHvch0VQtg=",
]


@pytest.mark.parametrize("view", ["users", "buddy_ai.users", "cryptovolt.users", "trading_manager.users"])
def test_hashes_in_use_are_taken_and_nothing_else(tx, view):
    column = "hashed_password" if view.startswith("buddy") else "password_hash"
    for n, value in enumerate([*HASHES, None]):
        tx.execute(f"INSERT INTO {view} (username, email, {column}) VALUES (%s, %s, %s)",
                   [f"u{n}", f"u{n}@x.org", value])
    for value in NO_HASHES:
        for statement in (f"INSERT INTO {view} (username, email, {column}) VALUES ('v', 'v@x.org', %s)",
                          f"UPDATE {view} SET {column} = %s WHERE username = 'u1'"):
            with pytest.raises(errors.CheckViolation) as refused, tx.transaction():
                tx.execute(statement, [value])
            diag = refused.value.diag
            assert diag.constraint_name == "users_password_hash_is_one"
            told = f"{diag.message_primary}{diag.message_detail}{diag.context}"
            assert not value or value not in told


def test_no_failing_row_of_an_account_is_told(tx):
    for columns, values in (("email", "NULL"), ("email", "'no address'"), ("username", "' '"), ("username", "NULL"),
                            ("app_role", "'king'")):
        other = {"email": "username, ", "username": "email, "}.get(columns, "username, email, ")
        given = {"email": "'u', ", "username": "'u@x.org', "}.get(columns, "'u', 'u@x.org', ")
        with pytest.raises(errors.Error) as refused, tx.transaction():
            tx.execute(f"INSERT INTO users ({other}{columns}, password_hash) VALUES ({given}{values}, '{ARGON2}')")
        assert ARGON2[-20:] not in f"{refused.value.diag.message_detail}{refused.value.diag.context}"


BARS = {  # view: columns, values, what identifies a bar, a figure
    "buddy_ai.ohlcv_data": ("symbol, market, timeframe, timestamp, close", "'A', 'STOCK', '1h', %s, %s", "close"),
    "buddy_ai.market_data": ("symbol, market, timestamp, price", "'A', 'STOCK', %s, %s", "price"),
    "cryptovolt.market_data": ("symbol, timestamp, close_price", "'A', %s, %s", "close_price"),
    "hyperliquid.candle_data": ("asset, timeframe, timestamp, close", "'A', '1h', %s, %s", "close"),
}


@pytest.mark.parametrize("view", BARS)
def test_do_nothing_neither_overwrites_nor_raises(tx, view):
    columns, values, figure = BARS[view]
    at = [NOON.replace(tzinfo=None if view.startswith("crypto") else dt.UTC) + n * dt.timedelta(hours=1)
          for n in range(3)]
    insert = f"INSERT INTO {view} ({columns}) VALUES ({values})"
    tx.execute(insert, [at[0], 1])
    for clause in (" ON CONFLICT DO NOTHING", " on conflict  do\nnothing", " ON CONFLICT DO NOTHING RETURNING *"):
        assert tx.execute(insert + clause, [at[0], 2]).rowcount == 0
    rows = f"{insert}, ({values}), ({values}) ON CONFLICT DO NOTHING"
    assert tx.execute(rows, [at[0], 2, at[1], 2, at[1], 3]).rowcount == 1
    # From a function, and in a WITH.
    tx.execute(f"CREATE FUNCTION pg_temp.put(at timestamptz, figure float) RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
               f" INSERT INTO {view} ({columns}) VALUES ({values.replace('%s', 'at', 1).replace('%s', 'figure')})"
               f" ON CONFLICT DO NOTHING; END $$")
    tx.execute("SET LOCAL timezone = 'UTC'")
    tx.execute("SELECT pg_temp.put(%s, 2)", [at[0]])
    assert tx.execute(f"WITH new AS ({insert} ON CONFLICT DO NOTHING RETURNING 1) SELECT count(*) FROM new",
                      [at[0], 2]).fetchone() == (0,)
    assert tx.execute(f"SELECT {figure} FROM {view} ORDER BY timestamp").fetchall() == [(1,), (2,)]
    # Words in a value are no clause.
    assert tx.execute(f"{insert} RETURNING 'ON CONFLICT DO NOTHING'", [at[2], 1]).rowcount == 1
    if view == "buddy_ai.ohlcv_data":
        with pytest.raises(errors.UniqueViolation), tx.transaction():
            tx.execute(f"{insert} RETURNING 'ON CONFLICT DO NOTHING'", [at[2], 2])
    else:
        tx.execute(f"{insert} RETURNING 'ON CONFLICT DO NOTHING'", [at[2], 2])
        assert tx.execute(f"SELECT {figure} FROM {view} ORDER BY timestamp DESC").fetchone() == (2,)


@pytest.mark.parametrize("view", BARS)
def test_do_nothing_is_what_the_inserts_into_that_view_say(tx, view):
    columns, values, figure = BARS[view]
    at = "'2024-03-01 12:00'"
    tx.execute("SET LOCAL timezone = 'UTC'")
    insert = f"INSERT INTO {view} ({columns}) VALUES ({values.replace('%s', at, 1)})"
    tx.execute(insert.replace("%s", "1"))
    schema, table = view.split(".")
    quoted = f'{schema}."{table}"'

    def write(statement):
        """What the bar holds after that statement, which gives it a 2."""
        with tx.transaction(force_rollback=True):
            try:
                with tx.transaction():
                    tx.execute(statement.replace("%s", "2"))
            except errors.UniqueViolation:
                return "refused"
            return tx.execute(f"SELECT {figure} FROM {view}").fetchone()[0]

    writes = "refused" if view == "buddy_ai.ohlcv_data" else 2
    clause = "ON CONFLICT DO NOTHING"
    other = f"INSERT INTO sources (name, data_type) VALUES ('n', 'scalar') {clause}"
    tx.execute(f"PREPARE put AS {insert.replace('%s', '2')} {clause}")
    tx.execute(f'PREPARE "Put" AS {insert.replace("%s", "2")}')
    for statement in (f"/* a */ {insert} {clause} /* b */", f"{insert} /* it's */ ON /* */ CONFLICT DO -- b\nNOTHING",
                      f"{insert.replace(view, quoted)} {clause}", f"{insert} {clause}; {other}",
                      f"{insert} {clause}; SELECT 1", f"{insert} {clause}; {insert} {clause}", "EXECUTE put",
                      f"WITH new AS ({insert} {clause} RETURNING 1) INSERT INTO sources (name, data_type)"
                      f" SELECT 'n', 'scalar' FROM new"):
        assert write(statement) == 1, statement
    for statement in (f"{insert} RETURNING $${clause}$$", f"{insert} RETURNING $a${clause}$a$",
                      f"{insert} RETURNING E'it\\'s {clause}'", f'{insert} RETURNING 1 AS "{clause}"',
                      f"{insert}; {other}", f"{other}; {insert}", f"WITH new AS ({other}) {insert}", 'EXECUTE "Put"',
                      f"{insert} -- {clause}", f"/* {clause} */ {insert}"):
        assert write(statement) == writes, statement
    for statement in (f"{insert}; {insert} {clause}", f"{insert} {clause}; {insert}"):
        with pytest.raises(errors.FeatureNotSupported) as refused, tx.transaction():
            tx.execute(statement.replace("%s", "2"))
        assert refused.value.diag.table_name == table
    # A view of one's own over it.
    tx.execute(f"CREATE TEMP VIEW mine AS SELECT * FROM {view}")
    assert write(f"{insert.replace(view, 'mine')} {clause}") == 1
    assert write(insert.replace(view, "mine")) == writes


@pytest.mark.parametrize("view", [view for view in BARS if view != "buddy_ai.ohlcv_data"])
def test_a_bar_that_forms_is_written_again_and_keeps_its_number(tx, view):
    columns, values, figure = BARS[view]
    key = "data_id" if view.startswith("crypto") else "id"
    at = NOON.replace(tzinfo=None if view.startswith("crypto") else dt.UTC)
    insert = f"INSERT INTO {view} ({columns}) VALUES ({values}) RETURNING {key}"
    [number] = tx.execute(insert, [at, 1]).fetchone()
    assert tx.execute(insert, [at, 2]).fetchone() == (number,)
    many = f"INSERT INTO {view} ({columns}) VALUES ({values}), ({values}), ({values}) RETURNING {key}"
    numbers = [n for (n,) in tx.execute(many, [at - dt.timedelta(hours=1), 5, at, 3, at + dt.timedelta(hours=1), 4])]
    assert numbers[1] == number
    assert tx.execute(f"SELECT {key}, {figure} FROM {view} ORDER BY timestamp").fetchall() == [
        (numbers[0], 5), (number, 3), (numbers[2], 4)]


@pytest.mark.parametrize("view", BARS)
def test_a_thousand_rows_are_stored_with_the_numbers_they_were_told(tx, view):
    columns, values, figure = BARS[view]
    key = "data_id" if view.startswith("crypto") else "id"
    source = values.replace("%s", "t.at", 1).replace("%s", "t.n")
    naive = " AT TIME ZONE 'UTC'" if view.startswith("crypto") else ""
    told = tx.execute(
        f"INSERT INTO {view} ({columns}) SELECT {source} FROM (SELECT n, (timestamptz '2024-01-01' + n * interval"
        f" '1 hour'){naive} AS at FROM generate_series(1, 1000) AS n) AS t RETURNING {key}, {figure}").fetchall()
    assert len(told) == 1000
    assert sorted(told) == sorted(tx.execute(f"SELECT {key}, {figure} FROM {view}").fetchall())


@pytest.mark.parametrize(("view", "columns", "values", "target"), [
    ("hyperliquid.strategy_rules", "id, name, entry_type", "'r', %s, 'x'", "id"),
    ("hyperliquid.learning_entries", "id, insight", "'r', %s", "id"),
    ("cryptovolt.models", "name, version, model_type, extra_data",
     "'m', '1', 'lstm', jsonb_build_object('a', %s::text)", "name, version"),
    ("buddy_ai.users", "username, email, full_name", "'a', 'a@example.org', %s", "email"),
    ("buddy_ai.users", "username, email, full_name", "'a', 'a@example.org', %s", "username"),
    ("trading_manager.assets", "symbol, asset_type, name", "'A', 'stock', %s", "symbol, exchange"),
])
def test_tables_over_one_table_take_on_conflict(tx, view, columns, values, target):
    column = columns.split(", ")[values.split(", ").index(next(v for v in values.split(", ") if "%s" in v))] \
        if "jsonb" not in values else "extra_data"
    insert = f"INSERT INTO {view} AS t ({columns}) VALUES ({values}) ON CONFLICT ({target})"
    for n, clause in ((1, "DO NOTHING"), (0, "DO NOTHING"), (1, f"DO UPDATE SET {column} = excluded.{column}")):
        assert tx.execute(f"{insert} {clause}", ["x" * (n + 1)]).rowcount == n
