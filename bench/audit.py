"""What the record and row-level security cost.

Whatever is compared takes turns, and the medians of the turns are divided. Single rows are updated by eight processes
with psycopg, each change a transaction of its own; for statements over many rows the time on the processor is compared
too, which does not depend on what else the machine does.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable

import psycopg

from bench.quality import processor_time
from tidemark import migrations

CLIENTS = 8
ROWS = 100_000
OWNED, OWNERS = 1_000, 1_000  # a million rows


def client(url: str, number: int, seconds: float, start: multiprocessing.Event, done: multiprocessing.Queue) -> None:
    with psycopg.connect(url) as connection:
        count = 0
        start.wait()
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            connection.execute("UPDATE assets SET name = %s WHERE symbol = %s",
                               [f"{number} {count}", f"A{(count * CLIENTS + number) * 7919 % ROWS}"])
            connection.commit()
            count += 1
        done.put(count)


def sealer(url: str, stop: multiprocessing.Event) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not stop.wait(0.5):
            connection.execute("SELECT seal_audit()")


def rate(url: str, seconds: float, sealing: bool = False) -> float:
    """Transactions a second of all clients together."""
    start, stop, done = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Queue()
    clients = [multiprocessing.Process(target=client, args=(url, n, seconds, start, done)) for n in range(CLIENTS)]
    if sealing:
        clients.append(multiprocessing.Process(target=sealer, args=(url, stop)))
    for process in clients:
        process.start()
    time.sleep(0.5)
    start.set()
    total = sum(done.get() for _ in range(CLIENTS))
    stop.set()
    for process in clients:
        process.join()
    return total / seconds


def by_turns(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Medians of two measurements that take turns."""
    pairs = [(one(), other()) for _ in range(rounds)]
    return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)


class Bench:
    def __init__(self, url: str, seconds: float, rounds: int) -> None:
        self.url, self.seconds, self.rounds = url, seconds, rounds
        self.connection = psycopg.connect(url, autocommit=True)
        migrations.migrate(self.connection)
        self.execute("INSERT INTO assets (symbol, asset_type, name, exchange, sector, industry)"
                     " SELECT 'A' || i, 'stock', 'name ' || i, 'XNYS', 'sector', 'industry'"
                     " FROM generate_series(0, %s) AS i", [ROWS - 1])
        self.execute("INSERT INTO signals (asset_id, ts, signal_type, strength, confidence, price, strategy,"
                     " rationale) SELECT asset_id, '2025-01-01', 'buy', 0.5, 0.6, 100, 'momentum', 'because'"
                     " FROM assets")
        self.execute("VACUUM ANALYZE")

    def execute(self, statement: str, parameters: list | None = None) -> psycopg.Cursor:
        return self.connection.execute(statement, parameters)

    def audit(self, table: str, wanted: bool) -> None:
        self.execute(f"SELECT {'attach' if wanted else 'detach'}_audit('{table}')")
        self.execute(f"VACUUM {table}")

    def single_rows(self, wanted: bool) -> float:
        self.audit("assets", wanted)
        return rate(self.url, self.seconds)

    def many_rows(self, table: str, assignment: str, wanted: bool) -> tuple[float, float]:
        """Seconds on the clock and on the processor."""
        self.audit(table, wanted)
        self.execute("CHECKPOINT")
        pid, before, begun = self.connection.info.backend_pid, 0.0, 0.0
        before, begun = processor_time(pid), time.perf_counter()
        self.execute(f"UPDATE {table} SET {assignment}")
        return time.perf_counter() - begun, processor_time(pid) - before

    def bytes_per_field(self) -> float:
        """Bytes of record for one changed field beside a column of 50 kB."""
        self.execute("CREATE TABLE wide (id integer PRIMARY KEY, small integer, large text)")
        self.execute("SELECT attach_audit('wide', p_inserts => false)")
        self.execute("INSERT INTO wide SELECT i, 0, (SELECT string_agg(md5(i || ' ' || n), '')"
                     " FROM generate_series(1, 1600) AS n) FROM generate_series(1, 2000) AS i")
        size = "SELECT pg_total_relation_size('audit_log') + pg_total_relation_size('audit_tx')"
        before = self.execute(size).fetchone()[0]
        self.execute("UPDATE wide SET small = 1")
        return (self.execute(size).fetchone()[0] - before) / 2000

    def prepare_policy(self) -> str:
        """A million alerts of a thousand users; returns one of them."""
        self.execute("SELECT detach_audit('alerts')")
        self.execute("INSERT INTO users (user_id, username, email)"
                     " SELECT lpad(i::text, 32, '0')::uuid, 'u' || i, i || '@example.org'"
                     " FROM generate_series(1, %s) AS i", [OWNERS])
        self.execute("INSERT INTO alerts (user_id, asset_id, condition, target_value, is_active)"
                     " SELECT u.user_id, a.asset_id, 'above', n, false FROM generate_series(1, %s) AS n"
                     " CROSS JOIN users AS u CROSS JOIN (SELECT asset_id FROM assets LIMIT 1) AS a", [OWNED])
        self.execute("VACUUM ANALYZE alerts")
        return "00000000-0000-0000-0000-000000000007"

    def policy(self, user: str, wanted: bool) -> float:
        """Milliseconds of a query for one user's alerts: by the policy, or by a condition without it."""
        with self.connection.transaction(force_rollback=True):
            condition = ""
            if wanted:
                self.execute("SET LOCAL ROLE tidemark_app")
                self.execute("SELECT set_config('tidemark.user_id', %s, true)", [user])
            else:
                condition = f"WHERE user_id = '{user}'"
            query = f"SELECT count(*), sum(target_value) FROM alerts {condition}"
            assert self.execute(query).fetchone()[0] == OWNED
            begun = time.perf_counter()
            for _ in range(50):
                self.execute(query).fetchone()
            return (time.perf_counter() - begun) * 20

    def run(self) -> list[tuple[str, str, str, float, str, bool]]:
        """What, with, without, their ratio, what is required, whether it is met."""
        found = []

        def compare(what: str, audited: float, plain: float, required: float, unit: str, *, at_least: bool = True,
                    ) -> None:
            ratio = audited / plain
            met = ratio >= required if at_least else ratio <= required
            found.append((what, f"{audited:,.2f} {unit}", f"{plain:,.2f} {unit}", ratio,
                          f"{'>=' if at_least else '<='} {required}", met))

        compare("single-row UPDATE, 8 clients", *by_turns(
            self.rounds, lambda: self.single_rows(True), lambda: self.single_rows(False)), 0.6, "tx/s")
        for table, assignment in (("signals", "is_active = NOT is_active, rationale = rationale || '.'"),
                                  ("assets", "name = name || '.'")):
            turns = [(self.many_rows(table, assignment, True), self.many_rows(table, assignment, False))
                     for _ in range(self.rounds)]
            for place, clock in enumerate(("clock", "processor")):
                audited, plain = (statistics.median(turn[side][place] for turn in turns) for side in (0, 1))
                compare(f"UPDATE of 100,000 {table}, {clock}", ROWS / audited, ROWS / plain, 0.3, "rows/s")
        self.audit("assets", True)
        compare("sealing meanwhile", *by_turns(
            self.rounds, lambda: rate(self.url, self.seconds, sealing=True), lambda: rate(self.url, self.seconds)),
            0.9, "tx/s")
        size = self.bytes_per_field()
        found.append(("bytes per field beside 50 kB", f"{size:,.0f} bytes", "", size, "< 2000", size < 2000))
        user = self.prepare_policy()
        compare("policy, 1,000 of 1 M rows", *by_turns(
            self.rounds, lambda: self.policy(user, True), lambda: self.policy(user, False)), 1.2, "ms", at_least=False)
        return found


def run(url: str, seconds: float = 4, rounds: int = 5) -> None:
    """Measure in an empty database and print."""
    print(f"the record: {CLIENTS} clients, {rounds} rounds of {seconds:g} s")
    print(f"{'':34} {'with':>18} {'without':>18} {'ratio':>7}  required")
    for what, audited, plain, ratio, required, met in Bench(url, seconds, rounds).run():
        print(f"{what:34} {audited:>18} {plain:>18} {ratio:7.2f}  {required}{'' if met else '  NOT MET'}", flush=True)
