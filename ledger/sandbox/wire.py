"""Requests in and answers out over ASGI, with all the ways in which an answer can go wrong on its way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ledger.sandbox.books import Submission

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY_BYTES: Final = 1 << 20
"""No lead is larger; a client that sends more has a bug, and is told 413."""
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


class ConnectionDropped(Exception):
    """In process there is no connection to drop: this goes to the caller instead of an answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler needs of a request."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def token(self) -> str | None:
        """The bearer in the Authorization header, if there is one."""
        scheme, _, token = self.header(b"authorization").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None

    def header(self, name: bytes) -> str:
        """A header by its lower-case name; empty when absent."""
        return self.headers.get(name, b"").decode("latin-1")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and the manner of its delivery."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"
    manner: Literal["whole", "cut", "slow", "dropped"] = "whole"
    told: Submission | None = None
    """The submission this answer tells of: when it cannot be delivered, the books say so."""


def json_answer(
    status: int, body: object, headers: tuple[tuple[bytes, bytes], ...] = (), told: Submission | None = None
) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, _ENCODE(body).encode(), headers, told=told)


def html_answer(status: int, told: Submission | None = None) -> Answer:
    """What a proxy says when it has nothing to say."""
    page = (
        b"<!doctype html><html><head><title>Please wait</title></head><body><h1>One moment</h1></body></html>"
    )
    return Answer(status, page, content_type=b"text/html; charset=utf-8", told=told)


async def read_request(scope: Message, receive: Receive) -> Request | None:
    """The whole request; None when the client went away before it was complete.

    A body beyond `MAX_BODY_BYTES` is cut one byte above it, for the handler to refuse.
    """
    body = bytearray()
    # Bounded by MAX_BODY_BYTES: what comes beyond is not read.
    while len(body) <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return Request(
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        headers=dict(scope["headers"]),
        body=bytes(body[: MAX_BODY_BYTES + 1]),
    )


async def deliver(
    answer: Answer,
    receive: Receive,
    send: Send,
    *,
    slow_byte_s: float,
    dropped: Callable[[str], Exception],
) -> bool:
    """Send the answer in its manner.

    Args:
        answer: What to send.
        receive: Of the ASGI call; tells when the client goes away.
        send: Of the ASGI call.
        slow_byte_s: Real seconds between two bytes of a slow answer.
        dropped: Makes the exception that stands for a dropped connection in process.

    Returns:
        False when the client went away before or during the answer, as far as the connection shows. A cut or
        dropped answer is as intended: True.
    """
    if getattr(_cycle(send), "disconnected", False):
        return False
    if answer.manner == "dropped":
        await hang_up(receive, send, dropped)
        return True
    length = str(len(answer.body)).encode()
    headers = [(b"content-type", answer.content_type), (b"content-length", length), *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.manner == "cut":
        half = answer.body[: len(answer.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await hang_up(receive, send, dropped)
        return True
    if answer.manner == "slow":
        return await _trickle(answer.body, receive, send, slow_byte_s)
    await send({"type": "http.response.body", "body": answer.body})
    return True


async def _trickle(body: bytes, receive: Receive, send: Send, slow_byte_s: float) -> bool:
    for byte in body:
        await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
        try:
            message = await asyncio.wait_for(receive(), slow_byte_s)
        except TimeoutError:
            continue
        if message["type"] == "http.disconnect":
            return False
    await send({"type": "http.response.body", "body": b""})
    return True


def _cycle(send: Send) -> object:
    # Under uvicorn `send` is a method of the request's cycle; in process it is a plain function.
    return getattr(send, "__self__", None)


async def hang_up(receive: Receive, send: Send, dropped: Callable[[str], Exception]) -> None:
    """Close the connection after what was already sent, without ending the answer.

    ASGI has no word for this. uvicorn's request cycle (h11 and httptools alike) holds the transport; closing
    that flushes the bytes already written and sends no more. uvicorn writes its own 500 when an app returns
    without an answer while the connection stands, so wait until it is gone.

    Raises:
        Exception: The one `dropped` makes, where there is no transport (in process).
    """
    transport = getattr(_cycle(send), "transport", None)
    if transport is None:
        raise dropped("the sandbox dropped the connection")
    transport.close()
    # Bounded: the transport is closing, so after what is already buffered the next message is the disconnect.
    while (await receive())["type"] != "http.disconnect":
        pass
