"""Taking jobs to send: intent, hold and the check of every cap, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ledger import crashpoints
from ledger import events as ev
from ledger.clock import to_text
from ledger.errors import Bug
from ledger.machine import decide
from ledger.model import PaidCall
from ledger.states import Reason
from ledger.store.books import Books
from ledger.store.exposure import Caps, Exposure, load, of_lead
from ledger.store.steps import book_hold, look, record, write

# Named, because SQLite would rather read every queued job through `jobs_state`: 20 ms on 100,000 of them.
_DUE: Final = """
    UPDATE jobs INDEXED BY jobs_later SET not_before = NULL WHERE state = 'queued' AND not_before <= ?
"""
_READY_ORDER: Final = " ORDER BY j.priority DESC, j.id LIMIT ?"
_SELECTED_ORDER: Final = " ORDER BY s.rank LIMIT ?"
_READY: Final = """
    SELECT j.id, j.lead_id, j.request, l.suppressed FROM jobs j LEFT JOIN leads l ON l.id = j.lead_id
    WHERE j.state = 'queued' AND j.paused_at IS NULL AND j.not_before IS NULL AND j.route = ?
"""
_NOT_CAPPED: Final = " AND NOT EXISTS (SELECT 1 FROM temp.capped x WHERE x.lead_id = j.lead_id)"
_SELECTED_READY: Final = """
    SELECT j.id, j.lead_id, j.request, l.suppressed
    FROM temp.selected s CROSS JOIN jobs j ON j.id = s.job_id LEFT JOIN leads l ON l.id = j.lead_id
    WHERE j.state = 'queued' AND j.paused_at IS NULL AND j.not_before IS NULL AND j.route = ?
"""
_LEFT: Final = "SELECT 1 FROM jobs j WHERE j.state = 'queued' AND j.paused_at IS NULL AND j.route = ?"
_LEFT_SELECTED: Final = """
    SELECT 1 FROM temp.selected s CROSS JOIN jobs j ON j.id = s.job_id
    WHERE j.state = 'queued' AND j.paused_at IS NULL AND j.route = ?
"""
_UNSELECT: Final = "DELETE FROM temp.selected WHERE job_id = ?"
_CAP_LEAD: Final = "INSERT OR IGNORE INTO temp.capped (lead_id) VALUES (?)"
_INTENT: Final = """
    INSERT INTO attempts (job_id, number, run_id, idempotency_key, ceiling_microusd, started_at)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_DOUBTS_TO_RESEND: Final = """
    SELECT j.id, j.attempt, j.route, j.mode, j.request, a.idempotency_key, a.ceiling_microusd
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE j.state = 'in_doubt' AND a.remote_job_id IS NULL ORDER BY j.updated_at, j.id LIMIT ?
"""
_SET_MODE: Final = "UPDATE jobs SET mode = ? WHERE id = ? AND mode <> ?"
_NEXT_DUE: Final = """
    SELECT MIN(not_before) FROM jobs j INDEXED BY jobs_later
    WHERE state = 'queued' AND not_before IS NOT NULL AND paused_at IS NULL AND route = ?
"""
_OF_SELECTION: Final = " AND EXISTS (SELECT 1 FROM temp.selected s WHERE s.job_id = j.id)"
_UNCAP: Final = "DELETE FROM temp.capped"


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What this run may claim: one route, one mode, one ceiling (micro-dollars), under these caps."""

    route: str
    mode: str
    ceiling_microusd: int
    caps: Caps


@dataclass(frozen=True, slots=True)
class Claim:
    """Jobs whose intent and hold are written; `blocked_by` names the cap that stopped the claim, if any."""

    calls: tuple[PaidCall, ...]
    blocked_by: str | None = None
    passed_over: int = 0
    """Jobs looked at and not taken: their lead has opted out meanwhile, or is at its own cap."""
    leads_capped: int = 0
    """Of those, leads that one more hold would lift above their own cap."""


def claim(books: Books, rules: ClaimRules, limit: int) -> Claim:
    """Take up to `limit` jobs, the most important first.

    Runs inside the caller's transaction. Writes for each: state `submitting`, its transition, the attempt
    with a fresh idempotency key, and the hold. No hold is written that would lift exposure above a cap. A
    lead that has opted out since its job was queued is not asked: its job becomes `skipped`.
    """
    at = to_text(books.now)  # read once: the wall clock may step back over midnight before the intent
    exposure = _of_day(books, at[:10])
    books.connection.execute(_DUE, (at,))
    ready, order = (_SELECTED_READY, _SELECTED_ORDER) if books.selective else (_READY, _READY_ORDER)
    query = ready + _NOT_CAPPED + order
    found = books.connection.execute(query, (rules.route, limit)).fetchall()
    calls: list[PaidCall] = []
    capped = skipped = 0
    for job_id, lead_id, request, suppressed in found:
        if suppressed:
            skipped += 1
            record(books, job_id, look(books.connection, job_id).job.attempt, ev.Skip(Reason.SUPPRESSED))
            continue
        blocked_by = exposure.blocked_by(rules.ceiling_microusd, rules.caps)
        if blocked_by is not None:
            return Claim(tuple(calls), blocked_by, skipped + capped, capped)
        if _lead_is_capped(books, rules, lead_id):
            capped += 1
            continue
        calls.append(_take(books, rules, job_id, request, at))
    crashpoints.reach("claim_before_commit")
    return Claim(tuple(calls), None, skipped + capped, capped)


def left_count(books: Books, rules: ClaimRules) -> int:
    """Jobs that this run would still send, now or later, counted up to 100,000."""
    left = (_LEFT_SELECTED if books.selective else _LEFT) + _NOT_CAPPED
    query = "SELECT COUNT(*) FROM (" + left + " LIMIT 100000)"
    return int(books.connection.execute(query, (rules.route,)).fetchone()[0])


def _of_day(books: Books, day: str) -> Exposure:
    """The run's totals, loaded anew when the UTC day has changed."""
    if books.exposure is None:
        raise Bug("A claim needs a run that pays for it.")
    if books.exposure.day != day:
        books.exposure = load(books.connection, books.exposure.chain_id, day)
    return books.exposure


def _lead_is_capped(books: Books, rules: ClaimRules, lead_id: int | None) -> bool:
    cap = rules.caps.lead_microusd
    if cap is None or lead_id is None:
        return False
    if of_lead(books.connection, lead_id) + rules.ceiling_microusd <= cap:
        return False
    books.connection.execute(_CAP_LEAD, (lead_id,))
    return True


def _take(books: Books, rules: ClaimRules, job_id: int, request: str, at: str) -> PaidCall:
    position = look(books.connection, job_id)
    step = decide(position.job, ev.Claimed(), books.now, books.policy)
    if step is None:
        raise Bug(f"Job {job_id} cannot be claimed.")
    number = position.job.attempt + 1
    key = books.new_key()
    attempt = books.connection.execute(
        _INTENT, (job_id, number, books.run_id, key, rules.ceiling_microusd, at)
    )
    if attempt.lastrowid is None:
        raise Bug(f"Job {job_id}: the intent has no row.")
    book_hold(books, attempt.lastrowid, rules.ceiling_microusd)
    write(books, replace(position, attempt_id=attempt.lastrowid), step)
    books.connection.execute(_SET_MODE, (rules.mode, job_id, rules.mode))
    if books.selective:
        books.connection.execute(_UNSELECT, (job_id,))
    return PaidCall(job_id, number, rules.route, rules.mode, request, key, rules.ceiling_microusd)


def resend(books: Books, limit: int) -> tuple[PaidCall, ...]:
    """Take up to `limit` doubts nobody has a remote id for, to send each once more with its own key.

    Only where the provider is known to honour keys. Same attempt, same hold, same body. Runs inside the
    caller's transaction.
    """
    calls = []
    for job_id, fence, *call in books.connection.execute(_DOUBTS_TO_RESEND, (limit,)).fetchall():
        record(books, job_id, fence, ev.SameKeyResend())
        calls.append(PaidCall(job_id, fence, *call))
    return tuple(calls)


def next_due(books: Books, route: str) -> str | None:
    """When the earliest job that this run waits for may go (ledger time text), or None."""
    query = _NEXT_DUE + (_OF_SELECTION if books.selective else "")
    row = books.connection.execute(query, (route,)).fetchone()
    return None if row is None else row[0]


def look_at_capped_again(books: Books) -> None:
    """Money of some lead came back: those that were at their own cap may not be any more."""
    books.connection.execute(_UNCAP)
