"""A clock for tests: nobody really waits, and every sleeper wakes in the order of its time."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Final

START: Final = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
_QUIET_TURNS: Final = 20
"""Turns of the event loop before time moves on, so that tasks just woken (and their group commit) can act and
sleep again first. It sees nothing of threads and sockets: with those, use `auto=False` and `advance`."""


class FakeClock:
    """`ledger.clock.Clock` in virtual time.

    Args:
        start: The time it shows first; set `start` later to let the wall clock jump without time passing.
        auto: True: when everybody sleeps, time jumps to the next waking. False: it stands until `advance`.
    """

    def __init__(self, start: datetime = START, *, auto: bool = True) -> None:
        self.start = start
        self._auto = auto
        self._passed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._ticking: asyncio.AbstractEventLoop | None = None

    def now(self) -> datetime:
        """The virtual time, in UTC."""
        return self.start + timedelta(seconds=self._passed_s)

    def monotonic(self) -> float:
        """Virtual seconds since the clock was made; a jump of the wall clock does not touch them."""
        return self._passed_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass and wake, in the order of their times, the sleepers that are due."""
        end = self._passed_s + seconds
        while self._next_s() <= end:
            self._wake_next()
        self._passed_s = end

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of virtual time."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        if self._ticking is not loop and self._auto:
            self._ticking = loop
            loop.call_soon(self._tick, loop, _QUIET_TURNS)
        woken = loop.create_future()
        heappush(self._sleepers, (self._passed_s + seconds, next(self._order), woken))
        await woken

    def _tick(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Bounded by the sleepers: it ends when nobody sleeps any more, and the next sleep starts it anew."""
        if self._next_s() == math.inf:
            self._ticking = None
            return
        if turns == 0:
            self._wake_next()
            turns = _QUIET_TURNS
        loop.call_soon(self._tick, loop, turns - 1)

    def _next_s(self) -> float:
        """When the next sleeper wakes; one that was cancelled, or whose loop is gone, is forgotten."""
        while self._sleepers:
            at_s, _, woken = self._sleepers[0]
            if not woken.done() and not woken.get_loop().is_closed():
                return at_s
            heappop(self._sleepers)
        return math.inf

    def _wake_next(self) -> None:
        self._passed_s, _, woken = heappop(self._sleepers)
        woken.set_result(None)
