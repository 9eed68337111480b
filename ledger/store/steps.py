"""Moving jobs: the one function that writes `jobs.state`, and everything written in the same transaction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ledger import crashpoints
from ledger import events as ev
from ledger.clock import to_text
from ledger.errors import StaleWrite
from ledger.machine import decide
from ledger.states import FINAL, Outcome, Reason, State
from ledger.store.books import Books
from ledger.store.connect import Connection
from ledger.transition import Job, Transition

_LOOK: Final = """
    SELECT j.state, j.attempt, a.id, a.run_id, a.started_at, r.chain_id,
        (SELECT COALESCE(SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'adjust' THEN 0
            ELSE -c.amount_microusd END), 0) FROM costs c WHERE c.attempt_id = a.id),
        (SELECT COALESCE(SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END), 0)
            FROM costs c WHERE c.attempt_id = a.id),
        (SELECT COUNT(*) FROM attempts f WHERE f.job_id = j.id AND f.outcome = 'proved_free'),
        j.state = 'submitting' AND a.outcome IS NOT NULL
    FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        LEFT JOIN runs r ON r.id = a.run_id
    WHERE j.id = ?
"""
_EARLIER: Final = """
    SELECT a.id, a.run_id, a.started_at, r.chain_id,
        (SELECT COALESCE(SUM(c.amount_microusd), 0) FROM costs c
            WHERE c.attempt_id = a.id AND c.kind IN ('charge', 'adjust'))
    FROM attempts a JOIN runs r ON r.id = a.run_id WHERE a.job_id = ? AND a.number = ?
"""
_KNOWN_REMOTE: Final = "SELECT job_id FROM attempts WHERE remote_job_id = ? AND id <> ?"
_MOVE: Final = """
    UPDATE jobs SET state = ?, reason = ?, attempt = ?, not_before = ?, updated_at = ?, finished_at = ?
    WHERE id = ? AND state = ? AND attempt = ?
"""
_NOTE_STEP: Final = """
    INSERT INTO transitions (job_id, attempt_id, run_id, from_state, to_state, reason, at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_NOTE_ATTEMPT: Final = """
    UPDATE attempts SET outcome = COALESCE(?, outcome), http_status = COALESCE(?, http_status),
        error = COALESCE(?, error), remote_job_id = COALESCE(remote_job_id, ?),
        billing_mode = COALESCE(?, billing_mode), evidence = COALESCE(?, evidence),
        ended_at = COALESCE(?, ended_at), polls = polls + ?
    WHERE id = ?
"""
_BOOK: Final = """
    INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, assumed, at, evidence)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_KEEP_ANSWER: Final = """
    INSERT INTO answers (attempt_id, kind, http_status, body, sha256, received_at) VALUES (?, ?, ?, ?, ?, ?)
"""
_KEEP_RESULT: Final = """
    INSERT INTO results (job_id, matched, billed, cache_hit, body, received_at) VALUES (?, ?, ?, ?, ?, ?)
"""
_KEEP_BEARER: Final = "INSERT INTO poll_bearers (attempt_id, bearer) VALUES (?, ?)"
_SELECT_AGAIN: Final = "INSERT OR IGNORE INTO temp.selected (job_id) VALUES (?)"
_PAUSE_NEXT: Final = """
    UPDATE jobs SET paused_at = ?1 WHERE state = 'queued' AND paused_at IS NULL AND id IN (
        SELECT n.id FROM jobs o JOIN jobs n ON n.lead_id = o.lead_id AND n.route = o.route
            AND n.request_key = o.request_key AND n.generation > o.generation
        WHERE o.id = ?2)
"""
_DROP_BEARER: Final = "DELETE FROM poll_bearers WHERE attempt_id = ?"


@dataclass(frozen=True, slots=True)
class Position:
    """A job as it stands in the ledger, with its latest attempt."""

    job: Job
    attempt_id: int | None
    attempt_run_id: int | None
    started_at: str
    chain_id: int | None


def look(connection: Connection, job_id: int) -> Position:
    """Where a job stands, read inside the transaction that will move it.

    Raises:
        StaleWrite: There is no such job.
    """
    row = connection.execute(_LOOK, (job_id,)).fetchone()
    if row is None:
        raise StaleWrite(f"There is no job {job_id}.")
    state, attempt, attempt_id, run_id, started_at, chain_id, hold, charged, free, resent = row
    return Position(
        Job(job_id, State(state), attempt, hold, charged, free, bool(resent)),
        attempt_id,
        run_id,
        started_at or "",
        chain_id,
    )


def record(books: Books, job_id: int, fence: int, event: ev.Event, *, polls: int = 0) -> Transition | None:
    """Let `event` happen to a job: decide on what the ledger says now, and write all of it.

    Runs inside the caller's transaction. Writes the state, its `transitions` row, the attempt, the money,
    the bearer, the result and the raw answer, or, for an event that changes nothing, only an answer worth
    keeping. A final answer to an attempt that was closed before (proved free, then sent again) settles
    nothing; it is kept, and what it cost is an `adjust` of that attempt. A late answer to a lost job pauses
    the generation that was queued in its stead.

    Raises:
        StaleWrite: The job has gone on to another attempt.
        IllegalEvent: The event cannot happen in the job's state.
    """
    position = look(books.connection, job_id)
    if fence < position.job.attempt and isinstance(event, ev.Finished):
        late(books, job_id, fence, event, "poll: a late answer")
        return None
    if position.job.attempt != fence:
        raise StaleWrite(
            f"Job {job_id} is at attempt {position.job.attempt}; what came belongs to attempt {fence}."
        )
    event = _never_twice(books.connection, position, event)
    step = decide(position.job, event, books.now, books.policy)
    if step is None:
        if not isinstance(event, ev.Delivered):  # a delivery that changes nothing stays in `deliveries`
            keep_answer(books, position.attempt_id, getattr(event, "answer", None))
        return None
    write(books, position, step, polls=polls)
    if step.reason is Reason.LATE_ANSWER and step.verdict is not None:
        pause_next(books, job_id, step.verdict)
    crashpoints.reach("step_before_commit")
    return step


def late(books: Books, job_id: int, fence: int, event: ev.Finished | ev.Delivered, evidence: str) -> None:
    """Keep an answer to a closed attempt and book what it cost beyond what is booked already."""
    attempt_id, run_id, started_at, chain_id, booked = books.connection.execute(
        _EARLIER, (job_id, fence)
    ).fetchone()
    keep_answer(books, attempt_id, event.answer)
    cost = None if event.verdict is None else event.verdict.cost_microusd
    if cost is None or cost == booked:
        return
    books.connection.execute(
        _BOOK, (attempt_id, run_id, "adjust", cost - booked, False, to_text(books.now), evidence)
    )
    if books.exposure is not None:
        books.exposure.moved(
            chain_id=chain_id, started_at=started_at, hold_closed=0, release=0, adjust=cost - booked
        )


def pause_next(books: Books, job_id: int, verdict: ev.Verdict) -> None:
    """Stop the queued next generation of a job that has been answered after all, so that a person decides.

    Sent, it would pay a second time. Only a failure that cost nothing leaves the wish to ask again as it was.
    """
    if verdict.state is not State.FAILED or verdict.cost_microusd != 0:
        books.connection.execute(_PAUSE_NEXT, (to_text(books.now), job_id))


def _never_twice(connection: Connection, position: Position, event: ev.Event) -> ev.Event:
    """A remote job id that another attempt already has proves nothing about this one: it is a doubt."""
    if not isinstance(event, ev.Accepted):
        return event
    taken = connection.execute(_KNOWN_REMOTE, (event.remote_job_id, position.attempt_id)).fetchone()
    if taken is None:
        return event
    odd = ev.Answer("odd", event.answer.http_status, event.answer.body)
    return ev.Unknown(f"remote_job_id_of_job_{taken[0]}", event.answer.http_status, odd)


def write(books: Books, position: Position, step: Transition, *, polls: int = 0) -> None:
    """Write one step: the only place that changes `jobs.state`.

    Raises:
        StaleWrite: The job is not in the state, or not at the attempt, that the step believes in.
    """
    at = to_text(books.now)
    claimed = step.reason is Reason.CLAIMED
    moved = books.connection.execute(
        _MOVE,
        (
            step.to_state,
            step.reason,
            step.fence + claimed,
            to_text(step.not_before) if step.not_before else None,
            at,
            at if step.to_state in FINAL else None,
            step.job_id,
            step.from_state,
            step.fence,
        ),
    )
    if moved.rowcount != 1:
        raise StaleWrite(f"Job {step.job_id} is no longer {step.from_state} at attempt {step.fence}.")
    attempt_id = position.attempt_id
    note_step(books, step.job_id, attempt_id, step.from_state, step.to_state, step.reason)
    if attempt_id is None or claimed:
        return
    books.connection.execute(
        _NOTE_ATTEMPT,
        (
            step.outcome,
            step.http_status,
            step.error,
            step.remote_job_id,
            step.billing_mode,
            step.evidence,
            at if step.from_state is State.SUBMITTING else None,  # a same-key re-send ends anew
            polls,
            attempt_id,
        ),
    )
    if books.selective and step.to_state is State.QUEUED and position.attempt_run_id == books.run_id:
        books.connection.execute(_SELECT_AGAIN, (step.job_id,))
    _book(books, position, step, at)
    _keep_secret(books.connection, attempt_id, step)
    if step.verdict is not None:
        verdict = step.verdict
        books.connection.execute(
            _KEEP_RESULT,
            (step.job_id, verdict.matched, verdict.billed, verdict.cache_hit, verdict.body, at),
        )
    keep_answer(books, attempt_id, step.answer)


def note_step(
    books: Books, job_id: int, attempt_id: int | None, from_state: str, to_state: State, reason: Reason
) -> None:
    """One row of history. `from_state` is `NEW` for a job just enqueued."""
    books.connection.execute(
        _NOTE_STEP,
        (job_id, attempt_id, books.run_id, from_state, to_state, reason, to_text(books.now)),
    )


def _book(books: Books, position: Position, step: Transition, at: str) -> None:
    money = step.money
    if money is None:
        return
    run_id = position.attempt_run_id
    rows = (
        ("charge", money.charge_microusd, money.assumed),
        ("release", money.release_microusd, False),
        ("adjust", money.adjust_microusd, False),
    )
    for kind, amount, assumed in rows:
        if amount:
            books.connection.execute(
                _BOOK, (position.attempt_id, run_id, kind, amount, assumed, at, step.evidence)
            )
    if books.exposure is not None and position.chain_id is not None:
        books.exposure.moved(
            chain_id=position.chain_id,
            started_at=position.started_at,
            hold_closed=money.charge_microusd + money.release_microusd,
            release=money.release_microusd,
            adjust=money.adjust_microusd,
        )


def book_hold(books: Books, attempt_id: int, ceiling: int) -> None:
    """Set money aside for an attempt, in the transaction that writes its intent."""
    books.connection.execute(
        _BOOK, (attempt_id, books.run_id, "hold", ceiling, False, to_text(books.now), None)
    )
    if books.exposure is not None:
        books.exposure.held(ceiling)


def _keep_secret(connection: Connection, attempt_id: int, step: Transition) -> None:
    if step.bearer is not None:
        connection.execute(_DROP_BEARER, (attempt_id,))
        connection.execute(_KEEP_BEARER, (attempt_id, step.bearer.reveal()))
    elif step.to_state in FINAL or step.outcome is Outcome.PROVED_FREE:
        connection.execute(_DROP_BEARER, (attempt_id,))


def keep_answer(books: Books, attempt_id: int | None, answer: ev.Answer | None) -> None:
    """Keep a raw body with its attempt, if there is one worth keeping."""
    if answer is None or attempt_id is None:
        return
    digest = hashlib.sha256(answer.body.encode("utf-8", "surrogatepass")).hexdigest()
    books.connection.execute(
        _KEEP_ANSWER, (attempt_id, answer.kind, answer.http_status, answer.body, digest, to_text(books.now))
    )
