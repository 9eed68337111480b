"""A kill inside the very first switch to WAL leaves a rollback journal; the next start must cope."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ledger.clock import SystemClock
from ledger.migrations.migrations import migrations
from ledger.store.ledger import Ledger
from ledger.store.read import Reader

KILLED = """
import os, signal, sys
from ledger.store.engine import sqlite3
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("CREATE TABLE half (made TEXT)")
connection.execute("PRAGMA cache_spill = 1")
for _ in range(2000):
    connection.execute("INSERT INTO half VALUES (?)", ("x" * 500,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_hot_rollback_journal_is_rolled_back(tmp_path: Path) -> None:
    db = tmp_path / "leads.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(db)], timeout=60, check=False)
    assert done.returncode == -9
    journal = db.with_name("leads.db-journal")
    assert journal.exists()
    assert journal.stat().st_size > 0, "the kill left no hot journal: the test tests nothing"
    assert db.stat().st_size > 0
    with Ledger(db, "test", clock=SystemClock(), migrations=migrations) as ledger:
        ledger.recover()
    with Reader(db) as reader:
        assert reader.quick_check() == "ok"
        assert reader.leads() == 0
