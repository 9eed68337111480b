"""The provider as the runner sees it: four verbs. The real client and a fake in memory both fit it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ledger import events as ev
from ledger.model import OpenJob, PaidCall


class Provider(Protocol):
    """Whoever answers paid calls. Every documented answer is returned as an event; none is raised."""

    async def submit(self, call: PaidCall) -> ev.PostEvent:
        """Make one paid POST, once.

        Raises:
            asyncio.CancelledError: The caller was cancelled; `what_came` says what is known of the POST.
        """

    async def poll(self, job: OpenJob) -> ev.PollEvent:
        """Ask once, free of charge, how a job is getting on."""

    async def balance(self) -> ev.Balance | ev.BalanceUnknown:
        """Look once at the balance."""

    async def aclose(self) -> None:
        """Close every connection."""


def what_came(cancelled: asyncio.CancelledError) -> ev.PostEvent:
    """What is known of a paid POST whose caller was cancelled: mostly `Unknown`, with what had come.

    An answer that was complete when the cancellation struck is read as usual, so that it is not lost.
    """
    event = cancelled.args[0] if cancelled.args else None
    return event if isinstance(event, ev.PostEvent) else ev.Unknown("cancelled", None, None)
