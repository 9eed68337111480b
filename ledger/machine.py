"""What an event means for a job. Pure: `(job, event, now, policy) -> Transition`; no I/O, no clock.

`decide` answers three ways: a `Transition` (the store applies it in one transaction), `None` (the event
changes nothing; the answer may still be worth keeping), or `IllegalEvent` (it cannot happen in this state,
so somebody has a bug and no money may move).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ledger import events as ev
from ledger.clock import later
from ledger.errors import Bug, IllegalEvent
from ledger.policy import Policy
from ledger.states import ANSWERED, STEPS, Outcome, Reason, State
from ledger.transition import Job, Money, Transition, settle_money

_ALLOWED: Final = frozenset(STEPS)
_CLOSED: Final = ANSWERED | {State.SKIPPED, State.CANCELLED}
_SENT_BACK: Final = (ev.Refused, ev.NotSent, ev.NotAllowed, ev.NoMoney, ev.Throttled)


def decide(job: Job, event: ev.Event, now: datetime, policy: Policy) -> Transition | None:
    """The step that `event` makes `job` take, or None when it changes nothing.

    Raises:
        IllegalEvent: `event` cannot happen in this state.
        Bug: The step is not in the table, or its money does not add up.
    """
    if job.state in _CLOSED and isinstance(event, ev.PollEvent | ev.Delivered):
        return None
    if job.state in ANSWERED and isinstance(event, ev.BecameUnreachable):
        return None  # a delivery brought the answer while the poller was giving up
    handler = _HANDLERS.get(job.state, _nothing)
    step = handler(job, event, now, policy)
    if step is not None:
        _check(job, step)
    return step


def _check(job: Job, step: Transition) -> None:
    if (step.from_state, step.to_state, step.reason) not in _ALLOWED:
        raise Bug(f"{step.from_state} to {step.to_state} because {step.reason} is not in the table")
    money = step.money
    if money is None:
        return
    if money.charge_microusd < 0 or money.release_microusd < 0:
        raise Bug(f"job {job.id}: negative charge or release: {money}")
    if money.charge_microusd + money.release_microusd != job.hold_microusd:
        raise Bug(f"job {job.id}: hold {job.hold_microusd} is not charge + release: {money}")


def _illegal(job: Job, event: ev.Event) -> IllegalEvent:
    return IllegalEvent(f"{type(event).__name__} cannot happen to job {job.id} while it is {job.state}")


def _step(job: Job, to: State, reason: Reason, **rest: object) -> Transition:
    return Transition(job.id, job.attempt, job.state, to, reason, **rest)  # type: ignore[arg-type] # checked by tests of every step


def _freed(job: Job) -> Money:
    return Money(release_microusd=job.hold_microusd)


def _nothing(job: Job, event: ev.Event, _now: datetime, _policy: Policy) -> Transition | None:
    raise _illegal(job, event)


def _queued(job: Job, event: ev.Event, _now: datetime, _policy: Policy) -> Transition | None:
    match event:
        case ev.Claimed():
            return _step(job, State.SUBMITTING, Reason.CLAIMED)
        case ev.Skip(reason):
            return _step(job, State.SKIPPED, Reason(reason))
        case ev.Cancel():
            return _step(job, State.CANCELLED, Reason.CANCELLED_BY_PERSON)
        case ev.StillRunning() | ev.Finished() | ev.Gone() | ev.PollFailed() | ev.Delivered():
            return None  # about an attempt that an audit or a person has closed
    raise _illegal(job, event)


def _submitting(job: Job, event: ev.Event, now: datetime, policy: Policy) -> Transition | None:
    match event:
        case ev.Accepted(remote_job_id, bearer, billing_mode, answer):
            return _step(
                job,
                State.WAITING,
                Reason.ACCEPTED,
                outcome=Outcome.ACCEPTED,
                remote_job_id=remote_job_id,
                bearer=bearer,
                billing_mode=billing_mode,
                http_status=answer.http_status,
                answer=answer,
            )
        case ev.Answered(verdict, answer):
            failed = verdict.state is State.FAILED
            return _step(
                job,
                verdict.state,
                Reason.PROVIDER_FAILED if failed else Reason.ANSWERED,
                outcome=Outcome.ANSWERED,
                money=settle_money(job.hold_microusd, verdict),
                verdict=verdict,
                error=verdict.error_code,
                http_status=answer.http_status,
                answer=answer,
            )
        case ev.Unknown(error, http_status, answer):
            return _doubt(job, Reason.OUTCOME_UNKNOWN, error, http_status, answer)
        case ev.FoundAtStart():
            return _doubt(job, Reason.FOUND_AT_START, "runner_died", None, None)
        case ev.Delivered():
            return None  # early: it is kept until the POST has its own answer
    return _sent_back(job, event, now, policy)


def _sent_back(job: Job, event: ev.Event, now: datetime, policy: Policy) -> Transition:
    """The provider, or the network before it, surely did not take the POST: the hold is released.

    Not so for a POST that is sent once more with its key: that says nothing about the first time.
    """
    if job.resent and isinstance(event, _SENT_BACK):
        code = getattr(event, "error_code", None) or getattr(event, "error", None) or "throttled"
        status = getattr(event, "http_status", None)
        return _doubt(job, Reason.OUTCOME_UNKNOWN, f"resent: {code}", status, getattr(event, "answer", None))
    match event:
        case ev.Refused(status, code, _, answer):
            return _step(
                job,
                State.FAILED,
                Reason.REFUSED,
                outcome=Outcome.REFUSED,
                money=_freed(job),
                error=code,
                http_status=status,
                answer=answer,
            )
        case ev.NotSent(error):
            return _requeued(job, Outcome.NOT_SENT, error)
        case ev.NotAllowed(status, code, _, answer):
            return _requeued(job, Outcome.NOT_ALLOWED, code, status, answer)
        case ev.NoMoney(code, _, answer):
            return _requeued(job, Outcome.NO_MONEY, code, 402, answer)
        case ev.Throttled(retry_after_s, answer):
            wait = max(policy.throttled_wait_s, retry_after_s or 0.0)
            return _requeued(job, Outcome.THROTTLED, "throttled", 429, answer, later(now, wait))
    raise _illegal(job, event)


def _requeued(
    job: Job,
    outcome: Outcome,
    error: str,
    http_status: int | None = None,
    answer: ev.Answer | None = None,
    not_before: datetime | None = None,
) -> Transition:
    return _step(
        job,
        State.QUEUED,
        Reason(outcome.value),
        outcome=outcome,
        money=_freed(job),
        error=error,
        http_status=http_status,
        answer=answer,
        not_before=not_before,
    )


def _doubt(
    job: Job, reason: Reason, error: str, http_status: int | None, answer: ev.Answer | None
) -> Transition:
    return _step(
        job,
        State.IN_DOUBT,
        reason,
        outcome=Outcome.IN_DOUBT,
        error=error,
        http_status=http_status,
        answer=answer,
    )


def _finished(
    job: Job, event: ev.Finished, reason: Reason, failed_reason: Reason, evidence: str | None = None
) -> Transition:
    verdict = event.verdict
    return _step(
        job,
        verdict.state,
        failed_reason if verdict.state is State.FAILED else reason,
        outcome=Outcome.ACCEPTED,
        money=settle_money(job.hold_microusd, verdict),
        verdict=verdict,
        error=verdict.error_code,
        evidence=evidence,
        answer=event.answer,
    )


def _delivered(job: Job, event: ev.Delivered, verdict: ev.Verdict) -> Transition:
    """A result settles as a poll's does. Without a remote id (a sync call) nothing was accepted to poll."""
    return _step(
        job,
        verdict.state,
        Reason.LATE_ANSWER if job.state is State.LOST else Reason.DELIVERY_EVIDENCE,
        outcome=Outcome.ACCEPTED if event.remote_job_id else Outcome.ANSWERED,
        money=_corrected(job, verdict)
        if job.state is State.LOST
        else settle_money(job.hold_microusd, verdict),
        verdict=verdict,
        remote_job_id=event.remote_job_id,
        error=verdict.error_code,
        evidence=event.evidence,
        answer=event.answer,
    )


def _corrected(job: Job, verdict: ev.Verdict) -> Money:
    cost = verdict.cost_microusd
    return Money(adjust_microusd=0 if cost is None else cost - job.charged_microusd)


def _waiting(job: Job, event: ev.Event, _now: datetime, _policy: Policy) -> Transition | None:
    match event:
        case ev.Finished():
            return _finished(job, event, Reason.COMPLETED, Reason.PROVIDER_FAILED)
        case ev.BecameUnreachable(why):
            return _step(
                job,
                State.IN_DOUBT,
                Reason.UNREACHABLE,
                outcome=Outcome.IN_DOUBT,
                error="unreachable",
                evidence=why,
            )
        case ev.Delivered(verdict=ev.Verdict(cost_microusd=int()) as verdict):
            return _delivered(job, event, verdict)
        case ev.StillRunning() | ev.Gone() | ev.PollFailed() | ev.Delivered():
            return None  # a delivery that leaves anything open is a reason to ask at once
    raise _illegal(job, event)


def _in_doubt(job: Job, event: ev.Event, _now: datetime, policy: Policy) -> Transition | None:
    match event:
        case ev.Finished():
            return _finished(job, event, Reason.POLL_EVIDENCE, Reason.POLL_EVIDENCE, "poll: a final answer")
        case ev.StillRunning(word=word):
            return _step(
                job,
                State.WAITING,
                Reason.POLL_EVIDENCE,
                outcome=Outcome.ACCEPTED,
                evidence=f"poll: the provider says {word!r}",
            )
        case ev.Delivered(verdict=ev.Verdict() as verdict):
            return _delivered(job, event, verdict)
        case ev.Delivered(remote_job_id=str(remote_job_id), evidence=evidence):
            return _step(
                job,
                State.WAITING,
                Reason.DELIVERY_EVIDENCE,
                outcome=Outcome.ACCEPTED,
                remote_job_id=remote_job_id,
                evidence=evidence,
                answer=event.answer,
            )
        case ev.Gone() | ev.PollFailed() | ev.Delivered():
            return None
    return _decided(job, event, policy)


def _decided(job: Job, event: ev.Event, policy: Policy) -> Transition | None:
    """What the runner, an audit or a person makes of a doubt."""
    match event:
        case ev.AcceptedByPerson(remote_job_id, bearer, evidence):
            return _step(
                job,
                State.WAITING,
                Reason.ACCEPTED_BY_PERSON,
                outcome=Outcome.ACCEPTED,
                remote_job_id=remote_job_id,
                bearer=bearer,
                evidence=evidence,
            )
        case ev.SameKeyResend():
            return _step(job, State.SUBMITTING, Reason.SAME_KEY_RESEND)
        case ev.ProvedFree(evidence):
            if job.proved_free_before >= policy.proved_free_max:
                return None  # a fourth time is no accident: a person looks at it
            return _step(
                job,
                State.QUEUED,
                Reason.PROVED_FREE,
                outcome=Outcome.PROVED_FREE,
                money=_freed(job),
                evidence=evidence,
            )
        case ev.AuditCharged(charge, evidence):
            return _given_up(job, Reason.AUDIT_CHARGED, charge, evidence, assumed=False)
        case ev.WrittenOff(charge, assumed, evidence, resend):
            reason = Reason.RESENT_BY_PERSON if resend else Reason.WRITTEN_OFF
            return _given_up(job, reason, charge, evidence, assumed=assumed)
    raise _illegal(job, event)


def _given_up(job: Job, reason: Reason, charge: int, evidence: str, *, assumed: bool) -> Transition:
    if not 0 <= charge <= job.hold_microusd:
        raise Bug(f"job {job.id}: a charge of {charge} does not fit the hold of {job.hold_microusd}")
    return _step(
        job,
        State.LOST,
        reason,
        outcome=Outcome.LOST,
        money=Money(charge, job.hold_microusd - charge, assumed=assumed and charge > 0),
        evidence=evidence,
    )


def _lost(job: Job, event: ev.Event, _now: datetime, _policy: Policy) -> Transition | None:
    match event:
        case ev.Finished(verdict, answer):
            return _step(
                job,
                verdict.state,
                Reason.LATE_ANSWER,
                outcome=Outcome.ACCEPTED,
                money=_corrected(job, verdict),
                verdict=verdict,
                error=verdict.error_code,
                evidence="poll: a late answer",
                answer=answer,
            )
        case ev.Delivered(verdict=ev.Verdict() as verdict):
            return _delivered(job, event, verdict)
        case ev.StillRunning() | ev.Gone() | ev.PollFailed() | ev.Delivered():
            return None
    raise _illegal(job, event)


_HANDLERS: Final = {
    State.QUEUED: _queued,
    State.SUBMITTING: _submitting,
    State.WAITING: _waiting,
    State.IN_DOUBT: _in_doubt,
    State.LOST: _lost,
}
