"""Mutations of the runner, the loader and the server's settings: crashes, crowds, migrations, backups."""

from __future__ import annotations

from collections.abc import Callable

from tidemark import installation, migrations, server

from . import Mutation, recoded, reworded

CRASHES, LOADING = "faults/test_crashes.py", "faults/test_loading_under_fire.py"
MIGRATIONS, BACKUP = "faults/test_migrations_under_fire.py", "test_backup.py"


def server_setting(**settings: str) -> Callable[[], None]:
    """Every throw-away server has these settings, whatever its test wants."""

    def patch() -> None:
        original = server.throwaway

        def throwaway(
            where: installation.Installation, edition: str, wanted: dict[str, str] | None = None
        ) -> object:
            return original(where, edition, (wanted or {}) | settings)

        server.throwaway = throwaway

    return patch


def statement(name: str, before: str, after: str) -> Callable[[], None]:
    """The loader says something else to the database."""
    return reworded("tidemark.statements", "STATEMENTS", name, before, after)


def all_of(*patches: Callable[[], None]) -> Callable[[], None]:
    return lambda: [patch() for patch in patches] and None


def constant(module: object, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(module, name, value)


LAZY = server_setting(synchronous_commit="off", wal_writer_delay="10s", wal_writer_flush_after="0")

MUTATIONS = [
    Mutation(22, "commits are acknowledged before they are on disk", "",
             CRASHES, "test_22_killed_server_keeps_every_acknowledged_batch_with_all_that_follows_from_it",
             patch=LAZY),
    Mutation(22, "penalties and anomalies do not survive a crash",
             "DO $$ DECLARE r record; BEGIN FOR r IN SELECT c.conrelid::regclass AS t, c.conname AS n"
             " FROM pg_constraint AS c WHERE c.confrelid = 'anomalies'::regclass AND c.conrelid <> c.confrelid LOOP"
             " EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', r.t, r.n); END LOOP; END $$;"
             " ALTER TABLE anomalies SET UNLOGGED",
             CRASHES, "test_22_killed_server_keeps_every_acknowledged_batch_with_all_that_follows_from_it"),
    Mutation(23, "the loader notes a batch before it stores it", "", LOADING, "test_23_killed_loader_is_completed",
             patch=recoded(
                 "tidemark.loader:_File._transaction", "task=self.task, read=read,", "task=self.task, read=0,",
                 ("    with self.conn.transaction():",
                  '    execute(self.conn, "count", task=self.task, read=read, written=0, rejected=0,'
                  " collapsed=0, empty=0)\n"
                  "    with self.conn.transaction():"))),
    Mutation(23, "the loader forgets which batch it had reached", "",
             LOADING, "test_23_killed_loader_is_completed",
             patch=recoded("tidemark.loader:_File._run", "self._batches(skip)", "self._batches(0)")),
    Mutation(23, "a file that somebody began to load counts as loaded", "",
             LOADING, "test_23_killed_loader_is_completed",
             patch=statement("find_task", "t.status = 'succeeded' AS done", "true AS done")),
    Mutation(23, "a lost connection is not explained", "", LOADING, "test_23_loader_that_loses_its_connection",
             patch=recoded("tidemark.loader:_File.load", "raise self._stopped(problem) from problem", "raise")),
    Mutation(24, "loaders of one file do not take turns", "", LOADING, "test_24_of_eight_loaders",
             patch=all_of(statement("lock", "pg_advisory_lock(%(key)s)", "%(key)s"),
                          statement("unlock", "pg_advisory_unlock(%(key)s)", "%(key)s"))),
    Mutation(25, "the loader keeps it to itself that the disk is full", "", LOADING, "test_25_full_tablespace",
             patch=recoded("tidemark.loader:_File.load", "raise self._stopped(problem) from problem",
                           "self._stopped(problem); counts = (0, 0, 0)")),
    Mutation(25, "commits are acknowledged before they are on disk, which is full", "",
             LOADING, "test_25_full_wal_stops_the_server_and_loses_nothing", patch=LAZY),
    Mutation(26, "the loader connects anew for each batch", "", LOADING, "test_26_storm",
             patch=recoded("tidemark.loader:_File._transaction", "    with self.conn.transaction():",
                           "    psycopg.connect(self.conn.info.dsn).close()\n    with self.conn.transaction():")),
    Mutation(27, "a file and its mark are two transactions", "", MIGRATIONS, "test_27_each_migration",
             patch=recoded("tidemark.migrations:_apply_state", "    backend.mark_one(",
                           "    pass\n    with _transaction(backend):\n        backend.mark_one(")),
    Mutation(28, "runners do not take turns", "", MIGRATIONS, "test_28_ten_runners",
             patch=recoded("tidemark.migrations:_runner_lock", "pg_try_advisory_lock("
                           "hashtextextended('tidemark.migrate', 0))", "true")),
    Mutation(28, "a killed runner keeps the lock while its statement runs", "",
             MIGRATIONS, "test_28_runner_killed_in_the_middle",
             patch=all_of(recoded("tidemark.migrations:_runner_lock", "'500ms'", "'0'"),
                          constant(migrations, "WAIT_FOR_RUNNER_S", 6))),
    Mutation(29, "a renamed file is not noticed", "", MIGRATIONS, "test_29_renamed_file",
             patch=recoded("tidemark.migrations:make_plan", "name not in on_disk and not is_logic(name)", "False")),
    Mutation(29, "an edited file is not noticed", "", "test_migrations.py", "edited",
             patch=recoded("tidemark.migrations:make_plan", "on_disk[name].sha256 != digest", "False")),
    Mutation(29, "a file waits for a lock as long as it takes", "", MIGRATIONS, "test_29_every_file_runs",
             patch=recoded("tidemark.migrations:_transaction", "{LOCK_TIMEOUT_S}s", "0")),
    Mutation(29, "readers queue behind a migration that waits", "", MIGRATIONS, "test_29_migration_in_the_way",
             patch=recoded("tidemark.migrations:_transaction", "{LOCK_TIMEOUT_S}s", "{LOCK_TIMEOUT_S * 10}s")),
    Mutation(30, "rows are counted and not compared", "", BACKUP, "comparison_sees_that and value",
             patch=recoded("tidemark.backup:_fingerprint", "hashtextextended(ROW(t.*)::text, 0)", "1")),
    Mutation(30, "sequences are not compared", "", BACKUP, "comparison_sees_that and sequence",
             patch=recoded("tidemark.backup:differences", "in manifest.sequences.items()", "in ()")),
    Mutation(30, "definitions are not compared", "", BACKUP, "comparison_sees_that and (trigger or policy)",
             patch=recoded("tidemark.backup:differences", "objects.get(name) != definition", "name not in objects")),
    Mutation(30, "the dump is of another instant than the manifest", "", BACKUP, "test_backup_is_of_one_instant",
             patch=recoded("tidemark.backup:_logical", 'f"--snapshot={snapshot}", ', "")),
    Mutation(30, "rows that are hidden from the role are left out", "",
             BACKUP, "test_role_bound_by_row_security_is_refused",
             patch=recoded("tidemark.backup:_logical", "refuse_reader(connection)", "pass")),
    Mutation(30, "jobs run while a restore is under way", "", BACKUP, "test_nobody_writes_while",
             patch=recoded("tidemark.backup:restore", "SELECT public.timescaledb_pre_restore()", "SELECT 1")),
    Mutation(30, "a database restored stays in restore", "", BACKUP, "test_nobody_writes_while",
             patch=recoded("tidemark.backup:restore", "SELECT public.timescaledb_post_restore()", "SELECT 1")),
    Mutation(30, "roles do not come along", "", BACKUP, "test_verify_accepts",
             patch=recoded("tidemark.backup:_create_roles", "for role in missing:\n            options",
                           "for role in missing[1:]:\n            options")),
    Mutation(30, "the manifest does not name the seal", "", BACKUP, "test_manifest_names_the_last_seal",
             patch=recoded("tidemark.backup:last_seal", "next(iter(_rows(connection, \"seal\")), None)", "None")),
    Mutation(30, "a physical backup comes without its log", "", BACKUP, "test_physical_backup",
             patch=recoded("tidemark.backup:_physical", "--wal-method=stream", "--wal-method=none")),
    Mutation(30, "the log is not archived", "", BACKUP, "test_recovery_to_a_marker",
             patch=server_setting(archive_mode="off")),
]
