"""The sandbox on a port, until it is told to stop."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ledger.sandbox.app import create_app
from ledger.sandbox.settings import Settings

if TYPE_CHECKING:
    import uvicorn

BACKLOG: Final = 2048
SHUTDOWN_S: Final = 1
"""A stopping sandbox waits so long for answers on their way: sync calls may want minutes."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError when the address is taken.

    The protocol is named on purpose: asyncio switches Nagle's algorithm off only where it sees TCP by name.
    Left on, each answer (headers, then body) waits 40 ms for the client's delayed acknowledgement.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    ear = socket.socket(family, kind, protocol)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind(address)
        ear.listen(BACKLOG)
    except OSError:
        ear.close()
        raise
    return ear


def make_server(settings: Settings) -> uvicorn.Server:
    """A uvicorn server for one sandbox; `run(sockets=[…])` serves, `should_exit = True` stops it."""
    import uvicorn  # noqa: PLC0415 - half the commands of the CLI never serve, and it is slow to import

    return uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )


def serve(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Serve a sandbox; returns after SIGTERM or SIGINT, having waited a second for answers on their way.

    Args:
        settings: How it behaves.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        on_ready: Called with the port once connections are queued.

    Raises:
        OSError: The address is taken.
    """
    with listen(host, port) as ear:
        server = make_server(settings)
        with stopped_by_signals(server):
            if on_ready is not None:
                on_ready(ear.getsockname()[1])
            server.run(sockets=[ear])


@contextmanager
def stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop the server and end nothing else.

    While it serves, uvicorn has its own handlers. Before that a signal must not be lost; afterwards uvicorn
    raises the one that stopped it once more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
