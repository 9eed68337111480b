"""Every malformed answer of the faults notes (8.2), as bytes, with what the ledger must make of it."""

from __future__ import annotations

import asyncio
import gzip
from typing import Final, NamedTuple

from impostor import Say, as_json, http


async def slow_bytes(writer: asyncio.StreamWriter) -> None:
    """One byte at a time, for ever: no single wait is long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(5_000):
        writer.write(b"{")
        await writer.drain()
        await asyncio.sleep(0.02)


BOMB: Final = gzip.compress(bytes(64 * 1024 * 1024), 9)
_GZIP: Final = b"Content-Encoding: gzip\r\n"


class Odd(NamedTuple):
    """An answer, what a POST answered so has for an error, and the status and start of what is kept of it."""

    say: Say
    error: str
    status: int | None = 200
    kept: str = ""


ANYWHERE: Final = {
    "html-502": Odd(http(b"<html>502</html>", b"502 Bad Gateway"), "http_502", 502, "<html>502"),
    "html-200": Odd(http(b"<html>fine</html>"), "not_json", 200, "<html>fine"),
    "truncated-json": Odd(http(b'{"job_id": "job_1", "sta'), "not_json", 200, '{"job_id": "job_1"'),
    "empty-202": Odd(http(b"", b"202 Accepted"), "empty", 202),
    "empty-204": Odd(b"HTTP/1.1 204 No Content\r\n\r\n", "empty", 204),
    "length-too-large": Odd(
        b'HTTP/1.1 202 Accepted\r\nContent-Length: 99\r\n\r\n{"job_id": "j1"}',
        "remote_protocol_error",
        202,
        '{"job_id": "j1"}',
    ),
    "bad-chunk": Odd(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", "remote_protocol_error", 200
    ),
    "unfinished-chunks": Odd(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "remote_protocol_error",
        200,
        "{}",
    ),
    "not-http": Odd(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "remote_protocol_error", None),
    "closed": Odd(b"", "remote_protocol_error", None),
    "half-a-head": Odd(b"HTTP/1.1 200 OK\r\nContent-Le", "remote_protocol_error", None),
    "header-200-kB": Odd(
        http(b"{}", extra=b"X-Big: " + b"x" * 200_000 + b"\r\n"), "remote_protocol_error", None
    ),
    "bad-gzip": Odd(http(b"nonsense", extra=_GZIP), "decoding_error", 200, "nonsense"),
    "gzip-bomb": Odd(http(BOMB, extra=_GZIP), "too_large", 200),
    "nan": Odd(http(b'{"job_id": "j1", "charged_usd": NaN, "status": "done"}'), "not_a_number", 200, '{"job'),
    "5000-digits": Odd(http(b'{"job_id": ' + b"1" * 5_000 + b"}"), "not_json", 200, '{"job_id": 111'),
    "depth-100000": Odd(http(b"[" * 100_000), "too_deep", 200, "[[["),
    "redirect": Odd(http(b"", b"302 Found", b"Location: http://127.0.0.1:9/\r\n"), "http_302", 302),
    "slow-bytes": Odd(slow_bytes, "deadline", 200, "{{{"),
    "not-utf-8": Odd(http(b'{"job_id": "\xff"}'), "not_json", 200, '{"job_id"'),
    "no-object": Odd(http(b'["j1"]'), "not_an_object", 200, '["j1"]'),
}
"""Wrong as the answer to anything."""

TO_POST: Final = {
    **ANYWHERE,
    "id-twice": Odd(http(b'{"job_id": "a", "job_id": "b"}'), "repeated_key", 200, '{"job_id": "a"'),
    "bearer-twice": Odd(
        http(b'{"job_id": "a", "poll_bearer": "b", "poll_bearer": "c"}'),
        "repeated_key",
        200,
        '{"job_id": "a"',
    ),
    "no-id": Odd(as_json({"status": "queued"}, b"202 Accepted"), "no_job_id", 202, '{"status"'),
    "id-1e999": Odd(http(b'{"job_id": 1e999}'), "no_job_id", 200, '{"job_id": 1e999'),
    "id-is-a-path": Odd(as_json({"job_id": "../agents/balance"}), "no_job_id", 200, '{"job_id"'),
    "failure-inside": Odd(as_json({"error": {"code": "VENDOR_DOWN"}}), "no_job_id", 200, '{"error"'),
    "accepted-as-500": Odd(
        as_json({"job_id": "j1"}, b"500 Internal Server Error"), "http_500", 500, '{"job_id": "j1"}'
    ),
    "conflict": Odd(as_json({"job_id": "j1"}, b"409 Conflict"), "http_409", 409, '{"job_id": "j1"}'),
}

TO_POLL: Final[dict[str, Say]] = {
    **{name: odd.say for name, odd in ANYWHERE.items()},
    "state-twice": http(b'{"status": "running", "status": "completed"}'),
    "cost-twice": http(b'{"status": "completed", "charged_usd": 0.1, "charged_usd": 9}'),
    "no-state": as_json({"result": {"matched": True}, "charged_usd": 0.1}),
    "another-job": as_json({"job_id": "somebody-else", "status": "completed", "result": {"matched": True}}),
    "unknown-state": as_json({"status": "marinating"}),
    "state-is-a-number": as_json({"status": 7}),
    "failure-inside": as_json({"error": {"code": "VENDOR_DOWN"}}),
    "conflict": as_json({}, b"409 Conflict"),
}
"""None of these is a final answer: the job goes on waiting."""


class Cost(NamedTuple):
    """A final answer with an odd cost, and what is booked (micro-dollars)."""

    stated: bytes
    charge: int
    adjust: int = 0
    assumed: bool = False


CEILING: Final = 1_500_000
COSTS: Final = {
    "negative": Cost(b"-0.1", CEILING, assumed=True),
    "true": Cost(b"true", CEILING, assumed=True),
    "text": Cost(b'"0.1"', 100_000),
    "1e999": Cost(b"1e999", CEILING, assumed=True),
    "an-object": Cost(b"{}", CEILING, assumed=True),
    "exactly-the-ceiling": Cost(b"1.5", CEILING),
    "above-the-ceiling": Cost(b"2.25", CEILING, adjust=750_000),
}
"""The result is there and is kept; what it cost is booked as far as it can be known, else the whole hold."""

RETRY_AFTER: Final[dict[bytes, tuple[float, float]]] = {
    b"120": (120.0, 120.0),
    b"-5": (0.0, 120.0),
    b"1.5": (0.0, 120.0),
    b"Wed, 21 Oct 2015 07:28:00 GMT": (0.0, 0.1),
    b"Fri, 31 Dec 9999 23:59:59 GMT": (900.0, 900.0),
    b"99999999999": (900.0, 900.0),
    b"in a while": (0.0, 120.0),
    "١٢٠".encode(): (0.0, 120.0),
}
"""What is said, and the pause it may make (virtual seconds, from and to); our own backoff is at most 120."""
