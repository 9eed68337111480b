"""Nobody answers: one prober asks for the balance, which is free, until somebody does.

While it looks, the shared brake is on and no job is claimed: no intent, no hold, no attempt row per retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ledger import events as ev
from ledger.api.gate import Gate
from ledger.api.provider import Provider
from ledger.clock import Clock
from ledger.policy import Policy

_BRAKE_S: Final = 120.0
"""Longer than a pause of the prober and a reading of the balance together; an answer ends it."""
_PAUSE_MAX_S: Final = 30.0


class Prober:
    """Looks for a provider that could not be reached.

    Args:
        provider: Asked for its balance.
        gate: Its brake is held on meanwhile.
        clock: The one clock.
        policy: How long to go on (`unreachable_after_s`).
        found: Called when somebody answers.
        gave_up: Called when nobody has for too long.
    """

    def __init__(
        self,
        provider: Provider,
        gate: Gate,
        *,
        clock: Clock,
        policy: Policy,
        found: Callable[[], None],
        gave_up: Callable[[], None],
    ) -> None:
        self._provider, self._gate, self._clock, self._policy = provider, gate, clock, policy
        self._found, self._gave_up = found, gave_up
        self._task: asyncio.Task[None] | None = None

    @property
    def looking(self) -> bool:
        """True while nobody has answered."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to look, unless that is going on already."""
        self._gate.hold_off(_BRAKE_S)
        if not self.looking:
            self._task = asyncio.create_task(self._look())

    def cancel(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        started, pause = self._clock.monotonic(), 1.0
        while self._clock.monotonic() - started <= self._policy.unreachable_after_s:
            self._gate.hold_off(_BRAKE_S)
            await self._clock.sleep(pause)
            reading = await self._provider.balance()
            if isinstance(reading, ev.Balance) or reading.not_allowed or reading.error.startswith("http_"):
                self._gate.let_go()
                self._found()
                return
            pause = min(pause * 2, _PAUSE_MAX_S)
        self._gave_up()
