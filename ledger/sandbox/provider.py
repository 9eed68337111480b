"""The service behind the HTTP: it accepts, works, charges and refunds, each at its virtual time."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Final

from ledger.sandbox.books import BalanceShort, Books, Submission
from ledger.sandbox.clock import VirtualClock
from ledger.sandbox.dollars import to_microusd
from ledger.sandbox.faults import Faults
from ledger.sandbox.hooks import Hooks
from ledger.sandbox.limits import Limits
from ledger.sandbox.settings import Settings
from ledger.sandbox.world import fate, identities

MAX_SUBMISSIONS: Final = 2_000_000
"""The books live in memory: beyond this the sandbox says 503 instead of growing."""


class KeyReused(Exception):
    """An idempotency key came again with another request."""


@dataclass(frozen=True, slots=True)
class Order:
    """One valid paid POST, before anybody decides what becomes of it."""

    route: str
    mode: str
    payload: str
    payload_sha256: str
    correlation: str | None
    idempotency_key: str | None
    ceiling_microusd: int
    key: str
    """Route, payload and how often that payload came before: what fault draws hang on."""


class Provider:
    """Books, clock, faults and limits of one sandbox. Whatever is due happens at the next request.

    Args:
        settings: How it starts; `configure` changes it while it runs.
        clock: Its virtual time.
    """

    def __init__(self, settings: Settings, clock: VirtualClock) -> None:
        self.settings = settings
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget everything but the settings and the time: empty books, faults drawn as from the start."""
        settings = self.settings
        self.books = Books(to_microusd(settings.opening_usd))
        self.faults = Faults(settings.seed, settings.faults, settings.fault_limits)
        self.hooks = Hooks(self.faults)
        self.limits = Limits(self.clock.real, settings)
        self.requests: Counter[tuple[str, str]] = Counter()
        """(endpoint, status or `dropped`) -> requests answered."""
        self.late_refused = 0
        """Late acceptances that the balance no longer covered."""
        self._seen: Counter[tuple[str, str]] = Counter()
        self._by_key: dict[str, Submission] = {}
        self._late: dict[int, Order] = {}
        self._at_work: dict[int, Submission] = {}
        self._agenda: list[tuple[float, int]] = []
        """(due at, turn): the turn finds the entry and breaks ties in the order of entry."""
        self._turn = 0

    @property
    def late_pending(self) -> int:
        """POSTs whose answer is lost and that will be accepted later."""
        return len(self._late)

    def configure(self, settings: Settings) -> None:
        """Change the settings; what is already accepted keeps its due time and cost."""
        if settings.speed != self.settings.speed:
            self.clock.set_speed(settings.speed)
        self.settings = settings
        self.faults.rates, self.faults.limits = settings.faults, settings.fault_limits
        self.limits.configure(settings)

    def name(self, route: str, payload_sha256: str) -> str:
        """The key of a new POST: it does not depend on what other POSTs come before it."""
        self._seen[route, payload_sha256] += 1
        return f"{route}|{payload_sha256}|{self._seen[route, payload_sha256]}"

    def catch_up(self) -> None:
        """Do everything that is due by now, in the order of its times."""
        now = self.clock.now()
        # Bounded: an entry is taken off each round, and one adds at most one for a later time.
        while self._agenda and self._agenda[0][0] <= now:
            at_s, turn = heapq.heappop(self._agenda)
            if order := self._late.pop(turn, None):
                self._accept_late(order, at_s)
                continue
            submission = self._at_work.pop(turn)
            if submission.state == "running":
                self._finish(submission, at_s)
            else:
                self.books.refund(submission)
        self.hooks.catch_up(now)

    def accept(self, order: Order) -> Submission:
        """Accept an order now: pre-charge its ceiling and start the work.

        Raises:
            BalanceShort: Nothing was accepted.
            KeyReused: Keys are honoured and this one belongs to another request.
        """
        return self._accept(order, self.clock.now())

    def accept_later(self, order: Order) -> None:
        """Put an order aside: accepted `late_accept_s` from now, if the balance still covers it."""
        self._late[self._schedule(self.clock.now() + self.settings.late_accept_s)] = order

    def _schedule(self, at_s: float) -> int:
        self._turn += 1
        heapq.heappush(self._agenda, (at_s, self._turn))
        return self._turn

    def _accept_late(self, order: Order, at_s: float) -> None:
        try:
            submission = self._accept(order, at_s)
        except (BalanceShort, KeyReused):
            self.late_refused += 1
            return
        # Only a later answer to the same key can have told the client of it.
        submission.answer_lost |= submission.key == order.key

    def _accept(self, order: Order, at_s: float) -> Submission:
        key = order.idempotency_key if self.settings.honours_keys else None
        if key and (known := self._by_key.get(key)):
            if (known.route, known.mode, known.payload) != (order.route, order.mode, order.payload):
                raise KeyReused
            return known
        submission = self._new_submission(order, at_s)
        self.books.accept(submission)
        self._at_work[self._schedule(submission.due_at_s)] = submission
        if key:
            self._by_key[key] = submission
        return submission

    def _new_submission(self, order: Order, at_s: float) -> Submission:
        settings = self.settings
        outcome = fate(settings, order.route, order.payload_sha256)
        cost = min(outcome.cost_microusd, order.ceiling_microusd)
        if order.mode == "sync":
            true_up = settings.sync_true_up and order.route == "enrich/lead-session"
            cost = max(outcome.cost_microusd, order.ceiling_microusd) if true_up else order.ceiling_microusd
        cache_hit = settings.cache != "off" and self._matched_before(order)
        if cache_hit and settings.cache == "free":
            cost = 0
        job_id, bearer = identities(settings.seed, order.key)
        return Submission(
            number=len(self.books.submissions) + 1,
            remote_job_id=job_id,
            poll_bearer=bearer,
            key=order.key,
            route=order.route,
            mode=order.mode,
            payload=order.payload,
            payload_sha256=order.payload_sha256,
            correlation=order.correlation,
            idempotency_key=order.idempotency_key,
            accepted_at_s=at_s,
            due_at_s=at_s + outcome.latency_s,
            matched=outcome.matched,
            cost_microusd=cost,
            pre_charge_microusd=order.ceiling_microusd,
            cache_hit=cache_hit,
        )

    def _matched_before(self, order: Order) -> bool:
        earlier = self.books.same.get((order.route, order.payload_sha256))
        # A payload has one fate, so its first submission speaks for all of them (unless it failed).
        return earlier is not None and earlier[0].state == "completed" and earlier[0].matched

    def _finish(self, submission: Submission, at_s: float) -> None:
        if self.faults.fires("fail_job", submission.key):
            self.books.finish(submission, "failed", 0, at_s)
        else:
            cost = submission.cost_microusd if submission.matched else 0
            if submission.matched and self.faults.fires("over_ceiling", submission.key):
                cost = submission.pre_charge_microusd * 5 // 4
            submission.cost_unsaid = self.faults.fires("missing_cost", submission.key)
            self.books.finish(submission, "completed", cost, at_s)
        if submission.held_microusd and self.faults.fires("refund_late", submission.key):
            self._at_work[self._schedule(at_s + self.settings.refund_late_s)] = submission
        else:
            self.books.refund(submission)
        self.hooks.completed(self.settings, submission, at_s)
