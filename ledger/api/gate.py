"""How many paid POSTs may be in the air: adaptive concurrency and one brake for all of them.

The runner takes a slot before it claims a job, so that no hold is written while the brake is on. As with
TCP: one slot more after each round of successes, half of them at the first 429, once for all the 429s
that come back within the same pause.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_exponential

from ledger.api.retry_after import RETRY_AFTER_MAX_S
from ledger.clock import Clock
from ledger.errors import Bug

BRAKE_MIN_S: Final = 0.1
"""A 429 with `Retry-After: 0` still pauses this long: else each of a burst would halve the limit."""
_PAUSES: Final = wait_exponential(multiplier=1, exp_base=2, max=120)
"""1, 2, 4, … 120 seconds for a provider that does not say how long."""


def pause_s(round_number: int, chance: float) -> float:
    """Seconds to wait in the nth round of 429s; `chance` (0..1) spreads it over half to all of it."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = round_number
    return _PAUSES(state) * (0.5 + chance / 2)


class Gate:
    """Slots for paid POSTs.

    Args:
        clock: Monotonic time and sleeping; injected, so that tests do not wait.
        limit_max: Slots at most (`--concurrency`).
        limit_start: Slots at first; all of them unless told otherwise.
        chance: A random number in 0..1, for the jitter.
    """

    def __init__(
        self,
        clock: Clock,
        limit_max: int,
        limit_start: int | None = None,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._limit_max = max(limit_max, 1)
        self._limit = min(max(limit_start or self._limit_max, 1), self._limit_max)
        self._chance = chance
        self._in_use = 0
        self._successes = 0
        self._round = 0
        self._braked_until = self._held_until = clock.monotonic()
        self._room = asyncio.Event()
        self._room.set()
        self._lifted = asyncio.Event()

    @property
    def limit(self) -> int:
        """How many slots there are at present."""
        return self._limit

    @property
    def in_use(self) -> int:
        """How many slots are taken."""
        return self._in_use

    def braked_for_s(self) -> float:
        """Seconds until the brake is off; 0 when it is."""
        return max(0.0, max(self._braked_until, self._held_until) - self._clock.monotonic())

    def try_slots(self, wanted: int) -> int:
        """Take up to `wanted` slots at once without waiting; returns how many were to be had."""
        if self.braked_for_s() > 0:
            return 0
        taken = max(0, min(wanted, self._limit - self._in_use))
        self._in_use += taken
        self._mark_room()
        return taken

    async def slot(self) -> None:
        """Take one slot, waiting until one is free and the brake is off. A cancelled wait takes none."""
        while not self.try_slots(1):
            wait = self.braked_for_s()
            if wait > 0:
                await self._sleep_unless_lifted(wait)
            else:
                await self._room.wait()

    def release(self, throttled: bool = False, retry_after_s: float | None = None) -> None:
        """Give one slot back and say how its POST fared.

        `retry_after_s` is what a 429 asked for; None leaves the pause to us.

        Raises:
            Bug: No slot is taken.
        """
        if self._in_use == 0:
            raise Bug("a slot was given back that nobody had taken")
        self._in_use -= 1
        if throttled:
            self._slow_down(retry_after_s)
        else:
            self._speed_up()
        self._mark_room()

    def give_back(self, count: int) -> None:
        """Give back `count` slots that were not used: nothing was sent, so nothing is learned.

        Raises:
            Bug: So many are not taken.
        """
        if not 0 <= count <= self._in_use:
            raise Bug(f"{count} slots were given back, but {self._in_use} are taken")
        self._in_use -= count
        self._mark_room()

    def hold_off(self, seconds: float) -> None:
        """Close the brake for `seconds` from now (0..900), for trouble that is no 429; never shortens it."""
        self._held_until = max(self._held_until, self._until(seconds))

    def let_go(self) -> None:
        """End what `hold_off` began, because the trouble is over; a 429's pause stands."""
        self._held_until = self._clock.monotonic()
        self._lifted.set()
        self._lifted.clear()

    def _until(self, seconds: float) -> float:
        return self._clock.monotonic() + min(max(seconds, 0.0), RETRY_AFTER_MAX_S)

    async def _sleep_unless_lifted(self, seconds: float) -> None:
        tasks = {
            asyncio.ensure_future(self._clock.sleep(seconds)),
            asyncio.ensure_future(self._lifted.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _slow_down(self, retry_after_s: float | None) -> None:
        if self._clock.monotonic() >= self._braked_until:
            self._limit = max(1, self._limit // 2)
            self._successes = 0
            self._round += 1
        elif retry_after_s is None:
            return  # the same burst: the pause that the first of it set stands
        wait = pause_s(self._round, self._chance()) if retry_after_s is None else retry_after_s
        self._braked_until = max(self._braked_until, self._until(max(wait, BRAKE_MIN_S)))

    def _speed_up(self) -> None:
        if self._clock.monotonic() < self._braked_until:
            return  # sent before the pause began: says nothing about what comes after it
        self._round = 0
        self._successes += 1
        if self._successes >= self._limit:
            self._successes = 0
            self._limit = min(self._limit + 1, self._limit_max)

    def _mark_room(self) -> None:
        if self._in_use < self._limit:
            self._room.set()
        else:
            self._room.clear()
