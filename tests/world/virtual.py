"""Virtual time for a whole event loop: nobody waits, and the loop can be killed between any two turns.

Unlike `ledger.testing.FakeClock`, which virtualises only what asks a Clock, this also moves asyncio's own
timeouts (client deadlines, the sandbox's slow bytes), and spends no loop turns on finding out that all sleep.
"""

from __future__ import annotations

import asyncio
import selectors
from datetime import datetime, timedelta
from typing import Final

TURNS_MAX: Final = 100_000
"""No life of a small world takes a tenth of this: beyond it, something spins."""


class Killed(BaseException):
    """The process is gone. No `except Exception` on the way gets to see it."""


class VirtualTime:
    """`ledger.clock.Clock` over the loop's own virtual seconds; it outlives the loops of its world."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self.passed_s = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.passed_s)

    def monotonic(self) -> float:
        return self.passed_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))


class _Selector(selectors.SelectSelector):
    """Instead of waiting for sockets it lets the time pass until the next timer."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__()
        self._time = time
        self.turns = 0
        self.kill_at: int | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if self.turns == self.kill_at:
            raise Killed
        if self.turns > TURNS_MAX:
            raise AssertionError(f"{TURNS_MAX} turns of the loop and no end")
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever happen")
        self._time.passed_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """One life of a process. `kill_at` is the turn before which it dies, None: it lives."""

    def __init__(self, time: VirtualTime, kill_at: int | None = None) -> None:
        self._virtual = time
        self._turns = _Selector(time)
        super().__init__(self._turns)
        self._turns.kill_at = kill_at

    def time(self) -> float:
        return self._virtual.passed_s

    def bury(self) -> None:
        """Let what was alive unwind, on files that no longer count, and close."""
        self._turns.kill_at, self._turns.turns = None, 0
        # A life killed in its last turn has left the callback that stops the loop: it must not stop this.
        self.call_soon(self.stop)
        self.run_forever()
        for _ in range(5):  # a task that unwinds may have started another
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.close()
