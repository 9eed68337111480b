"""The provider's books: one account, every accepted submission, every micro-dollar that moved.

A submission pre-charges its ceiling. Completion charges what the work cost; the rest stays held until it
is refunded. Always: opening + top-ups = balance + charged + held.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class BalanceShort(Exception):
    """The balance does not cover a pre-charge; nothing was accepted."""


@dataclass(slots=True)
class Submission:
    """One accepted paid POST. Money in micro-dollars, times in virtual seconds since 1970."""

    number: int
    remote_job_id: str
    poll_bearer: str
    key: str
    """Names this POST for fault draws: route, payload and how often that payload came before."""
    route: str
    mode: str
    """`async` or `sync`."""
    payload: str
    """Canonical JSON."""
    payload_sha256: str
    correlation: str | None
    idempotency_key: str | None
    accepted_at_s: float
    due_at_s: float
    matched: bool
    cost_microusd: int
    """What it will cost if it completes."""
    pre_charge_microusd: int
    cache_hit: bool = False
    state: str = "running"
    """`running`, `completed` or `failed`."""
    charged_microusd: int = 0
    held_microusd: int = 0
    refunded_microusd: int = 0
    finished_at_s: float | None = None
    cost_unsaid: bool = False
    """The `missing_cost` fault: its final answer keeps quiet about money."""
    answer_lost: bool = False
    """The client cannot have read the answer to its POST."""
    polls: int = 0


@dataclass(slots=True)
class Books:
    """One account and its submissions. Nothing here knows of time, faults or HTTP."""

    opening_microusd: int
    balance_microusd: int = field(init=False)
    top_ups: list[tuple[float, int]] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    jobs: dict[str, Submission] = field(default_factory=dict)
    same: dict[tuple[str, str], list[Submission]] = field(default_factory=dict)
    """(route, payload_sha256) -> its submissions, oldest first."""
    running: int = 0
    last_job: Submission | None = None
    """The async job accepted last."""

    def __post_init__(self) -> None:
        self.balance_microusd = self.opening_microusd

    def top_up(self, amount_microusd: int, at_s: float) -> None:
        """Pay in."""
        self.balance_microusd += amount_microusd
        self.top_ups.append((at_s, amount_microusd))

    def accept(self, submission: Submission) -> None:
        """Pre-charge and enter a submission.

        Raises:
            BalanceShort: The balance does not cover it; the books are unchanged.
        """
        if submission.pre_charge_microusd > self.balance_microusd:
            raise BalanceShort
        self.balance_microusd -= submission.pre_charge_microusd
        submission.held_microusd = submission.pre_charge_microusd
        self.submissions.append(submission)
        self.jobs[submission.remote_job_id] = submission
        self.same.setdefault((submission.route, submission.payload_sha256), []).append(submission)
        self.running += 1
        if submission.mode == "async":
            self.last_job = submission

    def finish(self, submission: Submission, state: str, cost_microusd: int, at_s: float) -> None:
        """Charge the cost from the pre-charge, and what goes beyond it from the balance (even below zero)."""
        self.running -= 1
        submission.state = state
        submission.finished_at_s = at_s
        submission.charged_microusd = cost_microusd
        beyond = max(0, cost_microusd - submission.held_microusd)
        self.balance_microusd -= beyond
        submission.held_microusd -= cost_microusd - beyond

    def refund(self, submission: Submission) -> None:
        """Give back what is still held of a finished submission."""
        self.balance_microusd += submission.held_microusd
        submission.refunded_microusd += submission.held_microusd
        submission.held_microusd = 0
