"""A sandbox for the length of a test: without a network, in a thread, or in a process with its own core."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.sandbox.app import Sandbox
from ledger.sandbox.serve import listen, make_server, serve
from ledger.sandbox.settings import Settings
from ledger.sandbox.wire import Message

STOP_S: Final = 10
"""A sandbox that does not stop within this is a bug, not a slow machine."""
TELL_S: Final = 120
"""The whole books of 100,000 jobs are 75 MB and take five seconds."""

KEY: Final = "411_sandbox_test_key"
"""An account key that a sandbox with default settings accepts."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What `call` got back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; raises ValueError when it is none."""
        return json.loads(self.body)


async def call(
    app: Sandbox,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = KEY,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Ask a sandbox in process, without a network and without an HTTP client.

    Args:
        app: The sandbox.
        method: Of the request.
        path: Of the request, with its query.
        body: Sent as JSON; bytes are sent as they are.
        token: Bearer to send; None for an anonymous caller.
        headers: More headers, with lower-case names.

    Raises:
        ConnectionDropped: Where a socket would have been closed (or what `dropped` of the app makes).
    """
    sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    fields = {**(headers or {}), **({"authorization": f"Bearer {token}"} if token else {})}
    bare, _, query = path.partition("?")
    scope: Message = {
        "type": "http",
        "method": method,
        "path": bare,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
    }
    got: list[Message] = []

    async def receive() -> Message:
        if not got:
            return {"type": "http.request", "body": sent}
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return] # we stay

    async def send(message: Message) -> None:
        got.append(message)

    await app(scope, receive, send)
    told = {name.decode(): value.decode() for name, value in got[0]["headers"]}
    return Reply(got[0]["status"], told, b"".join(part["body"] for part in got[1:]))


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Serve a sandbox in a daemon thread on a free loopback port; yields its base URL."""
    with listen("127.0.0.1", 0) as ear:
        server = make_server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{ear.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STOP_S)
            assert not thread.is_alive(), "the sandbox does not stop"


@contextmanager
def running_process(settings: Settings) -> Iterator[str]:
    """Serve a sandbox in a subprocess on a free loopback port; yields its base URL.

    The subprocess ends with the block, and also when this process dies (its standard input closes).
    """
    command = [sys.executable, "-m", "ledger.sandbox.testing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - our own module
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(settings.to_json() + "\n")
            child.stdin.flush()
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.terminate()
            child.wait(STOP_S)


def tell(base_url: str, path: str, body: object = None) -> Any:
    """GET a page of a served sandbox, or POST `body` to it, and return its JSON.

    `tell(url, "/sandbox/books")`, `tell(url, "/sandbox/advance", {"seconds": 60})`.
    """
    where = urlsplit(base_url)
    connection = HTTPConnection(where.hostname or "", where.port, timeout=TELL_S)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, sent)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        assert answer.status == 200, told
        return told
    finally:
        connection.close()


def main() -> None:
    """Serve the settings that come as one line on standard input; print the port; stop when it closes."""
    settings = Settings.from_json(sys.stdin.readline())
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    serve(settings, on_ready=_say_port)


def _say_port(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def _stop_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
