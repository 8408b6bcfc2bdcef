"""Whatever dies, and whenever: what was acknowledged is there, whole and once; what was not can be done again."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg

from faults.harness import (
    BATCH_ROWS,
    EFFORT,
    chooser,
    clone,
    connect,
    content,
    durable,
    kill,
    ledger,
    partial,
    prepare,
    tell,
    write,
)
from tidemark.server import Server


class Client:
    """Writes one batch after the other until its server is gone; knows which ones were acknowledged."""

    def __init__(self, server: Server, name: str, first: int) -> None:
        self.connection = connect(server, name)
        self.upcoming = first
        self.acknowledged: set[int] = set()
        self.failure: Exception | None = None
        self.is_warm = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with suppress(psycopg.OperationalError), self.connection:
                while True:
                    write(self.connection, self.upcoming)
                    self.acknowledged.add(self.upcoming)
                    self.upcoming += 1
                    self.is_warm.set()
        except psycopg.Error as failure:  # a refusal, where only death was expected
            self.failure = failure
            self.is_warm.set()

    def ended(self) -> None:
        """Wait for its end; raises what it was refused with."""
        self.thread.join()
        if self.failure:
            raise self.failure


def interrupted(server: Server, name: str, instants: int, seed: str) -> tuple[set[int], set[int], int]:
    """Kill the server `instants` times while a client writes; (acknowledged, lost, next batch)."""
    random = chooser(seed)
    acknowledged: set[int] = set()
    lost: set[int] = set()
    unknown: set[int] = set()  # being acknowledged when the server died: there or not
    upcoming = 0
    for _ in range(instants):
        client = Client(server, name, upcoming)
        if random.random() < 0.8:
            assert client.is_warm.wait(30)
        time.sleep(random.uniform(0, 0.2))
        kill(server, everything=random.random() < 0.5)
        client.ended()
        server.start()
        with connect(server, name) as connection:
            there = ledger(connection)
            assert partial(connection) == []
        acknowledged |= client.acknowledged
        unknown.add(client.upcoming)
        lost |= acknowledged - there
        assert there <= acknowledged | unknown
        upcoming = max(there, default=-1) + 1
    return acknowledged, lost, upcoming


def test_22_killed_server_keeps_every_acknowledged_batch_with_all_that_follows_from_it(victim, edition):
    clone(victim, "crash")
    with connect(victim, "crash") as connection:
        prepare(connection)
    acknowledged, lost, upcoming = interrupted(victim, "crash", 20 * EFFORT, f"22 {edition}")
    tell(f"22 {edition}: server killed at {20 * EFFORT} instants, {len(acknowledged)} batches acknowledged,"
         f" {len(lost)} lost")
    assert len(acknowledged) > 20 * EFFORT
    assert lost == set()
    clone(victim, "calm")
    with connect(victim, "calm") as connection:
        prepare(connection)
        for batch in range(upcoming):
            write(connection, batch)
        expected = content(connection)
    with connect(victim, "crash") as connection:
        assert content(connection) == expected
    assert expected["rows"][0] == upcoming * BATCH_ROWS
    assert expected["anomalies"][0] > 0
    assert expected["record"][0] > upcoming
    assert expected["transactions"][0] == 0


def test_22_the_same_harness_sees_loss_where_commits_are_not_flushed(edition):
    """The control: were nothing lost here either, the test above would prove nothing."""
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "0"}
    with durable(edition, settings) as server:
        clone(server, "control")
        with connect(server, "control") as connection:
            prepare(connection)
        acknowledged, lost, _ = interrupted(server, "control", 4, "control")
    tell(f"22 {edition}, control with synchronous_commit = off: 4 instants, {len(acknowledged)} batches acknowledged,"
         f" {len(lost)} lost")
    assert lost
