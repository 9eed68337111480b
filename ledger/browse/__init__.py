"""The Datasette plugin: masking, the gate, the pages, the receiver. Reads through Datasette, writes nothing.

What people do in the browser becomes a file in the inbox; whoever holds the ledger applies it. The plugin
keeps out of the way of a Datasette that serves no ledger.

Datasette imports this package while its own `datasette.app` is half imported, so nothing here may import that
at run time (`compat` may: nothing here imports it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasette import hookimpl

from ledger.browse import guard, outside
from ledger.browse.asgi import App
from ledger.browse.mask import mask, never_write

if TYPE_CHECKING:
    from datasette.app import Datasette


@hookimpl
def prepare_connection(conn: Any) -> None:
    """Every connection, before its first query."""
    mask(conn)


@hookimpl
def startup(datasette: Datasette) -> Any:
    """Before the first request: a ledger is only read from here on."""

    async def settle() -> None:
        for database in list(datasette.databases.values()):
            if database.path is not None and await outside.is_ledger(database):
                never_write(database)

    return settle


@hookimpl(trylast=True)
def asgi_wrapper(datasette: Datasette) -> Any:
    """The outermost layer."""

    def wrap(app: App) -> App:
        return guard.guarded(app, datasette)

    return wrap


@hookimpl
def prepare_jinja2_environment(env: Any) -> None:
    """Scripts of templates carry the nonce of the answer's policy."""
    env.add_extension(guard.ScriptNonces)
