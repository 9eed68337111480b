"""What the tests of the API client share: a clock that stands still, and a server that says anything."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from ledger.api.profile import Profile


class StillClock:
    """Time moves only when a test says so."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self._seconds = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._seconds + seconds, wake))
        await wake

    async def advance(self, seconds: float) -> None:
        self._seconds += seconds
        self._now += timedelta(seconds=seconds)
        for at, wake in self._sleepers:
            if at <= self._seconds and not wake.done():
                wake.set_result(None)
        await settle()


async def settle() -> None:
    """Let every task that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """A TCP server that reads one request a turn and lets the test write what it likes."""

    url: str
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)


def content_length(head: bytes) -> int:
    found = re.search(rb"(?i)content-length: *([0-9]+)", head)
    return int(found[1]) if found else 0


@asynccontextmanager
async def serve(
    answer: bytes | Speak, *, keep: bool = False, at_once: bool = False
) -> AsyncIterator[RawServer]:
    """Answer each request (`at_once`: none) with bytes, then close unless `keep`; or let `answer` speak."""
    tasks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            if at_once:
                writer.write(answer if isinstance(answer, bytes) else b"")
                return
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                server.requests.append(head + await reader.readexactly(content_length(head)))
                if callable(answer):
                    await answer(reader, writer)
                else:
                    writer.write(answer)
                    await writer.drain()
                if not keep:
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(talk(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server = RawServer(f"http://127.0.0.1:{port}")
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
        await settle()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture(scope="session")
def profile() -> Profile:
    return Profile.load()


@pytest.fixture
def raw_server() -> Callable[..., AbstractAsyncContextManager[RawServer]]:
    return serve


@pytest.fixture
def settled() -> Callable[[], Awaitable[None]]:
    return settle
