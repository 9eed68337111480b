"""The audit of a ledger that its own verbs have filled: seconds, and beside SQLite's own look at the file."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import verbs
from measure import Report, in_turn, middle, ratio, spread

from ledger.migrations.migrations import migrations
from ledger.store.audit import audit
from ledger.store.engine import sqlite3

JOBS: Final = 100_000
ROUNDS: Final = 3


def measure(folder: Path, scale: float) -> Report:
    """Every check in turn with `integrity_check` alone, each on a fresh connection."""
    jobs = max(50, round(JOBS * scale))
    path = folder / "ledger.db"
    verbs.fill(path, jobs)
    ours, theirs = in_turn(ROUNDS, lambda: _audit(path, jobs), lambda: _integrity(path))
    figures: dict[str, Any] = {"jobs": jobs, "rounds": ROUNDS, "audit_s": ours, "integrity_check_s": theirs}
    figures |= {"ratio": ratio(ours, theirs), "bytes": path.stat().st_size}
    lines = [
        f"{jobs:,} finished jobs, {figures['bytes'] / 1e6:.0f} MB, {ROUNDS} turns",
        f"    every check: {spread(ours)} s; integrity_check alone {middle(theirs):.2f} s",
        f"    ratio {figures['ratio']:.2f}",
    ]
    return Report(lines, figures)


def _audit(path: Path, jobs: int) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        started = time.perf_counter()
        found = audit(connection, migrations)
        took_s = time.perf_counter() - started
    if found.failed or found.jobs != jobs:
        raise RuntimeError(f"the ledger is not as it should be: {found}")
    return took_s


def _integrity(path: Path) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        started = time.perf_counter()
        connection.execute("PRAGMA integrity_check").fetchall()
        return time.perf_counter() - started
