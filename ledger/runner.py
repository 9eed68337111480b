"""The loop: claim, submit, poll, settle, until done or stopped. It owns no SQL, no HTTP and no rule.

Paid call = transaction, call, transaction: `Ledger.claim` (intent and hold on disk), `Provider.submit`,
`Ledger.record`. One task claims, one task a paid POST, a handful of workers poll. Whatever happens goes to
`machine.decide` inside the store's transaction; the loop only reacts to the step that came out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ledger import events as ev
from ledger.api.gate import Gate
from ledger.api.provider import Provider
from ledger.breaker import Breaker
from ledger.clock import Clock, from_text
from ledger.errors import DiskTrouble
from ledger.funds import Funds
from ledger.intray import InTray, Told
from ledger.model import OpenJob, PaidCall
from ledger.orders import Options, Progress
from ledger.policy import Policy
from ledger.poller import Poller, accepted
from ledger.prober import Prober
from ledger.quiet import QuietAudit
from ledger.sender import Sender
from ledger.states import FINAL, State, StopReason
from ledger.store.ledger import Ledger
from ledger.transition import Transition
from ledger.waiting import slot_unless, wait_for

_LOOK_AGAIN_S = 1.0
"""While nothing changes, the clock (`--until`, a silent provider) is looked at this often."""


class Runner:
    """One run over an open ledger.

    Args:
        ledger: Open, recovered, its run begun and its jobs enqueued.
        provider: The client.
        gate: Slots and the brake for paid POSTs.
        clock: The one clock.
        policy: Waits and bounds.
        options: What this run may do.
        chance: A random number in 0..1, for jitter.
    """

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        gate: Gate,
        *,
        clock: Clock,
        policy: Policy,
        options: Options,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.ledger, self.provider, self.gate = ledger, provider, gate
        self.clock, self.policy, self.options = clock, policy, options
        self.progress = Progress()
        self.poller = Poller(
            ledger,
            provider,
            clock=clock,
            policy=policy,
            gate=gate,
            settled=self._settled,
            chance=chance,
        )
        self._audit = QuietAudit(
            ledger,
            provider,
            clock=clock,
            policy=policy,
            post_deadline_s=options.post_deadline_s,
            smallest_price_microusd=options.smallest_price_microusd,
        )
        told = Told(self._count, self._go_on, self._tell)
        self._tray = InTray(ledger, self.poller, clock, told, alone=options.alone)
        self._changed = asyncio.Event()
        self._stop: StopReason | None = None
        self._sender = Sender(ledger, provider, gate, heard=self._react, ended=self._ended)
        self._breaker = Breaker(policy)
        self._drained = False
        self._blocked_by: str | None = None
        ceiling = options.rules.ceiling_microusd
        self._funds = Funds(provider, clock, policy, ceiling, options.balance_microusd)
        if not ledger.settled():
            self._funds.refunds_are_due()
        self._lead_capped = False
        self._prober = Prober(
            provider,
            gate,
            clock=clock,
            policy=policy,
            found=self.poller.look_again,
            gave_up=lambda: self.stop(StopReason.UNREACHABLE),
        )
        self._resends_left: int | None = None
        self._trouble: BaseException | None = None

    # --- from outside ---

    def stop(self, reason: StopReason = StopReason.INTERRUPTED) -> None:
        """Claim nothing more; POSTs in the air are awaited and stored."""
        self._stop = self._stop or reason
        self._changed.set()

    @property
    def in_air(self) -> int:
        """Paid POSTs whose answers a stop would wait for."""
        return self._sender.in_air

    def abandon(self) -> None:
        """Leave at once (a second Ctrl+C): POSTs in the air become doubts before `run` returns."""
        self.stop()
        self._sender.abandon()

    async def run(self) -> StopReason:
        """Work until done or stopped, and say why it ended. Everything that came is on disk by then.

        Raises:
            DiskTrouble: The ledger cannot be written; nothing further was sent.
            Bug: This program contradicts itself.
        """
        self._tray.empty()
        for job in self.ledger.open_jobs():
            self.poller.add(job, at_once=True)
        polling = asyncio.create_task(self.poller.run())
        polling.add_done_callback(self._ended)
        try:
            reason = await self._work()
        finally:
            await self._drain()
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            for error in await self.poller.finish():
                self._give_up(error)
        if self._trouble is None:
            self._look_into_tray(self._tray.empty)
        if self._trouble is not None:
            raise self._trouble
        return reason

    # --- the loop ---

    async def _work(self) -> StopReason:
        while True:
            self._refresh()
            if self._stop is not None:
                return self._stop
            out = self.progress.submitting + self.progress.waiting
            room = min(self.options.in_flight - out, self._funds.room())
            if self._may_claim() and room > 0:
                await self._claim(room)
                continue
            if out or self._later():
                await self._pause()
                continue
            done = await self._nothing_left()
            if done is not None:
                return done

    def _refresh(self) -> None:
        self._look_into_tray()
        self.progress.submitting = self._sender.in_air
        self.progress.waiting = self.poller.waiting
        self.progress.phase = "running"
        until = self.options.until
        if until is not None and self.clock.now() >= until:
            self.stop(StopReason.UNTIL)
        if self.poller.silent_for_s() > self.policy.unreachable_after_s:
            self.stop(StopReason.UNREACHABLE)

    def _look_into_tray(self, look: Callable[[], None] | None = None) -> None:
        try:
            (look or self._tray.look)()
        except DiskTrouble as trouble:
            self._give_up(trouble)

    def _may_claim(self) -> bool:
        return not (self._drained or self._blocked_by) and self._funds.room() > 0

    def _later(self) -> bool:
        """True while some queued job waits for its time (throttled) and could still be sent."""
        return not self._blocked_by and self._funds.room() > 0 and self._next_due_s() is not None

    def _next_due_s(self) -> float | None:
        due = self.ledger.next_due(self.options.rules.route)
        return None if due is None else (from_text(due) - self.clock.now()).total_seconds()

    async def _pause(self) -> None:
        """Until something changes, a queued job becomes due, or it is time to look again."""
        self._changed.clear()
        wait = _LOOK_AGAIN_S
        if self._drained and (due := self._next_due_s()) is not None:
            wait = min(wait, max(due, 0.01))
            self._drained = due > 0
        self.progress.note = self._why_not_sending()
        await wait_for(self.clock, self._changed, wait)

    def _why_not_sending(self) -> str:
        if self._funds.room() < 1:
            return "the balance is short: waiting for refunds"
        if self._blocked_by:
            return f"the cap {self._blocked_by} is reached: waiting for releases"
        if self._prober.looking:
            return "the provider cannot be reached: trying again"
        if self.gate.braked_for_s() > 0:
            return f"the provider asked us to slow down ({self.gate.braked_for_s():.0f} s)"
        return ""

    async def _claim(self, room: int) -> None:
        """Take slots first, so that no hold is written while the brake is on; then claim and send."""
        if not await self._slot():
            return
        self._refresh()
        if self._stop is not None or not self._may_claim():
            self.gate.give_back(1)
            return
        slots = 1 + self.gate.try_slots(room - 1)
        self._look_into_tray(
            partial(self._tray.look, at_once=True)
        )  # a pause that has come holds for this claim
        try:
            claim = await self.ledger.claim(self.options.rules, slots)
        except DiskTrouble as trouble:
            self._give_up(trouble)
            return
        self.gate.give_back(slots - len(claim.calls))
        self.progress.submitted += len(claim.calls)
        self._funds.took(len(claim.calls))
        self._sender.send(claim.calls)
        self._blocked_by = claim.blocked_by
        if claim.blocked_by or claim.leads_capped:
            self.progress.cap = claim.blocked_by or "budget_lead"
        self._lead_capped = self._lead_capped or claim.leads_capped > 0
        if skipped := claim.passed_over - claim.leads_capped:
            self.progress.final[State.SKIPPED] += skipped
        looked_at = len(claim.calls) + claim.passed_over
        self._drained = claim.blocked_by is None and looked_at < slots

    async def _slot(self) -> bool:
        """One slot, unless the run is stopped or something else changes first."""
        self._changed.clear()
        if self.gate.try_slots(1):
            return True
        self.progress.note = self._why_not_sending()
        return await slot_unless(self.gate, self.clock, self._changed, _LOOK_AGAIN_S)

    # --- one paid POST ---

    def _react(self, call: PaidCall, event: ev.PostEvent, step: Transition) -> None:
        """What one answered POST means for the rest of the run."""
        self._count(step)
        if step.to_state is State.WAITING and step.remote_job_id is not None:
            self.poller.add(accepted(call, step, self.clock.now()))
        reason = self._breaker.saw(event)
        if reason is not None:
            self.progress.note = self._breaker.why
            self.stop(reason)
        if isinstance(event, ev.NoMoney):
            self._funds.short()
        elif isinstance(event, ev.Accepted | ev.Answered):
            self._funds.accepted()
        elif isinstance(event, ev.NotSent) and self._stop is None:
            self._prober.start()
        if step.to_state is State.QUEUED:
            self._drained = False
        elif step.to_state is State.IN_DOUBT:
            self._audit.doubted()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A POST or the poller is over; what it raised, if anything, ends the run."""
        if not task.cancelled() and (error := task.exception()) is not None:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._give_up(error)
        self._changed.set()

    def _give_up(self, error: BaseException) -> None:
        """Something that is no outcome happened: stop paying, let what is in the air come in."""
        self._trouble = self._trouble or error
        self.stop(StopReason.DISK)

    # --- what a step means ---

    async def _settled(self, job: OpenJob, step: Transition) -> None:
        """A poll made `job` take `step`."""
        self._count(step)
        if step.to_state in {State.WAITING, State.IN_DOUBT}:
            self.poller.add(replace(job, in_doubt=step.to_state is State.IN_DOUBT))

    def _count(self, step: Transition) -> None:
        if step.to_state in FINAL:
            self.progress.final[step.to_state.value] += 1
        if step.money is not None:
            self.progress.charged_microusd += step.money.charge_microusd + step.money.adjust_microusd
            self._funds.moved(step.money, refund=step.to_state in FINAL)
            if step.money.release_microusd:
                self._blocked_by = None
                self._uncap()
        self._changed.set()

    def _uncap(self) -> None:
        """Money came back, perhaps that of a lead at its own cap."""
        if self._lead_capped:
            self.ledger.look_at_capped_again()
            self._lead_capped = self._drained = False

    # --- when nothing can be sent ---

    async def _resend(self) -> bool:
        """Send doubts once more with their own keys, where the provider is known to honour keys."""
        if self._resends_left is None:
            self._resends_left = self.options.same_key_rounds * len(self.ledger.doubts())
        if self._resends_left <= 0 or not await self._slot():
            return False
        slots = 1 + self.gate.try_slots(self._resends_left - 1)
        calls = await self.ledger.resend(slots)
        self.gate.give_back(slots - len(calls))
        self._resends_left = self._resends_left - len(calls) if calls else 0
        self._sender.send(calls)
        return bool(calls)

    async def _nothing_left(self) -> StopReason | None:
        """Nothing is in the air and nothing can be claimed: doubts first, then the end."""
        if self.options.same_key_rounds and await self._resend():
            return None
        self._tray.fit()
        if self.options.audit and self.ledger.doubts():
            self.progress.phase = "audit"
            closed = await self._audit.run(self._stopping, self._tell)
            for step in closed:
                self._count(step)
            if closed:
                self._go_on()
                return None
            if self._stop is not None:
                return self._stop
        self._look_into_tray(self._tray.empty)
        if self.poller.waiting or self._may_claim():
            return None  # a poll settled or revived a doubt meanwhile, or a person queued something
        return await self._why_it_ends()

    async def _why_it_ends(self) -> StopReason | None:
        """Nothing can be sent any more; None when the balance turns out to carry a job after all."""
        if self._blocked_by:
            return StopReason.BUDGET
        if self._funds.room() < 1 and (left := self.ledger.left_count(self.options.rules)):
            if await self._funds.look(self._stopping) or self.poller.waiting or self._may_claim():
                return None  # topped up, refunded, or a poll revived a doubt meanwhile
            self.progress.note = self._funds.says(left)
            return self._stop or StopReason.NO_FUNDS
        if self._lead_capped:
            return StopReason.BUDGET
        limit = self.options.limit
        return (
            StopReason.LIMIT
            if limit is not None and self.progress.submitted >= limit
            else StopReason.FINISHED
        )

    def _stopping(self) -> asyncio.Event | None:
        """None once the run is stopped or has work again, else the event that says it changed."""
        self._look_into_tray()
        self._tray.fit()
        busy = self._stop is not None or self.poller.waiting or self._may_claim()
        return None if busy else self._changed

    def _go_on(self) -> None:
        """Something may have been queued: look again."""
        self._drained = False
        self._changed.set()

    def _tell(self, note: str) -> None:
        self.progress.note = note

    async def _drain(self) -> None:
        """POSTs in the air are awaited and stored; their own deadline bounds this."""
        self.progress.phase = "draining"
        self._prober.cancel()
        await self._sender.drain()
