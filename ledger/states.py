"""The states of a job and every step between them, as data.

This table is the contract. `allowed_transitions` in the database holds the same rows and a trigger refuses
anything else; a test compares the two, and the README's diagram is generated from here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class State(StrEnum):
    """Where a job is. Each member's paragraph says how a job enters and who moves it on (`MEANS`)."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    WAITING = "waiting"
    IN_DOUBT = "in_doubt"
    MATCHED = "matched"
    NO_MATCH = "no_match"
    FAILED = "failed"
    LOST = "lost"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


MEANS: Final[dict[State, str]] = {
    State.QUEUED: "The request is written and nothing has been sent. `not_before` says when it may go; with "
    "`paused_at` set it stays. The runner claims it.",
    State.SUBMITTING: "The intent and its hold are on disk; the POST may or may not have arrived. The answer "
    "moves it on. Found at start, its run is dead: it becomes `in_doubt`.",
    State.WAITING: "The provider accepted: remote job id and bearer are stored. Polling is free and "
    "repeatable; the final poll moves it on.",
    State.IN_DOUBT: "The outcome of a paid POST is unknown. The hold stays and nobody sends it again until "
    "evidence says what happened.",
    State.MATCHED: "Final. A result came; it and its cost are stored in the same transaction.",
    State.NO_MATCH: "Final. The provider found nothing; answer and cost are stored in the same transaction.",
    State.FAILED: "Final. Refused by the provider or failed there; the hold is released, or what it says it "
    "cost is charged.",
    State.LOST: "Final. Paid, or possibly paid, and the result cannot be had. It is on the claims list; only "
    "a late answer can still settle it.",
    State.SKIPPED: "Final. Never sent: suppressed, or the lead lacks what the route needs.",
    State.CANCELLED: "Final. A person stopped it before it was sent.",
}

FINAL: Final = frozenset(
    {State.MATCHED, State.NO_MATCH, State.FAILED, State.LOST, State.SKIPPED, State.CANCELLED}
)
OPEN: Final = frozenset(State) - FINAL
ANSWERED: Final = frozenset({State.MATCHED, State.NO_MATCH, State.FAILED})

NEW: Final = "new"
"""The `from_state` of a job's first transition: before it the job did not exist."""


class Reason(StrEnum):
    """Why a job moved: "queued again because throttled" is not "queued again because never sent"."""

    ENQUEUED = "enqueued"
    RETRIED = "retried"
    RESENT = "resent"
    CLAIMED = "claimed"
    SUPPRESSED = "suppressed"
    LACKS_FIELDS = "lacks_fields"
    CANCELLED_BY_PERSON = "cancelled_by_person"
    ACCEPTED = "accepted"
    ANSWERED = "answered"
    REFUSED = "refused"
    PROVIDER_FAILED = "provider_failed"
    NOT_SENT = "not_sent"
    THROTTLED = "throttled"
    NO_MONEY = "no_money"
    NOT_ALLOWED = "not_allowed"
    OUTCOME_UNKNOWN = "outcome_unknown"
    FOUND_AT_START = "found_at_start"
    COMPLETED = "completed"
    UNREACHABLE = "unreachable"
    SAME_KEY_RESEND = "same_key_resend"
    POLL_EVIDENCE = "poll_evidence"
    DELIVERY_EVIDENCE = "delivery_evidence"
    ACCEPTED_BY_PERSON = "accepted_by_person"
    PROVED_FREE = "proved_free"
    AUDIT_CHARGED = "audit_charged"
    WRITTEN_OFF = "written_off"
    RESENT_BY_PERSON = "resent_by_person"
    LATE_ANSWER = "late_answer"


class Step(NamedTuple):
    """One allowed move of a job. `from_state` is `NEW` for a job's first row."""

    from_state: str
    to_state: State
    reason: Reason


def _steps(from_state: State, to_states: tuple[State, ...], reasons: tuple[Reason, ...]) -> tuple[Step, ...]:
    return tuple(Step(from_state, to, reason) for to in to_states for reason in reasons)


_RESULTS: Final = (State.MATCHED, State.NO_MATCH)
_ANSWERS: Final = (State.MATCHED, State.NO_MATCH, State.FAILED)
_EVIDENCE: Final = (Reason.POLL_EVIDENCE, Reason.DELIVERY_EVIDENCE)

STEPS: Final[tuple[Step, ...]] = (
    Step(NEW, State.QUEUED, Reason.ENQUEUED),
    Step(NEW, State.QUEUED, Reason.RETRIED),
    Step(NEW, State.QUEUED, Reason.RESENT),
    *_steps(State.QUEUED, (State.SUBMITTING,), (Reason.CLAIMED,)),
    *_steps(State.QUEUED, (State.SKIPPED,), (Reason.SUPPRESSED, Reason.LACKS_FIELDS)),
    *_steps(State.QUEUED, (State.CANCELLED,), (Reason.CANCELLED_BY_PERSON,)),
    *_steps(State.SUBMITTING, (State.WAITING,), (Reason.ACCEPTED,)),
    *_steps(State.SUBMITTING, _RESULTS, (Reason.ANSWERED,)),
    *_steps(State.SUBMITTING, (State.FAILED,), (Reason.REFUSED, Reason.PROVIDER_FAILED)),
    *_steps(
        State.SUBMITTING,
        (State.QUEUED,),
        (Reason.NOT_SENT, Reason.THROTTLED, Reason.NO_MONEY, Reason.NOT_ALLOWED),
    ),
    *_steps(State.SUBMITTING, (State.IN_DOUBT,), (Reason.OUTCOME_UNKNOWN, Reason.FOUND_AT_START)),
    *_steps(State.WAITING, _RESULTS, (Reason.COMPLETED, Reason.DELIVERY_EVIDENCE)),
    *_steps(State.WAITING, (State.FAILED,), (Reason.PROVIDER_FAILED, Reason.DELIVERY_EVIDENCE)),
    *_steps(State.WAITING, (State.IN_DOUBT,), (Reason.UNREACHABLE,)),
    *_steps(State.IN_DOUBT, (State.SUBMITTING,), (Reason.SAME_KEY_RESEND,)),
    *_steps(State.IN_DOUBT, (State.WAITING,), (*_EVIDENCE, Reason.ACCEPTED_BY_PERSON)),
    *_steps(State.IN_DOUBT, _ANSWERS, _EVIDENCE),
    *_steps(State.IN_DOUBT, (State.QUEUED,), (Reason.PROVED_FREE,)),
    *_steps(
        State.IN_DOUBT, (State.LOST,), (Reason.AUDIT_CHARGED, Reason.WRITTEN_OFF, Reason.RESENT_BY_PERSON)
    ),
    *_steps(State.LOST, _ANSWERS, (Reason.LATE_ANSWER,)),
)


class Outcome(StrEnum):
    """How one attempt (one paid POST) came out. NULL in the table while the POST is in the air."""

    ACCEPTED = "accepted"
    ANSWERED = "answered"
    NOT_SENT = "not_sent"
    REFUSED = "refused"
    NOT_ALLOWED = "not_allowed"
    NO_MONEY = "no_money"
    THROTTLED = "throttled"
    IN_DOUBT = "in_doubt"
    PROVED_FREE = "proved_free"
    LOST = "lost"


class StopReason(StrEnum):
    """Why a run ended. `died` is set by the next start for a run that could not say."""

    FINISHED = "finished"
    LIMIT = "limit"
    UNTIL = "until"
    BUDGET = "budget"
    NO_FUNDS = "no_funds"
    INTERRUPTED = "interrupted"
    NOT_ALLOWED = "not_allowed"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    DISK = "disk"
    DIED = "died"


CHAIN_ENDS: Final = frozenset({StopReason.FINISHED, StopReason.LIMIT, StopReason.UNTIL, StopReason.BUDGET})
"""A run that stopped for one of these closes its budget chain; after any other the next run continues it."""

ROUTES: Final = ("enrich/phone", "enrich/person", "enrich/websearch", "enrich/lead-session")
"""The routes a lead can be asked on, as the provider names them (provider notes, section 2a)."""

MODES: Final = ("async", "sync", "batch")


def full_route(name: str) -> str:
    """`lead-session` and `enrich/lead-session` are the same route; returns the full name, unchecked."""
    return name if "/" in name else f"enrich/{name}"
