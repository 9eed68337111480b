import asyncio
import gzip
import logging
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.api import transport as module
from ledger.api.reply import NoReply, Reply
from ledger.api.transport import NOT_SENT, Transport, error_code

REPOSITORY = Path(__file__).resolve().parents[2]
CODES = {
    "CloseError": "close_error",
    "ConnectError": "connect_error",
    "ConnectTimeout": "connect_timeout",
    "CookieConflict": "cookie_conflict",
    "DecodingError": "decoding_error",
    "HTTPError": "httperror",
    "HTTPStatusError": "httpstatus_error",
    "InvalidURL": "invalid_url",
    "LocalProtocolError": "local_protocol_error",
    "NetworkError": "network_error",
    "PoolTimeout": "pool_timeout",
    "ProtocolError": "protocol_error",
    "ProxyError": "proxy_error",
    "ReadError": "read_error",
    "ReadTimeout": "read_timeout",
    "RemoteProtocolError": "remote_protocol_error",
    "RequestError": "request_error",
    "RequestNotRead": "request_not_read",
    "ResponseNotRead": "response_not_read",
    "StreamClosed": "stream_closed",
    "StreamConsumed": "stream_consumed",
    "StreamError": "stream_error",
    "TimeoutException": "timeout_exception",
    "TooManyRedirects": "too_many_redirects",
    "TransportError": "transport_error",
    "UnsupportedProtocol": "unsupported_protocol",
    "WriteError": "write_error",
    "WriteTimeout": "write_timeout",
}
GZIPPED = gzip.compress(b"{}", mtime=0)
UNSENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL"}


def every_httpx_exception() -> list[type[Exception]]:
    named = (getattr(httpx, name) for name in dir(httpx))
    return sorted(
        (item for item in named if isinstance(item, type) and issubclass(item, Exception)),
        key=lambda item: item.__name__,
    )


def made(kind: type) -> Any:
    error = kind.__new__(kind)
    Exception.__init__(error, "planted")
    return error


def mocked(handler: Any, **settings: Any) -> Any:
    settings = {"connect_s": 1.0, "lanes": 2, "bytes_max": 10_000, **settings}
    return Transport("https://x.example", network=lambda _: httpx.MockTransport(handler), **settings)


def real(server: Any, **settings: Any) -> Any:
    settings = {"connect_s": 1.0, "lanes": 2, "bytes_max": 10_000, **settings}
    return Transport(server.url, **settings)


def post(transport: Transport, total_s: float = 5.0) -> Any:
    async def scene() -> Any:
        try:
            return await transport.post("/p", b"{}", {"Authorization": "Bearer k"}, total_s)
        finally:
            await transport.aclose()

    return asyncio.run(scene())


def test_the_table_of_httpx_exceptions_is_complete() -> None:
    assert {kind.__name__ for kind in every_httpx_exception()} == set(CODES)
    assert {kind.__name__ for kind in NOT_SENT} == UNSENT


@pytest.mark.parametrize("kind", every_httpx_exception(), ids=lambda kind: kind.__name__)
def test_every_httpx_exception_becomes_a_value(kind: type) -> None:
    def handler(_request: Any) -> None:
        raise made(kind)

    name = kind.__name__
    assert post(mocked(handler)) == NoReply(CODES[name], sent=name not in UNSENT)


@pytest.mark.parametrize("problem", [RuntimeError("x"), OSError(5, "x"), KeyError("x"), UnicodeError("x")])
def test_a_surprise_counts_as_sent(problem: Any) -> None:
    def handler(_request: Any) -> None:
        raise problem

    assert post(mocked(handler)) == NoReply(error_code(problem), sent=True)


def test_a_whole_answer_has_lower_case_headers_and_its_bytes() -> None:
    reply = post(mocked(lambda _: httpx.Response(429, headers={"Retry-After": "7"}, content=b"\x00\xff")))
    assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"\x00\xff")


def test_what_is_sent_asks_for_no_compression_and_carries_no_cookie(raw_server: Any) -> None:
    async def scene() -> Any:
        answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}"
        async with raw_server(answer, keep=True) as server:
            transport = real(server)
            for _ in range(2):
                await transport.get("/g", {}, 5.0)
                await transport.post("/p", b"{}", {"Authorization": "Bearer k"}, 5.0)
            await transport.aclose()
            return [request.lower() for request in server.requests]

    for request in asyncio.run(scene()):
        assert b"accept-encoding: identity" in request
        assert b"cookie" not in request


def test_a_redirect_is_an_answer_and_is_not_followed(raw_server: Any) -> None:
    async def scene() -> Any:
        answer = b"HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        async with raw_server(answer, keep=True) as server:
            transport = real(server)
            reply = await transport.post("/p", b"{}", {}, 5.0)
            await transport.aclose()
            return reply.status, len(server.requests)

    assert asyncio.run(scene()) == (307, 1)


def test_a_post_takes_a_connection_just_used_or_its_own_and_gets_share_theirs(raw_server: Any) -> None:
    async def scene() -> Any:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        async with raw_server(answer, keep=True) as server:
            transport = real(server)
            transport._reuse = False
            for _ in range(3):
                await transport.post("/p", b"{}", {}, 5.0)
            fresh = server.connections
            transport._reuse = True
            for _ in range(3):
                await transport.post("/p", b"{}", {}, 5.0)
            reused = server.connections - fresh
            assert (fresh, reused) == (3, 1)
            posts = server.connections
            for _ in range(5):
                await transport.get("/g", {}, 5.0)
            alone = server.connections - posts
            await asyncio.gather(*(transport.get("/g", {}, 5.0) for _ in range(20)))
            together = server.connections - posts
            await transport.aclose()
            return posts, alone, together, len(server.requests)

    assert asyncio.run(scene()) == (4, 1, 2, 31)


def test_proxies_of_the_environment_are_ignored(raw_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def scene() -> Any:
        async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as server:
            transport = real(server)
            reply = await transport.get("/g", {}, 5.0)
            await transport.aclose()
            return reply.status

    assert asyncio.run(scene()) == 200


def test_a_get_over_a_connection_that_died_is_repeated_once_and_a_post_never(raw_server: Any) -> None:
    async def scene() -> Any:
        async def hang_up(_reader: Any, writer: Any) -> None:
            writer.close()

        async with raw_server(hang_up) as server:
            transport = real(server)
            got = await transport.get("/g", {}, 5.0)
            gets = len(server.requests)
            posted = await transport.post("/p", b"{}", {}, 5.0)
            await transport.aclose()
            return got, gets, posted, len(server.requests) - gets

    died = NoReply("remote_protocol_error", sent=True)
    assert asyncio.run(scene()) == (died, 2, died, 1)


def test_a_get_whose_answer_broke_off_is_not_repeated(raw_server: Any) -> None:
    async def scene() -> Any:
        async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{") as server:
            transport = real(server)
            reply = await transport.get("/g", {}, 5.0)
            await transport.aclose()
            return reply, len(server.requests)

    broken = NoReply("remote_protocol_error", sent=True, status=200, body=b"{")
    assert asyncio.run(scene()) == (broken, 1)


def test_slow_bytes_end_at_the_deadline_and_what_came_is_kept(raw_server: Any) -> None:
    async def scene() -> Any:
        async def trickle(_reader: Any, writer: Any) -> None:
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

        async with raw_server(trickle) as server:
            transport = real(server)
            began = asyncio.get_running_loop().time()
            reply = await transport.post("/p", b"{}", {}, 0.3)
            took = asyncio.get_running_loop().time() - began
            await transport.aclose()
            return reply, took

    reply, took = asyncio.run(scene())
    assert (reply.error, reply.sent, reply.status) == ("deadline", True, 202)
    assert reply.body.startswith(b"xx")
    assert took < 1.3


def test_a_cancelled_post_hands_on_what_had_come(raw_server: Any) -> None:
    async def scene() -> Any:
        said = asyncio.Event()

        async def half(_reader: Any, writer: Any) -> None:
            writer.write(b'HTTP/1.1 202 Accepted\r\nContent-Length: 99\r\n\r\n{"job_id": ')
            await writer.drain()
            said.set()
            await asyncio.Event().wait()

        async with raw_server(half) as server:
            transport = real(server)
            task = asyncio.create_task(transport.post("/p", b"{}", {}, 5.0))
            await said.wait()
            for _ in range(50):  # until the bytes have crossed the loopback
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            await transport.aclose()
            return caught.value.args[0]

    part = asyncio.run(scene())
    assert (part.error, part.sent) == ("cancelled", True)
    assert part.body in (b"", b'{"job_id": ')


def test_an_answer_that_was_whole_counts_though_its_connection_would_not_close() -> None:
    class Stubborn(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"{}"

        async def aclose(self) -> None:
            await asyncio.Event().wait()

    transport = mocked(lambda _: httpx.Response(202, stream=Stubborn()))
    assert post(transport, 0.05) == Reply(202, {}, b"{}")


def test_too_many_bytes_stop_the_reading() -> None:
    reply = post(mocked(lambda _: httpx.Response(200, content=b"x" * 10_001)))
    assert (reply.error, reply.sent, reply.status, len(reply.body)) == ("too_large", True, 200, 10_000)
    assert isinstance(post(mocked(lambda _: httpx.Response(200, content=b"x" * 10_000))), Reply)


def encoded(body: Any, encoding: str) -> Any:
    class Raw(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield body

    return mocked(lambda _: httpx.Response(202, headers={"Content-Encoding": encoding}, stream=Raw()))


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (GZIPPED, "gzip"),
        (GZIPPED, "X-GZIP"),
        (zlib.compress(b"{}"), "deflate"),
        (b"{}", "identity"),
    ],
    ids=["gzip", "x-gzip", "deflate", "identity"],
)
def test_an_answer_that_is_compressed_all_the_same_is_read(body: Any, encoding: str) -> None:
    assert post(encoded(body, encoding)).body == b"{}"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"not gzip", "gzip"),
        (GZIPPED[:-3], "gzip"),
        (GZIPPED + b"tail", "gzip"),
        (b"{}", "br"),
        (GZIPPED, "gzip, gzip"),
    ],
    ids=["not gzip", "cut short", "with a tail", "unknown encoding", "twice"],
)
def test_an_answer_that_cannot_be_unpacked_is_no_answer(body: Any, encoding: str) -> None:
    assert post(encoded(body, encoding)) == NoReply("decoding_error", sent=True, status=202, body=body)


def test_a_gzip_bomb_is_not_unfolded() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    transport = encoded(bomb, "gzip")
    transport._bytes_max = 100_000
    tracemalloc.start()
    try:
        reply = post(transport)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (reply.error, reply.status) == ("too_large", 202)
    assert peak < 5_000_000


def test_httpx_is_quiet_and_stays_so() -> None:
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        assert logging.getLogger(name).getEffectiveLevel() == logging.WARNING


def test_no_connection_that_sat_idle_carries_a_post() -> None:
    asked = []

    def network(limits: Any) -> Any:
        asked.append(limits)
        return httpx.MockTransport(lambda _: httpx.Response(200))

    Transport("https://x.example", connect_s=1.0, lanes=2, bytes_max=10, network=network)
    busy, fresh, *lanes = asked
    assert busy.keepalive_expiry <= 0.5
    assert fresh.max_keepalive_connections == 0
    assert [lane.max_connections for lane in lanes] == [1, 1]


def test_once_a_connection_died_under_a_post_every_other_post_gets_a_fresh_one() -> None:
    def network(limits: Any) -> Any:
        def answer(request: Any) -> Any:
            if limits.max_keepalive_connections == 0:
                return httpx.Response(200, json={"over": "a fresh one"})
            raise httpx.RemoteProtocolError("closed", request=request)

        return httpx.MockTransport(answer)

    async def scene() -> Any:
        transport = Transport("https://x.example", connect_s=1.0, lanes=1, bytes_max=99, network=network)
        first = await transport.post("/p", b"{}", {}, 5.0)
        second = await transport.post("/p", b"{}", {}, 5.0)
        await transport.aclose()
        return first, second

    first, second = asyncio.run(scene())
    assert (first.error, first.sent) == ("remote_protocol_error", True), "never repeated by itself"
    assert second.status == 200


def test_the_real_transports_share_one_tls_context_and_repeat_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(httpx, "AsyncHTTPTransport", lambda **settings: asked.append(settings))
    Transport("https://x.example", connect_s=1.0, lanes=3, bytes_max=10)
    assert len(asked) == 5
    assert {settings["retries"] for settings in asked} == {0}
    assert {settings["trust_env"] for settings in asked} == {False}
    assert len({id(settings["verify"]) for settings in asked}) == 1


def test_only_one_module_imports_httpx() -> None:
    importers = {
        path.name
        for path in (REPOSITORY / "ledger").rglob("*.py")
        if any(line.startswith(("import httpx", "from httpx")) for line in path.read_text().splitlines())
    }
    assert importers == {Path(module.__file__).name}


def test_the_pure_modules_load_without_httpx() -> None:
    script = (
        "import sys; import ledger.api.wire, ledger.api.gate, ledger.api.provider;"
        "assert 'httpx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=REPOSITORY)
