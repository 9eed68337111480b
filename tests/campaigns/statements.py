"""Kill -9 at every SQL statement and at every passing of every named crash point.

    python tests/campaigns/statements.py --jobs 2 --log FILE

Over an import (with its migration), a run, the resume of a killed run, one that audits its doubt, a run whose
ledger takes no paid answer, and the start after that. A statement's kill comes just before SQLite begins it.
Each point: a fresh ledger, the kill, the same commands again to the end; judged by the sandbox's books. The
control is the resender that forgets doubts: killed where an answer is only in memory, it must be caught
paying twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from functools import partial, reduce
from operator import and_
from pathlib import Path
from typing import Any, Final

import kill
import points
import totals
import warm

from ledger import crashpoints

Point = tuple[str, str, int]
"""(phase, `statement` or a crash point's name, which passing)."""
STATEMENT: Final = "statement"
FIRED_SHARE_MIN: Final = 0.98
TRACED: Final = """\
import os, signal
from ledger.store.engine import sqlite3
connect, left = sqlite3.connect, int(os.environ["KILL_AT_STATEMENT"])
def begins(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def traced(*arguments, **rest):
    connection = connect(*arguments, **rest)
    connection.set_trace_callback(begins)
    return connection
sqlite3.connect = traced
"""
LISTED: Final = """\
import os
from ledger import crashpoints
from ledger.store.engine import sqlite3
connect, log = sqlite3.connect, open(os.environ["LIST_INTO"], "w", buffering=1)
def begins(statement):
    log.write("statement\\n")
def traced(*arguments, **rest):
    connection = connect(*arguments, **rest)
    connection.set_trace_callback(begins)
    return connection
sqlite3.connect = traced
crashpoints.reach = lambda name: log.write(name + "\\n") and None
"""
REFUSING: Final = """\
from ledger import events
from ledger.store import ledger as verbs
from ledger.store.engine import sqlite3
record = verbs.record
def refuse(books, job_id, fence, event, **rest):
    if isinstance(event, events.Accepted):
        raise sqlite3.OperationalError("database or disk is full")
    return record(books, job_id, fence, event, **rest)
verbs.record = refuse
"""
"""A disk that is full just when a paid answer comes."""
LATER: Final = """\
from datetime import timedelta
from ledger.clock import SystemClock
true = SystemClock.now
SystemClock.now = lambda self: true(self) + timedelta(seconds=60)
"""
"""A minute on: no POST of before can still land, and the balance may be asked."""
PHASES: Final = {
    "import": ("import", ""),
    "run": ("run", ""),
    "resume": ("run", ""),
    "audit": ("audit", LATER),
    "refused": ("run", REFUSING),
    "from_reserve": ("run", ""),
}
"""What is killed: the command, and the fault planted into it."""


def before(where: kill.Bench, db: Path, phase: str) -> None:
    """What has happened to a ledger when the phase begins."""
    if phase in {"resume", "audit"}:
        # Of the last one alone the balance can tell what it cost.
        which = "post_after:2" if phase == "resume" else f"post_after:{kill.LEADS}"
        died = where.call("run", db, **{crashpoints.VARIABLE: which})
        assert died == warm.KILLED, f"a run that should have died ended with {died}"
    elif phase == "from_reserve":
        stopped = where.call("run", db, planted=REFUSING)
        assert stopped == 1, f"a run on a full disk ended with {stopped}"


def plan_points(where: kill.Bench) -> list[Point]:
    """Every passing that each of five runs of a phase makes."""
    plan = []
    for phase in PHASES:
        least = reduce(and_, (_list_once(where, phase, attempt) for attempt in range(5)))
        plan += [(phase, what, n) for what, times in sorted(least.items()) for n in range(1, times + 1)]
    return plan


def _list_once(where: kill.Bench, phase: str, attempt: int) -> Counter[str]:
    db = kill.prepare(where, f"list {phase} {attempt}", phase)
    before(where, db, phase)
    command, planted = PHASES[phase]
    into = db.with_suffix(".list")
    code = where.call(command, db, planted=planted + LISTED, LIST_INTO=str(into))
    assert code in {0, 3} or (code == 1 and planted), f"the baseline of {phase} ended with {code}"
    return Counter(into.read_text(encoding="utf-8").split())


def run_point(where: kill.Bench, key: str, point: Point) -> points.Row:
    """Kill there, resume to the end, and judge."""
    phase, what, number = point
    db = kill.prepare(where, key, phase)
    before(where, db, phase)
    command, planted = PHASES[phase]
    if what == STATEMENT:
        code = where.call(command, db, planted=planted + TRACED, KILL_AT_STATEMENT=str(number))
    else:
        code = where.call(command, db, planted=planted, **{crashpoints.VARIABLE: f"{what}:{number}"})
    return {"point": point, "fired": code == warm.KILLED, **kill.resume(where, db, key, phase)}


def every_point() -> list[Point]:
    """The whole plan, from a sandbox of its own."""
    with kill.bench() as where:
        return plan_points(where)


def campaign(
    plan: list[Point], seed: int, *, jobs: int = 1, blind: bool = False, log: Path | None = None
) -> list[points.Row]:
    """Play a plan."""
    keyed = [(f"{seed}:{':'.join(map(str, point))}", point) for point in plan]
    opened = partial(kill.bench, blind=blind)
    return points.play(keyed, run_point, opened, jobs=jobs, log=log, shown=log is not None)


def control(plan: list[Point]) -> list[points.Row]:
    """The blind resender, killed with answers in memory only."""
    return campaign([point for point in plan if point[:2] == ("run", "post_after")], 0, blind=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser, seed=False)
    wanted = parser.parse_args()
    begun = time.perf_counter()
    plan = every_point()
    rows = campaign(plan, 1, jobs=wanted.jobs, log=wanted.log)
    blind = control(plan)
    caught = [row for row in blind if "paid twice" in str(row["bad"])]
    fired = [row for row in rows if row["fired"]]
    named = {row["point"][1] for row in fired} - {STATEMENT}
    result: dict[str, Any] = {
        "campaign": "statements",
        "seed": None,
        "points": len(rows),
        "fired": len(fired),
        "fired_share": round(len(fired) / len(rows), 4),
        "statements": sum(row["point"][1] == STATEMENT for row in rows),
        "named_points": len(named),
        "named_passings": sum(row["point"][1] != STATEMENT for row in rows),
        "by_phase": dict(Counter(row["point"][0] for row in fired)),
        "doubts_left": sum(row["doubts"] for row in rows),
        "control_points": len(blind),
        "control_caught": len(caught),
    }
    failed = "" if caught else "the control was not caught"
    if missed := set(crashpoints.POINTS) - named:
        failed = f"never killed at {sorted(missed)}"
    if result["fired_share"] < FIRED_SHARE_MIN:
        failed = "too few kills happened"
    bad = [row for row in rows if row["bad"]]
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
