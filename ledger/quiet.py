"""The quiet balance audit: when nothing can still land, the balance says what the doubts cost.

A gap below the last digit the balance shows proves that every doubtful attempt cost nothing, and each goes
back to the queue. A gap that two readings agree on, with a single doubt whose ceiling it fits, is what that
one was charged: it is lost, with its charge known. Anything else is left to a person, with what is known.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger import events as ev
from ledger.api.provider import Provider
from ledger.clock import Clock
from ledger.money import usd
from ledger.policy import Policy
from ledger.store.balance import Doubt, Gap
from ledger.store.ledger import Ledger
from ledger.transition import Transition
from ledger.waiting import Stopping, unless, wait_for


class QuietAudit:
    """Waits out the freeze, looks at the balance and draws the conclusion.

    Args:
        ledger: Whose doubts these are.
        provider: Asked for its balance.
        clock: The one clock.
        policy: Freeze and settling time.
        post_deadline_s: The longest a POST can have been in the air after its recorded end.
        smallest_price_microusd: A balance shown more coarsely than this proves nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        *,
        clock: Clock,
        policy: Policy,
        post_deadline_s: float,
        smallest_price_microusd: int,
    ) -> None:
        self._ledger, self._provider, self._clock, self._policy = ledger, provider, clock, policy
        self._wait_s = policy.freeze_s + post_deadline_s
        # What is left of earlier doubts' freeze is waited for on the monotonic clock, from here on: a wall
        # clock that steps forward ends no freeze early.
        ends = ledger.freeze_ends(self._wait_s)
        left = 0.0 if ends is None else ends - clock.now().timestamp()
        self._thaws = clock.monotonic() + min(left, self._wait_s)
        self._smallest = smallest_price_microusd
        self._agreed = False
        self.conclusion = ""
        """What the last audit found, in a sentence."""

    async def run(self, stopping: Stopping, tell: Callable[[str], None]) -> list[Transition]:
        """Audit once nothing can land any more; returns the steps of the doubts it closed.

        Args:
            stopping: Gives None once the run is stopped or a job is polled again, else an event to wait on.
            tell: Shows what is being waited for.
        """
        if not await self._freeze(stopping, tell):
            return []
        if self._unprovable(tell):
            return []
        reading = await self._look(stopping, tell)
        if reading is None or stopping() is None or self._unprovable(tell):
            return []  # a person may have given a doubt up between the readings
        found = self._ledger.balance_gap(reading)
        doubts = self._ledger.doubts()
        if self._free(found):
            self.conclusion = f"balance audit: gap {usd(found.gap_microusd or 0)}, nothing was charged"
            return self._ledger.prove_free(reading, self.conclusion)
        if self._agreed and self._fits(found, doubts):
            charge = found.gap_microusd or 0
            self.conclusion = f"balance audit: {usd(charge)} is gone and this was the only doubt"
            return self._ledger.prove_charged(reading, doubts[0], charge, self.conclusion)
        self.conclusion = self._judge(found, doubts)
        self._ledger.note_balance("audit", reading, self.conclusion)
        tell(self.conclusion)
        return []

    def doubted(self) -> None:
        """A paid POST has just come to nothing certain."""
        self._thaws = max(self._thaws, self._clock.monotonic() + self._wait_s)

    async def _freeze(self, stopping: Stopping, tell: Callable[[str], None]) -> bool:
        """True once no doubtful POST can still act; False when there is none left or the run stops."""
        while True:
            doubts = len(self._ledger.doubts())
            if not doubts or stopping() is None:
                return False
            left = self._thaws - self._clock.monotonic()
            if left <= 0:
                return True
            tell(f"{doubts} in doubt: balance audit in {left:.0f} s, once nothing can still land")
            await self._wait(stopping, left)

    def _unprovable(self, tell: Callable[[str], None]) -> bool:
        why = self._ledger.why_unprovable()
        if why is not None:
            self.conclusion = why
            tell(why)
        return why is not None

    async def _look(self, stopping: Stopping, tell: Callable[[str], None]) -> ev.Balance | None:
        """A reading; a second one, `refund_settle_s` later, when the first shows a gap (late refunds)."""
        self._agreed = False
        booked = self._ledger.last_cost()
        reading = await unless(self._provider.balance(), stopping)
        if reading is None:
            return None
        if isinstance(reading, ev.BalanceUnknown):
            self.conclusion = f"The balance could not be read: {reading.error}."
            tell(self.conclusion)
            return None
        found = self._ledger.balance_gap(reading)
        if self._free(found) or found.gap_microusd is None or found.gap_microusd < 0:
            return reading
        settle_s = min(self._policy.refund_settle_s, self._policy.freeze_s)
        ends = self._clock.monotonic() + settle_s
        while (left := ends - self._clock.monotonic()) > 0:
            if stopping() is None:
                return None
            tell(f"the balance is {usd(found.gap_microusd)} short: looking again in {left:.0f} s")
            await self._wait(stopping, left)
        again = await unless(self._provider.balance(), stopping)
        if not isinstance(again, ev.Balance):
            return reading
        # A poll may have settled another doubt meanwhile, its refund still on the way: equal readings then
        # agree on nothing (found by the model, docs/model.md).
        same_books = self._ledger.last_cost() == booked
        self._agreed = same_books and again.amount_microusd == reading.amount_microusd
        return again

    async def _wait(self, stopping: Stopping, seconds: float) -> None:
        event = stopping()
        if event is not None:
            event.clear()
            await wait_for(self._clock, event, min(seconds, 1.0))

    def _free(self, found: Gap) -> bool:
        return (
            found.gap_microusd is not None
            and abs(found.gap_microusd) < found.digit_microusd <= self._smallest
        )

    def _fits(self, found: Gap, doubts: list[Doubt]) -> bool:
        """Exactly the ceiling is no charge but a pre-charge still out: the call may yet be answered."""
        return (
            len(doubts) == 1
            and found.assumed_charges == 0
            and found.digit_microusd <= self._smallest
            and 0 < (found.gap_microusd or 0) < doubts[0].ceiling_microusd
        )

    def _judge(self, found: Gap, doubts: list[Doubt]) -> str:
        if found.gap_microusd is None:
            return f"{found.incomparable} A person decides."
        if found.digit_microusd > self._smallest:
            return "The balance is shown too coarsely to prove anything: a person decides."
        if found.gap_microusd < 0:
            return (
                f"The balance is {usd(-found.gap_microusd)} higher than the books say. Was it topped up? "
                "`leadledger balance --top-up USD` records that."
            )
        ceiling = max((doubt.ceiling_microusd for doubt in doubts), default=1)
        at_least = min(len(doubts), -(-found.gap_microusd // ceiling))
        return (
            f"The provider has taken {usd(found.gap_microusd)} that the books do not explain: at least "
            f"{at_least} of {len(doubts)} doubtful calls were charged. A person decides "
            "(`leadledger resolve`)."
        )
