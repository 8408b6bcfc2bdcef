"""Grafana: queries with its macros, and every query of the dashboards in grafana/, as the role it logs in with."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta

import psycopg
import pytest
import yaml
from psycopg import sql

from clients.conftest import NOW
from clients.grafana import expand
from tidemark import query
from tidemark.config import ROOT

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "grafana/dashboards").glob("*.json"))}
PANELS = [(name, panel) for name, board in DASHBOARDS.items() for panel in board["panels"]]
# What the panels and the report ask alike is one file of queries/; a panel has its parameters filled in.
SHARED = {"Waiting for a review": ("open_episodes", {"count": "50"}), "Freshness of each series": ("freshness", {}),
          "Hypertables": ("hypertables", {})}
MAY_BE_EMPTY = {"Jobs"}  # TimescaleDB's own, which a server may do without
_serial = itertools.count(1)


@pytest.fixture(scope="module")
def login(desk) -> Iterator:
    """`login("market_data")`: a connection as a role with no more rights than that dashboard asks for."""
    role = sql.Identifier(f"tidemark_test_viewer_{next(_serial)}")
    with desk.database.connect() as admin:
        admin.execute(sql.SQL("CREATE ROLE {} IN ROLE tidemark_reader").format(role))
        watcher = sql.SQL("{}").format(sql.Identifier(f"tidemark_test_watcher_{next(_serial)}"))
        admin.execute(sql.SQL("CREATE ROLE {} IN ROLE tidemark_reader, pg_monitor").format(watcher))

        def connect(dashboard: str) -> psycopg.Connection:
            connection = desk.database.connect()
            chosen = watcher if dashboard == "operations" else role
            connection.execute(sql.SQL("SET ROLE {}").format(chosen))
            connection.execute("SET default_transaction_read_only = on; SET search_path = public")
            return connection

        yield connect
        admin.execute(sql.SQL("DROP ROLE {}, {}").format(role, watcher))


def asked(query: str, desk, **options) -> str:
    """`query` with `$__interval` of five minutes and the dashboard's variable `interval` set to one-minute bars."""
    return expand(query.replace("${interval}", "1m"), start=options.get("start", NOW - timedelta(hours=24)),
                  end=options.get("end", NOW), interval=options.get("width", "5m"), asset=str(desk.asset))


def test_time_filter_takes_the_period_with_both_ends(desk, login):
    with login("market_data") as connection:
        rows = connection.execute(asked(
            "SELECT c.ts AS time, c.close FROM candles AS c WHERE c.asset_id = '$asset' AND $__timeFilter(c.ts)"
            " ORDER BY 1", desk, start=desk.spike, end=desk.spike + timedelta(minutes=2),
        )).fetchall()
    assert [at for at, _ in rows] == [desk.spike + timedelta(minutes=i) for i in range(3)]
    assert rows[0][1] > rows[1][1] * 1.05


def test_interval_groups_rows_into_buckets_of_that_width(desk, login):
    with login("market_data") as connection:
        rows = connection.execute(asked(
            "SELECT $__timeGroupAlias(c.ts, $__interval), count(*) FROM candles AS c WHERE $__timeFilter(c.ts)"
            " AND c.ts >= $__timeFrom()::timestamptz AND c.ts < $__timeTo() GROUP BY 1 ORDER BY 1", desk, width="30m",
        )).fetchall()
    assert rows == [(NOW - timedelta(minutes=300 - 30 * i), 30) for i in range(10)]


def test_interval_as_text_and_the_same_bucket_by_sql(desk, login):
    with login("market_data") as connection:
        assert connection.execute(asked(
            "SELECT count(*) FROM (SELECT $__timeGroup(c.ts, '1h') AS a, time_bucket('$__interval', c.ts) AS b"
            " FROM candles AS c) AS g WHERE g.a = g.b", desk, width="1h",
        )).fetchone() == (300,)


def test_unknown_macro_or_variable_is_noticed():
    with pytest.raises((KeyError, ValueError)):
        expand("SELECT $__timeFiltre(ts)", start=NOW, end=NOW)
    with pytest.raises(ValueError, match="nobody"):
        expand("SELECT '${asset}'", start=NOW, end=NOW)


@pytest.mark.parametrize(("dashboard", "panel"), PANELS, ids=[f"{name}: {p['title']}" for name, p in PANELS])
def test_panel_is_answered_with_rows_for_a_mere_reader(desk, login, dashboard, panel):
    assert panel["targets"]
    with login(dashboard) as connection:
        for target in panel["targets"]:
            cursor = connection.execute(asked(target["rawSql"], desk))
            rows, columns = cursor.fetchall(), [column.name for column in cursor.description]
            assert rows or panel["title"] in MAY_BE_EMPTY
            assert len(set(columns)) == len(columns)
            if target["format"] == "time_series":
                times = [row[columns.index("time")] for row in rows]
                assert all(isinstance(at, datetime) and at.tzinfo for at in times)
                assert times == sorted(times)
                assert cursor.description[columns.index("time")].type_display == "timestamptz"
                values = [c for c in cursor.description if c.name not in ("time", "metric")]
                assert values
                assert {c.type_display for c in values} <= {"float8", "int8"}
            # Grafana shows an interval as text that neither sorts nor has a unit.
            assert "interval" not in {column.type_display for column in cursor.description}


@pytest.mark.parametrize("title", SHARED)
def test_question_that_the_report_asks_too_is_the_file_of_queries(title):
    (asked_by_panel,) = (panel["targets"][0]["rawSql"] for _, panel in PANELS if panel["title"] == title)
    name, values = SHARED[title]
    body = query.load(name).body
    for parameter, value in values.items():
        body = body.replace(f":{parameter}", value)
    assert asked_by_panel == body


@pytest.mark.parametrize("variable", ["asset", "interval"])
def test_variables_offer_what_there_is(desk, login, variable):
    (query,) = (v["query"] for v in DASHBOARDS["market_data"]["templating"]["list"] if v["name"] == variable)
    with login("market_data") as connection:
        expected = {"asset": [("BTCUSDT", str(desk.asset))], "interval": [("1m",)]}
        assert connection.execute(asked(query, desk)).fetchall() == expected[variable]


def test_market_data_shows_the_spike_and_the_impossible_bar(desk, login):
    queries = {panel["title"]: panel["targets"][0]["rawSql"] for panel in DASHBOARDS["market_data"]["panels"]}
    with login("market_data") as connection:
        flagged = connection.execute(asked(queries["Flagged bars"], desk)).fetchall()
        assert desk.spike in [at for at, *_ in flagged]
        lost = connection.execute(asked(queries["Why points were lost"], desk)).fetchall()
        assert (desk.impossible, "validation", 10, "candles_bar_consistent") in [row[:4] for row in lost]
        lowest = min(row[2] for row in connection.execute(asked(queries["Quality score"], desk)))
        assert lowest < 100


def test_operations_shows_the_gap_and_other_roles_sessions(desk, login):
    queries = {panel["title"]: panel["targets"][0]["rawSql"] for panel in DASHBOARDS["operations"]["panels"]}
    with desk.database.connect(application_name="the other") as other, login("operations") as connection:
        gaps = connection.execute(asked(queries["Missing bars"], desk)).fetchall()
        assert ("btc_price", desk.gap, desk.gap + timedelta(hours=3), 3) in gaps
        other.execute("BEGIN")
        other.execute("SELECT 1")
        sessions = connection.execute(asked(queries["Sessions"], desk)).fetchall()
        assert [(state, count) for _, name, state, count, *_ in sessions if name == "the other"] == [
            ("idle in transaction", 1)]
        other.execute("ROLLBACK")


def test_operations_needs_pg_monitor_for_other_roles_sessions(desk, login):
    """Why the documented setup grants it: without, the panel is there but says nothing."""
    (query,) = (p["targets"][0]["rawSql"] for p in DASHBOARDS["operations"]["panels"] if p["title"] == "Sessions")
    with desk.database.connect(application_name="the other"), login("market_data") as connection:
        states = {state for _, name, state, *_ in connection.execute(asked(query, desk)) if name == "the other"}
    assert states <= {None}


def test_dashboards_read_the_provisioned_source_and_have_no_two_panels_in_one_place():
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/tidemark.yaml").read_text())["datasources"]
    assert sorted(DASHBOARDS) == ["market_data", "operations"]
    for board in DASHBOARDS.values():
        assert board["schemaVersion"] >= 36
        named = [*board["panels"], *board["templating"]["list"], *(t for p in board["panels"] for t in p["targets"])]
        assert {(one["datasource"]["type"], one["datasource"]["uid"]) for one in named} == {
            (source["type"], source["uid"])}
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        places = [panel["gridPos"] for panel in board["panels"]]
        cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24


def test_container_is_found_on_loopback_only_with_no_password_of_its_own():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    service = compose["services"]["grafana"]
    assert all(port.startswith("127.0.0.1:") for one in compose["services"].values() for port in one["ports"])
    assert {value for name, value in service["environment"].items() if "PASSWORD" in name} == {
        "${GRAFANA_PASSWORD:-}", "${GRAFANA_DB_PASSWORD:-}"}
    assert service["profiles"] == ["grafana"]
    example = (ROOT / ".env.example").read_text()
    for name in ("GRAFANA_PASSWORD", "GRAFANA_DB_PASSWORD"):
        assert f"\n{name}=\n" in example
    mounted = {volume.split(":")[0] for volume in service["volumes"] if volume.startswith("./")}
    assert all((ROOT / folder).is_dir() for folder in mounted)
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/tidemark.yaml").read_text())["providers"]
    inside = {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}
    assert inside[provider["options"]["path"]] == "./grafana/dashboards"


@pytest.mark.parametrize(("own", "database", "starts"), [
    ("", "", False), ("secret", "", False), ("", "secret", False), ("secret", "secret", True)])
def test_container_does_not_start_without_passwords(tmp_path, own, database, starts):
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    shell, flag, script = service["entrypoint"]
    started = tmp_path / "started"
    script = script.replace("$$", "$").replace("exec /run.sh", f"exec touch {started}")
    done = subprocess.run([shell, flag, script], capture_output=True, text=True, check=False, env={
        "PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": own, "GRAFANA_DB_PASSWORD": database})
    assert started.exists() is starts
    assert (done.returncode == 0) is starts


def test_login_file_makes_a_role_that_reads_and_cannot_write(desk):
    source = yaml.safe_load((ROOT / "grafana/provisioning/datasources/tidemark.yaml").read_text())["datasources"][0]
    role = source["user"]

    def run(**environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", desk.database.url, "-f", ROOT / "grafana/login.sql"],
            env={k: v for k, v in os.environ.items() if k != "GRAFANA_DB_PASSWORD"} | environment,
            capture_output=True, text=True, check=False,
        )

    with desk.database.connect() as admin:
        assert admin.execute("SELECT to_regrole(%s)", [role]).fetchone() == (None,), "the server is not the tests' own"
        assert run().returncode == 3
        assert run(GRAFANA_DB_PASSWORD="").returncode == 3
        assert admin.execute("SELECT to_regrole(%s)", [role]).fetchone() == (None,)
        try:
            for password in ("it's secret", "another"):
                done = run(GRAFANA_DB_PASSWORD=password)
                assert (done.returncode, done.stderr.count("ERROR")) == (0, 0), done.stderr
            assert admin.execute(
                "SELECT rolcanlogin, rolsuper, rolpassword LIKE 'SCRAM-SHA-256$%%' FROM pg_authid WHERE rolname = %s",
                [role],
            ).fetchone() == (True, False, True)
            with desk.database.connect() as connection:
                connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
                assert connection.execute("SELECT count(*) FROM candles").fetchone() == (300,)
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("DELETE FROM candles")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("SELECT FROM users")
        finally:
            admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
