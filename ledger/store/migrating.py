"""Bringing a ledger's schema up to date, with a backup until the result is verified."""

from __future__ import annotations

import os
from pathlib import Path

from sqlite_utils import Database

from ledger import crashpoints
from ledger.errors import LedgerFileProblem
from ledger.store.connect import Connection, Migrations, beside, transaction
from ledger.store.engine import sqlite3


def migrate(connection: Connection, path: Path, migrations: Migrations) -> bool:
    """Bring the schema up to date: inside one `BEGIN IMMEDIATE`, with a 0600 backup of a file that had one.

    The backup holds poll bearers: it goes once the file is verified, also where a kill came in between.

    Returns:
        True when something was applied.

    Raises:
        DiskTrouble: It could not be written; the file is as it was.
    """
    database = Database(connection)
    backup = beside(path, ".backup")
    if not migrations.pending(database):
        if backup.exists():
            _drop_verified(connection, backup)
        return False
    had_schema = connection.execute("PRAGMA user_version").fetchone()[0] > 0
    if had_schema:
        _back_up(connection, backup)
    with transaction(connection):
        migrations.apply(database)
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise LedgerFileProblem(
                f"{path}: after the migration {len(broken)} rows point nowhere; nothing was changed.",
                next_step=f"The backup is {backup}." if had_schema else "",
            )
        crashpoints.reach("migrate_before_commit")
    crashpoints.reach("migrate_after_commit")
    if had_schema:
        _drop_verified(connection, backup)
    return True


def _drop_verified(connection: Connection, backup: Path) -> None:
    if connection.execute("PRAGMA quick_check").fetchone()[0] == "ok":
        backup.unlink(missing_ok=True)


def _back_up(connection: Connection, backup: Path) -> None:
    backup.unlink(missing_ok=True)
    descriptor = os.open(backup, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.close(descriptor)
    copy = sqlite3.connect(backup)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    with backup.open("rb") as file:
        os.fsync(file.fileno())
