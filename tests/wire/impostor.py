"""A provider that says what no provider should, byte for byte; once healed it says what it ought to.

Each lead is named after its case, so one run meets the whole deck: `say_to_post[case]` answers the POST of
that lead, `say_to_poll[case]` the polls of its job. Everything else is answered properly.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

Say = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

COST_MICROUSD: Final = 400_000
_COMPANY: Final = re.compile(rb'"business_name":"([^"]+)"')
_LENGTH: Final = re.compile(rb"(?i)\ncontent-length: *([0-9]+)")


def http(body: bytes, head: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + head + b"\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def as_json(document: Mapping[str, Any], head: bytes = b"200 OK") -> bytes:
    return http(json.dumps(document).encode(), head)


@dataclass
class Impostor:
    """What it says, and what it was asked."""

    say_to_post: Mapping[str, Say] = field(default_factory=dict)
    say_to_poll: Mapping[str, Say] = field(default_factory=dict)
    times: int = 1_000
    """So often it says something wrong about one case, to POSTs and to polls; then it is as if healed."""
    healed: bool = False
    url: str = ""
    posts: Counter[str] = field(default_factory=Counter)
    polls: Counter[str] = field(default_factory=Counter)
    finished: set[str] = field(default_factory=set)
    polled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once every case of `say_to_poll` was asked after three times."""

    def answer(self, head: bytes, body: bytes) -> Say:
        path = head.split()[1].decode()
        if head.startswith(b"POST"):
            found = _COMPANY.search(body)
            assert found is not None, body
            return self._to_post(found[1].decode())
        if path.endswith("/agents/balance"):
            left = 100_000_001 - COST_MICROUSD * len(self.finished)
            return as_json({"virtual_balance_usd": f"{left / 1_000_000:.6f}"})
        return self._to_poll(path.rpartition("/")[2])

    def _to_post(self, case: str) -> Say:
        self.posts[case] += 1
        said = self.say_to_post.get(case)
        if said is not None and not self.healed and self.posts[case] <= self.times:
            return said
        remote = f"{case}-{self.posts[case]}"
        return as_json({"job_id": remote, "poll_bearer": f"pb-{remote}"}, b"202 Accepted")

    def _to_poll(self, remote: str) -> Say:
        case = remote.rpartition("-")[0]
        self.polls[case] += 1
        if all(self.polls[name] >= 3 for name in self.say_to_poll):
            self.polled.set()
        said = self.say_to_poll.get(case)
        if said is not None and not self.healed and self.polls[case] <= self.times:
            return said
        self.finished.add(remote)
        result = {"matched": True, "phone": "+14155550123"}
        return as_json({"job_id": remote, "status": "completed", "result": result, "charged_usd": 0.4})

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, and the connection is closed."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            said = self.answer(head, await reader.readexactly(int(found[1])) if found else b"")
            if callable(said):
                await said(writer)
            else:
                writer.write(said)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return  # the client had enough
        finally:
            writer.close()


@asynccontextmanager
async def served(impostor: Impostor) -> AsyncIterator[Impostor]:
    """Serve it on a free loopback port."""
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(impostor.talk(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    impostor.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield impostor
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
