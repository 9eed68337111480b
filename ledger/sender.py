"""The paid POSTs in the air: what each brings is on disk before anybody reacts to it.

The intent is on disk when a call gets here (`Ledger.claim`). One task a POST; nothing cuts off the writing of
what came, and a person who will not wait cuts off only the waiting for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ledger import crashpoints
from ledger import events as ev
from ledger.api.gate import Gate
from ledger.api.provider import Provider, what_came
from ledger.model import PaidCall
from ledger.store.ledger import Ledger
from ledger.transition import Transition

Heard = Callable[[PaidCall, ev.PostEvent, Transition], None]


class Sender:
    """Sends paid calls and records how they came out.

    Args:
        ledger: Where answers go; what it does not take goes into its reserve.
        provider: Who is paid.
        gate: Gets its slots back once an answer is on disk.
        heard: Told of every answer that made a job take a step.
        ended: Told of every task that is over, with whatever it raised.
    """

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        gate: Gate,
        *,
        heard: Heard,
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._ledger, self._provider, self._gate = ledger, provider, gate
        self._heard, self._ended = heard, ended
        self._posts: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[ev.PostEvent]] = set()
        self._abandoned = False

    @property
    def in_air(self) -> int:
        """POSTs sent and not yet recorded."""
        return len(self._posts)

    def send(self, calls: Iterable[PaidCall]) -> None:
        """Let them leave."""
        for call in calls:
            task = asyncio.create_task(self._post(call))
            self._posts.add(task)
            task.add_done_callback(self._over)

    def abandon(self) -> None:
        """Wait for no answer any more: what is in the air becomes a doubt, what has not left does not."""
        self._abandoned = True
        for task in self._waiting:
            task.cancel()

    async def drain(self) -> None:
        """Until every POST in the air is answered and recorded; their own deadline bounds this."""
        while self._posts:
            await asyncio.gather(*self._posts, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._posts.discard(task)
        self._ended(task)

    async def _post(self, call: PaidCall) -> None:
        event = await self._answer(call)
        crashpoints.reach("post_after")
        try:
            step = await self._ledger.record(call.job_id, call.fence, event)
        except Exception:
            self._ledger.keep_in_reserve(call.job_id, call.fence, event)
            raise
        crashpoints.reach("record_after_commit")
        if step is not None:
            self._heard(call, event, step)
        # Only now: a slot bounds the doubts of a crash, and a stop must be known before the next claim.
        if isinstance(event, ev.Throttled):
            self._gate.release(throttled=True, retry_after_s=event.retry_after_s)
        elif isinstance(event, ev.Accepted | ev.Answered):
            self._gate.release()
        else:
            self._gate.give_back(1)

    async def _answer(self, call: PaidCall) -> ev.PostEvent:
        crashpoints.reach("post_before")
        waiting = asyncio.create_task(_submit(self._provider, call))
        self._waiting.add(waiting)
        if self._abandoned:
            waiting.cancel()
        try:
            return await waiting
        except asyncio.CancelledError:
            return ev.NotSent("abandoned")  # cancelled before its first step: nothing has left
        finally:
            self._waiting.discard(waiting)


async def _submit(provider: Provider, call: PaidCall) -> ev.PostEvent:
    """One paid POST; cut off, what had come of its answer."""
    try:
        return await provider.submit(call)
    except asyncio.CancelledError as cancelled:
        return what_came(cancelled)
