"""The one clock. Everything that asks for the time is handed one of these; SQLite is never asked."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is written down, monotonic time for what is waited for."""

    def now(self) -> datetime:
        """The time now, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back."""

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; in tests this is virtual."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time now, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed point."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Really wait."""
        await asyncio.sleep(seconds)


def to_text(at: datetime) -> str:
    """UTC ISO-8601 with microseconds and `Z`: the one form stored in the ledger; it sorts as text."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def from_text(text: str) -> datetime:
    """The time that `to_text` wrote.

    Raises:
        ValueError: The text is not in the ledger's form.
    """
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


def later(at: datetime, seconds: float) -> datetime:
    """`at` plus `seconds`."""
    return at + timedelta(seconds=seconds)
