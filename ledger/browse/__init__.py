"""The Datasette plugin: masking, the gate, the pages, the receiver. Reads through Datasette, writes nothing.

What people do in the browser becomes a file in the inbox; whoever holds the ledger applies it. The plugin
keeps out of the way of a Datasette that serves no ledger.

Datasette imports this package while its own `datasette.app` is half imported, so nothing here may import that
at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasette import hookimpl

from ledger.browse import cells, compat, guard, outside, pages, wishes, words
from ledger.browse.asgi import App
from ledger.browse.mask import guard_connections, log_no_queries, mask, never_write

if TYPE_CHECKING:
    from datasette.app import Datasette

guard_connections()


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
                log_no_queries(database)
                compat.log_no_locals()

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
    env.filters.update({f"ledger_{name}": function for name, function in words.FILTERS.items()})


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """The pages and the actions."""
    return [
        (r"^/-/ledger/?$", pages.show_overview),
        (r"^/-/ledger/chart\.json$", pages.show_chart),
        (r"^/-/ledger/find$", pages.find),
        (r"^/-/ledger/leads/(?P<lead>[^/]+)$", pages.show_lead),
        (r"^/-/ledger/jobs/(?P<job>[^/]+)$", pages.show_job),
        (r"^/-/ledger/runs/?$", pages.show_runs),
        (r"^/-/ledger/runs/(?P<run>[^/]+)$", pages.show_run),
        (r"^/-/ledger/do/(?P<kind>[a-z]+)$", wishes.route),
        (r"^/-/ledger/done/(?P<item>[0-9a-f-]{36})$", wishes.done),
    ]


@hookimpl
def skip_csrf(scope: Any) -> bool:
    """Our forms carry a signed ticket, and the gate has looked where they come from."""
    return str(scope["path"]).startswith("/-/ledger/do/")


@hookimpl
def render_cell(value: Any, column: str, table: str | None, database: str, datasette: Datasette) -> Any:
    """Badges, dollars, times and links in Datasette's own tables."""
    if not outside.is_known_ledger(datasette, database):
        return None
    return cells.cell(datasette, value, column, table, outside.of(datasette).clock.now())


@hookimpl
def extra_css_urls(datasette: Datasette, database: str | None) -> list[str]:
    """Badges and dark mode on Datasette's own pages."""
    known = database is None or outside.is_known_ledger(datasette, database)
    return [datasette.urls.static_plugins("leadledger", "data.css")] if known else []


@hookimpl
def menu_links(datasette: Datasette) -> list[dict[str, str]]:
    """The way from Datasette's pages to ours."""
    if not any(outside.is_known_ledger(datasette, name) for name in datasette.databases):
        return []
    return [
        {"href": datasette.urls.path("/-/ledger"), "label": "Overview of the ledger"},
        {"href": datasette.urls.path("/-/ledger/runs"), "label": "Runs"},
        {"href": datasette.urls.path("/-/ledger/find"), "label": "Find a lead"},
    ]
