"""A run: one life of the runner. It begins by recovering what the last one left."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ledger import __version__, crashpoints
from ledger import events as ev
from ledger.clock import to_text
from ledger.errors import Bug, UsageProblem
from ledger.model import OpenJob
from ledger.states import CHAIN_ENDS, StopReason
from ledger.store import exposure, reserve
from ledger.store.books import Books
from ledger.store.connect import Connection, transaction
from ledger.store.deliveries import record

_BEGIN: Final = """
    INSERT INTO runs (chain_id, started_at, pid, host, version, origin, settings, budget_microusd,
        budget_day_microusd, budget_lead_microusd, budget_total_microusd)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SUBMITTING: Final = "SELECT id, attempt FROM jobs WHERE state = 'submitting' ORDER BY id"
_IS_SUBMITTING: Final = "SELECT 1 FROM jobs WHERE id = ? AND attempt = ? AND state = 'submitting'"
_OPEN_JOBS: Final = """
    SELECT j.id, j.attempt, j.route, j.state = 'in_doubt', a.remote_job_id, b.bearer, a.ended_at,
        a.ceiling_microusd
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        LEFT JOIN poll_bearers b ON b.attempt_id = a.id
    WHERE j.state IN ('waiting', 'in_doubt') AND a.remote_job_id IS NOT NULL AND j.id > ?
    ORDER BY j.id LIMIT ?
"""
_PAGE: Final = 1000
_RUN_TABLES: Final = (
    "CREATE TEMP TABLE IF NOT EXISTS selected (rank INTEGER PRIMARY KEY, job_id INTEGER UNIQUE)",
    "CREATE TEMP TABLE IF NOT EXISTS capped (lead_id INTEGER PRIMARY KEY)",
)
"""What one run keeps in memory: the jobs it may claim (`--limit` and the like), leads at their own cap."""
_LAST_ORIGIN: Final = """
    SELECT origin FROM runs r WHERE EXISTS (SELECT 1 FROM attempts a WHERE a.run_id = r.id)
    ORDER BY id DESC LIMIT 1
"""
"""A run that never sent anything binds the ledger to nobody."""
_HAS_OPEN: Final = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state IN ('submitting', 'waiting', 'in_doubt'))"
_LATENCIES: Final = """
    SELECT (julianday(r.received_at) - julianday(a.ended_at)) * 86400.0
    FROM (SELECT id FROM attempts WHERE outcome = 'accepted' ORDER BY id DESC LIMIT 1000) recent
        JOIN attempts a ON a.id = recent.id JOIN jobs j ON j.id = a.job_id
        JOIN results r ON r.job_id = j.id JOIN runs n ON n.id = a.run_id
    WHERE j.route = ? AND a.polls > 0 AND r.received_at <= n.ended_at LIMIT 500
"""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the last run left: how many POSTs became doubts because it died."""

    died_runs: int = 0
    new_doubts: int = 0
    from_reserve: int = 0
    """Paid answers that the ledger could not take when they came (disk full), and has taken now."""


def prepare(connection: Connection) -> None:
    """Make the temporary tables that a run keeps in memory."""
    for statement in _RUN_TABLES:
        connection.execute(statement)


def recover(books: Books, kept: list[reserve.Entry] | None = None) -> Recovered:
    """Mark runs that could not say goodbye as `died`, and their POSTs in the air as `in_doubt`.

    One transaction; may run twice. The caller holds the lock, so nobody else is sending.

    Args:
        books: The open ledger.
        kept: What the last run could only write into the reserve: taken over first.
    """
    at = to_text(books.now)
    taken = 0
    with books.transaction():
        died = books.connection.execute(
            "UPDATE runs SET ended_at = ?, stop_reason = 'died' WHERE ended_at IS NULL", (at,)
        ).rowcount
        for job_id, fence, event in kept or ():
            if books.connection.execute(_IS_SUBMITTING, (job_id, fence)).fetchone() is not None:
                record(books, job_id, fence, event)
                taken += 1
        left = books.connection.execute(_SUBMITTING).fetchall()
        for job_id, attempt in left:
            record(books, job_id, attempt, ev.FoundAtStart())
        crashpoints.reach("recover_before_commit")
    return Recovered(died, len(left), taken)


def begin(
    books: Books,
    *,
    origin: str,
    settings: dict[str, Any],
    caps: exposure.Caps,
    new_budget: bool = False,
    change_provider: bool = False,
) -> int:
    """Open a run, in the budget chain of its predecessor unless that one ended its chain.

    Returns:
        The run's id. `books` then knows the run and its running totals.

    Raises:
        UsageProblem: `origin` is not the provider this ledger has worked with.
    """
    check_origin(books.connection, origin, change_provider=change_provider)
    chain = None if new_budget else chain_to_continue(books.connection)
    with transaction(books.connection):
        cursor = books.connection.execute(
            _BEGIN,
            (
                chain or 0,
                to_text(books.now),
                os.getpid(),
                socket.gethostname(),
                __version__,
                origin,
                json.dumps(settings),
                caps.chain_microusd,
                caps.day_microusd,
                caps.lead_microusd,
                caps.total_microusd,
            ),
        )
        run_id = cursor.lastrowid or 0
        if chain is None:
            books.connection.execute("UPDATE runs SET chain_id = id WHERE id = ?", (run_id,))
    crashpoints.reach("begin_after_commit")
    books.run_id = run_id
    chain_id = run_id if chain is None else chain
    books.exposure = exposure.load(books.connection, chain_id, to_text(books.now)[:10])
    return run_id


def chain_to_continue(connection: Connection) -> int | None:
    """The budget chain that the next run goes on with; None when it starts one of its own."""
    last = connection.execute("SELECT chain_id, stop_reason FROM runs ORDER BY id DESC LIMIT 1").fetchone()
    return None if last is None or last[1] in CHAIN_ENDS else int(last[0])


def check_origin(connection: Connection, origin: str, *, change_provider: bool) -> None:
    """Refuse to work one ledger against two providers: ids and money of one mean nothing to the other.

    Raises:
        UsageProblem: Another host than the last run's, without `--change-provider`.
    """
    last = connection.execute(_LAST_ORIGIN).fetchone()
    if last is None or change_provider or _host(last[0]) == _host(origin):
        return
    raise UsageProblem(
        f"This ledger has worked with {last[0]}; {origin} is another provider.",
        next_step="Check --base-url; if it really moved, add --change-provider.",
    )


def _host(origin: str) -> str:
    """The origin to compare: ports of the loopback count as equal (a sandbox picks a free one)."""
    host = origin.split("://", 1)[-1].rsplit(":", 1)[0]
    return "loopback" if host in {"127.0.0.1", "localhost", "[::1]"} else origin


def end(books: Books, reason: StopReason) -> None:
    """Close the run and compare the running totals with the books.

    Raises:
        Bug: The totals that guarded the caps have drifted from the books.
    """
    with transaction(books.connection):
        books.connection.execute(
            "UPDATE runs SET ended_at = ?, stop_reason = ? WHERE id = ? AND ended_at IS NULL",
            (to_text(books.now), reason, books.run_id),
        )
    crashpoints.reach("end_after_commit")
    kept = books.exposure
    if kept is not None:
        counted = exposure.load(books.connection, kept.chain_id, kept.day)
        if counted != kept:
            raise Bug(f"Running totals {kept} are not what the books say: {counted}.")


def has_open(connection: Connection) -> bool:
    """True while a job is submitting, waiting or in doubt."""
    return bool(connection.execute(_HAS_OPEN).fetchone()[0])


def open_job(connection: Connection, job_id: int) -> OpenJob | None:
    """One job, if it can be polled."""
    found = next(open_jobs(connection, job_id - 1, 1), None)
    return found if found is not None and found.job_id == job_id else None


def open_jobs(connection: Connection, after: int = 0, size: int = _PAGE) -> Iterator[OpenJob]:
    """Every job after `after` that can be polled: accepted, or in doubt with a remote id. Read in pages."""
    while True:
        page = connection.execute(_OPEN_JOBS, (after, size)).fetchall()
        for job_id, attempt, route, in_doubt, remote_id, bearer, accepted_at, ceiling in page:
            secret = None if bearer is None else ev.Secret(bearer)
            yield OpenJob(job_id, attempt, route, bool(in_doubt), remote_id, secret, accepted_at, ceiling)
        if len(page) < size:
            return
        after = page[-1][0]


def latencies(connection: Connection, route: str) -> list[float]:
    """Seconds from acceptance to the stored answer of the route's recent jobs (at most 500).

    Only of jobs that the run which sent them saw done: the time between two runs is nobody's latency.
    """
    return [row[0] for row in connection.execute(_LATENCIES, (route,)) if row[0] is not None]
