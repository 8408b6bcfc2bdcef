"""A database with a desk's weeks in it, faults among them, and a browser to look at pages with."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from conftest import Database, _database, adder

START = datetime(2024, 3, 4, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)
HOURS = 24 * 42
HOSTILE = "</script><img src=x onerror=document.title='gotcha'>"


def fill(connection: psycopg.Connection) -> SimpleNamespace:
    """Hourly candles of a coin over six weeks: a spike, a split, an impossible bar, ten hours missing, a late row, an
    alert; the same of another without any fault; a source of figures; and one with an evil name."""
    add = adder(connection)
    asset = add("assets", symbol="BTCUSDT", asset_type="crypto")
    calm = add("assets", symbol="ETHUSDT", asset_type="crypto")
    rate = add("sources", name="hash_rate", data_type="scalar", interval="1h", status="paused")
    evil = add("sources", name=HOSTILE, data_type="scalar", interval="1h", status="paused")
    generator, prices = random.Random(11), [100.0]
    while len(prices) < HOURS:
        prices.append(prices[-1] * math.exp(generator.gauss(0, 0.001)))
    times = [START + n * HOUR for n in range(HOURS)]
    found = SimpleNamespace(
        asset=asset, calm=calm, rate=rate, times=times, spike=times[500], split=times[800], impossible=times[300],
        gap=(times[600], times[610]), late=times[-1],
    )
    prices[500] *= 1.06
    bars = [[a, max(a, b) * 1.001, min(a, b) * 0.999, b, 10.0 + n % 24]
            for n, (a, b) in enumerate(zip([prices[0], *prices], prices, strict=False))]
    for bar in bars[800:]:
        bar[:4] = [value / 2 for value in bar[:4]]
    bars[300][1:3] = [bars[300][0] * 0.99, bars[300][0] * 1.01]
    found.prices = [bar[3] for bar in bars]

    def copy(table: str, columns: str, rows: list[tuple]) -> None:
        with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as stream:
            for row in rows:
                stream.write_row(row)

    with connection.transaction():
        connection.execute("SET LOCAL tidemark.ingest_mode = 'backfill'")
        for which, rows in ((asset, bars), (calm, [[50, 50.1, 49.9, 50 + math.sin(n), 1] for n in range(HOURS)])):
            copy("candles", "asset_id, interval, ts, open, high, low, close, volume", [
                (which, "1h", at, *bar) for n, (at, bar) in enumerate(zip(times, rows, strict=True))
                if which == calm or (not 600 <= n < 610 and at != found.late)])
        for which in (rate, evil):
            copy("timeseries_data", "source_id, timestamp, value",
                 [(which, at, 600 + n % 7) for n, at in enumerate(times)])
    with connection.transaction():  # a row that comes months after its time
        connection.execute("SET LOCAL tidemark.reason = 'late is late'")
        connection.execute("UPDATE quality_profiles SET allowed_lag = interval '1 day' WHERE name = 'candle_1h'")
        copy("candles", "asset_id, interval, ts, open, high, low, close, volume",
             [(asset, "1h", found.late, *bars[-1])])
    user = add("users", username="ann", email="ann@example.org")
    add("alerts", user_id=user, asset_id=asset, condition="above", target_value=104)
    connection.execute(
        "SELECT review_anomaly(anomaly_id, 'expected', 'two for one') FROM anomalies WHERE timestamp = %s AND asset_id"
        " = %s", (found.split, asset))
    connection.execute("CALL refresh_aggregates()")
    connection.execute("ANALYZE")
    return found


@pytest.fixture(scope="module")
def desk(server: SimpleNamespace, template: str) -> Iterator[SimpleNamespace]:
    """A migrated database with those rows; `desk.database` is where, the rest is what to look for."""
    with _database(server, template) as database:
        with database.connect() as connection:
            found = fill(connection)
        yield SimpleNamespace(database=database, **vars(found))


@pytest.fixture
def asked(desk: SimpleNamespace) -> Iterator[psycopg.Connection]:
    """An autocommit connection to it, as the command line has one."""
    database: Database = desk.database
    with database.connect() as connection:
        yield connection


class Browser:
    """Headless Chromium with a page open; what it complained of and asked for is kept."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, *, width: int = 1400, scheme: str = "light") -> None:
        """Open a file, as wide and in the colours that the user would have."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.driver.get_log("performance"), self.driver.get_log("browser")
        self.driver.get(path.resolve().as_uri())

    def ask(self, script: str) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script)

    def complaints(self) -> list[str]:
        """What is on the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [message["params"]["request"]["url"] for message in messages
                if message["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium, where it is installed; nothing is downloaded."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("Chromium is not on this machine: apt-get install chromium chromium-driver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                     "disable-background-networking", "disable-component-update", "disable-dev-shm-usage",
                     f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, Service(programs[1]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture
def run(desk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`run(*arguments)` calls tidemark on the desk's database."""
    from click.testing import CliRunner

    from tidemark.cli import main

    monkeypatch.setenv("DATABASE_URL", desk.database.url)
    return lambda *arguments: CliRunner().invoke(main, arguments)
