"""The one module that imports httpx: bytes out, a `Reply` or a `NoReply` back, nothing raised.

It drives httpx's transports, not its client: no cookies are kept between calls, no redirect is followed,
no proxy or certificate is taken from the environment. Paid POSTs always get a connection of their own.
Polls go through lanes of one connection each, because httpx's pool gets slower with every connection it
holds (measured: 1,600 requests a second over 16 lanes, 500 over one pool of 16).
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final

import httpx

from ledger import crashpoints
from ledger.api.reply import NoReply, Reply

# httpx logs every URL at INFO, httpcore every header of an answer at DEBUG.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

# httpcore imports sniffio anew at every lock. Where it is not installed each of these fails only after a
# search through the whole path (a sixth of a night's CPU); None is Python's own sign for "not there".
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment] # typeshed knows only modules

NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)
"""Raised only before a connection exists; after anything else the request may have arrived (faults.md, 5)."""

POSTS_MAX: Final = 256
"""Paid POSTs in the air at once; far above any sensible `--concurrency`."""
POST_IDLE_S: Final = 0.5
"""A connection that rested longer than this never carries a paid POST; no server known closes one so soon."""
_BASE_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "leadledger",
}
_DEAD_CONNECTION: Final = frozenset({"remote_protocol_error", "read_error", "write_error"})
_ZLIB_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}

Network = Callable[[httpx.Limits], httpx.AsyncBaseTransport]
"""Makes an httpx transport; tests put one in that needs no socket."""


class _TooLarge(Exception):
    """More bytes than we read of any answer."""


@dataclass(slots=True)
class _Came:
    """What has come of an answer so far."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False


class Transport:
    """Connections to one origin.

    Args:
        origin: Scheme, host and port, checked already.
        connect_s: Seconds to get a connection.
        lanes: Connections for GETs.
        bytes_max: Bytes of one answer, as sent and decoded.
        network: Makes the httpx transports; the default ones share one TLS context.
    """

    def __init__(
        self, origin: str, *, connect_s: float, lanes: int, bytes_max: int, network: Network | None = None
    ) -> None:
        self._origin = origin
        self._connect_s = connect_s
        self._bytes_max = bytes_max
        make = network or _real_network()
        # None that sat idle: it may be closed under a POST, and then nobody knows what became of it. Servers
        # close after seconds or minutes, so one used half a second ago is as good as new.
        busy = httpx.Limits(
            max_connections=POSTS_MAX, max_keepalive_connections=POSTS_MAX, keepalive_expiry=POST_IDLE_S
        )
        self._posts = make(busy)
        self._fresh_posts = make(httpx.Limits(max_connections=POSTS_MAX, max_keepalive_connections=0))
        self._reuse = True
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=30.0)
        self._lanes = [make(one) for _ in range(lanes)]
        self._free: asyncio.LifoQueue[httpx.AsyncBaseTransport] = asyncio.LifoQueue(lanes)
        for lane in self._lanes:
            self._free.put_nowait(lane)

    async def post(self, path: str, body: bytes, headers: dict[str, str], total_s: float) -> Reply | NoReply:
        """One POST within `total_s` seconds; never repeated.

        Over a fresh connection or one used a moment ago; once a connection has died under a POST, only over
        fresh ones.

        Raises:
            asyncio.CancelledError: The caller was cancelled; its one argument is what had come by then.
        """
        headers = {"Content-Type": "application/json", **headers}
        network = self._posts if self._reuse else self._fresh_posts
        reply = await self._exchange(network, "POST", path, body, headers, total_s)
        if isinstance(reply, NoReply) and reply.error in _DEAD_CONNECTION:
            self._reuse = False
        return reply

    async def get(self, path: str, headers: dict[str, str], total_s: float) -> Reply | NoReply:
        """One GET within `total_s` seconds; repeated once where the kept connection turns out dead."""
        lane = await self._free.get()
        try:
            reply = await self._exchange(lane, "GET", path, b"", headers, total_s)
            if isinstance(reply, NoReply) and reply.status is None and reply.error in _DEAD_CONNECTION:
                reply = await self._exchange(lane, "GET", path, b"", headers, total_s)
            return reply
        finally:
            self._free.put_nowait(lane)

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in (self._posts, self._fresh_posts, *self._lanes):
            await transport.aclose()

    async def _exchange(
        self,
        network: httpx.AsyncBaseTransport,
        method: str,
        path: str,
        body: bytes,
        headers: dict[str, str],
        total_s: float,
    ) -> Reply | NoReply:
        came = _Came()
        try:
            async with asyncio.timeout(total_s):
                request = httpx.Request(
                    method,
                    self._origin + path,
                    headers={**_BASE_HEADERS, **headers},
                    content=body or None,
                    extensions={"timeout": self._timeouts(total_s)},
                )
                await self._receive(network, request, came)
        except asyncio.CancelledError as cancelled:
            cancelled.args = (self._ended(came, "cancelled", sent=True),)
            raise
        except TimeoutError:
            return self._ended(came, "deadline", sent=True)
        except _TooLarge:
            return self._ended(came, "too_large", sent=True)
        except Exception as problem:  # noqa: BLE001 - whatever it is, the POST may have arrived: no crash here
            return self._ended(came, error_code(problem), sent=not isinstance(problem, NOT_SENT))
        return self._ended(came, "", sent=True)

    def _timeouts(self, total_s: float) -> dict[str, float]:
        # Reading may take the whole deadline: a paid answer given up early is a doubt.
        connect_s = min(self._connect_s, total_s)
        return {"connect": connect_s, "pool": connect_s, "read": total_s, "write": total_s}

    async def _receive(self, network: httpx.AsyncBaseTransport, request: httpx.Request, came: _Came) -> None:
        response = await network.handle_async_request(request)
        if request.method == "POST":
            crashpoints.reach("post_answering")
        try:
            came.status = response.status_code
            came.headers = {name.lower(): value for name, value in response.headers.items()}
            if not isinstance(response.stream, httpx.AsyncByteStream):
                raise TypeError("not an async transport")
            async for chunk in response.stream:
                came.body += chunk
                if len(came.body) > self._bytes_max:
                    raise _TooLarge
            came.whole = True
        finally:
            await response.aclose()

    def _ended(self, came: _Came, error: str, *, sent: bool) -> Reply | NoReply:
        """What is handed back. An answer that had come whole counts, however its connection ended."""
        body = bytes(came.body[: self._bytes_max])
        if not came.whole or came.status is None:
            return NoReply(error, sent or came.status is not None, came.status, body)
        try:
            decoded = _decoded(body, came.headers.get("content-encoding", ""), self._bytes_max)
        except _TooLarge:
            return NoReply("too_large", sent=True, status=came.status, body=body)
        except zlib.error:
            return NoReply("decoding_error", sent=True, status=came.status, body=body)
        return Reply(came.status, came.headers, decoded)


def error_code(problem: BaseException) -> str:
    """An exception's class name in snake case: `ReadTimeout` is `read_timeout`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(problem).__name__).lower()


def _decoded(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body without its content encoding, though we ask for none; never more than `bytes_max` of it."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _ZLIB_BITS:
        raise zlib.error(f"unknown encoding {encoding}")
    unpacker = zlib.decompressobj(_ZLIB_BITS[encoding])
    decoded = unpacker.decompress(body, bytes_max + 1)
    if len(decoded) > bytes_max:
        raise _TooLarge
    if not unpacker.eof or unpacker.unused_data:
        raise zlib.error("incomplete")
    return decoded


def _real_network() -> Network:
    context: ssl.SSLContext = httpx.create_ssl_context(trust_env=False)

    def make(limits: httpx.Limits) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits, retries=0)

    return make
