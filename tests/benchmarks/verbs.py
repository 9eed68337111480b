"""The ledger's verbs alone, without a provider: enqueue, claim with hold, accept, settle, 50 jobs in flight.

Beside it what a plain table can do that is as durable: claim and complete, one commit a step, and none of
the holds, costs, history and guards.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from measure import ROUTE, Report, in_turn, middle, ratio

from ledger import events as ev
from ledger.clock import SystemClock
from ledger.migrations.migrations import migrations
from ledger.model import LEAD_FIELDS, FileFacts, Keys, SourceRow
from ledger.states import State, StopReason
from ledger.store.claims import ClaimRules
from ledger.store.enqueue import Asked
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection

JOBS: Final = 3000
IN_FLIGHT: Final = 50
ROUNDS: Final = 3
CEILING: Final = 1_500_000
RULES: Final = ClaimRules(ROUTE, "async", CEILING, Caps())
_RESULT: Final = json.dumps({"matched": True, "owner": "Dana Smith", "phones": ["+15205550100"] * 8})


@dataclass(frozen=True, slots=True)
class Worked:
    """How fast one turn went."""

    enqueued_per_s: float
    done_per_s: float
    commits_per_job: float


def measure(folder: Path, scale: float) -> Report:
    """Both on a new file each turn, in this process."""
    jobs = max(50, round(JOBS * scale))
    number = count(1)
    ours, theirs = in_turn(
        ROUNDS,
        lambda: fill(folder / f"ledger-{next(number)}.db", jobs),
        lambda: _plain(folder / f"plain-{next(number)}.db", jobs),
    )
    rates = [turn.done_per_s for turn in ours], [turn.done_per_s for turn in theirs]
    figures: dict[str, Any] = {
        "jobs": jobs,
        "in_flight": IN_FLIGHT,
        "rounds": ROUNDS,
        "enqueued_per_s": [turn.enqueued_per_s for turn in ours],
        "done_per_s": rates[0],
        "commits_per_job": [turn.commits_per_job for turn in ours],
        "plain_done_per_s": rates[1],
        "done_ratio": ratio(*rates),
    }
    lines = [
        (
            f"{jobs:,} jobs, synchronous=FULL, {ROUNDS} turns; A = the ledger's verbs, "
            f"{IN_FLIGHT} in flight, B = a plain table, one worker, one commit a step"
        ),
        (
            f"    A: enqueue {middle(figures['enqueued_per_s']):,.0f}/s; claim + accept + settle "
            f"{middle(rates[0]):,.0f} jobs/s, {middle(figures['commits_per_job']):.3f} commits a job"
        ),
        f"    B: claim + complete {middle(rates[1]):,.0f} jobs/s, 2 commits a job",
        f"    A/B: {figures['done_ratio']:.2f} times the rate",
    ]
    return Report(lines, figures)


def _rows(jobs: int) -> list[SourceRow]:
    rows = []
    for number in range(jobs):
        fields = tuple(f"Company {number}" if name == "company" else None for name in LEAD_FIELDS)
        rows.append(SourceRow(number + 2, "{}", fields, Keys(None, None, f"company {number}", None)))
    return rows


def fill(path: Path, jobs: int) -> Worked:
    """A new ledger whose `jobs` are all done."""
    facts = FileFacts("leads.csv", "0" * 64, "file", {"company": ["Company"]}, (), "utf-8", ",")
    with Ledger(path, "benchmark", clock=SystemClock(), migrations=migrations) as ledger:
        ledger.import_rows(facts, _rows(jobs))
        ledger.begin_run(origin="http://127.0.0.1", settings={}, caps=Caps())
        started = time.perf_counter()
        ledger.enqueue(ROUTE, "async", Selection(), lambda _, lead: Asked(json.dumps(lead), lead["company"]))
        enqueued = time.perf_counter()
        done = asyncio.run(_work(ledger))
        ended = time.perf_counter()
        if done != jobs:
            raise RuntimeError(f"{done} of {jobs} jobs were done")
        worked = Worked(jobs / (enqueued - started), jobs / (ended - enqueued), ledger.group.commits / jobs)
        ledger.end_run(StopReason.FINISHED)
    return worked


async def _work(ledger: Ledger) -> int:
    return sum(await asyncio.gather(*(_worker(ledger) for _ in range(IN_FLIGHT))))


async def _worker(ledger: Ledger) -> int:
    """One slot: claim, accept, settle, until nothing is left; returns how many."""
    done = 0
    while (claim := await ledger.claim(RULES, 1)).calls:
        call = claim.calls[0]
        remote = f"job-{call.job_id}"
        told = ev.Answer("accepted", 202, json.dumps({"job_id": remote}))
        accepted = ev.Accepted(remote, ev.Secret(f"bearer-of-{remote}"), "virtual_balance", told)
        await ledger.record(call.job_id, call.fence, accepted)
        verdict = ev.Verdict(State.MATCHED, True, True, False, 900_000, None, _RESULT)  # noqa: FBT003 - flags as the wire has them
        await ledger.record(
            call.job_id, call.fence, ev.Finished(verdict, ev.Answer("poll", 200, _RESULT)), polls=1
        )
        done += 1
    return done


def _plain(path: Path, jobs: int) -> Worked:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY, request TEXT, state TEXT, result TEXT)"
        )
        connection.execute("CREATE INDEX ready ON jobs (id) WHERE state = 'queued'")
        started = time.perf_counter()
        for number in range(jobs):
            request = json.dumps({"company": f"Company {number}"})
            connection.execute("INSERT INTO jobs (request, state) VALUES (?, 'queued')", (request,))
        enqueued = time.perf_counter()
        for _ in range(jobs):
            (found,) = connection.execute(
                "UPDATE jobs SET state = 'working' WHERE id = "
                "(SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT 1) RETURNING id"
            ).fetchall()
            connection.execute("UPDATE jobs SET state = 'done', result = ? WHERE id = ?", (_RESULT, found[0]))
        ended = time.perf_counter()
    return Worked(jobs / (enqueued - started), jobs / (ended - enqueued), 2.0)
