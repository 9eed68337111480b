"""Faults by name and rate. Each is drawn from the seed and the request, so a run can be repeated."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Final

FAULTS: Final[dict[str, str]] = {
    "refuse_before": "The connection is dropped without a byte, before the POST is accepted.",
    "error_500_before": "A paid POST is answered 500 and nothing was accepted.",
    "html_page": "A paid POST is answered by a 502 HTML page and nothing was accepted.",
    "throttle": "A paid POST is answered 429 whatever the real limit says.",
    "no_money": "A paid POST is answered 402 PAYMENT_REQUIRED whatever the balance is.",
    "late_accept": "The POST's answer is lost at once; it is accepted late_accept_s virtual seconds later.",
    "lose_answer": "The POST is accepted and charged, then the connection is dropped without a byte.",
    "error_500_after": "The POST is accepted and charged, then answered 500.",
    "cut_body": "The POST is accepted and charged; its answer stops after half of the body.",
    "slow_bytes": "The POST is accepted; its answer comes one byte every slow_byte_ms.",
    "html_after": "The POST is accepted and charged; its 200 or 202 carries an HTML page.",
    "missing_job_id": "The job is accepted; its 202 has no job_id.",
    "repeated_job_id": "The job is accepted; its 202 carries the job_id of an earlier one.",
    "missing_bearer": "The job is accepted; its 202 has no poll_bearer.",
    "poll_500": "A poll is answered 500.",
    "poll_html": "A poll is answered by a 502 HTML page.",
    "poll_cut": "A poll's answer stops after half of the body.",
    "poll_404": "A poll is answered 404 although the job exists.",
    "unknown_word": "The first unknown_word_polls polls of a job show a state word that nobody listed.",
    "missing_cost": "The final answer says neither what was charged nor what was refunded.",
    "refund_late": "The unused pre-charge comes back refund_late_s virtual seconds after completion.",
    "fail_job": "The job ends in failure (a sync call: 502) and is refunded.",
    "over_ceiling": "A matched job is charged a quarter more than its ceiling.",
    "delivery_lost": "The webhook delivery of a finished job never leaves.",
    "delivery_twice": "A delivery is pushed twice.",
    "delivery_late": "A delivery is pushed delivery_late_s virtual seconds after the job is done.",
    "delivery_forged": "Before the right delivery comes one with a wrong signature.",
    "delivery_other_job": "Before a delivery comes one about a job that nobody here submitted.",
    "balance_wrong": "The balance shown is balance_wrong_usd lower than the books.",
}
"""Every fault and what it does, in one sentence."""

ASSUMED_AWAY: Final[dict[str, str]] = {
    "refuse_charged": "A paid POST is accepted and charged, then answered 422.",
    "throttle_charged": "A paid POST is accepted and charged, then answered 429.",
}
"""What a client has to take for impossible: answers that say "not taken" after the money is."""

BEFORE: Final = ("refuse_before", "error_500_before", "html_page", "throttle", "no_money", "late_accept")
"""On a paid POST that is not (or not yet) accepted; the first that fires wins."""
AFTER: Final[tuple[str, ...]] = (
    "lose_answer",
    "error_500_after",
    "cut_body",
    "slow_bytes",
    "html_after",
    *ASSUMED_AWAY,
)
"""On the answer of an accepted POST; the first that fires wins."""
AFTER_JOB: Final[tuple[str, ...]] = (*AFTER, "missing_job_id", "repeated_job_id", "missing_bearer")
"""The same, with what only the 202 of an async job can get wrong."""
AFTER_FIRST_JOB: Final = tuple(name for name in AFTER_JOB if name != "repeated_job_id")
"""The same, while there is no earlier job whose id could be repeated."""
LOSING: Final = frozenset(AFTER_JOB) - {"slow_bytes", "missing_bearer"}
"""After these the client cannot have read its own job id (or its sync result)."""
POLL: Final = ("poll_500", "poll_html", "poll_cut", "poll_404")
"""On one poll; the first that fires wins."""

DELIVERY: Final = (
    "delivery_lost",
    "delivery_twice",
    "delivery_late",
    "delivery_forged",
    "delivery_other_job",
)
"""On the webhook delivery of a finished job; only where `deliveries` is on."""


def check_names(faults: Mapping[str, object]) -> None:
    """Refuse a fault nobody knows.

    Raises:
        ValueError: Names the unknown ones and lists the known.
    """
    known = {**FAULTS, **ASSUMED_AWAY}
    unknown = sorted(set(faults) - set(known))
    if unknown:
        raise ValueError(f"no such fault: {', '.join(unknown)}; known: {', '.join(known)}")


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone, not on the order in which requests come."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / (1 << 48)


class Faults:
    """Decides which fault fires and counts those that did.

    Args:
        seed: Of the sandbox.
        rates: Name -> probability per request.
        limits: Name -> how often it may fire at most.
    """

    def __init__(self, seed: int, rates: Mapping[str, float], limits: Mapping[str, int]) -> None:
        self._seed = seed
        self.rates = rates
        self.limits = limits
        self.fired: Counter[str] = Counter()

    def fires(self, name: str, key: str) -> bool:
        """Whether the fault strikes the request `key`; counted when it does."""
        rate = self.rates.get(name, 0.0)
        if rate <= 0 or self.fired[name] >= self.limits.get(name, self.fired[name] + 1):
            return False
        if draw(self._seed, name, key) >= rate:
            return False
        self.fired[name] += 1
        return True

    def first(self, names: tuple[str, ...], key: str) -> str | None:
        """The first of `names` that strikes the request `key`."""
        return next((name for name in names if self.fires(name, key)), None)
