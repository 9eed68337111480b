"""Everything in which Datasette 0.65 and 1.0 differ, as far as it concerns us."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datasette import __version__

from ledger.browse.catalog import catalog
from ledger.errors import Bug

if TYPE_CHECKING:
    from datasette.app import Datasette

IS_ONE: Final = int(__version__.split(".", maxsplit=1)[0]) >= 1
SQL_MS_MAX: Final = 10_000
"""A list of a million leads sorted by a sum takes two seconds on a quiet machine, more on a busy one. Nothing
may take much longer: a query that is still reading keeps the writer's log from being cut."""
SETTINGS: Final = {
    "allow_download": False,  # the file itself, bearers and all
    "default_cache_ttl": 0,
    "facet_time_limit_ms": 60,
    "max_returned_rows": 1000,
    "sql_time_limit_ms": SQL_MS_MAX,
    "suggest_facets": False,  # a query a column on every page: too dear on a million rows
    "truncate_cells_html": 400,
}


def build(path: Path, columns: Mapping[str, tuple[str, ...]]) -> Datasette:
    """A Datasette that serves one ledger, mutable and `mode=ro`, with everything in words.

    Args:
        path: The ledger.
        columns: Every table and view with its columns, in order.

    Raises:
        Bug: Datasette does not know the plugin.
    """
    from datasette.app import Datasette  # noqa: PLC0415 - its import loads the plugins, and so this file
    from datasette.plugins import pm  # noqa: PLC0415 - the same

    from ledger import browse  # noqa: PLC0415 - the same

    if not pm.get_hookcallers(browse):
        raise Bug("Datasette has not taken the plugin: it would show the ledger unmasked.")
    known, name = catalog(), path.stem
    words: dict[str, Any] = {}
    behaviour: dict[str, Any] = {}
    for table, names in columns.items():
        one = known.tables.get(table)
        if one is None:
            continue
        words[table] = {"description": one.about, "columns": known.columns(table, names)}
        chosen = {"facets": list(one.facets), "sort_desc": one.newest, "label_column": one.label}
        behaviour[table] = {key: value for key, value in chosen.items() if value}
    queries = {
        key: {"title": one.title, "sql": one.sql, "description": one.description}
        for key, one in known.queries.items()
    }
    told: dict[str, Any] = {"title": known.title, "description": known.description}
    if IS_ONE:
        # 1.0 drops queries and table settings that stand in the metadata.
        metadata = {**told, "databases": {name: {"tables": words}}}
        config = {"databases": {name: {"tables": behaviour, "queries": queries}}}
        settings = {**SETTINGS, "allow_signed_tokens": False}
        datasette = Datasette([str(path)], metadata=metadata, config=config, settings=settings)
        _never_sync(datasette.get_internal_database())
        return datasette
    tables = {table: {**words[table], **behaviour[table]} for table in words}
    metadata = {**told, "databases": {name: {"tables": tables, "queries": queries}}}
    return Datasette([str(path)], metadata=metadata, settings=SETTINGS)


def log_no_locals() -> None:
    """Where `rich` is installed, Datasette logs each local variable of an error, people's data among them."""
    from datasette import handle_exception  # noqa: PLC0415 - it waits for datasette.app

    handle_exception.rich = None


def _never_sync(internal: Any) -> None:
    """1.0 writes each column's description into a temporary file of its own, with a sync each: 2 s of start.

    The file dies with the process.
    """
    connect = internal.connect

    def quick(*, write: bool = False) -> Any:
        connection = connect(write=write)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    internal.connect = quick


async def may_look(datasette: Datasette, actor: dict[str, Any] | None, database: str) -> bool:
    """True when whoever asks may look at the database, by the permissions of this Datasette."""
    if IS_ONE:
        from datasette.resources import DatabaseResource  # noqa: PLC0415 - 0.65 has no such module

        resource = DatabaseResource(database=database)
        return bool(await datasette.allowed(action="view-database", resource=resource, actor=actor))
    for action, resource in (("view-instance", None), ("view-database", database)):
        if not await datasette.permission_allowed(actor, action, resource=resource, default=True):
            return False
    return True
