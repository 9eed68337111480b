"""A hostile wire on loopback: it strikes the requests that a seeded rule chooses and carries the rest.

One behaviour a proxy, at most one strike a connection; every strike that really happened is counted.
Balance readings are always carried: the books are compared, not guessed.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final, Self
from urllib.parse import urlsplit

HELD_MAX_S: Final = 30.0
"""Real seconds after which a held connection is let go, whatever the client does."""
BACKLOG: Final = 100
JOBS: Final = "/enrich/jobs"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests are struck. The draw hangs on the request itself, not on the order of arrival."""

    behaviour: str
    method: str = "POST"
    """`POST`: submissions; `GET`: polls."""
    seed: int = 0
    rate: float = 1.0
    times: int = 1
    """Only the first so many requests for the same thing can be struck: a re-send may get through."""
    at_most: int | None = None
    """Strikes of the whole proxy."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Real seconds."""

    late_s: tuple[float, float] = (0.0, 0.0)
    """A late request is carried so long (from, to) after the client has given up."""
    byte_s: float = 0.001
    """Between two bytes of a trickled answer."""
    closed_s: float = 0.3
    """How long the port stays closed."""


@dataclass(slots=True)
class Exchange:
    """One request that was read whole, and the client that waits for its answer."""

    request: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    chance: Random = field(repr=False)

    def cut(self, text: bytes) -> bytes:
        """A beginning of `text`, never empty and never all of it."""
        return text[: self.chance.randint(1, len(text) - 1)]

    async def client_gone(self) -> None:
        """Until the client closes its end."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(HELD_MAX_S):
                await self.reader.read()

    def reset(self) -> None:
        """Close with an RST instead of a FIN."""
        ear = self.writer.get_extra_info("socket")
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Proxy:
    """An async context manager: `url` leads to `upstream` through one kind of trouble.

    Args:
        upstream: Base URL of the sandbox.
        rule: What is struck, and how.
        pace: How slow and how late things go.
    """

    def __init__(self, upstream: str, rule: Rule, pace: Pace | None = None) -> None:
        where = urlsplit(upstream)
        self._upstream = (where.hostname or "", where.port or 0)
        self._rule, self._pace = rule, pace or Pace()
        self._strike = getattr(self, f"_{rule.behaviour}")
        self.did: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open:
            self._close()
        left = self._tasks | self._late
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def landed(self) -> None:
        """Until every request that was held back has arrived."""
        while self._late:
            await asyncio.gather(*self._late)

    def _listen(self) -> None:
        self._ear = socket.create_server(("127.0.0.1", self._port), backlog=BACKLOG)
        self._port = self._ear.getsockname()[1]
        self._ear.settimeout(0)
        asyncio.get_running_loop().add_reader(self._ear, self._welcome)

    def _welcome(self) -> None:
        """Accept whoever is there. By hand: an asyncio server that closes resets those it just accepted."""
        with suppress(BlockingIOError):
            for _ in range(BACKLOG):
                self._keep(self._tasks, self._adopt(self._ear.accept()[0]))

    async def _adopt(self, connection: socket.socket) -> None:
        await self._talk(*await asyncio.open_connection(sock=connection))

    @property
    def _open(self) -> bool:
        return self._ear.fileno() >= 0

    def _close(self) -> None:
        """Refuse from now on. Who is connected already is served: that is no refusal but a reset."""
        self._welcome()
        asyncio.get_running_loop().remove_reader(self._ear)
        self._ear.close()

    def _keep(self, where: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        where.add(task)
        task.add_done_callback(where.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the client leaves or is struck."""
        try:
            while True:
                one = Exchange(await _read_message(reader), reader, writer, Random())
                if self._chosen(one):
                    self.did[self._rule.behaviour] += 1
                    await self._strike(one)
                    return
                self.did["carried"] += 1
                await self._carry(one)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def _chosen(self, one: Exchange) -> bool:
        head, _, body = one.request.partition(b"\r\n\r\n")
        method, path = head.decode().split()[:2]
        rule = self._rule
        if method != rule.method or JOBS not in path:
            return False
        thing = f"{path} {body.decode()}"
        self._seen[thing] += 1
        one.chance.seed(f"{rule.seed} {thing} {self._seen[thing]}")
        left = rule.at_most is None or self.did[rule.behaviour] < rule.at_most
        return left and self._seen[thing] <= rule.times and one.chance.random() < rule.rate

    async def _forward(self, request: bytes) -> bytes:
        """The sandbox's whole answer to a whole request."""
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request)
            return await _read_message(reader)
        finally:
            writer.close()

    async def _carry(self, one: Exchange) -> None:
        one.writer.write(await self._forward(one.request))
        await one.writer.drain()

    # --- the behaviours ---

    async def _nothing(self, one: Exchange) -> None:
        await self._carry(one)

    async def _cut_request(self, one: Exchange) -> None:
        _, writer = await asyncio.open_connection(*self._upstream)
        writer.write(one.cut(one.request))
        await writer.drain()
        writer.close()

    async def _drop_answer(self, one: Exchange) -> None:
        await self._forward(one.request)

    async def _cut_answer(self, one: Exchange) -> None:
        one.writer.write(one.cut(await self._forward(one.request)))

    async def _swallow(self, one: Exchange) -> None:
        await self._forward(one.request)
        await one.client_gone()

    async def _never_forward(self, one: Exchange) -> None:
        await one.client_gone()

    async def _trickle(self, one: Exchange) -> None:
        for byte in await self._forward(one.request):
            one.writer.write(bytes([byte]))
            await one.writer.drain()
            await asyncio.sleep(self._pace.byte_s)

    async def _refuse(self, one: Exchange) -> None:
        """Carry this one, and close the port behind it."""
        self._keep(self._late, self._close_for_a_while())
        await self._carry(one)

    async def _close_for_a_while(self) -> None:
        if self._open:
            self._close()
            await asyncio.sleep(self._pace.closed_s)
            self._listen()

    async def _reset_before(self, one: Exchange) -> None:
        one.reset()

    async def _reset_after(self, one: Exchange) -> None:
        await self._forward(one.request)
        one.reset()

    async def _accept_late(self, one: Exchange) -> None:
        await one.client_gone()
        self._keep(self._late, self._land(one.request, one.chance.uniform(*self._pace.late_s)))

    async def _land(self, request: bytes, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        await self._forward(request)
        self.did["landed"] += 1


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """One HTTP message with its Content-Length body."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"(?i)\ncontent-length: *([0-9]+)", head)
    return head + (await reader.readexactly(int(found[1])) if found else b"")
