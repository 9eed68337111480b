"""The numbers the runner lives by. Each says why it is that number; the profile or a flag may change it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DEFAULT_LATENCY_S: Final[dict[str, tuple[float, float]]] = {
    "enrich/phone": (1.0, 3.0),
    "enrich/person": (1.0, 3.0),
    "enrich/websearch": (5.0, 30.0),
    "enrich/lead-session": (30.0, 180.0),
}
"""Latency in seconds (low, high) used before the ledger has history (provider notes, section 14)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Waits and bounds, in seconds unless the name says otherwise."""

    freeze_s: float = 1200.0
    """Longest time a received POST may still act: the only time the provider states (payment window)."""
    refund_settle_s: float = 60.0
    """Two balance readings this far apart must agree before a positive gap is believed."""
    job_deadline_s: float = 86_400.0
    """A job the provider still calls running is not given up before this."""
    gone_polls: int = 5
    """So many 404/410/401/403 in a row …"""
    gone_spread_s: float = 600.0
    """… spread over at least this (or the freeze, if shorter) make a job unreachable."""
    first_poll_max_s: float = 5.0
    """Before there is history the first poll comes at most this long after acceptance."""
    poll_min_s: float = 0.25
    """The shortest pause between two polls of one job."""
    poll_max_s: float = 60.0
    """The longest pause between two polls of a job the provider still calls running."""
    doubt_poll_s: float = 60.0
    """A job in doubt with a remote id is polled this slowly."""
    throttled_wait_s: float = 1.0
    """A throttled job waits at least this in the queue; the shared brake decides the rest."""
    proved_free_max: int = 3
    """After so many proofs that it cost nothing a job is handed to a person instead of being sent again."""
    refusals_breaker: int = 20
    """The first so many answers of a route in a run all refused with one code: stop."""
    doubts_breaker: int = 20
    """So many paid calls in a row without a clear answer: stop, before the whole list is in doubt."""
    unreachable_after_s: float = 300.0
    """No connection for so long: stop with exit 75."""
    latency_s: dict[str, tuple[float, float]] = field(default_factory=lambda: dict(DEFAULT_LATENCY_S))
