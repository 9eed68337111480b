"""What lies between the client and the provider: an httpx transport in memory, in virtual time.

A POST is a flight of its own: when its sender gives up or dies, it goes on and may still land.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from ledger.sandbox.app import Sandbox

DEADLINE_S = 5.0
"""The client's patience with a paid POST."""


@dataclass(frozen=True)
class Weather:
    """How bad the network is; rates are per request, times virtual seconds."""

    no_connection: float = 0.0
    """No connection is made: surely not sent."""
    get_lost: float = 0.0
    """A GET's answer does not come."""
    quick_s: float = 0.05
    slow: float = 0.0
    """A POST takes anything up to `there_max_s` to arrive, and as long for the way back."""
    there_max_s: float = DEADLINE_S


@dataclass(eq=False)
class Flight:
    """A paid POST that has left and not yet landed."""

    lands_at: float
    request: httpx.Request


class _Body(httpx.AsyncByteStream):
    def __init__(self, parts: list[bytes], broken: Exception | None) -> None:
        self._parts, self._broken = parts, broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part
        if self._broken is not None:
            raise self._broken


class Air(httpx.AsyncBaseTransport):
    """The transport of one life; `flights` outlives it."""

    def __init__(
        self,
        app: Sandbox,
        chance: Random,
        weather: Weather,
        flights: list[Flight],
        asked: Callable[[], None] = lambda: None,
    ) -> None:
        self._asked = asked
        self._app, self._chance, self._weather, self._flights = app, chance, weather, flights
        self._tasks: set[asyncio.Task[Any]] = set()
        self.cut = False
        """The sender is dead: what unwinds must not reach the provider."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        weather, chance = self._weather, self._chance
        if self.cut or chance.random() < weather.no_connection:
            raise httpx.ConnectError("no route")
        if request.method == "POST":
            return await self._post(request)
        await asyncio.sleep(weather.quick_s * chance.random())
        response = await self._ask(request)
        if chance.random() < weather.get_lost:
            raise httpx.ReadTimeout("lost")
        await asyncio.sleep(weather.quick_s * chance.random())
        return response

    async def _post(self, request: httpx.Request) -> httpx.Response:
        slow = self._chance.random() < self._weather.slow
        longest = self._weather.there_max_s if slow else self._weather.quick_s
        there, back = (longest * self._chance.random() for _ in range(2))
        flight = Flight(asyncio.get_running_loop().time() + there, request)
        self._flights.append(flight)
        response = await asyncio.shield(self.launch(flight))
        await asyncio.sleep(back)
        return response

    def launch(self, flight: Flight) -> asyncio.Task[httpx.Response]:
        """Let a flight go on by itself, whatever becomes of who waits for it."""
        task = asyncio.ensure_future(self._land(flight))
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        return task

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its sender may be gone: nobody else looks at it

    async def _land(self, flight: Flight) -> httpx.Response:
        await asyncio.sleep(max(0.0, flight.lands_at - asyncio.get_running_loop().time()))
        self._flights.remove(flight)
        return await self._ask(flight.request)

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        """One ASGI call; a dropped connection leaves the part that had come."""
        got: list[Any] = []
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": request.content}
            await asyncio.get_running_loop().create_future()  # the client stays
            raise AssertionError

        async def send(message: Any) -> None:
            got.append(message)

        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        broken: Exception | None = None
        try:
            await self._app(scope, receive, send)
        except httpx.TransportError as dropped:
            if not got:
                raise
            broken = dropped
        finally:
            self._asked()
        parts = [message["body"] for message in got[1:]]
        return httpx.Response(got[0]["status"], headers=got[0]["headers"], stream=_Body(parts, broken))
