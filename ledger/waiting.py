"""Waiting for one of several things, on the injected clock; what is not waited for any more is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ledger.api.gate import Gate
from ledger.clock import Clock

T = TypeVar("T")
Stopping = Callable[[], asyncio.Event | None]
"""None once there is nothing to wait for any more, else the event that says something changed."""


async def wait_for(clock: Clock, event: asyncio.Event, seconds: float | None) -> None:
    """Wait until `event` is set, or for `seconds` of the injected clock if that is sooner."""
    if seconds is None:
        await event.wait()
        return
    waiters = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.sleep(max(seconds, 0.0)))]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()


async def slot_unless(gate: Gate, clock: Clock, changed: asyncio.Event, seconds: float) -> bool:
    """One slot of the gate; False when something changed, or `seconds` passed, before there was one."""
    slot = asyncio.ensure_future(gate.slot())
    other = asyncio.ensure_future(changed.wait())
    tick = asyncio.ensure_future(clock.sleep(seconds))
    await asyncio.wait({slot, other, tick}, return_when=asyncio.FIRST_COMPLETED)
    other.cancel()
    tick.cancel()
    if slot.done():
        return True
    slot.cancel()
    await asyncio.gather(slot, return_exceptions=True)
    return not slot.cancelled()


async def unless(work: Coroutine[Any, Any, T], stopping: Stopping) -> T | None:
    """What a free call brings, or None as soon as nobody waits for it (Ctrl+C does not wait for a GET)."""
    task = asyncio.ensure_future(work)
    while not task.done():
        event = stopping()
        if event is None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return None
        event.clear()
        changed = asyncio.ensure_future(event.wait())
        await asyncio.wait({task, changed}, return_when=asyncio.FIRST_COMPLETED)
        changed.cancel()
    return task.result()
