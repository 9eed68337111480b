"""What can happen to a job: the vocabulary between the wire, a person and the state machine.

The client returns these for every documented answer and never raises for one (habit 5). Nothing here
does anything; `ledger/machine.py` decides what each event means in each state.

A raw body is kept as text. A bearer travels in a `Secret`, whose repr shows nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledger.states import State

REMOTE_JOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""A provider's job id that may stand in an address."""
BEARER: Final = re.compile(r"[!-~]{1,4096}")
"""A poll bearer that may stand in a header."""


class Secret:
    """A text that must not be shown: no repr, no str, no pickling. `reveal()` is the only way in."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that sends or stores it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "…"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Answer:
    """A raw answer worth keeping. `body` has every bearer and token cut out before it gets here."""

    kind: str
    """`accepted`, `answered`, `refused`, `odd` (anything unreadable or unexpected), `poll`, `delivery`."""
    http_status: int | None
    body: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A final answer as read from the wire. Tri-state flags: None means the provider did not say."""

    state: State
    """`matched`, `no_match` or `failed`."""
    matched: bool | None
    billed: bool | None
    cache_hit: bool | None
    cost_microusd: int | None
    """None: the answer states no cost. A failed answer that states none has 0 here."""
    error_code: str | None
    body: str
    """The result object as JSON text."""


# --- how a paid POST came out (DESIGN, "How the outcome of a paid POST is read") ---


@dataclass(frozen=True, slots=True)
class Accepted:
    """2xx with a job id: the provider will work on it and we may poll."""

    remote_job_id: str
    bearer: Secret | None
    billing_mode: str | None
    answer: Answer


@dataclass(frozen=True, slots=True)
class Answered:
    """200 with a JSON object on a sync route: the answer itself."""

    verdict: Verdict
    answer: Answer


@dataclass(frozen=True, slots=True)
class NotSent:
    """No connection was ever made: surely not charged."""

    error: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider refused this request (400, 404, 405, 413, 415, 422)."""

    http_status: int
    error_code: str
    message: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """The provider refused us (401, 403, 402 with AGENT_TOKEN_REQUIRED)."""

    http_status: int
    error_code: str
    message: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class NoMoney:
    """402: the balance does not cover the ceiling."""

    error_code: str
    message: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Throttled:
    """429. `retry_after_s` is what the provider asked for, clamped to 0..900 s; None if nothing usable."""

    retry_after_s: float | None
    answer: Answer


@dataclass(frozen=True, slots=True)
class Unknown:
    """Everything else: the POST may or may not have been accepted. Keeps every byte that came."""

    error: str
    http_status: int | None
    answer: Answer | None


PostEvent = Accepted | Answered | NotSent | Refused | NotAllowed | NoMoney | Throttled | Unknown


# --- what a free poll said ---


@dataclass(frozen=True, slots=True)
class StillRunning:
    """Not final. `word` is the provider's state word; `known` is False for one the profile does not list."""

    word: str
    known: bool
    answer: Answer | None
    """The raw body, only for an unknown word (kept once)."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A final answer."""

    verdict: Verdict
    answer: Answer


@dataclass(frozen=True, slots=True)
class Gone:
    """404, 410, 401 or 403 on a poll: the provider does not know this job, or not with this bearer."""

    http_status: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class PollFailed:
    """The poll itself failed (network, 5xx, unreadable body): says nothing about the job."""

    error: str
    retry_after_s: float | None = None
    throttled: bool = False


PollEvent = StillRunning | Finished | Gone | PollFailed


# --- what a verified webhook delivery said ---


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as read from the wire, before anybody knows whose it is."""

    event_type: str
    remote_job_id: str | None
    correlation: str | None
    """The attempt's idempotency key, where the provider echoes it."""
    route: str | None
    verdict: Verdict | None
    """None: it carries no usable result."""
    answer: Answer


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery about this job's latest attempt."""

    remote_job_id: str | None
    """The provider's id of that attempt, from the delivery or known before."""
    verdict: Verdict | None
    answer: Answer
    evidence: str


# --- what the balance said ---


@dataclass(frozen=True, slots=True)
class Balance:
    """One look at the balance. `digit_microusd` is the weight of the last digit shown."""

    amount_microusd: int
    digit_microusd: int
    agent_id: str | None = None


@dataclass(frozen=True, slots=True)
class BalanceUnknown:
    """The balance could not be read. `not_allowed` is True when the key was refused."""

    error: str
    not_allowed: bool = False


# --- what we ourselves, an audit or a person decided ---


@dataclass(frozen=True, slots=True)
class Claimed:
    """The runner takes the job: intent and hold are written in this transaction."""


@dataclass(frozen=True, slots=True)
class FoundAtStart:
    """The job was `submitting` when its runner died."""


@dataclass(frozen=True, slots=True)
class BecameUnreachable:
    """The poller gave up asking at the normal pace (DESIGN, "Unreachable")."""

    why: str


@dataclass(frozen=True, slots=True)
class SameKeyResend:
    """The provider is known to honour keys: the same attempt goes out again under the same hold."""


@dataclass(frozen=True, slots=True)
class ProvedFree:
    """The quiet balance audit showed that no doubtful attempt cost anything."""

    evidence: str


@dataclass(frozen=True, slots=True)
class AuditCharged:
    """The quiet balance audit showed that this attempt was charged and its result is gone."""

    charge_microusd: int
    evidence: str


@dataclass(frozen=True, slots=True)
class WrittenOff:
    """A person gives it up. `charge_microusd` of the hold counts as spent, `assumed` unless audited."""

    charge_microusd: int
    assumed: bool
    evidence: str
    resend: bool = False
    """True when the person also asks for a new generation of the job."""


@dataclass(frozen=True, slots=True)
class AcceptedByPerson:
    """A person found the provider's job id."""

    remote_job_id: str
    bearer: Secret | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Never to be sent: `suppressed` or `lacks_fields`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """A person stops it before it was sent."""


OwnEvent = (
    Claimed
    | FoundAtStart
    | BecameUnreachable
    | SameKeyResend
    | ProvedFree
    | AuditCharged
    | WrittenOff
    | AcceptedByPerson
    | Skip
    | Cancel
)
Event = PostEvent | PollEvent | Delivered | OwnEvent
