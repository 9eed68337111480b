"""One step of one job, as a value: what `ledger/machine.py` decides and the store writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ledger import events as ev
from ledger.states import Outcome, Reason, State


@dataclass(frozen=True, slots=True)
class Job:
    """What a decision needs to know of a job: its state, its fence and its open money."""

    id: int
    state: State
    attempt: int
    """Number of the latest attempt (the fence); 0 before the first."""
    hold_microusd: int = 0
    """The open hold of the latest attempt; 0 when there is none."""
    charged_microusd: int = 0
    """What a closed latest attempt is booked at (charge and adjusts): a late answer corrects it."""
    proved_free_before: int = 0
    """How often an audit has already proved an attempt of this job free."""
    resent: bool = False
    """The latest attempt was in doubt and is in the air once more, with the same key."""


@dataclass(frozen=True, slots=True)
class Money:
    """What becomes of the open hold: hold = charge + release. `adjust` is signed and comes on top."""

    charge_microusd: int = 0
    release_microusd: int = 0
    adjust_microusd: int = 0
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """One allowed step and everything that is written with it in the same transaction."""

    job_id: int
    fence: int
    """The attempt number the job must still have."""
    from_state: State
    to_state: State
    reason: Reason
    outcome: Outcome | None = None
    money: Money | None = None
    """None: the hold stays as it is."""
    verdict: ev.Verdict | None = None
    remote_job_id: str | None = None
    bearer: ev.Secret | None = None
    billing_mode: str | None = None
    not_before: datetime | None = None
    error: str | None = None
    http_status: int | None = None
    evidence: str | None = None
    answer: ev.Answer | None = None


def settle_money(hold: int, verdict: ev.Verdict) -> Money:
    """How a final answer closes a hold (micro-dollars).

    A cost within the hold is charged and the rest released; a cost above it charges the hold in full and
    books the excess as `adjust`; a done answer that states no cost charges the whole hold, `assumed`.
    """
    if verdict.cost_microusd is None:
        return Money(charge_microusd=hold, assumed=True)
    charge = min(verdict.cost_microusd, hold)
    return Money(charge, hold - charge, verdict.cost_microusd - charge)
