"""A migration is all or nothing, with a private backup as long as it takes, whoever else tries at once."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database, Migrations

from ledger.errors import LedgerFileProblem
from ledger.migrations.migrations import migrations
from ledger.store.connect import SCHEMA_VERSION, connect
from ledger.store.engine import sqlite3
from ledger.store.ledger import Ledger
from ledger.store.read import Reader

KNOWN = [migration.name for migration in migrations.pending(Database(memory=True))]
ROOT = Path(__file__).parents[2]
Seen = list[tuple[str, int]]


def next_version(step: Callable[[Database], None]) -> Migrations:
    """The history of a version to come: today's migrations and one more."""
    history = Migrations("leadledger")
    for name in KNOWN:
        history(name=name)(lambda _: pytest.fail("it is applied already"))
    history(name="m999_more")(step)
    return history


def contents(path: Path) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return [
            connection.execute(sql).fetchall()
            for sql in ("SELECT sql FROM sqlite_master", "SELECT * FROM jobs", "SELECT * FROM costs")
        ]
    finally:
        connection.close()


def backups(path: Path) -> Seen:
    found = [entry for entry in path.parent.iterdir() if "backup" in entry.name]
    return [(entry.name, stat.S_IMODE(entry.stat().st_mode)) for entry in found]


def test_a_change_of_a_ledger_is_backed_up_privately_until_it_is_done(story: Path, clock: Any) -> None:
    seen: Seen = []
    copies: list[Any] = []
    before = contents(story)

    def more(db: Database) -> None:
        db.conn.execute("CREATE TABLE more (x INTEGER) STRICT")
        seen.extend(backups(story))
        copies.append(contents(story.with_name("story.db.backup")))

    Ledger(story, "test", clock=clock, migrations=next_version(more)).close()
    assert seen == [("story.db.backup", 0o600)]
    assert copies == [before]
    assert backups(story) == []
    assert contents(story)[1:] == before[1:]
    assert len(contents(story)[0]) == len(before[0]) + 1


def test_a_new_ledger_needs_no_backup(tmp_path: Path, clock: Any) -> None:
    seen: Seen = []
    history = Migrations("leadledger")

    @history()
    def m001(db: Database) -> None:
        db.conn.execute("CREATE TABLE t (x INTEGER) STRICT")
        seen.extend(backups(tmp_path / "leads.db"))

    Ledger(tmp_path / "leads.db", "test", clock=clock, migrations=history).close()
    assert seen == []


def test_a_migration_that_raises_leaves_the_ledger_as_it_was(story: Path, clock: Any) -> None:
    before = contents(story)

    def breaks(db: Database) -> None:
        db.conn.execute("CREATE TABLE more (x INTEGER) STRICT")
        db.conn.execute("PRAGMA user_version = 98")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        Ledger(story, "test", clock=clock, migrations=next_version(breaks))
    assert contents(story) == before
    with Ledger(story, "test", clock=clock, migrations=migrations) as ledger:
        assert ledger.books.connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_migration_that_leaves_rows_pointing_nowhere_is_undone(story: Path, clock: Any) -> None:
    before = contents(story)

    def orphans(db: Database) -> None:
        db.conn.execute("PRAGMA defer_foreign_keys = ON")
        db.conn.execute("INSERT INTO poll_bearers VALUES (999, 'x')")

    with pytest.raises(LedgerFileProblem, match="1 rows point nowhere"):
        Ledger(story, "test", clock=clock, migrations=next_version(orphans))
    assert contents(story) == before


def test_an_up_to_date_ledger_is_not_touched(story: Path, clock: Any) -> None:
    before = story.read_bytes()
    Ledger(story, "test", clock=clock, migrations=migrations).close()
    assert story.read_bytes() == before


def version_one(path: Path) -> Path:
    """A ledger as the first version made it, with a delivery row and a job in every kind of state."""
    history = Migrations("leadledger")
    first = migrations.pending(Database(memory=True))[0]
    history(name=first.name)(first.fn)
    connection = connect(path)
    history.apply(Database(connection))
    for statement in (
        "INSERT INTO leads (source, company, created_at) VALUES ('file', 'Acme', 'x')",
        (
            "INSERT INTO jobs (lead_id, route, mode, request_key, created_at, updated_at) "
            "VALUES (1, 'enrich/websearch', 'async', 'k', 'x', 'x')"
        ),
        (
            "INSERT INTO transitions (job_id, from_state, to_state, reason, at) "
            "VALUES (1, 'new', 'queued', 'enqueued', 'x')"
        ),
        "INSERT INTO deliveries (received_at, event_type, sha256) VALUES ('x', 'enrich.completed', 'd1')",
    ):
        connection.execute(statement)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
    return path


@pytest.mark.parametrize("by_hand", [False, True], ids=["by the program", "by sqlite-utils"])
def test_a_ledger_of_the_first_version_is_brought_up_to_date(
    tmp_path: Path, empty_ledger: Path, clock: Any, by_hand: bool
) -> None:
    path = version_one(tmp_path / "old.db")
    before = contents(path)
    assert len(before[0]) < len(contents(empty_ledger)[0])
    if by_hand:
        command = [sys.executable, "-m", "sqlite_utils", "migrate", str(path), str(ROOT / "migrations")]
        subprocess.run(command, check=True, capture_output=True)
    with Ledger(path, "test", clock=clock, migrations=migrations) as ledger:
        found = ledger.books.connection
        assert found.execute("SELECT sha256, body, attempt_id FROM deliveries").fetchall() == [
            ("d1", None, None)
        ]
        assert found.execute("SELECT COUNT(*) FROM intents").fetchone() == (0,)
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            found.execute("DELETE FROM deliveries")
    assert contents(path)[1:] == before[1:]
    assert sorted(map(str, contents(path)[0])) == sorted(map(str, contents(empty_ledger)[0]))
    assert backups(path) == []
    with Reader(path) as reader:
        assert reader.audit(migrations).failed == ()


MIGRATE = """
import sys
from pathlib import Path
from ledger.migrations.migrations import migrations
from ledger.store.connect import connect
from ledger.store.migrating import migrate
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
connection = connect(path)
print(migrate(connection, path, migrations), connection.execute("PRAGMA user_version").fetchone()[0])
"""


def test_several_processes_that_migrate_at_once_leave_one_good_ledger(
    tmp_path: Path, empty_ledger: Path
) -> None:
    path = tmp_path / "leads.db"
    connect(path).close()  # the switch to WAL is not for several at once: the lock is for that
    command = [sys.executable, "-c", MIGRATE, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate()[0].split() for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert {word[1] for word in said} == {str(SCHEMA_VERSION)}
    assert contents(path) == contents(empty_ledger)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def killed_after_commit(path: Path) -> Path:
    """An old ledger that is up to date, with the backup that a kill after the commit has left."""
    db = version_one(path)
    words = [sys.executable, "-m", "ledger.cli", "--db", str(db), "pause", "--all", "--yes"]
    env = {**os.environ, "LEADLEDGER_CRASH_AT": "migrate_after_commit"}
    killed = subprocess.run(words, env=env, capture_output=True, check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    backup = db.with_name(db.name + ".backup")
    assert backup.exists(), "the fault happened"
    return backup


def test_a_backup_that_a_kill_has_left_goes_at_the_next_start(tmp_path: Path, clock: Any) -> None:
    backup = killed_after_commit(tmp_path / "leads.db")
    Ledger(tmp_path / "leads.db", "test", clock=clock, migrations=migrations).close()
    assert not backup.exists()


def test_it_stays_while_the_file_cannot_be_verified(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = killed_after_commit(tmp_path / "leads.db")
    asked = []

    class Broken(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> Any:
            if sql != "PRAGMA quick_check":
                return super().execute(sql, *rest)
            asked.append(sql)
            return super().execute("SELECT 'row 7 missing from index'")

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *words, **named: real(*words, factory=Broken, **named))
    Ledger(tmp_path / "leads.db", "test", clock=clock, migrations=migrations).close()
    assert asked
    assert backup.exists()
