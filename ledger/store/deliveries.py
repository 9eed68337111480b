"""Webhook deliveries as evidence: kept once, matched to an attempt, and applied as a poll's answer would be.

A delivery names its attempt by the provider's job id or by our own key echoed back. One that names none of
ours changes nothing and is kept: it may be early (the POST has no answer yet), and is tried again when a job
becomes known. Everything here runs inside the caller's transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from ledger import events as ev
from ledger.clock import from_text, later, to_text
from ledger.errors import Bug, UsageProblem
from ledger.states import ANSWERED, State
from ledger.store import steps
from ledger.store.books import Books
from ledger.transition import Transition

_KEEP: Final = """
    INSERT INTO deliveries (received_at, event_type, remote_job_id, sha256, delivery_id, correlation, route,
        body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_KNOWN: Final = "SELECT 1 FROM deliveries WHERE sha256 = ?"
_ATTEMPT: Final = """
    SELECT a.id, a.job_id, a.number, a.remote_job_id, a.idempotency_key, a.ceiling_microusd, b.bearer,
        EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.kind = 'charge' AND c.assumed = 1)
            AND NOT EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.kind = 'adjust'),
        EXISTS (SELECT 1 FROM results r WHERE r.job_id = a.job_id)
    FROM attempts a LEFT JOIN poll_bearers b ON b.attempt_id = a.id WHERE
"""
_BY_REMOTE: Final = _ATTEMPT + "a.remote_job_id = ?"
_BY_KEY: Final = _ATTEMPT + "a.idempotency_key = ?"
_BY_ID: Final = _ATTEMPT + "a.id = ?"
_KEPT: Final = """
    SELECT id, body, remote_job_id, correlation FROM deliveries
    WHERE applied_at IS NULL AND body IS NOT NULL AND """
_KEPT_FOR_JOB: Final = (
    _KEPT
    + "remote_job_id = (SELECT a.remote_job_id FROM attempts a WHERE a.job_id = ?1 AND a.number = ?2) "
    + "UNION "
    + _KEPT
    + "correlation = (SELECT a.idempotency_key FROM attempts a WHERE a.job_id = ?1 AND a.number = ?2) "
    + "ORDER BY id LIMIT 20"
)
_KEPT_OF_REMOTE: Final = _KEPT + "remote_job_id = ? ORDER BY id LIMIT 20"
_OF_DOUBTS: Final = (
    "SELECT a.{0} FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt "
    "WHERE j.state IN ('in_doubt', 'lost')"
)
_KEPT_FOR_DOUBTS: Final = (
    _KEPT
    + f"remote_job_id IN ({_OF_DOUBTS.format('remote_job_id')}) UNION "
    + _KEPT
    + f"correlation IN ({_OF_DOUBTS.format('idempotency_key')}) ORDER BY id"
)
_APPLIED: Final = """
    UPDATE deliveries SET applied_at = ?, attempt_id = ?, verdict = ?, body = NULL WHERE id = ?
"""
_NAME: Final = "UPDATE attempts SET remote_job_id = COALESCE(remote_job_id, ?) WHERE id = ?"
_PAUSE: Final = "UPDATE jobs SET paused_at = ? WHERE id = ? AND state = 'queued' AND paused_at IS NULL"
# What a delivery may be about when it names nothing of ours. A correlation value that is not ours says that
# the job is somebody else's.
_STRANGERS: Final = """
    SELECT d.remote_job_id, MAX(d.route), MIN(d.received_at) FROM deliveries d
    WHERE d.applied_at IS NULL AND d.remote_job_id IS NOT NULL AND d.correlation IS NULL
        AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.remote_job_id = d.remote_job_id)
    GROUP BY d.remote_job_id LIMIT ?
"""
# Every call that may have been accepted under an id we do not know, also those that were given up or are
# still in the air: only the one that is alone can be meant.
_NAMELESS: Final = """
    SELECT a.id, j.route, j.state, a.started_at, a.ended_at
    FROM jobs j CROSS JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
    WHERE j.state IN ('submitting', 'in_doubt', 'lost') AND a.remote_job_id IS NULL AND j.mode = 'async'
    LIMIT ?
"""
_MANY: Final = 200
"""With so many unknown jobs or nameless calls nothing is certain; it also bounds their comparison."""


class _Attempt(NamedTuple):
    id: int
    job_id: int
    number: int
    remote_job_id: str | None
    key: str
    ceiling_microusd: int
    bearer: str | None
    assumed: int
    has_result: int


class _Kept(NamedTuple):
    id: int
    body: str
    remote_job_id: str | None
    correlation: str | None


@dataclass(frozen=True, slots=True)
class Came:
    """What became of one delivery."""

    note: str
    job_id: int | None = None
    step: Transition | None = None
    ask_now: bool = False
    """The job is to be polled at once: the delivery says that there is something to fetch."""


def take(books: Books, body: dict[str, Any]) -> Came:
    """Keep a delivery as the receiver dropped it, and apply it if it is about a job of ours.

    Kept it stays, even if it cannot be applied.

    Raises:
        UsageProblem: It is not a verified delivery: it changes nothing and is not kept.
    """
    raw, received_at, delivery_id = body.get("raw"), body.get("received_at"), body.get("delivery_id")
    if body.get("verified") is not True or not isinstance(raw, str) or not isinstance(received_at, str):
        raise UsageProblem("A delivery in the inbox does not say that its signature was checked.")
    try:
        from_text(received_at)
    except ValueError:
        raise UsageProblem("A delivery in the inbox does not say when it was received.") from None
    digest = hashlib.sha256(raw.encode("utf-8", "surrogateescape")).hexdigest()
    if books.connection.execute(_KNOWN, (digest,)).fetchone() is not None:
        return Came("A delivery came again: nothing changed.")
    said = _read(books, raw, None, ())
    name = delivery_id[:128].encode("utf-8", "replace").decode() if isinstance(delivery_id, str) else None
    cursor = books.connection.execute(
        _KEEP,
        (
            received_at,
            said.event_type,
            said.remote_job_id,
            digest,
            name,
            said.correlation,
            said.route,
            said.answer.body,
        ),
    )
    kept = _Kept(cursor.lastrowid or 0, said.answer.body, said.remote_job_id, said.correlation)
    return _try(books, kept.id, partial(_apply, books, kept))


def record(books: Books, job_id: int, fence: int, event: ev.Event, *, polls: int = 0) -> Transition | None:
    """`steps.record`, and then whatever deliveries were kept for the attempt that has become known by it.

    Returns:
        The last step that was taken.
    """
    step = steps.record(books, job_id, fence, event, polls=polls)
    if step is None or books.read_delivery is None:
        return step
    for row in books.connection.execute(_KEPT_FOR_JOB, (job_id, fence)).fetchall():
        step = _try(books, row[0], partial(_apply, books, _Kept(*row))).step or step
    return step


def settle_doubts(books: Books) -> list[Came]:
    """Apply what is kept for the latest call of every doubtful or lost job.

    They became so while nobody could read deliveries. Where that is still so, nothing happens.
    """
    if books.read_delivery is None:
        return []
    kept = [_Kept(*row) for row in books.connection.execute(_KEPT_FOR_DOUBTS).fetchall()]
    return [_try(books, one.id, partial(_apply, books, one)) for one in kept]


def fit(books: Books) -> list[Came]:
    """Match the one unknown delivered job to the one open doubt it can be about, where that is certain.

    Only for a balance that is ours alone: otherwise the job may be another program's. A delivered job fits a
    call of its route that was sent before the delivery came, at most `freeze_s` plus `job_deadline_s` before.
    """
    if books.read_delivery is None:
        return []
    strangers = books.connection.execute(_STRANGERS, (_MANY,)).fetchall()
    nameless = books.connection.execute(_NAMELESS, (_MANY,)).fetchall() if strangers else []
    if max(len(strangers), len(nameless)) == _MANY:
        return []
    came: list[Came] = []
    for remote_job_id, route, received_at in strangers:
        fitting = [call for call in nameless if _fits(books, call, route, received_at)]
        if len(fitting) != 1 or fitting[0][2] != State.IN_DOUBT:
            continue
        rivals = [other for other in strangers if _fits(books, fitting[0], other[1], other[2])]
        if len(rivals) == 1:
            came += _apply_fitting(books, fitting[0][0], remote_job_id)
    return came


def _fits(books: Books, call: tuple[Any, ...], route: str | None, received_at: str) -> bool:
    _, of_route, _, started_at, ended_at = call
    if route not in {None, of_route} or received_at < started_at:
        return False
    if ended_at is None:
        return True
    window_s = books.policy.freeze_s + books.policy.job_deadline_s
    return received_at <= to_text(later(from_text(ended_at), window_s))


def _apply_fitting(books: Books, attempt_id: int, remote_job_id: str) -> list[Came]:
    came: list[Came] = []
    for row in books.connection.execute(_KEPT_OF_REMOTE, (remote_job_id,)).fetchall():
        attempt = _Attempt(*books.connection.execute(_BY_ID, (attempt_id,)).fetchone())
        work = partial(
            _apply_to, books, _Kept(*row), attempt, "the one unknown job that fits the one open doubt"
        )
        came.append(_try(books, row[0], work))
    return came


def _try(books: Books, kept_id: int, work: Callable[[], Came]) -> Came:
    """Apply a kept delivery; one that cannot be applied stays kept, and stops neither a call nor a wish."""
    came = books.tried(work)
    if isinstance(came, Came):
        return came
    why = f"{type(came).__name__}: {getattr(came, 'what', came)}"
    return Came(f"Delivery {kept_id} cannot be applied ({why}): it is kept and changes nothing.")


def _apply(books: Books, kept: _Kept) -> Came:
    found: list[_Attempt] = []
    for query, name in ((_BY_REMOTE, kept.remote_job_id), (_BY_KEY, kept.correlation)):
        row = None if name is None else books.connection.execute(query, (name,)).fetchone()
        found += [] if row is None else [_Attempt(*row)]
    if not found:
        return Came(f"Delivery {kept.id} is about no job of ours yet: it is kept.")
    attempt = found[0]
    if len({other.id for other in found}) > 1 or (
        kept.remote_job_id is not None and attempt.remote_job_id not in {None, kept.remote_job_id}
    ):
        return Came(f"Delivery {kept.id} names two different calls: it is kept and changes nothing.")
    by_id = attempt.remote_job_id is not None and attempt.remote_job_id == kept.remote_job_id
    return _apply_to(books, kept, attempt, "names its job id" if by_id else "echoes its key")


def _apply_to(books: Books, kept: _Kept, attempt: _Attempt, why: str) -> Came:
    secrets = () if attempt.bearer is None else (attempt.bearer,)
    said = _read(books, kept.body, attempt.ceiling_microusd, secrets)
    remote_job_id = kept.remote_job_id or attempt.remote_job_id
    evidence = f"delivery {kept.id}: {why}"
    event = ev.Delivered(remote_job_id, said.verdict, said.answer, evidence)
    position = steps.look(books.connection, attempt.job_id)
    state = position.job.state
    step: Transition | None = None
    ask = False
    if state in ANSWERED and attempt.number == position.job.attempt:
        _after_the_end(books, attempt, event)
    elif attempt.number < position.job.attempt or state in {State.QUEUED, State.SKIPPED, State.CANCELLED}:
        _after_its_close(books, attempt, event)
    else:
        step = steps.record(books, attempt.job_id, attempt.number, event)
        ask = step is None and state is State.WAITING
        if ask and said.verdict is None:
            steps.keep_answer(books, attempt.id, said.answer)  # to be asked at once was all it could say
        elif step is None:
            return Came(f"{evidence}; job {attempt.job_id} stays {state}.", attempt.job_id, ask_now=ask)
    verdict = None if said.verdict is None else said.verdict.state.value
    at: datetime = books.now
    books.connection.execute(_APPLIED, (to_text(at), attempt.id, verdict, kept.id))
    now = step.to_state if step is not None else state
    return Came(f"{evidence}; job {attempt.job_id} is {now}.", attempt.job_id, step, ask)


def _after_the_end(books: Books, attempt: _Attempt, event: ev.Delivered) -> None:
    """The job has its answer. What a delivery adds is the cost, where the answer stated none.

    Neither does a refusal: the call was taken all the same, and whoever asked again decides once more.
    """
    if not attempt.has_result:
        _after_its_close(books, attempt, event)
        if event.verdict is not None:
            steps.pause_next(books, attempt.job_id, event.verdict)
    elif attempt.assumed:
        steps.late(books, attempt.job_id, attempt.number, event, event.evidence)
    else:
        steps.keep_answer(books, attempt.id, event.answer)


def _after_its_close(books: Books, attempt: _Attempt, event: ev.Delivered) -> None:
    """The attempt was closed (proved free, say) and turns out to have been taken: its cost is booked.

    Where it cost something, a job that is about to be sent again stops: it would be paid twice, so a person
    decides. Where it cost nothing, or the delivery does not say, the proof stands.
    """
    books.connection.execute(_NAME, (event.remote_job_id, attempt.id))
    steps.late(books, attempt.job_id, attempt.number, event, event.evidence)
    if event.verdict is not None and event.verdict.cost_microusd:
        books.connection.execute(_PAUSE, (to_text(books.now), attempt.job_id))


def _read(books: Books, raw: str, ceiling_microusd: int | None, secrets: tuple[str, ...]) -> ev.Delivery:
    if books.read_delivery is None:
        raise Bug("A delivery is read only by somebody who knows the provider's profile.")
    return books.read_delivery(raw, ceiling_microusd, secrets)
