"""The sandbox's own time: it may run faster than ours, and can be moved forward by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime


class VirtualClock:
    """Virtual seconds since 1970: start + real seconds * speed + what was advanced by hand.

    Args:
        start_s: Where it starts.
        speed: Virtual seconds per real second; 0 stands still until it is advanced.
        real: Monotonic real seconds. Tests hand in their own.
        wall: Real seconds since 1970, only for a `Retry-After` date, which the client reads by its own clock.
    """

    def __init__(
        self,
        start_s: float,
        speed: float,
        real: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.real = real
        self.wall = wall
        self._speed = speed
        self._base_s = start_s
        self._since = real()
        self._waiters: set[asyncio.Future[None]] = set()

    def now(self) -> float:
        """Virtual seconds since 1970."""
        return self._base_s + (self.real() - self._since) * self._speed

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds` of virtual time and wake who waits."""
        self._base_s += seconds
        self._wake()

    def set_speed(self, speed: float) -> None:
        """Change the speed from now on; time already passed keeps its length."""
        self._base_s, self._since = self.now(), self.real()
        self._speed = speed
        self._wake()

    async def wait_until(self, at_s: float) -> None:
        """Wait until virtual time `at_s`: really, by the speed, or until somebody advances the clock."""
        # Bounded by the clock itself: each round waits for all that is left, and only a wake ends it early.
        while (left_s := at_s - self.now()) > 0:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait_for(waiter, left_s / self._speed if self._speed else None)
            except TimeoutError:
                continue
            finally:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def iso(at_s: float) -> str:
    """Virtual seconds since 1970 as UTC text."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
