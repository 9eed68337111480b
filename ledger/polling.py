"""When to poll next. Pure: numbers in, numbers out; the poller keeps the time.

The first poll comes when a job of its route is usually done (the median of what was observed), the next
ones at pauses that begin with the spread of that distribution and grow, with jitter, up to a bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ledger.policy import Policy

HISTORY_MIN: Final = 20
"""Fewer observed latencies than this say less than the profile does."""
HISTORY_MAX: Final = 500
_REFRESH: Final = 20
"""The quantiles are computed anew after so many observations."""
_GROWTH: Final = 1.5
_JITTER: Final = 0.2


class Expectation:
    """What is expected of one route: seconds until done (median) and how widely that spreads."""

    def __init__(self, policy: Policy, route: str, history: Iterable[float] = ()) -> None:
        self._policy = policy
        self._seen: deque[float] = deque(history, maxlen=HISTORY_MAX)
        self._fresh = 0
        low, high = policy.latency_s.get(route, (5.0, 60.0))
        self.median_s = (low + high) / 2
        self.first_s = min(low, policy.first_poll_max_s)
        self.spread_s = max(policy.poll_min_s, (high - low) / 8)
        self._learn()

    def saw(self, seconds: float) -> None:
        """One more job was done `seconds` after it was accepted."""
        self._seen.append(seconds)
        self._fresh += 1
        if self._fresh >= _REFRESH:
            self._learn()

    def _learn(self) -> None:
        self._fresh = 0
        if len(self._seen) < HISTORY_MIN:
            return
        ordered = sorted(self._seen)
        median = ordered[len(ordered) // 2]
        late = ordered[(len(ordered) * 9) // 10]
        self.first_s = self.median_s = median
        self.spread_s = max(self._policy.poll_min_s, (late - median) / 4)


@dataclass(slots=True)
class Track:
    """How the polling of one job has gone so far. Times are monotonic seconds."""

    accepted: float
    polls: int = 0
    pauses: int = 0
    gone: int = 0
    """404/410/401/403 in a row."""
    gone_since: float = 0.0
    answered: float = 0.0
    """When the provider last said anything about this job; `accepted` before the first answer."""
    words: set[str] = field(default_factory=set)
    """Unknown state words already recorded."""

    def next_pause(self, expectation: Expectation, policy: Policy, chance: float) -> float:
        """Seconds until the next poll of a job that is still running. `chance` (0..1) spreads it."""
        base = expectation.spread_s * _GROWTH ** min(self.pauses, 40)
        self.pauses += 1
        pause = min(max(base, policy.poll_min_s), policy.poll_max_s)
        return pause * (1 - _JITTER + 2 * _JITTER * chance)

    def note_answer(self, now: float) -> None:
        """The provider knows the job."""
        self.gone = 0
        self.answered = now

    def note_gone(self, now: float) -> None:
        """The provider says it does not know the job, or not with this bearer."""
        if self.gone == 0:
            self.gone_since = now
        self.gone += 1

    def unreachable(self, now: float, policy: Policy) -> str | None:
        """Why the job counts as unreachable (DESIGN, "Unreachable"), or None while it does not."""
        spread = min(policy.freeze_s, policy.gone_spread_s)
        if self.gone >= policy.gone_polls and now - self.gone_since >= spread:
            return f"{self.gone} polls over {now - self.gone_since:.0f} s said the job is gone"
        if now - max(self.answered, self.accepted) >= policy.job_deadline_s:
            return f"no answer about it for {now - max(self.answered, self.accepted):.0f} s"
        return None
