"""The sandbox as an ASGI app: which handler answers what, and how long an answer takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from ledger.sandbox import free, speech
from ledger.sandbox.clock import VirtualClock
from ledger.sandbox.control import control
from ledger.sandbox.hooks import post
from ledger.sandbox.paid import take
from ledger.sandbox.provider import Provider
from ledger.sandbox.settings import ROUTES, Settings
from ledger.sandbox.wire import (
    Answer,
    ConnectionDropped,
    Message,
    Receive,
    Request,
    Send,
    deliver,
    read_request,
)

PREFIX: Final = "/api/v1/"
JOBS: Final = "/api/v1/enrich/jobs"
SYNC: Final = {PREFIX + route: route for route in ROUTES}
TICK_S: Final = 0.05
"""Real seconds between two looks for deliveries that are due."""
METHODS: Final = {"submit": "POST", "sync": "POST", "poll": "GET", "balance": "GET", "me": "GET"}


class Sandbox:
    """One provider behind ASGI.

    Args:
        settings: How it behaves.
        real: Monotonic real seconds; tests hand in their own.
        wall: Real seconds since 1970, for a `Retry-After` date.
        dropped: Makes the exception that stands for a dropped connection when the app runs in process;
            `httpx.ReadError`, for instance, makes a client see what it would see over a socket.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        real: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        dropped: Callable[[str], Exception] = ConnectionDropped,
    ) -> None:
        self.provider = Provider(settings, VirtualClock(settings.start_s, settings.speed, real, wall))
        self._dropped = dropped
        self._ticker: asyncio.Task[None] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "the sandbox has no lifespan and no websockets"
        request = await read_request(scope, receive)
        if request is None:
            return
        provider = self.provider
        provider.catch_up()
        if provider.settings.callback_url and self._ticker is None:
            self._ticker = asyncio.create_task(self._push())
        endpoint = _endpoint(request.path)
        paid = endpoint in ("submit", "sync")
        if paid:
            provider.limits.post_arrives()
        try:
            answer = await self._answer(endpoint, request)
            outcome = "dropped" if answer.manner == "dropped" else str(answer.status)
            provider.requests[endpoint, outcome] += 1
            slow_byte_s = provider.settings.slow_byte_ms / 1000
            arrived = await deliver(answer, receive, send, slow_byte_s=slow_byte_s, dropped=self._dropped)
            if answer.told and not arrived:
                answer.told.answer_lost = True
        finally:
            if paid:
                provider.limits.post_leaves()

    async def _push(self) -> None:
        """POST deliveries as they fall due, also while nobody asks anything; ends with the event loop."""
        pushed = self.provider.hooks.pushed
        done = 0
        while True:
            self.provider.catch_up()
            while done < len(pushed):  # it grows while a receiver takes its time
                await post(self.provider.settings.callback_url, pushed[done])
                done += 1
            await asyncio.sleep(TICK_S)

    async def _answer(self, endpoint: str, request: Request) -> Answer:
        provider = self.provider
        if endpoint == "sandbox":
            return control(provider, request)
        if endpoint == "other":
            return speech.error(provider.settings.speech, 404, "NOT_FOUND", "no such route")
        if request.method != METHODS[endpoint]:
            return speech.error(provider.settings.speech, 405, "METHOD_NOT_ALLOWED", "not with this method")
        match endpoint:
            case "submit" | "sync":
                answer = await take(provider, request, SYNC.get(request.path))
            case "poll":
                answer = free.poll(provider, request, request.path.removeprefix(JOBS + "/"))
            case "balance":
                answer = free.balance(provider, request)
            case _:
                answer = free.me(provider, request)
        wait_ms = provider.settings.answer_ms_of.get(endpoint, provider.settings.answer_ms)
        if wait_ms:
            await asyncio.sleep(wait_ms / 1000)
        return answer


def _endpoint(path: str) -> str:
    if path.startswith(JOBS):
        return "submit" if path == JOBS else "poll" if path.startswith(JOBS + "/") else "other"
    if path in SYNC:
        return "sync"
    if path.startswith("/sandbox/"):
        return "sandbox"
    return {"/api/v1/agents/balance": "balance", "/api/v1/agents/me": "me"}.get(path, "other")


def create_app(
    settings: Settings | None = None,
    *,
    real: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    dropped: Callable[[str], Exception] = ConnectionDropped,
) -> Sandbox:
    """A sandbox ready for uvicorn or `httpx.ASGITransport`; for the arguments see `Sandbox`."""
    return Sandbox(settings or Settings(), real=real, wall=wall, dropped=dropped)
