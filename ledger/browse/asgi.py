"""The three words of ASGI that the gate, the receiver and the forms speak."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY_WAIT_S: Final = 10.0
"""What is sent to us is small; a sender that takes longer is not waited for."""


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The raw body; None when it is longer than `limit` bytes (nothing more is read), or never comes."""
    parts = bytearray()
    try:
        async with asyncio.timeout(_BODY_WAIT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                parts += message.get("body", b"")
                if len(parts) > limit:
                    return None
                if not message.get("more_body", False):
                    return bytes(parts)
    except TimeoutError:
        return None


async def answer(send: Send, status: int, text: str) -> None:
    """A plain answer that nobody keeps."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
