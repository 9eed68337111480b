"""What the provider's balance still carries, so that no more is sent than it can set aside.

With a balance B and a ceiling C the runner keeps floor(B / C) jobs in flight and goes on as refunds arrive.
An estimate, from the provider's last word and what was set aside and given back since: others may spend from
the same balance and refunds may be late, so a 402 has the last word.
"""

from __future__ import annotations

from ledger import events as ev
from ledger.api.provider import Provider
from ledger.clock import Clock
from ledger.money import usd
from ledger.policy import Policy
from ledger.transition import Money
from ledger.waiting import Stopping, unless, wait_for

_UNBOUNDED = 1_000_000
_LOOKS = 6
"""So often is the balance looked at while the last refunds may still arrive (`refund_settle_s`)."""


class Funds:
    """The balance as far as this run knows it; without a reading it bounds nothing until a 402 comes.

    Args:
        provider: Asked for its balance.
        clock: The one clock.
        policy: `refund_settle_s`, how late a refund may be.
        ceiling_microusd: What one job sets aside.
        balance_microusd: The reading at the run's start, the pre-charges of open jobs already gone from it.
    """

    def __init__(
        self,
        provider: Provider,
        clock: Clock,
        policy: Policy,
        ceiling_microusd: int,
        balance_microusd: int | None,
    ) -> None:
        self._provider, self._clock, self._policy = provider, clock, policy
        self._ceiling = ceiling_microusd
        self._left = balance_microusd
        self._refunds_until = clock.monotonic()
        self._contradicted = False

    def room(self) -> int:
        """How many more jobs the balance carries."""
        return _UNBOUNDED if self._left is None else max(0, self._left // self._ceiling)

    def took(self, jobs: int) -> None:
        """So many holds were written."""
        if self._left is not None:
            self._left -= jobs * self._ceiling

    def moved(self, money: Money, *, refund: bool) -> None:
        """A hold was closed or corrected: what was released is ours again, a `refund` perhaps only soon."""
        if self._left is not None:
            self._left += money.release_microusd - money.adjust_microusd
        if refund and money.release_microusd:
            self.refunds_are_due()

    def refunds_are_due(self) -> None:
        """Something was settled just now (or by the run before): its refund may still be on its way."""
        self._refunds_until = self._clock.monotonic() + self._policy.refund_settle_s

    def accepted(self) -> None:
        """The provider took a job: its balance is what it says it is."""
        self._contradicted = False

    def short(self) -> None:
        """A 402: whatever we believed, nothing more goes out before a refund."""
        self._left = 0

    async def look(self, stopping: Stopping) -> bool:
        """Nothing is out: ask what the balance is now; True when a job can go.

        Waits for refunds that may still be on their way. Believed once: if the provider then says 402 all
        the same, what it shows cannot be spent.
        """
        pause_s = self._policy.refund_settle_s / _LOOKS
        for _ in range(_LOOKS + 1):
            if self._contradicted:
                return False
            reading = await unless(self._provider.balance(), stopping)
            known = isinstance(reading, ev.Balance)
            if isinstance(reading, ev.Balance):
                self._left = reading.amount_microusd
                if self.room():
                    self._contradicted = True
                    return True
            event = stopping()
            if event is None or (known and self._clock.monotonic() >= self._refunds_until):
                return False
            event.clear()
            await wait_for(self._clock, event, pause_s)
        return False

    def says(self, jobs: int) -> str:
        """What there is and what to add, in a sentence, when `jobs` more wait to be sent."""
        if self._left is None or self._contradicted:
            return f"each job sets {usd(self._ceiling)} aside, and the provider answers 402"
        missing = self._ceiling - self._left
        return (
            f"the balance is {usd(self._left)} and a job sets {usd(self._ceiling)} aside: top up at least "
            f"{usd(missing)}; {usd(jobs * self._ceiling - self._left)} carries all {jobs:,} that wait at once"
        )
